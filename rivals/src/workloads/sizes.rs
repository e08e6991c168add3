//! How does throughput depend on the size of a message?
//!
//! One producer, one consumer, messages of 16 bytes to 64 KiB, as buffers: the rivals move a `Vec<u8>` that
//! the producer makes for each message, which is what a program does that gives its buffers away. It stands
//! for buffers of a program. It does not stand for a rival whose buffers come back to the producer. Of large
//! messages the consumer looks at samples only, or its looking would be all there is to see.
//!
//! walchan under `FlushOnly`: a ring of 4 MiB, and no bound but that; a struct with bytes, which is encoded
//! and decoded into a new one, or borrowed bytes.

use super::{Outcome, Setting};
use crate::channels::{BOUND, BOUND_BEYOND_RING, RING_BYTES, flush_only};
use crate::measure::{Contender, rates};
use crate::messages::{Blob, Tally, get_stamp, put_stamp, stamp, sum_of_samples};
use crate::plot::{self, Axis, Chart};
use crate::pump::pump;
use crate::table::Unit;
use std::time::Duration;

const SIZES: [usize; 7] = [16, 64, 256, 1024, 4096, 16384, 65536];

/// One sender of so many messages made from a buffer, and one consumer of bytes.
pub fn move_bytes(
    len: usize,
    n: u64,
    send: impl FnOnce(&mut dyn Iterator<Item = u64>, Blob) + Send,
    receive: impl FnOnce(&mut dyn FnMut(&[u8])),
) -> Duration {
    let mut buffer = Blob::of_len(len);
    let sums = (0..n).map(|i| {
        put_stamp(&mut buffer.0, stamp(0, i));
        sum_of_samples(&buffer.0)
    });
    let sum = sums.fold(0u64, u64::wrapping_add);
    let sender = || send(&mut (0..n).map(|i| stamp(0, i)), Blob::of_len(len));
    pump(vec![sender], n, sum, |tally: &mut Tally| {
        receive(&mut |bytes| tally.add(get_stamp(bytes), sum_of_samples(bytes)));
    })
}

macro_rules! in_memory {
    ($name:literal, $len:expr, $channel:expr) => {
        Contender::new($name, 1, move |n, _| {
            let (tx, rx) = $channel;
            let send = move |stamps: &mut dyn Iterator<Item = u64>, first: Blob| {
                for stamp in stamps {
                    let mut bytes = first.0.clone();
                    put_stamp(&mut bytes, stamp);
                    tx.send(bytes).expect("the consumer is there");
                }
            };
            move_bytes($len, n, send, |look| {
                for bytes in rx.iter() {
                    look(&bytes);
                }
            })
        })
    };
}

pub fn std_bounded(len: usize) -> Contender<'static> {
    in_memory!(
        "std sync_channel(1024)",
        len,
        std::sync::mpsc::sync_channel::<Vec<u8>>(BOUND)
    )
}

fn crossbeam_bounded(len: usize) -> Contender<'static> {
    in_memory!(
        "crossbeam bounded(1024)",
        len,
        crossbeam_channel::bounded::<Vec<u8>>(BOUND)
    )
}

fn typed(len: usize) -> Contender<'static> {
    Contender::new("walchan, serde", 1, move |n, dir| {
        let options = flush_only(RING_BYTES);
        let path = dir.join("queue");
        let (tx, rx) = walchan::sync_channel_with_options(path, BOUND_BEYOND_RING, options)
            .expect("a new channel");
        let send = move |stamps: &mut dyn Iterator<Item = u64>, first: Blob| {
            let mut message = first;
            for stamp in stamps {
                put_stamp(&mut message.0, stamp);
                // Taken by value, so the next one is a clone.
                tx.send(message.clone()).expect("sent");
            }
        };
        move_bytes(len, n, send, |look| {
            for message in &rx {
                look(&message.0);
            }
        })
    })
}

fn contenders(size: usize) -> Vec<Contender<'static>> {
    vec![
        super::bytes::borrowed(size),
        typed(size),
        std_bounded(size),
        crossbeam_bounded(size),
    ]
}

pub fn run(setting: &Setting) -> Outcome {
    let all: Vec<Contender<'_>> = SIZES.into_iter().flat_map(contenders).collect();
    let figures = rates(&setting.place, &setting.pace, &all, 20_000);
    let series = plot::series(&SIZES.map(|size| size as f64), &figures);
    let name = |size: &usize| match size {
        0..1024 => format!("{size} B"),
        _ => format!("{} KiB", size / 1024),
    };
    let chart = Chart {
        title: "Throughput by size of the message",
        subtitle: format!(
            "1 producer, 1 consumer, no sync; medians of {} rounds, bars from lowest to highest",
            setting.pace.rounds
        ),
        x: Axis {
            label: "payload of a message",
            ticks: SIZES.iter().map(|s| (*s as f64, name(s))).collect(),
        },
        y_label: "messages per second",
        y_unit: Unit::Rate,
        series,
    };
    Outcome {
        rows: Vec::new(),
        charts: vec![("throughput-by-size", chart)],
    }
}
