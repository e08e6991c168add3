//! The last place in the table of incarnations.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use support::{flush, quick_dir, watchdog};
use walchan::{Delivery, Receiver, Sender};

fn open(path: &Path) -> (Sender<u64>, Receiver<u64>) {
    walchan::channel_with_options(path, flush()).unwrap()
}

/// Incarnations whose messages a file can hold.
const INCARNATIONS: u64 = 1022;

#[test]
fn an_incarnation_without_messages_takes_no_place_from_one_that_sends() {
    let _dog = watchdog();
    let dir = quick_dir();
    let path = dir.path().join("q");
    for n in 0..INCARNATIONS - 1 {
        let (tx, _rx) = open(&path);
        tx.send(n).unwrap();
    }
    // Nobody sends here.
    drop(open(&path));
    drop(open(&path));
    let (tx, rx) = open(&path);
    tx.send(INCARNATIONS - 1).unwrap();
    drop((tx, rx));
    let (tx, rx) = open(&path);
    assert!(tx.send(INCARNATIONS).is_err(), "the table is full");
    for (n, message) in rx.try_iter().enumerate() {
        assert_eq!(message, n as u64);
        Delivery::ack(message).unwrap();
    }
    drop((tx, rx));
    if !cfg!(feature = "fsync") {
        // Nothing was closed in order: this one finds the head, the next one can rely on it.
        drop(open(&path));
    }
    let (tx, rx) = open(&path);
    tx.send(INCARNATIONS).unwrap();
    assert_eq!(rx.try_recv().unwrap(), INCARNATIONS);
}
