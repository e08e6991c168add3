//! The functions that open a channel.

use crate::channel::{self, Request};
use crate::codec;
use crate::error::Error;
use crate::options::Options;
use crate::receiver::Receiver;
use crate::sender::{Sender, SyncSender};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;

/// Opens the channel at `path`, or makes it, with the default [`Options`].
///
/// Its senders never wait for room: a full ring is an error. Missing parent directories are created.
///
/// # Errors
///
/// See [`Error`]. Nothing half-made is left behind.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let (tx, rx) = walchan::channel(dir.path().join("queue"))?;
/// tx.send((1, "one".to_owned())).unwrap();
/// let (number, name) = rx.recv().unwrap().into_inner();
/// # Ok::<(), walchan::Error>(())
/// ```
pub fn channel<T>(path: impl AsRef<Path>) -> Result<(Sender<T>, Receiver<T>), Error>
where
    T: Serialize + DeserializeOwned,
{
    channel_with_options(path, Options::default())
}

/// As [`channel()`], with options.
///
/// # Errors
///
/// See [`Error`].
///
/// ```
/// use walchan::{Durability, Options};
///
/// # let dir = tempfile::tempdir()?;
/// let options = Options {
///     durability: Durability::FlushOnly,
///     schema: Some("orders v1".to_owned()),
///     ..Options::default()
/// };
/// let (tx, rx) = walchan::channel_with_options::<u64>(dir.path().join("queue"), options)?;
/// # Ok::<(), walchan::Error>(())
/// ```
pub fn channel_with_options<T>(
    path: impl AsRef<Path>,
    options: Options,
) -> Result<(Sender<T>, Receiver<T>), Error>
where
    T: Serialize + DeserializeOwned,
{
    let request = Request {
        path: path.as_ref(),
        bound: None,
        type_len: size_of::<T>(),
        options: &options,
    };
    let (channel, reading, report) = channel::open(&request)?;
    let sender = Sender::new(channel.clone(), codec::check::<T>);
    Ok((sender, Receiver::new(channel, reading, report)))
}

/// Opens the bounded channel at `path`, or makes it, with the default [`Options`].
///
/// At most `bound` messages are unacknowledged at any time; senders wait. A new file's ring has, for each of
/// them, twice the size of `T` in memory plus 96 bytes, at least 256; messages that are larger
/// on average fill the ring before the bound is reached, and senders wait for that, too. After a recovery with
/// more messages than the bound, none is admitted until there are fewer.
///
/// # Errors
///
/// See [`Error`]. A bound of 0 is [`Error::Invalid`].
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let (tx, rx) = walchan::sync_channel(dir.path().join("queue"), 100)?;
/// tx.send(1.5).unwrap();
/// assert_eq!(rx.recv().unwrap(), 1.5);
/// # Ok::<(), walchan::Error>(())
/// ```
pub fn sync_channel<T>(
    path: impl AsRef<Path>,
    bound: usize,
) -> Result<(SyncSender<T>, Receiver<T>), Error>
where
    T: Serialize + DeserializeOwned,
{
    sync_channel_with_options(path, bound, Options::default())
}

/// As [`sync_channel()`], with options.
///
/// # Errors
///
/// See [`Error`].
///
/// ```
/// use walchan::Options;
///
/// # let dir = tempfile::tempdir()?;
/// let options = Options { ring_bytes: Some(1 << 20), ..Options::default() };
/// let (tx, rx) = walchan::sync_channel_with_options::<u64>(dir.path().join("queue"), 64, options)?;
/// # Ok::<(), walchan::Error>(())
/// ```
pub fn sync_channel_with_options<T>(
    path: impl AsRef<Path>,
    bound: usize,
    options: Options,
) -> Result<(SyncSender<T>, Receiver<T>), Error>
where
    T: Serialize + DeserializeOwned,
{
    let request = Request {
        path: path.as_ref(),
        bound: Some(bound),
        type_len: size_of::<T>(),
        options: &options,
    };
    let (channel, reading, report) = channel::open(&request)?;
    let sender = SyncSender::new(channel.clone(), codec::check::<T>);
    Ok((sender, Receiver::new(channel, reading, report)))
}
