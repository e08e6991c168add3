//! The figures of `docs/figures.md`: `cargo bench --bench figures`.
//!
//! Two questions, a table each.
//!
//! 1. What does a message cost that need not wait for the disk, next to a channel in memory? One producer
//!    sends `[u64; 8]` as fast as it can; one consumer receives, adds up, acknowledges. It stands for a
//!    pipeline of two threads whose work on a message is nothing, so that the channel is all there is; small
//!    values of a fixed size, encoding and decoding included. It does not stand for messages that allocate,
//!    for several producers, for a consumer that is slower than the producer, nor for a channel that rests
//!    and wakes up.
//! 2. What does a message cost that is on stable storage when `send` returns, next to the least that one can
//!    do: a loop of `pwrite` and `fdatasync` over a file that is already full of zeros? 128 bytes a message,
//!    one and sixteen producers. It stands for commands that must not get lost. It does not stand for a disk
//!    that is busy with something else.
//!
//! Every run begins at a barrier, with the channel open, and ends when the consumer has acknowledged the last
//! message. It must have received what was sent: the sums are compared, or the run does not count. Runs
//! are interleaved; ratios are taken within a round and then their median.
//!
//! `WALCHAN_BENCH_DIR` chooses the directory, whose file system is named in the output; one in
//! memory is refused, for it proves nothing. Without `--bench` (so in `cargo test --benches`) each
//! contender runs once, briefly, and nothing is to be concluded from the figures.

#![allow(clippy::disallowed_types)] // the rivals and the barriers are those of std
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Barrier, mpsc};
use std::time::{Duration, Instant};
use walchan::{Durability, Options, Receiver, ReceiverOptions};

/// What is moved in the first table. All bits of the values are in use.
type Small = [u64; 8];
/// What is sent in the second: 128 bytes.
type Command = [u64; 16];

const ROUNDS: usize = 7;
const BOUND: usize = 1024;
/// Unbounded, a producer may be ahead by everything it sends: so much must fit.
const UNBOUNDED_RING: u64 = 256 << 20;
const UNBOUNDED_MESSAGES_MAX: u64 = UNBOUNDED_RING / 80 - 64;
/// How long a run should take, and how long it must.
const RUN: Duration = Duration::from_millis(500);
const RUN_MIN: Duration = Duration::from_millis(300);

fn small(i: u64) -> Small {
    let value = u64::MAX - i.wrapping_mul(0x9e37_79b9_7f4a_7c15) / 3;
    [
        value,
        !i,
        value ^ i,
        u64::MAX - i,
        value,
        !i,
        value ^ i,
        u64::MAX / 2 + i,
    ]
}

fn sum<const N: usize>(values: &[u64; N]) -> u64 {
    values.iter().fold(0, |sum, value| sum.wrapping_add(*value))
}

/// One run: so many messages of the kind, in a fresh directory. Gives the time.
type Run = Box<dyn Fn(u64, &Path) -> Duration>;

struct Contender {
    name: &'static str,
    messages_max: u64,
    run: Run,
}

impl Contender {
    /// About so many messages: as many as it may send, and a multiple of all numbers of producers.
    fn messages(&self, about: f64) -> u64 {
        (about as u64).clamp(16, self.messages_max) / 16 * 16
    }
}

/// Runs producer and consumer from a barrier to the end of both, and checks the sum.
fn two_threads(n: u64, send: impl FnOnce() + Send, receive: impl FnOnce() -> u64) -> Duration {
    let expected = (0..n).fold(0u64, |all, i| all.wrapping_add(sum(&small(i))));
    let barrier = Barrier::new(2);
    let (received, elapsed) = std::thread::scope(|scope| {
        scope.spawn(|| {
            barrier.wait();
            send();
        });
        barrier.wait();
        let began = Instant::now();
        let received = receive();
        (received, began.elapsed())
    });
    assert_eq!(received, expected, "what was received is not what was sent");
    elapsed
}

macro_rules! in_memory {
    ($name:literal, $channel:expr, $receiver:ident) => {
        Contender {
            name: $name,
            messages_max: u64::MAX,
            run: Box::new(|n, _| {
                let (tx, $receiver) = $channel;
                let send = move || (0..n).for_each(|i| tx.send(small(i)).unwrap());
                two_threads(n, send, || {
                    $receiver
                        .iter()
                        .fold(0u64, |all, value| all.wrapping_add(sum(&value)))
                })
            }),
        }
    };
}

fn flush_only(ring_bytes: Option<u64>) -> Options {
    Options {
        durability: Durability::FlushOnly,
        ring_bytes,
        ..Options::default()
    }
}

fn receive_all<T>(rx: &Receiver<T>, add: impl Fn(&T) -> u64) -> u64
where
    T: serde::Serialize + serde::de::DeserializeOwned,
{
    let mut all = 0u64;
    for message in rx {
        all = all.wrapping_add(add(&message));
        // Dropped here: acknowledged.
    }
    all
}

fn bounded(name: &'static str, options: ReceiverOptions) -> Contender {
    let run = move |n, dir: &Path| {
        let path = dir.join("queue");
        let (tx, rx) = walchan::sync_channel_with_options(path, BOUND, flush_only(None)).unwrap();
        let rx = rx.with_options(options);
        let send = move || (0..n).for_each(|i| tx.send(small(i)).unwrap());
        two_threads(n, send, || receive_all(&rx, sum))
    };
    Contender {
        name,
        messages_max: u64::MAX,
        run: Box::new(run),
    }
}

fn unbounded(name: &'static str, options: ReceiverOptions) -> Contender {
    let run = move |n, dir: &Path| {
        let path = dir.join("queue");
        let options_sender = flush_only(Some(UNBOUNDED_RING));
        let (tx, rx) = walchan::channel_with_options(path, options_sender).unwrap();
        let rx = rx.with_options(options);
        let send = move || (0..n).for_each(|i| tx.send(small(i)).unwrap());
        two_threads(n, send, || receive_all(&rx, sum))
    };
    Contender {
        name,
        messages_max: UNBOUNDED_MESSAGES_MAX,
        run: Box::new(run),
    }
}

// === Synced ===

/// 4 KiB `pwrite` and `fdatasync`, one page after the other, round and round.
fn plain_loop(n: u64, dir: &Path) -> Duration {
    const PAGES: u64 = 256;
    let path = dir.join("plain");
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .unwrap();
    let mut page = [0u8; 4096];
    for i in 0..PAGES {
        file.write_all_at(&page, i * 4096).unwrap();
    }
    file.sync_all().unwrap();
    let began = Instant::now();
    for i in 0..n {
        page[..8].copy_from_slice(&(i + 1).to_le_bytes());
        file.write_all_at(&page, i % PAGES * 4096).unwrap();
        file.sync_data().unwrap();
    }
    let elapsed = began.elapsed();
    for i in n.saturating_sub(PAGES)..n {
        file.read_exact_at(&mut page, i % PAGES * 4096).unwrap();
        assert_eq!(page[..8], (i + 1).to_le_bytes());
    }
    elapsed
}

fn command(producer: u64, i: u64) -> Command {
    std::array::from_fn(|k| !(producer << 40 | i << 4 | k as u64))
}

fn synced(name: &'static str, producers: u64) -> Contender {
    let run = move |n: u64, dir: &Path| {
        let each = n / producers;
        let mut expected = 0u64;
        for producer in 0..producers {
            for i in 0..each {
                expected = expected.wrapping_add(sum(&command(producer, i)));
            }
        }
        let (tx, rx) = walchan::sync_channel::<Command>(dir.join("queue"), BOUND).unwrap();
        assert_eq!(
            tx.durability(),
            Durability::SyncPerSend,
            "the feature `fsync` is off"
        );
        let barrier = Barrier::new(producers as usize + 1);
        let (received, elapsed) = std::thread::scope(|scope| {
            for producer in 0..producers {
                let (tx, barrier) = (tx.clone(), &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    (0..each).for_each(|i| tx.send(command(producer, i)).unwrap());
                });
            }
            drop(tx);
            barrier.wait();
            let began = Instant::now();
            let received = receive_all(&rx, sum);
            (received, began.elapsed())
        });
        assert_eq!(received, expected, "what was received is not what was sent");
        elapsed
    };
    Contender {
        name,
        messages_max: u64::MAX,
        run: Box::new(run),
    }
}

// === Measuring ===

/// Messages per second of each contender, by round.
fn measure(dir: &Path, contenders: &[Contender], unit: u64, brief: bool) -> Vec<Vec<f64>> {
    let once = |contender: &Contender, n: u64| {
        let dir = tempfile::tempdir_in(dir).unwrap();
        (contender.run)(n, dir.path())
    };
    // The first runs are slow in their own ways, so the fastest counts.
    let calibrate = |contender: &Contender| {
        let (mut n, mut fastest) = (unit, 0.0f64);
        for _ in 0..if brief { 0 } else { 4 } {
            fastest = fastest.max(n as f64 / once(contender, n).as_secs_f64());
            n = contender.messages(fastest * RUN.as_secs_f64());
        }
        n
    };
    let mut counts: Vec<u64> = contenders.iter().map(calibrate).collect();
    let mut rates = vec![Vec::new(); contenders.len()];
    for round in 0..if brief { 1 } else { ROUNDS } {
        for turn in 0..contenders.len() {
            // Nobody runs always behind the same one.
            let who = if round % 2 == 0 {
                turn
            } else {
                contenders.len() - 1 - turn
            };
            let mut elapsed = once(&contenders[who], counts[who]);
            // Too short to count: again, with more messages.
            while elapsed < RUN_MIN && !brief {
                let more = contenders[who].messages(counts[who] as f64 * 1.5);
                if more == counts[who] {
                    println!("({}: {elapsed:?} only)", contenders[who].name);
                    break;
                }
                counts[who] = more;
                elapsed = once(&contenders[who], more);
            }
            rates[who].push(counts[who] as f64 / elapsed.as_secs_f64());
        }
    }
    rates
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn print(title: &str, contenders: &[Contender], rates: &[Vec<f64>], rivals: &[usize]) {
    println!("\n{title}\n");
    print!("| | thousand/s | lowest to highest | ns each |");
    rivals
        .iter()
        .for_each(|&rival| print!(" of {} |", contenders[rival].name));
    println!("\n|---|---|---|---|{}", "---|".repeat(rivals.len()));
    for (contender, own) in contenders.iter().zip(rates) {
        let middle = median(own.iter().copied());
        let low = own.iter().copied().fold(f64::INFINITY, f64::min);
        let high = own.iter().copied().fold(0.0, f64::max);
        let (k, ns) = (middle / 1e3, 1e9 / middle);
        print!(
            "| {} | {k:.1} | {:.1} to {:.1} | {ns:.0} |",
            contender.name,
            low / 1e3,
            high / 1e3
        );
        for &rival in rivals {
            print!(
                " {:.2} |",
                median(own.iter().zip(&rates[rival]).map(|(a, b)| a / b))
            );
        }
        println!();
    }
}

/// The kind of file system that a directory is on, and its device.
fn file_system(dir: &Path) -> (String, String) {
    let dir = fs::canonicalize(dir).unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut best = (0, "unknown", "unknown");
    for mount in mounts.lines() {
        // 36 35 98:0 /root /mount/point options... - type source ...
        let Some((place, what)) = mount.split_once(" - ") else {
            continue;
        };
        let point = place.split(' ').nth(4).unwrap_or("/");
        let mut what = what.split(' ');
        if dir.starts_with(point) && point.len() >= best.0 {
            best = (
                point.len(),
                what.next().unwrap_or("?"),
                what.next().unwrap_or("?"),
            );
        }
    }
    (best.1.to_owned(), best.2.to_owned())
}

fn main() {
    let brief = !std::env::args().any(|argument| argument == "--bench");
    let dir = std::env::var_os("WALCHAN_BENCH_DIR").map(PathBuf::from);
    let dir = dir.unwrap_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")));
    fs::create_dir_all(&dir).unwrap();
    let (kind, device) = file_system(&dir);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("{kind} on {device}, Linux {}, {cores} cores", kernel.trim());
    println!("{} rounds", if brief { 1 } else { ROUNDS });
    if ["tmpfs", "ramfs"].contains(&kind.as_str()) && !brief {
        eprintln!("this is memory: choose a directory on a disk with WALCHAN_BENCH_DIR");
        std::process::exit(1);
    }

    let every_64 = ReceiverOptions {
        commit_every: 64,
        commit_max_delay: Duration::ZERO,
    };
    let contenders = [
        bounded("walchan `sync_channel(1024)`", ReceiverOptions::default()),
        bounded("the same, `commit_every: 64`", every_64),
        unbounded("walchan `channel`", ReceiverOptions::default()),
        unbounded("the same, `commit_every: 64`", every_64),
        in_memory!(
            "std `sync_channel(1024)`",
            mpsc::sync_channel::<Small>(BOUND),
            rx
        ),
        in_memory!("std `channel`", mpsc::channel::<Small>(), rx),
        in_memory!(
            "crossbeam `bounded(1024)`",
            crossbeam_channel::bounded::<Small>(BOUND),
            rx
        ),
    ];
    let rates = measure(&dir, &contenders, 100_000, brief);
    let title = "`FlushOnly`, `[u64; 8]`, one producer, one consumer that acknowledges";
    print(title, &contenders, &rates, &[4, 5, 6]);

    if !cfg!(feature = "fsync") {
        return println!("\nwithout the feature `fsync` nothing is synced");
    }
    let contenders = [
        Contender {
            name: "the plain loop",
            messages_max: u64::MAX,
            run: Box::new(plain_loop),
        },
        synced("walchan, 1 producer", 1),
        synced("walchan, 16 producers", 16),
    ];
    let rates = measure(&dir, &contenders, 320, brief);
    print("`SyncPerSend`, 128 bytes", &contenders, &rates, &[0]);
}
