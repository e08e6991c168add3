//! The chain: which files there are, which of them is sent into, which comes next for the receiver.

use super::files::{Files, Prepared, SegmentId};
use super::growth::Growth;
use super::lifecycle::{Event, SegmentState};
use crate::commit::housekeeper::TIDY;
use crate::commit::{Failure, Log, LogSetup, Mode, SendFailure, Shared, Wait};
use crate::format::frame::payload_len;
use crate::planted::planted;
use crate::ring::{Ring, Start};
use crate::sync::{Arc, Mutex, RwLock};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Weak;

/// The log of a file.
pub type LogOf<F> = Arc<Log<<F as Files>::Memory>>;

/// One file of the chain.
#[derive(Debug)]
pub struct Entry<F: Files> {
    /// 0 is the ring.
    pub number: u64,
    /// The position that it was made for: with the number, by which it is known.
    pub made_at: u64,
    /// Its first position, as far as this incarnation is concerned.
    pub start: u64,
    /// Bytes of its ring.
    pub capacity: u64,
    /// Position behind its last frame, if another file is linked behind it, or it is filled once.
    pub end: Option<u64>,
    /// `None`: it is [parked](SegmentState::Parked).
    pub log: Option<LogOf<F>>,
    /// Where it is in its life cycle.
    pub state: SegmentState,
    /// Why the file could not be opened when the receiver came to it: it may be as if it had not been closed.
    pub unopened: Option<Failure>,
    /// What an earlier incarnation sent into it, which is read as recovery reads.
    pub backlog: Option<BacklogRange>,
}

impl<F: Files> Entry<F> {
    pub(super) fn id(&self) -> SegmentId {
        SegmentId {
            number: self.number,
            start: self.made_at,
        }
    }

    /// Something happens to the file. What the table does not have does not happen: it changes nothing.
    pub(super) fn apply(&mut self, event: Event) {
        let next = self.state.after(event);
        debug_assert!(next.is_some(), "{event:?} in {:?}", self.state);
        self.state = next.unwrap_or(self.state);
        if self.state == SegmentState::Parked {
            self.log = None;
        }
    }

    /// The receiver comes to it; perhaps again, where the last attempt failed.
    fn enter(&mut self) {
        if !self.state.is_entered() {
            self.apply(Event::Enter);
        }
    }
}

/// What an earlier incarnation left in a file.
#[derive(Clone, Copy, Debug)]
pub struct BacklogRange {
    /// It lies in `[head, tail)`.
    pub head: u64,
    /// Where it ends.
    pub tail: u64,
    /// Messages that were counted there.
    pub messages: u64,
}

impl BacklogRange {
    /// `None` where nothing is left.
    pub fn in_start(start: &Start) -> Option<Self> {
        let &Start {
            head,
            tail,
            unacknowledged,
            ..
        } = start;
        (tail > head).then_some(BacklogRange {
            head,
            tail,
            messages: unacknowledged,
        })
    }
}

#[derive(Debug)]
pub(super) struct State<F: Files> {
    /// In the order of their positions. Never empty.
    pub(super) entries: VecDeque<Entry<F>>,
    pub(super) next_number: u64,
    /// Bytes of all files, the ring included.
    pub(super) bytes: u64,
    /// A segment that could not be made, and whose name may be there: it is gone for certain before anything
    /// else is made, or anything is sent beyond the end that it tells.
    pub(super) unmade: Option<u64>,
    /// Drained segments whose names are still to be removed, and their capacities.
    pub(super) unremoved: Vec<(SegmentId, u64)>,
    /// A segment whose name is another file's now, which was left alone.
    pub(super) displaced: Option<Failure>,
    /// Of the handles that know a file: each forgets one that is parked or retired, however long it is idle.
    pub(super) slots: Vec<Weak<RwLock<Slot<F>>>>,
}

impl<F: Files> State<F> {
    /// The ring is drained, and out of the chain.
    pub(super) fn ring_is_out(&self) -> bool {
        self.entries.iter().all(|entry| entry.number != 0)
    }

    /// Index of the file that is sent into.
    pub(super) fn active(&self) -> usize {
        let last = self.entries.len() - 1;
        let before = last.checked_sub(1);
        let is_open = |entry: &Entry<F>| {
            entry
                .log
                .as_ref()
                .is_some_and(|log| !log.ring().is_sealed())
        };
        match before {
            Some(before) if is_open(&self.entries[before]) => before,
            _ => last,
        }
    }

    pub(super) fn index_of(&self, log: &LogOf<F>) -> Option<usize> {
        let is_it = |entry: &Entry<F>| entry.log.as_ref().is_some_and(|l| Arc::ptr_eq(l, log));
        self.entries.iter().position(is_it)
    }
}

/// What a handle knows of the file that is sent into.
#[derive(Debug)]
pub(super) struct Slot<F: Files> {
    /// `None`: it has to look.
    log: Option<LogOf<F>>,
    /// The chain knows the slot.
    is_registered: bool,
}

/// Where one handle sends, once its channel has left the first file. A lock of its own for each handle, so
/// that they do not meet in it.
#[derive(Debug)]
pub struct CurrentSegment<F: Files>(Arc<RwLock<Slot<F>>>);

impl<F: Files> CurrentSegment<F> {
    /// None yet: the first file is tried first.
    pub fn new() -> Self {
        CurrentSegment(Arc::new(RwLock::new(Slot {
            log: None,
            is_registered: false,
        })))
    }
}

/// What the receiver goes on with.
#[derive(Debug)]
pub struct Next<F: Files> {
    /// The file that is read next.
    pub log: LogOf<F>,
    /// What an earlier incarnation sent into it.
    pub backlog: Option<BacklogRange>,
}

/// All files of a channel.
#[derive(Debug)]
pub struct Chain<F: Files> {
    pub(super) files: F,
    pub(super) shared: Arc<Shared>,
    /// The file that was sent into first in this incarnation: until it is sealed nobody needs a lock to find
    /// it.
    first: LogOf<F>,
    /// `None`: the channel has one file.
    pub(super) growth: Option<Growth>,
    /// Held by whoever links a file.
    pub(super) growing: Mutex<()>,
    pub(super) state: Mutex<State<F>>,
}

impl<F: Files> Chain<F> {
    /// A chain of the given files; the last one, or the last but one, is sent into.
    pub fn new(
        files: F,
        shared: Arc<Shared>,
        entries: Vec<Entry<F>>,
        growth: Option<Growth>,
        bytes: u64,
        next_number: u64,
    ) -> Self {
        let has_ring = entries.iter().any(|entry| entry.number == 0);
        shared.set_ring_is_next(!has_ring);
        let state = State {
            entries: entries.into(),
            next_number,
            bytes,
            unmade: None,
            unremoved: Vec::new(),
            displaced: None,
            slots: Vec::new(),
        };
        let first = state.entries[state.active()].log.clone();
        Chain {
            files,
            shared,
            // `open` reads, and every test makes, at least the file that is sent into.
            first: first.expect("the file that is sent into is open"),
            growth,
            growing: Mutex::new(()),
            state: Mutex::new(state),
        }
    }

    /// What all files share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Whether it has more than one file, or may.
    pub fn grows(&self) -> bool {
        self.growth.is_some()
    }

    /// The file that was sent into first in this incarnation.
    pub fn first(&self) -> &LogOf<F> {
        &self.first
    }

    /// Numbers of the files, in the order of their positions.
    pub fn numbers(&self) -> Vec<u64> {
        let state = self.state.lock();
        state.entries.iter().map(|entry| entry.number).collect()
    }

    /// What makes, opens and removes the files.
    pub fn files(&self) -> &F {
        &self.files
    }

    /// A log over a file.
    pub fn log_of(
        shared: &Arc<Shared>,
        prepared: Prepared<F::Memory>,
        growth: Option<&Growth>,
        previous: Option<LogOf<F>>,
    ) -> LogOf<F> {
        let Prepared {
            memory,
            layout,
            start,
            stored,
        } = prepared;
        let setup = LogSetup {
            stored,
            ahead: growth.map_or(0, |growth| growth.ahead(&layout)),
            previous: previous.filter(|_| shared.is_synced_mode()),
            return_at: growth
                .filter(|_| layout.once)
                .map_or(0, |growth| growth.ring_capacity / 2),
        };
        let ring = Ring::new(memory, layout, start, Arc::clone(&shared.events));
        Arc::new(Log::new(ring, Arc::clone(shared), setup))
    }

    /// The file that is sent into now.
    pub fn active(&self) -> LogOf<F> {
        let state = self.state.lock();
        let active = state.active();
        let log = state.entries[active].log.clone();
        log.expect("a file that is not complete is open")
    }

    // === Sending ===

    /// Sends a payload. Returns where its frame ends.
    pub fn send(
        &self,
        current: &CurrentSegment<F>,
        payload: &[IoSlice<'_>],
        wait: Wait,
    ) -> Result<u64, SendFailure> {
        if self.first.ring().end().is_none() {
            match self.send_into(&self.first, payload, wait) {
                Err(SendFailure::Sealed) => {}
                sent => return sent,
            }
        }
        loop {
            match self.send_into_current(current, payload, wait) {
                Err(SendFailure::Sealed) => {
                    self.find_active(current);
                    // There is a file to be completed, and one to be made ahead of need.
                    self.shared.housekeeper.fence_and_flag(TIDY);
                }
                sent => return sent,
            }
        }
    }

    /// Looks for the file that is sent into, under the lock of the slot, and registers the slot before:
    /// whoever parks or retires that file comes to the slot later.
    fn find_active(&self, current: &CurrentSegment<F>) {
        let mut slot = current.0.write();
        if !std::mem::replace(&mut slot.is_registered, true) {
            let slots = &mut self.state.lock().slots;
            if slots.len() == slots.capacity() {
                // Those of handles that are gone; twice as many may come before the next look.
                slots.retain(|slot| slot.strong_count() > 0);
                slots.reserve(slots.len() + 1);
            }
            slots.push(Arc::downgrade(&current.0));
        }
        slot.log = Some(self.active());
    }

    /// Has every handle forget a file that is sealed, lest one that is idle keep its mapping and its
    /// descriptor.
    pub(super) fn forget_sealed(&self) {
        let slots = {
            let mut state = self.state.lock();
            // The handles of the others are gone.
            state.slots.retain(|slot| slot.strong_count() > 0);
            state.slots.clone()
        };
        for slot in slots.iter().filter_map(Weak::upgrade) {
            let is_sealed = |log: &LogOf<F>| log.ring().is_sealed();
            let mut slot = slot.write();
            if slot.log.as_ref().is_some_and(is_sealed) && !planted!("handles_keep_sealed_files") {
                slot.log = None;
            }
        }
    }

    fn send_into_current(
        &self,
        current: &CurrentSegment<F>,
        payload: &[IoSlice<'_>],
        wait: Wait,
    ) -> Result<u64, SendFailure> {
        let guard = current.0.read();
        let Some(log) = &guard.log else {
            return Err(SendFailure::Sealed);
        };
        if self.shared.mode() != Mode::FlushOnly {
            // It may wait for the disk: not with the lock.
            let log = Arc::clone(log);
            drop(guard);
            return self.send_into(&log, payload, wait);
        }
        match log.publish(payload, wait) {
            Err(SendFailure::Full | SendFailure::TooLarge { .. }) => {
                let log = Arc::clone(log);
                drop(guard);
                self.send_into(&log, payload, wait)
            }
            sent => sent,
        }
    }

    /// Sends into a file, which is sealed if it has no room and another one can be linked.
    fn send_into(
        &self,
        log: &LogOf<F>,
        payload: &[IoSlice<'_>],
        wait: Wait,
    ) -> Result<u64, SendFailure> {
        let len = payload_len(payload);
        loop {
            match log.publish(payload, wait) {
                Ok(end) => {
                    log.make_durable(end)?;
                    return Ok(end);
                }
                Err(SendFailure::Full) if self.growth.is_some() => {
                    if let Some(end) = self.grow_and_send(log, payload)? {
                        return Ok(end);
                    }
                }
                Err(SendFailure::TooLarge { .. }) if self.growth.is_some() => {
                    let max = self.payload_len_max();
                    if len > max {
                        return Err(SendFailure::TooLarge { len, max });
                    }
                    if let Some(end) = self.grow_and_send(log, payload)? {
                        return Ok(end);
                    }
                    log.seal();
                    return Err(SendFailure::Sealed);
                }
                sent => return sent,
            }
        }
    }

    // === Receiving ===

    /// Where the receiver begins.
    pub fn begin(&self) -> io::Result<Next<F>> {
        self.enter(None)
    }

    /// What comes behind a file that was read to its end.
    pub fn after(&self, log: &LogOf<F>) -> io::Result<Next<F>> {
        let next = self.enter(Some(log));
        // Behind that: the ring is not used anew before the receiver has come to the next file.
        log.left();
        next
    }

    /// The receiver comes to the file behind `log`, or to the first.
    fn enter(&self, log: Option<&LogOf<F>>) -> io::Result<Next<F>> {
        let (segment, end) = {
            let mut state = self.state.lock();
            // Drained, it may be out of the chain already; then the first is what follows.
            let index = log.and_then(|log| state.index_of(log));
            let entry = &mut state.entries[index.map_or(0, |index| index + 1)];
            if let Some(log) = entry.log.clone() {
                entry.enter();
                let backlog = entry.backlog;
                drop(state);
                log.enter()?;
                return Ok(Next { log, backlog });
            }
            (entry.id(), entry.end)
        };
        let end = end.ok_or(io::ErrorKind::InvalidData)?;
        let prepared = self.files.reopen(segment, end);
        let mut state = self.state.lock();
        let mut entries = state.entries.iter_mut();
        let entry = entries.find(|entry| entry.number == segment.number);
        // Nobody else takes out a file that is not drained.
        let entry = entry.ok_or(io::ErrorKind::NotFound)?;
        entry.unopened = prepared.as_ref().err().map(Failure::of);
        let prepared = prepared?;
        let backlog = BacklogRange::in_start(&prepared.start);
        let log = Self::log_of(&self.shared, prepared, self.growth.as_ref(), None);
        log.close_end();
        entry.enter();
        entry.log = Some(Arc::clone(&log));
        drop(state);
        log.enter()?;
        Ok(Next { log, backlog })
    }

    /// The file that holds a position which was handed out and is not acknowledged.
    pub fn log_at(&self, position: u64) -> Option<LogOf<F>> {
        let state = self.state.lock();
        let holds = |entry: &&Entry<F>| entry.start <= position;
        state.entries.iter().rev().find(holds)?.log.clone()
    }

    // === Syncs ===

    /// The files that are open, up to the one that is sent into, oldest first.
    pub(super) fn open_logs(&self) -> Vec<LogOf<F>> {
        let state = self.state.lock();
        let active = state.active();
        let logs = state.entries.iter().take(active + 1);
        logs.filter_map(|entry| entry.log.clone()).collect()
    }

    /// Does something for each of these, until it fails.
    fn for_open_logs(
        &self,
        mut body: impl FnMut(&Log<F::Memory>) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.growth.is_none() {
            return body(&self.first);
        }
        self.open_logs().iter().try_for_each(|log| body(log))
    }

    /// Returns when everything sent before the call is on stable storage, in all files.
    pub fn sync_sent(&self) -> io::Result<()> {
        self.for_open_logs(Log::sync_sent)
    }

    /// Returns when everything acknowledged before the call is, too.
    pub fn sync_progress(&self) -> io::Result<()> {
        self.for_open_logs(Log::sync_progress)
    }

    /// What the timer's thread does when its time has come.
    pub fn on_timer(&self, flags: u32) -> io::Result<()> {
        self.for_open_logs(|log| log.on_timer(flags))
    }

    /// Whether there may be a name that is no file of the chain, and could not be removed.
    pub fn has_stray_name(&self) -> bool {
        self.state.lock().unmade.is_some()
    }

    /// Ends the incarnation in order. Nobody else uses the chain any more.
    pub fn finish(&self) -> io::Result<()> {
        self.shared.check()?;
        let chain = match self.growth {
            Some(_) => self.finish_chain(),
            None => Ok(()),
        };
        self.for_open_logs(Log::finish)?;
        chain?;
        let state = self.state.lock();
        let mut unopened = state.entries.iter().filter_map(|e| e.unopened.as_ref());
        match unopened.next().or(state.displaced.as_ref()) {
            Some(failure) => Err(failure.to_error()),
            None => Ok(()),
        }
    }
}
