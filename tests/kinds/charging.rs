//! An attempt is counted for what a consumer has seen, and for nothing else, as long as the process goes on.

use crate::Machine;
use millpond::{Backoff, Group, Store, Topic};
use std::time::Duration;

const NOW: Duration = Duration::ZERO;

fn open(machine: &Machine) -> (Store, Topic, Group) {
    let store = machine.open();
    let topic = store.topic("t").open().unwrap();
    let group = topic.group("g").backoff(Backoff::none()).open().unwrap();
    (store, topic, group)
}

fn attempts(group: &Group) -> Vec<(u8, u32)> {
    let batch = group.receive_batch(100, NOW).unwrap();
    let mut found: Vec<_> = batch.iter().map(|delivery| (delivery.payload()[0], delivery.attempt())).collect();
    found.sort_unstable();
    assert!(batch.ack().unwrap().is_empty());
    found
}

#[test]
fn dropped_batch_charges_what_was_looked_at() {
    for looked_at in 0..=4usize {
        for by_value in [false, true] {
            let machine = Machine::new();
            let (store, topic, group) = open(&machine);
            topic.publish_batch((0..4u8).map(|nth| [nth])).unwrap();
            let batch = group.receive_batch(4, NOW).unwrap();
            if by_value {
                let mut deliveries = batch.into_iter();
                deliveries.by_ref().take(looked_at).for_each(drop);
                drop(deliveries);
            } else {
                assert_eq!(batch.iter().take(looked_at).count(), looked_at);
                drop(batch);
            }
            let expected: Vec<_> =
                (0..4u8).map(|nth| (nth, if usize::from(nth) < looked_at { 2 } else { 1 })).collect();
            assert_eq!(attempts(&group), expected, "{looked_at} looked at, by value: {by_value}");
            assert!(store.violations().is_empty());
        }
    }
}

#[test]
fn batch_read_and_then_taken_apart_charges_what_was_read() {
    let machine = Machine::new();
    let (_store, topic, group) = open(&machine);
    topic.publish_batch((0..4u8).map(|nth| [nth])).unwrap();
    let batch = group.receive_batch(4, NOW).unwrap();
    assert_eq!(batch.iter().take(3).count(), 3);
    let mut deliveries = batch.into_iter();
    deliveries.next().unwrap().ack().unwrap();
    drop(deliveries);
    assert_eq!(attempts(&group), [(1, 2), (2, 2), (3, 1)]);
}

#[test]
fn receive_batch_is_bounded_in_bytes_and_gives_the_rest_back() {
    let machine = Machine::new();
    let (store, topic, group) = open(&machine);
    for nth in 0..80u8 {
        topic.publish(vec![nth; (1 << 20) - 64]).unwrap();
    }
    let batch = group.receive_batch(65_536, NOW).unwrap();
    let bytes: usize = batch.iter().map(|delivery| delivery.payload().len()).sum();
    assert!((63 << 20..=65 << 20).contains(&bytes), "{bytes}");
    assert_eq!(store.stats().unwrap().topics[0].groups[0].leased, batch.len() as u64);
    let first = batch.len();
    assert!(batch.ack().unwrap().is_empty());
    let rest = attempts(&group);
    assert_eq!(rest.len(), 80 - first);
    assert!(rest.iter().all(|(_, attempt)| *attempt == 1), "{rest:?}");
}

#[test]
fn no_wait_and_no_lease_ends_early() {
    // With the machine's own clock, which may be behind: what is measured is longer than asked, however long it took.
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("s")).unwrap();
    let topic = store.topic("t").open().unwrap();
    let timeout = Duration::from_millis(7);
    let group = topic.group("g").visibility_timeout(timeout).backoff(Backoff::fixed(timeout)).open().unwrap();
    for _ in 0..20 {
        let began = now();
        assert!(group.receive(Duration::from_micros(5_500)).unwrap().is_none());
        assert!(began.elapsed() >= Duration::from_micros(5_500), "a wait ended after {:?}", began.elapsed());
        topic.publish("m").unwrap();
        let held = group.receive(Duration::from_secs(10)).unwrap().unwrap();
        let began = now();
        std::mem::forget(held);
        let again = group.receive(Duration::from_secs(10)).unwrap().unwrap();
        // The lease began a little before the clock was read, within the call.
        assert!(began.elapsed() + Duration::from_millis(1) >= timeout, "a lease ended after {:?}", began.elapsed());
        let began = now();
        again.nack("later").unwrap();
        let third = group.receive(Duration::from_secs(10)).unwrap().unwrap();
        assert!(began.elapsed() >= timeout, "a retry came after {:?}", began.elapsed());
        third.ack().unwrap();
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "that nothing comes early is measured, and a slow machine only makes it later"
)]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}
