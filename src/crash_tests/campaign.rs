//! Random programs, random crashes, and crashes of the recovery that follows.
//!
//! A seed is all that is needed to run one again: `WALCHAN_CRASH_SEED=n cargo test one_seed`.

use super::oracle::{Crash, Found, Oracle};
use super::*;
use crate::recovery::DamagedFrame;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// A message: its number, then bytes that follow from number and length.
fn payload_of(number: u64, len: usize) -> Vec<u8> {
    let mut rng = Rng(number << 32 | len as u64);
    let mut payload = number.to_le_bytes().to_vec();
    payload.resize_with(len, || rng.next() as u8);
    payload
}

fn number_of(payload: &[u8]) -> u64 {
    crate::format::get_u64(payload, 0)
}

/// What a file delivers. Opening it must find nothing that was durable and is damaged, and the next message
/// must flow.
fn drain(medium: Simulated, capacity: u64, rng: &mut Rng) -> Found {
    let mut life = Life::open(medium, capacity, Mode::FlushOnly, rng).unwrap();
    let damaged = life.report.damaged();
    assert!(
        !damaged.iter().any(DamagedFrame::was_durable),
        "damage without rot: {}",
        life.report
    );
    let mut found = Found::new();
    for got in life.receive_all() {
        let Got::Message {
            id,
            deliveries,
            payload,
        } = got
        else {
            panic!("{got:?}");
        };
        assert!((life.head..life.tail).contains(&id.position()));
        life.acknowledge(id);
        found.push((number_of(&payload), id, deliveries, payload));
    }
    assert_eq!(life.report.kept(), found.len() as u64);
    let again = found.iter().filter(|f| f.2 > 1).count() as u64;
    assert_eq!(life.report.redelivered(), again);
    life.send(b"a new message").unwrap();
    assert_eq!(life.receive_message().1, b"a new message");
    found
}

/// One program: lives, each ended by a close or a crash.
struct Program {
    rng: Rng,
    capacity: u64,
    next: u64,
    ids: BTreeSet<MessageId>,
    images: u64,
}

impl Program {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let capacity = 512 << rng.below(4);
        Program {
            rng,
            capacity,
            next: 0,
            ids: BTreeSet::new(),
            images: 0,
        }
    }

    fn mode(&mut self) -> Mode {
        match self.rng.below(5) {
            0 | 1 => Mode::PerSend,
            2 | 3 => Mode::FlushOnly,
            _ => Mode::Every {
                max_ops: 1 + self.rng.below(9),
                max_delay: Duration::MAX,
            },
        }
    }

    /// Gives what the last crash left.
    fn run(&mut self, lives: u64) -> (Simulated, Found) {
        let mut medium = Simulated::new(new_image(self.capacity, &mut self.rng));
        let mut found = Found::new();
        for _ in 0..lives {
            let mode = self.mode();
            let life = Life::open(medium, self.capacity, mode, &mut self.rng).unwrap();
            let recovered = life.medium.moment();
            if self.rng.chance(10) {
                life.medium.fail_syncs_after(self.rng.below(6));
            }
            let (life, oracle) = self.live(life, mode, &found, 120);
            (medium, found) = self.crash(&life, &oracle, recovered);
        }
        (medium, found)
    }

    /// At most so many random operations.
    fn live(&mut self, mut life: Life, mode: Mode, found: &Found, most: u64) -> (Life, Oracle) {
        let mut oracle = Oracle::new(mode, found);
        let mut held: Vec<(u64, MessageId)> = Vec::new();
        let medium = life.medium.clone();
        let max = life.channel.log().ring().layout().payload_len_max();
        // Some programs keep the ring empty, some full; some acknowledge late, some at once.
        let (eager, patience) = (20 + self.rng.below(60), self.rng.below(12) as usize);
        for _ in 0..self.rng.below(most) {
            let from = medium.moment();
            match self.rng.below(100) {
                0..40 => {
                    let len = match self.rng.below(4) {
                        0 => 8 + self.rng.below(max - 7),
                        1 => max,
                        _ => 8 + self.rng.below((max - 7).min(24)),
                    };
                    let (number, payload) = (self.next, payload_of(self.next, len as usize));
                    match life.send(&payload) {
                        Ok(id) => {
                            assert!(self.ids.insert(id), "{id} was given before");
                            oracle.send(number, payload, Some(id), from, Some(medium.moment()));
                            self.next += 1;
                        }
                        Err(SendFailure::Unsynced(_)) => {
                            oracle.send(number, payload, None, from, None);
                            self.next += 1;
                        }
                        Err(SendFailure::Full | SendFailure::Io(_)) => {}
                        Err(other) => panic!("{other:?}"),
                    }
                }
                40..70 => match life.receive() {
                    Some(Got::Message { id, payload, .. }) => {
                        let number = number_of(&payload);
                        oracle.delivered(number, &payload, from, medium.moment());
                        held.push((number, id));
                    }
                    None | Some(Got::Failed) => {}
                    other => panic!("{other:?}"),
                },
                70..92 => {
                    if held.len() > patience || (self.rng.chance(eager) && !held.is_empty()) {
                        let (number, id) =
                            held.swap_remove(self.rng.below(held.len() as u64) as usize);
                        life.acknowledge(id);
                        oracle.acknowledged(number, from, medium.moment());
                    }
                }
                92..95 => drop(life.channel.log().sync_sent()),
                95..98 => drop(life.channel.log().sync_progress()),
                _ => life.timer(),
            }
        }
        let failed = |e: &crate::memory::simulated::Event| {
            matches!(e, crate::memory::simulated::Event::SyncFailed)
        };
        if self.rng.chance(25) {
            drop(life.channel.log().finish());
        }
        oracle.failed = medium.events().iter().any(failed);
        (life, oracle)
    }

    /// Crashes the life at random moments, checks each, and gives the last one: the medium, and what is in it.
    fn crash(&mut self, life: &Life, oracle: &Oracle, recovered: usize) -> (Simulated, Found) {
        let medium = &life.medium;
        let end = medium.moment();
        let mut last = None;
        for _ in 0..4 {
            let moment = recovered + self.rng.below((end - recovered + 1) as u64) as usize;
            let (moment, kill) = match self.rng.below(4) {
                0 => (end, true),
                1 => (end, false),
                2 => (moment, true),
                _ => (moment, false),
            };
            let (image, crash) = if kill {
                (medium.cut(moment, |_, values| values - 1), Crash::Kill)
            } else {
                (cut_random(medium, moment, &mut self.rng), Crash::PowerCut)
            };
            // After a failed sync a kill leaves a cache that the disk does not follow.
            let disk = (kill && oracle.failed).then(|| cut_random(medium, moment, &mut self.rng));
            let start = |image: &Vec<u8>| match &disk {
                Some(disk) => Simulated::with_cache(disk.clone(), image.clone()),
                None => Simulated::new(image.clone()),
            };
            let found = drain(start(&image), self.capacity, &mut self.rng);
            oracle.check(medium, moment, crash, &found);
            self.images += 1;
            if self.rng.chance(50) {
                self.crash_recovery(start(&image), disk.is_some(), &found, 2);
            }
            last = Some((start(&image), found));
        }
        last.unwrap()
    }

    /// Crashes a recovery, and the one after it. What is found stays found.
    fn crash_recovery(&mut self, medium: Simulated, failed: bool, found: &Found, depth: u32) {
        recover(&medium, self.capacity, &mut self.rng).unwrap();
        let end = medium.moment();
        let moment = if failed {
            // Before its first sync the disk may not hold what the cache showed.
            end
        } else {
            self.rng.below(end as u64 + 1) as usize
        };
        let image = cut_random(&medium, moment, &mut self.rng);
        self.images += 1;
        let again = drain(Simulated::new(image.clone()), self.capacity, &mut self.rng);
        if failed {
            let missing = found.iter().find(|f| !again.contains(f));
            assert!(missing.is_none(), "recovered and lost: {missing:?}");
        } else {
            assert_eq!(&again, found, "recovery killed at {moment} of {end}");
        }
        if depth > 0 && !failed {
            self.crash_recovery(Simulated::new(image), false, found, depth - 1);
        }
    }
}

/// Every image that a power cut could leave at every moment of a short life that follows a longer one; a sample
/// where they are too many.
fn run_small(seed: u64) -> u64 {
    let mut program = Program::new(seed);
    let capacity = 512 << (seed % 2);
    program.capacity = capacity;
    let (medium, found) = program.run(1);
    let mode = program.mode();
    let life = Life::open(medium, capacity, mode, &mut program.rng).unwrap();
    let recovered = life.medium.moment();
    let (life, oracle) = program.live(life, mode, &found, 24);
    for moment in recovered..=life.medium.moment() {
        for image in images(&life.medium, moment, 120, &mut program.rng) {
            let found = drain(Simulated::new(image), capacity, &mut program.rng);
            oracle.check(&life.medium, moment, Crash::PowerCut, &found);
            program.images += 1;
        }
    }
    program.images
}

#[test]
fn every_image_of_small_programs_keeps_every_promise() {
    let seeds = SEEDS / 3;
    let images: u64 = (0..seeds).map(|seed| seeded(seed, run_small)).sum();
    println!("{seeds} programs, {images} images");
}

/// Runs a seed; a failure names it.
fn seeded(seed: u64, run: fn(u64) -> u64) -> u64 {
    match catch_unwind(AssertUnwindSafe(|| run(seed))) {
        Ok(images) => images,
        Err(panic) => {
            eprintln!("the seed is {seed}");
            std::panic::resume_unwind(panic)
        }
    }
}

fn run_long(seed: u64) -> u64 {
    let mut program = Program::new(seed);
    program.run(6);
    program.images
}

const SEEDS: u64 = if cfg!(feature = "stress") {
    20_000
} else {
    150
};

#[test]
fn random_programs_keep_every_promise_over_random_crashes() {
    let images: u64 = (0..SEEDS).map(|seed| seeded(seed, run_long)).sum();
    println!("{SEEDS} programs, {images} images");
}

#[test]
fn one_seed() {
    let seed = std::env::var("WALCHAN_CRASH_SEED").map_or(1 << 40, |s| s.parse().unwrap());
    seeded(seed, run_long);
    seeded(seed, run_small);
}
