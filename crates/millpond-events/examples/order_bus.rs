//! Orders as events of a stream: an append is a publish, and a read model follows on the bus.
//!
//! ```text
//! cargo run -p millpond-events --example order_bus
//! ```
//!
//! Commands append to the stream of an order under the version that they have read, so of two that race one fails. The topic of the
//! streams is the topic of the bus: the subscriber `read-model` gets each event that was appended, in order, and keeps how far each order
//! is.

#![allow(clippy::print_stdout, reason = "this program talks to a person at a terminal")]

#[path = "support/ledger.rs"]
mod ledger;

use ledger::{Entry, Ledger, check};
use millpond::{Durability, Expected, Message, Store, Topic};
use millpond_events::{Bus, Encoded, Event, EventType, Failure, Incoming, Outgoing, Variant, json};
use std::error::Error;
use std::time::Duration;

const ORDERS: u64 = 50;
const LIMIT: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Order {
    Placed(u64),
    Paid,
    Shipped,
}

impl EventType for Order {
    const VARIANTS: &'static [Variant<Self>] = &[
        Variant::new("order.placed", 1, |data| json(data).map(Self::Placed)),
        Variant::new("order.paid", 1, |_| Ok(Self::Paid)),
        Variant::new("order.shipped", 1, |_| Ok(Self::Shipped)),
    ];

    fn encode(&self) -> Encoded {
        match self {
            Self::Placed(amount) => Encoded::json("order.placed", 1, amount),
            Self::Paid => Encoded::json("order.paid", 1, &()),
            Self::Shipped => Encoded::json("order.shipped", 1, &()),
        }
    }
}

/// Appends an event to the stream of the order, which publishes it. A stream gives its events its own key, and no other.
fn append(orders: &Topic, order: &str, expected: Expected, event: Order) -> Result<(), Box<dyn Error>> {
    let event = Event::new(event).with_source("/shop").with_subject(order);
    let wire = Outgoing::from(event).to_message()?;
    let message = Message::new(wire.payload);
    let message = wire.headers.into_iter().fold(message, |message, (name, value)| message.header(name, value));
    orders.stream(order)?.append(expected, [message])?;
    Ok(())
}

/// What should be handled, and what was.
fn run() -> Result<(Vec<Entry>, Vec<Entry>), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let store = Store::options().durability(Durability::Os).open(dir.path().join("store"))?;
    let orders = store.topic("orders").partitions(4).streams().open()?;
    let bus = Bus::builder(&store).topic("orders").open()?;
    let ledger = Ledger::default();
    let written = ledger.clone();
    let read_model = bus
        .subscriber("read-model")
        .workers(4)
        .on("order.*", move |event: &Incoming<Order>| {
            let order = event.subject().ok_or_else(|| Failure::permanent("no order"))?;
            written.write("read-model", order, format!("{:?}", event.data()));
            Ok(())
        })
        .start()?;
    let mut expected = Vec::new();
    for number in 0..ORDERS {
        let order = format!("order-{number}");
        for (version, event) in (0..).zip([Order::Placed(number), Order::Paid, Order::Shipped]) {
            let before = if version == 0 { Expected::NoStream } else { Expected::Version(version - 1) };
            append(&orders, &order, before, event)?;
            expected.push(Entry::new("read-model", &order, format!("{event:?}")));
            // Another command that has read the same version comes too late.
            if append(&orders, &order, before, Order::Paid).is_ok() {
                return Err("two commands appended under one version".into());
            }
        }
    }
    read_model.wait(LIMIT, |stats| stats.handled >= 3 * ORDERS);
    let report = bus.shutdown(LIMIT);
    println!("{} events of {ORDERS} orders, {} handlers unfinished", expected.len(), report.unfinished);
    Ok((expected, ledger.entries()))
}

fn main() -> Result<(), Box<dyn Error>> {
    let (expected, seen) = run()?;
    check(&expected, &seen)?;
    println!("the read model has every event of every order once, and in order");
    Ok(())
}

#[test]
fn the_check_finds_what_is_wrong() {
    let (expected, seen) = run().unwrap();
    ledger::assert_check_can_fail(&expected, &seen);
}
