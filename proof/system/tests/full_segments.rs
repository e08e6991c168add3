//! A channel without a bound on a disk that it fills, again and again: the message that has no room is handed
//! back, nothing is lost, and sending works again when there is room, whoever made it. Nothing ever ends the
//! process.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use system_tests::child::{end_in, role};
use system_tests::full::{
    Message, NAMES, PLACES, fill, in_child, make_room, message, names, place, programs,
    put_ballast, with,
};
use system_tests::volume::Host;
use system_tests::{can_run, times};
use walchan::{Receiver, SendErrorKind, Sender};

const PATIENCE: Duration = Duration::from_secs(3600);
/// What room that is made may take to be seen: the housekeeper works in its own time, file systems in theirs.
const SOON: Duration = Duration::from_secs(60);

/// A channel that is used by one thread; `[first, next)` is in it.
struct Channel {
    path: PathBuf,
    tx: Sender<Message>,
    rx: Receiver<Message>,
    first: u64,
    next: u64,
}

impl Channel {
    fn open(path: PathBuf, name: &str, first: u64, next: u64) -> Channel {
        let (tx, rx) = walchan::channel_with_options(&path, with(name)).unwrap();
        assert_eq!(rx.recovery().kept(), next - first);
        assert!(rx.recovery().damaged().is_empty(), "{}", rx.recovery());
        Channel {
            path,
            tx,
            rx,
            first,
            next,
        }
    }

    /// Sends the next one; `false` if the disk is full.
    fn send(&mut self) -> bool {
        match self.tx.send(message(self.next)) {
            Ok(()) => {
                self.next += 1;
                true
            }
            Err(error) => {
                let SendErrorKind::Io(reason) = &error.kind else {
                    panic!("{error}");
                };
                assert_eq!(reason.kind(), ErrorKind::StorageFull, "{error}");
                assert_eq!(error.into_inner(), message(self.next), "handed back");
                false
            }
        }
    }

    /// Sends until the disk is full. Written back, a page asks the file system again for leave to change.
    fn send_until_full(&mut self, write_back: bool) -> u64 {
        let before = self.next;
        while self.send() {
            if write_back && self.next.is_multiple_of(20) {
                self.write_back();
            }
        }
        self.next - before
    }

    fn write_back(&self) {
        // A file that is gone meanwhile needs no sync.
        for name in names(self.path.parent().unwrap()) {
            let path = self.path.with_file_name(&name);
            if name.as_encoded_bytes().starts_with(b"q")
                && let Ok(file) = File::open(path)
            {
                file.sync_all().unwrap();
                rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
            }
        }
    }

    fn receive(&mut self, count: u64) {
        for _ in 0..count {
            assert_eq!(*self.rx.recv().unwrap(), message(self.first));
            self.first += 1;
        }
    }

    fn receive_all(&mut self) {
        self.receive(self.next - self.first);
        assert!(self.rx.try_recv().is_err());
    }

    /// Sends one when there is room for it, which is soon.
    fn send_soon(&mut self) {
        let start = Instant::now();
        while !self.send() {
            assert!(start.elapsed() < SOON, "it stays full");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn files(&self) -> usize {
        let names = names(self.path.parent().unwrap());
        let ours = names
            .iter()
            .filter(|name| name.as_encoded_bytes().starts_with(b"q"));
        ours.count()
    }

    fn wait_for_ring_alone(&self) {
        let start = Instant::now();
        while self.files() > 1 {
            assert!(start.elapsed() < SOON, "files stay");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn again(self, name: &str) -> Channel {
        let Channel {
            path,
            tx,
            rx,
            first,
            next,
        } = self;
        drop(tx);
        rx.close().unwrap();
        Channel::open(path, name, first, next)
    }
}

fn live(dir: &Path, name: &str, place: &str) {
    let mut channel = Channel::open(dir.join("q"), name, 0, 0);
    let rounds = times("WALCHAN_FULL_ROUNDS", 1);
    // With one round, another one for each durability.
    let from = if rounds == 1 { name.len() as u64 } else { 0 };
    for round in from..from + rounds {
        let start = Instant::now();
        put_ballast(dir);
        fill(dir, false);
        let on_full = channel.send_until_full(true);
        // Never more than one file with room.
        assert!(!channel.send(), "the disk is full");
        make_room(dir);
        // Without another open.
        channel.send_soon();
        let mut more = 0;
        if round % 3 == 1 {
            // It fills up while a file is half full.
            while channel.files() < 4 {
                assert!(channel.send());
            }
            fill(dir, false);
            channel.write_back();
            more = channel.send_until_full(true);
        }
        let sent = channel.send_until_full(round % 2 == 1);
        let files = channel.files();
        if round % 3 == 2 {
            // In the middle of it, on a full disk, what is there is read from the disk.
            channel.receive((channel.next - channel.first) / 2);
            channel.write_back();
            channel = channel.again(name);
            channel.receive((channel.next - channel.first) / 2);
        }
        channel.receive_all();
        // The room that was drained.
        channel.send_soon();
        channel.receive_all();
        channel.wait_for_ring_alone();
        println!(
            "{place}, {name}, round {round}: {on_full}, {more} and {sent} sent, {files} files, {:?}",
            start.elapsed()
        );
        if round % 3 != 1 {
            assert!(files > 3, "{files} files");
        }
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path != channel.path && path.is_file() {
                fs::remove_file(path).unwrap();
            }
        }
        rustix::fs::syncfs(File::open(dir).unwrap()).unwrap();
    }
    let channel = channel.again(name);
    assert!(channel.rx.recovery().is_clean());
    assert!(channel.first > 90, "few were sent");
}

#[test]
fn a_disk_that_a_channel_fills_again_and_again_hands_back_and_loses_nothing() {
    const NAME: &str = "a_disk_that_a_channel_fills_again_and_again_hands_back_and_loses_nothing";
    if let Some(role) = role() {
        end_in(PATIENCE);
        let parts: Vec<_> = role.split('\n').collect();
        return live(Path::new(parts[0]), parts[1], parts[2]);
    }
    if !can_run(NAME, &programs()) {
        return;
    }
    let host = Host::new();
    for place_name in PLACES {
        for name in NAMES {
            let place = place(&host, place_name);
            let dir = place.dir.to_str().unwrap();
            let (_, said) = in_child(NAME, &format!("{dir}\n{name}\n{place_name}"));
            for line in said.lines().filter(|line| line.contains("round")) {
                println!("{line}");
            }
        }
    }
}

/// A tmpfs takes a page for each hole that a mapping reads. A segment that is drained and removed while the
/// receiver still stands before its padding must be no hole there.
#[test]
fn a_receiver_in_a_removed_segment_on_a_full_tmpfs_goes_on() {
    const NAME: &str = "a_receiver_in_a_removed_segment_on_a_full_tmpfs_goes_on";
    if let Some(role) = role() {
        end_in(PATIENCE);
        let dir = Path::new(&role);
        let options = walchan::Options {
            ring_bytes: Some(64 << 10),
            ..with("flush")
        };
        let (tx, rx) = options.bytes_channel(dir.join("q")).unwrap();
        // Each gets a segment of its own, and the first one ends in padding.
        tx.send(&[1; 200_000]).unwrap();
        tx.send(&[2; 450_000]).unwrap();
        drop(rx.recv().unwrap());
        let first = dir.join("q.1");
        while first.exists() {
            std::thread::yield_now();
        }
        fill(dir, false);
        assert_eq!(rx.recv().unwrap()[..], [2; 450_000]);
        return;
    }
    if !can_run(NAME, &["mount"]) {
        return;
    }
    let host = Host::new();
    let place = host.tmpfs("small", 4 << 20);
    in_child(NAME, place.path().to_str().unwrap());
}
