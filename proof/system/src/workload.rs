//! Incarnations of a channel under a random load: four producers, one receiver, two threads that acknowledge
//! in any order, and explicit syncs. Each says what it is about to do, and what came of it.

#![allow(clippy::disallowed_types)] // never under loom
#![allow(clippy::unwrap_used)]

use crate::random::Random;
use crate::reports::Reports;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Read;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;
use walchan::{
    Delivery, Durability, Error, Options, Receiver, ReceiverOptions, SendErrorKind,
    SendTimeoutError, Sender, SyncSender,
};

pub const PRODUCERS: u64 = 4;

/// A message: who sent it, and which one of theirs it is. The rest follows from that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbered {
    pub producer: u64,
    pub number: u64,
    filler: Vec<u8>,
}

impl Numbered {
    pub fn new(producer: u64, number: u64) -> Self {
        let mut random = Random::new(producer << 32 | number);
        // In every other incarnation large ones go round in a small ring quickly, even with a sync each.
        let large = producer / PRODUCERS % 2 == 1;
        let longest = match random.below(100) {
            0 => 30_000,
            1..5 => 9_000,
            5..50 if large => 9_000,
            _ => 300,
        };
        let len = random.below(longest);
        let filler = (0..len).map(|_| random.number() as u8).collect();
        Numbered {
            producer,
            number,
            filler,
        }
    }
}

/// What came of a send that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    Yes,
    /// There was no room.
    Refused,
}

/// A sender of either kind of channel.
#[derive(Clone, Debug)]
pub enum Tx {
    Bounded(SyncSender<Numbered>),
    Growing(Sender<Numbered>),
}

impl Tx {
    pub fn send(&self, message: Numbered) -> Result<Sent, String> {
        match self {
            Tx::Bounded(tx) => match tx.send_timeout(message, Duration::from_millis(20)) {
                Ok(()) => Ok(Sent::Yes),
                Err(SendTimeoutError::Timeout(_)) => Ok(Sent::Refused),
                Err(e) => Err(e.to_string()),
            },
            Tx::Growing(tx) => match tx.send(message) {
                Ok(()) => Ok(Sent::Yes),
                Err(e) if e.kind == SendErrorKind::Full => {
                    thread::sleep(Duration::from_millis(1));
                    Ok(Sent::Refused)
                }
                Err(e) => Err(e.to_string()),
            },
        }
    }

    fn sync(&self) -> Result<(), Error> {
        match self {
            Tx::Bounded(tx) => tx.sync(),
            Tx::Growing(tx) => tx.sync(),
        }
    }
}

/// Bytes that a channel without a bound may have.
const BYTES_MAX: u64 = 4 << 20;

/// Which durabilities the incarnations of one file have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    PerSend,
    Every,
    FlushOnly,
    /// Another one in each incarnation.
    All,
}

impl Mix {
    pub const ALL: [Mix; 4] = [Mix::PerSend, Mix::Every, Mix::FlushOnly, Mix::All];

    pub fn durability(self, random: &mut Random) -> Durability {
        let single = match self {
            Mix::All => Mix::ALL[random.below(3) as usize],
            one => one,
        };
        match single {
            Mix::PerSend => Durability::SyncPerSend,
            Mix::FlushOnly => Durability::FlushOnly,
            Mix::Every | Mix::All => Durability::SyncEvery {
                max_ops: [1, 3, 10, 50][random.below(4) as usize],
                max_delay: Duration::from_micros(
                    [0, 300, 2_000, u64::MAX][random.below(4) as usize],
                ),
            },
        }
    }
}

/// What one incarnation is to be like: all of it follows from the first four.
#[derive(Clone, Debug)]
pub struct Incarnation {
    pub path: PathBuf,
    pub seed: u64,
    pub number: u64,
    pub mix: Mix,
    pub durability: Durability,
    /// The channel has no bound, and grows into segments.
    pub grows: bool,
    ring_bytes: u64,
    bound: usize,
    receiver: ReceiverOptions,
    /// Nothing is received before the incarnation ends: a large backlog.
    hoards: bool,
    /// So many deliveries are held by each of those who acknowledge, if there is room.
    held: usize,
    /// Producers rest now and then, so that the channel is idle.
    rests: bool,
    /// Pages reach the disk early, in any order: one in so many is of the header.
    writeback: Option<u64>,
    /// One in so many sends, and deliveries, is followed by a sync.
    sync_one_in: Option<NonZeroU64>,
}

impl Incarnation {
    pub fn new(path: &Path, seed: u64, number: u64, mix: Mix) -> Incarnation {
        let ring_bytes = [64 << 10, 64 << 10, 256 << 10, 1 << 20];
        let mut of_file = Random::new(seed);
        let ring_bytes = ring_bytes[of_file.below(4) as usize];
        let grows = of_file.below(2) == 0;
        let ring_bytes = if grows { 64 << 10 } else { ring_bytes };
        let mut random = Random::new(seed.wrapping_add(number + 1));
        Incarnation {
            path: path.to_owned(),
            seed,
            number,
            mix,
            durability: mix.durability(&mut random),
            grows,
            ring_bytes,
            bound: [40, 10_000][random.below(2) as usize],
            receiver: ReceiverOptions {
                commit_every: [1, 8, 64][random.below(3) as usize],
                commit_max_delay: Duration::from_millis(random.below(2)),
            },
            hoards: random.below(5) == 0,
            held: [8, 8, 1_000][random.below(3) as usize],
            rests: random.below(3) == 0,
            writeback: [None, None, Some(2), Some(u64::MAX)][random.below(4) as usize],
            sync_one_in: NonZeroU64::new([0, 0, 5, 40][random.below(4) as usize]),
        }
    }

    /// The options to open it with.
    pub fn options(&self) -> Options {
        Options {
            durability: self.durability,
            ring_bytes: Some(self.ring_bytes),
            max_bytes: self.grows.then_some(BYTES_MAX),
            ..Options::default()
        }
    }

    /// Opens the channel of this incarnation at a path, or makes it.
    pub fn open(
        &self,
        path: &Path,
        bound: usize,
        options: Options,
    ) -> Result<(Tx, Receiver<Numbered>), Error> {
        if self.grows {
            let (tx, rx) = walchan::channel_with_options(path, options)?;
            return Ok((Tx::Growing(tx), rx));
        }
        let (tx, rx) = walchan::sync_channel_with_options(path, bound, options)?;
        Ok((Tx::Bounded(tx), rx))
    }

    /// For the process that is to live it.
    pub fn role(&self) -> String {
        let mix = Mix::ALL.iter().position(|mix| *mix == self.mix).unwrap();
        let (path, seed, number) = (self.path.display(), self.seed, self.number);
        format!("{path}\n{seed}\n{number}\n{mix}")
    }

    pub fn of_role(role: &str) -> Incarnation {
        let parts: Vec<_> = role.split('\n').collect();
        let number = |n: usize| parts[n].parse::<u64>().unwrap();
        let mix = Mix::ALL[number(3) as usize];
        Incarnation::new(Path::new(parts[0]), number(1), number(2), mix)
    }

    fn random(&self, thread: u64) -> Random {
        Random::new(self.seed ^ (self.number << 8 | thread) << 20)
    }

    /// Runs it, until standard input ends; then closes the channel in order.
    pub fn live(&self) {
        // Nobody else would end it.
        let signal = rustix::process::Signal::KILL;
        rustix::process::set_parent_process_death_signal(Some(signal)).unwrap();
        let reports = Reports::new();
        match self.durability {
            Durability::SyncPerSend => reports.say(format_args!("opening send")),
            Durability::FlushOnly => reports.say(format_args!("opening flush")),
            Durability::SyncEvery { max_ops, .. } => {
                reports.say(format_args!("opening every {max_ops}"));
            }
        }
        let opened = self.open(&self.path, self.bound, self.options());
        let (tx, rx) = match opened {
            Ok(opened) => opened,
            Err(e) => return reports.say(format_args!("bad open: {e}")),
        };
        let rx: Receiver<Numbered> = rx.with_options(self.receiver);
        let found = rx.recovery();
        if found.damaged().iter().any(|d| d.was_durable()) {
            reports.say(format_args!("bad recovery: {found}"));
        }
        reports.say(format_args!("open"));
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let (reports, stop) = (&reports, &stop);
            scope.spawn(move || {
                std::io::stdin().read_to_end(&mut Vec::new()).ok();
                // [O:none] Relaxed: nothing else is handed over.
                stop.store(true, Ordering::Relaxed);
            });
            for p in 0..PRODUCERS {
                let tx = tx.clone();
                scope.spawn(move || self.produce(p, &tx, reports, stop));
            }
            drop(tx);
            if let Some(header_one_in) = self.writeback {
                scope.spawn(move || self.write_back(header_one_in, stop));
            }
            let acknowledgers = [0, 1].map(|n| {
                let (give, take) = mpsc::channel();
                scope.spawn(move || self.acknowledge(n, &take, reports));
                give
            });
            self.receive(&rx, &acknowledgers, reports, stop);
        });
        reports.say(format_args!("closing"));
        match rx.close() {
            Ok(()) => reports.say(format_args!("closed")),
            Err(e) => reports.say(format_args!("bad close: {e}")),
        }
    }

    fn produce(&self, p: u64, tx: &Tx, reports: &Reports, stop: &AtomicBool) {
        let mut random = self.random(p);
        let producer = self.number * PRODUCERS + p;
        for number in 0.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let message = Numbered::new(producer, number);
            reports.say(format_args!("sending {producer} {number}"));
            match tx.send(message) {
                Ok(Sent::Yes) => reports.say(format_args!("sent {producer} {number}")),
                Ok(Sent::Refused) => {
                    reports.say(format_args!("refused {producer} {number}"));
                    continue;
                }
                Err(e) => return reports.say(format_args!("bad send: {e}")),
            }
            if self.sync_one_in.is_some_and(|n| random.below(n.get()) == 0) {
                reports.say(format_args!("syncing sends {producer} {number}"));
                if let Err(e) = tx.sync() {
                    return reports.say(format_args!("bad sync: {e}"));
                }
                reports.say(format_args!("synced sends {producer} {number}"));
            }
            if self.rests && random.below(10) == 0 {
                thread::sleep(Duration::from_micros(random.below(4_000)));
            }
        }
    }

    /// Hands out what it receives, until all producers are gone. At the end of the incarnation it leaves much
    /// of it to the next one.
    fn receive(
        &self,
        rx: &Receiver<Numbered>,
        acknowledgers: &[mpsc::Sender<Delivery<Numbered>>],
        reports: &Reports,
        stop: &AtomicBool,
    ) {
        let mut random = self.random(100);
        while self.hoards && !stop.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(1));
        }
        loop {
            let d = match rx.recv() {
                Ok(d) => d,
                Err(walchan::RecvError::Disconnected) => return,
                Err(e) => return reports.say(format_args!("bad recv: {e}")),
            };
            let (producer, number) = (d.producer, d.number);
            if *d != Numbered::new(producer, number) {
                return reports.say(format_args!("bad content: {producer} {number}"));
            }
            let (id, deliveries) = (Delivery::id(&d), Delivery::deliveries(&d));
            reports.say(format_args!("got {producer} {number} {id} {deliveries}"));
            if stop.load(Ordering::Relaxed) && random.below(2) == 0 {
                Delivery::leave(d);
            } else {
                acknowledgers[random.below(2) as usize].send(d).unwrap();
            }
            if self.sync_one_in.is_some_and(|n| random.below(n.get()) == 0) {
                reports.say(format_args!("syncing acks {producer} {number}"));
                if let Err(e) = rx.sync() {
                    return reports.say(format_args!("bad sync: {e}"));
                }
                reports.say(format_args!("synced acks {producer} {number}"));
            }
        }
    }

    /// Keeps some, and acknowledges any of them; half of them when nothing has come for a while, for they may
    /// be in the way.
    fn acknowledge(&self, n: u64, take: &mpsc::Receiver<Delivery<Numbered>>, reports: &Reports) {
        let mut random = self.random(101 + n);
        let mut held: Vec<Delivery<Numbered>> = Vec::new();
        loop {
            let keep = match take.recv_timeout(Duration::from_millis(2)) {
                Ok(d) => {
                    held.push(d);
                    self.held
                }
                Err(RecvTimeoutError::Timeout) => held.len() / 2,
                Err(RecvTimeoutError::Disconnected) if held.is_empty() => return,
                Err(RecvTimeoutError::Disconnected) => 0,
            };
            while held.len() > keep || (!held.is_empty() && random.below(8) == 0) {
                let d = held.swap_remove(random.below(held.len() as u64) as usize);
                let (producer, number) = (d.producer, d.number);
                reports.say(format_args!("acking {producer} {number}"));
                if random.below(2) == 0 {
                    drop(d);
                } else if let Err(e) = Delivery::ack(d) {
                    return reports.say(format_args!("bad ack: {e}"));
                }
                reports.say(format_args!("acked {producer} {number}"));
            }
        }
    }

    /// Has the kernel write single pages back, as it may at any time.
    fn write_back(&self, header_one_in: u64, stop: &AtomicBool) {
        const PAGE: u64 = 4096;
        const HEADER_PAGES: u64 = 19;
        let mut file = File::open(&self.path).unwrap();
        let mut pages = file.metadata().unwrap().len() / PAGE;
        let mut random = self.random(200);
        while !stop.load(Ordering::Relaxed) {
            if self.grows && random.below(8) == 0 {
                // Another one of its files; one that is being made, or is gone meanwhile, is as good as any.
                let beside = std::fs::read_dir(self.path.parent().unwrap()).unwrap();
                let paths: Vec<_> = beside.filter_map(|e| Some(e.ok()?.path())).collect();
                let path = &paths[random.below(paths.len() as u64) as usize];
                if let Ok(other) = File::open(path) {
                    file = other;
                    pages = (file.metadata().unwrap().len() / PAGE).max(HEADER_PAGES + 1);
                }
            }
            let page = if random.below(header_one_in) == 0 {
                random.below(HEADER_PAGES)
            } else {
                HEADER_PAGES + random.below(pages - HEADER_PAGES)
            };
            // What is dirty is not dropped but written.
            let (at, len) = (page * PAGE, NonZeroU64::new(PAGE));
            rustix::fs::fadvise(&file, at, len, rustix::fs::Advice::DontNeed).unwrap();
            thread::sleep(Duration::from_micros(random.below(200)));
        }
    }
}
