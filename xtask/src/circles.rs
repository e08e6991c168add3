//! Imports between the files of a crate, and the circles that they make.
//!
//! An import of a name that a `mod.rs` hands on by `pub use` is one of the file that has it. A `mod.rs` that
//! only declares and hands on imports nothing.

use crate::source::{Source, words};
use std::collections::{BTreeMap, BTreeSet};

/// The circles among the files below `root`, a line each.
pub fn find(root: &str, sources: &[Source]) -> Vec<String> {
    let files: BTreeMap<String, &Source> = sources
        .iter()
        .filter_map(|source| Some((module_of(root, &source.path)?, source)))
        .collect();
    let mut arrows: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (module, source) in &files {
        let mut to = BTreeSet::new();
        let code = imports(source);
        for path in paths(&code, module)
            .into_iter()
            .chain(children(&code, module, &files))
        {
            if let Some(file) = resolve(&path, &files, 0)
                && file != *module
            {
                to.insert(file);
            }
        }
        arrows.insert(module, to);
    }
    circles(&arrows)
        .into_iter()
        .map(|circle| {
            format!(
                "{root}: files that import each other: {}",
                circle.join(", ")
            )
        })
        .collect()
}

/// `a::b` for `root/a/b.rs` and for `root/a/b/mod.rs`; empty for the root.
fn module_of(root: &str, path: &str) -> Option<String> {
    let rest = path.strip_prefix(root)?.strip_prefix('/')?;
    let rest = rest.strip_suffix(".rs")?;
    let rest = rest.strip_suffix("/mod").unwrap_or(rest);
    Some(match rest {
        "lib" => String::new(),
        rest => rest.replace('/', "::"),
    })
}

/// The code of a file but for its tests; of a `mod.rs` or `lib.rs` also without what it hands on.
fn imports(source: &Source) -> String {
    let is_parent = source.path.ends_with("/mod.rs") || source.path.ends_with("lib.rs");
    let mut code = String::new();
    let mut handed_on = false;
    for line in source.lines.iter().filter(|line| !line.test) {
        let text = line.code.trim_start();
        handed_on |= is_parent && text.starts_with("pub use ");
        if !handed_on {
            code.push_str(&line.code);
            code.push('\n');
        }
        handed_on &= !line.code.contains(';');
    }
    code
}

/// All paths that begin with `crate::`, `super::` or `self::`, from the root of the crate.
fn paths(code: &str, module: &str) -> Vec<String> {
    let mut found = Vec::new();
    let own: Vec<&str> = module.split("::").filter(|part| !part.is_empty()).collect();
    for (keyword, up) in [("crate::", own.len()), ("super::", 1)] {
        let base = own[..own.len().saturating_sub(up)].join("::");
        for (at, _) in code.match_indices(keyword) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            expand(&code[at + keyword.len()..], &base, &mut found);
        }
    }
    found
}

/// The children of a module that it names.
fn children(code: &str, module: &str, files: &BTreeMap<String, &Source>) -> Vec<String> {
    let prefix = if module.is_empty() {
        String::new()
    } else {
        format!("{module}::")
    };
    let mut found = Vec::new();
    for file in files.keys() {
        let Some(child) = file.strip_prefix(&prefix) else {
            continue;
        };
        let named = format!("{child}::");
        let is_named = !child.is_empty()
            && !child.contains("::")
            && code.match_indices(&named).any(|(at, _)| {
                let before = code[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
            });
        if is_named {
            found.push(file.clone());
        }
    }
    found
}

/// The paths of a use tree that `text` begins with, each behind `base`.
fn expand(text: &str, base: &str, found: &mut Vec<String>) {
    let join = |name: &str| match base {
        "" => name.to_owned(),
        base => format!("{base}::{name}"),
    };
    if let Some(group) = text.strip_prefix('{') {
        let (mut depth, mut start) = (0, 0);
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                ',' | '}' if depth == 0 => {
                    expand(group[start..at].trim(), base, found);
                    start = at + 1;
                    if c == '}' {
                        return;
                    }
                }
                '}' => depth -= 1,
                _ => {}
            }
        }
        return;
    }
    let name: String = text
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect();
    if name.is_empty() {
        return;
    }
    match text[name.len()..].strip_prefix("::") {
        Some(rest) if !rest.starts_with('<') => expand(rest, &join(&name), found),
        _ => found.push(join(&name)),
    }
}

/// The file that a path leads to: the longest part that is a module, and where that hands the next name on,
/// the file that has it.
fn resolve(path: &str, files: &BTreeMap<String, &Source>, depth: usize) -> Option<String> {
    let parts: Vec<&str> = path.split("::").collect();
    for len in (0..=parts.len()).rev() {
        let module = parts[..len].join("::");
        let Some(source) = files.get(&module) else {
            continue;
        };
        let Some(name) = parts.get(len) else {
            return Some(module);
        };
        for handed in handed_on(source, &module) {
            let is_it = handed.rsplit("::").next() == Some(name) || handed.ends_with("::*");
            if is_it && depth < 8 && handed != path {
                let target = handed.trim_end_matches("::*").to_owned();
                let target = match handed.ends_with("::*") {
                    true => format!("{target}::{name}"),
                    false => target,
                };
                return resolve(&target, files, depth + 1);
            }
        }
        return (len > 0).then_some(module);
    }
    None
}

/// The paths that a file hands on by `pub use`, from the root of the crate.
fn handed_on(source: &Source, module: &str) -> Vec<String> {
    let mut code = String::new();
    for line in source.lines.iter().filter(|line| !line.test) {
        code.push_str(line.code.trim());
        code.push(' ');
    }
    let mut found = Vec::new();
    for (at, _) in code.match_indices("pub use ") {
        let rest = &code[at + "pub use ".len()..];
        let tree = rest.split(';').next().unwrap_or(rest);
        let (tree, base) = match tree.strip_prefix("crate::") {
            Some(tree) => (tree, ""),
            None => (tree.strip_prefix("self::").unwrap_or(tree), module),
        };
        expand(tree, base, &mut found);
        if let Some(all) = tree.strip_suffix("::*") {
            let prefix = if base.is_empty() {
                String::new()
            } else {
                format!("{base}::")
            };
            found.push(format!("{prefix}{all}::*"));
        }
    }
    found
}

/// Files each of which leads to the other.
fn circles(arrows: &BTreeMap<&str, BTreeSet<String>>) -> Vec<Vec<String>> {
    let reach = |from: &str| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from.to_owned()]);
        while let Some(file) = next.pop() {
            for to in arrows.get(file.as_str()).into_iter().flatten() {
                if seen.insert(to.clone()) {
                    next.push(to.clone());
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&str, BTreeSet<String>> =
        arrows.keys().map(|file| (*file, reach(file))).collect();
    let mut circles: Vec<Vec<String>> = Vec::new();
    for (file, from) in &reached {
        let leads_back = |other: &&String| {
            reached
                .get(other.as_str())
                .is_some_and(|back| back.contains(*file))
        };
        let circle: Vec<String> = from.iter().filter(leads_back).cloned().collect();
        if circle.len() > 1 && !circles.contains(&circle) {
            circles.push(circle);
        }
    }
    circles
}

/// First names of the path or of the `{..}` group that `text` begins with.
pub fn heads(text: &str) -> Vec<&str> {
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

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<Source> = files.iter().map(|(p, t)| Source::parse(p, t)).collect();
        find("src", &sources)
    }

    #[test]
    fn a_circle_through_what_a_parent_hands_on_is_found() {
        let files = [
            ("src/lib.rs", "mod a;\nmod b;"),
            ("src/a/mod.rs", "mod one;\npub use one::One;"),
            ("src/a/one.rs", "use crate::b::Two;\npub struct One;"),
            ("src/b.rs", "use crate::{a::One, c};\npub struct Two;"),
        ];
        let circles = found(&files);
        assert_eq!(circles.len(), 1, "{circles:?}");
        assert!(circles[0].ends_with("a::one, b"), "{circles:?}");
    }

    #[test]
    fn a_child_that_imports_from_a_parent_that_uses_it_is_a_circle() {
        let parent = "mod child;\nuse child::Child;\npub struct Parent(Child);";
        let files = [
            ("src/a/mod.rs", parent),
            ("src/a/child.rs", "use super::Parent;\npub struct Child;"),
        ];
        assert_eq!(found(&files).len(), 1);
        let files = [
            (
                "src/a/mod.rs",
                "mod child;\nuse crate::a::child::Child;\npub struct Parent(Child);",
            ),
            ("src/a/child.rs", "use super::Parent;\npub struct Child;"),
        ];
        assert_eq!(found(&files).len(), 1);
    }

    #[test]
    fn what_points_down_is_no_circle_and_tests_do_not_count() {
        let files = [
            ("src/lib.rs", "mod a;\npub use a::A;\nmod b;"),
            ("src/a.rs", "use crate::b::B;\nuse crate::b::{self, C};"),
            (
                "src/b.rs",
                "#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}",
            ),
        ];
        assert_eq!(found(&files), [""; 0]);
    }
}
