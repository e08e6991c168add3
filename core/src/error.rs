//! Why a channel could not be opened, synced or closed.

use std::io;

/// Why a channel could not be opened, synced or closed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused something, or a sync of this channel failed.
    #[error("i/o error: {0}")]
    Io(#[from] io::Error),
    /// Another channel, of this process or another, has the file open.
    #[error("the file is in use by another channel")]
    Locked,
    /// There is something at the path, and it is not a regular file.
    #[error("not a regular file")]
    NotRegular,
    /// The file is a channel, but not the one asked for.
    #[error("the file is another channel: {0:?}")]
    Mismatch(Mismatch),
    /// The file is of a newer format than this version knows.
    #[error("format version {stored} is newer than this version of walchan")]
    Version {
        /// The version in the file.
        stored: u32,
    },
    /// The file is not a walchan file, or too damaged to be opened; nothing in it was changed.
    #[error("corrupt at {position}: {reason}")]
    Corrupt {
        /// Offset in the file, for a header; position in the ring, for what a torn tail begins with.
        position: u64,
        /// What is wrong there.
        reason: String,
    },
    /// An argument that cannot be honoured.
    #[error("invalid argument: {0}")]
    Invalid(&'static str),
}

/// In what a file differs from the channel that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// The file is a segment of a channel.
    Segment {
        /// Its number.
        number: u64,
    },
    /// The messages are of another codec.
    Codec {
        /// The number in the file.
        stored: u32,
        /// The number asked for.
        wanted: u32,
    },
    /// The messages have another schema.
    Schema {
        /// The name in the file.
        stored: String,
        /// The name asked for.
        wanted: String,
    },
    /// The ring has another size.
    RingBytes {
        /// Bytes of the file's ring.
        stored: u64,
        /// Bytes asked for.
        wanted: u64,
    },
    /// A bounded channel was asked for, and there are segments.
    Segments {
        /// How many.
        count: usize,
    },
}

impl Error {
    pub(crate) fn corrupt(position: u64, reason: String) -> Self {
        Error::Corrupt { position, reason }
    }
}
