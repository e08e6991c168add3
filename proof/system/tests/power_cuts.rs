//! The power fails while several threads send, acknowledge and sync, on real file systems in loop devices.
//!
//! A process works on a file; at random moments the device under its file system is copied as it is, while it
//! works on. That is what a disk with a cache that keeps the order of its writes would hold if the power went
//! at that moment. The copy is mounted, the channel in it opened, and compared with what the process had
//! reported by then. The power fails again while that open is at work.
//!
//! `WALCHAN_CUTS` is how many cuts each file system suffers, `WALCHAN_CUTS_SEED` the seed of the
//! incarnations. The moments are the scheduler's: a seed does not bring a failure back, so the file and the
//! reports of each are kept.
#![allow(clippy::unwrap_used)]

use rustix::process::Signal;
use system_tests::child::role;
use system_tests::examine::{Examiner, PLACE};
use system_tests::neighbour::Neighbour;
use system_tests::oracle::{Cut, Oracle};
use system_tests::reports::Process;
use system_tests::volume::{Frozen, Kind, Volume};
use system_tests::workload::{Incarnation, Mix};
use system_tests::{can_run, times};

/// Cuts of one file, in several incarnations.
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
        return Incarnation::of_role(&role).live();
    }
    if !can_run(test, &Kind::PROGRAMS) {
        return;
    }
    let seed = times("WALCHAN_CUTS_SEED", 1);
    let wanted = times("WALCHAN_CUTS", 8);
    let mut examiner = Examiner::new(test, kind, seed);
    for run in 0.. {
        let left = wanted - examiner.count.cuts;
        if left == 0 {
            break;
        }
        // With few cuts to make, each mix gets its share.
        let cuts = left.min(CUTS_OF_A_FILE).min(wanted.div_ceil(4));
        examiner = Campaign::new(test, examiner, cuts).run(Mix::ALL[run % 4]);
    }
    examiner.print("power cuts");
    let count = &examiner.count;
    assert_eq!(count.violations, 0, "see above");
    assert!(count.promises > 0, "{count:?}");
}

/// A copy of the device, and how much had been reported before it was begun and after it was done.
struct Snapshot {
    frozen: Frozen,
    before: usize,
    after: usize,
}

/// Cuts of one file.
struct Campaign {
    test: &'static str,
    examiner: Examiner,
    volume: Volume,
    oracle: Oracle,
    /// No more cuts when there were so many.
    goal: u64,
}

impl Campaign {
    fn new(test: &'static str, mut examiner: Examiner, cuts: u64) -> Campaign {
        let name = examiner.name("volume");
        let volume = examiner.host.volume(examiner.kind, &name, Kind::SMALLEST);
        Campaign {
            test,
            volume,
            oracle: Oracle::default(),
            goal: examiner.count.cuts + cuts,
            examiner,
        }
    }

    /// Incarnations after each other.
    fn run(mut self, mix: Mix) -> Examiner {
        let path = self.volume.path().join(PLACE);
        let mut seed = self.examiner.random.number() >> 8;
        // Without a journal a name can be gone, or come back, or lead to what another file holds.
        let may_grow = self.examiner.kind != Kind::Ext4NoJournal;
        while !may_grow && Incarnation::new(&path, seed, 0, mix).grows {
            seed = self.examiner.random.number() >> 8;
        }
        self.oracle.grows = Incarnation::new(&path, seed, 0, mix).grows;
        for number in 0.. {
            // Who shares the file system makes it write what it would have kept for longer.
            let neighbour_seed = self.examiner.random.number();
            let neighbour = Neighbour::new(self.volume.path(), neighbour_seed);
            self.live(&Incarnation::new(&path, seed, number, mix));
            drop(neighbour);
            if self.is_done() {
                break;
            }
        }
        // The last process is dead, the power stayed.
        let incarnation = Incarnation::new(&path, seed, 1_000_000, mix);
        self.examiner.examine_killed(&incarnation, &mut self.oracle);
        self.examiner
    }

    fn is_done(&self) -> bool {
        self.examiner.count.cuts >= self.goal
    }

    fn live(&mut self, incarnation: &Incarnation) {
        let mut process = Process::new(self.test, &incarnation.role());
        // While the file is made, or opened again.
        let creates = incarnation.number == 0;
        process.reports.wait_for("opening");
        if creates || self.examiner.random.below(2) == 0 {
            let span = self.examiner.opening_micros[usize::from(creates)];
            self.examiner.sleep(span);
            // Some are left for the traffic.
            let left = self.goal - self.examiner.count.cuts;
            self.cut(incarnation, &mut process, (left / 2).min(4), span / 3);
        }
        process.reports.wait_for("open\n");
        // In the traffic.
        for _ in 0..self.examiner.random.below(4) {
            self.examiner.sleep(20_000);
            self.cut(incarnation, &mut process, 3, 4_000);
        }
        if self.examiner.random.below(2) == 0 {
            // In order; the power may fail meanwhile.
            process.child.stdin.take();
            if self.examiner.random.below(2) == 0 {
                process.reports.wait_for("closing");
                self.examiner.sleep(3_000);
                self.cut(incarnation, &mut process, 3, 2_000);
            }
        } else {
            process.child.kill().unwrap();
        }
        process.child.wait().unwrap();
        self.examiner
            .hear(&mut self.oracle, process.reports.take(None));
        self.examiner.count.incarnations += 1;
    }

    /// Up to so many cuts in quick succession. The process rests while they are looked at.
    fn cut(
        &mut self,
        incarnation: &Incarnation,
        process: &mut Process,
        most: u64,
        pause_micros: u64,
    ) {
        let examiner = &mut self.examiner;
        let most = (self.goal - examiner.count.cuts).min(most);
        if most == 0 {
            return;
        }
        let mut snapshots = Vec::new();
        for _ in 0..=examiner.random.below(most) {
            let name = examiner.name("frozen");
            let before = process.reports.mark();
            let frozen = examiner.host.freeze(&self.volume, &name);
            let after = process.reports.mark();
            snapshots.push(Snapshot {
                frozen,
                before,
                after,
            });
            examiner.sleep(pause_micros);
        }
        process.signal(Signal::STOP);
        for snapshot in snapshots {
            let reports = process.reports.take(Some(snapshot.before));
            examiner.hear(&mut self.oracle, reports);
            let before = self.oracle.now();
            let reports = process.reports.take(Some(snapshot.after));
            examiner.hear(&mut self.oracle, reports);
            let after = self.oracle.now();
            let cut = Cut { before, after };
            examiner.examine(snapshot.frozen, incarnation, cut, &mut self.oracle);
        }
        process.signal(Signal::CONT);
    }
}
