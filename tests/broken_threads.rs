//! Threads and processes at their ends.
#![allow(clippy::unwrap_used)]

mod support;

use std::cell::RefCell;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use support::{child, flush, role, watchdog};
use walchan::{Error, Receiver, Sender};

struct LastWords(Sender<String>);

impl Drop for LastWords {
    fn drop(&mut self) {
        self.0.send("the thread ended".to_owned()).unwrap();
    }
}

thread_local! {
    static LAST_WORDS: RefCell<Option<LastWords>> = const { RefCell::new(None) };
}

#[test]
fn a_thread_local_can_send_when_its_thread_ends() {
    const NAME: &str = "a_thread_local_can_send_when_its_thread_ends";
    let _dog = watchdog();
    if role().is_none() {
        // In a process of its own: a panic there ends the process.
        let mut run = child(NAME, "x");
        assert!(run.stdout(Stdio::null()).status().unwrap().success());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (tx, rx) = walchan::channel_with_options(dir.path().join("q"), flush()).unwrap();
    let thread = std::thread::spawn(move || {
        // Made before the first send of this thread, so gone after what that send made.
        LAST_WORDS.set(Some(LastWords(tx.clone())));
        tx.send("the thread runs".to_owned()).unwrap();
    });
    thread.join().unwrap();
    let texts: Vec<String> = rx.iter().map(|text| text.into_inner()).collect();
    assert_eq!(texts, ["the thread runs", "the thread ended"]);
}

#[test]
#[allow(unsafe_code)]
fn a_forked_child_that_drops_its_copy_neither_hangs_nor_unlocks_nor_closes() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let ends: Box<(Sender<u64>, Receiver<u64>)> =
        Box::new(walchan::channel_with_options(&path, flush()).unwrap());
    ends.0.send(1).unwrap();
    let address = std::ptr::from_ref(&*ends).expose_provenance();
    let mut command = Command::new("/bin/true");
    // SAFETY: between fork and exec the child's memory is a copy of the parent's, so the value at `address`
    // is there and is dropped once in this process; no other thread of the parent uses the channel now.
    unsafe {
        command.pre_exec(move || {
            let copy = std::ptr::with_exposed_provenance::<(Sender<u64>, Receiver<u64>)>(address);
            drop(std::ptr::read(copy));
            Ok(())
        });
    }
    assert!(command.status().unwrap().success());
    let again = walchan::channel_with_options::<u64>(&path, flush());
    assert_eq!(again.unwrap_err(), Error::Locked);
    // The child's end is not the channel's end.
    let copy = dir.path().join("copy");
    std::fs::write(&copy, std::fs::read(&path).unwrap()).unwrap();
    let (_tx, rx) = walchan::channel_with_options::<u64>(&copy, flush()).unwrap();
    assert!(!rx.recovery().is_clean());
    let (tx, rx) = *ends;
    tx.send(2).unwrap();
    assert_eq!(rx.recv().unwrap(), 1);
    assert_eq!(rx.recv().unwrap(), 2);
}
