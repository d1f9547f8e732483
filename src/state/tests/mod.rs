//! The rules of the state, one test each, on a world with a log, two clocks and nothing else.

mod changes;
mod holds;
mod random;
mod snapshots;

pub(in crate::state) use super::*;
pub(in crate::state) use crate::ids::{Epoch, GroupId, Lsn, MessageId, MonoMs, Offset, PartitionId, TopicId, WallMs};
pub(in crate::state) use crate::record::{
    AttemptFailure, BackoffOptions, Copied, FailureCause, FailureCounts, Filter, GroupOptions, Growth, Jitter, KeyHash,
    Ordering, Origin, Provenance, RateOptions, Record, Retention, Token, TopicOptions, codec,
};

/// Everything around a state that an engine would have.
#[derive(Clone)]
pub(in crate::state) struct World {
    pub(in crate::state) state: State,
    pub(in crate::state) log: Vec<(Record, Lsn)>,
    pub(in crate::state) mono: u64,
    pub(in crate::state) wall: u64,
    /// By how much the wall clock has jumped since that was noted.
    pub(in crate::state) jump: i64,
    pub(in crate::state) lsn: u64,
    /// What may be delivered; everything if `None`.
    pub(in crate::state) visible: Option<Sparse<Offset>>,
    pub(in crate::state) hold_up: u64,
    pub(in crate::state) slack_ms: u64,
    pub(in crate::state) streams: StreamTails,
    /// The key of each message.
    pub(in crate::state) key: fn(PartitionId, Offset) -> KeyHash,
    pub(in crate::state) parked_max: ParkedMax,
    /// Whether each message passes, whatever the filter.
    pub(in crate::state) passes: fn(PartitionId, Offset) -> bool,
    pub(in crate::state) verdicts: KnownVerdicts,
}

/// A delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::state) struct Lent {
    pub(in crate::state) held: Held,
    pub(in crate::state) attempt: u32,
    pub(in crate::state) exclusive: bool,
    pub(in crate::state) until: MonoMs,
}

impl Lent {
    pub(in crate::state) fn at(&self) -> (u64, u64) {
        (self.held.partition.0, self.held.offset.0)
    }
}

pub(in crate::state) const TIMEOUT_MS: u64 = 1_000;
pub(in crate::state) const HOLD_UP_MS: u64 = 400;
/// Due times are far from zero, so that a jump can go back a long way.
pub(in crate::state) const WALL: u64 = 1_000_000_000;

pub(in crate::state) fn options() -> GroupOptions {
    GroupOptions {
        visibility_timeout_ms: TIMEOUT_MS,
        max_attempts: 5,
        max_nacks: 0,
        max_expiries: 0,
        max_crashes: 0,
        backoff: BackoffOptions { first_ms: 100, max_ms: 10_000, jitter: Jitter::None, growth: Growth::Exponential },
        max_outstanding: 1_000,
        max_closes: 20,
        notices: None,
        ordering: Ordering::None,
        max_in_flight_per_key: 1,
        paused: false,
        max_in_flight: 0,
        rate: RateOptions { count: 0, per_ms: 0, burst: 0 },
        filter: None,
    }
}

impl World {
    /// A store that has been opened once.
    pub(in crate::state) fn new() -> Self {
        let state = State::new();
        let mut world = Self {
            state,
            log: Vec::new(),
            mono: 5_000,
            wall: WALL,
            jump: 0,
            lsn: 0,
            visible: None,
            hold_up: HOLD_UP_MS,
            slack_ms: 0,
            streams: StreamTails::default(),
            key: |_, _| KeyHash::NONE,
            parked_max: ParkedMax::default(),
            passes: |_, _| true,
            verdicts: KnownVerdicts::default(),
        };
        world.open(true);
        world
    }

    /// One topic with `partitions`, and one group.
    pub(in crate::state) fn with(partitions: u32, options: GroupOptions) -> Self {
        let mut world = Self::new();
        world.run(Command::CreateTopic { name: "orders", partitions, options: TopicOptions::LEFT_OUT }).unwrap();
        world.group("kitchen", &options);
        world
    }

    pub(in crate::state) fn group(&mut self, name: &str, options: &GroupOptions) -> GroupId {
        let topic = TopicId(0);
        let starts = vec![Offset(0); self.state.topic(topic).unwrap().count as usize];
        self.run(Command::CreateGroup { topic, name, options, starts: &starts }).unwrap();
        self.state.group_by_name(topic, name).unwrap()
    }

    /// What the engine does with a command; also checks that nothing depends on more than the state's value.
    pub(in crate::state) fn run(&mut self, command: Command<'_>) -> Result<(Decision, Vec<Record>), Rejection> {
        let visible = self.visible.clone();
        let visible = visible.as_ref().map_or(Visible::All, Visible::Ends);
        let (mono, wall, hold_up) = (MonoMs(self.mono), WallMs(self.wall), HoldUp(self.hold_up));
        let steady = WallMs(self.wall.wrapping_add_signed(self.jump.wrapping_neg()));
        let (slack_ms, streams, verdicts) = (self.slack_ms, &self.streams, &self.verdicts);
        let inputs = Inputs { mono, wall, steady, slack_ms, hold_up, visible, streams, verdicts };
        let mut records = vec![Record::ClockJumped { wall: WallMs(0), by_ms: 0 }];
        let decision = self.state.decide(&command, &inputs, &mut records);

        let mut bytes = Vec::new();
        self.state.snapshot().encode(&mut bytes);
        let restored = State::decode(&bytes).unwrap();
        let mut again = vec![Record::ClockJumped { wall: WallMs(0), by_ms: 0 }];
        assert_eq!(restored.decide(&command, &inputs, &mut again), decision);
        assert_eq!(again, records);
        self.assert_acks_do_not_depend_on_runs(&command, &inputs, &decision, &records[1..]);

        let records = records.split_off(1);
        let decision = match decision {
            Ok(decision) => decision,
            Err(rejection) => {
                assert!(records.is_empty());
                return Err(rejection);
            }
        };
        let mut head = Vec::new();
        codec::encode(&records, &mut head);
        assert_eq!(codec::decode(&head).collect::<Result<Vec<_>, _>>().as_ref(), Ok(&records));
        for record in &records {
            self.state.apply(record, Lsn(self.lsn)).unwrap();
            self.log.push((record.clone(), Lsn(self.lsn)));
        }
        self.lsn += 8 * records.len() as u64;
        records.iter().for_each(|record| self.streams.follow(record, Lsn(self.lsn)));
        records.iter().for_each(|record| self.follow(record));
        assert_eq!(self.state.check(), []);
        Ok((decision, records))
    }

    /// What is known of messages that were leased, or looked at, is forgotten.
    fn follow(&mut self, record: &Record) {
        if let Record::Leased { group, partition, .. }
        | Record::Filtered { group, partition, .. }
        | Record::Dropped { group, partition, .. }
        | Record::Considered { group, partition, .. } = record
        {
            let next = self.state.next_of(*group, *partition).unwrap();
            self.verdicts.settle((*group, *partition), next);
        }
    }

    /// What an engine does that is asked for verdicts.
    pub(in crate::state) fn read_verdicts(&mut self, id: GroupId, partition: PartitionId, first: Offset, count: u32) {
        let group = self.state.group(id).unwrap();
        let verdict = |offset| match (self.passes)(partition, offset) {
            false => FilterVerdict::Filtered(1),
            true if group.options.ordering == Ordering::Key => FilterVerdict::Passes((self.key)(partition, offset)),
            true => FilterVerdict::Passes(KeyHash::NONE),
        };
        // A read may end early.
        let read: Vec<_> = (first.0..first.0 + u64::from(count.min(3))).map(|offset| verdict(Offset(offset))).collect();
        let filter = group.options.filter.clone().unwrap();
        self.verdicts.add((id, group, partition), (&filter, first), read);
    }

    /// An ack of a run is one of each message in it.
    pub(in crate::state) fn assert_acks_do_not_depend_on_runs(
        &self,
        command: &Command<'_>,
        inputs: &Inputs<'_>,
        decision: &Result<Decision, Rejection>,
        records: &[Record],
    ) {
        let Command::Ack { group, held } = *command else { return };
        let nth = |run: &HeldRun, n| Held { offset: run.first.offset.saturating_add(n), ..run.first };
        let each = |run: &HeldRun| (0..u64::from(run.count)).map(|n| nth(run, n).into()).collect::<Vec<HeldRun>>();
        let each: Vec<HeldRun> = held.iter().flat_map(each).collect();
        let mut again = Vec::new();
        assert_eq!(&self.state.decide(&Command::Ack { group, held: &each }, inputs, &mut again), decision);
        assert_eq!(again, records);
    }

    pub(in crate::state) fn inputs(&self) -> Inputs<'_> {
        let visible = self.visible.as_ref().map_or(Visible::All, Visible::Ends);
        let (mono, wall, hold_up) = (MonoMs(self.mono), WallMs(self.wall), HoldUp(self.hold_up));
        let steady = WallMs(self.wall.wrapping_add_signed(self.jump.wrapping_neg()));
        let (slack_ms, streams, verdicts) = (self.slack_ms, &self.streams, &self.verdicts);
        Inputs { mono, wall, steady, slack_ms, hold_up, visible, streams, verdicts }
    }

    pub(in crate::state) fn is_held_up(&self) -> bool {
        self.state.held_up_until(MonoMs(self.mono), HoldUp(self.hold_up)).is_some()
    }

    pub(in crate::state) fn release(&mut self, group: GroupId, held: Held) -> Result<(), Rejection> {
        match self.run(Command::Release { group, held: &[held.into()] })?.0 {
            Decision::Settled { lost } if lost.is_empty() => Ok(()),
            _ => Err(Rejection::LeaseLost),
        }
    }

    pub(in crate::state) fn open(&mut self, clean: bool) {
        let epoch = Epoch(self.state.epoch().0 + 1);
        self.run(Command::Open { epoch, clean }).unwrap();
    }

    pub(in crate::state) fn advance(&mut self, ms: u64) {
        self.mono += ms;
        self.wall += ms;
    }

    pub(in crate::state) fn publish(&mut self, partition: u64, count: u32) {
        self.run(Command::publish(&[(PartitionId(partition), count)])).unwrap();
    }

    /// What an engine does that is asked for a message: it reads the keys that a decision lacks. Returns the LSN of the lease, too.
    pub(in crate::state) fn run_lease(
        &mut self,
        group: GroupId,
        max: u32,
        pass_exhausted: bool,
    ) -> (Decision, Vec<Record>, Lsn) {
        let mut known: Option<(PartitionId, Offset, Vec<KeyHash>)> = None;
        let mut looked_at = 0;
        let has_filter = self.state.group(group).unwrap().options.filter.is_some();
        loop {
            let lsn = Lsn(self.lsn);
            let keys = known.as_ref().map(|(partition, first, keys)| KeyRun {
                partition: *partition,
                first: *first,
                keys,
                parked_max: self.parked_max,
            });
            let lease = Command::Lease { group, max, pass_exhausted, new_last: None, keys, looked_at };
            match self.run(lease).unwrap() {
                (Decision::KeysNeeded { partition, first, count }, _) => {
                    // A read may end early.
                    let count = count.min(3);
                    let offsets = (first.0..first.0 + u64::from(count)).map(Offset);
                    let is_asked = has_filter && self.state.group(group).unwrap().retry != partition;
                    let key = |offset| match is_asked && !(self.passes)(partition, offset) {
                        true => KeyHash::NONE,
                        false => (self.key)(partition, offset),
                    };
                    known = Some((partition, first, offsets.map(key).collect()));
                }
                (Decision::VerdictsNeeded { partition, first, count }, records) => {
                    assert_eq!(records, []);
                    self.read_verdicts(group, partition, first, count);
                    looked_at += count.min(3);
                }
                (Decision::Filtered { .. }, _) => {}
                (Decision::Considered { .. }, _) if has_filter => {}
                (Decision::Considered { count }, records) => {
                    let [Record::Considered { keys, .. } | Record::Recalled { keys, .. }] = &records[..] else {
                        panic!("{records:?}")
                    };
                    assert_eq!(keys.len(), count as usize);
                }
                (decision, records) => return (decision, records, lsn),
            }
        }
    }

    pub(in crate::state) fn try_lease(&mut self, group: GroupId, max: u32) -> (Decision, Vec<Lent>) {
        let (decision, records, lsn) = self.run_lease(group, max, false);
        let token = Token { epoch: self.state.epoch(), lsn };
        // What newer messages have replaced.
        let passed = |held: &Held| {
            records.iter().any(|record| {
                let &Record::Acked { partition, first, count, .. } = record else { return false };
                partition == held.partition && (first.0..first.0 + u64::from(count)).contains(&held.offset.0)
            })
        };
        let mut lent = Vec::new();
        for record in &records {
            let &Record::Leased { partition, first, count, attempt, until, exclusive, .. } = record else { continue };
            lent.extend((first.0..first.0 + u64::from(count)).map(|offset| {
                let held = Held { partition, offset: Offset(offset), token };
                Lent { held, attempt, exclusive, until }
            }));
        }
        let leased = lent.len();
        lent.retain(|lent: &Lent| !passed(&lent.held));
        if leased > 0 && lent.is_empty() { self.try_lease(group, max) } else { (decision, lent) }
    }

    /// Deliveries, where it is plain that there are some or none.
    pub(in crate::state) fn lease(&mut self, group: GroupId, max: u32) -> Vec<Lent> {
        let (decision, lent) = self.try_lease(group, max);
        assert_eq!(decision, if lent.is_empty() { Decision::Nothing } else { Decision::Done });
        lent
    }

    pub(in crate::state) fn lease_one(&mut self, group: GroupId) -> Lent {
        let lent = self.lease(group, 1);
        assert_eq!(lent.len(), 1);
        lent[0]
    }

    pub(in crate::state) fn ack(&mut self, group: GroupId, held: &[Held]) -> Vec<u32> {
        match self.run(Command::Ack { group, held: &runs_of(held) }).unwrap() {
            (Decision::Settled { lost }, _) => lost,
            other => panic!("{other:?}"),
        }
    }

    pub(in crate::state) fn nack(
        &mut self,
        group: GroupId,
        held: Held,
        delay_ms: Option<u64>,
        text: &str,
    ) -> Result<Vec<Record>, Rejection> {
        self.run(Command::Nack { group, held, delay_ms, text, moving: HERE }).map(|(_, records)| records)
    }

    pub(in crate::state) fn give_up(
        &mut self,
        group: GroupId,
        (partition, offset): (u64, u64),
    ) -> Result<Vec<Record>, Rejection> {
        let (partition, offset) = (PartitionId(partition), Offset(offset));
        self.run(Command::GiveUp { group, partition, offset, moving: HERE }).map(|(_, records)| records)
    }

    pub(in crate::state) fn counts(&self, group: GroupId) -> Totals {
        let (inputs, snapshot) = (self.inputs(), self.state.snapshot());
        let known = self.state.group(group).unwrap();
        let mut sum = Totals {
            dead: snapshot.dead_letters(known),
            at_cap: snapshot.is_at_cap(known),
            texts_dropped: known.texts_dropped,
            ..Totals::default()
        };
        for (_, counts) in snapshot.counts((group, known), &inputs) {
            sum.ready += counts.ready;
            sum.leased += counts.leased;
            sum.waiting += counts.waiting;
            sum.exhausted += counts.exhausted;
            sum.parked += counts.parked;
            sum.lag += counts.lag;
        }
        sum
    }

    /// Expects that `record` does not follow from the state, and that it changes nothing.
    #[track_caller]
    pub(in crate::state) fn refuses(&mut self, record: Record) {
        let before = self.state.hash();
        assert!(self.state.apply(&record, Lsn(self.lsn)).is_err(), "{record:?}");
        assert_eq!(self.state.hash(), before, "{record:?}");
        assert_eq!(self.state.check(), []);
    }
}

/// Of each message that was published.
pub(in crate::state) const HERE: Moving =
    Moving { published: Publication::Here { epoch: Epoch(1), time: WallMs(WALL) }, notice: Notice::Unasked };

/// The origin of a message of the first topic's first partition.
pub(in crate::state) fn origin_of(offset: u64) -> Origin {
    let id = MessageId { topic: TopicId(0), partition: 0, epoch: Epoch(1), offset: Offset(offset) };
    Origin { id, time: WallMs(WALL), redrives: 0 }
}

pub(in crate::state) fn places(lent: &[Lent]) -> Vec<(u64, u64)> {
    lent.iter().map(Lent::at).collect()
}

pub(in crate::state) fn causes(failures: &[AttemptFailure]) -> Vec<FailureCause> {
    failures.iter().map(|failure| failure.cause).collect()
}

/// What the copy in `records` took with it.
pub(in crate::state) fn provenance(records: &[Record]) -> &Provenance {
    records[0].claim().and_then(|claim| claim.provenance).unwrap_or_else(|| panic!("{:?}", records[0]))
}

/// How a group stands over all its partitions.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::state) struct Totals {
    pub(in crate::state) ready: u64,
    pub(in crate::state) leased: u64,
    pub(in crate::state) waiting: u64,
    pub(in crate::state) exhausted: u64,
    pub(in crate::state) parked: u64,
    pub(in crate::state) lag: u64,
    pub(in crate::state) dead: u64,
    pub(in crate::state) at_cap: bool,
    pub(in crate::state) texts_dropped: u64,
}

/// Visible ends of the first partitions.
pub(in crate::state) fn ends(ends: &[u64]) -> Sparse<Offset> {
    let mut all = Sparse::default();
    (0..).zip(ends).for_each(|(partition, end)| all.insert(partition, Offset(*end)));
    all
}

/// The group that [`World::with`] makes.
pub(in crate::state) const KITCHEN: GroupId = GroupId(0);

/// What is next to each other and under one token, as one run.
pub(in crate::state) fn runs_of(held: &[Held]) -> Vec<HeldRun> {
    let mut runs: Vec<HeldRun> = Vec::new();
    for &one in held {
        let next = |run: &HeldRun| Held { offset: run.first.offset.saturating_add(u64::from(run.count)), ..run.first };
        match runs.last_mut() {
            Some(run) if next(run) == one => run.count += 1,
            _ => runs.push(one.into()),
        }
    }
    runs
}

/// A world with one message in each situation: 0 leased, 1 leased and ended, 2 waiting, 3 ready, 4 new.
pub(in crate::state) fn situations() -> World {
    let mut world = World::with(1, GroupOptions { max_attempts: 2, ..options() });
    world.publish(0, 5);
    world.lease(KITCHEN, 1);
    world.lease(KITCHEN, 1);
    let (waiting, ready) = (world.lease_one(KITCHEN), world.lease_one(KITCHEN));
    world.nack(KITCHEN, waiting.held, Some(9_000), "").unwrap();
    world.nack(KITCHEN, ready.held, Some(0), "").unwrap();
    let held = Held { partition: PartitionId(0), offset: Offset(0), token: Token { epoch: Epoch(1), lsn: Lsn(32) } };
    world.run(Command::Extend { group: KITCHEN, held, for_ms: 50_000 }).unwrap();
    world.advance(2 * TIMEOUT_MS);
    world
}

pub(in crate::state) fn copy(partition: u64, offset: u64) -> Box<Copied> {
    let provenance =
        Provenance { origin: origin_of(0), attempts: 1, history: vec![], earlier: FailureCounts::default() };
    Box::new(Copied { partition: PartitionId(partition), offset: Offset(offset), time: WallMs(1), provenance })
}
