//! What is counted, under which names and labels.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{Order, World};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use millpond_events::{Failure, Incoming, RawEvent, record_store};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Keeps every number by name and labels.
#[derive(Default)]
struct Page {
    counters: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
    gauges: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
    histograms: Mutex<BTreeMap<String, Arc<Count>>>,
}

#[derive(Default)]
struct Count(AtomicU64);

impl metrics::HistogramFn for Count {
    fn record(&self, _value: f64) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn name(key: &Key) -> String {
    let labels: Vec<String> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
    format!("{}{{{}}}", key.name(), labels.join(","))
}

impl Recorder for Page {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::clone(self.counters.lock().unwrap().entry(name(key)).or_default()))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(Arc::clone(self.gauges.lock().unwrap().entry(name(key)).or_default()))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::clone(self.histograms.lock().unwrap().entry(name(key)).or_default()))
    }
}

impl Page {
    fn counter(&self, name: &str) -> u64 {
        self.counters.lock().unwrap().get(name).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    fn gauge(&self, name: &str) -> Option<f64> {
        self.gauges.lock().unwrap().get(name).map(|bits| f64::from_bits(bits.load(Ordering::Relaxed)))
    }

    fn histogram(&self, name: &str) -> u64 {
        self.histograms.lock().unwrap().get(name).map_or(0, |count| count.0.load(Ordering::Relaxed))
    }
}

#[test]
fn events_are_counted_by_type_status_and_error() {
    let page = Page::default();
    let world = World::new();
    let kitchen = world.bus.subscriber("kitchen").on("*.*", |order: &Incoming<Order>| match order.data() {
        Order::Cooked(1) => Err(Failure::retry("cold")),
        Order::Cooked(2) => panic!("burnt"),
        Order::Cancelled => Err(Failure::permanent("no")),
        _ => Ok(()),
    });
    let kitchen = kitchen.open().unwrap();
    metrics::with_local_recorder(&page, || {
        world.bus.publish_all([Order::placed(1), Order::placed(2), Order::Cooked(1), Order::Cooked(2)]).unwrap();
        world.bus.publish(Order::Cancelled).unwrap();
        world.bus.publish(RawEvent::new("order.placed", 9, "application/json", "1")).unwrap();
        world.clock.advance(1500);
        record_store(&world.store).unwrap();
        assert_eq!(page.gauge("events_lag{topic=events,group=kitchen}"), Some(6.0));
        assert_eq!(page.gauge("events_oldest_seconds{topic=events,group=kitchen}"), Some(1.5));
        assert_eq!(kitchen.drain().unwrap(), 6);
        record_store(&world.store).unwrap();
    });
    let expected = [
        ("events_published_total{type=order.placed}", 3),
        ("events_published_total{type=order.cooked}", 2),
        ("events_processed_total{type=order.placed,status=ok}", 2),
        ("events_processed_total{type=order.placed,status=rejected}", 1),
        ("events_processed_total{type=order.cooked,status=failed}", 2),
        ("events_failed_total{type=order.cooked,error=handler}", 1),
        ("events_failed_total{type=order.cooked,error=panic}", 1),
        ("events_failed_total{type=order.cancelled,error=permanent}", 1),
        ("events_failed_total{type=order.placed,error=decode}", 1),
        ("events_rejected_total{}", 2),
        ("events_processed_total{type=order.lost,status=ok}", 0),
    ];
    for (name, count) in expected {
        assert_eq!(page.counter(name), count, "{name}: {:?}", page.counters.lock().unwrap().keys());
    }
    assert_eq!(page.histogram("events_processing_seconds{type=order.placed}"), 3);
    assert_eq!(page.gauge("events_dead_letters{topic=events,group=kitchen}"), Some(2.0));
    assert_eq!(page.gauge("events_lag{topic=events,group=kitchen}"), Some(2.0), "two wait for another attempt");
    // Last, for the process has one bound for all labels.
    labels_of_types_are_bounded();
}

fn labels_of_types_are_bounded() {
    let page = Page::default();
    let world = World::new();
    metrics::with_local_recorder(&page, || {
        for number in 0..1000 {
            world.bus.publish(RawEvent::new(format!("type.{number}"), 1, "application/json", "1")).unwrap();
        }
    });
    let counters = page.counters.lock().unwrap();
    let labels = counters.keys().filter(|name| name.starts_with("events_published_total")).count();
    assert!(labels <= 201, "{labels}");
    assert!(counters["events_published_total{type=other}"].load(Ordering::Relaxed) >= 800);
}

/// The names of metrics in a text, without what a page appends to those of histograms.
fn names(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_lowercase() || c == '_';
    let words = text.split(|c| !is_part(c)).filter(|word| word.starts_with("events_") && word.len() > 7);
    words.map(|word| word.strip_suffix("_bucket").unwrap_or(word).to_owned()).collect()
}

#[test]
fn guide_alerts_and_dashboard_have_the_names_of_the_code() {
    let code = include_str!("../src/observe.rs");
    let literals: String = code.split('"').skip(1).step_by(2).map(|literal| format!("{literal} ")).collect();
    let code = names(&literals);
    assert_eq!(code.len(), 13, "{code:?}");
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs");
    let read = |name: &str| std::fs::read_to_string(format!("{docs}/{name}")).unwrap();
    assert_eq!(names(&read("metrics.md")), code);
    let shown = names(&read("monitoring/grafana.json"));
    assert_eq!(shown, code, "each has its panel");
    let watched = names(&read("monitoring/alerts.yml"));
    let unknown: Vec<_> = watched.difference(&code).collect();
    assert!(unknown.is_empty() && watched.len() >= 5, "{unknown:?}");
    let tested = names(&read("monitoring/alerts_test.yml"));
    assert_eq!(tested, watched, "each rule has its test");
}
