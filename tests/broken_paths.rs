//! What lies beside a channel is not the channel's to destroy.
#![allow(clippy::unwrap_used)]

mod support;

use std::process::Stdio;
use support::{child, find, flush, role, watchdog};
use walchan::{Error, RecvError};

#[test]
fn making_a_channel_leaves_a_channel_of_a_similar_name_alone() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let other = dir.path().join("q.new");
    let (tx, rx) = walchan::channel_with_options::<u64>(&other, flush()).unwrap();
    tx.send(17).unwrap();
    // While it is open, and when it is closed.
    drop(walchan::channel_with_options::<u64>(dir.path().join("q"), flush()).unwrap());
    std::fs::remove_file(dir.path().join("q")).unwrap();
    drop((tx, rx));
    drop(walchan::channel_with_options::<u64>(dir.path().join("q"), flush()).unwrap());
    let (_tx, rx) = walchan::channel_with_options::<u64>(&other, flush()).unwrap();
    assert!(!rx.recovery().is_created());
    assert_eq!(rx.try_recv().unwrap(), 17);
}

#[test]
fn the_name_of_a_file_in_the_making_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q.walchan-new");
    let opened = walchan::channel_with_options::<u64>(&path, flush());
    assert!(matches!(opened.unwrap_err(), Error::Invalid(_)));
    assert!(!path.exists());
}

#[test]
fn what_is_set_aside_lies_beside_the_channel_wherever_the_process_went() {
    const NAME: &str = "what_is_set_aside_lies_beside_the_channel_wherever_the_process_went";
    let _dog = watchdog();
    if role().is_some() {
        let (tx, rx) = walchan::channel_with_options::<u8>("q", flush()).unwrap();
        tx.send(7).unwrap();
        drop((tx, rx));
        let (_tx, rx) = walchan::channel_with_options::<String>("q", flush()).unwrap();
        std::fs::create_dir("elsewhere").unwrap();
        std::env::set_current_dir("elsewhere").unwrap();
        let Err(RecvError::Undecodable(message)) = rx.recv() else {
            panic!("a byte is no text");
        };
        let copy = message.set_aside().unwrap();
        assert_eq!(std::fs::read(copy).unwrap(), [7]);
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut made = child(NAME, "x");
    let status = made.current_dir(dir.path()).stdout(Stdio::null()).status();
    assert!(status.unwrap().success());
    let beside = std::fs::read_dir(dir.path()).unwrap();
    let asides = beside.filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().ends_with(".aside")
    });
    assert_eq!(asides.count(), 1);
}

#[test]
fn a_link_in_place_of_a_half_made_copy_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let (tx, rx) = walchan::channel_with_options::<u8>(&path, flush()).unwrap();
    tx.send(7).unwrap();
    drop((tx, rx));
    let (tx, rx) = walchan::channel_with_options::<String>(&path, flush()).unwrap();
    let Err(RecvError::Undecodable(message)) = rx.recv() else {
        panic!("a byte is no text");
    };
    let foreign = dir.path().join("foreign");
    std::fs::write(&foreign, b"not ours").unwrap();
    let part = dir.path().join(format!("q.{}.aside.part", message.id()));
    std::os::unix::fs::symlink(&foreign, &part).unwrap();
    assert!(matches!(message.set_aside(), Err(Error::Io(_))));
    assert_eq!(std::fs::read(&foreign).unwrap(), b"not ours");
    std::fs::remove_file(part).unwrap();
    drop((tx, rx));
    let (_tx, rx) = walchan::channel_with_options::<String>(&path, flush()).unwrap();
    let Err(RecvError::Undecodable(message)) = rx.recv() else {
        panic!("a byte is no text");
    };
    message.set_aside().unwrap();
}

#[test]
fn a_link_in_place_of_a_half_made_file_is_not_followed() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let foreign = dir.path().join("foreign");
    std::fs::write(&foreign, b"not ours").unwrap();
    std::os::unix::fs::symlink(&foreign, dir.path().join("q.walchan-new")).unwrap();
    let opened = walchan::channel_with_options::<u64>(dir.path().join("q"), flush());
    assert!(matches!(opened.unwrap_err(), Error::Io(_)));
    assert_eq!(std::fs::read(&foreign).unwrap(), b"not ours");
}

#[test]
fn a_second_name_of_a_channel_is_never_taken_for_a_half_made_file() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let (tx, rx) = walchan::channel_with_options::<String>(&path, flush()).unwrap();
    tx.send("a message to keep".to_owned()).unwrap();
    drop((tx, rx));
    // Where a file cannot be renamed without replacing, it is linked: a crash can leave both names, and then
    // somebody moves the channel.
    let moved = dir.path().join("moved");
    std::fs::hard_link(&path, dir.path().join("q.walchan-new")).unwrap();
    std::fs::rename(&path, &moved).unwrap();
    drop(walchan::channel_with_options::<String>(&path, flush()).unwrap());
    find(&std::fs::read(&moved).unwrap(), b"a message to keep");
    let (_tx, rx) = walchan::channel_with_options::<String>(&moved, flush()).unwrap();
    assert_eq!(*rx.try_recv().unwrap(), "a message to keep");
    assert!(!dir.path().join("q.walchan-new").exists());
}
