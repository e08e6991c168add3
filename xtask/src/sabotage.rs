//! `cargo xtask sabotage`: an ordering that can be weakened without a test noticing is one that
//! nothing shows to be needed.
//!
//! The models are built once; the environment variable `WALCHAN_SABOTAGE` selects the weakening.

use crate::caught::{self, Job, Run};
use crate::orderings::weakenings;
use crate::protocol::{self, PATH};
use crate::run::{Outcome, cargo_loom, judge};
use crate::source::{PRODUCT, Source};

pub const BUILD: &str = "test --profile models -p loom-tests";

pub fn run(only: &[&str]) -> Outcome {
    let rows = protocol::read()?;
    let mut wanted: Vec<_> = rows.into_iter().flat_map(|row| row.caught).collect();
    wanted.sort();
    wanted.dedup();
    for (name, place) in weakenings(&Source::read_all(&PRODUCT)?) {
        if !wanted.iter().any(|(listed, _)| *listed == name) {
            return Err(format!(
                "{place}: no row of {PATH} says which test catches `{name}`"
            ));
        }
    }
    if let Some(name) = only
        .iter()
        .find(|name| !wanted.iter().any(|(listed, _)| listed == *name))
    {
        return Err(format!("{PATH} has no weakening `{name}`"));
    }
    wanted.retain(|(name, _)| only.is_empty() || only.contains(&name.as_str()));
    let tests = caught::build(cargo_loom(BUILD))?;
    let mut jobs = Vec::new();
    for (name, test) in wanted {
        let test = caught::find(&test, &tests)?.clone();
        let env = vec![("WALCHAN_SABOTAGE", name.clone())];
        jobs.push(Job { test, name, env });
    }
    let mut problems = Vec::new();
    for (job, run) in jobs.iter().zip(caught::run_all(&jobs, report)?) {
        if let Err(why) = run.caught() {
            let (name, path, log) = (&job.name, &job.test.path, run.log.display());
            problems.push(format!("{name}, {path}: {why}; see {log}"));
        }
    }
    judge("weakenings that were not caught", &problems)?;
    println!("{} weakenings, each caught by its test", jobs.len());
    Ok(())
}

/// Says whether what was planted was caught.
pub fn report(job: &Job, run: &Run) {
    let (name, path, seconds) = (&job.name, &job.test.path, run.time.as_secs_f64());
    match run.caught() {
        Ok(said) => println!("{name}: caught by {path} in {seconds:.1} s: {said}"),
        Err(why) => println!("{name}: NOT CAUGHT by {path} in {seconds:.1} s: {why}"),
    }
}
