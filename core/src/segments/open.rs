//! Which files belong to a channel, in which order, and what is in them: the recovery of a chain.

use super::chain::{BacklogRange, Chain, Entry};
use super::disk::{Directory, Disk};
use super::files::{Files, Prepared};
use super::growth::Growth;
use super::lifecycle::SegmentState;
use crate::commit::Shared;
use crate::error::{Error, Mismatch};
use crate::format::HEADER_LEN;
use crate::format::checkpoint::Checkpoint;
use crate::format::identity::Identity;
use crate::planted::planted;
use crate::recovery::{self, Bounds, Judged, Policy, RecoveryReport};
use crate::ring::Layout;
use crate::storage::Medium;
use crate::sync::Arc;

/// A file of the chain, looked at.
struct Member {
    identity: Identity,
    /// The newest.
    checkpoint: Checkpoint,
    judged: Option<Judged>,
}

impl Member {
    fn number(&self) -> u64 {
        self.identity.number
    }

    /// Everything in it is acknowledged, no more comes, and another file follows. The head alone does not
    /// tell the last: it reaches the end of a full file before anything is linked behind it.
    fn is_drained(&self) -> bool {
        self.checkpoint.sealed && self.checkpoint.head == self.checkpoint.tail
    }

    fn is_complete(&self) -> bool {
        self.checkpoint.clean && self.checkpoint.sealed
    }
}

/// What is there, before anything is changed.
struct Plan {
    /// In the order of their positions.
    members: Vec<Member>,
    /// Numbers of files that go: drained, or never used.
    gone: Vec<u64>,
    /// Numbers and capacities of those that are drained, the ring included.
    drained: Vec<(u64, u64)>,
    /// The ring had begun anew in vain.
    ring_is_unused: bool,
    /// The largest number that is taken.
    last_number: u64,
}

/// A chain that is ready for its incarnation.
#[derive(Debug)]
pub struct Opened<D: Directory> {
    /// The files, ready.
    pub chain: Chain<Disk<D>>,
    /// What was found.
    pub report: RecoveryReport,
    /// There is no salt to send with.
    pub receive_only: bool,
}

/// How a chain is opened.
#[derive(Clone, Copy, Debug)]
pub struct ChainOptions {
    /// What is accepted.
    pub policy: Policy,
    /// `None`: the channel has one file, with this many messages at most.
    pub growth: Option<Growth>,
    /// Messages that may be unacknowledged at once.
    pub bound: u64,
}

fn corrupt(position: u64, reason: String) -> Error {
    Error::Corrupt { position, reason }
}

impl<D: Directory> Disk<D> {
    /// Judges all files, then repairs those that need it.
    pub fn open(self, shared: Arc<Shared>, options: ChainOptions) -> Result<Opened<D>, Error> {
        let mut plan = self.look()?;
        self.leave_out_unused(&mut plan)?;
        self.check(&plan.members)?;
        if options.growth.is_none() && (plan.members.len() > 1 || plan.members[0].number() > 0) {
            let count = plan.members.iter().filter(|m| m.number() > 0).count();
            return Err(Error::Mismatch(Mismatch::Segments { count }));
        }
        self.judge_all(&mut plan, options.policy)?;
        let drained = planted!("drained_in_the_cache_alone", &[][..], &plan.drained[..]);
        for (number, capacity) in drained {
            // Whoever was killed, or met a failed sync, may have left it in the cache alone; once
            // this one is gone, nothing else names the next one.
            let file = self.open_member(*number, HEADER_LEN + capacity)?;
            recovery::write_checkpoints_again(&file)?;
        }
        for number in &plan.gone {
            let verify = |medium: &dyn Medium| self.verify(medium, *number).map(drop);
            self.directory.remove(*number, &verify)?;
        }
        if !plan.gone.is_empty() {
            self.directory.sync_directory()?;
        }
        if plan.ring_is_unused {
            // Said once: later the files around it may be gone. Behind the removal of those that follow it.
            let capacity = self.identity.capacity;
            let ring = self.open_member(0, HEADER_LEN + capacity)?;
            recovery::retire_unused(&ring, capacity)?;
        }
        self.repair_all(plan, shared, options)
    }

    /// Opens a file that was looked at.
    fn open_member(&self, number: u64, len: u64) -> Result<D::Memory, Error> {
        let verify = |medium: &dyn Medium| self.verify(medium, number).map(drop);
        self.directory.open(number, len, &verify)
    }

    /// Finds the files, and puts them in order.
    fn look(&self) -> Result<Plan, Error> {
        let ring = self.directory.look(0)?;
        let checkpoint = recovery::newest_checkpoint(&*ring, self.identity.capacity)?;
        drop(ring);
        let ring = Member {
            identity: self.identity.clone(),
            checkpoint,
            judged: None,
        };
        let mut numbers = self.directory.numbers()?;
        numbers.sort_unstable();
        let mut others = Vec::new();
        for number in numbers {
            let Some(identity) = self.identity_if_ours(number)? else {
                continue;
            };
            let medium = self.directory.look(number)?;
            let checkpoint = recovery::newest_checkpoint(&*medium, identity.capacity)?;
            others.push(Member {
                identity,
                checkpoint,
                judged: None,
            });
        }
        let last_number = others.last().map_or(0, Member::number);
        let head = ring.checkpoint.head;
        let behind = others.partition_point(|member| member.identity.start < head);
        let mut members = others;
        members.insert(behind, ring);
        let mut plan = Plan {
            members,
            gone: Vec::new(),
            drained: Vec::new(),
            ring_is_unused: false,
            last_number,
        };
        // C5: from the front alone. What lies behind one that is not drained tells where that one ends.
        while let Some(at) = plan.first_drained() {
            // A drained ring is no part of the chain; without it the last file is, drained or not.
            let ring_is_last = plan.members.len() == 2 && plan.members[1].number() == 0;
            let index = at + usize::from(ring_is_last && plan.members[1].is_drained());
            let identity = &plan.members[index].identity;
            plan.drained.push((identity.number, identity.capacity));
            plan.leave_out(index);
        }
        Ok(plan)
    }

    fn judge(&self, members: &[Member], index: usize) -> Result<Judged, Error> {
        let member = &members[index];
        let follows = members.get(index + 1).map(|next| next.identity.follows);
        let bounds = Bounds {
            end: member.identity.end().or(follows),
            sealed: follows.is_some(),
        };
        let medium = self.directory.look(member.number())?;
        recovery::judge(&*medium, member.identity.capacity, bounds)
    }

    fn is_unused(&self, members: &[Member], index: usize) -> Result<bool, Error> {
        let before = index.checked_sub(1).and_then(|i| members[i].identity.end());
        let (Some(end), 0) = (before, members[index].number()) else {
            return Ok(self.judge(members, index)?.is_unused());
        };
        // The ring behind another file has begun anew there, and was not used before its table said so.
        let medium = self.directory.look(0)?;
        let judged = recovery::judge(&*medium, self.identity.capacity, Bounds::default())?;
        Ok(!judged.has_incarnation_from(end) || judged.is_unused())
    }

    /// Files that were linked ahead of need, and never used, are no part of the chain.
    fn leave_out_unused(&self, plan: &mut Plan) -> Result<(), Error> {
        // A ring that had begun anew in vain: what came then was too large for it, and went to a file that
        // follows the one before.
        if let Some(ring) = plan.members.iter().position(|m| m.number() == 0) {
            let head = plan.members[ring].checkpoint.head;
            let before = ring
                .checked_sub(1)
                .and_then(|i| plan.members[i].identity.end());
            let follows = plan.members.get(ring + 1).map(|m| m.identity.follows);
            if before.is_some_and(|end| end > head || follows == Some(end))
                || follows.is_some_and(|follows| follows < head)
            {
                plan.leave_out(ring);
            }
        }
        while let [.., before, last] = &plan.members[..] {
            let index = plan.members.len() - 1;
            if before.is_complete() || !self.is_unused(&plan.members, index)? {
                break;
            }
            // What ends where it ends without a recorded end was sealed: the next one is needed.
            let medium = self.directory.look(before.number())?;
            let end = before.identity.end().unwrap_or(last.identity.follows);
            let bounds = Bounds {
                end: Some(end),
                sealed: false,
            };
            let judged = recovery::judge(&*medium, before.identity.capacity, bounds)?;
            if judged.tail() == end && last.number() > 0 {
                break;
            }
            drop(medium);
            plan.leave_out(index);
        }
        // One that could not be removed, or came back, while the ring went on.
        if let [.., before, last] = &plan.members[..]
            && last.number() == 0
            && before.number() == plan.last_number
        {
            let index = plan.members.len() - 2;
            // As if nothing came behind it: what is sealed is never unused.
            let medium = self.directory.look(before.number())?;
            let bounds = Bounds {
                end: before.identity.end(),
                sealed: false,
            };
            let judged = recovery::judge(&*medium, before.identity.capacity, bounds)?;
            drop(medium);
            if judged.is_unused() {
                plan.leave_out(index);
            }
        }
        Ok(())
    }

    /// The chain has no gap.
    fn check(&self, members: &[Member]) -> Result<(), Error> {
        let missing = |position| {
            let reason = "the segment that begins here, or close behind, is missing or not readable; with it \
                          in its place again the channel opens";
            corrupt(position, reason.to_owned())
        };
        let Some(last) = members.last() else {
            return Err(missing(0));
        };
        for pair in members.windows(2) {
            let [before, next] = pair else { continue };
            let end = match before.identity.end() {
                None if before.is_complete() => Some(before.checkpoint.tail),
                end => end,
            };
            let follows = match next.number() {
                // The ring begins anew behind all that was there.
                0 => end.filter(|end| *end > next.checkpoint.head),
                _ => end.filter(|end| *end != next.identity.follows),
            };
            if let Some(end) = follows {
                return Err(missing(end));
            }
        }
        if last.checkpoint.sealed {
            return Err(missing(last.checkpoint.tail));
        }
        Ok(())
    }

    /// Judges all files but those that are complete, and changes nothing.
    fn judge_all(&self, plan: &mut Plan, policy: Policy) -> Result<(), Error> {
        for index in 0..plan.members.len() {
            let is_last = index + 1 == plan.members.len();
            if plan.members[index].is_complete() && !is_last {
                continue;
            }
            let judged = self.judge(&plan.members, index)?;
            judged.check(policy)?;
            plan.members[index].judged = Some(judged);
        }
        Ok(())
    }

    fn repair_all(
        self,
        plan: Plan,
        shared: Arc<Shared>,
        options: ChainOptions,
    ) -> Result<Opened<D>, Error> {
        let mut report = RecoveryReport::clean();
        let mut receive_only = false;
        let mut bytes = HEADER_LEN + self.identity.capacity;
        let mut entries = Vec::new();
        let count = plan.members.len();
        let follows: Vec<u64> = plan.members.iter().map(|m| m.identity.follows).collect();
        for (index, member) in plan.members.into_iter().enumerate() {
            let is_last = index + 1 == count;
            let number = member.number();
            let capacity = member.identity.capacity;
            if number > 0 {
                bytes += HEADER_LEN + capacity;
            }
            let mut end = member.identity.end();
            if !is_last {
                // What it ends with is what the next one follows; the ring follows whatever was there.
                end = end.or(Some(follows[index + 1]));
            }
            let Some(judged) = member.judged else {
                report.add_complete(&member.checkpoint);
                entries.push(Entry {
                    number,
                    made_at: member.identity.start,
                    start: member.identity.start.max(member.checkpoint.head),
                    capacity,
                    end,
                    log: None,
                    state: SegmentState::Parked,
                    unopened: None,
                    backlog: None,
                });
                continue;
            };
            let memory = self.open_member(number, HEADER_LEN + capacity)?;
            let recovered = judged.repair(&memory, &mut || (self.entropy)())?;
            report.add(&recovered.report, number);
            receive_only = is_last && recovered.receive_only;
            let start = recovered.head;
            let layout = Layout::of(&member.identity);
            let prepared = Prepared::new(memory, layout, &recovered, end, options.bound);
            let backlog = BacklogRange::in_start(&prepared.start);
            let log = Chain::<Self>::log_of(&shared, prepared, options.growth.as_ref(), None);
            if !is_last {
                log.close_end();
            }
            entries.push(Entry {
                number,
                made_at: member.identity.start,
                start,
                capacity,
                end,
                log: Some(log),
                state: SegmentState::Filling,
                unopened: None,
                backlog,
            });
        }
        let chain = Chain::new(
            self,
            shared,
            entries,
            options.growth,
            bytes,
            plan.last_number + 1,
        );
        Ok(Opened {
            chain,
            report,
            receive_only,
        })
    }
}

impl Plan {
    /// Index of a drained file at the front, behind which another one lies.
    fn first_drained(&self) -> Option<usize> {
        let is_front = self.members.len() > 1 && self.members[0].is_drained();
        planted!(
            "drained_taken_out_of_the_middle",
            self.members.iter().position(Member::is_drained),
            is_front.then_some(0)
        )
    }

    fn leave_out(&mut self, index: usize) {
        let number = self.members.remove(index).number();
        // The ring stays where it is, free.
        if number > 0 {
            self.gone.push(number);
        } else {
            self.ring_is_unused = !self.drained.iter().any(|(number, _)| *number == 0);
        }
    }
}

/// A new channel: the ring alone.
pub fn created<F: Files>(
    files: F,
    prepared: Prepared<F::Memory>,
    shared: Arc<Shared>,
    growth: Option<Growth>,
) -> Chain<F> {
    let capacity = prepared.layout.capacity;
    let (start, backlog) = (prepared.start.head, BacklogRange::in_start(&prepared.start));
    let log = Chain::<F>::log_of(&shared, prepared, growth.as_ref(), None);
    let entry = Entry {
        number: 0,
        made_at: 0,
        start,
        capacity,
        end: None,
        log: Some(log),
        state: SegmentState::Filling,
        unopened: None,
        backlog,
    };
    Chain::new(files, shared, vec![entry], growth, HEADER_LEN + capacity, 1)
}
