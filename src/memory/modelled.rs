//! The model: each word is a loom atomic, plus a loom cell that plain copies take exclusively and
//! reads share, so that a missing edge shows on payload bytes too.
//!
//! What was copied in plainly is kept beside the atomic value, out of loom's sight: the cell already
//! orders it, and an atomic operation per word would only multiply the interleavings. The protocol
//! never looks for a first word in words that a copy wrote in the same lap (R5).

#![allow(clippy::disallowed_types)] // the plain ones are out of loom's sight on purpose

use super::{Memory, WORD_LEN};
use crate::format::{get_u64, put_u64};
use crate::sync::{AtomicU64, Ordering};
use loom::cell::UnsafeCell;
use std::io;
use std::sync::atomic as plain;

#[derive(Debug)]
struct Word {
    value: AtomicU64,
    access: UnsafeCell<()>,
    copied: plain::AtomicU64,
    /// Whether the word was ever stored to atomically.
    atomic: plain::AtomicBool,
}

/// Words under loom's eyes, and a durable image of them.
#[derive(Debug)]
pub(crate) struct Modelled {
    words: Vec<Word>,
    /// What has reached stable storage. No thread of the model sees it.
    durable: std::sync::Mutex<Vec<[u64; 2]>>,
    /// The next sync fails, and all later ones.
    failing: plain::AtomicBool,
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
            durable: std::sync::Mutex::new(vec![[0; 2]; words]),
            failing: plain::AtomicBool::new(false),
        }
    }

    /// From now on syncs fail.
    pub(crate) fn fail(&self) {
        self.failing.store(true, plain::Ordering::Relaxed);
    }

    /// The durable value of a word, as stored atomically and as copied.
    pub(crate) fn durable(&self, word: u64) -> [u64; 2] {
        self.durable.lock().unwrap_or_else(|e| e.into_inner())[word as usize]
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
        self.at(word).atomic.store(true, plain::Ordering::Relaxed);
        // [O:forwarded] The order is the caller's.
        self.at(word).value.store(value, order);
    }

    fn store_words(&self, word: u64, bytes: &[u8]) {
        for (i, chunk) in bytes.chunks(WORD_LEN as usize).enumerate() {
            let mut value = [0; WORD_LEN as usize];
            value[..chunk.len()].copy_from_slice(chunk);
            let word = self.at(word + i as u64);
            word.access.with_mut(|_| {
                word.copied
                    .store(get_u64(&value, 0), plain::Ordering::Relaxed)
            });
        }
    }

    unsafe fn copy_in(&self, word: u64, bytes: &[u8]) {
        self.store_words(word, bytes);
    }

    unsafe fn copy_out(&self, word: u64, bytes: &mut [u8]) {
        for (i, chunk) in bytes.chunks_mut(WORD_LEN as usize).enumerate() {
            let word = self.at(word + i as u64);
            let mut value = [0; WORD_LEN as usize];
            word.access
                .with(|_| put_u64(&mut value, 0, word.copied.load(plain::Ordering::Relaxed)));
            chunk.copy_from_slice(&value[..chunk.len()]);
        }
    }

    /// Word by word: the stores of other threads fall on either side, as they do on a disk.
    fn sync(&self) -> io::Result<()> {
        if self.failing.load(plain::Ordering::Relaxed) {
            return Err(io::Error::from_raw_os_error(
                rustix::io::Errno::IO.raw_os_error(),
            ));
        }
        for (i, word) in self.words.iter().enumerate() {
            let copied = word.copied.load(plain::Ordering::Relaxed);
            let value = if word.atomic.load(plain::Ordering::Relaxed) {
                // [O:modelled_sync] Acquire: as strong as a system call.
                word.value.load(Ordering::Acquire)
            } else {
                0
            };
            self.durable.lock().unwrap_or_else(|e| e.into_inner())[i] = [value, copied];
        }
        Ok(())
    }
}
