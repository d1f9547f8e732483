//! Reading stored messages: place, bytes, proof, and what their record says of them. Outside the lock.
//!
//! Every byte that leaves here was checked against its checksum, and its record names the partition and offset asked
//! for. Never here: leases.

use super::owners::Owners;
use super::positions::MessageLocation;
use super::runs::SegmentRuns;
use super::share::{Share, share_of};
use super::stored::{About, Stored};
use super::{ReadCaches, View};
use crate::error::{Corruption, Error, ErrorKind, Result};
use crate::ids::{Lsn, Offset, PartitionId};
use crate::log::{self, BlockCache, Index, Met, PartReader, RUN_LEN_MAX, ReadError, Segment};
use crate::record::message::MessageView;
use crate::record::wire::{DecodeError, Newer};
use crate::record::{Record, codec};
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What is wrong with a frame whose messages cannot be where it says.
pub(super) const MISPLACED: &str = "a message of no partition, or out of order";

/// Where to read: a place, and the segment that it lies in.
#[derive(Debug)]
pub(crate) struct Located {
    pub(crate) segment: Arc<Segment>,
    pub(crate) place: MessageLocation,
}

/// What a consumer caches of its last reads: a reader that continues in order finds the next message there.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    pub(super) at_hand: AtHand,
    gathered: Stored<Vec<u8>>,
    /// The size of a message in the last receive of several, in bytes; zero before the first.
    typical_len: usize,
}

#[derive(Debug, Default)]
pub(super) struct AtHand {
    pub(super) parts: PartReader<Owners>,
    pub(super) rows: RowsAtHand,
}

impl Reader {
    /// About how many messages like the last ones come to this many bytes: at least one.
    pub(crate) fn fits(&self, bytes: usize) -> usize {
        bytes.checked_div(self.typical_len).unwrap_or(usize::MAX).saturating_add(1)
    }

    /// Notes how large the messages of a receive were.
    pub(crate) fn note_typical(&mut self, count: usize, bytes: usize) {
        self.typical_len = bytes.checked_div(count).unwrap_or(self.typical_len);
    }

    /// What was gathered last, if anything.
    pub(crate) fn take(&mut self) -> Option<Stored> {
        self.gathered.take()
    }

    /// Keeps nothing large: the consumer may come again much later, and there may be many of them.
    pub(crate) fn rest(&mut self) {
        self.at_hand.parts.rest();
    }
}

/// The rows that were read last of the index of a segment.
#[derive(Debug, Default)]
pub(super) struct RowsAtHand {
    /// Of the segment's file: no other has it.
    salt: u64,
    key: u64,
    pub(super) rows: Vec<log::Row>,
    /// The row found last.
    last: usize,
}

/// How many rows a reader that continues in order reads at a time.
const ROWS_AHEAD: usize = 128;

impl View {
    /// Where a message stands.
    pub(crate) fn locate(&self, partition: PartitionId, offset: Offset) -> Option<Located> {
        let mut found = None;
        self.positions.find(partition, offset, 1, |_, _, place| found = place);
        let place = found?;
        Some(Located { segment: Arc::clone(self.catalog.segment(place.segment())?), place })
    }

    /// The partitions of an index whose messages are looked for in its segment.
    fn wanted_keys(&self, segment: &Segment, index: &Index) -> BTreeSet<PartitionId> {
        let share = share_of(&self.state, segment);
        let partitions = index.keys().iter().map(|key| PartitionId(key.key));
        partitions.filter(|partition| share(*partition) == Share::Wanted).collect()
    }
}

/// Holds a view under a lock of its own, and reads messages through it.
pub(crate) trait ViewHolder {
    /// Looks at the view under the lock: no I/O there.
    fn with_view<R>(&self, look: impl FnOnce(&mut View) -> R) -> R;

    fn caches(&self) -> &ReadCaches;

    /// Finds and reads a message.
    ///
    /// # Errors
    /// `Unreadable` if no segment holds it or its bytes do not prove themselves; what the system lacks for a while.
    fn fetch(&self, partition: PartitionId, offset: Offset) -> Result<Stored> {
        self.fetch_by(&mut Reader::default(), partition, offset)
    }

    /// As [`ViewHolder::fetch`], with what the reader has cached.
    ///
    /// # Errors
    /// As [`ViewHolder::fetch`].
    fn fetch_by(&self, reader: &mut Reader, partition: PartitionId, offset: Offset) -> Result<Stored> {
        match self.with_view(|view| view.locate(partition, offset)) {
            Some(at) => self.read(reader, &at.segment, &at.place, 0, (partition, offset)),
            None => Err(unreadable(self, (partition, offset), absent(partition, offset))),
        }
    }

    /// Reads a message of a stretch whose place is known.
    ///
    /// # Errors
    /// As [`ViewHolder::fetch`].
    fn read(
        &self,
        reader: &mut Reader,
        segment: &Segment,
        place: &MessageLocation,
        skip: u32,
        of: (PartitionId, Offset),
    ) -> Result<Stored> {
        let read = read_some(self, &mut reader.at_hand, segment, place, (skip, 1), of).map(Stored::from);
        let read = read.or_else(|error| match moved(self, segment, of) {
            Some(now) => self.read(reader, &now.segment, &now.place, 0, of),
            None => Err(error),
        });
        read.map_err(|error| unreadable(self, of, error))
    }

    /// Reads a message as [`ViewHolder::read`] does, and of those behind it, up to `max` in all, as many as share its frame and are
    /// small. `each` gets them in order, but for the last ones: more may join these, and in the end [`Reader::take`] gives them.
    /// Returns how many were read.
    ///
    /// # Errors
    /// As [`ViewHolder::fetch`], of the first.
    fn gather(
        &self,
        reader: &mut Reader,
        segment: &Segment,
        place: &MessageLocation,
        (skip, max): (u32, u32),
        of: (PartitionId, Offset),
        mut each: impl FnMut(Stored),
    ) -> Result<u32> {
        let Reader { at_hand, gathered, .. } = reader;
        let read = match read_some(self, at_hand, segment, place, (skip, max), of) {
            Ok(read) => read,
            Err(error) => {
                let now = moved(self, segment, of).ok_or_else(|| unreadable(self, of, error))?;
                gathered.take().into_iter().for_each(&mut each);
                each(self.read(reader, &now.segment, &now.place, 0, of)?);
                return Ok(1);
            }
        };
        let count = read.cuts.parts();
        let may_join = read.bytes.len() <= RUN_LEN_MAX / 2 && read.provenance.is_none();
        if may_join && gathered.take_in(&read) {
            return Ok(count);
        }
        gathered.take().into_iter().for_each(&mut each);
        if !may_join {
            each(read.into());
        } else {
            gathered.take_in(&read);
        }
        Ok(count)
    }
}

fn read_some<'a, H: ViewHolder + ?Sized>(
    holder: &H,
    reader: &'a mut AtHand,
    segment: &Segment,
    place: &MessageLocation,
    (skip, max): (u32, u32),
    (partition, offset): (PartitionId, Offset),
) -> Result<Stored<&'a [u8]>> {
    let (at, part) = match place {
        MessageLocation::Known { at, part, .. } => (*at, part.saturating_add(skip)),
        MessageLocation::Indexed { .. } => look_up(holder, &mut reader.rows, segment, partition, offset)?,
    };
    let caches = (&holder.caches().blocks, &holder.caches().fronts);
    let read = reader.parts.read(caches, segment, at, part, max);
    let mut read = read.map_err(|error| read_error(error).at(&holder.caches().dir))?;
    let lsn = read.lsn;
    let damaged = |reason| {
        Error::Corrupt(Corruption {
            file: segment.name().to_string(),
            offset: Some(u64::from(at)),
            lsns: Some((lsn, lsn)),
            reason,
        })
    };
    // seam: owners are decoded anew
    let owners = read.note.get_or_init(|| Owners::of(read.head));
    let Some((count, time, provenance)) = owners.claim(part, partition, offset) else {
        // What a record of a newer version claims, nobody knows here.
        let damage = || damaged("a frame that does not hold the message looked for");
        return Err(owners.newer().map_or_else(damage, newer_format));
    };
    read.keep(count);
    let is_message = |nth: &u32| {
        let part = read.bytes.get(read.cuts.range(*nth, read.bytes.len()));
        part.is_some_and(|part| MessageView::parse(part).is_ok())
    };
    let count = (0..read.cuts.parts()).take_while(is_message).count() as u32;
    if count == 0 {
        return Err(damaged("a message that cannot be decoded"));
    }
    read.keep(count);
    let about = About { partition, first: offset, epoch: read.epoch, time };
    Ok(Stored { bytes: read.bytes, cuts: read.cuts, about, provenance })
}

/// Where a message stands now, if that is in another file than the one that was to be read: what must stay of that was copied, and it may
/// be gone.
fn moved<H: ViewHolder + ?Sized>(
    holder: &H,
    from: &Segment,
    (partition, offset): (PartitionId, Offset),
) -> Option<Located> {
    // seam: a message that moved is not looked for
    let now = holder.with_view(|view| view.locate(partition, offset));
    now.filter(|now| now.segment.number() != from.number())
}

/// Frame and part of a message, as the index file of its segment says. An index file that does not prove itself is of no
/// use: its rows are made anew from the segment.
fn look_up<H: ViewHolder + ?Sized>(
    holder: &H,
    at_hand: &mut RowsAtHand,
    segment: &Segment,
    partition: PartitionId,
    offset: Offset,
) -> Result<(u32, u32)> {
    let salt = segment.salt();
    if let Some(place) = at_hand.find(salt, partition, offset) {
        return Ok(place);
    }
    if load_rows(holder, at_hand, segment, (partition, offset), Index::look_up)? {
        return at_hand.find(salt, partition, offset).ok_or_else(|| absent(partition, offset));
    }
    let located = holder.with_view(|view| view.locate(partition, offset));
    match located.map(|located| located.place) {
        Some(MessageLocation::Known { at, part, .. }) => Ok((at, part)),
        _ => Err(absent(partition, offset)),
    }
}

/// Reads rows from the index file of a segment, as one of the look-ups of [`Index`] says. `false` where it has no such file that is of use:
/// then the view knows the rows.
pub(super) fn load_rows<H: ViewHolder + ?Sized>(
    holder: &H,
    at_hand: &mut RowsAtHand,
    segment: &Segment,
    (partition, offset): (PartitionId, Offset),
    look_up: LookUp,
) -> Result<bool> {
    let salt = segment.salt();
    let Some(index) = holder.with_view(|view| view.positions.index(segment.number())) else { return Ok(false) };
    // A reader that comes from the last row reads on; any other may want this row alone.
    let is_next = at_hand.rows.last().is_some_and(|row| row.end() == offset.0);
    let reads_on = at_hand.salt == salt && at_hand.key == partition.0 && is_next;
    let max = if reads_on { ROWS_AHEAD } else { 1 };
    let found = look_up(&index, &holder.caches().blocks, partition.0, offset.0, max, &mut at_hand.rows);
    if let Ok(true) = found {
        (at_hand.salt, at_hand.key, at_hand.last) = (salt, partition.0, 0);
        return Ok(true);
    }
    at_hand.rows.clear();
    let wanted = holder.with_view(|view| view.wanted_keys(segment, &index));
    let runs = read_runs(segment, &index, &wanted)?;
    holder.with_view(|view| {
        // Meanwhile the segment may have been retired, or somebody else may have made its rows anew.
        let known = view.positions.index(segment.number()).is_some_and(|known| Arc::ptr_eq(&known, &index));
        if known && view.catalog.segment(segment.number()).is_some() {
            view.positions.set_unindexed(runs);
        }
    });
    Ok(false)
}

/// A look-up in an index file: the key, the ordinal, how many rows at most, and where they go.
type LookUp = fn(&Index, &BlockCache, u64, u64, usize, &mut Vec<log::Row>) -> io::Result<bool>;

impl RowsAtHand {
    /// The first row that goes beyond `offset`, if it is cached.
    pub(super) fn next(&self, salt: u64, partition: PartitionId, offset: Offset) -> Option<log::Row> {
        if self.salt != salt || self.key != partition.0 {
            return None;
        }
        let index = self.rows.partition_point(|row| row.end() <= offset.0);
        // There may be rows before the first.
        let is_known = |row: &log::Row| index > 0 || row.holds(offset.0);
        self.rows.get(index).copied().filter(is_known)
    }

    /// Frame and part of a message, if its row is cached.
    fn find(&mut self, salt: u64, partition: PartitionId, offset: Offset) -> Option<(u32, u32)> {
        if self.salt != salt || self.key != partition.0 {
            return None;
        }
        let holds = |at: usize| self.rows.get(at).is_some_and(|row| row.holds(offset.0));
        if !holds(self.last) {
            let search = || self.rows.partition_point(|row| row.first <= offset.0).checked_sub(1);
            self.last = if holds(self.last + 1) { self.last + 1 } else { search().filter(|at| holds(*at))? };
        }
        let row = self.rows.get(self.last)?;
        let skip = u32::try_from(offset.0.checked_sub(row.first)?).ok()?;
        Some((row.at, row.part.checked_add(skip)?))
    }
}

/// Where the messages of the `wanted` partitions of a segment stand, as its frames say; those that no frame tells of are where
/// nothing proves itself. `index` says from where to where they go.
fn read_runs(segment: &Segment, index: &Index, wanted: &BTreeSet<PartitionId>) -> Result<SegmentRuns> {
    let share = |partition| if wanted.contains(&partition) { Share::Wanted } else { Share::Passed };
    let mut runs = SegmentRuns::new(segment.number());
    let mut records = Vec::new();
    log::for_each_left::<ReplayError>(segment, segment.base(), Lsn(u64::MAX), &mut |met| {
        match met {
            Met::Hole(at) => runs.note_hole(at),
            Met::Frame(frame) if frame.is_log() => {}
            Met::Frame(frame) => {
                let decoded = decode_frame(segment, frame, &mut records).is_ok();
                if !decoded || !runs.try_push_all(&records, frame.at, &share) {
                    runs.note_hole(frame.at);
                }
            }
        }
        Ok(())
    })
    .map_err(|failure| failure.0)?;
    for key in index.keys().iter().filter(|key| wanted.contains(&PartitionId(key.key))) {
        runs.complete(PartitionId(key.key), (Offset(key.first), Offset(key.end)));
    }
    Ok(runs)
}

/// What a newer version wrote.
pub(super) fn newer_format(newer: Newer) -> Error {
    Error::NewerFormat { found: newer.to_string(), supported: format!("{}s up to {}", newer.what, newer.known_max) }
}

/// Whatever ends a walk over frames.
pub(super) struct ReplayError(pub(super) Error);

impl From<ReadError> for ReplayError {
    fn from(error: ReadError) -> Self {
        Self(read_error(error))
    }
}

/// Puts the records of a frame in place of what `records` held.
pub(super) fn decode_frame(
    segment: &Segment,
    frame: &log::Frame<'_>,
    records: &mut Vec<Record>,
) -> Result<(), ReplayError> {
    records.clear();
    for record in codec::decode(frame.head()) {
        records.push(record.map_err(|error| {
            ReplayError(match error {
                // seam: a newer record is damage
                DecodeError::Newer(newer) => newer_format(newer),
                DecodeError::Truncated | DecodeError::BadNumber | DecodeError::Invalid(_) => {
                    damaged(segment, frame, "a record that cannot be decoded")
                }
            })
        })?);
    }
    Ok(())
}

pub(super) fn damaged(segment: &Segment, frame: &log::Frame<'_>, reason: &'static str) -> Error {
    let end = frame.lsn.saturating_add(u64::from(frame.padded()));
    Error::Corrupt(Corruption {
        file: segment.name().to_string(),
        offset: Some(u64::from(frame.at)),
        lsns: Some((frame.lsn, end)),
        reason,
    })
}

pub(crate) fn absent(partition: PartitionId, offset: Offset) -> Error {
    Error::Corrupt(Corruption {
        file: format!("partition {partition}, offset {offset}"),
        offset: None,
        lsns: None,
        reason: "a message that no segment holds",
    })
}

/// The failure to read a message, unless it is passing.
#[cold]
pub(crate) fn unreadable<H: ViewHolder + ?Sized>(
    holder: &H,
    (partition, offset): (PartitionId, Offset),
    cause: Error,
) -> Error {
    if cause.is_passing() || cause.kind() == ErrorKind::Retry {
        return cause;
    }
    let named = holder.with_view(|view| {
        let (topic, index) = view.state.public_place(partition)?;
        Some((view.state.topic(topic)?.name.to_string(), index))
    });
    match named {
        Some((topic, partition)) => Error::Unreadable { topic, partition, offset: offset.0, cause: Arc::new(cause) },
        None => Error::Removed { what: "topic" },
    }
}

/// A failure to read, as the caller sees it.
fn read_error(error: ReadError) -> Error {
    match error {
        ReadError::Io { file, source } => Error::io("read", source).at(Path::new(&file.to_string())),
        ReadError::Damaged { file, at, reason } => Error::Corrupt(Corruption::of(file, Some(at), reason)),
    }
}
