//! A channel of several files, over modelled memories.

use super::files::Memories;
use super::{CHECKPOINTS, Failure, Mode, RING, shared};
use crate::modelled::Words;
use std::io::IoSlice;
use walchan_core::commit::housekeeper::{AHEAD, TIDY};
use walchan_core::commit::{Log, Mode as LogMode, Wait};
use walchan_core::format::HEADER_LEN;
use walchan_core::format::checkpoint::Checkpoint;
use walchan_core::format::frame;
use walchan_core::format::frame::frame_len;
use walchan_core::ring::{Reader, Received as LogReceived};
use walchan_core::segments::lifecycle::SegmentState;
use walchan_core::segments::{Chain as RealChain, CurrentSegment, Entry, Growth, Next, Prepared};
use walchan_core::sync::Arc;

pub const KEEPER_AHEAD: u32 = AHEAD;
pub const KEEPER_TIDY: u32 = TIDY;

/// How a chain begins.
#[derive(Clone, Copy, Debug)]
pub struct ChainSetup {
    pub mode: Mode,
    /// Bytes of the ring, and of each overflow file.
    pub ring: u64,
    pub overflow: u64,
    pub commit_every: u64,
    pub senders: u64,
    /// The ring is free, and the chain begins with an overflow file.
    pub in_overflow: bool,
    /// So many files cannot be made.
    pub fail_makes: u64,
}

impl Default for ChainSetup {
    fn default() -> Self {
        ChainSetup {
            mode: Mode::FlushOnly,
            ring: 64,
            overflow: 64,
            commit_every: 1,
            senders: 1,
            in_overflow: false,
            fail_makes: 0,
        }
    }
}

/// A message in somebody's hands.
#[derive(Clone, Debug)]
pub struct Held {
    log: Arc<Log<Words>>,
    pub position: u64,
}

#[derive(Debug)]
pub enum ChainReceived {
    Message(Held),
    Disconnected,
    Failed,
}

impl ChainReceived {
    /// # Panics
    ///
    /// If it is no message.
    pub fn message(self) -> Held {
        match self {
            ChainReceived::Message(held) => held,
            other => panic!("{other:?} instead of a message"),
        }
    }
}

/// Where one handle sends.
#[derive(Debug)]
pub struct Handle {
    slot: CurrentSegment<Memories>,
}

/// The one receiver's own state.
#[derive(Debug)]
pub struct ChainReceiver {
    log: Arc<Log<Words>>,
    reader: Reader,
    buffer: Vec<u8>,
}

impl ChainReceiver {
    fn new(next: Next<Memories>) -> Self {
        ChainReceiver {
            reader: next.log.ring().reader(),
            log: next.log,
            buffer: Vec::new(),
        }
    }
}

/// A channel that grows.
#[derive(Debug)]
pub struct Chain {
    chain: RealChain<Memories>,
}

impl Chain {
    /// # Panics
    ///
    /// Never.
    pub fn new(setup: ChainSetup) -> Self {
        let ChainSetup { ring, overflow, .. } = setup;
        let shared = shared(setup.mode, setup.commit_every, setup.senders);
        let growth = Growth {
            ring_capacity: ring,
            capacity_min: overflow,
            capacity_max: overflow,
            bytes_max: None,
        };
        let files = Memories::new();
        let words = Memories::fresh(ring);
        let mut prepared: Prepared<Words> = files.prepared(0, 0, ring, words);
        let mut next_number = 1;
        if setup.in_overflow {
            let start = ring.next_multiple_of(overflow);
            prepared = files.prepared(1, start, overflow, Memories::fresh(overflow));
            next_number = 2;
        }
        *files.fail_makes.lock().unwrap_or_else(|e| e.into_inner()) = setup.fail_makes;
        // The ring counts, whether it is in the chain or free.
        let mut bytes = HEADER_LEN + ring;
        if setup.in_overflow {
            bytes += HEADER_LEN + overflow;
        }
        let once = prepared.layout.once;
        let (start, capacity) = (prepared.start.head, prepared.layout.capacity);
        let log = RealChain::<Memories>::log_of(&shared, prepared, Some(&growth), None);
        let entry = Entry {
            number: next_number - 1,
            start,
            capacity,
            end: once.then_some(start + capacity),
            log: Some(log),
            state: SegmentState::Filling,
            unopened: None,
            backlog: None,
        };
        let chain = RealChain::new(files, shared, vec![entry], Some(growth), bytes, next_number);
        Chain { chain }
    }

    // === Handles ===

    pub fn handle(&self) -> Handle {
        let slot = CurrentSegment::new();
        Handle { slot }
    }

    /// Sends; gives where it is.
    pub fn send(&self, handle: &Handle, payload: &[u8]) -> Result<u64, Failure> {
        let parts = [IoSlice::new(payload)];
        let first = self.chain.first();
        let is_straight =
            self.chain.shared().mode() == LogMode::FlushOnly && first.ring().end().is_none();
        let at_once = is_straight
            .then(|| first.publish_at_once(&parts, Wait::No))
            .flatten();
        let end = match at_once {
            Some(end) => end,
            None => self.chain.send(&handle.slot, &parts, Wait::No)?,
        };
        Ok(end - frame_len(payload.len() as u64))
    }

    pub fn sender_left(&self) {
        self.chain.shared().sender_left();
    }

    pub fn receiver_left(&self) {
        self.chain.shared().receiver_left();
    }

    /// # Panics
    ///
    /// If the receiver's first file fails.
    pub fn receiver(&self) -> ChainReceiver {
        ChainReceiver::new(self.chain.begin().expect("no disk, no error"))
    }

    /// As the receiver of a channel does, without a backlog.
    pub fn try_receive(&self, receiver: &mut ChainReceiver) -> Option<ChainReceived> {
        loop {
            if let Some(position) = self.chain.shared().take_returned() {
                let log = self.chain.log_at(position)?;
                return Some(match log.read_again(position, &mut receiver.buffer) {
                    LogReceived::Message(frame) => ChainReceived::Message(Held {
                        log,
                        position: frame.position,
                    }),
                    _ => ChainReceived::Failed,
                });
            }
            let log = Arc::clone(&receiver.log);
            return Some(match log.read(&mut receiver.reader, &mut receiver.buffer) {
                LogReceived::Message(frame) => ChainReceived::Message(Held {
                    log,
                    position: frame.position,
                }),
                LogReceived::End => match self.chain.after(&log) {
                    Ok(next) => {
                        *receiver = ChainReceiver::new(next);
                        continue;
                    }
                    Err(_) => ChainReceived::Failed,
                },
                LogReceived::Disconnected => ChainReceived::Disconnected,
                LogReceived::Failed(_) | LogReceived::Damage { .. } => ChainReceived::Failed,
                LogReceived::Empty => return None,
            });
        }
    }

    /// Waits for something.
    ///
    /// # Panics
    ///
    /// Never.
    pub fn receive(&self, receiver: &mut ChainReceiver) -> ChainReceived {
        let ready = || self.try_receive(receiver);
        let received = self.chain.shared().events.readable.wait(None, ready);
        received.expect("there is no deadline")
    }

    pub fn acknowledge(&self, held: &Held) {
        held.log.acknowledge(held.position);
    }

    pub fn give_back(&self, held: &Held) {
        self.chain.shared().give_back(held.position);
    }

    pub fn sync_sent(&self) -> bool {
        self.chain.sync_sent().is_ok()
    }

    pub fn sync_progress(&self) -> bool {
        self.chain.sync_progress().is_ok()
    }

    // === The threads of the channel ===

    /// Takes the keeper's flags, and does what they ask for, once. Gives whether it works.
    pub fn keep(&self) -> bool {
        self.chain.on_housekeeper(self.keeper_flags()).is_ok()
    }

    pub fn keeper_flags(&self) -> u32 {
        self.chain.shared().housekeeper.flags()
    }

    /// Asks the housekeeper.
    pub fn flag_keeper(&self, flags: u32) {
        self.chain.shared().housekeeper.fence_and_flag(flags);
    }

    /// Takes the timer's flags, and does what they ask for.
    pub fn timer_fire(&self, flags: u32) -> bool {
        let taken = self.chain.shared().timer.take(flags);
        self.chain.on_timer(taken).is_ok()
    }

    /// Ends the life in order.
    pub fn finish(&self) -> bool {
        self.chain.finish().is_ok()
    }

    // === What is there ===

    /// Numbers of the files of the chain; 0 is the ring.
    pub fn numbers(&self) -> Vec<u64> {
        self.chain.numbers()
    }

    /// Whether the ring is what is sent into.
    pub fn is_in_ring(&self) -> bool {
        !self.chain.active().ring().layout().once
    }

    /// Numbers of those that were removed.
    pub fn removed(&self) -> Vec<u64> {
        let removed = &self.chain.files().removed;
        removed.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// All before it is durable, in the file that is sent into.
    pub fn commit(&self) -> u64 {
        self.chain.active().commit()
    }

    // === The disk ===

    /// The sync of this number of the file that is sent into fails, counted from 0.
    pub fn fail_sync(&self, number: u64) {
        self.chain.active().ring().memory().modelled().fail(number);
    }

    /// Whether a sync that happened before this call has taken along whatever lies at `position` of a file.
    pub fn is_durable(&self, number: u64, position: u64) -> bool {
        let files = self.chain.files();
        let file = files.file(number).expect("the file was made");
        let word = RING as usize + ((position & (file.capacity - 1)) / 8) as usize;
        let salt = Memories::salt(number, file.start);
        let durable = |image: &[[u64; 2]]| frame::names_position(image[word][0], position, salt);
        file.words.modelled().is_durable(durable)
    }

    /// The same for a checkpoint that says that the file is drained.
    pub fn is_durably_drained(&self, number: u64) -> bool {
        let file = self.chain.files().file(number).expect("the file was made");
        file.words.modelled().is_durable(|image| {
            CHECKPOINTS.iter().any(|&word| {
                let words = &image[word as usize..word as usize + 8];
                let bytes: Vec<u8> = words.iter().flat_map(|w| w[1].to_le_bytes()).collect();
                Checkpoint::decode(&bytes, file.capacity)
                    .is_ok_and(|c| c.sealed && c.head == c.tail)
            })
        })
    }

    /// Whether the newest checkpoint that the last sync left in a file vouches for its counts.
    pub fn is_vouched_for(&self, number: u64) -> bool {
        let file = self.chain.files().file(number).expect("the file was made");
        let capacity = file.capacity;
        file.words.modelled().last_image(|image| {
            let newest = CHECKPOINTS
                .iter()
                .filter_map(|&word| {
                    let words = &image[word as usize..word as usize + 8];
                    let bytes: Vec<u8> = words.iter().flat_map(|w| w[1].to_le_bytes()).collect();
                    Checkpoint::decode(&bytes, capacity).ok()
                })
                .max_by_key(|checkpoint| checkpoint.generation);
            newest.is_some_and(|checkpoint| checkpoint.clean)
        })
    }
}
