//! Overflow files beside the ring: `path.1`, `path.2` and so on.

use super::disk::Directory;
use crate::error::Error;
use crate::format::HEADER_LEN;
use crate::planted::planted;
use crate::storage::Medium;
use crate::storage::file::{self, Created, Fill, LockedFile};
use crate::storage::mapped::Mapped;
use crate::sync::Arc;
use rustix::fs::Dir;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// The names of a channel's files.
#[derive(Debug)]
pub struct NamedFiles {
    /// Of the ring, absolute.
    pub path: PathBuf,
    /// The ring.
    pub ring: Arc<LockedFile>,
    /// The channel syncs: each page is dirtied on its own.
    pub synced: bool,
}

/// The path of a segment.
fn path_of(path: &Path, number: u64) -> PathBuf {
    file::beside(path, &format!(".{number}"))
}

/// The number in the name of a segment.
fn number_in(name: &str) -> Option<u64> {
    let number = name.parse().ok()?;
    (number > 0 && format!("{number}") == name).then_some(number)
}

impl NamedFiles {
    /// The names beside the ring that begin like those of its segments: what comes behind `path.`.
    fn suffixes(&self) -> io::Result<Vec<String>> {
        let Some(name) = self.path.file_name() else {
            return Ok(Vec::new());
        };
        let mut prefix = name.as_encoded_bytes().to_vec();
        prefix.push(b'.');
        let mut suffixes = Vec::new();
        // Not that of the standard library, which panics when the directory cannot be closed.
        let directory = File::open(file::directory(&self.path))?;
        for entry in Dir::new(directory)? {
            let entry = entry?;
            let suffix = entry.file_name().to_bytes().strip_prefix(&prefix[..]);
            if let Some(Ok(suffix)) = suffix.map(std::str::from_utf8) {
                suffixes.push(suffix.to_owned());
            }
        }
        Ok(suffixes)
    }

    /// Removes what was left of segments that were being made.
    pub fn remove_unfinished(&self) -> io::Result<()> {
        if planted!("half_made_files_stay") {
            return Ok(());
        }
        let Ok(suffixes) = self.suffixes() else {
            // `numbers` tells why.
            return Ok(());
        };
        for suffix in suffixes {
            let number = suffix.strip_suffix(file::UNFINISHED).and_then(number_in);
            if let Some(number) = number {
                file::remove_unfinished_file(&path_of(&self.path, number))?;
            }
        }
        Ok(())
    }
}

impl Directory for NamedFiles {
    type Memory = Mapped;

    fn make(&self, number: u64, header: &[u8], capacity: u64) -> io::Result<Mapped> {
        let path = path_of(&self.path, number);
        let len = HEADER_LEN + capacity;
        let fill = match self.synced {
            true => Fill::Pages,
            false => Fill::Allocated,
        };
        let file = match file::create(&path, header, len, fill)? {
            Created::File(file) => file,
            Created::Lost | Created::Locked => return Err(io::ErrorKind::AlreadyExists.into()),
        };
        let file = file.without_lock()?;
        let memory = Mapped::new(Arc::new(file), len, self.synced)?;
        if !self.synced {
            memory.populate()?;
        }
        Ok(memory)
    }

    fn look(&self, number: u64) -> Result<Box<dyn Medium + '_>, Error> {
        let path = match number {
            0 => self.path.clone(),
            _ => path_of(&self.path, number),
        };
        Ok(Box::new(file::look(&path)?))
    }

    fn open(&self, number: u64, len: u64) -> Result<Mapped, Error> {
        let file = match number {
            0 => Arc::clone(&self.ring),
            _ => {
                let file = file::open_owned(&path_of(&self.path, number))?;
                file::allocate_all(&file, len)?;
                Arc::new(file)
            }
        };
        Ok(Mapped::new(file, len, self.synced)?)
    }

    fn remove(&self, number: u64) -> io::Result<()> {
        file::remove(&path_of(&self.path, number), HEADER_LEN)
    }

    fn numbers(&self) -> io::Result<Vec<u64>> {
        let suffixes = match self.suffixes() {
            // Who may not read the directory cannot make its entries durable either, and so made no file.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Vec::new(),
            suffixes => suffixes?,
        };
        Ok(suffixes.iter().filter_map(|s| number_in(s)).collect())
    }

    fn sync_directory(&self) -> io::Result<()> {
        file::sync_directory(&self.path)
    }
}
