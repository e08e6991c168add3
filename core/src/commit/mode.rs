//! What a send promises, how long it waits, and why it fails.

use std::io;
use std::time::{Duration, Instant};

/// When sends are synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Each send is synced before it returns; sends of several threads share syncs.
    PerSend,
    /// Nothing is synced but what is asked for.
    FlushOnly,
    /// At most `max_ops` returned sends are not covered by a completed sync; at least 1.
    Every {
        /// Returned sends that no completed sync covers, at most.
        max_ops: u64,
        /// A sync begins at the latest so long after the first of these.
        max_delay: Duration,
    },
}

impl Mode {
    /// As far as this build can give it: without the feature `fsync` there are no syncs.
    #[must_use]
    pub fn supported(self) -> Self {
        match self {
            _ if !cfg!(feature = "fsync") => Mode::FlushOnly,
            Mode::Every { max_ops: 0, .. } => Mode::PerSend,
            mode => mode,
        }
    }
}

/// How long a send waits for room.
#[derive(Clone, Copy, Debug)]
pub enum Wait {
    /// Not at all.
    No,
    /// `None`: for ever.
    Until(Option<Instant>),
}

/// Why a send did not return `Ok`.
#[derive(Debug)]
pub enum SendFailure {
    /// No room, within the time allowed.
    Full,
    /// The receiver is gone. The message is not in the channel.
    Disconnected,
    /// It can never fit.
    TooLarge {
        /// Bytes of the payload.
        len: u64,
        /// Bytes that fit.
        max: u64,
    },
    /// The message is not in the channel.
    Io(io::Error),
    /// It may be.
    Unsynced(io::Error),
    /// The file is sealed: send into the next one. It is not in the channel.
    Sealed,
}
