//! What does a message cost that is on stable storage when `send` returns, next to the least that one can do?
//!
//! The least is one thread that writes 4 KiB with `pwrite` and calls `fdatasync`, round and round over a file
//! that is already full of zeros. Messages of 128 bytes, one producer and 64; the consumer receives and
//! acknowledges all of them. It stands for commands that must not get lost. It does not stand for a disk that
//! is busy with something else, nor for messages larger than a page.
//!
//! walchan under `SyncPerSend`, `sync_channel` with a bound of 1024 and default options.

use super::{Outcome, Setting};
use crate::channels::{self, BOUND};
use crate::measure::{Contender, rates};
use crate::messages::Command;
use crate::table::{Goal, Row, Unit};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};
use walchan::Options;

const PAGES: u64 = 256;
const PAGE_LEN: usize = 4096;

pub fn plain_loop() -> Contender<'static> {
    Contender::new("loop of pwrite and fdatasync", 1, write_pages)
}

fn write_pages(n: u64, dir: &Path) -> Duration {
    let mut file = File::options();
    let file = file.read(true).write(true).create_new(true);
    let file = file.open(dir.join("pages")).expect("a new file");
    let mut page = [0u8; PAGE_LEN];
    let offset = |i: u64| i % PAGES * PAGE_LEN as u64;
    for i in 0..PAGES {
        file.write_all_at(&page, offset(i)).expect("a page");
    }
    file.sync_all().expect("a sync");
    let began = Instant::now();
    for i in 0..n {
        page[..8].copy_from_slice(&(i + 1).to_le_bytes());
        file.write_all_at(&page, offset(i)).expect("a page");
        file.sync_data().expect("a sync");
    }
    let elapsed = began.elapsed();
    for i in n.saturating_sub(PAGES)..n {
        file.read_exact_at(&mut page, offset(i)).expect("a page");
        assert_eq!(page[..8], (i + 1).to_le_bytes());
    }
    elapsed
}

pub fn run(setting: &Setting) -> Outcome {
    let options = Options::default;
    let contenders = [
        plain_loop(),
        channels::walchan::<Command, walchan::Bincode>("walchan", 1, BOUND, options()),
        channels::walchan::<Command, walchan::Bincode>("walchan", 64, BOUND, options()),
    ];
    let figures = rates(&setting.place, &setting.pace, &contenders, 640);
    let row = |who: usize, producers: &str, goal| {
        let workload = format!("SyncPerSend, durable, 128 bytes, {producers}");
        let by_round = &figures.by_round;
        Row::new(
            workload,
            Unit::Rate,
            &by_round[who],
            &figures.names[0],
            &by_round[0],
            goal,
        )
    };
    vec![
        row(1, "1 producer", Goal::AtLeast(0.92)),
        row(2, "64 producers", Goal::AtLeast(30.0)),
    ]
    .into()
}
