//! The further files of an unbounded channel: a chain, each file of it a whole log of its own.
//!
//! The argument, the invariants C1 to C7 and the crash sites are in `docs/overflow.md`. [`chain`] knows which files
//! there are, and hands sends and reads on from one to the next; [`grow`] links the next one; [`tidy`] completes,
//! retires and removes those before. What a file is, is the business of [`Files`]: all of this runs under loom, over
//! memories without files.

mod chain;
#[cfg(not(all(loom, feature = "models")))]
pub(crate) mod disk;
mod grow;
#[cfg(not(all(loom, feature = "models")))]
mod named;
#[cfg(not(all(loom, feature = "models")))]
pub(crate) mod open;
mod tidy;

pub(crate) use chain::{Chain, Entry, Found, LogOf, Next, Slot};
pub(crate) use grow::Growth;
#[cfg(not(all(loom, feature = "models")))]
pub(crate) use named::Named;

use crate::format::checkpoint::Checkpoint;
use crate::memory::Memory;
use crate::ring::{Layout, Start};
use std::io;
use std::marker::PhantomData;

/// A file that is ready for its life.
#[derive(Debug)]
pub(crate) struct Born<M> {
    pub(crate) memory: M,
    pub(crate) layout: Layout,
    pub(crate) start: Start,
    /// What both checkpoint pages hold, durably.
    pub(crate) stored: [Checkpoint; 2],
}

/// Makes, opens and removes files. Number 0 is the ring.
pub(crate) trait Files: std::fmt::Debug + Send + Sync + 'static {
    type Memory: Memory;

    /// Makes overflow file `number`: named, durable, whole, all blocks its own. `follows` is where the file before it
    /// ends. `AlreadyExists`: the name is somebody else's.
    fn make(
        &self,
        number: u64,
        start: u64,
        follows: u64,
        capacity: u64,
    ) -> io::Result<Born<Self::Memory>>;

    /// Sees to it that nothing of a file that could not be made is there, durably.
    fn unmake(&self, number: u64) -> io::Result<()>;

    /// Opens a complete file again, which ends at `end`.
    fn reopen(&self, number: u64, end: u64) -> io::Result<Born<Self::Memory>>;

    /// Lets the drained ring begin anew, durably.
    fn restart(&self, position: u64) -> io::Result<Born<Self::Memory>>;

    /// Removes an overflow file, and gives its space back.
    fn remove(&self, number: u64) -> io::Result<()>;

    /// Makes removals durable.
    fn sync_directory(&self) -> io::Result<()>;
}

/// No files but the one that is there: for channels that do not grow, in tests.
#[derive(Debug)]
#[allow(dead_code)] // in a build without tests
pub(crate) struct Alone<M>(PhantomData<fn() -> M>);

#[allow(dead_code)] // in a build without tests
impl<M> Alone<M> {
    pub(crate) fn new() -> Self {
        Alone(PhantomData)
    }
}

impl<M: Memory> Files for Alone<M> {
    type Memory = M;

    fn make(&self, _: u64, _: u64, _: u64, _: u64) -> io::Result<Born<M>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn unmake(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn reopen(&self, _: u64, _: u64) -> io::Result<Born<M>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn restart(&self, _: u64) -> io::Result<Born<M>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn remove(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }
}
