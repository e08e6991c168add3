//! What may stand where: checks of the source text that neither the compiler nor clippy makes.

use crate::orderings::PLACES;
use crate::run::{Outcome, judge};
use crate::source::{Source, words};

const ALL: &[&str] = &[
    "src",
    "tests",
    "benches",
    "examples",
    "loom-tests",
    "rivals",
    "system-tests",
    "xtask",
];

/// What code may say in some places of `src` only.
const CONFINED: [(&str, &[&str]); 6] = [
    ("loom::", &["src/sync.rs", "src/memory"]),
    ("bincode", &["src/codec.rs"]),
    ("parking_lot", &["src/sync.rs"]),
    ("std::sync::atomic", &["src/sync.rs", "src/memory"]),
    ("core::sync::atomic", &["src/sync.rs", "src/memory"]),
    ("unsafe", &["src/memory", "src/ring"]),
];

/// So many functions of `src/ring` may have unsafe code, each with its own `allow(unsafe_code)`.
const RING_UNSAFE_MAX: usize = 2;

/// Imports point down this list; in one line only `durability` and `overflow` may import each other.
/// Modules that are not listed are free.
const LAYERS: [&[&str]; 6] = [
    &["sync"],
    &["memory"],
    &["format"],
    &["ring", "recovery"],
    &["durability", "overflow"],
    &[
        "channel",
        "sender",
        "receiver",
        "undelivered",
        "delivery",
        "bytes",
    ],
];

pub fn run() -> Outcome {
    judge("breaches", &check(&Source::read_all(ALL)?))
}

fn check(sources: &[Source]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut ring_unsafe = 0;
    for source in sources {
        let inside = |places: &[&str]| source.is_in(places);
        for (number, line) in (1..).zip(&source.lines) {
            let code = line.code.as_str();
            let mut breach =
                |what: &str| problems.push(format!("{}:{number}: {what}", source.path));
            if !(line.text.is_ascii() && line.comment.is_ascii()) {
                breach("not ASCII");
            }
            if !inside(&["src"]) {
                continue;
            }
            if code.contains("/*") || code.contains("r#\"") {
                breach("these checks read neither block comments nor raw strings with #");
            }
            for (what, places) in CONFINED {
                let found = if what.contains(':') {
                    code.contains(what)
                } else {
                    words(code).any(|word| word == what)
                };
                if found && !inside(places) {
                    breach(&format!("`{what}` belongs in {}", places.join(", ")));
                }
            }
            if names_ordering(code) && !line.test && !inside(&PLACES) {
                breach(&format!("`Ordering::` belongs in {}", PLACES.join(", ")));
            }
            if inside(&["src/ring"]) && code.starts_with('#') && code.contains("(unsafe_code") {
                ring_unsafe += 1;
            }
        }
        if inside(&["src"]) {
            upward_imports(source, &mut problems);
        }
        let mut codes = source.lines.iter().map(|line| &line.code);
        if source.path == "src/lib.rs" && !codes.any(|code| code.contains("deny(unsafe_code")) {
            problems.push("src/lib.rs: deny(unsafe_code) is missing".to_owned());
        }
    }
    if ring_unsafe > RING_UNSAFE_MAX {
        problems.push(format!("src/ring allows unsafe code {ring_unsafe} times"));
    }
    problems
}

/// An ordering of atomics, not of `std::cmp`.
fn names_ordering(code: &str) -> bool {
    let mut behind = code.split("Ordering::").skip(1);
    behind.any(|rest| !matches!(words(rest).next(), Some("Less" | "Equal" | "Greater")))
}

fn upward_imports(source: &Source, problems: &mut Vec<String>) {
    let rank_of = |name: &str| LAYERS.iter().position(|layer| layer.contains(&name));
    let own = source.path.split(['/', '.']).nth(1).unwrap_or("");
    let Some(rank) = rank_of(own) else { return };
    let mut code = String::new();
    for line in source.lines.iter().filter(|line| !line.test) {
        code.push_str(&line.code);
        code.push('\n');
    }
    for name in code.split("crate::").skip(1).flat_map(heads) {
        let apart = ["ring", "recovery"].contains(&own) && name != own;
        if rank_of(name).is_some_and(|other| other > rank || (other == rank && apart)) {
            problems.push(format!("{}: imports `{name}`", source.path));
        }
    }
}

/// First names of the path or of the `{..}` group that `text` begins with.
fn heads(text: &str) -> Vec<&str> {
    let Some(group) = text.strip_prefix('{') else {
        return words(text).take(1).collect();
    };
    let (mut depth, mut start, mut heads) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                heads.extend(words(&group[start..at]).next());
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    heads
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaches_are_found_where_they_matter() {
        let thrice = "#[allow(unsafe_code)]\n".repeat(3);
        let grouped = "use crate::{\n    durability::{a, b},\n    recovery,\n    sync::c,\n};";
        let below = "use crate::error::E; crate::memory::f(); crate::ring::g();";
        let tested = "#[cfg(test)]\nmod tests {\n    use crate::ring::Ring;\n}";
        let cases = [
            ("src/sender.rs", "use bincode::x; // bincode", 1),
            ("src/codec.rs", "use bincode::x;", 0),
            (
                "src/sender.rs",
                "load(Ordering::Relaxed); cmp::Ordering::Less",
                1,
            ),
            (
                "src/sender.rs",
                "cmp::Ordering::Less; \"unsafe\" // unsafe",
                0,
            ),
            ("src/ring/read.rs", "use std::sync::atomic::AtomicU8;", 1),
            ("src/format/frame.rs", "unsafe { x }", 1),
            ("src/memory/mapped.rs", "unsafe { x }", 0),
            ("src/ring/read.rs", &thrice, 1),
            ("src/lib.rs", "//! x", 1),
            ("src/lib.rs", "#![deny(unsafe_code, missing_docs)]", 0),
            ("tests/x.rs", "load(Ordering::Relaxed); // \u{e9}", 1),
            ("src/ring/claim.rs", grouped, 2),
            ("src/ring/claim.rs", below, 0),
            ("src/memory/mapped.rs", "use crate::format::frame;", 1),
            ("src/recovery/scan.rs", tested, 0),
        ];
        for (path, text, breaches) in cases {
            let found = check(&[Source::parse(path, text)]);
            assert_eq!(found.len(), breaches, "{path}: {text}: {found:?}");
        }
    }
}
