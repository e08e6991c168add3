//! What the one receiver does: reads, waits, goes on in the next file.

use super::shared::{Channel, InFlight};
use crate::commit::{Log, Wait};
use crate::format::HEADER_LEN;
use crate::planted::planted;
use crate::recovery::backlog::{Backlog, BacklogItem};
use crate::ring::{Frame, Reader, Received};
use crate::segments::{BacklogRange, Files, Next};
use crate::storage::{Lent, Medium, Memory};
use crate::sync::Arc;
use crate::sync::pacing::ReceiverLead;
use std::time::Instant;

/// A buffer of more bytes is given back: that of a sender behind the send, that of a receiver before it looks
/// for what is not straight from the ring, and before it waits.
pub const KEPT_LEN_MAX: usize = 1 << 20;

/// What the one receiver of a channel holds.
#[derive(Debug)]
pub struct ReceiverState<F: Files> {
    /// The file that is read.
    log: Arc<Log<F::Memory>>,
    reader: Reader,
    backlog: Option<Backlog>,
    /// Messages that recovery counted in the backlog, and those that were in it: some of the former may turn
    /// out to be damaged.
    counted: u64,
    found: u64,
    /// The next message is shown as soon as it is published, and there is no backlog before it.
    is_straight: bool,
    /// How far it lets senders get ahead.
    lead: ReceiverLead,
    /// The payload of what was read last, if it is not lent; the bytes of the damage that was met last. Not
    /// kept above [`KEPT_LEN_MAX`].
    payload: Vec<u8>,
}

/// A message that was handed out.
#[derive(Debug)]
pub struct Message<F: Files> {
    /// What acknowledges it.
    pub in_flight: InFlight<F>,
    /// Where its payload lies; `None`: it was copied into the receiver's buffer.
    pub lent: Option<Lent>,
}

/// The payload of a message.
#[derive(Debug)]
pub enum Payload {
    /// Where it lies, until the message is acknowledged.
    Lent(Lent),
    /// What an earlier incarnation left is read from the file, so that a bad block is an error.
    Copied(Vec<u8>),
}

impl<F: Files> ReceiverState<F> {
    pub(super) fn new(next: Next<F>) -> Self {
        let Next { log, backlog } = next;
        let reader = log.ring().reader();
        let capacity = log.ring().capacity();
        let messages = backlog.map_or(0, |found| found.messages);
        let backlog =
            backlog.map(|found: BacklogRange| Backlog::new(found.head, found.tail, capacity));
        ReceiverState {
            is_straight: backlog.is_none() && log.shows_what_is_published(),
            log,
            reader,
            backlog,
            counted: messages,
            found: 0,
            lead: ReceiverLead::default(),
            payload: Vec::new(),
        }
    }

    /// The payload of the message that was read last, by where it lies.
    #[inline]
    pub fn payload<'a>(&'a self, lent: &'a Option<Lent>) -> &'a [u8] {
        match lent {
            Some(lent) => lent,
            None => &self.payload,
        }
    }

    /// The same, to be kept.
    #[inline]
    pub fn take_payload(&mut self, lent: Option<Lent>) -> Payload {
        match lent {
            Some(lent) => Payload::Lent(lent),
            None => Payload::Copied(std::mem::take(&mut self.payload)),
        }
    }

    /// The bytes of the damage that was met last.
    pub fn damaged_bytes(&self) -> &[u8] {
        &self.payload
    }

    /// Goes on in the next file.
    fn go_on(&mut self, next: Next<F>) {
        let payload = std::mem::take(&mut self.payload);
        *self = ReceiverState {
            payload,
            ..ReceiverState::new(next)
        };
    }

    /// Goes on behind the backlog, whose messages are known now. Not straight on: its last one is in the
    /// buffer.
    fn leave_backlog(&mut self) {
        self.backlog = None;
    }

    /// What was read last is done.
    fn begin(&mut self) {
        if self.payload.capacity() > KEPT_LEN_MAX && !planted!("large_buffer_kept") {
            self.payload = Vec::new();
        }
        self.resume();
    }

    /// Until [`ReceiverState::resume`], [`Channel::receive_at_once`] has nothing: the caller has something to
    /// deliver first.
    pub fn pause(&mut self) {
        self.is_straight = false;
    }

    /// Ends [`ReceiverState::pause`].
    pub fn resume(&mut self) {
        self.is_straight = self.backlog.is_none() && self.log.shows_what_is_published();
    }
}

impl<F: Files<Memory: Medium>> Channel<F> {
    /// Takes the next message if it was never handed out and is shown as soon as it is published: one
    /// straight piece of code, whose result stays in registers. `None`: ask [`Channel::receive`].
    #[inline(always)]
    pub fn receive_at_once(&self, receiver: &mut ReceiverState<F>) -> Option<Message<F>> {
        if !receiver.is_straight {
            return None;
        }
        let ReceiverState {
            log,
            reader,
            payload,
            ..
        } = receiver;
        let frame = log.read_fresh(reader, payload)?;
        Some(self.message(log, frame))
    }

    /// Receives the next message, wherever it comes from; [`Received::Empty`] if there is none as long as
    /// `wait` says.
    #[inline(never)]
    pub fn receive(&self, receiver: &mut ReceiverState<F>, wait: Wait) -> Received<Message<F>> {
        let received = self.read(receiver);
        match (received, wait) {
            (Received::Empty, Wait::Until(deadline)) => self.wait_readable(receiver, deadline),
            (received, _) => received,
        }
    }

    /// What there is to receive now: what came back first, then what earlier incarnations left, then the
    /// ring.
    fn read(&self, receiver: &mut ReceiverState<F>) -> Received<Message<F>> {
        receiver.begin();
        if let Some(received) = self.read_returned(receiver) {
            return received;
        }
        loop {
            if receiver.backlog.is_some()
                && let Some(received) = self.read_backlog(receiver)
            {
                return received;
            }
            let ReceiverState {
                log,
                reader,
                payload,
                ..
            } = receiver;
            match log.read(reader, payload) {
                Received::Message(frame) => return Received::Message(self.message(log, frame)),
                Received::End => match self.chain.after(log) {
                    Ok(next) => receiver.go_on(next),
                    Err(error) => return Received::Failed(error),
                },
                // What came back before the last sender left: the look above may have been too early.
                Received::Disconnected => {
                    let returned = self.read_returned(receiver);
                    return returned.unwrap_or(Received::Disconnected);
                }
                Received::Failed(error) => return Received::Failed(error),
                Received::Empty | Received::Damage { .. } => return Received::Empty,
            }
        }
    }

    #[inline(always)]
    fn in_flight(&self, log: &Arc<Log<F::Memory>>, position: u64, deliveries: u8) -> InFlight<F> {
        let is_first = Arc::ptr_eq(log, self.chain.first());
        InFlight {
            log: (!is_first).then(|| Arc::clone(log)),
            position,
            deliveries: u64::from(deliveries),
        }
    }

    #[inline(always)]
    fn message(&self, log: &Arc<Log<F::Memory>>, frame: Frame) -> Message<F> {
        Message {
            in_flight: self.in_flight(log, frame.position, frame.deliveries),
            lent: frame.lent,
        }
    }

    /// The next of the messages that came back.
    #[inline]
    fn read_returned(&self, receiver: &mut ReceiverState<F>) -> Option<Received<Message<F>>> {
        let position = self.shared().take_returned()?;
        self.read_again(position, receiver)
    }

    #[cold]
    fn read_again(
        &self,
        position: u64,
        receiver: &mut ReceiverState<F>,
    ) -> Option<Received<Message<F>>> {
        // It is not acknowledged, so its file is there, and open.
        let log = self.chain.log_at(position)?;
        Some(match log.read_again(position, &mut receiver.payload) {
            Received::Message(frame) => Received::Message(self.message(&log, frame)),
            Received::Failed(error) => Received::Failed(error),
            _ => Received::Disconnected,
        })
    }

    /// The next of what earlier incarnations left; `None` behind the last of it.
    #[cold]
    fn read_backlog(&self, receiver: &mut ReceiverState<F>) -> Option<Received<Message<F>>> {
        let log = Arc::clone(&receiver.log);
        let ring = log.ring();
        let backlog = receiver.backlog.as_mut()?;
        let item = match backlog.next(ring.memory(), ring.incarnations(), &mut receiver.payload) {
            Ok(item) => item,
            Err(error) => return Some(Received::Failed(error)),
        };
        let mut end = backlog.cursor();
        let received = match item {
            Some(BacklogItem {
                position,
                state: Some(state),
            }) => {
                let mut other = Vec::new();
                // An error comes again when more is asked for.
                backlog
                    .pass_fillers(ring.memory(), ring.incarnations(), &mut other)
                    .ok();
                end = backlog.cursor();
                receiver.found += 1;
                let frame = ring.hand_out(position, state);
                Some(Received::Message(self.message(&log, frame)))
            }
            // As in `Log::read`: all that was left is acknowledged, so the file may be gone already.
            Some(_) if log.is_drained() => {
                receiver.leave_backlog();
                return None;
            }
            Some(BacklogItem { position, .. }) => {
                ring.hold_back(position);
                read_raw(&log, position, end, &mut receiver.payload);
                let in_flight = self.in_flight(&log, position, 0);
                let lent = None;
                let place = Message { in_flight, lent };
                Some(Received::Damage { place, end })
            }
            None => None,
        };
        let is_at_end = backlog.is_at_end();
        ring.pass(&mut receiver.reader, end);
        if is_at_end {
            let corrected = ring.correct_counts(receiver.counted, receiver.found);
            receiver.leave_backlog();
            if let Err(refused) = corrected {
                self.shared().poison(&refused.into());
            }
        }
        received
    }

    /// Lets senders get some way ahead, and looks again.
    fn look_again(&self, receiver: &mut ReceiverState<F>) -> Received<Message<F>> {
        let ring = receiver.log.ring();
        let (received, is_large) = (ring.delivered(), ring.is_large());
        if !receiver.lead.pause(received, is_large) {
            return Received::Empty;
        }
        let received = self.read(receiver);
        if matches!(received, Received::Empty) {
            receiver.lead.found_nothing();
        }
        received
    }

    fn wait_readable(
        &self,
        receiver: &mut ReceiverState<F>,
        deadline: Option<Instant>,
    ) -> Received<Message<F>> {
        let is_over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if !is_over {
            let received = self.look_again(receiver);
            if !matches!(received, Received::Empty) {
                return received;
            }
        }
        let ready = || match self.read(receiver) {
            Received::Empty => None,
            received => Some(received),
        };
        let received = self.shared().events.readable.wait(deadline, ready);
        received.unwrap_or(Received::Empty)
    }
}

/// The bytes of `[position, end)`, which does not cross the end of the ring, as far as they can be
/// read.
fn read_raw<M: Memory + Medium>(log: &Log<M>, position: u64, end: u64, bytes: &mut Vec<u8>) {
    bytes.clear();
    bytes.resize((end - position) as usize, 0);
    let offset = HEADER_LEN + (position & (log.ring().capacity() - 1));
    if log.ring().memory().read_at(offset, bytes).is_err() {
        bytes.clear();
    }
}
