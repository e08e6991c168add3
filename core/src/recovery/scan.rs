//! Follows the frames of a file.
//!
//! From the head of the newest valid checkpoint, frame by frame; at an invalid place it looks on, 16 bytes
//! at a time, for the next valid frame, up to one capacity behind the head. A valid frame is never
//! passed over.

use super::header::Bounds;
use super::verdict::{Evidence, Verdict, judge};
use super::window::Window;
use crate::error::Error;
use crate::format::checkpoint::Checkpoint;
use crate::format::frame::{self, FRAME_ALIGN, FRAME_HEADER_LEN, Kind, State, Word1};
use crate::format::get_u64;
use crate::format::incarnations::Incarnations;
use crate::format::{PAGE_LEN, POSITION_MAX};
use crate::planted::planted;
use crate::storage::Medium;
use std::io;
use std::time::{Duration, Instant};

/// A scan verifies at most so many times the ring. What channels write, torn or rotten, is verified a few
/// times over; frames that a forger laid over each other could take days.
const VERIFIED_RINGS_MAX: u64 = 64;

/// What lies at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Valid {
        state: State,
        word1: Word1,
    },
    /// The first word names the position, but the frame is not valid.
    Named,
    Nothing,
}

/// Looks at places of the ring.
pub(super) struct Scanner<'a> {
    pub(super) medium: &'a dyn Medium,
    pub(super) incarnations: &'a Incarnations,
    pub(super) capacity: u64,
    pub(super) window: &'a mut Window,
    /// Bytes of payload that were verified so far.
    pub(super) verified: u64,
}

impl Scanner<'_> {
    /// Judges the frame at `position`, which must end before `stop`. Without `verify` the CRC is not
    /// looked at.
    #[inline]
    pub(super) fn place(&mut self, position: u64, stop: u64, verify: bool) -> io::Result<Place> {
        self.place_into(position, stop, verify, None)
    }

    /// The same; `payload` is given that of a message, if it is verified.
    #[inline]
    pub(super) fn place_into(
        &mut self,
        position: u64,
        stop: u64,
        verify: bool,
        payload: Option<&mut Vec<u8>>,
    ) -> io::Result<Place> {
        let Some((incarnation, end)) = self.incarnations.span_at(position) else {
            return Ok(Place::Nothing);
        };
        let [word0, word1] = if verify {
            let header = self.window.at(self.medium, position, FRAME_HEADER_LEN)?;
            [get_u64(header, 0), get_u64(header, 8)]
        } else {
            self.window.words_at(self.medium, position)?
        };
        if !frame::names_position(word0, position, incarnation.salt) {
            return Ok(Place::Nothing);
        }
        let (Some(state), Some(word1)) = (frame::state_of(word0), Word1::decode(word1)) else {
            return Ok(Place::Named);
        };
        // Fillers are written acknowledged: in another state nothing could ever let the head pass them.
        if !word1.kind().is_message() && state != State::Acknowledged {
            return Ok(Place::Named);
        }
        let to_end = self.capacity - (position & (self.capacity - 1));
        let stop = end.min(stop).min(POSITION_MAX - FRAME_ALIGN);
        let outside = word1.frame_len() > to_end || position + word1.frame_len() > stop;
        if outside && !planted!("trusted_length") {
            return Ok(Place::Named);
        }
        if verify {
            let crc = match word1.kind() {
                Kind::CommitMarker | Kind::Message => {
                    self.payload(position, u64::from(word1.len()), payload)?
                }
                Kind::Padding | Kind::Abandoned => 0,
            };
            if !word1.matches(position, incarnation.salt, crc) && !planted!("payload_not_verified")
            {
                return Ok(Place::Named);
            }
        }
        Ok(Place::Valid { state, word1 })
    }

    /// The CRC of the payload of a frame that does not cross the end of the ring. Puts it into `to`, too.
    #[inline]
    fn payload(
        &mut self,
        position: u64,
        len: u64,
        mut to: Option<&mut Vec<u8>>,
    ) -> io::Result<u32> {
        self.verified += len;
        if let Some(to) = &mut to {
            to.clear();
        }
        if len == 0 {
            return Ok(frame::crc(&[]));
        }
        let at = position + FRAME_HEADER_LEN;
        let part = self.window.at(self.medium, at, len)?;
        if part.len() as u64 == len {
            if let Some(to) = to {
                to.extend_from_slice(part);
            }
            return Ok(self.window.crc(at, len));
        }
        self.payload_in_parts(position, len, to)
    }

    fn payload_in_parts(
        &mut self,
        position: u64,
        len: u64,
        mut to: Option<&mut Vec<u8>>,
    ) -> io::Result<u32> {
        let mut hasher = crc32fast::Hasher::new();
        let mut done = 0;
        while done < len {
            let at = position + FRAME_HEADER_LEN + done;
            // Parts begin at multiples of 16, and only the last is shorter.
            let part = self.window.at(self.medium, at, len - done)?;
            let part = if (part.len() as u64) < len - done {
                &part[..part.len() & !(FRAME_ALIGN as usize - 1)]
            } else {
                part
            };
            hasher.update(part);
            if let Some(to) = &mut to {
                to.extend_from_slice(part);
            }
            done += part.len() as u64;
        }
        Ok(hasher.finalize())
    }

    /// Bytes from `position` on, before `stop` and in one page, where nothing begins: no first word there can
    /// name its place in the incarnation that covers it, nor any of a later lap in the newest one.
    fn nothing(&mut self, position: u64, stop: u64) -> io::Result<u64> {
        let Some((incarnation, end)) = self.incarnations.span_at(position) else {
            return Ok(0);
        };
        let page_end = (position | (PAGE_LEN - 1)) + 1;
        let len = page_end.min(end).min(stop) - position;
        let salts = [incarnation.salt, self.incarnations.newest().salt];
        let bytes = self.window.at(self.medium, position, len)?;
        // Frames of all laps at a place agree in these bits.
        let places = self.capacity / FRAME_ALIGN - 1;
        Ok(frame::before_a_name(bytes, position, salts, places))
    }

    /// Ends a scan that verifies far more than any channel wrote.
    fn check_verified(&self, position: u64) -> Result<(), Error> {
        if self.verified <= VERIFIED_RINGS_MAX * self.capacity || planted!("endless_verification") {
            return Ok(());
        }
        let reason = "too many frames lie over each other: no channel wrote this".to_owned();
        Err(Error::Corrupt { position, reason })
    }

    /// If the bytes at `position` begin a frame of the newest incarnation that ends behind `stop`, there or
    /// one or more laps later: its end.
    fn lap_ahead(&mut self, position: u64, stop: u64) -> io::Result<Option<u64>> {
        let incarnation = self.incarnations.newest();
        let header = self.window.at(self.medium, position, FRAME_HEADER_LEN)?;
        let ahead = frame::position_of(get_u64(header, 0), incarnation.salt);
        let same_offset = (ahead ^ position) & (self.capacity - 1) == 0;
        if !same_offset || ahead < position || ahead < incarnation.start || ahead >= POSITION_MAX {
            return Ok(None);
        }
        Ok(match self.place(ahead, ahead + self.capacity, true)? {
            Place::Valid { word1, .. } => Some(ahead + word1.frame_len()).filter(|end| *end > stop),
            Place::Named | Place::Nothing => None,
        })
    }
}

/// Cuts `[start, end)` where a frame of filler could not go on: at the end of the ring, between incarnations,
/// and at the largest length.
#[derive(Debug)]
pub struct Pieces<'a> {
    pub incarnations: &'a Incarnations,
    pub capacity: u64,
    pub at: u64,
    pub end: u64,
}

impl Iterator for Pieces<'_> {
    type Item = (u64, u64);

    fn next(&mut self) -> Option<(u64, u64)> {
        if self.at >= self.end {
            return None;
        }
        let to_end = self.capacity - (self.at & (self.capacity - 1));
        let incarnation_end = self.incarnations.end_at(self.at).unwrap_or(u64::MAX);
        let piece = (
            self.at,
            self.end
                .min(self.at + to_end.min(frame::FRAME_LEN_MAX))
                .min(incarnation_end),
        );
        self.at = piece.1;
        Some(piece)
    }
}

/// What a scan found.
#[derive(Debug, Default)]
#[cfg_attr(all(test, feature = "fsync"), derive(PartialEq))]
pub(super) struct Findings {
    pub(super) clean: bool,
    pub(super) head: u64,
    pub(super) tail: u64,
    /// All before it was on stable storage.
    pub(super) commit: u64,
    /// The highest commit marker in a message.
    commit_marker: u64,
    pub(super) kept: u64,
    pub(super) redelivered: u64,
    /// Pages behind the head, by their first position, in which states were changed after the send.
    pub(super) touched: Vec<u64>,
    /// Gaps above the commit that valid frames follow: to be closed.
    pub(super) holes: Vec<(u64, u64)>,
    /// Gaps below the commit.
    pub(super) damage: Vec<(u64, u64)>,
    /// Frames above the commit whose header is there and whose content is not what it says.
    pub(super) damaged_frames: Vec<u64>,
    /// A torn frame was the last.
    pub(super) torn_tail: Option<u64>,
    /// Space at the head that a later lap had begun to reuse.
    pub(super) remains: Option<(u64, u64)>,
    /// How long it took.
    pub(super) scan_time: Duration,
}

impl Findings {
    /// Nothing is there.
    pub(super) fn empty_at(position: u64) -> Self {
        Findings {
            clean: true,
            head: position,
            tail: position,
            commit: position,
            ..Findings::default()
        }
    }

    pub(super) fn of_clean(checkpoint: &Checkpoint) -> Self {
        Findings {
            clean: true,
            head: checkpoint.head,
            tail: checkpoint.tail,
            commit: checkpoint.tail,
            kept: checkpoint.unacknowledged,
            redelivered: u64::from(checkpoint.handed_out),
            ..Findings::default()
        }
    }

    /// The first place above the commit that is not as a finished send leaves it.
    pub(super) fn first_torn(&self) -> Option<u64> {
        let holes = self.holes.iter().map(|hole| hole.0);
        holes
            .chain(self.torn_tail)
            .chain(self.remains.map(|r| r.0))
            .min()
    }
}

/// Scans the ring of a file that was not closed in order.
pub(super) fn scan(
    medium: &dyn Medium,
    incarnations: &Incarnations,
    checkpoint: &Checkpoint,
    capacity: u64,
    bounds: Bounds,
) -> Result<Findings, Error> {
    let began = Instant::now();
    let mut findings = scan_untimed(medium, incarnations, checkpoint, capacity, bounds)?;
    findings.scan_time = began.elapsed();
    Ok(findings)
}

fn scan_untimed(
    medium: &dyn Medium,
    incarnations: &Incarnations,
    checkpoint: &Checkpoint,
    capacity: u64,
    bounds: Bounds,
) -> Result<Findings, Error> {
    let mut window = Window::new(capacity);
    let mut scanner = Scanner {
        medium,
        incarnations,
        capacity,
        window: &mut window,
        verified: 0,
    };
    // The start of the newest incarnation tells nothing of what is durable before it: a crash can leave the
    // table of a incarnation that never began, and after a failed sync what it began behind may have been in
    // the cache alone. The end of a sealed file is as good as the start of an incarnation.
    let end = bounds.end.unwrap_or(u64::MAX);
    let sealed = if bounds.sealed { end } else { 0 };
    let start = incarnations.newest().start.min(end).max(sealed);
    let durable = planted!("start_of_life_a_commit", start, 0);
    let commit = checkpoint.commit.max(checkpoint.head).max(durable);
    // Space is reused only when it is acknowledged: a frame that ends at E, or an incarnation that begins
    // there, proves that the head had reached E - capacity, whatever the checkpoint remembers.
    let reused = start > checkpoint.head + capacity;
    let head = if reused {
        start - capacity
    } else {
        checkpoint.head
    };
    let range = Range {
        head,
        start,
        end,
        unverified: commit,
    };
    let (findings, ahead) = pass(&mut scanner, range, commit, reused)?;
    match planted!("laps_not_followed", None, ahead) {
        Some(behind) => {
            let head = behind - capacity;
            let range = Range { head, ..range };
            let (findings, _) = pass(&mut scanner, range, commit, true)?;
            up_to_commit_marker(&mut scanner, range, findings, true)
        }
        None => up_to_commit_marker(&mut scanner, range, findings, reused),
    }
}

/// The findings of a pass, by the highest commit marker, if that is above the commit of the header: what is
/// missing before it is damage. Where nothing is, it makes no difference.
fn up_to_commit_marker(
    scanner: &mut Scanner<'_>,
    range: Range,
    mut findings: Findings,
    reused: bool,
) -> Result<Findings, Error> {
    let marker = planted!("commit_of_messages_ignored", 0, findings.commit_marker);
    if marker <= findings.commit {
        return Ok(findings);
    }
    if findings.first_torn().is_some_and(|at| at < marker) {
        return Ok(pass(scanner, range, marker, reused)?.0);
    }
    findings.commit = marker;
    Ok(findings)
}

/// What is scanned.
#[derive(Clone, Copy)]
struct Range {
    head: u64,
    /// The tail is not before it.
    start: u64,
    /// No frame ends behind it.
    end: u64,
    /// Before it headers are enough.
    unverified: u64,
}

/// One pass over `[head, head + capacity)`, not beyond the end. Gives the findings, and the end of the
/// furthest frame that is laps ahead, if there is one.
fn pass(
    scanner: &mut Scanner<'_>,
    range: Range,
    commit: u64,
    reused: bool,
) -> Result<(Findings, Option<u64>), Error> {
    let Range {
        head,
        start,
        end,
        unverified,
    } = range;
    let stop = end.min(head + scanner.capacity);
    let mut found = Findings {
        head,
        commit,
        ..Findings::default()
    };
    let mut furthest = None;
    let mut at = head;
    // While all frames so far are acknowledged, the head moves with the scan.
    let mut acknowledged_prefix = true;
    // A frame whose CRC was not looked at.
    let mut trusted: Option<(u64, State, Word1)> = None;
    loop {
        scanner.check_verified(at)?;
        let mut verify =
            at >= unverified || (acknowledged_prefix && !planted!("head_over_unverified"));
        let mut place = if at < stop {
            scanner.place(at, stop, verify)?
        } else {
            Place::Nothing
        };
        // A frame ends at the commit or before it begins there: one that crosses it lies about its length.
        if let Place::Valid { word1, .. } = place
            && !verify
            && at + word1.frame_len() > unverified
            && !planted!("length_across_the_commit")
        {
            verify = true;
            place = scanner.place(at, stop, verify)?;
        }
        if let Place::Valid { state, word1 } = place {
            note(&mut found, state, word1, 1);
            if verify && word1.kind() == Kind::CommitMarker {
                found.commit_marker = found.commit_marker.max(at);
            }
            acknowledged_prefix &= state == State::Acknowledged;
            trusted = (!verify).then_some((at, state, word1));
            let page = at & !(PAGE_LEN - 1);
            at += word1.frame_len();
            if acknowledged_prefix {
                found.head = at;
            } else if state != State::Delivered(0)
                && word1.kind().is_message()
                && found.touched.last() != Some(&page)
            {
                found.touched.push(page);
            }
            continue;
        }
        // The frame before may have lied about its length.
        if let Some((before, state, word1)) = trusted.take()
            && at < stop
            && !planted!("length_before_a_gap")
            && !matches!(scanner.place(before, stop, true)?, Place::Valid { .. })
        {
            note(&mut found, state, word1, -1);
            at = before;
        }
        acknowledged_prefix = false;
        let gap = look_on(scanner, at, stop, &mut found, &mut furthest, commit)?;
        let next = gap.next;
        // Frames below the commit were there, whether any of them can still be read or not; and the tail does
        // not return to where it was before the newest incarnation.
        let end = next.unwrap_or(at.max(commit.max(start).min(stop)));
        let evidence = Evidence {
            below_commit: at < commit && !planted!("damage_taken_for_a_tear"),
            frames_behind: end > at,
            named: gap.named,
            reused: reused && at == head,
        };
        match judge(evidence) {
            Verdict::End => {}
            Verdict::TornTail => found.torn_tail = Some(at),
            Verdict::Remains => {
                found.remains = Some((at, end));
                found.head = end;
                acknowledged_prefix = true;
            }
            Verdict::Hole => found.holes.push((at, end)),
            Verdict::Damage => {
                found.damage.push((at, end.min(commit)));
                if end > commit {
                    found.holes.push((commit, end));
                }
            }
        }
        match next {
            Some(next) => at = next,
            None => {
                found.tail = planted!(
                    "tail_behind_a_tear",
                    end + u64::from(gap.named) * FRAME_ALIGN,
                    end
                );
                found.head = found.head.min(found.tail);
                return Ok((found, furthest));
            }
        }
    }
}

fn note(found: &mut Findings, state: State, word1: Word1, sign: i64) {
    if !word1.kind().is_message() || state == State::Acknowledged {
        return;
    }
    found.kept = found.kept.saturating_add_signed(sign);
    if state != State::Delivered(0) {
        found.redelivered = found.redelivered.saturating_add_signed(sign);
    }
}

/// What lies behind an invalid place.
struct Gap {
    /// The next valid frame.
    next: Option<u64>,
    /// A first word, here or behind, names its place.
    named: bool,
}

fn look_on(
    scanner: &mut Scanner<'_>,
    from: u64,
    stop: u64,
    found: &mut Findings,
    furthest: &mut Option<u64>,
    commit: u64,
) -> Result<Gap, Error> {
    let mut named = false;
    let mut at = planted!("scan_ends_at_a_gap", stop, from);
    while at < stop {
        scanner.check_verified(at)?;
        match scanner.place(at, stop, true)? {
            Place::Valid { .. } if at > from => {
                return Ok(Gap {
                    next: Some(at),
                    named,
                });
            }
            Place::Valid { .. } | Place::Nothing => {}
            Place::Named => {
                named = true;
                if at >= commit {
                    found.damaged_frames.push(at);
                }
            }
        }
        if scanner.window.is_unreadable(at) {
            // Nobody can tell what was there. Reported once for each page.
            named = true;
            if at >= commit && (at == from || at & (PAGE_LEN - 1) == 0) {
                found.damaged_frames.push(at);
            }
        }
        *furthest = (*furthest).max(scanner.lap_ahead(at, stop)?);
        at += FRAME_ALIGN;
        // What cannot be read shows as zeros, and is to be reported.
        while at < stop && !scanner.window.is_unreadable(at) {
            let nothing = scanner.nothing(at, stop)?;
            at += nothing;
            if nothing == 0 || at & (PAGE_LEN - 1) != 0 {
                break;
            }
        }
    }
    Ok(Gap { next: None, named })
}
