//! Opening and draining over bytes in memory, with rings of any size, for the package `fuzz`. Exists under
//! `cfg(fuzzing)` only; no part of the interface.

use crate::channel::{self, Incoming, mode_of};
use crate::durability::timer::PROGRESS;
use crate::durability::{Common, SendFailure, Wait};
use crate::error::Error;
use crate::memory::plain::Plain;
use crate::options::Durability;
use crate::overflow::{Alone, Born, Slot};
use crate::recovery::{self, Policy, RecoveryReport};
use crate::ring::Layout;
use crate::sync::Arc;
use std::path::Path;

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

/// The capacity that the identity page tells, if it and the length of the file are right.
pub fn capacity(bytes: &[u8]) -> Result<u64, Error> {
    recovery::read_identity(&Plain::new(bytes.to_vec())).map(|identity| identity.capacity)
}

/// An open channel, without a thread.
#[derive(Debug)]
pub struct Life {
    medium: Plain,
    channel: channel::Channel<Alone<Plain>>,
    slot: Slot<Alone<Plain>>,
    reading: channel::Reading<Alone<Plain>>,
    report: RecoveryReport,
}

impl Life {
    /// Opens a file of which the identity page is not looked at. If it cannot be opened, the bytes are given back.
    pub fn open(
        image: Vec<u8>,
        capacity: u64,
        durability: Durability,
        accept_torn: bool,
        random: &mut dyn FnMut() -> u64,
    ) -> Result<Life, (Error, Vec<u8>)> {
        let medium = Plain::new(image);
        let policy = Policy { accept_torn };
        let mut entropy = || Ok([random(), random()]);
        let recovered = match recovery::recover(&medium, capacity, policy, &mut entropy) {
            Ok(recovered) => recovered,
            Err(error) => return Err((error, medium.with(<[u8]>::to_vec))),
        };
        let layout = Layout::of_ring(capacity);
        let born = Born::new(medium.clone(), layout, &recovered, None, u64::MAX);
        let common = Arc::new(Common::new(mode_of(durability)));
        let chain = crate::overflow::open::created(Alone::new(), born, common, None);
        let opened = channel::without_threads(chain, recovered.receive_only, Path::new("plain"));
        let (channel, reading) = match opened {
            Ok(opened) => opened,
            Err(error) => return Err((error, medium.with(<[u8]>::to_vec))),
        };
        let report = recovered.report;
        channel.common().sender_joined();
        Ok(Life {
            medium,
            channel,
            slot: Slot::new(),
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
        match self.channel.send(
            &self.slot,
            &[std::io::IoSlice::new(payload)],
            None,
            Wait::No,
        ) {
            Ok(id) => Some(id.position()),
            Err(SendFailure::Unsynced(error)) => panic!("no sync fails here: {error}"),
            Err(_) => None,
        }
    }

    pub fn receive(&mut self) -> Option<Got> {
        let incoming = self.channel.receive(&mut self.reading, Wait::No)?;
        let payload = self.reading.payload(&self.reading.lent()).to_vec();
        Some(match incoming {
            Incoming::Message(held) => Got::Message {
                position: held.position,
                tag: self.channel.id(&held).tag(),
                deliveries: held.deliveries as u8,
                payload,
            },
            Incoming::Damage { held, end } => Got::Damage {
                position: held.position,
                end,
                bytes: payload,
            },
            Incoming::Disconnected => Got::Disconnected,
            Incoming::Failed(_) => Got::Failed,
        })
    }

    pub fn acknowledge(&self, position: u64) {
        self.channel.log().acknowledge(position);
    }

    /// The message comes back.
    pub fn give_back(&self, position: u64) {
        self.channel.common().give_back(position);
    }

    /// Gives damage up.
    pub fn settle(&self, position: u64, end: u64) {
        self.channel.log().settle(position, end);
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
