//! Why a receive gave no message.

use crate::error::same_io;
use crate::undelivered::{Corrupt, Undecodable};
use std::fmt;
use std::io;

/// Why [`recv`](crate::Receiver::recv) gave no message.
///
/// ```no_run
/// use walchan::{Error, Receiver, RecvError};
///
/// fn work(rx: &Receiver<String>) -> Result<(), Error> {
///     loop {
///         match rx.recv() {
///             Ok(job) => println!("{}", *job),
///             Err(RecvError::Disconnected) => return Ok(()),
///             Err(RecvError::Undecodable(message)) => drop(message.set_aside()?),
///             Err(RecvError::Corrupt(place)) => drop(place.set_aside()?),
///             Err(RecvError::Io(error)) => return Err(error.into()),
///             Err(_) => {}
///         }
///     }
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum RecvError {
    /// All senders are gone, and everything they sent was delivered.
    Disconnected,
    /// A message whose bytes are what was sent, and cannot be decoded as `T`.
    Undecodable(Undecodable),
    /// A place that was on stable storage and is damaged.
    Corrupt(Corrupt),
    /// The file could not be read, or a sync failed and what was durable has been delivered.
    Io(io::Error),
}

/// Why [`try_recv`](crate::Receiver::try_recv) gave no message.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let (tx, rx) = walchan::channel::<u8>(dir.path().join("queue"))?;
/// drop(tx);
/// assert_eq!(rx.try_recv(), Err(walchan::TryRecvError::Disconnected));
/// # Ok::<(), walchan::Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum TryRecvError {
    /// There is no message now.
    Empty,
    /// As [`RecvError::Disconnected`].
    Disconnected,
    /// As [`RecvError::Undecodable`].
    Undecodable(Undecodable),
    /// As [`RecvError::Corrupt`].
    Corrupt(Corrupt),
    /// As [`RecvError::Io`].
    Io(io::Error),
}

/// Why [`recv_timeout`](crate::Receiver::recv_timeout) gave no message.
///
/// ```
/// use std::time::Duration;
///
/// # let dir = tempfile::tempdir()?;
/// let (tx, rx) = walchan::channel::<u8>(dir.path().join("queue"))?;
/// drop(tx);
/// let received = rx.recv_timeout(Duration::from_secs(1));
/// assert_eq!(received, Err(walchan::RecvTimeoutError::Disconnected));
/// # Ok::<(), walchan::Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum RecvTimeoutError {
    /// There was no message in time.
    Timeout,
    /// As [`RecvError::Disconnected`].
    Disconnected,
    /// As [`RecvError::Undecodable`].
    Undecodable(Undecodable),
    /// As [`RecvError::Corrupt`].
    Corrupt(Corrupt),
    /// As [`RecvError::Io`].
    Io(io::Error),
}

/// What the receive errors share; `$lacking` is the variant that only some have.
macro_rules! recv_error {
    ($name:ident $(, $lacking:ident, $text:literal)?) => {
        impl PartialEq for $name {
            /// I/O errors are equal if kind and OS code are.
            fn eq(&self, other: &Self) -> bool {
                match (self, other) {
                    $(($name::$lacking, $name::$lacking) => true,)?
                    ($name::Disconnected, $name::Disconnected) => true,
                    ($name::Undecodable(a), $name::Undecodable(b)) => a == b,
                    ($name::Corrupt(a), $name::Corrupt(b)) => a == b,
                    ($name::Io(a), $name::Io(b)) => same_io(a, b),
                    _ => false,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $($name::$lacking => f.write_str($text),)?
                    $name::Disconnected => f.write_str("receiving on an empty channel without senders"),
                    $name::Undecodable(u) => u.fmt(f),
                    $name::Corrupt(c) => c.fmt(f),
                    $name::Io(e) => write!(f, "cannot receive: {e}"),
                }
            }
        }

        impl std::error::Error for $name {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                match self {
                    $name::Undecodable(u) => Some(u.cause()),
                    $name::Io(e) => Some(e),
                    _ => None,
                }
            }
        }

    };
}

/// A receive that may also find nothing in time.
macro_rules! from_recv_error {
    ($name:ident) => {
        impl From<RecvError> for $name {
            fn from(error: RecvError) -> Self {
                match error {
                    RecvError::Disconnected => $name::Disconnected,
                    RecvError::Undecodable(u) => $name::Undecodable(u),
                    RecvError::Corrupt(c) => $name::Corrupt(c),
                    RecvError::Io(e) => $name::Io(e),
                }
            }
        }
    };
}

recv_error!(RecvError);
recv_error!(TryRecvError, Empty, "the channel is empty");
recv_error!(RecvTimeoutError, Timeout, "the channel stayed empty");
from_recv_error!(TryRecvError);
from_recv_error!(RecvTimeoutError);
