//! A process that gives up the right to call `membarrier` while it has a channel open: what goes on goes on,
//! what cannot is an error, and nothing hangs or is lost.

#![allow(clippy::unwrap_used, clippy::disallowed_types)]

use std::io::ErrorKind;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Duration;
use system_tests::child::{child, end_in, role};
use walchan::{Delivery, Durability, Error, Options, RecvError, SendErrorKind};

const EPERM: u32 = 1;
const ENOMEM: u32 = 12;
const ENOSYS: u32 = 38;

/// From now on `membarrier` fails in all threads of this process, with this error.
#[allow(unsafe_code)]
fn refuse_membarrier(error: u32) {
    let statement = |code: u32, jf: u8, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf,
        k,
    };
    let is_it = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let mut filter = [
        // The number of the call is the first word of what a filter sees.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        statement(is_it, 1, libc::SYS_membarrier as u32),
        statement(libc::BPF_RET, 0, libc::SECCOMP_RET_ERRNO | error),
        statement(libc::BPF_RET, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the program lives until the call returns; the kernel checks and copies it.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let flags = libc::SECCOMP_FILTER_FLAG_TSYNC;
        let mode = libc::SECCOMP_SET_MODE_FILTER;
        assert_eq!(
            libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program),
            0
        );
    }
}

fn options(durability: &str) -> Options {
    Options {
        durability: match durability {
            "flush" => Durability::FlushOnly,
            "each" => Durability::SyncPerSend,
            _ => Durability::SyncEvery {
                max_ops: 8,
                max_delay: Duration::from_millis(1),
            },
        },
        ring_bytes: Some(64 << 10),
        ..Options::default()
    }
}

const DURABILITIES: [&str; 3] = ["flush", "each", "every"];

/// Runs the test again, in a process that hears of these.
fn run(name: &str, durability: &str, error: u32, path: &Path) {
    let role = format!("{durability} {error} {}", path.display());
    let status = child(name, &role).stdout(Stdio::null()).status().unwrap();
    assert!(status.success(), "{role}: {status}");
}

/// What a child is to do: the options, the error, the path.
fn task() -> Option<(Options, u32, String)> {
    let role = role()?;
    end_in(Duration::from_secs(120));
    let mut words = role.splitn(3, ' ');
    let options = options(words.next()?);
    let error = words.next()?.parse().unwrap();
    Some((options, error, words.next()?.to_owned()))
}

/// What the next open finds.
fn left(path: &Path) -> Vec<u64> {
    let (tx, rx) = walchan::channel_with_options::<u64>(path, options("flush")).unwrap();
    drop(tx);
    let left = rx.try_iter().map(Delivery::into_inner).collect();
    rx.close().unwrap();
    left
}

fn is_refused(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::PermissionDenied && error.to_string().contains("membarrier")
}

/// One thread that sends, one that receives: each is alone with its numbers. Both wait for the other again
/// and again, without a heavy fence.
#[test]
fn one_sender_and_one_receiver_go_on_without_membarrier() {
    if let Some((options, error, path)) = task() {
        let count = match options.durability {
            Durability::FlushOnly => 20_000,
            _ => 300,
        };
        let (tx, rx) = walchan::sync_channel_with_options::<u64>(path, 4, options).unwrap();
        refuse_membarrier(error);
        let sender = thread::spawn(move || (0..count).for_each(|n| tx.send(n).unwrap()));
        (0..count).for_each(|n| assert_eq!(rx.recv().unwrap(), n));
        assert_eq!(rx.recv().unwrap_err(), RecvError::Disconnected);
        sender.join().unwrap();
        rx.close().unwrap();
        return;
    }
    for durability in DURABILITIES {
        for error in [EPERM, ENOMEM, ENOSYS] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("q");
            let name = "one_sender_and_one_receiver_go_on_without_membarrier";
            run(name, durability, error, &path);
            assert_eq!(left(&path), []);
        }
    }
}

/// The first sender has the tail to itself, and the second cannot take that away: it hears why, and so do all
/// others.
#[test]
fn a_second_sender_without_membarrier_ends_the_channel_with_an_error() {
    if let Some((options, error, path)) = task() {
        let (tx, rx) = walchan::channel_with_options::<u64>(path, options).unwrap();
        (0..5).for_each(|n| tx.send(n).unwrap());
        assert_eq!(rx.recv().unwrap(), 0);
        // A receiver that sleeps already is woken.
        let (waits, is_waiting) = mpsc::channel();
        let receiver = thread::spawn(move || {
            let mut got = vec![0];
            waits.send(()).unwrap();
            loop {
                match rx.recv() {
                    // This thread could not acknowledge.
                    Ok(delivery) => {
                        got.push(*delivery);
                        Delivery::leave(delivery);
                    }
                    Err(RecvError::Io(error)) => break (got, error, rx),
                    Err(error) => panic!("{error}"),
                }
            }
        });
        is_waiting.recv().unwrap();
        thread::sleep(Duration::from_millis(20));
        refuse_membarrier(error);
        let second = tx.clone();
        let failed = thread::spawn(move || second.send(5).unwrap_err().kind);
        let SendErrorKind::Io(error) = failed.join().unwrap() else {
            panic!("another error");
        };
        assert!(is_refused(&error), "{error}");
        let (_, error, rx) = receiver.join().unwrap();
        assert!(is_refused(&error), "{error}");
        assert!(matches!(tx.send(6).unwrap_err().kind, SendErrorKind::Io(e) if is_refused(&e)));
        drop(tx);
        assert!(matches!(rx.close(), Err(Error::Io(e)) if is_refused(&e)));
        return;
    }
    for durability in DURABILITIES {
        for error in [EPERM, ENOMEM] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("q");
            let name = "a_second_sender_without_membarrier_ends_the_channel_with_an_error";
            run(name, durability, error, &path);
            assert_eq!(left(&path), [1, 2, 3, 4], "what was not acknowledged");
        }
    }
}

/// Another thread than the one that did until now acknowledges.
#[test]
fn a_second_acknowledger_without_membarrier_ends_the_channel_with_an_error() {
    if let Some((options, error, path)) = task() {
        let (tx, rx) = walchan::channel_with_options::<u64>(path, options).unwrap();
        (0..4).for_each(|n| tx.send(n).unwrap());
        drop(rx.recv().unwrap());
        let delivery = rx.recv().unwrap();
        refuse_membarrier(error);
        let acknowledged = thread::spawn(move || Delivery::ack(delivery))
            .join()
            .unwrap();
        assert!(matches!(acknowledged, Err(Error::Io(e)) if is_refused(&e)));
        assert!(matches!(tx.send(6).unwrap_err().kind, SendErrorKind::Io(e) if is_refused(&e)));
        drop(tx);
        assert!(matches!(rx.close(), Err(Error::Io(e)) if is_refused(&e)));
        return;
    }
    for durability in DURABILITIES {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        let name = "a_second_acknowledger_without_membarrier_ends_the_channel_with_an_error";
        run(name, durability, EPERM, &path);
        assert_eq!(left(&path), [2, 3]);
    }
}

/// What is opened behind the refusal does without, and so does what nobody had to himself before.
#[test]
fn a_channel_that_is_opened_without_membarrier_needs_none() {
    if let Some((options, error, path)) = task() {
        let other = format!("{path}-other");
        let first = walchan::channel_with_options::<u64>(&path, options.clone()).unwrap();
        refuse_membarrier(error);
        let second = walchan::channel_with_options::<u64>(other, options).unwrap();
        for (tx, rx) in [second, first] {
            let senders = [0, 1, 2].map(|_| {
                let tx = tx.clone();
                // More than a ring holds.
                thread::spawn(move || (0..2000).for_each(|n| tx.send(n).unwrap()))
            });
            drop(tx);
            let (work, works) = mpsc::sync_channel::<Delivery<u64>>(8);
            let works = Mutex::new(works);
            let workers = thread::scope(|scope| {
                let workers = [(); 2].map(|()| {
                    scope.spawn(|| {
                        let mut done = 0;
                        loop {
                            let delivery = works.lock().unwrap().recv();
                            match delivery {
                                Ok(delivery) => Delivery::ack(delivery).unwrap(),
                                Err(_) => break done,
                            }
                            done += 1;
                        }
                    })
                });
                rx.iter().for_each(|delivery| work.send(delivery).unwrap());
                drop(work);
                workers.map(|worker| worker.join().unwrap())
            });
            assert_eq!(workers.iter().sum::<u64>(), 6000);
            for sender in senders {
                sender.join().unwrap();
            }
            rx.close().unwrap();
        }
        return;
    }
    for durability in ["flush", "every"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        let name = "a_channel_that_is_opened_without_membarrier_needs_none";
        run(name, durability, EPERM, &path);
        assert_eq!(left(&path), []);
    }
}
