//! Files of a chain over modelled memories.

#![allow(clippy::disallowed_types)] // the locks are out of loom's sight on purpose

use super::{CHECKPOINTS, RING};
use crate::modelled::{Allowed, Modelled, Words};
use std::io;
use std::sync::Mutex;
use walchan_core::format::checkpoint::Checkpoint;
use walchan_core::format::frame::salt_from;
use walchan_core::format::incarnations::{Incarnation, Incarnations};
use walchan_core::ring::{Layout, Start};
use walchan_core::segments::{Files, Prepared, RestartFailure, SegmentId};
use walchan_core::storage::Memory;
use walchan_core::sync::Arc;

/// A file of a model.
#[derive(Clone, Debug)]
pub(super) struct File {
    pub(super) number: u64,
    pub(super) start: u64,
    pub(super) capacity: u64,
    pub(super) words: Words,
}

#[derive(Debug)]
pub(super) struct Memories {
    /// All that were ever made; of the ring, one for each beginning.
    pub(super) files: Mutex<Vec<File>>,
    pub(super) removed: Mutex<Vec<u64>>,
    /// Calls of `make` that fail, from the first on.
    pub(super) fail_makes: Mutex<u64>,
}

impl Memories {
    pub(super) fn new() -> Self {
        Memories {
            files: Mutex::new(Vec::new()),
            removed: Mutex::new(Vec::new()),
            fail_makes: Mutex::new(0),
        }
    }

    /// The last life of a file.
    pub(super) fn file(&self, number: u64) -> Option<File> {
        let files = self.files.lock().unwrap_or_else(|e| e.into_inner());
        files.iter().rfind(|file| file.number == number).cloned()
    }

    /// Of each life another salt.
    pub(super) fn salt(number: u64, start: u64) -> u64 {
        salt_from(0x00c0_ffee + number * 0x1_0001 + start * 0x101)
    }

    /// A file in which nothing is.
    pub(super) fn prepared(
        &self,
        number: u64,
        start: u64,
        capacity: u64,
        words: Arc<Modelled>,
    ) -> Prepared<Words> {
        let words = Words::new(words);
        let mut files = self.files.lock().unwrap_or_else(|e| e.into_inner());
        files.push(File {
            number,
            start,
            capacity,
            words: words.clone(),
        });
        let incarnation = Incarnation {
            start,
            salt: Self::salt(number, start),
            tag: 1 + number,
            number: 1,
        };
        Prepared {
            memory: words,
            layout: Layout {
                checkpoints: CHECKPOINTS,
                ring: RING,
                capacity,
                once: number > 0,
                has_commit_markers: true,
            },
            start: Start {
                incarnations: Incarnations::first(incarnation),
                head: start,
                tail: start,
                limit: start + capacity,
                unacknowledged: 0,
                handed_out: 0,
                bound: u64::MAX,
            },
            stored: [1, 2].map(|generation| Checkpoint::at(start, generation)),
        }
    }

    pub(super) fn fresh(capacity: u64) -> Arc<Modelled> {
        Arc::new(Modelled::new((RING + capacity / 8) as usize))
    }
}

impl Files for Memories {
    type Memory = Words;

    fn make(&self, number: u64, start: u64, _: u64, capacity: u64) -> io::Result<Prepared<Words>> {
        let mut failing = self.fail_makes.lock().unwrap_or_else(|e| e.into_inner());
        if *failing > 0 {
            *failing -= 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        drop(failing);
        Ok(self.prepared(number, start, capacity, Self::fresh(capacity)))
    }

    fn unmake(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    /// As recovery leaves it: what was sent is still there, under the same incarnation. Nothing was received
    /// from it.
    fn reopen(&self, segment: SegmentId, end: u64) -> io::Result<Prepared<Words>> {
        let number = segment.number;
        let file = self.file(number).ok_or(io::ErrorKind::NotFound)?;
        let words = file.words.shared();
        let mut prepared = self.prepared(number, file.start, file.capacity, words);
        prepared.start.tail = end;
        prepared.start.limit = end;
        prepared.start.unacknowledged = (end - file.start) / 16;
        Ok(prepared)
    }

    /// The same words, in another incarnation.
    fn restart(&self, position: u64) -> Result<Prepared<Words>, RestartFailure> {
        let old = self.file(0);
        let (capacity, words) = match &old {
            Some(file) => (file.capacity, file.words.shared()),
            None => return Err(RestartFailure::Untouched(io::ErrorKind::NotFound.into())),
        };
        if let Some(file) = old {
            file.words.allow(Allowed::Nothing);
        }
        // The header: whoever else writes it at the same time is found.
        for word in CHECKPOINTS {
            words.store_words(word, &Checkpoint::at(position, 1).encode());
        }
        Ok(self.prepared(0, position, capacity, words))
    }

    /// Its space is punched: what is read from now on is zeros.
    fn remove(&self, segment: SegmentId) -> io::Result<bool> {
        let number = segment.number;
        let Some(file) = self.file(number) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let mut removed = self.removed.lock().unwrap_or_else(|e| e.into_inner());
        removed.push(number);
        drop(removed);
        file.words.punch(RING, file.capacity / 8);
        Ok(true)
    }

    fn name_of(&self, number: u64) -> String {
        number.to_string()
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }
}
