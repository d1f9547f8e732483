//! What happens to a message that cannot be processed, and how do I get it back?
//!
//! ```text
//! cargo run --example dead_letters
//! ```
//!
//! After its last attempt, or when a consumer rejects it, a message moves to the dead letters of its group, with the
//! reasons. It waits there until somebody redrives or discards it; the other messages flow on.

#![allow(clippy::print_stdout, reason = "this program talks to a person at a terminal")]

use millpond::{Backoff, Delivery, Group, Message, Store};
use std::error::Error;
use std::time::Duration;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let store = Store::open(dir.path().join("store"))?;
    let prices = store.topic("prices").open()?;
    let importer = prices.group("importer").max_attempts(3).backoff(Backoff::none()).open()?;

    for price in ["12.50", "12,50", "7.00", "free", ""] {
        prices.publish(Message::new(price))?;
    }

    println!("with a parser that knows no comma:");
    import(&importer, |text| text.parse())?;

    // A dead letter is listed once it is durable. That is within 50 ms anyway; this waits for no longer than it must.
    store.sync()?;
    println!("the dead letters:");
    for letter in importer.dead_letters()? {
        let letter = letter?;
        let text = String::from_utf8_lossy(letter.payload());
        println!("  {text:?} after {} attempts", letter.attempts());
        for failure in letter.history() {
            println!("    {:?}: {}", failure.cause, &failure.text);
        }
    }

    // The bug is fixed: send back what failed because of it. It keeps its origin and starts with a fresh count.
    let redriven = importer.redrive_where(|letter| letter.payload().contains(&b','))?;
    println!("with a parser that knows commas, {redriven} redriven:");
    import(&importer, |text| text.replace(',', ".").parse())?;

    // The rest will never be a price.
    for letter in importer.dead_letters()? {
        letter?.discard()?;
    }
    store.close()?;
    Ok(())
}

/// Takes all messages that are there; gives those back that `parse` cannot read.
fn import(group: &Group, parse: impl Fn(&str) -> Result<f64, std::num::ParseFloatError>) -> Result<(), Box<dyn Error>> {
    while let Some(delivery) = group.receive(Duration::ZERO)? {
        let text = std::str::from_utf8(delivery.payload())?.to_owned();
        match parse(&text) {
            _ if text.is_empty() => delivery.reject("an empty price will never be one")?,
            Ok(price) => accept(delivery, price)?,
            Err(error) => delivery.nack(error)?,
        }
    }
    Ok(())
}

fn accept(delivery: Delivery, price: f64) -> Result<(), Box<dyn Error>> {
    println!("  imported {price:.2}");
    Ok(delivery.ack()?)
}
