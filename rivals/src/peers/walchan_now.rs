//! walchan as it is, with `Plain`, for messages are bytes to the others, too: `sync_channel` with a bound of
//! 1024 under `SyncPerSend`, and `commit_every: 64` as for the release before; under `FlushOnly` a ring of 4
//! MiB, and no bound but that.

use super::bell::BATCH;
use super::{Ends, Produce};
use crate::channels::{BOUND, BOUND_BEYOND_RING, RING_BYTES, flush_only};
use crate::messages::Command;
use crate::pump::clones;
use std::path::Path;
use walchan::{Durability, Options, Plain, ReceiverOptions};

pub fn open(dir: &Path, durable: bool, producers: usize) -> Ends {
    let (bound, options) = if durable {
        (BOUND, Options::default())
    } else {
        (BOUND_BEYOND_RING, flush_only(RING_BYTES))
    };
    let path = dir.join("queue");
    let opened = options.codec_sync_channel::<Command, Plain>(path, bound);
    let (tx, rx) = opened.expect("a new channel");
    assert!(!durable || tx.durability() == Durability::SyncPerSend);
    let rx = rx.with_options(ReceiverOptions {
        commit_every: BATCH,
        ..ReceiverOptions::default()
    });
    let producer = |tx: walchan::SyncSender<Command, Plain>| -> Produce {
        Box::new(move |message| tx.send(*message).expect("sent"))
    };
    Ends {
        producers: clones(tx, producers as u64)
            .into_iter()
            .map(producer)
            .collect(),
        consumer: Box::new(move |look| look(&rx.recv().expect("a message"))),
    }
}
