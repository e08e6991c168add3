//! What does a message cost that need not wait for the disk, next to channels in memory?
//!
//! One producer sends 64 bytes of a fixed size, a struct with a `[u64; 8]`, as fast as it can; one consumer
//! receives, adds up, acknowledges. It stands for two threads of a pipeline whose work on a message is
//! nothing, so that the channel is all there is. It does not stand for messages that allocate, for several
//! producers, for a consumer that is slower than its producer, nor for a channel that rests and wakes up.
//!
//! walchan under `FlushOnly`: `sync_channel_with_codec`, once with `Plain`, the codec for such structs, and
//! once with the default, with a ring of 4 MiB, and a bound that is larger than what fits, so that a sender
//! waits for room; its acknowledged room returns a quarter ring at a time. The last row is walchan with the
//! rivals' own bound of 1024 messages.

use super::{Outcome, Setting};
use crate::channels::{self, BOUND, BOUND_BEYOND_RING, RING_BYTES, flush_only};
use crate::measure::rates;
use crate::messages::Small;
use crate::table::{Goal, Row, Unit};
use walchan::{Bincode, Plain};

pub fn run(setting: &Setting) -> Outcome {
    let plain =
        |name, bound| channels::walchan::<Small, Plain>(name, 1, bound, flush_only(RING_BYTES));
    let contenders = [
        plain("walchan", BOUND_BEYOND_RING),
        channels::std_bounded::<Small>(1),
        channels::std_unbounded::<Small>(1),
        channels::crossbeam_bounded::<Small>(1),
        plain("walchan, bound 1024", BOUND),
        channels::walchan::<Small, Bincode>(
            "walchan, bincode",
            1,
            BOUND_BEYOND_RING,
            flush_only(RING_BYTES),
        ),
    ];
    let figures = rates(&setting.place, &setting.pace, &contenders, 300_000);
    let row = |own: usize, rival: usize, what: &str, goal| {
        let by_round = &figures.by_round;
        let workload = format!("FlushOnly, 64 bytes, 1 -> 1{what}");
        let name = &figures.names[rival];
        Row::new(
            workload,
            Unit::Rate,
            &by_round[own],
            name,
            &by_round[rival],
            goal,
        )
    };
    vec![
        row(0, 1, "", Goal::AtLeast(1.5)),
        row(0, 2, "", Goal::AtLeast(1.5)),
        row(0, 3, "", Goal::AtLeast(1.1)),
        row(4, 1, ", both bound to 1024", Goal::None),
        row(5, 1, ", bincode", Goal::None),
    ]
    .into()
}
