//! What the one receiver does: reads, waits, goes on in the next file.

use super::{Channel, InFlight};
use crate::commit::{Log, Received, Wait};
use crate::format::HEADER_LEN;
use crate::recovery::backlog::{Backlog, Item};
use crate::ring::{Frame, Reader};
use crate::segments::{BacklogRange, Files, Next};
use crate::storage::{Lent, Medium, Memory};
use crate::sync::{Arc, pause};
use std::io;
use std::time::Instant;

/// Turns of a spinning processor (25 to 45 nanoseconds each) that a message is worth, and the most for all together.
const TURNS_A_MESSAGE: u64 = 16;
const LEAD_MAX: u32 = 256;
/// Messages from one wait to the next that are more than it takes.
const LEAD_MANY: u64 = 256;

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
    /// How long the receiver lets senders get ahead before it looks again, and what it had received when it last had to.
    lead: u32,
    received: u64,
    /// The payload of what was read last, or where it lies.
    payload: Vec<u8>,
    lent: Option<Lent>,
}

/// What a receiver gets.
#[derive(Debug)]
pub enum Incoming<F: Files> {
    /// Its payload is in the receiver.
    Message(InFlight<F>),
    /// `[position, end)` holds no valid frame; its bytes are in the receiver.
    Damage {
        held: InFlight<F>,
        end: u64,
    },
    Disconnected,
    Failed(io::Error),
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

    /// Where the payload of the message that [`Channel::receive`] gave last lies.
    pub fn lent(&self) -> Option<Lent> {
        self.lent
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
    pub fn bytes(&self) -> &[u8] {
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
}

impl<F: Files<Memory: Medium>> Channel<F> {
    #[inline(always)]
    fn held(&self, log: &Arc<Log<F::Memory>>, frame: Frame) -> InFlight<F> {
        let is_first = Arc::ptr_eq(log, self.chain.first());
        InFlight {
            log: (!is_first).then(|| Arc::clone(log)),
            position: frame.position,
            deliveries: u64::from(frame.deliveries),
        }
    }

    /// The next message, if it is there, and if no other comes before: what is nearly always so. `None` says nothing. And where its payload
    /// lies.
    #[inline(always)]
    pub fn try_read_next(
        &self,
        receiver: &mut ReceiverState<F>,
    ) -> Option<(InFlight<F>, Option<Lent>)> {
        if receiver.backlog.is_some() {
            return None;
        }
        let frame = receiver
            .log
            .try_read_next(&mut receiver.reader, &mut receiver.payload)?;
        Some((self.held(&receiver.log, frame), frame.lent))
    }

    /// What there is to receive now; `None` if nothing.
    fn try_read(&self, receiver: &mut ReceiverState<F>) -> Option<Incoming<F>> {
        if let Some(incoming) = self.read_returned(receiver) {
            return Some(incoming);
        }
        loop {
            if receiver.backlog.is_some()
                && let Some(incoming) = self.read_backlog(receiver)
            {
                return Some(incoming);
            }
            let received = receiver
                .log
                .try_read(&mut receiver.reader, &mut receiver.payload)?;
            return Some(match received {
                Received::Message(frame) => {
                    receiver.lent = frame.lent;
                    Incoming::Message(self.held(&receiver.log, frame))
                }
                Received::End => match self.chain.after(&receiver.log) {
                    Ok(next) => {
                        receiver.go_on(next);
                        continue;
                    }
                    Err(error) => Incoming::Failed(error),
                },
                // What came back before the last sender left: the look above may have been too early.
                Received::Disconnected => self
                    .read_returned(receiver)
                    .unwrap_or(Incoming::Disconnected),
                Received::Failed(error) => Incoming::Failed(error),
            });
        }
    }

    /// The next of the messages that came back.
    #[inline]
    fn read_returned(&self, receiver: &mut ReceiverState<F>) -> Option<Incoming<F>> {
        let position = self.shared().take_returned()?;
        self.read_again(position, receiver)
    }

    #[cold]
    fn read_again(&self, position: u64, receiver: &mut ReceiverState<F>) -> Option<Incoming<F>> {
        // It is not acknowledged, so its file is there, and open.
        let log = self.chain.log_at(position)?;
        Some(match log.read_again(position, &mut receiver.payload) {
            Received::Message(frame) => {
                receiver.lent = frame.lent;
                Incoming::Message(self.held(&log, frame))
            }
            Received::Failed(error) => Incoming::Failed(error),
            Received::End | Received::Disconnected => Incoming::Disconnected,
        })
    }

    /// The next of what earlier incarnations left.
    #[cold]
    fn read_backlog(&self, receiver: &mut ReceiverState<F>) -> Option<Incoming<F>> {
        let log = Arc::clone(&receiver.log);
        let ring = log.ring();
        let backlog = receiver.backlog.as_mut()?;
        loop {
            let item = match backlog.next(ring.memory(), ring.incarnations(), &mut receiver.payload)
            {
                Ok(Some(item)) => item,
                Ok(None) => {
                    receiver.backlog = None;
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
                        .pass_fillers(ring.memory(), ring.incarnations(), &mut other)
                        .ok();
                    end = backlog.cursor();
                    receiver.found += 1;
                    let frame = ring.hand_out(position, state);
                    receiver.lent = None;
                    Some(Incoming::Message(self.held(&log, frame)))
                }
                // As in `Log::try_read`: all that was left is acknowledged, so the file may be gone already.
                Item::Damage { .. } if log.is_drained() => {
                    receiver.backlog = None;
                    return None;
                }
                Item::Damage { position } => {
                    ring.hold_back(position);
                    read_raw(&log, position, end, &mut receiver.payload);
                    let frame = Frame {
                        position,
                        deliveries: 0,
                        lent: None,
                    };
                    let held = self.held(&log, frame);
                    Some(Incoming::Damage { held, end })
                }
            };
            ring.pass(&mut receiver.reader, end);
            if backlog.is_at_end() {
                ring.correct_counts(receiver.counted, receiver.found);
            }
            if incoming.is_some() {
                return incoming;
            }
        }
    }

    /// Receives; `None` if there is nothing before the deadline. Without `wait` there is no waiting.
    pub fn receive(&self, receiver: &mut ReceiverState<F>, wait: Wait) -> Option<Incoming<F>> {
        match wait {
            Wait::No => self.try_read(receiver),
            Wait::Until(deadline) => self.wait_readable(receiver, deadline),
        }
    }

    /// Lets senders get some way ahead, and looks again. A receiver that is faster than they are takes each message as soon as
    /// it is there, and with that the line that the next one is being written to: both lose, up to four fifths of their speed. So it
    /// waits twice as long each time, where messages come fast enough to be worth that, and half as long where they do not, or
    /// where they are many; where it brings none it begins again. Of a small channel nobody gets ahead.
    fn look_again(&self, receiver: &mut ReceiverState<F>) -> Option<Incoming<F>> {
        let ring = receiver.log.ring();
        if !ring.is_large() {
            return None;
        }
        let received = ring.delivered();
        let since = received.wrapping_sub(receiver.received);
        let is_worth = since.saturating_mul(TURNS_A_MESSAGE) >= u64::from(receiver.lead);
        receiver.lead = if since < LEAD_MANY && is_worth {
            (receiver.lead * 2).clamp(1, LEAD_MAX)
        } else {
            receiver.lead / 2
        };
        receiver.received = received;
        pause(receiver.lead);
        let incoming = self.try_read(receiver);
        if incoming.is_none() {
            receiver.lead = 0;
        }
        incoming
    }

    fn wait_readable(
        &self,
        receiver: &mut ReceiverState<F>,
        deadline: Option<Instant>,
    ) -> Option<Incoming<F>> {
        if let Some(incoming) = self.try_read(receiver) {
            return Some(incoming);
        }
        let is_over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if !is_over && let Some(incoming) = self.look_again(receiver) {
            return Some(incoming);
        }
        self.shared()
            .events
            .readable
            .wait(deadline, || self.try_read(receiver))
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
