//! How a channel grows: in sizes.

use crate::format::HEADER_LEN;
use crate::ring::Layout;

/// How a channel grows.
#[derive(Clone, Copy, Debug)]
pub struct Growth {
    /// Bytes of the ring.
    pub ring_capacity: u64,
    /// Bytes of the smallest segment; a power of two.
    pub capacity_min: u64,
    /// Bytes of the largest segment; a power of two. A larger message gets a larger one.
    pub capacity_max: u64,
    /// All files together are not larger; `None`: no limit.
    pub bytes_max: Option<u64>,
}

impl Growth {
    /// The housekeeper is notified when less than so many bytes are left in a file: in time to make the next
    /// one, but for the ring not before it is likely to be needed.
    pub(super) fn ahead(&self, layout: &Layout) -> u64 {
        if layout.once {
            layout.capacity / 4 * 3
        } else {
            layout.capacity / 4
        }
    }

    /// The largest capacity that ever fits beside the ring.
    pub(super) fn capacity_limit(&self) -> u64 {
        let Some(max) = self.bytes_max else {
            return u64::MAX;
        };
        let left = max.saturating_sub(2 * HEADER_LEN + self.ring_capacity);
        if left < self.capacity_min {
            return 0;
        }
        1 << left.ilog2()
    }

    /// Capacity of the next file, behind one of `before` bytes (0: the ring), for a frame, if `left` bytes
    /// may be used.
    pub(super) fn capacity(&self, before: u64, frame_len: u64, left: u64) -> Option<u64> {
        let grown = (before * 2).clamp(self.capacity_min, self.capacity_max);
        // Twice the frame: others may come first.
        let wanted = grown.max((frame_len * 2).next_power_of_two());
        let room = left.checked_sub(HEADER_LEN)?;
        let fits = 1u64.checked_shl(room.checked_ilog2()?)?;
        let capacity = wanted.min(fits);
        (capacity >= self.capacity_min.max(frame_len)).then_some(capacity)
    }
}
