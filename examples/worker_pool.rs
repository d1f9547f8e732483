//! How do several threads share the messages of one queue?
//!
//! ```text
//! cargo run --example worker_pool
//! ```
//!
//! They receive from the same group: every message goes to one of them. A worker that fails gives the message back, and
//! after the backoff another worker gets it.

#![allow(clippy::print_stdout, reason = "this program talks to a person at a terminal")]

use millpond::{Backoff, Group, Message, Store};
use std::error::Error;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const WORKERS: usize = 4;
const JOBS: u32 = 200;

fn main() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let store = Store::open(dir.path().join("store"))?;
    let jobs = store.topic("jobs").open()?;
    let workers = jobs
        .group("workers")
        .visibility_timeout(Duration::from_secs(10))
        .max_attempts(5)
        .backoff(Backoff::exponential(Duration::from_millis(5)).max(Duration::from_millis(100)))
        .open()?;

    // One batch: one write, one sync, and all of them or none.
    jobs.publish_batch((0..JOBS).map(|number| Message::new(number.to_string())))?;

    // The jobs that are not done yet: when none is left, the workers go home.
    let left = AtomicU32::new(JOBS);
    let done = thread::scope(|scope| {
        let threads: Vec<_> = (0..WORKERS).map(|_| scope.spawn(|| work(&workers, &left))).collect();
        threads.into_iter().map(|worker| worker.join().map_err(|_| "a worker panicked")?).collect::<Result<Vec<u32>>>()
    })?;

    println!("{JOBS} jobs done by {WORKERS} workers: {done:?}");
    store.close()?;
    Ok(())
}

/// Handles messages until all jobs are done, and says how many it did.
fn work(group: &Group, left: &AtomicU32) -> Result<u32> {
    let mut done = 0;
    while left.load(SeqCst) > 0 {
        let Some(delivery) = group.receive(Duration::from_millis(20))? else { continue };
        let number: u32 = std::str::from_utf8(delivery.payload())?.parse()?;
        if number % 10 == 7 && delivery.attempt() == 1 {
            delivery.nack(format_args!("job {number} never works the first time"))?;
        } else {
            delivery.ack()?;
            left.fetch_sub(1, SeqCst);
            done += 1;
        }
    }
    Ok(done)
}
