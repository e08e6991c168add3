//! The identity page: written once, when the file is made.

use super::{CAPACITY_MAX, HEADER_LEN, PAGE_LEN, PageFault};
use super::{COUNT_MAX, FRAME_ALIGN_MASK, POSITION_MAX};
use super::{get_u32, get_u64, is_zero, put_u32, put_u64};

/// As in PNG: a byte with the high bit, the name, and line ends that a text transfer would change.
pub const MAGIC: [u8; 8] = *b"\x89WALC\r\n\x1a";
/// The version of the files that are made.
pub const FORMAT_VERSION: u32 = 3;
/// The oldest version that is read. Its files are rings: where version 2 has a number, it has zeros.
const VERSION_MIN: u32 = 1;
/// The oldest version that has segments.
pub const VERSION_OVERFLOW: u32 = 2;
/// The oldest version that knows [`Kind::CommitMarker`](super::frame::Kind::CommitMarker).
const VERSION_FIRST: u32 = 3;
/// Bytes of a schema's name, at most.
pub const SCHEMA_LEN_MAX: usize = 255;

const MAGIC_AT: usize = 0;
const VERSION_AT: usize = MAGIC_AT + 8;
const HEADER_LEN_AT: usize = VERSION_AT + 4;
const CAPACITY_AT: usize = HEADER_LEN_AT + 4;
const CHANNEL_ID_AT: usize = CAPACITY_AT + 8;
const CODEC_AT: usize = CHANNEL_ID_AT + 16;
const SCHEMA_LEN_AT: usize = CODEC_AT + 4;
const SCHEMA_AT: usize = SCHEMA_LEN_AT + 1;
/// Fills up to a multiple of 8.
const GAP_AT: usize = SCHEMA_AT + SCHEMA_LEN_MAX;
const NUMBER_AT: usize = GAP_AT + 4;
const START_AT: usize = NUMBER_AT + 8;
const FOLLOWS_AT: usize = START_AT + 8;
const RESERVED_AT: usize = FOLLOWS_AT + 8;
const CRC_AT: usize = PAGE_LEN as usize - 4;

const _: () = assert!(GAP_AT == 300 && RESERVED_AT == 328, "docs/format.md");

/// As `docs/format.md` has them.
#[cfg(test)]
pub(super) const FIELDS: &[(&str, usize)] = &[
    ("magic", MAGIC_AT),
    ("format version", VERSION_AT),
    ("header length", HEADER_LEN_AT),
    ("capacity", CAPACITY_AT),
    ("channel id", CHANNEL_ID_AT),
    ("codec", CODEC_AT),
    ("length of the schema", SCHEMA_LEN_AT),
    ("schema", SCHEMA_AT),
    ("reserved", GAP_AT),
    ("number", NUMBER_AT),
    ("start", START_AT),
    ("follows", FOLLOWS_AT),
    ("reserved", RESERVED_AT),
    ("CRC-32", CRC_AT),
];

/// What a file is: its first page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Version of the format.
    pub version: u32,
    /// Bytes of ring; a power of two.
    pub capacity: u64,
    /// Random; all files of a channel have it.
    pub channel_id: [u8; 16],
    /// Number of the codec.
    pub codec: u32,
    /// Empty where none was given.
    pub schema: String,
    /// Of a segment, from 1; 0 is the ring.
    pub number: u64,
    /// Position of the first frame of a segment, at offset 0: a multiple of the capacity.
    pub start: u64,
    /// Where the file before it ends.
    pub follows: u64,
}

impl Identity {
    /// Whether messages may tell the commit.
    pub fn has_commit_markers(&self) -> bool {
        self.version >= VERSION_FIRST
    }

    /// Position behind the last frame of a segment; the ring has no such end.
    pub fn end(&self) -> Option<u64> {
        (self.number > 0).then_some(self.start + self.capacity)
    }

    /// The bytes of the page.
    pub fn encode(&self) -> Vec<u8> {
        let mut page = vec![0; PAGE_LEN as usize];
        page[MAGIC_AT..MAGIC_AT + 8].copy_from_slice(&MAGIC);
        put_u32(&mut page, VERSION_AT, self.version);
        put_u32(&mut page, HEADER_LEN_AT, HEADER_LEN as u32);
        put_u64(&mut page, CAPACITY_AT, self.capacity);
        page[CHANNEL_ID_AT..CHANNEL_ID_AT + 16].copy_from_slice(&self.channel_id);
        put_u32(&mut page, CODEC_AT, self.codec);
        let schema = self.schema.as_bytes();
        page[SCHEMA_LEN_AT] = schema.len() as u8;
        page[SCHEMA_AT..SCHEMA_AT + schema.len()].copy_from_slice(schema);
        put_u64(&mut page, NUMBER_AT, self.number);
        put_u64(&mut page, START_AT, self.start);
        put_u64(&mut page, FOLLOWS_AT, self.follows);
        let crc = crc32fast::hash(&page[..CRC_AT]);
        put_u32(&mut page, CRC_AT, crc);
        page
    }

    /// The version is judged before the checksum: a later version may lay the rest out otherwise.
    pub fn decode(page: &[u8], capacity_min: u64) -> Result<Self, PageFault> {
        if page.len() != PAGE_LEN as usize || page[MAGIC_AT..MAGIC_AT + 8] != MAGIC {
            return Err(PageFault::Magic);
        }
        let version = get_u32(page, VERSION_AT);
        let sound = get_u32(page, CRC_AT) == crc32fast::hash(&page[..CRC_AT]);
        if version > FORMAT_VERSION && sound {
            return Err(PageFault::Version(version));
        }
        if !sound {
            return Err(PageFault::Checksum);
        }
        if !(VERSION_MIN..=FORMAT_VERSION).contains(&version) {
            return Err(PageFault::Version(version));
        }
        if u64::from(get_u32(page, HEADER_LEN_AT)) != HEADER_LEN {
            return Err(PageFault::Field("header length"));
        }
        let capacity = get_u64(page, CAPACITY_AT);
        if !capacity.is_power_of_two() || !(capacity_min..=CAPACITY_MAX).contains(&capacity) {
            return Err(PageFault::Field("capacity"));
        }
        let schema_len = usize::from(page[SCHEMA_LEN_AT]);
        let schema = std::str::from_utf8(&page[SCHEMA_AT..SCHEMA_AT + schema_len])
            .map_err(|_| PageFault::Field("schema"))?;
        if !is_zero(&page[SCHEMA_AT + schema_len..NUMBER_AT])
            || !is_zero(&page[RESERVED_AT..CRC_AT])
        {
            return Err(PageFault::Reserved);
        }
        let number = get_u64(page, NUMBER_AT);
        let start = get_u64(page, START_AT);
        let follows = get_u64(page, FOLLOWS_AT);
        if number >= COUNT_MAX || (version < VERSION_OVERFLOW && number > 0) {
            return Err(PageFault::Field("number"));
        }
        let is_ring = number == 0;
        if start & (capacity - 1) != 0 || start >= POSITION_MAX || (is_ring && start > 0) {
            return Err(PageFault::Field("start"));
        }
        if follows > start || follows & FRAME_ALIGN_MASK != 0 || start - follows >= capacity {
            return Err(PageFault::Field("follows"));
        }
        let mut channel_id = [0; 16];
        channel_id.copy_from_slice(&page[CHANNEL_ID_AT..CHANNEL_ID_AT + 16]);
        Ok(Identity {
            version,
            capacity,
            channel_id,
            codec: get_u32(page, CODEC_AT),
            schema: schema.to_owned(),
            number,
            start,
            follows,
        })
    }
}
