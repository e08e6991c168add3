//! Random operations, restarts among them, against a queue in memory.
#![allow(clippy::unwrap_used)]

mod support;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;
use support::{RING, every_durability, quick_dir, watchdog, with};
use walchan::{Delivery, MessageId, Receiver, SyncSender, TryRecvError, TrySendError};

const BOUND: usize = 8;

#[derive(Clone, Debug)]
enum Step {
    Send(usize),
    SendTimeout(usize),
    TooLarge,
    TryRecv,
    TryIter,
    Ack(usize),
    IntoInner(usize),
    Leave(usize),
    Panic(usize),
    Sync,
    Restart(usize),
    Kill(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![8 => 0..200usize, 1 => 0..5_000usize];
    prop_oneof![
        30 => len.clone().prop_map(Step::Send),
        5 => len.prop_map(Step::SendTimeout),
        1 => Just(Step::TooLarge),
        25 => Just(Step::TryRecv),
        2 => Just(Step::TryIter),
        15 => any::<usize>().prop_map(Step::Ack),
        3 => any::<usize>().prop_map(Step::IntoInner),
        2 => any::<usize>().prop_map(Step::Leave),
        5 => any::<usize>().prop_map(Step::Panic),
        2 => Just(Step::Sync),
        3 => (0..3usize).prop_map(Step::Restart),
        3 => (0..3usize).prop_map(Step::Kill),
    ]
}

fn text(number: u64, len: usize) -> String {
    format!("{number} {}", "x".repeat(len))
}

/// A message that was sent and is not acknowledged.
#[derive(Debug)]
struct Expected {
    number: u64,
    len: usize,
    deliveries: u32,
    id: Option<MessageId>,
}

struct Model {
    dir: tempfile::TempDir,
    path: PathBuf,
    files: u32,
    tx: SyncSender<String>,
    rx: Receiver<String>,
    next: u64,
    /// Not handed out in this incarnation, oldest first.
    waiting: VecDeque<Expected>,
    /// Came back in this incarnation.
    returned: Vec<Expected>,
    held: Vec<(Delivery<String>, Expected)>,
    left: Vec<Expected>,
    /// Bytes of all frames since the oldest unacknowledged one, acknowledged ones included, by number.
    frames: VecDeque<(u64, u64)>,
    last_id: Option<MessageId>,
}

impl Model {
    fn new(mode: usize) -> Self {
        let dir = quick_dir();
        let path = dir.path().join("0");
        let (tx, rx) =
            walchan::sync_channel_with_options(&path, BOUND, with(every_durability()[mode]))
                .unwrap();
        Model {
            dir,
            path,
            files: 0,
            tx,
            rx,
            next: 0,
            waiting: VecDeque::new(),
            returned: Vec::new(),
            held: Vec::new(),
            left: Vec::new(),
            frames: VecDeque::new(),
            last_id: None,
        }
    }

    fn unacknowledged(&self) -> usize {
        self.waiting.len() + self.returned.len() + self.held.len() + self.left.len()
    }

    /// Bytes in the ring at least, and at most when two frames before the end of the ring are padded.
    fn occupied(&mut self) -> u64 {
        let oldest = (self.waiting.iter())
            .chain(&self.returned)
            .chain(self.held.iter().map(|(_, e)| e))
            .chain(&self.left)
            .map(|e| e.number)
            .min()
            .unwrap_or(self.next);
        self.frames.retain(|(number, _)| *number >= oldest);
        self.frames.iter().map(|(_, len)| len).sum()
    }

    fn send(&mut self, len: usize, patient: bool) {
        let text = text(self.next, len);
        let frame = 16 + (8 + text.len() as u64).next_multiple_of(16);
        let sent = if patient {
            self.tx.send_timeout(text, Duration::ZERO).is_ok()
        } else {
            match self.tx.try_send(text.clone()) {
                Ok(()) => true,
                Err(TrySendError::Full(back)) => {
                    assert_eq!(back, text);
                    false
                }
                Err(e) => panic!("{e}"),
            }
        };
        let longest = 5_100;
        if self.unacknowledged() >= BOUND {
            assert!(!sent, "beyond the bound");
        } else if self.occupied() + frame + 2 * longest <= RING {
            assert!(sent, "there was room");
        }
        if sent {
            self.frames.push_back((self.next, frame));
            self.waiting.push_back(Expected {
                number: self.next,
                len,
                deliveries: 0,
                id: None,
            });
            self.next += 1;
        }
    }

    fn receive(&mut self) -> bool {
        let lowest = (0..self.returned.len()).min_by_key(|n| self.returned[*n].number);
        let expected = match lowest {
            Some(n) => Some(self.returned.remove(n)),
            None => self.waiting.pop_front(),
        };
        let Some(mut expected) = expected else {
            assert_eq!(self.rx.try_recv(), Err(TryRecvError::Empty));
            return false;
        };
        let d = self.rx.try_recv().unwrap();
        assert_eq!(*d, text(expected.number, expected.len));
        expected.deliveries += 1;
        assert_eq!(Delivery::deliveries(&d), expected.deliveries.min(14));
        let id = Delivery::id(&d);
        assert_eq!(*expected.id.get_or_insert(id), id);
        if expected.deliveries == 1 {
            assert!(Some(id) > self.last_id, "first deliveries are in order");
            self.last_id = Some(id);
        }
        self.held.push((d, expected));
        true
    }

    fn take_held(&mut self, n: usize) -> Option<(Delivery<String>, Expected)> {
        (!self.held.is_empty()).then(|| self.held.swap_remove(n % self.held.len()))
    }

    /// Ends the incarnation, in order or by a copy of the file as it is, and begins the next one.
    fn restart(mut self, mode: usize, kill: bool) -> Self {
        if kill {
            self.files += 1;
            let copy = self.dir.path().join(self.files.to_string());
            std::fs::copy(&self.path, &copy).unwrap();
            self.path = copy;
        }
        for (d, expected) in self.held.drain(..) {
            Delivery::leave(d);
            self.left.push(expected);
        }
        drop(self.tx);
        self.rx.close().unwrap();
        let mut all: Vec<_> = self
            .waiting
            .into_iter()
            .chain(self.returned)
            .chain(self.left)
            .collect();
        all.sort_by_key(|e| e.number);
        let o = with(every_durability()[mode]);
        let (tx, rx) = walchan::sync_channel_with_options(&self.path, BOUND, o).unwrap();
        let report = rx.recovery();
        assert_eq!(report.kept(), all.len() as u64, "{report}");
        let redelivered = all.iter().filter(|e| e.deliveries > 0).count() as u64;
        assert_eq!(report.redelivered(), redelivered, "{report}");
        assert_eq!(report.is_clean(), !kill && cfg!(feature = "fsync"));
        assert_eq!(
            (report.stepped_over(), report.damaged().len()),
            (0, 0),
            "{report}"
        );
        assert!(report.header_faults().is_empty(), "{report}");
        Model {
            dir: self.dir,
            path: self.path,
            files: self.files,
            tx,
            rx,
            next: self.next,
            waiting: all.into(),
            returned: Vec::new(),
            held: Vec::new(),
            left: Vec::new(),
            frames: self.frames,
            last_id: self.last_id,
        }
    }

    fn apply(mut self, step: &Step) -> Self {
        match *step {
            Step::Send(len) => self.send(len, false),
            Step::SendTimeout(len) => self.send(len, true),
            Step::TooLarge => {
                let e = self.tx.send("y".repeat(RING as usize)).unwrap_err();
                assert_eq!(e.into_inner().len(), RING as usize);
            }
            Step::TryRecv => {
                self.receive();
            }
            Step::TryIter => while self.receive() {},
            Step::Ack(n) => {
                if let Some((d, _)) = self.take_held(n) {
                    Delivery::ack(d).unwrap();
                }
            }
            Step::IntoInner(n) => {
                if let Some((d, e)) = self.take_held(n) {
                    assert_eq!(d.into_inner(), text(e.number, e.len));
                }
            }
            Step::Leave(n) => {
                if let Some((d, e)) = self.take_held(n) {
                    Delivery::leave(d);
                    self.left.push(e);
                }
            }
            Step::Panic(n) => {
                if let Some((d, e)) = self.take_held(n) {
                    let caught = std::panic::catch_unwind(move || {
                        let _d = d;
                        std::panic::resume_unwind(Box::new("planned"));
                    });
                    assert!(caught.is_err());
                    self.returned.push(e);
                }
            }
            Step::Sync => {
                if cfg!(feature = "fsync") {
                    self.tx.sync().unwrap();
                    self.rx.sync().unwrap();
                }
            }
            Step::Restart(mode) => return self.restart(mode, false),
            Step::Kill(mode) => return self.restart(mode, true),
        }
        self
    }
}

proptest! {
    #![proptest_config(Config {
        cases: if cfg!(feature = "stress") { 5_000 } else { 150 },
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..Config::default()
    })]

    #[test]
    fn a_channel_is_a_queue_that_survives_restarts(
        mode in 0..3usize,
        steps in vec(step(), 1..250),
    ) {
        let _dog = watchdog();
        let mut model = Model::new(mode);
        for step in &steps {
            model = model.apply(step);
        }
        // All that is left comes, and nothing else.
        model = model.restart(mode, false);
        while model.receive() {}
    }
}
