//! What happened since the store was opened, in running numbers.
//!
//! They follow the records of each commit, before the state does: what becomes of a lease is seen by whether it is there. Never here: what
//! can be counted in the state.

use crate::ids::{GroupId, TopicId};
use crate::record::{Cause, Record};
use crate::state::{Role, State};

/// What happened in a group since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupCounters {
    /// Leases granted. Those that no consumer saw are also counted in `released` or `unreadable`.
    pub delivered: u64,
    /// Acks.
    pub acked: u64,
    /// Nacks, drops included, and those of a last attempt.
    pub nacked: u64,
    /// Rejections.
    pub rejected: u64,
    /// Leases given back unused, whose attempts were not counted.
    pub released: u64,
    /// Leases that ended by the visibility timeout, counted when the message is delivered again or given up.
    pub expired: u64,
    /// Deliveries that failed since the message could not be read.
    pub unreadable: u64,
    /// Messages that became dead letters.
    pub dead: u64,
    /// Dead letters that were redriven.
    pub redriven: u64,
    /// Dead letters that were discarded.
    pub discarded: u64,
}

/// The numbers of all topics and groups.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// By group.
    groups: Vec<GroupCounters>,
    /// By topic: messages published.
    topics: Vec<u64>,
}

impl Counters {
    pub(crate) fn of_group(&self, group: GroupId) -> GroupCounters {
        self.groups.get(group.0 as usize).copied().unwrap_or_default()
    }

    pub(crate) fn published(&self, topic: TopicId) -> u64 {
        self.topics.get(topic.0 as usize).copied().unwrap_or_default()
    }

    fn group(&mut self, group: GroupId) -> &mut GroupCounters {
        at(&mut self.groups, group.0)
    }

    /// Counts the records of a frame, which `state` has not seen yet.
    #[inline]
    pub(crate) fn count(&mut self, records: &[Record], state: &State) {
        // The last failure that goes along with a copy.
        let mut last = None;
        for record in records {
            match record {
                Record::Published { partition, count, .. } => {
                    if let Some(Role::Topic { topic, .. }) = state.partition_role(*partition) {
                        *at(&mut self.topics, topic.0) += u64::from(*count);
                    }
                }
                Record::Leased { group, partition, first, count, attempt, .. } => {
                    let counters = self.group(*group);
                    counters.delivered += u64::from(*count);
                    if *attempt > 1 {
                        let offsets = (0..u64::from(*count)).map(|nth| first.saturating_add(nth));
                        let expired = offsets.filter(|offset| state.has_lease(*group, *partition, *offset)).count();
                        counters.expired += expired as u64;
                    }
                }
                Record::Acked { group, count, .. } => self.group(*group).acked += u64::from(*count),
                Record::Nacked { group, .. } => self.group(*group).nacked += 1,
                Record::Released { group, .. } => self.group(*group).released += 1,
                Record::Unreadable { group, .. } => self.group(*group).unreadable += 1,
                Record::PutOff { group, partition, offset, .. } => {
                    self.group(*group).expired += u64::from(state.has_lease(*group, *partition, *offset));
                }
                Record::Copied { partition, provenance, .. } => {
                    last = provenance.history.last().map(|failure| failure.cause);
                    if let Some(Role::Topic { topic, .. }) = state.partition_role(*partition) {
                        *at(&mut self.topics, topic.0) += 1;
                    }
                }
                Record::DeadLettered { group, partition, offset } => {
                    let ended_now = last.filter(|_| state.has_lease(*group, *partition, *offset));
                    let counters = self.group(*group);
                    counters.dead += 1;
                    match ended_now {
                        Some(Cause::Nacked) => counters.nacked += 1,
                        Some(Cause::Rejected) => counters.rejected += 1,
                        Some(Cause::Expired) => counters.expired += 1,
                        Some(Cause::Crashed | Cause::Closed) | None => {}
                    }
                }
                Record::Redriven { group, .. } => self.group(*group).redriven += 1,
                Record::Discarded { group, .. } => self.group(*group).discarded += 1,
                Record::Extended { .. }
                | Record::LoneAwaited { .. }
                | Record::Opened { .. }
                | Record::ClockJumped { .. }
                | Record::TopicCreated { .. }
                | Record::GroupCreated { .. } => {}
            }
        }
    }
}

fn at<T: Clone + Default>(list: &mut Vec<T>, index: u64) -> &mut T {
    let index = index as usize;
    if list.len() <= index {
        list.resize(index + 1, T::default());
    }
    &mut list[index]
}
