//! Events of a user keep their order, on four partitions and with many workers.
//!
//! ```text
//! cargo run -p millpond-events --example ordered_bus
//! ```
//!
//! The subject of an event is the user. Events of one subject are in one partition, and a subscriber handles them one after another,
//! whatever number of workers it has. Events of different users are handled side by side.

#![allow(clippy::print_stdout, reason = "this program talks to a person at a terminal")]

#[path = "support/ledger.rs"]
mod ledger;

use ledger::{Entry, Ledger, check};
use millpond::{Durability, Store};
use millpond_events::{Bus, Encoded, Event, EventType, Failure, Incoming, Variant, json};
use std::error::Error;
use std::time::Duration;

const USERS: u32 = 20;
const STEPS: u32 = 25;
const LIMIT: Duration = Duration::from_secs(30);

struct Step(u32);

impl EventType for Step {
    const VARIANTS: &'static [Variant<Self>] = &[Variant::new("user.stepped", 1, |data| json(data).map(Self))];

    fn encode(&self) -> Encoded {
        Encoded::json("user.stepped", 1, &self.0)
    }
}

/// What should be handled, and what was.
fn run() -> Result<(Vec<Entry>, Vec<Entry>), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let store = Store::options().durability(Durability::Os).open(dir.path().join("store"))?;
    let bus = Bus::builder(&store).partitions(4).open()?;
    let ledger = Ledger::default();
    let written = ledger.clone();
    let walker = bus
        .subscriber("walker")
        .workers(8)
        .on("user.*", move |step: &Incoming<Step>| {
            let user = step.subject().ok_or_else(|| Failure::permanent("no user"))?;
            written.write("walker", user, step.data().0.to_string());
            Ok(())
        })
        .start()?;
    let mut expected = Vec::new();
    for step in 0..STEPS {
        for user in 0..USERS {
            let user = format!("user-{user}");
            bus.publish(Event::new(Step(step)).with_subject(&user))?;
            expected.push(Entry::new("walker", user, step.to_string()));
        }
    }
    walker.wait(LIMIT, |stats| stats.handled >= expected.len() as u64);
    let report = bus.shutdown(LIMIT);
    println!("{} events, {} handlers unfinished", expected.len(), report.unfinished);
    Ok((expected, ledger.entries()))
}

fn main() -> Result<(), Box<dyn Error>> {
    let (expected, seen) = run()?;
    check(&expected, &seen)?;
    println!("every user's events were handled once, and in order");
    Ok(())
}

#[test]
fn the_check_finds_what_is_wrong() {
    let (expected, seen) = run().unwrap();
    ledger::assert_check_can_fail(&expected, &seen);
}
