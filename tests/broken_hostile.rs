//! Files that somebody made to do harm, with the salt in hand.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use support::{HEADER, watchdog};
use walchan::{Durability, Error, Options};

const RING: usize = 8 << 20;
/// Where the first life of the first table has its salt.
const SALT: usize = 4096 + 64 + 8;
/// The code word of a message that was never delivered.
const NEVER: u64 = 0x35;

fn options() -> Options {
    Options {
        durability: Durability::FlushOnly,
        ring_bytes: Some(RING as u64),
        ..Options::default()
    }
}

/// The bytes of a channel that was not closed, and its salt.
fn left_behind(dir: &Path) -> (Vec<u8>, u64) {
    let path = dir.join("model");
    let _ends = walchan::channel_with_options::<u64>(&path, options()).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let salt = u64::from_le_bytes(bytes[SALT..SALT + 8].try_into().unwrap());
    (bytes, salt)
}

/// A message's header at every place, each with a payload up to the end of the ring. Their
/// checksums are wrong.
fn headers_everywhere(ring: &mut [u8], salt: u64) {
    for position in (16..RING).step_by(16) {
        let word0 = ((position as u64 >> 4) ^ salt) << 8 | NEVER;
        let word1 = 1u64 << 30 | (RING - position - 16) as u64;
        ring[position..position + 8].copy_from_slice(&word0.to_le_bytes());
        ring[position + 8..position + 16].copy_from_slice(&word1.to_le_bytes());
    }
}

#[test]
fn headers_at_every_place_are_an_error_soon_and_change_nothing() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let (mut bytes, salt) = left_behind(dir.path());
    headers_everywhere(&mut bytes[HEADER..], salt);
    let path = dir.path().join("q");
    std::fs::write(&path, &bytes).unwrap();
    let opened = walchan::channel_with_options::<u64>(&path, options());
    assert!(matches!(opened.unwrap_err(), Error::Corrupt { .. }));
    assert!(std::fs::read(&path).unwrap() == bytes);
}
