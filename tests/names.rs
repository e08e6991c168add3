//! A path comes to mean another file while a channel is open: nothing of another channel is delivered,
//! changed or removed, and nothing of this one is lost.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;
use support::{flush, watchdog, with};
use walchan::{Durability, Error, Options, Receiver, RecvError, Sender};

/// Of 1,000 bytes, so that a few dozen fill a ring of 64 KiB.
fn message(channel: u8, n: u64) -> Vec<u8> {
    let mut bytes = vec![channel; 1000];
    bytes[..8].copy_from_slice(&n.to_le_bytes());
    bytes
}

fn open(path: &Path, options: Options) -> (Sender<Vec<u8>>, Receiver<Vec<u8>>) {
    walchan::channel_with_options(path, options).unwrap()
}

fn send(tx: &Sender<Vec<u8>>, channel: u8, range: std::ops::Range<u64>) {
    range.for_each(|n| tx.send(message(channel, n)).unwrap());
}

fn expect(rx: &Receiver<Vec<u8>>, channel: u8, range: std::ops::Range<u64>) {
    for n in range {
        assert!(*rx.recv().unwrap() == message(channel, n), "{n}");
    }
    assert!(rx.try_recv().is_err());
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

const MODES: [Durability; 3] = [
    Durability::FlushOnly,
    Durability::SyncPerSend,
    Durability::SyncEvery {
        max_ops: 50,
        max_delay: Duration::from_millis(1),
    },
];

#[test]
fn a_channel_goes_on_in_its_directory_whatever_that_is_called() {
    let _dog = watchdog();
    for durability in MODES {
        let dir = tempfile::tempdir().unwrap();
        let (now, then) = (dir.path().join("now"), dir.path().join("then"));
        let (tx_a, rx_a) = open(&now.join("q"), with(durability));
        send(&tx_a, b'a', 0..600);
        fs::rename(&now, &then).unwrap();
        let (tx_b, rx_b) = open(&now.join("q"), with(durability));
        send(&tx_b, b'b', 0..600);
        send(&tx_a, b'a', 600..1200);
        expect(&rx_a, b'a', 0..1200);
        drop(tx_a);
        rx_a.close().unwrap();
        drop(tx_b);
        rx_b.close().unwrap();
        let (_tx, rx) = open(&now.join("q"), with(durability));
        expect(&rx, b'b', 0..600);
        let (_tx, rx) = open(&then.join("q"), with(durability));
        expect(&rx, b'a', 0..0);
        assert_eq!(fs::read_dir(&then).unwrap().count(), 1);
    }
}

#[test]
fn two_channels_that_get_the_same_name_one_after_the_other_do_not_mix() {
    let _dog = watchdog();
    for durability in MODES {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("q"), dir.path().join("moved"));
        let (tx_a, rx_a) = open(&path, with(durability));
        send(&tx_a, b'a', 0..600);
        fs::rename(&path, &moved).unwrap();
        let (tx_b, rx_b) = open(&path, with(durability));
        for n in 0..600 {
            send(&tx_b, b'b', n..n + 1);
            send(&tx_a, b'a', 600 + n..601 + n);
        }
        expect(&rx_a, b'a', 0..1200);
        expect(&rx_b, b'b', 0..600);
        drop((tx_a, tx_b));
        rx_a.close().unwrap();
        rx_b.close().unwrap();
    }
}

/// A segment that another file takes the name of is not opened, not punched, and not removed.
#[test]
fn a_foreign_file_in_the_place_of_a_segment_is_left_alone_and_reported() {
    let _dog = watchdog();
    for durability in MODES {
        let dir = tempfile::tempdir().unwrap();
        let (path, segment) = (dir.path().join("q"), dir.path().join("q.1"));
        let (tx, rx) = open(&path, with(durability));
        send(&tx, b'a', 0..100);
        assert!(segment.exists());
        // It is open, and goes on without its name.
        fs::rename(&segment, dir.path().join("elsewhere")).unwrap();
        let other = dir.path().join("other");
        let (other_tx, other_rx) = open(&other, with(durability));
        send(&other_tx, b'b', 0..200);
        drop(other_tx);
        other_rx.close().unwrap();
        fs::copy(dir.path().join("other.1"), &segment).unwrap();
        let content = fs::read(&segment).unwrap();
        expect(&rx, b'a', 0..100);
        drop(tx);
        let error = rx.close().unwrap_err();
        assert!(error.to_string().contains("q.1"), "{error}");
        assert!(fs::read(&segment).unwrap() == content);
    }
}

/// A segment of the same channel and of the same number, from before: a copy that was put back.
#[test]
fn an_older_segment_of_the_same_channel_is_not_taken_for_the_one_of_now() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let (old, now) = (dir.path().join("old"), dir.path().join("now"));
    let path = now.join("q");
    let (tx, rx) = open(&path, flush());
    send(&tx, b'a', 0..1000);
    copy_all(&now, &old);
    expect(&rx, b'a', 0..1000);
    drop(tx);
    rx.close().unwrap();
    let (tx, rx) = open(&path, flush());
    send(&tx, b'b', 0..2000);
    let third = now.join("q.3");
    // It is complete, and will be opened when the receiver comes to it.
    let mapped = || fs::read_to_string("/proc/self/maps").unwrap();
    while mapped().contains(third.to_str().unwrap()) {
        std::thread::yield_now();
    }
    let kept = dir.path().join("kept");
    fs::rename(&third, &kept).unwrap();
    fs::copy(old.join("q.3"), &third).unwrap();
    let mut received = 0;
    let error = loop {
        match rx.try_recv() {
            Ok(delivery) => {
                assert!(*delivery == message(b'b', received));
                received += 1;
            }
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("q.3"), "{error}");
    // It goes on where it was when the segment is back.
    fs::rename(&kept, &third).unwrap();
    expect(&rx, b'b', received..2000);
    assert!(received > 0);
    drop(tx);
    rx.close().unwrap();
    assert_eq!(fs::read_dir(&now).unwrap().count(), 1);
}

#[test]
fn a_second_name_of_a_segment_keeps_its_content_when_it_is_removed() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let (path, kept) = (dir.path().join("q"), dir.path().join("kept"));
    let (tx, rx) = open(&path, flush());
    send(&tx, b'a', 0..100);
    fs::hard_link(dir.path().join("q.1"), &kept).unwrap();
    expect(&rx, b'a', 0..100);
    drop(tx);
    rx.close().unwrap();
    let content = fs::read(kept).unwrap();
    assert!(
        content
            .windows(1000)
            .any(|bytes| bytes == message(b'a', 99))
    );
}

#[test]
fn a_link_in_the_place_of_a_segment_is_not_followed() {
    if !cfg!(feature = "fsync") {
        // No checkpoint says that the ring is sealed: that a segment is missing is not seen.
        return;
    }
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let (path, segment) = (dir.path().join("q"), dir.path().join("q.1"));
    let target = dir.path().join("target");
    let (tx, rx) = open(&path, flush());
    send(&tx, b'a', 0..100);
    drop(tx);
    rx.close().unwrap();
    fs::rename(&segment, &target).unwrap();
    symlink(&target, &segment).unwrap();
    let content = fs::read(&target).unwrap();
    let refused = walchan::channel_with_options::<Vec<u8>>(&path, flush());
    assert!(matches!(refused, Err(Error::Corrupt { .. })));
    assert!(fs::read(&target).unwrap() == content);
    fs::remove_file(&segment).unwrap();
    fs::rename(&target, &segment).unwrap();
    let (_tx, rx) = open(&path, flush());
    expect(&rx, b'a', 0..100);
}

/// What is set aside goes into the directory that the channel was opened in.
#[test]
fn what_is_set_aside_stays_with_its_channel_when_the_directory_is_renamed() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let (now, then) = (dir.path().join("now"), dir.path().join("then"));
    let (tx, rx) = walchan::channel_with_options::<u8>(now.join("q"), flush()).unwrap();
    tx.send(7).unwrap();
    drop(tx);
    rx.close().unwrap();
    let opened = walchan::channel_with_options::<String>(now.join("q"), flush());
    let (_tx, rx) = opened.unwrap();
    fs::rename(&now, &then).unwrap();
    fs::create_dir(&now).unwrap();
    let Err(RecvError::Undecodable(message)) = rx.recv() else {
        panic!("a byte is no text");
    };
    let copy = message.set_aside().unwrap();
    assert!(then.join(copy.file_name().unwrap()).exists());
    assert_eq!(fs::read_dir(&now).unwrap().count(), 0);
}

/// What is no regular file is nobody's segment, and no half-made one.
#[test]
fn sockets_pipes_and_directories_with_such_names_harm_nobody() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("q.1")).unwrap();
    fs::create_dir(dir.path().join("q.2.walchan-new")).unwrap();
    let pipe = dir.path().join("q.3.walchan-new");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let (tx, rx) = open(&path, flush());
    send(&tx, b'a', 0..300);
    drop(tx);
    rx.close().unwrap();
    let (tx, rx) = open(&path, flush());
    expect(&rx, b'a', 0..300);
    drop(tx);
    rx.close().unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
}
