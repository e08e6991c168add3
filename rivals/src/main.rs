//! walchan beside its rivals: all workloads, one table, the pictures. `cargo xtask performance` runs it.
//!
//! Every figure is the median of interleaved rounds. A ratio is formed within each round, and then its median
//! taken; the spread is from the lowest to the highest of the rounds. Results are checked before a time
//! counts.

mod channels;
mod child;
mod measure;
mod messages;
mod peers;
mod place;
mod plot;
mod pump;
mod table;
mod workloads;

use measure::Pace;
use place::Place;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use workloads::{ALL, Setting, Workload};

const USAGE: &str = "usage: rivals [--quick] [--dir DIR] [--out DIR] [NAME..]

  --quick    3 short rounds
  --dir DIR  for the files of the runs, else WALCHAN_BENCH_DIR, else below target
  --out DIR  for performance-table.md and pictures; without it nothing is written";

#[derive(Debug, Default)]
struct Arguments {
    quick: bool,
    dir: Option<PathBuf>,
    out: Option<PathBuf>,
    names: Vec<String>,
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = Arguments::default();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| USAGE.to_owned());
        match word.as_str() {
            "--quick" => arguments.quick = true,
            "--dir" => arguments.dir = Some(value()?.into()),
            "--out" => arguments.out = Some(value()?.into()),
            _ if ALL.iter().any(|workload| workload.name == word) => arguments.names.push(word),
            _ => {
                let names: Vec<&str> = ALL.iter().map(|workload| workload.name).collect();
                return Err(format!("{USAGE}\n\nnames: {}", names.join(", ")));
            }
        }
    }
    Ok(arguments)
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, task, words @ ..] = words.as_slice()
        && flag == child::FLAG
    {
        match task.as_str() {
            "peer" => peers::child(words),
            "fill" => workloads::recovery::child_fill(words),
            "open" => workloads::recovery::child_open(words),
            _ => panic!("no such task: {task}"),
        }
    }
    match parse(words.into_iter()).and_then(|arguments| run(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let wanted = |workload: &&Workload| {
        arguments.names.is_empty() || arguments.names.iter().any(|name| name == workload.name)
    };
    let chosen: Vec<&Workload> = ALL.iter().filter(wanted).collect();
    let place = Place::choose(arguments.dir.clone())?;
    if place.is_memory() && chosen.iter().any(|workload| workload.durable) {
        let dir = place.dir.display();
        return Err(format!("{dir} is in memory: choose a directory on a disk"));
    }
    let pace = if arguments.quick {
        Pace::QUICK
    } else {
        Pace::FULL
    };
    let machine = place.machine();
    println!("{machine}");
    let setting = Setting { place, pace };
    let (mut rows, mut charts) = (Vec::new(), Vec::new());
    for workload in &chosen {
        let began = Instant::now();
        let outcome = (workload.run)(&setting);
        let seconds = began.elapsed().as_secs_f64();
        println!("\n{}, {seconds:.0} s\n", workload.name);
        if !outcome.rows.is_empty() {
            print!("{}", table::markdown(&outcome.rows));
        }
        rows.extend(outcome.rows);
        charts.extend(outcome.charts);
    }
    println!(
        "\nall, {} rounds\n\n{}",
        pace.rounds,
        table::markdown(&rows)
    );
    let Some(out) = &arguments.out else {
        return Ok(());
    };
    let failed = |error: std::io::Error| format!("{}: {error}", out.display());
    let pictures = out.join("pictures");
    fs::create_dir_all(&pictures).map_err(failed)?;
    for (name, chart) in &charts {
        let file = pictures.join(name).with_extension("svg");
        fs::write(file, chart.svg()).map_err(failed)?;
    }
    // A part of the table is no table.
    if arguments.names.is_empty() {
        write_table(out, &machine, pace, &rows).map_err(failed)?;
    }
    Ok(())
}

fn write_table(out: &Path, machine: &str, pace: Pace, rows: &[table::Row]) -> std::io::Result<()> {
    let rounds = pace.rounds;
    let table = table::markdown(rows);
    let text = format!(
        "# walchan beside its rivals

```text
cargo xtask performance
```

writes this table and the pictures.

{machine}

Medians of {rounds} interleaved rounds; a ratio is the median of the rounds' ratios, the spread is from the
lowest to the highest of them. For rates a ratio above 1 means that walchan is faster; for times one below 1
does. What each workload stands for, and what not, is in the head of its file in `rivals/src/workloads`; how
each rival is used, in those in `rivals/src/peers` and `rivals/src/channels.rs`.

{table}"
    );
    fs::write(out.join("performance-table.md"), text)
}
