//! How do I process the events of each customer in order, and different customers at the same time?
//!
//! ```text
//! cargo run --example ordered_by_key
//! ```
//!
//! Four workers share a group in order of keys. Some of their attempts fail, and one worker is interrupted by a restart. Each account's
//! entries are still booked one after another: in the end each balance, which depends on the order, is what it must be.

#![allow(clippy::print_stdout, reason = "this program talks to a person at a terminal")]

use millpond::{Backoff, Delivery, Group, Message, Ordering, Store, Topic};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

const ACCOUNTS: u64 = 12;
const ENTRIES: u64 = 25;
const WORKERS: u64 = 4;

/// What was booked: account and number of the entry, in the order in which it happened.
type Journal = Vec<(String, u64)>;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("store");
    let journal = Mutex::new(Journal::new());

    let (store, entries, ledger) = open(&path)?;
    publish(&entries)?;
    // Half of them, and then the program ends while a worker has an entry in its hands.
    let interrupted = ledger.receive(Duration::ZERO)?;
    work(&ledger, &journal, ACCOUNTS * ENTRIES / 2)?;
    drop((interrupted, entries, ledger));
    store.close()?;

    let (store, _, ledger) = open(&path)?;
    work(&ledger, &journal, ACCOUNTS * ENTRIES)?;
    store.close()?;

    let journal = journal.into_inner()?;
    check(&journal)?;
    let switches = journal.windows(2).filter(|two| two[0].0 != two[1].0).count();
    println!("{} entries of {ACCOUNTS} accounts, each account in order", journal.len());
    println!("{switches} times the next entry was another account's: these flow beside each other");
    Ok(())
}

fn open(path: &Path) -> millpond::Result<(Store, Topic, Group)> {
    let store = Store::open(path)?;
    let entries = store.topic("entries").partitions(3).open()?;
    let backoff = Backoff::fixed(Duration::from_millis(2));
    let ledger = entries.group("ledger").ordering(Ordering::Key).max_attempts(0).backoff(backoff).open()?;
    Ok((store, entries, ledger))
}

fn publish(entries: &Topic) -> millpond::Result<()> {
    for number in 0..ENTRIES {
        let of_each = (0..ACCOUNTS).map(|account| Message::new(number.to_string()).key(format!("account-{account}")));
        entries.publish_batch(of_each)?;
    }
    Ok(())
}

/// Books entries with several workers until so many are in the journal.
fn work(ledger: &Group, journal: &Mutex<Journal>, until: u64) -> Result<(), Box<dyn Error>> {
    let worker = |number: u64| -> Result<(), String> {
        let mut attempts = number;
        while booked(journal) < until {
            let received = ledger.receive(Duration::from_millis(20)).map_err(|error| error.to_string())?;
            let Some(delivery) = received else { continue };
            attempts += 1;
            // Every fifth attempt fails. Nothing of its account comes before it is tried again.
            let settled = if attempts.is_multiple_of(5) { delivery.nack("no ink") } else { book(delivery, journal) };
            settled.map_err(|error| error.to_string())?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|number| scope.spawn(move || worker(number))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| "a worker panicked".to_owned())?)
    })?;
    Ok(())
}

fn booked(journal: &Mutex<Journal>) -> u64 {
    journal.lock().map_or(u64::MAX, |journal| journal.len() as u64)
}

fn book(delivery: Delivery, journal: &Mutex<Journal>) -> millpond::Result<()> {
    let account = String::from_utf8_lossy(delivery.key().unwrap_or_default()).into_owned();
    let number = String::from_utf8_lossy(delivery.payload()).parse().unwrap_or(u64::MAX);
    if let Ok(mut journal) = journal.lock() {
        journal.push((account, number));
    }
    delivery.ack()
}

/// Whether each account has all its entries, once and in order.
fn check(journal: &[(String, u64)]) -> Result<(), String> {
    let mut next: BTreeMap<&str, u64> = BTreeMap::new();
    for (account, number) in journal {
        let expected = next.entry(account).or_default();
        if number != expected {
            return Err(format!("{account} has entry {number} where {expected} comes next"));
        }
        *expected += 1;
    }
    match next.iter().find(|(_, count)| **count != ENTRIES) {
        Some((account, count)) => Err(format!("{account} has {count} entries of {ENTRIES}")),
        None if next.len() as u64 != ACCOUNTS => Err(format!("only {} accounts", next.len())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The entries of all accounts by turns, and what `change` makes of that.
    fn journal(change: impl FnOnce(&mut Journal)) -> Journal {
        let entries = (0..ENTRIES).flat_map(|number| (0..ACCOUNTS).map(move |account| (account, number)));
        let mut journal: Journal = entries.map(|(account, number)| (format!("account-{account}"), number)).collect();
        change(&mut journal);
        journal
    }

    #[test]
    fn the_checker_takes_what_is_in_order() {
        assert_eq!(check(&journal(|_| ())), Ok(()));
        // Other accounts may come in any order.
        assert_eq!(check(&journal(|journal| journal.swap(0, 1))), Ok(()));
    }

    #[test]
    fn the_checker_finds_what_is_not() {
        let accounts = ACCOUNTS as usize;
        let changes: [fn(&mut Journal, usize); 5] = [
            |journal, accounts| journal.swap(0, accounts),
            |journal, accounts| drop(journal.remove(accounts * 3)),
            |journal, _| drop(journal.pop()),
            |journal, accounts| journal.insert(accounts, journal[0].clone()),
            |journal, _| journal.retain(|(account, _)| account != "account-3"),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            assert!(check(&journal(|journal| change(journal, accounts))).is_err(), "change {number}");
        }
    }

    #[test]
    fn the_program_is_in_order() {
        main().unwrap_or_else(|error| panic!("{error}"));
    }
}
