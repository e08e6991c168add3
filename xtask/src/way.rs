//! "The way of one message" in CONTRIBUTING.md: the functions that it names are there, and the way is short.
//!
//! A list belongs to the heading above it. Its rows are ``* `file`: `function` what it does``.

use crate::run::{Outcome, judge, root};
use crate::source::Source;
use std::collections::BTreeSet;

const PATH: &str = "CONTRIBUTING.md";
const SECTION: &str = "## The way of one message";
const FUNCTIONS_MAX: usize = 20;
const FILES_MAX: usize = 8;

pub fn run() -> Outcome {
    let text = std::fs::read_to_string(root().join(PATH)).map_err(|e| format!("{PATH}: {e}"))?;
    let sources = Source::read_all(&crate::source::PRODUCT)?;
    judge("the way of one message", &check(&text, &sources))
}

fn check(text: &str, sources: &[Source]) -> Vec<String> {
    let mut problems = Vec::new();
    let Some((_, rest)) = text.split_once(SECTION) else {
        return vec![format!("{PATH} has no section {SECTION:?}")];
    };
    let section = rest.split("\n## ").next().unwrap_or(rest);
    let mut ways: Vec<(&str, Vec<(&str, &str)>)> = Vec::new();
    for line in section.lines() {
        if let Some(heading) = line.strip_prefix("### ") {
            ways.push((heading, Vec::new()));
        }
        let quoted: Vec<&str> = line.split('`').skip(1).step_by(2).collect();
        if let (true, Some((_, steps))) = (line.starts_with("* `"), ways.last_mut()) {
            match quoted.as_slice() {
                [file, function, ..] => steps.push((file, function)),
                _ => problems.push(format!("a row without file and function: {line}")),
            }
        }
    }
    if ways.is_empty() {
        problems.push("there is no way".to_owned());
    }
    for (heading, steps) in ways {
        let files: BTreeSet<&str> = steps.iter().map(|(file, _)| *file).collect();
        println!(
            "{heading}: {} functions in {} files",
            steps.len(),
            files.len()
        );
        if steps.is_empty() || steps.len() > FUNCTIONS_MAX || files.len() > FILES_MAX {
            problems.push(format!(
                "{heading}: {} functions, {} files",
                steps.len(),
                files.len()
            ));
        }
        for (file, function) in steps {
            let Some(source) = sources.iter().find(|source| source.path == file) else {
                problems.push(format!("{heading}: there is no file {file}"));
                continue;
            };
            let is_it = |code: &str| {
                let named = format!("fn {function}");
                code.match_indices(&named).any(|(at, _)| {
                    let behind = code[at + named.len()..].chars().next();
                    !behind.is_some_and(|c| c.is_alphanumeric() || c == '_')
                })
            };
            if !source.lines.iter().any(|line| is_it(&line.code)) {
                problems.push(format!("{heading}: {file} has no fn {function}"));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_was_renamed_is_found() {
        let text = "# x\n## The way of one message\n### A send\n* `src/a.rs`: `send` sends\n* `src/a.rs`: `sen` no\n* `src/b.rs`: `x` no\n## y\n";
        let sources = [Source::parse("src/a.rs", "pub fn send(&self) {}")];
        assert_eq!(check(text, &sources).len(), 2);
        assert_eq!(check("# x", &sources).len(), 1);
    }
}
