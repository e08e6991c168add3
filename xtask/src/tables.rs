//! Tables of Markdown files.

/// A row: its line, counted from 1, and its cells.
pub type Cells = (usize, Vec<String>);

/// The rows of the tables whose head is as `counts` wants it. `\|` does not end a cell.
pub fn rows(text: &str, counts: impl Fn(&[String]) -> bool) -> Vec<Cells> {
    let mut rows = Vec::new();
    let (mut inside, mut counted) = (false, false);
    for (number, line) in (1..).zip(text.lines()) {
        let Some(line) = line.trim().strip_prefix('|') else {
            inside = false;
            continue;
        };
        let line = line.strip_suffix('|').unwrap_or(line);
        let line = line.replace("\\|", "\u{1}");
        let cells: Vec<String> = line.split('|').map(|cell| cell.trim().to_owned()).collect();
        let rule = |cell: &String| cell.chars().all(|c| c == '-' || c == ':');
        if !inside {
            inside = true;
            counted = counts(&cells);
        } else if counted && !cells.iter().all(rule) {
            rows.push((number, cells));
        }
    }
    rows
}

/// What is in the backticks of a cell that holds one word.
pub fn quoted(cell: &str) -> Option<&str> {
    let name = cell.trim().strip_prefix('`')?.strip_suffix('`')?;
    (!name.is_empty() && !name.contains(['`', ' '])).then_some(name)
}
