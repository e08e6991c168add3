//! Random programs: lives of random steps, each ended by a close or a crash.

use super::oracle::{Found, Oracle, Sent};
use super::world::{Book, Habits, Producer, World};
use super::*;
use crate::durability::timer::SENT;
use crate::sync::{Mutex, MutexGuard};
use std::sync::Arc;
use std::time::Duration;

/// What was done for a seed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) images: u64,
    /// Moments of which every image was opened, and those of which some were.
    pub(super) exhausted: u64,
    pub(super) sampled: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.images += other.images;
        self.exhausted += other.exhausted;
        self.sampled += other.sampled;
    }
}

/// What a crash left, and what is in it.
pub(super) struct Left {
    pub(super) medium: Simulated,
    pub(super) found: Found,
    /// Of the messages, what is known of them.
    pub(super) sent: Vec<Sent>,
}

/// A life that was lived.
pub(super) struct Lived {
    pub(super) oracle: Oracle,
    pub(super) medium: Simulated,
    /// The moment at which recovery was done.
    pub(super) recovered: usize,
}

pub(super) struct Program {
    pub(super) rng: Rng,
    pub(super) capacity: u64,
    pub(super) book: Book,
    pub(super) tally: Tally,
}

type Shared = Arc<Mutex<World>>;

fn locked(world: &Shared) -> MutexGuard<'_, World> {
    world.lock()
}

/// `Ok` and a failed sync exclude each other.
fn judge<T, E: std::fmt::Debug>(medium: &Simulated, outcome: Result<T, E>) -> Option<T> {
    match outcome {
        Ok(value) => {
            assert!(!medium.has_failed(), "Ok after a failed sync");
            Some(value)
        }
        Err(error) => {
            assert!(medium.has_failed(), "{error:?}");
            None
        }
    }
}

impl Program {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let capacity = match rng.below(12) {
            11 => 16 * 1024,
            n => 512 << (n % 4),
        };
        let book = Book {
            numbers: vec![0; 1 + rng.below(4) as usize],
            ..Book::default()
        };
        Program {
            rng,
            capacity,
            book,
            tally: Tally::default(),
        }
    }

    pub(super) fn mode(&mut self) -> Mode {
        match self.rng.below(6) {
            0 | 1 => Mode::PerSend,
            2 | 3 => Mode::FlushOnly,
            _ => Mode::Every {
                max_ops: 1 + self.rng.below(9),
                max_delay: Duration::MAX,
            },
        }
    }

    /// What there is before the first life.
    pub(super) fn beginning(&mut self) -> Left {
        Left {
            medium: Simulated::new(new_image(self.capacity, &mut self.rng)),
            found: Found::default(),
            sent: Vec::new(),
        }
    }

    /// Short lives, each killed with one message more in the file, so that the table has several sectors.
    pub(super) fn beginning_of_many_lives(&mut self) -> Left {
        self.capacity = self.capacity.max(2048);
        let Left {
            mut medium,
            mut sent,
            ..
        } = self.beginning();
        for number in 0..16 + self.rng.below(24) {
            let life = Life::open(medium, self.capacity, Mode::FlushOnly, &mut self.rng);
            let life = life.unwrap_or_else(|e| panic!("{e}"));
            let payload = number.to_le_bytes().to_vec();
            let id = life.send(&payload).unwrap();
            self.book.give(id);
            sent.push(Sent::by_one_call(id, 0, number, payload, (0, 0)));
            self.book.numbers[0] = number + 1;
            medium = Simulated::new(life.medium.killed());
        }
        let found = self.drain(&medium.copied());
        assert_eq!(found.messages.len(), sent.len());
        Left {
            medium,
            found,
            sent,
        }
    }

    /// Opens what was left, and lives on with at most so many random steps.
    pub(super) fn live(&mut self, left: Left, most: u64) -> Lived {
        let Left { medium, sent, .. } = left;
        let mode = self.mode();
        let bound = self.rng.chance(25).then(|| 1 + self.rng.below(8) as usize);
        // No more than the bound is promised only of a life that begins with fewer.
        let checked = bound.filter(|bound| sent.len() < *bound);
        let life = Life::bounded(medium.clone(), self.capacity, mode, bound, &mut self.rng);
        let life = life.unwrap_or_else(|e| panic!("{e}"));
        let recovered = medium.moment();
        if self.rng.chance(8) {
            medium.fail_syncs_after(self.rng.below(6));
        }
        let habits = Habits {
            patience: [0, 0, 2, 6, 12][self.rng.below(5) as usize],
            payload_max: life.channel.log().ring().layout().payload_len_max(),
            bound: checked,
        };
        let (book, rng) = (std::mem::take(&mut self.book), Rng(self.rng.next()));
        let mut world = World::new(life, sent, mode, book, habits, rng);
        if world.rng.chance(20) {
            medium.store_word_by_word();
            world.oracle.word_by_word = true;
        }
        let channel = Arc::clone(&world.channel);
        let world = Arc::new(Mutex::new(world));
        // Some fill the ring, some keep it empty.
        let (syncs, claims) = (10 + self.rng.below(50), 30 + self.rng.below(60));
        for _ in 0..self.rng.below(most) {
            if self.rng.chance(syncs) {
                if self.rng.chance(claims) {
                    self.claim(&world, &medium, &channel);
                } else {
                    self.sync(&world, &medium, &channel);
                }
            } else {
                locked(&world).step();
            }
            medium.nothing_during_syncs();
        }
        if self.rng.chance(25) {
            self.finish(&world, &medium, &channel);
        }
        medium.nothing_during_syncs();
        let mut world = locked(&world);
        self.book = std::mem::take(&mut world.book);
        let mut oracle = Oracle {
            sent: std::mem::take(&mut world.oracle.sent),
            ..world.oracle
        };
        oracle.failed = medium.has_failed();
        Lived {
            oracle,
            medium,
            recovered,
        }
    }

    /// Others go on while the next sync runs, sometimes.
    fn arm(&mut self, world: &Shared, medium: &Simulated) {
        if !self.rng.chance(40) {
            return;
        }
        let (world, steps) = (Arc::clone(world), 1 + self.rng.below(6));
        medium.during_next_sync(move || {
            let mut world = locked(&world);
            for _ in 0..steps {
                world.step_in_sync();
            }
        });
    }

    /// A producer claims, or sends.
    fn claim(&mut self, world: &Shared, medium: &Simulated, channel: &Channel<Ring>) {
        let log = channel.log();
        if log.claim_would_wait() {
            return;
        }
        let (producer, payload, per_send, open) = {
            let mut world = locked(world);
            let Some(producer) = world.any(|p| matches!(p, Producer::Idle)) else {
                return;
            };
            let len = world.payload_len();
            let payload = world.next_payload(producer, len);
            let per_send = world.oracle.mode == Mode::PerSend;
            (producer, payload, per_send, world.first_open() < u64::MAX)
        };
        let len = payload.len() as u64;
        let waits = matches!(log.mode(), Mode::Every { .. });
        if self.rng.chance(30) && !(per_send && open) {
            self.send(world, medium, channel, (producer, payload));
            return;
        }
        // Under `Every` a claim that came meanwhile could have the permit that this one waits for.
        if !waits {
            self.arm(world, medium);
        }
        locked(world).producers[producer] = Producer::Claiming;
        let outcome = log.claim_step(len);
        let world = &mut locked(world);
        world.producers[producer] = Producer::Idle;
        let Some(Some(claim)) = judge(medium, outcome) else {
            return;
        };
        let index = world.note_claim(producer, claim, payload);
        world.producers[producer] = Producer::Claimed(index, claim);
    }

    /// The same in one call, as users do.
    fn send(
        &mut self,
        world: &Shared,
        medium: &Simulated,
        channel: &Channel<Ring>,
        (producer, payload): (usize, Vec<u8>),
    ) {
        let ring = channel.log().ring();
        let (from, start) = (medium.moment(), ring.tail());
        let outcome = channel.send(&Slot::new(), &[IoSlice::new(&payload)], Wait::No);
        let ok = match &outcome {
            Ok(_) => true,
            Err(SendFailure::Unsynced(_)) => false,
            Err(SendFailure::Full) => return,
            Err(SendFailure::Io(_)) => return assert!(medium.has_failed()),
            Err(other) => panic!("{other:?}"),
        };
        let end = ring.tail();
        let len = payload.len() as u32;
        let position = end - crate::format::frame::frame_len(u64::from(len));
        assert!(outcome.is_err() || outcome.is_ok_and(|id| id.position() == position));
        let claim = crate::ring::SetAside {
            start,
            position,
            len,
        };
        let world = &mut locked(world);
        let index = world.note_claim(producer, claim, payload);
        world.note_send(index, from, ok);
    }

    /// A step that syncs, and that no open claim can keep waiting.
    fn sync(&mut self, world: &Shared, medium: &Simulated, channel: &Channel<Ring>) {
        let log = channel.log();
        let open = locked(world).first_open();
        let nobody_claims = open == u64::MAX;
        self.arm(world, medium);
        match self.rng.below(12) {
            0..6 => {
                let mut shared = locked(world);
                let Some(producer) = shared.any(|p| matches!(p, Producer::Published(_))) else {
                    return;
                };
                let Producer::Published(index) = shared.producers[producer] else {
                    return;
                };
                let end = shared.oracle.sent[index].end;
                drop(shared);
                if open < end {
                    return;
                }
                let outcome = log.commit_step(end);
                let mut shared = locked(world);
                match judge_late(medium, outcome) {
                    Some(()) => shared.returned(producer),
                    // It returned `Unsynced`.
                    None => shared.producers[producer] = Producer::Idle,
                }
            }
            6 | 7 if nobody_claims => {
                judge(medium, channel.sync_sent());
            }
            8 => {
                judge(medium, channel.sync_progress());
            }
            9 if nobody_claims => drop(log.on_timer(SENT)),
            10 => log.on_timer(PROGRESS).unwrap_or(()),
            _ => {}
        }
    }

    /// Closes in order: every send returns before that.
    fn finish(&mut self, world: &Shared, medium: &Simulated, channel: &Channel<Ring>) {
        while locked(world).first_open() < u64::MAX {
            let mut world = locked(world);
            if world.rng.chance(80) {
                world.publish();
            } else {
                world.abandon();
            }
        }
        loop {
            let mut shared = locked(world);
            let Some(producer) = shared.any(|p| matches!(p, Producer::Published(_))) else {
                break;
            };
            let Producer::Published(index) = shared.producers[producer] else {
                break;
            };
            let end = shared.oracle.sent[index].end;
            let outcome = channel.log().commit_step(end);
            match judge_late(medium, outcome) {
                Some(()) => shared.returned(producer),
                None => shared.producers[producer] = Producer::Idle,
            }
        }
        if judge(medium, channel.log().finish()).is_some() {
            locked(world).oracle.finished = Some(medium.moment());
        }
    }
}

/// As `judge`, where the sync that counts may have been made before the one that failed.
fn judge_late<T, E: std::fmt::Debug>(medium: &Simulated, outcome: Result<T, E>) -> Option<T> {
    match outcome {
        Ok(value) => Some(value),
        Err(error) => {
            assert!(medium.has_failed(), "{error:?}");
            None
        }
    }
}
