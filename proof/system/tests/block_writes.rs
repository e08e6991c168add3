//! What a durable send writes, counted by the block layer: the pages of the message, one page of checkpoint,
//! one flush.
#![allow(clippy::unwrap_used)]

use rustix::mm::{MapFlags, ProtFlags, mmap};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use system_tests::volume::{Host, Kind, Volume, drop_cache};
use system_tests::{can_run, times};
use walchan::{Durability, Options, Receiver, SyncSender};

const RING: u64 = 1 << 20;
/// Bytes of a payload: 8 of them are its length.
const PAYLOAD: usize = 128;

/// What a block device has done.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    writes: u64,
    bytes: u64,
    flushes: u64,
}

/// The counts of the device under a file system (Linux, Documentation/block/stat.rst).
struct Counts(PathBuf);

impl Counts {
    fn of(volume: &Volume) -> Counts {
        let at = volume.path().to_str().unwrap();
        let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap();
        let line = mounts
            .lines()
            .find(|line| line.split(' ').nth(1) == Some(at));
        let device = line.unwrap().split(' ').next().unwrap();
        let name = device.strip_prefix("/dev/").unwrap();
        Counts(Path::new("/sys/block").join(name).join("stat"))
    }

    fn now(&self) -> Done {
        let line = fs::read_to_string(&self.0).unwrap();
        let counts: Vec<u64> = line
            .split_whitespace()
            .map(|n| n.parse().unwrap())
            .collect();
        Done {
            writes: counts[4],
            bytes: counts[6] * 512,
            flushes: counts[15],
        }
    }
}

/// What so many rounds of some work did, for each of them.
#[derive(Clone, Copy, Debug)]
struct Each {
    writes: f64,
    bytes: f64,
    flushes: f64,
}

fn each(counts: &Counts, rounds: u64, mut work: impl FnMut(u64)) -> Each {
    // The first few bring up what happens once.
    (0..8).for_each(&mut work);
    let before = counts.now();
    (8..8 + rounds).for_each(&mut work);
    let after = counts.now();
    let ratio = |a: u64, b: u64| (a - b) as f64 / rounds as f64;
    Each {
        writes: ratio(after.writes, before.writes),
        bytes: ratio(after.bytes, before.bytes),
        flushes: ratio(after.flushes, before.flushes),
    }
}

type Ends = (SyncSender<String>, Receiver<String>);

fn open(path: &Path) -> Ends {
    let options = Options {
        durability: Durability::SyncPerSend,
        ring_bytes: Some(RING),
        ..Options::default()
    };
    walchan::sync_channel_with_options(path, 100_000, options).unwrap()
}

fn close((tx, rx): Ends) {
    drop(tx);
    rx.close().unwrap();
}

/// Sends; nothing is received, so nothing but sends asks for a sync.
fn sends(counts: &Counts, ends: &Ends, rounds: u64) -> Each {
    let text = "x".repeat(PAYLOAD - 8);
    each(counts, rounds, |_| ends.0.send(text.clone()).unwrap())
}

/// A file of the size of the ring, filled by writes of so many bytes, and mapped; then one byte after the
/// other is stored and synced. What the write that filled the cache left there decides how much a store makes
/// dirty.
#[allow(unsafe_code)]
fn plain(counts: &Counts, path: &Path, step: usize, rounds: u64) -> Each {
    let file = File::create_new(path).unwrap();
    for at in (0..RING).step_by(step) {
        file.write_all_at(&vec![0; step], at).unwrap();
    }
    file.sync_all().unwrap();
    let file = File::options().read(true).write(true).open(path).unwrap();
    // SAFETY: a new map, of a file that nobody else knows; it stays until the process ends.
    let map = unsafe {
        mmap(
            std::ptr::null_mut(),
            RING as usize,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED,
            &file,
            0,
        )
    };
    let map = map.unwrap().cast::<u8>();
    each(counts, rounds, |round| {
        // SAFETY: within the map.
        unsafe { map.add((round * 160 % RING) as usize).write_volatile(1) };
        file.sync_data().unwrap();
    })
}

#[test]
fn a_durable_send_writes_its_page_and_one_flush() {
    const NAME: &str = "a_durable_send_writes_its_page_and_one_flush";
    if !can_run(NAME, &Kind::PROGRAMS) {
        return;
    }
    let rounds = times("WALCHAN_BLOCK_SENDS", 300);
    let all = std::env::var_os("WALCHAN_BLOCK_SENDS").is_some();
    let host = Host::new();
    println!("| file system | file | bytes a send | writes a send | flushes a send |");
    println!("|---|---|---|---|---|");
    for kind in [Kind::Ext4, Kind::Xfs, Kind::Btrfs] {
        if kind == Kind::Btrfs && !all {
            continue;
        }
        // So large that each has blocks of 4 KiB.
        let volume = host.volume(kind, &format!("{kind:?}"), 1 << 30);
        let counts = Counts::of(&volume);
        let path = volume.path().join("queue");
        let say = |what: &str, each: Each| {
            println!(
                "| {kind:?} | {what} | {:.0} | {:.3} | {:.3} |",
                each.bytes, each.writes, each.flushes
            );
        };
        let check = |what: &str, each: Each| {
            say(what, each);
            if kind == Kind::Btrfs {
                return;
            }
            // A frame of 144 bytes begins in the last 143 of a page 36 times in 1024: then it has two. The
            // rest is what the journal writes of the file's time. One in nine stores a checkpoint.
            let pages = 4096.0 * (1.0 + 0.04 + 1.0 / 9.0);
            assert!(each.bytes <= pages + 400.0, "{kind:?}, {what}: {each:?}");
            assert!(each.flushes <= 1.05, "{kind:?}, {what}: {each:?}");
            // No less either, or this counts something else.
            assert!(each.bytes >= 4096.0 && each.flushes >= 0.99, "{each:?}");
        };
        let ends = open(&path);
        check("new", sends(&counts, &ends, rounds));
        drain(&ends);
        close(ends);
        let ends = open(&path);
        check("opened again", sends(&counts, &ends, rounds));
        drain(&ends);
        close(ends);
        drop_cache(&path);
        let ends = open(&path);
        check("opened with a cold cache", sends(&counts, &ends, rounds));
        close(ends);
        for (what, step) in [("4 KiB", 4096), ("64 KiB", 64 << 10), ("1 MiB", 1 << 20)] {
            let each = plain(&counts, &volume.path().join(what), step, rounds / 8);
            say(&format!("a mapped file filled by writes of {what}"), each);
        }
    }
}

fn drain(ends: &Ends) {
    while ends.1.try_recv().is_ok() {}
}
