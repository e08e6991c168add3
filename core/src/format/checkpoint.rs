//! The checkpoint: 64 bytes at the start of a page of its own, two pages written alternately.

use super::{COUNT_MAX, FRAME_ALIGN_MASK, POSITION_MAX, PageFault};
use super::{get_u32, get_u64, is_zero, put_u32, put_u64};

const GENERATION_AT: usize = 0;
const HEAD_AT: usize = GENERATION_AT + 8;
const COMMIT_AT: usize = HEAD_AT + 8;
const TAIL_AT: usize = COMMIT_AT + 8;
const BASE_AT: usize = TAIL_AT + 8;
const UNACKNOWLEDGED_AT: usize = BASE_AT + 8;
const HANDED_OUT_AT: usize = UNACKNOWLEDGED_AT + 8;
const FLAGS_AT: usize = HANDED_OUT_AT + 4;
const CRC_AT: usize = FLAGS_AT + 4;
/// Bytes of a checkpoint: within one sector, so that it lands whole or not at all.
pub const CHECKPOINT_LEN: usize = CRC_AT + 4 + 4;
const FLAG_CLEAN: u32 = 1;
const FLAG_SEALED: u32 = 2;

const _: () = assert!(CHECKPOINT_LEN == 64);
const _: () = assert!(CHECKPOINT_LEN as u64 <= super::SECTOR_LEN);

/// As `docs/format.md` has them.
#[cfg(test)]
pub(super) const FIELDS: &[(&str, usize)] = &[
    ("generation", GENERATION_AT),
    ("head", HEAD_AT),
    ("commit", COMMIT_AT),
    ("tail", TAIL_AT),
    ("base", BASE_AT),
    ("messages not acknowledged", UNACKNOWLEDGED_AT),
    ("of these, handed out", HANDED_OUT_AT),
    ("flags", FLAGS_AT),
    ("CRC-32", CRC_AT),
    ("reserved", CRC_AT + 4),
];

/// What recovery starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Grows by one with each checkpoint; the valid page with the larger one is the newest.
    pub generation: u64,
    /// All before it is acknowledged.
    pub head: u64,
    /// All before it was on stable storage.
    pub commit: u64,
    /// Next position to claim. Trusted only in a clean checkpoint.
    pub tail: u64,
    /// Position of offset 0 of the ring.
    pub base: u64,
    /// Messages not acknowledged. Trusted only in a clean checkpoint.
    pub unacknowledged: u64,
    /// Of these, handed out before. Trusted only in a clean checkpoint.
    pub handed_out: u32,
    /// The channel was closed in order: nothing lies behind `tail`.
    pub clean: bool,
    /// The file ends at `tail`, and another one follows.
    pub sealed: bool,
}

impl Checkpoint {
    /// That of a file to which nothing was sent yet.
    pub fn at(position: u64, generation: u64) -> Self {
        Checkpoint {
            generation,
            head: position,
            commit: position,
            tail: position,
            ..Checkpoint::default()
        }
    }

    /// The bytes of a page from its start; the rest of the page is zero.
    pub fn encode(&self) -> [u8; CHECKPOINT_LEN] {
        let mut bytes = [0; CHECKPOINT_LEN];
        put_u64(&mut bytes, GENERATION_AT, self.generation);
        put_u64(&mut bytes, HEAD_AT, self.head);
        put_u64(&mut bytes, COMMIT_AT, self.commit);
        put_u64(&mut bytes, TAIL_AT, self.tail);
        put_u64(&mut bytes, BASE_AT, self.base);
        put_u64(&mut bytes, UNACKNOWLEDGED_AT, self.unacknowledged);
        put_u32(&mut bytes, HANDED_OUT_AT, self.handed_out);
        let flags = u32::from(self.clean) * FLAG_CLEAN + u32::from(self.sealed) * FLAG_SEALED;
        put_u32(&mut bytes, FLAGS_AT, flags);
        let crc = crc32fast::hash(&bytes[..CRC_AT]);
        put_u32(&mut bytes, CRC_AT, crc);
        bytes
    }

    /// `page` is the whole page: what lies behind the checkpoint must be zero.
    pub fn decode(page: &[u8], capacity: u64) -> Result<Self, PageFault> {
        if page.len() < CHECKPOINT_LEN || get_u32(page, CRC_AT) != crc32fast::hash(&page[..CRC_AT])
        {
            return Err(PageFault::Checksum);
        }
        if !is_zero(&page[CRC_AT + 4..]) {
            return Err(PageFault::Reserved);
        }
        let flags = get_u32(page, FLAGS_AT);
        if flags & !(FLAG_CLEAN | FLAG_SEALED) != 0 {
            return Err(PageFault::Field("flags"));
        }
        let checkpoint = Checkpoint {
            generation: get_u64(page, GENERATION_AT),
            head: get_u64(page, HEAD_AT),
            commit: get_u64(page, COMMIT_AT),
            tail: get_u64(page, TAIL_AT),
            base: get_u64(page, BASE_AT),
            unacknowledged: get_u64(page, UNACKNOWLEDGED_AT),
            handed_out: get_u32(page, HANDED_OUT_AT),
            clean: flags & FLAG_CLEAN != 0,
            sealed: flags & FLAG_SEALED != 0,
        };
        checkpoint.judge(capacity)?;
        Ok(checkpoint)
    }

    /// The relations that hold in every checkpoint ever written.
    fn judge(&self, capacity: u64) -> Result<(), PageFault> {
        if self.generation >= COUNT_MAX {
            return Err(PageFault::Field("generation"));
        }
        for (name, position) in [
            ("head", self.head),
            ("commit", self.commit),
            ("tail", self.tail),
            ("base", self.base),
        ] {
            if position & FRAME_ALIGN_MASK != 0 || position >= POSITION_MAX {
                return Err(PageFault::Field(name));
            }
        }
        if self.base > self.head || self.base & (capacity - 1) != 0 {
            return Err(PageFault::Field("base"));
        }
        if self.tail < self.head || self.tail - self.head > capacity {
            return Err(PageFault::Field("tail"));
        }
        if self.commit > self.tail {
            return Err(PageFault::Field("commit"));
        }
        if self.sealed && !self.clean {
            return Err(PageFault::Field("flags"));
        }
        let frames_max = (self.tail - self.head) / (FRAME_ALIGN_MASK + 1);
        if self.unacknowledged > frames_max || u64::from(self.handed_out) > self.unacknowledged {
            return Err(PageFault::Field("unacknowledged"));
        }
        Ok(())
    }
}
