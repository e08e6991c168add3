//! A page that comes late: the thread that stores to it waits, and no other.

#![allow(clippy::unwrap_used)]

use rustix::fd::{AsRawFd, OwnedFd};
use rustix::mm::{UserfaultfdFlags, userfaultfd};
use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use walchan::{Delivery, Durability, Options};

const PAGE_LEN: u64 = 4096;

/// Where the ring begins in the file.
const HEADER_LEN: u64 = 19 * PAGE_LEN;

// linux/userfaultfd.h
const UFFD_API: u64 = 0xaa;
const FEATURES: u64 = 1 | 1 << 12; // write protection of anonymous memory, and of shared
const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
const UFFDIO_WRITEPROTECT: libc::c_ulong = 0xc018_aa06;
const REGISTER_MODE_WP: u64 = 2;
const MESSAGE_LEN: usize = 32;

/// Hands `words` to the kernel. `false`: it cannot do that.
#[allow(unsafe_code)]
fn ask<const N: usize>(fd: &OwnedFd, request: libc::c_ulong, mut words: [u64; N]) -> bool {
    // SAFETY: each request reads and writes just the words that it is given here.
    unsafe { libc::ioctl(fd.as_raw_fd(), request, words.as_mut_ptr()) == 0 }
}

#[allow(unsafe_code)]
fn fault_reader() -> Option<OwnedFd> {
    // SAFETY: no page is registered; faults of those that will be are answered below.
    unsafe { userfaultfd(UserfaultfdFlags::CLOEXEC) }.ok()
}

/// Where a file is mapped.
fn mapping_of(path: &Path) -> u64 {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mut lines = maps.lines();
    let line = lines.find(|line| line.ends_with(path.to_str().unwrap()));
    let (start, _) = line.unwrap().split_once('-').unwrap();
    u64::from_str_radix(start, 16).unwrap()
}

/// The state was stored while the thread was alone with the count, and the other one waited for that.
#[test]
fn an_acknowledgement_waits_for_no_page_of_another() {
    // The page has to be in memory that the kernel can protect for others: that of a tmpfs.
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = dir.path().join("queue");
    let options = Options {
        durability: Durability::FlushOnly,
        ring_bytes: Some(1 << 20),
        ..Options::default()
    };
    let (tx, rx) = walchan::channel_with_options::<Vec<u8>>(&path, options).unwrap();
    let messages = [(); 3].map(|()| {
        tx.send(vec![1; 8000]).unwrap();
        rx.recv().unwrap()
    });
    let [first, late, other] = messages;
    // From now on this thread is the one that acknowledges.
    drop(first);

    let offset = HEADER_LEN + Delivery::id(&late).position();
    let page = (mapping_of(&path) + offset) & !(PAGE_LEN - 1);
    let protect = |fd: &OwnedFd, on: u64| ask(fd, UFFDIO_WRITEPROTECT, [page, PAGE_LEN, on]);
    let faults = fault_reader().filter(|fd| {
        ask(fd, UFFDIO_API, [UFFD_API, FEATURES, 0])
            && ask(fd, UFFDIO_REGISTER, [page, PAGE_LEN, REGISTER_MODE_WP, 0])
            && protect(fd, 1)
    });
    let Some(faults) = faults else {
        eprintln!("not run: the kernel has no userfaultfd that protects, or not for us");
        return;
    };
    thread::scope(|scope| {
        let beside = scope.spawn(|| {
            // The store of `late` is waiting for its page now.
            let mut message = [0; MESSAGE_LEN];
            rustix::io::read(&faults, &mut message).unwrap();
            let (done, wait) = mpsc::channel();
            let dropping = thread::spawn(move || {
                drop(other);
                done.send(()).ok();
            });
            let went_on = wait.recv_timeout(Duration::from_secs(30)).is_ok();
            assert!(protect(&faults, 0));
            dropping.join().unwrap();
            went_on
        });
        drop(late);
        assert!(beside.join().unwrap(), "it waited for the page");
    });
}
