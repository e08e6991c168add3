//! Who syncs, when: group commit, the limit, poison.
//!
//! One caller leads at a time. The leader takes the published prefix as its target, stores a
//! checkpoint of what is already true, and makes one sync of the whole file: data, checkpoint and
//! acknowledgements go together. Then it raises the commit and the limit, and wakes everyone. Nobody
//! holds a lock that senders need while the disk works: the role of the leader is a mutex that is
//! only ever tried.
//!
//! The rules for the limit (which space may be reused) are in [`pages`].

mod flush;
mod pages;
mod receive;
mod rounds;
mod send;
#[cfg(all(test, feature = "fsync", not(loom)))]
mod steps;
pub(crate) mod timer;

use crate::format::checkpoint::Checkpoint;
use crate::memory::Memory;
use crate::planted::planted;
use crate::ring::wait::Event;
use crate::ring::{Frame, Ring};
use crate::sync::{AtomicU32, AtomicU64, CachePadded, Fences, Mutex, MutexGuard, Ordering, weaken};
use pages::Pages;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::time::{Duration, Instant};
use timer::Timer;

/// When sends are synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    PerSend,
    FlushOnly,
    /// At most `max_ops` returned sends are not covered by a completed sync; at least 1.
    Every {
        max_ops: u64,
        max_delay: Duration,
    },
}

/// How long a send waits for room.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wait {
    No,
    /// `None`: for ever.
    Until(Option<Instant>),
}

/// Why a send did not return `Ok`.
#[derive(Debug)]
pub(crate) enum SendFailure {
    /// No room, within the time allowed.
    Full,
    Disconnected,
    TooLarge {
        len: u64,
        max: u64,
    },
    /// The message is not in the channel.
    Io(io::Error),
    /// It may be.
    Unsynced(io::Error),
}

/// What a receiver gets from the ring.
#[derive(Debug)]
pub(crate) enum Received {
    Message(Frame),
    Disconnected,
    Failed(io::Error),
}

/// What a caller waits for. All of them come about by a round of the leader.
#[derive(Clone, Copy, Debug)]
enum Goal {
    /// The commit reaches this position.
    Commit(u64),
    /// A round that began after this one completes.
    Round(u64),
    /// The limit reaches this position; the head already allows it.
    Room(u64),
    /// Fewer than so many sends are unsynced.
    Permit(u64),
}

/// The first I/O error of a sync. It ends the channel.
#[derive(Clone, Debug)]
struct Failure {
    kind: io::ErrorKind,
    os: Option<i32>,
    text: String,
}

impl Failure {
    fn to_error(&self) -> io::Error {
        match self.os {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(self.kind, self.text.clone()),
        }
    }
}

/// Bits of the status: each is set once and stays.
const POISONED: u32 = 1;
const RECEIVER_GONE: u32 = 2;
const SENDERS_GONE: u32 = 4;

/// What a caller of the log is to do next.
enum Turn<'a> {
    Reached,
    Failed,
    /// It has the role of the leader.
    Lead(MutexGuard<'a, ()>),
}

/// A ring with durability: everything of a channel but types, files and recovery.
#[derive(Debug)]
pub(crate) struct Log<M> {
    ring: Ring<M>,
    mode: Mode,
    status: AtomicU32,
    /// Handles that can send.
    senders: AtomicU64,
    failure: Mutex<Option<Failure>>,
    /// All before it is on stable storage.
    commit: CachePadded<AtomicU64>,
    /// Sends that have returned or are about to, and that no completed sync covers (`Every` only).
    unsynced: CachePadded<AtomicU64>,
    /// Rounds begun, and the last one that completed.
    begun: AtomicU64,
    completed: AtomicU64,
    /// The role of the leader: only ever tried.
    leader: Mutex<()>,
    pages: Mutex<Pages>,
    /// The head of the last checkpoint (`FlushOnly`), so that others need no lock to compare.
    stored_head: AtomicU64,
    /// A round ended, or the role of the leader is free.
    synced: Event,
    pub(crate) timer: Timer,
    commit_every: AtomicU64,
    /// Positions of messages that came back in this life, and how many.
    returned: Mutex<BinaryHeap<Reverse<u64>>>,
    returned_count: AtomicU32,
}

impl<M: Memory> Log<M> {
    /// `stored`: the checkpoint that is in both pages, durable; `newest`: the page with the greater
    /// generation.
    pub(crate) fn new(ring: Ring<M>, mode: Mode, stored: [Checkpoint; 2]) -> Self {
        let commit = stored[0].commit.max(stored[0].head);
        Log {
            mode,
            status: AtomicU32::new(0),
            senders: AtomicU64::new(0),
            failure: Mutex::new(None),
            commit: CachePadded(AtomicU64::new(commit)),
            unsynced: CachePadded(AtomicU64::new(0)),
            begun: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            leader: Mutex::new(()),
            stored_head: AtomicU64::new(stored[0].head),
            pages: Mutex::new(Pages::new(stored, ring.tail(), ring.lives().newest().start)),
            synced: Event::new(0, Fences::Even),
            timer: Timer::new(),
            commit_every: AtomicU64::new(1),
            returned: Mutex::new(BinaryHeap::new()),
            returned_count: AtomicU32::new(0),
            ring,
        }
    }

    pub(crate) fn ring(&self) -> &Ring<M> {
        &self.ring
    }

    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    fn is_synced_mode(&self) -> bool {
        self.mode != Mode::FlushOnly
    }

    /// All before it is on stable storage.
    pub(crate) fn commit(&self) -> u64 {
        // [O:commit_read] Acquire: E9, pairs with [O:commit]; who sees the commit sees what it covers.
        self.commit.load(weaken!("commit_read", Ordering::Acquire))
    }

    // === Status ===

    fn has_status(&self, bits: u32) -> bool {
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
        self.ring.room.notify();
        self.ring.readable.notify();
        self.ring.published.notify();
        self.synced.notify();
    }

    pub(crate) fn receiver_left(&self) {
        self.set_status(RECEIVER_GONE);
    }

    pub(crate) fn sender_joined(&self) {
        // [O:sender_joined] Relaxed: whoever clones a handle keeps the count above zero.
        self.senders.fetch_add(1, Ordering::Relaxed);
    }

    /// The last one tells the receiver.
    pub(crate) fn sender_left(&self) {
        // [O:sender_left] AcqRel: E10; what the others sent happens before the status that the last one sets.
        if self
            .senders
            .fetch_sub(1, weaken!("sender_left", Ordering::AcqRel))
            == 1
        {
            self.set_status(SENDERS_GONE);
        }
    }

    pub(crate) fn receiver_is_gone(&self) -> bool {
        self.has_status(RECEIVER_GONE)
    }

    /// Ends the channel. The first error stays.
    pub(crate) fn poison(&self, error: &io::Error) {
        self.failure.lock().get_or_insert_with(|| Failure {
            kind: error.kind(),
            os: error.raw_os_error(),
            text: error.to_string(),
        });
        self.set_status(POISONED);
    }

    /// The error that ended the channel, if one did.
    pub(crate) fn check(&self) -> io::Result<()> {
        if !self.has_status(POISONED) {
            return Ok(());
        }
        match &*self.failure.lock() {
            Some(failure) => Err(failure.to_error()),
            None => Ok(()),
        }
    }

    fn check_open(&self) -> Result<(), SendFailure> {
        if self.has_status(POISONED | RECEIVER_GONE) {
            self.check().map_err(SendFailure::Io)?;
            return Err(SendFailure::Disconnected);
        }
        Ok(())
    }
}
