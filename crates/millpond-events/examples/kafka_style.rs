//! What a program with a Kafka client does: keys, headers, consumer groups, and a path for what cannot be handled.
//!
//! ```text
//! cargo run -p millpond-events --example kafka_style
//! ```
//!
//! A publisher sends orders with a key and a header. The groups `inventory`, `payment` and `notification` each get all of them, with
//! handlers by type. Payment refuses one order for good: it becomes a dead letter, and the others go on. An operator reads
//! the dead letter, raises the limit, and redrives it.

#![allow(clippy::print_stdout, reason = "this program talks to a person at a terminal")]

#[path = "support/ledger.rs"]
mod ledger;

use ledger::{Entry, Ledger, check};
use millpond::{Durability, Store};
use millpond_events::{Bus, Encoded, Event, EventType, Failure, Incoming, Variant, json};
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const ORDERS: u32 = 40;
const LIMIT: Duration = Duration::from_secs(30);

enum Order {
    Placed { amount: u32 },
    Cancelled,
}

impl EventType for Order {
    const VARIANTS: &'static [Variant<Self>] = &[
        Variant::new("order.placed", 1, |data| json(data).map(|amount| Self::Placed { amount })),
        Variant::new("order.cancelled", 1, |_| Ok(Self::Cancelled)),
    ];

    fn encode(&self) -> Encoded {
        match self {
            Self::Placed { amount } => Encoded::json("order.placed", 1, amount),
            Self::Cancelled => Encoded::json("order.cancelled", 1, &()),
        }
    }
}

/// A handler that writes the type of each event to the ledger.
fn writing(
    ledger: &Ledger,
    name: &'static str,
) -> impl Fn(&Incoming<Order>) -> Result<(), Failure> + Send + Sync + 'static {
    let ledger = ledger.clone();
    move |order| {
        // The key and the headers of Kafka are the subject and the extensions of the event.
        if order.extension("tenant") != Some("blue") {
            return Err(Failure::permanent("another tenant"));
        }
        ledger.write(name, order.subject().unwrap_or_default(), order.event_type());
        Ok(())
    }
}

/// What should be handled, and what was.
fn run() -> Result<(Vec<Entry>, Vec<Entry>), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let store = Store::options().durability(Durability::Os).open(dir.path().join("store"))?;
    let bus = Bus::builder(&store).topic("orders").partitions(4).source("/shop").open()?;
    let ledger = Ledger::default();
    let credit = Arc::new(AtomicU32::new(1000));

    let inventory = bus.subscriber("inventory").workers(2);
    let inventory = inventory
        .on("order.placed", writing(&ledger, "inventory"))
        .on("order.cancelled", writing(&ledger, "inventory"))
        .start()?;
    let notification = bus.on("order.placed", "notification", writing(&ledger, "notification"))?;
    let (write, limit) = (writing(&ledger, "payment"), Arc::clone(&credit));
    let payment = bus.on("order.placed", "payment", move |order: &Incoming<Order>| match order.data() {
        Order::Placed { amount } if *amount > limit.load(Ordering::Relaxed) => {
            Err(Failure::permanent("over the limit"))
        }
        Order::Placed { .. } | Order::Cancelled => write(order),
    })?;

    let mut expected = Vec::new();
    for number in 0..ORDERS {
        let key = format!("order-{number}");
        let amount = if number == 7 { 5000 } else { 10 * number };
        let event = |order| Event::new(order).with_subject(&key).with_extension("tenant", "blue");
        bus.publish_all([event(Order::Placed { amount }), event(Order::Cancelled)])?;
        expected.push(Entry::new("inventory", &key, "order.placed"));
        expected.push(Entry::new("inventory", &key, "order.cancelled"));
        expected.push(Entry::new("notification", &key, "order.placed"));
        expected.push(Entry::new("payment", &key, "order.placed"));
    }
    inventory.wait(LIMIT, |stats| stats.handled >= 2 * u64::from(ORDERS));
    notification.wait(LIMIT, |stats| stats.handled >= u64::from(ORDERS));
    payment.wait(LIMIT, |stats| stats.handled + stats.rejected >= u64::from(ORDERS));

    // The path for dead letters: nothing else waited for the order that payment refused.
    let group = store.topic("orders").open()?.group("payment").open()?;
    for dead in group.dead_letters()? {
        let dead = dead?;
        let reason = dead.history().last().map(|failure| failure.text.clone()).unwrap_or_default();
        println!("payment refused {:?}: {reason}", dead.header("ce_subject").map(String::from_utf8_lossy));
        credit.store(5000, Ordering::Relaxed);
        dead.redrive()?;
    }
    payment.wait(LIMIT, |stats| stats.handled >= u64::from(ORDERS));
    let report = bus.shutdown(LIMIT);
    println!("{} events for 3 groups, {} handlers unfinished", 2 * ORDERS, report.unfinished);
    Ok((expected, ledger.entries()))
}

fn main() -> Result<(), Box<dyn Error>> {
    let (expected, seen) = run()?;
    check(&expected, &seen)?;
    println!("every group has each of its events once");
    Ok(())
}

#[test]
fn the_check_finds_what_is_wrong() {
    let (expected, seen) = run().unwrap();
    ledger::assert_check_can_fail(&expected, &seen);
}
