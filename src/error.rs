//! Why a channel could not be opened, synced or closed, and why a send failed.

use crate::codec::{self, CodecError};
use std::fmt;
use std::io;
use walchan_core::Mismatch;

/// Same kind and same code of the operating system: what can be compared of an I/O error.
pub(crate) fn same_io(a: &io::Error, b: &io::Error) -> bool {
    a.kind() == b.kind() && a.raw_os_error() == b.raw_os_error()
}

/// Why a channel could not be opened, synced or closed.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("queue");
/// let (_tx, _rx) = walchan::channel::<u8>(&path)?;
/// let again = walchan::channel::<u8>(&path);
/// assert_eq!(again.err(), Some(walchan::Error::Locked));
/// # Ok::<(), walchan::Error>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused something, or a sync of this channel failed.
    #[error("i/o error: {0}")]
    Io(#[from] io::Error),
    /// Another channel, of this process or another, has the file open.
    #[error("the file is in use by another channel")]
    Locked,
    /// The receiver has left, and the channel is still open: these keep it open, as far as is known at this
    /// moment. It closes when the last of them is dropped. In a child of `fork` it is the parent that keeps
    /// it open, whatever the numbers say.
    ///
    /// See [`Receiver::close`](crate::Receiver::close) for an example.
    #[error("the channel is still in use: senders: {senders}, deliveries: {deliveries}")]
    InUse {
        /// Senders. One that is being dropped in another thread may be among them.
        senders: u64,
        /// Messages in somebody's hands: deliveries, and what could not be delivered.
        deliveries: u64,
    },
    /// There is something at the path, and it is not a regular file.
    #[error("not a regular file")]
    NotRegular,
    /// The file is a channel, but not the one asked for.
    #[error("{what}: the file has {stored}, wanted was {wanted}")]
    Mismatch {
        /// What differs: `file` (it is a segment of a channel), `codec`, `schema`, `ring_bytes`, or
        /// `segments` (a bounded channel was asked for, and there are some).
        what: &'static str,
        /// What the file says.
        stored: String,
        /// What the options say.
        wanted: String,
    },
    /// The file is of a newer format than this version of walchan knows.
    #[error("format version {stored} is newer than this version of walchan")]
    Version {
        /// The version in the file.
        stored: u32,
    },
    /// The file is not a walchan file, or too damaged to be opened; nothing in it was changed.
    #[error("corrupt at {position}: {reason}")]
    Corrupt {
        /// Offset in the file, for a header; position in the ring, for what a torn tail begins with.
        position: u64,
        /// What is wrong there.
        reason: String,
    },
    /// An argument that cannot be honoured.
    #[error("invalid argument: {0}")]
    Invalid(&'static str),
}

impl From<walchan_core::Error> for Error {
    fn from(error: walchan_core::Error) -> Self {
        match error {
            walchan_core::Error::Io(error) => Error::Io(error),
            walchan_core::Error::Locked => Error::Locked,
            walchan_core::Error::NotRegular => Error::NotRegular,
            walchan_core::Error::Mismatch(mismatch) => Error::from(mismatch),
            walchan_core::Error::Version { stored } => Error::Version { stored },
            walchan_core::Error::Corrupt { position, reason } => {
                Error::Corrupt { position, reason }
            }
            walchan_core::Error::Invalid(what) => Error::Invalid(what),
        }
    }
}

impl From<Mismatch> for Error {
    fn from(mismatch: Mismatch) -> Self {
        let (what, stored, wanted) = match mismatch {
            Mismatch::Segment { number } => (
                "file",
                format!("segment {number} of a channel"),
                "a channel".to_owned(),
            ),
            Mismatch::Codec { stored, wanted } => {
                ("codec", codec::name_of(stored), codec::name_of(wanted))
            }
            Mismatch::Schema { stored, wanted } => ("schema", stored, wanted),
            Mismatch::RingBytes { stored, wanted } => {
                ("ring_bytes", stored.to_string(), wanted.to_string())
            }
            Mismatch::Segments { count } => (
                "segments",
                count.to_string(),
                "none in a bounded channel: open it without a bound, and drain it".to_owned(),
            ),
        };
        Error::Mismatch {
            what,
            stored,
            wanted,
        }
    }
}

impl PartialEq for Error {
    /// I/O errors are equal if kind and OS code are.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Error::Io(a), Error::Io(b)) => same_io(a, b),
            (Error::Locked, Error::Locked) | (Error::NotRegular, Error::NotRegular) => true,
            (
                Error::InUse {
                    senders,
                    deliveries,
                },
                Error::InUse {
                    senders: s,
                    deliveries: d,
                },
            ) => senders == s && deliveries == d,
            (
                Error::Mismatch {
                    what,
                    stored,
                    wanted,
                },
                Error::Mismatch {
                    what: w,
                    stored: s,
                    wanted: n,
                },
            ) => what == w && stored == s && wanted == n,
            (Error::Version { stored: a }, Error::Version { stored: b }) => a == b,
            (
                Error::Corrupt { position, reason },
                Error::Corrupt {
                    position: p,
                    reason: r,
                },
            ) => position == p && reason == r,
            (Error::Invalid(a), Error::Invalid(b)) => a == b,
            _ => false,
        }
    }
}

/// Why [`send`](crate::Sender::send) did not return `Ok`.
///
/// ```
/// use walchan::{Options, SendErrorKind};
///
/// # let dir = tempfile::tempdir()?;
/// let options = Options { ring_bytes: Some(1 << 16), ..Options::default() };
/// let path = dir.path().join("queue");
/// let (tx, _rx) = walchan::sync_channel_with_options::<Vec<u8>>(path, 8, options)?;
/// let error = tx.send(vec![0; 100_000]).unwrap_err();
/// assert!(matches!(error.kind, SendErrorKind::TooLarge { len: 100_008, .. }));
/// # Ok::<(), walchan::Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum SendErrorKind {
    /// The receiver is gone. The message is not in the channel.
    Disconnected,
    /// The message can never fit. It is not in the channel.
    TooLarge {
        /// Bytes of the encoded message.
        len: u64,
        /// Bytes that fit.
        max: u64,
    },
    /// The channel has grown to [`Options::max_bytes`](crate::Options::max_bytes), and has no room now. The
    /// message is not in the channel; when others have been acknowledged, sending works again.
    Full,
    /// The value cannot be encoded, or not decoded again. It is not in the channel.
    Encode(CodecError),
    /// The message is not in the channel: the disk is full (kind `StorageFull`), or something else failed,
    /// now or in an earlier sync.
    Io(io::Error),
    /// The message was in the channel when its sync failed: it may still be delivered, or not.
    Unsynced(io::Error),
}

impl fmt::Display for SendErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendErrorKind::Disconnected => f.write_str("sending on a channel without receiver"),
            SendErrorKind::TooLarge { len, max } => {
                write!(f, "a message of {len} bytes, at most {max} fit")
            }
            SendErrorKind::Full => f.write_str("the channel has reached max_bytes"),
            SendErrorKind::Encode(e) => write!(f, "the message cannot be encoded: {e}"),
            SendErrorKind::Io(e) => write!(f, "not sent: {e}"),
            SendErrorKind::Unsynced(e) => write!(f, "sent, but perhaps not durable: {e}"),
        }
    }
}

impl SendErrorKind {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SendErrorKind::Encode(e) => Some(e),
            SendErrorKind::Io(e) | SendErrorKind::Unsynced(e) => Some(e),
            SendErrorKind::Disconnected | SendErrorKind::TooLarge { .. } | SendErrorKind::Full => {
                None
            }
        }
    }
}

impl PartialEq for SendErrorKind {
    /// I/O errors are equal if kind and OS code are.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (SendErrorKind::Disconnected, SendErrorKind::Disconnected)
            | (SendErrorKind::Full, SendErrorKind::Full) => true,
            (SendErrorKind::TooLarge { len, max }, SendErrorKind::TooLarge { len: l, max: m }) => {
                len == l && max == m
            }
            (SendErrorKind::Encode(a), SendErrorKind::Encode(b)) => a == b,
            (SendErrorKind::Io(a), SendErrorKind::Io(b))
            | (SendErrorKind::Unsynced(a), SendErrorKind::Unsynced(b)) => same_io(a, b),
            _ => false,
        }
    }
}

/// A message that was not sent, and why.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let (tx, rx) = walchan::channel::<String>(dir.path().join("queue"))?;
/// drop(rx);
/// let error = tx.send("kept".to_owned()).unwrap_err();
/// assert_eq!(error.kind, walchan::SendErrorKind::Disconnected);
/// assert_eq!(error.into_inner(), "kept");
/// # Ok::<(), walchan::Error>(())
/// ```
#[derive(PartialEq)]
pub struct SendError<T> {
    /// The message.
    pub value: T,
    /// Why it was not sent.
    pub kind: SendErrorKind,
}

impl<T> SendError<T> {
    /// Gives the message back.
    pub fn into_inner(self) -> T {
        self.value
    }

    /// Whether the receiver is gone.
    pub fn is_disconnected(&self) -> bool {
        matches!(self.kind, SendErrorKind::Disconnected)
    }
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendError")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl<T> std::error::Error for SendError<T> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.kind.source()
    }
}

/// Why [`try_send`](crate::SyncSender::try_send) did not send.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let (tx, rx) = walchan::sync_channel::<u8>(dir.path().join("queue"), 1)?;
/// drop(rx);
/// let error = tx.try_send(7).unwrap_err();
/// assert!(error.is_disconnected());
/// assert_eq!(error.into_inner(), 7);
/// # Ok::<(), walchan::Error>(())
/// ```
#[derive(PartialEq)]
#[non_exhaustive]
pub enum TrySendError<T> {
    /// There is no room now.
    Full(T),
    /// The receiver is gone.
    Disconnected(T),
    /// Anything else.
    Failed(SendError<T>),
}

/// Why [`send_timeout`](crate::SyncSender::send_timeout) did not send.
///
/// ```
/// use std::time::Duration;
///
/// # let dir = tempfile::tempdir()?;
/// let (tx, _rx) = walchan::sync_channel::<u8>(dir.path().join("queue"), 1)?;
/// tx.send(1).unwrap();
/// let error = tx.send_timeout(2, Duration::ZERO).unwrap_err();
/// assert_eq!(error.into_inner(), 2);
/// # Ok::<(), walchan::Error>(())
/// ```
#[derive(PartialEq)]
#[non_exhaustive]
pub enum SendTimeoutError<T> {
    /// There was no room in time.
    Timeout(T),
    /// The receiver is gone.
    Disconnected(T),
    /// Anything else.
    Failed(SendError<T>),
}

/// The two send errors that differ in one variant.
macro_rules! send_error {
    ($name:ident, $lacking:ident, $text:literal) => {
        impl<T> $name<T> {
            /// Gives the message back.
            pub fn into_inner(self) -> T {
                match self {
                    $name::$lacking(value) | $name::Disconnected(value) => value,
                    $name::Failed(error) => error.value,
                }
            }

            /// Whether the receiver is gone.
            pub fn is_disconnected(&self) -> bool {
                matches!(self, $name::Disconnected(_))
            }
        }

        impl<T> From<SendError<T>> for $name<T> {
            fn from(error: SendError<T>) -> Self {
                match error.kind {
                    SendErrorKind::Disconnected => $name::Disconnected(error.value),
                    _ => $name::Failed(error),
                }
            }
        }

        impl<T> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $name::$lacking(_) => f.write_str(concat!(stringify!($lacking), "(..)")),
                    $name::Disconnected(_) => f.write_str("Disconnected(..)"),
                    $name::Failed(error) => f.debug_tuple("Failed").field(error).finish(),
                }
            }
        }

        impl<T> fmt::Display for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $name::$lacking(_) => f.write_str($text),
                    $name::Disconnected(_) => SendErrorKind::Disconnected.fmt(f),
                    $name::Failed(error) => error.fmt(f),
                }
            }
        }

        impl<T> std::error::Error for $name<T> {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                match self {
                    $name::Failed(error) => error.kind.source(),
                    $name::$lacking(_) | $name::Disconnected(_) => None,
                }
            }
        }
    };
}

send_error!(TrySendError, Full, "the channel is full");
send_error!(SendTimeoutError, Timeout, "the channel stayed full");
