//! A state as it was at one moment, and its bytes: what a checkpoint holds.
//!
//! A [`Snapshot`] shares its pages with the state, so taking one copies pointers. Its bytes are canonical: equal states have equal
//! bytes, and no other bytes are taken for them. Only what cannot be worked out from the rest is written; queues and totals are rebuilt.
//! Numbers are varints as in the records. Never here: checksums (the file around has them), or trust in them: any bytes give
//! an error or a state that keeps its invariants.
//!
//! ```text
//! version | epoch | next topic | next group | next partition
//! topics     count, then each: gap, name, first partition, count of partitions, options, end of each partition
//! groups     count, then each as in `group`
//! exclusive  flags, [pending], [granted]
//! jumped     how much later the wall clock is for jumps, in milliseconds, as a signed number
//! cursors    as in `cursor`
//! schedules  as in `schedule`
//! ids        as in `dedup`
//! ages       as in `retention`
//! keys       as in `unique`
//! ```
//! A gap is the distance from the number before less one.

use super::cursor::CursorState;
use super::dedup::Ids;
use super::group::GroupData;
use super::kit::named::NamedSnapshot;
use super::lease::ExclusiveLeases;
use super::retention::AgesSnapshot;
use super::schedule::ScheduleEntries;
use super::topic::Tables;
use super::unique::PendingKeys;
use super::{State, cursor, dedup, group, lease, retention, schedule, topic, unique};
use crate::ids::{Epoch, GroupId, Offset, PartitionId, TopicId};
use crate::record::message::splitmix;
use crate::record::wire::{ByteReader, DecodeError, Newer, put_signed, put_varint};
use std::collections::BTreeMap;

const VERSION: u8 = 1;

/// The shortest group, so that a count is never believed beyond the bytes.
const GROUP_LEN_MIN: usize = 18;

/// What a state was. Nothing in it changes any more.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    epoch: Epoch,
    tables: Tables,
    groups: Vec<(GroupId, GroupData)>,
    exclusive: ExclusiveLeases,
    jumped_ms: i64,
    cursors: NamedSnapshot<CursorState>,
    ids: Ids,
    scheduled: ScheduleEntries,
    ages: AgesSnapshot,
    keys: PendingKeys,
}

impl Snapshot {
    pub(super) fn of(state: &State) -> Self {
        let groups = state.groups.iter().map(|(id, group)| (*id, group.data.clone())).collect();
        Self {
            epoch: state.epoch,
            tables: state.catalog.tables().clone(),
            groups,
            exclusive: state.exclusive,
            jumped_ms: state.jumped_ms,
            cursors: state.cursors.snapshot(),
            ids: state.dedup.snapshot(),
            scheduled: state.schedules.snapshot(),
            ages: state.ages.snapshot(),
            keys: state.uniques.snapshot(),
        }
    }

    /// How many messages of a topic are not due yet, by its hidden partition for them.
    pub(crate) fn scheduled(&self, partition: PartitionId) -> u64 {
        let found = self.scheduled.binary_search_by_key(&partition, |(of, _)| *of).ok();
        found.map_or(0, |at| self.scheduled[at].1.len() as u64)
    }

    /// Those of its messages `first..end`, each for itself.
    pub(super) fn scheduled_within(&self, partition: PartitionId, first: Offset, end: Offset) -> Vec<(Offset, Offset)> {
        let found =
            self.scheduled.iter().filter(|(of, _)| *of == partition).flat_map(|(_, entries)| entries.from(first));
        found.map(|(offset, _)| (*offset, offset.saturating_add(1))).take_while(|(offset, _)| *offset < end).collect()
    }

    /// From where on a topic that keeps its messages for a time keeps those of a partition.
    pub(super) fn kept_by_age(&self, topic: TopicId, index: u32) -> Option<Offset> {
        let found = self.ages.binary_search_by_key(&topic, |(of, _)| *of).ok();
        found.map(|at| self.ages[at].1.kept_from(index))
    }

    pub(super) fn cursors(&self) -> &NamedSnapshot<CursorState> {
        &self.cursors
    }

    pub(super) fn tables(&self) -> &Tables {
        &self.tables
    }

    pub(super) fn all_groups(&self) -> &[(GroupId, GroupData)] {
        &self.groups
    }

    /// Appends the state's bytes.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        put_varint(out, self.epoch.0);
        topic::encode(&self.tables, out);
        put_varint(out, self.groups.len() as u64);
        let mut next = 0;
        for (id, group) in &self.groups {
            put_gap(out, id.0, &mut next);
            group::encode(group, |partition| self.end(partition), out);
        }
        lease::encode_exclusive(&self.exclusive, out);
        put_signed(out, self.jumped_ms);
        cursor::encode(&self.cursors, out);
        schedule::encode(&self.scheduled, &self.tables, out);
        dedup::encode(&self.ids, out);
        retention::encode(&self.ages, out);
        unique::encode(&self.keys, out);
    }

    /// A hash of the state's bytes: equal for equal states, and only good for comparing.
    pub(crate) fn hash(&self) -> u64 {
        let mut bytes = Vec::new();
        self.encode(&mut bytes);
        let (words, rest) = bytes.as_chunks::<8>();
        let hash = words.iter().fold(bytes.len() as u64, |hash, word| splitmix(hash ^ u64::from_le_bytes(*word)));
        rest.iter().fold(hash, |hash, &byte| splitmix(hash ^ u64::from(byte)))
    }
}

impl State {
    /// The state that `bytes` are of.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let reader = &mut ByteReader::new(bytes);
        match reader.byte()? {
            VERSION => {}
            0 => return Err(DecodeError::Invalid("a snapshot of version 0")),
            version => {
                let (number, known_max) = (u64::from(version), u64::from(VERSION));
                return Err(DecodeError::Newer(Newer { what: "state version", number, known_max }));
            }
        }
        let epoch = Epoch(reader.varint()?);
        let mut catalog = topic::decode(reader)?;
        let (mut gaps, mut groups) = (Gaps::default(), BTreeMap::new());
        for _ in 0..reader.count(GROUP_LEN_MIN)? {
            let id = GroupId(gaps.next(reader)?);
            let group = group::decode(reader, id, &mut catalog)?;
            groups.insert(id, Box::new(group));
        }
        let exclusive = lease::decode_exclusive(reader)?;
        if !group::has_room_for_group(groups.len().saturating_sub(1)) {
            return Err(DecodeError::Invalid("more groups than a store has"));
        }
        let jumped_ms = reader.signed()?;
        let cursors = cursor::decode(reader)?;
        let schedules = schedule::decode(reader, &mut catalog)?;
        let dedup = dedup::decode(reader, &catalog)?;
        let ages = retention::decode(reader, &catalog)?;
        let (uniques, removed) = (unique::decode(reader)?, Vec::new());
        let state =
            Self { epoch, jumped_ms, catalog, groups, exclusive, cursors, dedup, schedules, ages, uniques, removed };
        if !reader.is_empty() {
            return Err(DecodeError::Invalid("bytes after the end"));
        }
        if !state.keys_fit() {
            return Err(DecodeError::Invalid("a unique key of a message that is not pending"));
        }
        if state.exclusive_fits() { Ok(state) } else { Err(DecodeError::Invalid("an exclusive lease that cannot be")) }
    }
}

/// Appends a number that is not below `next`, which is then the one behind it.
pub(super) fn put_gap(out: &mut Vec<u8>, number: u64, next: &mut u64) {
    put_varint(out, number - *next);
    *next = number + 1;
}

/// Rising numbers, each as its distance from the one before less one.
#[derive(Default)]
pub(super) struct Gaps {
    next: u64,
}

impl Gaps {
    pub(super) fn next(&mut self, reader: &mut ByteReader<'_>) -> Result<u64, DecodeError> {
        let id = self.next.checked_add(reader.varint()?).ok_or(DecodeError::BadNumber)?;
        self.next = id.checked_add(1).ok_or(DecodeError::BadNumber)?;
        Ok(id)
    }
}
