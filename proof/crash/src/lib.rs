//! Recovery and format under power cuts, kills and hostile files: a channel over a simulated medium,
//! driven from one thread, and the images that a crash at any moment could leave.
//!
//! `timelines` has single stories, `rot` those of damage, `hostile` what no crash leaves, `forged` frames
//! that somebody made. `campaign` has random ones: `program` runs them, `world` has their steps, `crashes`
//! ends them, `oracle` knows what must come of them, `drain` looks.

#![cfg(test)]
#![allow(clippy::unwrap_used)]

mod blocks;
mod campaign;
mod chains;
mod crashes;
mod drain;
mod forged;
mod four_images;
mod hostile;
mod oracle;
mod places;
mod program;
mod regressions;
mod rot;
mod steps;
mod timelines;
mod world;

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;
use walchan_core::Error;
use walchan_core::channel::{self, Channel, InFlight, ReceiverState};
use walchan_core::commit::timer::PROGRESS;
use walchan_core::commit::{Mode, SendFailure, Shared, Wait};
use walchan_core::format::frame::frame_len;
use walchan_core::format::identity::{FORMAT_VERSION, Identity};
use walchan_core::recovery::{self, Policy, Recovered, RecoveryReport};
use walchan_core::ring::{Layout, Received};
use walchan_core::segments::{CurrentSegment, Files, Prepared, SingleFile};
use walchan_medium::{SECTOR_LEN, Simulated};

/// The id of a message: its position, and the tag of the incarnation in which it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct MessageId {
    position: u64,
    tag: u64,
}

impl MessageId {
    fn new(position: u64, tag: u64) -> Self {
        MessageId { position, tag }
    }

    fn position(self) -> u64 {
        self.position
    }
}

impl std::fmt::Display for MessageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}-{:016x}", self.position, self.tag)
    }
}

/// The id of a message that was handed out.
fn id_of<F: Files<Memory = Simulated>>(channel: &Channel<F>, message: &InFlight<F>) -> MessageId {
    MessageId::new(message.position, channel.tag(message))
}

/// A small deterministic generator (splitmix64).
#[derive(Debug)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    /// One of `0..n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// The image of a new file with a ring of any power of two.
fn new_image(capacity: u64, rng: &mut Rng) -> Vec<u8> {
    let identity = Identity {
        version: FORMAT_VERSION,
        capacity,
        channel_id: [7; 16],
        codec: 1,
        schema: String::new(),
        number: 0,
        start: 0,
        follows: 0,
    };
    let life = recovery::new_incarnation(0, 1, &mut || Ok([rng.next(), rng.next()])).unwrap();
    let mut image = recovery::new_header(&identity, life);
    image.resize(image.len() + capacity as usize, 0);
    image
}

const ACCEPT: Policy = Policy { accept_torn: true };

fn recover(medium: &Simulated, capacity: u64, rng: &mut Rng) -> Result<Recovered, Error> {
    recovery::recover(medium, capacity, ACCEPT, &mut || {
        Ok([rng.next(), rng.next()])
    })
}

/// What a receiver got.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Got {
    Message {
        id: MessageId,
        deliveries: u8,
        payload: Vec<u8>,
    },
    Damage {
        position: u64,
        end: u64,
    },
    Disconnected,
    Failed,
}

/// A channel of one file.
type Ring = SingleFile<Simulated>;

/// An incarnation: a channel that is open.
struct Life<F: Files<Memory = Simulated> = Ring> {
    medium: Simulated,
    channel: Channel<F>,
    slot: CurrentSegment<F>,
    reading: ReceiverState<F>,
    report: RecoveryReport,
    /// As recovery found them.
    head: u64,
    tail: u64,
}

impl Life {
    fn open(medium: Simulated, capacity: u64, mode: Mode, rng: &mut Rng) -> Result<Life, Error> {
        Life::bounded(medium, capacity, mode, None, rng)
    }

    fn bounded(
        medium: Simulated,
        capacity: u64,
        mode: Mode,
        bound: Option<usize>,
        rng: &mut Rng,
    ) -> Result<Life, Error> {
        let recovered = recover(&medium, capacity, rng)?;
        let (head, tail) = (recovered.head, recovered.tail);
        let layout = Layout::of_ring(capacity);
        let bound = bound.map_or(u64::MAX, |n| n as u64);
        let prepared = Prepared::new(medium.clone(), layout, &recovered, None, bound);
        let shared = Arc::new(Shared::new(mode));
        let chain =
            walchan_core::segments::open::created(SingleFile::new(), prepared, shared, None);
        let receive_only = recovered.receive_only;
        let (channel, reading) =
            channel::without_threads(chain, receive_only, Path::new("simulated"))?;
        channel.shared().sender_joined();
        let report = recovered.report;
        Ok(Life {
            medium,
            channel,
            slot: CurrentSegment::new(),
            reading,
            report,
            head,
            tail,
        })
    }

    fn on(image: &[u8], capacity: u64, mode: Mode, rng: &mut Rng) -> Result<Life, Error> {
        Life::open(Simulated::new(image.to_vec()), capacity, mode, rng)
    }

    /// What the channel's thread does when progress is due.
    fn timer(&self) {
        self.channel.log().on_timer(PROGRESS).ok();
    }

    fn close(&self) {
        self.channel.log().finish().unwrap();
    }
}

impl<F: Files<Memory = Simulated>> Life<F> {
    fn send(&self, payload: &[u8]) -> Result<MessageId, SendFailure> {
        let pieces = [IoSlice::new(payload)];
        let end = self.channel.send(&self.slot, &pieces, Wait::No)?;
        let position = end - frame_len(payload.len() as u64);
        let log = self.channel.chain().log_at(position).unwrap();
        Ok(MessageId::new(position, log.tag()))
    }

    fn receive(&mut self) -> Option<Got> {
        Some(match self.channel.receive(&mut self.reading, Wait::No) {
            Received::Message(message) => Got::Message {
                id: id_of(&self.channel, &message.in_flight),
                deliveries: message.in_flight.deliveries as u8,
                payload: self.reading.payload(&message.lent).to_vec(),
            },
            Received::Damage { place, end } => Got::Damage {
                position: place.in_flight.position,
                end,
            },
            Received::Disconnected => Got::Disconnected,
            Received::Failed(_) => Got::Failed,
            Received::Empty | Received::End => return None,
        })
    }

    /// The payload of the next message, which must be there.
    fn receive_message(&mut self) -> (MessageId, Vec<u8>) {
        match self.receive() {
            Some(Got::Message { id, payload, .. }) => (id, payload),
            other => panic!("no message: {other:?}"),
        }
    }

    fn receive_all(&mut self) -> Vec<Got> {
        std::iter::from_fn(|| self.receive()).collect()
    }

    fn acknowledge(&self, id: MessageId) {
        let log = self.channel.chain().log_at(id.position()).unwrap();
        log.acknowledge(id.position());
    }

    /// What a power cut now leaves, if each sector stays as the last sync left it.
    fn cut_oldest(&self) -> Vec<u8> {
        self.medium.cut(self.medium.moment(), |_, _| 0)
    }

    fn cut_random(&self, rng: &mut Rng) -> Vec<u8> {
        cut_random(&self.medium, self.medium.moment(), rng)
    }
}

fn cut_random(medium: &Simulated, moment: usize, rng: &mut Rng) -> Vec<u8> {
    medium.cut(moment, |_, values| rng.below(values as u64) as usize)
}

/// The payloads that a file delivers, in order; it must open, and deliver nothing else.
fn payloads_of(image: &[u8], capacity: u64, rng: &mut Rng) -> Vec<Vec<u8>> {
    let mut life = Life::on(image, capacity, Mode::PerSend, rng).unwrap();
    let payload = |got| match got {
        Got::Message { payload, .. } => payload,
        other => panic!("not a message: {other:?}"),
    };
    life.receive_all().into_iter().map(payload).collect()
}

/// Sectors that a power cut at `moment` leaves open, and how many values each may have.
fn open_sectors(medium: &Simulated, moment: usize) -> BTreeMap<u64, usize> {
    let mut open = BTreeMap::new();
    medium.cut(moment, |sector, values| {
        open.insert(sector, values);
        0
    });
    open
}

/// Every image that a power cut at `moment` could leave, if they are not more than `most`; else as many
/// random ones.
fn images(medium: &Simulated, moment: usize, most: usize, rng: &mut Rng) -> Vec<Vec<u8>> {
    let open: Vec<(u64, usize)> = open_sectors(medium, moment).into_iter().collect();
    let all = open
        .iter()
        .try_fold(1usize, |n, (_, values)| n.checked_mul(*values));
    match all {
        Some(all) if all <= most => (0..all)
            .map(|mut n| {
                medium.cut(moment, |_, values| {
                    let chosen = n % values;
                    n /= values;
                    chosen
                })
            })
            .collect(),
        _ => {
            let mut images = vec![
                medium.cut(moment, |_, _| 0),
                medium.cut(moment, |_, values| values - 1),
            ];
            // One sector ahead of all others, and one behind: the runs that tear a group.
            for (special, _) in open.iter().rev().take(most / 4) {
                images.push(medium.cut(
                    moment,
                    |sector, values| {
                        if sector == *special { values - 1 } else { 0 }
                    },
                ));
                images.push(medium.cut(
                    moment,
                    |sector, values| {
                        if sector == *special { 0 } else { values - 1 }
                    },
                ));
            }
            while images.len() < most {
                images.push(cut_random(medium, moment, rng));
            }
            images
        }
    }
}

const _: () = assert!(SECTOR_LEN == walchan_core::format::SECTOR_LEN);
