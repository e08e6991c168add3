//! What does a message cost when many others are in front of it?
//!
//! One thread fills a channel with a backlog of 16-byte messages, 10 to 10 million of them, and then sends
//! one and receives and acknowledges one, again and again, so that the backlog stays. It stands for a
//! consumer that has fallen behind and keeps up from there. It does not stand for two threads, nor for what
//! it takes to fall behind.
//!
//! walchan under `FlushOnly`, `channel_with_options`; std `channel`, crossbeam `unbounded`.

use super::{Outcome, Setting};
use crate::channels::flush_only;
use crate::measure::{Figures, order};
use crate::messages::{Message, Pair, Tally, stamp, sum_sent};
use crate::plot::{self, Axis, Chart};
use crate::table::{Goal, Row, Unit};
use std::path::Path;
use std::time::Instant;
use walchan::Options;

/// The default: what does not fit lies in further files.
const RING: u64 = 16 << 20;

fn backlogs(setting: &Setting) -> Vec<u64> {
    let most = if setting.pace.is_quick() { 6 } else { 7 };
    (1..=most).map(|power| 10u64.pow(power)).collect()
}

fn options() -> Options {
    flush_only(RING)
}

/// Nanoseconds for a message sent, and one received and acknowledged.
fn steady(backlog: u64, steps: u64, send: impl Fn(Pair), receive: impl Fn() -> Pair) -> f64 {
    let first = Pair::first();
    (0..backlog).for_each(|i| send(first.next(stamp(0, i))));
    let mut tally = Tally::new(1);
    let began = Instant::now();
    for i in backlog..backlog + steps {
        send(first.next(stamp(0, i)));
        tally.add_message(&receive());
    }
    let elapsed = began.elapsed();
    tally.verify(steps, sum_sent::<Pair>(1, steps));
    elapsed.as_nanos() as f64 / steps as f64
}

const NAMES: [&str; 3] = ["walchan", "std channel", "crossbeam unbounded"];

fn run_one(who: usize, dir: &Path, backlog: u64, steps: u64) -> f64 {
    match who {
        0 => {
            let path = dir.join("queue");
            let (tx, rx) =
                walchan::channel_with_options::<Pair>(path, options()).expect("a new channel");
            let send = |message| tx.send(message).expect("sent");
            steady(backlog, steps, send, || {
                rx.recv().expect("a message").into_inner()
            })
        }
        1 => {
            let (tx, rx) = std::sync::mpsc::channel();
            let send = |message| tx.send(message).expect("sent");
            steady(backlog, steps, send, || rx.recv().expect("a message"))
        }
        _ => {
            let (tx, rx) = crossbeam_channel::unbounded();
            let send = |message| tx.send(message).expect("sent");
            steady(backlog, steps, send, || rx.recv().expect("a message"))
        }
    }
}

pub fn run(setting: &Setting) -> Outcome {
    let steps = if setting.pace.is_quick() {
        100_000
    } else {
        500_000
    };
    let backlogs = backlogs(setting);
    let count = NAMES.len();
    let mut figures = Figures {
        names: backlogs
            .iter()
            .flat_map(|_| NAMES.map(str::to_owned))
            .collect(),
        by_round: vec![Vec::new(); backlogs.len() * count],
    };
    for round in 0..setting.pace.rounds {
        for at in order(round, figures.names.len()) {
            let dir = setting.place.fresh();
            let figure = run_one(at % count, dir.path(), backlogs[at / count], steps);
            figures.by_round[at].push(figure);
        }
    }
    let row = |(backlog, figures): (&u64, &[Vec<f64>])| {
        let workload = format!("FlushOnly, 16 bytes, backlog of {backlog}");
        let [own, other] = [&figures[0], &figures[1]];
        Row::new(workload, Unit::Time, own, NAMES[1], other, Goal::None)
    };
    let rows = backlogs.iter().zip(figures.by_round.chunks(count)).map(row);
    let xs: Vec<f64> = backlogs.iter().map(|backlog| *backlog as f64).collect();
    let name = |backlog: u64| match backlog {
        0..1_000 => backlog.to_string(),
        1_000..1_000_000 => format!("{} k", backlog / 1_000),
        _ => format!("{} M", backlog / 1_000_000),
    };
    let ticks = backlogs.iter().map(|b| (*b as f64, name(*b)));
    let chart = Chart {
        title: "Cost of a message by backlog",
        subtitle: format!(
            "one thread sends one, receives and acknowledges one, no sync; medians of {} rounds",
            setting.pace.rounds
        ),
        x: Axis {
            label: "messages in front of it",
            ticks: ticks.collect(),
        },
        y_label: "time for a message",
        y_unit: Unit::Time,
        series: plot::series(&xs, &figures),
    };
    Outcome {
        rows: rows.collect(),
        charts: vec![("cost-by-backlog", chart)],
    }
}
