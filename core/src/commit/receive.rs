//! Receiving, acknowledging, and what comes back.

use super::log::Log;
use super::shared::{POISONED, SENDERS_GONE};
use crate::planted::planted;
use crate::ring::{Frame, Reader, Received};
use crate::storage::Memory;
use crate::sync::{Fences, Ordering, weaken_fence};
use std::io;

impl<M: Memory> Log<M> {
    /// Takes the next message, if it is there and was never handed out. Not under `PerSend`, where a message
    /// is shown when it is durable. `None`: look with [`Log::read`].
    #[inline(always)]
    pub fn read_fresh(&self, reader: &mut Reader, buffer: &mut Vec<u8>) -> Option<Frame> {
        if self.shared.has_returned() || self.has_status(POISONED) {
            return None;
        }
        self.ring.read_fresh(reader, buffer)
    }

    /// Reads what may be read now.
    pub fn read(&self, reader: &mut Reader, buffer: &mut Vec<u8>) -> Received {
        // Before the look at the ring: what the last sender sent is then in it.
        let ended = self.has_status(POISONED | SENDERS_GONE);
        let poisoned = ended && self.has_status(POISONED);
        // What a power cut could unsend is not shown; of a channel that failed, only what is durable.
        let durable_only = (self.is_per_send() || poisoned) && !planted!("unsynced_shown");
        let visible = if durable_only {
            self.commit()
        } else {
            u64::MAX
        };
        match self.ring.read(reader, visible, buffer) {
            // A drained file may be gone already; all of it was read, but for the padding that sealed it.
            Received::Empty if self.is_drained() => Received::End,
            Received::Damage { .. } if self.is_drained_now() => Received::End,
            Received::Damage { place, .. } => self.poison_changed_frame(place.position),
            Received::Empty if self.ring.end() == Some(reader.cursor()) => Received::End,
            // The housekeeper seals it, and has not published that yet: the last message may be in the next
            // file.
            Received::Empty if !poisoned && self.is_being_sealed() => Received::Empty,
            Received::Empty if ended => self.ended(),
            received => received,
        }
    }

    /// Nothing more is claimed in it, and its end is not published yet.
    fn is_being_sealed(&self) -> bool {
        planted!(
            "padding_in_the_making_is_the_end",
            false,
            self.ring.is_sealed()
        )
    }

    /// What there is to receive from a channel that has ended.
    fn ended(&self) -> Received {
        match self.shared.check() {
            Err(error) => Received::Failed(error),
            Ok(()) => Received::Disconnected,
        }
    }

    /// Whether the file is drained, for a reader that found half of a frame.
    #[cold]
    fn is_drained_now(&self) -> bool {
        // [O:foreign_fence] SeqCst: E16, pairs with the removal of the file, which no thread's look at its
        // words outlives; the head was at the end before that.
        weaken_fence!("foreign_fence", Fences::Symmetric.light());
        self.is_drained()
    }

    /// A frame of this incarnation is not what was written. The channel ends here; recovery knows what to do
    /// with the file.
    fn poison_changed_frame(&self, position: u64) -> Received {
        let text = format!("the frame at position {position} was changed from outside the channel");
        self.shared
            .poison(&io::Error::new(io::ErrorKind::InvalidData, text));
        self.ended()
    }

    /// Reads a message of this file that came back.
    pub fn read_again(&self, position: u64, buffer: &mut Vec<u8>) -> Received {
        match self.ring.read_again(position, buffer) {
            Received::Damage { place, .. } => self.poison_changed_frame(place.position),
            received => received,
        }
    }

    /// Acknowledges a message, once. Waits for no sync. Of this incarnation, without syncs, and if nobody
    /// else acknowledges, which is nearly always so, in one piece that calls nothing.
    #[inline(always)]
    pub fn acknowledge(&self, position: u64) {
        if self.is_synced_mode() || !self.ring.mark_acknowledged_fresh(position) {
            return self.acknowledge_otherwise(position);
        }
        if !self.ring.count_acknowledged_alone() {
            return self.count_acknowledged(position);
        }
        // [O:drain_fence] SeqCst: E8, pairs with [O:timer_fence]; the acknowledgement before it, the looks at
        // the end of the file and for the ring behind. Asymmetric, as where there is a bias.
        weaken_fence!("drain_fence", Fences::Asymmetric.light());
        if self.is_quarter_behind(position)
            || self.ring.end().is_some()
            || self.return_at > 0
            || self.shared.timer.commit_delay().is_some()
            || self.shared.events.room.is_awaited(Fences::Asymmetric)
        {
            self.acknowledged_flushed(position);
        }
    }

    #[inline(never)]
    fn acknowledge_otherwise(&self, position: u64) {
        self.ring.mark_acknowledged(position);
        self.count_acknowledged(position);
    }

    #[inline(never)]
    fn count_acknowledged(&self, position: u64) {
        let count = match self.ring.count_acknowledged() {
            Ok(count) => count,
            // The message is acknowledged in the file all the same.
            Err(refused) => return self.shared.poison(&refused.into()),
        };
        if self.ahead > 0 {
            // [O:drain_fence] SeqCst: E8, as above.
            weaken_fence!("drain_fence", self.shared.timer.fences.light());
        }
        if self.is_synced_mode() {
            self.acknowledged_synced(count);
        } else {
            self.acknowledged_flushed(position);
        }
    }

    #[inline(never)]
    fn acknowledged_synced(&self, count: u64) {
        // [O:settings] Relaxed: a setting; no data hangs on it.
        let every = self.shared.commit_every.load(Ordering::Relaxed);
        let due = every == 1 || count.is_multiple_of(every) || self.may_be_drained();
        if due {
            self.advance();
        }
        if !planted!("ack_wakes_nobody") {
            self.shared.events.room.notify();
        }
        if due {
            self.flag_progress();
        } else {
            self.flag_progress_if_delayed();
        }
    }

    /// Without syncs nobody can tell when the head moves, but for a sender without room, who moves it, and a
    /// checkpoint, which waits for a quarter of the ring.
    #[inline(never)]
    fn acknowledged_flushed(&self, position: u64) {
        if self.is_quarter_behind(position) {
            self.advance();
            self.flush_quarter();
        } else if self.may_be_drained() {
            self.advance();
        }
        if !planted!("ack_wakes_nobody") {
            self.shared.events.room.notify();
        }
        self.flag_progress_if_delayed();
    }

    /// Nothing is left in a file that may be drained by it, or in which the channel may return to its ring.
    #[inline]
    fn may_be_drained(&self) -> bool {
        let matters = self.ring.end().is_some() || self.return_at > 0 && self.shared.ring_is_next();
        matters && self.ring.unacknowledged() == 0
    }

    /// Gives up the damage at `[position, end)`: the head may pass it.
    pub fn release_damage(&self, position: u64, end: u64) {
        self.ring.release_damage(position, end);
        self.advance();
        self.shared.events.room.notify();
        if self.is_synced_mode() {
            self.flag_progress();
        }
    }
}
