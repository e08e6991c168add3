//! Deliveries: acknowledged, left, given back, held; their counts and their ids.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::thread;
use support::{Random, every_durability, flush, watchdog, with};
use walchan::{Delivery, Error, MessageId, Receiver, SendErrorKind, SyncSender, TryRecvError};

fn open(path: &Path) -> (SyncSender<u64>, Receiver<u64>) {
    walchan::sync_channel_with_options(path, 1_000, flush()).unwrap()
}

/// What the next incarnation finds.
fn left(path: &Path) -> Vec<(u64, u32)> {
    let (_tx, rx) = open(path);
    rx.try_iter()
        .map(|d| {
            let found = (*d, Delivery::deliveries(&d));
            Delivery::leave(d);
            found
        })
        .collect()
}

#[test]
fn a_delivery_is_its_message() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let (tx, rx) = walchan::channel_with_options::<(u8, String)>(path, flush()).unwrap();
    tx.send((1, "one".to_owned())).unwrap();
    tx.send((1, "one".to_owned())).unwrap();
    let mut d = rx.recv().unwrap();
    assert_eq!(d.get().0, 1);
    assert_eq!(d.1.len(), 3);
    assert!(d == (1, "one".to_owned()));
    let other = rx.recv().unwrap();
    assert!(d == other);
    d.1.push('!');
    d.get_mut().0 = 2;
    assert!(d != other);
    assert_eq!(format!("{d:?}"), r#"Delivery((2, "one!"))"#);
    assert_eq!(d.into_inner(), (2, "one!".to_owned()));
    let (tx, rx) = open(&dir.path().join("r"));
    tx.send(5).unwrap();
    let d = rx.recv().unwrap();
    assert_eq!(d.copied(), 5);
    Delivery::leave(d);
    drop((tx, rx));
    assert_eq!(
        left(&dir.path().join("r")),
        [(5, 2)],
        "copying does not acknowledge"
    );
}

#[test]
fn only_what_is_acknowledged_is_gone() {
    let _dog = watchdog();
    for durability in every_durability() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        let (tx, rx) =
            walchan::sync_channel_with_options::<u64>(&path, 100, with(durability)).unwrap();
        (0..6).for_each(|n| tx.send(n).unwrap());
        drop(rx.recv().unwrap());
        Delivery::leave(rx.recv().unwrap());
        Delivery::ack(rx.recv().unwrap()).unwrap();
        assert_eq!(rx.recv().unwrap().into_inner(), 3);
        Delivery::leave(rx.recv().unwrap());
        assert_eq!(rx.recovery().kept(), 0);
        drop((tx, rx));
        let (_tx, rx) =
            walchan::sync_channel_with_options::<u64>(&path, 100, with(durability)).unwrap();
        assert_eq!(rx.recovery().kept(), 3);
        assert_eq!(rx.recovery().redelivered(), 2);
        drop((_tx, rx));
        assert_eq!(
            left(&path),
            [(1, 2), (4, 2), (5, 1)],
            "into_inner acknowledges"
        );
    }
}

#[test]
fn acknowledging_2_before_1_loses_neither() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let (tx, rx) = open(&path);
    tx.send(1).unwrap();
    tx.send(2).unwrap();
    let first = rx.recv().unwrap();
    drop(rx.recv().unwrap());
    Delivery::leave(first);
    drop((tx, rx));
    assert_eq!(left(&path), [(1, 2)]);
}

#[test]
fn deliveries_are_dropped_in_any_order_by_any_thread() {
    let _dog = watchdog();
    for durability in every_durability() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        let (tx, rx) =
            walchan::sync_channel_with_options::<u64>(&path, 100, with(durability)).unwrap();
        let messages = if durability == every_durability()[0] {
            1_500
        } else {
            300
        };
        let workers: Vec<_> = (0..3)
            .map(|w| {
                let (give, take) = std::sync::mpsc::sync_channel::<Delivery<u64>>(10);
                let worker = thread::spawn(move || {
                    let mut random = Random::new(w);
                    let (mut held, mut left) = (Vec::new(), Vec::new());
                    for d in take {
                        held.push(d);
                        if held.len() == 8 {
                            let d: Delivery<u64> = held.swap_remove(random.below(8) as usize);
                            // A few stay: less than the bound.
                            if *d % (messages / 9) == 5 {
                                left.push(*d);
                                Delivery::leave(d);
                            }
                        }
                    }
                    left
                });
                (give, worker)
            })
            .collect();
        let sender = thread::spawn(move || (0..messages).for_each(|n| tx.send(n).unwrap()));
        for (n, d) in rx.iter().enumerate() {
            workers[n % 3].0.send(d).unwrap();
        }
        sender.join().unwrap();
        let mut expected: Vec<u64> = Vec::new();
        for (give, worker) in workers {
            drop(give);
            expected.extend(worker.join().unwrap());
        }
        expected.sort_unstable();
        drop(rx);
        let found: Vec<_> = left(&path).into_iter().map(|(n, _)| n).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn a_message_whose_handler_panics_comes_back_next_in_this_incarnation() {
    let _dog = watchdog();
    for durability in every_durability() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        let (tx, rx) =
            walchan::sync_channel_with_options::<u64>(path, 100, with(durability)).unwrap();
        (0..4).for_each(|n| tx.send(n).unwrap());
        drop(rx.recv().unwrap());
        let mut id = None;
        for times in 1..=20 {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                let d = rx.recv().unwrap();
                assert_eq!(d, 1);
                assert_eq!(Delivery::deliveries(&d), times.min(14));
                assert_eq!(*id.get_or_insert(Delivery::id(&d)), Delivery::id(&d));
                std::panic::resume_unwind(Box::new("planned"));
            }));
            assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"planned"));
        }
        assert_eq!(rx.iter().take(3).map(|d| *d).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
    }
}

#[test]
fn messages_of_panicking_threads_come_back_in_order_and_wake_the_receiver() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let (tx, rx) = open(&dir.path().join("q"));
    (0..5).for_each(|n| tx.send(n).unwrap());
    let held: Vec<_> = rx.try_iter().collect();
    let worker = thread::spawn(move || {
        let _held: Vec<_> = held.into_iter().rev().collect();
        std::panic::resume_unwind(Box::new("planned"));
    });
    // Waits until they come: nothing else is there.
    let first = rx.recv().unwrap();
    assert!(worker.join().is_err());
    let mut back = vec![*first];
    back.extend(rx.try_iter().map(|d| *d));
    back.sort_unstable();
    assert_eq!(back, [0, 1, 2, 3, 4]);
    tx.send(9).unwrap();
    assert_eq!(rx.recv().unwrap(), 9);
}

#[test]
fn a_message_that_came_back_and_was_not_taken_stays_for_the_next_incarnation() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let (tx, rx) = open(&path);
    tx.send(1).unwrap();
    let d = rx.recv().unwrap();
    let thread = thread::spawn(move || {
        let _d = d;
        std::panic::resume_unwind(Box::new("planned"));
    });
    assert!(thread.join().is_err());
    drop((tx, rx));
    assert_eq!(left(&path), [(1, 2)]);
}

#[test]
fn a_held_delivery_keeps_the_channel_open_and_locked() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let (tx, rx) = open(&path);
    (0..2).for_each(|n| tx.send(n).unwrap());
    let first = rx.recv().unwrap();
    let second = rx.recv().unwrap();
    drop(tx);
    let in_use = Error::InUse {
        senders: 0,
        deliveries: 2,
    };
    assert_eq!(rx.close().unwrap_err(), in_use);
    assert_eq!(walchan::channel::<u64>(&path).unwrap_err(), Error::Locked);
    thread::spawn(move || drop(second)).join().unwrap();
    assert_eq!(walchan::channel::<u64>(&path).unwrap_err(), Error::Locked);
    Delivery::leave(first);
    assert_eq!(left(&path), [(0, 2)]);
}

#[test]
fn a_forgotten_delivery_keeps_the_channel_locked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let (tx, rx) = open(&path);
    tx.send(0).unwrap();
    std::mem::forget(rx.recv().unwrap());
    drop((tx, rx));
    assert_eq!(walchan::channel::<u64>(&path).unwrap_err(), Error::Locked);
}

#[test]
fn deliveries_are_counted_over_restarts_up_to_14() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let (tx, rx) = open(&path);
    tx.send(7).unwrap();
    drop((tx, rx));
    for incarnation in 1..=20 {
        assert_eq!(left(&path), [(7, incarnation.min(14))]);
    }
}

/// Restarted with a message that nobody can handle, and a new one each time. A file remembers 1022
/// incarnations that still have frames in it.
#[test]
fn a_message_that_is_left_in_each_of_a_thousand_incarnations_does_not_stop_the_channel() {
    let _dog = watchdog();
    let dir = support::quick_dir();
    let path = dir.path().join("q");
    let mut refused = 0;
    for incarnation in 0..1_030u32 {
        let (tx, rx) = open(&path);
        let sent = tx.send(u64::from(incarnation));
        if incarnation < 1_000 {
            assert!(sent.is_ok(), "{sent:?}");
        }
        let poison = rx.recv().unwrap();
        assert_eq!(poison, 0);
        assert_eq!(Delivery::deliveries(&poison), (incarnation + 1).min(14));
        Delivery::leave(poison);
        match sent {
            Ok(()) if incarnation == 0 => {}
            Ok(()) => assert_eq!(rx.recv().unwrap(), u64::from(incarnation)),
            Err(e) => {
                let full = SendErrorKind::Io(std::io::ErrorKind::StorageFull.into());
                assert_eq!(e.kind, full, "incarnation {incarnation}");
                refused += 1;
            }
        }
        assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
    }
    assert!(refused > 0, "more incarnations than fit");
    let (_tx, rx) = open(&path);
    assert_eq!(rx.recv().unwrap(), 0);
    drop((_tx, rx));
    let (tx, rx) = open(&path);
    tx.send(9).unwrap();
    assert_eq!(rx.recv().unwrap(), 9);
}

#[test]
fn a_full_table_has_room_after_a_kill_behind_the_acknowledgement_of_the_oldest() {
    let _dog = watchdog();
    let dir = support::quick_dir();
    let (path, copy) = (dir.path().join("q"), dir.path().join("copy"));
    for incarnation in 0..1_030 {
        let (tx, rx) = open(&path);
        tx.send(incarnation).ok();
        Delivery::leave(rx.recv().unwrap());
        rx.try_iter().for_each(drop);
    }
    let (_tx, rx) = open(&path);
    rx.try_iter().for_each(drop);
    std::fs::copy(&path, &copy).unwrap();
    let (tx, _rx) = open(&copy);
    tx.send(9).unwrap();
}

// === Ids ===

fn ids(path: &Path, count: usize) -> Vec<MessageId> {
    let (tx, rx) = open(path);
    let before = rx.try_iter().count();
    assert_eq!(before, 0);
    (0..count).for_each(|n| tx.send(n as u64).unwrap());
    rx.try_iter().map(|d| Delivery::id(&d)).collect()
}

#[test]
fn ids_are_unique_and_ordered_over_incarnations_and_laps() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let mut all = Vec::new();
    for _ in 0..20 {
        all.extend(ids(&path, 900));
    }
    assert!(all.is_sorted_by(|a, b| a < b));
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
}

#[test]
fn a_message_keeps_its_id_until_it_is_acknowledged() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let (tx, rx) = open(&path);
    tx.send(1).unwrap();
    let d = rx.recv().unwrap();
    let id = Delivery::id(&d);
    Delivery::leave(d);
    drop((tx, rx));
    for _ in 0..3 {
        let (tx, rx) = open(&path);
        tx.send(2).unwrap();
        let d = rx.recv().unwrap();
        assert_eq!(Delivery::id(&d), id);
        Delivery::leave(d);
    }
}

#[test]
fn restoring_a_backup_gives_no_id_twice() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let backup = dir.path().join("backup");
    let mut all = ids(&path, 10);
    std::fs::copy(&path, &backup).unwrap();
    all.extend(ids(&path, 10));
    for _ in 0..3 {
        std::fs::copy(&backup, &path).unwrap();
        all.extend(ids(&path, 10));
    }
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), 50);
}

#[test]
fn ids_are_texts_and_serde_values() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let some = ids(&dir.path().join("q"), 3);
    let (tx, rx) =
        walchan::channel_with_options::<MessageId>(dir.path().join("ids"), flush()).unwrap();
    for id in some {
        let text = id.to_string();
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(text.to_uppercase().parse(), Ok(id));
        assert_eq!(text.len(), 33);
        assert_eq!(text, format!("{:016x}-{:016x}", id.position(), id.tag()));
        for wrong in [
            &text[1..],
            &text[..32],
            "",
            "-",
            "+00000000000001-0000000000000001",
        ] {
            assert!(wrong.parse::<MessageId>().is_err(), "{wrong}");
        }
        tx.send(id).unwrap();
        assert_eq!(rx.recv().unwrap(), id);
    }
}
