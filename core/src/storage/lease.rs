//! A value that one lessor and any number of leases keep, where giving a lease takes no locked operation, nor
//! does ending it, as long as one thread ends them all.
//!
//! The lessor counts the leases it gives in a cell of its own; each that ends takes 1 from a shared balance.
//! When the lessor ends it adds what it has given, once: from then on the balance is the number of leases
//! that are left. Until then it is 0 minus those that have ended, so the subtraction that leaves 0 comes
//! after the lessor's end, and there is one; if none is left by then, it is the lessor's addition that leaves
//! 0. Whoever leaves 0 is alone with the value.

use crate::planted::planted;
use crate::sync::bias::Bias;
use crate::sync::{AtomicU64, Ordering, Refused, weaken};
use std::cell::Cell;
use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;

/// On lines of its own: every delivery changes the balance.
#[derive(Debug)]
#[repr(align(128))]
struct Shared<T> {
    value: T,
    balance: AtomicU64,
    /// Of the subtractions.
    bias: Bias,
}

/// Gives leases. There is one.
pub struct Lessor<T> {
    shared: NonNull<Shared<T>>,
    given: Cell<u64>,
    /// The process that it is of.
    process: u32,
}

/// Why a value stays when its lessor ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stays {
    /// So many leases are left. The last of them drops it.
    Leased(u64),
    /// For ever: leases may have ended or not, and nobody can know.
    Refused(Refused),
    /// This is a forked child.
    OfParent,
}

/// Keeps the value.
pub struct Lease<T> {
    shared: NonNull<Shared<T>>,
}

// SAFETY: it leads to a `T` that leases in other threads use, and that the last of them drops; the cell goes
// along.
unsafe impl<T: Send + Sync> Send for Lessor<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Send for Lease<T> {}
// SAFETY: all that it gives by reference is `&T`.
unsafe impl<T: Send + Sync> Sync for Lease<T> {}

impl<T> Lessor<T> {
    /// Of a value that nobody else has.
    pub fn new(value: T) -> Self {
        let shared = Box::new(Shared {
            value,
            balance: AtomicU64::new(0),
            bias: Bias::new(),
        });
        Lessor {
            shared: NonNull::from(Box::leak(shared)),
            given: Cell::new(0),
            process: std::process::id(),
        }
    }

    /// One more lease.
    #[inline]
    pub fn lease(&self) -> Lease<T> {
        self.given.set(self.given.get() + 1);
        Lease {
            shared: self.shared,
        }
    }

    /// Gives no more. The value, or why it stays. In a forked child it stays for ever, whatever is left: it
    /// is the parent's, and a thread that was about to end a lease is not there to be waited for.
    pub fn end(self) -> Result<T, Stays> {
        let shared = std::mem::ManuallyDrop::new(self).last_one_out()?;
        Ok(shared.value)
    }

    /// Called once.
    fn last_one_out(&self) -> Result<Box<Shared<T>>, Stays> {
        if self.process != std::process::id() && !planted!("child_closes") {
            return Err(Stays::OfParent);
        }
        let given = self.given.get();
        // SAFETY: nobody drops it before this addition.
        let Shared { balance, bias, .. } = unsafe { self.shared.as_ref() };
        // Nobody is in a subtraction that is not a read-modify-write, nor will be.
        bias.share().map_err(Stays::Refused)?;
        // [O:lessor_end] AcqRel: E17; what leases did is before their subtractions, and what we did before
        // ours.
        let order = weaken!("lessor_end", Ordering::AcqRel);
        let left = balance.fetch_add(given, order).wrapping_add(given);
        if left != 0 {
            return Err(Stays::Leased(left));
        }
        // SAFETY: made by `Box`, and nobody else uses it: no lease is left, and no other was the one that
        // left 0.
        Ok(unsafe { Box::from_raw(self.shared.as_ptr()) })
    }
}

impl<T> Drop for Lessor<T> {
    fn drop(&mut self) {
        drop(self.last_one_out());
    }
}

impl<T> Deref for Lessor<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: nobody drops it before the lessor has ended.
        unsafe { &self.shared.as_ref().value }
    }
}

impl<T> Deref for Lease<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: nobody drops it as long as this lease is counted: before the lessor's end by what it will
        // add, then by the balance.
        unsafe { &self.shared.as_ref().value }
    }
}

impl<T> Drop for Lease<T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: as in `deref`; and if it is the bias that lets us subtract, the lessor waits until we are
        // outside.
        let Shared { balance, bias, .. } = unsafe { self.shared.as_ref() };
        // [O:lease_end] AcqRel: E17; what we did is before whoever leaves 0, and what others did is before us
        // if we do.
        let order = weaken!("lease_end", Ordering::AcqRel);
        // Refused, it counts for ever, and the value stays.
        if bias.add(balance, 1u64.wrapping_neg(), order) == Ok(1) {
            // SAFETY: made by `Box`, and nobody else uses it: the lessor has ended, so it was a
            // read-modify-write, and this was the last lease.
            drop(unsafe { Box::from_raw(self.shared.as_ptr()) });
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Lessor<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lessor").field(&**self).finish()
    }
}

impl<T: fmt::Debug> fmt::Debug for Lease<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lease").field(&**self).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn the_value_goes_with_whoever_is_the_last() {
        for last in 0..3 {
            let value = Arc::new(());
            let lessor = Lessor::new(Arc::clone(&value));
            let (one, two) = (lessor.lease(), lessor.lease());
            drop(lessor.lease());
            match last {
                0 => {
                    drop((one, two));
                    assert_eq!(Arc::strong_count(&value), 2);
                    assert!(lessor.end().is_ok());
                }
                1 => {
                    drop(one);
                    assert_eq!(lessor.end().unwrap_err(), Stays::Leased(1));
                    assert_eq!(Arc::strong_count(&two), 2);
                    drop(two);
                }
                _ => {
                    drop(lessor);
                    drop(two);
                    assert_eq!(Arc::strong_count(&one), 2);
                    drop(one);
                }
            }
            assert_eq!(Arc::strong_count(&value), 1);
        }
    }

    #[test]
    fn in_a_forked_child_it_stays() {
        let value = Arc::new(());
        let mut lessor = Lessor::new(Arc::clone(&value));
        lessor.process += 1;
        drop(lessor);
        assert_eq!(Arc::strong_count(&value), 2);
    }
}
