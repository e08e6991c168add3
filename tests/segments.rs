//! An unbounded channel grows into further files, gives their space back, and loses nothing on the way.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use support::{HEADER, RING, flush, watchdog, with};
use walchan::{Delivery, Durability, Error, Options, Receiver, RecvError, SendErrorKind, Sender};

/// The names in the directory of a channel.
fn names(path: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(path.parent().unwrap()).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn bytes(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path.parent().unwrap()).unwrap();
    // One that is gone meanwhile has none.
    let lens = entries.filter_map(|e| Some(e.unwrap().metadata().ok()?.len()));
    lens.sum()
}

/// Waits until the ring is the only file: the housekeeper removes the others in its own time.
fn wait_for_ring_alone(path: &Path) {
    let only = BTreeSet::from([path.file_name().unwrap().to_str().unwrap().to_owned()]);
    while names(path) != only {
        std::thread::yield_now();
    }
}

fn message(n: u64) -> Vec<u8> {
    let len = (n * 7919 % 900) as usize;
    let mut bytes = n.to_le_bytes().to_vec();
    bytes.resize(8 + len, n as u8);
    bytes
}

fn expect(rx: &Receiver<Vec<u8>>, range: std::ops::Range<u64>) {
    for n in range {
        assert_eq!(*rx.recv().unwrap(), message(n), "{n}");
    }
}

fn send_all(tx: &Sender<Vec<u8>>, range: std::ops::Range<u64>) {
    for n in range {
        tx.send(message(n)).unwrap();
    }
}

fn open(path: &PathBuf, options: Options) -> (Sender<Vec<u8>>, Receiver<Vec<u8>>) {
    walchan::channel_with_options(path, options).unwrap()
}

const MODES: [Durability; 3] = [
    Durability::FlushOnly,
    Durability::SyncEvery {
        max_ops: 50,
        max_delay: Duration::from_millis(1),
    },
    Durability::SyncPerSend,
];

#[test]
fn more_than_the_ring_holds_is_carried_in_order_and_the_space_comes_back() {
    let _dog = watchdog();
    for durability in MODES {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        let (tx, rx) = open(&path, with(durability));
        for round in 0..3 {
            let from = round * 2000;
            send_all(&tx, from..from + 2000);
            assert!(names(&path).len() > 1, "{durability:?} did not grow");
            expect(&rx, from..from + 2000);
            wait_for_ring_alone(&path);
        }
        assert_eq!(bytes(&path), HEADER as u64 + RING);
        drop((tx, rx));
        assert_eq!(names(&path).len(), 1);
    }
}

#[test]
fn a_backlog_in_several_files_is_there_after_a_clean_stop() {
    let _dog = watchdog();
    for durability in MODES {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        let (tx, rx) = open(&path, with(durability));
        send_all(&tx, 0..3000);
        drop((tx, rx));
        let (tx, rx) = open(&path, with(durability));
        if cfg!(feature = "fsync") {
            assert!(rx.recovery().is_clean());
        }
        assert_eq!(rx.recovery().kept(), 3000);
        send_all(&tx, 3000..4000);
        expect(&rx, 0..1500);
        drop((tx, rx));
        let (tx, rx) = open(&path, with(durability));
        assert_eq!(rx.recovery().kept(), 2500);
        expect(&rx, 1500..4000);
        wait_for_ring_alone(&path);
        send_all(&tx, 4000..4010);
        expect(&rx, 4000..4010);
    }
}

#[test]
fn several_senders_grow_into_segments_together_and_each_keeps_its_order() {
    let _dog = watchdog();
    for durability in MODES {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        let (tx, rx) =
            walchan::channel_with_options::<(u64, u64, Vec<u8>)>(&path, with(durability)).unwrap();
        let each = 1500;
        std::thread::scope(|scope| {
            for sender in 0..4 {
                let tx = tx.clone();
                scope.spawn(move || {
                    for n in 0..each {
                        tx.send((sender, n, vec![n as u8; (n % 300) as usize]))
                            .unwrap();
                    }
                });
            }
            drop(tx);
            let mut next = [0; 4];
            let mut held = Vec::new();
            for delivery in &rx {
                let (sender, n, payload) = &*delivery;
                let (sender, n) = (*sender, *n);
                assert_eq!(n, next[sender as usize]);
                assert_eq!(payload.len() as u64, n % 300);
                next[sender as usize] += 1;
                held.push(delivery);
                if held.len() > 100 {
                    held.swap_remove(n.wrapping_mul(7) as usize % 100);
                }
            }
            assert_eq!(next, [each; 4]);
            assert_eq!(rx.recv(), Err(RecvError::Disconnected));
        });
        drop(rx);
        assert_eq!(
            names(&path),
            BTreeSet::from(["q".to_owned()]),
            "{durability:?}"
        );
    }
}

#[test]
fn a_message_larger_than_the_ring_is_carried_by_a_file_made_for_it() {
    let _dog = watchdog();
    for durability in MODES {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        let (tx, rx) = open(&path, with(durability));
        let large = vec![7; 3_000_000];
        tx.send(message(1)).unwrap();
        tx.send(large.clone()).unwrap();
        tx.send(message(2)).unwrap();
        assert_eq!(*rx.recv().unwrap(), message(1));
        assert_eq!(*rx.recv().unwrap(), large);
        assert_eq!(*rx.recv().unwrap(), message(2));
        wait_for_ring_alone(&path);
    }
}

#[test]
fn max_bytes_ends_growth_with_an_error_of_its_own_until_there_is_room() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let max_bytes = 600 << 10;
    let (tx, rx) = open(
        &path,
        Options {
            max_bytes: Some(max_bytes),
            ..flush()
        },
    );
    let mut next = 0;
    let mut first = 0;
    for _ in 0..5 {
        let error = loop {
            match tx.send(message(next)) {
                Ok(()) => next += 1,
                Err(error) => break error,
            }
            assert!(bytes(&path) <= max_bytes);
        };
        assert_eq!(error.kind, SendErrorKind::Full);
        assert_eq!(error.into_inner(), message(next), "handed back");
        assert!(next - first > 300, "{} were sent", next - first);
        expect(&rx, first..next);
        first = next;
        wait_for_ring_alone(&path);
        // The housekeeper gives the space back in its own time.
        let start = Instant::now();
        while let Err(error) = tx.send(message(next)) {
            assert_eq!(error.kind, SendErrorKind::Full);
            assert!(start.elapsed() < Duration::from_secs(60), "it stays full");
        }
        next += 1;
    }
    let error = tx.send(vec![0; 2 << 20]).unwrap_err();
    assert!(
        matches!(error.kind, SendErrorKind::TooLarge { len: 2_097_160, max } if max < 600 << 10),
        "{error}"
    );
}

#[test]
fn deliveries_of_several_files_can_be_held_and_acknowledged_in_any_order() {
    let _dog = watchdog();
    for durability in MODES {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        let (tx, rx) = open(&path, with(durability));
        send_all(&tx, 0..2000);
        let mut held: Vec<_> = (0..2000).map(|_| rx.recv().unwrap()).collect();
        let first = held.remove(0);
        let ids: Vec<_> = held.iter().map(Delivery::id).collect();
        assert!(ids.is_sorted());
        for n in (0..held.len()).rev().step_by(2) {
            drop(held.swap_remove(n));
        }
        drop(held);
        assert!(
            names(&path).len() > 1,
            "the first one holds all others back"
        );
        drop(first);
        wait_for_ring_alone(&path);
    }
}

#[test]
fn a_delivery_dropped_in_a_panic_comes_back_from_its_file() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let (tx, rx) = open(&path, flush());
    send_all(&tx, 0..2000);
    expect(&rx, 0..1000);
    let delivery = rx.recv().unwrap();
    let panicked = std::thread::spawn(move || {
        let _held = delivery;
        std::panic::resume_unwind(Box::new("planned"));
    });
    assert!(panicked.join().is_err());
    expect(&rx, 1000..2000);
}

#[test]
fn a_bounded_channel_does_not_open_what_has_segments() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let (tx, rx) = open(&path, flush());
    send_all(&tx, 0..2000);
    drop((tx, rx));
    let before = names(&path);
    let error = walchan::sync_channel::<Vec<u8>>(&path, 10).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Mismatch {
                what: "segments",
                ..
            }
        ),
        "{error}"
    );
    let other = before.iter().find(|name| name.starts_with("q.")).unwrap();
    let error = walchan::channel::<Vec<u8>>(dir.path().join(other)).unwrap_err();
    assert!(
        matches!(error, Error::Mismatch { what: "file", .. }),
        "{error}"
    );
    assert_eq!(names(&path), before);
    let (_tx, rx) = open(&path, flush());
    expect(&rx, 0..2000);
}

#[test]
fn a_missing_file_in_the_chain_is_reported_and_nothing_is_changed() {
    if !cfg!(feature = "fsync") {
        return;
    }
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let (tx, rx) = open(&path, flush());
    send_all(&tx, 0..3000);
    drop((tx, rx));
    let all = names(&path);
    assert!(all.len() > 3);
    for name in all.iter().filter(|name| name.starts_with("q.")) {
        let (from, to) = (dir.path().join(name), dir.path().join("elsewhere"));
        std::fs::rename(&from, &to).unwrap();
        let error = walchan::channel::<Vec<u8>>(&path).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        std::fs::rename(&to, &from).unwrap();
    }
    let (_tx, rx) = open(&path, flush());
    expect(&rx, 0..3000);
}

#[test]
fn files_of_others_with_such_names_stay_as_they_are() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    std::fs::write(dir.path().join("q.1"), "mine").unwrap();
    std::fs::create_dir(dir.path().join("q.2")).unwrap();
    let neighbour = dir.path().join("q.3");
    let (tx, rx) = open(&neighbour, flush());
    send_all(&tx, 0..10);
    let (mine, yours) = open(&path, flush());
    send_all(&mine, 0..3000);
    drop((mine, yours));
    let (_mine, yours) = open(&path, flush());
    expect(&yours, 0..3000);
    expect(&rx, 0..10);
    assert_eq!(std::fs::read(dir.path().join("q.1")).unwrap(), b"mine");
    drop((tx, rx));
}

/// Where it could not be removed, or a power cut brought it back.
#[test]
fn an_unused_file_that_is_there_again_behind_the_return_does_no_harm() {
    let _dog = watchdog();
    for durability in MODES {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        let other = dir.path().join("q.1");
        let (tx, rx) = open(&path, with(durability));
        // So much that the next file is made ahead of need, and not yet used.
        let mut sent = 0;
        while !other.exists() {
            tx.send(message(sent)).unwrap();
            sent += 1;
            std::thread::sleep(Duration::from_millis(1));
        }
        let unused = std::fs::read(&other).unwrap();
        send_all(&tx, sent..400);
        expect(&rx, 0..400);
        wait_for_ring_alone(&path);
        send_all(&tx, 400..410);
        drop((tx, rx));
        std::fs::write(&other, unused).unwrap();
        let (tx, rx) = open(&path, with(durability));
        send_all(&tx, 410..420);
        expect(&rx, 400..420);
        drop((tx, rx));
        assert_eq!(names(&path).len(), 1);
    }
}

/// The housekeeper may remove the file while the receiver comes to it.
#[test]
fn a_last_file_without_messages_is_no_damage_to_who_comes_to_it() {
    let _dog = watchdog();
    for round in 0..60 {
        let dir = support::quick_dir();
        let path = dir.path().join("q");
        let mode = MODES[round % 3];
        let (tx, rx) = open(&path, with(mode));
        (0..12).for_each(|n| tx.send(vec![n; 16_000]).unwrap());
        let first = rx.recv().unwrap();
        (1..12).for_each(|n| assert_eq!(rx.recv().unwrap()[0], n));
        Delivery::leave(first);
        drop((tx, rx));
        for kept in [1, 0] {
            let (tx, rx) = open(&path, with(mode));
            assert_eq!(rx.recovery().kept(), kept);
            drop(tx);
            (0..kept).for_each(|_| assert_eq!(rx.recv().unwrap()[0], 0));
            assert_eq!(rx.recv().unwrap_err(), RecvError::Disconnected);
            rx.close().unwrap();
        }
        assert_eq!(names(&path).len(), 1);
    }
}

#[test]
fn what_a_killed_maker_of_a_segment_left_is_removed() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    drop(open(&path, flush()));
    std::fs::write(dir.path().join("q.7.walchan-new"), vec![7; 5000]).unwrap();
    std::fs::write(dir.path().join("q.x.walchan-new"), "mine").unwrap();
    drop(open(&path, flush()));
    assert_eq!(
        names(&path),
        BTreeSet::from(["q", "q.x.walchan-new"].map(str::to_owned))
    );
}

/// Each clone has sent into another segment, and stays.
#[test]
fn idle_clones_keep_no_segment_that_was_removed() {
    let _dog = watchdog();
    for durability in MODES {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        let (tx, rx) = open(&path, with(durability));
        let mut clones = Vec::new();
        for round in 0..30 {
            let clone = tx.clone();
            for n in round * 100..round * 100 + 100 {
                clone.send(vec![n as u8; 1000]).unwrap();
            }
            clones.push(clone);
        }
        for n in 0..3000 {
            assert_eq!(rx.recv().unwrap()[0], n as u8);
        }
        wait_for_ring_alone(&path);
        // The names go first, then what holds the files: the first of them, and what is worked in now.
        let prefix = format!("{}.", path.to_str().unwrap());
        let is_segment = |line: &&str| line.contains(&prefix);
        while {
            let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
            maps.lines().filter(is_segment).count() > 1
        } {
            std::thread::yield_now();
        }
        for (n, clone) in clones.iter().enumerate() {
            clone.send(vec![n as u8]).unwrap();
            assert_eq!(*rx.recv().unwrap(), [n as u8]);
        }
    }
}

/// The last sender leaves on its own thread, while the housekeeper makes, completes and removes segments.
#[test]
fn a_channel_that_was_drained_and_closed_is_its_ring_alone() {
    let _dog = watchdog();
    let rounds: u64 = std::env::var("WALCHAN_LIVES").map_or(10, |n| n.parse().unwrap());
    for round in 0..rounds {
        for durability in MODES {
            let dir = support::quick_dir();
            let path = dir.path().join("q");
            let (tx, rx) = open(&path, with(durability));
            let count = 20 + round * 37 % 300;
            let senders = (0..1 + round % 3).map(|sender| {
                let tx = tx.clone();
                std::thread::spawn(move || {
                    for n in 0..count {
                        let len = if n % 60 == 7 { 100_000 } else { 1000 };
                        tx.send(vec![sender as u8; len]).unwrap();
                    }
                })
            });
            let senders: Vec<_> = senders.collect();
            drop(tx);
            let received = rx.iter().count() as u64;
            assert_eq!(received, count * senders.len() as u64);
            senders
                .into_iter()
                .for_each(|sender| sender.join().unwrap());
            rx.close().unwrap();
            assert_eq!(
                names(&path).len(),
                1,
                "{durability:?}, round {round}: {:?}",
                names(&path)
            );
            let bounded =
                walchan::sync_channel_with_options::<Vec<u8>>(&path, 10, with(durability));
            assert!(bounded.is_ok(), "{:?}", bounded.err());
        }
    }
}

/// All that is left is one message at the front: behind it are segments of which everything is acknowledged,
/// and the receiver does not come to them.
#[test]
fn segments_of_acknowledged_messages_are_gone_when_the_last_one_before_them_is_acknowledged() {
    let _dog = watchdog();
    for durability in MODES {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        let (tx, rx) = open(&path, with(durability));
        for n in 0..2000u64 {
            tx.send(vec![n as u8; 1000]).unwrap();
        }
        let first = rx.recv().unwrap();
        (1..2000).for_each(|_| drop(rx.recv().unwrap()));
        Delivery::leave(first);
        drop(tx);
        rx.close().unwrap();
        assert!(names(&path).len() > 3);
        let (tx, rx) = open(&path, with(durability));
        assert_eq!(rx.recv().unwrap()[0], 0);
        drop(tx);
        rx.close().unwrap();
        assert_eq!(names(&path).len(), 1, "{durability:?}: {:?}", names(&path));
    }
}

/// Each clone that sends behind the first file is known to the chain, as long as it is there.
#[test]
fn clones_that_are_gone_are_forgotten() {
    let _dog = watchdog();
    let dir = support::quick_dir();
    let (tx, rx) = open(&dir.path().join("q"), flush());
    send_all(&tx, 0..2000);
    expect(&rx, 0..2000);
    let memory = || {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        let data = pages.split(' ').nth(5).unwrap();
        data.parse::<u64>().unwrap() * 4096
    };
    let before = memory();
    for _ in 0..200_000 {
        tx.clone().send(vec![1]).unwrap();
        drop(rx.recv().unwrap());
    }
    // 50 bytes for each would be 10 MB.
    assert!(
        memory() < before + (4 << 20),
        "{} bytes more",
        memory() - before
    );
}
