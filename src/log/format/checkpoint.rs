//! The bytes of a checkpoint: the log's own section, and a state that is opaque here.
//!
//! The file is a header, the state, and the section: the segments and files of classes that tile the log below the LSN that the
//! checkpoint covers, and the ranges of each class that were retired. Never here: I/O, and what the state means.

use crate::ids::{Epoch, FileNumber, Lsn};
use crate::log::format::bytes::ByteCursor;
use crate::log::format::checksum::crc;
use crate::log::format::class::{Class, Classes, Retired, merge_range};
use crate::log::format::header::{FileHeader, FileKind, Uuid};
use crate::log::format::segment_info::SegmentInfo;

/// What a checkpoint says of the log below the LSN that it covers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Section {
    /// In the order of their first LSNs, cut to what the checkpoint covers.
    pub(crate) files: Vec<SegmentInfo>,
    pub(crate) retired: Retired,
    /// Where the last epochs of the log began, below what the checkpoint covers.
    pub(crate) epochs: Vec<(Lsn, Epoch)>,
}

/// How many epochs are known: a position of an older one cannot be judged.
const EPOCHS_MAX: usize = 1 << 16;

/// Notes that an epoch began, if it is later than all that are known. The oldest is forgotten where there are too many.
pub(in crate::log) fn note_epoch(epochs: &mut Vec<(Lsn, Epoch)>, (from, epoch): (Lsn, Epoch)) {
    if epochs.last().is_none_or(|(lsn, last)| *lsn < from && *last < epoch) {
        epochs.push((from, epoch));
        let beyond = epochs.len().saturating_sub(EPOCHS_MAX);
        epochs.drain(..beyond);
    }
}

/// The least bytes of an entry, so that a count is checked against the bytes that are there.
const FILE_LEN_MIN: usize = 8 + 1 + 1 + 4 + 8 * 4 + 4 + 16;

impl Section {
    /// The files in which a class is looked for.
    pub(in crate::log) fn serving(&self, class: Class) -> impl Iterator<Item = &SegmentInfo> {
        self.files.iter().filter(move |file| file.serves.contains(class))
    }

    /// Whether in each class files and retired ranges account for all of the log below `covers`.
    pub(crate) fn tiles(&self, covers: Lsn) -> bool {
        Class::EACH.into_iter().all(|class| {
            let mut ranges = self.retired.of(class).to_vec();
            // seam: a file of one class tiles the other
            for file in self.serving(class) {
                merge_range(&mut ranges, file.base, file.end);
            }
            covers == Lsn(0) || ranges.first().is_some_and(|(from, to)| *from == Lsn(0) && *to >= covers)
        })
    }

    /// Whether the epochs are known of all of the log below `covers`, or as many of them as are kept.
    pub(in crate::log) fn tells_epochs(&self, covers: Lsn) -> bool {
        let from_start = self.epochs.first().is_some_and(|(from, _)| *from == Lsn(0));
        let is_below = self.epochs.last().is_some_and(|(from, _)| *from < covers);
        covers == Lsn(0) || is_below && (from_start || self.epochs.len() == EPOCHS_MAX)
    }

    /// A file of a class that shares LSNs with another file that serves the class.
    pub(in crate::log) fn overlapping(&self) -> Option<&SegmentInfo> {
        self.files.iter().find(|file| {
            let Some(class) = file.kind.class() else { return false };
            let others = self.serving(class).filter(|other| other.number != file.number);
            others.into_iter().any(|other| other.base < file.end && file.base < other.end)
        })
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(12 + self.files.len() * (FILE_LEN_MIN + 16));
        let word = |out: &mut Vec<u8>, value: usize| out.extend_from_slice(&(value as u32).to_le_bytes());
        let wide = |out: &mut Vec<u8>, values: &[u64]| {
            for value in values {
                out.extend_from_slice(&value.to_le_bytes());
            }
        };
        word(&mut out, self.files.len());
        for file in &self.files {
            wide(&mut out, &[file.number.0]);
            out.extend_from_slice(&[file.kind.code(), file.serves.code()]);
            out.extend_from_slice(&file.generation.to_le_bytes());
            wide(&mut out, &[file.salt, file.base.0, file.end.0, file.body_len]);
            encode_epochs(&mut out, &file.epochs);
        }
        for ranges in Class::EACH.map(|class| self.retired.of(class)) {
            word(&mut out, ranges.len());
            for (from, to) in ranges {
                wide(&mut out, &[from.0, to.0]);
            }
        }
        encode_epochs(&mut out, &self.epochs);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut cursor = ByteCursor::new(bytes);
        let files = count(&mut cursor, FILE_LEN_MIN)?;
        let files = (0..files).map(|_| decode_file(&mut cursor)).collect::<Option<Vec<_>>>()?;
        let mut retired = Retired::default();
        for class in Class::EACH {
            let ranges = count(&mut cursor, 16)?;
            let range = |cursor: &mut ByteCursor<'_>| Some((Lsn(cursor.u64()?), Lsn(cursor.u64()?)));
            *retired.of_mut(class) = (0..ranges).map(|_| range(&mut cursor)).collect::<Option<Vec<_>>>()?;
        }
        let epochs = decode_epochs(&mut cursor)?;
        (cursor.left() == 0 && epochs.len() <= EPOCHS_MAX).then_some(Self { files, retired, epochs })
    }
}

/// A count of things that take at least `least` bytes each.
fn count(cursor: &mut ByteCursor<'_>, least: usize) -> Option<usize> {
    let count = cursor.u32()? as usize;
    (count <= cursor.left() / least).then_some(count)
}

fn decode_file(cursor: &mut ByteCursor<'_>) -> Option<SegmentInfo> {
    let number = FileNumber(cursor.u64()?);
    let (kind, serves) = (FileKind::from_code(cursor.u8()?)?, Classes::from_code(cursor.u8()?)?);
    let generation = cursor.u32()?;
    let salt = cursor.u64()?;
    let (base, end, body_len) = (Lsn(cursor.u64()?), Lsn(cursor.u64()?), cursor.u64()?);
    let epochs = decode_epochs(cursor).filter(|epochs| !epochs.is_empty())?;
    let info = SegmentInfo { number, kind, salt, generation, base, end, body_len, epochs, serves };
    let is_of_its_class = kind.class().is_none_or(|class| serves == Classes::of(class));
    let is_whole = kind != FileKind::Checkpoint && is_of_its_class && base <= end && info.limit().is_some();
    is_whole.then_some(info)
}

/// Also the table at the end of a file of a class.
pub(crate) fn encode_epochs(out: &mut Vec<u8>, epochs: &[(Lsn, Epoch)]) {
    out.extend_from_slice(&(epochs.len() as u32).to_le_bytes());
    for (from, epoch) in epochs {
        out.extend_from_slice(&from.0.to_le_bytes());
        out.extend_from_slice(&epoch.0.to_le_bytes());
    }
}

/// Runs in rising order.
pub(crate) fn decode_epochs(cursor: &mut ByteCursor<'_>) -> Option<Vec<(Lsn, Epoch)>> {
    let runs = count(cursor, 16)?;
    let run = |cursor: &mut ByteCursor<'_>| Some((Lsn(cursor.u64()?), Epoch(cursor.u64()?)));
    let epochs = (0..runs).map(|_| run(cursor)).collect::<Option<Vec<_>>>()?;
    epochs.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1).then_some(epochs)
}

/// The header of a checkpoint with this content.
pub(crate) fn header(
    uuid: Uuid,
    number: FileNumber,
    salt: u64,
    covers: Lsn,
    state: &[u8],
    section: &[u8],
) -> FileHeader {
    FileHeader {
        kind: FileKind::Checkpoint,
        to: covers,
        body_len: state.len() as u64,
        body_crc: crc(0, state),
        table_len: section.len() as u64,
        table_crc: crc(0, section),
        ..FileHeader::appended(uuid, number, salt)
    }
}

/// The section of a checkpoint, if state and section are what the header says.
pub(crate) fn verify(header: &FileHeader, state: &[u8], section: &[u8]) -> Option<Section> {
    let whole = state.len() as u64 == header.body_len && section.len() as u64 == header.table_len;
    let proven = crc(0, state) == header.body_crc && crc(0, section) == header.table_crc;
    if whole && proven { Section::decode(section) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Section {
        let appended = SegmentInfo {
            number: FileNumber(1),
            kind: FileKind::Appended,
            salt: 2,
            generation: 0,
            base: Lsn(0),
            end: Lsn(64),
            body_len: 0,
            epochs: vec![(Lsn(0), Epoch(1))],
            serves: Classes::BOTH,
        };
        let partly = SegmentInfo {
            number: FileNumber(2),
            base: Lsn(64),
            end: Lsn(128),
            serves: Classes::of(Class::DeadLetters),
            ..appended.clone()
        };
        let messages = SegmentInfo {
            number: FileNumber(4),
            kind: FileKind::Messages,
            salt: 3,
            generation: 1,
            base: Lsn(64),
            end: Lsn(128),
            body_len: 80,
            epochs: vec![(Lsn(64), Epoch(1)), (Lsn(96), Epoch(2))],
            serves: Classes::of(Class::Messages),
        };
        let mut retired = Retired::default();
        retired.add(Classes::of(Class::Messages), Lsn(8), Lsn(16));
        let epochs = vec![(Lsn(0), Epoch(1)), (Lsn(96), Epoch(2))];
        Section { files: vec![appended, partly, messages], retired, epochs }
    }

    #[test]
    fn golden() {
        let hex: String = sample().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        let numbers = |numbers: &[u64]| -> String {
            numbers.iter().flat_map(|n| n.to_le_bytes()).map(|byte| format!("{byte:02x}")).collect()
        };
        let expected = [
            "03000000",
            &numbers(&[1]),
            "0103",
            "00000000",
            &numbers(&[2, 0, 64, 0]),
            "01000000",
            &numbers(&[0, 1]),
            &numbers(&[2]),
            "0102",
            "00000000",
            &numbers(&[2, 64, 128, 0]),
            "01000000",
            &numbers(&[0, 1]),
            &numbers(&[4]),
            "0201",
            "01000000",
            &numbers(&[3, 64, 128, 80]),
            "02000000",
            &numbers(&[64, 1, 96, 2]),
            "01000000",
            &numbers(&[8, 16]),
            "00000000",
            "02000000",
            &numbers(&[0, 1, 96, 2]),
        ];
        assert_eq!(hex, expected.concat());
    }

    #[test]
    fn comes_back_whole_or_not_at_all() {
        let bytes = sample().encode();
        assert_eq!(Section::decode(&bytes), Some(sample()));
        for cut in 0..bytes.len() {
            assert_eq!(Section::decode(&bytes[..cut]), None);
        }
        assert_eq!(Section::decode(&[bytes.as_slice(), &[0]].concat()), None);
        assert_eq!(Section::decode(&[0xff; 64]), None);
        assert_eq!(Section::decode(&Section::default().encode()), Some(Section::default()));
    }

    /// Each class tiles the log by itself, and no file of a class lies over another that serves it.
    #[test]
    fn classes_are_tiled_apart() {
        let whole = sample();
        assert!(whole.tiles(Lsn(128)) && whole.overlapping().is_none());
        for absent in 0..whole.files.len() {
            let mut section = whole.clone();
            section.files.remove(absent);
            assert!(!section.tiles(Lsn(128)), "without file {absent}");
        }
        let mut section = whole.clone();
        section.files.remove(2);
        section.retired.add(Classes::of(Class::DeadLetters), Lsn(64), Lsn(128));
        assert!(!section.tiles(Lsn(128)), "another class was retired");
        section.retired.add(Classes::of(Class::Messages), Lsn(64), Lsn(128));
        assert!(section.tiles(Lsn(128)));
        let mut section = whole;
        section.files[1].serves = Classes::BOTH;
        assert_eq!(section.overlapping().map(|file| file.number), Some(FileNumber(4)));
    }

    #[test]
    fn the_last_epochs_are_known_from_the_start_or_are_many() {
        let mut section = sample();
        assert!(section.tells_epochs(Lsn(128)) && !section.tells_epochs(Lsn(96)), "an epoch above what is covered");
        section.epochs.remove(0);
        assert!(!section.tells_epochs(Lsn(128)));
        section.epochs.clear();
        assert!(section.tells_epochs(Lsn(0)) && !section.tells_epochs(Lsn(8)));
        for count in 0..EPOCHS_MAX as u64 + 3 {
            note_epoch(&mut section.epochs, (Lsn(count * 8), Epoch(count + 1)));
            note_epoch(&mut section.epochs, (Lsn(count * 8 + 8), Epoch(count + 1)));
        }
        assert_eq!((section.epochs.len(), section.epochs[0]), (EPOCHS_MAX, (Lsn(24), Epoch(4))));
        assert!(section.tells_epochs(Lsn(u64::MAX)));
        assert_eq!(Section::decode(&section.encode()), Some(section.clone()));
        section.epochs.push((Lsn(u64::MAX), Epoch(u64::MAX)));
        assert_eq!(Section::decode(&section.encode()), None);
    }

    #[test]
    fn any_changed_bit_of_the_file_is_found() {
        let (state, section) = (b"state".to_vec(), sample().encode());
        let header = header([7; 16], FileNumber(9), 1, Lsn(128), &state, &section);
        assert_eq!(verify(&header, &state, &section), Some(sample()));
        for bit in 0..(state.len() + section.len()) * 8 {
            let mut damaged = [&state[..], &section].concat();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let (state, section) = damaged.split_at(state.len());
            assert_eq!(verify(&header, state, section), None);
        }
        assert_eq!(verify(&header, &state[1..], &section), None);
        assert_eq!(verify(&header, &state, &section[1..]), None);
    }
}
