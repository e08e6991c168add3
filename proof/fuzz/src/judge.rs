//! What opening a file must have found, judged by the bytes before and after, and by `layout` alone.

use crate::incarnation::Incarnation;
use crate::layout::{Frame, Header, Ring, Walk};
use walchan_core::recovery::RecoveryReport;

/// A scan verifies at most so many times the ring, say the docs of recovery.
const VERIFIED_RINGS_MAX: u64 = 64;

/// What an open file must deliver.
#[derive(Clone, Debug)]
pub struct Expected {
    pub messages: Vec<Expect>,
    /// Damage, from where to where.
    pub gaps: Vec<(u64, u64)>,
    pub tail: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expect {
    pub position: u64,
    pub tag: u64,
    pub deliveries: u8,
    pub payload: Vec<u8>,
}

/// What lies in the ring of a file, by its header alone.
struct Found {
    /// Where the pass began that counts.
    base: u64,
    reused: bool,
    /// The end of the scanned range.
    stop: u64,
    commit: u64,
    /// That of the checkpoint: before it headers are enough.
    unverified: u64,
    /// The tail does not return to before it: the start of the newest incarnation.
    start: u64,
    walk: Walk,
    /// Frames of a later lap may lie under headers that recovery took on trust: where it began is not known.
    vague: bool,
}

impl Found {
    /// Where a gap ends that reaches to `to`.
    fn end_of_gap(&self, from: u64, to: u64) -> u64 {
        if to < self.stop {
            to
        } else {
            from.max(self.commit.max(self.start).min(self.stop))
        }
    }
}

fn look(header: &Header, ring: Ring<'_>) -> Found {
    let (checkpoint, start) = (&header.checkpoint, header.newest().start);
    if checkpoint.clean() {
        let (head, tail) = (checkpoint.head, checkpoint.tail);
        return Found {
            base: head,
            reused: false,
            stop: tail,
            commit: tail,
            unverified: tail,
            start,
            walk: ring.walk(head, tail),
            vague: false,
        };
    }
    let commit = checkpoint.commit.max(checkpoint.head);
    let reused = start > checkpoint.head + ring.capacity;
    let base = if reused {
        start - ring.capacity
    } else {
        checkpoint.head
    };
    let scanned = base + ring.capacity;
    let mut found = Found {
        base,
        reused,
        stop: scanned,
        commit,
        unverified: commit,
        start,
        walk: ring.walk(base, scanned),
        vague: false,
    };
    // Below the commit recovery goes by headers, and may pass over what lies under one whose checksum is
    // wrong.
    let gaps = found.walk.gaps.iter();
    let mut places = gaps.flat_map(|gap| (gap.0..gap.1).step_by(16));
    let trusting = places.any(|at| at < commit && ring.header(at, scanned).is_some());
    if let Some(end) = ring.furthest_ahead(&found.walk.gaps, scanned) {
        found.base = end - ring.capacity;
        found.reused = true;
        found.stop = end;
        found.walk = ring.walk(found.base, end);
        found.vague = trusting;
    } else if trusting {
        // Valid frames that lie over each other: which of them count is not said.
        let valid = (base..scanned).step_by(16);
        let valid = valid
            .filter(|at| ring.frame(*at, scanned).is_some())
            .count();
        found.vague = valid > found.walk.frames.len();
    }
    let first = found.walk.frames.iter().rev();
    let mut first = first.filter(|frame| frame.kind == crate::layout::FIRST);
    found.commit = commit.max(first.next().map_or(0, |frame| frame.position));
    found
}

/// Bytes that recovery would verify if it looked once at every place where a header names it.
fn overlap(header: &Header, ring: Ring<'_>) -> u64 {
    let head = header.checkpoint.head;
    let start = header.newest().start;
    let mut bytes = 0;
    for base in [head, start.saturating_sub(ring.capacity)] {
        let places = (base..base + ring.capacity).step_by(16);
        let frames = places.filter_map(|at| ring.header(at, u64::MAX));
        bytes += frames.map(|frame| frame.end - frame.position).sum::<u64>();
    }
    bytes
}

/// Judges a file that was refused; the bytes must be what they were.
pub fn refused(before: &[u8], after: &[u8], capacity: u64, accept_torn: bool, error: &str) {
    assert!(before == after, "refused, and changed: {error}");
    assert!(
        error.starts_with("corrupt at "),
        "not the error of a file that is not one: {error}"
    );
    let Some(header) = Header::read(before, capacity) else {
        return;
    };
    let checkpoint = header.checkpoint;
    if header.incarnations[0].start > checkpoint.head
        || (checkpoint.clean() && header.newest().start > checkpoint.tail)
    {
        return;
    }
    let ring = Ring {
        image: before,
        capacity,
        incarnations: &header.incarnations,
    };
    if overlap(&header, ring) * 8 > VERIFIED_RINGS_MAX * capacity {
        return;
    }
    assert!(!accept_torn, "refused without a reason: {error}");
    let found = look(&header, ring);
    assert!(
        found.vague || stepped_over(&found, ring).is_some_and(|count| count > 0),
        "refused for a tear that is not there: {error}"
    );
}

/// How many places must be reported as stepped over; `None` where that is not known.
fn stepped_over(found: &Found, ring: Ring<'_>) -> Option<u64> {
    if found.vague {
        return None;
    }
    let mut count = 0;
    for &(from, to) in &found.walk.gaps {
        let end = found.end_of_gap(from, to);
        count += u64::from(if found.reused && from == found.base {
            end > from
        } else if end > from {
            end > found.commit
        } else {
            (from..to).step_by(16).any(|at| ring.is_named(at))
        });
    }
    Some(count)
}

/// Judges a file that was opened, and gives what it must deliver.
pub fn opened(before: &[u8], incarnation: &Incarnation, capacity: u64) -> Expected {
    incarnation.with_image(|after| judge(before, after, incarnation.report(), capacity))
}

/// The same, by the bytes before and after.
pub fn judge(before: &[u8], after: &[u8], report: &RecoveryReport, capacity: u64) -> Expected {
    let header = Header::read(before, capacity).expect("opened without a valid header");
    let now = Header::read(after, capacity).expect("opened, and left without a valid header");
    assert!(!report.to_string().is_empty());
    let faults: Vec<u64> = report.header_faults().iter().map(|(at, _)| *at).collect();
    assert_eq!(
        faults, header.faults,
        "other faults of the header are reported"
    );
    assert!(
        now.faults.is_empty(),
        "a copy stays invalid: {:?}",
        now.faults
    );
    assert_eq!(report.is_clean(), header.checkpoint.clean());
    assert!(!now.checkpoint.clean(), "an open file is called clean");

    let ring = Ring {
        image: before,
        capacity,
        incarnations: &header.incarnations,
    };
    let ring_now = Ring {
        image: after,
        capacity,
        incarnations: &now.incarnations,
    };
    let found = look(&header, ring);
    let (head, tail) = (now.checkpoint.head, now.checkpoint.tail);
    assert_eq!(now.checkpoint.commit, tail, "what was kept is not durable");
    let begun = now.newest().number == header.newest().number + 1 && now.newest().start == tail;
    let full = now.incarnations.len() == crate::layout::INCARNATIONS_MAX;
    assert!(begun || full, "no incarnation began at the tail");
    let walk = ring_now.walk(head, tail);
    if !found.vague {
        judge_range(&found, header.checkpoint.clean(), head, tail);
        if !header.checkpoint.clean() {
            assert_eq!(
                Some(report.stepped_over()),
                stepped_over(&found, ring),
                "stepped over: {report}; {:?}",
                found.walk.gaps
            );
        }
        let waiting =
            |frame: &&Frame| crate::layout::is_message(frame.kind) && frame.position >= head;
        let was: Vec<&Frame> = found.walk.frames.iter().filter(waiting).collect();
        let is: Vec<&Frame> = walk.frames.iter().filter(waiting).collect();
        assert_eq!(was, is, "messages were made or lost");
    }
    let damage = header.checkpoint.clean() || report.damaged().iter().any(|d| d.was_durable());
    assert!(
        damage || walk.gaps.is_empty() || found.vague || hidden_damage(&found, ring, &walk),
        "damage is not reported: {:?}, {report}",
        walk.gaps
    );
    for frame in &walk.frames {
        let bytes = frame.bytes.clone();
        if crate::layout::is_message(frame.kind) {
            assert!(
                before[bytes.clone()] == after[bytes],
                "a message was changed"
            );
        }
    }
    let messages = walk.frames.iter().filter(|frame| frame.is_waiting());
    let messages: Vec<Expect> = messages.map(|frame| expect(ring_now, frame)).collect();
    if !header.checkpoint.clean() && walk.gaps.is_empty() {
        assert_eq!(report.kept(), messages.len() as u64, "{report}");
        let again = messages.iter().filter(|m| m.deliveries > 1).count() as u64;
        assert_eq!(report.redelivered(), again, "{report}");
    }
    Expected {
        messages,
        gaps: walk.gaps,
        tail,
    }
}

/// Where head and tail must lie.
fn judge_range(found: &Found, clean: bool, head: u64, tail: u64) {
    let frames = &found.walk.frames;
    let last = frames.last().map_or(found.base, |frame| frame.end);
    if clean {
        assert_eq!(
            (head, tail),
            (found.base, found.stop),
            "a clean range moved"
        );
        return;
    }
    let expected_tail = found.end_of_gap(last, found.stop);
    assert_eq!(tail, expected_tail, "the tail");
    let mut expected = found.base;
    for frame in frames {
        let steps_over_remains = found.reused && expected == found.base;
        if frame.position != expected && !steps_over_remains {
            break;
        }
        expected = frame.position;
        if frame.is_waiting() {
            break;
        }
        expected = frame.end;
    }
    if found.reused && frames.is_empty() {
        expected = tail;
    }
    assert_eq!(head, expected.min(tail), "the head");
}

/// Below the commit recovery goes by headers: a frame with a header and a wrong checksum is found when it is
/// delivered, with all that it seems to cover.
fn hidden_damage(found: &Found, ring: Ring<'_>, walk: &Walk) -> bool {
    let places = walk.gaps.iter().flat_map(|gap| (gap.0..gap.1).step_by(16));
    let headers = places.take_while(|at| *at < found.unverified);
    let trusted: Vec<Frame> = headers
        .filter_map(|at| ring.header(at, found.stop))
        .collect();
    walk.gaps.iter().all(|gap| {
        let mut covers = trusted.iter();
        covers.any(|frame| frame.position <= gap.0 && gap.0 < frame.end)
    })
}

pub fn expect(ring: Ring<'_>, frame: &Frame) -> Expect {
    let incarnation = crate::layout::incarnation_at(ring.incarnations, frame.position);
    Expect {
        position: frame.position,
        tag: incarnation.map_or(0, |(incarnation, _)| incarnation.tag),
        deliveries: (frame.state + 1).min(14),
        payload: ring.image[frame.bytes.clone()].to_vec(),
    }
}
