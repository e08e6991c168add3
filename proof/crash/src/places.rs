//! The files of a chain on a simulated disk.

use super::*;
use std::io;
use walchan_core::format::HEADER_LEN;
use walchan_core::segments::Growth;
use walchan_core::segments::disk::{Directory as Names, Disk, Verify};
use walchan_core::segments::open::{ChainOptions, Opened};
use walchan_core::storage::Medium;
use walchan_core::storage::file::Removal;
use walchan_core::sync::Mutex;
use walchan_medium::directory::{Directory, Entry, Geometry};

/// Bytes of the smallest ring here: small enough that every image of its crashes can be looked at.
const CAPACITY_LEAST: u64 = 512;

/// What a channel with segments is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) ring: u64,
    /// Of segments.
    pub(super) capacity_min: u64,
    pub(super) capacity_max: u64,
    pub(super) bytes_max: Option<u64>,
    /// Files that the disk has room for, and the capacity of the largest.
    pub(super) places: u64,
    pub(super) place_max: u64,
}

impl Shape {
    pub(super) fn growth(&self) -> Growth {
        Growth {
            ring_capacity: self.ring,
            capacity_min: self.capacity_min,
            capacity_max: self.capacity_max,
            bytes_max: self.bytes_max,
        }
    }

    pub(super) fn geometry(&self) -> Geometry {
        Geometry::for_files(self.places, HEADER_LEN + self.place_max)
    }

    /// A disk with a new ring on it.
    pub(super) fn new_disk(&self, rng: &mut Rng) -> Vec<u8> {
        self.geometry().format(&new_image(self.ring, rng))
    }

    /// Payloads up to this length find room in a file that the disk has room for.
    pub(super) fn payload_max(&self) -> u64 {
        self.place_max / 2 - 16
    }
}

/// What goes wrong when a file is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Before it has its name.
    Unnamed,
    /// When it has it, durably.
    Named,
    /// The same, and the removal of its name fails, too.
    Kept,
    /// It is made, and the next removal of a file fails.
    Stays,
}

/// Names and files on a simulated disk.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) directory: Directory,
    next_fault: Arc<Mutex<Option<Fault>>>,
}

impl Places {
    pub(super) fn on(disk: &Simulated, shape: &Shape) -> Self {
        let directory = Directory::on(disk, shape.geometry());
        Places {
            directory,
            next_fault: Arc::default(),
        }
    }

    /// The next file that is made meets this.
    pub(super) fn fail_next(&self, fault: Fault) {
        *self.next_fault.lock() = Some(fault);
    }

    fn take(&self, fault: Fault) -> io::Result<()> {
        let mut next = self.next_fault.lock();
        if *next == Some(fault) {
            *next = None;
            return Err(io::Error::from_raw_os_error(
                rustix::io::Errno::MFILE.raw_os_error(),
            ));
        }
        Ok(())
    }

    fn make_or_fail(&self, number: u64, header: &[u8], capacity: u64) -> io::Result<Simulated> {
        self.take(Fault::Unnamed)?;
        let (place, file) = self.directory.make_unnamed(HEADER_LEN + capacity)?;
        file.write_at(0, header)?;
        file.sync_written()?;
        self.directory.name(place, number)?;
        self.directory.sync()?;
        self.take(Fault::Named)?;
        self.take(Fault::Kept)
            .inspect_err(|_| self.fail_next(Fault::Stays))?;
        Ok(file)
    }
}

impl Names for Places {
    type Memory = Simulated;

    fn make(&self, number: u64, header: &[u8], capacity: u64) -> io::Result<Simulated> {
        let disk = self.directory.disk();
        let had_failed = disk.has_failed();
        let made = self.make_or_fail(number, header, capacity);
        if made.is_err() {
            self.directory.remove_unnamed();
            if !had_failed {
                // Only the new file has lost anything.
                disk.forgive();
            }
        }
        made
    }

    fn look(&self, number: u64) -> Result<Box<dyn Medium + '_>, Error> {
        Ok(Box::new(self.directory.open(number)?))
    }

    fn open(&self, number: u64, len: u64, verify: Verify<'_>) -> Result<Simulated, Error> {
        let file = self.directory.open(number)?;
        verify(&file)?;
        assert_eq!(Medium::len(&file)?, len);
        Ok(file)
    }

    fn remove(&self, number: u64, verify: Verify<'_>) -> Result<Removal, Error> {
        self.take(Fault::Stays)?;
        let file = match self.directory.open(number) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Removal::Done),
            file => file?,
        };
        match verify(&file) {
            Err(Error::Io(error)) => return Err(error.into()),
            Err(_) => return Ok(Removal::Foreign),
            Ok(()) => {}
        }
        self.directory.remove(number)?;
        Ok(Removal::Done)
    }

    fn name_of(&self, number: u64) -> String {
        format!("file {number}")
    }

    fn numbers(&self) -> io::Result<Vec<u64>> {
        let mut numbers = self.directory.numbers();
        numbers.retain(|number| *number > 0);
        Ok(numbers)
    }

    fn sync_directory(&self) -> io::Result<()> {
        let disk = self.directory.disk();
        let had_failed = disk.has_failed();
        let synced = self.directory.sync();
        if synced.is_err() && !had_failed {
            disk.forgive();
        }
        synced
    }
}

/// The files of a chain.
pub(super) type Chained = Disk<Places>;

impl Life<Chained> {
    /// Opens a chain, as the channel does.
    pub(super) fn chained(
        disk: Simulated,
        shape: &Shape,
        mode: Mode,
        policy: Policy,
        rng: &mut Rng,
    ) -> Result<Self, Error> {
        let places = Places::on(&disk, shape);
        // Whoever named the files may have been killed before this.
        places.directory.sync()?;
        places.directory.remove_unnamed();
        let entropy = Mutex::new(Rng(rng.next()));
        let identity = recovery::read_identity(&places.directory.open(0)?, CAPACITY_LEAST)?;
        let files = Disk {
            capacity_min: CAPACITY_LEAST,
            identity,
            directory: places,
            entropy: Box::new(move || {
                let mut entropy = entropy.lock();
                Ok([entropy.next(), entropy.next()])
            }),
        };
        let options = ChainOptions {
            policy,
            growth: Some(shape.growth()),
            bound: u64::MAX,
        };
        let Opened {
            chain,
            report,
            receive_only,
        } = files.open(Arc::new(Shared::new(mode)), options)?;
        let (channel, reading) =
            channel::without_threads(chain, receive_only, Path::new("simulated"))?;
        channel.shared().sender_joined();
        let tail = channel.chain().active().ring().tail();
        Ok(Life {
            medium: disk,
            channel,
            slot: CurrentSegment::new(),
            reading,
            report,
            // Behind the first of it.
            head: 0,
            tail,
        })
    }

    pub(super) fn places(&self) -> &Places {
        &self.channel.chain().files().directory
    }

    /// What the housekeeper does when it was asked.
    pub(super) fn tend(&self) -> io::Result<()> {
        let flags = self.channel.shared().housekeeper.flags();
        self.channel.chain().on_housekeeper(flags)
    }

    /// Numbers of the files that are there.
    pub(super) fn numbers(&self) -> Vec<u64> {
        self.places().directory.numbers()
    }
}

/// The files on a disk: numbers, and whether one has no name yet.
pub(super) fn files_of(disk: &[u8], shape: &Shape) -> (Vec<u64>, bool) {
    let mut numbers = Vec::new();
    let mut unnamed = false;
    for (entry, _) in shape.geometry().files(disk) {
        match entry {
            Entry::File { number, .. } => numbers.push(number),
            Entry::Unnamed { .. } => unnamed = true,
            Entry::Nothing => {}
        }
    }
    numbers.sort_unstable();
    (numbers, unnamed)
}
