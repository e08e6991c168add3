//! What the tests of this package share: walchan against real file systems, real devices and a real kernel.
//!
//! They need root, loop devices and a few programs. A test that lacks something says so and passes; with
//! `WALCHAN_SYSTEM_TESTS=required` it fails instead. Each mounts in a namespace of its own, so that nothing
//! stays behind, however it ends.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

pub mod child;
pub mod device;
pub mod examine;
pub mod full;
pub mod lossy;
pub mod neighbour;
pub mod oracle;
pub mod random;
pub mod reports;
pub mod trace;
pub mod volume;
pub mod workload;

use std::path::PathBuf;
use std::process::Command;

/// How often a test does what it does: the value of an environment variable, or `few`, which is what every
/// run of the tests can afford.
pub fn times(variable: &str, few: u64) -> u64 {
    std::env::var(variable).map_or(few, |value| value.parse().unwrap())
}

/// Whether all of these programs are there, and this process is root; says what is missing.
pub fn can_run(test: &str, programs: &[&str]) -> bool {
    let mut missing: Vec<String> = Vec::new();
    if !rustix::process::geteuid().is_root() {
        missing.push("root".to_owned());
    }
    missing.extend(
        programs
            .iter()
            .filter(|p| program(p).is_none())
            .map(|p| (*p).to_owned()),
    );
    if missing.is_empty() {
        return true;
    }
    let message = format!("SKIPPED {test}: it needs {}", missing.join(", "));
    let required = std::env::var("WALCHAN_SYSTEM_TESTS").is_ok_and(|v| v == "required");
    assert!(!required, "{message}");
    println!("{message}");
    false
}

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut places: Vec<_> = std::env::split_paths(&path).collect();
    places.extend(["/sbin", "/usr/sbin"].map(PathBuf::from));
    places
        .into_iter()
        .map(|p| p.join(name))
        .find(|p| p.exists())
}

/// Runs a program to its end, which must be a good one; gives what it wrote.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
