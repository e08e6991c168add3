//! Open, assemble, close: a channel of bytes over any memory, and the one over a file.

use crate::codec::{CODEC_ID, CODEC_NAME};
use crate::durability::timer::{self, STOP};
use crate::durability::{Log, Mode, Received, SendFailure, Wait};
use crate::error::Error;
use crate::file::{self, Created, Fill, Found, LockedFile};
use crate::format::checkpoint::Checkpoint;
use crate::format::frame::{FRAME_HEADER_LEN, names_position};
use crate::format::identity::{Identity, SCHEMA_LEN_MAX};
use crate::format::incarnations::Lives;
use crate::format::{CAPACITY_MAX, CAPACITY_MIN, HEADER_LEN, get_u64};
use crate::memory::mapped::Mapped;
use crate::memory::{Medium, Memory};
use crate::message_id::MessageId;
use crate::options::{Durability, Options};
use crate::planted::planted;
use crate::receiver::DamageCause;
use crate::recovery::backlog::{Backlog, Item};
use crate::recovery::{self, Policy, Recovered, RecoveryReport};
use crate::ring::{Frame, Layout, Reader, Ring, Start};
use crate::sync::Arc;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Instant;

/// Bytes of ring of an unbounded channel.
const RING_LEN_DEFAULT: u64 = 16 << 20;
/// Bytes of ring for each message of a bounded channel, at least.
const MESSAGE_LEN_ASSUMED: u64 = 256;

/// A channel of bytes. Dropped, it closes: every handle and every delivery keeps one reference.
///
/// Aligned like a padded line, so that the count of references, which each delivery changes, does not lie
/// beside what senders read.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Channel<M: Memory> {
    log: Arc<Log<M>>,
    timer: Option<JoinHandle<()>>,
    /// The process that opened it: a child of `fork` has neither the thread nor the right to close.
    owner: u32,
    receive_only: bool,
    path: PathBuf,
}

/// What the one receiver of a channel holds.
#[derive(Debug)]
pub(crate) struct Reading {
    reader: Reader,
    backlog: Option<Backlog>,
    /// Messages that recovery counted in the backlog, and those that were in it: some of the former may turn
    /// out to be damaged.
    counted: u64,
    found: u64,
    /// The payload of what was read last.
    pub(crate) payload: Vec<u8>,
}

/// What a receiver gets.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// Its payload is in the reading.
    Message(Frame),
    /// `[position, end)` holds no valid frame; its bytes are in the reading.
    Damage {
        position: u64,
        end: u64,
    },
    Disconnected,
    Failed(io::Error),
}

/// How a file is to be opened.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) path: &'a Path,
    pub(crate) bound: Option<usize>,
    /// Bytes of the message type in memory: a hint for the ring of a new bounded channel.
    pub(crate) type_len: usize,
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

    fn check(&self) -> Result<(), Error> {
        if self.bound == Some(0) {
            return Err(Error::Invalid(
                "a bound of 0: a message in a file is never handed over directly",
            ));
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
        if identity.codec != CODEC_ID {
            let stored = format!("codec {}", identity.codec);
            return Err(Error::Mismatch {
                what: "codec",
                stored,
                wanted: CODEC_NAME.to_owned(),
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

/// Opens the channel at a path, or makes it.
pub(crate) fn open(
    request: &Request<'_>,
) -> Result<(Arc<Channel<Mapped>>, Reading, RecoveryReport), Error> {
    request.check()?;
    // What is set aside later goes beside the file, whatever the working directory is then.
    let path = std::path::absolute(request.path)?;
    let mode = mode_of(request.options.durability);
    let synced = mode != Mode::FlushOnly;
    // Each turn but the last means that somebody else made or removed the file in between.
    for _ in 0..100 {
        let (file, recovered) = match file::open_existing(request.path)? {
            Found::Locked => return Err(Error::Locked),
            Found::NotRegular => return Err(Error::NotRegular),
            Found::File(file) => {
                let recovered = reopen(request, &file, synced)?;
                (file, recovered)
            }
            Found::Missing => match create(request, synced)? {
                Some(made) => made,
                None => continue,
            },
        };
        let len = HEADER_LEN + recovered.capacity;
        let layout = Layout::of_file(recovered.capacity);
        let memory = Mapped::new(file, len, synced)?;
        return assemble(memory, layout, mode, request.bound, recovered, &path);
    }
    Err(Error::Io(io::ErrorKind::AlreadyExists.into()))
}

fn fill_of(synced: bool) -> Fill {
    if synced { Fill::Pages } else { Fill::Megabytes }
}

fn create(request: &Request<'_>, synced: bool) -> Result<Option<(LockedFile, Recovered)>, Error> {
    file::create_parents(request.path)?;
    let [id_a, id_b] = entropy()?;
    let mut channel_id = [0; 16];
    channel_id[..8].copy_from_slice(&id_a.to_le_bytes());
    channel_id[8..].copy_from_slice(&id_b.to_le_bytes());
    let identity = Identity {
        capacity: request.ring_new()?,
        channel_id,
        codec: CODEC_ID,
        schema: request.options.schema.clone().unwrap_or_default(),
    };
    let life = recovery::new_life(0, 1, &mut entropy)?;
    let header = recovery::new_header(&identity, life);
    let len = HEADER_LEN + identity.capacity;
    match file::create(request.path, &header, len, fill_of(synced))? {
        Created::File(file) => Ok(Some((file, Recovered::created(&identity, life)))),
        Created::Lost => Ok(None),
        Created::Locked => Err(Error::Locked),
    }
}

fn reopen(request: &Request<'_>, file: &LockedFile, synced: bool) -> Result<Recovered, Error> {
    if synced {
        // Readahead fills the cache with large folios; a sync would write all of each. Where advice is refused,
        // that is what it costs.
        rustix::fs::fadvise(file.as_file(), 0, None, rustix::fs::Advice::Random).ok();
    }
    let identity = recovery::read_identity(file)?;
    request.compare(&identity)?;
    let policy = Policy {
        accept_torn: request.options.truncate_corrupt_tail,
    };
    file::own_blocks(file, HEADER_LEN + identity.capacity, fill_of(synced))?;
    // Whoever made the file, or moved it here, may have been killed before it did this.
    if !planted!("name_of_old_file_not_synced") {
        file::sync_name(request.path)?;
    }
    let recovered = recovery::recover(file, identity.capacity, policy, &mut entropy)?;
    if synced {
        // Everything is clean now, so the cache can go, and comes back page by page.
        rustix::fs::fadvise(file.as_file(), 0, None, rustix::fs::Advice::DontNeed).ok();
    }
    Ok(recovered)
}

impl Recovered {
    /// The state of a file just made.
    pub(crate) fn created(identity: &Identity, life: crate::format::incarnations::Life) -> Self {
        Recovered {
            capacity: identity.capacity,
            lives: Lives::first(life),
            head: 0,
            tail: 0,
            unacknowledged: 0,
            handed_out: 0,
            stored: [1, 2].map(|generation| Checkpoint {
                generation,
                ..Checkpoint::default()
            }),
            receive_only: false,
            report: RecoveryReport::created(),
        }
    }
}

/// Puts a channel together over a memory whose content was recovered, and starts its thread.
pub(crate) fn assemble<M: Memory + Medium>(
    memory: M,
    layout: Layout,
    mode: Mode,
    bound: Option<usize>,
    recovered: Recovered,
    path: &Path,
) -> Result<(Arc<Channel<M>>, Reading, RecoveryReport), Error> {
    let (mut channel, reading, report) =
        without_thread(memory, layout, mode, bound, recovered, path);
    let for_thread = Arc::clone(&channel.log);
    let timer = std::thread::Builder::new()
        .name("walchan".to_owned())
        .spawn(move || timer::run(&for_thread))?;
    channel.timer = Some(timer);
    Ok((Arc::new(channel), reading, report))
}

/// The same, with nobody to do what is due later. Dropped, it does not close in order.
pub(crate) fn without_thread<M: Memory>(
    memory: M,
    layout: Layout,
    mode: Mode,
    bound: Option<usize>,
    recovered: Recovered,
    path: &Path,
) -> (Channel<M>, Reading, RecoveryReport) {
    let Recovered {
        capacity,
        lives,
        head,
        tail,
        unacknowledged,
        handed_out,
        stored,
        ..
    } = recovered;
    let bound = bound.map_or(u64::MAX, |n| n as u64);
    let limit = head + capacity;
    let start = Start {
        lives,
        head,
        tail,
        limit,
        unacknowledged,
        handed_out,
        bound,
        shown_by_commit: mode == Mode::PerSend,
    };
    let ring = Ring::new(memory, layout, start);
    let reading = Reading {
        reader: ring.reader(),
        backlog: (tail > head).then(|| Backlog::new(head, tail, capacity)),
        counted: unacknowledged,
        found: 0,
        payload: Vec::new(),
    };
    let channel = Channel {
        log: Arc::new(Log::new(ring, mode, stored)),
        timer: None,
        owner: std::process::id(),
        receive_only: recovered.receive_only,
        path: path.to_owned(),
    };
    (channel, reading, recovered.report)
}

impl<M: Memory + Medium> Channel<M> {
    pub(crate) fn log(&self) -> &Log<M> {
        &self.log
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The mode in force.
    pub(crate) fn durability(&self) -> Durability {
        match self.log.mode() {
            Mode::PerSend => Durability::SyncPerSend,
            Mode::FlushOnly => Durability::FlushOnly,
            Mode::Every { max_ops, max_delay } => Durability::SyncEvery {
                max_ops: max_ops as usize,
                max_delay,
            },
        }
    }

    pub(crate) fn send(&self, payload: &[u8], wait: Wait) -> Result<MessageId, SendFailure> {
        if self.receive_only {
            let text = "1022 earlier openings still have messages here: acknowledge the oldest, then reopen";
            return Err(SendFailure::Io(io::Error::new(
                io::ErrorKind::StorageFull,
                text,
            )));
        }
        self.log
            .send(payload, wait)
            .map(|position| self.id(position))
    }

    /// The id of the message at a position.
    pub(crate) fn id(&self, position: u64) -> MessageId {
        let life = self.log.ring().lives().at(position);
        MessageId::new(position, life.map_or(0, |life| life.tag))
    }

    /// What there is to receive now; `None` if nothing.
    fn try_read(&self, reading: &mut Reading) -> Option<Incoming> {
        let received = self.log.read_returned(&mut reading.payload);
        if received.is_none()
            && let Some(incoming) = self.read_backlog(reading)
        {
            return Some(incoming);
        }
        let received = match received {
            Some(received) => received,
            None => self
                .log
                .try_read(&mut reading.reader, &mut reading.payload)?,
        };
        Some(match received {
            Received::Message(frame) => Incoming::Message(frame),
            Received::Disconnected => Incoming::Disconnected,
            Received::Failed(error) => Incoming::Failed(error),
        })
    }

    /// The next of what earlier lives left.
    fn read_backlog(&self, reading: &mut Reading) -> Option<Incoming> {
        let ring = self.log.ring();
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
            let end = backlog.cursor();
            let ended = backlog.is_at_end();
            let incoming = match item {
                Item::Filler => None,
                Item::Message { position, state } => {
                    reading.found += 1;
                    Some(Incoming::Message(ring.hand_out(position, state)))
                }
                Item::Damage { position } => {
                    ring.hold_back(position);
                    self.read_raw(position, end, &mut reading.payload);
                    Some(Incoming::Damage { position, end })
                }
            };
            ring.pass(&mut reading.reader, end);
            if ended {
                ring.correct_counts(reading.counted, reading.found);
            }
            if incoming.is_some() {
                return incoming;
            }
        }
    }

    /// The bytes of `[position, end)`, which does not cross the end of the ring, as far as they can be
    /// read.
    fn read_raw(&self, position: u64, end: u64, bytes: &mut Vec<u8>) {
        bytes.clear();
        bytes.resize((end - position) as usize, 0);
        let offset = HEADER_LEN + (position & (self.log.ring().capacity() - 1));
        if self.log.ring().memory().read_at(offset, bytes).is_err() {
            bytes.clear();
        }
    }

    /// Receives; `None` if there is nothing before the deadline. Without `wait` there is no waiting.
    pub(crate) fn receive(&self, reading: &mut Reading, wait: Wait) -> Option<Incoming> {
        match wait {
            Wait::No => self.try_read(reading),
            Wait::Until(deadline) => self.wait_readable(reading, deadline),
        }
    }

    fn wait_readable(&self, reading: &mut Reading, deadline: Option<Instant>) -> Option<Incoming> {
        if let Some(incoming) = self.try_read(reading) {
            return Some(incoming);
        }
        self.log
            .ring()
            .readable
            .wait(deadline, || self.try_read(reading))
    }

    pub(crate) fn sync_sent(&self) -> Result<(), Error> {
        Self::can_sync()?;
        Ok(self.log.sync_sent()?)
    }

    pub(crate) fn sync_progress(&self) -> Result<(), Error> {
        Self::can_sync()?;
        Ok(self.log.sync_progress()?)
    }

    fn can_sync() -> Result<(), Error> {
        if cfg!(feature = "fsync") {
            Ok(())
        } else {
            let text = "walchan was built without the feature fsync";
            Err(Error::Io(io::Error::new(io::ErrorKind::Unsupported, text)))
        }
    }

    /// What is wrong with the bytes at a position where no valid frame is.
    pub(crate) fn damage_cause(&self, position: u64, bytes: &[u8]) -> DamageCause {
        if bytes.len() < FRAME_HEADER_LEN as usize {
            return DamageCause::Unreadable;
        }
        let word0 = get_u64(bytes, 0);
        match self.log.ring().lives().at(position) {
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

impl<M: Memory> Channel<M> {
    /// Closes in order, once: nobody else uses the channel.
    pub(crate) fn shut(&mut self) -> Result<(), Error> {
        let Some(timer) = self.timer.take() else {
            return Ok(());
        };
        if std::process::id() != self.owner && !planted!("child_closes") {
            return Ok(());
        }
        self.log.timer.flag(STOP);
        // A panic of the thread has poisoned the log, which `finish` reports.
        timer.join().ok();
        Ok(self.log.finish()?)
    }
}

impl<M: Memory> Drop for Channel<M> {
    /// An error has nobody to go to: `Receiver::close` is for those who want it.
    fn drop(&mut self) {
        self.shut().ok();
    }
}
