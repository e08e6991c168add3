//! A channel of bytes over any memory, and the one over files: what its handles share.

mod open;
mod receive;
mod send;
mod shared;

pub use open::{Parts, Request, footprint, open, without_threads};
pub use receive::{KEPT_LEN_MAX, Message, Payload, ReceiverState};
pub use shared::{Channel, DamageCause, InFlight, OnDisk};
