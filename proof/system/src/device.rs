//! A disk that fails on command: what lies between the kernel and the file that holds the blocks is a process
//! of QEMU, and its `blkdebug` answers requests with errors. Linux sees a block device, a loop device to be
//! exact, and an I/O error.

use crate::run;
use crate::volume::{Frozen, Host, Kind, Mounted};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Requests that fail with EIO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// All of a kind: `read` or `write`.
    All(&'static str),
    /// All flushes, as far as a test can get.
    Flushes,
    /// The next one of a kind, and no other.
    Next(&'static str),
    /// Those of a kind that take in this byte of the device.
    At(&'static str, u64),
}

/// So many flushes fail.
const FLUSHES: usize = 60;

impl Fault {
    fn rule(self) -> String {
        let (kind, once, sector) = match self {
            // To stop failing takes a flush, too: it uses up one of them.
            Fault::Flushes => return vec![Fault::Next("flush").rule(); FLUSHES].join(","),
            Fault::All(kind) => (kind, false, String::new()),
            Fault::Next(kind) => (kind, true, String::new()),
            Fault::At(kind, byte) => (kind, false, format!(r#","sector":{}"#, byte / 512)),
        };
        format!(
            r#"{{"event":"none","iotype":"{kind}","errno":5,"once":{once},"immediately":true{sector}}}"#
        )
    }
}

/// A file system on a disk that can fail.
#[derive(Debug)]
pub struct Device {
    kind: Kind,
    /// The blocks.
    image: PathBuf,
    /// The file whose reads and writes are requests to the daemon.
    export: PathBuf,
    at: PathBuf,
    options: &'static str,
    mounted: Option<Mounted>,
    daemon: Daemon,
    /// The node with the faults in force.
    faulty: Option<String>,
    faults: u32,
}

impl Device {
    /// What it takes beside what a volume takes.
    pub const PROGRAMS: [&str; 5] = [
        "qemu-storage-daemon",
        "losetup",
        "filefrag",
        "setpriv",
        "unshare",
    ];

    /// Makes and mounts a file system of so many bytes; `options` are those of the mount.
    pub fn new(host: &Host, kind: Kind, name: &str, bytes: u64, options: &'static str) -> Device {
        let image = host.place(&format!("{name}.img"));
        File::create(&image).unwrap().set_len(bytes).unwrap();
        kind.make(&image);
        let export = host.place(&format!("{name}.export"));
        File::create(&export).unwrap();
        host.share();
        let daemon = Daemon::new(&image, &export);
        one_at_a_time(&export);
        let mut device = Device {
            kind,
            image,
            export,
            at: host.beside(name),
            options,
            mounted: None,
            daemon,
            faulty: None,
            faults: 0,
        };
        device.mount();
        device
    }

    pub fn path(&self) -> &Path {
        &self.at
    }

    pub fn mount(&mut self) {
        // Direct: nothing between the file system and the daemon keeps what a read should ask for.
        let mut losetup = Command::new("losetup");
        losetup.args(["--find", "--show", "--direct-io=on"]);
        let node = run(losetup.arg(&self.export)).trim().to_owned();
        let at = self.at.clone();
        self.mounted = Some(Mounted::with(
            self.kind.name(),
            self.options,
            Path::new(&node),
            at,
        ));
        // From now on it goes when it is unmounted.
        run(Command::new("losetup").args(["--detach", &node]));
    }

    pub fn unmount(&mut self) {
        self.mounted = None;
    }

    /// From now on these requests fail.
    pub fn fail(&mut self, faults: &[Fault]) {
        self.faults += 1;
        let node = format!("faulty{}", self.faults);
        let rules: Vec<_> = faults.iter().map(|fault| fault.rule()).collect();
        let rules = rules.join(",");
        self.daemon.tell(&format!(
            r#"{{"execute":"blockdev-add","arguments":{{"driver":"blkdebug","node-name":"{node}","image":"disk","inject-error":[{rules}]}}}}"#
        ));
        self.lead_to(&node);
        self.drop_faults();
        self.faulty = Some(node);
    }

    /// From now on none fails.
    pub fn heal(&mut self) {
        let command = to_lead_to("disk");
        let healed = (0..=FLUSHES).any(|_| !is_error(&self.daemon.ask(&command)));
        assert!(healed, "the disk cannot be healed");
        self.drop_faults();
    }

    fn drop_faults(&mut self) {
        if let Some(node) = self.faulty.take() {
            self.daemon.tell(&format!(
                r#"{{"execute":"blockdev-del","arguments":{{"node-name":"{node}"}}}}"#
            ));
        }
    }

    fn lead_to(&mut self, node: &str) {
        self.daemon.tell(&to_lead_to(node));
    }

    /// The blocks as they are at this moment, in another file.
    pub fn freeze(&self, host: &Host, name: &str) -> Frozen {
        let image = host.place(&format!("{name}.img"));
        let from = File::open(&self.image).unwrap();
        let to = File::create_new(&image).unwrap();
        rustix::fs::ioctl_ficlone(&to, &from).unwrap();
        Frozen {
            kind: self.kind,
            image,
        }
    }

    /// What a disk does that loses its cache: it holds again what it held when it was frozen.
    pub fn forget_since(&mut self, frozen: &Frozen) {
        let from = File::open(&frozen.image).unwrap();
        let to = File::options().write(true).open(&self.image).unwrap();
        rustix::fs::ioctl_ficlone(&to, &from).unwrap();
    }

    /// Where the page of 4 KiB at this offset of a file lies on the device.
    pub fn block(file: &Path, offset: u64) -> u64 {
        let table = run(Command::new("filefrag").args(["-v", "-b4096"]).arg(file));
        for line in table.lines() {
            // " 0:        0..      34:      32897..     32931:     35:  last,eof"
            let numbers: Vec<u64> = line
                .split([':', '.', ' '])
                .filter(|word| !word.is_empty())
                .map_while(|word| word.parse().ok())
                .collect();
            if let [_, from, to, at, ..] = numbers[..]
                && (from..=to).contains(&(offset / 4096))
            {
                return (at + offset / 4096 - from) * 4096;
            }
        }
        panic!("no block at {offset}: {table}");
    }
}

fn to_lead_to(node: &str) -> String {
    format!(
        r#"{{"execute":"blockdev-reopen","arguments":{{"options":[{{"driver":"raw","node-name":"top","file":"{node}"}}]}}}}"#
    )
}

fn is_error(answer: &str) -> bool {
    answer.contains(r#""error""#)
}

/// Lets the kernel send one write after the other: QEMU 10.0 takes the next request into the memory of the
/// one that it writes, and writes that.
fn one_at_a_time(export: &Path) {
    let connections = Path::new("/sys/fs/fuse/connections");
    let number = rustix::fs::minor(fs::metadata(export).unwrap().dev());
    let limit = connections.join(format!("{number}/max_background"));
    if !limit.exists() {
        let mut mount = Command::new("mount");
        run(mount.args(["-t", "fusectl", "fusectl"]).arg(connections));
    }
    fs::write(limit, "1").unwrap();
}

impl Drop for Device {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.heal();
        }
        self.unmount();
    }
}

/// The process between the loop device and the blocks.
#[derive(Debug)]
struct Daemon {
    process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Daemon {
    /// It ends with this process, and does not see what is mounted later: if it did, and were the last to,
    /// its end would unmount a file system on a device that it does not serve any more, and never come.
    fn new(image: &Path, export: &Path) -> Daemon {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--mount"]);
        command.args(["--propagation", "unchanged", "qemu-storage-daemon"]);
        command.arg("--blockdev");
        command.arg(format!(
            "driver=file,node-name=disk,filename={}",
            image.display()
        ));
        command.args(["--blockdev", "driver=raw,node-name=top,file=disk"]);
        command.arg("--export");
        command.arg(format!(
            "type=fuse,id=export,node-name=top,writable=on,mountpoint={}",
            export.display()
        ));
        // Last, so that everything is there when it greets.
        command.args(["--chardev", "stdio,id=qmp", "--monitor", "chardev=qmp"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let commands = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        let mut daemon = Daemon {
            process,
            commands,
            answers,
        };
        let mut greeting = String::new();
        daemon.answers.read_line(&mut greeting).unwrap();
        assert!(greeting.contains("QMP"), "{greeting}");
        daemon.tell(r#"{"execute":"qmp_capabilities"}"#);
        daemon
    }

    /// What it answers.
    fn ask(&mut self, command: &str) -> String {
        writeln!(self.commands, "{command}").unwrap();
        loop {
            let mut answer = String::new();
            let len = self.answers.read_line(&mut answer).unwrap();
            assert!(len > 0, "the daemon is gone: {command}");
            if is_error(&answer) || answer.contains(r#""return""#) {
                return answer;
            }
        }
    }

    fn tell(&mut self, command: &str) {
        let answer = self.ask(command);
        assert!(!is_error(&answer), "{command}\n{answer}");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
