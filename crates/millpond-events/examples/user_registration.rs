//! A user service and a mail service, driven over HTTP by another process that kills them.
//!
//! ```text
//! cargo run -p millpond-events --features schema --example user_registration
//! ```
//!
//! `POST /users` writes the user and the event `user.created` in one SQLite transaction, and answers 201. A thread drains the outbox to
//! the bus. The mail service sends a welcome mail, notes it in its own database once, and publishes `email.sent` with the ack. An order
//! is published at once, and confirmed by mail in the same way.
//!
//! The program is the client. It starts itself as the server, and kills that with `kill -9` as soon as it has a 201: ten times. In the end
//! every user is there, and each mail went once.

#![allow(clippy::print_stdout, reason = "this program talks to a person at a terminal")]

#[path = "support/http.rs"]
mod http;
#[path = "support/ledger.rs"]
mod ledger;

use http::{Answer, call};
use ledger::{Entry, check};
use millpond::{Retention, Store};
use millpond_events::transport::TransportErrorKind;
use millpond_events::{
    Bus, Encoded, Error as BusError, Event, EventType, Incoming, RawEvent, Schemas, Subscriber, Validator, Variant,
    json,
};
use millpond_sqlite::rusqlite::{self, Connection, TransactionBehavior::Immediate};
use millpond_sqlite::{Inbox, Outbox, OutboxMessage, Sighting};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::error::Error;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;
use std::{env, thread};
use tiny_http::{Method, Request, Response, Server};

type Failure = Box<dyn Error + Send + Sync>;
type Result<T, E = Failure> = std::result::Result<T, E>;

const ROUNDS: usize = 10;

// The events.

#[derive(Clone, Debug, Serialize, Deserialize)]
struct User {
    email: String,
    name: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Order {
    email: String,
    dish: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Mail {
    email: String,
    subject: String,
}

enum Shop {
    UserCreated(User),
    OrderPlaced(Order),
    EmailSent(Mail),
}

impl EventType for Shop {
    const VARIANTS: &'static [Variant<Self>] = &[
        Variant::new("user.created", 1, |data| json(data).map(Self::UserCreated)),
        Variant::new("order.placed", 1, |data| json(data).map(Self::OrderPlaced)),
        Variant::new("email.sent", 1, |data| json(data).map(Self::EmailSent)),
    ];

    fn encode(&self) -> Encoded {
        match self {
            Self::UserCreated(user) => Encoded::json("user.created", 1, user),
            Self::OrderPlaced(order) => Encoded::json("order.placed", 1, order),
            Self::EmailSent(mail) => Encoded::json("email.sent", 1, mail),
        }
    }
}

fn schemas() -> Result<Schemas> {
    let email = json!({ "type": "string", "format": "email" });
    let text = json!({ "type": "string", "minLength": 1 });
    let object = |field: &str| json!({ "type": "object", "required": ["email", field], "properties": { "email": email, field: text } });
    Ok(Schemas::new().add("user.created", 1, &object("name"))?.add("order.placed", 1, &object("dish"))?)
}

// The server: both services in one process.

/// A connection that gives up soon where another one writes.
fn connect(dir: &Path, name: &str) -> Result<Connection> {
    let database = Connection::open(dir.join(name))?;
    database.busy_timeout(Duration::from_millis(200))?;
    database.pragma_update(None, "journal_mode", "WAL")?;
    database.pragma_update(None, "synchronous", "FULL")?;
    Ok(database)
}

struct UserService {
    database: Connection,
    outbox: Outbox,
    schemas: Arc<Schemas>,
    bus: Bus,
    written: SyncSender<()>,
}

/// What went wrong with a request, as an answer.
fn refusal(error: &BusError) -> Answer {
    match error {
        BusError::Schema(broken) => Answer::new(400, json!({ "path": broken.path, "rule": broken.rule })),
        BusError::Transport(error) if error.kind() == TransportErrorKind::FixCall => Answer::error(400, error),
        // Nothing was written, or it is not known whether it was: the client may ask again.
        error => Answer::error(503, error),
    }
}

impl UserService {
    fn open(dir: &Path, bus: &Bus, schemas: Arc<Schemas>, written: SyncSender<()>) -> Result<Self> {
        let database = connect(dir, "users.db")?;
        database.execute_batch("CREATE TABLE IF NOT EXISTS users (email TEXT PRIMARY KEY, name TEXT NOT NULL)")?;
        let outbox = Outbox::open(&database)?;
        Ok(Self { database, outbox, schemas, bus: bus.clone(), written })
    }

    /// The user and the event about it in one transaction: after a crash both are there, or neither.
    fn create_user(&mut self, body: &[u8]) -> Answer {
        if let Err(broken) = self.schemas.check("user.created", 1, body) {
            return refusal(&BusError::Schema(broken));
        }
        let Ok(user) = serde_json::from_slice::<User>(body) else { return Answer::error(400, "no user") };
        match self.insert(&user) {
            Ok(true) => {
                // If the channel is full, the drainer is woken already.
                let _ = self.written.try_send(());
                Answer::new(201, json!({ "email": user.email }))
            }
            Ok(false) => Answer::error(409, "there is a user with this address"),
            Err(error) => Answer::error(503, error),
        }
    }

    fn insert(&mut self, user: &User) -> Result<bool> {
        let event = Event::new(Shop::UserCreated(user.clone())).with_source("/users").with_subject(&user.email);
        let message = millpond_events::Outgoing::from(event).to_message()?;
        let tx = self.database.transaction_with_behavior(Immediate)?;
        let inserted =
            tx.execute("INSERT OR IGNORE INTO users VALUES (?1, ?2)", rusqlite::params![user.email, user.name])?;
        if inserted == 0 {
            return Ok(false);
        }
        let entry = OutboxMessage::new(&message.payload).key(&user.email);
        let entry = message.headers.iter().fold(entry, |entry, (name, value)| entry.header(name, value));
        self.outbox.publish(&tx, "events", entry)?;
        tx.commit()?;
        Ok(true)
    }

    /// An order is an event and nothing else: the bus checks and publishes it.
    fn place_order(&self, body: &[u8]) -> Answer {
        let email = serde_json::from_slice::<Order>(body).map(|order| order.email).unwrap_or_default();
        let mut event = RawEvent::new("order.placed", 1, "application/json", body);
        if !email.is_empty() {
            event = event.with_subject(email);
        }
        match self.bus.publish(event) {
            Ok(id) => Answer::new(201, json!({ "id": id })),
            Err(error) => refusal(&error),
        }
    }
}

/// Publishes what the outbox has, whenever something was written, and at the start.
fn drain(dir: &Path, store: &Store, written: &Receiver<()>) -> Result<()> {
    let mut database = connect(dir, "users.db")?;
    let outbox = Outbox::open(&database)?;
    loop {
        // A database that is busy is tried again.
        if let Ok(drained) = outbox.drain(&mut database, store, 1_000)
            && let Some(topic) = drained.blocked.first()
        {
            return Err(format!("the outbox is blocked: {}", topic.error).into());
        }
        if written.recv_timeout(Duration::from_millis(500)) == Err(RecvTimeoutError::Disconnected) {
            return Ok(());
        }
    }
}

/// Notes the mail in the database of the mail service, once for each message: this is where one would be sent.
fn send_once(dir: &Path, message_id: &str, mail: &Mail) -> Result<()> {
    let mut database = connect(dir, "mail.db")?;
    let inbox = Inbox::open(&database, "mail")?;
    let tx = database.transaction_with_behavior(Immediate)?;
    match inbox.handle(&tx, message_id.parse()?)? {
        Sighting::First => tx.execute("INSERT INTO mails VALUES (?1, ?2)", [&mail.email, &mail.subject])?,
        Sighting::Repeat => return Ok(()),
    };
    Ok(tx.commit()?)
}

fn start_mail_service(dir: &Path, bus: &Bus) -> Result<Subscriber> {
    let database = connect(dir, "mail.db")?;
    database.execute_batch("CREATE TABLE IF NOT EXISTS mails (email, subject)")?;
    Inbox::open(&database, "mail")?;
    let dir = dir.to_owned();
    let send = move |event: &Incoming<Shop>| {
        let (email, subject) = match event.data() {
            Shop::UserCreated(user) => (&user.email, format!("Welcome, {}", user.name)),
            Shop::OrderPlaced(order) => (&order.email, format!("Your {} is on its way", order.dish)),
            Shop::EmailSent(_) => return Ok(()),
        };
        let mail = Mail { email: email.clone(), subject };
        send_once(&dir, &event.message_id()?, &mail).map_err(millpond_events::Failure::retry)?;
        // In one step with the ack: if the process dies before, the event comes again, and the mail is known.
        event.publish(Event::new(Shop::EmailSent(mail)).with_subject(event.subject().unwrap_or_default()))?;
        Ok(())
    };
    Ok(bus.subscriber("mail").workers(2).on("user.created", send.clone()).on("order.placed", send).start()?)
}

/// Serves until its standard input ends, which is how the client says so.
fn serve(dir: &Path) -> Result<()> {
    let (store, schemas) = (Store::open(dir.join("store"))?, Arc::new(schemas()?));
    let validator = Arc::clone(&schemas);
    // What every group has settled stays: the check in the end reads the log from its beginning.
    store.topic("events").retention(Retention::Forever).open()?;
    let bus = Bus::builder(&store).source("/shop").validator(validator).validate_received(true).open()?;
    let (written, is_written) = sync_channel(1);
    let mut users = UserService::open(dir, &bus, schemas, written)?;
    let mail = start_mail_service(dir, &bus)?;
    let draining = {
        let (dir, store) = (dir.to_owned(), store.clone());
        thread::spawn(move || drain(&dir, &store, &is_written))
    };
    let server = Arc::new(Server::http("127.0.0.1:0")?);
    let address = server.server_addr().to_ip().ok_or("the server has an address")?;
    println!("{address}");
    let unblocked = Arc::clone(&server);
    thread::spawn(move || {
        let _end = std::io::stdin().read_to_end(&mut Vec::new());
        unblocked.unblock();
    });
    for mut request in server.incoming_requests() {
        let answer = answer(dir, &store, (&mut users, &mail), &mut request)?;
        let response = Response::from_string(answer.body.to_string()).with_status_code(answer.status);
        // A client that went away does not end the server.
        let _ = request.respond(response);
    }
    drop(users);
    draining.join().map_err(|_| "the drainer panicked")??;
    let report = bus.shutdown(Duration::from_secs(10));
    store.close()?;
    if report.unfinished == 0 { Ok(()) } else { Err("a handler did not finish".into()) }
}

fn answer(
    dir: &Path,
    store: &Store,
    (users, mail): (&mut UserService, &Subscriber),
    request: &mut Request,
) -> Result<Answer> {
    let mut body = Vec::new();
    if request.as_reader().take(64 << 10).read_to_end(&mut body).is_err() {
        return Ok(Answer::error(400, "the body ended early"));
    }
    Ok(match (request.method(), request.url()) {
        (Method::Post, "/users") => users.create_user(&body),
        (Method::Post, "/orders") => users.place_order(&body),
        (Method::Get, "/mails") => {
            // Waits a little for one more.
            let before = mail.stats();
            mail.wait(Duration::from_millis(100), |now| now.handled != before.handled);
            let count: i64 = connect(dir, "mail.db")?.query_row("SELECT count(*) FROM mails", [], |row| row.get(0))?;
            // A mail that is noted may have lost its ack to a kill: its event is not settled.
            let groups = store.stats()?.topics.into_iter().flat_map(|topic| topic.groups);
            Answer::new(200, json!({ "mails": count, "unsettled": groups.map(|group| group.lag).sum::<u64>() }))
        }
        _ => Answer::error(404, "no such thing"),
    })
}

// The client.

struct Running {
    child: Child,
    input: Option<ChildStdin>,
    /// Kept open for as long as the server may write.
    _output: BufReader<ChildStdout>,
    address: String,
}

impl Running {
    fn start(dir: &Path) -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.arg("serve").arg(dir).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take().ok_or("the server has an output")?);
        let mut address = String::new();
        let mut output = BufReader::new(output);
        output.read_line(&mut address)?;
        Ok(Self { child, input, _output: output, address: address.trim().to_owned() })
    }

    fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        call(&self.address, "POST", path, &body.to_string())
    }

    /// As `kill -9` does: nothing of the process runs any more.
    fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn stop(mut self) -> Result<()> {
        self.input.take();
        if self.child.wait()?.success() { Ok(()) } else { Err("the server failed".into()) }
    }
}

fn expect(answer: &Answer, status: u16) -> Result<()> {
    if answer.status == status {
        return Ok(());
    }
    Err(format!("{} instead of {status}: {}", answer.status, answer.body).into())
}

/// Requests that must be refused, and leave nothing.
fn ask_for_the_wrong(server: &Running, dir: &Path) -> Result<()> {
    let invalid = server.post("/users", &json!({ "email": "nobody", "name": "N" }))?;
    expect(&invalid, 400)?;
    let told = (invalid.body["path"].as_str(), invalid.body["rule"].as_str());
    if told != (Some("/email"), Some("/properties/email/format")) {
        return Err(format!("the answer names neither path nor rule: {}", invalid.body).into());
    }
    println!("an invalid address is refused: {}", invalid.body);
    expect(&server.post("/users", &json!({ "email": "a@example.org" }))?, 400)?;
    expect(&server.post("/orders", &json!({ "email": "a@example.org", "dish": "" }))?, 400)?;
    // While another process writes, the database takes nothing.
    let mut other = connect(dir, "users.db")?;
    let writing = other.transaction_with_behavior(Immediate)?;
    let refused = server.post("/users", &json!({ "email": "late@example.org", "name": "L" }))?;
    expect(&refused, 503)?;
    println!("a store that takes nothing is told: {}", refused.body);
    Ok(writing.rollback()?)
}

fn email(round: usize) -> String {
    format!("user-{round}@example.org")
}

/// Sends the requests, and kills the server after each user that it promised to keep.
fn drive(dir: &Path) -> Result<()> {
    for round in 0..ROUNDS {
        let server = Running::start(dir)?;
        if round % 2 == 1 {
            expect(&server.post("/orders", &json!({ "email": email(round - 1), "dish": "soup" }))?, 201)?;
        }
        expect(&server.post("/users", &json!({ "email": email(round), "name": format!("U{round}") }))?, 201)?;
        server.kill()?;
    }
    println!("{ROUNDS} users are promised, and the server was killed after each");
    let server = Running::start(dir)?;
    ask_for_the_wrong(&server, dir)?;
    expect(&server.post("/users", &json!({ "email": email(0), "name": "again" }))?, 409)?;
    let mails = ROUNDS + ROUNDS / 2;
    for _ in 0..600 {
        let seen = call(&server.address, "GET", "/mails", "")?;
        if seen.body["mails"].as_u64() >= Some(mails as u64) && seen.body["unsettled"] == 0 {
            return server.stop();
        }
    }
    Err("the mails do not come".into())
}

/// What must be there in the end.
fn expected() -> Vec<Entry> {
    let mut entries = Vec::new();
    for round in 0..ROUNDS {
        entries.push(Entry::new("users", email(round), format!("U{round}")));
        entries.push(Entry::new("events", email(round), "user.created"));
        entries.push(Entry::new("mails", email(round), format!("Welcome, U{round}")));
        entries.push(Entry::new("events", email(round), format!("email.sent: Welcome, U{round}")));
        if round % 2 == 0 {
            entries.push(Entry::new("events", email(round), "order.placed"));
            entries.push(Entry::new("mails", email(round), "Your soup is on its way"));
            entries.push(Entry::new("events", email(round), "email.sent: Your soup is on its way"));
        }
    }
    entries.sort_by_key(|entry| (entry.subscriber, entry.subject.clone(), entry.what.clone()));
    entries
}

/// What is there: the rows of both databases, and the events of the log.
fn found(dir: &Path) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for (table, file, query) in [
        ("users", "users.db", "SELECT email, name FROM users"),
        ("mails", "mail.db", "SELECT email, subject FROM mails"),
    ] {
        let database = connect(dir, file)?;
        let mut statement = database.prepare(query)?;
        let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
        for row in rows {
            let (email, what) = row?;
            entries.push(Entry::new(table, email, what));
        }
    }
    let store = Store::open(dir.join("store"))?;
    let mut reader = store.topic("events").open()?.reader().open()?;
    while let Some(message) = reader.next(Duration::ZERO)? {
        let event = RawEvent::from_message(&message)?.decode::<Shop>()?;
        let what = match event.data() {
            Shop::UserCreated(_) | Shop::OrderPlaced(_) => event.event_type().to_owned(),
            Shop::EmailSent(mail) => format!("email.sent: {}", mail.subject),
        };
        entries.push(Entry::new("events", event.subject().unwrap_or_default(), what));
    }
    // Databases and log have an order each, and none between them: what counts is how often each is there.
    entries.sort_by_key(|entry| (entry.subscriber, entry.subject.clone(), entry.what.clone()));
    Ok(entries)
}

fn main() -> Result<()> {
    let mut args = env::args_os().skip(1);
    if args.next().is_some_and(|arg| arg == "serve") {
        return serve(&PathBuf::from(args.next().ok_or("the server needs a directory")?));
    }
    let dir = tempfile::tempdir()?;
    drive(dir.path())?;
    check(&expected(), &found(dir.path())?)?;
    println!("every user is there, and each mail went once");
    Ok(())
}

#[test]
fn the_check_finds_what_is_lost_or_doubled() {
    ledger::assert_check_can_fail(&expected(), &expected());
}
