//! What becomes of a delivery in a panicking thread, by each way out of it; and destructors that receive.
#![allow(clippy::unwrap_used)]

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use support::{every_durability, flush, watchdog, with};
use walchan::{
    BytesDelivery, BytesReceiver, Delivery, Options, Receiver, RecvError, SyncSender, TryRecvError,
};

/// Runs it in a destructor while the thread panics.
fn unwinding(body: impl FnOnce()) {
    struct Last<F: FnOnce()>(Option<F>);
    impl<F: FnOnce()> Drop for Last<F> {
        fn drop(&mut self) {
            assert!(thread::panicking());
            self.0.take().unwrap()();
        }
    }
    let caught = catch_unwind(AssertUnwindSafe(|| {
        let _last = Last(Some(body));
        std::panic::resume_unwind(Box::new("planned"));
    }));
    assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"planned"));
}

fn open(path: &Path, options: Options) -> (SyncSender<u64>, Receiver<u64>) {
    walchan::sync_channel_with_options(path, 100, options).unwrap()
}

/// What the next life finds.
fn left(path: &Path) -> Vec<u64> {
    let (_tx, rx) = open(path, flush());
    let found = rx.try_iter().map(|d| {
        let found = *d;
        Delivery::leave(d);
        found
    });
    found.collect()
}

/// Does something with the delivery of 1 in a panicking thread that held it before; what the same life, and
/// then the next one, find of 1 and 2.
fn held(way_out: impl Fn(Delivery<u64>)) -> (Vec<u64>, Vec<u64>) {
    let mut found = Vec::new();
    for durability in every_durability() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        let (tx, rx) = open(&path, with(durability));
        tx.send(1).unwrap();
        let d = rx.recv().unwrap();
        unwinding(|| way_out(d));
        tx.send(2).unwrap();
        let now: Vec<_> = rx
            .try_iter()
            .map(|d| {
                let found = *d;
                Delivery::leave(d);
                found
            })
            .collect();
        drop((tx, rx));
        found.push((now, left(&path)));
    }
    assert!(found.iter().all(|other| *other == found[0]), "{found:?}");
    found.swap_remove(0)
}

#[test]
fn into_inner_acknowledges_in_a_panicking_thread() {
    let _dog = watchdog();
    let found = held(|d| assert_eq!(d.into_inner(), 1));
    assert_eq!(found, (vec![2], vec![2]));
}

#[test]
fn ack_acknowledges_in_a_panicking_thread() {
    let _dog = watchdog();
    let found = held(|d| Delivery::ack(d).unwrap());
    assert_eq!(found, (vec![2], vec![2]));
}

#[test]
fn leave_leaves_in_a_panicking_thread() {
    let _dog = watchdog();
    assert_eq!(held(Delivery::leave), (vec![2], vec![1, 2]));
}

#[test]
fn drop_gives_back_in_a_panicking_thread() {
    let _dog = watchdog();
    assert_eq!(held(drop), (vec![1, 2], vec![1, 2]));
}

#[test]
fn copying_settles_nothing_in_a_panicking_thread() {
    let _dog = watchdog();
    let found = held(|d| {
        assert_eq!(d.copied(), 1);
        Delivery::leave(d);
    });
    assert_eq!(found, (vec![2], vec![1, 2]));
}

#[test]
fn bytes_end_as_values_do_in_a_panicking_thread() {
    let _dog = watchdog();
    type WayOut = fn(BytesDelivery);
    let ways: [(WayOut, &[u8]); 3] = [
        (|d| BytesDelivery::ack(d).unwrap(), b"2"),
        (BytesDelivery::leave, b"2"),
        (drop, b"1"),
    ];
    for (way_out, next) in ways {
        let dir = tempfile::tempdir().unwrap();
        let options = flush();
        let (tx, rx) = options.bytes_channel(dir.path().join("q")).unwrap();
        tx.send(b"1").unwrap();
        let d = rx.recv().unwrap();
        unwinding(|| way_out(d));
        tx.send(b"2").unwrap();
        assert_eq!(rx.recv().unwrap()[..], *next);
    }
}

/// In a destructor while the thread panics; gives what it saw.
fn drained(drain: impl Fn(&Receiver<u64>) -> Vec<u64>) -> Vec<u64> {
    let mut found = Vec::new();
    for durability in every_durability() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        let (tx, rx) = open(&path, with(durability));
        (0..5).for_each(|n| tx.send(n).unwrap());
        let mut seen = Vec::new();
        unwinding(|| seen = drain(&rx));
        assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
        drop((tx, rx));
        assert_eq!(left(&path), [0u64; 0]);
        seen.dedup();
        found.push(seen);
    }
    assert!(found.iter().all(|other| *other == found[0]), "{found:?}");
    found.swap_remove(0)
}

#[test]
fn draining_in_a_destructor_while_the_thread_panics_ends() {
    let _dog = watchdog();
    let all: Vec<u64> = (0..5).collect();
    assert_eq!(
        drained(|rx| rx.try_iter().map(Delivery::into_inner).collect()),
        all
    );
    assert_eq!(drained(|rx| rx.try_iter().map(|d| *d).collect()), all);
    assert_eq!(
        drained(|rx| {
            let mut seen = Vec::new();
            while let Ok(d) = rx.try_recv() {
                seen.push(*d);
                Delivery::ack(d).unwrap();
            }
            seen
        }),
        all
    );
}

#[test]
fn draining_a_full_channel_while_the_thread_panics_lets_its_sender_go_on() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let (tx, rx) = walchan::sync_channel_with_options::<u64>(&path, 1, flush()).unwrap();
    let sender = thread::spawn(move || (0..50).for_each(|n| tx.send(n).unwrap()));
    let mut seen = Vec::new();
    unwinding(|| seen.extend(rx.iter().map(|d| *d)));
    sender.join().unwrap();
    seen.dedup();
    assert_eq!(seen, (0..50).collect::<Vec<_>>());
    assert_eq!(rx.recv(), Err(RecvError::Disconnected));
}

#[test]
fn bytes_are_drained_while_the_thread_panics() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let (tx, rx): (_, BytesReceiver) = flush().bytes_channel(dir.path().join("q")).unwrap();
    (0..5).for_each(|n| tx.send(&[n]).unwrap());
    drop(tx);
    let mut seen = Vec::new();
    unwinding(|| seen.extend(rx.iter().map(|d| d[0])));
    seen.dedup();
    assert_eq!(seen, [0, 1, 2, 3, 4]);
    assert_eq!(rx.recv().unwrap_err(), RecvError::Disconnected);
}

#[test]
fn what_a_panicking_thread_received_and_gave_to_another_comes_back_from_there() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let (tx, rx) = open(&dir.path().join("q"), flush());
    tx.send(1).unwrap();
    let (give, take) = mpsc::channel::<Delivery<u64>>();
    let worker = thread::spawn(move || {
        let _d = take.recv().unwrap();
        std::panic::resume_unwind(Box::new("planned"));
    });
    unwinding(|| {
        drop(rx.recv().unwrap());
        let again = rx.recv().unwrap();
        assert_eq!(Delivery::deliveries(&again), 2);
        give.send(again).unwrap();
    });
    assert!(worker.join().is_err());
    let d = rx.recv().unwrap();
    assert_eq!((*d, Delivery::deliveries(&d)), (1, 3));
}
