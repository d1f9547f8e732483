//! Golden bytes of every kind of record, and what malformed ones give.

use super::*;
use crate::ids::{Epoch, GroupId, Lsn, MessageId, MonoMs, Offset, PartitionId, StoreMs, TopicId, WallMs};
use crate::limits::BLOCK_MS_MAX;
use crate::record::wire::{Newer, put_bytes, put_varint};
use crate::record::{
    AttemptFailure, BackoffOptions, Copied, DueTime, FailureCause, FailureCounts, Filter, GroupOptions, Growth, Hold,
    Jitter, KeyHash, Ordering, Origin, Provenance, RateOptions, Retention, StreamId, StreamNote, TopicOptions,
    WhenFull,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::sync::Arc;
use std::time::Duration;

fn bytes_of(record: Record) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&[record], &mut out);
    out
}

/// The format of each kind, once and for ever: a change here breaks every store.
#[track_caller]
fn golden(record: Record, hex: &str) {
    let expected: Vec<u8> = hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    let out = bytes_of(record.clone());
    let shown: String = out.iter().map(|byte| format!("{byte:02x} ")).collect();
    assert_eq!(out, expected, "is {shown}");
    assert_eq!(decode(&expected).collect::<Vec<_>>(), [Ok(record)]);
}

const GROUP: GroupId = GroupId(3);
const PARTITION: PartitionId = PartitionId(5);
const OFFSET: Offset = Offset(300);
/// 2024-10-02: a time of our days takes six bytes.
const TIME: WallMs = WallMs(1_727_827_200_000);
const TIME_HEX: &str = "80 90 9b d4 a4 32";

#[test]
fn golden_published() {
    // kind, length, partition, base, time
    let one = Record::Published { partition: PARTITION, base: OFFSET, count: 1, time: TIME };
    golden(one, &format!("01 09 05 ac 02 {TIME_HEX}"));
    // kind, length, partition, base, time, count
    let many = Record::Published { partition: PARTITION, base: OFFSET, count: 100, time: TIME };
    golden(many, &format!("01 0a 05 ac 02 {TIME_HEX} 64"));
}

#[test]
fn golden_leased() {
    let leased = |count, attempt, time, exclusive| Record::Leased {
        group: GROUP,
        partition: PARTITION,
        first: OFFSET,
        count,
        attempt,
        until: MonoMs(30_000),
        time,
        exclusive,
    };
    // kind, length, group, partition, first, until
    golden(leased(1, 1, WallMs(0), false), "02 07 03 05 ac 02 b0 ea 01");
    // kind, length, group, partition, first, until, flags, count
    golden(leased(7, 1, WallMs(0), false), "02 09 03 05 ac 02 b0 ea 01 01 07");
    // kind, length, group, partition, first, until, flags, attempt, time
    golden(leased(1, 5, TIME, true), &format!("02 0f 03 05 ac 02 b0 ea 01 06 05 {TIME_HEX}"));
    // kind, length, group, partition, first, until, flags, count, attempt, time
    golden(leased(2, 2, TIME, false), &format!("02 10 03 05 ac 02 b0 ea 01 03 02 02 {TIME_HEX}"));
    // kind, length, group, partition, first, until, flags
    golden(leased(1, 1, WallMs(0), true), "02 08 03 05 ac 02 b0 ea 01 04");
}

#[test]
fn golden_considered() {
    // kind, length, group, partition, first, count of those that are only counted, keys
    let keys = vec![KeyHash(0x0706_0504_0302_0100), KeyHash::NONE];
    let considered =
        |keys, counted| Record::Considered { group: GROUP, partition: PARTITION, first: OFFSET, keys, counted };
    let hex = "00 01 02 03 04 05 06 07 00 00 00 00 00 00 00 00";
    golden(considered(keys.clone(), vec![]), &format!("1e 15 03 05 ac 02 00 {hex}"));
    // the same, and for each of those its distance from the one before
    golden(considered(vec![KeyHash(0); 4], vec![1, 3]), &format!("1e 27 03 05 ac 02 02 01 01 {}", "00 ".repeat(32)));
    // kind, length, group, partition, first, keys
    // kind, length, group, partition, offset, count
    golden(Record::Dropped { group: GROUP, partition: PARTITION, first: OFFSET, count: 1 }, "22 04 03 05 ac 02");
    golden(
        Record::Dropped { group: GROUP, partition: PARTITION, first: OFFSET, count: 300 },
        "22 06 03 05 ac 02 ac 02",
    );
    golden(Record::Filtered { group: GROUP, partition: PARTITION, first: OFFSET, count: 1 }, "21 04 03 05 ac 02");
    golden(
        Record::Filtered { group: GROUP, partition: PARTITION, first: OFFSET, count: 300 },
        "21 06 03 05 ac 02 ac 02",
    );
    let recalled = Record::Recalled { group: GROUP, partition: PARTITION, first: OFFSET, keys };
    golden(recalled, &format!("1f 14 03 05 ac 02 {hex}"));
    for (kind, fields) in [(30, &[3, 5, 9, 0][..]), (31, &[3, 5, 9])] {
        for len in [0, 7, 9] {
            let head = [&[kind, fields.len() as u8 + len][..], fields, &vec![1; usize::from(len)]].concat();
            assert!(matches!(decode(&head).next(), Some(Err(DecodeError::Invalid(_)))), "{kind} {len}");
        }
    }
}

#[test]
fn golden_settling() {
    // kind, length, group, partition, first [, count]
    golden(Record::Acked { group: GROUP, partition: PARTITION, first: OFFSET, count: 1 }, "03 04 03 05 ac 02");
    golden(Record::Acked { group: GROUP, partition: PARTITION, first: OFFSET, count: 64 }, "03 05 03 05 ac 02 40");
    // kind, length, group, partition, offset, due, delay, cause, time, text
    let nacked = Record::Nacked {
        group: GROUP,
        partition: PARTITION,
        offset: OFFSET,
        due: TIME,
        delay_ms: 1000,
        failure: AttemptFailure { cause: FailureCause::Nacked, time: TIME, text: "no salt".into() },
    };
    golden(nacked, &format!("04 1b 03 05 ac 02 {TIME_HEX} e8 07 00 {TIME_HEX} 07 6e 6f 20 73 61 6c 74"));
    let until = MonoMs(60_000);
    golden(
        Record::Extended { group: GROUP, partition: PARTITION, offset: OFFSET, until },
        "05 07 03 05 ac 02 e0 d4 03",
    );
    golden(Record::Released { group: GROUP, partition: PARTITION, offset: OFFSET }, "06 04 03 05 ac 02");
    // kind, length, group, partition, offset, due, delay
    let (due, delay_ms) = (TIME, 1000);
    let unreadable = Record::Unreadable { group: GROUP, partition: PARTITION, offset: OFFSET, due, delay_ms };
    golden(unreadable, &format!("07 0c 03 05 ac 02 {TIME_HEX} e8 07"));
    let awaited =
        Record::ExclusivePending { group: GROUP, partition: PARTITION, offset: OFFSET, since: MonoMs(30_000) };
    golden(awaited, "08 07 03 05 ac 02 b0 ea 01");
}

#[test]
fn golden_dead_letters() {
    // kind, length, partition, offset, time; origin's topic, partition, offset, epoch, time, redrives; attempts; failures: cause, time, text
    let copy = Box::new(Copied {
        partition: PARTITION,
        offset: OFFSET,
        time: TIME,
        provenance: Provenance {
            origin: Origin {
                id: MessageId { topic: TopicId(1), partition: 0, offset: Offset(9), epoch: Epoch(2) },
                time: WallMs(7),
                redrives: 3,
            },
            attempts: 6,
            history: vec![
                AttemptFailure { cause: FailureCause::Expired, time: WallMs(8), text: "".into() },
                AttemptFailure { cause: FailureCause::Crashed, time: WallMs(9), text: "".into() },
                AttemptFailure { cause: FailureCause::Closed, time: WallMs(10), text: "".into() },
                AttemptFailure { cause: FailureCause::Rejected, time: WallMs(11), text: "é".into() },
            ],
            earlier: FailureCounts::default(),
        },
    });
    let copy_hex = format!("05 ac 02 {TIME_HEX} 01 00 09 02 07 03 06 04 01 08 00 02 09 00 03 0a 00 04 0b 02 c3 a9");
    let dead_lettered = Record::DeadLettered { group: GROUP, partition: PARTITION, offset: OFFSET, copy: copy.clone() };
    golden(dead_lettered, &format!("09 23 03 05 ac 02 {copy_hex}"));
    let postponed = Record::Postponed { group: GROUP, partition: PARTITION, offset: OFFSET, due: TIME, delay_ms: 1000 };
    golden(postponed, &format!("0a 0c 03 05 ac 02 {TIME_HEX} e8 07"));
    golden(Record::Redriven { group: GROUP, dead_letter: Offset(128), copy }, &format!("0b 22 03 80 01 {copy_hex}"));
    golden(Record::Discarded { group: GROUP, dead_letter: Offset(127) }, "0c 02 03 7f");
}

#[test]
fn golden_store() {
    golden(Record::Opened { epoch: Epoch(9), clean: false, wall: TIME }, &format!("0d 08 09 {TIME_HEX} 00"));
    golden(Record::Opened { epoch: Epoch(9), clean: true, wall: TIME }, &format!("0d 08 09 {TIME_HEX} 01"));
    golden(Record::ClockJumped { wall: TIME, by_ms: 300 }, &format!("0e 08 {TIME_HEX} d8 04"));
    golden(Record::ClockJumped { wall: TIME, by_ms: -1 }, &format!("0e 07 {TIME_HEX} 01"));
    // kind, length, topic, name, first, count, options
    let name = "orders".to_owned();
    let topic = Record::TopicCreated {
        topic: TopicId(1),
        name: name.clone(),
        first: PartitionId(2),
        count: 4,
        options: TopicOptions::LEFT_OUT,
    };
    golden(topic, "0f 0b 01 06 6f 72 64 65 72 73 02 04 00");
    let options = TopicOptions { retention: Retention::Forever, ..TopicOptions::LEFT_OUT };
    let topic = Record::TopicCreated { topic: TopicId(1), name, first: PartitionId(2), count: 4, options };
    golden(topic, "0f 0e 01 06 6f 72 64 65 72 73 02 04 01 01 01 01");
    let when_full = WhenFull::Block(Duration::from_millis(300));
    let blocking = TopicOptions { max_messages: 500, when_full, ..TopicOptions::LEFT_OUT };
    let name = "orders".to_owned();
    let topic = Record::TopicCreated { topic: TopicId(1), name, first: PartitionId(2), count: 4, options: blocking };
    golden(topic, "0f 16 01 06 6f 72 64 65 72 73 02 04 03 07 02 f4 03 08 01 01 09 02 ac 02");
    let retention = Retention::Count(3);
    let when_full = WhenFull::DropOldest;
    let dropping =
        TopicOptions { retention, max_messages: 5, when_full, drops_unsettled: true, ..TopicOptions::LEFT_OUT };
    let topic = Record::TopicCreated {
        topic: TopicId(1),
        name: "o".to_owned(),
        first: PartitionId(2),
        count: 4,
        options: dropping,
    };
    golden(topic, "0f 15 01 01 6f 02 04 05 01 01 03 06 01 03 07 01 05 08 01 02 0a 01 01");
    // kind, length, group, name, topic, options: tag, length and value of each; retry, starts
    golden(group(GroupOptions::LEFT_OUT), "10 0a 03 01 6b 01 00 06 02 00 ac 02");
    let growth = Growth::List([0, 300, 2].into());
    let backoff = BackoffOptions { first_ms: 0, max_ms: 300, jitter: Jitter::None, growth };
    let options = GroupOptions {
        visibility_timeout_ms: 1,
        max_attempts: 7,
        max_nacks: 6,
        max_expiries: 5,
        max_crashes: 4,
        backoff,
        max_outstanding: 9,
        max_closes: 3,
        notices: Some(TopicId(2)),
        ordering: Ordering::Partition,
        max_in_flight_per_key: 4,
        paused: true,
        max_in_flight: 300,
        rate: RateOptions { count: 2, per_ms: 1_000, burst: 3 },
        filter: Filter::parse("a = 'é'").ok().map(Arc::new),
    };
    let all = "14 01 01 01 02 01 07 03 01 00 04 02 ac 02 05 01 00 06 01 09 07 01 03 08 01 03 09 01 02 0a 01 04 \
               0b 01 06 0c 01 05 0d 01 04 0f 04 00 ac 02 02 10 01 01 11 02 ac 02 12 01 02 13 02 e8 07 14 01 03 \
               15 08 61 20 3d 20 27 c3 a9 27";
    golden(group(options), &format!("10 53 03 01 6b 01 {all} 06 02 00 ac 02"));
    let backoff = BackoffOptions { jitter: Jitter::Full, growth: Growth::Linear, ..GroupOptions::LEFT_OUT.backoff };
    golden(
        group(GroupOptions { backoff, ..GroupOptions::LEFT_OUT }),
        "10 10 03 01 6b 01 02 05 01 02 0e 01 01 06 02 00 ac 02",
    );
    let outstanding = GroupOptions { max_outstanding: 9, ..GroupOptions::LEFT_OUT };
    golden(Record::TopicRemoved { topic: TopicId(300) }, "11 02 ac 02");
    golden(Record::GroupRemoved { group: GROUP }, "12 01 03");
    golden(Record::GroupAltered { group: GROUP, options: outstanding.clone() }, "13 05 03 01 06 01 09");
    golden(group(outstanding), "10 0d 03 01 6b 01 01 06 01 09 06 02 00 ac 02");
    // kind, length, group, count, starts, of each how far before it what is kept begins
    let (from, starts) = (vec![Offset(0), Offset(299), Offset(7)], vec![Offset(0), OFFSET, Offset(7)]);
    golden(Record::GroupSought { group: GROUP, from, starts }, "24 09 03 03 00 ac 02 07 00 01 00");
}

fn group(options: GroupOptions) -> Record {
    let (topic, name, retry) = (TopicId(1), "k".to_owned(), PartitionId(6));
    Record::GroupCreated { group: GROUP, topic, name, options, retry, starts: vec![Offset(0), OFFSET] }
}

/// A group or a topic with these options, which begin with their count.
fn with_options(kind: u8, options: &[u8]) -> Result<Vec<Record>, DecodeError> {
    let mut head = vec![kind];
    put_bytes(
        &mut head,
        &if kind == 15 {
            [&[1, 1, b'n', 2, 4], options].concat()
        } else {
            [&[3, 1, b'k', 1], options, &[6, 1, 0]].concat()
        },
    );
    decode(&head).collect()
}

#[test]
fn an_unknown_option_is_a_newer_versions_and_no_damage() {
    let newer = |what, number, known_max| Err(DecodeError::Newer(Newer { what, number, known_max }));
    for value in [&[][..], &[1], &[1, 2, 3]] {
        let field = |tag: u8| [&[tag, value.len() as u8], value].concat();
        assert_eq!(with_options(16, &[&[1], &field(22)[..]].concat()), newer("group option", 22, 21));
        assert_eq!(with_options(16, &[&[2, 1, 1, 9], &field(100)[..]].concat()), newer("group option", 100, 21));
        assert_eq!(with_options(15, &[&[1], &field(11)[..]].concat()), newer("topic option", 11, 10));
    }
}

#[test]
fn a_filter_is_one() {
    let of = |text: &[u8]| with_options(16, &[&[1, 21, text.len() as u8], text].concat());
    assert!(of(b"a exists").is_ok());
    assert_eq!(of(b""), Err(DecodeError::Invalid("a filter that is none")));
    assert_eq!(of(b"a = b"), Err(DecodeError::Invalid("a filter that is none")));
    assert_eq!(of(b"a = '\xff'"), Err(DecodeError::BadNumber));
}

#[test]
fn a_topic_has_one_retention_and_room_for_ids() {
    let of = |options: &[u8]| with_options(15, options);
    assert!(of(&[1, 1, 1, 1]).is_ok());
    assert_eq!(of(&[1, 1, 1, 0]), Err(DecodeError::Invalid("an option that is left out is written")));
    assert_eq!(of(&[1, 1, 1, 2]), Err(DecodeError::BadNumber));
    assert_eq!(of(&[1, 2, 1, 0]), Err(DecodeError::BadNumber), "a window without room");
    assert!(of(&[3, 7, 1, 9, 8, 1, 1, 9, 1, 5]).is_ok() && of(&[2, 7, 1, 9, 8, 1, 2]).is_ok());
    assert!(of(&[3, 1, 1, 3, 6, 1, 9, 10, 1, 1]).is_ok());
    let wrong: [&[u8]; 6] = [
        &[1, 8, 1, 2],           // full, and without a bound
        &[2, 7, 1, 9, 8, 1, 1],  // waits for no time
        &[2, 7, 1, 9, 9, 1, 5],  // does not wait, and for how long
        &[2, 7, 1, 9, 8, 1, 3],  // a full topic does something else
        &[1, 10, 1, 1],          // drops what is kept
        &[2, 1, 1, 1, 10, 1, 1], // the same
    ];
    wrong.iter().for_each(|options| assert_eq!(of(options), Err(DecodeError::BadNumber), "{options:?}"));
    assert_eq!(of(&[1, 1, 2, 1, 0]), Err(DecodeError::Invalid("an option is longer than its value")));
}

#[test]
fn options_have_one_form() {
    assert!(with_options(16, &[1, 1, 1, 9]).is_ok());
    let wrong: [&[u8]; 14] = [
        &[2, 2, 1, 9, 1, 1, 9],                                          // in another order
        &[2, 1, 1, 9, 1, 1, 9],                                          // twice
        &[1, 2, 1, 5],                                                   // what is left out
        &[1, 5, 1, 1],                                                   // what is left out
        &[1, 5, 1, 3],                                                   // no jitter
        &[1, 14, 1, 2],                                                  // no growth
        &[2, 14, 1, 1, 15, 1, 7],                                        // two ways to grow
        &[1, 15, 0],                                                     // a list of none
        &[1, 15, 1, 0x80],                                               // half a delay
        &[1, 15, 17, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], // more delays than fit
        &[1, 0, 1, 1],                                                   // tag 0
        &[1, 1, 2, 9, 9],                                                // longer than its value
        &[1, 1, 0],                                                      // no value
        &[1, 2, 5, 0xff, 0xff, 0xff, 0xff, 16],                          // more attempts than fit
    ];
    for options in wrong {
        let decoded = with_options(16, options);
        assert!(decoded.is_err() && !matches!(decoded, Err(DecodeError::Newer(_))), "{options:?}");
    }
}

#[test]
fn the_hot_records_stay_within_their_bytes() {
    let published =
        Record::Published { partition: PartitionId(127), base: Offset((1 << 14) - 1), count: 1, time: TIME };
    assert!(bytes_of(published).len() <= 11);
    let (group, partition, first) = (GroupId(127), PartitionId(127), Offset((1 << 28) - 1));
    let until = MonoMs((1 << 35) - 1);
    let time = WallMs(0);
    let leased = Record::Leased { group, partition, first, count: 1, attempt: 1, until, time, exclusive: false };
    assert!(bytes_of(leased).len() <= 14);
    assert!(bytes_of(Record::Acked { group, partition, first, count: 1 }).len() <= 8);
}

fn newer(number: u64) -> DecodeError {
    DecodeError::Newer(Newer { what: "record kind", number, known_max: kind::MAX.into() })
}

#[test]
fn an_unknown_kind_is_a_newer_versions_and_no_damage() {
    let mut numbers: Vec<u64> = (u64::from(kind::MAX) + 1..=300).collect();
    numbers.extend((9..64).map(|shift| 1 << shift));
    numbers.extend((1..=kind::MAX).map(|kind| u64::from(kind) + 256));
    for number in numbers {
        for body in [&b""[..], &[0], &[9; 200]] {
            let mut head = Vec::new();
            put_varint(&mut head, number);
            put_bytes(&mut head, body);
            assert_eq!(decode(&head).next(), Some(Err(newer(number))));
            // Where it does not end within the head it is damage, whatever its kind.
            head.pop();
            assert_eq!(decode(&head).next(), Some(Err(DecodeError::Truncated)));
        }
    }
}

#[test]
fn zeros_are_no_record_of_any_version() {
    assert!(matches!(decode(&[0; 8]).next(), Some(Err(DecodeError::Invalid(_)))));
}

#[test]
fn a_body_is_used_up_exactly() {
    for (_, head) in every_kind() {
        let (kind, body) = (head[0], &head[2..]);
        let with = |body: &[u8]| {
            let mut head = vec![kind];
            put_bytes(&mut head, body);
            decode(&head).collect::<Result<Vec<_>, _>>()
        };
        assert_eq!(with(body).unwrap().len(), 1, "{kind}");
        // Without its last byte it is damage, or what stands at the end was left out.
        let ends_in_count =
            [kind::PUBLISHED, kind::LEASED, kind::ACKED, kind::APPENDED, kind::FILTERED, kind::DROPPED].contains(&kind);
        assert!(with(&body[..body.len() - 1]).is_err() || ends_in_count, "{kind}");
        assert!(matches!(with(&[body, &[2; 9]].concat()), Err(DecodeError::Invalid(_))), "{kind}");
    }
}

const HOLD: Hold = Hold { topic: TopicId(1), from: Lsn(300) };

#[test]
fn golden_cursors() {
    let (name, value) = ("c".to_owned(), Box::from(*b"12"));
    // kind, length, name, value, and what it holds
    golden(Record::CursorSet { name: name.clone(), value, hold: None }, "14 05 01 63 02 31 32");
    let value = Box::default();
    golden(Record::CursorSet { name: name.clone(), value, hold: Some(HOLD) }, "14 06 01 63 00 01 ac 02");
    golden(Record::CursorRemoved { name }, "15 02 01 63");
}

#[test]
fn golden_schedules() {
    let (partition, offset, to) = (PARTITION, OFFSET, PartitionId(2));
    // kind, length, topic, partition
    golden(Record::ScheduleCreated { topic: TopicId(1), partition }, "1b 02 01 05");
    // kind, length, partition, offset, to, flags, time
    let scheduled = |due, again| Record::Scheduled { partition, offset, to, due, again };
    golden(scheduled(DueTime::Store(StoreMs(300)), false), "1c 07 05 ac 02 02 00 ac 02");
    golden(scheduled(DueTime::Wall(WallMs(300)), false), "1c 07 05 ac 02 02 01 ac 02");
    golden(scheduled(DueTime::Store(StoreMs(300)), true), "1c 07 05 ac 02 02 02 ac 02");
    // kind, length, partition, offset, and where it went
    golden(Record::ScheduleEnded { partition, offset, copy: None }, "1d 03 05 ac 02");
    let id = MessageId { topic: TopicId(1), partition: 9, offset: Offset(8), epoch: Epoch(2) };
    let origin = Origin { id, time: WallMs(7), redrives: 0 };
    let provenance = Provenance { origin, attempts: 0, history: Vec::new(), earlier: FailureCounts::default() };
    let copy = Some(Box::new(Copied { partition: to, offset: Offset(4), time: WallMs(6), provenance }));
    golden(Record::ScheduleEnded { partition, offset, copy }, "1d 0e 05 ac 02 02 04 06 01 09 08 02 07 00 00 00");
}

const STREAM: StreamId = StreamId { partition: PARTITION, key: u128::MAX };
const NOTE: StreamNote = StreamNote { partition: PARTITION, offset: OFFSET, time: TIME };

#[test]
fn golden_dedup() {
    // kind, length, partition, offset, id, body, time
    let id = 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100;
    let accepted = Record::Accepted {
        partition: PartitionId(2),
        offset: Offset(300),
        id,
        body: 0x1716_1514_1312_1110,
        time: StoreMs(300),
    };
    let hashes = "00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 10 11 12 13 14 15 16 17";
    golden(accepted, &format!("16 1d 02 ac 02 {hashes} ac 02"));
    // kind, length, topic, name, number
    let sequenced = Record::Sequenced { topic: TopicId(1), producer: "p".to_owned(), sequence: 300 };
    golden(sequenced, "17 05 01 01 70 ac 02");
    // kind, length, partition, offset, unique key, key, and the place of the message that was replaced
    let (partition, offset) = (PartitionId(2), Offset(300));
    let taken = |replaced| Record::KeyTaken { partition, offset, key: id, message_key: KeyHash(5), replaced };
    let key = "00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 05 00 00 00 00 00 00 00";
    golden(taken(None), &format!("23 1b 02 ac 02 {key}"));
    golden(taken(Some((PartitionId(1), Offset(301)))), &format!("23 1e 02 ac 02 {key} 01 ad 02"));
    // kind, length, topic, time
    golden(Record::RetentionMarked { topic: TopicId(1), time: StoreMs(300) }, "20 03 01 ac 02");
}

#[test]
fn golden_streams() {
    let stream = StreamId { partition: PartitionId(2), key: 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100 };
    let key = "00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f";
    let (base, time) = (Offset(300), WallMs(5));
    // kind, length, partition, key, base, time, version, first, and a count that is not one
    let appended = |count| Record::Appended { stream, base, count, time, version: 7, first: 1 };
    golden(appended(1), &format!("18 16 02 {key} ac 02 05 07 01"));
    golden(appended(3), &format!("18 17 02 {key} ac 02 05 07 01 03"));
    let note = StreamNote { partition: PartitionId(3), offset: Offset(300), time };
    // kind, length, partition, key, partition and offset of the note, time, first, next
    golden(
        Record::StreamTruncated { stream, note, first: 7, next: 300 },
        &format!("19 18 02 {key} 03 ac 02 05 07 ac 02"),
    );
    // kind, length, partition, key, partition and offset of the note, time, version, first, next
    golden(
        Record::SnapshotSaved { stream, note, version: 200, first: 7, next: 300 },
        &format!("1a 1a 02 {key} 03 ac 02 05 c8 01 07 ac 02"),
    );
}

/// A record of each kind, with nothing that can be left out, and its bytes.
fn every_kind() -> Vec<(Record, Vec<u8>)> {
    let (group, partition, offset, until) = (GROUP, PARTITION, OFFSET, MonoMs(9));
    let failure = AttemptFailure { cause: FailureCause::Nacked, time: TIME, text: "no".into() };
    let id = MessageId { topic: TopicId(1), partition: 0, epoch: Epoch(2), offset };
    let origin = Origin { id, time: TIME, redrives: 0 };
    let (due, delay_ms, name) = (TIME, 1000, "n".to_owned());
    let provenance =
        Provenance { origin, attempts: 1, history: vec![failure.clone()], earlier: FailureCounts::default() };
    let copy = Box::new(Copied { partition, offset, time: TIME, provenance });
    let records = vec![
        Record::Published { partition, base: offset, count: 2, time: TIME },
        Record::Leased { group, partition, first: offset, count: 2, attempt: 2, until, time: TIME, exclusive: true },
        Record::Acked { group, partition, first: offset, count: 2 },
        Record::Nacked { group, partition, offset, due, delay_ms, failure: failure.clone() },
        Record::Extended { group, partition, offset, until },
        Record::Released { group, partition, offset },
        Record::Unreadable { group, partition, offset, due, delay_ms },
        Record::ExclusivePending { group, partition, offset, since: until },
        Record::DeadLettered { group, partition, offset, copy: copy.clone() },
        Record::Postponed { group, partition, offset, due, delay_ms },
        Record::Redriven { group, dead_letter: offset, copy: copy.clone() },
        Record::Discarded { group, dead_letter: offset },
        Record::Opened { epoch: Epoch(9), clean: true, wall: TIME },
        Record::ClockJumped { wall: TIME, by_ms: -300 },
        Record::TopicCreated {
            topic: TopicId(1),
            name: name.clone(),
            first: partition,
            count: 1,
            options: TopicOptions::LEFT_OUT,
        },
        Record::GroupCreated {
            group,
            topic: TopicId(1),
            name: name.clone(),
            options: OPTIONS,
            retry: partition,
            starts: vec![Offset(0)],
        },
        Record::TopicRemoved { topic: TopicId(1) },
        Record::GroupRemoved { group },
        Record::GroupAltered { group, options: OPTIONS },
        Record::CursorSet { name: name.clone(), value: [1, 2].into(), hold: Some(HOLD) },
        Record::CursorRemoved { name: name.clone() },
        Record::Accepted { partition, offset, id: u128::MAX, body: u64::MAX, time: StoreMs(300) },
        Record::Sequenced { topic: TopicId(1), producer: name, sequence: 300 },
        Record::Appended { stream: STREAM, base: offset, count: 2, time: TIME, version: 7, first: 1 },
        Record::StreamTruncated { stream: STREAM, note: NOTE, first: 7, next: 300 },
        Record::SnapshotSaved { stream: STREAM, note: NOTE, version: 200, first: 7, next: 300 },
        Record::ScheduleCreated { topic: TopicId(1), partition },
        Record::Scheduled { partition, offset, to: PartitionId(2), due: DueTime::Wall(TIME), again: true },
        Record::ScheduleEnded { partition, offset, copy: Some(copy) },
        Record::Considered {
            group,
            partition,
            first: offset,
            keys: vec![KeyHash(u64::MAX), KeyHash::NONE],
            counted: vec![0],
        },
        Record::Recalled { group, partition, first: offset, keys: vec![KeyHash(7), KeyHash::LOST] },
        Record::RetentionMarked { topic: TopicId(1), time: StoreMs(300) },
        Record::Filtered { group, partition, first: offset, count: 2 },
        Record::Dropped { group, partition, first: offset, count: 2 },
        Record::KeyTaken {
            partition,
            offset,
            key: u128::MAX,
            message_key: KeyHash(7),
            replaced: Some((partition, offset)),
        },
        Record::GroupSought { group, from: vec![Offset(1), Offset(0)], starts: vec![Offset(3), Offset(0)] },
    ];
    let all: Vec<_> = records.into_iter().map(|record| (record.clone(), bytes_of(record))).collect();
    assert!(all.iter().map(|(_, head)| head[0]).eq(1..=kind::MAX), "one of each kind, in order");
    all
}

#[test]
fn a_long_body_has_a_long_length() {
    for len in [110, 120, 128, 200, 255] {
        let record = Record::TopicCreated {
            topic: TopicId(1),
            name: "n".repeat(len),
            first: PartitionId(2),
            count: 4,
            options: TopicOptions::LEFT_OUT,
        };
        let head = bytes_of(record.clone());
        let mut reader = ByteReader::new(&head);
        assert_eq!(
            (reader.varint(), reader.bytes().map(<[u8]>::len)),
            (Ok(15), Ok(len + 4 + usize::from(len > 127) + 1))
        );
        assert!(reader.is_empty());
        let both = [head.clone(), head].concat();
        assert_eq!(decode(&both).collect::<Vec<_>>(), [Ok(record.clone()), Ok(record)]);
    }
}

#[test]
fn an_unknown_flag_of_a_lease_is_refused() {
    for flags in (8..=255u8).chain([0]) {
        let head = [2, 13, 3, 5, 9, 9, flags, 2, 2, 2, 2, 2, 2, 2, 2];
        assert!(matches!(decode(&head).next(), Some(Err(DecodeError::Invalid(_)))), "{flags:02x}");
    }
}

#[test]
fn an_error_never_gives_way_to_the_end() {
    let mut decoder = decode(&[0x0c, 0x02, 0x03, 0x7f, kind::MAX + 1, 0x00, 0x0c, 0x02, 0x03, 0x7f]);
    assert!(matches!(decoder.next(), Some(Ok(Record::Discarded { .. }))));
    for _ in 0..3 {
        assert_eq!(decoder.next(), Some(Err(newer(u64::from(kind::MAX) + 1))));
    }
}

#[test]
fn what_may_be_left_out_is_never_written() {
    let invalid = |head: &[u8]| matches!(decode(head).next(), Some(Err(DecodeError::Invalid(_))));
    assert!(invalid(&[3, 4, 3, 5, 9, 1]), "a count of one");
    assert!(invalid(&[33, 4, 3, 5, 9, 1]), "a count of one");
    assert!(invalid(&[1, 4, 5, 9, 9, 1]), "a count of one");
    assert!(invalid(&[2, 6, 3, 5, 9, 9, 1, 1]), "a count of one");
    assert!(invalid(&[2, 7, 3, 5, 9, 9, 2, 1, 0]), "attempt one");
    assert!(invalid(&[2, 5, 3, 5, 9, 9, 0]), "no flags");
}

#[test]
fn a_huge_count_makes_nothing() {
    // A group with 2^63 starts, and nothing behind.
    let mut head = bytes_of(Record::GroupCreated {
        group: GROUP,
        topic: TopicId(1),
        name: "k".to_owned(),
        options: OPTIONS,
        retry: PartitionId(6),
        starts: vec![],
    });
    head.pop();
    head.extend([0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01]);
    head[1] = head.len() as u8 - 2;
    assert_eq!(decode(&head).next(), Some(Err(DecodeError::Truncated)));
}

#[test]
fn what_a_group_keeps_is_never_before_the_first_message() {
    let of = |body: &[u8]| decode(&[&[36, body.len() as u8], body].concat()).next().unwrap();
    assert!(of(&[3, 1, 5, 5]).is_ok());
    assert_eq!(of(&[3, 1, 5, 6]), Err(DecodeError::BadNumber));
    assert_eq!(of(&[3, 2, 5, 6, 0]), Err(DecodeError::Truncated));
}

const OPTIONS: GroupOptions = GroupOptions {
    visibility_timeout_ms: 1,
    max_attempts: 1,
    max_nacks: 0,
    max_expiries: 0,
    max_crashes: 0,
    backoff: BackoffOptions { first_ms: 0, max_ms: 0, jitter: Jitter::None, growth: Growth::Exponential },
    max_outstanding: 1,
    max_closes: 1,
    notices: None,
    ordering: Ordering::Key,
    max_in_flight_per_key: 2,
    paused: false,
    max_in_flight: 0,
    rate: RateOptions { count: 0, per_ms: 0, burst: 0 },
    filter: None,
};

prop_compose! {
    /// Any number of bits, so that every length of varint comes up.
    fn number()(value: u64, shift in 0u32..64) -> u64 { value >> shift }
}
prop_compose! {
    fn small()(value: u32, shift in 0u32..32) -> u32 { value >> shift }
}
prop_compose! {
    fn stream()(partition in number(), key in any::<u128>()) -> StreamId {
        StreamId { partition: PartitionId(partition), key }
    }
}
prop_compose! {
    fn note()((_, partition, offset) in target(), time in number()) -> StreamNote {
        StreamNote { partition, offset, time: WallMs(time) }
    }
}
prop_compose! {
    fn target()(group in number(), partition in number(), offset in number()) -> (GroupId, PartitionId, Offset) {
        (GroupId(group), PartitionId(partition), Offset(offset))
    }
}
prop_compose! {
    fn failure()(cause in 0usize..5, time in number(), text in "\\PC{0,30}") -> AttemptFailure {
        let causes = [FailureCause::Nacked, FailureCause::Expired, FailureCause::Crashed, FailureCause::Closed, FailureCause::Rejected];
        AttemptFailure { cause: causes[cause], time: WallMs(time), text: text.into() }
    }
}
prop_compose! {
    fn copy()(
        (_, partition, offset) in target(), epoch in number(), time in number(), attempts in small(),
        history in vec(failure(), 0..=8), at in number(),
    ) -> Box<Copied> {
        let id = MessageId { topic: TopicId(time), partition: at, epoch: Epoch(epoch), offset };
        let origin = Origin { id, time: WallMs(time), redrives: attempts % 17 };
        let count = if history.len() == 8 { attempts } else { 0 };
        let earlier = FailureCounts { nacks: count, expiries: count / 2, crashes: count / 3 };
        let provenance = Provenance { origin, attempts, history, earlier };
        Box::new(Copied { partition, offset, time: WallMs(at), provenance })
    }
}
prop_compose! {
    fn options()(
        visibility_timeout_ms in number(), max_attempts in small(), first_ms in number(), max_ms in number(),
        jitter in 0usize..3, max_outstanding in small(), max_closes in small(), notices: Option<u32>,
        ordering in 0usize..3, max_in_flight_per_key in small(),
        (linear, list) in (any::<bool>(), vec(number(), 0..=16)), limits in [small(), small(), small()],
    ) -> GroupOptions {
        let jitter = [Jitter::None, Jitter::UpperHalf, Jitter::Full][jitter];
        let list = if list.is_empty() { Growth::Exponential } else { Growth::List(list.into()) };
        let growth = if linear { Growth::Linear } else { list };
        let backoff = BackoffOptions { first_ms, max_ms, jitter, growth };
        let [max_nacks, max_expiries, max_crashes] = limits;
        let notices = notices.map(|topic| TopicId(topic.into()));
        let ordering = [Ordering::None, Ordering::Key, Ordering::Partition][ordering];
        let max_in_flight_per_key = max_in_flight_per_key.max(1);
        GroupOptions {
            visibility_timeout_ms,
            max_attempts,
            max_nacks,
            max_expiries,
            max_crashes,
            backoff,
            max_outstanding,
            max_closes,
            notices,
            ordering,
            max_in_flight_per_key,
            paused: linear,
            max_in_flight: max_crashes,
            rate: RateOptions { count: max_nacks, per_ms: first_ms, burst: max_expiries },
            filter: Filter::parse(&format!("a < {max_nacks}")).ok().filter(|_| linear).map(Arc::new),
        }
    }
}

fn name() -> impl Strategy<Value = String> {
    "\\PC{1,60}"
}

fn topic_options() -> impl Strategy<Value = TopicOptions> {
    let numbers = (small(), number(), small(), number(), 0..=BLOCK_MS_MAX);
    (any::<(bool, bool, bool)>(), numbers).prop_map(
        |((is_kept, streams, drops), (ids, dedup_window_ms, kept, max_messages, ms))| {
            let retention = match (is_kept, drops) {
                (true, true) => Retention::Count(dedup_window_ms.max(1)),
                (true, false) => Retention::Forever,
                (false, _) => Retention::UntilSettled,
            };
            let drops_unsettled = is_kept && drops;
            let blocks = max_messages > 0 && ms > 0;
            let when_full = match (blocks, drops) {
                (true, _) => WhenFull::Block(Duration::from_millis(ms)),
                (false, true) if max_messages > 0 => WhenFull::DropOldest,
                (false, _) => WhenFull::Reject,
            };
            let (dedup_ids, snapshots_kept) = (ids.max(1), kept.max(1));
            TopicOptions {
                retention,
                dedup_ids,
                dedup_window_ms,
                streams,
                snapshots_kept,
                max_messages,
                when_full,
                drops_unsettled,
            }
        },
    )
}

fn record() -> impl Strategy<Value = Record> {
    let common = prop_oneof![
        (target(), small(), number()).prop_map(|((_, partition, base), count, time)| Record::Published {
            partition,
            base,
            count,
            time: WallMs(time)
        }),
        (target(), small(), small(), number(), number(), any::<bool>()).prop_map(
            |((group, partition, first), count, attempt, until, time, exclusive)| Record::Leased {
                group,
                partition,
                first,
                count,
                attempt,
                until: MonoMs(until),
                time: WallMs(if attempt == 1 { 0 } else { time }),
                exclusive,
            }
        ),
        (target(), vec((number(), any::<bool>()), 1..5)).prop_map(|((group, partition, first), keys)| {
            let counted = (0..).zip(&keys).filter(|(_, (_, counted))| *counted).map(|(number, _)| number).collect();
            let keys = keys.into_iter().map(|(key, _)| KeyHash(key)).collect();
            Record::Considered { group, partition, first, keys, counted }
        }),
        (target(), vec(number(), 1..5)).prop_map(|((group, partition, first), keys)| {
            let keys = keys.into_iter().map(KeyHash).collect();
            Record::Recalled { group, partition, first, keys }
        }),
        (target(), small()).prop_map(|((group, partition, first), count)| Record::Filtered {
            group,
            partition,
            first,
            count
        }),
        (target(), small()).prop_map(|((group, partition, first), count)| Record::Acked {
            group,
            partition,
            first,
            count
        }),
        (target(), number(), number(), failure()).prop_map(|((group, partition, offset), due, delay_ms, failure)| {
            Record::Nacked { group, partition, offset, due: WallMs(due), delay_ms, failure }
        }),
        (target(), number()).prop_map(|((group, partition, offset), until)| Record::Extended {
            group,
            partition,
            offset,
            until: MonoMs(until)
        }),
        target().prop_map(|(group, partition, offset)| Record::Released { group, partition, offset }),
        (target(), number(), number()).prop_map(|((group, partition, offset), due, delay_ms)| Record::Unreadable {
            group,
            partition,
            offset,
            due: WallMs(due),
            delay_ms
        }),
        (target(), number()).prop_map(|((group, partition, offset), since)| Record::ExclusivePending {
            group,
            partition,
            offset,
            since: MonoMs(since)
        }),
    ];
    let rare = prop_oneof![
        (target(), copy()).prop_map(|((group, partition, offset), copy)| Record::DeadLettered {
            group,
            partition,
            offset,
            copy
        }),
        (target(), number(), number()).prop_map(|((group, partition, offset), due, delay_ms)| Record::Postponed {
            group,
            partition,
            offset,
            due: WallMs(due),
            delay_ms
        }),
        (target(), copy()).prop_map(|((group, _, dead_letter), copy)| Record::Redriven { group, dead_letter, copy }),
        number().prop_map(|topic| Record::TopicRemoved { topic: TopicId(topic) }),
        number().prop_map(|group| Record::GroupRemoved { group: GroupId(group) }),
        (number(), options()).prop_map(|(group, options)| Record::GroupAltered { group: GroupId(group), options }),
        target().prop_map(|(group, _, dead_letter)| Record::Discarded { group, dead_letter }),
        (number(), any::<bool>(), number()).prop_map(|(epoch, clean, wall)| Record::Opened {
            epoch: Epoch(epoch),
            clean,
            wall: WallMs(wall)
        }),
        (number(), any::<i64>()).prop_map(|(wall, by_ms)| Record::ClockJumped { wall: WallMs(wall), by_ms }),
        (number(), name(), number(), small(), topic_options()).prop_map(|(topic, name, first, count, options)| {
            let (topic, first) = (TopicId(topic), PartitionId(first));
            Record::TopicCreated { topic, name, first, count, options }
        }),
        (name(), vec(any::<u8>(), 0..20), option::of((number(), number()))).prop_map(|(name, value, hold)| {
            let hold = hold.map(|(topic, from)| Hold { topic: TopicId(topic), from: Lsn(from) });
            Record::CursorSet { name, value: value.into(), hold }
        }),
        name().prop_map(|name| Record::CursorRemoved { name }),
        (target(), any::<(u128, u64)>(), number()).prop_map(|((_, partition, offset), (id, body), time)| {
            Record::Accepted { partition, offset, id, body, time: StoreMs(time) }
        }),
        (target(), any::<(u128, u64)>(), option::of((number(), number()))).prop_map(
            |((_, partition, offset), (key, message_key), replaced)| {
                let replaced = replaced.map(|(partition, offset)| (PartitionId(partition), Offset(offset)));
                Record::KeyTaken { partition, offset, key, message_key: KeyHash(message_key), replaced }
            }
        ),
        (number(), any::<u128>(), number(), small().prop_map(|count| count.max(1)), [number(), number(), number()])
            .prop_map(|(partition, key, base, count, [time, version, first])| {
                let stream = StreamId { partition: PartitionId(partition), key };
                Record::Appended { stream, base: Offset(base), count, time: WallMs(time), version, first }
            }),
        (stream(), note(), number(), number()).prop_map(|(stream, note, first, next)| Record::StreamTruncated {
            stream,
            note,
            first,
            next
        }),
        (stream(), note(), [number(), number(), number()]).prop_map(|(stream, note, [version, first, next])| {
            Record::SnapshotSaved { stream, note, version, first, next }
        }),
        (number(), name(), number()).prop_map(|(topic, producer, sequence)| Record::Sequenced {
            topic: TopicId(topic),
            producer,
            sequence
        }),
        (number(), vec((number(), number()), 0..9)).prop_map(|(group, places)| {
            let starts = places.iter().map(|(_, start)| Offset(*start)).collect();
            let from = places.iter().map(|(from, start)| Offset(*from.min(start))).collect();
            Record::GroupSought { group: GroupId(group), from, starts }
        }),
        (target(), number(), name(), options(), vec(number(), 0..9)).prop_map(
            |((group, retry, _), topic, name, options, starts)| Record::GroupCreated {
                group,
                topic: TopicId(topic),
                name,
                options,
                retry,
                starts: starts.into_iter().map(Offset).collect(),
            }
        ),
    ];
    prop_oneof![common, rare]
}

properties! {
    #[test]
    fn records_come_back(records in vec(record(), 0..12)) {
        let mut head = Vec::new();
        encode(&records, &mut head);
        prop_assert_eq!(decode(&head).collect::<Result<Vec<_>, _>>(), Ok(records));
    }

    #[test]
    fn a_truncated_head_is_an_error_or_a_strict_prefix(records in vec(record(), 1..5)) {
        let mut head = Vec::new();
        encode(&records, &mut head);
        for len in 0..head.len() {
            if let Ok(read) = decode(&head[..len]).collect::<Result<Vec<_>, _>>() {
                prop_assert!(read.len() < records.len() && read[..] == records[..read.len()]);
            }
        }
    }

    #[test]
    fn any_bytes_give_an_error_or_the_records_that_have_these_bytes(
        bodies in vec((1u8..=kind::MAX, vec(0u8..9, 0..24), any::<u8>()), 1..20),
    ) {
        let mut head = Vec::new();
        for (kind, body, byte) in bodies {
            head.push(kind);
            put_bytes(&mut head, &[&body[..], &[byte >> 1]].concat());
        }
        if let Ok(records) = decode(&head).collect::<Result<Vec<_>, _>>() {
            let mut again = Vec::new();
            encode(&records, &mut again);
            prop_assert_eq!(again, head);
        }
    }

    #[test]
    fn a_changed_byte_of_a_real_head_never_panics(
        records in vec(record(), 1..5), at: prop::sample::Index, byte: u8,
    ) {
        let mut head = Vec::new();
        encode(&records, &mut head);
        *at.get_mut(&mut head) = byte;
        let read = decode(&head).collect::<Result<Vec<_>, _>>();
        if let Ok(read) = read {
            let mut again = Vec::new();
            encode(&read, &mut again);
            prop_assert_eq!(again, head);
        }
    }
}
