//! The model: each word is a loom atomic, plus a loom cell that plain copies take exclusively and
//! reads share, so that a missing edge shows on payload bytes too.
//!
//! What was copied in plainly is kept beside the atomic value, out of loom's sight: the cell already
//! orders it, and an atomic operation per word would only multiply the interleavings. The protocol
//! never looks for a first word in words that a copy wrote in the same lap (R5).

#![allow(clippy::disallowed_types)] // the plain ones are out of loom's sight on purpose

use loom::cell::UnsafeCell;
use std::io;
use std::sync::atomic as plain;
use walchan_core::storage::{Memory, WORD_LEN, get_u64, put_u64};
use walchan_core::sync::{Arc, AtomicU64, Ordering};

// [O:none] For what loom does not see: the cells order it, or nothing has to.
const PLAIN: plain::Ordering = plain::Ordering::Relaxed;

#[derive(Debug)]
struct Word {
    value: AtomicU64,
    access: UnsafeCell<()>,
    copied: plain::AtomicU64,
    /// Whether the word was ever stored to atomically.
    atomic: plain::AtomicBool,
}

/// A cell without content: each access is one that loom checks.
#[derive(Debug)]
struct Stamp(UnsafeCell<()>);

// SAFETY: the cell holds nothing; loom checks every access to it.
unsafe impl Send for Stamp {}
// SAFETY: as above.
unsafe impl Sync for Stamp {}

/// What a sync left on stable storage.
#[derive(Clone, Debug)]
struct Image {
    /// Of each word, the value stored atomically and the one copied.
    words: Arc<Vec<[u64; 2]>>,
    /// Written by the sync, read by whoever relies on it: the sync must happen before.
    stamp: Arc<Stamp>,
}

/// Words under loom's eyes, and durable images of them.
#[derive(Debug)]
pub(crate) struct Modelled {
    words: Vec<Word>,
    /// One for each sync that succeeded.
    images: std::sync::Mutex<Vec<Image>>,
    /// Syncs that have begun.
    syncs: plain::AtomicU64,
    /// The number of the sync that fails. As on Linux, those behind it do nothing and report success.
    failing: plain::AtomicU64,
}

// SAFETY: the cells hold nothing; loom checks every access to them.
unsafe impl Sync for Modelled {}
// SAFETY: as above.
unsafe impl Send for Modelled {}

impl Modelled {
    pub(crate) fn new(words: usize) -> Self {
        let word = || Word {
            value: AtomicU64::new(0),
            access: UnsafeCell::new(()),
            copied: plain::AtomicU64::new(0),
            atomic: plain::AtomicBool::new(false),
        };
        Modelled {
            words: (0..words).map(|_| word()).collect(),
            images: std::sync::Mutex::new(Vec::new()),
            syncs: plain::AtomicU64::new(0),
            failing: plain::AtomicU64::new(u64::MAX),
        }
    }

    /// The sync of this number fails, counted from 0.
    pub(crate) fn fail(&self, number: u64) {
        self.failing.store(number, PLAIN);
    }

    /// Syncs that have begun.
    pub(crate) fn syncs(&self) -> u64 {
        self.syncs.load(PLAIN)
    }

    /// Whether one of the durable images is as `expected` says; the caller relies on it.
    pub(crate) fn is_durable(&self, expected: impl Fn(&[[u64; 2]]) -> bool) -> bool {
        // Not locked across an operation of loom's.
        let images = self
            .images
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .clone();
        let found = images.iter().find(|image| expected(&image.words));
        found.is_some_and(|image| {
            image.stamp.0.with(|_| ());
            true
        })
    }

    /// The same, for a caller that does not rely on it.
    pub(crate) fn is_on_disk(&self, expected: impl Fn(&[[u64; 2]]) -> bool) -> bool {
        let images = self.images.lock().unwrap_or_else(|e| e.into_inner());
        images.iter().any(|image| expected(&image.words))
    }

    /// Whether the last image is so; for a caller that does not rely on it.
    pub(crate) fn last_image(&self, expected: impl Fn(&[[u64; 2]]) -> bool) -> bool {
        let images = self.images.lock().unwrap_or_else(|e| e.into_inner());
        images.last().is_some_and(|image| expected(&image.words))
    }

    fn at(&self, word: u64) -> &Word {
        &self.words[word as usize]
    }
}

impl Memory for Modelled {
    fn load(&self, word: u64, order: Ordering) -> u64 {
        self.at(word).access.with(|_| ());
        // [O:forwarded] The order is the caller's.
        self.at(word).value.load(order)
    }

    fn store(&self, word: u64, value: u64, order: Ordering) {
        // Shared: an atomic store may meet an atomic load, never a plain copy.
        self.at(word).access.with(|_| ());
        self.at(word).atomic.store(true, PLAIN);
        // Plain copies see it, too: of what damage left, a filler is stored word by word.
        self.at(word).copied.store(value, PLAIN);
        // [O:forwarded] The order is the caller's.
        self.at(word).value.store(value, order);
    }

    fn store_words(&self, word: u64, bytes: &[u8]) {
        for (i, chunk) in bytes.chunks(WORD_LEN as usize).enumerate() {
            let mut value = [0; WORD_LEN as usize];
            value[..chunk.len()].copy_from_slice(chunk);
            let word = self.at(word + i as u64);
            word.access
                .with_mut(|_| word.copied.store(get_u64(&value, 0), PLAIN));
        }
    }

    unsafe fn copy_in(&self, word: u64, skip: u64, bytes: &[u8]) {
        let (mut word, mut skip, mut rest) =
            (word + skip / WORD_LEN, (skip % WORD_LEN) as usize, bytes);
        while !rest.is_empty() {
            let part;
            (part, rest) = rest.split_at(rest.len().min(WORD_LEN as usize - skip));
            let at = self.at(word);
            at.access.with_mut(|_| {
                let mut value = at.copied.load(PLAIN).to_le_bytes();
                value[skip..skip + part.len()].copy_from_slice(part);
                at.copied.store(u64::from_le_bytes(value), PLAIN);
            });
            (word, skip) = (word + 1, 0);
        }
    }

    unsafe fn copy_out(&self, word: u64, bytes: &mut [u8]) {
        for (i, chunk) in bytes.chunks_mut(WORD_LEN as usize).enumerate() {
            let word = self.at(word + i as u64);
            let mut value = [0; WORD_LEN as usize];
            word.access
                .with(|_| put_u64(&mut value, 0, word.copied.load(PLAIN)));
            chunk.copy_from_slice(&value[..chunk.len()]);
        }
    }

    /// All of it: more than is promised.
    fn sync_words(&self, _: u64, _: u64) -> io::Result<()> {
        self.sync()
    }

    /// Word by word: the stores of other threads fall on either side, as they do on a disk.
    fn sync(&self) -> io::Result<()> {
        let number = self.syncs.fetch_add(1, PLAIN);
        let failing = self.failing.load(PLAIN);
        if number == failing {
            return Err(io::Error::from_raw_os_error(
                rustix::io::Errno::IO.raw_os_error(),
            ));
        }
        let mut words = Vec::with_capacity(self.words.len());
        for word in &self.words {
            let copied = word.copied.load(PLAIN);
            let value = if word.atomic.load(PLAIN) {
                // [O:modelled_sync] Acquire: as strong as a system call.
                word.value.load(Ordering::Acquire)
            } else {
                0
            };
            words.push([value, copied]);
        }
        if number < failing {
            let stamp = Arc::new(Stamp(UnsafeCell::new(())));
            stamp.0.with_mut(|_| ());
            let words = Arc::new(words);
            let mut images = self.images.lock().unwrap_or_else(|e| e.into_inner());
            images.push(Image { words, stamp });
        }
        Ok(())
    }
}

/// One incarnation of a file's words. When the file is gone, or used anew, nobody may write through it any
/// more; and of words that are used anew, nobody may read.
#[derive(Clone, Debug)]
pub(crate) struct Words {
    words: Arc<Modelled>,
    allowed: Arc<std::sync::Mutex<Allowed>>,
}

/// What may be done through one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allowed {
    All,
    Reads,
    Nothing,
}

impl Words {
    pub(crate) fn new(words: Arc<Modelled>) -> Self {
        let allowed = Arc::new(std::sync::Mutex::new(Allowed::All));
        Words { words, allowed }
    }

    pub(crate) fn shared(&self) -> Arc<Modelled> {
        Arc::clone(&self.words)
    }

    pub(crate) fn modelled(&self) -> &Modelled {
        &self.words
    }

    pub(crate) fn allow(&self, allowed: Allowed) {
        *self.allowed.lock().unwrap_or_else(|e| e.into_inner()) = allowed;
    }

    /// Gives the space of words back: who reads them finds zeros.
    pub(crate) fn punch(&self, from: u64, count: u64) {
        self.allow(Allowed::Reads);
        // [O:modelled_punch] SeqCst: what the kernel does to take a page from those who have it mapped.
        loom::sync::atomic::fence(Ordering::SeqCst);
        for word in from..from + count {
            // [O:modelled_zero] Release: part of the model, as strong as a system call.
            self.words.store(word, 0, Ordering::Release);
        }
    }

    fn allowed(&self) -> Allowed {
        *self.allowed.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn reads(&self) {
        let allowed = self.allowed();
        assert_ne!(
            allowed,
            Allowed::Nothing,
            "a read of words that are used anew"
        );
    }

    fn writes(&self) {
        let allowed = self.allowed();
        assert_eq!(allowed, Allowed::All, "a write to a file that is gone");
    }
}

impl Memory for Words {
    fn load(&self, word: u64, order: Ordering) -> u64 {
        self.reads();
        // [O:forwarded] The order is the caller's.
        self.words.load(word, order)
    }

    fn store(&self, word: u64, value: u64, order: Ordering) {
        self.writes();
        // [O:forwarded] The order is the caller's.
        self.words.store(word, value, order);
    }

    fn store_words(&self, word: u64, bytes: &[u8]) {
        self.writes();
        self.words.store_words(word, bytes);
    }

    unsafe fn copy_in(&self, word: u64, skip: u64, bytes: &[u8]) {
        self.writes();
        // SAFETY: the caller's.
        unsafe { self.words.copy_in(word, skip, bytes) }
    }

    unsafe fn copy_out(&self, word: u64, bytes: &mut [u8]) {
        self.reads();
        // SAFETY: the caller's.
        unsafe { self.words.copy_out(word, bytes) }
    }

    fn sync(&self) -> io::Result<()> {
        self.words.sync()
    }

    fn sync_words(&self, word: u64, count: u64) -> io::Result<()> {
        self.words.sync_words(word, count)
    }
}
