//! The example program, run as its users run it: killed at random moments, its answer stays exact.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const KILLS: u32 = 20;
/// A test process that takes longer hangs.
const HANG: Duration = Duration::from_secs(300);

/// The binary of the example.
fn example() -> PathBuf {
    support::examples::example("ingest")
}

/// Numbers that differ from one run of the test to the next; the seed is printed.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let seed = Instant::now().elapsed().as_nanos() as u64
            ^ u64::from(std::process::id()) << 32
            ^ std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        println!("seed {seed}");
        Random(seed | 1)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// A tree of some megabytes: many small files and a large one, empty files and lines, no last newline, CRLF,
/// long lines, bytes that are not UTF-8, a binary file, a symbolic link.
fn corpus(dir: &Path) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut text = |lines: u64| {
        let mut bytes = Vec::new();
        for _ in 0..lines {
            for _ in 0..random.below(14) {
                // Few words are frequent, many are rare.
                let rank = random.below(3000) * random.below(3000) / 900;
                bytes.extend_from_slice(format!("w{rank}").as_bytes());
                let separators: [&[u8]; 6] = [b" ", b"::", b"\xc3\xa9", b"\xff", b", ", b"\t"];
                bytes.extend_from_slice(separators[random.below(6) as usize]);
            }
            bytes.extend_from_slice(if random.below(9) == 0 { b"\r\n" } else { b"\n" });
        }
        bytes
    };
    for i in 0..60 {
        let inner = dir
            .join(format!("part-{}", i % 7))
            .join(format!("{}", i % 3));
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join(format!("file-{i}.txt")), text(300)).unwrap();
    }
    fs::write(dir.join("large.txt"), text(40_000)).unwrap();
    fs::write(dir.join("no-newline"), b"one two\n\n\nthree").unwrap();
    fs::write(dir.join("empty"), b"").unwrap();
    fs::write(dir.join("binary"), b"not\0counted").unwrap();
    fs::write(
        dir.join("long-line"),
        b"some words on one line ".repeat(20_000),
    )
    .unwrap();
    fs::write(
        dir.join("late-nul"),
        [b"x ".repeat(100_000), b"\0seen\0".to_vec()].concat(),
    )
    .unwrap();
    std::os::unix::fs::symlink("large.txt", dir.join("link")).unwrap();
}

/// The answer, counted independently: whole files, byte by byte.
fn count(dir: &Path, counts: &mut BTreeMap<Vec<u8>, u64>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let file_type = entry.file_type().unwrap();
        if file_type.is_dir() {
            count(&entry.path(), counts);
        } else if file_type.is_file() {
            let bytes = fs::read(entry.path()).unwrap();
            if bytes.iter().take(64 << 10).any(|&byte| byte == 0) {
                continue;
            }
            for word in bytes.split(|&byte| !(byte == b'_' || byte.is_ascii_alphanumeric())) {
                if !word.is_empty() {
                    *counts.entry(word.to_vec()).or_default() += 1;
                }
            }
        }
    }
}

fn expected(corpus: &Path) -> String {
    let mut counts = BTreeMap::new();
    count(corpus, &mut counts);
    let row = |(word, count): (&Vec<u8>, &u64)| {
        format!("{}\t{count}\n", std::str::from_utf8(word).unwrap())
    };
    counts.iter().map(row).collect()
}

fn start(state: &Path, corpus: &Path, durability: &str, workers: u64) -> Child {
    Command::new(example())
        .args([
            "--durability",
            durability,
            "--workers",
            &workers.to_string(),
            "--state",
        ])
        .args([state, corpus])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The exit of a child that ends by itself within the time; `None` if it was killed instead.
fn end_within(child: &mut Child, time: Duration) -> Option<std::process::ExitStatus> {
    let deadline = Instant::now() + time;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() >= deadline {
            child.kill().unwrap();
            let status = child.wait().unwrap();
            // It may have ended just before.
            return status.code().map(|_| status);
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// Waits for the end, checks it, gives what was printed.
fn finish(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    out
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// Ends everything if a test hangs: all of them last seconds.
fn watchdog() {
    std::thread::spawn(|| {
        std::thread::sleep(HANG);
        eprintln!("a test hangs");
        std::process::abort();
    });
}

fn check(state: &Path, expected: &str, printed: &str) {
    let answer = fs::read_to_string(state.join("word-counts.tsv")).unwrap();
    assert!(answer == expected, "another answer; {printed}");
    if !printed.starts_with("done before") {
        assert!(
            printed.contains("lost, sent again: 0\n"),
            "the channel lost messages: {printed}"
        );
    }
    let mut left: Vec<_> = fs::read_dir(state)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(
        left,
        ["files", "word-counts.tsv"],
        "what an unfinished run needs is removed"
    );
}

/// Runs over and over, in a state directory each, until so many runs were killed.
fn killed_runs_give_the_answer(durability: &str, kills: u32, corpus_of: fn(&Path)) {
    watchdog();
    let dir = tempfile::tempdir().unwrap();
    let corpus = dir.path().join("corpus");
    fs::create_dir(&corpus).unwrap();
    corpus_of(&corpus);
    let expected = expected(&corpus);

    let undisturbed = dir.path().join("undisturbed");
    let began = Instant::now();
    let printed = finish(start(&undisturbed, &corpus, durability, 4));
    let time_us = began.elapsed().as_micros() as u64;
    check(&undisturbed, &expected, &printed);
    let again = finish(start(&undisturbed, &corpus, durability, 4));
    assert!(again.starts_with("done before"), "{again}");

    let mut random = Random::new();
    let (mut killed, mut recovered, mut state_number) = (0, 0, 0);
    while killed < kills {
        state_number += 1;
        let state = dir.path().join(format!("state-{state_number}"));
        loop {
            let mut child = start(&state, &corpus, durability, 1 + random.below(5));
            let mut out = BufReader::new(child.stdout.take().unwrap());
            let mut printed = String::new();
            if random.below(4) > 0 {
                // Let it open the channel; most of the other kills come before that.
                out.read_line(&mut printed).unwrap();
            }
            // Only how far a killed run gets depends on the times, not what is expected.
            let patience = Duration::from_micros(random.below(time_us / 4 + 1));
            let ended = if killed == kills {
                Some(child.wait().unwrap())
            } else {
                end_within(&mut child, patience)
            };
            out.read_to_string(&mut printed).unwrap();
            let mut err = String::new();
            child
                .stderr
                .take()
                .unwrap()
                .read_to_string(&mut err)
                .unwrap();
            assert_eq!(err, "", "after {printed}");
            if let Some(status) = ended {
                assert!(status.success(), "{status}\n{printed}");
                check(&state, &expected, &printed);
                break;
            }
            killed += 1;
            recovered += u32::from(printed.contains("not closed in order"));
        }
    }
    println!("{killed} kills over {state_number} answers, {recovered} of them after a recovery");
}

#[test]
fn twenty_kills_do_not_change_the_answer() {
    killed_runs_give_the_answer("sync-every", KILLS, corpus);
}

#[test]
fn twenty_kills_do_not_change_the_answer_of_a_run_that_syncs_nothing() {
    killed_runs_give_the_answer("flush-only", KILLS, corpus);
}

#[test]
fn kills_do_not_change_the_answer_of_a_run_that_syncs_each_line() {
    killed_runs_give_the_answer("sync-per-send", 5, |dir| {
        let line = "a few words, one sync\n";
        fs::write(dir.join("small"), line.repeat(1000)).unwrap();
    });
}

#[test]
fn a_state_directory_is_for_the_same_paths() {
    watchdog();
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (dir.path().join("one"), dir.path().join("other"));
    for path in [&one, &other] {
        fs::write(path, "words\n".repeat(100_000)).unwrap();
    }
    let state = dir.path().join("state");
    let mut child = start(&state, &one, "flush-only", 1);
    // Killed as soon as the list of its files is there.
    while !state.join("files").exists() {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    if state.join("word-counts.tsv").exists() {
        return; // it was faster
    }
    let output = start(&state, &other, "flush-only", 1)
        .wait_with_output()
        .unwrap();
    assert!(!output.status.success());
    assert!(text(output.stderr).contains("other paths"));
    finish(start(&state, &one, "flush-only", 1));
    let output = start(&state, &other, "flush-only", 1)
        .wait_with_output()
        .unwrap();
    assert!(!output.status.success(), "done, but for other paths");
}

#[test]
fn a_torn_record_is_cut_off_and_its_lines_are_counted() {
    watchdog();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "words\n".repeat(50_000)).unwrap();
    let state = dir.path().join("state");
    fs::create_dir(&state).unwrap();
    // Half a header, a header with half its rows, and rows that were changed.
    for (name, torn) in [
        ("a", "0000001"),
        ("b", "00000010 00000000\n0 0"),
        ("c", "00000006 00000000\n0 0 6\n"),
    ] {
        fs::write(state.join(format!("{name}.log")), torn).unwrap();
    }
    let printed = finish(start(&state, &file, "flush-only", 2));
    check(&state, "words\t50000\n", &printed);
}
