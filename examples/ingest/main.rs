//! Counts the words of files and trees. Kill it whenever you like and start it again, as often as you
//! like: the answer is that of an undisturbed run.
//!
//! ```text
//! cargo run --release --example ingest -- ~/.cargo/registry/src
//! ```
//!
//! One thread reads lines and sends them through a bounded channel. The main thread takes them in batches,
//! and a pool of workers counts: each batch becomes one record in the worker's log, and only then is it
//! acknowledged, in whatever order the workers get done. A word is a run of ASCII letters, digits
//! and `_`. Bytes that are not UTF-8 are replaced, so they only separate words. A file with a NUL in its
//! first 64 KiB counts as binary and is left out, as are symbolic links inside trees.
//!
//! # Why the answer is exact
//!
//! A channel delivers at least once. What makes the *result* exact is that results have a key: the bytes
//! `(file, start, end)` that they come from.
//!
//! * A record names its bytes, and is whole or absent: it is appended by one write, with length and checksum.
//! * A line is acknowledged after its record is written, never before. So every line that was sent is in
//!   a record, or in the channel, or (killed in between) in both: then it is recognised, and not counted
//!   again.
//! * A new run reads the input again, and sends what is neither in a record nor in the channel.
//! * The files are listed once; later runs take the same list, and stop if a file has another length.
//! * The answer is written to a temporary file, which is then renamed: it is complete, or not there. Before
//!   that the records must name every byte of every text file, and none twice.
//!
//! This holds when the process is killed, under every durability; only reading the records and adding them up
//! must come through in one run. Under `sync-every` (the default) and `sync-per-send` records are synced
//! before they are acknowledged, so it holds across a power cut as well: what that takes from the end of the
//! channel is sent again, what it brings back is in a record. `flush-only` promises nothing for a power cut.
//!
//! "lost, sent again" in the summary counts lines that an earlier run had passed and that were neither in a
//! record nor in the channel; the first one is reported at once. Without a power cut it is 0: the channel
//! keeps what was sent.

mod state;

use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use state::{Ranges, Row, State, record};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use walchan::{Delivery, Durability, Options, Receiver, SyncSender};
use walchan::{RecvError, RecvTimeoutError, TryRecvError};

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

const USAGE: &str = "\
usage: ingest [OPTIONS] PATH...

Counts the words of files and trees. Killed and started again, it goes on where it was.

  --state DIR         where everything is kept [ingest-state]; the answer is DIR/word-counts.tsv
  --workers N         threads that count [4]
  --durability MODE   flush-only, sync-every or sync-per-send [sync-every]
  --help              show this";

/// Messages in the channel.
const BOUND: usize = 32 << 10;
/// Bytes of the channel's ring: room for that many lines, if they have some 500 bytes each.
const RING_BYTES: u64 = 16 << 20;
/// Lines that become one record.
const BATCH_LEN: usize = 1024;
/// How long a batch waits to be full.
const BATCH_DELAY: Duration = Duration::from_millis(20);
/// Longer lines are sent in parts, cut between two words. (A longer word is cut, too.)
const LINE_LEN_MAX: usize = 64 << 10;

/// The message.
#[derive(Serialize, Deserialize)]
struct Line {
    /// Index in the list of files.
    file: u32,
    /// Of the first byte in the file.
    offset: u64,
    /// Bytes in the file, with the newline. Not always those of `text`, which is UTF-8.
    len: u32,
    text: String,
}

impl Line {
    fn end(&self) -> u64 {
        self.offset + u64::from(self.len)
    }
}

/// Deliveries that are acknowledged together. Dropping a delivery acknowledges it. This turns that round, so
/// that an error on the way, whatever it is, leaves the lines in the channel for the next run.
struct Batch(Vec<Delivery<Line>>);

impl Batch {
    fn acknowledge(mut self) -> Result<(), walchan::Error> {
        self.0.drain(..).try_for_each(Delivery::ack)
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.0.drain(..).for_each(Delivery::leave);
    }
}

/// What the sender did.
#[derive(Default)]
struct Sent {
    /// Bytes of all files that are text.
    text_bytes: u64,
    messages: u64,
    bytes: u64,
    lost: u64,
}

/// Sends every line that is not known to be in a record or in the channel.
fn send_lines(files: &[(u64, PathBuf)], known: &Ranges, tx: &SyncSender<Line>) -> Result<Sent> {
    let mut sent = Sent::default();
    for (file, (len, path)) in (0..).zip(files) {
        send_file(file, *len, path, known, tx, &mut sent)
            .map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(sent)
}

fn send_file(
    file: u32,
    listed_len: u64,
    path: &PathBuf,
    known: &Ranges,
    tx: &SyncSender<Line>,
    sent: &mut Sent,
) -> Result<()> {
    let mut reader = BufReader::with_capacity(LINE_LEN_MAX, File::open(path)?);
    if reader.fill_buf()?.contains(&0) {
        return Ok(());
    }
    let mut line = Vec::new();
    let mut offset = 0;
    loop {
        if let Some(end) = known.end_at(file, offset) {
            offset = reader.seek(SeekFrom::Start(end))?;
        }
        read_line(&mut reader, &mut line)?;
        if line.is_empty() {
            break;
        }
        if known.last().is_some_and(|last| (file, offset) < last) {
            if sent.lost == 0 {
                eprintln!(
                    "the channel lost lines, from {} {offset} on",
                    path.display()
                );
            }
            sent.lost += 1;
        }
        let len = line.len() as u32;
        let text = String::from_utf8_lossy(&line).into_owned();
        tx.send(Line {
            file,
            offset,
            len,
            text,
        })?;
        sent.messages += 1;
        sent.bytes += u64::from(len);
        offset += u64::from(len);
    }
    if offset != listed_len {
        return Err(format!("{offset} bytes, but {listed_len} when it was listed").into());
    }
    sent.text_bytes += offset;
    Ok(())
}

/// Reads a line with its newline, or the first words of a long one; nothing at the end.
fn read_line(reader: &mut BufReader<File>, line: &mut Vec<u8>) -> io::Result<()> {
    line.clear();
    let read = reader.take(LINE_LEN_MAX as u64).read_until(b'\n', line)?;
    let is_in_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    if read == LINE_LEN_MAX
        && let Some(last) = line.iter().rposition(|byte| !is_in_word(byte))
    {
        line.truncate(last + 1);
        reader.seek_relative(line.len() as i64 - read as i64)?;
    }
    Ok(())
}

/// What is still in the channel from the last run: all of it, for nothing has been sent in this one.
fn take_backlog(rx: &Receiver<Line>) -> Result<Batch> {
    let mut backlog = Batch(Vec::new());
    loop {
        match rx.try_recv() {
            Ok(line) => backlog.0.push(line),
            Err(TryRecvError::Empty) => return Ok(backlog),
            // The disk gave back something else. What was there counts as not sent.
            Err(TryRecvError::Corrupt(damage)) => {
                let copy = damage.set_aside()?;
                eprintln!(
                    "a damaged place in the channel was copied to {}",
                    copy.display()
                );
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The next lines: as many as come in a short time. `None` at the end.
fn take_batch(rx: &Receiver<Line>) -> Result<Option<Batch>> {
    let mut batch = match rx.recv() {
        Ok(line) => Batch(vec![line]),
        Err(RecvError::Disconnected) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let deadline = Instant::now() + BATCH_DELAY;
    while batch.0.len() < BATCH_LEN {
        match rx.recv_deadline(deadline) {
            Ok(line) => batch.0.push(line),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Some(batch))
}

/// Gives the workers their batches: the backlog, then what comes. Returns the receiver, to be closed when
/// they are done, and how many messages; without it, after an error, the sender ends.
fn dispatch(
    rx: Receiver<Line>,
    mut backlog: Batch,
    to_workers: crossbeam_channel::Sender<Batch>,
) -> Result<(Receiver<Line>, u64)> {
    let mut messages = 0;
    loop {
        let batch = if backlog.0.is_empty() {
            take_batch(&rx)?
        } else {
            let len = backlog.0.len().min(BATCH_LEN);
            Some(Batch(backlog.0.drain(..len).collect()))
        };
        let Some(batch) = batch else {
            return Ok((rx, messages));
        };
        messages += batch.0.len() as u64;
        // No worker is left: each has failed, and says why.
        if to_workers.send(batch).is_err() {
            return Ok((rx, messages));
        }
    }
}

/// A worker: counts batches until there are no more.
fn work(
    batches: &crossbeam_channel::Receiver<Batch>,
    mut log: File,
    synced: bool,
    bar: &ProgressBar,
) -> Result<()> {
    for batch in batches {
        log.write_all(&count(&batch.0))?;
        if synced {
            log.sync_data()?;
        }
        bar.inc(batch.0.iter().map(|line| u64::from(line.len)).sum());
        // The record is there, whatever happens now. This is the place to acknowledge.
        batch.acknowledge()?;
    }
    Ok(())
}

/// The record of some lines.
fn count(lines: &[Delivery<Line>]) -> Vec<u8> {
    let mut ranges: Vec<(u32, u64, u64)> = Vec::new();
    let mut counts: HashMap<&str, u64> = HashMap::new();
    for line in lines {
        match ranges.last_mut() {
            Some(last) if (last.0, last.2) == (line.file, line.offset) => last.2 = line.end(),
            _ => ranges.push((line.file, line.offset, line.end())),
        }
        let words = line
            .text
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for word in words.filter(|word| !word.is_empty()) {
            *counts.entry(word).or_default() += 1;
        }
    }
    let ranges = ranges
        .into_iter()
        .map(|(file, start, end)| Row::Range(file, start, end));
    record(
        ranges.chain(
            counts
                .into_iter()
                .map(|(word, count)| Row::Count(word, count)),
        ),
    )
}

struct Arguments {
    state: PathBuf,
    workers: usize,
    durability: Durability,
    paths: Vec<PathBuf>,
}

/// `None` if help is wanted.
fn arguments() -> Result<Option<Arguments>> {
    let every = Durability::SyncEvery {
        max_ops: 8192,
        max_delay: Duration::from_millis(50),
    };
    let mut parsed = Arguments {
        state: PathBuf::from("ingest-state"),
        workers: 4,
        durability: every,
        paths: Vec::new(),
    };
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or("an option without its value");
        match argument.to_str() {
            Some("--help" | "-h") => return Ok(None),
            Some("--state") => parsed.state = value()?.into(),
            Some("--workers") => {
                let workers = value()?.to_str().and_then(|text| text.parse().ok());
                parsed.workers = workers
                    .filter(|n| *n > 0)
                    .ok_or("--workers wants a number from 1")?;
            }
            Some("--durability") => {
                parsed.durability = match value()?.to_str() {
                    Some("flush-only") => Durability::FlushOnly,
                    Some("sync-every") => every,
                    Some("sync-per-send") => Durability::SyncPerSend,
                    _ => return Err("an unknown durability".into()),
                }
            }
            Some(option) if option.starts_with('-') => {
                return Err(format!("{option} is no option").into());
            }
            _ => parsed.paths.push(argument.into()),
        }
    }
    if parsed.paths.is_empty() {
        return Err("no PATH is given".into());
    }
    Ok(Some(parsed))
}

/// The answer: the sum of all records, if these are all.
fn add_up(state: &State, text_bytes: u64) -> Result<Vec<(String, u64)>> {
    let mut ranges = Ranges::default();
    let mut counts: HashMap<String, u64> = HashMap::new();
    state.read_logs(|row| {
        match row {
            Row::Range(file, start, end) => ranges.insert(file, start, end)?,
            Row::Count(word, count) => match counts.get_mut(word) {
                Some(sum) => *sum += count,
                None => drop(counts.insert(word.to_owned(), count)),
            },
        }
        Ok(true)
    })?;
    if ranges.bytes() != text_bytes {
        return Err(format!("{} of {text_bytes} bytes are counted", ranges.bytes()).into());
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_unstable();
    Ok(counts)
}

fn ingest(arguments: Arguments) -> Result<()> {
    let began = Instant::now();
    let Arguments {
        state,
        workers,
        durability,
        paths,
    } = arguments;
    let state = State::new(state)?;
    if state.answer().exists() {
        state.files(&paths)?;
        // The last run may have been killed between the answer and this.
        state.clean()?;
        println!("done before: {}", state.answer().display());
        return Ok(());
    }

    // First of all: the channel's lock keeps other processes away from the whole directory.
    let options = Options {
        durability,
        ring_bytes: Some(RING_BYTES),
        schema: Some("ingest line v1".to_owned()),
        ..Options::default()
    };
    let (tx, rx) = walchan::sync_channel_with_options::<Line>(state.channel(), BOUND, options)?;
    println!("recovery: {}", rx.recovery());
    let files = state.files(&paths)?;

    // What earlier runs left: records, and lines in the channel.
    let mut counted = Ranges::default();
    state.read_logs(|row| match row {
        Row::Range(file, start, end) => counted.insert(file, start, end).map(|()| true),
        Row::Count(..) => Ok(false),
    })?;
    let mut backlog = take_backlog(&rx)?;
    let redelivered = backlog
        .0
        .iter()
        .filter(|line| Delivery::deliveries(line) > 1)
        .count();
    let is_counted = |line: &mut Delivery<Line>| counted.end_at(line.file, line.offset).is_some();
    let done = Batch(backlog.0.extract_if(.., is_counted).collect());
    let done_before = done.0.len();
    done.acknowledge()?;
    let mut known = counted.clone();
    for line in &backlog.0 {
        known.insert(line.file, line.offset, line.end())?;
    }

    let bar = ProgressBar::new(files.iter().map(|(len, _)| len).sum());
    let style = "{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
    bar.set_style(ProgressStyle::with_template(style)?);
    bar.set_position(counted.bytes());
    bar.reset_eta();
    let logs = state.open_logs(workers)?;
    let (sent, messages) = std::thread::scope(|scope| -> Result<_> {
        let (files, known, bar) = (&files, &known, &bar);
        let sender = scope.spawn(move || send_lines(files, known, &tx));
        let (to_workers, batches) = crossbeam_channel::bounded(workers);
        let synced = durability != Durability::FlushOnly;
        let start = |log| {
            let batches = batches.clone();
            scope.spawn(move || work(&batches, log, synced, bar))
        };
        let pool: Vec<_> = logs.into_iter().map(start).collect();
        drop(batches);
        // Whatever fails, everything ends: without receiver the sender, without batches the workers.
        let dispatched = dispatch(rx, backlog, to_workers);
        for worker in pool {
            worker.join().map_err(|_| "a worker panicked")??;
        }
        let (rx, messages) = dispatched?;
        let sent = sender.join().map_err(|_| "the sender panicked")??;
        // Nobody has a delivery any more, or a sender: it closes now.
        rx.close()?;
        Ok((sent, messages))
    })?;
    bar.finish_and_clear();

    let counts = add_up(&state, sent.text_bytes)?;
    let (words, different) = (counts.iter().map(|(_, n)| n).sum::<u64>(), counts.len());
    let rows = counts
        .into_iter()
        .map(|(word, count)| format!("{word}\t{count}\n"));
    state.publish(&state.answer(), rows)?;
    state.clean()?;

    let seconds = began.elapsed().as_secs_f64();
    println!("sent: {} messages, {} bytes", sent.messages, sent.bytes);
    println!("counted: {messages} messages in {seconds:.2} s");
    println!(
        "redelivered: {redelivered}; counted before: {done_before}; lost, sent again: {}",
        sent.lost
    );
    println!(
        "answer: {words} words, {different} different ones, in {}",
        state.answer().display()
    );
    Ok(())
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match ingest(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
