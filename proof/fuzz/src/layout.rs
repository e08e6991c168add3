//! The layout of a file, written down a second time from `docs/format.md`: what the fuzzer builds files with,
//! and what it judges the library by. Nothing here comes from the library.

use std::ops::Range;

pub const HEADER: usize = 77_824;
pub const TABLES: [usize; 2] = [4_096, 36_864];
pub const TABLE_LEN: usize = 32_768;
pub const INCARNATIONS_MAX: usize = 1_022;
pub const CHECKPOINTS: [usize; 2] = [69_632, 73_728];
pub const PAGE: usize = 4_096;
pub const POSITION_MAX: u64 = 1 << 59;
pub const COUNT_MAX: u64 = 1 << 62;
const SALT_TOP: u64 = 1 << 55;

/// States 0 to 14 deliveries, then acknowledged.
pub const STATES: [u8; 16] = [
    0x35, 0xb2, 0xac, 0x2b, 0x9f, 0x18, 0x06, 0x81, 0x7e, 0xf9, 0xe7, 0x60, 0xd4, 0x53, 0x4d, 0xca,
];
pub const ACKNOWLEDGED: u8 = 15;

pub const FIRST: u8 = 0;
pub const MESSAGE: u8 = 1;
pub const PADDING: u8 = 2;
pub const ABANDONED: u8 = 3;

pub fn get(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

pub fn get32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

pub fn put(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

pub fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn zero(bytes: &[u8]) -> bool {
    const ZEROS: [u8; 512] = [0; 512];
    bytes.chunks(512).all(|part| *part == ZEROS[..part.len()])
}

/// A row of the incarnation table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub start: u64,
    pub salt: u64,
    pub tag: u64,
    pub number: u64,
}

pub fn salt_of(random: u64) -> u64 {
    random & (SALT_TOP - 1) | SALT_TOP
}

fn table_crc(copy: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&copy[..8]);
    hasher.update(&copy[12..TABLE_LEN]);
    hasher.finalize()
}

pub fn seal_table(copy: &mut [u8]) {
    let crc = table_crc(copy);
    put32(copy, 8, crc);
}

/// Writes a table, with a right checksum, whatever the rows say.
pub fn write_table(copy: &mut [u8], rows: &[Row]) {
    copy[..TABLE_LEN].fill(0);
    copy[..8].copy_from_slice(b"WALCLIFE");
    put32(copy, 12, rows.len() as u32);
    for (row, at) in rows.iter().zip((64..).step_by(32)) {
        put(copy, at, row.start);
        put(copy, at + 8, row.salt);
        put(copy, at + 16, row.tag);
        put(copy, at + 24, row.number);
    }
    seal_table(copy);
}

fn is_position(value: u64) -> bool {
    value.is_multiple_of(16) && value < POSITION_MAX
}

pub fn read_table(copy: &[u8]) -> Option<Vec<Row>> {
    let copy = &copy[..TABLE_LEN];
    if &copy[..8] != b"WALCLIFE" || get32(copy, 8) != table_crc(copy) {
        return None;
    }
    let count = get32(copy, 12) as usize;
    if count == 0
        || count > INCARNATIONS_MAX
        || !zero(&copy[16..64])
        || !zero(&copy[64 + 32 * count..])
    {
        return None;
    }
    let mut rows: Vec<Row> = Vec::new();
    for at in (64..64 + 32 * count).step_by(32) {
        let row = Row {
            start: get(copy, at),
            salt: get(copy, at + 8),
            tag: get(copy, at + 16),
            number: get(copy, at + 24),
        };
        let salty = row.salt & SALT_TOP != 0 && row.salt >> 56 == 0;
        let behind = rows
            .last()
            .is_none_or(|last| last.start <= row.start && last.number < row.number);
        if !is_position(row.start) || !salty || row.number >= COUNT_MAX || !behind {
            return None;
        }
        rows.push(row);
    }
    Some(rows)
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    pub generation: u64,
    pub head: u64,
    pub commit: u64,
    pub tail: u64,
    pub base: u64,
    pub unacknowledged: u64,
    pub handed_out: u32,
    pub flags: u32,
}

impl Checkpoint {
    pub fn clean(&self) -> bool {
        self.flags & 1 == 1
    }

    /// Writes it with a right checksum, whatever it says.
    pub fn write(&self, page: &mut [u8]) {
        let words = [
            self.generation,
            self.head,
            self.commit,
            self.tail,
            self.base,
            self.unacknowledged,
        ];
        for (word, at) in words.into_iter().zip((0..).step_by(8)) {
            put(page, at, word);
        }
        put32(page, 48, self.handed_out);
        put32(page, 52, self.flags);
        seal_checkpoint(page);
    }

    pub fn read(page: &[u8], capacity: u64) -> Option<Checkpoint> {
        let page = &page[..PAGE];
        let this = Checkpoint {
            generation: get(page, 0),
            head: get(page, 8),
            commit: get(page, 16),
            tail: get(page, 24),
            base: get(page, 32),
            unacknowledged: get(page, 40),
            handed_out: get32(page, 48),
            flags: get32(page, 52),
        };
        let sound = get32(page, 56) == crc32fast::hash(&page[..56]) && zero(&page[60..]);
        let positions = [this.head, this.commit, this.tail, this.base];
        let ordered = sound
            && positions.into_iter().all(is_position)
            && this.base <= this.head
            && this.base.is_multiple_of(capacity)
            && this.head <= this.tail
            && this.tail - this.head <= capacity
            && this.commit <= this.tail;
        let counted = ordered
            && this.unacknowledged <= (this.tail - this.head) / 16
            && u64::from(this.handed_out) <= this.unacknowledged;
        // Sealed, bit 1, only together with clean.
        let flagged = matches!(this.flags, 0 | 1 | 3);
        (counted && flagged && this.generation < COUNT_MAX).then_some(this)
    }
}

pub fn seal_checkpoint(page: &mut [u8]) {
    let crc = crc32fast::hash(&page[..56]);
    put32(page, 56, crc);
}

/// What the header says, by the newest valid copies.
#[derive(Clone, Debug)]
pub struct Header {
    pub incarnations: Vec<Row>,
    pub checkpoint: Checkpoint,
    /// Offsets of invalid copies.
    pub faults: Vec<u64>,
}

/// Of two copies the newer; `None` where both are invalid.
fn newer<T>(
    offsets: [usize; 2],
    copies: [Option<T>; 2],
    age: impl Fn(&T) -> u64,
    faults: &mut Vec<u64>,
) -> Option<T> {
    for (offset, copy) in offsets.iter().zip(&copies) {
        if copy.is_none() {
            faults.push(*offset as u64);
        }
    }
    let [a, b] = copies;
    match (a, b) {
        (Some(a), Some(b)) => Some(if age(&b) > age(&a) { b } else { a }),
        (one, other) => one.or(other),
    }
}

impl Header {
    pub fn read(image: &[u8], capacity: u64) -> Option<Header> {
        let mut faults = Vec::new();
        let [a, b] = TABLES.map(|at| &image[at..at + TABLE_LEN]);
        let first = read_table(a);
        let second = if a == b { first.clone() } else { read_table(b) };
        let tables = [first, second];
        let number = |rows: &Vec<Row>| rows[rows.len() - 1].number;
        let incarnations = newer(TABLES, tables, number, &mut faults);
        let pages = CHECKPOINTS.map(|at| Checkpoint::read(&image[at..], capacity));
        let checkpoint = newer(CHECKPOINTS, pages, |c| c.generation, &mut faults);
        Some(Header {
            incarnations: incarnations?,
            checkpoint: checkpoint?,
            faults,
        })
    }

    pub fn newest(&self) -> Row {
        self.incarnations[self.incarnations.len() - 1]
    }
}

/// The incarnation that covers a position, and where it ends.
pub fn incarnation_at(incarnations: &[Row], position: u64) -> Option<(Row, u64)> {
    let behind = incarnations.partition_point(|incarnation| incarnation.start <= position);
    let incarnation = incarnations.get(behind.checked_sub(1)?)?;
    Some((
        *incarnation,
        incarnations.get(behind).map_or(u64::MAX, |next| next.start),
    ))
}

pub fn checksum(position: u64, salt: u64, kind: u8, len: u32, crc: u32) -> u32 {
    let place = ((position >> 4) ^ salt.rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let place = (place ^ (place >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let shape = (u32::from(kind) << 30 | len).wrapping_mul(0x85eb_ca6b);
    crc ^ (place >> 32) as u32 ^ shape
}

/// The 16 bytes of a frame's header, right in everything, but for what the arguments get wrong.
pub fn frame_header(position: u64, salt: u64, state: u8, kind: u8, len: u32, crc: u32) -> [u8; 16] {
    let word0 = ((position >> 4) ^ salt) << 8 | u64::from(state);
    let sum = checksum(position, salt, kind, len, crc);
    let word1 = u64::from(sum) << 32 | u64::from(kind) << 30 | u64::from(len);
    let mut header = [0; 16];
    put(&mut header, 0, word0);
    put(&mut header, 8, word1);
    header
}

pub fn frame_len(len: u64) -> u64 {
    16 + len.next_multiple_of(16)
}

/// A valid frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub position: u64,
    pub end: u64,
    pub kind: u8,
    /// Number of the state.
    pub state: u8,
    /// Of its payload, in the file.
    pub bytes: Range<usize>,
}

pub fn is_message(kind: u8) -> bool {
    kind == FIRST || kind == MESSAGE
}

impl Frame {
    pub fn is_waiting(&self) -> bool {
        is_message(self.kind) && self.state != ACKNOWLEDGED
    }
}

/// A file, and how its frames are to be read.
#[derive(Clone, Copy)]
pub struct Ring<'a> {
    pub image: &'a [u8],
    pub capacity: u64,
    pub incarnations: &'a [Row],
}

impl Ring<'_> {
    pub fn place(&self, position: u64) -> usize {
        HEADER + (position % self.capacity) as usize
    }

    /// Whether the first word there names the position.
    pub fn is_named(&self, position: u64) -> bool {
        let word0 = get(self.image, self.place(position));
        incarnation_at(self.incarnations, position)
            .is_some_and(|(incarnation, _)| word0 >> 8 == (position >> 4) ^ incarnation.salt)
    }

    /// What the header there says, if it is one; its checksum is not looked at.
    pub fn header(&self, position: u64, stop: u64) -> Option<Frame> {
        let (_, incarnation_end) = incarnation_at(self.incarnations, position)?;
        if !self.is_named(position) {
            return None;
        }
        let at = self.place(position);
        let (word0, word1) = (get(self.image, at), get(self.image, at + 8));
        let state = STATES
            .iter()
            .position(|code| u64::from(*code) == word0 & 0xff)? as u8;
        let (kind, len) = ((word1 >> 30 & 3) as u8, word1 & 0x3fff_ffff);
        let end = position + frame_len(len);
        let ring_end = position - position % self.capacity + self.capacity;
        if (kind == FIRST && len == 0)
            || (!is_message(kind) && state != ACKNOWLEDGED)
            || end > ring_end.min(incarnation_end).min(stop)
            || end >= POSITION_MAX
        {
            return None;
        }
        Some(Frame {
            position,
            end,
            kind,
            state,
            bytes: at + 16..at + 16 + len as usize,
        })
    }

    /// The frame at a position, if it is valid by the five points.
    pub fn frame(&self, position: u64, stop: u64) -> Option<Frame> {
        let frame = self.header(position, stop)?;
        let (incarnation, _) = incarnation_at(self.incarnations, position)?;
        let crc = match frame.kind {
            FIRST | MESSAGE => crc32fast::hash(&self.image[frame.bytes.clone()]),
            _ => 0,
        };
        let word1 = get(self.image, self.place(position) + 8);
        let len = (word1 & 0x3fff_ffff) as u32;
        let right =
            (word1 >> 32) as u32 == checksum(position, incarnation.salt, frame.kind, len, crc);
        right.then_some(frame)
    }

    /// The valid frames of `[from, stop)`, each from the end of the one before, and the gaps between.
    pub fn walk(&self, from: u64, stop: u64) -> Walk {
        let mut walk = Walk::default();
        let (mut at, mut gap) = (from, None);
        while at < stop {
            match self.frame(at, stop) {
                Some(frame) => {
                    walk.gaps.extend(gap.take().map(|start| (start, at)));
                    at = frame.end;
                    walk.frames.push(frame);
                }
                None => {
                    gap.get_or_insert(at);
                    at += 16;
                }
            }
        }
        walk.gaps.extend(gap.map(|start| (start, stop)));
        walk
    }

    /// The furthest end of a frame of the newest incarnation that lies one or more laps ahead at a place of
    /// these gaps.
    pub fn furthest_ahead(&self, gaps: &[(u64, u64)], stop: u64) -> Option<u64> {
        let incarnation = self.incarnations[self.incarnations.len() - 1];
        let mut furthest = None;
        for at in gaps.iter().flat_map(|(from, to)| (*from..*to).step_by(16)) {
            let ahead = (get(self.image, self.place(at)) >> 8 ^ incarnation.salt) << 4;
            if ahead % self.capacity == at % self.capacity
                && ahead >= at
                && ahead >= incarnation.start
                && ahead < POSITION_MAX
            {
                let frame = self.frame(ahead, ahead + self.capacity);
                let end = frame.map(|frame| frame.end).filter(|end| *end > stop);
                furthest = furthest.max(end);
            }
        }
        furthest
    }
}

/// What lies in a part of the ring.
#[derive(Clone, Debug, Default)]
pub struct Walk {
    pub frames: Vec<Frame>,
    /// From where to where nothing is valid.
    pub gaps: Vec<(u64, u64)>,
}
