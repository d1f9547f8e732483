//! Applying that a group looked at messages.
//!
//! Never here: leases.

use crate::ids::{GroupId, Offset, PartitionId};
use crate::record::{KeyHash, Ordering};
use crate::state::group::GroupState;
use crate::state::lease::{OutstandingEntry, Phase};
use crate::state::message::{Applied, require};
use crate::state::{Inconsistent, Rejection, State};

impl State {
    pub(in crate::state) fn apply_considered(
        &mut self,
        (id, partition, first): (GroupId, PartitionId, Offset),
        keys: &[KeyHash],
    ) -> Applied {
        let group = self.group_named(id)?;
        let cursor = group.cursor_of(partition).ok_or(Rejection::UnknownPartition)?;
        require(group.options.ordering == Ordering::Key, "keys that a group does not go by")?;
        require(first == group.next(cursor) && !keys.is_empty(), "a group looks at its next messages, one at least")?;
        let end = first.checked_add(keys.len() as u64);
        let end = end.ok_or(Inconsistent("a group looks beyond the last offset"))?;
        require(end <= self.catalog.end(partition), "a group looks at messages that do not exist")?;
        require(keys.len() as u64 <= u64::from(group.parked_room(cursor)), "more messages are parked than may be")?;
        self.groups.get_mut(&id).ok_or(Rejection::UnknownGroup)?.park_new(cursor, keys);
        Ok(())
    }
}

impl GroupState {
    /// Parks the next messages of a cursor, which have these keys.
    fn park_new(&mut self, cursor: u32, keys: &[KeyHash]) {
        let Self { data, order, considered, .. } = self;
        let (in_flight_max, is_new) = (data.options.max_in_flight_per_key, cursor != data.retry_cursor());
        for key in keys {
            let offset = data.next(cursor);
            data.turns += 1;
            let turn = data.turns;
            let entry = OutstandingEntry {
                phase: Phase::Parked { turn },
                attempts: 0,
                max_attempts: data.options.max_attempts,
                backoff_ms: 0,
                crashes: 0,
                closes: 0,
                grace: false,
                history: None,
            };
            data.entries.insert((cursor, offset), entry);
            let key = Some(*key).filter(|key| *key != KeyHash::NONE);
            if let Some(key) = key {
                data.keys.insert((cursor, offset), key);
            }
            order.park(key, data.parked_at(cursor, offset, turn), in_flight_max);
            data.set_next(cursor, offset.saturating_add(1));
        }
        data.parked += keys.len() as u32;
        *considered += keys.len() as u128;
        if is_new {
            data.position = cursor + 1;
        }
    }
}
