//! A send, step by step: for tests in which several producers take turns in one thread. No step waits for
//! another producer.

use super::*;
use std::mem::ManuallyDrop;
use walchan_core::commit::Log;
use walchan_core::format::frame::payload_crc;
use walchan_core::ring::{Claim, Room};

/// Where a claim lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claimed {
    pub(super) start: u64,
    pub(super) position: u64,
    pub(super) len: u32,
}

/// A claim, and the log that it is of. Dropped, it is neither published nor abandoned: as when its process
/// dies.
#[derive(Debug)]
pub(super) struct OpenClaim {
    claim: ManuallyDrop<Claim<'static, Simulated>>,
    pub(super) log: Arc<Log<Simulated>>,
}

impl OpenClaim {
    #[allow(unsafe_code)]
    fn new(claim: Claim<'_, Simulated>, log: &Arc<Log<Simulated>>) -> Self {
        // SAFETY: it borrows from the log, which stays where it is as long as `log` keeps it: longer than the
        // claim.
        let claim = unsafe { std::mem::transmute::<Claim<'_, _>, Claim<'static, _>>(claim) };
        OpenClaim {
            claim: ManuallyDrop::new(claim),
            log: Arc::clone(log),
        }
    }

    pub(super) fn place(&self) -> Claimed {
        Claimed {
            start: self.claim.start(),
            position: self.claim.position(),
            len: self.claim.payload_len(),
        }
    }

    pub(super) fn publish(self, payload: &[u8]) -> Arc<Log<Simulated>> {
        let OpenClaim { claim, log } = self;
        let payload = [IoSlice::new(payload)];
        let marker = log.is_commit_marker(&claim);
        ManuallyDrop::into_inner(claim).publish(&payload, payload_crc(&payload), marker);
        log.ring().announce(log.mode() != Mode::PerSend);
        log
    }

    pub(super) fn abandon(self) {
        drop(ManuallyDrop::into_inner(self.claim));
    }
}

/// Whether a claim would wait for somebody to publish.
pub(super) fn claim_would_wait(log: &Log<Simulated>) -> bool {
    !log.has_permits() && !log.would_commit()
}

/// Claims as a sender does that does not wait; `None` if there is no room.
pub(super) fn claim(log: &Arc<Log<Simulated>>, len: u64) -> Result<Option<OpenClaim>, SendFailure> {
    log.shared().check_open()?;
    let claim = log.try_claim(len, Room::Any)?;
    Ok(claim.map(|claim| OpenClaim::new(claim, log)))
}

/// The same without any sync: while another thread makes one.
pub(super) fn claim_in_sync(log: &Arc<Log<Simulated>>, len: u64) -> Option<OpenClaim> {
    if !log.has_permits() {
        return None;
    }
    log.take_permit().ok()?;
    match log.ring().claim(len, Room::Any) {
        Ok(claim) => Some(OpenClaim::new(claim, log)),
        Err(_) => {
            log.give_back_permit();
            None
        }
    }
}
