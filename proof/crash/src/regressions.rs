//! The smallest cases of what the campaign found.

use super::timelines::{RING, crash_recovery, fresh, numbered, open_after_crash};
use super::*;
use walchan_core::format::incarnations::INCARNATIONS_MAX;

/// The start of the newest incarnation was taken for a commit. An incarnation without syncs reuses the space
/// before it, once no checkpoint calls anything there durable.
#[test]
fn a_backlog_that_an_incarnation_without_syncs_overwrites_is_not_called_damage() {
    let mut rng = Rng(51);
    let capacity = 1024;
    let life = fresh(capacity, Mode::PerSend, &mut rng);
    for n in 0..32 {
        life.send(&numbered(n)).unwrap();
    }
    let image = life.medium.killed();
    let mut life = Life::on(&image, capacity, Mode::FlushOnly, &mut rng).unwrap();
    let mut next = 32;
    for _ in 0..3 {
        // The first time this lifts the limit with two syncs, afterwards without any.
        for _ in 0..8 {
            let (id, _) = life.receive_message();
            life.acknowledge(id);
        }
        for _ in 0..8 {
            life.send(&numbered(next)).unwrap();
            next += 1;
        }
    }
    for moment in 0..=life.medium.moment() {
        for image in images(&life.medium, moment, 40, &mut rng) {
            let found = open_after_crash(&image, capacity, &mut rng);
            assert!(found.is_sorted(), "{found:?}");
        }
    }
}

/// The same, where the table of the next incarnation landed alone. What its start vouched for was only in the
/// cache.
#[test]
fn a_table_that_lands_alone_after_a_failed_sync_makes_no_damage() {
    let mut rng = Rng(52);
    let life = fresh(1024, Mode::PerSend, &mut rng);
    let claim = steps::claim(life.channel.log(), 8).unwrap().unwrap();
    claim.abandon();
    life.medium.fail_syncs_after(0);
    life.channel.sync_progress().unwrap_err();
    let medium = Simulated::with_cache(life.cut_oldest(), life.medium.killed());
    recover(&medium, 1024, &mut rng).unwrap();
    for moment in 0..=medium.moment() {
        for image in images(&medium, moment, 300, &mut rng) {
            assert_eq!(open_after_crash(&image, 1024, &mut rng), []);
        }
    }
}

/// Incarnations were dropped from the table by heads that only the cache had. Where the table landed alone,
/// no incarnation covered the head that the disk had.
#[test]
fn a_table_that_lands_alone_still_covers_the_head_that_the_disk_has() {
    let mut rng = Rng(55);
    let capacity = 1024;
    let mut life = fresh(capacity, Mode::FlushOnly, &mut rng);
    // The last acknowledgement stores a checkpoint whose head is the tail.
    for n in 0..9 {
        life.send(&numbered(n)).unwrap();
        let (id, _) = life.receive_message();
        life.acknowledge(id);
    }
    // A kill, and one in the recovery that follows, and then a power cut: nothing was synced since.
    let mut film = life.medium.film();
    film.advance_to(life.medium.moment());
    let first = film.in_the_same_boot();
    first.fail_syncs_after(0);
    recover(&first, capacity, &mut rng).unwrap_err();
    let mut film = first.film();
    film.advance_to(film.end() - 1);
    let again = film.in_the_same_boot();
    recover(&again, capacity, &mut rng).unwrap();
    for moment in 0..=again.moment() {
        for image in images(&again, moment, 60, &mut rng) {
            open_after_crash(&image, capacity, &mut rng);
        }
    }
}

/// A recovery was killed when it had stored one copy of the table. The next one, in the same boot, took that
/// copy for durable, and wrote the other: a power cut could tear both.
#[test]
fn a_recovery_behind_one_that_was_killed_leaves_a_whole_table() {
    let mut rng = Rng(56);
    let capacity = 2048;
    let mut image = new_image(capacity, &mut rng);
    for n in 0..20 {
        let life = Life::on(&image, capacity, Mode::FlushOnly, &mut rng).unwrap();
        life.send(&numbered(n)).unwrap();
        image = life.medium.killed();
    }
    let expected: Vec<u64> = (0..20).collect();
    let first = Simulated::new(image);
    recover(&first, capacity, &mut rng).unwrap();
    let mut film = first.film();
    while film.moment() < film.end() {
        film.advance();
        let again = film.in_the_same_boot();
        recover(&again, capacity, &mut rng).unwrap();
        for moment in 0..=again.moment() {
            for image in images(&again, moment, 30, &mut rng) {
                assert_eq!(open_after_crash(&image, capacity, &mut rng), expected);
            }
        }
    }
}

/// A frame that begins within a capacity of an old head, and ends beyond it, was not taken for one of a later
/// lap.
#[test]
fn a_frame_across_the_end_of_the_scan_proves_a_later_lap() {
    let mut rng = Rng(57);
    let capacity = 1024;
    let mut life = fresh(capacity, Mode::PerSend, &mut rng);
    let pass_to = |life: &mut Life, tail: u64| {
        while life.channel.log().ring().tail() < tail {
            life.send(&[]).unwrap();
            let (id, _) = life.receive_message();
            life.acknowledge(id);
        }
    };
    pass_to(&mut life, 528);
    life.close();
    let closed = life.medium.killed();
    let mut life = Life::on(&closed, capacity, Mode::FlushOnly, &mut rng).unwrap();
    assert_eq!(life.head, 528);
    pass_to(&mut life, 1536);
    let payload = vec![9; 480];
    assert_eq!(life.send(&payload).unwrap().position(), 1536);
    let header = walchan_core::format::HEADER_LEN as usize;
    let mut image = life.medium.killed();
    image[..header].copy_from_slice(&life.cut_oldest()[..header]);
    assert_eq!(payloads_of(&image, capacity, &mut rng), [payload]);
}

/// A table with room only without the incarnations that an older checkpoint still starts from.
fn full_table(rng: &mut Rng) -> (Vec<u8>, Vec<u64>) {
    let mut image = new_image(RING, rng);
    for n in 0..INCARNATIONS_MAX as u64 {
        let life = Life::on(&image, RING, Mode::FlushOnly, rng).unwrap();
        life.send(&numbered(n)).unwrap();
        image = life.medium.killed();
    }
    let mut life = Life::on(&image, RING, Mode::FlushOnly, rng).unwrap();
    assert!(life.send(&[]).is_err(), "it is full");
    for _ in 0..600 {
        let (id, _) = life.receive_message();
        life.acknowledge(id);
    }
    (
        life.medium.killed(),
        (600..INCARNATIONS_MAX as u64).collect(),
    )
}

#[test]
fn a_full_table_has_room_at_the_first_open_behind_the_acknowledgement_of_the_oldest() {
    let mut rng = Rng(53);
    let (image, expected) = full_table(&mut rng);
    // It sends a message, too.
    assert_eq!(open_after_crash(&image, RING, &mut rng), expected);
    let medium = Simulated::new(image);
    let recovered = recover(&medium, RING, &mut rng).unwrap();
    assert!(!recovered.receive_only);
    assert_eq!(recovered.incarnations.count(), INCARNATIONS_MAX - 600 + 1);
}

#[test]
fn recovery_that_makes_room_in_a_full_table_killed_at_any_step_finds_the_same() {
    let mut rng = Rng(54);
    let (image, expected) = full_table(&mut rng);
    let images = crash_recovery(&image, RING, &expected, &mut rng);
    println!("{images} images");
}
