//! Random commands against a model that only knows what was promised.

use super::*;
use crate::ids::Expected;
use crate::record::{Hold, StreamId, WhenFull};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What somebody does; whatever it needs is picked from what there is.
#[derive(Clone, Debug)]
enum Step {
    Publish {
        partition: u64,
        count: u32,
    },
    Sync,
    Lease {
        group: u64,
        max: u32,
    },
    Ack {
        group: u64,
        picks: Vec<Index>,
    },
    Nack {
        group: u64,
        pick: Index,
        delay_ms: Option<u64>,
    },
    Reject {
        group: u64,
        pick: Index,
    },
    Extend {
        group: u64,
        pick: Index,
        for_ms: u64,
    },
    Release {
        group: u64,
        pick: Index,
    },
    Unreadable {
        group: u64,
        pick: Index,
    },
    Redrive {
        group: u64,
        pick: Index,
        to: Option<u64>,
    },
    Discard {
        group: u64,
        pick: Index,
    },
    Advance {
        ms: u64,
    },
    Jump {
        back: bool,
        ms: u64,
        noted: bool,
    },
    Open {
        clean: bool,
    },
    SettleFiltered {
        group: u64,
        ahead: Option<u64>,
    },
    Seek {
        group: u64,
        picks: [Index; 6],
    },
    /// Topics and groups that come and go, beside those that the model knows.
    Others {
        what: u8,
        pick: Index,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let group = 0u64..GROUPS;
    let pick = any::<Index>;
    prop_oneof![
        4 => (0u64..3, 1u32..5).prop_map(|(partition, count)| Step::Publish { partition, count }),
        2 => Just(Step::Sync),
        8 => (group.clone(), 1u32..6).prop_map(|(group, max)| Step::Lease { group, max }),
        5 => (group.clone(), proptest::collection::vec(pick(), 1..5)).prop_map(|(group, picks)| Step::Ack { group, picks }),
        3 => (group.clone(), pick(), proptest::option::of(0u64..400))
            .prop_map(|(group, pick, delay_ms)| Step::Nack { group, pick, delay_ms }),
        1 => (group.clone(), pick()).prop_map(|(group, pick)| Step::Reject { group, pick }),
        2 => (group.clone(), pick(), 0u64..2_500).prop_map(|(group, pick, for_ms)| Step::Extend { group, pick, for_ms }),
        1 => (group.clone(), pick()).prop_map(|(group, pick)| Step::Release { group, pick }),
        1 => (group.clone(), pick()).prop_map(|(group, pick)| Step::Unreadable { group, pick }),
        1 => (group.clone(), pick(), proptest::option::of(0u64..3))
            .prop_map(|(group, pick, to)| Step::Redrive { group, pick, to }),
        1 => (group, pick()).prop_map(|(group, pick)| Step::Discard { group, pick }),
        4 => (0u64..1_500).prop_map(|ms| Step::Advance { ms }),
        1 => (any::<bool>(), 0u64..50_000, any::<bool>()).prop_map(|(back, ms, noted)| Step::Jump { back, ms, noted }),
        2 => any::<bool>().prop_map(|clean| Step::Open { clean }),
        3 => (FILTERED - 1..GROUPS, proptest::option::of(0..PARTITIONS))
            .prop_map(|(group, ahead)| Step::SettleFiltered { group, ahead }),
        1 => (0..GROUPS, any::<[Index; 6]>()).prop_map(|(group, picks)| Step::Seek { group, picks }),
        7 => (0u8..27, pick()).prop_map(|(what, pick)| Step::Others { what, pick }),
    ]
}

type Target = (u64, u64, u64);

/// How the last attempt of a message ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum End {
    #[default]
    Other,
    SharedCrash,
    ExclusiveCrash,
}

/// A message of a group that was delivered and is not settled.
#[derive(Clone, Copy, Debug, Default)]
struct Open {
    attempts: u32,
    holder: Option<(Token, u64)>,
    exclusive: bool,
    /// In a row.
    crashes: u32,
    closes: u32,
    last: End,
    counts: FailureCounts,
}

impl Open {
    /// An attempt ended by something else than a crash or a close that is not counted.
    fn failed(&mut self, cause: FailureCause) {
        self.counts.add(cause);
        (self.holder, self.last, self.crashes, self.closes) = (None, End::Other, 0, 0);
    }
}

/// What was promised, group by group.
#[derive(Default)]
struct Model {
    open: BTreeMap<Target, Open>,
    /// Everything that was ever delivered, and whether it is settled.
    settled: BTreeSet<Target>,
    next: BTreeMap<(u64, u64), u64>,
    /// Every lease that was granted, ended or not.
    holders: Vec<(u64, Held)>,
    dead_letters: BTreeMap<u64, BTreeSet<u64>>,
    /// From here on every exhausted message can be moved.
    has_room: bool,
}

struct Run {
    world: World,
    model: Model,
    /// A snapshot on the way, and how long the log was then.
    snapshot: Option<(Vec<u8>, usize)>,
}

const GROUPS: u64 = 6;
/// Those of them that go by keys and by partitions, and from this one on have filters.
const BY_KEY: u64 = 2;
const BY_PARTITION: u64 = 3;
const FILTERED: u64 = 4;
const FILTERED_BY_KEY: u64 = 5;

/// Of the messages of the topic, by turns many and few pass.
fn passes(partition: PartitionId, offset: Offset) -> bool {
    partition.0 < PARTITIONS && ((offset.0 / 8).is_multiple_of(2) || offset.0.is_multiple_of(5))
}

/// Whether a group wants a message.
fn is_wanted(group: u64, partition: u64, offset: u64) -> bool {
    group < FILTERED || partition >= PARTITIONS || passes(PartitionId(partition), Offset(offset))
}

/// Four keys, and some messages without one; in each partition.
fn key_of(partition: PartitionId, offset: Offset) -> KeyHash {
    KeyHash((offset.0 * 7 + partition.0) % 5)
}
const PARTITIONS: u64 = 3;

impl Run {
    /// `kinds`: the limit of nacks, expiries and crashes each.
    fn new(max_attempts: u32, max_outstanding: u32, kinds: u32) -> Self {
        let backoff =
            BackoffOptions { first_ms: 20, max_ms: 300, jitter: Jitter::UpperHalf, growth: Growth::Exponential };
        let options = GroupOptions {
            visibility_timeout_ms: 600,
            max_attempts,
            max_nacks: kinds,
            max_expiries: kinds,
            max_crashes: kinds,
            backoff,
            max_outstanding,
            max_closes: 1,
            ..options()
        };
        let mut world = World::with(PARTITIONS as u32, options.clone());
        world.group(
            "second",
            &GroupOptions {
                visibility_timeout_ms: 250,
                max_attempts: max_attempts.max(1),
                max_closes: 0,
                ..options.clone()
            },
        );
        let max_in_flight_per_key = 1 + max_outstanding % 2;
        world.group("by key", &GroupOptions { ordering: Ordering::Key, max_in_flight_per_key, ..options.clone() });
        let by_partition = GroupOptions { ordering: Ordering::Partition, max_in_flight_per_key, ..options.clone() };
        world.group("by partition", &by_partition);
        let filtered = GroupOptions { filter: Filter::parse("type exists").ok().map(Arc::new), ..options };
        world.group("filtered", &filtered);
        world.group("filtered by key", &GroupOptions { ordering: Ordering::Key, max_in_flight_per_key, ..filtered });
        (world.key, world.passes) = (key_of, passes);
        world.parked_max = ParkedMax { of_group: 4, of_key: 1 + max_outstanding % 3 };
        world.visible = Some(Sparse::default());
        Self { world, model: Model::default(), snapshot: None }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Publish { partition, count } => self.world.publish(*partition, *count),
            Step::Sync => self.sync(),
            Step::Lease { group, max } => self.lease(*group, *max),
            Step::Ack { group, picks } => self.ack(*group, picks),
            Step::Nack { .. } | Step::Reject { .. } => self.fail(step),
            Step::Extend { .. } | Step::Release { .. } | Step::Unreadable { .. } => self.keep_or_give_back(step),
            Step::Redrive { group, pick, to } => self.redrive(*group, pick, *to),
            Step::Discard { group, pick } => {
                if let Some(dead_letter) = self.pick_dead_letter(*group, pick) {
                    self.world.run(Command::Discard { group: GroupId(*group), dead_letter }).unwrap();
                    self.model.dead_letters.entry(*group).or_default().remove(&dead_letter.0);
                }
            }
            Step::Advance { ms } => self.world.advance(*ms),
            Step::Jump { back, ms, noted } => {
                let by = if *back { -(*ms as i64) } else { *ms as i64 };
                self.world.wall = self.world.wall.strict_add_signed(by);
                self.world.jump += by;
                if *noted {
                    self.world.run(Command::NoteClockJump).unwrap();
                    self.world.jump = 0;
                }
            }
            Step::Open { clean } => self.open(*clean),
            Step::SettleFiltered { group, ahead } => self.settle_filtered(GroupId(*group), ahead.map(PartitionId)),
            Step::Seek { group, picks } => self.seek(*group, picks),
            Step::Others { what, pick } => self.others(*what, pick),
        }
    }

    fn others(&mut self, what: u8, pick: &Index) {
        let topics: Vec<_> = self.world.state.topics().map(|(id, topic)| (id, topic.first)).collect();
        let groups: Vec<_> = self.world.state.groups().map(|(id, _)| id).collect();
        // Behind those that the model knows.
        let (topic, first) = topics[topics.len() - 1 - pick.index(topics.len().min(2))];
        let group = groups[groups.len() - 1 - pick.index(groups.len().min(2))];
        let (is_known_topic, is_known_group) = (topic == TopicId(0), group.0 < GROUPS);
        let name = format!("other {}", pick.index(3));
        let starts = [Offset(0)];
        let aged = Retention::Age(std::time::Duration::from_millis(3_000));
        let retention = [Retention::Forever, Retention::UntilSettled, Retention::Count(2), aged][pick.index(4)];
        let aged = self.world.state.next_to_mark(self.world.state.store_time(self.world.inputs().steady));
        let options = GroupOptions { max_attempts: 1 + pick.index(3) as u32, max_outstanding: 3, ..options() };
        let changes = GroupChanges { max_attempts: Some(options.max_attempts), ..GroupChanges::default() };
        let ids = [0, 1].map(|part| DedupId { part, id: u128::from(part) << 100 | pick.index(5) as u128, body: 0 });
        let produced = self.world.state.produced(topic, &name);
        let number = produced.map_or(0, |produced| produced.sequence + 1);
        let sequence = Sequence { topic, producer: &name, number };
        let stands = self.world.state.cursor(&name).map(|cursor| cursor.value.to_vec());
        let hold = (pick.index(2) == 0).then_some(Hold { topic, from: Lsn(self.world.lsn) });
        let (runs, base) = ([(first, 2)], self.world.state.partition_end(first));
        let while_pending = [WhilePending::Reject, WhilePending::Replace, WhilePending::ReturnExisting][pick.index(3)];
        let uniques = [0, 1].map(|part| UniqueKey {
            part,
            key: u128::from(part) << 100 | pick.index(5) as u128,
            message_key: (self.world.key)(first, base.saturating_add(part.into())),
            while_pending,
        });
        let stream = StreamId { partition: first, key: pick.index(2) as u128 };
        let fact = Some(StreamFact { head: StreamHead::default(), as_of: Lsn(u64::MAX) });
        let dropping = self.world.state.dropping();
        let command = match what {
            0 => Command::CreateTopic {
                name: &name,
                partitions: 1,
                options: TopicOptions {
                    retention,
                    dedup_ids: 3,
                    dedup_window_ms: 500,
                    streams: true,
                    snapshots_kept: 1,
                    max_messages: 3,
                    when_full: WhenFull::DropOldest,
                    drops_unsettled: retention.is_for_a_while() && pick.index(2) == 0,
                },
            },
            1..=3 if !is_known_topic => Command::CreateGroup { topic, name: &name, options: &options, starts: &starts },
            4 if !is_known_topic => Command::publish(&runs),
            5 | 6 if !is_known_group => Command::AlterGroup { group, changes: &changes },
            7 if !is_known_group => Command::RemoveGroup { group },
            8 if !is_known_topic => Command::RemoveTopic { topic },
            9 | 10 if !is_known_topic => {
                Command::Publish { runs: &runs, ids: &ids, delays: &[], uniques: &[], sequence: None }
            }
            11 if !is_known_topic => {
                Command::Publish { runs: &[(first, 1)], ids: &[], delays: &[], uniques: &[], sequence: Some(sequence) }
            }
            14 | 15 if !is_known_topic => {
                Command::Append { stream, count: 2, expected: Expected::Any, ids: &ids[..what as usize % 2], fact }
            }
            17 | 21 | 22 if !is_known_topic => Command::SaveSnapshot { stream, version: pick.index(5) as u64, fact },
            16 | 18 | 24 if !is_known_topic => Command::TruncateStream { stream, first: pick.index(5) as u64, fact },
            20 if !dropping.is_empty() => Command::DropOld { topic: dropping[0] },
            19 | 23 if aged.is_some() => Command::MarkRetention { topic: aged.unwrap() },
            25 | 26 if !is_known_topic => {
                Command::Publish { runs: &runs, ids: &[], delays: &[], uniques: &uniques, sequence: None }
            }
            12 => Command::SetCursor { name: &name, expected: stands.as_deref(), value: &[what], hold },
            13 => Command::RemoveCursor { name: &name },
            _ => return,
        };
        match self.world.run(command) {
            Ok(_) => drop(self.world.state.take_removed()),
            Err(Rejection::Exists) if what < 4 => {}
            Err(Rejection::Repeated(repeats)) if what < 11 => assert!(!repeats.is_empty()),
            Err(Rejection::Repeated(_) | Rejection::KeyPending { .. }) if matches!(what, 25 | 26) => {}
            Err(Rejection::DedupConflict { .. }) if what == 15 => {}
            // What was leased takes all the room.
            Err(Rejection::TopicFull { .. }) if matches!(what, 4 | 9..=11 | 25 | 26) => {}
            Err(Rejection::NoSuchVersion { .. }) if matches!(what, 17 | 21 | 22) => {}
            Err(rejection) => assert_eq!((what, rejection), (13, Rejection::NoSuchCursor)),
        }
        if what == 5 {
            // Outstanding ones go on by what they were leased under.
            let held_up = self.world.is_held_up();
            if !held_up {
                self.world.run_lease(group, 2, true);
            }
        }
    }

    fn settle_filtered(&mut self, group: GroupId, ahead: Option<PartitionId>) {
        let parked_max = self.world.parked_max;
        let command = Command::SettleFiltered { group, ahead, parked_max };
        if let Decision::VerdictsNeeded { partition, first, count } = self.world.run(command).unwrap().0 {
            self.world.read_verdicts(group, partition, first, count);
            self.world.run(command).unwrap();
        }
    }

    /// Goes on anywhere, and keeps what is in progress of any part before that.
    fn seek(&mut self, group: u64, picks: &[Index; 6]) {
        let end = |partition| self.world.state.partition_end(PartitionId(partition)).0;
        let starts: Vec<u64> =
            (0..PARTITIONS).zip(picks).map(|(at, pick)| pick.index(end(at) as usize + 1) as u64).collect();
        let from: Vec<u64> =
            starts.iter().zip(&picks[3..]).map(|(start, pick)| pick.index(*start as usize + 1) as u64).collect();
        self.model.settled.retain(|at| at.0 != group || at.1 >= PARTITIONS);
        // What the group has not come to is not gone.
        let asked: Vec<Offset> = starts.iter().copied().map(Offset).collect();
        let kept_from: Vec<Offset> = from.iter().copied().map(Offset).collect();
        let starts = self.world.state.seek_starts(GroupId(group), &kept_from, &asked).unwrap();
        let starts: Vec<u64> = starts.into_iter().map(|start| start.0).collect();
        for partition in 0..PARTITIONS {
            let (start, from) = (starts[partition as usize], from[partition as usize]);
            let end = end(partition);
            for offset in (0..end).filter(|offset| is_wanted(group, partition, *offset)) {
                let at = (group, partition, offset);
                let was_out = self.model.open.remove(&at).is_some();
                let is_entry =
                    self.world.state.group(GroupId(group)).unwrap().entry(partition as u32, Offset(offset)).is_some();
                match offset {
                    _ if offset >= start => {}
                    // One that is parked was never delivered, and goes by its key.
                    _ if is_entry && offset >= from => {
                        if was_out || group == FILTERED {
                            self.model.open.insert(at, Open::default());
                        }
                    }
                    _ => _ = self.model.settled.insert(at),
                }
            }
            self.model.next.insert((group, partition), start);
        }
        self.world.run(Command::Seek { group: GroupId(group), from: &kept_from, starts: &asked }).unwrap();
        drop(self.world.state.take_removed());
    }

    fn sync(&mut self) {
        let mut visible = Sparse::default();
        self.world.state.partitions().for_each(|(partition, end)| visible.insert(partition.0, end));
        self.world.visible = Some(visible);
    }

    fn open(&mut self, clean: bool) {
        self.world.open(clean);
        for (at, open) in &mut self.model.open {
            let max_closes = self.world.state.group(GroupId(at.0)).unwrap().options.max_closes;
            if open.holder.take().is_none() {
                continue;
            }
            match (clean, open.exclusive) {
                (true, _) if open.closes < max_closes => {
                    open.closes += 1;
                    open.attempts -= 1;
                }
                (true, _) => (open.crashes, open.last) = (0, End::Other),
                (false, exclusive) => {
                    open.counts.add(FailureCause::Crashed);
                    (open.crashes, open.closes) = (open.crashes + 1, 0);
                    open.last = if exclusive { End::ExclusiveCrash } else { End::SharedCrash };
                }
            }
        }
    }

    fn live(&self) -> impl Iterator<Item = (&Target, &Open)> {
        let now = self.world.mono;
        self.model.open.iter().filter(move |(_, open)| open.holder.is_some_and(|(_, until)| until > now))
    }

    fn lease(&mut self, group: u64, max: u32) {
        let GroupOptions { max_attempts: limit, max_crashes: kinds, .. } =
            self.world.state.group(GroupId(group)).unwrap().options;
        let live: Vec<_> = self.live().map(|(at, open)| (*at, *open)).collect();
        let since = self.world.state.held_up_since();
        let waited = since.is_some_and(|since| since.0 + self.world.hold_up <= self.world.mono);
        let (decision, lent) = self.world.try_lease(GroupId(group), max);
        assert!(lent.len() <= max as usize);
        assert!(
            lent.is_empty() || waited || live.iter().all(|(_, open)| !open.exclusive),
            "a lease beside an exclusive one"
        );
        for lent in &lent {
            let (partition, offset) = lent.at();
            let (at, lent_group) = ((group, partition, offset), GroupId(group));
            assert!(live.iter().all(|(other, _)| *other != at), "two live leases of {at:?}");
            assert!(!self.model.settled.contains(&at), "{at:?} was settled");
            assert!(!lent.exclusive || live.is_empty() && max > 0, "an exclusive lease beside others");
            let visible = self.world.visible.as_ref().unwrap();
            assert!(visible.get(partition).is_some_and(|end| offset < end.0), "{at:?} is not visible");
            self.check_order(at);
            let open = self.model.open.entry(at).or_insert_with(|| {
                assert!(is_wanted(group, partition, offset), "{at:?} does not pass");
                if group == BY_KEY || group == FILTERED_BY_KEY {
                    return Open::default();
                }
                let next = self.model.next.entry((group, partition)).or_default();
                *next = (*next..).find(|next| is_wanted(group, partition, *next)).unwrap();
                assert_eq!(offset, *next, "first deliveries go out in order");
                *next += 1;
                Open::default()
            });
            if let Some((_, until)) = open.holder {
                let full = (20u64 << (open.attempts - 1).min(9)).min(300);
                let least = if open.attempts < 2 { 0 } else { full / 2 };
                assert!(self.world.mono >= until + least, "{at:?} had no backoff after its timeout");
                open.failed(FailureCause::Expired);
            }
            let of_kinds = [open.counts.nacks, open.counts.expiries, open.crashes];
            assert!(kinds == 0 || of_kinds.iter().all(|count| *count < kinds), "{at:?} failed too often: {of_kinds:?}");
            let told = self.world.state.failure_counts(lent_group, PartitionId(partition), Offset(offset));
            assert_eq!(told, open.counts);
            assert!(limit == 0 || open.crashes < 2 * limit, "{at:?} was out in {} crashes", open.crashes);
            open.attempts += 1;
            assert_eq!(lent.attempt, open.attempts, "{at:?}");
            let last_crash = kinds != 0 && open.crashes + 1 == kinds;
            let last = limit != 0 && open.attempts >= limit || last_crash;
            assert!(!lent.exclusive || last && open.crashes > 0, "only the last attempt after a crash is exclusive");
            assert!(lent.exclusive || !last || open.crashes == 0 || waited, "it was not waited for");
            assert!(limit == 0 || open.attempts <= limit || open.last == End::SharedCrash);
            open.holder = Some((lent.held.token, lent.until.0));
            open.exclusive = lent.exclusive;
            self.model.holders.push((group, lent.held));
        }
        if lent.iter().any(|lent| !lent.exclusive) {
            live.iter().for_each(|(at, _)| self.model.open.get_mut(at).unwrap().exclusive = false);
        }
        if let Decision::Exhausted { partition, offset } = decision {
            self.exhausted(group, partition, offset);
        }
    }

    /// The next delivery is of this message: those of its key or partition that are before it are settled, or as few are out as may be.
    fn check_order(&self, at: Target) {
        let (group, partition, offset) = at;
        let of = self.world.state.group(GroupId(group)).unwrap();
        let key = |partition: u64, offset: u64| match group {
            BY_KEY | FILTERED_BY_KEY => {
                Some(key_of(PartitionId(partition), Offset(offset))).filter(|key| *key != KeyHash::NONE)
            }
            BY_PARTITION => Some(KeyHash(partition)),
            _ => None,
        };
        let Some(of_this) = key(partition, offset) else { return };
        let others = self.model.open.keys().filter(|other| other.0 == group && **other != at);
        let out = others.filter(|other| key(other.1, other.2) == Some(of_this)).count() as u32;
        assert!(out < of.options.max_in_flight_per_key, "{at:?} beside {out} of its key");
        let is_known = |at: &Target| self.model.open.contains_key(at) || self.model.settled.contains(at);
        if is_known(&at) {
            return;
        }
        let earlier = (0..offset).filter(|offset| is_wanted(group, partition, *offset));
        let earlier = earlier.map(|offset| (group, partition, offset));
        let visible = self.world.visible.as_ref().unwrap().get(of.retry.0).map_or(0, |end| end.0);
        let redriven = (0..visible).map(|offset| (group, of.retry.0, offset)).filter(|_| partition != of.retry.0);
        let overtaken = earlier.chain(redriven).find(|at| key(at.1, at.2) == Some(of_this) && !is_known(at));
        assert_eq!(overtaken, None, "{at:?} comes before one of its key");
    }

    fn exhausted(&mut self, group: u64, partition: PartitionId, offset: Offset) {
        let at = (group, partition.0, offset.0);
        let open = self.model.open[&at];
        if !self.model.has_room && (offset.0 + self.world.mono).is_multiple_of(4) {
            let postponed = Command::Postpone { at: (GroupId(group), partition, offset) };
            self.world.run(postponed).unwrap();
            let open = self.model.open.get_mut(&at).unwrap();
            if open.holder.is_some() {
                open.failed(FailureCause::Expired);
            }
            return;
        }
        let GroupOptions { max_attempts: limit, max_crashes: kinds, .. } =
            self.world.state.group(GroupId(group)).unwrap().options;
        let is_crash_limit = open.crashes >= 2 * limit || kinds != 0 && open.crashes >= kinds;
        let is_over = open.holder.is_some() || open.last != End::SharedCrash || is_crash_limit;
        assert!(is_over, "only an exclusive death makes a dead letter, or as many again as there are attempts");
        let records = self.world.give_up(GroupId(group), (partition.0, offset.0)).unwrap();
        assert_eq!(provenance(&records).attempts, open.attempts);
        self.dead(at);
    }

    fn settled(&mut self, at: Target) {
        self.model.open.remove(&at);
        assert!(self.model.settled.insert(at));
    }

    fn dead(&mut self, at: Target) {
        self.settled(at);
        let dead = self.world.state.group(GroupId(at.0)).unwrap().dead();
        let dead_letter = self.world.state.partition_end(dead).0 - 1;
        assert!(self.model.dead_letters.entry(at.0).or_default().insert(dead_letter));
    }

    /// A holder of a message, or a former one.
    fn pick(&self, group: u64, pick: &Index) -> Option<(Target, Held, bool)> {
        let holders: Vec<_> = self.model.holders.iter().filter(|holder| holder.0 == group).rev().take(12).collect();
        let held = holders.get(pick.index(holders.len().max(1)))?.1;
        let at = (group, held.partition.0, held.offset.0);
        let holds = self.model.open.get(&at).and_then(|open| open.holder).is_some_and(|holder| holder.0 == held.token);
        Some((at, held, holds))
    }

    fn ack(&mut self, group: u64, picks: &[Index]) {
        let picked: Vec<_> = picks.iter().filter_map(|pick| self.pick(group, pick)).collect();
        let held: Vec<_> = picked.iter().map(|picked| picked.1).collect();
        let lost = self.world.ack(GroupId(group), &held);
        for (index, (at, _, holds)) in picked.into_iter().enumerate() {
            let again = self.model.settled.contains(&at);
            assert_eq!(lost.contains(&(index as u32)), !holds || again, "{at:?}");
            if holds && !again {
                self.settled(at);
            }
        }
    }

    fn fail(&mut self, step: &Step) {
        let (group, pick) = match step {
            Step::Nack { group, pick, .. } | Step::Reject { group, pick } => (*group, pick),
            _ => return,
        };
        let Some((at, held, holds)) = self.pick(group, pick) else { return };
        let outcome = match step {
            Step::Nack { delay_ms, .. } => self.world.nack(GroupId(group), held, *delay_ms, "failed"),
            _ => {
                let reject = Command::Reject { group: GroupId(group), held, text: "bad", moving: HERE };
                self.world.run(reject).map(|(_, records)| records)
            }
        };
        let Ok(records) = outcome else {
            assert!(!holds && outcome == Err(Rejection::LeaseLost));
            return;
        };
        assert!(holds);
        if matches!(records[..], [Record::DeadLettered { .. }]) {
            self.dead(at);
        } else {
            let open = self.model.open.get_mut(&at).unwrap();
            open.failed(FailureCause::Nacked);
        }
    }

    fn keep_or_give_back(&mut self, step: &Step) {
        let (group, pick, for_ms) = match step {
            Step::Extend { group, pick, for_ms } => (*group, pick, Some(*for_ms)),
            Step::Release { group, pick } | Step::Unreadable { group, pick } => (*group, pick, None),
            _ => return,
        };
        let Some((at, held, holds)) = self.pick(group, pick) else { return };
        let (group, now) = (GroupId(group), self.world.mono);
        let outcome = match step {
            Step::Extend { for_ms, .. } => self.world.run(Command::Extend { group, held, for_ms: *for_ms }),
            Step::Release { .. } => {
                let released = self.world.run(Command::Release { group, held: &[held.into()] });
                match released {
                    Ok((Decision::Settled { lost }, _)) if !lost.is_empty() => Err(Rejection::LeaseLost),
                    released => released,
                }
            }
            _ => self.world.run(Command::Unreadable { group, held }),
        };
        let shut = self.world.is_held_up();
        let Ok((_, records)) = outcome else {
            let ended = holds && self.model.open[&at].holder.is_some_and(|(_, until)| until <= now);
            let expected = !holds || for_ms.is_some() && ended && (shut || self.model.open[&at].exclusive);
            assert!(expected, "{step:?} {outcome:?}");
            return;
        };
        assert!(holds);
        let open = self.model.open.get_mut(&at).unwrap();
        match records[..] {
            [] => {}
            [Record::Extended { until, .. }] => {
                assert_eq!(until.0, now + for_ms.unwrap());
                open.holder = Some((held.token, until.0));
            }
            _ => {
                (open.holder, open.closes) = (None, 0);
                open.attempts -= 1;
            }
        }
    }

    fn pick_dead_letter(&self, group: u64, pick: &Index) -> Option<Offset> {
        let dead_letters = self.world.state.dead_letters(GroupId(group), Offset(0), usize::MAX);
        let expected: Vec<u64> = self.model.dead_letters.get(&group).into_iter().flatten().copied().collect();
        assert_eq!(dead_letters.iter().map(|dead_letter| dead_letter.0).collect::<Vec<_>>(), expected);
        dead_letters.get(pick.index(dead_letters.len().max(1))).copied()
    }

    fn redrive(&mut self, group: u64, pick: &Index, to: Option<u64>) {
        let Some(dead_letter) = self.pick_dead_letter(group, pick) else { return };
        let provenance = Provenance {
            origin: origin_of(dead_letter.0),
            attempts: 1,
            history: vec![],
            earlier: FailureCounts::default(),
        };
        let to = to.map(PartitionId);
        self.world.run(Command::Redrive { group: GroupId(group), dead_letter, to, provenance: &provenance }).unwrap();
        self.model.dead_letters.entry(group).or_default().remove(&dead_letter.0);
    }

    /// After everything: every message of every group can be brought to an end.
    fn drain(&mut self) {
        self.model.has_room = true;
        // Nobody of the others may hold up these.
        let others: Vec<_> = self.world.state.topics().map(|(id, _)| id).filter(|id| *id != TopicId(0)).collect();
        others.into_iter().for_each(|topic| drop(self.world.run(Command::RemoveTopic { topic })));
        self.sync();
        self.open(true);
        for round in 0..2_000 {
            let mut idle = true;
            for group in 0..GROUPS {
                let before = self.world.log.len();
                self.lease(group, 7);
                let all: Vec<_> = (self.live().map(|(at, _)| *at)).collect();
                let held: Vec<_> = self.model.holders.iter().rev().take(7).filter(|holder| holder.0 == group).collect();
                let held: Vec<Held> = held.into_iter().map(|holder| holder.1).collect();
                let lost = self.world.ack(GroupId(group), &held);
                let acked = held.iter().enumerate().filter(|(index, _)| !lost.contains(&(*index as u32)));
                for (_, held) in acked {
                    let at = (group, held.partition.0, held.offset.0);
                    assert!(all.contains(&at) || self.model.open.contains_key(&at));
                    self.settled(at);
                }
                idle &= self.world.log.len() == before;
            }
            if idle && self.model.open.is_empty() {
                break;
            }
            self.world.advance(if idle { 400 } else { 0 });
            assert!(round < 1_999, "it never ends: {:?}", self.model.open);
        }
        for (group, of) in self.world.state.groups() {
            let counts = self.world.counts(group);
            let dead = self.model.dead_letters.get(&group.0).map_or(0, |dead_letters| dead_letters.len() as u64);
            let texts_dropped = counts.texts_dropped;
            assert_eq!(counts, Totals { dead, texts_dropped, ..Totals::default() });
            for partition in (0..PARTITIONS).chain([of.retry.0]) {
                let end = self.world.state.partition_end(PartitionId(partition)).0;
                let end = (0..end).filter(|offset| is_wanted(group.0, partition, *offset)).count() as u64;
                let settled = self.model.settled.range((group.0, partition, 0)..=(group.0, partition, u64::MAX));
                assert_eq!(settled.count() as u64, end, "every message is settled, once");
            }
        }
    }

    /// The log alone, and a snapshot with the rest of the log, give the same state.
    fn replay(&self) {
        let mut replayed = State::new();
        for (record, lsn) in &self.world.log {
            replayed.apply(record, *lsn).unwrap();
        }
        assert_eq!(replayed.hash(), self.world.state.hash());
        let Some((bytes, len)) = &self.snapshot else { return };
        let mut resumed = State::decode(bytes).unwrap();
        for (record, lsn) in &self.world.log[*len..] {
            resumed.apply(record, *lsn).unwrap();
        }
        assert_eq!(resumed.hash(), self.world.state.hash());
        assert_eq!(resumed.check(), []);
    }
}

properties! {
    #[test]
    fn whatever_happens_the_promises_hold(
        max_attempts in 0u32..4, max_outstanding in 3u32..20, kinds in 0u32..4,
        steps in proptest::collection::vec(step(), 1..150), snapshot_at in any::<Index>(),
    ) {
        let mut run = Run::new(max_attempts, max_outstanding, kinds);
        let snapshot_at = snapshot_at.index(steps.len());
        for (index, step) in steps.iter().enumerate() {
            if index == snapshot_at {
                let mut bytes = Vec::new();
                run.world.state.snapshot().encode(&mut bytes);
                run.snapshot = Some((bytes, run.world.log.len()));
            }
            run.step(step);
            crate::state::retention::tests::agrees(&run.world.state);
        }
        run.drain();
        crate::state::retention::tests::agrees(&run.world.state);
        run.replay();
    }

    /// A snapshot may be taken between any two records, even of one frame.
    #[test]
    fn a_snapshot_between_any_two_records_goes_on_the_same(steps in proptest::collection::vec(step(), 1..60)) {
        let mut run = Run::new(2, 9, 0);
        steps.iter().for_each(|step| run.step(step));
        let mut folded = State::new();
        for (record, lsn) in &run.world.log {
            folded.apply(record, *lsn).unwrap();
            let mut bytes = Vec::new();
            folded.snapshot().encode(&mut bytes);
            let decoded = State::decode(&bytes).unwrap();
            let mut again = Vec::new();
            decoded.snapshot().encode(&mut again);
            prop_assert_eq!(&again, &bytes);
            folded = decoded;
        }
        prop_assert_eq!(folded.hash(), run.world.state.hash());
    }
}

/// A walk that meets nothing proves nothing: with fixed seeds, everything that can happen does.
#[test]
fn the_random_walk_meets_every_kind_of_record() {
    let mut runner = TestRunner::deterministic();
    let mut met: BTreeMap<String, u32> = BTreeMap::new();
    for (max_attempts, kinds) in (1..4).cycle().zip([0, 0, 0, 2].into_iter().cycle()).take(260) {
        let steps = proptest::collection::vec(step(), 150).new_tree(&mut runner).unwrap().current();
        let mut run = Run::new(max_attempts, 9, kinds);
        steps.iter().for_each(|step| run.step(step));
        for (record, _) in &run.world.log {
            let debug = format!("{record:?}");
            let mut name = debug.split([' ', '{']).next().unwrap_or_default().to_owned();
            match record {
                Record::Leased { exclusive: true, attempt, .. } if *attempt > max_attempts => {
                    name += " exclusive again"
                }
                Record::Leased { exclusive: true, .. } => name += " exclusive",
                Record::Leased { attempt: 2.., .. } => name += " again",
                Record::DeadLettered { copy, .. } => name += &format!(" {:?}", causes(&copy.provenance.history).last()),
                _ => {}
            }
            *met.entry(name).or_default() += 1;
        }
    }
    let expected = [
        "Accepted",
        "Acked",
        "Appended",
        "ClockJumped",
        "Considered",
        "CursorRemoved",
        "CursorSet",
        "DeadLettered Some(Closed)",
        "DeadLettered Some(Crashed)",
        "DeadLettered Some(Expired)",
        "DeadLettered Some(Nacked)",
        "DeadLettered Some(Rejected)",
        "Discarded",
        "Dropped",
        "ExclusivePending",
        "Extended",
        "Filtered",
        "GroupAltered",
        "GroupCreated",
        "GroupRemoved",
        "GroupSought",
        "KeyTaken",
        "Leased",
        "Leased again",
        "Leased exclusive",
        "Leased exclusive again",
        "Nacked",
        "Opened",
        "Postponed",
        "Published",
        "Recalled",
        "Redriven",
        "Released",
        "RetentionMarked",
        "Sequenced",
        "SnapshotSaved",
        "StreamTruncated",
        "TopicCreated",
        "TopicRemoved",
        "Unreadable",
    ];
    assert_eq!(met.keys().collect::<Vec<_>>(), expected);
    assert!(met.values().all(|&count| count >= 5), "{met:?}");
}
