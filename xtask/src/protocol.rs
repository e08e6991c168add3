//! The tables of `docs/protocol.md`: one row for each atomic operation.
//!
//! A table counts when the fourth cell of its head has the word "sabotage". Its cells are: `` `site` ``, the
//! edge, the partner, and either ``  `weakening` caught by `test` `` (more of them behind `;`) or `none:
//! reason`.

use std::fs;

use crate::run::root;
use crate::tables::{self, quoted};

pub const PATH: &str = "docs/protocol.md";

#[derive(Debug, PartialEq)]
pub struct Row {
    pub line: usize,
    pub site: String,
    /// Weakening and test that catches it. Empty when the row gives a reason for having none.
    pub caught: Vec<(String, String)>,
}

pub fn read() -> Result<Vec<Row>, String> {
    let text = fs::read_to_string(root().join(PATH)).map_err(|error| format!("{PATH}: {error}"))?;
    let (rows, problems) = parse(&text);
    match (problems.is_empty(), rows.is_empty()) {
        (false, _) => Err(problems.join("\n")),
        (true, true) => Err(format!(
            "{PATH}: no table whose head is | site | edge | partner | sabotage |"
        )),
        (true, false) => Ok(rows),
    }
}

fn parse(text: &str) -> (Vec<Row>, Vec<String>) {
    let (mut rows, mut problems) = (Vec::new(), Vec::new());
    let counts = |head: &[String]| {
        let fourth = head.get(3);
        fourth.is_some_and(|cell| cell.to_lowercase().contains("sabotage"))
    };
    for (line, cells) in tables::rows(text, counts) {
        let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
        match row(&cells, line) {
            Ok(row) => rows.push(row),
            Err(problem) => problems.push(format!("{PATH}:{line}: {problem}")),
        }
    }
    (rows, problems)
}

fn row(cells: &[&str], line: usize) -> Result<Row, String> {
    let &[site, edge, partner, sabotage] = cells else {
        return Err(format!("{} cells, not 4", cells.len()));
    };
    let site = quoted(site).ok_or_else(|| format!("the first cell is {site:?}, not `site`"))?;
    if edge.is_empty() || partner.is_empty() {
        return Err(format!("`{site}` lacks its edge or its partner"));
    }
    let mut caught = Vec::new();
    match sabotage.strip_prefix("none:") {
        Some(reason) if reason.trim().is_empty() => {
            return Err(format!("`{site}`: none needs a reason"));
        }
        Some(_) => {}
        None => {
            for part in sabotage.split(';') {
                let (name, test) = part
                    .split_once(" caught by ")
                    .and_then(|(name, test)| Some((quoted(name)?, quoted(test)?)))
                    .ok_or_else(|| {
                        format!(
                            "`{site}`: {part:?} is neither `x` caught by `test` nor none: reason"
                        )
                    })?;
                caught.push((name.to_owned(), test.to_owned()));
            }
        }
    }
    Ok(Row {
        line,
        site: site.to_owned(),
        caught,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_and_other_tables_left_alone() {
        let text = "\
| state | a | b | c |\n|--|--|--|--|\n| `x` | 1 | 2 | 3 |\n
| Site | Edge | Partner | Sabotage |\n|:--|---|---|---|
| `publish` | E1 | `read` | `publish_relaxed` caught by `ring::t1` |
| `claim` | E2 \\| E3 | `x` | `a` caught by `t1`; `b` caught by `t2` |
| `stat` | none | none | none: a hint, nothing depends on it |\n";
        let (rows, problems) = parse(text);
        assert_eq!(problems, [""; 0]);
        assert_eq!(
            rows.iter().map(|row| row.site.as_str()).collect::<Vec<_>>(),
            ["publish", "claim", "stat"]
        );
        assert_eq!(
            rows[0].caught,
            [("publish_relaxed".to_owned(), "ring::t1".to_owned())]
        );
        assert_eq!(
            (rows[1].caught.len(), rows[2].caught.len(), rows[0].line),
            (2, 0, 7)
        );
    }

    #[test]
    fn malformed_rows_are_reported() {
        let text = "| site | edge | partner | sabotage |\n|-|-|-|-|\n| `a` | E1 | b | none: |\n| a | E1 | b | none: x |
| `a` | E1 | b | covered |\n| `a` | E1 |  | none: x |\n| `a` | E1 |\n";
        assert_eq!(parse(text).1.len(), 5);
    }
}
