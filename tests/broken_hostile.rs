//! Files that somebody made to do harm, with the salt in hand.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use support::{HEADER, flush, patch, watchdog};
use walchan::{Durability, Error, Options, RecvError};

const RING: usize = 8 << 20;
/// Where the first incarnation of the first table has its salt.
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

#[test]
fn a_filler_that_nobody_can_acknowledge_does_not_hold_the_space_for_ever() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let (tx, rx) = walchan::channel_with_options::<Vec<u8>>(&path, flush()).unwrap();
    // The third does not fit before the end of the ring, so padding lies before it.
    tx.send(vec![1; 30_000]).unwrap();
    drop(rx.recv().unwrap());
    tx.send(vec![2; 30_000]).unwrap();
    tx.send(vec![3; 30_000]).unwrap();
    drop((tx, rx));
    patch(&path, |bytes| {
        let padding = HEADER + 2 * 30_032;
        assert_ne!(bytes[padding..padding + 8], [0; 8], "no header lies there");
        bytes[padding] = NEVER as u8;
    });
    let (tx, rx) = walchan::channel_with_options::<Vec<u8>>(&path, flush()).unwrap();
    assert_eq!(rx.recv().unwrap()[0], 2);
    if cfg!(feature = "fsync") {
        let Err(RecvError::Corrupt(place)) = rx.recv() else {
            panic!("what no channel writes is no frame");
        };
        place.acknowledge().unwrap();
    } else {
        // Nothing was durable: a hole, which recovery closed.
        assert_eq!(rx.recovery().stepped_over(), 1);
    }
    assert_eq!(rx.recv().unwrap()[0], 3);
    for n in 0..10 {
        tx.send(vec![n; 30_000]).unwrap();
        assert_eq!(rx.recv().unwrap()[0], n);
    }
}
