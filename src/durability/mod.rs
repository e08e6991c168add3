//! Who syncs, when: group commit, the limit, poison.
//!
//! One caller leads at a time. The leader takes the published prefix as its target, stores a
//! checkpoint of what is already true, and makes one sync of the whole file: data, checkpoint and
//! acknowledgements go together. Then it raises the commit and the limit, and wakes everyone. Nobody
//! holds a lock that senders need while the disk works: the role of the leader is a mutex that is
//! only ever tried.
//!
//! The rules for the limit (which space may be reused) are in [`pages`].

mod pages;
pub(crate) mod timer;

use crate::format::POSITION_MAX;
use crate::format::checkpoint::Checkpoint;
use crate::format::frame::payload_crc;
use crate::memory::Memory;
use crate::ring::wait::Event;
use crate::ring::{Claim, Frame, NoRoom, Reader, Ring, Seen};
use crate::sync::{AtomicU32, AtomicU64, CachePadded, Mutex, MutexGuard, Ordering, weaken};
use pages::Pages;
use std::io;
use std::time::{Duration, Instant};
use timer::{HURRY, PROGRESS, SENT, Timer};

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
    returned: Mutex<Vec<u64>>,
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
            pages: Mutex::new(Pages::new(stored, ring.tail())),
            synced: Event::new(0),
            timer: Timer::new(),
            commit_every: AtomicU64::new(1),
            returned: Mutex::new(Vec::new()),
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

    // === Sending ===

    /// Sends a payload: claims, writes, publishes, and makes it as durable as the mode promises.
    /// Returns its position.
    pub(crate) fn send(&self, payload: &[u8], wait: Wait) -> Result<u64, SendFailure> {
        let (len, max) = (payload.len() as u64, self.ring.layout().payload_len_max());
        if len > max {
            return Err(SendFailure::TooLarge { len, max });
        }
        self.check_open()?;
        let crc = payload_crc(payload);
        let claim = self.claim(len, wait)?;
        let (position, end) = (claim.position(), claim.end());
        claim.publish(payload, crc);
        self.ring.announce(self.mode != Mode::PerSend);
        match self.mode {
            Mode::PerSend => self
                .drive(Goal::Commit(end))
                .map_err(SendFailure::Unsynced)?,
            Mode::FlushOnly => {}
            Mode::Every { max_ops, .. } => {
                // [O:unsynced] Relaxed: a count that the compare-exchange in `take_permit` bounds.
                let unsynced = self.unsynced.load(Ordering::Relaxed);
                let hurry = if unsynced * 2 >= max_ops { HURRY } else { 0 };
                self.timer.flag(SENT | hurry);
            }
        }
        Ok(position)
    }

    fn claim(&self, len: u64, wait: Wait) -> Result<Claim<'_, M>, SendFailure> {
        let attempt = || self.try_claim(len).transpose();
        match (attempt(), wait) {
            (Some(outcome), _) => outcome,
            (None, Wait::No) => Err(SendFailure::Full),
            (None, Wait::Until(deadline)) => self
                .ring
                .room
                .wait(deadline, attempt)
                .unwrap_or(Err(SendFailure::Full)),
        }
    }

    /// `None` while there is no room.
    fn try_claim(&self, len: u64) -> Result<Option<Claim<'_, M>>, SendFailure> {
        loop {
            self.check_open()?;
            self.take_permit().map_err(SendFailure::Io)?;
            let needed = match self.ring.claim(len) {
                Ok(claim) => return Ok(Some(claim)),
                Err(NoRoom::Bound) => None,
                Err(NoRoom::Space { needed }) => Some(needed),
            };
            // Whoever waits for room holds no permit: those who hold one publish soon.
            self.give_back_permit();
            let Some(needed) = needed else {
                return Ok(None);
            };
            if !self.make_room(needed).map_err(SendFailure::Io)? {
                return Ok(None);
            }
        }
    }

    /// Does whatever raises the limit to `needed`, if the acknowledgements allow that.
    fn make_room(&self, needed: u64) -> io::Result<bool> {
        if needed > POSITION_MAX {
            // Claims end there for ever: after 512 PiB, or where a forged header says so.
            return Err(io::ErrorKind::StorageFull.into());
        }
        if self.ring.advance() {
            self.ring.room.notify();
            // On behalf of an acknowledger that found us at it, and of a timer that came too early.
            if self.is_synced_mode() {
                self.timer.flag(PROGRESS);
            }
        }
        if self.ring.limit() < needed && self.ring.head() + self.ring.capacity() >= needed {
            if self.is_synced_mode() {
                self.drive(Goal::Room(needed))?;
            } else {
                self.flush_room()?;
            }
        }
        Ok(self.ring.limit() >= needed)
    }

    /// `Every`: one more send may return before it is synced. Waits for the disk while there are
    /// too many.
    fn take_permit(&self) -> io::Result<()> {
        let Mode::Every { max_ops, .. } = self.mode else {
            return Ok(());
        };
        loop {
            // [O:unsynced] Relaxed, all: a count; what the sync covered is E9.
            let unsynced = self.unsynced.load(Ordering::Relaxed);
            if unsynced >= max_ops {
                self.drive(Goal::Permit(max_ops))?;
                continue;
            }
            // [O:unsynced] Relaxed, both: as above.
            let taken = self.unsynced.compare_exchange_weak(
                unsynced,
                unsynced + 1,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            if taken.is_ok() {
                return Ok(());
            }
        }
    }

    fn give_back_permit(&self) {
        if let Mode::Every { .. } = self.mode {
            // [O:unsynced] Relaxed: as above; the notifications fence.
            self.unsynced.fetch_sub(1, Ordering::Relaxed);
            self.ring.published.notify();
            self.synced.notify();
        }
    }

    // === Rounds ===

    fn reached(&self, goal: Goal) -> bool {
        match goal {
            Goal::Commit(end) => self.commit() >= end,
            // [O:completed_read] Acquire: E9, pairs with [O:completed]; as the commit.
            Goal::Round(number) => {
                let read = weaken!("completed_read", Ordering::Acquire);
                self.completed.load(read) >= number
            }
            Goal::Room(needed) => self.ring.limit() >= needed,
            // [O:unsynced] Relaxed: the compare-exchange that follows decides.
            Goal::Permit(max_ops) => self.unsynced.load(Ordering::Relaxed) < max_ops,
        }
    }

    /// Waits until the goal is reached, leading rounds where nobody else does.
    fn drive(&self, goal: Goal) -> io::Result<()> {
        loop {
            let role = match self.synced.wait(None, || self.turn(goal)) {
                Some(Turn::Lead(role)) => role,
                Some(Turn::Reached) => return Ok(()),
                Some(Turn::Failed) | None => return self.check(),
            };
            if matches!(goal, Goal::Commit(_) | Goal::Permit(_)) && !self.would_commit() {
                // A claim that is not published is in the way: give up the role before waiting for it.
                // Nobody who waits here takes the role, so nobody here keeps it from another.
                self.resign(role);
                self.ring.published.wait(None, || {
                    let go_on =
                        self.would_commit() || self.reached(goal) || self.has_status(POISONED);
                    go_on.then_some(())
                });
                continue;
            }
            self.round();
            self.resign(role);
            // The commit and the permits are what those who wait for a hole to close look at, too.
            self.ring.published.notify_behind_fence();
            self.ring.room.notify_behind_fence();
            if self.mode == Mode::PerSend {
                self.ring.readable.notify_behind_fence();
            }
        }
    }

    /// What a caller with this goal is to do now; `None`: wait for the leader.
    fn turn(&self, goal: Goal) -> Option<Turn<'_>> {
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
        } else if self.reached(goal) {
            Turn::Reached
        } else {
            return Some(Turn::Lead(role));
        };
        self.resign(role);
        Some(turn)
    }

    /// Gives up the role of the leader; whoever was refused it must be told.
    fn resign(&self, role: MutexGuard<'_, ()>) {
        drop(role);
        self.synced.notify();
    }

    /// Where the leader goes on following the published prefix. The lock of the pages keeps what lies
    /// behind it from being reclaimed.
    fn frontier(&self, pages: &Pages) -> u64 {
        if self.is_synced_mode() {
            pages.scanned
        } else {
            pages.scanned.max(self.ring.head())
        }
    }

    /// Whether a round would raise the commit. If not, whatever a caller waits for is not published.
    fn would_commit(&self) -> bool {
        let pages = self.pages.lock();
        let frontier = self.frontier(&pages);
        frontier > self.commit() || self.ring.is_published(frontier)
    }

    /// One round: checkpoint, sync, commit. A failure or a panic poisons the channel.
    fn round(&self) {
        let unwinding = PoisonOnUnwind(self);
        // [O:begun] AcqRel: E11; the acknowledgements of whoever saw the count before this round are in it.
        let number = self.begun.fetch_add(1, weaken!("begun", Ordering::AcqRel)) + 1;
        let (target, claims, stored) = {
            let mut pages = self.pages.lock();
            // Before the prefix: a head beyond the target would let the next leader's frames go.
            let head = self.ring.head();
            let frontier = self.frontier(&pages);
            let (target, claims) = self.ring.published_prefix(frontier);
            let stored = self.store_checkpoint(&mut pages, head, target.max(head), false);
            pages.sync_begins();
            (target, claims, stored)
        };
        match self.ring.memory().sync() {
            Ok(()) => self.completed(number, target, claims, &stored),
            Err(error) => self.poison(&error),
        }
        std::mem::forget(unwinding);
    }

    /// After the sync of a round.
    fn completed(&self, number: u64, target: u64, claims: u64, stored: &Checkpoint) {
        // [O:commit_own] Relaxed: only the leader writes it.
        if target > self.commit.load(Ordering::Relaxed) {
            // [O:commit] Release: E9, pairs with [O:commit_read]; comes after the sync that it reports.
            self.commit
                .store(target, weaken!("commit", Ordering::Release));
        }
        if let Mode::Every { .. } = self.mode {
            // [O:unsynced] Relaxed: each of these claims took one.
            self.unsynced.fetch_sub(claims, Ordering::Relaxed);
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
            self.timer.flag(PROGRESS);
        }
    }

    fn raise_limit(&self, pages: &Pages) {
        let floor = if self.is_synced_mode() {
            pages.recorded().head
        } else {
            pages.floor()
        };
        self.ring.raise_limit(floor + self.ring.capacity());
    }

    /// Stores a checkpoint into the older page. Both `head` and the commit are already true, so early
    /// writeback of the page harms nothing.
    fn store_checkpoint(&self, pages: &mut Pages, head: u64, tail: u64, clean: bool) -> Checkpoint {
        // In `FlushOnly` too: a commit above the head is only ever one that a sync has reached.
        let commit = self.commit().max(head);
        let newest = pages.newest();
        let checkpoint = Checkpoint {
            generation: newest.generation + 1,
            head,
            commit,
            tail: tail.max(commit),
            base: newest.base,
            unacknowledged: if clean { self.ring.unacknowledged() } else { 0 },
            handed_out: if clean {
                self.ring.handed_out().min(u64::from(u32::MAX)) as u32
            } else {
                0
            },
            clean,
        };
        let page = pages.store(checkpoint);
        self.ring
            .memory()
            .store_words(self.ring.layout().checkpoints[page], &checkpoint.encode());
        // [O:stored_head] Relaxed: a hint for when to store the next; the lock orders the rest.
        self.stored_head.store(head, Ordering::Relaxed);
        checkpoint
    }

    // === FlushOnly: checkpoints without syncs ===

    /// Stores a checkpoint when the head has moved a quarter of the ring since the last.
    fn flush_quarter(&self) {
        let head = self.ring.head();
        // [O:stored_head] Relaxed: a hint; looked at again under the lock.
        let stored = self.stored_head.load(Ordering::Relaxed);
        if head.saturating_sub(stored) < self.ring.capacity() / 4 {
            return;
        }
        // Whoever has the lock stores or syncs one.
        let Some(mut pages) = self.pages.try_lock() else {
            return;
        };
        let head = self.ring.head();
        if head > pages.newest().head {
            self.store_checkpoint(&mut pages, head, self.ring.tail(), false);
            self.raise_limit(&pages);
        }
        if pages.is_pinned() && self.commit() <= head {
            drop(pages);
            self.timer.flag(PROGRESS);
        }
    }

    /// Raises the limit as far as the head allows.
    fn flush_room(&self) -> io::Result<()> {
        let mut pages = self.pages.lock();
        if pages.is_pinned() {
            drop(pages);
            return self.lift();
        }
        for _ in 0..2 {
            let head = self.ring.head();
            if pages.floor() < head {
                self.store_checkpoint(&mut pages, head, self.ring.tail(), false);
            }
        }
        self.raise_limit(&pages);
        drop(pages);
        self.ring.room.notify();
        Ok(())
    }

    /// Replaces the checkpoints that have a commit above their head, durably: one round for each page.
    fn lift(&self) -> io::Result<()> {
        for _ in 0..2 {
            self.sync_progress()?;
        }
        Ok(())
    }

    // === Receiving ===

    pub(crate) fn set_commit_every(&self, count: u64) {
        // [O:settings] Relaxed: a setting; no data hangs on it.
        self.commit_every.store(count.max(1), Ordering::Relaxed);
    }

    /// Reads what may be read now; `None` if there is nothing yet.
    pub(crate) fn try_read(&self, reader: &mut Reader, buffer: &mut Vec<u8>) -> Option<Received> {
        // Before the look at the ring: what the last sender sent is then in it.
        let ended = self.has_status(POISONED | SENDERS_GONE);
        let poisoned = ended && self.has_status(POISONED);
        // What a power cut could unsend is not shown; of a channel that failed, only what is durable.
        let durable_only = self.mode == Mode::PerSend || poisoned;
        let visible = if durable_only {
            self.commit()
        } else {
            u64::MAX
        };
        match self.ring.read(reader, visible, buffer) {
            Seen::Message(frame) => Some(Received::Message(frame)),
            Seen::Foreign { position } => Some(self.foreign(position)),
            Seen::Nothing if !ended => None,
            Seen::Nothing => Some(match self.check() {
                Err(error) => Received::Failed(error),
                // What came back before the last sender left: the caller may have looked too early.
                Ok(()) => self.read_returned(buffer).unwrap_or(Received::Disconnected),
            }),
        }
    }

    /// A frame of this life is not what was written. The channel ends here; recovery knows what to do
    /// with the file.
    fn foreign(&self, position: u64) -> Received {
        let text = format!("the frame at position {position} was changed from outside the channel");
        self.poison(&io::Error::new(io::ErrorKind::InvalidData, text));
        match self.check() {
            Err(error) => Received::Failed(error),
            Ok(()) => Received::Disconnected,
        }
    }

    /// Reads a message that came back, lowest position first; `None` if there is none.
    pub(crate) fn read_returned(&self, buffer: &mut Vec<u8>) -> Option<Received> {
        // [O:returned] Relaxed: a hint, ordered by the fences where somebody sleeps (E8) and by the status where
        // somebody left (E10); the lock hands the positions over (E12).
        if self.returned_count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let position = {
            let mut returned = self.returned.lock();
            let (lowest, _) = returned
                .iter()
                .enumerate()
                .min_by_key(|(_, position)| **position)?;
            let position = returned.swap_remove(lowest);
            // [O:returned] Relaxed: written under the lock only.
            self.returned_count
                .store(returned.len() as u32, Ordering::Relaxed);
            position
        };
        match self.ring.read_again(position, buffer) {
            Seen::Message(frame) => Some(Received::Message(frame)),
            _ => Some(self.foreign(position)),
        }
    }

    /// A message that was handed out comes back.
    pub(crate) fn give_back(&self, position: u64) {
        {
            let mut returned = self.returned.lock();
            returned.push(position);
            // [O:returned] Relaxed: written under the lock only.
            self.returned_count
                .store(returned.len() as u32, Ordering::Relaxed);
        }
        self.ring.readable.notify();
    }

    /// Acknowledges a message, once. Never waits for the disk.
    pub(crate) fn acknowledge(&self, position: u64) {
        let count = self.ring.acknowledge(position);
        // [O:settings] Relaxed: a setting; no data hangs on it.
        let every = self.commit_every.load(Ordering::Relaxed);
        let due = every == 1 || count.is_multiple_of(every);
        if due {
            self.ring.advance();
            if !self.is_synced_mode() {
                self.flush_quarter();
            }
        }
        self.ring.room.notify();
        if due && self.is_synced_mode() {
            self.timer.flag(PROGRESS);
        } else {
            self.timer.flag_if_delayed(PROGRESS);
        }
    }

    /// Gives up the damage at `[position, end)`: the head may pass it.
    pub(crate) fn settle(&self, position: u64, end: u64) {
        self.ring.settle(position, end);
        self.ring.advance();
        self.ring.room.notify();
        if self.is_synced_mode() {
            self.timer.flag(PROGRESS);
        }
    }

    // === Syncing on request ===

    /// Returns when all that was sent before the call, by anyone, is on stable storage.
    pub(crate) fn sync_sent(&self) -> io::Result<()> {
        self.check()?;
        self.drive(Goal::Commit(self.ring.tail()))
    }

    /// Returns when all that was acknowledged before the call is, too.
    pub(crate) fn sync_progress(&self) -> io::Result<()> {
        self.check()?;
        if self.ring.advance() {
            self.ring.room.notify();
        }
        // [O:begun] AcqRel: E11; a read-modify-write, so that the round that comes next sees what we did.
        let begun = self.begun.fetch_add(0, weaken!("begun", Ordering::AcqRel));
        self.drive(Goal::Round(begun + 1))
    }

    /// The rounds begun so far.
    pub(crate) fn rounds(&self) -> u64 {
        // [O:begun_read] Relaxed: a count, compared with an earlier one.
        self.begun.load(Ordering::Relaxed)
    }

    /// What the timer's thread does when its time has come; `flags` tells what for.
    pub(crate) fn on_timer(&self, flags: u32) -> io::Result<()> {
        if flags & (SENT | HURRY) != 0 {
            self.sync_sent()?;
        }
        if flags & PROGRESS != 0 {
            if self.ring.advance() {
                self.ring.room.notify();
            }
            if self.is_synced_mode() {
                // Even if the head did not move: acknowledgements behind it are to last, too.
                self.sync_progress()?;
            } else {
                self.flush_quarter_or_lift()?;
            }
        }
        Ok(())
    }

    fn flush_quarter_or_lift(&self) -> io::Result<()> {
        let pages = self.pages.lock();
        if pages.is_pinned() && self.commit() <= self.ring.head() {
            drop(pages);
            return self.lift();
        }
        Ok(())
    }

    /// Ends the life in order: everything is synced, then a clean checkpoint says so. Nobody else uses the
    /// log any more.
    pub(crate) fn finish(&self) -> io::Result<()> {
        self.check()?;
        // Without real syncs a clean flag could outlive the data it vouches for.
        if !cfg!(feature = "fsync") {
            return Ok(());
        }
        self.sync_progress()?;
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
        self.0.poison(&io::Error::other(
            "a thread panicked while it synced the channel",
        ));
    }
}
