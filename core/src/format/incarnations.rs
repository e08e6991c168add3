//! The incarnation table: for each incarnation whose frames may still be in the file, where it began and
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
/// Bytes of one copy of the table.
pub const TABLE_LEN: usize = (TABLE_PAGES * PAGE_LEN) as usize;
/// Incarnations that a table holds.
pub const INCARNATIONS_MAX: usize = (TABLE_LEN - ENTRIES_AT) / ENTRY_LEN;

/// As `docs/format.md` has them.
#[cfg(test)]
pub(super) const FIELDS: &[(&str, usize)] = &[
    ("magic", MAGIC_AT),
    ("CRC-32", CRC_AT),
    ("number of incarnations", COUNT_AT),
    ("reserved", RESERVED_AT),
    ("incarnations", ENTRIES_AT),
];
#[cfg(test)]
pub(super) const ENTRY_FIELDS: &[(&str, usize)] = &[
    ("start", START_AT),
    ("salt", SALT_AT),
    ("tag", TAG_AT),
    ("number", NUMBER_AT),
];

const _: () = assert!(INCARNATIONS_MAX == 1022, "docs/format.md");

/// One incarnation of the channel, from an open to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incarnation {
    /// Its frames lie at this position or behind, up to the start of the next incarnation.
    pub start: u64,
    /// 56 bits, random, secret as far as the file is.
    pub salt: u64,
    /// 64 bits, random, public: part of each message id.
    pub tag: u64,
    /// Counts the opens of the file, from 1.
    pub number: u64,
}

/// The incarnations of a file, oldest first, never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incarnations(Vec<Incarnation>);

impl Incarnations {
    /// Those of a new file.
    pub fn first(incarnation: Incarnation) -> Self {
        Incarnations(vec![incarnation])
    }

    /// The last one.
    pub fn newest(&self) -> Incarnation {
        self.0[self.0.len() - 1]
    }

    /// Where the first of them began; `None` for a moment between dropping incarnations and adding one.
    pub fn oldest_start(&self) -> Option<u64> {
        self.0.first().map(|incarnation| incarnation.start)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The incarnation that covers `position`; `None` below the oldest.
    pub fn at(&self, position: u64) -> Option<Incarnation> {
        self.span_at(position).map(|(incarnation, _)| incarnation)
    }

    /// The incarnation that covers `position`, and where it ends: `u64::MAX` if it is the newest.
    #[inline]
    pub fn span_at(&self, position: u64) -> Option<(Incarnation, u64)> {
        let newest = self.newest();
        if position >= newest.start {
            return Some((newest, u64::MAX));
        }
        let behind = self
            .0
            .partition_point(|incarnation| incarnation.start <= position);
        let incarnation = self.0[behind.checked_sub(1)?];
        Some((incarnation, self.0[behind].start))
    }

    /// Where the incarnation that covers `position` ends; `None` if it is the newest.
    pub fn end_at(&self, position: u64) -> Option<u64> {
        let behind = self
            .0
            .partition_point(|incarnation| incarnation.start <= position);
        self.0.get(behind).map(|incarnation| incarnation.start)
    }

    /// Drops the incarnations that have no frame at `head` or behind it: those that another incarnation
    /// follows at or before `head`, and those that are empty. The next incarnation begins at `tail`.
    pub fn prune(&mut self, head: u64, tail: u64) {
        let incarnations = std::mem::take(&mut self.0);
        let mut starts = incarnations
            .iter()
            .skip(1)
            .map(|l| l.start)
            .collect::<Vec<_>>();
        starts.push(tail);
        self.0 = incarnations
            .iter()
            .zip(starts)
            .filter(|(incarnation, next)| *next > head && *next > incarnation.start)
            .map(|(incarnation, _)| *incarnation)
            .collect();
    }

    /// Adds an incarnation; `false` if the table is full.
    pub fn push(&mut self, incarnation: Incarnation) -> bool {
        if self.0.len() >= INCARNATIONS_MAX {
            return false;
        }
        self.0.push(incarnation);
        true
    }

    /// The bytes of a copy of the table.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; TABLE_LEN];
        bytes[MAGIC_AT..MAGIC_AT + 8].copy_from_slice(&MAGIC);
        put_u32(&mut bytes, COUNT_AT, self.0.len() as u32);
        for (i, incarnation) in self.0.iter().enumerate() {
            let at = ENTRIES_AT + i * ENTRY_LEN;
            put_u64(&mut bytes, at + START_AT, incarnation.start);
            put_u64(&mut bytes, at + SALT_AT, incarnation.salt);
            put_u64(&mut bytes, at + TAG_AT, incarnation.tag);
            put_u64(&mut bytes, at + NUMBER_AT, incarnation.number);
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

    /// Of the bytes of a copy. Everything in them is checked.
    pub fn decode(bytes: &[u8]) -> Result<Self, PageFault> {
        if bytes.len() != TABLE_LEN || bytes[MAGIC_AT..MAGIC_AT + 8] != MAGIC {
            return Err(PageFault::Magic);
        }
        if Self::crc(bytes) != get_u32(bytes, CRC_AT) {
            return Err(PageFault::Checksum);
        }
        let count = get_u32(bytes, COUNT_AT) as usize;
        if count == 0 || count > INCARNATIONS_MAX {
            return Err(PageFault::Field("count"));
        }
        let used = ENTRIES_AT + count * ENTRY_LEN;
        if !is_zero(&bytes[RESERVED_AT..ENTRIES_AT]) || !is_zero(&bytes[used..]) {
            return Err(PageFault::Reserved);
        }
        let mut incarnations: Vec<Incarnation> = Vec::with_capacity(count);
        for i in 0..count {
            let at = ENTRIES_AT + i * ENTRY_LEN;
            let incarnation = Incarnation {
                start: get_u64(bytes, at + START_AT),
                salt: get_u64(bytes, at + SALT_AT),
                tag: get_u64(bytes, at + TAG_AT),
                number: get_u64(bytes, at + NUMBER_AT),
            };
            if incarnation.start & FRAME_ALIGN_MASK != 0 || incarnation.start >= POSITION_MAX {
                return Err(PageFault::Field("start"));
            }
            if incarnation.number >= COUNT_MAX {
                return Err(PageFault::Field("number"));
            }
            if !is_salt(incarnation.salt) {
                return Err(PageFault::Field("salt"));
            }
            if let Some(last) = incarnations.last()
                && (last.start > incarnation.start || last.number >= incarnation.number)
            {
                return Err(PageFault::Field("order"));
            }
            incarnations.push(incarnation);
        }
        Ok(Incarnations(incarnations))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::frame::salt_from;

    fn incarnation(number: u64, start: u64) -> Incarnation {
        Incarnation {
            start,
            salt: salt_from(number * 7),
            tag: number,
            number,
        }
    }

    #[test]
    fn a_position_belongs_to_the_last_life_that_began_at_or_before_it() {
        let mut incarnations = Incarnations::first(incarnation(1, 64));
        assert!(incarnations.push(incarnation(2, 128)));
        assert!(incarnations.push(incarnation(3, 128)));
        assert_eq!(incarnations.at(48), None);
        assert_eq!(incarnations.at(64).map(|l| l.number), Some(1));
        assert_eq!(incarnations.at(112).map(|l| l.number), Some(1));
        assert_eq!(incarnations.at(128).map(|l| l.number), Some(3));
        assert_eq!(incarnations.end_at(64), Some(128));
        assert_eq!(incarnations.end_at(128), None);
        assert_eq!(
            Incarnations::decode(&incarnations.encode()),
            Ok(incarnations.clone())
        );
        incarnations.prune(64, 144);
        assert_eq!(incarnations.count(), 2, "the empty incarnation 2 collapses");
        incarnations.prune(128, 144);
        assert_eq!(incarnations.count(), 1);
        incarnations.prune(128, 128);
        assert_eq!(
            incarnations.count(),
            0,
            "and the last, where another one follows"
        );
    }

    #[test]
    fn a_full_table_takes_no_more() {
        let mut incarnations = Incarnations::first(incarnation(1, 0));
        for n in 2..=INCARNATIONS_MAX as u64 {
            assert!(incarnations.push(incarnation(n, n * 16)));
        }
        assert!(!incarnations.push(incarnation(5000, 1 << 30)));
        assert_eq!(
            Incarnations::decode(&incarnations.encode()),
            Ok(incarnations)
        );
    }
}
