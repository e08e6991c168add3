//! What may stand where: checks of the source text that neither the compiler nor clippy makes.
//!
//! The rooms and who may import whom; no circle between files; what belongs in one place only.

use crate::circles;
use crate::orderings::PLACES;
use crate::planted_form;
use crate::run::{Outcome, judge};
use crate::source::{PRODUCT, Source, words};
use std::collections::BTreeSet;

pub const ALL: &[&str] = &[
    "src",
    "core/src",
    "tests",
    "benches",
    "examples",
    "loom-tests",
    "proof",
    "rivals",
    "xtask",
];

/// The rooms of the core, from the bottom up. Each may import those before it; rooms of one line do not
/// import each other.
const ROOMS: [&[&str]; 8] = [
    &["error", "planted"],
    &["sync"],
    &["storage"],
    &["format"],
    &["ring", "recovery"],
    &["commit"],
    &["segments"],
    &["channel"],
];

/// The modules of the face. They may import the core, and each other without a circle.
const FACE: [&str; 15] = [
    "lib",
    "open",
    "codec",
    "bounded",
    "counted",
    "delivery",
    "error",
    "message",
    "message_id",
    "options",
    "panics",
    "receiver",
    "recv_error",
    "sender",
    "undelivered",
];

/// What code may say in some places of the product only.
const CONFINED: [(&str, &[&str]); 7] = [
    ("loom::", &["core/src/sync/shim.rs"]),
    ("loom", &["core/src/sync/shim.rs"]),
    ("bincode", &["src/codec.rs"]),
    ("parking_lot", &["core/src/sync/shim.rs"]),
    (
        "std::sync::atomic",
        &["core/src/sync/shim.rs", "core/src/storage/mapped.rs"],
    ),
    ("core::sync::atomic", &["core/src/sync/shim.rs"]),
    ("unsafe", &["core/src/storage", "core/src/ring"]),
];

/// So many functions of the ring may have unsafe code, each with its own `allow(unsafe_code)`.
const RING_UNSAFE_MAX: usize = 2;

pub fn run() -> Outcome {
    let sources = Source::read_all(ALL)?;
    let mut problems = check(&sources);
    for root in PRODUCT {
        problems.extend(circles::find(root, &sources));
    }
    judge("breaches", &problems)
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
            if !inside(&PRODUCT) {
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
            if inside(&["core/src/ring"]) && code.starts_with('#') && code.contains("(unsafe_code")
            {
                ring_unsafe += 1;
            }
        }
        if inside(&PRODUCT) {
            rooms(source, &mut problems);
            for (number, form) in planted_form::breaches(source) {
                problems.push(format!("{}:{number}: {form}", source.path));
            }
        }
        let mut codes = source.lines.iter().map(|line| &line.code);
        let is_root = ["src/lib.rs", "core/src/lib.rs"].contains(&source.path.as_str());
        if is_root && !codes.any(|code| code.contains("(unsafe_code")) {
            problems.push(format!("{}: deny(unsafe_code) is missing", source.path));
        }
    }
    if ring_unsafe > RING_UNSAFE_MAX {
        problems.push(format!("the ring allows unsafe code {ring_unsafe} times"));
    }
    problems
}

/// An ordering of atomics, not of `std::cmp`.
fn names_ordering(code: &str) -> bool {
    let mut behind = code.split("Ordering::").skip(1);
    behind.any(|rest| !matches!(words(rest).next(), Some("Less" | "Equal" | "Greater")))
}

/// The room of a file, and that it imports downwards only.
fn rooms(source: &Source, problems: &mut Vec<String>) {
    let Some((own, is_core)) = room_of(&source.path) else {
        return;
    };
    let mut code = String::new();
    for line in source.lines.iter().filter(|line| !line.test) {
        code.push_str(&line.code);
        code.push('\n');
    }
    if !is_core {
        if !FACE.contains(&own) {
            problems.push(format!("{}: an unknown module of the face", source.path));
        }
        return;
    }
    if code.contains("walchan::") {
        problems.push(format!("{}: the core imports the face", source.path));
    }
    let rank_of = |name: &str| ROOMS.iter().position(|room| room.contains(&name));
    let Some(rank) = rank_of(own) else {
        if own != "lib" {
            problems.push(format!("{}: an unknown room of the core", source.path));
        }
        return;
    };
    let names: BTreeSet<&str> = code
        .split("crate::")
        .skip(1)
        .flat_map(circles::heads)
        .collect();
    for name in names.into_iter().filter(|name| *name != own) {
        if rank_of(name).is_some_and(|other| other >= rank) {
            problems.push(format!("{}: imports `{name}`", source.path));
        }
    }
}

/// The first name of a path below the root of a crate; whether it is of the core.
fn room_of(path: &str) -> Option<(&str, bool)> {
    let (rest, is_core) = match path.strip_prefix("core/src/") {
        Some(rest) => (rest, true),
        None => (path.strip_prefix("src/")?, false),
    };
    Some((rest.split(['/', '.']).next()?, is_core))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaches_are_found_where_they_matter() {
        let thrice = "#[allow(unsafe_code)]\n".repeat(3);
        let grouped = "use crate::{\n    commit::{a, b},\n    recovery,\n    sync::c,\n};";
        let below = "use crate::error::E; crate::storage::memory(); crate::ring::g();";
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
            (
                "core/src/ring/read.rs",
                "use std::sync::atomic::AtomicU8;",
                1,
            ),
            ("core/src/format/frame.rs", "unsafe { x }", 1),
            ("core/src/storage/mapped.rs", "unsafe { x }", 0),
            ("core/src/commit/send.rs", "#[cfg(all(loom, x))]", 1),
            ("core/src/ring/read.rs", &thrice, 1),
            ("core/src/lib.rs", "//! x", 1),
            ("src/lib.rs", "#![forbid(unsafe_code)]", 0),
            ("tests/x.rs", "load(Ordering::Relaxed); // \u{e9}", 1),
            ("core/src/ring/claim.rs", grouped, 2),
            ("core/src/ring/claim.rs", below, 0),
            ("core/src/storage/mapped.rs", "use crate::format::frame;", 1),
            ("core/src/recovery/scan.rs", tested, 0),
            ("core/src/channel/open.rs", "use walchan::Sender;", 1),
            ("core/src/cellar/wine.rs", "", 1),
            ("src/cellar.rs", "", 1),
            ("core/src/ring/x.rs", "while planted!(\"x\") {", 1),
        ];
        for (path, text, breaches) in cases {
            let found = check(&[Source::parse(path, text)]);
            assert_eq!(found.len(), breaches, "{path}: {text}: {found:?}");
        }
    }
}
