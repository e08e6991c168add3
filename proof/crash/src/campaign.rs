//! Random programs, random crashes, and crashes of the recovery that follows; and of short programs every
//! image that a power cut could leave.
//!
//! A seed is all that is needed to run one again: `WALCHAN_CRASH_SEED=n cargo test --lib one_seed`. It does
//! the same in every build.

use super::crashes::{check_again, random_choices};
use super::oracle::{Crash, Found, Oracle};
use super::program::{Lived, Program, Tally};
use super::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};
use walchan_core::sync::Mutex;
use walchan_medium::{Choice, Film};

/// All images of a moment are opened where they are not more than this.
const IMAGES_MAX: usize = 3_000;
/// The same where an image is a chain of files, which takes longer.
const CHAINS_MAX: usize = 400;
/// Else so many of them.
const SAMPLES: usize = 40;

/// Calls `body` with each image of the film's moment that was not there a moment ago; a sample where there
/// are too many in all.
fn each_image(
    film: &Film,
    most: usize,
    rng: &mut Rng,
    tally: &mut Tally,
    mut body: impl FnMut(&mut Rng, &[Choice]),
) {
    let open: Vec<(u64, usize)> = film.open_now().collect();
    let all = open
        .iter()
        .try_fold(1usize, |n, (_, values)| n.checked_mul(*values));
    let Some(all) = all.filter(|all| *all <= most) else {
        tally.sampled += 1;
        for _ in 0..SAMPLES {
            let choices = random_choices(film, rng);
            body(rng, &choices);
        }
        return;
    };
    tally.exhausted += 1;
    // What a moment may leave without its last event, the moment before might, too: the same promises.
    let seen_before = |choices: &[Choice]| {
        let is_new = |choice: &Choice, values: usize| {
            choice.value == values - 1 && film.fresh().contains(&choice.sector)
        };
        let mut pairs = choices.iter().zip(&open);
        !film.has_just_synced() && !pairs.any(|(choice, (_, values))| is_new(choice, *values))
    };
    let mut choices: Vec<Choice> = open
        .iter()
        .map(|(sector, _)| Choice {
            sector: *sector,
            value: 0,
        })
        .collect();
    for nth in 0..all {
        let mut rest = nth;
        for (choice, (_, values)) in choices.iter_mut().zip(&open) {
            choice.value = rest % values;
            rest /= values;
        }
        if !seen_before(&choices) {
            body(rng, &choices);
        }
    }
}

/// Every image that a power cut could leave at every moment of a short incarnation that follows a longer one,
/// and of the recovery of what that leaves.
fn run_small(mut program: Program) -> Tally {
    if program.shape.is_none() && program.rng.chance(10) {
        let left = program.beginning_of_many_incarnations();
        every_cut_of_a_recovery(&mut program, &left.medium.killed(), &left.found);
        return program.tally;
    }
    let mut left = program.beginning();
    for _ in 0..program.rng.below(3) {
        let lived = program.live(left, 40);
        left = program.crash(&lived, 0);
    }
    let lived = program.live(left, 30);
    let Lived {
        oracle,
        medium,
        recovered,
    } = &lived;
    if !(oracle.word_by_word && oracle.mode == Mode::FlushOnly) {
        every_cut(&mut program, oracle, medium, *recovered);
    }
    let left = program.crash(&lived, 2);
    every_cut_of_a_recovery(&mut program, &left.medium.killed(), &left.found);
    program.tally
}

fn every_cut(program: &mut Program, oracle: &Oracle, medium: &Simulated, recovered: usize) {
    let mut film = medium.film();
    film.advance_to(recovered);
    let (mut rng, mut tally) = (Rng(program.rng.next()), Tally::default());
    let most = match program.shape {
        None => IMAGES_MAX,
        Some(_) => CHAINS_MAX,
    };
    loop {
        let durable = |part| film.durable_moment_of(part);
        let expected = oracle.expect(film.moment(), durable, Crash::PowerCut);
        each_image(&film, most, &mut rng, &mut tally, |_, choices| {
            expected.check(&program.drain(&film.show(choices)));
        });
        if film.moment() == film.end() {
            break;
        }
        film.advance();
    }
    program.tally += tally;
}

/// `image` is what a process that was killed left, all of it on the disk.
fn every_cut_of_a_recovery(program: &mut Program, image: &[u8], found: &Found) {
    let medium = Simulated::new(image.to_vec());
    program.recover(&medium).unwrap();
    let mut film = medium.film();
    let (mut rng, mut tally) = (Rng(program.rng.next()), Tally::default());
    let most = match program.shape {
        None => IMAGES_MAX,
        Some(_) => CHAINS_MAX,
    };
    loop {
        each_image(&film, most, &mut rng, &mut tally, |rng, choices| {
            check_again(found, &program.drain(&film.show(choices)), None);
            if rng.chance(5) {
                let image = film.show(choices).killed();
                program.crash_recovery(&Simulated::new(image), found, None, 1);
            }
        });
        if film.moment() == film.end() {
            break;
        }
        film.advance();
    }
    program.tally += tally;
}

/// A few incarnations, each crashed at several moments.
fn run_long(mut program: Program) -> Tally {
    let mut left = if program.shape.is_none() && program.rng.chance(12) {
        program.beginning_of_many_incarnations()
    } else {
        program.beginning()
    };
    for _ in 0..5 {
        let lived = program.live(left, 160);
        left = program.crash(&lived, 12);
    }
    program.tally
}

fn run(seed: u64) -> Tally {
    let mut program = match seed / 2 % 2 {
        0 => Program::new(seed),
        _ => Program::chained(seed),
    };
    if seed.is_multiple_of(2) {
        return run_long(program);
    }
    if program.shape.is_none() {
        program.capacity = 512 << (seed / 4 % 3);
    }
    run_small(program)
}

/// Runs a seed; a failure names it.
fn seeded(seed: u64) -> Tally {
    match catch_unwind(AssertUnwindSafe(|| run(seed))) {
        Ok(tally) => tally,
        Err(panic) => {
            eprintln!("\nto see it again: WALCHAN_CRASH_SEED={seed} cargo test --lib one_seed");
            std::panic::resume_unwind(panic)
        }
    }
}

/// What the workers share.
struct Work {
    next: u64,
    step: u64,
    end: u64,
    /// No more seeds begin when there are so many images.
    images_max: u64,
    done: u64,
    tally: Tally,
    failed: bool,
    reported: Instant,
}

/// Runs seeds from `first` on, each `step`-th, in two threads, and reports how far they are.
fn run_all(first: u64, step: u64, seeds: u64, images_max: u64) {
    let work = Mutex::new(Work {
        next: first,
        step,
        end: first.saturating_add(seeds.saturating_mul(step)),
        images_max,
        done: 0,
        tally: Tally::default(),
        failed: false,
        reported: Instant::now(),
    });
    let locked = || work.lock();
    let worker = || loop {
        let seed = {
            let mut work = locked();
            if work.failed || work.next >= work.end || work.tally.images >= work.images_max {
                return;
            }
            work.next += work.step;
            work.next - work.step
        };
        let outcome = catch_unwind(|| seeded(seed));
        let mut work = locked();
        match outcome {
            Ok(tally) => {
                work.done += 1;
                work.tally += tally;
            }
            Err(_) => work.failed = true,
        }
        if work.reported.elapsed() > Duration::from_secs(10) {
            work.reported = Instant::now();
            println!("{} programs, {} images", work.done, work.tally.images);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(worker);
        scope.spawn(worker);
    });
    let work = locked();
    let (done, tally) = (work.done, work.tally);
    println!(
        "seeds {first} to {}: {done} programs, {} images; of {} moments every image, of {} a sample",
        work.next - step,
        tally.images,
        tally.exhausted,
        tally.sampled
    );
    assert!(!work.failed, "a program failed: see above");
}

fn from_environment(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().expect("a number"))
}

const SEEDS: u64 = if cfg!(feature = "stress") { 4_000 } else { 40 };

#[test]
fn random_programs_keep_every_promise_over_random_crashes() {
    run_all(0, 4, SEEDS, u64::MAX);
}

#[test]
fn every_image_of_small_programs_keeps_every_promise() {
    run_all(1, 4, SEEDS, u64::MAX);
}

#[test]
fn random_programs_with_segments_keep_every_promise_over_random_crashes() {
    run_all(2, 4, SEEDS / 2, u64::MAX);
}

#[test]
fn every_image_of_small_programs_with_segments_keeps_every_promise() {
    run_all(3, 4, SEEDS / 2, u64::MAX);
}

#[test]
fn one_seed() {
    seeded(from_environment("WALCHAN_CRASH_SEED").unwrap_or(1 << 40));
}

/// `cargo xtask images` runs it, and says how many and from which seed.
#[test]
#[ignore = "takes as long as its variables say"]
fn as_many_images_as_asked_for() {
    let images = from_environment("WALCHAN_CRASH_IMAGES").unwrap_or(100_000);
    let first = from_environment("WALCHAN_CRASH_SEED").unwrap_or(0);
    run_all(first, 1, u64::MAX, images);
}
