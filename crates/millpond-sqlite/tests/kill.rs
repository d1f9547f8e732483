//! Kill -9: a process that takes orders, drains the outbox and sends mails is killed at random moments, and at the end there is one
//! mail for each order.
//!
//! This binary runs itself as the child. `MILLPOND_SQLITE_KILLS` sets the number of kills, `MILLPOND_SEED` the moments.

#![allow(clippy::print_stdout, reason = "a long test says what it met")]
#![cfg(unix)]

#[path = "../../../tests/common/child.rs"]
mod child;

use child::{must, say};
use millpond::{Backoff, Durability, Group, Store};
use millpond_sqlite::rusqlite::{Connection, TransactionBehavior::Immediate};
use millpond_sqlite::{Drained, Inbox, Outbox, Sighting};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::mpsc::{channel, sync_channel};
use std::thread;
use std::time::Duration;

const KILLS: u64 = 50;
const SIGKILL: i32 = 9;
/// A child is killed after at most so many lines from it, and then at most so many microseconds.
const LINES_MAX: u64 = 120;
const DELAY_US_MAX: u64 = 3_000;
const STANDSTILL: Duration = Duration::from_secs(10);

/// One connection of the program, as each of its threads has one.
struct Program {
    database: Connection,
    outbox: Outbox,
    inbox: Inbox,
    store: Store,
    mailer: Group,
}

impl Program {
    fn open(dir: &Path, store: Store) -> Self {
        let database = must(Connection::open(dir.join("shop.db")));
        must(database.pragma_update(None, "journal_mode", "WAL"));
        // A kill takes back no commit at this level.
        must(database.pragma_update(None, "synchronous", "NORMAL"));
        must(database.execute_batch(
            "CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, cents INTEGER NOT NULL);
             CREATE TABLE IF NOT EXISTS mails (order_id INTEGER NOT NULL, cents INTEGER NOT NULL)",
        ));
        let outbox = must(Outbox::open(&database));
        let inbox = must(Inbox::open(&database, "mailer"));
        let topic = must(store.topic("orders").open());
        let mailer = topic.group("mailer").max_attempts(10_000).backoff(Backoff::none());
        Self { database, outbox, inbox, store, mailer: must(mailer.open()) }
    }

    /// Takes an order and writes the message about it. Returns whether it stands: now and then the customer changes their mind.
    fn take_order(&mut self, random: &mut Random) -> bool {
        let tx = must(self.database.transaction_with_behavior(Immediate));
        let cents = random.below(100_000) as i64;
        must(tx.execute("INSERT INTO orders (cents) VALUES (?1)", [cents]));
        let order = format!("{} {cents}", tx.last_insert_rowid());
        must(self.outbox.publish(&tx, "orders", order.as_bytes()));
        let stands = random.below(4) != 0;
        must(if stands { tx.commit() } else { tx.rollback() });
        stands
    }

    fn drain(&mut self) -> Drained {
        let drained = must(self.outbox.drain(&mut self.database, &self.store, 20));
        assert!(drained.blocked.is_empty(), "{drained:?}");
        drained
    }

    /// Sends the next mail, if a message comes within the time, and returns what happened to it. Now and then the handler fails, or its
    /// ack is lost.
    fn send_mail(&mut self, random: &mut Random, wait: Duration) -> Option<&'static str> {
        let delivery = must(self.mailer.receive(wait))?;
        let text = must(std::str::from_utf8(delivery.payload()));
        let (order, cents) = text.split_once(' ').expect("an order and its price");
        let numbers: [i64; 2] = [must(order.parse()), must(cents.parse())];
        let tx = must(self.database.transaction_with_behavior(Immediate));
        let done = match must(self.inbox.handle(&tx, delivery.origin())) {
            Sighting::First => {
                must(tx.execute("INSERT INTO mails VALUES (?1, ?2)", numbers));
                if random.below(8) == 0 {
                    must(tx.rollback());
                    must(delivery.nack("no connection"));
                    return Some("failed");
                }
                must(tx.commit());
                "mail"
            }
            Sighting::Repeat => "seen",
        };
        must(if random.below(8) == 0 { delivery.nack("the ack was lost") } else { delivery.ack() });
        Some(done)
    }
}

/// Not a test: the body of the child.
#[test]
fn child_process() {
    let Some((seed, dir)) = child::task() else { return };
    let seed: u64 = must(seed.parse());
    // Else the other threads would go on.
    std::panic::set_hook(Box::new(|panic| must(Err(panic))));
    let level = if seed.is_multiple_of(2) { Durability::Disk } else { Durability::Os };
    let store = must(Store::options().durability(level).open(dir.join("queue")));
    say("store");
    // The first creates the tables.
    let mut programs = [(); 3].map(|()| Program::open(&dir, store.clone()));
    say("open");
    let [orders, drains, mails] = &mut programs;
    // Orders wait for mails, so that there is as much of both.
    let (placed, sent) = sync_channel(20);
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut random = Random(seed);
            loop {
                if orders.take_order(&mut random) {
                    say("order");
                    must(placed.send(()));
                }
            }
        });
        scope.spawn(|| {
            loop {
                match drains.drain().repeated {
                    0 => {}
                    repeated => say(format_args!("repeated {repeated}")),
                }
            }
        });
        scope.spawn(move || {
            let mut random = Random(!seed);
            loop {
                mails.send_mail(&mut random, Duration::from_secs(1)).into_iter().for_each(say);
                // There is none for an order of an earlier child.
                let _ = sent.try_recv();
            }
        });
    });
}

/// What the children said, by the first word of each line.
type Heard = BTreeMap<String, u64>;

/// Starts a child and kills it `delay` after its line number `lines`.
fn kill_one(dir: &Path, seed: u64, lines: u64, delay: Duration, heard: &mut Heard) {
    let mut child = child::command("child_process", &seed.to_string(), dir).spawn().expect("the child starts");
    let stdout = BufReader::new(child.stdout.take().expect("it was piped"));
    let (kill, killed) = channel::<()>();
    let killer = thread::spawn(move || {
        // Nobody sends: the end of the channel is the cue, or of the child. One that stands still is killed too, and the comparison at
        // the end finds the reason.
        let _ = killed.recv_timeout(STANDSTILL);
        let (never, wait) = channel::<()>();
        let _ = wait.recv_timeout(delay);
        drop(never);
        child.kill().expect("it can be killed");
        child.wait().expect("it can be waited for")
    });
    let mut kill = Some(kill).filter(|_| lines > 0);
    for (number, line) in (1..).zip(stdout.lines()) {
        let line = line.expect("it is text");
        let (word, count) =
            line.split_once(' ').map_or((&*line, 1), |(word, count)| (word, count.parse().unwrap_or(1)));
        *heard.entry(word.to_owned()).or_default() += count;
        if number == lines {
            kill = None;
        }
    }
    drop(kill);
    let status = killer.join().expect("the killer lives");
    assert_eq!(status.signal(), Some(SIGKILL), "the child ended by itself: {status}");
}

/// An order or a mail: its number and its price.
type Entry = (i64, i64);

/// What is wrong with the mails, if each order wants one.
fn complaints(orders: &[Entry], mails: &[Entry]) -> Vec<String> {
    let count = |entries: &[Entry]| {
        let mut counts: BTreeMap<Entry, u64> = BTreeMap::new();
        entries.iter().for_each(|entry| *counts.entry(*entry).or_default() += 1);
        counts
    };
    let (placed, sent) = (count(orders), count(mails));
    let lost = placed.keys().filter(|order| !sent.contains_key(order)).map(|order| format!("lost: {order:?}"));
    let strange = sent.iter().filter_map(|(mail, count)| match (placed.contains_key(mail), count) {
        (false, _) => Some(format!("nobody ordered: {mail:?}")),
        (true, 1) => None,
        (true, count) => Some(format!("{count} times: {mail:?}")),
    });
    lost.chain(strange).collect()
}

fn entries(database: &Connection, table: &str) -> Vec<Entry> {
    let mut rows = database.prepare(&format!("SELECT * FROM {table} ORDER BY 1")).expect("it is a table");
    let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("it is read");
    rows.map(|row| row.expect("two numbers")).collect()
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

#[test]
fn each_order_has_one_mail_after_kill_9() {
    let kills = setting("MILLPOND_SQLITE_KILLS", KILLS);
    let mut random = Random(setting("MILLPOND_SEED", 1));
    let dir = tempfile::tempdir().expect("a directory");
    let mut heard = Heard::new();
    for seed in 0..kills {
        // Every fourth time while it opens: the line of the test harness, or one of the first of the child.
        let lines = if seed % 4 == 3 { random.below(4) } else { random.below(LINES_MAX) };
        let delay = Duration::from_micros(random.below(DELAY_US_MAX));
        kill_one(dir.path(), seed, lines, delay, &mut heard);
    }
    let store = Store::open(dir.path().join("queue")).expect("it opens");
    let mut program = Program::open(dir.path(), store);
    while program.outbox.waiting(&program.database).expect("a count") > 0 {
        *heard.entry("repeated".to_owned()).or_default() += program.drain().repeated;
    }
    while program.send_mail(&mut random, Duration::ZERO).is_some() {}

    let (orders, mails) = (entries(&program.database, "orders"), entries(&program.database, "mails"));
    assert_eq!(complaints(&orders, &mails), [""; 0]);
    let count = |word: &str| heard.get(word).copied().unwrap_or_default();
    // Few kills may miss the moment between a publish and its deletion.
    let is_busy = count("mail") > kills && count("seen") > 0 && (count("repeated") > 0 || kills < 200);
    assert!(is_busy, "hardly anything happened: {heard:?}");

    // The checker itself: it must complain about each of these, or it is worth nothing.
    let [first, second, ..] = mails[..] else { panic!("too few mails") };
    let doctored = [
        ("lost", mails[1..].to_vec()),
        ("2 times", [&mails[..], &[first]].concat()),
        ("nobody ordered", [&[(first.0, first.1 + 1)], &mails[1..]].concat()),
        ("nobody ordered", [&[(first.0, second.1), (second.0, first.1)], &mails[2..]].concat()),
    ];
    for (complaint, mails) in doctored {
        let found = complaints(&orders, &mails);
        assert!(found.iter().any(|found| found.starts_with(complaint)), "{complaint}: {found:?}");
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
