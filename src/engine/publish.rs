//! Publishing: messages in, their ids out.
//!
//! Messages are encoded and checksummed before the lock and copied once, under it, into the log. Never here: choosing a
//! partition (the handle does that).

use super::Engine;
use crate::error::{Error, Result};
use crate::ids::{Epoch, Lsn, Offset, PartitionId};
use crate::log::Parts;
use crate::record::{Record, message};
use crate::state::Command;

/// How much memory an emptied [`Outgoing`] keeps.
const KEPT_BYTES: usize = 4 << 20;

/// Encoded messages on their way into one frame.
pub(crate) struct Outgoing {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    crcs: Vec<u32>,
    runs: Vec<(PartitionId, u32)>,
    /// Has seen a byte of zero, with which every message begins that has neither key nor headers. Making one looks at the processor's
    /// features, which costs as much as some messages.
    after_zero: crc32fast::Hasher,
}

impl Default for Outgoing {
    fn default() -> Self {
        let mut after_zero = crc32fast::Hasher::new();
        after_zero.update(&[0]);
        Self { bytes: Vec::new(), ends: Vec::new(), crcs: Vec::new(), runs: Vec::new(), after_zero }
    }
}

/// Where one frame's messages were put.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Published {
    pub(crate) epoch: Epoch,
    pub(crate) lsn: Lsn,
    /// Once this is durable, so are the messages.
    pub(crate) end: Lsn,
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
        check_len("batch", self.bytes.len(), crate::limits::FRAME_LEN_MAX - crate::limits::HEAD_LEN_MAX, "bytes")?;
        self.end_message(crc);
        check_len("batch", self.ends.len(), crate::limits::FRAME_PARTS_MAX, "messages")
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
            _ => self.runs.push((partition, 1)),
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

    /// How many messages go into each partition, in order.
    pub(crate) fn runs(&self) -> &[(PartitionId, u32)] {
        &self.runs
    }

    /// These messages, and behind them encoded ones that move elsewhere.
    ///
    /// # Errors
    /// `TooLarge`.
    pub(crate) fn with_copies(&self, copies: &[&[u8]]) -> Result<Self> {
        let mut all = Self {
            bytes: self.bytes.clone(),
            ends: self.ends.clone(),
            crcs: self.crcs.clone(),
            runs: self.runs.clone(),
            ..Self::default()
        };
        for copy in copies {
            all.bytes.extend_from_slice(copy);
            check_len(
                "transaction",
                all.bytes.len(),
                crate::limits::FRAME_LEN_MAX - crate::limits::HEAD_LEN_MAX,
                "bytes",
            )?;
            all.end_message(crc32fast::hash(copy));
        }
        Ok(all)
    }

    pub(crate) fn parts(&self) -> Parts<'_> {
        Parts { bytes: &self.bytes, ends: &self.ends, crcs: &self.crcs }
    }
}

#[inline]
fn check_len(what: &'static str, len: usize, max: usize, unit: &'static str) -> Result<()> {
    if len <= max { Ok(()) } else { Err(Error::TooLarge { what, len: len as u64, max: max as u64, unit }) }
}

impl Engine {
    /// Appends the messages as one frame, and tells `each` the first offset of every run, in the order of adding.
    ///
    /// # Errors
    /// Nothing was published then, not even in part.
    pub(crate) fn publish(
        &self,
        outgoing: &Outgoing,
        mut each: impl FnMut(PartitionId, Offset, u32),
    ) -> Result<Published> {
        self.enter()?;
        let command = Command::Publish { runs: &outgoing.runs };
        let published = self.submit(&command, outgoing.parts(), |core, committed| {
            for record in &core.records {
                if let Record::Published { partition, base, count, .. } = record {
                    each(*partition, *base, *count);
                }
            }
            let (lsn, end) = committed.frame.unwrap_or((core.appender.end(), core.appender.end()));
            Published { epoch: core.appender.epoch(), lsn, end }
        })?;
        published.map_err(|rejection| self.rejected(rejection))
    }
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
