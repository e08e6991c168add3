//! Somebody else on the same file system, who writes and syncs a file of its own, or everything: what others
//! have written reaches the disk earlier than it would.

#![allow(clippy::unwrap_used)]

use crate::random::Random;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Works until it is dropped.
#[derive(Debug)]
pub struct Neighbour {
    leave: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Neighbour {
    /// Half of them do nothing.
    pub fn new(dir: &Path, seed: u64) -> Neighbour {
        let mut random = Random::new(seed);
        let (leave, left) = mpsc::channel();
        let path = dir.join("neighbour");
        let busy = random.below(2) == 0;
        let thread = busy.then(|| {
            let file = File::create(path).unwrap();
            thread::spawn(move || {
                loop {
                    let pause = Duration::from_micros(random.below(10_000));
                    if left.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                        return;
                    }
                    file.write_all_at(b"news", random.below(16) << 12).unwrap();
                    if random.below(2) == 0 {
                        file.sync_all().unwrap();
                    } else {
                        rustix::fs::syncfs(&file).unwrap();
                    }
                }
            })
        });
        Neighbour {
            leave: Some(leave),
            thread,
        }
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.leave.take();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
