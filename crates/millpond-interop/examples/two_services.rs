//! One OpenTelemetry trace through two services, which are two processes with a store each.
//!
//! The shop publishes an order, and its courier hands the event to the kitchen as one line of JSON. There a cook handles it, and a waiter
//! what the cook published. Both services export their spans; the shop prints the trace as a tree, and checks that parents and children
//! link up.
//!
//! ```text
//! cargo run -p millpond-interop --example two_services
//! ```

#![allow(clippy::print_stdout, reason = "this program talks to a person at a terminal")]

use millpond::Store;
use millpond_events::{Bus, Encoded, EventType, Failure, Incoming, Outgoing, RawEvent, RawIncoming, Variant, json};
use opentelemetry::trace::{SpanId, TracerProvider};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tracing_subscriber::layer::SubscriberExt;

type AnyError = Box<dyn Error + Send + Sync>;

const LIMIT: Duration = Duration::from_secs(10);

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
            Self::Placed(dishes) => Encoded::json("order.placed", 1, dishes),
            Self::Cooked(dishes) => Encoded::json("order.cooked", 1, dishes),
        }
    }
}

/// A span as a service exports it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Exported {
    service: String,
    trace: String,
    span: String,
    /// Empty for the first span of a trace.
    parent: String,
    /// The span's name, and the subscriber if it has one.
    name: String,
}

impl Exported {
    fn new(service: &str, span: &SpanData) -> Self {
        let subscriber = span.attributes.iter().find(|attribute| attribute.key.as_str() == "subscriber");
        let subscriber = subscriber.map(|subscriber| format!(" {}", subscriber.value)).unwrap_or_default();
        let parent = span.parent_span_id;
        Self {
            service: service.to_owned(),
            trace: span.span_context.trace_id().to_string(),
            span: span.span_context.span_id().to_string(),
            parent: if parent == SpanId::INVALID { String::new() } else { parent.to_string() },
            name: format!("{}{subscriber}", span.name),
        }
    }

    fn to_line(&self) -> String {
        [&self.service, &self.trace, &self.span, &self.parent, &self.name].map(String::as_str).join("\t")
    }

    fn from_line(line: &str) -> Option<Self> {
        let mut parts = line.split('\t').map(str::to_owned);
        let mut next = || parts.next();
        Some(Self { service: next()?, trace: next()?, span: next()?, parent: next()?, name: next()? })
    }
}

/// Keeps the spans of a service.
#[derive(Clone, Debug)]
struct Exporter {
    service: &'static str,
    spans: Arc<Mutex<Vec<Exported>>>,
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        spans.extend(batch.iter().map(|span| Exported::new(self.service, span)));
        Ok(())
    }
}

/// Takes the spans of this process to an exporter.
fn export(service: &'static str) -> Result<Exporter, AnyError> {
    let exporter = Exporter { service, spans: Arc::default() };
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer(service));
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))?;
    Ok(exporter)
}

impl Exporter {
    fn taken(&self) -> Vec<Exported> {
        std::mem::take(&mut self.spans.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn open_bus(dir: &std::path::Path) -> Result<Bus, AnyError> {
    Ok(Bus::open(&Store::open(dir.join("store"))?)?)
}

/// The process of the kitchen: handles the events of its standard input, and prints its spans.
fn kitchen() -> Result<(), AnyError> {
    let (exporter, dir) = (export("kitchen")?, tempfile::tempdir()?);
    let bus = open_bus(dir.path())?;
    bus.on("order.placed", "cook", |order: &Incoming<Order>| {
        if let Order::Placed(dishes) = order.data() {
            order.publish(Order::Cooked(*dishes))?;
        }
        Ok(())
    })?;
    let waiter = bus.on("order.cooked", "waiter", |_: &Incoming<Order>| Ok(()))?;
    let mut orders = 0;
    for line in std::io::stdin().lock().lines() {
        bus.publish(RawEvent::from_json(line?.as_bytes())?)?;
        orders += 1;
    }
    if !waiter.wait(LIMIT, |stats| stats.handled == orders) || bus.shutdown(LIMIT).unfinished > 0 {
        return Err("the kitchen does not end".into());
    }
    exporter.taken().iter().for_each(|span| println!("{}", span.to_line()));
    Ok(())
}

/// The process of the shop. Returns the spans of both.
fn shop() -> Result<Vec<Exported>, AnyError> {
    let (exporter, dir) = (export("shop")?, tempfile::tempdir()?);
    let bus = open_bus(dir.path())?;
    let mut child =
        Command::new(std::env::current_exe()?).arg("kitchen").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let road = Mutex::new(child.stdin.take().ok_or("no way to the kitchen")?);
    let courier = bus.subscriber("courier").on_raw("order.placed", move |order: &RawIncoming| {
        let mut line = Outgoing::from((**order).clone()).to_json()?;
        line.push(b'\n');
        let mut road = road.lock().map_err(|_| Failure::retry("the road is blocked"))?;
        Ok(road.write_all(&line)?)
    });
    let courier = courier.start()?;
    tracing::info_span!("POST /orders").in_scope(|| bus.publish(Order::Placed(2)))?;
    if !courier.wait(LIMIT, |stats| stats.handled == 1) || bus.shutdown(LIMIT).unfinished > 0 {
        return Err("the courier does not end".into());
    }
    // With its handler goes the way to the kitchen, which ends then.
    drop((courier, bus));
    let output = child.wait_with_output()?;
    if !output.status.success() {
        return Err(format!("the kitchen ended with {}", output.status).into());
    }
    let lines = String::from_utf8(output.stdout)?;
    let theirs = lines.lines().filter_map(Exported::from_line);
    Ok(exporter.taken().into_iter().chain(theirs).collect())
}

/// The spans by name, each below its parent, as the trace should have them.
const TREE: &str = "\
shop POST /orders
  shop publish events
    kitchen handle event cook
      kitchen handle event waiter
      kitchen settle event waiter
    kitchen publish events
    kitchen settle event cook
    shop handle event courier
    shop settle event courier
";

/// The trace as a tree.
fn tree(spans: &[Exported]) -> Result<String, String> {
    let mut children: BTreeMap<&str, Vec<&Exported>> = BTreeMap::new();
    for span in spans {
        if spans.iter().any(|other| other.trace != span.trace) {
            return Err("there is more than one trace".to_owned());
        }
        children.entry(&span.parent).or_default().push(span);
    }
    let mut text = String::new();
    let mut waiting: Vec<(usize, &str)> = vec![(0, "")];
    // Depth first: what was added last is next.
    while let Some((depth, parent)) = waiting.pop() {
        if let Some(span) = spans.iter().find(|span| span.span == parent) {
            text += &format!("{}{} {}\n", "  ".repeat(depth - 1), span.service, span.name);
        }
        let mut below = children.remove(parent).unwrap_or_default();
        below.sort_by_key(|span| (&span.service, &span.name));
        waiting.extend(below.iter().rev().map(|span| (depth + 1, &*span.span)));
    }
    match children.into_values().next() {
        Some(lost) => Err(format!("spans without their parent: {lost:?}")),
        None => Ok(text),
    }
}

fn check(spans: &[Exported]) -> Result<String, String> {
    let tree = tree(spans)?;
    if tree == TREE { Ok(tree) } else { Err(format!("the trace is\n{tree}and not\n{TREE}")) }
}

fn main() -> Result<(), AnyError> {
    if std::env::args().nth(1).as_deref() == Some("kitchen") {
        return kitchen();
    }
    let spans = shop()?;
    let tree = check(&spans)?;
    println!("trace {}\n{tree}one trace through two services", spans[0].trace);
    Ok(())
}

#[test]
fn trace_that_does_not_link_up_is_found() {
    let span = |service: &str, span: &str, parent: &str, name: &str| Exported {
        service: service.to_owned(),
        trace: "1".to_owned(),
        span: span.to_owned(),
        parent: parent.to_owned(),
        name: name.to_owned(),
    };
    let right = [
        span("shop", "a", "", "POST /orders"),
        span("shop", "b", "a", "publish events"),
        span("shop", "c", "b", "handle event courier"),
        span("shop", "d", "b", "settle event courier"),
        span("kitchen", "e", "b", "publish events"),
        span("kitchen", "f", "b", "handle event cook"),
        span("kitchen", "g", "b", "settle event cook"),
        span("kitchen", "h", "f", "handle event waiter"),
        span("kitchen", "i", "f", "settle event waiter"),
    ];
    check(&right).unwrap_or_else(|error| panic!("{error}"));
    for nth in 0..right.len() {
        let mut lost = right.to_vec();
        let span = lost.remove(nth);
        assert!(check(&lost).is_err(), "{span:?} is lost");
        assert_eq!(Exported::from_line(&span.to_line()), Some(span));
        for change in
            [|span: &mut Exported| span.parent = "g".to_owned(), |span: &mut Exported| span.trace = "2".to_owned()]
        {
            let mut other = right.to_vec();
            change(&mut other[nth]);
            assert!(check(&other).is_err(), "{:?} is elsewhere", other[nth]);
        }
        let doubled = [&right[..], &right[nth..=nth]].concat();
        assert!(check(&doubled).is_err(), "a span is there twice");
    }
}
