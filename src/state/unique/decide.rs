//! Whether a message may be published under a unique key, and passing over those that were replaced.
//!
//! Never here: a change of the state.

use super::{FULL, KeyPlace, PendingKey};
use crate::ids::{MessageId, MonoMs, PartitionId};
use crate::record::Record;
use crate::state::{Inputs, Rejection, Repeat, Role, State, UniqueKey, WhilePending};
use std::collections::BTreeSet;

impl State {
    /// Adds what the unique keys of these messages lead to, which go to the ends of their partitions. `runs` are all messages, in order.
    pub(in crate::state) fn decide_unique(
        &self,
        runs: &[(PartitionId, u32)],
        uniques: &[UniqueKey],
        inputs: &Inputs<'_>,
        records: &mut Vec<Record>,
    ) -> Result<(), Rejection> {
        let (mut repeats, mut seen, mut added) = (Vec::new(), BTreeSet::new(), 0);
        let (mut uniques, mut nth) = (uniques.iter().peekable(), 0u32);
        for &(partition, count) in runs {
            let base = self.catalog.end(partition);
            let end = nth.saturating_add(count);
            while let Some(&UniqueKey { part, key, message_key, while_pending }) =
                uniques.next_if(|unique| unique.part < end)
            {
                self.accepting(partition)?;
                if !seen.insert(key) {
                    return Err(Rejection::Invalid("a unique key is given to two messages of a frame"));
                }
                let mut replaced = None;
                if let Some((place, pending)) = self.pending_owner(key) {
                    match while_pending {
                        WhilePending::ReturnExisting => {
                            let id = self.id_of_pending(place, pending)?;
                            repeats.push(Repeat { part, id, lsn: pending.lsn });
                            continue;
                        }
                        // seam: a leased message is replaced
                        WhilePending::Replace if !self.is_leased(place, inputs.mono) => {
                            replaced = self.replace(place, records);
                        }
                        WhilePending::Replace | WhilePending::Reject => {
                            return Err(self.key_pending(place));
                        }
                    }
                }
                let full = Rejection::LimitReached("messages in a partition");
                let offset = base.checked_add(u64::from(part.saturating_sub(nth))).ok_or(full)?;
                records.push(Record::KeyTaken { partition, offset, key, message_key, replaced });
                added += 1;
            }
            nth = end;
        }
        if uniques.next().is_some() {
            return Err(Rejection::Invalid("a unique key of a message that is not in the frame"));
        }
        if !repeats.is_empty() {
            return Err(Rejection::Repeated(repeats));
        }
        // seam: unique keys have no bound
        if self.uniques.has_room_for(added) { Ok(()) } else { Err(FULL) }
    }

    /// What is replaced: a message that waits for its time is cancelled, which frees the key; any other one keeps its place.
    fn replace(&self, place: KeyPlace, records: &mut Vec<Record>) -> Option<KeyPlace> {
        let (partition, offset) = place;
        if !matches!(self.catalog.role(partition), Some(Role::Schedule { .. })) {
            return Some(place);
        }
        // seam: a scheduled message is replaced and comes
        records.push(Record::ScheduleEnded { partition, offset, copy: None });
        None
    }

    /// Whether a consumer works on a message.
    fn is_leased(&self, (partition, offset): KeyPlace, mono: MonoMs) -> bool {
        let Some(Role::Topic { topic, index }) = self.catalog.role(partition) else { return false };
        self.groups_of(topic).any(|(_, group)| group.entry(index, offset).is_some_and(|entry| entry.is_live(mono)))
    }

    /// What is refused is published under the key of this message.
    pub(in crate::state) fn key_pending(&self, place: KeyPlace) -> Rejection {
        let id = self.uniques.pending.get(&place).ok_or(Rejection::Stale);
        let id = id.and_then(|pending| self.id_of_pending(place, pending));
        id.map_or_else(|other| other, |id| Rejection::KeyPending { pending: Box::new(id) })
    }

    fn id_of_pending(&self, (partition, offset): KeyPlace, pending: &PendingKey) -> Result<MessageId, Rejection> {
        let (topic, partition) = self.public_place(partition).ok_or(Rejection::UnknownPartition)?;
        Ok(MessageId { topic, partition, offset, epoch: pending.epoch })
    }

    /// Acks what was replaced of the messages that the records from number `start` on lease: in the order of these, no ack of two of them.
    #[inline]
    pub(in crate::state) fn pass_over_replaced(&self, start: usize, records: &mut Vec<Record>) {
        if self.uniques.replaced == 0 {
            return;
        }
        let mut passed = Vec::new();
        for record in records.get(start..).unwrap_or(&[]) {
            let &Record::Leased { group, partition, first, count, .. } = record else { continue };
            let end = first.saturating_add(count.into());
            let start = passed.len();
            for ((_, offset), _) in
                self.uniques.within(partition, (first, end)).filter(|(_, pending)| pending.is_replaced)
            {
                if let Some(Record::Acked { first, count, .. }) = passed[start..].last_mut()
                    && first.0 + u64::from(*count) == offset.0
                {
                    *count += 1;
                    continue;
                }
                passed.push(Record::Acked { group, partition, first: offset, count: 1 });
            }
        }
        // seam: what was replaced is delivered
        records.extend(passed);
    }
}
