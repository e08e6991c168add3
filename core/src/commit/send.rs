//! Sending: room, permits, and how long a send waits.

use super::log::{Goal, Log};
use super::mode::{Mode, SendFailure, Wait};
use super::shared::{POISONED, RECEIVER_GONE};
use super::timer::{HURRY, SENT};
use crate::format::POSITION_MAX;
use crate::format::frame::{payload_crc, payload_len};
use crate::planted::planted;
use crate::ring::{Claim, NoRoom, Room};
use crate::storage::Memory;
use crate::sync::pacing::room_backoff;
use crate::sync::{Ordering, Refused};
use std::io::{self, IoSlice};
use std::time::Instant;

impl Wait {
    /// What a first look for room asks for.
    #[inline]
    fn room(self) -> Room {
        match self {
            Wait::No => Room::Any,
            Wait::Until(_) => Room::Batch,
        }
    }
}

impl<M: Memory> Log<M> {
    /// `FlushOnly`: claims, writes and publishes, if there is room at once. Returns where the frame ends.
    /// `None`: nothing was sent; [`Log::publish`] tells why not.
    #[inline(always)]
    pub fn publish_at_once(&self, payload: &[IoSlice<'_>], wait: Wait) -> Option<u64> {
        let len = payload_len(payload);
        if !self.ring.fits(len) || self.has_status(POISONED | RECEIVER_GONE) {
            return None;
        }
        self.ring.prefetch_claim(len);
        let crc = payload_crc(payload);
        let claim = self.ring.claim(len, wait.room()).ok()?;
        let marker = planted!(
            "commit_marked_without_syncs",
            self.is_commit_marker(&claim),
            false
        );
        Some(self.write(claim, payload, crc, marker, true))
    }

    /// Claims, writes and publishes; waits for room as `wait` says. Returns where the frame ends.
    pub fn publish(&self, payload: &[IoSlice<'_>], wait: Wait) -> Result<u64, SendFailure> {
        let (len, max) = (payload_len(payload), self.ring.layout().payload_len_max());
        if len > max {
            return Err(SendFailure::TooLarge { len, max });
        }
        self.shared.check_open()?;
        let crc = payload_crc(payload);
        let claim = match self.try_claim(len, wait.room())? {
            Some(claim) => claim,
            None => self.wait_and_claim(len, wait)?,
        };
        let (marker, readable) = (self.is_commit_marker(&claim), !self.is_per_send());
        Ok(self.write(claim, payload, crc, marker, readable))
    }

    /// Claims the first place of a file that nobody else can find yet; `None` if it does not fit. The caller
    /// holds a permit.
    pub fn claim_first(&self, len: u64) -> Option<Claim<'_, M>> {
        self.ring.claim(len, Room::Any).ok()
    }

    /// Writes and publishes [`Log::claim_first`]. Returns where the frame ends.
    pub fn publish_claimed(&self, claim: Claim<'_, M>, payload: &[IoSlice<'_>]) -> u64 {
        let crc = payload_crc(payload);
        let (marker, readable) = (self.is_commit_marker(&claim), !self.is_per_send());
        self.write(claim, payload, crc, marker, readable)
    }

    /// Writes and publishes a claim. Returns where the frame ends. `readable`: the receiver may look at it
    /// already.
    #[inline(always)]
    fn write(
        &self,
        claim: Claim<'_, M>,
        payload: &[IoSlice<'_>],
        crc: u32,
        marker: bool,
        readable: bool,
    ) -> u64 {
        let end = claim.end();
        claim.publish(payload, crc, marker);
        self.ring.announce(readable);
        if self.ahead > 0 {
            self.notify_housekeeper(end);
        }
        end
    }

    /// Makes what was published up to `end` as durable as the mode promises.
    pub fn make_durable(&self, end: u64) -> Result<(), SendFailure> {
        match self.mode {
            Mode::PerSend => self
                .reach(Goal::Commit(end))
                .map_err(SendFailure::Unsynced)?,
            Mode::FlushOnly => {}
            Mode::Every { max_ops, .. } => {
                // [O:unsynced] Relaxed: a count that the compare-exchange in `take_permit` bounds.
                let unsynced = self.shared.unsynced.load(Ordering::Relaxed);
                let hurry = if unsynced * 2 >= max_ops { HURRY } else { 0 };
                self.shared.timer.flag(SENT | hurry);
            }
        }
        Ok(())
    }

    #[cold]
    fn wait_and_claim(&self, len: u64, wait: Wait) -> Result<Claim<'_, M>, SendFailure> {
        let Wait::Until(deadline) = wait else {
            return Err(SendFailure::Full);
        };
        let attempt = |room| self.try_claim(len, room).transpose();
        // The receiver gets some way ahead. But nobody sleeps while there is any room.
        for () in room_backoff(self.ring.is_large()) {
            if let Some(outcome) = attempt(Room::Batch) {
                return outcome;
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                break;
            }
        }
        self.shared
            .events
            .room
            .wait(deadline, || attempt(Room::Any))
            .unwrap_or(Err(SendFailure::Full))
    }

    /// Claims room for a payload of `len` bytes; `None` while there is none.
    pub fn try_claim(&self, len: u64, room: Room) -> Result<Option<Claim<'_, M>>, SendFailure> {
        loop {
            self.shared.check_open()?;
            self.take_permit()?;
            let needed = match self.ring.claim(len, room) {
                Ok(claim) => return Ok(Some(claim)),
                Err(NoRoom::Bound) => None,
                Err(NoRoom::Space { needed }) => Some(needed),
                Err(NoRoom::Sealed) => {
                    self.give_back_permit();
                    return Err(SendFailure::Sealed);
                }
                Err(NoRoom::Refused) => {
                    self.give_back_permit();
                    self.shared.poison(&Refused.into());
                    return Err(SendFailure::Io(Refused.into()));
                }
            };
            // Whoever waits for room holds no permit: those who hold one publish soon.
            self.give_back_permit();
            let Some(needed) = needed else {
                return Ok(None);
            };
            if room == Room::Batch && !self.ring.gains_batch() {
                return Ok(None);
            }
            if !self.make_room(needed).map_err(SendFailure::Io)? {
                return Ok(None);
            }
        }
    }

    /// Does whatever raises the limit to `needed`, if the acknowledgements allow that.
    pub(super) fn make_room(&self, needed: u64) -> io::Result<bool> {
        if needed >= POSITION_MAX {
            // Claims end there for ever: after 512 PiB, or where a forged header says so.
            return Err(io::ErrorKind::StorageFull.into());
        }
        if self.pages.lock().frozen {
            return Ok(false);
        }
        if self.advance() {
            self.shared.events.room.notify();
            // On behalf of an acknowledger that found us at it, and of a timer that came too early.
            if self.is_synced_mode() {
                self.flag_progress();
            }
        }
        if self.ring.limit() < needed && self.ring.head() + self.ring.capacity() >= needed {
            if self.is_synced_mode() {
                self.reach(Goal::Room(needed))?;
            } else {
                self.flush_room()?;
            }
        }
        Ok(self.ring.limit() >= needed)
    }

    /// `Every`: one more send may return before it is synced. Waits for the disk while there are
    /// too many.
    #[inline]
    pub fn take_permit(&self) -> Result<(), SendFailure> {
        let Mode::Every { max_ops, .. } = self.mode else {
            return Ok(());
        };
        loop {
            // [O:unsynced] Relaxed, all: a count; what the sync covered is E9.
            let unsynced = self.shared.unsynced.load(Ordering::Relaxed);
            if unsynced >= max_ops && !planted!("permits_ignored") {
                if self.ring.is_sealed() {
                    return Err(SendFailure::Sealed);
                }
                self.reach(Goal::Permit(max_ops)).map_err(SendFailure::Io)?;
                continue;
            }
            // [O:unsynced] Relaxed, both: as above.
            let taken = self.shared.unsynced.compare_exchange_weak(
                unsynced,
                unsynced + 1,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            if taken.is_ok() {
                return Ok(());
            }
        }
    }

    /// `Every`: takes [`Log::take_permit`] back: nothing was sent.
    pub fn give_back_permit(&self) {
        if let Mode::Every { .. } = self.mode {
            // [O:unsynced] Relaxed: as above; the notifications fence.
            self.shared.unsynced.fetch_sub(1, Ordering::Relaxed);
            self.shared.events.published.notify();
            self.shared.events.synced.notify();
        }
    }
}
