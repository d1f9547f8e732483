//! Food delivery on a bus: one correlation id from the order to the door, and a service that is down for half of the run.
//!
//! ```text
//! cargo run -p millpond-events --example food_delivery_bus
//! ```
//!
//! The kitchen cooks what is placed, couriers deliver what is cooked, and notification mails at each step. Each publishes its result
//! together with the ack of what caused it, so no step is lost or doubled. Notification is down for the first half: its breaker opens, and
//! the kitchen does not notice. At the end every order has its three mails, all with the correlation id of the order.

#![allow(clippy::print_stdout, reason = "this program talks to a person at a terminal")]

#[path = "support/ledger.rs"]
mod ledger;

use ledger::{Entry, Ledger, check};
use millpond::{Backoff, Durability, Store};
use millpond_events::{BreakerOptions, Bus, Encoded, Event, EventType, Failure, Incoming, Variant, json};
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const ORDERS: u64 = 100;
const LIMIT: Duration = Duration::from_secs(30);
const STEPS: [&str; 3] = ["order.placed", "order.cooked", "order.delivered"];

enum Order {
    Placed(u64),
    Cooked(u64),
    Delivered(u64),
}

impl EventType for Order {
    const VARIANTS: &'static [Variant<Self>] = &[
        Variant::new("order.placed", 1, |data| json(data).map(Self::Placed)),
        Variant::new("order.cooked", 1, |data| json(data).map(Self::Cooked)),
        Variant::new("order.delivered", 1, |data| json(data).map(Self::Delivered)),
    ];

    fn encode(&self) -> Encoded {
        match self {
            Self::Placed(number) => Encoded::json("order.placed", 1, number),
            Self::Cooked(number) => Encoded::json("order.cooked", 1, number),
            Self::Delivered(number) => Encoded::json("order.delivered", 1, number),
        }
    }
}

/// The event that follows an event of the same order. Its correlation flows by itself.
fn follow(order: &Incoming<Order>, next: Order) -> Result<(), Failure> {
    let subject = order.subject().ok_or_else(|| Failure::permanent("no order"))?;
    order.publish(Event::new(next).with_subject(subject))?;
    Ok(())
}

/// What should be handled, and what was.
fn run() -> Result<(Vec<Entry>, Vec<Entry>), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let store = Store::options().durability(Durability::Os).open(dir.path().join("store"))?;
    let bus = Bus::builder(&store).partitions(4).source("/food").open()?;
    let (ledger, is_up) = (Ledger::default(), Arc::new(AtomicBool::new(false)));

    let written = ledger.clone();
    let kitchen = bus.subscriber("kitchen").workers(2).on("order.placed", move |order: &Incoming<Order>| {
        let &Order::Placed(number) = order.data() else { return Err(Failure::permanent("not placed")) };
        written.write("kitchen", order.correlation_id(), order.event_type());
        follow(order, Order::Cooked(number))
    });
    let kitchen = kitchen.start()?;
    let written = ledger.clone();
    let couriers = bus.subscriber("couriers").workers(2).on("order.cooked", move |order: &Incoming<Order>| {
        let &Order::Cooked(number) = order.data() else { return Err(Failure::permanent("not cooked")) };
        written.write("couriers", order.correlation_id(), order.event_type());
        follow(order, Order::Delivered(number))
    });
    let couriers = couriers.start()?;
    let (written, up) = (ledger.clone(), Arc::clone(&is_up));
    let notification = bus
        .subscriber("notification")
        // The mail server answers again when it answers: no event is dead-lettered for that.
        .max_attempts(0)
        .backoff(Backoff::fixed(Duration::from_millis(5)))
        .breaker(BreakerOptions { failures: 3, pause: Duration::from_millis(20) })
        .on("order.>", move |order: &Incoming<Order>| {
            if !up.load(Ordering::Relaxed) {
                return Err(Failure::retry("the mail server is down"));
            }
            written.write("notification", format!("{} {}", order.correlation_id(), order.event_type()), "mailed");
            Ok(())
        })
        .start()?;

    let mut expected = Vec::new();
    for number in 0..ORDERS {
        let request = format!("request-{number}");
        let placed = Event::new(Order::Placed(number)).with_subject(format!("order-{number}"));
        bus.publish(placed.with_correlation_id(&request))?;
        expected.push(Entry::new("kitchen", &request, STEPS[0]));
        expected.push(Entry::new("couriers", &request, STEPS[1]));
        expected.extend(STEPS.map(|step| Entry::new("notification", format!("{request} {step}"), "mailed")));
        if number == ORDERS / 2 {
            // Kitchen and couriers are not held up by notification.
            kitchen.wait(LIMIT, |stats| stats.handled > ORDERS / 2);
            couriers.wait(LIMIT, |stats| stats.handled > ORDERS / 2);
            notification.wait(LIMIT, |stats| stats.failed >= 3);
            println!("notification is down: {:?}", notification.stats().breaker);
            is_up.store(true, Ordering::Relaxed);
        }
    }
    couriers.wait(LIMIT, |stats| stats.handled >= ORDERS);
    notification.wait(LIMIT, |stats| stats.handled >= 3 * ORDERS);
    let report = bus.shutdown(LIMIT);
    println!("{ORDERS} orders, {} handlers unfinished", report.unfinished);
    Ok((expected, ledger.entries()))
}

fn main() -> Result<(), Box<dyn Error>> {
    let (expected, seen) = run()?;
    check(&expected, &seen)?;
    println!("every order was cooked, delivered and mailed once, under its correlation id");
    Ok(())
}

#[test]
fn the_check_finds_what_is_wrong() {
    let (expected, seen) = run().unwrap();
    ledger::assert_check_can_fail(&expected, &seen);
}
