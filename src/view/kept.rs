//! What is kept of a frame when the file that it lies in is cleaned: the messages that must stay, and the records that say whose they are.
//!
//! Never here: which files are cleaned, and writing.

use super::read::decode_frame;
use super::touches::Stop;
use crate::error::Result;
use crate::ids::{Lsn, Offset, PartitionId};
use crate::log::{self, Class, Segment};
use crate::record::{OffsetClaim, Record, codec};
use crate::state::{LiveMessages, OffsetRange};
use std::collections::BTreeMap;

/// The messages of some files that must stay, of one class.
#[derive(Debug, Default)]
pub(crate) struct LiveParts {
    of: BTreeMap<PartitionId, OfPartition>,
}

#[derive(Debug, Default)]
struct OfPartition {
    /// In order and apart.
    stretches: Vec<OffsetRange>,
    /// Cursors hold what stands in the log from here on.
    held_from: Option<Lsn>,
}

/// What is kept of one frame.
#[derive(Debug, Default)]
pub(crate) struct KeptFrame {
    /// They claim the parts in order.
    pub(crate) records: Vec<Record>,
    /// The bytes of the records.
    pub(crate) head: Vec<u8>,
    /// The numbers that the parts had.
    pub(crate) parts: Vec<u32>,
}

/// What must stay of a file, in numbers: where these are the same, the same messages must.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stay {
    /// How many messages, for what groups and topics say.
    pub(crate) count: u64,
    /// And what stands in it from here on, for what cursors say.
    pub(crate) held_from: Option<Lsn>,
}

impl LiveParts {
    /// Of a file that has these shares of partitions.
    pub(crate) fn of(
        wanted: &LiveMessages,
        class: Class,
        shares: impl IntoIterator<Item = (PartitionId, Offset, Offset)>,
    ) -> Self {
        let mut of: BTreeMap<PartitionId, OfPartition> = BTreeMap::new();
        for (partition, first, end) in shares {
            if wanted.has_dead_letters(partition) != Some(class == Class::DeadLetters) {
                continue;
            }
            let entry = of.entry(partition).or_default();
            entry.stretches.extend(wanted.stretches(partition, first, end));
            entry.held_from = wanted.held_from(partition);
        }
        Self { of }
    }

    /// What must stay of a file that ends at `end`.
    pub(crate) fn stay(&self, end: Lsn) -> Stay {
        let stretches = self.of.values().flat_map(|of| &of.stretches);
        let count = stretches.map(|(first, end)| end.0.saturating_sub(first.0)).sum();
        let held_from = self.of.values().filter_map(|of| of.held_from).filter(|from| *from < end).min();
        Stay { count, held_from }
    }

    /// Shows `visit` each frame of which something is kept, with what that is: whole and verified, or without its parts. Stops where `visit`
    /// says `false`.
    ///
    /// # Errors
    /// A frame that cannot be read or does not prove itself; a record that cannot be decoded.
    pub(crate) fn for_each(
        &self,
        segment: &Segment,
        with_parts: bool,
        visit: &mut dyn FnMut(&log::Frame<'_>, &KeptFrame) -> bool,
    ) -> Result<()> {
        let (mut records, mut kept) = (Vec::new(), KeptFrame::default());
        let mut each = |frame: &log::Frame<'_>| {
            if frame.is_log() {
                return Ok(());
            }
            decode_frame(segment, frame, &mut records)?;
            self.fill(&records, frame.lsn, &mut kept);
            if kept.parts.is_empty() || visit(frame, &kept) { Ok(()) } else { Err(Stop::Here) }
        };
        let walk = if with_parts { log::for_each_whole } else { log::for_each_frame };
        match walk(segment, segment.base(), &mut each) {
            Ok(()) | Err(Stop::Here) => Ok(()),
            Err(Stop::Failed(error)) => Err(error.0),
        }
    }

    /// Puts what is kept of the frame at `lsn` in place of what was there.
    fn fill(&self, records: &[Record], lsn: Lsn, kept: &mut KeptFrame) {
        kept.records.clear();
        kept.parts.clear();
        kept.head.clear();
        let mut part = 0u32;
        for record in records {
            let Some(OffsetClaim { partition, first, count, .. }) = record.claim() else { continue };
            let end = first.saturating_add(u64::from(count));
            if let Some(of) = self.of.get(&partition) {
                of.put_kept(record, (first, end), (lsn, part), kept);
            }
            part = part.saturating_add(count);
        }
        codec::encode(&kept.records, &mut kept.head);
    }
}

impl Stay {
    /// What must stay of both.
    pub(crate) fn and(self, other: Self) -> Self {
        let held_from = self.held_from.into_iter().chain(other.held_from).min();
        Self { count: self.count.saturating_add(other.count), held_from }
    }
}

impl OfPartition {
    /// Adds what of a record's messages `first..end` is kept, which are the parts from `part` on of the frame at `lsn`.
    fn put_kept(&self, record: &Record, (first, end): OffsetRange, (lsn, part): (Lsn, u32), kept: &mut KeptFrame) {
        let whole = [(first, end)];
        let is_held = self.held_from.is_some_and(|from| lsn >= from);
        let stretches = if is_held { &whole } else { self.stretches.as_slice() };
        let within = stretches.partition_point(|(_, stretch_end)| *stretch_end <= first);
        for (from, to) in stretches.iter().skip(within).take_while(|(from, _)| *from < end) {
            let (from, to) = (first.max(*from), end.min(*to));
            // Both fit: a record claims fewer than 2^32 messages.
            let (skip, count) = ((from.0 - first.0) as u32, (to.0 - from.0) as u32);
            kept.records.extend(record.claiming(skip, count));
            kept.parts.extend((0..count).map(|nth| part.saturating_add(skip).saturating_add(nth)));
        }
    }
}
