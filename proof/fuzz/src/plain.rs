//! Bytes in memory, and nothing remembered about them: for fuzzing, which opens many files a second.

#![allow(clippy::disallowed_types)] // loom has no part in it

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use walchan_core::storage::{Medium, Memory, WORD_LEN};

/// Shared by clones. Every sync succeeds.
#[derive(Clone, Debug)]
pub struct Plain(Arc<Mutex<Vec<u8>>>);

impl Plain {
    pub fn new(bytes: Vec<u8>) -> Self {
        Plain(Arc::new(Mutex::new(bytes)))
    }

    /// Looks at all of it.
    pub fn with<R>(&self, look: impl FnOnce(&[u8]) -> R) -> R {
        look(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn write(&self, offset: u64, bytes: &[u8]) {
        let at = offset as usize;
        self.lock()[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) {
        let at = offset as usize;
        bytes.copy_from_slice(&self.lock()[at..at + bytes.len()]);
    }
}

impl Memory for Plain {
    fn load(&self, word: u64, _: Ordering) -> u64 {
        let mut bytes = [0; WORD_LEN as usize];
        self.read(word * WORD_LEN, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn store(&self, word: u64, value: u64, _: Ordering) {
        self.write(word * WORD_LEN, &value.to_le_bytes());
    }

    fn store_words(&self, word: u64, bytes: &[u8]) {
        self.write(word * WORD_LEN, bytes);
    }

    unsafe fn copy_in(&self, word: u64, skip: u64, bytes: &[u8]) {
        self.write(word * WORD_LEN + skip, bytes);
    }

    unsafe fn copy_out(&self, word: u64, bytes: &mut [u8]) {
        self.read(word * WORD_LEN, bytes);
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync_words(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
}

impl Medium for Plain {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().len() as u64)
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        if offset + bytes.len() as u64 > Medium::len(self)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read(offset, bytes);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write(offset, bytes);
        Ok(())
    }

    fn sync_written(&self) -> io::Result<()> {
        Ok(())
    }
}
