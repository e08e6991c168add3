//! What do buffers cost in a channel that borrows them, on both sides?
//!
//! One producer sends the same buffer again and again, with another stamp each time; one consumer looks at
//! samples of what it borrows, and acknowledges. 1 KiB next to std, which moves a `Vec<u8>` made for each
//! message; 64 KiB next to `memcpy` on one core, in the same rounds: from one buffer of 64 KiB into a memory
//! as large as the ring, round and round, which is what a sender cannot do without. It stands for buffers
//! that are filled, sent and used again. It does not stand for messages that have to be decoded.
//!
//! walchan under `FlushOnly`: `bytes_sync_channel_with_options`, a ring for as many messages as the rivals'
//! bound, 1 MiB at least and 4 MiB at most, and no bound but that.

use super::sizes::{move_bytes, std_bounded};
use super::{Outcome, Setting};
use crate::channels::{BOUND, BOUND_BEYOND_RING, RING_BYTES, flush_only};
use crate::measure::{Contender, rates};
use crate::messages::{Blob, put_stamp};
use crate::table::{Goal, Row, Unit};
use std::hint::black_box;
use std::time::Instant;
use walchan::RecvError;

const LARGE: usize = 64 << 10;

pub fn borrowed(len: usize) -> Contender<'static> {
    Contender::new("walchan, bytes", 1, move |n, dir| {
        let ring = (len as u64 * BOUND as u64).clamp(1 << 20, RING_BYTES);
        let options = flush_only(ring);
        let path = dir.join("queue");
        let (tx, rx) = options
            .bytes_sync_channel(path, BOUND_BEYOND_RING)
            .expect("a new channel");
        let send = move |stamps: &mut dyn Iterator<Item = u64>, mut buffer: Blob| {
            for stamp in stamps {
                put_stamp(&mut buffer.0, stamp);
                tx.send(&buffer.0).expect("sent");
            }
        };
        move_bytes(len, n, send, |look| {
            loop {
                match rx.recv() {
                    Ok(delivery) => look(&delivery),
                    Err(RecvError::Disconnected) => break,
                    Err(error) => panic!("not received: {error}"),
                }
            }
        })
    })
}

fn memcpy() -> Contender<'static> {
    Contender::new("memcpy", 1, move |n, _| {
        let mut buffer = Blob::of_len(LARGE).0;
        let mut memory = vec![1u8; RING_BYTES as usize];
        let place = |i: u64| {
            let at = i as usize * LARGE % RING_BYTES as usize;
            at..at + LARGE
        };
        let began = Instant::now();
        for i in 0..n {
            put_stamp(&mut buffer, i);
            memory[place(i)].copy_from_slice(black_box(&buffer));
            black_box(&mut memory);
        }
        let elapsed = began.elapsed();
        for i in n.saturating_sub(RING_BYTES / LARGE as u64)..n {
            put_stamp(&mut buffer, i);
            assert_eq!(memory[place(i)], buffer);
        }
        elapsed
    })
}

pub fn run(setting: &Setting) -> Outcome {
    let mut rows = Vec::new();
    let contenders = [borrowed(1024), std_bounded(1024)];
    let figures = rates(&setting.place, &setting.pace, &contenders, 100_000);
    rows.push(Row::new(
        "FlushOnly, bytes, 1 KiB, 1 -> 1",
        Unit::Rate,
        &figures.by_round[0],
        &figures.names[1],
        &figures.by_round[1],
        Goal::AtLeast(4.0),
    ));
    let contenders = [borrowed(LARGE), memcpy()];
    let figures = rates(&setting.place, &setting.pace, &contenders, 5_000);
    let bytes =
        |figures: &[f64]| -> Vec<f64> { figures.iter().map(|rate| rate * LARGE as f64).collect() };
    rows.push(Row::new(
        "FlushOnly, bytes, 64 KiB, 1 -> 1",
        Unit::Bytes,
        &bytes(&figures.by_round[0]),
        "memcpy of one core",
        &bytes(&figures.by_round[1]),
        Goal::AtLeast(0.5),
    ));
    rows.into()
}
