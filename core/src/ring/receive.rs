//! The receiver: takes messages in the order of their positions, and counts each delivery.

use super::state::{LINE_LEN, LINE_WORDS, Ring};
use crate::format::frame::{self, State};
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
    /// Where the frame begins.
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
    /// `[place, end)` holds no valid frame: somebody else wrote to the file, or the disk gave back something
    /// else.
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

    /// Where every message that was handed out is acknowledged, tells whoever moves the head, who need not
    /// look at each then. The counts are exact where all that earlier incarnations left is behind.
    #[inline(always)]
    fn note_all_acknowledged(&self, reader: &Reader) {
        // [O:acknowledged_all] Acquire: E15, pairs with [O:acknowledged]; what the holders read comes
        // before `acknowledged_to`.
        let acknowledged = self.acknowledger.acknowledged.load(Ordering::Acquire);
        // [O:counts] Relaxed: a count that only the receiver writes.
        let handed_out = self.receiver.handed_out.load(Ordering::Relaxed);
        if acknowledged == handed_out && reader.cursor >= self.opened_at {
            // [O:acknowledged_to] Release: E2, pairs with [O:acknowledged_to_walk].
            let release = weaken!("acknowledged_to", Ordering::Release);
            self.receiver.acknowledged_to.store(reader.cursor, release);
        }
    }

    /// Takes the next message, if it is one of this incarnation that was never handed out: what is nearly
    /// always so. `None` says nothing, and nothing has changed: see [`Ring::read`].
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

    /// Fetches the lines of the frame behind the one at `word`, if it is there, and as long. The first to be
    /// stored in: the delivery's count makes them this processor's sooner or later, and an acknowledgement
    /// would wait for that. Not those of the last one that is claimed: they would be taken from whoever
    /// writes them.
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
        // [O:again] Relaxed: the first delivery saw it published (E1), and nobody but the receiver has
        // written the state since.
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
}
