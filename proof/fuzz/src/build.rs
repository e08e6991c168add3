//! Files with right checksums, whatever they say: a description derived from the fuzzer's bytes, and the
//! bytes of the file that it describes.

use crate::layout::{
    ABANDONED, ACKNOWLEDGED, CHECKPOINTS, Checkpoint, FIRST, HEADER, INCARNATIONS_MAX, MESSAGE,
    PADDING, POSITION_MAX, Row, STATES, TABLE_LEN, TABLES, frame_header, frame_len, is_message,
    salt_of, write_table,
};
use arbitrary::{Arbitrary, Unstructured};

/// A file.
#[derive(Arbitrary, Debug)]
pub struct Plan {
    ring: u8,
    origin: Origin,
    /// The table is filled up with incarnations before the first frame.
    full: bool,
    first_number: u8,
    frames: Vec<Item>,
    pages: [Page; 2],
    tables: [Lie; 2],
    flips: Vec<Flip>,
}

/// Where the first frame lies.
#[derive(Arbitrary, Debug)]
enum Origin {
    Start,
    Laps(u8, u16),
    End(u16),
}

#[derive(Arbitrary, Debug)]
struct Item {
    what: What,
    /// Low bits: the state. A new incarnation may begin here. Units of 16 bytes may be left out before it.
    how: u8,
    len: Len,
    fault: Fault,
}

#[derive(Arbitrary, Debug)]
enum What {
    Message,
    MessageAgain,
    Done,
    Padding,
    Abandoned,
    NewLife,
    SameLife,
    Skip(u8),
}

#[derive(Arbitrary, Debug)]
enum Len {
    Small(u8),
    Tiny(u8),
    Large(u16),
}

/// What is wrong with a frame.
#[derive(Arbitrary, Debug)]
enum Fault {
    None,
    NoneEither,
    Nothing,
    Checksum,
    Length(u16),
    Kind,
    State(u8),
    /// Another incarnation's salt.
    Salt,
    /// It names a place so many laps ahead, under this salt or the newest.
    Ahead(u8),
    Behind(u8),
    /// A valid frame's image lies in the payload.
    Nested(u8),
    PayloadOnly,
}

/// A checkpoint, in terms of frames.
#[derive(Arbitrary, Debug)]
struct Page {
    generation: u8,
    head: Spot,
    commit: Spot,
    tail: Spot,
    clean: bool,
    counts: u8,
    lie: Lie,
}

#[derive(Arbitrary, Debug)]
enum Spot {
    Frame(u8),
    Last,
    First,
    /// So many units of 16 bytes from the first frame.
    Near(i16),
    Laps(i8),
    Any(u64),
}

/// What is wrong with a copy.
#[derive(Arbitrary, Debug)]
enum Lie {
    None,
    NoneEither,
    NoneAtAll,
    /// The copy is that of an open before.
    Older,
    Checksum,
    Flip(u16),
    Zeros,
}

#[derive(Arbitrary, Debug)]
struct Flip {
    /// A quarter of them hit the header.
    place: u16,
    bit: u8,
}

/// What a plan came to.
pub struct Built {
    pub image: Vec<u8>,
    pub capacity: u64,
}

/// Places and incarnations of the frames while they are laid down.
struct Layer {
    image: Vec<u8>,
    capacity: u64,
    incarnations: Vec<Row>,
    at: u64,
    /// Positions of the frames, and the end.
    spots: Vec<u64>,
}

impl Plan {
    /// The acts follow in the input.
    pub fn take(input: &mut Unstructured<'_>) -> arbitrary::Result<Plan> {
        let mut plan = Plan {
            ring: input.arbitrary()?,
            origin: input.arbitrary()?,
            full: input.ratio(1, 32)?,
            first_number: input.arbitrary()?,
            frames: Vec::new(),
            pages: input.arbitrary()?,
            tables: input.arbitrary()?,
            flips: Vec::new(),
        };
        for _ in 0..input.int_in_range(0..=40)? {
            plan.frames.push(input.arbitrary()?);
        }
        for _ in 0..input.int_in_range(0..=4)? {
            plan.flips.push(input.arbitrary()?);
        }
        Ok(plan)
    }

    /// With a small ring.
    pub fn build(&self) -> Built {
        self.build_in(512 << (self.ring % 4))
    }

    pub fn build_in(&self, capacity: u64) -> Built {
        let origin = match self.origin {
            Origin::Start => 0,
            Origin::Laps(laps, units) => {
                u64::from(laps) * capacity + u64::from(units) * 16 % capacity
            }
            Origin::End(units) => POSITION_MAX - 16 - u64::from(units) * 16 % (4 * capacity),
        };
        let mut layer = Layer {
            image: vec![0; HEADER + capacity as usize],
            capacity,
            incarnations: Vec::new(),
            at: origin,
            spots: vec![origin],
        };
        if self.full {
            for _ in 0..INCARNATIONS_MAX - 1 {
                layer.begin_incarnation(self.first_number);
            }
        }
        layer.begin_incarnation(self.first_number);
        for item in &self.frames {
            layer.lay(item);
        }
        let older = layer.incarnations[..layer.incarnations.len().div_ceil(2)].to_vec();
        for (offset, lie) in TABLES.into_iter().zip(&self.tables) {
            let copy = &mut layer.image[offset..offset + TABLE_LEN];
            let rows = if matches!(lie, Lie::Older) {
                &older
            } else {
                &layer.incarnations
            };
            write_table(copy, rows);
            lie.spoil(copy, 64 + 32 * rows.len() + 8);
        }
        for (offset, page) in CHECKPOINTS.into_iter().zip(&self.pages) {
            let checkpoint = page.checkpoint(&layer);
            let bytes = &mut layer.image[offset..offset + 4096];
            checkpoint.write(bytes);
            page.lie.spoil(bytes, 72);
        }
        for flip in &self.flips {
            let (ring, place) = (capacity as usize, usize::from(flip.place) / 4);
            let at = match flip.place % 4 {
                0 => {
                    [TABLES[0], TABLES[1], CHECKPOINTS[0], CHECKPOINTS[1]][place % 4]
                        + place / 4 % 200
                }
                _ => HEADER + place % ring,
            };
            layer.image[at] ^= 1 << (flip.bit % 8);
        }
        Built {
            image: layer.image,
            capacity,
        }
    }
}

impl Layer {
    fn begin_incarnation(&mut self, first_number: u8) {
        if self.incarnations.len() == INCARNATIONS_MAX || self.at >= POSITION_MAX {
            return;
        }
        let number = self
            .incarnations
            .last()
            .map_or(u64::from(first_number), |incarnation| {
                incarnation.number + 1
            });
        self.incarnations.push(Row {
            start: self.at,
            salt: salt_of(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            tag: number ^ 0x5555,
            number,
        });
    }

    fn lay(&mut self, item: &Item) {
        let to_end = self.capacity - self.at % self.capacity;
        let len = match item.len {
            Len::Small(len) => u64::from(len),
            Len::Tiny(len) => u64::from(len % 24),
            Len::Large(len) => u64::from(len) % (self.capacity / 2 - 31),
        };
        let state = match item.what {
            What::Message => 0,
            What::MessageAgain => item.how % 15,
            What::Done => ACKNOWLEDGED,
            What::Padding => {
                let fill = if item.how.is_multiple_of(4) {
                    16
                } else {
                    to_end
                };
                self.frame(item, PADDING, ACKNOWLEDGED, fill - 16);
                return;
            }
            What::Abandoned => {
                self.frame(item, ABANDONED, ACKNOWLEDGED, len.min(to_end - 16));
                return;
            }
            What::NewLife => {
                self.begin_incarnation(0);
                return;
            }
            What::SameLife => item.how % 16,
            What::Skip(units) => {
                self.at += u64::from(units % 8) * 16;
                self.spots.push(self.at);
                return;
            }
        };
        if frame_len(len) > to_end {
            self.frame(item, PADDING, ACKNOWLEDGED, to_end - 16);
        }
        // The commit would be here: a lie now and then.
        let kind = if item.how >> 5 == 7 { FIRST } else { MESSAGE };
        self.frame(item, kind, state, len);
    }

    /// Lays a frame down at the next position, as far as it fits the ring, and goes behind it.
    fn frame(&mut self, item: &Item, kind: u8, state: u8, len: u64) {
        let (position, place) = (self.at, HEADER + (self.at % self.capacity) as usize);
        if position + frame_len(len) >= POSITION_MAX {
            return;
        }
        let incarnation = self.incarnations[self.incarnations.len() - 1];
        let room = (self.capacity - self.at % self.capacity) as usize - 16;
        let mut payload = vec![item.how ^ self.spots.len() as u8; len as usize];
        if !is_message(kind) {
            payload.clear();
        }
        if let (Fault::Nested(units), true) = (&item.fault, is_message(kind)) {
            let within = (usize::from(*units) * 16 % payload.len().max(1)) & !15;
            let inner = (payload.len() - within)
                .saturating_sub(16)
                .min(usize::from(item.how));
            if within + 16 + inner <= payload.len() {
                let crc = crc32fast::hash(&payload[within + 16..within + 16 + inner]);
                let at = position + 16 + within as u64;
                let header =
                    frame_header(at, incarnation.salt, STATES[0], MESSAGE, inner as u32, crc);
                payload[within..within + 16].copy_from_slice(&header);
            }
        }
        let crc = crc32fast::hash(&payload);
        let mut header = frame_header(
            position,
            incarnation.salt,
            STATES[usize::from(state)],
            kind,
            len as u32,
            crc,
        );
        match item.fault {
            Fault::Checksum => header[12] ^= 1 | item.how,
            Fault::Length(other) => {
                let other = u32::from(other) % self.capacity as u32;
                header = frame_header(position, incarnation.salt, header[0], kind, other, crc);
            }
            Fault::Kind => header[11] ^= 0xc0,
            Fault::State(state) => header[0] = state,
            Fault::Salt => {
                let salt = self.incarnations[usize::from(item.how) % self.incarnations.len()].salt;
                header = frame_header(position, salt, header[0], kind, len as u32, crc);
            }
            Fault::Ahead(laps) => {
                let ahead = position + (1 + u64::from(laps % 4)) * self.capacity;
                header = frame_header(ahead, incarnation.salt, header[0], kind, len as u32, crc);
            }
            Fault::Behind(laps) => {
                let behind = position.wrapping_sub((1 + u64::from(laps % 4)) * self.capacity);
                header = frame_header(behind, incarnation.salt, header[0], kind, len as u32, crc);
            }
            _ => {}
        }
        let fits = payload.len().min(room);
        if !matches!(item.fault, Fault::Nothing) {
            self.image[place + 16..place + 16 + fits].copy_from_slice(&payload[..fits]);
        }
        if !matches!(item.fault, Fault::Nothing | Fault::PayloadOnly) {
            self.image[place..place + 16].copy_from_slice(&header);
        }
        self.at += frame_len(len);
        self.spots.push(self.at);
    }
}

impl Spot {
    fn position(&self, layer: &Layer) -> u64 {
        let (first, last) = (layer.spots[0], layer.at);
        match *self {
            Spot::Frame(nth) => layer.spots[usize::from(nth) % layer.spots.len()],
            Spot::Last => last,
            Spot::First => first,
            Spot::Near(units) => first.wrapping_add_signed(i64::from(units) * 16),
            Spot::Laps(laps) => first.wrapping_add_signed(i64::from(laps) * layer.capacity as i64),
            Spot::Any(position) => position,
        }
    }
}

impl Page {
    /// Mostly one that holds the relations of any checkpoint: heads, then commits and tails that fit.
    fn checkpoint(&self, layer: &Layer) -> Checkpoint {
        let head = self.head.position(layer);
        let within = |spot: &Spot| {
            let position = spot.position(layer);
            if self.counts.is_multiple_of(16) {
                position
            } else {
                position.clamp(head, head.saturating_add(layer.capacity))
            }
        };
        let tail = within(&self.tail);
        // A commit below the head says nothing, and may be there.
        let commit = self.commit.position(layer);
        let commit = if self.counts.is_multiple_of(16) {
            commit
        } else {
            commit.min(tail)
        };
        let frames = tail.saturating_sub(head) / 16;
        Checkpoint {
            generation: u64::from(self.generation),
            head,
            commit,
            tail,
            base: if self.counts == 32 { layer.capacity } else { 0 },
            unacknowledged: u64::from(self.counts / 16).min(frames),
            handed_out: u32::from(self.counts / 64).min(frames as u32),
            flags: u32::from(self.clean) | u32::from(self.counts == 64) << 1,
        }
    }
}

impl Lie {
    fn spoil(&self, bytes: &mut [u8], used: usize) {
        match *self {
            Lie::Checksum => bytes[8] ^= 1,
            Lie::Flip(bit) => {
                let bit = usize::from(bit) % (used.min(bytes.len()) * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            Lie::Zeros => bytes.fill(0),
            _ => {}
        }
    }
}
