//! walrus: one topic, `append_for_topic`, `FsyncSchedule::SyncEach` (which opens files with `O_SYNC`) or
//! `NoFsync`; the default backend, which is the one of file descriptors.
//!
//! Its README says that `AtLeastOnce { persist_every }` favours throughput, and shows 1000: that, so that its
//! acknowledgements cost less than those of walchan, which survive a kill at once. The consumer reads with
//! `batch_read_for_topic`, up to 64 messages at a time.
//!
//! Without syncs a run has at most 40,000 messages: of 200,000 the last ones never came.

use super::bell::{self, BATCH};
use super::{Ends, Produce};
use crate::messages::Command;
use std::path::Path;
use std::sync::Arc;
use walrus_rust::{FsyncSchedule, ReadConsistency, Walrus};

const TOPIC: &str = "queue";

pub fn open(_: &Path, durable: bool, producers: usize) -> Ends {
    // Where its files go is in the environment, which whoever started this process has set.
    let persist_every = 1000;
    let consistency = ReadConsistency::AtLeastOnce { persist_every };
    let schedule = if durable {
        FsyncSchedule::SyncEach
    } else {
        FsyncSchedule::NoFsync
    };
    let log = Walrus::with_consistency_and_schedule(consistency, schedule);
    let log = Arc::new(log.expect("a new log"));
    let (ring, waiter) = bell::bell();
    let producer = |_| -> Produce {
        let (log, ring) = (Arc::clone(&log), ring.clone());
        Box::new(move |message| {
            log.append_for_topic(TOPIC, &message.to_bytes())
                .expect("appended");
            ring.send(()).expect("the consumer is there");
        })
    };
    Ends {
        producers: (0..producers).map(producer).collect(),
        consumer: Box::new(move |look| {
            let mut due = waiter.wait();
            while due > 0 {
                let bytes_max = due.min(BATCH) * Command::LEN;
                let batch = log.batch_read_for_topic(TOPIC, bytes_max, true);
                let batch = batch.expect("a batch");
                for entry in &batch {
                    look(&Command::from_bytes(&entry.data));
                }
                due -= batch.len();
            }
        }),
    }
}
