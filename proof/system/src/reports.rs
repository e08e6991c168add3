//! What a process that will not end in order says about itself, and those who listen.
//!
//! A report is one line, written in one piece before the next instruction: it is on its way even if that one
//! is never executed. The other end can tell how much had been said at a moment, whether it has read it yet
//! or not.

#![allow(clippy::disallowed_types)] // never under loom
#![allow(clippy::unwrap_used)]

use crate::child::child;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, kill_process};
use std::fmt;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::process::{Child, ChildStdout, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

/// The end that speaks: standard output, which the test harness uses, too.
#[derive(Debug)]
pub struct Reports(File);

impl Reports {
    pub fn new() -> Reports {
        let stdout = std::io::stdout().as_fd().try_clone_to_owned().unwrap();
        Reports(File::from(stdout))
    }

    pub fn say(&self, what: fmt::Arguments<'_>) {
        let line = format!("\n!{what}\n");
        // So much a pipe takes in one piece. Nobody listens any more: then nothing matters.
        assert!(line.len() <= 4096);
        (&self.0).write_all(line.as_bytes()).unwrap();
    }
}

impl Default for Reports {
    fn default() -> Self {
        Reports::new()
    }
}

#[derive(Debug, Default)]
struct Heard {
    text: Vec<u8>,
    ended: bool,
}

/// The end that listens, all the time.
#[derive(Debug)]
pub struct Listener {
    pipe: Arc<ChildStdout>,
    heard: Arc<(Mutex<Heard>, Condvar)>,
    taken: usize,
}

impl Listener {
    pub fn new(pipe: ChildStdout) -> Listener {
        let listener = Listener {
            pipe: Arc::new(pipe),
            heard: Arc::default(),
            taken: 0,
        };
        let (pipe, heard) = (Arc::clone(&listener.pipe), Arc::clone(&listener.heard));
        thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            let mut ended = false;
            while !ended {
                // Outside of the lock; what is read inside is either in the pipe or in the text for everyone
                // else.
                poll(&mut [PollFd::new(&pipe, PollFlags::IN)], None).unwrap();
                let mut locked = heard.0.lock().unwrap();
                let len = rustix::io::read(&*pipe, &mut buffer).unwrap();
                locked.text.extend(&buffer[..len]);
                ended = len == 0;
                locked.ended = ended;
                heard.1.notify_all();
            }
        });
        listener
    }

    /// How much has been said until now.
    pub fn mark(&self) -> usize {
        let heard = self.heard.0.lock().unwrap();
        let waiting = rustix::io::ioctl_fionread(&self.pipe).unwrap();
        heard.text.len() + waiting as usize
    }

    /// The reports up to a mark that were not taken yet; `None`: all that there ever will be, once the other
    /// end is closed.
    pub fn take(&mut self, mark: Option<usize>) -> Vec<String> {
        let mut heard = self.heard.0.lock().unwrap();
        while !heard.ended && mark.is_none_or(|mark| heard.text.len() < mark) {
            heard = self.heard.1.wait(heard).unwrap();
        }
        let end = mark.unwrap_or(heard.text.len());
        let said = heard.text.get(self.taken..end).unwrap_or_default();
        self.taken = self.taken.max(end);
        let said = String::from_utf8_lossy(said);
        let reports = said.lines().filter_map(|line| line.strip_prefix('!'));
        reports.map(str::to_owned).collect()
    }

    /// Waits until a report that begins like this was made; `false`: the other end is closed, and there
    /// was none.
    pub fn wait_for(&self, beginning: &str) -> bool {
        let wanted = format!("\n!{beginning}");
        let mut heard = self.heard.0.lock().unwrap();
        let mut from = 0;
        loop {
            let text = &heard.text[from..];
            if text.windows(wanted.len()).any(|w| w == wanted.as_bytes()) {
                return true;
            }
            if heard.ended {
                return false;
            }
            from = heard.text.len().saturating_sub(wanted.len());
            heard = self.heard.1.wait(heard).unwrap();
        }
    }
}

/// A process that was started to do something, and what it reports. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    pub child: Child,
    pub reports: Listener,
}

impl Process {
    /// This test binary again, for this role.
    pub fn new(test: &str, role: &str) -> Process {
        let mut child = child(test, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let reports = Listener::new(child.stdout.take().unwrap());
        Process { child, reports }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
