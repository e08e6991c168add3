//! A planted bug is a guard in front of a statement, or a wrong value: never the guard of a match arm, the
//! head of a loop, or a branch of its own. Those change which code there is, and a reader has to think them
//! away.

use crate::source::Source;

const CALL: &str = "planted!(";

/// The places of `source` that have another form: line and what it is.
pub fn breaches(source: &Source) -> Vec<(usize, &'static str)> {
    let mut code = String::new();
    for line in &source.lines {
        code.push_str(&line.code);
        code.push('\n');
    }
    code.match_indices(CALL)
        .filter(|(at, _)| !code[..*at].ends_with("macro_rules! "))
        .filter_map(|(at, _)| {
            let line = code[..at].matches('\n').count() + 1;
            form(&code, at).map(|form| (line, form))
        })
        .collect()
}

fn form(code: &str, at: usize) -> Option<&'static str> {
    let head = head(&code[..at]);
    let first = head.split_whitespace().next();
    if matches!(first, Some("for" | "while")) {
        return Some("a planted bug in the head of a loop");
    }
    if is_guard(&code[at..]) {
        return Some("a planted bug in the guard of an arm");
    }
    // With three arguments it is a value, and a `match` of that has no arm more.
    let is_alone = code[at + CALL.len()..].starts_with("\"\")");
    (first == Some("match") && is_alone).then_some("a planted bug as a branch of its own")
}

/// The statement that `before` ends in, so far: behind the last `;`, block or arm.
fn head(before: &str) -> &str {
    let mut depth = 0;
    for (at, c) in before.char_indices().rev() {
        match c {
            ')' | ']' => depth += 1,
            // A bracket that `before` ends inside of is part of the statement.
            '(' | '[' => depth = (depth - 1).max(0),
            ';' | '{' | '}' if depth == 0 => return &before[at + 1..],
            '>' if depth == 0 && before[..at].ends_with('=') => return &before[at + 1..],
            _ => {}
        }
    }
    before
}

/// Whether the condition that `rest` begins in is followed by the body of an arm.
fn is_guard(rest: &str) -> bool {
    let mut depth = 0;
    for (at, c) in rest.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = (depth - 1).max(0),
            ';' | '{' | '}' | ',' if depth == 0 => return false,
            '>' if depth == 0 && rest[..at].ends_with('=') => return true,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_and_values_are_the_form_and_nothing_else_is() {
        for (text, is_form) in [
            ("if planted!(\"x\") { return; }", true),
            ("if a(b) > 1 && !planted!(\"x\") { c }", true),
            ("if let A { b } = c && !planted!(\"x\") { d }", true),
            ("let a = b && !planted!(\"x\");", true),
            ("let a = planted!(\n    \"x\",\n    1,\n    2,\n);", true),
            ("match a { 1 => planted!(\"x\", 2, 3), _ => 4 }", true),
            (
                "match planted!(\"x\", None, a) { Some(b) => c, None => d }",
                true,
            ),
            (
                "for a in b { c }\n(d || planted!(\"x\")).then_some(e);",
                true,
            ),
            ("while a { planted!(\"x\", b, c); }", true),
            ("match a { b if planted!(\"x\") => c, _ => d }", false),
            (
                "match a { b\n    if e && !planted!(\"x\") =>\n{ c } _ => d }",
                false,
            ),
            (
                "match a { b if (c || planted!(\"x\")) => d, _ => e }",
                false,
            ),
            ("for _ in 0..planted!(\"x\", 2, 1) { a }", false),
            ("for a in b\n.filter(|_| !planted!(\"x\")) { c }", false),
            ("while a && !planted!(\"x\") { b }", false),
            ("match planted!(\"x\") { true => a, false => b }", false),
        ] {
            let source = Source::parse("src/x.rs", &format!("fn f() {{ {text} }}"));
            assert_eq!(breaches(&source).is_empty(), is_form, "{text}");
        }
    }
}
