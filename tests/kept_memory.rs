//! What a channel keeps of the memory that a large message needed.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_types)] // the counter of the allocator

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering};
use support::watchdog;
use walchan::{Delivery, Durability, Options, TryRecvError};

struct Counting;

static HELD: AtomicIsize = AtomicIsize::new(0);

fn count(bytes: usize, sign: isize) {
    HELD.fetch_add(sign * bytes as isize, Ordering::Relaxed);
}

// SAFETY: everything is the system's; a count is changed.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static GLOBAL: Counting = Counting;

const LARGE: usize = 24 << 20;
/// Far more than a channel needs, and far less than a large message.
const LITTLE: isize = 4 << 20;

fn options() -> Options {
    Options {
        durability: Durability::FlushOnly,
        ring_bytes: Some(64 << 20),
        ..Options::default()
    }
}

fn text(len: usize) -> String {
    "x".repeat(len)
}

/// One test: others of the same process would be counted, too.
#[test]
fn the_memory_of_a_large_message_is_given_back() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let before = HELD.load(Ordering::Relaxed);
    let held = || HELD.load(Ordering::Relaxed) - before;
    let (tx, rx) = walchan::channel_with_options::<String>(&path, options()).unwrap();
    for len in [LARGE, 10, 10] {
        tx.send(text(len)).unwrap();
        assert!(held() < LITTLE, "the sender keeps {} bytes", held());
    }
    drop((tx, rx));

    // Another life copies what was left.
    let (tx, rx) = walchan::channel_with_options::<String>(&path, options()).unwrap();
    assert_eq!(rx.recv().unwrap().len(), LARGE);
    assert_eq!(rx.recv().unwrap().len(), 10);
    assert!(
        held() < LITTLE,
        "before the end of the backlog the receiver keeps {} bytes",
        held()
    );
    assert_eq!(rx.recv().unwrap().len(), 10);
    tx.send(text(LARGE)).unwrap();
    drop((tx, rx));

    // The large one is the last that was left.
    let (tx, rx) = walchan::channel_with_options::<String>(&path, options()).unwrap();
    assert_eq!(rx.recv().unwrap().len(), LARGE);
    tx.send(text(10)).unwrap();
    assert_eq!(rx.recv().unwrap().len(), 10);
    assert!(
        held() < LITTLE,
        "behind the backlog the receiver keeps {} bytes",
        held()
    );
    for _ in 0..3 {
        tx.send(text(LARGE)).unwrap();
        assert_eq!(rx.recv().unwrap().len(), LARGE);
        assert_eq!(rx.try_recv().unwrap_err(), TryRecvError::Empty);
        assert!(held() < LITTLE, "of its own life it keeps {} bytes", held());
    }
    tx.send(text(LARGE)).unwrap();
    tx.send(text(10)).unwrap();
    drop((tx, rx));

    // Texts do not decode as truths; and what was large is held by the error alone.
    let (tx, rx) = walchan::channel_with_options::<bool>(&path, options()).unwrap();
    let undecodable = rx.recv().unwrap_err();
    drop(rx.recv().unwrap_err());
    assert!(
        held() < LARGE as isize + LITTLE,
        "{} bytes beside the error",
        held()
    );
    drop(undecodable);
    assert!(held() < LITTLE, "{} bytes", held());
    drop((tx, rx));

    // Many that came back.
    let small = dir.path().join("small");
    let (tx, rx) = walchan::channel_with_options::<u8>(small, options()).unwrap();
    const MANY: usize = 100_000;
    let before = held();
    (0..MANY).for_each(|_| tx.send(1).unwrap());
    let deliveries: Vec<_> = rx.try_iter().collect();
    assert_eq!(deliveries.len(), MANY);
    let panicking = std::thread::spawn(move || {
        let _deliveries = deliveries;
        std::panic::resume_unwind(Box::new("planned"));
    });
    assert!(panicking.join().is_err());
    rx.try_iter().for_each(|d| Delivery::ack(d).unwrap());
    assert!(
        held() - before < MANY as isize,
        "{} bytes of positions",
        held() - before
    );
}
