//! Flags that wake a thread.

use crate::ring::wait::Event;
use crate::sync::{AtomicU32, Fences, ONCE, Ordering, weaken_fence};

#[derive(Debug)]
pub(crate) struct Flags {
    flags: AtomicU32,
    event: Event,
    /// Of whoever does what a flag stands for, and of the thread.
    pub(super) fences: Fences,
}

impl Flags {
    pub(crate) fn new() -> Self {
        Flags {
            flags: AtomicU32::new(0),
            event: Event::new(ONCE, Fences::Even),
            fences: Fences::lopsided(),
        }
    }

    /// Sets flags, behind a sequentially consistent fence of the caller, and wakes the thread if that is
    /// news. What they stand for happened before that fence, so a thread that has just cleared
    /// them sees it (E8).
    pub(crate) fn flag(&self, flags: u32) {
        // [O:flags] Relaxed: the fences order it (E8).
        if self.flags.load(Ordering::Relaxed) & flags != flags {
            // [O:flags] Relaxed: as above.
            self.flags.fetch_or(flags, Ordering::Relaxed);
            self.event.notify();
        }
    }

    /// The same, where the caller has made no such fence since.
    pub(crate) fn fence_and_flag(&self, flags: u32) {
        // [O:flag_fence] SeqCst: E8, pairs with [O:timer_fence]; what the flags stand for before it, the look behind.
        weaken_fence!("flag_fence", self.fences.frequent());
        self.flag(flags);
    }

    /// The flags set now.
    pub(crate) fn flags(&self) -> u32 {
        // [O:flags] Relaxed: the fences order it (E8).
        self.flags.load(Ordering::Relaxed)
    }

    /// Takes flags back, before doing what they ask for.
    pub(crate) fn take(&self, flags: u32) -> u32 {
        // [O:flags] Relaxed: the fence below orders it (E8).
        let taken = self.flags.fetch_and(!flags, Ordering::Relaxed) & flags;
        // [O:timer_fence] SeqCst: E8, pairs with [O:publish_fence] and [O:notify_fence].
        weaken_fence!("timer_fence", self.fences.rare());
        taken
    }

    pub(crate) fn event(&self) -> &Event {
        &self.event
    }
}
