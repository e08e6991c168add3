//! Which blocks of a file belong to another one, too.

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

/// The parts of the first `len` bytes of a file whose blocks are shared with another file. None where the file system
/// does not tell.
pub(crate) fn shared(file: &File, len: u64) -> io::Result<Vec<Range<u64>>> {
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
        // SAFETY: the call reads the header and writes at most `extent_count` extents behind it, which are there;
        // any bytes are values of these types. The layout is asserted above.
        let asked = unsafe { ioctl(file, Updater::<FIEMAP, Map>::new(&mut map)) };
        match asked {
            Ok(()) => {}
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOTTY) => break,
            Err(error) => return Err(error.into()),
        }
        let told = (map.mapped_extents as usize).min(EXTENTS);
        for extent in &map.extents[..told] {
            if extent.flags & SHARED != 0 {
                let end = extent.logical.saturating_add(extent.length).min(len);
                found.push(extent.logical..end);
            }
        }
        match map.extents[..told].last() {
            // Never the same place twice, whatever it says.
            Some(last) if last.flags & LAST == 0 => {
                at = last.logical.saturating_add(last.length).max(at + 1);
            }
            _ => break,
        }
    }
    Ok(found)
}
