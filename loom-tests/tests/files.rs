//! Syncs, permits and errors across the files of a channel.

#![cfg(loom)]
#![allow(clippy::unwrap_used)]

use loom_tests::{Arc, Chain, ChainReceived, ChainSetup, Failure, Mode, chain, model, spawn_in};

fn every(max_ops: u64) -> ChainSetup {
    ChainSetup {
        mode: Mode::Every { max_ops },
        ..ChainSetup::default()
    }
}

fn holding(messages: u64, setup: ChainSetup) -> Arc<Chain> {
    let log = chain(setup);
    let handle = log.handle();
    for _ in 0..messages {
        log.send(&handle, b"").unwrap();
    }
    log
}

// Threads: two senders under SyncPerSend; one place is left. The Ok of whoever comes to the next file implies
// that what lies before it is durable, all of it.
#[test]
fn an_ok_in_the_next_file_covers_the_file_before() {
    model(
        "an_ok_in_the_next_file_covers_the_file_before",
        "two synced senders at the end of a file: an `Ok` in the next one, and all before it is durable",
        || {
            let setup = ChainSetup {
                mode: Mode::PerSend,
                ..ChainSetup::default()
            };
            let log = holding(3, setup);
            let send = |log: &Chain| {
                let position = log.send(&log.handle(), b"").unwrap();
                assert!(log.is_durable(position / 64, position));
                if position >= 64 {
                    assert!(log.is_durable(0, 48));
                }
            };
            let other = spawn_in(&log, send);
            send(&log);
            other.join().unwrap();
        },
    );
}

// Threads: two who ask for a sync under SyncEvery, with messages in two files that were never synced. Whoever
// sees the commit of the next file beyond its start finds all of the file before it on the disk, as does
// whoever gets Ok.
#[test]
fn a_commit_of_the_next_file_covers_the_file_before() {
    model(
        "a_commit_of_the_next_file_covers_the_file_before",
        "two ask for a sync of two files: the second is never committed before all of the first",
        || {
            let log = holding(5, every(8));
            let covered = |log: &Chain| {
                for position in [0, 16, 32, 48] {
                    assert!(log.is_durable(0, position));
                }
            };
            let other = spawn_in(&log, move |log| {
                assert!(log.sync_sent());
                covered(log);
                assert!(log.is_durable(1, 64));
            });
            if log.commit() > 64 {
                covered(&log);
            }
            assert!(log.sync_sent());
            covered(&log);
            assert!(log.is_durable(1, 64));
            other.join().unwrap();
        },
    );
}

// Threads: two senders under SyncEvery with one permit; one place is left in the file. Both must get through:
// the permit of the message in the file before comes back for the one in the next file.
#[test]
fn permits_come_back_across_files() {
    model(
        "permits_come_back_across_files",
        "two senders in two files, one permit: both get through, and the permit is there again",
        || {
            let log = holding(3, every(1));
            let other = spawn_in(&log, |log| log.send(&log.handle(), b"").unwrap());
            let mine = log.send(&log.handle(), b"").unwrap();
            let mut sent = [mine, other.join().unwrap()];
            sent.sort_unstable();
            assert_eq!(sent, [48, 64]);
            // Whoever came second has waited for a sync that covers the first.
            assert!(log.is_durable(0, 48) || log.is_durable(1, 64));
            log.send(&log.handle(), b"").unwrap();
        },
    );
}

// Threads: the receiver, which waits in the next file; somebody whose sync of the file before fails. The
// receiver must be woken, and hear of it.
#[test]
fn a_failed_sync_of_one_file_wakes_who_waits_in_another() {
    model(
        "a_failed_sync_of_one_file_wakes_who_waits_in_another",
        "a receiver asleep in the next file, a sync of the file before fails: it gets the error",
        || {
            let log = holding(4, every(8));
            log.fail_sync(0);
            log.send(&log.handle(), b"").unwrap();
            let mut receiver = log.receiver();
            for _ in 0..5 {
                log.try_receive(&mut receiver).unwrap().message();
            }
            let syncer = spawn_in(&log, |log| assert!(!log.sync_sent()));
            let received = log.receive(&mut receiver);
            assert!(matches!(received, ChainReceived::Failed));
            syncer.join().unwrap();
        },
    );
}

// Threads: a sender, whose second message needs a permit and goes to the next file, and somebody whose sync
// of the file before fails. The sender must hear of it, and not wait for a permit for ever.
#[test]
fn a_failed_sync_of_one_file_reaches_senders_in_another() {
    model(
        "a_failed_sync_of_one_file_reaches_senders_in_another",
        "a sender without a permit at the end of a file, the sync of the first file fails: it gets the error",
        || {
            let log = holding(3, every(4));
            log.fail_sync(0);
            let other = spawn_in(&log, |log| {
                let handle = log.handle();
                log.send(&handle, b"").ok();
                log.send(&handle, b"").unwrap_err()
            });
            assert!(!log.sync_sent());
            let failure = other.join().unwrap();
            assert!([Failure::Io, Failure::Unsynced].contains(&failure));
        },
    );
}

// Threads: the housekeeper makes a sealed file complete, and vouches for what it holds; the receiver comes to
// that file. When both are done the disk vouches for nothing there any more.
#[test]
fn a_file_is_complete_or_entered() {
    model(
        "a_file_is_complete_or_entered",
        "the housekeeper completes a file as the receiver comes to it: no checkpoint vouches for its counts",
        || {
            let setup = ChainSetup {
                segment: 32,
                ..every(100)
            };
            let log = holding(7, setup);
            let mut receiver = log.receiver();
            for _ in 0..4 {
                log.try_receive(&mut receiver).unwrap().message();
            }
            let housekeeper = spawn_in(&log, |log| assert!(log.keep()));
            let next = log.receive(&mut receiver).message();
            assert_eq!(next.position, 64);
            housekeeper.join().unwrap();
            assert!(!log.is_vouched_for(1));
        },
    );
}

// Threads: the housekeeper completes and unmaps files that are far from the receiver; the receiver comes to
// them, one after another, and may find them open or not. Nothing is skipped.
#[test]
fn a_receiver_comes_to_files_that_are_parked() {
    model(
        "a_receiver_comes_to_files_that_are_parked",
        "the housekeeper parks files as the receiver comes to them: all messages, in order",
        || {
            let setup = ChainSetup {
                segment: 16,
                ..ChainSetup::default()
            };
            let log = holding(8, setup);
            let mut receiver = log.receiver();
            for _ in 0..4 {
                log.try_receive(&mut receiver).unwrap().message();
            }
            let housekeeper = spawn_in(&log, |log| assert!(log.keep()));
            let received = [(); 4].map(|()| log.receive(&mut receiver).message().position);
            assert_eq!(received, [64, 80, 96, 112]);
            housekeeper.join().unwrap();
        },
    );
}
