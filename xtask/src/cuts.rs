//! `cargo xtask cuts`: the power fails on real file systems, often.

use crate::run::{Outcome, Plan, cargo};

/// Cuts of each file system.
const CUTS: &str = "200";
const SEED: &str = "1";

pub fn run(args: &[&str]) -> Outcome {
    let (cuts, seed) = match args {
        [] => (CUTS, SEED),
        [cuts] => (*cuts, SEED),
        [cuts, seed] => (*cuts, *seed),
        _ => return Err("usage: cargo xtask cuts [CUTS [SEED]]".to_owned()),
    };
    for number in [cuts, seed] {
        if number.parse::<u64>().is_err() {
            return Err(format!("not a number: {number}"));
        }
    }
    let mut test =
        cargo("test --release -p system-tests --test power_cuts --test lossy_disks -- --nocapture");
    test.env("WALCHAN_CUTS", cuts);
    test.env("WALCHAN_CUTS_SEED", seed);
    let mut plan = Plan::default();
    plan.command("power cuts on real file systems", test)?;
    plan.summary("cuts");
    Ok(())
}
