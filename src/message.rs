//! What a channel carries: values by a codec, or bytes as they lie in the file.

use walchan_core::channel::Payload;

/// What a channel carries: any sized type, by a [`Codec`](crate::Codec); or `[u8]`, as it lies in the file.
///
/// It tells how a [`Delivery`](crate::Delivery) keeps its message: a value as itself, bytes where they lie.
/// Nobody else can implement it.
///
/// ```
/// fn len<T: walchan::Deliverable + ?Sized + AsRef<[u8]>>(delivery: &walchan::Delivery<T>) -> usize {
///     delivery.get().as_ref().len()
/// }
///
/// # let dir = tempfile::tempdir()?;
/// let options = walchan::Options::default();
/// let (tx, rx) = options.bytes_channel(dir.path().join("queue"))?;
/// tx.send(b"four").unwrap();
/// assert_eq!(len(&rx.recv().unwrap()), 4);
/// # Ok::<(), walchan::Error>(())
/// ```
pub trait Deliverable: sealed::Sealed {
    /// How a delivery keeps it.
    #[doc(hidden)]
    type Kept;

    /// The message.
    #[doc(hidden)]
    fn get(kept: &Self::Kept) -> &Self;
}

mod sealed {
    pub trait Sealed {}
    impl<T> Sealed for T {}
    impl Sealed for [u8] {}
}

impl<T> Deliverable for T {
    type Kept = T;

    #[inline(always)]
    fn get(kept: &T) -> &T {
        kept
    }
}

impl Deliverable for [u8] {
    type Kept = Payload;

    #[inline]
    fn get(kept: &Payload) -> &[u8] {
        match kept {
            Payload::Lent(lent) => lent,
            Payload::Copied(bytes) => bytes,
        }
    }
}

/// Payloads that are bytes, and nothing else: in place of a codec in the type of a receiver of bytes.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let options = walchan::Options::default();
/// let (_tx, rx) = options.bytes_channel(dir.path().join("queue"))?;
/// let rx: walchan::Receiver<[u8], walchan::Bytes> = rx;
/// # Ok::<(), walchan::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Bytes;
