//! The bytes of `STORE`: whose store this is, and how far it had come.
//!
//! ```text
//! 0      identity: magic, u32 format, three u32 words that are 0, 16 bytes uuid (the store's lineage), u32 CRC
//! 4096   slot A, written where the sequence number is even
//! 8192   slot B, written where it is odd
//! 12288  the owner's process id, which belongs to the disk layer
//! ```
//! A slot is one sector: u64 sequence, epoch, clean, watermark, newest segment, newest checkpoint, u32 compat, ro_compat,
//! incompat, flags, 16 bytes instance, 16 bytes secret, zeros, u32 CRC. It is overwritten only while the other one is certain.
//! The identity keeps its layout in every format, so that a later one can be recognised. Never here: I/O, decisions.

use crate::ids::{Epoch, FileNumber, Lsn};
use crate::log::format::bytes::{ByteCursor, u32_at};
use crate::log::format::checksum;
use crate::log::format::header::{FORMAT, Uuid};
use std::fmt;

/// The length of the file.
pub(crate) const STORE_LEN: u64 = 16 << 10;
/// Where the process id begins: up to there the file belongs to the log.
pub(crate) const OWNED_LEN: usize = 12 << 10;
const MAGIC: [u8; 8] = *b"\x89PND\r\n\x1a\n";
const IDENTITY_LEN: usize = 8 + 4 * 4 + 16;
/// A sector: a disk writes it whole or not at all.
const SLOT_LEN: usize = 512;
/// Where a slot's check begins: at its end, so that it covers what later versions put before it.
const CHECK_AT: usize = SLOT_LEN - 4;

/// The features that a store uses, in a word each for what a version may do that does not know one of them. None is defined yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Features {
    /// Read and write.
    pub(crate) compat: u32,
    /// Read.
    pub(crate) ro_compat: u32,
    /// Nothing.
    pub(crate) incompat: u32,
}

impl Features {
    /// The features of both.
    pub(crate) const fn union(self, other: Self) -> Self {
        Self {
            compat: self.compat | other.compat,
            ro_compat: self.ro_compat | other.ro_compat,
            incompat: self.incompat | other.incompat,
        }
    }

    /// Those for which this version cannot open the store. It opens none without writing, so it must know each of `ro_compat`
    /// too; and it knows no feature.
    pub(crate) const fn refused(self) -> Self {
        Self { compat: 0, ..self }
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.compat | self.ro_compat | self.incompat == 0
    }
}

impl fmt::Display for Features {
    /// As in `incompat bit 3, incompat bit 5`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [("incompat", self.incompat), ("ro_compat", self.ro_compat), ("compat", self.compat)];
        let mut separator = "";
        for (name, word) in words {
            for bit in (0..u32::BITS).filter(|bit| word >> bit & 1 == 1) {
                write!(f, "{separator}{name} bit {bit}")?;
                separator = ", ";
            }
        }
        Ok(())
    }
}

/// What the first page says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    Valid(Uuid),
    /// Proven by its checksum, but with a format or features that this code does not know.
    Newer {
        format: u32,
        features: Features,
    },
    /// Not initialized to the end, or damaged.
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
        let sum = checksum::crc(0, &out);
        out.extend_from_slice(&sum.to_le_bytes());
        out
    }

    pub(crate) fn decode(file: &[u8]) -> Self {
        Self::try_decode(file).unwrap_or(Self::Invalid)
    }

    fn try_decode(file: &[u8]) -> Option<Self> {
        let covered = file.get(..IDENTITY_LEN)?;
        if !covered.starts_with(&MAGIC) || u32_at(file, IDENTITY_LEN)? != checksum::crc(0, covered) {
            return None;
        }
        let mut cursor = ByteCursor::new(covered);
        cursor.take(MAGIC.len())?;
        let format = cursor.u32()?;
        // The features stand in the slots, which are written again and again. Here is no place for one.
        let features = Features { compat: cursor.u32()?, ro_compat: cursor.u32()?, incompat: cursor.u32()? };
        if format != FORMAT || !features.is_empty() {
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
    /// No later slot has fewer.
    pub(crate) features: Features,
    /// [`Slot::COPY`]; other bits are kept.
    pub(crate) flags: u32,
    /// Tells this directory from a copy of it that the engine made. Stands in no other file.
    pub(crate) instance: [u8; 16],
    /// The key of the store's hashes. A copy has the same.
    pub(crate) secret: [u8; 16],
}

impl Slot {
    /// The flag of a copy that was never opened: it still has the instance of its source.
    pub(crate) const COPY: u32 = 1;

    pub(crate) const fn is_copy(&self) -> bool {
        self.flags & Self::COPY != 0
    }

    /// Where the slot with this sequence number stands.
    pub(crate) const fn position(sequence: u64) -> u64 {
        if sequence.is_multiple_of(2) { 4 << 10 } else { 8 << 10 }
    }

    pub(crate) fn encode(&self, uuid: &Uuid) -> Vec<u8> {
        let mut out = Vec::with_capacity(SLOT_LEN);
        let (epoch, clean, watermark) = (self.epoch.0, u64::from(self.clean), self.watermark.0);
        for field in [self.sequence, epoch, clean, watermark, self.newest_segment.0, self.newest_checkpoint.0] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        let Features { compat, ro_compat, incompat } = self.features;
        for word in [compat, ro_compat, incompat, self.flags] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&self.instance);
        out.extend_from_slice(&self.secret);
        out.resize(CHECK_AT, 0);
        let sum = checksum::crc(seed(uuid, Self::position(self.sequence)), &out);
        out.extend_from_slice(&sum.to_le_bytes());
        out
    }

    /// The slot at `position` of the file, if it is valid.
    pub(crate) fn decode(file: &[u8], uuid: &Uuid, position: u64) -> Option<Self> {
        let page = file.get(usize::try_from(position).ok()?..)?;
        let covered = page.get(..CHECK_AT)?;
        if u32_at(page, CHECK_AT)? != checksum::crc(seed(uuid, position), covered) {
            return None;
        }
        let mut cursor = ByteCursor::new(covered);
        let (sequence, epoch, clean) = (cursor.u64()?, Epoch(cursor.u64()?), cursor.u64()?);
        let slot = Self {
            sequence,
            epoch,
            clean: clean == 1,
            watermark: Lsn(cursor.u64()?),
            newest_segment: FileNumber(cursor.u64()?),
            newest_checkpoint: FileNumber(cursor.u64()?),
            features: Features { compat: cursor.u32()?, ro_compat: cursor.u32()?, incompat: cursor.u32()? },
            flags: cursor.u32()?,
            instance: cursor.array()?,
            secret: cursor.array()?,
        };
        (clean <= 1 && Self::position(sequence) == position).then_some(slot)
    }

    /// Up to where the log is durable as far as slots tell for certain: the newest is written while the other one is durable, and may not be
    /// so itself. One that says that the log was closed rests on nothing but the log.
    pub(crate) fn certain_watermark(slots: &[Option<Self>; 2]) -> Lsn {
        let all = || slots.iter().flatten();
        let newest = all().max_by_key(|slot| slot.sequence);
        let certain = newest.filter(|slot| slot.clean).or_else(|| all().min_by_key(|slot| slot.sequence));
        certain.map_or(Lsn(0), |slot| slot.watermark)
    }

    /// Both slots as they are in the file.
    pub(crate) fn both(file: &[u8], uuid: &Uuid) -> [Option<Self>; 2] {
        [0, 1].map(|sequence| Self::decode(file, uuid, Self::position(sequence)))
    }
}

/// A slot of another store, or at the other position, is no slot.
fn seed(uuid: &Uuid, position: u64) -> u32 {
    checksum::crc(checksum::low(checksum::step(position)), uuid)
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
            features: Features { compat: 1, ro_compat: 2, incompat: 4 },
            flags: Slot::COPY,
            instance: *b"this very folder",
            secret: *b"nobody knows it!",
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
            "89504e440d0a1a0a02000000000000000000000000000000303132333435363738396162636465661cb392dc"
        );
        let fields = "0300000000000000010000000000000000100000000000000700000000000000050000000000000001000000020000000400000001000000";
        let identities = "74686973207665727920666f6c6465726e6f626f6479206b6e6f777320697421";
        let rest = format!("{fields}{identities}{}", "00".repeat(508 - 96));
        assert_eq!(hex(&slot(8).encode(&UUID)), format!("0800000000000000{rest}ab7fca59"));
        assert_eq!(hex(&slot(9).encode(&UUID)), format!("0900000000000000{rest}b32fb7a2"));
    }

    #[test]
    fn comes_back_and_any_changed_bit_is_found() {
        let whole = file(&[slot(8), slot(9)]);
        assert_eq!(Identity::decode(&whole), Identity::Valid(UUID));
        assert_eq!(Slot::both(&whole, &UUID), [Some(slot(8)), Some(slot(9))]);
        for (start, len) in [(0, IDENTITY_LEN + 4), (4096, SLOT_LEN), (8192, SLOT_LEN)] {
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
    fn an_identity_of_another_format_or_with_features_is_newer() {
        let none = Features::default();
        let words = [
            (8, FORMAT ^ 1, none),
            (12, FORMAT, Features { compat: 1, ..none }),
            (16, FORMAT, Features { ro_compat: 1, ..none }),
            (20, FORMAT, Features { incompat: 1, ..none }),
        ];
        for (at, format, features) in words {
            let mut whole = file(&[]);
            whole[at] ^= 1;
            let sum = checksum::crc(0, &whole[..IDENTITY_LEN]);
            whole[IDENTITY_LEN..IDENTITY_LEN + 4].copy_from_slice(&sum.to_le_bytes());
            assert_eq!(Identity::decode(&whole), Identity::Newer { format, features });
        }
    }

    #[test]
    fn features_are_named_by_word_and_bit() {
        let some = Features { compat: 1 << 31, ro_compat: 1, incompat: 0 };
        let all = some.union(Features { incompat: 0b1010, ..Features::default() });
        assert_eq!(all.to_string(), "incompat bit 1, incompat bit 3, ro_compat bit 0, compat bit 31");
        assert_eq!(all.refused().to_string(), "incompat bit 1, incompat bit 3, ro_compat bit 0");
        assert!(Features { compat: 1, ..Features::default() }.refused().is_empty());
    }
}
