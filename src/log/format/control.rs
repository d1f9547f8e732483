//! The heads of control frames.
//!
//! Never here: what the layers above put into theirs.

use crate::ids::{FileNumber, Lsn};
use crate::log::format::bytes::ByteCursor;
use crate::log::format::class::{Class, Classes};

/// What a control frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ControlFrame {
    /// The first frame of an appended segment; it carries the segment's base LSN and epoch as every frame can.
    SegmentStart,
    /// Nothing but the watermark that it carries.
    Mark,
    /// A file of a class takes the place, in that class, of all that lies within its range.
    FileAdded { number: FileNumber, from: Lsn, to: Lsn, generation: u32, salt: u64, class: Class },
    /// Nothing of these classes in this range is needed any more; what served them alone may be absent.
    RangeRetired { from: Lsn, to: Lsn, classes: Classes },
}

const SEGMENT_START: u8 = 1;
const MARK: u8 = 2;
const FILE_ADDED: u8 = 3;
const RANGE_RETIRED: u8 = 4;

impl ControlFrame {
    /// The longest encoding.
    pub(crate) const LEN_MAX: usize = 1 + 8 * 4 + 4 + 1;
    /// The encoding of [`ControlFrame::SegmentStart`].
    pub(crate) const START_HEAD: [u8; 1] = [SEGMENT_START];

    /// Whether recovery may drop the frame without losing a fact.
    pub(crate) const fn is_idle(self) -> bool {
        matches!(self, Self::SegmentStart | Self::Mark)
    }

    /// Puts the head in place of what `out` held.
    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        out.clear();
        let mut fields = |kind: u8, values: &[u64]| {
            out.push(kind);
            for value in values {
                out.extend_from_slice(&value.to_le_bytes());
            }
        };
        match self {
            Self::SegmentStart => fields(SEGMENT_START, &[]),
            Self::Mark => fields(MARK, &[]),
            Self::FileAdded { number, from, to, generation, salt, class } => {
                fields(FILE_ADDED, &[number.0, from.0, to.0, salt]);
                out.extend_from_slice(&generation.to_le_bytes());
                out.push(class.code());
            }
            Self::RangeRetired { from, to, classes } => {
                fields(RANGE_RETIRED, &[from.0, to.0]);
                out.push(classes.code());
            }
        }
    }

    /// `None` for a head that this code did not write.
    pub(crate) fn decode(head: &[u8]) -> Option<Self> {
        let mut cursor = ByteCursor::new(head);
        let control = match cursor.u8()? {
            SEGMENT_START => Self::SegmentStart,
            MARK => Self::Mark,
            FILE_ADDED => {
                let (number, from, to) = (FileNumber(cursor.u64()?), Lsn(cursor.u64()?), Lsn(cursor.u64()?));
                let (salt, generation) = (cursor.u64()?, cursor.u32()?);
                Self::FileAdded { number, from, to, generation, salt, class: Class::from_code(cursor.u8()?)? }
            }
            RANGE_RETIRED => {
                let (from, to) = (Lsn(cursor.u64()?), Lsn(cursor.u64()?));
                Self::RangeRetired { from, to, classes: Classes::from_code(cursor.u8()?)? }
            }
            _ => return None,
        };
        let ordered = match control {
            Self::FileAdded { from, to, .. } | Self::RangeRetired { from, to, .. } => from < to,
            Self::SegmentStart | Self::Mark => true,
        };
        (cursor.left() == 0 && ordered).then_some(control)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_and_back() {
        let (number, class) = (FileNumber(9), Class::DeadLetters);
        let added = ControlFrame::FileAdded { number, from: Lsn(8), to: Lsn(16), generation: 2, salt: 5, class };
        let golden: [(ControlFrame, &[u8]); 4] = [
            (ControlFrame::SegmentStart, &[1]),
            (ControlFrame::Mark, &[2]),
            (
                added,
                &[
                    3, 9, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0,
                    2, 0, 0, 0, 2,
                ],
            ),
            (
                ControlFrame::RangeRetired { from: Lsn(0), to: Lsn(24), classes: Classes::BOTH },
                &[4, 0, 0, 0, 0, 0, 0, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0, 3],
            ),
        ];
        for (control, bytes) in golden {
            let mut out = vec![0xee];
            control.encode(&mut out);
            assert_eq!(out, bytes);
            assert!(out.len() <= ControlFrame::LEN_MAX);
            assert_eq!(ControlFrame::decode(bytes), Some(control));
            assert_eq!(ControlFrame::decode(&bytes[..bytes.len() - 1]), None);
            assert_eq!(ControlFrame::decode(&[bytes, &[0]].concat()), None);
        }
        assert_eq!(ControlFrame::decode(&ControlFrame::START_HEAD), Some(ControlFrame::SegmentStart));
        assert_eq!(ControlFrame::decode(&[0]), None);
        assert_eq!(ControlFrame::decode(&[5]), None);
        assert_eq!(ControlFrame::decode(&[4; 18]), None, "no range");
        for code in [0, 4] {
            let retired = [&[4], &0u64.to_le_bytes()[..], &8u64.to_le_bytes(), &[code]].concat();
            assert_eq!(ControlFrame::decode(&retired), None, "no class");
        }
    }
}
