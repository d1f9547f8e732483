//! How do I try again later, for as long as a service asks for, and give up in the end?
//!
//! ```text
//! cargo run --example delayed_retries
//! ```
//!
//! Webhooks go to a service that is often down. A failed attempt is tried again after the delays of the group, or after as long as the
//! service says. A reminder is published for later. The program is restarted while some of them wait. In the end each hook had its attempts,
//! none of them early, and those that never worked are dead letters.

#![allow(clippy::print_stdout, reason = "this program talks to a person at a terminal")]
#![allow(clippy::disallowed_methods, reason = "this program measures time from outside")]

use millpond::{Backoff, Delivery, Group, Message, Store, Topic};
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

const HOOKS: u64 = 24;
const REMINDER: u64 = HOOKS;
const MAX_ATTEMPTS: u32 = 4;
/// After the first, the second, and each later failed attempt.
const DELAYS: [Duration; 3] = [Duration::from_millis(50), Duration::from_millis(100), Duration::from_millis(150)];
/// What the service asks for when it has too much to do.
const RETRY_AFTER: Duration = Duration::from_millis(200);
const REMINDER_DELAY: Duration = Duration::from_millis(300);
/// Delays go by the time of day, and this program measures them by another clock.
const CLOCKS_DIFFER: Duration = Duration::from_millis(10);

/// An attempt: of which hook, when it began, and from when on it was wanted.
#[derive(Clone, Debug)]
struct Attempt {
    hook: u64,
    number: u32,
    began: Duration,
    wanted: Duration,
}

/// What the service answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Taken,
    Down,
    RetryAfter(Duration),
}

/// All that was done, and which hooks never worked.
#[derive(Debug, Default)]
struct Journal {
    attempts: Vec<Attempt>,
    dead: BTreeSet<u64>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("store");
    let (start, mut journal) = (Instant::now(), Journal::default());
    // From when on the next attempt of a hook is wanted.
    let mut wanted = BTreeMap::new();

    let (store, hooks, sender) = open(&path)?;
    hooks.publish_batch((0..HOOKS).map(|hook| Message::new(hook.to_string())))?;
    wanted.insert(REMINDER, start.elapsed() + REMINDER_DELAY);
    hooks.publish(Message::new(REMINDER.to_string()).delay(REMINDER_DELAY))?;
    send(&sender, HOOKS as usize + 10, start, &mut wanted, &mut journal)?;
    drop((hooks, sender));
    store.close()?;

    // Those that wait, wait on: a restart makes nothing earlier.
    let (store, _, sender) = open(&path)?;
    send(&sender, usize::MAX, start, &mut wanted, &mut journal)?;
    // Dead letters are listed once they are durable.
    store.sync()?;
    for letter in sender.dead_letters()? {
        journal.dead.insert(number(letter?.payload()));
    }
    store.close()?;

    check(&journal)?;
    println!("{} attempts for {} hooks, none of them early", journal.attempts.len(), HOOKS + 1);
    println!("{} never worked and are dead letters", journal.dead.len());
    Ok(())
}

fn open(path: &Path) -> millpond::Result<(Store, Topic, Group)> {
    let store = Store::open(path)?;
    let hooks = store.topic("hooks").open()?;
    let sender =
        hooks.group("sender").max_attempts(MAX_ATTEMPTS).backoff(Backoff::list(&DELAYS).jitter(false)).open()?;
    Ok((store, hooks, sender))
}

/// Makes up to so many attempts. Ends when all hooks are settled.
fn send(
    sender: &Group,
    max: usize,
    start: Instant,
    wanted: &mut BTreeMap<u64, Duration>,
    journal: &mut Journal,
) -> millpond::Result<()> {
    let end = journal.attempts.len().saturating_add(max);
    let settled = |journal: &Journal| {
        let last = |attempt: &&Attempt| is_last(attempt.hook, attempt.number);
        journal.attempts.iter().filter(last).count() as u64
    };
    while journal.attempts.len() < end && settled(journal) < HOOKS + 1 {
        let Some(delivery) = sender.receive(Duration::from_secs(1))? else { continue };
        let (hook, attempt) = (number(delivery.payload()), delivery.attempt());
        let wanted_at = wanted.get(&hook).copied().unwrap_or_default();
        journal.attempts.push(Attempt { hook, number: attempt, began: start.elapsed(), wanted: wanted_at });
        let answer = answer(hook, attempt);
        wanted.insert(hook, start.elapsed() + delay(answer, attempt));
        settle(delivery, answer)?;
    }
    Ok(())
}

fn settle(delivery: Delivery, answer: Answer) -> millpond::Result<()> {
    match answer {
        Answer::Taken => delivery.ack(),
        Answer::Down => delivery.nack("the service is down"),
        Answer::RetryAfter(delay) => delivery.nack_after(delay, "too many requests"),
    }
}

/// How long a hook waits after this answer to an attempt.
fn delay(answer: Answer, attempt: u32) -> Duration {
    match answer {
        Answer::Taken => Duration::ZERO,
        Answer::Down => DELAYS[(attempt as usize - 1).min(DELAYS.len() - 1)],
        Answer::RetryAfter(delay) => delay,
    }
}

/// What the service answers: each hook fails so many times, and some for ever.
fn answer(hook: u64, attempt: u32) -> Answer {
    let fails = if hook == REMINDER { 0 } else { hook % 6 };
    match u64::from(attempt) <= fails {
        false => Answer::Taken,
        true if hook.is_multiple_of(4) => Answer::RetryAfter(RETRY_AFTER),
        true => Answer::Down,
    }
}

/// Whether a hook has no attempt behind this one.
fn is_last(hook: u64, attempt: u32) -> bool {
    answer(hook, attempt) == Answer::Taken || attempt == MAX_ATTEMPTS
}

fn number(payload: &[u8]) -> u64 {
    String::from_utf8_lossy(payload).parse().unwrap_or(u64::MAX)
}

/// Whether each hook had its attempts, one after another and none early, and those that never worked are dead letters.
fn check(journal: &Journal) -> Result<(), String> {
    let mut made: BTreeMap<u64, u32> = BTreeMap::new();
    for Attempt { hook, number, began, wanted } in &journal.attempts {
        let before = made.insert(*hook, *number).unwrap_or(0);
        if *number != before + 1 || before > 0 && is_last(*hook, before) {
            return Err(format!("hook {hook} has attempt {number} after {before}"));
        }
        if *began + CLOCKS_DIFFER < *wanted {
            return Err(format!("attempt {number} of hook {hook} began at {began:?}, wanted at {wanted:?}"));
        }
    }
    for hook in 0..=REMINDER {
        let last = made.get(&hook).copied().unwrap_or(0);
        if last == 0 || !is_last(hook, last) {
            return Err(format!("hook {hook} ended with attempt {last}"));
        }
        if journal.dead.contains(&hook) == (answer(hook, last) == Answer::Taken) {
            return Err(format!("hook {hook} is a dead letter and worked, or neither"));
        }
    }
    if made.len() as u64 == HOOKS + 1 { Ok(()) } else { Err(format!("{} hooks", made.len())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What must happen, and what `change` makes of that.
    fn journal(change: impl FnOnce(&mut Journal)) -> Journal {
        let mut journal = Journal::default();
        for hook in 0..=REMINDER {
            let (mut at, mut number) = (Duration::ZERO, 0);
            loop {
                number += 1;
                journal.attempts.push(Attempt { hook, number, began: at, wanted: at });
                at += delay(answer(hook, number), number);
                if is_last(hook, number) {
                    break;
                }
            }
            if answer(hook, number) != Answer::Taken {
                journal.dead.insert(hook);
            }
        }
        change(&mut journal);
        journal
    }

    #[test]
    fn the_checker_takes_what_is_right() {
        assert_eq!(check(&journal(|_| ())), Ok(()));
        let late = |journal: &mut Journal| journal.attempts.iter_mut().for_each(|attempt| attempt.began += RETRY_AFTER);
        assert_eq!(check(&journal(late)), Ok(()));
    }

    #[test]
    fn the_checker_finds_what_is_not() {
        let changes: [fn(&mut Journal); 7] = [
            |journal| journal.attempts[3].began = Duration::ZERO,
            |journal| _ = journal.attempts.remove(2),
            |journal| _ = journal.attempts.pop(),
            |journal| journal.attempts.insert(1, journal.attempts[0].clone()),
            |journal| _ = journal.dead.pop_first(),
            |journal| _ = journal.dead.insert(0),
            |journal| journal.attempts.retain(|attempt| attempt.hook != REMINDER),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let changed = journal(|journal| {
                // One that has several attempts, all of them wanted late.
                journal.attempts.iter_mut().for_each(|attempt| {
                    attempt.began += Duration::from_secs(1);
                    attempt.wanted += Duration::from_secs(1);
                });
                change(journal);
            });
            assert!(check(&changed).is_err(), "change {number}");
        }
    }

    #[test]
    fn the_program_retries_in_time() {
        main().unwrap_or_else(|error| panic!("{error}"));
    }
}
