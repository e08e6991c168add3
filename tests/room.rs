//! Full channels: bounds, timeouts, room that comes back.
#![allow(clippy::unwrap_used, clippy::disallowed_types)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use support::{HEADER, RING, Random, every_durability, flush, watchdog, with};
use walchan::{
    Delivery, Error, Options, RecvTimeoutError, SendErrorKind, SendTimeoutError, TryRecvError,
    TrySendError,
};

#[test]
fn a_bound_of_0_is_refused_and_makes_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let e = walchan::sync_channel::<u8>(dir.path().join("q"), 0).unwrap_err();
    assert!(matches!(e, Error::Invalid(_)), "{e}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_ring_larger_than_any_disk_is_refused_and_makes_no_file() {
    let dir = tempfile::tempdir().unwrap();
    for ring_bytes in [(1 << 44) + 1, u64::MAX] {
        let o = Options {
            ring_bytes: Some(ring_bytes),
            ..Options::default()
        };
        let e = walchan::channel_with_options::<u8>(dir.path().join("q"), o).unwrap_err();
        assert!(matches!(e, Error::Invalid(_)), "{e}");
    }
    let e = walchan::sync_channel::<u64>(dir.path().join("q"), usize::MAX).unwrap_err();
    assert!(matches!(e, Error::Invalid(_)), "{e}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_bound_of_1_passes_one_message_at_a_time() {
    let _dog = watchdog();
    for durability in every_durability() {
        let dir = tempfile::tempdir().unwrap();
        let (tx, rx) =
            walchan::sync_channel_with_options::<u64>(dir.path().join("q"), 1, with(durability))
                .unwrap();
        let sender = thread::spawn(move || {
            for n in 0..100 {
                tx.send(n).unwrap();
            }
            tx
        });
        for n in 0..100 {
            let d = rx.recv().unwrap();
            assert_eq!(d, n);
            assert_eq!(
                rx.try_recv(),
                Err(TryRecvError::Empty),
                "the first is not acknowledged"
            );
        }
        let tx = sender.join().unwrap();
        tx.send(100).unwrap();
        assert_eq!(tx.try_send(101), Err(TrySendError::Full(101)));
        let d = rx.recv().unwrap();
        assert_eq!(tx.try_send(101), Err(TrySendError::Full(101)));
        assert_eq!(
            tx.send_timeout(101, Duration::from_millis(1)),
            Err(SendTimeoutError::Timeout(101))
        );
        drop(d);
        tx.try_send(101).unwrap();
    }
}

#[test]
fn a_bounded_ring_takes_as_many_messages_as_its_bound() {
    let _dog = watchdog();
    for bound in [1usize, 2, 255, 256, 257, 5_000] {
        let dir = tempfile::tempdir().unwrap();
        let o = Options {
            ring_bytes: None,
            ..flush()
        };
        let (tx, rx) =
            walchan::sync_channel_with_options::<[u64; 12]>(dir.path().join("q"), bound, o)
                .unwrap();
        for n in 0..bound as u64 {
            tx.try_send([n; 12]).unwrap();
        }
        assert_eq!(tx.try_send([0; 12]), Err(TrySendError::Full([0; 12])));
        assert_eq!(rx.try_iter().count(), bound);
        // Again, from another offset.
        for n in 0..bound as u64 {
            tx.try_send([n; 12]).unwrap();
        }
        assert_eq!(tx.try_send([0; 12]), Err(TrySendError::Full([0; 12])));
    }
}

#[test]
fn never_more_than_the_bound_are_unacknowledged() {
    let _dog = watchdog();
    const BOUND: u64 = 7;
    let dir = tempfile::tempdir().unwrap();
    let (tx, rx) =
        walchan::sync_channel_with_options::<u64>(dir.path().join("q"), BOUND as usize, flush())
            .unwrap();
    let sent = Arc::new(AtomicU64::new(0));
    let acknowledging = Arc::new(AtomicU64::new(0));
    let senders: Vec<_> = (0..4)
        .map(|_| {
            let (tx, sent, acknowledging) =
                (tx.clone(), Arc::clone(&sent), Arc::clone(&acknowledging));
            thread::spawn(move || {
                for n in 0..3_000 {
                    tx.send(n).unwrap();
                    // Every send counted here has returned; every acknowledgement that has begun is
                    // counted before it.
                    let sent = sent.fetch_add(1, Ordering::SeqCst) + 1;
                    let acknowledged = acknowledging.load(Ordering::SeqCst);
                    assert!(
                        sent <= acknowledged + BOUND,
                        "{sent} sent, {acknowledged} acknowledged"
                    );
                }
            })
        })
        .collect();
    drop(tx);
    let mut random = Random::new(1);
    let mut held = Vec::new();
    for d in &rx {
        held.push(d);
        assert!(held.len() as u64 <= BOUND);
        if held.len() as u64 == BOUND || random.below(3) == 0 {
            for _ in 0..=random.below(held.len() as u64) {
                let d = held.swap_remove(random.below(held.len() as u64) as usize);
                acknowledging.fetch_add(1, Ordering::SeqCst);
                Delivery::ack(d).unwrap();
            }
        }
    }
    senders.into_iter().for_each(|s| s.join().unwrap());
}

#[test]
fn an_unacknowledged_message_at_the_head_keeps_its_slot_and_no_other() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let (tx, rx) =
        walchan::sync_channel_with_options::<u64>(dir.path().join("q"), 3, flush()).unwrap();
    tx.send(0).unwrap();
    let first = rx.recv().unwrap();
    for n in 1..500 {
        tx.try_send(n).unwrap();
        assert_eq!(rx.try_recv().unwrap(), n);
    }
    for n in [1, 2] {
        tx.try_send(n).unwrap();
    }
    assert_eq!(tx.try_send(3), Err(TrySendError::Full(3)));
    drop(first);
    tx.try_send(3).unwrap();
}

#[test]
fn an_unbounded_ring_that_may_not_grow_is_full_and_hands_the_message_back() {
    let _dog = watchdog();
    for durability in every_durability() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            // Another file would be larger than what is left.
            max_bytes: Some(2 * (HEADER as u64 + RING) - 1),
            ..with(durability)
        };
        let (tx, rx) =
            walchan::channel_with_options::<String>(dir.path().join("q"), options).unwrap();
        for round in 0..3 {
            let mut sent = 0;
            let e = loop {
                match tx.send(format!("{sent:5000}")) {
                    Ok(()) => sent += 1,
                    Err(e) => break e,
                }
            };
            assert_eq!(e.kind, SendErrorKind::Full, "round {round}");
            assert!(!e.is_disconnected());
            assert_eq!(e.into_inner(), format!("{sent:5000}"));
            assert!(sent >= 11, "{sent}");
            for n in 0..sent {
                assert_eq!(rx.recv().unwrap(), format!("{n:5000}"));
            }
            assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
        }
    }
}

/// In synced modes the head is durable only after a sync: the send has to make it.
#[test]
fn a_ring_full_of_acknowledged_messages_takes_a_try_send() {
    let _dog = watchdog();
    for durability in every_durability() {
        let dir = tempfile::tempdir().unwrap();
        let (tx, rx) = walchan::sync_channel_with_options::<String>(
            dir.path().join("q"),
            1000,
            with(durability),
        )
        .unwrap();
        for _ in 0..20 {
            let mut sent = 0;
            while tx.try_send("x".repeat(9_000)).is_ok() {
                sent += 1;
            }
            assert!(sent >= 6, "{sent}");
            let held: Vec<_> = rx.try_iter().collect();
            assert_eq!(held.len(), sent);
            assert!(tx.try_send("y".repeat(9_000)).is_err());
            drop(held);
            tx.try_send("y".repeat(9_000)).unwrap();
            assert_eq!(rx.try_iter().count(), 1);
        }
    }
}

#[test]
fn blocked_senders_go_on_one_by_one_as_room_comes() {
    let _dog = watchdog();
    for durability in every_durability() {
        let dir = tempfile::tempdir().unwrap();
        // Large messages: it is the ring that is full, not the bound.
        let (tx, rx) = walchan::sync_channel_with_options::<String>(
            dir.path().join("q"),
            1000,
            with(durability),
        )
        .unwrap();
        let senders: Vec<_> = (0..4)
            .map(|_| {
                let tx = tx.clone();
                thread::spawn(move || (0..20).for_each(|_| tx.send("z".repeat(30_000)).unwrap()))
            })
            .collect();
        drop(tx);
        assert_eq!(rx.iter().count(), 80);
        senders.into_iter().for_each(|s| s.join().unwrap());
    }
}

#[test]
fn timeouts_that_cannot_be_represented_wait_for_ever() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let (tx, rx) =
        walchan::sync_channel_with_options::<u64>(dir.path().join("q"), 1, flush()).unwrap();
    tx.send_timeout(0, Duration::MAX).unwrap();
    let sender = thread::spawn(move || {
        (1..200).for_each(|n| tx.send_timeout(n, Duration::MAX).unwrap());
    });
    for n in 0..200 {
        assert_eq!(rx.recv_timeout(Duration::MAX).unwrap(), n);
    }
    sender.join().unwrap();
    assert_eq!(
        rx.recv_timeout(Duration::MAX),
        Err(RecvTimeoutError::Disconnected)
    );
}

#[test]
fn a_deadline_that_has_passed_still_looks_once() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let (tx, rx) =
        walchan::sync_channel_with_options::<u64>(dir.path().join("q"), 2, flush()).unwrap();
    let past = Instant::now();
    assert_eq!(rx.recv_deadline(past), Err(RecvTimeoutError::Timeout));
    tx.send_timeout(1, Duration::ZERO).unwrap();
    tx.send_timeout(2, Duration::ZERO).unwrap();
    assert_eq!(
        tx.send_timeout(3, Duration::ZERO),
        Err(SendTimeoutError::Timeout(3))
    );
    assert_eq!(rx.recv_deadline(past).unwrap(), 1);
    assert_eq!(rx.recv_timeout(Duration::ZERO).unwrap(), 2);
    assert_eq!(
        rx.recv_timeout(Duration::ZERO),
        Err(RecvTimeoutError::Timeout)
    );
    tx.send_timeout(3, Duration::ZERO).unwrap();
}

#[test]
fn timeouts_are_not_shorter_than_asked() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let (tx, rx) =
        walchan::sync_channel_with_options::<u64>(dir.path().join("q"), 1, flush()).unwrap();
    let wait = Duration::from_millis(30);
    let began = Instant::now();
    assert_eq!(rx.recv_timeout(wait), Err(RecvTimeoutError::Timeout));
    assert!(began.elapsed() >= wait);
    tx.send(1).unwrap();
    let began = Instant::now();
    assert_eq!(tx.send_timeout(2, wait), Err(SendTimeoutError::Timeout(2)));
    assert!(began.elapsed() >= wait);
}
