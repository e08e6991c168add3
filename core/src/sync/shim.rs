//! The concurrency primitives, once from std and parking_lot, and once from loom.
//!
//! The only file that names either. Everything above uses these types, so that under `cfg(loom)` the model
//! checker sees every shared access.

#![allow(clippy::disallowed_types)] // the one place that is allowed to name them

pub use inner::*;
use inner::{fence_heavy, fence_light, fence_whole, has_membarrier};
use std::io;
use std::time::Duration;

/// Keeps a value on cache lines of its own: 128 bytes, because the adjacent-line
/// prefetcher of x86 pulls lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct CachePadded<T>(pub T);

impl<T> std::ops::Deref for CachePadded<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// `weaken!("name", order)`: the ordering, or Relaxed while the model run plants that fault.
macro_rules! weaken {
    ($name:literal, $order:expr) => {
        if $crate::sync::sabotaged($name) {
            // [O:none] The planted fault.
            $crate::sync::Ordering::Relaxed
        } else {
            $order
        }
    };
}
pub(crate) use weaken;

/// `weaken_fence!("name", fence)`: one of a pair of sequentially consistent fences, absent while that fault
/// is planted. Its value is that of the fence: nothing, or what came of a heavy one.
macro_rules! weaken_fence {
    ($name:literal, $fence:expr) => {
        if $crate::sync::sabotaged($name) {
            Default::default()
        } else {
            $fence
        }
    };
}
pub(crate) use weaken_fence;

/// How two sequentially consistent fences share their cost. One side stores, fences, and looks for a sleeper;
/// the other announces that it will sleep, fences, and looks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fences {
    /// Both are whole.
    Symmetric,
    /// The frequent one only stops the compiler, and the rare one makes every thread of the process that runs
    /// execute a whole one (`membarrier`). Two frequent ones order nothing between them.
    Asymmetric,
}

/// What came of a heavy fence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub enum Heavy {
    /// It was made.
    #[default]
    Made,
    /// The kernel refused it, which had granted it before. Nothing is ordered with the light fences of
    /// others.
    Refused,
}

impl Heavy {
    /// Whether it was not made.
    pub fn is_refused(self) -> bool {
        self == Heavy::Refused
    }
}

/// What needs a heavy fence cannot be done any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

impl From<Refused> for io::Error {
    fn from(_: Refused) -> Self {
        let text = "the system refuses membarrier, which it granted when the channel was opened";
        io::Error::new(io::ErrorKind::PermissionDenied, text)
    }
}

/// Whoever had to make a heavy fence, and could not, looks again after so long: what others had stored by
/// then is seen, with or without a fence.
pub const NAP: Duration = Duration::from_millis(2);

impl Fences {
    /// `Asymmetric` where the kernel can do that; until a heavy fence is refused. Then never again.
    pub fn asymmetric() -> Fences {
        match has_membarrier() {
            true => Fences::Asymmetric,
            false => Fences::Symmetric,
        }
    }

    /// The same, after a try whether it still can.
    pub fn asymmetric_tried() -> Fences {
        match Fences::asymmetric() {
            Fences::Asymmetric if fence_heavy().is_refused() => Fences::Symmetric,
            fences => fences,
        }
    }

    /// The side that does it often.
    #[inline(always)]
    pub fn light(self) {
        match self {
            Fences::Symmetric => fence_whole(),
            Fences::Asymmetric => fence_light(),
        }
    }

    /// The side that does it rarely.
    #[inline]
    pub fn heavy(self) -> Heavy {
        match self {
            Fences::Symmetric => {
                fence_whole();
                Heavy::Made
            }
            Fences::Asymmetric => fence_heavy(),
        }
    }
}

#[cfg(not(all(loom, feature = "models")))]
mod inner {
    use super::{Heavy, NAP};
    pub use parking_lot::MutexGuard;
    use rustix::io::Errno;
    use rustix::thread::{MembarrierCommand, futex, membarrier};
    use std::cell::Cell;
    pub use std::sync::Arc;
    pub use std::sync::atomic::Ordering;
    use std::sync::atomic::fence;

    // Aliases, so that clippy's ban on the types themselves still holds for everyone else.
    /// An atomic.
    pub type AtomicBool = std::sync::atomic::AtomicBool;
    /// An atomic.
    pub type AtomicU32 = std::sync::atomic::AtomicU32;
    /// An atomic.
    pub type AtomicU64 = std::sync::atomic::AtomicU64;
    use std::time::{Duration, Instant};

    /// A registered process was refused a memory barrier.
    static REFUSED: AtomicBool = AtomicBool::new(false);

    /// Whether this process could register for memory barriers on request, which is asked once, and was
    /// refused none since.
    pub(super) fn has_membarrier() -> bool {
        static REGISTERED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        let register = || membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok();
        // [O:refused] Relaxed: it is set once; whoever misses that takes what is refused later.
        *REGISTERED.get_or_init(register) && !REFUSED.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn fence_whole() {
        // [O:none] The tag is at the use.
        fence(Ordering::SeqCst);
    }

    #[inline]
    pub(super) fn fence_light() {
        // [O:none] The tag is at the use.
        std::sync::atomic::compiler_fence(Ordering::SeqCst);
    }

    /// How often is asked again that was refused, and where the kernel says that it has no memory for an
    /// instant: for half a second or so.
    const ASKED_AGAIN_MAX: u32 = 100;
    const ASKED_FOR_MEMORY_MAX: u32 = 5000;

    #[cold]
    pub(super) fn fence_heavy() -> Heavy {
        fence_whole();
        for look in 0.. {
            // Once registered it fails only for want of memory, unless something else than the kernel
            // decides: the process gave up the right to call it.
            let asked_max = match membarrier(MembarrierCommand::PrivateExpedited) {
                Ok(()) => return Heavy::Made,
                Err(_) if !has_membarrier() => 0,
                Err(Errno::NOMEM) => ASKED_FOR_MEMORY_MAX,
                Err(_) => ASKED_AGAIN_MAX,
            };
            if look >= asked_max {
                break;
            }
            wait_turn(look);
        }
        // [O:refused] Relaxed: as above.
        REFUSED.store(true, Ordering::Relaxed);
        Heavy::Refused
    }

    /// For whoever looks again later.
    pub fn nap() {
        std::thread::sleep(NAP);
    }

    /// No model checker looks.
    pub const IS_MODEL: bool = false;

    /// Lets other threads run.
    pub fn yield_now() {
        std::thread::yield_now();
    }

    thread_local!(static NUMBER: Cell<u64> = const { Cell::new(0) });

    /// A number that no other thread of this process has, or had.
    pub fn thread_number() -> u64 {
        static LAST: AtomicU64 = AtomicU64::new(0);
        if NUMBER.get() == 0 {
            // [O:thread_number] Relaxed: each gets another one; no data hangs on it.
            NUMBER.set(LAST.fetch_add(1, Ordering::Relaxed) + 1);
        }
        NUMBER.get()
    }

    /// The same; 0 if this thread was never asked for it.
    #[inline(always)]
    pub fn known_thread_number() -> u64 {
        NUMBER.get()
    }

    /// Waits for another thread that needs a few instructions, and perhaps a processor: ours, even if it
    /// would not get that before us.
    pub fn wait_turn(look: u32) {
        match look {
            0..64 => std::hint::spin_loop(),
            64..128 => std::thread::yield_now(),
            _ => std::thread::sleep(Duration::from_micros(50)),
        }
    }

    /// Whether the run plants that fault: in models only.
    #[inline(always)]
    pub fn sabotaged(_: &str) -> bool {
        false
    }

    /// So many turns of a spinning processor.
    pub fn pause(turns: u32) {
        for _ in 0..turns {
            std::hint::spin_loop();
        }
    }

    /// A lock without poisoning.
    #[derive(Debug, Default)]
    pub struct Mutex<T>(parking_lot::Mutex<T>);

    impl<T> Mutex<T> {
        /// Unlocked.
        pub fn new(value: T) -> Self {
            Mutex(parking_lot::Mutex::new(value))
        }
        /// Waits for it.
        pub fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock()
        }
        /// Takes it if it is free.
        pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock()
        }
    }

    /// A lock that readers share, without poisoning.
    #[derive(Debug, Default)]
    pub struct RwLock<T>(parking_lot::RwLock<T>);

    impl<T> RwLock<T> {
        /// Unlocked.
        pub fn new(value: T) -> Self {
            RwLock(parking_lot::RwLock::new(value))
        }
        /// Waits for it, shared.
        pub fn read(&self) -> parking_lot::RwLockReadGuard<'_, T> {
            self.0.read()
        }
        /// Waits for it, alone.
        pub fn write(&self) -> parking_lot::RwLockWriteGuard<'_, T> {
            self.0.write()
        }
    }

    /// A number that grows, and that threads sleep on until it does: a futex of the kernel.
    #[derive(Debug)]
    pub struct Generation(AtomicU32);

    impl Generation {
        /// Zero.
        pub fn new() -> Self {
            Generation(AtomicU32::new(0))
        }

        /// The number.
        pub fn load(&self, order: Ordering) -> u32 {
            // [O:forwarded] The order is the caller's.
            self.0.load(order)
        }

        /// Makes it grow, and wakes all who sleep on what it was: one system call, and none of them waits for
        /// another.
        pub fn advance(&self, order: Ordering) {
            // [O:forwarded] The order is the caller's.
            self.0.fetch_add(1, order);
            // The word is mapped, and the operation is one that every kernel knows: there is no error.
            futex::wake(&self.0, futex::Flags::PRIVATE, i32::MAX as u32).ok();
        }

        /// Sleeps while it is `seen`, until `deadline`; perhaps not as long. `true` if the deadline passed.
        pub fn sleep(&self, seen: u32, deadline: Option<Instant>) -> bool {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            // What the kernel cannot tell is long.
            let left = left.and_then(|left| futex::Timespec::try_from(left).ok());
            let woken = futex::wait(&self.0, futex::Flags::PRIVATE, seen, left.as_ref());
            woken == Err(Errno::TIMEDOUT)
        }
    }
}

#[cfg(all(loom, feature = "models"))]
#[allow(missing_docs)] // as above
mod inner {
    use super::Heavy;
    pub use loom::sync::MutexGuard;
    use loom::sync::atomic::fence;
    pub use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
    pub use std::sync::Arc;
    use std::time::Instant;

    /// Spinning would only multiply the interleavings.
    pub const IS_MODEL: bool = true;

    pub fn yield_now() {}

    pub fn thread_number() -> u64 {
        static LAST: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        loom::thread_local! {
            // [O:none] No part of the model: each thread gets another one.
            static NUMBER: u64 = LAST.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        }
        NUMBER.with(|number| *number)
    }

    pub fn known_thread_number() -> u64 {
        thread_number()
    }

    pub fn wait_turn(_look: u32) {
        loom::thread::yield_now();
    }

    pub(super) fn fence_whole() {
        // [O:none] The tag is at the use.
        fence(Ordering::SeqCst);
    }

    pub(super) fn has_membarrier() -> bool {
        true
    }

    /// Whole: a model cannot make another thread execute a fence. So two frequent ones order more here than
    /// they do; no pair of the protocol is one of two.
    pub(super) fn fence_light() {
        fence_whole();
    }

    pub(super) fn fence_heavy() -> Heavy {
        fence_whole();
        Heavy::Made
    }

    /// No model is refused anything.
    pub fn nap() {
        loom::thread::yield_now();
    }

    /// Whether the run plants the fault `name`: the environment variable `WALCHAN_SABOTAGE`.
    pub fn sabotaged(name: &str) -> bool {
        static PLANTED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
        PLANTED
            .get_or_init(|| std::env::var("WALCHAN_SABOTAGE").ok())
            .as_deref()
            == Some(name)
    }

    pub fn pause(_turns: u32) {}

    #[derive(Debug)]
    pub struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub fn new(value: T) -> Self {
            Mutex(loom::sync::Mutex::new(value))
        }
        pub fn lock(&self) -> MutexGuard<'_, T> {
            match self.0.lock() {
                Ok(guard) => guard,
                Err(poisoned) => poisoned.into_inner(),
            }
        }
        pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }
    }

    #[derive(Debug)]
    pub struct RwLock<T>(loom::sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub fn new(value: T) -> Self {
            RwLock(loom::sync::RwLock::new(value))
        }
        pub fn read(&self) -> loom::sync::RwLockReadGuard<'_, T> {
            match self.0.read() {
                Ok(guard) => guard,
                Err(poisoned) => poisoned.into_inner(),
            }
        }
        pub fn write(&self) -> loom::sync::RwLockWriteGuard<'_, T> {
            match self.0.write() {
                Ok(guard) => guard,
                Err(poisoned) => poisoned.into_inner(),
            }
        }
    }

    /// A number that grows, and that threads sleep on until it does: a futex. The kernel compares under a
    /// lock, behind which whoever wakes comes too.
    #[derive(Debug)]
    pub struct Generation {
        number: AtomicU32,
        bucket: Mutex<()>,
        woken: loom::sync::Condvar,
    }

    impl Generation {
        pub fn new() -> Self {
            Generation {
                number: AtomicU32::new(0),
                bucket: Mutex::new(()),
                woken: loom::sync::Condvar::new(),
            }
        }

        pub fn load(&self, order: Ordering) -> u32 {
            // [O:forwarded] The order is the caller's.
            self.number.load(order)
        }

        pub fn advance(&self, order: Ordering) {
            // [O:forwarded] The order is the caller's.
            self.number.fetch_add(1, order);
            let bucket = self.bucket.lock();
            self.woken.notify_all();
            drop(bucket);
        }

        /// Sleeps while it is `seen`. loom has no time, so a deadline never passes: a model of one is a
        /// thread that notifies.
        pub fn sleep(&self, seen: u32, _deadline: Option<Instant>) -> bool {
            let bucket = self.bucket.lock();
            // [O:none] Ordered by the lock, as in the kernel.
            if self.number.load(Ordering::Relaxed) == seen {
                drop(self.woken.wait(bucket));
            }
            false
        }
    }
}
