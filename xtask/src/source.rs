//! Rust source seen line by line, with code, string contents and comments told apart.

use std::fs;
use std::path::Path;

use crate::run::root;

/// What is published.
pub const PRODUCT: [&str; 2] = ["src", "core/src"];
/// Where tests are.
pub const TESTS: [&str; 5] = ["src", "core/src", "tests", "loom-tests", "proof"];

#[derive(Debug, Default)]
pub struct Line {
    /// Code; string literals are empty.
    pub code: String,
    /// Code with the contents of its string literals.
    pub text: String,
    /// The comment, with its slashes.
    pub comment: String,
    /// Part of a `#[cfg(test)] mod .. { }` at the left margin, or of a file of tests.
    pub test: bool,
}

#[derive(Debug)]
pub struct Source {
    /// From the root of the workspace, with `/`.
    pub path: String,
    pub lines: Vec<Line>,
}

impl Source {
    /// Knows line comments and plain strings; `walls` keeps the others out of `src`.
    pub fn parse(path: &str, content: &str) -> Self {
        let mut lines = Vec::new();
        let mut string = false;
        for mut rest in content.lines() {
            let mut line = Line::default();
            while let Some(c) = rest.chars().next() {
                let quote = c == '"';
                let mut taken = c.len_utf8();
                if string && c == '\\' {
                    taken += rest[1..].chars().next().map_or(0, char::len_utf8);
                } else if !string && rest.starts_with("//") {
                    line.comment = rest.to_owned();
                    break;
                } else if !string && c == '\'' {
                    taken = character_len(rest);
                }
                let (now, behind) = rest.split_at(taken);
                line.text.push_str(now);
                if quote || !string {
                    line.code
                        .push_str(if taken > c.len_utf8() { "''" } else { now });
                }
                string ^= quote;
                rest = behind;
            }
            lines.push(line);
        }
        mark_tests(path, &mut lines);
        Self {
            path: path.to_owned(),
            lines,
        }
    }

    /// Every `.rs` file below `places`, in order of path. A place that is not there is an error: a check that
    /// looks at nothing passes.
    pub fn read_all(places: &[&str]) -> Result<Vec<Self>, String> {
        let mut sources = Vec::new();
        for place in places {
            if root().join(place).is_file() {
                read_file(place, &mut sources)?;
            } else {
                read_folder(place, &mut sources)?;
            }
        }
        sources.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(sources)
    }

    pub fn is_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| {
            self.path == *place
                || self
                    .path
                    .strip_prefix(place)
                    .is_some_and(|rest| rest.starts_with('/'))
        })
    }
}

pub fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
}

/// Length of the character literal that `text` begins with, lest its quote begins a string; 1 for a lifetime.
fn character_len(text: &str) -> usize {
    let mut ends = text
        .char_indices()
        .skip(2)
        .filter(|(_, c)| *c == '\'')
        .map(|(at, _)| at + 1);
    let second = text.chars().nth(1).map_or(0, char::len_utf8);
    match ends.next() {
        Some(3) if text.starts_with("'\\''") => 4,
        Some(end) if text.starts_with("'\\") || end == second + 2 => end,
        _ => 1,
    }
}

fn mark_tests(path: &str, lines: &mut [Line]) {
    let whole = path.ends_with("/tests.rs") || path.contains("/tests/");
    let (mut attribute, mut inside) = (false, false);
    for line in lines {
        let code = line.code.trim_end();
        if code.starts_with("#[cfg(") && words(code).any(|word| word == "test") {
            attribute = true;
        } else if attribute && !code.starts_with("#[") && !code.is_empty() {
            inside = code.starts_with("mod ") && code.ends_with('{');
            attribute = false;
        }
        line.test = whole || inside;
        inside &= code != "}";
    }
}

fn read_folder(folder: &str, sources: &mut Vec<Source>) -> Result<(), String> {
    let explain = |error: std::io::Error| format!("{folder}: {error}");
    for entry in fs::read_dir(root().join(folder)).map_err(explain)? {
        let entry = entry.map_err(explain)?;
        let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.file_type().map_err(explain)?.is_dir() {
            read_folder(&path, sources)?;
        } else if Path::new(&path).extension().is_some_and(|end| end == "rs") {
            read_file(&path, sources)?;
        }
    }
    Ok(())
}

fn read_file(path: &str, sources: &mut Vec<Source>) -> Result<(), String> {
    let content = fs::read_to_string(root().join(path));
    let content = content.map_err(|error| format!("{path}: {error}"))?;
    sources.push(Source::parse(path, &content));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_strings_and_characters_do_not_hide_code() {
        let text = "a(\"// no \\\" \"); // yes\nb('\"', 'x', '\\''); \"one\n// no\"; f::<'a>('\\u{e9}', 'b');";
        let source = Source::parse("src/x.rs", text);
        let code: Vec<&str> = source.lines.iter().map(|line| line.code.as_str()).collect();
        assert_eq!(
            code,
            ["a(\"\"); ", "b('', '', ''); \"", "\"; f::<'a>('', '');"]
        );
        assert_eq!(source.lines[0].text, "a(\"// no \\\" \"); ");
        assert_eq!(source.lines[0].comment, "// yes");
    }

    #[test]
    fn a_place_is_a_folder_or_a_file_and_must_be_there() {
        let paths = |place: &str| {
            let sources = Source::read_all(&[place]);
            sources.map(|all| all.iter().map(|s| s.path.clone()).collect::<Vec<_>>())
        };
        assert_eq!(
            paths("xtask/src/source.rs"),
            Ok(vec!["xtask/src/source.rs".to_owned()])
        );
        assert!(paths("xtask").is_ok_and(|all| all.contains(&"xtask/src/main.rs".to_owned())));
        assert!(paths("xtask/gone").is_err());
    }

    #[test]
    fn a_test_module_ends_at_the_margin() {
        let text = "a();\n#[cfg(all(test, not(loom)))]\nmod tests {\n    b();\n}\nc();\n#[cfg(test)]\nuse d;\ne();";
        let source = Source::parse("src/x.rs", text);
        let test: Vec<bool> = source.lines.iter().map(|line| line.test).collect();
        assert_eq!(
            test,
            [false, false, true, true, true, false, false, false, false]
        );
    }
}
