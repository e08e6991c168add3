//! Disconnects wake whoever waits; iterators end where they should.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use support::{every_durability, flush, watchdog, with};
use walchan::{
    Delivery, Error, RecvError, RecvTimeoutError, SendErrorKind, SendTimeoutError, TryRecvError,
    TrySendError,
};

#[test]
fn sends_after_the_receiver_is_gone_are_disconnected() {
    let dir = tempfile::tempdir().unwrap();
    let (tx, rx) =
        walchan::sync_channel_with_options::<u64>(dir.path().join("q"), 1, flush()).unwrap();
    let other = tx.clone();
    assert!(!tx.is_closed());
    drop(rx);
    assert!(tx.is_closed() && other.is_closed());
    let e = tx.send(1).unwrap_err();
    assert_eq!(e.kind, SendErrorKind::Disconnected);
    assert!(e.is_disconnected());
    assert_eq!(tx.try_send(2), Err(TrySendError::Disconnected(2)));
    assert_eq!(
        other.send_timeout(3, Duration::MAX),
        Err(SendTimeoutError::Disconnected(3))
    );
    drop((tx, other));
    let (tx, rx) = walchan::channel_with_options::<u64>(dir.path().join("q"), flush()).unwrap();
    assert_eq!(
        rx.try_recv(),
        Err(TryRecvError::Empty),
        "nothing of it was sent"
    );
    assert!(!tx.is_closed());
    let in_use = Error::InUse {
        senders: 1,
        deliveries: 0,
    };
    assert_eq!(rx.close().unwrap_err(), in_use);
    assert!(tx.is_closed());
    assert!(tx.send(1).unwrap_err().is_disconnected());
}

#[test]
fn the_receiver_going_wakes_senders_that_wait_for_room() {
    let _dog = watchdog();
    for round in 0..60 {
        let durability = every_durability()[round % 3];
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        let (tx, rx) =
            walchan::sync_channel_with_options::<u64>(path, 1, with(durability)).unwrap();
        tx.send(0).unwrap();
        let (ready, started) = mpsc::channel();
        let senders: Vec<_> = (0..3)
            .map(|n| {
                let (tx, ready) = (tx.clone(), ready.clone());
                thread::spawn(move || {
                    ready.send(()).unwrap();
                    match n {
                        0 => tx.send(7).unwrap_err().is_disconnected(),
                        1 => tx
                            .send_timeout(7, Duration::MAX)
                            .unwrap_err()
                            .is_disconnected(),
                        _ => tx
                            .send_timeout(7, Duration::from_secs(3600))
                            .unwrap_err()
                            .is_disconnected(),
                    }
                })
            })
            .collect();
        for _ in 0..3 {
            started.recv().unwrap();
        }
        // From "before they wait" to "while they sleep".
        for _ in 0..round * 20 {
            thread::yield_now();
        }
        drop(rx);
        senders.into_iter().for_each(|s| assert!(s.join().unwrap()));
    }
}

#[test]
fn the_last_sender_going_wakes_the_receiver_after_all_it_sent() {
    let _dog = watchdog();
    for round in 0..60 {
        let durability = every_durability()[round % 3];
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        let (tx, rx) =
            walchan::sync_channel_with_options::<u64>(path, 50, with(durability)).unwrap();
        let receiver = thread::spawn(move || {
            let mut got = 0;
            let error = loop {
                match rx.recv() {
                    Ok(_) => got += 1,
                    Err(e) => break e,
                }
            };
            assert_eq!(error, RecvError::Disconnected);
            assert_eq!(
                rx.recv_timeout(Duration::MAX),
                Err(RecvTimeoutError::Disconnected)
            );
            assert_eq!(rx.try_recv(), Err(TryRecvError::Disconnected));
            got
        });
        let other = tx.clone();
        let sender = thread::spawn(move || {
            (0..5).for_each(|n| other.send(n).unwrap());
        });
        for _ in 0..round * 10 {
            thread::yield_now();
        }
        tx.send(9).unwrap();
        drop(tx);
        sender.join().unwrap();
        assert_eq!(receiver.join().unwrap(), 6);
    }
}

#[test]
fn a_backlog_is_drained_before_the_disconnect_is_reported() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let (tx, rx) = walchan::channel_with_options::<u64>(&path, flush()).unwrap();
    (0..10).for_each(|n| tx.send(n).unwrap());
    drop((tx, rx));
    let (tx, rx) = walchan::channel_with_options::<u64>(&path, flush()).unwrap();
    tx.send(10).unwrap();
    drop(tx);
    let got: Vec<u64> = rx.iter().map(Delivery::into_inner).collect();
    assert_eq!(got, (0..11).collect::<Vec<_>>());
    assert_eq!(rx.recv(), Err(RecvError::Disconnected));
}

#[test]
fn iterators_give_what_is_there_and_end_with_the_senders() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let (tx, rx) = walchan::channel_with_options::<u64>(dir.path().join("q"), flush()).unwrap();
    assert_eq!(rx.try_iter().count(), 0);
    (0..4).for_each(|n| tx.send(n).unwrap());
    assert_eq!(
        rx.try_iter().take(2).map(|d| *d).collect::<Vec<_>>(),
        [0, 1]
    );
    assert_eq!(rx.try_iter().map(|d| *d).collect::<Vec<_>>(), [2, 3]);
    (4..9).for_each(|n| tx.send(n).unwrap());
    assert_eq!(rx.iter().take(1).map(|d| *d).collect::<Vec<_>>(), [4]);
    drop(tx);
    for d in &rx {
        if d == 6 {
            break;
        }
        assert_eq!(d, 5);
    }
    let mut owned = rx.into_iter();
    assert_eq!(owned.next().unwrap(), 7);
    assert_eq!(owned.next().unwrap(), 8);
    assert!(owned.next().is_none());
    assert!(owned.next().is_none());
}

#[test]
fn iteration_stops_before_an_error_and_the_next_recv_returns_it() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let (tx, rx) = walchan::channel_with_options::<Vec<bool>>(&path, flush()).unwrap();
    tx.send(vec![true]).unwrap();
    drop((tx, rx));
    let (tx, rx) = walchan::channel_with_options::<Vec<u8>>(&path, flush()).unwrap();
    tx.send(vec![7]).unwrap();
    tx.send(vec![1]).unwrap();
    drop((tx, rx));
    let (tx, rx) = walchan::channel_with_options::<Vec<bool>>(&path, flush()).unwrap();
    drop(tx);
    assert_eq!(rx.iter().count(), 1);
    assert_eq!(rx.iter().count(), 0, "it stays before the error");
    assert_eq!(rx.try_iter().count(), 0);
    let Err(RecvError::Undecodable(u)) = rx.recv() else {
        panic!("the error is still there");
    };
    assert_eq!(u.bytes(), [1, 0, 0, 0, 0, 0, 0, 0, 7]);
    let mut owned = rx.into_iter();
    assert_eq!(*owned.next().unwrap(), [true]);
    assert!(owned.next().is_none());
}
