//! A thread that reads pieces of the ring ahead of a scan, and notes the CRCs of payloads in them.
//!
//! A note says what the CRC of bytes of the piece is, and no more: that they are the payload of a frame is a guess. The scan takes the
//! note of just the bytes whose CRC it wants, or computes it.

use crate::format::frame::{self, FRAME_ALIGN, FRAME_HEADER_LEN, Word1};
use crate::format::incarnations::Lives;
use crate::format::{HEADER_LEN, get_u64};
use crate::memory::Medium;
use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, Scope};

/// The CRC of bytes of a piece.
#[derive(Clone, Copy, Debug)]
struct Note {
    /// Where in the piece they begin.
    at: u64,
    len: u32,
    crc: u32,
}

/// Those of one piece, in order.
#[derive(Debug, Default)]
pub(super) struct Notes {
    notes: Vec<Note>,
    /// The one behind that which was taken last.
    next: usize,
}

impl Notes {
    pub(super) fn clear(&mut self) {
        self.notes.clear();
        self.next = 0;
    }

    /// The CRC of the `len` bytes at `at`, if just that was noted.
    #[inline]
    pub(super) fn crc(&mut self, at: u64, len: u64) -> Option<u32> {
        if self.notes.get(self.next).is_none_or(|note| note.at != at) {
            self.next = self.notes.partition_point(|note| note.at < at);
        }
        let note = self.notes.get(self.next)?;
        let is_same = note.at == at && u64::from(note.len) == len;
        self.next += usize::from(is_same);
        is_same.then_some(note.crc)
    }

    /// Notes the CRCs of payloads in `bytes`, which lie at `position`: of frames that name their place in the life that covers it,
    /// one behind the other. So no byte is looked at twice for them, whatever lengths the headers tell.
    fn take(&mut self, bytes: &[u8], position: u64, lives: &Lives) {
        self.clear();
        let mut at = 0;
        while let Some((life, end)) = lives.span_at(position + at) {
            let stop = (bytes.len() as u64).min(end - position);
            let part = &bytes[at as usize..stop as usize];
            at += frame::before_a_name(part, position + at, [life.salt; 2], u64::MAX);
            if at + FRAME_HEADER_LEN > stop {
                if stop == bytes.len() as u64 {
                    return;
                }
                at = stop;
                continue;
            }
            let Some(word1) = Word1::decode(get_u64(bytes, at as usize + 8)) else {
                at += FRAME_ALIGN;
                continue;
            };
            let payload = at + FRAME_HEADER_LEN;
            at += word1.frame_len();
            // The rest of the piece is its payload, or it lies.
            if at > stop {
                return;
            }
            if word1.kind().is_message() {
                let bytes = &bytes[payload as usize..][..word1.len() as usize];
                self.notes.push(Note {
                    at: payload,
                    len: word1.len(),
                    crc: frame::crc(bytes),
                });
            }
        }
    }
}

/// A piece of the ring.
#[derive(Debug, Default)]
pub(super) struct Piece {
    /// Of the first byte.
    pub(super) position: u64,
    pub(super) bytes: Vec<u8>,
    pub(super) notes: Notes,
    /// Whether CRCs are wanted.
    verify: bool,
}

/// A thread that reads what comes next. What it cannot read is read again by who needs it, who knows what to do then.
#[derive(Debug)]
pub(super) struct Ahead {
    wanted: Sender<Piece>,
    read: Receiver<(Piece, io::Result<()>)>,
    /// The pieces that were asked for, in order, by position and length.
    pub(super) asked: VecDeque<(u64, u64)>,
    /// Buffers that nobody uses.
    pub(super) spare: Vec<Piece>,
}

impl Ahead {
    /// `None` if no thread can be started. It ends with this.
    pub(super) fn start<'scope>(
        capacity: u64,
        scope: &'scope Scope<'scope, '_>,
        medium: &'scope dyn Medium,
        lives: &'scope Lives,
    ) -> Option<Self> {
        let (wanted, next) = channel::<Piece>();
        let (done, read) = channel();
        let body = move || {
            for mut piece in next {
                let offset = piece.position & (capacity - 1);
                let result = medium.read_at(HEADER_LEN + offset, &mut piece.bytes);
                if piece.verify && result.is_ok() {
                    piece.notes.take(&piece.bytes, piece.position, lives);
                }
                if done.send((piece, result)).is_err() {
                    return;
                }
            }
        };
        let thread = Builder::new().name("walchan-scan".to_owned());
        thread.spawn_scoped(scope, body).ok()?;
        Some(Ahead {
            wanted,
            read,
            asked: VecDeque::new(),
            spare: Vec::new(),
        })
    }

    /// With `verify`, CRCs are noted. `false` if nobody reads any more.
    pub(super) fn ask(&mut self, position: u64, len: u64, verify: bool) -> bool {
        let mut piece = self.spare.pop().unwrap_or_default();
        piece.position = position;
        piece.bytes.resize(len as usize, 0);
        piece.notes.clear();
        piece.verify = verify;
        let is_asked = self.wanted.send(piece).is_ok();
        if is_asked {
            self.asked.push_back((position, len));
        }
        is_asked
    }

    /// The next piece that was asked for, if it could be read.
    pub(super) fn take(&mut self) -> Option<Piece> {
        self.asked.pop_front()?;
        let (piece, result) = self.read.recv().ok()?;
        match result {
            Ok(()) => Some(piece),
            Err(_) => {
                self.spare.push(piece);
                None
            }
        }
    }

    pub(super) fn forget(&mut self) {
        while !self.asked.is_empty() {
            if let Some(piece) = self.take() {
                self.spare.push(piece);
            }
        }
    }
}

#[cfg(all(test, feature = "fsync"))]
mod tests {
    use super::*;
    use crate::crash_tests::Rng;
    use crate::format::frame::{Kind, State, word0};
    use crate::format::put_u64;

    const LEN: u64 = 64 << 10;
    /// Of the pieces.
    const POSITION: u64 = 7 << 20;

    /// Two lives, the second of which begins in the piece.
    fn lives(second: u64) -> Lives {
        Lives::from_starts(&[0, POSITION + second])
    }

    /// A header without a payload, in `bytes` at `at`.
    fn put_header(bytes: &mut [u8], at: u64, lives: &Lives, kind: Kind, len: u64) {
        let position = POSITION + at;
        let salt = lives.at(position).expect("a life").salt;
        let at = at as usize;
        put_u64(bytes, at, word0(position, salt, State::Delivered(0)));
        // Nobody who notes looks at the checksum.
        let word1 = Word1::new(kind, position, salt, len as u32, 0).encode();
        put_u64(bytes, at + 8, word1);
    }

    /// A piece of random bytes with frames behind its first 80, and where their payloads are.
    fn piece(rng: &mut Rng, lives: &Lives, second: u64) -> (Vec<u8>, Vec<(u64, u64)>) {
        let mut bytes = vec![0; LEN as usize];
        bytes.fill_with(|| rng.next() as u8);
        let (mut at, mut payloads) = (80, Vec::new());
        loop {
            let stop = if at < second { second.min(LEN) } else { LEN };
            let len = (1 + rng.below(3000)).min((stop - at).saturating_sub(16));
            if at + frame::frame_len(len) > stop || len == 0 {
                if stop == LEN {
                    return (bytes, payloads);
                }
                put_header(&mut bytes, at, lives, Kind::Padding, stop - at - 16);
                at = stop;
                continue;
            }
            put_header(&mut bytes, at, lives, Kind::Message, len);
            payloads.push((at + 16, len));
            at += frame::frame_len(len);
        }
    }

    fn check(notes: &Notes, bytes: &[u8]) {
        let mut end = 0;
        for note in &notes.notes {
            assert!(note.at >= end + FRAME_HEADER_LEN);
            end = note.at + u64::from(note.len);
            let payload = &bytes[note.at as usize..end as usize];
            assert_eq!(note.crc, frame::crc(payload));
        }
    }

    #[test]
    fn each_whole_payload_of_a_piece_is_noted() {
        let mut rng = Rng(1);
        let mut notes = Notes::default();
        for second in [16 << 10, 32 << 10, 2 * LEN] {
            let lives = lives(second);
            let (bytes, payloads) = piece(&mut rng, &lives, second);
            notes.take(&bytes, POSITION, &lives);
            check(&notes, &bytes);
            let noted = notes.notes.iter().map(|n| (n.at, u64::from(n.len)));
            assert!(noted.eq(payloads.iter().copied()));
            // In order, in reverse, and again.
            for &(at, len) in payloads.iter().chain(payloads.iter().rev()) {
                let crc = frame::crc(&bytes[at as usize..][..len as usize]);
                assert_eq!(notes.crc(at, len), Some(crc));
                assert_eq!(notes.crc(at, len), Some(crc));
            }
        }
    }

    #[test]
    fn a_note_is_of_no_other_bytes() {
        let lives = lives(2 * LEN);
        let (bytes, payloads) = piece(&mut Rng(2), &lives, 2 * LEN);
        let mut notes = Notes::default();
        notes.take(&bytes, POSITION, &lives);
        for &(at, len) in &payloads {
            for (at, len) in [(at, len - 1), (at, len + 1), (at - 16, len), (at + 16, len)] {
                assert_eq!(notes.crc(at, len), None);
            }
            assert!(notes.crc(at, len).is_some());
        }
        notes.clear();
        let (at, len) = payloads[0];
        assert_eq!(notes.crc(at, len), None);
    }

    #[test]
    fn what_names_another_lap_is_not_noted() {
        let lives = lives(2 * LEN);
        let (bytes, _) = piece(&mut Rng(3), &lives, 2 * LEN);
        let mut notes = Notes::default();
        notes.take(&bytes, POSITION + (1 << 20), &lives);
        assert!(notes.notes.is_empty());
    }

    #[test]
    fn hostile_headers_have_no_byte_noted_twice() {
        let mut rng = Rng(4);
        let mut notes = Notes::default();
        let mut noted = 0;
        for round in 0..300 {
            let second = rng.below(LEN / 16) * 16;
            let lives = lives(second);
            let mut bytes = vec![0; LEN as usize];
            // Everywhere a header: over each other, beyond the life and the piece.
            for at in (0..LEN).step_by(16) {
                let len = match rng.below(4) {
                    0 => rng.below(frame::PAYLOAD_LEN_MAX),
                    n => rng.below(20 * n * n),
                };
                let kind = [Kind::First, Kind::Message, Kind::Padding, Kind::Abandoned];
                let kind = kind[rng.below(4) as usize];
                if rng.chance(round % 100) {
                    put_header(&mut bytes, at, &lives, kind, len);
                }
            }
            let cut = bytes.len() - rng.below(40) as usize;
            notes.take(&bytes[..cut], POSITION, &lives);
            check(&notes, &bytes[..cut]);
            noted += notes.notes.len();
        }
        assert!(noted > 300);
    }
}
