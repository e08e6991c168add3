//! An incarnation of a channel with several producers, all in one thread: what each of them is at, what the
//! receiver holds, and the steps that wait for nobody. The steps that sync are those of `program`.

use super::oracle::{Oracle, Sent};
use super::steps::{self, Claimed, OpenClaim};
use super::*;
use std::sync::Arc;
use walchan_core::channel::{InFlight, Message};
use walchan_core::commit::Log;

/// What a producer is at.
#[derive(Debug)]
pub(super) enum Producer {
    Idle,
    /// In the middle of a claim.
    Claiming,
    /// The index of its message, and the claim.
    Claimed(usize, OpenClaim),
    /// `SyncPerSend`: published, and not yet driven.
    Published(usize, Arc<Log<Simulated>>),
}

/// What outlives an incarnation.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// Each id that was ever given, also in incarnations that were lost.
    pub(super) ids: std::collections::HashSet<MessageId>,
    /// How many messages each producer has claimed.
    pub(super) numbers: Vec<u64>,
}

impl Book {
    pub(super) fn give(&mut self, id: MessageId) {
        assert!(self.ids.insert(id), "{id} was given before");
    }
}

/// How an incarnation runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habits {
    /// Unacknowledged messages that it keeps at least, while it can.
    pub(super) patience: usize,
    pub(super) payload_max: u64,
    pub(super) bound: Option<usize>,
}

#[derive(Debug)]
pub(super) struct World<F: Files<Memory = Simulated>> {
    pub(super) rng: Rng,
    pub(super) channel: Arc<Channel<F>>,
    reading: ReceiverState<F>,
    medium: Simulated,
    pub(super) oracle: Oracle,
    pub(super) book: Book,
    pub(super) producers: Vec<Producer>,
    /// The messages that the receiver holds.
    held: Vec<(usize, InFlight<F>)>,
    habits: Habits,
    /// Behind the last first delivery.
    received_to: u64,
}

impl<F: Files<Memory = Simulated>> World<F> {
    pub(super) fn new(
        life: Life<F>,
        sent: Vec<Sent>,
        mode: Mode,
        book: Book,
        habits: Habits,
        rng: Rng,
    ) -> Self {
        let Life {
            medium,
            channel,
            reading,
            tail,
            ..
        } = life;
        World {
            rng,
            channel: Arc::new(channel),
            reading,
            medium,
            oracle: Oracle::new(mode, sent, tail),
            producers: book.numbers.iter().map(|_| Producer::Idle).collect(),
            book,
            held: Vec::new(),
            habits,
            received_to: 0,
        }
    }

    /// The file that is sent into.
    pub(super) fn active(&self) -> Arc<Log<Simulated>> {
        self.channel.chain().active()
    }

    pub(super) fn moment(&self) -> usize {
        self.medium.moment()
    }

    /// A producer in a state, if one is.
    pub(super) fn any(&mut self, is: impl Fn(&Producer) -> bool) -> Option<usize> {
        let fits: Vec<usize> = (0..self.producers.len())
            .filter(|p| is(&self.producers[*p]))
            .collect();
        let count = fits.len() as u64;
        (count > 0).then(|| fits[self.rng.below(count) as usize])
    }

    /// A producer whose message is published and not yet driven: its end, and its file.
    pub(super) fn published(&mut self) -> Option<(usize, u64, Arc<Log<Simulated>>)> {
        let producer = self.any(|p| matches!(p, Producer::Published(..)))?;
        match &self.producers[producer] {
            Producer::Published(index, log) => {
                Some((producer, self.oracle.sent[*index].end, Arc::clone(log)))
            }
            _ => None,
        }
    }

    /// Where the first claim begins that is not closed.
    pub(super) fn first_open(&self) -> u64 {
        let open = self.producers.iter().filter_map(|p| match p {
            Producer::Claimed(_, claim) => Some(claim.place().start),
            _ => None,
        });
        open.min().unwrap_or(u64::MAX)
    }

    /// Whether a claim is open in a file before the one that is sent into: what commits that one waits for
    /// it.
    pub(super) fn is_behind(&self) -> bool {
        let active = self.active();
        let mut producers = self.producers.iter();
        producers
            .any(|p| matches!(p, Producer::Claimed(_, claim) if !Arc::ptr_eq(&claim.log, &active)))
    }

    /// The length of the next payload: often one that fills, ends at or crosses a sector or a page.
    pub(super) fn payload_len(&mut self) -> u64 {
        let max = self.habits.payload_max;
        let len = match self.rng.below(10) {
            0 => 0,
            1 => max,
            2 => self.rng.below(max + 1),
            3 => SECTOR_LEN - 16 + self.rng.below(3) * 16 - 16,
            4 => {
                // Ends with a sector or a page, or one byte to either side.
                let tail = self.active().ring().tail();
                let unit = if self.rng.chance(50) { 512 } else { 4096 };
                (unit - (tail + 16) % unit + self.rng.below(3)).saturating_sub(1)
            }
            _ => self.rng.below(40),
        };
        len.min(max)
    }

    /// The payload of a producer's next message, which follows from both and its length.
    pub(super) fn next_payload(&mut self, producer: usize, len: u64) -> Vec<u8> {
        let number = self.book.numbers[producer];
        let mut bytes = Rng(number << 32 | (producer as u64) << 28 | len);
        let mut payload = Vec::with_capacity(len as usize + 8);
        while payload.len() < len as usize {
            payload.extend_from_slice(&bytes.next().to_le_bytes());
        }
        payload.truncate(len as usize);
        payload
    }

    /// Takes note of a claim of a producer's next message.
    pub(super) fn note_claim(
        &mut self,
        producer: usize,
        claim: Claimed,
        log: &Log<Simulated>,
        payload: Vec<u8>,
    ) -> usize {
        let id = MessageId::new(claim.position, log.tag());
        self.book.give(id);
        let number = self.book.numbers[producer];
        self.book.numbers[producer] += 1;
        let end = claim.position + walchan_core::format::frame::frame_len(u64::from(claim.len));
        let last = self.oracle.sent.last();
        assert!(last.is_none_or(|s| s.end <= claim.start), "{last:?}");
        self.oracle.sent.push(Sent {
            id,
            part: log.ring().memory().whole(),
            producer,
            number,
            payload,
            start: claim.start,
            position: claim.position,
            end,
            whole: false,
            published: None,
            returned: None,
            abandoned: None,
            acknowledged: None,
            delivered_before: 0,
            delivered: Vec::new(),
        });
        if let Some(bound) = self.habits.bound {
            let there = self.oracle.sent.iter().filter(|s| !s.is_final()).count();
            assert!(
                there <= bound,
                "{there} unacknowledged, the bound is {bound}"
            );
        }
        self.oracle.sent.len() - 1
    }

    /// A claim without a sync.
    fn claim_in_sync(&mut self) {
        let Some(producer) = self.any(|p| matches!(p, Producer::Idle)) else {
            return;
        };
        let log = self.active();
        let len = self.payload_len();
        let len = len.min(log.ring().layout().payload_len_max());
        let payload = self.next_payload(producer, len);
        if let Some(claim) = steps::claim_in_sync(&log, len) {
            let index = self.note_claim(producer, claim.place(), &log, payload);
            self.producers[producer] = Producer::Claimed(index, claim);
        }
    }

    pub(super) fn publish(&mut self) {
        let Some(producer) = self.any(|p| matches!(p, Producer::Claimed(..))) else {
            return;
        };
        let Some((index, claim)) = self.take_claim(producer) else {
            return;
        };
        let from = self.moment();
        let sent = &self.oracle.sent[index];
        let log = claim.publish(&sent.payload);
        let to = self.moment();
        let sent = &mut self.oracle.sent[index];
        sent.published = Some((from, to));
        if self.oracle.mode == Mode::PerSend {
            self.producers[producer] = Producer::Published(index, log);
        } else {
            sent.returned = Some(to);
            self.producers[producer] = Producer::Idle;
        }
    }

    fn take_claim(&mut self, producer: usize) -> Option<(usize, OpenClaim)> {
        match std::mem::replace(&mut self.producers[producer], Producer::Idle) {
            Producer::Claimed(index, claim) => Some((index, claim)),
            other => {
                self.producers[producer] = other;
                None
            }
        }
    }

    pub(super) fn abandon(&mut self) {
        let Some(producer) = self.any(|p| matches!(p, Producer::Claimed(..))) else {
            return;
        };
        let Some((index, claim)) = self.take_claim(producer) else {
            return;
        };
        let from = self.moment();
        claim.abandon();
        self.oracle.sent[index].abandoned = Some((from, self.moment()));
        self.producers[producer] = Producer::Idle;
    }

    /// Receives one message, if there is one, and checks what it is.
    pub(super) fn receive(&mut self) {
        let from = self.moment();
        let received = self.channel.receive(&mut self.reading, Wait::No);
        let Message { in_flight, lent } = match received {
            Received::Message(message) => message,
            Received::Failed(_) => {
                assert!(self.medium.has_failed());
                if self.channel.shared().check().is_ok() {
                    // The next file could not be opened; the next look tries again.
                    self.medium.forgive();
                    self.oracle.failed = true;
                }
                return;
            }
            Received::Empty => return self.check_nothing(),
            other => panic!("{other:?}"),
        };
        let to = self.moment();
        let id = id_of(&self.channel, &in_flight);
        let sent = &mut self.oracle.sent;
        let Ok(index) = sent.binary_search_by_key(&id, |s| s.id) else {
            panic!("{id} was never sent");
        };
        let sent = &mut sent[index];
        assert!(
            !sent.is_final() && !self.held.iter().any(|held| held.0 == index),
            "{sent:?}"
        );
        assert!(
            self.reading.payload(&lent) == sent.payload,
            "{id} is changed"
        );
        let count = sent.delivered_before + sent.delivered.len() as u64 + 1;
        assert_eq!(in_flight.deliveries, count.min(14), "{sent:?}");
        let Some((_, published)) = sent.published else {
            panic!("{id} is not published");
        };
        if sent.delivered.is_empty() {
            assert!(id.position() >= self.received_to, "{id} is inverted");
            self.received_to = id.position() + 1;
            // What a power cut could unsend is not shown.
            let part = self.medium.part(sent.part);
            let safe = published == 0 || published <= part.durable_moment();
            assert!(
                safe || sent.whole || self.oracle.mode != Mode::PerSend,
                "{id}"
            );
        }
        sent.delivered.push((from, to));
        self.held.push((index, in_flight));
    }

    /// There is nothing to receive: nothing that was sent waits.
    fn check_nothing(&self) {
        if self.medium.has_failed() || self.oracle.failed {
            return;
        }
        let open = self.first_open();
        let waits = self.oracle.sent.iter().enumerate().find(|(index, sent)| {
            sent.returned.is_some()
                && sent.start < open
                && sent.acknowledged.is_none()
                && !self.held.iter().any(|held| held.0 == *index)
        });
        assert!(waits.is_none(), "not received: {waits:?}");
    }

    pub(super) fn acknowledge(&mut self) {
        let count = self.held.len() as u64;
        if count == 0 || (self.held.len() < self.habits.patience && self.rng.chance(80)) {
            return;
        }
        let (index, held) = self.held.swap_remove(self.rng.below(count) as usize);
        let from = self.moment();
        self.channel.acknowledge(&held);
        self.oracle.sent[index].acknowledged = Some((from, self.moment()));
    }

    fn give_back(&mut self) {
        let count = self.held.len() as u64;
        if count > 0 {
            let (index, _) = self.held.swap_remove(self.rng.below(count) as usize);
            self.channel
                .shared()
                .give_back(self.oracle.sent[index].position);
        }
    }

    /// A step that anybody can make while a sync runs.
    pub(super) fn step_in_sync(&mut self, claims: bool) {
        match self.rng.below(12) {
            0..3 if claims => self.claim_in_sync(),
            3..6 => self.publish(),
            6 => self.abandon(),
            7..9 => self.receive(),
            9..11 => self.acknowledge(),
            _ => self.give_back(),
        }
    }

    /// A step that needs no sync, for the rest of `random` percent.
    pub(super) fn step(&mut self) {
        match self.rng.below(20) {
            0..6 => self.publish(),
            6 => self.abandon(),
            7..12 => self.receive(),
            12..19 => self.acknowledge(),
            _ => self.give_back(),
        }
    }

    /// The producer's `send` returned `Ok`.
    pub(super) fn returned(&mut self, producer: usize) {
        let moment = self.moment();
        if let Producer::Published(index, _) = self.producers[producer] {
            let sent = &mut self.oracle.sent[index];
            let durable = self.medium.part(sent.part).durable_moment();
            assert!(sent.published.is_some_and(|p| p.1 <= durable), "{sent:?}");
            sent.returned = Some(moment);
        }
        self.producers[producer] = Producer::Idle;
    }

    /// Takes note of a message that one call claimed and published; `None`: it returned `Unsynced`.
    pub(super) fn note_send(&mut self, index: usize, from: usize, ok: bool) {
        let to = self.moment();
        assert!(!(ok && self.medium.has_failed()), "Ok after a failed sync");
        let sent = &mut self.oracle.sent[index];
        sent.whole = true;
        sent.published = Some((from, to));
        sent.returned = ok.then_some(to);
    }
}
