//! What a process does that is to be killed, and what it reports.
#![allow(clippy::disallowed_types)] // its own counters

use crate::support::{Random, with};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use walchan::{
    Delivery, Durability, Error, Options, Receiver, RecvError, SendError, SendErrorKind, Sender,
    SyncSender, TryRecvError,
};

pub const PRODUCERS: u64 = 4;
pub const BOUND: usize = 40;
/// Messages that a large backlog has, and bytes of its ring.
pub const BACKLOG: u64 = 20_000;
const BACKLOG_RING: u64 = 8 << 20;
/// Deliveries that each of the two threads that acknowledge holds.
const HELD: usize = 6;

/// A message: who sent it, and which one of theirs it is. The rest follows from that.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Numbered {
    pub producer: u64,
    pub number: u64,
    filler: String,
}

impl Numbered {
    pub fn new(producer: u64, number: u64) -> Self {
        let mut random = Random::new(producer << 20 | number);
        let longest = if random.below(20) == 0 { 9_000 } else { 300 };
        Self::with_filler(producer, number, random.below(longest))
    }

    /// For a backlog: so many of them fit its ring.
    pub fn small(producer: u64, number: u64) -> Self {
        let len = Random::new(producer << 20 | number).below(300);
        Self::with_filler(producer, number, len)
    }

    /// For a channel that grows into segments: a few dozen of them fill its ring.
    pub fn large(producer: u64, number: u64) -> Self {
        let len = Random::new(producer << 20 | number).below(3_000);
        Self::with_filler(producer, number, len)
    }

    fn with_filler(producer: u64, number: u64, len: u64) -> Self {
        let letter = char::from(b'a' + (number % 26) as u8);
        Numbered {
            producer,
            number,
            filler: letter.to_string().repeat(len as usize),
        }
    }

    pub fn is_whole(&self) -> bool {
        let (producer, number) = (self.producer, self.number);
        [Self::new, Self::small, Self::large]
            .iter()
            .any(|made| *self == made(producer, number))
    }
}

/// A sender of either kind of channel.
#[derive(Clone, Debug)]
pub enum Tx {
    Bounded(SyncSender<Numbered>),
    Growing(Sender<Numbered>),
}

impl Tx {
    pub fn send(&self, message: Numbered) -> Result<(), SendError<Numbered>> {
        match self {
            Tx::Bounded(tx) => tx.send(message),
            Tx::Growing(tx) => tx.send(message),
        }
    }
}

pub type Ends = (Tx, Receiver<Numbered>);

/// Bytes that a channel that grows may have.
pub const BYTES_MAX: u64 = 1 << 20;
/// Bytes that one which is to be recovered may have.
const BACKLOG_BYTES_MAX: u64 = 32 << 20;

/// What a process is to do.
#[derive(Clone, Debug)]
pub struct Role {
    /// What it does: see [`Role::live`].
    pub script: String,
    pub path: PathBuf,
    /// Which process it is: its producers have numbers of their own.
    pub incarnation: u64,
    pub durability: String,
}

impl Role {
    pub fn to_text(&self) -> String {
        let (path, incarnation) = (self.path.display(), self.incarnation);
        format!(
            "{}\n{path}\n{incarnation}\n{}",
            self.script, self.durability
        )
    }

    pub fn from_text(text: &str) -> Self {
        let parts: Vec<_> = text.split('\n').collect();
        Role {
            script: parts[0].to_owned(),
            path: parts[1].into(),
            incarnation: parts[2].parse().unwrap(),
            durability: parts[3].to_owned(),
        }
    }

    pub fn open(&self) -> Result<Ends, Error> {
        let durability = match self.durability.as_str() {
            "flush" => Durability::FlushOnly,
            "send" => Durability::SyncPerSend,
            _ => Durability::SyncEvery {
                max_ops: 5,
                max_delay: Duration::from_millis(1),
            },
        };
        if self.grows() {
            // Small where a receiver makes room all the time.
            let is_small = self.script == "segments";
            let options = Options {
                max_bytes: Some(if is_small {
                    BYTES_MAX
                } else {
                    BACKLOG_BYTES_MAX
                }),
                ..with(durability)
            };
            let (tx, rx) = walchan::channel_with_options(&self.path, options)?;
            return Ok((Tx::Growing(tx), rx));
        }
        let (bound, options) = if self.script.starts_with("backlog") {
            // The bound only says how large the ring is.
            let options = Options {
                ring_bytes: Some(BACKLOG_RING),
                ..with(durability)
            };
            (2 * BACKLOG as usize, options)
        } else {
            (BOUND, with(durability))
        };
        let (tx, rx) = walchan::sync_channel_with_options(&self.path, bound, options)?;
        Ok((Tx::Bounded(tx), rx))
    }

    /// The channel has no bound, and a small ring.
    pub fn grows(&self) -> bool {
        self.script.starts_with("segments")
    }

    /// Runs until it is killed.
    pub fn live(&self) {
        let stdout = std::io::stdout().as_fd().try_clone_to_owned().unwrap();
        let incarnation = Incarnation {
            role: self.clone(),
            reports: Reports(File::from(stdout)),
        };
        let ended = match self.script.as_str() {
            "traffic" => incarnation.traffic(),
            "segments" => incarnation.grow(),
            "close" | "segments close" => incarnation.close_again_and_again(false),
            "anew" => incarnation.close_again_and_again(true),
            "backlog fill" | "segments backlog fill" => incarnation.fill(),
            "backlog" | "segments backlog" => incarnation.recover(),
            other => panic!("{other}"),
        };
        if let Err(bad) = ended {
            incarnation.reports.say(format_args!("bad {bad}"));
        }
        // Whoever is to be killed waits for it.
        thread::sleep(Duration::from_secs(60));
    }
}

/// A line on a pipe that reaches the parent even if the next instruction is never executed.
struct Reports(File);

impl Reports {
    fn say(&self, what: std::fmt::Arguments<'_>) {
        // One write: shorter than a pipe's buffer, so whole or not at all.
        (&self.0)
            .write_all(format!("\n!{what}\n").as_bytes())
            .unwrap();
    }
}

struct Incarnation {
    role: Role,
    reports: Reports,
}

impl Incarnation {
    fn say(&self, what: std::fmt::Arguments<'_>) {
        self.reports.say(what);
    }

    fn open(&self) -> Result<Ends, String> {
        self.say(format_args!("opening"));
        let (tx, rx) = self.role.open().map_err(|e| format!("open {e}"))?;
        let report = rx.recovery();
        let (clean, kept) = (u8::from(report.is_clean()), report.kept());
        self.say(format_args!("open {clean} {kept}"));
        Ok((tx, rx))
    }

    /// Sends the numbers of one producer, until something is wrong.
    fn produce(&self, tx: &Tx, producer: u64, numbers: std::ops::Range<u64>) {
        for number in numbers {
            if !self.send(tx, producer, number) {
                return;
            }
        }
    }

    /// Sends one; `false` if that failed, which is reported.
    fn send(&self, tx: &Tx, producer: u64, number: u64) -> bool {
        let mut message = match tx {
            Tx::Bounded(_) => Numbered::new(producer, number),
            Tx::Growing(_) => Numbered::large(producer, number),
        };
        while let Err(e) = tx.send(message) {
            if e.kind != SendErrorKind::Full || !self.role.grows() {
                self.say(format_args!("bad send {e}"));
                return false;
            }
            // It is there again when the receiver has got on, and the housekeeper.
            message = e.into_inner();
            thread::yield_now();
        }
        self.say(format_args!("sent {producer} {number}"));
        true
    }

    fn acknowledge(&self, delivery: Delivery<Numbered>) {
        let (producer, number) = (delivery.producer, delivery.number);
        self.say(format_args!("acking {producer} {number}"));
        drop(delivery);
        self.say(format_args!("acked {producer} {number}"));
    }

    fn got(&self, delivery: &Delivery<Numbered>) -> Result<(), String> {
        if !delivery.is_whole() {
            return Err(format!("content {delivery:?}"));
        }
        let (id, deliveries) = (Delivery::id(delivery), Delivery::deliveries(delivery));
        let (producer, number) = (delivery.producer, delivery.number);
        self.say(format_args!("got {producer} {number} {id} {deliveries}"));
        Ok(())
    }

    /// The second thread that acknowledges: what it is handed, in any order.
    fn acknowledge_handed(&self, handed: &mpsc::Receiver<Delivery<Numbered>>, mut random: Random) {
        let mut held = Vec::new();
        loop {
            match handed.try_recv() {
                Ok(delivery) => held.push(delivery),
                Err(_) if held.is_empty() => match handed.recv() {
                    Ok(delivery) => held.push(delivery),
                    Err(_) => return,
                },
                Err(_) => {
                    self.acknowledge(held.swap_remove(random.below(held.len() as u64) as usize))
                }
            }
            if held.len() > HELD {
                self.acknowledge(held.swap_remove(random.below(HELD as u64) as usize));
            }
        }
    }

    /// Receives so many messages; both threads acknowledge. Some are left for the next incarnation if
    /// `leave`.
    fn consume(&self, rx: &Receiver<Numbered>, count: u64, leave: bool) -> Result<(), String> {
        self.consume_counted(rx, count, leave, &AtomicU64::new(u64::MAX))
    }

    /// The same; each that is received is taken off `behind`.
    fn consume_counted(
        &self,
        rx: &Receiver<Numbered>,
        count: u64,
        leave: bool,
        behind: &AtomicU64,
    ) -> Result<(), String> {
        let mut random = Random::new(self.role.incarnation);
        let (hand, handed) = mpsc::sync_channel(8);
        thread::scope(|scope| {
            let other = Random::new(self.role.incarnation + 1);
            scope.spawn(move || self.acknowledge_handed(&handed, other));
            // Gone at the end of this, so that the other thread ends, too.
            let hand = hand;
            let mut held = Vec::new();
            for _ in 0..count {
                let delivery = match rx.try_recv() {
                    Err(TryRecvError::Empty) => {
                        // A sender may wait for one of these.
                        held.drain(..)
                            .for_each(|delivery| self.acknowledge(delivery));
                        if self.role.script == "segments" {
                            // Slow producers are to come far, too.
                            let many = random.below(120);
                            let end = Instant::now() + Duration::from_millis(random.below(20));
                            while behind.load(Ordering::Relaxed) < many && Instant::now() < end {
                                thread::yield_now();
                            }
                        }
                        rx.recv().map_err(|e| format!("recv {e}"))?
                    }
                    received => received.map_err(|e| format!("recv {e}"))?,
                };
                self.got(&delivery)?;
                behind.fetch_sub(1, Ordering::Relaxed);
                if random.below(2) == 0 {
                    hand.send(delivery).map_err(|_| "no other thread")?;
                } else if leave && random.below(8) == 0 {
                    Delivery::leave(delivery);
                } else {
                    held.push(delivery);
                }
                if held.len() > HELD {
                    let at = random.below(HELD as u64) as usize;
                    self.acknowledge(held.swap_remove(at));
                }
            }
            held.into_iter()
                .for_each(|delivery| self.acknowledge(delivery));
            Ok(())
        })
    }

    /// Sends and receives without end.
    fn traffic(&self) -> Result<(), String> {
        let (tx, rx) = self.open()?;
        thread::scope(|scope| {
            for p in 0..PRODUCERS {
                let tx = tx.clone();
                let producer = self.role.incarnation * PRODUCERS + p;
                scope.spawn(move || self.produce(&tx, producer, 0..u64::MAX));
            }
            self.consume(&rx, u64::MAX, false)
        })
    }

    /// Sends and receives without end, and lets the channel grow and return all the time: the producers rest
    /// when many are behind, until few are.
    fn grow(&self) -> Result<(), String> {
        let (tx, rx) = self.open()?;
        let behind = AtomicU64::new(rx.recovery().kept());
        thread::scope(|scope| {
            for p in 0..PRODUCERS {
                let tx = tx.clone();
                let producer = self.role.incarnation * PRODUCERS + p;
                let behind = &behind;
                scope.spawn(move || {
                    let mut random = Random::new(producer);
                    let mut number = 0;
                    loop {
                        let many = [30, 60, 200, 600][random.below(4) as usize];
                        while behind.load(Ordering::Relaxed) < many {
                            behind.fetch_add(1, Ordering::Relaxed);
                            if !self.send(&tx, producer, number) {
                                return;
                            }
                            number += 1;
                        }
                        let few = random.below(20);
                        while behind.load(Ordering::Relaxed) > few {
                            thread::yield_now();
                        }
                    }
                });
            }
            self.consume_counted(&rx, u64::MAX, false, &behind)
        })
    }

    /// Opens, sends and receives a little, closes in order; then perhaps removes the file.
    fn close_again_and_again(&self, anew: bool) -> Result<(), String> {
        let mut random = Random::new(self.role.incarnation);
        let mut next = 0;
        loop {
            let (tx, rx) = self.open()?;
            let kept = rx.recovery().kept();
            // None of them ever waits for room.
            let (most, room) = match self.role.grows() {
                true => (60, 400),
                false => (9, BOUND as u64),
            };
            let each = random
                .below(most)
                .min(room.saturating_sub(kept) / PRODUCERS);
            let numbers = next..next + each;
            next += each;
            thread::scope(|scope| {
                for p in 0..PRODUCERS {
                    let (tx, numbers) = (tx.clone(), numbers.clone());
                    let producer = self.role.incarnation * PRODUCERS + p;
                    scope.spawn(move || self.produce(&tx, producer, numbers));
                }
                let there = kept + each * PRODUCERS;
                self.consume(&rx, random.below(there + 1), true)
            })?;
            drop(tx);
            self.say(format_args!("closing"));
            rx.close().map_err(|e| format!("close {e}"))?;
            self.say(format_args!("closed"));
            if anew && random.below(2) == 0 {
                self.say(format_args!("removing"));
                std::fs::remove_file(&self.role.path).map_err(|e| format!("remove {e}"))?;
                self.say(format_args!("removed"));
            }
        }
    }

    /// Makes a large backlog.
    fn fill(&self) -> Result<(), String> {
        let (tx, rx) = self.open()?;
        thread::scope(|scope| {
            for producer in 0..PRODUCERS {
                let tx = tx.clone();
                scope.spawn(move || {
                    for number in 0..BACKLOG / PRODUCERS {
                        tx.send(Numbered::small(producer, number)).unwrap();
                    }
                });
            }
        });
        self.say(format_args!("filled"));
        thread::sleep(Duration::from_secs(60));
        drop(rx);
        Ok(())
    }

    /// Opens a large backlog, and receives a little of it.
    fn recover(&self) -> Result<(), String> {
        let (_tx, rx) = self.open()?;
        self.consume(&rx, 20, true)
    }
}

/// Everything that is left, for one who is not to be killed.
pub fn rest(rx: &Receiver<Numbered>) -> impl Iterator<Item = Delivery<Numbered>> {
    std::iter::from_fn(|| match rx.recv() {
        Ok(delivery) => Some(delivery),
        Err(RecvError::Disconnected) => None,
        Err(e) => panic!("{e}"),
    })
}

/// A path in a directory.
pub fn place(dir: &Path) -> PathBuf {
    dir.join("q")
}
