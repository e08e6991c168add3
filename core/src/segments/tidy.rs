//! What the housekeeper does: files that are sealed are made complete, those that are drained are removed.

use super::chain::Chain;
use super::files::Files;
use super::lifecycle::Event;
use crate::commit::Log;
use crate::commit::housekeeper::{AHEAD, TIDY};
use crate::format::HEADER_LEN;
use crate::planted::planted;
use crate::sync::Arc;
use std::io;

impl<F: Files> Chain<F> {
    /// The body of the housekeeper's thread.
    pub fn run_housekeeper(&self) {
        use crate::commit::housekeeper::STOP;
        let housekeeper = &self.shared.housekeeper;
        loop {
            let any = || Some(housekeeper.flags()).filter(|flags| *flags != 0);
            let flags = housekeeper.event().wait(None, any).unwrap_or(0);
            if flags & STOP != 0 {
                return;
            }
            if self.on_housekeeper(flags).is_err() {
                // The channel has failed, and everybody knows. There is nothing left to do.
                let stop = || (housekeeper.flags() & STOP != 0).then_some(());
                housekeeper.event().wait(None, stop);
                return;
            }
        }
    }

    /// Takes the flags that are set, and does what they ask for.
    pub fn on_housekeeper(&self, flags: u32) -> io::Result<()> {
        let taken = self.shared.housekeeper.take(flags & (AHEAD | TIDY));
        if taken & AHEAD != 0 {
            self.grow_ahead();
        }
        self.tidy()
    }

    /// Completes, retires, removes, and returns to the ring, as long as there is something to do.
    pub(super) fn tidy(&self) -> io::Result<()> {
        if self.growth.is_none() {
            return Ok(());
        }
        loop {
            let retired = self.retire_first(self.shared.receiver_is_gone())?;
            let completed = self.complete_one()?;
            if self.state.lock().ring_is_out() {
                // It needs no space: it comes next, whenever that is. An error is left to whoever needs it.
                self.link_behind(&self.active(), 0).ok();
            }
            if !retired && !completed && !self.return_to_ring() {
                return Ok(());
            }
        }
    }

    /// Takes the first file out of the chain if it is drained.
    ///
    /// The words of the ring are used anew, under the salt of another incarnation: not while the receiver
    /// looks at them. In a segment that is gone it finds zeros.
    fn retire_first(&self, receiver_is_gone: bool) -> io::Result<bool> {
        let (number, log) = {
            let state = self.state.lock();
            let first = &state.entries[0];
            let (Some(log), Some(next)) = (&first.log, state.entries.get(1)) else {
                return Ok(false);
            };
            let receiver_looks_on =
                first.number == 0 && !next.state.is_entered() && !receiver_is_gone;
            if receiver_looks_on && !planted!("ring_retired_under_the_receiver") {
                return Ok(false);
            }
            (first.number, Arc::clone(log))
        };
        if !log.drain_now() {
            return Ok(false);
        }
        if !planted!("removed_before_drained_is_durable") {
            log.retire()?;
        }
        let Some(mut retired) = self.state.lock().entries.pop_front() else {
            return Ok(false);
        };
        retired.apply(Event::Retire);
        if number == 0 {
            self.shared.set_ring_is_next(true);
            return Ok(true);
        }
        // One that cannot be removed is drained: the next open removes it.
        if self.files.remove(number).is_ok() {
            retired.apply(Event::Remove);
            self.state.lock().bytes -= HEADER_LEN + retired.capacity;
        }
        Ok(true)
    }

    /// Makes a sealed file complete; unmaps it, unless the receiver is near.
    fn complete_one(&self) -> io::Result<bool> {
        let Some((log, is_near)) = self.to_complete() else {
            return Ok(false);
        };
        if !is_near || self.shared.is_synced_mode() {
            let may_go = log.complete()?;
            let mut state = self.state.lock();
            if let Some(index) = state.index_of(&log) {
                let entry = &mut state.entries[index];
                entry.apply(Event::Complete);
                if may_go && !is_near && !entry.state.is_entered() {
                    entry.apply(Event::Park);
                }
            }
        }
        Ok(true)
    }

    /// A sealed file that is to be completed, and whether the receiver is in it or just before it.
    #[allow(clippy::type_complexity)]
    fn to_complete(&self) -> Option<(Arc<Log<F::Memory>>, bool)> {
        let mut state = self.state.lock();
        let is_synced = self.shared.is_synced_mode();
        let active = state.active();
        for index in 0..active {
            let is_near = index == 0 || state.entries[index - 1].state.is_entered();
            let entry = &mut state.entries[index];
            let Some(log) = &entry.log else { continue };
            if !entry.state.is_to_complete() || !log.ring().is_sealed() {
                continue;
            }
            if is_near && !is_synced {
                // Nothing is promised, and it will soon be gone.
                entry.apply(Event::Complete);
                continue;
            }
            return Some((Arc::clone(log), is_near));
        }
        None
    }

    /// Before the end of an incarnation: what is drained goes, and a segment in which nothing is left
    /// gives way to the ring. The receiver is gone.
    pub(super) fn finish_chain(&self) -> io::Result<()> {
        loop {
            self.retire_drained()?;
            let log = self.active();
            let ring = log.ring();
            let is_empty = ring.layout().once && ring.head() == ring.tail();
            if !is_empty || !self.shared.ring_is_next() || self.link_behind(&log, 0).is_err() {
                break;
            }
            // The ring is next, or behind a file that was linked ahead of need, and is empty, too.
            log.seal();
        }
        self.drop_unused()
    }

    fn retire_drained(&self) -> io::Result<()> {
        loop {
            let first = self.state.lock().entries[0].log.clone();
            if let Some(log) = first {
                log.pass_fillers();
            }
            if !self.retire_first(true)? {
                return Ok(());
            }
        }
    }

    /// Removes a file that was linked ahead of need and is not needed: nobody will send any more.
    pub(super) fn drop_unused(&self) -> io::Result<()> {
        let unused = {
            let mut state = self.state.lock();
            let is_unused = state.active() + 1 < state.entries.len();
            is_unused.then(|| state.entries.pop_back()).flatten()
        };
        match unused {
            // The ring that began anew and was not used is found to be so.
            Some(mut entry) if entry.number > 0 => {
                self.files.remove(entry.number)?;
                entry.apply(Event::Drop);
                self.files.sync_directory()
            }
            _ => Ok(()),
        }
    }
}
