//! A persistent channel with the API of `std::sync::mpsc`.
#![doc = ""]
#![doc = include_str!("../README.md")]
#![deny(unsafe_code)] // `memory` and two functions of `ring` say why they may
#![warn(missing_docs)]

#[cfg(not(target_os = "linux"))]
compile_error!(
    "walchan is for Linux: what other systems promise about mappings and syncs is not known to it"
);

mod channel;
mod codec;
mod delivery;
mod durability;
mod error;
mod file;
mod format;
mod memory;
mod message_id;
mod open;
mod options;
mod receiver;
mod recovery;
mod ring;
mod sender;
mod sync;

pub use delivery::Delivery;
pub use error::{
    CodecError, Error, RecvError, RecvTimeoutError, SendError, SendErrorKind, SendTimeoutError,
    TryRecvError, TrySendError,
};
pub use message_id::{MessageId, ParseMessageIdError};
pub use open::{channel, channel_with_options, sync_channel, sync_channel_with_options};
pub use options::{Durability, Options, ReceiverOptions};
pub use receiver::{Corrupt, IntoIter, Iter, Receiver, TryIter, Undecodable};
pub use recovery::{DamagedFrame, RecoveryReport};
pub use sender::{Sender, SyncSender};
