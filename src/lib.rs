//! A persistent channel: the API of [`std::sync::mpsc`], and messages that survive a crash.
//!
//! The messages live in a preallocated file, mapped into memory and used as a ring. There is no `write` call
//! per message, no database, no broker.
//!
//! ```toml
//! [dependencies]
//! walchan = "0.2"
//! ```
//!
//! # A first example
//!
//! ```
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("jobs");
//! let (tx, rx) = walchan::sync_channel::<String>(&path, 1000)?;
//!
//! let sender = std::thread::spawn(move || {
//!     tx.send("resize photo 17".to_owned()) // on stable storage when this returns
//! });
//!
//! for job in &rx {
//!     println!("{}", *job);
//!     // The end of the body drops the delivery, which acknowledges it. If the process dies before, the
//!     // next open of the channel delivers the job again.
//! }
//! # sender.join().unwrap().unwrap();
//! # Ok::<(), walchan::Error>(())
//! ```
//!
//! An iterator ends when all senders are gone, and also before an error. A program that must tell one from
//! the other asks [`recv`](Receiver::recv) once more: it returns that error, or [`RecvError::Disconnected`].
//!
//! # The types
//!
//! | type | what it is for | made by |
//! |---|---|---|
//! | [`Sender`] | sends; never waits for the receiver | [`channel()`], [`channel_with_options`] |
//! | [`SyncSender`] | sends; waits while the channel is full | [`sync_channel()`], [`sync_channel_with_options`] |
//! | [`Receiver`] | receives, waits, iterates, closes | all of these |
//! | [`Delivery`] | a message, acknowledged when it is dropped | [`Receiver::recv`] |
//! | [`BytesSender`], [`BytesSyncSender`], [`BytesReceiver`] | the same for bytes, borrowed from the file | [`Options::bytes_channel`], [`Options::bytes_sync_channel`] |
//! | [`Options`], [`ReceiverOptions`] | how a channel is opened; when acknowledgements are recorded | you |
//! | [`Durability`] | what a returned `send` promises | you |
//! | [`Codec`], [`Bincode`] | how messages become bytes | [`Options::codec_channel`], [`Options::codec_sync_channel`] |
//! | [`MessageId`] | the name of a message, for ever | [`Delivery::id`] |
//! | [`RecoveryReport`], [`DamagedFrame`] | what an open found | [`Receiver::recovery`] |
//! | [`Undecodable`], [`Corrupt`] | what could not be delivered, with its bytes | [`RecvError`] |
//! | [`Error`], [`SendError`], [`RecvError`] | one error for each operation; a send hands the message back | |
//!
//! # What survives what
//!
//! | `send` returned `Ok` under | process killed | power lost |
//! |---|---|---|
//! | [`Durability::SyncPerSend`], the default | kept | kept |
//! | [`Durability::SyncEvery`] | kept | kept, but for the last few |
//! | [`Durability::FlushOnly`] | kept | not promised |
//!
//! A message that is not acknowledged is delivered again: at least once. An acknowledged one does not come
//! back after a kill. What was never sent is never delivered, and damage is reported, never passed over in
//! silence.
//!
//! # Limits
//!
//! One process at a time has a channel open, on Linux, on a local file system. A message is at most 1 GiB,
//! and in a bounded channel at most half of its ring. Nothing is replicated.
//!
//! # Features
//!
//! * `fsync` (default): syncs are real. Without it every channel is [`Durability::FlushOnly`].
//! * `bytemuck`: the codec `Plain`, for structs of numbers.
//! * `stress`: the long tests.
//!
//! The promises, each with its test, the format of the file, the protocol and its proof are in the
//! repository's `docs`.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod bounded;
mod codec;
mod counted;
mod delivery;
mod error;
mod message;
mod message_id;
mod open;
mod options;
mod panics;
mod receiver;
mod recv_error;
mod sender;
mod undelivered;

#[cfg(feature = "bytemuck")]
pub use codec::Plain;
pub use codec::{Bincode, Codec, CodecError};
pub use delivery::{BytesDelivery, Delivery};
pub use error::{Error, SendError, SendErrorKind, SendTimeoutError, TrySendError};
pub use message::{Bytes, Deliverable};
pub use message_id::{MessageId, ParseMessageIdError};
pub use open::{channel, channel_with_options, sync_channel, sync_channel_with_options};
pub use options::{Durability, Options, ReceiverOptions};
pub use receiver::{BytesReceiver, IntoIter, Iter, Receiver, TryIter};
pub use recv_error::{RecvError, RecvTimeoutError, TryRecvError};
pub use sender::{BytesSender, BytesSyncSender, Sender, SyncSender};
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

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
