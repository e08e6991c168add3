//! Reads the ring by position, a window at a time, and survives bad blocks.

use crate::format::{HEADER_LEN, PAGE_LEN, get_u64};
use crate::memory::Medium;
use crate::planted::planted;
use std::io;

/// Bytes read at once. More would not stay in the cache of a core until they are looked at.
const WINDOW_LEN: u64 = 256 * 1024;
/// Where headers are at least so far from each other, the pages that have them are read, and not what lies between.
const LEAP_LEN: u64 = 32 * 1024;

/// Part of the ring, in memory.
#[derive(Debug)]
pub(super) struct Window {
    capacity: u64,
    /// Offset in the ring of the first byte.
    offset: u64,
    /// How many there are.
    len: usize,
    /// They are at its start. What is behind them is left of other places.
    buffer: Vec<u8>,
    /// Ring offsets of the pages that could not be read; they show as zeros.
    unreadable: Vec<u64>,
    /// Offset of the header that was asked for last.
    header: u64,
}

impl Window {
    pub(super) fn new(capacity: u64) -> Self {
        Window {
            capacity,
            offset: 0,
            len: 0,
            buffer: Vec::new(),
            unreadable: Vec::new(),
            header: 0,
        }
    }

    /// Up to `len` bytes at `position`, at least 16, not across the end of the ring. `position` is a
    /// multiple of 16.
    pub(super) fn at(&mut self, medium: &dyn Medium, position: u64, len: u64) -> io::Result<&[u8]> {
        let offset = position & (self.capacity - 1);
        if !self.covers(offset) {
            self.load(medium, offset, WINDOW_LEN)?;
        }
        let bytes = &self.buffer[(offset - self.offset) as usize..self.len];
        Ok(&bytes[..bytes.len().min(usize::try_from(len).unwrap_or(usize::MAX))])
    }

    /// The two words at `position`, around which nothing else may be of use.
    #[inline]
    pub(super) fn words_at(&mut self, medium: &dyn Medium, position: u64) -> io::Result<[u64; 2]> {
        let offset = position & (self.capacity - 1);
        if !self.covers(offset) {
            let leaps = offset.saturating_sub(self.header) >= LEAP_LEN && self.len > 0;
            self.load(medium, offset, if leaps { PAGE_LEN } else { WINDOW_LEN })?;
        }
        self.header = offset;
        let from = (offset - self.offset) as usize;
        let bytes = &self.buffer[from..from + 16];
        Ok([get_u64(bytes, 0), get_u64(bytes, 8)])
    }

    /// Whether 16 bytes at this offset were read.
    #[inline]
    fn covers(&self, offset: u64) -> bool {
        offset >= self.offset && offset + 16 <= self.offset + self.len as u64
    }

    /// Whether the page at `position`, which was read, could not be.
    pub(super) fn is_unreadable(&self, position: u64) -> bool {
        let page = position & (self.capacity - 1) & !(PAGE_LEN - 1);
        self.unreadable.contains(&page)
    }

    /// Forgets what was read: it may have changed.
    pub(super) fn forget(&mut self) {
        self.len = 0;
    }

    #[cold]
    #[inline(never)]
    fn load(&mut self, medium: &dyn Medium, offset: u64, len: u64) -> io::Result<()> {
        let start = offset & !(PAGE_LEN - 1);
        let len = len.min(self.capacity - start) as usize;
        if self.buffer.is_empty() {
            self.buffer = vec![0; WINDOW_LEN.min(self.capacity) as usize];
        }
        let bytes = &mut self.buffer[..len];
        // Nothing, should it fail.
        self.len = 0;
        self.offset = start;
        match medium.read_at(HEADER_LEN + start, bytes) {
            Ok(()) => {
                self.len = len;
                return Ok(());
            }
            Err(error) if is_bad_block(&error) => {}
            Err(error) => return Err(error),
        }
        for (i, page) in bytes.chunks_mut(PAGE_LEN as usize).enumerate() {
            let at = start + i as u64 * PAGE_LEN;
            match medium.read_at(HEADER_LEN + at, page) {
                Ok(()) => {}
                Err(error) if is_bad_block(&error) => {
                    page.fill(0);
                    if !self.unreadable.contains(&at) {
                        self.unreadable.push(at);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        self.len = len;
        Ok(())
    }
}

/// The medium cannot read this place; others it can.
pub(super) fn is_bad_block(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
        && !planted!("bad_block_ends_recovery")
}
