//! `cargo xtask calls`: every system call of a channel's life is the last one, or fails.

use crate::run::{Outcome, Plan, cargo};

pub fn run() -> Outcome {
    let mut plan = Plan::default();
    for (what, name) in [
        ("a kill at every call", "killed_at_every_call"),
        ("an error of every call", "failing_calls"),
    ] {
        let mut test = cargo("test -p system-tests --test");
        test.args([name, "--", "--nocapture"]);
        test.env("WALCHAN_CALLS_ALL", "1");
        plan.command(what, test)?;
    }
    plan.summary("calls");
    Ok(())
}
