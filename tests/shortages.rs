//! A resource runs short for a while: what was accepted stays, and behind it there is full service again.
//!
//! Each test runs in a process of its own, whose limits it lowers.

#![allow(clippy::unwrap_used)]

mod support;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;
use support::{child, every_durability, role, watchdog, with};
use walchan::{Options, Receiver, Sender};

fn message(n: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![n as u8; len];
    bytes[..8].copy_from_slice(&n.to_le_bytes());
    bytes
}

fn open(path: &Path, durability: walchan::Durability) -> (Sender<Vec<u8>>, Receiver<Vec<u8>>) {
    walchan::channel_with_options(path, with(durability)).unwrap()
}

/// Takes all descriptors that the process may have.
fn all_descriptors() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

/// Runs the test of this name again, in a process of its own.
fn alone(name: &str) -> bool {
    if role().is_some() {
        return true;
    }
    let output = child(name, "alone").output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    false
}

fn limit(resource: Resource, current: u64) {
    let Rlimit { maximum, .. } = getrlimit(resource);
    let current = Some(current);
    setrlimit(resource, Rlimit { current, maximum }).unwrap();
}

/// Sends and receives as a channel does that lacks nothing, and closes.
fn full_service(tx: Sender<Vec<u8>>, rx: Receiver<Vec<u8>>, path: &Path) {
    for round in 0..3 {
        for n in 0..400 {
            tx.send(message(round * 400 + n, 1000)).unwrap();
        }
        tx.send(message(7, 100_000)).unwrap();
        for n in 0..400 {
            assert!(*rx.recv().unwrap() == message(round * 400 + n, 1000));
        }
        assert!(*rx.recv().unwrap() == message(7, 100_000));
    }
    drop(tx);
    rx.close().unwrap();
    let names = fs::read_dir(path.parent().unwrap()).unwrap();
    assert_eq!(names.count(), 1);
}

#[test]
fn sending_goes_on_when_descriptors_are_to_be_had_again() {
    if !alone("sending_goes_on_when_descriptors_are_to_be_had_again") {
        return;
    }
    let _dog = watchdog();
    limit(Resource::Nofile, 64);
    for durability in every_durability() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        let (tx, rx) = open(&path, durability);
        let mut next = 0;
        let mut accepted = Vec::new();
        for _ in 0..20 {
            let taken = all_descriptors();
            for _ in 0..100 {
                match tx.send(message(next, 1000)) {
                    Ok(()) => accepted.push(next),
                    // Handed back.
                    Err(error) => assert!(error.into_inner() == message(next, 1000)),
                }
                next += 1;
            }
            drop(taken);
            // Some stay for the next round.
            for n in accepted.drain(..accepted.len() / 2) {
                assert!(*rx.recv().unwrap() == message(n, 1000), "{n}");
            }
        }
        for n in accepted {
            assert!(*rx.recv().unwrap() == message(n, 1000), "{n}");
        }
        full_service(tx, rx, &path);
    }
}

#[test]
fn receiving_goes_on_when_descriptors_are_to_be_had_again() {
    if !alone("receiving_goes_on_when_descriptors_are_to_be_had_again") {
        return;
    }
    let _dog = watchdog();
    limit(Resource::Nofile, 64);
    for durability in every_durability() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        let (tx, rx) = open(&path, durability);
        for n in 0..3000 {
            tx.send(message(n, 1000)).unwrap();
        }
        let (mut next, mut refused) = (0, 0);
        while next < 3000 {
            let taken = all_descriptors();
            // What can be received without a file that is not open yet.
            while next < 3000 {
                match rx.recv() {
                    Ok(delivery) => assert!(*delivery == message(next, 1000), "{next}"),
                    Err(walchan::RecvError::Io(_)) => break,
                    Err(error) => panic!("{error}"),
                }
                next += 1;
            }
            refused += u32::from(next < 3000);
            drop(taken);
            if next < 3000 {
                assert!(*rx.recv().unwrap() == message(next, 1000), "{next}");
                next += 1;
            }
        }
        println!("{refused} times");
        full_service(tx, rx, &path);
    }
}

/// Address space: files are mapped.
#[test]
fn service_is_full_again_when_address_space_is_to_be_had_again() {
    if !alone("service_is_full_again_when_address_space_is_to_be_had_again") {
        return;
    }
    // More than a ring in a round; each file is larger than what the process may still map.
    const LEN: usize = 100_000;
    const COUNT: u64 = 90;
    const SLACK: u64 = 2 << 20;
    let _dog = watchdog();
    let in_use = || {
        let status = fs::read_to_string("/proc/self/statm").unwrap();
        status.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096
    };
    for durability in every_durability() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        let options = Options {
            ring_bytes: Some(8 << 20),
            ..with(durability)
        };
        let (tx, rx) = walchan::channel_with_options(&path, options).unwrap();
        let mut next = 0;
        let mut accepted = VecDeque::new();
        for round in 0..3 {
            // The channel grows while there is space, or tries to while there is none.
            let unlimited = getrlimit(Resource::As);
            let messages: Vec<_> = (next..next + COUNT).map(|n| (n, message(n, LEN))).collect();
            next += COUNT;
            if round % 3 == 2 {
                limit(Resource::As, in_use() + SLACK);
            }
            for (n, message) in messages {
                if tx.send(message).is_ok() {
                    accepted.push_back(n);
                }
            }
            // It returns to its ring while there is none.
            limit(Resource::As, in_use() + SLACK);
            while let Ok(delivery) = rx.try_recv() {
                let n = accepted.pop_front().unwrap();
                assert_eq!(delivery[..8], n.to_le_bytes());
            }
            std::thread::sleep(Duration::from_millis(20));
            setrlimit(Resource::As, unlimited).unwrap();
            for n in accepted.drain(..) {
                assert!(*rx.recv().unwrap() == message(n, LEN), "{n}");
            }
        }
        full_service(tx, rx, &path);
    }
}
