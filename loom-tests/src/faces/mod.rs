//! What the models of `loom-tests` see of the protocol. No part of the API.
//!
//! The types are thin faces of the log and the ring over modelled memory: every line that runs behind them is
//! one that ships.

mod bias;
mod chain;
mod files;
mod lease;

pub use bias::Bias;
pub use chain::{
    Chain, ChainReceived, ChainReceiver, ChainSetup, HOUSEKEEPER_AHEAD, HOUSEKEEPER_TIDY, Handle,
    Held,
};

pub use lease::{Lease, Lessor};
pub use walchan_core::commit::Sending;

use crate::modelled::Modelled;
use std::time::Duration;
use walchan_core::commit::timer;
use walchan_core::commit::{Log, LogSetup, Mode as LogMode, SendFailure, Shared, Wait};
use walchan_core::format::checkpoint::Checkpoint;
use walchan_core::format::frame::frame_len;
use walchan_core::format::frame::{self, State, Word1, payload_crc, salt_from};
use walchan_core::format::incarnations::{Incarnation, Incarnations};
use walchan_core::ring::{
    Claim as RingClaim, Layout, Reader, Received as LogReceived, Ring, Room, Start,
};
use walchan_core::sync::Arc;

pub const SENT: u32 = timer::SENT;
pub const PROGRESS: u32 = timer::PROGRESS;
pub const HURRY: u32 = timer::HURRY;

const CHECKPOINTS: [u64; 2] = [0, 8];
const RING: u64 = 16;

#[derive(Clone, Copy, Debug)]
pub enum Mode {
    PerSend,
    FlushOnly,
    Every { max_ops: u64 },
}

impl From<Mode> for LogMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::PerSend => LogMode::PerSend,
            Mode::FlushOnly => LogMode::FlushOnly,
            Mode::Every { max_ops } => LogMode::Every {
                max_ops,
                max_delay: Duration::ZERO,
            },
        }
    }
}

fn shared(mode: Mode, commit_every: u64, senders: u64) -> Arc<Shared> {
    let shared = Shared::new(mode.into());
    shared.set_commit_every(commit_every);
    for _ in 0..senders {
        shared.sender_joined();
    }
    Arc::new(shared)
}

/// How a channel begins.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub mode: Mode,
    /// Bytes of ring.
    pub capacity: u64,
    /// Position of head, commit and tail.
    pub start: u64,
    pub bound: u64,
    pub commit_every: u64,
    pub senders: u64,
    /// Whether the first thread that comes gets the biases; if not, there are fewer interleavings.
    pub biases: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            mode: Mode::PerSend,
            capacity: 128,
            start: 0,
            bound: u64::MAX,
            commit_every: 1,
            senders: 1,
            biases: true,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    Full,
    Disconnected,
    TooLarge,
    Io,
    Unsynced,
    Sealed,
}

impl From<SendFailure> for Failure {
    fn from(failure: SendFailure) -> Self {
        match failure {
            SendFailure::Full => Failure::Full,
            SendFailure::Disconnected => Failure::Disconnected,
            SendFailure::TooLarge { .. } => Failure::TooLarge,
            SendFailure::Io(_) => Failure::Io,
            SendFailure::Unsynced(_) => Failure::Unsynced,
            SendFailure::Sealed => Failure::Sealed,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    Message {
        position: u64,
        payload: Vec<u8>,
        deliveries: u8,
    },
    Disconnected,
    Failed,
    End,
}

/// The one receiver's own state.
#[derive(Debug)]
pub struct Receiver {
    reader: Reader,
    buffer: Vec<u8>,
}

impl Receiver {
    fn received(&self, received: LogReceived) -> Option<Received> {
        Some(match received {
            LogReceived::Message(frame) => Received::Message {
                position: frame.position,
                payload: self.buffer.clone(),
                deliveries: frame.deliveries,
            },
            LogReceived::Disconnected => Received::Disconnected,
            LogReceived::End => Received::End,
            LogReceived::Failed(_) | LogReceived::Damage { .. } => Received::Failed,
            LogReceived::Empty => return None,
        })
    }
}

/// A claim that is neither published nor abandoned.
#[derive(Debug)]
pub struct Claim<'a> {
    claim: RingClaim<'a, Modelled>,
}

impl Claim<'_> {
    pub fn position(&self) -> u64 {
        self.claim.position()
    }

    pub fn end(&self) -> u64 {
        self.claim.end()
    }

    /// Publishes. The caller announces.
    pub fn publish(self, payload: &[u8]) {
        let parts = [std::io::IoSlice::new(payload)];
        self.claim.publish(&parts, payload_crc(&parts), false);
    }
}

/// A channel of bytes over modelled memory.
#[derive(Debug)]
pub struct Channel {
    log: Log<Modelled>,
}

impl Channel {
    pub fn new(setup: Setup) -> Self {
        let Setup {
            capacity, start, ..
        } = setup;
        let layout = Layout {
            checkpoints: CHECKPOINTS,
            ring: RING,
            capacity,
            once: false,
            has_commit_markers: true,
        };
        let incarnation = Incarnation {
            start,
            salt: salt_from(0x00c0_ffee),
            tag: 1,
            number: 1,
        };
        let start_of_ring = Start {
            incarnations: Incarnations::first(incarnation),
            head: start,
            tail: start,
            limit: start + capacity,
            unacknowledged: 0,
            handed_out: 0,
            bound: setup.bound,
        };
        let memory = Modelled::new((RING + capacity / 8) as usize);
        let stored = [1, 2].map(|generation| Checkpoint {
            generation,
            head: start,
            commit: start,
            tail: start,
            ..Checkpoint::default()
        });
        let shared = shared(setup.mode, setup.commit_every, setup.senders);
        let events = Arc::clone(&shared.events);
        let ring = Ring::new(memory, layout, start_of_ring, events);
        if !setup.biases {
            ring.end_biases().expect("no model is refused a fence");
        }
        let setup_of_log = LogSetup {
            stored,
            ahead: 0,
            previous: None,
            return_at: 0,
        };
        let log = Log::new(ring, shared, setup_of_log);
        Channel { log }
    }

    // === Handles ===

    /// Gives the position of the message.
    pub fn send(&self, payload: &[u8]) -> Result<u64, Failure> {
        // Without the first attempt, which changes nothing where it fails: with it the models of senders that
        // sleep take twice as long.
        let parts = [std::io::IoSlice::new(payload)];
        let end = self.log.publish(&parts, Wait::Until(None))?;
        self.log.make_durable(end)?;
        Ok(end - frame_len(payload.len() as u64))
    }

    /// The same; does not wait for room. As a handle does it: the straight way first, where there are no
    /// syncs.
    pub fn try_send(&self, payload: &[u8]) -> Result<u64, Failure> {
        let parts = [std::io::IoSlice::new(payload)];
        let at_once = (self.log.mode() == LogMode::FlushOnly)
            .then(|| self.log.publish_at_once(&parts, Wait::No))
            .flatten();
        let end = match at_once {
            Some(end) => end,
            None => self.log.publish(&parts, Wait::No)?,
        };
        self.log.make_durable(end)?;
        Ok(end - frame_len(payload.len() as u64))
    }

    pub fn sender_joined(&self) {
        self.log.shared().sender_joined();
    }

    pub fn sender_left(&self) {
        self.log.shared().sender_left();
    }

    /// What a handle that can send keeps, until it leaves.
    pub fn sending<T>(&self, kept: T) -> Sending<T> {
        Sending::new(kept, self.log.shared())
    }

    pub fn receiver_left(&self) {
        self.log.shared().receiver_left();
    }

    pub fn receiver(&self) -> Receiver {
        Receiver {
            reader: self.log.ring().reader(),
            buffer: Vec::new(),
        }
    }

    /// As the receiver of a file does without a backlog.
    pub fn try_receive(&self, receiver: &mut Receiver) -> Option<Received> {
        if let Some(received) = self.read_returned(receiver) {
            return Some(received);
        }
        let (reader, buffer) = (&mut receiver.reader, &mut receiver.buffer);
        match self.log.read(reader, buffer) {
            LogReceived::Disconnected => Some(
                self.read_returned(receiver)
                    .unwrap_or(Received::Disconnected),
            ),
            received => receiver.received(received),
        }
    }

    fn read_returned(&self, receiver: &mut Receiver) -> Option<Received> {
        let position = self.log.shared().take_returned()?;
        let received = self.log.read_again(position, &mut receiver.buffer);
        receiver.received(received)
    }

    /// Waits for something.
    pub fn receive(&self, receiver: &mut Receiver) -> Received {
        let ready = || self.try_receive(receiver);
        let received = self.log.shared().events.readable.wait(None, ready);
        received.expect("there is no deadline")
    }

    pub fn acknowledge(&self, position: u64) {
        self.log.acknowledge(position);
    }

    pub fn give_back(&self, position: u64) {
        self.log.shared().give_back(position);
    }

    pub fn sync_sent(&self) -> bool {
        self.log.sync_sent().is_ok()
    }

    pub fn sync_progress(&self) -> bool {
        self.log.sync_progress().is_ok()
    }

    // === The timer's thread ===

    /// The flags that are set.
    pub fn timer_flags(&self) -> u32 {
        self.log.shared().timer.flags()
    }

    pub fn timer_flag(&self, flags: u32) {
        self.log.shared().timer.flag(flags);
    }

    /// Sleeps until one of the flags is set, takes those that are, and does what they ask for at once:
    /// the deadline is now.
    pub fn timer_wait(&self, flags: u32) -> u32 {
        let set = || (self.log.shared().timer.flags() & flags != 0).then_some(());
        self.log.shared().timer.event().wait(None, set);
        self.timer_fire(flags)
    }

    /// Takes the flags, and does what they ask for.
    pub fn timer_fire(&self, flags: u32) -> u32 {
        let taken = self.log.shared().timer.take(flags);
        self.log.on_timer(taken).ok();
        taken
    }

    // === The ring beneath ===

    pub fn claim(&self, len: u64) -> Option<Claim<'_>> {
        let claim = self.log.ring().claim(len, Room::Any).ok()?;
        Some(Claim { claim })
    }

    /// As a sender claims that may wait, and does not sleep yet.
    pub fn claim_of_batch(&self, len: u64) -> Option<Claim<'_>> {
        let claim = self.log.ring().claim(len, Room::Batch).ok()?;
        Some(Claim { claim })
    }

    pub fn announce(&self) {
        self.log.ring().announce(true);
    }

    /// Acknowledges without moving the head.
    pub fn acknowledge_only(&self, position: u64) {
        self.log.ring().mark_acknowledged(position);
        let counted = self.log.ring().count_acknowledged();
        counted.expect("no model is refused a fence");
    }

    pub fn advance(&self) -> bool {
        self.log.ring().advance()
    }

    /// Lets producers use what lies before the head. For models without rounds: those hold a lock.
    pub fn reclaim(&self) {
        let ring = self.log.ring();
        ring.raise_limit(ring.head() + ring.capacity());
    }

    /// Shows that the ring ends at its limit. No other file is behind it.
    pub fn close_end(&self) {
        self.log.close_end();
    }

    pub fn seal(&self) {
        self.log.seal();
    }

    /// What recovery counted, and what the receiver found of that.
    pub fn correct_counts(&self, counted: u64, found: u64) {
        let corrected = self.log.ring().correct_counts(counted, found);
        corrected.expect("no model is refused a fence");
    }

    pub fn hold_back(&self, position: u64) {
        self.log.ring().hold_back(position);
    }

    /// Moves the receiver over damage, which it holds back.
    pub fn pass(&self, receiver: &mut Receiver, cursor: u64) {
        self.log.ring().pass(&mut receiver.reader, cursor);
    }

    pub fn release_damage(&self, position: u64, end: u64) {
        self.log.ring().release_damage(position, end);
    }

    pub fn head(&self) -> u64 {
        self.log.ring().head()
    }

    pub fn tail(&self) -> u64 {
        self.log.ring().tail()
    }

    pub fn limit(&self) -> u64 {
        self.log.ring().limit()
    }

    pub fn commit(&self) -> u64 {
        self.log.commit()
    }

    pub fn unacknowledged(&self) -> u64 {
        self.log.ring().unacknowledged()
    }

    // === The disk ===

    /// The sync of this number fails, counted from 0; those behind it do nothing, and report success.
    pub fn fail_sync(&self, number: u64) {
        self.log.ring().memory().fail(number);
    }

    pub fn syncs(&self) -> u64 {
        self.log.ring().memory().syncs()
    }

    /// Whether a sync that happened before this call has taken the frame along, whole.
    pub fn frame_is_durable(&self, position: u64, payload: &[u8]) -> bool {
        let holds = self.holds(position, payload);
        self.log.ring().memory().is_durable(holds)
    }

    /// Whether the frame at `position` is published, and is a commit marker: all before it is on stable
    /// storage.
    pub fn is_commit_marker(&self, position: u64) -> bool {
        self.log.ring().published_prefix(position).is_commit_marker
    }

    /// Whether a sync has taken the frame along, though the caller may not rely on it.
    pub fn frame_is_on_disk(&self, position: u64, payload: &[u8]) -> bool {
        let holds = self.holds(position, payload);
        self.log.ring().memory().is_on_disk(holds)
    }

    fn holds(&self, position: u64, payload: &[u8]) -> impl Fn(&[[u64; 2]]) -> bool {
        let ring = self.log.ring();
        let word = ring.layout().word(position) as usize;
        let salt = ring.incarnations().newest().salt;
        move |image| {
            let [word0, _] = image[word];
            let [_, word1] = image[word + 1];
            let bytes = image[word + 2..].iter().flat_map(|w| w[1].to_le_bytes());
            let bytes = bytes.take(payload.len()).collect::<Vec<_>>();
            frame::names_position(word0, position, salt)
                && bytes == payload
                && Word1::decode(word1)
                    .is_some_and(|w| w.matches(position, salt, frame::crc(payload)))
        }
    }

    /// Whether a sync that happened before this call has taken the acknowledgement along.
    pub fn acknowledgement_is_durable(&self, position: u64) -> bool {
        let ring = self.log.ring();
        let word = ring.layout().word(position) as usize;
        let acknowledged = frame::word0(
            position,
            ring.incarnations().newest().salt,
            State::Acknowledged,
        );
        ring.memory()
            .is_durable(|image| image[word][0] == acknowledged)
    }

    /// Whether a sync that happened before this call has taken along a checkpoint with at least this head
    /// and commit.
    pub fn checkpoint_is_durable(&self, head: u64, commit: u64) -> bool {
        let capacity = self.log.ring().capacity();
        self.log.ring().memory().is_durable(|image| {
            CHECKPOINTS.iter().any(|&word| {
                let words = &image[word as usize..word as usize + 8];
                let bytes = words.iter().flat_map(|w| w[1].to_le_bytes());
                let bytes = bytes.collect::<Vec<_>>();
                Checkpoint::decode(&bytes, capacity)
                    .is_ok_and(|c| c.head >= head && c.commit >= commit)
            })
        })
    }
}
