//! yaque: `channel`, `try_send`, `recv_batch_up_to` and `commit`, as its documentation shows and advises for
//! batches. It has one sender, so producers take turns. It never syncs, so it has no durable mode.

#![allow(clippy::disallowed_types)]

use super::bell::BATCH;
use super::{Ends, Produce};
use crate::messages::Command;
use futures_executor::block_on;
use std::path::Path;
use std::sync::{Arc, Mutex};

pub fn open(dir: &Path, durable: bool, producers: usize) -> Ends {
    assert!(!durable, "yaque never syncs");
    let (tx, mut rx) = yaque::channel(dir.join("queue")).expect("a new queue");
    let tx = Arc::new(Mutex::new(tx));
    let producer = |_| -> Produce {
        let tx = Arc::clone(&tx);
        Box::new(move |message| {
            let mut tx = tx.lock().expect("nobody panicked");
            tx.try_send(message.to_bytes()).expect("sent");
        })
    };
    Ends {
        producers: (0..producers).map(producer).collect(),
        consumer: Box::new(move |look| {
            let batch = block_on(rx.recv_batch_up_to(BATCH)).expect("a batch");
            batch
                .iter()
                .for_each(|bytes| look(&Command::from_bytes(bytes)));
            batch.commit().expect("committed");
        }),
    }
}
