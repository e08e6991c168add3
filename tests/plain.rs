//! Values that are their bytes: the codec `Plain`.
#![cfg(all(feature = "bytemuck", target_endian = "little"))]
#![allow(clippy::unwrap_used)] // a test that cannot go on fails

use bytemuck::{Pod, Zeroable};
use std::path::Path;
use walchan::{Bincode, Codec, Error, Options, Plain, RecvError};

#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
struct Sample {
    at: u64,
    value: f32,
    flags: [u16; 2],
}

const SAMPLE: Sample = Sample {
    at: 1 << 60,
    value: -0.5,
    flags: [1, 0xffff],
};

type Both<T, C> = (walchan::Sender<T, C>, walchan::Receiver<T, C>);

fn open<T, C: Codec<T>>(path: &Path) -> Result<Both<T, C>, Error> {
    Options::default().codec_channel(path)
}

#[test]
fn plain_values_come_back_in_the_next_incarnation_bit_by_bit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let (tx, rx) = open::<Sample, Plain>(&path).unwrap();
    tx.send(SAMPLE).unwrap();
    drop((tx, rx));
    let (_tx, rx) = open::<Sample, Plain>(&path).unwrap();
    let delivery = rx.recv().unwrap();
    assert_eq!(bytemuck::bytes_of(&*delivery), bytemuck::bytes_of(&SAMPLE));
}

#[test]
fn the_file_holds_a_plain_value_as_it_lies_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let (tx, _rx) = open::<Sample, Plain>(&path).unwrap();
    tx.send(SAMPLE).unwrap();
    let file = std::fs::read(&path).unwrap();
    let bytes = bytemuck::bytes_of(&SAMPLE);
    assert!(file.windows(bytes.len()).any(|window| window == bytes));
    // Its number, behind magic, version, header length, capacity and channel id.
    assert_eq!(file[40..44], 3u32.to_le_bytes());
}

#[test]
fn a_plain_value_of_another_length_is_undecodable_and_can_be_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let (tx, rx) = open::<Sample, Plain>(&path).unwrap();
    tx.send(SAMPLE).unwrap();
    drop((tx, rx));
    let (tx, rx) = open::<[u64; 3], Plain>(&path).unwrap();
    let Err(RecvError::Undecodable(message)) = rx.recv() else {
        panic!("16 bytes are no 24");
    };
    assert_eq!(message.cause().to_string(), "16 bytes, and the type has 24");
    let copy = message.set_aside().unwrap();
    assert_eq!(std::fs::read(copy).unwrap(), bytemuck::bytes_of(&SAMPLE));
    tx.send([1, 2, 3]).unwrap();
    assert_eq!(*rx.recv().unwrap(), [1, 2, 3]);
}

#[test]
fn plain_values_and_those_of_bincode_do_not_open_each_others_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    drop(open::<u64, Plain>(&path).unwrap());
    match open::<u64, Bincode>(&path) {
        Err(Error::Mismatch {
            what: "codec",
            stored,
            ..
        }) => {
            assert_eq!(stored, "plain, little-endian");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_value_of_no_bytes_is_a_message() {
    let dir = tempfile::tempdir().unwrap();
    let (tx, rx) = open::<(), Plain>(&dir.path().join("q")).unwrap();
    tx.send(()).unwrap();
    assert_eq!(*rx.recv().unwrap(), ());
}
