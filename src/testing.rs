//! A machine for tests of applications: a disk and a clock in memory, crashes, power failures, and time that passes when told.
//!
//! ```
//! use millpond::testing::Machine;
//! use std::time::Duration;
//!
//! # fn main() -> millpond::Result<()> {
//! let mut machine = Machine::new(7);
//! let store = machine.open()?;
//! let orders = store.topic("orders").open()?;
//! let kitchen = orders.group("kitchen").open()?;
//! orders.publish("two pizzas")?;
//! drop(kitchen.receive(Duration::ZERO)?); // a handler that was interrupted
//!
//! machine.power_cut();
//! let store = machine.open()?;
//! let kitchen = store.topic("orders").open()?.group("kitchen").open()?;
//! let mut cooked = Vec::new();
//! machine.drain(&kitchen, |delivery| {
//!     cooked.push(delivery.payload().to_vec());
//!     Ok::<(), String>(())
//! })?;
//! assert_eq!(cooked, [b"two pizzas"]);
//! # Ok(())
//! # }
//! ```
//!
//! The store is the one that ships; only the disk and the clock are simulated. Equal seeds and equal calls give equal outcomes, so a test
//! that fails once fails again. Never here: what the simulation itself is made of.

use crate::api::{Delivery, Group, Store, StoreOptions};
use crate::clock::{Clock, SimClock};
use crate::disk::sim::{Fault, Op, PowerOutcome, SimDisk};
use crate::error::{Error, Result};
use crate::ids::WallMs;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// When the clock of a new machine begins: in the year 2027.
const WALL_MS: u64 = 1_800_000_000_000;

/// How long time runs on at least until the background jobs run again, and how often they run in one advance at most.
const STEP_MS: u64 = 50;
const STEPS_MAX: u64 = 200;

/// A hundred years.
const ADVANCE_MS_MAX: u64 = 100 * 366 * 86_400_000;

/// How often [`Machine::drain`] calls the handler at most.
const CALLS_MAX: u64 = 1_000_000;

/// How long [`Machine::drain`] lets time pass at once: until something is due, this doubles from the first to the second.
const WAIT_MS_MIN: u64 = 10;
const WAIT_MS_MAX: u64 = 3_600_000;

/// A simulated machine with one directory and one process, which has a store open or not.
///
/// A store that was opened here has no background threads: [`Machine::advance`] does their work. A call that waits for a message waits by
/// the real clock, so receive with [`Duration::ZERO`], or let [`Machine::drain`] do it. A future that waits for a sync is ready once
/// [`Machine::advance`] has synced, so poll it, advance, and poll again. Threads of futures and subscriptions are not stopped by a
/// crash: they find a store that answers with errors.
#[derive(Debug)]
pub struct Machine {
    disk: SimDisk,
    clock: Arc<SimClock>,
    store: Option<Store>,
    seed: u64,
    /// How many crashes there were: each is decided by a seed of its own.
    crashes: u64,
}

/// What [`Machine::drain`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Deliveries that the handler accepted.
    pub handled: u64,
    /// Calls of the handler that failed or panicked.
    pub failed: u64,
    /// Messages that became dead letters meanwhile.
    pub dead: u64,
}

impl Machine {
    /// A machine with an empty disk. What chance decides, as which bytes survive a power failure, is decided by the seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let clock = Arc::new(SimClock::new(WallMs(WALL_MS)));
        Self { disk: SimDisk::new(seed), clock, store: None, seed, crashes: 0 }
    }

    /// Opens the store with default options, creating it where there is none.
    ///
    /// # Errors
    /// As [`Store::open`]; `Locked` while the handles of a store that was opened before are still there.
    pub fn open(&mut self) -> Result<Store> {
        self.open_with(Store::options())
    }

    /// Opens the store with options.
    ///
    /// # Errors
    /// As [`Machine::open`].
    pub fn open_with(&mut self, options: StoreOptions) -> Result<Store> {
        if self.store.as_ref().is_some_and(Store::has_other_handles) {
            return Err(Error::Locked { path: PathBuf::from("the simulated disk"), pid: None });
        }
        self.store = None;
        let disk = self.disk.attach().map_err(|error| Error::io("attach the simulated disk", error))?;
        let store = options.open_on(Arc::new(disk), Arc::clone(&self.clock) as Arc<dyn Clock>)?;
        self.store = Some(store.clone());
        Ok(store)
    }

    /// Lets time pass, at most a hundred years at once, and the background jobs of the store run meanwhile: syncs, checkpoints, segments that are not needed any more.
    ///
    /// # Errors
    /// Those that stop the store.
    pub fn advance(&mut self, duration: Duration) -> Result<()> {
        let mut left = u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).min(ADVANCE_MS_MAX);
        let step = (left / STEPS_MAX).max(STEP_MS);
        while left > 0 {
            let ms = left.min(step);
            self.clock.advance(ms);
            left -= ms;
            self.store.as_ref().map_or(Ok(()), Store::tick)?;
        }
        Ok(())
    }

    /// The time of day on this machine.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.clock.wall().get())
    }

    /// Sets the time of day, as an operator or a time server does. No other clock moves.
    pub fn set_now(&self, now: SystemTime) {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.clock.set_wall(WallMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)));
    }

    /// The process dies, as by `kill -9`: handles answer with errors from now on, and what they did not do yet they never do. What
    /// was written is there, synced or not.
    pub fn crash(&mut self) {
        self.disk.crash_process();
        self.store = None;
    }

    /// The power goes, and comes back: the process dies, and of what was not synced any part is lost or torn, as the seed decides.
    pub fn power_cut(&mut self) {
        self.crash();
        self.crashes += 1;
        let chosen = self.seed.wrapping_add(self.crashes);
        self.disk.reseed(chosen);
        self.disk.crash_power(PowerOutcome::EACH[(chosen % PowerOutcome::EACH.len() as u64) as usize]);
    }

    /// As [`Machine::power_cut`], but everything that was not synced is lost.
    pub fn power_cut_losing_all(&mut self) {
        self.crash();
        self.disk.crash_power(PowerOutcome::LoseAll);
    }

    /// Limits what all files together may take. `None`: no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk.set_capacity(bytes);
    }

    /// The next sync fails, which stops the store.
    pub fn fail_next_sync(&self) {
        self.disk.fail_op_at(Op::Sync, self.disk.requests_of(Op::Sync), Fault::Io);
    }

    /// Gives everything that the group has to the handler, until nothing is left: what it fails or panics with is given back and tried
    /// again as the group's options say, for which time passes here.
    ///
    /// # Errors
    /// The store's. `LimitReached` after a million calls of the handler: it fails for ever, and the group has no `max_attempts`.
    pub fn drain<E: Display>(
        &mut self,
        group: &Group,
        mut handler: impl FnMut(&Delivery) -> std::result::Result<(), E>,
    ) -> Result<Drained> {
        let dead_before = self.in_progress(group)?.1;
        let mut drained = Drained::default();
        let mut wait = WAIT_MS_MIN;
        loop {
            if let Some(delivery) = group.receive(Duration::ZERO)? {
                wait = WAIT_MS_MIN;
                match catch_unwind(AssertUnwindSafe(|| handler(&delivery))) {
                    Ok(Ok(())) => {
                        delivery.ack()?;
                        drained.handled += 1;
                    }
                    Ok(Err(error)) => {
                        delivery.nack(error)?;
                        drained.failed += 1;
                    }
                    Err(_) => {
                        delivery.nack("the handler panicked")?;
                        drained.failed += 1;
                    }
                }
                if drained.handled + drained.failed >= CALLS_MAX {
                    return Err(Error::LimitReached { what: "calls of a handler" });
                }
                continue;
            }
            let (unsettled, dead) = self.in_progress(group)?;
            if unsettled == 0 {
                drained.dead = dead.saturating_sub(dead_before);
                return Ok(drained);
            }
            self.advance(Duration::from_millis(wait))?;
            wait = (wait * 2).min(WAIT_MS_MAX);
        }
    }

    /// Of a group how many messages are not settled, and how many became dead letters since the store was opened.
    fn in_progress(&self, group: &Group) -> Result<(u64, u64)> {
        let Some(store) = &self.store else { return Err(Error::Closed) };
        let stats = store.stats()?;
        let found = stats.topics.iter().find(|topic| topic.name == group.topic());
        let found = found.and_then(|topic| topic.groups.iter().find(|stats| stats.name == group.name()));
        found.map(|stats| (stats.lag, stats.since_open.dead)).ok_or(Error::Removed { what: "group" })
    }
}

/// Lets `run` happen on new machines again and again, and each time the process die at a later request to the disk: before it, within it,
/// or after it. After each death `check` looks at what is left, and may open the store. Ends with a run that is not interrupted,
/// which must succeed and is checked as well. Returns the number of crashes.
///
/// ```
/// use millpond::testing::crash_at_each_request;
///
/// let crashes = crash_at_each_request(
///     7,
///     |machine| {
///         let orders = machine.open()?.topic("orders").open()?;
///         orders.publish("two pizzas").map(drop)
///     },
///     |machine| {
///         let orders = machine.open().unwrap().topic("orders").open().unwrap();
///         orders.publish("one soup").unwrap(); // whatever was interrupted, the store opens and goes on
///     },
/// );
/// assert!(crashes > 10);
/// ```
///
/// # Panics
/// Where `run` fails or panics without a crash, or `check` panics: the message says at which request. What `run` does or says after a
/// crash counts for nothing.
pub fn crash_at_each_request(
    seed: u64,
    mut run: impl FnMut(&mut Machine) -> Result<()>,
    mut check: impl FnMut(&mut Machine),
) -> u64 {
    for request in 0.. {
        for fault in [Fault::CrashBefore, Fault::CrashMiddle, Fault::CrashAfter] {
            let mut machine = Machine::new(seed.wrapping_add(request));
            machine.disk.fail_at(request, fault);
            let done = catch_unwind(AssertUnwindSafe(|| run(&mut machine)));
            let is_crash = |fault: &Fault| matches!(fault, Fault::CrashBefore | Fault::CrashMiddle | Fault::CrashAfter);
            let is_interrupted = machine.disk.faults_met().iter().any(|(_, _, fault)| is_crash(fault));
            machine.crash();
            machine.disk.clear_faults();
            match done {
                // What a dead process says nobody hears.
                _ if is_interrupted => {}
                Ok(Ok(())) => {}
                Ok(Err(error)) => panic!("without a crash: {error}"),
                Err(panic) => resume_unwind(panic),
            }
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(&mut machine))) {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
                panic!("after a crash at request {request} ({fault:?}): {text}");
            }
            if !is_interrupted {
                return request.saturating_mul(3);
            }
        }
    }
    0
}
