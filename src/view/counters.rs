//! What happened since the store was opened, in running numbers.
//!
//! They follow the records of each commit, before the state does: what becomes of a lease is seen by whether it is there. Never here: what
//! can be counted in the state.

use crate::ids::{GroupId, TopicId};
use crate::record::{Counted, FailureCause, LeaseEnd, Record};
use crate::state::State;
use std::collections::BTreeMap;

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
    /// Messages that did not pass the group's filter, counted when that is recorded.
    pub filtered: u64,
}

/// The numbers of all topics and groups.
#[derive(Clone, Debug)]
pub(crate) struct Counters {
    groups: BTreeMap<GroupId, GroupCounters>,
    /// How many messages each topic had when the store was opened.
    topics_before: BTreeMap<TopicId, u128>,
}

impl Counters {
    /// Counts from here on, in the store as it is.
    pub(crate) fn new(state: &State) -> Self {
        let topics_before = state.published().collect();
        Self { groups: BTreeMap::new(), topics_before }
    }

    pub(crate) fn of_group(&self, group: GroupId) -> GroupCounters {
        self.groups.get(&group).copied().unwrap_or_default()
    }

    pub(crate) fn published(&self, topic: TopicId, published: u128) -> u64 {
        published.saturating_sub(self.topics_before.get(&topic).copied().unwrap_or_default()) as u64
    }

    fn group(&mut self, group: GroupId) -> &mut GroupCounters {
        self.groups.entry(group).or_default()
    }

    /// Counts the records of a frame, which `state` has not seen yet.
    #[inline]
    pub(crate) fn count(&mut self, records: &[Record], state: &State) {
        for record in records {
            match record.counted() {
                Counted::Nothing => {}
                Counted::Leases { group, partition, first, count, again } => {
                    let counters = self.group(group);
                    counters.delivered += u64::from(count);
                    if again {
                        let offsets = (0..u64::from(count)).map(|nth| first.saturating_add(nth));
                        let expired = offsets.filter(|offset| state.has_lease(group, partition, *offset)).count();
                        counters.expired += expired as u64;
                    }
                }
                Counted::Ended { group, how, count } => {
                    let counters = self.group(group);
                    let counter = match how {
                        LeaseEnd::Acked => &mut counters.acked,
                        LeaseEnd::Nacked => &mut counters.nacked,
                        LeaseEnd::Released => &mut counters.released,
                        LeaseEnd::Unreadable => &mut counters.unreadable,
                    };
                    *counter += u64::from(count);
                }
                Counted::Expiry { group, partition, offset } => {
                    self.group(group).expired += u64::from(state.has_lease(group, partition, offset));
                }
                Counted::DeadLetter { group, partition, offset, last } => {
                    let ended_now = last.filter(|_| state.has_lease(group, partition, offset));
                    let counters = self.group(group);
                    counters.dead += 1;
                    match ended_now {
                        Some(FailureCause::Nacked) => counters.nacked += 1,
                        Some(FailureCause::Rejected) => counters.rejected += 1,
                        Some(FailureCause::Expired) => counters.expired += 1,
                        Some(FailureCause::Crashed | FailureCause::Closed) | None => {}
                    }
                }
                Counted::DeadLetterSettled { group, redriven: true } => self.group(group).redriven += 1,
                Counted::DeadLetterSettled { group, redriven: false } => self.group(group).discarded += 1,
                Counted::Filtered(group, count) => self.group(group).filtered += u64::from(count),
                Counted::GroupRemoved(group) => _ = self.groups.remove(&group),
                Counted::TopicRemoved(topic) => {
                    self.topics_before.remove(&topic);
                    state.groups_of(topic).for_each(|(group, _)| _ = self.groups.remove(&group));
                }
            }
        }
    }
}
