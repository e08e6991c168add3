//! A simulated medium for crash tests: remembers everything that was stored and every sync, so that
//! the images that a power cut could have left can be made afterwards, for any moment of the run.

#![allow(clippy::disallowed_types)] // never under loom

use super::{Medium, Memory, WORD_LEN};
use crate::sync::Ordering;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

/// The medium writes this much at once, or nothing of it.
pub(crate) const SECTOR_LEN: u64 = 512;

/// What happened to the medium, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Store {
        offset: u64,
        bytes: Vec<u8>,
    },
    /// A sync completed: all stores before the `since`-th event are durable.
    Synced {
        since: usize,
    },
    /// A sync failed: it may have made anything durable, or nothing.
    SyncFailed,
}

#[derive(Debug)]
struct State {
    /// What the medium held at the start, durably.
    start: Vec<u8>,
    /// What programs see.
    live: Vec<u8>,
    events: Vec<Event>,
    /// Syncs that still succeed; `None`: all of them.
    good_syncs: Option<u64>,
}

/// What else happens while a sync runs.
type Meanwhile = Box<dyn FnOnce() + Send>;

/// Shared by clones.
#[derive(Clone)]
pub(crate) struct Simulated(Arc<Mutex<State>>, Arc<Mutex<Option<Meanwhile>>>);

impl std::fmt::Debug for Simulated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Simulated").field(&self.0).finish()
    }
}

impl Simulated {
    /// A medium that holds `bytes`, durably.
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        let state = State {
            start: bytes.clone(),
            live: bytes,
            events: Vec::new(),
            good_syncs: None,
        };
        Simulated(Arc::new(Mutex::new(state)), Arc::default())
    }

    /// A medium whose durable content is `disk`, and which shows `cache`: what a failed sync leaves.
    pub(crate) fn with_cache(disk: Vec<u8>, cache: Vec<u8>) -> Self {
        let medium = Simulated::new(disk);
        medium.state().live = cache;
        medium
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// After `count` more syncs, all fail.
    pub(crate) fn fail_syncs_after(&self, count: u64) {
        self.state().good_syncs = Some(count);
    }

    /// Does this once, while the next sync runs.
    pub(crate) fn during_next_sync(&self, meanwhile: impl FnOnce() + Send + 'static) {
        let mut next = self.1.lock().unwrap_or_else(|e| e.into_inner());
        *next = Some(Box::new(meanwhile));
    }

    /// Events so far.
    pub(crate) fn moment(&self) -> usize {
        self.state().events.len()
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.state().events.clone()
    }

    /// Completed syncs so far.
    pub(crate) fn syncs(&self) -> usize {
        self.state()
            .events
            .iter()
            .filter(|e| matches!(e, Event::Synced { .. }))
            .count()
    }

    /// What a killed process leaves: the page cache as it is.
    pub(crate) fn killed(&self) -> Vec<u8> {
        self.state().live.clone()
    }

    /// An image that a power cut at `moment` could leave. Each sector holds what it held at the last
    /// completed sync, or any value since: `choose(sector, values)` picks one of `0..values`, 0 being the
    /// oldest.
    pub(crate) fn cut(
        &self,
        moment: usize,
        mut choose: impl FnMut(u64, usize) -> usize,
    ) -> Vec<u8> {
        let state = self.state();
        let events = &state.events[..moment];
        let durable = events
            .iter()
            .rev()
            .find_map(|e| {
                if let Event::Synced { since } = e {
                    Some(*since)
                } else {
                    None
                }
            })
            .unwrap_or(0);
        let mut image = state.start.clone();
        let mut later: BTreeMap<u64, Vec<Vec<u8>>> = BTreeMap::new();
        for (i, event) in events.iter().enumerate() {
            let Event::Store { offset, bytes } = event else {
                continue;
            };
            if i < durable {
                image[*offset as usize..*offset as usize + bytes.len()].copy_from_slice(bytes);
                continue;
            }
            for_each_sector(*offset, bytes, |sector, within, part| {
                let at = (sector * SECTOR_LEN) as usize;
                let values = later
                    .entry(sector)
                    .or_insert_with(|| vec![image[at..at + SECTOR_LEN as usize].to_vec()]);
                let mut value = values[values.len() - 1].clone();
                value[within..within + part.len()].copy_from_slice(part);
                values.push(value);
            });
        }
        for (sector, values) in later {
            let chosen = choose(sector, values.len());
            let at = (sector * SECTOR_LEN) as usize;
            image[at..at + SECTOR_LEN as usize].copy_from_slice(&values[chosen]);
        }
        image
    }

    fn write(&self, offset: u64, bytes: &[u8]) {
        let mut state = self.state();
        state.live[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
        state.events.push(Event::Store {
            offset,
            bytes: bytes.to_vec(),
        });
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) {
        let state = self.state();
        bytes.copy_from_slice(&state.live[offset as usize..offset as usize + bytes.len()]);
    }

    fn flush(&self) -> io::Result<()> {
        let since = self.moment();
        let meanwhile = self.1.lock().unwrap_or_else(|e| e.into_inner()).take();
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
        let mut state = self.state();
        if let Some(left) = &mut state.good_syncs {
            if *left == 0 {
                state.events.push(Event::SyncFailed);
                return Err(io::Error::from_raw_os_error(
                    rustix::io::Errno::IO.raw_os_error(),
                ));
            }
            *left -= 1;
        }
        state.events.push(Event::Synced { since });
        Ok(())
    }
}

fn for_each_sector(offset: u64, bytes: &[u8], mut body: impl FnMut(u64, usize, &[u8])) {
    let mut done = 0;
    while done < bytes.len() {
        let at = offset + done as u64;
        let within = (at % SECTOR_LEN) as usize;
        let len = (SECTOR_LEN as usize - within).min(bytes.len() - done);
        body(at / SECTOR_LEN, within, &bytes[done..done + len]);
        done += len;
    }
}

impl Memory for Simulated {
    fn load(&self, word: u64, _: Ordering) -> u64 {
        let mut bytes = [0; WORD_LEN as usize];
        self.read(word * WORD_LEN, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn store(&self, word: u64, value: u64, _: Ordering) {
        self.write(word * WORD_LEN, &value.to_le_bytes());
    }

    fn store_words(&self, word: u64, bytes: &[u8]) {
        // One event: it lies in one sector, and is short beside what writes sectors back.
        self.write(word * WORD_LEN, bytes);
    }

    unsafe fn copy_in(&self, word: u64, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.write(word * WORD_LEN, bytes);
        }
    }

    unsafe fn copy_out(&self, word: u64, bytes: &mut [u8]) {
        self.read(word * WORD_LEN, bytes);
    }

    fn sync(&self) -> io::Result<()> {
        self.flush()
    }
}

impl Medium for Simulated {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().live.len() as u64)
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let len = self.state().live.len() as u64;
        if offset + bytes.len() as u64 > len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read(offset, bytes);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write(offset, bytes);
        Ok(())
    }

    fn sync_written(&self) -> io::Result<()> {
        self.flush()
    }
}
