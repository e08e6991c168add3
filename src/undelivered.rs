//! What `recv` could not deliver.

use crate::channel::{Channel, Held, OnDisk};
use crate::error::{CodecError, Error};
use crate::message_id::MessageId;
use crate::overflow::LogOf;
use crate::sync::Arc;
use std::fmt;
use std::path::PathBuf;

/// Something in the ring that could not be delivered, and its bytes.
pub(crate) struct Left {
    channel: Arc<Channel<OnDisk>>,
    held: Held<OnDisk>,
    bytes: Vec<u8>,
}

impl Left {
    /// With the parts of a [`Held`], which need not be in memory where this is not called.
    #[cold]
    #[inline(never)]
    pub(crate) fn new(
        channel: &Arc<Channel<OnDisk>>,
        log: Option<LogOf<OnDisk>>,
        position: u64,
        deliveries: u64,
        bytes: &[u8],
    ) -> Self {
        Left {
            channel: Arc::clone(channel),
            held: Held::new(log, position, deliveries),
            bytes: bytes.to_vec(),
        }
    }

    fn id(&self) -> MessageId {
        self.channel.id(&self.held)
    }

    fn copy_aside(&self) -> Result<PathBuf, Error> {
        self.channel.copy_aside(self.id(), &self.bytes)
    }
}

impl fmt::Debug for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Left")
            .field("id", &self.id())
            .field("bytes", &self.bytes)
            .finish()
    }
}

impl PartialEq for Left {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id() && self.bytes == other.bytes
    }
}

/// A message whose bytes are what was sent, and cannot be decoded as the channel's type.
///
/// Dropping it leaves the message as it is, for the next life; it stays unacknowledged. Like a delivery it
/// keeps the channel open.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("queue");
/// # let (tx, rx) = walchan::channel::<u8>(&path)?;
/// # tx.send(1).unwrap();
/// # drop((tx, rx));
/// let (_tx, rx) = walchan::channel::<String>(&path)?; // it was a channel of u8
/// if let Err(walchan::RecvError::Undecodable(message)) = rx.recv() {
///     let copy = message.set_aside()?;
///     assert_eq!(std::fs::read(copy)?, [1]);
/// }
/// # Ok::<(), walchan::Error>(())
/// ```
#[derive(Debug, PartialEq)]
pub struct Undecodable {
    pub(crate) left: Left,
    pub(crate) deliveries: u64,
    pub(crate) cause: CodecError,
}

impl Undecodable {
    /// The id of the message.
    #[must_use]
    pub fn id(&self) -> MessageId {
        self.left.id()
    }

    /// Its bytes, as they were sent.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.left.bytes
    }

    /// Why they do not decode.
    #[must_use]
    pub fn cause(&self) -> &CodecError {
        &self.cause
    }

    /// How often the message has been delivered, this time included; 14 stands for that many or more. A power
    /// cut may take back what was counted since the last sync.
    #[must_use]
    pub fn deliveries(&self) -> u32 {
        self.deliveries as u32
    }

    /// Acknowledges the message: it is gone.
    ///
    /// # Errors
    ///
    /// As [`Delivery::ack`](crate::Delivery::ack).
    pub fn acknowledge(self) -> Result<(), Error> {
        let channel = &self.left.channel;
        channel.acknowledge(&self.left.held);
        Ok(channel.common().check()?)
    }

    /// Copies the bytes to a file beside the channel, durably, then acknowledges the message. Gives the path
    /// of the copy.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]: the copy could not be written, and the message is as it was; or as
    /// [`Delivery::ack`](crate::Delivery::ack).
    pub fn set_aside(self) -> Result<PathBuf, Error> {
        let copy = self.left.copy_aside()?;
        self.acknowledge()?;
        Ok(copy)
    }
}

impl fmt::Display for Undecodable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message {} cannot be decoded: {}", self.id(), self.cause)
    }
}

/// A place in the ring that was on stable storage, and is not what it was.
///
/// Dropping it leaves everything as it is: the next life reports it again, and the space from here on
/// does not come back until it is settled. Like a delivery it keeps the channel open.
///
/// ```no_run
/// # let (_tx, rx) = walchan::channel::<String>("queue")?;
/// if let Err(walchan::RecvError::Corrupt(place)) = rx.recv() {
///     eprintln!("{} bytes at {}: {}", place.bytes().len(), place.position(), place.cause());
///     place.set_aside()?;
/// }
/// # Ok::<(), walchan::Error>(())
/// ```
#[derive(Debug, PartialEq)]
pub struct Corrupt {
    pub(crate) left: Left,
    pub(crate) end: u64,
}

impl Corrupt {
    /// Position of the first byte: where the damaged message began, as far as that can be told.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.left.held.position
    }

    /// The id that a message at this position has.
    #[must_use]
    pub fn id(&self) -> MessageId {
        self.left.id()
    }

    /// What can be read there: headers and payloads, up to the next place that looks like a frame, at most 16 MiB;
    /// the rest of longer damage is the next error. Empty if the disk cannot read it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.left.bytes
    }

    /// What is wrong with the place.
    #[must_use]
    pub fn cause(&self) -> DamageCause {
        self.left
            .channel
            .damage_cause(&self.left.held, &self.left.bytes)
    }

    /// Gives the place up: its space comes back like that of an acknowledged message.
    ///
    /// # Errors
    ///
    /// As [`Delivery::ack`](crate::Delivery::ack).
    pub fn acknowledge(self) -> Result<(), Error> {
        let channel = &self.left.channel;
        channel.settle(&self.left.held, self.end);
        Ok(channel.common().check()?)
    }

    /// Copies the bytes to a file beside the channel, durably, then gives the place up. Gives the path of the
    /// copy.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]: the copy could not be written, and everything is as it was; or as
    /// [`Delivery::ack`](crate::Delivery::ack).
    pub fn set_aside(self) -> Result<PathBuf, Error> {
        let copy = self.left.copy_aside()?;
        self.acknowledge()?;
        Ok(copy)
    }
}

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.left.held.position, self.end);
        write!(f, "positions {from} to {to} are damaged: {}", self.cause())
    }
}

/// What is wrong with a place that is [`Corrupt`].
///
/// ```
/// println!("{}", walchan::DamageCause::Unreadable);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DamageCause {
    /// The disk does not give the bytes back.
    Unreadable,
    /// There is the header of a frame, and its state, its length or its checksum is wrong.
    Checksum,
    /// There is no header of a frame.
    Header,
}

impl fmt::Display for DamageCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DamageCause::Unreadable => "the disk cannot read them",
            DamageCause::Checksum => "a frame begins there that does not match its checksum",
            DamageCause::Header => "no frame begins there",
        })
    }
}
