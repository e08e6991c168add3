//! Sizes at their limits.
#![allow(clippy::unwrap_used)]

use walchan::{Delivery, Durability, Options};

/// 65,520 bytes, in memory and encoded.
type Large = ([[[u64; 32]; 32]; 7], [[u64; 32]; 31], [u64; 30]);

#[test]
fn a_bound_of_1_takes_a_message_of_any_size() {
    // Unoptimized code copies a large message often.
    let large = std::thread::Builder::new().stack_size(64 << 20);
    large.spawn(a_large_message).unwrap().join().unwrap();
}

fn a_large_message() {
    const { assert!(size_of::<Large>() == (64 << 10) - 16) };
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        durability: Durability::FlushOnly,
        ..Options::default()
    };
    let path = dir.path().join("large");
    let (tx, rx) = walchan::sync_channel_with_options::<Large>(&path, 1, options).unwrap();
    for n in 0..9 {
        let large = ([[[n; 32]; 32]; 7], [[n; 32]; 31], [n; 30]);
        assert!(tx.try_send(large).is_ok(), "{n}");
        let received = rx.try_recv().unwrap();
        assert!(*received == large);
        Delivery::ack(received).unwrap();
    }
}
