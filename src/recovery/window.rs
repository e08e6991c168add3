//! Reads the ring by position, a window at a time, and survives bad blocks.

use super::ahead::{Ahead, Notes};
use crate::format::frame;
use crate::format::incarnations::Lives;
use crate::format::{HEADER_LEN, PAGE_LEN, get_u64};
use crate::memory::Medium;
use crate::planted::planted;
use std::io;
use std::thread::Scope;

/// Bytes read at once. More would not stay in the cache of a core until they are looked at, in much of it.
const WINDOW_LEN: u64 = 256 * 1024;
/// Bytes of a piece that is read ahead, between two windows, where headers are enough: copying takes longer than looking. Where CRCs are
/// computed, by both threads, it has those of a window.
const AHEAD_LEN: u64 = 2 * WINDOW_LEN;
/// So many are asked for at once.
const AHEAD: usize = 2;
/// So many windows are read one behind the other before that begins.
const ROW: u32 = 4;
/// Bytes of the smallest ring for which a thread is started to do it.
pub(super) const AHEAD_FROM: u64 = 16 * WINDOW_LEN;
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
    /// CRCs of some of them.
    notes: Notes,
    /// Ring offsets of the pages that could not be read; they show as zeros.
    unreadable: Vec<u64>,
    /// Offset of the header that was asked for last.
    header: u64,
    /// How many windows and pieces came one behind the other, without a leap.
    row: u32,
    ahead: Option<Ahead>,
}

impl Window {
    /// A window that has the next pieces read by another thread, as long as one comes behind the other.
    pub(super) fn with_ahead<'scope>(
        capacity: u64,
        scope: &'scope Scope<'scope, '_>,
        medium: &'scope dyn Medium,
        lives: &'scope Lives,
    ) -> Self {
        Window {
            ahead: Ahead::start(capacity, scope, medium, lives),
            ..Window::new(capacity)
        }
    }

    pub(super) fn new(capacity: u64) -> Self {
        Window {
            capacity,
            offset: 0,
            len: 0,
            buffer: Vec::new(),
            notes: Notes::default(),
            unreadable: Vec::new(),
            header: 0,
            row: 0,
            ahead: None,
        }
    }

    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Up to `len` bytes at `position`, at least 16, not across the end of the ring. `position` is a
    /// multiple of 16.
    pub(super) fn at(&mut self, medium: &dyn Medium, position: u64, len: u64) -> io::Result<&[u8]> {
        let offset = position & (self.capacity - 1);
        if !self.covers(offset) {
            self.load(medium, position, WINDOW_LEN, true)?;
        }
        let bytes = &self.buffer[(offset - self.offset) as usize..self.len];
        Ok(&bytes[..bytes.len().min(usize::try_from(len).unwrap_or(usize::MAX))])
    }

    /// The CRC of the `len` bytes at `position`, all of which `at` gave last.
    #[inline]
    pub(super) fn crc(&mut self, position: u64, len: u64) -> u32 {
        let at = (position & (self.capacity - 1)) - self.offset;
        match self.notes.crc(at, len) {
            Some(crc) => crc,
            None => frame::crc(&self.buffer[at as usize..self.len][..len as usize]),
        }
    }

    /// The two words at `position`, around which nothing else may be of use.
    #[inline]
    pub(super) fn words_at(&mut self, medium: &dyn Medium, position: u64) -> io::Result<[u64; 2]> {
        let offset = position & (self.capacity - 1);
        if !self.covers(offset) {
            let leaps = offset.saturating_sub(self.header) >= LEAP_LEN && self.len > 0;
            let len = if leaps { PAGE_LEN } else { WINDOW_LEN };
            self.load(medium, position, len, false)?;
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
        self.notes.clear();
        if let Some(ahead) = &mut self.ahead {
            ahead.forget();
        }
    }

    /// The piece with 16 bytes at `offset`, if another thread reads it; else bytes that are to be read here, from the page of
    /// `offset` on: no more than up to what that thread reads.
    fn take_ahead(&mut self, offset: u64) -> Result<(), u64> {
        let mask = self.capacity - 1;
        let end = self.offset + self.len as u64;
        let is_next = self.len > 0 && (offset.wrapping_sub(end) & mask) < LEAP_LEN;
        self.row = if is_next { self.row + 1 } else { 0 };
        let Some(ahead) = &mut self.ahead else {
            return Err(WINDOW_LEN);
        };
        let Some(&(next, len)) = ahead.asked.front() else {
            return Err(WINDOW_LEN);
        };
        let next = next & mask;
        if offset < next || offset + 16 > next + len {
            let before = next.wrapping_sub(offset & !(PAGE_LEN - 1)) & mask;
            // As far as that it is where a piece could not be read.
            if before > AHEAD_LEN + WINDOW_LEN {
                ahead.forget();
            }
            return Err(before.min(WINDOW_LEN));
        }
        let mut piece = ahead.take().ok_or(WINDOW_LEN)?;
        self.offset = next;
        self.len = piece.bytes.len();
        std::mem::swap(&mut self.buffer, &mut piece.bytes);
        std::mem::swap(&mut self.notes, &mut piece.notes);
        ahead.spare.push(piece);
        Ok(())
    }

    /// Has every other piece from `end` on read by the other thread, beginning with that, for one who does or does not verify.
    fn ask_ahead(&mut self, end: u64, verify: bool) {
        let Some(ahead) = &mut self.ahead else { return };
        while self.row >= ROW && ahead.asked.len() < AHEAD {
            let next = match ahead.asked.back() {
                Some((position, len)) => position + len + WINDOW_LEN,
                None => end,
            };
            let to_end = self.capacity - (next & (self.capacity - 1));
            let len = if verify { WINDOW_LEN } else { AHEAD_LEN };
            if !ahead.ask(next, len.min(to_end), verify) {
                return;
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn load(
        &mut self,
        medium: &dyn Medium,
        position: u64,
        len: u64,
        verify: bool,
    ) -> io::Result<()> {
        let page = position & !(PAGE_LEN - 1);
        let offset = position & (self.capacity - 1);
        let start = page & (self.capacity - 1);
        if len < WINDOW_LEN {
            self.row = 0;
            return self.read(medium, start, len as usize);
        }
        let Err(len) = self.take_ahead(offset) else {
            let read = self.offset + self.len as u64 - offset;
            self.ask_ahead(position + read, verify);
            return Ok(());
        };
        let len = len.min(self.capacity - start);
        self.ask_ahead(page + len, verify);
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
        self.notes.clear();
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
    use crate::format::incarnations::Life;
    use crate::sync::Mutex;
    use std::ops::Range;
    use std::thread::ThreadId;

    const CAPACITY: u64 = 32 * WINDOW_LEN;

    /// Bytes of the frames.
    const FRAME_LEN: u64 = 1024;
    /// Of the first.
    const START: u64 = 5 * CAPACITY;

    /// A ring of frames, whose words tell where they are, but for pages that cannot be read.
    struct Numbered {
        bad: Vec<u64>,
        home: ThreadId,
        /// What was read, and whether by another thread.
        reads: Mutex<Vec<(Range<u64>, bool)>>,
    }

    impl Numbered {
        fn new(bad: &[u64]) -> Self {
            Numbered {
                bad: bad.to_vec(),
                home: std::thread::current().id(),
                reads: Mutex::new(Vec::new()),
            }
        }

        /// Pieces that another thread read.
        fn elsewhere(&self) -> usize {
            self.reads.lock().iter().filter(|read| read.1).count()
        }

        fn bytes_read(&self) -> u64 {
            let reads = self.reads.lock();
            reads.iter().map(|(read, _)| read.end - read.start).sum()
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
            let elsewhere = std::thread::current().id() != self.home;
            self.reads.lock().push((offset..end, elsewhere));
            if self
                .bad
                .iter()
                .any(|bad| (offset / PAGE_LEN..end.div_ceil(PAGE_LEN)).contains(bad))
            {
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

    fn lives() -> Lives {
        Lives::first(Life {
            start: 0,
            salt: salt_from(1),
            tag: 2,
            number: 1,
        })
    }

    /// Looks at so many places, each `step` of the last one behind it.
    fn look(medium: &Numbered, places: u64, step: impl Fn(u64) -> u64) {
        let lives = lives();
        std::thread::scope(|scope| {
            let mut window = Window::with_ahead(CAPACITY, scope, medium, &lives);
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
        });
    }

    #[test]
    fn a_piece_is_the_same_whoever_reads_it() {
        let pages = CAPACITY / PAGE_LEN;
        for bad in [&[][..], &[0, 65, 66, 200, pages - 1]] {
            let medium = Numbered::new(bad);
            // One and a half laps, from one end of the ring to the other.
            look(&medium, 3 * CAPACITY / 2 / 1040, |_| 1040);
            assert!(medium.elsewhere() >= 8);
        }
    }

    /// Payloads whose CRCs another thread tells one who looks at all frames, in order, or at headers only.
    fn payloads_noted(verify: bool) -> u64 {
        let medium = Numbered::new(&[100]);
        let lives = lives();
        let len = FRAME_LEN - FRAME_HEADER_LEN;
        let mut noted = 0;
        std::thread::scope(|scope| {
            let mut window = Window::with_ahead(CAPACITY, scope, &medium, &lives);
            for position in (START..START + CAPACITY).step_by(FRAME_LEN as usize) {
                let at = position + FRAME_HEADER_LEN;
                if verify {
                    window.at(&medium, position, FRAME_HEADER_LEN).unwrap();
                    let payload = window.at(&medium, at, len).unwrap().to_vec();
                    assert_eq!(window.crc(at, len), frame::crc(&payload));
                } else {
                    window.words_at(&medium, position).unwrap();
                }
                let at = at % CAPACITY - window.offset;
                noted += u64::from(window.notes.crc(at, len).is_some());
            }
        });
        noted
    }

    #[test]
    fn half_of_the_payloads_have_their_crc_from_another_thread() {
        let frames = CAPACITY / FRAME_LEN;
        assert!((frames / 3..frames * 2 / 3).contains(&payloads_noted(true)));
    }

    #[test]
    fn where_headers_are_enough_nobody_computes_a_crc() {
        assert_eq!(payloads_noted(false), 0);
    }

    #[test]
    fn leaps_and_steps_back_find_what_is_there() {
        let medium = Numbered::new(&[3, 100, 700]);
        look(&medium, 20_000, |place| match place % 1009 {
            0 => 40 * WINDOW_LEN,
            1 => CAPACITY - 3 * WINDOW_LEN,
            2..20 => LEAP_LEN + 16 * place,
            20..500 => 1040,
            n => 16 * (n % 40),
        });
        assert!(medium.elsewhere() > 0);
    }

    /// The header at each of these steps from the last, and nothing else, by a second thread, too, or by one.
    fn headers(medium: &Numbered, steps: &[u64], ahead: bool) {
        let lives = lives();
        std::thread::scope(|scope| {
            let mut window = match ahead {
                true => Window::with_ahead(CAPACITY, scope, medium, &lives),
                false => Window::new(CAPACITY),
            };
            let mut offset = 0;
            for step in steps.iter().cycle() {
                let words = [offset, offset + 8].map(|at| medium.word(at));
                assert_eq!(window.words_at(medium, offset).unwrap(), words);
                offset += step;
                if offset >= CAPACITY {
                    return;
                }
            }
        });
    }

    #[test]
    fn nothing_is_read_ahead_where_headers_leap() {
        for steps in [
            [1 << 20, 8 << 10],
            [1 << 20, 24 << 10],
            [64 << 10, 40 << 10],
        ] {
            let (alone, both) = (Numbered::new(&[]), Numbered::new(&[]));
            headers(&alone, &steps, false);
            headers(&both, &steps, true);
            assert_eq!(both.bytes_read(), alone.bytes_read(), "{steps:?}");
        }
    }

    #[test]
    fn a_page_that_cannot_be_read_has_no_other_piece_read_twice() {
        for bad in (0..CAPACITY / PAGE_LEN).step_by(97) {
            let medium = Numbered::new(&[bad]);
            headers(&medium, &[1040], true);
            assert!(medium.elsewhere() > 0);
            // Not in the piece that failed, nor at the start, where what is asked for behind the end of the ring lies.
            let far = (2 * (AHEAD_LEN + WINDOW_LEN)..CAPACITY).step_by(PAGE_LEN as usize);
            for page in far.filter(|page| page.abs_diff(bad * PAGE_LEN) >= AHEAD_LEN) {
                let reads = medium.reads.lock();
                let count = reads
                    .iter()
                    .filter(|(read, _)| read.contains(&page))
                    .count();
                assert_eq!(count, 1, "page at {page}, bad is {bad}");
            }
        }
    }
}
