//! What a file of the chain is, to whoever makes, opens and removes it.

use crate::format::checkpoint::Checkpoint;
use crate::ring::{Layout, Start};
use crate::storage::Memory;
use std::io;
use std::marker::PhantomData;

/// A file that is ready for its incarnation.
#[derive(Debug)]
pub struct Prepared<M> {
    /// Its bytes.
    pub memory: M,
    /// Where things lie in it.
    pub layout: Layout,
    /// What is in it.
    pub start: Start,
    /// What both checkpoint pages hold, durably.
    pub stored: [Checkpoint; 2],
}

/// Makes, opens and removes files. Number 0 is the ring.
pub trait Files: std::fmt::Debug + Send + Sync + 'static {
    /// What a file is worked in through.
    type Memory: Memory;

    /// Makes segment `number`: named, durable, whole, all blocks its own. `follows` is where the file
    /// before it ends. `AlreadyExists`: the name is somebody else's.
    fn make(
        &self,
        number: u64,
        start: u64,
        follows: u64,
        capacity: u64,
    ) -> io::Result<Prepared<Self::Memory>>;

    /// Sees to it that nothing of a file that could not be made is there, durably.
    fn unmake(&self, number: u64) -> io::Result<()>;

    /// Opens a complete file again, which ends at `end`.
    fn reopen(&self, number: u64, end: u64) -> io::Result<Prepared<Self::Memory>>;

    /// Lets the drained ring begin anew, durably.
    fn restart(&self, position: u64) -> io::Result<Prepared<Self::Memory>>;

    /// Removes a segment, and gives its space back.
    fn remove(&self, number: u64) -> io::Result<()>;

    /// Makes removals durable.
    fn sync_directory(&self) -> io::Result<()>;
}

/// No files but the one that is there: for channels that do not grow, in tests.
#[derive(Debug)]
pub struct SingleFile<M>(PhantomData<fn() -> M>);

impl<M> SingleFile<M> {
    /// For a channel that does not grow.
    pub fn new() -> Self {
        SingleFile(PhantomData)
    }
}

impl<M: Memory> Files for SingleFile<M> {
    type Memory = M;

    fn make(&self, _: u64, _: u64, _: u64, _: u64) -> io::Result<Prepared<M>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn unmake(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn reopen(&self, _: u64, _: u64) -> io::Result<Prepared<M>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn restart(&self, _: u64) -> io::Result<Prepared<M>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn remove(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }
}
