//! Whether a scan finds the same with a thread that reads ahead as without.

use super::Bounds;
use super::scan::scan_through;
use super::window::{AHEAD_FROM, Window};
use crate::crash_tests::Rng;
use crate::format::checkpoint::Checkpoint;
use crate::format::frame::{self, FRAME_HEADER_LEN, Kind, State, Word1, word0};
use crate::format::incarnations::Lives;
use crate::format::{HEADER_LEN, PAGE_LEN, put_u64};
use crate::memory::Medium;
use std::io;
use std::sync::LazyLock;

const CAPACITY: u64 = AHEAD_FROM;

/// Payloads are parts of it.
static POOL: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut rng = Rng(1);
    let words = (0..1 << 17).flat_map(|_| rng.next().to_le_bytes());
    words.collect()
});

/// A ring, some pages of which cannot be read.
struct Rotten {
    ring: Vec<u8>,
    bad: Vec<u64>,
}

impl Medium for Rotten {
    fn len(&self) -> io::Result<u64> {
        Ok(HEADER_LEN + CAPACITY)
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let start = offset - HEADER_LEN;
        let end = start + bytes.len() as u64;
        let mut pages = start / PAGE_LEN..end.div_ceil(PAGE_LEN);
        if pages.any(|page| self.bad.contains(&page)) {
            return Err(rustix::io::Errno::IO.into());
        }
        bytes.copy_from_slice(&self.ring[start as usize..end as usize]);
        Ok(())
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        unreachable!("a scan only reads")
    }

    fn sync_written(&self) -> io::Result<()> {
        unreachable!("a scan only reads")
    }
}

fn put_frame(ring: &mut [u8], lives: &Lives, at: u64, kind: Kind, payload: &[u8], rng: &mut Rng) {
    let salt = lives.at(at).expect("a life").salt;
    let state = match kind {
        Kind::Padding | Kind::Abandoned => State::Acknowledged,
        _ if rng.chance(30) => State::Acknowledged,
        _ => State::Delivered(rng.below(3) as u8),
    };
    let len = payload.len() as u32;
    let crc = if kind.is_message() {
        frame::crc(payload)
    } else {
        0
    };
    let place = (at & (CAPACITY - 1)) as usize;
    put_u64(ring, place, word0(at, salt, state));
    put_u64(
        ring,
        place + 8,
        Word1::new(kind, at, salt, len, crc).encode(),
    );
    ring[place + 16..][..payload.len()].copy_from_slice(payload);
}

/// Frames over `[from, to)`, none of which crosses the end of the ring or of a life. Gives where they end.
fn fill(ring: &mut [u8], lives: &Lives, from: u64, to: u64, rng: &mut Rng) -> u64 {
    let most = [100, 3000, 100_000, 900_000][rng.below(4) as usize];
    let mut at = from;
    loop {
        let (_, life_end) = lives.span_at(at).expect("a life");
        let stop = life_end.min((at / CAPACITY + 1) * CAPACITY);
        let most = if rng.below(3000) == 0 { 900_000 } else { most };
        let len = rng.below(most);
        let end = at + frame::frame_len(len);
        if end.min(stop) > to {
            return at;
        }
        if end > stop {
            let padding = vec![0; (stop - at - FRAME_HEADER_LEN) as usize];
            put_frame(ring, lives, at, Kind::Padding, &padding, rng);
            at = stop;
            continue;
        }
        let kind = match rng.below(20) {
            0 => Kind::Abandoned,
            1 if len > 0 => Kind::First,
            _ => Kind::Message,
        };
        let payload = &POOL[rng.below(64) as usize..][..len as usize];
        put_frame(ring, lives, at, kind, payload, rng);
        at = end;
    }
}

/// What a crash, a disk or somebody else could have done.
fn harm(rotten: &mut Rotten, rng: &mut Rng) {
    const SECTOR: u64 = 512;
    let sectors = CAPACITY / SECTOR;
    let at = (rng.below(sectors) * SECTOR) as usize;
    let len = ((1 + rng.below(40)) * SECTOR).min(CAPACITY - at as u64) as usize;
    match rng.below(7) {
        0 => rotten.ring[at..at + len].fill(0),
        1 => rotten.ring[at..at + len].fill_with(|| rng.next() as u8),
        2 => rotten.ring[at + rng.below(SECTOR) as usize] ^= 1 << rng.below(8),
        3 => {
            let from = (rng.below(sectors - 40) * SECTOR) as usize;
            let len = len.min(CAPACITY as usize - from);
            rotten.ring.copy_within(from..from + len, at);
        }
        _ => rotten.bad.push(at as u64 / PAGE_LEN),
    }
}

/// The campaigns of crashes have rings in which no second thread reads. What it does makes no difference.
#[test]
fn a_scan_finds_the_same_with_a_thread_ahead_and_without() {
    let (mut whole, mut harmed) = (0, 0);
    for seed in 0..60 {
        let rng = &mut Rng(seed);
        let head = 3 * CAPACITY + rng.below(CAPACITY / 16) * 16;
        let tail = head + CAPACITY / [1, 1, 2, 7][rng.below(4) as usize];
        let mut starts = vec![0];
        if rng.chance(60) {
            let start = head + rng.below(CAPACITY / 16) * 16;
            starts.push(start.min(tail));
        }
        let lives = Lives::from_starts(&starts);
        let mut ring = vec![0; CAPACITY as usize];
        if rng.chance(70) {
            // A lap ago.
            fill(&mut ring, &lives, head - CAPACITY, head, rng);
        }
        let end = fill(&mut ring, &lives, head, tail, rng);
        let mut rotten = Rotten {
            ring,
            bad: Vec::new(),
        };
        let count = if rng.chance(30) { 0 } else { 1 + rng.below(6) };
        for _ in 0..count {
            harm(&mut rotten, rng);
        }
        let commit = match rng.below(3) {
            0 => head,
            1 => head + (end - head) / 32 * 16,
            _ => end,
        };
        let checkpoint = Checkpoint {
            generation: 9,
            head,
            commit,
            tail: commit,
            ..Checkpoint::default()
        };
        let (rotten, lives) = (&rotten, &lives);
        let through = |window| {
            let found = scan_through(window, rotten, lives, &checkpoint, Bounds::default());
            found.map_err(|error| error.to_string())
        };
        let alone = through(Window::new(CAPACITY));
        let ahead =
            std::thread::scope(|scope| through(Window::with_ahead(CAPACITY, scope, rotten, lives)));
        assert_eq!(alone, ahead, "seed {seed}");
        let found = alone.expect("a scan reads on behind bad blocks");
        assert!(count > 0 || found.tail == end, "seed {seed}: {found:?}");
        whole += u32::from(found.tail == end && found.damage.is_empty() && found.holes.is_empty());
        harmed += u32::from(!found.damage.is_empty() || !found.holes.is_empty());
    }
    assert!(whole >= 10 && harmed >= 20, "{whole} and {harmed}");
}
