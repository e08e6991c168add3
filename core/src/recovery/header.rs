//! The header of a file: read and verified, or made new.

use super::report::RecoveryReport;
use super::window::is_bad_block;
use crate::error::Error;
use crate::format::checkpoint::Checkpoint;
use crate::format::frame::salt_from;
use crate::format::identity::Identity;
use crate::format::incarnations::{Incarnation, Incarnations, TABLE_LEN};
use crate::format::{
    CHECKPOINT_OFFSETS, HEADER_LEN, IDENTITY_OFFSET, PAGE_LEN, PageFault, TABLE_OFFSETS,
};
use crate::planted::planted;
use crate::storage::Medium;
use std::io;

/// Where a file ends, as far as others tell.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bounds {
    /// No frame ends behind it.
    pub end: Option<u64>,
    /// The next file was used: this one has no more to come, and what is missing before the end is a hole.
    pub sealed: bool,
}

/// What recovery is allowed and asked to do.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Accept a torn or unfinished tail; otherwise refuse to open.
    pub accept_torn: bool,
}

/// 128 random bits for the next incarnation: salt and tag.
pub type Entropy<'a> = &'a mut dyn FnMut() -> io::Result<[u64; 2]>;

/// A file that is ready for its next incarnation.
#[derive(Debug)]
pub struct Recovered {
    /// The newest is the one that begins now, unless `receive_only`.
    pub incarnations: Incarnations,
    /// All before it is acknowledged.
    pub head: u64,
    /// Where the next frame is claimed.
    pub tail: u64,
    /// Messages that are not acknowledged.
    pub unacknowledged: u64,
    /// Of these, handed out before.
    pub handed_out: u64,
    /// What both checkpoint pages hold now, durably.
    pub stored: [Checkpoint; 2],
    /// The incarnation table is full: there is no salt to send with.
    pub receive_only: bool,
    /// What was found.
    pub report: RecoveryReport,
}

impl Recovered {
    /// The state of a file just made.
    pub fn created(identity: &Identity, incarnation: Incarnation) -> Self {
        Recovered {
            incarnations: Incarnations::first(incarnation),
            head: identity.start,
            tail: identity.start,
            unacknowledged: 0,
            handed_out: 0,
            stored: [1, 2].map(|generation| Checkpoint::at(identity.start, generation)),
            receive_only: false,
            report: RecoveryReport::created(),
        }
    }
}

/// The header of a file, verified.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) capacity: u64,
    pub(super) incarnations: Incarnations,
    /// Which copy of the table is the newest.
    pub(super) newest_table: usize,
    pub(super) checkpoint: Checkpoint,
    pub(super) newest_page: usize,
    /// No valid checkpoint on disk has a head below this.
    pub(super) lowest_head: u64,
    pub(super) faults: Vec<(u64, PageFault)>,
}

/// Reads the identity page, and checks that the file has the size it tells. A ring of fewer than
/// `capacity_min` bytes is refused: a channel passes [`CAPACITY_MIN`](crate::format::CAPACITY_MIN), crash
/// tests have smaller ones.
pub fn read_identity(medium: &dyn Medium, capacity_min: u64) -> Result<Identity, Error> {
    let len = medium.len()?;
    if len < HEADER_LEN {
        return Err(Error::corrupt(
            0,
            format!("{len} bytes are too few for a walchan file"),
        ));
    }
    let mut page = vec![0; PAGE_LEN as usize];
    medium.read_at(IDENTITY_OFFSET, &mut page)?;
    let identity = Identity::decode(&page, capacity_min).map_err(|fault| match fault {
        PageFault::Version(stored) => Error::Version { stored },
        fault => Error::corrupt(IDENTITY_OFFSET, fault.to_string()),
    })?;
    let needed = HEADER_LEN + identity.capacity;
    if len < needed {
        return Err(Error::corrupt(
            len,
            format!("the file has {len} bytes, its geometry {needed}"),
        ));
    }
    Ok(identity)
}

/// Two copies of a header structure: decodes both, takes the newer by `age`, notes the faults.
fn newest_of<T>(
    medium: &dyn Medium,
    offsets: [u64; 2],
    len: usize,
    faults: &mut Vec<(u64, PageFault)>,
    decode: impl Fn(&[u8]) -> Result<T, PageFault>,
    age: impl Fn(&T) -> u64,
) -> Result<(usize, [Option<T>; 2]), Error> {
    let mut copies = [None, None];
    let mut unreadable = None;
    for (copy, offset) in copies.iter_mut().zip(offsets) {
        let mut bytes = vec![0; len];
        let decoded = match medium.read_at(offset, &mut bytes) {
            Ok(()) => decode(&bytes),
            // A bad block: as bad as damaged bytes.
            Err(e) if is_bad_block(&e) => {
                unreadable = Some(e);
                Err(PageFault::Checksum)
            }
            Err(e) => return Err(e.into()),
        };
        match decoded {
            Ok(value) => *copy = Some(value),
            Err(fault) => faults.push((offset, fault)),
        }
    }
    let newest = match &copies {
        [Some(a), Some(b)] => usize::from(age(b) > age(a)),
        [Some(_), None] => 0,
        [None, Some(_)] => 1,
        [None, None] => {
            // It may be the device that is damaged, and not the file.
            if let Some(error) = unreadable {
                return Err(error.into());
            }
            let fault = faults
                .last()
                .map_or(String::new(), |(_, fault)| fault.to_string());
            return Err(Error::corrupt(
                offsets[0],
                format!("both copies are invalid: {fault}"),
            ));
        }
    };
    Ok((newest, copies))
}

pub(super) fn read_header(medium: &dyn Medium, capacity: u64) -> Result<Header, Error> {
    let mut faults = Vec::new();
    let (newest_table, tables) = newest_of(
        medium,
        TABLE_OFFSETS,
        TABLE_LEN,
        &mut faults,
        Incarnations::decode,
        |incarnations| incarnations.newest().number,
    )?;
    let decode = |page: &[u8]| Checkpoint::decode(page, capacity);
    let (newest_page, pages) = newest_of(
        medium,
        CHECKPOINT_OFFSETS,
        PAGE_LEN as usize,
        &mut faults,
        decode,
        |c| c.generation,
    )?;
    let [a, b] = tables;
    let incarnations = if newest_table == 0 { a } else { b };
    let lowest_head = pages.iter().flatten().map(|c| c.head).min();
    let (Some(incarnations), Some(checkpoint), Some(lowest_head)) =
        (incarnations, pages[newest_page], lowest_head)
    else {
        return Err(Error::corrupt(
            TABLE_OFFSETS[0],
            "no valid header".to_owned(),
        ));
    };
    if incarnations.at(checkpoint.head).is_none() {
        let reason = format!(
            "no incarnation in the table covers the head {}",
            checkpoint.head
        );
        return Err(Error::corrupt(TABLE_OFFSETS[newest_table], reason));
    }
    if checkpoint.clean && incarnations.newest().start > checkpoint.tail {
        let reason = format!(
            "the newest incarnation begins behind the tail {}",
            checkpoint.tail
        );
        return Err(Error::corrupt(TABLE_OFFSETS[newest_table], reason));
    }
    Ok(Header {
        capacity,
        incarnations,
        newest_table,
        checkpoint,
        newest_page,
        lowest_head,
        faults,
    })
}

/// An incarnation that begins at `start`, after the incarnation `number - 1`.
pub fn new_incarnation(start: u64, number: u64, entropy: Entropy<'_>) -> io::Result<Incarnation> {
    let [salt, tag] = entropy()?;
    Ok(Incarnation {
        start,
        salt: salt_from(planted!("reused_salt", 0, salt)),
        tag,
        number,
    })
}

/// The header of a new file: everything before the ring.
pub fn new_header(identity: &Identity, incarnation: Incarnation) -> Vec<u8> {
    let mut header = vec![0; HEADER_LEN as usize];
    let mut put = |offset: u64, bytes: &[u8]| {
        let at = offset as usize;
        header[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(IDENTITY_OFFSET, &identity.encode());
    for offset in TABLE_OFFSETS {
        put(offset, &Incarnations::first(incarnation).encode());
    }
    for (generation, offset) in CHECKPOINT_OFFSETS.into_iter().enumerate() {
        put(
            offset,
            &Checkpoint::at(identity.start, generation as u64 + 1).encode(),
        );
    }
    header
}
