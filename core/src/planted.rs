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

/// `left_out!("name")`: whether this process goes without that heuristic of pacing, so that its worth can be
/// measured; the constant `false` in an ordinary build. The environment variable is `WALCHAN_LEFT_OUT`.
#[cfg(not(walchan_planted))]
macro_rules! left_out {
    ($name:literal) => {
        false
    };
}

#[cfg(walchan_planted)]
macro_rules! left_out {
    ($name:literal) => {
        $crate::planted::is_left_out($name)
    };
}

pub use crate::planted;
pub(crate) use left_out;

/// Reads the environment once. Not inlined, so that the names are whole in the program, where they can be
/// found.
#[cfg(walchan_planted)]
#[inline(never)]
pub fn is_planted(name: &str) -> bool {
    static PLANTED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let planted = PLANTED.get_or_init(|| std::env::var("WALCHAN_PLANTED").ok());
    planted.as_deref() == Some(name)
}

/// Reads the environment once.
#[cfg(walchan_planted)]
pub fn is_left_out(name: &str) -> bool {
    static LEFT_OUT: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let left_out = LEFT_OUT.get_or_init(|| std::env::var("WALCHAN_LEFT_OUT").ok());
    left_out.as_deref() == Some(name)
}
