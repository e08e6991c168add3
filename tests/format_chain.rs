//! The golden files of version 2: a ring and a segment, written once, and read like this ever after.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use support::{flush, watchdog};
use walchan::{Delivery, Options, channel_with_options};

const FILES: [&str; 2] = ["q", "q.1"];
const MESSAGES: u64 = 600;
/// Ids of the first message, of the first in the segment, and of the last.
const IDS: [(u64, &str); 3] = [
    (0, "0000000000000000-3cde4f4e7dcdc5f0"),
    (348, "0000000000010000-f88b0b15574e8f3a"),
    (599, "000000000001c0e0-f88b0b15574e8f3a"),
];

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v2")
}

fn options() -> Options {
    Options {
        schema: Some("golden".to_owned()),
        ..flush()
    }
}

fn message(number: u64) -> (u64, String) {
    (number, "walchan ".repeat(number as usize % 40))
}

fn copy(from: &Path, to: &Path) {
    for name in FILES {
        let bytes = std::fs::read(from.join(name)).unwrap();
        std::fs::write(to.join(name), bytes).unwrap();
    }
}

/// Makes them: `cargo test --test format_chain make_the_golden_files -- --ignored --nocapture`. Once: files
/// made by the code that reads them would prove nothing. Prints the ids for the table above.
#[test]
#[ignore = "overwrites the golden files"]
fn make_the_golden_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let (tx, rx) = channel_with_options(&path, options()).unwrap();
    (0..MESSAGES).for_each(|n| tx.send(message(n)).unwrap());
    drop(tx);
    rx.close().unwrap();
    std::fs::create_dir_all(golden()).unwrap();
    copy(dir.path(), &golden());
    let (_tx, rx) = channel_with_options::<(u64, String)>(&path, options()).unwrap();
    for delivery in rx.try_iter() {
        println!("    ({}, \"{}\"),", delivery.0, Delivery::id(&delivery));
        Delivery::leave(delivery);
    }
}

#[test]
fn the_golden_files_of_version_2_deliver_what_they_held() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    copy(&golden(), dir.path());
    let path = dir.path().join("q");
    let (tx, rx) = channel_with_options(&path, options()).unwrap();
    let report = rx.recovery();
    assert!(report.is_clean());
    assert_eq!((report.kept(), report.redelivered()), (MESSAGES, 0));
    let mut ids = IDS.iter().peekable();
    for n in 0..MESSAGES {
        let delivery = rx.recv().unwrap();
        assert_eq!(*delivery, message(n));
        if let Some((_, id)) = ids.next_if(|(number, _)| *number == n) {
            assert_eq!(Delivery::id(&delivery), id.parse().unwrap());
        }
    }
    assert_eq!(ids.next(), None);
    // It goes on as any other channel.
    tx.send(message(7)).unwrap();
    assert_eq!(*rx.recv().unwrap(), message(7));
}
