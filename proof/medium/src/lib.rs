//! A simulated medium for crash tests: remembers everything that was stored and every sync, so that
//! the images that a power cut could have left can be made afterwards, for any moment of the run.
//!
//! It is one disk with one past. A file on it is a part, and so is the directory (`directory`): what one of
//! them syncs says nothing of the others.

#![allow(clippy::disallowed_types)] // never under loom

pub mod directory;
mod film;

pub use film::{Choice, Film};

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use walchan_core::storage::{Medium, Memory, WORD_LEN};
use walchan_core::sync::Ordering;

/// The medium writes this much at once, or nothing of it.
pub const SECTOR_LEN: u64 = 512;
/// The cache knows of each stretch of this much whether the disk has to write it.
const PAGE_LEN: u64 = 4096;

/// A stretch of the disk whose stores become durable together. Begins and ends with a sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub offset: u64,
    pub len: u64,
}

impl Part {
    /// Whatever there is.
    pub const ALL: Part = Part {
        offset: 0,
        len: u64::MAX,
    };

    pub fn covers(self, offset: u64, len: u64) -> bool {
        self.offset <= offset && offset + len <= self.offset.saturating_add(self.len)
    }

    fn covers_part(self, part: Part) -> bool {
        let end = part.offset.saturating_add(part.len);
        self.offset <= part.offset && end <= self.offset.saturating_add(self.len)
    }
}

/// What happened to the medium, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// Bytes of the log's pool, from `at`.
    Store { offset: u64, at: usize, len: usize },
    /// A sync completed: all stores to the part before the `since`-th event are durable.
    Synced { since: usize, part: Part },
    /// A sync failed: it may have made anything durable, or nothing.
    SyncFailed,
    /// The part is another file's from now on: zeros, whatever happens.
    Fresh { part: Part },
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
    forgiven: bool,
    /// Each word that is stored is an event.
    word_by_word: bool,
}

/// What else happens while a sync runs.
type Meanwhile = Box<dyn FnOnce() + Send>;

/// A disk, or a part of one. Shared by clones, and by the parts.
#[derive(Clone)]
pub struct Simulated {
    state: Arc<Mutex<State>>,
    meanwhile: Arc<Mutex<Option<Meanwhile>>>,
    part: Part,
    /// As long as somebody has it, the part is given to no other file.
    _lease: Option<Arc<()>>,
}

impl std::fmt::Debug for Simulated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Simulated")
            .field("state", &self.state)
            .field("part", &self.part)
            .finish_non_exhaustive()
    }
}

impl Simulated {
    /// A medium that holds `bytes`, durably.
    pub fn new(bytes: Vec<u8>) -> Self {
        Simulated::made(bytes.clone(), bytes, Vec::new())
    }

    /// A medium whose durable content is `disk`, and which shows `cache`: what a failed sync leaves.
    pub fn with_cache(disk: Vec<u8>, cache: Vec<u8>) -> Self {
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
            forgiven: false,
            word_by_word: false,
        };
        Simulated::of(state)
    }

    fn of(state: State) -> Self {
        Simulated {
            state: Arc::new(Mutex::new(state)),
            meanwhile: Arc::default(),
            part: Part::ALL,
            _lease: None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn meanwhile(&self) -> MutexGuard<'_, Option<Meanwhile>> {
        self.meanwhile.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Another disk, with the same past.
    pub fn copied(&self) -> Self {
        Simulated {
            part: self.part,
            ..Simulated::of(self.state().clone())
        }
    }

    /// A part of the disk: its offset 0 is that of the part, and its sync makes nothing else durable.
    pub fn part(&self, part: Part) -> Self {
        let whole = part.offset.is_multiple_of(SECTOR_LEN) && part.len.is_multiple_of(SECTOR_LEN);
        assert!(whole || part == Part::ALL, "{part:?}");
        Simulated {
            part,
            _lease: None,
            ..self.clone()
        }
    }

    /// The whole of it.
    pub fn disk(&self) -> Self {
        Simulated {
            part: Part::ALL,
            _lease: None,
            ..self.clone()
        }
    }

    /// After `count` more syncs one fails, and leaves what it was to write as it is; `None`: none does.
    pub fn fail_syncs_after(&self, count: impl Into<Option<u64>>) {
        self.state().good_syncs = count.into();
    }

    /// From now on a crash can come between any two words that are stored.
    pub fn store_word_by_word(&self) {
        self.state().word_by_word = true;
    }

    /// Does this once, while the next sync runs.
    pub fn during_next_sync(&self, meanwhile: impl FnOnce() + Send + 'static) {
        *self.meanwhile() = Some(Box::new(meanwhile));
    }

    /// Takes that back; whether it was still to be done.
    pub fn nothing_during_syncs(&self) -> bool {
        self.meanwhile().take().is_some()
    }

    /// Events of the disk so far.
    pub fn moment(&self) -> usize {
        self.state().log.events.len()
    }

    /// Completed syncs so far, of any part.
    pub fn syncs(&self) -> usize {
        self.state()
            .log
            .events
            .iter()
            .filter(|e| matches!(e, Event::Synced { .. }))
            .count()
    }

    /// All events here before this one were durable when the last sync completed.
    pub fn durable_moment(&self) -> usize {
        let state = self.state();
        let mut last = state.log.events.iter().rev();
        last.find_map(|e| match e {
            Event::Synced { since, part } if part.covers_part(self.part) => Some(*since),
            _ => None,
        })
        .unwrap_or(0)
    }

    /// Whether a power cut could leave another value than the one that is there now.
    pub fn is_open(&self) -> bool {
        let durable = self.durable_moment();
        let state = self.state();
        let mut later = state.log.events.iter().skip(durable);
        later.any(|event| match event {
            Event::Store { offset, len, .. } => self.part.covers(*offset, *len as u64),
            _ => false,
        })
    }

    /// Gives the part to another file: what was there is gone at once.
    pub fn make_fresh(&self) {
        let Part { offset, len } = self.part;
        let state = &mut *self.state();
        state.live[offset as usize..(offset + len) as usize].fill(0);
        match &mut state.unlogged {
            Some(written) => written.push((offset, len)),
            None => {
                let pages = offset / PAGE_LEN..(offset + len).div_ceil(PAGE_LEN);
                state.stale.retain(|page| !pages.contains(page));
                state.log.events.push(Event::Fresh { part: self.part });
            }
        }
    }

    /// What the part is.
    pub fn whole(&self) -> Part {
        self.part
    }

    /// Forgets that a sync failed: whatever it was to make durable is no longer needed.
    pub fn forgive(&self) {
        let state = &mut *self.state();
        state.forgiven |= std::mem::take(&mut state.failed);
    }

    /// Whether a sync failed, forgiven or not.
    pub fn has_ever_failed(&self) -> bool {
        let state = self.state();
        state.failed || state.forgiven
    }

    /// Whether a sync failed.
    pub fn has_failed(&self) -> bool {
        self.state().failed
    }

    /// Whether the cache shows what the disk does not hold and will not be given.
    pub fn is_stale(&self) -> bool {
        !self.state().stale.is_empty()
    }

    /// What a killed process leaves of the disk: the page cache as it is.
    pub fn killed(&self) -> Vec<u8> {
        self.state().live.clone()
    }

    /// What happened, from the start.
    pub fn film(&self) -> Film {
        Film::of(self.state().log.clone())
    }

    /// An image that a power cut at `moment` could leave. Each sector holds what it held at the last
    /// completed sync, or any value since: `choose(sector, values)` picks one of `0..values`, 0 being the
    /// oldest.
    pub fn cut(&self, moment: usize, choose: impl FnMut(u64, usize) -> usize) -> Vec<u8> {
        let mut film = self.film();
        film.advance_to(moment);
        film.image(choose)
    }

    /// Changes what was there before anything happened.
    fn preset(&self, offset: u64, bytes: &[u8]) {
        let state = &mut *self.state();
        let range = offset as usize..offset as usize + bytes.len();
        state.live[range.clone()].copy_from_slice(bytes);
        match &mut state.unlogged {
            Some(written) => written.push((offset, bytes.len() as u64)),
            None => {
                assert!(state.log.events.is_empty(), "too late");
                state.log.disk[range.clone()].copy_from_slice(bytes);
                state.log.cache[range].copy_from_slice(bytes);
            }
        }
    }

    /// The place on the disk of so many bytes.
    fn place(&self, offset: u64, len: usize) -> u64 {
        let place = self.part.offset + offset;
        assert!(self.part.covers(place, len as u64), "beyond the part");
        place
    }

    fn write(&self, offset: u64, bytes: &[u8]) {
        let offset = self.place(offset, bytes.len());
        let state = &mut *self.state();
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
                // The disk will write the whole page, as the cache shows it, as far as the file goes.
                let from = (page * PAGE_LEN) as usize;
                let part_end = self.part.offset.saturating_add(self.part.len) as usize;
                let end = state.live.len().min(part_end);
                let to = end.min(from + PAGE_LEN as usize);
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
        let offset = self.place(offset, bytes.len());
        let state = self.state();
        bytes.copy_from_slice(&state.live[offset as usize..offset as usize + bytes.len()]);
    }

    fn flush(&self, part: Part) -> io::Result<()> {
        let since = self.moment();
        let meanwhile = self.meanwhile().take();
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
        state.log.events.push(Event::Synced { since, part });
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
        // One event, unless asked otherwise: it lies in one sector, and is short beside what writes sectors
        // back.
        self.write_words(word * WORD_LEN, bytes);
    }

    unsafe fn copy_in(&self, word: u64, skip: u64, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.write_words(word * WORD_LEN + skip, bytes);
        }
    }

    unsafe fn copy_out(&self, word: u64, bytes: &mut [u8]) {
        self.read(word * WORD_LEN, bytes);
    }

    fn sync(&self) -> io::Result<()> {
        self.flush(self.part)
    }

    fn sync_words(&self, word: u64, count: u64) -> io::Result<()> {
        let from = self.place(word * WORD_LEN, (count * WORD_LEN) as usize);
        let to = (from + count * WORD_LEN).next_multiple_of(SECTOR_LEN);
        let offset = from / SECTOR_LEN * SECTOR_LEN;
        let len = to - offset;
        self.flush(Part { offset, len })
    }
}

impl Medium for Simulated {
    fn len(&self) -> io::Result<u64> {
        let there = self.state().live.len() as u64 - self.part.offset;
        Ok(self.part.len.min(there))
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        if offset + bytes.len() as u64 > Medium::len(self)? {
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
        self.flush(self.part)
    }
}
