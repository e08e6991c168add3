//! A persistent channel with the API of `std::sync::mpsc`.
#![doc = ""]
#![doc = include_str!("../README.md")]
#![deny(unsafe_code)] // `memory` and two functions of `ring` say why they may
#![warn(missing_docs)]
#![cfg_attr(all(loom, feature = "models"), allow(dead_code, unused_imports))] // of a part of it

#[cfg(not(target_os = "linux"))]
compile_error!(
    "walchan is for Linux: what other systems promise about mappings and syncs is not known to it"
);

// The models need the protocol alone; see `models`.
#[cfg(not(all(loom, feature = "models")))]
mod bytes;
#[cfg(not(all(loom, feature = "models")))]
mod channel;
#[cfg(not(all(loom, feature = "models")))]
mod codec;
#[cfg(all(test, feature = "fsync", not(loom)))]
mod crash_tests;
#[cfg(not(all(loom, feature = "models")))]
mod delivery;
mod durability;
#[cfg(not(all(loom, feature = "models")))]
mod error;
#[cfg(not(all(loom, feature = "models")))]
mod file;
mod format;
#[cfg(fuzzing)]
#[doc(hidden)]
#[allow(missing_docs, missing_debug_implementations)]
pub mod fuzzing;
mod memory;
#[cfg(not(all(loom, feature = "models")))]
mod message_id;
#[cfg(all(loom, feature = "models"))]
#[doc(hidden)]
pub mod models;
#[cfg(not(all(loom, feature = "models")))]
mod open;
#[cfg(not(all(loom, feature = "models")))]
mod options;
mod overflow;
mod planted;
#[cfg(not(all(loom, feature = "models")))]
mod receiver;
#[cfg(not(all(loom, feature = "models")))]
mod recovery;
mod ring;
#[cfg(not(all(loom, feature = "models")))]
mod sender;
mod sync;
#[cfg(not(all(loom, feature = "models")))]
mod undelivered;

#[cfg(not(all(loom, feature = "models")))]
pub use api::*;

#[cfg(not(all(loom, feature = "models")))]
mod api {
    pub use crate::bytes::{
        BytesDelivery, BytesIter, BytesReceiver, BytesSender, BytesSyncSender, BytesTryIter,
    };
    #[cfg(feature = "bytemuck")]
    pub use crate::codec::Plain;
    pub use crate::codec::{Bincode, Codec};
    pub use crate::delivery::Delivery;
    pub use crate::error::{
        CodecError, Error, RecvError, RecvTimeoutError, SendError, SendErrorKind, SendTimeoutError,
        TryRecvError, TrySendError,
    };
    pub use crate::message_id::{MessageId, ParseMessageIdError};
    pub use crate::open::{
        bytes_channel, bytes_channel_with_options, bytes_sync_channel,
        bytes_sync_channel_with_options, channel, channel_with_codec, channel_with_options,
        sync_channel, sync_channel_footprint, sync_channel_with_codec, sync_channel_with_options,
    };
    pub use crate::options::{Durability, Options, ReceiverOptions};
    pub use crate::receiver::{IntoIter, Iter, Receiver, TryIter};
    pub use crate::recovery::{DamagedFrame, RecoveryReport};
    pub use crate::sender::{Sender, SyncSender};
    pub use crate::undelivered::{Corrupt, DamageCause, Undecodable};
}
