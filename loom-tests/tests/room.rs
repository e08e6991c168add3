//! The limit: which space may be used again, and who makes it so.

#![cfg(loom)]
#![allow(clippy::unwrap_used)]

use loom_tests::{Failure, Mode, Setup, channel, message, model, spawn};

// Threads: a sender that does not wait, at a ring that is full and acknowledged but not synced, and somebody
// who syncs progress. The sender must get through, and the space it takes must lie behind a head that the
// disk knows.
#[test]
fn a_try_send_syncs_for_room() {
    model(
        "a_try_send_syncs_for_room",
        "a try_send at a ring that is full only because progress was not synced: it syncs",
        || {
            let log = channel(Setup {
                capacity: 64,
                ..Setup::default()
            });
            let mut receiver = log.receiver();
            for _ in 0..4 {
                log.send(b"").unwrap();
                let position = message(log.try_receive(&mut receiver).unwrap()).0;
                log.acknowledge_only(position);
            }
            log.advance();
            let syncer = spawn(&log, |log| assert!(log.sync_progress()));
            let position = log.try_send(b"").unwrap();
            assert_eq!(position, 64);
            assert!(log.checkpoint_is_durable(16, 16));
            syncer.join().unwrap();
        },
    );
}

// Threads: a synced sender, asleep at a full ring, and the holder of the first message, who acknowledges it.
// The sender must be woken, and sync before it takes the space: the disk must know of the head.
#[test]
fn synced_space_is_reused_behind_a_durable_head() {
    model(
        "synced_space_is_reused_behind_a_durable_head",
        "SyncPerSend, a sender asleep for room: it syncs the acknowledgement, then takes the space",
        || {
            let log = channel(Setup {
                capacity: 64,
                ..Setup::default()
            });
            for _ in 0..4 {
                log.send(b"").unwrap();
            }
            message(log.try_receive(&mut log.receiver()).unwrap());
            let holder = spawn(&log, |log| log.acknowledge(0));
            assert_eq!(log.send(b"").unwrap(), 64);
            assert!(log.checkpoint_is_durable(16, 64));
            assert!(log.frame_is_durable(64, b""));
            holder.join().unwrap();
        },
    );
}

// Threads: a synced sender, and the holder of an earlier message, who acknowledges it maybe while the disk
// works. The space must not be free before a sync that began with that head has ended.
#[test]
fn the_limit_follows_the_disk_and_not_the_head() {
    model(
        "the_limit_follows_the_disk_and_not_the_head",
        "an acknowledgement during a sync: its space is free after the next one, not after this",
        || {
            let log = channel(Setup {
                capacity: 64,
                ..Setup::default()
            });
            for _ in 0..3 {
                log.send(b"").unwrap();
            }
            message(log.try_receive(&mut log.receiver()).unwrap());
            let holder = spawn(&log, |log| log.acknowledge(0));
            log.send(b"").unwrap();
            if let Some(claim) = log.claim(0) {
                assert!(log.checkpoint_is_durable(16, 0));
                claim.publish(b"");
            }
            holder.join().unwrap();
        },
    );
}

// Threads: a sender at a full ring under FlushOnly, and the holder of the messages, who acknowledges them.
// The sender gets room without any sync, and the limit is never more than a capacity beyond the head.
#[test]
fn flush_only_makes_room_without_a_sync() {
    model(
        "flush_only_makes_room_without_a_sync",
        "FlushOnly: checkpoints stored by sender and acknowledger make room, without a sync",
        || {
            let log = channel(Setup {
                mode: Mode::FlushOnly,
                capacity: 64,
                ..Setup::default()
            });
            let mut receiver = log.receiver();
            for _ in 0..4 {
                log.send(b"").unwrap();
                message(log.try_receive(&mut receiver).unwrap());
            }
            assert_eq!(log.try_send(b""), Err(Failure::Full));
            let sender = spawn(&log, |log| log.send(b"").unwrap());
            log.acknowledge(16);
            log.acknowledge(0);
            assert_eq!(sender.join().unwrap(), 64);
            assert!(log.limit() <= log.head() + 64);
            assert_eq!(log.syncs(), 0);
        },
    );
}

// Threads: somebody syncs a FlushOnly channel, so that the disk may hold a commit above the head; the holder
// of the messages acknowledges them and sends into their space. Before that space is used, the disk must know
// of the head.
#[test]
fn a_durable_commit_above_the_head_is_lifted_before_reuse() {
    model(
        "a_durable_commit_above_the_head_is_lifted_before_reuse",
        "FlushOnly beside a sync: space below a durable commit waits for a durable head",
        || {
            let log = channel(Setup {
                mode: Mode::FlushOnly,
                capacity: 64,
                ..Setup::default()
            });
            let mut receiver = log.receiver();
            for _ in 0..4 {
                log.send(b"").unwrap();
                message(log.try_receive(&mut receiver).unwrap());
            }
            assert!(log.sync_sent());
            let syncer = spawn(&log, |log| assert!(log.sync_sent()));
            assert!(log.sync_progress());
            log.acknowledge(0);
            log.acknowledge(16);
            assert_eq!(log.send(b"").unwrap(), 64);
            // Two pages, each with a head that allows it.
            assert!(log.checkpoint_is_durable(16, 64));
            syncer.join().unwrap();
        },
    );
}
