//! One process's life on the store: random operations, and what they tell the oracle.

use crate::dedup::WINDOW;
use crate::holding::{Hold, Holding};
use crate::log::KEPT_PARTITIONS;
use crate::notices::open_notices;
use crate::oracle::{Key, Oracle, Sent, payload};
use crate::removal::{is_unwanted, open_groups};
use crate::tally::Tally;
use millpond::simulation::{Clock as _, Rng, SimClock, SimDisk, Sleeper};
use millpond::simulation::{MonoMs, WallMs};
use millpond::{DeliveryRef, Durability, Error, ErrorKind, Group, Message, MessageId, Retention, Store, Topic};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The kinds of operations, by the names under which they are counted.
const OPERATIONS: [&str; 23] = [
    "operation: publish",
    "operation: publish a batch",
    "operation: receive a batch",
    "operation: receive",
    "operation: ack",
    "operation: durable ack",
    "operation: nack, reject or extend",
    "operation: time passes",
    "operation: jobs",
    "operation: sync",
    "operation: dead letters",
    "operation: set the clock",
    "operation: holders hang",
    "operation: zombie settles",
    "operation: publish large",
    "operation: take and ack all",
    "operation: fill, take all, jobs",
    "operation: checkpoint",
    "operation: wait for the leases to end",
    "operation: alter a group",
    "operation: remove a group",
    "operation: remove a topic",
    "operation: transaction",
];

/// How often each kind of operation comes: each seed has its own mixture.
#[derive(Clone, Debug)]
pub struct Weights {
    operations: [u64; OPERATIONS.len()],
    /// A consumer falls asleep after one step in so many.
    sleepers: u64,
}

impl Weights {
    /// Some kinds often, some seldom, some never. What writes much comes in some seeds only.
    pub fn swarm(rng: &mut Rng) -> Self {
        let mut weights: [u64; OPERATIONS.len()] = std::array::from_fn(|_| [0, 1, 3, 10][rng.index(4)]);
        weights[0] += 2;
        weights[3] += 2;
        if !rng.chance(1, 8) {
            weights[14..=16].fill(0);
        }
        weights[17] = weights[17].min(1);
        weights[18] = weights[18].min(3);
        // What removes comes in few seeds: what was promised of messages that are gone is not looked at any more.
        weights[19] = weights[19].min(3);
        weights[20] = if rng.chance(1, 3) { weights[20].min(1) } else { 0 };
        weights[21] = if rng.chance(1, 6) { weights[21].min(1) } else { 0 };
        Self { operations: weights, sleepers: [2, 4, 8, 8][rng.index(4)] }
    }

    fn pick(&self, rng: &mut Rng) -> usize {
        let mut left = rng.below(self.operations.iter().sum());
        self.operations
            .iter()
            .position(|weight| {
                left < *weight || {
                    left -= weight;
                    false
                }
            })
            .unwrap_or(0)
    }
}

/// What the store of a case holds: it outlives every process.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Partitions of each topic.
    pub topics: Vec<u32>,
    /// Topic of each group, and its attempts.
    pub groups: Vec<(usize, u32)>,
}

pub struct Life<'a> {
    pub store: Store,
    pub topics: Vec<Topic>,
    /// That of the notices of one group.
    pub notices: Option<Topic>,
    pub groups: Vec<Group>,
    pub held: Vec<Holding>,
    pub zombies: Vec<Holding>,
    /// Consumers that wait, and for which group.
    pub sleepers: Vec<(usize, Sleeper)>,
    /// Deliveries of groups that are gone.
    pub orphans: Vec<Holding>,
    /// It cannot go on, though the store could.
    pub is_over: bool,
    /// The wall clock was set and no job has seen it: what waits for it may be late.
    clock_was_set: bool,
    /// The holder of each message by the tokens that were delivered, and the end of its lease.
    pub holds: BTreeMap<(usize, MessageId), Hold>,
    pub tally: Tally,
    pub plan: &'a Plan,
    pub clock: Arc<SimClock>,
    /// Whether the store shows durable messages only.
    pub durable_only: bool,
    disk: SimDisk,
    faults_before: u64,
    segments: usize,
}

/// Opens a topic of the plan.
pub fn open_topic(store: &Store, index: usize, partitions: u32) -> Result<Topic, Error> {
    let retention = if partitions == KEPT_PARTITIONS { Retention::Forever } else { Retention::UntilSettled };
    store.topic(format!("topic-{index}")).partitions(partitions).retention(retention).dedup_window(WINDOW).open()
}

/// A delivery's key for the oracle.
pub fn key(group: usize, delivery: DeliveryRef<'_>) -> Key {
    (group, delivery.origin())
}

impl<'a> Life<'a> {
    /// Opens what the plan says, creating what a crash did not leave. `faults_before`: how many faults the disk had met before
    /// this process began, which explains its errors.
    pub fn begin(
        store: Store,
        plan: &'a Plan,
        clock: Arc<SimClock>,
        disk: &SimDisk,
        oracle: &mut Oracle,
        (durable_only, faults_before): (bool, u64),
    ) -> Result<Self, Error> {
        let mut topics = Vec::new();
        for (index, partitions) in plan.topics.iter().enumerate() {
            topics.push(open_topic(&store, index, *partitions)?);
        }
        let notices = open_notices(&store, plan)?;
        let groups = open_groups(&store, (&topics, notices.as_ref()), plan, oracle)?;
        let (held, zombies, holds, tally) = (Vec::new(), Vec::new(), BTreeMap::new(), Tally::default());
        let (disk, segments) = (disk.clone(), 0);
        Ok(Self {
            store,
            topics,
            notices,
            groups,
            held,
            zombies,
            sleepers: Vec::new(),
            orphans: Vec::new(),
            is_over: false,
            clock_was_set: false,
            holds,
            tally,
            plan,
            clock,
            durable_only,
            disk,
            faults_before,
            segments,
        })
    }

    pub fn now(&self) -> MonoMs {
        self.clock.monotonic()
    }

    /// An error that nothing explains is a failure of the store.
    pub fn excuse(&self, what: &str, error: &Error) -> Result<(), String> {
        if self.disk.faults() > self.faults_before {
            return Ok(());
        }
        Err(format!("{what} failed without a fault: {error}"))
    }

    /// One random operation. An error of the store ends the life; errors of the call do not.
    pub fn step(&mut self, oracle: &mut Oracle, weights: &Weights, rng: &mut Rng) -> Result<(), String> {
        let operation = weights.pick(rng);
        self.tally.count(OPERATIONS[operation]);
        match operation {
            0 => self.publish(oracle, rng, 1, false)?,
            1 => {
                let count = 1 + rng.below(12);
                self.publish(oracle, rng, count, false)?;
            }
            2 => self.receive(oracle, rng.index(self.groups.len()), 1 + rng.index(9))?,
            3 => self.receive(oracle, rng.index(self.groups.len()), 1)?,
            4 => self.settle_held(oracle, rng, 0)?,
            5 => self.settle_held(oracle, rng, 1)?,
            6 => {
                let how = 2 + rng.below(6);
                self.settle_held(oracle, rng, how)?;
            }
            7 => self.clock.advance(rng.below(3_000)),
            8 => self.jobs()?,
            9 => self.store.sync().or_else(|error| self.excuse("a sync", &error))?,
            10 => self.letters(oracle, rng)?,
            11 => {
                self.set_clock(rng);
                (oracle.clock_was_set, oracle.clock_is_set) = (true, true);
            }
            // Nobody settles these in time; they come back by their timeout.
            12 => self.zombies.append(&mut self.held),
            13 => self.settle_zombie(oracle, rng)?,
            14 => {
                let count = 1 + rng.below(2);
                self.publish(oracle, rng, count, true)?;
            }
            15 => self.take_all(oracle, rng.index(self.groups.len()), rng.coin())?,
            16 => self.fill_and_take(oracle, rng)?,
            17 => self.store.checkpoint().or_else(|error| self.excuse("a checkpoint", &error))?,
            18 => self.clock.advance(5_000),
            19 => self.alter(oracle, rng)?,
            20 => self.remove_group(oracle, rng)?,
            21 => self.remove_topic(oracle, rng)?,
            _ => self.transact(oracle, rng)?,
        }
        if !self.is_alive() {
            return Ok(());
        }
        if rng.chance(1, weights.sleepers) && self.sleepers.len() < 6 {
            self.fall_asleep(rng.index(self.groups.len()), rng)?;
        }
        self.wake(oracle)?;
        // Draws that are its own, so that histories are what they were.
        let mut others = Rng::new(oracle.end ^ 0x10C);
        if others.chance(1, 16) {
            self.read_log(oracle, &mut others)?;
        }
        if others.chance(1, 8) && self.is_alive() {
            self.publish_under_id(oracle, &mut others)?;
        }
        if others.chance(1, 16) && self.is_alive() {
            self.move_cursor(oracle, &mut others)?;
        }
        if others.chance(1, 12) && self.is_alive() {
            self.append_events(oracle, &mut others)?;
        }
        if others.chance(1, 10) && self.is_alive() {
            self.schedule(oracle, &mut others)?;
        }
        if others.chance(1, 40) && self.is_alive() {
            self.seek(oracle, &mut others)?;
        }
        if others.chance(1, 8) && self.is_alive() {
            self.fill_bounded(&mut others)?;
        }
        if others.chance(1, 8) && self.is_alive() {
            self.publish_unique(oracle, &mut others)?;
        }
        if !self.is_alive() {
            return Ok(());
        }
        self.wake(oracle)?;
        self.note(oracle)
    }

    fn fall_asleep(&mut self, group: usize, rng: &mut Rng) -> Result<(), String> {
        match self.groups[group].fall_asleep(Duration::from_secs(1 + rng.below(20))) {
            Ok(sleeper) => {
                self.tally.count_if(sleeper.is_some(), "sleepers");
                self.sleepers.extend(sleeper.map(|sleeper| (group, sleeper)));
                Ok(())
            }
            Err(error) => self.excuse("a wait", &error),
        }
    }

    /// Each woken consumer looks; then nobody may sleep beside what is ready.
    fn wake(&mut self, oracle: &mut Oracle) -> Result<(), String> {
        while let Some(awake) = self.sleepers.iter().position(|(_, sleeper)| sleeper.is_awake()) {
            let (group, sleeper) = self.sleepers.swap_remove(awake);
            drop(sleeper);
            self.tally.count("sleepers woken");
            self.receive(oracle, group, 1)?;
            if !self.is_alive() {
                return Ok(());
            }
        }
        match self.store.stuck_sleepers().first() {
            Some(stuck) if !self.clock_was_set => Err(format!("{stuck} (G23)")),
            _ => Ok(()),
        }
    }

    fn jobs(&mut self) -> Result<(), String> {
        match self.store.tick() {
            Ok(()) => self.clock_was_set = false,
            Err(error) => self.excuse("a job", &error)?,
        }
        let log = self.store.stats().map(|stats| stats.log);
        let segments = log.as_ref().map_or(self.segments, |log| log.segments);
        self.tally.count_if(log.as_ref().is_ok_and(|log| log.cleaned_bytes > 0), "jobs after files were cleaned");
        self.tally.count_if(segments < self.segments, "segments retired");
        self.segments = segments;
        Ok(())
    }

    fn set_clock(&mut self, rng: &mut Rng) {
        let wall = WallMs(1_700_000_000_000 + rng.below(1 << 40));
        self.tally.count(if wall > self.clock.wall() { "clock set forward" } else { "clock set back" });
        self.clock.set_wall(wall);
        self.clock_was_set = true;
    }

    /// Several segments' worth, taken and acked by everybody, until chores may unlink some.
    fn fill_and_take(&mut self, oracle: &mut Oracle, rng: &mut Rng) -> Result<(), String> {
        for _ in 0..3 {
            self.publish(oracle, rng, 2, true)?;
        }
        for group in 0..self.groups.len() {
            self.take_all(oracle, group, false)?;
        }
        self.jobs()
    }

    /// Tells the oracle where the log stands. A store that cannot say is dead.
    pub fn note(&mut self, oracle: &mut Oracle) -> Result<(), String> {
        if oracle.clock_was_set && !self.clock_was_set {
            oracle.clock_noted = self.log().map_or(oracle.end, |(end, _)| end);
        }
        oracle.clock_was_set = self.clock_was_set;
        let violations = self.store.violations();
        if !violations.is_empty() {
            return Err(format!("the state disagrees with itself: {violations:?}"));
        }
        match self.store.stats() {
            Ok(stats) => {
                self.tally.count_if(stats.log.durable < stats.log.end, "watermark behind the end");
                self.segments = self.segments.max(stats.log.segments);
                let groups = stats.topics.iter().flat_map(|topic| &topic.groups);
                self.tally.count_if(
                    groups.map(|group| group.since_open.filtered).sum::<u64>() > 0,
                    "filtered messages settled",
                );
                oracle.saw(stats.log.end.0, stats.log.durable.0)
            }
            Err(error) => self.excuse("the store", &error),
        }
    }

    pub fn is_alive(&self) -> bool {
        !self.is_over && self.store.stats().is_ok()
    }

    /// The end of the log and the watermark; `None` of a store that is dead.
    pub fn log(&self) -> Option<(u64, u64)> {
        self.store.stats().ok().map(|stats| (stats.log.end.0, stats.log.durable.0))
    }

    pub fn publish(&mut self, oracle: &mut Oracle, rng: &mut Rng, count: u64, large: bool) -> Result<(), String> {
        let topic = rng.index(self.topics.len());
        let level = if rng.coin() { Durability::Disk } else { Durability::Os };
        let numbers: Vec<u64> = (0..count).map(|_| oracle.number(large)).collect();
        let messages = numbers.iter().map(|number| match rng.below(3) {
            0 => Message::new(payload(*number)),
            n => {
                oracle.unwanted.extend(Some(*number).filter(|number| is_unwanted(*number)));
                Message::new(payload(*number)).key(format!("key-{}", number % (n * 3))).header("n", vec![*number as u8])
            }
        });
        let messages: Vec<Message> = messages.collect();
        let alone = count == 1 && rng.coin();
        self.publish_as(oracle, topic, level, numbers, messages, alone)
    }

    pub fn publish_as(
        &mut self,
        oracle: &mut Oracle,
        topic: usize,
        level: Durability,
        numbers: Vec<u64>,
        messages: Vec<Message>,
        alone: bool,
    ) -> Result<(), String> {
        let handle = self.topics[topic].with_durability(level);
        let before = self.store.stats().map_or(usize::MAX, |stats| stats.log.segments);
        let batch = messages.len() > 1;
        let published = if alone {
            handle.publish(messages[0].clone()).map(|receipt| vec![receipt.id()])
        } else {
            handle.publish_batch(messages).map(|receipt| receipt.ids().to_vec())
        };
        let ids = match published {
            Ok(ids) => ids,
            Err(error) => {
                // What is to be tried again has changed nothing, and never comes to light.
                if error.kind() != ErrorKind::Retry {
                    oracle.unsure.extend(numbers.into_iter().map(|number| (number, topic)));
                }
                return self.excuse("a publish", &error);
            }
        };
        let Some((end, durable)) = self.log() else {
            // It returned, and the store died in a background job before it could say where.
            oracle.unsure.extend(numbers.into_iter().map(|number| (number, topic)));
            return Ok(());
        };
        for (id, number) in ids.into_iter().zip(numbers) {
            oracle.name(id, &payload(number))?;
            oracle.sent.insert(id, Sent { number, topic, end });
        }
        if level == Durability::Disk && durable < end {
            return Err(format!("a publish at Disk returned with the watermark at {durable}, below {end} (G1)"));
        }
        let after = self.store.stats().map_or(0, |stats| stats.log.segments);
        self.tally.count_if(batch && after > before, "segment begun by a batch");
        Ok(())
    }

    fn letters(&mut self, oracle: &mut Oracle, rng: &mut Rng) -> Result<(), String> {
        let group = rng.index(self.groups.len());
        let mut letters = match self.groups[group].dead_letters() {
            Ok(letters) => letters,
            Err(error) => return self.excuse("listing dead letters", &error),
        };
        let letter = match letters.next() {
            None => return Ok(()),
            Some(Err(error)) => return self.excuse("a dead letter", &error),
            Some(Ok(letter)) => letter,
        };
        self.tally.count("dead letters");
        oracle.name(letter.origin(), letter.payload())?;
        let key = (group, letter.origin());
        let how = rng.below(4);
        // What is redriven comes, also where a newer one was to replace it that found it dead: before or after now.
        oracle.unsure.extend(oracle.uniques.forget_replaced());
        oracle.forget_keys_of((how < 3).then_some(letter.origin()));
        let done = match how {
            0 => {
                let discarded = letter.discard();
                match (&discarded, self.log()) {
                    (Ok(()), Some((end, _))) => drop(oracle.discarded.insert(key, end)),
                    _ => drop(oracle.maybe_discarded.insert(key)),
                }
                discarded
            }
            1 => {
                let target = rng.index(self.topics.len());
                oracle.moved.extend((0..self.groups.len()).map(|group| (group, letter.origin())));
                letter.redrive_to(&self.topics[target]).map(drop)
            }
            2 => {
                oracle.died.insert(key);
                letter.redrive()
            }
            _ => {
                // It meets letters that it makes visible itself.
                oracle.all_may_have_died(group);
                self.groups[group].redrive_all().map(drop)
            }
        };
        self.tally.count_if(done.is_ok(), "redriven");
        done.or_else(|error| self.excuse("a dead letter", &error))
    }
}
