//! Names in a directory that is held open.
//!
//! Whoever holds a directory finds its files whatever becomes of the path by which it was opened: the
//! directory may be renamed, another one may get its path, something may be mounted there. What cannot be
//! ruled out is that another file gets the *name* in that directory: [`Name::is`] compares, and the time
//! between that and the next step is what is left.

use crate::planted::planted;
use crate::sync::Arc;
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, RenameFlags, Stat};
use rustix::io::{Errno, retry_on_intr};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// The directory of `path`.
pub fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A name in a directory that is held open. A link of that name is never followed.
#[derive(Clone, Debug)]
pub struct Name {
    /// Opened by `O_PATH`: who may not read it may work in it.
    directory: Arc<OwnedFd>,
    name: OsString,
}

impl Name {
    /// The last component of a path. `InvalidInput` if that is no name, as in `..`.
    pub fn of(path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened =
            retry_on_intr(|| rustix::fs::openat(CWD, directory(path), flags, Mode::empty()));
        Ok(Name {
            directory: Arc::new(opened?),
            name: name.to_owned(),
        })
    }

    /// The name itself.
    pub fn as_os_str(&self) -> &OsStr {
        &self.name
    }

    /// The name with something appended, in the same directory.
    pub fn beside(&self, suffix: &str) -> Self {
        let mut name = self.name.clone();
        name.push(suffix);
        Name {
            directory: Arc::clone(&self.directory),
            name,
        }
    }

    /// Opens the file.
    pub fn open(&self, flags: OFlags) -> io::Result<File> {
        // NONBLOCK: opening a FIFO must not wait for its other end.
        let flags = flags | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let flags = flags | planted!("link_followed", OFlags::empty(), OFlags::NOFOLLOW);
        let mode = Mode::from_raw_mode(planted!("readable_by_others", 0o644, 0o600));
        let open = || rustix::fs::openat(&self.directory, &self.name, flags, mode);
        Ok(File::from(retry_on_intr(open)?))
    }

    /// What the name is now; `None`: there is nothing.
    pub fn look(&self) -> io::Result<Option<Stat>> {
        match rustix::fs::statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether it is the name of this file now.
    pub fn is(&self, file: &File) -> io::Result<bool> {
        let ours = rustix::fs::fstat(file)?;
        let named = self.look()?;
        Ok(named.is_some_and(|named| named.st_ino == ours.st_ino && named.st_dev == ours.st_dev))
    }

    /// Removes the name.
    pub fn remove(&self) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(
            &self.directory,
            &self.name,
            AtFlags::empty(),
        )?)
    }

    /// Gives the file another name in the same directory; `false` if that is taken.
    pub fn rename_to(&self, other: &Name) -> io::Result<bool> {
        let flags = planted!(
            "name_replaced",
            RenameFlags::empty(),
            RenameFlags::NOREPLACE
        );
        let (from, to) = (&self.directory, &other.directory);
        match rustix::fs::renameat_with(from, &self.name, to, &other.name, flags) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            // The file system cannot: link, which never replaces either, and drop the other name.
            Err(Errno::INVAL | Errno::NOSYS) => {
                match rustix::fs::linkat(from, &self.name, to, &other.name, AtFlags::empty()) {
                    Ok(()) => {
                        self.remove()?;
                        Ok(true)
                    }
                    Err(Errno::EXIST) => Ok(false),
                    Err(error) => Err(error.into()),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The same, whatever has that name.
    pub fn replace(&self, other: &Name) -> io::Result<()> {
        Ok(rustix::fs::renameat(
            &self.directory,
            &self.name,
            &other.directory,
            &other.name,
        )?)
    }

    /// The directory, opened to be read.
    fn read_directory(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(&self.directory, ".", flags, Mode::empty());
        Ok(retry_on_intr(open)?)
    }

    /// Makes the entries of the directory durable.
    pub fn sync_directory(&self) -> io::Result<()> {
        if cfg!(feature = "fsync") && !planted!("directory_not_synced") {
            File::from(self.read_directory()?).sync_all()
        } else {
            Ok(())
        }
    }

    /// What comes behind `<name>.` in the names of the directory that begin so.
    pub fn suffixes(&self) -> io::Result<Vec<String>> {
        let mut prefix = self.name.as_encoded_bytes().to_vec();
        prefix.push(b'.');
        let mut suffixes = Vec::new();
        // Not that of the standard library, which panics when the directory cannot be closed.
        for entry in Dir::new(self.read_directory()?)? {
            let entry = entry?;
            let suffix = entry.file_name().to_bytes().strip_prefix(&prefix[..]);
            if let Some(Ok(suffix)) = suffix.map(std::str::from_utf8) {
                suffixes.push(suffix.to_owned());
            }
        }
        Ok(suffixes)
    }
}
