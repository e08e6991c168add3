//! What a backlog costs: `cargo bench --bench backlog`.
//!
//! An unbounded channel under `FlushOnly`, one sender, 1 KiB messages (`Vec<u8>`). The receiver does nothing
//! while the sender sends a backlog, and then drains it: once 10 MiB, which the ring holds, and once 10 GiB,
//! which lie in further files; the rates of both are compared, with the peak of anonymous memory and of what
//! is mapped. It stands for a consumer that is down for an hour. It does not stand for a disk that is slower
//! than the sender for longer than the page cache can hide: with less memory free than the backlog has bytes,
//! the system makes the sender wait for the disk.
//!
//! Then the latency of a send while the channel grows from 1 MiB to the whole backlog, next to one whose ring
//! is as large as that never to grow: percentiles over all sends. And the time of an open: after a clean
//! stop, and after a SIGKILL.
//!
//! `WALCHAN_BENCH_DIR` chooses the directory, `WALCHAN_BACKLOG_MIB` the backlog. Without `--bench` it runs
//! once with a small one.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use walchan::{Durability, Options, Receiver, Sender};

const MESSAGE_LEN: usize = 1000;
const FRAME_LEN: u64 = 1024;
const RING: u64 = 16 << 20;

type Channel = (Sender<Vec<u8>>, Receiver<Vec<u8>>);

fn open(path: &Path, ring: u64) -> Channel {
    let options = Options {
        durability: Durability::FlushOnly,
        ring_bytes: Some(ring),
        ..Options::default()
    };
    walchan::channel_with_options(path, options).unwrap()
}

fn message(n: u64) -> Vec<u8> {
    let mut message = vec![n as u8; MESSAGE_LEN];
    message[..8].copy_from_slice(&n.to_le_bytes());
    message
}

/// A figure of this process, in MiB.
fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib >> 10
}

fn rate(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / time.as_secs_f64() / 1e6
}

struct Rates {
    send: f64,
    drain: f64,
}

/// Sends so many messages, then receives them; the backlog may be built and drained several times, and is as
/// large each time.
fn send_and_drain(path: &Path, messages: u64, times: u64) -> Rates {
    let (tx, rx) = open(path, RING);
    let (mut sending, mut draining) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..times {
        let start = Instant::now();
        for n in 0..messages {
            tx.send(message(n)).unwrap();
        }
        sending += start.elapsed();
        let start = Instant::now();
        for n in 0..messages {
            let delivery = rx.recv().unwrap();
            assert_eq!(delivery[..8], n.to_le_bytes());
            assert_eq!(delivery[MESSAGE_LEN - 1], n as u8);
        }
        draining += start.elapsed();
    }
    let bytes = messages * FRAME_LEN * times;
    Rates {
        send: rate(bytes, sending),
        drain: rate(bytes, draining),
    }
}

/// Latencies of sends in ns, sorted.
fn latencies(path: &Path, ring: u64, messages: u64) -> Vec<u64> {
    let (tx, _rx) = open(path, ring);
    let mut times = Vec::with_capacity(messages as usize);
    for n in 0..messages {
        let message = message(n);
        let start = Instant::now();
        tx.send(message).unwrap();
        times.push(start.elapsed().as_nanos() as u64);
    }
    times.sort_unstable();
    times
}

fn percentile(sorted: &[u64], of_10000: u64) -> u64 {
    let at = sorted.len() as u64 * of_10000 / 10_000;
    sorted[(at as usize).min(sorted.len() - 1)]
}

/// A child that leaves a backlog, and is killed.
fn leave_backlog(path: &Path, messages: u64) {
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .env("WALCHAN_BACKLOG_CHILD", path)
        .env("WALCHAN_BACKLOG_MESSAGES", messages.to_string())
        .status()
        .unwrap();
    assert!(!status.success(), "it was killed");
}

fn child(path: &Path) {
    let messages: u64 = std::env::var("WALCHAN_BACKLOG_MESSAGES")
        .unwrap()
        .parse()
        .unwrap();
    let (tx, _rx) = open(path, RING);
    for n in 0..messages {
        tx.send(message(n)).unwrap();
    }
    let me = rustix::process::getpid();
    rustix::process::kill_process(me, rustix::process::Signal::KILL).unwrap();
}

fn main() {
    if let Some(path) = std::env::var_os("WALCHAN_BACKLOG_CHILD") {
        return child(Path::new(&path));
    }
    let is_bench = std::env::args().any(|arg| arg == "--bench");
    let mib = match std::env::var("WALCHAN_BACKLOG_MIB") {
        Ok(mib) => mib.parse().unwrap(),
        Err(_) if is_bench => 10 << 10,
        Err(_) => 100,
    };
    let base = std::env::var_os("WALCHAN_BENCH_DIR")
        .map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let dir = tempfile::tempdir_in(base).unwrap();
    let path = |name: &str| dir.path().join(name);
    let messages = mib * 1024;

    let small = send_and_drain(&path("small"), 10 * 1024, (mib / 100).clamp(1, 100));
    let before = memory("RssAnon");
    let large = send_and_drain(&path("large"), messages, 1);
    println!(
        "backlog of 10 MiB: send {:.0} MB/s, drain {:.0} MB/s",
        small.send, small.drain
    );
    println!(
        "backlog of {mib} MiB: send {:.0} MB/s, drain {:.0} MB/s",
        large.send, large.drain
    );
    println!(
        "ratio: send {:.2}, drain {:.2}",
        large.send / small.send,
        large.drain / small.drain
    );
    println!(
        "anonymous memory: {before} MiB before, {} MiB after; peak resident {} MiB",
        memory("RssAnon"),
        memory("VmHWM")
    );

    let grows = latencies(&path("grows"), 1 << 20, messages);
    let ring = (messages * FRAME_LEN + 1).next_power_of_two();
    let fixed = latencies(&path("fixed"), ring, messages);
    println!("send, ns        p50   p99 p99.9 p99.99    max");
    for (name, times) in [("grows", &grows), ("does not", &fixed)] {
        let [p50, p99, p999, p9999] = [5000, 9900, 9990, 9999].map(|p| percentile(times, p));
        println!(
            "{name:10} {p50:8} {p99:5} {p999:5} {p9999:6} {:8}",
            times[times.len() - 1]
        );
    }
    println!(
        "p99.9 of one that grows: {:.2} of one that does not",
        percentile(&grows, 9990) as f64 / percentile(&fixed, 9990) as f64
    );
    drop((grows, fixed));

    for name in ["clean", "killed"] {
        leave_backlog(&path("left"), messages);
        if name == "clean" {
            drop(open(&path("left"), RING));
        }
        let start = Instant::now();
        let (_tx, rx) = open(&path("left"), RING);
        let time = start.elapsed();
        assert_eq!(rx.recovery().is_clean(), name == "clean");
        println!(
            "open of {} messages, {name}: {:.1} ms",
            rx.recovery().kept(),
            time.as_secs_f64() * 1e3
        );
        drop(rx);
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
    }
}
