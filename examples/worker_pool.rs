//! A pool of workers over one channel: each job goes to one worker, and is done when its delivery is dropped.
//!
//! `cargo run --example worker_pool -- PATH`. Killed, it loses no job; a new run goes on, and adds its own.
#![allow(clippy::disallowed_types)] // an example speaks std's mutex, not the library's
use std::error::Error;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use walchan::{Delivery, RecvError};

type Jobs = Arc<Mutex<Receiver<Delivery<u64>>>>;

/// Works until there are no more jobs; gives how many it has done.
fn worker(jobs: &Jobs) -> u64 {
    let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
    let mut done = 0;
    while let Ok(job) = next() {
        std::hint::black_box((1..=*job).product::<u64>());
        done += 1;
        // Dropped here, so acknowledged. In a panic the job would come back instead.
    }
    done
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).unwrap_or("pool-state/jobs".into());
    let (tx, rx) = walchan::sync_channel::<u64>(path, 1000)?;
    println!("{}", rx.recovery());
    let sender = thread::spawn(move || (1..=20).try_for_each(|number| tx.send(number)));

    // A channel of no room: a job is received only when a worker is free.
    let (to_workers, jobs) = mpsc::sync_channel(0);
    let jobs: Jobs = Arc::new(Mutex::new(jobs));
    let workers = [(); 4].map(|()| {
        let jobs = Arc::clone(&jobs);
        thread::spawn(move || worker(&jobs))
    });
    drop(jobs);
    loop {
        match rx.recv() {
            Ok(job) => {
                if let Err(mpsc::SendError(job)) = to_workers.send(job) {
                    Delivery::leave(job); // no worker is left: the next start delivers it
                    break;
                }
            }
            Err(RecvError::Disconnected) => break,
            Err(error) => return Err(error.into()),
        }
    }
    drop(to_workers);
    let done: u64 = workers
        .into_iter()
        .filter_map(|worker| worker.join().ok())
        .sum();
    sender.join().map_err(|_| "the sender panicked")??;
    rx.close()?;
    println!("{done} jobs done");
    Ok(())
}
