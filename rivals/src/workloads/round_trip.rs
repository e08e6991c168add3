//! How long does a message take there and back, when both sides rest in between?
//!
//! One thread sends 64 bytes and waits for the answer; another receives, acknowledges and answers; two
//! channels. There is never more than one message under way, so this is the cost of waking up. It stands for
//! a request and its reply. It does not stand for a channel under load.
//!
//! walchan: two `sync_channel`s under `FlushOnly`, bound 1024; std: two `sync_channel(1024)`. What counts is
//! the latency, so lower is better.

use super::{Outcome, Setting};
use crate::channels::{BOUND, RING_BYTES, flush_only};
use crate::measure::order;
use crate::messages::{Message, Small, Tally, stamp, sum_sent};
use crate::table::{Goal, Row, Unit};
use hdrhistogram::Histogram;
use std::path::Path;
use std::time::{Duration, Instant};
use walchan::{Options, Receiver, SyncSender};

/// Latencies in nanoseconds, of up to a minute, to three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds that make sense")
}

/// Trips of one message after the other, for so long. The answers are checked.
fn trips(time: Duration, mut trip: impl FnMut(Small) -> Small) -> Histogram<u64> {
    let mut latencies = histogram();
    let mut tally = Tally::new(1);
    let first = Small::first();
    let began = Instant::now();
    while began.elapsed() < time {
        let message = first.next(stamp(0, tally.count()));
        let sent = Instant::now();
        let answer = trip(message);
        latencies.saturating_record(sent.elapsed().as_nanos() as u64);
        tally.add_message(&answer);
    }
    tally.verify(tally.count(), sum_sent::<Small>(1, tally.count()));
    latencies
}

fn pair(dir: &Path, name: &str, options: &Options) -> (SyncSender<Small>, Receiver<Small>) {
    walchan::sync_channel_with_options(dir.join(name), BOUND, options.clone())
        .expect("a new channel")
}

pub fn of_walchan(dir: &Path, time: Duration, options: &Options) -> Histogram<u64> {
    let (there, at_other) = pair(dir, "there", options);
    let (back, at_home) = pair(dir, "back", options);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for message in &at_other {
                back.send(*message).expect("sent");
            }
        });
        let trip = |message| {
            there.send(message).expect("sent");
            at_home.recv().expect("an answer").into_inner()
        };
        let latencies = trips(time, trip);
        drop(there);
        latencies
    })
}

pub fn of_std(time: Duration) -> Histogram<u64> {
    let (there, at_other) = std::sync::mpsc::sync_channel::<Small>(BOUND);
    let (back, at_home) = std::sync::mpsc::sync_channel::<Small>(BOUND);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for message in at_other {
                back.send(message).expect("sent");
            }
        });
        let trip = |message| {
            there.send(message).expect("sent");
            at_home.recv().expect("an answer")
        };
        let latencies = trips(time, trip);
        drop(there);
        latencies
    })
}

pub fn run(setting: &Setting) -> Outcome {
    let options = flush_only(RING_BYTES);
    let percentiles = [50.0, 99.9];
    // By percentile, by contender, by round.
    let mut figures = vec![vec![Vec::new(); 2]; percentiles.len()];
    for round in 0..setting.pace.rounds {
        for who in order(round, 2) {
            let latencies = if who == 0 {
                of_walchan(setting.place.fresh().path(), setting.pace.run, &options)
            } else {
                of_std(setting.pace.run)
            };
            for (figures, percentile) in figures.iter_mut().zip(percentiles) {
                figures[who].push(latencies.value_at_percentile(percentile) as f64);
            }
        }
    }
    let row = |at: usize, goal| {
        let workload = format!("FlushOnly, round trip, p{}", percentiles[at]);
        let [own, other] = &figures[at][..] else {
            unreachable!("two contenders");
        };
        Row::new(
            workload,
            Unit::Time,
            own,
            "std sync_channel(1024)",
            other,
            goal,
        )
    };
    vec![row(0, Goal::AtMost(1.1)), row(1, Goal::AtMost(1.0))].into()
}
