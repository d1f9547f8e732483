//! How does an application keep its data as events, and answer questions from a read model?
//!
//! ```text
//! cargo run --release --example order_cqrs
//! cargo run --release --example order_cqrs -- --dir /tmp/shop --abort-after 300   # aborts
//! cargo run --release --example order_cqrs -- --dir /tmp/shop                     # resumes
//! ```
//!
//! A command handler loads an order from its stream, lets it decide, and appends the events with the version that it decided by. A
//! projection follows the log of all orders into a read model in sled, with its position beside the data in one sled transaction. The
//! query handler reads that alone.
//!
//! Four clients send commands, each order's by two of them at once. In the end the read model must equal the streams. Eight threads also
//! race for the versions of one stream: each version must have one winner.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this program talks to a person at a terminal")]

use millpond::{Error, Expected, LogMessage, LogReader, Store, Stream, Topic};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sled::transaction::{ConflictableTransactionError, TransactionError, TransactionalTree};
use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = Failure> = std::result::Result<T, E>;

const ORDERS: u32 = 150;
const CUSTOMERS: u32 = 12;
const CLIENTS: u32 = 4;
/// How often a command is decided anew because another one came first.
const ATTEMPTS: u32 = 10;
/// Events that one transaction of the read model takes in at most.
const EVENTS_AT_ONCE: usize = 16;
const RACERS: usize = 8;
const RACE_VERSIONS: u64 = 40;

// The aggregate: an order is the result of its events.

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Event {
    Placed { customer: String },
    ItemAdded { cents: u64 },
    Paid { cents: u64 },
    Shipped,
    Cancelled,
}

/// An event as it stands in the stream, with the number of its command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Recorded {
    command: u32,
    event: Event,
}

#[derive(Clone, Debug)]
enum Command {
    Place { customer: String, cents: u64 },
    AddItem { cents: u64 },
    Pay { cents: u64 },
    Ship,
    Cancel,
}

/// Why an order does not carry out a command.
#[derive(Clone, Debug, PartialEq)]
enum OrderError {
    AlreadyPlaced,
    NotPlaced,
    WrongAmount { due: u64, offered: u64 },
    NotPaid,
    AlreadyPaid,
    Closed { status: Status },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
enum Status {
    #[default]
    New,
    Placed,
    Paid,
    Shipped,
    Cancelled,
}

#[derive(Clone, Debug, Default)]
struct Order {
    status: Status,
    customer: String,
    items: u32,
    cents: u64,
    /// Commands below this number were carried out, or came too late.
    next_command: u32,
}

impl Order {
    fn apply(&mut self, recorded: &Recorded) {
        self.next_command = recorded.command + 1;
        match &recorded.event {
            Event::Placed { customer } => {
                self.status = Status::Placed;
                self.customer.clone_from(customer);
            }
            Event::ItemAdded { cents } => {
                self.items += 1;
                self.cents += cents;
            }
            Event::Paid { .. } => self.status = Status::Paid,
            Event::Shipped => self.status = Status::Shipped,
            Event::Cancelled => self.status = Status::Cancelled,
        }
    }

    /// What follows from a command. Changes nothing.
    fn decide(&self, command: &Command) -> Result<Vec<Event>, OrderError> {
        let (status, due) = (self.status, self.cents);
        match (command, status) {
            (Command::Place { customer, cents }, Status::New) => {
                Ok(vec![Event::Placed { customer: customer.clone() }, Event::ItemAdded { cents: *cents }])
            }
            (_, Status::New) => Err(OrderError::NotPlaced),
            (_, Status::Shipped | Status::Cancelled) => Err(OrderError::Closed { status }),
            (Command::Place { .. }, _) => Err(OrderError::AlreadyPlaced),
            (Command::AddItem { cents }, Status::Placed) => Ok(vec![Event::ItemAdded { cents: *cents }]),
            (Command::Pay { cents }, Status::Placed) if *cents == due => Ok(vec![Event::Paid { cents: due }]),
            (Command::Pay { cents }, Status::Placed) => Err(OrderError::WrongAmount { due, offered: *cents }),
            (Command::AddItem { .. } | Command::Pay { .. } | Command::Cancel, Status::Paid) => {
                Err(OrderError::AlreadyPaid)
            }
            (Command::Ship, Status::Placed) => Err(OrderError::NotPaid),
            (Command::Ship, Status::Paid) => Ok(vec![Event::Shipped]),
            (Command::Cancel, Status::Placed) => Ok(vec![Event::Cancelled]),
        }
    }
}

impl Display for OrderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyPlaced => f.write_str("the order is already placed"),
            Self::NotPlaced => f.write_str("the order is not placed"),
            Self::WrongAmount { due, offered } => write!(f, "{due} cents are due, and {offered} were offered"),
            Self::NotPaid => f.write_str("the order is not paid"),
            Self::AlreadyPaid => f.write_str("the order is already paid"),
            Self::Closed { status } => write!(f, "the order is closed: {status:?}"),
        }
    }
}

// The command handler.

#[derive(Debug)]
enum CommandError {
    /// The order says no. Nothing was appended.
    Rejected(OrderError),
    /// Other commands came first, each time. Nothing was appended.
    Contended,
    Failed(Failure),
}

#[derive(Debug, PartialEq)]
enum Handled {
    Now {
        version: u64,
    },
    /// The command, or a later one, was carried out before.
    Before,
}

struct CommandHandler {
    orders: Topic,
    retries: AtomicU64,
}

impl CommandHandler {
    fn handle(&self, order: &str, number: u32, command: &Command) -> Result<Handled, CommandError> {
        let stream = self.orders.stream(order)?;
        for _ in 0..ATTEMPTS {
            let (mut order, events) = (Order::default(), recorded(&stream)?);
            events.iter().for_each(|event| order.apply(event));
            if number < order.next_command {
                return Ok(Handled::Before);
            }
            let decided = order.decide(command).map_err(CommandError::Rejected)?;
            let encoded = |event| serde_json::to_vec(&Recorded { command: number, event });
            let bodies = decided.into_iter().map(encoded).collect::<Result<Vec<_>, _>>()?;
            // This order was decided by: if it has another version now, the decision is void.
            let last = (events.len() as u64).checked_sub(1);
            match stream.append(last.map_or(Expected::NoStream, Expected::Version), bodies) {
                Ok(receipt) => return Ok(Handled::Now { version: receipt.last_version() }),
                Err(Error::WrongVersion { .. }) => self.retries.fetch_add(1, SeqCst),
                Err(error) => return Err(error.into()),
            };
        }
        Err(CommandError::Contended)
    }
}

/// All events of a stream from which nothing is truncated.
fn recorded(stream: &Stream) -> Result<Vec<Recorded>> {
    let mut all = Vec::new();
    loop {
        let events = stream.read(all.len() as u64, 100)?;
        if events.is_empty() {
            return Ok(all);
        }
        for event in events {
            all.push(serde_json::from_slice(event.payload())?);
        }
    }
}

impl From<Failure> for CommandError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Error> for CommandError {
    fn from(error: Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<serde_json::Error> for CommandError {
    fn from(error: serde_json::Error) -> Self {
        Self::Failed(error.into())
    }
}

// The projection, and the read model that it keeps.

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct OrderRow {
    customer: String,
    status: Status,
    items: u32,
    cents: u64,
    events: u64,
}

/// A sum over all orders of a customer: an event that is taken in twice makes it wrong.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct CustomerRow {
    orders: u32,
    paid_cents: u64,
}

struct ReadModel {
    db: sled::Db,
}

const CURSOR: &str = "cursor";
type Stopped = ConflictableTransactionError<Failure>;

impl ReadModel {
    fn open(dir: &Path) -> Result<Self> {
        // The projection flushes by itself.
        Ok(Self { db: sled::Config::new().path(dir).flush_every_ms(None).open()? })
    }

    /// A reader of the log that continues behind the last event that is in the read model.
    fn reader(&self, orders: &Topic) -> Result<LogReader> {
        let Some(cursor) = self.db.get(CURSOR)? else { return Ok(orders.reader().open()?) };
        match orders.reader().from(std::str::from_utf8(&cursor)?.parse()?).open() {
            // A power failure has taken that event, or this is the read model of another store: begin anew.
            Err(Error::InvalidPosition { .. }) => {
                self.db.clear()?;
                Ok(orders.reader().open()?)
            }
            opened => Ok(opened?),
        }
    }

    /// Takes in some events, and the position behind them: all of it, or nothing.
    fn take(&self, messages: &[LogMessage]) -> Result<()> {
        let Some(last) = messages.last() else { return Ok(()) };
        let taken = self.db.transaction(|tree| {
            messages.iter().try_for_each(|message| project(tree, message))?;
            tree.insert(CURSOR, last.position().to_string().as_bytes())?;
            Ok(())
        });
        taken.map_err(|error| match error {
            TransactionError::Abort(failure) => failure,
            TransactionError::Storage(error) => error.into(),
        })
    }

    fn rows<T: DeserializeOwned>(&self, prefix: &str) -> Result<BTreeMap<String, T>> {
        let row = |entry: sled::Result<_>| {
            let (key, value): (sled::IVec, sled::IVec) = entry?;
            Ok((std::str::from_utf8(&key[prefix.len()..])?.to_owned(), serde_json::from_slice(&value)?))
        };
        self.db.scan_prefix(prefix).map(row).collect()
    }
}

/// Changes the rows that an event concerns.
fn project(tree: &TransactionalTree, message: &LogMessage) -> Result<(), Stopped> {
    let id = std::str::from_utf8(message.key().unwrap_or_default()).map_err(stopped)?;
    let recorded: Recorded = serde_json::from_slice(message.payload()).map_err(stopped)?;
    let order_key = format!("order/{id}");
    let mut order: OrderRow = row(tree, &order_key)?;
    if let Event::Placed { customer } = &recorded.event {
        order.customer.clone_from(customer);
    }
    let customer_key = format!("customer/{}", order.customer);
    let mut customer: CustomerRow = row(tree, &customer_key)?;
    order.events += 1;
    match recorded.event {
        Event::Placed { .. } => {
            order.status = Status::Placed;
            customer.orders += 1;
        }
        Event::ItemAdded { cents } => (order.items, order.cents) = (order.items + 1, order.cents + cents),
        Event::Paid { cents } => {
            order.status = Status::Paid;
            customer.paid_cents += cents;
        }
        Event::Shipped => order.status = Status::Shipped,
        Event::Cancelled => order.status = Status::Cancelled,
    }
    tree.insert(order_key.as_bytes(), serde_json::to_vec(&order).map_err(stopped)?)?;
    tree.insert(customer_key.as_bytes(), serde_json::to_vec(&customer).map_err(stopped)?)?;
    Ok(())
}

fn row<T: DeserializeOwned + Default>(tree: &TransactionalTree, key: &str) -> Result<T, Stopped> {
    let row = tree.get(key)?.map(|value| serde_json::from_slice(&value));
    Ok(row.transpose().map_err(stopped)?.unwrap_or_default())
}

fn stopped(error: impl Into<Failure>) -> Stopped {
    ConflictableTransactionError::Abort(error.into())
}

/// Follows the log until the clients are done and nothing more comes. Aborts the process once so many events were taken in.
fn run_projection(model: &ReadModel, orders: &Topic, is_done: &AtomicBool, abort_after: Option<u64>) -> Result<()> {
    let (mut reader, mut taken) = (model.reader(orders)?, 0);
    loop {
        let is_last = is_done.load(SeqCst);
        let Some(first) = reader.next(Duration::from_millis(10))? else {
            if is_last {
                return Ok(());
            }
            continue;
        };
        let mut messages = vec![first];
        while messages.len() < EVENTS_AT_ONCE
            && let Some(message) = reader.try_next()?
        {
            messages.push(message);
        }
        model.take(&messages)?;
        taken += messages.len() as u64;
        if abort_after.is_some_and(|limit| taken >= limit) {
            std::process::abort(); // sled has not flushed the last transaction
        }
        model.db.flush()?;
    }
}

// The query handler.

struct Queries<'a>(&'a ReadModel);

impl Queries<'_> {
    fn order(&self, id: &str) -> Result<Option<OrderRow>> {
        let row = self.0.db.get(format!("order/{id}"))?;
        Ok(row.map(|value| serde_json::from_slice(&value)).transpose()?)
    }

    fn best_customer(&self) -> Result<Option<(String, CustomerRow)>> {
        Ok(self.0.rows("customer/")?.into_iter().max_by_key(|(_, row): &(_, CustomerRow)| row.paid_cents))
    }
}

// The clients, whose commands follow from the number of the order.

/// Commands in order, each with the error that it must get, if any.
fn script(order: u32) -> Vec<(Command, Option<OrderError>)> {
    let customer = format!("customer-{:02}", order % CUSTOMERS);
    let first = u64::from(order * 7_919 % 3_000) + 100;
    let mut due = first;
    let mut script = vec![
        (Command::AddItem { cents: 1 }, Some(OrderError::NotPlaced)),
        (Command::Place { customer: customer.clone(), cents: first }, None),
        (Command::Place { customer, cents: first }, Some(OrderError::AlreadyPlaced)),
    ];
    for nth in 0..order % 4 {
        let cents = u64::from(nth * 31 + order);
        due += cents;
        script.push((Command::AddItem { cents }, None));
    }
    script.push((Command::Ship, Some(OrderError::NotPaid)));
    let (last, status) = if order.is_multiple_of(5) {
        (Command::Cancel, Status::Cancelled)
    } else {
        script.push((Command::Pay { cents: due - 1 }, Some(OrderError::WrongAmount { due, offered: due - 1 })));
        script.push((Command::Pay { cents: due }, None));
        script.push((Command::Cancel, Some(OrderError::AlreadyPaid)));
        (Command::Ship, Status::Shipped)
    };
    script.push((last, None));
    script.push((Command::AddItem { cents: 1 }, Some(OrderError::Closed { status })));
    script
}

fn order_id(order: u32) -> String {
    format!("order-{order:03}")
}

/// Sends the commands of every order that this client has. Each order has two clients, which send the same.
fn run_client(handler: &CommandHandler, client: u32) -> Result<u64> {
    let mut rejected = 0;
    for order in (0..ORDERS).filter(|order| [order % CLIENTS, (order + 1) % CLIENTS].contains(&client)) {
        for (number, (command, error)) in (0..).zip(script(order)) {
            match (handler.handle(&order_id(order), number, &command), error) {
                (Ok(Handled::Now { .. }), None) | (Ok(Handled::Before), _) => {}
                (Err(CommandError::Rejected(got)), Some(wanted)) if got == wanted => rejected += 1,
                (Err(CommandError::Rejected(got)), wanted) => {
                    return Err(format!("{command:?} of order {order}: {got}; expected {wanted:?}").into());
                }
                (Err(CommandError::Failed(failure)), _) => return Err(failure),
                (got, wanted) => {
                    return Err(format!("{command:?} of order {order}: {got:?}; expected {wanted:?}").into());
                }
            }
        }
    }
    Ok(rejected)
}

// The checker.

type Streams = BTreeMap<String, Vec<Recorded>>;

/// The events that all commands lead to, each carried out once.
fn wanted_streams() -> Streams {
    let stream = |order: u32| {
        let (mut state, mut events) = (Order::default(), Vec::new());
        for (command, (asked, _)) in (0..).zip(script(order)) {
            for event in state.decide(&asked).unwrap_or_default() {
                let recorded = Recorded { command, event };
                state.apply(&recorded);
                events.push(recorded);
            }
        }
        (order_id(order), events)
    };
    (0..ORDERS).map(stream).collect()
}

/// Compares the streams with what was asked: each command was carried out once, or rejected.
fn check_streams(streams: &Streams) -> Result<()> {
    same("the stream of", streams, &wanted_streams())
}

/// Compares the read model with the streams.
fn check_model(
    orders: &BTreeMap<String, OrderRow>,
    customers: &BTreeMap<String, CustomerRow>,
    streams: &Streams,
) -> Result<()> {
    let mut wanted = (BTreeMap::new(), BTreeMap::<String, CustomerRow>::new());
    for (id, events) in streams {
        let mut order = Order::default();
        events.iter().for_each(|event| order.apply(event));
        let customer = wanted.1.entry(order.customer.clone()).or_default();
        customer.orders += 1;
        if matches!(order.status, Status::Paid | Status::Shipped) {
            customer.paid_cents += order.cents;
        }
        let Order { status, customer, items, cents, .. } = order;
        wanted.0.insert(id.clone(), OrderRow { customer, status, items, cents, events: events.len() as u64 });
    }
    same("the row of", orders, &wanted.0)?;
    same("the row of", customers, &wanted.1)
}

fn same<T: PartialEq + fmt::Debug>(what: &str, rows: &BTreeMap<String, T>, wanted: &BTreeMap<String, T>) -> Result<()> {
    for key in rows.keys().chain(wanted.keys()) {
        let (row, wanted) = (rows.get(key), wanted.get(key));
        if row != wanted {
            return Err(format!("{what} {key}: there is {row:?}, and not {wanted:?}").into());
        }
    }
    Ok(())
}

/// Threads that race for each version of a stream. Returns the versions that each has won, and the events.
fn race(store: &Store) -> Result<(Vec<Vec<u64>>, Vec<usize>)> {
    let races = store.topic("races").streams().open()?;
    let stream = races.stream(format!("race-{}", store.report().epoch))?;
    let start = Barrier::new(RACERS);
    let run = |racer: usize| -> Result<Vec<u64>> {
        let mut won = Vec::new();
        start.wait();
        for version in 0..RACE_VERSIONS {
            let expected = version.checked_sub(1).map_or(Expected::NoStream, Expected::Version);
            match stream.append(expected, [racer.to_string()]) {
                Ok(_) => won.push(version),
                Err(Error::WrongVersion { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(won)
    };
    let won = thread::scope(|scope| {
        let racers: Vec<_> = (0..RACERS).map(|racer| scope.spawn(move || run(racer))).collect();
        racers.into_iter().map(|racer| racer.join().map_err(|_| "a racer panicked")?).collect::<Result<_>>()
    })?;
    let events = stream.read(0, 1_000)?;
    let winner = |event: &millpond::Event| Ok(std::str::from_utf8(event.payload())?.parse()?);
    Ok((won, events.iter().map(winner).collect::<Result<_>>()?))
}

/// Each version has one winner, whose event it is.
fn check_race(won: &[Vec<u64>], events: &[usize]) -> Result<()> {
    let mut winners: BTreeMap<u64, Vec<usize>> = (0..RACE_VERSIONS).map(|version| (version, Vec::new())).collect();
    for (racer, versions) in won.iter().enumerate() {
        versions.iter().for_each(|version| winners.entry(*version).or_default().push(racer));
    }
    for (version, winners) in &winners {
        let event = events.get(*version as usize);
        if event.is_none() || winners.iter().ne(event) {
            return Err(format!("version {version} was won by {winners:?}, and its event is of {event:?}").into());
        }
    }
    if events.len() as u64 == RACE_VERSIONS { Ok(()) } else { Err("an event that no racer appended".into()) }
}

fn main() -> ExitCode {
    match Args::parse(std::env::args().skip(1)).and_then(|args| run(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("order_cqrs: {error}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Default)]
struct Args {
    dir: Option<PathBuf>,
    abort_after: Option<u64>,
}

impl Args {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut args = Self::default();
        while let Some(word) = words.next() {
            match (word.as_str(), words.next()) {
                ("--dir", Some(path)) => args.dir = Some(path.into()),
                ("--abort-after", Some(count)) => args.abort_after = Some(count.parse()?),
                _ => return Err("usage: order_cqrs [--dir PATH] [--abort-after EVENTS]".into()),
            }
        }
        Ok(args)
    }
}

fn run(args: &Args) -> Result<()> {
    let temporary = tempfile::Builder::new().prefix("order_cqrs-").tempdir()?;
    let dir = args.dir.as_deref().unwrap_or(temporary.path());
    let store = Store::open(dir.join("store"))?;
    let orders = store.topic("orders").streams().partitions(4).open()?;
    let model = ReadModel::open(&dir.join("read-model"))?;
    let known: u64 = model.rows("order/")?.values().map(|row: &OrderRow| row.events).sum();
    println!("the read model begins behind {known} events");

    let handler = CommandHandler { orders: orders.clone(), retries: AtomicU64::new(0) };
    let is_done = AtomicBool::new(false);
    let rejected = thread::scope(|scope| -> Result<u64> {
        let projection = scope.spawn(|| run_projection(&model, &orders, &is_done, args.abort_after));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                scope.spawn({
                    let handler = &handler;
                    move || run_client(handler, client)
                })
            })
            .collect();
        let rejected = clients
            .into_iter()
            .map(|client| client.join().map_err(|_| "a client panicked")?)
            .collect::<Result<Vec<_>>>();
        is_done.store(true, SeqCst);
        projection.join().map_err(|_| "the projection panicked")??;
        Ok(rejected?.iter().sum())
    })?;

    let streams = (0..ORDERS)
        .map(|order| Ok((order_id(order), recorded(&orders.stream(order_id(order))?)?)))
        .collect::<Result<Streams>>()?;
    check_streams(&streams)?;
    check_model(&model.rows("order/")?, &model.rows("customer/")?, &streams)?;
    let (won, events) = race(&store)?;
    check_race(&won, &events)?;

    let queries = Queries(&model);
    println!("{}: {:?}", order_id(1), queries.order(&order_id(1))?);
    println!("the best customer: {:?}", queries.best_customer()?);
    println!("{rejected} wrong commands got their error, {} decisions were made anew", handler.retries.load(SeqCst));
    println!("{RACERS} threads raced for {RACE_VERSIONS} versions, and each had one winner");
    let events: usize = streams.values().map(Vec::len).sum();
    println!("{ORDERS} orders with {events} events: the read model equals them");
    Ok(store.close()?)
}

/// The checkers themselves: they must complain about each wrong history, or they are worth nothing.
#[cfg(test)]
mod tests {
    use super::*;

    type Rows = (BTreeMap<String, OrderRow>, BTreeMap<String, CustomerRow>);

    /// The read model that the projection makes of all events, in a directory of its own.
    fn rows() -> Rows {
        let dir = tempfile::tempdir().expect("there is room");
        let store =
            Store::options().durability(millpond::Durability::Os).open(dir.path().join("store")).expect("opens");
        let orders = store.topic("orders").streams().open().expect("it opens");
        for (id, events) in wanted_streams() {
            let bodies = events.iter().map(|event| serde_json::to_vec(event).expect("it can be encoded"));
            orders.stream(id).expect("it is a key").append(Expected::NoStream, bodies).expect("it is new");
        }
        let model = ReadModel::open(&dir.path().join("read-model")).expect("it opens");
        run_projection(&model, &orders, &AtomicBool::new(true), None).expect("it reads all");
        (model.rows("order/").expect("it reads"), model.rows("customer/").expect("it reads"))
    }

    #[track_caller]
    fn complains(rows: &Rows, streams: &Streams, about: &str) {
        let error = check_model(&rows.0, &rows.1, streams).expect_err("it is wrong").to_string();
        assert!(error.contains(about), "{error}");
    }

    #[test]
    fn a_right_read_model_has_no_complaint() {
        let rows = rows();
        check_model(&rows.0, &rows.1, &wanted_streams()).expect("it is right");
        check_model(&BTreeMap::new(), &BTreeMap::new(), &Streams::new()).expect("nothing is right too");
    }

    #[test]
    fn a_lost_doubled_or_changed_row_is_found() {
        let (right, streams) = (rows(), wanted_streams());
        for key in right.0.keys() {
            let mut rows = right.clone();
            let row = rows.0.remove(key).expect("it is there");
            complains(&rows, &streams, key);
            let mut rows = right.clone();
            rows.0.insert(format!("{key}-again"), row.clone());
            complains(&rows, &streams, "-again");
            for nth in 0..5 {
                let mut rows = right.clone();
                let row = rows.0.get_mut(key).expect("it is there");
                match nth {
                    0 => row.customer.push('x'),
                    1 => row.status = Status::Paid,
                    2 => row.items += 1,
                    3 => row.cents += 1,
                    _ => row.events += 1,
                }
                complains(&rows, &streams, key);
            }
        }
        for key in right.1.keys() {
            let mut rows = right.clone();
            let row = rows.1.remove(key).expect("it is there");
            complains(&rows, &streams, key);
            let mut rows = right.clone();
            rows.1.insert(format!("{key}-again"), row);
            complains(&rows, &streams, "-again");
            let mut rows = right.clone();
            rows.1.get_mut(key).expect("it is there").paid_cents += 1;
            complains(&rows, &streams, key);
        }
    }

    #[test]
    fn an_event_that_was_not_taken_in_once_is_found() {
        let (rows, right) = (rows(), wanted_streams());
        check_streams(&right).expect("it is right");
        for (id, events) in &right {
            let complain = |change: &dyn Fn(&mut Vec<Recorded>)| {
                let mut streams = right.clone();
                change(streams.get_mut(id).expect("it is there"));
                complains(&rows, &streams, id);
                assert!(check_streams(&streams).expect_err("it is wrong").to_string().contains(id));
            };
            for nth in 0..events.len() {
                complain(&|events| drop(events.remove(nth)));
                complain(&|events| events.insert(nth, events[nth].clone()));
            }
            complain(&|events| events[1].event = Event::ItemAdded { cents: 1 });
        }
    }

    #[test]
    fn a_wrong_race_is_found() {
        let events: Vec<usize> = (0..RACE_VERSIONS as usize).map(|version| version * 3 % RACERS).collect();
        let mut won = vec![Vec::new(); RACERS];
        (0..).zip(&events).for_each(|(version, racer)| won[*racer].push(version));
        check_race(&won, &events).expect("it is right");
        for version in 0..RACE_VERSIONS {
            let at = version as usize;
            let (winner, other) = (events[at], (events[at] + 1) % RACERS);
            let mut two = won.clone();
            two[other].push(version);
            check_race(&two, &events).expect_err("two winners");
            let mut none = won.clone();
            none[winner].retain(|won| *won != version);
            check_race(&none, &events).expect_err("no winner");
            let mut changed = events.clone();
            changed[at] = other;
            check_race(&won, &changed).expect_err("the event of another");
            let mut lost = events.clone();
            lost.remove(at);
            check_race(&won, &lost).expect_err("a lost event");
            let mut doubled = events.clone();
            doubled.insert(at, winner);
            check_race(&won, &doubled).expect_err("an event twice");
        }
        let more = [events, vec![0]].concat();
        check_race(&won, &more).expect_err("an event that no racer appended");
    }
}
