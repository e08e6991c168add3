//! Linking the next file: a new one, or the ring again.

use super::chain::{Chain, Entry, LogOf};
use super::files::{Files, Prepared, RestartFailure};
use super::lifecycle::{Event, SegmentState};
use crate::commit::SendFailure;
use crate::commit::housekeeper::TIDY;
use crate::format::frame::{FRAME_HEADER_LEN, PAYLOAD_LEN_MAX, frame_len, payload_len};
use crate::format::{HEADER_LEN, POSITION_MAX};
use crate::planted::planted;
use crate::ring::Layout;
use crate::sync::Arc;
use std::io::{self, IoSlice};

/// What is tried when the name of a file is somebody else's.
const NUMBERS_TRIED: u64 = 1000;

impl<F: Files> Chain<F> {
    /// The largest payload that the channel carries.
    pub(super) fn payload_len_max(&self) -> u64 {
        let ring = self.first().ring().layout().payload_len_max();
        let limit = self.growth.map_or(0, |growth| growth.capacity_limit());
        limit
            .saturating_sub(FRAME_HEADER_LEN)
            .min(PAYLOAD_LEN_MAX)
            .max(ring)
    }

    /// Links a file behind `log`, where a payload has no room, and sends it there: the first place of the
    /// file is claimed before anybody else can find it, so whoever makes a file gets to use it. Returns where
    /// the frame ends. `None`: a file is linked already. `Full`: the limit of the options is reached.
    pub(super) fn grow_and_send(
        &self,
        log: &LogOf<F>,
        payload: &[IoSlice<'_>],
    ) -> Result<Option<u64>, SendFailure> {
        let len = payload_len(payload);
        // Before the claim: whoever waits for a permit keeps no place from being published.
        match log.take_permit() {
            Err(SendFailure::Sealed) => return Ok(None),
            taken => taken?,
        }
        let growing = self.growing.lock();
        let linked = self
            .shared
            .check_open()
            .and_then(|()| self.link_if_last(log, frame_len(len)));
        let next = match linked {
            Ok(Some(next)) => next,
            other => {
                drop(growing);
                log.give_back_permit();
                return other.map(|_| None);
            }
        };
        let claim = match planted!("linked_file_claimed_late", None, next.claim_first(len)) {
            Some(claim) => claim,
            // The file was made for it; what it lacks it lacks for everybody.
            None => {
                log.show_end();
                drop(growing);
                log.give_back_permit();
                return Ok(None);
            }
        };
        log.show_end();
        drop(growing);
        log.seal();
        let end = next.publish_claimed(claim, payload);
        // There is a file to be completed, and one to be made ahead of need.
        self.shared.housekeeper.fence_and_flag(TIDY);
        next.make_durable(end)?;
        Ok(Some(end))
    }

    /// Links a file ahead of need behind `log`, unless that is done.
    fn grow(&self, log: &LogOf<F>) -> Result<(), SendFailure> {
        let growing = self.growing.lock();
        self.shared.check_open()?;
        if self.link_if_last(log, 0)?.is_some() {
            log.show_end();
        }
        drop(growing);
        Ok(())
    }

    /// The same, whether anybody is there to receive or not.
    pub(super) fn link_behind(&self, log: &LogOf<F>) -> Result<(), SendFailure> {
        let growing = self.growing.lock();
        self.shared.check().map_err(SendFailure::Io)?;
        if self.link_if_last(log, 0)?.is_some() {
            log.show_end();
        }
        drop(growing);
        Ok(())
    }

    /// The caller holds `growing`, and shows the end of `log` if a file was linked behind it: nobody finds
    /// that before.
    fn link_if_last(
        &self,
        log: &LogOf<F>,
        frame_len: u64,
    ) -> Result<Option<LogOf<F>>, SendFailure> {
        let is_last = {
            let state = self.state.lock();
            state.index_of(log) == Some(state.entries.len() - 1)
        };
        if !is_last || log.ring().end().is_some() {
            return Ok(None);
        }
        self.link(log, frame_len).map(Some)
    }

    /// Links the next file ahead of need, if the one that is sent into is nearly full. An error is left to
    /// whoever needs it.
    pub(super) fn grow_ahead(&self) {
        let log = self.active();
        let ring = log.ring();
        if !ring.layout().once {
            log.reclaim();
            if ring.tail() - ring.head() < ring.capacity() / 4 * 3 {
                return;
            }
        } else if !log.is_nearly_full() {
            // A sender came first, and this is the file that it made.
            return;
        }
        self.grow(&log).ok();
    }

    /// Returns to the ring, if that is possible now and little is behind.
    pub(super) fn return_to_ring(&self) -> bool {
        let log = self.active();
        let may_return = log.may_return() && log.ring().end().is_some();
        if may_return {
            // The ring comes next, or behind a file that was linked ahead of need and is sealed at once, too.
            log.seal();
        }
        // Where it was not sealed, the channel has failed.
        may_return && log.ring().is_sealed()
    }

    /// The caller holds `growing`; `log` is the last file.
    fn link(&self, log: &LogOf<F>, frame_len: u64) -> Result<LogOf<F>, SendFailure> {
        let end = log.freeze();
        let linked = self.next_file(log, end, frame_len);
        let (number, prepared) = match linked {
            Ok(linked) => linked,
            Err(error) => {
                // Where a name may have stayed, recovery can still take its file for the next one: nothing
                // goes beyond the end that it tells.
                if self.state.lock().unmade.is_none() {
                    log.thaw();
                }
                return Err(error);
            }
        };
        let (start, capacity) = (prepared.start.head, prepared.layout.capacity);
        let once = prepared.layout.once;
        let next = Self::log_of(
            &self.shared,
            prepared,
            self.growth.as_ref(),
            Some(Arc::clone(log)),
        );
        {
            let mut state = self.state.lock();
            if let Some(entry) = state.entries.back_mut() {
                entry.end = Some(end);
                if entry.number == 0 {
                    self.shared.set_ring_is_next(false);
                }
            }
            let mut entry = Entry {
                number,
                made_at: if number > 0 { start } else { 0 },
                start,
                capacity,
                end: once.then_some(start + capacity),
                log: Some(Arc::clone(&next)),
                state: SegmentState::Out,
                unopened: None,
                backlog: None,
            };
            entry.apply(Event::Link);
            state.entries.push_back(entry);
        }
        Ok(next)
    }

    /// The file that comes behind the position `end`.
    fn next_file(
        &self,
        log: &LogOf<F>,
        end: u64,
        frame_len: u64,
    ) -> Result<(u64, Prepared<F::Memory>), SendFailure> {
        let Some(growth) = &self.growth else {
            return Err(SendFailure::Full);
        };
        let behind = |capacity: u64| {
            let start = end.next_multiple_of(capacity);
            if start >= POSITION_MAX - 2 * capacity {
                return Err(SendFailure::Io(io::ErrorKind::StorageFull.into()));
            }
            Ok(start)
        };
        let ring = Layout {
            once: false,
            capacity: growth.ring_capacity,
            ..*log.ring().layout()
        };
        self.unmake()?;
        let ring_is_free = self.state.lock().ring_is_out();
        if ring_is_free && frame_len <= ring.frame_len_max() {
            let start = behind(growth.ring_capacity)?;
            return match self.files.restart(start) {
                Ok(prepared) => Ok((0, prepared)),
                Err(RestartFailure::Untouched(error)) => Err(SendFailure::Io(error)),
                Err(RestartFailure::Unknown(error)) => {
                    self.shared.poison(&error);
                    Err(SendFailure::Io(error))
                }
            };
        }
        let (before, left, mut number) = {
            let state = self.state.lock();
            let before = match log.ring().layout().once {
                true => log.ring().capacity(),
                false => 0,
            };
            let max = growth.bytes_max.unwrap_or(u64::MAX);
            (before, max.saturating_sub(state.bytes), state.next_number)
        };
        let capacity = growth.capacity(before, frame_len, left);
        let capacity = capacity.ok_or(SendFailure::Full)?;
        let start = behind(capacity)?;
        let last = number + NUMBERS_TRIED;
        let prepared = loop {
            match self.files.make(number, start, end, capacity) {
                Ok(prepared) => break prepared,
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    self.state.lock().unmade = Some(number);
                    // If that fails, it is tried again before the next file is made.
                    self.unmake().ok();
                    return Err(SendFailure::Io(error));
                }
                Err(error) if number == last => return Err(SendFailure::Io(error)),
                Err(_) => number += 1,
            }
        };
        let mut state = self.state.lock();
        state.next_number = number + 1;
        state.bytes += HEADER_LEN + capacity;
        drop(state);
        Ok((number, prepared))
    }

    /// Sees to it that nothing is left of a file that could not be made. If its name stayed, a later
    /// incarnation could take it for a part of the chain.
    pub(super) fn unmake(&self) -> Result<(), SendFailure> {
        let unmade = self.state.lock().unmade;
        if let Some(number) = unmade {
            self.files.unmake(number).map_err(SendFailure::Io)?;
            self.state.lock().unmade = None;
        }
        Ok(())
    }
}
