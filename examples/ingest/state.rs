//! What is on disk beside the channel: the list of files, the logs of the workers, the answer.

use super::Result;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// Ranges of bytes, disjoint, neighbours merged: `(file, start)` to end.
#[derive(Clone, Default)]
pub struct Ranges(BTreeMap<(u32, u64), u64>);

impl Ranges {
    /// The end of the range that has the byte at `offset`.
    pub fn end_at(&self, file: u32, offset: u64) -> Option<u64> {
        let (&(its_file, _), &end) = self.0.range(..=(file, offset)).next_back()?;
        (its_file == file && offset < end).then_some(end)
    }

    /// The greatest file with a range, and the end of its last one.
    pub fn last(&self) -> Option<(u32, u64)> {
        let (&(file, _), &end) = self.0.last_key_value()?;
        Some((file, end))
    }

    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|((_, start), end)| end - start).sum()
    }

    /// Fails if a byte is there already: nothing may count twice.
    pub fn insert(&mut self, file: u32, mut start: u64, mut end: u64) -> Result<()> {
        let before = self.0.range(..(file, end)).next_back();
        if let Some((&(_, its_start), &its_end)) =
            before.filter(|((its_file, _), _)| *its_file == file)
            && its_end >= start
        {
            if its_end > start {
                return Err(format!("bytes {start} to {end} of file {file}: twice").into());
            }
            self.0.remove(&(file, its_start));
            start = its_start;
        }
        end = self.0.remove(&(file, end)).unwrap_or(end);
        self.0.insert((file, start), end);
        Ok(())
    }
}

/// A row of a record. Ranges come first.
pub enum Row<'a> {
    /// The record comes from these bytes of this file.
    Range(u32, u64, u64),
    /// So often there is this word.
    Count(&'a str, u64),
}

/// Bytes of `length checksum\n` in front of the rows.
const RECORD_HEADER_LEN: usize = 18;

/// The bytes of a record with these rows.
pub fn record<'a>(rows: impl Iterator<Item = Row<'a>>) -> Vec<u8> {
    let rows: String = rows
        .map(|row| match row {
            Row::Range(file, start, end) => format!("{file} {start} {end}\n"),
            Row::Count(word, count) => format!("{word} {count}\n"),
        })
        .collect();
    let checksum = crc32fast::hash(rows.as_bytes());
    format!("{:08x} {checksum:08x}\n{rows}", rows.len()).into_bytes()
}

fn parse(row: &str) -> Option<Row<'_>> {
    let (first, rest) = row.split_once(' ')?;
    Some(match rest.split_once(' ') {
        Some((start, end)) => {
            Row::Range(first.parse().ok()?, start.parse().ok()?, end.parse().ok()?)
        }
        None => Row::Count(first, rest.parse().ok()?),
    })
}

/// Visits the rows of every whole record of a log, until `visit` has enough of the record (`false`). Gives
/// the bytes of the records; a torn one may follow.
fn read_log(path: &Path, visit: &mut impl FnMut(Row<'_>) -> Result<bool>) -> Result<u64> {
    let file = File::open(path)?;
    let (file_len, mut whole_len) = (file.metadata()?.len(), 0);
    let mut reader = BufReader::new(file);
    loop {
        let mut header = [0; RECORD_HEADER_LEN];
        let rows_at = whole_len + header.len() as u64;
        if rows_at > file_len {
            return Ok(whole_len);
        }
        reader.read_exact(&mut header)?;
        let number = |digits| u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
        let (Some(len), Some(checksum)) = (number(&header[..8]), number(&header[9..17])) else {
            return Ok(whole_len);
        };
        if rows_at + u64::from(len) > file_len {
            return Ok(whole_len);
        }
        let mut rows = vec![0; len as usize];
        reader.read_exact(&mut rows)?;
        if crc32fast::hash(&rows) != checksum {
            return Ok(whole_len);
        }
        for row in std::str::from_utf8(&rows)?.lines() {
            if !visit(parse(row).ok_or("a row that no worker wrote")?)? {
                break;
            }
        }
        whole_len = rows_at + u64::from(len);
    }
}

/// The state directory. Whoever has its channel open has it to himself.
pub struct State {
    dir: PathBuf,
}

impl State {
    pub fn new(dir: PathBuf) -> Result<Self> {
        fs::create_dir_all(&dir)?;
        Ok(State { dir })
    }

    pub fn channel(&self) -> PathBuf {
        self.dir.join("queue")
    }

    pub fn answer(&self) -> PathBuf {
        self.dir.join("word-counts.tsv")
    }

    /// Makes a file that has the whole content, on stable storage, or does not exist.
    pub fn publish(&self, path: &Path, rows: impl Iterator<Item = String>) -> io::Result<()> {
        let temporary = path.with_extension("tmp");
        let mut writer = BufWriter::new(File::create(&temporary)?);
        for row in rows {
            writer.write_all(row.as_bytes())?;
        }
        writer.into_inner()?.sync_all()?;
        fs::rename(temporary, path)?;
        self.sync()
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    /// The files to count, with their lengths: those that the first run found.
    pub fn files(&self, roots: &[PathBuf]) -> Result<Vec<(u64, PathBuf)>> {
        // Rows end with a NUL, which is in no path: the roots, an empty one, the files.
        let path = self.dir.join("files");
        let own = fs::canonicalize(&self.dir)?;
        let mut head = String::new();
        let mut found = Vec::new();
        for root in roots {
            let root = fs::canonicalize(root).map_err(|e| format!("{}: {e}", root.display()))?;
            head += text(&root)?;
            head += "\0";
            if !path.exists() {
                find(root, &own, &mut found)?;
            }
        }
        head += "\0";
        if !path.exists() {
            self.publish(&path, std::iter::once(head.clone()).chain(found))?;
        }
        let listed = fs::read_to_string(&path)?;
        let files = listed
            .strip_prefix(&head)
            .ok_or("the state directory is that of other paths: name another one with --state")?;
        let parse = |row: &str| {
            let (len, path) = row.split_once(' ')?;
            Some((len.parse().ok()?, PathBuf::from(path)))
        };
        let files = files.split_terminator('\0').map(parse);
        Ok(files
            .collect::<Option<_>>()
            .ok_or("the list of files is damaged")?)
    }

    fn logs(&self) -> Result<Vec<PathBuf>> {
        let mut logs = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension() == Some(OsStr::new("log")) {
                logs.push(path);
            }
        }
        Ok(logs)
    }

    /// Visits the rows of all logs, as [`read_log`], and cuts off torn records.
    pub fn read_logs(&self, mut visit: impl FnMut(Row<'_>) -> Result<bool>) -> Result<()> {
        for path in self.logs()? {
            let whole_len = read_log(&path, &mut visit)?;
            OpenOptions::new()
                .write(true)
                .open(&path)?
                .set_len(whole_len)?;
        }
        Ok(())
    }

    /// The logs of so many workers, to append to.
    pub fn open_logs(&self, workers: usize) -> Result<Vec<File>> {
        let path = |worker| self.dir.join(format!("worker-{worker}.log"));
        let open = |worker| File::options().create(true).append(true).open(path(worker));
        let logs = (0..workers).map(open).collect::<io::Result<_>>()?;
        self.sync()?;
        Ok(logs)
    }

    /// Removes what only an unfinished run needs.
    pub fn clean(&self) -> Result<()> {
        for path in self.logs()?.into_iter().chain([self.channel()]) {
            match fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
                _ => {}
            }
        }
        Ok(())
    }
}

fn text(path: &Path) -> Result<&str> {
    Ok(path
        .to_str()
        .ok_or_else(|| format!("{}: the name is not UTF-8", path.display()))?)
}

/// Appends a row for each regular file at or below a path, in the order of their names.
fn find(path: PathBuf, except: &Path, rows: &mut Vec<String>) -> Result<()> {
    let metadata = fs::symlink_metadata(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    if metadata.is_file() {
        rows.push(format!("{} {}\0", metadata.len(), text(&path)?));
    } else if metadata.is_dir() && path != except {
        let inside = fs::read_dir(&path)?.map(|entry| Ok(entry?.path()));
        let mut inside = inside.collect::<io::Result<Vec<_>>>()?;
        inside.sort();
        for path in inside {
            find(path, except, rows)?;
        }
    }
    Ok(())
}
