//! Bytes that several threads address, and that become durable on request.
//!
//! This is the only place with `unsafe` access to shared bytes. The protocol above is written against
//! [`Memory`], a fixed number of 8-byte words, because loom's atomics cannot lie inside mapped bytes. The
//! body that ships is the mapped file ([`mapped`]). The proofs bring bodies of their own: a model that loom
//! checks, a simulated disk for power cuts, plain bytes for the fuzzer. What keeps a mapping there while
//! deliveries borrow from it is beside them ([`lease`]).
//!
//! A word is used either atomically or by plain copies at any one time; who may do which, when, is
//! the protocol's business (`ring`), and the model checks that it keeps to it.

#![allow(unsafe_code)] // the module for it: see each SAFETY

pub mod extents;
pub mod file;
pub mod lease;
pub mod mapped;
pub mod name;
pub mod stage;

use crate::sync::Ordering;
use std::io;
use std::ptr::NonNull;

/// Shared 8-byte words. Values are little-endian in the bytes behind them.
///
/// Every method checks its bounds, in release builds too, and panics beyond them; but for hints, which change
/// nothing wherever they point.
pub trait Memory: std::fmt::Debug + Send + Sync + 'static {
    /// Loads a word atomically.
    fn load(&self, word: u64, order: Ordering) -> u64;

    /// Stores a word atomically.
    fn store(&self, word: u64, value: u64, order: Ordering);

    /// Stores words one by one, in no order that anybody may rely on. No other thread touches them
    /// meanwhile, or what it reads may be a mix.
    fn store_words(&self, word: u64, bytes: &[u8]);

    /// Copies bytes in, `skip` bytes behind the start of `word`.
    ///
    /// # Safety
    ///
    /// Until the call returns, no other thread may access the words it touches: the caller owns
    /// them, and everything that others did with them happens before the call.
    unsafe fn copy_in(&self, word: u64, skip: u64, bytes: &[u8]);

    /// Copies one word in.
    ///
    /// # Safety
    ///
    /// As [`Memory::copy_in`].
    unsafe fn copy_in_word(&self, word: u64, value: u64) {
        // SAFETY: the caller's word for it.
        unsafe { self.copy_in(word, 0, &value.to_le_bytes()) }
    }

    /// Copies bytes out, from the start of `word`.
    ///
    /// # Safety
    ///
    /// Until the call returns, no thread may write the words it touches, and every write to them
    /// happens before the call.
    unsafe fn copy_out(&self, word: u64, bytes: &mut [u8]);

    /// Copies one word out.
    ///
    /// # Safety
    ///
    /// As [`Memory::copy_out`].
    unsafe fn copy_out_word(&self, word: u64) -> u64 {
        let mut bytes = [0; WORD_LEN as usize];
        // SAFETY: the caller's word for it.
        unsafe { self.copy_out(word, &mut bytes) };
        u64::from_le_bytes(bytes)
    }

    /// Lends bytes where they are, from the start of `word`; `None` if this memory can only copy them out.
    ///
    /// # Safety
    ///
    /// As long as what is returned is used, this memory must be there, and no thread may write the words it
    /// covers; every write to them happens before the call.
    unsafe fn lend(&self, _word: u64, _len: usize) -> Option<Lent> {
        None
    }

    /// Returns when every store and copy that happened before the call is on stable storage.
    fn sync(&self) -> io::Result<()>;

    /// The same for stores to these words alone; others may, or may not, become durable with them.
    fn sync_words(&self, word: u64, count: u64) -> io::Result<()>;

    /// Hints that this thread will soon load this word. Changes nothing.
    #[inline]
    fn prefetch_load(&self, _word: u64) {}

    /// Hints that this thread will soon load and then store this word. Changes nothing.
    #[inline]
    fn prefetch_store(&self, _word: u64) {}

    /// Hints that it will be long until anybody needs these words, which are to be synced. Changes nothing.
    fn advise_cold(&self, _word: u64, _count: u64) {}
}

/// Bytes that lie in a memory, and do not change while this is used: see [`Memory::lend`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lent {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: it stands for `&[u8]`, which may go to any thread; whoever called `lend` answers for the bytes.
unsafe impl Send for Lent {}
// SAFETY: as above.
unsafe impl Sync for Lent {}

impl std::ops::Deref for Lent {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: `lend` checked the bounds; its caller keeps the memory, and the bytes as they are, while
        // this is used.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

/// The same bytes as a file, for those who do not trust them: recovery, one of whose threads reads ahead for
/// the other, and the delivery of what an earlier incarnation left. Reads report a bad block as an error; a
/// mapping would end the process.
pub trait Medium: Sync {
    /// Bytes of the medium.
    fn len(&self) -> io::Result<u64>;

    /// Reads exactly `bytes.len()` bytes.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bytes`.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Has the next sync bring all of `[offset, offset + len)` to stable storage as it is, even what the
    /// system believes is there already, and perhaps what is around it. `false` if that takes reading and
    /// writing it; then nothing is known.
    fn write_again(&self, _offset: u64, _len: u64) -> bool {
        false
    }

    /// Returns when all that was written before is on stable storage.
    fn sync_written(&self) -> io::Result<()>;
}

impl<M: Medium> Medium for &M {
    fn len(&self) -> io::Result<u64> {
        (**self).len()
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        (**self).read_at(offset, bytes)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        (**self).write_at(offset, bytes)
    }

    fn write_again(&self, offset: u64, len: u64) -> bool {
        (**self).write_again(offset, len)
    }

    fn sync_written(&self) -> io::Result<()> {
        (**self).sync_written()
    }
}

/// Bytes of a word.
pub const WORD_LEN: u64 = 8;

/// Reads the little-endian `u64` at `at`.
pub fn get_u64(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// Writes it there.
pub fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}
