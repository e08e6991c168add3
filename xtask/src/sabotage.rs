//! `cargo xtask sabotage`: an ordering that can be weakened without a test noticing is one that
//! nothing shows to be needed.
//!
//! The models are built once; the environment variable `WALCHAN_SABOTAGE` selects the weakening.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::orderings::weakenings;
use crate::protocol::{self, PATH};
use crate::run::{Outcome, bound_models, cargo_loom, judge, root};
use crate::source::Source;

/// A weakened model that takes longer has shown nothing.
const SECONDS_MAX: u64 = 600;

const BUILD: &str =
    "test --release -p loom-tests --no-run --message-format=json-render-diagnostics";

#[derive(Clone, Debug, PartialEq)]
struct Test {
    executable: PathBuf,
    path: String,
}

pub fn run(only: &[&str]) -> Outcome {
    let rows = protocol::read()?;
    let mut wanted: Vec<_> = rows.into_iter().flat_map(|row| row.caught).collect();
    wanted.sort();
    wanted.dedup();
    for (name, place) in weakenings(&Source::read_all(&["src"])?) {
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
    let tests = build()?;
    let mut jobs = Vec::new();
    for (name, test) in wanted {
        jobs.push((name, find(&test, &tests)?.clone()));
    }
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let problems = thread::scope(|scope| {
        let share = jobs.len().div_ceil(workers).max(1);
        let work = |jobs| move || examine_all(jobs);
        let running: Vec<_> = jobs
            .chunks(share)
            .map(|jobs| scope.spawn(work(jobs)))
            .collect();
        let died = |_| vec!["a worker died".to_owned()];
        let found = running
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(died));
        found.flatten().collect::<Vec<_>>()
    });
    judge("weakenings that were not caught", &problems)?;
    println!("{} weakenings, each caught by its test", jobs.len());
    Ok(())
}

/// Builds the models and lists their tests.
fn build() -> Result<Vec<Test>, String> {
    let output = cargo_loom(BUILD).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err("the models do not compile".to_owned());
    }
    let mut tests = Vec::new();
    for executable in executables(&String::from_utf8_lossy(&output.stdout)) {
        let output = command(&executable)
            .args(["--list", "--format", "terse"])
            .output();
        let output = output.map_err(|error| format!("{}: {error}", executable.display()))?;
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            if let Some(path) = line.strip_suffix(": test") {
                tests.push(Test {
                    executable: executable.clone(),
                    path: path.to_owned(),
                });
            }
        }
    }
    Ok(tests)
}

fn executables(messages: &str) -> Vec<PathBuf> {
    let behind = messages.split("\"executable\":\"").skip(1);
    behind
        .filter_map(|rest| rest.split('"').next())
        .map(PathBuf::from)
        .collect()
}

/// The only test whose path ends with `name`.
fn find<'a>(name: &str, tests: &'a [Test]) -> Result<&'a Test, String> {
    let inner = format!("::{name}");
    let fits = |test: &&Test| test.path == name || test.path.ends_with(&inner);
    let found: Vec<_> = tests.iter().filter(fits).collect();
    match found.as_slice() {
        [test] => Ok(test),
        _ => Err(format!(
            "loom-tests has {} tests called `{name}`, not one",
            found.len()
        )),
    }
}

fn command(executable: &Path) -> Command {
    let mut command = Command::new(executable);
    command
        .current_dir(root().join("loom-tests"))
        .stdin(Stdio::null());
    bound_models(&mut command);
    command
}

/// Runs one test for each weakening; returns the weakenings that were not caught.
fn examine_all(jobs: &[(String, Test)]) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, test) in jobs {
        let start = Instant::now();
        let log = test.executable.with_extension(format!("{name}.log"));
        let verdict = examine(name, test, &log).unwrap_or_else(|error| Err(error.to_string()));
        let seconds = start.elapsed().as_secs_f64();
        match verdict {
            Ok(said) => println!("{name}: caught by {} in {seconds:.1} s: {said}", test.path),
            Err(why) => {
                println!(
                    "{name}: NOT CAUGHT by {} in {seconds:.1} s: {why}",
                    test.path
                );
                problems.push(format!(
                    "{name}, {}: {why}; see {}",
                    test.path,
                    log.display()
                ));
            }
        }
    }
    problems
}

fn examine(name: &str, test: &Test, log: &Path) -> io::Result<Result<String, String>> {
    let output = File::create(log)?;
    let mut command = command(&test.executable);
    command.args(["--exact", &test.path, "--test-threads=1"]);
    command.env("WALCHAN_SABOTAGE", name);
    command.stdout(output.try_clone()?).stderr(output);
    let status = wait(command.spawn()?)?;
    Ok(verdict(status, &String::from_utf8_lossy(&fs::read(log)?)))
}

/// `None` when it had to be stopped.
fn wait(mut child: Child) -> io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(SECONDS_MAX) {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        thread::sleep(Duration::from_millis(20));
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

/// What the test said when it failed. A failure is a panic: reported by the harness, or an abort
/// because a second panic met the first. Any other end says nothing about the weakening.
fn verdict(status: Option<ExitStatus>, output: &str) -> Result<String, String> {
    let status = status.ok_or_else(|| format!("no end after {SECONDS_MAX} s"))?;
    if status.success() {
        return Err("the test passed".to_owned());
    }
    let failed = output.contains(" 1 failed;") || status.code().is_none();
    let mut lines = output
        .lines()
        .skip_while(|line| !line.contains("panicked at"))
        .skip(1);
    match lines.next() {
        Some(said) if failed => Ok(said.trim().to_owned()),
        _ => Err(format!("ended with {status}, but not with a panic")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn only_a_panicking_test_counts_as_caught() {
        let failed = "thread 't' (7) panicked at src/x.rs:1:2:\nCausality violation\n\
                      test result: FAILED. 0 passed; 1 failed; 0 ignored;";
        let aborted = "thread 't' panicked at x:\nfirst\nthread 't' panicked at y:\nsecond\n";
        let ended = |raw| Some(ExitStatus::from_raw(raw));
        let (exit, abort, segfault) = (101 << 8, 6, 11);
        assert_eq!(
            verdict(ended(exit), failed),
            Ok("Causality violation".to_owned())
        );
        assert_eq!(verdict(ended(abort), aborted), Ok("first".to_owned()));
        assert!(verdict(ended(0), "test result: ok. 1 passed; 0 failed;").is_err());
        assert!(verdict(ended(exit), "error: no such option").is_err());
        assert!(verdict(ended(segfault), "").is_err());
        assert!(verdict(None, failed).is_err());
    }

    #[test]
    fn a_test_is_found_by_the_end_of_its_path() {
        let tests = ["ring::t1", "ring::not_t1", "t2", "m::t2"];
        let tests = tests.map(|path| Test {
            executable: "a".into(),
            path: path.to_owned(),
        });
        assert_eq!(find("t1", &tests), Ok(&tests[0]));
        assert_eq!(find("m::t2", &tests), Ok(&tests[3]));
        assert!(find("t2", &tests).is_err() && find("t3", &tests).is_err());
    }

    #[test]
    fn executables_are_read_from_the_messages() {
        let messages = "{\"executable\":null}\n{\"executable\":\"/t/x-1\",\"fresh\":true}\n";
        assert_eq!(executables(messages), [PathBuf::from("/t/x-1")]);
    }
}
