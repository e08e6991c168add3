//! The ends of a channel leave.

#![cfg(loom)]
#![allow(clippy::unwrap_used)]
#![allow(clippy::arc_with_non_send_sync)] // the threads of a model take turns

use loom::cell::UnsafeCell;
use loom_tests::{Arc, Failure, Mode, Received, Sending, Setup, channel, message, model, spawn};

fn flush_only(senders: u64) -> Setup {
    Setup {
        mode: Mode::FlushOnly,
        senders,
        ..Setup::default()
    }
}

// Threads: two senders, of which one sends, both leave, in any order; the receiver looks a few times. It must
// not hear of the end before it has the message.
#[test]
fn a_message_comes_before_the_disconnection() {
    model(
        "a_message_comes_before_the_disconnection",
        "the last sender to leave is not the one that sent: its message still comes first",
        || {
            let log = channel(flush_only(2));
            let sends = spawn(&log, |log| {
                log.send(b"last").unwrap();
                log.sender_left();
            });
            let leaves = spawn(&log, |log| log.sender_left());
            let mut receiver = log.receiver();
            let mut seen = None;
            for _ in 0..2 {
                match log.try_receive(&mut receiver) {
                    Some(Received::Disconnected) => assert!(seen.is_some()),
                    Some(received) => seen = Some(message(received)),
                    None => {}
                }
            }
            sends.join().unwrap();
            leaves.join().unwrap();
            if seen.is_none() {
                seen = log.try_receive(&mut receiver).map(message);
            }
            assert_eq!(seen, Some((0, b"last".to_vec())));
            assert_eq!(log.try_receive(&mut receiver), Some(Received::Disconnected));
        },
    );
}

// Threads: the last sender leaves; the receiver sleeps. It must be woken.
#[test]
fn the_last_sender_wakes_the_receiver() {
    model(
        "the_last_sender_wakes_the_receiver",
        "a sleeping receiver, the last sender leaves: disconnected",
        || {
            let log = channel(flush_only(1));
            let sender = spawn(&log, |log| log.sender_left());
            assert_eq!(log.receive(&mut log.receiver()), Received::Disconnected);
            sender.join().unwrap();
        },
    );
}

/// Keeps something: what is done behind that, and does not happen behind it, is a race that loom sees.
struct Keeps(Arc<UnsafeCell<()>>);

impl Drop for Keeps {
    fn drop(&mut self) {
        self.0.with(|_| ());
    }
}

// Threads: two handles that keep the channel leave, in any order; the receiver waits for the end, and then
// has to itself what they kept.
#[test]
fn who_hears_of_the_end_finds_that_no_sender_keeps_anything() {
    model(
        "who_hears_of_the_end_finds_that_no_sender_keeps_anything",
        "two senders leave: whoever hears of it closes the channel, and they do not have it any more",
        || {
            let log = channel(flush_only(0));
            let kept = Arc::new(UnsafeCell::new(()));
            let handles = [(); 2].map(|()| log.sending(Keeps(Arc::clone(&kept))));
            let threads = handles.map(|handle: Sending<Keeps>| spawn(&log, |_| drop(handle)));
            assert_eq!(log.receive(&mut log.receiver()), Received::Disconnected);
            assert_eq!(Arc::strong_count(&kept), 1);
            kept.with_mut(|_| ());
            for thread in threads {
                thread.join().unwrap();
            }
        },
    );
}

// Threads: a sender sleeps for room; the receiver leaves. The sender must be woken.
#[test]
fn a_receiver_that_leaves_wakes_a_sender() {
    model(
        "a_receiver_that_leaves_wakes_a_sender",
        "a sender asleep for room, the receiver leaves: disconnected",
        || {
            let log = channel(Setup {
                bound: 1,
                ..flush_only(1)
            });
            log.send(b"first").unwrap();
            let sender = spawn(&log, |log| log.send(b"second"));
            log.receiver_left();
            assert_eq!(sender.join().unwrap(), Err(Failure::Disconnected));
        },
    );
}

// Threads: a worker gives a message back and drops the last sender, as a panic does; the receiver looks a few
// times. It must not hear of the end before it has the message again.
#[test]
fn what_came_back_comes_before_the_disconnection() {
    model(
        "what_came_back_comes_before_the_disconnection",
        "a message given back by the last sender's thread comes before the end",
        || {
            let log = channel(flush_only(1));
            let mut receiver = log.receiver();
            log.send(b"again").unwrap();
            let position = message(log.try_receive(&mut receiver).unwrap()).0;
            let worker = spawn(&log, move |log| {
                log.give_back(position);
                log.sender_left();
            });
            match log.receive(&mut receiver) {
                Received::Message { deliveries, .. } => assert_eq!(deliveries, 2),
                other => panic!("{other:?} before the message"),
            }
            assert_eq!(log.receive(&mut receiver), Received::Disconnected);
            worker.join().unwrap();
        },
    );
}
