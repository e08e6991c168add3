//! `cargo xtask fuzz`: files that no channel left, opened and drained, by the million.
//!
//! The fuzzer needs a nightly compiler and `cargo-fuzz`; replaying the committed corpus needs neither.

use std::env::var_os;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::run::{Outcome, cargo, root};

const EXECUTIONS: u64 = 10_000_000;

/// A target, its share of the executions in thousandths, the longest input, and its sanitizer.
struct Target {
    name: &'static str,
    share: u64,
    len_max: u32,
    sanitizer: &'static str,
}

/// The first two touch no memory that is not the standard library's, so they go without a sanitizer, several
/// times as fast; the third opens real files through the map.
const TARGETS: [Target; 3] = [
    Target {
        name: "structured",
        share: 600,
        len_max: 1024,
        sanitizer: "none",
    },
    Target {
        name: "raw",
        share: 390,
        len_max: 4096,
        sanitizer: "none",
    },
    Target {
        name: "file",
        share: 10,
        len_max: 1024,
        sanitizer: "address",
    },
];

fn target_dir() -> PathBuf {
    let target = var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    target.join("fuzz")
}

/// Whether `cargo +nightly` and `cargo fuzz` are there.
pub fn missing() -> Option<&'static str> {
    let works = |args: &str| {
        let mut command = Command::new("cargo");
        command.args(args.split_whitespace());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if !works("+nightly --version") {
        Some("a nightly compiler: rustup toolchain install nightly")
    } else if !works("+nightly fuzz --version") {
        Some("cargo-fuzz: cargo install cargo-fuzz --locked")
    } else {
        None
    }
}

/// A build of the targets with a sanitizer; gives where they are.
pub fn build(sanitizer: &str) -> Result<PathBuf, String> {
    let dir = target_dir().join(sanitizer);
    let mut command = Command::new("cargo");
    command.args([
        "+nightly",
        "fuzz",
        "build",
        "--fuzz-dir",
        "proof/fuzz",
        "-s",
        sanitizer,
    ]);
    command
        .args(["--no-trace-compares", "--target-dir"])
        .arg(&dir);
    command.current_dir(root()).env_remove("CARGO");
    command.env_remove("RUSTUP_TOOLCHAIN");
    match command.status() {
        Ok(status) if status.success() => {}
        other => return Err(format!("the fuzz targets do not build: {other:?}")),
    }
    let built = fs::read_dir(&dir).map_err(|error| error.to_string())?;
    let triple = built.flatten().map(|entry| entry.path().join("release"));
    let found = triple.into_iter().find(|path| path.join("raw").is_file());
    found.ok_or_else(|| "no fuzz target was built".to_owned())
}

/// `cargo` for the package of the targets, without the fuzzer.
pub fn replay() -> Command {
    let mut command = cargo(
        "test --release --manifest-path proof/fuzz/Cargo.toml --no-default-features --test replay",
    );
    command.env("CARGO_TARGET_DIR", target_dir().join("replay"));
    command
}

pub fn run(args: &[&str]) -> Outcome {
    let executions = match args {
        [] => EXECUTIONS,
        [number] => number
            .parse()
            .map_err(|_| format!("{number} is no number"))?,
        _ => return Err("fuzz takes one number".to_owned()),
    };
    if let Some(missing) = missing() {
        return Err(format!("SKIPPED, this needs {missing}"));
    }
    let mut rows = Vec::new();
    for target in &TARGETS {
        let bin = build(target.sanitizer)?.join(target.name);
        let wanted = (executions * target.share / 1000).max(1);
        rows.push(fuzz(target, &bin, wanted)?);
    }
    println!("\n| target | executions | seconds | corpus | crashes |\n|---|---|---|---|---|");
    rows.iter().for_each(|row| println!("{row}"));
    Ok(())
}

/// Runs one target; the corpus grows in the target directory, from the committed one.
fn fuzz(target: &Target, bin: &Path, executions: u64) -> Result<String, String> {
    let name = target.name;
    let corpus = target_dir().join("corpus").join(name);
    let crashes = target_dir().join("crashes").join(name);
    for dir in [&corpus, &crashes] {
        fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    }
    let start = Instant::now();
    let mut command = Command::new(bin);
    command.arg(&corpus);
    for kind in ["corpus", "regressions"] {
        let seeds = root().join("proof/fuzz").join(kind).join(name);
        if seeds.is_dir() {
            command.arg(seeds);
        }
    }
    command.arg(format!("-runs={executions}"));
    command.arg(format!("-max_len={}", target.len_max));
    command.arg(format!("-artifact_prefix={}/", crashes.display()));
    command.args(["-len_control=10", "-timeout=20", "-print_final_stats=1"]);
    let status = command.status().map_err(|error| error.to_string())?;
    if !status.success() {
        return Err(format!(
            "{name} failed: {status}; the input is in {}",
            crashes.display()
        ));
    }
    let count = fs::read_dir(&corpus).map_or(0, Iterator::count);
    let seconds = start.elapsed().as_secs();
    Ok(format!(
        "| {name} | {executions} | {seconds} | {count} | 0 |"
    ))
}
