//! `close`: what `Ok` promises, and who keeps a channel open.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use support::{every_durability, flush, watchdog, with};
use walchan::{Delivery, Error, Receiver, RecvError, RecvTimeoutError, Sender, TryRecvError};

/// Lives of each kind.
const LIVES: u64 = if cfg!(feature = "stress") {
    30_000
} else {
    300
};

fn open<T>(path: &Path) -> (Sender<T>, Receiver<T>)
where
    T: serde::Serialize + serde::de::DeserializeOwned,
{
    walchan::channel_with_options(path, flush()).unwrap()
}

/// Drops what it gets, in a thread that is busy looking for it: at the same time as the thread that gave it
/// goes on.
fn dropper<T: Send + 'static>() -> (mpsc::Sender<T>, thread::JoinHandle<()>) {
    let (give, given) = mpsc::channel();
    let drops = thread::spawn(move || {
        loop {
            match given.try_recv() {
                Ok(value) => drop(value),
                Err(mpsc::TryRecvError::Empty) => thread::yield_now(),
                Err(mpsc::TryRecvError::Disconnected) => break,
            }
        }
    });
    (give, drops)
}

/// Looks for the end, without sleeping. That the receiver waited before costs the sender that leaves a system
/// call behind the moment at which it says so: time for whoever looks.
fn wait_for_the_end<T>(rx: &Receiver<T>, leave: impl FnOnce())
where
    T: serde::Serialize + serde::de::DeserializeOwned,
{
    assert!(matches!(
        rx.recv_timeout(Duration::ZERO),
        Err(RecvTimeoutError::Timeout)
    ));
    leave();
    loop {
        match rx.try_recv() {
            Err(TryRecvError::Disconnected) => break,
            Err(TryRecvError::Empty) => thread::yield_now(),
            other => panic!("{:?}", other.map(drop)),
        }
    }
}

fn in_use(senders: u64, deliveries: u64) -> Error {
    Error::InUse {
        senders,
        deliveries,
    }
}

/// The last sender tells the receiver that it has left, in its own thread, when it no longer keeps the
/// channel open.
#[test]
fn who_hears_of_the_end_and_closes_can_open_again_at_once() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    // Each is dropped by a thread that the next life does not wait for.
    let (leave, leaves) = dropper();
    for life in 0..LIVES {
        let (tx, rx) = open(&path);
        tx.send(life).unwrap();
        assert_eq!(rx.recv().unwrap(), life);
        wait_for_the_end(&rx, || leave.send(tx).unwrap());
        rx.close().unwrap();
    }
    drop(leave);
    leaves.join().unwrap();
}

/// As above, with two senders, and with messages that others acknowledge.
#[test]
fn who_hears_that_all_is_done_and_closes_can_open_again_at_once() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let (leave, leaves) = dropper();
    let (work, works) = mpsc::channel::<Delivery<u64>>();
    let (done, dones) = mpsc::channel();
    let worker = thread::spawn(move || {
        for delivery in works {
            match *delivery % 3 {
                0 => Delivery::ack(delivery).unwrap(),
                1 => drop(delivery),
                _ => Delivery::leave(delivery),
            }
            done.send(()).unwrap();
        }
    });
    for life in 0..LIVES {
        let (tx, rx) = open(&path);
        rx.try_iter().for_each(drop);
        let other = tx.clone();
        tx.send(life).unwrap();
        work.send(rx.recv().unwrap()).unwrap();
        drop(other);
        wait_for_the_end(&rx, || leave.send(tx).unwrap());
        while dones.try_recv().is_err() {
            thread::yield_now();
        }
        rx.close().unwrap();
    }
    drop((leave, work));
    leaves.join().unwrap();
    worker.join().unwrap();
}

/// A channel that came back to its ring: the handles of its last senders lead to a file of their own.
#[test]
fn a_sender_that_left_leads_to_no_file_any_more() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let (leave, leaves) = dropper();
    for _ in 0..LIVES / 10 {
        let (tx, rx) = open(&path);
        // More than the ring holds, drained twice: what is sent last lies in a segment, or in the ring's next
        // life.
        for _ in 0..2 {
            (0..9).for_each(|n| tx.send(vec![n; 10_000]).unwrap());
            (0..9).for_each(|n| assert_eq!(rx.recv().unwrap()[0], n));
        }
        tx.send(vec![9]).unwrap();
        assert_eq!(*rx.recv().unwrap(), [9]);
        wait_for_the_end(&rx, || leave.send(tx).unwrap());
        rx.close().unwrap();
    }
    drop(leave);
    leaves.join().unwrap();
}

#[test]
fn a_close_tells_what_keeps_the_channel_open() {
    let _dog = watchdog();
    for durability in every_durability() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        let open = || walchan::channel_with_options::<u64>(&path, with(durability));
        let locked = || assert_eq!(open().unwrap_err(), Error::Locked);
        // Senders alone.
        let (tx, rx) = open().unwrap();
        let other = tx.clone();
        assert_eq!(rx.close().unwrap_err(), in_use(2, 0));
        drop(tx);
        locked();
        drop(other);
        // Deliveries alone.
        let (tx, rx) = open().unwrap();
        (0..3).for_each(|n| tx.send(n).unwrap());
        let held: Vec<_> = (0..3).map(|_| rx.recv().unwrap()).collect();
        drop(tx);
        assert_eq!(rx.close().unwrap_err(), in_use(0, 3));
        for delivery in held {
            locked();
            drop(delivery);
        }
        // Both.
        let (tx, rx) = open().unwrap();
        tx.send(3).unwrap();
        let held = rx.recv().unwrap();
        let error = rx.close().unwrap_err();
        assert_eq!(error, in_use(1, 1));
        assert_eq!(
            error.to_string(),
            "the channel is still in use: senders: 1, deliveries: 1"
        );
        drop(held);
        locked();
        drop(tx);
        let (tx, rx) = open().unwrap();
        drop(tx);
        rx.close().unwrap();
        drop(open().unwrap());
    }
}

#[test]
fn what_could_not_be_delivered_keeps_the_channel_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let (tx, rx) = open::<u8>(&path);
    tx.send(1).unwrap();
    drop((tx, rx));
    let (tx, rx) = open::<String>(&path);
    let Err(RecvError::Undecodable(message)) = rx.recv() else {
        panic!("it was a channel of u8");
    };
    drop(tx);
    assert_eq!(rx.close().unwrap_err(), in_use(0, 1));
    assert_eq!(walchan::channel::<u8>(&path).unwrap_err(), Error::Locked);
    message.acknowledge().unwrap();
    let (tx, rx) = open::<u8>(&path);
    assert_eq!(rx.recovery().kept(), 0);
    drop(tx);
    rx.close().unwrap();
}
