//! walchan 0.1.0, the append-only file that was released under this name: `channel_with_options`,
//! `SyncPerSend` or `FlushOnly`; its README advises to commit in batches for throughput, and shows 64 and 5
//! ms.

use super::bell::BATCH;
use super::{Ends, Produce};
use crate::messages::Command;
use crate::pump::clones;
use std::path::Path;
use std::time::Duration;
use walchan_released::{Durability, Options, ReceiverOptions, Sender};

pub fn open(dir: &Path, durable: bool, producers: usize) -> Ends {
    let options = Options {
        durability: if durable {
            Durability::SyncPerSend
        } else {
            Durability::FlushOnly
        },
        ..Options::default()
    };
    let (tx, rx) = walchan_released::channel_with_options::<Command>(dir.join("queue"), options)
        .expect("a new channel");
    let rx = rx.with_options(ReceiverOptions {
        commit_every: BATCH,
        commit_max_delay: Duration::from_millis(5),
    });
    let producer = |tx: Sender<Command>| -> Produce {
        Box::new(move |message| {
            if let Err(error) = tx.send(*message) {
                panic!("not sent: {:?}", error.kind);
            }
        })
    };
    Ends {
        producers: clones(tx, producers as u64)
            .into_iter()
            .map(producer)
            .collect(),
        consumer: Box::new(move |look| look(&rx.recv().expect("a message"))),
    }
}
