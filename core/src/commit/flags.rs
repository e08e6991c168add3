//! Flags that wake a thread.

use crate::sync::waiting::{Event, ONCE};
use crate::sync::{AtomicU32, Fences, Ordering, nap, weaken_fence};

#[derive(Debug)]
pub struct Flags {
    flags: AtomicU32,
    event: Event,
    /// Of whoever does what a flag stands for, and of the thread.
    pub(super) fences: Fences,
}

impl Flags {
    pub fn new() -> Self {
        Flags {
            flags: AtomicU32::new(0),
            event: Event::new(ONCE, Fences::Symmetric),
            fences: Fences::asymmetric_tried(),
        }
    }

    /// Sets flags, behind a sequentially consistent fence of the caller, and wakes the thread if that is
    /// news. What they stand for happened before that fence, so a thread that has just cleared
    /// them sees it (E8).
    pub fn flag(&self, flags: u32) {
        // [O:flags] Relaxed: the fences order it (E8).
        if self.flags.load(Ordering::Relaxed) & flags != flags {
            // [O:flags] Relaxed: as above.
            self.flags.fetch_or(flags, Ordering::Relaxed);
            self.event.notify();
        }
    }

    /// The same, where the caller has made no such fence since.
    pub fn fence_and_flag(&self, flags: u32) {
        // [O:flag_fence] SeqCst: E8, pairs with [O:timer_fence]; what the flags stand for before it, the look
        // behind.
        weaken_fence!("flag_fence", self.fences.light());
        self.flag(flags);
    }

    /// The flags set now.
    pub fn flags(&self) -> u32 {
        // [O:flags] Relaxed: the fences order it (E8).
        self.flags.load(Ordering::Relaxed)
    }

    /// Takes flags back, before doing what they ask for. They stay set where the fence is refused: whoever
    /// saw one set, and set it not again, may have changed something that the thread does not see yet.
    pub fn take(&self, flags: u32) -> u32 {
        // [O:flags] Relaxed: the fence below orders it (E8).
        let taken = self.flags.fetch_and(!flags, Ordering::Relaxed) & flags;
        // [O:timer_fence] SeqCst: E8, pairs with [O:publish_fence] and [O:notify_fence].
        let fence = weaken_fence!("timer_fence", self.fences.heavy());
        if fence.is_refused() {
            nap();
            // [O:flags] Relaxed: as above.
            self.flags.fetch_or(taken, Ordering::Relaxed);
        }
        taken
    }

    pub fn event(&self) -> &Event {
        &self.event
    }
}
