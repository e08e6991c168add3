//! The project's chores, run as `cargo xtask <command>`. No dependencies, so that they cost nothing to build.

mod calls;
mod caught;
mod circles;
mod cuts;
mod disks;
mod fuzz;
mod images;
mod instructions;
mod kills;
mod lifecycle;
mod lint;
mod orderings;
mod pacing;
mod packages;
mod pages;
mod performance;
mod planted;
mod planted_form;
mod promises;
mod protocol;
mod run;
mod sabotage;
mod sanitize;
mod shortages;
mod source;
mod tables;
mod test;
mod walls;
mod way;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask <command>

  test              every test: debug, docs, release, without features, models, planted faults
  images [COUNT] [SEED]
                    open so many crash images of random programs, 10000000 unless told otherwise
  lint              formatting, clippy, documentation, the walls between the modules, and what the docs name
  orderings         compare the atomic operations with the tables of docs/protocol.md
  sabotage [NAME..] weaken one ordering at a time; the test named in docs/protocol.md must fail
  planted [NAME..]  plant one bug at a time; the test named in docs/planted.md must fail
  calls             every system call of a channel's life is the last one, or fails, once and for ever
  kills [N [SEED]]  N processes are killed at random moments
  shortages [N [SEED]]
                    N incarnations on one processor, with idle senders, while descriptors and memory run short
  cuts [N [SEED]]   N power cuts on each of four file systems in loop devices; needs root
  disks             full disks, failing disks, and what a send writes, at full length; needs root
  instructions      what a message costs in instructions; needs valgrind
  pacing [NAME..]   what each heuristic of pacing is worth on its own workload
  fuzz [N]          N executions of the fuzz targets; needs a nightly compiler and cargo-fuzz
  performance [--quick] [NAME..]
                    walchan beside its rivals: docs/performance-table.md and docs/pictures, or below target
  sanitize          tests and fuzz corpus under AddressSanitizer, threads under ThreadSanitizer";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args.as_slice() {
        ["images", args @ ..] => images::run(args),
        ["test"] => test::run(),
        ["lint"] => lint::run(),
        ["orderings"] => orderings::run(),
        ["sabotage", names @ ..] => sabotage::run(names),
        ["planted", names @ ..] => planted::run(names),
        ["calls"] => calls::run(),
        ["instructions"] => instructions::run(),
        ["pacing", names @ ..] => pacing::run(names),
        ["kills", args @ ..] => kills::run(args),
        ["shortages", args @ ..] => shortages::run(args),
        ["cuts", args @ ..] => cuts::run(args),
        ["disks"] => disks::run(),
        ["fuzz", args @ ..] => fuzz::run(args),
        ["performance", args @ ..] => performance::run(args),
        ["sanitize"] => sanitize::run(),
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("\nxtask: {message}");
            ExitCode::FAILURE
        }
    }
}
