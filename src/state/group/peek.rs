//! Which messages of a group are in a given state: looked at, and left as they are.
//!
//! Never here: a change.

use super::GroupCounts;
use crate::ids::{GroupId, Offset, PartitionId};
use crate::record::{AttemptFailure, Filter};
use crate::state::lease::OutstandingEntry;
use crate::state::order::KeyOrder;
use crate::state::retry::History;
use crate::state::{Inputs, Snapshot};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a message of a group that is not settled waits for; counted as in [`GroupStats`](crate::GroupStats).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MessageState {
    /// A consumer: it could have it now.
    Ready,
    /// The end of its lease.
    Leased,
    /// Its retry, which is not due yet.
    Waiting,
    /// Its move to the dead letters: it has had its last attempt.
    Exhausted,
    /// In a group with an order: others of its key or partition.
    Parked,
    /// An operator: it is a dead letter.
    Dead,
}

/// A message that was looked for.
#[derive(Clone, Debug)]
pub(crate) struct PeekedPlace {
    pub(crate) partition: PartitionId,
    pub(crate) offset: Offset,
    /// How many attempts were counted, and how the last of them ended. Of a dead letter its copy says it.
    pub(crate) attempts: u32,
    pub(crate) history: Vec<AttemptFailure>,
    /// Whether it passes was never looked at.
    pub(crate) filter: Option<Arc<Filter>>,
}

impl Snapshot {
    /// The first `max` messages of the group in this state, by partition and offset. Messages that a group in order of keys only counts are
    /// left out.
    pub(crate) fn peek(
        &self,
        group: GroupId,
        wanted: MessageState,
        max: usize,
        inputs: &Inputs<'_>,
    ) -> Option<Vec<PeekedPlace>> {
        let (_, group) = self.groups().find(|(id, _)| *id == group)?;
        let place = |partition, offset| PeekedPlace {
            partition,
            offset,
            attempts: 0,
            history: Vec::new(),
            filter: group.options.filter.clone().filter(|_| partition < group.retry),
        };
        if wanted == MessageState::Dead {
            let dead = group.dead();
            let offsets = group.dead_letters.missing(Offset(0), inputs.visible.end(dead, self.end(dead)));
            return Some(offsets.take(max).map(|offset| place(dead, offset)).collect());
        }
        let lines = KeyOrder::of(group).map(|(lines, _)| lines).unwrap_or_default();
        let startable = lines.startable(group).collect();
        let mut found = Vec::new();
        for cursor in 0..group.cursors() {
            let partition = group.partition_of(cursor);
            let outstanding = group
                .entries_of(cursor)
                .filter(|(offset, entry)| entry.message_state((cursor, *offset), &startable, inputs) == wanted);
            found.extend(outstanding.take(max - found.len()).map(|(offset, entry)| PeekedPlace {
                partition,
                offset,
                attempts: entry.attempts,
                history: History::with(entry.history.as_deref(), None).0,
                filter: None,
            }));
            let (next, end) = (group.next(cursor), inputs.visible.end(partition, self.end(partition)));
            let split = next.saturating_add(lines.new_room(group, cursor)).min(end);
            let new = match wanted {
                MessageState::Ready => next..split,
                MessageState::Parked => split.max(next)..end,
                MessageState::Leased | MessageState::Waiting | MessageState::Exhausted | MessageState::Dead => {
                    next..next
                }
            };
            let new = (new.start.0..new.end.0).map(Offset);
            found.extend(new.take(max - found.len()).map(|offset| place(partition, offset)));
        }
        Some(found)
    }
}

impl OutstandingEntry {
    /// What it waits for, where the parked messages that may be leased are known.
    pub(super) fn message_state(
        &self,
        at: (u32, Offset),
        startable: &BTreeSet<(u32, Offset)>,
        inputs: &Inputs<'_>,
    ) -> MessageState {
        if self.is_live(inputs.mono) {
            MessageState::Leased
        } else if self.is_exhausted() {
            MessageState::Exhausted
        } else if !self.is_due(inputs.mono, inputs.wall) {
            MessageState::Waiting
        } else if self.parked().is_some() && !startable.contains(&at) {
            MessageState::Parked
        } else {
            MessageState::Ready
        }
    }
}

impl GroupCounts {
    /// Counts an outstanding message.
    pub(super) fn note(&mut self, state: MessageState) {
        self.lag += 1;
        match state {
            MessageState::Leased => self.leased += 1,
            MessageState::Exhausted => self.exhausted += 1,
            MessageState::Waiting => self.waiting += 1,
            MessageState::Parked => self.parked += 1,
            MessageState::Ready => self.ready += 1,
            MessageState::Dead => {}
        }
    }
}
