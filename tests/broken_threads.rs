//! Threads and processes at their ends.
#![allow(clippy::unwrap_used, clippy::disallowed_types)]

mod support;

use std::cell::RefCell;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;
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

/// What runs in a child of `fork`, on copies of what the parent has, before it becomes something else.
#[allow(unsafe_code)]
fn in_a_child(mut body: impl FnMut() -> bool + Send + Sync + 'static) -> bool {
    let mut command = Command::new("/bin/true");
    // SAFETY: `body` uses nothing that another thread of the parent could have locked; `fork` of the C
    // library, which is what the standard library calls here, leaves its heap and its threads usable in the
    // child.
    unsafe {
        command.pre_exec(move || {
            match std::panic::catch_unwind(std::panic::AssertUnwindSafe(&mut body)) {
                Ok(true) => Ok(()),
                _ => Err(std::io::Error::from_raw_os_error(1)),
            }
        });
    }
    command.status().is_ok_and(|status| status.success())
}

/// The child's threads get the handles that the parent's had.
#[test]
#[allow(unsafe_code)]
fn a_forked_child_that_drops_its_copy_can_join_its_own_threads() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let (tx, rx) = walchan::channel_with_options::<u64>(&path, flush()).unwrap();
    tx.send(1).unwrap();
    // The sender alone keeps the channel: with it the child drops the last that leads there.
    assert_eq!(
        rx.close().unwrap_err(),
        Error::InUse {
            senders: 1,
            deliveries: 0
        }
    );
    let tx = Box::new(tx);
    let address = std::ptr::from_ref(&*tx).expose_provenance();
    let child_is_well = in_a_child(move || {
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let wait = std::sync::Arc::new(std::sync::Mutex::new(wait));
        let threads = [(); 40].map(|()| {
            let wait = std::sync::Arc::clone(&wait);
            thread::spawn(move || wait.lock().unwrap().recv().is_err())
        });
        let copy = std::ptr::with_exposed_provenance::<Sender<u64>>(address);
        // SAFETY: the child's memory is a copy of the parent's, so the value is there, and is dropped once in
        // this process.
        drop(unsafe { std::ptr::read(copy) });
        drop(go_on);
        threads.into_iter().all(|thread| thread.join().is_ok())
    });
    assert!(child_is_well, "it could not join a thread of its own");
    // Nor did it unlock the file.
    let again = walchan::channel_with_options::<u64>(&path, flush());
    assert_eq!(again.unwrap_err(), Error::Locked);
    drop(tx);
    let (_tx, rx) = walchan::channel_with_options::<u64>(&path, flush()).unwrap();
    assert_eq!(rx.recv().unwrap(), 1);
}

#[test]
#[allow(unsafe_code)]
fn a_forked_child_that_closes_hears_that_the_channel_is_in_use() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let (tx, rx) = walchan::channel_with_options::<u64>(&path, flush()).unwrap();
    tx.send(1).unwrap();
    drop(tx);
    let rx = Box::new(rx);
    let address = std::ptr::from_ref(&*rx).expose_provenance();
    let hears = in_a_child(move || {
        let copy = std::ptr::with_exposed_provenance::<Receiver<u64>>(address);
        // SAFETY: as above.
        let rx = unsafe { std::ptr::read(copy) };
        matches!(rx.close(), Err(Error::InUse { .. }))
    });
    assert!(hears);
    let again = walchan::channel_with_options::<u64>(&path, flush());
    assert_eq!(again.unwrap_err(), Error::Locked);
    assert_eq!(rx.recv().unwrap(), 1);
    rx.close().unwrap();
}
