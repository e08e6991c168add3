//! Disks that answer with errors: what a send, the channel and the next open make of it, and what a power cut
//! behind that leaves.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use system_tests::device::{Device, Fault};
use system_tests::volume::{Frozen, Host, Kind, drop_cache};
use system_tests::{can_run, times};
use walchan::{
    Delivery, Durability, Error, MessageId, Options, Receiver, RecvError, SendErrorKind,
    SyncSender, TryRecvError,
};

const RING: u64 = 64 << 10;
/// Bytes before it.
const HEADER: u64 = 19 * 4096;
const EIO: Option<i32> = Some(5);

type Message = (u64, String);
type Ends = (SyncSender<Message>, Receiver<Message>);

/// About as large as a page, so that each is on a page that the one before it does not need.
fn message(number: u64) -> Message {
    (number, format!("{number:04}").repeat(1000))
}

fn open(path: &Path) -> Result<Ends, Error> {
    let options = Options {
        durability: Durability::SyncPerSend,
        ring_bytes: Some(RING),
        ..Options::default()
    };
    walchan::sync_channel_with_options(path, 1000, options)
}

fn programs() -> Vec<&'static str> {
    [&Kind::PROGRAMS[..], &Device::PROGRAMS].concat()
}

/// Not so often that the journal comes in between: what is to fail is the channel's.
fn device(host: &Host, kind: Kind, name: &str) -> Device {
    let options = match kind {
        Kind::Ext4 => "commit=1000,noatime",
        _ => "nouuid,noatime",
    };
    // So large that its blocks have 4 KiB.
    Device::new(host, kind, name, 1 << 30, options)
}

/// Everything that can be received now, by id; it stays in the channel.
fn contents(rx: &Receiver<Message>) -> BTreeMap<MessageId, u64> {
    let mut all = BTreeMap::new();
    loop {
        match rx.try_recv() {
            Ok(delivery) => {
                assert_eq!(*delivery, message(delivery.0), "not what was sent");
                all.insert(Delivery::id(&delivery), delivery.0);
                Delivery::leave(delivery);
            }
            Err(TryRecvError::Empty) => return all,
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// What a machine finds when it comes back with these blocks.
fn after_power_cut(host: &Host, frozen: Frozen, name: &str) -> BTreeMap<MessageId, u64> {
    let volume = host.thaw(frozen, name);
    let (_tx, rx) = open(&volume.path().join("queue")).unwrap();
    assert!(rx.recovery().damaged().is_empty(), "{:?}", rx.recovery());
    contents(&rx)
}

/// A way in which a disk fails a sync.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// The page of the message is not written.
    Data,
    /// Nor is any other.
    AnyWrite,
    /// The next write fails, and all is well again.
    OneWrite,
    /// All is written; the flush fails.
    Flush,
    /// The flush fails, and with it goes all that was in the cache of the disk.
    FlushAndCacheLost,
}

const WAYS: [Way; 5] = [
    Way::Data,
    Way::AnyWrite,
    Way::OneWrite,
    Way::Flush,
    Way::FlushAndCacheLost,
];

impl Way {
    fn faults(self, path: &Path, page: u64) -> Vec<Fault> {
        match self {
            // Both pages of the message.
            Way::Data => [page, page + 4096]
                .map(|offset| Fault::At("write", Device::block(path, HEADER + offset % RING)))
                .to_vec(),
            Way::AnyWrite => vec![Fault::All("write")],
            Way::OneWrite => vec![Fault::Next("write")],
            Way::Flush | Way::FlushAndCacheLost => vec![Fault::Flushes],
        }
    }
}

fn is_eio(error: &io::Error) -> bool {
    error.raw_os_error() == EIO
}

fn fail_and_heal(host: &Host, kind: Kind, way: Way, name: &str) {
    let mut device = device(host, kind, name);
    let path = device.path().join("queue");
    let (tx, rx) = open(&path).unwrap();
    // Two laps of it are behind; then eight stay.
    for number in 0..40 {
        tx.send(message(number)).unwrap();
        if number < 32 {
            assert_eq!(*rx.recv().unwrap(), message(number));
        }
    }
    tx.sync().unwrap();
    rx.sync().unwrap();
    let durable = device.freeze(host, &format!("{name}-durable"));
    let lies = 40 * FRAME;
    device.fail(&way.faults(&path, lies / 4096 * 4096));

    // Unless a sync in the background, which records the last commit, met it first.
    let error = tx.send(message(40)).unwrap_err();
    assert!(
        matches!(&error.kind, SendErrorKind::Unsynced(e) | SendErrorKind::Io(e) if is_eio(e)),
        "{error:?}"
    );
    assert_eq!(error.into_inner(), message(40), "the value comes back");
    if way != Way::OneWrite {
        device.heal();
    }
    // A disk that is well again does not bring the channel back.
    for number in [41, 42] {
        let error = tx.send(message(number)).unwrap_err();
        assert!(
            matches!(&error.kind, SendErrorKind::Io(e) if is_eio(e)),
            "{error:?}"
        );
    }
    assert!(matches!(tx.sync(), Err(Error::Io(e)) if is_eio(&e)));
    assert!(matches!(rx.sync(), Err(Error::Io(e)) if is_eio(&e)));
    // What was durable is delivered, and no more.
    for number in 32..40 {
        let delivery = rx.recv().unwrap();
        assert_eq!(*delivery, message(number));
        Delivery::leave(delivery);
    }
    assert!(matches!(rx.recv(), Err(RecvError::Io(e)) if is_eio(&e)));
    drop(tx);
    assert!(matches!(rx.close(), Err(Error::Io(e)) if is_eio(&e)));

    if way == Way::FlushAndCacheLost {
        device.forget_since(&durable);
    }
    // The same boot: the page cache shows what was stored, whatever the disk holds.
    let (tx, rx, remounted) = match open(&path) {
        Ok((tx, rx)) => (tx, rx, false),
        Err(error) => {
            // The file system gave up; so did the disk, in the eyes of the next open.
            assert!(matches!(error, Error::Io(_)), "{error:?}");
            device.unmount();
            device.mount();
            let (tx, rx) = open(&path).unwrap();
            (tx, rx, true)
        }
    };
    assert!(!rx.recovery().is_clean());
    assert!(rx.recovery().damaged().is_empty(), "{:?}", rx.recovery());
    let kept = rx.recovery().kept();
    let frozen = device.freeze(host, &format!("{name}-opened"));
    let shown = contents(&rx);
    let numbers: Vec<u64> = shown.values().copied().collect();
    assert_eq!(shown.len() as u64, kept);
    assert_eq!(
        numbers[..8],
        (32..40).collect::<Vec<_>>()[..],
        "an Ok was a lie"
    );
    assert!(
        numbers[8..].is_empty() || numbers[8..] == [40],
        "{numbers:?}"
    );
    println!(
        "{kind:?}, {way:?}: {} the message of unknown fate{}",
        if numbers.len() == 9 {
            "kept"
        } else {
            "not kept"
        },
        if remounted {
            ", behind a new mount"
        } else {
            ""
        }
    );
    assert_eq!(
        after_power_cut(host, frozen, &format!("{name}-cut")),
        shown,
        "what the open has shown must last"
    );
    // And it goes on.
    tx.send(message(43)).unwrap();
    let frozen = device.freeze(host, &format!("{name}-sent"));
    let after = after_power_cut(host, frozen, &format!("{name}-cut-again"));
    assert!(after.values().any(|number| *number == 43));
}

/// Bytes of a frame of [`message`]: two words, number, length, text.
const FRAME: u64 = 16 + 8 + 8 + 4000;

#[test]
fn after_a_failed_sync_nothing_is_durable_that_was_not_synced_again() {
    const NAME: &str = "after_a_failed_sync_nothing_is_durable_that_was_not_synced_again";
    if !can_run(NAME, &programs()) {
        return;
    }
    let host = Host::new();
    for kind in [Kind::Ext4, Kind::Xfs] {
        for way in WAYS {
            fail_and_heal(&host, kind, way, &format!("{kind:?}-{way:?}"));
        }
    }
}

#[test]
fn a_recovery_whose_sync_fails_is_an_error_and_the_next_one_finds_the_same() {
    const NAME: &str = "a_recovery_whose_sync_fails_is_an_error_and_the_next_one_finds_the_same";
    if !can_run(NAME, &programs()) {
        return;
    }
    let host = Host::new();
    for kind in [Kind::Ext4, Kind::Xfs] {
        for (what, fault) in [("write", Fault::All("write")), ("flush", Fault::Flushes)] {
            let name = format!("{kind:?}-{what}");
            let mut device = device(&host, kind, &name);
            let path = device.path().join("queue");
            let (tx, rx) = open(&path).unwrap();
            for number in 0..8 {
                tx.send(message(number)).unwrap();
            }
            let before = device.freeze(&host, &format!("{name}-before"));
            drop((tx, rx));
            // Not closed in order: the blocks of then.
            device.unmount();
            device.forget_since(&before);
            device.mount();
            device.fail(&[fault]);
            for _ in 0..3 {
                assert!(matches!(open(&path), Err(Error::Io(_))), "{name}");
            }
            device.heal();
            let opened = open(&path).or_else(|error| {
                assert!(matches!(error, Error::Io(_)), "{error:?}");
                device.unmount();
                device.mount();
                open(&path)
            });
            let (_tx, rx) = opened.unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(rx.recovery().damaged().is_empty(), "{:?}", rx.recovery());
            let frozen = device.freeze(&host, &format!("{name}-opened"));
            let shown = contents(&rx);
            assert_eq!(
                shown.values().copied().collect::<Vec<_>>(),
                (0..8).collect::<Vec<_>>()
            );
            assert_eq!(
                after_power_cut(&host, frozen, &format!("{name}-cut")),
                shown
            );
        }
    }
}

#[test]
fn unreadable_blocks_are_an_error_or_reported_damage_and_hide_nothing_else() {
    const NAME: &str = "unreadable_blocks_are_an_error_or_reported_damage_and_hide_nothing_else";
    if !can_run(NAME, &programs()) {
        return;
    }
    let host = Host::new();
    for kind in [Kind::Ext4, Kind::Xfs] {
        let mut device = device(&host, kind, &format!("{kind:?}"));
        let path = device.path().join("queue");
        let (tx, rx) = open(&path).unwrap();
        for number in 0..8 {
            tx.send(message(number)).unwrap();
        }
        drop(tx);
        rx.close().unwrap();
        // One at a time: every block that is used, or one of each kind.
        let all = times("WALCHAN_EVERY_BLOCK", 0) > 0;
        for block in (0..28).filter(|block| all || [0, 1, 12, 17, 20, 25].contains(block)) {
            let offset = block * 4096;
            drop_cache(&path);
            let block = Device::block(&path, offset);
            device.fail(&[Fault::At("read", block)]);
            match open(&path) {
                Err(error) => {
                    assert!(
                        matches!(error, Error::Io(_) | Error::Corrupt { .. }),
                        "{error:?}"
                    );
                    // The pages that are there once.
                    assert!(offset < HEADER, "{offset}: {error:?}");
                }
                Ok((tx, rx)) => {
                    let mut got = Vec::new();
                    let mut damage = 0;
                    loop {
                        match rx.try_recv() {
                            Ok(delivery) => {
                                assert_eq!(*delivery, message(delivery.0));
                                got.push(delivery.0);
                                Delivery::leave(delivery);
                            }
                            Err(TryRecvError::Corrupt(_)) => damage += 1,
                            Err(TryRecvError::Empty) => break,
                            Err(error) => panic!("{offset}: {error}"),
                        }
                    }
                    // The block at this offset of the ring has parts of these frames.
                    let ring = offset.wrapping_sub(HEADER);
                    let hit = |n: &u64| {
                        offset >= HEADER && n * FRAME < ring + 4096 && (n + 1) * FRAME > ring
                    };
                    let rest: Vec<u64> = (0..8).filter(|n| !hit(n)).collect();
                    assert_eq!(got, rest, "{offset}");
                    assert_eq!(damage > 0, rest.len() < 8, "{offset}");
                    // This disk does not replace a block that is written: the map would meet it.
                    device.heal();
                    drop((tx, rx));
                }
            }
            device.heal();
            // In the way of nothing: the next open sees all.
            let (tx, rx) = open(&path).unwrap_or_else(|e| panic!("{kind:?}, {offset}: {e}"));
            assert_eq!(contents(&rx).len(), 8, "{offset}");
            drop(tx);
            rx.close().unwrap();
        }
    }
}
