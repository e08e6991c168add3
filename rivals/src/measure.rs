//! Runs contenders in turn, and gives their rates by round.
//!
//! A figure is a median over the rounds; a ratio is formed within each round, and then its median taken, so
//! that what slows a machine down for a second slows down both.

use crate::place::Place;
use std::path::Path;
use std::time::Duration;

/// How long, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub rounds: usize,
    /// What one run should take.
    pub run: Duration,
    /// Runs that only find out how many messages that is.
    pub rehearsals: usize,
}

impl Pace {
    pub const FULL: Pace = Pace {
        rounds: 9,
        run: Duration::from_millis(500),
        rehearsals: 3,
    };
    pub const QUICK: Pace = Pace {
        rounds: 3,
        run: Duration::from_millis(120),
        rehearsals: 2,
    };

    pub fn is_quick(&self) -> bool {
        self.rounds < Self::FULL.rounds
    }
}

/// One run: so many messages, files in that directory. Checks what arrived; gives the time.
type Run<'a> = Box<dyn Fn(u64, &Path) -> Duration + 'a>;

/// One that takes part.
pub struct Contender<'a> {
    pub name: String,
    /// It sends a multiple of this.
    multiple: u64,
    /// And no more than this.
    most: u64,
    run: Run<'a>,
}

impl std::fmt::Debug for Contender<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contender")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl<'a> Contender<'a> {
    pub fn new(
        name: impl Into<String>,
        producers: u64,
        run: impl Fn(u64, &Path) -> Duration + 'a,
    ) -> Self {
        Contender {
            name: name.into(),
            multiple: producers,
            most: u64::MAX,
            run: Box::new(run),
        }
    }

    /// No run has more messages.
    pub fn at_most(self, most: u64) -> Self {
        Contender { most, ..self }
    }

    fn messages(&self, about: f64) -> u64 {
        let about = (about as u64).min(self.most);
        (about / self.multiple).max(1) * self.multiple
    }
}

/// The figures of some contenders: one for each round.
#[derive(Debug)]
pub struct Figures {
    pub names: Vec<String>,
    pub by_round: Vec<Vec<f64>>,
}

impl Figures {
    /// In each round the highest of those named by index.
    pub fn highest_of(&self, contenders: &[usize]) -> Vec<f64> {
        let rounds = 0..self.by_round[0].len();
        let highest = |round: usize| {
            let figures = contenders.iter().map(|&who| self.by_round[who][round]);
            figures.fold(f64::NEG_INFINITY, f64::max)
        };
        rounds.map(highest).collect()
    }
}

/// Messages per second of each. The first guess is `messages`.
pub fn rates(place: &Place, pace: &Pace, contenders: &[Contender<'_>], messages: u64) -> Figures {
    let once = |contender: &Contender<'_>, n: u64| {
        let dir = place.fresh();
        (contender.run)(n, dir.path()).as_secs_f64()
    };
    let aim = pace.run.as_secs_f64();
    // The first runs are slow in their own ways, so the fastest counts.
    let rehearse = |contender: &Contender<'_>| {
        let (mut n, mut fastest) = (contender.messages(messages as f64), 0.0f64);
        for _ in 0..pace.rehearsals {
            fastest = fastest.max(n as f64 / once(contender, n));
            // No more than ten times as many: a guess from a short run may be far off.
            n = contender.messages((fastest * aim).min(n as f64 * 10.0));
        }
        n
    };
    let mut counts: Vec<u64> = contenders.iter().map(rehearse).collect();
    let mut by_round = vec![Vec::new(); contenders.len()];
    for round in 0..pace.rounds {
        for who in order(round, contenders.len()) {
            let contender = &contenders[who];
            let mut seconds = once(contender, counts[who]);
            for _ in 0..3 {
                let more = contender.messages(counts[who] as f64 * 2.0);
                if seconds >= aim / 2.0 || more == counts[who] {
                    break;
                }
                counts[who] = more;
                seconds = once(contender, more);
            }
            by_round[who].push(counts[who] as f64 / seconds);
        }
    }
    let names = contenders.iter().map(|c| c.name.clone()).collect();
    Figures { names, by_round }
}

/// Back and forth, so that nobody runs always behind the same one.
pub fn order(round: usize, contenders: usize) -> Vec<usize> {
    let forth = 0..contenders;
    if round.is_multiple_of(2) {
        forth.collect()
    } else {
        forth.rev().collect()
    }
}

pub fn median(figures: &[f64]) -> f64 {
    let mut figures = figures.to_vec();
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    if figures.len() % 2 == 1 {
        figures[middle]
    } else {
        (figures[middle - 1] + figures[middle]) / 2.0
    }
}

pub fn lowest(figures: &[f64]) -> f64 {
    figures.iter().copied().fold(f64::INFINITY, f64::min)
}

pub fn highest(figures: &[f64]) -> f64 {
    figures.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}
