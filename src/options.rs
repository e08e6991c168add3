//! What can be chosen.

use std::time::Duration;
use walchan_core::commit::Mode;

/// What a returned `send` promises.
///
/// The process may be killed at any time in every mode: what was sent stays. The modes differ in what a
/// power cut or a crash of the kernel may take.
///
/// ```
/// use std::time::Duration;
/// use walchan::Durability;
///
/// assert_eq!(Durability::default(), Durability::SyncPerSend);
/// // At most a thousand messages, or those of the last five milliseconds, are lost in a power cut.
/// let relaxed = Durability::SyncEvery { max_ops: 1000, max_delay: Duration::from_millis(5) };
/// # assert_ne!(relaxed, Durability::FlushOnly);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Each send returns when its message is on stable storage. Sends of several threads share syncs.
    #[default]
    SyncPerSend,
    /// Sends do not wait for the disk, but for one that finds the ring full after an open or a `sync`: what
    /// was durable then is not overwritten before newer progress is durable. A power cut may take any message
    /// since the last [`sync`](crate::Sender::sync), and bring acknowledged ones back.
    FlushOnly,
    /// Sends are synced in the background. A power cut takes at most the last `max_ops` messages, or those
    /// of the last `max_delay` plus the time of one sync.
    SyncEvery {
        /// So many returned sends may be unsynced; the next one waits. 0 is [`Durability::SyncPerSend`].
        max_ops: usize,
        /// A sync begins at the latest so long after the first unsynced send, on an idle channel too. Zero:
        /// at once, without the send waiting for it.
        max_delay: Duration,
    },
}

impl Durability {
    /// The mode that it asks for, as far as this build can give it.
    pub(crate) fn mode(self) -> Mode {
        let mode = match self {
            Durability::FlushOnly => Mode::FlushOnly,
            Durability::SyncPerSend => Mode::PerSend,
            Durability::SyncEvery { max_ops, max_delay } => Mode::Every {
                max_ops: max_ops as u64,
                max_delay,
            },
        };
        mode.supported()
    }

    /// What is in force.
    pub(crate) fn from_mode(mode: Mode) -> Self {
        match mode {
            Mode::PerSend => Durability::SyncPerSend,
            Mode::FlushOnly => Durability::FlushOnly,
            Mode::Every { max_ops, max_delay } => Durability::SyncEvery {
                max_ops: max_ops as usize,
                max_delay,
            },
        }
    }
}

/// How to open a channel.
///
/// ```
/// use walchan::{Durability, Options};
///
/// let options = Options { durability: Durability::FlushOnly, ..Options::default() };
/// assert!(options.truncate_corrupt_tail);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// What a returned `send` promises. May differ from one open to the next.
    pub durability: Durability,
    /// `true`, the default: what a crash left unfinished at the end is stepped over, and reported. `false`:
    /// then the open fails with [`Error::Corrupt`](crate::Error::Corrupt), and changes nothing.
    pub truncate_corrupt_tail: bool,
    /// Bytes of ring, rounded up to a power of two, at least 64 KiB. `None`: that of the file; for a new
    /// file 16 MiB, or for a bounded channel what its bound asks for.
    pub ring_bytes: Option<u64>,
    /// A channel without a bound does not grow beyond so many bytes of all its files together, its ring
    /// included: then a send without room is [`SendErrorKind::Full`](crate::SendErrorKind::Full). `None`: it
    /// grows as long as the disk has room. A bounded channel never grows.
    pub max_bytes: Option<u64>,
    /// A name for the type of the messages, at most 255 bytes, kept in the file. A file that has
    /// another one is not opened. `None` is not checked.
    pub schema: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            durability: Durability::default(),
            truncate_corrupt_tail: true,
            ring_bytes: None,
            max_bytes: None,
            schema: None,
        }
    }
}

/// When acknowledgements give their space back, and become durable.
///
/// An acknowledgement survives the death of the process at once, whatever these say. Under
/// [`Durability::FlushOnly`] nothing else is promised, so `commit_every` has no effect there: the head moves
/// when a sender needs room, when a quarter of the ring has been acknowledged, and by `commit_max_delay` (in
/// memory: what it writes down it writes with a quarter).
///
/// ```
/// use std::time::Duration;
/// use walchan::ReceiverOptions;
///
/// # let dir = tempfile::tempdir()?;
/// # let (_tx, rx) = walchan::channel::<u64>(dir.path().join("queue"))?;
/// let rx = rx.with_options(ReceiverOptions { commit_every: 64, commit_max_delay: Duration::ZERO });
/// # Ok::<(), walchan::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiverOptions {
    /// The head moves after so many acknowledgements, and at once when a sender finds no room. 0 is 1, the
    /// default.
    pub commit_every: usize,
    /// It moves at the latest so long after an acknowledgement. Zero, the default, is off.
    pub commit_max_delay: Duration,
}

impl Default for ReceiverOptions {
    fn default() -> Self {
        ReceiverOptions {
            commit_every: 1,
            commit_max_delay: Duration::ZERO,
        }
    }
}
