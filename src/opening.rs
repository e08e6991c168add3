//! The functions that open a channel.

use crate::bytes::{BytesReceiver, BytesSender, BytesSyncSender};
use crate::codec::{BYTES_ID, Codec};
use crate::error::Error;
use crate::options::Options;
use crate::receiver::Receiver;
use crate::sender::{Sender, SyncSender};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;
use walchan_core::channel::{self, OnDisk, Parts, Request};

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
    channel_with_codec(path, options)
}

/// As [`channel_with_options`], with a codec other than [`Bincode`](crate::Bincode).
///
/// # Errors
///
/// See [`Error`]. A file that was made with another codec is a [`Error::Mismatch`].
///
/// See [`Codec`] for an example.
#[allow(clippy::type_complexity)] // as the others
pub fn channel_with_codec<T, C: Codec<T>>(
    path: impl AsRef<Path>,
    options: Options,
) -> Result<(Sender<T, C>, Receiver<T, C>), Error> {
    let parts = open(path.as_ref(), None, size_of::<T>(), C::ID, &options)?;
    let sender = Sender::new(parts.0.clone());
    Ok((sender, Receiver::new(parts)))
}

/// Opens, or makes, a channel of bytes.
fn open(
    path: &Path,
    bound: Option<usize>,
    type_len: usize,
    codec: u32,
    options: &Options,
) -> Result<Parts<OnDisk>, Error> {
    Ok(channel::open(&request(
        path, bound, type_len, codec, options,
    ))?)
}

fn request<'a>(
    path: &'a Path,
    bound: Option<usize>,
    type_len: usize,
    codec: u32,
    options: &'a Options,
) -> Request<'a> {
    Request {
        path,
        bound,
        type_len,
        codec,
        mode: options.durability.mode(),
        accept_torn: options.truncate_corrupt_tail,
        ring_bytes: options.ring_bytes,
        max_bytes: options.max_bytes,
        schema: options.schema.as_deref(),
    }
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
    sync_channel_with_codec(path, bound, options)
}

/// As [`sync_channel_with_options`], with a codec other than [`Bincode`](crate::Bincode).
///
/// # Errors
///
/// See [`Error`]. A file that was made with another codec is a [`Error::Mismatch`].
///
/// See [`Codec`] for an example.
#[allow(clippy::type_complexity)] // as the others
pub fn sync_channel_with_codec<T, C: Codec<T>>(
    path: impl AsRef<Path>,
    bound: usize,
    options: Options,
) -> Result<(SyncSender<T, C>, Receiver<T, C>), Error> {
    let parts = open(path.as_ref(), Some(bound), size_of::<T>(), C::ID, &options)?;
    let sender = SyncSender::new(parts.0.clone());
    Ok((sender, Receiver::new(parts)))
}

/// The bytes on disk of a bounded channel of `T`, before anything is made: it never has more, and after it was opened allocates no
/// more. `bound` and `options` are those of [`sync_channel_with_options`]; for a channel of bytes `T` is `[u8; N]` with the length
/// of a message.
///
/// # Errors
///
/// [`Error::Invalid`] where opening would return it.
///
/// ```
/// use walchan::Options;
///
/// let options = Options::default();
/// let bytes = walchan::sync_channel_footprint::<u64>(1000, &options)?;
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("queue");
/// let (_tx, _rx) = walchan::sync_channel_with_options::<u64>(&path, 1000, options)?;
/// assert_eq!(std::fs::metadata(&path)?.len(), bytes);
/// # Ok::<(), walchan::Error>(())
/// ```
pub fn sync_channel_footprint<T>(bound: usize, options: &Options) -> Result<u64, Error> {
    let request = request(Path::new(""), Some(bound), size_of::<T>(), 0, options);
    Ok(channel::footprint(&request)?)
}

/// Opens, or makes, a channel of bytes without a bound: what is sent is copied once, and what is received is borrowed from the
/// channel's file until it is acknowledged.
///
/// # Errors
///
/// See [`Error`].
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let (tx, rx) = walchan::bytes_channel(dir.path().join("queue"))?;
/// tx.send(b"hello").unwrap();
/// assert_eq!(*rx.recv().unwrap(), *b"hello");
/// # Ok::<(), walchan::Error>(())
/// ```
pub fn bytes_channel(path: impl AsRef<Path>) -> Result<(BytesSender, BytesReceiver), Error> {
    bytes_channel_with_options(path, Options::default())
}

/// As [`bytes_channel`], with options.
///
/// # Errors
///
/// See [`Error`].
///
/// ```
/// use walchan::{Durability, Options};
///
/// # let dir = tempfile::tempdir()?;
/// let options = Options { durability: Durability::FlushOnly, ..Options::default() };
/// let (tx, rx) = walchan::bytes_channel_with_options(dir.path().join("queue"), options)?;
/// # Ok::<(), walchan::Error>(())
/// ```
pub fn bytes_channel_with_options(
    path: impl AsRef<Path>,
    options: Options,
) -> Result<(BytesSender, BytesReceiver), Error> {
    let parts = open(path.as_ref(), None, 0, BYTES_ID, &options)?;
    Ok((BytesSender::new(parts.0.clone()), BytesReceiver::new(parts)))
}

/// Opens, or makes, a channel of bytes in which at most `bound` messages are unacknowledged. Unless the options say otherwise, the ring of
/// a new one has 256 bytes for each of them.
///
/// # Errors
///
/// See [`Error`]. A bound of 0 is [`Error::Invalid`].
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let (tx, rx) = walchan::bytes_sync_channel(dir.path().join("queue"), 100)?;
/// tx.send(b"hello").unwrap();
/// assert_eq!(*rx.recv().unwrap(), *b"hello");
/// # Ok::<(), walchan::Error>(())
/// ```
pub fn bytes_sync_channel(
    path: impl AsRef<Path>,
    bound: usize,
) -> Result<(BytesSyncSender, BytesReceiver), Error> {
    bytes_sync_channel_with_options(path, bound, Options::default())
}

/// As [`bytes_sync_channel`], with options.
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
/// let (tx, rx) = walchan::bytes_sync_channel_with_options(dir.path().join("queue"), 64, options)?;
/// # Ok::<(), walchan::Error>(())
/// ```
pub fn bytes_sync_channel_with_options(
    path: impl AsRef<Path>,
    bound: usize,
    options: Options,
) -> Result<(BytesSyncSender, BytesReceiver), Error> {
    let parts = open(path.as_ref(), Some(bound), 0, BYTES_ID, &options)?;
    Ok((
        BytesSyncSender::new(parts.0.clone()),
        BytesReceiver::new(parts),
    ))
}
