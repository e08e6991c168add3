//! The sending halves.

use crate::codec::{self, Bincode, Codec, CodecError, SEALED};
use crate::error::{Error, SendError, SendErrorKind, SendTimeoutError, TrySendError};
use crate::message::Bytes;
use crate::options::Durability;
use std::fmt;
use std::io::IoSlice;
use std::marker::PhantomData;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use walchan_core::channel::{Channel, OnDisk};
use walchan_core::commit::{SendFailure, Sending, Wait};
use walchan_core::segments::CurrentSegment;
use walchan_core::storage::stage::Stage;

/// What a failed send comes to, before the value is put in.
enum NotSent {
    Full,
    Kind(Box<SendErrorKind>),
}

impl From<SendFailure> for NotSent {
    #[cold]
    fn from(failure: SendFailure) -> Self {
        NotSent::of(match failure {
            SendFailure::Full | SendFailure::Sealed => return NotSent::Full,
            SendFailure::Disconnected => SendErrorKind::Disconnected,
            SendFailure::TooLarge { len, max } => SendErrorKind::TooLarge { len, max },
            SendFailure::Io(error) => SendErrorKind::Io(error),
            SendFailure::Unsynced(error) => SendErrorKind::Unsynced(error),
        })
    }
}

impl NotSent {
    #[cold]
    fn encoding(error: CodecError) -> Self {
        NotSent::of(SendErrorKind::Encode(error))
    }

    #[cold]
    fn of(kind: SendErrorKind) -> Self {
        NotSent::Kind(Box::new(kind))
    }

    /// The error of a send that does not tell a full channel from others.
    fn kind(self) -> SendErrorKind {
        match self {
            NotSent::Full => SendErrorKind::Full,
            NotSent::Kind(kind) => *kind,
        }
    }

    fn into_send<T>(self, value: T) -> SendError<T> {
        SendError {
            value,
            kind: self.kind(),
        }
    }

    fn into_try<T>(self, value: T) -> TrySendError<T> {
        match self {
            NotSent::Full => TrySendError::Full(value),
            NotSent::Kind(kind) => SendError { value, kind: *kind }.into(),
        }
    }

    fn into_timeout<T>(self, value: T) -> SendTimeoutError<T> {
        match self {
            NotSent::Full => SendTimeoutError::Timeout(value),
            NotSent::Kind(kind) => SendError { value, kind: *kind }.into(),
        }
    }
}

/// What a handle keeps of the channel.
struct Kept {
    segment: CurrentSegment<OnDisk>,
    channel: Arc<Channel<OnDisk>>,
}

/// What both halves are made of.
struct Handle<T: ?Sized, C> {
    /// Given up before the receiver can hear that this handle has left: what closes behind that is closed.
    kept: Sending<Kept>,
    /// Set when this handle has seen its own bytes decode.
    checked: OnceLock<()>,
    // The handle takes messages in; it owns none.
    message: PhantomData<fn(&T)>,
    codec: PhantomData<fn(C)>,
}

impl<T: ?Sized, C> Handle<T, C> {
    fn new(channel: Arc<Channel<OnDisk>>) -> Self {
        let shared = Arc::clone(channel.shared());
        let segment = CurrentSegment::new();
        Handle {
            kept: Sending::new(Kept { segment, channel }, &shared),
            checked: OnceLock::new(),
            message: PhantomData,
            codec: PhantomData,
        }
    }

    /// Sends what a value became. All below is one function, and its result fits in registers; the callers
    /// are many.
    #[inline(never)]
    fn send_payload(&self, payload: &[u8], wait: Wait) -> Result<(), NotSent> {
        let mut stage = Stage::new();
        self.send_pieces(&[IoSlice::new(stage.copy(payload))], wait)
    }

    /// The same of bytes, which are copied once.
    #[inline(never)]
    fn send_bytes(&self, pieces: &[IoSlice<'_>], wait: Wait) -> Result<(), NotSent> {
        self.send_pieces(pieces, wait)
    }

    #[inline(always)]
    fn send_pieces(&self, pieces: &[IoSlice<'_>], wait: Wait) -> Result<(), NotSent> {
        let Kept { segment, channel } = &*self.kept;
        match channel.send(segment, pieces, wait) {
            Ok(_) => Ok(()),
            Err(failure) => Err(NotSent::from(failure)),
        }
    }
}

impl<T, C: Codec<T>> Handle<T, C> {
    #[inline]
    fn send_value(&self, value: &T, wait: Wait) -> Result<(), NotSent> {
        if let Some(payload) = C::bytes_of(value) {
            self.check_once(payload)?;
            return self.send_payload(payload, wait);
        }
        codec::with_buffer(|payload| {
            // User code runs here, before anything is claimed.
            C::encode(value, payload).map_err(NotSent::encoding)?;
            self.check_once(payload)?;
            self.send_payload(payload, wait)
        })
    }

    #[inline]
    fn check_once(&self, payload: &[u8]) -> Result<(), NotSent> {
        match self.checked.get() {
            Some(()) => Ok(()),
            None => self.check(payload),
        }
    }

    #[cold]
    fn check(&self, payload: &[u8]) -> Result<(), NotSent> {
        C::decode_caught(payload, SEALED).map_err(NotSent::encoding)?;
        // Another thread may have set it meanwhile: to the same.
        self.checked.set(()).ok();
        Ok(())
    }
}

impl<T: ?Sized, C> Clone for Handle<T, C> {
    fn clone(&self) -> Self {
        Handle::new(Arc::clone(&self.kept.channel))
    }
}

/// The documentation and methods that both halves share.
macro_rules! handle_methods {
    ($name:ident [$($generics:tt)*] [$($args:tt)*], $open:literal, $message:literal) => {
        impl<$($generics)*> $name<$($args)*> {
            pub(crate) fn new(channel: Arc<Channel<OnDisk>>) -> Self {
                $name {
                    handle: Handle::new(channel),
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
                self.handle.kept.channel.shared().receiver_is_gone()
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
            #[doc = $message]
            /// # if cfg!(feature = "fsync") {
            /// tx.sync()?;
            /// # }
            /// # Ok::<(), walchan::Error>(())
            /// ```
            pub fn sync(&self) -> Result<(), Error> {
                Ok(self.handle.kept.channel.sync_sent()?)
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
                Durability::from_mode(self.handle.kept.channel.mode())
            }
        }

        impl<$($generics)*> Clone for $name<$($args)*> {
            fn clone(&self) -> Self {
                $name {
                    handle: self.handle.clone(),
                }
            }
        }

        impl<$($generics)*> fmt::Debug for $name<$($args)*> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name))
                    .field("path", &self.handle.kept.channel.path())
                    .finish_non_exhaustive()
            }
        }

        // A panic of user code happens before anything is claimed, and leaves the channel as it was.
        impl<$($generics)*> UnwindSafe for $name<$($args)*> {}
        impl<$($generics)*> RefUnwindSafe for $name<$($args)*> {}
    };
}

/// The sending half of [`channel`](crate::channel()).
///
/// Clones send into the same channel. When the last one is dropped, the receiver gets what is left and then
/// [`RecvError::Disconnected`](crate::RecvError::Disconnected).
pub struct Sender<T, C = Bincode> {
    handle: Handle<T, C>,
}

handle_methods!(Sender [T, C] [T, C], "let (tx, rx) = walchan::channel::<u32>(dir.path().join(\"queue\"))?;", "tx.send(1).unwrap();");

impl<T, C: Codec<T>> Sender<T, C> {
    /// Sends a message. Never waits for the receiver: when the ring is full the channel goes on in segments,
    /// the next of which is made in the background; a sender that is faster than that waits for the file.
    /// Under [`Durability::SyncPerSend`] it waits for the disk.
    ///
    /// When it has returned `Ok`, the message survives what the
    /// [durability](crate::Durability) promises.
    ///
    /// # Errors
    ///
    /// Each gives the message back; see [`SendErrorKind`]. A full disk is an `Io` of kind `StorageFull`; a
    /// channel that has reached [`Options::max_bytes`](crate::Options::max_bytes) is `Full`. What was sent
    /// stays, and sending works again when there is room.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let (tx, rx) = walchan::channel(dir.path().join("queue"))?;
    /// tx.send("hello".to_owned()).unwrap();
    /// assert_eq!(*rx.recv().unwrap(), "hello");
    /// # Ok::<(), walchan::Error>(())
    /// ```
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        match self.handle.send_value(&value, Wait::No) {
            Ok(()) => Ok(()),
            Err(not_sent) => Err(not_sent.into_send(value)),
        }
    }
}

/// The sending half of [`sync_channel`](crate::sync_channel()): it waits for room.
///
/// Clones send into the same channel. When the last one is dropped, the receiver gets what is left and then
/// [`RecvError::Disconnected`](crate::RecvError::Disconnected).
pub struct SyncSender<T, C = Bincode> {
    handle: Handle<T, C>,
}

handle_methods!(SyncSender [T, C] [T, C], "let (tx, rx) = walchan::sync_channel::<u32>(dir.path().join(\"queue\"), 8)?;", "tx.send(1).unwrap();");

impl<T, C: Codec<T>> SyncSender<T, C> {
    /// Sends a message. Waits while as many messages as the bound allows are unacknowledged, or the ring is
    /// full; under [`Durability::SyncPerSend`] it waits for the disk, too. There is no queue: a message that
    /// is large beside the ring may wait as long as others fill the ring with small ones.
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
        match self.handle.send_value(&value, Wait::Until(None)) {
            Ok(()) => Ok(()),
            Err(not_sent) => Err(not_sent.into_send(value)),
        }
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
        match self.handle.send_value(&value, Wait::No) {
            Ok(()) => Ok(()),
            Err(not_sent) => Err(not_sent.into_try(value)),
        }
    }

    /// Sends a message if there is room in time. The timeout bounds the wait for room; a synced send still
    /// waits for the disk. A timeout beyond what `Instant` can represent never ends.
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
        match self.handle.send_value(&value, wait) {
            Ok(()) => Ok(()),
            Err(not_sent) => Err(not_sent.into_timeout(value)),
        }
    }
}

/// The sending half of a channel of bytes: as a [`Sender`] in all but that it takes bytes, which are copied
/// once.
///
/// See [`Options::bytes_channel`](crate::Options::bytes_channel) for an example.
pub struct BytesSender {
    handle: Handle<[u8], Bytes>,
}

handle_methods!(
    BytesSender [] [],
    "let (tx, rx) = walchan::Options::default().bytes_channel(dir.path().join(\"queue\"))?;",
    "tx.send(b\"one\").unwrap();"
);

impl BytesSender {
    /// Sends bytes, which are copied once. Waits as [`Sender::send`](crate::Sender::send) does.
    ///
    /// # Errors
    ///
    /// As [`Sender::send`](crate::Sender::send).
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let (tx, rx) = walchan::Options::default().bytes_channel(dir.path().join("queue"))?;
    /// tx.send(b"hello").unwrap();
    /// assert_eq!(rx.recv().unwrap()[..], *b"hello");
    /// # Ok::<(), walchan::Error>(())
    /// ```
    pub fn send(&self, bytes: &[u8]) -> Result<(), SendError<()>> {
        self.send_vectored(&[IoSlice::new(bytes)])
    }

    /// Sends several pieces of bytes as one message.
    ///
    /// # Errors
    ///
    /// As [`Sender::send`](crate::Sender::send).
    ///
    /// ```
    /// use std::io::IoSlice;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let (tx, rx) = walchan::Options::default().bytes_channel(dir.path().join("queue"))?;
    /// tx.send_vectored(&[IoSlice::new(b"head"), IoSlice::new(b"body")]).unwrap();
    /// assert_eq!(rx.recv().unwrap()[..], *b"headbody");
    /// # Ok::<(), walchan::Error>(())
    /// ```
    pub fn send_vectored(&self, pieces: &[IoSlice<'_>]) -> Result<(), SendError<()>> {
        let sent = self.handle.send_bytes(pieces, Wait::No);
        sent.map_err(|not_sent| not_sent.into_send(()))
    }
}

/// The sending half of a bounded channel of bytes: as a [`SyncSender`] in all but that it takes bytes, which
/// are copied once.
///
/// See [`Options::bytes_sync_channel`](crate::Options::bytes_sync_channel) for an example.
pub struct BytesSyncSender {
    handle: Handle<[u8], Bytes>,
}

handle_methods!(
    BytesSyncSender [] [],
    "let (tx, rx) = walchan::Options::default().bytes_sync_channel(dir.path().join(\"queue\"), 8)?;",
    "tx.send(b\"one\").unwrap();"
);

impl BytesSyncSender {
    /// Sends bytes, which are copied once. Waits as [`SyncSender::send`](crate::SyncSender::send) does.
    ///
    /// # Errors
    ///
    /// As [`SyncSender::send`](crate::SyncSender::send).
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let (tx, rx) = walchan::Options::default().bytes_sync_channel(dir.path().join("queue"), 8)?;
    /// tx.send(b"hello").unwrap();
    /// assert_eq!(rx.recv().unwrap()[..], *b"hello");
    /// # Ok::<(), walchan::Error>(())
    /// ```
    pub fn send(&self, bytes: &[u8]) -> Result<(), SendError<()>> {
        self.send_vectored(&[IoSlice::new(bytes)])
    }

    /// Sends several pieces of bytes as one message.
    ///
    /// # Errors
    ///
    /// As [`SyncSender::send`](crate::SyncSender::send).
    ///
    /// ```
    /// use std::io::IoSlice;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let (tx, rx) = walchan::Options::default().bytes_sync_channel(dir.path().join("queue"), 8)?;
    /// tx.send_vectored(&[IoSlice::new(b"head"), IoSlice::new(b"body")]).unwrap();
    /// assert_eq!(rx.recv().unwrap()[..], *b"headbody");
    /// # Ok::<(), walchan::Error>(())
    /// ```
    pub fn send_vectored(&self, pieces: &[IoSlice<'_>]) -> Result<(), SendError<()>> {
        let sent = self.handle.send_bytes(pieces, Wait::Until(None));
        sent.map_err(|not_sent| not_sent.into_send(()))
    }

    /// Sends if there is room; as [`SyncSender::try_send`](crate::SyncSender::try_send).
    ///
    /// # Errors
    ///
    /// [`TrySendError::Full`] if there is no room; else as [`SyncSender::send`](crate::SyncSender::send).
    ///
    /// ```
    /// use walchan::TrySendError;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let (tx, _rx) = walchan::Options::default().bytes_sync_channel(dir.path().join("queue"), 1)?;
    /// assert_eq!(tx.try_send(b"one"), Ok(()));
    /// assert_eq!(tx.try_send(b"two"), Err(TrySendError::Full(())));
    /// # Ok::<(), walchan::Error>(())
    /// ```
    pub fn try_send(&self, bytes: &[u8]) -> Result<(), TrySendError<()>> {
        let sent = self.handle.send_bytes(&[IoSlice::new(bytes)], Wait::No);
        sent.map_err(|not_sent| not_sent.into_try(()))
    }

    /// Sends if there is room in time; as [`SyncSender::send_timeout`](crate::SyncSender::send_timeout).
    ///
    /// # Errors
    ///
    /// [`SendTimeoutError::Timeout`] if there was no room; else as
    /// [`SyncSender::send`](crate::SyncSender::send).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let (tx, _rx) = walchan::Options::default().bytes_sync_channel(dir.path().join("queue"), 1)?;
    /// assert_eq!(tx.send_timeout(b"one", Duration::from_millis(1)), Ok(()));
    /// # Ok::<(), walchan::Error>(())
    /// ```
    pub fn send_timeout(
        &self,
        bytes: &[u8],
        timeout: Duration,
    ) -> Result<(), SendTimeoutError<()>> {
        let wait = Wait::Until(Instant::now().checked_add(timeout));
        let sent = self.handle.send_bytes(&[IoSlice::new(bytes)], wait);
        sent.map_err(|not_sent| not_sent.into_timeout(()))
    }
}
