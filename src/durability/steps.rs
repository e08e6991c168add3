//! A send, step by step: for tests in which several producers take turns in one thread. No step waits for
//! another producer.

use super::{Goal, Log, Mode, SendFailure, Wait};
use crate::format::frame::payload_crc;
use crate::memory::Memory;
use crate::ring::{Room, SetAside};
use std::io::{self, IoSlice};

impl<M: Memory> Log<M> {
    /// Whether a claim would wait for somebody to publish.
    pub(crate) fn claim_would_wait(&self) -> bool {
        match self.mode {
            Mode::Every { max_ops, .. } => {
                !self.reached(Goal::Permit(max_ops)) && !self.would_commit()
            }
            Mode::PerSend | Mode::FlushOnly => false,
        }
    }

    /// Claims as a sender does that does not wait; `None` if there is no room.
    pub(crate) fn claim_step(&self, len: u64) -> Result<Option<SetAside>, SendFailure> {
        self.common.check_open()?;
        match self.claim(len, Wait::No) {
            Ok(claim) => Ok(Some(claim.set_aside())),
            Err(SendFailure::Full) => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// The same without any sync: while another thread makes one.
    pub(crate) fn claim_in_sync(&self, len: u64) -> Option<SetAside> {
        if let Mode::Every { max_ops, .. } = self.mode
            && !self.reached(Goal::Permit(max_ops))
        {
            return None;
        }
        self.take_permit().ok()?;
        let claim = self
            .ring
            .claim(len, Room::Any)
            .ok()
            .map(|claim| claim.set_aside());
        if claim.is_none() {
            self.give_back_permit();
        }
        claim
    }

    pub(crate) fn publish_step(&self, claim: SetAside, payload: &[u8]) {
        let claim = self.ring.take_up(claim);
        let payload = [IoSlice::new(payload)];
        let first = self.tells_commit(&claim);
        claim.publish(&payload, payload_crc(&payload), first);
        self.ring.announce(!self.is_per_send());
    }

    pub(crate) fn abandon_step(&self, claim: SetAside) {
        drop(self.ring.take_up(claim));
    }

    /// What a sender does under `PerSend` when it has published.
    pub(crate) fn commit_step(&self, end: u64) -> io::Result<()> {
        self.drive(Goal::Commit(end))
    }
}
