//! The workloads, one question each.

pub mod backlog;
pub mod bytes;
pub mod durable_producers;
pub mod latency;
pub mod peers;
pub mod producers;
pub mod recovery;
pub mod round_trip;
pub mod sizes;
pub mod small;
pub mod strings;
pub mod synced;

use crate::measure::Pace;
use crate::place::Place;
use crate::plot::Chart;
use crate::table::Row;

/// What a workload is given.
#[derive(Debug)]
pub struct Setting {
    pub place: Place,
    pub pace: Pace,
}

/// What it gives.
#[derive(Debug, Default)]
pub struct Outcome {
    pub rows: Vec<Row>,
    /// With the name of the file, without its ending.
    pub charts: Vec<(&'static str, Chart)>,
}

impl From<Vec<Row>> for Outcome {
    fn from(rows: Vec<Row>) -> Self {
        let charts = Vec::new();
        Outcome { rows, charts }
    }
}

#[derive(Debug)]
pub struct Workload {
    pub name: &'static str,
    /// It waits for the disk, so there must be one.
    pub durable: bool,
    pub run: fn(&Setting) -> Outcome,
}

const fn workload(name: &'static str, durable: bool, run: fn(&Setting) -> Outcome) -> Workload {
    Workload { name, durable, run }
}

pub const ALL: &[Workload] = &[
    workload("small", false, small::run),
    workload("producers", false, producers::run),
    workload("strings", false, strings::run),
    workload("bytes", false, bytes::run),
    workload("round-trip", false, round_trip::run),
    workload("synced", true, synced::run),
    workload("peers-durable", true, peers::run_durable),
    workload("peers-unsynced", false, peers::run_unsynced),
    workload("recovery", false, recovery::run),
    workload("latency", true, latency::run),
    workload("sizes", false, sizes::run),
    workload("durable-producers", true, durable_producers::run),
    workload("backlog", false, backlog::run),
];
