//! `docs/promises.md`: each row of its tables names tests that exist, or says that it is not tested.

use crate::run::{Outcome, judge, root};
use crate::source::{Source, TESTS};
use std::collections::BTreeSet;

const PATH: &str = "docs/promises.md";

pub fn run() -> Outcome {
    let text = std::fs::read_to_string(root().join(PATH)).map_err(|e| format!("{PATH}: {e}"))?;
    let sources = Source::read_all(&TESTS)?;
    judge("rows without a test", &check(&text, &tests(&sources)))
}

/// The names of all functions that follow a `#[test]`.
pub fn tests(sources: &[Source]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for source in sources {
        let mut test = false;
        for line in &source.lines {
            let code = line.code.trim();
            test |= code == "#[test]";
            if test && let Some(rest) = code.strip_prefix("fn ") {
                let name = rest.split('(').next().unwrap_or(rest);
                names.insert(name.to_owned());
                test = false;
            }
        }
    }
    names
}

fn check(text: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let mut problems = Vec::new();
    let mut rows = 0;
    for (number, line) in (1..).zip(text.lines()) {
        let Some(row) = line.strip_prefix('|') else {
            continue;
        };
        let last = row.trim_end_matches('|').rsplit('|').next().unwrap_or(row);
        let last = last.trim();
        if last == "shown by" || last.chars().all(|c| c == '-') {
            continue;
        }
        rows += 1;
        let named: Vec<&str> = last.split('`').skip(1).step_by(2).collect();
        let mut problem = |what: String| problems.push(format!("{PATH}:{number}: {what}"));
        if last.starts_with("not tested") {
            continue;
        }
        if named.is_empty() {
            problem("neither a test nor \"not tested\"".to_owned());
        }
        for name in named {
            if !tests.contains(name) {
                problem(format!("there is no test `{name}`"));
            }
        }
    }
    if rows == 0 {
        problems.push(format!("{PATH}: no table"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_names_tests_that_exist_or_says_that_there_is_none() {
        let source = Source::parse("tests/a.rs", "#[test]\nfn it_holds() {}\nfn helper() {}\n");
        let known = tests(&[source]);
        let judge = |row: &str| check(&format!("| a | shown by |\n|---|---|\n{row}\n"), &known);
        assert!(judge("| x | `it_holds` |").is_empty());
        assert!(judge("| x | not tested: nothing to hold |").is_empty());
        assert_eq!(judge("| x | `helper` |").len(), 1);
        assert_eq!(judge("| x | by hand |").len(), 1);
        assert_eq!(judge("").len(), 1);
    }
}
