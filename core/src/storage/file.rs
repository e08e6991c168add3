//! The file under a channel: made whole or not at all, owned by one channel at a time.
//!
//! A new file is filled under the fixed name `<path>.walchan-new`, synced, and only then given its name,
//! so that whoever opens `path` finds a complete file. Both are locked exclusively; the lock belongs
//! to the open file, so it moves with the rename. No channel has a name that ends like that.

use super::name::{Name, directory};
use super::{Medium, extents};
use crate::error::Error;
use crate::planted::planted;
use rustix::fs::{OFlags, SeekFrom, seek};
use rustix::io::Errno;
use std::fs::{File, TryLockError};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// How a new file is filled. What fills the page cache decides how much one small store dirties, and
/// so what a sync writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// 4 KiB at a time: each page on its own, for channels that sync.
    Pages,
    /// 1 MiB at a time: fewer page faults, for channels that do not.
    Megabytes,
    /// The blocks are reserved, and not written: for a file that is filled once, by a channel that does not
    /// sync. Where the file system cannot, as `Megabytes`.
    Allocated,
}

/// Ends the name of a file that is being made.
pub const UNFINISHED: &str = ".walchan-new";

/// Whether the name is that of a file that is being made: the next maker would empty it.
pub fn is_unfinished(path: &Path) -> bool {
    path.as_os_str()
        .as_encoded_bytes()
        .ends_with(UNFINISHED.as_bytes())
}

/// A file that this process owns until the value is dropped.
#[derive(Debug)]
pub struct LockedFile(File);

impl LockedFile {
    /// `None` if another open file has the lock.
    fn lock(file: File) -> io::Result<Option<Self>> {
        match planted!("lock_not_taken", Ok(()), file.try_lock()) {
            Ok(()) => Ok(Some(LockedFile(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }

    /// Gives the lock up: the file is owned through another one. It may be opened again while a thread still
    /// has it.
    pub fn without_lock(self) -> io::Result<Self> {
        self.0.unlock()?;
        Ok(self)
    }

    /// The open file.
    pub fn as_file(&self) -> &File {
        &self.0
    }

    /// Data and size, not times. A no-op without the feature `fsync`.
    pub fn sync_data(&self) -> io::Result<()> {
        if cfg!(feature = "fsync") && !planted!("file_not_synced") {
            self.0.sync_data()
        } else {
            Ok(())
        }
    }
}

impl Drop for LockedFile {
    /// A child of `fork` shares the open file: closing ours would leave the lock with it.
    fn drop(&mut self) {
        if planted!("no_unlock_before_close") {
            return;
        }
        // Closing unlocks too, unless a child holds a copy; then this is all that can be done.
        self.0.unlock().ok();
    }
}

impl Medium for LockedFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(bytes, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync_written(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// A file that is only looked at.
#[derive(Debug)]
pub struct Looked(File);

/// Opens a file without owning it; `NotFound` if there is no regular file.
pub fn look(name: &Name) -> io::Result<Looked> {
    Ok(Looked(regular(name, OFlags::RDONLY)?))
}

/// Opens a file that is owned through the lock of another one; `NotFound` if there is no regular file.
pub fn open_owned(name: &Name) -> io::Result<LockedFile> {
    Ok(LockedFile(regular(name, OFlags::RDWR)?))
}

fn regular(name: &Name, flags: OFlags) -> io::Result<File> {
    let opened = name.open(flags);
    let refused = opened.as_ref().err().and_then(Errno::from_io_error);
    // A link, or a socket, is no file of ours.
    if matches!(refused, Some(Errno::LOOP | Errno::NXIO)) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let file = opened?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::ErrorKind::NotFound.into()),
    }
}

impl Medium for Looked {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(bytes, offset)
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn sync_written(&self) -> io::Result<()> {
        Ok(())
    }
}

/// What [`open_existing`] found.
#[derive(Debug)]
pub enum Found {
    /// The file, locked.
    File(LockedFile),
    /// Another channel has it open.
    Locked,
    /// It is not a regular file.
    NotRegular,
    /// There is none.
    Missing,
}

/// Opens and locks the file of that name.
pub fn open_existing(name: &Name) -> io::Result<Found> {
    loop {
        // Asked before opening: some special files (a directory) cannot be opened for writing.
        match name.look()? {
            None => return Ok(Found::Missing),
            Some(stat) if !is_regular(&stat) => return Ok(Found::NotRegular),
            Some(_) => {}
        }
        let file = match name.open(OFlags::RDWR) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Found::Missing),
            Err(e) => return Err(e),
        };
        if !file.metadata()?.is_file() {
            return Ok(Found::NotRegular);
        }
        let Some(file) = LockedFile::lock(file)? else {
            return Ok(Found::Locked);
        };
        // Between the open and the lock the name may have gone to another file.
        if planted!("inode_not_compared") || name.is(file.as_file())? {
            drop_second_name(&file, name)?;
            return Ok(Found::File(file));
        }
    }
}

fn is_regular(stat: &rustix::fs::Stat) -> bool {
    rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile
}

/// Where renaming without replacing is not to be had, a maker that is killed between the link and the removal
/// of the other name leaves two.
fn drop_second_name(file: &LockedFile, name: &Name) -> io::Result<()> {
    let temporary = name.beside(UNFINISHED);
    if file.as_file().metadata()?.nlink() > 1 && temporary.is(file.as_file())? {
        // Who may not, leaves it to the next.
        temporary.remove().ok();
    }
    Ok(())
}

/// Makes the name of an existing file durable.
pub fn sync_name(name: &Name) -> io::Result<()> {
    match name.sync_directory() {
        // Who may not read the directory did not make the file: it has long been there.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        synced => synced,
    }
}

/// Creates the missing parent directories, each durable in its own parent.
pub fn create_parents(path: &Path) -> io::Result<()> {
    let parent = directory(path);
    // An error is none that a look at the parent's parent could mend; at the root it would go on for ever.
    if parent.try_exists()? {
        return Ok(());
    }
    create_parents(parent)?;
    match std::fs::create_dir(parent) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    if planted!("parents_not_synced") {
        return Ok(());
    }
    Name::of(parent)?.sync_directory()
}

/// What [`create`] came to.
#[derive(Debug)]
pub enum Created {
    /// The file, whole and named.
    File(LockedFile),
    /// Somebody else made the file first: open it.
    Lost,
    /// Somebody else is making it now.
    Locked,
}

/// What [`own`] found.
enum Owned {
    File(LockedFile),
    /// It has another name, too.
    Linked,
    /// It no longer has this name.
    Gone,
    /// Somebody else owns it.
    Locked,
}

/// Locks a file that was opened under the name of one that is being made.
fn own(file: File, temporary: &Name) -> io::Result<Owned> {
    let Some(file) = LockedFile::lock(file)? else {
        return Ok(Owned::Locked);
    };
    if !temporary.is(file.as_file())? {
        return Ok(Owned::Gone);
    }
    if file.as_file().metadata()?.nlink() == 1 || planted!("second_name_taken_over") {
        Ok(Owned::File(file))
    } else {
        Ok(Owned::Linked)
    }
}

/// Makes a file of `len` bytes that begins with `header`, otherwise zeros, every block of it
/// written, and gives it the name `name`. An existing file is never replaced.
pub fn create(name: &Name, header: &[u8], len: u64, fill: Fill) -> io::Result<Created> {
    let temporary = name.beside(UNFINISHED);
    let file = loop {
        // What is no file there is not ours, nor is what a link leads to.
        if temporary.look()?.is_some_and(|stat| !is_regular(&stat)) && !planted!("link_followed") {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = temporary.open(OFlags::RDWR | OFlags::CREATE)?;
        match own(file, &temporary) {
            Ok(Owned::File(file)) => break file,
            Ok(Owned::Locked) => return Ok(Created::Locked),
            // It was published by a link: this is a second name of a channel.
            Ok(Owned::Linked) => temporary.remove()?,
            // The file we locked has become somebody's channel, or its maker gave up.
            Ok(Owned::Gone) => {
                if name.look()?.is_some() {
                    return Ok(Created::Lost);
                }
            }
            Err(error) => {
                // Perhaps we have just made it, and nobody has begun to fill it. If even this fails, the next
                // creation takes it over.
                if temporary
                    .look()
                    .is_ok_and(|is| is.is_some_and(|stat| stat.st_size == 0))
                {
                    temporary.remove().ok();
                }
                return Err(error);
            }
        }
    };
    let made = fill_and_publish(name, &temporary, &file, header, len, fill);
    match made {
        Ok(true) => Ok(Created::File(file)),
        Ok(false) => {
            temporary.remove()?;
            Ok(Created::Lost)
        }
        Err(e) => {
            // We hold its lock and it never got its name: nobody misses it. If even this fails, the
            // next creation takes the file over.
            if !name.is(file.as_file()).unwrap_or(true) {
                temporary.remove().ok();
            }
            Err(e)
        }
    }
}

fn fill_and_publish(
    name: &Name,
    temporary: &Name,
    file: &LockedFile,
    header: &[u8],
    len: u64,
    fill: Fill,
) -> io::Result<bool> {
    if name.look()?.is_some() {
        return Ok(false);
    }
    let raw = file.as_file();
    raw.set_len(planted!("sparse_file", len, 0))?;
    let early = planted!("name_before_content") && temporary.rename_to(name)?;
    without_copy_on_write(raw);
    // Before anything is written: what does not fit is known at once.
    let allocated = allocate(raw, 0..planted!("sparse_file", 0, len))?;
    if fill != Fill::Allocated || !allocated {
        write_zeros(raw, planted!("sparse_file", len, 0), len, fill)?;
    }
    raw.write_all_at(header, 0)?;
    if cfg!(feature = "fsync") && !planted!("name_before_sync") {
        raw.sync_all()?;
    }
    if !early && !temporary.rename_to(name)? {
        return Ok(false);
    }
    name.sync_directory()?;
    Ok(true)
}

/// Reserves blocks for a part of a file; `false` if the file system cannot.
fn allocate(file: &File, part: Range<u64>) -> io::Result<bool> {
    use rustix::fs::{FallocateFlags, fallocate};
    if part.is_empty() {
        return Ok(false);
    }
    let (at, len) = (part.start, part.end - part.start);
    loop {
        return match fallocate(file, FallocateFlags::empty(), at, len) {
            Ok(()) => Ok(true),
            Err(Errno::INTR) => continue,
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(false),
            Err(error) => Err(error.into()),
        };
    }
}

fn write_zeros(file: &File, from: u64, to: u64, fill: Fill) -> io::Result<()> {
    let step = match fill {
        Fill::Pages => 4 << 10,
        Fill::Megabytes | Fill::Allocated => 1 << 20,
    };
    let zeros = vec![0; step];
    let mut at = from;
    while at < to {
        let part = (to - at).min(step as u64) as usize;
        file.write_all_at(&zeros[..part], at)?;
        at += part as u64;
    }
    Ok(())
}

/// On btrfs an overwrite allocates, unless the file is marked while it is empty. Other file systems
/// refuse the flag, and do not need it.
fn without_copy_on_write(file: &File) {
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
    let Ok(flags) = ioctl_getflags(file) else {
        return;
    };
    // `FS_COMPR_FL` and `FS_NOCOMP_FL`, inherited from the directory. Neither goes together with the mark,
    // nor away in the same call.
    let compression = IFlags::from_bits_retain(0x4 | 0x400);
    if flags.intersects(compression) {
        ioctl_setflags(file, flags - compression).ok();
    }
    ioctl_setflags(file, (flags - compression) | IFlags::NOCOW).ok();
}

/// Gives each of the first `len` bytes of a file a place on the disk that is its own, and changes none. A
/// copy may have holes, or share its blocks with the original: a store to the mapping would then need a new
/// block, and end the process where there is none.
pub fn own_blocks(file: &LockedFile, len: u64, fill: Fill) -> io::Result<()> {
    for part in extents::shared(file.as_file(), len)? {
        write_same(file.as_file(), part)?;
    }
    fill_holes(file.as_file(), len, fill)
}

/// The same for a segment, whose blocks are reserved rather than written.
pub fn allocate_all(file: &LockedFile, len: u64) -> io::Result<()> {
    for part in extents::shared(file.as_file(), len)? {
        write_same(file.as_file(), part)?;
    }
    // Not more than is missing: a full XFS refuses to look at what is there.
    for part in extents::missing(file.as_file(), len)? {
        if !allocate(file.as_file(), part)? {
            return fill_holes(file.as_file(), len, Fill::Allocated);
        }
    }
    Ok(())
}

/// What became of a name that was to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Its name is gone, or was gone before.
    Done,
    /// The name is another file's, which was left alone.
    Foreign,
}

/// Removes a file that passes `verify`, and gives its space back even if somebody still has it mapped; but
/// for the first `keep` bytes, by which it is known if its name comes back: without a journal nothing orders
/// the two. A file with a second name keeps its content.
pub fn remove(
    name: &Name,
    keep: u64,
    verify: &dyn Fn(&dyn Medium) -> Result<(), Error>,
) -> Result<Removal, Error> {
    use rustix::fs::{FallocateFlags, fallocate};
    loop {
        let file = match open_owned(name) {
            // Who may not write it may look at it, and perhaps remove it.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                LockedFile(regular(name, OFlags::RDONLY)?)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Ok(match name.look()? {
                    None => Removal::Done,
                    Some(_) => Removal::Foreign,
                });
            }
            file => file?,
        };
        match planted!("foreign_file_removed", Ok(()), verify(&file)) {
            Ok(()) => {}
            Err(Error::Io(error)) => return Err(error.into()),
            Err(_) => return Ok(Removal::Foreign),
        }
        if !name.is(file.as_file())? {
            continue;
        }
        name.remove()?;
        let meta = file.as_file().metadata()?;
        // A tmpfs takes a page to read a hole in a mapping: a reader that is still there would need it.
        if meta.nlink() == 0 && !is_tmpfs(file.as_file()) {
            // Where this is refused the space comes back with the last of its users.
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let len = meta.len().saturating_sub(keep).max(1);
            fallocate(file.as_file(), flags, keep, len).ok();
        }
        return Ok(Removal::Done);
    }
}

fn is_tmpfs(file: &File) -> bool {
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    rustix::fs::fstatfs(file).is_ok_and(|stat| stat.f_type as u64 == TMPFS_MAGIC)
}

/// Removes what a maker of `name` left when it was killed; not what somebody is making now.
pub fn remove_unfinished_file(name: &Name) -> io::Result<()> {
    let temporary = name.beside(UNFINISHED);
    match regular(&temporary, OFlags::RDWR).map(|file| own(file, &temporary)) {
        Ok(Ok(Owned::File(_owned))) => temporary.remove(),
        // It is somebody's, or is no longer there, or is none of ours.
        _ => Ok(()),
    }
}

/// Writes what is there: blocks that are shared are left to the others by it.
fn write_same(file: &File, part: Range<u64>) -> io::Result<()> {
    let mut at = part.start;
    let mut bytes = [0; 4 << 10];
    while at < part.end {
        let bytes = &mut bytes[..(part.end - at).min(4 << 10) as usize];
        match file.read_exact_at(bytes, at) {
            Ok(()) => file.write_all_at(bytes, at)?,
            // A bad block: recovery tells what was there.
            Err(e) if e.raw_os_error() == Some(Errno::IO.raw_os_error()) => {}
            Err(e) => return Err(e),
        }
        at += bytes.len() as u64;
    }
    Ok(())
}

fn fill_holes(file: &File, len: u64, fill: Fill) -> io::Result<()> {
    let mut at = 0;
    while at < len {
        let hole = match seek(file, SeekFrom::Hole(at)) {
            Ok(hole) => hole,
            // Such a file system does not tell.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if hole >= len {
            return Ok(());
        }
        let end = match seek(file, SeekFrom::Data(hole)) {
            Ok(data) => data.min(len),
            Err(Errno::NXIO) => len,
            Err(error) => return Err(error.into()),
        };
        write_zeros(file, hole, end, fill)?;
        at = end;
    }
    Ok(())
}

/// Writes a small file whole or not at all, durably. One that is there with other content stays.
pub fn write_beside(name: &Name, bytes: &[u8]) -> io::Result<()> {
    use std::io::{Read, Write};
    // What cannot be looked at is not replaced.
    if name.look()?.is_some() {
        let mut there = Vec::new();
        // A byte more than could be the same.
        let most = bytes.len() as u64 + 1;
        name.open(OFlags::RDONLY)?
            .take(most)
            .read_to_end(&mut there)?;
        if there == bytes {
            return name.sync_directory();
        }
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let part = name.beside(".part");
    let mut file = part.open(OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC)?;
    let written = file.write_all(bytes).and_then(|()| {
        if cfg!(feature = "fsync") {
            file.sync_all()?;
        }
        part.replace(name)
    });
    if let Err(error) = written {
        // Nobody misses it; if even this fails, the next attempt takes it over.
        part.remove().ok();
        return Err(error);
    }
    name.sync_directory()
}
