//! The state of a store: the result of its records, as a pure machine.
//!
//! `decide` turns a command and what the engine has read beforehand into records, or refuses; `apply` takes in a record.
//! Replaying the log gives the state: the same records give the same state, byte for byte in its snapshot, and the same
//! state decides the same. The caller does, in order: decide, append the records, apply each with the LSN of their
//! frame. Each capability has a room of its own, with its decisions, what its records change, its part of a snapshot, its
//! invariants and its tests; here each command and each record is sent to its room. Never here: disk, clocks, threads,
//! randomness, or an order that is not part of the value.

mod check;
mod command;
mod cursor;
mod dead_letter;
mod dedup;
mod epoch;
mod filter;
mod group;
mod kit;
mod lease;
mod left;
mod message;
mod order;
mod rejection;
mod retention;
mod retry;
mod schedule;
mod settle;
mod snapshot;
mod stream;
#[cfg(test)]
mod tests;
mod topic;
mod transaction;
mod unique;

pub(crate) use command::{
    Command, Decision, DedupId, Delay, GroupChanges, Held, HeldRun, HoldUp, Inputs, Later, Moving, Notice, Publication,
    Repeat, Sequence, Visible,
};
pub(crate) use dead_letter::Dying;
use dedup::Acceptance;
use filter::LookLimits;
pub(crate) use filter::{FilterVerdict, KnownVerdicts};
pub use group::MessageState;
pub(crate) use group::{GroupCounts, GroupData, GroupProgress, GroupState, OUTSTANDING_LEN, PeekedPlace};
pub(crate) use kit::sparse::Sparse;
pub(crate) use left::LostRun;
pub(crate) use order::{KeyRun, ParkedMax};
pub(crate) use rejection::{Inconsistent, Rejection};
pub(crate) use retention::{DROPS_MAX, LiveMessages, OffsetRange};
pub(crate) use retry::capped;
pub(crate) use schedule::NextDue;
pub(crate) use snapshot::Snapshot;
pub(crate) use stream::{
    INDEX_BEHIND, StreamFact, StreamHead, StreamRun, StreamTails, TOUCHES_MAX, Touch, VERSION_MAX,
};
pub(crate) use topic::{Role, TopicRoom};
pub(crate) use unique::UniqueKey;
pub use unique::WhilePending;

use crate::ids::{Epoch, GroupId, Lsn, StoreMs, WallMs};
use crate::record::Record;
use message::require;
use std::collections::BTreeMap;
use std::ops::Range;

/// What was decided is all that there is to do.
fn done(all: impl IntoIterator<Item = Record>, records: &mut Vec<Record>) -> Decision {
    records.extend(all);
    Decision::Done
}

type Decided = Result<Decision, Rejection>;

/// Everything that a store is, but for the bytes of its messages.
#[derive(Clone, Debug)]
pub(crate) struct State {
    /// Zero until the first process has opened the store.
    epoch: Epoch,
    /// How much later the wall clock is for jumps that were noted.
    jumped_ms: i64,
    catalog: topic::TopicCatalog,
    groups: BTreeMap<GroupId, Box<GroupState>>,
    exclusive: lease::ExclusiveLeases,
    cursors: cursor::Cursors,
    dedup: dedup::Dedup,
    schedules: schedule::Schedules,
    ages: retention::Ages,
    uniques: unique::UniqueKeys,
    /// What is no more: the holder of the lock takes it out, to free it outside.
    removed: Vec<Removed>,
}

/// A group, or the partitions of a topic, that are no more; or a group as it was before it went on from somewhere else.
#[derive(Clone, Debug)]
pub(crate) struct Removed {
    partitions: Range<u64>,
    /// Freed with this, and so is the rest.
    group: Option<Box<GroupState>>,
    _forgotten: Option<dedup::Forgotten>,
    _schedule: Option<schedule::Schedule>,
}

impl State {
    /// A store that was never opened.
    pub(crate) fn new() -> Self {
        Self {
            epoch: Epoch(0),
            jumped_ms: 0,
            catalog: topic::TopicCatalog::default(),
            groups: BTreeMap::new(),
            exclusive: lease::ExclusiveLeases::default(),
            cursors: cursor::Cursors::default(),
            dedup: dedup::Dedup::default(),
            schedules: schedule::Schedules::default(),
            ages: retention::Ages::default(),
            uniques: unique::UniqueKeys::default(),
            removed: Vec::new(),
        }
    }

    /// Store time, where the wall clock would say `steady` but for jumps that are not noted yet.
    pub(crate) fn store_time(&self, steady: WallMs) -> StoreMs {
        // seam: ages go by the wall clock
        StoreMs(steady.0.saturating_add_signed(self.jumped_ms.saturating_neg()))
    }

    /// A fingerprint of the state; see [`Snapshot::hash`].
    pub(crate) fn hash(&self) -> u64 {
        self.snapshot().hash()
    }

    /// The state as it is now. Copies pointers: little, however much is outstanding.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot::of(self)
    }

    /// What removals have taken out since the last call. Freeing it takes time in proportion to what was in progress.
    pub(crate) fn take_removed(&mut self) -> Vec<Removed> {
        std::mem::take(&mut self.removed)
    }

    /// Whether removals have taken something out since the last [`State::take_removed`].
    #[inline]
    pub(crate) fn has_removed(&self) -> bool {
        !self.removed.is_empty()
    }

    /// The partitions of what removals have taken out, as ranges of numbers.
    pub(crate) fn removed_partitions(&self) -> impl Iterator<Item = Range<u64>> {
        self.removed.iter().map(|removed| removed.partitions.clone())
    }

    /// Appends the records that `command` leads to. On `Err`, `records` is as it was.
    #[inline(always)]
    pub(crate) fn decide(
        &self,
        command: &Command<'_>,
        inputs: &Inputs<'_>,
        records: &mut Vec<Record>,
    ) -> Result<Decision, Rejection> {
        if self.epoch == Epoch(0) && !matches!(command, Command::Open { .. }) {
            return Err(Rejection::Invalid("the store has not been opened"));
        }
        let before = records.len();
        let decision = self.dispatch(command, inputs, records);
        if decision.is_err() {
            records.truncate(before);
        }
        decision
    }

    #[inline(never)]
    fn dispatch(&self, command: &Command<'_>, inputs: &Inputs<'_>, records: &mut Vec<Record>) -> Decided {
        let record = match *command {
            Command::Lease { group, max, pass_exhausted, new_last, keys, looked_at } => {
                let (limits, start) = (LookLimits { max, new_last, looked_at }, records.len());
                let decision = self.decide_lease((group, limits), pass_exhausted, keys, inputs, records);
                return decision.inspect(|_| self.pass_over_replaced(start, records));
            }
            Command::Ack { group, held } => return self.decide_ack(group, held, records),
            Command::Publish { runs, ids, delays, uniques, sequence } => {
                return self.decide_publish(runs, (ids, delays, uniques, sequence), inputs, records);
            }
            Command::Nack { group, held, delay_ms, text, moving } => {
                return self.decide_nack((group, held), delay_ms, text, moving, inputs, records);
            }
            Command::Reject { group, held, text, moving } => {
                return self.decide_reject((group, held), text, moving, inputs, records);
            }
            Command::GiveUp { group, partition, offset, moving } => {
                return self.decide_give_up((group, partition, offset), moving, inputs, records);
            }
            Command::Redrive { group, dead_letter, to, provenance } => {
                return self.decide_redrive((group, dead_letter), to, provenance, inputs, records);
            }
            Command::Extend { group, held, for_ms } => {
                return self.decide_extend((group, held), for_ms, inputs).map(|all| done(all, records));
            }
            Command::Release { group, held } => return self.decide_release(group, held, records),
            Command::Unreadable { group, held } => self.decide_unreadable((group, held), inputs)?,
            Command::Postpone { at } => self.decide_postpone(at, inputs)?,
            Command::Transaction { steps, parts, .. } => {
                return self.decide_transaction(steps, parts, inputs, records);
            }
            Command::Discard { group, dead_letter } => self.decide_discard((group, dead_letter))?,
            Command::Open { epoch, clean } => self.decide_open(epoch, clean, inputs)?,
            Command::NoteClockJump => self.decide_note_clock_jump(inputs),
            Command::CreateTopic { name, partitions, options } => {
                self.decide_create_topic(name, partitions, options)?
            }
            Command::CreateSchedule { topic } => self.decide_create_schedule(topic)?,
            Command::DropOld { topic } => return self.decide_drop_old(topic, records),
            Command::MarkRetention { topic } => self.decide_mark_retention(topic, inputs)?,
            Command::Reschedule { at, epoch, later } => self.decide_reschedule(at, epoch, later, inputs)?,
            Command::MoveDue { at, published } => self.decide_move_due(at, published, inputs)?,
            Command::RemoveTopic { topic } => self.decide_remove_topic(topic)?,
            Command::RemoveGroup { group } => self.decide_remove_group(group)?,
            Command::SetCursor { name, expected, value, hold } => {
                self.decide_set_cursor(name, expected, value, hold)?
            }
            Command::Append { stream, count, expected, ids, fact } => {
                return self.decide_append((stream, count, 0), expected, (ids, fact), inputs, records);
            }
            Command::TruncateStream { stream, first, fact } => {
                return self.decide_truncate_stream(stream, first, fact, inputs, records);
            }
            Command::SaveSnapshot { stream, version, fact } => {
                self.decide_save_snapshot(stream, (version, 0), fact, inputs)?
            }
            Command::RemoveCursor { name } => self.decide_remove_cursor(name)?,
            Command::AlterGroup { group, changes } => {
                return self.decide_alter_group(group, changes).map(|all| done(all, records));
            }
            Command::Seek { group, from, starts } => self.decide_seek(group, from, starts)?,
            Command::SettleFiltered { .. } => return self.decide_settle_filtered(command, inputs, records),
            Command::CreateGroup { topic, name, options, starts } => {
                self.decide_create_group(topic, name, options, starts)?
            }
        };
        records.push(record);
        Ok(Decision::Done)
    }

    /// Applies a record of the frame at `lsn`. On `Err` nothing was changed.
    pub(crate) fn apply(&mut self, record: &Record, lsn: Lsn) -> Result<(), Inconsistent> {
        let opened = self.epoch != Epoch(0) || matches!(record, Record::Opened { .. });
        require(opened, "a record before the store was ever opened")?;
        self.apply_kind(record, lsn)?;
        self.let_go_unkept(record);
        Ok(())
    }

    #[inline]
    fn apply_kind(&mut self, record: &Record, lsn: Lsn) -> Result<(), Inconsistent> {
        match record {
            Record::Published { partition, base, count, .. } => Ok(self.catalog.publish(*partition, *base, *count)?),
            Record::Considered { .. } | Record::Recalled { .. } => self.apply_looked(record),
            Record::Filtered { .. } => self.apply_filtered(record),
            Record::Dropped { .. } => self.apply_dropped(record),
            Record::Leased { .. } => self.apply_leased(record, lsn),
            // seam: an id dies with its message
            Record::Acked { group, partition, first, count } => self.apply_acked(*group, *partition, *first, *count),
            Record::Nacked { group, partition, offset, due, delay_ms, failure } => {
                self.apply_nacked((*group, *partition, *offset), (*due, *delay_ms), failure)
            }
            Record::Extended { group, partition, offset, until } => {
                self.apply_extended((*group, *partition, *offset), *until)
            }
            Record::Released { group, partition, offset } => self.apply_given_back((*group, *partition, *offset), None),
            Record::Unreadable { group, partition, offset, due, delay_ms } => {
                self.apply_given_back((*group, *partition, *offset), Some((*due, *delay_ms)))
            }
            Record::Postponed { group, partition, offset, due, delay_ms } => {
                self.apply_postponed((*group, *partition, *offset), (*due, *delay_ms))
            }
            Record::ExclusivePending { group, partition, offset, since } => {
                self.apply_exclusive_pending((*group, *partition, *offset), *since)
            }
            Record::DeadLettered { group, partition, offset, copy } => {
                self.apply_dead_lettered((*group, *partition, *offset), copy)
            }
            Record::Redriven { group, dead_letter, copy } => self.apply_redriven(*group, *dead_letter, copy),
            Record::Discarded { group, dead_letter } => self.apply_dead_letter_settled(*group, *dead_letter),
            Record::Opened { epoch, clean, wall } => self.apply_opened(*epoch, *clean, *wall),
            Record::ClockJumped { wall, by_ms } => self.apply_clock_jumped(*wall, *by_ms),
            Record::TopicCreated { topic, name, first, count, options } => {
                self.apply_topic_created(*topic, name, (*first, *count), *options)
            }
            Record::TopicRemoved { topic } => self.apply_topic_removed(*topic),
            Record::GroupCreated { group, topic, name, options, retry, starts } => {
                self.apply_group_created((*group, *topic), name, options, *retry, starts)
            }
            Record::GroupRemoved { group } => self.apply_group_removed(*group),
            Record::GroupAltered { group, options } => self.apply_group_altered(*group, options),
            Record::GroupSought { group, from, starts } => self.apply_group_sought(*group, from, starts),
            Record::CursorSet { name, value, hold } => self.apply_cursor_set(name, value, *hold, lsn),
            Record::CursorRemoved { name } => self.apply_cursor_removed(name),
            Record::Accepted { partition, offset, id, body, time } => {
                self.apply_accepted((*partition, *offset), (*id, *body), *time, lsn)
            }
            Record::Appended { stream, base, count, version, first, .. } => {
                self.apply_appended(*stream, (*base, *count), (*version, *first))
            }
            Record::StreamTruncated { stream, note, first, next } => {
                self.apply_stream_truncated(*stream, *note, StreamHead { first: *first, next: *next })
            }
            Record::SnapshotSaved { stream, note, version, first, next } => {
                self.apply_snapshot_saved(*stream, *note, (*version, StreamHead { first: *first, next: *next }))
            }
            Record::RetentionMarked { topic, time } => self.apply_retention_marked(*topic, *time),
            Record::ScheduleCreated { topic, partition } => self.apply_schedule_created(*topic, *partition),
            Record::Scheduled { partition, offset, to, due, again } => {
                self.apply_scheduled((*partition, *offset), (*to, *due), *again)
            }
            Record::ScheduleEnded { partition, offset, copy } => {
                self.apply_schedule_ended((*partition, *offset), copy.as_deref(), lsn)
            }
            Record::KeyTaken { .. } => self.apply_key_taken(record, lsn),
            Record::Sequenced { topic, producer, sequence } => self.apply_sequenced(*topic, producer, *sequence, lsn),
        }
    }
}
