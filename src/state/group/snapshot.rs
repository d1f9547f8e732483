//! The bytes of a group within a snapshot.
//!
//! ```text
//! name | topic | options | retry partition | its end | end of the partition of dead letters | turns | position | rank | texts dropped | dropped
//! dead letters   floor, count of runs, each: gap and length; count of bitmaps, each: gap and 64 bytes
//! cursors   for each partition: how far `next` is from its end
//! messages  count of cursors, each: gap, count of messages, each: flags, gap, attempts, [limit], [key], phase, [history]
//! counted   as in `order`
//! ```
//! A gap is the distance from the one before less one. Never here: what the parts mean to each other across groups.

use super::decide::{check_notices, check_options};
use super::{GroupData, GroupState};
use crate::ids::{GroupId, Lsn, Offset, PartitionId, TopicId};
use crate::limits::{HISTORY_TEXT_BYTES_MAX, OUTSTANDING_MAX, PARKED_LIMIT};
use crate::record::codec;
use crate::record::wire::{ByteReader, DecodeError, put_bytes, put_varint};
use crate::state::lease::Source;
use crate::state::retry::TURNS_MAX;
use crate::state::topic::TopicCatalog;
use crate::state::{dead_letter, lease, order};
use std::sync::Arc;

pub(in crate::state) fn encode(group: &GroupData, end: impl Fn(PartitionId) -> Offset, out: &mut Vec<u8>) {
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
    // seam: a checkpoint forgets what was dropped
    put_varint(out, group.dropped);
    // seam: a checkpoint forgets the dead letters
    dead_letter::encode(&group.dead_letters, out);
    lease::encode_cursors(group, end, out);
    lease::encode_messages(group, out);
    order::encode(group, out);
}

pub(in crate::state) fn decode(
    reader: &mut ByteReader<'_>,
    id: GroupId,
    catalog: &mut TopicCatalog,
) -> Result<GroupState, DecodeError> {
    let invalid = DecodeError::Invalid;
    let name: Arc<str> = codec::name(reader)?.into();
    let topic = TopicId(reader.varint()?);
    let options = codec::group_options(reader)?;
    check_options(&options).map_err(|_| invalid("a group with options that it may not have"))?;
    check_notices(&options, catalog.next()).map_err(|_| invalid("a group with notices to a topic that never was"))?;
    let retry = PartitionId(reader.varint()?);
    let ends = [Offset(reader.varint()?), Offset(reader.varint()?)];
    catalog.restore_group(id, topic, &name, retry, ends).ok_or(invalid("a group that cannot be"))?;
    let of = catalog.topic(topic).ok_or(invalid("a group without a topic"))?;
    let mut group = GroupState::new(name, (topic, of), options, retry, std::iter::empty()).data;
    group.turns = reader.varint()?;
    let position = reader.varint()?;
    group.source = Source::numbered(position & 3).ok_or(DecodeError::Invalid("a source that is none"))?;
    group.position =
        u32::try_from(position >> 2).map_err(|_| DecodeError::Invalid("a position beyond all partitions"))?;
    group.rank = (Lsn(reader.varint()?), reader.varint_u32()?);
    group.texts_dropped = reader.varint()?;
    group.dropped = reader.varint()?;
    if group.turns > TURNS_MAX || group.position >= group.cursors() {
        return Err(invalid("a group that is nowhere"));
    }
    group.dead_letters = Arc::new(dead_letter::decode(reader, catalog.end(group.dead()))?);
    lease::decode_cursors(reader, &mut group, |partition| catalog.end(partition))?;
    lease::decode_messages(reader, &mut group)?;
    order::decode(reader, &mut group)?;
    let group = GroupState::restored(group).ok_or(invalid("a group whose messages contradict each other"))?;
    let fits = group.outstanding() <= OUTSTANDING_MAX
        && group.parked <= PARKED_LIMIT
        && group.texts.bytes <= HISTORY_TEXT_BYTES_MAX;
    if fits { Ok(group) } else { Err(invalid("a group beyond its limits")) }
}
