//! One call of a process that fails, once or for ever, and what the process then said.

use super::oracle::Oracle;
use super::script::{self, Message};
use super::{Place, Trying};
use std::path::Path;
use system_tests::trace::{Call, Ended, Event, Verdict, watch};

pub const EINTR: i32 = 4;
pub const EIO: i32 = 5;
const EAGAIN: i32 = 11;
pub const ENOMEM: i32 = 12;
pub const EACCES: i32 = 13;
pub const EINVAL: i32 = 22;
pub const EMFILE: i32 = 24;
pub const ENOSPC: i32 = 28;

const MADV_POPULATE_WRITE: u64 = 23;

/// The calls that fail here.
const NAMES: [&str; 30] = [
    "openat",
    "close",
    "read",
    "write",
    "pread64",
    "pwrite64",
    "lseek",
    "ftruncate",
    "fallocate",
    "getdents64",
    "fsync",
    "fdatasync",
    "msync",
    "flock",
    "ioctl",
    "fadvise64",
    "statx",
    "fstat",
    "newfstatat",
    "renameat2",
    "rename",
    "linkat",
    "unlink",
    "unlinkat",
    "mkdir",
    "readlink",
    "mmap",
    "madvise",
    "clone3",
    "getrandom",
];
/// Those of them that are refused for reasons of their own.
const MORE_NAMES: [&str; 4] = ["mprotect", "munmap", "getcwd", "membarrier"];

/// Whether a test makes this call fail. Not memory for the heap: without it the process ends, as any of Rust
/// does.
pub fn can_fail(call: &Call) -> bool {
    match call.name.as_str() {
        // What a thread of the standard library sets up for itself is not ours.
        "mmap" => call.target != "memory" && (call.thread == 0 || call.target != "a stack"),
        "madvise" if call.args[2] == MADV_POPULATE_WRITE => true,
        "mprotect" | "munmap" | "madvise" => call.thread == 0,
        // It has been registered: see below.
        "membarrier" => true,
        // Its own lines.
        "write" => call.args[0] > 2,
        name => NAMES.contains(&name) || MORE_NAMES.contains(&name),
    }
}

/// What fails, and when.
#[derive(Clone, Debug)]
pub struct Case {
    pub test: &'static str,
    pub script: &'static str,
    pub durability: &'static str,
    /// Renames fail always, as on file systems that cannot rename without replacing.
    pub links: bool,
    pub name: String,
    /// The thread that opened the channel, or all others.
    pub by_first: bool,
    pub nth: usize,
    pub error: i32,
    pub for_ever: bool,
    /// How many calls others make before the one that fails is answered.
    pub late: usize,
}

/// Where a call failed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Site {
    pub call: String,
    pub target: String,
    pub step: String,
}

/// What a case came to.
#[derive(Debug)]
pub struct Outcome {
    pub site: Site,
    /// The result of the step, `ok`, `error` or what else it said.
    pub result: String,
}

/// The words of a step without its number.
fn step_of(line: &str) -> Option<String> {
    let step = line.strip_prefix("> ")?;
    let words = step.split(' ').filter(|word| word.parse::<u64>().is_err());
    Some(words.collect::<Vec<_>>().join(" "))
}

impl Case {
    fn run(&self, place: &Place) -> Ended {
        let mut seen = 0;
        let mut decide = |call: &Call| {
            let links = self.links && call.name == "renameat2";
            if call.name != self.name || !can_fail(call) {
                let verdict = Verdict::Fail(EINVAL);
                return if links { verdict } else { Verdict::Continue };
            }
            seen += usize::from((call.thread == 0) == self.by_first);
            let counts = self.for_ever || (call.thread == 0) == self.by_first;
            let now = counts && (seen == self.nth || self.for_ever && seen > self.nth);
            if now {
                if !self.for_ever {
                    seen += 1;
                }
                return match self.late {
                    0 => Verdict::Fail(self.error),
                    late => Verdict::FailLate(self.error, late),
                };
            }
            Verdict::Continue
        };
        let mut child = script::child(self.test, self.script, self.durability, &place.path());
        watch(&mut child, place.dir(), &mut decide)
    }

    /// Runs it, and checks all that holds whatever fails. `None` if the call was not made.
    pub fn check(&self, bytes: Option<&[u8]>) -> Option<Outcome> {
        let _trying = Trying(format!("{self:?}"));
        let place = Place::new(bytes);
        let ended = self.run(&place);
        let events = &ended.events;
        let said: Vec<_> = ended.said().collect();
        assert!(!ended.hung, "it hangs: {said:#?}");
        assert!(ended.status.success(), "{}\n{said:#?}", ended.stderr);
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
        let failed = events.iter().position(|event| match event {
            Event::Call(call, Verdict::Fail(_)) => call.name == self.name,
            _ => false,
        });
        let failed = failed?;
        self.check_errors(&said);
        self.check_poison(events, failed);
        self.check_nothing_half_made(&place.path());
        let mut oracle = Oracle::of_script(self.script);
        said.iter().for_each(|line| oracle.hear(line));
        match script::grows(self.script) {
            true => self.check_service(events, failed, &place.path()),
            false => self.check_sync_again(events, &place.path()),
        }
        oracle.check(&place.path(), self.durability);
        Some(self.outcome(events, failed))
    }

    /// Errors are those of the system, and no others; a call that fails once does not keep the file from
    /// being opened.
    fn check_errors(&self, said: &[&str]) {
        let mut codes = vec![format!("Io({})", self.error)];
        if ["clone3", "mmap", "mprotect"].contains(&self.name.as_str()) {
            // What the C library makes of it when it starts a thread.
            codes.push(format!("Io({EAGAIN})"));
        }
        for line in said.iter().filter(|line| line.starts_with("= ")) {
            // Of a directory that must not be read, nobody knows which files are in it.
            let unknown = script::grows(self.script) && self.error == EACCES;
            if unknown && line.starts_with("= open Corrupt") {
                continue;
            }
            if let Some(at) = line.find("Io(") {
                assert!(codes.iter().any(|code| *code == line[at..]), "{line}");
            } else {
                let fine = [
                    "ok",
                    "empty",
                    "disconnected",
                    "undecodable",
                    "corrupt",
                    "unreadable",
                ];
                let last = line.rsplit(' ').next().unwrap();
                let is_number = last.parse::<u64>().is_ok();
                assert!(fine.contains(&last) || is_number, "{line}");
            }
        }
        if !self.for_ever {
            let opens = said.iter().filter(|line| line.starts_with("= open"));
            let failed = opens.filter(|line| !line.ends_with("ok")).count();
            assert!(failed <= 1, "{said:#?}");
        }
        assert!(self.for_ever || said.last() == Some(&"end"), "{said:#?}");
    }

    /// After a failed sync of an open channel nothing that it is asked for succeeds.
    fn check_poison(&self, events: &[Event], failed: usize) {
        let step = current_step(events, failed);
        if self.name != "fdatasync"
            || self.error == EINTR
            // A file that the receiver comes to is opened: what that needs is asked for again.
            || step.is_none_or(|step| ["open", "close", "recv"].contains(&step.as_str()))
        {
            return;
        }
        // With syncs in the background, a send can return before the news reaches it.
        let mut known = self.durability == "send";
        let mut unsynced = Vec::new();
        let mut begun = self.by_first;
        let Event::Call(failing, _) = &events[failed] else {
            unreachable!("it is the call that failed");
        };
        // The failure of another thread is seen here before that thread sees it, and tells the others. Until
        // it waits or wakes somebody, steps begin that do not know; but a send among them must have been
        // synced by itself, in another file of the chain: then it is as durable as it says.
        let mut told = self.by_first;
        let mut is_unaware = false;
        let mut synced_elsewhere = false;
        for event in &events[failed + 1..] {
            let line = match event {
                Event::Said(line) => line,
                Event::Call(call, verdict) => {
                    told |= call.thread == failing.thread && call.name == "futex";
                    synced_elsewhere |= call.name == "fdatasync"
                        && call.thread == 0
                        && call.target != failing.target
                        && *verdict == Verdict::Continue;
                    continue;
                }
            };
            if line == "> open" {
                break;
            }
            if line.starts_with("> ") {
                (begun, is_unaware, synced_elsewhere) = (known, !told, false);
            }
            if !line.starts_with("= ") {
                continue;
            }
            let failed = line.ends_with(&format!("Io({})", self.error));
            known |= failed;
            let words: Vec<_> = line.split(' ').collect();
            if line.contains("unsynced") {
                unsynced.push(words[2]);
            }
            let shown = words[2] == "got" && unsynced.contains(&words[3]);
            assert!(!shown, "not durable, and shown: {line}");
            let must_fail = ["send", "sync", "ack", "close"];
            if begun && must_fail.iter().any(|step| line[2..].starts_with(step)) {
                let is_true = !line.starts_with("= send") || synced_elsewhere;
                assert!(
                    failed || is_unaware && is_true,
                    "after a failed sync: {line}"
                );
            }
            if line.starts_with("= close") {
                assert!(failed, "closed in order after a failed sync: {line}");
            }
        }
    }

    /// The name in the making is gone, and parts of copies, unless it is the removal that failed.
    fn check_nothing_half_made(&self, path: &Path) {
        let Ok(entries) = std::fs::read_dir(path.parent().unwrap()) else {
            return;
        };
        for entry in entries {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let half_made = name.ends_with(".walchan-new") || name.ends_with(".part");
            // What cannot be looked at is not removed; the next maker takes it over.
            let excused = ["unlink", "unlinkat"].contains(&self.name.as_str())
                || self.name == "newfstatat" && self.for_ever;
            assert!(!half_made || excused, "{name} stays");
        }
    }

    /// Whether the channel has to go on as if nothing had been after this failure, which came once.
    fn owes_service(&self, call: &Call, step: &str) -> bool {
        let ends = match call.name.as_str() {
            "fdatasync" => self.error != EINTR,
            "msync" => true,
            // The header of a ring that begins anew: nobody knows what the disk holds of it.
            "pwrite64" => self.error != EINTR && call.target == "sub/q" && step != "open",
            // Of a directory that must not be read, nobody knows which files are in it.
            "openat" | "getdents64" => self.error == EACCES && step == "open",
            _ => false,
        };
        self.script == "service" && !self.for_ever && !ends
    }

    /// After a call that failed once there is full service: nothing but the step that made the call may fail,
    /// or a close on behalf of a thread of the channel; everything accepted is handed out; and if the close
    /// was in order, the ring is the only file, and is enough for a channel with a bound.
    fn check_service(&self, events: &[Event], failed: usize, path: &Path) {
        let Event::Call(call, _) = &events[failed] else {
            unreachable!("it is the call that failed");
        };
        let step = current_step(events, failed).unwrap_or_default();
        if !self.owes_service(call, &step) {
            return;
        }
        let said = events[failed..].iter().filter_map(|event| match event {
            Event::Said(line) => Some(line.as_str()),
            Event::Call(..) => None,
        });
        // The step in which the call was made, as far as it has not ended.
        let mut excused = self.by_first || ["open", "close"].contains(&step.as_str());
        for line in said {
            if line.starts_with("> ") {
                excused = false;
            } else if line.starts_with("= ") {
                let last = line.rsplit(' ').next().unwrap_or_default();
                let is_fine =
                    ["ok", "empty", "disconnected"].contains(&last) || last.parse::<u64>().is_ok();
                assert!(is_fine || excused, "no full service: {line}");
                excused = false;
            }
        }
        let lines = || {
            events.iter().filter_map(|event| match event {
                Event::Said(line) => Some(line.as_str()),
                Event::Call(..) => None,
            })
        };
        for line in lines() {
            let sent = line.strip_prefix("= send ");
            if let Some(number) = sent.and_then(|sent| sent.strip_suffix(" ok")) {
                let got = format!("= recv got {number}");
                assert!(lines().any(|line| line == got), "not handed out: {number}");
            }
        }
        let closed = lines().rfind(|line| line.starts_with("= close"));
        if closed == Some("= close ok") {
            let entries = std::fs::read_dir(path.parent().unwrap()).unwrap();
            let names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(names, ["q"], "beside the ring");
            let (tx, rx) = script::open::<Message>(path, self.durability).unwrap();
            assert!(rx.recovery().is_clean(), "{}", rx.recovery());
            assert_eq!(rx.recovery().kept(), 0);
            drop(tx);
            rx.close().unwrap();
        }
    }

    /// What a failed sync may have left in memory only is written again, and synced, before the next open
    /// returns.
    fn check_sync_again(&self, events: &[Event], path: &Path) {
        let bytes = std::fs::read(path).unwrap_or_default();
        // Sent in this incarnation, and not known to be on the disk.
        let mut unsynced: Vec<u64> = Vec::new();
        let mut poisoned = false;
        let mut is_open = false;
        let mut missing = match self.script {
            "recover" => script::UNSYNCED.to_vec(),
            _ => Vec::new(),
        };
        let mut written: Vec<u64> = Vec::new();
        for event in events {
            match event {
                Event::Said(line) if line == "> open" => {
                    if poisoned {
                        missing.append(&mut unsynced);
                    }
                    (unsynced, poisoned, is_open) = (Vec::new(), false, false);
                    written.clear();
                }
                Event::Said(line) if line == "= open ok" => is_open = true,
                Event::Said(line) if line.starts_with(script::UNDURABLE) => {
                    // What could not be read cannot be written again: it was reported.
                    let unreadable = script::is_unreadable(line, self.script == "recover");
                    assert!(
                        unreadable || missing.is_empty(),
                        "{missing:?} were not synced again"
                    );
                    missing.clear();
                }
                Event::Said(line) if line.starts_with("> send ") => {
                    unsynced.push(line["> send ".len()..].parse().unwrap());
                }
                Event::Said(line) if is_refused(line) => {
                    // Refused: it is not there.
                    unsynced.pop();
                }
                // Acknowledged, it is not kept.
                Event::Said(line) if line.starts_with("> ack ") => {
                    let number = line["> ack ".len()..].parse().unwrap();
                    unsynced.retain(|other| *other != number);
                    missing.retain(|other| *other != number);
                }
                // It is tried again at once.
                Event::Call(_, Verdict::Fail(EINTR)) => {}
                Event::Call(call, verdict)
                    if call.name == "fdatasync" && call.target == "sub/q" =>
                {
                    let ok = *verdict == Verdict::Continue;
                    match (is_open, ok) {
                        (true, true) if !poisoned => unsynced.clear(),
                        (true, true) => {}
                        (true, false) => poisoned = true,
                        (false, true) => missing.retain(|number| !written.contains(number)),
                        (false, false) => written.clear(),
                    }
                }
                // So pages are marked as changed. Which they are is not seen here: the call does not say
                // where the map begins.
                Event::Call(call, Verdict::Continue)
                    if call.name == "madvise" && call.args[2] == MADV_POPULATE_WRITE =>
                {
                    written.extend(&missing);
                }
                Event::Call(call, Verdict::Continue) if call.name == "pwrite64" => {
                    let (from, len) = (call.args[3] as usize, call.args[2] as usize);
                    let part = bytes.get(from..(from + len).min(bytes.len()));
                    let part = part.unwrap_or_default();
                    written.extend(missing.iter().filter(|number| {
                        let mark = Message::mark(**number);
                        part.windows(mark.len()).any(|window| window == mark)
                    }));
                }
                _ => {}
            }
        }
    }

    fn outcome(&self, events: &[Event], failed: usize) -> Outcome {
        let Event::Call(call, _) = &events[failed] else {
            unreachable!("it is the call that failed");
        };
        let step = current_step(events, failed).unwrap_or_default();
        let result = events[failed..].iter().find_map(|event| match event {
            Event::Said(line) if line.starts_with("= ") => Some(line),
            _ => None,
        });
        let result = result.map_or("none", String::as_str);
        let result = match result.rsplit(' ').next() {
            _ if result.contains("unsynced") => "Unsynced",
            Some(last) if last.starts_with("Io(") => "Io",
            Some(last) if last.parse::<u64>().is_ok() => "ok",
            Some(last) => last,
            None => "none",
        };
        let site = Site {
            call: call.name.clone(),
            target: call.target.clone(),
            step: if self.by_first {
                step
            } else {
                "the channel's thread".to_owned()
            },
        };
        Outcome {
            site,
            result: result.to_owned(),
        }
    }
}

/// A send that did not take place.
fn is_refused(line: &str) -> bool {
    line.starts_with("= send ") && line.contains(" Io(") && !line.contains("unsynced")
}

/// The step during which something happened, and whether the process was in one at all.
fn current_step(events: &[Event], at: usize) -> Option<String> {
    let lines = events[..at].iter().rev().filter_map(|event| match event {
        Event::Said(line) => Some(line),
        Event::Call(..) => None,
    });
    lines
        .map(|line| step_of(line))
        .find(Option::is_some)
        .flatten()
}
