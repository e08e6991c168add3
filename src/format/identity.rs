//! The identity page: written once, when the file is made.

use super::{CAPACITY_MAX, CAPACITY_MIN, HEADER_LEN, PAGE_LEN, PageFault};
use super::{get_u32, get_u64, is_zero, put_u32, put_u64};

/// As in PNG: a byte with the high bit, the name, and line ends that a text transfer would change.
pub(crate) const MAGIC: [u8; 8] = *b"\x89WALC\r\n\x1a";
pub(crate) const FORMAT_VERSION: u32 = 1;
pub(crate) const SCHEMA_LEN_MAX: usize = 255;

const MAGIC_AT: usize = 0;
const VERSION_AT: usize = MAGIC_AT + 8;
const HEADER_LEN_AT: usize = VERSION_AT + 4;
const CAPACITY_AT: usize = HEADER_LEN_AT + 4;
const CHANNEL_ID_AT: usize = CAPACITY_AT + 8;
const CODEC_AT: usize = CHANNEL_ID_AT + 16;
const SCHEMA_LEN_AT: usize = CODEC_AT + 4;
const SCHEMA_AT: usize = SCHEMA_LEN_AT + 1;
const RESERVED_AT: usize = SCHEMA_AT + SCHEMA_LEN_MAX;
const CRC_AT: usize = PAGE_LEN as usize - 4;

const _: () = assert!(RESERVED_AT == 300, "docs/format.md");

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
    ("reserved", RESERVED_AT),
    ("CRC-32", CRC_AT),
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Bytes of ring; a power of two.
    pub(crate) capacity: u64,
    pub(crate) channel_id: [u8; 16],
    pub(crate) codec: u32,
    /// Empty where none was given.
    pub(crate) schema: String,
}

impl Identity {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut page = vec![0; PAGE_LEN as usize];
        page[MAGIC_AT..MAGIC_AT + 8].copy_from_slice(&MAGIC);
        put_u32(&mut page, VERSION_AT, FORMAT_VERSION);
        put_u32(&mut page, HEADER_LEN_AT, HEADER_LEN as u32);
        put_u64(&mut page, CAPACITY_AT, self.capacity);
        page[CHANNEL_ID_AT..CHANNEL_ID_AT + 16].copy_from_slice(&self.channel_id);
        put_u32(&mut page, CODEC_AT, self.codec);
        let schema = self.schema.as_bytes();
        page[SCHEMA_LEN_AT] = schema.len() as u8;
        page[SCHEMA_AT..SCHEMA_AT + schema.len()].copy_from_slice(schema);
        let crc = crc32fast::hash(&page[..CRC_AT]);
        put_u32(&mut page, CRC_AT, crc);
        page
    }

    /// The version is judged before the checksum: a later version may lay the rest out otherwise.
    pub(crate) fn decode(page: &[u8]) -> Result<Self, PageFault> {
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
        if version != FORMAT_VERSION {
            return Err(PageFault::Version(version));
        }
        if u64::from(get_u32(page, HEADER_LEN_AT)) != HEADER_LEN {
            return Err(PageFault::Field("header length"));
        }
        let capacity = get_u64(page, CAPACITY_AT);
        if !capacity.is_power_of_two() || !(CAPACITY_MIN..=CAPACITY_MAX).contains(&capacity) {
            return Err(PageFault::Field("capacity"));
        }
        let schema_len = usize::from(page[SCHEMA_LEN_AT]);
        let schema = std::str::from_utf8(&page[SCHEMA_AT..SCHEMA_AT + schema_len])
            .map_err(|_| PageFault::Field("schema"))?;
        if !is_zero(&page[SCHEMA_AT + schema_len..CRC_AT]) {
            return Err(PageFault::Reserved);
        }
        let mut channel_id = [0; 16];
        channel_id.copy_from_slice(&page[CHANNEL_ID_AT..CHANNEL_ID_AT + 16]);
        Ok(Identity {
            capacity,
            channel_id,
            codec: get_u32(page, CODEC_AT),
            schema: schema.to_owned(),
        })
    }
}
