//! What a message costs in instructions: `cargo xtask instructions` runs this under callgrind, which counts
//! the same whatever else the machine does.
//!
//! One thread sends `WALCHAN_COUNT` messages, and with `WALCHAN_KIND` ending in `-received` receives and
//! acknowledges them, a hundred at a time; `FlushOnly`, one lap of the ring after the other. It stands for
//! the instructions of the straight path. It says nothing of what two threads cost each other: cache lines
//! that go to and fro, and waiting.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;
use walchan::{Bincode, Codec, Durability, Options, ReceiverOptions};

const BOUND: usize = 1 << 20;
const LATE: ReceiverOptions = ReceiverOptions {
    commit_every: 64,
    commit_max_delay: Duration::ZERO,
};

fn options() -> Options {
    Options {
        durability: Durability::FlushOnly,
        ring_bytes: Some(64 << 20),
        ..Options::default()
    }
}

fn values<C: Codec<[u64; 8]>>(path: &Path, count: u64, received: bool) -> u64 {
    let channel = options().codec_sync_channel::<[u64; 8], C>(path, BOUND);
    let (tx, rx) = channel.unwrap();
    let rx = rx.with_options(LATE);
    let mut sum = 0;
    for _ in 0..count / 100 {
        (0..100).for_each(|n| tx.send([n; 8]).unwrap());
        if received {
            (0..100).for_each(|_| sum += rx.recv().unwrap()[0]);
        }
    }
    sum
}

fn main() {
    let count: u64 = std::env::var("WALCHAN_COUNT").map_or(1000, |count| count.parse().unwrap());
    let kind = std::env::var("WALCHAN_KIND").unwrap_or_else(|_| "values-received".to_owned());
    let (what, received) = match kind.strip_suffix("-received") {
        Some(what) => (what, true),
        None => (kind.as_str(), false),
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("queue");
    let mut sum = 0u64;
    match what {
        "values" => sum += values::<Bincode>(&path, count, received),
        #[cfg(feature = "bytemuck")]
        "plain" => sum += values::<walchan::Plain>(&path, count, received),
        "bytes" => {
            let channel = options().bytes_sync_channel(&path, BOUND);
            let (tx, rx) = channel.unwrap();
            let rx = rx.with_options(LATE);
            let payload = [7; 64];
            for _ in 0..count / 100 {
                (0..100).for_each(|_| tx.send(&payload).unwrap());
                if received {
                    (0..100).for_each(|_| sum += u64::from(rx.recv().unwrap()[0]));
                }
            }
        }
        other => panic!("{other} is no kind"),
    }
    assert!(!received || sum > 0);
}
