//! Reads the ring by position, a window at a time, and survives bad blocks.

use crate::format::{HEADER_LEN, PAGE_LEN};
use crate::memory::Medium;
use crate::planted::planted;
use std::io;

/// Bytes read at once.
const WINDOW_LEN: u64 = 256 * 1024;

/// Part of the ring, in memory.
#[derive(Debug)]
pub(super) struct Window {
    capacity: u64,
    /// Offset in the ring of the first byte.
    offset: u64,
    bytes: Vec<u8>,
    /// Ring offsets of the pages that could not be read; they show as zeros.
    unreadable: Vec<u64>,
}

impl Window {
    pub(super) fn new(capacity: u64) -> Self {
        Window {
            capacity,
            offset: 0,
            bytes: Vec::new(),
            unreadable: Vec::new(),
        }
    }

    /// Up to `len` bytes at `position`, at least 16, not across the end of the ring. `position` is a
    /// multiple of 16.
    pub(super) fn at(&mut self, medium: &dyn Medium, position: u64, len: u64) -> io::Result<&[u8]> {
        let offset = position & (self.capacity - 1);
        let end = self.offset + self.bytes.len() as u64;
        if offset < self.offset || offset + 16 > end {
            self.load(medium, offset)?;
        }
        let from = (offset - self.offset) as usize;
        let to = (from as u64 + len).min(self.bytes.len() as u64) as usize;
        Ok(&self.bytes[from..to])
    }

    /// Whether the page at `position`, which was read, could not be.
    pub(super) fn is_unreadable(&self, position: u64) -> bool {
        let page = position & (self.capacity - 1) & !(PAGE_LEN - 1);
        self.unreadable.contains(&page)
    }

    /// Forgets what was read: it may have changed.
    pub(super) fn forget(&mut self) {
        self.bytes.clear();
    }

    fn load(&mut self, medium: &dyn Medium, offset: u64) -> io::Result<()> {
        let start = offset & !(PAGE_LEN - 1);
        let len = WINDOW_LEN.min(self.capacity - start);
        self.bytes.clear();
        self.bytes.resize(len as usize, 0);
        self.offset = start;
        let Err(error) = medium.read_at(HEADER_LEN + start, &mut self.bytes) else {
            return Ok(());
        };
        if !is_bad_block(&error) {
            self.bytes.clear();
            return Err(error);
        }
        for (i, page) in self.bytes.chunks_mut(PAGE_LEN as usize).enumerate() {
            let at = start + i as u64 * PAGE_LEN;
            match medium.read_at(HEADER_LEN + at, page) {
                Ok(()) => {}
                Err(error) if is_bad_block(&error) => {
                    page.fill(0);
                    if !self.unreadable.contains(&at) {
                        self.unreadable.push(at);
                    }
                }
                Err(error) => {
                    self.bytes.clear();
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

/// The medium cannot read this place; others it can.
pub(super) fn is_bad_block(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
        && !planted!("bad_block_ends_recovery")
}
