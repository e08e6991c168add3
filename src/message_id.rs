//! The name of a message.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Identifies a message of a channel, for ever: an id is never given twice, not even when a backup of the
/// file is restored. Ordered as the messages were sent.
///
/// ```
/// use walchan::{Delivery, MessageId};
///
/// # let dir = tempfile::tempdir()?;
/// let (tx, rx) = walchan::channel::<u64>(dir.path().join("queue"))?;
/// tx.send(7).unwrap();
/// let id = Delivery::id(&rx.recv().unwrap());
/// assert_eq!(id.to_string().parse(), Ok(id));
/// # Ok::<(), walchan::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MessageId {
    position: u64,
    tag: u64,
}

impl MessageId {
    pub(crate) fn new(position: u64, tag: u64) -> Self {
        MessageId { position, tag }
    }

    /// The position of the message: a byte offset in the life of the channel, which only grows.
    #[must_use]
    pub fn position(self) -> u64 {
        self.position
    }

    /// The random tag of the opening of the channel in which the message was sent.
    #[must_use]
    pub fn tag(self) -> u64 {
        self.tag
    }
}

impl fmt::Display for MessageId {
    /// Two numbers of 16 hexadecimal digits: position and tag.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}", self.position, self.tag)
    }
}

/// The text is not a [`MessageId`].
///
/// ```
/// assert!("17".parse::<walchan::MessageId>().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message id is two numbers of 16 hexadecimal digits, with a hyphen between")]
#[non_exhaustive]
pub struct ParseMessageIdError;

impl FromStr for MessageId {
    type Err = ParseMessageIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (position, tag) = text.split_once('-').ok_or(ParseMessageIdError)?;
        let number = |digits: &str| {
            if digits.len() != 16 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(ParseMessageIdError);
            }
            u64::from_str_radix(digits, 16).map_err(|_| ParseMessageIdError)
        };
        Ok(MessageId {
            position: number(position)?,
            tag: number(tag)?,
        })
    }
}
