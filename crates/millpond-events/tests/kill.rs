//! Kill -9: a process with workers is killed at random moments again and again, until every event is handled; then each has its effect
//! once.
//!
//! This binary runs itself as the child. `MILLPOND_EVENTS_KILL` sets the number of events, `MILLPOND_SEED` the moments.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::print_stdout, reason = "a long test says what it met")]
#![cfg(unix)]

#[path = "../../../tests/common/child.rs"]
mod child;

use child::{must, say};
use millpond::{Backoff, Durability, Retention, Store, Topic};
use millpond_events::{Bus, Encoded, Event, EventType, Failure, Incoming, SubscriberBuilder, Variant, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

const EVENTS: u64 = 5_000;
const SIGKILL: i32 = 9;
/// A child is killed after at most so many bills, and then at most so many microseconds.
const BILLS_MAX: u64 = 400;
const DELAY_US_MAX: u64 = 1_000;
/// One that stands still is killed too, and the parent complains.
const STANDSTILL: Duration = Duration::from_secs(60);
const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// The number of an order.
struct Placed(u64);

impl EventType for Placed {
    const VARIANTS: &'static [Variant<Self>] = &[Variant::new("order.placed", 1, |data| json(data).map(Self))];

    fn encode(&self) -> Encoded {
        Encoded::json("order.placed", 1, &self.0)
    }
}

fn open(dir: &Path, level: Durability) -> (Store, Bus, Topic) {
    let store = must(Store::options().durability(level).open(dir.join("store")));
    let bus = must(Bus::builder(&store).partitions(4).open());
    let bills = must(store.topic("bills").retention(Retention::Forever).open());
    (store, bus, bills)
}

fn billing(bus: &Bus, events: u64) -> SubscriberBuilder {
    let ids = u32::try_from(events + 1_000).unwrap();
    bus.subscriber("billing").workers(8).inbox(ids, WEEK).max_attempts(0).backoff(Backoff::none())
}

fn lag(store: &Store) -> u64 {
    let stats = must(store.stats());
    let events = stats.topics.iter().filter(|topic| topic.name == "events");
    events.flat_map(|topic| &topic.groups).map(|group| group.lag).sum()
}

/// Not a test: the body of the child.
#[test]
fn child_process() {
    let Some((task, dir)) = child::task() else { return };
    let (seed, events) =
        task.split_once(' ').map(|(seed, events)| (must(seed.parse::<u64>()), must(events.parse()))).unwrap();
    child::leave_no_core();
    let level = if seed.is_multiple_of(2) { Durability::Disk } else { Durability::Os };
    let (store, bus, bills) = open(&dir, level);
    let handler = move |tx: &mut millpond::Transaction<'_>, order: &Incoming<Placed>| {
        let Placed(number) = order.data();
        tx.publish(&bills, number.to_string())?;
        say("bill");
        // Now and then the handler fails after all.
        if (number + u64::from(order.attempt())).is_multiple_of(11) { Err(Failure::retry("no ink")) } else { Ok(()) }
    };
    let billing = must(billing(&bus, events).on_transaction("order.*", handler).start());
    let is_done = billing.wait(STANDSTILL, |stats| stats.is_stopped || stats.in_progress == 0 && lag(&store) == 0);
    if !is_done || billing.stats().is_stopped {
        must(Err(format!("{:?}", billing.stats())))
    }
    std::process::exit(0)
}

/// How a child ended.
#[derive(PartialEq, Eq)]
enum Ending {
    Killed,
    /// Nothing was left to do.
    Done,
}

/// Starts a child and kills it `delay` after its bill number `bills`, unless it ends before.
fn run_one(dir: &Path, task: &str, bills: u64, delay: Duration) -> (Ending, u64) {
    let mut child = child::command("child_process", task, dir).spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let (kill, killed) = channel::<()>();
    let killer = thread::spawn(move || {
        // The end of the channel is the cue: the last bill that counts, or the end of the child.
        let is_cue = killed
            .recv_timeout(STANDSTILL)
            .is_err_and(|error| error == std::sync::mpsc::RecvTimeoutError::Disconnected);
        let (never, wait) = channel::<()>();
        let _ = wait.recv_timeout(delay);
        drop(never);
        child.kill().unwrap();
        (child.wait().unwrap(), is_cue)
    });
    let (mut kill, mut count) = (Some(kill).filter(|_| bills > 0), 0);
    for line in stdout.lines().map_while(Result::ok) {
        count += u64::from(line == "bill");
        if count >= bills {
            kill = None;
        }
    }
    drop(kill);
    let (status, is_cue) = killer.join().unwrap();
    assert!(is_cue, "the child stands still");
    match (status.signal(), status.code()) {
        (Some(SIGKILL), _) => (Ending::Killed, count),
        (_, Some(0)) => (Ending::Done, count),
        _ => panic!("the child ended by itself: {status}"),
    }
}

/// What is wrong with the bills, if each order from 0 wants one.
fn complaints(orders: u64, bills: &[u64]) -> Vec<String> {
    let mut counts: BTreeMap<u64, u64> = (0..orders).map(|order| (order, 0)).collect();
    bills.iter().for_each(|bill| *counts.entry(*bill).or_default() += 1);
    let wrong = counts.iter().filter(|(order, count)| **order >= orders || **count != 1);
    wrong.map(|(order, count)| format!("order {order} has {count} bills")).collect()
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

/// Publishes every order, and every tenth a second time: its publisher was not sure.
fn publish(bus: &Bus, orders: u64) {
    let event = |order: u64| {
        Event::new(Placed(order)).with_id(format!("order-{order}")).with_subject(format!("customer-{}", order % 97))
    };
    for first in (0..orders).step_by(1_000) {
        let orders = first..orders.min(first + 1_000);
        bus.publish_all(orders.clone().map(event)).unwrap();
        bus.publish_all(orders.step_by(10).map(event)).unwrap();
    }
}

#[test]
fn each_event_has_its_effect_once_after_kill_9() {
    let events = setting("MILLPOND_EVENTS_KILL", EVENTS);
    let mut random = Random(setting("MILLPOND_SEED", 1));
    let dir = tempfile::tempdir().unwrap();
    {
        let (store, bus, _) = open(dir.path(), Durability::Os);
        drop(billing(&bus, events).on("order.*", |_: &Incoming<Placed>| Ok(())).open().unwrap());
        publish(&bus, events);
        drop(bus);
        store.close().unwrap();
    }
    let (mut kills, mut calls) = (0, 0);
    loop {
        let (task, bills) = (format!("{} {events}", random.below(1_000)), random.below(BILLS_MAX));
        let (ending, count) = run_one(dir.path(), &task, bills, Duration::from_micros(random.below(DELAY_US_MAX)));
        calls += count;
        if ending == Ending::Done {
            break;
        }
        kills += 1;
        assert!(kills < events, "no end in sight");
    }
    let (store, _bus, bills) = open(dir.path(), Durability::Os);
    let mut reader = bills.reader().open().unwrap();
    let next = || reader.try_next().unwrap().map(|bill| std::str::from_utf8(bill.payload()).unwrap().parse().unwrap());
    let bills: Vec<u64> = std::iter::from_fn(next).collect();
    println!("{events} events, {kills} kills, {calls} calls, {} bills", bills.len());
    assert_eq!(complaints(events, &bills), [""; 0]);
    assert_eq!(lag(&store), 0);
    let dead =
        store.stats().unwrap().topics.iter().flat_map(|topic| &topic.groups).map(|group| group.dead).sum::<u64>();
    assert_eq!(dead, 0);
    assert!(kills >= 3 && calls > events, "hardly anything happened: {kills} kills, {calls} calls");

    // The checker itself: it must complain about each of these, or it is worth nothing.
    let doubled = [&bills[..], &bills[..1]].concat();
    let strange = [&bills[1..], &[events]].concat();
    for doctored in [&bills[1..], &doubled, &strange] {
        assert!(!complaints(events, doctored).is_empty());
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
