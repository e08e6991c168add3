//! Tells the consumer how many messages are there, for libraries that cannot wait for one.

use std::sync::mpsc::{Receiver, Sender};

/// As many messages as a consumer takes at a time, where it may choose.
pub const BATCH: usize = 64;

/// Rung once for each message. A channel in memory, whose cost is small beside that of any file.
pub fn bell() -> (Sender<()>, Waiter) {
    let (tx, rings) = std::sync::mpsc::channel();
    (tx, Waiter { rings })
}

pub struct Waiter {
    rings: Receiver<()>,
}

impl Waiter {
    /// Waits for one message, and counts those that are there besides, up to a batch. 0 when no producer is
    /// left.
    pub fn wait(&self) -> usize {
        match self.rings.recv() {
            Ok(()) => 1 + self.rings.try_iter().take(BATCH - 1).count(),
            Err(_) => 0,
        }
    }
}
