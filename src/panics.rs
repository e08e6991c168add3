//! What a panic of a user's code leaves behind, where it is caught.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use walchan_core::planted::planted;

/// The text of a caught panic, empty if it has none. Whatever the panic carried is gone then, and no panic
/// comes out of that.
#[cold]
pub(crate) fn text_of(panic: Box<dyn Any + Send>) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    discard(panic);
    text
}

/// Drops what a panic carried: a value of the user's, whose drop may panic, too.
fn discard(panic: Box<dyn Any + Send>) {
    if planted!("panic_dropped_as_it_is") {
        return drop(panic);
    }
    let caught = catch_unwind(AssertUnwindSafe(|| drop(panic)));
    if let Err(another) = caught {
        // Its drop may panic as the first one's did, and so on for ever: it stays in memory.
        std::mem::forget(another);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::resume_unwind;

    struct Endless;

    impl Drop for Endless {
        fn drop(&mut self) {
            resume_unwind(Box::new(Endless));
        }
    }

    #[test]
    fn no_panic_comes_out_of_what_a_panic_carried() {
        assert_eq!(text_of(Box::new("text")), "text");
        assert_eq!(text_of(Box::new("text".to_owned())), "text");
        assert_eq!(text_of(Box::new(Endless)), "");
    }
}
