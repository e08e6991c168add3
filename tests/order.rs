//! What arrives: everything, once, in order for each producer, whatever the sizes and offsets.
#![allow(clippy::unwrap_used)]

mod support;

use std::thread;
use support::{HEADER, PAYLOAD_MAX, RING, Random, every_durability, flush, watchdog, with};
use walchan::{Delivery, Options, RecvError, SendErrorKind, TryRecvError, TrySendError};

#[test]
fn each_of_many_producers_is_received_in_its_order() {
    let _dog = watchdog();
    for (durability, each) in every_durability().into_iter().zip([20_000u64, 60, 2_000]) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        let (tx, rx) =
            walchan::sync_channel_with_options::<(u64, u64)>(path, 100, with(durability)).unwrap();
        let producers: Vec<_> = (0..8)
            .map(|p| {
                let tx = tx.clone();
                thread::spawn(move || (0..each).for_each(|n| tx.send((p, n)).unwrap()))
            })
            .collect();
        drop(tx);
        let mut next = [0; 8];
        let mut last = None;
        for d in &rx {
            let (p, n) = *d;
            assert_eq!(n, next[p as usize], "producer {p}");
            next[p as usize] += 1;
            assert!(Some(Delivery::id(&d)) > last, "ids grow");
            last = Some(Delivery::id(&d));
            assert_eq!(Delivery::deliveries(&d), 1);
        }
        assert_eq!(next, [each; 8]);
        producers.into_iter().for_each(|p| p.join().unwrap());
        rx.close().unwrap();
    }
}

/// Bytes from the frame of a `String` of `len` bytes to the next: its payload has 8 bytes of length.
fn frame_len(len: u64) -> u64 {
    16 + (len + 8).next_multiple_of(16)
}

/// A text that says where it was sent.
fn text(len: u64, seed: u64) -> String {
    let mut random = Random::new(seed);
    let pattern: String = (0..16)
        .map(|_| char::from(b'a' + random.below(26) as u8))
        .collect();
    let mut text = pattern.repeat(len as usize / 16 + 1);
    text.truncate(len as usize);
    text
}

#[test]
fn the_largest_message_passes_at_every_offset_of_the_ring() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let (tx, rx) =
        walchan::sync_channel_with_options::<String>(dir.path().join("q"), 64, flush()).unwrap();
    let largest = "L".repeat((PAYLOAD_MAX - 8) as usize);
    let fill = "f".repeat(largest.len());
    let mut tail = 0;
    let pass = |len: u64, of: &str, tail: &mut u64| {
        let message = &of[..len as usize];
        tx.send(message.to_owned()).unwrap();
        let d = rx.try_recv().unwrap();
        assert!(*d == message);
        let position = Delivery::id(&d).position();
        assert!(position >= *tail);
        *tail = position + frame_len(len);
        assert!(
            (position % RING) + frame_len(len) <= RING,
            "a frame is contiguous"
        );
        position
    };
    for offset in (0..RING).step_by(16) {
        if offset == 16 {
            continue; // the shortest frame of a text has 32 bytes
        }
        // Fillers that end where they should: none of them crosses the end of the ring.
        while tail % RING != offset {
            let to_end = RING - tail % RING;
            let wanted = (offset + RING - tail % RING) % RING;
            let step = wanted.min(to_end).min(PAYLOAD_MAX + 16);
            // Nor leaves a rest in which there is no room for one.
            let step = if wanted - step == 16 { step - 16 } else { step };
            pass(step.saturating_sub(24).max(8), &fill, &mut tail);
        }
        let before = tail;
        let position = pass(PAYLOAD_MAX - 8, &largest, &mut tail);
        let fits = RING - offset >= PAYLOAD_MAX + 16;
        assert_eq!(position, if fits { before } else { before + RING - offset });
    }
}

#[test]
fn messages_of_every_size_pass_over_thousands_of_laps() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let (tx, rx) =
        walchan::sync_channel_with_options::<(u64, String)>(dir.path().join("q"), 64, flush())
            .unwrap();
    let laps = if cfg!(feature = "stress") {
        20_000
    } else {
        2_000
    };
    let max = PAYLOAD_MAX - 16;
    let sender = thread::spawn(move || {
        let mut random = Random::new(5);
        let mut bytes = 0;
        let mut sizes = (0..=max).collect::<Vec<_>>();
        for i in 0..sizes.len() {
            sizes.swap(i, random.below(max + 1) as usize);
        }
        let mut n = 0;
        while bytes < laps * RING {
            // Each size once in each round, in an order that is none; small ones in between.
            for len in [sizes[n as usize % sizes.len()], random.below(200)] {
                tx.send((n, text(len, n))).unwrap();
                bytes += len + 32;
                n += 1;
            }
        }
        n
    });
    let mut random = Random::new(5);
    let mut received = 0;
    let mut held = Vec::new();
    loop {
        let d = match rx.try_recv() {
            Ok(d) => d,
            Err(TryRecvError::Empty) => {
                // What is held may be in the way of a large one.
                held.clear();
                match rx.recv() {
                    Ok(d) => d,
                    Err(RecvError::Disconnected) => break,
                    Err(e) => panic!("{e}"),
                }
            }
            Err(TryRecvError::Disconnected) => break,
            Err(e) => panic!("{e}"),
        };
        assert_eq!(d.0, received);
        assert!(
            d.1 == text(d.1.len() as u64, received),
            "message {received}"
        );
        received += 1;
        held.push(d);
        if held.len() > 3 {
            held.swap_remove(random.below(held.len() as u64) as usize);
        }
    }
    assert_eq!(sender.join().unwrap(), received);
}

#[test]
fn the_largest_size_is_exact_and_more_fails_at_once() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let max = PAYLOAD_MAX;
    let fits = "x".repeat(max as usize - 8);
    let over = "x".repeat(max as usize - 7);
    let (tx, rx) =
        walchan::sync_channel_with_options::<String>(dir.path().join("q"), 2, flush()).unwrap();
    let too_large = SendErrorKind::TooLarge { len: max + 1, max };
    let e = tx.send(over.clone()).unwrap_err();
    assert_eq!(e.kind, too_large);
    assert_eq!(e.into_inner(), over);
    tx.send(fits.clone()).unwrap();
    // At once, though the ring is full, and not as `Full`.
    tx.send("x".to_owned()).unwrap();
    let e = tx.try_send(over.clone()).unwrap_err();
    assert!(
        matches!(&e, TrySendError::Failed(e) if e.kind == too_large),
        "{e}"
    );
    let e = tx
        .send_timeout(over.clone(), std::time::Duration::MAX)
        .unwrap_err();
    assert_eq!(e.into_inner(), over);
    assert_eq!(rx.recv().unwrap(), fits);
    drop((tx, rx));
    // One without a bound that may have no other file.
    let options = Options {
        max_bytes: Some(HEADER as u64 + RING),
        ..flush()
    };
    let (tx, rx) = walchan::channel_with_options::<String>(dir.path().join("q"), options).unwrap();
    assert_eq!(tx.send(over).unwrap_err().kind, too_large);
    assert_eq!(*rx.recv().unwrap(), "x");
    assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
}

#[test]
fn messages_without_bytes_pass() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let (tx, rx) =
        walchan::sync_channel_with_options::<()>(dir.path().join("q"), 10_000, flush()).unwrap();
    for _ in 0..5 {
        for _ in 0..3_000 {
            tx.send(()).unwrap();
        }
        assert_eq!(rx.try_iter().count(), 3_000);
    }
}
