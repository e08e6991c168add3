//! The life cycle of a file of the chain, as data.
//!
//! A file of the chain is a segment, or the ring. Its state changes under the lock of the chain, by
//! `Entry::apply`, and only as [`TRANSITIONS`] says. Two facts are no states, for any thread brings them
//! about without a lock: a file is *sealed* when its tail is at its end, and *drained* when its head is. What
//! the pages of the file's header are used for meanwhile is [`Stage`], under the lock of the pages: the file
//! may be in the hands of a leader then, who must not wait for the chain.
//!
//! A sender that links a file claims its first place before anybody else can find the file: nobody takes it
//! away from whoever made it. A file that is linked ahead of need belongs to nobody until the first claim:
//! any sender may claim in it, and the housekeeper may seal it empty, which makes no transition.
//!
//! [`Stage`]: crate::commit::Stage

/// The state of a file of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SegmentState {
    /// It is being made, or the ring is out of the chain: no sender and no receiver can find it.
    Out,
    /// In the chain. Sends go to it, or will, or it is sealed and not complete yet.
    Filling,
    /// The same, and the receiver has come to it.
    Entered,
    /// Nothing more is to be done for it until the receiver comes: all of it is on stable storage, and a
    /// checkpoint says so. Under `FlushOnly` a file that the receiver is about to come to is taken for
    /// complete as it is.
    Complete,
    /// The same, and it is not mapped.
    Parked,
    /// Nothing more is to be done for it until it is drained: it is complete, and the receiver has come to
    /// it.
    Draining,
    /// Drained, durably: nobody looks at it any more. A segment is removed, the ring is
    /// [`SegmentState::Out`].
    Retired,
    /// Its name is gone.
    Removed,
}

/// What happens to a file of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// It is linked behind the last file.
    Link,
    /// The receiver comes to it.
    Enter,
    /// It is made complete.
    Complete,
    /// Its mapping is dropped.
    Park,
    /// It is taken out of the chain, drained.
    Retire,
    /// Its name is removed.
    Remove,
    /// It is taken out of the chain, unused.
    Drop,
}

/// Who may make a transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A sender without room, or the housekeeper ahead of need.
    Grower,
    /// The channel's second thread; at the end of the incarnation whoever closes the channel, in its place.
    Housekeeper,
    /// The receiver.
    Receiver,
    /// Whoever closes the channel.
    Closer,
}

/// One row of the life cycle.
#[derive(Debug)]
pub struct Transition {
    /// The state before.
    pub from: SegmentState,
    /// What happens.
    pub event: Event,
    /// The state behind it.
    pub to: SegmentState,
    /// Who may make it.
    pub actor: Actor,
    /// Locks that are held, besides that of the chain.
    pub lock: &'static str,
    /// What is durable before.
    pub durable: &'static str,
    /// What takes it back, should a step of it fail.
    pub undo: &'static str,
    /// Tests that crash at it, or models of it.
    pub tests: &'static [&'static str],
}

/// All transitions. A pair of state and event that is not here does not happen.
pub const TRANSITIONS: [Transition; 13] = [
    Transition {
        from: SegmentState::Out,
        event: Event::Link,
        to: SegmentState::Filling,
        actor: Actor::Grower,
        lock: "growing",
        durable: "a segment: header, blocks and name; the ring: its new checkpoints, then its table",
        undo: "the name is removed and the file before thaws; if the name stays, that is tried again first",
        tests: &[
            "a_crash_while_a_file_is_made_named_or_linked_leaves_no_file_and_loses_nothing",
            "a_crash_in_the_new_beginning_of_the_ring_finds_it_drained_or_begun",
            "a_file_that_could_neither_be_used_nor_removed_is_removed_before_the_next_one",
        ],
    },
    Transition {
        from: SegmentState::Filling,
        event: Event::Enter,
        to: SegmentState::Entered,
        actor: Actor::Receiver,
        lock: "none; that of the pages behind it",
        durable: "nothing",
        undo: "the receiver tries again",
        tests: &["a_file_is_complete_or_entered"],
    },
    Transition {
        from: SegmentState::Filling,
        event: Event::Complete,
        to: SegmentState::Complete,
        actor: Actor::Housekeeper,
        lock: "the leadership, before",
        durable: "all of it, and a checkpoint with its counts; under `FlushOnly` near the receiver nothing",
        undo: "a failed sync ends the channel",
        tests: &["a_crash_while_a_file_is_made_complete_costs_at_most_a_scan"],
    },
    Transition {
        from: SegmentState::Entered,
        event: Event::Complete,
        to: SegmentState::Draining,
        actor: Actor::Housekeeper,
        lock: "the leadership, before",
        durable: "all of it",
        undo: "a failed sync ends the channel",
        tests: &["a_file_is_complete_or_entered"],
    },
    Transition {
        from: SegmentState::Complete,
        event: Event::Enter,
        to: SegmentState::Draining,
        actor: Actor::Receiver,
        lock: "none; that of the pages behind it",
        durable: "before a delivery: that no checkpoint vouches for its counts",
        undo: "the receiver tries again",
        tests: &["what_the_receiver_did_in_a_complete_file_is_counted_right_after_a_power_cut"],
    },
    Transition {
        from: SegmentState::Complete,
        event: Event::Park,
        to: SegmentState::Parked,
        actor: Actor::Housekeeper,
        lock: "none",
        durable: "as it was made complete",
        undo: "nothing can fail",
        tests: &["a_receiver_comes_to_files_that_are_parked"],
    },
    Transition {
        from: SegmentState::Parked,
        event: Event::Enter,
        to: SegmentState::Draining,
        actor: Actor::Receiver,
        lock: "none; that of the pages behind it",
        durable: "before a delivery: that no checkpoint vouches for its counts",
        undo: "it stays parked; the receiver tries again, and `close` tells if it does not",
        tests: &[
            "a_receiver_comes_to_files_that_are_parked",
            "a_file_that_could_not_be_opened_makes_a_close_fail",
        ],
    },
    Transition {
        from: SegmentState::Filling,
        event: Event::Retire,
        to: SegmentState::Retired,
        actor: Actor::Housekeeper,
        lock: "the leadership, before",
        durable: "a checkpoint that says that it is drained",
        undo: "a failed sync ends the channel",
        tests: &["a_full_file_that_is_drained_and_has_no_next_one_is_no_gap"],
    },
    Transition {
        from: SegmentState::Entered,
        event: Event::Retire,
        to: SegmentState::Retired,
        actor: Actor::Housekeeper,
        lock: "the leadership, before",
        durable: "a checkpoint that says that it is drained",
        undo: "a failed sync ends the channel",
        tests: &["a_power_cut_while_a_file_is_recorded_as_drained_tears_one_checkpoint_at_most"],
    },
    Transition {
        from: SegmentState::Complete,
        event: Event::Retire,
        to: SegmentState::Retired,
        actor: Actor::Housekeeper,
        lock: "the leadership, before",
        durable: "a checkpoint that says that it is drained: nothing was in it",
        undo: "a failed sync ends the channel",
        tests: &["a_receiver_passes_an_empty_file_that_goes"],
    },
    Transition {
        from: SegmentState::Draining,
        event: Event::Retire,
        to: SegmentState::Retired,
        actor: Actor::Housekeeper,
        lock: "the leadership, before",
        durable: "a checkpoint that says that it is drained",
        undo: "a failed sync ends the channel",
        tests: &["a_drained_file_is_removed_and_may_come_back"],
    },
    Transition {
        from: SegmentState::Retired,
        event: Event::Remove,
        to: SegmentState::Removed,
        actor: Actor::Housekeeper,
        lock: "none",
        durable: "as it was retired; the removal is not",
        undo: "the name stays: it is tried again, at the end by the next open",
        tests: &["a_drained_file_is_removed_and_may_come_back"],
    },
    Transition {
        from: SegmentState::Filling,
        event: Event::Drop,
        to: SegmentState::Removed,
        actor: Actor::Closer,
        lock: "none",
        durable: "nothing was ever claimed in it",
        undo: "the error is that of `close`",
        tests: &[
            "a_file_that_was_linked_ahead_of_need_and_not_used_is_removed",
            "a_crash_while_a_close_drops_a_file_that_was_not_used_keeps_what_came_before",
        ],
    },
];

impl SegmentState {
    /// The state behind an event; `None`: it does not happen in this state.
    #[must_use]
    pub fn after(self, event: Event) -> Option<SegmentState> {
        let mut rows = TRANSITIONS.iter();
        let row = rows.find(|row| row.from == self && row.event == event)?;
        Some(row.to)
    }

    /// The receiver has come to it.
    #[must_use]
    pub fn is_entered(self) -> bool {
        matches!(self, SegmentState::Entered | SegmentState::Draining)
    }

    /// The housekeeper has to make it complete once it is sealed.
    #[must_use]
    pub fn is_to_complete(self) -> bool {
        matches!(self, SegmentState::Filling | SegmentState::Entered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_pair_of_state_and_event_has_one_row_and_each_state_is_reached() {
        let mut pairs = HashSet::new();
        let mut reached = HashSet::from([SegmentState::Out]);
        for row in &TRANSITIONS {
            assert!(pairs.insert((row.from, row.event)), "{row:?}");
            assert_ne!(row.from, row.to, "{row:?}");
            assert!(!row.tests.is_empty(), "{row:?}");
        }
        for _ in &TRANSITIONS {
            let next = TRANSITIONS.iter().filter(|row| reached.contains(&row.from));
            let next: Vec<_> = next.map(|row| row.to).collect();
            reached.extend(next);
        }
        let all = TRANSITIONS.iter().flat_map(|row| [row.from, row.to]);
        assert!(all.into_iter().all(|state| reached.contains(&state)));
        // What is removed stays so, and what was retired is entered by nobody.
        assert!(
            TRANSITIONS
                .iter()
                .all(|row| row.from != SegmentState::Removed)
        );
        assert_eq!(SegmentState::Retired.after(Event::Enter), None);
        assert_eq!(SegmentState::Parked.after(Event::Retire), None);
    }
}
