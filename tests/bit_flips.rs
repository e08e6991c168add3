//! Every bit that a small file uses flipped, one at a time: an error or a channel; never a panic, never a
//! wrong message, never a loss in silence.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use support::{HEADER, flush, quick_dir, watchdog};
use walchan::{Delivery, Error, RecoveryReport, RecvError};

const MESSAGES: usize = 6;

fn text(n: usize) -> String {
    format!("{n}{}", "abcdefghij".repeat(n / 2))
}

/// A file with six messages, the first of which is acknowledged and the second handed out: closed in
/// order, with all of it durable; or as it was while it lived, with none of it durable.
fn make(dir: &Path, closed: bool) -> Vec<u8> {
    let path = dir.join("made");
    let open = || walchan::channel_with_options::<String>(&path, flush()).unwrap();
    let (tx, rx) = open();
    (0..MESSAGES).for_each(|n| tx.send(text(n)).unwrap());
    drop(rx.recv().unwrap());
    Delivery::leave(rx.recv().unwrap());
    if !closed {
        return std::fs::read(&path).unwrap();
    }
    drop((tx, rx));
    drop(open());
    std::fs::read(&path).unwrap()
}

/// What became of a file.
struct Opened {
    texts: Vec<String>,
    corrupt: usize,
    report: RecoveryReport,
}

fn open(path: &Path) -> Result<Opened, Error> {
    let (tx, rx) = walchan::channel_with_options::<String>(path, flush())?;
    // New messages flow, whatever is left of the old ones.
    tx.send("new".to_owned()).unwrap();
    drop(tx);
    let (mut texts, mut corrupt) = (Vec::new(), 0);
    loop {
        match rx.recv() {
            Ok(d) => texts.push(d.into_inner()),
            Err(RecvError::Corrupt(_)) => corrupt += 1,
            Err(RecvError::Disconnected) => break,
            Err(e) => panic!("{e}"),
        }
    }
    assert_eq!(texts.pop().as_deref(), Some("new"));
    let report = rx.recovery().clone();
    Ok(Opened {
        texts,
        corrupt,
        report,
    })
}

/// The bytes that mean something: each with all its bits; of the rest one in so many, with one bit. What all
/// files have in common, identity and tables, is looked at in one of them.
fn places(bytes: &[u8], closed: bool) -> Vec<(usize, u8)> {
    let common: [Range<usize>; 4] = [
        0..300,
        4092..4096,
        4096..4096 + 64 + 4 * 32,
        9 * 4096..9 * 4096 + 64 + 4 * 32,
    ];
    let own: [Range<usize>; 3] = [
        17 * 4096..17 * 4096 + 64,
        18 * 4096..18 * 4096 + 64,
        HEADER..HEADER + 400,
    ];
    let common = if closed { &common[..] } else { &[] };
    let rest = if cfg!(feature = "stress") { 7 } else { 151 };
    let mut places = Vec::new();
    for at in 0..bytes.len() {
        if common.iter().chain(&own).any(|range| range.contains(&at)) {
            places.extend((0..8).map(|bit| (at, bit)));
        } else if at % rest == 0 {
            places.push((at, (at / rest % 8) as u8));
        }
    }
    places
}

fn flip_each(closed: bool, check: impl Fn(usize, Result<Opened, Error>)) {
    let dir = quick_dir();
    let mut bytes = make(dir.path(), closed);
    let path = dir.path().join("flipped");
    let all: Vec<_> = (1..MESSAGES).map(text).collect();
    for (at, bit) in places(&bytes, closed) {
        bytes[at] ^= 1 << bit;
        std::fs::write(&path, &bytes).unwrap();
        bytes[at] ^= 1 << bit;
        let opened = open(&path);
        if let Ok(opened) = &opened {
            // What is delivered was sent, in its order, once.
            let mut rest = all.iter();
            for text in &opened.texts {
                assert!(
                    rest.any(|sent| sent == text),
                    "byte {at} bit {bit}: {:?}",
                    opened.texts
                );
            }
            assert!(
                opened.texts.len() + 1 >= all.len(),
                "byte {at} bit {bit}: {:?}",
                opened.texts
            );
        }
        check(at, opened);
    }
}

#[test]
fn no_bit_of_a_closed_file_changes_or_hides_a_message() {
    let _dog = watchdog();
    flip_each(true, |at, opened| match opened {
        Err(e) => {
            assert!(at < 4096, "byte {at}: {e}");
            assert!(matches!(e, Error::Corrupt { .. }), "byte {at}: {e}");
        }
        Ok(opened) => {
            assert!(at >= 4096, "byte {at} of the identity went unnoticed");
            let lost = MESSAGES - 1 - opened.texts.len();
            assert_eq!(opened.corrupt, lost, "byte {at}: {}", opened.report);
            if at < HEADER {
                assert_eq!(lost, 0, "byte {at}");
                let faults = opened.report.header_faults();
                assert_eq!(faults.len(), 1, "byte {at}");
                let page = faults[0].0 as usize;
                let table = page < 17 * 4096;
                let len = if table { 8 * 4096 } else { 4096 };
                assert!(
                    (page..page + len).contains(&at),
                    "byte {at}: {}",
                    opened.report
                );
            }
        }
    });
}

#[test]
fn no_bit_of_a_living_file_changes_a_message_or_hides_one_but_the_last() {
    let _dog = watchdog();
    let lost_in_silence = std::cell::RefCell::new(BTreeSet::new());
    flip_each(false, |at, opened| match opened {
        Err(e) => {
            assert!(at < 4096, "byte {at}: {e}");
            assert!(matches!(e, Error::Corrupt { .. }), "byte {at}: {e}");
        }
        Ok(opened) => {
            let lost = MESSAGES - 1 - opened.texts.len();
            if at < HEADER {
                assert_eq!(
                    (lost, opened.report.header_faults().len()),
                    (0, 1),
                    "byte {at}"
                );
            }
            let report = &opened.report;
            let reported =
                report.stepped_over() + report.damaged().len() as u64 + opened.corrupt as u64;
            if lost == 1 && reported == 0 {
                // Its first word names nothing, and nothing follows: as if it had not been sent.
                assert!(
                    !opened.texts.contains(&text(MESSAGES - 1)),
                    "byte {at}: {report}"
                );
                lost_in_silence.borrow_mut().insert(at);
            }
        }
    });
    let bytes = lost_in_silence.into_inner();
    assert_eq!(bytes.len(), 7, "the word without its state: {bytes:?}");
}
