//! How late do messages arrive?
//!
//! Open: messages of 64 bytes are due at a fixed rate, whatever happens to those before, and latency counts
//! from when a message was due until it was received; so a stall is charged to all that were due meanwhile,
//! and not to one only. 100 thousand a second without syncs; with syncs half of what one thread can write and
//! sync, in round numbers. Closed: there and back over two channels, the next one when the last one is back.
//! It stands for the time between an event and the work on it. It does not stand for a channel at its limit.
//!
//! walchan: `sync_channel`, bound 1024, `FlushOnly` and `SyncPerSend`; beside both std `sync_channel(1024)`.
//! A percentile that fewer than ten messages lie beyond is shown in no picture.

use super::round_trip::{histogram, of_std, of_walchan};
use super::synced::plain_loop;
use super::{Outcome, Setting};
use crate::channels::{BOUND, RING_BYTES, flush_only};
use crate::measure::{order, rates};
use crate::messages::{Message, Small, Tally, stamp, sum_sent};
use crate::plot::{Axis, Chart, Point, Series};
use crate::table::{Goal, Row, Unit};
use hdrhistogram::Histogram;
use std::time::{Duration, Instant};
use walchan::Options;

const RATE_UNSYNCED: u64 = 100_000;
const PERCENTILES: [f64; 5] = [50.0, 90.0, 99.0, 99.9, 99.99];
const BEYOND_MIN: f64 = 10.0;

/// Sends at a rate for a time, and receives here.
fn at_rate(
    rate: u64,
    time: Duration,
    mut send: impl FnMut(Small) + Send,
    mut receive: impl FnMut() -> Small,
) -> Histogram<u64> {
    let n = (time.as_secs_f64() * rate as f64) as u64;
    let mut latencies = histogram();
    let mut tally = Tally::new(1);
    // Both threads are there by then.
    let began = Instant::now() + Duration::from_millis(5);
    let due = |i: u64| began + Duration::from_nanos(i * 1_000_000_000 / rate);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let first = Small::first();
            for i in 0..n {
                let due = due(i);
                while Instant::now() < due {
                    std::hint::spin_loop();
                }
                send(first.next(stamp(0, i)));
            }
        });
        for i in 0..n {
            let message = receive();
            let late = Instant::now().saturating_duration_since(due(i));
            latencies.saturating_record((late.as_nanos() as u64).max(1));
            tally.add_message(&message);
        }
    });
    tally.verify(n, sum_sent::<Small>(1, n));
    latencies
}

fn open_walchan(setting: &Setting, options: Options, rate: u64, time: Duration) -> Histogram<u64> {
    let dir = setting.place.fresh();
    let (tx, rx) = walchan::sync_channel_with_options(dir.path().join("queue"), BOUND, options)
        .expect("a new channel");
    let send = |message| tx.send(message).expect("sent");
    at_rate(rate, time, send, || {
        rx.recv().expect("a message").into_inner()
    })
}

fn open_std(rate: u64, time: Duration) -> Histogram<u64> {
    let (tx, rx) = std::sync::mpsc::sync_channel(BOUND);
    let send = |message| tx.send(message).expect("sent");
    at_rate(rate, time, send, || rx.recv().expect("a message"))
}

/// 1, 2 or 5 times a power of ten, at most this.
fn round_down(rate: f64) -> u64 {
    let ten = 10f64.powf(rate.log10().floor());
    let step = [5.0, 2.0, 1.0].into_iter().find(|step| step * ten <= rate);
    (step.unwrap_or(1.0) * ten) as u64
}

/// A case, by round.
struct Case<'a> {
    name: String,
    run: Box<dyn Fn() -> Histogram<u64> + 'a>,
    rounds: Vec<Histogram<u64>>,
}

impl<'a> Case<'a> {
    fn new(name: impl Into<String>, run: impl Fn() -> Histogram<u64> + 'a) -> Self {
        Case {
            name: name.into(),
            run: Box::new(run),
            rounds: Vec::new(),
        }
    }

    fn by_round(&self, percentile: f64) -> Vec<f64> {
        let rounds = self.rounds.iter();
        rounds
            .map(|h| h.value_at_percentile(percentile) as f64)
            .collect()
    }

    /// Over all rounds together.
    fn series(&self) -> Series {
        let mut all = histogram();
        for round in &self.rounds {
            all.add(round).expect("the same bounds");
        }
        let beyond = |p: &f64| all.len() as f64 * (1.0 - p / 100.0) >= BEYOND_MIN;
        let point = |p: f64| {
            let y = all.value_at_percentile(p) as f64;
            let x = beyond_share(p);
            Point {
                x,
                y,
                lowest: y,
                highest: y,
            }
        };
        Series {
            name: self.name.clone(),
            points: PERCENTILES.into_iter().filter(beyond).map(point).collect(),
        }
    }
}

/// One message in so many is beyond the percentile.
fn beyond_share(percentile: f64) -> f64 {
    1.0 / (1.0 - percentile / 100.0)
}

fn chart(title: &'static str, subtitle: String, cases: &[Case<'_>]) -> Chart {
    let ticks = PERCENTILES.map(|p| (beyond_share(p), format!("p{p}")));
    Chart {
        title,
        subtitle,
        x: Axis {
            label: "percentile of messages",
            ticks: ticks.to_vec(),
        },
        y_label: "latency",
        y_unit: Unit::Time,
        series: cases.iter().map(Case::series).collect(),
    }
}

fn rows(what: &str, own: &Case<'_>, other: &Case<'_>) -> Vec<Row> {
    let row = |p: f64| {
        let workload = format!("{what}, p{p}");
        let (own, by_round) = (own.by_round(p), other.by_round(p));
        Row::new(
            workload,
            Unit::Time,
            &own,
            &other.name,
            &by_round,
            Goal::None,
        )
    };
    PERCENTILES.into_iter().map(row).collect()
}

pub fn run(setting: &Setting) -> Outcome {
    let time = setting.pace.run * 4;
    let disk = rates(&setting.place, &setting.pace, &[plain_loop()], 320);
    let slow = round_down(
        disk.by_round[0]
            .iter()
            .copied()
            .fold(f64::INFINITY, f64::min)
            / 2.0,
    );
    let fast = RATE_UNSYNCED;
    let [at_fast, at_slow] = [fast, slow].map(|rate| Unit::Rate.tick(rate as f64) + "/s");
    let unsynced = || flush_only(RING_BYTES);
    let closed = |options: Options| {
        let dir = setting.place.fresh();
        of_walchan(dir.path(), time, &options)
    };
    let mut cases = [
        Case::new(format!("walchan FlushOnly, {at_fast}"), || {
            open_walchan(setting, unsynced(), fast, time)
        }),
        Case::new(format!("std sync_channel, {at_fast}"), || {
            open_std(fast, time)
        }),
        Case::new(format!("walchan SyncPerSend, {at_slow}"), || {
            open_walchan(setting, Options::default(), slow, time)
        }),
        Case::new(format!("std sync_channel, {at_slow}"), || {
            open_std(slow, time)
        }),
        Case::new("walchan FlushOnly", || closed(unsynced())),
        Case::new("std sync_channel", || of_std(time)),
        Case::new("walchan SyncPerSend", || closed(Options::default())),
    ];
    for round in 0..setting.pace.rounds {
        for who in order(round, cases.len()) {
            let histogram = (cases[who].run)();
            cases[who].rounds.push(histogram);
        }
    }
    let pairs = [
        (format!("open, FlushOnly, {at_fast}"), 0, 1),
        (format!("open, SyncPerSend, durable, {at_slow}"), 2, 3),
        ("closed, FlushOnly".to_owned(), 4, 5),
        ("closed, SyncPerSend, durable".to_owned(), 6, 5),
    ];
    let rows = pairs
        .iter()
        .flat_map(|(what, own, other)| rows(what, &cases[*own], &cases[*other]));
    let rounds = setting.pace.rounds;
    let seconds = time.as_secs_f64() * rounds as f64;
    let open = chart(
        "Latency of messages that are due at a fixed rate",
        format!("64 bytes, from when a message was due until it was received; {seconds:.0} s each"),
        &cases[..4],
    );
    let closed = chart(
        "Latency there and back, one message at a time",
        format!("64 bytes over two channels; {seconds:.0} s each"),
        &cases[4..],
    );
    Outcome {
        rows: rows.collect(),
        charts: vec![("latency-open", open), ("latency-closed", closed)],
    }
}
