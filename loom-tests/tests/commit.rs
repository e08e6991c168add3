//! Group commit: what an `Ok` promises.

#![cfg(loom)]
#![allow(clippy::unwrap_used)]

use loom_tests::{Channel, Mode, Setup, channel, message, model, spawn};

// Threads: two senders under SyncPerSend. Either may lead, one round may cover both, a hole may make one wait
// for the other's publication. At each Ok the durable image must hold the frame, and the commit must cover
// it.
#[test]
fn an_ok_means_that_the_frame_is_durable() {
    model(
        "an_ok_means_that_the_frame_is_durable",
        "two synced senders: at each `Ok` the disk holds the frame and the commit covers it",
        || {
            let log = channel(Setup::default());
            let send = |payload: &'static [u8]| {
                spawn(&log, move |log| {
                    let position = log.send(payload).unwrap();
                    assert!(log.commit() > position);
                    assert!(log.frame_is_durable(position, payload));
                })
            };
            let other = send(b"other");
            let position = log.send(b"mine").unwrap();
            assert!(log.commit() > position);
            assert!(log.frame_is_durable(position, b"mine"));
            other.join().unwrap();
        },
    );
}

// Threads: two synced senders, and somebody who looks. Whoever comes second and finds the first one committed
// says so in its frame; who sees that must find the first one on the disk. A leader that finds such a frame
// stores no checkpoint.
#[test]
fn what_is_before_a_commit_marker_is_durable() {
    model(
        "what_is_before_a_commit_marker_is_durable",
        "two synced senders and a look: what is before a commit marker is on the disk",
        || {
            let log = channel(Setup::default());
            let send = || {
                spawn(&log, move |log| {
                    let position = log.send(b"same").unwrap();
                    assert!(log.frame_is_durable(position, b"same"));
                })
            };
            let senders = [send(), send()];
            if log.is_commit_marker(32) {
                assert!(log.frame_is_durable(0, b"same"));
            }
            for sender in senders {
                sender.join().unwrap();
            }
        },
    );
}

// Threads: one claims and publishes without syncing, as a slow producer does; a synced sender may come behind
// its claim. The sender must not hang on the hole, and its frame must be durable at its Ok.
#[test]
fn a_hole_is_waited_for_without_the_role() {
    model(
        "a_hole_is_waited_for_without_the_role",
        "a leader meets a claim that is not published: it waits, is woken, and its frame is durable",
        || {
            let log = channel(Setup::default());
            let slow = spawn(&log, |log| {
                let claim = log.claim(4).unwrap();
                claim.publish(b"slow");
                log.announce();
            });
            let position = log.send(b"mine").unwrap();
            assert!(log.frame_is_durable(position, b"mine"));
            slow.join().unwrap();
        },
    );
}

// Threads: a synced sender and somebody who asks for a sync of all that was sent, both behind a third one's
// claim. One of them leads when the hole closes; the other must be notified when the round is over.
#[test]
fn all_who_wait_behind_a_hole_go_on() {
    model(
        "all_who_wait_behind_a_hole_go_on",
        "two wait behind one hole; one leads when it closes, the other is notified of the round",
        || {
            let log = channel(Setup::default());
            let claim = log.claim(4).unwrap();
            let sender = spawn(&log, |log| {
                let position = log.send(b"mine").unwrap();
                assert!(log.frame_is_durable(position, b"mine"));
            });
            let syncer = spawn(&log, |log| {
                assert!(log.sync_sent());
                assert!(log.frame_is_durable(0, b"slow"));
            });
            claim.publish(b"slow");
            log.announce();
            sender.join().unwrap();
            syncer.join().unwrap();
        },
    );
}

// Threads: a producer, the receiver, which reads ahead of the commit and counts the delivery in the first
// word, and a leader. The leader may see the count instead of the publication; the second word must be there
// all the same.
#[test]
fn a_leader_follows_frames_that_were_counted() {
    model(
        "a_leader_follows_frames_that_were_counted",
        "a leader behind a reader that is ahead of the commit: the frame is whole for it, too",
        || {
            let log = channel(Setup {
                mode: Mode::FlushOnly,
                ..Setup::default()
            });
            let reader = spawn(&log, |log| log.try_receive(&mut log.receiver()));
            let leader = spawn(&log, |log| {
                assert!(log.sync_progress());
                if log.commit() > 0 {
                    assert!(log.frame_is_durable(0, b"mine"));
                }
            });
            log.claim(4).unwrap().publish(b"mine");
            if let Some(received) = reader.join().unwrap() {
                assert_eq!(message(received), (0, b"mine".to_vec()));
            }
            leader.join().unwrap();
        },
    );
}

// Threads: two that ask for a sync of what was acknowledged. One leads, the other may find a round that began
// too early. At Ok the caller's own acknowledgement must be on the disk.
#[test]
fn progress_that_was_asked_for_is_durable() {
    model(
        "progress_that_was_asked_for_is_durable",
        "two ask for their acknowledgements to be synced: each is on the disk at its `Ok`",
        || {
            let log = channel(Setup::default());
            let mut receiver = log.receiver();
            let first = log.send(b"a").unwrap();
            let second = log.send(b"b").unwrap();
            for _ in 0..2 {
                log.try_receive(&mut receiver).unwrap();
            }
            let progress = |log: &Channel, position| {
                log.acknowledge_only(position);
                assert!(log.sync_progress());
                assert!(log.acknowledgement_is_durable(position));
            };
            let other = spawn(&log, move |log| progress(log, second));
            progress(&log, first);
            other.join().unwrap();
        },
    );
}

// Threads: a synced sender and the receiver, which sleeps. What it is shown must be durable at that moment.
#[test]
fn a_message_is_shown_only_when_it_is_durable() {
    model(
        "a_message_is_shown_only_when_it_is_durable",
        "SyncPerSend: a sleeping receiver is woken, by the commit, and what it gets is durable",
        || {
            let log = channel(Setup::default());
            let sender = spawn(&log, |log| log.send(b"mine").unwrap());
            let (position, payload) = message(log.receive(&mut log.receiver()));
            assert!(log.frame_is_durable(position, &payload));
            sender.join().unwrap();
        },
    );
}

// Threads: three synced senders. Groups of any size may form behind any leader. At each Ok the frame must be
// durable, and nobody may hang.
#[test]
fn three_senders_share_rounds() {
    model(
        "three_senders_share_rounds",
        "three synced senders: any grouping, each durable at its `Ok`",
        || {
            let log = channel(Setup {
                biases: false,
                ..Setup::default()
            });
            let send = |log: &Channel| {
                let position = log.send(b"").unwrap();
                assert!(log.frame_is_durable(position, b""));
            };
            let others = [(); 2].map(|()| spawn(&log, send));
            send(&log);
            for other in others {
                other.join().unwrap();
            }
            assert_eq!(log.commit(), 48);
            assert!(log.syncs() <= 3);
        },
    );
}
