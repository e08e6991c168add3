//! The log of one file: its ring, and what makes it durable.

use super::mode::Mode;
use super::pages::Pages;
use super::shared::Shared;
use super::timer::PROGRESS;
use crate::format::checkpoint::Checkpoint;
use crate::planted::planted;
use crate::ring::{Claim, Ring};
use crate::storage::Memory;
use crate::sync::pacing::Group;
use crate::sync::{Arc, AtomicBool, AtomicU64, CachePadded, Mutex, MutexGuard, Ordering, weaken};
use std::time::Duration;

/// What a caller waits for. All of them come about by a round of the leader.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goal {
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
pub(super) enum Turn<'a> {
    Reached,
    Failed,
    /// It has the role of the leader.
    Lead(MutexGuard<'a, Lead>),
}

/// What one leader leaves to the next, with the role.
#[derive(Debug, Default)]
pub(super) struct Lead {
    /// How long its sync took.
    pub(super) sync: Duration,
}

/// A ring with durability: everything of one file of a channel but types, the file and recovery.
#[derive(Debug)]
pub struct Log<M: Memory> {
    pub(super) ring: Ring<M>,
    pub(super) mode: Mode,
    pub(super) shared: Arc<Shared>,
    /// All before it is on stable storage.
    pub(super) commit: CachePadded<AtomicU64>,
    /// Rounds begun, and the last one that completed.
    pub(super) begun: AtomicU64,
    pub(super) completed: AtomicU64,
    /// The role of the leader: only ever tried.
    pub(super) leader: Mutex<Lead>,
    /// `PerSend`: those who share a sync.
    pub(super) group: Group,
    pub(super) pages: Mutex<Pages>,
    /// A quarter of the ring behind the head of the last checkpoint (`FlushOnly`), so that others need no
    /// lock to compare.
    pub(super) quarter_at: AtomicU64,
    /// The housekeeper is notified when less than so many bytes are left before the limit; 0: never.
    pub(super) ahead: u64,
    /// The limit for which it was notified.
    pub(super) notified_limit: AtomicU64,
    /// Synced modes: the file before this one, until it is committed up to its end.
    pub(super) previous: Mutex<Option<Arc<Log<M>>>>,
    pub(super) has_previous: AtomicBool,
    /// A segment: the channel may return to its ring when so much, or less, is behind in it; else 0.
    pub(super) return_at: u64,
}

/// What a log is, besides its ring.
#[derive(Debug)]
pub struct LogSetup<M: Memory> {
    /// The checkpoints that are in the pages, durable.
    pub stored: [Checkpoint; 2],
    /// The housekeeper is notified when less than so many bytes are left before the limit; 0: never.
    pub ahead: u64,
    /// Synced modes: the file before this one, until it is committed up to its end.
    pub previous: Option<Arc<Log<M>>>,
    /// A segment: the channel may return to its ring when so much, or less, is behind in it; else 0.
    pub return_at: u64,
}

impl<M: Memory> Log<M> {
    /// A log over a ring.
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

    /// The ring.
    pub fn ring(&self) -> &Ring<M> {
        &self.ring
    }

    /// What all files of the channel share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// When sends are synced.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    pub(super) fn is_synced_mode(&self) -> bool {
        !matches!(self.mode, Mode::FlushOnly)
    }

    pub(super) fn is_per_send(&self) -> bool {
        matches!(self.mode, Mode::PerSend)
    }

    /// Whether the receiver may look at a message as soon as it is published.
    pub fn shows_what_is_published(&self) -> bool {
        !self.is_per_send()
    }

    pub(super) fn has_status(&self, bits: u32) -> bool {
        self.shared.has_status(bits)
    }

    /// All before it is on stable storage.
    pub fn commit(&self) -> u64 {
        // [O:commit_read] Acquire: E9, pairs with [O:commit]; who sees the commit sees what it covers.
        self.commit.load(weaken!("commit_read", Ordering::Acquire))
    }

    /// Whether the message of a claim can tell that all before it is on stable storage. An empty one cannot.
    /// In `FlushOnly` none does: who reuses space without syncs must not leave a commit above it.
    #[inline(always)]
    pub fn is_commit_marker(&self, claim: &Claim<'_, M>) -> bool {
        let may = self.is_synced_mode() && self.ring.layout().has_commit_markers;
        planted!("commit_marked_without_syncs", true, may)
            && claim.has_payload()
            && (claim.position() == self.commit() || planted!("each_tells_the_commit"))
    }

    /// Asks for a checkpoint, when its time has come.
    pub(super) fn flag_progress(&self) {
        self.shared.timer.flag(PROGRESS);
    }

    /// The same, if there is a delay that this could start.
    pub(super) fn flag_progress_if_delayed(&self) {
        self.shared.timer.flag_if_delayed(PROGRESS);
    }
}
