//! Sending: room, permits, and how long a send waits.

use super::timer::{HURRY, PROGRESS, SENT};
use super::{Goal, Log, Mode, SendFailure, Wait};
use crate::format::POSITION_MAX;
use crate::format::frame::payload_crc;
use crate::memory::Memory;
use crate::planted::planted;
use crate::ring::{Claim, NoRoom};
use crate::sync::Ordering;
use std::io;

impl<M: Memory> Log<M> {
    /// Sends a payload: claims, writes, publishes, and makes it as durable as the mode promises.
    /// Returns its position.
    pub(crate) fn send(&self, payload: &[u8], wait: Wait) -> Result<u64, SendFailure> {
        let (len, max) = (payload.len() as u64, self.ring.layout().payload_len_max());
        if len > max {
            return Err(SendFailure::TooLarge { len, max });
        }
        self.check_open()?;
        let crc = payload_crc(payload);
        let claim = self.claim(len, wait)?;
        let (position, end) = (claim.position(), claim.end());
        claim.publish(payload, crc);
        self.ring.announce(self.mode != Mode::PerSend);
        match self.mode {
            Mode::PerSend => self
                .drive(Goal::Commit(end))
                .map_err(SendFailure::Unsynced)?,
            Mode::FlushOnly => {}
            Mode::Every { max_ops, .. } => {
                // [O:unsynced] Relaxed: a count that the compare-exchange in `take_permit` bounds.
                let unsynced = self.unsynced.load(Ordering::Relaxed);
                let hurry = if unsynced * 2 >= max_ops { HURRY } else { 0 };
                self.timer.flag(SENT | hurry);
            }
        }
        Ok(position)
    }

    pub(super) fn claim(&self, len: u64, wait: Wait) -> Result<Claim<'_, M>, SendFailure> {
        let attempt = || self.try_claim(len).transpose();
        match (attempt(), wait) {
            (Some(outcome), _) => outcome,
            (None, Wait::No) => Err(SendFailure::Full),
            (None, Wait::Until(deadline)) => self
                .ring
                .room
                .wait(deadline, attempt)
                .unwrap_or(Err(SendFailure::Full)),
        }
    }

    /// `None` while there is no room.
    pub(super) fn try_claim(&self, len: u64) -> Result<Option<Claim<'_, M>>, SendFailure> {
        loop {
            self.check_open()?;
            self.take_permit().map_err(SendFailure::Io)?;
            let needed = match self.ring.claim(len) {
                Ok(claim) => return Ok(Some(claim)),
                Err(NoRoom::Bound) => None,
                Err(NoRoom::Space { needed }) => Some(needed),
            };
            // Whoever waits for room holds no permit: those who hold one publish soon.
            self.give_back_permit();
            let Some(needed) = needed else {
                return Ok(None);
            };
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
        if self.ring.advance() {
            self.ring.room.notify();
            // On behalf of an acknowledger that found us at it, and of a timer that came too early.
            if self.is_synced_mode() {
                self.timer.flag(PROGRESS);
            }
        }
        if self.ring.limit() < needed && self.ring.head() + self.ring.capacity() >= needed {
            if self.is_synced_mode() {
                self.drive(Goal::Room(needed))?;
            } else {
                self.flush_room()?;
            }
        }
        Ok(self.ring.limit() >= needed)
    }

    /// `Every`: one more send may return before it is synced. Waits for the disk while there are
    /// too many.
    pub(super) fn take_permit(&self) -> io::Result<()> {
        let Mode::Every { max_ops, .. } = self.mode else {
            return Ok(());
        };
        loop {
            // [O:unsynced] Relaxed, all: a count; what the sync covered is E9.
            let unsynced = self.unsynced.load(Ordering::Relaxed);
            if unsynced >= max_ops && !planted!("permits_ignored") {
                self.drive(Goal::Permit(max_ops))?;
                continue;
            }
            // [O:unsynced] Relaxed, both: as above.
            let taken = self.unsynced.compare_exchange_weak(
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

    pub(super) fn give_back_permit(&self) {
        if let Mode::Every { .. } = self.mode {
            // [O:unsynced] Relaxed: as above; the notifications fence.
            self.unsynced.fetch_sub(1, Ordering::Relaxed);
            self.ring.published.notify();
            self.synced.notify();
        }
    }
}
