//! Creating, altering and removing groups.
//!
//! Never here: a change of the state.

use crate::ids::{GroupId, Offset, PartitionId, TopicId};
use crate::limits::{
    BACKOFF_LIST_MAX, CLOSES_MAX, DURATION_MS_MAX, GROUPS_MAX, IN_FLIGHT_PER_KEY_MAX, OUTSTANDING_MAX,
};
use crate::record::{GroupOptions, Growth, Ordering, RateOptions, Record};
use crate::state::topic::{NextIds, check_name};
use crate::state::{GroupChanges, Rejection, State};

impl State {
    pub(in crate::state) fn decide_create_group(
        &self,
        topic: TopicId,
        name: &str,
        options: &GroupOptions,
        starts: &[Offset],
    ) -> Result<Record, Rejection> {
        let NextIds { group, partition: retry, .. } = *self.catalog.next();
        self.check_new_group((group, topic), name, options, retry, starts)?;
        self.check_notices(options)?;
        let (name, options, starts) = (name.to_owned(), options.clone(), starts.to_vec());
        Ok(Record::GroupCreated { group, topic, name, options, retry, starts })
    }

    /// Whether this group may be the next one; also asked of a record.
    pub(in crate::state) fn check_new_group(
        &self,
        (group, topic): (GroupId, TopicId),
        name: &str,
        options: &GroupOptions,
        retry: PartitionId,
        starts: &[Offset],
    ) -> Result<(), Rejection> {
        check_name(name)?;
        check_options(options)?;
        check_notices(options, self.catalog.next())?;
        let audience = self.catalog.audience(topic).ok_or(Rejection::UnknownTopic)?;
        if audience.groups.contains_key(name) {
            return Err(Rejection::Exists);
        }
        self.check_starts(topic, starts)?;
        if (group, retry) != (self.catalog.next().group, self.catalog.next().partition) {
            return Err(Rejection::Invalid("groups and partitions are numbered in order"));
        }
        if !has_room_for_group(self.groups.len()) || group.checked_add(1).is_none() {
            return Err(Rejection::LimitReached("groups"));
        }
        if self.catalog.has_room(2) { Ok(()) } else { Err(Rejection::LimitReached("partitions")) }
    }

    pub(in crate::state) fn decide_remove_group(&self, group: GroupId) -> Result<Record, Rejection> {
        self.group_named(group)?;
        Ok(Record::GroupRemoved { group })
    }

    /// Whether the topic for notices is there.
    fn check_notices(&self, options: &GroupOptions) -> Result<(), Rejection> {
        let is_there = options.notices.is_none_or(|topic| self.catalog.topic(topic).is_some());
        if is_there { Ok(()) } else { Err(Rejection::UnknownTopic) }
    }

    /// `None` if nothing would change.
    pub(in crate::state) fn decide_alter_group(
        &self,
        group: GroupId,
        changes: &GroupChanges,
    ) -> Result<Option<Record>, Rejection> {
        let before = &self.group_named(group)?.options;
        let options = changes.applied_to(before);
        check_options(&options)?;
        check_new_filter(&options, before)?;
        if options.notices != before.notices {
            self.check_notices(&options)?;
        }
        Ok((options != *before).then_some(Record::GroupAltered { group, options }))
    }
}

/// Whether a group may name this topic for notices, which may be gone; also asked of a snapshot.
pub(in crate::state) fn check_notices(options: &GroupOptions, next: &NextIds) -> Result<(), Rejection> {
    let was_there = options.notices.is_none_or(|topic| topic < next.topic);
    if was_there { Ok(()) } else { Err(Rejection::Invalid("notices go to a topic that never was")) }
}

/// Whether a group may go on with these options: one in order of keys looks again at messages that passed its filter.
pub(in crate::state) fn check_new_filter(options: &GroupOptions, before: &GroupOptions) -> Result<(), Rejection> {
    let is_same = options.filter == before.filter;
    if is_same || options.ordering != Ordering::Key {
        return Ok(());
    }
    Err(Rejection::Invalid("a group in order of keys keeps the filter that it was created with"))
}

/// Whether a group may have these options; also asked of a snapshot.
pub(in crate::state) fn check_options(options: &GroupOptions) -> Result<(), Rejection> {
    let backoff = &options.backoff;
    if options.visibility_timeout_ms == 0 || options.visibility_timeout_ms > DURATION_MS_MAX {
        return Err(Rejection::Invalid("a visibility timeout is from 1 ms to ten years"));
    }
    if backoff.first_ms > DURATION_MS_MAX || backoff.max_ms > DURATION_MS_MAX {
        return Err(Rejection::Invalid("a delay is at most ten years"));
    }
    if let Growth::List(delays) = &backoff.growth {
        let fits = delays.first() == Some(&backoff.first_ms) && delays.iter().max() == Some(&backoff.max_ms);
        if !fits || delays.len() > BACKOFF_LIST_MAX {
            return Err(Rejection::Invalid("a list has 1 to 16 delays, and its first and longest are named"));
        }
    }
    if options.max_outstanding == 0 || options.max_outstanding > OUTSTANDING_MAX {
        return Err(Rejection::Invalid("a group has room for 1 to 1,048,576 outstanding messages"));
    }
    if options.max_closes > CLOSES_MAX {
        return Err(Rejection::Invalid("at most 255 closes in a row are not charged"));
    }
    if options.max_in_flight_per_key == 0 || options.max_in_flight_per_key > IN_FLIGHT_PER_KEY_MAX {
        return Err(Rejection::Invalid("from 1 to 65,536 messages of a key are in flight"));
    }
    if options.max_in_flight > OUTSTANDING_MAX {
        return Err(Rejection::Invalid("at most 1,048,576 messages are in flight"));
    }
    let RateOptions { count, per_ms, burst } = options.rate;
    let is_none = options.rate == RateOptions::default();
    if !is_none && (count == 0 || per_ms == 0 || per_ms > DURATION_MS_MAX || burst == 0) {
        return Err(Rejection::Invalid("a rate is of one message at least, in up to ten years"));
    }
    if options.ordering == Ordering::None && options.max_in_flight_per_key != 1 {
        return Err(Rejection::Invalid("a number of messages in flight per key is for groups with an order"));
    }
    Ok(())
}

/// Whether one more group fits beside `groups` others.
pub(in crate::state) fn has_room_for_group(groups: usize) -> bool {
    groups < GROUPS_MAX as usize
}
