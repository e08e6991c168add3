//! Frames that somebody made: at places that no channel reaches, and as payloads of their own channel.

use super::*;
use crate::format::checkpoint::Checkpoint;
use crate::format::frame::{Kind, State, Word1, payload_crc, word0};
use crate::format::incarnations::{Life as TableLife, Lives};
use crate::format::{CHECKPOINT_OFFSETS, HEADER_LEN, POSITION_MAX, TABLE_OFFSETS, put_u64};

const SALT: u64 = 1 << 55 | 0x00c0_ffee_1234_5678;

/// A file whose only life began at `start`, where its head is.
fn image_at(start: u64, capacity: u64) -> Vec<u8> {
    let mut image = new_image(capacity, &mut Rng(1));
    let life = TableLife {
        start,
        salt: SALT,
        tag: 5,
        number: 1,
    };
    let table = Lives::first(life).encode();
    for at in TABLE_OFFSETS {
        image[at as usize..at as usize + table.len()].copy_from_slice(&table);
    }
    for (generation, at) in (1..).zip(CHECKPOINT_OFFSETS) {
        let checkpoint = Checkpoint {
            generation,
            head: start,
            commit: start,
            tail: start,
            ..Checkpoint::default()
        };
        image[at as usize..at as usize + 64].copy_from_slice(&checkpoint.encode());
    }
    image
}

/// The bytes of a message's frame, right in everything under this salt.
fn frame_of(position: u64, salt: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 16];
    let crc = payload_crc(payload);
    let word1 = Word1::new(Kind::Message, position, salt, payload.len() as u32, crc);
    put_u64(&mut bytes, 0, word0(position, salt, State::Delivered(0)));
    put_u64(&mut bytes, 8, word1.encode());
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len().next_multiple_of(16), 0);
    bytes
}

fn put_frame(image: &mut [u8], capacity: u64, position: u64, frame: &[u8]) {
    let at = (HEADER_LEN + position % capacity) as usize;
    image[at..at + frame.len()].copy_from_slice(frame);
}

/// The header that recovery wrote with a tail at 2^59 could not be read again, and all was lost.
#[test]
fn a_frame_that_ends_behind_the_last_position_is_none_and_the_file_opens_again() {
    let (capacity, mut rng) = (512, Rng(2));
    for (start, at) in [
        (POSITION_MAX - 64, POSITION_MAX),
        (POSITION_MAX - 64, POSITION_MAX - 48),
        (POSITION_MAX - 64, POSITION_MAX + 48),
    ] {
        let mut image = image_at(start, capacity);
        put_frame(&mut image, capacity, start, &frame_of(start, SALT, b""));
        put_frame(&mut image, capacity, at, &frame_of(at, SALT, &[3; 32]));
        for _ in 0..3 {
            let mut life = Life::on(&image, capacity, Mode::PerSend, &mut rng).unwrap();
            let got = life.receive_all();
            let [Got::Message { id, .. }] = got[..] else {
                panic!("{at}: {got:?}");
            };
            assert_eq!(id.position(), start);
            image = life.medium.killed();
        }
    }
}

#[test]
fn a_channel_at_the_end_of_all_positions_is_full_and_keeps_what_it_has() {
    let (capacity, mut rng) = (512, Rng(3));
    for units in 1..12 {
        for close in [false, true] {
            let start = POSITION_MAX - 16 * units;
            let image = image_at(start, capacity);
            let life = Life::on(&image, capacity, Mode::PerSend, &mut rng).unwrap();
            let mut sent = 0;
            let error = loop {
                match life.send(&[7; 10]) {
                    Ok(id) => assert!(id.position() + 32 < POSITION_MAX),
                    Err(error) => break error,
                }
                sent += 1;
            };
            assert!(
                matches!(error, SendFailure::Io(e) if e.kind() == std::io::ErrorKind::StorageFull)
            );
            assert!(sent == (units - 1) / 2);
            if close {
                life.close();
            }
            let image = life.medium.killed();
            let found = payloads_of(&image, capacity, &mut rng);
            assert_eq!(found, vec![vec![7; 10]; sent as usize]);
        }
    }
}
