//! `cargo xtask kills`: processes are killed at random moments, often.

use crate::run::{Outcome, Plan, cargo};

/// Processes in all.
const KILLS: u64 = 5_000;
/// Tests that share them.
const TESTS: u64 = 12;

pub fn run(args: &[&str]) -> Outcome {
    let number = |word: &str| {
        word.parse::<u64>()
            .map_err(|_| format!("not a number: {word}"))
    };
    let (kills, seed) = match args {
        [] => (KILLS, 1),
        [kills] => (number(kills)?, 1),
        [kills, seed] => (number(kills)?, number(seed)?),
        _ => return Err("usage: cargo xtask kills [KILLS [SEED]]".to_owned()),
    };
    let each = kills.div_ceil(TESTS);
    let mut test = cargo("test --release --features stress --test killed -- --nocapture");
    test.env("WALCHAN_KILLS", each.to_string());
    test.env("WALCHAN_KILLS_SEED", seed.to_string());
    let mut plan = Plan::default();
    plan.command("killed processes", test)?;
    plan.summary("kills");
    println!("{} processes were killed, seed {seed}", each * TESTS);
    Ok(())
}
