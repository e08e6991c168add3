//! Stories that broke earlier drafts, one each.

use super::*;
use crate::format::frame::{State, state_of, word0};
use crate::format::incarnations::{LIVES_MAX, TABLE_LEN};
use crate::format::{CHECKPOINT_OFFSETS, HEADER_LEN, TABLE_OFFSETS, get_u64};
use crate::recovery::DamagedFrame;

const RING: u64 = 64 * 1024;

fn numbered(n: u64) -> Vec<u8> {
    n.to_le_bytes().to_vec()
}

fn fresh(capacity: u64, mode: Mode, rng: &mut Rng) -> Life {
    let image = new_image(capacity, rng);
    Life::on(&image, capacity, mode, rng).unwrap()
}

/// Opens the image, and checks that what crashes leave is never called damage, and that new messages flow.
fn open_after_crash(image: &[u8], capacity: u64, rng: &mut Rng) -> Vec<u64> {
    let mut life = Life::on(image, capacity, Mode::PerSend, rng).unwrap();
    let damaged = life.report.damaged();
    assert!(
        !damaged.iter().any(DamagedFrame::was_durable),
        "{}",
        life.report
    );
    let mut found = Vec::new();
    for got in life.receive_all() {
        let Got::Message { id, payload, .. } = got else {
            panic!("{got:?}");
        };
        life.acknowledge(id);
        found.push(get_u64(&payload, 0));
    }
    let new = vec![0xee; 8];
    life.send(&new).unwrap();
    assert_eq!(life.receive_message().1, new);
    found
}

#[test]
fn a_clean_flag_still_on_disk_does_not_hide_a_durable_send() {
    let mut rng = Rng(1);
    let life = fresh(1024, Mode::PerSend, &mut rng);
    life.send(&numbered(0)).unwrap();
    life.close();
    let life = Life::on(&life.medium.killed(), 1024, Mode::PerSend, &mut rng).unwrap();
    assert!(life.report.is_clean());
    life.send(&numbered(1)).unwrap();
    let moment = life.medium.moment();
    for image in images(&life.medium, moment, 500, &mut rng) {
        assert_eq!(open_after_crash(&image, 1024, &mut rng), [0, 1]);
    }
    // Either page may be unreadable as well.
    for page in CHECKPOINT_OFFSETS {
        let mut image = life.cut_oldest();
        image[page as usize] ^= 1;
        assert_eq!(open_after_crash(&image, 1024, &mut rng), [0, 1]);
    }
}

/// A synced life leaves a backlog; a `FlushOnly` life acknowledges it and laps, with or without syncs in
/// between; power cuts all along.
fn backlog_then_laps(with_sync: bool, seed: u64) {
    let mut rng = Rng(seed);
    let capacity = 2048;
    let life = fresh(capacity, Mode::PerSend, &mut rng);
    for n in 0..20 {
        life.send(&numbered(n)).unwrap();
    }
    let image = life.cut_random(&mut rng);
    let mut life = Life::on(&image, capacity, Mode::FlushOnly, &mut rng).unwrap();
    let mut next = 20;
    let mut synced = 20;
    for step in 0..300 {
        if life.send(&numbered(next)).is_ok() {
            next += 1;
        }
        if let Some(Got::Message { id, .. }) = life.receive() {
            life.acknowledge(id);
        }
        if with_sync && step % 37 == 17 {
            life.channel.sync_sent().unwrap();
            synced = next;
        }
        let image = life.cut_random(&mut rng);
        let found = open_after_crash(&image, capacity, &mut rng);
        assert!(found.is_sorted(), "{found:?}");
        assert!(found.iter().all(|n| *n < next));
        // What was synced and is not acknowledged is there.
        let mut rest =
            Life::on(&life.medium.killed(), capacity, Mode::FlushOnly, &mut rng).unwrap();
        for got in rest.receive_all() {
            let Got::Message { payload, .. } = got else {
                panic!("{got:?}")
            };
            let n = get_u64(&payload, 0);
            assert!(n >= synced || found.contains(&n), "{n} of {found:?}");
        }
    }
    assert!(next > 300, "the ring was lapped: {next}");
}

#[test]
fn a_synced_backlog_that_flush_only_lapped_opens_without_damage() {
    backlog_then_laps(false, 2);
}

#[test]
fn a_synced_backlog_that_flush_only_lapped_between_syncs_opens_without_damage() {
    backlog_then_laps(true, 3);
}

#[test]
fn flush_only_killed_ten_laps_later_keeps_everything() {
    let mut rng = Rng(4);
    let mut life = fresh(RING, Mode::FlushOnly, &mut rng);
    let (mut sent, mut done) = (0, 0);
    while life.channel.log().ring().tail() < 10 * RING {
        if life.send(&numbered(sent)).is_ok() {
            sent += 1;
        }
        if sent % 7 != 0 || sent - done > 500 {
            let (id, payload) = life.receive_message();
            assert_eq!(get_u64(&payload, 0), done);
            life.acknowledge(id);
            done += 1;
        }
    }
    assert!(sent > done + 10);
    let expected: Vec<u64> = (done..sent).collect();
    assert_eq!(
        open_after_crash(&life.medium.killed(), RING, &mut rng),
        expected
    );
}

fn frame_offset(id: MessageId, capacity: u64) -> usize {
    (HEADER_LEN + (id.position() & (capacity - 1))) as usize
}

#[test]
fn a_bit_that_rots_in_frame_450_of_900_is_reported_and_hides_no_other() {
    let mut rng = Rng(5);
    for bit in (0..256).step_by(3) {
        let life = fresh(RING, Mode::PerSend, &mut rng);
        let ids: Vec<MessageId> = (0..900)
            .map(|n| life.send(&[numbered(n), vec![5; 8]].concat()).unwrap())
            .collect();
        let mut image = life.cut_random(&mut rng);
        image[frame_offset(ids[450], RING) + bit / 8] ^= 1 << (bit % 8);
        let mut life = Life::on(&image, RING, Mode::PerSend, &mut rng).unwrap();
        let mut expected = 0;
        let mut corrupt = Vec::new();
        for got in life.receive_all() {
            match got {
                Got::Message { payload, .. } => {
                    expected += u64::from(expected == 450);
                    assert_eq!(get_u64(&payload, 0), expected, "bit {bit}");
                    expected += 1;
                }
                Got::Damage { position, end } => corrupt.push((position, end)),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(expected, 900);
        let at = ids[450].position();
        assert_eq!(corrupt, [(at, at + 32)], "bit {bit}");
    }
}

#[test]
fn a_bit_that_rots_in_the_last_of_900_frames_is_reported_if_its_header_decodes() {
    let mut rng = Rng(6);
    let life = fresh(RING, Mode::PerSend, &mut rng);
    let ids: Vec<MessageId> = (0..900).map(|n| life.send(&numbered(n)).unwrap()).collect();
    let whole = life.cut_oldest();
    for bit in 0..24 * 8 {
        let mut image = whole.clone();
        image[frame_offset(ids[899], RING) + bit / 8] ^= 1 << (bit % 8);
        let mut life = Life::on(&image, RING, Mode::PerSend, &mut rng).unwrap();
        assert_eq!(life.receive_all().len(), 899, "bit {bit}");
        let reported: Vec<u64> = life.report.damaged().iter().map(|d| d.position()).collect();
        // Bits 8 to 63 name the position: without them this is a send that never began.
        let named = !(8..64).contains(&bit);
        let expected = if named {
            vec![ids[899].position()]
        } else {
            vec![]
        };
        assert_eq!(reported, expected, "bit {bit}");
    }
}

/// Crashes recovery of `image` at every event, and that of what is left again; all must find `expected`.
fn crash_recovery(image: &[u8], capacity: u64, expected: &[u64], rng: &mut Rng) -> usize {
    let mut count = 0;
    let first = Simulated::new(image.to_vec());
    recover(&first, capacity, rng).unwrap();
    for moment in 0..=first.moment() {
        for (i, second) in images(&first, moment, 24, rng).into_iter().enumerate() {
            assert_eq!(open_after_crash(&second, capacity, rng), expected);
            count += 1;
            if i % 8 != 0 {
                continue;
            }
            let again = Simulated::new(second);
            recover(&again, capacity, rng).unwrap();
            for moment in 0..=again.moment() {
                for third in images(&again, moment, 6, rng) {
                    assert_eq!(open_after_crash(&third, capacity, rng), expected);
                    count += 1;
                }
            }
        }
    }
    count
}

#[test]
fn recovery_killed_at_any_step_and_again_finds_the_same() {
    let mut rng = Rng(7);
    let capacity = 2048;
    // Acknowledged, handed out and new messages; two holes and a torn tail.
    let mut life = fresh(capacity, Mode::FlushOnly, &mut rng);
    let ids: Vec<MessageId> = (0..14)
        .map(|n| life.send(&vec![n as u8; 40 + n]).unwrap())
        .collect();
    for id in &ids[..3] {
        life.receive_message();
        life.acknowledge(*id);
    }
    let mut image = life.medium.killed();
    for torn in [5, 6, 9, 13] {
        image[frame_offset(ids[torn], capacity) + 20] ^= 0xff;
    }
    let word = |n: u8| u64::from_le_bytes([n; 8]);
    let expected = [3, 4, 7, 8, 10, 11, 12].map(word);
    let images = crash_recovery(&image, capacity, &expected, &mut rng);
    println!("{images} images");
}

#[test]
fn recovery_of_a_lapped_flush_only_ring_killed_at_any_step_finds_the_same() {
    let mut rng = Rng(8);
    let capacity = 1024;
    for _ in 0..4 {
        let mut life = fresh(capacity, Mode::FlushOnly, &mut rng);
        for n in 0..150 {
            life.send(&numbered(n)).unwrap();
            if n >= 9 {
                let (id, _) = life.receive_message();
                life.acknowledge(id);
            }
        }
        // The header as it was at the start, the ring as it is: the checkpoint is laps behind.
        let mut image = life.medium.killed();
        let old = life.cut_oldest();
        image[..HEADER_LEN as usize].copy_from_slice(&old[..HEADER_LEN as usize]);
        let expected: Vec<u64> = (141..150).collect();
        crash_recovery(&image, capacity, &expected, &mut rng);
    }
}

#[test]
fn recovery_of_a_clean_file_killed_at_any_step_finds_the_same() {
    let mut rng = Rng(9);
    let life = fresh(1024, Mode::PerSend, &mut rng);
    for n in 0..5 {
        life.send(&numbered(n)).unwrap();
    }
    life.close();
    crash_recovery(&life.medium.killed(), 1024, &[0, 1, 2, 3, 4], &mut rng);
}

#[test]
fn recovery_after_a_failed_sync_makes_durable_what_only_the_cache_holds() {
    let mut rng = Rng(10);
    for _ in 0..20 {
        let life = fresh(1024, Mode::PerSend, &mut rng);
        for n in 0..3 {
            life.send(&numbered(n)).unwrap();
        }
        life.medium.fail_syncs_after(0);
        assert!(matches!(
            life.send(&numbered(3)),
            Err(SendFailure::Unsynced(_))
        ));
        assert!(matches!(life.send(&numbered(4)), Err(SendFailure::Io(_))));
        // The pages count as clean now: the cache shows them, the disk may lack them.
        let medium = Simulated::with_cache(life.cut_random(&mut rng), life.medium.killed());
        let reopened = Life::open(medium, 1024, Mode::PerSend, &mut rng).unwrap();
        assert_eq!(reopened.report.kept(), 4);
        assert_eq!(
            open_after_crash(&reopened.cut_oldest(), 1024, &mut rng),
            [0, 1, 2, 3]
        );
    }
}

#[test]
fn a_full_ring_that_is_all_acknowledged_takes_one_sync_to_send_again() {
    let mut rng = Rng(11);
    let mut life = fresh(1024, Mode::PerSend, &mut rng);
    let mut sent = 0;
    while life.send(&numbered(sent)).is_ok() {
        sent += 1;
    }
    assert_eq!(sent, 1024 / 32);
    for _ in 0..sent {
        let (id, _) = life.receive_message();
        life.acknowledge(id);
    }
    let before = life.medium.syncs();
    // Never waits, as `try_send`.
    life.send(&numbered(99)).unwrap();
    let after = life.medium.syncs();
    assert_eq!(after - before, 2, "one for the room, one for the message");
    assert_eq!(open_after_crash(&life.cut_oldest(), 1024, &mut rng), [99]);
}

#[test]
fn acknowledged_behind_an_unacknowledged_one_does_not_return() {
    let mut rng = Rng(12);
    let mut life = fresh(RING, Mode::PerSend, &mut rng);
    for n in 1..=1000 {
        life.send(&numbered(n)).unwrap();
    }
    let ids: Vec<MessageId> = (0..1000).map(|_| life.receive_message().0).collect();
    // The channel is idle, and all that was sent is recorded.
    life.timer();
    life.timer();
    for id in &ids[1..500] {
        life.acknowledge(*id);
    }
    life.timer();
    for id in &ids[500..] {
        life.acknowledge(*id);
    }
    life.timer();
    assert_eq!(open_after_crash(&life.cut_oldest(), RING, &mut rng), [1]);
}

#[test]
fn a_rotten_newest_checkpoint_page_or_table_copy_costs_nothing() {
    let mut rng = Rng(13);
    for (mode, closed) in [
        (Mode::PerSend, false),
        (Mode::PerSend, true),
        (Mode::FlushOnly, false),
        (Mode::FlushOnly, true),
    ] {
        let mut life = fresh(2048, mode, &mut rng);
        let mut expected = Vec::new();
        for n in 0..200 {
            life.send(&numbered(n)).unwrap();
            expected.push(n);
            if n >= 12 {
                let (id, _) = life.receive_message();
                life.acknowledge(id);
                expected.remove(0);
            }
        }
        if closed {
            life.close();
        }
        let image = life.medium.killed();
        let places = CHECKPOINT_OFFSETS
            .into_iter()
            .map(|at| (at, 64))
            .chain(TABLE_OFFSETS.into_iter().map(|at| (at, TABLE_LEN as u64)));
        for (at, len) in places {
            for offset in [0, 5, 33, 60, len - 1] {
                let mut image = image.clone();
                image[(at + offset) as usize] ^= 0x10;
                let report = Life::on(&image, 2048, mode, &mut rng).unwrap().report;
                let faults: Vec<u64> = report.header_faults().iter().map(|f| f.0).collect();
                assert_eq!(faults, [at]);
                assert_eq!(open_after_crash(&image, 2048, &mut rng), expected);
            }
        }
    }
}

#[test]
fn both_copies_rotten_is_an_error_that_changes_nothing() {
    let mut rng = Rng(14);
    let image = new_image(1024, &mut rng);
    for pair in [CHECKPOINT_OFFSETS, TABLE_OFFSETS] {
        let mut image = image.clone();
        for at in pair {
            image[at as usize + 8] ^= 1;
        }
        let medium = Simulated::new(image);
        let error = recover(&medium, 1024, &mut rng).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        assert_eq!(medium.moment(), 0);
    }
}

#[test]
fn a_message_that_kills_its_reader_a_thousand_times_lets_the_others_through() {
    let mut rng = Rng(15);
    let life = fresh(RING, Mode::FlushOnly, &mut rng);
    life.send(&numbered(0)).unwrap();
    let mut image = life.medium.killed();
    for restart in 1..=1000u64 {
        let mut life = Life::on(&image, RING, Mode::FlushOnly, &mut rng).unwrap();
        life.send(&numbered(restart)).unwrap();
        let Some(Got::Message {
            deliveries,
            payload,
            ..
        }) = life.receive()
        else {
            panic!("restart {restart}");
        };
        assert_eq!(get_u64(&payload, 0), 0);
        assert_eq!(u64::from(deliveries), restart.min(14));
        image = life.medium.killed();
    }
    let expected: Vec<u64> = (0..=1000).collect();
    assert_eq!(open_after_crash(&image, RING, &mut rng), expected);
}

#[test]
fn a_full_table_of_lives_only_receives_until_the_oldest_is_acknowledged() {
    let mut rng = Rng(16);
    let capacity = RING;
    let mut image = new_image(capacity, &mut rng);
    let mut sent = 0;
    loop {
        let life = Life::on(&image, capacity, Mode::FlushOnly, &mut rng).unwrap();
        match life.send(&numbered(sent)) {
            Ok(id) => {
                sent += 1;
                image = life.medium.killed();
                // A send that was torn at the tail names it under the salt that a full table goes on with.
                if sent as usize == LIVES_MAX - 1 {
                    let torn = life.send(&numbered(77)).unwrap();
                    image = life.medium.killed();
                    image[frame_offset(torn, capacity) + 16] ^= 1;
                    assert!(torn > id);
                }
            }
            Err(SendFailure::Io(e)) => {
                assert_eq!(e.kind(), std::io::ErrorKind::StorageFull);
                break;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(sent as usize >= LIVES_MAX - 2, "{sent}");
    let mut life = Life::on(&image, capacity, Mode::PerSend, &mut rng).unwrap();
    let got = life.receive_all();
    assert_eq!(got.len() as u64, sent);
    for got in got {
        let Got::Message { id, .. } = got else {
            panic!("{got:?}")
        };
        life.acknowledge(id);
    }
    life.timer();
    life.close();
    let image = life.medium.killed();
    assert_eq!(open_after_crash(&image, capacity, &mut rng), []);
}

#[test]
fn the_largest_frame_goes_through_at_every_offset_of_an_empty_ring() {
    for mode in [Mode::PerSend, Mode::FlushOnly] {
        let mut rng = Rng(17);
        let capacity = 1024;
        for offset in 0..capacity / 16 {
            let mut life = fresh(capacity, mode, &mut rng);
            for _ in 0..offset {
                life.send(&[]).unwrap();
                let (id, _) = life.receive_message();
                life.acknowledge(id);
            }
            let large = vec![9; capacity as usize / 2 - 32];
            assert!(matches!(
                life.send(&[&large[..], &[0]].concat()),
                Err(SendFailure::TooLarge { .. })
            ));
            life.send(&large).unwrap();
            assert_eq!(
                payloads_of(&life.medium.killed(), capacity, &mut rng),
                std::slice::from_ref(&large)
            );
            assert_eq!(life.receive_message().1, large);
        }
    }
}

#[test]
fn settled_damage_lets_the_head_pass_and_stays_settled() {
    let mut rng = Rng(18);
    let capacity = 1024;
    for close in [false, true] {
        let life = fresh(capacity, Mode::PerSend, &mut rng);
        let ids: Vec<MessageId> = (0..6).map(|n| life.send(&numbered(n)).unwrap()).collect();
        let mut image = life.cut_oldest();
        // The last frame may be torn for all that recovery knows; these lie below the commit.
        for damaged in [1, 3] {
            image[frame_offset(ids[damaged], capacity) + 17] ^= 4;
        }
        let mut life = Life::on(&image, capacity, Mode::PerSend, &mut rng).unwrap();
        let got = life.receive_all();
        assert_eq!(got.len(), 6);
        let mut damage = Vec::new();
        for got in &got {
            match got {
                Got::Message { id, .. } => life.acknowledge(*id),
                Got::Damage { position, end } => damage.push((*position, *end)),
                other => panic!("{other:?}"),
            }
        }
        let places = [1, 3].map(|n: usize| (ids[n].position(), ids[n].position() + 32));
        assert_eq!(damage, places);
        let ring = life.channel.log().ring();
        assert_eq!(ring.head(), ids[1].position(), "damage holds the head back");
        // Out of order.
        life.channel.log().settle(damage[1].0, damage[1].1);
        assert_eq!(ring.head(), ids[1].position());
        life.channel.log().settle(damage[0].0, damage[0].1);
        assert_eq!(ring.head(), ring.tail());
        if close {
            life.close();
        }
        let image = life.medium.killed();
        assert_eq!(open_after_crash(&image, capacity, &mut rng), []);
    }
}

#[test]
fn unsettled_damage_is_reported_again_by_the_next_life() {
    let mut rng = Rng(19);
    let capacity = 1024;
    let life = fresh(capacity, Mode::PerSend, &mut rng);
    let ids: Vec<MessageId> = (0..6).map(|n| life.send(&numbered(n)).unwrap()).collect();
    let mut image = life.cut_oldest();
    image[frame_offset(ids[2], capacity) + 9] ^= 4;
    for closed in [false, true, false, true] {
        let mut life = Life::on(&image, capacity, Mode::PerSend, &mut rng).unwrap();
        let damage = Got::Damage {
            position: ids[2].position(),
            end: ids[3].position(),
        };
        assert!(life.receive_all().contains(&damage));
        if closed {
            life.close();
        }
        image = life.medium.killed();
    }
}

#[test]
fn a_length_bit_that_points_to_another_frame_hides_neither() {
    let mut rng = Rng(20);
    let capacity = 2048;
    let life = fresh(capacity, Mode::PerSend, &mut rng);
    let ids: Vec<MessageId> = (0..20).map(|n| life.send(&numbered(n)).unwrap()).collect();
    let image = life.cut_oldest();
    for damaged in 0..19 {
        for bit in 0..30 {
            let mut image = image.clone();
            image[frame_offset(ids[damaged], capacity) + 8 + bit / 8] ^= 1 << (bit % 8);
            let mut life = Life::on(&image, capacity, Mode::PerSend, &mut rng).unwrap();
            let mut seen = Vec::new();
            let mut corrupt = Vec::new();
            for got in life.receive_all() {
                match got {
                    Got::Message { payload, .. } => seen.push(get_u64(&payload, 0)),
                    Got::Damage { position, .. } => corrupt.push(position),
                    other => panic!("{other:?}"),
                }
            }
            // The commit on disk covers all but the last send.
            let others: Vec<u64> = (0..20).filter(|n| *n != damaged as u64).collect();
            assert_eq!(seen, others, "frame {damaged}, bit {bit}");
            assert_eq!(corrupt, [ids[damaged].position()], "bit {bit}");
        }
    }
}

#[test]
fn a_length_that_lies_across_the_commit_leaves_no_hole_open() {
    let mut rng = Rng(21);
    let capacity = 2048;
    let life = fresh(capacity, Mode::FlushOnly, &mut rng);
    let ids: Vec<MessageId> = (0..20).map(|n| life.send(&numbered(n)).unwrap()).collect();
    life.channel.sync_sent().unwrap();
    life.channel.sync_progress().unwrap();
    let later: Vec<MessageId> = (20..40).map(|n| life.send(&numbered(n)).unwrap()).collect();
    let mut image = life.medium.killed();
    // Frame 15, below the commit, claims to reach over it; frame 25 is torn.
    image[frame_offset(ids[15], capacity) + 8] ^= 0x80;
    image[frame_offset(ids[15], capacity) + 9] ^= 0x01;
    image[frame_offset(later[5], capacity) + 17] ^= 1;
    for _ in 0..2 {
        let mut life = Life::on(&image, capacity, Mode::PerSend, &mut rng).unwrap();
        let got = life.receive_all();
        let corrupt: Vec<u64> = got
            .iter()
            .filter_map(|got| match got {
                Got::Damage { position, .. } => Some(*position),
                _ => None,
            })
            .collect();
        assert_eq!(corrupt, [ids[15].position()]);
        assert_eq!(got.len(), 39);
        image = life.medium.killed();
    }
}

#[test]
fn a_torn_tail_is_refused_when_the_options_say_so() {
    let mut rng = Rng(22);
    let capacity = 1024;
    let life = fresh(capacity, Mode::FlushOnly, &mut rng);
    let ids: Vec<MessageId> = (0..4).map(|n| life.send(&numbered(n)).unwrap()).collect();
    let whole = life.medium.killed();
    let mut strict = |image: &[u8]| {
        let medium = Simulated::new(image.to_vec());
        let policy = Policy { accept_torn: false };
        let opened = recovery::recover(&medium, capacity, policy, &mut || {
            Ok([rng.next(), rng.next()])
        });
        let opened = opened.map(|recovered| recovered.tail);
        if opened.is_err() {
            assert_eq!(medium.moment(), 0, "nothing was changed");
        }
        opened
    };
    assert_eq!(strict(&whole).unwrap(), 4 * 32);
    let mut image = whole.clone();
    image[frame_offset(ids[3], capacity) + 16] ^= 1;
    assert!(strict(&image).is_err(), "the last frame is torn");
    let mut image = whole.clone();
    image[frame_offset(ids[1], capacity) + 16] ^= 1;
    assert!(strict(&image).is_err(), "a hole");
    let mut image = whole;
    let at = frame_offset(ids[2], capacity);
    image[at..at + 24].fill(0);
    image[frame_offset(ids[3], capacity) + 16] ^= 1;
    assert!(strict(&image).is_err(), "unfinished, and torn behind it");
}

#[test]
fn no_payload_is_taken_for_a_frame() {
    let mut rng = Rng(23);
    let capacity = 2048;
    let life = fresh(capacity, Mode::PerSend, &mut rng);
    // Frames that a guesser could make: right positions, a salt that is not the file's.
    let mut payload = Vec::new();
    for position in (0..600u64).step_by(16) {
        payload.extend_from_slice(&word0(position, 1 << 55, State::Delivered(0)).to_le_bytes());
    }
    assert!(state_of(get_u64(&payload, 0)).is_some());
    let ids: Vec<MessageId> = (0..4).map(|_| life.send(&payload).unwrap()).collect();
    let mut image = life.cut_oldest();
    image[frame_offset(ids[0], capacity) + 2] ^= 1;
    let mut life = Life::on(&image, capacity, Mode::PerSend, &mut rng).unwrap();
    let got = life.receive_all();
    let damage = Got::Damage {
        position: ids[0].position(),
        end: ids[1].position(),
    };
    assert_eq!(got[0], damage);
    assert_eq!(got.len(), 4);
}
