//! `cargo xtask test`: every test there is, cheapest first.

use crate::run::{Outcome, Plan, cargo, cargo_loom};
use crate::{fuzz, planted, sabotage};

const DEBUG: &str = "test --workspace --exclude loom-tests --exclude rivals --features walchan/bytemuck \
                     --lib --bins --tests --examples";

pub fn run() -> Outcome {
    let mut plan = Plan::default();
    plan.command("tests and examples, debug", cargo(DEBUG))?;
    plan.command(
        "documentation",
        cargo("test --doc --features walchan/bytemuck"),
    )?;
    plan.command(
        "tests, release",
        cargo("test --release -p walchan -p walchan-core -p crash-tests --lib --tests"),
    )?;
    let bare = cargo("test --no-default-features --lib --tests");
    plan.command("tests without default features", bare)?;
    plan.command("committed inputs of the fuzzer", fuzz::replay())?;
    plan.command("models", cargo_loom(sabotage::BUILD))?;
    let sabotage = || sabotage::run(&[]);
    plan.step("planted weakenings", "cargo xtask sabotage", sabotage)?;
    plan.step("planted bugs", "cargo xtask planted", || planted::run(&[]))?;
    plan.summary("test");
    Ok(())
}
