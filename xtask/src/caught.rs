//! Tests that are built once and run one by one, each with something planted: does it notice?

#![allow(clippy::disallowed_types)] // loom has no part in it

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::run::bound_models;

/// A test that takes longer has shown nothing.
const SECONDS_MAX: u64 = 600;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Test {
    pub executable: PathBuf,
    /// Of the package: where its tests run.
    folder: PathBuf,
    /// The name that the harness knows.
    pub path: String,
}

/// A test, and the environment to run it in.
#[derive(Clone, Debug)]
pub struct Job {
    pub test: Test,
    /// What is planted; names the log, too.
    pub name: String,
    pub env: Vec<(&'static str, String)>,
}

/// Builds tests, by a command that ends with `--message-format=json-render-diagnostics`, and lists them.
pub fn build(mut cargo: Command) -> Result<Vec<Test>, String> {
    let messages = messages(cargo.arg("--no-run"))?;
    let mut tests = Vec::new();
    for (executable, folder) in executables(&messages) {
        let mut list = Command::new(&executable);
        let output = list.args(["--list", "--format", "terse"]).output();
        let output = output.map_err(|error| format!("{}: {error}", executable.display()))?;
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            if let Some(path) = line.strip_suffix(": test") {
                tests.push(Test {
                    executable: executable.clone(),
                    folder: folder.clone(),
                    path: path.to_owned(),
                });
            }
        }
    }
    Ok(tests)
}

/// What cargo says of a build, in JSON, a line for each message.
pub fn messages(cargo: &mut Command) -> Result<String, String> {
    cargo.arg("--message-format=json-render-diagnostics");
    let output = cargo.stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err("it does not compile".to_owned());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The string that follows a key.
pub fn value<'a>(message: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = message.split_once(&format!("\"{key}\":\""))?;
    rest.split('"').next()
}

/// Executables, and the folders of their packages.
fn executables(messages: &str) -> Vec<(PathBuf, PathBuf)> {
    let of = |message| {
        let manifest = Path::new(value(message, "manifest_path")?);
        let folder = manifest.parent()?.to_owned();
        Some((PathBuf::from(value(message, "executable")?), folder))
    };
    messages.lines().filter_map(of).collect()
}

/// The only test whose path ends with `name`.
pub fn find<'a>(name: &str, tests: &'a [Test]) -> Result<&'a Test, String> {
    let inner = format!("::{name}");
    let fits = |test: &&Test| test.path == name || test.path.ends_with(&inner);
    let found: Vec<_> = tests.iter().filter(fits).collect();
    match found.as_slice() {
        [test] => Ok(test),
        _ => Err(format!(
            "there are {} tests called `{name}`, not one",
            found.len()
        )),
    }
}

/// What came of a job.
#[derive(Debug)]
pub struct Run {
    /// `None` when it had to be stopped.
    status: Option<ExitStatus>,
    pub output: String,
    pub time: Duration,
    pub log: PathBuf,
}

/// Runs the jobs, as many at once as there are processors. `ended` hears of each when it has ended; what
/// comes back is in the order of the jobs.
pub fn run_all(jobs: &[Job], ended: impl Fn(&Job, &Run) + Sync) -> Result<Vec<Run>, String> {
    let next = Mutex::new(jobs.iter().enumerate());
    let work = || {
        let mut done = Vec::new();
        while let Some((number, job)) = next.lock().ok().and_then(|mut jobs| jobs.next()) {
            let run = run(job).map_err(|error| format!("{}: {error}", job.name))?;
            ended(job, &run);
            done.push((number, run));
        }
        Ok(done)
    };
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let mut done = Vec::new();
    thread::scope(|scope| {
        let running: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        for worker in running {
            let died = |_| Err("a worker died".to_owned());
            done.append(&mut worker.join().unwrap_or_else(died)?);
        }
        Ok::<(), String>(())
    })?;
    done.sort_by_key(|(number, _)| *number);
    Ok(done.into_iter().map(|(_, run)| run).collect())
}

fn run(job: &Job) -> io::Result<Run> {
    let start = Instant::now();
    let extension = format!("{}.{}.log", job.name, job.test.path.replace("::", "."));
    let log = job.test.executable.with_extension(extension);
    let output = File::create(&log)?;
    let mut command = Command::new(&job.test.executable);
    command.current_dir(&job.test.folder).stdin(Stdio::null());
    bound_models(&mut command);
    // An abort would take along what the harness had caught of the output.
    command.args(["--exact", &job.test.path, "--test-threads=1", "--nocapture"]);
    command.envs(job.env.iter().map(|(key, value)| (key, value)));
    command.stdout(output.try_clone()?).stderr(output);
    let status = wait(command.spawn()?)?;
    let output = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    Ok(Run {
        status,
        output,
        time: start.elapsed(),
        log,
    })
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

impl Run {
    /// Whether the test ran and passed.
    pub fn passed(&self) -> bool {
        self.status.is_some_and(|status| status.success()) && self.output.contains(" 1 passed;")
    }

    /// What the test said when it failed. A failure is a panic, reported by the harness, or an abort: because
    /// a second panic met the first, because the test's own watchdog saw it hang, or because no memory was
    /// left. Any other end says nothing about what was planted.
    pub fn caught(&self) -> Result<String, String> {
        let Some(status) = self.status else {
            return Err(format!("no end after {SECONDS_MAX} s"));
        };
        if status.success() {
            return Err("the test passed".to_owned());
        }
        let failed = self.output.contains(" 1 failed;") || status.code().is_none();
        match said(&self.output) {
            Some(said) if failed => Ok(said.trim().to_owned()),
            _ => Err(format!("ended with {status}, but not with a panic")),
        }
    }
}

/// The line that says why a test failed.
fn said(output: &str) -> Option<&str> {
    let mut lines = output.lines();
    let line = lines.find(|line| {
        [
            " panicked at ",
            " hangs: it has not ended in ",
            "memory allocation of ",
        ]
        .iter()
        .any(|sign| line.contains(sign))
    })?;
    if line.contains(" panicked at ") {
        return lines.next();
    }
    Some(line)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    fn verdict(status: Option<ExitStatus>, output: &str) -> Result<String, String> {
        let run = Run {
            status,
            output: output.to_owned(),
            time: Duration::ZERO,
            log: PathBuf::new(),
        };
        assert!(!run.passed());
        run.caught()
    }

    #[test]
    fn only_a_panicking_test_counts_as_caught() {
        let failed = "thread 't' (7) panicked at src/x.rs:1:2:\nCausality violation\n\
                      test result: FAILED. 0 passed; 1 failed; 0 ignored;";
        let aborted = "thread 't' panicked at x:\nfirst\nthread 't' panicked at y:\nsecond\n";
        let hung = "t hangs: it has not ended in 20s\n";
        let ended = |raw| Some(ExitStatus::from_raw(raw));
        let (exit, abort, segfault) = (101 << 8, 6, 11);
        assert_eq!(
            verdict(ended(exit), failed),
            Ok("Causality violation".to_owned())
        );
        assert_eq!(verdict(ended(abort), aborted), Ok("first".to_owned()));
        assert_eq!(verdict(ended(abort), hung), Ok(hung.trim().to_owned()));
        assert!(verdict(ended(0), "test result: ok. 0 passed; 0 failed;").is_err());
        assert!(verdict(ended(exit), "error: no such option").is_err());
        assert!(verdict(ended(segfault), "").is_err());
        assert!(verdict(None, failed).is_err());
    }

    #[test]
    fn a_test_is_found_by_the_end_of_its_path() {
        let tests = ["ring::t1", "ring::not_t1", "t2", "m::t2"];
        let tests = tests.map(|path| Test {
            executable: "a".into(),
            folder: "b".into(),
            path: path.to_owned(),
        });
        assert_eq!(find("t1", &tests), Ok(&tests[0]));
        assert_eq!(find("m::t2", &tests), Ok(&tests[3]));
        assert!(find("t2", &tests).is_err() && find("t3", &tests).is_err());
    }

    #[test]
    fn executables_are_read_from_the_messages() {
        let messages = "{\"manifest_path\":\"/w/Cargo.toml\",\"executable\":null}\n\
            {\"manifest_path\":\"/w/p/Cargo.toml\",\"executable\":\"/t/x-1\",\"fresh\":true}\n";
        assert_eq!(
            executables(messages),
            [(PathBuf::from("/t/x-1"), PathBuf::from("/w/p"))]
        );
    }
}
