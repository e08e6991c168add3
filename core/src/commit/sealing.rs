//! Where one file of a channel ends and the next begins: freezing, sealing, completing, retiring.

use super::housekeeper::{AHEAD, TIDY};
use super::log::{Goal, Lead, Log};
use super::pages::Stage;
use super::shared::POISONED;
use crate::format::checkpoint::CHECKPOINT_LEN;
use crate::planted::planted;
use crate::storage::{Memory, WORD_LEN};
use crate::sync::{MutexGuard, Ordering};
use std::io;

/// The role of the leader, outside of a round.
struct Role<'a, M: Memory> {
    log: &'a Log<M>,
    role: Option<MutexGuard<'a, Lead>>,
}

impl<M: Memory> Drop for Role<'_, M> {
    fn drop(&mut self) {
        if let Some(role) = self.role.take() {
            self.log.resign(role);
        }
    }
}

impl<M: Memory> Log<M> {
    /// Tells the housekeeper when little is left before the limit; once for each limit.
    pub(super) fn notify_housekeeper(&self, end: u64) {
        let limit = self.ring.limit();
        // [O:notified_limit] Relaxed: a hint; who finds no room does not wait for the housekeeper.
        if end + self.ahead > limit && self.notified_limit.load(Ordering::Relaxed) != limit {
            // [O:notified_limit] Relaxed: as above.
            self.notified_limit.store(limit, Ordering::Relaxed);
            self.shared.housekeeper.flag(AHEAD);
        }
    }

    /// So little is left that the housekeeper has been notified.
    pub fn is_nearly_full(&self) -> bool {
        self.ring.tail() + self.ahead > self.ring.limit()
    }

    /// Moves the head. Tells the housekeeper if this was the last of the file, or if it may be time to
    /// return.
    pub(super) fn advance(&self) -> bool {
        let moved = self.ring.advance();
        if moved && (self.is_drained() || self.may_return()) {
            self.shared.housekeeper.fence_and_flag(TIDY);
        }
        moved
    }

    /// So little is unacknowledged in this segment that the channel may return to its ring.
    pub fn may_return(&self) -> bool {
        self.return_at > 0
            && self.shared.ring_is_next()
            && self.ring.tail() - self.ring.head() <= self.return_at
    }

    /// Everything that the file will ever hold is acknowledged.
    pub fn is_drained(&self) -> bool {
        self.ring.end() == Some(self.ring.head())
    }

    /// Moves the head as far as it can; whether that drains the file.
    pub fn drain_now(&self) -> bool {
        self.ring.advance();
        self.is_drained()
    }

    /// The receiver has read all of the file, and goes on to the next. The housekeeper looks whether the file
    /// is drained: whoever acknowledges the last of it may not see yet that it has an end.
    pub fn left(&self) {
        self.shared.housekeeper.fence_and_flag(TIDY);
    }

    /// The limit is not raised from now on; gives it.
    pub fn freeze(&self) -> u64 {
        let mut pages = self.pages.lock();
        pages.frozen = true;
        self.ring.limit()
    }

    /// It is again.
    pub fn thaw(&self) {
        let mut pages = self.pages.lock();
        if !self.ring.layout().once {
            pages.frozen = false;
            self.raise_limit(&pages);
        }
        drop(pages);
        self.shared.events.room.notify();
    }

    /// Shows where the file ends, behind which another one is linked.
    pub fn show_end(&self) {
        let pages = self.pages.lock();
        debug_assert!(pages.frozen);
        self.ring.show_end();
    }

    /// Of a file opened again: it has its end from the start.
    pub fn close_end(&self) {
        self.freeze();
        self.show_end();
    }

    /// Raises the limit, if the acknowledgements allow that; an error is everybody's.
    pub fn reclaim(&self) {
        let wished = self.ring.limit() + self.ring.capacity() / 4;
        self.make_room(wished).ok();
    }

    /// Moves the cursor over padding and what was given up, and the head behind it. There is no receiver any
    /// more, and what an earlier incarnation left was read.
    pub fn pass_fillers(&self) {
        self.ring.pass_fillers();
        self.ring.advance();
    }

    /// Tag of the ids of what is sent now.
    pub fn tag(&self) -> u64 {
        self.ring.incarnations().newest().tag
    }

    /// Takes what is left of the file, so that all further sends go to the next one. If that is refused, the
    /// channel has failed.
    pub fn seal(&self) {
        if let Err(refused) = self.ring.seal() {
            self.shared.poison(&refused.into());
        }
    }

    /// Synced modes: the file before this one is committed up to its end before anything of this one is.
    pub fn commit_previous(&self) -> io::Result<()> {
        // [O:previous_read] Acquire: E14, pairs with [O:previous]; who sees it committed sees what that
        // covers.
        if !self.has_previous.load(Ordering::Acquire) {
            return Ok(());
        }
        let previous = self.previous.lock().clone();
        if let Some(previous) = previous
            && !planted!("next_file_committed_first")
        {
            previous.commit_to_end()?;
        }
        *self.previous.lock() = None;
        // [O:previous] Release: E14, pairs with [O:previous_read]; comes after the commit that it reports.
        self.has_previous.store(false, Ordering::Release);
        Ok(())
    }

    /// Returns when a sealed file is committed up to its end.
    pub fn commit_to_end(&self) -> io::Result<()> {
        debug_assert!(self.ring.is_sealed());
        self.reach(Goal::Commit(self.ring.limit()))
    }

    /// The receiver comes to this file. From now on no checkpoint vouches for counts, on the disk neither.
    pub fn enter(&self) -> io::Result<()> {
        let mut pages = self.pages.lock();
        if self.is_drained() {
            // There is nothing to count. It may be retired already, and gone: a store would need a block
            // again.
            return Ok(());
        }
        if pages.stage == Stage::Retired {
            // Nothing was in it, and it is gone.
            return Ok(());
        }
        if !pages.newest().clean && pages.stage != Stage::Entering {
            pages.stage = Stage::Entered;
            return Ok(());
        }
        pages.stage = Stage::Entering;
        // A page that a failed sync may have torn is not followed by another one, nor by deliveries.
        self.shared.check()?;
        if pages.newest().clean {
            let (head, tail) = (pages.newest().head, pages.newest().tail);
            self.store_checkpoint(&mut pages, head, tail, false);
        }
        drop(pages);
        if !planted!("counts_vouched_for_when_entered") {
            self.sync_checkpoints()?;
        }
        let mut pages = self.pages.lock();
        if pages.stage == Stage::Entering {
            pages.stage = Stage::Entered;
        }
        Ok(())
    }

    /// Makes a sealed file complete: all of it on stable storage, and a checkpoint that says so. If the
    /// receiver has not come to it, it also tells how many messages it holds. Gives whether it does.
    pub fn complete(&self) -> io::Result<bool> {
        self.commit_to_end()?;
        let Some(_role) = self.lead_alone()? else {
            return Ok(false);
        };
        {
            let mut pages = self.pages.lock();
            if pages.stage != Stage::Live {
                return Ok(false);
            }
            // Without real syncs it could outlive what it vouches for.
            if cfg!(feature = "fsync") {
                self.store_checkpoint(&mut pages, self.ring.head(), self.ring.tail(), true);
            }
            pages.stage = Stage::Complete;
        }
        self.sync_in_role()?;
        Ok(self.pages.lock().stage == Stage::Complete)
    }

    /// Ends the use of a drained file: a checkpoint says so, durably, and from then on nobody writes to it
    /// through this log. An error: the channel has failed.
    pub fn retire(&self) -> io::Result<()> {
        debug_assert!(self.is_drained());
        if self.is_synced_mode() {
            // For the permits of what was never synced.
            self.commit_to_end()?;
        }
        let Some(_role) = self.lead_alone()? else {
            return self.shared.check();
        };
        {
            let mut pages = self.pages.lock();
            let (head, tail) = (self.ring.head(), self.ring.tail());
            // One that was made complete, and in which nothing is, has the head of that time in its pages.
            if !planted!("complete_file_retired_as_it_is") {
                pages.stage = Stage::Live;
            }
            // Once: a power cut could tear two that no sync parts.
            self.store_checkpoint(&mut pages, head, tail, true);
            if planted!("drained_recorded_twice_at_once") {
                self.store_checkpoint(&mut pages, head, tail, true);
            }
            pages.stage = Stage::Retired;
        }
        if planted!("drained_not_synced") {
            return Ok(());
        }
        self.sync_checkpoints()
    }

    /// Makes both pages durable, and nothing else. A failure ends the channel.
    fn sync_checkpoints(&self) -> io::Result<()> {
        let [first, second] = self.ring.layout().checkpoints;
        let words = second + CHECKPOINT_LEN as u64 / WORD_LEN - first;
        self.ring
            .memory()
            .sync_words(first, words)
            .inspect_err(|error| self.shared.poison(error))
    }

    /// The role of the leader, waited for; `None` if the channel has failed.
    fn lead_alone(&self) -> io::Result<Option<Role<'_, M>>> {
        let role = self.shared.events.synced.wait(None, || {
            if self.has_status(POISONED) {
                return Some(None);
            }
            self.leader.try_lock().map(Some)
        });
        match role.flatten() {
            Some(role) => Ok(Some(Role {
                log: self,
                role: Some(role),
            })),
            None => self.shared.check().map(|()| None),
        }
    }

    /// A sync outside of a round. A failure ends the channel.
    fn sync_in_role(&self) -> io::Result<()> {
        self.ring.memory().sync().inspect_err(|error| {
            self.shared.poison(error);
        })
    }
}
