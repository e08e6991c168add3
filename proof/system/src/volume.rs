//! File systems in files, mounted for one test, and frozen copies of them.

use crate::run;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A file system to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ext4,
    Ext4NoJournal,
    Xfs,
    Btrfs,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Ext4, Kind::Ext4NoJournal, Kind::Xfs, Kind::Btrfs];
    /// What making and mounting any of them takes.
    pub const PROGRAMS: [&str; 7] = [
        "mkfs.ext4",
        "e2fsck",
        "mkfs.xfs",
        "mkfs.btrfs",
        "losetup",
        "mount",
        "umount",
    ];
    /// The smallest size that all of them accept.
    pub const SMALLEST: u64 = 300 << 20;

    pub(crate) fn make(self, image: &Path) {
        let mut mkfs = match self {
            Kind::Ext4 | Kind::Ext4NoJournal => Command::new("mkfs.ext4"),
            Kind::Xfs => Command::new("mkfs.xfs"),
            Kind::Btrfs => Command::new("mkfs.btrfs"),
        };
        match self {
            Kind::Ext4 => mkfs.args(["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"]),
            Kind::Ext4NoJournal => mkfs.args(["-q", "-F", "-O", "^has_journal"]),
            Kind::Xfs => mkfs.args(["-q", "-f"]),
            Kind::Btrfs => mkfs.args(["-q", "-f"]),
        };
        run(mkfs.arg(image).env("PATH", with_sbin()));
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Ext4 | Kind::Ext4NoJournal => "ext4",
            Kind::Xfs => "xfs",
            Kind::Btrfs => "btrfs",
        }
    }

    /// The copy of a mounted XFS has its UUID too.
    fn mount_options(self) -> &'static str {
        match self {
            Kind::Xfs => "rw,nouuid",
            _ => "rw",
        }
    }
}

fn with_sbin() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/sbin:/usr/sbin")
}

/// Where file systems live in files that can be copied at once: an XFS, itself in a file. Mounts are seen by
/// the thread that made it and the threads and processes that this one starts, and end with them.
#[derive(Debug)]
pub struct Host {
    mounted: Mounted,
    dir: TempDir,
}

impl Host {
    #[allow(unsafe_code)]
    pub fn new() -> Host {
        // SAFETY: neither threads nor descriptors are shared less than before; only later mounts are.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.unwrap();
        run(Command::new("mount").args(["--make-rprivate", "/"]));
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("host.img");
        File::create(&image).unwrap().set_len(64 << 30).unwrap();
        Kind::Xfs.make(&image);
        let mounted = Mounted::new(Kind::Xfs, &image, dir.path().join("host"));
        Host { mounted, dir }
    }

    /// Where files are that can be copied at once.
    pub(crate) fn place(&self, name: &str) -> PathBuf {
        self.mounted.path().join(name)
    }

    /// Where something may be mounted.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What another namespace mounts on a file of [`Host::place`] is seen here, too.
    pub(crate) fn share(&self) {
        let path = self.mounted.path();
        run(Command::new("mount").arg("--make-shared").arg(path));
    }

    /// Makes a file system of so many bytes, and mounts it.
    pub fn volume(&self, kind: Kind, name: &str, bytes: u64) -> Volume {
        self.volume_with(kind, name, bytes, "")
    }

    /// The same, with options of the mount, each with a comma before it.
    pub fn volume_with(&self, kind: Kind, name: &str, bytes: u64, options: &str) -> Volume {
        let image = self.made(kind, name, bytes);
        self.mount_with(kind, image, name, options)
    }

    /// Makes a file system of so many bytes in a file.
    pub(crate) fn made(&self, kind: Kind, name: &str, bytes: u64) -> PathBuf {
        let image = self.place(&format!("{name}.img"));
        File::create(&image).unwrap().set_len(bytes).unwrap();
        kind.make(&image);
        image
    }

    /// A copy of a file that was made here, to be changed.
    pub(crate) fn copy(&self, from: &File, name: &str) -> (PathBuf, File) {
        let image = self.place(&format!("{name}.img"));
        let to = File::create_new(&image).unwrap();
        rustix::fs::ioctl_ficlone(&to, from).unwrap();
        (image, to)
    }

    /// Mounts what is in a file.
    pub(crate) fn mount(&self, kind: Kind, image: PathBuf, name: &str) -> Volume {
        self.mount_with(kind, image, name, "")
    }

    fn mount_with(&self, kind: Kind, image: PathBuf, name: &str, options: &str) -> Volume {
        let options = format!("{}{options}", kind.mount_options());
        let mounted = Mounted::image(kind, &options, &image, self.beside(name));
        Volume {
            kind,
            device: File::open(&image).unwrap(),
            image,
            mounted,
        }
    }

    /// A file system in memory of so many bytes.
    pub fn tmpfs(&self, name: &str, bytes: u64) -> Mounted {
        let options = format!("size={bytes}");
        Mounted::with("tmpfs", &options, Path::new("tmpfs"), self.beside(name))
    }

    /// The device under a volume as it is at this moment, in another file: what a power cut leaves, as the
    /// block layer saw it.
    pub fn freeze(&self, volume: &Volume, name: &str) -> Frozen {
        Frozen {
            kind: volume.kind,
            image: self.copy(&volume.device, name).0,
        }
    }

    /// Mounts a frozen copy, as a machine does when the power is back; its file goes when the volume is
    /// dropped, for nobody else has use for it.
    pub fn thaw(&self, frozen: Frozen, name: &str) -> Volume {
        let Frozen { kind, image } = frozen;
        if kind == Kind::Ext4NoJournal {
            // Nothing else makes its metadata whole.
            let mut check = Command::new("e2fsck");
            let output = check
                .args(["-f", "-y"])
                .arg(&image)
                .env("PATH", with_sbin());
            let output = output.output().unwrap();
            // 1: faults were found, and mended.
            assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
        }
        let volume = self.mount(kind, image, name);
        std::fs::remove_file(&volume.image).unwrap();
        volume
    }
}

impl Default for Host {
    fn default() -> Self {
        Host::new()
    }
}

/// What is read of this file from now on comes from the device.
pub fn drop_cache(of: &Path) {
    let file = File::open(of).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

/// A file system, mounted.
#[derive(Debug)]
pub struct Volume {
    kind: Kind,
    image: PathBuf,
    /// The same, even when the name is gone.
    device: File,
    mounted: Mounted,
}

impl Volume {
    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.mounted.path()
    }

    /// The file it is in.
    pub fn image(&self) -> &Path {
        &self.image
    }
}

/// A copy of a device.
#[derive(Debug)]
pub struct Frozen {
    pub(crate) kind: Kind,
    pub(crate) image: PathBuf,
}

/// Unmounts when dropped, at the latest when nothing uses it any more.
#[derive(Debug)]
pub struct Mounted(PathBuf);

impl Mounted {
    fn new(kind: Kind, image: &Path, at: PathBuf) -> Mounted {
        Mounted::image(kind, kind.mount_options(), image, at)
    }

    /// What is in a file, by a loop device that goes when it is unmounted.
    fn image(kind: Kind, options: &str, image: &Path, at: PathBuf) -> Mounted {
        // `mount` can do this, too, but asks every loop device there is first, and one that is out of order
        // never answers.
        let mut losetup = Command::new("losetup");
        let losetup = losetup.args(["--find", "--show"]).arg(image);
        let node = run(losetup.env("PATH", with_sbin()));
        let node = node.trim();
        let mounted = Mounted::with(kind.name(), options, Path::new(node), at);
        let mut losetup = Command::new("losetup");
        run(losetup.args(["--detach", node]).env("PATH", with_sbin()));
        mounted
    }

    pub(crate) fn with(name: &str, options: &str, source: &Path, at: PathBuf) -> Mounted {
        std::fs::create_dir(&at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", name, "-o", options]);
        run(mount.arg(source).arg(&at));
        Mounted(at)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        if unmounted.is_ok_and(|status| status.success()) {
            // It is empty now; if not, the directory around it goes with the test anyway.
            std::fs::remove_dir(&self.0).ok();
        }
    }
}
