//! Runs operations against a store on a simulated disk, and holds everything it says against the reference.
//!
//! What the store may be now is a set of worlds, almost always one. After each operation the worlds in which it could
//! not have gone so are dropped; that none is left is a failure. Beside each end of the log stands what the store is
//! there, so that a crash that cuts the log at an end leaves just that. Never here: what a single operation does (see
//! `actions`), what ends a process (see `restart`).

use crate::facts::{Body, Now};
use crate::numbers::check_world;
use crate::ops::{Op, Opening, Run};
use crate::reference::World;
use millpond::Epoch;
use millpond::simulation::SimDisk;
use millpond::simulation::WallMs;
use millpond::simulation::{Clock, SimClock};
use millpond::{Batch, BatchReceipt, DeadLetter, Delivery, Group, MessageId, Position, Receipt, Stats, Store, Topic};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(crate) type Outcome<T = ()> = Result<T, String>;

/// Messages may have so many bytes, encoded.
pub(crate) const MESSAGE_BYTES_MAX: usize = 48 << 10;

macro_rules! ensure {
    ($condition:expr, $($message:tt)*) => {
        if !$condition {
            return Err(format!($($message)*));
        }
    };
}
pub(crate) use ensure;

/// A delivery that was kept.
pub(crate) struct Held {
    pub(crate) group: usize,
    pub(crate) id: MessageId,
    pub(crate) ticket: u64,
    pub(crate) delivery: Delivery,
}

pub(crate) struct HeldBatch {
    pub(crate) group: usize,
    pub(crate) leases: Vec<(MessageId, u64)>,
    pub(crate) batch: Batch,
}

pub(crate) enum Kept {
    One(Receipt),
    Batch(BatchReceipt),
}

/// Handles of what this process removed.
#[derive(Default)]
pub(crate) struct Gone {
    pub(crate) topics: Vec<Topic>,
    pub(crate) groups: Vec<Group>,
    pub(crate) letters: Vec<DeadLetter>,
}

/// All handles of a process. What is not listed holds no store.
pub(crate) struct Process {
    pub(crate) store: Store,
    /// That of notices, which is number 0.
    pub(crate) notices: Option<Topic>,
    /// Of the others that are there, by number.
    pub(crate) topics: BTreeMap<usize, Topic>,
    pub(crate) groups: BTreeMap<usize, Group>,
    /// Of those that were removed.
    pub(crate) gone: Gone,
    pub(crate) held: Vec<Held>,
    pub(crate) batches: Vec<HeldBatch>,
    /// With the end of the log just after.
    pub(crate) receipts: Vec<(Kept, u64)>,
}

/// What the store is where the log ends at `end`, and what it may be where it ends before that and after the last.
#[derive(Clone, Debug)]
pub(crate) struct Logged {
    pub(crate) end: u64,
    pub(crate) worlds: Vec<World>,
    pub(crate) between: Vec<World>,
    /// The fingerprint of its state, once the log holds what opening did.
    pub(crate) hash: Option<u64>,
}

pub(crate) struct Runner {
    pub(crate) disk: SimDisk,
    pub(crate) clock: Arc<SimClock>,
    pub(crate) process: Option<Process>,
    pub(crate) opening: Opening,
    pub(crate) epoch: Epoch,
    /// What the store may be in memory.
    pub(crate) worlds: Vec<World>,
    /// What it may be on disk: the last that is known durable, and all after it.
    pub(crate) log: Vec<Logged>,
    /// Whether the log holds what opening did, which it does from the first change on.
    pub(crate) opened_is_logged: bool,
    /// Whether this process appended anything at all.
    pub(crate) begun: bool,
    /// What opening said of the process before.
    pub(crate) was_clean: bool,
    pub(crate) end: u64,
    pub(crate) durable: u64,
    /// The end of the last frame that asks for a sync.
    pub(crate) sync_due: u64,
    /// The clocks when jumps were last looked for.
    pub(crate) clocks: (u64, u64),
    /// What it could be in memory before the operation under way.
    pub(crate) before: Vec<World>,
    /// Steps of the operation under way that a crash may separate.
    pub(crate) between: Vec<World>,
    /// G11: every id ever seen.
    pub(crate) ids: BTreeMap<MessageId, Arc<Body>>,
    /// G4: what stores opened at `Disk` delivered or returned `Ok` for.
    pub(crate) durable_ids: BTreeSet<MessageId>,
    /// Where each message stands that a reader of a log has seen.
    pub(crate) positions: BTreeMap<MessageId, Position>,
    /// Where each key of each topic lives.
    pub(crate) homes: BTreeMap<(usize, Vec<u8>), u64>,
    pub(crate) tickets: u64,
    pub(crate) bodies: u64,
    pub(crate) trace: Vec<String>,
}

/// The end of a run as a whole, with what led to a failure.
pub(crate) fn execute(run: &Run) -> Outcome {
    let mut runner = Runner::start(run)?;
    for (number, op) in run.ops.iter().enumerate() {
        if let Err(reason) = runner.step(op) {
            return Err(format!("operation {number}, {op:?}: {reason}\n{}", runner.trace.join("\n")));
        }
    }
    runner.drain().map_err(|reason| format!("at the end: {reason}\n{}", runner.trace.join("\n")))
}

impl Runner {
    fn start(run: &Run) -> Outcome<Self> {
        let mut runner = Self {
            disk: SimDisk::new(run.seed),
            clock: Arc::new(SimClock::new(WallMs(1_700_000_000_000))),
            process: None,
            opening: run.opening,
            epoch: Epoch(0),
            worlds: vec![World::default()],
            log: vec![Logged { end: 0, worlds: vec![World::default()], between: Vec::new(), hash: None }],
            opened_is_logged: false,
            begun: false,
            was_clean: true,
            end: 0,
            durable: 0,
            sync_due: 0,
            clocks: (0, 0),
            before: Vec::new(),
            between: Vec::new(),
            ids: BTreeMap::new(),
            durable_ids: BTreeSet::new(),
            positions: BTreeMap::new(),
            homes: BTreeMap::new(),
            tickets: 0,
            bodies: 0,
            trace: Vec::new(),
        };
        runner.open(run.opening, None)?;
        runner.create_notices()?;
        Ok(runner)
    }

    pub(crate) fn step(&mut self, op: &Op) -> Outcome {
        self.trace.push(format!("{op:?}"));
        self.between.clear();
        self.apply(op)?;
        self.settle(!matches!(op, Op::Tick {} | Op::JumpWall { .. }))
    }

    /// Looks at the store after an operation and enters what it did to the log. `is_work`: it asks for a sync.
    pub(crate) fn settle(&mut self, is_work: bool) -> Outcome {
        let stats = self.look()?;
        self.check_stats(&stats)?;
        let end = stats.log.end.0;
        ensure!(end >= self.end, "the log shrank from {} to {end}", self.end);
        let violations = self.process()?.store.violations();
        ensure!(violations.is_empty(), "the state contradicts itself: {violations:?}");
        let hash = self.process()?.store.state_hash().map_err(|error| format!("state_hash: {error}"))?;
        if end > self.end {
            self.begun = true;
            self.opened_is_logged = hash.is_some();
            if is_work {
                ensure!(self.opened_is_logged, "work was logged, and what opening did was not");
                self.sync_due = end;
            }
            // Until the log holds what opening did, a mark leaves it as it was found.
            let base = self.log.last().map(|last| last.worlds.clone()).unwrap_or_default();
            let worlds = if self.opened_is_logged { self.worlds.clone() } else { base };
            let between = self.before.drain(..).chain(self.between.drain(..)).collect();
            self.log.push(Logged { end, worlds, between, hash });
        }
        self.before.clone_from(&self.worlds);
        self.end = end;
        self.durable = stats.log.durable.0;
        let known = self.log.iter().rposition(|logged| logged.end <= self.durable).unwrap_or(0);
        self.log.drain(..known);
        Ok(())
    }

    /// The store in numbers; the log's are checked here, for they may be read in the middle of an operation.
    pub(crate) fn look(&self) -> Outcome<Stats> {
        let stats = self.process()?.store.stats().map_err(|error| format!("stats: {error}"))?;
        let log = &stats.log;
        ensure!(log.durable.0 >= self.durable, "the durable end went back from {} to {}", self.durable, log.durable);
        ensure!(log.durable <= log.end, "durable beyond the end: {log:?}");
        ensure!(log.bytes <= log.end.0 && log.segments <= 1 + log.bytes as usize, "{log:?}");
        Ok(stats)
    }

    /// The moment of the operation that was just carried out.
    pub(crate) fn now(&self) -> Outcome<Now> {
        let log = self.look()?.log;
        Ok(Now {
            isolates: self.opening.isolates,
            mono: self.clock.monotonic().0,
            wall: self.clock.wall().0,
            epoch: self.epoch,
            frame: (self.end, log.end.0),
            durable: self.opening.disk.then_some((self.durable, log.durable.0)),
        })
    }

    /// After something that promised to be durable.
    pub(crate) fn ensure_durable(&self) -> Outcome {
        let log = self.look()?.log;
        ensure!(log.durable == log.end, "returned before it was durable: {log:?}");
        Ok(())
    }

    /// Takes each world through what was seen; drops those where it could not be.
    pub(crate) fn advance(&mut self, step: impl Fn(&World) -> Outcome<Vec<World>>) -> Outcome {
        let (mut next, mut reasons) = (Vec::new(), Vec::new());
        for world in &self.worlds {
            match step(world) {
                Ok(worlds) => worlds.into_iter().for_each(|mut world| {
                    world.tell();
                    push_new(&mut next, world);
                }),
                Err(reason) => reasons.push(reason),
            }
        }
        ensure!(!next.is_empty(), "{}", reasons.join("\n  or: "));
        self.worlds = next;
        Ok(())
    }

    /// As `advance`, for what goes one way only.
    pub(crate) fn change(&mut self, step: impl Fn(&mut World)) -> Outcome {
        self.advance(|world| {
            let mut world = world.clone();
            step(&mut world);
            Ok(vec![world])
        })
    }

    /// Every world has the same topics and groups.
    pub(crate) fn world(&self) -> &World {
        &self.worlds[0]
    }

    pub(crate) fn process(&self) -> Outcome<&Process> {
        self.process.as_ref().ok_or_else(|| "no process".to_owned())
    }

    pub(crate) fn process_mut(&mut self) -> Outcome<&mut Process> {
        self.process.as_mut().ok_or_else(|| "no process".to_owned())
    }

    /// G11: an id names one message for ever.
    pub(crate) fn note_id(&mut self, id: MessageId, body: &Arc<Body>) -> Outcome {
        let known = self.ids.entry(id).or_insert_with(|| Arc::clone(body));
        ensure!(known == body, "{id} names two messages: {known:?} and {body:?}");
        Ok(())
    }

    fn check_stats(&mut self, stats: &Stats) -> Outcome {
        let now = self.now()?;
        let (trace, worlds) = (&mut self.trace, &mut self.worlds);
        let mut reasons = Vec::new();
        worlds.retain(|world| check_world(world, stats, &now).map_err(|reason| reasons.push(reason)).is_ok());
        trace.extend(reasons.iter().map(|reason| format!("  dropped a world: {reason}")));
        ensure!(!worlds.is_empty(), "stats: {}", reasons.join("\n  or: "));
        ensure!(worlds.len() < 1_000, "too many worlds to go on");
        Ok(())
    }
}

pub(crate) fn push_new(worlds: &mut Vec<World>, world: World) {
    if !worlds.contains(&world) {
        worlds.push(world);
    }
}

/// Names in an order that is not theirs.
pub(crate) fn topic_name(index: usize) -> String {
    format!("topic-{}", 9 - index)
}

pub(crate) fn group_name(index: usize) -> String {
    format!("group-{}", 9 - index)
}
