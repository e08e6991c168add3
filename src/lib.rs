//! A persistent channel with the API of `std::sync::mpsc`.
#![doc = ""]
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod bytes;
mod codec;
mod delivery;
mod error;
mod message_id;
mod opening;
mod options;
mod receiver;
mod sender;
mod undelivered;

pub use bytes::{
    BytesDelivery, BytesIter, BytesReceiver, BytesSender, BytesSyncSender, BytesTryIter,
};
#[cfg(feature = "bytemuck")]
pub use codec::Plain;
pub use codec::{Bincode, Codec};
pub use delivery::Delivery;
pub use error::{
    CodecError, Error, RecvError, RecvTimeoutError, SendError, SendErrorKind, SendTimeoutError,
    TryRecvError, TrySendError,
};
pub use message_id::{MessageId, ParseMessageIdError};
pub use opening::{
    bytes_channel, bytes_channel_with_options, bytes_sync_channel, bytes_sync_channel_with_options,
    channel, channel_with_codec, channel_with_options, sync_channel, sync_channel_footprint,
    sync_channel_with_codec, sync_channel_with_options,
};
pub use options::{Durability, Options, ReceiverOptions};
pub use receiver::{IntoIter, Iter, Receiver, TryIter};
pub use sender::{Sender, SyncSender};
pub use undelivered::{Corrupt, Undecodable};
/// What is wrong with a place that is [`Corrupt`].
///
/// ```
/// println!("{}", walchan::DamageCause::Unreadable);
/// ```
#[doc(inline)]
pub use walchan_core::channel::DamageCause;
/// A place in the ring whose content is not what was sent.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let (_tx, rx) = walchan::channel::<u8>(dir.path().join("queue"))?;
/// for damaged in rx.recovery().damaged() {
///     println!("{damaged}; it was durable: {}", damaged.was_durable());
/// }
/// # Ok::<(), walchan::Error>(())
/// ```
#[doc(inline)]
pub use walchan_core::recovery::DamagedFrame;
/// What was found when the channel was opened.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let (_tx, rx) = walchan::channel::<u64>(dir.path().join("queue"))?;
/// assert!(rx.recovery().is_created());
/// assert_eq!(rx.recovery().kept(), 0);
/// println!("{}", rx.recovery());
/// # Ok::<(), walchan::Error>(())
/// ```
#[doc(inline)]
pub use walchan_core::recovery::RecoveryReport;
