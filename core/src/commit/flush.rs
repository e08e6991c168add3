//! `FlushOnly`: checkpoints without syncs, and the pins that need some.

use super::log::Log;
use crate::storage::Memory;
use crate::sync::Ordering;
use std::io;

impl<M: Memory> Log<M> {
    /// Whether a position lies a quarter of the ring or more behind the head of the last checkpoint.
    #[inline]
    pub(super) fn is_quarter_behind(&self, position: u64) -> bool {
        // [O:quarter_at] Relaxed: a hint; looked at again under the lock.
        position >= self.quarter_at.load(Ordering::Relaxed)
    }

    /// Stores a checkpoint when the head has moved a quarter of the ring since the last.
    pub(super) fn flush_quarter(&self) {
        if !self.is_quarter_behind(self.ring.head()) {
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
            self.flag_progress();
        }
    }

    /// Raises the limit as far as the head allows.
    pub(super) fn flush_room(&self) -> io::Result<()> {
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
        self.shared.events.room.notify();
        Ok(())
    }

    /// Replaces the checkpoints that have a commit above their head, durably: one round for each page. From
    /// then on they call nothing above their head durable, although some of it is.
    pub(super) fn lift(&self) -> io::Result<()> {
        self.pages.lock().names_commit = false;
        for _ in 0..2 {
            self.next_round()?;
        }
        Ok(())
    }

    pub(super) fn flush_quarter_or_lift(&self) -> io::Result<()> {
        let pages = self.pages.lock();
        if pages.is_pinned() && self.commit() <= self.ring.head() {
            drop(pages);
            return self.lift();
        }
        Ok(())
    }
}
