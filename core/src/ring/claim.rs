//! Producers: claim, write, publish or abandon.

use super::state::{LINE_LEN, LINE_WORDS, Ring};
use crate::format::frame::{self, Kind, State, Word1, frame_len, payload_crc, payload_len};
use crate::planted::planted;
use crate::storage::stage::STAGED_LEN_MAX;
use crate::storage::{Memory, WORD_LEN};
use crate::sync::bias::Exclusive;
use crate::sync::pacing::Batch;
use crate::sync::{AtomicU64, Ordering, Refused, weaken, weaken_fence};
use std::io::IoSlice;
use std::mem::ManuallyDrop;

/// How many lines are fetched for a claim to come, at most: as many as a frame of a page may touch.
const CLAIMED_LINES_MAX: u64 = 65;

/// Why nothing could be claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// As many messages as the bound allows are unacknowledged.
    Bound,
    /// The frame ends beyond the limit: `needed` is where.
    Space {
        /// Where it ends.
        needed: u64,
    },
    /// There is another file behind this one, which is sealed now.
    Sealed,
    /// Another thread has the claims to itself, and it cannot be made to share them.
    Refused,
}

impl From<Refused> for NoRoom {
    fn from(_: Refused) -> Self {
        NoRoom::Refused
    }
}

/// How much room is worth taking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Any that there is.
    Any,
    /// Where there was none at the last look, only a good part of all, for many claims. Of a small bound that
    /// is a single one.
    Batch,
}

/// Puts `to` in the place of `from`, which may have been changed by others, unless we are alone with it. An
/// error is what is there.
#[inline(always)]
fn change(
    number: &AtomicU64,
    from: u64,
    to: u64,
    alone: Option<&Exclusive<'_>>,
) -> Result<(), u64> {
    if alone.is_some() {
        // [O:front] Relaxed: as below; only we change it now.
        number.store(to, Ordering::Relaxed);
        return Ok(());
    }
    // [O:front] Relaxed, both: the tail shares out words (R2), what was in them is ordered by E4, and what we
    // put there by E1; the other is a count.
    number
        .compare_exchange_weak(from, to, Ordering::Relaxed, Ordering::Relaxed)
        .map(drop)
}

/// Out of line, so that its callers need not keep the number in memory.
#[cold]
#[inline(never)]
fn never_fits(size: u64) -> ! {
    panic!("a frame of {size} bytes never fits");
}

/// The claim is abandoned.
#[cold]
#[inline(never)]
fn another_payload<M: Memory>(_claim: Claim<'_, M>) -> ! {
    panic!("a claim is for one payload");
}

/// Words that belong to one producer, until it publishes. Dropped before, the claim is abandoned:
/// readers step over it.
#[derive(Debug)]
pub struct Claim<'a, M: Memory> {
    ring: &'a Ring<M>,
    /// Where the claim begins: at the padding, if it has one.
    start: u64,
    /// Where the frame begins.
    position: u64,
    len: u32,
}

impl<M: Memory> Ring<M> {
    /// Fetches the lines that a payload of `len` bytes will be stored in, if nobody else claims them before,
    /// while its checksum is made. For small ones, which are staged if they are values
    /// ([`stage`](crate::storage::stage)), that is more than it saves.
    #[inline(always)]
    pub fn prefetch_claim(&self, len: u64) {
        if len > STAGED_LEN_MAX {
            self.fetch_lines(len);
        }
    }

    #[inline(never)]
    fn fetch_lines(&self, len: u64) {
        // [O:tail_read] Relaxed: a guess.
        let tail = self.producer.tail.load(Ordering::Relaxed);
        let word = self.layout.word(tail);
        for line in 0..(len / LINE_LEN + 1).min(CLAIMED_LINES_MAX) {
            self.memory.prefetch_store(word + line * LINE_WORDS);
        }
    }

    /// Claims room for a payload of `len` bytes, which is no more than the layout allows.
    #[inline(always)]
    pub fn claim(&self, len: u64, room: Room) -> Result<Claim<'_, M>, NoRoom> {
        let size = frame_len(len);
        if size > self.frame_len_max {
            never_fits(size);
        }
        let alone = self.producer.bias.enter()?;
        let mut admitted = false;
        // [O:tail_read] Relaxed: the compare-exchange tells whether it is still true; or nobody else changes
        // it.
        let mut tail = self.producer.tail.load(Ordering::Relaxed);
        loop {
            // The limit after the tail would allow what the limit before it forbids; both only grow,
            // so either order is safe, and a stale limit only refuses too much.
            // [O:limit_claim] Acquire: E4, pairs with [O:limit]; the words up to it are ours to write.
            let limit = self
                .limit
                .limit
                .load(weaken!("limit_claim", Ordering::Acquire));
            let padding = self.layout.padding(tail, size);
            let end = tail + padding + size;
            if end > limit && !planted!("limit_ignored") {
                drop(alone);
                if admitted {
                    self.give_back_admission()?;
                }
                if self.end().is_some() {
                    self.seal()?;
                    return Err(NoRoom::Sealed);
                }
                return Err(NoRoom::Space { needed: end });
            }
            // Behind the look at the space: whoever waits for space takes nothing that it would have to
            // give back, and so wakes nobody, itself least of all.
            if !admitted {
                self.admit(room, alone.as_ref())?;
                admitted = true;
            }
            match change(&self.producer.tail, tail, end, alone.as_ref()) {
                Ok(()) => {
                    let position = tail + padding;
                    return Ok(Claim {
                        ring: self,
                        start: tail,
                        position,
                        len: len as u32,
                    });
                }
                Err(now) => tail = now,
            }
        }
    }

    /// Claims all that is left before the end, as padding, if nobody has. The next file is linked.
    ///
    /// # Errors
    ///
    /// As [`Bias::share`](crate::sync::bias::Bias::share): it is not sealed.
    pub fn seal(&self) -> Result<(), Refused> {
        // Nobody claims but by compare-exchange from now on.
        self.producer.bias.share()?;
        // [O:end_seal] Acquire: E13, pairs with [O:end]; the words up to the end are ours to write.
        let end = self.limit.end.load(weaken!("end_seal", Ordering::Acquire));
        // [O:tail_read] Relaxed: the compare-exchange tells whether it is still true.
        let mut tail = self.producer.tail.load(Ordering::Relaxed);
        while tail < end && end != u64::MAX {
            match change(&self.producer.tail, tail, end, None) {
                Ok(()) => {
                    self.fill(tail, end);
                    break;
                }
                Err(now) => tail = now,
            }
        }
        Ok(())
    }

    /// Publishes padding over words that the caller claimed.
    fn fill(&self, from: u64, to: u64) {
        let mut at = from;
        while at < to {
            let piece = self
                .layout
                .bytes_to_end(at)
                .min(to - at)
                .min(frame::FRAME_LEN_MAX);
            self.publish_filler(Kind::Padding, at, piece);
            at += piece;
        }
        self.announce(true);
    }

    /// Counts one message more, if the bound allows.
    #[inline(always)]
    fn admit(&self, room: Room, alone: Option<&Exclusive<'_>>) -> Result<(), NoRoom> {
        // [O:counts] Relaxed, all of these: counts; no data hangs on them.
        let mut admitted = self.producer.admitted.load(Ordering::Relaxed);
        loop {
            // [O:counts] Relaxed: as above; a stale value only refuses too much, and is then refreshed. It
            // is kept here so that the line of the acknowledgers is looked at once in a bound, not each time.
            let seen = self.producer.seen_acknowledged.load(Ordering::Relaxed);
            if admitted.saturating_sub(seen) >= self.bound && !planted!("bound_ignored") {
                // [O:counts] Relaxed: as above.
                let seen = self.acknowledger.acknowledged.load(Ordering::Relaxed);
                let wanted = match room {
                    Room::Any => 1,
                    Room::Batch => Batch::messages(self.bound),
                };
                if self.bound.saturating_sub(admitted.saturating_sub(seen)) < wanted {
                    return Err(NoRoom::Bound);
                }
                // Only now: what is kept here is room that the next claim takes without a look.
                // [O:counts] Relaxed: as above.
                self.producer
                    .seen_acknowledged
                    .store(seen, Ordering::Relaxed);
            }
            match change(&self.producer.admitted, admitted, admitted + 1, alone) {
                Ok(()) => return Ok(()),
                Err(now) => admitted = now,
            }
        }
    }

    fn give_back_admission(&self) -> Result<(), Refused> {
        let line = &self.producer;
        // [O:counts] Relaxed: as above.
        line.bias
            .add(&line.admitted, 1u64.wrapping_neg(), Ordering::Relaxed)?;
        // Another sender may have been refused because of us.
        if self.bound != u64::MAX {
            self.events.room.notify();
        }
        Ok(())
    }

    /// Writes a frame into words that the caller owns (R3), with the salt of its incarnation, and publishes
    /// it.
    #[allow(unsafe_code)]
    #[inline(always)]
    fn write_and_publish(
        &self,
        position: u64,
        salt: u64,
        word1: Word1,
        payload: &[IoSlice<'_>],
        state: State,
    ) {
        let word = self.layout.word(position);
        // SAFETY: R3: these words are the caller's since it moved the tail (R2), or since it was
        // given the damage that they hold, and until the store below; E4 orders whatever others did
        // with them before. `memory` checks the bounds.
        unsafe {
            self.memory.copy_in_word(word + 1, word1.encode());
            let mut done = 0;
            for part in payload {
                self.memory.copy_in(word + 2, done, part);
                done += part.len() as u64;
            }
        }
        let word0 = frame::word0(position, salt, state);
        // [O:publish] Release: E1, pairs with [O:read]; publishes second word and payload.
        self.memory
            .store(word, word0, weaken!("publish", Ordering::Release));
    }

    /// The same for a frame that holds nothing.
    #[inline(never)]
    pub(super) fn publish_filler(&self, kind: Kind, position: u64, frame_bytes: u64) {
        let len = (frame_bytes - frame::FRAME_HEADER_LEN) as u32;
        let salt = self.salt_at(position);
        let word1 = Word1::new(kind, position, salt, len, 0);
        self.write_and_publish(position, salt, word1, &[], State::Acknowledged);
    }
}

const _: () = assert!(frame::FRAME_HEADER_LEN == 2 * WORD_LEN);

impl<M: Memory> Claim<'_, M> {
    /// Where the claim begins: at the padding before the frame, if it has one.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Bytes of the payload that it is for.
    pub fn payload_len(&self) -> u32 {
        self.len
    }

    /// Where the frame ends.
    pub fn end(&self) -> u64 {
        self.position + frame_len(u64::from(self.len))
    }

    /// The position of the frame.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether it is for a payload that is not empty.
    pub fn has_payload(&self) -> bool {
        self.len > 0
    }

    /// Writes the payload, whose length and CRC are those of the claim, and publishes the frame. Whoever
    /// waits for it must be woken: [`Ring::announce`]. `first`: there is a payload, and all before the frame
    /// is on stable storage.
    #[inline(always)]
    pub fn publish(self, payload: &[IoSlice<'_>], crc: u32, first: bool) {
        if payload_len(payload) != u64::from(self.len) {
            another_payload(self);
        }
        debug_assert_eq!(crc, payload_crc(payload));
        let claim = ManuallyDrop::new(self);
        claim.fill_padding();
        let kind = match first {
            true => Kind::CommitMarker,
            false => Kind::Message,
        };
        let (ring, position) = (claim.ring, claim.position);
        let salt = ring.incarnation.salt;
        let word1 = Word1::new(kind, position, salt, claim.len, crc);
        ring.write_and_publish(position, salt, word1, payload, State::Delivered(0));
    }

    #[inline(always)]
    fn fill_padding(&self) {
        if self.position > self.start {
            self.ring
                .publish_filler(Kind::Padding, self.start, self.position - self.start);
        }
    }
}

impl<M: Memory> Drop for Claim<'_, M> {
    fn drop(&mut self) {
        if planted!("claim_not_abandoned") {
            return;
        }
        self.fill_padding();
        self.ring
            .publish_filler(Kind::Abandoned, self.position, self.end() - self.position);
        // Refused, the bound has a place less, until this thread's next claim ends the channel.
        self.ring.give_back_admission().ok();
        self.ring.announce(true);
    }
}

impl<M: Memory> Ring<M> {
    /// Wakes those who wait for a published frame; the receiver only if it may look at it already.
    #[inline(always)]
    pub fn announce(&self, readable: bool) {
        // [O:publish_fence] SeqCst: E8, pairs with [O:wait_fence]; the publication before it, the look
        // for waiters behind. One fence for both events, and for the timer's flags.
        weaken_fence!("publish_fence", self.events.fences.light());
        if readable && !planted!("send_wakes_nobody") {
            self.events.readable.notify_behind_fence();
        }
        self.events.published.notify_behind_fence();
    }
}
