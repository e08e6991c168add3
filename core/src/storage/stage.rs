//! A copy of a small value, in larger pieces than it was made in.
//!
//! Who sends a value has just stored it, 8 bytes at a time or fewer. A load of more bytes than one store
//! wrote waits until they all are in the cache, and so is behind every store that came before: those of the
//! last frame among them, whose lines come from another processor. So the checksum, which loads 16 bytes at a
//! time, is not made of what the caller stored but of this copy, which was loaded by 8 bytes and stored by
//! 16; both go from store to load inside the processor. (Intel, "64 and IA-32 Architectures Optimization
//! Reference Manual", store forwarding.)

/// Bytes of the largest payload that is worth it.
pub const STAGED_LEN_MAX: u64 = 128;

#[cfg(target_arch = "x86_64")]
const LEN_MAX: usize = STAGED_LEN_MAX as usize;

#[cfg(target_arch = "x86_64")]
mod inner {
    use super::LEN_MAX;
    use std::arch::x86_64::{__m128i, _mm_set_epi64x};
    use std::hint::black_box;
    use std::mem::MaybeUninit;

    const PIECE_LEN: usize = size_of::<__m128i>();
    const WORD_LEN: usize = size_of::<i64>();

    /// Room for the copy.
    #[derive(Debug)]
    pub struct Stage([MaybeUninit<__m128i>; LEN_MAX / PIECE_LEN]);

    impl Stage {
        /// An empty one.
        #[inline(always)]
        pub fn new() -> Self {
            Stage([MaybeUninit::uninit(); LEN_MAX / PIECE_LEN])
        }

        /// The same bytes, here; or where they are, if they are not worth it, or not words.
        #[inline(always)]
        pub fn copy<'a>(&'a mut self, bytes: &'a [u8]) -> &'a [u8] {
            let len = bytes.len();
            let from = bytes.as_ptr().cast::<i64>();
            if !(PIECE_LEN..=LEN_MAX).contains(&len)
                || !len.is_multiple_of(WORD_LEN)
                || !from.is_aligned()
            {
                return bytes;
            }
            // SAFETY: who asks has a word of `bytes`; aligned. Volatile, lest two loads become one of 16
            // bytes.
            let word = |at: usize| unsafe { from.add(at).read_volatile() };
            // SAFETY: every processor of 64 bits has these registers.
            let piece = |low, high| unsafe { _mm_set_epi64x(high, low) };
            let (pieces, words) = (len / PIECE_LEN, len / WORD_LEN);
            // A number of turns that the compiler knows, so that there is no loop.
            for at in (0..LEN_MAX / PIECE_LEN).take_while(|at| *at < pieces) {
                self.0[at].write(piece(word(2 * at), word(2 * at + 1)));
            }
            if words > 2 * pieces {
                self.0[pieces].write(piece(word(2 * pieces), 0));
            }
            // What is not known to be here is not addressed piece by piece, ahead of time.
            let start = black_box(self.0.as_ptr()).cast();
            // SAFETY: so many bytes were written just now.
            unsafe { std::slice::from_raw_parts(start, len) }
        }
    }

    /// Copies in the pieces in which a stage was stored, if the bytes are such. `false`: nothing was copied.
    ///
    /// # Safety
    ///
    /// As many bytes at `to` are the caller's to write, and do not overlap `bytes`.
    #[inline(always)]
    pub unsafe fn copy_staged(bytes: &[u8], to: *mut u8) -> bool {
        let len = bytes.len();
        let from = bytes.as_ptr();
        if len > LEN_MAX
            || !len.is_multiple_of(WORD_LEN)
            || !from.cast::<__m128i>().is_aligned()
            || !to.cast::<__m128i>().is_aligned()
        {
            return false;
        }
        // SAFETY: inside of both, and aligned. Volatile, lest it all becomes a call of `memcpy`, whose loads
        // are larger.
        unsafe {
            let (from, to) = (from.cast::<__m128i>(), to.cast::<__m128i>());
            // A number of turns that the compiler knows, so that there is no loop.
            for at in (0..LEN_MAX / PIECE_LEN).take_while(|at| (at + 1) * PIECE_LEN <= len) {
                to.add(at).write(from.add(at).read_volatile());
            }
            if !len.is_multiple_of(PIECE_LEN) {
                let last = len / WORD_LEN - 1;
                let word = from.cast::<i64>().add(last).read_volatile();
                to.cast::<i64>().add(last).write(word);
            }
        }
        true
    }
}

/// What other processors do with such loads was not measured.
#[cfg(not(target_arch = "x86_64"))]
mod inner {
    #[derive(Debug)]
    pub struct Stage;

    impl Stage {
        pub fn new() -> Self {
            Stage
        }

        pub fn copy<'a>(&'a mut self, bytes: &'a [u8]) -> &'a [u8] {
            bytes
        }
    }

    pub unsafe fn copy_staged(_bytes: &[u8], _to: *mut u8) -> bool {
        false
    }
}

pub use inner::*;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn staged_bytes_are_the_same() {
        #[repr(align(16))]
        struct Room([u8; 256]);
        let bytes = Room(std::array::from_fn(|i| i as u8 | 1));
        for len in 0..=200 {
            for (skip, place) in (0..=16).flat_map(|skip| [(skip, 32), (skip, 40), (skip, 33)]) {
                let given = &bytes.0[skip..skip + len];
                let mut stage = Stage::new();
                let staged = stage.copy(given);
                assert_eq!(staged, given);
                let is_staged = !std::ptr::eq(staged, given);
                let is_wanted = cfg!(target_arch = "x86_64") && len % 8 == 0 && skip % 8 == 0;
                assert_eq!(is_staged, is_wanted && (16..=128).contains(&len));
                let mut to = Room([0; 256]);
                // SAFETY: there is room for them.
                let copied = unsafe { copy_staged(staged, to.0[place..].as_mut_ptr()) };
                assert!(copied || !is_staged || place != 32, "{len} at {skip}");
                assert!(!copied || place == 32, "{len} at {skip} to {place}");
                let mut expected = [0; 256];
                if copied {
                    expected[place..place + len].copy_from_slice(given);
                }
                assert_eq!(to.0, expected);
            }
        }
    }
}
