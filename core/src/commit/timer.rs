//! What the channel's timer thread is asked to do: syncs and commits that are due although nobody calls.

use super::flags::Flags;
use crate::sync::{AtomicU64, Ordering};
use std::ops::Deref;
use std::time::Duration;

/// Something was sent that no sync covers yet.
pub const SENT: u32 = 1;
/// The head or the commit moved.
pub const PROGRESS: u32 = 2;
/// Do not wait for the time.
pub const HURRY: u32 = 4;
/// The channel closes.
pub const STOP: u32 = 8;

/// The flags of the timer thread, and its delay.
#[derive(Debug)]
pub struct Timer {
    flags: Flags,
    /// `commit_max_delay` in nanoseconds; 0 is off.
    commit_delay_ns: AtomicU64,
}

impl Deref for Timer {
    type Target = Flags;

    fn deref(&self) -> &Flags {
        &self.flags
    }
}

impl Timer {
    /// No flag is set, and there is no delay.
    pub fn new() -> Self {
        Timer {
            flags: Flags::new(),
            commit_delay_ns: AtomicU64::new(0),
        }
    }

    /// The head moves at the latest so long after an acknowledgement; zero is off.
    pub fn set_commit_delay(&self, delay: Duration) {
        let ns = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        // [O:settings] Relaxed: a setting; no data hangs on it.
        self.commit_delay_ns.store(ns, Ordering::Relaxed);
    }

    /// That delay; `None` if it is off.
    pub fn commit_delay(&self) -> Option<Duration> {
        // [O:settings] Relaxed: a setting; no data hangs on it.
        match self.commit_delay_ns.load(Ordering::Relaxed) {
            0 => None,
            ns => Some(Duration::from_nanos(ns)),
        }
    }

    /// Sets flags, if there is a delay that they could start.
    pub fn flag_if_delayed(&self, flags: u32) {
        if self.commit_delay().is_some() {
            self.flag(flags);
        }
    }
}
