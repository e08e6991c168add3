//! How fast does a channel open whose process was killed?
//!
//! A child fills a ring under `FlushOnly` with messages of 1 KiB and is killed with `SIGKILL`; what it wrote is then
//! brought to the disk, but stays in the cache. Another child opens the file, and the time of that is held against
//! the size of the ring. Beside it: CRC-32 over as many bytes of memory on one core, which is what a scan
//! cannot do without. It stands for the start after a crash of the process. It does not stand for one after a power
//! cut, with a cold cache, nor for a ring of small messages.

use super::{Outcome, Setting};
use crate::channels::{BOUND_BEYOND_RING, flush_only};
use crate::child::{self, Waiting};
use crate::measure::order;
use crate::messages::Blob;
use crate::table::{Goal, Row, Unit};
use std::fs::File;
use std::path::Path;
use std::time::Instant;
use walchan::{Receiver, SyncSender, TrySendError};

const MESSAGE_LEN: usize = 1024;

fn open(path: &Path, ring_bytes: u64) -> (SyncSender<Blob>, Receiver<Blob>) {
    let options = flush_only(ring_bytes);
    walchan::sync_channel_with_options(path, BOUND_BEYOND_RING, options).expect("a channel")
}

fn file_and_ring(words: &[String]) -> (&Path, u64) {
    let [path, ring_bytes] = words else {
        panic!("a file, and the size of its ring");
    };
    (Path::new(path), ring_bytes.parse().expect("a size"))
}

/// The child that is killed.
pub fn child_fill(words: &[String]) -> ! {
    let (path, ring_bytes) = file_and_ring(words);
    let (tx, _rx) = open(path, ring_bytes);
    let message = Blob::of_len(MESSAGE_LEN);
    let mut sent = 0u64;
    loop {
        match tx.try_send(message.clone()) {
            Ok(()) => sent += 1,
            Err(TrySendError::Full(_)) => break,
            Err(error) => panic!("not sent: {error}"),
        }
    }
    println!("{sent}");
    loop {
        std::thread::park();
    }
}

/// The child that recovers. Its last line is the time in nanoseconds.
pub fn child_open(words: &[String]) -> ! {
    let [file_and_ring_words @ .., sent] = words else {
        panic!("a file, the size of its ring, and how many messages are in it");
    };
    let (path, ring_bytes) = file_and_ring(file_and_ring_words);
    let began = Instant::now();
    let (_tx, rx) = open(path, ring_bytes);
    let elapsed = began.elapsed();
    for _ in 0..sent.parse::<u64>().expect("a number") {
        let message = rx.try_recv().expect("a message that was kept");
        assert_eq!(message.0, Blob::of_len(MESSAGE_LEN).0);
    }
    assert!(rx.try_recv().is_err(), "more than was sent");
    println!("{}", elapsed.as_nanos());
    std::process::exit(0);
}

fn recover(setting: &Setting, ring_bytes: u64) -> f64 {
    let dir = setting.place.fresh();
    let path = dir.path().join("queue");
    let path = path.to_str().expect("a path that is text");
    let ring = ring_bytes.to_string();
    let mut child = Waiting::start(&["fill", path, &ring], dir.path());
    let sent = child.answer();
    child.kill();
    let file = File::open(path).expect("what the child left");
    file.sync_all().expect("on the disk");
    let nanos = child::ask(&["open", path, &ring, &sent.to_string()], dir.path());
    ring_bytes as f64 * 1e9 / nanos as f64
}

fn checksum(memory: &[u8]) -> f64 {
    let began = Instant::now();
    std::hint::black_box(crc32fast::hash(std::hint::black_box(memory)));
    memory.len() as f64 / began.elapsed().as_secs_f64()
}

pub fn run(setting: &Setting) -> Outcome {
    let ring_bytes: u64 = if setting.pace.is_quick() { 64 } else { 256 } << 20;
    let memory = Blob::of_len(ring_bytes as usize).0;
    let mut figures = [Vec::new(), Vec::new()];
    for round in 0..setting.pace.rounds {
        for who in order(round, 2) {
            figures[who].push(match who {
                0 => recover(setting, ring_bytes),
                _ => checksum(&memory),
            });
        }
    }
    let workload = format!("open after a kill, warm, ring of {} MiB", ring_bytes >> 20);
    let [own, other] = &figures;
    let goal = Goal::AtLeast(0.7);
    vec![Row::new(
        workload,
        Unit::Bytes,
        own,
        "CRC-32 of memory",
        other,
        goal,
    )]
    .into()
}
