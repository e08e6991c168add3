//! What does a message cost when four producers send at once, and none needs to wait for the disk?
//!
//! Four producers send 64 bytes each as fast as they can, one consumer receives, adds up, acknowledges. It
//! stands for a funnel in which producers get in each other's way. It does not stand for many more threads
//! than cores that sleep most of the time.
//!
//! walchan under `FlushOnly` as in `small`, with `Plain` and with the default codec: a ring of 4 MiB, and no
//! bound but that.

use super::{Outcome, Setting};
use crate::channels::{self, BOUND_BEYOND_RING, RING_BYTES, flush_only};
use crate::measure::rates;
use crate::messages::Small;
use crate::table::{Goal, Row, Unit};
use walchan::{Bincode, Plain};

const PRODUCERS: u64 = 4;

pub fn run(setting: &Setting) -> Outcome {
    let options = flush_only(RING_BYTES);
    let contenders = [
        channels::walchan::<Small, Plain>("walchan", PRODUCERS, BOUND_BEYOND_RING, options.clone()),
        channels::std_bounded::<Small>(PRODUCERS),
        channels::std_unbounded::<Small>(PRODUCERS),
        channels::crossbeam_bounded::<Small>(PRODUCERS),
        channels::kanal_bounded::<Small>(PRODUCERS),
        channels::flume_bounded::<Small>(PRODUCERS),
        channels::walchan::<Small, Bincode>(
            "walchan, bincode",
            PRODUCERS,
            BOUND_BEYOND_RING,
            options,
        ),
    ];
    let figures = rates(&setting.place, &setting.pace, &contenders, 300_000);
    let by_bincode = contenders.len() - 1;
    let rivals: Vec<usize> = (1..by_bincode).collect();
    let row_of = |own: usize, what: &str, name: &str, other: &[f64], goal| {
        Row::new(
            format!("FlushOnly, 64 bytes, 4 -> 1{what}"),
            Unit::Rate,
            &figures.by_round[own],
            name,
            other,
            goal,
        )
    };
    let row = |name: &str, other: &[f64], goal| row_of(0, "", name, other, goal);
    let mut rows = Vec::new();
    for &rival in &rivals {
        rows.push(row(
            &figures.names[rival],
            &figures.by_round[rival],
            Goal::None,
        ));
    }
    let best = figures.highest_of(&rivals);
    rows.push(row("the best of these", &best, Goal::AtLeast(1.0)));
    rows.push(row_of(
        by_bincode,
        ", bincode",
        "the best of these",
        &best,
        Goal::None,
    ));
    rows.into()
}
