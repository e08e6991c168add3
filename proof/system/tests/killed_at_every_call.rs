//! A process is killed at each system call that it makes, one process for each. What it said before is what
//! must hold afterwards; the file opens, nothing else stays beside it, and new messages flow.
#![allow(clippy::unwrap_used)] // a test that cannot go on fails

mod calls;

use calls::oracle::Oracle;
use calls::script::{DURABILITIES, child, prepared, run_if_child};
use calls::{Place, Trying, all};
use system_tests::random::Random;
use system_tests::trace::{Call, Ended, Event, Verdict, watch};

const EINVAL: i32 = 22;

/// A process to be killed at its `nth` call, counted for each thread.
struct Kill<'a> {
    test: &'a str,
    script: &'a str,
    durability: &'a str,
    thread: usize,
    nth: usize,
    /// Renames fail, as on file systems that cannot rename without replacing.
    links: bool,
}

impl Kill<'_> {
    fn run(&self, place: &Place, oracle: &mut Oracle) -> Ended {
        let mut seen = 0;
        let mut decide = |call: &Call| {
            seen += usize::from(call.thread == self.thread);
            if seen == self.nth && call.thread == self.thread {
                Verdict::Kill
            } else if self.links && call.name == "renameat2" {
                Verdict::Fail(EINVAL)
            } else {
                Verdict::Continue
            }
        };
        let mut child = child(self.test, self.script, self.durability, &place.path());
        let ended = watch(&mut child, place.dir(), &mut decide);
        assert!(!ended.hung, "{}", ended.stderr);
        if !ended.was_killed() {
            assert!(ended.status.success(), "{}", ended.stderr);
        }
        ended.said().for_each(|line| oracle.hear(line));
        ended
    }
}

/// Kills at every call of every thread, or at some of many, until a process gets through unharmed.
fn sweep(test: &str, script: &str, durability: &str, links: bool) {
    let bytes = (script == "recover").then(|| prepared(test, durability));
    let mut random = Random::new(1);
    let mut kills = 0;
    for thread in 0.. {
        let mut kill = Kill {
            test,
            script,
            durability,
            thread,
            nth: 1,
            links,
        };
        loop {
            let _trying = Trying(format!(
                "{script}, {durability}: call {} of thread {thread}",
                kill.nth
            ));
            let place = Place::new(bytes.as_deref());
            let mut oracle = Oracle::of_script(script);
            let ended = kill.run(&place, &mut oracle);
            oracle.check(&place.path(), durability);
            if !ended.was_killed() {
                break;
            }
            kills += 1;
            kill.nth += 1;
            if script == "segments" && !all() {
                kill.nth += random.below(16) as usize;
            }
        }
        if kill.nth == 1 {
            // There is no such thread.
            break;
        }
    }
    println!("KILLED {kills} processes: {script}, {durability}");
    let least = if script == "segments" { 50 } else { 100 };
    assert!(kills > least, "only {kills}");
}

#[test]
fn a_channel_with_a_sync_for_each_send_is_killed_at_every_call() {
    run_if_child();
    let test = "a_channel_with_a_sync_for_each_send_is_killed_at_every_call";
    sweep(test, "cycle", "send", false);
}

#[test]
fn a_channel_with_background_syncs_is_killed_at_every_call() {
    run_if_child();
    let test = "a_channel_with_background_syncs_is_killed_at_every_call";
    sweep(test, "cycle", "every", false);
}

#[test]
fn a_channel_without_syncs_is_killed_at_every_call() {
    run_if_child();
    let test = "a_channel_without_syncs_is_killed_at_every_call";
    sweep(test, "cycle", "flush", false);
}

#[test]
fn a_growing_channel_with_a_sync_for_each_send_is_killed_at_every_call() {
    run_if_child();
    let test = "a_growing_channel_with_a_sync_for_each_send_is_killed_at_every_call";
    sweep(test, "segments", "send", false);
}

#[test]
fn a_growing_channel_with_background_syncs_is_killed_at_every_call() {
    run_if_child();
    let test = "a_growing_channel_with_background_syncs_is_killed_at_every_call";
    sweep(test, "segments", "every", false);
}

#[test]
fn a_growing_channel_without_syncs_is_killed_at_every_call() {
    run_if_child();
    let test = "a_growing_channel_without_syncs_is_killed_at_every_call";
    sweep(test, "segments", "flush", false);
}

#[test]
fn a_channel_that_cannot_rename_is_killed_at_every_call() {
    run_if_child();
    let test = "a_channel_that_cannot_rename_is_killed_at_every_call";
    sweep(test, "cycle", "send", true);
}

#[test]
fn a_recovery_and_what_follows_is_killed_at_every_call() {
    run_if_child();
    let test = "a_recovery_and_what_follows_is_killed_at_every_call";
    for durability in DURABILITIES {
        sweep(test, "recover", durability, false);
    }
}

/// The calls of the first thread until the channel is open.
fn calls_of_open(ended: &Ended) -> usize {
    let before = ended.events.iter().take_while(|event| match event {
        Event::Said(line) => !line.starts_with("= open"),
        Event::Call(..) => true,
    });
    before
        .filter(|event| match event {
            Event::Said(_) => true,
            Event::Call(call, _) => call.thread == 0,
        })
        .count()
}

#[test]
fn a_recovery_is_killed_at_every_call_and_the_next_one_too() {
    run_if_child();
    let test = "a_recovery_is_killed_at_every_call_and_the_next_one_too";
    let mut random = Random::new(1);
    let mut kills = 0;
    for durability in DURABILITIES.into_iter().take(if all() { 3 } else { 1 }) {
        let bytes = prepared(test, durability);
        let kill = |nth| Kill {
            test,
            script: "recover",
            durability,
            thread: 0,
            nth,
            links: false,
        };
        let unharmed = kill(0).run(&Place::new(Some(&bytes)), &mut Oracle::of_prepared());
        let last = calls_of_open(&unharmed);
        for first in 1..=last {
            let mut second = 1;
            loop {
                if !all() {
                    second += random.below(last as u64) as usize;
                }
                let _trying = Trying(format!("{durability}: call {first}, then call {second}"));
                let place = Place::new(Some(&bytes));
                let mut oracle = Oracle::of_prepared();
                assert!(kill(first).run(&place, &mut oracle).was_killed());
                let again = kill(second).run(&place, &mut oracle);
                kills += 1 + usize::from(again.was_killed());
                oracle.check(&place.path(), durability);
                let is_open = again.said().any(|line| line.starts_with("= open"));
                if !all() || is_open {
                    break;
                }
                second += 1;
            }
        }
    }
    println!("KILLED {kills} processes: recovery, and again");
    assert!(kills > 50);
}
