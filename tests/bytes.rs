//! Channels of bytes: sent with one copy, received where they lie.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::IoSlice;
use support::{every_durability, flush, watchdog, with};
use walchan::{
    BytesDelivery, BytesReceiver, BytesSender, Error, Options, RecvError, SendErrorKind,
    TryRecvError, TrySendError,
};

fn open(path: &std::path::Path, options: Options) -> (BytesSender, BytesReceiver) {
    options.bytes_channel(path).unwrap()
}

fn message(n: u64) -> Vec<u8> {
    let mut bytes = n.to_le_bytes().to_vec();
    bytes.resize(8 + (n * 7919 % 700) as usize, n as u8);
    bytes
}

#[test]
fn bytes_arrive_in_order_over_many_laps_and_files() {
    let _dog = watchdog();
    for durability in every_durability() {
        let dir = tempfile::tempdir().unwrap();
        let (tx, rx) = open(&dir.path().join("q"), with(durability));
        let sender = std::thread::spawn(move || {
            for n in 0..1500 {
                tx.send(&message(n)).unwrap();
            }
        });
        for n in 0..1500 {
            assert_eq!(rx.recv().unwrap()[..], message(n));
        }
        sender.join().unwrap();
        assert_eq!(rx.recv(), Err(RecvError::Disconnected));
    }
}

#[test]
fn pieces_become_one_message_whatever_their_lengths() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let (tx, rx) = open(&dir.path().join("q"), flush());
    let bytes: Vec<u8> = (0..=255).cycle().take(9000).collect();
    for (a, b) in [
        (0, 0),
        (0, 9000),
        (1, 2),
        (7, 8),
        (8, 16),
        (15, 4111),
        (4096, 4097),
    ] {
        let pieces = [&bytes[..a], &bytes[a..b], &[], &bytes[b..]].map(IoSlice::new);
        tx.send_vectored(&pieces).unwrap();
        assert_eq!(rx.recv().unwrap()[..], bytes);
    }
    tx.send_vectored(&[]).unwrap();
    assert_eq!(rx.recv().unwrap()[..], []);
}

#[test]
fn a_piece_may_lie_better_than_its_place_does() {
    #[repr(align(16))]
    struct Aligned([u8; 128]);
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let (tx, rx) = open(&dir.path().join("q"), flush());
    let second = Aligned(std::array::from_fn(|n| n as u8));
    for first in 0..=16 {
        for len in 0..=128 {
            let pieces = [&[99; 16][..first], &second.0[..len]];
            tx.send_vectored(&pieces.map(IoSlice::new)).unwrap();
            assert_eq!(rx.recv().unwrap()[..], pieces.concat());
        }
    }
}

#[test]
fn held_bytes_stay_as_they_are_while_others_come_and_go() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let (tx, rx) = open(&dir.path().join("q"), flush());
    let mut held = Vec::new();
    for n in 0..3000 {
        tx.send(&message(n)).unwrap();
        let delivery = rx.recv().unwrap();
        if n % 10 == 0 {
            held.push((n, delivery));
        }
        if held.len() > 50 {
            let (n, delivery) = held.swap_remove((n % 50) as usize);
            assert_eq!(delivery[..], message(n));
        }
    }
    let bytes_of = |(n, delivery): &(u64, BytesDelivery)| delivery[..] == message(*n);
    assert!(held.iter().all(bytes_of));
}

#[test]
fn what_an_earlier_incarnation_left_is_delivered_too() {
    let _dog = watchdog();
    for durability in every_durability() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        let (tx, rx) = open(&path, with(durability));
        for n in 0..500 {
            tx.send(&message(n)).unwrap();
        }
        let first = rx.recv().unwrap();
        let id = BytesDelivery::id(&first);
        BytesDelivery::leave(first);
        drop((tx, rx));
        let (tx, rx) = open(&path, with(durability));
        tx.send(&message(500)).unwrap();
        let first = rx.recv().unwrap();
        assert_eq!(BytesDelivery::id(&first), id);
        assert_eq!(BytesDelivery::deliveries(&first), 2);
        BytesDelivery::ack(first).unwrap();
        for n in 1..=500 {
            assert_eq!(rx.recv().unwrap()[..], message(n));
        }
        assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
    }
}

#[test]
fn bytes_dropped_in_a_panic_come_back() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let (tx, rx) = open(&dir.path().join("q"), flush());
    tx.send(b"again").unwrap();
    let delivery = rx.recv().unwrap();
    let panicked = std::thread::spawn(move || {
        let _held = delivery;
        std::panic::resume_unwind(Box::new("planned"));
    });
    assert!(panicked.join().is_err());
    assert_eq!(rx.recv().unwrap()[..], *b"again");
}

#[test]
fn a_bound_holds_for_bytes() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let (tx, rx) = flush().bytes_sync_channel(&path, 2).unwrap();
    tx.send(b"1").unwrap();
    tx.try_send(b"2").unwrap();
    assert_eq!(tx.try_send(b"3"), Err(TrySendError::Full(())));
    let error = tx.send(&vec![0; 1 << 20]).unwrap_err();
    assert!(matches!(
        error.kind,
        SendErrorKind::TooLarge { len: 1_048_576, .. }
    ));
    let first = rx.recv().unwrap();
    assert_eq!(tx.try_send(b"3"), Err(TrySendError::Full(())));
    drop(first);
    tx.try_send(b"3").unwrap();
    assert_eq!(
        rx.iter().take(2).map(|d| d.to_vec()).collect::<Vec<_>>(),
        [b"2", b"3"]
    );
    drop(rx);
    assert!(tx.is_closed());
    assert_eq!(tx.send(b"4").unwrap_err().kind, SendErrorKind::Disconnected);
}

#[test]
fn values_and_bytes_do_not_open_each_others_files() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    drop(open(&path, flush()));
    let error = walchan::channel_with_options::<Vec<u8>>(&path, flush()).unwrap_err();
    assert!(
        matches!(error, Error::Mismatch { what: "codec", .. }),
        "{error}"
    );
    assert!(error.to_string().contains("bytes"), "{error}");
}
