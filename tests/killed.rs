//! Processes that are killed at random moments, while several threads send and messages are
//! acknowledged out of order. What they reported before is what must hold afterwards.
#![allow(clippy::unwrap_used)]

mod support;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Stdio;
use std::str::FromStr;
use std::thread;
use std::time::Duration;
use support::{Random, child, role, watchdog, with};
use walchan::{Delivery, Durability, MessageId, TryRecvError};

const PRODUCERS: u64 = 3;
const BOUND: usize = 40;

/// A message: who sent it, and which one of theirs it is. The rest follows from that.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Numbered {
    producer: u64,
    number: u64,
    filler: String,
}

impl Numbered {
    fn new(producer: u64, number: u64) -> Self {
        let mut random = Random::new(producer << 20 | number);
        let longest = if random.below(20) == 0 { 9_000 } else { 300 };
        let len = random.below(longest);
        let letter = char::from(b'a' + random.below(26) as u8);
        Numbered {
            producer,
            number,
            filler: letter.to_string().repeat(len as usize),
        }
    }
}

fn durability(name: &str) -> Durability {
    match name {
        "flush" => Durability::FlushOnly,
        "send" => Durability::SyncPerSend,
        _ => Durability::SyncEvery {
            max_ops: 5,
            max_delay: Duration::from_millis(1),
        },
    }
}

/// A line on a pipe that reaches the parent even if the next instruction is never executed.
struct Reports(File);

impl Reports {
    fn say(&self, what: std::fmt::Arguments<'_>) {
        // One write: shorter than a pipe's buffer, so whole or not at all.
        (&self.0)
            .write_all(format!("\n!{what}\n").as_bytes())
            .unwrap();
    }
}

/// The life of a process that is to be killed.
fn live(role: &str) {
    let parts: Vec<_> = role.split('\n').collect();
    let (path, life, name) = (
        Path::new(parts[0]),
        parts[1].parse::<u64>().unwrap(),
        parts[2],
    );
    let stdout = std::io::stdout().as_fd().try_clone_to_owned().unwrap();
    let reports = Reports(File::from(stdout));
    let opened =
        walchan::sync_channel_with_options::<Numbered>(path, BOUND, with(durability(name)));
    let (tx, rx) = match opened {
        Ok(opened) => opened,
        Err(e) => return reports.say(format_args!("bad open {e}")),
    };
    reports.say(format_args!("open"));
    thread::scope(|scope| {
        for p in 0..PRODUCERS {
            let (tx, reports) = (tx.clone(), &reports);
            scope.spawn(move || {
                let producer = life * PRODUCERS + p;
                for number in 0.. {
                    if let Err(e) = tx.send(Numbered::new(producer, number)) {
                        return reports.say(format_args!("bad send {e}"));
                    }
                    reports.say(format_args!("sent {producer} {number}"));
                }
            });
        }
        let mut random = Random::new(life);
        let mut held = Vec::new();
        loop {
            let d = match rx.try_recv() {
                Ok(d) => d,
                Err(TryRecvError::Empty) if held.is_empty() => match rx.recv() {
                    Ok(d) => d,
                    Err(e) => return reports.say(format_args!("bad recv {e}")),
                },
                Err(TryRecvError::Empty) => {
                    acknowledge(&reports, held.swap_remove(0));
                    continue;
                }
                Err(e) => return reports.say(format_args!("bad recv {e}")),
            };
            if *d != Numbered::new(d.producer, d.number) {
                return reports.say(format_args!("bad content {d:?}"));
            }
            let (id, deliveries) = (Delivery::id(&d), Delivery::deliveries(&d));
            reports.say(format_args!(
                "got {} {} {id} {deliveries}",
                d.producer, d.number
            ));
            held.push(d);
            if held.len() > 6 {
                acknowledge(&reports, held.swap_remove(random.below(6) as usize));
            }
        }
    });
}

fn acknowledge(reports: &Reports, d: Delivery<Numbered>) {
    let (producer, number) = (d.producer, d.number);
    reports.say(format_args!("acking {producer} {number}"));
    drop(d);
    reports.say(format_args!("acked {producer} {number}"));
}

#[derive(Default)]
struct Known {
    sent: bool,
    got: u32,
    id: Option<MessageId>,
    acking: bool,
    acked: bool,
}

/// What the processes have told, and what follows from it.
#[derive(Default)]
struct Oracle {
    messages: BTreeMap<(u64, u64), Known>,
    /// The last one received for the first time, of each producer.
    first: BTreeMap<u64, u64>,
    /// The message of each id.
    ids: BTreeMap<MessageId, (u64, u64)>,
    last_in_life: Option<MessageId>,
    opened: u64,
}

impl Oracle {
    fn hear(&mut self, line: &str) {
        let mut words = line.split(' ');
        let what = words.next().unwrap();
        let mut number = || words.next().unwrap().parse::<u64>().unwrap();
        match what {
            "open" => {
                self.opened += 1;
                self.last_in_life = None;
            }
            "sent" => self.known(number(), number()).sent = true,
            "acking" => self.known(number(), number()).acking = true,
            "acked" => self.known(number(), number()).acked = true,
            "got" => {
                let key = (number(), number());
                let id = MessageId::from_str(words.next().unwrap()).unwrap();
                let deliveries = words.next().unwrap().parse().unwrap();
                self.got(key, id, deliveries);
            }
            _ => panic!("{line}"),
        }
    }

    fn known(&mut self, producer: u64, number: u64) -> &mut Known {
        self.messages.entry((producer, number)).or_default()
    }

    fn got(&mut self, key: (u64, u64), id: MessageId, deliveries: u32) {
        assert!(Some(id) > self.last_in_life, "{key:?} out of order");
        self.last_in_life = Some(id);
        assert_eq!(
            *self.ids.entry(id).or_insert(key),
            key,
            "one id, two messages"
        );
        let known = self.messages.entry(key).or_default();
        assert!(!known.acked, "{key:?} was acknowledged and came back");
        assert_eq!(
            *known.id.get_or_insert(id),
            id,
            "two ids, one message {key:?}"
        );
        known.got += 1;
        assert!(
            deliveries >= known.got.min(14),
            "{key:?}: {deliveries}, reported {}",
            known.got
        );
        if known.got == 1 {
            let last = self.first.insert(key.0, key.1);
            assert!(last < Some(key.1), "{key:?} after {last:?}");
        }
    }

    /// Everything is received and acknowledged now.
    fn check(&self) {
        for (key, known) in &self.messages {
            if known.sent {
                assert!(known.got > 0 || known.acking, "{key:?} is lost");
                assert!(
                    known.acking,
                    "{key:?} is lost after {} deliveries",
                    known.got
                );
            }
        }
        for (producer, last) in &self.first {
            // One was on its way, at most.
            let sent = self.messages.range((*producer, 0)..=(*producer, u64::MAX));
            let sent = sent.filter(|(_, known)| known.sent).count() as u64;
            assert!(*last <= sent, "{producer} sent {sent}, received was {last}");
        }
    }
}

/// Kills `kills` processes one after another, each using what the one before left.
fn kill(test: &str, kills: u64, names: &[&str]) {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let mut random = Random::new(kills + names.len() as u64);
    let mut oracle = Oracle::default();
    for life in 0..kills {
        let name = names[random.below(names.len() as u64) as usize];
        let role = format!("{}\n{life}\n{name}", path.display());
        let mut process = child(test, &role)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(process.stdout.take().unwrap());
        let (tell, told) = std::sync::mpsc::channel();
        let reader = thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if let Some(report) = line.strip_prefix('!') {
                    // The parent keeps the other end until this thread has ended.
                    tell.send(report.to_owned()).unwrap();
                }
            }
        });
        if life % 4 != 0 {
            // In the traffic.
            oracle.hear(&told.recv().unwrap());
            thread::sleep(Duration::from_micros(random.below(20_000)));
        } else {
            // From the start of the process on, in creation and recovery.
            thread::sleep(Duration::from_micros(random.below(15_000)));
        }
        process.kill().unwrap();
        process.wait().unwrap();
        reader.join().unwrap();
        told.iter().for_each(|report| oracle.hear(&report));
        if life % 16 == 15 || life + 1 == kills {
            drain(&path, &mut oracle, durability(name));
        }
    }
    assert!(
        oracle.opened * 2 > kills,
        "only {} of {kills} came to life",
        oracle.opened
    );
    assert!(
        oracle.ids.len() as u64 > kills,
        "only {} messages",
        oracle.ids.len()
    );
}

/// The parent receives what is left, and compares.
fn drain(path: &Path, oracle: &mut Oracle, durability: Durability) {
    let (tx, rx) =
        walchan::sync_channel_with_options::<Numbered>(path, BOUND, with(durability)).unwrap();
    let report = rx.recovery().clone();
    assert!(
        report.damaged().iter().all(|d| !d.was_durable()),
        "{report}"
    );
    // A kill in the middle of storing a checkpoint leaves that page invalid, never both, and no other.
    let faults = report.header_faults();
    let checkpoints = [17 * 4096, 18 * 4096];
    assert!(faults.len() <= 1, "{report}");
    assert!(
        faults.iter().all(|(at, _)| checkpoints.contains(at)),
        "{report}"
    );
    drop(tx);
    oracle.last_in_life = None;
    let mut kept = 0;
    for d in &rx {
        assert_eq!(*d, Numbered::new(d.producer, d.number));
        let key = (d.producer, d.number);
        oracle.got(key, Delivery::id(&d), Delivery::deliveries(&d));
        let known = oracle.known(key.0, key.1);
        (known.acking, known.acked) = (true, true);
        kept += 1;
    }
    assert_eq!(rx.recv(), Err(walchan::RecvError::Disconnected));
    assert_eq!(report.kept(), kept, "{report}");
    oracle.check();
    rx.close().unwrap();
}

fn count() -> u64 {
    if cfg!(feature = "stress") { 1_500 } else { 100 }
}

#[test]
fn what_a_killed_process_sent_without_syncs_is_there() {
    match role() {
        Some(role) => live(&role),
        None => kill(
            "what_a_killed_process_sent_without_syncs_is_there",
            count(),
            &["flush"],
        ),
    }
}

#[test]
fn what_a_killed_process_sent_with_a_sync_each_is_there() {
    match role() {
        Some(role) => live(&role),
        None => kill(
            "what_a_killed_process_sent_with_a_sync_each_is_there",
            count(),
            &["send"],
        ),
    }
}

#[test]
fn what_a_killed_process_sent_with_background_syncs_is_there() {
    match role() {
        Some(role) => live(&role),
        None => kill(
            "what_a_killed_process_sent_with_background_syncs_is_there",
            count(),
            &["every"],
        ),
    }
}

#[test]
fn killed_processes_of_all_durabilities_follow_one_another() {
    match role() {
        Some(role) => live(&role),
        None => kill(
            "killed_processes_of_all_durabilities_follow_one_another",
            count(),
            &["flush", "send", "every"],
        ),
    }
}
