//! Leases: who keeps the channel open.

#![cfg(loom)]
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_types)] // counts, out of loom's sight

use loom::cell::UnsafeCell;
use loom_tests::{Arc, Lessor, model, thread};
use std::sync::atomic::{AtomicU64, Ordering};

/// Used by reading, dropped by writing: a drop that a use does not happen before is a race that loom sees.
#[derive(Debug)]
struct Watched {
    used: UnsafeCell<()>,
    dropped: Arc<AtomicU64>,
}

impl Watched {
    fn look(&self) {
        self.used.with(|_| ());
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.used.with_mut(|_| ());
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

// Threads: two holders of leases, and the lessor, who ends beside them. Each uses the value until then. The
// value must be there for each, and must be dropped once, behind all uses.
#[test]
fn what_is_leased_goes_once_and_with_the_last() {
    model(
        "what_is_leased_goes_once_and_with_the_last",
        "two leases end beside their lessor: the value goes once, behind all uses",
        || {
            let dropped = Arc::new(AtomicU64::new(0));
            let lessor = Lessor::new(Watched {
                used: UnsafeCell::new(()),
                dropped: Arc::clone(&dropped),
            });
            let leases = [lessor.lease(), lessor.lease()];
            let threads = leases.map(|lease| thread::spawn(move || lease.look()));
            lessor.look();
            drop(lessor.end());
            for thread in threads {
                thread.join().unwrap();
            }
            assert_eq!(dropped.load(Ordering::Relaxed), 1);
        },
    );
}
