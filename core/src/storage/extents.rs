//! Which blocks a file has, and which of them belong to another one, too.

use rustix::ioctl::{Opcode, Updater, ioctl};
use std::fs::File;
use std::io;
use std::ops::Range;

/// `struct fiemap_extent` of the kernel.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved: [u64; 2],
    flags: u32,
    reserved_too: [u32; 3],
}

const EXTENTS: usize = 32;

/// `struct fiemap`, with room for some extents.
#[repr(C)]
struct Map {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
    extents: [Extent; EXTENTS],
}

/// `FS_IOC_FIEMAP`; it names the size of the structure without extents.
const FIEMAP: Opcode = 0xC020_660B;
const LAST: u32 = 0x1;
const SHARED: u32 = 0x2000;

const _: () = assert!(size_of::<Extent>() == 56 && size_of::<Map>() == 32 + 56 * EXTENTS);

/// A part of a file that has blocks.
struct Part {
    range: Range<u64>,
    is_shared: bool,
}

/// The parts of the first `len` bytes of a file that have blocks, in order. `None` where the file system does
/// not tell.
fn parts(file: &File, len: u64) -> io::Result<Option<Vec<Part>>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < len {
        let mut map = Map {
            start: at,
            length: len - at,
            flags: 0,
            mapped_extents: 0,
            extent_count: EXTENTS as u32,
            reserved: 0,
            extents: [Extent::default(); EXTENTS],
        };
        // SAFETY: the call reads the header and writes at most `extent_count` extents behind it, which are
        // there; any bytes are values of these types. The layout is asserted above.
        let asked = unsafe { ioctl(file, Updater::<FIEMAP, Map>::new(&mut map)) };
        match asked {
            Ok(()) => {}
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOTTY) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let reported = (map.mapped_extents as usize).min(EXTENTS);
        for extent in &map.extents[..reported] {
            let end = extent.logical.saturating_add(extent.length).min(len);
            found.push(Part {
                range: extent.logical..end,
                is_shared: extent.flags & SHARED != 0,
            });
        }
        match map.extents[..reported].last() {
            // Never the same place twice, whatever it says.
            Some(last) if last.flags & LAST == 0 => {
                at = last.logical.saturating_add(last.length).max(at + 1);
            }
            _ => break,
        }
    }
    Ok(Some(found))
}

/// The parts of the first `len` bytes of a file whose blocks are shared with another file. None where the
/// file system does not tell.
pub fn shared(file: &File, len: u64) -> io::Result<Vec<Range<u64>>> {
    let parts = parts(file, len)?.unwrap_or_default().into_iter();
    let shared = parts.filter(|part| part.is_shared);
    Ok(shared.map(|part| part.range).collect())
}

/// Those that have no blocks; all of them where the file system does not tell.
pub fn missing(file: &File, len: u64) -> io::Result<Vec<Range<u64>>> {
    let mut missing = Vec::new();
    let mut at = 0;
    for part in parts(file, len)?.unwrap_or_default() {
        if part.range.start > at {
            missing.push(at..part.range.start);
        }
        at = at.max(part.range.end);
    }
    if at < len {
        missing.push(at..len);
    }
    Ok(missing)
}
