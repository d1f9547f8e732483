//! A message as the publisher makes it.

use super::{check_name, millis};
use crate::engine::{Later, WhilePending};
use crate::error::{Error, Result};
use crate::ids::WallMs;
use crate::limits::{DEDUP_ID_LEN_MAX, DURATION_MS_MAX, HEADERS_MAX, KEY_LEN_MAX};
use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What is published: a payload, and if wanted a key, headers and a partition.
///
/// An empty payload and an empty key are allowed; an empty key is a key. Encoded, a message may be as large as the store's
/// `message_bytes_max`. What it is made of may be borrowed: publishing copies it once, into the log.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Message<'a> {
    pub(super) payload: Bytes<'a>,
    pub(super) key: Option<Bytes<'a>>,
    pub(super) headers: Vec<(Cow<'a, str>, Bytes<'a>)>,
    pub(super) dedup_id: Option<Bytes<'a>>,
    pub(super) unique_key: Option<(Bytes<'a>, WhilePending)>,
    pub(super) partition: Option<u32>,
    pub(super) wanted: Option<Wanted>,
}

/// When it is wanted, if that is not at once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    After(Duration),
    At(SystemTime),
    /// Both were given.
    Contradiction,
}

impl<'a> Message<'a> {
    /// A message of these bytes.
    pub fn new(payload: impl Into<Bytes<'a>>) -> Self {
        Self { payload: payload.into(), ..Self::default() }
    }

    /// Gives it a key of at most 64 KiB: messages of one key go to one partition, in order.
    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes<'a>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Adds a header: a name of 1 to 255 bytes and any value. At most 1024; names may repeat.
    #[must_use]
    pub fn header(mut self, name: impl Into<Cow<'a, str>>, value: impl Into<Bytes<'a>>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sends it to this partition of the topic, whatever its key.
    #[must_use]
    pub fn partition(mut self, partition: u32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Gives it an id of 1 to 1,024 bytes under which its topic accepts it once. While the topic remembers the id
    /// ([`TopicBuilder::dedup_ids`](crate::TopicBuilder::dedup_ids)), a publish of the same message under it publishes nothing and gives the
    /// first one's receipt, whatever has become of that message.
    ///
    /// ```
    /// # use millpond::{Message, Store};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let store = Store::open(directory.path().join("data"))?;
    /// let orders = store.topic("orders").open()?;
    /// let first = orders.publish(Message::new("two pizzas").dedup_id("o-12"))?;
    /// let again = orders.publish(Message::new("two pizzas").dedup_id("o-12"))?;
    /// assert!(again.is_repeat() && again.id() == first.id());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn dedup_id(mut self, id: impl Into<Bytes<'a>>) -> Self {
        self.dedup_id = Some(id.into());
        self
    }

    /// Gives it a unique key of 1 to 1,024 bytes: of the messages of its topic that have the key, one at a time is pending. It is pending until
    /// every group has acknowledged it or given it up as a dead letter, so through all its retries, and while it waits for its time. In a topic
    /// without groups it is pending as long as the topic keeps it. `while_pending` says what a publish under the key does meanwhile. A dead
    /// letter that is redriven has no key.
    ///
    /// What is acknowledged in the transaction that publishes under its key is still pending. A key is given to one message of a batch or a
    /// transaction ([`Error::InvalidOption`](crate::Error::InvalidOption)). At most 1,048,576 messages with a key are
    /// pending in a store ([`Error::LimitReached`]). A crash leaves the key with the message that was published under it, or with none.
    ///
    /// ```
    /// # use millpond::{Error, Message, Store, WhilePending};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let store = Store::open(directory.path().join("data"))?;
    /// let jobs = store.topic("jobs").open()?;
    /// let job = |text| Message::new(text).unique_key("thumbnail-7", WhilePending::Reject);
    /// let first = jobs.publish(job("make a thumbnail"))?;
    /// let again = jobs.publish(job("make it again")).unwrap_err();
    /// assert!(matches!(again, Error::KeyPending { pending, .. } if pending == first.id()));
    ///
    /// let newer = Message::new("make it of this one").unique_key("thumbnail-7", WhilePending::Replace);
    /// jobs.publish(newer)?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn unique_key(mut self, key: impl Into<Bytes<'a>>, while_pending: WhilePending) -> Self {
        self.unique_key = Some((key.into(), while_pending));
        self
    }

    /// Lets no consumer have it before this long from now: ten years at most, rounded up to milliseconds. Jumps of the wall clock make it
    /// neither shorter nor longer, as far as the store is open. While it is open and idle the message comes at most 20 ms late.
    ///
    /// The receipt's id is what [`Topic::cancel_scheduled`](crate::Topic::cancel_scheduled) takes, and the
    /// [`Delivery::origin`](crate::Delivery::origin) of its deliveries: it gets a place in its partition, and a further id, when it is due.
    ///
    /// ```
    /// # use millpond::{Message, Store};
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let store = Store::open(directory.path().join("data"))?;
    /// let mails = store.topic("mails").open()?;
    /// let reminder = mails.publish(Message::new("how was the pizza?").delay(Duration::from_secs(86_400)))?;
    /// assert_eq!(mails.scheduled(None, 10)?.len(), 1);
    /// mails.cancel_scheduled(reminder.id())?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.wanted = Some(if self.wanted.is_none() { Wanted::After(delay) } else { Wanted::Contradiction });
        self
    }

    /// Lets no consumer have it before this time, at most ten years from now, by the wall clock: if that jumps, the message follows. A time
    /// that has passed is now. Else as [`Message::delay`], which cannot be given as well.
    #[must_use]
    pub fn deliver_at(mut self, time: SystemTime) -> Self {
        self.wanted = Some(if self.wanted.is_none() { Wanted::At(time) } else { Wanted::Contradiction });
        self
    }

    /// When it is to be delivered, if that is not at once.
    pub(super) fn later(&self, wall: WallMs) -> Result<Option<Later>> {
        match self.wanted {
            None => Ok(None),
            Some(Wanted::After(delay)) => Ok(Some(millis("delay", delay)?).filter(|ms| *ms > 0).map(Later::In)),
            Some(Wanted::At(time)) => later_at(time, wall),
            Some(Wanted::Contradiction) => Err(Error::InvalidOption {
                option: "delay and deliver_at",
                value: "given twice".to_owned(),
                expected: "one of the two, once",
            }),
        }
    }

    #[inline]
    pub(super) fn check(&self) -> Result<()> {
        let key_len = self.key.as_ref().map_or(0, |key| key.as_slice().len());
        if key_len > KEY_LEN_MAX {
            return Err(Error::TooLarge { what: "key", len: key_len as u64, max: KEY_LEN_MAX as u64, unit: "bytes" });
        }
        let count = self.headers.len();
        if count > HEADERS_MAX {
            return Err(Error::TooLarge {
                what: "message",
                len: count as u64,
                max: HEADERS_MAX as u64,
                unit: "headers",
            });
        }
        if let Some(id) = &self.dedup_id {
            check_id(("dedup_id", "dedup id"), id.as_slice())?;
        }
        if let Some((key, _)) = &self.unique_key {
            check_id(("unique_key", "unique key"), key.as_slice())?;
        }
        self.headers.iter().try_for_each(|(name, _)| check_name("header", name))
    }
}

/// At this time, unless that has passed.
pub(super) fn later_at(time: SystemTime, wall: WallMs) -> Result<Option<Later>> {
    // Never early: rounded up.
    let ms = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos().div_ceil(1_000_000));
    match u64::try_from(ms) {
        Ok(ms) if ms <= wall.0 => Ok(None),
        Ok(ms) if ms - wall.0 <= DURATION_MS_MAX => Ok(Some(Later::At(WallMs(ms)))),
        Ok(_) | Err(_) => Err(Error::InvalidOption {
            option: "deliver_at",
            value: format!("{time:?}"),
            expected: "at most ten years from now",
        }),
    }
}

fn check_id((option, what): (&'static str, &'static str), id: &[u8]) -> Result<()> {
    match id.len() {
        0 => Err(Error::InvalidOption { option, value: "empty".to_owned(), expected: "1 to 1,024 bytes" }),
        1..=DEDUP_ID_LEN_MAX => Ok(()),
        len => {
            let (len, max) = (len as u64, DEDUP_ID_LEN_MAX as u64);
            Err(Error::TooLarge { what, len, max, unit: "bytes" })
        }
    }
}

impl<'a, T: Into<Bytes<'a>>> From<T> for Message<'a> {
    fn from(payload: T) -> Self {
        Self::new(payload)
    }
}

/// Bytes that are borrowed or owned: whatever can be turned into this can be a payload, a key or a header's value.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Bytes<'a>(Cow<'a, [u8]>);

impl Bytes<'_> {
    pub(super) fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

impl<'a> From<&'a [u8]> for Bytes<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self(Cow::Borrowed(bytes))
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Bytes<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self(Cow::Borrowed(bytes))
    }
}

impl<'a> From<&'a Vec<u8>> for Bytes<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self(Cow::Borrowed(bytes))
    }
}

impl<'a> From<&'a str> for Bytes<'a> {
    fn from(text: &'a str) -> Self {
        Self(Cow::Borrowed(text.as_bytes()))
    }
}

impl<'a> From<&'a String> for Bytes<'a> {
    fn from(text: &'a String) -> Self {
        Self(Cow::Borrowed(text.as_bytes()))
    }
}

impl<'a> From<Cow<'a, [u8]>> for Bytes<'a> {
    fn from(bytes: Cow<'a, [u8]>) -> Self {
        Self(bytes)
    }
}

impl From<Vec<u8>> for Bytes<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Cow::Owned(bytes))
    }
}

impl From<Box<[u8]>> for Bytes<'_> {
    fn from(bytes: Box<[u8]>) -> Self {
        Self(Cow::Owned(bytes.into_vec()))
    }
}

impl From<String> for Bytes<'_> {
    fn from(text: String) -> Self {
        Self(Cow::Owned(text.into_bytes()))
    }
}

impl<const N: usize> From<[u8; N]> for Bytes<'_> {
    fn from(bytes: [u8; N]) -> Self {
        Self(Cow::Owned(bytes.to_vec()))
    }
}
