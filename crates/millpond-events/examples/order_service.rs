//! A whole service on the bus, and how little of it is glue.
//!
//! ```text
//! cargo run -p millpond-events --example order_service
//! ```
//!
//! Orders are streams of events, decided by an aggregate. A kitchen cooks what is paid, a courier delivers what is cooked, and billing
//! writes each payment into SQLite once. Commands come by HTTP, also two at once for one order. The lines between `glue begins` and
//! `glue ends` are all that connects the parts: workers, retries, delays, expected versions, dead letters, exactly-once effects, errors to
//! HTTP, metrics, shutdown. A test counts them.

#![allow(clippy::print_stdout, reason = "this program talks to a person at a terminal")]

#[path = "support/http.rs"]
mod http;
#[path = "support/ledger.rs"]
mod ledger;

use http::{Answer, call};
use ledger::{Entry, check};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use millpond::{Backoff, Store};
use millpond_events::{
    Aggregate, Bus, Encoded, EventFailed, EventType, Failure, Incoming, Repository, RepositoryError, Variant,
    describe_metrics, json, record_store,
};
use millpond_sqlite::rusqlite::{Connection, Transaction, TransactionBehavior::Immediate, params};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tiny_http::{Method, Request, Response, Server};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = BoxError> = std::result::Result<T, E>;

const ORDERS: u64 = 40;

// The domain: what happens to an order, and who may do what.

enum Happened {
    Placed { cents: u64 },
    Paid { cents: u64 },
    Cooked,
    Delivered,
}

impl EventType for Happened {
    const VARIANTS: &'static [Variant<Self>] = &[
        Variant::new("order.placed", 1, |data| json(data).map(|cents| Self::Placed { cents })),
        Variant::new("order.paid", 1, |data| json(data).map(|cents| Self::Paid { cents })),
        Variant::new("order.cooked", 1, |_| Ok(Self::Cooked)),
        Variant::new("order.delivered", 1, |_| Ok(Self::Delivered)),
    ];

    fn encode(&self) -> Encoded {
        match self {
            Self::Placed { cents } => Encoded::json("order.placed", 1, cents),
            Self::Paid { cents } => Encoded::json("order.paid", 1, cents),
            Self::Cooked => Encoded::json("order.cooked", 1, &()),
            Self::Delivered => Encoded::json("order.delivered", 1, &()),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
enum Status {
    #[default]
    Unknown,
    Placed,
    Paid,
    Cooked,
    Delivered,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Order {
    status: Status,
    cents: u64,
}

enum Command {
    Place(u64),
    Pay(u64),
    Cook,
    Deliver,
}

#[derive(Debug)]
struct Refused(&'static str);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Refused {}

impl Aggregate for Order {
    type Command = Command;
    type Event = Happened;
    type Error = Refused;

    fn handle(&self, command: &Command) -> Result<Vec<Happened>, Refused> {
        match (command, self.status) {
            (Command::Place(cents), Status::Unknown) => Ok(vec![Happened::Placed { cents: *cents }]),
            (Command::Pay(cents), Status::Placed) if *cents == self.cents => Ok(vec![Happened::Paid { cents: *cents }]),
            (Command::Pay(_), Status::Placed) => Err(Refused("another amount is due")),
            (Command::Cook, Status::Paid) => Ok(vec![Happened::Cooked]),
            (Command::Deliver, Status::Cooked) => Ok(vec![Happened::Delivered]),
            // Done before: the event came twice.
            (Command::Cook, Status::Cooked | Status::Delivered) | (Command::Deliver, Status::Delivered) => Ok(vec![]),
            _ => Err(Refused("the order is not in the state for that")),
        }
    }

    fn apply(&mut self, event: &Happened) {
        match event {
            Happened::Placed { cents } => (self.status, self.cents) = (Status::Placed, *cents),
            Happened::Paid { .. } => self.status = Status::Paid,
            Happened::Cooked => self.status = Status::Cooked,
            Happened::Delivered => self.status = Status::Delivered,
        }
    }
}

/// The effect of billing.
fn book(tx: &Transaction<'_>, order: &str, cents: u64) -> Result<()> {
    tx.execute("INSERT INTO bills VALUES (?1, ?2)", params![order, cents as i64])?;
    Ok(())
}

/// Where the courier cannot go yet, and what no kitchen can cook.
fn trouble(order: &Incoming<Happened>) -> Result<(), Failure> {
    match (order.data(), order.subject(), order.attempt()) {
        (Happened::Cooked, Some("order-3"), 1) => {
            Err(Failure::retry_after(Duration::from_millis(50), "a road is closed"))
        }
        (Happened::Paid { .. }, Some("order-5"), _) => Err(Failure::permanent("sold out")),
        _ => Ok(()),
    }
}

// glue begins
struct Service {
    store: Store,
    bus: Bus,
    orders: Arc<Repository<Order>>,
    metrics: PrometheusHandle,
}

impl Service {
    fn open(dir: &Path, metrics: PrometheusHandle) -> Result<Self> {
        let store = Store::open(dir.join("store"))?;
        let bus = Bus::builder(&store).topic("orders").streams().partitions(2).source("/orders").open()?;
        let orders = Arc::new(bus.repository()?.attempts(100).snapshot_every(50));
        let act = |command: fn() -> Command| {
            let orders: Arc<Repository<Order>> = Arc::clone(&orders);
            move |order: &Incoming<Happened>| {
                trouble(order)?;
                orders.execute(order.subject().unwrap_or_default(), &command())?;
                Ok(())
            }
        };
        let worker =
            |name| bus.subscriber(name).workers(2).backoff(Backoff::fixed(Duration::from_millis(20))).tell_failed();
        worker("kitchen").on("order.paid", act(|| Command::Cook)).start()?;
        worker("courier").on("order.cooked", act(|| Command::Deliver)).start()?;
        let bills = dir.join("bills.db");
        let bill = move |order: &Incoming<Happened>| match order.data() {
            Happened::Paid { cents } => {
                Ok(once(&bills, order.id(), |tx| book(tx, order.subject().unwrap_or_default(), *cents))?)
            }
            _ => Ok(()),
        };
        worker("billing").on("order.paid", bill).start()?;
        bus.on("event.failed", "alarm", |failed: &Incoming<EventFailed>| {
            println!("given up: {}", failed.data().reason);
            Ok(())
        })?;
        Ok(Self { store, bus, orders, metrics })
    }

    fn execute(&self, order: &str, command: &Command) -> Answer {
        match self.orders.execute(order, command) {
            Ok(order) => Answer::new(200, json!(order.state())),
            Err(RepositoryError::Command(refused)) => Answer::error(409, refused),
            Err(error) => Answer::error(503, error),
        }
    }

    fn close(self) -> Result<()> {
        let _report = self.bus.shutdown(Duration::from_secs(10));
        Ok(self.store.close()?)
    }
}

/// Runs the effect in one transaction with the id of its event, which is there if the effect is.
fn once(path: &Path, event: &str, effect: impl FnOnce(&Transaction<'_>) -> Result<()>) -> Result<(), Failure> {
    let mut database = Connection::open(path)?;
    database.busy_timeout(Duration::from_secs(5))?;
    let tx = database.transaction_with_behavior(Immediate)?;
    if tx.execute("INSERT OR IGNORE INTO seen VALUES (?1)", [event])? == 1 {
        effect(&tx).map_err(Failure::retry)?;
    }
    Ok(tx.commit()?)
}
// glue ends

/// The routes.
fn answer(service: &Service, request: &Request) -> Result<Answer> {
    let path: Vec<&str> = request.url().split('/').skip(1).collect();
    Ok(match (request.method(), path.as_slice()) {
        (Method::Post, ["orders", order, "place", cents]) => service.execute(order, &Command::Place(cents.parse()?)),
        (Method::Post, ["orders", order, "pay", cents]) => service.execute(order, &Command::Pay(cents.parse()?)),
        (Method::Get, ["metrics"]) => {
            record_store(&service.store)?;
            Answer::new(200, json!(service.metrics.render()))
        }
        _ => Answer::error(404, "no such thing"),
    })
}

/// Serves with two threads until the returned function is called.
fn serve(service: Service) -> Result<(String, impl FnOnce() -> Result<()>)> {
    let (server, service) = (Arc::new(Server::http("127.0.0.1:0")?), Arc::new(service));
    let address = server.server_addr().to_ip().ok_or("the server has an address")?.to_string();
    let serving = [(); 2].map(|()| {
        let (server, service) = (Arc::clone(&server), Arc::clone(&service));
        thread::spawn(move || {
            for request in server.incoming_requests() {
                let answer = answer(&service, &request).unwrap_or_else(|error| Answer::error(400, error));
                let response = Response::from_string(answer.body.to_string()).with_status_code(answer.status);
                // A client that went away does not end the server.
                let _ = request.respond(response);
            }
        })
    });
    Ok((address, move || {
        // Each ends one thread, whichever that is.
        serving.iter().for_each(|_| server.unblock());
        for thread in serving {
            thread.join().map_err(|_| "a thread of the server panicked")?;
        }
        Arc::into_inner(service).ok_or("the service is in use")?.close()
    }))
}

/// Two clients pay each order, half of them after a restart. One of the two is refused each time.
fn drive(dir: &Path) -> Result<(u32, String)> {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    metrics::set_global_recorder(recorder)?;
    describe_metrics();
    let (mut refused, mut page) = (0, String::new());
    for half in 0..2 {
        let (address, stop) = serve(Service::open(dir, metrics.clone())?)?;
        for order in half * ORDERS / 2..(half + 1) * ORDERS / 2 {
            let post = |what: &str| call(&address, "POST", &format!("/orders/order-{order}/{what}"), "");
            expect(&post(&format!("place/{}", 100 + order))?, 200)?;
            expect(&post("pay/1")?, 409)?;
            let pay = format!("pay/{}", 100 + order);
            let both = thread::scope(|scope| [(); 2].map(|()| scope.spawn(|| post(&pay))).map(|client| client.join()));
            for paid in both {
                refused += u32::from(paid.map_err(|_| "a client panicked")??.status == 409);
            }
        }
        // What is under way when the service ends goes on after the restart. The last time it is waited for.
        while half == 1 && !is_quiet(&page) {
            page = call(&address, "GET", "/metrics", "")?.body.as_str().unwrap_or_default().to_owned();
        }
        stop()?;
    }
    Ok((refused, page))
}

fn expect(answer: &Answer, status: u16) -> Result<()> {
    if answer.status == status {
        return Ok(());
    }
    Err(format!("{} instead of {status}: {}", answer.status, answer.body).into())
}

/// Whether every group has settled every event, which is when none can follow.
fn is_quiet(page: &str) -> bool {
    let mut lags = page.lines().filter(|line| line.starts_with("events_lag{")).peekable();
    lags.peek().is_some() && lags.all(|line| line.ends_with(" 0"))
}

/// What must be there in the end: each order with its events in order, and one bill.
fn expected() -> Vec<Entry> {
    let whats = |order: u64| match order {
        5 => &["order.placed", "order.paid"][..],
        _ => &["order.placed", "order.paid", "order.cooked", "order.delivered"],
    };
    let events = |order| whats(order).iter().map(move |what| Entry::new("events", format!("order-{order}"), *what));
    let bills = (0..ORDERS).map(|order| Entry::new("bills", format!("order-{order}"), (100 + order).to_string()));
    (0..ORDERS).flat_map(events).chain(bills).collect()
}

/// What is there: the streams, and the rows of billing.
fn found(dir: &Path) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let store = Store::open(dir.join("store"))?;
    let orders = store.topic("orders").open()?;
    for order in (0..ORDERS).map(|order| format!("order-{order}")) {
        for event in orders.stream(&order)?.read(0, 100)? {
            let what = event.header("ce_type").map(String::from_utf8_lossy).unwrap_or_default().into_owned();
            entries.push(Entry::new("events", &order, what));
        }
    }
    let database = Connection::open(dir.join("bills.db"))?;
    let mut statement = database.prepare("SELECT order_id, cents FROM bills")?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))?;
    for row in rows {
        let (order, cents) = row?;
        entries.push(Entry::new("bills", order, cents.to_string()));
    }
    Ok(entries)
}

/// How many lines connect the parts.
fn glue_lines() -> usize {
    let glue = include_str!("order_service.rs").lines().skip_while(|line| *line != "// glue begins");
    let glue = glue.take_while(|line| *line != "// glue ends");
    glue.filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with("//")).count()
}

fn main() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let database = Connection::open(dir.path().join("bills.db"))?;
    database.pragma_update(None, "journal_mode", "WAL")?;
    database.execute_batch("CREATE TABLE bills (order_id, cents); CREATE TABLE seen (event TEXT PRIMARY KEY)")?;
    let (refused, page) = drive(dir.path())?;
    check(&expected(), &found(dir.path())?)?;
    if refused as u64 != ORDERS {
        return Err(format!("{refused} of {ORDERS} double payments were refused").into());
    }
    if !page.contains(r#"events_dead_letters{topic="orders",group="kitchen"} 1"#) {
        return Err("the page does not tell of the dead letter".into());
    }
    println!("{ORDERS} orders, each paid and billed once, with {} lines of glue", glue_lines());
    Ok(())
}

#[test]
fn the_check_finds_what_is_lost_doubled_or_reordered() {
    ledger::assert_check_can_fail(&expected(), &expected());
}

#[test]
fn there_are_less_than_60_lines_of_glue() {
    assert!((30..60).contains(&glue_lines()), "{}", glue_lines());
}
