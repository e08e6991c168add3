//! Decides what an unknown file contains, and makes it safe to go on. Everything read is hostile. The prose
//! is `docs/recovery.md`.
//!
//! One path, whatever ended the last incarnation: read the header, find the frames (`scan`), judge what
//! is between them (`verdict`), and only then write, in an order in which a crash at any step,
//! and again, is harmless (`repair`).

pub mod backlog;
mod header;
mod judge;
mod repair;
mod report;
mod scan;
mod verdict;
mod window;

pub use header::{Bounds, Entropy, Policy, Recovered, new_header, new_incarnation, read_identity};
pub use judge::{
    Judged, Restart, judge, newest_checkpoint, recover, retire_unused, write_checkpoints_again,
};
pub use report::{DamagedFrame, RecoveryReport};
