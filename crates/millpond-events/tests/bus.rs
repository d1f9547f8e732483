//! The bus on a simulated disk and clock, without threads: who gets what, and what becomes of events that fail.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{DECODING, Notes, Order, World};
use millpond::{Backoff, Message};
use millpond_events::{
    BreakerOptions, BreakerState, Bus, Error, Event, Failure, Incoming, RawEvent, SchemaViolation, Unknown, Validator,
};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Notes the order of an event, or its type.
fn noting(notes: &Notes) -> impl Fn(&millpond_events::Incoming<Order>) -> Result<(), Failure> + Send + Sync + 'static {
    let notes = notes.clone();
    move |order| {
        notes.note(match order.data() {
            Order::Placed(placed) => placed.order.to_string(),
            Order::Cooked(order) => format!("cooked {order}"),
            Order::Cancelled => "cancelled".to_owned(),
        });
        Ok(())
    }
}

#[test]
fn every_subscriber_gets_what_its_patterns_match() {
    let (world, all, placed) = (World::new(), Notes::default(), Notes::default());
    let kitchen = world.bus.subscriber("kitchen").on("order.placed", noting(&placed)).open().unwrap();
    let audit = world.bus.subscriber("audit").on("order.*", noting(&all)).open().unwrap();
    for order in [Order::placed(1), Order::Cancelled, Order::placed(2), Order::Cooked(1)] {
        world.bus.publish(order).unwrap();
    }
    assert_eq!((kitchen.drain().unwrap(), audit.drain().unwrap()), (2, 4));
    assert_eq!(placed.taken(), ["1", "2"]);
    assert_eq!(all.taken(), ["1", "cancelled", "2", "cooked 1"]);
    assert_eq!((kitchen.drain().unwrap(), audit.drain().unwrap()), (0, 0));
}

#[test]
fn what_does_not_match_is_settled_in_runs() {
    let (world, notes) = (World::new(), Notes::default());
    let kitchen = world.bus.subscriber("kitchen").on("order.placed", noting(&notes)).open().unwrap();
    world.bus.publish_all((0..1000).map(|_| Order::Cancelled)).unwrap();
    world.bus.publish(Order::placed(1)).unwrap();
    let written = || world.store.stats().unwrap().log.end.0;
    let before = written();
    assert_eq!(kitchen.drain().unwrap(), 1);
    assert_eq!(notes.taken(), ["1"]);
    // Filters settle what does not match: one record for all of it, and no lease.
    let written = written() - before;
    assert!(written < 1000, "{written} bytes of log for a thousand messages");
    let stats = world.store.stats().unwrap();
    let group = &stats.topics[0].groups[0];
    assert_eq!((group.waiting, group.leased, group.lag), (0, 0, 0));
    assert_eq!((group.since_open.delivered, group.since_open.filtered), (1, 1000));
}

#[test]
fn a_subscriber_goes_on_with_other_patterns() {
    let (world, notes) = (World::new(), Notes::default());
    // Each bus is another deployment of the service.
    let drain = |patterns: &[&str]| {
        let bus = Bus::builder(&world.store).source("/test").open().unwrap();
        let builder =
            patterns.iter().fold(bus.subscriber("kitchen"), |builder, pattern| builder.on(pattern, noting(&notes)));
        let drained = builder.open().unwrap().drain().unwrap();
        (drained, notes.taken())
    };
    assert_eq!(drain(&["order.placed"]), (0, vec![]));
    world.bus.publish_all([Order::placed(1), Order::Cancelled, Order::Cooked(1)]).unwrap();
    assert_eq!(drain(&["order.cancelled"]), (1, vec!["cancelled".to_owned()]));
    world.bus.publish_all([Order::placed(2), Order::Cancelled]).unwrap();
    // The last event was looked at by the patterns before, and not settled yet.
    let taken = ["cooked 1", "2", "cancelled"].map(str::to_owned);
    assert_eq!(drain(&[">"]), (3, taken.to_vec()));
    // Too many patterns for a filter are matched one by one.
    let long = "order.".to_owned() + &"long.".repeat(300) + "*";
    world.bus.publish_all([Order::placed(3), Order::Cooked(3)]).unwrap();
    assert_eq!(drain(&[&long, "order.cooked"]), (1, vec!["cooked 3".to_owned()]));
}

#[test]
fn an_event_goes_to_the_first_handler_that_matches() {
    let (world, first, second) = (World::new(), Notes::default(), Notes::default());
    let builder = world.bus.subscriber("kitchen").on("order.placed", noting(&first)).on("order.>", noting(&second));
    let kitchen = builder.open().unwrap();
    world.bus.publish_all([Order::placed(1), Order::Cancelled]).unwrap();
    kitchen.drain().unwrap();
    assert_eq!((first.taken(), second.taken()), (vec!["1".to_owned()], vec!["cancelled".to_owned()]));
}

#[test]
fn a_failed_event_is_retried_alone_by_the_policy_of_the_group() {
    let (world, notes) = (World::new(), Notes::default());
    let noted = notes.clone();
    let kitchen = world
        .bus
        .subscriber("kitchen")
        .max_attempts(4)
        .backoff(Backoff::exponential(2 * SECOND).jitter(false))
        .on("order.placed", move |order: &millpond_events::Incoming<Order>| {
            noted.note(format!("{:?} {}", order.data() == &Order::placed(1), order.attempt()));
            if order.data() == &Order::placed(1) { Err(Failure::retry("burnt")) } else { Ok(()) }
        })
        .open()
        .unwrap();
    world.bus.publish_all([Order::placed(1), Order::placed(2)]).unwrap();
    assert_eq!(kitchen.drain().unwrap(), 2);
    assert_eq!(notes.taken(), ["true 1", "false 1"]);
    for (delay_ms, attempt) in [(2000, 2), (4000, 3), (8000, 4)] {
        world.clock.advance(delay_ms - 1);
        assert_eq!(kitchen.drain().unwrap(), 0, "before the delay of attempt {attempt}");
        world.clock.advance(1);
        assert_eq!(kitchen.drain().unwrap(), 1);
        assert_eq!(notes.taken(), [format!("true {attempt}")]);
    }
    assert_eq!(world.dead("kitchen"), ["burnt"]);
    assert_eq!((kitchen.stats().handled, kitchen.stats().failed), (1, 4));
}

#[test]
fn permanent_failures_are_dead_at_once_and_delays_are_the_handlers() {
    let world = World::new();
    let kitchen = world
        .bus
        .subscriber("kitchen")
        .on("order.placed", |order: &millpond_events::Incoming<Order>| match order.attempt() {
            1 => Err(Failure::retry_after(90 * SECOND, "closed")),
            _ => Err(Failure::permanent("no such dish")),
        })
        .open()
        .unwrap();
    world.bus.publish(Order::placed(1)).unwrap();
    assert_eq!(kitchen.drain().unwrap(), 1);
    world.clock.advance(89_999);
    assert_eq!(kitchen.drain().unwrap(), 0);
    world.clock.advance(1);
    assert_eq!(kitchen.drain().unwrap(), 1);
    assert_eq!(world.dead("kitchen"), ["no such dish"]);
    assert_eq!(kitchen.stats().rejected, 1);
}

#[test]
fn panics_are_failures_with_their_text() {
    struct PanicsWhenDropped;
    impl Drop for PanicsWhenDropped {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                panic!("dropped");
            }
        }
    }
    let world = World::new();
    let kitchen = world
        .bus
        .subscriber("kitchen")
        .max_attempts(1)
        .on("order.placed", |order: &millpond_events::Incoming<Order>| match order.data() {
            Order::Placed(placed) if placed.order == 1 => panic!("the oven exploded"),
            Order::Placed(placed) if placed.order == 2 => panic!("order {}", placed.order),
            Order::Placed(placed) if placed.order == 3 => std::panic::panic_any(PanicsWhenDropped),
            _ => {
                let _value = PanicsWhenDropped;
                Ok(())
            }
        })
        .open()
        .unwrap();
    world.bus.publish_all((1..=4).map(Order::placed)).unwrap();
    assert_eq!(kitchen.drain().unwrap(), 4);
    let expected = ["panicked: the oven exploded", "panicked: order 2", "panicked: no text", "panicked: dropped"];
    assert_eq!(world.dead("kitchen"), expected);
}

#[test]
fn what_no_handler_can_read_is_dead_with_the_reason() {
    let (world, notes) = (World::new(), Notes::default());
    let topic = world.store.topic("events").open().unwrap();
    let kitchen = world.bus.subscriber("kitchen").on("order.*", noting(&notes)).open().unwrap();
    let raw = |event_type: &str, version, data: &str| RawEvent::new(event_type, version, "application/json", data);
    topic.publish("no event").unwrap();
    topic.publish(Message::new("{}").header("ce_type", "order.placed")).unwrap();
    world.bus.publish(raw("order.lost", 1, "1")).unwrap();
    world.bus.publish(raw("order.placed", 9, "1")).unwrap();
    world.bus.publish(raw("order.placed", 2, "{")).unwrap();
    world.bus.publish(raw("order.placed", 2, "1")).unwrap();
    world.bus.publish(RawEvent::new("order.placed", 1, "text/plain", "1")).unwrap();
    world.bus.publish(Order::placed(1)).unwrap();
    assert_eq!(kitchen.drain().unwrap(), 8);
    assert_eq!(notes.taken(), ["1"]);
    let expected = [
        "not a CloudEvent: \"message\" is without attributes",
        "not a CloudEvent: \"specversion\" is missing",
        "unknown type \"order.lost\"",
        "unknown version 9 of \"order.placed\"",
        "the data of order.placed version 2 is no valid JSON at line 1 column 1",
        "the data of order.placed version 2 does not fit its type at line 1 column 1",
        "the data is no JSON but \"text/plain\"",
    ];
    assert_eq!(world.dead("kitchen"), expected);
    assert_eq!(kitchen.stats().rejected, 7);
}

#[test]
fn unknown_events_are_skipped_if_the_subscriber_says_so() {
    let (world, notes) = (World::new(), Notes::default());
    let builder = world.bus.subscriber("kitchen").on("order.*", noting(&notes)).unknown(Unknown::Skip);
    let kitchen = builder.open().unwrap();
    for (event_type, version) in [("order.lost", 1), ("order.placed", 9), ("order.placed", 2)] {
        world.bus.publish(RawEvent::new(event_type, version, "application/json", "1")).unwrap();
    }
    assert_eq!(kitchen.drain().unwrap(), 3);
    assert_eq!(world.dead("kitchen"), ["the data of order.placed version 2 does not fit its type at line 1 column 1"]);
}

#[test]
fn structured_events_reach_their_handlers() {
    let (world, notes) = (World::new(), Notes::default());
    let topic = world.store.topic("events").open().unwrap();
    let kitchen = world.bus.subscriber("kitchen").on("order.*", noting(&notes)).open().unwrap();
    for order in [Event::new(Order::placed(5)), Event::new(Order::Cancelled)] {
        let text = millpond_events::Outgoing::from(order.with_source("/elsewhere")).to_json().unwrap();
        topic.publish(Message::new(text).header("content-type", "application/cloudevents+json")).unwrap();
    }
    let other = br#"{"specversion":"1.0","id":"1","source":"/","type":"payment.taken"}"#;
    topic.publish(Message::new(other).header("content-type", "application/cloudevents+json")).unwrap();
    assert_eq!(kitchen.drain().unwrap(), 3);
    assert_eq!(notes.taken(), ["5", "cancelled"]);
    assert_eq!(world.dead("kitchen"), [""; 0]);
}

#[test]
fn correlation_and_causation_flow_through_handlers() {
    let world = World::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (bus, noted) = (world.bus.clone(), Arc::clone(&seen));
    let kitchen = world
        .bus
        .subscriber("kitchen")
        .on("order.placed", move |order: &millpond_events::Incoming<Order>| {
            bus.publish(Order::Cooked(1))?;
            order.publish(Order::Cooked(2))?;
            Ok(())
        })
        .on("order.cooked", move |order: &millpond_events::Incoming<Order>| {
            let (correlation, causation) = (order.correlation_id().to_owned(), order.causation_id().map(str::to_owned));
            noted.lock().unwrap().push((correlation, causation, order.depth(), order.traceparent().map(str::to_owned)));
            Ok(())
        })
        .open()
        .unwrap();
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let id = world
        .bus
        .publish(Event::new(Order::placed(1)).with_correlation_id("request-1").with_traceparent(trace))
        .unwrap();
    kitchen.drain().unwrap();
    let expected = ("request-1".to_owned(), Some(id), 1, Some(trace.to_owned()));
    assert_eq!(*seen.lock().unwrap(), [expected.clone(), expected]);
    // Outside of handlers nothing is inherited.
    seen.lock().unwrap().clear();
    let id = world.bus.publish(Order::Cooked(3)).unwrap();
    kitchen.drain().unwrap();
    assert_eq!(*seen.lock().unwrap(), [(id, None, 0, None)]);
    let _report = world.bus.shutdown(Duration::ZERO);
}

#[test]
fn a_chain_that_is_too_long_is_dead() {
    let world = World::with(|builder| builder.chain_max(3));
    let notes = Notes::default();
    let noted = notes.clone();
    let kitchen = world
        .bus
        .subscriber("kitchen")
        .on("order.*", move |order: &millpond_events::Incoming<Order>| {
            noted.note(order.depth().to_string());
            order.publish(Order::Cancelled)?;
            Ok(())
        })
        .open()
        .unwrap();
    world.bus.publish(Order::placed(1)).unwrap();
    kitchen.drain().unwrap();
    assert_eq!(notes.taken(), ["0", "1", "2", "3"]);
    assert_eq!(world.dead("kitchen"), ["chain too long: 4 events before it, limit 3"]);
}

#[test]
fn events_of_a_handler_that_fails_are_not_published() {
    let (world, notes) = (World::new(), Notes::default());
    let kitchen = world
        .bus
        .subscriber("kitchen")
        .backoff(Backoff::none())
        .on("order.placed", |order: &millpond_events::Incoming<Order>| {
            order.publish(Order::Cooked(order.attempt()))?;
            if order.attempt() < 3 { Err(Failure::retry("burnt")) } else { Ok(()) }
        })
        .open()
        .unwrap();
    let waiter = world.bus.subscriber("waiter").on("order.cooked", noting(&notes)).open().unwrap();
    world.bus.publish(Order::placed(1)).unwrap();
    assert_eq!(kitchen.drain().unwrap(), 3);
    waiter.drain().unwrap();
    assert_eq!(notes.taken(), ["cooked 3"]);
}

#[test]
fn the_inbox_lets_an_event_of_two_messages_through_once() {
    let (world, notes) = (World::new(), Notes::default());
    let noted = notes.clone();
    let inbox = |name: &str| world.bus.subscriber(name).inbox(100, Duration::from_secs(3600)).backoff(Backoff::none());
    let kitchen = inbox("kitchen")
        .on("order.placed", move |order: &millpond_events::Incoming<Order>| {
            noted.note(format!("{} {}", order.id(), order.attempt()));
            if order.attempt() == 1 { Err(Failure::retry("burnt")) } else { Ok(()) }
        })
        .open()
        .unwrap();
    let other = Notes::default();
    let waiter = inbox("waiter").on("order.placed", noting(&other)).open().unwrap();
    let event = || Event::new(Order::placed(1)).with_id("o-1").with_time(std::time::UNIX_EPOCH);
    world.bus.publish(event()).unwrap();
    world.bus.publish(event()).unwrap();
    world.bus.publish(event().with_source("/elsewhere")).unwrap();
    kitchen.drain().unwrap();
    // The first message keeps its attempts, the second has none, and that of another source is another event.
    let mut runs = notes.taken();
    runs.sort();
    assert_eq!(runs, ["o-1 1", "o-1 1", "o-1 2", "o-1 2"]);
    assert_eq!((kitchen.stats().handled, kitchen.stats().duplicates), (2, 1));
    waiter.drain().unwrap();
    assert_eq!(other.taken(), ["1", "1"]);
}

#[test]
fn the_inbox_remembers_across_a_crash() {
    let world = World::new();
    let inbox = |bus: &Bus| bus.subscriber("kitchen").inbox(100, Duration::from_secs(3600));
    let event = || Event::new(Order::placed(1)).with_id("o-1");
    let failing = |_: &millpond_events::Incoming<Order>| Err(Failure::retry_after(60 * SECOND, "burnt"));
    world.bus.publish(event()).unwrap();
    assert_eq!(inbox(&world.bus).on("order.placed", failing).open().unwrap().drain().unwrap(), 1);
    let World { disk, clock, store, bus, .. } = world;
    // Neither is closed: to the log this is a process crash.
    drop((store, bus));
    let options = millpond::Store::options().durability(millpond::Durability::Os);
    let store = options.open_on(Arc::new(disk.attach().unwrap()), clock.clone()).unwrap();
    let bus = Bus::builder(&store).source("/test").clock(Arc::new(common::TestClock(clock.clone()))).open().unwrap();
    let notes = Notes::default();
    let kitchen = inbox(&bus).on("order.placed", noting(&notes)).open().unwrap();
    bus.publish(event()).unwrap();
    assert_eq!(kitchen.drain().unwrap(), 1);
    assert_eq!((notes.taken(), kitchen.stats().duplicates), (vec![], 1), "the event is that of the first message");
    clock.advance(60_000);
    assert_eq!(kitchen.drain().unwrap(), 1);
    assert_eq!(notes.taken(), ["1"]);
}

#[test]
fn an_open_breaker_receives_nothing_and_closes_after_a_success() {
    let (world, notes) = (World::new(), Notes::default());
    let is_down = Arc::new(Mutex::new(true));
    let (noted, down) = (notes.clone(), Arc::clone(&is_down));
    let kitchen = world
        .bus
        .subscriber("kitchen")
        .backoff(Backoff::fixed(SECOND))
        .breaker(BreakerOptions { failures: 3, pause: 60 * SECOND })
        .on("order.placed", move |_: &millpond_events::Incoming<Order>| {
            noted.note("tried");
            if *down.lock().unwrap() { Err(Failure::retry("no gas")) } else { Ok(()) }
        })
        .open()
        .unwrap();
    world.bus.publish_all((0..10).map(Order::placed)).unwrap();
    assert_eq!(kitchen.drain().unwrap(), 3);
    assert_eq!(kitchen.stats().breaker, BreakerState::Open);
    world.clock.advance(59_999);
    assert_eq!(kitchen.drain().unwrap(), 0);
    world.clock.advance(1);
    assert_eq!(kitchen.drain().unwrap(), 1, "one event is tried");
    assert_eq!(kitchen.stats().breaker, BreakerState::Open);
    world.clock.advance(60_000);
    *is_down.lock().unwrap() = false;
    assert_eq!(kitchen.drain().unwrap(), 10);
    assert_eq!((kitchen.stats().breaker, kitchen.stats().handled), (BreakerState::Closed, 10));
    assert_eq!(world.dead("kitchen"), [""; 0]);
    assert_eq!(notes.taken().len(), 14);
    assert_eq!(world.faults().len(), 2, "each opening is reported");
}

#[test]
fn leases_are_extended_while_a_handler_runs() {
    let world = World::new();
    let (bus, clock, topic) =
        (world.bus.clone(), Arc::clone(&world.clock), world.store.topic("events").open().unwrap());
    let group = topic.group("kitchen").open().unwrap();
    let other = group.clone();
    let kitchen = world
        .bus
        .subscriber("kitchen")
        .on("order.placed", move |_: &millpond_events::Incoming<Order>| {
            for _ in 0..20 {
                clock.advance(10_000);
                bus.tick();
                assert!(other.receive(Duration::ZERO)?.is_none(), "another consumer gets it");
            }
            Ok(())
        })
        .open()
        .unwrap();
    world.bus.publish(Order::placed(1)).unwrap();
    assert_eq!(kitchen.drain().unwrap(), 1);
    assert_eq!((kitchen.stats().handled, kitchen.stats().lost), (1, 0));
    assert!(group.receive(Duration::ZERO).unwrap().is_none());
    assert_eq!(world.faults(), [""; 0]);
    let _report = world.bus.shutdown(Duration::ZERO);
}

#[test]
fn a_handler_that_lost_its_lease_is_reported() {
    let world = World::new();
    let group = Arc::new(Mutex::new(None));
    let (clock, taken, bus) = (Arc::clone(&world.clock), Arc::clone(&group), world.bus.clone());
    let kitchen = world
        .bus
        .subscriber("kitchen")
        .on("order.placed", move |_: &millpond_events::Incoming<Order>| {
            // Nothing ticks for longer than the lease lasts, as in a process that is suspended, and another consumer comes.
            clock.advance(30_001);
            let group: &millpond::Group = &taken.lock().unwrap().clone().unwrap();
            group.receive(Duration::ZERO).unwrap().unwrap().ack().unwrap();
            bus.tick();
            Ok(())
        })
        .open()
        .unwrap();
    *group.lock().unwrap() = Some(world.store.topic("events").open().unwrap().group("kitchen").open().unwrap());
    world.bus.publish(Order::placed(1)).unwrap();
    kitchen.drain().unwrap();
    assert_eq!((kitchen.stats().handled, kitchen.stats().lost, kitchen.stats().in_progress), (0, 1, 0));
    assert_eq!(world.faults().len(), 1);
    assert!(world.faults()[0].contains("lost the lease"), "{:?}", world.faults());
    let _report = world.bus.shutdown(Duration::ZERO);
}

#[test]
fn names_and_options_are_checked() {
    let (world, notes) = (World::new(), Notes::default());
    let subscriber = |name: &str| world.bus.subscriber(name).on("order.*", noting(&notes));
    let _kitchen = subscriber("kitchen").open().unwrap();
    assert!(matches!(subscriber("kitchen").open(), Err(Error::NameInUse { .. })));
    assert!(matches!(world.bus.subscriber("x").open(), Err(Error::InvalidOption { option: "on", .. })));
    assert!(matches!(subscriber("x").workers(0).open(), Err(Error::InvalidOption { option: "workers", .. })));
    assert!(matches!(subscriber("x").timeout(Duration::ZERO).open(), Err(Error::InvalidOption { .. })));
    assert!(matches!(subscriber("x").on("a..b", noting(&notes)).open(), Err(Error::InvalidPattern { .. })));
    assert!(matches!(Bus::builder(&world.store).source("").open(), Err(Error::InvalidAttribute { .. })));
    let _report = world.bus.shutdown(Duration::ZERO);
    assert!(matches!(subscriber("x").open(), Err(Error::Stopped)));
    assert!(matches!(world.bus.publish(Order::Cancelled), Err(Error::Stopped)));
}

/// Ticks in another thread, ten seconds later each time, until the lease would be over. Returns whether the ticks came to an end.
fn tick_past_the_lease(clock: &Arc<millpond::simulation::SimClock>, bus: &Bus) -> bool {
    let (clock, bus) = (Arc::clone(clock), bus.clone());
    let (end, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for _ in 0..4 {
            clock.advance(10_000);
            bus.tick();
        }
        end.send(())
    });
    ended.recv_timeout(10 * SECOND).is_ok()
}

#[test]
fn leases_are_extended_while_an_event_is_decoded_and_checked() {
    struct Slow(Mutex<Option<Box<dyn Fn() -> bool + Send>>>);
    impl Validator for Slow {
        fn check(&self, _: &str, _: u32, _: &[u8]) -> Result<(), SchemaViolation> {
            if let Some(tick) = &*self.0.lock().unwrap() {
                assert!(tick(), "a tick waits for the check");
            }
            Ok(())
        }
    }
    let slow = Arc::new(Slow(Mutex::new(None)));
    let world = World::with(|builder| builder.validator(slow.clone()).validate_received(true));
    let notes = Notes::default();
    let kitchen = world.bus.subscriber("kitchen").on("order.*", noting(&notes)).open().unwrap();
    world.bus.publish(Order::placed(1)).unwrap();
    let (clock, bus) = (Arc::clone(&world.clock), world.bus.clone());
    *slow.0.lock().unwrap() = Some(Box::new(move || tick_past_the_lease(&clock, &bus)));
    let (clock, bus) = (Arc::clone(&world.clock), world.bus.clone());
    let decoding = move || assert!(tick_past_the_lease(&clock, &bus), "a tick waits for the decoder");
    DECODING.set(Some(Box::new(decoding)));
    kitchen.drain().unwrap();
    DECODING.set(None);
    assert_eq!((kitchen.stats().handled, kitchen.stats().lost), (1, 0), "{:?}", world.faults());
    *slow.0.lock().unwrap() = None;
}

#[test]
fn data_that_is_no_json_is_not_checked() {
    struct Never;
    impl Validator for Never {
        fn check(&self, event_type: &str, version: u32, _: &[u8]) -> Result<(), SchemaViolation> {
            let (path, rule) = (String::new(), "never".to_owned());
            Err(SchemaViolation { event_type: event_type.to_owned(), version, path, rule, count: 1 })
        }
    }
    let world = World::with(|builder| builder.validator(Arc::new(Never)).validate_received(true));
    let notes = Notes::default();
    let noted = notes.clone();
    let kitchen = world.bus.subscriber("kitchen").on_raw("*.*", move |event| {
        noted.note(String::from_utf8_lossy(event.data()));
        Ok(())
    });
    let kitchen = kitchen.open().unwrap();
    world.bus.publish(RawEvent::new("note.written", 1, "text/plain", "hello")).unwrap();
    assert!(matches!(world.bus.publish(Order::Cancelled), Err(Error::Schema(_))));
    kitchen.drain().unwrap();
    assert_eq!((notes.taken(), world.dead("kitchen")), (vec!["hello".to_owned()], vec![]));
}

#[test]
fn relay_in_a_circle_comes_to_an_end() {
    let world = World::with(|builder| builder.chain_max(5));
    let bus = world.bus.clone();
    let relay = world.bus.subscriber("relay").on_raw("order.*", move |event| {
        bus.publish(RawEvent::clone(event))?;
        Ok(())
    });
    let relay = relay.open().unwrap();
    world.bus.publish(Order::Cancelled).unwrap();
    assert_eq!(relay.drain().unwrap(), 7);
    assert_eq!(world.dead("relay"), ["chain too long: 6 events before it, limit 5"]);
    let _report = world.bus.shutdown(Duration::ZERO);
}

#[test]
fn publish_after_the_end_of_the_handler_is_refused() {
    let world = World::new();
    let kept = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&kept);
    let kitchen = world
        .bus
        .subscriber("kitchen")
        .on_async("order.placed", move |order: Arc<Incoming<Order>>| {
            *keep.lock().unwrap() = Some(order);
            async { Ok(()) }
        })
        .open()
        .unwrap();
    world.bus.publish(Order::placed(1)).unwrap();
    assert_eq!(kitchen.drain().unwrap(), 1);
    let order = kept.lock().unwrap().take().unwrap();
    assert!(matches!(order.message_id(), Err(Error::Stopped)));
    assert!(matches!(order.publish(Order::Cancelled), Err(Error::Stopped)));
}

#[test]
fn full_inbox_of_the_store_rejects_no_event() {
    let (world, notes) = (World::new(), Notes::default());
    let inbox = |name: &str| world.bus.subscriber(name).inbox(1_000_000, 60 * SECOND).on("order.*", noting(&notes));
    let (first, second) = (inbox("first").open().unwrap(), inbox("second").open().unwrap());
    world.bus.publish(Order::placed(1)).unwrap();
    assert_eq!((first.drain().unwrap(), second.drain().unwrap()), (1, 1));
    assert_eq!((first.stats().handled, second.stats().failed, second.stats().rejected), (1, 1, 0));
    assert_eq!(world.dead("second"), [""; 0]);
}

#[test]
fn ack_that_cannot_publish_is_a_failed_attempt_with_its_reason() {
    let world = World::new();
    let kitchen = world
        .bus
        .subscriber("kitchen")
        .max_attempts(1)
        .on("order.placed", |order: &Incoming<Order>| {
            order.publish(RawEvent::new("order.image", 1, "image/png", vec![0; 2 << 20]))?;
            Ok(())
        })
        .open()
        .unwrap();
    world.bus.publish(Order::placed(1)).unwrap();
    assert_eq!(kitchen.drain().unwrap(), 1);
    assert_eq!((kitchen.stats().handled, kitchen.stats().failed), (0, 1));
    let dead = world.dead("kitchen");
    assert_eq!(dead.len(), 1);
    assert!(dead[0].starts_with("message is 2") && dead[0].contains("limit 1048576 bytes"), "{dead:?}");
}

#[test]
fn delay_of_a_retry_beyond_ten_years_is_ten_years() {
    let world = World::new();
    let kitchen = world
        .bus
        .subscriber("kitchen")
        .on("order.placed", |_: &Incoming<Order>| Err(Failure::retry_after(Duration::MAX, "closed for good")))
        .open()
        .unwrap();
    world.bus.publish(Order::placed(1)).unwrap();
    assert_eq!(kitchen.drain().unwrap(), 1);
    assert_eq!(world.faults(), [""; 0]);
    world.clock.advance(3600 * 1000);
    assert_eq!(kitchen.drain().unwrap(), 0);
}

#[test]
fn shutdown_in_its_own_handler_keeps_the_lease() {
    let world = World::new();
    let (bus, clock) = (world.bus.clone(), Arc::clone(&world.clock));
    let group = world.store.topic("events").open().unwrap().group("kitchen").open().unwrap();
    let kitchen = world.bus.subscriber("kitchen").on("order.placed", move |_: &Incoming<Order>| {
        let _report = bus.shutdown(Duration::ZERO);
        for _ in 0..4 {
            clock.advance(10_000);
            bus.tick();
            assert!(group.receive(Duration::ZERO)?.is_none(), "another consumer gets it");
        }
        Ok(())
    });
    let kitchen = kitchen.open().unwrap();
    world.bus.publish(Order::placed(1)).unwrap();
    assert_eq!(kitchen.drain().unwrap(), 1);
    assert_eq!((kitchen.stats().handled, kitchen.stats().lost), (1, 0));
}

#[test]
fn shutdown_tells_what_it_gave_back_itself() {
    let world = World::new();
    let kitchen = world
        .bus
        .subscriber("kitchen")
        .workers(4)
        .breaker(BreakerOptions { failures: 1, pause: 60 * SECOND })
        .on("order.placed", |_: &Incoming<Order>| Err(Failure::retry("down")))
        .open()
        .unwrap();
    world.bus.publish_all((0..4).map(Order::placed)).unwrap();
    assert_eq!(kitchen.drain().unwrap(), 1);
    assert_eq!(kitchen.stats().released, 3, "by the breaker");
    assert_eq!(world.bus.shutdown(Duration::ZERO).released, 0);
    assert_eq!(kitchen.shutdown(Duration::ZERO).released, 0);
}

#[test]
fn rejected_event_says_nothing_about_what_is_down() {
    let world = World::new();
    let kitchen = world
        .bus
        .subscriber("kitchen")
        .breaker(BreakerOptions { failures: 2, pause: 60 * SECOND })
        .on("order.*", |order: &Incoming<Order>| match order.data() {
            Order::Cancelled => Err(Failure::permanent("too late")),
            _ => Err(Failure::retry("down")),
        })
        .open()
        .unwrap();
    world.bus.publish_all([Order::placed(1), Order::Cancelled, Order::placed(2), Order::placed(3)]).unwrap();
    assert_eq!(kitchen.drain().unwrap(), 3);
    assert_eq!(kitchen.stats().breaker, BreakerState::Open);
}

#[test]
fn message_id_is_the_same_at_each_attempt() {
    let (world, notes) = (World::new(), Notes::default());
    let noted = notes.clone();
    let kitchen =
        world.bus.subscriber("kitchen").backoff(Backoff::none()).on("order.*", move |order: &Incoming<Order>| {
            noted.note(order.message_id()?);
            if order.attempt() == 1 { Err(Failure::permanent("burnt")) } else { Ok(()) }
        });
    let kitchen = kitchen.open().unwrap();
    let group = world.store.topic("events").open().unwrap().group("kitchen").open().unwrap();
    world.bus.publish(Order::placed(1)).unwrap();
    kitchen.drain().unwrap();
    let dead = group.dead_letters().unwrap().next().unwrap().unwrap();
    let id = dead.origin().to_string();
    dead.redrive().unwrap();
    kitchen.drain().unwrap();
    assert_eq!(notes.taken(), [id.clone(), id.clone()]);
    assert!(id.parse::<millpond::MessageId>().is_ok());
}
