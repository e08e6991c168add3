//! okaywal: one entry with one chunk for each message, `commit` syncs, and threads share syncs. It has no
//! mode without.
//!
//! It is a log and no queue: the consumer is told in memory where a chunk is, and reads it there with
//! `read_at`. An acknowledgement lets the log recycle a segment when all of its entries are acknowledged,
//! which is what a checkpoint is for. Segments of 16 MiB, so that checkpoints are rare.

#![allow(clippy::disallowed_types)]

use super::{Ends, Produce};
use crate::messages::Command;
use okaywal::{Configuration, Entry, EntryId, LogManager, SegmentReader, WriteAheadLog};
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, mpsc};

const SEGMENT_LEN: u32 = 16 << 20;

#[derive(Clone, Debug, Default)]
struct Acknowledged(Arc<(Mutex<u64>, Condvar)>);

impl Acknowledged {
    fn one_more(&self) {
        let (count, changed) = &*self.0;
        *count.lock().expect("nobody panicked") += 1;
        changed.notify_all();
    }

    fn wait_for(&self, wanted: u64) {
        let (count, changed) = &*self.0;
        let count = count.lock().expect("nobody panicked");
        drop(changed.wait_while(count, |count| *count < wanted));
    }
}

impl LogManager for Acknowledged {
    fn recover(&mut self, _: &mut Entry<'_>) -> io::Result<()> {
        Ok(())
    }

    fn checkpoint_to(
        &mut self,
        last: EntryId,
        _: &mut SegmentReader,
        _: &WriteAheadLog,
    ) -> io::Result<()> {
        // Entries are counted from 1.
        self.wait_for(last.0);
        Ok(())
    }
}

pub fn open(dir: &Path, durable: bool, producers: usize) -> Ends {
    assert!(durable, "okaywal always syncs");
    let acknowledged = Acknowledged::default();
    let log = Configuration::default_for(dir.join("log"))
        .preallocate_bytes(SEGMENT_LEN)
        .checkpoint_after_bytes(u64::from(SEGMENT_LEN) / 4 * 3)
        .open(acknowledged.clone())
        .expect("a new log");
    let (tell, told) = mpsc::channel();
    let producer = |_| -> Produce {
        let (log, tell) = (log.clone(), tell.clone());
        Box::new(move |message| {
            let mut entry = log.begin_entry().expect("an entry");
            let chunk = entry.write_chunk(&message.to_bytes()).expect("a chunk");
            entry.commit().expect("committed");
            tell.send(chunk.position).expect("the consumer is there");
        })
    };
    Ends {
        producers: (0..producers).map(producer).collect(),
        consumer: Box::new(move |look| {
            let position = told.recv().expect("a position");
            let mut bytes = [0; Command::LEN];
            let mut chunk = log.read_at(position).expect("a chunk");
            chunk.read_exact(&mut bytes).expect("its bytes");
            look(&Command::from_bytes(&bytes));
            acknowledged.one_more();
        }),
    }
}
