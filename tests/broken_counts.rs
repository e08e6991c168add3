//! Counts that something else than acknowledgements changed; many messages at once.
#![allow(clippy::unwrap_used)]

mod support;

use support::{HEADER, flush, patch, watchdog};
use walchan::{Durability, Options, RecvError};

#[test]
fn a_clean_stop_after_acknowledged_damage_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let (tx, rx) = walchan::channel_with_options::<u64>(&path, flush()).unwrap();
    tx.send(1).unwrap();
    drop((tx, rx));
    // The smallest message follows.
    let (tx, rx) = walchan::channel_with_options::<()>(&path, flush()).unwrap();
    tx.send(()).unwrap();
    drop((tx, rx));
    patch(&path, |bytes| bytes[HEADER + 16] ^= 1);
    let (tx, rx) = walchan::channel_with_options::<()>(&path, flush()).unwrap();
    let Err(RecvError::Corrupt(place)) = rx.recv() else {
        panic!("a bit was flipped");
    };
    place.acknowledge().unwrap();
    drop(tx);
    rx.close().unwrap();
    let (_tx, rx) = walchan::channel_with_options::<()>(&path, flush()).unwrap();
    assert_eq!(rx.recovery().header_faults(), []);
    assert_eq!(rx.recovery().is_clean(), cfg!(feature = "fsync"));
    assert!(rx.try_recv().is_ok());
}

#[test]
fn very_many_messages_of_a_panicking_thread_come_back_soon() {
    const COUNT: u64 = 400_000;
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        durability: Durability::FlushOnly,
        ..Options::default()
    };
    let (tx, rx) = walchan::channel_with_options(dir.path().join("q"), options).unwrap();
    for n in 0..COUNT {
        tx.send(n).unwrap();
    }
    let mut held: Vec<_> = rx.try_iter().collect();
    held.reverse();
    let panicked = std::thread::spawn(move || {
        let _held = held;
        panic!("a planned panic");
    });
    assert!(panicked.join().is_err());
    for n in 0..COUNT {
        assert_eq!(rx.try_recv().unwrap(), n);
    }
}
