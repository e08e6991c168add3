//! Group commit: what an `Ok` promises.

#![cfg(loom)]
#![allow(clippy::unwrap_used)]

use loom_tests::{Setup, channel, model, spawn};

// Threads: two senders under SyncPerSend. Either may lead, one round may cover both, a hole may make one wait for
// the other's publication. At each Ok the durable image must hold the frame, and the commit must cover it.
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
