//! A directory on a simulated disk, and places for its files.
//!
//! A sector for each place says whether a file is there, and under which name: an entry is written as a
//! whole, alone, and is durable when the directory was synced. A file's bytes are durable when the file was
//! synced; neither says anything of the other. Numbers stand for names: 0 is the ring.
//!
//! The space of a removed file is free when the removal is durable and nobody has the file open, as on real
//! disks.

use super::{PAGE_LEN, Part, SECTOR_LEN, Simulated};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use walchan_core::storage::{Medium, get_u64, put_u64};

/// What lies at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    Nothing,
    /// Under a temporary name.
    Unnamed {
        len: u64,
    },
    File {
        number: u64,
        len: u64,
    },
}

impl Entry {
    fn decode(bytes: &[u8]) -> Self {
        let (kind, number, len) = (get_u64(bytes, 0), get_u64(bytes, 8), get_u64(bytes, 16));
        match kind {
            1 => Entry::Unnamed { len },
            2 => Entry::File { number, len },
            _ => Entry::Nothing,
        }
    }

    fn encode(self) -> [u8; 24] {
        let (kind, number, len) = match self {
            Entry::Nothing => (0, 0, 0),
            Entry::Unnamed { len } => (1, 0, len),
            Entry::File { number, len } => (2, number, len),
        };
        let mut bytes = [0; 24];
        put_u64(&mut bytes, 0, kind);
        put_u64(&mut bytes, 8, number);
        put_u64(&mut bytes, 16, len);
        bytes
    }

    fn has(self, wanted: u64) -> bool {
        matches!(self, Entry::File { number, .. } if number == wanted)
    }
}

/// The disk is formatted with so many places, each of so many bytes.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    pub places: u64,
    pub place_len: u64,
}

impl Geometry {
    /// Of files up to `len` bytes.
    pub fn for_files(places: u64, len: u64) -> Self {
        let place_len = len.next_multiple_of(PAGE_LEN);
        Geometry { places, place_len }
    }

    /// The entries.
    pub fn names(self) -> Part {
        let len = (self.places * SECTOR_LEN).next_multiple_of(PAGE_LEN);
        Part { offset: 0, len }
    }

    fn entry(self, place: u64) -> Part {
        Part {
            offset: place * SECTOR_LEN,
            len: SECTOR_LEN,
        }
    }

    fn place(self, place: u64, len: u64) -> Part {
        let offset = self.names().len + place * self.place_len;
        Part { offset, len }
    }

    fn disk_len(self) -> u64 {
        self.place(self.places, 0).offset
    }

    /// A disk with one file, number 0, all durable.
    pub fn format(self, ring: &[u8]) -> Vec<u8> {
        let mut disk = vec![0; self.disk_len() as usize];
        let entry = Entry::File {
            number: 0,
            len: ring.len() as u64,
        };
        disk[..24].copy_from_slice(&entry.encode());
        let at = self.place(0, 0).offset as usize;
        disk[at..at + ring.len()].copy_from_slice(ring);
        disk
    }

    /// What is named on a disk, and where.
    pub fn files(self, disk: &[u8]) -> Vec<(Entry, Part)> {
        let of = |place: u64| {
            let entry = Entry::decode(&disk[self.entry(place).offset as usize..]);
            let len = match entry {
                Entry::Nothing => 0,
                Entry::Unnamed { len } | Entry::File { len, .. } => len,
            };
            (entry, self.place(place, len))
        };
        (0..self.places).map(of).collect()
    }
}

/// The directory of one process. Clones share it.
#[derive(Clone, Debug)]
pub struct Directory {
    disk: Simulated,
    geometry: Geometry,
    /// Of each place that was opened.
    leases: Arc<Mutex<Vec<Weak<()>>>>,
}

impl Directory {
    pub fn on(disk: &Simulated, geometry: Geometry) -> Self {
        let leases = (0..geometry.places).map(|_| Weak::new()).collect();
        let directory = Directory {
            disk: disk.disk(),
            geometry,
            leases: Arc::new(Mutex::new(leases)),
        };
        directory.mount();
        directory
    }

    /// A power cut can leave a name twice, where it was taken from one file and given to another. A directory
    /// holds one of them.
    fn mount(&self) {
        let mut numbers = Vec::new();
        for (place, entry) in self.entries() {
            let number = match entry {
                Entry::Nothing => continue,
                Entry::Unnamed { .. } => None,
                Entry::File { number, .. } => Some(number),
            };
            if numbers.contains(&number) {
                self.disk
                    .preset(self.geometry.entry(place).offset, &Entry::Nothing.encode());
            }
            numbers.push(number);
        }
    }

    pub fn disk(&self) -> &Simulated {
        &self.disk
    }

    fn leases(&self) -> MutexGuard<'_, Vec<Weak<()>>> {
        self.leases.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn entry_at(&self, place: u64) -> Entry {
        let mut bytes = [0; 24];
        self.disk
            .read(self.geometry.entry(place).offset, &mut bytes);
        Entry::decode(&bytes)
    }

    fn set(&self, place: u64, entry: Entry) {
        self.disk
            .write(self.geometry.entry(place).offset, &entry.encode());
    }

    pub fn entries(&self) -> Vec<(u64, Entry)> {
        let places = 0..self.geometry.places;
        places.map(|place| (place, self.entry_at(place))).collect()
    }

    fn find(&self, is: impl Fn(Entry) -> bool) -> Option<(u64, Entry)> {
        self.entries().into_iter().find(|(_, entry)| is(*entry))
    }

    fn lease(&self, place: u64, len: u64) -> Simulated {
        let lease = &mut self.leases()[place as usize];
        let held = lease.upgrade().unwrap_or_default();
        *lease = Arc::downgrade(&held);
        Simulated {
            _lease: Some(held),
            ..self.disk.part(self.geometry.place(place, len))
        }
    }

    /// A new file of zeros under the temporary name, which is taken from whatever has it.
    pub fn make_unnamed(&self, len: u64) -> io::Result<(u64, Simulated)> {
        self.remove_unnamed();
        if len > self.geometry.place_len {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let free = |place: &u64| {
            let entry = self.disk.part(self.geometry.entry(*place));
            self.entry_at(*place) == Entry::Nothing
                && !entry.is_open()
                && self.leases()[*place as usize].upgrade().is_none()
        };
        let place = (0..self.geometry.places).find(free);
        let place = place.ok_or(io::ErrorKind::StorageFull)?;
        let file = self.lease(place, len);
        self.disk
            .part(self.geometry.place(place, self.geometry.place_len))
            .make_fresh();
        self.set(place, Entry::Unnamed { len });
        Ok((place, file))
    }

    /// Whether there was one.
    pub fn remove_unnamed(&self) -> bool {
        let unnamed = self.find(|entry| matches!(entry, Entry::Unnamed { .. }));
        if let Some((place, _)) = unnamed {
            self.set(place, Entry::Nothing);
        }
        unnamed.is_some()
    }

    /// Gives a file that is being made its name, which nobody has.
    pub fn name(&self, place: u64, number: u64) -> io::Result<()> {
        let Entry::Unnamed { len } = self.entry_at(place) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if self.find(|entry| entry.has(number)).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.set(place, Entry::File { number, len });
        Ok(())
    }

    pub fn open(&self, number: u64) -> io::Result<Simulated> {
        match self.find(|entry| entry.has(number)) {
            Some((place, Entry::File { len, .. })) => Ok(self.lease(place, len)),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub fn remove(&self, number: u64) -> io::Result<()> {
        let found = self.find(|entry| entry.has(number));
        let (place, _) = found.ok_or(io::ErrorKind::NotFound)?;
        self.set(place, Entry::Nothing);
        Ok(())
    }

    /// Numbers of the files that have a name, in their order.
    pub fn numbers(&self) -> Vec<u64> {
        let number = |(_, entry)| match entry {
            Entry::File { number, .. } => Some(number),
            _ => None,
        };
        let mut numbers: Vec<u64> = self.entries().into_iter().filter_map(number).collect();
        numbers.sort_unstable();
        numbers
    }

    /// Makes names durable, and the removal of names.
    pub fn sync(&self) -> io::Result<()> {
        self.disk.part(self.geometry.names()).sync_written()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use walchan_core::storage::Memory;

    const GEOMETRY: Geometry = Geometry {
        places: 4,
        place_len: 8192,
    };

    fn directory() -> Directory {
        let disk = Simulated::new(GEOMETRY.format(&[7; 4096]));
        Directory::on(&disk, GEOMETRY)
    }

    /// What each image of a power cut now has under the number: whether it is there, and its first byte.
    fn images(directory: &Directory, number: u64) -> Vec<Option<u8>> {
        let mut film = directory.disk().film();
        film.advance_to(film.end());
        let open: Vec<_> = film.open_now().collect();
        let all = open.iter().map(|(_, values)| values).product::<usize>();
        let mut found = Vec::new();
        for nth in 0..all {
            let mut rest = nth;
            let image = film.image(|_, values| {
                let value = rest % values;
                rest /= values;
                value
            });
            let files = GEOMETRY.files(&image);
            let file = files.iter().find(|(entry, _)| entry.has(number));
            found.push(file.map(|(_, part)| image[part.offset as usize]));
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    #[test]
    fn a_sync_of_one_file_makes_no_other_durable_and_no_name() {
        let directory = directory();
        let ring = directory.open(0).unwrap();
        let (place, file) = directory.make_unnamed(4096).unwrap();
        file.store_words(0, &[1; 8]);
        directory.name(place, 1).unwrap();
        ring.store_words(0, &[2; 8]);
        assert_eq!(images(&directory, 1), [None, Some(0), Some(1)]);
        file.sync().unwrap();
        assert_eq!(images(&directory, 0), [Some(2), Some(7)]);
        assert_eq!(images(&directory, 1), [None, Some(1)]);
        directory.sync().unwrap();
        assert_eq!(images(&directory, 1), [Some(1)]);
        assert_eq!(images(&directory, 0), [Some(2), Some(7)]);
        file.store_words(0, &[3; 8]);
        ring.sync().unwrap();
        assert_eq!(images(&directory, 0), [Some(2)]);
        assert_eq!(images(&directory, 1), [Some(1), Some(3)]);
    }

    #[test]
    fn a_removed_file_may_be_back_until_the_directory_is_synced() {
        let directory = directory();
        let (place, file) = directory.make_unnamed(4096).unwrap();
        file.store_words(0, &[1; 8]);
        file.sync().unwrap();
        directory.name(place, 1).unwrap();
        directory.sync().unwrap();
        directory.remove(1).unwrap();
        assert_eq!(directory.numbers(), [0]);
        assert_eq!(images(&directory, 1), [None, Some(1)]);
        // Its place is free when neither the disk nor a process has it.
        assert_ne!(directory.make_unnamed(4096).unwrap().0, place);
        directory.sync().unwrap();
        assert_eq!(images(&directory, 1), [None]);
        assert!(directory.make_unnamed(4096).unwrap().0 != place);
        drop(file);
        directory.remove_unnamed();
        directory.sync().unwrap();
        let (again, file) = directory.make_unnamed(4096).unwrap();
        assert_eq!(again, place);
        directory.name(again, 2).unwrap();
        assert_eq!(images(&directory, 2), [None, Some(0)]);
        assert_eq!(file.load(0, walchan_core::sync::Ordering::Relaxed), 0);
    }

    #[test]
    fn a_disk_without_a_free_place_is_full() {
        let directory = directory();
        for number in 1..4 {
            let (place, _) = directory.make_unnamed(4096).unwrap();
            directory.name(place, number).unwrap();
        }
        let full = directory.make_unnamed(4096).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    }
}
