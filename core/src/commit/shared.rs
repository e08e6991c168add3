//! What all files of a channel share: status, settings, permits, and what came back.

use super::flags::Flags;
use super::mode::{Mode, SendFailure};
use super::timer::Timer;
use crate::planted::planted;
use crate::sync::waiting::Events;
use crate::sync::{Arc, AtomicBool, AtomicU32, AtomicU64, CachePadded, Mutex, Ordering, weaken};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::ops::Deref;

/// An I/O error that is reported again.
#[derive(Clone, Debug)]
pub struct Failure {
    kind: io::ErrorKind,
    os: Option<i32>,
    text: String,
}

impl Failure {
    /// Of an error that goes to whoever meets it first.
    pub fn of(error: &io::Error) -> Self {
        Failure {
            kind: error.kind(),
            os: error.raw_os_error(),
            text: error.to_string(),
        }
    }

    /// The same error, for another one.
    pub fn to_error(&self) -> io::Error {
        match self.os {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(self.kind, self.text.clone()),
        }
    }
}

/// What a handle that can send keeps of the channel. It is gone before the handle counts as one that has
/// left: whoever hears that all senders have left finds that none of them keeps anything (E10).
#[derive(Debug)]
pub struct Sending<T> {
    // Fields are dropped in their order, also where the first one panics.
    kept: T,
    _counted: Counted,
}

/// One of the handles that can send.
#[derive(Debug)]
struct Counted(Arc<Shared>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.sender_left();
    }
}

impl<T> Sending<T> {
    /// One handle more.
    pub fn new(kept: T, shared: &Arc<Shared>) -> Self {
        shared.sender_joined();
        Sending {
            kept,
            _counted: Counted(Arc::clone(shared)),
        }
    }
}

impl<T> Deref for Sending<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.kept
    }
}

/// Bits of the status: each is set once and stays.
pub(super) const POISONED: u32 = 1;
pub(super) const RECEIVER_GONE: u32 = 2;
pub(super) const SENDERS_GONE: u32 = 4;

/// What all files of a channel share.
#[derive(Debug)]
pub struct Shared {
    pub(super) mode: Mode,
    status: AtomicU32,
    /// Handles that can send.
    senders: AtomicU64,
    /// The first one of a sync. It ends the channel.
    failure: Mutex<Option<Failure>>,
    /// What the threads of the channel wait for.
    pub events: Arc<Events>,
    /// Asks the timer thread.
    pub timer: Timer,
    /// Asks the housekeeper: see `housekeeper`.
    pub housekeeper: Flags,
    pub(super) commit_every: AtomicU64,
    /// Sends that have returned or are about to, and that no completed sync covers (`Every` only).
    pub(super) unsynced: CachePadded<AtomicU64>,
    /// Rounds begun, of all files.
    pub(super) rounds: AtomicU64,
    /// The ring is drained, and can come next, or does (`overflow`): a hint.
    ring_is_next: AtomicBool,
    /// Positions of messages that came back in this incarnation, and how many.
    returned: Mutex<BinaryHeap<Reverse<u64>>>,
    returned_count: AtomicU32,
}

impl Shared {
    /// A channel without a handle.
    pub fn new(mode: Mode) -> Self {
        // Before the events: a light fence of theirs is one for the flags, too. Where the flags have whole
        // fences, because membarrier is refused, the events have them as well.
        let (timer, housekeeper) = (Timer::new(), Flags::new());
        Shared {
            mode,
            status: AtomicU32::new(0),
            senders: AtomicU64::new(0),
            failure: Mutex::new(None),
            events: Arc::new(Events::new(mode == Mode::PerSend)),
            timer,
            housekeeper,
            commit_every: AtomicU64::new(1),
            unsynced: CachePadded(AtomicU64::new(0)),
            rounds: AtomicU64::new(0),
            ring_is_next: AtomicBool::new(false),
            returned: Mutex::new(BinaryHeap::new()),
            returned_count: AtomicU32::new(0),
        }
    }

    /// When sends are synced.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether anything is synced that nobody asks for.
    pub fn is_synced_mode(&self) -> bool {
        self.mode != Mode::FlushOnly
    }

    pub(super) fn has_status(&self, bits: u32) -> bool {
        // [O:status_read] Acquire: E10, pairs with [O:status]; the failure is there, the last send is.
        self.status.load(weaken!("status_read", Ordering::Acquire)) & bits != 0
    }

    fn set_status(&self, bit: u32) {
        // [O:status] Release: E10, pairs with [O:status_read].
        self.status
            .fetch_or(bit, weaken!("status", Ordering::Release));
        if planted!("end_wakes_nobody") {
            return;
        }
        self.events.room.notify();
        self.events.readable.notify();
        self.events.published.notify();
        self.events.synced.notify();
    }

    /// The receiver is gone: no send succeeds any more.
    pub fn receiver_left(&self) {
        self.set_status(RECEIVER_GONE);
    }

    /// A handle that can send is made.
    pub fn sender_joined(&self) {
        // [O:sender_joined] Relaxed: whoever clones a handle keeps the count above zero.
        self.senders.fetch_add(1, Ordering::Relaxed);
    }

    /// Handles that can send. One that has left the channel may still be counted, and no other one is
    /// missing.
    pub fn senders(&self) -> u64 {
        // [O:senders] Relaxed: a count, for an error; a handle leaves the channel before it leaves the count.
        self.senders.load(Ordering::Relaxed)
    }

    /// The last one tells the receiver.
    pub fn sender_left(&self) {
        // [O:sender_left] AcqRel: E10; what the others sent happens before the status that the last one sets.
        if self
            .senders
            .fetch_sub(1, weaken!("sender_left", Ordering::AcqRel))
            == 1
        {
            self.set_status(SENDERS_GONE);
        }
    }

    /// Whether no send can succeed any more.
    pub fn receiver_is_gone(&self) -> bool {
        self.has_status(RECEIVER_GONE)
    }

    /// Ends the channel. The first error stays.
    pub fn poison(&self, error: &io::Error) {
        let mut failure = self.failure.lock();
        failure.get_or_insert_with(|| Failure::of(error));
        drop(failure);
        self.set_status(POISONED);
    }

    /// The error that ended the channel, if one did.
    pub fn check(&self) -> io::Result<()> {
        if !self.has_status(POISONED) {
            return Ok(());
        }
        match &*self.failure.lock() {
            Some(failure) => Err(failure.to_error()),
            None => Ok(()),
        }
    }

    /// The error of a send, if the channel has failed or has no receiver.
    #[inline]
    pub fn check_open(&self) -> Result<(), SendFailure> {
        if self.has_status(POISONED | RECEIVER_GONE) {
            self.check().map_err(SendFailure::Io)?;
            return Err(SendFailure::Disconnected);
        }
        Ok(())
    }

    /// Acknowledgements behind which the head moves; 0 is 1.
    pub fn set_commit_every(&self, count: u64) {
        // [O:settings] Relaxed: a setting; no data hangs on it.
        self.commit_every.store(count.max(1), Ordering::Relaxed);
    }

    /// The rounds begun so far.
    pub fn rounds(&self) -> u64 {
        // [O:rounds] Relaxed: a count, compared with an earlier one.
        self.rounds.load(Ordering::Relaxed)
    }

    /// Whether the ring can come next.
    pub fn ring_is_next(&self) -> bool {
        // [O:ring_near] Relaxed: a hint; who returns looks again under the lock of the chain.
        self.ring_is_next.load(Ordering::Relaxed)
    }

    /// Sets what [`Shared::ring_is_next`] tells.
    pub fn set_ring_is_next(&self, near: bool) {
        // [O:ring_near] Relaxed: as above.
        self.ring_is_next.store(near, Ordering::Relaxed);
    }

    // === Messages that come back ===

    /// A message that was handed out comes back.
    pub fn give_back(&self, position: u64) {
        {
            let mut returned = self.returned.lock();
            returned.push(Reverse(position));
            // [O:returned] Relaxed: written under the lock only.
            self.returned_count
                .store(returned.len() as u32, Ordering::Relaxed);
        }
        if !planted!("returned_wakes_nobody") {
            self.events.readable.notify();
        }
    }

    /// Whether a message came back, as [`Shared::take_returned`] would see it.
    #[inline]
    pub fn has_returned(&self) -> bool {
        // [O:returned] Relaxed: a hint, ordered by the fences where somebody sleeps (E8) and by the status
        // where somebody left (E10); the lock hands the positions over (E12).
        self.returned_count.load(Ordering::Relaxed) != 0
    }

    /// The position of a message that came back, lowest first; `None` if there is none.
    pub fn take_returned(&self) -> Option<u64> {
        if !self.has_returned() {
            return None;
        }
        let mut returned = self.returned.lock();
        let Reverse(position) = returned.pop()?;
        if returned.is_empty() {
            // Many may have come back, once.
            *returned = BinaryHeap::new();
        }
        // [O:returned] Relaxed: written under the lock only.
        self.returned_count
            .store(returned.len() as u32, Ordering::Relaxed);
        Some(position)
    }
}
