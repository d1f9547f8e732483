//! The bytes of a group within a snapshot.
//!
//! ```text
//! name | topic | options | retry partition | its end | end of the partition of dead letters | turns | position | rank | texts dropped
//! dead letters   floor, count of runs, each: gap and length; count of bitmaps, each: gap and 64 bytes
//! cursors   for each partition: how far `next` is from its end
//! messages  count of cursors, each: gap, count of messages, each: flags, gap, attempts, [limit], phase, [history]
//! ```
//! A gap is the distance from the one before less one. Never here: what the parts mean to each other across groups.

use crate::ids::{GroupId, Lsn, MonoMs, Offset, PartitionId, TopicId, WallMs};
use crate::limits::{HISTORY_LEN, HISTORY_TEXT_BYTES_MAX, OUTSTANDING_MAX};
use crate::record::codec;
use crate::record::wire::{DecodeError, Reader, put_bytes, put_varint};
use crate::state::decide::check_options;
use crate::state::group::{Group, Kept};
use crate::state::history::{History, Past};
use crate::state::kit::offsets::{Bits, OffsetSet};
use crate::state::outstanding::{Lease, OutstandingEntry, Phase};
use crate::state::queue::Source;
use crate::state::topic::Catalog;
use std::collections::BTreeMap;
use std::sync::Arc;

const PHASE: u64 = 0x03;
const LEASED: u64 = 0;
const WAITING: u64 = 1;
const READY: u64 = 2;
/// Leased by the same record as the leased message before, or ready in the turn after that of the ready one before.
const FOLLOWS: u64 = 0x04;
const CRASHED: u64 = 0x08;
const GRACE: u64 = 0x10;
const HISTORY: u64 = 0x20;
const EXCLUSIVE: u64 = 0x40;
const EXTENDED: u64 = 0x80;
/// Leased last when the group had another limit of attempts than now.
const LIMIT: u64 = 0x100;
const FLAGS: u64 = 0x1ff;

/// More turns than any group lives to see, and far from where counting them would overflow.
const TURNS_MAX: u64 = 1 << 62;
/// The shortest cursor with messages, message and failure.
const CURSOR_LEN_MIN: usize = 5;
const SLOT_LEN_MIN: usize = 3;
const PAST_LEN_MIN: usize = 3;

/// The phases before, within a group: most follow from them.
#[derive(Default)]
struct Before {
    lease: Option<(MonoMs, Lsn, u32)>,
    turn: Option<u64>,
}

impl Before {
    fn follows(&self, phase: &Phase) -> bool {
        match phase {
            Phase::Leased(lease) => self.lease == Some((lease.until, lease.lsn, lease.rank)),
            Phase::Ready { turn } => self.turn.is_some_and(|before| before.checked_add(1) == Some(*turn)),
            Phase::Waiting { .. } => false,
        }
    }

    fn note(&mut self, phase: &Phase) {
        match phase {
            Phase::Leased(lease) => self.lease = Some((lease.until, lease.lsn, lease.rank)),
            Phase::Ready { turn } => self.turn = Some(*turn),
            Phase::Waiting { .. } => {}
        }
    }
}

pub(super) fn encode(group: &Kept, end: impl Fn(PartitionId) -> Offset, out: &mut Vec<u8>) {
    put_bytes(out, group.name.as_bytes());
    put_varint(out, group.topic.0);
    codec::put_group_options(out, &group.options);
    put_varint(out, group.retry.0);
    put_varint(out, end(group.retry).0);
    put_varint(out, end(group.dead()).0);
    put_varint(out, group.turns);
    put_varint(out, u64::from(group.position) << 2 | group.source.number());
    put_varint(out, group.rank.0.0);
    put_varint(out, u64::from(group.rank.1));
    put_varint(out, group.texts_dropped);
    // seam: a checkpoint forgets the dead letters
    encode_dead_letters(&group.dead_letters, out);
    for cursor in 0..group.cursors() {
        put_varint(out, end(group.partition_of(cursor)).0 - group.next(cursor).0);
    }
    encode_messages(group, out);
}

fn encode_messages(group: &Kept, out: &mut Vec<u8>) {
    let mut all = group.entries.iter().peekable();
    let mut counts: BTreeMap<u32, u64> = BTreeMap::new();
    group.entries.iter().for_each(|((cursor, _), _)| *counts.entry(*cursor).or_default() += 1);
    put_varint(out, counts.len() as u64);
    let (mut before, mut next_cursor) = (Before::default(), 0);
    for (cursor, count) in counts {
        put_varint(out, u64::from(cursor - next_cursor));
        next_cursor = cursor + 1;
        put_varint(out, count);
        let mut next = 0;
        while let Some(((_, offset), entry)) = all.next_if(|((of, _), _)| *of == cursor) {
            encode_message(group, (offset.0 - next, entry), &mut before, out);
            next = offset.0 + 1;
        }
    }
}

fn encode_message(group: &Kept, (gap, entry): (u64, &OutstandingEntry), before: &mut Before, out: &mut Vec<u8>) {
    let follows = before.follows(&entry.phase);
    before.note(&entry.phase);
    // seam: the snapshot forgets a limit
    let limit = (entry.max_attempts != group.options.max_attempts).then_some(entry.max_attempts);
    put_varint(out, flags(entry, follows, limit.is_some()));
    put_varint(out, gap);
    put_varint(out, u64::from(entry.attempts));
    if let Some(limit) = limit {
        put_varint(out, u64::from(limit));
    }
    match entry.phase {
        Phase::Waiting { due, delay_ms } => {
            put_varint(out, due.0);
            put_varint(out, delay_ms);
        }
        Phase::Leased(_) | Phase::Ready { .. } if follows => {}
        Phase::Leased(lease) => {
            put_varint(out, lease.until.0);
            put_varint(out, lease.lsn.0);
            put_varint(out, u64::from(lease.rank));
        }
        Phase::Ready { turn } => put_varint(out, turn),
    }
    let Some(history) = &entry.history else { return };
    put_varint(out, history.past.len() as u64);
    for past in &history.past {
        codec::put_failure(out, &past.failure);
        if !past.failure.text.is_empty() {
            put_varint(out, past.turn);
        }
    }
}

fn encode_dead_letters(dead_letters: &OffsetSet, out: &mut Vec<u8>) {
    put_varint(out, dead_letters.floor());
    put_varint(out, dead_letters.full().len() as u64);
    let mut next = 0;
    for (first, end) in dead_letters.full() {
        put_varint(out, first - next);
        put_varint(out, end - first);
        next = *end;
    }
    put_varint(out, dead_letters.mixed().len() as u64);
    let mut next = 0;
    for (chunk, bits) in dead_letters.mixed() {
        put_varint(out, chunk - next);
        next = chunk + 1;
        for word in bits.iter() {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }
}

fn flags(entry: &OutstandingEntry, follows: bool, limit: bool) -> u64 {
    let phase = match entry.phase {
        Phase::Leased(_) => LEASED,
        Phase::Waiting { .. } => WAITING,
        Phase::Ready { .. } => READY,
    };
    let flag = |set, bit| if set { bit } else { 0 };
    phase
        | flag(entry.crashed, CRASHED)
        | flag(entry.grace, GRACE)
        | flag(entry.history.is_some(), HISTORY)
        | flag(follows, FOLLOWS)
        | flag(entry.lease().is_some_and(|lease| lease.exclusive), EXCLUSIVE)
        | flag(entry.lease().is_some_and(|lease| lease.extended), EXTENDED)
        | flag(limit, LIMIT)
}

pub(super) fn decode(reader: &mut Reader<'_>, id: GroupId, catalog: &mut Catalog) -> Result<Group, DecodeError> {
    let invalid = DecodeError::Invalid;
    let name: Arc<str> = codec::name(reader)?.into();
    let topic = TopicId(reader.varint()?);
    let options = codec::group_options(reader)?;
    check_options(&options).map_err(|_| invalid("a group with options that it may not have"))?;
    let retry = PartitionId(reader.varint()?);
    let ends = [Offset(reader.varint()?), Offset(reader.varint()?)];
    catalog.restore_group(id, topic, &name, retry, ends).ok_or(invalid("a group that cannot be"))?;
    let of = catalog.topic(topic).ok_or(invalid("a group without a topic"))?;
    let mut group = Group::new(name, (topic, of), options, retry, std::iter::empty()).kept;
    group.turns = reader.varint()?;
    let position = reader.varint()?;
    group.source = Source::numbered(position & 3).ok_or(DecodeError::Invalid("a source that is none"))?;
    group.position =
        u32::try_from(position >> 2).map_err(|_| DecodeError::Invalid("a position beyond all partitions"))?;
    group.rank = (Lsn(reader.varint()?), reader.varint_u32()?);
    group.texts_dropped = reader.varint()?;
    if group.turns > TURNS_MAX || group.position >= group.cursors() {
        return Err(invalid("a group that is nowhere"));
    }
    group.dead_letters = Arc::new(decode_dead_letters(reader, catalog.end(group.dead()))?);
    for cursor in 0..group.cursors() {
        let end = catalog.end(group.partition_of(cursor));
        let next = end.0.checked_sub(reader.varint()?).ok_or(invalid("a group beyond the end of a partition"))?;
        group.set_next(cursor, Offset(next));
    }
    decode_messages(reader, &mut group)?;
    let group = Group::restored(group).ok_or(invalid("a group whose messages contradict each other"))?;
    let fits = group.entries.len() <= OUTSTANDING_MAX as usize && group.texts.bytes <= HISTORY_TEXT_BYTES_MAX;
    if fits { Ok(group) } else { Err(invalid("a group beyond its limits")) }
}

fn decode_dead_letters(reader: &mut Reader<'_>, end: Offset) -> Result<OffsetSet, DecodeError> {
    let floor = reader.varint()?;
    let (mut full, mut next) = (BTreeMap::new(), 0u64);
    for _ in 0..reader.count(2)? {
        let first = next.checked_add(reader.varint()?).ok_or(DecodeError::BadNumber)?;
        next = first.checked_add(reader.varint()?).ok_or(DecodeError::BadNumber)?;
        full.insert(first, next);
    }
    let (mut mixed, mut next) = (BTreeMap::new(), 0u64);
    for _ in 0..reader.count(1 + size_of::<Bits>())? {
        let chunk = next.checked_add(reader.varint()?).ok_or(DecodeError::BadNumber)?;
        next = chunk.checked_add(1).ok_or(DecodeError::BadNumber)?;
        let mut bits = Bits::default();
        for (word, bytes) in bits.iter_mut().zip(reader.take(size_of::<Bits>())?.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        mixed.insert(chunk, Arc::new(bits));
    }
    OffsetSet::restore(floor, full, mixed, end).ok_or(DecodeError::Invalid("a set of dead letters that cannot be"))
}

fn decode_messages(reader: &mut Reader<'_>, group: &mut Kept) -> Result<(), DecodeError> {
    let (mut before, mut next) = (Before::default(), 0u64);
    for _ in 0..reader.count(CURSOR_LEN_MIN)? {
        let cursor = next.checked_add(reader.varint()?).ok_or(DecodeError::BadNumber)?;
        next = cursor.checked_add(1).ok_or(DecodeError::BadNumber)?;
        let cursor = u32::try_from(cursor).ok().filter(|cursor| *cursor < group.cursors());
        let cursor = cursor.ok_or(DecodeError::Invalid("messages of a partition that does not exist"))?;
        decode_cursor(reader, group, cursor, &mut before)?;
    }
    Ok(())
}

fn decode_cursor(
    reader: &mut Reader<'_>,
    group: &mut Kept,
    cursor: u32,
    before: &mut Before,
) -> Result<(), DecodeError> {
    let mut next = 0u64;
    let count = reader.count(SLOT_LEN_MIN)?;
    for _ in 0..count {
        let flags = reader.varint()?;
        let offset = next.checked_add(reader.varint()?).filter(|&offset| offset < group.next(cursor).0);
        let offset = offset.ok_or(DecodeError::Invalid("an outstanding message that was never leased"))?;
        next = offset + 1;
        let entry = decode_slot(reader, flags, group, before)?;
        group.entries.insert((cursor, Offset(offset)), entry);
    }
    if count == 0 { Err(DecodeError::Invalid("a cursor without messages")) } else { Ok(()) }
}

fn decode_slot(
    reader: &mut Reader<'_>,
    flags: u64,
    group: &Kept,
    before: &mut Before,
) -> Result<OutstandingEntry, DecodeError> {
    let invalid = DecodeError::Invalid;
    if flags & !FLAGS != 0 {
        return Err(invalid("an unknown flag of a message"));
    }
    let (turns, usual) = (group.turns, group.options.max_attempts);
    let attempts = reader.varint_u32()?;
    let max_attempts = if flags & LIMIT != 0 { reader.varint_u32()? } else { usual };
    if flags & LIMIT != 0 && max_attempts == usual {
        return Err(invalid("a limit of attempts that is the group's is not written out"));
    }
    let (follows, exclusive, extended) = (flags & FOLLOWS != 0, flags & EXCLUSIVE != 0, flags & EXTENDED != 0);
    let phase = match flags & PHASE {
        LEASED => {
            let (until, lsn, rank) = match before.lease {
                Some(lease) if follows => lease,
                _ => (MonoMs(reader.varint()?), Lsn(reader.varint()?), reader.varint_u32()?),
            };
            Phase::Leased(Lease { until, lsn, rank, exclusive, extended })
        }
        WAITING => Phase::Waiting { due: WallMs(reader.varint()?), delay_ms: reader.varint()? },
        READY => match before.turn {
            Some(turn) if follows => Phase::Ready { turn: turn + 1 },
            _ => Phase::Ready { turn: reader.varint()? },
        },
        _ => return Err(invalid("an unknown phase")),
    };
    let leased = matches!(phase, Phase::Leased(_));
    let sound = match phase {
        Phase::Leased(_) => attempts > 0,
        Phase::Waiting { delay_ms, .. } => delay_ms > 0,
        Phase::Ready { turn } => turn <= turns,
    };
    let (crashed, grace) = (flags & CRASHED != 0, flags & GRACE != 0);
    if !sound || follows != before.follows(&phase) || (exclusive || extended) && !leased || grace && !crashed {
        return Err(invalid("an outstanding message that cannot be"));
    }
    before.note(&phase);
    let history = if flags & HISTORY != 0 { Some(Arc::new(decode_history(reader, turns)?)) } else { None };
    Ok(OutstandingEntry { phase, attempts, max_attempts, crashed, grace, history })
}

fn decode_history(reader: &mut Reader<'_>, turns: u64) -> Result<History, DecodeError> {
    let count = reader.count(PAST_LEN_MIN)?;
    if count == 0 || count > HISTORY_LEN {
        return Err(DecodeError::Invalid("a history without failures, or with too many"));
    }
    let mut past = Vec::with_capacity(count);
    for _ in 0..count {
        let failure = codec::failure(reader)?;
        let turn = if failure.text.is_empty() { 0 } else { reader.varint()? };
        if turn > turns || (turn == 0) != failure.text.is_empty() {
            return Err(DecodeError::Invalid("a failure at no time"));
        }
        past.push(Past { failure, turn });
    }
    Ok(History { past })
}
