//! What happened to a medium, event by event, and at each moment all that a crash could leave.

use super::{Event, Log, PAGE_LEN, Part, SECTOR_LEN, Simulated, State};
use std::collections::BTreeMap;

/// The medium at one moment of its past.
#[derive(Debug)]
pub struct Film {
    log: Log,
    moment: usize,
    /// What the disk holds for certain.
    durable: Vec<u8>,
    /// Of each part that was synced: all events in it before this one are durable.
    durable_moments: Vec<(Part, usize)>,
    /// The stores that are not.
    pending: Vec<usize>,
    /// What programs see.
    live: Vec<u8>,
    /// What each sector that was stored in may hold instead, in order of time, as places in `values`.
    open: BTreeMap<u64, Vec<usize>>,
    values: Vec<u8>,
    /// The open sectors to which the last event gave a value.
    fresh: Vec<u64>,
    /// Images are shown here, one at a time. It is `durable` wherever it was not written.
    screen: Simulated,
}

/// One sector of an image: which of its values, 0 being what is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    pub sector: u64,
    pub value: usize,
}

impl Film {
    pub(super) fn of(log: Log) -> Self {
        let screen = Simulated::new(Vec::new());
        {
            let mut state = screen.state();
            state.live = log.disk.clone();
            state.unlogged = Some(Vec::new());
        }
        Film {
            moment: 0,
            durable: log.disk.clone(),
            durable_moments: Vec::new(),
            pending: Vec::new(),
            live: log.cache.clone(),
            open: BTreeMap::new(),
            values: Vec::new(),
            fresh: Vec::new(),
            screen,
            log,
        }
    }

    /// Events so far.
    pub fn moment(&self) -> usize {
        self.moment
    }

    /// Events in all.
    pub fn end(&self) -> usize {
        self.log.events.len()
    }

    /// All events before this one are durable, whatever they touch.
    pub fn durable_moment(&self) -> usize {
        self.durable_moment_of(Part::ALL)
    }

    /// All events in the part before this one are durable.
    pub fn durable_moment_of(&self, part: Part) -> usize {
        let moments = self.durable_moments.iter();
        let moments = moments.filter(|(synced, _)| synced.covers_part(part));
        moments.map(|(_, moment)| *moment).max().unwrap_or(0)
    }

    /// Whether the last event was a sync that completed.
    pub fn has_just_synced(&self) -> bool {
        self.moment > 0 && matches!(self.log.events[self.moment - 1], Event::Synced { .. })
    }

    /// Syncs that completed so far, of any part, not before the `from`-th event.
    pub fn syncs_since(&self, from: usize) -> usize {
        let events = self.log.events[..self.moment].iter().skip(from);
        events.filter(|e| matches!(e, Event::Synced { .. })).count()
    }

    pub fn advance_to(&mut self, moment: usize) {
        while self.moment < moment {
            self.advance();
        }
    }

    /// One event more.
    pub fn advance(&mut self) {
        let event = self.log.events[self.moment];
        self.moment += 1;
        self.fresh.clear();
        match event {
            Event::Store { offset, at, len } => {
                self.pending.push(self.moment - 1);
                let bytes = &self.log.pool[at..at + len];
                self.live[offset as usize..offset as usize + len].copy_from_slice(bytes);
                self.open_sectors(offset, at, len);
            }
            Event::SyncFailed => {}
            Event::Synced { since, part } => {
                match self.durable_moments.iter_mut().find(|m| m.0 == part) {
                    Some((_, moment)) => *moment = since.max(*moment),
                    None => self.durable_moments.push((part, since)),
                }
                let pending = self.drop_open(part);
                for n in pending {
                    let Event::Store { offset, at, len } = self.log.events[n] else {
                        continue;
                    };
                    if !part.covers(offset, len as u64) {
                        self.pending.push(n);
                    } else if n < since {
                        let bytes = &self.log.pool[at..at + len];
                        self.durable[offset as usize..offset as usize + len].copy_from_slice(bytes);
                        self.screen.touch(offset, len as u64);
                    } else {
                        self.pending.push(n);
                        self.open_sectors(offset, at, len);
                    }
                }
                self.fresh.clear();
            }
            Event::Fresh { part } => {
                for n in self.drop_open(part) {
                    if let Event::Store { offset, len, .. } = self.log.events[n]
                        && !part.covers(offset, len as u64)
                    {
                        self.pending.push(n);
                    }
                }
                let range = part.offset as usize..(part.offset + part.len) as usize;
                self.live[range.clone()].fill(0);
                self.durable[range].fill(0);
                self.screen.touch(part.offset, part.len);
            }
        }
    }

    /// No sector of the part is open any more. Takes the pending stores, of all parts.
    fn drop_open(&mut self, part: Part) -> Vec<usize> {
        self.open
            .retain(|sector, _| !part.covers(sector * SECTOR_LEN, SECTOR_LEN));
        if self.open.is_empty() {
            self.values.clear();
        }
        std::mem::take(&mut self.pending)
    }

    /// Gives the sectors of a store one value more each, unless it changes nothing.
    fn open_sectors(&mut self, offset: u64, at: usize, len: usize) {
        let mut done = 0;
        while done < len {
            let place = offset + done as u64;
            let (sector, within) = (place / SECTOR_LEN, (place % SECTOR_LEN) as usize);
            let part_len = (SECTOR_LEN as usize - within).min(len - done);
            let part = &self.log.pool[at + done..at + done + part_len];
            done += part_len;
            let last = self.open.get(&sector).and_then(|v| v.last().copied());
            let from = (sector * SECTOR_LEN) as usize;
            let before = match last {
                Some(value) => &self.values[value..value + SECTOR_LEN as usize],
                None => &self.durable[from..from + SECTOR_LEN as usize],
            };
            if before[within..within + part_len] == *part {
                continue;
            }
            let value = self.values.len();
            match last {
                Some(last) => self
                    .values
                    .extend_from_within(last..last + SECTOR_LEN as usize),
                None => self
                    .values
                    .extend_from_slice(&self.durable[from..from + SECTOR_LEN as usize]),
            }
            self.values[value + within..value + within + part_len].copy_from_slice(part);
            self.open.entry(sector).or_default().push(value);
            self.fresh.push(sector);
        }
    }

    /// The sectors that a power cut now leaves open, and how many values each may have.
    pub fn open_now(&self) -> impl Iterator<Item = (u64, usize)> + '_ {
        self.open.iter().map(|(s, values)| (*s, values.len() + 1))
    }

    /// Of these, those to which the last event gave their newest value.
    pub fn fresh(&self) -> &[u64] {
        &self.fresh
    }

    fn value(&self, sector: u64, value: usize) -> &[u8] {
        match value.checked_sub(1) {
            None => {
                let from = (sector * SECTOR_LEN) as usize;
                &self.durable[from..from + SECTOR_LEN as usize]
            }
            Some(nth) => {
                let at = self.open[&sector][nth];
                &self.values[at..at + SECTOR_LEN as usize]
            }
        }
    }

    /// An image that a power cut now could leave.
    pub fn image(&self, mut choose: impl FnMut(u64, usize) -> usize) -> Vec<u8> {
        let mut image = self.durable.clone();
        for (sector, values) in self.open_now() {
            let from = (sector * SECTOR_LEN) as usize;
            let value = self.value(sector, choose(sector, values));
            image[from..from + SECTOR_LEN as usize].copy_from_slice(value);
        }
        image
    }

    /// The same with these sectors; the medium keeps no log, and is good until the next image is shown.
    pub fn show(&self, choices: &[Choice]) -> Simulated {
        self.screen.restore(&self.durable);
        for choice in choices {
            if choice.value > 0 {
                let value = self.value(choice.sector, choice.value);
                self.screen.write(choice.sector * SECTOR_LEN, value);
            }
        }
        self.screen.clone()
    }

    /// What programs see now: what a killed process leaves.
    pub fn live(&self) -> &[u8] {
        &self.live
    }

    /// The medium as a process finds it that starts in the same boot: what was stored and not synced may
    /// still be lost.
    pub fn in_the_same_boot(&self) -> Simulated {
        let mut newest = self.durable.clone();
        let mut pending = Vec::new();
        for n in &self.pending {
            if let Event::Store { offset, at, len } = self.log.events[*n] {
                let bytes = &self.log.pool[at..at + len];
                newest[offset as usize..offset as usize + len].copy_from_slice(bytes);
                pending.push((offset, bytes));
            }
        }
        // What differs although it was stored is not going to be written.
        let stale = Simulated::with_cache(newest, self.live.clone());
        let State { stale, .. } = &mut *stale.state();
        let medium = Simulated::made(self.durable.clone(), self.live.clone(), stale.clone());
        let mut state = medium.state();
        for (offset, bytes) in pending {
            state.log.store(offset, bytes);
        }
        drop(state);
        medium
    }
}

impl Simulated {
    /// Notes that what lies here is not what it was.
    fn touch(&self, offset: u64, len: u64) {
        self.state()
            .unlogged
            .get_or_insert_default()
            .push((offset, len));
    }

    /// Makes a medium without a log what it was before it was written.
    fn restore(&self, bytes: &[u8]) {
        let state = &mut *self.state();
        let written = state.unlogged.get_or_insert_default();
        for (offset, len) in written.drain(..) {
            let range = offset as usize..(offset + len) as usize;
            state.live[range.clone()].copy_from_slice(&bytes[range]);
        }
    }
}

const _: () = assert!(PAGE_LEN.is_multiple_of(SECTOR_LEN));
