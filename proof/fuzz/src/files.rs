//! Through the public interface, over a file in memory: the map, the thread, the codec.

use crate::build::Plan;
use crate::judge::{self, Expect, Expected};
use crate::memory::Limit;
use crate::{layout, overlay};
use arbitrary::Unstructured;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use walchan::{Delivery, Durability, Error, Options, Receiver, TryRecvError};

const CAPACITY: u64 = 65_536;
/// What a channel takes that does not hang on the file: its thread, its handles, what serde reserves for a
/// sequence before it reads it.
const FIXED: usize = 2 << 20;

type Nested = Option<BTreeMap<u16, Vec<u64>>>;

fn place() -> PathBuf {
    let shared = Path::new("/dev/shm");
    let dir = if shared.is_dir() {
        shared.to_owned()
    } else {
        std::env::temp_dir()
    };
    let thread = format!("{:?}", std::thread::current().id());
    let thread: String = thread.chars().filter(char::is_ascii_digit).collect();
    dir.join(format!("walchan-fuzz-{}-{thread}", std::process::id()))
}

/// The identity page of a ring of the smallest size.
fn identity(image: &mut [u8]) {
    image[..8].copy_from_slice(&[0x89, 0x57, 0x41, 0x4c, 0x43, 0x0d, 0x0a, 0x1a]);
    layout::put32(image, 8, 1);
    layout::put32(image, 12, layout::HEADER as u32);
    layout::put(image, 16, CAPACITY);
    layout::put32(image, 40, 1);
    let crc = crc32fast::hash(&image[..4092]);
    layout::put32(image, 4092, crc);
}

/// A file, opened as a channel of one of several types, drained, and opened again.
pub fn file(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let choice: u8 = input.arbitrary().unwrap_or(0);
    let mut image = if choice & 1 == 0 {
        overlay::overlaid(CAPACITY, &mut input)
    } else {
        let Ok(plan) = Plan::take(&mut input) else {
            return;
        };
        plan.build_in(CAPACITY).image
    };
    identity(&mut image);
    if choice & 0xc0 == 0xc0 {
        image.truncate(usize::from(choice >> 1 & 31) * 4_600);
    }
    let path = place();
    fs::write(&path, &image).expect("a file in memory");
    for round in 0..2 {
        let go_on = match choice >> 1 & 3 {
            0 => open::<Vec<u8>>(&path, choice, round, &mut input),
            1 => open::<String>(&path, choice, round, &mut input),
            2 => open::<Vec<(u8, String)>>(&path, choice, round, &mut input),
            _ => open::<Nested>(&path, choice, round, &mut input),
        };
        if !go_on {
            break;
        }
    }
    fs::remove_file(&path).expect("it was there");
}

fn open<T: Serialize + DeserializeOwned + Default>(
    path: &Path,
    choice: u8,
    round: u8,
    input: &mut Unstructured<'_>,
) -> bool {
    let before = fs::read(path).expect("it is there");
    let options = Options {
        durability: if choice & 8 == 0 {
            Durability::FlushOnly
        } else {
            Durability::SyncPerSend
        },
        truncate_corrupt_tail: choice & 0x30 != 0,
        ..Options::default()
    };
    let accept_torn = options.truncate_corrupt_tail;
    let limit = Limit::of(4 * before.len() + FIXED);
    let opened = walchan::channel_with_options::<T>(path, options);
    drop(limit);
    let after = fs::read(path).expect("it is there");
    let (tx, rx) = match opened {
        Ok(ends) => ends,
        Err(error) => {
            let whole = before.len() as u64 >= layout::HEADER as u64 + CAPACITY;
            if whole {
                judge::refused(&before, &after, CAPACITY, accept_torn, &error.to_string());
            } else {
                assert!(
                    matches!(error, Error::Corrupt { .. }) && before == after,
                    "{error}"
                );
            }
            return false;
        }
    };
    let expected = judge::judge(&before, &after, rx.recovery(), CAPACITY);
    drain(&rx, expected, before.len(), input);
    if round == 0 {
        // Full, or at the end of all positions: the only two reasons.
        drop(tx.send(T::default()));
    }
    drop(tx);
    drop(rx.close());
    true
}

fn drain<T: Serialize + DeserializeOwned>(
    rx: &Receiver<T>,
    expected: Expected,
    file_len: usize,
    input: &mut Unstructured<'_>,
) {
    let mut messages: VecDeque<Expect> = expected.messages.into();
    let mut held = Vec::new();
    let mut reported = Vec::new();
    loop {
        let choice: u8 = input.arbitrary().unwrap_or(0);
        let limit = Limit::of(4 * file_len + FIXED);
        let received = rx.try_recv();
        drop(limit);
        match received {
            Ok(delivery) => {
                let next = messages.pop_front().expect("a message that is not there");
                let id = Delivery::id(&delivery);
                assert_eq!((id.position(), id.tag()), (next.position, next.tag));
                assert_eq!(Delivery::deliveries(&delivery), u32::from(next.deliveries));
                match choice % 4 {
                    0 => drop(delivery),
                    1 => Delivery::leave(delivery),
                    2 => held.push(delivery),
                    _ => Delivery::ack(delivery).expect("no sync fails"),
                }
            }
            Err(TryRecvError::Undecodable(message)) => {
                let next = messages.pop_front().expect("bytes that are not there");
                assert_eq!(message.id().position(), next.position);
                assert!(message.bytes() == next.payload);
                assert!(!message.to_string().is_empty());
                match choice % 8 {
                    0 => drop(fs::remove_file(message.set_aside().expect("room"))),
                    1 => drop(message),
                    _ => message.acknowledge().expect("no sync fails"),
                }
            }
            Err(TryRecvError::Corrupt(place)) => {
                assert!(!place.to_string().is_empty());
                reported.push((
                    place.position(),
                    place.position() + place.bytes().len() as u64,
                ));
                match choice % 8 {
                    0 => drop(fs::remove_file(place.set_aside().expect("room"))),
                    1 => drop(place),
                    _ => place.acknowledge().expect("no sync fails"),
                }
            }
            Err(TryRecvError::Empty) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(messages.is_empty(), "not delivered: {messages:?}");
    // The pieces of damage are the gaps.
    let mut pieces = reported.into_iter().peekable();
    for (from, to) in expected.gaps {
        let mut at = from;
        while let Some(piece) = pieces.next_if(|piece| piece.0 == at && piece.1 <= to) {
            at = piece.1;
        }
        assert_eq!(at, to, "damage {from}..{to} is not reported whole");
    }
    assert_eq!(pieces.next(), None, "damage that is none");
}
