//! `cargo xtask orderings`: the atomic operations in the core and the rows of `docs/protocol.md` agree.

use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::{self, PATH, Row};
use crate::run::{Outcome, judge};
use crate::source::{Line, PRODUCT, Source, words};

/// Where atomic operations may be.
pub const PLACES: [&str; 5] = [
    "core/src/ring",
    "core/src/storage",
    "core/src/commit",
    "core/src/sync",
    "loom-tests/src/modelled.rs",
];
const ORDERINGS: [&str; 5] = ["Relaxed", "Acquire", "Release", "AcqRel", "SeqCst"];
/// A tag covers its own line and so many below.
const REACH: usize = 8;

/// Of each tag, the first place and its orderings.
type Tags<'a> = BTreeMap<&'a str, (String, Vec<&'a str>)>;

const RULES: &str = "\
The rules:
  1. A comment that begins `// [O:name] Release: ..` is a tag: a name, one or more orderings, a colon.
     `// [O:none] reason` covers what is no operation, such as the body of a macro; `// [O:forwarded] reason` notes
     that the ordering is the caller's. Neither has a row.
     [O:name] elsewhere in a comment refers to a tag, which must exist.
  2. In core/src/{ring,storage,commit,sync} and in the modelled memory, each line of code with Relaxed, Acquire,
     Release, AcqRel, SeqCst or weaken_fence!( has a tag on it or at most 8 lines above. `use` and test
     modules are exempt.
  3. The orderings that a tag names are in the code of its own line or of the 8 below.
  4. Each tag has one row in docs/protocol.md, each row a tag. A tag at several places (one operation on one
     word, for one reason) names the same orderings at each.
  5. For each \"`x` caught by `test`\" of a row, src has weaken!(\"x\", weaken_fence!(\"x\" or
     sabotaged(\"x\", and loom-tests has `fn test`. Each weakening in src is in a row.";

pub fn run() -> Outcome {
    let rows = protocol::read()?;
    let mut code = Source::read_all(&PRODUCT)?;
    // The rest of the models only counts.
    code.extend(
        Source::read_all(&["loom-tests/src"])?
            .into_iter()
            .filter(|source| source.is_in(&PLACES)),
    );
    let problems = compare(&code, &Source::read_all(&["loom-tests"])?, &rows);
    let title = format!("differences between the code and {PATH}");
    judge(&title, &problems).map_err(|error| format!("{error}\n{RULES}"))?;
    println!(
        "{} operations, {} weakenings: code and {PATH} agree",
        rows.len(),
        weakenings(&code).len()
    );
    Ok(())
}

/// The names of the planted weakenings, each with a place where it is.
pub fn weakenings(code: &[Source]) -> BTreeMap<String, String> {
    named(code, &["weaken!(", "weaken_fence!(", "sabotaged("])
}

/// The strings that follow these words, each with a place where it is.
pub fn named(code: &[Source], openers: &[&str]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for source in code {
        for (index, line) in source.lines.iter().enumerate() {
            for opener in openers {
                for (at, _) in line.text.match_indices(*opener) {
                    // The name may be on the next line.
                    let here = line.text[at + opener.len()..].trim();
                    let next = source
                        .lines
                        .get(index + 1)
                        .map_or("", |next| next.text.trim());
                    let argument = if here.is_empty() { next } else { here };
                    if let Some(name) = argument
                        .strip_prefix('"')
                        .and_then(|text| text.split('"').next())
                    {
                        found.insert(name.to_owned(), format!("{}:{}", source.path, index + 1));
                    }
                }
            }
        }
    }
    found
}

fn compare(code: &[Source], models: &[Source], rows: &[Row]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut tags = BTreeMap::new();
    let mut references = Vec::new();
    for source in code {
        compare_tags(source, &mut tags, &mut problems);
        for (number, line) in (1..).zip(&source.lines) {
            let behind = line.comment.split("[O:").skip(1);
            let names = behind
                .filter_map(|rest| rest.split_once(']'))
                .map(|(name, _)| name);
            references.extend(names.map(|name| (name, format!("{}:{number}", source.path))));
        }
    }
    for (name, place) in references {
        if !["none", "forwarded"].contains(&name) && !tags.contains_key(name) {
            problems.push(format!("{place}: there is no tag [O:{name}]"));
        }
    }
    compare_rows(&tags, rows, &mut problems);
    compare_weakenings(&weakenings(code), models, rows, &mut problems);
    problems
}

/// Rules 2 and 3, and that tags are in place and agree. Adds to `tags`.
fn compare_tags<'a>(source: &'a Source, tags: &mut Tags<'a>, problems: &mut Vec<String>) {
    let in_place = source.is_in(&PLACES);
    let sites = sites(source);
    let mut covered = 0;
    for (index, line) in source.lines.iter().enumerate() {
        let place = format!("{}:{}", source.path, index + 1);
        if let Some((name, orderings)) = tag(line) {
            covered = index + 1 + REACH;
            let reached = sites[index..covered.min(sites.len())].concat();
            if !in_place {
                problems.push(format!(
                    "{place}: [O:{name}] is outside {}",
                    PLACES.join(", ")
                ));
            }
            if reached.is_empty() {
                problems.push(format!("{place}: no operation at [O:{name}]"));
            }
            for missing in orderings
                .iter()
                .filter(|ordering| !reached.contains(ordering))
            {
                problems.push(format!(
                    "{place}: [O:{name}] says {missing}, the code does not"
                ));
            }
            if name == "none" {
                continue;
            }
            let (other, said) = tags
                .entry(name)
                .or_insert_with(|| (place.clone(), orderings.clone()));
            if *said != orderings {
                problems.push(format!(
                    "{place}: [O:{name}] says something else at {other}"
                ));
            }
        }
        if in_place && !sites[index].is_empty() && index >= covered {
            problems.push(format!("{place}: no tag for `{}`", line.code.trim()));
        }
    }
}

fn compare_rows(tags: &Tags<'_>, rows: &[Row], problems: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for Row { line, site, .. } in rows {
        if !seen.insert(site.as_str()) {
            problems.push(format!("{PATH}:{line}: a second row for `{site}`"));
        }
        if !tags.contains_key(site.as_str()) {
            problems.push(format!("{PATH}:{line}: no tag [O:{site}] in src"));
        }
    }
    for (name, (place, _)) in tags.iter().filter(|(name, _)| !seen.contains(*name)) {
        problems.push(format!("{place}: no row for `{name}` in {PATH}"));
    }
}

fn compare_weakenings(
    planted: &BTreeMap<String, String>,
    models: &[Source],
    rows: &[Row],
    problems: &mut Vec<String>,
) {
    let mut listed = BTreeSet::new();
    for Row { line, caught, .. } in rows {
        for (name, test) in caught {
            listed.insert(name);
            if !planted.contains_key(name) {
                problems.push(format!("{PATH}:{line}: no weaken!(\"{name}\" in src"));
            }
            let function = format!("fn {}(", test.rsplit("::").next().unwrap_or(test));
            let mut lines = models.iter().flat_map(|source| &source.lines);
            if !lines.any(|line| line.code.contains(&function)) {
                problems.push(format!("{PATH}:{line}: no test `{test}` in loom-tests"));
            }
        }
    }
    for (name, place) in planted.iter().filter(|(name, _)| !listed.contains(name)) {
        problems.push(format!("{place}: `{name}` is in no row of {PATH}"));
    }
}

/// The orderings in the code of each line.
fn sites(source: &Source) -> Vec<Vec<&str>> {
    let mut importing = false;
    let mut sites = Vec::new();
    for line in &source.lines {
        let code = line.code.trim_start();
        importing |=
            code.starts_with("use ") || (code.starts_with("pub") && code.contains(" use "));
        let mut site = Vec::new();
        if !importing && !line.test {
            site.extend(words(code).filter(|word| ORDERINGS.contains(word)));
            site.extend(code.contains("weaken_fence!(").then_some("SeqCst"));
        }
        sites.push(site);
        importing &= !code.contains(';');
    }
    sites
}

/// Name and orderings of the tag in this line. Documentation only refers to tags.
fn tag(line: &Line) -> Option<(&str, Vec<&str>)> {
    let comment = line.comment.strip_prefix("//")?.trim_start();
    let (name, rest) = comment.strip_prefix("[O:")?.split_once(']')?;
    let is_ordering = |word: &&str| ORDERINGS.contains(word);
    if name == "none" {
        return Some((name, Vec::new()));
    }
    words(rest).next().filter(is_ordering)?;
    Some((
        name,
        words(rest.split(':').next()?).filter(is_ordering).collect(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RING: &str = "\
use crate::sync::Ordering::{
    Relaxed, Release,
};
fn publish() {
    // [O:publish] Release: E1, pairs with [O:read]; publishes the payload.
    word.store(1, weaken!(\"publish_relaxed\", Ordering::Release));
    word.load(Ordering::Acquire); // [O:read] Acquire: E1, pairs with
    // [O:publish].
}
#[cfg(test)]
mod tests {
    fn t() { word.load(Relaxed); }
}
";

    fn row(site: &str, caught: &[&str]) -> Row {
        let caught = caught
            .iter()
            .map(|name| (name.to_string(), "m::t1".to_owned()))
            .collect();
        Row {
            line: 1,
            site: site.to_owned(),
            caught,
        }
    }

    fn problems(path: &str, text: &str, rows: &[Row]) -> Vec<String> {
        let models = [Source::parse(
            "loom-tests/tests/m.rs",
            "#[test]\nfn t1() {}\n",
        )];
        compare(&[Source::parse(path, text)], &models, rows)
    }

    #[test]
    fn each_kind_of_difference_is_reported() {
        let good = [row("publish", &["publish_relaxed"]), row("read", &[])];
        let other = [row("publish", &["other"]), row("read", &[])];
        let expect = |text: &str, rows: &[Row], parts: &[&str]| {
            let found = problems("core/src/ring/claim.rs", text, rows);
            assert_eq!(found.len(), parts.len(), "{found:#?}");
            assert!(
                found
                    .iter()
                    .zip(parts)
                    .all(|(all, part)| all.contains(part)),
                "{found:#?}"
            );
        };
        expect(RING, &good, &[]);
        let far = format!("{RING}{}x.load(Relaxed);", "\n".repeat(9));
        expect(&far, &good, &["no tag for `x.load(Relaxed);`"]);
        let idle = format!("{RING}{}// [O:x] Relaxed: E", "\n".repeat(9));
        expect(&idle, &good, &["no operation", "says Relaxed", "no row"]);
        let again = format!("{RING}// [O:read] Acquire: E\nx.load(Acquire);");
        expect(&again, &good, &[]);
        expect(
            &again.replace("Acquire: E\nx.load(Acquire", "Relaxed: E\nx.load(Relaxed"),
            &good,
            &["something else at"],
        );
        expect(
            &RING.replace("Ordering::Release)", "Relaxed)"),
            &good,
            &["says Release"],
        );
        expect(
            &RING.replace("with [O:read]", "with [O:gone]"),
            &good,
            &["no tag [O:gone]"],
        );
        expect(RING, &good[..1], &["no row for `read`"]);
        expect(
            RING,
            &other,
            &["no weaken!(\"other\"", "`publish_relaxed` is in no row"],
        );
        expect(
            "",
            &good,
            &["no tag [O:publish]", "no tag [O:read]", "no weaken!"],
        );
        assert!(problems("core/src/format/frame.rs", RING, &good)[0].contains("outside"));
    }

    #[test]
    fn weakenings_are_found_and_macros_exempt() {
        let text = "// [O:none] the macro's body\n// [O:forwarded] by the caller\nmacro_rules! w { () => { Relaxed }; }\n\
                    weaken!(\n    \"a\",\n  sabotaged(\"b\") weaken!($x sabotaged(_: &str)\n\
                    // [O:f] SeqCst fence: E\nweaken_fence!(\"c\");";
        let rows = [row("f", &["a", "b", "c"])];
        assert_eq!(problems("core/src/sync/shim.rs", text, &rows), [""; 0]);
    }
}
