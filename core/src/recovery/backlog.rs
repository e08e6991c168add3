//! Delivers what an earlier incarnation left: verified frame by frame, read by `pread`.

use super::scan::{Pieces, Place, Scanner};
use super::window::Window;
use crate::format::frame::{FRAME_ALIGN, State};
use crate::format::incarnations::Incarnations;
use crate::storage::Medium;
use std::io;

/// Damage is reported in pieces of at most so many bytes, each of which is held in memory.
const DAMAGE_LEN_MAX: u64 = 16 << 20;

/// The receiver's place in what was recovered: `[at, end)`.
#[derive(Debug)]
pub struct Backlog {
    at: u64,
    end: u64,
    capacity: u64,
    window: Window,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BacklogItem {
    /// Where it begins.
    pub position: u64,
    /// That of a message, whose payload is in the buffer; `None`: there is no valid frame.
    pub state: Option<State>,
}

/// A valid frame, or a damaged place.
enum Step {
    Filler,
    Found(BacklogItem),
}

impl Backlog {
    /// What lies in `[head, tail)`.
    pub fn new(head: u64, tail: u64, capacity: u64) -> Self {
        Backlog {
            at: head,
            end: tail,
            capacity,
            window: Window::new(capacity),
        }
    }

    /// The position behind what was given last.
    pub fn cursor(&self) -> u64 {
        self.at
    }

    /// Whether the last item was given.
    pub fn is_at_end(&self) -> bool {
        self.at >= self.end
    }

    /// Passes what is nobody's to receive, so that it does not keep the file from being drained until
    /// somebody asks for more.
    pub fn pass_fillers(
        &mut self,
        medium: &dyn Medium,
        incarnations: &Incarnations,
        buffer: &mut Vec<u8>,
    ) -> io::Result<()> {
        while self.at < self.end {
            let mut scanner = Scanner {
                medium,
                incarnations,
                capacity: self.capacity,
                window: &mut self.window,
                verified: 0,
            };
            let is_filler = match scanner.place(self.at, self.end, false)? {
                Place::Valid { state, .. } => state == State::Acknowledged,
                Place::Named | Place::Nothing => false,
            };
            let before = self.at;
            if !is_filler || !matches!(self.step(medium, incarnations, buffer)?, Some(Step::Filler))
            {
                // What is damaged is reported when it is asked for.
                self.at = before;
                return Ok(());
            }
        }
        Ok(())
    }

    /// The next message or damaged place; `None` at the end. After an error the same one is tried again.
    pub fn next(
        &mut self,
        medium: &dyn Medium,
        incarnations: &Incarnations,
        buffer: &mut Vec<u8>,
    ) -> io::Result<Option<BacklogItem>> {
        loop {
            match self.step(medium, incarnations, buffer)? {
                Some(Step::Filler) => {}
                Some(Step::Found(found)) => return Ok(Some(found)),
                None => return Ok(None),
            }
        }
    }

    fn step(
        &mut self,
        medium: &dyn Medium,
        incarnations: &Incarnations,
        buffer: &mut Vec<u8>,
    ) -> io::Result<Option<Step>> {
        let (position, stop) = (self.at, self.end);
        if position >= stop {
            return Ok(None);
        }
        let mut scanner = Scanner {
            medium,
            incarnations,
            capacity: self.capacity,
            window: &mut self.window,
            verified: 0,
        };
        // Copied as it is verified: what the medium gives is looked at once.
        let place = scanner.place_into(position, stop, true, Some(buffer))?;
        let Place::Valid { state, word1 } = place else {
            // Up to the next place that looks like a frame, whole or not, or where a filler ends.
            let mut end = position + FRAME_ALIGN;
            let stop = stop.min(position + DAMAGE_LEN_MAX);
            while end < stop && scanner.place(end, self.end, true)? == Place::Nothing {
                end += FRAME_ALIGN;
            }
            let mut pieces = Pieces {
                incarnations,
                capacity: self.capacity,
                at: position,
                end,
            };
            self.at = pieces.next().map_or(end, |(_, end)| end);
            // Frames behind it may be acknowledged late: read them anew.
            self.window.forget();
            let state = None;
            return Ok(Some(Step::Found(BacklogItem { position, state })));
        };
        self.at = position + word1.frame_len();
        if !word1.kind().is_message() || state == State::Acknowledged {
            return Ok(Some(Step::Filler));
        }
        let state = Some(state);
        Ok(Some(Step::Found(BacklogItem { position, state })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::frame::salt_from;
    use crate::format::incarnations::Incarnation;

    struct Zeros(u64);

    impl Medium for Zeros {
        fn len(&self) -> io::Result<u64> {
            Ok(self.0)
        }

        fn read_at(&self, _: u64, bytes: &mut [u8]) -> io::Result<()> {
            bytes.fill(0);
            Ok(())
        }

        fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
            panic!("delivery writes nothing here")
        }

        fn sync_written(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn long_damage_is_reported_in_pieces_that_fit_memory() {
        let incarnations = Incarnations::first(Incarnation {
            start: 0,
            salt: salt_from(1),
            tag: 1,
            number: 1,
        });
        let (capacity, len) = (4 * DAMAGE_LEN_MAX, 2 * DAMAGE_LEN_MAX + 48);
        let mut backlog = Backlog::new(0, len, capacity);
        let (mut at, mut buffer) = (0, Vec::new());
        for end in [DAMAGE_LEN_MAX, 2 * DAMAGE_LEN_MAX, len] {
            let item = backlog
                .next(&Zeros(capacity), &incarnations, &mut buffer)
                .unwrap();
            let damage = BacklogItem {
                position: at,
                state: None,
            };
            assert_eq!(item, Some(damage));
            at = backlog.cursor();
            assert_eq!(at, end);
        }
        assert!(backlog.is_at_end());
    }
}
