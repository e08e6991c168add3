//! Rows of the table: walchan beside one rival, and whether a goal is met.

use crate::measure::{highest, lowest, median};

/// What a ratio should be.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// Shown for comparison.
    None,
}

/// How figures are written.
#[derive(Clone, Copy, Debug)]
pub enum Unit {
    /// Messages per second.
    Rate,
    /// Bytes per second.
    Bytes,
    /// Nanoseconds.
    Time,
}

const STEP: f64 = 1e3;

impl Unit {
    fn units(self) -> &'static [&'static str] {
        match self {
            Unit::Rate => &["/s", " k/s", " M/s"],
            Unit::Bytes => &[" B/s", " kB/s", " MB/s", " GB/s"],
            Unit::Time => &[" ns", " us", " ms", " s"],
        }
    }

    pub fn write(self, figure: f64) -> String {
        let units = self.units();
        let (mut figure, mut unit) = (figure, 0);
        while figure >= STEP && unit + 1 < units.len() {
            figure /= STEP;
            unit += 1;
        }
        let digits = match figure {
            f if f >= 100.0 => 0,
            f if f >= 10.0 => 1,
            _ => 2,
        };
        format!("{figure:.digits$}{}", units[unit])
    }

    /// The same for a round number beside an axis, which names what is counted.
    pub fn tick(self, figure: f64) -> String {
        let units = self.units();
        let (mut figure, mut unit) = (figure, 0);
        while figure >= STEP * (1.0 - 1e-9) && unit + 1 < units.len() {
            figure /= STEP;
            unit += 1;
        }
        // No more digits than the number has.
        let figure = (figure * 1e3).round() / 1e3;
        match self {
            Unit::Time => format!("{figure}{}", units[unit]),
            Unit::Rate | Unit::Bytes => format!("{figure}{}", units[unit].trim_end_matches("/s")),
        }
    }
}

#[derive(Debug)]
pub struct Row {
    pub workload: String,
    pub walchan: String,
    pub rival: String,
    ratio: f64,
    lowest: f64,
    highest: f64,
    goal: Goal,
}

impl Row {
    /// `own` and `other` are by round.
    pub fn new(
        workload: impl Into<String>,
        unit: Unit,
        own: &[f64],
        rival: &str,
        other: &[f64],
        goal: Goal,
    ) -> Self {
        let ratios: Vec<f64> = own.iter().zip(other).map(|(a, b)| a / b).collect();
        Row {
            workload: workload.into(),
            walchan: unit.write(median(own)),
            rival: format!("{rival}: {}", unit.write(median(other))),
            ratio: median(&ratios),
            lowest: lowest(&ratios),
            highest: highest(&ratios),
            goal,
        }
    }

    fn cells(&self) -> [String; 7] {
        let (goal, met) = match self.goal {
            Goal::AtLeast(least) => (format!(">= {least}"), self.ratio >= least),
            Goal::AtMost(most) => (format!("<= {most}"), self.ratio <= most),
            Goal::None => (String::new(), true),
        };
        let met = match (self.goal, met) {
            (Goal::None, _) => "",
            (_, true) => "yes",
            (_, false) => "**no**",
        };
        [
            self.workload.clone(),
            self.walchan.clone(),
            self.rival.clone(),
            format!("{:.2}", self.ratio),
            format!("{:.2}..{:.2}", self.lowest, self.highest),
            goal,
            met.to_owned(),
        ]
    }
}

const HEAD: [&str; 7] = [
    "workload", "walchan", "rival", "ratio", "spread", "goal", "met?",
];

/// A table of Markdown whose columns are aligned, so that it serves on a terminal too.
pub fn markdown(rows: &[Row]) -> String {
    let head = HEAD.map(str::to_owned);
    let cells: Vec<[String; 7]> = rows.iter().map(Row::cells).collect();
    let width = |column: usize| {
        let all = std::iter::once(&head).chain(&cells);
        all.map(|row| row[column].len()).max().unwrap_or(0)
    };
    let widths: [usize; 7] = std::array::from_fn(width);
    let line = |row: &[String; 7]| {
        let cells = row.iter().zip(widths);
        let cells = cells.map(|(cell, width)| format!(" {cell:width$} |"));
        format!("|{}\n", cells.collect::<String>())
    };
    let rule = widths.map(|width| "-".repeat(width));
    let mut text = line(&head) + &line(&rule);
    cells.iter().for_each(|row| text.push_str(&line(row)));
    text
}
