//! The rules of the state, one test each, on a world with a log, two clocks and nothing else.

mod changes;
mod dead_letters;
mod exclusive;
mod holds;
mod random;
mod removal;
mod rules;
mod snapshots;

use super::*;
use crate::ids::{Lsn, MessageId};
use crate::record::{BackoffOptions, Cause, Failure, Record, codec};

/// Everything around a state that an engine would have.
#[derive(Clone)]
struct World {
    state: State,
    log: Vec<(Record, Lsn)>,
    mono: u64,
    wall: u64,
    lsn: u64,
    /// What may be handed out; everything if `None`.
    visible: Option<Sparse<Offset>>,
    hold_up: u64,
    slack_ms: u64,
}

/// A delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lent {
    held: Held,
    attempt: u32,
    exclusive: bool,
    until: MonoMs,
}

impl Lent {
    fn at(&self) -> (u64, u64) {
        (self.held.partition.0, self.held.offset.0)
    }
}

const TIMEOUT_MS: u64 = 1_000;
const HOLD_UP_MS: u64 = 400;
/// Due times are far from zero, so that a jump can go back a long way.
const WALL: u64 = 1_000_000_000;

fn options() -> GroupOptions {
    GroupOptions {
        visibility_timeout_ms: TIMEOUT_MS,
        max_attempts: 5,
        backoff: BackoffOptions { first_ms: 100, max_ms: 10_000, jitter: false },
        max_outstanding: 1_000,
    }
}

impl World {
    /// A store that has been opened once.
    fn new() -> Self {
        let state = State::new();
        let mut world = Self {
            state,
            log: Vec::new(),
            mono: 5_000,
            wall: WALL,
            lsn: 0,
            visible: None,
            hold_up: HOLD_UP_MS,
            slack_ms: 0,
        };
        world.open(true);
        world
    }

    /// One topic with `partitions`, and one group.
    fn with(partitions: u32, options: GroupOptions) -> Self {
        let mut world = Self::new();
        world.run(Command::CreateTopic { name: "orders", partitions }).unwrap();
        world.group("kitchen", &options);
        world
    }

    fn group(&mut self, name: &str, options: &GroupOptions) -> GroupId {
        let topic = TopicId(0);
        let starts = vec![Offset(0); self.state.topic(topic).unwrap().count as usize];
        self.run(Command::CreateGroup { topic, name, options, starts: &starts }).unwrap();
        self.state.group_by_name(topic, name).unwrap()
    }

    /// What the engine does with a command; also checks that nothing depends on more than the state's value.
    fn run(&mut self, command: Command<'_>) -> Result<(Decision, Vec<Record>), Rejection> {
        let visible = self.visible.clone();
        let visible = visible.as_ref().map_or(Visible::All, Visible::Ends);
        let (mono, wall, hold_up) = (MonoMs(self.mono), WallMs(self.wall), HoldUp(self.hold_up));
        let inputs = Inputs { mono, wall, slack_ms: self.slack_ms, hold_up, visible };
        let mut records = vec![Record::ClockJumped { wall: WallMs(0) }];
        let decision = self.state.decide(&command, &inputs, &mut records);

        let mut bytes = Vec::new();
        self.state.snapshot().encode(&mut bytes);
        let restored = State::decode(&bytes).unwrap();
        let mut again = vec![Record::ClockJumped { wall: WallMs(0) }];
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
        assert_eq!(self.state.check(), []);
        Ok((decision, records))
    }

    /// An ack of a run is one of each message in it.
    fn assert_acks_do_not_depend_on_runs(
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

    fn inputs(&self) -> Inputs<'_> {
        let visible = self.visible.as_ref().map_or(Visible::All, Visible::Ends);
        let (mono, wall, hold_up) = (MonoMs(self.mono), WallMs(self.wall), HoldUp(self.hold_up));
        Inputs { mono, wall, slack_ms: self.slack_ms, hold_up, visible }
    }

    fn is_held_up(&self) -> bool {
        self.state.held_up_until(MonoMs(self.mono), HoldUp(self.hold_up)).is_some()
    }

    fn release(&mut self, group: GroupId, held: Held) -> Result<(), Rejection> {
        match self.run(Command::Release { group, held: &[held.into()] })?.0 {
            Decision::Settled { lost } if lost.is_empty() => Ok(()),
            _ => Err(Rejection::LeaseLost),
        }
    }

    fn open(&mut self, clean: bool) {
        let epoch = Epoch(self.state.epoch().0 + 1);
        self.run(Command::Open { epoch, clean }).unwrap();
    }

    fn advance(&mut self, ms: u64) {
        self.mono += ms;
        self.wall += ms;
    }

    fn publish(&mut self, partition: u64, count: u32) {
        self.run(Command::Publish { runs: &[(PartitionId(partition), count)] }).unwrap();
    }

    fn try_lease(&mut self, group: GroupId, max: u32) -> (Decision, Vec<Lent>) {
        let lsn = Lsn(self.lsn);
        let (decision, records) = self.run(Command::Lease { group, max, pass_exhausted: false }).unwrap();
        let token = Token { epoch: self.state.epoch(), lsn };
        let mut lent = Vec::new();
        for record in records {
            let Record::Leased { partition, first, count, attempt, until, exclusive, .. } = record else { continue };
            lent.extend((first.0..first.0 + u64::from(count)).map(|offset| {
                let held = Held { partition, offset: Offset(offset), token };
                Lent { held, attempt, exclusive, until }
            }));
        }
        (decision, lent)
    }

    /// Deliveries, where it is plain that there are some or none.
    fn lease(&mut self, group: GroupId, max: u32) -> Vec<Lent> {
        let (decision, lent) = self.try_lease(group, max);
        assert_eq!(decision, if lent.is_empty() { Decision::Nothing } else { Decision::Done });
        lent
    }

    fn lease_one(&mut self, group: GroupId) -> Lent {
        let lent = self.lease(group, 1);
        assert_eq!(lent.len(), 1);
        lent[0]
    }

    fn ack(&mut self, group: GroupId, held: &[Held]) -> Vec<u32> {
        match self.run(Command::Ack { group, held: &runs_of(held) }).unwrap() {
            (Decision::Settled { lost }, _) => lost,
            other => panic!("{other:?}"),
        }
    }

    fn nack(
        &mut self,
        group: GroupId,
        held: Held,
        delay_ms: Option<u64>,
        text: &str,
    ) -> Result<Vec<Record>, Rejection> {
        self.run(Command::Nack { group, held, delay_ms, text, published: HERE }).map(|(_, records)| records)
    }

    fn give_up(&mut self, group: GroupId, (partition, offset): (u64, u64)) -> Result<Vec<Record>, Rejection> {
        let (partition, offset) = (PartitionId(partition), Offset(offset));
        self.run(Command::GiveUp { group, partition, offset, published: HERE }).map(|(_, records)| records)
    }

    fn counts(&self, group: GroupId) -> Totals {
        let (inputs, snapshot) = (self.inputs(), self.state.snapshot());
        let known = self.state.group(group).unwrap();
        let mut sum = Totals {
            dead: snapshot.dead_letters(known),
            at_cap: snapshot.is_at_cap(known),
            texts_dropped: known.texts_dropped,
            ..Totals::default()
        };
        for (_, counts) in snapshot.counts(known, &inputs) {
            sum.ready += counts.ready;
            sum.leased += counts.leased;
            sum.waiting += counts.waiting;
            sum.exhausted += counts.exhausted;
            sum.lag += counts.lag;
        }
        sum
    }

    /// Expects that `record` does not follow from the state, and that it changes nothing.
    #[track_caller]
    fn refuses(&mut self, record: Record) {
        let before = self.state.hash();
        assert!(self.state.apply(&record, Lsn(self.lsn)).is_err(), "{record:?}");
        assert_eq!(self.state.hash(), before, "{record:?}");
        assert_eq!(self.state.check(), []);
    }
}

/// Of each message that was published.
const HERE: Publication = Publication::Here { epoch: Epoch(1), time: WallMs(WALL) };

/// The origin of a message of the first topic's first partition.
fn origin_of(offset: u64) -> Origin {
    let id = MessageId { topic: TopicId(0), partition: 0, epoch: Epoch(1), offset: Offset(offset) };
    Origin { id, time: WallMs(WALL), redrives: 0 }
}

fn places(lent: &[Lent]) -> Vec<(u64, u64)> {
    lent.iter().map(Lent::at).collect()
}

fn causes(failures: &[Failure]) -> Vec<Cause> {
    failures.iter().map(|failure| failure.cause).collect()
}

/// What the copy in `records` took with it.
fn provenance(records: &[Record]) -> &Provenance {
    records[0].claim().and_then(|claim| claim.provenance).unwrap_or_else(|| panic!("{:?}", records[0]))
}

/// How a group stands over all its partitions.
#[derive(Debug, Default, PartialEq, Eq)]
struct Totals {
    ready: u64,
    leased: u64,
    waiting: u64,
    exhausted: u64,
    lag: u64,
    dead: u64,
    at_cap: bool,
    texts_dropped: u64,
}

/// Visible ends of the first partitions.
fn ends(ends: &[u64]) -> Sparse<Offset> {
    let mut all = Sparse::default();
    (0..).zip(ends).for_each(|(partition, end)| all.insert(partition, Offset(*end)));
    all
}

/// The group that [`World::with`] makes.
const KITCHEN: GroupId = GroupId(0);

/// What is next to each other and under one token, as one run.
fn runs_of(held: &[Held]) -> Vec<HeldRun> {
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
