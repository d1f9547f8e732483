//! One case: lives, crashes, and the checks after each.

use crate::history::{Life, Plan, Weights};
use crate::oracle::Oracle;
use crate::tally::Tally;
use millpond::simulation::WallMs;
use millpond::simulation::fuzzing::observe;
use millpond::simulation::{Fault, IndexOutcome, Op, PowerOutcome, Rng, SimClock, SimDisk, SimIndexHome};
use millpond::{Durability, Error, Store};
use std::sync::Arc;
use std::time::Duration;

/// What a case gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub tally: Tally,
    pub trace_hash: u64,
}

pub struct Case {
    seed: u64,
    steps: u64,
    traced: bool,
}

/// What lasts through a case.
pub struct World {
    pub disk: SimDisk,
    pub clock: Arc<SimClock>,
    pub index: SimIndexHome,
    pub rng: Rng,
    pub oracle: Oracle,
    pub tally: Tally,
    pub plan: Plan,
    traced: bool,
    pub faults_before: u64,
}

impl Case {
    pub fn new(seed: u64) -> Self {
        Self::with_steps(seed, 10 + Rng::new(seed ^ 0x5EED).below(70))
    }

    pub fn with_steps(seed: u64, steps: u64) -> Self {
        Self { seed, steps, traced: false }
    }

    pub fn traced(mut self) -> Self {
        self.traced = true;
        self
    }

    pub fn steps(&self) -> u64 {
        self.steps
    }

    pub fn run(&self) -> Result<Outcome, String> {
        let mut rng = Rng::new(self.seed);
        let topics: Vec<u32> = (0..1 + rng.index(2)).map(|_| 1 + rng.below(3) as u32).collect();
        let groups = (0..1 + rng.index(3)).map(|_| (rng.index(topics.len()), [0, 1, 2, 3][rng.index(4)])).collect();
        let mut world = World::new(SimDisk::new(rng.next_u64()), rng, Plan { topics, groups });
        world.traced = self.traced;
        if self.traced {
            world.disk.keep_trace();
        }
        let result = world.live(self.steps);
        if self.traced {
            world.disk.trace().iter().for_each(|line| println!("{line}"));
        }
        world.count_faults();
        result.map(|()| Outcome { tally: world.tally, trace_hash: world.disk.trace_hash() })
    }
}

impl World {
    pub fn new(disk: SimDisk, rng: Rng, plan: Plan) -> Self {
        Self {
            disk,
            clock: Arc::new(SimClock::new(WallMs(1_800_000_000_000))),
            index: SimIndexHome::default(),
            rng,
            oracle: Oracle::default(),
            tally: Tally::default(),
            plan,
            traced: false,
            faults_before: 0,
        }
    }

    /// Another machine in the same state, on which other things may happen.
    pub fn copy(&self) -> Self {
        let (disk, mut oracle) = (self.disk.snapshot(), self.oracle.clone());
        if oracle.clock_is_set {
            oracle.later.lost_the_clock(&mut oracle.sent, &mut oracle.unsure);
        }
        Self {
            faults_before: disk.faults(),
            disk,
            clock: Arc::new(SimClock::new(WallMs(1_900_000_000_000))),
            // Another machine has none, and makes it anew.
            index: SimIndexHome::default(),
            rng: self.rng.clone(),
            oracle,
            tally: Tally::default(),
            plan: self.plan.clone(),
            traced: false,
        }
    }

    /// A few lives, each ended by a crash or a close, and then the last checks.
    fn live(&mut self, steps: u64) -> Result<(), String> {
        let lives = 1 + self.rng.below(3);
        for life in 0..lives {
            self.one_life(steps / lives + 1).map_err(|what| format!("in life {life}: {what}"))?;
        }
        self.tally.more("messages", self.oracle.sent.len() as u64);
        self.tally.more("acks", self.oracle.acked.len() as u64);
        self.disk.clear_faults();
        self.check(false)
    }

    fn say(&self, what: &str) {
        if self.traced {
            println!("-- request {}: {what}", self.disk.requests());
        }
    }

    fn one_life(&mut self, steps: u64) -> Result<(), String> {
        let durable_only = self.rng.coin();
        let plan = self.plan.clone();
        self.plan_fault();
        let begun = self.open(durable_only).and_then(|store| self.begin(store, &plan, durable_only));
        let mut life = match begun {
            Ok(life) => life,
            Err(error) if self.disk.faults() == self.faults_before => {
                return Err(format!("opening failed without a fault: {error}"));
            }
            Err(error) => return self.crash(&format!("at open: {error}"), None),
        };
        let weights = Weights::swarm(&mut self.rng);
        for _ in 0..steps {
            life.step(&mut self.oracle, &weights, &mut self.rng)?;
            if !life.is_alive() {
                break;
            }
            self.note_hash(&life.store);
            if self.rng.chance(1, 32) {
                self.observe(&life.store)?;
            }
        }
        self.tally.add(&life.tally);
        if life.is_alive() && self.rng.chance(1, 3) {
            self.say("close");
            self.tally.count("processes that closed");
            let appended = matches!(life.store.state_hash(), Ok(Some(_)));
            let closed = life.store.close().map_err(|error| life.excuse("a close", &error));
            drop(life);
            return match closed {
                Ok(()) => self.after_close(appended).map(drop),
                Err(unexcused) => unexcused.and_then(|()| self.crash("at close", None)),
            };
        }
        // A process that is killed runs no destructor: its handles are dropped when it is dead, and can do nothing.
        if self.rng.coin() {
            self.tally.count("processes killed with all they held");
            self.crash("in its life", Some(life))
        } else {
            self.tally.count("processes that dropped the store");
            drop(life);
            self.crash("after its handles were dropped", None)
        }
    }

    pub fn begin<'a>(&mut self, store: Store, plan: &'a Plan, durable_only: bool) -> Result<Life<'a>, Error> {
        let before = (durable_only, self.faults_before);
        self.oracle.process_ended(store.report().was_clean);
        Life::begin(store, plan, Arc::clone(&self.clock), &self.disk, &mut self.oracle, before)
    }

    /// Something that will go wrong in the next requests.
    fn plan_fault(&mut self) {
        let fault = match self.rng.below(11) {
            10 => Fault::NoMemory,
            0 => Fault::Io,
            1 => Fault::NoSpace,
            2 => [Fault::TooManyFiles, Fault::NoMemory][self.rng.index(2)],
            3 | 4 => Fault::CrashBefore,
            5 | 6 => Fault::CrashMiddle,
            7 | 8 => Fault::CrashAfter,
            _ => return,
        };
        // Most requests are reads and appends: what happens to files and names has to be asked for.
        let rare = [Op::Write, Op::Sync, Op::SyncDir, Op::Create, Op::Remove, Op::SetLen];
        match self.rng.below(4) {
            0 => {
                let op = rare[self.rng.index(rare.len())];
                self.disk.fail_op_at(op, self.disk.requests_of(op) + self.rng.below(10), fault);
            }
            1 if matches!(fault, Fault::NoSpace | Fault::TooManyFiles | Fault::NoMemory) => {
                self.disk.fail_op_at(Op::Create, self.disk.requests_of(Op::Create) + self.rng.below(6), fault);
            }
            2 if self.disk.requests() == 0 => self.disk.fail_at(self.rng.below(24), fault),
            _ => self.disk.fail_at(self.disk.requests() + self.rng.below(400), fault),
        }
    }

    /// Opens with other options each time.
    pub fn open(&mut self, durable_only: bool) -> Result<Store, Error> {
        let level = if durable_only { Durability::Disk } else { Durability::Os };
        let segment =
            [64 << 10, 64 << 10, 64 << 10, 64 << 10, 64 << 10, 256 << 10, 256 << 10, 4 << 20][self.rng.index(8)];
        let interval = Duration::from_millis([1, 50, 3_000][self.rng.index(3)]);
        let handle = self.disk.attach().map_err(|_| Error::Closed)?;
        let options = Store::options().durability(level).segment_bytes_max(segment).sync_interval(interval);
        // So few that others are only counted.
        let options = options.parked_max(3, 1);
        options.index_home(self.index.clone()).open_on(Arc::new(handle), self.clock.clone())
    }

    /// Remembers the fingerprint of the state at this end of the log.
    pub fn note_hash(&mut self, store: &Store) {
        if let (Ok(stats), Ok(Some(hash))) = (store.stats(), store.state_hash()) {
            self.oracle.hashes.insert(stats.log.end.0, hash);
        }
    }

    /// Somebody who only reads sees a state that the log had, with all its messages, and changes nothing.
    fn observe(&mut self, store: &Store) -> Result<(), String> {
        let faults = self.disk.faults() > self.faults_before;
        let seen = match observe(&self.disk) {
            Ok(Some(seen)) => seen,
            Ok(None) => return Err("an observer finds no store".to_owned()),
            Err(_) if faults => return Ok(()),
            Err(error) => return Err(format!("an observer is refused: {error}")),
        };
        self.tally.count("looks of an observer");
        let known = self.oracle.hashes.get(&seen.end);
        self.tally.count_if(known.is_some(), "states that an observer saw again");
        if known.is_some_and(|known| *known != seen.hash) {
            return Err(format!("an observer sees another state at {}", seen.end));
        }
        let durable = store.stats().map(|stats| stats.log.durable.0);
        if durable.is_ok_and(|durable| seen.end > durable) {
            return Err(format!("an observer sees what is not durable, up to {}", seen.end));
        }
        if seen.unreadable > 0 && !faults {
            return Err(format!("an observer cannot read {} messages", seen.unreadable));
        }
        self.tally.more("messages that an observer read", seen.messages);
        Ok(())
    }

    /// The process dies, perhaps with the machine; recovery may die as well, up to three deep. Then everything is checked.
    fn crash(&mut self, why: &str, killed: Option<Life<'_>>) -> Result<(), String> {
        self.tally.count("crashes");
        let mut power = self.fall(why);
        drop(killed);
        for mark in ["crashes in recovery, 1 deep", "crashes in recovery, 2 deep", "crashes in recovery, 3 deep"] {
            if !self.rng.chance(1, 4) {
                break;
            }
            let fault = [Fault::CrashBefore, Fault::CrashMiddle, Fault::CrashAfter][self.rng.index(3)];
            // What a recovery writes is little and matters most.
            match self.rng.below(3) {
                0 => self.disk.fail_at(self.disk.requests() + self.rng.below(40), fault),
                1 => self.disk.fail_op_at(Op::Write, self.disk.requests_of(Op::Write) + self.rng.below(6), fault),
                _ => self.disk.fail_op_at(Op::Sync, self.disk.requests_of(Op::Sync) + self.rng.below(4), fault),
            }
            let opened = self.open(true);
            self.disk.clear_faults();
            self.tally.count_if(opened.is_err(), mark);
            power |= self.fall("in recovery");
            drop(opened);
        }
        self.check(power)
    }

    /// Kills the process, or cuts the power. Returns whether it was the power.
    fn fall(&mut self, why: &str) -> bool {
        // A sync that failed may have taken unsynced bytes out of the page cache: that is as bad as a power cut.
        let failed = self.disk.faults() - self.faults_before;
        self.faults_before = self.disk.faults();
        self.tally.count_if(failed > 0, "faults without a crash");
        self.disk.clear_faults();
        let power = self.rng.coin();
        // Not of the numbers that all else goes by.
        self.index.crash(IndexOutcome::drawn(self.rng.clone().next_u64()));
        if power {
            let pending = self.disk.pending();
            let outcome = match self.rng.index(PowerOutcome::EACH.len() + 3) {
                index if index < PowerOutcome::EACH.len() => PowerOutcome::EACH[index],
                _ => PowerOutcome::Prefix(self.rng.index(pending + 1)),
            };
            self.say(&format!("power cut {outcome:?} {why}"));
            self.tally.count("power cuts");
            self.disk.crash_power(outcome);
        } else {
            self.say(&format!("process crash {why}"));
            self.disk.crash_process();
        }
        power || failed > 0
    }

    fn count_faults(&mut self) {
        for (op, name, fault) in self.disk.faults_met() {
            self.tally.count(match fault {
                Fault::Io => "fault Io",
                Fault::NoSpace => "fault NoSpace",
                Fault::TooManyFiles => "fault TooManyFiles",
                Fault::CrashBefore => "fault CrashBefore",
                Fault::CrashMiddle => "fault CrashMiddle",
                Fault::CrashAfter => "fault CrashAfter",
                Fault::ShortRead => "fault ShortRead",
                Fault::NoMemory => "fault NoMemory",
            });
            if fault == Fault::NoSpace && op != Op::Sync {
                self.tally.count(match name.rsplit('.').next() {
                    Some("seg") => "ENOSPC: seg",
                    Some("ckp") => "ENOSPC: ckp",
                    Some("idx") => "ENOSPC: idx",
                    _ => "ENOSPC: STORE",
                });
            }
        }
    }
}
