//! Full file systems: small ones of each kind, what fills them to the last block, and what makes room again.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

use crate::child::child;
use crate::random::Random;
use crate::run;
use crate::volume::{Host, Kind, Mounted, Volume};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;
use walchan::{Durability, Options};

/// The ring of each channel here.
pub const RING: u64 = 64 << 10;
/// Bytes before it.
pub const HEADER: u64 = 19 * 4096;
/// The names of channels, which name their durability.
pub const NAMES: [&str; 3] = ["flush", "every", "send"];

/// The options for such a name.
pub fn with(name: &str) -> Options {
    let durability = match name {
        "flush" => Durability::FlushOnly,
        "send" => Durability::SyncPerSend,
        _ => Durability::SyncEvery {
            max_ops: 20,
            max_delay: Duration::from_millis(1),
        },
    };
    Options {
        durability,
        ring_bytes: Some(RING),
        ..Options::default()
    }
}

/// A message: its number, and what follows from that.
pub type Message = (u64, String);

/// The message of a number: half of them small, half of them up to a third of the ring.
pub fn message(number: u64) -> Message {
    let mut random = Random::new(number);
    let longest = if random.below(2) == 0 { 300 } else { 20_000 };
    let letter = char::from(b'a' + random.below(26) as u8);
    let len = random.below(longest) as usize;
    (number, letter.to_string().repeat(len))
}

/// What a test here takes.
pub fn programs() -> Vec<&'static str> {
    [&Kind::PROGRAMS[..], &["chattr", "cp"]].concat()
}

/// A directory on a file system of its own.
#[derive(Debug)]
pub struct Place {
    pub dir: PathBuf,
    /// Holds it.
    _mounted: (Option<Volume>, Option<Mounted>),
}

/// Where all of it is tried.
pub const PLACES: [&str; 6] = [
    "ext4",
    "ext4 without journal",
    "xfs",
    "btrfs",
    "btrfs, compressed",
    "tmpfs",
];

/// Makes such a place.
pub fn place(host: &Host, name: &str) -> Place {
    println!("on {name}");
    if name == "tmpfs" {
        let mounted = host.tmpfs("tmpfs", 16 << 20);
        return Place {
            dir: mounted.path().to_owned(),
            _mounted: (None, Some(mounted)),
        };
    }
    let (kind, options) = match name {
        "ext4" => (Kind::Ext4, ""),
        "ext4 without journal" => (Kind::Ext4NoJournal, ""),
        "xfs" => (Kind::Xfs, ""),
        "btrfs" => (Kind::Btrfs, ""),
        _ => (Kind::Btrfs, ",compress-force=zstd"),
    };
    let volume = host.volume_with(
        kind,
        &name.replace([' ', ','], "-"),
        Kind::SMALLEST,
        options,
    );
    let mut dir = volume.path().to_owned();
    if name == "btrfs, compressed" {
        // New files inherit the flag, which excludes the one against copy-on-write.
        dir.push("compressed");
        fs::create_dir(&dir).unwrap();
        run(Command::new("chattr").arg("+c").arg(&dir));
    }
    Place {
        dir,
        _mounted: (Some(volume), None),
    }
}

/// Whether the test also takes what a file system has left for names.
pub fn fills_metadata(place: &str) -> bool {
    place == "btrfs"
}

/// What is there to make room.
pub const BALLAST: &str = "ballast";
/// The start of names that are there to fill a file system.
pub const LONG_NAME: &str = "a long name ";

/// Not zeros: they would be compressed to nothing.
pub fn noise(len: u64) -> Vec<u8> {
    let mut random = Random::new(1);
    let words = (0..len / 8).map(|_| random.number().to_le_bytes());
    words.flatten().collect()
}

/// Puts there what [`make_room`] takes away.
pub fn put_ballast(dir: &Path) {
    fs::write(dir.join(BALLAST), noise(4 << 20)).unwrap();
}

/// Makes room from outside.
pub fn make_room(dir: &Path) {
    for name in names(dir) {
        let name = name.to_str().unwrap();
        if name == BALLAST || name.starts_with(LONG_NAME) {
            fs::remove_file(dir.join(name)).unwrap();
        }
    }
    // Some space comes back with the end of the transaction.
    rustix::fs::syncfs(File::open(dir).unwrap()).unwrap();
}

/// Fills a file system: no byte more can be written; where `metadata` is said, no name either.
pub fn fill(dir: &Path, metadata: bool) {
    let system = rustix::fs::statvfs(dir).unwrap();
    let size = system.f_blocks * system.f_frsize;
    assert!(size < 1 << 30, "not one that was made for this");
    let bytes = noise(1 << 20);
    let mut files = 0;
    // Most of it without writing so much.
    let file = File::create(dir.join("most")).unwrap();
    let (mut at, mut step) = (0, 64 << 20);
    while step >= 1 << 20 {
        match fallocate(&file, FallocateFlags::empty(), at, step) {
            Ok(()) => at += step,
            Err(error) => {
                assert_eq!(error, Errno::NOSPC);
                step /= 2;
            }
        }
    }
    loop {
        let mut written = 0;
        for step in [1 << 20, 4096, 1] {
            written += fill_one(&dir.join(format!("fill{files}")), &bytes[..step]);
            files += 1;
        }
        if metadata {
            while File::create(dir.join(format!("{LONG_NAME}{files:0180}"))).is_ok() {
                files += 1;
            }
        }
        // Space of a running transaction may come back with its end.
        rustix::fs::syncfs(File::open(dir).unwrap()).unwrap();
        if written == 0 {
            return;
        }
    }
}

/// Writes a file until there is no room; gives the bytes written.
pub fn fill_one(path: &Path, bytes: &[u8]) -> u64 {
    let mut written = 0;
    let mut file = match File::create(path) {
        Ok(file) => file,
        Err(e) => {
            assert_eq!(e.kind(), ErrorKind::StorageFull);
            return 0;
        }
    };
    loop {
        match file.write(bytes) {
            Ok(len) => written += len as u64,
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::StorageFull);
                // The last of them may have had a promise of space only.
                file.sync_all().ok();
                return written;
            }
        }
    }
}

/// Nothing can be written any more.
pub fn assert_full(dir: &Path) {
    let written = fill_one(&dir.join("full"), &[1; 4096]);
    assert_eq!(written, 0, "the disk is not full any more");
    fs::remove_file(dir.join("full")).ok();
}

/// What is in a directory, in order.
pub fn names(dir: &Path) -> Vec<OsString> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    names
}

/// What a process of its own says and how it ends; the first line of its role is what it is to do.
pub fn in_child(test: &str, role: &str) -> (ExitStatus, String) {
    let output = child(test, role).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() && output.status.signal() != Some(9) {
        panic!("{role:?} ended with {}\n{said}\n{errors}", output.status);
    }
    (output.status, said)
}
