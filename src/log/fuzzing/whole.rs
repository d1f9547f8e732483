//! Files of classes, made by hand, with whatever frames a test wants.
//!
//! Never here: what is worth keeping.

use super::stream::write_frame;
use crate::ids::{Epoch, FileNumber, Lsn};
use crate::log::format::checkpoint::encode_epochs;
use crate::log::format::checksum::{crc, step};
use crate::log::format::class::Class;
use crate::log::format::control::ControlFrame;
use crate::log::format::frame::Outline;
use crate::log::format::header::{FileHeader, FileKind, HEADER_LEN, Uuid};

/// A file of a class that is being made.
pub(crate) struct WholeFile {
    class: Class,
    header: FileHeader,
    epochs: Vec<(Lsn, Epoch)>,
    bytes: Vec<u8>,
}

impl WholeFile {
    /// A file of the range `from..to` of the log that has no frames yet.
    pub(crate) fn new(uuid: Uuid, class: Class, number: u64, (from, to): (Lsn, Lsn), generation: u32) -> Self {
        let kind = FileKind::of(class);
        let header =
            FileHeader { kind, from, to, generation, ..FileHeader::appended(uuid, FileNumber(number), step(number)) };
        Self { class, header, epochs: Vec::new(), bytes: vec![0; HEADER_LEN] }
    }

    /// Adds a frame, which stood at this LSN in a segment.
    pub(crate) fn add(&mut self, (lsn, epoch): (Lsn, Epoch), head: &[u8], parts: &[&[u8]]) {
        let outline = Outline { lsn, carries_lsn: true, epoch: None, watermark: None, log: false };
        write_frame(&mut self.bytes, self.header.salt, &outline, head, parts);
        if self.epochs.last().is_none_or(|(_, last)| *last < epoch) {
            self.epochs.push((lsn, epoch));
        }
    }

    pub(crate) fn name(&self) -> String {
        self.header.kind.name(self.header.number).to_string()
    }

    /// What makes the file a part of the log.
    pub(crate) fn added(&self) -> ControlFrame {
        let FileHeader { number, from, to, generation, salt, .. } = self.header;
        ControlFrame::FileAdded { number, from, to, generation, salt, class: self.class }
    }

    /// The bytes of the file.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        if self.epochs.is_empty() {
            self.epochs.push((self.header.from, Epoch::of(1, 0)));
        }
        let mut table = Vec::new();
        encode_epochs(&mut table, &self.epochs);
        self.header.body_len = (self.bytes.len() - HEADER_LEN) as u64;
        (self.header.table_len, self.header.table_crc) = (table.len() as u64, crc(0, &table));
        self.bytes[..HEADER_LEN].copy_from_slice(&self.header.encode());
        [self.bytes, table].concat()
    }
}
