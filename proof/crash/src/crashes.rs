//! Crashes of incarnations and of recoveries at random moments, and what must come of each.

use super::drain::Drain;
use super::oracle::{Crash, Expected, Found, Oracle};
use super::program::{Left, Lived, Program};
use super::*;
use walchan_medium::{Choice, Film};

impl Program {
    /// Crashes an incarnation at random moments, each a few times, and checks each; gives one of them.
    pub(super) fn crash(&mut self, lived: &Lived, moments: u64) -> Left {
        let Lived { oracle, medium, .. } = lived;
        let mut film = medium.film();
        let (from, end) = (lived.recovered, film.end());
        let mut chosen: Vec<usize> = (0..moments)
            .map(|_| from + self.rng.below((end - from + 1) as u64) as usize)
            .collect();
        chosen.push(end);
        chosen.sort_unstable();
        let last = chosen[self.rng.below(chosen.len() as u64) as usize];
        // Both checkpoint pages may be half stored, where nothing is promised.
        let kills_only = oracle.word_by_word && oracle.mode == Mode::FlushOnly;
        let mut left = None;
        for moment in chosen {
            film.advance_to(moment);
            let durable = |part| film.durable_moment_of(part);
            if !kills_only {
                let cut = oracle.expect(moment, durable, Crash::PowerCut);
                for _ in 0..4 {
                    let choices = random_choices(&film, &mut self.rng);
                    let found = self.drain(&film.show(&choices));
                    cut.check(&found);
                }
            }
            if kills_only || self.rng.chance(50) {
                let kill = oracle.expect(moment, durable, Crash::Kill);
                let found = self.drain(&Simulated::new(film.live().to_vec()));
                kill.check(&found);
            }
            self.tally.sampled += 1;
            if moment == last && left.is_none() {
                left = Some(self.leave(oracle, &mut film, kills_only));
            }
        }
        left.expect("one of them was the last")
    }

    /// What the next incarnation begins with: a crash of any kind now; its recovery is crashed as well.
    fn leave(&mut self, oracle: &Oracle, film: &mut Film, kills_only: bool) -> Left {
        let moment = film.moment();
        let durable = |part| film.durable_moment_of(part);
        let random = |rng: &mut Rng| film.image(|_, values| rng.below(values as u64) as usize);
        let kill = kills_only || self.rng.chance(55);
        let (medium, crash, same_boot) = if !kill {
            (
                Simulated::new(random(&mut self.rng)),
                Crash::PowerCut,
                false,
            )
        } else if oracle.failed && !kills_only {
            // The cache shows what the disk may lack, and will not get by itself.
            (self.behind_the_cache(film), Crash::Kill, true)
        } else if kills_only || self.rng.chance(30) {
            (Simulated::new(film.live().to_vec()), Crash::Kill, false)
        } else {
            (film.in_the_same_boot(), Crash::Kill, true)
        };
        let found = self.drain(&medium.copied());
        oracle.expect(moment, durable, crash).check(&found);
        // Until a sync of the recovery the disk may hold less than the cache shows.
        let cut = (kill && !kills_only).then(|| oracle.expect(moment, durable, Crash::PowerCut));
        if self.rng.chance(60) {
            self.crash_recovery(&medium, &found, cut.as_ref(), 2);
        }
        Left {
            sent: oracle.carried(&found),
            medium,
            found,
            half_stored: same_boot && (oracle.word_by_word || oracle.half_stored_before),
        }
    }

    /// Crashes a recovery at random moments, and the one after it, and so on. What is found stays found;
    /// before the first sync of a recovery in the boot of the incarnation, `before` says what is to be found.
    /// After a failed sync what was acknowledged can still come back then, until the new head is durable.
    pub(super) fn crash_recovery(
        &mut self,
        start: &Simulated,
        found: &Found,
        before: Option<&Expected<'_>>,
        depth: u32,
    ) {
        let medium = start.copied();
        let (from, stale) = (medium.moment(), medium.is_stale());
        if self.rng.chance(10) {
            medium.fail_syncs_after(self.rng.below(4));
        } else {
            medium.fail_syncs_after(None);
        }
        let recovered = self.recover(&medium);
        judge_open(&medium, &recovered);
        let mut film = medium.film();
        let end = film.end();
        let again = from + self.rng.below((end - from + 1) as u64) as usize;
        for moment in from..=end {
            film.advance_to(moment);
            if moment != again && !self.rng.chance(30) {
                continue;
            }
            let synced = match &self.shape {
                None => film.durable_moment() >= from && film.durable_moment() > 0,
                Some(_) => recovered.is_ok() && moment == end,
            };
            let is_final = synced && (!stale || film.syncs_since(from) > 1);
            let before = before.filter(|_| !is_final);
            let choices = random_choices(&film, &mut self.rng);
            let cut = self.drain(&film.show(&choices));
            check_again(found, &cut, before);
            let lost = found.messages.iter().find(|m| !cut.has(m.id));
            assert!(!synced || lost.is_none(), "recovered and lost: {lost:?}");
            self.tally.sampled += 1;
            if moment == again && depth > 0 {
                if recovered.is_err() && moment == end {
                    let medium = self.behind_the_cache(&film);
                    self.crash_recovery(&medium, found, before, depth - 1);
                } else if self.rng.chance(40) {
                    let medium = film.in_the_same_boot();
                    check_again(found, &self.drain(&medium.copied()), None);
                    self.crash_recovery(&medium, found, before, depth - 1);
                } else {
                    let medium = film.show(&choices).killed();
                    self.crash_recovery(&Simulated::new(medium), &cut, None, depth - 1);
                }
            }
        }
    }

    /// What a failed sync leaves: the cache shows what the disk may lack, and will not get by itself. That
    /// names are lost is another story.
    fn behind_the_cache(&mut self, film: &Film) -> Simulated {
        let names = self.shape.map_or(0, |shape| shape.geometry().names().len);
        let rng = &mut self.rng;
        let disk = film.image(|sector, values| {
            if sector * SECTOR_LEN < names {
                values - 1
            } else {
                rng.below(values as u64) as usize
            }
        });
        Simulated::with_cache(disk, film.live().to_vec())
    }

    /// Opens what is there, and does nothing with it.
    pub(super) fn recover(&mut self, medium: &Simulated) -> Result<(), Error> {
        match &self.shape {
            None => recover(medium, self.capacity, &mut self.rng).map(drop),
            Some(shape) => {
                let mode = Mode::PerSend;
                Life::chained(medium.clone(), shape, mode, ACCEPT, &mut self.rng).map(drop)
            }
        }
    }

    pub(super) fn drain(&mut self, medium: &Simulated) -> Found {
        self.tally.images += 1;
        Drain {
            rng: &mut self.rng,
            book: &mut self.book,
            capacity: self.capacity,
            shape: self.shape.as_ref(),
        }
        .run(medium)
    }
}

/// A recovery was crashed: it finds what the one before found.
pub(super) fn check_again(found: &Found, again: &Found, before: Option<&Expected<'_>>) {
    match before {
        Some(before) => before.check_messages(again),
        None => assert!(again.is_as(found), "first {found:?}, then {again:?}"),
    }
}

fn judge_open(medium: &Simulated, recovered: &Result<(), Error>) {
    match recovered {
        Ok(_) => assert!(!medium.has_failed()),
        Err(error) => assert!(medium.has_ever_failed(), "{error}"),
    }
}

/// A random value for each sector; often one sector ahead of all others, or behind.
pub(super) fn random_choices(film: &Film, rng: &mut Rng) -> Vec<Choice> {
    let open: Vec<(u64, usize)> = film.open_now().collect();
    let special = rng.below(open.len() as u64 + 1) as usize;
    let kind = rng.below(6);
    let choice = |(nth, (sector, values)): (usize, (u64, usize))| {
        let value = match kind {
            0 => 0,
            1 => values - 1,
            2 => (values - 1) * usize::from(nth == special),
            3 => (values - 1) * usize::from(nth != special),
            _ => rng.below(values as u64) as usize,
        };
        Choice { sector, value }
    };
    open.into_iter().enumerate().map(choice).collect()
}
