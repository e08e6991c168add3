//! Rounds of the leader: checkpoint, sync, commit; and what asks for them.

use super::log::{Goal, Lead, Log, Turn};
use super::mode::Mode;
use super::pages::Pages;
use super::shared::POISONED;
use super::timer::{HURRY, PROGRESS, SENT};
use crate::format::checkpoint::Checkpoint;
use crate::format::frame::FRAME_ALIGN;
use crate::planted::planted;
use crate::storage::Memory;
use crate::sync::{MutexGuard, Ordering, weaken};
use std::io;
use std::time::Instant;

/// Rounds without a checkpoint, one behind the other. Their commit markers lie side by side: what rots
/// together with the last one is that much at most.
const ROUNDS_WITHOUT_MAX: u32 = 8;

impl<M: Memory> Log<M> {
    pub(super) fn reached(&self, goal: Goal) -> bool {
        match goal {
            Goal::Commit(end) => self.commit() >= end,
            // [O:completed_read] Acquire: E9, pairs with [O:completed]; as the commit.
            Goal::Round(number) => {
                let read = weaken!("completed_read", Ordering::Acquire);
                self.completed.load(read) >= number
            }
            // A frozen limit is not raised for anybody.
            Goal::Room(needed) => self.ring.limit() >= needed || self.pages.lock().frozen,
            // [O:unsynced] Relaxed: the compare-exchange that follows decides.
            Goal::Permit(max_ops) => {
                self.shared.unsynced.load(Ordering::Relaxed) < max_ops || self.ring.is_sealed()
            }
        }
    }

    /// Whether one more send may return before it is synced.
    pub fn has_permits(&self) -> bool {
        match self.mode {
            Mode::Every { max_ops, .. } => self.reached(Goal::Permit(max_ops)),
            Mode::PerSend | Mode::FlushOnly => true,
        }
    }

    /// Waits until the goal is reached, leading rounds where nobody else does.
    pub(super) fn reach(&self, goal: Goal) -> io::Result<()> {
        self.commit_previous()?;
        loop {
            let mut yields = 0..self.group.yields();
            let turn = loop {
                match self.turn(goal) {
                    None if yields.next().is_some() && self.group.give_way() => {}
                    None => break self.shared.events.synced.wait(None, || self.turn(goal)),
                    turn => break turn,
                }
            };
            let mut role = match turn {
                Some(Turn::Lead(role)) => role,
                Some(Turn::Reached) => return Ok(()),
                Some(Turn::Failed) | None => return self.shared.check(),
            };
            let needs_frames = matches!(goal, Goal::Commit(_) | Goal::Permit(_));
            if needs_frames && !self.would_commit() {
                // A claim that is not published is in the way: give up the role before waiting for it.
                // Nobody who waits here takes the role, so nobody here keeps it from another.
                planted!(
                    "hole_waited_for_in_the_role",
                    std::mem::forget(role),
                    self.resign(role)
                );
                self.shared.events.published.wait(None, || {
                    let go_on =
                        self.would_commit() || self.reached(goal) || self.has_status(POISONED);
                    go_on.then_some(())
                });
                continue;
            }
            if self.is_per_send() && matches!(goal, Goal::Commit(_)) {
                self.gather(&role);
            }
            self.round(&mut role);
            self.resign(role);
            // The commit and the permits are what those who wait for a hole to close look at, too.
            self.shared.events.published.notify_behind_fence();
            self.shared.events.room.notify_behind_fence();
            if self.is_per_send() {
                self.shared.events.readable.notify_behind_fence();
            }
        }
    }

    /// What a caller with this goal is to do now; `None`: wait for the leader.
    pub(super) fn turn(&self, goal: Goal) -> Option<Turn<'_>> {
        if self.reached(goal) {
            return Some(Turn::Reached);
        }
        if self.has_status(POISONED) {
            return Some(Turn::Failed);
        }
        let role = self.leader.try_lock()?;
        // Again, behind the role: the last leader may have failed since we looked, and what the disk
        // says after a failed sync is not to be believed.
        let turn = if self.has_status(POISONED) {
            Turn::Failed
        } else if self.reached(goal) || self.pages.lock().stage.is_quiet() {
            Turn::Reached
        } else {
            return Some(Turn::Lead(role));
        };
        self.resign(role);
        Some(turn)
    }

    /// Gives up the role of the leader; wakes whoever was refused it.
    pub(super) fn resign(&self, role: MutexGuard<'_, Lead>) {
        drop(role);
        self.shared.events.synced.notify();
    }

    /// Where the leader goes on following the published prefix. The lock of the pages keeps what lies
    /// behind it from being reclaimed.
    pub(super) fn frontier(&self, pages: &Pages) -> u64 {
        if self.is_synced_mode() {
            pages.scanned
        } else {
            pages.scanned.max(self.ring.head())
        }
    }

    /// Whether a round would raise the commit. If not, whatever a caller waits for is not published.
    pub fn would_commit(&self) -> bool {
        let pages = self.pages.lock();
        // Nothing more is committed in a file that is quiet, and one that is retired may be gone: look no
        // further.
        if pages.stage.is_quiet() {
            return true;
        }
        let frontier = self.frontier(&pages);
        frontier > self.commit() || self.ring.is_published(frontier)
    }

    /// Waits for the senders that the last round released.
    fn gather(&self, lead: &Lead) {
        let Some((group, mut wait)) = self.group.gather(lead.sync) else {
            return;
        };
        // With the role, in a synced mode, nobody else raises the limit: what lies behind the frontier is not
        // reclaimed.
        let mut end = self.frontier(&self.pages.lock());
        let mut sends = 0;
        loop {
            let prefix = self.ring.published_prefix(end);
            let more = prefix.claims;
            (end, sends) = (prefix.end, sends + more);
            if sends >= group || !wait.another(more > 0) {
                return;
            }
        }
    }

    /// One round: checkpoint, sync, commit. A failure or a panic poisons the channel.
    fn round(&self, lead: &mut Lead) {
        let unwinding = PoisonOnUnwind(self);
        // [O:begun] AcqRel: E11; the acknowledgements of whoever saw the count before this round are in it.
        let number = self.begun.fetch_add(1, weaken!("begun", Ordering::AcqRel)) + 1;
        // [O:rounds] Relaxed: a count.
        self.shared.rounds.fetch_add(1, Ordering::Relaxed);
        let (target, claims, stored, is_cold) = {
            let mut pages = self.pages.lock();
            // Before the prefix: a head beyond the target would let the next leader's frames go.
            let head = self.ring.head();
            let frontier = self.frontier(&pages);
            let prefix = self.ring.published_prefix(frontier);
            let (target, claims) = (prefix.end, prefix.claims);
            let stored = if prefix.is_commit_marker && self.marker_is_enough(&pages, target) {
                pages.rounds_without += 1;
                *pages.newest()
            } else {
                self.store_checkpoint(&mut pages, head, target.max(head), false)
            };
            pages.sync_begins();
            // Sealed and whole; in a synced mode most of it is clean.
            let is_whole = self.ring.end() == Some(target);
            let is_cold = is_whole && !pages.stage.is_entered() && !self.is_synced_mode();
            (target, claims, stored, is_cold)
        };
        if is_cold {
            self.ring.advise_cold();
        }
        let began = Instant::now();
        match self.sync_round() {
            Ok(()) => self.completed(number, target, claims, &stored),
            Err(error) => self.shared.poison(&error),
        }
        if self.is_per_send() {
            lead.sync = began.elapsed();
            // Those that came meanwhile, and those that may come back now.
            self.group
                .set_size(claims + self.ring.published_prefix(target).claims);
        }
        std::mem::forget(unwinding);
    }

    /// The sync of a round. One that failed is not tried again: what the disk says then is not to be
    /// believed.
    fn sync_round(&self) -> io::Result<()> {
        let memory = self.ring.memory();
        let first = planted!("round_not_synced", Ok(()), memory.sync());
        let last = planted!(
            "failed_sync_retried",
            first.or_else(|_| memory.sync()),
            first
        );
        planted!("failed_sync_forgotten", last.or(Ok(())), last)
    }

    /// Whether a round can do without a checkpoint, because a commit marker at the frontier records the
    /// commit that the checkpoint would have: there were not many such rounds since the last checkpoint, and
    /// half of the ring is free.
    fn marker_is_enough(&self, pages: &Pages, target: u64) -> bool {
        let limit = pages.newest().head + self.ring.capacity();
        let has_room = pages.frozen || target + self.ring.capacity() / 2 <= limit;
        has_room && pages.rounds_without < ROUNDS_WITHOUT_MAX
    }

    /// After the sync of a round.
    pub(super) fn completed(&self, number: u64, target: u64, claims: u64, stored: &Checkpoint) {
        let commit = planted!("commit_to_the_live_tail", self.ring.tail(), target);
        // [O:commit_own] Relaxed: only the leader writes it.
        if commit > self.commit.load(Ordering::Relaxed) {
            // [O:commit] Release: E9, pairs with [O:commit_read]; comes after the sync that it reports.
            self.commit
                .store(commit, weaken!("commit", Ordering::Release));
        }
        if let Mode::Every { .. } = self.mode {
            // [O:unsynced] Relaxed: each of these claims took one.
            self.shared.unsynced.fetch_sub(claims, Ordering::Relaxed);
        }
        let mut pages = self.pages.lock();
        pages.scanned = target;
        pages.sync_completed(stored);
        self.raise_limit(&pages);
        let recorded = pages.recorded();
        drop(pages);
        // [O:completed] Release: E9, pairs with [O:completed_read].
        self.completed
            .store(number, weaken!("completed", Ordering::Release));
        if self.is_synced_mode() && recorded.commit < target {
            // One round more records this commit, if nobody else does.
            self.flag_progress();
        }
    }

    pub(super) fn raise_limit(&self, pages: &Pages) {
        if pages.frozen {
            return;
        }
        let floor = if self.is_synced_mode() {
            planted!(
                "limit_by_the_live_head",
                self.ring.head(),
                pages.recorded().head
            )
        } else {
            pages.floor()
        };
        self.ring.raise_limit(floor + self.ring.capacity());
    }

    /// The messages that are not acknowledged, and of these those that were handed out: for a checkpoint that
    /// vouches for them.
    fn counts(&self, head: u64, tail: u64) -> (u64, u64) {
        // What was counted and turned out to be damaged may be acknowledged before all of it was found.
        let unacknowledged = self.ring.unacknowledged().min((tail - head) / FRAME_ALIGN);
        (unacknowledged, self.ring.handed_out().min(unacknowledged))
    }

    /// Stores a checkpoint into the older page. Both `head` and the commit are already true, so early
    /// writeback of the page harms nothing.
    pub(super) fn store_checkpoint(
        &self,
        pages: &mut Pages,
        head: u64,
        tail: u64,
        clean: bool,
    ) -> Checkpoint {
        if pages.stage.is_quiet() {
            return *pages.newest();
        }
        let names_commit = clean || pages.names_commit || pages.frozen || self.is_synced_mode();
        let known = match names_commit {
            true => self.commit().max(head),
            false => head,
        };
        let commit = planted!("commit_before_data", tail, known);
        let sealed = clean && self.ring.end() == Some(tail);
        let (unacknowledged, handed_out) = match clean {
            true => self.counts(head, tail),
            false => (0, 0),
        };
        let newest = pages.newest();
        let checkpoint = Checkpoint {
            generation: newest.generation + 1,
            head,
            commit,
            tail: tail.max(commit),
            base: newest.base,
            unacknowledged,
            handed_out: handed_out.min(u64::from(u32::MAX)) as u32,
            clean,
            sealed,
        };
        let page = pages.store(checkpoint);
        self.ring
            .memory()
            .store_words(self.ring.layout().checkpoints[page], &checkpoint.encode());
        // [O:quarter_at] Relaxed: a hint for when to store the next; the lock orders the rest.
        self.quarter_at
            .store(head + self.ring.capacity() / 4, Ordering::Relaxed);
        checkpoint
    }

    /// Returns when all that was sent before the call, by anyone, is on stable storage.
    pub fn sync_sent(&self) -> io::Result<()> {
        self.shared.check()?;
        self.name_commit();
        self.reach(Goal::Commit(self.ring.tail()))
    }

    /// Returns when all that was acknowledged before the call is, too.
    pub fn sync_progress(&self) -> io::Result<()> {
        self.name_commit();
        self.next_round()
    }

    /// What somebody asked to be durable is known as durable after a crash, and its damage as damage.
    fn name_commit(&self) {
        if !self.is_synced_mode() {
            self.pages.lock().names_commit = true;
        }
    }

    /// Returns when a round that begins after the call is complete.
    pub(super) fn next_round(&self) -> io::Result<()> {
        self.shared.check()?;
        if self.advance() {
            self.shared.events.room.notify();
        }
        // [O:begun] AcqRel: E11; a read-modify-write, so that the round that comes next sees what we did.
        let begun = self.begun.fetch_add(0, weaken!("begun", Ordering::AcqRel));
        self.reach(Goal::Round(begun + 1))
    }

    /// What the timer's thread does for one file when its time has come; `flags` tells what for.
    pub fn on_timer(&self, flags: u32) -> io::Result<()> {
        if flags & (SENT | HURRY) != 0 {
            self.sync_sent()?;
        }
        if flags & PROGRESS != 0 {
            self.record_progress()?;
        }
        Ok(())
    }

    /// What it does when acknowledgements and commits are to be recorded. The flag may be that of another
    /// file.
    fn record_progress(&self) -> io::Result<()> {
        if self.advance() {
            self.shared.events.room.notify();
        }
        if !self.is_synced_mode() {
            return self.flush_quarter_or_lift();
        }
        let acknowledged = self.ring.acknowledged();
        {
            let pages = self.pages.lock();
            let recorded = pages.recorded();
            let is_recorded = pages.acknowledged == acknowledged
                && recorded.head >= self.ring.head()
                && recorded.commit >= self.commit();
            if is_recorded || pages.stage.is_quiet() {
                return Ok(());
            }
        }
        // Even if the head did not move: acknowledgements behind it are to last, too.
        self.sync_progress()?;
        self.pages.lock().acknowledged = acknowledged;
        Ok(())
    }

    /// Ends the incarnation in order: everything is synced, then a clean checkpoint says so. Nobody else uses
    /// the log any more.
    pub fn finish(&self) -> io::Result<()> {
        self.shared.check()?;
        // Without real syncs a clean flag could outlive the data it vouches for.
        if !cfg!(feature = "fsync") {
            return Ok(());
        }
        if !planted!("clean_before_the_last_sync") {
            self.sync_progress()?;
        }
        let mut pages = self.pages.lock();
        self.store_checkpoint(&mut pages, self.ring.head(), self.ring.tail(), true);
        drop(pages);
        self.ring.memory().sync()
    }
}

/// A leader that panics must not leave the others waiting.
struct PoisonOnUnwind<'a, M: Memory>(&'a Log<M>);

impl<M: Memory> Drop for PoisonOnUnwind<'_, M> {
    fn drop(&mut self) {
        self.0.shared.poison(&io::Error::other(
            "a thread panicked while it synced the channel",
        ));
    }
}
