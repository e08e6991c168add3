//! What does a message cost that owns memory, and need not wait for the disk?
//!
//! One producer sends a struct with a `String` and a `Vec<u8>` of 64 bytes each; one consumer receives, reads
//! all of it, acknowledges. Each message is a clone of one that the producer keeps, for walchan and std
//! alike, because both take messages by value. It stands for records of a program. It does not stand for
//! large buffers.
//!
//! walchan under `FlushOnly` as in `small`: a ring of 4 MiB, and no bound but that.

use super::{Outcome, Setting};
use crate::channels::{self, BOUND_BEYOND_RING, RING_BYTES, flush_only};
use crate::measure::rates;
use crate::messages::Record;
use crate::table::{Goal, Row, Unit};

pub fn run(setting: &Setting) -> Outcome {
    let contenders = [
        channels::walchan::<Record, walchan::Bincode>(
            "walchan",
            1,
            BOUND_BEYOND_RING,
            flush_only(RING_BYTES),
        ),
        channels::std_bounded::<Record>(1),
    ];
    let figures = rates(&setting.place, &setting.pace, &contenders, 100_000);
    let [own, other] = &figures.by_round[..] else {
        unreachable!("two contenders");
    };
    let what = "FlushOnly, String and Vec<u8> of 64 bytes, 1 -> 1";
    let goal = Goal::AtLeast(1.0);
    vec![Row::new(
        what,
        Unit::Rate,
        own,
        &figures.names[1],
        other,
        goal,
    )]
    .into()
}
