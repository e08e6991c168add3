//! Frames that somebody made: at places that no channel reaches, and as payloads of their own channel.

use super::oracle::{Crash, Found, Oracle, Sent};
use super::*;
use walchan_core::format::checkpoint::Checkpoint;
use walchan_core::format::frame::{Kind, SALT_MASK, State, Word1, salt_from, word0};
use walchan_core::format::incarnations::{Incarnation, Incarnations};
use walchan_core::format::{CHECKPOINT_OFFSETS, HEADER_LEN, POSITION_MAX, TABLE_OFFSETS, put_u64};

const SALT: u64 = 1 << 55 | 0x00c0_ffee_1234_5678;

/// A file whose only incarnation began at `start`, where its head is.
fn image_at(start: u64, capacity: u64) -> Vec<u8> {
    let mut image = new_image(capacity, &mut Rng(1));
    let life = Incarnation {
        start,
        salt: SALT,
        tag: 5,
        number: 1,
    };
    let table = Incarnations::first(life).encode();
    for at in TABLE_OFFSETS {
        image[at as usize..at as usize + table.len()].copy_from_slice(&table);
    }
    for (generation, at) in (1..).zip(CHECKPOINT_OFFSETS) {
        let checkpoint = Checkpoint {
            generation,
            head: start,
            commit: start,
            tail: start,
            ..Checkpoint::default()
        };
        image[at as usize..at as usize + 64].copy_from_slice(&checkpoint.encode());
    }
    image
}

/// The bytes of a message's frame, right in everything under this salt.
fn frame_of(position: u64, salt: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 16];
    let crc = walchan_core::format::frame::crc(payload);
    let word1 = Word1::new(Kind::Message, position, salt, payload.len() as u32, crc);
    put_u64(&mut bytes, 0, word0(position, salt, State::Delivered(0)));
    put_u64(&mut bytes, 8, word1.encode());
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len().next_multiple_of(16), 0);
    bytes
}

fn put_frame(image: &mut [u8], capacity: u64, position: u64, frame: &[u8]) {
    let at = (HEADER_LEN + position % capacity) as usize;
    image[at..at + frame.len()].copy_from_slice(frame);
}

/// The header that recovery wrote with a tail at 2^59 could not be read again, and all was lost.
#[test]
fn a_frame_that_ends_behind_the_last_position_is_none_and_the_file_opens_again() {
    let (capacity, mut rng) = (512, Rng(2));
    for (start, at) in [
        (POSITION_MAX - 64, POSITION_MAX),
        (POSITION_MAX - 64, POSITION_MAX - 48),
        (POSITION_MAX - 64, POSITION_MAX + 48),
    ] {
        let mut image = image_at(start, capacity);
        put_frame(&mut image, capacity, start, &frame_of(start, SALT, b""));
        put_frame(&mut image, capacity, at, &frame_of(at, SALT, &[3; 32]));
        for _ in 0..3 {
            let mut life = Life::on(&image, capacity, Mode::PerSend, &mut rng).unwrap();
            let got = life.receive_all();
            let [Got::Message { id, .. }] = got[..] else {
                panic!("{at}: {got:?}");
            };
            assert_eq!(id.position(), start);
            image = life.medium.killed();
        }
    }
}

#[test]
fn a_channel_at_the_end_of_all_positions_is_full_and_keeps_what_it_has() {
    let (capacity, mut rng) = (512, Rng(3));
    for units in 1..12 {
        for close in [false, true] {
            let start = POSITION_MAX - 16 * units;
            let image = image_at(start, capacity);
            let life = Life::on(&image, capacity, Mode::PerSend, &mut rng).unwrap();
            let mut sent = 0;
            let error = loop {
                match life.send(&[7; 10]) {
                    Ok(id) => assert!(id.position() + 32 < POSITION_MAX),
                    Err(error) => break error,
                }
                sent += 1;
            };
            assert!(
                matches!(error, SendFailure::Io(e) if e.kind() == std::io::ErrorKind::StorageFull)
            );
            assert!(sent == (units - 1) / 2);
            if close {
                life.close();
            }
            let image = life.medium.killed();
            let found = payloads_of(&image, capacity, &mut rng);
            assert_eq!(found, vec![vec![7; 10]; sent as usize]);
        }
    }
}

/// A salt as somebody without the file in hand could guess it.
fn guess(position: u64, tag: u64, rng: &mut Rng) -> u64 {
    let top = 1 << 55;
    let guesses = [
        0,
        SALT_MASK,
        top,
        SALT_MASK >> 1,
        tag & SALT_MASK,
        salt_from(tag),
        salt_from(tag >> 8),
        salt_from(tag.rotate_left(29)),
        position >> 4,
        salt_from(position >> 4),
        salt_from(!(position >> 4)),
        // Of another file.
        SALT,
        SALT ^ 1,
        // Of no incarnation at all.
        salt_from(rng.next()),
    ];
    guesses[rng.below(guesses.len() as u64) as usize]
}

/// A random program whose payloads are images of frames.
struct Forger {
    rng: Rng,
    capacity: u64,
    next: u64,
    /// Images carry the salt of the incarnation, which no sender knows.
    knows_salt: bool,
    /// Payloads that were received, to be sent again as parts of others.
    received: Vec<Vec<u8>>,
    forged: u64,
    images: u64,
}

impl Forger {
    fn new(seed: u64, knows_salt: bool) -> Forger {
        let mut rng = Rng(seed);
        let capacity = 1024 << rng.below(3);
        Forger {
            rng,
            capacity,
            next: 0,
            knows_salt,
            received: Vec::new(),
            forged: 0,
            images: 0,
        }
    }

    /// The number, then images of frames, each for the place where it will lie, now or some laps later; or
    /// what was received before, as it was.
    fn payload(&mut self, life: &Life, len: u64) -> Vec<u8> {
        let (ring, rng) = (life.channel.log().ring(), &mut self.rng);
        let newest = ring.incarnations().newest();
        let mut payload = self.next.to_le_bytes().to_vec();
        payload.resize(16, 0);
        if rng.chance(20)
            && let Some(earlier) = self.received.last()
        {
            payload.extend_from_slice(&earlier[16.min(earlier.len())..]);
            payload.truncate(len.max(16) as usize);
            return payload;
        }
        let frame_len = walchan_core::format::frame::frame_len(len);
        let tail = ring.tail() + ring.layout().padding(ring.tail(), frame_len);
        while (payload.len() as u64) + 16 <= len {
            // Of a later lap only by guessed salts: with the true one a living channel would follow them.
            let laps = [0, 0, 0, 1, 2][rng.below(if self.knows_salt { 3 } else { 5 }) as usize];
            let position = tail + 16 + payload.len() as u64 + laps * self.capacity;
            let salt = if self.knows_salt {
                newest.salt
            } else {
                guess(position, newest.tag, rng)
            };
            let room = len - payload.len() as u64 - 16;
            let inner = vec![0xfa; rng.below(room.min(80) + 1) as usize];
            payload.extend_from_slice(&frame_of(position, salt, &inner));
            self.forged += 1;
        }
        payload.truncate(len.max(16) as usize);
        payload
    }

    fn mode(&mut self) -> Mode {
        [Mode::PerSend, Mode::FlushOnly][self.rng.below(2) as usize]
    }

    fn run(&mut self, incarnations: u64) {
        let mut medium = Simulated::new(new_image(self.capacity, &mut self.rng));
        let mut sent = Vec::new();
        for _ in 0..incarnations {
            let mode = self.mode();
            let mut life = Life::open(medium, self.capacity, mode, &mut self.rng).unwrap();
            let mut oracle = Oracle::new(mode, sent, life.tail);
            let recovered = life.medium.moment();
            self.live(&mut life, &mut oracle);
            let end = life.medium.moment();
            let mut last = None;
            for _ in 0..4 {
                let moment = recovered + self.rng.below((end - recovered + 1) as u64) as usize;
                let (image, crash) = if self.rng.chance(20) {
                    let newest = |_, values: usize| values - 1;
                    (life.medium.cut(moment, newest), Crash::Kill)
                } else {
                    let image = cut_random(&life.medium, moment, &mut self.rng);
                    (image, Crash::PowerCut)
                };
                let drained = drain(&image, self.capacity, &mut self.rng);
                let mut film = life.medium.film();
                film.advance_to(moment);
                let expected = oracle.expect(moment, |part| film.durable_moment_of(part), crash);
                expected.check(&drained);
                self.images += 1;
                last = Some((Simulated::new(image), drained));
            }
            let (left, found) = last.unwrap();
            (medium, sent) = (left, oracle.carried(&found));
        }
    }

    fn live(&mut self, life: &mut Life, oracle: &mut Oracle) {
        let max = life.channel.log().ring().layout().payload_len_max();
        let mut held = Vec::new();
        for _ in 0..self.rng.below(80) {
            let medium = life.medium.clone();
            let from = medium.moment();
            match self.rng.below(10) {
                0..4 => {
                    let len = 32 + self.rng.below(max - 31);
                    let (number, payload) = (self.next, self.payload(life, len));
                    if let Ok(id) = life.send(&payload) {
                        let call = (from, medium.moment());
                        let sent = Sent::by_one_call(id, 0, number, payload, call);
                        oracle.sent.push(sent);
                        self.next += 1;
                    }
                }
                4..7 => {
                    if let Some(Got::Message { id, payload, .. }) = life.receive() {
                        let sent = oracle.find(id).expect("it was sent");
                        assert_eq!(payload, sent.payload);
                        sent.delivered.push((from, medium.moment()));
                        held.push(id);
                        self.received.push(payload);
                    }
                }
                7..9 => {
                    if !held.is_empty() {
                        let id = held.remove(0);
                        life.acknowledge(id);
                        let sent = oracle.find(id).expect("it was received");
                        sent.acknowledged = Some((from, medium.moment()));
                    }
                }
                _ => life.timer(),
            }
        }
    }
}

fn drain(image: &[u8], capacity: u64, rng: &mut Rng) -> Found {
    let mut life = Life::on(image, capacity, Mode::PerSend, rng).unwrap();
    let mut found = Found {
        clean: life.report.is_clean(),
        stepped_over: life.report.stepped_over(),
        ..Found::default()
    };
    for got in life.receive_all() {
        let Got::Message {
            id,
            deliveries,
            payload,
        } = got
        else {
            panic!("{got:?}");
        };
        assert!(payload.len() >= 16, "made up: {payload:?}");
        found.push(id, deliveries, &payload);
    }
    found
}

const SEEDS: u64 = if cfg!(feature = "stress") {
    10_000
} else {
    100
};

#[test]
fn payloads_made_of_frame_images_never_become_messages() {
    let (mut forged, mut images) = (0, 0);
    for seed in 0..SEEDS {
        let mut forger = Forger::new(seed, false);
        forger.run(5);
        forged += forger.forged;
        images += forger.images;
    }
    println!("{SEEDS} programs, {forged} frame images in payloads, {images} crash images");
}

/// What the test above would find if a salt could be guessed.
#[test]
fn payloads_made_with_the_true_salt_do_become_messages() {
    let caught = (0..SEEDS.min(100)).filter(|seed| {
        let run = || Forger::new(*seed, true).run(5);
        std::panic::catch_unwind(run).is_err()
    });
    let caught = caught.count();
    println!("{caught} of {} programs", SEEDS.min(100));
    assert!(caught > 0);
}

#[test]
fn a_frame_image_with_the_true_salt_counts_only_where_no_frame_covers_it() {
    let (capacity, mut rng) = (1024, Rng(4));
    let neighbours = [0, 1, 1 << 8, 1 << 54, 1 << 55];
    for flip in neighbours {
        let image = new_image(capacity, &mut rng);
        let life = Life::on(&image, capacity, Mode::FlushOnly, &mut rng).unwrap();
        let salt = life.channel.log().ring().incarnations().newest().salt ^ flip;
        let first = life.send(b"first").unwrap();
        let position = first.position() + 32 + 16 + 16;
        let payload = [vec![1; 16], frame_of(position, salt, b"forged")].concat();
        let outer = life.send(&payload).unwrap();
        assert_eq!(outer.position(), first.position() + 32);
        let mut image = life.medium.killed();
        let sent = vec![b"first".to_vec(), payload];
        assert_eq!(payloads_of(&image, capacity, &mut rng), sent);
        // The header around it is gone, as a power cut can leave it.
        let at = (HEADER_LEN + outer.position()) as usize;
        image[at..at + 16].fill(0);
        let mut expected = vec![b"first".to_vec()];
        if flip == 0 {
            expected.push(b"forged".to_vec());
        }
        assert_eq!(payloads_of(&image, capacity, &mut rng), expected);
    }
}

/// Space that was acknowledged and reused in `FlushOnly`, between the head of a synced checkpoint and the
/// start of the incarnation that wrote it, was called damage after a power cut: everything before that start
/// counts as durable.
#[test]
fn flush_only_that_reuses_the_space_of_an_earlier_incarnation_leaves_no_damage() {
    let mut rng = Rng(5);
    let capacity = 1024;
    let image = new_image(capacity, &mut rng);
    let life = Life::on(&image, capacity, Mode::FlushOnly, &mut rng).unwrap();
    for n in 0..3u8 {
        life.send(&[n; 112]).unwrap();
    }
    let killed = life.medium.killed();
    let mut life = Life::on(&killed, capacity, Mode::FlushOnly, &mut rng).unwrap();
    let acknowledge_next = |life: &mut Life| {
        let (id, _) = life.receive_message();
        life.acknowledge(id);
    };
    // Into the space of the first message, which takes syncs; then, all of the earlier incarnation
    // acknowledged, on.
    acknowledge_next(&mut life);
    let mut waiting: Vec<MessageId> = (10..16u8).map(|n| life.send(&[n; 112]).unwrap()).collect();
    acknowledge_next(&mut life);
    acknowledge_next(&mut life);
    let before = life.medium.moment();
    waiting.push(life.send(&[20; 112]).unwrap());
    assert_eq!(waiting[6].position(), 9 * 128);
    let header = HEADER_LEN / SECTOR_LEN;
    for moment in before..=life.medium.moment() {
        let oldest_header = |sector, values| if sector < header { 0 } else { values - 1 };
        let image = life.medium.cut(moment, oldest_header);
        let mut again = Life::on(&image, capacity, Mode::PerSend, &mut rng).unwrap();
        assert_eq!(again.report.damaged(), [], "at {moment}");
        let got = again.receive_all();
        assert!(got.len() >= 6, "at {moment}: {got:?}");
        let mut positions = waiting.iter().map(|id| id.position());
        for got in got {
            assert!(
                matches!(got, Got::Message { id, .. } if positions.any(|at| at == id.position()))
            );
        }
    }
}
