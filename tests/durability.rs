//! The durability that was asked for, the one in force, and syncs on request.
#![allow(clippy::unwrap_used)]

mod support;

use std::io;
use std::thread;
use std::time::Duration;
use support::{every_durability, flush, watchdog, with};
use walchan::{Delivery, Durability, Error, ReceiverOptions};

fn every(max_ops: usize, max_delay: Duration) -> Durability {
    Durability::SyncEvery { max_ops, max_delay }
}

#[test]
#[cfg(feature = "fsync")]
fn syncs_on_request_succeed_in_every_mode() {
    let _dog = watchdog();
    for durability in every_durability() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        let (tx, rx) =
            walchan::sync_channel_with_options::<u64>(&path, 100, with(durability)).unwrap();
        assert_eq!((tx.durability(), rx.durability()), (durability, durability));
        tx.sync().unwrap();
        rx.sync().unwrap();
        for n in 0..30 {
            tx.send(n).unwrap();
            tx.sync().unwrap();
            assert_eq!(rx.recv().unwrap(), n);
            rx.sync().unwrap();
        }
        tx.send(30).unwrap();
        rx.sync().unwrap();
        drop(rx);
        tx.sync().unwrap();
    }
}

#[test]
#[cfg(feature = "fsync")]
fn syncs_run_beside_senders_and_acknowledgements() {
    let _dog = watchdog();
    for durability in every_durability() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        let (tx, rx) =
            walchan::sync_channel_with_options::<u64>(&path, 20, with(durability)).unwrap();
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let tx = tx.clone();
                thread::spawn(move || {
                    for n in 0..100 {
                        tx.send(n).unwrap();
                        if n % 7 == 0 {
                            tx.sync().unwrap();
                        }
                    }
                })
            })
            .collect();
        drop(tx);
        for n in 0..300 {
            drop(rx.recv().unwrap());
            if n % 11 == 0 {
                rx.sync().unwrap();
            }
        }
        threads.into_iter().for_each(|t| t.join().unwrap());
        rx.close().unwrap();
    }
}

#[test]
#[cfg(not(feature = "fsync"))]
fn without_real_syncs_every_mode_says_flush_only_and_sync_is_unsupported() {
    let _dog = watchdog();
    let unsupported = || Error::Io(io::ErrorKind::Unsupported.into());
    for durability in every_durability() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        let (tx, rx) =
            walchan::sync_channel_with_options::<u64>(&path, 100, with(durability)).unwrap();
        assert_eq!(tx.durability(), Durability::FlushOnly);
        assert_eq!(rx.durability(), Durability::FlushOnly);
        tx.send(1).unwrap();
        assert_eq!(tx.sync().unwrap_err(), unsupported());
        assert_eq!(rx.sync().unwrap_err(), unsupported());
        assert_eq!(rx.recv().unwrap(), 1, "the channel goes on");
        drop(tx);
        rx.close().unwrap();
    }
}

/// Sends and receives a good deal; returns the durability in force.
fn run(durability: Durability, receiver: ReceiverOptions) -> Durability {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let open = || walchan::sync_channel_with_options::<u64>(&path, 50, with(durability)).unwrap();
    let (tx, rx) = open();
    let in_force = tx.durability();
    let rx = rx.with_options(receiver);
    let senders: Vec<_> = (0..2)
        .map(|_| {
            let tx = tx.clone();
            thread::spawn(move || (0..200).for_each(|n| tx.send(n).unwrap()))
        })
        .collect();
    for _ in 0..400 {
        drop(rx.recv().unwrap());
    }
    senders.into_iter().for_each(|s| s.join().unwrap());
    (0..3).for_each(|n| tx.send(n).unwrap());
    drop(tx);
    rx.close().unwrap();
    let (_tx, rx) = open();
    assert_eq!(rx.recovery().kept(), 3);
    assert_eq!(
        rx.try_iter().map(Delivery::into_inner).collect::<Vec<_>>(),
        [0, 1, 2]
    );
    in_force
}

#[test]
fn zeros_and_ones_and_hugenesses_of_sync_every_are_defined() {
    let _dog = watchdog();
    let delays = [Duration::ZERO, Duration::from_millis(1), Duration::MAX];
    for delay in delays {
        for max_ops in [0, 1, 7, usize::MAX] {
            let in_force = run(every(max_ops, delay), ReceiverOptions::default());
            if cfg!(feature = "fsync") {
                // 0 unsynced sends: each waits for its sync.
                let wanted = match max_ops {
                    0 => Durability::SyncPerSend,
                    _ => every(max_ops, delay),
                };
                assert_eq!(in_force, wanted);
            } else {
                assert_eq!(in_force, Durability::FlushOnly);
            }
        }
    }
}

#[test]
fn zeros_and_hugenesses_of_receiver_options_are_defined() {
    let _dog = watchdog();
    for durability in every_durability() {
        for commit_every in [0, 1, 64, usize::MAX] {
            for commit_max_delay in [Duration::ZERO, Duration::from_millis(1), Duration::MAX] {
                run(
                    durability,
                    ReceiverOptions {
                        commit_every,
                        commit_max_delay,
                    },
                );
            }
        }
    }
}

/// The head moves rarely, and at once when a sender finds no room.
#[test]
fn commit_every_never_keeps_room_from_a_sender() {
    let _dog = watchdog();
    for durability in every_durability() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        let (tx, rx) =
            walchan::sync_channel_with_options::<String>(&path, 1000, with(durability)).unwrap();
        let rx = rx.with_options(ReceiverOptions {
            commit_every: 1_000_000,
            commit_max_delay: Duration::ZERO,
        });
        for _ in 0..10 {
            let mut sent = 0;
            while tx.try_send("x".repeat(6_000)).is_ok() {
                sent += 1;
            }
            assert!(sent >= 9, "{sent}");
            assert_eq!(rx.try_iter().count(), sent);
            let again = "y".repeat(6_000);
            assert!(tx.try_send(again).is_ok());
            assert_eq!(rx.try_iter().count(), 1);
        }
    }
}

#[test]
fn acknowledgements_survive_the_process_whatever_commit_every_says() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("q"), dir.path().join("copy"));
    let (tx, rx) = walchan::channel_with_options::<u64>(&path, flush()).unwrap();
    let rx = rx.with_options(ReceiverOptions {
        commit_every: 1_000,
        commit_max_delay: Duration::ZERO,
    });
    (0..10).for_each(|n| tx.send(n).unwrap());
    assert_eq!(rx.try_iter().take(6).count(), 6);
    // The file as a killed process leaves it.
    std::fs::copy(&path, &copy).unwrap();
    let (_tx, rx) = walchan::channel_with_options::<u64>(&copy, flush()).unwrap();
    assert_eq!(
        rx.try_iter().map(Delivery::into_inner).collect::<Vec<_>>(),
        [6, 7, 8, 9]
    );
}

/// The checkpoint that says so is in the file, and nobody called anything.
#[test]
#[cfg(feature = "fsync")]
fn an_idle_channel_records_its_sends_and_acknowledgements_by_itself() {
    let _dog = watchdog();
    for durability in [
        Durability::SyncPerSend,
        every(100, Duration::from_millis(1)),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        let (tx, rx) =
            walchan::sync_channel_with_options::<u64>(&path, 100, with(durability)).unwrap();
        (0..5).for_each(|n| tx.send(n).unwrap());
        let mut last = None;
        for d in rx.iter().take(3) {
            last = Some(Delivery::id(&d).position());
        }
        // Frames of 32 bytes.
        let (head, commit) = (last.unwrap() + 32, last.unwrap() + 3 * 32);
        let recorded = || {
            let bytes = std::fs::read(&path).unwrap();
            let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
            [17 * 4096, 18 * 4096]
                .into_iter()
                .any(|page| word(page + 8) == head && word(page + 16) == commit)
        };
        while !recorded() {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(tx.try_send(9), Ok(()));
    }
}

#[test]
#[cfg(feature = "fsync")]
fn with_one_unsynced_send_allowed_the_next_makes_the_sync() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let o = with(every(1, Duration::MAX));
    let (tx, rx) = walchan::sync_channel_with_options::<u64>(&path, 100, o).unwrap();
    // Nobody but the senders would ever sync: they have to, and do.
    (0..50).for_each(|n| tx.try_send(n).unwrap());
    assert_eq!(rx.try_iter().count(), 50);
}

#[test]
fn an_io_error_is_compared_by_kind_and_code() {
    let a = Error::Io(io::Error::new(io::ErrorKind::StorageFull, "one text"));
    let b = Error::Io(io::Error::new(io::ErrorKind::StorageFull, "another"));
    assert_eq!(a, b);
    assert_ne!(a, Error::Io(io::Error::from_raw_os_error(28)));
    assert_ne!(a, Error::Locked);
}
