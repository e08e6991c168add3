//! What a bounded channel asks of the system once it is open: syncs, and nothing that makes a file or has it
//! grow.
#![allow(clippy::unwrap_used)] // a test that cannot go on fails

mod calls;

use calls::Place;
use calls::script::{DURABILITIES, child, run_if_child};
use std::os::unix::fs::MetadataExt;
use system_tests::trace::{Event, Verdict, watch};

/// Calls after which there can be more on the disk than before.
const GROWING: [&str; 11] = [
    "openat",
    "write",
    "pwrite64",
    "ftruncate",
    "fallocate",
    "renameat2",
    "rename",
    "linkat",
    "mkdir",
    "mkdirat",
    "ioctl",
];

#[test]
fn an_open_bounded_channel_makes_no_call_that_allocates() {
    run_if_child();
    let test = "an_open_bounded_channel_makes_no_call_that_allocates";
    for durability in DURABILITIES {
        let place = Place::new(None);
        let mut blocks = Vec::new();
        let path = place.path();
        let mut child = child(test, "laps", durability, &path);
        let ended = watch(&mut child, place.dir(), &mut |_| {
            // While the thread waits for this answer.
            blocks.extend(std::fs::metadata(&path).map(|file| file.blocks()));
            Verdict::Continue
        });
        assert!(ended.status.success(), "{}", ended.stderr);
        let said = |what: &str| {
            let is_it = |event: &Event| matches!(event, Event::Said(line) if line == what);
            ended.events.iter().position(is_it).unwrap()
        };
        let open = &ended.events[said("= open ok")..said("= close ok")];
        let calls = || {
            open.iter().filter_map(|event| match event {
                Event::Call(call, _) => Some(call),
                Event::Said(_) => None,
            })
        };
        for call in calls() {
            assert!(!GROWING.contains(&call.name.as_str()), "{call:?}");
        }
        let synced = calls().filter(|call| call.name == "fdatasync").count();
        assert!(
            synced > if durability == "send" { 60 } else { 0 },
            "{synced}"
        );
        assert_eq!(blocks.last(), blocks.iter().max());
        let names = std::fs::read_dir(path.parent().unwrap()).unwrap();
        assert_eq!(names.count(), 1);
    }
}
