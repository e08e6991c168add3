//! The incarnation table: for each life whose frames may still be in the file, where it began and
//! with which salt it wrote. Two copies, written only at open.

use super::frame::is_salt;
use super::{COUNT_MAX, FRAME_ALIGN_MASK, PAGE_LEN, POSITION_MAX, PageFault, TABLE_PAGES};
use super::{get_u32, get_u64, is_zero, put_u32, put_u64};

const MAGIC: [u8; 8] = *b"WALCLIFE";
const MAGIC_AT: usize = 0;
const CRC_AT: usize = MAGIC_AT + 8;
const COUNT_AT: usize = CRC_AT + 4;
const RESERVED_AT: usize = COUNT_AT + 4;
const ENTRIES_AT: usize = 64;
const START_AT: usize = 0;
const SALT_AT: usize = START_AT + 8;
const TAG_AT: usize = SALT_AT + 8;
const NUMBER_AT: usize = TAG_AT + 8;
pub(super) const ENTRY_LEN: usize = NUMBER_AT + 8;
pub(crate) const TABLE_LEN: usize = (TABLE_PAGES * PAGE_LEN) as usize;
/// Lives that a table holds.
pub(crate) const LIVES_MAX: usize = (TABLE_LEN - ENTRIES_AT) / ENTRY_LEN;

/// As `docs/format.md` has them.
#[cfg(test)]
pub(super) const FIELDS: &[(&str, usize)] = &[
    ("magic", MAGIC_AT),
    ("CRC-32", CRC_AT),
    ("number of lives", COUNT_AT),
    ("reserved", RESERVED_AT),
    ("lives", ENTRIES_AT),
];
#[cfg(test)]
pub(super) const LIFE_FIELDS: &[(&str, usize)] = &[
    ("start", START_AT),
    ("salt", SALT_AT),
    ("tag", TAG_AT),
    ("number", NUMBER_AT),
];

const _: () = assert!(LIVES_MAX == 1022, "docs/format.md");

/// One life of the channel, from an open to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    /// Its frames lie at this position or behind, up to the start of the next life.
    pub(crate) start: u64,
    /// 56 bits, random, secret as far as the file is.
    pub(crate) salt: u64,
    /// 64 bits, random, public: part of each message id.
    pub(crate) tag: u64,
    /// Counts the opens of the file, from 1.
    pub(crate) number: u64,
}

/// The lives of a file, oldest first, never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lives(Vec<Life>);

impl Lives {
    /// Lives that begin there, one behind the other, for tests that make frames of them.
    #[cfg(all(test, feature = "fsync"))]
    pub(crate) fn from_starts(starts: &[u64]) -> Self {
        let lives = (1..).zip(starts).map(|(number, &start)| Life {
            start,
            salt: super::frame::salt_from(0x1234_5678_9abc ^ number << 40),
            tag: number,
            number,
        });
        Lives(lives.collect())
    }

    pub(crate) fn first(life: Life) -> Self {
        Lives(vec![life])
    }

    pub(crate) fn newest(&self) -> Life {
        self.0[self.0.len() - 1]
    }

    /// Where the first of them began; `None` for a moment between dropping lives and adding one.
    pub(crate) fn oldest_start(&self) -> Option<u64> {
        self.0.first().map(|life| life.start)
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The life that covers `position`; `None` below the oldest.
    pub(crate) fn at(&self, position: u64) -> Option<Life> {
        self.span_at(position).map(|(life, _)| life)
    }

    /// The life that covers `position`, and where it ends: `u64::MAX` if it is the newest.
    #[inline]
    pub(crate) fn span_at(&self, position: u64) -> Option<(Life, u64)> {
        let newest = self.newest();
        if position >= newest.start {
            return Some((newest, u64::MAX));
        }
        let behind = self.0.partition_point(|life| life.start <= position);
        let life = self.0[behind.checked_sub(1)?];
        Some((life, self.0[behind].start))
    }

    /// Where the life that covers `position` ends; `None` if it is the newest.
    pub(crate) fn end_at(&self, position: u64) -> Option<u64> {
        let behind = self.0.partition_point(|life| life.start <= position);
        self.0.get(behind).map(|life| life.start)
    }

    /// Drops the lives that have no frame at `head` or behind it: those that another life follows at
    /// or before `head`, and those that are empty. The next life begins at `tail`.
    pub(crate) fn prune(&mut self, head: u64, tail: u64) {
        let lives = std::mem::take(&mut self.0);
        let mut starts = lives.iter().skip(1).map(|l| l.start).collect::<Vec<_>>();
        starts.push(tail);
        self.0 = lives
            .iter()
            .zip(starts)
            .filter(|(life, next)| *next > head && *next > life.start)
            .map(|(life, _)| *life)
            .collect();
    }

    /// Adds a life; `false` if the table is full.
    pub(crate) fn push(&mut self, life: Life) -> bool {
        if self.0.len() >= LIVES_MAX {
            return false;
        }
        self.0.push(life);
        true
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; TABLE_LEN];
        bytes[MAGIC_AT..MAGIC_AT + 8].copy_from_slice(&MAGIC);
        put_u32(&mut bytes, COUNT_AT, self.0.len() as u32);
        for (i, life) in self.0.iter().enumerate() {
            let at = ENTRIES_AT + i * ENTRY_LEN;
            put_u64(&mut bytes, at + START_AT, life.start);
            put_u64(&mut bytes, at + SALT_AT, life.salt);
            put_u64(&mut bytes, at + TAG_AT, life.tag);
            put_u64(&mut bytes, at + NUMBER_AT, life.number);
        }
        let crc = Self::crc(&bytes);
        put_u32(&mut bytes, CRC_AT, crc);
        bytes
    }

    /// All but the checksum's own four bytes.
    fn crc(bytes: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&bytes[..CRC_AT]);
        hasher.update(&bytes[CRC_AT + 4..]);
        hasher.finalize()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, PageFault> {
        if bytes.len() != TABLE_LEN || bytes[MAGIC_AT..MAGIC_AT + 8] != MAGIC {
            return Err(PageFault::Magic);
        }
        if Self::crc(bytes) != get_u32(bytes, CRC_AT) {
            return Err(PageFault::Checksum);
        }
        let count = get_u32(bytes, COUNT_AT) as usize;
        if count == 0 || count > LIVES_MAX {
            return Err(PageFault::Field("count"));
        }
        let used = ENTRIES_AT + count * ENTRY_LEN;
        if !is_zero(&bytes[RESERVED_AT..ENTRIES_AT]) || !is_zero(&bytes[used..]) {
            return Err(PageFault::Reserved);
        }
        let mut lives: Vec<Life> = Vec::with_capacity(count);
        for i in 0..count {
            let at = ENTRIES_AT + i * ENTRY_LEN;
            let life = Life {
                start: get_u64(bytes, at + START_AT),
                salt: get_u64(bytes, at + SALT_AT),
                tag: get_u64(bytes, at + TAG_AT),
                number: get_u64(bytes, at + NUMBER_AT),
            };
            if life.start & FRAME_ALIGN_MASK != 0 || life.start >= POSITION_MAX {
                return Err(PageFault::Field("start"));
            }
            if life.number >= COUNT_MAX {
                return Err(PageFault::Field("number"));
            }
            if !is_salt(life.salt) {
                return Err(PageFault::Field("salt"));
            }
            if let Some(last) = lives.last()
                && (last.start > life.start || last.number >= life.number)
            {
                return Err(PageFault::Field("order"));
            }
            lives.push(life);
        }
        Ok(Lives(lives))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::frame::salt_from;

    fn life(number: u64, start: u64) -> Life {
        Life {
            start,
            salt: salt_from(number * 7),
            tag: number,
            number,
        }
    }

    #[test]
    fn a_position_belongs_to_the_last_life_that_began_at_or_before_it() {
        let mut lives = Lives::first(life(1, 64));
        assert!(lives.push(life(2, 128)));
        assert!(lives.push(life(3, 128)));
        assert_eq!(lives.at(48), None);
        assert_eq!(lives.at(64).map(|l| l.number), Some(1));
        assert_eq!(lives.at(112).map(|l| l.number), Some(1));
        assert_eq!(lives.at(128).map(|l| l.number), Some(3));
        assert_eq!(lives.end_at(64), Some(128));
        assert_eq!(lives.end_at(128), None);
        assert_eq!(Lives::decode(&lives.encode()), Ok(lives.clone()));
        lives.prune(64, 144);
        assert_eq!(lives.count(), 2, "the empty life 2 collapses");
        lives.prune(128, 144);
        assert_eq!(lives.count(), 1);
        lives.prune(128, 128);
        assert_eq!(lives.count(), 0, "and the last, where another one follows");
    }

    #[test]
    fn a_full_table_takes_no_more() {
        let mut lives = Lives::first(life(1, 0));
        for n in 2..=LIVES_MAX as u64 {
            assert!(lives.push(life(n, n * 16)));
        }
        assert!(!lives.push(life(5000, 1 << 30)));
        assert_eq!(Lives::decode(&lives.encode()), Ok(lives));
    }
}
