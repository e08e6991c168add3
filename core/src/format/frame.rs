//! The frame: 16 bytes of header, then the payload of one message, padded to 16 bytes.
//!
//! ```text
//!  word0, bits 8..64   (position >> 4) ^ salt
//!         bits 0..8    state: a code word
//!  word1, bits 0..30   length of the payload in bytes
//!         bits 30..32  kind
//!         bits 32..64  checksum
//! ```
//!
//! The checksum covers position, salt, length, kind and payload, not the state, which changes.

pub use super::FRAME_ALIGN;
use super::{POSITION_MAX, get_u64, put_u64};
use crate::planted::planted;
use std::io::IoSlice;

/// Bytes of a frame's header.
pub const FRAME_HEADER_LEN: u64 = 16;
/// The length field has 30 bits.
pub const PAYLOAD_LEN_MAX: u64 = (1 << 30) - 1;
/// The longest frame, header included.
pub const FRAME_LEN_MAX: u64 = (PAYLOAD_LEN_MAX & !(FRAME_ALIGN - 1)) + FRAME_HEADER_LEN;
/// Salts have 56 bits. The top one is always set in a salt, never in a position, so a word of zeros
/// decodes to no position.
pub const SALT_MASK: u64 = (1 << 56) - 1;
const SALT_TOP: u64 = 1 << 55;

const _: () = assert!(POSITION_MAX >> 4 <= SALT_TOP);
const _: () = assert!(super::SECTOR_LEN.is_multiple_of(FRAME_HEADER_LEN));

/// A 56-bit salt made from random bits.
pub fn salt_from(random: u64) -> u64 {
    (random & SALT_MASK) | SALT_TOP
}

/// Whether the value can be a salt.
pub fn is_salt(value: u64) -> bool {
    value & !SALT_MASK == 0 && value & SALT_TOP != 0
}

/// Bytes from one frame to the next, for a payload of `len` bytes.
#[inline]
pub fn frame_len(len: u64) -> u64 {
    // Rounded up; a power of two.
    (len + FRAME_HEADER_LEN + FRAME_ALIGN - 1) & !(FRAME_ALIGN - 1)
}

/// The state of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Handed out this often; `DELIVERIES_MORE` stands for that many or more.
    Delivered(u8),
    /// Done; or nobody will receive it.
    Acknowledged,
}

/// The count that means "14 or more".
pub const DELIVERIES_MORE: u8 = 14;

impl State {
    /// The state after one more delivery.
    pub fn delivered_again(self) -> State {
        match self {
            State::Delivered(n) => State::Delivered((n + 1).min(DELIVERIES_MORE)),
            State::Acknowledged => State::Acknowledged,
        }
    }

    fn index(self) -> u8 {
        match self {
            State::Delivered(n) => n,
            State::Acknowledged => 15,
        }
    }
}

/// The extended Hamming code (8,4), shifted by a constant so that neither zeros nor ones are a code
/// word. Any two code words differ in at least four bits.
const fn code_word(index: u8) -> u8 {
    let d = [index & 1, index >> 1 & 1, index >> 2 & 1, index >> 3 & 1];
    let p0 = d[0] ^ d[1] ^ d[3];
    let p1 = d[0] ^ d[2] ^ d[3];
    let p2 = d[1] ^ d[2] ^ d[3];
    let seven = p0 | p1 << 1 | d[0] << 2 | p2 << 3 | d[1] << 4 | d[2] << 5 | d[3] << 6;
    (seven | ((seven.count_ones() as u8 & 1) << 7)) ^ 0x35
}

const CODE: [u8; 16] = {
    let mut table = [0; 16];
    let mut i = 0;
    while i < 16 {
        table[i] = code_word(i as u8);
        i += 1;
    }
    table
};

/// 0xff where the byte is no code word.
const DECODE: [u8; 256] = {
    let mut table = [0xff; 256];
    let mut i = 0;
    while i < 16 {
        table[CODE[i] as usize] = i as u8;
        i += 1;
    }
    table
};

const _: () = {
    let mut i = 0;
    while i < 16 {
        assert!(CODE[i] != 0 && CODE[i] != 0xff);
        let mut j = 0;
        while j < i {
            assert!((CODE[i] ^ CODE[j]).count_ones() >= 4);
            j += 1;
        }
        i += 1;
    }
};

/// The first word of the frame at `position`.
#[inline]
pub fn word0(position: u64, salt: u64, state: State) -> u64 {
    ((position >> 4) ^ salt) << 8 | u64::from(CODE[usize::from(state.index())])
}

/// The position that a first word names under `salt`. Not checked against anything.
#[inline]
pub fn position_of(word0: u64, salt: u64) -> u64 {
    ((word0 >> 8) ^ salt) << 4
}

/// Whether the word is the first of a frame at `position`, whatever its state.
#[inline]
pub fn names_position(word0: u64, position: u64, salt: u64) -> bool {
    word0 >> 8 == (position >> 4) ^ salt
}

/// Bytes of `bytes`, which lie at `position`, up to the first place whose word agrees, under one of the
/// salts, with the position there in the bits of `places`; all of them if there is none. A multiple of 16, as
/// the position is.
pub fn before_a_name(bytes: &[u8], position: u64, salts: [u64; 2], places: u64) -> u64 {
    /// Places that are looked at together, without a branch between them.
    const TOGETHER: usize = 16;
    let agrees = |at: u64, bytes: &[u8]| {
        let place = get_u64(bytes, 0) >> 8 ^ (position + at) >> 4;
        (place ^ salts[0]) & places == 0 || (place ^ salts[1]) & places == 0
    };
    let mut at = 0;
    for block in bytes.chunks(TOGETHER * FRAME_ALIGN as usize) {
        let words = || block.chunks_exact(FRAME_ALIGN as usize);
        let any = (0..).zip(words()).fold(false, |any, (i, word)| {
            any | agrees(at + i * FRAME_ALIGN, word)
        });
        if any {
            let first = (0..)
                .zip(words())
                .find(|(i, word)| agrees(at + i * FRAME_ALIGN, word));
            return at + first.map_or(0, |(i, _)| i * FRAME_ALIGN);
        }
        at += words().len() as u64 * FRAME_ALIGN;
    }
    at
}

/// The state in a first word; `None` if it is no code word.
#[inline]
pub fn state_of(word0: u64) -> Option<State> {
    match DECODE[(word0 & 0xff) as usize] {
        0xff => planted!("one_bit_acknowledges", Some(State::Acknowledged), None),
        15 => Some(State::Acknowledged),
        n => Some(State::Delivered(n)),
    }
}

/// The same first word with another state.
#[inline]
pub fn with_state(word0: u64, state: State) -> u64 {
    (word0 & !0xff) | u64::from(CODE[usize::from(state.index())])
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A message that was written when all before it was on stable storage.
    CommitMarker = 0,
    /// A message.
    Message = 1,
    /// Fills the rest of the ring, so that the next frame is contiguous.
    Padding = 2,
    /// A claim that was given up, or a hole that recovery closed.
    Abandoned = 3,
}

/// By their bits.
const KINDS: [Kind; 4] = [
    Kind::CommitMarker,
    Kind::Message,
    Kind::Padding,
    Kind::Abandoned,
];

impl Kind {
    /// Whether there is a payload, and somebody to receive it.
    #[inline]
    pub fn is_message(self) -> bool {
        matches!(self, Kind::CommitMarker | Kind::Message)
    }
}

/// The second word of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word1 {
    /// Its lower half: length, and kind in the upper two bits.
    low: u32,
    /// Its upper half: over position, salt, length, kind and payload.
    pub checksum: u32,
}

const KIND_SHIFT: u32 = 30;
const LEN_MASK: u32 = PAYLOAD_LEN_MAX as u32;

impl Word1 {
    /// Of a frame whose payload has this CRC.
    #[inline]
    pub fn new(kind: Kind, position: u64, salt: u64, len: u32, payload_crc: u32) -> Self {
        debug_assert!(len <= LEN_MASK);
        let low = (kind as u32) << KIND_SHIFT | len;
        Word1 {
            low,
            checksum: payload_crc ^ seal(position, salt, low),
        }
    }

    /// The word.
    #[inline]
    pub fn encode(self) -> u64 {
        u64::from(self.checksum) << 32 | u64::from(self.low)
    }

    /// `None` for an empty first message: nobody writes that, so zeros are no second word.
    #[inline]
    pub fn decode(word: u64) -> Option<Self> {
        let low = word as u32;
        (low != 0).then_some(Word1 {
            low,
            checksum: (word >> 32) as u32,
        })
    }

    /// What the frame is.
    #[inline]
    pub fn kind(self) -> Kind {
        KINDS[(self.low >> KIND_SHIFT) as usize]
    }

    /// Bytes of payload. For padding and abandoned frames: bytes that they cover behind the header.
    #[inline]
    pub fn len(self) -> u32 {
        self.low & LEN_MASK
    }

    /// Bytes from this frame to the next.
    #[inline]
    pub fn frame_len(self) -> u64 {
        frame_len(u64::from(self.len()))
    }

    /// Whether the checksum matches. `payload_crc` is that of the payload, or of nothing if this
    /// is no message.
    #[inline]
    pub fn matches(self, position: u64, salt: u64, payload_crc: u32) -> bool {
        self.checksum == payload_crc ^ seal(position, salt, self.low)
    }
}

/// CRC-32 of bytes (ISO-HDLC: polynomial 0x04C11DB7, reflected).
#[inline]
pub fn crc(bytes: &[u8]) -> u32 {
    let mut hasher = hasher();
    hasher.update(bytes);
    hasher.finalize()
}

/// A copy of one hasher, so that the processor is asked once what it can do, and not for each payload.
#[inline]
fn hasher() -> crc32fast::Hasher {
    static NEW: std::sync::LazyLock<crc32fast::Hasher> =
        std::sync::LazyLock::new(crc32fast::Hasher::new);
    NEW.clone()
}

/// That of a payload in parts.
#[inline]
pub fn payload_crc(parts: &[IoSlice<'_>]) -> u32 {
    if let [whole] = parts {
        return crc(whole);
    }
    let mut hasher = hasher();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

/// Bytes of a payload in parts.
#[inline]
pub fn payload_len(parts: &[IoSlice<'_>]) -> u64 {
    parts.iter().map(|part| part.len() as u64).sum()
}

/// What the checksum adds for the header: 32 bits that mix position and salt, and a permutation of
/// length and kind, so that two values of these never share one. Cheaper than a second run of the
/// CRC, which could not begin before the claim.
#[inline]
fn seal(position: u64, salt: u64, shape: u32) -> u32 {
    let place = planted!("crc_without_position", 0, position >> 4);
    let place = (place ^ salt.rotate_left(29)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let place = (place ^ place >> 32).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    let shape = planted!("crc_without_length", shape & !LEN_MASK, shape).wrapping_mul(0x85EB_CA6B);
    (place >> 32) as u32 ^ shape
}

/// The 16 header bytes of a frame without payload of its own: padding, abandoned. Acknowledged from
/// the start: nobody will.
pub fn filler(kind: Kind, position: u64, salt: u64, frame_len: u64) -> [u8; 16] {
    let len = (frame_len - FRAME_HEADER_LEN) as u32;
    let mut bytes = [0; 16];
    put_u64(&mut bytes, 0, word0(position, salt, State::Acknowledged));
    put_u64(
        &mut bytes,
        8,
        Word1::new(kind, position, salt, len, 0).encode(),
    );
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_of_the_state_is_never_another_state() {
        for n in 0..16u8 {
            let state = if n == 15 {
                State::Acknowledged
            } else {
                State::Delivered(n)
            };
            let word = word0(1 << 20, salt_from(77), state);
            assert_eq!(state_of(word), Some(state));
            for bit in 0..8 {
                assert_eq!(state_of(word ^ 1 << bit), None);
            }
        }
    }

    #[test]
    fn words_survive_a_round_trip() {
        let salt = salt_from(0x1234_5678_9abc_def0);
        for position in [0, 16, 4096, POSITION_MAX - 16] {
            let w0 = word0(position, salt, State::Delivered(3));
            assert_eq!(position_of(w0, salt), position);
            assert!(names_position(w0, position, salt));
            assert!(!names_position(w0, position ^ 16, salt));
            let crc = super::crc(b"hello");
            let w1 = Word1::new(Kind::Message, position, salt, 5, crc);
            assert_eq!(Word1::decode(w1.encode()), Some(w1));
            assert!(w1.matches(position, salt, crc));
            assert!(!w1.matches(position + 16, salt, crc));
            assert!(!w1.matches(position, salt_from(1), crc));
            for bit in 0..64 {
                let other = Word1::decode(w1.encode() ^ 1 << bit);
                assert!(
                    other.is_none_or(|w| !w.matches(position, salt, crc)),
                    "bit {bit}"
                );
            }
        }
    }

    #[test]
    fn a_search_stops_at_each_word_that_names_its_place_in_any_lap() {
        let (capacity, start) = (1 << 16, 5 << 16);
        // Under neither do zeros agree with any place here.
        let salts = [salt_from(0x777), salt_from(0x778)];
        let places = capacity / FRAME_ALIGN - 1;
        let search = |bytes: &[u8], at| before_a_name(bytes, at, salts, places);
        for (lap, salt) in [(0, salts[0]), (0, salts[1]), (3, salts[1])] {
            for at in (0..1024).step_by(16) {
                let mut bytes = [0; 1024];
                let word = word0(start + at + lap * capacity, salt, State::Delivered(0));
                put_u64(&mut bytes, at as usize, word);
                assert_eq!(search(&bytes, start), at, "{lap}");
                assert_eq!(search(&bytes[at as usize..], start + at), 0);
                let behind = &bytes[at as usize + 16..];
                assert_eq!(search(behind, start + at + 16), behind.len() as u64);
            }
        }
        assert_eq!(search(&[], start), 0);
    }

    #[test]
    fn zeros_are_no_frame() {
        assert_eq!(state_of(0), None);
        assert!(position_of(0, salt_from(0)) >= POSITION_MAX);
    }

    #[test]
    fn the_polynomial_is_the_one_the_docs_name() {
        assert_eq!(crc(b"123456789"), 0xCBF4_3926);
        assert_eq!(crc(b""), 0);
    }
}
