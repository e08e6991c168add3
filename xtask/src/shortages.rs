//! `cargo xtask shortages`: descriptors and address space run short, on one processor, often.

use crate::run::{Outcome, Plan, cargo};

const INCARNATIONS: u64 = 1_000;

pub fn run(args: &[&str]) -> Outcome {
    let number = |word: &str| {
        word.parse::<u64>()
            .map_err(|_| format!("not a number: {word}"))
    };
    let (count, seed) = match args {
        [] => (INCARNATIONS, 1),
        [count] => (number(count)?, 1),
        [count, seed] => (number(count)?, number(seed)?),
        _ => return Err("usage: cargo xtask shortages [N [SEED]]".to_owned()),
    };
    let mut test =
        cargo("test --release --features stress --test shortages nothing_is_lost -- --nocapture");
    test.env("WALCHAN_SHORTAGES", count.to_string());
    test.env("WALCHAN_SHORTAGES_SEED", seed.to_string());
    let mut plan = Plan::default();
    plan.command("shortages", test)?;
    plan.summary("shortages");
    Ok(())
}
