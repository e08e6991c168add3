//! The fuzzer's bytes as they are: as a whole file, or in pieces over one that is right.

use crate::incarnation;
use crate::layout::{
    CHECKPOINTS, Checkpoint, HEADER, Row, TABLE_LEN, TABLES, salt_of, seal_checkpoint, seal_table,
    write_table,
};
use crate::memory::Limit;
use crate::play;
use arbitrary::Unstructured;
use walchan_core::Error;

/// A valid file with an empty ring, whose salt the fuzzer can learn: it is always the same.
pub fn template(capacity: u64) -> Vec<u8> {
    let mut image = vec![0; HEADER + capacity as usize];
    let incarnation = Row {
        start: 0,
        salt: salt_of(0),
        tag: 1,
        number: 1,
    };
    for at in TABLES {
        write_table(&mut image[at..], &[incarnation]);
    }
    for (generation, at) in (1..).zip(CHECKPOINTS) {
        let checkpoint = Checkpoint {
            generation,
            ..Checkpoint::default()
        };
        checkpoint.write(&mut image[at..at + 64]);
    }
    image
}

/// Lays pieces of the input over the template, most of them over the ring; then makes some checksums right.
pub fn overlaid(capacity: u64, input: &mut Unstructured<'_>) -> Vec<u8> {
    let mut image = template(capacity);
    let control: u8 = input.arbitrary().unwrap_or(0);
    for _ in 0..control % 8 {
        let (Ok(place), Ok(len)) = (input.arbitrary::<u16>(), input.arbitrary::<u8>()) else {
            break;
        };
        let place = usize::from(place);
        let at = match place % 8 {
            0 => TABLES[place / 8 % 2] + place / 16 % 128,
            1 => CHECKPOINTS[place / 8 % 2] + place / 16 % 64,
            _ => HEADER + place / 8 * 16 % capacity as usize,
        };
        let len = usize::from(len).min(input.len());
        let bytes = input.bytes(len).unwrap_or(&[]);
        let len = len.min(image.len() - at);
        image[at..at + len].copy_from_slice(&bytes[..len]);
    }
    for (bit, at) in [3, 4].into_iter().zip(TABLES) {
        if control >> bit & 1 == 0 {
            seal_table(&mut image[at..at + TABLE_LEN]);
        }
    }
    for (bit, at) in [5, 6].into_iter().zip(CHECKPOINTS) {
        if control >> bit & 1 == 0 {
            seal_checkpoint(&mut image[at..at + 64]);
        }
    }
    image
}

/// Any bytes, as a file.
pub fn raw(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let choice: u8 = input.arbitrary().unwrap_or(0);
    if choice.is_multiple_of(16) {
        whole(&bytes[bytes.len().min(1)..]);
        return;
    }
    let capacity = 512 << (choice % 4);
    let image = overlaid(capacity, &mut input);
    play::play(image, capacity, &mut input);
}

/// The bytes are the file. Too short they can be many things, none of them a channel.
fn whole(bytes: &[u8]) {
    let mut padded = bytes.to_vec();
    padded.resize(HEADER + 65_536, 0);
    let sealed = {
        let crc = crc32fast::hash(&padded[..4092]);
        let mut sealed = padded.clone();
        sealed[4092..4096].copy_from_slice(&crc.to_le_bytes());
        sealed
    };
    for file in [bytes, &padded, &sealed] {
        let limit = Limit::new(2 * file.len() + 8192);
        let capacity = incarnation::capacity(file);
        drop(limit);
        match capacity {
            Ok(capacity) => {
                assert!(HEADER as u64 + capacity <= file.len() as u64);
                assert!(capacity >= 65_536 && capacity.is_power_of_two());
            }
            Err(error) => assert!(matches!(
                error,
                Error::Corrupt { .. } | Error::Version { .. }
            )),
        }
    }
}
