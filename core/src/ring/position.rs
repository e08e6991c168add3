//! Positions, offsets, words. Pure.

use crate::format::frame::{FRAME_ALIGN, FRAME_HEADER_LEN};
use crate::format::identity::Identity;
use crate::planted::planted;
use crate::storage::WORD_LEN;

/// Where things lie in a memory, in words; run-time values, so that a model can be small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// First words of the two checkpoint pages.
    pub checkpoints: [u64; 2],
    /// First word of the ring.
    pub ring: u64,
    /// Bytes of the ring: a power of two.
    pub capacity: u64,
    /// Filled once, from offset 0: a segment.
    pub once: bool,
    /// Messages may tell the commit.
    pub has_commit_markers: bool,
}

impl Layout {
    /// That of a file.
    pub fn of(identity: &Identity) -> Self {
        Layout {
            once: identity.number > 0,
            has_commit_markers: identity.has_commit_markers(),
            ..Layout::of_ring(identity.capacity)
        }
    }

    /// The layout of a ring of the newest version.
    pub fn of_ring(capacity: u64) -> Self {
        Layout {
            checkpoints: crate::format::CHECKPOINT_OFFSETS.map(|offset| offset / WORD_LEN),
            ring: crate::format::HEADER_LEN / WORD_LEN,
            capacity,
            once: false,
            has_commit_markers: true,
        }
    }

    /// The word at which the frame at `position` begins.
    #[inline]
    pub fn word(&self, position: u64) -> u64 {
        self.ring + (position & (self.capacity - 1)) / WORD_LEN
    }

    /// Whether a frame of so many bytes at `word` ends before the ring does.
    #[inline]
    pub fn holds(&self, word: u64, frame_len: u64) -> bool {
        (word - self.ring) * WORD_LEN + frame_len <= self.capacity
    }

    /// Bytes from `position` to the end of the ring.
    #[inline]
    pub fn bytes_to_end(&self, position: u64) -> u64 {
        self.capacity - (position & (self.capacity - 1))
    }

    /// Bytes of padding that a frame of `frame_len` bytes at `position` needs before it.
    #[inline]
    pub fn padding(&self, position: u64, frame_len: u64) -> u64 {
        let to_end = self.bytes_to_end(position);
        let fits = planted!(
            "padding_too_late",
            frame_len <= to_end + FRAME_ALIGN,
            frame_len <= to_end
        );
        if fits { 0 } else { to_end }
    }

    /// The largest frame: a larger one could wait for ever on an empty ring, at the wrong offset.
    pub fn frame_len_max(&self) -> u64 {
        if self.once {
            return self.capacity;
        }
        let half = self.capacity / 2;
        planted!(
            "frame_limit_too_large",
            half + FRAME_ALIGN,
            half - FRAME_ALIGN
        )
    }

    /// The largest payload.
    pub fn payload_len_max(&self) -> u64 {
        (self.frame_len_max() - FRAME_HEADER_LEN).min(crate::format::frame::PAYLOAD_LEN_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_holds_what_ends_in_it() {
        let layout = Layout::of_ring(1 << 12);
        for position in (0..3 * layout.capacity).step_by(16) {
            let to_end = layout.bytes_to_end(position);
            for frame_len in [16, to_end.saturating_sub(16), to_end, to_end + 16, 1 << 30] {
                let holds = layout.holds(layout.word(position), frame_len);
                assert_eq!(holds, frame_len <= to_end, "{frame_len} at {position}");
            }
        }
    }

    #[test]
    fn the_largest_frame_fits_an_empty_ring_at_every_offset() {
        let layout = Layout {
            checkpoints: [0, 8],
            ring: 16,
            capacity: 1 << 16,
            once: false,
            has_commit_markers: true,
        };
        for position in (0..2 * layout.capacity).step_by(16) {
            let frame_len = layout.frame_len_max();
            let padding = layout.padding(position, frame_len);
            assert!(padding + frame_len <= layout.capacity, "at {position}");
            assert!(
                layout.bytes_to_end(position + padding) >= frame_len,
                "at {position}"
            );
        }
    }
}
