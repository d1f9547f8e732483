//! States: those that a checkpoint holds, and those that any records lead to. Refused, or sound whatever is done next.

use super::records::any_record;
use crate::ids::{Epoch, GroupId, Lsn, MessageId, MonoMs, Offset, PartitionId, TopicId, WallMs};
use crate::log::fuzzing::seeds::{Seeds, checkpoint_file};
use crate::log::fuzzing::{Take, UNSEALED, checkpoint_state, seal};
use crate::record::codec;
use crate::record::{
    AttemptFailure, BackoffOptions, Copied, FailureCause, FailureCounts, Filter, GroupOptions, Growth, Hold, Jitter,
    KeyHash, Ordering, Origin, Provenance, RateOptions, Record, Retention, TopicOptions, WhenFull,
};
use crate::state::{
    Command, DedupId, Delay, FilterVerdict, HoldUp, Inputs, KeyRun, KnownVerdicts, Later, ParkedMax, Publication,
    Sequence, State, StreamTails, UniqueKey, Visible, WhilePending,
};
use std::sync::{Arc, LazyLock};

/// A checkpoint's file. The first byte says whether its checksums are made to agree, and whether it is the state alone.
pub fn checkpoint(data: &[u8]) -> bool {
    let Some((flags, bytes)) = data.split_first() else { return false };
    let state = if flags & 2 == 0 {
        let mut bytes = bytes.to_vec();
        if flags & UNSEALED == 0 {
            seal::checkpoint(&mut bytes, &seal::UUID);
        }
        checkpoint_state(&bytes)
    } else {
        Some(bytes.to_vec())
    };
    let Some(bytes) = state else { return false };
    let Ok(mut state) = State::decode(&bytes) else { return false };
    let mut again = Vec::new();
    state.snapshot().encode(&mut again);
    assert_eq!(again, bytes, "two forms of one state");
    sound(&state);
    // A copy without its move, which no checkpoint holds: the state takes no other record.
    if state.apply(&Record::ClockJumped { wall: WallMs(0), by_ms: 0 }, Lsn(0)).is_ok() {
        go_on(&mut state);
    }
    true
}

fn sound(state: &State) {
    let violations = state.check();
    assert!(violations.is_empty(), "{violations:?}");
}

/// Nothing is known of streams: each is taken to be new.
static NO_STREAMS: LazyLock<StreamTails> = LazyLock::new(StreamTails::default);

static NO_VERDICTS: LazyLock<KnownVerdicts> = LazyLock::new(KnownVerdicts::default);

fn inputs() -> Inputs<'static> {
    Inputs {
        mono: MonoMs(1_000),
        wall: WallMs(1_800_000_000_000),
        steady: WallMs(1_800_000_000_000),
        slack_ms: 0,
        hold_up: HoldUp(5_000),
        visible: Visible::All,
        streams: &NO_STREAMS,
        verdicts: &NO_VERDICTS,
    }
}

/// A process opens the store and takes what there is.
fn go_on(state: &mut State) {
    let mut inputs = inputs();
    let epoch = Epoch(state.epoch().0.saturating_add(1));
    let mut lsn = Lsn(1 << 40);
    let mut carry_out = |state: &mut State, command: &Command<'_>, inputs: &Inputs<'_>| {
        let mut records = Vec::new();
        if state.decide(command, inputs, &mut records).is_ok() {
            for record in &records {
                state.apply(record, lsn).unwrap_or_else(|what| panic!("it contradicts its decision: {what}"));
            }
            lsn = lsn.saturating_add(64);
        }
        sound(state);
    };
    carry_out(state, &Command::Open { epoch, clean: false }, &inputs);
    let groups: Vec<GroupId> = state.groups().map(|(id, _)| id).take(4).collect();
    for round in 0..3 {
        for group in &groups {
            carry_out(
                state,
                &Command::Lease {
                    group: *group,
                    max: 1 + 3 * round,
                    pass_exhausted: false,
                    new_last: None,
                    keys: None,
                    looked_at: 0,
                },
                &inputs,
            );
        }
        inputs.mono = inputs.mono.saturating_add(40_000);
        inputs.wall = inputs.wall.saturating_add(3_600_000);
    }
    carry_out(state, &Command::NoteClockJump, &inputs);
    let published = Publication::Here { epoch, time: inputs.wall };
    for (partition, offset) in state.due(state.store_time(inputs.steady), inputs.wall, 8) {
        carry_out(state, &Command::MoveDue { at: (partition, offset), published }, &inputs);
    }
}

/// Records one after another, each in a frame of its own or not, as heads or as fields: each is refused or leaves a sound
/// state, and that state's bytes are those of an equal one.
pub fn fold(data: &[u8]) -> bool {
    let mut take = Take::new(data);
    let mut state = State::new();
    let mut lsn = Lsn(0);
    let mut applied = 0;
    if take.byte() & 1 == 0 {
        opening().iter().for_each(|record| state.apply(record, lsn).unwrap());
    }
    for _ in 0..256 {
        if take.is_empty() {
            break;
        }
        let record = match take.byte() % 4 {
            0 => {
                let len = usize::from(take.byte());
                match codec::decode(take.bytes(len)).next() {
                    Some(Ok(record)) => record,
                    _ => continue,
                }
            }
            _ => any_record(&mut take),
        };
        // What costs as much memory as it says is right to do so; a fuzzer need not.
        if matches!(record, Record::TopicCreated { count: 4096.., .. }) {
            continue;
        }
        lsn = lsn.saturating_add(8);
        if state.apply(&record, lsn).is_ok() {
            applied += 1;
        }
    }
    sound(&state);
    let mut bytes = Vec::new();
    state.snapshot().encode(&mut bytes);
    match State::decode(&bytes) {
        Ok(again) => {
            let mut other = Vec::new();
            again.snapshot().encode(&mut other);
            assert_eq!(other, bytes);
        }
        Err(error) => panic!("a state's bytes are refused: {error}"),
    }
    go_on(&mut state);
    applied > 0
}

const OPTIONS: GroupOptions = GroupOptions {
    visibility_timeout_ms: 30_000,
    max_attempts: 2,
    max_nacks: 0,
    max_expiries: 0,
    max_crashes: 0,
    backoff: BackoffOptions { first_ms: 100, max_ms: 1_000, jitter: Jitter::None, growth: Growth::Exponential },
    max_outstanding: 100,
    max_closes: 2,
    notices: Some(TopicId(0)),
    ordering: Ordering::None,
    max_in_flight_per_key: 1,
    paused: false,
    max_in_flight: 0,
    rate: RateOptions { count: 0, per_ms: 0, burst: 0 },
    filter: None,
};

/// Two keys by turns, and messages without one.
const KEYS: [KeyHash; 6] = [KeyHash(1), KeyHash(2), KeyHash(1), KeyHash(2), KeyHash::NONE, KeyHash(1)];

/// So few that some are only counted.
const PARKED_MAX: ParkedMax = ParkedMax { of_group: 9, of_key: 1 };

const ORDERED: GroupOptions = GroupOptions { ordering: Ordering::Key, ..OPTIONS };

/// Asks for messages of the group in order: the first ask makes it look at some.
const fn ledger(max: u32) -> Command<'static> {
    let keys = Some(KeyRun { partition: PartitionId(0), first: Offset(0), keys: &KEYS, parked_max: PARKED_MAX });
    Command::Lease { group: GroupId(1), max, pass_exhausted: false, new_last: None, keys, looked_at: 0 }
}

/// Of the next messages of the group with a filter some pass.
const VERDICTS: [FilterVerdict; 4] = [
    FilterVerdict::Filtered(1),
    FilterVerdict::Passes(KeyHash::NONE),
    FilterVerdict::Filtered(2),
    FilterVerdict::Passes(KeyHash::NONE),
];

/// Asks for messages of that group.
const fn few(max: u32) -> Command<'static> {
    let (group, pass_exhausted, new_last, keys, looked_at) = (GroupId(2), false, None, None, u32::MAX);
    Command::Lease { group, max, pass_exhausted, new_last, keys, looked_at }
}

const TOPIC: TopicOptions = TopicOptions {
    retention: Retention::Forever,
    dedup_ids: 3,
    dedup_window_ms: 1_000,
    streams: true,
    snapshots_kept: 1,
    max_messages: 1_000,
    when_full: WhenFull::DropOldest,
    drops_unsettled: false,
};
const HOLD: Option<Hold> = Some(Hold { topic: TopicId(0), from: Lsn(8) });

/// A store with a topic, a group, some messages, ids, a producer and cursors.
fn opening() -> Vec<Record> {
    let mut state = State::new();
    let inputs = inputs();
    let filter = Filter::parse("type exists").ok().map(Arc::new);
    let filtered = GroupOptions { filter: filter.clone(), ..OPTIONS };
    let mut all = Vec::new();
    let commands = [
        Command::Open { epoch: Epoch(1), clean: true },
        Command::CreateTopic { name: "orders", partitions: 2, options: TOPIC },
        Command::CreateGroup { topic: TopicId(0), name: "kitchen", options: &OPTIONS, starts: &[Offset(0); 2] },
        Command::CreateGroup { topic: TopicId(0), name: "ledger", options: &ORDERED, starts: &[Offset(0); 2] },
        Command::CreateGroup { topic: TopicId(0), name: "few", options: &filtered, starts: &[Offset(0); 2] },
        Command::Publish {
            runs: &[(PartitionId(0), 9), (PartitionId(1), 3)],
            ids: &[DedupId { part: 2, id: 7, body: 1 }, DedupId { part: 11, id: 8, body: 2 }],
            delays: &[],
            uniques: &[UniqueKey { part: 0, key: 5, message_key: KeyHash(4), while_pending: WhilePending::Reject }],
            sequence: Some(Sequence { topic: TopicId(0), producer: "importer", number: 0 }),
        },
        Command::CreateSchedule { topic: TopicId(0) },
        Command::Publish {
            runs: &[(PartitionId(9), 3)],
            ids: &[],
            delays: &[
                Delay { part: 0, to: PartitionId(1), later: Later::In(500) },
                Delay { part: 1, to: PartitionId(0), later: Later::At(inputs.wall) },
                Delay { part: 2, to: PartitionId(0), later: Later::In(0) },
            ],
            uniques: &[UniqueKey { part: 2, key: 3, message_key: KeyHash::NONE, while_pending: WhilePending::Reject }],
            sequence: None,
        },
        Command::Reschedule { at: (PartitionId(9), Offset(0)), epoch: None, later: Some(Later::At(inputs.wall)) },
        Command::Reschedule { at: (PartitionId(9), Offset(1)), epoch: None, later: None },
        Command::SetCursor { name: "mails", expected: None, value: b"12", hold: None },
        Command::SetCursor { name: "rows", expected: None, value: b"", hold: HOLD },
        Command::Lease { group: GroupId(0), max: 4, pass_exhausted: false, new_last: None, keys: None, looked_at: 0 },
        ledger(4),
        ledger(2),
        few(1),
        Command::SettleFiltered { group: GroupId(2), ahead: Some(PartitionId(0)), parked_max: PARKED_MAX },
        Command::Seek { group: GroupId(2), from: &[Offset(0); 2], starts: &[Offset(4), Offset(0)] },
        Command::Open { epoch: Epoch(2), clean: false },
    ];
    for command in commands {
        let mut records = Vec::new();
        let mut verdicts = KnownVerdicts::default();
        if let (Some(group), Some(filter)) = (state.group(GroupId(2)), &filter) {
            let next = state.next_of(GroupId(2), PartitionId(0)).unwrap_or_default();
            verdicts.add((GroupId(2), group, PartitionId(0)), (filter, next), VERDICTS);
        }
        let inputs = Inputs { verdicts: &verdicts, ..inputs };
        state.decide(&command, &inputs, &mut records).unwrap();
        records.iter().for_each(|record| state.apply(record, Lsn(8)).unwrap());
        all.extend(records);
    }
    all
}

pub(super) fn seeds() -> Seeds {
    let mut seeds: Seeds = Vec::new();
    let mut state = State::new();
    let mut whole = vec![1];
    for (index, record) in opening().iter().enumerate() {
        state.apply(record, Lsn(8 * index as u64)).unwrap();
        let (mut bytes, mut head) = (Vec::new(), Vec::new());
        state.snapshot().encode(&mut bytes);
        seeds.push(("checkpoint", format!("state-{index}"), [vec![2], bytes.clone()].concat()));
        seeds.push(("checkpoint", format!("file-{index}"), [vec![0], checkpoint_file(&bytes)].concat()));
        codec::encode(std::slice::from_ref(record), &mut head);
        whole.extend([0, head.len() as u8]);
        whole.extend(&head);
    }
    seeds.push(("fold", "heads".to_owned(), whole));
    // On the state of `opening`, in which the messages from 4 on were never leased.
    let (group, partition, offset) = (GroupId(0), PartitionId(0), Offset(4));
    let failure = AttemptFailure { cause: FailureCause::Nacked, time: inputs().wall, text: "late".into() };
    let due = inputs().wall.saturating_add(50);
    let rejected = AttemptFailure { cause: FailureCause::Rejected, ..failure.clone() };
    let id = MessageId { topic: TopicId(0), partition: 0, epoch: Epoch(1), offset };
    let origin = Origin { id, time: inputs().wall, redrives: 0 };
    let provenance = Provenance { origin, attempts: 1, history: vec![rejected], earlier: FailureCounts::default() };
    let dead = PartitionId(3);
    let copy = Box::new(Copied { partition: dead, offset: Offset(0), time: inputs().wall, provenance });
    let settled: [(&str, Vec<Record>); 7] = [
        ("ack", vec![Record::Acked { group, partition, first: offset, count: 2 }]),
        ("extend", vec![Record::Extended { group, partition, offset, until: MonoMs(90_000) }]),
        ("nack", vec![Record::Nacked { group, partition, offset, due, delay_ms: 50, failure }]),
        ("release", vec![Record::Released { group, partition, offset }]),
        ("unreadable", vec![Record::Unreadable { group, partition, offset, due, delay_ms: 50 }]),
        (
            "letter",
            vec![
                Record::DeadLettered { group, partition, offset, copy },
                Record::Discarded { group, dead_letter: Offset(0) },
            ],
        ),
        ("publish", vec![Record::Published { partition, base: Offset(9), count: 2, time: due }]),
    ];
    for (name, records) in settled {
        let until = MonoMs(31_000);
        let time = WallMs(0);
        let lease =
            Record::Leased { group, partition, first: offset, count: 2, attempt: 1, until, time, exclusive: false };
        let mut bytes = vec![0];
        for record in std::iter::once(&lease).chain(&records) {
            let mut head = Vec::new();
            codec::encode(std::slice::from_ref(record), &mut head);
            bytes.extend([0, head.len() as u8]);
            bytes.extend(head);
        }
        seeds.push(("fold", name.to_owned(), bytes));
    }
    // Kind, group, partition, offset, and what a kind has.
    let fields = [1, 1, 0, 0, 4, 2, 1, 200, 0, 1, 2, 0, 0, 4, 2, 1, 0, 0, 0, 9, 1, 100, 1, 14, 0, 0, 77];
    seeds.push(("fold", "fields".to_owned(), [&[0], &fields[..]].concat()));
    seeds
}
