//! Messages for later: they lie in a hidden partition of their topic, and move to one that is read when they are due.
//!
//! A topic gets its hidden partition with the first of them. What is known here of a message is where it goes and when; by whose clock it
//! is due says whether jumps of the wall clock count. A move is one record with its copy, so that a message is in one place. Never here:
//! reading clocks, the bytes of messages.

mod decide;
mod snapshot;
#[cfg(test)]
mod tests;

pub(super) use snapshot::{ScheduleEntries, decode, encode};

use super::kit::tree::Tree;
use super::message::{Applied, require};
use super::{Rejection, Role, State};
use crate::ids::{Epoch, Lsn, Offset, PartitionId, StoreMs, TopicId, WallMs};
use crate::limits::SCHEDULED_MAX;
use crate::record::{Copied, DueTime};
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// A message that is not due yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scheduled {
    pub(crate) to: PartitionId,
    pub(crate) due: DueTime,
    /// That of its frame: where a crash took that, another message gets the place, and is not meant by the first one's id.
    pub(crate) epoch: Epoch,
}

/// Those of one topic.
#[derive(Clone, Debug, Default)]
pub(in crate::state) struct Schedule {
    entries: Tree<Offset, Scheduled>,
    /// The same in the order in which they are due, for each clock.
    by_store: BTreeSet<(StoreMs, Offset)>,
    by_wall: BTreeSet<(WallMs, Offset)>,
}

impl Schedule {
    fn insert(&mut self, offset: Offset, scheduled: Scheduled) {
        match scheduled.due {
            DueTime::Store(time) => _ = self.by_store.insert((time, offset)),
            DueTime::Wall(time) => _ = self.by_wall.insert((time, offset)),
        }
        self.entries.insert(offset, scheduled);
    }

    fn remove(&mut self, offset: Offset) -> Option<Scheduled> {
        let scheduled = self.entries.remove(&offset)?;
        match scheduled.due {
            DueTime::Store(time) => _ = self.by_store.remove(&(time, offset)),
            DueTime::Wall(time) => _ = self.by_wall.remove(&(time, offset)),
        }
        Some(scheduled)
    }

    fn len(&self) -> u64 {
        self.entries.len() as u64
    }
}

/// What all topics have for later, by their hidden partitions.
#[derive(Clone, Debug, Default)]
pub(in crate::state) struct Schedules {
    of: BTreeMap<PartitionId, Schedule>,
    len: u64,
}

/// What is due next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NextDue {
    pub(crate) store: Option<StoreMs>,
    pub(crate) wall: Option<WallMs>,
}

/// The first of several messages that are due, and those behind it.
struct DueNext<'a> {
    first: (WallMs, Offset),
    partition: PartitionId,
    others: Box<dyn Iterator<Item = (WallMs, Offset)> + 'a>,
}

impl DueNext<'_> {
    fn order(&self) -> (WallMs, PartitionId, Offset) {
        (self.first.0, self.partition, self.first.1)
    }
}

impl PartialEq for DueNext<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl Eq for DueNext<'_> {}

impl PartialOrd for DueNext<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for DueNext<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order().cmp(&other.order())
    }
}

impl Schedules {
    pub(in crate::state) fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn get(&self, partition: PartitionId, offset: Offset) -> Option<Scheduled> {
        self.of.get(&partition)?.entries.get(&offset).copied()
    }

    fn insert(&mut self, partition: PartitionId, offset: Offset, scheduled: Scheduled) {
        let schedule = self.of.entry(partition).or_default();
        schedule.insert(offset, scheduled);
        self.len += 1;
    }

    fn remove(&mut self, partition: PartitionId, offset: Offset) -> Option<Scheduled> {
        let schedule = self.of.get_mut(&partition)?;
        let removed = schedule.remove(offset)?;
        self.len -= 1;
        // The search for what is due goes through all that are there.
        if schedule.len() == 0 {
            self.of.remove(&partition);
        }
        Some(removed)
    }

    /// Takes out what a topic has for later, to be freed elsewhere.
    pub(in crate::state) fn forget(&mut self, partition: PartitionId) -> Option<Schedule> {
        let forgotten = self.of.remove(&partition)?;
        self.len -= forgotten.len();
        Some(forgotten)
    }

    /// The first message of the partition at or behind `from` that is not due yet.
    pub(in crate::state) fn first_from(&self, partition: PartitionId, from: Offset) -> Option<Offset> {
        self.of.get(&partition)?.entries.from(from).next().map(|(offset, _)| *offset)
    }

    /// Whether what is kept twice agrees.
    pub(in crate::state) fn check(&self, fault: &mut impl FnMut(&'static str)) {
        let mut again = Self::default();
        for (partition, schedule) in &self.of {
            for (offset, scheduled) in schedule.entries.iter() {
                again.insert(*partition, *offset, *scheduled);
            }
            let rebuilt = again.of.get(partition);
            let same = |other: &Schedule| other.by_store == schedule.by_store && other.by_wall == schedule.by_wall;
            if !rebuilt.map_or(schedule.by_store.is_empty() && schedule.by_wall.is_empty(), same) {
                fault("the order in which messages are due is not that of their times");
            }
        }
        if again.len != self.len || self.len > SCHEDULED_MAX {
            fault("the number of scheduled messages is not what there are, or too large");
        }
    }
}

impl State {
    /// The hidden partition of the topic's messages for later, if it has had any.
    pub(crate) fn schedule_of(&self, topic: TopicId) -> Option<PartitionId> {
        self.catalog.topic(topic)?.schedule
    }

    /// A message that is not due yet.
    pub(crate) fn scheduled(&self, partition: PartitionId, offset: Offset) -> Option<Scheduled> {
        self.schedules.get(partition, offset)
    }

    /// At most `max` messages of a topic that are not due yet, in the order in which they were published, from `from` on.
    pub(crate) fn scheduled_from(&self, topic: TopicId, from: Offset, max: usize) -> Vec<(Offset, Scheduled)> {
        let schedule = self.schedule_of(topic).and_then(|partition| self.schedules.of.get(&partition));
        let entries = schedule.into_iter().flat_map(|schedule| schedule.entries.from(from));
        entries.take(max).map(|(offset, scheduled)| (*offset, *scheduled)).collect()
    }

    /// At most `max` messages whose time has come, in the order of their times.
    pub(crate) fn due(&self, store: StoreMs, wall: WallMs, max: usize) -> Vec<(PartitionId, Offset)> {
        let mut firsts = BinaryHeap::new();
        for (partition, schedule) in &self.schedules.of {
            // seam: a scheduled message comes early
            let by_store = schedule.by_store.iter().take_while(move |(time, _)| *time <= store);
            let by_wall = schedule.by_wall.iter().take_while(move |(time, _)| *time <= wall);
            let by_store = by_store.map(|(time, offset)| (self.wall_of(DueTime::Store(*time)), *offset));
            let of_both: [Box<dyn Iterator<Item = (WallMs, Offset)> + '_>; 2] =
                [Box::new(by_store), Box::new(by_wall.copied())];
            for mut others in of_both {
                firsts.extend(others.next().map(|first| Reverse(DueNext { first, partition: *partition, others })));
            }
        }
        let mut due = Vec::new();
        while due.len() < max
            && let Some(Reverse(DueNext { first: (_, offset), partition, mut others })) = firsts.pop()
        {
            due.push((partition, offset));
            firsts.extend(others.next().map(|first| Reverse(DueNext { first, partition, others })));
        }
        due
    }

    /// The earliest due time by each clock.
    pub(crate) fn next_due(&self) -> NextDue {
        let schedules = || self.schedules.of.values();
        NextDue {
            store: schedules().filter_map(|schedule| schedule.by_store.first().map(|(time, _)| *time)).min(),
            wall: schedules().filter_map(|schedule| schedule.by_wall.first().map(|(time, _)| *time)).min(),
        }
    }

    /// When the wall clock will say that a message is due, but for jumps to come.
    pub(crate) fn wall_of(&self, due: DueTime) -> WallMs {
        match due {
            DueTime::Store(time) => WallMs(time.0.saturating_add_signed(self.jumped_ms)),
            DueTime::Wall(time) => time,
        }
    }

    /// Whether anything is scheduled.
    pub(crate) fn has_scheduled(&self) -> bool {
        !self.schedules.is_empty()
    }

    pub(in crate::state) fn apply_schedule_created(&mut self, topic: TopicId, partition: PartitionId) -> Applied {
        self.check_new_schedule(topic, partition)?;
        self.catalog.add_schedule(topic);
        Ok(())
    }

    pub(in crate::state) fn apply_scheduled(
        &mut self,
        (partition, offset): (PartitionId, Offset),
        (to, due): (PartitionId, DueTime),
        again: bool,
    ) -> Applied {
        require(offset < self.catalog.end(partition), "a message that is not there is scheduled")?;
        let Some(Role::Schedule { topic }) = self.catalog.role(partition) else {
            return Err(Rejection::UnknownPartition.into());
        };
        let goes_there = matches!(self.catalog.role(to), Some(Role::Topic { topic: of, .. }) if of == topic);
        require(goes_there, "a scheduled message goes to another topic than its own")?;
        let before = self.scheduled(partition, offset);
        require(before.is_some() == again, "a message is scheduled twice, or again without having been")?;
        require(again || self.schedules.len < SCHEDULED_MAX, "more messages are scheduled than may be")?;
        self.schedules.remove(partition, offset);
        let epoch = before.map_or(self.epoch, |before| before.epoch);
        self.schedules.insert(partition, offset, Scheduled { to, due, epoch });
        Ok(())
    }

    pub(in crate::state) fn apply_schedule_ended(
        &mut self,
        (partition, offset): (PartitionId, Offset),
        copy: Option<&Copied>,
        lsn: Lsn,
    ) -> Applied {
        let scheduled = self.scheduled(partition, offset);
        let Scheduled { to, .. } = scheduled.ok_or(Rejection::NotScheduled)?;
        if let Some(copy) = copy {
            require(copy.partition == to, "a scheduled message goes elsewhere than it was to")?;
            self.check_copy(copy)?;
            self.catalog.add_copy(copy.partition);
        }
        // seam: a scheduled message comes again and again
        self.schedules.remove(partition, offset);
        self.move_key((partition, offset), copy.map(|copy| (copy.partition, copy.offset)), lsn);
        Ok(())
    }
}
