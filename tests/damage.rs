//! What was on stable storage and is damaged: reported once in each incarnation, until it is acknowledged or
//! set aside; everything else flows.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use support::{HEADER, RING, find, flush, patch, watchdog};
use walchan::{
    Corrupt, DamageCause, Delivery, MessageId, Options, Receiver, RecvError, Sender, TryRecvError,
    TrySendError,
};

const TEXTS: [&str; 5] = [
    "message zero",
    "message one",
    "message two",
    "message three",
    "message four",
];

fn open(path: &Path) -> (Sender<String>, Receiver<String>) {
    walchan::channel_with_options(path, flush()).unwrap()
}

/// A closed file with the five texts, all durable; and their ids.
fn make(path: &Path) -> Vec<MessageId> {
    let (tx, rx) = open(path);
    TEXTS
        .iter()
        .for_each(|text| tx.send((*text).to_owned()).unwrap());
    let ids = rx
        .try_iter()
        .map(|d| {
            let id = Delivery::id(&d);
            Delivery::leave(d);
            id
        })
        .collect();
    drop((tx, rx));
    // Without real syncs no close makes them durable, but each open does.
    drop(open(path));
    ids
}

/// Flips a bit at a distance from a text.
fn flip(path: &Path, text: &str, distance: isize) {
    patch(path, |bytes| {
        let at = find(bytes, text.as_bytes())
            .checked_add_signed(distance)
            .unwrap();
        bytes[at] ^= 4;
    });
}

fn corrupt(received: Result<Delivery<String>, RecvError>) -> Corrupt {
    match received {
        Err(RecvError::Corrupt(c)) => c,
        Err(e) => panic!("{e}"),
        Ok(d) => panic!("{d:?} was delivered"),
    }
}

/// The texts that are delivered, each left or acknowledged, and the damaged positions between them.
fn drain(path: &Path, acknowledge: bool) -> (Vec<String>, Vec<u64>) {
    let (tx, rx) = open(path);
    drop(tx);
    let (mut texts, mut positions) = (Vec::new(), Vec::new());
    loop {
        match rx.recv() {
            Ok(d) => {
                texts.push(d.clone());
                if !acknowledge {
                    Delivery::leave(d);
                }
            }
            Err(RecvError::Corrupt(c)) => positions.push(c.position()),
            Err(RecvError::Disconnected) => return (texts, positions),
            Err(e) => panic!("{e}"),
        }
    }
}

fn all_but(missing: &[usize]) -> Vec<String> {
    let kept = TEXTS
        .iter()
        .enumerate()
        .filter(|(n, _)| !missing.contains(n));
    kept.map(|(_, text)| (*text).to_owned()).collect()
}

#[test]
fn damage_is_returned_once_an_incarnation_in_its_place_and_the_rest_flows() {
    let _dog = watchdog();
    // Payload, its length for serde, checksum, length and kind, position, state.
    for distance in [0, 5, -8, -9, -12, -13, -16, -17, -24] {
        for n in 0..TEXTS.len() {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("q");
            let ids = make(&path);
            flip(&path, TEXTS[n], distance);
            for _ in 0..2 {
                let (tx, rx) = open(&path);
                for (m, text) in TEXTS.iter().enumerate() {
                    if m == n {
                        let c = corrupt(rx.recv());
                        assert_eq!(c.position(), ids[n].position(), "{n} {distance}");
                        assert_eq!(c.id(), ids[n]);
                        assert_eq!(c.bytes().len() % 16, 0);
                        assert!(c.bytes().len() >= 32);
                        assert!(c.to_string().contains("damaged"));
                        // Only a header that does not name its place is none.
                        let named = matches!(c.cause(), DamageCause::Checksum);
                        assert_eq!(named, distance != -17, "{n} {distance}");
                    } else {
                        let d = rx.recv().unwrap();
                        assert_eq!(*d, *text);
                        assert_eq!(Delivery::id(&d), ids[m]);
                        Delivery::leave(d);
                    }
                }
                assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
                drop(tx);
            }
        }
    }
}

#[test]
fn damage_that_is_set_aside_is_in_a_file_and_gone_in_the_next_incarnation() {
    let _dog = watchdog();
    for n in 0..TEXTS.len() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        let ids = make(&path);
        flip(&path, TEXTS[n], 1);
        {
            let (_tx, rx) = open(&path);
            (0..n).for_each(|_| Delivery::leave(rx.recv().unwrap()));
            let c = corrupt(rx.recv());
            let bytes = c.bytes().to_vec();
            let copy = c.set_aside().unwrap();
            assert_eq!(copy.parent(), path.parent());
            assert!(copy.to_str().unwrap().contains(&ids[n].to_string()));
            assert_eq!(std::fs::read(&copy).unwrap(), bytes);
            let rest = &TEXTS[n].as_bytes()[2..];
            assert!(bytes.windows(rest.len()).any(|part| part == rest));
        }
        assert_eq!(drain(&path, false), (all_but(&[n]), vec![]));
        assert_eq!(drain(&path, true), (all_but(&[n]), vec![]));
        let (_tx, rx) = open(&path);
        assert_eq!(rx.recovery().kept(), 0, "{}", rx.recovery());
    }
}

#[test]
fn damage_that_is_left_stays_and_nothing_acknowledged_behind_it_comes_back() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let ids = make(&path);
    flip(&path, TEXTS[1], 1);
    let damaged = vec![ids[1].position()];
    assert_eq!(drain(&path, true), (all_but(&[1]), damaged.clone()));
    for _ in 0..3 {
        assert_eq!(drain(&path, true), (vec![], damaged.clone()));
    }
    let (tx, rx) = open(&path);
    tx.send("new".to_owned()).unwrap();
    corrupt(rx.recv()).acknowledge().unwrap();
    assert_eq!(*rx.recv().unwrap(), "new");
    drop((tx, rx));
    assert_eq!(drain(&path, true), (vec![], vec![]));
}

#[test]
fn damage_in_a_file_that_was_not_closed_is_in_the_report_and_delivered_in_its_place() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("q"), dir.path().join("copy"));
    let ids = make(&path);
    {
        let (tx, _rx) = open(&path);
        tx.send("of this incarnation".to_owned()).unwrap();
        std::fs::copy(&path, &copy).unwrap();
    }
    // The first word of a frame below the commit: only following the frames shows that it is gone.
    flip(&copy, TEXTS[2], -20);
    {
        let (_tx, rx) = open(&copy);
        let report = rx.recovery();
        assert_eq!(report.damaged().len(), 1, "{report}");
        assert_eq!(report.damaged()[0].position(), ids[2].position());
        assert!(report.damaged()[0].was_durable());
        assert_eq!(report.kept(), 5);
    }
    let mut texts = all_but(&[2]);
    texts.push("of this incarnation".to_owned());
    assert_eq!(drain(&copy, false), (texts, vec![ids[2].position()]));
}

#[test]
fn damage_of_several_neighbours_loses_only_them() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let ids = make(&path);
    for n in [1, 2, 3] {
        flip(&path, TEXTS[n], -20);
    }
    let (texts, positions) = drain(&path, false);
    assert_eq!(texts, all_but(&[1, 2, 3]));
    assert_eq!(positions[0], ids[1].position());
    let (tx, rx) = open(&path);
    drop(tx);
    let mut released = 0;
    loop {
        match rx.recv() {
            Ok(_) => {}
            Err(RecvError::Corrupt(c)) => {
                c.set_aside().unwrap();
                released += 1;
            }
            Err(RecvError::Disconnected) => break,
            Err(e) => panic!("{e}"),
        }
    }
    assert_eq!(released, positions.len());
    drop(rx);
    assert_eq!(drain(&path, true), (vec![], vec![]));
}

#[test]
fn acknowledged_damage_gives_its_slot_of_the_bound_back() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    {
        let (tx, _rx) = walchan::sync_channel_with_options::<String>(&path, 1, flush()).unwrap();
        tx.send(TEXTS[0].to_owned()).unwrap();
    }
    drop(open(&path));
    flip(&path, TEXTS[0], 1);
    {
        let (tx, rx) = walchan::sync_channel_with_options::<String>(&path, 1, flush()).unwrap();
        corrupt(rx.recv()).acknowledge().unwrap();
        tx.try_send("new".to_owned()).unwrap();
        assert_eq!(
            tx.try_send("x".to_owned()),
            Err(TrySendError::Full("x".to_owned()))
        );
        assert_eq!(*rx.recv().unwrap(), "new");
        tx.try_send("newer".to_owned()).unwrap();
    }
    let (_tx, rx) = open(&path);
    assert_eq!(rx.recovery().kept(), 1, "{}", rx.recovery());
}

#[test]
fn acknowledged_damage_gives_its_space_back() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    make(&path);
    flip(&path, TEXTS[0], 1);
    let options = Options {
        max_bytes: Some(HEADER as u64 + RING),
        ..flush()
    };
    let (tx, rx) = walchan::channel_with_options::<String>(&path, options).unwrap();
    let c = corrupt(rx.recv());
    assert_eq!(rx.try_iter().count(), 4);
    // The ring is as good as empty, but for the first place in it.
    let mut sent = 0;
    while tx.send("x".repeat(1000)).is_ok() {
        sent += 1;
        assert_eq!(rx.try_iter().count(), 1);
    }
    assert!((50..70).contains(&sent), "{sent}");
    c.acknowledge().unwrap();
    for _ in 0..200 {
        tx.send("x".repeat(1000)).unwrap();
        assert_eq!(rx.try_iter().count(), 1);
    }
}
