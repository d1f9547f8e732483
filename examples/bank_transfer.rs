//! Can money be lost or made if the bank is killed in the middle of a transfer?
//!
//! ```text
//! cargo run --release --example bank_transfer
//! ```
//!
//! The ledger is a topic that keeps its messages forever, and a balance is the sum of an account's entries. Two clerks consume
//! transfer requests. For each they write two entries and acknowledge the request in one transaction: all three are on disk or none is.
//!
//! This program runs itself as another process, the bank, and kills that with SIGKILL again and again. After each kill the balances
//! must sum to what was paid in. In the end every request must have its two entries, once.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this program talks to a person at a terminal")]

use millpond::{Backoff, Delivery, Error, Group, Message, Retention, Store, Topic};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const ACCOUNTS: u32 = 8;
const PAID_IN_CENTS: i64 = 100_000;
const REQUESTS: u32 = 500;
const KILLS: u32 = 20;
const CLERKS: usize = 2;

/// Somebody wants to move money.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Request {
    number: u32,
    from: u32,
    to: u32,
    cents: i64,
}

/// One line of the ledger: what a request, or without one the opening of the account, added to the balance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Entry {
    request: Option<u32>,
    account: u32,
    cents: i64,
}

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let done = match (args.next(), args.next()) {
        (None, _) => supervise(),
        (Some(word), Some(dir)) if word == "--bank" => run_bank(Path::new(&dir)),
        (Some(_), _) => Err("usage: bank_transfer".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bank_transfer: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Kills one bank after another, and lets the last one finish.
fn supervise() -> Result<()> {
    let dir = tempfile::Builder::new().prefix("bank_transfer-").tempdir()?;
    let store = dir.path().join("store");
    let mut killed = 0;
    for round in 0..KILLS {
        // The first ones die while the bank opens.
        killed += u32::from(!run_child(&store, Some(round))?);
        Bank::open(&store)?.audit(false)?;
    }
    if !run_child(&store, None)? {
        return Err("the last bank did not finish".into());
    }
    let balances = Bank::open(&store)?.audit(true)?;
    println!("killed {killed} times");
    balances.iter().for_each(|(account, cents)| println!("account {account}: {:>8.2}", *cents as f64 / 100.0));
    println!(
        "sum {:.2}, as paid in; {REQUESTS} transfers, each booked once",
        balances.values().sum::<i64>() as f64 / 100.0
    );
    Ok(())
}

/// Runs a bank, and kills it when it has said so many lines. Returns whether it finished before.
fn run_child(store: &Path, lines: Option<u32>) -> Result<bool> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg("--bank")
        .arg(store)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = BufReader::new(child.stdout.take().ok_or("the child has no output")?).lines();
    match lines {
        Some(lines) => {
            said.by_ref().take(lines as usize).try_for_each(|line| line.map(drop))?;
            child.kill()?; // SIGKILL: nothing of the child runs any more
        }
        None => said.try_for_each(|line| line.map(drop))?,
    }
    let status = child.wait()?;
    match status.code() {
        Some(0) => Ok(true),
        Some(_) => Err(format!("the bank failed: {status}").into()),
        None => Ok(false),
    }
}

struct Bank {
    store: Store,
    requests: Topic,
    ledger: Topic,
    clerks: Group,
}

/// The bank itself: opens, if it did not yet, and carries out requests until none is left.
fn run_bank(dir: &Path) -> Result<()> {
    let bank = Bank::open(dir)?;
    bank.pay_in()?;
    let left = AtomicUsize::new(REQUESTS as usize - (bank.entries()?.len() - ACCOUNTS as usize) / 2);
    println!("{left:?} requests are left");
    thread::scope(|scope| {
        let clerks: Vec<_> = (0..CLERKS).map(|_| scope.spawn(|| bank.work(&left))).collect();
        clerks.into_iter().try_for_each(|clerk| clerk.join().map_err(|_| "a clerk panicked")?)
    })?;
    Ok(bank.store.close()?)
}

impl Bank {
    fn open(dir: &Path) -> Result<Self> {
        let store = Store::open(dir)?;
        let requests = store.topic("requests").retention(Retention::Forever).open()?;
        let ledger = store.topic("ledger").retention(Retention::Forever).open()?;
        // A kill is not the fault of the request that is being carried out.
        let clerks = requests.group("clerks").max_attempts(1_000).backoff(Backoff::none()).open()?;
        Ok(Self { store, requests, ledger, clerks })
    }

    /// Opens the accounts and takes in all requests, in one transaction with a cursor that says that this was done.
    fn pay_in(&self) -> Result<()> {
        let opened = self.store.cursor("opened")?;
        if opened.get()?.is_some() {
            return Ok(());
        }
        self.store.transaction(|tx| -> Result<()> {
            for entry in opening_entries() {
                tx.publish(&self.ledger, entry_message(&entry)?)?;
            }
            for request in all_requests() {
                tx.publish(&self.requests, serde_json::to_vec(&request)?)?;
            }
            Ok(tx.set_cursor(&opened, None, "yes")?)
        })?;
        Ok(())
    }

    /// One clerk, until no request is left.
    fn work(&self, left: &AtomicUsize) -> Result<()> {
        while left.load(SeqCst) > 0 {
            let Some(delivery) = self.clerks.receive(Duration::from_millis(20))? else { continue };
            match self.transfer(&delivery) {
                Ok(number) => {
                    left.fetch_sub(1, SeqCst);
                    println!("booked {number}");
                }
                Err(error) => match error.downcast_ref() {
                    // The other clerk has the request now. Nothing was booked here.
                    Some(Error::LeaseLost { .. }) => {}
                    _ => return Err(error),
                },
            }
        }
        Ok(())
    }

    /// Consume, transform, produce: the request is gone and both entries are there, or nothing happened.
    fn transfer(&self, delivery: &Delivery) -> Result<u32> {
        let request: Request = serde_json::from_slice(delivery.payload())?;
        self.store.transaction(|tx| -> Result<()> {
            for entry in entries_of(&request) {
                tx.publish(&self.ledger, entry_message(&entry)?)?;
            }
            Ok(tx.ack(delivery)?)
        })?;
        Ok(request.number)
    }

    fn entries(&self) -> Result<Vec<Entry>> {
        self.read_all(&self.ledger)
    }

    /// Reads a topic from its start, as a group that is removed again.
    fn read_all<T: DeserializeOwned>(&self, topic: &Topic) -> Result<Vec<T>> {
        let name = format!("reader-{}", self.store.report().epoch);
        let reader = topic.group(&name).open()?;
        let mut all = Vec::new();
        loop {
            let batch = reader.receive_batch(500, Duration::ZERO)?;
            if batch.is_empty() {
                topic.remove_group(&name)?;
                return Ok(all);
            }
            for delivery in batch.iter() {
                all.push(serde_json::from_slice(delivery.payload())?);
            }
            let _lost = batch.ack()?;
        }
    }

    /// Returns the balances if the ledger is right.
    fn audit(self, is_finished: bool) -> Result<BTreeMap<u32, i64>> {
        let (requests, entries): (Vec<Request>, _) = (self.read_all(&self.requests)?, self.entries()?);
        self.store.close()?;
        if requests.is_empty() && entries.is_empty() && !is_finished {
            return Ok(BTreeMap::new()); // killed before it opened
        }
        if requests != all_requests() {
            return Err("the requests are not those that were made".into());
        }
        check(&entries, is_finished)?;
        Ok(balances(&entries))
    }
}

/// Requests that follow from their numbers, so that the auditor knows them too.
fn all_requests() -> Vec<Request> {
    let request = |number: u32| {
        let from = number * 5 % ACCOUNTS;
        let to = (from + 1 + number % (ACCOUNTS - 1)) % ACCOUNTS;
        Request { number, from, to, cents: i64::from(number * 7_919 % 20_000) + 1 }
    };
    (0..REQUESTS).map(request).collect()
}

fn opening_entries() -> Vec<Entry> {
    (0..ACCOUNTS).map(|account| Entry { request: None, account, cents: PAID_IN_CENTS }).collect()
}

fn entries_of(request: &Request) -> [Entry; 2] {
    let entry = |account, cents| Entry { request: Some(request.number), account, cents };
    [entry(request.from, -request.cents), entry(request.to, request.cents)]
}

fn entry_message(entry: &Entry) -> Result<Message<'static>> {
    Ok(Message::new(serde_json::to_vec(entry)?).key(entry.account.to_string()))
}

fn balances(entries: &[Entry]) -> BTreeMap<u32, i64> {
    let mut balances = BTreeMap::new();
    for entry in entries {
        *balances.entry(entry.account).or_default() += entry.cents;
    }
    balances
}

/// Compares a ledger with what was asked of the bank. Each account was opened once, and each request has both its entries or, before
/// the bank has finished, none.
fn check(ledger: &[Entry], is_finished: bool) -> Result<()> {
    let (sum, paid_in) = (balances(ledger).values().sum::<i64>(), PAID_IN_CENTS * i64::from(ACCOUNTS));
    if sum != paid_in {
        return Err(format!("the balances sum to {sum} cents, and {paid_in} were paid in").into());
    }
    let mut by_request: BTreeMap<Option<u32>, Vec<&Entry>> = BTreeMap::new();
    ledger.iter().for_each(|entry| by_request.entry(entry.request).or_default().push(entry));
    let mut compare = |request: Option<u32>, mut wanted: Vec<Entry>| {
        let mut booked = by_request.remove(&request).unwrap_or_default();
        booked.sort();
        wanted.sort();
        let is_open = booked.is_empty() && request.is_some() && !is_finished;
        let is_right = is_open || booked.iter().copied().eq(&wanted);
        if is_right { Ok(()) } else { Err(format!("request {request:?} has {booked:?}, and not {wanted:?}")) }
    };
    compare(None, opening_entries())?;
    all_requests().iter().try_for_each(|request| compare(Some(request.number), entries_of(request).to_vec()))?;
    match by_request.keys().next() {
        Some(stray) => Err(format!("nobody made request {stray:?}").into()),
        None => Ok(()),
    }
}

/// The checker itself: it must complain about each wrong ledger, or it is worth nothing.
#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Vec<Entry> {
        let transfers = all_requests();
        opening_entries().into_iter().chain(transfers.iter().flat_map(entries_of)).collect()
    }

    /// Where the two entries of a request are.
    const DEBIT: usize = ACCOUNTS as usize + 20;
    const CREDIT: usize = DEBIT + 1;

    #[track_caller]
    fn complaint(ledger: &[Entry]) -> String {
        check(ledger, true).expect_err("the ledger is wrong").to_string()
    }

    #[test]
    fn a_right_ledger_has_no_complaint() {
        check(&ledger(), true).expect("it is right");
        check(&ledger()[..CREDIT + 1], false).expect("it is right so far");
        let mut reversed = ledger();
        reversed.reverse();
        check(&reversed, true).expect("the order of entries is free");
    }

    #[test]
    fn a_lost_entry_is_found() {
        for lost in [0, DEBIT, CREDIT] {
            let mut ledger = ledger();
            ledger.remove(lost);
            assert!(complaint(&ledger).contains("paid in"), "entry {lost}");
            assert!(check(&ledger, false).is_err(), "entry {lost}");
        }
    }

    #[test]
    fn a_lost_transfer_is_found_although_the_sum_is_right() {
        let mut ledger = ledger();
        ledger.drain(DEBIT..=CREDIT);
        assert!(complaint(&ledger).contains("has []"));
    }

    #[test]
    fn a_doubled_entry_is_found() {
        for doubled in [0, DEBIT, CREDIT] {
            let mut ledger = ledger();
            ledger.push(ledger[doubled].clone());
            assert!(complaint(&ledger).contains("paid in"), "entry {doubled}");
        }
    }

    #[test]
    fn a_doubled_transfer_is_found_although_the_sum_is_right() {
        let mut ledger = ledger();
        ledger.extend([ledger[DEBIT].clone(), ledger[CREDIT].clone()]);
        assert!(complaint(&ledger).contains("and not"));
        assert!(check(&ledger, false).is_err());
    }

    #[test]
    fn a_changed_entry_is_found() {
        let mut changed = ledger();
        changed[CREDIT].cents += 1;
        assert!(complaint(&changed).contains("paid in"));

        // The sums are right in these.
        let mut changed = ledger();
        (changed[DEBIT].cents, changed[CREDIT].cents) = (changed[DEBIT].cents - 1, changed[CREDIT].cents + 1);
        assert!(complaint(&changed).contains("and not"));
        let mut changed = ledger();
        changed[CREDIT].account = (changed[CREDIT].account + 1) % ACCOUNTS;
        assert!(complaint(&changed).contains("and not"));
        let mut changed = ledger();
        for place in [DEBIT, CREDIT] {
            changed[place].request = Some(REQUESTS);
        }
        assert!(complaint(&changed).contains("has []"));
        changed.extend(ledger()[DEBIT..=CREDIT].iter().cloned());
        assert!(complaint(&changed).contains("nobody made"));
    }
}
