//! The child that is traced: a small fixed piece of work in one thread, told in lines.
//!
//! ```text
//! life NUMBER                   the store is opened for the first or the second time
//! try NUMBER                    about to publish it
//! ok LEVEL NUMBER               published
//! no NUMBER                     refused: it is not there, now or ever
//! unknown NUMBER                it is there or it is not
//! got NUMBER                    delivered
//! settling NUMBER, acked NUMBER about to be acked; acked
//! error WHAT: TEXT              a call failed, in the way that its kind says
//! end                           it came to its end
//! ```

use crate::child::say;
use crate::tracer;
use millpond::simulation::{SystemClock, real_disk};
use millpond::{Delivery, Durability, Error, Group, Message, Result, Store, Topic};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The numbers of the messages that the process before this one left.
pub(crate) const LEFT: std::ops::Range<u32> = 0..30;
const FIRST: u32 = 1_000;

pub(crate) fn payload(number: u32) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    // Some of them large, so that segments roll.
    bytes.resize(if number % 4 == 3 { 9_000 } else { 60 }, number as u8);
    bytes
}

/// The number of a payload, which must be whole.
pub(crate) fn number_of(bytes: &[u8]) -> Option<u32> {
    let number = u32::from_le_bytes(*bytes.first_chunk()?);
    (payload(number) == bytes).then_some(number)
}

pub(crate) fn groups(store: &Store) -> Result<(Topic, Group)> {
    let topic = store.topic("numbers").open()?;
    let group = topic.group("workers").backoff(millpond::Backoff::none()).open()?;
    Ok((topic, group))
}

fn open(dir: &Path) -> Result<Store> {
    let disk = real_disk(dir).map_err(|error| {
        say(format_args!("error attach: {error}"));
        Error::Closed
    })?;
    let options = Store::options().segment_bytes_max(64 << 10);
    options.open_on(disk, Arc::new(SystemClock))
}

/// Leaves a store behind as a killed process does: a part of it was never synced.
pub(crate) fn leave(dir: &Path) {
    let store = open(dir).expect("nothing fails");
    let (topic, group) = groups(&store).expect("nothing fails");
    for number in LEFT {
        let level = if number < LEFT.end / 2 { Durability::Disk } else { Durability::Os };
        topic.with_durability(level).publish(payload(number)).expect("nothing fails");
    }
    std::mem::forget((group.receive_batch(3, Duration::ZERO), store));
}

/// The body of the child.
pub(crate) fn work(dir: &Path) {
    tracer::begin();
    let mut number = FIRST;
    for life in 0..2 {
        say(format_args!("life {life}"));
        if let Err(error) = live(dir, &mut number, life) {
            say(format_args!("error life {life}: {error}"));
        }
    }
    tracer::end();
    say("end");
}

/// Opens the store, works, and closes it; the second time it is left open.
fn live(dir: &Path, number: &mut u32, life: u32) -> Result<()> {
    let store = open(dir)?;
    let (topic, group) = groups(&store)?;
    for step in 0..if life == 0 { 7 } else { 2 } {
        publish(&topic, Durability::Disk, number, 1);
        publish(&topic, Durability::Os, number, 1);
        publish(&topic, if step % 2 == 0 { Durability::Os } else { Durability::Disk }, number, 4);
        settle(&group, step);
        note("tick", store.tick());
    }
    if life == 0 {
        note("close", store.close());
    } else {
        std::mem::forget(store);
    }
    Ok(())
}

fn publish(topic: &Topic, level: Durability, number: &mut u32, count: u32) {
    let numbers = *number..*number + count;
    *number += count;
    numbers.clone().for_each(|number| say(format_args!("try {number}")));
    let topic = topic.with_durability(level);
    let done = topic.publish_batch(numbers.clone().map(|number| Message::new(payload(number)))).map(drop);
    let verdict = match &done {
        Ok(()) => format!("ok {level:?}"),
        Err(Error::OutcomeUnknown { .. }) => "unknown".to_owned(),
        Err(_) => "no".to_owned(),
    };
    numbers.for_each(|number| say(format_args!("{verdict} {number}")));
    note("publish", done);
}

fn settle(group: &Group, step: u32) {
    let batch = match group.receive_batch(8, Duration::ZERO) {
        Ok(batch) => batch,
        Err(error) => return note("receive", Err(error)),
    };
    for error in batch.unreadable() {
        say(format_args!("error unreadable: {error}"));
    }
    for (index, delivery) in (0..).zip(batch) {
        let Some(number) = number_of(delivery.payload()) else {
            say(format_args!("error bytes: those of {} are other ones", delivery.id()));
            continue;
        };
        say(format_args!("got {number}"));
        // Some are left to the store, which takes them back when it is closed.
        if index % 8 == 7 {
            std::mem::forget(delivery);
            continue;
        }
        say(format_args!("settling {number}"));
        let ack = if index == 0 && step.is_multiple_of(3) { Delivery::ack_durable } else { Delivery::ack };
        match ack(delivery) {
            Ok(()) => say(format_args!("acked {number}")),
            Err(error) => note("ack", Err(error)),
        }
    }
}

fn note(what: &str, result: Result<()>) {
    if let Err(error) = result {
        say(format_args!("error {what}: {:?}: {error}", error.kind()));
    }
}
