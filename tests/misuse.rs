//! What somebody can do to a file that nobody should: each row of the last table of `docs/promises.md`.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use support::{HEADER, child, find, flush, role, watchdog};
use walchan::{Error, Receiver, RecvError, Sender};

fn open(path: &Path) -> Result<(Sender<String>, Receiver<String>), Error> {
    walchan::channel_with_options(path, flush())
}

fn sends_and_receives(tx: &Sender<String>, rx: &Receiver<String>) {
    for n in 0..2_000 {
        tx.send(format!("message {n}")).unwrap();
        assert_eq!(*rx.recv().unwrap(), format!("message {n}"));
    }
}

#[test]
fn a_file_that_is_cut_short_while_it_is_open_ends_the_process() {
    let _dog = watchdog();
    const NAME: &str = "a_file_that_is_cut_short_while_it_is_open_ends_the_process";
    if let Some(path) = role() {
        let path = Path::new(&path);
        let (tx, rx) = open(path).unwrap();
        sends_and_receives(&tx, &rx);
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(HEADER as u64).unwrap();
        sends_and_receives(&tx, &rx);
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let status = child(NAME, path.to_str().unwrap())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    let bus = rustix::process::Signal::BUS.as_raw();
    assert_eq!(status.signal(), Some(bus), "{status}");
    assert!(matches!(open(&path), Err(Error::Corrupt { .. })));
}

#[test]
fn a_file_that_is_removed_while_it_is_open_is_gone_when_it_closes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let (tx, rx) = open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    sends_and_receives(&tx, &rx);
    tx.send("gone".to_owned()).unwrap();
    // Another channel can begin at the path meanwhile.
    let (other_tx, other_rx) = open(&path).unwrap();
    sends_and_receives(&other_tx, &other_rx);
    drop((tx, rx, other_tx, other_rx));
    let (tx, rx) = open(&path).unwrap();
    drop(tx);
    assert_eq!(rx.recv().unwrap_err(), RecvError::Disconnected);
}

#[test]
fn a_file_that_is_renamed_while_it_is_open_stays_one_channel() {
    let dir = tempfile::tempdir().unwrap();
    let (path, other) = (dir.path().join("q"), dir.path().join("other"));
    let (tx, rx) = open(&path).unwrap();
    fs::rename(&path, &other).unwrap();
    sends_and_receives(&tx, &rx);
    assert_eq!(open(&other).unwrap_err(), Error::Locked);
    let (new_tx, new_rx) = open(&path).unwrap();
    tx.send("in the old one".to_owned()).unwrap();
    sends_and_receives(&new_tx, &new_rx);
    drop((tx, rx, new_tx, new_rx));
    let (_tx, rx) = open(&other).unwrap();
    assert_eq!(*rx.recv().unwrap(), "in the old one");
}

#[test]
fn a_second_name_of_an_open_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (path, other) = (dir.path().join("q"), dir.path().join("other"));
    let (_tx, _rx) = open(&path).unwrap();
    fs::hard_link(&path, &other).unwrap();
    assert_eq!(open(&other).unwrap_err(), Error::Locked);
}

#[test]
fn what_somebody_writes_into_an_open_file_ends_the_channel_with_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let (tx, rx) = open(&path).unwrap();
    tx.send("aaaaaaaa".to_owned()).unwrap();
    tx.send("the next".to_owned()).unwrap();
    let place = find(&fs::read(&path).unwrap(), b"aaaaaaaa");
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"b", place as u64).unwrap();
    let Err(RecvError::Io(error)) = rx.recv() else {
        panic!("delivered")
    };
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(tx.send("refused".to_owned()).is_err());
    drop((tx, rx));
    let (tx, rx) = open(&path).unwrap();
    assert_eq!(rx.recovery().damaged().len(), 1);
    assert_eq!(*rx.recv().unwrap(), "the next");
    sends_and_receives(&tx, &rx);
}

#[test]
fn the_half_made_file_of_a_living_maker_that_somebody_removes_costs_no_channel() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let temporary = dir.path().join("q.walchan-new");
    let done = std::sync::mpsc::channel::<()>();
    let remover = std::thread::spawn({
        let temporary = temporary.clone();
        move || {
            while let Err(std::sync::mpsc::TryRecvError::Empty) = done.1.try_recv() {
                fs::remove_file(&temporary).ok();
            }
        }
    });
    for _ in 0..50 {
        match open(&path) {
            Ok((tx, rx)) => {
                sends_and_receives(&tx, &rx);
                drop((tx, rx));
                fs::remove_file(&path).unwrap();
            }
            Err(Error::Io(e)) => assert_eq!(e.kind(), io::ErrorKind::NotFound),
            Err(e) => panic!("{e}"),
        }
    }
    drop(done.0);
    remover.join().unwrap();
    let (tx, rx) = open(&path).unwrap();
    sends_and_receives(&tx, &rx);
    assert!(!temporary.exists());
}
