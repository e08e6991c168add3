//! Acknowledgement, and the head that moves behind it.

use super::state::Ring;
use crate::format::frame::{self, Kind, State, Word1};
use crate::planted::planted;
use crate::storage::Memory;
use crate::sync::{Ordering, Refused, weaken};

impl<M: Memory> Ring<M> {
    /// Marks the message at `position` as acknowledged, once, by whoever holds it. From any thread, in any
    /// order. The head does not move yet. Its count follows.
    pub fn mark_acknowledged(&self, position: u64) {
        self.store_acknowledged(position, self.salt_at(position));
    }

    /// The same for a message of this incarnation. `false`: it is none, and nothing was done.
    #[inline(always)]
    pub fn mark_acknowledged_fresh(&self, position: u64) -> bool {
        let is_fresh = position >= self.incarnation.start;
        if is_fresh {
            self.store_acknowledged(position, self.incarnation.salt);
        }
        is_fresh
    }

    #[inline(always)]
    fn store_acknowledged(&self, position: u64, salt: u64) {
        // [O:acknowledge] Release: E2, pairs with [O:walk]; what the holder read happens before the reuse.
        self.memory.store(
            self.layout.word(position),
            frame::word0(position, salt, State::Acknowledged),
            weaken!("acknowledge", Ordering::Release),
        );
    }

    /// Counts it. Returns how many have been acknowledged in this incarnation.
    ///
    /// # Errors
    ///
    /// As [`Bias::share`](crate::sync::bias::Bias::share): it is not counted.
    pub fn count_acknowledged(&self) -> Result<u64, Refused> {
        // [O:acknowledged] Release: E15, pairs with [O:acknowledged_read]; what it counts is before it.
        let release = weaken!("acknowledged", Ordering::Release);
        let line = &self.acknowledger;
        Ok(line.bias.add(&line.acknowledged, 1, release)? + 1)
    }

    /// The same by the thread that has the bias. `false`: it is another one, and nothing was done.
    #[inline(always)]
    pub fn count_acknowledged_alone(&self) -> bool {
        let Some(alone) = self.acknowledger.bias.enter_again() else {
            return false;
        };
        // [O:acknowledged] Release: E15, as above.
        let release = weaken!("acknowledged", Ordering::Release);
        alone.add(&self.acknowledger.acknowledged, 1, release);
        true
    }

    /// Writes an acknowledged filler over `[position, end)`, which lies in one incarnation and does not cross
    /// the end of the ring: damage that was acknowledged. The head may pass it then.
    pub fn release_damage(&self, position: u64, end: u64) {
        // The holder of the damage owns its words (R3): nobody reads them before the barrier is gone (E7).
        self.publish_filler(Kind::Abandoned, position, end - position);
        self.let_pass(position);
    }

    /// Moves the head over the acknowledged prefix; tells whether it moved. If another thread is at it,
    /// that one does it for us.
    pub fn advance(&self) -> bool {
        // [O:advance_enter] AcqRel: E6. Release: our acknowledgement is before it, for the holder that sees
        // this count; Acquire: the head that the last holder left.
        let entered = weaken!("advance_enter", Ordering::AcqRel);
        if self.acknowledger.advancers.fetch_add(1, entered) != 0 {
            return false;
        }
        let (mut seen, mut moved) = (1, false);
        loop {
            moved |= self.walk();
            if planted!("advance_not_handed_over") {
                // [O:none] The planted bug.
                self.acknowledger.advancers.store(0, Ordering::Release);
                return moved;
            }
            // [O:advance_leave] Release, on success: E6, pairs with [O:advance_enter]; the head for the next.
            let left = weaken!("advance_leave", Ordering::Release);
            // [O:advance_came] Acquire, on failure: E6, pairs with [O:advance_enter]; the acknowledgements of
            // those who came meanwhile.
            let came = weaken!("advance_came", Ordering::Acquire);
            match self
                .acknowledger
                .advancers
                .compare_exchange(seen, 0, left, came)
            {
                Ok(_) => return moved,
                Err(now) => seen = now,
            }
        }
    }

    fn walk(&self) -> bool {
        // [O:head_own] Relaxed: only the holder of `advancers` writes it (E6).
        let from = self.acknowledger.head.load(Ordering::Relaxed);
        // [O:cursor_walk] Acquire: E2, pairs with [O:cursor]; before it every frame is published and was
        // checked by the receiver, so its length can be trusted.
        let cursor = self
            .receiver
            .cursor
            .load(weaken!("cursor_walk", Ordering::Acquire));
        // [O:barrier_walk] Acquire: E7, pairs with [O:barrier].
        let barrier = self
            .barrier
            .load(weaken!("barrier_walk", Ordering::Acquire));
        let stop = cursor.min(barrier);
        // [O:acknowledged_to_walk] Acquire: E2, pairs with [O:acknowledged_to]; what was read before it
        // happens before the reuse.
        let acknowledged_to = self
            .receiver
            .acknowledged_to
            .load(weaken!("acknowledged_to_walk", Ordering::Acquire));
        let mut head = from.max(acknowledged_to.min(stop));
        while head < stop {
            let word = self.layout.word(head);
            // [O:walk] Acquire: E2, pairs with [O:acknowledge].
            let word0 = self.memory.load(word, weaken!("walk", Ordering::Acquire));
            if frame::state_of(word0) != Some(State::Acknowledged)
                && !planted!("head_over_unacknowledged")
            {
                break;
            }
            let Some((word1, _)) = self.read_published(head, word, None) else {
                break;
            };
            head += word1.frame_len();
        }
        if head == cursor && self.layout.once {
            head = self.over_the_seal(head);
        }
        if head > from {
            // [O:head] Release: E3, pairs with [O:head_read].
            self.acknowledger
                .head
                .store(head, weaken!("head", Ordering::Release));
        }
        head > from
    }

    /// The end of the file, if nothing but the padding that sealed it lies between `head` and that; else
    /// `head`.
    ///
    /// The receiver may be slow to pass it. A file that is filled once is not reused, so nobody waits for
    /// that: whoever is left in a drained file goes on to the next.
    fn over_the_seal(&self, head: u64) -> u64 {
        let Some(end) = self.end() else { return head };
        let mut at = head;
        while at < end {
            // Of what an earlier incarnation left nothing was checked yet: rot must not look like padding.
            match self.published_at(at) {
                Some(word1) if self.is_padding(at, word1) => at += word1.frame_len(),
                _ => return head,
            }
        }
        at
    }

    fn is_padding(&self, position: u64, word1: Word1) -> bool {
        let salt = self.salt_at(position);
        word1.kind() == Kind::Padding && word1.matches(position, salt, 0)
    }
}
