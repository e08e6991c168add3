//! Open, assemble, close: a channel of bytes over any memory, and the one over a file.

use crate::codec;
use crate::durability::timer::{self, STOP};
use crate::durability::{Common, Log, Mode, Received, SendFailure, Wait, keeper};
use crate::error::Error;
use crate::file::{self, Created, Fill, LockedFile};
use crate::format::checkpoint::Checkpoint;
use crate::format::frame::{FRAME_HEADER_LEN, names_position};
use crate::format::identity::{Identity, SCHEMA_LEN_MAX};
use crate::format::incarnations::Lives;
use crate::format::{CAPACITY_MAX, CAPACITY_MIN, HEADER_LEN, get_u64};
use crate::memory::{Lent, Medium};
use crate::message_id::MessageId;
use crate::options::{Durability, Options};
use crate::overflow::disk::Disk;
use crate::overflow::open::{How, Opened};
use crate::overflow::{Born, Chain, Files, Found, Growth, Named, Next, Slot};
use crate::planted::planted;
use crate::receiver::DamageCause;
use crate::recovery::backlog::{Backlog, Item};
use crate::recovery::{self, Policy, Recovered, RecoveryReport};
use crate::ring::{Frame, Layout, Reader};
use crate::sync::{Arc, pause};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Instant;

/// Bytes of ring of an unbounded channel.
const RING_LEN_DEFAULT: u64 = 16 << 20;
/// Bytes of the largest overflow file; a larger ring, or message, has larger ones.
const OVERFLOW_LEN_MAX: u64 = 64 << 20;
/// Bytes of ring for each message of a bounded channel, at least.
const MESSAGE_LEN_ASSUMED: u64 = 256;

/// Messages that are worth a look.
const LEAD_MESSAGES: u64 = 16;
/// Some microseconds, in turns of a spinning processor.
const LEAD_MAX: u32 = 32;

/// The files of a channel at a path.
pub(crate) type OnDisk = Disk<Named>;

/// A channel of bytes. Dropped, it closes: every handle and every delivery keeps one reference.
///
/// Aligned like a padded line, so that the count of references, which each delivery changes, does not lie
/// beside what senders read.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Channel<F: Files> {
    chain: Arc<Chain<F>>,
    /// The timer's, and the keeper's if the channel grows.
    threads: Vec<JoinHandle<()>>,
    /// It ends in order: it has its threads, and has not ended yet.
    open: bool,
    /// The process that opened it: a child of `fork` has neither the threads nor the right to close.
    owner: u32,
    receive_only: bool,
    path: PathBuf,
}

/// What the one receiver of a channel holds.
#[derive(Debug)]
pub(crate) struct Reading<F: Files> {
    /// The file that is read.
    log: Arc<Log<F::Memory>>,
    reader: Reader,
    backlog: Option<Backlog>,
    /// Messages that recovery counted in the backlog, and those that were in it: some of the former may turn
    /// out to be damaged.
    counted: u64,
    found: u64,
    /// How long the receiver lets senders get ahead before it looks again, and what it had received when it last had to.
    lead: u32,
    received: u64,
    /// The payload of what was read last, or where it lies.
    pub(crate) payload: Vec<u8>,
    lent: Option<Lent>,
}

/// What a receiver gets.
#[derive(Debug)]
pub(crate) enum Incoming<F: Files> {
    /// Its payload is in the reading.
    Message(Held<F>),
    /// `[position, end)` holds no valid frame; its bytes are in the reading.
    Damage {
        held: Held<F>,
        end: u64,
    },
    Disconnected,
    Failed(io::Error),
}

/// The payload of a message.
#[derive(Debug)]
pub(crate) enum Payload<'a> {
    /// Where it lies, until the message is acknowledged.
    Lent(Lent),
    /// In the buffer of the reading.
    Copied(&'a mut Vec<u8>),
}

impl Payload<'_> {
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Payload::Lent(lent) => lent,
            Payload::Copied(bytes) => bytes,
        }
    }
}

/// A place in a file of the channel that somebody holds until it is settled.
#[derive(Debug)]
pub(crate) struct Held<F: Files> {
    /// `None`: the file that was sent into first in this life.
    log: Option<Arc<Log<F::Memory>>>,
    pub(crate) position: u64,
    /// As in [`Frame`]; as wide as the rest, so that moving it takes no byte between.
    pub(crate) deliveries: u64,
}

impl<F: Files> Held<F> {
    #[inline]
    fn log<'a>(&'a self, channel: &'a Channel<F>) -> &'a Log<F::Memory> {
        self.log.as_ref().unwrap_or(channel.chain.first())
    }
}

/// How a file is to be opened.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) path: &'a Path,
    pub(crate) bound: Option<usize>,
    /// Bytes of the message type in memory: a hint for the ring of a new bounded channel.
    pub(crate) type_len: usize,
    /// Its number.
    pub(crate) codec: u32,
    pub(crate) options: &'a Options,
}

fn entropy() -> io::Result<[u64; 2]> {
    let mut words = [0; 2];
    for word in &mut words {
        *word = getrandom::u64().map_err(io::Error::from)?;
    }
    Ok(words)
}

/// The mode that the durability asks for, as far as this build can give it.
pub(crate) fn mode_of(durability: Durability) -> Mode {
    match durability {
        _ if !cfg!(feature = "fsync") => Mode::FlushOnly,
        Durability::FlushOnly => Mode::FlushOnly,
        Durability::SyncPerSend | Durability::SyncEvery { max_ops: 0, .. } => Mode::PerSend,
        Durability::SyncEvery { max_ops, max_delay } => Mode::Every {
            max_ops: max_ops as u64,
            max_delay,
        },
    }
}

impl Request<'_> {
    /// Bytes of ring that the options name; `None` if they do not.
    fn ring_wanted(&self) -> Result<Option<u64>, Error> {
        self.options.ring_bytes.map(Self::ring_of).transpose()
    }

    fn ring_of(bytes: u64) -> Result<u64, Error> {
        match bytes.max(CAPACITY_MIN).checked_next_power_of_two() {
            Some(capacity) if capacity <= CAPACITY_MAX => Ok(capacity),
            _ => Err(Error::Invalid("the ring would be larger than 16 TiB")),
        }
    }

    /// Bytes of ring of a new file.
    fn ring_new(&self) -> Result<u64, Error> {
        if let Some(capacity) = self.ring_wanted()? {
            return Ok(capacity);
        }
        let Some(bound) = self.bound else {
            return Ok(RING_LEN_DEFAULT);
        };
        // More than two frames of one, so that one is no larger than the largest frame of a bound of 1.
        let message = (self.type_len as u64)
            .saturating_mul(2)
            .saturating_add(96)
            .max(MESSAGE_LEN_ASSUMED);
        Self::ring_of((bound as u64).saturating_mul(message))
    }

    /// How the channel grows: without a bound, and where the limit of the options allows.
    fn growth(&self, ring_capacity: u64) -> Option<Growth> {
        self.bound.is_none().then_some(Growth {
            ring_capacity,
            capacity_min: ring_capacity.clamp(CAPACITY_MIN, OVERFLOW_LEN_MAX),
            capacity_max: ring_capacity.max(OVERFLOW_LEN_MAX),
            bytes_max: self.options.max_bytes,
        })
    }

    fn policy(&self) -> Policy {
        Policy {
            accept_torn: self.options.truncate_corrupt_tail,
        }
    }

    fn check(&self) -> Result<(), Error> {
        if self.bound == Some(0) {
            return Err(Error::Invalid(
                "a bound of 0: a message in a file is never handed over directly",
            ));
        }
        if self.options.max_bytes == Some(0) {
            return Err(Error::Invalid("max_bytes is 0: the ring alone is larger"));
        }
        if file::is_in_the_making(self.path) {
            return Err(Error::Invalid(
                "a path that ends in .walchan-new: a file that is being made has such a name",
            ));
        }
        if self
            .options
            .schema
            .as_ref()
            .is_some_and(|s| s.len() > SCHEMA_LEN_MAX)
        {
            return Err(Error::Invalid("the schema's name has more than 255 bytes"));
        }
        Ok(())
    }

    /// Whether the file is the channel asked for.
    fn compare(&self, identity: &Identity) -> Result<(), Error> {
        if identity.number > 0 {
            return Err(Error::Mismatch {
                what: "file",
                stored: format!("overflow file {} of a channel", identity.number),
                wanted: "a channel".to_owned(),
            });
        }
        if identity.codec != self.codec {
            return Err(Error::Mismatch {
                what: "codec",
                stored: codec::name_of(identity.codec),
                wanted: codec::name_of(self.codec),
            });
        }
        if let Some(schema) = &self.options.schema
            && *schema != identity.schema
        {
            let (stored, wanted) = (identity.schema.clone(), schema.clone());
            return Err(Error::Mismatch {
                what: "schema",
                stored,
                wanted,
            });
        }
        if let Some(wanted) = self.ring_wanted()?
            && wanted != identity.capacity
        {
            let (stored, wanted) = (identity.capacity.to_string(), wanted.to_string());
            return Err(Error::Mismatch {
                what: "ring_bytes",
                stored,
                wanted,
            });
        }
        Ok(())
    }
}

/// The bytes on disk of a new bounded channel.
pub(crate) fn footprint(bound: usize, type_len: usize, options: &Options) -> Result<u64, Error> {
    let request = Request {
        path: Path::new(""),
        bound: Some(bound),
        type_len,
        codec: 0,
        options,
    };
    request.check()?;
    Ok(HEADER_LEN + request.ring_new()?)
}

/// What opening gives.
pub(crate) type Parts<F> = (Arc<Channel<F>>, Reading<F>, RecoveryReport);

/// Opens the channel at a path, or makes it.
pub(crate) fn open(request: &Request<'_>) -> Result<Parts<OnDisk>, Error> {
    request.check()?;
    // What is set aside later goes beside the file, whatever the working directory is then.
    let path = std::path::absolute(request.path)?;
    let mode = mode_of(request.options.durability);
    // Each turn but the last means that somebody else made or removed the file in between.
    for _ in 0..100 {
        match file::open_existing(request.path)? {
            file::Found::Locked => return Err(Error::Locked),
            file::Found::NotRegular => return Err(Error::NotRegular),
            file::Found::File(file) => return reopen(request, file, mode, path),
            file::Found::Missing => {
                if let Some(made) = create(request, mode, &path)? {
                    return Ok(made);
                }
            }
        };
    }
    Err(Error::Io(io::ErrorKind::AlreadyExists.into()))
}

fn fill_of(synced: bool) -> Fill {
    if synced { Fill::Pages } else { Fill::Megabytes }
}

fn disk(file: LockedFile, identity: Identity, mode: Mode, path: &Path) -> OnDisk {
    let directory = Named {
        path: path.to_owned(),
        ring: Arc::new(file),
        synced: mode != Mode::FlushOnly,
    };
    Disk {
        directory,
        identity,
        entropy: Box::new(entropy),
    }
}

fn create(request: &Request<'_>, mode: Mode, path: &Path) -> Result<Option<Parts<OnDisk>>, Error> {
    file::create_parents(request.path)?;
    let [id_a, id_b] = entropy()?;
    let mut channel_id = [0; 16];
    channel_id[..8].copy_from_slice(&id_a.to_le_bytes());
    channel_id[8..].copy_from_slice(&id_b.to_le_bytes());
    let identity = Identity {
        capacity: request.ring_new()?,
        channel_id,
        codec: request.codec,
        schema: request.options.schema.clone().unwrap_or_default(),
        number: 0,
        start: 0,
        follows: 0,
    };
    let life = recovery::new_life(0, 1, &mut entropy)?;
    let header = recovery::new_header(&identity, life);
    let len = HEADER_LEN + identity.capacity;
    let fill = fill_of(mode != Mode::FlushOnly);
    let file = match file::create(request.path, &header, len, fill)? {
        Created::File(file) => file,
        Created::Lost => return Ok(None),
        Created::Locked => return Err(Error::Locked),
    };
    let recovered = Recovered::created(&identity, life);
    let capacity = identity.capacity;
    let disk = disk(file, identity, mode, path);
    let memory = crate::overflow::disk::Directory::open(&disk.directory, 0, len)?;
    let bound = bound_of(request.bound);
    let born = Born::new(memory, Layout::of_file(capacity), &recovered, None, bound);
    let common = Arc::new(Common::new(mode));
    let chain = crate::overflow::open::created(disk, born, common, request.growth(capacity));
    let opened = (chain, recovered.report, false);
    Ok(Some(assemble(opened, path)?))
}

fn bound_of(bound: Option<usize>) -> u64 {
    bound.map_or(u64::MAX, |n| n as u64)
}

fn reopen(
    request: &Request<'_>,
    file: LockedFile,
    mode: Mode,
    path: PathBuf,
) -> Result<Parts<OnDisk>, Error> {
    let synced = mode != Mode::FlushOnly;
    if synced {
        // Readahead fills the cache with large folios; a sync would write all of each. Where advice is refused,
        // that is what it costs.
        rustix::fs::fadvise(file.as_file(), 0, None, rustix::fs::Advice::Random).ok();
    }
    let identity = recovery::read_identity(&file)?;
    request.compare(&identity)?;
    let capacity = identity.capacity;
    file::own_blocks(&file, HEADER_LEN + capacity, fill_of(synced))?;
    // Whoever made the file, or moved it here, may have been killed before it did this.
    if !planted!("name_of_old_file_not_synced") {
        file::sync_name(request.path)?;
    }
    // The other files lie beside the file itself, whatever name leads to it.
    let real = std::fs::canonicalize(request.path)?;
    let disk = disk(file, identity, mode, &real);
    disk.directory.sweep()?;
    let ring = Arc::clone(&disk.directory.ring);
    let how = How {
        policy: request.policy(),
        growth: request.growth(capacity),
        bound: bound_of(request.bound),
    };
    let Opened {
        chain,
        report,
        receive_only,
    } = disk.open(Arc::new(Common::new(mode)), how)?;
    if synced {
        // Everything is clean now, so the cache can go, and comes back page by page.
        rustix::fs::fadvise(ring.as_file(), 0, None, rustix::fs::Advice::DontNeed).ok();
    }
    assemble((chain, report, receive_only), &path)
}

impl Recovered {
    /// The state of a file just made.
    pub(crate) fn created(identity: &Identity, life: crate::format::incarnations::Life) -> Self {
        Recovered {
            lives: Lives::first(life),
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

/// Puts a channel together over a chain whose files were recovered, and starts its threads.
fn assemble<F: Files<Memory: Medium>>(
    opened: (Chain<F>, RecoveryReport, bool),
    path: &Path,
) -> Result<Parts<F>, Error> {
    let (chain, report, receive_only) = opened;
    let (mut channel, reading) = without_threads(chain, receive_only, path)?;
    let spawn = |name: &str, body: fn(&Chain<F>)| {
        let chain = Arc::clone(&channel.chain);
        let thread = std::thread::Builder::new().name(name.to_owned());
        thread.spawn(move || body(&chain))
    };
    let mut threads = vec![spawn("walchan", |chain| {
        timer::run(chain.common(), |flags| chain.on_timer(flags));
    })?];
    if channel.chain.grows() {
        match spawn("walchan-keeper", Chain::keep) {
            Ok(keeper) => threads.push(keeper),
            Err(error) => {
                channel.threads = threads;
                channel.stop_threads();
                return Err(error.into());
            }
        }
    }
    channel.threads = threads;
    channel.open = true;
    Ok((Arc::new(channel), reading, report))
}

/// The same, with nobody to do what is due later. Dropped, it does not close in order.
pub(crate) fn without_threads<F: Files<Memory: Medium>>(
    chain: Chain<F>,
    receive_only: bool,
    path: &Path,
) -> Result<(Channel<F>, Reading<F>), Error> {
    let next = chain.begin()?;
    let reading = Reading::new(next);
    let channel = Channel {
        chain: Arc::new(chain),
        threads: Vec::new(),
        open: false,
        owner: std::process::id(),
        receive_only,
        path: path.to_owned(),
    };
    Ok((channel, reading))
}

impl<F: Files> Reading<F> {
    fn new(next: Next<F>) -> Self {
        let Next { log, backlog } = next;
        let reader = log.ring().reader();
        let capacity = log.ring().capacity();
        let messages = backlog.map_or(0, |found| found.messages);
        let backlog = backlog.map(|found: Found| Backlog::new(found.head, found.tail, capacity));
        Reading {
            log,
            reader,
            backlog,
            counted: messages,
            found: 0,
            lead: 0,
            received: 0,
            payload: Vec::new(),
            lent: None,
        }
    }

    /// The payload of the message that was read last.
    #[inline]
    pub(crate) fn payload(&mut self) -> Payload<'_> {
        match self.lent {
            Some(lent) => Payload::Lent(lent),
            None => Payload::Copied(&mut self.payload),
        }
    }

    /// The bytes of the damage that was met last.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.payload
    }

    /// Goes on in the next file.
    fn go_on(&mut self, next: Next<F>) {
        let payload = std::mem::take(&mut self.payload);
        *self = Reading {
            payload,
            ..Reading::new(next)
        };
    }
}

impl<F: Files<Memory: Medium>> Channel<F> {
    pub(crate) fn common(&self) -> &Common {
        self.chain.common()
    }

    #[cfg(any(all(test, feature = "fsync"), fuzzing))]
    pub(crate) fn chain(&self) -> &Chain<F> {
        &self.chain
    }

    /// The only file, where there is one.
    #[cfg(any(all(test, feature = "fsync"), fuzzing))]
    pub(crate) fn log(&self) -> &Log<F::Memory> {
        self.chain.first()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The mode in force.
    pub(crate) fn durability(&self) -> Durability {
        match self.common().mode() {
            Mode::PerSend => Durability::SyncPerSend,
            Mode::FlushOnly => Durability::FlushOnly,
            Mode::Every { max_ops, max_delay } => Durability::SyncEvery {
                max_ops: max_ops as usize,
                max_delay,
            },
        }
    }

    /// Sends without syncs, if that can be done at once: what is nearly always so. `false` says nothing.
    #[inline(always)]
    pub(crate) fn send_now(&self, payload: &[IoSlice<'_>], wait: Wait) -> bool {
        !self.receive_only && self.chain.send_now(payload, wait).is_some()
    }

    pub(crate) fn send(
        &self,
        slot: &Slot<F>,
        payload: &[IoSlice<'_>],
        wait: Wait,
    ) -> Result<MessageId, SendFailure> {
        if self.receive_only {
            let text = "1022 earlier openings still have messages here: acknowledge the oldest, then reopen";
            return Err(SendFailure::Io(io::Error::new(
                io::ErrorKind::StorageFull,
                text,
            )));
        }
        let (position, tag) = self.chain.send(slot, payload, wait)?;
        Ok(MessageId::new(position, tag))
    }

    /// The id of the message at a place.
    pub(crate) fn id(&self, held: &Held<F>) -> MessageId {
        let position = held.position;
        let life = held.log(self).ring().lives().at(position);
        MessageId::new(position, life.map_or(0, |life| life.tag))
    }

    #[inline(always)]
    fn held(&self, log: &Arc<Log<F::Memory>>, frame: Frame) -> Held<F> {
        let is_first = Arc::ptr_eq(log, self.chain.first());
        Held {
            log: (!is_first).then(|| Arc::clone(log)),
            position: frame.position,
            deliveries: u64::from(frame.deliveries),
        }
    }

    /// The next message, if it is there, and if no other comes before: what is nearly always so. `None` says nothing.
    #[inline(always)]
    pub(crate) fn try_read_next(&self, reading: &mut Reading<F>) -> Option<Held<F>> {
        if reading.backlog.is_some() || self.common().has_returned() {
            return None;
        }
        let frame = reading
            .log
            .try_read_next(&mut reading.reader, &mut reading.payload)?;
        reading.lent = frame.lent;
        Some(self.held(&reading.log, frame))
    }

    /// What there is to receive now; `None` if nothing.
    fn try_read(&self, reading: &mut Reading<F>) -> Option<Incoming<F>> {
        if let Some(incoming) = self.read_returned(reading) {
            return Some(incoming);
        }
        loop {
            if reading.backlog.is_some()
                && let Some(incoming) = self.read_backlog(reading)
            {
                return Some(incoming);
            }
            let received = reading
                .log
                .try_read(&mut reading.reader, &mut reading.payload)?;
            return Some(match received {
                Received::Message(frame) => {
                    reading.lent = frame.lent;
                    Incoming::Message(self.held(&reading.log, frame))
                }
                Received::End => match self.chain.after(&reading.log) {
                    Ok(next) => {
                        reading.go_on(next);
                        continue;
                    }
                    Err(error) => Incoming::Failed(error),
                },
                // What came back before the last sender left: the look above may have been too early.
                Received::Disconnected => self
                    .read_returned(reading)
                    .unwrap_or(Incoming::Disconnected),
                Received::Failed(error) => Incoming::Failed(error),
            });
        }
    }

    /// The next of the messages that came back.
    #[inline]
    fn read_returned(&self, reading: &mut Reading<F>) -> Option<Incoming<F>> {
        let position = self.common().take_returned()?;
        self.read_again(position, reading)
    }

    #[cold]
    fn read_again(&self, position: u64, reading: &mut Reading<F>) -> Option<Incoming<F>> {
        // It is not acknowledged, so its file is there, and open.
        let log = self.chain.log_at(position)?;
        Some(match log.read_again(position, &mut reading.payload) {
            Received::Message(frame) => {
                reading.lent = frame.lent;
                Incoming::Message(self.held(&log, frame))
            }
            Received::Failed(error) => Incoming::Failed(error),
            Received::End | Received::Disconnected => Incoming::Disconnected,
        })
    }

    /// The next of what earlier lives left.
    #[cold]
    fn read_backlog(&self, reading: &mut Reading<F>) -> Option<Incoming<F>> {
        let log = Arc::clone(&reading.log);
        let ring = log.ring();
        let backlog = reading.backlog.as_mut()?;
        loop {
            let item = match backlog.next(ring.memory(), ring.lives(), &mut reading.payload) {
                Ok(Some(item)) => item,
                Ok(None) => {
                    reading.backlog = None;
                    return None;
                }
                Err(error) => return Some(Incoming::Failed(error)),
            };
            let mut end = backlog.cursor();
            let incoming = match item {
                Item::Filler => None,
                Item::Message { position, state } => {
                    let mut other = Vec::new();
                    // An error comes again when more is asked for.
                    backlog
                        .pass_fillers(ring.memory(), ring.lives(), &mut other)
                        .ok();
                    end = backlog.cursor();
                    reading.found += 1;
                    let frame = ring.hand_out(position, state);
                    reading.lent = None;
                    Some(Incoming::Message(self.held(&log, frame)))
                }
                // As in `Log::try_read`: all that was left is acknowledged, so the file may be gone already.
                Item::Damage { .. } if log.is_drained() => {
                    reading.backlog = None;
                    return None;
                }
                Item::Damage { position } => {
                    ring.hold_back(position);
                    read_raw(&log, position, end, &mut reading.payload);
                    let frame = Frame {
                        position,
                        deliveries: 0,
                        lent: None,
                    };
                    let held = self.held(&log, frame);
                    Some(Incoming::Damage { held, end })
                }
            };
            ring.pass(&mut reading.reader, end);
            if backlog.is_at_end() {
                ring.correct_counts(reading.counted, reading.found);
            }
            if incoming.is_some() {
                return incoming;
            }
        }
    }

    /// Receives; `None` if there is nothing before the deadline. Without `wait` there is no waiting.
    pub(crate) fn receive(&self, reading: &mut Reading<F>, wait: Wait) -> Option<Incoming<F>> {
        match wait {
            Wait::No => self.try_read(reading),
            Wait::Until(deadline) => self.wait_readable(reading, deadline),
        }
    }

    /// Lets senders get some way ahead, and looks again. A receiver that is faster than they are takes each message as soon as
    /// it is there, and with that the line that the next one is being written to: both lose. So it waits longer each time, as long
    /// as that brings few messages; where it brings none, they come rarely, and it does not wait.
    fn look_again(&self, reading: &mut Reading<F>) -> Option<Incoming<F>> {
        let received = reading.log.ring().delivered();
        let few = received.wrapping_sub(reading.received) < LEAD_MESSAGES;
        reading.received = received;
        reading.lead = match few {
            true => (reading.lead * 2).clamp(1, LEAD_MAX),
            false => reading.lead,
        };
        pause(reading.lead);
        let incoming = self.try_read(reading);
        if incoming.is_none() {
            reading.lead = 0;
        }
        incoming
    }

    fn wait_readable(
        &self,
        reading: &mut Reading<F>,
        deadline: Option<Instant>,
    ) -> Option<Incoming<F>> {
        if let Some(incoming) = self.try_read(reading) {
            return Some(incoming);
        }
        if let Some(incoming) = self.look_again(reading) {
            return Some(incoming);
        }
        self.common()
            .events
            .readable
            .wait(deadline, || self.try_read(reading))
    }

    pub(crate) fn sync_sent(&self) -> Result<(), Error> {
        Self::can_sync()?;
        Ok(self.chain.sync_sent()?)
    }

    pub(crate) fn sync_progress(&self) -> Result<(), Error> {
        Self::can_sync()?;
        Ok(self.chain.sync_progress()?)
    }

    fn can_sync() -> Result<(), Error> {
        if cfg!(feature = "fsync") {
            Ok(())
        } else {
            let text = "walchan was built without the feature fsync";
            Err(Error::Io(io::Error::new(io::ErrorKind::Unsupported, text)))
        }
    }

    /// Acknowledges a message, once. Never waits for the disk.
    #[inline]
    pub(crate) fn acknowledge(&self, held: &Held<F>) {
        held.log(self).acknowledge(held.position);
    }

    /// Gives up damage that ends at `end`.
    pub(crate) fn settle(&self, held: &Held<F>, end: u64) {
        held.log(self).settle(held.position, end);
    }

    /// What is wrong with the bytes at a place where no valid frame is.
    pub(crate) fn damage_cause(&self, held: &Held<F>, bytes: &[u8]) -> DamageCause {
        let position = held.position;
        if bytes.len() < FRAME_HEADER_LEN as usize {
            return DamageCause::Unreadable;
        }
        let word0 = get_u64(bytes, 0);
        match held.log(self).ring().lives().at(position) {
            Some(life) if names_position(word0, position, life.salt) => DamageCause::Checksum,
            _ => DamageCause::Header,
        }
    }

    /// Copies bytes to a new file beside the channel, durably. The same bytes may be there already.
    pub(crate) fn copy_aside(&self, id: MessageId, bytes: &[u8]) -> Result<PathBuf, Error> {
        let aside = file::beside(&self.path, &format!(".{id}.aside"));
        file::write_beside(&aside, bytes)?;
        Ok(aside)
    }
}

/// The bytes of `[position, end)`, which does not cross the end of the ring, as far as they can be
/// read.
fn read_raw<M: crate::memory::Memory + Medium>(
    log: &Log<M>,
    position: u64,
    end: u64,
    bytes: &mut Vec<u8>,
) {
    bytes.clear();
    bytes.resize((end - position) as usize, 0);
    let offset = HEADER_LEN + (position & (log.ring().capacity() - 1));
    if log.ring().memory().read_at(offset, bytes).is_err() {
        bytes.clear();
    }
}

impl<F: Files> Channel<F> {
    /// Closes in order, once: nobody else uses the channel.
    pub(crate) fn shut(&mut self) -> Result<(), Error> {
        if !std::mem::take(&mut self.open) {
            return Ok(());
        }
        if std::process::id() != self.owner && !planted!("child_closes") {
            return Ok(());
        }
        self.stop_threads();
        Ok(self.chain.finish()?)
    }

    fn stop_threads(&mut self) {
        let common = self.chain.common();
        common.timer.flag(STOP);
        common.keeper.flag(keeper::STOP);
        for thread in self.threads.drain(..) {
            // A panic of the thread has poisoned the channel, which `finish` reports.
            thread.join().ok();
        }
    }
}

impl<F: Files> Drop for Channel<F> {
    /// An error has nobody to go to: `Receiver::close` is for those who want it.
    fn drop(&mut self) {
        self.shut().ok();
    }
}
