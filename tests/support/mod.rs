//! What the tests share: a watchdog, options, random numbers, children of their own, bytes of a file.
#![allow(dead_code, clippy::unwrap_used)] // each test file uses its own part

pub mod examples;

use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;
use walchan::{Durability, Options};

/// The longest that a test may hang before the process ends with its name: as many seconds as
/// `WALCHAN_PATIENCE` says, or long.
fn patience() -> Duration {
    let long = if cfg!(feature = "stress") { 3_600 } else { 120 };
    let said = std::env::var("WALCHAN_PATIENCE").map(|seconds| seconds.parse().unwrap());
    Duration::from_secs(said.unwrap_or(long))
}

/// Ends the process with a message when it is not dropped in time.
pub struct Watchdog {
    _released: mpsc::Sender<()>,
}

/// A watchdog for the calling test.
pub fn watchdog() -> Watchdog {
    let (released, wait) = mpsc::channel::<()>();
    let name = std::thread::current().name().unwrap_or("?").to_owned();
    std::thread::spawn(move || {
        let patience = patience();
        if wait.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("{name} hangs: it has not ended in {patience:?}");
            std::process::abort();
        }
    });
    Watchdog {
        _released: released,
    }
}

/// The smallest ring.
pub const RING: u64 = 64 << 10;
/// Bytes before the ring.
pub const HEADER: usize = 19 * 4096;
/// Bytes of the largest payload in the smallest ring.
pub const PAYLOAD_MAX: u64 = RING / 2 - 32;

/// The smallest ring, and no syncs of sends.
pub fn flush() -> Options {
    with(Durability::FlushOnly)
}

/// The smallest ring.
pub fn with(durability: Durability) -> Options {
    Options {
        durability,
        ring_bytes: Some(RING),
        ..Options::default()
    }
}

/// Each durability, with numbers that make its code run.
pub fn every_durability() -> [Durability; 3] {
    [
        Durability::FlushOnly,
        Durability::SyncPerSend,
        Durability::SyncEvery {
            max_ops: 4,
            max_delay: Duration::from_millis(2),
        },
    ]
}

/// Xorshift: the same numbers in each run for the same seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

const CHILD: &str = "WALCHAN_TEST_CHILD";

/// This test binary again, to run the test `name` alone, which finds `role` in [`role`].
pub fn child(name: &str, role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, role);
    command
}

/// What this process was started for; `None` in the process that runs the tests.
pub fn role() -> Option<String> {
    std::env::var(CHILD).ok()
}

/// Changes the bytes of a file.
pub fn patch(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

/// Changes the identity page of a file, and makes its checksum right again.
pub fn patch_identity(path: &Path, change: impl FnOnce(&mut [u8])) {
    patch(path, |bytes| {
        change(&mut bytes[..4092]);
        let crc = crc32fast::hash(&bytes[..4092]);
        bytes[4092..4096].copy_from_slice(&crc.to_le_bytes());
    });
}

/// Offset of the only occurrence of `text` in the ring of a file.
pub fn find(bytes: &[u8], text: &[u8]) -> usize {
    let mut places = (HEADER..bytes.len() - text.len()).filter(|at| bytes[*at..].starts_with(text));
    let place = places.next().unwrap();
    assert_eq!(places.next(), None, "the text occurs twice");
    place
}

/// A directory in memory where there is one: for tests that open a file very often and prove nothing
/// about the disk.
pub fn quick_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}
