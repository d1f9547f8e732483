//! Messages on their way into the log, encoded and checksummed before the lock, and where they were put.
//!
//! Never here: deciding, and taking the lock.

use super::core::{CommitOutcome, Core};
use super::dedup::DedupHasher;
use crate::error::{Error, Result};
use crate::ids::{Epoch, Lsn, Offset, PartitionId, TopicId};
use crate::log::Parts;
use crate::record::{KeyHash, Record, message};
use crate::state::{Command, DedupId, Delay, Later, Sequence, UniqueKey, WhilePending};
use smallvec::SmallVec;

/// How much memory an emptied [`Outgoing`] keeps.
const KEPT_BYTES: usize = 4 << 20;

/// What some messages of a frame have beside their bytes, in the order of the messages.
#[derive(Clone, Default)]
struct Marks {
    ids: Vec<DedupId>,
    delays: Vec<Delay>,
    uniques: Vec<UniqueKey>,
}

impl Marks {
    fn clear(&mut self) {
        let Self { ids, delays, uniques } = self;
        ids.clear();
        delays.clear();
        uniques.clear();
    }

    /// Gives message number `part` here, the last one, what message number `nth` has of `others`.
    fn take_over(&mut self, part: u32, others: &Self, nth: u32) {
        let id = others.ids.binary_search_by_key(&nth, |id| id.part);
        self.ids.extend(id.ok().map(|at| DedupId { part, ..others.ids[at] }));
        let delay = others.delays.binary_search_by_key(&nth, |delay| delay.part);
        self.delays.extend(delay.ok().map(|at| Delay { part, ..others.delays[at] }));
        let unique = others.uniques.binary_search_by_key(&nth, |unique| unique.part);
        self.uniques.extend(unique.ok().map(|at| UniqueKey { part, ..others.uniques[at] }));
    }
}

/// Encoded messages on their way into one frame.
pub(crate) struct Outgoing {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    crcs: Vec<u32>,
    runs: Vec<(PartitionId, u32)>,
    marks: Marks,
    /// Has seen a byte of zero, with which every message begins that has neither key nor headers. Making one looks at the processor's
    /// features, which costs as much as some messages.
    after_zero: crc32fast::Hasher,
}

impl Default for Outgoing {
    fn default() -> Self {
        let mut after_zero = crc32fast::Hasher::new();
        after_zero.update(&[0]);
        let (bytes, ends, crcs, runs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { bytes, ends, crcs, runs, marks: Marks::default(), after_zero }
    }
}

/// Where one frame's messages were put.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) epoch: Epoch,
    pub(crate) lsn: Lsn,
    /// Once this is durable, so are the messages.
    pub(crate) end: Lsn,
    /// Where the runs of its [`Outgoing`] were put, in their order.
    pub(crate) runs: SmallVec<[PublishedRun; 1]>,
}

/// Messages of one partition, next to each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PublishedRun {
    pub(crate) first: Offset,
    pub(crate) count: u32,
}

impl Published {
    /// Where a commit put its frame, and the first `runs` runs of messages that it published. Behind them are notices.
    #[inline]
    pub(super) fn of(core: &Core, committed: &CommitOutcome, runs: usize) -> Self {
        let published = core.records.iter().filter_map(|record| {
            let Record::Published { base, count, .. } = record else { return None };
            Some(PublishedRun { first: *base, count: *count })
        });
        let end = core.appender.end();
        let (lsn, end) = committed.frame.unwrap_or((end, end));
        Self { epoch: core.appender.epoch(), lsn, end, runs: published.take(runs).collect() }
    }
}

impl Outgoing {
    /// Makes it empty. A batch of unusual size does not keep its memory.
    #[inline]
    pub(crate) fn clear(&mut self) {
        if self.bytes.capacity() > KEPT_BYTES {
            *self = Self::default();
        }
        self.bytes.clear();
        self.ends.clear();
        self.crcs.clear();
        self.runs.clear();
        self.marks.clear();
    }

    /// Adds a message for a partition. Before they are published, messages of one partition must stand together:
    /// see [`Outgoing::group_by_partition`].
    ///
    /// # Errors
    /// `TooLarge` where the message or the batch exceeds its limit; the batch is then of no use.
    #[inline]
    pub(crate) fn add<'a>(
        &mut self,
        partition: PartitionId,
        key: Option<&[u8]>,
        headers: impl ExactSizeIterator<Item = (&'a str, &'a [u8])> + Clone,
        payload: &[u8],
        message_len_max: usize,
    ) -> Result<()> {
        self.count_in(partition);
        let start = self.bytes.len();
        message::encode_front(key, headers, &mut self.bytes);
        let crc = self.checksum(&self.bytes[start..], payload);
        self.bytes.extend_from_slice(payload);
        check_len("message", self.bytes.len() - start, message_len_max, "bytes")?;
        check_len(
            "batch or transaction",
            self.bytes.len(),
            crate::limits::FRAME_LEN_MAX - crate::limits::HEAD_LEN_MAX,
            "bytes",
        )?;
        self.end_message(crc);
        check_len("batch or transaction", self.ends.len(), crate::limits::FRAME_PARTS_MAX, "messages")
    }

    /// Gives the message that was added last an id.
    pub(crate) fn identify(&mut self, hasher: &DedupHasher, topic: TopicId, id: &[u8]) {
        let Some(part) = self.ends.len().checked_sub(1) else { return };
        let start = part.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        let body = hasher.body(&self.bytes[start..]);
        self.marks.ids.push(DedupId { part: part as u32, id: hasher.id(topic, id), body });
    }

    /// Says where the message that was added last goes, and when.
    pub(crate) fn delay(&mut self, to: PartitionId, later: Later) {
        let Some(part) = self.ends.len().checked_sub(1) else { return };
        self.marks.delays.push(Delay { part: part as u32, to, later });
    }

    /// Gives the message that was added last a unique key.
    pub(crate) fn make_unique(&mut self, key: u128, message_key: Option<&[u8]>, while_pending: WhilePending) {
        let Some(part) = self.ends.len().checked_sub(1) else { return };
        let message_key = KeyHash::of(message_key);
        self.marks.uniques.push(UniqueKey { part: part as u32, key, message_key, while_pending });
    }

    /// # Errors
    /// `InvalidOption` where two messages have the same unique key.
    pub(crate) fn check_unique_keys(&self) -> Result<()> {
        let mut keys: Vec<u128> = self.marks.uniques.iter().map(|unique| unique.key).collect();
        keys.sort_unstable();
        if keys.array_windows().all(|[one, other]| one != other) {
            return Ok(());
        }
        let value = "given to two messages of one write".to_owned();
        Err(Error::InvalidOption { option: "unique_key", value, expected: "another one for another message" })
    }

    /// Whether any of them is for later.
    pub(crate) fn has_delays(&self) -> bool {
        !self.marks.delays.is_empty()
    }

    /// The messages whose ids an earlier one of the same bytes has: its number and that of the earlier one, in order.
    ///
    /// # Errors
    /// `InvalidOption` where another message has the same id.
    pub(crate) fn doubles(&self) -> Result<Vec<(u32, u32)>> {
        let mut ids = self.marks.ids.clone();
        ids.sort_unstable_by_key(|id| (id.id, id.part));
        let mut doubles = Vec::new();
        for same in ids.chunk_by(|one, other| one.id == other.id) {
            let Some((first, others)) = same.split_first() else { continue };
            if others.iter().any(|other| other.body != first.body) {
                let value = "given to two messages of one write".to_owned();
                return Err(Error::InvalidOption {
                    option: "dedup_id",
                    value,
                    expected: "another one for another message",
                });
            }
            doubles.extend(others.iter().map(|other| (other.part, first.part)));
        }
        doubles.sort_unstable();
        Ok(doubles)
    }

    /// Takes these messages out, whose numbers rise.
    pub(crate) fn leave_out(&mut self, parts: &[u32]) {
        let mut kept = Self::default();
        let (mut parts, mut nth) = (parts.iter().peekable(), 0u32);
        for (partition, count) in &self.runs {
            for _ in 0..*count {
                let at = nth as usize;
                let start = at.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
                if parts.next_if_eq(&&nth).is_none() {
                    kept.bytes.extend_from_slice(&self.bytes[start..self.ends[at] as usize]);
                    kept.count_in(*partition);
                    kept.marks.take_over(kept.ends.len() as u32, &self.marks, nth);
                    kept.end_message(self.crcs[at]);
                }
                nth += 1;
            }
        }
        *self = kept;
    }

    /// How many runs of messages of one partition.
    pub(super) fn runs(&self) -> usize {
        self.runs.len()
    }

    /// How many messages.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Puts the messages of each partition together, in the order of adding. Where that changes their order, returns for each
    /// place the number of the message that is there now.
    pub(crate) fn group_by_partition(&mut self) -> Option<Vec<u32>> {
        if self.runs.len() < 2 || self.runs.is_sorted_by(|one, other| one.0 < other.0) {
            return None;
        }
        let runs = std::mem::take(&mut self.runs);
        let owners = runs.iter().flat_map(|(partition, count)| std::iter::repeat_n(*partition, *count as usize));
        let mut order: Vec<(PartitionId, u32)> = owners.zip(0..).collect();
        order.sort_unstable();
        let mut grouped = Self::default();
        grouped.bytes.reserve_exact(self.bytes.len());
        for (partition, nth) in &order {
            grouped.marks.take_over(grouped.ends.len() as u32, &self.marks, *nth);
            let nth = *nth as usize;
            let start = nth.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
            grouped.bytes.extend_from_slice(&self.bytes[start..self.ends[nth] as usize]);
            grouped.count_in(*partition);
            grouped.end_message(self.crcs[nth]);
        }
        *self = grouped;
        Some(order.into_iter().map(|(_, nth)| nth).collect())
    }

    /// Notes the end of the message that was just put at the end of the bytes.
    #[inline(always)]
    fn end_message(&mut self, crc: u32) {
        self.crcs.push(crc);
        self.ends.push(self.bytes.len() as u32);
    }

    /// Counts one message more for a partition.
    #[inline(always)]
    fn count_in(&mut self, partition: PartitionId) {
        match self.runs.last_mut() {
            Some((last, count)) if *last == partition => *count += 1,
            Some(_) | None => self.runs.push((partition, 1)),
        }
    }

    /// The CRC-32 of a message that consists of these two.
    #[inline]
    fn checksum(&self, front: &[u8], payload: &[u8]) -> u32 {
        let mut hasher = if front == [0] {
            self.after_zero.clone()
        } else {
            let mut hasher = crc32fast::Hasher::new();
            hasher.update(front);
            hasher
        };
        hasher.update(payload);
        hasher.finalize()
    }

    /// The ids of those that have one.
    pub(crate) fn ids(&self) -> &[DedupId] {
        &self.marks.ids
    }

    /// What publishes them.
    pub(crate) fn command<'a>(&'a self, sequence: Option<Sequence<'a>>) -> Command<'a> {
        let Marks { ids, delays, uniques } = &self.marks;
        Command::Publish { runs: &self.runs, ids, delays, uniques, sequence }
    }

    /// These messages, behind them those of appends, and behind all encoded ones that move elsewhere.
    ///
    /// # Errors
    /// `TooLarge`.
    pub(crate) fn with_others(&self, appends: &[&Self], copies: &[&[u8]]) -> Result<Self> {
        let mut all = Self {
            bytes: self.bytes.clone(),
            ends: self.ends.clone(),
            crcs: self.crcs.clone(),
            runs: self.runs.clone(),
            marks: self.marks.clone(),
            ..Self::default()
        };
        for append in appends {
            let start = all.bytes.len() as u32;
            all.bytes.extend_from_slice(&append.bytes);
            all.check_frame()?;
            all.ends.extend(append.ends.iter().map(|end| start + end));
            all.crcs.extend_from_slice(&append.crcs);
        }
        for copy in copies {
            all.bytes.extend_from_slice(copy);
            all.check_frame()?;
            all.end_message(crc32fast::hash(copy));
        }
        Ok(all)
    }

    fn check_frame(&self) -> Result<()> {
        let max = crate::limits::FRAME_LEN_MAX - crate::limits::HEAD_LEN_MAX;
        check_len("transaction", self.bytes.len(), max, "bytes")
    }

    pub(crate) fn parts(&self) -> Parts<'_> {
        Parts { bytes: &self.bytes, ends: &self.ends, crcs: &self.crcs }
    }
}

#[inline]
fn check_len(what: &'static str, len: usize, max: usize, unit: &'static str) -> Result<()> {
    if len <= max { Ok(()) } else { Err(Error::TooLarge { what, len: len as u64, max: max as u64, unit }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_that_of_the_whole_message() {
        for front in [&[0][..], &[1, 2, b'k', b'y'], &[0, 0], &[]] {
            assert_eq!(
                Outgoing::default().checksum(front, b"payload"),
                crc32fast::hash(&[front, b"payload"].concat()),
                "{front:?}"
            );
        }
    }
}
