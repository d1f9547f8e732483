//! The machine that applications test with: what it promises, and that its crashes find what is wrong.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use millpond::testing::{Drained, Machine, crash_at_each_request};
use millpond::{Backoff, Durability, Error, Group, Store};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

fn group(store: &Store) -> Group {
    let backoff = Backoff::exponential(Duration::from_secs(1)).jitter(false);
    store.topic("t").open().unwrap().group("g").max_attempts(3).backoff(backoff).open().unwrap()
}

#[test]
fn drain_lets_time_pass_for_retries_and_counts_dead_letters() {
    let mut machine = Machine::new(1);
    let store = machine.open().unwrap();
    let group = group(&store);
    store.topic("t").open().unwrap().publish_batch(["good", "late", "bad", "panics"]).unwrap();
    let begun = machine.now();
    let drained = machine.drain(&group, |delivery| match delivery.payload() {
        b"good" => Ok(()),
        b"late" if delivery.attempt() == 3 => Ok(()),
        b"panics" => panic!("a handler's"),
        _ => Err("not yet"),
    });
    assert_eq!(drained.unwrap(), Drained { handled: 2, failed: 2 + 3 + 3, dead: 2 });
    let passed = machine.now().duration_since(begun).unwrap();
    assert!(passed >= Duration::from_secs(3) && passed < Duration::from_secs(10), "{passed:?}");
    assert_eq!(machine.drain(&group, |_| Ok::<(), &str>(())).unwrap(), Drained::default());
}

#[test]
fn crashes_end_the_process_and_power_cuts_take_what_was_not_synced() {
    type Cut = fn(&mut Machine);
    let cuts: [(Cut, bool); 3] =
        [(Machine::crash, true), (Machine::power_cut_losing_all, false), (Machine::power_cut, false)];
    for (cut, all_is_left) in cuts {
        let mut lost = false;
        for seed in 0..20 {
            let mut machine = Machine::new(seed);
            let store = machine.open().unwrap();
            let (topic, before) = (store.topic("t").open().unwrap(), group(&store));
            topic.publish("durable").unwrap();
            topic.with_durability(Durability::Os).publish("quick").unwrap();
            assert!(matches!(machine.open(), Err(Error::Locked { .. })), "its handles are still there");
            cut(&mut machine);
            assert!(topic.publish("after its end").is_err() && before.receive(Duration::ZERO).is_err());
            let store = machine.open().unwrap();
            let mut payloads = Vec::new();
            let keep = |delivery: &millpond::Delivery| {
                payloads.push(String::from_utf8(delivery.payload().to_vec()).unwrap());
                Ok::<(), &str>(())
            };
            machine.drain(&group(&store), keep).unwrap();
            assert!(payloads == ["durable"] || payloads == ["durable", "quick"], "{payloads:?}");
            lost |= payloads.len() == 1;
        }
        assert_eq!(lost, !all_is_left);
    }
}

#[test]
fn clocks_disks_and_syncs_do_as_they_are_told() {
    let mut machine = Machine::new(1);
    let store = machine.open().unwrap();
    let (topic, group) = (store.topic("t").open().unwrap(), group(&store));
    topic.publish("m").unwrap();
    std::mem::forget(group.receive(Duration::ZERO).unwrap());
    machine.advance(Duration::from_secs(31)).unwrap();
    assert_eq!(group.receive(Duration::ZERO).unwrap().unwrap().attempt(), 2, "its lease ended");

    let jumped = machine.now() + Duration::from_secs(86_400);
    machine.set_now(jumped);
    assert_eq!(machine.now(), jumped);
    machine.set_capacity(Some(0));
    let full = (0..100_000).find_map(|_| topic.publish(vec![0; 100_000]).err());
    assert!(matches!(full, Some(Error::DiskFull)));
    machine.set_capacity(None);
    topic.publish("m").unwrap();
    machine.fail_next_sync();
    assert!(matches!(topic.publish("m"), Err(Error::OutcomeUnknown { .. })));
    assert!(matches!(topic.publish("m"), Err(Error::Poisoned { .. })));
    machine.crash();
    assert!(machine.open().is_ok());
}

/// Futures on a machine: what waits for a sync or for time is ready once that passed here.
#[test]
fn futures_are_ready_once_time_has_passed() {
    use std::task::{Context, Poll, Waker};
    let mut machine = Machine::new(1);
    let store = machine.open().unwrap();
    let mut publish = store.topic("t").open().unwrap().publish_async("m");
    let mut poll = || std::pin::Pin::new(&mut publish).poll(&mut Context::from_waker(Waker::noop()));
    assert!(poll().is_pending());
    machine.advance(Duration::from_secs(1)).unwrap();
    assert!(matches!(poll(), Poll::Ready(Ok(_))));
    assert!(matches!(machine.open(), Err(Error::Locked { .. })), "its handles are still there");
    machine.advance(Duration::from_secs(1)).unwrap();
}

/// It finds a handler whose effect and ack are two steps.
#[test]
fn crashes_at_each_request_find_what_is_not_atomic() {
    let serve = |machine: &mut Machine| {
        let store = machine.open()?;
        let (topic, effects) = (store.topic("t").open()?, store.topic("effects").open()?);
        let group = group(&store);
        effects.group("all").open()?;
        topic.publish("m")?;
        while let Some(delivery) = group.receive(Duration::ZERO)? {
            effects.publish("done")?;
            delivery.ack()?;
        }
        Ok(())
    };
    let check = |machine: &mut Machine| {
        let store = machine.open().unwrap();
        let stats = store.stats().unwrap();
        let lag = |name: &str| {
            let topic = stats.topics.iter().find(|topic| topic.name == name);
            topic.and_then(|topic| topic.groups.first()).map_or(0, |group| group.lag)
        };
        assert!(lag("t") + lag("effects") <= 1, "an effect, and its message again");
    };
    let found = catch_unwind(AssertUnwindSafe(|| crash_at_each_request(1, serve, check)));
    let text = *found.unwrap_err().downcast::<String>().unwrap();
    assert!(text.starts_with("after a crash at request ") && text.ends_with("its message again"), "{text}");
    assert!(crash_at_each_request(1, serve, |machine| drop(machine.open().unwrap())) > 50);
}
