//! Seeking: a group goes on from other places in the partitions of its topic.
//!
//! What it had in progress of the topic is let go, and its leases are lost. But a start is a place from which on nothing is gone, and may be
//! behind the place that was asked for. What the group has not settled between the two is not gone, and would never come again: it stays
//! outstanding, with a new account. Redriven messages are nowhere else: they stay as they are, with their leases, and so do dead letters.
//! What counts the turns of the group goes on. Never here: where a place is.

use super::{GroupData, GroupState};
use crate::ids::{GroupId, Offset, TopicId};
use crate::record::Record;
use crate::state::kit::tree::Tree;
use crate::state::lease::{OutstandingEntry, Phase, Prospect};
use crate::state::message::Applied;
use crate::state::{Inconsistent, Rejection, Removed, State};

/// How a group stands in the partitions of its topic, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupProgress {
    /// The sum of the offsets that come next.
    pub(crate) passed: u128,
    /// What is before these and not settled.
    pub(crate) unsettled: u64,
    /// How many of those are leased, by leases that are over or not.
    pub(crate) leased: u64,
    /// How many of them are before the starts of a seek and stay outstanding.
    pub(crate) kept: u64,
}

impl State {
    pub(in crate::state) fn decide_seek(
        &self,
        group: GroupId,
        from: &[Offset],
        starts: &[Offset],
    ) -> Result<Record, Rejection> {
        self.check_seek(group, from, starts)?;
        let starts = self.seek_starts(group, from, starts)?;
        Ok(Record::GroupSought { group, from: from.to_vec(), starts })
    }

    /// Where a group goes on in the partitions of its topic: at these places, but not behind what it has not come to. That is not gone, though
    /// something behind it is.
    pub(crate) fn seek_starts(
        &self,
        group: GroupId,
        from: &[Offset],
        starts: &[Offset],
    ) -> Result<Vec<Offset>, Rejection> {
        let group = self.group_named(group)?;
        let places = (0..).zip(from.iter().zip(starts));
        let going_on = places.map(|(cursor, (from, start))| {
            let next = group.next(cursor);
            let looked_for = group.order.first_counted(cursor).map_or(next, |counted| counted.min(next));
            // seam: a seek loses what is before a gap
            (*start).min((*from).max(looked_for))
        });
        Ok(going_on.collect())
    }

    /// Whether a group may go on so; also asked of a record.
    fn check_seek(&self, group: GroupId, from: &[Offset], starts: &[Offset]) -> Result<(), Rejection> {
        self.check_starts(self.group_named(group)?.topic, starts)?;
        let fits = from.len() == starts.len() && from.iter().zip(starts).all(|(from, start)| from <= start);
        if fits { Ok(()) } else { Err(Rejection::Invalid("what a group keeps is before its starts")) }
    }

    /// Whether a group of the topic may begin at these offsets, or go on there.
    pub(in crate::state) fn check_starts(&self, topic: TopicId, starts: &[Offset]) -> Result<(), Rejection> {
        let topic = self.catalog.topic(topic).ok_or(Rejection::UnknownTopic)?;
        if starts.len() != topic.count as usize {
            return Err(Rejection::Invalid("a group starts somewhere in each partition of its topic"));
        }
        let ends = topic.partitions().map(|partition| self.catalog.end(partition));
        if starts.iter().zip(ends).any(|(&start, end)| start > end) {
            return Err(Rejection::Invalid("a group cannot start beyond the end of a partition"));
        }
        Ok(())
    }

    pub(in crate::state) fn apply_group_sought(&mut self, id: GroupId, from: &[Offset], starts: &[Offset]) -> Applied {
        self.check_seek(id, from, starts)?;
        let group = self.groups.get_mut(&id).ok_or(Rejection::UnknownGroup)?;
        let sought = GroupState::restored(group.data.sought(from, starts));
        let sought = sought.ok_or(Inconsistent("what a group keeps contradicts itself"))?;
        let (topic, retry) = (group.topic, group.retry);
        let before = std::mem::replace(group, Box::new(sought));
        // seam: a message that was let go is waited for
        self.exclusive.let_go(id, retry);
        self.removed.push(Removed { partitions: 0..0, group: Some(before), _forgotten: None, _schedule: None });
        // Going ahead settles messages.
        // seam: a seek keeps keys taken
        self.let_go_settled_of(topic);
        Ok(())
    }

    /// How many messages a topic ever had.
    pub(crate) fn published_in(&self, topic: TopicId) -> u128 {
        self.catalog.audience(topic).map_or(0, |audience| audience.published)
    }
}

impl GroupData {
    /// What it is once it goes on from `starts`. Looks at what it keeps, and at nothing else that is in progress.
    fn sought(&self, from: &[Offset], starts: &[Offset]) -> Self {
        let mut data = self.clone();
        (data.entries, data.keys, data.counted) = (Tree::default(), Tree::default(), Tree::default());
        for (cursor, (from, start)) in (0..).zip(from.iter().zip(starts)) {
            data.set_next(cursor, *start);
            for (at, entry) in self.kept((cursor, *from), *start) {
                let phase = match entry.phase {
                    Phase::Parked { turn } => Phase::Parked { turn },
                    Phase::Leased(_) | Phase::Waiting { .. } | Phase::Ready { .. } => {
                        data.turns += 1;
                        Phase::Ready { turn: data.turns }
                    }
                };
                data.entries.insert(at, OutstandingEntry { phase, ..data.fresh_entry() });
                self.keys.get(&at).into_iter().for_each(|key| data.keys.insert(at, *key));
            }
        }
        let redriven = (self.retry_cursor(), Offset(0));
        // seam: a seek forgets redriven messages
        self.entries.from(redriven).for_each(|(at, entry)| data.entries.insert(*at, entry.clone()));
        self.keys.from(redriven).for_each(|(at, key)| data.keys.insert(*at, *key));
        data
    }

    fn fresh_entry(&self) -> OutstandingEntry {
        OutstandingEntry {
            phase: Phase::Ready { turn: 0 },
            attempts: 0,
            max_attempts: self.options.max_attempts,
            backoff_ms: 0,
            crashes: 0,
            closes: 0,
            prospect: Prospect::None,
            history: None,
        }
    }

    /// What is in progress of a cursor from an offset on, before a start that is behind it.
    fn kept(&self, from: (u32, Offset), start: Offset) -> impl Iterator<Item = ((u32, Offset), &OutstandingEntry)> {
        // seam: a seek loses what is kept before a gap
        self.entries.from(from).map(|(at, entry)| (*at, entry)).take_while(move |(at, _)| *at < (from.0, start))
    }

    /// Looks at all that is in progress: outside the lock.
    pub(crate) fn progress(&self, from: &[Offset], starts: &[Offset]) -> GroupProgress {
        let of_topic = || self.entries.iter().take_while(|((cursor, _), _)| *cursor < self.retry_cursor());
        let counted: u64 = self.counted.iter().map(|(_, run)| run.count).sum();
        let places = (0..).zip(from.iter().zip(starts));
        let kept = places.map(|(cursor, (from, start))| self.kept((cursor, *from), *start).count() as u64);
        GroupProgress {
            passed: self.topic_nexts().map(|(_, next)| u128::from(next.0)).sum(),
            unsettled: counted.saturating_add(of_topic().count() as u64),
            leased: of_topic().filter(|(_, entry)| entry.lease().is_some()).count() as u64,
            kept: kept.sum(),
        }
    }
}

impl Removed {
    /// What a group had in progress that it has let go of.
    pub(crate) fn group(&self) -> Option<&GroupData> {
        self.group.as_deref().map(|group| &group.data)
    }
}
