//! Where one file of a channel ends and the next begins.

#![cfg(loom)]
#![allow(clippy::unwrap_used)]

use loom_tests::{Arc, Chain, ChainReceived, ChainSetup, Failure, Held, Mode, Setup};
use loom_tests::{chain, channel, message, model, spawn, spawn_in};

/// A chain whose ring holds so many messages of 16 bytes; four fill it.
fn holding(messages: u64, setup: ChainSetup) -> Arc<Chain> {
    let log = chain(setup);
    let handle = log.handle();
    for _ in 0..messages {
        log.send(&handle, b"").unwrap();
    }
    log
}

fn positions(held: &[Held]) -> Vec<u64> {
    held.iter().map(|held| held.position).collect()
}

// Threads: two senders, for whom one place is left. One of them, or both, find no room, one links the next
// file, either seals. Both messages must be there, each once, in the order of their positions, one in each
// file.
#[test]
fn two_senders_at_the_end_of_a_file() {
    model(
        "two_senders_at_the_end_of_a_file",
        "two senders and one place: one gets it, one links the next file, nothing is lost",
        || {
            let log = holding(3, ChainSetup::default());
            let other = spawn_in(&log, |log| log.send(&log.handle(), b"").unwrap());
            let mine = log.send(&log.handle(), b"").unwrap();
            let mut sent = [mine, other.join().unwrap()];
            sent.sort_unstable();
            assert_eq!(sent, [48, 64]);
            assert_eq!(log.numbers(), [0, 1]);
            let mut receiver = log.receiver();
            let all = [(); 5].map(|()| log.try_receive(&mut receiver).unwrap().message());
            assert_eq!(positions(&all), [0, 16, 32, 48, 64]);
        },
    );
}

// Threads: a sender that needs a larger place than the one that is left, and one that fits there. The small
// message is before the padding, or in the next file; the padding must not cover it.
#[test]
fn a_seal_takes_only_what_is_left() {
    model(
        "a_seal_takes_only_what_is_left",
        "a sender that seals beside one that still fits: the padding covers no message",
        || {
            let setup = ChainSetup {
                ring: 128,
                in_segment: true,
                ..ChainSetup::default()
            };
            let log = holding(3, setup);
            let small = spawn_in(&log, |log| log.send(&log.handle(), b"").unwrap());
            let large = log.send(&log.handle(), b"16 bytes, no less").unwrap();
            let small = small.join().unwrap();
            let mut receiver = log.receiver();
            let mut received = Vec::new();
            while let Some(next) = log.try_receive(&mut receiver) {
                received.push(next.message());
            }
            let mut sent = [128, 144, 160, small, large];
            sent.sort_unstable();
            assert_eq!(positions(&received), sent);
        },
    );
}

// Threads: a sender that finds no room, and the housekeeper, which was notified to link ahead. One file must
// be linked, not two.
#[test]
fn one_file_is_linked_by_whoever_comes_first() {
    model(
        "one_file_is_linked_by_whoever_comes_first",
        "a sender without room beside the housekeeper, who links ahead: one file, and the message in it",
        || {
            let log = holding(4, ChainSetup::default());
            let housekeeper = spawn_in(&log, |log| assert!(log.keep()));
            assert_eq!(log.send(&log.handle(), b"").unwrap(), 64);
            housekeeper.join().unwrap();
            assert_eq!(log.numbers(), [0, 1]);
        },
    );
}

// Threads: two senders without room; the first file that is made fails. Whoever asked for that one gets the
// error, and the file before goes on as if nothing had been; the other must get through.
#[test]
fn a_file_that_cannot_be_made_harms_one_send() {
    model(
        "a_file_that_cannot_be_made_harms_one_send",
        "two senders without room, no space for the first new file: one error, one message",
        || {
            let setup = ChainSetup {
                fail_makes: 1,
                ..ChainSetup::default()
            };
            let log = holding(4, setup);
            let other = spawn_in(&log, |log| log.send(&log.handle(), b""));
            let mine = log.send(&log.handle(), b"");
            let both = [mine, other.join().unwrap()];
            assert!(both.contains(&Ok(64)) && both.contains(&Err(Failure::Io)));
        },
    );
}

// Threads: the receiver, which has read all of the ring and sleeps; a sender that finds no room and goes on
// in the next file. The receiver must be woken, and get the message.
#[test]
fn a_receiver_that_sleeps_at_the_end_of_a_file_is_woken() {
    model(
        "a_receiver_that_sleeps_at_the_end_of_a_file_is_woken",
        "a receiver asleep at the end of a file, a message behind it: it gets it",
        || {
            let log = holding(4, ChainSetup::default());
            let mut receiver = log.receiver();
            for _ in 0..4 {
                log.try_receive(&mut receiver).unwrap();
            }
            let sender = spawn_in(&log, |log| log.send(&log.handle(), b"").unwrap());
            let next = log.receive(&mut receiver).message();
            assert_eq!(next.position, sender.join().unwrap());
        },
    );
}

// Threads: the receiver, and a sender of two messages, the last of the ring and the first behind it. They
// must come in this order.
#[test]
fn the_order_holds_across_files() {
    model(
        "the_order_holds_across_files",
        "two messages in two files, and a receiver that waits: in order, none skipped",
        || {
            let log = holding(3, ChainSetup::default());
            let mut receiver = log.receiver();
            for _ in 0..3 {
                log.try_receive(&mut receiver).unwrap();
            }
            let sender = spawn_in(&log, |log| {
                let handle = log.handle();
                [(); 2].map(|()| log.send(&handle, b"").unwrap())
            });
            let received = [(); 2].map(|()| log.receive(&mut receiver).message().position);
            assert_eq!(received, [48, 64]);
            assert_eq!(sender.join().unwrap(), received);
        },
    );
}

// Threads: the receiver, at the end of the ring; the last sender sends into the next file, and leaves. The
// message comes first, then the end.
#[test]
fn the_last_sender_leaves_in_the_next_file() {
    model(
        "the_last_sender_leaves_in_the_next_file",
        "the last message lies in the next file, and its sender is gone: it comes before the end",
        || {
            let log = holding(4, ChainSetup::default());
            let mut receiver = log.receiver();
            for _ in 0..4 {
                log.try_receive(&mut receiver).unwrap();
            }
            let sender = spawn_in(&log, |log| {
                log.send(&log.handle(), b"").unwrap();
                log.sender_left();
            });
            let next = log.receive(&mut receiver);
            assert_eq!(next.message().position, 64);
            let last = log.receive(&mut receiver);
            assert!(matches!(last, ChainReceived::Disconnected));
            sender.join().unwrap();
        },
    );
}

// Threads: the housekeeper, which returns to the ring: it seals the segment; the last sender, who sends into
// the ring as soon as the claim of the padding is made, and leaves; the receiver. The padding may be
// published later than that: the message comes first all the same.
#[test]
fn the_last_sender_leaves_while_the_housekeeper_seals() {
    model(
        "the_last_sender_leaves_while_the_housekeeper_seals",
        "the housekeeper's padding is not published, the last message lies behind it: it is not the end",
        || {
            let setup = ChainSetup {
                in_segment: true,
                ..ChainSetup::default()
            };
            let log = holding(1, setup);
            let mut receiver = log.receiver();
            let first = log.try_receive(&mut receiver).unwrap().message();
            log.acknowledge(&first);
            let housekeeper = spawn_in(&log, |log| assert!(log.keep()));
            let sender = spawn_in(&log, |log| {
                let sent = log.send(&log.handle(), b"").unwrap();
                log.sender_left();
                sent
            });
            let next = log.receive(&mut receiver).message();
            assert_eq!(next.position, sender.join().unwrap());
            let last = log.receive(&mut receiver);
            assert!(matches!(last, ChainReceived::Disconnected));
            housekeeper.join().unwrap();
        },
    );
}

// Threads: the receiver, which reads and acknowledges the first message, raises the limit over its place, and
// shows that the file ends there; whoever seals it. The padding must be written behind the reading.
#[test]
fn a_seal_hands_on_what_the_last_limit_gave() {
    model(
        "a_seal_hands_on_what_the_last_limit_gave",
        "whoever seals a file pads up to its end behind the reads that made the room",
        || {
            let log = channel(Setup {
                mode: Mode::FlushOnly,
                capacity: 64,
                ..Setup::default()
            });
            for _ in 0..4 {
                log.send(b"").unwrap();
            }
            let other = spawn(&log, |log| {
                let (first, _) = message(log.try_receive(&mut log.receiver()).unwrap());
                log.acknowledge_only(first);
                log.advance();
                log.reclaim();
                log.close_end();
            });
            log.seal();
            other.join().unwrap();
            log.seal();
            assert_eq!(log.tail(), 80);
        },
    );
}
