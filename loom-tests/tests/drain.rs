//! Files that are drained: retired, removed, used anew.

#![cfg(loom)]
#![allow(clippy::unwrap_used)]

use loom_tests::{Arc, Chain, ChainSetup, Held, Mode, chain, model, model_to, spawn_in};
use loom_tests::{ChainReceiver, HOUSEKEEPER_TIDY};

/// A chain into which so many messages of 16 bytes were sent, all of them received.
fn received(messages: usize, setup: ChainSetup) -> (Arc<Chain>, ChainReceiver, Vec<Held>) {
    let log = chain(setup);
    let handle = log.handle();
    for _ in 0..messages {
        log.send(&handle, b"").unwrap();
    }
    let mut receiver = log.receiver();
    let held = (0..messages).map(|_| log.try_receive(&mut receiver).unwrap().message());
    let held = held.collect();
    (log, receiver, held)
}

// Threads: two acknowledge the last two messages of the ring, which is sealed and left by the receiver; the
// housekeeper, once. It retires the ring, or is notified again.
#[test]
fn two_acknowledgers_drain_a_file() {
    model(
        "two_acknowledgers_drain_a_file",
        "the last two acknowledgements of a file, the housekeeper beside them: it is retired, or reported",
        || {
            let (log, _receiver, held) = received(5, ChainSetup::default());
            log.acknowledge(&held[0]);
            log.acknowledge(&held[1]);
            let acknowledgers = [2, 3].map(|i| {
                let held = held[i].clone();
                spawn_in(&log, move |log| log.acknowledge(&held))
            });
            assert!(log.keep());
            for acknowledger in acknowledgers {
                acknowledger.join().unwrap();
            }
            assert!(log.numbers() == [1, 0] || log.housekeeper_flags() & HOUSEKEEPER_TIDY != 0);
            assert!(log.keep());
            assert_eq!(log.numbers(), [1, 0]);
        },
    );
}

// Threads: the last message of a segment is acknowledged; the housekeeper, which was notified of something
// else. The file is removed, or the housekeeper is notified again.
#[test]
fn the_housekeeper_is_notified_of_a_drained_file() {
    model(
        "the_housekeeper_is_notified_of_a_drained_file",
        "the last acknowledgement of a file as the housekeeper takes its flags: seen, or flagged again",
        || {
            let (log, _receiver, held) = received(5, ChainSetup::default());
            for held in &held[..3] {
                log.acknowledge(held);
            }
            let last = held[3].clone();
            let acknowledger = spawn_in(&log, move |log| log.acknowledge(&last));
            assert!(log.keep());
            acknowledger.join().unwrap();
            assert!(log.numbers() == [1, 0] || log.housekeeper_flags() & HOUSEKEEPER_TIDY != 0);
        },
    );
}

/// That the ring is drained, if the next file was needed: else the acknowledgement made room in the ring.
fn check_the_housekeeper_is_notified(log: &Chain) {
    if log.numbers().contains(&1) {
        assert!(log.numbers()[0] == 1 || log.housekeeper_flags() & HOUSEKEEPER_TIDY != 0);
        assert!(log.keep());
        assert_eq!(log.numbers()[0], 1);
    }
}

// Threads: the last message of the ring that is not acknowledged, its first, is, by somebody who may not see
// yet that the ring has an end; a sender links the next file, and the housekeeper has been by; the receiver
// goes on there. One of them notifies the housekeeper that the ring is drained.
#[test]
fn a_file_drained_as_the_receiver_leaves_is_noticed() {
    model(
        "a_file_drained_as_the_receiver_leaves_is_noticed",
        "the last acknowledgement of a file as its end is shown and the receiver leaves: it is noticed",
        || {
            let (log, mut receiver, held) = received(4, ChainSetup::default());
            for held in &held[1..] {
                log.acknowledge(held);
            }
            let last = held[0].clone();
            let acknowledger = spawn_in(&log, move |log| log.acknowledge(&last));
            let sender = spawn_in(&log, |log| {
                log.send(&log.handle(), b"").unwrap();
                assert!(log.keep());
            });
            let next = log.receive(&mut receiver).message();
            acknowledger.join().unwrap();
            sender.join().unwrap();
            assert_eq!(next.position, 64);
            check_the_housekeeper_is_notified(&log);
        },
    );
}

// As above, by the thread that acknowledged the others: it does not ask whose the fences are, and looks once
// at all that could have to be done. At a bound of 2 nothing of that is missed.
#[test]
fn a_file_drained_by_the_one_acknowledger_is_noticed() {
    model_to(
        3,
        "a_file_drained_by_the_one_acknowledger_is_noticed",
        "a file drained by the one acknowledger as the receiver leaves: it looks for that behind its fence",
        || {
            let (log, mut receiver, held) = received(4, ChainSetup::default());
            for held in &held[1..] {
                log.acknowledge(held);
            }
            let sender = spawn_in(&log, |log| {
                log.send(&log.handle(), b"").unwrap();
                assert!(log.keep());
            });
            let receives = spawn_in(&log, move |log| {
                log.receive(&mut receiver).message().position
            });
            log.acknowledge(&held[0]);
            assert_eq!(receives.join().unwrap(), 64);
            sender.join().unwrap();
            check_the_housekeeper_is_notified(&log);
        },
    );
}

// Threads: an acknowledgement in a segment leaves so little behind that the channel may return to its ring;
// the housekeeper, which was notified of something else. It returns, or is notified again.
#[test]
fn the_housekeeper_is_notified_of_a_possible_return() {
    model(
        "the_housekeeper_is_notified_of_a_possible_return",
        "little is behind in a segment as the housekeeper takes its flags: seen, or flagged again",
        || {
            let log = chain(ChainSetup {
                mode: Mode::Every { max_ops: 100 },
                segment: 256,
                in_segment: true,
                ..ChainSetup::default()
            });
            let handle = log.handle();
            for _ in 0..6 {
                // Too large for the ring.
                log.send(&handle, b"16 bytes, no less").unwrap();
            }
            let mut receiver = log.receiver();
            let held = [(); 6].map(|()| log.try_receive(&mut receiver).unwrap().message());
            assert!(log.keep());
            assert_eq!(log.numbers(), [1, 2, 0]);
            log.flag_housekeeper(HOUSEKEEPER_TIDY);
            let late = held[5].clone();
            let acknowledger = spawn_in(&log, move |log| log.acknowledge(&late));
            assert!(log.keep());
            acknowledger.join().unwrap();
            assert!(log.is_in_ring() || log.housekeeper_flags() & HOUSEKEEPER_TIDY != 0);
            assert!(log.keep());
            assert!(log.is_in_ring());
        },
    );
}

// Threads: a sender whose message is too large for the ring, and for the segment that is sent into; the
// housekeeper, which finds that segment empty and returns to the ring. The file that the sender makes is
// sealed by nobody before the message is in it.
#[test]
fn who_makes_a_file_sends_into_it() {
    model(
        "who_makes_a_file_sends_into_it",
        "a message too large for the ring as the housekeeper returns to the ring: one file is made for it",
        || {
            let log = chain(ChainSetup {
                in_segment: true,
                ..ChainSetup::default()
            });
            log.flag_housekeeper(HOUSEKEEPER_TIDY);
            let sender = spawn_in(&log, |log| log.send(&log.handle(), &[7; 80]).unwrap());
            assert!(log.keep());
            let position = sender.join().unwrap();
            let mut receiver = log.receiver();
            let held = log.try_receive(&mut receiver).unwrap().message();
            assert_eq!(held.position, position);
            assert!(!log.was_made(3));
        },
    );
}

// Threads: the last message of a segment, whose end is padding, is acknowledged; the housekeeper removes the
// file, whose space is punched; the receiver, which has not passed the padding, and may find it, zeros, or
// half of each. It must go on to the message in the next file.
#[test]
fn a_receiver_late_in_a_removed_file_goes_on() {
    model(
        "a_receiver_late_in_a_removed_file_goes_on",
        "a receiver before the padding of a file that is removed: it goes on in the next",
        || {
            let setup = ChainSetup {
                ring: 128,
                in_segment: true,
                ..ChainSetup::default()
            };
            let (log, mut receiver, held) = received(3, setup);
            log.acknowledge(&held[0]);
            log.acknowledge(&held[1]);
            let position = log.send(&log.handle(), b"16 bytes, no less").unwrap();
            let last = held[2].clone();
            let acknowledger = spawn_in(&log, move |log| {
                log.acknowledge(&last);
                assert!(log.keep());
            });
            let next = log.receive(&mut receiver).message();
            assert_eq!(next.position, position);
            acknowledger.join().unwrap();
            assert!(log.keep());
            assert_eq!(log.removed(), [1]);
        },
    );
}

// Threads: the last message of the ring is acknowledged, late; the housekeeper, and then a sender, which may
// be the first in the ring's new incarnation. Nobody may write, or read, the ring's words through the old
// log.
#[test]
fn nobody_is_late_in_a_ring_that_begins_anew() {
    model(
        "nobody_is_late_in_a_ring_that_begins_anew",
        "the last acknowledgement of the ring, which is used anew at once: nothing old touches it",
        || {
            let (log, mut receiver, held) = received(8, ChainSetup::default());
            for held in &held[..3] {
                log.acknowledge(held);
            }
            let last = held[3].clone();
            let acknowledger = spawn_in(&log, move |log| log.acknowledge(&last));
            assert!(log.keep());
            let position = log.send(&log.handle(), b"").unwrap();
            acknowledger.join().unwrap();
            let next = log.try_receive(&mut receiver).unwrap().message();
            assert_eq!(next.position, position);
        },
    );
}

// Threads: the receiver, which has read the ring to its end; the housekeeper, which would retire the ring,
// and a sender behind it, who may be the first in its new incarnation. The receiver still looks for a frame
// behind the last: the ring must wait for it.
#[test]
fn the_ring_begins_anew_behind_the_receiver() {
    model(
        "the_ring_begins_anew_behind_the_receiver",
        "a receiver that leaves the drained ring, which is used anew: it is not in it any more",
        || {
            let log = chain(ChainSetup::default());
            let handle = log.handle();
            for _ in 0..8 {
                log.send(&handle, b"").unwrap();
            }
            let mut receiver = log.receiver();
            for _ in 0..4 {
                let held = log.try_receive(&mut receiver).unwrap().message();
                log.acknowledge(&held);
            }
            let housekeeper = spawn_in(&log, |log| {
                log.flag_housekeeper(HOUSEKEEPER_TIDY);
                assert!(log.keep());
                log.send(&log.handle(), b"").unwrap();
            });
            assert_eq!(log.receive(&mut receiver).message().position, 64);
            housekeeper.join().unwrap();
        },
    );
}

// Threads: a sender with a handle that has only ever known the ring, which is retired and begins anew; the
// housekeeper. The message must not go to the ring through the old log: it is received, behind those before
// it.
#[test]
fn an_old_handle_finds_the_new_ring() {
    model(
        "an_old_handle_finds_the_new_ring",
        "a handle that knows the ring's old incarnation, the ring begins anew: its message is where it belongs",
        || {
            let (log, mut receiver, held) = received(5, ChainSetup::default());
            for held in &held[..3] {
                log.acknowledge(held);
            }
            let old = spawn_in(&log, |log| log.send(&log.handle(), b"").unwrap());
            log.acknowledge(&held[3]);
            log.acknowledge(&held[4]);
            assert!(log.keep());
            let position = old.join().unwrap();
            let next = log.receive(&mut receiver).message();
            assert_eq!(next.position, position);
        },
    );
}

// Threads: the receiver comes to a file in which nothing is; the housekeeper retires and removes that file,
// for it is drained. The receiver must not write to it, and must get the message behind it.
#[test]
fn a_receiver_passes_an_empty_file_that_goes() {
    model(
        "a_receiver_passes_an_empty_file_that_goes",
        "a receiver comes to an empty sealed file as that is removed: it writes nothing, and goes on",
        || {
            let setup = ChainSetup {
                mode: Mode::Every { max_ops: 100 },
                segment: 32,
                ..ChainSetup::default()
            };
            let (log, mut receiver, held) = received(4, setup);
            // Ahead of need: smaller than the message that comes.
            assert!(log.keep());
            let large = log.send(&log.handle(), &[7; 40]).unwrap();
            for held in &held {
                log.acknowledge(held);
            }
            assert!(log.keep());
            assert_eq!(log.numbers()[..3], [0, 1, 2]);
            log.flag_housekeeper(HOUSEKEEPER_TIDY);
            let housekeeper = spawn_in(&log, |log| assert!(log.keep()));
            assert_eq!(log.receive(&mut receiver).message().position, large);
            housekeeper.join().unwrap();
            assert!(log.keep());
            assert!(log.removed().contains(&1));
            assert!(log.is_durably_drained(1));
        },
    );
}
