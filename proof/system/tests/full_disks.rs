//! Disks that are full to the last block: an open bounded channel does not notice, a new one is refused
//! whole.
#![allow(clippy::unwrap_used)]

use rustix::process::{Pid, Signal};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use system_tests::child::{end_in, role};
use system_tests::full::{
    HEADER, Message, NAMES, PLACES, RING, assert_full, fill, fills_metadata, in_child, make_room,
    message, names, place, programs, put_ballast, with,
};
use system_tests::random::Random;
use system_tests::volume::Host;
use system_tests::{can_run, run, times};
use walchan::{Delivery, Error, Options, Receiver, RecvError, SyncSender, TrySendError};

const BOUND: usize = 1000;
const PATIENCE: Duration = Duration::from_secs(1800);
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

/// So many laps for a durability. On a full btrfs each page that a lap dirties costs milliseconds: the kernel
/// looks for space, and writes all pages back, before it sees that it needs none.
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
