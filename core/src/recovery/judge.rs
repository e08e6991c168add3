//! One way to recover, whatever ended the last incarnation: judge a file, then repair it.

use super::header::{Bounds, Entropy, Header, Policy, Recovered, read_header};
use super::repair::{self, Plan};
use super::scan;
use crate::error::Error;
use crate::format::checkpoint::Checkpoint;
use crate::format::{CHECKPOINT_OFFSETS, PAGE_LEN};
use crate::planted::planted;
use crate::storage::Medium;
use std::io;

/// A file that was judged, and not changed.
#[derive(Debug)]
pub struct Judged {
    header: Header,
    findings: scan::Findings,
    bounds: Bounds,
}

/// Judges a file whose identity was read.
pub fn judge(medium: &dyn Medium, capacity: u64, bounds: Bounds) -> Result<Judged, Error> {
    let header = read_header(medium, capacity)?;
    let checkpoint = &header.checkpoint;
    // A clean checkpoint of a file to which more was sent later does not outlive the next open.
    let whole = !bounds.sealed || bounds.end == Some(checkpoint.tail);
    let findings = if checkpoint.clean && whole {
        scan::Findings::of_clean(checkpoint)
    } else {
        scan::scan(medium, &header.incarnations, checkpoint, capacity, bounds)?
    };
    Ok(Judged {
        header,
        findings,
        bounds,
    })
}

impl Judged {
    /// Where the next frame would be claimed.
    pub fn tail(&self) -> u64 {
        self.findings.tail
    }

    /// Whether an incarnation of it has begun behind a position.
    pub fn has_incarnation_from(&self, position: u64) -> bool {
        self.header.incarnations.newest().start >= position
    }

    /// Whether nothing was ever claimed in it, as far as anybody can tell.
    pub fn is_unused(&self) -> bool {
        let findings = &self.findings;
        self.header.incarnations.oldest_start() == Some(findings.tail)
            && findings.head == findings.tail
            && findings.first_torn().is_none()
            && findings.damage.is_empty()
    }

    /// An error if the policy does not accept what was found.
    pub fn check(&self, policy: Policy) -> Result<(), Error> {
        if !policy.accept_torn
            && let Some(position) = self.findings.first_torn()
        {
            let reason = "the tail is torn or unfinished, and the options refuse that".to_owned();
            return Err(Error::Corrupt { position, reason });
        }
        Ok(())
    }

    /// Brings the file back to incarnation.
    pub fn repair(self, medium: &dyn Medium, entropy: Entropy<'_>) -> Result<Recovered, Error> {
        Plan::repair(medium, self.header, self.findings, self.bounds, entropy)?.write(medium)
    }
}

/// Judges and repairs a ring that no other file follows.
pub fn recover(
    medium: &dyn Medium,
    capacity: u64,
    policy: Policy,
    entropy: Entropy<'_>,
) -> Result<Recovered, Error> {
    let judged = judge(medium, capacity, Bounds::default())?;
    judged.check(policy)?;
    judged.repair(medium, entropy)
}

/// A drained ring that is about to begin anew.
#[derive(Debug)]
pub struct Restart(Plan);

impl Restart {
    /// At `position`, or behind it: where the ring began before, in vain, it does not go back. Nothing is
    /// changed.
    pub fn prepare(
        medium: &dyn Medium,
        capacity: u64,
        position: u64,
        entropy: Entropy<'_>,
    ) -> Result<Self, Error> {
        let header = read_header(medium, capacity)?;
        let was = header
            .checkpoint
            .head
            .max(header.incarnations.newest().start);
        let was = planted!("ring_goes_back", 0, was.next_multiple_of(capacity));
        let findings = scan::Findings::empty_at(position.max(was));
        Ok(Restart(Plan::restart(medium, header, findings, entropy)?))
    }

    /// Does it, durably. After an error nobody knows what the disk holds.
    pub fn write(self, medium: &dyn Medium) -> Result<Recovered, Error> {
        self.0.write(medium)
    }
}

/// Makes durable what the checkpoints of a file say, whatever the cache shows and the disk holds.
pub fn write_checkpoints_again(medium: &dyn Medium) -> io::Result<()> {
    for offset in CHECKPOINT_OFFSETS {
        repair::write_header_again(medium, offset, PAGE_LEN)?;
    }
    medium.sync_written()
}

/// Makes a ring that had begun anew, and was not used, a drained one, durably.
pub fn retire_unused(medium: &dyn Medium, capacity: u64) -> Result<(), Error> {
    let header = read_header(medium, capacity)?;
    let newest = header.checkpoint;
    let checkpoint = Checkpoint {
        clean: true,
        sealed: true,
        ..Checkpoint::at(newest.head, newest.generation + 1)
    };
    let page = CHECKPOINT_OFFSETS[1 - header.newest_page];
    medium.write_at(page, &repair::page_of(&checkpoint))?;
    Ok(medium.sync_written()?)
}

/// What the newest checkpoint of a file says.
pub fn newest_checkpoint(medium: &dyn Medium, capacity: u64) -> Result<Checkpoint, Error> {
    Ok(read_header(medium, capacity)?.checkpoint)
}
