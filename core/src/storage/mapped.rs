//! The mapped file.

#![allow(clippy::disallowed_types)] // the atomics inside the mapping are never loom's

use super::stage::copy_staged;
use super::{Lent, Medium, Memory, WORD_LEN};
use crate::planted::planted;
use crate::storage::file::LockedFile;
use crate::sync::{Arc, Ordering};
use memmap2::MmapRaw;
use rustix::io::Errno;
use std::io;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// Bytes of the smallest page that a map is made of.
const PAGE_LEN: usize = 4096;

/// A file, locked and mapped while the channel is open.
///
/// The map comes first, so that it is gone before the lock is.
#[derive(Debug)]
pub struct Mapped {
    map: MmapRaw,
    /// Whole words in it.
    words: u64,
    file: Arc<LockedFile>,
}

impl Mapped {
    /// Maps the first `len` bytes, which the file has and which are allocated on disk.
    pub fn new(file: Arc<LockedFile>, len: u64, small_folios: bool) -> io::Result<Self> {
        let bytes = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let map = memmap2::MmapOptions::new()
            .len(bytes)
            .map_raw(file.as_file())?;
        if small_folios {
            // Readahead would fill the cache with large folios, and a sync writes whole folios. Where advice
            // is refused, that is what it costs.
            map.advise(memmap2::Advice::Random).ok();
        }
        let words = map.len() as u64 / WORD_LEN;
        Ok(Mapped { map, words, file })
    }

    /// Makes all pages ready to be stored in, so that no store has to wait for one; and finds out now if the
    /// disk has no room for them.
    pub fn populate(&self) -> io::Result<()> {
        match self.map.advise(memmap2::Advice::PopulateWrite) {
            // Where a store would end the process.
            Err(error) if error.raw_os_error() == Some(Errno::FAULT.raw_os_error()) => {
                Err(io::ErrorKind::StorageFull.into())
            }
            // A kernel that does not know it.
            _ => Ok(()),
        }
    }

    /// Where a word is: aligned, because a map begins at a page.
    #[inline(always)]
    fn word_at(&self, word: u64) -> *mut u64 {
        if word >= self.words {
            outside(word, WORD_LEN as usize);
        }
        // SAFETY: inside the map, checked above.
        unsafe { self.map.as_mut_ptr().cast::<u64>().add(word as usize) }
    }

    /// The word as an atomic.
    #[inline(always)]
    fn word(&self, word: u64) -> &AtomicU64 {
        // SAFETY: inside the map, which stays as long as `self`; aligned. Plain copies of the same word are
        // ordered against this by the callers of `copy_in` and `copy_out`, whose contract says so.
        unsafe { AtomicU64::from_ptr(self.word_at(word)) }
    }

    /// Where a plain copy of `len` bytes begins, `skip` bytes behind the start of `word`.
    #[inline(always)]
    fn place(&self, word: u64, skip: u64, len: usize) -> *mut u8 {
        if word > self.words || skip + len as u64 > (self.words - word) * WORD_LEN {
            outside(word, len);
        }
        // SAFETY: inside the map or one past its end, checked above.
        unsafe { self.map.as_mut_ptr().add((word * WORD_LEN + skip) as usize) }
    }

    /// Where a word would be, for a hint: perhaps outside of the map.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn guess(&self, word: u64) -> *const u64 {
        let start = self.map.as_ptr().cast::<u64>();
        start.wrapping_add(word as usize)
    }
}

/// Apart, so that what it tells need not be in memory where it is not called.
#[cold]
#[inline(never)]
fn outside(word: u64, len: usize) -> ! {
    panic!("{len} bytes at word {word} are outside of the map");
}

/// Copies page by page. A store over the border of two pages needs leave to change both at once; a full
/// btrfs, asked for the one, writes the other back and takes its leave away, and so on for ever.
///
/// # Safety
///
/// As many bytes at `to` are the caller's to write, and do not overlap `bytes`.
unsafe fn copy_by_pages(mut bytes: &[u8], mut to: *mut u8) {
    while !bytes.is_empty() {
        let here = bytes.len().min(PAGE_LEN - to.addr() % PAGE_LEN);
        // SAFETY: as many are left.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, here);
            to = to.add(here);
        }
        bytes = &bytes[here..];
    }
}

impl Memory for Mapped {
    #[inline]
    fn load(&self, word: u64, order: Ordering) -> u64 {
        // [O:forwarded] The order is the caller's.
        u64::from_le(self.word(word).load(order))
    }

    #[inline]
    fn store(&self, word: u64, value: u64, order: Ordering) {
        // [O:forwarded] The order is the caller's.
        self.word(word).store(value.to_le(), order);
    }

    fn store_words(&self, word: u64, bytes: &[u8]) {
        for (i, bytes) in bytes.chunks_exact(WORD_LEN as usize).enumerate() {
            // [O:store_words] Relaxed: whoever calls holds a lock; only the kernel looks meanwhile.
            self.store(word + i as u64, super::get_u64(bytes, 0), Ordering::Relaxed);
        }
    }

    #[inline(always)]
    unsafe fn copy_in(&self, word: u64, skip: u64, bytes: &[u8]) {
        let to = self.place(word, skip, bytes.len());
        // SAFETY: `place` checked the bounds; the map is private to no slice, so it cannot overlap
        // `bytes`; the caller owns the words.
        unsafe {
            if !copy_staged(bytes, to) {
                copy_by_pages(bytes, to);
            }
        }
    }

    #[inline(always)]
    unsafe fn copy_in_word(&self, word: u64, value: u64) {
        // SAFETY: inside the map, and aligned; the caller owns the word.
        unsafe { self.word_at(word).write(value.to_le()) }
    }

    #[inline(always)]
    unsafe fn copy_out_word(&self, word: u64) -> u64 {
        // SAFETY: inside the map, and aligned; the caller knows that nobody writes the word now.
        u64::from_le(unsafe { self.word_at(word).read() })
    }

    #[inline]
    unsafe fn copy_out(&self, word: u64, bytes: &mut [u8]) {
        let from = self.place(word, 0, bytes.len());
        // SAFETY: as above; the caller knows that nobody writes these words now.
        unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len()) }
    }

    #[inline]
    unsafe fn lend(&self, word: u64, len: usize) -> Option<Lent> {
        let start = NonNull::new(self.place(word, 0, len))?;
        Some(Lent { start, len })
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_words(&self, word: u64, count: u64) -> io::Result<()> {
        if !cfg!(feature = "fsync") || planted!("file_not_synced") {
            return Ok(());
        }
        let (offset, len) = ((word * WORD_LEN) as usize, (count * WORD_LEN) as usize);
        self.map.flush_range(offset, len)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    fn prefetch_load(&self, word: u64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, which reads and writes nothing, wherever it points; every processor of 64 bits has
        // it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(self.guess(word).cast()) };
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    fn prefetch_store(&self, word: u64) {
        let place = self.guess(word);
        // SAFETY: a hint, which reads and writes nothing, wherever it points; a processor that does not know
        // it takes it for none, but for the very first ones of 64 bits (2004).
        unsafe {
            std::arch::asm!("prefetchw [{}]", in(reg) place, options(nostack, preserves_flags))
        };
    }

    fn advise_cold(&self, word: u64, count: u64) {
        let (offset, len) = ((word * WORD_LEN) as usize, (count * WORD_LEN) as usize);
        // A sync write-protects each changed page that is mapped, and interrupts every processor for it; what
        // is not mapped any more costs nothing. Where advice is refused, that is what it costs.
        let advice = memmap2::UncheckedAdvice::DontNeed;
        // SAFETY: of a shared map of a file, only the mapping of the pages is dropped: their content stays in
        // the file, changed pages included, and whoever looks at them next finds it (madvise(2)).
        unsafe { self.map.unchecked_advise_range(advice, offset, len) }.ok();
    }
}

impl Medium for Mapped {
    fn len(&self) -> io::Result<u64> {
        Medium::len(&*self.file)
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.as_file().read_exact_at(bytes, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.as_file().write_all_at(bytes, offset)
    }

    fn write_again(&self, offset: u64, len: u64) -> bool {
        let bytes = self.map.len() as u64;
        if offset > bytes || len > bytes - offset {
            return false;
        }
        // As if something were stored in each page, but without a signal where that cannot be: the page is
        // made ready to be stored in, and with that marked as changed, whole, and its content is not touched.
        // A page that is marked already, and only such a one, may be ready before. Kernels that do not know
        // it refuse.
        let populate = memmap2::Advice::PopulateWrite;
        let advised = self
            .map
            .advise_range(populate, offset as usize, len as usize);
        advised.is_ok()
    }

    fn sync_written(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGES: usize = 64;

    /// Bytes of pages that this thread has marked as changed; `None` if the system does not count them.
    fn marked() -> Option<u64> {
        let counts = std::fs::read_to_string("/proc/thread-self/io").ok()?;
        let line = counts.lines().find_map(|l| l.strip_prefix("write_bytes: "));
        line?.parse().ok()
    }

    #[test]
    fn clean_pages_that_are_written_again_are_marked_as_changed() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = dir.path().join("file");
        let name = crate::storage::name::Name::of(&path).unwrap();
        let content: Vec<u8> = (0..PAGES * PAGE_LEN).map(|i| (i / 7) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let file = Arc::new(crate::storage::file::open_owned(&name).unwrap());
        file.as_file().sync_all().unwrap();
        let mapped = Mapped::new(file, content.len() as u64, false).unwrap();
        let Some(before) = marked() else { return };
        let (first, count) = (5, 40);
        let (offset, len) = ((first * PAGE_LEN) as u64, (count * PAGE_LEN) as u64);
        if !mapped.write_again(offset + 16, len - 32) {
            return;
        }
        let again = marked().unwrap() - before;
        // Where nothing is counted, a write is not, either.
        mapped.write_at(0, &[content[0]]).unwrap();
        if marked().unwrap() > before {
            assert!(again >= len, "{again} bytes of {len}");
        }
        assert!(std::fs::read(&path).unwrap() == content);
        assert!(
            !mapped.write_again(0, content.len() as u64 + 1),
            "beyond it"
        );
    }
}
