//! What is sent, and the check that what arrives is what was sent: all of it, in order, unchanged.
//!
//! Every message carries a stamp, which is its producer and its number there, and content that follows from
//! the stamp and has all its bits in use.

use bytemuck::{Pod, Zeroable};
use serde::{Deserialize, Serialize};

/// Producer in the high 16 bits, its messages counted from 0 in the others.
pub type Stamp = u64;

const NUMBER_BITS: u32 = 48;

pub fn stamp(producer: u64, number: u64) -> Stamp {
    producer << NUMBER_BITS | number
}

/// What a workload sends. The next one is made from a first one, because that is how a program gets a message
/// with a `String` in it.
pub trait Message: Clone + Send + Sync + 'static {
    fn first() -> Self;
    fn next(&self, stamp: Stamp) -> Self;
    fn stamp(&self) -> Stamp;
    /// A sum over the whole content.
    fn sum(&self) -> u64;
}

fn words<const N: usize>(stamp: Stamp) -> [u64; N] {
    let mixed = !stamp.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    std::array::from_fn(|k| if k == 0 { stamp } else { mixed ^ k as u64 })
}

fn sum_of(words: &[u64]) -> u64 {
    words.iter().fold(0, |sum, word| sum.wrapping_add(*word))
}

macro_rules! of_words {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Serialize, Deserialize, Pod, Zeroable)]
        #[repr(C)]
        pub struct $name(pub [u64; $len]);

        impl Message for $name {
            fn first() -> Self {
                $name(words(0))
            }

            fn next(&self, stamp: Stamp) -> Self {
                $name(words(stamp))
            }

            fn stamp(&self) -> Stamp {
                self.0[0]
            }

            fn sum(&self) -> u64 {
                sum_of(&self.0)
            }
        }
    };
}

of_words!(
    /// 16 bytes.
    Pair,
    2
);
of_words!(
    /// 64 bytes of a fixed size.
    Small,
    8
);
of_words!(
    /// 128 bytes of a fixed size.
    Command,
    16
);

impl Command {
    pub const LEN: usize = 128;

    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    pub fn from_bytes(bytes: &[u8]) -> Self {
        assert_eq!(bytes.len(), Self::LEN, "a message of another length");
        let mut words = [0; 16];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(chunk.try_into().expect("chunks of 8"));
        }
        Command(words)
    }
}

/// Two allocations of 64 bytes each.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    stamp: Stamp,
    name: String,
    body: Vec<u8>,
}

impl Message for Record {
    fn first() -> Self {
        Record {
            stamp: 0,
            name: "name ".repeat(13)[..64].to_owned(),
            body: (100..164).collect(),
        }
    }

    fn next(&self, stamp: Stamp) -> Self {
        let mut next = self.clone();
        next.stamp = stamp;
        next
    }

    fn stamp(&self) -> Stamp {
        self.stamp
    }

    fn sum(&self) -> u64 {
        self.stamp
            .wrapping_add(sum_of_bytes(self.name.as_bytes()))
            .wrapping_add(sum_of_bytes(&self.body))
    }
}

pub fn sum_of_bytes(bytes: &[u8]) -> u64 {
    let word = |chunk: &[u8]| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    };
    let chunks = bytes.chunks_exact(8);
    let rest = word(chunks.remainder());
    chunks.fold(rest, |sum, chunk| sum.wrapping_add(word(chunk)))
}

/// A sum over words at the beginning, in the middle and at the end: what a check of large messages can do
/// without taking longer than the channel.
pub fn sum_of_samples(bytes: &[u8]) -> u64 {
    let middle = bytes.len() / 2;
    let places = [0, middle - middle % 8, bytes.len() - 8];
    let word = |at: &usize| get_stamp(&bytes[*at..]);
    places.iter().fold(0, |sum, at| sum.wrapping_add(word(at)))
}

/// Bytes of any length, at least 8; they begin with the stamp. Encoded as bytes, not one by one.
#[derive(Clone, Debug)]
pub struct Blob(pub Vec<u8>);

impl Blob {
    pub fn of_len(len: usize) -> Self {
        Blob((0..len).map(|i| (i * 37 + 11) as u8).collect())
    }
}

/// Writes the stamp where readers look for it.
pub fn put_stamp(bytes: &mut [u8], stamp: Stamp) {
    bytes[..8].copy_from_slice(&stamp.to_le_bytes());
}

pub fn get_stamp(bytes: &[u8]) -> Stamp {
    u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"))
}

impl Serialize for Blob {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl serde::de::Visitor<'_> for Bytes {
            type Value = Blob;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(bytes.to_vec()))
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Blob, E> {
                Ok(Blob(bytes))
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}

/// What has arrived.
#[derive(Debug)]
pub struct Tally {
    /// By producer, the number that is due.
    next: Vec<u64>,
    count: u64,
    sum: u64,
    ordered: bool,
}

impl Tally {
    pub fn new(producers: u64) -> Self {
        Tally {
            next: vec![0; producers as usize],
            count: 0,
            sum: 0,
            ordered: true,
        }
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn add(&mut self, stamp: Stamp, sum: u64) {
        match self.next.get_mut((stamp >> NUMBER_BITS) as usize) {
            Some(next) => {
                self.ordered &= stamp & ((1 << NUMBER_BITS) - 1) == *next;
                *next += 1;
            }
            None => self.ordered = false,
        }
        self.sum = self.sum.wrapping_add(sum);
        self.count += 1;
    }

    pub fn add_message<M: Message>(&mut self, message: &M) {
        self.add(message.stamp(), message.sum());
    }

    /// Panics unless each producer's messages, `each` of them, have arrived in order, with that sum in all.
    pub fn verify(&self, each: u64, sum: u64) {
        let count = each * self.next.len() as u64;
        assert_eq!(self.count, count, "so many messages were sent");
        assert!(self.ordered, "a producer's messages arrived out of order");
        assert!(self.next.iter().all(|&next| next == each));
        assert_eq!(self.sum, sum, "what arrived is not what was sent");
    }
}

/// The sum of what the producers send.
pub fn sum_sent<M: Message>(producers: u64, each: u64) -> u64 {
    let first = M::first();
    let all = (0..producers).flat_map(|producer| (0..each).map(move |i| stamp(producer, i)));
    all.fold(0, |sum, stamp| sum.wrapping_add(first.next(stamp).sum()))
}
