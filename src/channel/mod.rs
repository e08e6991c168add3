//! A channel of bytes over any memory, and the one over a file: what its handles share.

mod opening;
mod reading;

#[cfg(fuzzing)]
pub(crate) use opening::mode_of;
#[cfg(any(all(test, feature = "fsync"), fuzzing))]
pub(crate) use opening::without_threads;
pub(crate) use opening::{Parts, Request, footprint, open};
pub(crate) use reading::{Incoming, Payload, Reading};

use crate::durability::timer::STOP;
use crate::durability::{Common, Log, Mode, SendFailure, Wait, keeper};
use crate::error::Error;
use crate::file;
use crate::format::frame::{FRAME_HEADER_LEN, names_position};
use crate::format::get_u64;
use crate::memory::Medium;
use crate::message_id::MessageId;
use crate::options::Durability;
use crate::overflow::disk::Disk;
use crate::overflow::{Chain, Files, LogOf, Named, Slot};
use crate::planted::planted;
use crate::sync::Arc;
use crate::undelivered::DamageCause;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

/// The files of a channel at a path.
pub(crate) type OnDisk = Disk<Named>;

/// A channel of bytes. Dropped, it closes: every sending half keeps a reference, and so do the receiver and all of its deliveries
/// together ([`Lease`](crate::memory::lease::Lease)).
#[derive(Debug)]
pub(crate) struct Channel<F: Files> {
    chain: Arc<Chain<F>>,
    /// The timer's, the keeper's if the channel grows, and one that ends by itself behind the open of a large ring.
    threads: Vec<JoinHandle<()>>,
    /// It ends in order: it has its threads, and has not ended yet.
    open: bool,
    /// The process that opened it: a child of `fork` has neither the threads nor the right to close.
    owner: u32,
    receive_only: bool,
    path: PathBuf,
}

/// A place in a file of the channel that somebody holds until it is settled.
#[derive(Debug)]
pub(crate) struct Held<F: Files> {
    /// `None`: the file that was sent into first in this life.
    log: Option<LogOf<F>>,
    pub(crate) position: u64,
    /// As in [`Frame`](crate::ring::Frame); as wide as the rest, so that moving it takes no byte between.
    pub(crate) deliveries: u64,
}

impl<F: Files> Held<F> {
    #[inline(always)]
    pub(crate) fn new(log: Option<LogOf<F>>, position: u64, deliveries: u64) -> Self {
        Held {
            log,
            position,
            deliveries,
        }
    }

    #[inline(always)]
    pub(crate) fn into_parts(self) -> (Option<LogOf<F>>, u64, u64) {
        (self.log, self.position, self.deliveries)
    }

    #[inline]
    fn log<'a>(&'a self, channel: &'a Channel<F>) -> &'a Log<F::Memory> {
        self.log.as_ref().unwrap_or(channel.chain.first())
    }
}

impl<F: Files<Memory: Medium>> Channel<F> {
    pub(crate) fn common(&self) -> &Common {
        self.chain.common()
    }

    #[cfg(any(all(test, feature = "fsync"), fuzzing))]
    pub(crate) fn chain(&self) -> &Chain<F> {
        &self.chain
    }

    /// The only file, where there is one.
    #[cfg(any(all(test, feature = "fsync"), fuzzing))]
    pub(crate) fn log(&self) -> &Log<F::Memory> {
        self.chain.first()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The mode in force.
    pub(crate) fn durability(&self) -> Durability {
        match self.common().mode() {
            Mode::PerSend => Durability::SyncPerSend,
            Mode::FlushOnly => Durability::FlushOnly,
            Mode::Every { max_ops, max_delay } => Durability::SyncEvery {
                max_ops: max_ops as usize,
                max_delay,
            },
        }
    }

    /// Sends without syncs, if that can be done at once: what is nearly always so. As [`Log::send_now`].
    #[inline(always)]
    pub(crate) fn send_now(&self, payload: &[IoSlice<'_>], wait: Wait) -> Result<u64, Option<u32>> {
        if self.receive_only {
            return Err(None);
        }
        self.chain.send_now(payload, wait)
    }

    pub(crate) fn send(
        &self,
        slot: &Slot<F>,
        payload: &[IoSlice<'_>],
        crc: Option<u32>,
        wait: Wait,
    ) -> Result<MessageId, SendFailure> {
        if self.receive_only {
            let text = "1022 earlier openings still have messages here: acknowledge the oldest, then reopen";
            return Err(SendFailure::Io(io::Error::new(
                io::ErrorKind::StorageFull,
                text,
            )));
        }
        let (position, tag) = self.chain.send(slot, payload, crc, wait)?;
        Ok(MessageId::new(position, tag))
    }

    /// The id of the message at a place.
    pub(crate) fn id(&self, held: &Held<F>) -> MessageId {
        let position = held.position;
        let life = held.log(self).ring().lives().at(position);
        MessageId::new(position, life.map_or(0, |life| life.tag))
    }

    pub(crate) fn sync_sent(&self) -> Result<(), Error> {
        Self::can_sync()?;
        Ok(self.chain.sync_sent()?)
    }

    pub(crate) fn sync_progress(&self) -> Result<(), Error> {
        Self::can_sync()?;
        Ok(self.chain.sync_progress()?)
    }

    fn can_sync() -> Result<(), Error> {
        if cfg!(feature = "fsync") {
            Ok(())
        } else {
            let text = "walchan was built without the feature fsync";
            Err(Error::Io(io::Error::new(io::ErrorKind::Unsupported, text)))
        }
    }

    /// Acknowledges a message, once. Waits for no sync.
    #[inline(always)]
    pub(crate) fn acknowledge(&self, held: &Held<F>) {
        held.log(self).acknowledge(held.position);
    }

    /// Gives up damage that ends at `end`.
    pub(crate) fn settle(&self, held: &Held<F>, end: u64) {
        held.log(self).settle(held.position, end);
    }

    /// What is wrong with the bytes at a place where no valid frame is.
    pub(crate) fn damage_cause(&self, held: &Held<F>, bytes: &[u8]) -> DamageCause {
        let position = held.position;
        if bytes.len() < FRAME_HEADER_LEN as usize {
            return DamageCause::Unreadable;
        }
        let word0 = get_u64(bytes, 0);
        match held.log(self).ring().lives().at(position) {
            Some(life) if names_position(word0, position, life.salt) => DamageCause::Checksum,
            _ => DamageCause::Header,
        }
    }

    /// Copies bytes to a new file beside the channel, durably. The same bytes may be there already.
    pub(crate) fn copy_aside(&self, id: MessageId, bytes: &[u8]) -> Result<PathBuf, Error> {
        let aside = file::beside(&self.path, &format!(".{id}.aside"));
        file::write_beside(&aside, bytes)?;
        Ok(aside)
    }
}

impl<F: Files> Channel<F> {
    /// Closes in order, once: nobody else uses the channel.
    pub(crate) fn shut(&mut self) -> Result<(), Error> {
        if !std::mem::take(&mut self.open) {
            return Ok(());
        }
        if std::process::id() != self.owner && !planted!("child_closes") {
            return Ok(());
        }
        self.stop_threads();
        Ok(self.chain.finish()?)
    }

    fn stop_threads(&mut self) {
        let common = self.chain.common();
        common.timer.flag(STOP);
        common.keeper.flag(keeper::STOP);
        for thread in self.threads.drain(..) {
            // A panic of the thread has poisoned the channel, which `finish` reports.
            thread.join().ok();
        }
    }
}

impl<F: Files> Drop for Channel<F> {
    /// An error has nobody to go to: `Receiver::close` is for those who want it.
    fn drop(&mut self) {
        self.shut().ok();
    }
}
