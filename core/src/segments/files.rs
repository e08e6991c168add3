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

/// By what a segment is known, whatever its name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentId {
    /// In its name; 0 is the ring.
    pub number: u64,
    /// The position that it was made for.
    pub start: u64,
}

/// Why a file could not begin anew.
#[derive(Debug)]
pub enum RestartFailure {
    /// Nothing of it has changed.
    Untouched(io::Error),
    /// Nobody knows what its header is on the disk now.
    Unknown(io::Error),
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

    /// Sees to it that nothing of a file that could not be made is there, durably. After an error that is not
    /// known: it may be called again.
    fn unmake(&self, number: u64) -> io::Result<()>;

    /// Opens a complete segment again, which ends at `end`.
    fn reopen(&self, segment: SegmentId, end: u64) -> io::Result<Prepared<Self::Memory>>;

    /// Lets the drained ring begin anew, durably.
    fn restart(&self, position: u64) -> Result<Prepared<Self::Memory>, RestartFailure>;

    /// Removes a segment, and gives its space back; `false`: another file has its name, and was left alone.
    fn remove(&self, segment: SegmentId) -> io::Result<bool>;

    /// The name of a segment, for an error.
    fn name_of(&self, number: u64) -> String;

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

    fn reopen(&self, _: SegmentId, _: u64) -> io::Result<Prepared<M>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn restart(&self, _: u64) -> Result<Prepared<M>, RestartFailure> {
        Err(RestartFailure::Untouched(io::ErrorKind::Unsupported.into()))
    }

    fn remove(&self, _: SegmentId) -> io::Result<bool> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn name_of(&self, number: u64) -> String {
        number.to_string()
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }
}
