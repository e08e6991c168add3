//! Pictures: lines over two logarithmic axes, written as SVG. Plain text, so that no library is needed and a
//! change can be read.

use crate::measure::{Figures, highest, lowest, median};
use crate::table::Unit;
use std::fmt::Write;

#[derive(Debug)]
pub struct Axis {
    pub label: &'static str,
    /// Where a line of the grid is, and what is written there.
    pub ticks: Vec<(f64, String)>,
}

/// A figure, and the lowest and highest of its rounds.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    pub x: f64,
    pub y: f64,
    pub lowest: f64,
    pub highest: f64,
}

impl Point {
    /// `figures` are by round.
    pub fn new(x: f64, figures: &[f64]) -> Self {
        Point {
            x,
            y: median(figures),
            lowest: lowest(figures),
            highest: highest(figures),
        }
    }
}

#[derive(Debug)]
pub struct Series {
    pub name: String,
    pub points: Vec<Point>,
}

/// Of contenders that took part once for each of `xs`, all of them for the first, then all for the second.
pub fn series(xs: &[f64], figures: &Figures) -> Vec<Series> {
    let count = figures.names.len() / xs.len();
    let one = |who: usize| {
        let by_round = figures.by_round[who..].iter().step_by(count);
        Series {
            name: figures.names[who].clone(),
            points: xs
                .iter()
                .zip(by_round)
                .map(|(x, f)| Point::new(*x, f))
                .collect(),
        }
    };
    (0..count).map(one).collect()
}

#[derive(Debug)]
pub struct Chart {
    pub title: &'static str,
    /// What was done, in one line.
    pub subtitle: String,
    pub x: Axis,
    pub y_label: &'static str,
    pub y_unit: Unit,
    pub series: Vec<Series>,
}

const WIDTH: f64 = 940.0;
const HEIGHT: f64 = 520.0;
const LEFT: f64 = 88.0;
const RIGHT: f64 = 660.0;
const TOP: f64 = 76.0;
const BOTTOM: f64 = 452.0;

/// Colours that the colour-blind can tell apart; the marks differ too.
const COLOURS: [&str; 7] = [
    "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#555555",
];

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;")
}

/// A scale from the logarithm of a value to a place.
struct Scale {
    from: f64,
    to: f64,
    low: f64,
    high: f64,
}

impl Scale {
    fn at(&self, value: f64) -> f64 {
        let (low, high) = (self.low.ln(), self.high.ln());
        self.from + (value.ln() - low) / (high - low) * (self.to - self.from)
    }
}

/// 1, 2, 5, 10 and so on: those around all values.
fn steps_around(low: f64, high: f64) -> Vec<f64> {
    let first = low.log10().floor() as i32;
    let last = high.log10().ceil() as i32 + 1;
    let steps = (first..=last).flat_map(|decade| {
        let ten = 10f64.powi(decade);
        [ten, 2.0 * ten, 5.0 * ten]
    });
    let steps: Vec<f64> = steps.collect();
    let slack = 1.0 + 1e-9;
    let begin = steps.iter().rposition(|step| *step <= low * slack);
    let end = steps.iter().position(|step| *step * slack >= high);
    steps[begin.unwrap_or(0)..=end.unwrap_or(steps.len() - 1)].to_vec()
}

impl Chart {
    pub fn svg(&self) -> String {
        let mut out = String::new();
        self.write(&mut out).expect("a string takes everything");
        out
    }

    fn scales(&self) -> (Scale, Scale, Vec<f64>) {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let low = points().map(|p| p.lowest).fold(f64::INFINITY, f64::min);
        let high = points().map(|p| p.highest).fold(0.0, f64::max);
        let steps = steps_around(low, high);
        let xs = || self.x.ticks.iter().map(|tick| tick.0);
        let across = Scale {
            from: LEFT + 14.0,
            to: RIGHT - 14.0,
            low: xs().fold(f64::INFINITY, f64::min),
            high: xs().fold(0.0, f64::max),
        };
        let up = Scale {
            from: BOTTOM,
            to: TOP,
            low: steps[0],
            high: steps[steps.len() - 1],
        };
        (across, up, steps)
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let (across, up, steps) = self.scales();
        let middle = (LEFT + RIGHT) / 2.0;
        writeln!(
            out,
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" font-family="Helvetica, Arial, sans-serif" font-size="13" fill="#222222">"##
        )?;
        writeln!(
            out,
            r##"<rect width="100%" height="100%" fill="#ffffff"/>"##
        )?;
        let (title, subtitle) = (escaped(self.title), escaped(&self.subtitle));
        writeln!(
            out,
            r##"<text x="24" y="32" font-size="19" font-weight="bold">{title}</text>"##
        )?;
        writeln!(
            out,
            r##"<text x="24" y="54" fill="#555555">{subtitle}</text>"##
        )?;
        for (value, label) in &self.x.ticks {
            let x = across.at(*value);
            writeln!(
                out,
                r##"<line x1="{x:.1}" x2="{x:.1}" y1="{TOP}" y2="{BOTTOM}" stroke="#e4e4e4"/><text x="{x:.1}" y="{:.1}" text-anchor="middle">{}</text>"##,
                BOTTOM + 20.0,
                escaped(label)
            )?;
        }
        // Over many decades only the tens are named.
        let crowded = steps.len() > 11;
        for (at, step) in steps.iter().enumerate() {
            let y = up.at(*step);
            let is_ten = (step.log10() - step.log10().round()).abs() < 1e-6;
            let is_end = at == 0 || at + 1 == steps.len();
            let stroke = if is_ten { "#d8d8d8" } else { "#efefef" };
            writeln!(
                out,
                r##"<line x1="{LEFT}" x2="{RIGHT}" y1="{y:.1}" y2="{y:.1}" stroke="{stroke}"/>"##
            )?;
            if !crowded || is_ten || is_end {
                let label = self.y_unit.tick(*step);
                writeln!(
                    out,
                    r##"<text x="{:.1}" y="{:.1}" text-anchor="end">{label}</text>"##,
                    LEFT - 8.0,
                    y + 4.5
                )?;
            }
        }
        writeln!(
            out,
            r##"<rect x="{LEFT}" y="{TOP}" width="{}" height="{}" fill="none" stroke="#888888"/>"##,
            RIGHT - LEFT,
            BOTTOM - TOP
        )?;
        writeln!(
            out,
            r##"<text x="{middle}" y="{}" text-anchor="middle">{}</text>"##,
            BOTTOM + 46.0,
            escaped(self.x.label)
        )?;
        let y = (TOP + BOTTOM) / 2.0;
        writeln!(
            out,
            r##"<text transform="translate(22 {y}) rotate(-90)" text-anchor="middle">{}</text>"##,
            escaped(self.y_label)
        )?;
        for (which, series) in self.series.iter().enumerate() {
            line(out, which, series, &across, &up)?;
        }
        self.legend(out)?;
        writeln!(out, "</svg>")
    }

    /// In the order in which the lines end, from the top.
    fn legend(&self, out: &mut String) -> std::fmt::Result {
        let mut order: Vec<usize> = (0..self.series.len()).collect();
        let end = |which: &usize| self.series[*which].points.last().map_or(0.0, |p| p.y);
        order.sort_by(|a, b| end(b).total_cmp(&end(a)));
        for (row, which) in order.into_iter().enumerate() {
            let y = TOP + 16.0 + row as f64 * 26.0;
            let (x, colour) = (RIGHT + 18.0, colour(which));
            writeln!(
                out,
                r##"<line x1="{x}" x2="{}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2.5"/>"##,
                x + 30.0
            )?;
            mark(out, which, x + 15.0, y)?;
            let name = escaped(&self.series[which].name);
            writeln!(
                out,
                r##"<text x="{}" y="{}">{name}</text>"##,
                x + 40.0,
                y + 4.5
            )?;
        }
        Ok(())
    }
}

fn colour(which: usize) -> &'static str {
    COLOURS[which % COLOURS.len()]
}

fn line(
    out: &mut String,
    which: usize,
    series: &Series,
    across: &Scale,
    up: &Scale,
) -> std::fmt::Result {
    let colour = colour(which);
    let mut path = String::new();
    for point in &series.points {
        let (x, y) = (across.at(point.x), up.at(point.y));
        write!(path, "{x:.1},{y:.1} ")?;
        let (low, high) = (up.at(point.lowest), up.at(point.highest));
        writeln!(
            out,
            r##"<line x1="{x:.1}" x2="{x:.1}" y1="{low:.1}" y2="{high:.1}" stroke="{colour}" stroke-width="1.5" stroke-opacity="0.45"/>"##
        )?;
    }
    let width = if which == 0 { 3.0 } else { 2.0 };
    writeln!(
        out,
        r##"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="{width}"/>"##,
        path.trim_end()
    )?;
    for point in &series.points {
        mark(out, which, across.at(point.x), up.at(point.y))?;
    }
    Ok(())
}

/// Circle, square, triangle, diamond, the latter three turned over.
fn mark(out: &mut String, which: usize, x: f64, y: f64) -> std::fmt::Result {
    let colour = colour(which);
    let corners: &[(f64, f64)] = match which % 5 {
        0 => {
            return writeln!(
                out,
                r##"<circle cx="{x:.1}" cy="{y:.1}" r="4.5" fill="{colour}"/>"##
            );
        }
        1 => &[(-4.0, -4.0), (4.0, -4.0), (4.0, 4.0), (-4.0, 4.0)],
        2 => &[(0.0, -5.0), (5.0, 4.0), (-5.0, 4.0)],
        3 => &[(0.0, -5.5), (5.5, 0.0), (0.0, 5.5), (-5.5, 0.0)],
        _ => &[(0.0, 5.0), (5.0, -4.0), (-5.0, -4.0)],
    };
    let mut points = String::new();
    for (dx, dy) in corners {
        write!(points, "{:.1},{:.1} ", x + dx, y + dy)?;
    }
    writeln!(
        out,
        r##"<polygon points="{}" fill="{colour}"/>"##,
        points.trim_end()
    )
}
