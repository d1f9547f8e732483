//! Outstanding messages and the exclusive lease within a snapshot.
//!
//! ```text
//! cursors    for each partition: how far `next` is from its end
//! messages   count of cursors, each: gap, count of messages, each: flags, gap, attempts, [limit], [crashes], [closes],
//!            [backoff], [key], phase, [history]
//! exclusive  flags, [pending], [granted]
//! ```
//! A gap is the distance from the one before less one.

use super::exclusive::{ExclusiveLease, ExclusiveLeases, PendingLease};
use super::outstanding::{Lease, OutstandingEntry, Phase, Prospect};
use super::queue::{AttemptClass, class};
use crate::ids::{GroupId, Lsn, MonoMs, Offset, PartitionId, WallMs};
use crate::record::wire::{ByteReader, DecodeError, put_varint};
use crate::record::{KeyHash, codec};
use crate::state::group::GroupData;
use crate::state::message::MessageRef;
use crate::state::{State, retry};
use std::collections::BTreeMap;
use std::sync::Arc;

const PHASE: u64 = 0x03;
const LEASED: u64 = 0;
const WAITING: u64 = 1;
const READY: u64 = 2;
const PARKED: u64 = 3;
/// Leased by the same record as the leased message before it; or ready or parked in the turn after that of the message before it that is
/// either.
const FOLLOWS: u64 = 0x04;
const CRASHED: u64 = 0x08;
const GRACE: u64 = 0x10;
const HISTORY: u64 = 0x20;
const EXCLUSIVE: u64 = 0x40;
const EXTENDED: u64 = 0x80;
/// Leased last when the group had another limit of attempts than now.
const LIMIT: u64 = 0x100;
/// Leased at orderly closes in a row.
const CLOSES: u64 = 0x200;
/// In a group in order of keys: it has one.
const KEY: u64 = 0x400;
/// The next attempt is exclusive, or there is none.
const ALONE: u64 = 0x800;
const OVER: u64 = 0x1000;
/// The last lease that may end by its timeout.
const LAST: u64 = 0x2000;
const FLAGS: u64 = 0x3fff;

/// The shortest cursor with messages, and the shortest message.
const CURSOR_LEN_MIN: usize = 5;
const ENTRY_LEN_MIN: usize = 3;

const PENDING: u8 = 0x01;
const GRANTED: u8 = 0x02;

/// The last lease and the last turn within a group: most phases follow from them.
#[derive(Default)]
struct LastPhases {
    lease: Option<(MonoMs, Lsn, u32)>,
    turn: Option<u64>,
}

impl LastPhases {
    fn follows(&self, phase: &Phase) -> bool {
        match phase {
            Phase::Leased(lease) => self.lease == Some((lease.until, lease.lsn, lease.rank)),
            Phase::Ready { turn } | Phase::Parked { turn } => {
                self.turn.is_some_and(|last| last.checked_add(1) == Some(*turn))
            }
            Phase::Waiting { .. } => false,
        }
    }

    fn note(&mut self, phase: &Phase) {
        match phase {
            Phase::Leased(lease) => self.lease = Some((lease.until, lease.lsn, lease.rank)),
            Phase::Ready { turn } | Phase::Parked { turn } => self.turn = Some(*turn),
            Phase::Waiting { .. } => {}
        }
    }

    /// The turn of a message that is ready or parked.
    fn next_turn(&self, reader: &mut ByteReader<'_>, follows: bool) -> Result<u64, DecodeError> {
        match self.turn {
            Some(turn) if follows => Ok(turn + 1),
            _ => reader.varint(),
        }
    }
}

pub(in crate::state) fn encode_cursors(group: &GroupData, end: impl Fn(PartitionId) -> Offset, out: &mut Vec<u8>) {
    for cursor in 0..group.cursors() {
        put_varint(out, end(group.partition_of(cursor)).0 - group.next(cursor).0);
    }
}

pub(in crate::state) fn encode_messages(group: &GroupData, out: &mut Vec<u8>) {
    let mut all = group.entries.iter().peekable();
    let mut counts: BTreeMap<u32, u64> = BTreeMap::new();
    group.entries.iter().for_each(|((cursor, _), _)| *counts.entry(*cursor).or_default() += 1);
    put_varint(out, counts.len() as u64);
    let (mut last, mut next_cursor) = (LastPhases::default(), 0);
    for (cursor, count) in counts {
        put_varint(out, u64::from(cursor - next_cursor));
        next_cursor = cursor + 1;
        put_varint(out, count);
        let mut next = 0;
        while let Some(((_, offset), entry)) = all.next_if(|((of, _), _)| *of == cursor) {
            let key = group.keys.get(&(cursor, *offset)).copied();
            encode_message(group, (offset.0 - next, entry, key), &mut last, out);
            next = offset.0 + 1;
        }
    }
}

fn encode_message(
    group: &GroupData,
    (gap, entry, key): (u64, &OutstandingEntry, Option<KeyHash>),
    last: &mut LastPhases,
    out: &mut Vec<u8>,
) {
    let follows = last.follows(&entry.phase);
    last.note(&entry.phase);
    // seam: the snapshot forgets a limit
    let limit = (entry.max_attempts != group.options.max_attempts).then_some(entry.max_attempts);
    put_varint(out, flags(entry, follows, limit.is_some()) | if key.is_some() { KEY } else { 0 });
    put_varint(out, gap);
    put_varint(out, u64::from(entry.attempts));
    if let Some(limit) = limit {
        put_varint(out, u64::from(limit));
    }
    if entry.crashes > 0 {
        put_varint(out, u64::from(entry.crashes));
    }
    if entry.closes > 0 {
        put_varint(out, u64::from(entry.closes));
    }
    // One that is leased on its first attempt has none.
    if entry.lease().is_some() && entry.attempts > 1 {
        put_varint(out, u64::from(entry.backoff_ms));
    }
    if let Some(key) = key {
        codec::put_key_hash(out, key);
    }
    match entry.phase {
        Phase::Waiting { due, delay_ms } => {
            put_varint(out, due.0);
            put_varint(out, delay_ms);
        }
        Phase::Leased(_) | Phase::Ready { .. } | Phase::Parked { .. } if follows => {}
        Phase::Leased(lease) => {
            put_varint(out, lease.until.0);
            put_varint(out, lease.lsn.0);
            put_varint(out, u64::from(lease.rank));
        }
        Phase::Ready { turn } | Phase::Parked { turn } => put_varint(out, turn),
    }
    if let Some(history) = &entry.history {
        retry::encode_history(history, out);
    }
}

fn flags(entry: &OutstandingEntry, follows: bool, limit: bool) -> u64 {
    let phase = match entry.phase {
        Phase::Leased(_) => LEASED,
        Phase::Waiting { .. } => WAITING,
        Phase::Ready { .. } => READY,
        Phase::Parked { .. } => PARKED,
    };
    let flag = |set, bit| if set { bit } else { 0 };
    phase
        | flag(entry.crashes > 0, CRASHED)
        | flag(entry.prospect == Prospect::Grace, GRACE)
        | flag(entry.prospect == Prospect::Alone, ALONE)
        | flag(entry.prospect == Prospect::Over, OVER)
        | flag(entry.lease().is_some_and(|lease| lease.is_last), LAST)
        | flag(entry.history.is_some(), HISTORY)
        | flag(follows, FOLLOWS)
        | flag(entry.lease().is_some_and(|lease| lease.exclusive), EXCLUSIVE)
        | flag(entry.lease().is_some_and(|lease| lease.extended), EXTENDED)
        | flag(limit, LIMIT)
        | flag(entry.closes > 0, CLOSES)
}

pub(in crate::state) fn decode_cursors(
    reader: &mut ByteReader<'_>,
    group: &mut GroupData,
    end: impl Fn(PartitionId) -> Offset,
) -> Result<(), DecodeError> {
    for cursor in 0..group.cursors() {
        let end = end(group.partition_of(cursor));
        let next = end.0.checked_sub(reader.varint()?);
        let next = next.ok_or(DecodeError::Invalid("a group beyond the end of a partition"))?;
        group.set_next(cursor, Offset(next));
    }
    Ok(())
}

pub(in crate::state) fn decode_messages(reader: &mut ByteReader<'_>, group: &mut GroupData) -> Result<(), DecodeError> {
    let (mut last, mut next) = (LastPhases::default(), 0u64);
    for _ in 0..reader.count(CURSOR_LEN_MIN)? {
        let cursor = next.checked_add(reader.varint()?).ok_or(DecodeError::BadNumber)?;
        next = cursor.checked_add(1).ok_or(DecodeError::BadNumber)?;
        let cursor = u32::try_from(cursor).ok().filter(|cursor| *cursor < group.cursors());
        let cursor = cursor.ok_or(DecodeError::Invalid("messages of a partition that does not exist"))?;
        decode_cursor(reader, group, cursor, &mut last)?;
    }
    Ok(())
}

fn decode_cursor(
    reader: &mut ByteReader<'_>,
    group: &mut GroupData,
    cursor: u32,
    last: &mut LastPhases,
) -> Result<(), DecodeError> {
    let mut next = 0u64;
    let count = reader.count(ENTRY_LEN_MIN)?;
    for _ in 0..count {
        let flags = reader.varint()?;
        let offset = next.checked_add(reader.varint()?).filter(|&offset| offset < group.next(cursor).0);
        let offset = offset.ok_or(DecodeError::Invalid("an outstanding message that was never leased"))?;
        next = offset + 1;
        let (entry, key) = decode_entry(reader, flags, group, last)?;
        group.entries.insert((cursor, Offset(offset)), entry);
        if let Some(key) = key {
            group.keys.insert((cursor, Offset(offset)), key);
        }
    }
    if count == 0 { Err(DecodeError::Invalid("a cursor without messages")) } else { Ok(()) }
}

fn decode_entry(
    reader: &mut ByteReader<'_>,
    flags: u64,
    group: &GroupData,
    last: &mut LastPhases,
) -> Result<(OutstandingEntry, Option<KeyHash>), DecodeError> {
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
    let crashes: u16 = count_there(reader, flags & CRASHED != 0)?;
    let closes = count_there(reader, flags & CLOSES != 0)?;
    let has_backoff = flags & PHASE == LEASED && attempts > 1;
    let backoff_ms = if has_backoff { reader.varint_u32()? } else { 0 };
    let key = if flags & KEY != 0 { Some(codec::key_hash(reader)?) } else { None };
    let is_set = |flag| flags & flag != 0;
    let (follows, exclusive, extended, is_last) = (is_set(FOLLOWS), is_set(EXCLUSIVE), is_set(EXTENDED), is_set(LAST));
    let phase = match flags & PHASE {
        LEASED => {
            let (until, lsn, rank) = match last.lease {
                Some(lease) if follows => lease,
                _ => (MonoMs(reader.varint()?), Lsn(reader.varint()?), reader.varint_u32()?),
            };
            Phase::Leased(Lease { until, lsn, rank, exclusive, extended, is_last })
        }
        WAITING => Phase::Waiting { due: WallMs(reader.varint()?), delay_ms: reader.varint()? },
        READY => Phase::Ready { turn: last.next_turn(reader, follows)? },
        // seam: a checkpoint forgets what waits
        _ => Phase::Parked { turn: last.next_turn(reader, follows)? },
    };
    let leased = matches!(phase, Phase::Leased(_));
    // A crash is one of the attempts that ended.
    let ended = if leased { attempts.checked_sub(1) } else { Some(attempts) };
    let sound = ended.is_some_and(|ended| u32::from(crashes) <= ended);
    let fits = match phase {
        Phase::Leased(_) => true,
        Phase::Waiting { delay_ms, .. } => delay_ms > 0,
        Phase::Ready { turn } => turn <= turns,
        Phase::Parked { turn } => turn <= turns && attempts == 0 && closes == 0 && flags & HISTORY == 0,
    };
    let prospect = match (is_set(GRACE), is_set(ALONE), is_set(OVER)) {
        (false, false, false) => Prospect::None,
        (true, false, false) if crashes > 0 => Prospect::Grace,
        (false, true, false) if crashes > 0 => Prospect::Alone,
        // seam: a checkpoint lets a message have another attempt
        (false, false, true) if !leased => Prospect::Over,
        _ => return Err(invalid("a prospect that cannot be")),
    };
    let sound = sound && fits;
    if !sound || follows != last.follows(&phase) || (exclusive || extended || is_last) && !leased {
        return Err(invalid("an outstanding message that cannot be"));
    }
    last.note(&phase);
    let history = if flags & HISTORY != 0 { Some(Arc::new(retry::decode_history(reader, turns)?)) } else { None };
    Ok((OutstandingEntry { phase, attempts, max_attempts, backoff_ms, crashes, closes, prospect, history }, key))
}

/// A count that is told where it is not zero.
fn count_there<T: TryFrom<u32> + Default>(reader: &mut ByteReader<'_>, is_there: bool) -> Result<T, DecodeError> {
    if !is_there {
        return Ok(T::default());
    }
    match reader.varint_u32()? {
        0 => Err(DecodeError::Invalid("a count of zero is not written out")),
        count => T::try_from(count).map_err(|_| DecodeError::BadNumber),
    }
}

pub(in crate::state) fn encode_exclusive(exclusive: &ExclusiveLeases, out: &mut Vec<u8>) {
    out.push(
        if exclusive.pending.is_some() { PENDING } else { 0 } | if exclusive.granted.is_some() { GRANTED } else { 0 },
    );
    if let Some(PendingLease { message, since }) = exclusive.pending {
        put_message(out, message);
        put_varint(out, since.0);
    }
    if let Some(ExclusiveLease { message, since, until }) = exclusive.granted {
        put_message(out, message);
        put_varint(out, since.0);
        put_varint(out, until.0);
    }
}

pub(in crate::state) fn decode_exclusive(reader: &mut ByteReader<'_>) -> Result<ExclusiveLeases, DecodeError> {
    let flags = reader.byte()?;
    if flags & !(PENDING | GRANTED) != 0 {
        return Err(DecodeError::Invalid("an unknown flag of the exclusive lease"));
    }
    let mut exclusive = ExclusiveLeases::default();
    if flags & PENDING != 0 {
        exclusive.pending = Some(PendingLease { message: message(reader)?, since: MonoMs(reader.varint()?) });
    }
    if flags & GRANTED != 0 {
        let (message, since) = (message(reader)?, MonoMs(reader.varint()?));
        exclusive.granted = Some(ExclusiveLease { message, since, until: MonoMs(reader.varint()?) });
    }
    Ok(exclusive)
}

fn put_message(out: &mut Vec<u8>, message: MessageRef) {
    put_varint(out, message.group.0);
    put_varint(out, message.partition.0);
    put_varint(out, message.offset.0);
}

fn message(reader: &mut ByteReader<'_>) -> Result<MessageRef, DecodeError> {
    Ok(MessageRef {
        group: GroupId(reader.varint()?),
        partition: PartitionId(reader.varint()?),
        offset: Offset(reader.varint()?),
    })
}

impl State {
    /// Whether what the exclusive lease says is what its message says.
    pub(in crate::state) fn exclusive_fits(&self) -> bool {
        let find = |message: MessageRef| {
            let group = self.groups.get(&message.group)?;
            group.entry(group.cursor_of(message.partition)?, message.offset)
        };
        let pending = self
            .exclusive
            .pending
            .is_none_or(|pending| find(pending.message).is_some_and(|entry| class(entry) == AttemptClass::Exclusive));
        let granted = self.exclusive.granted.is_none_or(|granted| {
            let lease = find(granted.message).and_then(|entry| entry.lease());
            lease.is_some_and(|lease| lease.exclusive && lease.until == granted.until)
        });
        pending && granted
    }
}
