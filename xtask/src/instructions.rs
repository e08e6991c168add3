//! `cargo xtask instructions`: what a message costs in instructions, counted by callgrind.

use crate::run::{Outcome, Plan, cargo};
use std::process::Stdio;

const KINDS: [(&str, &str); 3] = [
    ("values", "`[u64; 8]`, by bincode"),
    ("plain", "`[u64; 8]`, by `Plain`"),
    ("bytes", "64 bytes, borrowed"),
];
/// Two runs of different lengths; the difference leaves out what is done once.
const COUNTS: [u64; 2] = [50_000, 150_000];

pub fn run() -> Outcome {
    let mut plan = Plan::default();
    let build =
        cargo("bench --profile performance --features bytemuck --bench instructions --no-run");
    plan.command("build", build)?;
    println!("\n| 64-byte message | send | receive and acknowledge |\n|---|---|---|");
    for (kind, name) in KINDS {
        let sent = per_message(kind)?;
        let both = per_message(&format!("{kind}-received"))?;
        println!("| {name} | {sent:.0} | {:.0} |", both - sent);
    }
    Ok(())
}

fn per_message(kind: &str) -> Result<f64, String> {
    let [short, long] = COUNTS;
    let instructions = count(kind, long)?.saturating_sub(count(kind, short)?);
    Ok(instructions as f64 / (long - short) as f64)
}

/// Instructions of a whole run.
fn count(kind: &str, messages: u64) -> Result<u64, String> {
    let runner = "valgrind --tool=callgrind --callgrind-out-file=/dev/null";
    let arch = std::env::consts::ARCH.to_uppercase();
    let output = cargo("bench --profile performance --features bytemuck --bench instructions")
        .env(
            format!("CARGO_TARGET_{arch}_UNKNOWN_LINUX_GNU_RUNNER"),
            runner,
        )
        .env("WALCHAN_KIND", kind)
        .env("WALCHAN_COUNT", messages.to_string())
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cargo did not start: {error}"))?;
    let output = String::from_utf8_lossy(&output.stderr);
    let line = output
        .lines()
        .find_map(|line| line.split_once("Collected :"));
    let (_, number) =
        line.ok_or_else(|| format!("callgrind counted nothing (is it installed?):\n{output}"))?;
    number
        .trim()
        .parse()
        .map_err(|_| format!("no number: {number}"))
}
