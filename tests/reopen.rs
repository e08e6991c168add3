//! Each row of the table in `docs/reopen.md`, and what the recovery report says.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::process::Stdio;
use support::{
    HEADER, RING, child, every_durability, find, flush, patch, patch_identity, role, watchdog, with,
};
use walchan::{Delivery, Durability, Error, Options, TryRecvError, TrySendError};

fn ring(bytes: u64) -> Options {
    Options {
        ring_bytes: Some(bytes),
        ..flush()
    }
}

/// A file with messages 0, 1, 2.
fn make(path: &Path, options: &Options) {
    let (tx, _rx) = walchan::channel_with_options::<u64>(path, options.clone()).unwrap();
    (0..3).for_each(|n| tx.send(n).unwrap());
}

/// Opens the file, and leaves it as it is.
fn look(path: &Path, options: Options) -> Result<Vec<u64>, Error> {
    let (_tx, rx) = walchan::channel_with_options::<u64>(path, options)?;
    Ok(rx
        .try_iter()
        .map(|d| {
            let n = *d;
            Delivery::leave(d);
            n
        })
        .collect())
}

fn mismatch(e: Error, wanted_what: &str) -> (String, String) {
    match e {
        Error::Mismatch {
            what,
            stored,
            wanted,
        } if what == wanted_what => (stored, wanted),
        e => panic!("{e}"),
    }
}

#[test]
fn ring_bytes_absent_takes_the_ring_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    make(&path, &ring(RING * 2));
    let o = Options {
        ring_bytes: None,
        ..flush()
    };
    assert_eq!(look(&path, o).unwrap(), [0, 1, 2]);
    assert_eq!(
        std::fs::metadata(&path).unwrap().len(),
        HEADER as u64 + RING * 2
    );
}

#[test]
fn ring_bytes_equal_after_rounding_up_opens() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    make(&path, &ring(RING + 1));
    for bytes in [RING + 1, RING * 2 - 1, RING * 2] {
        assert_eq!(look(&path, ring(bytes)).unwrap(), [0, 1, 2]);
    }
    let small = dir.path().join("small");
    make(&small, &ring(0));
    for bytes in [0, 1, RING] {
        assert_eq!(look(&small, ring(bytes)).unwrap(), [0, 1, 2]);
    }
}

#[test]
fn other_ring_bytes_are_a_mismatch_that_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    make(&path, &ring(RING * 2));
    let before = std::fs::read(&path).unwrap();
    for (wanted, text) in [
        (RING, "65536"),
        (RING * 2 + 1, "262144"),
        (1 << 30, "1073741824"),
    ] {
        let e = look(&path, ring(wanted)).unwrap_err();
        assert_eq!(
            mismatch(e, "ring_bytes"),
            ("131072".to_owned(), text.to_owned())
        );
    }
    assert!(std::fs::read(&path).unwrap() == before);
    assert_eq!(look(&path, ring(RING * 2)).unwrap(), [0, 1, 2]);
}

#[test]
fn a_bound_smaller_than_the_backlog_admits_none_until_there_are_fewer() {
    let _dog = watchdog();
    for durability in every_durability() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        let (tx, rx) =
            walchan::sync_channel_with_options::<u64>(&path, 20, with(durability)).unwrap();
        (0..10).for_each(|n| tx.send(n).unwrap());
        drop((tx, rx));
        let (tx, rx) =
            walchan::sync_channel_with_options::<u64>(&path, 4, with(durability)).unwrap();
        for n in 0..7 {
            assert_eq!(tx.try_send(99), Err(TrySendError::Full(99)), "{n}");
            assert_eq!(rx.recv().unwrap(), n);
        }
        tx.try_send(10).unwrap();
        assert_eq!(tx.try_send(99), Err(TrySendError::Full(99)));
        let rest: Vec<_> = rx.try_iter().map(Delivery::into_inner).collect();
        assert_eq!(rest, [7, 8, 9, 10]);
    }
}

#[test]
fn a_bound_larger_than_the_backlog_admits_the_difference() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    make(&path, &flush());
    let (tx, rx) = walchan::sync_channel_with_options::<u64>(&path, 5, flush()).unwrap();
    tx.try_send(3).unwrap();
    tx.try_send(4).unwrap();
    assert_eq!(tx.try_send(5), Err(TrySendError::Full(5)));
    assert_eq!(
        rx.try_iter().map(Delivery::into_inner).collect::<Vec<_>>(),
        [0, 1, 2, 3, 4]
    );
}

#[test]
fn a_bounded_channel_opens_as_an_unbounded_one_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let (tx, rx) = walchan::sync_channel_with_options::<u64>(&path, 2, flush()).unwrap();
    tx.send(0).unwrap();
    tx.send(1).unwrap();
    drop((tx, rx));
    let (tx, rx) = walchan::channel_with_options::<u64>(&path, flush()).unwrap();
    (2..9).for_each(|n| tx.send(n).unwrap());
    drop((tx, rx));
    let (tx, rx) = walchan::sync_channel_with_options::<u64>(&path, 2, flush()).unwrap();
    assert_eq!(tx.try_send(9), Err(TrySendError::Full(9)));
    assert_eq!(
        rx.try_iter().map(Delivery::into_inner).collect::<Vec<_>>(),
        (0..9).collect::<Vec<_>>()
    );
}

#[test]
fn a_bound_asks_for_a_ring_only_when_the_file_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    make(&path, &flush());
    let none = Options {
        ring_bytes: None,
        ..flush()
    };
    let opened = walchan::sync_channel_with_options::<u64>(&path, 100_000, none);
    assert_eq!(opened.unwrap().1.try_iter().count(), 3);
    let other = walchan::sync_channel_with_options::<u64>(&path, 4, ring(RING * 2));
    mismatch(other.unwrap_err(), "ring_bytes");
}

#[test]
fn another_durability_is_taken_as_it_comes() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let mut expected = Vec::new();
    let mut n = 0;
    // Each mode after each other one, with a backlog that the next incarnation finds.
    for pair in [[0, 1], [1, 0], [0, 2], [2, 0], [1, 2], [2, 1], [0, 0]] {
        for mode in pair {
            let o = with(every_durability()[mode]);
            let (tx, rx) = walchan::sync_channel_with_options::<u64>(&path, 100, o).unwrap();
            if cfg!(feature = "fsync") {
                assert_eq!(tx.durability(), every_durability()[mode]);
                assert_eq!(rx.durability(), every_durability()[mode]);
            }
            for _ in 0..5 {
                tx.send(n).unwrap();
                expected.push(n);
                n += 1;
            }
            for wanted in expected.drain(..3) {
                assert_eq!(rx.recv().unwrap(), wanted);
            }
        }
    }
    assert_eq!(look(&path, flush()).unwrap(), expected);
}

/// By one thread, which acknowledges those of its own incarnation in a way of their own.
#[test]
fn messages_of_two_incarnations_are_acknowledged_in_any_order() {
    for durability in every_durability() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        make(&path, &with(durability));
        let (tx, rx) = walchan::channel_with_options(&path, with(durability)).unwrap();
        (3..6).for_each(|n| tx.send(n).unwrap());
        let mut held: Vec<Delivery<u64>> = rx.try_iter().collect();
        assert_eq!(held.len(), 6);
        for at in [3, 1, 3, 1, 1] {
            drop(held.remove(at));
        }
        drop(held.into_iter().map(Delivery::leave).collect::<Vec<()>>());
        drop((tx, rx));
        let (_tx, rx) = walchan::channel_with_options::<u64>(&path, with(durability)).unwrap();
        let report = rx.recovery();
        assert!(
            report.kept() == 1 && report.damaged().is_empty(),
            "{report}"
        );
        assert_eq!(*rx.recv().unwrap(), 0);
        assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
    }
}

#[test]
fn another_codec_is_a_mismatch() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    make(&path, &flush());
    // Behind magic, version, header length, capacity and channel id.
    patch_identity(&path, |page| {
        page[40..44].copy_from_slice(&77u32.to_le_bytes())
    });
    let before = std::fs::read(&path).unwrap();
    let (stored, wanted) = mismatch(look(&path, flush()).unwrap_err(), "codec");
    assert!(stored.contains("77"), "{stored}");
    assert!(wanted.contains("bincode"), "{wanted}");
    assert!(std::fs::read(&path).unwrap() == before);
}

fn schema(name: &str) -> Options {
    Options {
        schema: Some(name.to_owned()),
        ..flush()
    }
}

#[test]
fn another_schema_is_a_mismatch_and_none_is_not_checked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    make(&path, &schema("orders v1"));
    assert_eq!(look(&path, schema("orders v1")).unwrap(), [0, 1, 2]);
    assert_eq!(look(&path, flush()).unwrap(), [0, 1, 2]);
    let e = look(&path, schema("orders v2")).unwrap_err();
    assert_eq!(
        mismatch(e, "schema"),
        ("orders v1".to_owned(), "orders v2".to_owned())
    );
    // A file that was made without a name has the empty one.
    let nameless = dir.path().join("nameless");
    make(&nameless, &flush());
    let e = look(&nameless, schema("orders v1")).unwrap_err();
    assert_eq!(
        mismatch(e, "schema"),
        (String::new(), "orders v1".to_owned())
    );
    assert_eq!(look(&nameless, schema("")).unwrap(), [0, 1, 2]);
}

#[test]
fn a_schema_has_at_most_255_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let longest = "\u{e9}".repeat(127) + "x";
    let e = look(&path, schema(&(longest.clone() + "y"))).unwrap_err();
    assert!(matches!(e, Error::Invalid(_)), "{e}");
    assert!(!path.exists());
    make(&path, &schema(&longest));
    assert_eq!(look(&path, schema(&longest)).unwrap(), [0, 1, 2]);
}

#[test]
fn a_newer_format_is_refused_by_its_number() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    make(&path, &flush());
    for version in [4u32, 77, u32::MAX] {
        patch_identity(&path, |page| {
            page[8..12].copy_from_slice(&version.to_le_bytes())
        });
        let before = std::fs::read(&path).unwrap();
        assert_eq!(
            look(&path, flush()).unwrap_err(),
            Error::Version { stored: version }
        );
        assert!(std::fs::read(&path).unwrap() == before);
    }
}

// === Clean and unclean ===

#[test]
fn the_report_of_a_clean_stop_counts_what_is_left() {
    let _dog = watchdog();
    for durability in every_durability() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        let open =
            || walchan::sync_channel_with_options::<u64>(&path, 100, with(durability)).unwrap();
        let (tx, rx) = open();
        assert!(rx.recovery().is_created() && rx.recovery().is_clean());
        assert_eq!(rx.recovery().to_string(), "new channel");
        (0..9).for_each(|n| tx.send(n).unwrap());
        rx.try_iter().take(4).for_each(drop);
        rx.try_iter().take(2).for_each(Delivery::leave);
        drop(tx);
        rx.close().unwrap();
        let (_tx, rx) = open();
        let report = rx.recovery();
        assert!(!report.is_created());
        assert_eq!(report.is_clean(), cfg!(feature = "fsync"));
        assert_eq!((report.kept(), report.redelivered()), (5, 2));
        assert_eq!((report.stepped_over(), report.damaged().len()), (0, 0));
        assert!(report.header_faults().is_empty());
        assert!(
            report.to_string().contains("5 kept, 2 of them redelivered"),
            "{report}"
        );
    }
}

/// A process that ends without closing anything.
#[test]
fn what_a_process_left_without_closing_is_recovered() {
    let _dog = watchdog();
    let name = "what_a_process_left_without_closing_is_recovered";
    if let Some(role) = role() {
        let (mode, path) = role.split_once(' ').unwrap();
        let o = with(every_durability()[mode.parse::<usize>().unwrap()]);
        let (tx, rx) = walchan::sync_channel_with_options::<u64>(path, 100, o).unwrap();
        (0..9).for_each(|n| tx.send(n).unwrap());
        rx.iter().take(4).for_each(drop);
        // Out of order, so that one acknowledgement lies behind the head.
        let held: Vec<_> = rx.iter().take(3).collect();
        let [a, b, c] = held.try_into().ok().unwrap();
        drop(b);
        std::mem::forget((a, c, tx, rx));
        std::process::exit(0);
    }
    for mode in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        let status = child(name, &format!("{mode} {}", path.display()))
            .stdout(Stdio::null())
            .status();
        assert!(status.unwrap().success());
        let o = with(every_durability()[mode]);
        let (_tx, rx) = walchan::sync_channel_with_options::<u64>(&path, 100, o).unwrap();
        let report = rx.recovery().clone();
        assert!(!report.is_clean() && !report.is_created());
        assert_eq!((report.kept(), report.redelivered()), (4, 2), "{report}");
        assert_eq!(
            (report.stepped_over(), report.damaged().len()),
            (0, 0),
            "{report}"
        );
        let got: Vec<_> = rx
            .try_iter()
            .map(|d| (*d, Delivery::deliveries(&d)))
            .collect();
        assert_eq!(got, [(4, 2), (6, 2), (7, 1), (8, 1)]);
    }
}

#[test]
fn a_copy_of_a_living_file_opens_with_what_was_there() {
    let _dog = watchdog();
    for durability in every_durability() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("q"), dir.path().join("copy"));
        let (tx, rx) =
            walchan::sync_channel_with_options::<u64>(&path, 100, with(durability)).unwrap();
        (0..50).for_each(|n| tx.send(n).unwrap());
        rx.try_iter().take(20).for_each(drop);
        std::fs::copy(&path, &copy).unwrap();
        assert_eq!(look(&copy, flush()).unwrap(), (20..50).collect::<Vec<_>>());
        assert_eq!(rx.try_iter().count(), 30, "the original goes on");
    }
}

#[test]
fn a_torn_tail_is_stepped_over_or_refused_as_the_options_say() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("q"), dir.path().join("copy"));
    let (tx, rx) = walchan::channel_with_options::<String>(&path, flush()).unwrap();
    for text in ["first", "the one that is torn", "last"] {
        tx.send(text.to_owned()).unwrap();
    }
    std::fs::copy(&path, &copy).unwrap();
    drop((tx, rx));
    patch(&copy, |bytes| {
        let at = find(bytes, b"the one that is torn");
        bytes[at] = b'T';
    });
    let before = std::fs::read(&copy).unwrap();
    let strict = Options {
        truncate_corrupt_tail: false,
        ..flush()
    };
    let e = walchan::channel_with_options::<String>(&copy, strict.clone()).unwrap_err();
    assert!(matches!(e, Error::Corrupt { .. }), "{e}");
    assert!(
        std::fs::read(&copy).unwrap() == before,
        "nothing was changed"
    );
    let (tx, rx) = walchan::channel_with_options::<String>(&copy, flush()).unwrap();
    let report = rx.recovery();
    assert_eq!((report.kept(), report.stepped_over()), (2, 1), "{report}");
    assert_eq!(report.damaged().len(), 1);
    assert!(!report.damaged()[0].was_durable());
    assert!(report.to_string().contains("1 stepped over"), "{report}");
    tx.send("new".to_owned()).unwrap();
    let got: Vec<_> = rx.try_iter().map(Delivery::into_inner).collect();
    assert_eq!(got, ["first", "last", "new"]);
    drop((tx, rx));
    // Closed for good: the strict open has nothing against it now.
    let (_tx, rx) = walchan::channel_with_options::<String>(&copy, strict).unwrap();
    assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
}

#[test]
fn either_copy_of_a_header_structure_is_enough() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    make(&path, &flush());
    let whole = std::fs::read(&path).unwrap();
    // Pages of the two tables and the two checkpoints.
    for page in [1, 9, 17, 18] {
        std::fs::write(&path, &whole).unwrap();
        patch(&path, |bytes| bytes[page * 4096 + 9] ^= 1);
        let (_tx, rx) = walchan::channel_with_options::<u64>(&path, flush()).unwrap();
        let faults = rx.recovery().header_faults();
        assert_eq!(faults.len(), 1);
        assert_eq!(faults[0].0, page as u64 * 4096);
        assert!(rx.recovery().to_string().contains("header page"));
        assert_eq!(
            rx.try_iter().map(Delivery::into_inner).collect::<Vec<_>>(),
            [0, 1, 2],
            "page {page}"
        );
        drop((_tx, rx));
        let (_tx, rx) = walchan::channel_with_options::<u64>(&path, flush()).unwrap();
        assert!(
            rx.recovery().header_faults().is_empty(),
            "it is whole again"
        );
    }
    for pair in [[1, 9], [17, 18]] {
        std::fs::write(&path, &whole).unwrap();
        patch(&path, |bytes| {
            pair.into_iter()
                .for_each(|page| bytes[page * 4096 + 9] ^= 1)
        });
        let before = std::fs::read(&path).unwrap();
        let e = look(&path, flush()).unwrap_err();
        assert!(matches!(e, Error::Corrupt { .. }), "{e}");
        assert!(
            std::fs::read(&path).unwrap() == before,
            "nothing was changed"
        );
    }
}

#[test]
fn a_channel_without_traffic_opens_again_and_again() {
    let _dog = watchdog();
    let dir = support::quick_dir();
    let path = dir.path().join("q");
    for durability in [Durability::FlushOnly, Durability::SyncPerSend] {
        for _ in 0..1_100 {
            let o = with(durability);
            let (_tx, rx) = walchan::channel_with_options::<u64>(&path, o).unwrap();
            assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
        }
    }
}

/// A large ring goes from the cache while it is in use already.
#[test]
fn a_large_synced_ring_is_used_and_closed_while_its_cache_goes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("queue");
    let options = || Options {
        ring_bytes: Some(64 << 20),
        ..Options::default()
    };
    for incarnation in 0..6u64 {
        let (tx, rx) =
            walchan::sync_channel_with_options::<u64>(&path, 1 << 20, options()).unwrap();
        assert_eq!(rx.recovery().kept(), u64::from(incarnation > 0));
        tx.send(incarnation).unwrap();
        for delivery in rx.try_iter() {
            if *delivery == incarnation {
                Delivery::leave(delivery);
            }
        }
        drop(tx);
        rx.close().unwrap();
    }
}

/// A ring that is read by two threads: all of it, above the durable commit and below, and around its end.
#[test]
fn a_large_ring_that_is_full_is_recovered() {
    let _dog = watchdog();
    let every = Durability::SyncEvery {
        max_ops: 1 << 20,
        max_delay: std::time::Duration::from_secs(60),
    };
    for (durability, synced) in [(Durability::FlushOnly, false), (every, true)] {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("q"), dir.path().join("copy"));
        let options = || Options {
            ring_bytes: Some(8 << 20),
            ..with(durability)
        };
        let open = |path: &Path| options().bytes_sync_channel(path, 1 << 20);
        let payload = |n: u64| vec![n as u8; 500 + (n * 37 % 4000) as usize];
        let (tx, rx) = open(&path).unwrap();
        let mut numbers = 0..;
        for n in numbers.by_ref().take(2000) {
            tx.send(&payload(n)).unwrap();
            drop(rx.recv().unwrap());
        }
        // Room comes back when it is synced.
        if synced && cfg!(feature = "fsync") {
            rx.sync().unwrap();
        }
        let sent = numbers.take_while(|n| tx.try_send(&payload(*n)).is_ok());
        let sent: Vec<u64> = sent.collect();
        if synced && cfg!(feature = "fsync") {
            tx.sync().unwrap();
        }
        std::fs::copy(&path, &copy).unwrap();
        let (_tx, found) = open(&copy).unwrap();
        assert!(!found.recovery().is_clean());
        assert!(found.recovery().scan_time() > std::time::Duration::ZERO);
        assert_eq!(found.recovery().kept(), sent.len() as u64);
        for n in &sent {
            assert_eq!(*found.try_recv().unwrap(), *payload(*n), "{n}");
        }
        assert_eq!(found.try_recv().unwrap_err(), TryRecvError::Empty);
    }
}

/// Recovery reports each message that has a flipped bit, and delivers all others.
#[test]
fn a_flipped_bit_is_found_anywhere_in_a_large_ring() {
    const RING_LEN: u64 = 8 << 20;
    const LEN: usize = 1008;
    const FRAME_LEN: u64 = 1024;
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("q"), dir.path().join("copy"));
    let open = |path: &Path| ring(RING_LEN).bytes_sync_channel(path, 1 << 20);
    let (tx, _rx) = open(&path).unwrap();
    let sent = (0..).take_while(|n| tx.try_send(&[*n as u8; LEN]).is_ok());
    let sent: Vec<u64> = sent.collect();
    std::fs::copy(&path, &copy).unwrap();
    // One message of each 40 KiB, in its last byte.
    let is_flipped = |n: &u64| n % 40 == 7;
    patch(&copy, |bytes| {
        for n in sent.iter().filter(|n| is_flipped(n)) {
            bytes[HEADER + ((n + 1) * FRAME_LEN) as usize - 1] ^= 0x10;
        }
    });
    let (_tx, found) = open(&copy).unwrap();
    let report = found.recovery();
    let damaged = report.damaged().iter().map(|frame| frame.position());
    let flipped = sent.iter().filter(|n| is_flipped(n));
    let flipped = flipped.map(|n| n * FRAME_LEN);
    assert!(damaged.eq(flipped));
    assert!(sent.len() > 8000);
    for n in sent.iter().filter(|n| !is_flipped(n)) {
        assert_eq!(*found.try_recv().unwrap(), [*n as u8; LEN], "{n}");
    }
    assert_eq!(found.try_recv().unwrap_err(), TryRecvError::Empty);
}
