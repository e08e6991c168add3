//! The receiver, acknowledgement, and reclaiming.

use super::{LINE_LEN, LINE_WORDS, Ring};
use crate::format::frame::{self, FRAME_HEADER_LEN, Kind, State, Word1};
use crate::planted::planted;
use crate::storage::{Lent, Memory, WORD_LEN};
use crate::sync::{Ordering, weaken};
use std::io;

/// How many lines of the next message are fetched ahead to be stored in, and how many at most to be read.
const STORED_LINES: u64 = 2;
const LINES_MAX: u64 = 17;

/// The receiver's own place in the ring. There is one.
#[derive(Debug)]
pub struct Reader {
    cursor: u64,
    /// A tail that it has seen.
    seen_tail: u64,
}

/// A message that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub position: u64,
    /// Deliveries so far, this one included; 14 stands for that many or more.
    pub deliveries: u8,
    /// The payload where it lies, until the message is acknowledged; `None` if it was copied into a buffer.
    pub lent: Option<Lent>,
}

/// What a read found. `M` is what a message is to whoever reads.
#[derive(Debug)]
pub enum Received<M = Frame> {
    /// A message; it counts as handed out. A payload that cannot be lent is in the reader's buffer.
    Message(M),
    /// `[place, end)` holds no valid frame: somebody else wrote to the file, or the disk gave back something else.
    Damage {
        /// Where it begins.
        place: M,
        /// Where it ends; its beginning where that is not known.
        end: u64,
    },
    /// Nothing that may be shown now.
    Empty,
    /// Everything that the file will ever hold was read: go on in the next one.
    End,
    /// All senders are gone, and nothing is left.
    Disconnected,
    /// The file could not be read, or the channel has failed.
    Failed(io::Error),
}

/// Frames that are published, one behind the other.
#[derive(Clone, Copy, Debug)]
pub struct Prefix {
    /// Where they end.
    pub end: u64,
    /// How many are messages or abandoned.
    pub claims: u64,
    /// The first one tells that all before it was on stable storage.
    pub is_commit_marker: bool,
}

impl Received {
    /// A frame of this incarnation that is not what its producer wrote.
    #[cold]
    fn damage(position: u64) -> Self {
        let place = Frame {
            position,
            deliveries: 0,
            lent: None,
        };
        Received::Damage {
            place,
            end: position,
        }
    }
}

impl Reader {
    /// It has passed all before.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }
}

impl<M: Memory> Ring<M> {
    /// The only reader, at the head.
    pub fn reader(&self) -> Reader {
        Reader {
            cursor: self.head(),
            seen_tail: 0,
        }
    }

    /// Reads the second word of the published frame at `position`, whose first word is `word`; and the payload, and checks both, with the
    /// salt of the incarnation, and a buffer for what cannot be lent.
    #[allow(unsafe_code)]
    #[inline(always)]
    fn read_published(
        &self,
        position: u64,
        word: u64,
        check: Option<(u64, &mut Vec<u8>)>,
    ) -> Option<(Word1, Option<Lent>)> {
        // SAFETY: R4: published, seen through an Acquire of its first word (E1) or of something that
        // happened later, and not reclaimed: second word and payload do not change. `memory` checks
        // the bounds.
        let word1 = Word1::decode(unsafe { self.memory.copy_out_word(word + 1) })?;
        if !self.layout.holds(word, word1.frame_len()) {
            return None;
        }
        let Some((salt, buffer)) = check else {
            return Some((word1, None));
        };
        let (mut crc, mut lent) = (0, None);
        if word1.kind().is_message() {
            let len = word1.len() as usize;
            // SAFETY: as above, and until the message is acknowledged: whoever uses it holds the delivery, and with that
            // the memory.
            lent = unsafe { self.memory.lend(word + 2, len) };
            crc = match &lent {
                Some(bytes) => frame::crc(bytes),
                None => {
                    buffer.clear();
                    buffer.resize(len, 0);
                    // SAFETY: as above.
                    unsafe { self.memory.copy_out(word + 2, &mut buffer[..]) };
                    frame::crc(buffer)
                }
            };
        }
        let matches = word1.matches(position, salt, crc);
        (matches || planted!("foreign_bytes_delivered")).then_some((word1, lent))
    }

    /// Where every message that was handed out is acknowledged, tells whoever moves the head, who need not look at each then.
    /// The counts are exact where all that earlier incarnations left is behind.
    #[inline(always)]
    fn note_all_acknowledged(&self, reader: &Reader) {
        // [O:acknowledged_settled] Acquire: E15, pairs with [O:acknowledged]; what the holders read comes before `settled`.
        let acknowledged = self.acknowledger.acknowledged.load(Ordering::Acquire);
        // [O:counts] Relaxed: a count that only the receiver writes.
        let handed_out = self.receiver.handed_out.load(Ordering::Relaxed);
        if acknowledged == handed_out && reader.cursor >= self.opened_at {
            // [O:settled] Release: E2, pairs with [O:settled_walk].
            let release = weaken!("settled", Ordering::Release);
            self.receiver.acknowledged_to.store(reader.cursor, release);
        }
    }

    /// Takes the next message, if it is one of this incarnation that was never handed out: what is nearly always so. `None` says nothing, and
    /// nothing has changed: see [`Ring::read`].
    #[inline(always)]
    pub fn read_fresh(&self, reader: &mut Reader, buffer: &mut Vec<u8>) -> Option<Frame> {
        self.note_all_acknowledged(reader);
        let position = reader.cursor;
        if position < self.incarnation.start {
            return None;
        }
        let word = self.layout.word(position);
        let salt = self.incarnation.salt;
        let fresh = frame::word0(position, salt, State::Delivered(0));
        // [O:read] Acquire: E1, pairs with [O:publish]; second word and payload are there.
        if self.memory.load(word, weaken!("read", Ordering::Acquire)) != fresh {
            return None;
        }
        let (word1, lent) = self.read_published(position, word, Some((salt, buffer)))?;
        if !word1.kind().is_message() {
            return None;
        }
        let frame = self.count_delivery(position, word, fresh, State::Delivered(0), lent);
        self.pass(reader, position + word1.frame_len());
        self.prefetch_next(reader, word, word1.frame_len());
        Some(frame)
    }

    /// Takes the next message before `visible`, stepping over padding and abandoned frames.
    pub fn read(&self, reader: &mut Reader, visible: u64, buffer: &mut Vec<u8>) -> Received {
        self.note_all_acknowledged(reader);
        loop {
            let position = reader.cursor;
            if position >= visible {
                return Received::Empty;
            }
            let salt = self.salt_at(position);
            let word = self.layout.word(position);
            // [O:read] Acquire: E1, pairs with [O:publish]; second word and payload are there.
            let word0 = self.memory.load(word, weaken!("read", Ordering::Acquire));
            if !frame::names_position(word0, position, salt) {
                return Received::Empty;
            }
            let (Some(state), Some((word1, lent))) = (
                frame::state_of(word0),
                self.read_published(position, word, Some((salt, buffer))),
            ) else {
                return Received::damage(position);
            };
            let frame = (word1.kind().is_message() && state != State::Acknowledged)
                .then(|| self.count_delivery(position, word, word0, state, lent));
            let frame_len = word1.frame_len();
            self.pass(reader, position + frame_len);
            self.prefetch_next(reader, word, frame_len);
            if let Some(frame) = frame {
                return Received::Message(frame);
            }
        }
    }

    /// Fetches the lines of the frame behind the one at `word`, if it is there, and as long. The first to be stored in: the delivery's
    /// count makes them this processor's sooner or later, and an acknowledgement would wait for that. Not those of the last one that is
    /// claimed: they would be taken from whoever writes them.
    #[inline(always)]
    fn prefetch_next(&self, reader: &mut Reader, word: u64, frame_len: u64) {
        let at = reader.cursor;
        if at >= reader.seen_tail {
            // [O:tail_read] Relaxed: a guess. Not each time: it is the producers' line.
            reader.seen_tail = self.producer.tail.load(Ordering::Relaxed);
        }
        if at + 2 * (frame_len + LINE_LEN) > reader.seen_tail {
            return;
        }
        // Where that is behind the end of the ring a hint says nothing.
        let word = word + frame_len / WORD_LEN;
        for line in 0..STORED_LINES {
            self.memory.prefetch_store(word + line * LINE_WORDS);
        }
        if frame_len > STORED_LINES * LINE_LEN {
            for line in STORED_LINES..frame_len.div_ceil(LINE_LEN).min(LINES_MAX) {
                self.memory.prefetch_load(word + line * LINE_WORDS);
            }
        }
    }

    /// Moves the reader on. Before the message is handed out, so that its acknowledgement finds the
    /// cursor behind it.
    #[inline(always)]
    pub fn pass(&self, reader: &mut Reader, cursor: u64) {
        reader.cursor = cursor;
        // [O:cursor] Release: E2, pairs with [O:cursor_walk]; the frames before it were seen published.
        self.receiver
            .cursor
            .store(cursor, weaken!("cursor", Ordering::Release));
    }

    /// Stores the increased count, and gives the frame.
    #[inline(always)]
    fn count_delivery(
        &self,
        position: u64,
        word: u64,
        word0: u64,
        state: State,
        lent: Option<Lent>,
    ) -> Frame {
        if state == State::Delivered(0) {
            // [O:counts] Relaxed: a count that only the receiver writes.
            let before = self.receiver.handed_out.load(Ordering::Relaxed);
            // [O:counts] Relaxed: as above.
            self.receiver
                .handed_out
                .store(before + 1, Ordering::Relaxed);
        }
        let state = planted!(
            "delivery_not_counted",
            State::Delivered(1),
            state.delivered_again()
        );
        // [O:count] Release: E1, on behalf of the producer; a leader that sees this store instead of the
        // publication reads the second word, too. Only the receiver writes the state before it hands
        // the message out.
        let order = weaken!("count", Ordering::Release);
        self.memory
            .store(word, frame::with_state(word0, state), order);
        let State::Delivered(deliveries) = state else {
            unreachable!("counted from a count")
        };
        Frame {
            position,
            deliveries,
            lent,
        }
    }

    /// Reads a message again that was handed out in this incarnation and came back.
    pub fn read_again(&self, position: u64, buffer: &mut Vec<u8>) -> Received {
        let word = self.layout.word(position);
        // [O:again] Relaxed: the first delivery saw it published (E1), and nobody but the receiver has written
        // the state since.
        let word0 = self.memory.load(word, Ordering::Relaxed);
        let salt = self.salt_at(position);
        match (
            frame::state_of(word0),
            self.read_published(position, word, Some((salt, buffer))),
        ) {
            (Some(state @ State::Delivered(_)), Some((_, lent))) => {
                Received::Message(self.count_delivery(position, word, word0, state, lent))
            }
            _ => Received::damage(position),
        }
    }

    /// Moves the cursor over published frames that are nobody's to receive. There is no receiver any more.
    pub fn pass_fillers(&self) {
        let mut reader = Reader {
            // [O:cursor_look] Relaxed: whoever calls has the ring to itself.
            cursor: self.receiver.cursor.load(Ordering::Relaxed),
            seen_tail: 0,
        };
        let mut buffer = Vec::new();
        while self.is_published(reader.cursor) {
            let word = self.layout.word(reader.cursor);
            // [O:again] Relaxed: seen published just now.
            let word0 = self.memory.load(word, Ordering::Relaxed);
            let is_filler = frame::state_of(word0) == Some(State::Acknowledged);
            // Whole, and checked: no receiver has done that.
            let check = (self.salt_at(reader.cursor), &mut buffer);
            match self.read_published(reader.cursor, word, Some(check)) {
                Some((word1, _)) if is_filler => {
                    let next = reader.cursor + word1.frame_len();
                    self.pass(&mut reader, next);
                }
                _ => return,
            }
        }
    }

    /// Counts a delivery whose payload was read elsewhere, by `pread`.
    pub fn hand_out(&self, position: u64, state: State) -> Frame {
        let word0 = frame::word0(position, self.salt_at(position), state);
        self.count_delivery(position, self.layout.word(position), word0, state, None)
    }

    /// Marks the message at `position` as acknowledged, once, by whoever holds it. From any thread, in any order.
    /// The head does not move yet. Its count follows.
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
    pub fn count_acknowledged(&self) -> u64 {
        // [O:acknowledged] Release: E15, pairs with [O:acknowledged_read]; what it counts is before it.
        let release = weaken!("acknowledged", Ordering::Release);
        let line = &self.acknowledger;
        line.bias.add(&line.acknowledged, 1, release) + 1
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
    /// the end of the ring: damage that was settled. The head may pass it then.
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
        // [O:settled_walk] Acquire: E2, pairs with [O:settled]; what was read before it happens before the reuse.
        let acknowledged_to = self
            .receiver
            .acknowledged_to
            .load(weaken!("settled_walk", Ordering::Acquire));
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

    /// The end of the file, if nothing but the padding that sealed it lies between `head` and that; else `head`.
    ///
    /// The receiver may be slow to pass it. A file that is filled once is not reused, so nobody waits for that: whoever
    /// is left in a drained file goes on to the next.
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

    /// The published prefix that begins at `from`.
    ///
    /// The caller makes sure that nothing from `from` on is reclaimed meanwhile.
    pub fn published_prefix(&self, from: u64) -> Prefix {
        let mut prefix = Prefix {
            end: from,
            claims: 0,
            is_commit_marker: false,
        };
        while let Some(word1) = self.published_at(prefix.end) {
            prefix.is_commit_marker |= prefix.end == from && word1.kind() == Kind::CommitMarker;
            prefix.end += word1.frame_len();
            prefix.claims += u64::from(word1.kind() != Kind::Padding);
        }
        prefix
    }

    /// Whether the frame at `position` is published.
    pub fn is_published(&self, position: u64) -> bool {
        // [O:prefix] Acquire: E5, pairs with [O:publish]; a sync that follows takes the payload along.
        let word0 = self.memory.load(
            self.layout.word(position),
            weaken!("prefix", Ordering::Acquire),
        );
        frame::names_position(word0, position, self.salt_at(position))
    }

    fn published_at(&self, position: u64) -> Option<Word1> {
        if !self.is_published(position) {
            return None;
        }
        let word = self.layout.word(position);
        Some(self.read_published(position, word, None)?.0)
    }
}

const _: () = assert!(FRAME_HEADER_LEN == 16);
