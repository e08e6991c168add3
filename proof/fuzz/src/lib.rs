//! Opens and drains files that no channel left. What they must give is judged by `layout`, which was written
//! from `docs/format.md` a second time and shares nothing with the library.
//!
//! * `raw`: the fuzzer's bytes as a file, or laid over one.
//! * `structured`: a file described by the fuzzer's bytes, with checksums made right.
//! * `file`: the same two, as files in memory, opened through the public interface.

pub mod build;
mod files;
pub mod incarnation;
pub mod judge;
pub mod layout;
pub mod memory;
mod overlay;
pub mod plain;
pub mod play;

use arbitrary::Unstructured;

pub use files::file;
pub use overlay::raw;

/// A described file, opened, drained, and opened again.
pub fn structured(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let Ok(plan) = build::Plan::take(&mut input) else {
        return;
    };
    let built = plan.build();
    play::play(built.image, built.capacity, &mut input);
}
