//! The golden file of each format version: written once, and read like this ever after.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use walchan::{
    Delivery, Durability, Error, MessageId, Options, RecvError, Sender, TryRecvError, channel,
    channel_with_options,
};

type Message = (u64, String);

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1.walchan")
}

fn message(number: u64) -> Message {
    (number, "walchan ".repeat(number as usize % 40))
}

fn options() -> Options {
    Options {
        durability: Durability::FlushOnly,
        ring_bytes: Some(64 * 1024),
        schema: Some("golden".to_owned()),
        ..Options::default()
    }
}

/// What is to be delivered: number, id, deliveries. From 602 on: the second incarnation.
const EXPECTED: [(u64, &str, u32); 8] = [
    (599, "000000000001c0e0-4489866092bd10d6", 3),
    (600, "000000000001c240-4489866092bd10d6", 3),
    (601, "000000000001c260-4489866092bd10d6", 2),
    (602, "000000000001c290-6600881cd3374ce3", 2),
    (604, "000000000001c300-6600881cd3374ce3", 2),
    (606, "000000000001c390-6600881cd3374ce3", 1),
    (607, "000000000001c3e0-6600881cd3374ce3", 1),
    (608, "000000000001c440-6600881cd3374ce3", 1),
];

/// By read and write: a reflink would share blocks with the original.
fn copy(from: &Path, to: &Path) {
    std::fs::write(to, std::fs::read(from).unwrap()).unwrap();
}

/// Makes the golden file: `cargo test --test format make_the_golden_file -- --ignored`. Once per version: a
/// file made by the code that reads it would prove nothing. Prints the ids for the table above.
#[test]
#[ignore = "overwrites the golden file"]
fn make_the_golden_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("golden");
    let send = |tx: &Sender<Message>, n: u64| tx.send(message(n)).unwrap();

    // The first incarnation laps the ring, and leaves 599, 600 (handed out) and 601.
    let (tx, rx) = channel_with_options::<Message>(&path, options()).unwrap();
    for n in 0..600 {
        send(&tx, n);
        let delivery = rx.recv().unwrap();
        if n == 599 {
            Delivery::leave(delivery);
        }
    }
    send(&tx, 600);
    send(&tx, 601);
    Delivery::leave(rx.recv().unwrap());
    drop(tx);
    rx.close().unwrap();

    // The second adds 602 to 609, delivers and acknowledges some of them, and ends without closing.
    let (tx, rx) = channel_with_options::<Message>(&path, options()).unwrap();
    for n in 602..610 {
        send(&tx, n);
    }
    let mut held: Vec<Delivery<Message>> = (599..606).map(|_| rx.recv().unwrap()).collect();
    for n in [605, 603] {
        let at = held.iter().position(|d| d.0 == n).unwrap();
        drop(held.remove(at));
    }
    let mut bytes = std::fs::read(&path).unwrap();
    // The last message was torn: one of its bytes is not there.
    let text = bytes.windows(8).rposition(|w| w == 609u64.to_le_bytes());
    bytes[text.unwrap()] ^= 0x80;
    std::fs::write(golden(), &bytes).unwrap();

    let check = dir.path().join("check");
    copy(&golden(), &check);
    let (_tx, rx) = channel::<Message>(&check).unwrap();
    println!("{}", rx.recovery());
    for delivery in rx.try_iter() {
        let (id, deliveries) = (Delivery::id(&delivery), Delivery::deliveries(&delivery));
        println!("    ({}, \"{id}\", {deliveries}),", delivery.0);
    }
}

/// Everything that is left, left as it is.
fn read_all(rx: &walchan::Receiver<Message>) -> Vec<(u64, MessageId, u32)> {
    let mut found = Vec::new();
    for delivery in rx.try_iter() {
        assert_eq!(*delivery, message(delivery.0));
        found.push((
            delivery.0,
            Delivery::id(&delivery),
            Delivery::deliveries(&delivery),
        ));
        Delivery::leave(delivery);
    }
    found
}

#[test]
fn the_golden_file_of_version_1_delivers_what_it_held() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("golden");
    copy(&golden(), &path);

    let (tx, rx) = channel_with_options::<Message>(&path, options()).unwrap();
    let report = rx.recovery();
    assert!(!report.is_clean() && !report.is_created());
    assert_eq!((report.kept(), report.redelivered()), (8, 5));
    assert_eq!(report.stepped_over(), 1, "609 is torn");
    assert_eq!(report.damaged().len(), 1);
    assert!(!report.damaged()[0].was_durable());
    assert_eq!(report.header_faults(), []);
    let expected = EXPECTED.map(|(n, id, deliveries)| (n, id.parse().unwrap(), deliveries));
    assert_eq!(read_all(&rx), expected);

    // It goes on as any other channel.
    tx.send(message(1)).unwrap();
    let delivery = rx.recv().unwrap();
    assert_eq!(*delivery, message(1));
    assert!(expected.iter().all(|e| e.1 < Delivery::id(&delivery)));
    drop((delivery, tx));
    rx.close().unwrap();

    let (_tx, rx) = channel::<Message>(&path).unwrap();
    // Without syncs a file is never called clean.
    assert_eq!(rx.recovery().is_clean(), cfg!(feature = "fsync"));
    assert_eq!(rx.recovery().kept(), 8);
    let again = expected.map(|(n, id, deliveries)| (n, id, deliveries + 1));
    assert_eq!(read_all(&rx), again);
}

#[test]
fn a_torn_tail_is_refused_and_the_file_unchanged_where_the_options_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("golden");
    copy(&golden(), &path);
    let strict = Options {
        truncate_corrupt_tail: false,
        ..options()
    };
    let error = channel_with_options::<Message>(&path, strict).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert_eq!(
        std::fs::read(&path).unwrap(),
        std::fs::read(golden()).unwrap()
    );
}

#[test]
fn a_newer_version_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("golden");
    let mut bytes = std::fs::read(golden()).unwrap();
    bytes[8] = 4;
    let crc = crc32(&bytes[..4092]);
    bytes[4092..4096].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&path, &bytes).unwrap();
    let error = channel::<Message>(&path).unwrap_err();
    assert_eq!(error, Error::Version { stored: 4 });
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

/// Another hand's CRC-32/ISO-HDLC, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

#[test]
fn damage_below_the_commit_is_reported_once_and_can_be_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("golden");
    let mut bytes = std::fs::read(golden()).unwrap();
    // One bit of the payload of message 600, which the first incarnation closed over.
    let id: MessageId = EXPECTED[1].1.parse().unwrap();
    let at = 77_824 + id.position() % (64 * 1024);
    bytes[at as usize + 16] ^= 1;
    std::fs::write(&path, &bytes).unwrap();

    let (tx, rx) = channel_with_options::<Message>(&path, options()).unwrap();
    assert_eq!(rx.recv().unwrap().0, 599);
    let Err(RecvError::Corrupt(corrupt)) = rx.recv() else {
        panic!("600 was damaged");
    };
    assert_eq!(corrupt.id(), id);
    assert_eq!(rx.recv().unwrap().0, 601);
    corrupt.acknowledge().unwrap();
    while rx.try_recv().is_ok() {}
    assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
    drop(tx);
    rx.close().unwrap();

    let (_tx, rx) = channel::<Message>(&path).unwrap();
    assert_eq!(rx.recovery().kept(), 0);
    assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
}
