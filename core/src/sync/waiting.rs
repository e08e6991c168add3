//! Sleeping and waking: an event count.
//!
//! A waiter announces itself, looks again, sleeps; a notifier changes the state, looks for announcements,
//! wakes. Each side stores before it looks, with a sequentially consistent fence in between, so that at least
//! one sees the other (edge E8 in `docs/protocol.md`). When nobody waits a notification is one fence and one
//! load. A waking is one system call for all who sleep, however many they are, and whoever wakes takes no
//! lock.
//!
//! The source of the idea: Dmitry Vyukov's event counts (1024cores).

use super::pacing::{back_off, readable_looks};
use super::{AtomicBool, Fences, Generation, IS_MODEL, NAP, Ordering, weaken_fence};
use crate::planted::planted;
use std::time::Instant;

/// One look before the announcement, which costs whoever notifies next a system call. In a model it is one
/// interleaving more.
pub(crate) const ONCE: u32 = if IS_MODEL { 0 } else { 1 };

/// What the threads of a channel wait for; shared by all of its files.
#[derive(Debug)]
pub struct Events {
    /// How those fence who change something that `readable`, `room` or `published` tells.
    pub fences: Fences,
    /// There may be something to read.
    pub readable: Event,
    /// There may be room.
    pub room: Event,
    /// A frame was published, for those who wait for a hole to close.
    pub published: Event,
    /// A round ended, or the role of a leader is free.
    pub synced: Event,
}

impl Events {
    /// `shown_by_commit`: messages are shown when they are committed, not when they are published, so the
    /// reader waits for a disk.
    pub fn new(shown_by_commit: bool) -> Self {
        // Where each send waits for the disk, a fence of its own costs nothing, and one for all takes time
        // from the sync that everybody waits for.
        let fences = match shown_by_commit {
            true => Fences::Symmetric,
            false => Fences::asymmetric(),
        };
        Events {
            fences,
            // A reader that looks again and again takes that time, too; only a round shows anything.
            readable: Event::new(
                if shown_by_commit {
                    ONCE
                } else {
                    readable_looks()
                },
                fences,
            ),
            // A sender has looked before: see `commit::send`.
            room: Event::new(0, fences),
            published: Event::new(ONCE, fences),
            synced: Event::new(ONCE, Fences::Symmetric),
        }
    }
}

/// An event that threads wait for.
#[derive(Debug)]
pub struct Event {
    /// Set by every waiter before it looks again, cleared by the notifier that will wake it.
    announced: AtomicBool,
    /// Grows with each waking.
    generation: Generation,
    /// How often a waiter looks, ever more slowly, before it announces itself: worth it where the other side
    /// is at work, not where a disk is.
    looks: u32,
    /// Lopsided where notifying is the hot path.
    fences: Fences,
}

impl Event {
    /// Nobody waits. `looks`: see [`Event`].
    pub fn new(looks: u32, fences: Fences) -> Self {
        Event {
            announced: AtomicBool::new(false),
            generation: Generation::new(),
            looks,
            fences,
        }
    }

    /// Wakes every thread that waits, after a change that may be what it waits for.
    #[inline]
    pub fn notify(&self) {
        // [O:notify_fence] SeqCst: E8, pairs with [O:wait_fence]; the change before it, the look behind.
        weaken_fence!("notify_fence", self.fences.light());
        self.notify_behind_fence();
    }

    /// The same, where the caller has made one of these fences since the change.
    #[inline(always)]
    pub fn notify_behind_fence(&self) {
        // [O:announced_look] Relaxed: the fences order it (E8).
        if self.announced.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    /// Whether a notification would wake anybody. `fences`: what the event's are, where that is known.
    #[inline(always)]
    pub fn is_awaited(&self, fences: Fences) -> bool {
        debug_assert_eq!(fences, self.fences, "the other side has its own");
        // [O:notify_fence] SeqCst: E8, as above.
        weaken_fence!("notify_fence", fences.light());
        // [O:announced_look] Relaxed: as above.
        self.announced.load(Ordering::Relaxed)
    }

    #[cold]
    fn wake(&self) {
        // [O:announced_taken] Acquire: E8, pairs with [O:announced]; the generation grows behind the reading
        // of whoever announced itself.
        if self.announced.swap(false, Ordering::Acquire) {
            // [O:generation] Release: E8, pairs with [O:generation_read]; what it is notified of is there.
            self.generation.advance(Ordering::Release);
        }
    }

    /// Waits until `ready` gives something, or until the deadline.
    ///
    /// `ready` runs on this thread, without any lock held, at least once.
    pub fn wait<R>(
        &self,
        deadline: Option<Instant>,
        mut ready: impl FnMut() -> Option<R>,
    ) -> Option<R> {
        for look in 0..self.looks {
            if let Some(found) = ready() {
                return Some(found);
            }
            back_off(look);
        }
        loop {
            // Before the announcement: whoever clears it wakes this generation or a later one.
            // [O:generation_read] Acquire: E8, pairs with [O:generation].
            let generation = self.generation.load(Ordering::Acquire);
            // [O:announced] Release: E8, pairs with [O:announced_taken]; the generation was read before.
            self.announced.store(true, Ordering::Release);
            // [O:wait_fence] SeqCst: E8, pairs with [O:notify_fence] and [O:publish_fence].
            let fence = weaken_fence!("wait_fence", self.fences.heavy());
            if !planted!("no_look_before_sleep")
                && let Some(found) = ready()
            {
                return Some(found);
            }
            // Without the fence a notifier may have missed the announcement.
            let nap = fence.is_refused().then(|| Instant::now() + NAP);
            let until = nap.into_iter().chain(deadline).min();
            // [O:generation_read] Acquire: E8, as above.
            while self.generation.load(Ordering::Acquire) == generation {
                if self.generation.sleep(generation, until) {
                    if until == deadline {
                        return ready();
                    }
                    break;
                }
            }
        }
    }
}
