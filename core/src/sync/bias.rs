//! What one thread does alone, without locked operations, until another one does it, too: then all do it with
//! them.
//!
//! The first thread that comes has the bias: it goes in and out by plain stores, and is alone while it is
//! inside. The first other one takes the bias away, for ever, and waits until nobody is inside; from then on
//! everybody uses read-modify-writes. To go in is Dekker's mutual exclusion, whose fence only one side pays
//! for (E18 in `docs/protocol.md`); where the kernel cannot help with that, nobody has the bias.
//!
//! Sources: Kawachiya, Koseki, Onodera, "Lock Reservation: Java Locks Can Mostly Do Without Atomic
//! Operations" (OOPSLA 2002); Dice, Huang, Yang, "Asymmetric Dekker Synchronization" (2001).

use super::{
    AtomicU64, Fences, Ordering, Refused, known_thread_number, thread_number, wait_turn, weaken,
    weaken_fence,
};

/// Threads have the numbers below.
const NOBODY: u64 = u64::MAX - 2;
const ENDING: u64 = u64::MAX - 1;
const SHARED: u64 = u64::MAX;

/// See the module.
#[derive(Debug)]
pub struct Bias {
    /// The number of the thread that has it, or one of the above: each later one than the one before.
    owner: AtomicU64,
    /// 1 or 0; written by that thread only.
    inside: AtomicU64,
}

/// Nobody else is here, nor uses the read-modify-writes, until this is dropped.
#[derive(Debug)]
pub struct Exclusive<'a> {
    bias: &'a Bias,
}

impl Drop for Exclusive<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // [O:bias_leave] Release: E18, pairs with [O:bias_inside]; what was done inside is before it.
        let leave = weaken!("bias_leave", Ordering::Release);
        self.bias.inside.store(0, leave);
    }
}

impl Bias {
    /// Nobody has it yet.
    pub fn new() -> Self {
        // Where the fence would be a whole one it costs what a locked operation does.
        let owner = match Fences::asymmetric() {
            Fences::Asymmetric => NOBODY,
            Fences::Symmetric => SHARED,
        };
        Bias {
            owner: AtomicU64::new(owner),
            inside: AtomicU64::new(0),
        }
    }

    #[inline(always)]
    fn owner(&self) -> u64 {
        // [O:bias_owner] Acquire: E18, pairs with [O:bias_shared]; what was done inside is before.
        self.owner.load(weaken!("bias_owner", Ordering::Acquire))
    }

    /// Whether it has ended.
    pub fn is_shared(&self) -> bool {
        self.owner() == SHARED
    }

    /// `None`: others may be here, by read-modify-writes. Not called by a thread that is inside.
    ///
    /// # Errors
    ///
    /// As [`Bias::share`]: this thread may not be here.
    #[inline(always)]
    pub fn enter(&self) -> Result<Option<Exclusive<'_>>, Refused> {
        let owner = self.owner();
        match known_thread_number() {
            me if me == owner => Ok(self.go_in(me)),
            _ if owner == SHARED => Ok(None),
            _ => self.enter_otherwise(),
        }
    }

    /// Only if this thread has the bias.
    #[inline(always)]
    pub fn enter_again(&self) -> Option<Exclusive<'_>> {
        let me = known_thread_number();
        (me == self.owner()).then(|| self.go_in(me))?
    }

    #[cold]
    fn enter_otherwise(&self) -> Result<Option<Exclusive<'_>>, Refused> {
        let me = thread_number();
        // What could not be ended is not begun.
        if Fences::asymmetric() == Fences::Symmetric || !self.is_first(me) {
            self.share()?;
            return Ok(None);
        }
        Ok(self.go_in(me))
    }

    #[inline(always)]
    fn go_in(&self, me: u64) -> Option<Exclusive<'_>> {
        // [O:bias_enter] Relaxed: the fence orders it, and what follows.
        self.inside.store(1, Ordering::Relaxed);
        let alone = Exclusive { bias: self };
        // [O:bias_fence] SeqCst: E18, pairs with [O:bias_share_fence]; going in before it, the look behind.
        weaken_fence!("bias_fence", Fences::Asymmetric.light());
        // [O:bias_look] Relaxed: the fences order it.
        (self.owner.load(Ordering::Relaxed) == me).then_some(alone)
    }

    fn is_first(&self, me: u64) -> bool {
        // [O:bias_take] Relaxed, both: whoever comes first; there is nothing before it.
        self.owner
            .compare_exchange(NOBODY, me, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    /// Takes the bias away, and waits until nobody is inside: for a few instructions of another thread, and
    /// for a processor on which it can go on.
    ///
    /// # Errors
    ///
    /// The fence was refused. Another thread may be inside, now and later, and nobody can know: whoever gets
    /// this error must not touch what the bias guards.
    #[cold]
    pub fn share(&self) -> Result<(), Refused> {
        let mut owner = self.owner();
        while owner < ENDING {
            // Nobody is inside if nobody else can be.
            let is_ours = owner == NOBODY || owner == thread_number();
            let next = if is_ours { SHARED } else { ENDING };
            // [O:bias_end] Release, on success: E18, pairs with [O:bias_owner]: if it is shared now, what we
            // did inside is before.
            let end = weaken!("bias_end", Ordering::Release);
            // [O:bias_owner] Acquire, on failure: as in `enter`.
            let found = weaken!("bias_owner", Ordering::Acquire);
            match self.owner.compare_exchange_weak(owner, next, end, found) {
                Ok(_) => owner = next,
                Err(now) => owner = now,
            }
        }
        if owner == SHARED {
            return Ok(());
        }
        // [O:bias_share_fence] SeqCst: E18, pairs with [O:bias_fence]; the end of the bias before it, the
        // look inside behind.
        let fence = weaken_fence!("bias_share_fence", Fences::Asymmetric.heavy());
        if fence.is_refused() {
            // Another thread may have had its fence before.
            return self.is_shared().then_some(()).ok_or(Refused);
        }
        let mut looks = 0;
        // [O:bias_inside] Acquire: E18, pairs with [O:bias_leave].
        while self.inside.load(weaken!("bias_inside", Ordering::Acquire)) != 0 {
            wait_turn(looks);
            looks += 1;
        }
        // [O:bias_shared] Release: E18, pairs with [O:bias_owner]; hands on what the wait has seen.
        let shared = weaken!("bias_shared", Ordering::Release);
        self.owner.store(SHARED, shared);
        Ok(())
    }

    /// Adds to a number that is only changed in this way, or behind [`Bias::share`]. Wraps. Returns what it
    /// was.
    ///
    /// # Errors
    ///
    /// As [`Bias::share`]: nothing was added.
    #[inline(always)]
    pub fn add(&self, number: &AtomicU64, more: u64, order: Ordering) -> Result<u64, Refused> {
        match self.enter() {
            Ok(Some(alone)) => Ok(alone.add(number, more, order)),
            // [O:forwarded] The order is the caller's.
            Ok(None) => Ok(number.fetch_add(more, order)),
            Err(refused) => Err(refused),
        }
    }
}

impl Exclusive<'_> {
    /// As [`Bias::add`].
    #[inline(always)]
    pub fn add(self, number: &AtomicU64, more: u64, order: Ordering) -> u64 {
        // [O:bias_number] Relaxed: only we change it now.
        let before = number.load(Ordering::Relaxed);
        // [O:none] As far as a store has the caller's order.
        let order = match order {
            Ordering::AcqRel => Ordering::Release,
            order => order,
        };
        // [O:forwarded] The order is the caller's.
        number.store(before.wrapping_add(more), order);
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_addition_is_lost_where_a_bias_ends() {
        for _ in 0..300 {
            let (bias, number) = (Bias::new(), AtomicU64::new(0));
            let add = || {
                for _ in 0..1000 {
                    bias.add(&number, 1, Ordering::Relaxed).unwrap();
                }
            };
            std::thread::scope(|scope| {
                let threads = [(); 3].map(|()| scope.spawn(add));
                for thread in threads {
                    thread.join().unwrap();
                }
            });
            assert_eq!(number.into_inner(), 3000);
        }
    }

    #[test]
    fn one_thread_keeps_it() {
        let bias = Bias::new();
        let has_any = Fences::asymmetric() == Fences::Asymmetric;
        for _ in 0..3 {
            assert_eq!(bias.enter().unwrap().is_some(), has_any);
        }
        std::thread::scope(|scope| {
            let other = scope.spawn(|| assert!(bias.enter().unwrap().is_none()));
            other.join().unwrap();
        });
        assert!(bias.enter().unwrap().is_none());
    }
}
