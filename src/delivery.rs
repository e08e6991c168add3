//! A message in the hands of the receiver, until it is acknowledged.

use crate::error::Error;
use crate::message::Deliverable;
use crate::message_id::MessageId;
use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::ops::{Deref, DerefMut};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::thread;
use walchan_core::channel::{Channel, InFlight, OnDisk};
use walchan_core::planted::planted;
use walchan_core::storage::lease::Lease;

/// Where the thread is noted: above the count of deliveries, which is small. A field of its own would cost
/// each delivery ten instructions.
const THREAD_SHIFT: u32 = 32;

/// Notes a thread that is panicking already when it receives a message that was delivered before.
///
/// Without this such a thread would receive what it drops again and again, and a destructor that drains the
/// receiver would not end.
pub(crate) fn note_panicking(message: &mut InFlight<OnDisk>) {
    if message.deliveries > 1 && thread::panicking() {
        message.deliveries |= this_thread() << THREAD_SHIFT;
    }
}

/// Not 0, and of the few threads that panic at a time each has another.
#[cold]
fn this_thread() -> u64 {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(thread::current().id());
    u64::from(hash as u32 | 1)
}

/// What acknowledges a delivery when it is gone, and keeps the channel open until then.
pub(crate) struct Receipt {
    // First: whoever finds that no delivery is left finds that none leads to a file.
    message: InFlight<OnDisk>,
    channel: Lease<Arc<Channel<OnDisk>>>,
    /// Leave the message as it is.
    leave: bool,
}

impl Drop for Receipt {
    #[inline(never)]
    fn drop(&mut self) {
        if self.leave {
            // The next open delivers it.
        } else if thread::panicking() {
            self.settle_in_panic();
        } else {
            self.channel.acknowledge(&self.message);
        }
    }
}

impl Receipt {
    #[inline(always)]
    pub(crate) fn new(channel: Lease<Arc<Channel<OnDisk>>>, message: InFlight<OnDisk>) -> Self {
        Receipt {
            channel,
            message,
            leave: false,
        }
    }

    /// Gives back; but acknowledges if the panic is older than the delivery, and the message was delivered
    /// before.
    #[cold]
    #[inline(never)]
    fn settle_in_panic(&self) {
        let is_older = self.message.deliveries >> THREAD_SHIFT == this_thread();
        let comes_back = !is_older || planted!("comes_back_for_ever");
        if comes_back && !planted!("ack_on_panic") {
            self.channel.shared().give_back(self.message.position);
        } else {
            self.channel.acknowledge(&self.message);
        }
    }

    pub(crate) fn leave(mut self) {
        self.leave = true;
    }

    /// Whether the thread is panicking or not.
    pub(crate) fn acknowledge(self) {
        self.channel.acknowledge(&self.message);
        self.leave();
    }

    /// The same; tells whether the channel still works.
    pub(crate) fn acknowledge_and_check(self) -> Result<(), Error> {
        self.channel.acknowledge(&self.message);
        let checked = self.channel.shared().check();
        self.leave();
        Ok(checked?)
    }

    pub(crate) fn id(&self) -> MessageId {
        MessageId::new(self.message.position, self.channel.tag(&self.message))
    }

    pub(crate) fn deliveries(&self) -> u32 {
        self.message.deliveries as u32
    }
}

/// A received message.
///
/// Dropping it acknowledges the message: it is done, and will not come back. In a panicking thread dropping
/// does the opposite: the message comes back, as the next one. Until one or the other the message counts as
/// unacknowledged: if the process ends before that, the next open delivers it again.
///
/// # An early return acknowledges
///
/// An error is no panic. A handler that returns early, by `?` for example, drops the delivery like any other,
/// and thereby acknowledges work that it has not done. Where that must not be, it leaves the message to the
/// next open by [`Delivery::leave`]:
///
/// ```
/// use walchan::Delivery;
///
/// fn work(job: &str) -> Result<(), std::num::ParseIntError> {
///     println!("{}", job.parse::<u32>()?);
///     Ok(())
/// }
///
/// fn handle(delivery: Delivery<String>) -> Result<(), std::num::ParseIntError> {
///     match work(&delivery) {
///         Ok(()) => Ok(()), // the end of the function drops it: acknowledged
///         Err(error) => {
///             Delivery::leave(delivery); // `work(&delivery)?` would have acknowledged it
///             Err(error)
///         }
///     }
/// }
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("queue");
/// let (tx, rx) = walchan::channel::<String>(&path)?;
/// tx.send("17".to_owned()).unwrap();
/// tx.send("not a number".to_owned()).unwrap();
/// assert!(handle(rx.recv().unwrap()).is_ok());
/// assert!(handle(rx.recv().unwrap()).is_err());
/// drop((tx, rx));
///
/// let (_tx, rx) = walchan::channel::<String>(&path)?;
/// assert_eq!(*rx.recv().unwrap(), "not a number");
/// # Ok::<(), walchan::Error>(())
/// ```
///
/// # The ways out
///
/// | way out | in any thread | in a panicking thread |
/// |---|---|---|
/// | drop | acknowledges | gives back; acknowledges what this panic has already seen come back |
/// | [`Delivery::ack`], [`Delivery::into_inner`] | acknowledges | acknowledges |
/// | [`Delivery::leave`] | leaves it to the next open | leaves it to the next open |
///
/// To give back while a thread panics is to deliver again: to the next receive, which may be one of a
/// destructor in the same thread. So that draining the receiver there ends, a message that was delivered
/// before, and is received by a thread that is panicking already, is acknowledged when that thread drops it.
///
/// # Holding deliveries
///
/// Deliveries may be held, moved to other threads, and dropped in any order. Each keeps the channel open; one
/// that is forgotten (`std::mem::forget`) keeps its file locked until the process ends. Settling a delivery
/// waits for no sync, unless it is the last thing that kept the channel open: then the channel closes, which
/// syncs the file. (It stores to a mapped page, for which, as for any, the kernel may have to wait.)
///
/// What is not named as a method here is an associated function, so that it cannot hide a method of `T`.
///
/// That of a channel of bytes, a `Delivery<[u8]>`, borrows them from the channel's file, and keeps the
/// mapping there until it is dropped. The bytes do not change, as long as no other program writes to the
/// file.
///
/// ```
/// use walchan::Delivery;
///
/// # let dir = tempfile::tempdir()?;
/// let (tx, rx) = walchan::channel(dir.path().join("queue"))?;
/// tx.send("work".to_owned()).unwrap();
///
/// let delivery = rx.recv().unwrap();
/// assert_eq!(delivery.len(), 4); // derefs to the message
/// assert_eq!(Delivery::deliveries(&delivery), 1);
/// drop(delivery); // acknowledged
/// # Ok::<(), walchan::Error>(())
/// ```
pub struct Delivery<T: ?Sized + Deliverable> {
    message: T::Kept,
    receipt: Receipt,
}

/// Received bytes, in the channel's file: borrowed until this is dropped, which acknowledges them.
///
/// ```
/// use walchan::{BytesDelivery, Options};
///
/// # let dir = tempfile::tempdir()?;
/// let (tx, rx) = Options::default().bytes_channel(dir.path().join("queue"))?;
/// tx.send(b"work").unwrap();
/// let delivery: BytesDelivery = rx.recv().unwrap();
/// assert_eq!(delivery.len(), 4);
/// assert_eq!(BytesDelivery::deliveries(&delivery), 1);
/// println!("{}", BytesDelivery::id(&delivery));
/// drop(delivery); // acknowledged
/// # Ok::<(), walchan::Error>(())
/// ```
pub type BytesDelivery = Delivery<[u8]>;

impl<T: ?Sized + Deliverable> Delivery<T> {
    #[inline(always)]
    pub(crate) fn new(message: T::Kept, receipt: Receipt) -> Self {
        Delivery { message, receipt }
    }

    /// The message.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let (tx, rx) = walchan::channel(dir.path().join("queue"))?;
    /// # tx.send(1).unwrap();
    /// let mut delivery = rx.recv().unwrap();
    /// assert_eq!(*delivery.get(), 1);
    /// *delivery.get_mut() += 1;
    /// assert_eq!(delivery.copied(), 2);
    /// assert_eq!(delivery.into_inner(), 2); // acknowledged
    /// # Ok::<(), walchan::Error>(())
    /// ```
    #[inline]
    pub fn get(&self) -> &T {
        T::get(&self.message)
    }

    /// Acknowledges, in a panicking thread too, and tells whether the channel still works. Waits for no sync.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]: a sync of the channel failed, so after a power cut the message may come back. After a
    /// kill it does not.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let (tx, rx) = walchan::channel(dir.path().join("queue"))?;
    /// # tx.send(1).unwrap();
    /// walchan::Delivery::ack(rx.recv().unwrap())?;
    /// # Ok::<(), walchan::Error>(())
    /// ```
    pub fn ack(delivery: Self) -> Result<(), Error> {
        let Delivery { message, receipt } = delivery;
        // First: if its drop panics, the message is not done.
        drop(message);
        receipt.acknowledge_and_check()
    }

    /// Leaves the message as it is, in a panicking thread too: it is not delivered again before the channel
    /// is opened again, and then it is.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("queue");
    /// let (tx, rx) = walchan::channel(&path)?;
    /// tx.send(1).unwrap();
    /// walchan::Delivery::leave(rx.recv().unwrap());
    /// drop((tx, rx));
    ///
    /// let (_tx, rx) = walchan::channel::<i32>(&path)?;
    /// assert_eq!(*rx.recv().unwrap(), 1);
    /// # Ok::<(), walchan::Error>(())
    /// ```
    pub fn leave(delivery: Self) {
        delivery.receipt.leave();
    }

    /// The id of the message: the same each time it is delivered.
    ///
    /// ```
    /// use walchan::Delivery;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let (tx, rx) = walchan::channel(dir.path().join("queue"))?;
    /// # tx.send(1).unwrap();
    /// let delivery = rx.recv().unwrap();
    /// println!("{}, delivery {}", Delivery::id(&delivery), Delivery::deliveries(&delivery));
    /// # Ok::<(), walchan::Error>(())
    /// ```
    pub fn id(delivery: &Self) -> MessageId {
        delivery.receipt.id()
    }

    /// How often the message has been delivered, this time included; 14 stands for that many or more. A power
    /// cut may take back what was counted since the last sync.
    ///
    /// See [`Delivery::id`] for an example.
    pub fn deliveries(delivery: &Self) -> u32 {
        delivery.receipt.deliveries()
    }
}

impl<T> Delivery<T> {
    /// The message, to be changed. The file keeps what was sent.
    ///
    /// See [`Delivery::get`] for an example.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.message
    }

    /// Acknowledges, in a panicking thread too, and gives the message: whoever has it does not get it again.
    ///
    /// ```
    /// struct Worker(walchan::Receiver<String>, Vec<String>);
    ///
    /// impl Drop for Worker {
    ///     /// Also where the thread panics.
    ///     fn drop(&mut self) {
    ///         while let Ok(job) = self.0.try_recv() {
    ///             self.1.push(job.into_inner());
    ///         }
    ///     }
    /// }
    /// ```
    pub fn into_inner(self) -> T {
        let Delivery { message, receipt } = self;
        receipt.acknowledge();
        message
    }

    /// A copy of the message; nothing is acknowledged.
    ///
    /// See [`Delivery::get`] for an example.
    pub fn copied(&self) -> T
    where
        T: Copy,
    {
        self.message
    }
}

impl<T: ?Sized + Deliverable> Deref for Delivery<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.get()
    }
}

impl<T> DerefMut for Delivery<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.message
    }
}

impl AsRef<[u8]> for Delivery<[u8]> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl<T: ?Sized + Deliverable + fmt::Debug> fmt::Debug for Delivery<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Delivery").field(&self.get()).finish()
    }
}

impl<T: ?Sized + Deliverable + PartialEq> PartialEq<T> for Delivery<T> {
    fn eq(&self, other: &T) -> bool {
        *self.get() == *other
    }
}

impl<T: ?Sized + Deliverable + PartialEq> PartialEq for Delivery<T> {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl<T: ?Sized + Deliverable + Eq> Eq for Delivery<T> {}

// The channel behind it is whole after any panic; only `T` can be left half-changed.
impl<T: ?Sized + Deliverable<Kept: UnwindSafe>> UnwindSafe for Delivery<T> {}
impl<T: ?Sized + Deliverable<Kept: RefUnwindSafe>> RefUnwindSafe for Delivery<T> {}
