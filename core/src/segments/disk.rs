//! The files of a channel as recovery knows them: their headers, over any directory.

use super::files::{Files, Prepared, RestartFailure, SegmentId};
use crate::error::Error;
use crate::format::identity::{Identity, VERSION_OVERFLOW};
use crate::planted::planted;
use crate::recovery::{self, Bounds, Recovered};
use crate::ring::{Layout, Start};
use crate::storage::file::Removal;
use crate::storage::{Medium, Memory};
use std::io;

/// Names, and the bytes behind them. Number 0 is the ring.
pub trait Directory: std::fmt::Debug + Send + Sync + 'static {
    /// What a file is worked in through.
    type Memory: Memory + Medium;

    /// Makes file `number`: `header`, then `capacity` zeros, each block its own; durable, then named, the
    /// name durable. `AlreadyExists`: the name is somebody else's. If another error is returned, the name may
    /// be there.
    fn make(&self, number: u64, header: &[u8], capacity: u64) -> io::Result<Self::Memory>;

    /// Opens a file to look at it.
    fn look(&self, number: u64) -> Result<Box<dyn Medium + '_>, Error>;

    /// Opens it to work in it, so many bytes. Before anything of it is changed it is looked at by `verify`,
    /// whose error is returned; not the ring, which is open.
    fn open(&self, number: u64, len: u64, verify: Verify<'_>) -> Result<Self::Memory, Error>;

    /// Unlinks it, and gives its space back; unless `verify` has another error than an I/O error.
    fn remove(&self, number: u64, verify: Verify<'_>) -> Result<Removal, Error>;

    /// The name of a segment, for an error.
    fn name_of(&self, number: u64) -> String;

    /// Numbers, from 1, of the names that look like those of segments; in any order.
    fn numbers(&self) -> io::Result<Vec<u64>>;

    /// Makes the entries of the directory durable.
    fn sync_directory(&self) -> io::Result<()>;
}

/// Whether an open file is the one that is meant.
pub type Verify<'a> = &'a dyn Fn(&dyn Medium) -> Result<(), Error>;

/// Random bits, from the operating system or a test.
pub type Source = Box<dyn Fn() -> io::Result<[u64; 2]> + Send + Sync>;

/// The files of one channel.
pub struct Disk<D> {
    /// Where the files are.
    pub directory: D,
    /// That of the ring.
    pub identity: Identity,
    /// Bytes of the smallest ring or segment that is accepted.
    pub capacity_min: u64,
    /// Salts, tags and ids come from it.
    pub entropy: Source,
}

impl<D: std::fmt::Debug> std::fmt::Debug for Disk<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk")
            .field("directory", &self.directory)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// What an error comes to where only an I/O error can be reported.
pub(super) fn io_of(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
    }
}

impl<M> Prepared<M> {
    /// `end`: where the file ends, if that is known.
    pub fn new(
        memory: M,
        layout: Layout,
        recovered: &Recovered,
        end: Option<u64>,
        bound: u64,
    ) -> Self {
        let Recovered {
            incarnations,
            head,
            tail,
            unacknowledged,
            handed_out,
            stored,
            ..
        } = recovered;
        let start = Start {
            incarnations: incarnations.clone(),
            head: *head,
            tail: *tail,
            limit: end.unwrap_or(head + layout.capacity),
            unacknowledged: *unacknowledged,
            handed_out: *handed_out,
            bound,
        };
        Prepared {
            memory,
            layout,
            start,
            stored: *stored,
        }
    }
}

impl<D: Directory> Disk<D> {
    /// `None`: the file is not there, or is somebody else's.
    pub(super) fn identity_if_ours(&self, number: u64) -> Result<Option<Identity>, Error> {
        let identity = match self.identity_of(number) {
            Ok(identity) => identity,
            Err(Error::Io(error)) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error.into());
            }
            Err(_) => return Ok(None),
        };
        let is_ours = identity.channel_id == self.identity.channel_id && identity.number == number;
        Ok(is_ours.then_some(identity))
    }

    /// The identity of an open file, if it is of this channel and has this number.
    pub(super) fn verify(&self, medium: &dyn Medium, number: u64) -> Result<Identity, Error> {
        let identity = recovery::read_identity(medium, self.capacity_min)?;
        match identity.channel_id == self.identity.channel_id && identity.number == number {
            true => Ok(identity),
            false => Err(self.foreign(number)),
        }
    }

    fn verify_segment(&self, medium: &dyn Medium, segment: SegmentId) -> Result<(), Error> {
        let identity = self.verify(medium, segment.number)?;
        if identity.start != segment.start && !planted!("start_not_compared") {
            return Err(self.foreign(segment.number));
        }
        Ok(())
    }

    fn foreign(&self, number: u64) -> Error {
        let name = self.directory.name_of(number);
        Error::corrupt(
            0,
            format!("{name} is another file now, and no part of the channel"),
        )
    }

    /// The identity of one of the files.
    pub(super) fn identity_of(&self, number: u64) -> Result<Identity, Error> {
        match number {
            0 => Ok(self.identity.clone()),
            _ => recovery::read_identity(&*self.directory.look(number)?, self.capacity_min),
        }
    }
}

impl<D: Directory> Files for Disk<D> {
    type Memory = D::Memory;

    fn make(
        &self,
        number: u64,
        start: u64,
        follows: u64,
        capacity: u64,
    ) -> io::Result<Prepared<D::Memory>> {
        let incarnation = recovery::new_incarnation(start, 1, &mut || (self.entropy)())?;
        let identity = Identity {
            version: self.identity.version.max(VERSION_OVERFLOW),
            capacity,
            number,
            start,
            follows,
            ..self.identity.clone()
        };
        let header = recovery::new_header(&identity, incarnation);
        let memory = self.directory.make(number, &header, capacity)?;
        let layout = Layout::of(&identity);
        let recovered = Recovered::created(&identity, incarnation);
        Ok(Prepared::new(
            memory,
            layout,
            &recovered,
            identity.end(),
            u64::MAX,
        ))
    }

    fn unmake(&self, number: u64) -> io::Result<()> {
        // A name that is somebody else's was never ours: a file is given its name when it is whole.
        let removed = self
            .directory
            .remove(number, &|medium| self.verify(medium, number).map(drop));
        if removed.map_err(io_of)? == Removal::Foreign || planted!("unmade_name_may_come_back") {
            return Ok(());
        }
        // The file before goes on, maybe beyond the end that this one tells.
        self.directory.sync_directory()
    }

    fn reopen(&self, segment: SegmentId, end: u64) -> io::Result<Prepared<D::Memory>> {
        let number = segment.number;
        let opened = || {
            let identity = self.identity_of(number)?;
            let capacity = identity.capacity;
            let len = crate::format::HEADER_LEN + capacity;
            let verify = |medium: &dyn Medium| self.verify_segment(medium, segment);
            let memory = self.directory.open(number, len, &verify)?;
            let bounds = Bounds {
                end: Some(end),
                sealed: true,
            };
            let judged = recovery::judge(&memory, capacity, bounds)?;
            let recovered = judged.repair(&memory, &mut || (self.entropy)())?;
            let layout = Layout::of(&identity);
            Ok(Prepared::new(
                memory,
                layout,
                &recovered,
                Some(end),
                u64::MAX,
            ))
        };
        opened().map_err(io_of)
    }

    fn restart(&self, position: u64) -> Result<Prepared<D::Memory>, RestartFailure> {
        let capacity = self.identity.capacity;
        let len = crate::format::HEADER_LEN + capacity;
        let untouched = |error| RestartFailure::Untouched(io_of(error));
        let opened = self.directory.open(0, len, &|_| Ok(()));
        let memory = opened.map_err(untouched)?;
        let begun =
            recovery::Restart::prepare(&memory, capacity, position, &mut || (self.entropy)());
        let recovered = begun
            .map_err(untouched)?
            .write(&memory)
            .map_err(|error| RestartFailure::Unknown(io_of(error)))?;
        let layout = Layout::of(&self.identity);
        Ok(Prepared::new(memory, layout, &recovered, None, u64::MAX))
    }

    fn remove(&self, segment: SegmentId) -> io::Result<bool> {
        let verify = |medium: &dyn Medium| self.verify_segment(medium, segment);
        let removed = self.directory.remove(segment.number, &verify);
        Ok(removed.map_err(io_of)? == Removal::Done)
    }

    fn name_of(&self, number: u64) -> String {
        self.directory.name_of(number)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.directory.sync_directory()
    }
}
