//! From records to bytes.
//!
//! One function a shape of record; the order of the fields is the format. Never here: a choice between two encodings.

use super::super::wire::{put_bytes, put_delimited, put_signed, put_varint};
use super::super::{
    AttemptFailure, Copied, DueTime, FailureCause, FailureCounts, Hold, KeyHash, Origin, Provenance, Record, StreamId,
    StreamNote,
};
use super::{AGAIN, BY_WALL, EXCLUSIVE, MANY, RESCHEDULED, kind, put_group_options, put_topic_options};
use crate::ids::{GroupId, MonoMs, Offset, PartitionId, WallMs};
use crate::limits::HISTORY_LEN;

#[inline]
pub(super) fn record(record: &Record, out: &mut Vec<u8>) {
    match record {
        Record::Published { .. } => put_record(out, kind::PUBLISHED, |out| published(record, out)),
        Record::Leased { .. } => put_record(out, kind::LEASED, |out| leased(record, out)),
        Record::Considered { .. } | Record::Recalled { .. } => looked(record, out),
        &Record::Acked { group, partition, first, count } => {
            put_run(out, kind::ACKED, (group, partition, first), count)
        }
        &Record::Filtered { group, partition, first, count } => {
            put_run(out, kind::FILTERED, (group, partition, first), count)
        }
        &Record::Dropped { group, partition, first, count } => {
            put_run(out, kind::DROPPED, (group, partition, first), count)
        }
        Record::Nacked { group, partition, offset, due, delay_ms, failure } => put_record(out, kind::NACKED, |out| {
            put_target(out, *group, *partition, *offset);
            put_delay(out, *due, *delay_ms);
            put_failure(out, failure);
        }),
        Record::Extended { group, partition, offset, until } => {
            put_timed(out, kind::EXTENDED, (*group, *partition, *offset), *until);
        }
        Record::Released { group, partition, offset } => {
            put_record(out, kind::RELEASED, |out| put_target(out, *group, *partition, *offset));
        }
        Record::Unreadable { group, partition, offset, due, delay_ms } => put_record(out, kind::UNREADABLE, |out| {
            put_target(out, *group, *partition, *offset);
            put_delay(out, *due, *delay_ms);
        }),
        Record::ExclusivePending { group, partition, offset, since } => {
            put_timed(out, kind::EXCLUSIVE_PENDING, (*group, *partition, *offset), *since);
        }
        Record::DeadLettered { .. } => put_record(out, kind::DEAD_LETTERED, |out| dead_lettered(record, out)),
        Record::Postponed { group, partition, offset, due, delay_ms } => put_record(out, kind::POSTPONED, |out| {
            put_target(out, *group, *partition, *offset);
            put_delay(out, *due, *delay_ms);
        }),
        Record::Redriven { .. } => put_record(out, kind::REDRIVEN, |out| redriven(record, out)),
        Record::Discarded { group, dead_letter } => {
            put_record(out, kind::DISCARDED, |out| put_dead_letter(out, *group, *dead_letter));
        }
        Record::Opened { epoch, clean, wall } => put_record(out, kind::OPENED, |out| {
            [epoch.0, wall.0, u64::from(*clean)].into_iter().for_each(|field| put_varint(out, field));
        }),
        Record::ClockJumped { .. } => put_record(out, kind::CLOCK_JUMPED, |out| clock_jumped(record, out)),
        Record::TopicCreated { .. } => put_record(out, kind::TOPIC_CREATED, |out| topic_created(record, out)),
        Record::TopicRemoved { topic } => put_record(out, kind::TOPIC_REMOVED, |out| put_varint(out, topic.0)),
        Record::GroupRemoved { group } => put_record(out, kind::GROUP_REMOVED, |out| put_varint(out, group.0)),
        Record::GroupAltered { group, options } => put_record(out, kind::GROUP_ALTERED, |out| {
            put_varint(out, group.0);
            put_group_options(out, options);
        }),
        Record::GroupSought { .. } => put_record(out, kind::GROUP_SOUGHT, |out| group_sought(record, out)),
        Record::GroupCreated { .. } => put_record(out, kind::GROUP_CREATED, |out| group_created(record, out)),
        Record::CursorSet { .. } => put_record(out, kind::CURSOR_SET, |out| cursor_set(record, out)),
        Record::CursorRemoved { name } => put_record(out, kind::CURSOR_REMOVED, |out| put_bytes(out, name.as_bytes())),
        Record::Accepted { .. } => put_record(out, kind::ACCEPTED, |out| accepted(record, out)),
        Record::KeyTaken { .. } => put_record(out, kind::KEY_TAKEN, |out| key_taken(record, out)),
        Record::Sequenced { .. } => put_record(out, kind::SEQUENCED, |out| sequenced(record, out)),
        Record::Appended { .. } => put_record(out, kind::APPENDED, |out| appended(record, out)),
        Record::StreamTruncated { .. } => put_record(out, kind::STREAM_TRUNCATED, |out| truncated(record, out)),
        Record::RetentionMarked { topic, time } => put_pair(out, kind::RETENTION_MARKED, (topic.0, time.0)),
        Record::ScheduleCreated { topic, partition } => put_pair(out, kind::SCHEDULE_CREATED, (topic.0, partition.0)),
        Record::Scheduled { .. } => put_record(out, kind::SCHEDULED, |out| scheduled(record, out)),
        Record::ScheduleEnded { .. } => put_record(out, kind::SCHEDULE_ENDED, |out| schedule_ended(record, out)),
        Record::SnapshotSaved { .. } => put_record(out, kind::SNAPSHOT_SAVED, |out| saved(record, out)),
    }
}

#[inline(always)]
fn put_record(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    put_varint(out, u64::from(kind));
    put_delimited(out, body);
}

fn leased(record: &Record, out: &mut Vec<u8>) {
    let Record::Leased { group, partition, first, count, attempt, until, time, exclusive } = record else { return };
    debug_assert!(*attempt != 1 || time.0 == 0, "a first attempt ends no lease, so it has no time");
    let flags = flag(*count != 1, MANY) | flag(*attempt != 1, AGAIN) | flag(*exclusive, EXCLUSIVE);
    put_target(out, *group, *partition, *first);
    put_varint(out, until.0);
    if flags == 0 {
        return;
    }
    out.push(flags);
    put_count(out, *count);
    if *attempt != 1 {
        put_varint(out, u64::from(*attempt));
        put_varint(out, time.0);
    }
}

fn dead_lettered(record: &Record, out: &mut Vec<u8>) {
    let Record::DeadLettered { group, partition, offset, copy } = record else { return };
    put_target(out, *group, *partition, *offset);
    put_copy(out, copy);
}

fn redriven(record: &Record, out: &mut Vec<u8>) {
    let Record::Redriven { group, dead_letter, copy } = record else { return };
    put_dead_letter(out, *group, *dead_letter);
    put_copy(out, copy);
}

fn clock_jumped(record: &Record, out: &mut Vec<u8>) {
    let Record::ClockJumped { wall, by_ms } = record else { return };
    put_varint(out, wall.0);
    put_signed(out, *by_ms);
}

fn scheduled(record: &Record, out: &mut Vec<u8>) {
    let Record::Scheduled { partition, offset, to, due, again } = record else { return };
    put_place(out, *partition, *offset);
    put_varint(out, to.0);
    put_due_time(out, *due, flag(*again, RESCHEDULED));
}

fn schedule_ended(record: &Record, out: &mut Vec<u8>) {
    let Record::ScheduleEnded { partition, offset, copy } = record else { return };
    put_place(out, *partition, *offset);
    copy.iter().for_each(|copy| put_copy(out, copy));
}

pub(crate) fn put_hold(out: &mut Vec<u8>, hold: Hold) {
    put_varint(out, hold.topic.0);
    put_varint(out, hold.from.0);
}

fn put_named(out: &mut Vec<u8>, id: u64, name: &str) {
    put_varint(out, id);
    put_bytes(out, name.as_bytes());
}

fn topic_created(record: &Record, out: &mut Vec<u8>) {
    let Record::TopicCreated { topic, name, first, count, options } = record else { return };
    put_named(out, topic.0, name);
    put_varint(out, first.0);
    put_varint(out, u64::from(*count));
    put_topic_options(out, options);
}

fn cursor_set(record: &Record, out: &mut Vec<u8>) {
    let Record::CursorSet { name, value, hold } = record else { return };
    put_bytes(out, name.as_bytes());
    put_bytes(out, value);
    hold.iter().for_each(|hold| put_hold(out, *hold));
}

fn accepted(record: &Record, out: &mut Vec<u8>) {
    let Record::Accepted { partition, offset, id, body, time } = record else { return };
    put_place(out, *partition, *offset);
    out.extend_from_slice(&id.to_le_bytes());
    out.extend_from_slice(&body.to_le_bytes());
    put_varint(out, time.0);
}

fn key_taken(record: &Record, out: &mut Vec<u8>) {
    let Record::KeyTaken { partition, offset, key, message_key, replaced } = record else { return };
    put_place(out, *partition, *offset);
    out.extend_from_slice(&key.to_le_bytes());
    out.extend_from_slice(&message_key.0.to_le_bytes());
    replaced.iter().for_each(|(partition, offset)| put_place(out, *partition, *offset));
}

fn sequenced(record: &Record, out: &mut Vec<u8>) {
    let Record::Sequenced { topic, producer, sequence } = record else { return };
    put_named(out, topic.0, producer);
    put_varint(out, *sequence);
}

#[inline]
fn published(record: &Record, out: &mut Vec<u8>) {
    let Record::Published { partition, base, count, time } = record else { return };
    put_place(out, *partition, *base);
    put_varint(out, time.0);
    put_count(out, *count);
}

fn put_run(out: &mut Vec<u8>, kind: u8, (group, partition, first): (GroupId, PartitionId, Offset), count: u32) {
    put_record(out, kind, |out| {
        put_target(out, group, partition, first);
        put_count(out, count);
    });
}

fn put_pair(out: &mut Vec<u8>, kind: u8, (one, other): (u64, u64)) {
    put_record(out, kind, |out| [one, other].into_iter().for_each(|field| put_varint(out, field)));
}

fn looked(record: &Record, out: &mut Vec<u8>) {
    let kind = if matches!(record, Record::Recalled { .. }) { kind::RECALLED } else { kind::CONSIDERED };
    put_record(out, kind, |out| if kind == kind::RECALLED { recalled(record, out) } else { considered(record, out) });
}

fn considered(record: &Record, out: &mut Vec<u8>) {
    let Record::Considered { group, partition, first, keys, counted } = record else { return };
    put_target(out, *group, *partition, *first);
    put_varint(out, counted.len() as u64);
    let mut next = 0;
    for number in counted {
        put_varint(out, u64::from(number - next));
        next = number + 1;
    }
    keys.iter().for_each(|key| put_key_hash(out, *key));
}

fn recalled(record: &Record, out: &mut Vec<u8>) {
    let Record::Recalled { group, partition, first, keys } = record else { return };
    put_target(out, *group, *partition, *first);
    keys.iter().for_each(|key| put_key_hash(out, *key));
}

/// Eight bytes: all values are as likely.
pub(crate) fn put_key_hash(out: &mut Vec<u8>, key: KeyHash) {
    out.extend_from_slice(&key.0.to_le_bytes());
}

fn put_timed(out: &mut Vec<u8>, kind: u8, at: (GroupId, PartitionId, Offset), time: MonoMs) {
    put_record(out, kind, |out| {
        put_target(out, at.0, at.1, at.2);
        put_varint(out, time.0);
    });
}

fn appended(record: &Record, out: &mut Vec<u8>) {
    let Record::Appended { stream, base, count, time, version, first } = record else { return };
    put_stream(out, *stream);
    put_varint(out, base.0);
    put_varint(out, time.0);
    put_varint(out, *version);
    put_varint(out, *first);
    put_count(out, *count);
}

fn truncated(record: &Record, out: &mut Vec<u8>) {
    let Record::StreamTruncated { stream, note, first, next } = record else { return };
    put_noted(out, *stream, *note);
    [*first, *next].into_iter().for_each(|field| put_varint(out, field));
}

fn saved(record: &Record, out: &mut Vec<u8>) {
    let Record::SnapshotSaved { stream, note, version, first, next } = record else { return };
    put_noted(out, *stream, *note);
    [*version, *first, *next].into_iter().for_each(|field| put_varint(out, field));
}

fn put_noted(out: &mut Vec<u8>, stream: StreamId, note: StreamNote) {
    put_stream(out, stream);
    put_place(out, note.partition, note.offset);
    put_varint(out, note.time.0);
}

fn put_stream(out: &mut Vec<u8>, stream: StreamId) {
    put_varint(out, stream.partition.0);
    out.extend_from_slice(&stream.key.to_le_bytes());
}

fn group_created(record: &Record, out: &mut Vec<u8>) {
    let Record::GroupCreated { group, topic, name, options, retry, starts } = record else { return };
    put_named(out, group.0, name);
    put_varint(out, topic.0);
    put_group_options(out, options);
    put_varint(out, retry.0);
    put_starts(out, starts);
}

fn group_sought(record: &Record, out: &mut Vec<u8>) {
    let Record::GroupSought { group, from, starts } = record else { return };
    put_varint(out, group.0);
    put_starts(out, starts);
    debug_assert_eq!(from.len(), starts.len(), "both are by partition");
    from.iter().zip(starts).for_each(|(from, start)| put_varint(out, start.0.saturating_sub(from.0)));
}

fn put_starts(out: &mut Vec<u8>, starts: &[Offset]) {
    put_varint(out, starts.len() as u64);
    starts.iter().for_each(|start| put_varint(out, start.0));
}

fn flag(set: bool, bit: u8) -> u8 {
    if set { bit } else { 0 }
}

fn put_place(out: &mut Vec<u8>, partition: PartitionId, offset: Offset) {
    put_varint(out, partition.0);
    put_varint(out, offset.0);
}

fn put_target(out: &mut Vec<u8>, group: GroupId, partition: PartitionId, offset: Offset) {
    put_varint(out, group.0);
    put_place(out, partition, offset);
}

fn put_dead_letter(out: &mut Vec<u8>, group: GroupId, dead_letter: Offset) {
    put_varint(out, group.0);
    put_varint(out, dead_letter.0);
}

/// At the end of a body, where a count of one is left out; or behind a flag that says that it is there.
fn put_count(out: &mut Vec<u8>, count: u32) {
    if count != 1 {
        put_varint(out, u64::from(count));
    }
}

/// One byte with its clock and these flags, and the time.
pub(crate) fn put_due_time(out: &mut Vec<u8>, due: DueTime, flags: u8) {
    let (clock, time) = match due {
        DueTime::Store(time) => (0, time.0),
        DueTime::Wall(time) => (BY_WALL, time.0),
    };
    out.push(clock | flags);
    put_varint(out, time);
}

fn put_delay(out: &mut Vec<u8>, due: WallMs, delay_ms: u64) {
    put_varint(out, due.0);
    put_varint(out, delay_ms);
}

fn put_copy(out: &mut Vec<u8>, copy: &Copied) {
    put_place(out, copy.partition, copy.offset);
    put_varint(out, copy.time.0);
    put_provenance(out, &copy.provenance);
}

fn put_provenance(out: &mut Vec<u8>, provenance: &Provenance) {
    let Origin { id, time, redrives } = provenance.origin;
    [id.topic.0, id.partition, id.offset.0, id.epoch.0, time.0].into_iter().for_each(|field| put_varint(out, field));
    put_varint(out, u64::from(redrives));
    put_varint(out, u64::from(provenance.attempts));
    put_varint(out, provenance.history.len() as u64);
    for failure in &provenance.history {
        put_failure(out, failure);
    }
    put_earlier(out, provenance.history.len(), provenance.earlier);
}

/// Where the history is full, how many failures it has no room for.
pub(crate) fn put_earlier(out: &mut Vec<u8>, history_len: usize, earlier: FailureCounts) {
    if history_len == HISTORY_LEN {
        let FailureCounts { nacks, expiries, crashes } = earlier;
        // seam: the failures of long ago are not written
        [nacks, expiries, crashes].into_iter().for_each(|count| put_varint(out, u64::from(count)));
    }
}

pub(crate) fn put_failure(out: &mut Vec<u8>, failure: &AttemptFailure) {
    out.push(match failure.cause {
        FailureCause::Nacked => 0,
        FailureCause::Expired => 1,
        FailureCause::Crashed => 2,
        FailureCause::Closed => 3,
        FailureCause::Rejected => 4,
    });
    put_varint(out, failure.time.0);
    put_bytes(out, failure.text.as_bytes());
}
