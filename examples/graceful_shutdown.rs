//! A graceful shutdown: nothing new is taken, what was taken is finished, and the channel is closed in order.
//!
//! `cargo run --example graceful_shutdown -- PATH`. A line `stop`, or the end of the standard input, ends it; each other line is
//! a job.

use std::error::Error;
use std::io;
use std::thread;
use walchan::{Receiver, RecvError};

/// Works until all senders are gone and everything they sent is done. Gives the receiver back, to be closed.
fn work(rx: Receiver<String>) -> Result<(Receiver<String>, u32), RecvError> {
    let mut done = 0;
    loop {
        match rx.recv() {
            Ok(job) => {
                println!("working on {}", *job);
                done += 1;
            }
            Err(RecvError::Disconnected) => return Ok((rx, done)),
            Err(error) => return Err(error),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args()
        .nth(1)
        .unwrap_or("shutdown-state/jobs".into());
    let (tx, rx) = walchan::channel::<String>(path)?;
    println!("{}", rx.recovery());
    let worker = thread::spawn(move || work(rx));

    for line in io::stdin().lines() {
        let line = line?;
        if line == "stop" {
            break;
        }
        tx.send(line)?;
    }
    // First: nobody can send any more. The worker finishes what is there, and then hears `Disconnected`.
    drop(tx);
    let (rx, done) = worker.join().map_err(|_| "the worker panicked")??;
    // Then: the file is synced and marked as closed in order, so the next open need not scan it. An error is
    // returned.
    rx.close()?;
    println!("{done} jobs done, closed");
    Ok(())
}
