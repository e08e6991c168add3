//! What a channel asks of the system, and in which order: with a call left out nothing would be wrong until
//! the power goes. Seen by strace.
#![allow(clippy::unwrap_used)]

use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use system_tests::{can_run, run};
use walchan::{Options, Receiver, Sender};

const RING: u64 = 64 << 10;
const PATH: &str = "WALCHAN_TEST_PATH";

fn open(path: &Path) -> (Sender<u64>, Receiver<u64>) {
    let options = Options {
        ring_bytes: Some(RING),
        ..Options::default()
    };
    walchan::channel_with_options(path, options).unwrap()
}

/// What the traced process does.
fn live(path: &Path) {
    println!("begins");
    let (tx, rx) = open(path);
    println!("made");
    tx.send(1).unwrap();
    println!("sent");
    drop((tx, rx));
    println!("closed");
    let ends = open(path);
    println!("opened");
    drop(ends);
}

/// A call that succeeded: its name, and all that strace says of it, with the path of each descriptor.
struct Call {
    name: String,
    text: String,
}

impl Call {
    fn is(&self, name: &str, part: &str) -> bool {
        self.name == name && self.text.contains(part)
    }

    /// The n-th argument as a number, counted from the last.
    fn number(&self, n: usize) -> u64 {
        let argument = self.text.rsplit(", ").nth(n).unwrap();
        argument.parse().unwrap()
    }
}

/// The calls of the process, in the order in which they ended.
struct Trace(Vec<Call>);

impl Trace {
    fn parse(text: &str) -> Trace {
        let mut begun: Vec<(&str, &str)> = Vec::new();
        let mut calls = Vec::new();
        for line in text.lines() {
            let (pid, rest) = line.split_once(' ').unwrap();
            let mut call = rest.trim_start().to_owned();
            if let Some(before) = call.strip_suffix(" <unfinished ...>") {
                let before = &rest.trim_start()[..before.len()];
                begun.push((pid, before));
                continue;
            }
            if let Some((_, end)) = call.split_once(" resumed>") {
                let at = begun.iter().position(|(p, _)| *p == pid).unwrap();
                call = format!("{}{end}", begun.remove(at).1);
            }
            let Some((name, text)) = call.split_once('(') else {
                continue;
            };
            let Some((text, result)) = text.rsplit_once(" = ") else {
                continue;
            };
            if !result.starts_with('-') {
                let text = text.trim_end().trim_end_matches(')').to_owned();
                calls.push(Call {
                    name: name.to_owned(),
                    text,
                });
            }
        }
        Trace(calls)
    }

    /// The place of the only such call between two places.
    fn only(&self, range: std::ops::Range<usize>, name: &str, part: &str) -> usize {
        let found = self.all(range, name, part);
        assert_eq!(found.len(), 1, "{name} of {part}");
        found[0]
    }

    fn all(&self, range: std::ops::Range<usize>, name: &str, part: &str) -> Vec<usize> {
        range.filter(|at| self.0[*at].is(name, part)).collect()
    }

    /// Where the process said this.
    fn said(&self, word: &str) -> usize {
        self.only(0..self.0.len(), "write", &format!("\"{word}\\n\""))
    }
}

/// Lets this test run again, under strace, and gives the directory, the channel's path and what was seen.
fn trace(test: &str) -> Option<(tempfile::TempDir, PathBuf, Trace)> {
    if let Some(path) = std::env::var_os(PATH) {
        live(Path::new(&path));
        return None;
    }
    if !can_run(test, &["strace"]) {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let (path, log) = (dir.path().join("a/b/q"), dir.path().join("log"));
    let mut command = Command::new("strace");
    command.args(["-f", "-y", "-e", "signal=none", "-e"]);
    command.arg("trace=mkdir,pwrite64,write,fsync,fdatasync,rename,renameat2,link,linkat");
    command
        .arg("-o")
        .arg(&log)
        .arg(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]);
    run(command.env(PATH, &path));
    let trace = Trace::parse(&std::fs::read_to_string(log).unwrap());
    Some((dir, path, trace))
}

/// Stops the process behind its first opening of the channel's file, before it locks it; the name goes to
/// another channel; the process goes on.
#[test]
fn a_file_that_lost_its_name_before_it_was_locked_is_not_opened() {
    const NAME: &str = "a_file_that_lost_its_name_before_it_was_locked_is_not_opened";
    if let Some(path) = std::env::var_os(PATH) {
        let (_tx, rx) = open(Path::new(&path));
        println!("received {}", *rx.try_recv().unwrap());
        return;
    }
    if !can_run(NAME, &["strace"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (path, log) = (dir.path().join("q"), dir.path().join("log"));
    let make = |n| open(&path).0.send(n).unwrap();
    make(1);
    let mut command = Command::new("strace");
    // Its name in the directory, by which it is opened.
    command.args(["-f", "-e", "trace=openat", "-P", "q"]);
    command.args(["-e", "inject=openat:signal=SIGSTOP:when=1", "-o"]);
    command.arg(&log).arg(std::env::current_exe().unwrap());
    command.args([NAME, "--exact", "--nocapture", "--test-threads=1"]);
    let child = command.env(PATH, &path).stdout(Stdio::piped()).spawn();
    let mut child = child.unwrap();
    let stopped = loop {
        let seen = std::fs::read_to_string(&log).unwrap_or_default();
        if let Some((before, _)) = seen.split_once(" --- stopped by SIGSTOP ---") {
            break before.lines().last().unwrap().trim().parse().unwrap();
        }
        assert!(
            child.try_wait().unwrap().is_none(),
            "it did not stop: {seen}"
        );
        std::thread::sleep(Duration::from_millis(1));
    };
    std::fs::rename(&path, dir.path().join("moved")).unwrap();
    make(2);
    let stopped = Pid::from_raw(stopped).unwrap();
    kill_process(stopped, Signal::CONT).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let said = said.trim();
    assert!(
        output.status.success() && said.contains("received 2"),
        "{said}"
    );
}

/// The channel's name is given within its directory, which is held open.
const NAMED: &str = ", \"q\", RENAME_NOREPLACE";

/// A descriptor of this file, as strace shows it.
fn of(path: &Path) -> String {
    format!("<{}>", path.display())
}

#[test]
fn a_new_file_gets_its_name_when_all_of_it_is_durable() {
    let Some((_dir, path, trace)) = trace("a_new_file_gets_its_name_when_all_of_it_is_durable")
    else {
        return;
    };
    let making = of(&path.with_file_name("q.walchan-new"));
    let made = trace.said("begins")..trace.said("made");
    let named = trace.only(made.clone(), "renameat2", NAMED);
    let synced = trace.only(made.clone(), "fsync", &making);
    assert!(synced < named, "the name is given to what is durable");
    let len = 19 * 4096 + RING;
    let mut written = vec![false; len as usize];
    for at in trace.all(made.clone(), "pwrite64", "") {
        assert!(
            trace.0[at].is("pwrite64", &making) && at < synced,
            "a late write"
        );
        let (offset, bytes) = (trace.0[at].number(0), trace.0[at].number(1));
        written[offset as usize..(offset + bytes) as usize].fill(true);
    }
    assert!(written.iter().all(|byte| *byte), "each block is written");
}

#[test]
fn a_name_is_durable_when_its_channel_is_open() {
    let Some((dir, path, trace)) = trace("a_name_is_durable_when_its_channel_is_open") else {
        return;
    };
    let (begins, made) = (trace.said("begins"), trace.said("made"));
    let named = trace.only(begins..made, "renameat2", NAMED);
    trace.only(named..made, "fsync", &of(path.parent().unwrap()));
    for (parent, child) in [(dir.path().to_owned(), "a"), (dir.path().join("a"), "a/b")] {
        let child = format!("\"{}\"", dir.path().join(child).display());
        let created = trace.only(begins..named, "mkdir", &child);
        trace.only(created..named, "fsync", &of(&parent));
    }
    // Whoever made a file that is there may not have come so far.
    let (closed, opened) = (trace.said("closed"), trace.said("opened"));
    let synced = trace.only(closed..opened, "fsync", &of(path.parent().unwrap()));
    let writes = trace.all(closed..opened, "pwrite64", "");
    assert!(writes.iter().all(|write| synced < *write));
}

#[test]
fn the_file_is_synced_before_a_send_returns_and_before_recovery_and_closing_end() {
    const NAME: &str =
        "the_file_is_synced_before_a_send_returns_and_before_recovery_and_closing_end";
    let Some((_dir, path, trace)) = trace(NAME) else {
        return;
    };
    let file = of(&path);
    let [made, sent, closed, opened] = ["made", "sent", "closed", "opened"].map(|w| trace.said(w));
    trace.only(made..sent, "fdatasync", &file);
    assert!(trace.all(sent..closed, "fdatasync", &file).len() >= 2);
    // Both copies of the table, each with its checkpoint.
    let writes = trace.all(closed..opened, "pwrite64", &file);
    let syncs = trace.all(closed..opened, "fdatasync", &file);
    assert_eq!((writes.len(), syncs.len()), (4, 2));
    assert!(writes[1] < syncs[0] && syncs[0] < writes[2] && writes[3] < syncs[1]);
}
