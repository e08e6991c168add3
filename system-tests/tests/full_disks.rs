//! Disks that are full to the last block: an open bounded channel does not notice, a new one is refused whole.
#![allow(clippy::unwrap_used)]

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;
use system_tests::child::{child, end_in, role};
use system_tests::random::Random;
use system_tests::volume::{Host, Kind, Mounted, Volume};
use system_tests::{can_run, run, times};
use walchan::{
    Delivery, Durability, Error, Options, Receiver, RecvError, SyncSender, TrySendError,
};

const RING: u64 = 64 << 10;
/// Bytes before it.
const HEADER: u64 = 19 * 4096;
const BOUND: usize = 1000;
const PATIENCE: Duration = Duration::from_secs(1800);
const NAMES: [&str; 3] = ["flush", "every", "send"];

fn with(name: &str) -> Options {
    let durability = match name {
        "flush" => Durability::FlushOnly,
        "send" => Durability::SyncPerSend,
        _ => Durability::SyncEvery {
            max_ops: 20,
            max_delay: Duration::from_millis(1),
        },
    };
    Options {
        durability,
        ring_bytes: Some(RING),
        ..Options::default()
    }
}

type Message = (u64, String);

/// The message of a number: half of them small, half of them up to a third of the ring.
fn message(number: u64) -> Message {
    let mut random = Random::new(number);
    let longest = if random.below(2) == 0 { 300 } else { 20_000 };
    let letter = char::from(b'a' + random.below(26) as u8);
    let len = random.below(longest) as usize;
    (number, letter.to_string().repeat(len))
}

fn programs() -> Vec<&'static str> {
    [&Kind::PROGRAMS[..], &["chattr", "cp"]].concat()
}

/// A directory on a file system of its own.
struct Place {
    dir: PathBuf,
    /// Holds it.
    _mounted: (Option<Volume>, Option<Mounted>),
}

const PLACES: [&str; 6] = [
    "ext4",
    "ext4 without journal",
    "xfs",
    "btrfs",
    "btrfs, compressed",
    "tmpfs",
];

fn place(host: &Host, name: &str) -> Place {
    println!("on {name}");
    if name == "tmpfs" {
        let mounted = host.tmpfs("tmpfs", 16 << 20);
        return Place {
            dir: mounted.path().to_owned(),
            _mounted: (None, Some(mounted)),
        };
    }
    let (kind, options) = match name {
        "ext4" => (Kind::Ext4, ""),
        "ext4 without journal" => (Kind::Ext4NoJournal, ""),
        "xfs" => (Kind::Xfs, ""),
        "btrfs" => (Kind::Btrfs, ""),
        _ => (Kind::Btrfs, ",compress-force=zstd"),
    };
    let volume = host.volume_with(
        kind,
        &name.replace([' ', ','], "-"),
        Kind::SMALLEST,
        options,
    );
    let mut dir = volume.path().to_owned();
    if name == "btrfs, compressed" {
        // New files inherit the flag, which excludes the one against copy-on-write.
        dir.push("compressed");
        fs::create_dir(&dir).unwrap();
        run(Command::new("chattr").arg("+c").arg(&dir));
    }
    Place {
        dir,
        _mounted: (Some(volume), None),
    }
}

/// Whether the test also takes what a file system has left for names.
fn fills_metadata(place: &str) -> bool {
    place == "btrfs"
}

/// What is there to make room.
const BALLAST: &str = "ballast";
/// The start of names that are there to fill a file system.
const LONG_NAME: &str = "a long name ";

/// Not zeros: they would be compressed to nothing.
fn noise(len: u64) -> Vec<u8> {
    let mut random = Random::new(1);
    let words = (0..len / 8).map(|_| random.number().to_le_bytes());
    words.flatten().collect()
}

fn put_ballast(dir: &Path) {
    fs::write(dir.join(BALLAST), noise(4 << 20)).unwrap();
}

fn make_room(dir: &Path) {
    for name in names(dir) {
        let name = name.to_str().unwrap();
        if name == BALLAST || name.starts_with(LONG_NAME) {
            fs::remove_file(dir.join(name)).unwrap();
        }
    }
    // Some space comes back with the end of the transaction.
    rustix::fs::syncfs(File::open(dir).unwrap()).unwrap();
}

/// Fills a file system: no byte more can be written; where `metadata` is said, no name either.
fn fill(dir: &Path, metadata: bool) {
    let bytes = noise(1 << 20);
    let mut files = 0;
    // Most of it without writing so much.
    let file = File::create(dir.join("most")).unwrap();
    let (mut at, mut step) = (0, 64 << 20);
    while step >= 1 << 20 {
        match fallocate(&file, FallocateFlags::empty(), at, step) {
            Ok(()) => at += step,
            Err(error) => {
                assert_eq!(error, Errno::NOSPC);
                step /= 2;
            }
        }
    }
    loop {
        let mut written = 0;
        for step in [1 << 20, 4096, 1] {
            written += fill_one(&dir.join(format!("fill{files}")), &bytes[..step]);
            files += 1;
        }
        if metadata {
            while File::create(dir.join(format!("{LONG_NAME}{files:0180}"))).is_ok() {
                files += 1;
            }
        }
        // Space of a running transaction may come back with its end.
        rustix::fs::syncfs(File::open(dir).unwrap()).unwrap();
        if written == 0 {
            return;
        }
    }
}

fn fill_one(path: &Path, bytes: &[u8]) -> u64 {
    let mut written = 0;
    let mut file = match File::create(path) {
        Ok(file) => file,
        Err(e) => {
            assert_eq!(e.kind(), ErrorKind::StorageFull);
            return 0;
        }
    };
    loop {
        match file.write(bytes) {
            Ok(len) => written += len as u64,
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::StorageFull);
                // The last of them may have had a promise of space only.
                file.sync_all().ok();
                return written;
            }
        }
    }
}

fn assert_full(dir: &Path) {
    let written = fill_one(&dir.join("full"), &[1; 4096]);
    assert_eq!(written, 0, "the disk is not full any more");
    fs::remove_file(dir.join("full")).ok();
}

/// A channel that is used by one thread, and the numbers of what is in it.
struct Channel {
    path: PathBuf,
    tx: SyncSender<Message>,
    rx: Receiver<Message>,
    next: u64,
    random: Random,
}

impl Channel {
    /// Opens it; `[first, next)` is what must be in it.
    fn open(dir: &Path, name: &str, first: u64, next: u64) -> Channel {
        let path = dir.join(name);
        let (tx, rx) = walchan::sync_channel_with_options(&path, BOUND, with(name)).unwrap();
        let channel = Channel {
            path,
            tx,
            rx,
            next,
            random: Random::new(next),
        };
        assert_eq!(channel.rx.recovery().kept(), next - first);
        for number in first..next {
            assert_eq!(*channel.rx.recv().unwrap(), message(number));
        }
        channel
    }

    /// Goes round the ring so often, and acknowledges in any order.
    fn go_round(&mut self, laps: u64) {
        let mut held: Vec<Delivery<Message>> = Vec::new();
        let mut until_sync = 0;
        let mut bytes = 0;
        while bytes < laps * RING {
            let message_sent = message(self.next);
            // Header and length of a frame, at least.
            bytes += 32 + message_sent.1.len() as u64;
            until_sync += message_sent.1.len() as u64;
            if let Err(error) = self.tx.try_send(message_sent) {
                let TrySendError::Full(message_sent) = error else {
                    panic!("{error}");
                };
                // The oldest is among those held: nothing behind it gives room.
                held.clear();
                self.tx.send(message_sent).unwrap();
            }
            let delivery = self.rx.recv().unwrap();
            assert_eq!(*delivery, message(self.next));
            held.push(delivery);
            self.next += 1;
            while held.len() > 3 {
                drop(held.swap_remove(self.random.below(held.len() as u64) as usize));
            }
            // Written back, a page asks the file system again for leave to change.
            if until_sync > 20 * RING {
                until_sync = 0;
                File::open(&self.path).unwrap().sync_all().unwrap();
            }
        }
    }

    fn send_some(&mut self) {
        for _ in 0..3 {
            self.tx.send(message(self.next)).unwrap();
            self.next += 1;
        }
    }

    fn close(self) {
        drop(self.tx);
        self.rx.close().unwrap();
    }
}

/// So many laps for a durability. On a full btrfs each page that a lap dirties costs milliseconds: the kernel looks for
/// space, and writes all pages back, before it sees that it needs none.
fn laps(name: &str, slow: bool) -> u64 {
    let laps = match name {
        "flush" => times("WALCHAN_LAPS", 200),
        _ => times("WALCHAN_SYNCED_LAPS", 8),
    };
    if slow { (laps / 50).max(2) } else { laps }
}

/// Opens, fills the disk, goes round, closes, opens, goes round, leaves something, dies.
fn live_on_a_full_disk(dir: &Path, place: &str) {
    let (metadata, slow) = (fills_metadata(place), place.starts_with("btrfs"));
    let mut channels = NAMES.map(|name| Channel::open(dir, name, 0, 0));
    fill(dir, metadata);
    for (channel, name) in channels.iter_mut().zip(NAMES) {
        channel.go_round(laps(name, slow));
        channel.send_some();
    }
    assert_full(dir);
    let ends = channels.map(|channel| {
        let next = channel.next;
        channel.close();
        next
    });
    for (name, next) in NAMES.into_iter().zip(ends) {
        let mut channel = Channel::open(dir, name, next - 3, next);
        assert!(channel.rx.recovery().is_clean());
        channel.go_round(laps(name, slow) / 10 + 1);
        channel.send_some();
        println!("\n!{name} {}", channel.next);
        std::mem::forget(channel);
    }
    assert_full(dir);
    rustix::process::kill_process(
        Pid::from_raw(std::process::id() as i32).unwrap(),
        Signal::KILL,
    )
    .unwrap();
}

/// Opens what a killed process left on a full disk, takes everything, goes round.
fn live_after_the_kill(dir: &Path, ends: &str) {
    for (name, next) in NAMES.into_iter().zip(ends.split(' ')) {
        let next: u64 = next.parse().unwrap();
        let mut channel = Channel::open(dir, name, next - 3, next);
        assert!(!channel.rx.recovery().is_clean());
        assert!(channel.rx.recovery().damaged().is_empty());
        channel.go_round(laps(name, true) / 10 + 1);
        channel.close();
    }
    assert_full(dir);
}

/// What a process of its own says and how it ends; the first line of its role is what it is to do.
fn in_child(test: &str, role: &str) -> (ExitStatus, String) {
    let output = child(test, role).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() && output.status.signal() != Some(9) {
        panic!("{role:?} ended with {}\n{said}\n{errors}", output.status);
    }
    (output.status, said)
}

#[test]
fn an_open_channel_does_not_notice_that_the_disk_is_full() {
    const NAME: &str = "an_open_channel_does_not_notice_that_the_disk_is_full";
    if let Some(role) = role() {
        end_in(PATIENCE);
        return match role.split('\n').collect::<Vec<_>>()[..] {
            ["live", dir, place] => live_on_a_full_disk(Path::new(dir), place),
            ["again", dir, ends] => live_after_the_kill(Path::new(dir), ends),
            _ => panic!("{role}"),
        };
    }
    if !can_run(NAME, &programs()) {
        return;
    }
    let host = Host::new();
    for place_name in PLACES {
        let place = place(&host, place_name);
        let dir = place.dir.to_str().unwrap();
        let (status, said) = in_child(NAME, &format!("live\n{dir}\n{place_name}"));
        assert_eq!(status.signal(), Some(9), "{place_name}");
        let ends = NAMES.map(|name| {
            let start = format!("!{name} ");
            let end = said.lines().find_map(|line| line.strip_prefix(&start));
            end.unwrap().to_owned()
        });
        in_child(NAME, &format!("again\n{dir}\n{}", ends.join(" ")));
        println!("{place_name}: {} messages", ends.join(", "));
    }
}

fn assert_storage_full(error: &Error) {
    let Error::Io(error) = error else {
        panic!("{error}");
    };
    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
}

fn names(dir: &Path) -> Vec<OsString> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    names
}

/// A channel with a ring of so many bytes.
fn open_ring(path: &Path, ring: u64, name: &str) -> Result<Channel, Error> {
    let options = Options {
        ring_bytes: Some(ring),
        ..with(name)
    };
    let (tx, rx) = walchan::sync_channel_with_options(path, BOUND, options)?;
    Ok(Channel {
        path: path.to_owned(),
        tx,
        rx,
        next: 0,
        random: Random::new(0),
    })
}

#[test]
fn creation_on_a_full_disk_is_storage_full_and_leaves_nothing() {
    const NAME: &str = "creation_on_a_full_disk_is_storage_full_and_leaves_nothing";
    if role().is_some() || !can_run(NAME, &programs()) {
        return;
    }
    let host = Host::new();
    for place_name in PLACES {
        let place = place(&host, place_name);
        let dir = &place.dir;
        put_ballast(dir);
        fill(dir, fills_metadata(place_name));
        let before = names(dir);
        let path = dir.join("queue");
        for name in NAMES {
            assert_storage_full(&open_ring(&path, RING, name).err().unwrap());
            assert_eq!(names(dir), before, "{place_name}, {name}");
        }
        make_room(dir);
        let before = names(dir);
        for name in NAMES {
            // The room ends within the file.
            assert_storage_full(&open_ring(&path, 8 << 20, name).err().unwrap());
            assert_eq!(names(dir), before, "{place_name}, {name}");
        }
        let mut channel = open_ring(&path, RING, "send").unwrap();
        channel.go_round(2);
        channel.close();
    }
}

#[test]
fn a_damaged_place_stays_until_there_is_room_to_set_it_aside() {
    const NAME: &str = "a_damaged_place_stays_until_there_is_room_to_set_it_aside";
    if role().is_some() || !can_run(NAME, &programs()) {
        return;
    }
    let host = Host::new();
    for place_name in PLACES {
        let place = place(&host, place_name);
        let dir = &place.dir;
        let path = dir.join("send");
        let (tx, rx) =
            walchan::sync_channel_with_options::<Message>(&path, BOUND, with("send")).unwrap();
        // Too large for what a file system keeps beside a name.
        tx.send((0, "x".repeat(20_000))).unwrap();
        tx.send(message(1)).unwrap();
        drop(tx);
        rx.close().unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        // Behind the header and the first of the text.
        file.write_all_at(b"rot", HEADER + 1000).unwrap();
        drop(file);
        put_ballast(dir);
        fill(dir, false);
        let before = names(dir);
        for _ in 0..2 {
            let (_tx, rx) =
                walchan::sync_channel_with_options::<Message>(&path, BOUND, with("send")).unwrap();
            let Err(RecvError::Corrupt(damage)) = rx.recv() else {
                panic!("{place_name}: no damage");
            };
            assert_storage_full(&damage.set_aside().unwrap_err());
            assert_eq!(names(dir), before, "{place_name}");
            Delivery::leave(rx.recv().unwrap());
        }
        make_room(dir);
        let (_tx, rx) =
            walchan::sync_channel_with_options::<Message>(&path, BOUND, with("send")).unwrap();
        let Err(RecvError::Corrupt(damage)) = rx.recv() else {
            panic!("{place_name}: no damage");
        };
        let bytes = damage.bytes().to_vec();
        assert_eq!(fs::read(damage.set_aside().unwrap()).unwrap(), bytes);
        assert_eq!(*rx.recv().unwrap(), message(1));
    }
}

/// How a copy of a file can lack blocks of its own.
const SPARSE: &[&str] = &["--sparse=always", "--reflink=never"];
const SHARED: &[&str] = &["--reflink=always"];
const COPIES: [(&str, &[&str]); 6] = [
    ("ext4", SPARSE),
    ("xfs", SPARSE),
    ("xfs", SHARED),
    ("btrfs", SPARSE),
    ("btrfs", SHARED),
    ("tmpfs", SPARSE),
];

#[test]
fn a_copy_without_blocks_of_its_own_gets_them_when_it_is_opened() {
    const NAME: &str = "a_copy_without_blocks_of_its_own_gets_them_when_it_is_opened";
    if let Some(role) = role() {
        end_in(PATIENCE);
        let (dir, path) = role.split_once('\n').unwrap();
        let mut channel = open_ring(Path::new(path), RING, "flush").unwrap();
        assert_eq!(*channel.rx.recv().unwrap(), message(0));
        channel.next = 1;
        fill(Path::new(dir), false);
        channel.go_round(4);
        return channel.close();
    }
    if !can_run(NAME, &programs()) {
        return;
    }
    let host = Host::new();
    for (place_name, how) in COPIES {
        let place = place(&host, place_name);
        let dir = &place.dir;
        let (original, copy) = (dir.join("original"), dir.join("copy"));
        let mut channel = open_ring(&original, RING, "flush").unwrap();
        channel.tx.send(message(0)).unwrap();
        channel.next = 1;
        channel.close();
        if place_name == "btrfs" {
            // Else every overwrite allocates: nothing can be done about that in a file that is not empty.
            File::create(&copy).unwrap();
            run(Command::new("chattr").arg("+C").arg(&copy));
        }
        run(Command::new("cp").args(how).arg(&original).arg(&copy));
        put_ballast(dir);
        fill(dir, false);
        let before = fs::read(&copy).unwrap();
        assert_storage_full(&open_ring(&copy, RING, "flush").err().unwrap());
        assert!(fs::read(&copy).unwrap() == before, "{place_name}, {how:?}");
        make_room(dir);
        let (dir, copy) = (dir.to_str().unwrap(), copy.to_str().unwrap());
        in_child(NAME, &format!("{dir}\n{copy}"));
    }
}
