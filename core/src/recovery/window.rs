//! Reads the ring by position, a window at a time, and survives bad blocks.

use crate::format::frame;
use crate::format::{HEADER_LEN, PAGE_LEN, get_u64};
use crate::planted::planted;
use crate::storage::Medium;
use std::io;

/// Bytes read at once. Of a larger window much would leave the core's cache before the scan looks at it.
const WINDOW_LEN: u64 = 256 * 1024;
/// Where headers are at least this far apart, the scan reads only the pages that have them.
const LEAP_LEN: u64 = 32 * 1024;

/// Part of the ring, in memory.
#[derive(Debug)]
pub(super) struct Window {
    capacity: u64,
    /// Offset in the ring of the first byte.
    offset: u64,
    /// Bytes that were read. The buffer may be longer: what is behind them belongs to other places.
    len: usize,
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
            self.load(medium, position, WINDOW_LEN)?;
        }
        let bytes = &self.buffer[(offset - self.offset) as usize..self.len];
        Ok(&bytes[..bytes.len().min(usize::try_from(len).unwrap_or(usize::MAX))])
    }

    /// The CRC of the `len` bytes at `position`, all of which `at` gave last.
    #[inline]
    pub(super) fn crc(&self, position: u64, len: u64) -> u32 {
        let at = (position & (self.capacity - 1)) - self.offset;
        frame::crc(&self.buffer[at as usize..self.len][..len as usize])
    }

    /// The two words at `position`, around which nothing else may be of use.
    #[inline]
    pub(super) fn words_at(&mut self, medium: &dyn Medium, position: u64) -> io::Result<[u64; 2]> {
        let offset = position & (self.capacity - 1);
        if !self.covers(offset) {
            let leaps = offset.saturating_sub(self.header) >= LEAP_LEN && self.len > 0;
            let len = if leaps { PAGE_LEN } else { WINDOW_LEN };
            self.load(medium, position, len)?;
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
    fn load(&mut self, medium: &dyn Medium, position: u64, len: u64) -> io::Result<()> {
        let start = position & !(PAGE_LEN - 1) & (self.capacity - 1);
        let len = len.min(self.capacity - start);
        self.read(medium, start, len as usize)
    }

    fn read(&mut self, medium: &dyn Medium, start: u64, len: usize) -> io::Result<()> {
        let whole = WINDOW_LEN.min(self.capacity) as usize;
        if self.buffer.len() < whole {
            self.buffer.resize(whole, 0);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::frame::{FRAME_HEADER_LEN, State, salt_from};
    use crate::sync::Mutex;
    use std::ops::Range;

    const CAPACITY: u64 = 32 * WINDOW_LEN;

    /// Bytes of the frames.
    const FRAME_LEN: u64 = 1024;
    /// Of the first.
    const START: u64 = 5 * CAPACITY;

    /// A ring of frames, whose words tell where they are, but for pages that cannot be read.
    struct Numbered {
        bad: Vec<u64>,
        reads: Mutex<Vec<Range<u64>>>,
    }

    impl Numbered {
        fn new(bad: &[u64]) -> Self {
            Numbered {
                bad: bad.to_vec(),
                reads: Mutex::new(Vec::new()),
            }
        }

        fn bytes_read(&self) -> u64 {
            self.reads
                .lock()
                .iter()
                .map(|read| read.end - read.start)
                .sum()
        }

        fn word(&self, offset: u64) -> u64 {
            let is_bad = self.bad.contains(&(offset / PAGE_LEN));
            match offset % FRAME_LEN {
                _ if is_bad => 0,
                0 => frame::word0(START + offset, salt_from(1), State::Delivered(0)),
                8 => (FRAME_LEN - FRAME_HEADER_LEN) | 1 << 30,
                _ => !offset,
            }
        }
    }

    impl Medium for Numbered {
        fn len(&self) -> io::Result<u64> {
            Ok(HEADER_LEN + CAPACITY)
        }

        fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
            let offset = offset - HEADER_LEN;
            let end = offset + bytes.len() as u64;
            assert!(end <= CAPACITY);
            self.reads.lock().push(offset..end);
            let mut pages = offset / PAGE_LEN..end.div_ceil(PAGE_LEN);
            if pages.any(|page| self.bad.contains(&page)) {
                return Err(rustix::io::Errno::IO.into());
            }
            for (i, word) in bytes.chunks_exact_mut(8).enumerate() {
                word.copy_from_slice(&self.word(offset + i as u64 * 8).to_le_bytes());
            }
            Ok(())
        }

        fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
            unreachable!("a window only reads")
        }

        fn sync_written(&self) -> io::Result<()> {
            unreachable!("a window only reads")
        }
    }

    /// Looks at so many places, each `step` of the last one behind it.
    fn look(medium: &Numbered, places: u64, step: impl Fn(u64) -> u64) {
        let mut window = Window::new(CAPACITY);
        let mut position = START + PAGE_LEN / 2;
        for place in 0..places {
            let offset = position % CAPACITY;
            let expected = [offset, offset + 8].map(|at| medium.word(at));
            assert_eq!(window.words_at(medium, position).unwrap(), expected);
            let bytes = window.at(medium, position, 48).unwrap();
            for (i, word) in bytes.chunks_exact(8).enumerate() {
                assert_eq!(get_u64(word, 0), medium.word(offset + i as u64 * 8));
            }
            let is_bad = medium.bad.contains(&(offset / PAGE_LEN));
            assert_eq!(window.is_unreadable(position), is_bad, "{offset}");
            position += step(place);
            if place % 5000 == 4999 {
                window.forget();
            }
        }
    }

    #[test]
    fn leaps_and_steps_back_find_what_is_there() {
        let pages = CAPACITY / PAGE_LEN;
        for bad in [&[][..], &[0, 65, 66, 200, pages - 1], &[3, 100, 700]] {
            let medium = Numbered::new(bad);
            // One and a half laps, from one end of the ring to the other.
            look(&medium, 3 * CAPACITY / 2 / 1040, |_| 1040);
            look(&medium, 20_000, |place| match place % 1009 {
                0 => 40 * WINDOW_LEN,
                1 => CAPACITY - 3 * WINDOW_LEN,
                2..20 => LEAP_LEN + 16 * place,
                20..500 => 1040,
                n => 16 * (n % 40),
            });
        }
    }

    #[test]
    fn only_the_pages_of_headers_are_read_where_they_are_far_apart() {
        for (step, most) in [(1040, CAPACITY), (1 << 20, 32 * PAGE_LEN + WINDOW_LEN)] {
            let medium = Numbered::new(&[]);
            let mut window = Window::new(CAPACITY);
            for offset in (0..CAPACITY).step_by(step) {
                let words = [offset, offset + 8].map(|at| medium.word(at));
                assert_eq!(window.words_at(&medium, offset).unwrap(), words);
            }
            assert!(medium.bytes_read() <= most, "{} bytes", medium.bytes_read());
        }
    }
}
