//! What does a message cost next to other queues and logs in files?
//!
//! 128 bytes a message, sent, received and acknowledged; how each library is used is in the head of its file
//! in `peers`. Durable: each message is on stable storage when its send returns, with 1 producer and with 16.
//! Unsynced: nobody waits for the disk, 1 producer. It stands for a program that hands work to itself and has
//! one consumer. It does not stand for what these libraries can do besides: queries, transactions, several
//! topics, random access.

use super::{Outcome, Setting};
use crate::measure::{Contender, Figures, rates};
use crate::peers::{ALL, Peer, WALCHAN};
use crate::table::{Goal, Row, Unit};

/// The first one is walchan.
fn measure(setting: &Setting, peers: &[Peer], durable: bool, producers: u64) -> Figures {
    let all = std::iter::once(&WALCHAN).chain(peers);
    let contenders: Vec<Contender<'_>> =
        all.map(|peer| peer.contender(durable, producers)).collect();
    let messages = if durable { 320 } else { 5_000 };
    rates(&setting.place, &setting.pace, &contenders, messages)
}

fn rows(workload: &str, figures: &Figures, least: f64, each: impl Fn(usize) -> Goal) -> Vec<Row> {
    let own = &figures.by_round[0];
    let rivals: Vec<usize> = (1..figures.names.len()).collect();
    let row =
        |name: &str, other: &[f64], goal| Row::new(workload, Unit::Rate, own, name, other, goal);
    let mut rows = Vec::new();
    for &rival in &rivals {
        rows.push(row(
            &figures.names[rival],
            &figures.by_round[rival],
            each(rival - 1),
        ));
    }
    let best = figures.highest_of(&rivals);
    rows.push(row("the best of these", &best, Goal::AtLeast(least)));
    rows
}

pub fn run_durable(setting: &Setting) -> Outcome {
    let peers: Vec<Peer> = ALL.iter().filter(|peer| peer.durable).copied().collect();
    let mut all = Vec::new();
    for producers in [1, 16] {
        let workload = format!("durable send, receive, acknowledge, {producers} -> 1");
        let figures = measure(setting, &peers, true, producers);
        let each = |peer: usize| match (producers, peers[peer].groups) {
            (16, false) => Goal::AtLeast(10.0),
            _ => Goal::None,
        };
        all.extend(rows(&workload, &figures, 1.5, each));
    }
    all.into()
}

pub fn run_unsynced(setting: &Setting) -> Outcome {
    let peers: Vec<Peer> = ALL.iter().filter(|peer| peer.unsynced).copied().collect();
    let figures = measure(setting, &peers, false, 1);
    let workload = "unsynced send, receive, acknowledge, 1 -> 1";
    rows(workload, &figures, 20.0, |_| Goal::None).into()
}
