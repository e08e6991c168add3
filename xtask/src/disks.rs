//! `cargo xtask disks`: full, failing and counted disks, at full length. Needs root.

use crate::run::{Outcome, Plan, cargo};

pub fn run() -> Outcome {
    let mut plan = Plan::default();
    for (what, test, length) in [
        (
            "what a send writes",
            "block_writes",
            &[("WALCHAN_BLOCK_SENDS", "2000")][..],
        ),
        (
            "failing disks",
            "failing_device",
            &[("WALCHAN_EVERY_BLOCK", "1")],
        ),
        (
            "full disks",
            "full_disks",
            &[("WALCHAN_LAPS", "20000"), ("WALCHAN_SYNCED_LAPS", "1000")],
        ),
        (
            "disks that a channel fills",
            "full_segments",
            &[("WALCHAN_FULL_ROUNDS", "10")],
        ),
    ] {
        let line = format!("test --release -p system-tests --test {test} -- --nocapture");
        let mut command = cargo(&line);
        command.env("WALCHAN_SYSTEM_TESTS", "required");
        command.envs(length.iter().copied());
        plan.command(what, command)?;
    }
    plan.summary("disks");
    Ok(())
}
