//! From bytes to records.
//!
//! Takes exactly what `encode` writes: each field is bounded by what is left of the bytes and by the format's limits.
//! Never here: repair, or a guess at what was meant.

use super::super::wire::{ByteReader, DecodeError, Newer};
use super::super::{
    AttemptFailure, Copied, DueTime, FailureCause, FailureCounts, Hold, KeyHash, Origin, Provenance, Record, StreamId,
    StreamNote,
};
use super::{AGAIN, BY_WALL, EXCLUSIVE, MANY, RESCHEDULED, group_options, kind, topic_options};
use crate::ids::{Epoch, GroupId, Lsn, MessageId, MonoMs, Offset, PartitionId, StoreMs, TopicId, WallMs};
use crate::limits::{CURSOR_LEN_MAX, ERROR_TEXT_LEN_MAX, HISTORY_LEN, NAME_LEN_MAX};

#[inline(always)]
pub(super) fn record(reader: &mut ByteReader<'_>) -> Result<Record, DecodeError> {
    let kind = reader.varint()?;
    let body = &mut ByteReader::new(reader.bytes()?);
    let record = fields(kind, body)?;
    // seam: a body is longer than its fields
    if body.is_empty() { Ok(record) } else { Err(DecodeError::Invalid("a record is longer than its fields")) }
}

#[inline(always)]
fn fields(number: u64, reader: &mut ByteReader<'_>) -> Result<Record, DecodeError> {
    let kind = u8::try_from(number).unwrap_or(u8::MAX);
    match kind {
        0 => Err(DecodeError::Invalid("a record of kind 0")),
        kind::PUBLISHED => {
            let (partition, base, time) = (partition(reader)?, offset(reader)?, wall(reader)?);
            Ok(Record::Published { partition, base, count: count_at_end(reader)?, time })
        }
        kind::LEASED => decode_leased(reader),
        kind::CONSIDERED | kind::RECALLED => decode_looked(reader, kind),
        kind::ACKED | kind::FILTERED | kind::DROPPED => decode_run(reader, kind),
        kind::NACKED..=kind::EXCLUSIVE_PENDING | kind::DEAD_LETTERED | kind::POSTPONED => decode_targeted(reader, kind),
        kind::REDRIVEN => {
            Ok(Record::Redriven { group: group(reader)?, dead_letter: offset(reader)?, copy: Box::new(copy(reader)?) })
        }
        kind::DISCARDED => Ok(Record::Discarded { group: group(reader)?, dead_letter: offset(reader)? }),
        kind::OPENED => {
            let (epoch, wall) = (Epoch(reader.varint()?), wall(reader)?);
            Ok(Record::Opened { epoch, clean: boolean(reader)?, wall })
        }
        kind::CLOCK_JUMPED => Ok(Record::ClockJumped { wall: wall(reader)?, by_ms: reader.signed()? }),
        kind::TOPIC_CREATED => {
            let (topic, name) = (TopicId(reader.varint()?), name(reader)?.to_owned());
            let (first, count) = (partition(reader)?, reader.varint_u32()?);
            let options = topic_options(reader)?;
            Ok(Record::TopicCreated { topic, name, first, count, options })
        }
        kind::GROUP_CREATED => decode_group_created(reader),
        kind::GROUP_SOUGHT => decode_group_sought(reader),
        kind::TOPIC_REMOVED => Ok(Record::TopicRemoved { topic: TopicId(reader.varint()?) }),
        kind::GROUP_REMOVED => Ok(Record::GroupRemoved { group: group(reader)? }),
        kind::GROUP_ALTERED => Ok(Record::GroupAltered { group: group(reader)?, options: group_options(reader)? }),
        kind::CURSOR_SET => decode_cursor_set(reader),
        kind::CURSOR_REMOVED => Ok(Record::CursorRemoved { name: name(reader)?.to_owned() }),
        kind::ACCEPTED => {
            let (partition, offset) = (partition(reader)?, offset(reader)?);
            let (id, body) = (u128::from_le_bytes(reader.array()?), u64::from_le_bytes(reader.array()?));
            Ok(Record::Accepted { partition, offset, id, body, time: StoreMs(reader.varint()?) })
        }
        kind::KEY_TAKEN => decode_key_taken(reader),
        kind::SEQUENCED => {
            let (topic, producer) = (TopicId(reader.varint()?), name(reader)?.to_owned());
            Ok(Record::Sequenced { topic, producer, sequence: reader.varint()? })
        }
        kind::APPENDED => {
            let (stream, base, time) = (stream(reader)?, offset(reader)?, wall(reader)?);
            let (version, first) = (reader.varint()?, reader.varint()?);
            Ok(Record::Appended { stream, base, count: count_at_end(reader)?, time, version, first })
        }
        kind::STREAM_TRUNCATED => {
            let (stream, note) = noted(reader)?;
            Ok(Record::StreamTruncated { stream, note, first: reader.varint()?, next: reader.varint()? })
        }
        kind::SNAPSHOT_SAVED => {
            let ((stream, note), version) = (noted(reader)?, reader.varint()?);
            Ok(Record::SnapshotSaved { stream, note, version, first: reader.varint()?, next: reader.varint()? })
        }
        kind::SCHEDULE_CREATED => {
            Ok(Record::ScheduleCreated { topic: TopicId(reader.varint()?), partition: partition(reader)? })
        }
        kind::RETENTION_MARKED => {
            Ok(Record::RetentionMarked { topic: TopicId(reader.varint()?), time: StoreMs(reader.varint()?) })
        }
        kind::SCHEDULED => decode_scheduled(reader),
        kind::SCHEDULE_ENDED => decode_schedule_ended(reader),
        _ => Err(unknown(number)),
    }
}

/// The kinds that settle messages next to each other.
fn decode_run(reader: &mut ByteReader<'_>, kind: u8) -> Result<Record, DecodeError> {
    let (group, partition, first) = target(reader)?;
    let count = count_at_end(reader)?;
    match kind {
        kind::ACKED => Ok(Record::Acked { group, partition, first, count }),
        kind::FILTERED => Ok(Record::Filtered { group, partition, first, count }),
        kind::DROPPED => Ok(Record::Dropped { group, partition, first, count }),
        other => Err(unknown(u64::from(other))),
    }
}

/// The kinds that say that a group looked at messages.
fn decode_looked(reader: &mut ByteReader<'_>, kind: u8) -> Result<Record, DecodeError> {
    let (group, partition, first) = target(reader)?;
    if kind == kind::RECALLED {
        return Ok(Record::Recalled { group, partition, first, keys: key_hashes(reader)? });
    }
    let counted = numbers(reader)?;
    Ok(Record::Considered { group, partition, first, counted, keys: key_hashes(reader)? })
}

/// Numbers that rise, each as its distance from the one before less one.
fn numbers(reader: &mut ByteReader<'_>) -> Result<Vec<u32>, DecodeError> {
    let mut next = 0u32;
    let mut number = |reader: &mut ByteReader<'_>| {
        let number = next.checked_add(reader.varint_u32()?).ok_or(DecodeError::BadNumber)?;
        next = number.checked_add(1).ok_or(DecodeError::BadNumber)?;
        Ok(number)
    };
    (0..reader.count(1)?).map(|_| number(reader)).collect()
}

fn decode_key_taken(reader: &mut ByteReader<'_>) -> Result<Record, DecodeError> {
    let place = |reader: &mut ByteReader<'_>| Ok((partition(reader)?, offset(reader)?));
    let (partition, offset) = place(reader)?;
    let key = u128::from_le_bytes(reader.array()?);
    let message_key = key_hash(reader)?;
    let replaced = if reader.is_empty() { None } else { Some(place(reader)?) };
    Ok(Record::KeyTaken { partition, offset, key, message_key, replaced })
}

fn decode_cursor_set(reader: &mut ByteReader<'_>) -> Result<Record, DecodeError> {
    let (name, value) = (name(reader)?.to_owned(), cursor_value(reader)?.into());
    let hold = if reader.is_empty() { None } else { Some(hold(reader)?) };
    Ok(Record::CursorSet { name, value, hold })
}

fn decode_scheduled(reader: &mut ByteReader<'_>) -> Result<Record, DecodeError> {
    let (partition, offset, to) = (partition(reader)?, offset(reader)?, partition(reader)?);
    let (due, again) = due_time(reader, RESCHEDULED)?;
    Ok(Record::Scheduled { partition, offset, to, due, again })
}

fn decode_schedule_ended(reader: &mut ByteReader<'_>) -> Result<Record, DecodeError> {
    let (partition, offset) = (partition(reader)?, offset(reader)?);
    let copy = if reader.is_empty() { None } else { Some(Box::new(copy(reader)?)) };
    Ok(Record::ScheduleEnded { partition, offset, copy })
}

/// A due time, and whether the one flag beside its clock is set that may be.
pub(crate) fn due_time(reader: &mut ByteReader<'_>, may_be: u8) -> Result<(DueTime, bool), DecodeError> {
    let (flags, time) = (reader.byte()?, reader.varint()?);
    if flags & !(BY_WALL | may_be) != 0 {
        return Err(DecodeError::Invalid("a due time has an unknown flag"));
    }
    let due = if flags & BY_WALL == 0 { DueTime::Store(StoreMs(time)) } else { DueTime::Wall(WallMs(time)) };
    Ok((due, flags & may_be != 0))
}

/// At the end of a body: one at least.
fn key_hashes(reader: &mut ByteReader<'_>) -> Result<Vec<KeyHash>, DecodeError> {
    let (count, rest) = (reader.remaining() / size_of::<KeyHash>(), reader.remaining() % size_of::<KeyHash>());
    if count == 0 || rest != 0 {
        return Err(DecodeError::Invalid("no keys, or a part of one"));
    }
    (0..count).map(|_| key_hash(reader)).collect()
}

pub(crate) fn key_hash(reader: &mut ByteReader<'_>) -> Result<KeyHash, DecodeError> {
    Ok(KeyHash(u64::from_le_bytes(reader.array()?)))
}

fn stream(reader: &mut ByteReader<'_>) -> Result<StreamId, DecodeError> {
    Ok(StreamId { partition: partition(reader)?, key: u128::from_le_bytes(reader.array()?) })
}

fn noted(reader: &mut ByteReader<'_>) -> Result<(StreamId, StreamNote), DecodeError> {
    let (stream, partition) = (stream(reader)?, partition(reader)?);
    Ok((stream, StreamNote { partition, offset: offset(reader)?, time: wall(reader)? }))
}

fn unknown(number: u64) -> DecodeError {
    DecodeError::Newer(Newer { what: "record kind", number, known_max: u64::from(kind::MAX) })
}

fn decode_leased(reader: &mut ByteReader<'_>) -> Result<Record, DecodeError> {
    let (group, partition, first) = target(reader)?;
    let until = mono(reader)?;
    let flags = if reader.is_empty() { 0 } else { flags(reader)? };
    let count = if flags & MANY != 0 { count(reader)? } else { 1 };
    let (attempt, time) = if flags & AGAIN != 0 { (reader.varint_u32()?, wall(reader)?) } else { (1, WallMs(0)) };
    if flags & AGAIN != 0 && attempt == 1 {
        return Err(DecodeError::Invalid("a first attempt is not written out"));
    }
    Ok(Record::Leased { group, partition, first, count, attempt, until, time, exclusive: flags & EXCLUSIVE != 0 })
}

fn flags(reader: &mut ByteReader<'_>) -> Result<u8, DecodeError> {
    match reader.byte()? {
        0 => Err(DecodeError::Invalid("no flags are not written out")),
        flags if flags & !(MANY | AGAIN | EXCLUSIVE) != 0 => Err(DecodeError::Invalid("a lease has an unknown flag")),
        flags => Ok(flags),
    }
}

fn boolean(reader: &mut ByteReader<'_>) -> Result<bool, DecodeError> {
    match reader.byte()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::Invalid("what is yes or no is neither")),
    }
}

/// The kinds that begin with one message of one group and have no flags.
fn decode_targeted(reader: &mut ByteReader<'_>, kind: u8) -> Result<Record, DecodeError> {
    let (group, partition, offset) = target(reader)?;
    Ok(match kind {
        kind::NACKED => {
            let (due, delay_ms, failure) = (wall(reader)?, reader.varint()?, failure(reader)?);
            Record::Nacked { group, partition, offset, due, delay_ms, failure }
        }
        kind::EXTENDED => Record::Extended { group, partition, offset, until: mono(reader)? },
        kind::RELEASED => Record::Released { group, partition, offset },
        kind::UNREADABLE => {
            Record::Unreadable { group, partition, offset, due: wall(reader)?, delay_ms: reader.varint()? }
        }
        kind::POSTPONED => {
            Record::Postponed { group, partition, offset, due: wall(reader)?, delay_ms: reader.varint()? }
        }
        kind::EXCLUSIVE_PENDING => Record::ExclusivePending { group, partition, offset, since: mono(reader)? },
        kind::DEAD_LETTERED => Record::DeadLettered { group, partition, offset, copy: Box::new(copy(reader)?) },
        _ => return Err(unknown(u64::from(kind))),
    })
}

fn decode_group_created(reader: &mut ByteReader<'_>) -> Result<Record, DecodeError> {
    let group = group(reader)?;
    let name = name(reader)?.to_owned();
    let topic = TopicId(reader.varint()?);
    let options = group_options(reader)?;
    let retry = partition(reader)?;
    Ok(Record::GroupCreated { group, topic, name, options, retry, starts: starts(reader)? })
}

fn decode_group_sought(reader: &mut ByteReader<'_>) -> Result<Record, DecodeError> {
    let (group, starts) = (group(reader)?, starts(reader)?);
    let mut before = |start: &Offset| start.0.checked_sub(reader.varint()?).map(Offset).ok_or(DecodeError::BadNumber);
    let from = starts.iter().map(&mut before).collect::<Result<_, _>>()?;
    Ok(Record::GroupSought { group, from, starts })
}

/// Where a group begins in each partition of its topic.
fn starts(reader: &mut ByteReader<'_>) -> Result<Vec<Offset>, DecodeError> {
    (0..reader.count(1)?).map(|_| offset(reader)).collect()
}

fn group(reader: &mut ByteReader<'_>) -> Result<GroupId, DecodeError> {
    reader.varint().map(GroupId)
}

fn partition(reader: &mut ByteReader<'_>) -> Result<PartitionId, DecodeError> {
    reader.varint().map(PartitionId)
}

fn offset(reader: &mut ByteReader<'_>) -> Result<Offset, DecodeError> {
    reader.varint().map(Offset)
}

fn wall(reader: &mut ByteReader<'_>) -> Result<WallMs, DecodeError> {
    reader.varint().map(WallMs)
}

fn mono(reader: &mut ByteReader<'_>) -> Result<MonoMs, DecodeError> {
    reader.varint().map(MonoMs)
}

fn target(reader: &mut ByteReader<'_>) -> Result<(GroupId, PartitionId, Offset), DecodeError> {
    Ok((group(reader)?, partition(reader)?, offset(reader)?))
}

fn count(reader: &mut ByteReader<'_>) -> Result<u32, DecodeError> {
    match reader.varint_u32()? {
        1 => Err(DecodeError::Invalid("a count of one is not written out")),
        count => Ok(count),
    }
}

fn count_at_end(reader: &mut ByteReader<'_>) -> Result<u32, DecodeError> {
    if reader.is_empty() { Ok(1) } else { count(reader) }
}

pub(crate) fn name<'a>(reader: &mut ByteReader<'a>) -> Result<&'a str, DecodeError> {
    let name = reader.str()?;
    let fits = !name.is_empty() && name.len() <= NAME_LEN_MAX;
    if fits { Ok(name) } else { Err(DecodeError::Invalid("a name is empty or too long")) }
}

pub(crate) fn cursor_value<'a>(reader: &mut ByteReader<'a>) -> Result<&'a [u8], DecodeError> {
    let value = reader.bytes()?;
    if value.len() <= CURSOR_LEN_MAX {
        Ok(value)
    } else {
        Err(DecodeError::Invalid("the value of a cursor is too long"))
    }
}

pub(crate) fn hold(reader: &mut ByteReader<'_>) -> Result<Hold, DecodeError> {
    Ok(Hold { topic: TopicId(reader.varint()?), from: Lsn(reader.varint()?) })
}

fn copy(reader: &mut ByteReader<'_>) -> Result<Copied, DecodeError> {
    let (partition, offset, time) = (partition(reader)?, offset(reader)?, wall(reader)?);
    Ok(Copied { partition, offset, time, provenance: provenance(reader)? })
}

fn provenance(reader: &mut ByteReader<'_>) -> Result<Provenance, DecodeError> {
    let (topic, partition) = (TopicId(reader.varint()?), reader.varint()?);
    let (offset, epoch) = (offset(reader)?, Epoch(reader.varint()?));
    let origin = Origin {
        id: MessageId { topic, partition, epoch, offset },
        time: wall(reader)?,
        // seam: a copy forgets its redrives
        redrives: reader.varint_u32()?,
    };
    let attempts = reader.varint_u32()?;
    let count = reader.count(3)?;
    if count > HISTORY_LEN {
        return Err(DecodeError::Invalid("a history is too long"));
    }
    let history = (0..count).map(|_| failure(reader)).collect::<Result<_, _>>()?;
    Ok(Provenance { origin, attempts, history, earlier: earlier(reader, count)? })
}

pub(crate) fn earlier(reader: &mut ByteReader<'_>, history_len: usize) -> Result<FailureCounts, DecodeError> {
    if history_len < HISTORY_LEN {
        return Ok(FailureCounts::default());
    }
    Ok(FailureCounts { nacks: reader.varint_u32()?, expiries: reader.varint_u32()?, crashes: reader.varint_u32()? })
}

pub(crate) fn failure(reader: &mut ByteReader<'_>) -> Result<AttemptFailure, DecodeError> {
    let cause = match reader.byte()? {
        0 => FailureCause::Nacked,
        1 => FailureCause::Expired,
        2 => FailureCause::Crashed,
        3 => FailureCause::Closed,
        4 => FailureCause::Rejected,
        _ => return Err(DecodeError::Invalid("an unknown cause of failure")),
    };
    let time = wall(reader)?;
    let text = reader.str()?;
    if text.len() > ERROR_TEXT_LEN_MAX {
        return Err(DecodeError::Invalid("an error text is too long"));
    }
    Ok(AttemptFailure { cause, time, text: text.into() })
}
