//! Safeguards that no other test would miss; `docs/planted.md` has the list of all.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
#[cfg(feature = "fsync")]
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::thread;
use support::{find, flush, watchdog};
use walchan::{Receiver, RecvError, SendErrorKind, Sender};

/// The two copies of the table, and the two checkpoint pages.
#[cfg(feature = "fsync")]
const TABLES: [Range<usize>; 2] = [4096..9 * 4096, 9 * 4096..17 * 4096];
#[cfg(feature = "fsync")]
const CHECKPOINTS: Range<usize> = 17 * 4096..19 * 4096;

fn open(path: &Path) -> (Sender<String>, Receiver<String>) {
    walchan::channel_with_options(path, flush()).unwrap()
}

/// What somebody else writes into the file of a living channel is an error, and the end of the channel, not a
/// message.
#[test]
fn bytes_that_no_sender_wrote_are_not_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let (tx, rx) = open(&path);
    tx.send("whole".to_owned()).unwrap();
    tx.send("honest".to_owned()).unwrap();
    let at = find(&std::fs::read(&path).unwrap(), b"honest");
    let other = OpenOptions::new().write(true).open(&path).unwrap();
    other.write_all_at(b"forged", at as u64).unwrap();
    assert_eq!(*rx.recv().unwrap(), "whole");
    match rx.recv() {
        Err(RecvError::Io(error)) => assert_eq!(error.kind(), io::ErrorKind::InvalidData),
        other => panic!("{other:?}"),
    }
    let failed = tx.send("more".to_owned()).unwrap_err();
    assert!(matches!(failed.kind, SendErrorKind::Io(_)), "{failed:?}");
}

/// A process that is just being started holds a copy of every descriptor. The lock must be given back all the
/// same.
#[test]
#[allow(unsafe_code)]
fn a_channel_can_be_opened_again_while_a_forked_child_holds_a_copy_of_its_file() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let ends = open(&path);
    let (mut started, mut says_started) = io::pipe().unwrap();
    let (mut waits, mut go_on) = io::pipe().unwrap();
    let child = thread::spawn(move || {
        let mut command = Command::new("/bin/true");
        // SAFETY: what runs between fork and exec only reads and writes a byte: it takes no lock and
        // allocates nothing.
        unsafe {
            command.pre_exec(move || {
                says_started.write_all(b"x")?;
                waits.read_exact(&mut [0])
            })
        };
        command.status()
    });
    started.read_exact(&mut [0]).unwrap();
    drop(ends);
    let again = walchan::channel_with_options::<String>(&path, flush());
    go_on.write_all(b"x").unwrap();
    assert!(child.join().unwrap().unwrap().success());
    drop(again.unwrap());
}

/// Recovery writes a new table and a new checkpoint in one step. If a crash leaves the table alone, it
/// vouches for nothing: after a failed sync what lies before the incarnation that it adds may have been in
/// the cache alone. What is missing there is reported, but not called damage to what was durable.
#[test]
#[cfg(feature = "fsync")]
fn a_table_that_landed_alone_vouches_for_nothing_before_its_newest_incarnation() {
    let dir = tempfile::tempdir().unwrap();
    let (path, crashed) = (dir.path().join("q"), dir.path().join("crashed"));
    let (tx, rx) = open(&path);
    for n in 0..3 {
        tx.send(format!("number {n}")).unwrap();
    }
    // As a killed process leaves it; then as its recovery does.
    let killed = std::fs::read(&path).unwrap();
    drop((tx, rx));
    std::fs::write(&crashed, &killed).unwrap();
    let ends = open(&crashed);
    let recovered = std::fs::read(&crashed).unwrap();
    drop(ends);
    // The first of recovery's steps wrote one copy of the table; which one follows from what was there.
    for table in TABLES {
        let mut image = killed.clone();
        image[table.clone()].copy_from_slice(&recovered[table]);
        let at = find(&image, b"number 2");
        image[at] ^= 1;
        std::fs::write(&crashed, &image).unwrap();
        let (tx, rx) = open(&crashed);
        assert_eq!(rx.recovery().damaged().len(), 1, "{}", rx.recovery());
        assert!(!rx.recovery().damaged()[0].was_durable());
        tx.send("new".to_owned()).unwrap();
        assert_eq!(*rx.recv().unwrap(), "number 0");
        assert_eq!(*rx.recv().unwrap(), "number 1");
        assert_eq!(*rx.recv().unwrap(), "new");
        drop((tx, rx));
        let (_tx, rx) = open(&crashed);
        assert_eq!(rx.recovery().header_faults().len(), 0);
    }
}

/// A killed process leaves a checkpoint in the cache alone; the power goes while recovery writes. Then the
/// disk may have the new table, and still the checkpoint before: the table has the incarnations that this one
/// starts from.
#[test]
#[cfg(feature = "fsync")]
fn a_checkpoint_that_is_behind_finds_the_incarnations_that_it_starts_from() {
    let dir = tempfile::tempdir().unwrap();
    let (path, crashed) = (dir.path().join("q"), dir.path().join("crashed"));
    let (tx, rx) = open(&path);
    tx.send("first incarnation".to_owned()).unwrap();
    drop((tx, rx));
    let (tx, rx) = open(&path);
    let earlier = std::fs::read(&path).unwrap();
    tx.send("second incarnation".to_owned()).unwrap();
    assert_eq!(*rx.recv().unwrap(), "first incarnation");
    rx.sync().unwrap();
    let killed = std::fs::read(&path).unwrap();
    assert_ne!(earlier[CHECKPOINTS], killed[CHECKPOINTS]);
    std::fs::write(&crashed, &killed).unwrap();
    let ends = open(&crashed);
    let recovered = std::fs::read(&crashed).unwrap();
    drop(ends);
    for table in TABLES {
        let mut image = killed.clone();
        image[CHECKPOINTS].copy_from_slice(&earlier[CHECKPOINTS]);
        image[table.clone()].copy_from_slice(&recovered[table]);
        std::fs::write(&crashed, &image).unwrap();
        let (_tx, rx) = open(&crashed);
        assert_eq!(*rx.recv().unwrap(), "second incarnation");
        assert!(rx.try_recv().is_err());
    }
}
