//! What a program with a bus shows of itself: a page for Prometheus, and spans with one trace through two services.
//!
//! ```text
//! cargo run -p millpond-events --features "metrics tracing" --example observed_handler
//! cargo run -p millpond-events --features "metrics tracing" --example observed_handler -- --page page.txt
//! ```
//!
//! A kitchen cooks twenty orders, of which one fails once and one for good, and a courier delivers what is cooked, until five are left.
//! Then the program reads its own page. Each number on it must be what happened. The clock is simulated, so times are on it too.

#![allow(clippy::print_stdout, reason = "this program talks to a person at a terminal")]

#[path = "support/spans.rs"]
mod spans;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use millpond::simulation::{Clock as _, SimClock, SimDisk, WallMs};
use millpond::{Backoff, Durability, Store};
use millpond_events::{
    Bus, Clock, Encoded, Event, EventType, Failure, Incoming, Variant, describe_metrics, json, record_store,
};
use spans::{Span, Spans};
use std::collections::BTreeSet;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

enum Order {
    Placed(u32),
    Cooked(u32),
}

impl EventType for Order {
    const VARIANTS: &'static [Variant<Self>] = &[
        Variant::new("order.placed", 1, |data| json(data).map(Self::Placed)),
        Variant::new("order.cooked", 1, |data| json(data).map(Self::Cooked)),
    ];

    fn encode(&self) -> Encoded {
        match self {
            Self::Placed(number) => Encoded::json("order.placed", 1, number),
            Self::Cooked(number) => Encoded::json("order.cooked", 1, number),
        }
    }
}

/// The clock of the simulation, for the store and the bus.
#[derive(Debug)]
struct Simulated(Arc<SimClock>);

impl Clock for Simulated {
    fn wall(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0.wall().0)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.monotonic().0)
    }
}

/// Lines that the page must have. Eighteen orders are cooked at once, one after a failure, and one is not cooked at all.
const EXPECTED: &[&str] = &[
    r#"events_published_total{type="order.placed"} 20"#,
    r#"events_published_total{type="order.cooked"} 19"#,
    r#"events_processed_total{type="order.placed",status="ok"} 19"#,
    r#"events_processed_total{type="order.placed",status="failed"} 1"#,
    r#"events_processed_total{type="order.placed",status="rejected"} 1"#,
    r#"events_processed_total{type="order.cooked",status="ok"} 14"#,
    r#"events_failed_total{type="order.placed",error="handler"} 1"#,
    r#"events_failed_total{type="order.placed",error="permanent"} 1"#,
    "events_rejected_total 1",
    r#"events_processing_seconds_bucket{type="order.placed",le="1"} 21"#,
    r#"events_processing_seconds_count{type="order.placed"} 21"#,
    r#"events_processing_seconds_sum{type="order.placed"} 2.625"#,
    r#"events_dead_total{topic="events",group="kitchen"} 1"#,
    r#"events_dead_letters{topic="events",group="kitchen"} 1"#,
    // Five are cooked, and five placed: those that nobody wants are settled when the next event is looked for.
    r#"events_lag{topic="events",group="courier"} 10"#,
    r#"events_in_flight{topic="events",group="courier"} 0"#,
];

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

fn run() -> Result<(String, Vec<Span>), Box<dyn Error>> {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &[0.01, 0.1, 1.0, 10.0, 60.0])?
        .build_recorder();
    let page = recorder.handle();
    let spans = Spans::default();
    let log = spans.clone();
    let store = metrics::with_local_recorder(&recorder, || tracing::subscriber::with_default(spans, work))?;
    drop(store);
    Ok((page.render(), log.taken()))
}

fn work() -> Result<Store, Box<dyn Error>> {
    describe_metrics();
    let (disk, clock) = (SimDisk::new(1), Arc::new(SimClock::new(WallMs(1_800_000_000_000))));
    let options = Store::options().durability(Durability::Os);
    let store = options.open_on(Arc::new(disk.attach()?), clock.clone())?;
    let bus = Bus::builder(&store).clock(Arc::new(Simulated(Arc::clone(&clock)))).open()?;
    let cooking = Arc::clone(&clock);
    let kitchen = bus
        .subscriber("kitchen")
        .backoff(Backoff::fixed(Duration::from_secs(1)))
        .on("order.placed", move |order: &Incoming<Order>| {
            cooking.advance(125);
            match order.data() {
                Order::Placed(7) => Err(Failure::permanent("no such dish")),
                Order::Placed(3) if order.attempt() == 1 => Err(Failure::retry("the oven is cold")),
                Order::Placed(number) | Order::Cooked(number) => {
                    order.publish(Order::Cooked(*number))?;
                    Ok(())
                }
            }
        })
        .open()?;
    let courier = bus.subscriber("courier").on("order.cooked", |_: &Incoming<Order>| Ok(())).open()?;
    let place = |numbers: std::ops::Range<u32>| {
        let parent = format!("00-{TRACE}-b7ad6b7169203331-01");
        let order = |number| Event::new(Order::Placed(number)).with_traceparent(&parent);
        numbers.map(order).try_for_each(|order| bus.publish(order).map(drop))
    };
    place(0..15)?;
    kitchen.drain()?;
    clock.advance(1_000);
    kitchen.drain()?;
    courier.drain()?;
    // What comes now, the courier does not get to.
    place(15..20)?;
    kitchen.drain()?;
    record_store(&store)?;
    Ok(store)
}

/// Whether the page has every line, and nothing else of these names.
fn check_page(page: &str) -> Result<(), String> {
    let name = |line: &str| line.split(['{', ' ']).next().unwrap_or_default().to_owned();
    let names: BTreeSet<String> = EXPECTED.iter().map(|line| name(line)).collect();
    for expected in EXPECTED {
        let count = page.lines().filter(|line| line == expected).count();
        if count != 1 {
            return Err(format!("the page has {count} lines {expected:?}"));
        }
    }
    // Histograms and gauges have lines for more labels than are checked.
    let is_checked = |line: &&str| name(line).ends_with("_total") && names.contains(&name(line));
    let others = page.lines().filter(is_checked).find(|line| !EXPECTED.contains(line) && !line.ends_with(" 0"));
    others.map_or(Ok(()), |line| Err(format!("the page has {line:?}")))
}

/// Whether each publish, each attempt and each settle has its span, all of one trace.
fn check_spans(spans: &[Span]) -> Result<(), String> {
    for (name, expected) in [("publish events", 20), ("handle event", 35), ("settle event", 35)] {
        let of_name: Vec<&Span> = spans.iter().filter(|span| span.name == name).collect();
        if of_name.len() != expected {
            return Err(format!("{} spans {name:?} instead of {expected}", of_name.len()));
        }
        if let Some(other) = of_name.iter().find(|span| !span.fields.contains(TRACE)) {
            return Err(format!("a span of another trace: {other:?}"));
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let (page, spans) = run()?;
    let mut args = std::env::args().skip(1);
    if let (Some("--page"), Some(path)) = (args.next().as_deref(), args.next()) {
        std::fs::write(path, &page)?;
    }
    println!("{page}");
    for span in spans.iter().filter(|span| span.fields.contains("order.cooked")).take(3) {
        println!("{}{}", span.name, span.fields);
    }
    check_page(&page)?;
    check_spans(&spans)?;
    println!("the page and the spans say what happened");
    Ok(())
}

#[test]
fn the_checks_find_what_is_missing_or_wrong() {
    let (page, spans) = run().unwrap();
    assert_eq!((check_page(&page), check_spans(&spans)), (Ok(()), Ok(())));
    for expected in EXPECTED {
        assert!(check_page(&page.replace(expected, "")).is_err(), "{expected} is missing");
        assert!(check_page(&page.replace(expected, &format!("{expected}\n{expected}"))).is_err(), "{expected} twice");
        assert!(check_page(&page.replace(expected, &format!("{expected}1"))).is_err(), "{expected} is another number");
    }
    for nth in 0..spans.len() {
        let mut lost = spans.clone();
        lost.remove(nth);
        assert!(check_spans(&lost).is_err(), "span {nth} is lost");
        let mut other = spans.clone();
        other[nth].fields = other[nth].fields.replace(TRACE, "ffff");
        assert!(check_spans(&other).is_err(), "span {nth} is of another trace");
    }
}
