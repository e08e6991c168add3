//! What the housekeeper of an unbounded channel is asked to do. It is the channel's second thread; its body
//! is in `segments`.

/// The file that is written is nearly full.
pub const AHEAD: u32 = 1;
/// A file is sealed, or drained, or left by the receiver.
pub const TIDY: u32 = 2;
/// The channel closes.
pub const STOP: u32 = 4;
