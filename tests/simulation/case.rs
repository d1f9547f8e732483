//! One case: lives, crashes, and the checks after each.

use crate::history::{Life, Plan, Weights};
use crate::oracle::Oracle;
use millpond::ids::WallMs;
use millpond::simulation::SimClock;
use millpond::simulation::{Fault, PowerOutcome, Rng, SimDisk};
use millpond::{Durability, Error, Store};
use std::fmt;
use std::sync::Arc;

/// Counts of what happened: a run that passes because nothing happened has failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub crashes: u64,
    pub power_cuts: u64,
    pub in_recovery: u64,
    pub faults: u64,
    pub torn_tails: u64,
    pub copied: u64,
    pub sent: u64,
    pub acked: u64,
    pub hash_matches: u64,
    pub trace_hash: u64,
}

impl Outcome {
    pub fn add(&mut self, other: &Self) {
        self.crashes += other.crashes;
        self.power_cuts += other.power_cuts;
        self.in_recovery += other.in_recovery;
        self.faults += other.faults;
        self.torn_tails += other.torn_tails;
        self.copied += other.copied;
        self.sent += other.sent;
        self.acked += other.acked;
        self.hash_matches += other.hash_matches;
    }

    pub fn require_something_happened(&self, cases: u64) {
        let each = [
            ("crashes", self.crashes, cases),
            ("power cuts", self.power_cuts, cases / 3),
            ("crashes in recovery", self.in_recovery, cases / 20),
            ("faults without a crash", self.faults, cases / 20),
            ("torn tails", self.torn_tails, cases / 20),
            ("copied suffixes", self.copied, cases / 20),
            ("messages", self.sent, cases * 5),
            ("acks", self.acked, cases),
            ("states compared", self.hash_matches, cases / 4),
        ];
        for (what, count, least) in each {
            assert!(count >= least, "only {count} {what}, and {least} are wanted");
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} crashes ({} power cuts, {} inside recovery), {} faults, {} torn tails, {} copied suffixes, {} messages, {} acks, {} states compared",
            self.crashes,
            self.power_cuts,
            self.in_recovery,
            self.faults,
            self.torn_tails,
            self.copied,
            self.sent,
            self.acked,
            self.hash_matches
        )
    }
}

pub struct Case {
    seed: u64,
    steps: u64,
    traced: bool,
}

/// What lasts through a case.
struct World {
    disk: SimDisk,
    clock: Arc<SimClock>,
    rng: Rng,
    oracle: Oracle,
    outcome: Outcome,
    plan: Plan,
    traced: bool,
    faults_before: u64,
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
        let mut world = World {
            disk: SimDisk::new(rng.next_u64()),
            clock: Arc::new(SimClock::new(WallMs(1_800_000_000_000))),
            oracle: Oracle::default(),
            outcome: Outcome::default(),
            plan: Plan { topics, groups },
            traced: self.traced,
            faults_before: 0,
            rng,
        };
        if self.traced {
            world.disk.keep_trace();
        }
        let result = world.live(self.steps);
        if self.traced {
            world.disk.trace().iter().for_each(|line| println!("{line}"));
        }
        world.outcome.trace_hash = world.disk.trace_hash();
        result.map(|()| world.outcome)
    }
}

impl World {
    /// A few lives, each ended by a crash or a close, and then the last checks.
    fn live(&mut self, steps: u64) -> Result<(), String> {
        let lives = 1 + self.rng.below(3);
        for life in 0..lives {
            self.one_life(steps / lives + 1).map_err(|what| format!("in life {life}: {what}"))?;
        }
        self.outcome.sent += self.oracle.sent.len() as u64;
        self.outcome.acked += self.oracle.acked.len() as u64;
        self.last_checks()
    }

    fn say(&self, what: &str) {
        if self.traced {
            println!("-- request {}: {what}", self.disk.requests());
        }
    }

    fn one_life(&mut self, steps: u64) -> Result<(), String> {
        let disk_level = self.rng.coin();
        let plan = self.plan.clone();
        self.plan_fault();
        let store = match self.open(disk_level) {
            Ok(store) => store,
            Err(error) => return self.crash(&format!("at open: {error}"), None),
        };
        let mut life = match Life::begin(store, &plan, Arc::clone(&self.clock)) {
            Ok(life) => life,
            Err(error) => return self.crash(&format!("at begin: {error}"), None),
        };
        let weights = Weights::swarm(&mut self.rng);
        for _ in 0..steps {
            life.step(&mut self.oracle, &weights, &mut self.rng)?;
            if !life.is_alive() {
                break;
            }
            self.note_hash(&life.store);
        }
        if life.is_alive() && self.rng.chance(1, 3) {
            self.say("close");
            let appended = matches!(life.store.state_hash(), Ok(Some(_)));
            let closed = life.store.close();
            drop(life);
            return if closed.is_ok() { self.after_close(appended) } else { self.crash("at close", None) };
        }
        // A process that is killed runs no destructor: its handles are dropped when it is dead, and can do nothing.
        let killed = self.rng.coin().then_some(life);
        self.crash("in its life", killed)
    }

    /// Something that will go wrong in the next requests.
    fn plan_fault(&mut self) {
        let fault = match self.rng.below(10) {
            0 => Fault::Io,
            1 => Fault::NoSpace,
            2 => Fault::TooManyFiles,
            3 | 4 => Fault::CrashBefore,
            5 | 6 => Fault::CrashMiddle,
            7 | 8 => Fault::CrashAfter,
            _ => return,
        };
        self.disk.fail_at(self.disk.requests() + self.rng.below(400), fault);
    }

    fn open(&mut self, disk_level: bool) -> Result<Store, Error> {
        let level = if disk_level { Durability::Disk } else { Durability::Os };
        let segment = [64 << 10, 64 << 10, 256 << 10, 4 << 20][self.rng.index(4)];
        let handle = self.disk.attach().map_err(|_| Error::Closed)?;
        Store::options().durability(level).segment_bytes_max(segment).open_on(Arc::new(handle), self.clock.clone())
    }

    /// Remembers the fingerprint of the state at this end of the log.
    fn note_hash(&mut self, store: &Store) {
        if let (Ok(stats), Ok(Some(hash))) = (store.stats(), store.state_hash()) {
            self.oracle.hashes.insert(stats.log.end.0, hash);
        }
    }

    /// The process dies, perhaps with the machine; recovery may die as well, up to three deep. Then everything is checked.
    fn crash(&mut self, why: &str, killed: Option<Life<'_>>) -> Result<(), String> {
        self.outcome.crashes += 1;
        let mut power = self.fall(why);
        drop(killed);
        for _ in 0..3 {
            if !self.rng.chance(1, 6) {
                break;
            }
            let fault = [Fault::CrashBefore, Fault::CrashMiddle, Fault::CrashAfter][self.rng.index(3)];
            self.disk.fail_at(self.disk.requests() + self.rng.below(40), fault);
            let opened = self.open(true);
            self.disk.clear_faults();
            self.outcome.in_recovery += u64::from(opened.is_err());
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
        self.outcome.faults += failed.min(1);
        self.disk.clear_faults();
        let power = self.rng.coin();
        if power {
            let pending = self.disk.pending();
            let outcome = match self.rng.index(PowerOutcome::EACH.len() + 3) {
                index if index < PowerOutcome::EACH.len() => PowerOutcome::EACH[index],
                _ => PowerOutcome::Prefix(self.rng.index(pending + 1)),
            };
            self.say(&format!("power cut {outcome:?} {why}"));
            self.outcome.power_cuts += 1;
            self.disk.crash_power(outcome);
        } else {
            self.say(&format!("process crash {why}"));
            self.disk.crash_process();
        }
        power || failed > 0
    }

    /// A close by a process that appended leaves a clean store; one that did not leaves it as it was.
    fn after_close(&mut self, appended: bool) -> Result<(), String> {
        self.disk.clear_faults();
        let store = self.open(true).map_err(|error| format!("after a clean close: {error}"))?;
        if appended && (!store.report().was_clean || store.report().dropped_bytes > 0) {
            return Err(format!("a clean close was not seen as one: {:?}", store.report()));
        }
        let end = store.report().end.0;
        drop(store);
        self.oracle.recovered(end, false)
    }

    /// Opens what a crash left and compares it with what was promised.
    fn check(&mut self, power: bool) -> Result<(), String> {
        let store = self.open(true).map_err(|error| format!("after a crash: {error}"))?;
        let report = store.report().clone();
        self.outcome.torn_tails += u64::from(report.dropped_bytes > 0);
        self.outcome.copied += u64::from(report.copied_bytes > 0);
        self.oracle.recovered(report.end.0, power)?;
        if let Some(expected) = self.oracle.hashes.get(&report.end.0) {
            self.outcome.hash_matches += 1;
            if *expected != report.state_hash {
                return Err(format!("the state at {} is not what it was there", report.end));
            }
        }
        drop(store);
        // Opening again changes nothing.
        let again = self.open(false).map_err(|error| format!("opening again: {error}"))?;
        if (again.report().end, again.report().state_hash) != (report.end, report.state_hash) {
            return Err("opening twice gives two stores".to_owned());
        }
        drop(again);
        self.drain_copy(false)?;
        self.drain_copy(true)
    }

    /// Drains a copy of the machine, perhaps without its derived files: everything must be there, once.
    fn drain_copy(&mut self, without_derived: bool) -> Result<(), String> {
        let disk = self.disk.snapshot();
        if without_derived {
            for file in disk.files().into_iter().filter(|file| file.name.ends_with(".idx")) {
                disk.remove_file(&file.name);
            }
        }
        let mut copy = World {
            disk,
            clock: Arc::new(SimClock::new(WallMs(1_900_000_000_000))),
            rng: self.rng.clone(),
            oracle: self.oracle.clone(),
            outcome: Outcome::default(),
            plan: self.plan.clone(),
            traced: false,
            faults_before: 0,
        };
        let what = if without_derived { "without index files" } else { "in a copy" };
        let store = copy.open(without_derived).map_err(|error| format!("{what}: {error}"))?;
        let mut life =
            Life::begin(store, &self.plan, Arc::clone(&copy.clock)).map_err(|error| format!("{what}: {error}"))?;
        life.drain(&mut copy.oracle).map_err(|error| format!("{what}: {error}"))?;
        let appended = matches!(life.store.state_hash(), Ok(Some(_)));
        let closed = life.store.close();
        drop(life);
        closed.map_err(|error| format!("{what}, closing: {error}"))?;
        copy.after_close(appended).map_err(|error| format!("{what}: {error}"))
    }

    fn last_checks(&mut self) -> Result<(), String> {
        self.disk.clear_faults();
        self.check(false)
    }
}
