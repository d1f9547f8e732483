//! Transports: what the suite accepts, what it finds, and the bus on one that can do less.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{Notes, Order, TestClock};
use millpond::simulation::WallMs;
use millpond::simulation::{SimClock, SimDisk};
use millpond::{Durability, Store};
use millpond_events::conformance::{Candidate, check};
use millpond_events::fake::{FakeTransport, Misdeed};
use millpond_events::{Bus, Embedded, Error, Failure, Incoming};
use std::sync::Arc;
use std::time::Duration;

fn embedded(level: Durability) -> Candidate {
    let (disk, clock) = (SimDisk::new(3), Arc::new(SimClock::new(WallMs(1_800_000_000_000))));
    let store = Store::options().durability(level).open_on(Arc::new(disk.attach().unwrap()), clock.clone()).unwrap();
    let topic = store.topic("events").open().unwrap();
    let advance = move |by: Duration| clock.advance(by.as_millis() as u64);
    Candidate { transport: Arc::new(Embedded::new(&store, &topic)), advance: Box::new(advance) }
}

fn fake(transport: FakeTransport) -> Candidate {
    let clock = transport.clone();
    Candidate { transport: Arc::new(transport), advance: Box::new(move |by| clock.advance(by)) }
}

#[test]
fn the_store_conforms() {
    assert_eq!(check(|| embedded(Durability::Os)), [""; 0]);
    assert_eq!(check(|| embedded(Durability::Disk)), [""; 0]);
}

#[test]
fn the_fake_conforms_with_all_capabilities_and_with_few() {
    assert_eq!(check(|| fake(FakeTransport::new())), [""; 0]);
    assert_eq!(check(|| fake(FakeTransport::like_jetstream())), [""; 0]);
}

#[test]
fn transports_that_drop_double_or_reorder_are_found() {
    let order = "every group gets every message once, unchanged and in order";
    for (misdeed, name) in [
        (Misdeed::Drops, order),
        (Misdeed::Doubles, order),
        (Misdeed::Reorders, order),
        (Misdeed::IgnoresBackoff, "a message that failed waits by the backoff of its group"),
    ] {
        let found = check(|| fake(FakeTransport::with_misdeed(misdeed)));
        assert!(found.iter().any(|found| found.starts_with(name)), "{misdeed:?}: {found:?}");
    }
}

#[test]
fn the_bus_runs_on_a_transport_that_can_do_less() {
    let transport = FakeTransport::like_jetstream();
    let clock = Arc::new(SimClock::new(WallMs(0)));
    let bus = Bus::over(Arc::new(transport.clone())).clock(Arc::new(TestClock(clock))).open().unwrap();
    let notes = Notes::default();
    let noted = notes.clone();
    let kitchen = bus
        .subscriber("kitchen")
        .max_attempts(2)
        .on("order.*", move |order: &Incoming<Order>| {
            noted.note(format!("{:?} {}", order.data(), order.attempt()));
            assert!(matches!(order.publish(Order::Cancelled), Err(Error::Unsupported { .. })));
            if order.data() == &Order::Cancelled { Err(Failure::retry("cold")) } else { Ok(()) }
        })
        .open()
        .unwrap();
    bus.publish_all([Order::Cooked(1), Order::Cancelled]).unwrap();
    kitchen.drain().unwrap();
    assert_eq!(notes.taken(), ["Cooked(1) 1", "Cancelled 1", "Cancelled 2"]);
    assert_eq!(transport.dead_letters("kitchen"), ["cold"]);
    let inbox = bus.subscriber("other").inbox(10, Duration::from_secs(1)).on("order.*", |_: &Incoming<Order>| Ok(()));
    assert!(matches!(inbox.open(), Err(Error::Unsupported { .. })));
}
