//! How do I keep a customer with thousands of jobs from holding up all others?
//!
//! ```text
//! cargo run --example fair_workers
//! ```
//!
//! A customer publishes 300 jobs, and then nine others five each. Four workers share a group in order of keys, the key being the customer: of
//! each customer one job is done at a time, so that it takes one of the workers at most. The small customers are served long before the large
//! one is, though some jobs fail at first.

#![allow(clippy::print_stdout, reason = "this program talks to a person at a terminal")]
#![allow(clippy::disallowed_methods, reason = "its jobs take a while")]

use millpond::{Backoff, Delivery, Group, Message, Ordering, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const WORKERS: u64 = 4;
const SMALL_CUSTOMERS: u64 = 9;
const SMALL_JOBS: u64 = 5;
const LARGE_JOBS: u64 = 300;
const LARGE: u64 = 0;
/// How many jobs of the large customer may be done before the last of the others is: as many as all of theirs.
const LARGE_DONE_MAX: u64 = SMALL_CUSTOMERS * SMALL_JOBS;

/// What happened to a job of a customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Began { customer: u64, job: u64 },
    Failed { customer: u64, job: u64 },
    Done { customer: u64, job: u64 },
}

type Journal = Vec<Step>;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let store = Store::open(dir.path().join("store"))?;
    let jobs = store.topic("jobs").open()?;
    let backoff = Backoff::fixed(Duration::from_millis(2));
    let workers = jobs.group("workers").ordering(Ordering::Key).max_attempts(0).backoff(backoff).open()?;
    let job = |customer: u64, job: u64| Message::new(job.to_string()).key(customer.to_string());
    jobs.publish_batch((0..LARGE_JOBS).map(|number| job(LARGE, number)))?;
    for customer in 1..=SMALL_CUSTOMERS {
        jobs.publish_batch((0..SMALL_JOBS).map(|number| job(customer, number)))?;
    }

    let journal = Mutex::new(Journal::new());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..WORKERS).map(|_| scope.spawn(|| work(&workers, &journal))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, millpond::Result<()>>| match thread.join() {
            Ok(done) => done.map_err(|error| error.to_string()),
            Err(_) => Err("a worker panicked".to_owned()),
        };
        threads.into_iter().try_for_each(join)
    })?;
    store.close()?;

    let journal = journal.into_inner()?;
    let large_done = check(&journal)?;
    println!("{} jobs done, one of a customer at a time", all_jobs());
    println!("the last of the small customers was served when the large one had {large_done} of {LARGE_JOBS} done");
    Ok(())
}

fn all_jobs() -> u64 {
    LARGE_JOBS + SMALL_CUSTOMERS * SMALL_JOBS
}

fn note(journal: &Mutex<Journal>) -> MutexGuard<'_, Journal> {
    journal.lock().unwrap_or_else(PoisonError::into_inner)
}

fn done(journal: &[Step]) -> u64 {
    journal.iter().filter(|step| matches!(step, Step::Done { .. })).count() as u64
}

/// Does jobs until none is left.
fn work(workers: &Group, journal: &Mutex<Journal>) -> millpond::Result<()> {
    while done(&note(journal)) < all_jobs() {
        let Some(delivery) = workers.receive(Duration::from_millis(20))? else { continue };
        let number = |bytes: &[u8]| String::from_utf8_lossy(bytes).parse().unwrap_or(u64::MAX);
        let (customer, job) = (number(delivery.key().unwrap_or_default()), number(delivery.payload()));
        note(journal).push(Step::Began { customer, job });
        // The job itself takes a while.
        std::thread::sleep(Duration::from_millis(1));
        settle(delivery, journal, (customer, job))?;
    }
    Ok(())
}

/// Every seventh job of a customer fails at its first two attempts.
fn settle(delivery: Delivery, journal: &Mutex<Journal>, (customer, job): (u64, u64)) -> millpond::Result<()> {
    let fails = (customer + job).is_multiple_of(7) && delivery.attempt() < 3;
    // Noted before it is settled: only then may the next one begin.
    note(journal).push(if fails { Step::Failed { customer, job } } else { Step::Done { customer, job } });
    if fails { delivery.nack("not yet") } else { delivery.ack() }
}

/// Whether each job was done once, of each customer one at a time and in order, and no small customer waited for the large one. Returns how
/// many jobs of that were done before the last of the others.
fn check(journal: &[Step]) -> Result<u64, String> {
    let (mut busy, mut next): (BTreeSet<u64>, BTreeMap<u64, u64>) = Default::default();
    let (mut large_done, mut large_before_last) = (0, 0);
    for step in journal {
        let (Step::Began { customer, job } | Step::Failed { customer, job } | Step::Done { customer, job }) = *step;
        let expected = next.entry(customer).or_default();
        if job != *expected {
            return Err(format!("customer {customer} has job {job} where {expected} comes next"));
        }
        match step {
            Step::Began { .. } if !busy.insert(customer) => {
                return Err(format!("two jobs of customer {customer} at once"));
            }
            Step::Began { .. } => continue,
            Step::Failed { .. } | Step::Done { .. } if !busy.remove(&customer) => {
                return Err(format!("job {job} of customer {customer} ended and did not begin"));
            }
            Step::Failed { .. } => continue,
            Step::Done { .. } => *expected += 1,
        }
        if customer == LARGE {
            large_done += 1;
        } else {
            large_before_last = large_done;
        }
    }
    let has_all = |customer| next.get(&customer) == Some(&if customer == LARGE { LARGE_JOBS } else { SMALL_JOBS });
    if let Some(customer) = (0..=SMALL_CUSTOMERS).find(|customer| !has_all(*customer)) {
        return Err(format!("not all jobs of customer {customer} were done"));
    }
    if large_before_last > LARGE_DONE_MAX {
        return Err(format!("a small customer waited for {large_before_last} jobs of the large one"));
    }
    Ok(large_before_last)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The customers by turns, then the rest of the large one, and what `change` makes of that.
    fn journal(change: impl FnOnce(&mut Journal)) -> Journal {
        let turns = (0..SMALL_JOBS).flat_map(|job| (0..=SMALL_CUSTOMERS).map(move |customer| (customer, job)));
        let rest = (SMALL_JOBS..LARGE_JOBS).map(|job| (LARGE, job));
        let steps = |(customer, job)| [Step::Began { customer, job }, Step::Done { customer, job }];
        let mut journal: Journal = turns.chain(rest).flat_map(steps).collect();
        change(&mut journal);
        journal
    }

    #[test]
    fn the_checker_takes_what_is_fair() {
        assert_eq!(check(&journal(|_| ())), Ok(SMALL_JOBS));
        let (customer, job) = (1, 0);
        let retried = |journal: &mut Journal| {
            let again = [Step::Began { customer, job }, Step::Failed { customer, job }];
            drop(journal.splice(2..2, again));
        };
        assert_eq!(check(&journal(retried)), Ok(SMALL_JOBS));
    }

    #[test]
    fn the_checker_finds_what_is_not() {
        let changes: [fn(&mut Journal); 6] = [
            // The last small job comes last of all.
            |journal| {
                let last = journal.iter().rposition(|step| matches!(step, Step::Done { customer: 1.., .. })).unwrap();
                let job: Vec<Step> = journal.drain(last - 1..=last).collect();
                journal.extend(job);
            },
            |journal| _ = journal.remove(0),
            |journal| _ = journal.pop(),
            |journal| journal.insert(1, journal[0]),
            |journal| {
                journal.retain(|step| !matches!(step, Step::Began { customer: 3, .. } | Step::Done { customer: 3, .. }))
            },
            |journal| {
                let second = journal.iter().position(|step| *step == Step::Began { customer: 2, job: 1 }).unwrap();
                journal[second] = Step::Began { customer: 2, job: 2 };
            },
        ];
        for (number, change) in changes.into_iter().enumerate() {
            assert!(check(&journal(change)).is_err(), "change {number}");
        }
    }

    #[test]
    fn the_program_is_fair() {
        main().unwrap_or_else(|error| panic!("{error}"));
    }
}
