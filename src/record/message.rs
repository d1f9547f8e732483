//! The bytes of a message: one part of a frame.
//!
//! ```text
//! flags u8              bit 0: a key, bit 1: headers; the others are zero
//! [key                  varint length, bytes]
//! [headers              varint count (not zero), then for each: varint length, name; varint length, value]
//! payload               the rest
//! ```
//!
//! An absent key differs from an empty one; no headers differ from nothing. Every message has exactly one encoding.
//! Never here: times, offsets, where a message came from (the frame's records say that), or any limit of the API.

use super::wire::{ByteReader, DecodeError, put_bytes, put_varint};

const KEY: u8 = 0x01;
const HEADERS: u8 = 0x02;
/// A header is at least the two lengths of an empty name and an empty value.
const HEADER_LEN_MIN: usize = 2;

/// Appends the bytes of a message but for its payload, which follows them as it is.
#[inline]
pub(crate) fn encode_front<'a>(
    key: Option<&[u8]>,
    headers: impl ExactSizeIterator<Item = (&'a str, &'a [u8])>,
    out: &mut Vec<u8>,
) {
    let key_flag = if key.is_some() { KEY } else { 0 };
    let headers_flag = if headers.len() > 0 { HEADERS } else { 0 };
    out.push(key_flag | headers_flag);
    if let Some(key) = key {
        put_bytes(out, key);
    }
    if headers.len() > 0 {
        put_varint(out, headers.len() as u64);
    }
    for (name, value) in headers {
        put_bytes(out, name.as_bytes());
        put_bytes(out, value);
    }
}

/// A message within its part, all of it checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MessageView<'a> {
    key: Option<&'a [u8]>,
    headers: &'a [u8],
    payload: &'a [u8],
}

impl<'a> MessageView<'a> {
    /// The message that `part` holds.
    pub(crate) fn parse(part: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = ByteReader::new(part);
        let flags = reader.byte()?;
        if flags & !(KEY | HEADERS) != 0 {
            return Err(DecodeError::Invalid("a message has an unknown flag"));
        }
        let key = if flags & KEY != 0 { Some(reader.bytes()?) } else { None };
        let headers = if flags & HEADERS != 0 { Self::parse_headers(&mut reader)? } else { &[] };
        Ok(Self { key, headers, payload: reader.rest() })
    }

    fn parse_headers(reader: &mut ByteReader<'a>) -> Result<&'a [u8], DecodeError> {
        let count = reader.count(HEADER_LEN_MIN)?;
        if count == 0 {
            return Err(DecodeError::Invalid("a message without headers says that it has some"));
        }
        let region = reader.rest();
        for _ in 0..count {
            reader.str()?;
            reader.bytes()?;
        }
        Ok(&region[..region.len() - reader.remaining()])
    }

    pub(crate) fn key(&self) -> Option<&'a [u8]> {
        self.key
    }

    /// Names and values, in the order in which they were given; a name may come twice.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        let mut reader = ByteReader::new(self.headers);
        // `parse` has read this region to its end, so the first error is the end.
        std::iter::from_fn(move || Some((reader.str().ok()?, reader.bytes().ok()?)))
    }

    pub(crate) fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// The hash of a key: which partition its messages go to, and which messages are ordered among each other.
///
/// A constant of the format, since a key must reach the partition that it always reached: FNV-1a with 64 bits, then the
/// finalizer of SplitMix64, for FNV alone leaves the low bits of short keys badly mixed.
pub(crate) fn key_hash(key: &[u8]) -> u64 {
    let fnv = key
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    splitmix(fnv)
}

/// The finalizer of SplitMix64: every bit of the result depends on every bit of `x`. A constant of the format.
pub(crate) fn splitmix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn bytes_of(key: Option<&[u8]>, headers: &[(String, Vec<u8>)], payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode_front(key, headers.iter().map(|(name, value)| (&name[..], &value[..])), &mut out);
        out.extend_from_slice(payload);
        out
    }

    #[test]
    fn golden_messages() {
        let headers = [("type".to_owned(), b"A".to_vec()), ("".to_owned(), vec![])];
        assert_eq!(bytes_of(None, &[], b"hi"), b"\x00hi");
        assert_eq!(bytes_of(Some(b""), &[], b"hi"), b"\x01\x00hi");
        assert_eq!(bytes_of(Some(b"k"), &[], b""), b"\x01\x01k");
        assert_eq!(bytes_of(None, &headers, b"hi"), b"\x02\x02\x04type\x01A\x00\x00hi");
        assert_eq!(bytes_of(Some(b"k"), &headers, b"hi"), b"\x03\x01k\x02\x04type\x01A\x00\x00hi");
    }

    #[test]
    fn an_absent_key_is_not_an_empty_one() {
        assert_eq!(MessageView::parse(b"\x00").unwrap().key(), None);
        assert_eq!(MessageView::parse(b"\x01\x00").unwrap().key(), Some(&b""[..]));
    }

    #[test]
    fn what_no_writer_writes_is_refused() {
        for part in [&b""[..], b"\x04", b"\x80", b"\x01", b"\x01\x02k", b"\x02", b"\x02\x00", b"\x02\x01\x01\xff\x00"] {
            assert!(MessageView::parse(part).is_err(), "{part:02x?}");
        }
        // 2^62 headers in a few bytes
        let many = b"\x02\x80\x80\x80\x80\x80\x80\x80\x80\x40\x00\x00";
        assert_eq!(MessageView::parse(many), Err(DecodeError::Truncated));
    }

    /// Worked out apart from this code. They may never change.
    #[test]
    fn golden_key_hashes() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(key_hash(b""), 0xf52a_15e9_a9b5_e89b);
        assert_eq!(key_hash(b"a"), 0x02c0_bdbf_4814_20f8);
        assert_eq!(key_hash(b"customer-789"), 0x12ba_0dea_d6aa_611f);
        assert_eq!(key_hash(&all), 0xef26_87f0_d437_1fe2);
    }

    #[test]
    fn short_keys_spread_over_a_few_partitions() {
        for partitions in [2u64, 3, 4, 7, 16] {
            let mut counts = vec![0u32; partitions as usize];
            for key in 0..4096u32 {
                counts[(key_hash(key.to_string().as_bytes()) % partitions) as usize] += 1;
            }
            let fair = 4096 / partitions as u32;
            assert!(counts.iter().all(|&count| count > fair / 2 && count < fair * 2), "{counts:?}");
        }
    }

    properties! {
        #[test]
        fn a_message_comes_back(
            key in proptest::option::of(vec(any::<u8>(), 0..200)),
            headers in vec(("\\PC{0,20}", vec(any::<u8>(), 0..40)), 0..5),
            payload in vec(any::<u8>(), 0..100),
        ) {
            let part = bytes_of(key.as_deref(), &headers, &payload);
            let view = MessageView::parse(&part).unwrap();
            prop_assert_eq!(view.key(), key.as_deref());
            prop_assert_eq!(view.payload(), &payload[..]);
            let read: Vec<_> = view.headers().map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
            prop_assert_eq!(read, headers);
        }

        #[test]
        fn any_bytes_are_refused_or_are_what_they_would_be_written_as(
            flags in 0u8..5, mut part in vec(0u8..6, 1..60),
        ) {
            part[0] = flags;
            if let Ok(view) = MessageView::parse(&part) {
                let headers: Vec<_> = view.headers().map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
                prop_assert_eq!(bytes_of(view.key(), &headers, view.payload()), part);
            }
        }
    }
}
