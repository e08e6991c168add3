//! `cargo xtask pacing`: what each heuristic of `core/src/sync/pacing.rs` is worth on its own workload.
//!
//! One build, in which a heuristic can be left out; runs with it and without it in turns, and the median of
//! the ratios.

use crate::caught::messages;
use crate::run::{Outcome, cargo, target};
use std::process::Command;

/// A heuristic, and the workload of `benches/pacing.rs` that it is for.
const PAIRS: [(&str, &str); 11] = [
    ("receiver_lead", "bytes-64"),
    ("receiver_lead", "bytes-1024"),
    ("progress_grace", "synced-1"),
    ("batch", "full"),
    ("batch", "full-4"),
    ("room_backoff", "full"),
    ("room_backoff", "full-4"),
    ("readable_looks", "round-trips"),
    ("gather", "synced-16"),
    ("give_way", "synced-64"),
    ("other_load", "synced-64-beside-others"),
];
const ROUNDS: usize = 9;

pub fn run(args: &[&str]) -> Outcome {
    let mut build = cargo("bench --bench pacing --no-run");
    build.env("RUSTFLAGS", "--cfg walchan_planted");
    build.env("CARGO_TARGET_DIR", target().join("planted"));
    let built = messages(&mut build)?;
    let lines = built
        .lines()
        .filter(|line| line.contains("\"executable\":\""));
    let bench = lines
        .filter_map(|line| line.split_once("\"executable\":\"")?.1.split('"').next())
        .next_back()
        .ok_or("cargo names no executable")?;
    println!("| heuristic | workload | with / without | spread |\n|---|---|---|---|");
    for (heuristic, workload) in PAIRS {
        if !args.is_empty() && !args.contains(&heuristic) {
            continue;
        }
        let mut ratios = Vec::new();
        for _ in 0..ROUNDS {
            let with = rate(bench, workload, "none")?;
            ratios.push(with / rate(bench, workload, heuristic)?);
        }
        ratios.sort_by(f64::total_cmp);
        let (low, high) = (ratios[0], ratios[ROUNDS - 1]);
        let median = ratios[ROUNDS / 2];
        println!("| `{heuristic}` | {workload} | {median:.2} | {low:.2}..{high:.2} |");
    }
    Ok(())
}

/// Messages a second, without one of the heuristics.
fn rate(bench: &str, workload: &str, left_out: &str) -> Result<f64, String> {
    let output = Command::new(bench)
        .arg(workload)
        .env("WALCHAN_LEFT_OUT", left_out)
        .output()
        .map_err(|error| format!("{bench}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().map_err(|_| {
        format!(
            "{workload} printed no rate: {}",
            String::from_utf8_lossy(&output.stderr)
        )
    })
}
