//! Elements without bytes, such as `()`: as many as a sender may send come back; a length that asks for more
//! is an error, soon, for all that has elements.
#![allow(clippy::unwrap_used)]

mod support;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap, LinkedList, VecDeque};
use std::fmt::Debug;
use std::marker::PhantomData;
use std::path::Path;
use support::{flush, watchdog};
use walchan::{Bincode, Codec, Receiver, RecvError, SendErrorKind, Sender};

/// Elements that a payload without a byte may have.
const EMPTY: usize = 65_536;

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Clone, Default, Serialize, Deserialize)]
struct Nothing {
    unit: (),
    none: [u8; 0],
    mark: PhantomData<u64>,
    #[serde(skip)]
    skipped: u64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Newtype(Vec<()>);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Fields {
    before: u8,
    units: Vec<()>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Variants {
    New(Vec<()>),
    Tuple(u8, Vec<()>),
    Struct { units: Vec<()> },
}

fn open<T: Serialize + DeserializeOwned>(path: &Path) -> (Sender<T>, Receiver<T>) {
    walchan::channel_with_options(path, flush()).unwrap()
}

/// What a `T` sees that was sent as another type.
fn refused<T: Serialize + DeserializeOwned>(sent: impl Serialize + DeserializeOwned) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let (tx, rx) = open(&path);
    assert!(tx.send(sent).is_ok());
    drop((tx, rx));
    let (_tx, rx) = open::<T>(&path);
    let Err(RecvError::Undecodable(message)) = rx.recv() else {
        panic!("{}: it was decoded", std::any::type_name::<T>());
    };
    assert!(
        message.cause().to_string().contains("elements"),
        "{message}"
    );
    message.acknowledge().unwrap();
}

#[test]
fn a_lying_length_of_elements_without_bytes_is_undecodable() {
    let _dog = watchdog();
    for lie in [1 << 40, u64::MAX, 1 << 17] {
        refused::<Vec<()>>(lie);
        refused::<VecDeque<[u64; 0]>>(lie);
        refused::<LinkedList<()>>(lie);
        refused::<BTreeSet<Nothing>>(lie);
        refused::<Vec<Nothing>>(lie);
        refused::<Vec<((), [(); 32], ((), PhantomData<u8>))>>(lie);
        refused::<BTreeMap<(), ()>>(lie);
        refused::<HashMap<Nothing, [(); 3]>>(lie);
        refused::<Newtype>(lie);
        refused::<Box<[()]>>(lie);
        refused::<Option<Vec<()>>>((1u8, lie));
        refused::<(u8, Vec<()>, u8)>((1u8, lie, 1u8));
        refused::<[Vec<()>; 1]>(lie);
        refused::<Fields>((1u8, lie));
        refused::<Variants>((0u32, lie));
        refused::<Variants>((1u32, 7u8, lie));
        refused::<Variants>((2u32, lie));
        refused::<BTreeMap<u8, Vec<()>>>((1u64, 1u8, lie));
        refused::<BTreeMap<Vec<()>, u8>>((1u64, lie, 1u8));
    }
}

#[test]
fn many_lengths_share_what_one_payload_may_have() {
    let _dog = watchdog();
    // Each of a thousand would do alone.
    refused::<Vec<Vec<()>>>(vec![EMPTY as u64; 1_000]);
    refused::<Vec<Newtype>>(vec![EMPTY as u64; 1_000]);
    refused::<BTreeMap<u64, Vec<()>>>(
        (0..1_000)
            .map(|n| (n, 1 << 10))
            .collect::<Vec<(u64, u64)>>(),
    );
}

/// Sends it and receives it.
fn survives<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let (tx, rx) = open(&path);
    tx.send(value).unwrap_or_else(|e| panic!("{e}"));
    let received = rx.recv().unwrap();
    walchan::Delivery::leave(received);
    drop((tx, rx));
    let (_tx, rx) = open::<T>(&path);
    drop(rx.recv().unwrap());
}

#[test]
fn elements_without_bytes_come_back_up_to_their_bound() {
    let _dog = watchdog();
    for len in [0, 1, 1_000, EMPTY, EMPTY + 8] {
        survives(vec![(); len]);
        survives(vec![Nothing::default(); len]);
        survives(Newtype(vec![(); len]));
        survives((7u8, Some(vec![[(); 3]; len])));
    }
    survives(vec![vec![(); 60]; 1_000]);
    survives(BTreeMap::from([((), ())]));
    // Those that have bytes are not in the way of those that have none.
    survives((
        vec![1u8; 20_000],
        vec![(); EMPTY],
        vec!["text".to_owned(); 500],
    ));
    survives(vec![(vec![vec![vec![0u8]]], [vec![[1u8]]]); 1_000]);
}

/// The send fails, and others are as before.
fn not_sent<T: Serialize + DeserializeOwned>(value: impl Fn() -> T) {
    let dir = tempfile::tempdir().unwrap();
    let (tx, rx) = open::<T>(&dir.path().join("q"));
    for _ in 0..2 {
        let e = tx.send(value()).unwrap_err();
        assert!(
            matches!(&e.kind, SendErrorKind::Encode(e) if e.to_string().contains("elements")),
            "{e}"
        );
    }
    drop(tx);
    assert!(
        matches!(rx.recv(), Err(RecvError::Disconnected)),
        "nothing was sent"
    );
}

#[test]
fn more_elements_without_bytes_than_come_back_are_not_sent() {
    let _dog = watchdog();
    not_sent(|| vec![(); EMPTY + 9]);
    not_sent(|| Newtype(vec![(); 1 << 40]));
    not_sent(|| Some(vec![(); 1 << 40]));
    not_sent(|| vec![vec![(); EMPTY]; 2]);
    not_sent(|| Variants::New(vec![(); 1 << 40]));
    not_sent(|| Variants::Tuple(1, vec![(); 1 << 40]));
    not_sent(|| Variants::Struct {
        units: vec![(); 1 << 40],
    });
    not_sent(|| Fields {
        before: 1,
        units: vec![(); 1 << 40],
    });
    not_sent(|| (vec![(); 1 << 20], 1u8));
    not_sent(|| BTreeMap::from([(1u8, vec![(); 1 << 20])]));
    not_sent(|| [vec![(); usize::MAX], vec![(); usize::MAX]]);
}

#[test]
fn what_is_counted_is_encoded_as_it_was() {
    #[derive(Serialize, Deserialize)]
    struct Unit;
    #[derive(Serialize, Deserialize)]
    struct Pair(i8, char);
    #[derive(Serialize, Deserialize)]
    enum Kind {
        Unit,
        New(f32),
        Tuple(u16, bool),
        Struct { a: i16, b: () },
    }
    let value = (
        (Unit, Pair(-1, 'x'), (u128::MAX, i128::MIN, 1.5f64)),
        [
            Kind::Unit,
            Kind::New(2.0),
            Kind::Tuple(3, true),
            Kind::Struct { a: 4, b: () },
        ],
        (Some(1i32), None::<i64>, "text".to_owned(), vec![1u32, 2]),
        BTreeMap::from([(1u8, "one".to_owned())]),
        std::net::IpAddr::from([127, 0, 0, 1]),
        std::time::Duration::from_millis(5),
    );
    let mut payload = Vec::new();
    Bincode::encode(&value, &mut payload).unwrap();
    let mut expected: Vec<u8> = vec![255, b'x'];
    expected.extend(u128::MAX.to_le_bytes());
    expected.extend(i128::MIN.to_le_bytes());
    expected.extend(1.5f64.to_le_bytes());
    expected.extend([0, 0, 0, 0, 1, 0, 0, 0]);
    expected.extend(2f32.to_le_bytes());
    expected.extend([2, 0, 0, 0, 3, 0, 1, 3, 0, 0, 0, 4, 0]);
    expected.extend([1, 1, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend(b"text");
    expected.extend([2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0]);
    expected.extend([1, 0, 0, 0, 0, 0, 0, 0, 1, 3, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend(b"one");
    expected.extend([0, 0, 0, 0, 127, 0, 0, 1]);
    expected.extend(0u64.to_le_bytes());
    expected.extend(5_000_000u32.to_le_bytes());
    assert_eq!(payload, expected);
    fn decoded<T: Serialize + DeserializeOwned>(_: &T, payload: &[u8]) -> T {
        Bincode::decode(payload).unwrap()
    }
    let mut again = Vec::new();
    Bincode::encode(&decoded(&value, &payload), &mut again).unwrap();
    assert_eq!(again, payload);
}
