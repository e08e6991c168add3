//! Who syncs, when: group commit, the limit, poison.
//!
//! One caller leads at a time. The leader takes the published prefix as its target, stores a
//! checkpoint of what is already true, and makes one sync of the whole file: data, checkpoint and
//! acknowledgements go together. Then it raises the commit and the limit, and wakes everyone. Nobody
//! holds a lock that senders need while the disk works: the role of the leader is a mutex that is
//! only ever tried.
//!
//! The rules for the limit (which space may be reused) are in [`pages`].

mod flags;
mod flush;
pub mod housekeeper;
mod pages;
mod receive;
mod rounds;
mod sealing;
mod send;
mod shared;
pub mod timer;

pub use shared::{Failure, Shared};

use crate::format::checkpoint::Checkpoint;
use crate::planted::planted;
use crate::ring::{Claim, Ring};
use crate::storage::Memory;
use crate::sync::pacing::Group;
use crate::sync::{Arc, AtomicBool, AtomicU64, CachePadded, Mutex, MutexGuard, Ordering, weaken};
use pages::Pages;
use shared::{POISONED, RECEIVER_GONE, SENDERS_GONE};
use std::io;
use std::time::{Duration, Instant};
use timer::PROGRESS;

/// When sends are synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    PerSend,
    FlushOnly,
    /// At most `max_ops` returned sends are not covered by a completed sync; at least 1.
    Every {
        max_ops: u64,
        max_delay: Duration,
    },
}

impl Mode {
    /// As far as this build can give it: without the feature `fsync` there are no syncs.
    #[must_use]
    pub fn supported(self) -> Self {
        match self {
            _ if !cfg!(feature = "fsync") => Mode::FlushOnly,
            Mode::Every { max_ops: 0, .. } => Mode::PerSend,
            mode => mode,
        }
    }
}

/// How long a send waits for room.
#[derive(Clone, Copy, Debug)]
pub enum Wait {
    No,
    /// `None`: for ever.
    Until(Option<Instant>),
}

/// Why a send did not return `Ok`.
#[derive(Debug)]
pub enum SendFailure {
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
    /// The file is sealed: send into the next one. It is not in the channel.
    Sealed,
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

/// What a caller of the log is to do next.
enum Turn<'a> {
    Reached,
    Failed,
    /// It has the role of the leader.
    Lead(MutexGuard<'a, Lead>),
}

/// What one leader leaves to the next, with the role.
#[derive(Debug, Default)]
struct Lead {
    /// How long its sync took.
    sync: Duration,
}

/// A ring with durability: everything of one file of a channel but types, the file and recovery.
#[derive(Debug)]
pub struct Log<M: Memory> {
    ring: Ring<M>,
    mode: Mode,
    shared: Arc<Shared>,
    /// All before it is on stable storage.
    commit: CachePadded<AtomicU64>,
    /// Rounds begun, and the last one that completed.
    begun: AtomicU64,
    completed: AtomicU64,
    /// The role of the leader: only ever tried.
    leader: Mutex<Lead>,
    /// `PerSend`: those who share a sync.
    group: Group,
    pages: Mutex<Pages>,
    /// A quarter of the ring behind the head of the last checkpoint (`FlushOnly`), so that others need no lock to compare.
    quarter_at: AtomicU64,
    /// The keeper is told when less than so many bytes are left before the limit; 0: never.
    ahead: u64,
    /// The limit for which it was told.
    notified_limit: AtomicU64,
    /// Synced modes: the file before this one, until it is committed up to its end.
    previous: Mutex<Option<Arc<Log<M>>>>,
    has_previous: AtomicBool,
    /// An overflow file: the channel may return to its ring when so much, or less, is behind in it; else 0.
    return_at: u64,
}

/// What a log is, besides its ring.
#[derive(Debug)]
pub struct LogSetup<M: Memory> {
    /// The checkpoints that are in the pages, durable.
    pub stored: [Checkpoint; 2],
    /// The keeper is told when less than so many bytes are left before the limit; 0: never.
    pub ahead: u64,
    /// Synced modes: the file before this one, until it is committed up to its end.
    pub previous: Option<Arc<Log<M>>>,
    /// An overflow file: the channel may return to its ring when so much, or less, is behind in it; else 0.
    pub return_at: u64,
}

impl<M: Memory> Log<M> {
    pub fn new(ring: Ring<M>, shared: Arc<Shared>, setup: LogSetup<M>) -> Self {
        let LogSetup {
            stored,
            ahead,
            previous,
            return_at,
        } = setup;
        let commit = stored[0].commit.max(stored[0].head);
        let pages = Pages::new(
            stored,
            ring.tail(),
            ring.incarnations().newest().start,
            ring.layout().once,
        );
        Log {
            mode: shared.mode,
            commit: CachePadded(AtomicU64::new(commit)),
            begun: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            leader: Mutex::new(Lead::default()),
            group: Group::new(),
            quarter_at: AtomicU64::new(stored[0].head + ring.capacity() / 4),
            pages: Mutex::new(pages),
            ahead,
            notified_limit: AtomicU64::new(0),
            has_previous: AtomicBool::new(previous.is_some()),
            previous: Mutex::new(previous),
            return_at,
            shared,
            ring,
        }
    }

    pub fn ring(&self) -> &Ring<M> {
        &self.ring
    }

    /// What all files of the channel share.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// When sends are synced.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    fn is_synced_mode(&self) -> bool {
        !matches!(self.mode, Mode::FlushOnly)
    }

    fn is_per_send(&self) -> bool {
        matches!(self.mode, Mode::PerSend)
    }

    /// Whether the receiver may look at a message as soon as it is published.
    pub fn shows_what_is_published(&self) -> bool {
        !self.is_per_send()
    }

    fn has_status(&self, bits: u32) -> bool {
        self.shared.has_status(bits)
    }

    /// All before it is on stable storage.
    pub fn commit(&self) -> u64 {
        // [O:commit_read] Acquire: E9, pairs with [O:commit]; who sees the commit sees what it covers.
        self.commit.load(weaken!("commit_read", Ordering::Acquire))
    }

    /// Whether the message of a claim can tell that all before it is on stable storage. An empty one cannot. In `FlushOnly` none does: who
    /// reuses space without syncs must not leave a commit above it.
    #[inline(always)]
    pub fn is_commit_marker(&self, claim: &Claim<'_, M>) -> bool {
        let may = self.is_synced_mode() && self.ring.layout().has_commit_markers;
        planted!("commit_told_without_syncs", true, may)
            && claim.has_payload()
            && (claim.position() == self.commit() || planted!("each_tells_the_commit"))
    }

    /// Asks for a checkpoint, when its time has come.
    fn flag_progress(&self) {
        self.shared.timer.flag(PROGRESS);
    }

    /// The same, if there is a delay that this could start.
    fn flag_progress_if_delayed(&self) {
        self.shared.timer.flag_if_delayed(PROGRESS);
    }
}
