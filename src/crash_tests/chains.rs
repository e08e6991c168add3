//! Stories of chains: a crash at each of the sites that `docs/overflow.md` lists, and those that broke something.

use super::places::{Chained, Fault, Shape};
use super::*;

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
    crate::format::get_u64(payload, 0)
}

/// Opens an image, takes out all that is there, and sees that new messages flow and that the ring alone is left.
fn drained(disk: &Simulated, rng: &mut Rng) -> Vec<u64> {
    let mut life = open(disk.clone(), Mode::PerSend, rng);
    let report = life.report.clone();
    assert_eq!(report.damaged(), [], "{report}");
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
    life.channel.sync_progress().unwrap();
    life.channel.sync_progress().unwrap();
    let moment = life.medium.moment();
    each_crash(&life.medium, moment, 20, &mut rng, |_, found| {
        assert_eq!(found, [0]);
    });
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

/// The ring has begun anew, and a power cut; the file before it goes on. What does not fit into the ring needs another
/// file behind that one.
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

/// A file got its name, durably, and could not be used. The ring goes on; its file is back behind a power cut.
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
