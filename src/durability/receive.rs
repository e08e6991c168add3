//! Receiving, acknowledging, and what comes back.

use super::timer::PROGRESS;
use super::{Log, Mode, POISONED, Received, SENDERS_GONE};
use crate::memory::Memory;
use crate::planted::planted;
use crate::ring::{Reader, Seen};
use crate::sync::Ordering;
use std::cmp::Reverse;
use std::io;

impl<M: Memory> Log<M> {
    pub(crate) fn set_commit_every(&self, count: u64) {
        // [O:settings] Relaxed: a setting; no data hangs on it.
        self.commit_every.store(count.max(1), Ordering::Relaxed);
    }

    /// Reads what may be read now; `None` if there is nothing yet.
    pub(crate) fn try_read(&self, reader: &mut Reader, buffer: &mut Vec<u8>) -> Option<Received> {
        // Before the look at the ring: what the last sender sent is then in it.
        let ended = self.has_status(POISONED | SENDERS_GONE);
        let poisoned = ended && self.has_status(POISONED);
        // What a power cut could unsend is not shown; of a channel that failed, only what is durable.
        let durable_only = (self.mode == Mode::PerSend || poisoned) && !planted!("unsynced_shown");
        let visible = if durable_only {
            self.commit()
        } else {
            u64::MAX
        };
        match self.ring.read(reader, visible, buffer) {
            Seen::Message(frame) => Some(Received::Message(frame)),
            Seen::Foreign { position } => Some(self.foreign(position)),
            Seen::Nothing if !ended => None,
            Seen::Nothing => Some(match self.check() {
                Err(error) => Received::Failed(error),
                // What came back before the last sender left: the caller may have looked too early.
                Ok(()) => self.read_returned(buffer).unwrap_or(Received::Disconnected),
            }),
        }
    }

    /// A frame of this life is not what was written. The channel ends here; recovery knows what to do
    /// with the file.
    pub(super) fn foreign(&self, position: u64) -> Received {
        let text = format!("the frame at position {position} was changed from outside the channel");
        self.poison(&io::Error::new(io::ErrorKind::InvalidData, text));
        match self.check() {
            Err(error) => Received::Failed(error),
            Ok(()) => Received::Disconnected,
        }
    }

    /// Reads a message that came back, lowest position first; `None` if there is none.
    pub(crate) fn read_returned(&self, buffer: &mut Vec<u8>) -> Option<Received> {
        // [O:returned] Relaxed: a hint, ordered by the fences where somebody sleeps (E8) and by the status where
        // somebody left (E10); the lock hands the positions over (E12).
        if self.returned_count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let position = {
            let mut returned = self.returned.lock();
            let Reverse(position) = returned.pop()?;
            // [O:returned] Relaxed: written under the lock only.
            self.returned_count
                .store(returned.len() as u32, Ordering::Relaxed);
            position
        };
        match self.ring.read_again(position, buffer) {
            Seen::Message(frame) => Some(Received::Message(frame)),
            _ => Some(self.foreign(position)),
        }
    }

    /// A message that was handed out comes back.
    pub(crate) fn give_back(&self, position: u64) {
        {
            let mut returned = self.returned.lock();
            returned.push(Reverse(position));
            // [O:returned] Relaxed: written under the lock only.
            self.returned_count
                .store(returned.len() as u32, Ordering::Relaxed);
        }
        if !planted!("returned_wakes_nobody") {
            self.ring.readable.notify();
        }
    }

    /// Acknowledges a message, once. Never waits for the disk.
    pub(crate) fn acknowledge(&self, position: u64) {
        let count = self.ring.acknowledge(position);
        if self.is_synced_mode() {
            self.acknowledged_synced(count);
        } else {
            self.acknowledged_flushed(position);
        }
    }

    fn acknowledged_synced(&self, count: u64) {
        // [O:settings] Relaxed: a setting; no data hangs on it.
        let every = self.commit_every.load(Ordering::Relaxed);
        let due = every == 1 || count.is_multiple_of(every);
        if due {
            self.ring.advance();
        }
        if !planted!("ack_wakes_nobody") {
            self.ring.room.notify();
        }
        if due {
            self.timer.flag(PROGRESS);
        } else {
            self.timer.flag_if_delayed(PROGRESS);
        }
    }

    /// Without syncs nobody can tell when the head moves, but for a sender without room, who moves it, and a
    /// checkpoint, which waits for a quarter of the ring.
    fn acknowledged_flushed(&self, position: u64) {
        if self.is_quarter_behind(position) {
            self.ring.advance();
            self.flush_quarter();
        }
        if !planted!("ack_wakes_nobody") {
            self.ring.room.notify();
        }
        self.timer.flag_if_delayed(PROGRESS);
    }

    /// Gives up the damage at `[position, end)`: the head may pass it.
    pub(crate) fn settle(&self, position: u64, end: u64) {
        self.ring.settle(position, end);
        self.ring.advance();
        self.ring.room.notify();
        if self.is_synced_mode() {
            self.timer.flag(PROGRESS);
        }
    }
}
