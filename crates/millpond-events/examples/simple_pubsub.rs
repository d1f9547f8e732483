//! The smallest program with a bus: one event, one subscriber.
//!
//! ```text
//! cargo run -p millpond-events --example simple_pubsub
//! ```

#![allow(clippy::print_stdout, reason = "this program talks to a person at a terminal")]

use millpond::Store;
use millpond_events::{Bus, Encoded, EventType, Incoming, Variant, json};
use std::error::Error;
use std::time::Duration;

struct Greeting(String);

impl EventType for Greeting {
    const VARIANTS: &'static [Variant<Self>] = &[Variant::new("greeting.sent", 1, |data| json(data).map(Self))];

    fn encode(&self) -> Encoded {
        Encoded::json("greeting.sent", 1, &self.0)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let bus = Bus::open(&Store::open(dir.path().join("store"))?)?;
    let greeter = bus.on("greeting.*", "greeter", |greeting: &Incoming<Greeting>| {
        println!("{} says {:?}", greeting.source(), greeting.data().0);
        Ok(())
    })?;
    bus.publish(Greeting("hello".to_owned()))?;
    let is_handled = greeter.wait(Duration::from_secs(10), |stats| stats.handled == 1);
    let report = bus.shutdown(Duration::from_secs(10));
    if is_handled && report.unfinished == 0 { Ok(()) } else { Err("nobody heard the greeting".into()) }
}
