//! The engine of [walchan](https://docs.rs/walchan): a write-ahead log in a memory-mapped ring, and its
//! recovery.
//!
//! This crate is published because walchan is made of it. It has no stability of its own: any release may
//! change any item. Use walchan.
//!
//! The modules, from the top down. Each uses only those below it:
//!
//! | module | its one job |
//! |---|---|
//! | [`channel`] | what all handles of a channel share: opening, sending, receiving, closing |
//! | [`segments`] | the files of a channel, one behind the other, and their life cycle |
//! | [`commit`] | who syncs, and when |
//! | [`ring`] | who may touch which words, and when |
//! | [`recovery`] | what an unknown file contains |
//! | [`mod@format`] | what bytes mean |
//! | [`storage`] | words that threads share and a disk keeps; unsafe code is here, and in two functions of `ring` |
//! | [`sync`] | atomics, locks, fences and waiting: of the standard library, or of loom |

#![deny(unsafe_code)] // `storage` and two functions of `ring` say why they may
#![warn(missing_docs)]
// Conveniences for users; this crate has one.
#![allow(clippy::new_without_default, clippy::len_without_is_empty)]

#[cfg(not(target_os = "linux"))]
compile_error!(
    "walchan is for Linux: what other systems promise about mappings and syncs is not known to it"
);

pub mod channel;
pub mod commit;
mod error;
pub mod format;
#[doc(hidden)]
pub mod planted;
pub mod recovery;
pub mod ring;
pub mod segments;
pub mod storage;
pub mod sync;

pub use error::{Error, Mismatch};
