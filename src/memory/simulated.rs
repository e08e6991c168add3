//! A simulated medium for crash tests: remembers everything that was stored and every sync, so that
//! the images that a power cut could have left can be made afterwards, for any moment of the run.

#![allow(clippy::disallowed_types)] // never under loom

mod film;

pub(crate) use film::{Choice, Film};

use super::{Medium, Memory, WORD_LEN};
use crate::sync::Ordering;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

/// The medium writes this much at once, or nothing of it.
pub(crate) const SECTOR_LEN: u64 = 512;
/// The cache knows of each stretch of this much whether the disk has to write it.
const PAGE_LEN: u64 = 4096;

/// What happened to the medium, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// Bytes of the log's pool, from `at`.
    Store { offset: u64, at: usize, len: usize },
    /// A sync completed: all stores before the `since`-th event are durable.
    Synced { since: usize },
    /// A sync failed: it may have made anything durable, or nothing.
    SyncFailed,
}

/// What happened to a medium, and what it was before.
#[derive(Clone, Debug)]
struct Log {
    /// What the disk held at the start.
    disk: Vec<u8>,
    /// What programs saw then.
    cache: Vec<u8>,
    events: Vec<Event>,
    pool: Vec<u8>,
}

#[derive(Clone, Debug)]
struct State {
    /// What programs see.
    live: Vec<u8>,
    log: Log,
    /// A medium that keeps no log, but remembers where it was written: offsets and lengths.
    unlogged: Option<Vec<(u64, u64)>>,
    /// Pages that the cache shows otherwise than the disk holds them, and that nothing will write unless
    /// somebody stores in them: what a failed sync leaves.
    stale: Vec<u64>,
    /// Syncs that still succeed; `None`: all of them.
    good_syncs: Option<u64>,
    failed: bool,
    /// Each word that is stored is an event.
    word_by_word: bool,
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
        Simulated::made(bytes.clone(), bytes, Vec::new())
    }

    /// A medium whose durable content is `disk`, and which shows `cache`: what a failed sync leaves.
    pub(crate) fn with_cache(disk: Vec<u8>, cache: Vec<u8>) -> Self {
        let pages = disk
            .chunks(PAGE_LEN as usize)
            .zip(cache.chunks(PAGE_LEN as usize));
        let stale = (0..).zip(pages).filter(|(_, (d, c))| d != c);
        let stale = stale.map(|(page, _)| page).collect();
        Simulated::made(disk, cache, stale)
    }

    fn made(disk: Vec<u8>, cache: Vec<u8>, stale: Vec<u64>) -> Self {
        let state = State {
            live: cache.clone(),
            log: Log {
                disk,
                cache,
                events: Vec::new(),
                pool: Vec::new(),
            },
            unlogged: None,
            stale,
            good_syncs: None,
            failed: false,
            word_by_word: false,
        };
        Simulated(Arc::new(Mutex::new(state)), Arc::default())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Another one, with the same past.
    pub(crate) fn copied(&self) -> Self {
        Simulated(Arc::new(Mutex::new(self.state().clone())), Arc::default())
    }

    /// After `count` more syncs one fails, and leaves what it was to write as it is; `None`: none does.
    pub(crate) fn fail_syncs_after(&self, count: impl Into<Option<u64>>) {
        self.state().good_syncs = count.into();
    }

    /// From now on a crash can come between any two words that are stored.
    pub(crate) fn store_word_by_word(&self) {
        self.state().word_by_word = true;
    }

    /// Does this once, while the next sync runs.
    pub(crate) fn during_next_sync(&self, meanwhile: impl FnOnce() + Send + 'static) {
        let mut next = self.1.lock().unwrap_or_else(|e| e.into_inner());
        *next = Some(Box::new(meanwhile));
    }

    /// Takes that back; whether it was still to be done.
    pub(crate) fn nothing_during_syncs(&self) -> bool {
        let mut next = self.1.lock().unwrap_or_else(|e| e.into_inner());
        next.take().is_some()
    }

    /// Events so far.
    pub(crate) fn moment(&self) -> usize {
        self.state().log.events.len()
    }

    /// Completed syncs so far.
    pub(crate) fn syncs(&self) -> usize {
        self.state()
            .log
            .events
            .iter()
            .filter(|e| matches!(e, Event::Synced { .. }))
            .count()
    }

    /// All events before this one were durable when the last sync completed.
    pub(crate) fn durable_moment(&self) -> usize {
        let state = self.state();
        let mut last = state.log.events.iter().rev();
        last.find_map(|e| match e {
            Event::Synced { since } => Some(*since),
            _ => None,
        })
        .unwrap_or(0)
    }

    /// Whether a sync failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.state().failed
    }

    /// Whether the cache shows what the disk does not hold and will not be given.
    pub(crate) fn is_stale(&self) -> bool {
        !self.state().stale.is_empty()
    }

    /// What a killed process leaves: the page cache as it is.
    pub(crate) fn killed(&self) -> Vec<u8> {
        self.state().live.clone()
    }

    /// What happened, from the start.
    pub(crate) fn film(&self) -> Film {
        Film::of(self.state().log.clone())
    }

    /// An image that a power cut at `moment` could leave. Each sector holds what it held at the last
    /// completed sync, or any value since: `choose(sector, values)` picks one of `0..values`, 0 being the
    /// oldest.
    pub(crate) fn cut(&self, moment: usize, choose: impl FnMut(u64, usize) -> usize) -> Vec<u8> {
        let mut film = self.film();
        film.advance_to(moment);
        film.image(choose)
    }

    fn write(&self, offset: u64, bytes: &[u8]) {
        let mut state = self.state();
        let state = &mut *state;
        let range = offset as usize..offset as usize + bytes.len();
        if let Some(written) = &mut state.unlogged {
            written.push((offset, bytes.len() as u64));
            state.live[range].copy_from_slice(bytes);
            return;
        }
        if !state.stale.is_empty() {
            let end = offset + bytes.len() as u64;
            let touched = offset / PAGE_LEN..end.div_ceil(PAGE_LEN);
            for page in state.stale.extract_if(.., |page| touched.contains(page)) {
                // The disk will write the whole page, as the cache shows it.
                let from = (page * PAGE_LEN) as usize;
                let to = state.live.len().min(from + PAGE_LEN as usize);
                state.log.store(page * PAGE_LEN, &state.live[from..to]);
            }
        }
        state.live[range].copy_from_slice(bytes);
        state.log.store(offset, bytes);
    }

    fn write_words(&self, offset: u64, bytes: &[u8]) {
        if !self.state().word_by_word {
            return self.write(offset, bytes);
        }
        for (word, bytes) in (0..).zip(bytes.chunks(WORD_LEN as usize)) {
            self.write(offset + word * WORD_LEN, bytes);
        }
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
        if state.unlogged.is_some() {
            return Ok(());
        }
        if let Some(left) = &mut state.good_syncs {
            if *left == 0 {
                // Once: the next one says that all is well, although it is not.
                state.good_syncs = None;
                state.log.events.push(Event::SyncFailed);
                state.failed = true;
                return Err(io::Error::from_raw_os_error(
                    rustix::io::Errno::IO.raw_os_error(),
                ));
            }
            *left = left.saturating_sub(1);
        }
        state.log.events.push(Event::Synced { since });
        Ok(())
    }
}

impl Log {
    fn store(&mut self, offset: u64, bytes: &[u8]) {
        let (at, len) = (self.pool.len(), bytes.len());
        self.pool.extend_from_slice(bytes);
        self.events.push(Event::Store { offset, at, len });
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
        // One event, unless asked otherwise: it lies in one sector, and is short beside what writes sectors back.
        self.write_words(word * WORD_LEN, bytes);
    }

    unsafe fn copy_in(&self, word: u64, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.write_words(word * WORD_LEN, bytes);
        }
    }

    unsafe fn copy_out(&self, word: u64, bytes: &mut [u8]) {
        self.read(word * WORD_LEN, bytes);
    }

    fn sync(&self) -> io::Result<()> {
        self.flush()
    }

    fn sync_words(&self, _: u64, _: u64) -> io::Result<()> {
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
