//! Steps that are announced, timed and summed up. Stops at the first that fails.

use std::env::var_os;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

pub type Outcome = Result<(), String>;

/// How many times a model may switch threads where it need not: 3 takes several times as long as 2.
const LOOM_MAX_PREEMPTIONS: &str = "2";

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// `cargo` with the words of `args`, in the root of the workspace.
pub fn cargo(args: &str) -> Command {
    let mut command = Command::new(var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args.split_whitespace()).current_dir(root());
    command
}

/// The target directory.
pub fn target() -> PathBuf {
    PathBuf::from(var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// `cargo` with loom in place of the standard library, and a target directory of its own: in a
/// shared one, each change between the two would build everything again.
pub fn cargo_loom(args: &str) -> Command {
    let mut command = cargo(args);
    command.env("RUSTFLAGS", "--cfg loom");
    command.env("CARGO_TARGET_DIR", target().join("loom"));
    bound_models(&mut command);
    command
}

/// Bounds the models, unless the caller's environment already does.
pub fn bound_models(command: &mut Command) {
    if var_os("LOOM_MAX_PREEMPTIONS").is_none() {
        command.env("LOOM_MAX_PREEMPTIONS", LOOM_MAX_PREEMPTIONS);
    }
}

/// `Ok` when there are no problems, else all of them in one message.
pub fn judge(title: &str, problems: &[String]) -> Outcome {
    if problems.is_empty() {
        return Ok(());
    }
    let list = problems.join("\n  ");
    Err(format!("{title}, {} in all:\n  {list}", problems.len()))
}

/// The command as one would type it.
fn typed(command: &Command) -> String {
    let mut line = String::new();
    for (key, value) in command.get_envs() {
        let value = value.unwrap_or_default();
        line.push_str(&format!("{}={value:?} ", key.display()));
    }
    line.push_str("cargo");
    for arg in command.get_args() {
        line.push_str(&format!(" {}", arg.display()));
    }
    line
}

/// The steps done so far.
#[derive(Default)]
pub struct Plan {
    done: Vec<(String, Duration)>,
}

impl Plan {
    pub fn command(&mut self, what: &str, mut command: Command) -> Outcome {
        let line = typed(&command);
        self.step(what, &line, || match command.status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("the command ended with {status}")),
            Err(error) => Err(format!("the command did not start: {error}")),
        })
    }

    pub fn step(&mut self, what: &str, line: &str, work: impl FnOnce() -> Outcome) -> Outcome {
        println!("\n=== {what}\n$ {line}");
        let start = Instant::now();
        let outcome = work();
        let time = start.elapsed();
        if let Err(error) = outcome {
            let step = self.done.len() + 1;
            let hint = format!("again: {line}\n  the steps behind it were not run");
            return Err(format!("step {step} FAILED, {what}: {error}\n  {hint}"));
        }
        println!("=== {what}: passed in {:.1} s", time.as_secs_f64());
        self.done.push((what.to_owned(), time));
        Ok(())
    }

    pub fn summary(&self, title: &str) {
        println!("\n=== {title}: all {} steps passed", self.done.len());
        for (what, time) in &self.done {
            println!("{:>8.1} s  {what}", time.as_secs_f64());
        }
        let total: Duration = self.done.iter().map(|(_, time)| *time).sum();
        println!("{:>8.1} s  in all", total.as_secs_f64());
    }
}
