//! Opening and draining over bytes in memory, with rings of any size.

use crate::plain::Plain;
use std::path::Path;
use std::sync::Arc;
use walchan_core::Error;
use walchan_core::channel;
use walchan_core::commit::timer::PROGRESS;
use walchan_core::commit::{Mode, SendFailure, Shared, Wait};
use walchan_core::format::CAPACITY_MIN;
use walchan_core::format::frame::frame_len;
use walchan_core::recovery::{self, Policy, RecoveryReport};
use walchan_core::ring::{Layout, Received};
use walchan_core::segments::{CurrentSegment, Prepared, SingleFile};

/// What a receiver got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Got {
    Message {
        position: u64,
        tag: u64,
        deliveries: u8,
        payload: Vec<u8>,
    },
    Damage {
        position: u64,
        end: u64,
        bytes: Vec<u8>,
    },
    Disconnected,
    Failed,
}

/// The capacity that the identity page names, if it and the length of the file are right.
pub fn capacity(bytes: &[u8]) -> Result<u64, Error> {
    recovery::read_identity(&Plain::new(bytes.to_vec()), CAPACITY_MIN)
        .map(|identity| identity.capacity)
}

/// An open channel, without a thread.
#[derive(Debug)]
pub struct Incarnation {
    medium: Plain,
    channel: channel::Channel<SingleFile<Plain>>,
    slot: CurrentSegment<SingleFile<Plain>>,
    reading: channel::ReceiverState<SingleFile<Plain>>,
    report: RecoveryReport,
}

impl Incarnation {
    /// Opens a file of which the identity page is not looked at. If it cannot be opened, the bytes are given
    /// back.
    pub fn open(
        image: Vec<u8>,
        capacity: u64,
        mode: Mode,
        accept_torn: bool,
        random: &mut dyn FnMut() -> u64,
    ) -> Result<Incarnation, (Error, Vec<u8>)> {
        let medium = Plain::new(image);
        let policy = Policy { accept_torn };
        let mut entropy = || Ok([random(), random()]);
        let recovered = match recovery::recover(&medium, capacity, policy, &mut entropy) {
            Ok(recovered) => recovered,
            Err(error) => return Err((error, medium.with(<[u8]>::to_vec))),
        };
        let layout = Layout::of_ring(capacity);
        let prepared = Prepared::new(medium.clone(), layout, &recovered, None, u64::MAX);
        let shared = Arc::new(Shared::new(mode));
        let chain =
            walchan_core::segments::open::created(SingleFile::new(), prepared, shared, None);
        let opened = channel::without_threads(chain, recovered.receive_only, Path::new("plain"));
        let (channel, reading) = match opened {
            Ok(opened) => opened,
            Err(error) => return Err((error, medium.with(<[u8]>::to_vec))),
        };
        let report = recovered.report;
        channel.shared().sender_joined();
        Ok(Incarnation {
            medium,
            channel,
            slot: CurrentSegment::new(),
            reading,
            report,
        })
    }

    pub fn report(&self) -> &RecoveryReport {
        &self.report
    }

    /// The bytes of the file as they are now.
    pub fn with_image<R>(&self, look: impl FnOnce(&[u8]) -> R) -> R {
        self.medium.with(look)
    }

    /// Gives the position of the message; `None` if it was not sent.
    pub fn send(&self, payload: &[u8]) -> Option<u64> {
        let pieces = [std::io::IoSlice::new(payload)];
        match self.channel.send(&self.slot, &pieces, Wait::No) {
            Ok(end) => Some(end - frame_len(payload.len() as u64)),
            Err(SendFailure::Unsynced(error)) => panic!("no sync fails here: {error}"),
            Err(_) => None,
        }
    }

    pub fn receive(&mut self) -> Option<Got> {
        let received = self.channel.receive(&mut self.reading, Wait::No);
        Some(match received {
            Received::Message(message) => Got::Message {
                position: message.in_flight.position,
                tag: self.channel.tag(&message.in_flight),
                deliveries: message.in_flight.deliveries as u8,
                payload: self.reading.payload(&message.lent).to_vec(),
            },
            Received::Damage { place, end } => Got::Damage {
                position: place.in_flight.position,
                end,
                bytes: self.reading.damaged_bytes().to_vec(),
            },
            Received::Disconnected => Got::Disconnected,
            Received::Failed(_) => Got::Failed,
            Received::Empty | Received::End => return None,
        })
    }

    pub fn acknowledge(&self, position: u64) {
        self.channel.log().acknowledge(position);
    }

    /// The message comes back.
    pub fn give_back(&self, position: u64) {
        self.channel.shared().give_back(position);
    }

    /// Gives damage up.
    pub fn release_damage(&self, position: u64, end: u64) {
        self.channel.log().release_damage(position, end);
    }

    /// What the thread does when progress is due.
    pub fn progress(&self) -> bool {
        self.channel.log().on_timer(PROGRESS).is_ok()
    }

    pub fn sync(&self) -> bool {
        self.channel.log().sync_sent().is_ok()
    }

    pub fn close(&self) -> bool {
        self.channel.log().finish().is_ok()
    }
}
