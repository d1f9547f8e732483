//! The bytes of `STORE`: whose store this is, and how far it had come.
//!
//! ```text
//! 0      identity: magic, u32 format, u32 compat, u32 ro_compat, u32 incompat, 16 bytes uuid, u32 CRC
//! 4096   slot A, written where the sequence number is even
//! 8192   slot B, written where it is odd: u64 sequence, epoch, clean, watermark, newest segment, newest checkpoint, u32 CRC
//! 12288  the owner's process id, which belongs to the disk layer
//! ```
//! A slot is overwritten only while the other one is certain. The identity keeps its layout in every format, so that a
//! later one can be recognised. Never here: I/O, decisions.

use super::bytes::{Cursor, u32_at};
use super::header::{FORMAT, Uuid};
use super::mix;
use crate::ids::{Epoch, FileNumber, Lsn};

/// The length of the file.
pub(crate) const STORE_LEN: u64 = 16 << 10;
/// Where the process id begins: up to there the file belongs to the log.
pub(crate) const OWNED_LEN: usize = 12 << 10;
const MAGIC: [u8; 8] = *b"\x89PND\r\n\x1a\n";
const IDENTITY_LEN: usize = 8 + 4 * 4 + 16;
const SLOT_LEN: usize = 6 * 8;

/// What the first page says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    Valid(Uuid),
    /// Proven by its checksum, but with a format or features that this code does not know.
    Newer {
        format: u32,
        features: u32,
    },
    /// Not laid out to the end, or damaged.
    Invalid,
}

impl Identity {
    /// The first page of a store.
    pub(crate) fn encode(uuid: &Uuid) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for word in [FORMAT, 0, 0, 0] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(uuid);
        let sum = mix::crc(0, &out);
        out.extend_from_slice(&sum.to_le_bytes());
        out
    }

    pub(crate) fn decode(file: &[u8]) -> Self {
        Self::try_decode(file).unwrap_or(Self::Invalid)
    }

    fn try_decode(file: &[u8]) -> Option<Self> {
        let covered = file.get(..IDENTITY_LEN)?;
        if !covered.starts_with(&MAGIC) || u32_at(file, IDENTITY_LEN)? != mix::crc(0, covered) {
            return None;
        }
        let mut cursor = Cursor::new(covered);
        cursor.take(MAGIC.len())?;
        let format = cursor.u32()?;
        let (_compat, ro_compat, incompat) = (cursor.u32()?, cursor.u32()?, cursor.u32()?);
        // Only a writer opens a log here, so features that forbid writing forbid opening.
        let features = ro_compat | incompat;
        if format != FORMAT || features != 0 {
            return Some(Self::Newer { format, features });
        }
        cursor.array().map(Self::Valid)
    }
}

/// How far the store had come when the slot was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) sequence: u64,
    /// The highest epoch that any process may have appended under.
    pub(crate) epoch: Epoch,
    /// Whether the log ended at the watermark, and nothing has been appended since.
    pub(crate) clean: bool,
    pub(crate) watermark: Lsn,
    /// The newest appended segment, or 0: it is durable, header and name.
    pub(crate) newest_segment: FileNumber,
    /// The newest checkpoint, or 0: it is durable.
    pub(crate) newest_checkpoint: FileNumber,
}

impl Slot {
    /// Where the slot with this sequence number stands.
    pub(crate) const fn position(sequence: u64) -> u64 {
        if sequence.is_multiple_of(2) { 4 << 10 } else { 8 << 10 }
    }

    pub(crate) fn encode(&self, uuid: &Uuid) -> Vec<u8> {
        let mut out = Vec::with_capacity(SLOT_LEN + 4);
        let (epoch, clean, watermark) = (self.epoch.0, u64::from(self.clean), self.watermark.0);
        for field in [self.sequence, epoch, clean, watermark, self.newest_segment.0, self.newest_checkpoint.0] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        let sum = mix::crc(seed(uuid, Self::position(self.sequence)), &out);
        out.extend_from_slice(&sum.to_le_bytes());
        out
    }

    /// The slot at `position` of the file, if it is valid.
    pub(crate) fn decode(file: &[u8], uuid: &Uuid, position: u64) -> Option<Self> {
        let page = file.get(usize::try_from(position).ok()?..)?;
        let covered = page.get(..SLOT_LEN)?;
        if u32_at(page, SLOT_LEN)? != mix::crc(seed(uuid, position), covered) {
            return None;
        }
        let mut cursor = Cursor::new(covered);
        let (sequence, epoch, clean) = (cursor.u64()?, Epoch(cursor.u64()?), cursor.u64()?);
        let slot = Self {
            sequence,
            epoch,
            clean: clean == 1,
            watermark: Lsn(cursor.u64()?),
            newest_segment: FileNumber(cursor.u64()?),
            newest_checkpoint: FileNumber(cursor.u64()?),
        };
        (clean <= 1 && Self::position(sequence) == position).then_some(slot)
    }

    /// Both slots as they are in the file.
    pub(crate) fn both(file: &[u8], uuid: &Uuid) -> [Option<Self>; 2] {
        [0, 1].map(|sequence| Self::decode(file, uuid, Self::position(sequence)))
    }
}

/// A slot of another store, or at the other position, is no slot.
fn seed(uuid: &Uuid, position: u64) -> u32 {
    mix::crc(mix::low(mix::step(position)), uuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: Uuid = *b"0123456789abcdef";

    fn slot(sequence: u64) -> Slot {
        Slot {
            sequence,
            epoch: Epoch(3),
            clean: true,
            watermark: Lsn(4096),
            newest_segment: FileNumber(7),
            newest_checkpoint: FileNumber(5),
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn file(slots: &[Slot]) -> Vec<u8> {
        let mut file = vec![0; STORE_LEN as usize];
        let identity = Identity::encode(&UUID);
        file[..identity.len()].copy_from_slice(&identity);
        for slot in slots {
            let (at, bytes) = (Slot::position(slot.sequence) as usize, slot.encode(&UUID));
            file[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        file
    }

    #[test]
    fn golden() {
        assert_eq!(
            hex(&Identity::encode(&UUID)),
            "89504e440d0a1a0a0100000000000000000000000000000030313233343536373839616263646566a3bb8d15"
        );
        assert_eq!(
            hex(&slot(8).encode(&UUID)),
            "0800000000000000030000000000000001000000000000000010000000000000070000000000000005000000000000005b670061"
        );
        assert_eq!(
            hex(&slot(9).encode(&UUID)),
            "09000000000000000300000000000000010000000000000000100000000000000700000000000000050000000000000016311b9f"
        );
    }

    #[test]
    fn comes_back_and_any_changed_bit_is_found() {
        let whole = file(&[slot(8), slot(9)]);
        assert_eq!(Identity::decode(&whole), Identity::Valid(UUID));
        assert_eq!(Slot::both(&whole, &UUID), [Some(slot(8)), Some(slot(9))]);
        for (start, len) in [(0, IDENTITY_LEN + 4), (4096, SLOT_LEN + 4), (8192, SLOT_LEN + 4)] {
            for bit in start * 8..(start + len) * 8 {
                let mut damaged = whole.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                let changed = (Identity::decode(&damaged), Slot::both(&damaged, &UUID));
                let expected = match start {
                    0 => (Identity::Invalid, [Some(slot(8)), Some(slot(9))]),
                    4096 => (Identity::Valid(UUID), [None, Some(slot(9))]),
                    _ => (Identity::Valid(UUID), [Some(slot(8)), None]),
                };
                assert_eq!(changed, expected, "bit {bit}");
            }
        }
    }

    #[test]
    fn a_slot_elsewhere_or_of_another_store_is_none() {
        let mut swapped = file(&[]);
        let bytes = slot(8).encode(&UUID);
        swapped[8192..8192 + bytes.len()].copy_from_slice(&bytes);
        assert_eq!(Slot::both(&swapped, &UUID), [None, None]);
        assert_eq!(Slot::both(&file(&[slot(8)]), b"another store   "), [None, None]);
        assert_eq!(Slot::both(&vec![0; STORE_LEN as usize], &UUID), [None, None]);
        assert_eq!(Slot::both(&[], &UUID), [None, None]);
    }

    #[test]
    fn unknown_features_are_newer() {
        for (at, features) in [(8, 0), (16, 1), (20, 1)] {
            let mut whole = file(&[]);
            whole[at] ^= if at == 8 { 3 } else { 1 };
            let sum = mix::crc(0, &whole[..IDENTITY_LEN]);
            whole[IDENTITY_LEN..IDENTITY_LEN + 4].copy_from_slice(&sum.to_le_bytes());
            let format = if at == 8 { 2 } else { 1 };
            assert_eq!(Identity::decode(&whole), Identity::Newer { format, features });
        }
    }
}
