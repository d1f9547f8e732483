//! How do I put something in a queue and take it out again?
//!
//! ```text
//! cargo run --example first_queue
//! ```

#![allow(clippy::print_stdout, reason = "this program talks to a person at a terminal")]

use millpond::{Message, Store};
use std::error::Error;
use std::time::Duration;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;

    // A store is one directory. It is created when it is not there.
    let store = Store::open(dir.path().join("store"))?;

    // A topic is a sequence of messages. Every group on it gets all of them, from the first on.
    let mail = store.topic("mail").open()?;
    let sender = mail.group("sender").open()?;

    // When `publish` returns, the message survives a power failure.
    let receipt = mail.publish(Message::new("Your parcel is on its way.").key("ana@example.org"))?;
    println!("published {}", receipt.id());
    mail.publish(Message::new("Willkommen!").key("jürgen@example.org").header("language", "de"))?;

    // Each message is delivered under a lease, and again until somebody acks it.
    while let Some(delivery) = sender.receive(Duration::ZERO)? {
        let address = String::from_utf8_lossy(delivery.key().unwrap_or_default()).into_owned();
        let text = String::from_utf8_lossy(delivery.payload()).into_owned();
        println!("sending to {address}: {text}");
        delivery.ack()?;
    }

    // Closing writes down where to go on, so that the next open has nothing to replay.
    store.close()?;
    Ok(())
}
