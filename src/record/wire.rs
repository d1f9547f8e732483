//! The integers and strings of the formats above the log: canonical LEB128 varints, lengths before bytes.
//!
//! Every value has exactly one encoding, so equal facts have equal bytes. Reading never panics and allocates nothing;
//! a caller that collects what it read checks the count against [`ByteReader::remaining`] first. Never here: what the numbers mean.

use std::fmt;

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DecodeError {
    /// The bytes end within a value.
    Truncated,
    /// A number is longer than it needs to be, or does not fit.
    BadNumber,
    /// A number that a newer version gave a meaning: it may not be skipped, since it may change what follows.
    Newer(Newer),
    /// The parts are there but no writer puts them together so.
    Invalid(&'static str),
}

/// What a newer version wrote: a number of something, above the highest that this version knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Newer {
    pub(crate) what: &'static str,
    pub(crate) number: u64,
    pub(crate) known_max: u64,
}

impl fmt::Display for Newer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.what, self.number)
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("the bytes end within a value"),
            Self::BadNumber => f.write_str("a number is not in its one valid form"),
            Self::Newer(newer) => write!(f, "{newer} is unknown to this version"),
            Self::Invalid(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Appends `value` in groups of seven bits, the lowest first.
#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, value: u64) {
    if value < 0x80 {
        out.push(value as u8);
    } else {
        put_long_varint(out, value);
    }
}

fn put_long_varint(out: &mut Vec<u8>, mut value: u64) {
    if value < 1 << 56 {
        return put_eight_groups(out, value);
    }
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// What has at most eight groups, all at once: each group moves to a byte of its own.
#[inline]
fn put_eight_groups(out: &mut Vec<u8>, value: u64) {
    let bytes = (value & 0x0fff_ffff) | ((value & 0x00ff_ffff_f000_0000) << 4);
    let bytes = (bytes & 0x0000_3fff_0000_3fff) | ((bytes & 0x0fff_c000_0fff_c000) << 2);
    let bytes = (bytes & 0x007f_007f_007f_007f) | ((bytes & 0x3f80_3f80_3f80_3f80) << 1);
    let unused = bytes.leading_zeros() / 8;
    let all_but_the_last = 0x0080_8080_8080_8080_u64.unbounded_shr(8 * unused);
    out.extend_from_slice(&(bytes | all_but_the_last).to_le_bytes());
    out.truncate(out.len() - unused as usize);
}

/// Appends a number that may be below zero: 0, -1, 1, -2 … as 0, 1, 2, 3 …
pub(crate) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Appends a length and the bytes.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a length and what `body` appends. One byte is kept for the length, so that a short body is written where it stays.
#[inline(always)]
pub(crate) fn put_delimited(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.push(0);
    body(out);
    let len = out.len() - at - 1;
    match out.get_mut(at) {
        // seam: a long length is cut
        Some(byte) if len < 0x80 => *byte = len as u8,
        _ => lengthen(out, at, len),
    }
}

/// Puts a length of several bytes in place of the one that was kept for it.
#[cold]
fn lengthen(out: &mut Vec<u8>, at: usize, len: usize) {
    let body = out.split_off(at + 1);
    out.truncate(at);
    put_varint(out, len as u64);
    out.extend_from_slice(&body);
}

/// What is left to read.
#[derive(Clone, Debug)]
pub(crate) struct ByteReader<'a> {
    rest: &'a [u8],
}

impl<'a> ByteReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes are left: no honest count of anything is greater.
    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Everything that is left.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(crate) fn byte(&mut self) -> Result<u8, DecodeError> {
        let (&byte, rest) = self.rest.split_first().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(byte)
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, DecodeError> {
        match self.rest.split_first() {
            Some((&byte, rest)) if byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, DecodeError> {
        if let Some(word) = self.rest.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)) {
            let last = !word & 0x8080_8080_8080_8080;
            if last != 0 {
                return self.eight_groups(word, last.trailing_zeros() / 8 + 1);
            }
        }
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(DecodeError::BadNumber);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                let overlong = byte == 0 && shift > 0;
                return if overlong { Err(DecodeError::BadNumber) } else { Ok(value) };
            }
        }
        Err(DecodeError::BadNumber)
    }

    /// What has at most eight groups, all at once: the first `len` bytes of `word`, each of which gives up its highest bit.
    #[inline]
    fn eight_groups(&mut self, word: u64, len: u32) -> Result<u64, DecodeError> {
        self.take(len as usize)?;
        let bytes = word & (u64::MAX >> (64 - 8 * len));
        if len > 1 && bytes >> (8 * (len - 1)) == 0 {
            return Err(DecodeError::BadNumber);
        }
        let bytes = bytes & 0x7f7f_7f7f_7f7f_7f7f;
        let bytes = (bytes & 0x007f_007f_007f_007f) | ((bytes & 0x7f00_7f00_7f00_7f00) >> 1);
        let bytes = (bytes & 0x0000_3fff_0000_3fff) | ((bytes & 0x3fff_0000_3fff_0000) >> 2);
        Ok((bytes & 0x0fff_ffff) | ((bytes & 0x0fff_ffff_0000_0000) >> 4))
    }

    /// A number that may be below zero.
    pub(crate) fn signed(&mut self) -> Result<i64, DecodeError> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// An array of bytes, of this length always.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    #[inline]
    pub(crate) fn varint_u32(&mut self) -> Result<u32, DecodeError> {
        u32::try_from(self.varint()?).map_err(|_| DecodeError::BadNumber)
    }

    /// A count of things that take at least `len_min` bytes each, all still to be read.
    pub(crate) fn count(&mut self, len_min: usize) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.varint()?).map_err(|_| DecodeError::Truncated)?;
        let needed = count.checked_mul(len_min).ok_or(DecodeError::Truncated)?;
        if needed > self.remaining() { Err(DecodeError::Truncated) } else { Ok(count) }
    }

    /// A length and that many bytes.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.count(1)?;
        self.take(len)
    }

    pub(crate) fn str(&mut self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| DecodeError::Invalid("a text is not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_shortest_form_is_the_only_one() {
        for bytes in [&[0x80, 0x00][..], &[0xff, 0x80, 0x00], &[0x80; 11]] {
            assert!(ByteReader::new(bytes).varint().is_err(), "{bytes:02x?}");
        }
    }

    #[test]
    fn the_greatest_number_fits_and_one_more_does_not() {
        let mut out = Vec::new();
        put_varint(&mut out, u64::MAX);
        assert_eq!(out, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
        assert_eq!(ByteReader::new(&out).varint(), Ok(u64::MAX));
        out[9] = 0x02;
        assert_eq!(ByteReader::new(&out).varint(), Err(DecodeError::BadNumber));
        out[9] = 0x81;
        out.push(0);
        assert_eq!(ByteReader::new(&out).varint(), Err(DecodeError::BadNumber));
    }

    #[test]
    fn a_count_beyond_the_bytes_is_refused_before_anything_is_made() {
        let mut out = Vec::new();
        put_varint(&mut out, u64::MAX);
        assert_eq!(ByteReader::new(&out).count(8), Err(DecodeError::Truncated));
        assert_eq!(ByteReader::new(&[3, 1, 2]).count(1), Err(DecodeError::Truncated));
        assert_eq!(ByteReader::new(&[2, 1, 2]).count(1), Ok(2));
    }

    properties! {
        #[test]
        fn a_number_comes_back(value: u64, shift in 0u32..64, behind in proptest::collection::vec(any::<u8>(), 0..10)) {
            let value = value >> shift;
            let mut out = Vec::new();
            put_varint(&mut out, value);
            out.extend(&behind);
            let mut reader = ByteReader::new(&out);
            prop_assert_eq!(reader.varint(), Ok(value));
            prop_assert_eq!(reader.rest(), &behind[..]);
        }

        #[test]
        fn two_forms_never_give_one_number(bytes in proptest::collection::vec(any::<u8>(), 1..12)) {
            let mut reader = ByteReader::new(&bytes);
            if let Ok(value) = reader.varint() {
                let mut out = Vec::new();
                put_varint(&mut out, value);
                prop_assert_eq!(&out[..], &bytes[..bytes.len() - reader.remaining()]);
            }
        }
    }
}
