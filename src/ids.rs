//! Newtypes for every number that has a meaning of its own.
//!
//! Here live the identifiers and positions that all layers share, with checked arithmetic.
//! Never here: I/O, time, encoding.

use std::fmt;
use std::str::FromStr;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        #[allow(dead_code, reason = "all numbers have the same arithmetic, whether it is used or not")]
        impl $name {
            /// The number itself.
            #[inline]
            #[must_use]
            pub const fn get(self) -> $inner {
                self.0
            }

            /// `self + n`, or `None` where the number would wrap.
            #[inline]
            #[must_use]
            pub const fn checked_add(self, n: $inner) -> Option<Self> {
                match self.0.checked_add(n) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }

            /// `self - n`, or zero where that would be negative.
            #[inline]
            #[must_use]
            pub const fn saturating_sub(self, n: $inner) -> Self {
                Self(self.0.saturating_sub(n))
            }

            /// `self + n`, or the greatest number where that would wrap.
            #[inline]
            #[must_use]
            pub const fn saturating_add(self, n: $inner) -> Self {
                Self(self.0.saturating_add(n))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A place on the log's axis: the number of frame bytes before a frame. Only grows; always a multiple of 8.
    Lsn(u64)
}
number! {
    /// One process's time of appending: a count in the high 32 bits, which rises durably before the process's first append, and
    /// random low bits. So it tells apart two messages that got one offset, because a crash dropped the first one, or because
    /// a copy of the store was put back into its place.
    Epoch(u64)
}
number! {
    /// A topic, numbered in order of creation from 0.
    TopicId(u64)
}
number! {
    /// A partition of any topic, hidden ones included: one numbering for the whole store. Removed ones leave gaps.
    PartitionId(u64)
}
number! {
    /// A group, numbered in order of creation from 0.
    GroupId(u64)
}
number! {
    /// A message's place in its partition: dense from 0, continuing across epochs.
    Offset(u64)
}
number! {
    /// The number in a file's name. Never reused in the life of a store.
    FileNumber(u64)
}
number! {
    /// Milliseconds since 1970-01-01 UTC by the wall clock, which may jump.
    WallMs(u64)
}
number! {
    /// Milliseconds by the wall clock less the jumps that were noted: what ages are counted by.
    StoreMs(u64)
}
number! {
    /// Milliseconds by the monotonic clock of this boot; meaningless in another process.
    MonoMs(u64)
}

impl PartitionId {
    /// The partition that comes `index` behind this one: of a topic the one with that index, if this is its first.
    #[inline]
    pub(crate) const fn nth(self, index: u32) -> Self {
        self.saturating_add(index as u64)
    }
}

impl Epoch {
    /// How many epochs the log has had, this one included. Epochs of one store are in the order of their counts.
    #[inline]
    #[must_use]
    pub const fn count(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The epoch with this count, which is not 0, and these low bits.
    pub(crate) const fn of(count: u32, random: u32) -> Self {
        Self((count as u64) << 32 | random as u64)
    }
}

/// The identity of a message for ever: it never names other bytes, whatever crashes come between, and whatever copies of the store
/// are put back into its place.
///
/// As text it is `topic-partition-offset-epoch` in decimal digits, which needs no escaping in a URL or a file name, and which
/// [`FromStr`] reads back. Ids of one store differ as text.
///
/// ```
/// use millpond::MessageId;
///
/// let id: MessageId = "0-3-1041-9876543210".parse()?;
/// assert_eq!((id.partition, id.offset.get(), id.epoch.count()), (3, 1041, 2));
/// assert_eq!(id.to_string(), "0-3-1041-9876543210");
/// assert!("0/3/1041@2".parse::<MessageId>().is_err());
/// # Ok::<(), millpond::ParseMessageIdError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId {
    /// The topic's number in its store.
    pub topic: TopicId,
    /// The partition's index within its topic, from 0. A group's redriven messages and dead letters have partitions of their own, which
    /// count on from the topic's last.
    pub partition: u64,
    /// The epoch in which the message was appended.
    pub epoch: Epoch,
    /// The message's offset in its partition.
    pub offset: Offset,
}

/// The index within its topic of a group's partition of redriven messages: those of groups count on from the topic's last. The next one is
/// that of the group's dead letters.
pub(crate) const fn hidden_index(partitions: u32, group: GroupId) -> u64 {
    (partitions as u64).saturating_add(group.0.saturating_mul(2))
}

/// The index within its topic of the hidden partition of messages for later.
pub(crate) const SCHEDULE_INDEX: u64 = u64::MAX - 1;

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}-{}", self.topic, self.partition, self.offset, self.epoch)
    }
}

/// A text that is no [`MessageId`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParseMessageIdError {
    /// The text, cut to 64 bytes.
    pub text: String,
}

impl fmt::Display for ParseMessageIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "invalid message id {:?}; expected topic-partition-offset-epoch, as in 0-3-1041-9876543210",
            self.text
        )
    }
}

impl std::error::Error for ParseMessageIdError {}

impl FromStr for MessageId {
    type Err = ParseMessageIdError;

    /// Reads what `Display` writes, and nothing else: one id has one text.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut numbers = text.split('-');
        let id = (|| {
            let id = Self {
                topic: TopicId(number(numbers.next()?)?),
                partition: number(numbers.next()?)?,
                offset: Offset(number(numbers.next()?)?),
                epoch: Epoch(number(numbers.next()?)?),
            };
            numbers.next().is_none().then_some(id)
        })();
        id.ok_or_else(|| ParseMessageIdError { text: cut(text) })
    }
}

/// Where a reader of the log stands: behind one message. It goes on at exactly the next one, also in another process.
///
/// Positions of one topic are in the order in which a reader sees them. As text a position has at most 55 bytes, none of which needs
/// escaping in a URL or a file name, and [`FromStr`] reads it back; what it is made of is the library's concern.
///
/// ```
/// use millpond::Position;
///
/// let position: Position = "1jz4b0g0-5k-0-17".parse()?;
/// assert_eq!(position.to_string(), "1jz4b0g0-5k-0-17");
/// assert!("1jz4b0g0-5k-0-017".parse::<Position>().is_err());
/// # Ok::<(), millpond::ParsePositionError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub(crate) epoch: Epoch,
    /// That of the message's frame.
    pub(crate) lsn: Lsn,
    pub(crate) partition: PartitionId,
    pub(crate) offset: Offset,
}

impl Position {
    /// The place of the message's frame in the log of its epoch.
    #[must_use]
    pub const fn lsn(&self) -> Lsn {
        self.lsn
    }
}

/// A text that is no [`Position`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParsePositionError {
    /// The text, cut to 64 bytes.
    pub text: String,
}

impl fmt::Display for ParsePositionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid position {:?}; expected the text of one that a reader gave, as it was", self.text)
    }
}

impl std::error::Error for ParsePositionError {}

/// The digits of a position: thirteen are enough for any number.
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, mut left) in [self.epoch.0, self.lsn.0, self.partition.0, self.offset.0].into_iter().enumerate() {
            let (mut digits, mut from) = ([b'0'; 13], 13);
            while from == 13 || left > 0 {
                from -= 1;
                digits[from] = DIGITS[(left % 36) as usize];
                left /= 36;
            }
            let dash = if nth > 0 { "-" } else { "" };
            write!(f, "{dash}{}", digits[from..].escape_ascii())?;
        }
        Ok(())
    }
}

impl FromStr for Position {
    type Err = ParsePositionError;

    /// Reads what `Display` writes, and nothing else: one position has one text.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut numbers = text.split('-').map(position_number);
        let position = (|| {
            let mut next = || numbers.next()?;
            let position = Self {
                epoch: Epoch(next()?),
                lsn: Lsn(next()?),
                partition: PartitionId(next()?),
                offset: Offset(next()?),
            };
            numbers.next().is_none().then_some(position)
        })();
        position.ok_or_else(|| ParsePositionError { text: cut(text) })
    }
}

fn position_number(text: &str) -> Option<u64> {
    let is_plain = !text.is_empty() && (text.len() == 1 || !text.starts_with('0'));
    let digit = |byte: u8| DIGITS.iter().position(|digit| *digit == byte);
    let add = |sum: u64, byte| sum.checked_mul(36)?.checked_add(digit(byte)? as u64);
    is_plain.then(|| text.bytes().try_fold(0, add))?
}

/// What of a text goes into an error.
fn cut(text: &str) -> String {
    let cut = (0..=64).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..cut).unwrap_or(text).to_owned()
}

/// A number in the only form that `Display` gives it: no sign, no leading zero.
fn number<T: FromStr>(text: &str) -> Option<T> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    is_plain.then(|| text.parse().ok())?
}

/// What the last event of a stream must be for an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Expected {
    /// Whatever it is.
    Any,
    /// There is none: the stream is new, or all of its events were truncated.
    NoStream,
    /// There is one.
    Exists,
    /// It has this version.
    Version(u64),
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any version"),
            Self::NoStream => f.write_str("no stream"),
            Self::Exists => f.write_str("a stream that exists"),
            Self::Version(version) => write!(f, "version {version}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn position([epoch, lsn, partition, offset]: [u64; 4]) -> Position {
        Position { epoch: Epoch(epoch), lsn: Lsn(lsn), partition: PartitionId(partition), offset: Offset(offset) }
    }

    #[test]
    fn positions_have_one_text_of_at_most_64_bytes() {
        for (numbers, text) in [
            ([0; 4], "0-0-0-0"),
            ([35, 36, 1295, 1296], "z-10-zz-100"),
            ([u64::MAX; 4], "3w5e11264sgsf-3w5e11264sgsf-3w5e11264sgsf-3w5e11264sgsf"),
        ] {
            assert_eq!(position(numbers).to_string(), text);
            assert_eq!(text.parse(), Ok(position(numbers)));
            assert!(text.len() <= 64);
        }
        let long = "1".repeat(100);
        let wrong =
            ["", "-", "0-0-0", "0-0-0-0-0", "0-0-0-", "-0-0-0", "0-0-0-00", "0-0-0-A", "0-0-0-+1", "0-0-0-\u{e9}"];
        for text in wrong.into_iter().chain(["0-0-0-3w5e11264sgsg", &long]) {
            let error = text.parse::<Position>().unwrap_err();
            assert_eq!(error.text, text[..text.len().min(64)], "cut");
        }
    }

    properties! {
        #[test]
        fn positions_come_back(numbers in any::<[u64; 4]>(), text in "[0-9a-z-]{0,30}") {
            prop_assert_eq!(position(numbers).to_string().parse(), Ok(position(numbers)));
            if let Ok(position) = text.parse::<Position>() {
                prop_assert_eq!(position.to_string(), text);
            }
        }
    }
}
