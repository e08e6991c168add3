//! The verdict on an invalid place, as data.

/// What is known about an invalid place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Evidence {
    /// It lies below the durable commit: a sync had completed there.
    pub(super) below_commit: bool,
    /// Valid frames lie behind it, or the newest incarnation begins there.
    pub(super) frames_behind: bool,
    /// Its first word, or one behind it before any valid frame, names its own place: a frame was being
    /// written there, or was damaged later.
    pub(super) named: bool,
    /// It is where a later lap stopped to reuse the ring.
    pub(super) reused: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing was sent here: the tail.
    End,
    /// A frame was begun here, and nothing follows. Stepped over, reported; the tail returns to it.
    TornTail,
    /// What a later lap left of reclaimed frames.
    Remains,
    /// Unfinished or torn, frames follow. Stepped over, reported, closed.
    Hole,
    /// What was on stable storage is not what it was. Reported, delivered as an error, stays.
    Damage,
}

/// `None`: either.
type Row = (
    Option<bool>,
    Option<bool>,
    Option<bool>,
    Option<bool>,
    Verdict,
);

/// Columns: reused, below the commit, frames behind, named. Exactly one row matches.
const TABLE: [Row; 5] = [
    (Some(true), None, None, None, Verdict::Remains),
    (Some(false), Some(true), None, None, Verdict::Damage),
    (Some(false), Some(false), Some(true), None, Verdict::Hole),
    (
        Some(false),
        Some(false),
        Some(false),
        Some(true),
        Verdict::TornTail,
    ),
    (
        Some(false),
        Some(false),
        Some(false),
        Some(false),
        Verdict::End,
    ),
];

fn matches(row: &Row, evidence: Evidence) -> bool {
    let fits = |cell: Option<bool>, value: bool| cell.is_none_or(|wanted| wanted == value);
    fits(row.0, evidence.reused)
        && fits(row.1, evidence.below_commit)
        && fits(row.2, evidence.frames_behind)
        && fits(row.3, evidence.named)
}

pub(super) fn judge(evidence: Evidence) -> Verdict {
    let mut rows = TABLE.iter().filter(|row| matches(row, evidence));
    // The test below shows that one row matches in all sixteen cases.
    rows.next().map_or(Verdict::Damage, |row| row.4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_row_matches_each_case() {
        for bits in 0..16u8 {
            let bit = |n: u8| bits >> n & 1 == 1;
            let evidence = Evidence {
                reused: bit(0),
                below_commit: bit(1),
                frames_behind: bit(2),
                named: bit(3),
            };
            let rows = TABLE.iter().filter(|row| matches(row, evidence)).count();
            assert_eq!(rows, 1, "{evidence:?}");
        }
    }
}
