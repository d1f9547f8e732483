//! Leases that are kept alive: no longer than was asked for, and by nobody who lost them.

use crate::Machine;
use millpond::{ErrorKind, Group, Store, Topic};
use std::time::Duration;

const NOW: Duration = Duration::ZERO;
const SECOND: Duration = Duration::from_secs(1);

fn open(machine: &Machine) -> (Store, Topic, Group) {
    let store = machine.open();
    let topic = store.topic("t").open().unwrap();
    let group = topic.group("g").visibility_timeout(3 * SECOND).open().unwrap();
    topic.publish("one").unwrap();
    (store, topic, group)
}

/// Lets seconds pass, with the store's threads at work in each.
fn pass(machine: &Machine, store: &Store, seconds: u64) {
    for _ in 0..seconds {
        machine.clock.advance(1_000);
        store.tick().unwrap();
    }
}

#[test]
fn lease_is_kept_until_its_time_is_over() {
    let machine = Machine::new();
    let (store, _topic, group) = open(&machine);
    let delivery = group.receive(NOW).unwrap().unwrap();
    let alive = delivery.keep_alive(10 * SECOND).unwrap();
    pass(&machine, &store, 9);
    assert!(alive.is_active());
    assert!(!store.rests(), "the threads do not rest meanwhile");
    assert_eq!(delivery.expires_in().unwrap(), SECOND, "no extension goes beyond the total");
    assert!(group.receive(NOW).unwrap().is_none());
    pass(&machine, &store, 1);
    assert!(!alive.is_active());
    let second = group.receive(NOW).unwrap().expect("it was held no longer");
    assert_eq!(delivery.expires_in().unwrap_err().kind(), ErrorKind::LeaseLost);
    assert_eq!(delivery.keep_alive(SECOND).map(drop).unwrap_err().kind(), ErrorKind::LeaseLost);
    second.ack().unwrap();
}

#[test]
fn lease_ends_by_itself_once_the_guard_is_dropped() {
    let machine = Machine::new();
    let (store, _topic, group) = open(&machine);
    let delivery = group.receive(NOW).unwrap().unwrap();
    let alive = delivery.keep_alive(3600 * SECOND).unwrap();
    pass(&machine, &store, 60);
    assert!(group.receive(NOW).unwrap().is_none());
    drop(alive);
    let left = delivery.expires_in().unwrap();
    assert!((2 * SECOND..=3 * SECOND).contains(&left), "{left:?}");
    pass(&machine, &store, 3);
    assert_eq!(delivery.expires_in().unwrap(), Duration::ZERO, "it has ended, and nobody has the message");
    assert!(group.receive(NOW).unwrap().is_some());
}

#[test]
fn what_is_settled_or_taken_is_left_alone() {
    let machine = Machine::new();
    let (store, topic, group) = open(&machine);
    let delivery = group.receive(NOW).unwrap().unwrap();
    let alive = delivery.keep_alive(3600 * SECOND).unwrap();
    // No thread is there in time, and another consumer takes the message.
    machine.clock.advance(3_000);
    let second = group.receive(NOW).unwrap().expect("the lease ended");
    pass(&machine, &store, 1);
    assert!(!alive.is_active());
    let kept = second.keep_alive(3600 * SECOND).unwrap();
    second.ack().unwrap();
    pass(&machine, &store, 1);
    assert!(!kept.is_active());
    drop(kept);
    // Its group is gone.
    topic.publish("two").unwrap();
    let third = group.receive(NOW).unwrap().unwrap();
    let kept = third.keep_alive(3600 * SECOND).unwrap();
    topic.remove_group("g").unwrap();
    pass(&machine, &store, 1);
    assert!(!kept.is_active());
    drop((delivery, third));
    store.close().unwrap();
}
