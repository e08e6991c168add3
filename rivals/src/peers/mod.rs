//! Queues and logs that keep messages in files, behind one face.
//!
//! Messages have 128 bytes. A producer sends one at a time, and goes on when it is accepted; the consumer
//! receives and acknowledges, in batches where the library offers or allows that. Producers that may not
//! share a sender take turns with a lock. Where a library cannot wait for a message, producers ring a bell
//! for each one they sent.
//!
//! Each run is a process of its own: some of these libraries keep threads and settings in statics.

mod bell;
mod okaywal;
mod persistent_queue;
mod queue_file;
mod sqlite;
mod walchan_now;
mod walchan_released;
mod walrus;
mod yaque;

use crate::child;
use crate::measure::Contender;
use crate::messages::{Command, Message, stamp, sum_sent};
use crate::pump::pump;
use std::path::Path;
use std::time::Duration;

/// Accepts one message.
type Produce = Box<dyn FnMut(&Command) + Send>;

/// Waits for at least one message, looks at all that it got, and acknowledges them.
type Consume = Box<dyn FnMut(&mut dyn FnMut(&Command))>;

struct Ends {
    producers: Vec<Produce>,
    consumer: Consume,
}

/// A library, and what it can do.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    pub name: &'static str,
    /// It can wait for the disk before a send returns.
    pub durable: bool,
    /// Producers share syncs.
    pub groups: bool,
    /// It can do without syncs.
    pub unsynced: bool,
    /// Longer runs without syncs do not end.
    unsynced_most: u64,
    open: fn(&Path, bool, usize) -> Ends,
}

pub const WALCHAN: Peer = Peer {
    name: "walchan",
    durable: true,
    groups: true,
    unsynced: true,
    unsynced_most: u64::MAX,
    open: walchan_now::open,
};

pub const ALL: &[Peer] = &[
    Peer {
        name: "walchan 0.1.0",
        durable: true,
        groups: false,
        unsynced: true,
        unsynced_most: u64::MAX,
        open: walchan_released::open,
    },
    Peer {
        name: "yaque",
        durable: false,
        groups: false,
        unsynced: true,
        unsynced_most: u64::MAX,
        open: yaque::open,
    },
    Peer {
        name: "queue-file",
        durable: true,
        groups: false,
        unsynced: true,
        unsynced_most: u64::MAX,
        open: queue_file::open,
    },
    Peer {
        name: "okaywal",
        durable: true,
        groups: true,
        unsynced: false,
        unsynced_most: u64::MAX,
        open: okaywal::open,
    },
    Peer {
        name: "walrus",
        durable: true,
        groups: false,
        unsynced: true,
        unsynced_most: 40_000,
        open: walrus::open,
    },
    Peer {
        name: "persistent-queue (redb)",
        durable: true,
        groups: true,
        unsynced: true,
        unsynced_most: u64::MAX,
        open: persistent_queue::open_redb,
    },
    Peer {
        name: "persistent-queue (sled)",
        durable: true,
        groups: true,
        unsynced: true,
        unsynced_most: u64::MAX,
        open: persistent_queue::open_sled,
    },
    Peer {
        name: "SQLite",
        durable: true,
        groups: false,
        unsynced: true,
        unsynced_most: u64::MAX,
        open: sqlite::open,
    },
];

impl Peer {
    /// As a contender, each of whose runs is a child.
    pub fn contender(self, durable: bool, producers: u64) -> Contender<'static> {
        let (mode, most) = match durable {
            true => ("durable", u64::MAX),
            false => ("unsynced", self.unsynced_most),
        };
        let contender = Contender::new(self.name, producers, move |n, dir| {
            let path = dir.to_str().expect("a path that is text");
            let numbers = [producers, n].map(|number| number.to_string());
            let words = ["peer", self.name, mode, &numbers[0], &numbers[1], path];
            // Of some a run in many never ends: one lost message is enough. It counts as a slow one, which no
            // median shows.
            child::ask(&words, dir).map_or_else(
                || {
                    eprintln!("{words:?} did not end, and counts as {:?}", child::PATIENCE);
                    child::PATIENCE
                },
                |[nanos]| Duration::from_nanos(nanos),
            )
        });
        contender.at_most(most)
    }
}

/// What a child does: its last line is the time in nanoseconds.
pub fn child(words: &[String]) -> ! {
    let [name, mode, producers, n, dir] = words else {
        panic!("a peer, its mode, producers, messages and directory");
    };
    let all = || std::iter::once(&WALCHAN).chain(ALL);
    let peer = all().find(|peer| peer.name == *name).expect("a peer");
    let [producers, n] = [producers, n].map(|word| word.parse::<u64>().expect("a number"));
    let each = n / producers;
    let ends = (peer.open)(Path::new(dir), mode == "durable", producers as usize);
    let mut consumer = ends.consumer;
    let threads = (0..).zip(ends.producers).map(|(producer, mut produce)| {
        move || {
            let first = Command::first();
            for i in 0..each {
                produce(&first.next(stamp(producer, i)));
            }
        }
    });
    let sum = sum_sent::<Command>(producers, each);
    let elapsed = pump(threads.collect(), each, sum, |tally| {
        while tally.count() < each * producers {
            consumer(&mut |message| tally.add_message(message));
        }
    });
    // What it takes to close is not asked.
    println!("{}", elapsed.as_nanos());
    std::process::exit(0);
}
