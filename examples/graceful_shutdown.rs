//! How does a worker stop without leaving anything half done?
//!
//! ```text
//! cargo run --example graceful_shutdown
//! ```
//!
//! A subscription has a channel of deliveries, so a worker can wait for a message and for the word to stop at once. It
//! finishes what it holds and takes nothing new; what it did not take stays in the queue for the next start.

#![allow(clippy::print_stdout, reason = "this program talks to a person at a terminal")]

use crossbeam_channel::{Receiver, Sender, bounded, select_biased};
use millpond::{Group, Message, Store};
use std::error::Error;
use std::thread;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let store = Store::open(dir.path().join("store"))?;
    let images = store.topic("images").open()?;
    let resizer = images.group("resizer").open()?;
    images.publish_batch((1..=100).map(|number| Message::new(format!("image {number}"))))?;

    // In a service, a signal handler would send the word to stop. Here it comes after ten images.
    let (stop, stopped) = bounded::<()>(1);
    let worker = thread::spawn(move || work(&resizer, &stop, &stopped));
    let done = worker.join().map_err(|_| "the worker panicked")??;
    println!("stopped after {done} images");

    let stats = store.stats()?;
    let group = stats.topics.iter().flat_map(|topic| &topic.groups).find(|group| group.name == "resizer");
    println!("{} images wait for the next start", group.map_or(0, |group| group.lag));

    // Everything acked is on disk, every lease is given back, and the next open has nothing to replay.
    store.close()?;
    Ok(())
}

fn work(group: &Group, stop: &Sender<()>, stopped: &Receiver<()>) -> Result<u32> {
    let deliveries = group.subscribe()?;
    let mut done = 0;
    loop {
        // Biased: where both are ready, stopping wins.
        select_biased! {
            recv(stopped) -> _ => return Ok(done),
            recv(deliveries.request()) -> delivery => {
                delivery??.ack()?;
                done += 1;
                if done == 10 {
                    stop.send(())?;
                }
            }
        }
    }
}
