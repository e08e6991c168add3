//! A sync that fails ends the channel, for everyone.

#![cfg(loom)]
#![allow(clippy::unwrap_used)]

use loom_tests::{Failure, Mode, Received, Setup, channel, model, spawn};

// Threads: two synced senders; the first sync fails, and those behind it report a success that is none, as
// Linux does. Neither may hang, neither may return Ok, and there must be no second sync.
#[test]
fn a_failed_sync_reaches_every_waiter() {
    model(
        "a_failed_sync_reaches_every_waiter",
        "two synced senders, the first sync fails: both get the error, and nobody syncs again",
        || {
            let log = channel(Setup::default());
            log.fail_sync(0);
            let other = spawn(&log, |log| log.send(b"other").unwrap_err());
            let mine = log.send(b"mine").unwrap_err();
            for failure in [mine, other.join().unwrap()] {
                assert!([Failure::Io, Failure::Unsynced].contains(&failure));
            }
            assert_eq!(log.syncs(), 1);
        },
    );
}

// Threads: a synced sender whose sync fails, and the receiver, which sleeps. It must be woken, and get the
// error, not the message.
#[test]
fn a_failed_sync_wakes_the_receiver() {
    model(
        "a_failed_sync_wakes_the_receiver",
        "a sleeping receiver, the sync fails: it gets the error and not the message",
        || {
            let log = channel(Setup::default());
            log.fail_sync(0);
            let sender = spawn(&log, |log| log.send(b"mine").unwrap_err());
            assert_eq!(log.receive(&mut log.receiver()), Received::Failed);
            assert_eq!(sender.join().unwrap(), Failure::Unsynced);
        },
    );
}

// Threads: a sender that sleeps for room, and somebody whose sync fails. The sender must be woken, and hear
// of it.
#[test]
fn a_failed_sync_wakes_a_sender_without_room() {
    model(
        "a_failed_sync_wakes_a_sender_without_room",
        "a sender asleep for room, a sync fails: it gets the error",
        || {
            let log = channel(Setup {
                mode: Mode::FlushOnly,
                bound: 1,
                ..Setup::default()
            });
            log.fail_sync(0);
            log.send(b"first").unwrap();
            let sender = spawn(&log, |log| log.send(b"second").unwrap_err());
            assert!(!log.sync_sent());
            assert_eq!(sender.join().unwrap(), Failure::Io);
        },
    );
}
