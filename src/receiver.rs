//! The receiving half.

use crate::codec::{BYTES_ID, Bincode, Codec, SEALED};
use crate::delivery::{Delivery, Receipt, note_panicking};
use crate::error::Error;
use crate::message::{Bytes, Deliverable};
use crate::options::{Durability, ReceiverOptions};
use crate::recv_error::{RecvError, RecvTimeoutError, TryRecvError};
use crate::undelivered::{Corrupt, Undecodable, Undelivered};
use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};
use walchan_core::channel::{Channel, Message, OnDisk, Parts, ReceiverState};
use walchan_core::commit::Wait;
use walchan_core::recovery::RecoveryReport;
use walchan_core::ring::Received;
use walchan_core::storage::lease::{Lessor, Stays};

/// What changes with each message.
#[derive(Debug)]
struct Current {
    state: ReceiverState<OnDisk>,
    /// The error at which an iterator stopped: the next `recv` returns it.
    stashed: Option<Box<RecvError>>,
}

/// The receiver's half of a channel, whatever it carries.
#[derive(Debug)]
struct Half {
    /// `None` once it has left the channel.
    channel: Option<Lessor<Arc<Channel<OnDisk>>>>,
    current: RefCell<Current>,
    report: RecoveryReport,
}

impl Half {
    fn new(parts: Parts<OnDisk>) -> Self {
        let (channel, state, report) = parts;
        Half {
            channel: Some(Lessor::new(channel)),
            current: RefCell::new(Current {
                state,
                stashed: None,
            }),
            report,
        }
    }

    #[inline]
    fn channel(&self) -> &Lessor<Arc<Channel<OnDisk>>> {
        // Only `leave` takes it, and whoever calls that has the receiver to itself, for the last time.
        self.channel
            .as_ref()
            .expect("the channel is there until the receiver is gone")
    }

    /// The error of a receive that gave no message; `None` if there was nothing in time.
    #[cold]
    #[inline(never)]
    fn no_message(
        &self,
        received: Received<Message<OnDisk>>,
        state: &ReceiverState<OnDisk>,
    ) -> Option<RecvError> {
        match received {
            Received::Damage { place, end } => {
                let (place, bytes) = (place.in_flight, state.damaged_bytes());
                let undelivered = Undelivered::new(self.channel(), place, bytes);
                Some(RecvError::Corrupt(Corrupt { undelivered, end }))
            }
            Received::Disconnected => Some(RecvError::Disconnected),
            Received::Failed(error) => Some(RecvError::Io(error)),
            Received::Message(_) | Received::Empty | Received::End => None,
        }
    }

    /// Keeps the error at which an iterator stops for the next `recv`.
    #[cold]
    #[inline(never)]
    fn stash(&self, error: RecvError) {
        if !matches!(error, RecvError::Disconnected) {
            let mut current = self.current.borrow_mut();
            current.stashed = Some(Box::new(error));
            current.state.pause();
        }
    }

    /// Leaves the channel, and closes it if nothing else keeps it open. `Ok`: it is closed.
    fn leave(&mut self) -> Result<(), Error> {
        let Some(channel) = self.channel.take() else {
            return Ok(());
        };
        let stashed = self.current.get_mut().stashed.take();
        let shared = Arc::clone(channel.shared());
        if channel.is_of_parent() {
            // Not even a lock is taken here: a thread of the parent may have had it.
            std::mem::forget(stashed);
            return Err(Error::InUse {
                senders: shared.senders(),
                deliveries: 0,
            });
        }
        drop(stashed);
        shared.receiver_left();
        let checked = shared.check();
        // Before the look at who keeps the channel: a sender that still does is counted.
        let senders = shared.senders();
        let deliveries = match channel.end().map(Arc::into_inner) {
            Ok(Some(mut channel)) => return Ok(channel.shut()?),
            Err(Stays::Leased(left)) => left,
            Ok(None) | Err(Stays::OfParent) => 0,
            Err(Stays::Refused(refused)) => {
                shared.poison(&refused.into());
                return Ok(shared.check()?);
            }
        };
        checked?;
        Err(Error::InUse {
            senders,
            deliveries,
        })
    }

    /// What is not on the straight path, or not there yet.
    #[inline(never)]
    fn receive_otherwise(
        &self,
        state: &mut ReceiverState<OnDisk>,
        wait: Wait,
    ) -> Received<Message<OnDisk>> {
        let mut received = self.channel().receive(state, wait);
        if let Received::Message(message) = &mut received {
            note_panicking(&mut message.in_flight);
        }
        received
    }

    /// `None` if there is nothing in time. `deliver` makes of a message, and of the state that has its
    /// payload if that was copied, what the user gets.
    #[inline(always)]
    fn receive<D>(
        &self,
        wait: Wait,
        deliver: impl FnOnce(
            &Lessor<Arc<Channel<OnDisk>>>,
            Message<OnDisk>,
            &mut ReceiverState<OnDisk>,
        ) -> Result<D, RecvError>,
    ) -> Option<Result<D, RecvError>> {
        let mut current = self.current.borrow_mut();
        let Current { state, stashed } = &mut *current;
        let channel = self.channel();
        let message = match channel.receive_at_once(state) {
            Some(message) => message,
            None if stashed.is_some() => {
                state.resume();
                return stashed.take().map(|error| Err(*error));
            }
            None => match self.receive_otherwise(state, wait) {
                Received::Message(message) => message,
                other => return self.no_message(other, state).map(Err),
            },
        };
        Some(deliver(channel, message, state))
    }
}

impl Drop for Half {
    /// An error has nobody to go to: [`Receiver::close`] is for those who want it.
    fn drop(&mut self) {
        self.leave().ok();
    }
}

/// How a receiver makes of a message what it delivers. All codecs do, and [`Bytes`].
#[doc(hidden)]
pub trait Deliver<T: ?Sized + Deliverable>: 'static {
    /// The number of the codec in the file.
    const FILE_ID: u32;

    /// Of the message that was read last.
    fn deliver(
        channel: &Lessor<Arc<Channel<OnDisk>>>,
        message: Message<OnDisk>,
        state: &mut ReceiverState<OnDisk>,
    ) -> Result<Delivery<T>, RecvError>;
}

impl<T, C: Codec<T>> Deliver<T> for C {
    const FILE_ID: u32 = C::ID;

    #[inline(always)]
    fn deliver(
        channel: &Lessor<Arc<Channel<OnDisk>>>,
        message: Message<OnDisk>,
        state: &mut ReceiverState<OnDisk>,
    ) -> Result<Delivery<T>, RecvError> {
        let payload = state.payload(&message.lent);
        match C::decode_caught(payload, SEALED) {
            Ok(value) => {
                let receipt = Receipt::new(channel.lease(), message.in_flight);
                Ok(Delivery::new(value, receipt))
            }
            Err(cause) => Err(RecvError::Undecodable(Undecodable {
                deliveries: message.in_flight.deliveries,
                undelivered: Undelivered::new(channel, message.in_flight, payload),
                cause,
            })),
        }
    }
}

impl Deliver<[u8]> for Bytes {
    const FILE_ID: u32 = BYTES_ID;

    #[inline(always)]
    fn deliver(
        channel: &Lessor<Arc<Channel<OnDisk>>>,
        message: Message<OnDisk>,
        state: &mut ReceiverState<OnDisk>,
    ) -> Result<Delivery<[u8]>, RecvError> {
        let receipt = Receipt::new(channel.lease(), message.in_flight);
        Ok(Delivery::new(state.take_payload(message.lent), receipt))
    }
}

/// The receiving half of a channel.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let (tx, rx) = walchan::channel(dir.path().join("queue"))?;
/// tx.send("hello".to_owned()).unwrap();
/// assert_eq!(*rx.recv().unwrap(), "hello");
/// println!("{}, {:?}", rx.recovery(), rx.durability());
/// # Ok::<(), walchan::Error>(())
/// ```
///
/// There is one. It may move to another thread, and its deliveries may go anywhere. Dropping it closes the
/// channel for senders; what is not acknowledged stays for the next open.
///
/// Messages that were in the file when it was opened are read into a buffer; one of more than 1 MiB is given
/// back when the receiver next looks for a message that is not yet there, was there before, or came back.
pub struct Receiver<T: ?Sized, C = Bincode> {
    half: Half,
    message: PhantomData<fn() -> Box<T>>,
    codec: PhantomData<fn() -> C>,
}

/// The receiving half of a channel of bytes: its deliveries are borrowed from the channel's file.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let (tx, rx) = walchan::Options::default().bytes_channel(dir.path().join("queue"))?;
/// let rx: walchan::BytesReceiver = rx;
/// tx.send(b"hello").unwrap();
/// assert_eq!(rx.recv().unwrap()[..], *b"hello");
/// # Ok::<(), walchan::Error>(())
/// ```
pub type BytesReceiver = Receiver<[u8], crate::Bytes>;

impl<T: ?Sized, C> Receiver<T, C> {
    pub(crate) fn new(parts: Parts<OnDisk>) -> Self {
        Receiver {
            half: Half::new(parts),
            message: PhantomData,
            codec: PhantomData,
        }
    }

    /// Chooses when acknowledgements give their space back and become durable.
    ///
    /// See [`ReceiverOptions`] for an example.
    #[must_use]
    pub fn with_options(self, options: ReceiverOptions) -> Self {
        let shared = self.half.channel().shared();
        shared.set_commit_every(options.commit_every as u64);
        shared.timer.set_commit_delay(options.commit_max_delay);
        self
    }

    /// What was found when the channel was opened.
    #[must_use]
    pub fn recovery(&self) -> &RecoveryReport {
        &self.half.report
    }

    /// The durability in force: without the feature `fsync` always [`Durability::FlushOnly`].
    #[must_use]
    pub fn durability(&self) -> Durability {
        Durability::from_mode(self.half.channel().mode())
    }

    /// Returns when everything acknowledged before the call is so on stable storage: after a power cut
    /// it does not come back. Waits for the disk.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]: a sync failed, now or earlier. Without the feature `fsync` it is of kind `Unsupported`.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let (tx, rx) = walchan::channel(dir.path().join("queue"))?;
    /// tx.send(1).unwrap();
    /// drop(rx.recv().unwrap());
    /// # if cfg!(feature = "fsync") {
    /// rx.sync()?;
    /// # }
    /// # Ok::<(), walchan::Error>(())
    /// ```
    pub fn sync(&self) -> Result<(), Error> {
        Ok(self.half.channel().sync_progress()?)
    }

    /// Closes the channel for senders, and closes it: the file is synced, marked as closed in order, and
    /// unlocked. After `Ok` it can be opened again at once.
    ///
    /// A receiver that got [`RecvError::Disconnected`] and holds no delivery finds nothing else that keeps
    /// the channel open. Where a sender or a delivery still does, the channel closes when the last of them is
    /// dropped, in whatever thread that is, and an error of that is lost.
    ///
    /// Dropping the receiver does the same, and swallows the error.
    ///
    /// # Errors
    ///
    /// [`Error::InUse`]: a sender or a delivery keeps the channel open.
    ///
    /// [`Error::Io`]: a sync failed, now or earlier, or a segment could not be opened when the receiver came
    /// to it. The next open recovers what is there.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let (tx, rx) = walchan::channel::<u8>(dir.path().join("queue"))?;
    /// drop(tx);
    /// rx.close()?;
    ///
    /// let (tx, rx) = walchan::channel::<u8>(dir.path().join("queue"))?;
    /// tx.send(1).unwrap();
    /// let delivery = rx.recv().unwrap();
    /// let in_use = walchan::Error::InUse { senders: 1, deliveries: 1 };
    /// assert_eq!(rx.close(), Err(in_use));
    /// drop((tx, delivery)); // closed now
    /// # Ok::<(), walchan::Error>(())
    /// ```
    pub fn close(mut self) -> Result<(), Error> {
        self.half.leave()
    }
}

impl<T: ?Sized + Deliverable, C: Deliver<T>> Receiver<T, C> {
    /// `None` if there is nothing in time.
    #[inline(always)]
    fn receive(&self, wait: Wait) -> Option<Result<Delivery<T>, RecvError>> {
        self.half.receive(wait, |channel, message, state| {
            C::deliver(channel, message, state)
        })
    }

    /// Receives the next message. Waits while there is none and a sender is left.
    ///
    /// # Errors
    ///
    /// See [`RecvError`]. After `Undecodable` and `Corrupt`, each of which is returned once until the next
    /// open, the next call goes on behind.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let (tx, rx) = walchan::channel(dir.path().join("queue"))?;
    /// tx.send(1).unwrap();
    /// drop(tx);
    /// assert_eq!(rx.recv().unwrap(), 1);
    /// assert_eq!(rx.recv(), Err(walchan::RecvError::Disconnected));
    /// # Ok::<(), walchan::Error>(())
    /// ```
    #[inline]
    pub fn recv(&self) -> Result<Delivery<T>, RecvError> {
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
    /// [`TryRecvError::Empty`] if there is none; else as [`Receiver::recv`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let (tx, rx) = walchan::channel(dir.path().join("queue"))?;
    /// assert_eq!(rx.try_recv(), Err(walchan::TryRecvError::Empty));
    /// tx.send(1).unwrap();
    /// assert_eq!(rx.try_recv().unwrap(), 1);
    /// # Ok::<(), walchan::Error>(())
    /// ```
    pub fn try_recv(&self) -> Result<Delivery<T>, TryRecvError> {
        match self.receive(Wait::No) {
            Some(received) => Ok(received?),
            None => Err(TryRecvError::Empty),
        }
    }

    /// Receives a message if there is one in time. A timeout beyond what `Instant` can represent never ends.
    ///
    /// # Errors
    ///
    /// [`RecvTimeoutError::Timeout`] if there was none; else as [`Receiver::recv`].
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let (_tx, rx) = walchan::channel::<u8>(dir.path().join("queue"))?;
    /// let received = rx.recv_timeout(Duration::from_millis(1));
    /// assert_eq!(received, Err(walchan::RecvTimeoutError::Timeout));
    /// # Ok::<(), walchan::Error>(())
    /// ```
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Delivery<T>, RecvTimeoutError> {
        self.receive_until(Instant::now().checked_add(timeout))
    }

    /// Receives a message if there is one before the deadline.
    ///
    /// # Errors
    ///
    /// [`RecvTimeoutError::Timeout`] if there was none; else as [`Receiver::recv`].
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let (_tx, rx) = walchan::channel::<u8>(dir.path().join("queue"))?;
    /// let received = rx.recv_deadline(Instant::now() + Duration::from_millis(1));
    /// assert_eq!(received, Err(walchan::RecvTimeoutError::Timeout));
    /// # Ok::<(), walchan::Error>(())
    /// ```
    pub fn recv_deadline(&self, deadline: Instant) -> Result<Delivery<T>, RecvTimeoutError> {
        self.receive_until(Some(deadline))
    }

    fn receive_until(&self, deadline: Option<Instant>) -> Result<Delivery<T>, RecvTimeoutError> {
        match self.receive(Wait::Until(deadline)) {
            Some(received) => Ok(received?),
            None => Err(RecvTimeoutError::Timeout),
        }
    }

    /// Iterates over the messages that are there, without waiting.
    ///
    /// It stops before an error, which the next `recv` returns.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let (tx, rx) = walchan::channel(dir.path().join("queue"))?;
    /// tx.send(1).unwrap();
    /// tx.send(2).unwrap();
    /// assert_eq!(rx.try_iter().map(|d| *d).sum::<i32>(), 3);
    /// # Ok::<(), walchan::Error>(())
    /// ```
    pub fn try_iter(&self) -> TryIter<'_, T, C> {
        TryIter { receiver: self }
    }

    /// Iterates over the messages, waiting for each.
    ///
    /// It ends when all senders are gone, and stops before an error, which the next `recv` returns.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let (tx, rx) = walchan::channel(dir.path().join("queue"))?;
    /// tx.send(1).unwrap();
    /// drop(tx);
    /// for delivery in rx.iter() {
    ///     assert_eq!(*delivery, 1); // acknowledged here, at the end of the body
    /// }
    /// # Ok::<(), walchan::Error>(())
    /// ```
    pub fn iter(&self) -> Iter<'_, T, C> {
        Iter { receiver: self }
    }

    /// The next message; an error is kept for the next `recv`.
    #[inline(always)]
    fn next(&self, wait: Wait) -> Option<Delivery<T>> {
        match self.receive(wait)? {
            Ok(delivery) => Some(delivery),
            Err(error) => {
                self.half.stash(error);
                None
            }
        }
    }
}

impl<T: ?Sized, C> fmt::Debug for Receiver<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("path", &self.half.channel().path())
            .finish_non_exhaustive()
    }
}

// What a panic could interrupt is user code that decodes, and that is caught.
impl<T: ?Sized, C> UnwindSafe for Receiver<T, C> {}
impl<T: ?Sized, C> RefUnwindSafe for Receiver<T, C> {}

/// Messages that are there; see [`Receiver::try_iter`] for an example.
#[derive(Debug)]
pub struct TryIter<'a, T: ?Sized, C = Bincode> {
    receiver: &'a Receiver<T, C>,
}

impl<T: ?Sized + Deliverable, C: Deliver<T>> Iterator for TryIter<'_, T, C> {
    type Item = Delivery<T>;

    #[inline]
    fn next(&mut self) -> Option<Delivery<T>> {
        self.receiver.next(Wait::No)
    }
}

/// Messages, waiting for each; see [`Receiver::iter`] for an example.
#[derive(Debug)]
pub struct Iter<'a, T: ?Sized, C = Bincode> {
    receiver: &'a Receiver<T, C>,
}

impl<T: ?Sized + Deliverable, C: Deliver<T>> Iterator for Iter<'_, T, C> {
    type Item = Delivery<T>;

    #[inline]
    fn next(&mut self) -> Option<Delivery<T>> {
        self.receiver.next(Wait::Until(None))
    }
}

/// Messages, waiting for each, from a receiver of its own.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let (tx, rx) = walchan::channel(dir.path().join("queue"))?;
/// tx.send(1).unwrap();
/// drop(tx);
/// assert_eq!(rx.into_iter().map(|d| *d).collect::<Vec<i32>>(), [1]);
/// # Ok::<(), walchan::Error>(())
/// ```
#[derive(Debug)]
pub struct IntoIter<T: ?Sized, C = Bincode> {
    receiver: Receiver<T, C>,
}

impl<T: ?Sized, C> IntoIter<T, C> {
    /// Gives the receiver back, for the error at which the iteration stopped.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let (tx, rx) = walchan::channel::<u8>(dir.path().join("queue"))?;
    /// drop(tx);
    /// let mut messages = rx.into_iter();
    /// assert!(messages.next().is_none());
    /// assert_eq!(messages.into_receiver().recv(), Err(walchan::RecvError::Disconnected));
    /// # Ok::<(), walchan::Error>(())
    /// ```
    #[must_use]
    pub fn into_receiver(self) -> Receiver<T, C> {
        self.receiver
    }
}

impl<T: ?Sized + Deliverable, C: Deliver<T>> Iterator for IntoIter<T, C> {
    type Item = Delivery<T>;

    #[inline]
    fn next(&mut self) -> Option<Delivery<T>> {
        self.receiver.next(Wait::Until(None))
    }
}

impl<'a, T: ?Sized + Deliverable, C: Deliver<T>> IntoIterator for &'a Receiver<T, C> {
    type Item = Delivery<T>;
    type IntoIter = Iter<'a, T, C>;

    fn into_iter(self) -> Iter<'a, T, C> {
        self.iter()
    }
}

impl<T: ?Sized + Deliverable, C: Deliver<T>> IntoIterator for Receiver<T, C> {
    type Item = Delivery<T>;
    type IntoIter = IntoIter<T, C>;

    fn into_iter(self) -> IntoIter<T, C> {
        IntoIter { receiver: self }
    }
}
