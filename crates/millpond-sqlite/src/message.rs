//! A message on its way into the outbox, and its headers as bytes.

use crate::{Error, Result};
use millpond::limits::{HEADERS_MAX, KEY_LEN_MAX, MESSAGE_LEN_MAX, NAME_LEN_MAX};

/// A message for [`Outbox::publish`](crate::Outbox::publish): a payload, and optionally a key and headers, as in
/// [`millpond::Message`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxMessage<'a> {
    pub(crate) payload: &'a [u8],
    pub(crate) key: Option<&'a [u8]>,
    headers: Vec<(&'a str, &'a [u8])>,
}

impl<'a> OutboxMessage<'a> {
    /// Creates a message with this payload.
    pub fn new(payload: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { payload: payload.as_ref(), key: None, headers: Vec::new() }
    }

    /// Sets the key: messages of one key go to one partition, in order.
    #[must_use]
    pub fn key(mut self, key: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        self.key = Some(key.as_ref());
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &'a str, value: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        self.headers.push((name, value.as_ref()));
        self
    }

    /// Checks what no store accepts. A row that cannot be published would block its topic.
    pub(crate) fn check(&self) -> Result<()> {
        let key_len = self.key.map_or(0, <[u8]>::len);
        if key_len > KEY_LEN_MAX {
            return Err(Error::TooLarge { what: "key", len: key_len, max: KEY_LEN_MAX, unit: "bytes" });
        }
        if self.headers.len() > HEADERS_MAX {
            let (len, max) = (self.headers.len(), HEADERS_MAX);
            return Err(Error::TooLarge { what: "message", len, max, unit: "headers" });
        }
        self.headers.iter().try_for_each(|(name, _)| check_name("header", name))?;
        let header_len = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        let len = self.payload.len() + key_len + header_len;
        if len > MESSAGE_LEN_MAX {
            return Err(Error::TooLarge { what: "message", len, max: MESSAGE_LEN_MAX, unit: "bytes" });
        }
        Ok(())
    }

    /// The headers as bytes: for each the length of its name (1 byte), the name, the length of its value (4 bytes, little endian), the
    /// value. [`OutboxMessage::check`] bounds both lengths.
    pub(crate) fn header_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, value) in &self.headers {
            bytes.push(name.len() as u8);
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
            bytes.extend_from_slice(value);
        }
        bytes
    }
}

impl<'a, T: AsRef<[u8]> + ?Sized> From<&'a T> for OutboxMessage<'a> {
    fn from(payload: &'a T) -> Self {
        Self::new(payload)
    }
}

pub(crate) fn check_name(what: &'static str, name: &str) -> Result<()> {
    if (1..=NAME_LEN_MAX).contains(&name.len()) { Ok(()) } else { Err(Error::InvalidName { what, len: name.len() }) }
}

/// Reads what [`OutboxMessage::header_bytes`] wrote. `None` if the bytes are not that.
pub(crate) fn read_headers(mut bytes: &[u8]) -> Option<Vec<(&str, &[u8])>> {
    let mut headers = Vec::new();
    while let Some((name_len, rest)) = bytes.split_first() {
        let (name, rest) = rest.split_at_checked(usize::from(*name_len))?;
        let (value_len, rest) = rest.split_first_chunk()?;
        let (value, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*value_len)).ok()?)?;
        headers.push((std::str::from_utf8(name).ok()?, value));
        bytes = rest;
    }
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_and_cut_ones_do_not() {
        let message = OutboxMessage::new("").header("type", "mail").header("empty", "").header("type", "again");
        let bytes = message.header_bytes();
        assert_eq!(read_headers(&bytes).expect("they can be read"), message.headers);
        let whole = [0, 4 + 1 + 4 + 4, 2 * (1 + 4) + 4 + 4 + 5, bytes.len()];
        for len in 0..=bytes.len() {
            assert_eq!(read_headers(&bytes[..len]).is_some(), whole.contains(&len), "{len} bytes");
        }
        assert_eq!(read_headers(&[1, 0xff, 0, 0, 0, 0]), None, "a name that is no text");
    }

    #[test]
    fn what_no_store_accepts_is_refused() {
        let long = "x".repeat(NAME_LEN_MAX + 1);
        assert!(matches!(OutboxMessage::new("").header("", "").check(), Err(Error::InvalidName { len: 0, .. })));
        assert!(matches!(OutboxMessage::new("").header(&long, "").check(), Err(Error::InvalidName { len: 256, .. })));
        let key = vec![0; KEY_LEN_MAX + 1];
        assert!(OutboxMessage::new("").key(&key[1..]).check().is_ok());
        assert!(matches!(OutboxMessage::new("").key(&key).check(), Err(Error::TooLarge { what: "key", .. })));
        let many = (0..=HEADERS_MAX).fold(OutboxMessage::new(""), |message, _| message.header("n", ""));
        assert!(matches!(many.check(), Err(Error::TooLarge { unit: "headers", .. })));
        let payload = vec![0; MESSAGE_LEN_MAX + 1];
        assert!(OutboxMessage::new(&payload[1..]).check().is_ok());
        assert!(matches!(OutboxMessage::new(&payload).check(), Err(Error::TooLarge { what: "message", .. })));
    }
}
