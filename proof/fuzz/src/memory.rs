//! Counts allocations, and ends the process when the library takes more than a file of this size is worth.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
    /// Where `LIVE` must stay below.
    static LIMIT: Cell<usize> = const { Cell::new(usize::MAX) };
    /// The most that was taken under a limit, beyond what there was.
    static PEAK: Cell<usize> = const { Cell::new(0) };
    static BASE: Cell<usize> = const { Cell::new(0) };
}

fn took(size: usize) {
    let live = LIVE.with(|live| {
        live.set(live.get().wrapping_add(size));
        live.get()
    });
    let limit = LIMIT.with(Cell::get);
    if limit == usize::MAX {
        return;
    }
    let over = live.wrapping_sub(BASE.with(Cell::get));
    if over < usize::MAX / 2 {
        PEAK.with(|peak| peak.set(peak.get().max(over)));
        if over > limit {
            LIMIT.with(|limit| limit.set(usize::MAX));
            eprintln!("{over} bytes taken at once; {limit} are allowed for this file");
            std::process::abort();
        }
    }
}

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.with(|live| live.set(live.get().wrapping_sub(layout.size())));
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// While it lives, this thread may take no more than a small multiple of a file's size beyond what it has.
#[derive(Debug)]
pub struct Limit(());

/// So many times the file, at most, while it is opened or read.
pub const TIMES: usize = 3;

impl Limit {
    pub fn new(file_len: usize) -> Limit {
        Limit::of(TIMES * file_len)
    }

    /// So many bytes.
    pub fn of(bytes: usize) -> Limit {
        BASE.with(|base| base.set(LIVE.with(Cell::get)));
        LIMIT.with(|limit| limit.set(bytes));
        Limit(())
    }

    /// The most that was taken so far under any limit of this thread.
    pub fn peak() -> usize {
        PEAK.with(Cell::get)
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        LIMIT.with(|limit| limit.set(usize::MAX));
    }
}
