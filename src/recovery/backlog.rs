//! Delivers what an earlier life left: verified frame by frame, read by `pread`.

use super::scan::{Pieces, Place, Scanner};
use super::window::Window;
use crate::format::frame::{FRAME_ALIGN, Kind, State};
use crate::format::incarnations::Lives;
use crate::memory::Medium;
use std::io;

/// The receiver's place in what was recovered: `[at, end)`.
#[derive(Debug)]
pub(crate) struct Backlog {
    at: u64,
    end: u64,
    capacity: u64,
    window: Window,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// A message, whose payload is in the buffer.
    Message { position: u64, state: State },
    /// Nothing for the user.
    Filler,
    /// No valid frame before the end of it.
    Damage { position: u64 },
}

impl Backlog {
    pub(crate) fn new(head: u64, tail: u64, capacity: u64) -> Self {
        Backlog {
            at: head,
            end: tail,
            capacity,
            window: Window::new(capacity),
        }
    }

    /// The position behind what was given last.
    pub(crate) fn cursor(&self) -> u64 {
        self.at
    }

    /// Whether the last item was given.
    pub(crate) fn is_at_end(&self) -> bool {
        self.at >= self.end
    }

    /// The next item; `None` at the end. After an error the same item is tried again.
    pub(crate) fn next(
        &mut self,
        medium: &dyn Medium,
        lives: &Lives,
        buffer: &mut Vec<u8>,
    ) -> io::Result<Option<Item>> {
        let (position, stop) = (self.at, self.end);
        if position >= stop {
            return Ok(None);
        }
        let mut scanner = Scanner {
            medium,
            lives,
            capacity: self.capacity,
            window: &mut self.window,
            verified: 0,
        };
        let Place::Valid { state, word1 } = scanner.place(position, stop, true)? else {
            // Up to the next place that looks like a frame, whole or not, or where a filler ends.
            let mut end = position + FRAME_ALIGN;
            while end < stop && scanner.place(end, stop, true)? == Place::Nothing {
                end += FRAME_ALIGN;
            }
            let mut pieces = Pieces {
                lives,
                capacity: self.capacity,
                at: position,
                end,
            };
            self.at = pieces.next().map_or(end, |(_, end)| end);
            // Frames behind it may be acknowledged late: read them anew.
            self.window.forget();
            return Ok(Some(Item::Damage { position }));
        };
        let mut item = Item::Filler;
        if word1.kind == Kind::Message && state != State::Acknowledged {
            buffer.clear();
            scanner.payload(position, u64::from(word1.len), |part| {
                buffer.extend_from_slice(part)
            })?;
            item = Item::Message { position, state };
        }
        self.at = position + word1.frame_len();
        Ok(Some(item))
    }
}
