//! Group commit under contention: many threads wait for one sync, and all of them get an answer.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use millpond::{Durability, Store};

const THREADS: usize = 8;
const ROUNDS: usize = 3_000;

/// A waiter that saw a message that was not durable, and took the lead once another leader had synced it, found nothing to sync and
/// stopped the store (G13).
#[test]
fn late_waiter_does_not_stop_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::options().durability(Durability::Os).open(directory.path().join("s")).unwrap();
    let topic = store.topic("t").open().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| (0..ROUNDS).for_each(|_| topic.publish("m").unwrap().wait_durable().unwrap()));
        }
    });
}
