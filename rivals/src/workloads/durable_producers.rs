//! How does durable throughput grow with the number of producers?
//!
//! 128 bytes a message, each on stable storage when its send returns, sent, received and acknowledged, 1 to
//! 64 producers that send one message after the other; beside it one thread that writes and syncs a page,
//! whatever the number of producers. It stands for a server whose requests each wait for the disk. It does
//! not stand for producers that have several messages under way.
//!
//! How each library is used is in the head of its file in `peers`.

use super::synced::plain_loop;
use super::{Outcome, Setting};
use crate::measure::{Contender, rates};
use crate::peers::{ALL, WALCHAN};
use crate::plot::{self, Axis, Chart};
use crate::table::Unit;

const PRODUCERS: [u64; 7] = [1, 2, 4, 8, 16, 32, 64];
const SHOWN: [&str; 5] = [
    "okaywal",
    "persistent-queue (redb)",
    "SQLite",
    "queue-file",
    "walchan 0.1.0",
];

fn contenders(producers: u64) -> Vec<Contender<'static>> {
    let shown = ALL.iter().filter(|peer| SHOWN.contains(&peer.name));
    let peers = std::iter::once(&WALCHAN).chain(shown);
    let peers = peers.map(|peer| peer.contender(true, producers));
    peers.chain([plain_loop()]).collect()
}

pub fn run(setting: &Setting) -> Outcome {
    let all: Vec<Contender<'_>> = PRODUCERS.into_iter().flat_map(contenders).collect();
    let figures = rates(&setting.place, &setting.pace, &all, 320);
    let series = plot::series(&PRODUCERS.map(|count| count as f64), &figures);
    let chart = Chart {
        title: "Durable throughput by number of producers",
        subtitle: format!(
            "128 bytes, on stable storage when send returns; medians of {} rounds, bars from lowest to highest",
            setting.pace.rounds
        ),
        x: Axis {
            label: "producers",
            ticks: PRODUCERS.map(|p| (p as f64, p.to_string())).to_vec(),
        },
        y_label: "messages per second",
        y_unit: Unit::Rate,
        series,
    };
    Outcome {
        rows: Vec::new(),
        charts: vec![("durable-by-producers", chart)],
    }
}
