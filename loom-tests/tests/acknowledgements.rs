//! Acknowledgement, the head, and the reuse of space.

#![cfg(loom)]
#![allow(clippy::unwrap_used)]

use loom_tests::{Arc, Channel, Mode, Setup, channel, message, model, spawn};

/// Behind the end of the biases: that, and the fences of the models, would order what follows, too.
fn shared() -> Setup {
    Setup {
        biases: false,
        ..Setup::default()
    }
}

/// A channel with `count` messages of `len` bytes, all handed out.
fn handed_out(
    setup: Setup,
    count: usize,
    len: usize,
) -> (Arc<Channel>, loom_tests::Receiver, Vec<u64>) {
    let log = channel(Setup {
        mode: Mode::FlushOnly,
        ..setup
    });
    let mut receiver = log.receiver();
    let positions = (0..count).map(|n| {
        log.claim(len as u64)
            .unwrap()
            .publish(&vec![n as u8 + 1; len]);
        message(log.try_receive(&mut receiver).unwrap()).0
    });
    let positions = positions.collect();
    (log, receiver, positions)
}

// Threads: two acknowledgers, the later message maybe first. Each may find the other at the advance, and
// leave it to it. When both are done, the head must be behind both messages.
#[test]
fn an_advance_handed_over_is_made() {
    model(
        "an_advance_handed_over_is_made",
        "two acknowledgers, any order: whoever finds the other advancing is not forgotten",
        || {
            let (log, _, positions) = handed_out(Setup::default(), 2, 4);
            let later = positions[1];
            let other = spawn(&log, move |log| {
                log.acknowledge_only(later);
                log.advance();
            });
            log.acknowledge_only(positions[0]);
            log.advance();
            other.join().unwrap();
            assert_eq!(log.head(), log.tail());
        },
    );
}

// Threads: two acknowledgers; the first also reuses the space, with a frame that lies across the old head.
// The second advances after it, and must go on from the head that the first left, not look at words that are
// reused.
#[test]
fn the_next_advance_goes_on_where_the_last_ended() {
    model(
        "the_next_advance_goes_on_where_the_last_ended",
        "an advance after another one and a reuse: it begins at the newest head",
        || {
            let setup = Setup {
                start: 16,
                ..Setup::default()
            };
            let (log, _, positions) = handed_out(setup, 2, 16);
            let later = positions[1];
            let other = spawn(&log, move |log| {
                log.acknowledge_only(later);
                log.advance();
            });
            log.acknowledge_only(positions[0]);
            log.advance();
            log.reclaim();
            for byte in [8, 9] {
                if let Some(claim) = log.claim(32) {
                    claim.publish(&[byte; 32]);
                }
            }
            other.join().unwrap();
            assert_eq!(log.head(), 80);
        },
    );
}

// Threads: the receiver takes a message into words whose last lap was acknowledged; somebody acknowledges the
// message before it and advances. The head must stop at the new message, which nobody acknowledged.
#[test]
fn the_head_never_passes_an_unacknowledged_message() {
    model(
        "the_head_never_passes_an_unacknowledged_message",
        "an advance beside a reader in the next lap: what the last lap left is not believed",
        || {
            let setup = Setup {
                capacity: 64,
                ..Setup::default()
            };
            let (log, mut receiver, positions) = handed_out(setup, 4, 0);
            for position in &positions[..3] {
                log.acknowledge_only(*position);
            }
            log.advance();
            log.reclaim();
            let last = positions[3];
            let other = spawn(&log, move |log| {
                log.acknowledge_only(last);
                log.advance();
            });
            log.claim(0).unwrap().publish(b"");
            assert_eq!(message(log.try_receive(&mut receiver).unwrap()).0, 64);
            other.join().unwrap();
            assert_eq!(log.head(), 64);
        },
    );
}

/// Threads: the receiver reads a message a second time and acknowledges it, and, if `looks_on`, looks for the
/// next one, by which it records that nothing is held; somebody advances and reuses the space. The copy out
/// must be over before the copy in begins.
fn read_again_beside_a_reuse(looks_on: bool) {
    let (log, mut receiver, positions) = handed_out(shared(), 2, 32);
    if looks_on {
        log.acknowledge_only(positions[1]);
    }
    log.give_back(positions[0]);
    let other = spawn(&log, |log| {
        log.advance();
        log.reclaim();
        if let Some(claim) = log.claim(32) {
            claim.publish(&[9; 32]);
        }
    });
    let (position, payload) = message(log.try_receive(&mut receiver).unwrap());
    assert_eq!((position, payload), (0, vec![1; 32]));
    log.acknowledge_only(position);
    if looks_on {
        // Nothing, or what the other sent.
        log.try_receive(&mut receiver);
    }
    other.join().unwrap();
}

#[test]
fn what_is_read_again_is_not_overwritten() {
    model(
        "what_is_read_again_is_not_overwritten",
        "a second delivery, acknowledged, beside an advance and a reuse: no words are torn",
        || read_again_beside_a_reuse(false),
    );
}

#[test]
fn what_was_read_before_all_was_acknowledged_is_not_overwritten() {
    model(
        "what_was_read_before_all_was_acknowledged_is_not_overwritten",
        "an advance to where the receiver says that nothing is held, and a reuse: no words are torn",
        || read_again_beside_a_reuse(true),
    );
}

// Threads: somebody acknowledges a message; the receiver takes the next one, and advances. Only where both
// are acknowledged, nothing is held.
#[test]
fn the_head_stops_before_what_is_held() {
    model(
        "the_head_stops_before_what_is_held",
        "the receiver looks on while another thread acknowledges: the head stops before what is held",
        || {
            let (log, mut receiver, positions) = handed_out(Setup::default(), 2, 4);
            log.claim(4).unwrap().publish(&[3; 4]);
            let first = positions[0];
            let other = spawn(&log, move |log| {
                log.acknowledge_only(first);
                log.advance();
            });
            let (third, _) = message(log.try_receive(&mut receiver).unwrap());
            log.acknowledge_only(third);
            assert!(log.try_receive(&mut receiver).is_none());
            log.advance();
            other.join().unwrap();
            assert_eq!(log.head(), positions[1]);
        },
    );
}

// One thread: nothing is held but damage, which is in no count. The head stops before it, although all before
// the cursor counts as acknowledged.
#[test]
fn held_damage_stops_the_head_where_all_is_acknowledged() {
    model(
        "held_damage_stops_the_head_where_all_is_acknowledged",
        "all messages acknowledged, damage behind them held: the head stays until it is released",
        || {
            let (log, mut receiver, positions) = handed_out(Setup::default(), 2, 32);
            for position in positions {
                log.acknowledge_only(position);
            }
            log.hold_back(96);
            log.pass(&mut receiver, 128);
            assert!(log.try_receive(&mut receiver).is_none());
            log.advance();
            assert_eq!(log.head(), 96);
            log.release_damage(96, 128);
            log.advance();
            assert_eq!(log.head(), 128);
        },
    );
}

// Threads: the receiver reads, acknowledges, advances and raises the limit; a producer claims when it can. It
// must not write before the receiver has read.
#[test]
fn a_limit_hands_on_what_was_read() {
    model(
        "a_limit_hands_on_what_was_read",
        "a producer that uses a raised limit: it writes behind the reads that made the room",
        || {
            let (log, mut receiver, _) = handed_out(shared(), 0, 0);
            for byte in [1, 2] {
                log.claim(32).unwrap().publish(&[byte; 32]);
            }
            let producer = spawn(&log, |log| {
                if let Some(claim) = log.claim(32) {
                    claim.publish(&[9; 32]);
                }
            });
            let (position, payload) = message(log.try_receive(&mut receiver).unwrap());
            assert_eq!(payload, [1; 32]);
            log.acknowledge_only(position);
            log.advance();
            log.reclaim();
            producer.join().unwrap();
        },
    );
}

// Threads: the receiver reads, acknowledges and advances; a producer raises the limit as far as the head
// allows, and claims. It must not write before the receiver has read.
#[test]
fn a_head_hands_on_what_was_read() {
    model(
        "a_head_hands_on_what_was_read",
        "whoever raises the limit to a head that another thread moved: writes come behind the reads",
        || {
            let (log, mut receiver, _) = handed_out(shared(), 0, 0);
            for byte in [1, 2] {
                log.claim(32).unwrap().publish(&[byte; 32]);
            }
            let producer = spawn(&log, |log| {
                log.reclaim();
                if let Some(claim) = log.claim(32) {
                    claim.publish(&[9; 32]);
                }
            });
            let (position, payload) = message(log.try_receive(&mut receiver).unwrap());
            assert_eq!(payload, [1; 32]);
            log.acknowledge_only(position);
            log.advance();
            producer.join().unwrap();
        },
    );
}

// Threads: one releases damage that holds the head back; one advances. The head must pass the damage as a
// whole, seeing the filler and not what lay there: an acknowledged frame of the last lap, and longer.
#[test]
fn released_damage_is_passed_whole() {
    model(
        "released_damage_is_passed_whole",
        "damage released beside an advance: the head sees the filler or stays",
        || {
            let (log, mut receiver, positions) = handed_out(Setup::default(), 2, 32);
            for position in positions {
                log.acknowledge_only(position);
            }
            log.claim(16).unwrap().publish(&[3; 16]);
            let position = message(log.try_receive(&mut receiver).unwrap()).0;
            log.acknowledge_only(position);
            log.advance();
            log.reclaim();
            assert_eq!(log.head(), 128);
            log.hold_back(128);
            log.pass(&mut receiver, 160);
            let other = spawn(&log, |log| {
                log.advance();
                assert!([128, 160].contains(&log.head()));
            });
            log.release_damage(128, 160);
            log.advance();
            other.join().unwrap();
            assert_eq!(log.head(), 160);
        },
    );
}
