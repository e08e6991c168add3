//! What a watched process does with a channel, and what it says about it: `> step` before, `= result` after,
//! and [`UNDURABLE`].

use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use system_tests::trace;
use walchan::{
    DamageCause, Delivery, Durability, Error, Options, Receiver, RecvError, SendError,
    SendErrorKind, Sender, SyncSender, TryRecvError,
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    pub number: u64,
    filler: String,
}

/// Messages from this number on, up to 90, are so large that three of them fill the ring.
pub const LARGE: u64 = 40;
/// These, too, up to 200; but for those that no ring holds.
const SERVED: u64 = 100;
const HUGE: [u64; 2] = [SERVED + 10, SERVED + 30];

/// Whether the channel of this script has no bound.
pub fn grows(script: &str) -> bool {
    ["segments", "service"].contains(&script)
}

impl Message {
    pub fn new(number: u64) -> Self {
        let times = match number {
            _ if HUGE.contains(&number) => 8_000,
            LARGE..90 | SERVED..200 => 1_500,
            _ => 1 + number as usize % 4 * 10,
        };
        let filler = format!("message {number};").repeat(times);
        Message { number, filler }
    }

    /// Bytes by which its place in a file is found.
    pub fn mark(number: u64) -> Vec<u8> {
        format!("message {number};").into_bytes()
    }
}

/// Bytes that are no [`Message`]: a text that is longer than what there is.
pub type NoMessage = (u64, u64);
pub const NO_MESSAGE: NoMessage = (99, u64::MAX);

pub const BOUND: usize = 20;

pub const DURABILITIES: [&str; 3] = ["send", "every", "flush"];

pub fn options(durability: &str) -> Options {
    let durability = match durability {
        "send" => Durability::SyncPerSend,
        "every" => Durability::SyncEvery {
            max_ops: 2,
            max_delay: Duration::from_millis(1),
        },
        _ => Durability::FlushOnly,
    };
    Options {
        durability,
        ring_bytes: Some(64 << 10),
        ..Options::default()
    }
}

/// Opens as all do here.
pub fn open<T>(path: &Path, durability: &str) -> Result<(SyncSender<T>, Receiver<T>), Error>
where
    T: Serialize + serde::de::DeserializeOwned,
{
    walchan::sync_channel_with_options(path, BOUND, options(durability))
}

/// A directory in memory where there is one: what a test fails or kills does not depend on the disk.
pub fn quick_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

const CHILD: &str = "WALCHAN_TEST_CHILD";

/// This test binary again, to run `test` alone, which finds the rest in [`run_if_child`].
pub fn child(test: &str, script: &str, durability: &str, path: &Path) -> Command {
    let role = format!("{script}\n{durability}\n{}", path.display());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        // It may be an ignored one.
        .arg("--include-ignored")
        .env(CHILD, role)
        // One heap for all threads, so that their calls do not depend on who came first.
        .env("GLIBC_TUNABLES", "glibc.malloc.arena_max=1");
    command
}

/// Does not return in a process that [`child`] made.
pub fn run_if_child() {
    let Ok(role) = std::env::var(CHILD) else {
        return;
    };
    let parts: Vec<_> = role.split('\n').collect();
    let (durability, path) = (parts[1], Path::new(parts[2]));
    match parts[0] {
        "cycle" => {
            trace::begin();
            cycle(path, durability);
        }
        "laps" => {
            trace::begin();
            laps(path, durability);
        }
        "segments" => {
            trace::begin();
            segments(path, durability);
        }
        "service" => {
            trace::begin();
            service(path, durability);
        }
        "recover" => {
            trace::begin();
            recover(path, durability);
        }
        "leave" => leave_behind(path, durability),
        other => panic!("{other}"),
    }
    say(format_args!("end"));
    std::process::exit(0);
}

fn say(line: std::fmt::Arguments<'_>) {
    std::io::stdout()
        .write_all(format!("{line}\n").as_bytes())
        .unwrap();
}

fn io(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => format!("Io({code})"),
        None => format!("Io({:?})", error.kind()),
    }
}

fn text(error: &Error) -> String {
    match error {
        Error::Io(error) => io(error),
        other => format!("{other:?}"),
    }
}

fn step<T>(what: &str, work: impl FnOnce() -> Result<T, Error>) -> Option<T> {
    say(format_args!("> {what}"));
    let result = work();
    let outcome = result.as_ref().err().map_or("ok".to_owned(), text);
    say(format_args!("= {what} {outcome}"));
    result.ok()
}

/// A sender of either kind of channel.
pub trait Tx {
    fn send(&self, message: Message) -> Result<(), SendError<Message>>;
}

impl Tx for SyncSender<Message> {
    fn send(&self, message: Message) -> Result<(), SendError<Message>> {
        SyncSender::send(self, message)
    }
}

impl Tx for Sender<Message> {
    fn send(&self, message: Message) -> Result<(), SendError<Message>> {
        Sender::send(self, message)
    }
}

/// Opens; a second time if that failed: then the same must still be possible.
fn open_step<S>(
    open: impl Fn() -> Result<(S, Receiver<Message>), Error>,
) -> Option<(S, Receiver<Message>)> {
    let attempt = || step("open", &open);
    let opened = attempt().or_else(attempt);
    if let Some((_, rx)) = &opened {
        let damaged = rx.recovery().damaged().iter();
        let undurable = damaged.filter(|place| !place.was_durable()).count();
        say(format_args!("{UNDURABLE}{undurable}"));
    }
    opened
}

/// How many damaged places above the commit an open reported.
pub const UNDURABLE: &str = "! undurable ";

/// Whether a process said so of pages that could not be read, of which nobody can tell what was sent there. A
/// prepared file has one damaged frame besides.
pub fn is_unreadable(line: &str, prepared: bool) -> bool {
    let places = line.strip_prefix(UNDURABLE);
    places.is_some_and(|places| places.parse::<u64>().unwrap() > u64::from(prepared))
}

fn send(tx: &impl Tx, number: u64) {
    say(format_args!("> send {number}"));
    let outcome = match tx.send(Message::new(number)) {
        Ok(()) => "ok".to_owned(),
        Err(error) => {
            let text = match &error.kind {
                SendErrorKind::Io(e) => io(e),
                SendErrorKind::Unsynced(e) => format!("unsynced {}", io(e)),
                other => format!("{other:?}"),
            };
            assert_eq!(error.into_inner(), Message::new(number), "handed back");
            text
        }
    };
    say(format_args!("= send {number} {outcome}"));
}

/// What was received; `Err` if nothing follows.
fn receive(rx: &Receiver<Message>, wait: bool) -> Result<Option<Delivery<Message>>, ()> {
    say(format_args!("> recv"));
    let received = if wait {
        rx.recv().map_err(Some)
    } else {
        rx.try_recv().map_err(|e| match e {
            TryRecvError::Empty => None,
            TryRecvError::Disconnected => Some(RecvError::Disconnected),
            TryRecvError::Undecodable(message) => Some(RecvError::Undecodable(message)),
            TryRecvError::Corrupt(place) => Some(RecvError::Corrupt(place)),
            TryRecvError::Io(error) => Some(RecvError::Io(error)),
            other => panic!("{other}"),
        })
    };
    match received {
        Ok(delivery) => {
            assert_eq!(*delivery, Message::new(delivery.number), "content");
            say(format_args!("= recv got {}", delivery.number));
            Ok(Some(delivery))
        }
        Err(None) => {
            say(format_args!("= recv empty"));
            Err(())
        }
        Err(Some(RecvError::Undecodable(message))) => {
            say(format_args!("= recv undecodable"));
            step("aside undecodable", || message.set_aside());
            Ok(None)
        }
        // The disk may give them back some day.
        Err(Some(RecvError::Corrupt(place))) if place.cause() == DamageCause::Unreadable => {
            say(format_args!("= recv unreadable"));
            Ok(None)
        }
        Err(Some(RecvError::Corrupt(place))) => {
            say(format_args!("= recv corrupt"));
            step("aside corrupt", || place.set_aside());
            Ok(None)
        }
        Err(Some(RecvError::Disconnected)) => {
            say(format_args!("= recv disconnected"));
            Err(())
        }
        Err(Some(RecvError::Io(error))) => {
            say(format_args!("= recv {}", io(&error)));
            Err(())
        }
        Err(Some(other)) => panic!("{other}"),
    }
}

fn acknowledge(delivery: Delivery<Message>) {
    let number = delivery.number;
    say(format_args!("> ack {number}"));
    let outcome = Delivery::ack(delivery).map_or_else(|e| text(&e), |()| "ok".to_owned());
    say(format_args!("= ack {number} {outcome}"));
}

/// Creates, sends, receives, acknowledges out of order, syncs, closes, opens, drains, closes.
fn cycle(path: &Path, durability: &str) {
    if let Some((tx, rx)) = open_step(|| open(path, durability)) {
        (0..4).for_each(|number| send(&tx, number));
        let mut held: Vec<_> = (0..3)
            .filter_map(|_| receive(&rx, false).ok().flatten())
            .collect();
        if held.len() == 3 {
            acknowledge(held.remove(1));
            acknowledge(held.remove(0));
        }
        step("sync sent", || tx.sync());
        step("sync progress", || rx.sync());
        send(&tx, 4);
        send(&tx, 5);
        // Unacknowledged: the next incarnation gets them again.
        held.into_iter().for_each(Delivery::leave);
        drop(tx);
        step("close", || rx.close());
    }
    let Some((tx, rx)) = open_step(|| open(path, durability)) else {
        return;
    };
    send(&tx, 6);
    send(&tx, 7);
    drop(tx);
    while let Ok(received) = receive(&rx, true) {
        match received {
            Some(delivery) if delivery.number == 7 => Delivery::leave(delivery),
            Some(delivery) => acknowledge(delivery),
            None => {}
        }
    }
    step("close", || rx.close());
}

/// Goes round a bounded ring twenty times.
fn laps(path: &Path, durability: &str) {
    let Some((tx, rx)) = open_step(|| open(path, durability)) else {
        return;
    };
    for n in 0..60 {
        send(&tx, LARGE + n % 50);
        if let Ok(Some(delivery)) = receive(&rx, true) {
            acknowledge(delivery);
        }
    }
    step("sync sent", || tx.sync());
    step("sync progress", || rx.sync());
    drop(tx);
    step("close", || rx.close());
}

/// Opens a channel without a bound.
pub fn open_unbounded(
    path: &Path,
    durability: &str,
) -> Result<(Sender<Message>, Receiver<Message>), Error> {
    walchan::channel_with_options(path, options(durability))
}

/// Grows into segments, drains, returns to the ring, grows again, stops with a backlog in several files;
/// opens that, sends more, drains.
fn segments(path: &Path, durability: &str) {
    let open = || open_unbounded(path, durability);
    // The housekeeper works meanwhile.
    let rest = || std::thread::sleep(Duration::from_millis(2));
    if let Some((tx, rx)) = open_step(open) {
        (LARGE..LARGE + 9).for_each(|number| send(&tx, number));
        rest();
        let mut held = Vec::new();
        for _ in 0..9 {
            match receive(&rx, false) {
                Ok(Some(delivery)) if held.len() < 2 => held.push(delivery),
                Ok(Some(delivery)) => acknowledge(delivery),
                Ok(None) => {}
                Err(()) => break,
            }
        }
        step("sync progress", || rx.sync());
        held.into_iter().rev().for_each(acknowledge);
        rest();
        send(&tx, LARGE + 9);
        rest();
        (LARGE + 10..LARGE + 20).for_each(|number| send(&tx, number));
        step("sync sent", || tx.sync());
        for _ in 0..3 {
            if let Ok(Some(delivery)) = receive(&rx, false) {
                acknowledge(delivery);
            }
        }
        drop(tx);
        step("close", || rx.close());
    }
    let Some((tx, rx)) = open_step(open) else {
        return;
    };
    (LARGE + 20..LARGE + 24).for_each(|number| send(&tx, number));
    drop(tx);
    while let Ok(received) = receive(&rx, true) {
        match received {
            Some(delivery) if delivery.number == LARGE + 15 => Delivery::leave(delivery),
            Some(delivery) => acknowledge(delivery),
            None => {}
        }
    }
    step("close", || rx.close());
}

/// Receives what is there, and acknowledges it up to a number; the others are held. An error of a receive is
/// no end: the next one may succeed.
fn receive_all(rx: &Receiver<Message>, acknowledged: u64) -> Vec<Delivery<Message>> {
    let mut held = Vec::new();
    let mut ends = 0;
    // After a failed sync the next one fails, too, and there is an end nevertheless.
    while ends < 3 {
        match receive(rx, false) {
            Ok(Some(delivery)) if delivery.number >= acknowledged => held.push(delivery),
            Ok(Some(delivery)) => acknowledge(delivery),
            Ok(None) => {}
            Err(()) => ends += 1,
        }
    }
    held
}

/// Full service: grows over several segments, one of them for a message that is larger than the ring, and
/// hands everything out.
fn serve(tx: &Sender<Message>, rx: &Receiver<Message>, from: u64, acknowledged: u64) {
    (from..from + 15).for_each(|number| send(tx, number));
    step("sync sent", || tx.sync());
    let held = receive_all(rx, acknowledged);
    held.into_iter().for_each(Delivery::leave);
}

/// As [`segments`], and whatever failed meanwhile, there is full service afterwards: before a close with a
/// backlog in several files, and once more behind the open that finds it. Nothing is left at the end.
fn service(path: &Path, durability: &str) {
    let open = || open_unbounded(path, durability);
    let rest = || std::thread::sleep(Duration::from_millis(2));
    if let Some((tx, rx)) = open_step(open) {
        (LARGE..LARGE + 9).for_each(|number| send(&tx, number));
        rest();
        receive_all(&rx, LARGE + 8)
            .into_iter()
            .for_each(acknowledge);
        step("sync progress", || rx.sync());
        rest();
        send(&tx, LARGE + 9);
        rest();
        (LARGE + 10..LARGE + 16).for_each(|number| send(&tx, number));
        for _ in 0..3 {
            if let Ok(Some(delivery)) = receive(&rx, false) {
                acknowledge(delivery);
            }
        }
        serve(&tx, &rx, SERVED, SERVED + 11);
        send(&tx, SERVED + 15);
        drop(tx);
        step("close", || rx.close());
    }
    let Some((tx, rx)) = open_step(open) else {
        return;
    };
    (SERVED + 16..SERVED + 18).for_each(|number| send(&tx, number));
    serve(&tx, &rx, SERVED + 20, u64::MAX);
    drop(tx);
    receive_all(&rx, u64::MAX);
    step("close", || rx.close());
}

/// Opens what [`leave_behind`] left, twice.
fn recover(path: &Path, durability: &str) {
    for incarnation in 0..2 {
        let Some((tx, rx)) = open_step(|| open(path, durability)) else {
            return;
        };
        send(&tx, 30 + incarnation);
        drop(tx);
        while let Ok(received) = receive(&rx, true) {
            match received {
                Some(delivery) if delivery.number % 4 == 0 => Delivery::leave(delivery),
                Some(delivery) => acknowledge(delivery),
                None => {}
            }
        }
        step("close", || rx.close());
    }
}

/// The messages of [`leave_behind`] that are to be found, and the one that was acknowledged.
pub const LEFT_BEHIND: [u64; 8] = [0, 2, 3, 4, 10, 11, 13, 14];
pub const ACKNOWLEDGED: u64 = 1;
/// Those that no sync covers.
pub const UNSYNCED: [u64; 4] = [10, 11, 13, 14];
/// Durable, and damaged afterwards; sent without a sync, and damaged afterwards.
const DAMAGED: [u64; 2] = [5, 12];

/// A process that ends in the middle of it. Bytes of two messages are then changed by [`prepared`].
fn leave_behind(path: &Path, durability: &str) {
    let (tx, rx) = open::<Message>(path, durability).unwrap();
    (0..6).for_each(|number| tx.send(Message::new(number)).unwrap());
    let first = rx.recv().unwrap();
    Delivery::ack(rx.recv().unwrap()).unwrap();
    tx.sync().unwrap();
    Delivery::leave(first);
    drop(tx);
    rx.close().unwrap();
    let (tx, rx) = open::<NoMessage>(path, durability).unwrap();
    tx.send(NO_MESSAGE).unwrap();
    drop(tx);
    rx.close().unwrap();
    let (tx, _rx) = open::<Message>(path, "flush").unwrap();
    (10..15).for_each(|number| tx.send(Message::new(number)).unwrap());
    std::process::exit(0);
}

/// Bytes of a channel that a process left: messages that were acknowledged out of order, one that cannot be
/// decoded, damage below the commit, a hole above it.
pub fn prepared(test: &str, durability: &str) -> Vec<u8> {
    let dir = quick_dir();
    let path = dir.path().join("q");
    let status = child(test, "leave", durability, &path)
        .stdout(std::process::Stdio::null())
        .status();
    assert!(status.unwrap().success());
    let mut bytes = std::fs::read(path).unwrap();
    for number in DAMAGED {
        let mark = Message::mark(number);
        let places = bytes.windows(mark.len()).enumerate();
        let found = places
            .filter(|(_, window)| *window == mark)
            .map(|(at, _)| at);
        let found: Vec<_> = found.collect();
        assert!(!found.is_empty());
        bytes[found[0]] ^= 1;
    }
    bytes
}

/// The copies beside a channel.
pub fn asides(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path.parent().unwrap()).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|e| e == "aside"))
        .collect()
}
