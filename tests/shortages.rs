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
use support::{Random, child, every_durability, quick_dir, role, watchdog, with};
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

/// Bytes of address space.
fn in_use() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096
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

/// Has this thread run on one processor; an idle one only when nobody else does.
#[allow(unsafe_code)]
fn schedule(is_idle: bool) {
    let mut one = rustix::thread::CpuSet::new();
    one.set(0);
    rustix::thread::sched_setaffinity(None, &one).unwrap();
    if is_idle {
        let param = libc::sched_param { sched_priority: 0 };
        // SAFETY: the parameter lives during the call; 0 is this thread.
        let set = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &param) };
        assert_eq!(set, 0);
    }
}

fn descriptors() -> u64 {
    fs::read_dir("/proc/self/fd").unwrap().count() as u64
}

/// What one sender does: its messages are numbered, and those that are accepted are noted.
fn send_some(
    tx: &Sender<Vec<u8>>,
    sender: u64,
    from: u64,
    count: u64,
    rng: &mut Random,
) -> Vec<u64> {
    let mut accepted = Vec::new();
    for n in from..from + count {
        let len = match rng.below(30) {
            0 => 100_000,
            1 => 20_000,
            _ => 500,
        };
        let mut bytes = message(n, 24 + len);
        bytes[8..16].copy_from_slice(&sender.to_le_bytes());
        match tx.send(bytes.clone()) {
            Ok(()) => accepted.push(n),
            Err(error) => assert!(error.into_inner() == bytes),
        }
    }
    accepted
}

/// One incarnation after the other, on one processor, with senders that run when nobody else does, while
/// descriptors and address space run short and are there again. Whatever was accepted is received, in the
/// order of its sender; a segment is made for each message that needs one, and not more; behind it there is
/// full service.
#[test]
fn on_one_processor_with_idle_senders_and_random_shortages_nothing_is_lost() {
    let name = "on_one_processor_with_idle_senders_and_random_shortages_nothing_is_lost";
    let dog = watchdog();
    let incarnations = std::env::var("WALCHAN_SHORTAGES").map_or(3, |n| n.parse().unwrap());
    let seed: u64 = std::env::var("WALCHAN_SHORTAGES_SEED").map_or(1, |n| n.parse().unwrap());
    if role().is_none() {
        // Each in a process of its own: limits and processors are the process's.
        drop(dog);
        for incarnation in 0..incarnations {
            let seed = seed * 1_000_000 + incarnation;
            let output = child(name, &seed.to_string()).output().unwrap();
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "seed {seed}: {text}");
        }
        println!("{incarnations} incarnations under shortages, seed {seed}");
        return;
    }
    let mut rng = Random::new(role().unwrap().parse().unwrap());
    schedule(false);
    let durability = every_durability()[rng.below(3) as usize];
    let dir = quick_dir();
    let path = dir.path().join("q");
    let (tx, rx) = open(&path, durability);
    let mut expected: Vec<VecDeque<u64>> = vec![VecDeque::new(); 3];
    let mut sent = [0; 3];
    for _ in 0..8 {
        let (descriptors, memory) = (getrlimit(Resource::Nofile), getrlimit(Resource::As));
        let shortage = rng.below(4);
        let senders: Vec<_> = (0..3)
            .map(|sender| {
                let (tx, count) = (tx.clone(), 20 + rng.below(100));
                let (from, mut rng) = (sent[sender], Random::new(rng.next()));
                sent[sender] += count;
                std::thread::spawn(move || {
                    schedule(true);
                    let accepted = send_some(&tx, sender as u64, from, count, &mut rng);
                    (sender, accepted)
                })
            })
            .collect();
        match shortage {
            0 => limit(Resource::Nofile, self::descriptors() + rng.below(4)),
            // Not so little that an allocation ends the process.
            1 => limit(Resource::As, in_use() + (3 << 20) + (rng.below(8) << 20)),
            _ => {}
        }
        // Received meanwhile, by whoever has the processor; a shortage is an error that passes.
        let mut received = Vec::new();
        while !senders.iter().all(|sender| sender.is_finished()) {
            // It sleeps: else a sender never has the processor.
            if let Ok(delivery) = rx.recv_timeout(Duration::from_micros(200)) {
                received.push(delivery[..16].to_vec());
            }
        }
        setrlimit(Resource::Nofile, descriptors).unwrap();
        setrlimit(Resource::As, memory).unwrap();
        for sender in senders {
            let (sender, accepted) = sender.join().unwrap();
            expected[sender].extend(accepted);
        }
        if rng.below(2) == 0 {
            while let Ok(delivery) = rx.try_recv() {
                received.push(delivery[..16].to_vec());
            }
        }
        for head in received {
            let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap());
            assert_eq!(expected[number(8) as usize].pop_front(), Some(number(0)));
        }
    }
    // Numbers of segments are given in turn: one for each large message, a few for the small ones.
    let numbers = fs::read_dir(dir.path()).unwrap().filter_map(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        name.strip_prefix("q.").and_then(|n| n.parse::<u64>().ok())
    });
    assert!(numbers.max().unwrap_or(0) <= sent.iter().sum::<u64>());
    while let Ok(delivery) = rx.try_recv() {
        let number = |at: usize| u64::from_le_bytes(delivery[at..at + 8].try_into().unwrap());
        assert_eq!(expected[number(8) as usize].pop_front(), Some(number(0)));
    }
    assert!(expected.iter().all(|numbers| numbers.is_empty()));
    full_service(tx, rx, &path);
}
