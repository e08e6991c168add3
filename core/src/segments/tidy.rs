//! What the housekeeper does: files that are sealed are made complete, those that are drained are removed.

use super::chain::Chain;
use super::files::Files;
use super::lifecycle::Event;
use crate::commit::housekeeper::{AHEAD, TIDY};
use crate::commit::{Failure, Log, SendFailure};
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
        self.remove_retired().ok();
        loop {
            let retired = self.retire_first(self.shared.receiver_is_gone())?;
            let completed = self.complete_one()?;
            if self.state.lock().ring_is_out() {
                // It needs no space: it comes next, whenever that is. An error is left to whoever needs it.
                self.link_behind(&self.active()).ok();
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
        let (mut retired, next) = {
            let mut state = self.state.lock();
            let Some(retired) = state.entries.pop_front() else {
                return Ok(false);
            };
            (
                retired,
                state.entries.front().and_then(|next| next.log.clone()),
            )
        };
        retired.apply(Event::Retire);
        if let Some(next) = next {
            // It is committed; until something is committed behind it, the next one would keep it open.
            next.commit_previous()?;
        }
        self.forget_sealed();
        if number == 0 {
            self.shared.set_ring_is_next(true);
            return Ok(true);
        }
        let mut state = self.state.lock();
        state.unremoved.push((retired.id(), retired.capacity));
        retired.apply(Event::Remove);
        drop(state);
        // One that cannot be removed now is drained: it is tried again.
        self.remove_retired().ok();
        Ok(true)
    }

    /// Removes the names of segments that are out of the chain. An error is the last one: what it left is
    /// tried again.
    fn remove_retired(&self) -> io::Result<()> {
        let unremoved = self.state.lock().unremoved.clone();
        let mut outcome = Ok(());
        for (segment, capacity) in unremoved {
            let was_ours = match self.files.remove(segment) {
                Ok(was_ours) => was_ours,
                Err(error) => {
                    outcome = Err(error);
                    continue;
                }
            };
            let mut state = self.state.lock();
            state.unremoved.retain(|(other, _)| *other != segment);
            state.bytes -= HEADER_LEN + capacity;
            if !was_ours {
                let name = self.files.name_of(segment.number);
                let text = format!("{name} is another file now: it was left as it is");
                let error = io::Error::new(io::ErrorKind::InvalidData, text);
                state.displaced = Some(Failure::of(&error));
            }
        }
        outcome
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
            drop(state);
            self.forget_sealed();
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
        let mut returned = Ok(());
        loop {
            self.retire_drained()?;
            let log = self.active();
            let ring = log.ring();
            let is_empty = ring.layout().once && ring.head() == ring.tail();
            if !is_empty || !self.shared.ring_is_next() {
                break;
            }
            if let Err(failure) = self.link_behind(&log) {
                // The empty segment stays, which a channel with a bound could not open.
                returned = io_result(Err(failure));
                break;
            }
            // The ring is next, or behind a file that was linked ahead of need, and is empty, too.
            log.seal();
        }
        // Nothing is made any more; a name that stayed would be the next incarnation's.
        let unmade = io_result(self.unmake());
        let removed = self.drop_unused().and(unmade).and(self.remove_retired());
        removed.and(returned)
    }

    fn retire_drained(&self) -> io::Result<()> {
        loop {
            // The receiver may have stopped before a segment in which everything was acknowledged before: it
            // has to be opened to be found drained.
            if !planted!("parked_file_stays_at_the_end") {
                self.begin()?.log.pass_fillers();
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
                self.state
                    .lock()
                    .unremoved
                    .push((entry.id(), entry.capacity));
                entry.apply(Event::Drop);
                self.remove_retired()?;
                self.files.sync_directory()
            }
            _ => Ok(()),
        }
    }
}

fn io_result(result: Result<(), SendFailure>) -> io::Result<()> {
    result.map_err(|failure| match failure {
        SendFailure::Io(error) => error,
        _ => io::ErrorKind::Other.into(),
    })
}
