//! Producers and one consumer that start on a barrier; the time ends when the consumer is done.

#![allow(clippy::disallowed_types)]

use crate::messages::{Message, Tally, stamp, sum_sent};
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// Runs one thread for each sender, and `receive` here. What was received is checked before the time counts.
pub fn pump<S: FnOnce() + Send>(
    senders: Vec<S>,
    each: u64,
    sum: u64,
    receive: impl FnOnce(&mut Tally),
) -> Duration {
    let producers = senders.len() as u64;
    let barrier = Barrier::new(senders.len() + 1);
    let mut tally = Tally::new(producers);
    let elapsed = std::thread::scope(|scope| {
        for send in senders {
            scope.spawn(|| {
                barrier.wait();
                send();
            });
        }
        barrier.wait();
        let began = Instant::now();
        receive(&mut tally);
        began.elapsed()
    });
    tally.verify(each, sum);
    elapsed
}

/// Sends each producer's messages with a sender of its own; the senders are gone when they are through.
pub fn pump_messages<M: Message, T: Send>(
    senders: Vec<T>,
    n: u64,
    send: impl Fn(&mut T, M) + Sync,
    receive: impl FnOnce(&mut Tally),
) -> Duration {
    let producers = senders.len() as u64;
    let each = n / producers;
    let send = &send;
    let threads = (0..).zip(senders).map(|(producer, mut sender)| {
        move || {
            let first = M::first();
            for i in 0..each {
                send(&mut sender, first.next(stamp(producer, i)));
            }
        }
    });
    let sum = sum_sent::<M>(producers, each);
    pump(threads.collect(), each, sum, receive)
}

/// So many senders, clones of one.
pub fn clones<T: Clone>(sender: T, count: u64) -> Vec<T> {
    let mut all = vec![sender.clone(); count as usize - 1];
    all.push(sender);
    all
}
