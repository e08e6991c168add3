//! queue-file: a `QueueFile` in a `Mutex`, as its documentation shows for several threads. `add` is
//! synchronous by default; without syncs `set_sync_writes(false)`. The consumer reads up to 64 elements with
//! `iter`, and removes them with one `remove_n`.

#![allow(clippy::disallowed_types)]

use super::{Ends, Produce, bell};
use crate::messages::Command;
use queue_file::QueueFile;
use std::path::Path;
use std::sync::{Arc, Mutex};

pub fn open(dir: &Path, durable: bool, producers: usize) -> Ends {
    let mut queue = QueueFile::open(dir.join("queue")).expect("a new queue");
    queue.set_sync_writes(durable);
    let queue = Arc::new(Mutex::new(queue));
    let (ring, waiter) = bell::bell();
    let producer = |_| -> Produce {
        let (queue, ring) = (Arc::clone(&queue), ring.clone());
        Box::new(move |message| {
            let mut queue = queue.lock().expect("nobody panicked");
            queue.add(&message.to_bytes()).expect("added");
            drop(queue);
            ring.send(()).expect("the consumer is there");
        })
    };
    Ends {
        producers: (0..producers).map(producer).collect(),
        consumer: Box::new(move |look| {
            let count = waiter.wait();
            let mut queue = queue.lock().expect("nobody panicked");
            for bytes in queue.iter().take(count) {
                look(&Command::from_bytes(&bytes));
            }
            queue.remove_n(count).expect("removed");
        }),
    }
}
