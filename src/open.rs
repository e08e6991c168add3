//! The functions that open a channel.

use crate::codec::Codec;
use crate::error::Error;
use crate::message::Bytes;
use crate::options::Options;
use crate::receiver::{BytesReceiver, Deliver, Receiver};
use crate::sender::{BytesSender, BytesSyncSender, Sender, SyncSender};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;
use walchan_core::channel::{self, OnDisk, Parts, Request};

/// Opens the channel at `path`, or makes it, with the default [`Options`].
///
/// Its senders never wait for the receiver: when its ring is full the channel goes on in segments, files
/// beside it. Missing parent directories are created.
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
    options.codec_channel(path)
}

/// Opens the bounded channel at `path`, or makes it, with the default [`Options`].
///
/// At most `bound` messages are unacknowledged at any time; senders wait. A new file's ring has, for each of
/// them, twice the size of `T` in memory plus 96 bytes, at least 256; messages that are larger on average
/// fill the ring before the bound is reached, and senders wait for that, too. After a recovery with more
/// messages than the bound, none is admitted until there are fewer.
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
    options.codec_sync_channel(path, bound)
}

/// # Opening other channels
///
/// [`channel_with_options`] and [`sync_channel_with_options`] open channels of what serde can write and read.
/// These open all others.
impl Options {
    /// Opens the channel at `path`, or makes it, with a codec other than [`Bincode`](crate::Bincode).
    ///
    /// See [`Codec`] for an example.
    ///
    /// # Errors
    ///
    /// See [`Error`]. A file that was made with another codec is an [`Error::Mismatch`].
    #[allow(clippy::type_complexity)] // as the others
    pub fn codec_channel<T, C: Codec<T>>(
        &self,
        path: impl AsRef<Path>,
    ) -> Result<(Sender<T, C>, Receiver<T, C>), Error> {
        let parts = self.open(path.as_ref(), None, size_of::<T>(), C::ID)?;
        Ok((Sender::new(parts.0.clone()), Receiver::new(parts)))
    }

    /// Opens the bounded channel at `path`, or makes it, with a codec other than [`Bincode`](crate::Bincode).
    ///
    /// # Errors
    ///
    /// See [`Error`]. A file that was made with another codec is an [`Error::Mismatch`]; a bound of 0 is
    /// [`Error::Invalid`].
    ///
    /// ```
    /// use walchan::{Bincode, Options};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let path = dir.path().join("queue");
    /// let (tx, rx) = Options::default().codec_sync_channel::<u64, Bincode>(path, 8)?;
    /// tx.send(7).unwrap();
    /// assert_eq!(rx.recv().unwrap(), 7);
    /// # Ok::<(), walchan::Error>(())
    /// ```
    #[allow(clippy::type_complexity)] // as the others
    pub fn codec_sync_channel<T, C: Codec<T>>(
        &self,
        path: impl AsRef<Path>,
        bound: usize,
    ) -> Result<(SyncSender<T, C>, Receiver<T, C>), Error> {
        let parts = self.open(path.as_ref(), Some(bound), size_of::<T>(), C::ID)?;
        Ok((SyncSender::new(parts.0.clone()), Receiver::new(parts)))
    }

    /// Opens a channel of bytes at `path`, or makes it: what is sent is copied once, and what is received is
    /// borrowed from the channel's file until it is acknowledged.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    ///
    /// ```
    /// use walchan::Options;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let (tx, rx) = Options::default().bytes_channel(dir.path().join("queue"))?;
    /// tx.send(b"hello").unwrap();
    /// let delivery = rx.recv().unwrap();
    /// assert_eq!(delivery[..], *b"hello"); // borrowed
    /// drop(delivery); // acknowledged
    /// # Ok::<(), walchan::Error>(())
    /// ```
    pub fn bytes_channel(
        &self,
        path: impl AsRef<Path>,
    ) -> Result<(BytesSender, BytesReceiver), Error> {
        let parts = self.open(path.as_ref(), None, 0, <Bytes as Deliver<[u8]>>::FILE_ID)?;
        Ok((BytesSender::new(parts.0.clone()), Receiver::new(parts)))
    }

    /// Opens a channel of bytes in which at most `bound` messages are unacknowledged, or makes it. Unless
    /// [`Options::ring_bytes`] says otherwise, the ring of a new one has 256 bytes for each of them.
    ///
    /// # Errors
    ///
    /// See [`Error`]. A bound of 0 is [`Error::Invalid`].
    ///
    /// ```
    /// use walchan::Options;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let options = Options { ring_bytes: Some(1 << 20), ..Options::default() };
    /// let (tx, rx) = options.bytes_sync_channel(dir.path().join("queue"), 64)?;
    /// tx.send(b"hello").unwrap();
    /// assert_eq!(rx.recv().unwrap()[..], *b"hello");
    /// # Ok::<(), walchan::Error>(())
    /// ```
    pub fn bytes_sync_channel(
        &self,
        path: impl AsRef<Path>,
        bound: usize,
    ) -> Result<(BytesSyncSender, BytesReceiver), Error> {
        let codec = <Bytes as Deliver<[u8]>>::FILE_ID;
        let parts = self.open(path.as_ref(), Some(bound), 0, codec)?;
        Ok((BytesSyncSender::new(parts.0.clone()), Receiver::new(parts)))
    }

    /// The bytes on disk of a bounded channel of `T`, before anything is made: it never has more, and
    /// allocates no more once it is open. For a channel of bytes `T` is `()`: no length of its messages is
    /// known when it is opened.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] where opening would return it.
    ///
    /// ```
    /// use walchan::Options;
    ///
    /// let options = Options::default();
    /// let bytes = options.sync_channel_footprint::<u64>(1000)?;
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("queue");
    /// let (_tx, _rx) = walchan::sync_channel_with_options::<u64>(&path, 1000, options)?;
    /// assert_eq!(std::fs::metadata(&path)?.len(), bytes);
    ///
    /// # let path = dir.path().join("frames");
    /// let bytes = Options::default().sync_channel_footprint::<()>(1000)?;
    /// let (_tx, _rx) = Options::default().bytes_sync_channel(&path, 1000)?;
    /// assert_eq!(std::fs::metadata(&path)?.len(), bytes);
    /// # Ok::<(), walchan::Error>(())
    /// ```
    pub fn sync_channel_footprint<T>(&self, bound: usize) -> Result<u64, Error> {
        let request = self.request(Path::new(""), Some(bound), size_of::<T>(), 0);
        Ok(channel::footprint(&request)?)
    }

    fn open(
        &self,
        path: &Path,
        bound: Option<usize>,
        type_len: usize,
        codec: u32,
    ) -> Result<Parts<OnDisk>, Error> {
        Ok(channel::open(&self.request(path, bound, type_len, codec))?)
    }

    fn request<'a>(
        &'a self,
        path: &'a Path,
        bound: Option<usize>,
        type_len: usize,
        codec: u32,
    ) -> Request<'a> {
        Request {
            path,
            bound,
            type_len,
            codec,
            mode: self.durability.mode(),
            accept_torn: self.truncate_corrupt_tail,
            ring_bytes: self.ring_bytes,
            max_bytes: self.max_bytes,
            schema: self.schema.as_deref(),
        }
    }
}
