//! Stories of chains: a crash at each of the sites that `docs/segments.md` lists, and those that broke
//! something.

use super::places::{Chained, Fault, Shape};
use super::*;
use std::time::Duration;
use walchan_core::recovery::DamagedFrame;

pub(super) const SHAPE: Shape = Shape {
    ring: 1024,
    capacity_min: 512,
    capacity_max: 1024,
    bytes_max: None,
    places: 8,
    place_max: 4096,
};

fn open(disk: Simulated, mode: Mode, rng: &mut Rng) -> Life<Chained> {
    Life::chained(disk, &SHAPE, mode, ACCEPT, rng).unwrap_or_else(|e| panic!("{e}"))
}

fn fresh(mode: Mode, rng: &mut Rng) -> Life<Chained> {
    let disk = Simulated::new(SHAPE.new_disk(rng));
    open(disk, mode, rng)
}

/// A payload of 48 bytes, so that a frame has 64.
fn numbered(n: u64) -> Vec<u8> {
    [n.to_le_bytes().to_vec(), vec![n as u8; 40]].concat()
}

fn number_of(payload: &[u8]) -> u64 {
    walchan_core::format::get_u64(payload, 0)
}

/// Opens an image, takes out all that is there, and sees that new messages flow and that the ring alone is
/// left.
fn drained(disk: &Simulated, rng: &mut Rng) -> Vec<u64> {
    let mut life = open(disk.clone(), Mode::PerSend, rng);
    let report = life.report.clone();
    let mut damaged = report.damaged().iter();
    assert!(!damaged.any(DamagedFrame::was_durable), "{report}");
    let mut found = Vec::new();
    while let Some(got) = life.receive() {
        let Got::Message { id, payload, .. } = got else {
            panic!("{got:?}")
        };
        life.acknowledge(id);
        found.push(number_of(&payload));
        if rng.chance(30) {
            life.tend().unwrap();
        }
    }
    assert_eq!(report.kept(), found.len() as u64, "{report}");
    let new = numbered(u64::MAX);
    life.send(&new).unwrap();
    let (id, payload) = life.receive_message();
    assert_eq!(payload, new);
    life.acknowledge(id);
    life.channel.chain().finish().unwrap();
    assert_eq!(life.numbers(), [0], "the ring alone");
    found
}

/// Images of power cuts at each moment from `from` on, and of kills, are drained.
fn each_crash(
    medium: &Simulated,
    from: usize,
    samples: u64,
    rng: &mut Rng,
    mut check: impl FnMut(usize, Vec<u64>),
) {
    let mut film = medium.film();
    film.advance_to(from);
    loop {
        for _ in 0..samples {
            let choices = super::crashes::random_choices(&film, rng);
            check(film.moment(), drained(&film.show(&choices), rng));
        }
        check(film.moment(), drained(&film.in_the_same_boot(), rng));
        if film.moment() == film.end() {
            return;
        }
        film.advance();
    }
}

/// Sends `count` messages of 64 bytes, from `first` on.
fn send(life: &Life<Chained>, first: u64, count: u64) {
    for n in first..first + count {
        life.send(&numbered(n)).unwrap();
    }
}

/// Receives so many; gives their ids.
fn take(life: &mut Life<Chained>, count: u64) -> Vec<MessageId> {
    (0..count).map(|_| life.receive_message().0).collect()
}

/// An incarnation under `SyncPerSend`, and its results: when each send and each acknowledgement began and
/// ended.
struct Story {
    life: Life<Chained>,
    first: u64,
    /// Of earlier incarnations: they may be there, or not.
    others: Vec<u64>,
    ids: Vec<MessageId>,
    sent: Vec<(usize, usize)>,
    acknowledged: Vec<Option<(usize, usize)>>,
}

impl Story {
    fn new(rng: &mut Rng) -> Self {
        Story::on(fresh(Mode::PerSend, rng), 0)
    }

    /// Goes on in an incarnation; its first message has this number.
    fn on(life: Life<Chained>, first: u64) -> Self {
        Story {
            life,
            first,
            others: Vec::new(),
            ids: Vec::new(),
            sent: Vec::new(),
            acknowledged: Vec::new(),
        }
    }

    fn moment(&self) -> usize {
        self.life.medium.moment()
    }

    /// Sends so many messages of 64 bytes.
    fn send(&mut self, count: u64) {
        for _ in 0..count {
            self.send_payload(0);
        }
    }

    /// Sends one that is so much longer.
    fn send_payload(&mut self, more: usize) {
        let number = self.first + self.sent.len() as u64;
        let from = self.moment();
        let payload = [numbered(number), vec![1; more]].concat();
        self.ids.push(self.life.send(&payload).unwrap());
        self.sent.push((from, self.moment()));
        self.acknowledged.push(None);
    }

    /// Receives so many.
    fn take(&mut self, count: u64) {
        for _ in 0..count {
            self.life.receive_message();
        }
    }

    fn acknowledge(&mut self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            let index = (number - self.first) as usize;
            let from = self.moment();
            self.life.acknowledge(self.ids[index]);
            self.acknowledged[index] = Some((from, self.moment()));
        }
    }

    /// What the channel's two threads do when their time has come.
    fn rest(&self) {
        for _ in 0..2 {
            self.life.channel.sync_progress().unwrap();
            self.life.tend().unwrap();
        }
    }

    /// Crashes at every moment from `from` on, power cuts and kills: what was returned holds, and the ring
    /// alone is left.
    fn crash(&self, from: usize, samples: u64, rng: &mut Rng) {
        let check = |moment: usize, is_kill: bool, found: Vec<u64>| {
            assert!(found.is_sorted(), "{found:?}");
            let known = |n: &u64| *n >= self.first || self.others.contains(n);
            assert!(found.iter().all(known), "{found:?} at {moment}");
            for index in 0..self.sent.len() {
                let (begun, returned) = self.sent[index];
                let acknowledged = self.acknowledged[index];
                let must = returned <= moment && acknowledged.is_none_or(|a| a.0 >= moment);
                let gone = is_kill && acknowledged.is_some_and(|a| a.1 <= moment);
                let number = self.first + index as u64;
                let is_there = found.contains(&number);
                assert!(is_there || !must, "{number} is lost at {moment}: {found:?}");
                let may = begun < moment && !gone;
                assert!(may || !is_there, "{number} is there at {moment}");
            }
        };
        let mut film = self.life.medium.film();
        film.advance_to(from);
        loop {
            let moment = film.moment();
            for _ in 0..samples {
                let choices = super::crashes::random_choices(&film, rng);
                check(moment, false, drained(&film.show(&choices), rng));
            }
            // Copies of a disk take longer.
            if samples > 1 || rng.chance(15) || moment == film.end() {
                check(moment, true, drained(&film.in_the_same_boot(), rng));
            }
            if moment == film.end() {
                return;
            }
            film.advance();
        }
    }
}

#[test]
fn a_crash_while_a_file_is_made_named_or_linked_leaves_no_file_and_loses_nothing() {
    let mut rng = Rng(10);
    let mut story = Story::new(&mut rng);
    story.send(16);
    let from = story.moment();
    // The ring is full: this makes the file, links it, and is its first message.
    story.send(2);
    assert_eq!(story.life.numbers(), [0, 1]);
    story.crash(from, 40, &mut rng);
}

#[test]
fn a_file_that_was_linked_ahead_of_need_and_not_used_is_removed() {
    let mut rng = Rng(11);
    let mut story = Story::new(&mut rng);
    story.send(13);
    let from = story.moment();
    story.rest();
    assert_eq!(story.life.numbers(), [0, 1]);
    // The ring is not full yet.
    story.send(2);
    story.crash(from, 20, &mut rng);
}

#[test]
fn a_claim_that_is_open_when_the_next_file_is_used_is_a_hole_up_to_the_end() {
    let mut rng = Rng(12);
    let life = fresh(Mode::FlushOnly, &mut rng);
    send(&life, 0, 15);
    let claim = steps::claim(life.channel.chain().first(), 40).unwrap();
    send(&life, 15, 3);
    assert!(claim.is_some() && life.numbers().len() == 2);
    let killed = Simulated::new(life.medium.killed());
    let report = open(killed.copied(), Mode::PerSend, &mut rng).report;
    assert_eq!(report.stepped_over(), 1, "{report}");
    assert_eq!(drained(&killed, &mut rng), (0..18).collect::<Vec<u64>>());
}

#[test]
fn a_sealed_file_before_an_empty_one_is_none_that_ends_the_chain() {
    let mut rng = Rng(13);
    let mut story = Story::new(&mut rng);
    story.send(13);
    story.rest();
    let from = story.moment();
    // They end where the ring ends; then it is made complete.
    story.send(3);
    story.rest();
    story.crash(from, 30, &mut rng);
}

#[test]
fn a_crash_while_a_file_is_made_complete_costs_at_most_a_scan() {
    let mut rng = Rng(14);
    let mut story = Story::new(&mut rng);
    story.send(16 + 8 + 4);
    let from = story.moment();
    story.rest();
    story.send(1);
    story.crash(from, 30, &mut rng);
}

#[test]
fn a_drained_file_is_removed_and_may_come_back() {
    let mut rng = Rng(15);
    let mut story = Story::new(&mut rng);
    story.send(16 + 8 + 8);
    story.take(28);
    let from = story.moment();
    story.acknowledge(0..16);
    story.rest();
    story.acknowledge(16..28);
    story.rest();
    assert!(!story.life.numbers().contains(&1));
    story.send(1);
    story.crash(from, 12, &mut rng);
}

#[test]
fn a_power_cut_while_a_file_is_recorded_as_drained_tears_one_checkpoint_at_most() {
    let mut rng = Rng(19);
    let mut story = Story::new(&mut rng);
    story.send(16 + 4);
    story.take(18);
    story.acknowledge(0..16);
    story.life.channel.sync_progress().unwrap();
    story.life.channel.sync_progress().unwrap();
    let from = story.moment();
    story.life.medium.store_word_by_word();
    story.life.tend().unwrap();
    story.crash(from, 20, &mut rng);
}

#[test]
fn a_crash_in_the_new_beginning_of_the_ring_finds_it_drained_or_begun() {
    let mut rng = Rng(16);
    let mut story = Story::new(&mut rng);
    story.send(16 + 4);
    story.take(18);
    story.acknowledge(0..16);
    let from = story.moment();
    // The ring is drained; it comes behind the file that is written.
    story.rest();
    story.send(1);
    story.acknowledge(16..18);
    // What is behind is little: that file is sealed, and the ring is used.
    story.rest();
    story.send(3);
    assert!(story.ids[23].position() >= 2048);
    story.crash(from, 12, &mut rng);
}

#[test]
fn a_chain_keeps_every_send_through_several_rounds_over_its_ring() {
    let mut rng = Rng(17);
    let mut story = Story::new(&mut rng);
    for round in 0..3u64 {
        let first = story.sent.len() as u64;
        story.send(20 + 4 * round);
        story.send_payload(900);
        story.rest();
        let count = 21 + 4 * round;
        story.take(count);
        story.acknowledge(first..first + count);
        story.rest();
    }
    story.crash(0, 2, &mut rng);
    the_last_few_alone_are_at_risk_across_files(&mut rng);
}

/// Under `SyncEvery` a sync of one file is needed because of sends that lie in the file before, too: those
/// are durable first, so that a power cut takes no more than the last few sends.
fn the_last_few_alone_are_at_risk_across_files(rng: &mut Rng) {
    let max_ops = 3;
    let mode = Mode::Every {
        max_ops,
        max_delay: Duration::from_secs(3600),
    };
    let life = fresh(mode, rng);
    let mut returned = Vec::new();
    for n in 0..16 + 8 + 8 {
        life.send(&numbered(n)).unwrap();
        returned.push(life.medium.moment());
    }
    assert!(life.numbers().len() > 2, "{:?}", life.numbers());
    each_crash(&life.medium, 0, 4, rng, |moment, found| {
        let count = returned.iter().filter(|at| **at <= moment).count() as u64;
        for n in 0..count.saturating_sub(max_ops) {
            assert!(found.contains(&n), "{n} is lost at {moment}: {found:?}");
        }
    });
}

#[test]
fn a_file_that_is_drained_before_an_earlier_one_leaves_no_gap() {
    let mut rng = Rng(1);
    let mut life = fresh(Mode::PerSend, &mut rng);
    send(&life, 0, 16 + 8 + 8);
    assert!(life.numbers().len() >= 3, "{:?}", life.numbers());
    let ids = take(&mut life, 32);
    // All but the first, which lies in the ring.
    for id in &ids[1..] {
        life.acknowledge(*id);
    }
    let moment = life.medium.moment();
    life.channel.sync_progress().unwrap();
    life.channel.sync_progress().unwrap();
    life.channel.chain().finish().unwrap();
    each_crash(&life.medium, moment, 20, &mut rng, |_, found| {
        assert_eq!(found[0], 0);
    });
    let closed = Simulated::new(life.medium.killed());
    assert_eq!(drained(&closed, &mut rng), [0]);
}

#[test]
fn a_full_file_that_is_drained_and_has_no_next_one_is_no_gap() {
    let mut rng = Rng(2);
    let mut life = fresh(Mode::PerSend, &mut rng);
    send(&life, 0, 16 + 8);
    let ids = take(&mut life, 24);
    for id in ids {
        life.acknowledge(id);
    }
    life.channel.sync_progress().unwrap();
    life.channel.sync_progress().unwrap();
    let moment = life.medium.moment();
    life.tend().unwrap();
    each_crash(&life.medium, moment, 20, &mut rng, |_, found| {
        assert_eq!(found, []);
    });
}

/// The ring has begun anew, and a power cut; the file before it goes on. What does not fit into the ring
/// needs another file behind that one.
#[test]
fn a_ring_that_begins_anew_and_is_passed_over_is_no_part_of_the_chain() {
    let mut rng = Rng(3);
    let mut life = fresh(Mode::PerSend, &mut rng);
    send(&life, 0, 16 + 4);
    for id in take(&mut life, 16) {
        life.acknowledge(id);
    }
    life.channel.sync_progress().unwrap();
    life.tend().unwrap();
    let mut life = open(
        Simulated::new(life.medium.killed()),
        Mode::PerSend,
        &mut rng,
    );
    // It is larger than the largest frame of the ring.
    let large = [numbered(20), vec![7; 1000]].concat();
    life.send(&large).unwrap();
    send(&life, 21, 3);
    let moment = life.medium.moment();
    each_crash(&life.medium, moment, 20, &mut rng, |_, found| {
        assert_eq!(found, (16..24).collect::<Vec<u64>>());
    });
    let _ = take(&mut life, 1);
}

/// A file got its name, durably, and could not be used. The ring goes on; its file is back behind a power
/// cut.
#[test]
fn a_file_that_could_not_be_used_ends_nothing_when_it_is_back() {
    let mut rng = Rng(4);
    let mut life = fresh(Mode::PerSend, &mut rng);
    send(&life, 0, 16);
    life.places().fail_next(Fault::Named);
    assert!(matches!(life.send(&numbered(16)), Err(SendFailure::Io(_))));
    for id in take(&mut life, 8) {
        life.acknowledge(id);
    }
    send(&life, 16, 4);
    let moment = life.medium.moment();
    each_crash(&life.medium, moment, 40, &mut rng, |_, found| {
        assert_eq!(found, (8..20).collect::<Vec<u64>>());
    });
}

/// A file got its name, durably, could not be used, and its name could not be removed. Until it is, nothing
/// goes beyond the end that it tells; then the channel grows again.
#[test]
fn a_file_that_could_neither_be_used_nor_removed_is_removed_before_the_next_one() {
    let mut rng = Rng(7);
    let mut life = fresh(Mode::PerSend, &mut rng);
    send(&life, 0, 16);
    let moment = life.medium.moment();
    life.places().fail_next(Fault::Kept);
    for _ in 0..3 {
        assert!(matches!(life.send(&numbered(16)), Err(SendFailure::Io(_))));
        assert!(life.channel.chain().has_stray_name());
        assert_eq!(life.numbers(), [0, 1]);
        life.places().fail_next(Fault::Stays);
    }
    let ids = take(&mut life, 8);
    ids.into_iter().for_each(|id| life.acknowledge(id));
    life.channel.sync_progress().unwrap();
    assert!(matches!(life.send(&numbered(16)), Err(SendFailure::Io(_))));
    each_crash(&life.medium, moment, 20, &mut rng, |_, found| {
        assert!(found.ends_with(&[8, 9, 10, 11, 12, 13, 14, 15]));
        assert!(found.len() <= 16 && found.is_sorted(), "{found:?}");
    });
    let moment = life.medium.moment();
    send(&life, 16, 4);
    assert!(!life.channel.chain().has_stray_name());
    each_crash(&life.medium, moment, 20, &mut rng, |_, found| {
        assert!(
            found.starts_with(&[8, 9, 10, 11, 12, 13, 14, 15]),
            "{found:?}"
        );
        assert!(found.len() <= 12 && found.is_sorted(), "{found:?}");
    });
}

/// The next file was made ahead of need, and the channel closes without it.
#[test]
fn a_crash_while_a_close_drops_a_file_that_was_not_used_keeps_what_came_before() {
    let mut rng = Rng(8);
    let life = fresh(Mode::PerSend, &mut rng);
    send(&life, 0, 13);
    life.tend().unwrap();
    assert_eq!(life.numbers(), [0, 1]);
    send(&life, 13, 2);
    let moment = life.medium.moment();
    life.channel.chain().finish().unwrap();
    assert_eq!(life.numbers(), [0]);
    each_crash(&life.medium, moment, 20, &mut rng, |_, found| {
        assert_eq!(found, (0..15).collect::<Vec<u64>>());
    });
}

/// The counts of a file that was complete before the receiver came to it are right, whatever part of its
/// acknowledgements lasts.
#[test]
fn what_the_receiver_did_in_a_complete_file_is_counted_right_after_a_power_cut() {
    let mut rng = Rng(5);
    let mut life = fresh(Mode::PerSend, &mut rng);
    send(&life, 0, 16 + 8 + 4);
    life.tend().unwrap();
    for id in take(&mut life, 16) {
        life.acknowledge(id);
    }
    life.tend().unwrap();
    let moment = life.medium.moment();
    for id in take(&mut life, 6) {
        life.acknowledge(id);
    }
    each_crash(&life.medium, moment, 60, &mut rng, |_, found| {
        assert!(found.ends_with(&[22, 23, 24, 25, 26, 27]), "{found:?}");
    });
}

/// The receiver came to a file that was complete, and the sync of its new incarnation failed. `close` tries
/// again, and says if that fails, too: the next open finds a file that was not closed.
#[test]
fn a_file_that_could_not_be_opened_makes_a_close_fail() {
    for again in [false, true] {
        let mut rng = Rng(6);
        let mut life = fresh(Mode::PerSend, &mut rng);
        send(&life, 0, 16 + 8 + 16 + 4);
        life.tend().unwrap();
        for id in take(&mut life, 16 + 8) {
            life.acknowledge(id);
        }
        life.medium.fail_syncs_after(1);
        assert_eq!(life.receive(), Some(Got::Failed));
        life.medium.fail_syncs_after((!again).then_some(0));
        assert_eq!(life.channel.chain().finish().is_ok(), again);
        life.medium.fail_syncs_after(None);
        let life = open(life.medium.clone(), Mode::PerSend, &mut rng);
        assert_eq!(life.report.is_clean(), again);
        assert_eq!(life.report.kept(), 16 + 4);
    }
}

/// Whatever a crash leaves of a chain that returns to its ring, in the same boot or not: an incarnation that
/// follows, in which the channel returns again, stands crashes, too.
#[test]
fn an_incarnation_after_a_crash_in_the_return_to_the_ring_returns_again_and_stands_crashes() {
    let mut rng = Rng(18);
    // Without syncs the seal of a file can be lost, and the ring that comes behind the next one be there.
    for mode in [Mode::PerSend, Mode::FlushOnly] {
        return_and_crash_twice(mode, &mut rng);
    }
}

fn return_and_crash_twice(mode: Mode, rng: &mut Rng) {
    let mut story = Story::on(fresh(mode, rng), 0);
    story.send(16 + 5);
    story.rest();
    story.take(20);
    let from = story.moment();
    story.acknowledge(0..20);
    // No sync records the acknowledgements before the ring is drained.
    story.life.tend().unwrap();
    story.life.tend().unwrap();
    let mut film = story.life.medium.film();
    film.advance_to(from);
    loop {
        for same_boot in [false, true] {
            let disk = match same_boot {
                true => film.in_the_same_boot(),
                false => Simulated::new(film.image(|_, _| 0)),
            };
            let mut life = open(disk, Mode::PerSend, rng);
            let recovered = life.medium.moment();
            let mut others = Vec::new();
            while let Some(Got::Message { id, payload, .. }) = life.receive() {
                others.push(number_of(&payload));
                life.acknowledge(id);
            }
            let mut next = Story::on(life, 100);
            next.others = others;
            next.rest();
            next.send(3);
            next.crash(recovered, 1, rng);
        }
        if film.moment() == film.end() {
            return;
        }
        film.advance();
    }
}
