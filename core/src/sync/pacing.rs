//! Pacing: how long a thread looks, spins, gives way or waits before it sleeps, and how far one side lets the
//! other get ahead.
//!
//! Nothing here is needed for correctness. Each heuristic is worth its lines on the workload that is named
//! beside it; `cargo xtask pacing` measures that workload with it and without it, and `docs/performance.md`
//! has the figures. What is not worth 5 % there does not stay.
//!
//! | heuristic | what it does |
//! |---|---|
//! | [`ReceiverLead`] | a receiver that finds nothing lets the senders get ahead before it looks again |
//! | [`Batch`] | a sender that found no room does not take back the first place that comes free, but waits for many |
//! | [`room_backoff`] | a sender without room looks again a few times before it sleeps |
//! | [`readable_looks`] | a receiver without a message does, too |
//! | [`Group::gather`] | the leader of a round waits for the senders that the last sync released |
//! | [`Group::give_way`] | a sender that waits for a sync lets the others run before it sleeps, where they are many |
//! | [`progress_grace`] | acknowledgements wait a little for a send whose sync takes them along |
//!
//! In models there is no pacing: what it delays is one interleaving more.

use super::{AtomicU64, IS_MODEL, Ordering, pause, yield_now};
use crate::planted::left_out;
use std::time::{Duration, Instant};

// === A receiver without a message ===

/// How far a receiver lets senders get ahead before it looks again.
///
/// A receiver that is faster than the senders takes each message as soon as it is there, and with that the
/// cache line that the next one is being written to: both lose, up to four fifths of their speed. So it
/// pauses twice as long each time, as long as messages come fast enough to be worth that, and half as long
/// where they do not, or where they are many. A look that finds nothing begins again.
#[derive(Debug, Default)]
pub struct ReceiverLead {
    /// Turns of the last pause.
    turns: u32,
    /// Messages received when the last pause began.
    received: u64,
}

impl ReceiverLead {
    /// Turns of a spinning processor (25 to 45 nanoseconds each) that a message is worth.
    const TURNS_A_MESSAGE: u64 = 16;
    /// The longest pause: 6 to 12 microseconds.
    const TURNS_MAX: u32 = 256;
    /// So many messages from one pause to the next are more than it takes.
    const MANY: u64 = 256;

    /// Pauses; `received` counts the messages received so far. `false`: this channel is too small for anybody
    /// to get ahead.
    pub fn pause(&mut self, received: u64, is_large: bool) -> bool {
        if !is_large || left_out!("receiver_lead") {
            return false;
        }
        let since = received.wrapping_sub(self.received);
        let is_worth = since.saturating_mul(Self::TURNS_A_MESSAGE) >= u64::from(self.turns);
        self.turns = if since < Self::MANY && is_worth {
            (self.turns * 2).clamp(1, Self::TURNS_MAX)
        } else {
            self.turns / 2
        };
        self.received = received;
        pause(self.turns);
        true
    }

    /// The look behind the pause found nothing.
    pub fn found_nothing(&mut self) {
        self.turns = 0;
    }
}

/// Looks of a receiver, ever more slowly, before it announces that it sleeps: the sender may be at work.
#[must_use]
pub fn readable_looks() -> u32 {
    match IS_MODEL || left_out!("readable_looks") {
        true => 0,
        false => 10,
    }
}

// === A sender without room ===

/// How much room a sender waits for that found none: where each message makes room for one, both sides fight
/// for every cache line.
#[derive(Debug)]
pub struct Batch;

impl Batch {
    /// Bytes that are enough in a large ring.
    const LEN_MAX: u64 = 16 << 10;

    /// Messages, of a bound.
    #[inline]
    pub fn messages(bound: u64) -> u64 {
        if left_out!("batch") {
            return 1;
        }
        (bound / 16).max(1)
    }

    /// Bytes, of a ring.
    pub fn bytes(capacity: u64) -> u64 {
        if left_out!("batch") {
            return 1;
        }
        (capacity / 16).min(Self::LEN_MAX)
    }
}

/// Whether a channel is large: a receiver takes long to drain it, and a sender without room may look for some
/// rarely.
#[must_use]
pub fn is_large(bound: u64, capacity: u64) -> bool {
    const BOUND: u64 = 512;
    const CAPACITY: u64 = 64 << 10;
    bound >= BOUND && capacity >= CAPACITY
}

/// Waits before each look of a sender for room, before it sleeps: longer where the channel is large.
pub fn room_backoff(is_large: bool) -> impl Iterator<Item = ()> {
    let looks = if IS_MODEL || left_out!("room_backoff") {
        0
    } else {
        8
    };
    (0..looks).map(move |look| match is_large {
        // For some microseconds from the first on.
        true => (0..4).for_each(|_| back_off(look + SPINS_ALONE - 1)),
        false => back_off(look),
    })
}

/// Looks that only spin.
const SPINS_ALONE: u32 = 6;

/// Waits before the next look: twice as long each time, then also for the scheduler.
pub fn back_off(look: u32) {
    if IS_MODEL {
        return;
    }
    pause(1 << look.min(SPINS_ALONE));
    if look > SPINS_ALONE {
        yield_now();
    }
}

// === Senders that share a sync ===

/// The senders that share a sync (group commit), as the leader of the last round saw them.
#[derive(Debug)]
pub struct Group {
    /// Sends that the last round covered, and those that had come meanwhile.
    size: AtomicU64,
    /// Waits that are not to give way before they sleep: others than senders want the processors.
    asleep_at_once: AtomicU64,
}

impl Group {
    /// From so many on, one that gives way finds something new when its turn comes again.
    const CROWD: u64 = 8;
    /// The most that one gives way before it sleeps.
    const YIELDS_MAX: u64 = 64;
    /// A sender that was let go before us is back, asleep or waiting again long before that. Whoever keeps a
    /// processor longer is no sender, and keeps it for as long as the scheduler lets it; a sleeper is woken
    /// before that.
    const YIELD_MAX: Duration = Duration::from_millis(2);
    /// So many waits sleep at once before the next attempt.
    const WAITS_BESIDE_OTHERS: u64 = 1 << 15;
    /// The longest wait for the group: to come back takes senders the time of a processor, not of a disk.
    const GATHER_MAX: Duration = Duration::from_millis(1);

    /// Nobody, yet.
    #[must_use]
    pub fn new() -> Self {
        Group {
            size: AtomicU64::new(0),
            asleep_at_once: AtomicU64::new(0),
        }
    }

    /// Takes note of the group. Only the leader does.
    pub fn set_size(&self, size: u64) {
        // [O:crowd] Relaxed: a guess.
        self.size.store(size, Ordering::Relaxed);
    }

    /// How often a sender that waits for a sync is to give way before it sleeps: whom the last sync released
    /// is then on the way before the next, and nobody has to be woken.
    pub fn yields(&self) -> u64 {
        if IS_MODEL || left_out!("give_way") || self.sleeps_at_once() {
            return 0;
        }
        // [O:crowd] Relaxed: a guess.
        let size = self.size.load(Ordering::Relaxed);
        if size < Self::CROWD {
            return 0;
        }
        size.min(Self::YIELDS_MAX)
    }

    fn sleeps_at_once(&self) -> bool {
        // [O:crowd] Relaxed, both: a guess; that a count is lost to another thread makes it a little longer.
        let left = self.asleep_at_once.load(Ordering::Relaxed);
        if left > 0 {
            // [O:crowd] Relaxed: as above.
            self.asleep_at_once.store(left - 1, Ordering::Relaxed);
        }
        left > 0
    }

    /// Lets the others run. `false`: others than senders want the processors; sleep.
    pub fn give_way(&self) -> bool {
        let began = Instant::now();
        yield_now();
        if began.elapsed() <= Self::YIELD_MAX || left_out!("other_load") {
            return true;
        }
        // [O:crowd] Relaxed: a guess.
        self.asleep_at_once
            .store(Self::WAITS_BESIDE_OTHERS, Ordering::Relaxed);
        false
    }

    /// What the leader waits for before its sync, which costs the same however many sends it covers: the
    /// senders that the last round released, and that come back with their next message. `sync` is what the
    /// last sync took. At most twice that, and half of it where nobody comes. `None`: a lone sender does not
    /// wait at all.
    pub fn gather(&self, sync: Duration) -> Option<(u64, BoundedWait)> {
        // [O:crowd] Relaxed: only the leader writes it.
        let size = self.size.load(Ordering::Relaxed);
        if size < 2 || left_out!("gather") {
            return None;
        }
        Some((size, BoundedWait::new((sync * 2).min(Self::GATHER_MAX))))
    }
}

impl Default for Group {
    fn default() -> Self {
        Group::new()
    }
}

/// Looks again for what others do, as long as they do something; not for ever.
#[derive(Debug)]
pub struct BoundedWait {
    began: Instant,
    last_news: Instant,
    most: Duration,
}

impl BoundedWait {
    /// For `most` at most, and for a quarter of that without news.
    #[must_use]
    pub fn new(most: Duration) -> Self {
        let began = Instant::now();
        BoundedWait {
            began,
            last_news: began,
            most,
        }
    }

    /// Lets others run; `false`: enough. `news`: the last look found some.
    pub fn another(&mut self, news: bool) -> bool {
        if IS_MODEL {
            return false;
        }
        let now = Instant::now();
        if news {
            self.last_news = now;
        }
        if now - self.last_news > self.most / 4 || now - self.began > self.most {
            return false;
        }
        yield_now();
        true
    }
}

// === Acknowledgements that are to become durable ===

/// How long progress waits for a sender's sync to take it along.
#[must_use]
pub fn progress_grace() -> Duration {
    if left_out!("progress_grace") {
        return Duration::ZERO;
    }
    Duration::from_millis(10)
}
