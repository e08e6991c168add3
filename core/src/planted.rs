//! Planted bugs: each removes one safeguard, to see that a test notices (`docs/planted.md`).
//!
//! Nothing of it is in an ordinary build. In one with `--cfg walchan_planted` the environment variable
//! `WALCHAN_PLANTED` names the bug that the process has.

/// `planted!("name")`: whether this process has that bug; the constant `false` in an ordinary build.
/// `planted!("name", bug, right)`: the value that belongs there, or the one that the bug puts in its place.
#[cfg(not(walchan_planted))]
#[macro_export]
macro_rules! planted {
    ($name:literal) => {
        false
    };
    ($name:literal, $bug:expr, $right:expr) => {
        $right
    };
}

#[cfg(walchan_planted)]
#[macro_export]
macro_rules! planted {
    ($name:literal) => {
        $crate::planted::is_planted($name)
    };
    ($name:literal, $bug:expr, $right:expr) => {
        if $crate::planted::is_planted($name) {
            $bug
        } else {
            $right
        }
    };
}

pub use crate::planted;

/// Reads the environment once. Not inlined, so that the names are whole in the program, where they can be found.
#[cfg(walchan_planted)]
#[inline(never)]
pub fn is_planted(name: &str) -> bool {
    static PLANTED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let planted = PLANTED.get_or_init(|| std::env::var("WALCHAN_PLANTED").ok());
    planted.as_deref() == Some(name)
}
