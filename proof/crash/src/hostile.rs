//! What no crash leaves: flipped bits, cut files, random bytes, lying fields.

use super::*;
use std::io;
use walchan_core::format::checkpoint::Checkpoint;
use walchan_core::format::frame::frame_len;
use walchan_core::format::incarnations::{INCARNATIONS_MAX, Incarnation, Incarnations};
use walchan_core::format::{
    CAPACITY_MIN, CHECKPOINT_OFFSETS, HEADER_LEN, PAGE_LEN, POSITION_MAX, TABLE_OFFSETS, get_u64,
};
use walchan_core::storage::Medium;

/// A file with every kind of frame in it: messages of several sizes in several states, padding, an abandoned
/// frame that closed a hole, two incarnations.
struct Sample {
    capacity: u64,
    image: Vec<u8>,
    /// Positions, ends and payloads of what is to be delivered.
    messages: Vec<(u64, u64, Vec<u8>)>,
    /// Damage at or behind it cannot be distinguished from a tear.
    commit: u64,
}

fn sample(close: bool) -> Sample {
    let mut rng = Rng(31);
    let capacity = 512;
    let life = Life::on(
        &new_image(capacity, &mut rng),
        capacity,
        Mode::FlushOnly,
        &mut rng,
    );
    let mut life = life.unwrap();
    // Up to near the ring's end, all acknowledged; then a frame that needs padding.
    for n in 0..6u8 {
        life.send(&[n; 50]).unwrap();
        let (id, _) = life.receive_message();
        life.acknowledge(id);
    }
    let mut messages = Vec::new();
    let keep = |messages: &mut Vec<_>, id: MessageId, payload: &[u8]| {
        let end = id.position() + frame_len(payload.len() as u64);
        messages.push((id.position(), end, payload.to_vec()));
    };
    let first = life.send(&[10; 5]).unwrap();
    keep(&mut messages, first, &[10; 5]);
    let torn = life.send(&[11; 20]).unwrap();
    let second = life.send(&[12; 40]).unwrap();
    keep(&mut messages, second, &[12; 40]);
    life.receive_message();
    let mut image = life.medium.killed();
    image[(HEADER_LEN + torn.position() % capacity + 16) as usize] ^= 1;

    let mut life = Life::on(&image, capacity, Mode::PerSend, &mut rng).unwrap();
    assert_eq!(life.report.stepped_over(), 1);
    let done = life.send(&[13; 17]).unwrap();
    for payload in [&[14; 60][..], &[15; 8], &[16; 8]] {
        let id = life.send(payload).unwrap();
        keep(&mut messages, id, payload);
    }
    while life.receive().is_some() {}
    life.acknowledge(done);
    if close {
        life.close();
    } else {
        life.timer();
    }
    let commit = life.channel.log().ring().tail();
    assert!(messages.iter().any(|m| m.0 >= capacity), "it wraps");
    Sample {
        capacity,
        image: life.medium.killed(),
        messages,
        commit,
    }
}

/// Opens a file in which at most the bytes `[from, to)` of the ring were changed. What does not touch them is
/// delivered, in order; below the commit nothing is lost without a word.
fn open_changed(sample: &Sample, image: &[u8], from: u64, to: u64, rng: &mut Rng) {
    let capacity = sample.capacity;
    let mut life = Life::on(image, capacity, Mode::PerSend, rng).unwrap();
    let mut delivered = Vec::new();
    let mut corrupt = 0;
    for got in life.receive_all() {
        match got {
            Got::Message { payload, .. } => delivered.push(payload),
            Got::Damage { .. } => corrupt += 1,
            other => panic!("{other:?}"),
        }
    }
    let reported = corrupt + life.report.damaged().len();
    let mut rest = delivered.iter().peekable();
    for (position, end, payload) in &sample.messages {
        let offset = position % capacity;
        let touched = offset < to && from < offset + (end - position);
        if rest.next_if(|got| *got == payload).is_none() {
            assert!(touched, "the message at {position} is lost by {from}..{to}");
            assert!(
                reported > 0 || *position >= sample.commit,
                "silently: {position}"
            );
        }
    }
    assert_eq!(rest.next(), None, "delivered and never sent");
    life.send(b"new").unwrap();
    assert_eq!(life.receive_message().1, b"new");
}

#[test]
fn every_bit_of_the_ring_flipped_loses_at_most_its_own_message() {
    let mut rng = Rng(32);
    for close in [false, true] {
        let sample = sample(close);
        open_changed(&sample, &sample.image, 0, 0, &mut rng);
        for bit in 0..sample.capacity * 8 {
            let mut image = sample.image.clone();
            image[(HEADER_LEN + bit / 8) as usize] ^= 1 << (bit % 8);
            open_changed(&sample, &image, bit / 8, bit / 8 + 1, &mut rng);
        }
    }
}

#[test]
fn every_16_bytes_of_the_ring_overwritten_lose_at_most_their_own_message() {
    let mut rng = Rng(33);
    let sample = sample(false);
    for from in (0..sample.capacity).step_by(8) {
        for len in [8, 16, 40] {
            for fill in [0, 0xff, 0xa5] {
                let to = (from + len).min(sample.capacity);
                let mut image = sample.image.clone();
                image[(HEADER_LEN + from) as usize..(HEADER_LEN + to) as usize].fill(fill);
                open_changed(&sample, &image, from, to, &mut rng);
            }
        }
    }
}

#[test]
fn every_bit_of_the_header_flipped_costs_nothing() {
    let mut rng = Rng(34);
    for close in [false, true] {
        let sample = sample(close);
        // Where something is stored every bit, in the reserved rest some (all with the feature `stress`).
        let step = if cfg!(feature = "stress") { 1 } else { 1021 };
        let bits = (PAGE_LEN * 8..HEADER_LEN * 8).filter(|bit| {
            let starts = TABLE_OFFSETS.into_iter().map(|at| (at, 64 + 3 * 32));
            let starts = starts.chain(CHECKPOINT_OFFSETS.into_iter().map(|at| (at, 72)));
            let mut used = starts.map(|(at, len)| at * 8..(at + len) * 8);
            used.any(|used| used.contains(bit)) || bit % step == 0
        });
        for bit in bits {
            let mut image = sample.image.clone();
            image[(bit / 8) as usize] ^= 1 << (bit % 8);
            open_changed(&sample, &image, 0, 0, &mut rng);
        }
    }
}

#[test]
fn every_bit_of_the_identity_flipped_is_an_error() {
    let identity = Identity {
        version: FORMAT_VERSION,
        capacity: 64 * 1024,
        channel_id: [3; 16],
        codec: 1,
        schema: "orders".to_owned(),
        number: 0,
        start: 0,
        follows: 0,
    };
    let page = identity.encode();
    assert_eq!(Identity::decode(&page, CAPACITY_MIN), Ok(identity));
    for bit in 0..page.len() * 8 {
        let mut page = page.clone();
        page[bit / 8] ^= 1 << (bit % 8);
        assert!(Identity::decode(&page, CAPACITY_MIN).is_err(), "bit {bit}");
    }
}

/// The start of a file.
struct Cut<'a>(&'a [u8]);

impl Medium for Cut<'_> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let end = offset as usize + bytes.len();
        let found = self.0.get(offset as usize..end);
        bytes.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        panic!("nothing is written before the length is known to be right")
    }

    fn sync_written(&self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn every_length_but_the_whole_is_an_error() {
    let mut rng = Rng(35);
    let image = new_image(64 * 1024, &mut rng);
    let len = image.len();
    for cut in (0..len).filter(|cut| cut % 13 == 0 || cut % 4096 < 2 || cut + 20 > len) {
        let error = recovery::read_identity(&Cut(&image[..cut]), CAPACITY_MIN).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }
    assert!(recovery::read_identity(&Cut(&image), CAPACITY_MIN).is_ok());
}

#[test]
fn random_bytes_are_an_error_or_an_empty_ring() {
    let mut rng = Rng(36);
    for _ in 0..200 {
        let mut image = new_image(1024, &mut rng);
        // Anywhere in the header: an error, or what the other copy says.
        let (from, len) = (rng.below(HEADER_LEN), 1 + rng.below(9000));
        for at in from..(from + len).min(HEADER_LEN) {
            image[at as usize] = rng.next() as u8;
        }
        for byte in &mut image[HEADER_LEN as usize..] {
            *byte = rng.next() as u8;
        }
        if let Ok(mut life) = Life::on(&image, 1024, Mode::PerSend, &mut rng) {
            assert_eq!(life.receive_all(), []);
        }
        let noise: Vec<u8> = (0..image.len()).map(|_| rng.next() as u8).collect();
        assert!(Life::on(&noise, 1024, Mode::PerSend, &mut rng).is_err());
        assert!(recovery::read_identity(&Cut(&noise), CAPACITY_MIN).is_err());
    }
}

#[test]
fn lying_fields_with_a_right_checksum_neither_panic_nor_hang_nor_invent() {
    let mut rng = Rng(37);
    let sample = sample(false);
    let capacity = sample.capacity;
    let medium = Simulated::new(sample.image.clone());
    let mut table = vec![0; walchan_core::format::incarnations::TABLE_LEN];
    medium.read_at(TABLE_OFFSETS[0], &mut table).unwrap();
    let honest = Incarnations::decode(&table).unwrap();
    let extremes = [
        0,
        8,
        16,
        capacity - 16,
        capacity,
        capacity + 16,
        2 * capacity,
        sample.commit,
        sample.commit - 64,
        POSITION_MAX - 16,
        POSITION_MAX - capacity,
        POSITION_MAX,
        1 << 62,
        1 << 61,
        u64::MAX - 15,
        u64::MAX,
    ];
    let mut opened = 0;
    for case in 0..4000 {
        let mut image = sample.image.clone();
        let pick = |rng: &mut Rng, honest: u64| match rng.below(3) {
            0 => honest,
            1 => extremes[rng.below(extremes.len() as u64) as usize],
            _ => honest.wrapping_add(extremes[rng.below(4) as usize]),
        };
        if case % 2 == 0 {
            for at in CHECKPOINT_OFFSETS {
                let offset = at as usize;
                let page = &image[offset..offset + PAGE_LEN as usize];
                let stored = Checkpoint::decode(page, capacity).unwrap();
                let lie = Checkpoint {
                    generation: pick(&mut rng, stored.generation),
                    head: pick(&mut rng, stored.head),
                    commit: pick(&mut rng, stored.commit),
                    tail: pick(&mut rng, stored.tail),
                    base: if rng.chance(90) { 0 } else { pick(&mut rng, 0) },
                    unacknowledged: pick(&mut rng, stored.unacknowledged),
                    handed_out: pick(&mut rng, 0) as u32,
                    clean: rng.chance(50),
                    sealed: false,
                };
                image[offset..offset + 64].copy_from_slice(&lie.encode());
            }
        }
        if case % 3 == 0 {
            let mut incarnations: Option<Incarnations> = None;
            for n in 0..1 + rng.below(4) {
                let mut life = match rng.below(3) {
                    0 => honest.newest(),
                    _ => Incarnation {
                        number: n,
                        start: 0,
                        ..honest.at(honest.newest().start - 16).unwrap()
                    },
                };
                life.start = pick(&mut rng, life.start);
                life.number = pick(&mut rng, life.number);
                match &mut incarnations {
                    None => incarnations = Some(Incarnations::first(life)),
                    Some(incarnations) => assert!(incarnations.push(life)),
                }
            }
            let table = incarnations.unwrap().encode();
            for at in TABLE_OFFSETS {
                image[at as usize..at as usize + table.len()].copy_from_slice(&table);
            }
        }
        let Ok(mut life) = Life::on(&image, capacity, Mode::PerSend, &mut rng) else {
            continue;
        };
        opened += 1;
        for got in life.receive_all() {
            if let Got::Message { id, payload, .. } = got {
                // Frames that were acknowledged may come back when the header says so.
                let first = payload[0];
                assert!(payload.iter().all(|b| *b == first) && first <= 16);
                life.acknowledge(id);
            }
        }
        drop(life.send(b"new"));
        life.timer();
        let again = Life::on(&life.medium.killed(), capacity, Mode::PerSend, &mut rng);
        again.unwrap();
    }
    assert!(opened > 200, "{opened}");
}

#[test]
fn a_count_of_incarnations_that_the_table_cannot_hold_is_refused() {
    let mut rng = Rng(38);
    let image = new_image(512, &mut rng);
    for count in [0, INCARNATIONS_MAX as u32 + 1, u32::MAX] {
        let mut image = image.clone();
        for at in TABLE_OFFSETS {
            let table = &mut image[at as usize..at as usize + 8 * PAGE_LEN as usize];
            table[12..16].copy_from_slice(&count.to_le_bytes());
            let mut hasher = crc32fast::Hasher::new();
            hasher.update(&table[..8]);
            hasher.update(&table[12..]);
            let crc = hasher.finalize();
            table[8..12].copy_from_slice(&crc.to_le_bytes());
        }
        assert!(Life::on(&image, 512, Mode::PerSend, &mut rng).is_err());
    }
}

#[test]
fn damage_across_the_end_of_the_ring_and_the_start_of_an_incarnation_is_reported_piece_by_piece() {
    let mut rng = Rng(40);
    let capacity = 1024;
    let mut image = new_image(capacity, &mut rng);
    // Three incarnations that leave ten frames of 32 bytes each; the head is far enough for them to wrap.
    let mut life = Life::on(&image, capacity, Mode::PerSend, &mut rng).unwrap();
    for _ in 0..20 {
        life.send(&[0; 8]).unwrap();
        let (id, _) = life.receive_message();
        life.acknowledge(id);
    }
    let mut ids = Vec::new();
    for round in 0..3u64 {
        for n in 0..10u64 {
            ids.push(life.send(&(round * 10 + n).to_le_bytes()).unwrap());
        }
        image = life.medium.killed();
        life = Life::on(&image, capacity, Mode::PerSend, &mut rng).unwrap();
    }
    image = life.medium.killed();
    for first in 0..25usize {
        let last = first + 4;
        let mut image = image.clone();
        for id in &ids[first..=last] {
            let at = frame_at(*id, capacity);
            image[at..at + 32].fill(0x5a);
        }
        let mut life = Life::on(&image, capacity, Mode::PerSend, &mut rng).unwrap();
        let (mut seen, mut pieces) = (Vec::new(), Vec::new());
        for got in life.receive_all() {
            match got {
                Got::Message { id, payload, .. } => {
                    life.acknowledge(id);
                    seen.push(get_u64(&payload, 0) as usize);
                }
                Got::Damage { position, end } => pieces.push((position, end)),
                other => panic!("{other:?}"),
            }
        }
        let others: Vec<usize> = (0..30).filter(|n| !(first..=last).contains(n)).collect();
        assert_eq!(seen, others);
        // They cover what was damaged, and none crosses a boundary.
        assert_eq!(pieces[0].0, ids[first].position());
        assert_eq!(pieces[pieces.len() - 1].1, ids[last].position() + 32);
        assert!(pieces.windows(2).all(|pair| pair[0].1 == pair[1].0));
        for (from, to) in &pieces {
            assert_eq!(from / capacity, (to - 1) / capacity);
            assert_eq!(
                life.channel.log().ring().incarnations().at(*from),
                life.channel.log().ring().incarnations().at(to - 16)
            );
            life.channel.log().release_damage(*from, *to);
        }
        let ring = life.channel.log().ring();
        assert_eq!(ring.head(), ring.tail());
        assert_eq!(
            payloads_of(&life.medium.killed(), capacity, &mut rng).len(),
            0
        );
    }
}

fn frame_at(id: MessageId, capacity: u64) -> usize {
    (HEADER_LEN + (id.position() & (capacity - 1))) as usize
}
