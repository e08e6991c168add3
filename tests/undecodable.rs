//! What serde can do wrong: errors that say so, never an abort, a loop or a lost message.
#![allow(clippy::unwrap_used)]

mod support;

use serde::de::{self, Deserializer};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use support::{RING, flush, watchdog};
use walchan::{
    Delivery, Receiver, RecvError, SendErrorKind, Sender, SyncSender, TryRecvError, TrySendError,
    Undecodable,
};

fn open<T: Serialize + de::DeserializeOwned>(path: &Path) -> (Sender<T>, Receiver<T>) {
    walchan::channel_with_options(path, flush()).unwrap()
}

/// Sends values of one type, to be received as another.
fn write<T: Serialize + de::DeserializeOwned>(path: &Path, values: Vec<T>) {
    let (tx, _rx) = open::<T>(path);
    for value in values {
        assert!(tx.send(value).is_ok());
    }
}

fn undecodable<T>(received: Result<Delivery<T>, RecvError>) -> Undecodable {
    match received {
        Err(RecvError::Undecodable(u)) => u,
        Err(e) => panic!("{e}"),
        Ok(_) => panic!("it was decoded"),
    }
}

thread_local! {
    /// What the `Serialize` of `Mischief` sends on.
    static SENDER: RefCell<Option<SyncSender<Mischief>>> = const { RefCell::new(None) };
}

#[derive(Debug, PartialEq)]
enum Mischief {
    Fine(u32),
    Fails,
    Panics,
    /// Sends `Fine` while it is encoded.
    Sends(u32),
}

impl Serialize for Mischief {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Mischief::Fine(n) => n.serialize(serializer),
            Mischief::Fails => Err(serde::ser::Error::custom("it does not want to")),
            Mischief::Panics => std::panic::resume_unwind(Box::new("planned")),
            Mischief::Sends(n) => {
                SENDER.with_borrow(|tx| {
                    if let Some(tx) = tx {
                        tx.send(Mischief::Fine(n + 1)).unwrap();
                    }
                });
                n.serialize(serializer)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Mischief {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Mischief::Fine(u32::deserialize(deserializer)?))
    }
}

#[test]
fn a_serialize_that_fails_or_panics_or_sends_harms_nobody() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let (tx, rx) = walchan::sync_channel_with_options::<Mischief>(path, 10, flush()).unwrap();
    tx.send(Mischief::Fine(1)).unwrap();
    let e = tx.send(Mischief::Fails).unwrap_err();
    assert!(
        matches!(&e.kind, SendErrorKind::Encode(e) if e.to_string().contains("does not want to"))
    );
    assert_eq!(e.into_inner(), Mischief::Fails);
    let e = tx.try_send(Mischief::Fails).unwrap_err();
    assert!(matches!(&e, TrySendError::Failed(e) if matches!(e.kind, SendErrorKind::Encode(_))));
    let caught = catch_unwind(AssertUnwindSafe(|| tx.send(Mischief::Panics)));
    assert!(caught.is_err());
    SENDER.set(Some(tx.clone()));
    tx.send(Mischief::Sends(3)).unwrap();
    SENDER.set(None);
    tx.send(Mischief::Fine(5)).unwrap();
    let got: Vec<_> = rx.try_iter().map(Delivery::into_inner).collect();
    let fine = [1, 4, 3, 5].map(Mischief::Fine);
    assert_eq!(got, fine, "the inner send comes first");
}

#[derive(Debug, Serialize)]
struct Bomb(u32);

impl<'de> Deserialize<'de> for Bomb {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let n = u32::deserialize(deserializer)?;
        if n == 13 {
            std::panic::panic_any("thirteen".to_owned());
        }
        Ok(Bomb(n))
    }
}

#[test]
fn a_deserialize_that_panics_is_an_error_and_not_an_abort() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    write(&path, vec![12u32, 13, 14]);
    let (tx, rx) = open::<Bomb>(&path);
    assert_eq!(rx.recv().unwrap().0, 12);
    let u = undecodable(rx.recv());
    assert!(u.cause().to_string().contains("thirteen"), "{u}");
    u.acknowledge().unwrap();
    assert_eq!(rx.recv().unwrap().0, 14);
    let e = tx.send(Bomb(13)).unwrap_err();
    assert!(
        matches!(e.kind, SendErrorKind::Encode(_)),
        "the first send reads its own bytes back"
    );
    assert_eq!(rx.try_recv().unwrap_err(), TryRecvError::Empty);
}

/// What a panic carries. Its drop panics, and carries another one with so many less.
struct Shell(u32);

impl Drop for Shell {
    fn drop(&mut self) {
        std::panic::resume_unwind(match self.0 {
            0 => Box::new("the last one"),
            more => Box::new(Shell(more - 1)),
        });
    }
}

/// Panics with a `Shell` when it is decoded from an odd number.
#[derive(Debug, Serialize)]
struct Shelled(u32);

impl<'de> Deserialize<'de> for Shelled {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let n = u32::deserialize(deserializer)?;
        if n % 2 == 1 {
            std::panic::resume_unwind(Box::new(Shell(n)));
        }
        Ok(Shelled(n))
    }
}

/// Without the panic that comes out of `body`, whose drop would panic in the test's own thread.
fn contained<R>(body: impl FnOnce() -> R) -> R {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        std::mem::forget(panic);
        panic!("a panic came out")
    })
}

#[test]
fn no_panic_comes_out_of_what_a_panic_of_decoding_carries() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    write(&path, vec![0u32, 1, 2, 101, 4]);
    let (tx, rx) = open::<Shelled>(&path);
    let mut got = Vec::new();
    for bytes in [None, Some(1), None, Some(101), None] {
        match bytes {
            None => got.push(contained(|| rx.recv()).unwrap().into_inner().0),
            Some(first) => {
                let u = undecodable(contained(|| rx.recv()));
                assert_eq!(u.bytes()[0], first);
                u.acknowledge().unwrap();
            }
        }
    }
    assert_eq!(got, [0, 2, 4]);
    let e = contained(|| tx.send(Shelled(3))).unwrap_err();
    assert!(matches!(e.kind, SendErrorKind::Encode(_)), "{e}");
    assert_eq!(rx.try_recv().unwrap_err(), TryRecvError::Empty);
    drop((tx, rx));
    // Nor if the thread is panicking already.
    write(&path, vec![5u32, 6]);
    let (tx, rx) = open::<Shelled>(&path);
    drop(tx);
    struct Last(Option<Receiver<Shelled>>);
    impl Drop for Last {
        fn drop(&mut self) {
            let rx = self.0.take().unwrap();
            undecodable(contained(|| rx.recv())).acknowledge().unwrap();
            assert_eq!(contained(|| rx.recv()).unwrap().into_inner().0, 6);
        }
    }
    let last = Last(Some(rx));
    let caught = catch_unwind(AssertUnwindSafe(move || {
        let _last = last;
        std::panic::resume_unwind(Box::new("planned"));
    }));
    assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"planned"));
    let (_tx, rx) = open::<Shelled>(&path);
    assert_eq!(rx.recovery().kept(), 0);
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u32),
    Text(String),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Skipping {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    number: u64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    A { n: u32 },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Flattened {
    #[serde(flatten)]
    rest: std::collections::BTreeMap<String, u32>,
}

fn fails_at_the_first_send<T: Serialize + de::DeserializeOwned>(value: impl Fn() -> T) {
    let dir = tempfile::tempdir().unwrap();
    let (tx, rx) = open::<T>(&dir.path().join("q"));
    for handle in [tx.clone(), tx] {
        for _ in 0..2 {
            let e = handle.send(value()).unwrap_err();
            assert!(matches!(e.kind, SendErrorKind::Encode(_)), "{e}");
        }
    }
    assert!(
        matches!(rx.try_recv(), Err(TryRecvError::Disconnected)),
        "nothing was sent"
    );
}

#[test]
fn what_the_codec_cannot_read_back_fails_at_the_first_send() {
    let _dog = watchdog();
    fails_at_the_first_send(|| Untagged::Number(1));
    fails_at_the_first_send(|| Untagged::Text("x".to_owned()));
    fails_at_the_first_send(|| Skipping {
        name: None,
        number: 1,
    });
    fails_at_the_first_send(|| Tagged::A { n: 1 });
    fails_at_the_first_send(|| Flattened {
        rest: [("x".to_owned(), 1)].into(),
    });
}

#[test]
fn a_length_that_lies_is_undecodable() {
    let _dog = watchdog();
    for lie in [
        u64::MAX,
        u64::MAX - 8,
        1 << 62,
        1 << 40,
        1 << 32,
        1 << 20,
        6,
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        write(&path, vec![(lie, *b"abcde")]);
        let (tx, rx) = open::<String>(&path);
        tx.send("next".to_owned()).unwrap();
        assert_eq!(undecodable(rx.recv()).bytes().len(), 13, "{lie}");
        assert_eq!(*rx.recv().unwrap(), "next");
        drop((tx, rx));
        let (_tx, rx) = open::<Vec<String>>(&path);
        undecodable(rx.recv());
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Before {
    name: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct After {
    name: String,
    number: u64,
}

#[test]
fn a_struct_that_changed_is_undecodable_in_both_directions() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    write(
        &path,
        vec![Before {
            name: "old".to_owned(),
        }],
    );
    let (tx, rx) = open::<After>(&path);
    let new = || After {
        name: "new".to_owned(),
        number: 3,
    };
    tx.send(new()).unwrap();
    undecodable(rx.recv()).acknowledge().unwrap();
    let d = rx.recv().unwrap();
    assert_eq!((d.name.as_str(), d.number), ("new", 3));
    Delivery::leave(d);
    drop((tx, rx));
    let (_tx, rx) = open::<Before>(&path);
    let u = undecodable(rx.recv());
    assert!(u.cause().to_string().contains("left over"), "{u}");
}

#[test]
fn an_undecodable_message_is_returned_once_an_incarnation_until_it_is_set_aside_or_acknowledged() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    write(&path, vec![7u8, 1, 9]);
    let mut ids = Vec::new();
    for incarnation in 1..=3 {
        let (_tx, rx) = open::<bool>(&path);
        let u = undecodable(rx.recv());
        assert_eq!(u.bytes(), [7]);
        assert_eq!(u.deliveries(), incarnation);
        assert!(!u.cause().to_string().is_empty());
        assert!(u.to_string().contains(&u.id().to_string()));
        ids.push(u.id());
        drop(u);
        let d = rx.recv().unwrap();
        assert!(*d);
        Delivery::leave(d);
        assert_eq!(undecodable(rx.recv()).bytes(), [9]);
        assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
    }
    assert!(ids.iter().all(|id| *id == ids[0]));
    let (tx, rx) = open::<bool>(&path);
    let u = undecodable(rx.recv());
    assert_eq!(u.id(), ids[0]);
    let copy = u.set_aside().unwrap();
    assert_eq!(copy.parent(), path.parent());
    assert_eq!(std::fs::read(&copy).unwrap(), [7]);
    assert!(copy.to_str().unwrap().contains(&ids[0].to_string()));
    drop(rx.recv().unwrap());
    undecodable(rx.recv()).acknowledge().unwrap();
    drop((tx, rx));
    let (_tx, rx) = open::<bool>(&path);
    assert_eq!(rx.recovery().kept(), 0);
    assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
}

#[test]
fn a_copy_that_cannot_be_written_leaves_the_message_as_it_is() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    write(&path, vec![7u8]);
    let (_tx, rx) = open::<bool>(&path);
    let u = undecodable(rx.recv());
    let aside = dir.path().join(format!("q.{}.aside", u.id()));
    std::fs::write(&aside, "something else").unwrap();
    assert!(u.set_aside().is_err());
    drop((_tx, rx));
    assert_eq!(std::fs::read(&aside).unwrap(), b"something else");
    // A crash between copy and acknowledgement: the same copy is there already.
    std::fs::write(&aside, [7]).unwrap();
    let (_tx, rx) = open::<bool>(&path);
    assert_eq!(undecodable(rx.recv()).set_aside().unwrap(), aside);
    drop((_tx, rx));
    let (_tx, rx) = open::<bool>(&path);
    assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
}

#[test]
fn an_undecodable_message_keeps_the_channel_open_and_its_slot() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    write(&path, vec![7u8]);
    let (tx, rx) = walchan::sync_channel_with_options::<bool>(&path, 1, flush()).unwrap();
    let u = undecodable(rx.recv());
    assert_eq!(tx.try_send(true), Err(TrySendError::Full(true)));
    u.acknowledge().unwrap();
    tx.try_send(true).unwrap();
    let d = rx.recv().unwrap();
    drop(d);
    drop((tx, rx));
    write(&path, vec![7u8]);
    let (tx, rx) = open::<bool>(&path);
    let u = undecodable(rx.recv());
    drop((tx, rx));
    let e = walchan::channel::<bool>(&path).unwrap_err();
    assert_eq!(e, walchan::Error::Locked);
    drop(u);
    drop(open::<bool>(&path));
}

#[test]
fn large_messages_decode_within_their_limits() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let options = walchan::Options {
        ring_bytes: Some(RING * 64),
        ..flush()
    };
    let (tx, rx) = walchan::channel_with_options::<Vec<char>>(path, options).unwrap();
    for len in [0, 1, 4_000, 16_383, 16_384, 16_385, 200_000] {
        let text: Vec<char> = "a\u{e9}\u{1f980}".chars().cycle().take(len).collect();
        tx.send(text.clone()).unwrap();
        assert!(*rx.recv().unwrap() == text, "{len}");
    }
}
