//! `cargo xtask lint`: all that can be judged without running the code.

use crate::pages;
use crate::planted;
use crate::run::{Outcome, Plan, cargo, cargo_loom};
use crate::{lifecycle, packages, promises, walls, way};

/// Combinations of features of walchan: `bytemuck` adds one codec. `models` of the core does nothing without
/// loom.
const FEATURES: [&str; 6] = [
    "",
    "fsync",
    "stress",
    "fsync,stress",
    "bytemuck",
    "fsync,stress,bytemuck",
];

pub fn run() -> Outcome {
    let mut plan = Plan::default();
    plan.command("formatting", cargo("fmt --all --check"))?;
    let fuzz = cargo("fmt --check --manifest-path proof/fuzz/Cargo.toml");
    plan.command("formatting of the fuzz targets", fuzz)?;
    plan.step("walls between modules", "cargo xtask lint", walls::run)?;
    plan.step("planted bugs", "cargo xtask lint", planted::compare)?;
    plan.step("promises and tests", "cargo xtask lint", promises::run)?;
    plan.step("life cycle and tests", "cargo xtask lint", lifecycle::run)?;
    plan.step("pages and what they name", "cargo xtask lint", pages::run)?;
    plan.step("the way of one message", "cargo xtask lint", way::run)?;
    plan.step("published packages", "cargo xtask lint", packages::run)?;
    let clippy = cargo("clippy --workspace --exclude rivals --all-targets -- -D warnings");
    plan.command("clippy", clippy)?;
    for list in FEATURES {
        let only = format!("--no-default-features --features={list}");
        let clippy = cargo(&format!("clippy --all-targets {only} -- -D warnings"));
        plan.command(&format!("clippy with features {list:?}"), clippy)?;
    }
    for what in [
        "walchan --lib",
        "walchan-core --lib --features=fsync,models",
        "loom-tests --all-targets",
    ] {
        let clippy = cargo_loom(&format!("clippy -p {what} -- -D warnings"));
        plan.command(&format!("clippy under loom, {what}"), clippy)?;
    }
    for what in ["", "--document-private-items"] {
        let mut doc = cargo(&format!(
            "doc --no-deps --lib -p walchan -p walchan-core --features walchan/bytemuck {what}"
        ));
        doc.env("RUSTDOCFLAGS", "-D warnings");
        plan.command(&format!("documentation {what}"), doc)?;
    }
    plan.summary("lint");
    Ok(())
}
