//! What the keeper of an unbounded channel is asked to do; it is the channel's second thread (`overflow`).

/// The file that is written is nearly full.
pub(crate) const AHEAD: u32 = 1;
/// A file is sealed, or drained, or left by the receiver.
pub(crate) const TIDY: u32 = 2;
/// The channel closes.
pub(crate) const STOP: u32 = 8;
