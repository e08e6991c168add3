//! `cargo xtask performance`: walchan beside its rivals, the table and the pictures.
//!
//! A quick run and one of some workloads leave the table in `docs` alone: its figures are those of a full
//! one.

use crate::run::{Outcome, Plan, cargo, target};
use std::path::PathBuf;

pub fn run(args: &[&str]) -> Outcome {
    let out = if args.contains(&"--quick") {
        target().join("performance")
    } else {
        PathBuf::from("docs")
    };
    let mut command = cargo("run --profile performance --package rivals -- --out");
    command.arg(&out).args(args);
    let mut plan = Plan::default();
    let what = format!("table and pictures, in {}", out.display());
    plan.command(&what, command)
}
