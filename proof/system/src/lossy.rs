//! A device whose every write and flush is recorded, and the images that a disk with a volatile cache could
//! hold when the power goes: all that was written before the last flush, and of what came later any part.
//!
//! The record is that of qemu's `blklogwrites`, in the format of the kernel's `dm-log-writes`.

#![allow(clippy::unwrap_used)]

use crate::random::Random;
use crate::volume::{Frozen, Host, Kind, Volume};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// What records, and what starts it as it must be; what else a machine needs is in [`Kind::PROGRAMS`].
pub const PROGRAMS: [&str; 3] = ["qemu-storage-daemon", "setpriv", "unshare"];

const SECTOR: u64 = 512;
/// First bytes of a record.
const MAGIC: u64 = 0x6a_7366_7773_6872;
const FLUSH: u64 = 1;
/// Durable when it completes.
const FUA: u64 = 2;
const DISCARD: u64 = 4;

/// A file system on a device that is recorded.
#[derive(Debug)]
pub struct Lossy {
    kind: Kind,
    volume: Option<Volume>,
    daemon: Child,
    /// The device as it was before the first write.
    base: File,
    /// The device itself, to write marks behind the file system.
    device: File,
    /// The files of disk, record and export.
    files: [PathBuf; 3],
    marks: u64,
}

impl Lossy {
    /// Makes a file system, and mounts it.
    pub fn new(host: &Host, kind: Kind, name: &str) -> Lossy {
        let made = host.made(kind, &format!("{name}-disk"), Kind::SMALLEST);
        let disk = File::options().read(true).write(true).open(&made).unwrap();
        // The marks go where no file system is.
        disk.set_len(Kind::SMALLEST + SECTOR).unwrap();
        let (_, base) = host.copy(&disk, &format!("{name}-base"));
        let log = host.place(&format!("{name}-log.img"));
        File::create(&log).unwrap().set_len(4 << 30).unwrap();
        let exported = host.place(&format!("{name}-export.img"));
        File::create(&exported).unwrap();
        let file = |node: &str, path: &Path| {
            format!("driver=file,node-name={node},filename={}", path.display())
        };
        let export = exported.display();
        // It ends with this process. It does not see what is mounted later: if it did, and were the last to,
        // its end would unmount a file system on a device that it does not serve any more, and never come.
        host.share();
        let daemon = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--mount"])
            .args(["--propagation", "unchanged", PROGRAMS[0]])
            .args(["--blockdev", &file("disk", &made)])
            .args(["--blockdev", &file("log", &log)])
            .arg("--blockdev")
            .arg("driver=blklogwrites,node-name=logged,file=disk,log=log,log-sector-size=512")
            .arg("--export")
            .arg(format!(
                "fuse,id=export,node-name=logged,mountpoint={export},writable=on"
            ))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        // It shows the device in place of the empty file when it is ready.
        while std::fs::metadata(&exported).unwrap().len() == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        let device = File::options().write(true).open(&exported).unwrap();
        Lossy {
            kind,
            volume: Some(host.mount(kind, exported.clone(), name)),
            daemon,
            base,
            device,
            files: [made, log, exported],
            marks: 0,
        }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.volume.as_ref().unwrap().path()
    }

    /// Puts a mark into the record: what completed before is recorded before it.
    pub fn mark(&mut self) {
        self.marks += 1;
        self.device
            .write_all_at(&[0; SECTOR as usize], Kind::SMALLEST)
            .unwrap();
    }

    /// Unmounts it. Nobody uses it any more.
    pub fn finish(mut self, host: &Host, name: &str) -> Record {
        self.volume.take();
        self.end();
        let (_, durable) = host.copy(&self.base, name);
        let record = Record::read(self.kind, &self.files[1], durable);
        for file in &self.files {
            std::fs::remove_file(file).unwrap();
        }
        assert_eq!(record.marks.len() as u64, self.marks);
        record
    }

    fn end(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.daemon);
        // It writes the record's first page when it is asked to end.
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        self.daemon.wait().ok();
    }
}

impl Drop for Lossy {
    fn drop(&mut self) {
        self.volume.take();
        self.end();
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    sector: u64,
    sectors: u64,
    flags: u64,
    /// Where its data is in the record.
    data: u64,
}

/// What happened to a device.
#[derive(Debug)]
pub struct Record {
    kind: Kind,
    log: File,
    entries: Vec<Entry>,
    /// Which entries are marks.
    marks: Vec<usize>,
    /// The device after the first so many entries.
    durable: File,
    applied: usize,
}

impl Record {
    fn read(kind: Kind, path: &Path, durable: File) -> Record {
        let log = File::open(path).unwrap();
        let word = |at: u64| {
            let mut bytes = [0; 8];
            log.read_exact_at(&mut bytes, at).unwrap();
            u64::from_le_bytes(bytes)
        };
        assert_eq!((word(0), word(8)), (MAGIC, 1));
        let mut entries = Vec::new();
        let mut marks = Vec::new();
        let mut at = SECTOR;
        for index in 0..word(16) as usize {
            let entry = Entry {
                sector: word(at),
                sectors: word(at + 8),
                flags: word(at + 16),
                data: at + SECTOR,
            };
            at += SECTOR;
            if entry.flags & DISCARD == 0 {
                at += entry.sectors * SECTOR;
            }
            if entry.sectors > 0 && entry.sector * SECTOR >= Kind::SMALLEST {
                marks.push(index);
            }
            entries.push(entry);
        }
        Record {
            kind,
            log,
            entries,
            marks,
            durable,
            applied: 0,
        }
    }

    /// Which entries are marks.
    pub fn marks(&self) -> &[usize] {
        &self.marks
    }

    fn data(&self, entry: Entry) -> Vec<u8> {
        let writes = entry.flags & DISCARD == 0;
        let len = if writes { entry.sectors * SECTOR } else { 0 };
        let mut bytes = vec![0; len as usize];
        self.log.read_exact_at(&mut bytes, entry.data).unwrap();
        bytes
    }

    /// What the disk may hold after the first `end` entries; `end` only grows from call to call. Each piece
    /// that was written since the last flush has its newest content, one that it had in between, or the old.
    pub fn image(&mut self, host: &Host, name: &str, end: usize, random: &mut Random) -> Frozen {
        let flushed = self.entries[..end]
            .iter()
            .rposition(|e| e.flags & FLUSH != 0);
        let flushed = flushed.map_or(self.applied, |at| at + 1);
        for index in self.applied..flushed {
            let entry = self.entries[index];
            let at = entry.sector * SECTOR;
            self.durable.write_all_at(&self.data(entry), at).unwrap();
        }
        self.applied = self.applied.max(flushed);
        let (image, file) = host.copy(&self.durable, name);
        let piece = match [SECTOR, 4096, u64::MAX][random.below(3) as usize] {
            // btrfs does not mount when its superblock, of a page, was written in part.
            SECTOR if self.kind == Kind::Btrfs => 4096,
            piece => piece,
        };
        let kept_of_ten = [0, 1, 5, 9, 10][random.below(5) as usize];
        for entry in &self.entries[self.applied..end] {
            let data = self.data(*entry);
            let mut done = 0;
            while done < data.len() as u64 {
                let at = entry.sector * SECTOR + done;
                // Up to the next boundary: two writes of one place make the same pieces.
                let len = (piece - at % piece).min(data.len() as u64 - done);
                if entry.flags & FUA != 0 || random.below(10) < kept_of_ten {
                    let bytes = &data[done as usize..(done + len) as usize];
                    file.write_all_at(bytes, at).unwrap();
                }
                done += len;
            }
        }
        let kind = self.kind;
        Frozen { kind, image }
    }
}
