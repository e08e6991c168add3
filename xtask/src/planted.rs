//! `cargo xtask planted`: a safeguard that can be removed without a test noticing is one that nothing tests.
//!
//! The list is the table of `docs/planted.md`. Each bug is a `planted!("name")` in the product, part of a
//! build with `--cfg walchan_planted` only; there the environment variable `WALCHAN_PLANTED` selects it. So
//! all tests are built once, and the one that is to notice is run with and without the bug.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::caught::{self, Job, Run, Test, messages};
use crate::orderings::named;
use crate::run::{Outcome, cargo, cargo_loom, judge, root, target};
use crate::sabotage::{self, report};
use crate::source::{PRODUCT, Source, TESTS};
use crate::tables::{self, quoted};

const PATH: &str = "docs/planted.md";
const HEAD: [&str; 3] = ["bug", "safeguard removed", "caught by"];
const CFG: &str = "--cfg walchan_planted";
const BUILD: &str =
    "test --release -p walchan -p walchan-core -p crash-tests -p system-tests --lib";
/// Seconds after which a test that hangs says so.
const PATIENCE: &str = "20";

#[derive(Clone, Debug, PartialEq)]
struct Bug {
    name: String,
    safeguard: String,
    test: String,
}

impl Bug {
    fn is_caught_in(&self, source: &Source) -> bool {
        let function = format!("fn {}(", self.test.rsplit("::").next().unwrap_or_default());
        let mut lines = source.lines.iter();
        lines.any(|line| line.code.contains(&function))
    }
}

pub fn run(only: &[&str]) -> Outcome {
    let all = read()?;
    compare_all(&all)?;
    if let Some(name) = only
        .iter()
        .find(|name| all.iter().all(|b| b.name != **name))
    {
        return Err(format!("{PATH} has no bug `{name}`"));
    }
    let sources = Source::read_all(&TESTS)?;
    let mut build = planted(cargo(BUILD), "planted");
    build.args(targets(&all, &sources, &["tests", "proof/system"]));
    let mut tests = caught::build(build)?;
    let mut build = planted(cargo_loom(sabotage::BUILD), "planted/loom");
    build.args(targets(&all, &sources, &["loom-tests"]));
    tests.append(&mut caught::build(build)?);
    check_binaries(&all, &tests)?;
    let chosen = |bug: &&Bug| only.is_empty() || only.contains(&bug.name.as_str());
    let bugs: Vec<&Bug> = all.iter().filter(chosen).collect();
    let mut jobs = Vec::new();
    for bug in &bugs {
        jobs.push(job(caught::find(&bug.test, &tests)?, &bug.name));
    }
    let mut without: Vec<&Test> = jobs.iter().map(|job| &job.test).collect();
    without.sort();
    without.dedup();
    let without: Vec<Job> = without.into_iter().map(|test| job(test, "none")).collect();
    println!("\n{} tests without a bug", without.len());
    let skipped = pass(&without)?;
    println!(
        "\n{} bugs, each with the test that is to catch it",
        jobs.len()
    );
    let runs = caught::run_all(&jobs, report)?;
    table(&bugs, &runs, &skipped)
}

/// `--test` for each file in these folders that has one of the tests.
fn targets(bugs: &[Bug], sources: &[Source], folders: &[&str]) -> Vec<String> {
    let mut targets = Vec::new();
    for source in sources.iter().filter(|source| source.is_in(folders)) {
        if bugs.iter().any(|bug| bug.is_caught_in(source)) {
            let name = source.path.rsplit('/').next().unwrap_or_default();
            targets.push("--test".to_owned());
            targets.push(name.trim_end_matches(".rs").to_owned());
        }
    }
    targets
}

/// The same test with one of the bugs, or with none.
fn job(test: &Test, name: &str) -> Job {
    let env = [("WALCHAN_PLANTED", name), ("WALCHAN_PATIENCE", PATIENCE)];
    Job {
        test: test.clone(),
        name: name.to_owned(),
        env: env.map(|(key, value)| (key, value.to_owned())).to_vec(),
    }
}

/// A build in which bugs can be chosen, in a target directory of its own.
fn planted(mut cargo: Command, folder: &str) -> Command {
    let flags = cargo.get_envs().find(|(key, _)| *key == "RUSTFLAGS");
    let flags = flags.and_then(|(_, value)| value?.to_str().map(str::to_owned));
    let flags = format!("{} {CFG}", flags.unwrap_or_default());
    cargo.env("RUSTFLAGS", flags.trim());
    cargo.env("CARGO_TARGET_DIR", target().join(folder));
    cargo
}

/// All must pass; gives those that could not run here.
fn pass(jobs: &[Job]) -> Result<Vec<String>, String> {
    let runs = caught::run_all(jobs, |job, run| {
        let outcome = if run.passed() { "passed" } else { "FAILED" };
        println!(
            "{outcome} in {:.1} s: {}",
            run.time.as_secs_f64(),
            job.test.path
        );
    })?;
    let (mut problems, mut skipped) = (Vec::new(), Vec::new());
    for (job, run) in jobs.iter().zip(runs) {
        if !run.passed() {
            problems.push(format!("{}: see {}", job.test.path, run.log.display()));
        } else if run.output.contains("SKIPPED ") {
            skipped.push(job.test.path.clone());
        }
    }
    judge("tests that fail without a bug", &problems)?;
    Ok(skipped)
}

fn table(bugs: &[&Bug], runs: &[Run], skipped: &[String]) -> Outcome {
    let (mut problems, mut skips) = (Vec::new(), 0);
    println!("\n| bug | safeguard removed | caught by | after |\n|---|---|---|---|");
    for (bug, run) in bugs.iter().zip(runs) {
        let Bug {
            name,
            safeguard,
            test,
        } = bug;
        let after = format!("{:.1} s", run.time.as_secs_f64());
        let (by, after) = match run.caught() {
            Ok(_) => (format!("`{test}`"), after),
            Err(_) if skipped.iter().any(|path| path.ends_with(test)) => {
                skips += 1;
                (format!("SKIPPED, `{test}` cannot run here"), String::new())
            }
            Err(why) => {
                let log = run.log.display();
                problems.push(format!("{name}, {test}: {why}; see {log}"));
                (format!("NOT CAUGHT, {why}: `{test}`"), after)
            }
        };
        println!("| `{name}` | {safeguard} | {by} | {after} |");
    }
    judge("planted bugs that were not caught", &problems)?;
    println!(
        "\n{} planted bugs, each caught by its test",
        bugs.len() - skips
    );
    if skips > 0 {
        println!("{skips} SKIPPED: their tests need what is not here");
    }
    Ok(())
}

/// Nothing of the bugs is in an ordinary build. That the build for them has each name shows that this look
/// would find them.
fn check_binaries(bugs: &[Bug], tests: &[Test]) -> Outcome {
    let ordinary = messages(&mut cargo(
        "build --release -p walchan -p walchan-core --lib",
    ))?;
    let mut libraries = Vec::new();
    for name in ["walchan", "walchan_core"] {
        let path = library(&ordinary, name);
        let path = path.ok_or_else(|| format!("cargo names no library {name}"))?;
        libraries.push(read_bytes(&path)?);
    }
    let mut executables: Vec<&PathBuf> = tests.iter().map(|test| &test.executable).collect();
    executables.dedup();
    let mut planted = Vec::new();
    for executable in executables {
        planted.push(read_bytes(executable)?);
    }
    let mut problems = Vec::new();
    for Bug { name, .. } in bugs {
        if libraries.iter().any(|bytes| contains(bytes, name)) {
            problems.push(format!("`{name}` is in an ordinary build"));
        }
        if !planted.iter().any(|bytes| contains(bytes, name)) {
            problems.push(format!("`{name}` is in no test"));
        }
    }
    judge("wrong builds", &problems)
}

/// The library of a crate, from what cargo says of its build.
fn library(messages: &str, name: &str) -> Option<PathBuf> {
    let file = format!("/lib{name}.rlib\"");
    let line = messages.lines().find(|line| line.contains(&file))?;
    let folder = line.split_once(&file)?.0.rsplit('"').next()?;
    Some(PathBuf::from(format!("{folder}/lib{name}.rlib")))
}

fn read_bytes(path: &PathBuf) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|part| part == text.as_bytes())
}

// === The list ===

/// Compares the list with the code and with the tests.
pub fn compare() -> Outcome {
    compare_all(&read()?)
}

fn compare_all(bugs: &[Bug]) -> Outcome {
    let problems = differences(
        bugs,
        &Source::read_all(&PRODUCT)?,
        &Source::read_all(&TESTS)?,
    );
    judge(
        &format!("differences between {PATH} and the code"),
        &problems,
    )
}

fn differences(bugs: &[Bug], code: &[Source], tests: &[Source]) -> Vec<String> {
    let sites = named(code, &["planted!("]);
    let mut problems = Vec::new();
    for (name, place) in &sites {
        let rows = bugs.iter().filter(|bug| bug.name == *name).count();
        if rows != 1 {
            problems.push(format!("{place}: {PATH} has {rows} rows of `{name}`"));
        }
    }
    for bug in bugs {
        let Bug { name, test, .. } = bug;
        if !sites.contains_key(name) {
            problems.push(format!("{PATH}: the code has no planted!(\"{name}\")"));
        }
        if !tests.iter().any(|source| bug.is_caught_in(source)) {
            problems.push(format!("{PATH}: `{name}`: there is no test `{test}`"));
        }
    }
    problems
}

fn read() -> Result<Vec<Bug>, String> {
    let text = fs::read_to_string(root().join(PATH)).map_err(|error| format!("{PATH}: {error}"))?;
    let bugs = parse(&text)?;
    if bugs.is_empty() {
        return Err(format!(
            "{PATH}: no table whose head is | {} |",
            HEAD.join(" | ")
        ));
    }
    Ok(bugs)
}

fn parse(text: &str) -> Result<Vec<Bug>, String> {
    let mut bugs = Vec::new();
    for (line, cells) in tables::rows(text, |head| head == HEAD) {
        let bug = match cells.as_slice() {
            [name, safeguard, test] if !safeguard.is_empty() => {
                quoted(name).zip(quoted(test)).map(|(name, test)| Bug {
                    name: name.to_owned(),
                    safeguard: safeguard.clone(),
                    test: test.to_owned(),
                })
            }
            _ => None,
        };
        bugs.push(bug.ok_or_else(|| {
            format!("{PATH}:{line}: a row is | `bug` | safeguard | `test` |, not {cells:?}")
        })?);
    }
    Ok(bugs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "| bug | safeguard removed | caught by |\n|---|---|---|\n\
                        | `a` | one | `m::t1` |\n| `b` | two | `t2` |\n";

    #[test]
    fn rows_sites_and_tests_belong_together() {
        let bugs = parse(TEXT).unwrap_or_default();
        let code = |text| [Source::parse("src/x.rs", text)];
        let both = code("x(planted!(\n    \"a\",\n1, 2), planted!(\"b\")); // planted!(\"c\")");
        let tests = code("fn t1() {}\nfn t2() {}");
        assert_eq!(differences(&bugs, &both, &tests), [""; 0]);
        assert_eq!(
            differences(&bugs, &code("planted!(\"a\")"), &tests).len(),
            1
        );
        assert_eq!(differences(&bugs[..1], &both, &tests).len(), 1);
        assert_eq!(differences(&bugs, &both, &code("fn t1() {}")).len(), 1);
        let twice = [bugs.clone(), bugs[..1].to_vec()].concat();
        assert_eq!(differences(&twice, &both, &tests).len(), 1);
    }

    #[test]
    fn each_library_is_found_among_the_messages() {
        let line = |name: &str| format!("{{\"filenames\":[\"/t/x.rmeta\",\"/t/lib{name}.rlib\"]}}");
        let messages = [line("walchan_core"), line("walchan")].join("\n");
        for name in ["walchan", "walchan_core"] {
            let path = PathBuf::from(format!("/t/lib{name}.rlib"));
            assert_eq!(library(&messages, name), Some(path));
        }
        assert_eq!(library(&messages, "core"), None);
    }

    #[test]
    fn malformed_rows_are_reported() {
        for row in [
            "| a | one | `t` |",
            "| `a` |  | `t` |",
            "| `a` | one |",
            "| `a` | one | t |",
        ] {
            assert!(parse(&format!("{TEXT}{row}\n")).is_err(), "{row}");
        }
        assert_eq!(
            parse("| bug | x |\n|---|---|\n| `a` | b |\n"),
            Ok(Vec::new())
        );
    }
}
