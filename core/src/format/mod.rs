//! What the bytes of a walchan file mean. Pure: no I/O, no atomics.
//!
//! The prose is `docs/format.md`, the one home of the layout; this module is the same in constants
//! and functions, and its tests hold the two together. Everything is little-endian.

pub mod checkpoint;
pub mod frame;
pub mod identity;
pub mod incarnations;

pub use crate::storage::{get_u64, put_u64};

/// Header pages are written and trusted one by one.
pub const PAGE_LEN: u64 = 4096;
/// The medium persists this much at once, or nothing of it.
pub const SECTOR_LEN: u64 = 512;
/// Pages of one copy of the incarnation table.
pub const TABLE_PAGES: u64 = 8;

/// Where the identity page begins.
pub const IDENTITY_OFFSET: u64 = 0;
/// Where the two copies of the incarnation table begin.
pub const TABLE_OFFSETS: [u64; 2] = [
    IDENTITY_OFFSET + PAGE_LEN,
    IDENTITY_OFFSET + PAGE_LEN + TABLE_PAGES * PAGE_LEN,
];
/// Where the two checkpoint pages begin.
pub const CHECKPOINT_OFFSETS: [u64; 2] = [
    TABLE_OFFSETS[1] + TABLE_PAGES * PAGE_LEN,
    TABLE_OFFSETS[1] + (TABLE_PAGES + 1) * PAGE_LEN,
];
/// Length of the header, and offset of the ring.
pub const HEADER_LEN: u64 = CHECKPOINT_OFFSETS[1] + PAGE_LEN;

/// Bytes of the smallest ring.
pub const CAPACITY_MIN: u64 = 64 * 1024;
/// Keeps every sum of a position and a few capacities inside 60 bits.
pub const CAPACITY_MAX: u64 = 1 << 44;
/// Positions stay below this, so that `position >> 4` fits the 56 bits of a frame's first word.
pub const POSITION_MAX: u64 = 1 << 59;

/// Generations and numbers of incarnations stay below this, so that the next one always exists.
pub const COUNT_MAX: u64 = 1 << 62;

const _: () = assert!(HEADER_LEN == 19 * PAGE_LEN, "docs/format.md says 77,824");
const _: () = assert!(POSITION_MAX >> 4 < 1 << 56);

/// Frames begin at multiples of this, so that a header never crosses a sector or the ring's end.
pub const FRAME_ALIGN: u64 = 16;
/// Bits of a position that are zero at the start of a frame.
pub const FRAME_ALIGN_MASK: u64 = FRAME_ALIGN - 1;

/// Reads the little-endian `u32` at `at`.
pub fn get_u32(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

/// Writes the little-endian `u32` at `at`.
pub fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Whether all bytes are zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    const ZEROS: [u8; 512] = [0; 512];
    bytes
        .chunks(ZEROS.len())
        .all(|part| *part == ZEROS[..part.len()])
}

/// Why a header page cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageFault {
    /// It does not begin as it should.
    Magic,
    /// It is of another version.
    Version(u32),
    /// The checksum does not match.
    Checksum,
    /// Reserved bytes are not zero.
    Reserved,
    /// A field is out of its range.
    Field(&'static str),
}

impl std::fmt::Display for PageFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PageFault::Magic => f.write_str("the magic bytes are not walchan's"),
            PageFault::Version(v) => write!(f, "format version {v} is not known"),
            PageFault::Checksum => f.write_str("the checksum does not match"),
            PageFault::Reserved => f.write_str("reserved bytes are not zero"),
            PageFault::Field(name) => write!(f, "field {name} is out of range"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::sync::LazyLock;

    /// Not a part of the package: it is there in the repository only.
    static DOCS: LazyLock<String> = LazyLock::new(|| {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/format.md");
        std::fs::read_to_string(path).unwrap()
    });

    /// The rows of the table whose head is `| offset | bytes | <name> |`.
    fn table(name: &str, nth: usize) -> Vec<(u64, Option<u64>, String)> {
        let head = format!("| offset | bytes | {name} |");
        let (at, _) = DOCS.match_indices(&head).nth(nth).unwrap();
        let rows = DOCS[at..].lines().skip(2);
        rows.take_while(|line| line.starts_with('|'))
            .map(|line| {
                let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
                let bytes = cells[1].parse().ok();
                (cells[0].parse().unwrap(), bytes, cells[2].to_owned())
            })
            .collect()
    }

    /// The documented fields are these, one behind the other, and end at `len`.
    fn compare(name: &str, nth: usize, fields: &[(&str, usize)], len: Option<usize>) {
        let rows = table(name, nth);
        assert_eq!(rows.len(), fields.len(), "{name}: {rows:?}");
        for (row, (text, at)) in rows.iter().zip(fields) {
            assert_eq!(row.0, *at as u64, "{name}: {row:?}");
            assert!(row.2.starts_with(text), "{name}: {row:?}");
        }
        let ends = rows.iter().map(|row| row.1.map(|bytes| row.0 + bytes));
        let starts = rows.iter().skip(1).map(|row| Some(row.0));
        let starts = starts.chain([len.map(|len| len as u64)]);
        assert!(ends.eq(starts), "{name} has a gap: {rows:?}");
    }

    #[test]
    fn the_documented_offsets_are_those_of_the_code() {
        let [table_a, table_b] = TABLE_OFFSETS.map(|at| at as usize);
        let [page_a, page_b] = CHECKPOINT_OFFSETS.map(|at| at as usize);
        let parts = [
            ("identity", IDENTITY_OFFSET as usize),
            ("incarnation table, first", table_a),
            ("incarnation table, second", table_b),
            ("checkpoint page, first", page_a),
            ("checkpoint page, second", page_b),
            ("ring", HEADER_LEN as usize),
        ];
        compare("part", 0, &parts, None);
        compare("field", 0, identity::FIELDS, Some(PAGE_LEN as usize));
        let table_len = incarnations::TABLE_LEN;
        compare("field", 1, incarnations::FIELDS, Some(table_len));
        let (incarnation, len) = (incarnations::ENTRY_FIELDS, incarnations::ENTRY_LEN);
        compare("incarnation", 0, incarnation, Some(len));
        let len = checkpoint::CHECKPOINT_LEN;
        compare("checkpoint", 0, checkpoint::FIELDS, Some(len));
        let header = frame::FRAME_HEADER_LEN as usize;
        let words = [("word0", 0), ("word1", 8), ("payload", header)];
        compare("frame", 0, &words, None);
    }

    /// The rows of the table with this head: first cell, second cell.
    fn pairs(head: &str) -> BTreeMap<String, String> {
        let (_, rest) = DOCS.split_once(head).unwrap();
        let rows = rest.lines().skip(2);
        rows.take_while(|line| line.starts_with('|'))
            .map(|line| {
                let mut cells = line.trim_matches('|').split('|');
                let mut cell = || cells.next().unwrap().trim().trim_matches('`').to_owned();
                (cell(), cell())
            })
            .collect()
    }

    #[test]
    fn the_documented_code_words_kinds_and_numbers_are_those_of_the_code() {
        let words = pairs("| state | code word |");
        assert_eq!(words.len(), 16);
        for (state, word) in words {
            let number = state.split(' ').next().unwrap();
            let state = match number {
                "acknowledged" => frame::State::Acknowledged,
                n => frame::State::Delivered(n.parse().unwrap()),
            };
            let word = u64::from_str_radix(&word, 16).unwrap();
            assert_eq!(frame::state_of(word), Some(state), "{word:02x}");
        }
        let kinds = pairs("| kind | meaning |");
        for (kind, meaning) in kinds {
            let word = kind.parse::<u64>().unwrap() << 30 | 1;
            let decoded = format!("{:?}", frame::Word1::decode(word).unwrap().kind());
            let name = meaning.split(':').next().unwrap().replace(' ', "");
            assert_eq!(decoded.to_lowercase(), name);
        }
        let magic = identity::MAGIC.map(|b| format!("{b:02x}")).join(" ");
        for said in [
            format!("magic: `{magic}`"),
            format!("format version: {}", identity::FORMAT_VERSION),
            format!("header length: {HEADER_LEN}"),
            format!(
                "number of incarnations, 1 to {}",
                incarnations::INCARNATIONS_MAX
            ),
        ] {
            assert!(DOCS.contains(&said), "{said}");
        }
        assert_eq!((CAPACITY_MIN, CAPACITY_MAX), (64 << 10, 16 << 40));
        assert_eq!((POSITION_MAX, COUNT_MAX), (1 << 59, 1 << 62));
    }

    #[test]
    fn the_documented_checksum_is_that_of_the_code() {
        let (position, salt, len) = (0x12340u64, frame::salt_from(0x0055_aa77_1234_5678), 77u32);
        for (kind, bits) in [
            (frame::Kind::CommitMarker, 0u32),
            (frame::Kind::Message, 1),
            (frame::Kind::Padding, 2),
            (frame::Kind::Abandoned, 3),
        ] {
            let place =
                ((position >> 4) ^ salt.rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let place = (place ^ (place >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
            let shape = (bits << 30 | len).wrapping_mul(0x85eb_ca6b);
            let crc = 0xcbf4_3926;
            let word1 = frame::Word1::new(kind, position, salt, len, crc);
            assert_eq!(word1.checksum, crc ^ (place >> 32) as u32 ^ shape);
        }
    }
}
