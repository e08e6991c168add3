//! Stories that broke earlier drafts, one each.

use super::*;
use walchan_core::format::incarnations::INCARNATIONS_MAX;
use walchan_core::format::{CHECKPOINT_OFFSETS, HEADER_LEN, get_u64};
use walchan_core::recovery::DamagedFrame;

pub(super) const RING: u64 = 64 * 1024;

pub(super) fn numbered(n: u64) -> Vec<u8> {
    n.to_le_bytes().to_vec()
}

pub(super) fn fresh(capacity: u64, mode: Mode, rng: &mut Rng) -> Life {
    let image = new_image(capacity, rng);
    Life::on(&image, capacity, mode, rng).unwrap()
}

/// Opens the image, and checks that what crashes leave is never called damage, and that new messages flow.
pub(super) fn open_after_crash(image: &[u8], capacity: u64, rng: &mut Rng) -> Vec<u64> {
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

/// A synced incarnation leaves a backlog; a `FlushOnly` incarnation acknowledges it and laps, with or without
/// syncs in between; power cuts all along.
fn backlog_then_laps(with_sync: bool, seed: u64) {
    let mut rng = Rng(seed);
    let capacity = 2048;
    let life = fresh(capacity, Mode::PerSend, &mut rng);
    // Of sizes that cross sectors, so that a later lap can tear what it overwrites.
    let payload = |n: u64| [numbered(n), vec![0xcc; (n * 37 % 150) as usize]].concat();
    for n in 0..8 {
        life.send(&payload(n)).unwrap();
    }
    let image = life.cut_random(&mut rng);
    let mut life = Life::on(&image, capacity, Mode::FlushOnly, &mut rng).unwrap();
    let mut next = 8;
    let mut synced = 8;
    for step in 0..300 {
        if life.send(&payload(next)).is_ok() {
            next += 1;
        }
        if let Some(Got::Message { id, .. }) = life.receive() {
            life.acknowledge(id);
        }
        if with_sync && step % 37 == 17 {
            life.channel.sync_sent().unwrap();
            synced = next;
        }
        for _ in 0..6 {
            let image = life.cut_random(&mut rng);
            open_after_crash(&image, capacity, &mut rng);
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

#[test]
fn flush_only_syncs_no_more_after_the_laps_that_follow_a_sync() {
    let mut rng = Rng(41);
    let mut life = fresh(RING, Mode::FlushOnly, &mut rng);
    for n in 0..1000 {
        life.send(&numbered(n)).unwrap();
    }
    life.channel.log().sync_sent().unwrap();
    // Half a ring is always there, so the head never reaches the last commit.
    let (mut laps, mut sent) = (Vec::new(), 1000);
    for lap in 1..20 {
        while life.channel.log().ring().tail() < lap * RING {
            let (id, _) = life.receive_message();
            life.acknowledge(id);
            life.send(&numbered(sent)).unwrap();
            sent += 1;
            if sent % 50 == 0 {
                life.timer();
            }
        }
        laps.push(life.medium.syncs());
    }
    assert_eq!(laps[3], laps[18], "{laps:?}");
}

pub(super) fn frame_offset(id: MessageId, capacity: u64) -> usize {
    (HEADER_LEN + (id.position() & (capacity - 1))) as usize
}

/// Crashes recovery of `image` at every event, and that of what is left again; all must find `expected`.
pub(super) fn crash_recovery(
    image: &[u8],
    capacity: u64,
    expected: &[u64],
    rng: &mut Rng,
) -> usize {
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
fn recovery_of_a_file_with_many_incarnations_killed_at_any_step_finds_the_same() {
    let mut rng = Rng(24);
    let capacity = 2048;
    let mut image = new_image(capacity, &mut rng);
    // A table of several sectors can be torn.
    for n in 0..40 {
        let life = Life::on(&image, capacity, Mode::FlushOnly, &mut rng).unwrap();
        life.send(&numbered(n)).unwrap();
        image = life.medium.killed();
    }
    let expected: Vec<u64> = (0..40).collect();
    crash_recovery(&image, capacity, &expected, &mut rng);
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
fn a_full_table_of_incarnations_only_receives_until_the_oldest_is_acknowledged() {
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
                if sent as usize == INCARNATIONS_MAX {
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
    assert!(sent as usize >= INCARNATIONS_MAX - 2, "{sent}");
    let mut life = Life::on(&image, capacity, Mode::FlushOnly, &mut rng).unwrap();
    assert_eq!(life.report.stepped_over(), 1);
    for _ in 0..sent {
        let (id, _) = life.receive_message();
        life.acknowledge(id);
    }
    assert_eq!(life.receive(), None, "the torn one was not sent");
    life.channel.sync_progress().unwrap();
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
fn what_is_acknowledged_while_a_sync_runs_is_not_reused_after_it() {
    let mut rng = Rng(25);
    let capacity = 1024;
    let mode = Mode::Every {
        max_ops: 100,
        max_delay: std::time::Duration::MAX,
    };
    let mut life = fresh(capacity, mode, &mut rng);
    let ids: Vec<MessageId> = (0..32).map(|n| life.send(&numbered(n)).unwrap()).collect();
    for _ in 0..32 {
        life.receive_message();
    }
    for id in &ids[..16] {
        life.acknowledge(*id);
    }
    let Life {
        channel, medium, ..
    } = life;
    let channel = std::sync::Arc::new(channel);
    let other = std::sync::Arc::clone(&channel);
    medium.during_next_sync(move || {
        for id in &ids[16..] {
            other.log().acknowledge(id.position());
        }
    });
    channel
        .send(
            &CurrentSegment::new(),
            &[IoSlice::new(&numbered(32))],
            Wait::No,
        )
        .unwrap();
    let ring = channel.log().ring();
    assert_eq!(ring.head(), 32 * 32);
    assert_eq!(ring.limit(), 16 * 32 + capacity, "the head that is durable");
    for n in 33..60 {
        channel
            .send(
                &CurrentSegment::new(),
                &[IoSlice::new(&numbered(n))],
                Wait::No,
            )
            .unwrap();
        for _ in 0..8 {
            let image = cut_random(&medium, medium.moment(), &mut rng);
            open_after_crash(&image, capacity, &mut rng);
        }
    }
}
