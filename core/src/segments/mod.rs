//! The files of an unbounded channel: a chain of the ring and the segments behind it, each a whole log of its
//! own.
//!
//! The argument, the invariants C1 to C7 and the crash sites are in `docs/segments.md`; the states of a file
//! are a table in [`lifecycle`]. `chain` knows which files there are, and hands sends and reads on from one
//! to the next; `link` links the next one; `tidy` completes, retires and removes those before. What a file
//! is, is the business of [`Files`]: all of this runs under loom, over memories without files.

mod chain;
pub mod disk;
mod files;
mod growth;
pub mod lifecycle;
mod link;
mod named;
pub mod open;
mod tidy;

pub use chain::{BacklogRange, Chain, CurrentSegment, Entry, LogOf, Next};
pub use files::{Files, Prepared, RestartFailure, SegmentId, SingleFile};
pub use growth::Growth;
pub use named::NamedFiles;
