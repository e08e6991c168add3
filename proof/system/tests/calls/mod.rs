//! What the tests that count system calls share.
#![allow(dead_code, clippy::unwrap_used)] // each uses its own part; a test that cannot go on fails

pub mod case;
pub mod expected;
pub mod oracle;
pub mod script;

use std::path::{Path, PathBuf};
use system_tests::times;
use tempfile::TempDir;

/// Whether every call is tried, or a part that each run of the tests can afford.
pub fn all() -> bool {
    times("WALCHAN_CALLS_ALL", 0) != 0
}

/// Says what was being tried when a test fails.
pub struct Trying(pub String);

impl Drop for Trying {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("while trying: {}", self.0);
        }
    }
}

/// A directory of its own for a channel, which is not there yet, or has these bytes.
pub struct Place {
    dir: TempDir,
}

impl Place {
    pub fn new(bytes: Option<&[u8]>) -> Self {
        let place = Place {
            dir: script::quick_dir(),
        };
        if let Some(bytes) = bytes {
            std::fs::create_dir(place.dir.path().join("sub")).unwrap();
            std::fs::write(place.path(), bytes).unwrap();
        }
        place
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("sub/q")
    }
}
