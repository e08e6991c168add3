//! How fast does a channel come back whose process was killed?
//!
//! A child fills a ring with messages of 1 KiB and is killed with `SIGKILL`; what it wrote is then
//! brought to the disk, but stays in the cache. Another child opens the file. The time of the scan, as its
//! report tells it, and that of the whole open are held against the size of the ring. Once under `FlushOnly`:
//! then all is verified, and all that is kept goes to the disk once more. And once by a life that had synced
//! all of it: then headers are enough, and nothing is written again. Beside it: CRC-32 over as many bytes of
//! memory on one core, which is what a scan of the former cannot do without. It stands for the start after a
//! crash of the process. It does not stand for one after a power cut, with a cold cache, nor for a ring of
//! small messages.

use super::{Outcome, Setting};
use crate::channels::{BOUND_BEYOND_RING, flush_only};
use crate::child::{self, Waiting};
use crate::measure::order;
use crate::messages::Blob;
use crate::table::{Goal, Row, Unit};
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};
use walchan::{Durability, Options, Receiver, SyncSender, TrySendError};

const MESSAGE_LEN: usize = 1024;

/// The life that is killed had synced what it sent.
const SYNCED: &str = "synced";
const UNSYNCED: &str = "unsynced";

fn open(path: &Path, ring_bytes: u64, life: &str) -> (SyncSender<Blob>, Receiver<Blob>) {
    let mut options = flush_only(ring_bytes);
    if life == SYNCED {
        options = Options {
            durability: Durability::SyncEvery {
                max_ops: 1 << 16,
                max_delay: Duration::from_secs(1),
            },
            ..options
        };
    }
    walchan::sync_channel_with_options(path, BOUND_BEYOND_RING, options).expect("a channel")
}

fn file_and_ring(words: &[String]) -> (&Path, u64, &str) {
    let [path, ring_bytes, life] = words else {
        panic!("a file, the size of its ring, and how it is filled");
    };
    (Path::new(path), ring_bytes.parse().expect("a size"), life)
}

/// The child that is killed.
pub fn child_fill(words: &[String]) -> ! {
    let (path, ring_bytes, life) = file_and_ring(words);
    let (tx, _rx) = open(path, ring_bytes, life);
    let message = Blob::of_len(MESSAGE_LEN);
    let mut sent = 0u64;
    loop {
        match tx.try_send(message.clone()) {
            Ok(()) => sent += 1,
            Err(TrySendError::Full(_)) => break,
            Err(error) => panic!("not sent: {error}"),
        }
    }
    if life == SYNCED {
        tx.sync().expect("a sync");
    }
    println!("{sent}");
    loop {
        std::thread::park();
    }
}

/// The child that recovers. Its last line is the nanoseconds of the scan, and of the whole open.
pub fn child_open(words: &[String]) -> ! {
    let [file_and_ring_words @ .., sent] = words else {
        panic!("a file, the size of its ring, how it was filled, and how many messages are in it");
    };
    let (path, ring_bytes, life) = file_and_ring(file_and_ring_words);
    let began = Instant::now();
    let (_tx, rx) = open(path, ring_bytes, life);
    let elapsed = began.elapsed();
    for _ in 0..sent.parse::<u64>().expect("a number") {
        let message = rx.try_recv().expect("a message that was kept");
        assert_eq!(message.0, Blob::of_len(MESSAGE_LEN).0);
    }
    assert!(rx.try_recv().is_err(), "more than was sent");
    let scan = rx.recovery().scan_time();
    println!("{} {}", scan.as_nanos(), elapsed.as_nanos());
    std::process::exit(0);
}

/// Bytes per second of the scan, and of the whole open.
fn recover(setting: &Setting, ring_bytes: u64, life: &str) -> [f64; 2] {
    let dir = setting.place.fresh();
    let path = dir.path().join("queue");
    let path = path.to_str().expect("a path that is text");
    let ring = ring_bytes.to_string();
    let mut child = Waiting::start(&["fill", path, &ring, life], dir.path());
    let sent = child.answer();
    child.kill();
    let file = File::open(path).expect("what the child left");
    file.sync_all().expect("on the disk");
    let nanos = child::ask(&["open", path, &ring, life, &sent.to_string()], dir.path());
    let nanos: [u64; 2] = nanos.expect("an open ends");
    nanos.map(|nanos| ring_bytes as f64 * 1e9 / nanos as f64)
}

fn checksum(memory: &[u8]) -> f64 {
    let began = Instant::now();
    std::hint::black_box(crc32fast::hash(std::hint::black_box(memory)));
    memory.len() as f64 / began.elapsed().as_secs_f64()
}

pub fn run(setting: &Setting) -> Outcome {
    let ring_bytes: u64 = if setting.pace.is_quick() { 64 } else { 256 } << 20;
    let memory = Blob::of_len(ring_bytes as usize).0;
    let lives = [UNSYNCED, SYNCED];
    let mut figures: [[Vec<f64>; 2]; 2] = Default::default();
    let mut crc = Vec::new();
    for round in 0..setting.pace.rounds {
        for who in order(round, lives.len() + 1) {
            let Some(life) = lives.get(who) else {
                crc.push(checksum(&memory));
                continue;
            };
            let rates = recover(setting, ring_bytes, life);
            for (figures, rate) in figures[who].iter_mut().zip(rates) {
                figures.push(rate);
            }
        }
    }
    let [unsynced, synced] = &figures;
    let mebibytes = ring_bytes >> 20;
    let row = |what: &str, own, goal| {
        let workload = format!("{what} after a kill, warm, ring of {mebibytes} MiB");
        Row::new(workload, Unit::Bytes, own, "CRC-32 of memory", &crc, goal)
    };
    vec![
        row("scan, not synced,", &unsynced[0], Goal::AtLeast(0.7)),
        row("scan, synced,", &synced[0], Goal::AtLeast(0.7)),
        row("whole open, not synced,", &unsynced[1], Goal::None),
        row("whole open, synced,", &synced[1], Goal::None),
    ]
    .into()
}
