//! Streams on the bus: appends that are publications, aggregates that decide again, and dead letters as events.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{Notes, Order, World};
use millpond::{Expected, Message};
use millpond_events::transport::TransportErrorKind;
use millpond_events::{
    Aggregate, DecodeError, Encoded, Error, Event, EventFailed, EventType, Failure, Incoming, RawEvent, Repository,
    RepositoryError, Variant, json,
};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn world() -> World {
    World::with(|builder| builder.streams())
}

#[test]
fn append_is_the_publication_of_its_events() {
    let (world, notes) = (world(), Notes::default());
    let noted = notes.clone();
    let kitchen = world.bus.subscriber("kitchen").on("order.*", move |order: &Incoming<Order>| {
        noted.note(format!("{} {:?}", order.subject().unwrap(), order.data()));
        Ok(())
    });
    let kitchen = kitchen.open().unwrap();
    let first = world.bus.append("o-1", Expected::NoStream, [Order::Cooked(1), Order::Cooked(2)]).unwrap();
    assert_eq!((first.first_version, first.last_version, first.ids.len()), (0, 1, 2));
    let late = world.bus.append("o-1", Expected::Version(0), [Order::Cancelled]);
    assert!(matches!(late, Err(Error::Transport(error)) if error.kind() == TransportErrorKind::Conflict));
    let next = world.bus.append("o-1", Expected::Version(1), [Order::Cooked(3)]).unwrap();
    assert_eq!((next.first_version, next.last_version), (2, 2));
    kitchen.drain().unwrap();
    assert_eq!(notes.taken(), ["o-1 Cooked(1)", "o-1 Cooked(2)", "o-1 Cooked(3)"]);
}

#[test]
fn append_refuses_what_is_no_event_of_its_stream() {
    let world = world();
    let other = [Event::new(Order::Cancelled).with_subject("o-2")];
    let refused = world.bus.append("o-1", Expected::Any, other);
    assert!(matches!(refused, Err(Error::InvalidAttribute { attribute, .. }) if attribute == "subject"));
    let nothing = world.bus.append("o-1", Expected::Any, [Order::Cancelled; 0]);
    assert!(matches!(nothing, Err(Error::Transport(error)) if error.kind() == TransportErrorKind::FixCall));
    let plain = World::new();
    let refused = plain.bus.append("o-1", Expected::Any, [Order::Cancelled]);
    assert!(matches!(refused, Err(Error::Unsupported { what: "streams" })));
    assert!(matches!(plain.bus.repository::<Account>(), Err(Error::Unsupported { what: "streams" })));
    let _report = world.bus.shutdown(Duration::ZERO);
    assert!(matches!(world.bus.append("o-1", Expected::Any, [Order::Cancelled]), Err(Error::Stopped)));
}

/// An account that counts, and that runs code of the test whenever it decides.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Account {
    sum: u64,
    events: u64,
}

struct Added(u64);

impl EventType for Added {
    const VARIANTS: &'static [Variant<Self>] = &[Variant::new("sum.added", 1, |data| json(data).map(Self))];

    fn encode(&self) -> Encoded {
        Encoded::json("sum.added", 1, &self.0)
    }
}

thread_local! {
    static DECIDING: RefCell<Option<Box<dyn Fn()>>> = const { RefCell::new(None) };
}

impl Aggregate for Account {
    type Command = u64;
    type Event = Added;
    type Error = &'static str;

    fn handle(&self, number: &u64) -> Result<Vec<Added>, &'static str> {
        DECIDING.with_borrow(|hook| hook.iter().for_each(|hook| hook()));
        match number {
            0 => Ok(Vec::new()),
            number if self.sum + number > 1_000_000 => Err("too much"),
            number => Ok(vec![Added(*number)]),
        }
    }

    fn apply(&mut self, event: &Added) {
        (self.sum, self.events) = (self.sum + event.0, self.events + 1);
    }
}

#[test]
fn commands_of_eight_racing_threads_are_all_carried_out() {
    let world = world();
    let accounts = world.bus.repository::<Account>().unwrap().attempts(10_000).snapshot_every(7);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let accounts = &accounts;
            scope.spawn(move || {
                for number in 0..25 {
                    accounts.execute("a", &(1 + thread * 25 + number)).unwrap();
                }
            });
        }
    });
    let loaded = accounts.load("a").unwrap();
    assert_eq!((loaded.state(), loaded.version()), (&Account { sum: 200 * 201 / 2, events: 200 }, Some(199)));
}

#[test]
fn command_that_always_comes_late_is_a_typed_error() {
    let world = world();
    let accounts = world.bus.repository::<Account>().unwrap().attempts(3);
    let bus = world.bus.clone();
    DECIDING.set(Some(Box::new(move || drop(bus.append("a", Expected::Any, [Added(5)]).unwrap()))));
    let late = accounts.execute("a", &1);
    DECIDING.set(None);
    let Err(RepositoryError::TooManyConflicts { stream, attempts: 3, .. }) = late else { panic!("{late:?}") };
    assert_eq!(stream, "a");
    assert_eq!(accounts.load("a").unwrap().state().sum, 15, "the others, and nothing of the command");
}

#[test]
fn refused_and_empty_decisions_append_nothing() {
    let world = world();
    let accounts = world.bus.repository::<Account>().unwrap();
    assert_eq!(accounts.execute("a", &0).unwrap().version(), None);
    assert!(matches!(accounts.execute("a", &1_000_001), Err(RepositoryError::Command("too much"))));
    assert_eq!(accounts.load("a").unwrap(), accounts.execute("a", &0).unwrap());
    assert_eq!(accounts.load("a").unwrap().version(), None);
}

fn stream(world: &World, key: &str) -> millpond::Stream {
    world.store.topic("events").open().unwrap().stream(key).unwrap()
}

#[test]
fn snapshot_and_the_fold_of_all_events_are_the_same() {
    let world = world();
    let plain: Repository<Account> = world.bus.repository().unwrap();
    let quick = world.bus.repository::<Account>().unwrap().snapshot_every(10);
    for number in 1..=995 {
        quick.execute("a", &number).unwrap();
    }
    let snapshot = stream(&world, "a").snapshot().unwrap().unwrap();
    assert_eq!(snapshot.version(), 989, "every ten events");
    let (folded, loaded) = (plain.load("a").unwrap(), quick.load("a").unwrap());
    assert_eq!((folded.state(), folded.version()), (loaded.state(), loaded.version()));
    // What a snapshot says is believed, so this shows that it is used at all.
    stream(&world, "a").save_snapshot(994, r#"{"sum":1,"events":1}"#).unwrap();
    assert_eq!(quick.load("a").unwrap().into_state(), Account { sum: 1, events: 1 });
    // One of another format is not.
    stream(&world, "a").save_snapshot(994, "7").unwrap();
    assert_eq!(quick.load("a").unwrap().state(), folded.state());
    assert_eq!(world.faults(), [""; 0]);
}

#[test]
fn events_that_are_gone_or_unknown_are_typed_errors() {
    let world = world();
    let accounts = world.bus.repository::<Account>().unwrap().snapshot_every(3);
    for number in 1..=5 {
        accounts.execute("a", &number).unwrap();
    }
    // The snapshot is of version 2, and the next event that is there is 4.
    stream(&world, "a").truncate_before(4).unwrap();
    let missing = accounts.load("a");
    assert!(matches!(missing, Err(RepositoryError::MissingEvents { first: 3, next: 4, .. })), "{missing:?}");
    // One that cannot be used does not stand for what was truncated below it.
    stream(&world, "a").save_snapshot(4, "7").unwrap();
    let missing = accounts.load("a");
    assert!(matches!(missing, Err(RepositoryError::MissingEvents { first: 0, next: 4, .. })), "{missing:?}");
    stream(&world, "a").delete().unwrap();
    assert_eq!(accounts.execute("a", &6).unwrap().state(), &Account { sum: 6, events: 1 }, "it begins anew");

    let unknown = RawEvent::new("sum.lost", 1, "application/json", "1");
    world.bus.append("b", Expected::NoStream, [unknown]).unwrap();
    let Err(RepositoryError::Decode { version: 0, source, .. }) = accounts.load("b") else { panic!() };
    assert_eq!(source, DecodeError::UnknownType { event_type: "sum.lost".to_owned() });
    stream(&world, "c").append(Expected::Any, [Message::new("no event")]).unwrap();
    let error = accounts.execute("c", &1).unwrap_err();
    assert!(matches!(error, RepositoryError::Decode { source: DecodeError::NotCloudEvent { .. }, .. }), "{error:?}");
}

#[test]
fn events_of_a_command_in_a_handler_continue_its_chain() {
    let (world, notes) = (world(), Notes::default());
    let accounts = world.bus.repository::<Account>().unwrap();
    let noted = notes.clone();
    let booking = world
        .bus
        .subscriber("booking")
        .on("order.*", move |_: &Incoming<Order>| {
            accounts.execute("a", &1).map_err(|error| Failure::permanent(format!("{error:?}")))?;
            Ok(())
        })
        .on("sum.*", move |added: &Incoming<Added>| {
            noted.note(format!("{} {:?} {}", added.correlation_id(), added.causation_id(), added.subject().unwrap()));
            Ok(())
        });
    let booking = booking.open().unwrap();
    world.bus.publish(Event::new(Order::Cancelled).with_id("o-1")).unwrap();
    booking.drain().unwrap();
    assert_eq!(notes.taken(), ["o-1 Some(\"o-1\") a"]);
    let _report = world.bus.shutdown(Duration::ZERO);
}

#[test]
fn dead_letter_is_told_as_an_event() {
    let (world, notes) = (World::new(), Notes::default());
    let noted = notes.clone();
    let kitchen = world
        .bus
        .subscriber("kitchen")
        .max_attempts(2)
        .backoff(millpond::Backoff::none())
        .tell_failed()
        .on("order.*", |order: &Incoming<Order>| match order.data() {
            Order::Cooked(_) => Err(Failure::permanent("cold")),
            _ => Err(Failure::retry("burnt")),
        })
        .open()
        .unwrap();
    let alerts = world
        .bus
        .subscriber("alerts")
        .tell_failed()
        .on("event.failed", move |failed: &Incoming<EventFailed>| {
            let EventFailed { topic, subscriber, cause, reason, attempts, time_ms, .. } = failed.data();
            noted.note(format!("{topic} {subscriber} {cause} {reason} {attempts} {time_ms} {}", failed.source()));
            if reason == "cold" { Err(Failure::permanent("no alarm")) } else { Ok(()) }
        })
        .open()
        .unwrap();
    world.bus.publish_all([Order::Cancelled, Order::Cooked(1)]).unwrap();
    world.clock.advance(1_000);
    assert_eq!(kitchen.drain().unwrap(), 3);
    assert_eq!(alerts.drain().unwrap(), 2);
    let expected = [
        "events kitchen rejected cold 1 1800000001000 /events/kitchen",
        "events kitchen nacked burnt 2 1800000001000 /events/kitchen",
    ];
    let mut told = notes.taken();
    told.sort();
    let mut expected = expected.map(str::to_owned);
    expected.sort();
    assert_eq!(told, expected);
    assert_eq!((alerts.drain().unwrap(), world.dead("alerts")), (0, vec!["no alarm".to_owned()]), "not told again");
    assert_eq!(kitchen.drain().unwrap(), 0, "what does not match is settled");
}

#[test]
fn dead_letters_are_told_to_listeners_and_only_on_demand() {
    let world = World::new();
    let (tell, told) = std::sync::mpsc::channel();
    let _listener = world.bus.listen("event.failed", move |failed: &Event<EventFailed>| {
        tell.send(failed.data().subscriber.clone()).unwrap();
        Ok(())
    });
    for (name, tells) in [("quiet", false), ("loud", true)] {
        let builder = world.bus.subscriber(name).on("order.*", |_: &Incoming<Order>| Err(Failure::permanent("no")));
        let subscriber = if tells { builder.tell_failed() } else { builder }.open().unwrap();
        world.bus.publish(Order::Cancelled).unwrap();
        subscriber.drain().unwrap();
    }
    // The one of the second event, and of the first, which the loud one also gets.
    assert_eq!(
        [told.recv_timeout(60 * SECOND), told.recv_timeout(60 * SECOND)],
        [Ok("loud".into()), Ok("loud".into())]
    );
    assert!(told.try_recv().is_err());
}
