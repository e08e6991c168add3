//! The bias: who may do without locked operations, until when.

#![cfg(loom)]
#![allow(clippy::unwrap_used)]
#![allow(clippy::arc_with_non_send_sync)] // the threads of a model take turns

use loom::cell::UnsafeCell;
use loom_tests::{Arc, Bias, model, thread};

/// What is only touched by whoever is alone, or behind the end of the bias.
#[derive(Debug)]
struct Guarded {
    bias: Bias,
    cell: UnsafeCell<()>,
}

impl Guarded {
    fn new() -> Arc<Self> {
        Arc::new(Guarded {
            bias: Bias::default(),
            cell: UnsafeCell::new(()),
        })
    }

    /// The calling thread has the bias.
    fn taken() -> Arc<Self> {
        let guarded = Guarded::new();
        assert!(guarded.bias.alone(|| ()));
        guarded
    }

    fn write(&self) {
        self.cell.with_mut(|_| ());
    }

    fn spawn(self: &Arc<Self>, body: impl FnOnce(&Self) + 'static) -> thread::JoinHandle<()> {
        let guarded = Arc::clone(self);
        thread::spawn(move || body(&guarded))
    }

    /// A thread that reads if it finds the bias ended, and waits for nobody.
    fn spawn_finder(self: &Arc<Self>) -> thread::JoinHandle<()> {
        self.spawn(|guarded| {
            if guarded.bias.is_shared() {
                guarded.cell.with(|_| ());
            }
        })
    }
}

// Threads: the one that has the bias, which goes in twice, and one that takes it away and then does the same
// without. Neither may be there while the other is, nor without having seen what it did.
#[test]
fn nobody_else_is_there_with_the_bias() {
    model(
        "nobody_else_is_there_with_the_bias",
        "a bias is taken away: whoever was alone is outside by then, and all it did is seen",
        || {
            let guarded = Guarded::taken();
            let other = guarded.spawn(|guarded| {
                guarded.bias.share();
                guarded.write();
            });
            guarded.bias.alone(|| guarded.write());
            guarded.bias.alone_again(|| guarded.write());
            other.join().unwrap();
            assert!(!guarded.bias.alone(|| ()));
            assert!(!guarded.bias.alone_again(|| ()));
        },
    );
}

// Threads: the one that has the bias, one that takes it away, and one that may find that. What was done
// inside must be seen by the last one, which waited for nobody.
#[test]
fn the_end_of_a_bias_hands_on_what_was_done() {
    model(
        "the_end_of_a_bias_hands_on_what_was_done",
        "a thread finds a bias ended by another one: it sees what was done before",
        || {
            let guarded = Guarded::taken();
            let ends = guarded.spawn(|guarded| guarded.bias.share());
            let finds = guarded.spawn_finder();
            guarded.bias.alone(|| guarded.write());
            ends.join().unwrap();
            finds.join().unwrap();
        },
    );
}

// Threads: two that come first. Either gets the bias, and the other one ends it; they are not there together.
#[test]
fn one_of_two_that_come_first_is_alone() {
    model(
        "one_of_two_that_come_first_is_alone",
        "two threads come to a bias that nobody has: they are not alone at once",
        || {
            let guarded = Guarded::new();
            let other = guarded.spawn(|guarded| {
                guarded.bias.alone(|| guarded.write());
            });
            guarded.bias.alone(|| guarded.write());
            other.join().unwrap();
            assert!(guarded.bias.is_shared());
        },
    );
}

// Threads: the one that has the bias, and ends it itself, and one that may find that, and sees what was done.
#[test]
fn who_ends_its_own_bias_hands_on_what_it_did() {
    model(
        "who_ends_its_own_bias_hands_on_what_it_did",
        "a thread finds a bias ended by the one that had it: it sees what was done before",
        || {
            let guarded = Guarded::taken();
            let finds = guarded.spawn_finder();
            assert!(guarded.bias.alone(|| guarded.write()));
            guarded.bias.share();
            finds.join().unwrap();
        },
    );
}
