//! What the handlers of an example did, and whether that is what they should have done.

#![allow(dead_code, reason = "each example takes what it needs")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// One event in one handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub subscriber: &'static str,
    pub subject: String,
    pub what: String,
}

impl Entry {
    pub fn new(subscriber: &'static str, subject: impl Into<String>, what: impl Into<String>) -> Self {
        Self { subscriber, subject: subject.into(), what: what.into() }
    }
}

/// Entries in the order in which handlers made them.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<Vec<Entry>>>);

impl Ledger {
    pub fn write(&self, subscriber: &'static str, subject: impl Into<String>, what: impl Into<String>) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.push(Entry::new(subscriber, subject, what));
    }

    pub fn entries(&self) -> Vec<Entry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Whether every subscriber has each of its events once, and those of a subject in order.
pub fn check(expected: &[Entry], seen: &[Entry]) -> Result<(), String> {
    let (expected, seen) = (by_subject(expected), by_subject(seen));
    for ((subscriber, subject), wanted) in &expected {
        let got = seen.get(&(*subscriber, *subject)).map_or(&[][..], Vec::as_slice);
        if got != wanted.as_slice() {
            return Err(format!("{subscriber} has {got:?} of {subject}, and should have {wanted:?}"));
        }
    }
    match seen.keys().find(|key| !expected.contains_key(key)) {
        Some((subscriber, subject)) => Err(format!("{subscriber} has events of {subject}, and should have none")),
        None => Ok(()),
    }
}

fn by_subject(entries: &[Entry]) -> BTreeMap<(&str, &str), Vec<&str>> {
    let mut sorted: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for entry in entries {
        sorted.entry((entry.subscriber, entry.subject.as_str())).or_default().push(entry.what.as_str());
    }
    sorted
}

/// Asserts that the check accepts a true ledger, and none with one entry lost, doubled or reordered.
#[cfg(test)]
pub fn assert_check_can_fail(expected: &[Entry], seen: &[Entry]) {
    assert_eq!(check(expected, seen), Ok(()));
    let (mut reordered, mut pairs) = (0, 0);
    for nth in 0..seen.len() {
        let (mut lost, mut doubled) = (seen.to_vec(), seen.to_vec());
        lost.remove(nth);
        doubled.push(seen[nth].clone());
        assert!(check(expected, &lost).is_err(), "entry {nth} is lost");
        assert!(check(expected, &doubled).is_err(), "entry {nth} is doubled");
        let is_like = |other: &Entry| other.subscriber == seen[nth].subscriber && other.subject == seen[nth].subject;
        let Some(next) = (nth + 1..seen.len()).find(|next| is_like(&seen[*next])) else { continue };
        let mut swapped = seen.to_vec();
        swapped.swap(nth, next);
        (pairs, reordered) = (pairs + 1, reordered + usize::from(check(expected, &swapped).is_err()));
    }
    assert_eq!(reordered, pairs, "every swap within a subject is found");
}
