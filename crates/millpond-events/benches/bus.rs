//! What the bus costs on top of the calls of the store, at `Os`: `cargo bench -p millpond-events --bench bus --features schema`.
//!
//! Each row is the median of rounds that take turns with those of the other rows. Without `--bench` the numbers are tiny and nothing is
//! measured: then this is a test.

#![allow(clippy::disallowed_methods, reason = "it measures by the clock of this machine")]
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for a terminal, which gives up where it cannot go on"
)]

use millpond::{Durability, Message, Retention, Store, Topic};
use millpond_events::{Bus, Encoded, Event, EventType, Incoming, Subscriber, SubscriberBuilder, Variant, json};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An order, of 200 bytes as JSON.
#[derive(Clone, Serialize, Deserialize)]
struct Placed {
    order: u64,
    customer: String,
    dishes: Vec<String>,
    cents: u32,
    address: String,
}

impl Placed {
    fn new(order: u64) -> Self {
        Self {
            order: 1_000_000 + order,
            customer: "customer-4711".to_owned(),
            dishes: vec!["tomato soup".to_owned(), "pizza margherita".to_owned(), "tiramisu".to_owned()],
            cents: 4_250,
            address: "Hauptstrasse 17, second floor on the left, 10115 Berlin".to_owned(),
        }
    }
}

impl EventType for Placed {
    const VARIANTS: &'static [Variant<Self>] = &[Variant::new("order.placed", 1, json)];

    fn encode(&self) -> Encoded {
        Encoded::json("order.placed", 1, self)
    }
}

struct World {
    _dir: tempfile::TempDir,
    store: Store,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::options().durability(Durability::Os).open(dir.path().join("store")).unwrap();
        Self { _dir: dir, store }
    }
}

/// The same message as the bus makes, by the calls of the store.
fn message(payload: &[u8]) -> Message<'_> {
    Message::new(payload)
        .header("ce_specversion", "1.0")
        .header("ce_id", "01a223df-d294-7340-be88-a8ae56cab2e7")
        .header("ce_source", "/millpond")
        .header("ce_type", "order.placed")
        .header("ce_time", "2026-11-28T20:38:00.000Z")
        .header("ce_correlationid", "01a223df-d294-7340-be88-a8ae56cab2e7")
        .header("content-type", "application/json")
}

/// A way to publish and handle events: so many in one round.
type Row = (&'static str, Box<dyn FnMut(u64) -> Duration>);

fn raw(one_by_one: bool) -> Box<dyn FnMut(u64) -> Duration> {
    let world = World::new();
    let topic: Topic = world.store.topic("raw").open().unwrap();
    let group = topic.group("kitchen").open().unwrap();
    let payload = serde_json::to_vec(&Placed::new(0)).unwrap();
    Box::new(move |count| {
        let _world = &world;
        let block = if one_by_one { 1 } else { count };
        let began = Instant::now();
        for _ in 0..count / block {
            for _ in 0..block {
                topic.publish(message(&payload)).unwrap();
            }
            for _ in 0..block {
                group.receive(Duration::ZERO).unwrap().unwrap().ack().unwrap();
            }
        }
        began.elapsed()
    })
}

fn bus(
    one_by_one: bool,
    handler: impl FnOnce(&Store, SubscriberBuilder) -> SubscriberBuilder,
) -> Box<dyn FnMut(u64) -> Duration> {
    let world = World::new();
    let bus = Bus::open(&world.store).unwrap();
    let kitchen: Subscriber = handler(&world.store, bus.subscriber("kitchen")).open().unwrap();
    Box::new(move |count| {
        let _world = &world;
        let placed = Placed::new(0);
        let block = if one_by_one { 1 } else { count };
        let began = Instant::now();
        for _ in 0..count / block {
            for _ in 0..block {
                bus.publish(placed.clone()).unwrap();
            }
            assert_eq!(kitchen.drain().unwrap() as u64, block);
        }
        began.elapsed()
    })
}

/// Events through eight workers, from the first publish to the last ack.
fn workers(
    events_first: bool,
    handler: impl FnOnce(SubscriberBuilder) -> SubscriberBuilder,
) -> Box<dyn FnMut(u64) -> Duration> {
    let world = World::new();
    let bus = Bus::open(&world.store).unwrap();
    let mut builder = Some(handler(bus.subscriber("kitchen").workers(8)));
    let mut kitchen: Option<Subscriber> = None;
    Box::new(move |count| {
        let _world = &world;
        if events_first && let Some(kitchen) = &kitchen {
            let _report = kitchen.shutdown(Duration::from_secs(10));
        }
        let publish = || (0..count).for_each(|number| drop(bus.publish(Small(number)).unwrap()));
        if events_first {
            publish();
        }
        let before = kitchen.as_ref().filter(|_| !events_first).map_or(0, |kitchen| kitchen.stats().handled);
        let began = Instant::now();
        if events_first {
            let again = bus.subscriber("kitchen").workers(8);
            let again = again.on_async("order.*", |_: Arc<Incoming<Small>>| async { Ok(()) });
            kitchen = Some(builder.take().unwrap_or(again).start().unwrap());
        } else {
            if let Some(builder) = builder.take() {
                kitchen = Some(builder.start().unwrap());
            }
            publish();
        }
        let is_done = |stats: &millpond_events::Stats| stats.handled == before + count;
        assert!(kitchen.as_ref().unwrap().wait(Duration::from_secs(30), is_done));
        began.elapsed()
    })
}

#[derive(Clone)]
struct Small(u64);

impl EventType for Small {
    const VARIANTS: &'static [Variant<Self>] = &[Variant::new("order.small", 1, |data| json(data).map(Self))];

    fn encode(&self) -> Encoded {
        Encoded::json("order.small", 1, &self.0)
    }
}

fn channel() -> Box<dyn FnMut(u64) -> Duration> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    Box::new(move |count| {
        let began = Instant::now();
        runtime.block_on(async {
            let (send, receive) = tokio::sync::mpsc::channel::<Vec<u8>>(1_024);
            let receive = Arc::new(tokio::sync::Mutex::new(receive));
            let workers: Vec<_> = (0..8)
                .map(|_| {
                    let receive = Arc::clone(&receive);
                    tokio::spawn(async move { while receive.lock().await.recv().await.is_some() {} })
                })
                .collect();
            for number in 0..count {
                send.send(serde_json::to_vec(&number).unwrap()).await.unwrap();
            }
            drop(send);
            for worker in workers {
                worker.await.unwrap();
            }
        });
        began.elapsed()
    })
}

#[cfg(feature = "schema")]
fn schema() -> Box<dyn FnMut(u64) -> Duration> {
    use millpond_events::{Schemas, Validator};
    let schema = serde_json::json!({
        "type": "object",
        "required": ["order", "customer", "dishes", "cents", "address"],
        "properties": {
            "order": { "type": "integer", "minimum": 1 },
            "customer": { "type": "string", "pattern": "^customer-[0-9]+$" },
            "dishes": { "type": "array", "minItems": 1, "items": { "type": "string", "maxLength": 40 } },
            "cents": { "type": "integer", "minimum": 0 },
            "address": { "type": "string" },
        },
    });
    let schemas = Schemas::new().add("order.placed", 1, &schema).unwrap();
    let data = serde_json::to_vec(&Placed::new(0)).unwrap();
    Box::new(move |count| {
        let began = Instant::now();
        for _ in 0..count {
            schemas.check("order.placed", 1, std::hint::black_box(&data)).unwrap();
        }
        began.elapsed()
    })
}

fn rows() -> Vec<Row> {
    let plain = |_: &Store, builder: SubscriberBuilder| builder.on("order.*", |_: &Incoming<Placed>| Ok(()));
    let transacted = |store: &Store, builder: SubscriberBuilder| {
        let bills = store.topic("bills").retention(Retention::UntilSettled).open().unwrap();
        builder.on_transaction("order.*", move |tx, order: &Incoming<Placed>| {
            tx.publish(&bills, order.id())?;
            Ok(())
        })
    };
    let inbox = move |store: &Store, builder: SubscriberBuilder| {
        transacted(store, builder.inbox(100_000, Duration::from_secs(3600)))
    };
    let futures = |builder: SubscriberBuilder| builder.on_async("order.*", |_: Arc<Incoming<Small>>| async { Ok(()) });
    let functions = |builder: SubscriberBuilder| builder.on("order.*", |_: &Incoming<Small>| Ok(()));
    vec![
        ("raw, one at a time", raw(true)),
        ("bus, one at a time", bus(true, plain)),
        ("raw, in blocks", raw(false)),
        ("bus, in blocks", bus(false, plain)),
        ("bus, in transactions with a publish", bus(false, transacted)),
        ("bus, in such transactions with an inbox", bus(false, inbox)),
        ("8 async workers, published before", workers(true, futures)),
        ("8 async workers beside the publisher", workers(false, futures)),
        ("8 workers beside the publisher", workers(false, functions)),
        ("8 tasks on a channel of tokio", channel()),
        #[cfg(feature = "schema")]
        ("check of a schema", schema()),
    ]
}

fn main() {
    let is_bench = std::env::args().any(|arg| arg == "--bench");
    let (rounds, count) = if is_bench { (15, 20_000) } else { (1, 50) };
    assert!((180..=220).contains(&serde_json::to_vec(&Placed::new(0)).unwrap().len()));
    assert_eq!(Event::new(Placed::new(0)).event_type(), "order.placed");
    let mut rows = rows();
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); rows.len()];
    for _ in 0..rounds {
        for ((_, row), times) in rows.iter_mut().zip(&mut times) {
            times.push(row(count));
        }
    }
    for ((name, _), times) in rows.iter().zip(&mut times) {
        times.sort();
        let nanos = times[times.len() / 2].as_nanos() / u128::from(count);
        if is_bench {
            println!("{name:45} {nanos:>8} ns an event {:>12} a second", 1_000_000_000 / nanos.max(1));
        }
    }
}
