//! What lies published at a position.

use super::state::Ring;
use crate::format::frame::{self, FRAME_HEADER_LEN, Kind, Word1};
use crate::planted::planted;
use crate::storage::{Lent, Memory};
use crate::sync::{Ordering, weaken};

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

impl<M: Memory> Ring<M> {
    /// Reads the second word of the published frame at `position`, whose first word is `word`; and the
    /// payload, and checks both, with the salt of the incarnation, and a buffer for what cannot be lent.
    #[allow(unsafe_code)]
    #[inline(always)]
    pub(super) fn read_published(
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
            // SAFETY: as above, and until the message is acknowledged: whoever uses it holds the delivery,
            // and with that the memory.
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

    pub(super) fn published_at(&self, position: u64) -> Option<Word1> {
        if !self.is_published(position) {
            return None;
        }
        let word = self.layout.word(position);
        Some(self.read_published(position, word, None)?.0)
    }
}

const _: () = assert!(FRAME_HEADER_LEN == 16);
