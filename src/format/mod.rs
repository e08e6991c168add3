//! What the bytes of a walchan file mean. Pure: no I/O, no atomics.
//!
//! The prose is `docs/format.md`, the one home of the layout; this module is the same in constants
//! and functions, and its tests hold the two together. Everything is little-endian.

pub(crate) mod checkpoint;
pub(crate) mod frame;
pub(crate) mod identity;
pub(crate) mod incarnations;

/// Header pages are written and trusted one by one.
pub(crate) const PAGE_LEN: u64 = 4096;
/// The medium persists this much at once, or nothing of it.
pub(crate) const SECTOR_LEN: u64 = 512;
/// Pages of one copy of the incarnation table.
pub(crate) const TABLE_PAGES: u64 = 8;

pub(crate) const IDENTITY_OFFSET: u64 = 0;
pub(crate) const TABLE_OFFSETS: [u64; 2] = [
    IDENTITY_OFFSET + PAGE_LEN,
    IDENTITY_OFFSET + PAGE_LEN + TABLE_PAGES * PAGE_LEN,
];
pub(crate) const CHECKPOINT_OFFSETS: [u64; 2] = [
    TABLE_OFFSETS[1] + TABLE_PAGES * PAGE_LEN,
    TABLE_OFFSETS[1] + (TABLE_PAGES + 1) * PAGE_LEN,
];
/// Length of the header, and offset of the ring.
pub(crate) const HEADER_LEN: u64 = CHECKPOINT_OFFSETS[1] + PAGE_LEN;

pub(crate) const CAPACITY_MIN: u64 = 64 * 1024;
/// Keeps every sum of a position and a few capacities inside 60 bits.
pub(crate) const CAPACITY_MAX: u64 = 1 << 44;
/// Positions stay below this, so that `position >> 4` fits the 56 bits of a frame's first word.
pub(crate) const POSITION_MAX: u64 = 1 << 59;

/// Generations and numbers of lives stay below this, so that the next one always exists.
pub(crate) const COUNT_MAX: u64 = 1 << 62;

const _: () = assert!(HEADER_LEN == 19 * PAGE_LEN, "docs/format.md says 77,824");
const _: () = assert!(POSITION_MAX >> 4 < 1 << 56);

/// Bits of a position that are zero at the start of a frame.
pub(crate) const FRAME_ALIGN_MASK: u64 = frame::FRAME_ALIGN - 1;

/// Reads the little-endian `u64` at `at`.
pub(crate) fn get_u64(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// Reads the little-endian `u32` at `at`.
pub(crate) fn get_u32(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

pub(crate) fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Why a header page cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PageFault {
    Magic,
    Version(u32),
    Checksum,
    Reserved,
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
