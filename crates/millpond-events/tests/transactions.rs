//! Handlers in transactions: their effects, the id of their event and its ack are one write.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;
#[path = "common/hooked.rs"]
mod hooked;

use common::{Notes, Order, TestClock, World, noted};
use hooked::{Hooked, Hooks};
use millpond::simulation::{SimClock, WallMs};
use millpond::testing::{Machine, crash_at_each_request};
use millpond::{Backoff, Expected, Retention, Store, Topic, Transaction};
use millpond_events::fake::FakeTransport;
use millpond_events::transport::{TransportError, TransportErrorKind};
use millpond_events::{Bus, Embedded, Encoded, Error, Event, EventType, Failure, Incoming, SubscriberBuilder, Variant};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const WINDOW: Duration = Duration::from_secs(3600);

/// A topic that keeps what is published to it.
fn effects(store: &Store) -> Topic {
    store.topic("effects").retention(Retention::Forever).open().unwrap()
}

/// What was published to the topic of effects, in order.
fn published(store: &Store) -> Vec<String> {
    let mut reader = effects(store).reader().open().unwrap();
    let next = || reader.try_next().unwrap().map(|message| String::from_utf8(message.payload().to_vec()).unwrap());
    std::iter::from_fn(next).collect()
}

/// Publishes the id of the event and the attempt as an effect.
fn effect(store: &Store) -> impl Fn(&mut Transaction<'_>, &Incoming<Order>) -> Result<(), Failure> + use<> {
    let topic = effects(store);
    move |tx, order| {
        tx.publish(&topic, format!("{} {}", order.id(), order.attempt()))?;
        Ok(())
    }
}

fn kitchen(world: &World) -> SubscriberBuilder {
    world.bus.subscriber("kitchen").inbox(100, WINDOW).backoff(Backoff::none())
}

fn unsettled(store: &Store, topic: &str) -> u64 {
    let stats = store.stats().unwrap();
    let found = stats.topics.iter().find(|stats| stats.name == topic);
    found.and_then(|topic| topic.groups.first()).map_or(0, |group| group.lag)
}

#[test]
fn effects_and_ack_are_there_or_neither_at_each_crash() {
    let subscriber = |store: &Store, notes: &Notes| {
        let (handler, calls) = (effect(store), notes.clone());
        let clock = TestClock(Arc::new(SimClock::new(WallMs(0))));
        let bus = Bus::builder(store).clock(Arc::new(clock)).open().unwrap();
        let billing = bus.subscriber("billing").inbox(100, WINDOW).max_attempts(0).backoff(Backoff::none());
        let billing = billing.on_transaction("order.*", move |tx, order: &Incoming<Order>| {
            calls.note(order.id());
            handler(tx, order)
        });
        (billing.open().unwrap(), bus)
    };
    let ids = |store: &Store| -> Vec<String> {
        let lines = published(store);
        lines.iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    };
    let promised = RefCell::new(BTreeSet::new());
    let crashes = crash_at_each_request(
        5,
        |machine: &mut Machine| {
            promised.borrow_mut().clear();
            let store = machine.open()?;
            let (billing, bus) = subscriber(&store, &Notes::default());
            for id in ["a", "b", "a"] {
                promised.borrow_mut().insert(bus.publish(Event::new(Order::Cancelled).with_id(id)).unwrap());
            }
            billing.drain().unwrap();
            assert_eq!((billing.stats().handled, billing.stats().duplicates), (2, 1));
            Ok(())
        },
        |machine| {
            let (store, notes) = (machine.open().unwrap(), Notes::default());
            let before = ids(&store);
            let (billing, _bus) = subscriber(&store, &notes);
            billing.drain().unwrap();
            let (after, calls) = (ids(&store), notes.taken());
            assert_eq!(calls, after[before.len()..], "an event that has its effect was settled with it");
            let once: BTreeSet<String> = after.iter().cloned().collect();
            assert_eq!(once.len(), after.len(), "{after:?}");
            assert!(once.is_superset(&promised.borrow()), "{after:?}");
            assert_eq!(unsettled(&store, "events"), 0);
        },
    );
    assert!(crashes > 50, "{crashes}");
}

#[test]
fn duplicate_of_a_processed_event_is_settled_without_a_call() {
    let world = World::new();
    let (handler, notes) = (effect(&world.store), Notes::default());
    let calls = notes.clone();
    let kitchen = kitchen(&world).on_transaction("order.*", move |tx, order: &Incoming<Order>| {
        calls.note(order.id());
        handler(tx, order)
    });
    let kitchen = kitchen.open().unwrap();
    let event = || Event::new(Order::placed(1)).with_id("o-1").with_time(std::time::UNIX_EPOCH);
    world.bus.publish_all([event(), event(), event().with_source("/elsewhere")]).unwrap();
    kitchen.drain().unwrap();
    assert_eq!((kitchen.stats().handled, kitchen.stats().duplicates), (2, 1));
    assert_eq!(notes.taken(), ["o-1", "o-1"], "of two sources");
    assert_eq!(published(&world.store), ["o-1 1", "o-1 1"]);
}

#[test]
fn redriven_event_has_its_effects_once() {
    let world = World::new();
    let (handler, topic) = (effect(&world.store), world.store.topic("events").open().unwrap());
    let kitchen = kitchen(&world).on_transaction("order.*", move |tx, order: &Incoming<Order>| {
        handler(tx, order)?;
        if order.id() == "bad" { Err(Failure::permanent("burnt")) } else { Ok(()) }
    });
    let kitchen = kitchen.open().unwrap();
    // Another group fails on an event that this one has processed, and sends it to all groups again: the same message by its origin.
    let waiter = world.bus.subscriber("waiter").on("order.*", |_: &Incoming<Order>| Err(Failure::permanent("down")));
    let waiter = waiter.open().unwrap();
    for id in ["good", "bad"] {
        world.bus.publish(Event::new(Order::placed(1)).with_id(id)).unwrap();
    }
    kitchen.drain().unwrap();
    assert_eq!((waiter.drain().unwrap(), waiter.stats().rejected), (2, 2));
    let group = |name: &str| topic.group(name).create(false).open().unwrap();
    for dead in group("waiter").dead_letters().unwrap() {
        dead.unwrap().redrive_to(&topic).unwrap();
    }
    kitchen.drain().unwrap();
    assert_eq!((kitchen.stats().handled, kitchen.stats().duplicates), (1, 1));
    // What failed was not processed: it runs again.
    assert_eq!(kitchen.stats().rejected, 2);
    assert_eq!(group("kitchen").redrive_all().unwrap(), 2);
    kitchen.drain().unwrap();
    assert_eq!((kitchen.stats().handled, kitchen.stats().duplicates, kitchen.stats().rejected), (1, 1, 4));
    assert_eq!(published(&world.store), ["good 1"]);
    assert_eq!(unsettled(&world.store, "events"), 0);
}

#[test]
fn group_that_begins_anew_repeats_no_effect() {
    let world = World::with(|builder| builder.streams());
    let store = world.store.clone();
    let start = || kitchen(&world).on_transaction("order.*", effect(&store)).open().unwrap();
    world.bus.append("o-1", Expected::NoStream, [Event::new(Order::placed(1)).with_id("e-1")]).unwrap();
    let first = start();
    first.drain().unwrap();
    let _report = first.shutdown(Duration::ZERO);
    store.topic("events").open().unwrap().remove_group("kitchen").unwrap();
    let second = start();
    assert_eq!(second.drain().unwrap(), 1, "the stream is kept, and read again");
    assert_eq!((second.stats().handled, second.stats().duplicates), (0, 1));
    assert_eq!(published(&store), ["e-1 1"]);
}

#[test]
fn transaction_that_is_refused_is_a_failed_attempt() {
    let world = World::new();
    let ledger = world.store.topic("ledger").streams().open().unwrap();
    let (stream, other) = (ledger.stream("account").unwrap(), ledger.stream("account").unwrap());
    let handler = effect(&world.store);
    let kitchen = kitchen(&world).on_transaction("order.placed", move |tx, order: &Incoming<Order>| {
        handler(tx, order)?;
        order.publish(Order::Cooked(1))?;
        if order.attempt() == 1 {
            // Another writer comes first.
            other.append(Expected::Any, ["theirs"])?;
        }
        tx.append(&stream, if order.attempt() == 1 { Expected::NoStream } else { Expected::Version(0) }, ["ours"])?;
        Ok(())
    });
    let kitchen = kitchen.open().unwrap();
    let waiter = world.bus.subscriber("waiter").on("order.cooked", |_: &Incoming<Order>| Ok(())).open().unwrap();
    world.bus.publish(Event::new(Order::placed(1)).with_id("o-1")).unwrap();
    assert_eq!(kitchen.drain().unwrap(), 2);
    assert_eq!((kitchen.stats().failed, kitchen.stats().handled), (1, 1));
    assert_eq!(waiter.drain().unwrap(), 1);
    assert_eq!(published(&world.store), ["o-1 2"]);
    assert_eq!(ledger.stream("account").unwrap().last_version().unwrap(), Some(1));
}

#[test]
fn handler_that_fails_or_panics_has_no_effect() {
    let world = World::new();
    let handler = effect(&world.store);
    let kitchen = kitchen(&world).max_attempts(3).on_transaction("order.*", move |tx, order: &Incoming<Order>| {
        handler(tx, order)?;
        order.publish(Order::Cancelled)?;
        match order.attempt() {
            1 => Err(Failure::retry("burnt")),
            2 => panic!("on fire"),
            _ => {
                // A call that failed may not be passed over.
                let _ = tx.publish(&effects_of_another_store(), "lost");
                Ok(())
            }
        }
    });
    let kitchen = kitchen.open().unwrap();
    world.bus.publish(Order::placed(1)).unwrap();
    assert_eq!(kitchen.drain().unwrap(), 3);
    assert_eq!((kitchen.stats().failed, kitchen.stats().handled), (3, 0));
    assert_eq!(published(&world.store), [""; 0]);
    let dead = world.dead("kitchen");
    assert!(dead[0].contains("another store"), "{dead:?}");
}

fn effects_of_another_store() -> Topic {
    effects(&Machine::new(9).open().unwrap())
}

#[test]
fn handler_that_takes_too_long_or_loses_its_lease_has_no_effect() {
    let world = World::new();
    let (handler, clock, bus) = (effect(&world.store), Arc::clone(&world.clock), world.bus.clone());
    let topic = world.store.topic("events").open().unwrap();
    let kitchen = kitchen(&world).timeout(20 * SECOND).on_transaction("order.*", move |tx, order: &Incoming<Order>| {
        handler(tx, order)?;
        match order.id() {
            "slow" if order.attempt() == 1 => {
                clock.advance(20_000);
                bus.tick();
            }
            "lost" if order.attempt() == 1 => {
                // The lease runs out before the timer knows, and another consumer has the event.
                clock.advance(31_000);
                let others = topic.group("kitchen").open()?.receive(Duration::ZERO)?;
                others.ok_or("the lease has ended").map_err(Failure::retry)?.release()?;
            }
            _ => {}
        }
        Ok(())
    });
    let kitchen = kitchen.open().unwrap();
    for id in ["slow", "lost"] {
        world.bus.publish(Event::new(Order::placed(1)).with_id(id)).unwrap();
        kitchen.drain().unwrap();
    }
    let stats = kitchen.stats();
    assert_eq!((stats.timed_out, stats.lost, stats.handled, stats.in_progress, stats.stuck), (1, 1, 2, 0, 0));
    assert_eq!(published(&world.store), ["slow 2", "lost 2"]);
}

/// Data that panics when it is dropped.
struct Fragile;

impl Drop for Fragile {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

impl EventType for Fragile {
    const VARIANTS: &'static [Variant<Self>] = &[Variant::new("order.fragile", 1, |_| Ok(Self))];

    fn encode(&self) -> Encoded {
        Encoded::json("order.fragile", 1, &())
    }
}

#[test]
fn panic_after_the_commit_undoes_nothing() {
    let world = World::new();
    let topic = effects(&world.store);
    let kitchen = kitchen(&world).on_transaction("order.*", move |tx, event: &Incoming<Fragile>| {
        tx.publish(&topic, event.id())?;
        Ok(())
    });
    let kitchen = kitchen.open().unwrap();
    let fragile = millpond_events::RawEvent::new("order.fragile", 1, "application/json", "null").with_id("f-1");
    world.bus.publish(fragile).unwrap();
    assert_eq!(kitchen.drain().unwrap(), 1);
    let stats = kitchen.stats();
    assert_eq!((stats.handled, stats.failed, stats.lost, stats.in_progress), (1, 0, 0, 0));
    assert_eq!(published(&world.store), ["f-1"]);
    assert_eq!(world.faults(), [""; 0]);
}

#[test]
fn unknown_outcome_is_a_fault_and_not_a_failure() {
    let mut machine = Machine::new(4);
    let store = machine.open().unwrap();
    let faults = common::Faults::default();
    let clock = TestClock(Arc::new(SimClock::new(WallMs(0))));
    let bus = Bus::builder(&store).clock(Arc::new(clock)).on_fault(noted(&faults)).open().unwrap();
    let kitchen = bus.subscriber("kitchen").on_transaction("order.*", effect(&store)).open().unwrap();
    bus.publish(Order::placed(1)).unwrap();
    machine.fail_next_sync();
    assert!(kitchen.drain().is_err(), "the store is poisoned");
    assert_eq!((kitchen.stats().handled, kitchen.stats().failed), (0, 1));
    let faults = faults.lock().unwrap().clone();
    assert!(faults[0].contains("cannot settle event") && faults[0].contains("outcome unknown"), "{faults:?}");
}

#[test]
fn transport_without_a_store_has_no_transactions() {
    let clock = TestClock(Arc::new(SimClock::new(WallMs(0))));
    let bus = Bus::over(Arc::new(FakeTransport::new())).clock(Arc::new(clock)).open().unwrap();
    let refused = bus.subscriber("kitchen").on_transaction("order.*", |_, _: &Incoming<Order>| Ok(())).open();
    assert!(matches!(refused, Err(Error::Unsupported { what: "handlers in transactions" })));
    assert!(bus.subscriber("kitchen").on("order.*", |_: &Incoming<Order>| Ok(())).open().is_ok(), "the name is free");
}

#[test]
fn transport_that_wraps_a_store_passes_its_transactions_on() {
    let world = World::new();
    let topic = world.store.topic("wrapped").open().unwrap();
    let hooks = Arc::<Hooks>::default();
    let below = Arc::new(Embedded::new(&world.store, &topic));
    let wrapped = Hooked { below, hooks: Arc::clone(&hooks) };
    let clock = TestClock(Arc::clone(&world.clock));
    let bus = Bus::over(Arc::new(wrapped)).clock(Arc::new(clock)).open().unwrap();
    // An ack that bypasses the transaction would be seen here.
    hooks.on_settle(|_| Some(Err(TransportError::new(TransportErrorKind::Retry, "bypassed"))));
    let kitchen = bus.subscriber("kitchen").on_transaction("order.*", effect(&world.store)).open().unwrap();
    bus.publish(Event::new(Order::placed(1)).with_id("o-1")).unwrap();
    assert_eq!((kitchen.drain().unwrap(), kitchen.stats().handled), (1, 1));
    assert_eq!(published(&world.store), ["o-1 1"]);
}

#[test]
fn memories_of_an_inbox_leave_the_disk() {
    let bytes = |has_inbox: bool| {
        let world = World::new();
        let builder = world.bus.subscriber("kitchen");
        let builder = if has_inbox { builder.inbox(1_000, WINDOW) } else { builder };
        let kitchen = builder.on_transaction("order.*", |_, _: &Incoming<Order>| Ok(())).open().unwrap();
        for _ in 0..40 {
            world.bus.publish_all((0..1_000).map(Order::Cooked)).unwrap();
            assert_eq!(kitchen.drain().unwrap(), 1_000);
            world.clock.advance(1_000);
            world.store.tick().unwrap();
            world.store.checkpoint().unwrap();
        }
        world.store.stats().unwrap().log.bytes
    };
    let (with, without) = (bytes(true), bytes(false));
    assert!(with < without * 4, "{with} bytes of log with an inbox, {without} without");
}
