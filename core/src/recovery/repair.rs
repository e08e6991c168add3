//! Writes what recovery decided, so that a crash at any step, and again, is harmless.
//!
//! 1. Nothing was written while judging.
//! 2. Holes are closed with abandoned frames; what lies above the durable commit is written once more, and so
//!    are pages with acknowledgements or deliveries: after a failed sync the cache can show what the disk
//!    does not hold. So are the checkpoints as they are, if the new table lacks an incarnation that older
//!    ones could need, and the newest table, if the write of the other copy can be torn: a process killed in
//!    step 3 or 4 may not have synced it. **Sync.**
//! 3. The new incarnation table and a checkpoint that is not clean, into the copies that are not the
//!    newest. **Sync.**
//! 4. The same into the others. **Sync.**
//!
//! Where the table has room only without the incarnations below the new head, checkpoints with that head come
//! first, one **sync** each: until both pages have it, a crash could fall back on an older head, and need
//! those incarnations.
//!
//! Only then may anything be claimed. A trailing hole is not closed: the tail returns to it.

use super::header::{Bounds, Entropy, Header, Recovered, new_incarnation};
use super::report::{DamagedFrame, RecoveryReport};
use super::scan::{Findings, Pieces};
use super::window::is_bad_block;
use crate::error::Error;
use crate::format::checkpoint::Checkpoint;
use crate::format::frame::{self, Kind};
use crate::format::incarnations::Incarnations;
use crate::format::{CHECKPOINT_OFFSETS, HEADER_LEN, PAGE_LEN, SECTOR_LEN, TABLE_OFFSETS};
use crate::planted::planted;
use crate::storage::Medium;
use std::io;

/// Bytes read and written again at once, where they are.
const COPY_LEN: u64 = 256 * 1024;

/// What is written, decided. All of the header that has to be read for it has been read.
#[derive(Debug)]
pub(super) struct Plan {
    header: Header,
    findings: Findings,
    bounds: Bounds,
    /// The new table.
    table: Incarnations,
    /// The checkpoints come before it.
    heads_first: bool,
    receive_only: bool,
    /// Parts of the header that are written again as they are: offsets, and what is there.
    again: Vec<(u64, Vec<u8>)>,
}

impl Plan {
    /// Of a recovery.
    pub(super) fn repair(
        medium: &dyn Medium,
        header: Header,
        findings: Findings,
        bounds: Bounds,
        entropy: Entropy<'_>,
    ) -> Result<Self, Error> {
        Self::new(medium, header, findings, bounds, false, entropy)
    }

    /// Of a ring that begins anew. Checkpoints first, as where the table is full: a table whose incarnation
    /// begins behind the head of a checkpoint would let recovery take what lies between for something that
    /// was lost.
    pub(super) fn restart(
        medium: &dyn Medium,
        header: Header,
        findings: Findings,
        entropy: Entropy<'_>,
    ) -> Result<Self, Error> {
        let heads_first = !planted!("ring_begun_by_its_table");
        let bounds = Bounds::default();
        Self::new(medium, header, findings, bounds, heads_first, entropy)
    }

    fn new(
        medium: &dyn Medium,
        header: Header,
        findings: Findings,
        bounds: Bounds,
        heads_first: bool,
        entropy: Entropy<'_>,
    ) -> Result<Self, Error> {
        let (incarnations, lowest_head) = (&header.incarnations, header.lowest_head);
        let (head, tail) = (findings.head, findings.tail);
        let last = incarnations.newest();
        let mut incarnation = new_incarnation(tail, last.number + 1, entropy)?;
        if planted!("no_new_life") {
            (incarnation.salt, incarnation.tag) = (last.salt, last.tag);
        }
        // Not below what any checkpoint on disk still starts from: a crash may fall back on it.
        let mut table = incarnations.clone();
        let first = planted!("lives_pruned_early", head, lowest_head.min(head));
        table.prune(first, tail);
        let mut receive_only = !table.push(incarnation);
        let mut fewer = incarnations.clone();
        fewer.prune(head, tail);
        let heads_first = (heads_first || receive_only) && fewer.push(incarnation);
        if heads_first {
            (table, receive_only) = (fewer, false);
        }

        let mut again = Vec::new();
        if table.oldest_start() > incarnations.oldest_start()
            && !planted!("checkpoints_not_written_again")
        {
            for offset in CHECKPOINT_OFFSETS {
                again.extend(read_header_part(medium, offset, PAGE_LEN)?);
            }
        }
        let encoded = table.encode();
        let newest = TABLE_OFFSETS[header.newest_table];
        let older = TABLE_OFFSETS[1 - header.newest_table];
        if can_tear(medium, older, &encoded)? && !planted!("table_not_written_again") {
            again.extend(read_header_part(medium, newest, encoded.len() as u64)?);
        }
        Ok(Plan {
            header,
            findings,
            bounds,
            table,
            heads_first,
            receive_only,
            again,
        })
    }

    /// Writes it.
    pub(super) fn write(self, medium: &dyn Medium) -> Result<Recovered, Error> {
        let Plan {
            header,
            findings,
            bounds,
            table,
            heads_first,
            receive_only,
            again: parts,
        } = self;
        let report = report_of(&header, &findings);
        let Header {
            capacity,
            incarnations,
            newest_table,
            checkpoint,
            newest_page,
            ..
        } = header;
        let Findings {
            head, tail, commit, ..
        } = findings;
        let encoded = table.encode();
        // First the copies that are not the newest, then the others.
        let pages = [1 - newest_page, newest_page];
        let copies = [1 - newest_table, newest_table];

        if !planted!("holes_not_closed") {
            close_holes(medium, &incarnations, capacity, &findings.holes)?;
        }
        let kept = commit.max(head);
        let again = planted!("kept_not_written_again", tail, kept);
        let mut written_again = write_again(medium, capacity, again, tail)?;
        let touched = planted!("states_not_written_again", &[][..], &findings.touched[..]);
        for page in touched {
            let (from, to) = (head.max(*page), kept.min(page + PAGE_LEN));
            written_again |= write_again(medium, capacity, from, to)?;
        }
        for (offset, bytes) in &parts {
            medium.write_at(*offset, bytes)?;
            written_again = true;
        }
        if (written_again || !findings.holes.is_empty()) && !planted!("holes_not_synced") {
            medium.sync_written()?;
        }

        let mut stored = [checkpoint; 2];
        let mut generation = checkpoint.generation;
        let mut store = |stored: &mut [Checkpoint; 2], page: usize| {
            generation += 1;
            stored[page] = Checkpoint {
                generation,
                head,
                commit: tail,
                tail,
                base: checkpoint.base,
                ..Checkpoint::default()
            };
            medium.write_at(CHECKPOINT_OFFSETS[page], &page_of(&stored[page]))
        };
        if heads_first && !planted!("full_table_pruned_at_once") {
            for page in pages {
                store(&mut stored, page)?;
                medium.sync_written()?;
            }
        }
        if receive_only
            && !bounds.sealed
            && tail < head + capacity
            && !planted!("torn_header_not_erased")
        {
            // Without a salt of its own the incarnation would take a torn frame at its tail for one that was
            // sent.
            write_header(medium, capacity, tail, &[0; 16])?;
        }
        for (page, copy) in pages.into_iter().zip(copies) {
            medium.write_at(TABLE_OFFSETS[copy], &encoded)?;
            store(&mut stored, page)?;
            if page == newest_page || !planted!("last_two_steps_in_one_sync") {
                medium.sync_written()?;
            }
        }
        let (unacknowledged, handed_out) = (findings.kept, findings.redelivered);
        Ok(Recovered {
            incarnations: table,
            head,
            tail,
            unacknowledged,
            handed_out,
            stored,
            receive_only,
            report,
        })
    }
}

/// A part of the header, by its offset, if it can be read.
fn read_header_part(
    medium: &dyn Medium,
    offset: u64,
    len: u64,
) -> io::Result<Option<(u64, Vec<u8>)>> {
    let mut bytes = vec![0; len as usize];
    match medium.read_at(offset, &mut bytes) {
        Ok(()) => Ok(Some((offset, bytes))),
        Err(error) if is_bad_block(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a part of the header once more, as it is, if it can be read.
pub(super) fn write_header_again(medium: &dyn Medium, offset: u64, len: u64) -> io::Result<()> {
    match read_header_part(medium, offset, len)? {
        Some((offset, bytes)) => medium.write_at(offset, &bytes),
        None => Ok(()),
    }
}

/// Whether a crash can leave a part of these bytes there, and a part of what they replace.
fn can_tear(medium: &dyn Medium, offset: u64, bytes: &[u8]) -> io::Result<bool> {
    let mut before = vec![0; bytes.len()];
    match medium.read_at(offset, &mut before) {
        Ok(()) => {}
        Err(error) if is_bad_block(&error) => return Ok(true),
        Err(error) => return Err(error),
    }
    let sectors = before
        .chunks(SECTOR_LEN as usize)
        .zip(bytes.chunks(SECTOR_LEN as usize));
    Ok(sectors.filter(|(before, after)| before != after).count() > 1)
}

/// The whole page: what lies behind the checkpoint is zero again, even if it was not.
pub(super) fn page_of(checkpoint: &Checkpoint) -> Vec<u8> {
    let mut page = checkpoint.encode().to_vec();
    page.resize(crate::format::PAGE_LEN as usize, 0);
    page
}

fn close_holes(
    medium: &dyn Medium,
    incarnations: &Incarnations,
    capacity: u64,
    holes: &[(u64, u64)],
) -> io::Result<()> {
    for &(at, end) in holes {
        for (from, to) in (Pieces {
            incarnations,
            capacity,
            at,
            end,
        }) {
            let Some(incarnation) = incarnations.at(from) else {
                continue;
            };
            let filler = frame::filler(Kind::Abandoned, from, incarnation.salt, to - from);
            write_header(medium, capacity, from, &filler)?;
        }
    }
    Ok(())
}

/// Writes a frame's header. Where the page cannot be read, and so not be changed in part, all of it is
/// written: nothing valid is in it. A page that can be read keeps what it has, for others' frames are in it.
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
                Ok(()) => planted!("readable_page_cleared", page.fill(0), return Err(error)),
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
    // Up to the end of the ring, and from its start.
    let first = from & (capacity - 1);
    let here = to.saturating_sub(from).min(capacity - first);
    let parts = [
        (from, first, here),
        (from + here, 0, to.saturating_sub(from + here)),
    ];
    for (position, offset, len) in parts {
        if len > 0 && !medium.write_again(HEADER_LEN + offset, len) {
            copy_again(medium, capacity, position, position + len)?;
        }
    }
    Ok(to > from)
}

/// The same by reading and writing it.
fn copy_again(medium: &dyn Medium, capacity: u64, from: u64, to: u64) -> io::Result<()> {
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
    Ok(())
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
        scan_time: findings.scan_time,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Mutex;

    /// Bytes whose first write fails as a damaged block does, although all of them can be read.
    struct FailsOnce(Mutex<(Vec<u8>, bool)>);

    impl Medium for FailsOnce {
        fn len(&self) -> io::Result<u64> {
            Ok(self.0.lock().0.len() as u64)
        }

        fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
            bytes.copy_from_slice(&self.0.lock().0[offset as usize..][..bytes.len()]);
            Ok(())
        }

        fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
            let (content, failed) = &mut *self.0.lock();
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
        let medium = FailsOnce(Mutex::new((content.clone(), false)));
        let error = write_header(&medium, capacity, 4096 + 64, &[1; 16]).unwrap_err();
        assert!(is_bad_block(&error));
        assert!(medium.0.lock().0 == content, "the page was changed");
    }
}
