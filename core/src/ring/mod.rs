//! The ring: who may touch which words, when. Every line here runs under loom.
//!
//! Positions only grow; the ring maps them to its words. Four of them cut the incarnation of the channel:
//!
//! ```text
//!   head        cursor            tail          limit
//! ----|-----------|-----------------|--------------|----> position
//!   reclaimed .. acknowledged   claimed, some    free: may
//!   up to here   or handed out  not yet          be claimed
//!                               published
//! ```
//!
//! Invariants (the argument is in `docs/protocol.md`):
//!
//! * **R1** `head <= cursor <= tail <= limit <= head + capacity`. One exception: the head may pass the cursor
//!   over the padding that seals a segment, for nobody reads that (`over_the_seal`).
//! * **R2** The words of `[tail, limit)` belong to nobody; the compare-exchange that moves the tail, or the
//!   store of one who is alone, gives them to one producer.
//! * **R3** From the claim until the store of its first word a frame's words belong to its producer;
//!   nobody else touches them, except that the receiver and a leader may load the first.
//! * **R4** From that store until it is reclaimed a frame does not change, except for the state in its
//!   first word, which the receiver writes until it hands the message out, and afterwards the
//!   holder of the delivery.
//! * **R5** At a position no first word names, nothing is published: what lies there is of an earlier
//!   lap or incarnation, and neither names this position under the salt that covers it.
//! * **R6** A frame never crosses the end of the ring.

mod acknowledge;
mod claim;
mod position;
mod published;
mod receive;
mod state;

pub use claim::{Claim, NoRoom, Room};
pub use position::Layout;
pub use published::Prefix;
pub use receive::{Frame, Reader, Received};
pub use state::{Ring, Start};
