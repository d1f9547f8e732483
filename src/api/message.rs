//! A message as the publisher makes it.

use super::check_name;
use crate::error::{Error, Result};
use crate::limits::{HEADERS_MAX, KEY_LEN_MAX};

/// What is published: a payload, and if wanted a key, headers and a partition.
///
/// An empty payload and an empty key are allowed; an empty key is a key. Encoded, a message may be as large as the store's
/// `message_bytes_max`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub(super) payload: Vec<u8>,
    pub(super) key: Option<Vec<u8>>,
    pub(super) headers: Vec<(String, Vec<u8>)>,
    pub(super) partition: Option<u32>,
}

impl Message {
    /// A message of these bytes.
    pub fn new(payload: impl Into<Vec<u8>>) -> Self {
        Self { payload: payload.into(), ..Self::default() }
    }

    /// Gives it a key of at most 64 KiB: messages of one key go to one partition, in order.
    #[must_use]
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Adds a header: a name of 1 to 255 bytes and any value. At most 1024; names may repeat.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sends it to this partition of the topic, whatever its key.
    #[must_use]
    pub fn partition(mut self, partition: u32) -> Self {
        self.partition = Some(partition);
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        let key_len = self.key.as_ref().map_or(0, Vec::len);
        if key_len > KEY_LEN_MAX {
            return Err(Error::TooLarge { what: "key", len: key_len as u64, max: KEY_LEN_MAX as u64 });
        }
        let count = self.headers.len();
        if count > HEADERS_MAX {
            return Err(Error::TooLarge { what: "count of headers", len: count as u64, max: HEADERS_MAX as u64 });
        }
        self.headers.iter().try_for_each(|(name, _)| check_name("header", name))
    }
}

impl<T: Into<Vec<u8>>> From<T> for Message {
    fn from(payload: T) -> Self {
        Self::new(payload)
    }
}
