//! Opens an image, takes out all that is in it, and sees that new messages flow.

use super::oracle::Found;
use super::world::Book;
use super::*;
use crate::format::frame::frame_len;
use crate::recovery::DamagedFrame;
use std::time::Duration;

pub(super) struct Drain<'a> {
    pub(super) rng: &'a mut Rng,
    pub(super) book: &'a mut Book,
    pub(super) capacity: u64,
}

impl Drain<'_> {
    /// What the medium delivers. Opening it must find nothing that was durable and is damaged, the numbers of
    /// the report must be right, and the next messages must flow.
    pub(super) fn run(&mut self, medium: &Simulated) -> Found {
        let strict = self.rng.chance(3).then(|| self.open_strictly(medium));
        let mode = match self.rng.below(3) {
            0 => Mode::PerSend,
            1 => Mode::FlushOnly,
            _ => Mode::Every {
                max_ops: 3,
                max_delay: Duration::MAX,
            },
        };
        let life = Life::open(medium.clone(), self.capacity, mode, self.rng);
        let mut life = life.unwrap_or_else(|e| panic!("{e}"));
        let found = self.receive(&mut life);
        if let Some(opens) = strict {
            assert_eq!(opens, found.stepped_over == 0, "{}", life.report);
        }
        let fresh = if self.rng.chance(4) { u64::MAX } else { 1 };
        self.send_fresh(&mut life, fresh);
        found
    }

    /// Whether the medium opens where nothing torn is accepted; if not, nothing is changed.
    fn open_strictly(&mut self, medium: &Simulated) -> bool {
        let copy = medium.copied();
        let policy = Policy { accept_torn: false };
        let opened = recovery::recover(&copy, self.capacity, policy, &mut || {
            Ok([self.rng.next(), self.rng.next()])
        });
        match opened {
            Ok(_) => true,
            Err(Error::Corrupt { .. }) => {
                assert!(copy.killed() == medium.killed(), "it was changed");
                assert_eq!(copy.moment(), medium.moment());
                false
            }
            Err(other) => panic!("{other}"),
        }
    }

    fn receive(&mut self, life: &mut Life) -> Found {
        let report = &life.report;
        let torn = |frame: &DamagedFrame| {
            assert!(!frame.was_durable(), "damage without rot: {report}");
            frame.position()
        };
        let mut found = Found {
            clean: report.is_clean(),
            stepped_over: report.stepped_over(),
            named: report.damaged().iter().map(torn).collect(),
            header_faults: report.header_faults().len(),
            ..Found::default()
        };
        let late = self.rng.chance(10);
        let mut held = Vec::new();
        let mut again = 0;
        while let Some((id, deliveries)) = receive_one(life) {
            assert!((life.head..life.tail).contains(&id.position()));
            let last = found.messages.last();
            assert!(last.is_none_or(|m| m.id < id), "{id} is behind {last:?}");
            found.push(id, deliveries, &life.reading.payload);
            again += u64::from(deliveries > 1);
            if late {
                held.push(id);
            } else {
                life.acknowledge(id);
            }
        }
        while !held.is_empty() {
            let id = held.swap_remove(self.rng.below(held.len() as u64) as usize);
            life.acknowledge(id);
        }
        let report = &life.report;
        assert_eq!(report.kept(), found.messages.len() as u64, "{report}");
        assert_eq!(report.redelivered(), again, "{report}");
        found
    }

    /// Sends so many messages, or as many as the ring takes, and receives them.
    fn send_fresh(&mut self, life: &mut Life, most: u64) {
        let mut ids = Vec::new();
        let first = life.channel.log().ring().tail();
        while (ids.len() as u64) < most {
            let layout = *life.channel.log().ring().layout();
            let len = if self.rng.chance(90) {
                self.rng.below(30)
            } else {
                layout.payload_len_max()
            };
            let payload = vec![ids.len() as u8; len as usize];
            match life.send(&payload) {
                Ok(id) => {
                    self.book.give(id);
                    ids.push((id, payload));
                }
                Err(SendFailure::Full) => {
                    let tail = life.channel.log().ring().tail();
                    let (used, size) = (tail - first, frame_len(len));
                    let padding = layout.padding(tail, size);
                    assert!(used + padding + size > self.capacity, "full with {used}");
                    break;
                }
                Err(other) => panic!("{other:?}"),
            }
        }
        for (id, payload) in ids {
            assert_eq!(receive_one(life), Some((id, 1)));
            assert!(life.reading.payload == payload);
        }
        assert_eq!(receive_one(life), None);
    }
}

/// The next message, whose payload is in the reading of the life.
fn receive_one(life: &mut Life) -> Option<(MessageId, u8)> {
    match life.channel.receive(&mut life.reading, Wait::No)? {
        Incoming::Message(held) => Some((life.channel.id(&held), held.frame.deliveries)),
        other => panic!("{other:?}"),
    }
}
