//! A log shipper: lines of the standard input go through a channel of bytes to a file, a batch at a time.
//!
//! `cargo run --example log_shipper -- PATH TARGET < LINES`. Killed, it repeats a batch at most of what it
//! had sent; a power cut loses what was sent in the last 5 ms and one sync. A new run sends its whole input.

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, Write};
use std::thread;
use std::time::Duration;
use walchan::{BytesDelivery, Durability, Options, RecvError};

/// Appends the batch durably, then acknowledges it.
fn ship(target: &mut File, batch: &mut Vec<BytesDelivery>) -> Result<(), Box<dyn Error>> {
    let lines: Vec<u8> = batch
        .iter()
        .flat_map(|line| [line, &b"\n"[..]].concat())
        .collect();
    if let Err(error) = target.write_all(&lines).and_then(|()| target.sync_data()) {
        batch.drain(..).for_each(BytesDelivery::leave); // the next start ships them
        return Err(error.into());
    }
    batch.drain(..).try_for_each(BytesDelivery::ack)?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().unwrap_or("shipper-state/lines".into());
    let target = args.next().unwrap_or("shipped.log".into());
    let mut target = OpenOptions::new().create(true).append(true).open(target)?;
    let options = Options {
        durability: Durability::SyncEvery {
            max_ops: 10_000,
            max_delay: Duration::from_millis(5),
        },
        ..Options::default()
    };
    let (tx, rx) = options.bytes_channel(path)?;
    let reader = thread::spawn(move || {
        let mut lines = io::stdin().lock().split(b'\n');
        lines.try_for_each(|line| tx.send(&line?).map_err(io::Error::other))
    });
    let (mut batch, mut shipped) = (Vec::new(), 0);
    loop {
        match rx.recv() {
            Ok(line) => batch.push(line),
            Err(RecvError::Disconnected) => break,
            Err(error) => return Err(error.into()),
        }
        // What else is there; an error at which this stops is the next one of `recv`.
        batch.extend(rx.try_iter().take(63));
        shipped += batch.len();
        ship(&mut target, &mut batch)?;
    }
    reader.join().map_err(|_| "the reader panicked")??;
    rx.close()?;
    println!("{shipped} lines shipped");
    Ok(())
}
