//! Sleeping and waking on both sides.

#![cfg(loom)]
#![allow(clippy::unwrap_used)]

use loom_tests::{Mode, Setup, channel, message, model, spawn};

fn flush_only() -> Setup {
    Setup {
        mode: Mode::FlushOnly,
        ..Setup::default()
    }
}

// Threads: a sender and the receiver, which sleeps if there is nothing. It must not sleep through the
// message.
#[test]
fn a_sleeping_receiver_is_woken() {
    model(
        "a_sleeping_receiver_is_woken",
        "a receiver goes to sleep as a message is published: it gets it",
        || {
            let log = channel(flush_only());
            let sender = spawn(&log, |log| log.send(b"wake").unwrap());
            let (_, payload) = message(log.receive(&mut log.receiver()));
            assert_eq!(payload, b"wake");
            sender.join().unwrap();
        },
    );
}

// Threads: a sender at the bound, which sleeps, and the holder of the message, who acknowledges it. The
// sender must not sleep through that.
#[test]
fn a_sleeping_sender_is_woken() {
    model(
        "a_sleeping_sender_is_woken",
        "a sender goes to sleep at the bound as a message is acknowledged: it gets in",
        || {
            let log = channel(Setup {
                bound: 1,
                ..flush_only()
            });
            log.send(b"first").unwrap();
            let position = message(log.receive(&mut log.receiver())).0;
            let sender = spawn(&log, |log| log.send(b"second").unwrap());
            log.acknowledge(position);
            sender.join().unwrap();
        },
    );
}

// Threads: two senders at the bound, which sleep, and the holder of the two messages, who acknowledges both.
// No waking may be lost between the two.
#[test]
fn two_sleeping_senders_are_woken() {
    model(
        "two_sleeping_senders_are_woken",
        "two senders asleep at the bound, two acknowledgements: both get in",
        || {
            let log = channel(Setup {
                bound: 2,
                ..flush_only()
            });
            let mut receiver = log.receiver();
            for _ in 0..2 {
                log.send(b"early").unwrap();
            }
            let positions = [(); 2].map(|()| message(log.receive(&mut receiver)).0);
            let senders = [(); 2].map(|()| spawn(&log, |log| log.send(b"late").unwrap()));
            for position in positions {
                log.acknowledge(position);
            }
            for sender in senders {
                sender.join().unwrap();
            }
            assert_eq!(log.unacknowledged(), 2);
        },
    );
}

// Threads: a worker gives its message back; the receiver sleeps. It must be woken, and get it again, counted.
#[test]
fn a_message_given_back_wakes_the_receiver() {
    model(
        "a_message_given_back_wakes_the_receiver",
        "a receiver goes to sleep as a message comes back: it gets it again",
        || {
            let log = channel(flush_only());
            let mut receiver = log.receiver();
            log.send(b"again").unwrap();
            let (position, _) = message(log.receive(&mut receiver));
            let worker = spawn(&log, move |log| log.give_back(position));
            let (again, payload) = message(log.receive(&mut receiver));
            assert_eq!((again, payload), (position, b"again".to_vec()));
            worker.join().unwrap();
        },
    );
}
