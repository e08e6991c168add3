//! Linking the next file: a new one, or the ring again.

use super::chain::{Chain, Entry};
use super::files::{Files, Prepared};
use super::lifecycle::{Event, SegmentState};
use crate::commit::{Log, SendFailure};
use crate::format::frame::{FRAME_HEADER_LEN, PAYLOAD_LEN_MAX};
use crate::format::{HEADER_LEN, POSITION_MAX};
use crate::ring::Layout;
use crate::sync::Arc;
use std::io;

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

    /// Links a file behind `log`, where a frame of this length has no room, unless that is done. `Full`: the
    /// limit of the options is reached.
    pub(super) fn grow(
        &self,
        log: &Arc<Log<F::Memory>>,
        frame_len: u64,
    ) -> Result<(), SendFailure> {
        let growing = self.growing.lock();
        self.shared.check_open()?;
        self.link_if_last(log, frame_len)?;
        drop(growing);
        Ok(())
    }

    /// The same, whether anybody is there to receive or not.
    pub(super) fn link_behind(
        &self,
        log: &Arc<Log<F::Memory>>,
        frame_len: u64,
    ) -> Result<(), SendFailure> {
        let growing = self.growing.lock();
        self.shared.check().map_err(SendFailure::Io)?;
        self.link_if_last(log, frame_len)?;
        drop(growing);
        Ok(())
    }

    /// The caller holds `growing`.
    fn link_if_last(&self, log: &Arc<Log<F::Memory>>, frame_len: u64) -> Result<(), SendFailure> {
        let is_last = {
            let state = self.state.lock();
            state.index_of(log) == Some(state.entries.len() - 1)
        };
        if is_last && log.ring().end().is_none() {
            self.link(log, frame_len)?;
        }
        Ok(())
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
        self.grow(&log, 0).ok();
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
    fn link(&self, log: &Arc<Log<F::Memory>>, frame_len: u64) -> Result<(), SendFailure> {
        let end = log.freeze();
        let linked = self.next_file(log, end, frame_len);
        let (number, prepared) = match linked {
            Ok(linked) => linked,
            Err(error) => {
                // Where a name may have stayed, recovery can still take its file for the next one: nothing
                // goes beyond the end that it tells.
                if self.state.lock().broken.is_none() {
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
                start,
                capacity,
                end: once.then_some(start + capacity),
                log: Some(next),
                state: SegmentState::Out,
                unopened: None,
                backlog: None,
            };
            entry.apply(Event::Link);
            state.entries.push_back(entry);
        }
        // C1: behind it.
        log.show_end();
        Ok(())
    }

    /// The file that comes behind the position `end`.
    fn next_file(
        &self,
        log: &Arc<Log<F::Memory>>,
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
        let ring_is_free = {
            let state = self.state.lock();
            if let Some((code, kind)) = state.broken {
                let error = code.map_or_else(|| kind.into(), io::Error::from_raw_os_error);
                return Err(SendFailure::Io(error));
            }
            state.ring_is_out()
        };
        if ring_is_free && frame_len <= ring.frame_len_max() {
            let start = behind(growth.ring_capacity)?;
            let prepared = self.files.restart(start).inspect_err(|error| {
                // What the ring's header is on the disk, nobody knows now.
                self.shared.poison(error);
            });
            let prepared = prepared.map_err(SendFailure::Io)?;
            return Ok((0, prepared));
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
                    return Err(self.not_made(number, error));
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

    /// A file could not be made. If its name is there and stays, a later incarnation could take it for a part
    /// of the chain.
    fn not_made(&self, number: u64, error: io::Error) -> SendFailure {
        let gone = self.files.unmake(number);
        if gone.is_err() {
            self.state.lock().broken = Some((error.raw_os_error(), error.kind()));
        }
        SendFailure::Io(error)
    }
}
