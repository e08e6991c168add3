//! The power fails on a disk with a volatile cache: what was written since the last flush is there in part,
//! in any order, in pieces of a sector (not on btrfs, which does not stand that), a page or a whole write.
//!
//! A process works on a file; every write and flush of the device is recorded, with marks between them.
//! Afterwards disks are made from the record, for moments between any two writes; each is mounted, the
//! channel in it opened, and compared with what the process had reported at the marks around that moment.
//!
//! `WALCHAN_CUTS` is how many disks are made for each file system, `WALCHAN_CUTS_SEED` the seed of the
//! incarnations. The record is the scheduler's: a seed does not bring a failure back, so the file and the
//! reports of each are kept.
#![allow(clippy::unwrap_used)]

use system_tests::child::role;
use system_tests::examine::{Examiner, PLACE};
use system_tests::lossy::{Lossy, PROGRAMS};
use system_tests::neighbour::Neighbour;
use system_tests::oracle::{Cut, Oracle};
use system_tests::reports::Process;
use system_tests::volume::Kind;
use system_tests::workload::{Incarnation, Mix};
use system_tests::{can_run, times};

/// Disks that are made from one record.
const CUTS_OF_A_RECORD: u64 = 40;
/// Incarnations and marks of a record.
const INCARNATIONS: u64 = 4;
const MARKS_OF_A_LIFE: u64 = 40;

#[test]
fn ext4_on_a_lossy_disk_keeps_every_promise() {
    cut("ext4_on_a_lossy_disk_keeps_every_promise", Kind::Ext4);
}

#[test]
fn ext4_without_a_journal_on_a_lossy_disk_keeps_every_promise() {
    let name = "ext4_without_a_journal_on_a_lossy_disk_keeps_every_promise";
    cut(name, Kind::Ext4NoJournal);
}

#[test]
fn xfs_on_a_lossy_disk_keeps_every_promise() {
    cut("xfs_on_a_lossy_disk_keeps_every_promise", Kind::Xfs);
}

#[test]
fn btrfs_on_a_lossy_disk_keeps_every_promise() {
    cut("btrfs_on_a_lossy_disk_keeps_every_promise", Kind::Btrfs);
}

fn cut(test: &'static str, kind: Kind) {
    if let Some(role) = role() {
        return Incarnation::of_role(&role).live();
    }
    let programs = [Kind::PROGRAMS.as_slice(), &PROGRAMS].concat();
    if !can_run(test, &programs) {
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
        let cuts = left.min(CUTS_OF_A_RECORD).min(wanted.div_ceil(4));
        record_and_cut(test, &mut examiner, Mix::ALL[run % 4], cuts);
    }
    examiner.print("lossy disks");
    let count = &examiner.count;
    assert_eq!(count.violations, 0, "see above");
    assert!(count.promises > 0, "{count:?}");
}

fn record_and_cut(test: &str, examiner: &mut Examiner, mix: Mix, cuts: u64) {
    let name = examiner.name("volume");
    let mut disk = Lossy::new(&examiner.host, examiner.kind, &name);
    let path = disk.path().join(PLACE);
    let mut seed = examiner.random.number() >> 8;
    // An ext4 whose directories change while its disk loses what was not flushed does not mount each time;
    // one without a journal mounts, but a name can be gone then, or lead to what another file holds, as it
    // can where the disk loses nothing. How segments stand power cuts on ext4 with a journal, `power_cuts`
    // looks at.
    let is_ext4 = matches!(examiner.kind, Kind::Ext4 | Kind::Ext4NoJournal);
    while is_ext4 && Incarnation::new(&path, seed, 0, mix).grows {
        seed = examiner.random.number() >> 8;
    }
    let mut oracle = Oracle::new(Incarnation::new(&path, seed, 0, mix).grows);
    // What had been reported before and after each mark.
    let mut marks = Vec::new();
    for number in 0..INCARNATIONS {
        let incarnation = Incarnation::new(&path, seed, number, mix);
        let neighbour = Neighbour::new(disk.path(), examiner.random.number());
        live(
            test,
            examiner,
            &incarnation,
            &mut disk,
            &mut oracle,
            &mut marks,
        );
        drop(neighbour);
    }
    let mut record = disk.finish(&examiner.host, &format!("{name}-durable"));

    // Moments between the first mark and the last.
    let at = record.marks().to_vec();
    let (first, last) = (at[0], at[at.len() - 1]);
    let random = &mut examiner.random;
    let mut ends: Vec<usize> = (0..cuts)
        .map(|_| first + 1 + random.below((last - first) as u64) as usize)
        .collect();
    ends.sort_unstable();
    let incarnation = Incarnation::new(&path, seed, INCARNATIONS, mix);
    for end in ends {
        // The last mark among the first `end` entries, and the first behind them.
        let before = at.partition_point(|mark| *mark < end) - 1;
        let after = at.partition_point(|mark| *mark + 1 < end);
        let cut = Cut {
            before: marks[before].before,
            after: marks[after].after,
        };
        let name = examiner.name("frozen");
        let frozen = record.image(&examiner.host, &name, end, &mut examiner.random);
        examiner.examine(frozen, &incarnation, cut, &mut oracle);
    }
}

fn live(
    test: &str,
    examiner: &mut Examiner,
    incarnation: &Incarnation,
    disk: &mut Lossy,
    oracle: &mut Oracle,
    marks: &mut Vec<Cut>,
) {
    let mut process = Process::new(test, &incarnation.role());
    process.reports.wait_for("opening");
    let mut made = Vec::new();
    let ends_in_order = examiner.random.below(2) == 0;
    for n in 0..MARKS_OF_A_LIFE {
        if ends_in_order && n == MARKS_OF_A_LIFE * 3 / 4 {
            process.child.stdin.take();
        }
        let before = process.reports.mark();
        disk.mark();
        let after = process.reports.mark();
        made.push((before, after));
        examiner.sleep(2_000);
    }
    if ends_in_order {
        process.child.wait().unwrap();
    } else {
        process.child.kill().unwrap();
    }
    let mut hear = |mark| {
        let reports = process.reports.take(mark);
        examiner.hear(oracle, reports);
        oracle.now()
    };
    for (before, after) in made {
        let (before, after) = (hear(Some(before)), hear(Some(after)));
        marks.push(Cut { before, after });
    }
    hear(None);
    examiner.count.incarnations += 1;
}
