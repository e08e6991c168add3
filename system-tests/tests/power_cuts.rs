//! The power fails while several threads send, acknowledge and sync, on real file systems in loop devices.
//!
//! A process works on a file; at random moments the device under its file system is copied as it is, while it works on.
//! That is what a disk with a cache that keeps the order of its writes would hold if the power went at that moment. The
//! copy is mounted, the channel in it opened, and compared with what the process had reported by then. The power fails
//! again while that open is at work.
//!
//! `WALCHAN_CUTS` is how many cuts each file system suffers, `WALCHAN_CUTS_SEED` the seed of the lives. The moments
//! are the scheduler's: a seed does not bring a failure back, so the file and the reports of each are kept.
#![allow(clippy::disallowed_types, clippy::unwrap_used)]

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use system_tests::neighbour::Neighbour;
use system_tests::oracle::{Cut, Found, Oracle};
use system_tests::random::Random;
use system_tests::reports::{Listener, child, role};
use system_tests::volume::{Frozen, Host, Kind, Volume};
use system_tests::workload::{Life, Mix, Numbered};
use system_tests::{can_run, times};
use walchan::{Delivery, Receiver, SyncSender};

/// The longest that one cut, or one life, may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// Cuts of one file, in several lives.
const CUTS_OF_A_FILE: u64 = 20;

#[test]
fn ext4_keeps_every_promise_over_power_cuts() {
    cut("ext4_keeps_every_promise_over_power_cuts", Kind::Ext4);
}

#[test]
fn ext4_without_a_journal_keeps_every_promise_over_power_cuts() {
    let name = "ext4_without_a_journal_keeps_every_promise_over_power_cuts";
    cut(name, Kind::Ext4NoJournal);
}

#[test]
fn xfs_keeps_every_promise_over_power_cuts() {
    cut("xfs_keeps_every_promise_over_power_cuts", Kind::Xfs);
}

#[test]
fn btrfs_keeps_every_promise_over_power_cuts() {
    cut("btrfs_keeps_every_promise_over_power_cuts", Kind::Btrfs);
}

fn cut(test: &'static str, kind: Kind) {
    if let Some(role) = role() {
        return Life::of_role(&role).live();
    }
    if !can_run(test, &Kind::PROGRAMS) {
        return;
    }
    let seed = times("WALCHAN_CUTS_SEED", 1);
    let wanted = times("WALCHAN_CUTS", 8);
    let mut campaign = Campaign::new(test, kind, seed);
    for run in 0.. {
        let left = wanted - campaign.count.cuts;
        if left == 0 {
            break;
        }
        let mix = Mix::ALL[(run % 4) as usize];
        // With few cuts to make, each mix gets its share.
        let cuts = left.min(CUTS_OF_A_FILE).min(wanted.div_ceil(4));
        campaign.run(run, mix, cuts);
    }
    let count = &campaign.count;
    println!("{kind:?}, seed {seed}: {count:?}");
    assert_eq!(count.violations, 0, "see above");
    assert!(
        count.cuts >= wanted && count.promises > count.cuts,
        "{count:?}"
    );
}

#[derive(Debug, Default)]
struct Count {
    cuts: u64,
    /// Of these, while the file was made, while it was opened again, while it was closed in order.
    creating: u64,
    opening: u64,
    closing: u64,
    /// Those without a file.
    absent: u64,
    /// Copies mounted and opened: of each cut, and of cuts of what had been opened then.
    images: u64,
    lives: u64,
    /// Messages received from them.
    messages: u64,
    /// Messages that had to be there, or had to be gone.
    promises: u64,
    /// Images in which something was stepped over; header pages that were torn.
    torn: u64,
    header_faults: u64,
    violations: u64,
}

struct Campaign {
    test: &'static str,
    kind: Kind,
    seed: u64,
    host: Host,
    random: Random,
    count: Count,
    names: u64,
    /// How long it took of late to open a file, and to make one.
    opening_micros: [u64; 2],
    alive: Arc<AtomicU64>,
}

/// A process that uses the channel; killed when dropped.
struct Process {
    child: Child,
    reports: Listener,
}

impl Process {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A copy of the device, and how much had been reported before it was begun and after it was done.
struct Snapshot {
    frozen: Frozen,
    before: usize,
    after: usize,
}

impl Campaign {
    fn new(test: &'static str, kind: Kind, seed: u64) -> Campaign {
        let alive = Arc::new(AtomicU64::new(0));
        let watched = Arc::clone(&alive);
        thread::spawn(move || {
            loop {
                let before = watched.load(Ordering::Relaxed);
                thread::sleep(PATIENCE);
                if before == watched.load(Ordering::Relaxed) {
                    eprintln!("{test} hangs: nothing has happened in {PATIENCE:?}");
                    std::process::abort();
                }
            }
        });
        Campaign {
            test,
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

    fn name(&mut self, what: &str) -> String {
        self.names += 1;
        format!("{what}{}", self.names)
    }

    fn sleep(&mut self, micros_max: u64) {
        thread::sleep(Duration::from_micros(self.random.below(micros_max.max(1))));
    }

    /// One file: lives after each other, and so many cuts.
    fn run(&mut self, run: u64, mix: Mix, cuts: u64) {
        let name = self.name("volume");
        let volume = self.host.volume(self.kind, &name, Kind::SMALLEST);
        let path = volume.path().join("queues/q");
        let seed = self.random.number() >> 8;
        let mut oracle = Oracle::default();
        let goal = self.count.cuts + cuts;
        for number in 0.. {
            let life = Life::new(&path, seed, number, mix);
            // Who shares the file system makes it write what it would have kept for longer.
            let neighbour = Neighbour::new(volume.path(), self.random.number());
            self.live(&volume, &life, &mut oracle, goal);
            drop(neighbour);
            self.count.lives += 1;
            if self.count.cuts >= goal {
                break;
            }
        }
        // The last process is dead, the power stayed.
        let life = Life::new(&path, seed, 1_000_000, mix);
        let outcome = self.drain_killed(&life, &mut oracle);
        self.judge(outcome, &format!("run {run}, the end"), &oracle, None);
        drop(volume);
    }

    fn live(&mut self, volume: &Volume, life: &Life, oracle: &mut Oracle, goal: u64) {
        let mut child = child(self.test, &life.role())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let reports = Listener::new(child.stdout.take().unwrap());
        let mut process = Process { child, reports };
        // While the file is made, or opened again.
        let creates = life.number == 0;
        process.reports.wait_for("opening");
        if (creates || self.random.below(2) == 0) && self.count.cuts < goal {
            let span = self.opening_micros[usize::from(creates)];
            self.sleep(span);
            self.cut_and_check(volume, life, &mut process, oracle, goal, 4, span / 3);
        }
        process.reports.wait_for("open\n");
        // In the traffic.
        for _ in 0..self.random.below(4) {
            if self.count.cuts >= goal {
                break;
            }
            self.sleep(20_000);
            self.cut_and_check(volume, life, &mut process, oracle, goal, 3, 4_000);
        }
        if self.random.below(2) == 0 {
            // In order; the power may fail meanwhile.
            process.child.stdin.take();
            if self.count.cuts < goal && self.random.below(2) == 0 {
                process.reports.wait_for("closing");
                self.sleep(3_000);
                self.cut_and_check(volume, life, &mut process, oracle, goal, 3, 2_000);
            }
        } else {
            process.child.kill().unwrap();
        }
        process.child.wait().unwrap();
        self.hear(oracle, process.reports.take(None));
        self.alive.fetch_add(1, Ordering::Relaxed);
    }

    fn hear(&mut self, oracle: &mut Oracle, reports: Vec<String>) {
        for report in reports {
            let outcome = oracle.hear(&report);
            self.judge(outcome, &report, oracle, None);
        }
    }

    /// Up to so many cuts in quick succession. The process rests while they are looked at.
    #[allow(clippy::too_many_arguments)]
    fn cut_and_check(
        &mut self,
        volume: &Volume,
        life: &Life,
        process: &mut Process,
        oracle: &mut Oracle,
        goal: u64,
        most: u64,
        pause_micros: u64,
    ) {
        let mut snapshots = Vec::new();
        let most = (goal - self.count.cuts).min(most);
        for _ in 0..=self.random.below(most) {
            let name = self.name("frozen");
            let before = process.reports.mark();
            let frozen = self.host.freeze(volume, &name);
            let after = process.reports.mark();
            snapshots.push(Snapshot {
                frozen,
                before,
                after,
            });
            self.sleep(pause_micros);
        }
        process.signal(Signal::STOP);
        for snapshot in snapshots {
            let reports = process.reports.take(Some(snapshot.before));
            self.hear(oracle, reports);
            let before = oracle.now();
            let reports = process.reports.take(Some(snapshot.after));
            self.hear(oracle, reports);
            let after = oracle.now();
            let cut = Cut { before, after };
            self.count.cuts += 1;
            match oracle.under_way(cut) {
                Some("opening") if !oracle.must_exist(cut) => self.count.creating += 1,
                Some("opening") => self.count.opening += 1,
                Some(_) => self.count.closing += 1,
                None => {}
            }
            let mut file = None;
            let outcome = self.examine(snapshot.frozen, life, cut, oracle, &mut file);
            self.judge(outcome, &format!("{cut:?}"), oracle, file.as_deref());
            self.alive.fetch_add(1, Ordering::Relaxed);
        }
        process.signal(Signal::CONT);
    }

    /// Opens what a cut left, and what a second cut leaves of that. `file` gets the bytes of the file.
    fn examine(
        &mut self,
        frozen: Frozen,
        life: &Life,
        cut: Cut,
        oracle: &mut Oracle,
        file: &mut Option<Vec<u8>>,
    ) -> Result<(), String> {
        let name = self.name("copy");
        let copy = self.host.thaw(frozen, &name);
        let path = copy.path().join("queues/q");
        let exists = path.exists();
        if exists {
            *file = Some(fs::read(&path).unwrap());
        } else if oracle.must_exist(cut) {
            return Err("the file is gone".to_owned());
        } else {
            self.count.absent += 1;
        }
        let durability = life.mix.durability(&mut self.random);
        let in_the_middle = self.random.below(2) == 0;
        let delay = self.random.below(self.opening_micros[usize::from(!exists)]);
        let delay = Duration::from_micros(delay);
        let began = Instant::now();
        let name = self.name("frozen");
        let (opened, again) = thread::scope(|scope| {
            let opening = scope.spawn(|| {
                let opened = Opened::new(&path, life, durability);
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
        let found = self.drain(opened?, exists, oracle)?;
        self.count.promises += oracle.check(cut, &found)?;
        drop(copy);

        let name = self.name("copy");
        let copy = self.host.thaw(again, &name);
        let path = copy.path().join("queues/q");
        if exists && !path.exists() {
            return Err("the file is gone after a second cut".to_owned());
        }
        let there = path.exists();
        let opened = Opened::new(&path, life, life.mix.durability(&mut self.random))?;
        let second = self.drain(opened, there, oracle)?;
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
        tx.send(Numbered::new(key.0, key.1))
            .map_err(|e| format!("a new message: {e}"))?;
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
        Ok(found)
    }

    fn drain_killed(&mut self, life: &Life, oracle: &mut Oracle) -> Result<(), String> {
        let existed = life.path.exists();
        let opened = Opened::new(&life.path, life, life.durability)?;
        let found = self.drain(opened, existed, oracle)?;
        self.count.promises += oracle.check_killed(&found)?;
        Ok(())
    }

    /// Counts a violation, and keeps what tells about it.
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
    tx: SyncSender<Numbered>,
    rx: Receiver<Numbered>,
}

impl Opened {
    fn new(path: &Path, life: &Life, durability: walchan::Durability) -> Result<Opened, String> {
        let options = walchan::Options {
            durability,
            ..life.options()
        };
        let opened = walchan::sync_channel_with_options(path, 10_000, options);
        let (tx, rx) = opened.map_err(|e| format!("open: {e}"))?;
        Ok(Opened { tx, rx })
    }
}
