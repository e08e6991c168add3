//! Opens an image, takes out all that is in it, and sees that new messages flow.

use super::oracle::Found;
use super::places::{Chained, Shape, files_of};
use super::world::Book;
use super::*;
use std::time::Duration;
use walchan_core::format::frame::frame_len;
use walchan_core::recovery::DamagedFrame;

pub(super) struct Drain<'a> {
    pub(super) rng: &'a mut Rng,
    pub(super) book: &'a mut Book,
    pub(super) capacity: u64,
    pub(super) shape: Option<&'a Shape>,
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
        if let Some(shape) = self.shape {
            let life = Life::chained(medium.clone(), shape, mode, ACCEPT, self.rng);
            let mut life = life.unwrap_or_else(|e| panic!("{e}"));
            let found = self.take_all(&mut life, strict, 20);
            self.close(life, shape);
            return found;
        }
        let life = Life::open(medium.clone(), self.capacity, mode, self.rng);
        let mut life = life.unwrap_or_else(|e| panic!("{e}"));
        self.take_all(&mut life, strict, u64::MAX)
    }

    fn take_all<F: Files<Memory = Simulated>>(
        &mut self,
        life: &mut Life<F>,
        strict: Option<bool>,
        most: u64,
    ) -> Found {
        let found = self.receive(life);
        if let Some(opens) = strict {
            assert_eq!(opens, found.stepped_over == 0, "{}", life.report);
        }
        let fresh = if self.rng.chance(4) { most } else { 1 };
        self.send_fresh(life, fresh);
        found
    }

    /// Nothing is left in the chain: when it has ended in order, the ring is alone, and opens without a scan.
    fn close(&mut self, life: Life<Chained>, shape: &Shape) {
        let shared = life.channel.shared();
        assert!(shared.check().is_ok());
        life.channel.chain().finish().unwrap();
        let disk = life.medium.clone();
        drop(life);
        assert_eq!(files_of(&disk.killed(), shape), (vec![0], false));
        if self.rng.chance(5) {
            let life = Life::chained(disk, shape, Mode::PerSend, ACCEPT, self.rng).unwrap();
            let report = &life.report;
            assert!(report.is_clean() && report.kept() == 0, "{report}");
        }
    }

    /// Whether the medium opens where nothing torn is accepted; if not, nothing is changed.
    fn open_strictly(&mut self, medium: &Simulated) -> bool {
        let copy = medium.copied();
        let policy = Policy { accept_torn: false };
        let before = medium.moment();
        let opened = match self.shape {
            Some(shape) => {
                Life::chained(copy.clone(), shape, Mode::PerSend, policy, self.rng).map(drop)
            }
            None => recovery::recover(&copy, self.capacity, policy, &mut || {
                Ok([self.rng.next(), self.rng.next()])
            })
            .map(drop),
        };
        match opened {
            Ok(()) => true,
            Err(Error::Corrupt { .. }) => {
                // What was being made is removed in any case.
                let swept = 2 * u64::from(self.shape.is_some());
                assert!((copy.moment() - before) as u64 <= swept, "it was changed");
                assert!(swept > 0 || copy.killed() == medium.killed());
                false
            }
            Err(other) => panic!("{other}"),
        }
    }

    fn receive<F: Files<Memory = Simulated>>(&mut self, life: &mut Life<F>) -> Found {
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
            found.push(id, deliveries, life.reading.payload(&None));
            again += u64::from(deliveries > 1);
            if late {
                held.push(id);
            } else {
                life.acknowledge(id);
            }
            self.tend(life, 10);
        }
        while !held.is_empty() {
            let id = held.swap_remove(self.rng.below(held.len() as u64) as usize);
            life.acknowledge(id);
            self.tend(life, 10);
        }
        let report = &life.report;
        assert_eq!(report.kept(), found.messages.len() as u64, "{report}");
        assert_eq!(report.redelivered(), again, "{report}");
        found
    }

    /// The housekeeper does what it was asked to.
    fn tend<F: Files<Memory = Simulated>>(&mut self, life: &Life<F>, percent: u64) {
        if self.shape.is_some() && self.rng.chance(percent) {
            let flags = life.channel.shared().housekeeper.flags();
            life.channel.chain().on_housekeeper(flags).unwrap();
        }
    }

    /// Sends so many messages, or as many as there is room for, and receives them.
    fn send_fresh<F: Files<Memory = Simulated>>(&mut self, life: &mut Life<F>, most: u64) {
        let mut ids = Vec::new();
        let first = life.channel.log().ring().tail();
        while (ids.len() as u64) < most {
            let layout = *life.channel.log().ring().layout();
            self.tend(life, 10);
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
                // The disk is full, or what the options allow is.
                Err(SendFailure::Full | SendFailure::Io(_)) if self.shape.is_some() => {
                    assert!(life.channel.shared().check().is_ok());
                    assert!(!ids.is_empty() || !life.medium.has_failed());
                    break;
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
            assert!(life.reading.payload(&None) == payload);
            if self.shape.is_some() {
                life.acknowledge(id);
                self.tend(life, 10);
            }
        }
        assert_eq!(receive_one(life), None);
    }
}

/// The next message, whose payload is in the buffer of the receiver.
fn receive_one<F: Files<Memory = Simulated>>(life: &mut Life<F>) -> Option<(MessageId, u8)> {
    match life.channel.receive(&mut life.reading, Wait::No) {
        Received::Message(message) => {
            let in_flight = message.in_flight;
            let id = id_of(&life.channel, &in_flight);
            Some((id, in_flight.deliveries as u8))
        }
        Received::Empty => None,
        other => panic!("{other:?}"),
    }
}
