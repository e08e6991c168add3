//! SyncEvery: how many sends may have returned that no sync covers.

#![cfg(loom)]
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_types)] // the list of what returned is the model's, out of loom's sight

use loom_tests::{Arc, Channel, Mode, Setup, channel, message, model, spawn};
use std::sync::Mutex;

type Returned = Arc<Mutex<Vec<(u64, &'static [u8])>>>;

/// Sends, then counts what has returned and is not on the disk.
fn send_and_count(log: &Channel, payload: &'static [u8], returned: &Returned, max_ops: usize) {
    let position = log.send(payload).unwrap();
    let mut returned = returned.lock().unwrap();
    returned.push((position, payload));
    let unsynced = returned
        .iter()
        .filter(|(position, payload)| !log.frame_is_on_disk(*position, payload));
    assert!(unsynced.count() <= max_ops);
}

fn every(max_ops: u64) -> Setup {
    Setup {
        mode: Mode::Every { max_ops },
        ..Setup::default()
    }
}

// Threads: two senders, one permit. Who comes second must lead a round or wait for one, even if the first has
// claimed and not yet published. Never may two have returned with neither on the disk.
#[test]
fn unsynced_sends_never_exceed_max_ops() {
    model(
        "unsynced_sends_never_exceed_max_ops",
        "two senders, `max_ops` 1: never two returned `Ok`s that no sync covers, and nobody hangs",
        || {
            let log = channel(every(1));
            let returned = Returned::default();
            let others = Arc::clone(&returned);
            let other = spawn(&log, move |log| send_and_count(log, b"other", &others, 1));
            send_and_count(&log, b"mine", &returned, 1);
            other.join().unwrap();
        },
    );
}

// Threads: two senders at a full ring, one permit; the receiver acknowledges. Who waits for room must not
// keep the permit from the other.
#[test]
fn who_waits_for_room_keeps_no_permit() {
    model(
        "who_waits_for_room_keeps_no_permit",
        "two senders at a full ring, `max_ops` 1, beside an acknowledgement: both get through",
        || {
            let log = channel(Setup {
                capacity: 64,
                ..every(1)
            });
            let mut receiver = log.receiver();
            for _ in 0..4 {
                log.send(b"").unwrap();
            }
            for _ in 0..2 {
                message(log.try_receive(&mut receiver).unwrap());
            }
            let sender = spawn(&log, |log| log.send(b"").unwrap());
            log.acknowledge(0);
            log.acknowledge(16);
            log.send(b"").unwrap();
            sender.join().unwrap();
        },
    );
}
