//! Children of this program: runs that need a process of their own, because it is killed, or because the
//! library under test keeps state in statics.
//!
//! A child is this program with `--child` and the words of its task. Its last line is the answer.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

pub const FLAG: &str = "--child";

fn command(words: &[&str], dir: &Path) -> Command {
    let program = std::env::current_exe().expect("the name of this program");
    let mut command = Command::new(program);
    command.arg(FLAG).args(words).stdout(Stdio::piped());
    // walrus is told by its environment where its files go, and to be quiet.
    command.env("WALRUS_DATA_DIR", dir).env("WALRUS_QUIET", "1");
    command
}

/// No run takes so long, unless a message got lost.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a child to its end, and gives the numbers that it ended with; `None` if it did not end.
pub fn ask<const N: usize>(words: &[&str], dir: &Path) -> Option<[u64; N]> {
    let mut child = command(words, dir).spawn().expect("a child");
    let began = Instant::now();
    // What it says fits into the pipe.
    let status = loop {
        if let Some(status) = child.try_wait().expect("the state of the child") {
            break status;
        }
        if began.elapsed() > PATIENCE {
            child.kill().expect("the child was there");
            child.wait().expect("its end");
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let mut text = String::new();
    let mut stdout = child.stdout.take().expect("its output is piped");
    stdout.read_to_string(&mut text).expect("its output");
    assert!(status.success(), "{words:?}: {status}");
    let line = text.lines().last().unwrap_or_default();
    let numbers: Option<Vec<u64>> = line.split(' ').map(|word| word.parse().ok()).collect();
    let answer = numbers.and_then(|numbers| numbers.try_into().ok());
    Some(answer.unwrap_or_else(|| panic!("{words:?} answered {text:?}")))
}

/// A child that says a number, and then waits to be killed.
#[derive(Debug)]
pub struct Waiting {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Waiting {
    pub fn start(words: &[&str], dir: &Path) -> Self {
        let mut child = command(words, dir).spawn().expect("a child");
        let stdout = child.stdout.take().expect("its output is piped");
        let lines = BufReader::new(stdout);
        Waiting { child, lines }
    }

    pub fn answer(&mut self) -> u64 {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        line.trim().parse().expect("a number")
    }

    /// With `SIGKILL`, at once.
    pub fn kill(mut self) {
        self.child.kill().expect("the child was there");
        self.child.wait().expect("its end");
    }
}
