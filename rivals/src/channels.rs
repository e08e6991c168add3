//! The channels as contenders: walchan, and those in memory, each as its documentation shows it.
//!
//! std, crossbeam, flume: `send` in a loop, and iteration over the receiver. kanal: the same calls; its
//! receiver is an iterator itself. All with their default features.

use crate::measure::Contender;
use crate::messages::Message;
use crate::pump::{clones, pump_messages};
use walchan::{Codec, Durability, Options};

/// The bound of all bounded channels in memory.
pub const BOUND: usize = 1024;

macro_rules! in_memory {
    ($function:ident, $name:literal, $open:expr, $receiver:ident, $messages:expr) => {
        pub fn $function<M: Message>(producers: u64) -> Contender<'static> {
            Contender::new($name, producers, move |n, _| {
                #[allow(unused_mut)] // that of kanal is an iterator itself
                let (tx, mut $receiver) = $open;
                let senders = clones(tx, producers);
                let send = |sent: bool| assert!(sent, "the receiver is gone");
                pump_messages(
                    senders,
                    n,
                    |tx, m: M| send(tx.send(m).is_ok()),
                    |tally| {
                        for message in $messages {
                            tally.add_message::<M>(&message);
                        }
                    },
                )
            })
        }
    };
}

in_memory!(
    std_bounded,
    "std sync_channel(1024)",
    std::sync::mpsc::sync_channel::<M>(BOUND),
    rx,
    rx.iter()
);
in_memory!(
    std_unbounded,
    "std channel",
    std::sync::mpsc::channel::<M>(),
    rx,
    rx.iter()
);
in_memory!(
    crossbeam_bounded,
    "crossbeam bounded(1024)",
    crossbeam_channel::bounded::<M>(BOUND),
    rx,
    rx.iter()
);
in_memory!(
    flume_bounded,
    "flume bounded(1024)",
    flume::bounded::<M>(BOUND),
    rx,
    rx.iter()
);
in_memory!(
    kanal_bounded,
    "kanal bounded(1024)",
    kanal::bounded::<M>(BOUND),
    rx,
    &mut rx
);

/// The ring of all workloads without syncs, unless they say otherwise.
pub const RING_BYTES: u64 = 4 << 20;

/// So many messages that the ring is full before: what a sender then waits for is room.
pub const BOUND_BEYOND_RING: usize = 1 << 24;

pub fn flush_only(ring_bytes: u64) -> Options {
    Options {
        durability: Durability::FlushOnly,
        ring_bytes: Some(ring_bytes),
        ..Options::default()
    }
}

pub fn walchan<M: Message, C: Codec<M>>(
    name: &'static str,
    producers: u64,
    bound: usize,
    options: Options,
) -> Contender<'static> {
    Contender::new(name, producers, move |n, dir| {
        let path = dir.join("queue");
        let opened = options.clone().codec_sync_channel::<M, C>(path, bound);
        let (tx, rx) = opened.expect("a new channel");
        assert_eq!(tx.durability(), options.durability, "built without fsync");
        let send = |tx: &mut walchan::SyncSender<M, C>, message| {
            if let Err(error) = tx.send(message) {
                panic!("not sent: {:?}", error.kind);
            }
        };
        let elapsed = pump_messages(clones(tx, producers), n, send, |tally| {
            for message in &rx {
                tally.add_message::<M>(&message);
                // Dropped here: acknowledged.
            }
        });
        rx.close().expect("closed in order");
        elapsed
    })
}
