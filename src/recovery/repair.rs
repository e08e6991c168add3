//! Writes what recovery decided, so that a crash at any step, and again, is harmless.
//!
//! 1. Nothing was written while judging.
//! 2. Holes are closed with abandoned frames; what lies above the durable commit is written once more, and
//!    so are pages with acknowledgements or deliveries: after a failed sync the cache can show what the disk does not
//!    hold. **Sync.**
//! 3. The new incarnation table and a checkpoint that is not clean, into the copies that are not the
//!    newest. **Sync.**
//! 4. The same into the others. **Sync.**
//!
//! Only then may anything be claimed. A trailing hole is not closed: the tail returns to it.

use super::report::{DamagedFrame, RecoveryReport};
use super::scan::{Findings, Pieces};
use super::window::is_bad_block;
use super::{Entropy, Header, Recovered, new_life};
use crate::error::Error;
use crate::format::checkpoint::Checkpoint;
use crate::format::frame::{self, Kind};
use crate::format::incarnations::Lives;
use crate::format::{CHECKPOINT_OFFSETS, HEADER_LEN, PAGE_LEN, TABLE_OFFSETS};
use crate::memory::Medium;
use crate::planted::planted;
use std::io;

/// Bytes written again at once.
const COPY_LEN: u64 = 256 * 1024;

pub(super) fn repair(
    medium: &dyn Medium,
    header: Header,
    findings: Findings,
    entropy: Entropy<'_>,
) -> Result<Recovered, Error> {
    let report = report_of(&header, &findings);
    let Header {
        capacity,
        mut lives,
        newest_table,
        checkpoint,
        newest_page,
        lowest_head,
        ..
    } = header;
    let Findings {
        head, tail, commit, ..
    } = findings;

    if !planted!("holes_not_closed") {
        close_holes(medium, &lives, capacity, &findings.holes)?;
    }
    let kept = commit.max(head);
    let again = planted!("kept_not_written_again", tail, kept);
    let mut written_again = write_again(medium, capacity, again, tail)?;
    for page in findings
        .touched
        .iter()
        .filter(|_| !planted!("states_not_written_again"))
    {
        let (from, to) = (head.max(*page), kept.min(page + PAGE_LEN));
        written_again |= write_again(medium, capacity, from, to)?;
    }
    if (written_again || !findings.holes.is_empty()) && !planted!("holes_not_synced") {
        medium.sync_written()?;
    }

    let last = lives.newest();
    let number = last.number + 1;
    // Not below what any checkpoint on disk still starts from: a crash may fall back on it.
    let first = planted!("lives_pruned_early", head, lowest_head.min(head));
    lives.prune(first, tail);
    let mut life = new_life(tail, number, entropy)?;
    if planted!("no_new_life") {
        (life.salt, life.tag) = (last.salt, last.tag);
    }
    let receive_only = !lives.push(life);
    if receive_only && tail < head + capacity && !planted!("torn_header_not_erased") {
        // Without a salt of its own the life would take a torn frame at its tail for one that was sent.
        write_header(medium, capacity, tail, &[0; 16])?;
    }
    let table = lives.encode();
    let mut stored = [checkpoint; 2];
    for (step, nth) in [1, 0].into_iter().enumerate() {
        // First the copies that are not the newest, then the others.
        let page = if nth == 1 {
            1 - newest_page
        } else {
            newest_page
        };
        let copy = if nth == 1 {
            1 - newest_table
        } else {
            newest_table
        };
        stored[page] = Checkpoint {
            generation: checkpoint.generation + 1 + step as u64,
            head,
            commit: tail,
            tail,
            base: checkpoint.base,
            clean: checkpoint.clean && planted!("clean_flag_not_cleared"),
            ..Checkpoint::default()
        };
        medium.write_at(TABLE_OFFSETS[copy], &table)?;
        medium.write_at(CHECKPOINT_OFFSETS[page], &page_of(&stored[page]))?;
        if step == 1 || !planted!("last_two_steps_in_one_sync") {
            medium.sync_written()?;
        }
    }
    let (unacknowledged, handed_out) = (findings.kept, findings.redelivered);
    Ok(Recovered {
        capacity,
        lives,
        head,
        tail,
        unacknowledged,
        handed_out,
        stored,
        receive_only,
        report,
    })
}

/// The whole page: what lies behind the checkpoint is zero again, even if it was not.
fn page_of(checkpoint: &Checkpoint) -> Vec<u8> {
    let mut page = checkpoint.encode().to_vec();
    page.resize(crate::format::PAGE_LEN as usize, 0);
    page
}

fn close_holes(
    medium: &dyn Medium,
    lives: &Lives,
    capacity: u64,
    holes: &[(u64, u64)],
) -> io::Result<()> {
    for &(at, end) in holes {
        for (from, to) in (Pieces {
            lives,
            capacity,
            at,
            end,
        }) {
            let Some(life) = lives.at(from) else { continue };
            let filler = frame::filler(Kind::Abandoned, from, life.salt, to - from);
            write_header(medium, capacity, from, &filler)?;
        }
    }
    Ok(())
}

/// Writes a frame's header. Where the page cannot be read, and so not be changed in part, all of it
/// is written: nothing valid is in it. A page that can be read keeps what it has, for others' frames are in it.
fn write_header(
    medium: &dyn Medium,
    capacity: u64,
    position: u64,
    header: &[u8; 16],
) -> io::Result<()> {
    let offset = position & (capacity - 1);
    match medium.write_at(HEADER_LEN + offset, header) {
        Err(error) if is_bad_block(&error) => {
            let start = offset & !(PAGE_LEN - 1);
            let mut page = vec![0; PAGE_LEN.min(capacity - start) as usize];
            match medium.read_at(HEADER_LEN + start, &mut page) {
                Err(unreadable) if is_bad_block(&unreadable) => page.fill(0),
                Err(other) => return Err(other),
                Ok(()) if planted!("readable_page_cleared") => page.fill(0),
                Ok(()) => return Err(error),
            }
            let within = (offset - start) as usize;
            page[within..within + header.len()].copy_from_slice(header);
            medium.write_at(HEADER_LEN + start, &page)
        }
        written => written,
    }
}

/// Writes `[from, to)` once more, as it is. Pages that cannot be read stay: nothing valid is in them.
fn write_again(medium: &dyn Medium, capacity: u64, from: u64, to: u64) -> io::Result<bool> {
    let mut at = from;
    let mut bytes = Vec::new();
    // Page by page from the first bad block on.
    let mut copy_len = COPY_LEN;
    while at < to {
        let offset = at & (capacity - 1);
        let len = (to - at).min(copy_len).min(capacity - offset);
        bytes.resize(len as usize, 0);
        match medium.read_at(HEADER_LEN + offset, &mut bytes) {
            Ok(()) => medium.write_at(HEADER_LEN + offset, &bytes)?,
            Err(error) if is_bad_block(&error) && copy_len > PAGE_LEN => {
                copy_len = PAGE_LEN - offset % PAGE_LEN;
                continue;
            }
            Err(error) if is_bad_block(&error) => {}
            Err(error) => return Err(error),
        }
        at += len;
        if copy_len < COPY_LEN {
            copy_len = PAGE_LEN;
        }
    }
    Ok(to > from)
}

fn report_of(header: &Header, findings: &Findings) -> RecoveryReport {
    let damage = findings
        .damage
        .iter()
        .map(|&(at, end)| DamagedFrame::durable(at, end));
    let torn = findings
        .damaged_frames
        .iter()
        .map(|&at| DamagedFrame::named(at));
    RecoveryReport {
        created: false,
        clean: findings.clean,
        kept: findings.kept,
        redelivered: findings.redelivered,
        stepped_over: findings.holes.len() as u64
            + u64::from(findings.torn_tail.is_some())
            + u64::from(findings.remains.is_some_and(|(from, to)| to > from)),
        damaged: damage.chain(torn).collect(),
        header_faults: header
            .faults
            .iter()
            .map(|(offset, fault)| (*offset, fault.to_string()))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// Bytes whose first write fails as a damaged block does, although all of them can be read.
    struct FailsOnce(RefCell<(Vec<u8>, bool)>);

    impl Medium for FailsOnce {
        fn len(&self) -> io::Result<u64> {
            Ok(self.0.borrow().0.len() as u64)
        }

        fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
            bytes.copy_from_slice(&self.0.borrow().0[offset as usize..][..bytes.len()]);
            Ok(())
        }

        fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
            let (content, failed) = &mut *self.0.borrow_mut();
            if !std::mem::replace(failed, true) {
                return Err(rustix::io::Errno::IO.into());
            }
            content[offset as usize..][..bytes.len()].copy_from_slice(bytes);
            Ok(())
        }

        fn sync_written(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_failed_write_of_a_header_never_clears_a_page_that_can_be_read() {
        let capacity = 64 << 10;
        let content = vec![7; (HEADER_LEN + capacity) as usize];
        let medium = FailsOnce(RefCell::new((content.clone(), false)));
        let error = write_header(&medium, capacity, 4096 + 64, &[1; 16]).unwrap_err();
        assert!(is_bad_block(&error));
        assert!(medium.0.borrow().0 == content, "the page was changed");
    }
}
