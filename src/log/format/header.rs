//! The header page that every segment, file of a class and checkpoint begins with.
//!
//! It says what the file is, whose it is and, for a file that was written whole, what it holds. It is written last, so that a file
//! without a valid header does not exist. Never here: frames, and what a checkpoint holds.

use crate::ids::{Epoch, FileNumber, Lsn};
use crate::log::format::bytes::ByteCursor;
use crate::log::format::checksum::crc;
use crate::log::format::class::Class;
use crate::log::format::name::FileName;

/// The newest format of any file that this code writes and reads.
pub(crate) const FORMAT: u32 = 2;
/// The bytes of a header; a segment's first frame follows.
pub(crate) const HEADER_LEN: usize = 128;
/// Like PNG's: a byte with its high bit set, and line ends that a text transfer would change.
pub(crate) const MAGIC: [u8; 8] = *b"\x89SEG\r\n\x1a\n";
const CRC_AT: usize = HEADER_LEN - 4;

/// The lineage of a store: all its files have it, and those of its copies.
pub(crate) type Uuid = [u8; 16];

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// A segment: filled by appends, or by recovery with a copy of what was appended. Places tell the LSNs of its frames.
    Appended,
    /// Messages, written whole; each frame carries its LSN.
    Messages,
    /// A checkpoint.
    Checkpoint,
    /// Dead letters, written whole; each frame carries its LSN.
    DeadLetters,
}

impl FileKind {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Appended => 1,
            Self::Messages => 2,
            Self::Checkpoint => 3,
            Self::DeadLetters => 4,
        }
    }

    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Appended),
            2 => Some(Self::Messages),
            3 => Some(Self::Checkpoint),
            4 => Some(Self::DeadLetters),
            _ => None,
        }
    }

    /// The class that a file of this kind alone holds.
    pub(crate) const fn class(self) -> Option<Class> {
        match self {
            Self::Messages => Some(Class::Messages),
            Self::DeadLetters => Some(Class::DeadLetters),
            Self::Appended | Self::Checkpoint => None,
        }
    }

    /// The kind of the files of a class.
    pub(crate) const fn of(class: Class) -> Self {
        match class {
            Class::Messages => Self::Messages,
            Class::DeadLetters => Self::DeadLetters,
        }
    }

    pub(crate) const fn name(self, number: FileNumber) -> FileName {
        match self {
            Self::Appended => FileName::Segment(number),
            Self::Messages => FileName::Messages(number),
            Self::Checkpoint => FileName::Checkpoint(number),
            Self::DeadLetters => FileName::DeadLetters(number),
        }
    }
}

/// A header's fields. In a segment that is filled by appends all from `from` on are zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileHeader {
    pub(crate) kind: FileKind,
    pub(crate) uuid: Uuid,
    pub(crate) number: FileNumber,
    /// Random, so that bytes of another file never validate in this one.
    pub(crate) salt: u64,
    /// A file of a class holds the range `from..to`, and so does a segment that is a copy; a checkpoint covers the log below `to`.
    pub(crate) from: Lsn,
    pub(crate) to: Lsn,
    /// Of a file of a class: one more than the highest of those that it takes the place of.
    pub(crate) generation: u32,
    /// The length of what follows the header: frames, or a checkpoint's state.
    pub(crate) body_len: u64,
    pub(crate) body_crc: u32,
    /// The length of what follows the body: the epochs of a file of a class, or a checkpoint's list of files.
    pub(crate) table_len: u64,
    pub(crate) table_crc: u32,
    /// Of a segment that is a copy: that of its frames. Else zero.
    pub(crate) epoch: Epoch,
}

/// What the first bytes of a file are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HeaderRead {
    Valid(FileHeader),
    /// Proven by its checksum, but of a format that this code does not know.
    Newer {
        format: u32,
    },
    /// Not written to its end, or damaged.
    Invalid,
}

impl FileHeader {
    /// The header of a segment that will be appended to.
    pub(crate) const fn appended(uuid: Uuid, number: FileNumber, salt: u64) -> Self {
        Self {
            kind: FileKind::Appended,
            uuid,
            number,
            salt,
            from: Lsn(0),
            to: Lsn(0),
            generation: 0,
            body_len: 0,
            body_crc: 0,
            table_len: 0,
            table_crc: 0,
            epoch: Epoch(0),
        }
    }

    /// Whether the file is a segment that recovery made: a copy of `from..to`.
    pub(crate) fn is_copy(&self) -> bool {
        self.kind == FileKind::Appended && self.from < self.to
    }

    pub(crate) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = Vec::with_capacity(HEADER_LEN);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&u32::from(self.kind.code()).to_le_bytes());
        out.extend_from_slice(&self.uuid);
        for field in [self.number.0, self.salt, self.from.0, self.to.0, self.body_len, self.table_len] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        for field in [self.generation, self.body_crc, self.table_crc] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&self.epoch.0.to_le_bytes());
        let mut page = [0; HEADER_LEN];
        let (fields, _) = page.split_at_mut(out.len());
        fields.copy_from_slice(&out);
        let sum = crc(0, &page[..CRC_AT]);
        page[CRC_AT..].copy_from_slice(&sum.to_le_bytes());
        page
    }

    pub(crate) fn decode(bytes: &[u8]) -> HeaderRead {
        Self::try_decode(bytes).unwrap_or(HeaderRead::Invalid)
    }

    fn try_decode(bytes: &[u8]) -> Option<HeaderRead> {
        let page = bytes.get(..HEADER_LEN)?;
        let (covered, sum) = page.split_at(CRC_AT);
        if !covered.starts_with(&MAGIC) || sum != crc(0, covered).to_le_bytes() {
            return None;
        }
        let mut cursor = ByteCursor::new(covered);
        cursor.take(MAGIC.len())?;
        let format = cursor.u32()?;
        if format != FORMAT {
            return Some(HeaderRead::Newer { format });
        }
        let kind = FileKind::from_code(u8::try_from(cursor.u32()?).ok()?)?;
        let uuid = cursor.array()?;
        let (number, salt) = (FileNumber(cursor.u64()?), cursor.u64()?);
        let (from, to) = (Lsn(cursor.u64()?), Lsn(cursor.u64()?));
        let (body_len, table_len) = (cursor.u64()?, cursor.u64()?);
        let (generation, body_crc, table_crc) = (cursor.u32()?, cursor.u32()?, cursor.u32()?);
        let epoch = Epoch(cursor.u64()?);
        Some(HeaderRead::Valid(Self {
            kind,
            uuid,
            number,
            salt,
            from,
            to,
            generation,
            body_len,
            body_crc,
            table_len,
            table_crc,
            epoch,
        }))
    }

    /// Where the table begins, and where the file ends; `None` where the lengths are absurd.
    pub(crate) fn extent(&self) -> Option<(u64, u64)> {
        let table_at = (HEADER_LEN as u64).checked_add(self.body_len)?;
        Some((table_at, table_at.checked_add(self.table_len)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> FileHeader {
        FileHeader {
            kind: FileKind::Messages,
            uuid: *b"0123456789abcdef",
            number: FileNumber(0x1122),
            salt: 0x3344_5566_7788_99aa,
            from: Lsn(4096),
            to: Lsn(8192),
            generation: 3,
            body_len: 4200,
            body_crc: 0xdead_beef,
            table_len: 20,
            table_crc: 0xfeed_f00d,
            epoch: Epoch(0x1234),
        }
    }

    #[test]
    fn golden() {
        let hex: String = sample().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            concat!(
                "895345470d0a1a0a",
                "02000000",
                "02000000",
                "30313233343536373839616263646566",
                "2211000000000000",
                "aa99887766554433",
                "0010000000000000",
                "0020000000000000",
                "6810000000000000",
                "1400000000000000",
                "03000000",
                "efbeadde",
                "0df0edfe",
                "3412000000000000",
                "000000000000000000000000000000000000000000000000",
                "3a9a53f4"
            )
        );
    }

    #[test]
    fn comes_back_and_any_changed_bit_is_found() {
        let page = sample().encode();
        assert_eq!(FileHeader::decode(&page), HeaderRead::Valid(sample()));
        for bit in 0..HEADER_LEN * 8 {
            let mut damaged = page;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FileHeader::decode(&damaged), HeaderRead::Invalid, "bit {bit}");
        }
        for len in 0..HEADER_LEN {
            assert_eq!(FileHeader::decode(&page[..len]), HeaderRead::Invalid);
        }
        assert_eq!(FileHeader::decode(&[0; HEADER_LEN]), HeaderRead::Invalid);
    }

    #[test]
    fn a_newer_format_is_told_apart_from_damage() {
        let mut page = sample().encode();
        page[8] = 3;
        let sum = crc(0, &page[..CRC_AT]);
        page[CRC_AT..].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(FileHeader::decode(&page), HeaderRead::Newer { format: 3 });
    }
}
