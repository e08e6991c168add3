//! Each system call of an incarnation fails, once and for ever. The step that needed it returns the error of
//! the system, or does without the call; no `Ok` is a lie, nothing half-made stays, nothing hangs.
#![allow(clippy::unwrap_used)] // a test that cannot go on fails

mod calls;

use calls::case::{Case, EACCES, EINTR, EINVAL, EIO, EMFILE, ENOMEM, ENOSPC, can_fail};
use calls::expected::is_expected;
use calls::script::{child, prepared, run_if_child};
use calls::{Place, all};
use std::collections::{BTreeMap, BTreeSet};
use system_tests::random::Random;
use system_tests::trace::{Call, Ended, Event, Verdict, watch};

const ERRORS: [(i32, &str); 6] = [
    (EIO, "EIO"),
    (ENOSPC, "ENOSPC"),
    (EMFILE, "EMFILE"),
    (EACCES, "EACCES"),
    (ENOMEM, "ENOMEM"),
    (EINTR, "EINTR"),
];

/// Calls that can be refused for want of memory.
const OF_MEMORY: [&str; 4] = ["mmap", "mprotect", "madvise", "clone3"];

fn unharmed(case: &Case, bytes: Option<&[u8]>) -> Ended {
    let place = Place::new(bytes);
    let mut decide = |call: &Call| match call.name.as_str() {
        "renameat2" if case.links => Verdict::Fail(EINVAL),
        _ => Verdict::Continue,
    };
    let mut child = child(case.test, case.script, case.durability, &place.path());
    let ended = watch(&mut child, place.dir(), &mut decide);
    assert!(ended.status.success(), "{}", ended.stderr);
    ended
}

/// How this call can fail, and how often.
fn failures(call: &Call) -> impl Iterator<Item = (i32, bool)> {
    let of_memory = OF_MEMORY.contains(&call.name.as_str());
    // What a kernel has once granted it does not refuse for ever; `tests/membarrier.rs` is about a filter
    // that does.
    let granted = call.name == "membarrier" && call.target == "command 8";
    let pairs = ERRORS
        .into_iter()
        .flat_map(|(error, _)| [(error, false), (error, true)]);
    pairs.filter(move |(error, for_ever)| {
        (*error != ENOMEM || of_memory) && !(*for_ever && (*error == EINTR || granted))
    })
}

/// All cases of a script, or a few for each place.
fn cases(like: &Case, bytes: Option<&[u8]>) -> Vec<Case> {
    let mut random = Random::new(like.durability.len() as u64);
    let mut counts: BTreeMap<(String, bool), usize> = BTreeMap::new();
    let mut places = BTreeSet::new();
    let mut cases = Vec::new();
    let mut opens = 0;
    for event in &unharmed(like, bytes).events {
        let call = match event {
            Event::Said(line) => {
                opens += usize::from(line == "> open");
                continue;
            }
            Event::Call(call, _) if can_fail(call) => call,
            Event::Call(..) => continue,
        };
        if like.links && !["linkat", "unlink", "unlinkat"].contains(&call.name.as_str()) {
            continue;
        }
        let by_first = call.thread == 0;
        let count = counts.entry((call.name.clone(), by_first)).or_default();
        *count += 1;
        // One segment is like another.
        let target = call.target.replace(|c: char| c.is_ascii_digit(), "");
        // What an open mends shows only in the last incarnation.
        let is_last = opens == 2 && like.script == "service";
        let is_new = places.insert((call.name.clone(), target, by_first, is_last));
        for (error, for_ever) in failures(call) {
            let one_in = match (like.script, all()) {
                ("service", true) if !for_ever => 1,
                // It makes twenty times as many calls.
                ("service", true) => 20,
                ("service", false) => 800,
                (_, true) => 1,
                (_, false) => 15,
            };
            let chosen =
                random.below(one_in) == 0 || is_new && error == EIO && !(for_ever && is_last);
            if chosen {
                cases.push(Case {
                    name: call.name.clone(),
                    by_first,
                    nth: *count,
                    error,
                    for_ever,
                    ..like.clone()
                });
            }
        }
    }
    cases
}

fn like(test: &'static str, script: &'static str, durability: &'static str) -> Case {
    Case {
        test,
        script,
        durability,
        links: false,
        name: String::new(),
        by_first: true,
        nth: 0,
        error: 0,
        for_ever: false,
        late: 0,
    }
}

fn run(like: &Case, at_least: usize) {
    let bytes = (like.script == "recover").then(|| prepared(like.test, like.durability));
    let bytes = bytes.as_deref();
    check(like, bytes, cases(like, bytes), at_least);
}

fn check(like: &Case, bytes: Option<&[u8]>, cases: Vec<Case>, at_least: usize) {
    let mut table: BTreeMap<_, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    let (mut ran, mut wrong) = (0, Vec::new());
    for case in cases {
        let Ok(outcome) = std::panic::catch_unwind(|| case.check(bytes)) else {
            wrong.push(format!("{case:?}"));
            continue;
        };
        // In another order of the threads the call may not have come.
        let Some(outcome) = outcome else { continue };
        ran += 1;
        if !is_expected(&case, &outcome) {
            wrong.push(format!("{case:?}: {outcome:?}"));
        }
        let name = ERRORS
            .iter()
            .find(|(code, _)| *code == case.error)
            .unwrap()
            .1;
        let how = if case.for_ever { "for ever" } else { "once" };
        let row = table.entry(outcome.site).or_default();
        let results = row.entry(outcome.result).or_default();
        results.insert(format!("{name} {how}"));
    }
    for (site, row) in table {
        println!("{} | {} | {} | {row:?}", site.call, site.target, site.step);
    }
    let Case {
        script, durability, ..
    } = like;
    println!("FAILED one call in each of {ran} processes: {script}, {durability}");
    assert!(wrong.is_empty(), "{} of {ran}: {wrong:#?}", wrong.len());
    assert!(ran > at_least, "only {ran}");
}

#[test]
fn whatever_call_fails_a_channel_with_a_sync_for_each_send_keeps_its_word() {
    run_if_child();
    let test = "whatever_call_fails_a_channel_with_a_sync_for_each_send_keeps_its_word";
    run(&like(test, "cycle", "send"), 80);
}

#[test]
fn whatever_call_fails_a_channel_with_background_syncs_keeps_its_word() {
    run_if_child();
    let test = "whatever_call_fails_a_channel_with_background_syncs_keeps_its_word";
    run(&like(test, "cycle", "every"), 80);
}

#[test]
fn whatever_call_fails_a_channel_without_syncs_keeps_its_word() {
    run_if_child();
    let test = "whatever_call_fails_a_channel_without_syncs_keeps_its_word";
    run(&like(test, "cycle", "flush"), 80);
}

#[test]
fn whatever_call_fails_a_recovery_keeps_its_word() {
    run_if_child();
    let test = "whatever_call_fails_a_recovery_keeps_its_word";
    run(&like(test, "recover", "send"), 80);
    run(&like(test, "recover", "flush"), 80);
}

#[test]
fn whatever_call_fails_a_growing_channel_with_a_sync_for_each_send_keeps_its_word() {
    run_if_child();
    let test = "whatever_call_fails_a_growing_channel_with_a_sync_for_each_send_keeps_its_word";
    run(&like(test, "service", "send"), 80);
}

#[test]
fn whatever_call_fails_a_growing_channel_with_background_syncs_keeps_its_word() {
    run_if_child();
    let test = "whatever_call_fails_a_growing_channel_with_background_syncs_keeps_its_word";
    run(&like(test, "service", "every"), 80);
}

#[test]
fn whatever_call_fails_a_growing_channel_without_syncs_keeps_its_word() {
    run_if_child();
    let test = "whatever_call_fails_a_growing_channel_without_syncs_keeps_its_word";
    run(&like(test, "service", "flush"), 80);
}

/// A sync fails in a thread of the channel, and takes so long that the first thread goes on meanwhile. What
/// that one sends is accepted if a sync of its own succeeded, in another file, and by no means otherwise.
#[test]
fn a_send_while_a_sync_of_another_thread_fails_is_as_durable_as_it_says() {
    run_if_child();
    let test = "a_send_while_a_sync_of_another_thread_fails_is_as_durable_as_it_says";
    let durabilities = if all() {
        &["send", "every"][..]
    } else {
        &["send"]
    };
    for durability in durabilities {
        let like = like(test, "service", durability);
        let syncs = unharmed(&like, None)
            .calls()
            .filter(|(call, _)| call.name == "fdatasync" && call.thread != 0)
            .count();
        let all_lates = [3, 20, 80];
        let lates = if all() {
            &all_lates[..]
        } else {
            &all_lates[1..2]
        };
        let case = |nth, late| Case {
            name: "fdatasync".to_owned(),
            by_first: false,
            nth,
            error: EIO,
            late,
            ..like.clone()
        };
        let cases = lates
            .iter()
            .flat_map(|late| (1..=syncs).map(|nth| case(nth, *late)));
        check(&like, None, cases.collect(), 8);
    }
}

#[test]
fn whatever_call_fails_where_nothing_can_be_renamed_leaves_nothing_half_made() {
    run_if_child();
    let test = "whatever_call_fails_where_nothing_can_be_renamed_leaves_nothing_half_made";
    let links = Case {
        links: true,
        ..like(test, "cycle", "send")
    };
    run(&links, 3);
}
