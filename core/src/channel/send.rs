//! Sending: the way of a message from a handle to the files.

use super::shared::Channel;
use crate::commit::{SendFailure, Wait};
use crate::segments::{CurrentSegment, Files};
use crate::storage::Medium;
use std::io::{self, IoSlice};

impl<F: Files<Memory: Medium>> Channel<F> {
    /// Sends a payload: returns when it is in the channel, as durable as the mode promises, and gives the
    /// position behind its frame. Waits for room as `wait` says, and for the disk as the mode does.
    ///
    /// The mode is decided here. Without syncs a send that finds room needs nothing but the ring, and its way
    /// is one straight piece of code.
    ///
    /// # Errors
    ///
    /// See [`SendFailure`].
    #[inline(always)]
    pub fn send(
        &self,
        current: &CurrentSegment<F>,
        payload: &[IoSlice<'_>],
        wait: Wait,
    ) -> Result<u64, SendFailure> {
        if self.sends_at_once
            && let Some(end) = self.publish_at_once(payload, wait)
        {
            return Ok(end);
        }
        self.send_and_wait(current, payload, wait)
    }

    /// Into the first file, as long as it is the one that is sent into.
    #[inline(always)]
    fn publish_at_once(&self, payload: &[IoSlice<'_>], wait: Wait) -> Option<u64> {
        let first = self.chain.first();
        match first.ring().end() {
            None => first.publish_at_once(payload, wait),
            Some(_) => None,
        }
    }

    /// Whatever has to wait, for room or for the disk, or to go to another file; and what fails.
    #[inline(never)]
    fn send_and_wait(
        &self,
        current: &CurrentSegment<F>,
        payload: &[IoSlice<'_>],
        wait: Wait,
    ) -> Result<u64, SendFailure> {
        if self.receive_only {
            let text = "1022 earlier openings still have messages here: acknowledge the oldest, then reopen";
            let error = io::Error::new(io::ErrorKind::StorageFull, text);
            return Err(SendFailure::Io(error));
        }
        self.chain.send(current, payload, wait)
    }
}
