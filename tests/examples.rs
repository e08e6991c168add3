//! The short examples, run as their users run them: each does what it says, and a second start finds nothing
//! left to do.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use support::examples::example;

/// What a run prints.
fn run(name: &str, args: &[&Path], input: &str) -> String {
    let mut child = Command::new(example(name))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that reads nothing may be gone already.
    child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
    let output = child.wait_with_output().unwrap();
    let (out, err) = (output.stdout, output.stderr);
    let err = String::from_utf8(err).unwrap();
    assert!(output.status.success(), "{name}: {err}");
    String::from_utf8(out).unwrap()
}

#[test]
fn a_worker_pool_does_each_job() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jobs");
    for opened in ["new channel", ": 0 kept"] {
        let out = run("worker_pool", &[&path], "");
        assert!(
            out.contains(opened) && out.contains("20 jobs done"),
            "{out}"
        );
    }
}

#[test]
fn an_outbox_tells_each_event_until_it_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let out = run("outbox", &[&dir.path().join("events")], "");
        assert_eq!(out, "10 events accepted\n");
    }
}

#[test]
fn a_log_shipper_ships_each_line_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (path, target) = (dir.path().join("lines"), dir.path().join("shipped"));
    let lines: String = (0..1000).map(|n| format!("line {n}\n")).collect();
    let out = run("log_shipper", &[&path, &target], &lines);
    assert_eq!(out, "1000 lines shipped\n");
    let out = run("log_shipper", &[&path, &target], "one more\n");
    assert_eq!(out, "1 lines shipped\n");
    let shipped = std::fs::read_to_string(&target).unwrap();
    assert_eq!(shipped, format!("{lines}one more\n"));
}

#[test]
fn a_graceful_shutdown_finishes_what_was_taken() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jobs");
    let out = run("graceful_shutdown", &[&path], "a\nb\nstop\nc\n");
    assert!(
        out.ends_with("working on a\nworking on b\n2 jobs done, closed\n"),
        "{out}"
    );
    let out = run("graceful_shutdown", &[&path], "");
    assert!(
        out.ends_with(
            ": 0 kept, 0 of them redelivered, 0 stepped over, 0 damaged\n0 jobs done, closed\n"
        ),
        "{out}"
    );
    // Without real syncs nothing may vouch for a file.
    assert_eq!(
        out.starts_with("closed in order"),
        cfg!(feature = "fsync"),
        "{out}"
    );
}

/// Short enough to be read at once.
#[test]
fn the_short_examples_are_short() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    for name in ["worker_pool", "outbox", "log_shipper", "graceful_shutdown"] {
        let text = std::fs::read_to_string(dir.join(format!("{name}.rs"))).unwrap();
        assert!(text.lines().count() <= 60, "{name}");
    }
}
