//! persistent-queue over two of its stores, redb and sled, capacity 1024: `push`, `reserve`, `ack`.
//!
//! `Durability::Group`, which its README advises for several producers (a single one behaves as with `Sync`),
//! or `Durability::None`. `durable_acks(false)`, so that an acknowledgement waits for no sync, as in walchan.
//! RocksDB, its third store, would need a C++ build, and is left out.

use super::{Ends, Produce, bell};
use crate::channels::BOUND;
use crate::messages::Command;
use persistent_queue::{Builder, Durability, RedbStore, SledStore, Store};
use std::path::Path;

pub fn open_redb(dir: &Path, durable: bool, producers: usize) -> Ends {
    let store = RedbStore::open(dir.join("redb")).expect("a new store");
    open(store, durable, producers)
}

pub fn open_sled(dir: &Path, durable: bool, producers: usize) -> Ends {
    let store = SledStore::open(dir.join("sled")).expect("a new store");
    open(store, durable, producers)
}

fn open<S>(store: S, durable: bool, producers: usize) -> Ends
where
    S: Store + Send + Sync + 'static,
    S::Error: std::fmt::Debug,
{
    let durability = if durable {
        Durability::Group
    } else {
        Durability::None
    };
    let queue = Builder::new(store).capacity(BOUND).durability(durability);
    let (tx, rx) = queue.durable_acks(false).open().expect("a queue");
    let (ring, waiter) = bell::bell();
    let producer = |_| -> Produce {
        let (tx, ring) = (tx.clone(), ring.clone());
        Box::new(move |message| {
            if let Err(error) = tx.push(&message.to_bytes()) {
                panic!("not sent: {error:?}");
            }
            ring.send(()).expect("the consumer is there");
        })
    };
    Ends {
        producers: (0..producers).map(producer).collect(),
        consumer: Box::new(move |look| {
            for _ in 0..waiter.wait() {
                let message = rx.reserve().expect("no failure");
                let message = message.expect("a message, as somebody rang");
                look(&Command::from_bytes(&message));
                message.ack().expect("acknowledged");
            }
        }),
    }
}
