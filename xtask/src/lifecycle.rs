//! The table of the life cycle of a segment names tests that exist.

use crate::promises;
use crate::run::{Outcome, judge};
use crate::source::{Source, TESTS};

const PATH: &str = "core/src/segments/lifecycle.rs";

pub fn run() -> Outcome {
    let table = Source::read_all(&["core/src/segments"])?;
    let table = table.iter().find(|source| source.path == PATH);
    let table = table.ok_or_else(|| format!("there is no {PATH}"))?;
    let tests = promises::tests(&Source::read_all(&TESTS)?);
    let (mut problems, mut names) = (Vec::new(), 0);
    let mut inside = false;
    for (number, line) in (1..).zip(&table.lines) {
        inside |= line.code.trim_start().starts_with("tests: &[");
        if inside {
            for name in line.text.split('"').skip(1).step_by(2) {
                names += 1;
                if !tests.contains(name) {
                    problems.push(format!("{PATH}:{number}: there is no test {name}"));
                }
            }
        }
        inside &= !line.code.contains(']');
    }
    if names == 0 {
        problems.push(format!("{PATH}: the table names no test"));
    }
    judge("transitions without a test", &problems)
}
