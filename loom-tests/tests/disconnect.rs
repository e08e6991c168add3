//! The ends of a channel leave.

#![cfg(loom)]
#![allow(clippy::unwrap_used)]

use loom_tests::{Failure, Mode, Received, Setup, channel, message, model, spawn};

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
