//! Opens what a power cut left, and compares it with what had been reported.

#![allow(clippy::disallowed_types)] // never under loom
#![allow(clippy::unwrap_used)]

use crate::oracle::{Cut, Found, Oracle};
use crate::random::Random;
use crate::volume::{Frozen, Host, Kind};
use crate::workload::{Incarnation, Numbered, Sent, Tx};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use walchan::{Delivery, Receiver};

/// The longest that one cut, or one incarnation, may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// Where the channel is, in its file system.
pub const PLACE: &str = "queues/q";

#[derive(Debug, Default)]
pub struct Count {
    pub cuts: u64,
    /// Of these, while the file was made, while it was opened again, while it was closed in order.
    pub creating: u64,
    pub opening: u64,
    pub closing: u64,
    /// Those without a file.
    pub absent: u64,
    /// Copies mounted and opened: of each cut, and of cuts of what had been opened then.
    pub images: u64,
    pub incarnations: u64,
    /// Messages received from them.
    pub messages: u64,
    /// Messages that had to be there, or had to be gone.
    pub promises: u64,
    /// Images in which something was stepped over; header pages that were torn.
    pub torn: u64,
    pub header_faults: u64,
    pub violations: u64,
}

/// Looks at what power cuts leave on one kind of file system, and counts.
#[derive(Debug)]
pub struct Examiner {
    pub kind: Kind,
    pub seed: u64,
    pub host: Host,
    pub random: Random,
    pub count: Count,
    names: u64,
    /// How long it took of late to open a file, and to make one.
    pub opening_micros: [u64; 2],
    alive: Arc<AtomicU64>,
}

impl Examiner {
    pub fn new(test: &'static str, kind: Kind, seed: u64) -> Examiner {
        let alive = Arc::new(AtomicU64::new(0));
        let watched = Arc::downgrade(&alive);
        thread::spawn(move || {
            let count = || Some(watched.upgrade()?.load(Ordering::Relaxed));
            // Until the test has ended, others of this process may go on.
            while let Some(before) = count() {
                thread::sleep(PATIENCE);
                if count() == Some(before) {
                    eprintln!("{test} hangs: nothing has happened in {PATIENCE:?}");
                    std::process::abort();
                }
            }
        });
        Examiner {
            kind,
            seed,
            host: Host::new(),
            random: Random::new(seed ^ (kind as u64) << 32),
            count: Count::default(),
            names: 0,
            opening_micros: [10_000, 30_000],
            alive,
        }
    }

    pub fn name(&mut self, what: &str) -> String {
        self.names += 1;
        format!("{what}{}", self.names)
    }

    pub fn sleep(&mut self, micros_max: u64) {
        thread::sleep(Duration::from_micros(self.random.below(micros_max.max(1))));
    }

    /// A line of figures.
    pub fn print(&self, what: &str) {
        println!(
            "{what}, {:?}, seed {}: {:?}",
            self.kind, self.seed, self.count
        );
    }

    pub fn hear(&mut self, oracle: &mut Oracle, reports: Vec<String>) {
        for report in reports {
            let outcome = oracle.hear(&report);
            self.judge(outcome, &report, oracle, None);
        }
    }

    /// Opens what a cut left, and what a second cut leaves of that.
    pub fn examine(
        &mut self,
        frozen: Frozen,
        incarnation: &Incarnation,
        cut: Cut,
        oracle: &mut Oracle,
    ) {
        self.count.cuts += 1;
        match oracle.under_way(cut) {
            Some("opening") if !oracle.must_exist(cut) => self.count.creating += 1,
            Some("opening") => self.count.opening += 1,
            Some(_) => self.count.closing += 1,
            None => {}
        }
        let mut file = None;
        let outcome = self.open_twice(frozen, incarnation, cut, oracle, &mut file);
        self.judge(outcome, &format!("{cut:?}"), oracle, file.as_deref());
        self.alive.fetch_add(1, Ordering::Relaxed);
    }

    /// `file` gets the bytes of the file.
    fn open_twice(
        &mut self,
        frozen: Frozen,
        incarnation: &Incarnation,
        cut: Cut,
        oracle: &mut Oracle,
        file: &mut Option<Vec<u8>>,
    ) -> Result<(), String> {
        let name = self.name("copy");
        let copy = self.host.thaw(frozen, &name);
        let path = copy.path().join(PLACE);
        let exists = path.exists();
        if exists {
            *file = Some(fs::read(&path).unwrap());
        } else if oracle.must_exist(cut) {
            return Err("the file is gone".to_owned());
        } else {
            self.count.absent += 1;
        }
        let durability = incarnation.mix.durability(&mut self.random);
        let in_the_middle = self.random.below(2) == 0;
        let delay = self.random.below(self.opening_micros[usize::from(!exists)]);
        let delay = Duration::from_micros(delay);
        let began = Instant::now();
        let name = self.name("frozen");
        let (opened, again) = thread::scope(|scope| {
            let opening = scope.spawn(|| {
                let opened = Opened::new(&path, incarnation, durability);
                (opened, began.elapsed())
            });
            if in_the_middle {
                thread::sleep(delay);
                let again = self.host.freeze(&copy, &name);
                (opening.join().unwrap(), again)
            } else {
                let opened = opening.join().unwrap();
                (opened, self.host.freeze(&copy, &name))
            }
        });
        let (opened, elapsed) = opened;
        self.opening_micros[usize::from(!exists)] = elapsed.as_micros() as u64;
        let found = self.drain(opened?, &path, exists, oracle)?;
        self.count.promises += oracle.check(cut, &found)?;
        drop(copy);

        let name = self.name("copy");
        let copy = self.host.thaw(again, &name);
        let path = copy.path().join(PLACE);
        if exists && !path.exists() {
            return Err("the file is gone after a second cut".to_owned());
        }
        let there = path.exists();
        let opened = Opened::new(
            &path,
            incarnation,
            incarnation.mix.durability(&mut self.random),
        )?;
        let second = self.drain(opened, &path, there, oracle)?;
        if second != found {
            return Err(format!(
                "a second cut changed what is found: {found:?}, now {second:?}"
            ));
        }
        Ok(())
    }

    /// Receives everything, and then something new.
    fn drain(
        &mut self,
        opened: Opened,
        path: &Path,
        existed: bool,
        oracle: &mut Oracle,
    ) -> Result<Vec<Found>, String> {
        let Opened { tx, rx } = opened;
        let report = rx.recovery().clone();
        if report.damaged().iter().any(|d| d.was_durable()) {
            return Err(format!("damage: {report}"));
        }
        if report.is_created() == existed {
            return Err(format!("the file was there: {existed}; {report}"));
        }
        self.count.images += 1;
        self.count.torn += u64::from(report.stepped_over() > 0);
        self.count.header_faults += report.header_faults().len() as u64;
        let mut found = Vec::new();
        for d in rx.try_iter() {
            let key = (d.producer, d.number);
            if *d != Numbered::new(key.0, key.1) {
                return Err(format!("{key:?} has other bytes"));
            }
            found.push(Found {
                key,
                id: Delivery::id(&d),
                deliveries: Delivery::deliveries(&d),
            });
        }
        if found.len() as u64 != report.kept() {
            return Err(format!("{} received, {report}", found.len()));
        }
        self.count.messages += found.len() as u64;
        self.names += 1;
        let key = (u64::MAX, self.names);
        // Of a channel that was full, the housekeeper gives the space back in its own time.
        let start = Instant::now();
        loop {
            match tx.send(Numbered::new(key.0, key.1)) {
                Ok(Sent::Yes) => break,
                Ok(Sent::Refused) if start.elapsed() < Duration::from_secs(20) => {}
                other => return Err(format!("a new message: {other:?}")),
            }
        }
        // Or the error at which the loop above stopped.
        let d = rx.recv().map_err(|e| format!("a new message: {e}"))?;
        if *d != Numbered::new(key.0, key.1) {
            return Err(format!(
                "{key:?} was sent, {:?} came",
                (d.producer, d.number)
            ));
        }
        oracle.given(Delivery::id(&d), key)?;
        drop((d, tx));
        rx.close().map_err(|e| format!("close: {e}"))?;
        // No segment is left.
        let names = fs::read_dir(path.parent().unwrap()).unwrap();
        let names = names.map(|entry| {
            let entry = entry.unwrap();
            let bytes = fs::read(entry.path()).unwrap_or_default();
            let zeros = bytes.iter().all(|byte| *byte == 0);
            (entry.file_name(), bytes.len(), zeros)
        });
        let names: Vec<_> = names.collect();
        if names.len() != 1 {
            return Err(format!("after a full drain: {names:?}"));
        }
        Ok(found)
    }

    /// Opens the file of a process that is dead while the power stayed.
    pub fn examine_killed(&mut self, incarnation: &Incarnation, oracle: &mut Oracle) {
        let outcome = self.open_killed(incarnation, oracle);
        self.judge(outcome, "in the end", oracle, None);
    }

    fn open_killed(
        &mut self,
        incarnation: &Incarnation,
        oracle: &mut Oracle,
    ) -> Result<(), String> {
        let existed = incarnation.path.exists();
        let opened = Opened::new(&incarnation.path, incarnation, incarnation.durability)?;
        let found = self.drain(opened, &incarnation.path, existed, oracle)?;
        self.count.promises += oracle.check_killed(&found)?;
        Ok(())
    }

    /// Counts a violation, and keeps what shows it.
    fn judge(
        &mut self,
        outcome: Result<(), String>,
        when: &str,
        oracle: &Oracle,
        file: Option<&[u8]>,
    ) {
        let Err(violation) = outcome else { return };
        self.count.violations += 1;
        let name = format!(
            "walchan-cuts/{:?}-{}-{}",
            self.kind, self.seed, self.count.violations
        );
        let dir: PathBuf = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("reports"), oracle.reports().join("\n")).unwrap();
        if let Some(bytes) = file {
            fs::write(dir.join("q"), bytes).unwrap();
        }
        let text = format!("{when}: {violation}\n");
        fs::write(dir.join("violation"), &text).unwrap();
        println!("VIOLATION in {}: {text}", dir.display());
        assert!(self.count.violations < 20, "that is enough");
    }
}

/// Both halves of a channel in this process.
struct Opened {
    tx: Tx,
    rx: Receiver<Numbered>,
}

impl Opened {
    fn new(
        path: &Path,
        incarnation: &Incarnation,
        durability: walchan::Durability,
    ) -> Result<Opened, String> {
        let options = walchan::Options {
            durability,
            ..incarnation.options()
        };
        let opened = incarnation.open(path, 10_000, options);
        let (tx, rx) = opened.map_err(|e| format!("open: {e}"))?;
        Ok(Opened { tx, rx })
    }
}
