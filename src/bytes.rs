//! Channels of bytes: what is sent is copied once, into the file's mapping, and what is received is borrowed from there.

use crate::delivery::Receipt;
use crate::error::{
    Error, RecvError, RecvTimeoutError, SendError, SendTimeoutError, TryRecvError, TrySendError,
};
use crate::message_id::MessageId;
use crate::options::{Durability, ReceiverOptions};
use crate::receiver::Receiving;
use crate::sender::{Failed, Sending};
use std::fmt;
use std::io::IoSlice;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};
use walchan_core::channel::{Channel, OnDisk, Parts, Payload};
use walchan_core::commit::Wait;
use walchan_core::recovery::RecoveryReport;

/// The documentation and methods that both sending halves share.
macro_rules! bytes_sender_methods {
    ($name:ident, $open:literal) => {
        impl $name {
            pub(crate) fn new(channel: Arc<Channel<OnDisk>>) -> Self {
                $name {
                    sending: Sending::new(channel),
                }
            }

            /// Whether the receiver is gone, so that no send can succeed any more. Never blocks.
            #[must_use]
            pub fn is_closed(&self) -> bool {
                self.sending.is_closed()
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
            /// tx.send(b"one").unwrap();
            /// # if cfg!(feature = "fsync") {
            /// tx.sync()?;
            /// # }
            /// # Ok::<(), walchan::Error>(())
            /// ```
            pub fn sync(&self) -> Result<(), Error> {
                Ok(self.sending.channel.sync_sent()?)
            }

            /// The durability in force: without the feature `fsync` always [`Durability::FlushOnly`].
            #[must_use]
            pub fn durability(&self) -> Durability {
                Durability::from_mode(self.sending.channel.mode())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name))
                    .field("path", &self.sending.channel.path())
                    .finish_non_exhaustive()
            }
        }
    };
}

/// The sending half of [`bytes_channel`](crate::bytes_channel()).
///
/// As a [`Sender`](crate::Sender) in all but that it takes bytes. Clones send into the same channel.
#[derive(Clone)]
pub struct BytesSender {
    sending: Sending,
}

bytes_sender_methods!(
    BytesSender,
    "let (tx, rx) = walchan::bytes_channel(dir.path().join(\"queue\"))?;"
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
    /// let (tx, rx) = walchan::bytes_channel(dir.path().join("queue"))?;
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
    /// let (tx, rx) = walchan::bytes_channel(dir.path().join("queue"))?;
    /// tx.send_vectored(&[IoSlice::new(b"head"), IoSlice::new(b"body")]).unwrap();
    /// assert_eq!(rx.recv().unwrap()[..], *b"headbody");
    /// # Ok::<(), walchan::Error>(())
    /// ```
    pub fn send_vectored(&self, pieces: &[IoSlice<'_>]) -> Result<(), SendError<()>> {
        let sent = self.sending.send_bytes(pieces, Wait::No);
        sent.map_err(Failed::without_value)
    }
}

/// The sending half of [`bytes_sync_channel`](crate::bytes_sync_channel()): it waits for room.
///
/// As a [`SyncSender`](crate::SyncSender) in all but that it takes bytes. Clones send into the same channel.
#[derive(Clone)]
pub struct BytesSyncSender {
    sending: Sending,
}

bytes_sender_methods!(
    BytesSyncSender,
    "let (tx, rx) = walchan::bytes_sync_channel(dir.path().join(\"queue\"), 8)?;"
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
    /// let (tx, rx) = walchan::bytes_sync_channel(dir.path().join("queue"), 8)?;
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
    /// let (tx, rx) = walchan::bytes_sync_channel(dir.path().join("queue"), 8)?;
    /// tx.send_vectored(&[IoSlice::new(b"head"), IoSlice::new(b"body")]).unwrap();
    /// assert_eq!(rx.recv().unwrap()[..], *b"headbody");
    /// # Ok::<(), walchan::Error>(())
    /// ```
    pub fn send_vectored(&self, pieces: &[IoSlice<'_>]) -> Result<(), SendError<()>> {
        let sent = self.sending.send_bytes(pieces, Wait::Until(None));
        sent.map_err(Failed::without_value)
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
    /// let (tx, _rx) = walchan::bytes_sync_channel(dir.path().join("queue"), 1)?;
    /// assert_eq!(tx.try_send(b"one"), Ok(()));
    /// assert_eq!(tx.try_send(b"two"), Err(TrySendError::Full(())));
    /// # Ok::<(), walchan::Error>(())
    /// ```
    pub fn try_send(&self, bytes: &[u8]) -> Result<(), TrySendError<()>> {
        let sent = self.sending.send_bytes(&[IoSlice::new(bytes)], Wait::No);
        sent.map_err(|failed| failed.into_try(()))
    }

    /// Sends if there is room in time; as [`SyncSender::send_timeout`](crate::SyncSender::send_timeout).
    ///
    /// # Errors
    ///
    /// [`SendTimeoutError::Timeout`] if there was no room; else as [`SyncSender::send`](crate::SyncSender::send).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let (tx, _rx) = walchan::bytes_sync_channel(dir.path().join("queue"), 1)?;
    /// assert_eq!(tx.send_timeout(b"one", Duration::from_millis(1)), Ok(()));
    /// # Ok::<(), walchan::Error>(())
    /// ```
    pub fn send_timeout(
        &self,
        bytes: &[u8],
        timeout: Duration,
    ) -> Result<(), SendTimeoutError<()>> {
        let wait = Wait::Until(Instant::now().checked_add(timeout));
        let sent = self.sending.send_bytes(&[IoSlice::new(bytes)], wait);
        sent.map_err(|failed| failed.into_timeout(()))
    }
}

/// Received bytes, in the channel's file: they are borrowed, until this is dropped, which acknowledges them.
///
/// As a [`Delivery`](crate::Delivery) in all but that it derefs to bytes. Each keeps its channel, and with it the mapping, open. The
/// bytes do not change, as long as no other program writes to the file.
///
/// ```
/// use walchan::BytesDelivery;
///
/// # let dir = tempfile::tempdir()?;
/// let (tx, rx) = walchan::bytes_channel(dir.path().join("queue"))?;
/// tx.send(b"work").unwrap();
/// let delivery = rx.recv().unwrap();
/// assert_eq!(delivery.len(), 4);
/// assert_eq!(BytesDelivery::deliveries(&delivery), 1);
/// println!("{}", BytesDelivery::id(&delivery));
/// drop(delivery); // acknowledged
/// # Ok::<(), walchan::Error>(())
/// ```
pub struct BytesDelivery {
    payload: Payload,
    receipt: Receipt,
}

impl BytesDelivery {
    /// Acknowledges, as dropping does, and tells whether the channel still works; as [`Delivery::ack`](crate::Delivery::ack).
    ///
    /// # Errors
    ///
    /// As [`Delivery::ack`](crate::Delivery::ack).
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let (tx, rx) = walchan::bytes_channel(dir.path().join("queue"))?;
    /// # tx.send(b"one").unwrap();
    /// walchan::BytesDelivery::ack(rx.recv().unwrap())?;
    /// # Ok::<(), walchan::Error>(())
    /// ```
    pub fn ack(delivery: Self) -> Result<(), Error> {
        delivery.receipt.acknowledge()
    }

    /// Leaves the message as it is: this life does not deliver it again, the next one does.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let (tx, rx) = walchan::bytes_channel(dir.path().join("queue"))?;
    /// # tx.send(b"one").unwrap();
    /// walchan::BytesDelivery::leave(rx.recv().unwrap());
    /// # Ok::<(), walchan::Error>(())
    /// ```
    pub fn leave(delivery: Self) {
        delivery.receipt.leave();
    }

    /// The id of the message: the same each time it is delivered.
    #[must_use]
    pub fn id(delivery: &Self) -> MessageId {
        delivery.receipt.id()
    }

    /// How often the message has been delivered; as [`Delivery::deliveries`](crate::Delivery::deliveries).
    #[must_use]
    pub fn deliveries(delivery: &Self) -> u32 {
        delivery.receipt.deliveries()
    }
}

impl Deref for BytesDelivery {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.payload {
            Payload::Lent(lent) => lent,
            Payload::Copied(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for BytesDelivery {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for BytesDelivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BytesDelivery").field(&&self[..]).finish()
    }
}

impl PartialEq for BytesDelivery {
    fn eq(&self, other: &Self) -> bool {
        self[..] == other[..]
    }
}

impl Eq for BytesDelivery {}

/// The receiving half of a channel of bytes.
///
/// As a [`Receiver`](crate::Receiver) in all but that its deliveries are bytes, which are never undecodable.
pub struct BytesReceiver {
    receiving: Receiving,
}

impl BytesReceiver {
    pub(crate) fn new(parts: Parts<OnDisk>) -> Self {
        BytesReceiver {
            receiving: Receiving::new(parts),
        }
    }

    #[inline(always)]
    fn receive(&self, wait: Wait) -> Option<Result<BytesDelivery, RecvError>> {
        self.receiving.receive(wait, |channel, message, reading| {
            Ok(BytesDelivery {
                payload: reading.take_payload(message.lent),
                receipt: Receipt::new(channel.lease(), message.in_flight),
            })
        })
    }

    /// Receives the next message. Waits while there is none and a sender is left.
    ///
    /// # Errors
    ///
    /// As [`Receiver::recv`](crate::Receiver::recv).
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let (tx, rx) = walchan::bytes_channel(dir.path().join("queue"))?;
    /// tx.send(b"one").unwrap();
    /// drop(tx);
    /// assert_eq!(rx.recv().unwrap()[..], *b"one");
    /// assert_eq!(rx.recv(), Err(walchan::RecvError::Disconnected));
    /// # Ok::<(), walchan::Error>(())
    /// ```
    #[inline]
    pub fn recv(&self) -> Result<BytesDelivery, RecvError> {
        loop {
            if let Some(received) = self.receive(Wait::Until(None)) {
                return received;
            }
        }
    }

    /// Receives a message if there is one. Does not wait for one.
    ///
    /// # Errors
    ///
    /// As [`Receiver::try_recv`](crate::Receiver::try_recv).
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let (_tx, rx) = walchan::bytes_channel(dir.path().join("queue"))?;
    /// assert_eq!(rx.try_recv(), Err(walchan::TryRecvError::Empty));
    /// # Ok::<(), walchan::Error>(())
    /// ```
    pub fn try_recv(&self) -> Result<BytesDelivery, TryRecvError> {
        match self.receive(Wait::No) {
            Some(received) => Ok(received?),
            None => Err(TryRecvError::Empty),
        }
    }

    /// Receives a message if there is one in time.
    ///
    /// # Errors
    ///
    /// As [`Receiver::recv_timeout`](crate::Receiver::recv_timeout).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let (_tx, rx) = walchan::bytes_channel(dir.path().join("queue"))?;
    /// let received = rx.recv_timeout(Duration::from_millis(1));
    /// assert_eq!(received, Err(walchan::RecvTimeoutError::Timeout));
    /// # Ok::<(), walchan::Error>(())
    /// ```
    pub fn recv_timeout(&self, timeout: Duration) -> Result<BytesDelivery, RecvTimeoutError> {
        let deadline = Instant::now().checked_add(timeout);
        match self.receive(Wait::Until(deadline)) {
            Some(received) => Ok(received?),
            None => Err(RecvTimeoutError::Timeout),
        }
    }

    /// Iterates over the messages, waiting for each; as [`Receiver::iter`](crate::Receiver::iter).
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let (tx, rx) = walchan::bytes_channel(dir.path().join("queue"))?;
    /// tx.send(b"one").unwrap();
    /// drop(tx);
    /// for delivery in rx.iter() {
    ///     assert_eq!(delivery[..], *b"one");
    /// }
    /// # Ok::<(), walchan::Error>(())
    /// ```
    pub fn iter(&self) -> BytesIter<'_> {
        BytesIter { receiver: self }
    }

    /// Iterates over the messages that are there; as [`Receiver::try_iter`](crate::Receiver::try_iter).
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let (tx, rx) = walchan::bytes_channel(dir.path().join("queue"))?;
    /// tx.send(b"one").unwrap();
    /// assert_eq!(rx.try_iter().count(), 1);
    /// # Ok::<(), walchan::Error>(())
    /// ```
    pub fn try_iter(&self) -> BytesTryIter<'_> {
        BytesTryIter { receiver: self }
    }

    /// Chooses when acknowledgements give their space back and become durable; as
    /// [`Receiver::with_options`](crate::Receiver::with_options).
    #[must_use]
    pub fn with_options(self, options: ReceiverOptions) -> Self {
        self.receiving.set_options(options);
        self
    }

    /// What was found when the channel was opened.
    #[must_use]
    pub fn recovery(&self) -> &RecoveryReport {
        self.receiving.report()
    }

    /// The durability in force: without the feature `fsync` always [`Durability::FlushOnly`].
    #[must_use]
    pub fn durability(&self) -> Durability {
        Durability::from_mode(self.receiving.channel().mode())
    }

    /// Returns when everything acknowledged before the call is so on stable storage; as
    /// [`Receiver::sync`](crate::Receiver::sync).
    ///
    /// # Errors
    ///
    /// As [`Receiver::sync`](crate::Receiver::sync).
    pub fn sync(&self) -> Result<(), Error> {
        Ok(self.receiving.channel().sync_progress()?)
    }

    /// Closes the channel for senders; as [`Receiver::close`](crate::Receiver::close).
    ///
    /// # Errors
    ///
    /// As [`Receiver::close`](crate::Receiver::close).
    pub fn close(mut self) -> Result<(), Error> {
        self.receiving.leave()
    }
}

impl fmt::Debug for BytesReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BytesReceiver")
            .field("path", &self.receiving.channel().path())
            .finish_non_exhaustive()
    }
}

/// Messages, waiting for each; see [`BytesReceiver::iter`] for an example.
#[derive(Debug)]
pub struct BytesIter<'a> {
    receiver: &'a BytesReceiver,
}

impl Iterator for BytesIter<'_> {
    type Item = BytesDelivery;

    #[inline]
    fn next(&mut self) -> Option<BytesDelivery> {
        let received = self.receiver.receive(Wait::Until(None))?;
        self.receiver.receiving.stash(received)
    }
}

/// Messages that are there; see [`BytesReceiver::try_iter`] for an example.
#[derive(Debug)]
pub struct BytesTryIter<'a> {
    receiver: &'a BytesReceiver,
}

impl Iterator for BytesTryIter<'_> {
    type Item = BytesDelivery;

    #[inline]
    fn next(&mut self) -> Option<BytesDelivery> {
        let received = self.receiver.receive(Wait::No)?;
        self.receiver.receiving.stash(received)
    }
}

impl<'a> IntoIterator for &'a BytesReceiver {
    type Item = BytesDelivery;
    type IntoIter = BytesIter<'a>;

    fn into_iter(self) -> BytesIter<'a> {
        self.iter()
    }
}
