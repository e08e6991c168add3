//! One owner at a time, whoever asks; and what may lie at a path.
#![allow(clippy::unwrap_used, clippy::disallowed_types)]

mod support;

use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use support::{HEADER, RING, child, flush, role, watchdog, with};
use walchan::{Delivery, Durability, Error, Options, Receiver, Sender};

fn open(path: &Path) -> Result<(Sender<u64>, Receiver<u64>), Error> {
    walchan::channel_with_options(path, flush())
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_second_owner_in_the_same_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let (tx, rx) = open(&path).unwrap();
    assert_eq!(open(&path).unwrap_err(), Error::Locked);
    tx.send(1).unwrap();
    drop(rx);
    assert_eq!(
        open(&path).unwrap_err(),
        Error::Locked,
        "a sender keeps it open"
    );
    drop(tx);
    let (tx, rx) = open(&path).unwrap();
    assert_eq!(rx.recv().unwrap(), 1);
    drop(tx);
    assert_eq!(
        open(&path).unwrap_err(),
        Error::Locked,
        "the receiver keeps it open"
    );
    drop(rx);
    // By another name, too.
    let other = dir.path().join("link");
    symlink(&path, &other).unwrap();
    let (tx, _rx) = open(&path).unwrap();
    tx.send(2).unwrap();
    assert_eq!(open(&other).unwrap_err(), Error::Locked);
}

#[test]
fn a_second_owner_in_another_process_is_refused() {
    let _dog = watchdog();
    if let Some(path) = role() {
        let opened = walchan::channel_with_options::<u64>(path, flush());
        let code = match opened {
            Err(Error::Locked) => 17,
            Err(_) => 18,
            Ok(_) => 19,
        };
        std::process::exit(code);
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let again = || {
        child(
            "a_second_owner_in_another_process_is_refused",
            path.to_str().unwrap(),
        )
        .stdout(Stdio::null())
        .status()
        .unwrap()
        .code()
    };
    let (tx, rx) = open(&path).unwrap();
    assert_eq!(again(), Some(17));
    drop((tx, rx));
    assert_eq!(again(), Some(19));
    open(&path).unwrap();
}

/// Opens until it is the owner, sends one message, goes.
fn visit(path: &Path, number: u64, inside: Option<&AtomicBool>) {
    loop {
        match open(path) {
            Ok((tx, rx)) => {
                let entered = inside.map(|inside| inside.swap(true, Ordering::SeqCst));
                assert_ne!(entered, Some(true), "two owners");
                tx.send(number).unwrap();
                if let Some(inside) = inside {
                    inside.store(false, Ordering::SeqCst);
                }
                drop((tx, rx));
                return;
            }
            Err(Error::Locked) => thread::yield_now(),
            Err(e) => panic!("{e}"),
        }
    }
}

fn all_are_there(path: &Path, count: u64) {
    let (_tx, rx) = open(path).unwrap();
    let mut got: Vec<_> = rx.try_iter().map(Delivery::into_inner).collect();
    got.sort_unstable();
    assert_eq!(got, (0..count).collect::<Vec<_>>());
    drop((_tx, rx));
    assert_eq!(names(path.parent().unwrap()), ["q"], "nothing else is left");
}

#[test]
fn threads_that_create_the_same_channel_own_it_one_after_another() {
    let _dog = watchdog();
    for _ in 0..15 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        let inside = AtomicBool::new(false);
        thread::scope(|scope| {
            for n in 0..6 {
                let (path, inside) = (&path, &inside);
                scope.spawn(move || visit(path, n, Some(inside)));
            }
        });
        all_are_there(&path, 6);
    }
}

#[test]
fn processes_that_create_the_same_channel_own_it_one_after_another() {
    let _dog = watchdog();
    let name = "processes_that_create_the_same_channel_own_it_one_after_another";
    if let Some(role) = role() {
        let (number, path) = role.split_once(' ').unwrap();
        visit(Path::new(path), number.parse().unwrap(), None);
        return;
    }
    for _ in 0..8 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er/q");
        let children: Vec<_> = (0..6)
            .map(|n| {
                child(name, &format!("{n} {}", path.display()))
                    .stdout(Stdio::null())
                    .spawn()
                    .unwrap()
            })
            .collect();
        for mut child in children {
            assert!(child.wait().unwrap().success());
        }
        all_are_there(&path, 6);
    }
}

/// A child shares its parent's open files between `fork` and `exec`, and a lock belongs to the open file.
#[test]
fn a_lock_that_is_given_back_does_not_stay_with_a_forked_child() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    let mut command = Command::new("/bin/true");
                    // SAFETY: what runs between fork and exec only sleeps: it takes no lock and allocates
                    // nothing.
                    unsafe {
                        command.pre_exec(|| {
                            thread::sleep(Duration::from_millis(20));
                            Ok(())
                        })
                    };
                    assert!(command.status().unwrap().success());
                }
            });
        }
        for n in 0..150 {
            let (tx, rx) = open(&path).unwrap();
            tx.send(n).unwrap();
            let d = rx.recv().unwrap();
            assert_eq!(d, n);
            drop((tx, rx));
            drop(d);
            if n % 10 == 0 {
                open(&dir.path().join(format!("new{n}"))).unwrap();
                open(&dir.path().join(format!("new{n}"))).unwrap();
            }
        }
        done.store(true, Ordering::SeqCst);
    });
}

// === What may lie at a path ===

/// Opens what is not a channel: an error, at once, and the directory is as before.
fn refused(dir: &Path, path: &Path) -> Error {
    let before = names(dir);
    let bytes = std::fs::metadata(path)
        .is_ok_and(|m| m.is_file())
        .then(|| std::fs::read(path).unwrap());
    let (sender, bounded) = (open(path), walchan::sync_channel::<u64>(path, 4));
    let e = sender.unwrap_err();
    assert_eq!(bounded.unwrap_err(), e);
    assert_eq!(names(dir), before);
    if let Some(bytes) = bytes {
        assert!(std::fs::read(path).unwrap() == bytes, "it was changed");
    }
    e
}

#[test]
fn what_is_no_regular_file_is_refused() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert_eq!(refused(dir.path(), &fifo), Error::NotRegular);
    assert_eq!(refused(dir.path(), dir.path()), Error::NotRegular);
    let socket = dir.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert_eq!(refused(dir.path(), &socket), Error::NotRegular);
    assert_eq!(
        refused(dir.path(), Path::new("/dev/null")),
        Error::NotRegular
    );
}

#[test]
fn a_link_that_leads_nowhere_is_refused() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("link");
    symlink(dir.path().join("missing"), &link).unwrap();
    let e = refused(dir.path(), &link);
    assert!(matches!(e, Error::Io(_)), "{e}");
    let round = dir.path().join("round");
    symlink(&round, &round).unwrap();
    assert!(matches!(refused(dir.path(), &round), Error::Io(_)));
}

#[test]
fn files_that_are_no_channels_are_refused_and_not_changed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let mut foreign = vec![
        b"a text\n".to_vec(),
        vec![0; HEADER + RING as usize],
        vec![0xff; 1 << 20],
    ];
    foreign.push(Vec::new());
    for bytes in foreign {
        std::fs::write(&path, &bytes).unwrap();
        let e = refused(dir.path(), &path);
        assert!(matches!(e, Error::Corrupt { .. }), "{e}");
        assert!(!e.to_string().is_empty());
    }
}

#[test]
fn a_channel_that_was_cut_short_is_refused_and_not_changed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let (tx, rx) = open(&path).unwrap();
    tx.send(1).unwrap();
    drop((tx, rx));
    let whole = std::fs::read(&path).unwrap();
    let len = HEADER + RING as usize;
    assert_eq!(whole.len(), len);
    let lengths = [
        1,
        4095,
        4096,
        4097,
        HEADER - 1,
        HEADER,
        HEADER + 1,
        len - 4096,
        len - 1,
    ];
    for cut in lengths {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let e = refused(dir.path(), &path);
        assert!(matches!(e, Error::Corrupt { .. }), "{cut}: {e}");
    }
    std::fs::write(&path, &whole).unwrap();
    let (_tx, rx) = open(&path).unwrap();
    assert_eq!(rx.recv().unwrap(), 1);
}

#[test]
fn parents_are_created_and_the_file_is_the_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/c/q");
    open(&path).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(names(path.parent().unwrap()), ["q"]);
    // A file where a directory should be.
    let e = open(&path.join("below")).unwrap_err();
    assert!(matches!(e, Error::Io(_)), "{e}");
}

#[test]
fn a_half_made_file_of_somebody_who_died_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    std::fs::write(dir.path().join("q.walchan-new"), vec![7; 200_000]).unwrap();
    let (tx, rx) = open(&path).unwrap();
    assert!(rx.recovery().is_created());
    tx.send(1).unwrap();
    assert_eq!(rx.recv().unwrap(), 1);
    drop((tx, rx));
    assert_eq!(names(dir.path()), ["q"]);
    assert_eq!(
        std::fs::metadata(&path).unwrap().len(),
        HEADER as u64 + RING
    );
}

#[test]
fn a_relative_path_is_one() {
    let _dog = watchdog();
    if role().is_some() {
        open(Path::new("q")).unwrap();
        open(&PathBuf::from("sub/q")).unwrap();
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut made = child("a_relative_path_is_one", "x");
    let status = made.current_dir(dir.path()).stdout(Stdio::null()).status();
    assert!(status.unwrap().success());
    assert_eq!(names(dir.path()), ["q", "sub"]);
}

#[test]
fn every_block_of_a_new_file_is_allocated() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    for (name, durability) in [("a", Durability::FlushOnly), ("b", Durability::SyncPerSend)] {
        let path = dir.path().join(name);
        let options = Options {
            ring_bytes: Some(1 << 20),
            ..with(durability)
        };
        let opened = walchan::channel_with_options::<u64>(&path, options).unwrap();
        let meta = std::fs::metadata(&path).unwrap();
        assert_eq!(meta.len(), HEADER as u64 + (1 << 20));
        // Delayed allocation shows after a sync at the latest.
        std::fs::File::open(&path).unwrap().sync_all().unwrap();
        assert!(std::fs::metadata(&path).unwrap().blocks() * 512 >= meta.len());
        drop(opened);
    }
    let mut begin = [0; 5];
    let mut file = std::fs::File::open(dir.path().join("a")).unwrap();
    file.read_exact(&mut begin).unwrap();
    assert_eq!(&begin, b"\x89WALC");
}
