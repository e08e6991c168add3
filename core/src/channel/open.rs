//! Opens a channel, or makes it, and starts its threads.

use super::receive::ReceiverState;
use super::shared::{Channel, OnDisk};
use crate::commit::{Mode, Shared, timer, timer_thread};
use crate::error::{Error, Mismatch};
use crate::format::identity::{FORMAT_VERSION, Identity, SCHEMA_LEN_MAX};
use crate::format::{CAPACITY_MAX, CAPACITY_MIN, HEADER_LEN};
use crate::planted::planted;
use crate::recovery::{self, Policy, Recovered, RecoveryReport};
use crate::ring::Layout;
use crate::segments::disk::{Directory, Disk};
use crate::segments::open::{ChainOptions, Opened};
use crate::segments::{Chain, Files, Growth, NamedFiles, Prepared};
use crate::storage::Medium;
use crate::storage::file::{self, Created, Fill, LockedFile};
use crate::storage::name::Name;
use crate::sync::Arc;
use std::io;
use std::path::Path;

/// Bytes of ring of an unbounded channel.
const RING_LEN_DEFAULT: u64 = 16 << 20;
/// Bytes of the largest segment; a larger ring, or message, has larger ones.
const OVERFLOW_LEN_MAX: u64 = 64 << 20;
/// Bytes of ring for each message of a bounded channel, at least.
const MESSAGE_LEN_ASSUMED: u64 = 256;

/// How a channel is to be opened.
#[derive(Debug)]
pub struct Request<'a> {
    /// Of the ring's file.
    pub path: &'a Path,
    /// Messages that may be unacknowledged at once; `None`: the channel grows.
    pub bound: Option<usize>,
    /// Bytes of the message type in memory: a hint for the ring of a new bounded channel.
    pub type_len: usize,
    /// The number of the codec.
    pub codec: u32,
    /// When sends are synced.
    pub mode: Mode,
    /// Step over what a crash left unfinished at the end; else refuse to open.
    pub accept_torn: bool,
    /// Bytes of ring; `None`: those of the file, or a default.
    pub ring_bytes: Option<u64>,
    /// Bytes of all files together; `None`: no limit.
    pub max_bytes: Option<u64>,
    /// The name of the message type; `None`: not checked.
    pub schema: Option<&'a str>,
}

fn entropy() -> io::Result<[u64; 2]> {
    let mut words = [0; 2];
    for word in &mut words {
        *word = getrandom::u64().map_err(io::Error::from)?;
    }
    Ok(words)
}

impl Request<'_> {
    /// Bytes of ring that the options name; `None` if they do not.
    fn ring_wanted(&self) -> Result<Option<u64>, Error> {
        self.ring_bytes.map(Self::ring_of).transpose()
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
            bytes_max: self.max_bytes,
        })
    }

    fn policy(&self) -> Policy {
        Policy {
            accept_torn: self.accept_torn,
        }
    }

    fn check(&self) -> Result<(), Error> {
        if self.bound == Some(0) {
            return Err(Error::Invalid(
                "a bound of 0: a message in a file is never handed over directly",
            ));
        }
        if self.max_bytes == Some(0) {
            return Err(Error::Invalid("max_bytes is 0: the ring alone is larger"));
        }
        if file::is_unfinished(self.path) {
            return Err(Error::Invalid(
                "a path that ends in .walchan-new: a file that is being made has such a name",
            ));
        }
        if self.schema.is_some_and(|name| name.len() > SCHEMA_LEN_MAX) {
            return Err(Error::Invalid("the schema's name has more than 255 bytes"));
        }
        Ok(())
    }

    /// Whether the file is the channel asked for.
    fn compare(&self, identity: &Identity) -> Result<(), Error> {
        if identity.number > 0 {
            let number = identity.number;
            return Err(Error::Mismatch(Mismatch::Segment { number }));
        }
        if identity.codec != self.codec {
            let (stored, wanted) = (identity.codec, self.codec);
            return Err(Error::Mismatch(Mismatch::Codec { stored, wanted }));
        }
        if let Some(wanted) = self.schema
            && wanted != identity.schema
        {
            let (stored, wanted) = (identity.schema.clone(), wanted.to_owned());
            return Err(Error::Mismatch(Mismatch::Schema { stored, wanted }));
        }
        if let Some(wanted) = self.ring_wanted()?
            && wanted != identity.capacity
        {
            let stored = identity.capacity;
            return Err(Error::Mismatch(Mismatch::RingBytes { stored, wanted }));
        }
        Ok(())
    }
}

/// The bytes on disk of a new bounded channel.
pub fn footprint(request: &Request<'_>) -> Result<u64, Error> {
    request.check()?;
    Ok(HEADER_LEN + request.ring_new()?)
}

/// What opening gives.
pub type Parts<F> = (Arc<Channel<F>>, ReceiverState<F>, RecoveryReport);

/// Opens the channel at a path, or makes it.
pub fn open(request: &Request<'_>) -> Result<Parts<OnDisk>, Error> {
    request.check()?;
    // What is set aside later goes beside the file, whatever the working directory is then.
    let path = std::path::absolute(request.path)?;
    let mode = request.mode.supported();
    // Each turn but the last means that somebody else made or removed the file in between.
    for _ in 0..100 {
        let found = match find(&path)? {
            Some(name) => (file::open_existing(&name)?, name),
            None => match create(request, mode, &path)? {
                Some(made) => return Ok(made),
                None => continue,
            },
        };
        match found {
            (file::Found::Locked, _) => return Err(Error::Locked),
            (file::Found::NotRegular, _) => return Err(Error::NotRegular),
            (file::Found::File(file), name) => return reopen(request, file, mode, name, &path),
            (file::Found::Missing, _) => {}
        }
    }
    Err(Error::Io(io::ErrorKind::AlreadyExists.into()))
}

/// The name of the file that the path leads to; `None`: there is none. The other files of the channel lie
/// beside the file itself, whatever path leads to it.
fn find(path: &Path) -> Result<Option<Name>, Error> {
    let real = std::fs::metadata(path).and_then(|meta| match meta.is_file() {
        true => std::fs::canonicalize(path).map(Some),
        false => Ok(None),
    });
    match real.and_then(|real| real.map(|real| Name::of(&real)).transpose()) {
        Ok(Some(name)) => Ok(Some(name)),
        Ok(None) => Err(Error::NotRegular),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn fill_of(synced: bool) -> Fill {
    if synced { Fill::Pages } else { Fill::Megabytes }
}

fn disk(file: LockedFile, identity: Identity, mode: Mode, name: Name) -> OnDisk {
    let directory = NamedFiles {
        name,
        ring: Arc::new(file),
        synced: mode != Mode::FlushOnly,
    };
    Disk {
        directory,
        identity,
        capacity_min: CAPACITY_MIN,
        entropy: Box::new(entropy),
    }
}

fn create(request: &Request<'_>, mode: Mode, path: &Path) -> Result<Option<Parts<OnDisk>>, Error> {
    file::create_parents(path)?;
    let name = Name::of(path)?;
    let [id_a, id_b] = entropy()?;
    let mut channel_id = [0; 16];
    channel_id[..8].copy_from_slice(&id_a.to_le_bytes());
    channel_id[8..].copy_from_slice(&id_b.to_le_bytes());
    let identity = Identity {
        version: FORMAT_VERSION,
        capacity: request.ring_new()?,
        channel_id,
        codec: request.codec,
        schema: request.schema.unwrap_or_default().to_owned(),
        number: 0,
        start: 0,
        follows: 0,
    };
    let incarnation = recovery::new_incarnation(0, 1, &mut entropy)?;
    let header = recovery::new_header(&identity, incarnation);
    let len = HEADER_LEN + identity.capacity;
    let fill = fill_of(mode != Mode::FlushOnly);
    let file = match file::create(&name, &header, len, fill)? {
        Created::File(file) => file,
        Created::Lost => return Ok(None),
        Created::Locked => return Err(Error::Locked),
    };
    let recovered = Recovered::created(&identity, incarnation);
    let (capacity, layout) = (identity.capacity, Layout::of(&identity));
    let disk = disk(file, identity, mode, name);
    let memory = disk.directory.open(0, len, &|_| Ok(()))?;
    let bound = bound_of(request.bound);
    let prepared = Prepared::new(memory, layout, &recovered, None, bound);
    let shared = Arc::new(Shared::new(mode));
    let chain = crate::segments::open::created(disk, prepared, shared, request.growth(capacity));
    let opened = (chain, recovered.report, false);
    Ok(Some(assemble(opened, path, None)?))
}

fn bound_of(bound: Option<usize>) -> u64 {
    bound.map_or(u64::MAX, |n| n as u64)
}

fn reopen(
    request: &Request<'_>,
    file: LockedFile,
    mode: Mode,
    name: Name,
    path: &Path,
) -> Result<Parts<OnDisk>, Error> {
    let synced = mode != Mode::FlushOnly;
    if synced {
        // Readahead fills the cache with large folios; a sync would write all of each. Where advice is
        // refused, that is what it costs.
        rustix::fs::fadvise(file.as_file(), 0, None, rustix::fs::Advice::Random).ok();
    }
    let identity = recovery::read_identity(&file, CAPACITY_MIN)?;
    request.compare(&identity)?;
    let capacity = identity.capacity;
    file::own_blocks(&file, HEADER_LEN + capacity, fill_of(synced))?;
    // Whoever made the file, or moved it here, may have been killed before it did this.
    if !planted!("name_of_old_file_not_synced") {
        file::sync_name(&name)?;
    }
    let disk = disk(file, identity, mode, name);
    disk.directory.remove_unfinished()?;
    let ring = Arc::clone(&disk.directory.ring);
    let options = ChainOptions {
        policy: request.policy(),
        growth: request.growth(capacity),
        bound: bound_of(request.bound),
    };
    let Opened {
        chain,
        report,
        receive_only,
    } = disk.open(Arc::new(Shared::new(mode)), options)?;
    let cached = synced.then(|| {
        let next = HEADER_LEN + (chain.active().ring().tail() & (capacity - 1));
        Cached::new(ring, HEADER_LEN + capacity, next)
    });
    assemble((chain, report, receive_only), path, cached)
}

/// The ring in the page cache behind a recovery, which read it by large folios. It is clean, and a later sync
/// would write a whole folio for each page: so it is dropped, and comes back page by page.
struct Cached {
    ring: Arc<LockedFile>,
    /// The piece that is sent into next, and how many there are.
    first: u64,
    pieces: u64,
}

impl Cached {
    /// Bytes that go at once: what takes 5 milliseconds or so.
    const PIECE_LEN: u64 = 16 << 20;

    fn new(ring: Arc<LockedFile>, len: u64, next: u64) -> Self {
        Cached {
            ring,
            first: next / Self::PIECE_LEN,
            pieces: len.div_ceil(Self::PIECE_LEN),
        }
    }

    /// The last piece begins in the ring, and is as long as the others: what lies behind the file is not
    /// there.
    fn forget(&self, piece: u64) {
        let at = (self.first + piece) % self.pieces * Self::PIECE_LEN;
        let len = std::num::NonZero::new(Self::PIECE_LEN);
        rustix::fs::fadvise(self.ring.as_file(), at, len, rustix::fs::Advice::DontNeed).ok();
    }

    /// All but the first, until the channel closes.
    fn forget_rest(&self, shared: &Shared) {
        for piece in 1..self.pieces {
            if shared.timer.flags() & timer::STOP != 0 {
                return;
            }
            self.forget(piece);
        }
    }
}

/// Puts a channel together over a chain whose files were recovered, and starts its threads.
fn assemble<F: Files<Memory: Medium>>(
    opened: (Chain<F>, RecoveryReport, bool),
    path: &Path,
    cached: Option<Cached>,
) -> Result<Parts<F>, Error> {
    let (chain, report, receive_only) = opened;
    let (mut channel, receiver) = without_threads(chain, receive_only, path)?;
    if let Err(error) = channel.start_threads(cached) {
        channel.stop_threads();
        return Err(error.into());
    }
    channel.open = true;
    Ok((Arc::new(channel), receiver, report))
}

impl<F: Files<Memory: Medium>> Channel<F> {
    /// Those that were started are in the channel, also where one cannot be.
    fn start_threads(&mut self, cached: Option<Cached>) -> io::Result<()> {
        self.start("walchan", |chain| {
            timer_thread::run(chain.shared(), |flags| chain.on_timer(flags));
        })?;
        if self.chain.grows() {
            self.start("walchan-files", Chain::run_housekeeper)?;
        }
        if let Some(cached) = cached {
            cached.forget(0);
            if cached.pieces > 1 {
                // Without it the rest stays: later syncs may write more than they must.
                self.start("walchan-cache", move |chain| {
                    cached.forget_rest(chain.shared());
                })
                .ok();
            }
        }
        Ok(())
    }

    fn start(
        &mut self,
        name: &str,
        body: impl FnOnce(&Chain<F>) + Send + 'static,
    ) -> io::Result<()> {
        let chain = Arc::clone(&self.chain);
        let thread = std::thread::Builder::new().name(name.to_owned());
        self.threads.push(thread.spawn(move || body(&chain))?);
        Ok(())
    }
}

/// The same, with nobody to do what is due later. Dropped, it does not close in order.
pub fn without_threads<F: Files<Memory: Medium>>(
    chain: Chain<F>,
    receive_only: bool,
    path: &Path,
) -> Result<(Channel<F>, ReceiverState<F>), Error> {
    let next = chain.begin()?;
    let sends_at_once = !chain.shared().is_synced_mode() && !receive_only;
    let receiver = ReceiverState::new(next);
    let channel = Channel {
        chain: Arc::new(chain),
        threads: Vec::new(),
        open: false,
        owner: std::process::id(),
        receive_only,
        sends_at_once,
        path: path.to_owned(),
        beside: Name::of(path)?,
    };
    Ok((channel, receiver))
}
