//! Every single bit of four files flipped, and what became of it, counted by where the bit lies.
//!
//! Whatever the bit: nothing is delivered that was not to be delivered, in any other order, or with other
//! bytes; at most the message that the bit lies in is missing, and its place is reported if it was durable.

use super::*;
use std::fmt::Write as _;
use walchan_core::format::checkpoint::Checkpoint;
use walchan_core::format::frame::{self, Kind, State, Word1};
use walchan_core::format::incarnations::{Incarnations, TABLE_LEN};
use walchan_core::format::{CHECKPOINT_OFFSETS, HEADER_LEN, PAGE_LEN, TABLE_OFFSETS, get_u64};

/// What a flipped bit came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// Nothing is different.
    Nothing,
    /// A header copy is reported, all is delivered.
    HeaderFault,
    /// The message is missing, and its place is reported as damage of what was durable.
    Damage,
    /// The message is missing; it was not durable, and its place is reported.
    StepReported,
    /// The message is missing; it was the last, not durable, and is not reported.
    Silent,
    /// Nothing is missing, and one place more is reported.
    OnlyReported,
    /// Nothing is missing, and a torn send at the end is not reported any more.
    LessReported,
}

const OUTCOMES: [(Outcome, &str); 7] = [
    (Outcome::Nothing, "no effect"),
    (Outcome::HeaderFault, "header fault"),
    (Outcome::Damage, "durable, `Corrupt`"),
    (Outcome::StepReported, "not durable, reported"),
    (Outcome::Silent, "the last, not durable, silent"),
    (Outcome::OnlyReported, "nothing lost, reported"),
    (Outcome::LessReported, "torn send not reported"),
];

/// What an image delivers and reports.
#[derive(Clone, Debug, PartialEq)]
struct Opened {
    /// Positions and payloads.
    messages: Vec<(u64, Vec<u8>)>,
    damage: Vec<(u64, u64)>,
    /// Positions that the report of the scan has.
    damaged: Vec<u64>,
    stepped_over: u64,
    faults: Vec<u64>,
}

fn open(image: &[u8], capacity: u64, rng: &mut Rng) -> (Opened, Vec<u8>) {
    let mut life = Life::on(image, capacity, Mode::PerSend, rng).unwrap();
    let (mut messages, mut damage) = (Vec::new(), Vec::new());
    for got in life.receive_all() {
        match got {
            Got::Message { id, payload, .. } => messages.push((id.position(), payload)),
            Got::Damage { position, end } => damage.push((position, end)),
            other => panic!("{other:?}"),
        }
    }
    let opened = Opened {
        messages,
        damage,
        damaged: life.report.damaged().iter().map(|d| d.position()).collect(),
        stepped_over: life.report.stepped_over(),
        faults: life.report.header_faults().iter().map(|f| f.0).collect(),
    };
    (opened, life.medium.killed())
}

/// What lies in `[from, to)` of the ring, by position.
struct Part {
    from: u64,
    to: u64,
    what: &'static str,
    /// Bytes of payload that mean something.
    len: u64,
}

struct Image {
    name: &'static str,
    capacity: u64,
    bytes: Vec<u8>,
    incarnations: Incarnations,
    /// Below it everything was durable, by both checkpoints.
    commit: u64,
    opened: Opened,
    parts: Vec<Part>,
    /// Used bytes of a table.
    table_used: u64,
}

impl Image {
    /// `torn` and `damage`: frames whose bytes are not what was sent.
    fn new(name: &'static str, capacity: u64, bytes: Vec<u8>, torn: Option<u64>) -> Image {
        let table =
            |at: u64| Incarnations::decode(&bytes[at as usize..at as usize + TABLE_LEN]).unwrap();
        let copies = TABLE_OFFSETS.map(table);
        let incarnations = if copies[1].newest().number > copies[0].newest().number {
            copies[1].clone()
        } else {
            copies[0].clone()
        };
        let pages = CHECKPOINT_OFFSETS.map(|at| {
            let page = &bytes[at as usize..(at + PAGE_LEN) as usize];
            Checkpoint::decode(page, capacity).unwrap()
        });
        let newest = pages[usize::from(pages[1].generation > pages[0].generation)];
        let (opened, after) = open(&bytes, capacity, &mut Rng(1));
        let begun = Incarnations::decode(&after[TABLE_OFFSETS[0] as usize..][..TABLE_LEN]).unwrap();
        let mut image = Image {
            name,
            capacity,
            table_used: 64 + 32 * copies[0].count().max(copies[1].count()) as u64,
            bytes,
            commit: newest
                .commit
                .max(newest.head)
                .max(incarnations.newest().start),
            incarnations,
            opened,
            parts: Vec::new(),
        };
        let first = image.opened.messages[0].0;
        image.map(newest.head.min(first), begun.newest().start, torn);
        image
    }

    /// Finds the frames from `at` to the tail, and a torn one there.
    fn map(&mut self, mut at: u64, tail: u64, torn: Option<u64>) {
        while at < tail {
            let (word0, word1) = self.words(at);
            let named = self
                .incarnations
                .at(at)
                .is_some_and(|life| frame::names_position(word0, at, life.salt));
            let damaged = self.opened.damage.iter().find(|piece| piece.0 == at);
            let part = match (damaged, Word1::decode(word1)) {
                (Some(piece), _) => Part {
                    from: at,
                    to: piece.1,
                    what: "damaged",
                    len: 0,
                },
                (None, Some(word1)) if named => {
                    let done = frame::state_of(word0) == Some(State::Acknowledged);
                    let what = match word1.kind() {
                        Kind::CommitMarker | Kind::Message if done => "acknowledged",
                        Kind::CommitMarker | Kind::Message => "message",
                        Kind::Padding => "padding",
                        Kind::Abandoned => "abandoned",
                    };
                    let len = match word1.kind() {
                        Kind::CommitMarker | Kind::Message => u64::from(word1.len()),
                        _ => 0,
                    };
                    Part {
                        from: at,
                        to: at + word1.frame_len(),
                        what,
                        len,
                    }
                }
                _ => Part {
                    from: at,
                    to: at + 16,
                    what: "older laps",
                    len: 0,
                },
            };
            at = part.to;
            self.parts.push(part);
        }
        if let Some(from) = torn {
            let (_, word1) = self.words(from);
            let word1 = Word1::decode(word1).unwrap();
            self.parts.push(Part {
                from,
                to: from + word1.frame_len(),
                what: "torn",
                len: u64::from(word1.len()),
            });
        }
    }

    fn words(&self, position: u64) -> (u64, u64) {
        let at = (HEADER_LEN + position % self.capacity) as usize;
        (get_u64(&self.bytes, at), get_u64(&self.bytes, at + 8))
    }

    /// The part that a byte of the ring lies in.
    fn part(&self, offset: u64) -> Option<(&Part, u64)> {
        let within = |part: &&Part| {
            let from = part.from % self.capacity;
            (from..from + (part.to - part.from)).contains(&offset)
        };
        let part = self.parts.iter().rev().find(within)?;
        Some((part, offset - part.from % self.capacity))
    }

    /// Where a byte lies, in words.
    fn region(&self, at: u64) -> String {
        for (nth, from) in TABLE_OFFSETS.into_iter().enumerate() {
            if (from..from + TABLE_LEN as u64).contains(&at) {
                let used = if at - from < self.table_used {
                    "used"
                } else {
                    "zeros"
                };
                return format!("table {}, {used}", nth + 1);
            }
        }
        for (nth, from) in CHECKPOINT_OFFSETS.into_iter().enumerate() {
            if (from..from + PAGE_LEN).contains(&at) {
                let used = if at - from < 60 { "used" } else { "zeros" };
                return format!("checkpoint {}, {used}", nth + 1);
            }
        }
        let Some((part, within)) = self.part(at - HEADER_LEN) else {
            return "ring, free".to_owned();
        };
        let field = match (part.what, within) {
            ("damaged" | "older laps", _) => "",
            (_, 0) => ", state",
            (_, 1..8) => ", position",
            (_, 8..12) => ", length and kind",
            (_, 12..16) => ", checksum",
            (_, within) if within < 16 + part.len => ", payload",
            _ => ", unused bytes",
        };
        format!("{}{field}", part.what)
    }
}

fn outcome(image: &Image, at: u64, opened: &Opened) -> Outcome {
    let base = &image.opened;
    let what = format!("{}, byte {at}, {}", image.name, image.region(at));
    // What is delivered was to be delivered, once, in its order, unchanged.
    let mut rest = base.messages.iter();
    let mut missing = Vec::new();
    for message in &opened.messages {
        loop {
            let next = rest
                .next()
                .unwrap_or_else(|| panic!("{what}: made up: {message:?}"));
            if next == message {
                break;
            }
            missing.push(next.0);
        }
    }
    missing.extend(rest.map(|message| message.0));
    let more = opened
        .damage
        .iter()
        .any(|piece| !base.damage.contains(piece))
        || opened.damaged.iter().any(|at| !base.damaged.contains(at))
        || opened.stepped_over > base.stepped_over;
    if at < HEADER_LEN {
        assert!(missing.is_empty(), "{what}: lost {missing:?}");
        assert_eq!(
            opened.faults.len(),
            1,
            "{what}: the header fault is not reported"
        );
        assert!(!more || opened.damage == base.damage, "{what}: {opened:?}");
        return Outcome::HeaderFault;
    }
    assert_eq!(opened.faults, base.faults, "{what}");
    // What was damaged before is still reported.
    for piece in &base.damage {
        let covered = opened
            .damage
            .iter()
            .any(|p| p.0 <= piece.0 && piece.0 < p.1);
        assert!(covered, "{what}: damage is forgotten");
    }
    let own = image.part(at - HEADER_LEN).map(|(part, _)| part.from);
    match missing[..] {
        [] if opened == base => Outcome::Nothing,
        [] if more => Outcome::OnlyReported,
        [] => Outcome::LessReported,
        [position] => {
            assert_eq!(Some(position), own, "{what}: another one is lost");
            let corrupt = opened
                .damage
                .iter()
                .any(|p| p.0 <= position && position < p.1);
            if position < image.commit {
                assert!(corrupt, "{what}: durable, and lost in silence");
                Outcome::Damage
            } else if opened.stepped_over > base.stepped_over || opened.damaged.contains(&position)
            {
                Outcome::StepReported
            } else {
                let last = base.messages[base.messages.len() - 1].0;
                assert_eq!(
                    position, last,
                    "{what}: others follow, and it is not reported"
                );
                Outcome::Silent
            }
        }
        _ => panic!("{what}: several are lost: {missing:?}"),
    }
}

/// What the docs allow for a bit of this region.
fn allowed(image: &Image, region: &str) -> &'static [Outcome] {
    use Outcome::*;
    let durable_only = image.name != "lapped";
    match region {
        _ if region.starts_with("table") || region.starts_with("checkpoint") => &[HeaderFault],
        // A frame of the last lap names its place on this one with one bit: no checksum says so.
        "ring, free" => &[Nothing, OnlyReported],
        "message, unused bytes" | "acknowledged, unused bytes" => &[Nothing],
        "torn, unused bytes" => &[Nothing],
        "padding, unused bytes" | "abandoned, unused bytes" => &[Nothing],
        // Its first word names nothing any more: a send that never began.
        "torn, position" => &[LessReported],
        _ if region.starts_with("torn") => &[Nothing],
        "damaged" => &[Nothing, OnlyReported],
        "older laps" => &[Nothing],
        _ if region.starts_with("message") && durable_only => &[Damage],
        // Nothing of it was durable, and a lapped ring reports the last frame, too: what it had begun to
        // overwrite.
        _ if region.starts_with("message") => &[StepReported],
        // Nobody misses it, but it is not what it was.
        _ if region.starts_with("acknowledged") => &[OnlyReported, Nothing],
        _ if region.starts_with("padding") || region.starts_with("abandoned") => &[OnlyReported],
        _ => panic!("{region}"),
    }
}

/// One in so many bits is flipped, and of those that are zero in every file: all with the feature `stress`.
const STEPS: (u64, u64) = if cfg!(feature = "stress") {
    (1, 1)
} else {
    (3, 4093)
};

/// Flips the bits one by one, and counts.
fn flip_each(image: &Image) -> BTreeMap<String, BTreeMap<Outcome, u64>> {
    let mut counts: BTreeMap<String, BTreeMap<Outcome, u64>> = BTreeMap::new();
    let mut rng = Rng(2);
    let mut bytes = image.bytes.clone();
    for bit in PAGE_LEN * 8..bytes.len() as u64 * 8 {
        let region = image.region(bit / 8);
        let step = if region.ends_with("zeros") {
            STEPS.1
        } else {
            STEPS.0
        };
        if bit % step != 0 {
            continue;
        }
        let flip = |bytes: &mut [u8]| bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
        flip(&mut bytes);
        let (opened, after) = open(&bytes, image.capacity, &mut rng);
        flip(&mut bytes);
        let outcome = outcome(image, bit / 8, &opened);
        assert!(
            allowed(image, &region).contains(&outcome),
            "{}, bit {bit}, {region}: {outcome:?}: {opened:?}",
            image.name
        );
        if bit % 16 == 0 {
            // The next open finds the same, and a whole header.
            let (again, _) = open(&after, image.capacity, &mut rng);
            assert_eq!(again.messages, opened.messages, "{region}");
            assert!(again.faults.is_empty(), "{region}");
            let pieces = |opened: &Opened| opened.damage.iter().map(|p| p.0).collect::<Vec<_>>();
            assert_eq!(pieces(&again), pieces(&opened), "{region}");
        }
        *counts
            .entry(region)
            .or_default()
            .entry(outcome)
            .or_default() += 1;
    }
    counts
}

/// Sends and acknowledges so many, all of another length.
fn churn(life: &mut Life, times: u64) {
    for n in 0..times {
        life.send(&vec![n as u8; 3 + (n * 7 % 40) as usize])
            .unwrap();
        let (id, _) = life.receive_message();
        life.acknowledge(id);
    }
}

/// Sends some, the second and fourth of which are acknowledged, and one is handed out.
fn backlog(life: &mut Life, first: u8) -> Vec<MessageId> {
    let lens = [20, 5, 61, 16, 30, 9];
    let ids: Vec<MessageId> = (first..)
        .zip(lens)
        .map(|(n, len)| life.send(&vec![n; len]).unwrap())
        .collect();
    for _ in 0..4 {
        life.receive_message();
    }
    life.acknowledge(ids[1]);
    life.acknowledge(ids[3]);
    ids
}

/// Closed in order, with a backlog over the end of the ring.
fn closed() -> Image {
    let (capacity, mut rng) = (512, Rng(51));
    let image = new_image(capacity, &mut rng);
    let mut life = Life::on(&image, capacity, Mode::PerSend, &mut rng).unwrap();
    churn(&mut life, 16);
    backlog(&mut life, 100);
    life.close();
    Image::new("closed", capacity, life.medium.killed(), None)
}

/// Killed while it sent: the last frame is not whole, all before it is durable.
fn torn() -> Image {
    let (capacity, mut rng) = (1024, Rng(52));
    let image = new_image(capacity, &mut rng);
    let mut life = Life::on(&image, capacity, Mode::PerSend, &mut rng).unwrap();
    churn(&mut life, 21);
    backlog(&mut life, 120);
    life.timer();
    life.timer();
    let mut bytes = life.medium.killed();
    let last = life.send(&[77; 40]).unwrap().position();
    let at = (HEADER_LEN + last % capacity) as usize;
    bytes[at..at + 56].copy_from_slice(&life.medium.killed()[at..at + 56]);
    bytes[at + 30..at + 34].fill(0);
    Image::new("torn", capacity, bytes, Some(last))
}

/// A power cut after `FlushOnly` had lapped the ring: the checkpoints are laps behind.
fn lapped() -> Image {
    let (capacity, mut rng) = (512, Rng(53));
    let image = new_image(capacity, &mut rng);
    let mut life = Life::on(&image, capacity, Mode::FlushOnly, &mut rng).unwrap();
    churn(&mut life, 60);
    backlog(&mut life, 140);
    let medium = &life.medium;
    let header = HEADER_LEN / SECTOR_LEN;
    let bytes = medium.cut(medium.moment(), |sector, values| {
        if sector < header { 0 } else { values - 1 }
    });
    Image::new("lapped", capacity, bytes, None)
}

/// Several incarnations, a hole that was closed, and damage that nobody has released.
fn incarnations() -> Image {
    let (capacity, mut rng) = (1024, Rng(54));
    let image = new_image(capacity, &mut rng);
    let mut life = Life::on(&image, capacity, Mode::FlushOnly, &mut rng).unwrap();
    churn(&mut life, 25);
    let ids = backlog(&mut life, 160);
    let spoil = |bytes: &mut [u8], id: MessageId| {
        let at = (HEADER_LEN + id.position() % capacity + 16) as usize;
        bytes[at..at + 4].fill(0xee);
    };
    let mut bytes = life.medium.killed();
    spoil(&mut bytes, ids[2]);
    let life = Life::on(&bytes, capacity, Mode::PerSend, &mut rng).unwrap();
    assert_eq!(life.report.stepped_over(), 1);
    let ids = [40, 22, 7].map(|n| life.send(&vec![n as u8; n]).unwrap());
    let mut bytes = life.medium.killed();
    spoil(&mut bytes, ids[1]);
    let life = Life::on(&bytes, capacity, Mode::PerSend, &mut rng).unwrap();
    life.send(&[44; 44]).unwrap();
    life.timer();
    life.timer();
    let image = Image::new("incarnations", capacity, life.medium.killed(), None);
    assert_eq!(image.opened.damage.len(), 1);
    image
}

#[test]
fn every_bit_of_four_images_ends_as_documented() {
    let images = [closed(), torn(), lapped(), incarnations()];
    let mut table = String::from("| image | where | bits |");
    OUTCOMES
        .iter()
        .for_each(|(_, text)| write!(table, " {text} |").unwrap());
    for image in &images {
        assert!(image.opened.messages.len() >= 4, "{}", image.name);
        let counts = flip_each(image);
        let has = |part: &str| counts.keys().any(|region| region.starts_with(part));
        assert!(has("message") && has("acknowledged"), "{}", image.name);
        assert_eq!(has("torn"), image.name == "torn");
        assert_eq!(has("damaged"), image.name == "incarnations");
        assert!(image.name != "incarnations" || has("abandoned"));
        for (region, outcomes) in &counts {
            let bits: u64 = outcomes.values().sum();
            write!(table, "\n| {} | {region} | {bits} |", image.name).unwrap();
            for (outcome, _) in OUTCOMES {
                match outcomes.get(&outcome) {
                    Some(count) => write!(table, " {count} |").unwrap(),
                    None => table.push_str(" |"),
                }
            }
        }
    }
    println!("{table}");
}
