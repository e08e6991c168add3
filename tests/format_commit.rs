//! The golden file of version 3: messages record the commit. Written once, and read like this ever after.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use support::{find, patch_identity, watchdog};
use walchan::{Delivery, MessageId, Options, RecvError, Sender, channel_with_options};

type Message = (u64, String);

const MESSAGES: u64 = 20;
/// One of its bytes is not what was sent; the checkpoint does not know that it was durable.
const ROTTEN: u64 = 18;
/// Ids of the first message, of the rotten one, and of the last.
const IDS: [(u64, &str); 3] = [
    (0, "0000000000000000-3f4e84fdf19ddfe0"),
    (ROTTEN, "0000000000000410-3f4e84fdf19ddfe0"),
    (19, "0000000000000450-3f4e84fdf19ddfe0"),
];
const CHECKPOINTS: [usize; 2] = [69_632, 73_728];

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v3.walchan")
}

fn options() -> Options {
    Options {
        ring_bytes: Some(64 * 1024),
        schema: Some("golden".to_owned()),
        ..Options::default()
    }
}

fn message(number: u64) -> Message {
    (number, "walchan ".repeat(number as usize % 7))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// The kind of the frame in which a message lies that nobody received.
fn kind(bytes: &[u8], number: u64) -> u32 {
    let payload = find(bytes, &number.to_le_bytes());
    u32::from_le_bytes(bytes[payload - 8..payload - 4].try_into().unwrap()) >> 30
}

fn id_of(number: u64) -> MessageId {
    let (_, id) = IDS.iter().find(|(n, _)| *n == number).unwrap();
    id.parse().unwrap()
}

/// Makes it: `cargo test --test format_commit make_the_golden_file -- --ignored --nocapture`. Once: a file
/// made by the code that reads it would prove nothing. Prints the ids for the table above.
#[test]
#[ignore = "overwrites the golden file"]
fn make_the_golden_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let (tx, rx) = channel_with_options(&path, options()).unwrap();
    // From 1000 on: no number is also a length, or a part of a header.
    (0..MESSAGES).for_each(|n| tx.send(message(1000 + n)).unwrap());
    let mut bytes = std::fs::read(&path).unwrap();
    for (n, delivery) in (0..).zip(rx.try_iter()) {
        if IDS.iter().any(|(number, _)| *number == n) {
            println!("    ({n}, \"{}\"),", Delivery::id(&delivery));
        }
    }
    let at = find(&bytes, &(1000 + ROTTEN).to_le_bytes());
    bytes[at + 20] ^= 4;
    std::fs::write(golden(), &bytes).unwrap();
}

#[test]
fn the_golden_file_of_version_3_knows_what_was_durable() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let bytes = std::fs::read(golden()).unwrap();
    std::fs::write(&path, &bytes).unwrap();
    let rotten = id_of(ROTTEN);
    for page in CHECKPOINTS {
        assert!(u64_at(&bytes, page + 16) < rotten.position(), "the commit");
    }
    let (tx, rx) = channel_with_options::<Message>(&path, options()).unwrap();
    let report = rx.recovery();
    assert_eq!((report.kept(), report.redelivered()), (MESSAGES - 1, 0));
    assert_eq!(report.damaged().len(), 1);
    assert!(report.damaged()[0].was_durable());
    for n in 0..MESSAGES {
        if n == ROTTEN {
            let Err(RecvError::Corrupt(corrupt)) = rx.recv() else {
                panic!("{n} is damaged");
            };
            assert_eq!(corrupt.id(), rotten);
            corrupt.acknowledge().unwrap();
            continue;
        }
        let delivery = rx.recv().unwrap();
        assert_eq!(*delivery, message(1000 + n));
        if n == 0 || n == MESSAGES - 1 {
            assert_eq!(Delivery::id(&delivery), id_of(n));
        }
    }
    // It goes on as any other channel.
    tx.send(message(7)).unwrap();
    assert_eq!(*rx.recv().unwrap(), message(7));
}

#[test]
#[cfg_attr(not(feature = "fsync"), ignore = "nothing is durable without syncs")]
fn commit_markers_are_in_new_files_only() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let send = |tx: &Sender<Message>| (0..3).for_each(|n| tx.send(message(1000 + n)).unwrap());
    for version in [1, 2, 3] {
        let path = dir.path().join(format!("{version}"));
        drop(channel_with_options::<Message>(&path, options()).unwrap());
        patch_identity(&path, |page| page[8] = version);
        let (tx, rx) = channel_with_options::<Message>(&path, options()).unwrap();
        send(&tx);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes[8], version, "it stays what it is");
        let expected = if version < 3 { 1 } else { 0 };
        for n in 0..3 {
            assert_eq!(kind(&bytes, 1000 + n), expected, "message {n} of {version}");
        }
        for n in 0..3 {
            assert_eq!(*rx.recv().unwrap(), message(1000 + n));
        }
    }
}

#[test]
#[cfg_attr(not(feature = "fsync"), ignore = "nothing is durable without syncs")]
fn segments_know_what_their_ring_knows() {
    let _dog = watchdog();
    for (version, expected) in [(1u8, 2u8), (2, 2), (3, 3)] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        drop(channel_with_options::<Vec<u8>>(&path, options()).unwrap());
        patch_identity(&path, |page| page[8] = version);
        let (tx, _rx) = channel_with_options::<Vec<u8>>(&path, options()).unwrap();
        (0..120).for_each(|_| tx.send(vec![0xab; 1000]).unwrap());
        let segment = std::fs::read(dir.path().join("q.1")).unwrap();
        assert_eq!(
            (std::fs::read(&path).unwrap()[8], segment[8]),
            (version, expected)
        );
        // Headers of frames with 8 bytes of length and 1000 of payload, that are first.
        let headers = segment[support::HEADER..].chunks(16);
        let second = headers.map(|unit| u32::from_le_bytes(unit[8..12].try_into().unwrap()));
        assert_eq!(
            second.filter(|word| *word == 1008).count() > 0,
            version == 3
        );
    }
}
