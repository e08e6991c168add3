//! The two checkpoint pages, and what the disk may hold of them.
//!
//! Space may be reused only when every checkpoint that recovery could fall back on has a head beyond
//! it. What the disk holds of a page is its content at the last completed sync, or anything stored
//! since. In synced modes the last completed sync decides. In `FlushOnly` the kernel writes pages when it
//! likes, so the older of the two counts; and a checkpoint whose commit lies above its head would
//! turn reused space into damage, so each page is *pinned* at the lowest such head that the disk may
//! hold, until a completed sync has replaced it.

use crate::format::checkpoint::Checkpoint;
use crate::planted::planted;

/// What the checkpoint pages of a file are used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Rounds store checkpoints.
    Live,
    /// The file is complete and the receiver has not come to it: the pages stay as they are, and vouch for
    /// its counts.
    Complete,
    /// The receiver has come, so the counts of a clean checkpoint would not last. That is stored, and not
    /// durable yet.
    Entering,
    /// The same, durably.
    Entered,
    /// The file is drained, and may be gone or be used anew: nobody writes the pages through this log.
    Retired,
}

impl Stage {
    /// The pages stay as they are.
    pub(super) fn is_quiet(self) -> bool {
        matches!(self, Stage::Complete | Stage::Retired)
    }

    /// The receiver has come to the file.
    pub(super) fn is_entered(self) -> bool {
        matches!(self, Stage::Entering | Stage::Entered)
    }
}

#[derive(Debug)]
pub(super) struct Pages {
    /// Where this incarnation began.
    start: u64,
    stored: [Checkpoint; 2],
    /// Index of the page stored last.
    newest: usize,
    pins: [Option<u64>; 2],
    /// While a sync runs: the pins of what it will leave, and of what was stored since it began.
    replaced: [Option<u64>; 2],
    since: [Option<u64>; 2],
    /// The checkpoint of the last completed sync.
    recorded: Checkpoint,
    /// Acknowledgements of this incarnation that the timer has recorded.
    pub(super) acknowledged: u64,
    /// `FlushOnly`: checkpoints name the commit. Not so once the limit was lifted, until somebody asks for a
    /// sync: each commit above the head would pin the limit again.
    pub(super) names_commit: bool,
    /// The published prefix was followed up to here, and synced. Not below the head of `recorded`.
    pub(super) scanned: u64,
    /// Rounds since the last checkpoint.
    pub(super) rounds_without: u32,
    /// The limit is not raised any more: the file is filled once, or is about to be sealed.
    pub(super) frozen: bool,
    /// What they are used for.
    pub(super) stage: Stage,
}

/// The head of a checkpoint behind which recovery would look for frames that must be there.
fn pin_of(checkpoint: &Checkpoint, start: u64) -> Option<u64> {
    (checkpoint
        .commit
        .max(planted!("start_of_life_does_not_pin", 0, start))
        > checkpoint.head)
        .then_some(checkpoint.head)
}

/// The lower of two pins; `None` is no pin.
fn lower(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

impl Pages {
    /// Both pages are durable as they are, and so is all before `scanned`.
    pub(super) fn new(stored: [Checkpoint; 2], scanned: u64, start: u64, frozen: bool) -> Self {
        let newest = usize::from(stored[1].generation > stored[0].generation);
        let pins = [pin_of(&stored[0], start), pin_of(&stored[1], start)];
        Pages {
            start,
            stored,
            newest,
            pins,
            replaced: pins,
            since: [None; 2],
            recorded: stored[newest],
            acknowledged: 0,
            names_commit: true,
            scanned,
            rounds_without: 0,
            frozen,
            stage: Stage::Live,
        }
    }

    pub(super) fn newest(&self) -> &Checkpoint {
        &self.stored[self.newest]
    }

    /// The checkpoint of the last completed sync.
    pub(super) fn recorded(&self) -> Checkpoint {
        self.recorded
    }

    /// Takes note of a checkpoint; tells the page to store it in.
    pub(super) fn store(&mut self, checkpoint: Checkpoint) -> usize {
        let page = planted!("one_checkpoint_page", self.newest, 1 - self.newest);
        self.newest = page;
        self.rounds_without = 0;
        self.stored[page] = checkpoint;
        let pin = pin_of(&checkpoint, self.start);
        self.pins[page] = lower(self.pins[page], pin);
        self.since[page] = lower(self.since[page], pin);
        page
    }

    pub(super) fn sync_begins(&mut self) {
        self.replaced = [0, 1].map(|page: usize| pin_of(&self.stored[page], self.start));
        self.since = [None; 2];
    }

    /// `recorded`: the checkpoint that the sync took along.
    pub(super) fn sync_completed(&mut self, recorded: &Checkpoint) {
        for page in 0..2 {
            self.pins[page] = lower(self.replaced[page], self.since[page]);
        }
        self.recorded = *recorded;
    }

    pub(super) fn is_pinned(&self) -> bool {
        self.pins != [None; 2] && !self.frozen && !planted!("pins_ignored")
    }

    /// The lowest head that recovery could start from.
    pub(super) fn floor(&self) -> u64 {
        let older = self.stored[1 - self.newest].head;
        let heads = planted!(
            "limit_by_the_newest_page",
            self.newest().head,
            older.min(self.newest().head)
        );
        let pins = planted!("pins_ignored", [None; 2], self.pins);
        lower(pins[0], pins[1]).map_or(heads, |pin| pin.min(heads))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(generation: u64, head: u64, commit: u64) -> Checkpoint {
        Checkpoint {
            generation,
            head,
            commit,
            tail: commit,
            ..Checkpoint::default()
        }
    }

    #[test]
    fn a_commit_above_the_head_pins_until_both_pages_are_replaced_durably() {
        let mut pages = Pages::new([checkpoint(1, 0, 640), checkpoint(2, 0, 640)], 0, 0, false);
        assert!(pages.is_pinned());
        for generation in 3..7 {
            pages.store(checkpoint(generation, 1024, 1024));
            assert_eq!(pages.floor(), 0, "the disk may still hold the old ones");
        }
        pages.sync_begins();
        pages.sync_completed(&checkpoint(6, 1024, 1024));
        assert!(!pages.is_pinned());
        assert_eq!(pages.floor(), 1024);
    }

    #[test]
    fn a_head_below_the_start_of_the_life_pins_where_it_is() {
        let mut pages = Pages::new(
            [checkpoint(1, 0, 640), checkpoint(2, 0, 640)],
            0,
            640,
            false,
        );
        for (head, pinned) in [(256, true), (512, true), (640, false)] {
            for generation in [3, 4] {
                pages.store(checkpoint(generation, head, head));
                pages.sync_begins();
                pages.sync_completed(&checkpoint(generation, head, head));
            }
            assert_eq!((pages.is_pinned(), pages.floor()), (pinned, head));
        }
    }

    #[test]
    fn what_is_stored_during_a_sync_may_or_may_not_be_on_disk() {
        let mut pages = Pages::new([checkpoint(1, 0, 0), checkpoint(2, 0, 0)], 0, 0, false);
        pages.store(checkpoint(3, 64, 64));
        pages.sync_begins();
        pages.store(checkpoint(4, 128, 512));
        pages.sync_completed(&checkpoint(3, 64, 64));
        assert_eq!(pages.floor(), 64);
        pages.store(checkpoint(5, 512, 512));
        pages.store(checkpoint(6, 512, 512));
        assert_eq!(pages.floor(), 128);
    }
}
