//! What is true of the messages of each group, and of the exclusive lease.

use super::deadlines::LeaseKey;
use super::outstanding::Prospect;
use crate::ids::MonoMs;
use crate::limits::HISTORY_LEN;
use crate::state::group::GroupState;

/// All leases in the order of their ends.
pub(in crate::state) fn lease_keys(group: &GroupState) -> Vec<LeaseKey> {
    let holds = |key: &LeaseKey| group.holds(key);
    let all = group.queues.all().into_iter();
    let mut keys: Vec<LeaseKey> = all.flat_map(|queue| queue.leases.expired(MonoMs(u64::MAX), holds)).collect();
    keys.sort_unstable();
    keys
}

pub(in crate::state) fn check_entries(group: &GroupState, fault: &mut impl FnMut(&'static str)) {
    if let Some(what) = group.entries.fault() {
        fault(what);
    }
    for (&(cursor, offset), entry) in group.entries.iter() {
        if cursor >= group.cursors() || offset >= group.next(cursor) {
            fault("a message is outstanding that was never leased");
        }
        let ended = entry.attempts.checked_sub(u32::from(entry.lease().is_some()));
        let is_sound = match entry.prospect {
            Prospect::None => true,
            Prospect::Grace | Prospect::Alone => entry.crashes > 0,
            Prospect::Over => entry.lease().is_none(),
        };
        if !is_sound || ended.is_none_or(|ended| ended < u32::from(entry.crashes)) {
            fault("the account of a message cannot be");
        }
        if entry.backoff_ms > 0 && (entry.lease().is_none() || entry.attempts < 2) {
            fault("a message waits for a lease that it has not");
        }
        if entry.history.as_ref().is_some_and(|history| history.past.len() > HISTORY_LEN) {
            fault("a history is too long");
        }
    }
}
