//! The pages of prose: what they name is there, and their lines are short. Tables, links and code may be
//! longer.

use crate::run::{Outcome, judge, root};
use crate::source::{Source, words};
use std::collections::BTreeSet;
use std::fs;

const PAGES: [&str; 4] = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "loom-tests/README.md",
];
const WIDTH_MAX: usize = 110;
/// A name of so many words is that of a test or of a function, and no other thing's.
const WORDS_MIN: usize = 4;

pub fn run() -> Outcome {
    let sources = Source::read_all(crate::walls::ALL)?;
    let texts = sources.iter().flat_map(|source| &source.lines);
    let known: BTreeSet<&str> = texts.flat_map(|line| words(&line.text)).collect();
    let mut paths: Vec<String> = PAGES.map(str::to_owned).to_vec();
    let explain = |error: std::io::Error| format!("docs: {error}");
    for entry in fs::read_dir(root().join("docs")).map_err(explain)? {
        let name = entry.map_err(explain)?.file_name();
        paths.push(format!("docs/{}", name.to_string_lossy()));
    }
    let mut problems = Vec::new();
    for path in paths.iter().filter(|path| path.ends_with(".md")) {
        let text = fs::read_to_string(root().join(path)).map_err(|e| format!("{path}: {e}"))?;
        problems.extend(check(path, &text, &known));
    }
    for source in &sources {
        for (number, line) in (1..).zip(&source.lines) {
            let is_prose = line.code.trim().is_empty() && !line.comment.contains('|');
            let width = line.code.len() + line.comment.len();
            if is_prose && width > WIDTH_MAX && line.comment.contains(' ') {
                problems.push(format!("{}:{number}: {width} columns", source.path));
            }
        }
    }
    judge("pages", &problems)
}

fn check(path: &str, text: &str, known: &BTreeSet<&str>) -> Vec<String> {
    let mut problems = Vec::new();
    let mut is_code = false;
    for (number, line) in (1..).zip(text.lines()) {
        is_code ^= line.starts_with("```");
        let width = line.chars().count();
        let is_prose = !is_code && !line.starts_with('|') && !line.contains("](");
        if is_prose && width > WIDTH_MAX {
            problems.push(format!("{path}:{number}: {width} columns"));
        }
        for name in line.split('`').skip(1).step_by(2) {
            let is_name = name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            let is_long = name.split('_').count() >= WORDS_MIN;
            // What changed may be gone.
            let is_history = path == "CHANGELOG.md";
            if is_name && is_long && !is_history && !known.contains(name) {
                problems.push(format!("{path}:{number}: nothing is called `{name}`"));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_and_long_lines_are_found() {
        let known = BTreeSet::from(["what_is_lost_is_found"]);
        let long = "x".repeat(WIDTH_MAX + 1);
        for (text, problems) in [
            ("`what_is_lost_is_found` and `ring_bytes`", 0),
            ("`what_is_lost_is_not_found`", 1),
            (&*long, 1),
            (&*format!("| {long} |"), 0),
            (&*format!("```\n{long}\n```"), 0),
        ] {
            assert_eq!(check("docs/x.md", text, &known).len(), problems, "{text}");
        }
    }
}
