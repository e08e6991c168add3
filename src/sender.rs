//! The sending halves.

use crate::channel::{Channel, OnDisk};
use crate::codec;
use crate::durability::{SendFailure, Wait};
use crate::error::{CodecError, Error, SendError, SendErrorKind, SendTimeoutError, TrySendError};
use crate::options::Durability;
use crate::overflow::Slot;
use crate::sync::Arc;
use serde::Serialize;
use std::fmt;
use std::marker::PhantomData;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// What both halves are made of.
struct Handle<T> {
    channel: Arc<Channel<OnDisk>>,
    slot: Slot<OnDisk>,
    /// Decodes a payload as `T`; a pointer, so that the structs need no bounds.
    check: fn(&[u8]) -> Result<(), CodecError>,
    /// Set when this handle has seen its own bytes decode.
    checked: OnceLock<()>,
    // The handle takes values in; it owns none.
    message: PhantomData<fn(T)>,
}

/// What a failed send comes to, before the value is put in.
enum Failed {
    Full,
    Kind(SendErrorKind),
}

impl<T> Handle<T> {
    fn new(channel: Arc<Channel<OnDisk>>, check: fn(&[u8]) -> Result<(), CodecError>) -> Self {
        channel.common().sender_joined();
        Handle {
            channel,
            slot: Slot::new(),
            check,
            checked: OnceLock::new(),
            message: PhantomData,
        }
    }

    fn is_closed(&self) -> bool {
        self.channel.common().receiver_is_gone()
    }
}

impl<T: Serialize> Handle<T> {
    fn send(&self, value: &T, wait: Wait) -> Result<(), Failed> {
        codec::with_buffer(|payload| {
            // User code runs here, before anything is claimed.
            let encoded = codec::encode(value, payload);
            let checked = encoded.and_then(|()| match self.checked.get() {
                Some(()) => Ok(()),
                None => (self.check)(payload),
            });
            checked.map_err(|e| Failed::Kind(SendErrorKind::Encode(e)))?;
            // Another thread may have set it meanwhile: to the same.
            self.checked.set(()).ok();
            match self.channel.send(&self.slot, payload, wait) {
                Ok(_) => Ok(()),
                Err(SendFailure::Full | SendFailure::Sealed) => Err(Failed::Full),
                Err(SendFailure::Disconnected) => Err(Failed::Kind(SendErrorKind::Disconnected)),
                Err(SendFailure::TooLarge { len, max }) => {
                    Err(Failed::Kind(SendErrorKind::TooLarge { len, max }))
                }
                Err(SendFailure::Io(e)) => Err(Failed::Kind(SendErrorKind::Io(e))),
                Err(SendFailure::Unsynced(e)) => Err(Failed::Kind(SendErrorKind::Unsynced(e))),
            }
        })
    }

    fn send_or_full(&self, value: T, wait: Wait) -> Result<(), SendError<T>> {
        let kind = match self.send(&value, wait) {
            Ok(()) => return Ok(()),
            Err(Failed::Kind(kind)) => kind,
            Err(Failed::Full) => SendErrorKind::Full,
        };
        Err(SendError { value, kind })
    }
}

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        Handle::new(Arc::clone(&self.channel), self.check)
    }
}

impl<T> Drop for Handle<T> {
    fn drop(&mut self) {
        self.channel.common().sender_left();
    }
}

/// The documentation and methods that both halves share.
macro_rules! handle_methods {
    ($name:ident, $open:literal) => {
        impl<T> $name<T> {
            pub(crate) fn new(
                channel: Arc<Channel<OnDisk>>,
                check: fn(&[u8]) -> Result<(), CodecError>,
            ) -> Self {
                $name {
                    handle: Handle::new(channel, check),
                }
            }

            /// Whether the receiver is gone, so that no send can succeed any more. Never blocks.
            ///
            /// ```
            /// # let dir = tempfile::tempdir()?;
            #[doc = $open]
            /// assert!(!tx.is_closed());
            /// drop(rx);
            /// assert!(tx.is_closed());
            /// # Ok::<(), walchan::Error>(())
            /// ```
            #[must_use]
            pub fn is_closed(&self) -> bool {
                self.handle.is_closed()
            }

            /// Returns when everything sent before the call, by anyone, is on stable storage. Waits for the
            /// disk; costs nothing where it is there already.
            ///
            /// # Errors
            ///
            /// [`Error::Io`]: a sync failed, now or earlier. Without the feature `fsync` it is of kind
            /// `Unsupported`.
            ///
            /// ```
            /// # let dir = tempfile::tempdir()?;
            #[doc = $open]
            /// tx.send(1).unwrap();
            /// # if cfg!(feature = "fsync") {
            /// tx.sync()?;
            /// # }
            /// # Ok::<(), walchan::Error>(())
            /// ```
            pub fn sync(&self) -> Result<(), Error> {
                self.handle.channel.sync_sent()
            }

            /// The durability in force: without the feature `fsync` always [`Durability::FlushOnly`].
            ///
            /// ```
            /// # let dir = tempfile::tempdir()?;
            #[doc = $open]
            /// # if cfg!(feature = "fsync") {
            /// assert_eq!(tx.durability(), walchan::Durability::SyncPerSend);
            /// # }
            /// # Ok::<(), walchan::Error>(())
            /// ```
            #[must_use]
            pub fn durability(&self) -> Durability {
                self.handle.channel.durability()
            }
        }

        impl<T> Clone for $name<T> {
            fn clone(&self) -> Self {
                $name {
                    handle: self.handle.clone(),
                }
            }
        }

        impl<T> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name))
                    .field("path", &self.handle.channel.path())
                    .finish_non_exhaustive()
            }
        }

        // A panic of user code happens before anything is claimed, and leaves the channel as it was.
        impl<T> UnwindSafe for $name<T> {}
        impl<T> RefUnwindSafe for $name<T> {}
    };
}

/// The sending half of [`channel`](crate::channel()).
///
/// Clones send into the same channel. When the last one is dropped, the receiver gets what is left and then
/// [`RecvError::Disconnected`](crate::RecvError::Disconnected).
pub struct Sender<T> {
    handle: Handle<T>,
}

handle_methods!(
    Sender,
    "let (tx, rx) = walchan::channel::<u32>(dir.path().join(\"queue\"))?;"
);

impl<T: Serialize> Sender<T> {
    /// Sends a message. Never waits for the receiver: when the ring is full the channel goes on in further files, the
    /// next of which is made in the background; a sender that is faster than that waits for the file. Under
    /// [`Durability::SyncPerSend`] it waits for the disk.
    ///
    /// When it has returned `Ok`, the message survives what the
    /// [durability](crate::Durability) promises.
    ///
    /// # Errors
    ///
    /// Each gives the message back; see [`SendErrorKind`]. A full disk is an `Io` of kind `StorageFull`; a channel that has
    /// reached [`Options::max_bytes`](crate::Options::max_bytes) is `Full`. What was sent stays, and sending works again when
    /// there is room.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let (tx, rx) = walchan::channel(dir.path().join("queue"))?;
    /// tx.send("hello".to_owned()).unwrap();
    /// assert_eq!(*rx.recv().unwrap(), "hello");
    /// # Ok::<(), walchan::Error>(())
    /// ```
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.handle.send_or_full(value, Wait::No)
    }
}

/// The sending half of [`sync_channel`](crate::sync_channel()): it waits for room.
///
/// Clones send into the same channel. When the last one is dropped, the receiver gets what is left and then
/// [`RecvError::Disconnected`](crate::RecvError::Disconnected).
pub struct SyncSender<T> {
    handle: Handle<T>,
}

handle_methods!(
    SyncSender,
    "let (tx, rx) = walchan::sync_channel::<u32>(dir.path().join(\"queue\"), 8)?;"
);

impl<T: Serialize> SyncSender<T> {
    /// Sends a message. Waits while as many messages as the bound allows are unacknowledged, or the ring is
    /// full; under [`Durability::SyncPerSend`] it waits for the disk, too. There is no queue: a message that is
    /// large beside the ring may wait as long as others fill the ring with small ones.
    ///
    /// When it has returned `Ok`, the message survives what the
    /// [durability](crate::Durability) promises.
    ///
    /// # Errors
    ///
    /// Each gives the message back; see [`SendErrorKind`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let (tx, rx) = walchan::sync_channel(dir.path().join("queue"), 1)?;
    /// let sender = std::thread::spawn(move || {
    ///     tx.send(1).unwrap();
    ///     tx.send(2).unwrap(); // waits for the acknowledgement of the first
    /// });
    /// assert_eq!(*rx.recv().unwrap(), 1);
    /// assert_eq!(*rx.recv().unwrap(), 2);
    /// # sender.join().unwrap();
    /// # Ok::<(), walchan::Error>(())
    /// ```
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.handle.send_or_full(value, Wait::Until(None))
    }

    /// Sends a message if there is room. A synced send still waits for the disk, and so does one that finds
    /// the ring full only because acknowledgements were not synced yet.
    ///
    /// # Errors
    ///
    /// [`TrySendError::Full`] if there is no room; else as [`SyncSender::send`].
    ///
    /// ```
    /// use walchan::TrySendError;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let (tx, _rx) = walchan::sync_channel(dir.path().join("queue"), 1)?;
    /// assert_eq!(tx.try_send(1), Ok(()));
    /// assert_eq!(tx.try_send(2), Err(TrySendError::Full(2)));
    /// # Ok::<(), walchan::Error>(())
    /// ```
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        match self.handle.send(&value, Wait::No) {
            Ok(()) => Ok(()),
            Err(Failed::Full) => Err(TrySendError::Full(value)),
            Err(Failed::Kind(kind)) => Err(SendError { value, kind }.into()),
        }
    }

    /// Sends a message if there is room in time. The timeout bounds the wait for room; a synced send still
    /// waits for the disk. A timeout that is too long to be told is none.
    ///
    /// # Errors
    ///
    /// [`SendTimeoutError::Timeout`] if there was no room; else as [`SyncSender::send`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use walchan::SendTimeoutError;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let (tx, _rx) = walchan::sync_channel(dir.path().join("queue"), 1)?;
    /// let timeout = Duration::from_millis(1);
    /// assert_eq!(tx.send_timeout(1, timeout), Ok(()));
    /// assert_eq!(tx.send_timeout(2, timeout), Err(SendTimeoutError::Timeout(2)));
    /// # Ok::<(), walchan::Error>(())
    /// ```
    pub fn send_timeout(&self, value: T, timeout: Duration) -> Result<(), SendTimeoutError<T>> {
        let wait = Wait::Until(Instant::now().checked_add(timeout));
        match self.handle.send(&value, wait) {
            Ok(()) => Ok(()),
            Err(Failed::Full) => Err(SendTimeoutError::Timeout(value)),
            Err(Failed::Kind(kind)) => Err(SendError { value, kind }.into()),
        }
    }
}
