//! What the heuristics of pacing are worth: `cargo xtask pacing` runs each workload with one of them and
//! without it.
//!
//! One argument names the workload; it prints messages a second. Each stands for the case that its heuristic
//! is for, and for no other: one pair of threads that never pause, a bound that is always full, a sync that
//! is always shared.

#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_types)] // never under loom

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use walchan::{Durability, Options, Receiver, SyncSender};

fn open(path: &Path, bound: usize, durability: Durability) -> (SyncSender<u64>, Receiver<u64>) {
    let options = Options {
        durability,
        ..Options::default()
    };
    walchan::sync_channel_with_options(path, bound, options).unwrap()
}

/// `senders` threads send without a pause, for `time`; one receiver acknowledges each message as it comes.
fn stream(
    path: &Path,
    senders: usize,
    bound: usize,
    durability: Durability,
    time: Duration,
) -> f64 {
    let (tx, rx) = open(path, bound, durability);
    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..senders)
        .map(|_| {
            let (tx, stop) = (tx.clone(), Arc::clone(&stop));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    tx.send(1).unwrap();
                }
            })
        })
        .collect();
    drop(tx);
    let mut count = 0u64;
    let mut measured = None;
    let began = Instant::now();
    for delivery in &rx {
        count += *delivery;
        if measured.is_none() && count.is_multiple_of(16) && began.elapsed() >= time {
            measured = Some(count as f64 / began.elapsed().as_secs_f64());
            stop.store(true, Ordering::Relaxed);
        }
    }
    for thread in threads {
        thread.join().unwrap();
    }
    measured.unwrap()
}

/// One thread sends kilobytes without a pause, borrowed on both sides: the receiver is the faster one.
fn bytes(path: &Path, len: usize, time: Duration) -> f64 {
    let options = Options {
        durability: Durability::FlushOnly,
        ring_bytes: Some(64 << 20),
        ..Options::default()
    };
    let (tx, rx) = options.bytes_sync_channel(path, 1 << 16).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let sender = std::thread::spawn(move || {
        let payload = vec![7; len];
        while !stopped.load(Ordering::Relaxed) {
            tx.send(&payload).unwrap();
        }
    });
    let began = Instant::now();
    let (mut count, mut measured) = (0u64, None);
    for delivery in &rx {
        count += u64::from(delivery[0] == 7);
        if measured.is_none() && count.is_multiple_of(1024) && began.elapsed() >= time {
            measured = Some(count as f64 / began.elapsed().as_secs_f64());
            stop.store(true, Ordering::Relaxed);
        }
    }
    sender.join().unwrap();
    measured.unwrap()
}

/// One message at a time, there and back.
fn round_trips(dir: &Path, time: Duration) -> f64 {
    let (there, from_here) = open(&dir.join("there"), 1 << 16, Durability::FlushOnly);
    let (back, from_there) = open(&dir.join("back"), 1 << 16, Durability::FlushOnly);
    let echo = std::thread::spawn(move || {
        for delivery in &from_here {
            back.send(*delivery).unwrap();
        }
    });
    let began = Instant::now();
    let mut count = 0u64;
    while began.elapsed() < time {
        there.send(1).unwrap();
        count += *from_there.recv().unwrap();
    }
    let rate = count as f64 / began.elapsed().as_secs_f64();
    drop(there);
    echo.join().unwrap();
    rate
}

/// The same while so many threads do nothing but use a processor.
fn beside_others(others: usize, body: impl FnOnce() -> f64) -> f64 {
    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..others)
        .map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    let rate = body();
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
    rate
}

fn main() {
    let Some(workload) = std::env::args().nth(1).filter(|name| name != "--bench") else {
        return;
    };
    // Beside the target directory: a temporary directory may be in memory, where a sync costs nothing.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("queue");
    let time = Duration::from_millis(700);
    let synced = Durability::SyncPerSend;
    let rate = match workload.as_str() {
        "stream" => stream(&path, 1, 1 << 16, Durability::FlushOnly, time),
        "bytes-64" => bytes(&path, 64, time),
        "bytes-1024" => bytes(&path, 1024, time),
        "full" => stream(&path, 1, 1024, Durability::FlushOnly, time),
        "full-4" => stream(&path, 4, 1024, Durability::FlushOnly, time),
        "round-trips" => round_trips(dir.path(), time),
        "synced-1" => stream(&path, 1, 1 << 16, synced, time),
        "synced-16" => stream(&path, 16, 1 << 16, synced, time),
        "synced-64" => stream(&path, 64, 1 << 16, synced, time),
        "synced-64-beside-others" => beside_others(2, || stream(&path, 64, 1 << 16, synced, time)),
        other => panic!("{other} is no workload"),
    };
    println!("{rate:.0}");
}
