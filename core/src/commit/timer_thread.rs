//! The channel's timer thread: it makes the syncs and commits that are due although nobody calls.
//!
//! It sleeps until a flag is set, then until the flag's time has come. The thread owns no handle: it keeps no
//! channel open.

use super::mode::Mode;
use super::shared::Shared;
use super::timer::{HURRY, PROGRESS, SENT, STOP};
use crate::planted::planted;
use crate::sync::pacing::progress_grace;
use std::io;
use std::time::{Duration, Instant};

/// When which flags are due.
#[derive(Default)]
struct Due {
    sent: Option<Instant>,
    progress: Option<Instant>,
    /// Rounds begun when `progress` was set.
    rounds: u64,
}

impl Due {
    fn next(&self) -> Option<Instant> {
        match (self.sent, self.progress) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (one, other) => one.or(other),
        }
    }
}

/// A time from now; `None` if it cannot be represented, which means never.
fn after(delay: Duration) -> Option<Instant> {
    Instant::now().checked_add(delay)
}

/// The body of the thread. `fire` does what the flags ask for.
pub fn run(shared: &Shared, fire: impl Fn(u32) -> io::Result<()>) {
    let max_delay = match shared.mode() {
        Mode::Every { max_delay, .. } => max_delay,
        Mode::PerSend | Mode::FlushOnly => Duration::ZERO,
    };
    let timer = &shared.timer;
    let mut known = 0;
    let mut due = Due::default();
    loop {
        let flags = timer.event().wait(due.next(), || {
            let flags = timer.flags();
            (flags & !known != 0).then_some(flags)
        });
        let flags = flags.unwrap_or_else(|| timer.flags());
        if flags & STOP != 0 {
            return;
        }
        let news = flags & !known;
        known = flags;
        if news & SENT != 0 {
            due.sent = after(max_delay);
        }
        if news & PROGRESS != 0 {
            due.progress = after(timer.commit_delay().unwrap_or(progress_grace()));
            due.rounds = shared.rounds();
        }
        let now = Instant::now();
        let mut ripe = 0;
        if flags & HURRY != 0 || due.sent.is_some_and(|at| at <= now) {
            ripe |= SENT | HURRY;
            due.sent = None;
        }
        if due.progress.is_some_and(|at| at <= now) {
            if timer.commit_delay().is_none() && shared.rounds() != due.rounds {
                // Senders sync anyway, which takes acknowledgements along, and tells the commit: give them
                // another while.
                due.progress = after(progress_grace());
                due.rounds = shared.rounds();
            } else {
                ripe |= PROGRESS;
                due.progress = None;
            }
        }
        if ripe != 0 && !planted!("timer_never_fires") {
            let taken = timer.take(ripe);
            known &= !ripe;
            if fire(taken).is_err() {
                // The log is poisoned, and everyone who waits knows. There is nothing left to do.
                timer
                    .event()
                    .wait(None, || (timer.flags() & STOP != 0).then_some(()));
                return;
            }
        }
    }
}
