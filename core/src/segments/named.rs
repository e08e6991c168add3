//! Segments beside the ring: `<name>.1`, `<name>.2` and so on, in the directory that was found when the
//! channel was opened.

use super::disk::{Directory, Verify};
use crate::error::Error;
use crate::format::HEADER_LEN;
use crate::planted::planted;
use crate::storage::Medium;
use crate::storage::file::{self, Created, Fill, LockedFile, Removal};
use crate::storage::mapped::Mapped;
use crate::storage::name::Name;
use crate::sync::Arc;
use std::io;

/// The names of a channel's files.
#[derive(Debug)]
pub struct NamedFiles {
    /// Of the ring.
    pub name: Name,
    /// The ring, which is never looked for by its name again.
    pub ring: Arc<LockedFile>,
    /// The channel syncs: each page is dirtied on its own.
    pub synced: bool,
}

/// The number in the name of a segment.
fn number_in(name: &str) -> Option<u64> {
    let number = name.parse().ok()?;
    (number > 0 && format!("{number}") == name).then_some(number)
}

impl NamedFiles {
    /// The name of a segment.
    fn segment(&self, number: u64) -> Name {
        self.name.beside(&format!(".{number}"))
    }

    /// Removes what was left of segments that were being made.
    pub fn remove_unfinished(&self) -> io::Result<()> {
        if planted!("half_made_files_stay") {
            return Ok(());
        }
        let Ok(suffixes) = self.name.suffixes() else {
            // `numbers` tells why.
            return Ok(());
        };
        for suffix in suffixes {
            let number = suffix.strip_suffix(file::UNFINISHED).and_then(number_in);
            if let Some(number) = number {
                file::remove_unfinished_file(&self.segment(number))?;
            }
        }
        Ok(())
    }
}

impl Directory for NamedFiles {
    type Memory = Mapped;

    fn make(&self, number: u64, header: &[u8], capacity: u64) -> io::Result<Mapped> {
        let len = HEADER_LEN + capacity;
        let fill = match self.synced {
            true => Fill::Pages,
            false => Fill::Allocated,
        };
        let file = match file::create(&self.segment(number), header, len, fill)? {
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
        Ok(match number {
            0 => Box::new(&*self.ring),
            _ => Box::new(file::look(&self.segment(number))?),
        })
    }

    fn open(&self, number: u64, len: u64, verify: Verify<'_>) -> Result<Mapped, Error> {
        let file = match number {
            0 => Arc::clone(&self.ring),
            _ => {
                let file = file::open_owned(&self.segment(number))?;
                verify(&file)?;
                file::allocate_all(&file, len)?;
                Arc::new(file)
            }
        };
        Ok(Mapped::new(file, len, self.synced)?)
    }

    fn remove(&self, number: u64, verify: Verify<'_>) -> Result<Removal, Error> {
        file::remove(&self.segment(number), HEADER_LEN, verify)
    }

    fn name_of(&self, number: u64) -> String {
        let name = self.segment(number);
        name.as_os_str().to_string_lossy().into_owned()
    }

    fn numbers(&self) -> io::Result<Vec<u64>> {
        let suffixes = match self.name.suffixes() {
            // Who may not read the directory cannot make its entries durable either, and so made no file.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Vec::new(),
            suffixes => suffixes?,
        };
        Ok(suffixes.iter().filter_map(|s| number_in(s)).collect())
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.name.sync_directory()
    }
}
