//! What orders threads: the primitives, and what is built of nothing else.
//!
//! `shim` is the only module that knows loom: under `--cfg loom` with the feature `models` all of this crate
//! runs on the model checker's atomics, locks and threads.

pub mod bias;
pub mod pacing;
mod shim;
pub mod waiting;

pub use shim::*;
