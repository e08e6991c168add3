//! Sending and receiving allocate nothing per message: for bytes, and for values of a fixed size.

#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_types)] // the counter of the allocator

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use support::{every_durability, watchdog, with};
use walchan::{Bincode, Codec, Delivery, Durability};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is the system's; a count is added.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, len) }
    }
}

#[global_allocator]
static GLOBAL: Counting = Counting;

/// Allocations of the whole process in ten turns: the fewest of several attempts, for a thread that waits for
/// a lock for the first time allocates, once.
fn allocations(turn: impl Fn()) -> Option<u64> {
    let attempt = |_| {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        (0..10).for_each(|_| turn());
        ALLOCATIONS.load(Ordering::Relaxed) - before
    };
    (0..5).map(attempt).min()
}

fn values<C: Codec<[u64; 8]>>(dir: &Path, durability: Durability) {
    let path = dir.join(format!("values by codec {}", C::ID));
    let options = with(durability);
    let (tx, rx) = options
        .codec_sync_channel::<[u64; 8], C>(path, 100)
        .unwrap();
    let turn = || {
        for n in 0..20 {
            tx.send([n; 8]).unwrap();
        }
        for n in 0..20 {
            let delivery = rx.recv().unwrap();
            assert_eq!(Delivery::copied(&delivery), [n; 8]);
        }
    };
    turn();
    let count = allocations(turn);
    assert_eq!(count, Some(0), "values by codec {}, {durability:?}", C::ID);
}

// One test: another one would allocate meanwhile.
#[test]
fn nothing_is_allocated_for_a_message_of_bytes_or_of_a_fixed_size() {
    let dog = watchdog();
    for durability in every_durability() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bytes");
        let (tx, rx) = with(durability).bytes_sync_channel(&path, 100).unwrap();
        let payload = [7; 1000];
        let turn = || {
            for _ in 0..20 {
                tx.send(&payload).unwrap();
            }
            for _ in 0..20 {
                assert_eq!(rx.recv().unwrap()[..], payload);
            }
        };
        turn();
        let count = allocations(turn);
        assert_eq!(count, Some(0), "bytes, {durability:?}");

        values::<Bincode>(dir.path(), durability);
        #[cfg(feature = "bytemuck")]
        values::<walchan::Plain>(dir.path(), durability);
    }
    drop(dog);
}
