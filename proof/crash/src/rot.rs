//! Bits that rot: in frames, in their lengths, in header pages.

use super::timelines::{RING, frame_offset, fresh, numbered, open_after_crash};
use super::*;
use walchan_core::format::frame::{State, state_of, word0};
use walchan_core::format::incarnations::TABLE_LEN;
use walchan_core::format::{CHECKPOINT_OFFSETS, HEADER_LEN, PAGE_LEN, TABLE_OFFSETS, get_u64};

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
        if bit < 64 {
            // The scan saw it, too.
            assert_eq!(life.report.kept(), 899);
            let reported: Vec<String> = life
                .report
                .damaged()
                .iter()
                .map(|d| d.to_string())
                .collect();
            assert_eq!(reported, [format!("32 bytes at position {at}")]);
        }
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

#[test]
fn commit_markers_record_the_commit_where_no_checkpoint_does() {
    let mut rng = Rng(7);
    let mut spared = 0;
    for sends in 2..40 {
        let life = fresh(RING, Mode::PerSend, &mut rng);
        let header = |life: &Life| life.cut_oldest()[..HEADER_LEN as usize].to_vec();
        let mut before = header(&life);
        let mut ids = Vec::new();
        for n in 0..sends {
            ids.push(life.send(&numbered(n)).unwrap());
            let after = header(&life);
            spared += u64::from(n > 0 && after == before);
            before = after;
        }
        let whole = life.cut_oldest();
        // Below the last message each is damage, however its bytes rot.
        for rotten in 0..ids.len() - 1 {
            let mut image = whole.clone();
            let at = frame_offset(ids[rotten], RING) + rng.below(24) as usize;
            image[at] ^= 1 << rng.below(8);
            let mut life = Life::on(&image, RING, Mode::PerSend, &mut rng).unwrap();
            let got = life.receive_all();
            assert_eq!(got.len(), ids.len());
            let reported = &got[rotten];
            assert!(
                matches!(reported, Got::Damage { .. }),
                "{rotten} of {sends}: {reported:?}"
            );
        }
    }
    assert!(spared > 500, "{spared} rounds stored no checkpoint");
}

#[test]
fn what_rots_with_the_last_message_is_nine_groups_at_most() {
    let mut rng = Rng(9);
    let mut most = 0;
    for sends in 3..200 {
        let life = fresh(RING, Mode::PerSend, &mut rng);
        let ids: Vec<MessageId> = (0..sends)
            .map(|n| life.send(&numbered(n)).unwrap())
            .collect();
        let whole = life.cut_oldest();
        let last = frame_offset(ids[ids.len() - 1], RING) as u64;
        for (unit, fill) in [(SECTOR_LEN, 0), (PAGE_LEN, 0), (PAGE_LEN, 0xff)] {
            let mut image = whole.clone();
            let from = (last / unit * unit).max(HEADER_LEN);
            image[from as usize..(from + unit) as usize].fill(fill);
            let mut life = Life::on(&image, RING, Mode::PerSend, &mut rng).unwrap();
            let reported = life.receive_all().into_iter().map(|got| match got {
                Got::Message { .. } => 1,
                Got::Damage { position, end } => (end - position) / 32,
                other => panic!("{other:?}"),
            });
            let missing = sends - reported.sum::<u64>();
            assert!((1..=9).contains(&missing), "{missing} of {sends}, {unit}");
            most = most.max(missing);
        }
    }
    assert_eq!(most, 9);
}

#[test]
fn flush_only_laps_have_no_commit_markers() {
    let mut rng = Rng(8);
    let capacity = 1024;
    for seed in 0..30 {
        let mut life = fresh(capacity, Mode::FlushOnly, &mut rng);
        for n in 0..seed {
            life.send(&numbered(n)).unwrap();
        }
        life.channel.sync_sent().unwrap();
        life.channel.sync_progress().unwrap();
        // The first behind the commit, and laps behind that.
        for n in seed..200 {
            let Ok(_) = life.send(&numbered(n)) else {
                let (id, _) = life.receive_message();
                life.acknowledge(id);
                continue;
            };
        }
        for _ in 0..30 {
            let moment = rng.below(life.medium.moment() as u64 + 1) as usize;
            let image = cut_random(&life.medium, moment, &mut rng);
            let mut life = Life::on(&image, capacity, Mode::FlushOnly, &mut rng).unwrap();
            for got in life.receive_all() {
                assert!(matches!(got, Got::Message { .. }), "{got:?}");
            }
        }
    }
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
fn released_damage_lets_the_head_pass_and_stays_released() {
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
        life.channel.log().release_damage(damage[1].0, damage[1].1);
        assert_eq!(ring.head(), ids[1].position());
        life.channel.log().release_damage(damage[0].0, damage[0].1);
        assert_eq!(ring.head(), ring.tail());
        if close {
            life.close();
        }
        let image = life.medium.killed();
        assert_eq!(open_after_crash(&image, capacity, &mut rng), []);
    }
}

#[test]
fn unreleased_damage_is_reported_again_by_the_next_incarnation() {
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
            if bit == 4 {
                // It points into the next frame, so the scan saw that it lies.
                let reported: Vec<u64> =
                    life.report.damaged().iter().map(|d| d.position()).collect();
                assert_eq!(reported, [ids[damaged].position()]);
                assert_eq!(life.report.kept(), 19);
            }
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

#[test]
fn an_acknowledged_frame_with_a_rotten_length_takes_no_other_along() {
    let mut rng = Rng(26);
    let capacity = 1024;
    let mut life = fresh(capacity, Mode::PerSend, &mut rng);
    let first = life.send(&numbered(0)).unwrap();
    // The head stays behind it: nothing is recorded after the acknowledgement. So many that a checkpoint has
    // a commit behind it.
    for n in 1..12 {
        life.send(&numbered(n)).unwrap();
    }
    life.receive_message();
    let header = life.cut_oldest()[..walchan_core::format::HEADER_LEN as usize].to_vec();
    life.acknowledge(first);
    let mut image = life.medium.killed();
    image[..header.len()].copy_from_slice(&header);
    // Its length says that the next frame is a part of it.
    image[frame_offset(first, capacity) + 8] ^= 0x20;
    let mut life = Life::on(&image, capacity, Mode::PerSend, &mut rng).unwrap();
    let mut numbers = Vec::new();
    for got in life.receive_all() {
        if let Got::Message { payload, .. } = got {
            numbers.push(get_u64(&payload, 0));
        }
    }
    assert_eq!(numbers, (1..12).collect::<Vec<_>>());
}
