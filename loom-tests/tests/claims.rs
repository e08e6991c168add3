//! Claims: who gets which words, and what readers see of them.

#![cfg(loom)]
#![allow(clippy::unwrap_used)]

use loom_tests::{Failure, Mode, Received, Setup, channel, message, model, spawn};

fn flush_only() -> Setup {
    Setup {
        mode: Mode::FlushOnly,
        ..Setup::default()
    }
}

// Threads: two producers and the receiver, which looks a few times. Either may claim first, either may
// publish first. No payload may be seen torn, none twice, and the second place never before the first.
#[test]
fn what_is_read_is_what_was_sent() {
    model(
        "what_is_read_is_what_was_sent",
        "two producers and a reader: whole payloads, each once, in the order of the claims",
        || {
            let log = channel(flush_only());
            let producers =
                [b"first, 20 bytes long", b"other, 20 bytes long"].map(|payload: &[u8; 20]| {
                    spawn(&log, move |log| {
                        log.claim(20).unwrap().publish(payload);
                    })
                });
            let mut receiver = log.receiver();
            let mut seen = Vec::new();
            for _ in 0..2 {
                seen.extend(log.try_receive(&mut receiver).map(message));
            }
            for producer in producers {
                producer.join().unwrap();
            }
            while let Some(received) = log.try_receive(&mut receiver) {
                seen.push(message(received));
            }
            assert_eq!(seen.iter().map(|s| s.0).collect::<Vec<_>>(), [0, 48]);
            seen.sort_by(|a, b| a.1.cmp(&b.1));
            assert_eq!(seen[0].1, b"first, 20 bytes long");
            assert_eq!(seen[1].1, b"other, 20 bytes long");
        },
    );
}

// Threads: two producers at a place 32 bytes before the end of the ring, with frames of 48 bytes. Whoever
// claims first writes the padding. Both frames must be contiguous, behind the end.
#[test]
fn a_frame_never_crosses_the_end() {
    model(
        "a_frame_never_crosses_the_end",
        "two producers at the end of the ring: one padding, two whole frames behind it",
        || {
            let start = 96;
            let log = channel(Setup {
                start,
                ..flush_only()
            });
            let one = spawn(&log, |log| log.claim(30).unwrap().publish(&[1; 30]));
            log.claim(31).unwrap().publish(&[2; 31]);
            one.join().unwrap();
            let mut receiver = log.receiver();
            let mut seen = Vec::new();
            while let Some(received) = log.try_receive(&mut receiver) {
                seen.push(message(received));
            }
            assert_eq!(seen.iter().map(|s| s.0).collect::<Vec<_>>(), [128, 176]);
            seen.sort();
            assert!(seen.iter().any(|s| s.1 == [1; 30]) && seen.iter().any(|s| s.1 == [2; 31]));
        },
    );
}

// Threads: a sender for whose frame the ring is full and too short at its end, and the receiver, which
// acknowledges. The sender may sleep, and must not wake itself. It must get its room, padding included, and
// no more than the head allows.
#[test]
fn a_full_ring_that_wraps_waits_for_the_head() {
    model(
        "a_full_ring_that_wraps_waits_for_the_head",
        "full while wrapping: a sender sleeps until the head makes room for padding and frame",
        || {
            let log = channel(Setup {
                bound: 8,
                ..flush_only()
            });
            let mut receiver = log.receiver();
            for payload in [[1; 32], [2; 32]] {
                log.send(&payload).unwrap();
            }
            assert_eq!(log.try_send(&[3; 32]), Err(Failure::Full));
            let sender = spawn(&log, |log| log.send(&[3; 32]).unwrap());
            let (position, payload) = message(log.receive(&mut receiver));
            assert_eq!((position, payload), (0, vec![1; 32]));
            log.acknowledge(position);
            assert_eq!(sender.join().unwrap(), 128);
            assert!(log.tail() <= log.limit() && log.limit() <= log.head() + 128);
            assert_eq!(message(log.receive(&mut receiver)), (48, vec![2; 32]));
            assert_eq!(message(log.receive(&mut receiver)), (128, vec![3; 32]));
        },
    );
}

// Threads: one gives up its claim, one sends. The receiver must get the message, whichever lies first, and
// the head must pass both.
#[test]
fn an_abandoned_claim_is_stepped_over() {
    model(
        "an_abandoned_claim_is_stepped_over",
        "a dropped claim beside a send: readers and the head step over it, the bound forgets it",
        || {
            let log = channel(Setup {
                bound: 2,
                ..flush_only()
            });
            let abandons = spawn(&log, |log| drop(log.claim(20)));
            log.send(b"kept").unwrap();
            let mut receiver = log.receiver();
            let (position, payload) = message(log.receive(&mut receiver));
            assert_eq!(payload, b"kept");
            abandons.join().unwrap();
            assert_eq!(log.try_receive(&mut receiver), None::<Received>);
            log.acknowledge(position);
            log.advance();
            assert_eq!(log.head(), log.tail());
            assert_eq!(log.unacknowledged(), 0);
        },
    );
}

// One thread: at a bound of 32, one acknowledgement is room for whoever takes any, and none for whoever takes
// only a good part, at the first look and at every other one.
#[test]
fn a_good_part_of_the_bound_is_taken_or_none() {
    model(
        "a_good_part_of_the_bound_is_taken_or_none",
        "a full bound, acknowledged one by one: much is two",
        || {
            let log = channel(Setup {
                mode: Mode::FlushOnly,
                capacity: 1024,
                bound: 32,
                ..Setup::default()
            });
            let mut receiver = log.receiver();
            let positions: Vec<u64> = (0..32)
                .map(|_| {
                    log.claim(0).unwrap().publish(b"");
                    message(log.try_receive(&mut receiver).unwrap()).0
                })
                .collect();
            log.acknowledge_only(positions[0]);
            assert!(log.claim_of_batch(0).is_none());
            assert!(log.claim_of_batch(0).is_none());
            log.claim(0).unwrap().publish(b"");
            log.acknowledge_only(positions[1]);
            assert!(log.claim_of_batch(0).is_none());
            log.acknowledge_only(positions[2]);
            log.claim_of_batch(0).unwrap().publish(b"");
        },
    );
}

// Threads: two senders that do not wait, at a bound of one. One may succeed, the other must find it full;
// never may both, never neither.
#[test]
fn the_bound_is_never_exceeded() {
    model(
        "the_bound_is_never_exceeded",
        "two try_sends at a bound of 1: exactly one gets in",
        || {
            let log = channel(Setup {
                bound: 1,
                ..flush_only()
            });
            let other = spawn(&log, |log| log.try_send(b"a").is_ok());
            let mine = log.try_send(b"b").is_ok();
            assert!(mine != other.join().unwrap());
            assert_eq!(log.unacknowledged(), 1);
        },
    );
}

// Threads: the one producer, and the housekeeper, which seals the file without having claimed there. The tail
// must not go back behind the padding, whose words are nobody else's.
#[test]
fn a_seal_waits_for_who_claims_alone() {
    model(
        "a_seal_waits_for_who_claims_alone",
        "a producer that claims with its bias beside one that seals: no words are given twice",
        || {
            let log = channel(flush_only());
            log.claim(0).unwrap().publish(b"");
            log.close_end();
            let housekeeper = spawn(&log, |log| log.seal());
            let claimed = log.claim(0).map(|claim| claim.publish(b"")).is_some();
            housekeeper.join().unwrap();
            assert_eq!(log.tail(), 128);
            let mut receiver = log.receiver();
            let mut seen = 0;
            while let Some(Received::Message { .. }) = log.try_receive(&mut receiver) {
                seen += 1;
            }
            assert_eq!(seen, 1 + u64::from(claimed));
        },
    );
}

// Threads: the one producer, and the receiver, which finds that a message was damaged that recovery had
// counted. No count may be lost.
#[test]
fn counts_are_corrected_beside_a_claim() {
    model(
        "counts_are_corrected_beside_a_claim",
        "a producer that claims with its bias beside a correction of the count: both count",
        || {
            let log = channel(flush_only());
            log.claim(0).unwrap().publish(b"");
            let receiver = spawn(&log, |log| log.correct_counts(1, 0));
            log.claim(0).unwrap().publish(b"");
            receiver.join().unwrap();
            assert_eq!(log.unacknowledged(), 1);
        },
    );
}
