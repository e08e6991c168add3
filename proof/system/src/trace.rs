//! A process whose every system call waits for what another process decides: go on, fail, die.
//!
//! The child asks for it itself ([`begin`]), so that no call of its start is among them, and threads that it
//! starts later are watched, too. The kernel hands each call to the watching process before it happens (a
//! seccomp filter that notifies). A call that is to fail is not made. Needs neither root nor another program.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use std::fs::{self, File};
use std::io::{IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// Longer than any call may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a call that fails late waits for calls of others.
const LATENESS: Duration = Duration::from_millis(200);
/// More calls than any process here needs: it goes round in a circle.
const CALLS_MAX: usize = 50_000;

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Continue,
    /// It is not made, and returns this error.
    Fail(i32),
    /// The same, but not before others have made so many calls, or none for a while. Among the events it is
    /// `Fail`.
    FailLate(i32, usize),
    /// SIGKILL for the process; the call is not made.
    Kill,
}

/// A system call that is about to happen.
#[derive(Clone, Debug)]
pub struct Call {
    /// 0 is the thread that called [`begin`], 1 the first thread after it, and so on.
    pub thread: usize,
    /// `openat`; a number for those without a name here.
    pub name: String,
    /// The file it is about, from the directory of the test on; or what else distinguishes such calls.
    pub target: String,
    pub args: [u64; 6],
}

/// What a process did, in the order in which it began to do it.
#[derive(Clone, Debug)]
pub enum Event {
    Call(Call, Verdict),
    /// It wrote a line to its standard output.
    Said(String),
}

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    pub events: Vec<Event>,
    pub status: ExitStatus,
    pub stderr: String,
    /// It made no call for a minute, or calls without end, and was killed for that.
    pub hung: bool,
}

impl Ended {
    pub fn was_killed(&self) -> bool {
        self.status.signal() == Some(libc::SIGKILL)
    }

    pub fn said(&self) -> impl Iterator<Item = &str> {
        self.events.iter().filter_map(|event| match event {
            Event::Said(line) => Some(line.as_str()),
            Event::Call(..) => None,
        })
    }

    pub fn calls(&self) -> impl Iterator<Item = (&Call, Verdict)> {
        self.events.iter().filter_map(|event| match event {
            Event::Said(_) => None,
            Event::Call(call, verdict) => Some((call, *verdict)),
        })
    }
}

// === The child ===

/// Hands the calls of this thread, and of all that it starts, to the process that called [`watch`].
#[allow(unsafe_code)]
pub fn begin() {
    let allow = libc::SECCOMP_RET_ALLOW;
    // Ends of threads, and what hands the listener over.
    let free = [
        libc::SYS_sendmsg,
        libc::SYS_rt_sigreturn,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];
    let statement = |code: u32, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    };
    // The number of the call is the first word of what a filter sees.
    let mut filter = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0)];
    for (i, nr) in free.iter().enumerate() {
        filter.push(libc::sock_filter {
            code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
            jt: (free.len() - i) as u8,
            jf: 0,
            k: *nr as u32,
        });
    }
    filter.push(statement(libc::BPF_RET, libc::SECCOMP_RET_USER_NOTIF));
    filter.push(statement(libc::BPF_RET, allow));
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the program lives until the call returns; the kernel checks and copies it.
    let listener = unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
        let mode = libc::SECCOMP_SET_MODE_FILTER;
        libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program)
    };
    // Nothing but `sendmsg` until the other side has the listener.
    let listener = listener as i32;
    // SAFETY: just made, and never closed here: the process ends with it.
    let listener = unsafe { rustix::fd::BorrowedFd::borrow_raw(listener) };
    // SAFETY: standard input is the socket that `watch` put there.
    let socket = unsafe { rustix::fd::BorrowedFd::borrow_raw(0) };
    let descriptors = [listener];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let byte = [IoSlice::new(b"L")];
    rustix::net::sendmsg(socket, &byte, &mut ancillary, SendFlags::empty()).unwrap();
}

// === The one who watches ===

fn receive(socket: &UnixStream) -> Option<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    rustix::net::recvmsg(socket, &mut parts, &mut ancillary, flags).unwrap();
    let mut messages = ancillary.drain();
    match messages.next() {
        Some(RecvAncillaryMessage::ScmRights(mut descriptors)) => descriptors.next(),
        _ => None,
    }
}

/// A call that waits.
struct Waiting(libc::seccomp_notif);

#[allow(unsafe_code)]
fn next(listener: &OwnedFd) -> Option<Waiting> {
    // SAFETY: all zeros is what the kernel asks for, and it writes no more than the struct.
    unsafe {
        let mut notif: libc::seccomp_notif = std::mem::zeroed();
        let request = libc::SECCOMP_IOCTL_NOTIF_RECV as _;
        // It fails when the thread died meanwhile.
        let got = libc::ioctl(listener.as_raw_fd(), request, &raw mut notif);
        (got == 0).then_some(Waiting(notif))
    }
}

#[allow(unsafe_code)]
fn answer(listener: &OwnedFd, id: u64, verdict: Verdict) {
    let (error, flags) = match verdict {
        Verdict::Continue => (0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
        Verdict::Fail(code) | Verdict::FailLate(code, _) => (-code, 0),
        Verdict::Kill => return,
    };
    let mut response = libc::seccomp_notif_resp {
        id,
        val: 0,
        error,
        flags,
    };
    // SAFETY: the kernel reads the struct. It fails if the thread died meanwhile, which is no error here.
    unsafe {
        let request = libc::SECCOMP_IOCTL_NOTIF_SEND as _;
        libc::ioctl(listener.as_raw_fd(), request, &raw mut response);
    }
}

/// What is seen of a child.
struct Watched {
    dir: PathBuf,
    memory: File,
    pid: u32,
    threads: Vec<u32>,
}

impl Watched {
    fn bytes(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let got = self.memory.read_at(&mut bytes, address).unwrap_or(0);
        bytes.truncate(got);
        bytes
    }

    fn path(&self, address: u64) -> PathBuf {
        let bytes = self.bytes(address, 512);
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        PathBuf::from(&*String::from_utf8_lossy(&bytes[..end]))
    }

    /// What a name leads to in a directory that is held open. No name at all is the descriptor itself, as in
    /// the newer forms of `fstat`.
    fn path_at(&self, fd: u64, address: u64) -> String {
        let path = self.path(address);
        if path.is_absolute() {
            return self.short(&path);
        }
        let link = match fd as i32 {
            libc::AT_FDCWD => format!("/proc/{}/cwd", self.pid),
            fd => format!("/proc/{}/fd/{fd}", self.pid),
        };
        match fs::read_link(link) {
            // Not what `.` adds: the components of a path are without it.
            Ok(directory) => self.short(&directory.join(path).components().collect::<PathBuf>()),
            Err(_) => "none".to_owned(),
        }
    }

    fn descriptor(&self, fd: u64) -> String {
        let link = format!("/proc/{}/fd/{}", self.pid, fd as u32);
        fs::read_link(link).map_or_else(|_| "none".to_owned(), |path| self.short(&path))
    }

    fn short(&self, path: &Path) -> String {
        match path.strip_prefix(&self.dir) {
            Ok(rest) if rest.as_os_str().is_empty() => "/".to_owned(),
            Ok(rest) => rest.display().to_string(),
            Err(_) => path.display().to_string(),
        }
    }

    fn call(&mut self, notif: &libc::seccomp_notif) -> Call {
        let thread = match self.threads.iter().position(|t| *t == notif.pid) {
            Some(known) => known,
            None => {
                self.threads.push(notif.pid);
                self.threads.len() - 1
            }
        };
        let args = notif.data.args;
        let (name, about) = NAMES
            .iter()
            .find(|(nr, ..)| *nr == i64::from(notif.data.nr))
            .map_or_else(
                || (format!("call {}", notif.data.nr), About::Nothing),
                |(_, name, about)| ((*name).to_owned(), *about),
            );
        let target = match about {
            About::Nothing => String::new(),
            About::Descriptor => self.descriptor(args[0]),
            About::Path => self.short(&self.path(args[0])),
            About::PathAt => self.path_at(args[0], args[1]),
            About::Mapping if args[4] as i32 >= 0 => self.descriptor(args[4]),
            About::Mapping if args[3] & libc::MAP_STACK as u64 != 0 => "a stack".to_owned(),
            About::Mapping => "memory".to_owned(),
            About::Number => match args[0] {
                0 => "query".to_owned(),
                n => format!("command {n}"),
            },
        };
        Call {
            thread,
            name,
            target,
            args,
        }
    }
}

/// Which argument says what a call is about.
#[derive(Clone, Copy)]
enum About {
    Nothing,
    Descriptor,
    Path,
    PathAt,
    Mapping,
    Number,
}

const NAMES: &[(i64, &str, About)] = &[
    (libc::SYS_openat, "openat", About::PathAt),
    (libc::SYS_close, "close", About::Descriptor),
    (libc::SYS_read, "read", About::Descriptor),
    (libc::SYS_write, "write", About::Descriptor),
    (libc::SYS_pread64, "pread64", About::Descriptor),
    (libc::SYS_pwrite64, "pwrite64", About::Descriptor),
    (libc::SYS_lseek, "lseek", About::Descriptor),
    (libc::SYS_ftruncate, "ftruncate", About::Descriptor),
    (libc::SYS_getdents64, "getdents64", About::Descriptor),
    (libc::SYS_fallocate, "fallocate", About::Descriptor),
    (libc::SYS_fsync, "fsync", About::Descriptor),
    (libc::SYS_fdatasync, "fdatasync", About::Descriptor),
    (libc::SYS_msync, "msync", About::Nothing),
    (libc::SYS_flock, "flock", About::Descriptor),
    (libc::SYS_fcntl, "fcntl", About::Descriptor),
    (libc::SYS_ioctl, "ioctl", About::Descriptor),
    (libc::SYS_fadvise64, "fadvise64", About::Descriptor),
    (libc::SYS_statx, "statx", About::PathAt),
    (libc::SYS_fstat, "fstat", About::Descriptor),
    (libc::SYS_newfstatat, "newfstatat", About::PathAt),
    (libc::SYS_renameat2, "renameat2", About::PathAt),
    (libc::SYS_linkat, "linkat", About::PathAt),
    (libc::SYS_unlinkat, "unlinkat", About::PathAt),
    (libc::SYS_mkdirat, "mkdirat", About::PathAt),
    (libc::SYS_readlinkat, "readlinkat", About::PathAt),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, "open", About::Path),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_stat, "stat", About::Path),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_lstat, "lstat", About::Path),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rename, "rename", About::Path),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_unlink, "unlink", About::Path),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mkdir, "mkdir", About::Path),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_readlink, "readlink", About::Path),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_poll, "poll", About::Nothing),
    (libc::SYS_mmap, "mmap", About::Mapping),
    (libc::SYS_munmap, "munmap", About::Nothing),
    (libc::SYS_mprotect, "mprotect", About::Nothing),
    (libc::SYS_madvise, "madvise", About::Nothing),
    (libc::SYS_brk, "brk", About::Nothing),
    (libc::SYS_clone, "clone", About::Nothing),
    (libc::SYS_clone3, "clone3", About::Nothing),
    (libc::SYS_futex, "futex", About::Nothing),
    (libc::SYS_getrandom, "getrandom", About::Nothing),
    (libc::SYS_getcwd, "getcwd", About::Nothing),
    (libc::SYS_membarrier, "membarrier", About::Number),
    (libc::SYS_prctl, "prctl", About::Nothing),
    (libc::SYS_rseq, "rseq", About::Nothing),
    (libc::SYS_set_robust_list, "set_robust_list", About::Nothing),
    (libc::SYS_sigaltstack, "sigaltstack", About::Nothing),
    (libc::SYS_rt_sigprocmask, "rt_sigprocmask", About::Nothing),
    (libc::SYS_sched_yield, "sched_yield", About::Nothing),
    (
        libc::SYS_sched_getaffinity,
        "sched_getaffinity",
        About::Nothing,
    ),
    (libc::SYS_clock_nanosleep, "clock_nanosleep", About::Nothing),
    (libc::SYS_gettid, "gettid", About::Nothing),
    (libc::SYS_getpid, "getpid", About::Nothing),
];

/// Runs a command that calls [`begin`], and asks `decide` about each call from then on. Lines that it writes
/// to its standard output go into the events, and on. `dir` is what targets are shortened by.
pub fn watch(command: &mut Command, dir: &Path, decide: &mut dyn FnMut(&Call) -> Verdict) -> Ended {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut child = command
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The command holds the other end of the socket: without it, an early death is seen.
    command.stdin(Stdio::null());
    let mut stderr = child.stderr.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        stderr.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    });
    let mut events = Vec::new();
    let mut hung = false;
    if let Some(listener) = receive(&ours) {
        let mut watched = Watched {
            dir: dir.to_owned(),
            memory: File::open(format!("/proc/{}/mem", child.id())).unwrap(),
            pid: child.id(),
            threads: Vec::new(),
        };
        hung = attend(&mut child, &listener, &mut watched, decide, &mut events);
    }
    let status = child.wait().unwrap();
    Ended {
        events,
        status,
        stderr: reader.join().unwrap(),
        hung,
    }
}

/// Until the child ends; whether it had to be killed because it hangs.
#[allow(unsafe_code)]
fn attend(
    child: &mut Child,
    listener: &OwnedFd,
    watched: &mut Watched,
    decide: &mut dyn FnMut(&Call) -> Verdict,
    events: &mut Vec<Event>,
) -> bool {
    // SAFETY: a new descriptor of a child that nobody has waited for.
    let end = unsafe {
        let pidfd = libc::syscall(libc::SYS_pidfd_open, child.id(), 0);
        assert!(pidfd >= 0);
        OwnedFd::from_raw_fd(pidfd as i32)
    };
    // A call that fails late: which it is, and how many calls come before its answer.
    let mut late: Option<(u64, Verdict, usize)> = None;
    loop {
        if let Some((id, verdict, calls)) = late.take() {
            let mut wait = [PollFd::new(listener, PollFlags::IN)];
            let timeout = Timespec::try_from(LATENESS).unwrap();
            if calls == 0 || poll(&mut wait, Some(&timeout)).unwrap() == 0 {
                answer(listener, id, verdict);
            } else {
                late = Some((id, verdict, calls - 1));
            }
        }
        let mut wait = [
            PollFd::new(listener, PollFlags::IN),
            PollFd::from_borrowed_fd(end.as_fd(), PollFlags::IN),
        ];
        let timeout = Timespec::try_from(PATIENCE).unwrap();
        if poll(&mut wait, Some(&timeout)).unwrap() == 0 {
            child.kill().unwrap();
            return true;
        }
        if !wait[1].revents().is_empty() {
            return false;
        }
        if !wait[0].revents().contains(PollFlags::IN) {
            // All watched threads have ended: wait for the process.
            let mut wait = [PollFd::from_borrowed_fd(end.as_fd(), PollFlags::IN)];
            if poll(&mut wait, Some(&timeout)).unwrap() == 0 {
                child.kill().unwrap();
                return true;
            }
            return false;
        }
        let Some(Waiting(notif)) = next(listener) else {
            continue;
        };
        if events.len() > CALLS_MAX {
            child.kill().unwrap();
            return true;
        }
        let call = watched.call(&notif);
        let verdict = match decide(&call) {
            Verdict::FailLate(code, calls) => {
                let verdict = Verdict::Fail(code);
                late = Some((notif.id, verdict, calls));
                events.push(Event::Call(call, verdict));
                continue;
            }
            verdict => verdict,
        };
        if verdict == Verdict::Kill {
            child.kill().unwrap();
        }
        if call.name == "write" && call.args[0] == 1 {
            if verdict == Verdict::Continue {
                let text = watched.bytes(call.args[1], call.args[2] as usize);
                let text = String::from_utf8_lossy(&text).trim().to_owned();
                events.push(Event::Said(text));
            }
        } else {
            events.push(Event::Call(call, verdict));
        }
        answer(listener, notif.id, verdict);
    }
}
