//! What the housekeeper of an unbounded channel is asked to do; it is the channel's second thread (`overflow`).

/// The file that is written is nearly full.
pub const AHEAD: u32 = 1;
/// A file is sealed, or drained, or left by the receiver.
pub const TIDY: u32 = 2;
/// The channel closes.
pub const STOP: u32 = 8;
