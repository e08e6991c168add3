//! Random programs: incarnations of random steps, each ended by a close or a crash.

use super::oracle::{Found, Oracle, Sent};
use super::places::{Fault, Shape};
use super::world::{Book, Habits, Producer, World};
use super::*;
use std::sync::Arc;
use std::time::Duration;
use walchan_core::commit::timer::SENT;
use walchan_core::sync::{Mutex, MutexGuard};

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
    /// The disk may hold pages of segments half stored, where the cache shows them whole: those of a complete
    /// file stay so until the receiver comes to it.
    pub(super) half_stored: bool,
}

/// An incarnation that has run.
pub(super) struct Lived {
    pub(super) oracle: Oracle,
    pub(super) medium: Simulated,
    /// The moment at which recovery was done.
    pub(super) recovered: usize,
}

pub(super) struct Program {
    pub(super) rng: Rng,
    /// Of the ring.
    pub(super) capacity: u64,
    /// It has segments.
    pub(super) shape: Option<Shape>,
    pub(super) book: Book,
    pub(super) tally: Tally,
}

type Shared<F> = Arc<Mutex<World<F>>>;

fn locked<F: Files<Memory = Simulated>>(world: &Shared<F>) -> MutexGuard<'_, World<F>> {
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
            // `Fault::Stays`: the channel could not remove a file when it ended.
            let stays = format!("{error:?}").contains("Too many open files");
            assert!(medium.has_ever_failed() || stays, "{error:?}");
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
            shape: None,
            book,
            tally: Tally::default(),
        }
    }

    /// The same with segments.
    pub(super) fn chained(seed: u64) -> Self {
        let mut program = Program::new(seed);
        let rng = &mut program.rng;
        let ring = 512 << rng.below(3);
        let capacity_min = 512 << rng.below(2);
        let capacity_max = capacity_min << rng.below(2);
        let place_max = 4096;
        // All files together may be limited, by the options or by the disk.
        let headers = walchan_core::format::HEADER_LEN * 4;
        let bytes_max = rng
            .chance(25)
            .then(|| headers + ring + 3 * 512 + rng.below(4096));
        program.capacity = ring;
        program.shape = Some(Shape {
            ring,
            capacity_min,
            capacity_max,
            bytes_max,
            places: 4 + rng.below(4),
            place_max,
        });
        program
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

    /// What there is before the first incarnation.
    pub(super) fn beginning(&mut self) -> Left {
        let image = match &self.shape {
            Some(shape) => shape.new_disk(&mut self.rng),
            None => new_image(self.capacity, &mut self.rng),
        };
        Left {
            medium: Simulated::new(image),
            found: Found::default(),
            sent: Vec::new(),
            half_stored: false,
        }
    }

    /// Short incarnations, each killed with one message more in the file, so that the table has several
    /// sectors.
    pub(super) fn beginning_of_many_incarnations(&mut self) -> Left {
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
            half_stored: false,
        }
    }

    /// Opens what was left, and goes on with at most so many random steps.
    pub(super) fn live(&mut self, left: Left, most: u64) -> Lived {
        let Left {
            medium,
            sent,
            half_stored,
            ..
        } = left;
        let mode = self.mode();
        if let Some(shape) = self.shape {
            let life = Life::chained(medium, &shape, mode, ACCEPT, &mut self.rng);
            let life = life.unwrap_or_else(|e| panic!("{e}"));
            if self.rng.chance(15) {
                let faults = [Fault::Unnamed, Fault::Named, Fault::Stays];
                let fault = faults[self.rng.below(3) as usize];
                life.places().fail_next(fault);
            }
            let payload_max = shape.payload_max();
            let mut lived = self.live_in(life, sent, mode, (payload_max, None), most);
            lived.oracle.half_stored_before = half_stored;
            return lived;
        }
        let bound = self.rng.chance(25).then(|| 1 + self.rng.below(8) as usize);
        // No more than the bound is promised only of an incarnation that begins with fewer.
        let checked = bound.filter(|bound| sent.len() < *bound);
        let life = Life::bounded(medium, self.capacity, mode, bound, &mut self.rng);
        let life = life.unwrap_or_else(|e| panic!("{e}"));
        let payload_max = life.channel.log().ring().layout().payload_len_max();
        self.live_in(life, sent, mode, (payload_max, checked), most)
    }

    fn live_in<F: Files<Memory = Simulated>>(
        &mut self,
        life: Life<F>,
        sent: Vec<Sent>,
        mode: Mode,
        (payload_max, bound): (u64, Option<usize>),
        most: u64,
    ) -> Lived {
        let medium = life.medium.clone();
        let recovered = medium.moment();
        if self.rng.chance(8) {
            medium.fail_syncs_after(self.rng.below(6));
        }
        let habits = Habits {
            patience: [0, 0, 2, 6, 12][self.rng.below(5) as usize],
            payload_max,
            bound,
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
        oracle.failed |= medium.has_ever_failed();
        Lived {
            oracle,
            medium,
            recovered,
        }
    }

    /// Others go on while the next sync runs, sometimes.
    /// Without `claims` nobody claims: what goes on to the next file would wait for that.
    fn arm<F: Files<Memory = Simulated>>(
        &mut self,
        world: &Shared<F>,
        medium: &Simulated,
        claims: bool,
    ) {
        if !self.rng.chance(40) {
            return;
        }
        let (world, steps) = (Arc::clone(world), 1 + self.rng.below(6));
        medium.during_next_sync(move || {
            let mut world = locked(&world);
            for _ in 0..steps {
                world.step_in_sync(claims);
            }
        });
    }

    /// A producer claims, or sends.
    fn claim<F: Files<Memory = Simulated>>(
        &mut self,
        world: &Shared<F>,
        medium: &Simulated,
        channel: &Channel<F>,
    ) {
        let log = channel.chain().active();
        let waits = matches!(log.mode(), Mode::Every { .. });
        if steps::claim_would_wait(&log) || (waits && locked(world).is_behind()) {
            return;
        }
        let (producer, payload, per_send, open) = {
            let mut world = locked(world);
            let Some(producer) = world.any(|p| matches!(p, Producer::Idle)) else {
                return;
            };
            let len = world.payload_len();
            let payload = world.next_payload(producer, len);
            // What seals a file, and commits the next one, waits for whoever has a claim there.
            let waits = waits && self.shape.is_some() || world.oracle.mode == Mode::PerSend;
            (producer, payload, waits, world.first_open() < u64::MAX)
        };
        let len = payload.len() as u64;
        if self.rng.chance(30) && !(per_send && open) {
            self.send(world, medium, channel, (producer, payload));
            return;
        }
        if len > log.ring().layout().payload_len_max() {
            return;
        }
        // Under `Every` a claim that came meanwhile could have the permit that this one waits for.
        if !waits {
            self.arm(world, medium, true);
        }
        locked(world).producers[producer] = Producer::Claiming;
        let outcome = steps::claim(&log, len);
        let world = &mut locked(world);
        world.producers[producer] = Producer::Idle;
        if let Err(SendFailure::Sealed | SendFailure::TooLarge { .. }) = outcome {
            return;
        }
        let Some(Some(claim)) = judge(medium, outcome) else {
            return;
        };
        let index = world.note_claim(producer, claim.place(), &log, payload);
        world.producers[producer] = Producer::Claimed(index, claim);
    }

    /// The same in one call, as users do.
    fn send<F: Files<Memory = Simulated>>(
        &mut self,
        world: &Shared<F>,
        medium: &Simulated,
        channel: &Channel<F>,
        (producer, payload): (usize, Vec<u8>),
    ) {
        let before = channel.chain().active();
        let (from, start) = (medium.moment(), before.ring().tail());
        let outcome = channel.send(&CurrentSegment::new(), &[IoSlice::new(&payload)], Wait::No);
        let ok = match &outcome {
            Ok(_) => true,
            Err(SendFailure::Unsynced(_)) => false,
            Err(SendFailure::Full) => return,
            Err(SendFailure::TooLarge { .. }) if self.shape.is_some() => return,
            // No file could be made.
            Err(SendFailure::Io(_)) if channel.shared().check().is_ok() => {
                return assert!(self.shape.is_some());
            }
            Err(SendFailure::Io(_)) => return assert!(medium.has_failed()),
            Err(other) => panic!("{other:?}"),
        };
        let log = match &outcome {
            Ok(end) => channel
                .chain()
                .log_at(end - frame_len(payload.len() as u64)),
            Err(_) => None,
        };
        let log = log.unwrap_or_else(|| {
            let active = channel.chain().active();
            let is_empty = active.ring().head() == active.ring().tail();
            if is_empty {
                Arc::clone(&before)
            } else {
                active
            }
        });
        let ring = log.ring();
        // Behind a seal it begins where its file does.
        let is_next = !Arc::ptr_eq(&log, &before);
        let start = if is_next { ring.head() } else { start };
        let end = ring.tail();
        let len = payload.len() as u32;
        let position = end - frame_len(u64::from(len));
        assert!(outcome.is_err() || outcome.is_ok_and(|sent| sent == end));
        let claim = steps::Claimed {
            start,
            position,
            len,
        };
        let world = &mut locked(world);
        let index = world.note_claim(producer, claim, &log, payload);
        world.note_send(index, from, ok);
    }

    /// A step that syncs, and that no open claim can keep waiting.
    fn sync<F: Files<Memory = Simulated>>(
        &mut self,
        world: &Shared<F>,
        medium: &Simulated,
        channel: &Channel<F>,
    ) {
        let (open, is_behind) = {
            let world = locked(world);
            (world.first_open(), world.is_behind())
        };
        let nobody_claims = open == u64::MAX;
        let kind = self.rng.below(12);
        self.arm(world, medium, self.shape.is_none() || kind < 6);
        match kind {
            0..6 => {
                let mut shared = locked(world);
                let Some((producer, end, log)) = shared.published() else {
                    return;
                };
                drop(shared);
                if open < end {
                    return;
                }
                let outcome = log.make_durable(end);
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
            8 if !is_behind => {
                judge(medium, channel.sync_progress());
            }
            9 if nobody_claims => drop(channel.chain().on_timer(SENT)),
            10 if !is_behind => channel.chain().on_timer(PROGRESS).unwrap_or(()),
            11 if nobody_claims && self.shape.is_some() => {
                let flags = channel.shared().housekeeper.flags();
                let tended = channel.chain().on_housekeeper(flags);
                // What it could not do ahead of need is no error of its own.
                judge(medium, tended.and_then(|()| channel.shared().check()));
            }
            _ => {}
        }
    }

    /// Closes in order: every send returns before that.
    fn finish<F: Files<Memory = Simulated>>(
        &mut self,
        world: &Shared<F>,
        medium: &Simulated,
        channel: &Channel<F>,
    ) {
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
            let Some((producer, end, log)) = shared.published() else {
                break;
            };
            let outcome = log.make_durable(end);
            match judge_late(medium, outcome) {
                Some(()) => shared.returned(producer),
                None => shared.producers[producer] = Producer::Idle,
            }
        }
        let finished = judge(medium, channel.chain().finish());
        // Where a name stayed that was not to be, the file before it can look as if it went on there.
        if finished.is_some() && !channel.chain().has_stray_name() {
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
