//! Where the files of a run go, and what that place is: figures of a disk need a disk.

use std::fs;
use std::path::{Path, PathBuf};

/// A directory for the files of all runs.
#[derive(Debug)]
pub struct Place {
    pub dir: PathBuf,
    /// The kind of file system.
    pub kind: String,
}

impl Place {
    /// The directory that was asked for, or that of `WALCHAN_BENCH_DIR`, or one beside the program, which is
    /// below `target`.
    pub fn choose(asked: Option<PathBuf>) -> Result<Self, String> {
        let from_environment = || std::env::var_os("WALCHAN_BENCH_DIR").map(PathBuf::from);
        let dir = match asked.or_else(from_environment) {
            Some(dir) => dir,
            None => {
                let program = std::env::current_exe().map_err(|e| e.to_string())?;
                program.with_file_name("rivals-files")
            }
        };
        let failed = |error| format!("{}: {error}", dir.display());
        fs::create_dir_all(&dir).map_err(failed)?;
        let dir = fs::canonicalize(&dir).map_err(failed)?;
        let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(failed)?;
        let kind = file_system(&dir, &mounts);
        Ok(Place { dir, kind })
    }

    /// Whether its files are in memory: then a sync costs nothing, and proves nothing.
    pub fn is_memory(&self) -> bool {
        ["tmpfs", "ramfs"].contains(&self.kind.as_str())
    }

    /// A directory of its own for one run, removed when dropped.
    pub fn fresh(&self) -> tempfile::TempDir {
        tempfile::tempdir_in(&self.dir).expect("a directory for a run")
    }

    /// Processor, cores, memory, kernel and file system, in one line.
    pub fn machine(&self) -> String {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpus
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
            .map_or("unknown processor", |(_, model)| model.trim());
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let kernel = kernel.trim();
        format!("{model}, {cores} cores, Linux {kernel}, {}", self.kind)
    }
}

fn file_system(dir: &Path, mounts: &str) -> String {
    let mut best = (0, "unknown");
    for mount in mounts.lines() {
        // 36 35 98:0 /root /mount/point options... - type source ...
        let Some((place, what)) = mount.split_once(" - ") else {
            continue;
        };
        let point = place.split(' ').nth(4).unwrap_or("/");
        if dir.starts_with(point) && point.len() >= best.0 {
            best = (point.len(), what.split(' ').next().unwrap_or("unknown"));
        }
    }
    best.1.to_owned()
}
