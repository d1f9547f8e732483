//! Records and messages: what is decoded has one form, and what is encoded comes back.

use crate::disk::Disk;
use crate::disk::sim::SimDisk;
use crate::ids::{Epoch, GroupId, Lsn, MessageId, MonoMs, Offset, PartitionId, StoreMs, TopicId, WallMs};
use crate::limits::{BLOCK_MS_MAX, HISTORY_LEN};
use crate::log::fuzzing::Take;
use crate::log::fuzzing::seeds::Seeds;
use crate::log::{ControlFrame, ReadError, Settings};
use crate::record::codec;
use crate::record::message::{self, MessageView};
use crate::record::{
    AttemptFailure, BackoffOptions, Copied, DueTime, FailureCause, FailureCounts, Filter, GroupOptions, Growth, Hold,
    Jitter, KeyHash, Ordering, Origin, Provenance, RateOptions, Record, Retention, StreamId, StreamNote, TopicOptions,
    WhenFull,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The first byte says what the rest is: a head, a message, or the fields of records that are encoded and must come back.
pub fn record(data: &[u8]) -> bool {
    let Some((flags, bytes)) = data.split_first() else { return false };
    match flags % 3 {
        0 => head(bytes),
        1 => message(bytes),
        _ => comes_back(bytes),
    }
}

fn head(bytes: &[u8]) -> bool {
    let Ok(records) = codec::decode(bytes).collect::<Result<Vec<_>, _>>() else { return false };
    let mut again = Vec::new();
    codec::encode(&records, &mut again);
    assert_eq!(again, bytes);
    !records.is_empty()
}

fn message(bytes: &[u8]) -> bool {
    let Ok(view) = MessageView::parse(bytes) else { return false };
    let headers: Vec<_> = view.headers().collect();
    let mut again = Vec::new();
    message::encode_front(view.key(), headers.iter().copied(), &mut again);
    again.extend_from_slice(view.payload());
    assert_eq!(again, bytes);
    view.key().is_some() || !headers.is_empty()
}

fn comes_back(bytes: &[u8]) -> bool {
    let mut take = Take::new(bytes);
    let mut records = Vec::new();
    while !take.is_empty() && records.len() < 64 {
        records.push(any_record(&mut take));
    }
    let mut head = Vec::new();
    codec::encode(&records, &mut head);
    let read = codec::decode(&head).collect::<Result<Vec<_>, _>>();
    assert_eq!(read.as_ref(), Ok(&records));
    true
}

/// A number of one to nine bytes: the first tells how many follow.
fn number(take: &mut Take<'_>) -> u64 {
    let first = take.byte();
    if first < 0xf0 {
        return u64::from(first);
    }
    (0..=first & 7).fold(0, |value, _| value << 8 | u64::from(take.byte()))
}

fn small(take: &mut Take<'_>) -> u32 {
    number(take) as u32
}

fn text(take: &mut Take<'_>, len_max: usize) -> String {
    let len = usize::from(take.byte()) % (len_max + 1);
    let mut text = String::from_utf8_lossy(take.bytes(len)).into_owned();
    while text.len() > len_max {
        text.pop();
    }
    text
}

fn failure(take: &mut Take<'_>) -> AttemptFailure {
    let causes = [
        FailureCause::Nacked,
        FailureCause::Expired,
        FailureCause::Crashed,
        FailureCause::Closed,
        FailureCause::Rejected,
    ];
    let cause = causes[usize::from(take.byte()) % causes.len()];
    AttemptFailure { cause, time: WallMs(number(take)), text: text(take, 120).into() }
}

/// Any record that there may be, from the next bytes.
pub(super) fn any_record(take: &mut Take<'_>) -> Record {
    let kind = take.byte() % 36;
    let (group, partition, offset) = (GroupId(number(take)), PartitionId(number(take)), Offset(number(take)));
    match kind {
        0 => Record::Published { partition, base: offset, count: small(take), time: WallMs(number(take)) },
        1 => {
            let (count, attempt, until) = (small(take), small(take), MonoMs(number(take)));
            // A first attempt ends no lease, so it has no time.
            let time = WallMs(if attempt == 1 { 0 } else { number(take) });
            Record::Leased {
                group,
                partition,
                first: offset,
                count,
                attempt,
                until,
                time,
                exclusive: take.byte() & 1 == 1,
            }
        }
        2 => Record::Acked { group, partition, first: offset, count: small(take) },
        3 => {
            let (due, delay_ms) = (WallMs(number(take)), number(take));
            Record::Nacked { group, partition, offset, due, delay_ms, failure: failure(take) }
        }
        4 => Record::Extended { group, partition, offset, until: MonoMs(number(take)) },
        5 => Record::Released { group, partition, offset },
        6 => Record::Unreadable { group, partition, offset, due: WallMs(number(take)), delay_ms: number(take) },
        7 => Record::ExclusivePending { group, partition, offset, since: MonoMs(number(take)) },
        8 => Record::DeadLettered { group, partition, offset, copy: Box::new(copy(take)) },
        9 => Record::Postponed { group, partition, offset, due: WallMs(number(take)), delay_ms: number(take) },
        10 => Record::Redriven { group, dead_letter: offset, copy: Box::new(copy(take)) },
        11 => Record::Discarded { group, dead_letter: offset },
        12 => Record::Opened { epoch: Epoch(offset.0), clean: take.byte() & 1 == 1, wall: WallMs(number(take)) },
        13 => Record::ClockJumped { wall: WallMs(offset.0), by_ms: number(take) as i64 },
        14 => {
            let (name, count) = (name(take), small(take));
            let options = topic_options(take);
            Record::TopicCreated { topic: TopicId(group.0), name, first: partition, count, options }
        }
        15 => Record::TopicRemoved { topic: TopicId(group.0) },
        16 => Record::GroupRemoved { group },
        17 => Record::GroupAltered { group, options: options(take) },
        18 => {
            let value = take.bytes(usize::from(partition.0 as u8)).into();
            let is_holding = take.byte() & 1 == 1;
            let hold = is_holding.then_some(Hold { topic: TopicId(group.0), from: Lsn(offset.0) });
            Record::CursorSet { name: name(take), value, hold }
        }
        19 => Record::CursorRemoved { name: name(take) },
        20 => {
            let (id, body, time) = (u128::from(number(take)), number(take), StoreMs(number(take)));
            Record::Accepted { partition, offset, id, body, time }
        }
        22..=24 => stream_record(take, kind, StreamId { partition, key: u128::from(group.0) }, offset),
        21 => Record::Sequenced { topic: TopicId(group.0), producer: name(take), sequence: offset.0 },
        25 => group_created(take, group, partition),
        26..=28 => schedule_record(take, kind, TopicId(group.0), (partition, offset)),
        29 | 32 => looked(take, kind, (group, partition, offset)),
        30 => Record::RetentionMarked { topic: TopicId(group.0), time: StoreMs(offset.0) },
        31 => Record::Filtered { group, partition, first: offset, count: small(take) },
        33 => key_taken(take, partition, offset),
        34 => group_sought(take, group),
        _ => Record::Dropped { group, partition, first: offset, count: small(take) },
    }
}

fn looked(take: &mut Take<'_>, kind: u8, (group, partition, first): (GroupId, PartitionId, Offset)) -> Record {
    let keys: Vec<_> = (0..=take.byte() % 8).map(|_| KeyHash(number(take))).collect();
    if kind == 32 {
        return Record::Recalled { group, partition, first, keys };
    }
    let counted = (0..keys.len() as u32).filter(|_| take.byte() & 3 == 0).collect();
    Record::Considered { group, partition, first, keys, counted }
}

fn key_taken(take: &mut Take<'_>, partition: PartitionId, offset: Offset) -> Record {
    let replaces = take.byte() & 1 == 1;
    let replaced = replaces.then(|| (PartitionId(number(take)), Offset(number(take))));
    let (key, message_key) = (u128::from(number(take)), KeyHash(number(take)));
    Record::KeyTaken { partition, offset, key, message_key, replaced }
}

fn schedule_record(
    take: &mut Take<'_>,
    kind: u8,
    topic: TopicId,
    (partition, offset): (PartitionId, Offset),
) -> Record {
    match kind {
        26 => Record::ScheduleCreated { topic, partition },
        27 => {
            let (to, time, flags) = (PartitionId(topic.0), number(take), take.byte());
            let due = if flags & 1 == 1 { DueTime::Wall(WallMs(time)) } else { DueTime::Store(StoreMs(time)) };
            Record::Scheduled { partition, offset, to, due, again: flags & 2 == 2 }
        }
        _ => {
            let is_due = take.byte() & 1 == 1;
            Record::ScheduleEnded { partition, offset, copy: is_due.then(|| Box::new(copy(take))) }
        }
    }
}

fn stream_record(take: &mut Take<'_>, kind: u8, stream: StreamId, offset: Offset) -> Record {
    match kind {
        22 => {
            let (version, count, time) = (number(take), small(take), WallMs(number(take)));
            Record::Appended { stream, base: offset, count, time, version, first: number(take) }
        }
        23 => Record::StreamTruncated { stream, note: note(take), first: offset.0, next: number(take) },
        _ => {
            let (note, version) = (note(take), offset.0);
            Record::SnapshotSaved { stream, note, version, first: number(take), next: number(take) }
        }
    }
}

fn note(take: &mut Take<'_>) -> StreamNote {
    let (partition, offset) = (PartitionId(number(take)), Offset(number(take)));
    StreamNote { partition, offset, time: WallMs(number(take)) }
}

fn copy(take: &mut Take<'_>) -> Copied {
    let (partition, offset, time) = (PartitionId(number(take)), Offset(number(take)), WallMs(number(take)));
    let origin = Origin {
        id: MessageId {
            topic: TopicId(number(take)),
            partition: number(take),
            offset: Offset(number(take)),
            epoch: Epoch(number(take)),
        },
        time: WallMs(number(take)),
        redrives: u32::from(take.byte() % 20),
    };
    let attempts = small(take);
    let history: Vec<_> = (0..usize::from(take.byte()) % (HISTORY_LEN + 1)).map(|_| failure(take)).collect();
    let mut earlier = FailureCounts::default();
    if history.len() == HISTORY_LEN {
        earlier = FailureCounts { nacks: small(take), expiries: small(take), crashes: small(take) };
    }
    Copied { partition, offset, time, provenance: Provenance { origin, attempts, history, earlier } }
}

fn name(take: &mut Take<'_>) -> String {
    let mut name = text(take, 200);
    if name.is_empty() {
        name.push('n');
    }
    name
}

fn retention(take: &mut Take<'_>) -> Retention {
    match take.byte() & 3 {
        0 => Retention::UntilSettled,
        1 => Retention::Forever,
        2 => Retention::Age(Duration::from_millis(u64::from(small(take)).max(1))),
        _ => Retention::Count(u64::from(small(take)).max(1)),
    }
}

fn topic_options(take: &mut Take<'_>) -> TopicOptions {
    let retention = retention(take);
    let (dedup_ids, dedup_window_ms) = (small(take).max(1), number(take));
    let (max_messages, when_full) = match take.byte() & 3 {
        0 => (number(take).max(1), WhenFull::Reject),
        2 => (number(take).max(1), WhenFull::DropOldest),
        1 => {
            (number(take).max(1), WhenFull::Block(Duration::from_millis(u64::from(small(take)).clamp(1, BLOCK_MS_MAX))))
        }
        _ => (0, WhenFull::Reject),
    };
    TopicOptions {
        retention,
        dedup_ids,
        dedup_window_ms,
        streams: take.byte() & 1 == 1,
        snapshots_kept: small(take).max(1),
        max_messages,
        when_full,
        drops_unsettled: retention.is_for_a_while() && take.byte() & 1 == 1,
    }
}

/// Filters, and what is none.
const FILTERS: [&str; 5] = ["", "type exists", "not (a = 'b' or c < -1.50)", "t matches 'a.*'", "t in ('"];

fn options(take: &mut Take<'_>) -> GroupOptions {
    let backoff = BackoffOptions {
        first_ms: number(take),
        max_ms: number(take),
        jitter: [Jitter::None, Jitter::UpperHalf, Jitter::Full][usize::from(take.byte() % 3)],
        growth: match take.byte() % 3 {
            0 => Growth::Exponential,
            1 => Growth::Linear,
            _ => Growth::List((0..=take.byte() % 16).map(|_| number(take)).collect()),
        },
    };
    GroupOptions {
        visibility_timeout_ms: number(take),
        max_attempts: small(take),
        max_nacks: small(take),
        max_expiries: small(take),
        max_crashes: small(take),
        backoff,
        max_outstanding: small(take),
        max_closes: small(take),
        notices: (take.byte() & 1 == 1).then(|| TopicId(number(take) >> 1)),
        ordering: match take.byte() % 3 {
            0 => Ordering::None,
            1 => Ordering::Key,
            _ => Ordering::Partition,
        },
        max_in_flight_per_key: small(take).max(1),
        paused: take.byte() & 1 == 1,
        max_in_flight: small(take),
        rate: RateOptions { count: small(take), per_ms: number(take), burst: small(take) },
        filter: Filter::parse(FILTERS[usize::from(take.byte() % 5)]).ok().map(Arc::new),
    }
}

fn group_sought(take: &mut Take<'_>, group: GroupId) -> Record {
    let places: Vec<_> = (0..take.byte() % 8).map(|_| (number(take), number(take))).collect();
    let starts = places.iter().map(|(_, start)| Offset(*start)).collect();
    let from = places.iter().map(|(from, start)| Offset(*from.min(start))).collect();
    Record::GroupSought { group, from, starts }
}

fn group_created(take: &mut Take<'_>, group: GroupId, retry: PartitionId) -> Record {
    let name = name(take);
    let options = options(take);
    let topic = TopicId(number(take));
    let starts = (0..take.byte() % 8).map(|_| Offset(number(take))).collect();
    Record::GroupCreated { group, topic, name, options, retry, starts }
}

/// How many records of each kind the log of a store holds, control frames among them: for tests that must have seen
/// all.
///
/// # Errors
/// What is wrong with the log.
pub fn kinds(disk: &SimDisk) -> Result<BTreeMap<&'static str, u64>, String> {
    let access = crate::disk::Access::SyncSeldom;
    let settings = Settings { segment_len_first: 65_536, segment_len_max: 65_536, access };
    let handle: Arc<dyn Disk> = Arc::new(disk.snapshot().attach().map_err(|error| error.to_string())?);
    let log = crate::log::open(handle, settings).map_err(|error| error.to_string())?;
    let mut counts = BTreeMap::new();
    for segment in log.contents.catalog.segments() {
        let walked = crate::log::for_each_frame::<ReadError>(segment, segment.base(), &mut |frame| {
            let control = match ControlFrame::decode(frame.head()).filter(|_| frame.is_log()) {
                Some(ControlFrame::SegmentStart) => Some("segment start"),
                Some(ControlFrame::Mark) => Some("mark"),
                Some(ControlFrame::RangeRetired { .. }) => Some("range retired"),
                Some(ControlFrame::FileAdded { .. }) => Some("file added"),
                None => None,
            };
            control.into_iter().for_each(|control| *counts.entry(control).or_default() += 1);
            if !frame.is_log() {
                codec::decode(frame.head()).flatten().for_each(|record| *counts.entry(record.kind()).or_default() += 1);
            }
            Ok(())
        });
        walked.map_err(|error| error.to_string())?;
    }
    Ok(counts)
}

/// A few inputs for each kind.
pub(super) fn seeds() -> Seeds {
    let mut seeds = Vec::new();
    let mut all = Vec::new();
    for kind in 0..34u8 {
        let fields: Vec<u8> = std::iter::once(kind).chain((1..40).map(|n| n * 3 % 23 + 1)).collect();
        let record = any_record(&mut Take::new(&fields));
        let name = record.kind().replace(' ', "-");
        codec::encode(std::slice::from_ref(&record), &mut all);
        let mut head = vec![0];
        codec::encode(&[record], &mut head);
        seeds.push(("record", format!("head-{name}"), head));
        seeds.push(("record", format!("fields-{name}"), [vec![2], fields].concat()));
    }
    seeds.push(("record", "head-all".to_owned(), [vec![0], all].concat()));
    for (name, part) in
        [("plain", &b"\x00hi"[..]), ("key", b"\x01\x01k"), ("both", b"\x03\x01k\x02\x04type\x01A\x00\x00hi")]
    {
        seeds.push(("record", format!("message-{name}"), [&[1], part].concat()));
    }
    seeds
}
