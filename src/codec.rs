//! Values to bytes and back. The only file that names bincode.
//!
//! Little-endian, fixed-width integers. Decoding is limited: a length in the bytes that asks for more
//! than a message of its size could hold is an error, neither an allocation nor a loop. Bytes that are left
//! over are an error too. User code that panics while it decodes gives an error.

use crate::bounded::{Budget, Within};
use crate::counted::Elements;
use crate::panics;
use bincode::config::{Configuration, Fixint, Limit, LittleEndian, NoLimit};
use bincode::enc::write::Writer;
use bincode::error::EncodeError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use walchan_core::channel::KEPT_LEN_MAX;
use walchan_core::format::frame::PAYLOAD_LEN_MAX;
use walchan_core::planted::planted;

/// Why a value could not be turned into bytes, or bytes into a value.
///
/// ```
/// use walchan::SendErrorKind;
///
/// # let dir = tempfile::tempdir()?;
/// let (tx, _rx) = walchan::channel::<std::path::PathBuf>(dir.path().join("queue"))?;
/// # use std::os::unix::ffi::OsStringExt;
/// let not_utf8 = std::ffi::OsString::from_vec(vec![0xff]).into();
/// let error = tx.send(not_utf8).unwrap_err();
/// let SendErrorKind::Encode(cause) = error.kind else { panic!() };
/// println!("{cause}");
/// # Ok::<(), walchan::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CodecError(String);

impl CodecError {
    /// For a [`Codec`] of one's own: an error with a text, or that of another error.
    pub fn new(reason: impl fmt::Display) -> Self {
        CodecError(reason.to_string())
    }
}

/// How messages become bytes, and bytes messages.
///
/// [`Bincode`] is the default, for all that serde knows. Another one is named where the channel is opened, as
/// in [`Options::codec_channel`](crate::Options::codec_channel), and from then on is a part of the types of
/// its handles. The file keeps [`Codec::ID`], and is not opened with a codec that has another one.
///
/// ```
/// use walchan::{Codec, CodecError, Options};
///
/// /// Numbers as text.
/// struct Text;
///
/// impl Codec<u64> for Text {
///     const ID: u32 = 5000;
///
///     fn encode(value: &u64, payload: &mut Vec<u8>) -> Result<(), CodecError> {
///         payload.extend_from_slice(value.to_string().as_bytes());
///         Ok(())
///     }
///
///     fn decode(payload: &[u8]) -> Result<u64, CodecError> {
///         let text = str::from_utf8(payload).map_err(CodecError::new)?;
///         text.parse().map_err(CodecError::new)
///     }
/// }
///
/// # let dir = tempfile::tempdir()?;
/// let path = dir.path().join("queue");
/// let (tx, rx) = Options::default().codec_channel::<u64, Text>(&path)?;
/// tx.send(17).unwrap();
/// assert_eq!(rx.recv().unwrap(), 17);
/// # Ok::<(), walchan::Error>(())
/// ```
pub trait Codec<T>: 'static {
    /// The number of the codec in the file. Those below 1024 are walchan's own.
    const ID: u32;

    /// Appends the bytes of a value to `payload`, which is empty.
    ///
    /// # Errors
    ///
    /// The send fails with [`SendErrorKind::Encode`](crate::SendErrorKind::Encode). A panic goes through the
    /// send; nothing is in the channel then.
    fn encode(value: &T, payload: &mut Vec<u8>) -> Result<(), CodecError>;

    /// The value of a whole payload. It may come from a file that somebody made: whatever the bytes are, this
    /// should end soon, and allocate no more than they justify.
    ///
    /// # Errors
    ///
    /// The receive fails with [`RecvError::Undecodable`](crate::RecvError::Undecodable). So it does after a
    /// panic, whatever that panic carries.
    fn decode(payload: &[u8]) -> Result<T, CodecError>;

    /// The payload of a value that is stored as it lies in memory: then `encode` is not asked, and its bytes
    /// are copied once (128 of them or fewer twice, which is faster). `None`, the default: it is to be
    /// encoded.
    #[inline]
    fn bytes_of(_value: &T) -> Option<&[u8]> {
        None
    }

    /// `decode`, where a panic is an error. Where no code of a user runs there is none.
    #[doc(hidden)]
    #[inline]
    fn decode_caught(payload: &[u8], _: Sealed) -> Result<T, CodecError>
    where
        Self: Sized,
    {
        decode::<T, Self>(payload)
    }
}

/// Nobody else can name it, so nobody else can say that no code of a user runs.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Sealed(());

pub(crate) const SEALED: Sealed = Sealed(());

/// bincode 2 with little-endian, fixed-width integers: the default codec, for what serde can write and read.
///
/// Decoding is limited: a length that asks for more than a payload of its size could hold is an error, and
/// neither an allocation nor a loop. Bytes that are left over are an error, too.
///
/// All sequences and maps of a message together have at most as many elements as its payload has bytes, and
/// 65,536 more. Only elements without bytes, such as `()`, can come to more. They are an error when they are
/// sent, and when they are received.
///
/// ```
/// use walchan::{Bincode, Codec};
///
/// let mut payload = Vec::new();
/// Bincode::encode(&(1u8, 2u16), &mut payload)?;
/// assert_eq!(payload, [1, 2, 0]);
///
/// payload.clear();
/// assert!(Bincode::encode(&vec![(); 1 << 40], &mut payload).is_err());
/// # Ok::<(), walchan::CodecError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Bincode;

impl<T: Serialize + DeserializeOwned> Codec<T> for Bincode {
    const ID: u32 = 1;

    #[inline]
    fn encode(value: &T, payload: &mut Vec<u8>) -> Result<(), CodecError> {
        encode(value, payload)
    }

    #[inline]
    fn decode(payload: &[u8]) -> Result<T, CodecError> {
        decode_limited(payload)
    }
}

/// Values that are no more than their bytes, as they lie in memory: the codec for small structs of numbers,
/// of which encoding and decoding would take longer than sending them.
///
/// With the feature `bytemuck`, for all that is [`bytemuck::Pod`]. The file is one of this byte order:
/// processors with another one do not open it. A payload of another length than the type's is an error, and
/// nothing else is looked at; a type that changes and keeps its length needs another
/// [`Options::schema`](crate::Options::schema).
///
/// ```
/// use walchan::{Options, Plain};
///
/// #[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
/// #[repr(C)]
/// struct Sample {
///     at: u64,
///     value: f64,
/// }
///
/// # let dir = tempfile::tempdir()?;
/// let path = dir.path().join("queue");
/// let (tx, rx) = Options::default().codec_channel::<Sample, Plain>(&path)?;
/// tx.send(Sample { at: 1, value: 0.5 }).unwrap();
/// assert_eq!(rx.recv().unwrap().value, 0.5);
/// # Ok::<(), walchan::Error>(())
/// ```
#[cfg(feature = "bytemuck")]
#[derive(Clone, Copy, Debug)]
pub struct Plain;

#[cfg(feature = "bytemuck")]
impl<T: bytemuck::Pod> Codec<T> for Plain {
    const ID: u32 = if cfg!(target_endian = "little") {
        PLAIN_LITTLE_ID
    } else {
        PLAIN_BIG_ID
    };

    #[inline]
    fn encode(value: &T, payload: &mut Vec<u8>) -> Result<(), CodecError> {
        payload.extend_from_slice(bytemuck::bytes_of(value));
        Ok(())
    }

    #[inline]
    fn decode(payload: &[u8]) -> Result<T, CodecError> {
        match bytemuck::try_pod_read_unaligned(payload) {
            Ok(value) => Ok(value),
            Err(_) => Err(wrong_length(payload.len(), size_of::<T>())),
        }
    }

    #[inline]
    fn bytes_of(value: &T) -> Option<&[u8]> {
        Some(bytemuck::bytes_of(value))
    }

    #[inline]
    fn decode_caught(payload: &[u8], _: Sealed) -> Result<T, CodecError> {
        Self::decode(payload)
    }
}

#[cfg(feature = "bytemuck")]
#[cold]
fn wrong_length(len: usize, expected: usize) -> CodecError {
    CodecError(format!("{len} bytes, and the type has {expected}"))
}

/// The number of payloads that are bytes, and nothing else.
pub(crate) const BYTES_ID: u32 = 2;
/// Those of [`Plain`], whether this build has it or not.
const PLAIN_LITTLE_ID: u32 = 3;
const PLAIN_BIG_ID: u32 = 4;

/// What is known of a codec by its number.
pub(crate) fn name_of(id: u32) -> String {
    match id {
        1 => "bincode 2, fixed-width".to_owned(),
        BYTES_ID => "bytes".to_owned(),
        PLAIN_LITTLE_ID => "plain, little-endian".to_owned(),
        PLAIN_BIG_ID => "plain, big-endian".to_owned(),
        id => format!("codec {id}"),
    }
}

type Config<L> = Configuration<LittleEndian, Fixint, L>;

const fn config<const N: usize>() -> Config<Limit<N>> {
    bincode::config::legacy().with_limit::<N>()
}

const ENCODE: Config<NoLimit> = bincode::config::legacy();

/// Elements without bytes that a payload may have, whatever its length.
const EMPTY_ELEMENTS: u64 = 1 << 16;

thread_local! {
    /// Taken while in use, so that a `Serialize` that sends finds another one. Not kept above
    /// [`KEPT_LEN_MAX`].
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Lends the thread's buffer, empty.
pub(crate) fn with_buffer<R>(body: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    // A thread that ends may send from the destructor of a thread-local, when ours is gone already.
    let mut buffer = BUFFER.try_with(Cell::take).unwrap_or_default();
    buffer.clear();
    let result = body(&mut buffer);
    if buffer.capacity() <= KEPT_LEN_MAX {
        BUFFER.try_with(|kept| kept.set(buffer)).ok();
    }
    result
}

struct Append<'a>(&'a mut Vec<u8>);

impl Writer for Append<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// Appends the encoded value to `buffer`.
#[inline]
fn encode<T: Serialize + ?Sized>(value: &T, buffer: &mut Vec<u8>) -> Result<(), CodecError> {
    let elements = Cell::new(0);
    let counted = Elements::new(value, &elements, elements_max(PAYLOAD_LEN_MAX as usize));
    bincode::serde::encode_into_writer(counted, Append(buffer), ENCODE)
        .map_err(|e| CodecError(e.to_string()))?;
    let (elements, max) = (elements.get(), elements_max(buffer.len()));
    if elements > max {
        return Err(too_many_elements(elements, max));
    }
    Ok(())
}

/// Elements that sequences and maps in a payload of `len` bytes may have, all together.
///
/// An element that has bytes has a first one, which is no other element's: before the first element inside it
/// comes the length of a sequence or a map. So what is added to `len` is left to those without bytes.
const fn elements_max(len: usize) -> u64 {
    len as u64 + EMPTY_ELEMENTS
}

#[cold]
fn too_many_elements(elements: u64, max: u64) -> CodecError {
    CodecError(format!(
        "{elements} elements of sequences and maps, at most {max} in so few bytes"
    ))
}

/// Decodes a whole payload; a panic is an error.
#[inline]
pub(crate) fn decode<T, C: Codec<T>>(payload: &[u8]) -> Result<T, CodecError> {
    // The value is given away whole or not at all, so nothing half-made is seen after a panic.
    // Beside the result of `catch_unwind`, which would be copied once more.
    let mut decoded = None;
    let caught = catch_unwind(AssertUnwindSafe(|| decoded = Some(C::decode(payload))));
    match (decoded, caught) {
        (Some(decoded), _) => decoded,
        (None, Err(panic)) => Err(panicked(panic)),
        (None, Ok(())) => unreachable!("decoding returned, and stored its result"),
    }
}

#[cold]
fn panicked(panic: Box<dyn Any + Send>) -> CodecError {
    CodecError(format!("decoding panicked: {}", panics::text_of(panic)))
}

/// The limit is a constant of bincode's, so there are classes of it: at least four times the payload (a
/// `char` counts four bytes for one), at most 64 times, and never less than 64 KiB.
#[inline]
fn decode_limited<T: DeserializeOwned>(payload: &[u8]) -> Result<T, CodecError> {
    if planted!("no_decode_limit") {
        return decode_with::<T, { 1 << 62 }>(payload);
    }
    match payload.len() {
        0..=0x4000 => decode_with::<T, { 64 << 10 }>(payload),
        _ => decode_large(payload),
    }
}

#[cold]
fn decode_large<T: DeserializeOwned>(payload: &[u8]) -> Result<T, CodecError> {
    match payload.len() as u64 {
        0..0x4_0000 => decode_with::<T, { 1 << 20 }>(payload),
        0x4_0000..0x40_0000 => decode_with::<T, { 16 << 20 }>(payload),
        0x40_0000..0x400_0000 => decode_with::<T, { 256 << 20 }>(payload),
        0x400_0000.. => decode_with::<T, { 4 << 30 }>(payload),
    }
}

#[inline]
fn decode_with<T: DeserializeOwned, const N: usize>(payload: &[u8]) -> Result<T, CodecError> {
    let left = Cell::new(elements_max(payload.len()));
    let within = Within::<T>::new(Budget::new(&left));
    match bincode::serde::seed_decode_from_slice(within, payload, config::<N>()) {
        Ok((value, used)) => {
            if used != payload.len() && !planted!("trailing_bytes_accepted") {
                return Err(left_over(payload.len() - used));
            }
            Ok(value)
        }
        Err(error) => Err(CodecError(error.to_string())),
    }
}

#[cold]
fn left_over(bytes: usize) -> CodecError {
    CodecError(format!("{bytes} bytes are left over"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_beyond_the_payload_is_an_error_and_no_allocation() {
        for len in [u64::MAX, 1 << 40, 1 << 30, 100_000] {
            let mut payload = len.to_le_bytes().to_vec();
            payload.extend_from_slice(b"short");
            assert!(decode::<String, Bincode>(&payload).is_err());
            assert!(decode::<Vec<u8>, Bincode>(&payload).is_err());
            assert!(decode::<Vec<String>, Bincode>(&payload).is_err());
        }
    }

    #[test]
    fn texts_of_every_class_survive() {
        for len in [0, 1, 16_000, 17_000, 300_000, 5_000_000] {
            let text: String = "\u{1F980}\u{e9}x".chars().cycle().take(len).collect();
            let mut payload = Vec::new();
            assert_eq!(encode(&text, &mut payload), Ok(()));
            assert_eq!(decode::<String, Bincode>(&payload).as_ref(), Ok(&text));
            let chars: Vec<char> = text.chars().collect();
            payload.clear();
            assert_eq!(encode(&chars, &mut payload), Ok(()));
            assert_eq!(decode::<Vec<char>, Bincode>(&payload), Ok(chars));
            payload.push(0);
            assert!(decode::<Vec<char>, Bincode>(&payload).is_err());
        }
    }

    #[test]
    #[cfg(feature = "bytemuck")]
    fn a_plain_value_of_another_length_is_an_error() {
        let value = [1u32, 2];
        let bytes = <Plain as Codec<[u32; 2]>>::bytes_of(&value).unwrap();
        assert_eq!(<Plain as Codec<[u32; 2]>>::decode(bytes), Ok(value));
        for wrong in [&bytes[..7], &[bytes, &[0]].concat(), &[]] {
            assert!(<Plain as Codec<[u32; 2]>>::decode(wrong).is_err());
        }
    }

    #[test]
    fn integers_have_their_width() {
        let mut payload = Vec::new();
        assert_eq!(encode(&(1u8, 2u16, 3u64), &mut payload), Ok(()));
        assert_eq!(payload, [1, 2, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
    }
}
