//! Processes that are killed at random moments, while several threads send and two acknowledge, out of order.
//! What they reported before is what must hold afterwards.
#![allow(clippy::unwrap_used)]

#[path = "killed/incarnation.rs"]
mod incarnation;
#[path = "killed/oracle.rs"]
mod oracle;
mod support;

use incarnation::{BACKLOG, PRODUCERS, Role, place, rest};
use oracle::Oracle;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use support::{Random, child, role, watchdog};
use walchan::Delivery;

/// When a process is killed: some time after it has said this.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// It is started.
    Start,
    Said(&'static str),
}

/// A process that does not outlive the test, whatever becomes of that.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have been waited for.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A process that is to be killed.
struct Doomed {
    process: Process,
    reader: JoinHandle<()>,
    reports: mpsc::Receiver<String>,
}

impl Doomed {
    fn start(test: &str, role: &Role) -> Self {
        let mut process = child(test, &role.to_text())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(process.stdout.take().unwrap());
        let (sender, reports) = mpsc::channel();
        let reader = thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if let Some(report) = line.strip_prefix('!') {
                    // The parent keeps the other end until this thread has ended.
                    sender.send(report.to_owned()).unwrap();
                }
            }
        });
        Doomed {
            process: Process(process),
            reader,
            reports,
        }
    }

    /// Until it says something that begins like this.
    fn hear_until(&self, what: &str, oracle: &mut Oracle) {
        loop {
            let report = self.reports.recv().unwrap();
            oracle.hear(&report);
            if report.starts_with(what) {
                return;
            }
        }
    }

    fn kill(mut self, oracle: &mut Oracle) {
        self.process.0.kill().unwrap();
        let status = self.process.0.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "it ended by itself: {status}");
        self.reader.join().unwrap();
        self.reports.iter().for_each(|report| oracle.hear(&report));
    }
}

/// How many processes each test kills, and the seed of their moments: from the environment, or a few.
fn kills(few: u64) -> (u64, u64) {
    let from = |name| std::env::var(name).ok().map(|value| value.parse().unwrap());
    let few = if cfg!(feature = "stress") {
        few * 15
    } else {
        few
    };
    (
        from("WALCHAN_KILLS").unwrap_or(few),
        from("WALCHAN_KILLS_SEED").unwrap_or(1),
    )
}

/// Kills processes one after another, each using what the one before left. `moments`: when, and at the latest
/// how many microseconds later.
fn kill(test: &str, script: &str, few: u64, names: &[&str], moments: &[(Moment, u64)]) -> Oracle {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let (kills, seed) = kills(few);
    let mut random = Random::new(seed + names.len() as u64);
    let mut oracle = Oracle::default();
    // Segments that were left, and half-made files.
    let mut left = (0, 0);
    let mut highest = 0u64;
    for incarnation in 0..kills {
        let role = Role {
            script: script.to_owned(),
            path: place(dir.path()),
            incarnation,
            durability: names[random.below(names.len() as u64) as usize].to_owned(),
        };
        let (moment, latest) = moments[random.below(moments.len() as u64) as usize];
        let doomed = Doomed::start(test, &role);
        if let Moment::Said(what) = moment {
            doomed.hear_until(what, &mut oracle);
        }
        thread::sleep(Duration::from_micros(random.below(latest)));
        doomed.kill(&mut oracle);
        for name in beside(&role.path) {
            let number = name.strip_prefix("q.").and_then(|n| n.parse().ok());
            highest = highest.max(number.unwrap_or(0));
            left.0 += u64::from(number.is_some());
            left.1 += u64::from(name.ends_with(".walchan-new"));
        }
        if incarnation % 16 == 15 || incarnation + 1 == kills {
            drain(&role, &mut oracle);
        }
    }
    let (opened, ids) = (oracle.opened, oracle.ids.len() as u64);
    println!(
        "KILLED {kills} processes, seed {seed}: {script}, {names:?}; {opened} openings, {ids} messages"
    );
    if script.starts_with("segments") {
        let (files, half_made) = left;
        println!("they left {files} segments up to {highest}, and {half_made} half-made ones");
        // How many there are is a matter of how far a process comes, and so of what else the machine does.
        assert!(files > 0, "no segments");
    }
    assert!(opened * 3 > kills, "only {opened} of {kills} came to life");
    assert!(ids > kills, "only {ids} messages");
    oracle
}

/// The parent receives what is left, and compares.
fn drain(role: &Role, oracle: &mut Oracle) {
    let (tx, rx) = role.open().unwrap();
    let report = rx.recovery().clone();
    let damaged = report.damaged();
    assert!(damaged.iter().all(|d| !d.was_durable()), "{report}");
    // A kill in the middle of storing a checkpoint leaves that page invalid, never both, and no other.
    let faults = report.header_faults();
    let checkpoints = [17 * 4096, 18 * 4096];
    // A sender and the housekeeper can be at it in two files at once.
    let most = if role.grows() { 2 } else { 1 };
    assert!(faults.len() <= most, "{report}");
    assert!(
        faults.iter().all(|(at, _)| checkpoints.contains(at)),
        "{report}"
    );
    oracle.hear("opening");
    oracle.hear(&format!(
        "open {} {}",
        u8::from(report.is_clean()),
        report.kept()
    ));
    drop(tx);
    oracle.begin_incarnation();
    let mut kept = 0;
    for delivery in rest(&rx) {
        assert!(delivery.is_whole());
        let key = (delivery.producer, delivery.number);
        oracle.got(
            key,
            Delivery::id(&delivery),
            Delivery::deliveries(&delivery),
        );
        let known = oracle.known(key);
        (known.acking, known.acked) = (true, true);
        kept += 1;
    }
    assert_eq!(report.kept(), kept, "{report}");
    oracle.check();
    rx.close().unwrap();
    oracle.hear("closed");
    // A file in the making is taken over or given up, a segment is removed; nothing else is ever beside the
    // channel.
    assert_eq!(beside(&role.path), ["q"]);
}

/// What is in the directory of a channel.
fn beside(path: &Path) -> Vec<String> {
    let names = std::fs::read_dir(path.parent().unwrap()).unwrap();
    names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// In creation and recovery, and in the traffic.
const TRAFFIC: [(Moment, u64); 4] = [
    (Moment::Start, 15_000),
    (Moment::Said("opening"), 2_000),
    (Moment::Said("open "), 20_000),
    (Moment::Said("open "), 20_000),
];

/// With syncs, it takes longer to grow and to return.
const SEGMENTS_SYNCED: [(Moment, u64); 5] = [
    (Moment::Start, 25_000),
    (Moment::Said("opening"), 10_000),
    (Moment::Said("open "), 20_000),
    (Moment::Said("open "), 60_000),
    (Moment::Said("open "), 60_000),
];

#[test]
fn what_a_killed_process_sent_without_syncs_is_there() {
    let test = "what_a_killed_process_sent_without_syncs_is_there";
    match role() {
        Some(role) => Role::from_text(&role).live(),
        None => drop(kill(test, "traffic", 60, &["flush"], &TRAFFIC)),
    }
}

#[test]
fn what_a_killed_process_sent_with_a_sync_each_is_there() {
    let test = "what_a_killed_process_sent_with_a_sync_each_is_there";
    match role() {
        Some(role) => Role::from_text(&role).live(),
        None => drop(kill(test, "traffic", 60, &["send"], &TRAFFIC)),
    }
}

#[test]
fn what_a_killed_process_sent_with_background_syncs_is_there() {
    let test = "what_a_killed_process_sent_with_background_syncs_is_there";
    match role() {
        Some(role) => Role::from_text(&role).live(),
        None => drop(kill(test, "traffic", 60, &["every"], &TRAFFIC)),
    }
}

#[test]
fn killed_processes_of_all_durabilities_follow_one_another() {
    let test = "killed_processes_of_all_durabilities_follow_one_another";
    match role() {
        Some(role) => Role::from_text(&role).live(),
        None => drop(kill(
            test,
            "traffic",
            60,
            &["flush", "send", "every"],
            &TRAFFIC,
        )),
    }
}

#[test]
fn a_process_killed_while_it_closes_keeps_everything() {
    let test = "a_process_killed_while_it_closes_keeps_everything";
    if let Some(role) = role() {
        return Role::from_text(&role).live();
    }
    let moments = [
        (Moment::Said("closing"), 1_000),
        (Moment::Said("closing"), 10_000),
        (Moment::Said("closed"), 3_000),
    ];
    let oracle = kill(test, "close", 50, &["flush", "send", "every"], &moments);
    assert!(oracle.closings > 0);
}

#[test]
fn a_process_killed_while_it_makes_a_removed_file_anew_leaves_the_old_or_the_new_one() {
    let test = "a_process_killed_while_it_makes_a_removed_file_anew_leaves_the_old_or_the_new_one";
    if let Some(role) = role() {
        return Role::from_text(&role).live();
    }
    let moments = [
        (Moment::Said("remov"), 2_000),
        (Moment::Said("removed"), 5_000),
        (Moment::Start, 30_000),
    ];
    let oracle = kill(test, "anew", 50, &["flush", "send", "every"], &moments);
    assert!(oracle.removals > 0);
}

#[test]
fn what_a_killed_process_sent_into_segments_without_syncs_is_there() {
    let test = "what_a_killed_process_sent_into_segments_without_syncs_is_there";
    match role() {
        Some(role) => Role::from_text(&role).live(),
        None => drop(kill(test, "segments", 40, &["flush"], &TRAFFIC)),
    }
}

#[test]
fn what_a_killed_process_sent_into_segments_with_a_sync_each_is_there() {
    let test = "what_a_killed_process_sent_into_segments_with_a_sync_each_is_there";
    match role() {
        Some(role) => Role::from_text(&role).live(),
        None => drop(kill(test, "segments", 40, &["send"], &SEGMENTS_SYNCED)),
    }
}

#[test]
fn growing_killed_processes_of_all_durabilities_follow_one_another() {
    let test = "growing_killed_processes_of_all_durabilities_follow_one_another";
    let names = ["flush", "send", "every"];
    match role() {
        Some(role) => Role::from_text(&role).live(),
        None => drop(kill(test, "segments", 40, &names, &SEGMENTS_SYNCED)),
    }
}

#[test]
fn a_channel_with_segments_killed_while_it_closes_keeps_everything() {
    let test = "a_channel_with_segments_killed_while_it_closes_keeps_everything";
    if let Some(role) = role() {
        return Role::from_text(&role).live();
    }
    let moments = [
        (Moment::Said("closing"), 1_000),
        (Moment::Said("closing"), 15_000),
        (Moment::Said("closed"), 10_000),
    ];
    let names = ["flush", "send", "every"];
    let oracle = kill(test, "segments close", 40, &names, &moments);
    assert!(oracle.closings > 0);
}

/// A channel with many messages that no sync covers, of a process that was killed.
fn fill(test: &str, script: &str, path: &Path, oracle: &mut Oracle) {
    let role = Role {
        script: format!("{script} fill"),
        path: path.to_owned(),
        incarnation: 0,
        durability: "flush".to_owned(),
    };
    let doomed = Doomed::start(test, &role);
    loop {
        let report = doomed.reports.recv().unwrap();
        if report == "filled" {
            break;
        }
        assert!(report.starts_with("open"), "{report}");
    }
    doomed.kill(&mut Oracle::default());
    for producer in 0..PRODUCERS {
        for number in 0..BACKLOG / PRODUCERS {
            oracle.known((producer, number)).sent = true;
        }
    }
}

/// Kills recoveries of a large backlog, again and again.
fn kill_recoveries(test: &str, script: &str) {
    let _dog = watchdog();
    let (kills, seed) = kills(20);
    let mut random = Random::new(seed);
    let (mut opened, mut killed) = (0, 0);
    while killed < kills {
        let dir = tempfile::tempdir().unwrap();
        let path = place(dir.path());
        let mut oracle = Oracle::default();
        fill(test, script, &path, &mut oracle);
        let role = |incarnation: u64| Role {
            script: script.to_owned(),
            path: path.clone(),
            incarnation: incarnation + 1,
            durability: ["flush", "send", "every"][incarnation as usize % 3].to_owned(),
        };
        // How long it takes, on a copy that is as it was.
        let copy = tempfile::tempdir().unwrap();
        for name in std::fs::read_dir(dir.path()).unwrap() {
            let name = name.unwrap().file_name();
            let bytes = std::fs::read(dir.path().join(&name)).unwrap();
            std::fs::write(copy.path().join(&name), bytes).unwrap();
        }
        let start = Instant::now();
        let ends = Role {
            path: place(copy.path()),
            ..role(0)
        };
        drop(ends.open().unwrap());
        let takes = start.elapsed().as_micros() as u64;
        drop(copy);
        for incarnation in 0..30.min(kills - killed) {
            let doomed = Doomed::start(test, &role(incarnation));
            doomed.hear_until("opening", &mut oracle);
            // Some while they recover, others when they have.
            let latest = takes * [1, 3][random.below(2) as usize];
            thread::sleep(Duration::from_micros(random.below(latest)));
            doomed.kill(&mut oracle);
            killed += 1;
        }
        opened += oracle.opened;
        drain(&role(0), &mut oracle);
    }
    println!("KILLED {kills} processes, seed {seed}: {script}; {opened} came to life");
    assert!(opened < kills, "none was killed in its recovery");
}

#[test]
fn a_recovery_of_many_messages_killed_again_and_again_keeps_them() {
    let test = "a_recovery_of_many_messages_killed_again_and_again_keeps_them";
    match role() {
        Some(role) => Role::from_text(&role).live(),
        None => kill_recoveries(test, "backlog"),
    }
}

#[test]
fn a_recovery_of_many_files_killed_again_and_again_keeps_them() {
    let test = "a_recovery_of_many_files_killed_again_and_again_keeps_them";
    match role() {
        Some(role) => Role::from_text(&role).live(),
        None => kill_recoveries(test, "segments backlog"),
    }
}

/// Where nothing can be renamed without replacing, a maker that is killed may leave two names.
#[test]
fn the_second_name_that_a_killed_maker_left_goes_with_the_next_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = place(dir.path());
    let second = dir.path().join("q.walchan-new");
    drop(walchan::channel::<u8>(&path).unwrap());
    std::fs::hard_link(&path, &second).unwrap();
    drop(walchan::channel::<u8>(&path).unwrap());
    assert!(!second.exists());
    // Another file under that name is not ours to remove.
    std::fs::write(&second, "another").unwrap();
    std::fs::hard_link(&path, dir.path().join("kept")).unwrap();
    drop(walchan::channel::<u8>(&path).unwrap());
    assert!(second.exists() && dir.path().join("kept").exists());
}
