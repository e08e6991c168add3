//! The channel's own thread: loom has no time, so the models call what it would do when a deadline has
//! passed.

#![cfg(loom)]
#![allow(clippy::unwrap_used)]

use loom_tests::{HURRY, PROGRESS, SENT};
use loom_tests::{Mode, Setup, channel, message, model, spawn};

// Threads: a sender under SyncEvery, and the timer, whose time has come for an earlier message that somebody
// else has synced meanwhile. The new message is either covered by the timer's sync, or its flag is set
// afterwards.
#[test]
fn a_flag_is_never_lost() {
    model(
        "a_flag_is_never_lost",
        "a send as the timer takes its flags: synced by it, or flagged again",
        || {
            let log = channel(Setup {
                mode: Mode::Every { max_ops: 8 },
                ..Setup::default()
            });
            log.send(b"early").unwrap();
            assert!(log.sync_sent());
            let sender = spawn(&log, |log| log.send(b"late").unwrap());
            assert_eq!(log.timer_fire(SENT | HURRY), SENT);
            let late = sender.join().unwrap();
            assert!(log.commit() > late || log.timer_flags() & SENT != 0);
        },
    );
}

// Threads: a sender under SyncEvery, and the timer, asleep. It must be woken, and make the message durable.
#[test]
fn a_sleeping_timer_is_woken() {
    model(
        "a_sleeping_timer_is_woken",
        "the timer goes to sleep as a message is sent: it wakes and syncs it",
        || {
            let log = channel(Setup {
                mode: Mode::Every { max_ops: 8 },
                ..Setup::default()
            });
            let timer = spawn(&log, |log| log.timer_wait(SENT));
            let position = log.send(b"mine").unwrap();
            timer.join().unwrap();
            assert!(log.commit() > position);
            assert!(log.frame_is_durable(position, b"mine"));
        },
    );
}

// Threads: the holder of a message acknowledges it, and the timer, whose time has come. The acknowledgement
// is synced, or its flag is set afterwards: an idle channel ends with its acknowledgements, head and commit
// on the disk.
#[test]
fn progress_is_recorded_or_flagged() {
    model(
        "progress_is_recorded_or_flagged",
        "an acknowledgement as the timer takes its flags: recorded by it, or flagged again",
        || {
            let log = channel(Setup::default());
            log.send(b"mine").unwrap();
            let (position, _) = message(log.try_receive(&mut log.receiver()).unwrap());
            assert!(log.timer_flags() & PROGRESS != 0);
            let holder = spawn(&log, move |log| log.acknowledge(position));
            log.timer_fire(PROGRESS);
            holder.join().unwrap();
            assert!(log.acknowledgement_is_durable(position) || log.timer_flags() & PROGRESS != 0);
            log.timer_fire(PROGRESS);
            assert!(log.checkpoint_is_durable(32, 32));
        },
    );
}

// Threads: the holder of the second of two messages acknowledges it, so the head stays; and the timer, whose
// flag another file of the channel has set; in this one nothing was to be recorded. The acknowledgement is
// synced, or its flag is set afterwards, and then synced.
#[test]
fn a_flag_of_another_file_hides_no_progress() {
    model(
        "a_flag_of_another_file_hides_no_progress",
        "an acknowledgement as the timer takes the flag of another file: recorded, or flagged again",
        || {
            // Behind the end of the biases: their fence, whole in a model, would order the count, too.
            let log = channel(Setup {
                biases: false,
                ..Setup::default()
            });
            let mut receiver = log.receiver();
            let mut position = 0;
            for _ in 0..2 {
                log.send(b"").unwrap();
                position = message(log.try_receive(&mut receiver).unwrap()).0;
            }
            while log.timer_fire(PROGRESS) != 0 {}
            log.timer_flag(PROGRESS);
            let holder = spawn(&log, move |log| log.acknowledge(position));
            log.timer_fire(PROGRESS);
            holder.join().unwrap();
            assert!(log.acknowledgement_is_durable(position) || log.timer_flags() & PROGRESS != 0);
            log.timer_fire(PROGRESS);
            assert!(log.acknowledgement_is_durable(position));
        },
    );
}
