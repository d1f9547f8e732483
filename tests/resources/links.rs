//! A backup by hard links of an open store (`cp -al`): from the next beat on the two share no byte that anybody writes.

use millpond::simulation::{SystemClock, real_disk};
use millpond::{Backoff, Durability, Store};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn open(path: &Path) -> Store {
    let options = Store::options().durability(Durability::Os).segment_bytes_max(64 << 10);
    options.open_on(real_disk(path).expect("it attaches"), Arc::new(SystemClock)).expect("it opens")
}

fn publish(store: &Store, numbers: std::ops::Range<u32>) {
    let topic = store.topic("numbers").open().expect("it opens");
    for number in numbers {
        topic.publish(number.to_le_bytes().repeat(100)).expect("it publishes");
        if number.is_multiple_of(50) {
            store.tick().expect("no job fails because of links");
        }
    }
}

/// Everything that was ever published there.
fn contents(store: &Store) -> BTreeSet<u32> {
    let topic = store.topic("numbers").open().expect("it opens");
    let group = topic.group("all").backoff(Backoff::none()).open().expect("it opens");
    let batch = group.receive_batch(60_000, Duration::ZERO).expect("it receives");
    assert!(batch.unreadable().is_empty(), "{:?}", batch.unreadable());
    batch.iter().map(|delivery| u32::from_le_bytes(*delivery.payload().first_chunk().expect("four bytes"))).collect()
}

fn link_all(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("it can be made");
    for entry in std::fs::read_dir(from).expect("it lists") {
        let entry = entry.expect("it lists");
        std::fs::hard_link(entry.path(), to.join(entry.file_name())).expect("a link can be made");
    }
}

#[test]
fn a_store_and_its_copy_by_hard_links_are_two_stores() {
    let dir = tempfile::tempdir().expect("a directory");
    let (original, copy) = (dir.path().join("original"), dir.path().join("copy"));
    let store = open(&original);
    publish(&store, 0..1_000);
    store.sync().expect("it syncs");
    link_all(&original, &copy);
    store.tick().expect("no job fails because of links");

    let other = open(&copy);
    publish(&store, 1_000..2_000);
    publish(&other, 10_000..11_000);
    assert_eq!(contents(&store), (0..2_000).collect());
    assert_eq!(contents(&other), (0..1_000).chain(10_000..11_000).collect());
    store.close().expect("it closes");
    drop(store);
    let store = open(&original);
    assert!(store.report().was_clean);
    publish(&store, 2_000..2_100);
    other.close().expect("it closes");
    drop(other);
    let other = open(&copy);
    assert!(other.report().was_clean);
    publish(&other, 11_000..11_100);
    store.close().expect("it closes");

    // A copy of a closed store, with every link in place when it is opened.
    drop(store);
    let again = dir.path().join("again");
    link_all(&original, &again);
    let (store, third) = (open(&original), open(&again));
    publish(&store, 2_100..2_200);
    publish(&third, 20_000..20_100);
    other.close().expect("it closes");
    store.close().expect("it closes");
    third.close().expect("it closes");
}
