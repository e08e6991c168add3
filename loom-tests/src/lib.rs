//! Models of the walchan protocol; see README.md.

#![cfg(loom)]
#![allow(clippy::disallowed_types)] // counts executions, out of loom's sight

mod faces;
mod modelled;

pub use faces::*;
pub use loom::thread;
pub use std::sync::Arc;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Runs the model `name` through every interleaving with at most `LOOM_MAX_PREEMPTIONS` switches that need
/// not be, 2 if that is not set. With `WALCHAN_MODELS_TABLE` it prints its row of the table in the README,
/// `shows` included.
///
/// # Panics
///
/// In the first interleaving in which the model does.
pub fn model(name: &str, shows: &str, body: impl Fn() + Send + Sync + 'static) {
    model_to(2, name, shows, body);
}

/// The same with a bound of its own, where what it is for takes more.
pub fn model_to(
    preemptions: usize,
    name: &str,
    shows: &str,
    body: impl Fn() + Send + Sync + 'static,
) {
    let mut builder = loom::model::Builder::new();
    let bound = *builder.preemption_bound.get_or_insert(preemptions);
    builder.max_branches = builder.max_branches.max(20_000);
    let executions = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&executions);
    let start = Instant::now();
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        body();
    });
    if std::env::var_os("WALCHAN_MODELS_TABLE").is_some() {
        let executions = executions.load(Ordering::Relaxed);
        let seconds = start.elapsed().as_secs_f64();
        println!("| `{name}` | {shows} | {bound} | {executions} | {seconds:.1} |");
    }
}

/// A channel for the threads of a model.
#[must_use]
pub fn channel(setup: Setup) -> Arc<Channel> {
    Arc::new(Channel::new(setup))
}

/// A channel of several files.
#[must_use]
pub fn chain(setup: ChainSetup) -> Arc<Chain> {
    Arc::new(Chain::new(setup))
}

/// Runs `body` in a thread of the model, with a handle of its own.
pub fn spawn_in<R: 'static>(
    chain: &Arc<Chain>,
    body: impl FnOnce(&Chain) -> R + 'static,
) -> thread::JoinHandle<R> {
    let chain = Arc::clone(chain);
    thread::spawn(move || body(&chain))
}

/// The message that must have been received.
///
/// # Panics
///
/// If it was something else.
#[allow(clippy::must_use_candidate)]
pub fn message(received: Received) -> (u64, Vec<u8>) {
    match received {
        Received::Message {
            position, payload, ..
        } => (position, payload),
        other => panic!("{other:?} instead of a message"),
    }
}

/// Runs `body` in a thread of the model.
pub fn spawn<R: 'static>(
    channel: &Arc<Channel>,
    body: impl FnOnce(&Channel) -> R + 'static,
) -> thread::JoinHandle<R> {
    let channel = Arc::clone(channel);
    thread::spawn(move || body(&channel))
}
