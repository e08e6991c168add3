//! What `recv` could not deliver.

use crate::codec::CodecError;
use crate::error::Error;
use crate::message_id::MessageId;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use walchan_core::channel::{Channel, DamageCause, InFlight, OnDisk};
use walchan_core::storage::lease::{Lease, Lessor};

/// Something in the ring that could not be delivered, and its bytes.
pub(crate) struct Undelivered {
    // First: as in a delivery.
    place: InFlight<OnDisk>,
    channel: Lease<Arc<Channel<OnDisk>>>,
    bytes: Vec<u8>,
}

impl Undelivered {
    #[cold]
    #[inline(never)]
    pub(crate) fn new(
        channel: &Lessor<Arc<Channel<OnDisk>>>,
        place: InFlight<OnDisk>,
        bytes: &[u8],
    ) -> Self {
        Undelivered {
            channel: channel.lease(),
            place,
            bytes: bytes.to_vec(),
        }
    }

    fn id(&self) -> MessageId {
        MessageId::new(self.place.position, self.channel.tag(&self.place))
    }

    fn copy_aside(&self) -> Result<PathBuf, Error> {
        Ok(self
            .channel
            .copy_aside(&self.id().to_string(), &self.bytes)?)
    }
}

impl fmt::Debug for Undelivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Undelivered")
            .field("id", &self.id())
            .field("bytes", &self.bytes)
            .finish()
    }
}

impl PartialEq for Undelivered {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id() && self.bytes == other.bytes
    }
}

/// A message whose bytes are what was sent, and cannot be decoded as the channel's type.
///
/// Dropping it leaves the message as it is: it stays unacknowledged, and the next open delivers it again.
/// Like a delivery it keeps the channel open.
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
    pub(crate) undelivered: Undelivered,
    pub(crate) deliveries: u64,
    pub(crate) cause: CodecError,
}

impl Undecodable {
    /// The id of the message.
    #[must_use]
    pub fn id(&self) -> MessageId {
        self.undelivered.id()
    }

    /// Its bytes, as they were sent.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.undelivered.bytes
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
        let channel = &self.undelivered.channel;
        channel.acknowledge(&self.undelivered.place);
        Ok(channel.shared().check()?)
    }

    /// Copies the bytes to a file beside the channel, durably, then acknowledges the message. Gives the path
    /// of the copy.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]: the copy could not be written, and the message is as it was; or as
    /// [`Delivery::ack`](crate::Delivery::ack).
    pub fn set_aside(self) -> Result<PathBuf, Error> {
        let copy = self.undelivered.copy_aside()?;
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
/// Dropping it leaves everything as it is: the next open reports it again, and the space from here on
/// does not come back until it is acknowledged. Like a delivery it keeps the channel open.
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
    pub(crate) undelivered: Undelivered,
    pub(crate) end: u64,
}

impl Corrupt {
    /// Position of the first byte: where the damaged message began, as far as that is known.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.undelivered.place.position
    }

    /// The id that a message at this position has.
    #[must_use]
    pub fn id(&self) -> MessageId {
        self.undelivered.id()
    }

    /// What can be read there: headers and payloads, up to the next place that looks like a frame, at most 16
    /// MiB; the rest of longer damage is the next error. Empty if the disk cannot read it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.undelivered.bytes
    }

    /// What is wrong with the place.
    #[must_use]
    pub fn cause(&self) -> DamageCause {
        self.undelivered
            .channel
            .damage_cause(&self.undelivered.place, &self.undelivered.bytes)
    }

    /// Gives the place up: its space comes back like that of an acknowledged message.
    ///
    /// # Errors
    ///
    /// As [`Delivery::ack`](crate::Delivery::ack).
    pub fn acknowledge(self) -> Result<(), Error> {
        let channel = &self.undelivered.channel;
        channel.release_damage(&self.undelivered.place, self.end);
        Ok(channel.shared().check()?)
    }

    /// Copies the bytes to a file beside the channel, durably, then gives the place up. Gives the path of the
    /// copy.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]: the copy could not be written, and everything is as it was; or as
    /// [`Delivery::ack`](crate::Delivery::ack).
    pub fn set_aside(self) -> Result<PathBuf, Error> {
        let copy = self.undelivered.copy_aside()?;
        self.acknowledge()?;
        Ok(copy)
    }
}

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.undelivered.place.position, self.end);
        write!(f, "positions {from} to {to} are damaged: {}", self.cause())
    }
}
