//! What all handles of a channel share.

use crate::commit::timer::STOP;
use crate::commit::{Log, Mode, Shared, housekeeper};
use crate::error::Error;
use crate::format::frame::{FRAME_HEADER_LEN, names_position};
use crate::format::get_u64;
use crate::planted::planted;
use crate::segments::disk::Disk;
use crate::segments::{Chain, Files, LogOf, NamedFiles};
use crate::storage::name::Name;
use crate::storage::{Medium, file};
use crate::sync::Arc;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

/// The files of a channel at a path.
pub type OnDisk = Disk<NamedFiles>;

/// A channel of bytes. Dropped, it closes: every sending half keeps a reference, and so do the receiver and
/// all of its deliveries together ([`Lease`](crate::storage::lease::Lease)).
#[derive(Debug)]
pub struct Channel<F: Files> {
    pub(super) chain: Arc<Chain<F>>,
    /// The timer's, the housekeeper's if the channel grows, and the one that drops a large file from the page
    /// cache behind the open, which ends by itself.
    pub(super) threads: Vec<JoinHandle<()>>,
    /// It ends in order: it has its threads, and has not ended yet.
    pub(super) open: bool,
    /// The process that opened it: a child of `fork` has neither the threads nor the right to close.
    pub(super) owner: u32,
    pub(super) receive_only: bool,
    /// A send can be made without syncs.
    pub(super) sends_at_once: bool,
    pub(super) path: PathBuf,
    /// The same name, in the directory as it was found: what is set aside goes beside it.
    pub(super) beside: Name,
}

/// A message that was handed out, or a damaged place that was reported, and that is not acknowledged yet.
#[derive(Debug)]
pub struct InFlight<F: Files> {
    /// Its file. `None`: the one that was sent into first in this incarnation.
    pub log: Option<LogOf<F>>,
    /// Where the frame, or the damage, begins.
    pub position: u64,
    /// As in [`Frame`](crate::ring::Frame); as wide as the rest, so that moving it takes no byte between.
    pub deliveries: u64,
}

impl<F: Files> InFlight<F> {
    #[inline]
    fn log<'a>(&'a self, channel: &'a Channel<F>) -> &'a Log<F::Memory> {
        self.log.as_ref().unwrap_or(channel.chain.first())
    }
}

impl<F: Files<Memory: Medium>> Channel<F> {
    /// What all files of the channel share.
    pub fn shared(&self) -> &Arc<Shared> {
        self.chain.shared()
    }

    /// The files of the channel.
    pub fn chain(&self) -> &Chain<F> {
        &self.chain
    }

    /// The file that was sent into first: the only one, where the channel does not grow.
    pub fn log(&self) -> &Arc<Log<F::Memory>> {
        self.chain.first()
    }

    /// Of the ring, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The mode in force.
    pub fn mode(&self) -> Mode {
        self.shared().mode()
    }

    /// The tag of the incarnation in which a message was sent: with its position, its id.
    pub fn tag(&self, message: &InFlight<F>) -> u64 {
        let incarnations = message.log(self).ring().incarnations();
        incarnations
            .at(message.position)
            .map_or(0, |incarnation| incarnation.tag)
    }

    /// Returns when everything sent before the call, by anyone, is on stable storage.
    pub fn sync_sent(&self) -> Result<(), Error> {
        Self::can_sync()?;
        Ok(self.chain.sync_sent()?)
    }

    /// Returns when everything acknowledged before the call is, too.
    pub fn sync_progress(&self) -> Result<(), Error> {
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
    pub fn acknowledge(&self, message: &InFlight<F>) {
        message.log(self).acknowledge(message.position);
    }

    /// Gives up the damage that ends at `end`: the head may pass it.
    pub fn release_damage(&self, place: &InFlight<F>, end: u64) {
        place.log(self).release_damage(place.position, end);
    }

    /// What is wrong with the bytes at a place where no valid frame is.
    pub fn damage_cause(&self, place: &InFlight<F>, bytes: &[u8]) -> DamageCause {
        let position = place.position;
        if bytes.len() < FRAME_HEADER_LEN as usize {
            return DamageCause::Unreadable;
        }
        let word0 = get_u64(bytes, 0);
        match place.log(self).ring().incarnations().at(position) {
            Some(incarnation) if names_position(word0, position, incarnation.salt) => {
                DamageCause::Checksum
            }
            _ => DamageCause::Header,
        }
    }

    /// Copies bytes to a new file beside the channel, `<path>.<name>.aside`, durably. The same bytes may be
    /// there already.
    pub fn copy_aside(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, Error> {
        let aside = self.beside.beside(&format!(".{name}.aside"));
        file::write_beside(&aside, bytes)?;
        Ok(self.path.with_file_name(aside.as_os_str()))
    }
}

impl<F: Files> Channel<F> {
    /// Whether this is a child of `fork`, and the channel that of its parent.
    pub fn is_of_parent(&self) -> bool {
        std::process::id() != self.owner && !planted!("child_closes")
    }

    /// Closes in order, once: nobody else uses the channel, and it is this process's own.
    pub fn shut(&mut self) -> Result<(), Error> {
        if !std::mem::take(&mut self.open) {
            return Ok(());
        }
        self.stop_threads();
        Ok(self.chain.finish()?)
    }

    /// Nothing of the parent's is touched. Its threads are not here, and their handles may be those of the
    /// child's own threads by now: dropped, they would detach these. The lock of the file is the parent's,
    /// and would go with the last that leads to it; so that stays, as do all locks that its threads may have
    /// held.
    fn leave_to_parent(&mut self) {
        if !planted!("child_detaches") {
            std::mem::forget(std::mem::take(&mut self.threads));
        }
        std::mem::forget(Arc::clone(&self.chain));
    }

    pub(super) fn stop_threads(&mut self) {
        let shared = self.chain.shared();
        shared.timer.flag(STOP);
        shared.housekeeper.flag(housekeeper::STOP);
        for thread in self.threads.drain(..) {
            // A panic of the thread has poisoned the channel, which `finish` reports.
            thread.join().ok();
        }
    }
}

impl<F: Files> Drop for Channel<F> {
    /// An error has nobody to go to: `Receiver::close` is for those who want it.
    fn drop(&mut self) {
        if self.is_of_parent() {
            return self.leave_to_parent();
        }
        self.shut().ok();
    }
}

/// What is wrong with a place that is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DamageCause {
    /// The disk does not give the bytes back.
    Unreadable,
    /// There is the header of a frame, and its state, its length or its checksum is wrong.
    Checksum,
    /// There is no header of a frame.
    Header,
}

impl fmt::Display for DamageCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DamageCause::Unreadable => "the disk cannot read them",
            DamageCause::Checksum => "a frame begins there that does not match its checksum",
            DamageCause::Header => "no frame begins there",
        })
    }
}
