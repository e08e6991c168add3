//! The sending halves.

use crate::codec::{self, Bincode, Codec, SEALED};
use crate::error::{CodecError, Error, SendError, SendErrorKind, SendTimeoutError, TrySendError};
use crate::options::Durability;
use std::fmt;
use std::io::IoSlice;
use std::marker::PhantomData;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use walchan_core::channel::{Channel, OnDisk};
use walchan_core::commit::{SendFailure, Wait};
use walchan_core::segments::CurrentSegment;
use walchan_core::storage::stage::Stage;

/// What every sending half is made of: its place in a channel of bytes.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) channel: Arc<Channel<OnDisk>>,
    slot: CurrentSegment<OnDisk>,
}

/// What a failed send comes to, before the value is put in.
pub(crate) enum Failed {
    Full,
    Kind(Box<SendErrorKind>),
}

impl Sending {
    pub(crate) fn new(channel: Arc<Channel<OnDisk>>) -> Self {
        channel.shared().sender_joined();
        Sending {
            channel,
            slot: CurrentSegment::new(),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.channel.shared().receiver_is_gone()
    }

    /// Sends what a value became. All below is one function, and its result fits in registers; the callers are many.
    #[inline(never)]
    fn send_value(&self, payload: &[u8], wait: Wait) -> Result<(), Failed> {
        let mut stage = Stage::new();
        self.send_inline(&[IoSlice::new(stage.copy(payload))], wait)
    }

    /// The same of bytes, which are copied once.
    #[inline(never)]
    pub(crate) fn send_bytes(&self, payload: &[IoSlice<'_>], wait: Wait) -> Result<(), Failed> {
        self.send_inline(payload, wait)
    }

    #[inline(always)]
    fn send_inline(&self, payload: &[IoSlice<'_>], wait: Wait) -> Result<(), Failed> {
        match self.channel.send(&self.slot, payload, wait) {
            Ok(_) => Ok(()),
            Err(failure) => Err(Failed::from(failure)),
        }
    }
}

impl From<SendFailure> for Failed {
    #[cold]
    fn from(failure: SendFailure) -> Self {
        Failed::of(match failure {
            SendFailure::Full | SendFailure::Sealed => return Failed::Full,
            SendFailure::Disconnected => SendErrorKind::Disconnected,
            SendFailure::TooLarge { len, max } => SendErrorKind::TooLarge { len, max },
            SendFailure::Io(error) => SendErrorKind::Io(error),
            SendFailure::Unsynced(error) => SendErrorKind::Unsynced(error),
        })
    }
}

impl Failed {
    #[cold]
    fn encoding(error: CodecError) -> Self {
        Failed::of(SendErrorKind::Encode(error))
    }

    #[cold]
    fn of(kind: SendErrorKind) -> Self {
        Failed::Kind(Box::new(kind))
    }

    /// The error of a send that does not tell a full channel from others.
    pub(crate) fn kind(self) -> SendErrorKind {
        match self {
            Failed::Full => SendErrorKind::Full,
            Failed::Kind(kind) => *kind,
        }
    }

    pub(crate) fn without_value(self) -> SendError<()> {
        SendError {
            value: (),
            kind: self.kind(),
        }
    }

    pub(crate) fn into_try<T>(self, value: T) -> TrySendError<T> {
        match self {
            Failed::Full => TrySendError::Full(value),
            Failed::Kind(kind) => SendError { value, kind: *kind }.into(),
        }
    }

    pub(crate) fn into_timeout<T>(self, value: T) -> SendTimeoutError<T> {
        match self {
            Failed::Full => SendTimeoutError::Timeout(value),
            Failed::Kind(kind) => SendError { value, kind: *kind }.into(),
        }
    }
}

impl Clone for Sending {
    fn clone(&self) -> Self {
        Sending::new(Arc::clone(&self.channel))
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.channel.shared().sender_left();
    }
}

/// What both halves for values are made of.
struct Handle<T, C> {
    sending: Sending,
    /// Set when this handle has seen its own bytes decode.
    checked: OnceLock<()>,
    // The handle takes values in; it owns none.
    message: PhantomData<fn(T, C)>,
}

impl<T, C> Handle<T, C> {
    fn new(sending: Sending) -> Self {
        Handle {
            sending,
            checked: OnceLock::new(),
            message: PhantomData,
        }
    }
}

impl<T, C: Codec<T>> Handle<T, C> {
    #[inline]
    fn send(&self, value: &T, wait: Wait) -> Result<(), Failed> {
        if let Some(payload) = C::bytes_of(value) {
            self.check_once(payload)?;
            return self.sending.send_value(payload, wait);
        }
        codec::with_buffer(|payload| {
            // User code runs here, before anything is claimed.
            C::encode(value, payload).map_err(Failed::encoding)?;
            self.check_once(payload)?;
            self.sending.send_value(payload, wait)
        })
    }

    #[inline]
    fn check_once(&self, payload: &[u8]) -> Result<(), Failed> {
        match self.checked.get() {
            Some(()) => Ok(()),
            None => self.check(payload),
        }
    }

    #[cold]
    fn check(&self, payload: &[u8]) -> Result<(), Failed> {
        C::decode_caught(payload, SEALED).map_err(Failed::encoding)?;
        // Another thread may have set it meanwhile: to the same.
        self.checked.set(()).ok();
        Ok(())
    }

    fn send_or_full(&self, value: T, wait: Wait) -> Result<(), SendError<T>> {
        match self.send(&value, wait) {
            Ok(()) => Ok(()),
            Err(failed) => Err(SendError {
                value,
                kind: failed.kind(),
            }),
        }
    }
}

impl<T, C> Clone for Handle<T, C> {
    fn clone(&self) -> Self {
        Handle::new(self.sending.clone())
    }
}

/// The documentation and methods that both halves share.
macro_rules! handle_methods {
    ($name:ident, $open:literal) => {
        impl<T, C> $name<T, C> {
            pub(crate) fn new(channel: Arc<Channel<OnDisk>>) -> Self {
                $name {
                    handle: Handle::new(Sending::new(channel)),
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
                self.handle.sending.is_closed()
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
                Ok(self.handle.sending.channel.sync_sent()?)
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
                Durability::from_mode(self.handle.sending.channel.mode())
            }
        }

        impl<T, C> Clone for $name<T, C> {
            fn clone(&self) -> Self {
                $name {
                    handle: self.handle.clone(),
                }
            }
        }

        impl<T, C> fmt::Debug for $name<T, C> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name))
                    .field("path", &self.handle.sending.channel.path())
                    .finish_non_exhaustive()
            }
        }

        // A panic of user code happens before anything is claimed, and leaves the channel as it was.
        impl<T, C> UnwindSafe for $name<T, C> {}
        impl<T, C> RefUnwindSafe for $name<T, C> {}
    };
}

/// The sending half of [`channel`](crate::channel()).
///
/// Clones send into the same channel. When the last one is dropped, the receiver gets what is left and then
/// [`RecvError::Disconnected`](crate::RecvError::Disconnected).
pub struct Sender<T, C = Bincode> {
    handle: Handle<T, C>,
}

handle_methods!(
    Sender,
    "let (tx, rx) = walchan::channel::<u32>(dir.path().join(\"queue\"))?;"
);

impl<T, C: Codec<T>> Sender<T, C> {
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
pub struct SyncSender<T, C = Bincode> {
    handle: Handle<T, C>,
}

handle_methods!(
    SyncSender,
    "let (tx, rx) = walchan::sync_channel::<u32>(dir.path().join(\"queue\"), 8)?;"
);

impl<T, C: Codec<T>> SyncSender<T, C> {
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
            Err(failed) => Err(failed.into_try(value)),
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
            Err(failed) => Err(failed.into_timeout(value)),
        }
    }
}
