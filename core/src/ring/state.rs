//! The words that the threads of a ring share, and who writes which.

use super::position::Layout;
use crate::format::POSITION_MAX;
use crate::format::frame::{self, FRAME_ALIGN};
use crate::format::incarnations::{Incarnation, Incarnations};
use crate::storage::{Memory, WORD_LEN};
use crate::sync::bias::Bias;
use crate::sync::pacing::{Batch, is_large};
use crate::sync::waiting::Events;
use crate::sync::{Arc, AtomicU32, AtomicU64, CachePadded, Mutex, Ordering, Refused};
use std::collections::BTreeSet;

/// Where a ring begins its incarnation.
#[derive(Clone, Debug)]
pub struct Start {
    /// All incarnations whose frames may be in the ring.
    pub incarnations: Incarnations,
    /// All before it is acknowledged.
    pub head: u64,
    /// Where the next frame is claimed.
    pub tail: u64,
    /// Where space ends.
    pub limit: u64,
    /// Messages in `[head, tail)` that are not acknowledged.
    pub unacknowledged: u64,
    /// Of these, handed out by an earlier incarnation.
    pub handed_out: u64,
    /// Messages that may be unacknowledged at once.
    pub bound: u64,
}

/// What producers write: on a line of their own.
#[derive(Debug)]
pub(super) struct ProducerLine {
    /// Next position to claim.
    pub(super) tail: AtomicU64,
    /// Messages ever admitted, those found at open included.
    pub(super) admitted: AtomicU64,
    /// `AcknowledgerLine::acknowledged` as a producer last saw it.
    pub(super) seen_acknowledged: AtomicU64,
    /// Of those who claim.
    pub(super) bias: Bias,
}

/// How far producers may go.
#[derive(Debug)]
pub(super) struct Limit {
    /// Space ends here: what lies a capacity before it is reclaimed for good.
    pub(super) limit: AtomicU64,
    /// Position behind the last frame that the file will ever hold, once another file is linked behind it;
    /// `u64::MAX` before. The limit is the same then, and stays.
    pub(super) end: AtomicU64,
}

/// Bytes and words of a cache line.
pub(super) const LINE_LEN: u64 = 64;
pub(super) const LINE_WORDS: u64 = LINE_LEN / WORD_LEN;

/// What the receiver writes.
#[derive(Debug)]
pub(super) struct ReceiverLine {
    /// The receiver has passed all before it.
    pub(super) cursor: AtomicU64,
    /// Messages handed out at least once, those of earlier incarnations that are still here included.
    pub(super) handed_out: AtomicU64,
    /// Every message before it is acknowledged: not always the last such position.
    pub(super) acknowledged_to: AtomicU64,
}

/// What acknowledgers write.
#[derive(Debug)]
pub(super) struct AcknowledgerLine {
    /// All before it is acknowledged. Written by whoever holds `advancers`.
    pub(super) head: AtomicU64,
    /// Threads that want the head advanced; the one that found 0 does it for all.
    pub(super) advancers: AtomicU32,
    /// Messages acknowledged in this incarnation.
    pub(super) acknowledged: AtomicU64,
    /// Of those who count them.
    pub(super) bias: Bias,
}

/// No frame ends behind it.
const LIMIT_MAX: u64 = POSITION_MAX - FRAME_ALIGN;

/// The shared state of a ring over some memory.
#[derive(Debug)]
pub struct Ring<M> {
    pub(super) memory: M,
    pub(super) layout: Layout,
    /// The incarnation that writes now.
    pub(super) incarnation: Incarnation,
    /// All incarnations whose frames may be in the ring.
    pub(super) incarnations: Incarnations,
    pub(super) bound: u64,
    /// Bytes of the largest frame.
    pub(super) frame_len_max: u64,
    /// Where this incarnation's own frames begin: what lies before was there when it was opened.
    pub(super) opened_at: u64,
    pub(super) producer: CachePadded<ProducerLine>,
    pub(super) limit: CachePadded<Limit>,
    /// What the receiver writes.
    pub(super) receiver: CachePadded<ReceiverLine>,
    pub(super) acknowledger: CachePadded<AcknowledgerLine>,
    /// The head stops at the lowest of these: damage that nobody has acknowledged.
    pub(super) damage: Mutex<BTreeSet<u64>>,
    pub(super) barrier: AtomicU64,
    /// What the threads of the channel wait for.
    pub events: Arc<Events>,
}

impl<M: Memory> Ring<M> {
    /// A ring over a memory that holds what `start` says.
    pub fn new(memory: M, layout: Layout, start: Start, events: Arc<Events>) -> Self {
        debug_assert!(start.head <= start.tail && start.tail <= start.limit);
        Ring {
            memory,
            frame_len_max: layout.frame_len_max(),
            layout,
            incarnation: start.incarnations.newest(),
            incarnations: start.incarnations,
            bound: start.bound,
            opened_at: start.tail,
            producer: CachePadded(ProducerLine {
                tail: AtomicU64::new(start.tail),
                admitted: AtomicU64::new(start.unacknowledged),
                seen_acknowledged: AtomicU64::new(0),
                bias: Bias::new(),
            }),
            limit: CachePadded(Limit {
                limit: AtomicU64::new(start.limit.min(LIMIT_MAX)),
                end: AtomicU64::new(u64::MAX),
            }),
            receiver: CachePadded(ReceiverLine {
                cursor: AtomicU64::new(start.head),
                handed_out: AtomicU64::new(start.handed_out),
                acknowledged_to: AtomicU64::new(start.head),
            }),
            acknowledger: CachePadded(AcknowledgerLine {
                head: AtomicU64::new(start.head),
                advancers: AtomicU32::new(0),
                acknowledged: AtomicU64::new(0),
                bias: Bias::new(),
            }),
            damage: Mutex::new(BTreeSet::new()),
            barrier: AtomicU64::new(u64::MAX),
            events,
        }
    }

    /// Everybody changes the numbers by read-modify-writes from now on.
    ///
    /// # Errors
    ///
    /// As [`Bias::share`].
    pub fn end_biases(&self) -> Result<(), Refused> {
        self.producer.bias.share()?;
        self.acknowledger.bias.share()
    }

    /// The memory beneath.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Bytes of the ring.
    pub fn capacity(&self) -> u64 {
        self.layout.capacity
    }

    /// Where things lie.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// All incarnations whose frames may be in the ring.
    pub fn incarnations(&self) -> &Incarnations {
        &self.incarnations
    }

    /// The salt of the incarnation that covers `position`.
    #[inline]
    pub(super) fn salt_at(&self, position: u64) -> u64 {
        match position >= self.incarnation.start {
            true => self.incarnation.salt,
            false => self.earlier_salt_at(position),
        }
    }

    #[cold]
    fn earlier_salt_at(&self, position: u64) -> u64 {
        // Recovery starts no ring whose head lies below its oldest incarnation.
        self.incarnations
            .at(position)
            .unwrap_or(self.incarnation)
            .salt
    }

    /// The next position to claim.
    pub fn tail(&self) -> u64 {
        // [O:tail_read] Relaxed: a bound for those who ask; what lies before it is seen through E1.
        self.producer.tail.load(Ordering::Relaxed)
    }

    /// Where space ends for now.
    pub fn limit(&self) -> u64 {
        // [O:limit_read] Relaxed: a comparison only; a claim loads it again with Acquire.
        self.limit.limit.load(Ordering::Relaxed)
    }

    /// All before it is acknowledged.
    pub fn head(&self) -> u64 {
        // [O:head_read] Acquire: E3, pairs with [O:head]; what was read before the acknowledgements
        // happens before the reuse that this head allows.
        self.acknowledger
            .head
            .load(crate::sync::weaken!("head_read", Ordering::Acquire))
    }

    /// Messages not acknowledged, claims in flight included.
    pub fn unacknowledged(&self) -> u64 {
        // [O:counts] Relaxed: a count; no data hangs on it.
        let acknowledged = self.acknowledger.acknowledged.load(Ordering::Relaxed);
        // [O:counts] Relaxed: as above.
        self.producer
            .admitted
            .load(Ordering::Relaxed)
            .saturating_sub(acknowledged)
    }

    /// Messages acknowledged in this incarnation; whoever sees the count sees the acknowledgements.
    pub fn acknowledged(&self) -> u64 {
        // [O:acknowledged_read] Acquire: E15, pairs with [O:acknowledged].
        self.acknowledger.acknowledged.load(Ordering::Acquire)
    }

    /// Of these, handed out at least once.
    pub fn handed_out(&self) -> u64 {
        // [O:counts] Relaxed: a count; no data hangs on it.
        let acknowledged = self.acknowledger.acknowledged.load(Ordering::Relaxed);
        // [O:counts] Relaxed: as above.
        self.receiver
            .handed_out
            .load(Ordering::Relaxed)
            .saturating_sub(acknowledged)
    }

    /// Messages that were handed out in this incarnation.
    pub fn delivered(&self) -> u64 {
        // [O:counts] Relaxed: a count.
        self.receiver.handed_out.load(Ordering::Relaxed)
    }

    /// Called by the receiver when it has passed what earlier incarnations left: `counted` messages were
    /// expected there, `found` were handed out. The rest was damaged, and takes no part of the bound any
    /// more.
    ///
    /// # Errors
    ///
    /// As [`Bias::share`]: they still do.
    pub fn correct_counts(&self, counted: u64, found: u64) -> Result<(), Refused> {
        // All of them were handed out now, whatever the header said of earlier deliveries.
        // [O:counts] Relaxed: a count that only the receiver writes.
        self.receiver.handed_out.store(found, Ordering::Relaxed);
        if counted == found {
            return Ok(());
        }
        let line = &self.producer;
        // [O:counts] Relaxed: a count; no data hangs on it. Wraps where more was found.
        line.bias.add(
            &line.admitted,
            found.wrapping_sub(counted),
            Ordering::Relaxed,
        )?;
        self.events.room.notify();
        Ok(())
    }

    /// Lets producers claim up to `limit`. Callers hold the lock of the checkpoint pages, so limits
    /// are raised one after another; never lowered.
    pub fn raise_limit(&self, limit: u64) {
        let limit = limit.min(LIMIT_MAX);
        // [O:limit_read] Relaxed: only the holder of that lock writes it.
        if limit > self.limit.limit.load(Ordering::Relaxed) {
            // [O:limit] Release: E4, pairs with [O:limit_claim]; hands the reclaimed words on.
            self.limit
                .limit
                .store(limit, crate::sync::weaken!("limit", Ordering::Release));
        }
    }

    /// Position behind the last frame, if another file is linked behind this one.
    #[inline]
    pub fn end(&self) -> Option<u64> {
        // [O:end_read] Relaxed: a comparison only; who seals loads it again with Acquire, and what comes
        // behind the end is found under the lock of the chain.
        match self.limit.end.load(Ordering::Relaxed) {
            u64::MAX => None,
            end => Some(end),
        }
    }

    /// Shows where the file ends: at its limit, which is not raised any more. The caller holds the lock of
    /// the checkpoint pages, and has linked the next file.
    pub fn show_end(&self) {
        // [O:limit_read] Relaxed: only the holder of that lock writes it.
        let end = self.limit.limit.load(Ordering::Relaxed);
        // [O:end] Release: E13, pairs with [O:end_seal]; hands the words on that the last limit gave.
        self.limit
            .end
            .store(end, crate::sync::weaken!("end", Ordering::Release));
        self.events.readable.notify();
        self.events.room.notify();
        self.events.published.notify();
    }

    /// Whether a payload of so many bytes can be sent at all.
    #[inline(always)]
    pub fn fits(&self, len: u64) -> bool {
        len <= frame::PAYLOAD_LEN_MAX && frame::frame_len(len) <= self.frame_len_max
    }

    /// Whether nothing can be claimed any more.
    pub fn is_sealed(&self) -> bool {
        self.end().is_some_and(|end| self.tail() == end)
    }

    /// Tells the memory that the frames of a sealed file, all published, will not be looked at soon.
    pub fn advise_cold(&self) {
        debug_assert!(self.is_sealed());
        let layout = self.layout();
        self.memory
            .advise_cold(layout.ring, layout.capacity / crate::storage::WORD_LEN);
    }

    /// Whether a batch of the ring would be free at once, if the head moved as far as the receiver has come.
    /// It may not.
    pub fn gains_batch(&self) -> bool {
        let batch = Batch::bytes(self.layout.capacity);
        // [O:cursor_guess] Relaxed: a guess.
        let cursor = self.receiver.cursor.load(Ordering::Relaxed);
        cursor + self.layout.capacity >= self.limit() + batch
    }

    /// Whether a receiver takes long to drain it: a sender without room may look for some rarely.
    pub fn is_large(&self) -> bool {
        is_large(self.bound, self.layout.capacity)
    }

    /// Keeps the head from passing `position`.
    pub fn hold_back(&self, position: u64) {
        let mut damage = self.damage.lock();
        damage.insert(position);
        self.set_barrier(&damage);
    }

    /// Takes that back.
    pub fn let_pass(&self, position: u64) {
        let mut damage = self.damage.lock();
        damage.remove(&position);
        self.set_barrier(&damage);
    }

    fn set_barrier(&self, damage: &BTreeSet<u64>) {
        let lowest = damage.first().copied().unwrap_or(u64::MAX);
        // [O:barrier] Release: E7, pairs with [O:barrier_walk]; the filler over the damage
        // is written before.
        self.barrier
            .store(lowest, crate::sync::weaken!("barrier", Ordering::Release));
    }
}
