//! Retries that are counted and timed: "3 retries", "3 attempts", a dead letter, and a redrive.
//!
//! ```text
//! cargo run -p millpond-events --example resilient_handler
//! ```
//!
//! The clock is simulated, so the delays are checked to the millisecond and nothing waits. Two subscribers read "three" in the two ways
//! that are in use. With 3 retries a handler runs four times, after 0, 2, 4 and 8 seconds. With 3 attempts it runs three times.

#![allow(clippy::print_stdout, reason = "this program talks to a person at a terminal")]

#[path = "support/ledger.rs"]
mod ledger;

use ledger::{Entry, Ledger, check};
use millpond::simulation::WallMs;
use millpond::simulation::{Clock as _, SimClock, SimDisk};
use millpond::{Backoff, Durability, Group, Store};
use millpond_events::{Bus, Clock, Encoded, EventType, Failure, Incoming, Subscriber, Variant};
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

struct Charge;

impl EventType for Charge {
    const VARIANTS: &'static [Variant<Self>] = &[Variant::new("card.charged", 1, |_| Ok(Self))];

    fn encode(&self) -> Encoded {
        Encoded::json("card.charged", 1, &())
    }
}

/// The clock of the simulation, for the store and the bus.
#[derive(Debug)]
struct Simulated(Arc<SimClock>);

impl Clock for Simulated {
    fn wall(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0.wall().0)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.monotonic().0)
    }
}

/// A subscriber that fails while the bank is down, and writes how many milliseconds after the publish it runs.
fn charging(
    bus: &Bus,
    name: &'static str,
    attempts: u32,
    (ledger, clock, is_up): (&Ledger, &Arc<SimClock>, &Arc<AtomicBool>),
) -> millpond_events::Result<Subscriber> {
    let (ledger, clock, is_up, began) = (ledger.clone(), Arc::clone(clock), Arc::clone(is_up), clock.monotonic().0);
    bus.subscriber(name)
        .max_attempts(attempts)
        .backoff(Backoff::exponential(Duration::from_secs(2)).jitter(false))
        .on("card.charged", move |charge: &Incoming<Charge>| {
            let after_ms = clock.monotonic().0 - began;
            ledger.write(name, "charge", format!("attempt {} after {after_ms} ms", charge.attempt()));
            if is_up.load(Ordering::Relaxed) { Ok(()) } else { Err(Failure::retry("the bank does not answer")) }
        })
        .open()
}

/// The attempts and the last error of the only dead letter.
fn dead_letter(group: &Group) -> Result<String, Box<dyn Error>> {
    let dead = group.dead_letters()?.next().ok_or("there is a dead letter")??;
    let reason = dead.history().last().map(|failure| failure.text.clone()).unwrap_or_default();
    Ok(format!("{} attempts, the last: {reason}", dead.attempts()))
}

/// What should have happened, and what did.
fn run() -> Result<(Vec<Entry>, Vec<Entry>), Box<dyn Error>> {
    let (disk, clock) = (SimDisk::new(1), Arc::new(SimClock::new(WallMs(1_800_000_000_000))));
    let options = Store::options().durability(Durability::Os);
    let store = options.open_on(Arc::new(disk.attach()?), clock.clone())?;
    let bus = Bus::builder(&store).clock(Arc::new(Simulated(Arc::clone(&clock)))).open()?;
    let (ledger, is_up) = (Ledger::default(), Arc::new(AtomicBool::new(false)));
    let subscribers = [
        charging(&bus, "three-retries", 4, (&ledger, &clock, &is_up))?,
        charging(&bus, "three-attempts", 3, (&ledger, &clock, &is_up))?,
    ];
    bus.publish(Charge)?;
    // A tenth of a second at a time, for twenty seconds.
    for _ in 0..200 {
        for subscriber in &subscribers {
            subscriber.drain()?;
        }
        clock.advance(100);
    }
    let topic = store.topic("events").open()?;
    for subscriber in &subscribers {
        let group = topic.group(subscriber.name()).open()?;
        ledger.write("operator", subscriber.name(), dead_letter(&group)?);
        is_up.store(true, Ordering::Relaxed);
        ledger.write("operator", subscriber.name(), format!("{} redriven", group.redrive_all()?));
        subscriber.drain()?;
        is_up.store(false, Ordering::Relaxed);
    }
    let attempts = |name, runs: &[(u32, u32)]| {
        let text = |(attempt, ms): &(u32, u32)| Entry::new(name, "charge", format!("attempt {attempt} after {ms} ms"));
        runs.iter().map(text).collect::<Vec<_>>()
    };
    let mut expected = attempts("three-retries", &[(1, 0), (2, 2000), (3, 6000), (4, 14_000), (1, 20_000)]);
    expected.extend(attempts("three-attempts", &[(1, 0), (2, 2000), (3, 6000), (1, 20_000)]));
    for (name, count) in [("three-retries", 4), ("three-attempts", 3)] {
        expected.push(Entry::new("operator", name, format!("{count} attempts, the last: the bank does not answer")));
        expected.push(Entry::new("operator", name, "1 redriven"));
    }
    Ok((expected, ledger.entries()))
}

fn main() -> Result<(), Box<dyn Error>> {
    let (expected, seen) = run()?;
    seen.iter().for_each(|entry| println!("{}: {}", entry.subscriber, entry.what));
    check(&expected, &seen)?;
    println!("all as it should be");
    Ok(())
}

#[test]
fn the_check_finds_what_is_wrong() {
    let (expected, seen) = run().unwrap();
    ledger::assert_check_can_fail(&expected, &seen);
}
