//! `cargo xtask sanitize`: the tests under AddressSanitizer and ThreadSanitizer, and the corpus of the fuzzer
//! under the first. Needs a nightly compiler.

use std::env::var_os;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fuzz;
use crate::run::{Outcome, Plan, root};

/// Where the races are that are none, and why.
const SUPPRESSIONS: &str = "xtask/tsan.supp";

/// What several threads do with one map. The others start processes, or are about files.
const THREADED: &str =
    "--lib --test delivery --test durability --test ends --test order --test room";
/// Models and simulated media need no sanitizer: they take no memory but the standard library's.
const SKIPPED: &str = "--skip random";
/// Those of the example build it, and would build it with a sanitizer half the way.
const EXAMPLE: &str = "--skip kills_do_not_change --skip a_torn_record --skip a_state_directory";

fn target() -> Result<String, String> {
    let output = Command::new("rustc").arg("-vV").output();
    let output = output.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned)
        .ok_or_else(|| "rustc does not name its host".to_owned())
}

/// Tests, built with a sanitizer in a target directory of their own.
fn tests(sanitizer: &str, what: &str, behind: &str) -> Result<Command, String> {
    let dir = var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let mut command = Command::new("cargo");
    command.args(["+nightly", "test", "--no-fail-fast", "--target"]);
    command.arg(target()?);
    command.args(what.split_whitespace()).arg("--");
    command.args(behind.split_whitespace());
    command.current_dir(root()).env_remove("CARGO");
    command.env_remove("RUSTUP_TOOLCHAIN");
    command.env("CARGO_TARGET_DIR", dir.join(sanitizer));
    // The standard library that comes with the compiler is not instrumented, and so of another kind.
    let flags = format!("-Zsanitizer={sanitizer} -Cunsafe-allow-abi-mismatch=sanitizer");
    command.env("RUSTFLAGS", flags);
    // Tests forget deliveries on purpose, and one ends by the signal of a file that was cut short.
    command.env("ASAN_OPTIONS", "detect_leaks=0 handle_sigbus=0");
    let suppressions = root().join(SUPPRESSIONS);
    let options = format!("suppressions={} halt_on_error=0", suppressions.display());
    command.env("TSAN_OPTIONS", options);
    Ok(command)
}

/// The committed inputs of a target, under AddressSanitizer.
fn corpus(bin: &Path, name: &str) -> Command {
    let mut command = Command::new(bin.join(name));
    for kind in ["corpus", "regressions"] {
        let dir = root().join("proof/fuzz").join(kind).join(name);
        if dir.is_dir() {
            command.arg(dir);
        }
    }
    command.arg("-runs=0");
    command
}

pub fn run() -> Outcome {
    if let Some(missing) = fuzz::missing() {
        println!("SKIPPED, nothing was looked at: this needs {missing}");
        return Ok(());
    }
    let mut plan = Plan::default();
    let skipped = format!("{SKIPPED} {EXAMPLE}");
    let address = tests("address", "--lib --tests", &skipped)?;
    plan.command("tests under AddressSanitizer", address)?;
    let bin = fuzz::build("address")?;
    for name in ["raw", "structured", "file"] {
        let what = format!("corpus of {name} under AddressSanitizer");
        plan.command(&what, corpus(&bin, name))?;
    }
    let thread = tests("thread", THREADED, SKIPPED)?;
    plan.command("tests under ThreadSanitizer", thread)?;
    plan.summary("sanitize");
    Ok(())
}
