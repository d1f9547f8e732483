//! How fast a store on this disk publishes, and receives and acks.
//!
//! Never here: a store that somebody uses; the one that is measured has a directory of its own, and is removed.

#![allow(clippy::disallowed_methods, reason = "a person waits here, by no simulated clock")]

use super::tail::interrupted;
use super::verify::message_bar;
use crate::args::{Bench, Level};
use crate::output::{Done, Failure, Printer};
use indicatif::ProgressBar;
use millpond::{Durability, Group, Store, Topic};
use serde_json::{Value, json};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What one thread did.
#[derive(Default)]
struct Calls {
    messages: u64,
    /// How long each call took.
    times: Vec<Duration>,
}

/// What all threads did together.
struct Phase {
    name: &'static str,
    messages: u64,
    took: Duration,
    /// How long each call took, shortest first; there is one at least.
    times: Vec<Duration>,
}

pub fn bench(args: &Bench, printer: &mut Printer) -> Done {
    let failed = |what: &str| {
        let what = format!("could not {what} in {}", args.dir.display());
        move |error| Failure::Io(what, error)
    };
    let folder = tempfile::Builder::new().prefix("millpond-bench-").tempdir_in(&args.dir);
    let folder = folder.map_err(failed("make a directory"))?;
    // It is removed also where this fails, once the store is closed.
    let phases = run(args, &folder.path().join("store"))?;
    folder.close().map_err(failed("remove the directory"))?;
    if !printer.is_json() {
        printer.show(|| Value::Null, || heading(args))?;
    }
    let rows = phases.iter().map(|phase| (phase.cells(args), phase.as_json(args))).collect();
    printer.table(&["", "MESSAGES", "MESSAGES/S", "MIB/S", "CALLS", "P50", "P99", "P99.9", "MAX"], rows)
}

/// Publishes and receives; after an interrupt, what was measured by then.
fn run(args: &Bench, path: &std::path::Path) -> Done<Vec<Phase>> {
    let stop = interrupted()?;
    let store = Store::options().durability(level(args.durability)).open(path)?;
    let topic = store.topic("bench").open()?;
    let group = topic.group("bench").open()?;
    let bar = message_bar("publishing", args.messages);
    let published = phase("publish", args, |nth| publish(&topic, args, nth, &stop, &bar))?;
    let count = published.as_ref().map_or(0, |phase| phase.messages);
    bar.set_position(0);
    bar.set_message("receiving");
    let received = phase("receive and ack", args, |_| receive(&group, args, &stop, &bar))?;
    bar.finish_and_clear();
    store.close()?;
    let back = received.as_ref().map_or(0, |phase| phase.messages);
    if back != count && !stop.load(Ordering::Relaxed) {
        return Err(wrong(format!("{count} messages were published, and {back} received")));
    }
    Ok(published.into_iter().chain(received).collect())
}

/// `None` if nothing was done.
fn phase(name: &'static str, args: &Bench, work: impl Fn(u16) -> Done<Calls> + Sync) -> Done<Option<Phase>> {
    let (work, began) = (&work, Instant::now());
    let done: Vec<Done<Calls>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..args.threads).map(|nth| scope.spawn(move || work(nth))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect()
    });
    let took = began.elapsed();
    let (mut messages, mut times) = (0, Vec::new());
    for calls in done {
        let calls = calls?;
        messages += calls.messages;
        times.extend(calls.times);
    }
    times.sort_unstable();
    Ok((!times.is_empty()).then_some(Phase { name, messages, took, times }))
}

fn publish(topic: &Topic, args: &Bench, nth: u16, stop: &AtomicBool, bar: &ProgressBar) -> Done<Calls> {
    let payload = vec![b'x'; args.size as usize];
    let (threads, nth) = (u64::from(args.threads), u64::from(nth));
    let mut left = args.messages / threads + u64::from(nth < args.messages % threads);
    let mut calls = Calls::default();
    while left > 0 && !stop.load(Ordering::Relaxed) {
        let count = left.min(u64::from(args.batch));
        let began = Instant::now();
        if args.batch == 1 {
            topic.publish(payload.as_slice())?;
        } else {
            topic.publish_batch((0..count).map(|_| payload.as_slice()))?;
        }
        calls.add(count, began, bar);
        left -= count;
    }
    Ok(calls)
}

fn receive(group: &Group, args: &Bench, stop: &AtomicBool, bar: &ProgressBar) -> Done<Calls> {
    let mut calls = Calls::default();
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let batch = group.receive_batch(args.batch as usize, Duration::ZERO)?;
        let count = batch.len() as u64;
        if count == 0 {
            break;
        }
        let lost = batch.ack()?;
        if !lost.is_empty() {
            return Err(wrong(format!("{} leases ended before the ack; use smaller batches", lost.len())));
        }
        calls.add(count, began, bar);
    }
    Ok(calls)
}

fn wrong(what: String) -> Failure {
    Failure::Io("nothing was measured".to_owned(), io::Error::other(what))
}

impl Calls {
    fn add(&mut self, messages: u64, began: Instant, bar: &ProgressBar) {
        self.times.push(began.elapsed());
        self.messages += messages;
        bar.inc(messages);
    }
}

impl Phase {
    /// The time within which so many of 1,000 calls ended.
    fn within(&self, share: usize) -> Duration {
        self.times.get((self.times.len() - 1) * share / 1_000).copied().unwrap_or_default()
    }

    fn per_second(&self) -> f64 {
        self.messages as f64 / self.took.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    fn cells(&self, args: &Bench) -> Vec<String> {
        let mib = self.per_second() * f64::from(args.size) / f64::from(1 << 20);
        let numbers = [self.messages.to_string(), format!("{:.0}", self.per_second()), format!("{mib:.1}")];
        let times = [500, 990, 999, 1_000].map(|share| format!("{:.1?}", self.within(share)));
        let name = [self.name.to_owned()];
        name.into_iter().chain(numbers).chain([self.times.len().to_string()]).chain(times).collect()
    }

    fn as_json(&self, args: &Bench) -> Value {
        let us = |share| u64::try_from(self.within(share).as_micros()).unwrap_or(u64::MAX);
        json!({
            "phase": self.name, "durability": name(args.durability), "size": args.size, "batch": args.batch, "threads": args.threads,
            "messages": self.messages, "seconds": self.took.as_secs_f64(), "messages_per_s": self.per_second(), "calls": self.times.len(),
            "p50_us": us(500), "p99_us": us(990), "p999_us": us(999), "max_us": us(1_000),
        })
    }
}

fn heading(args: &Bench) -> String {
    let threads = if args.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", args.threads) };
    format!("durability {}, {} bytes a message, batches of {}, {threads}", name(args.durability), args.size, args.batch)
}

fn name(level: Level) -> &'static str {
    match level {
        Level::Disk => "disk",
        Level::Os => "os",
    }
}

fn level(level: Level) -> Durability {
    match level {
        Level::Disk => Durability::Disk,
        Level::Os => Durability::Os,
    }
}
