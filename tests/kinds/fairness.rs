//! No message keeps others from being delivered for ever (G23).

use crate::Machine;
use millpond::{Backoff, Store};
use std::time::Duration;

const NOW: Duration = Duration::ZERO;

#[test]
fn message_that_fails_at_once_for_ever_lets_the_others_pass() {
    let machine = Machine::new();
    let store = machine.open();
    let topic = store.topic("t").partitions(2).open().unwrap();
    let group = topic.group("g").max_attempts(0).backoff(Backoff::none()).open().unwrap();
    topic.publish("bad").unwrap();
    topic.publish_batch((0..1000).map(|_| "good")).unwrap();
    let mut good = 0;
    for _ in 0..2002 {
        let delivery = group.receive(NOW).unwrap().unwrap();
        if delivery.payload() == b"bad" {
            delivery.nack("no").unwrap();
        } else {
            good += 1;
            delivery.ack().unwrap();
        }
    }
    assert_eq!(good, 1000, "each at most after one more attempt of the bad one");
}

/// One message that is to go alone, and one that somebody keeps: how long others wait, in all, is bounded.
#[test]
fn hold_up_by_messages_that_go_alone_is_bounded() {
    const SUSPECTS: u64 = 100;
    let machine = Machine::new();
    {
        let store = machine.open();
        let one = store.topic("one").open().unwrap();
        let timeout = Duration::from_secs(3600 * 12);
        let a = one.group("a").max_attempts(2).visibility_timeout(timeout).open().unwrap();
        store.topic("two").open().unwrap().group("b").open().unwrap();
        one.publish_batch((0..SUSPECTS).map(|_| "was in flight")).unwrap();
        let held = a.receive_batch(SUSPECTS as usize, NOW).unwrap();
        assert_eq!(held.len(), SUSPECTS as usize);
        machine.crash((held, a, one, store));
    }
    let store = machine.open();
    let (one, two) = (store.topic("one").open().unwrap(), store.topic("two").open().unwrap());
    let (a, b) = (one.group("a").open().unwrap(), two.group("b").open().unwrap());
    two.publish_batch((0..10_000).map(|_| "innocent")).unwrap();
    // Somebody keeps a lease of b for ever; a is asked again and again, and what it gets is kept too.
    let kept = b.receive(NOW).unwrap().unwrap();
    kept.extend(Duration::from_secs(3600 * 24 * 7)).unwrap();
    let mut held = Vec::new();
    let (mut waited_ms, mut longest_ms, mut since_ms) = (0, 0, 0);
    for _ in 0..2_000 {
        held.extend(a.receive(NOW).unwrap());
        match b.receive(NOW).unwrap() {
            Some(delivery) => {
                delivery.ack().unwrap();
                since_ms = 0;
            }
            None => {
                waited_ms += 100;
                since_ms += 100;
                longest_ms = longest_ms.max(since_ms);
            }
        }
        machine.clock.advance(100);
    }
    assert!(waited_ms <= 31_000, "others waited {waited_ms} ms in all");
    assert!(longest_ms <= 30_100, "others waited {longest_ms} ms at a time");
    assert_eq!(held.len(), SUSPECTS as usize, "each had its attempt, alone or not");
}

#[test]
fn store_that_isolates_nothing_never_waits() {
    let machine = Machine::new();
    let options = || Store::options().isolation_limit(NOW);
    {
        let store = machine.open_with(options());
        let topic = store.topic("t").open().unwrap();
        let group = topic.group("g").max_attempts(1).open().unwrap();
        topic.publish_batch(["one", "two"]).unwrap();
        let held = group.receive_batch(2, NOW).unwrap();
        machine.crash((held, group, topic, store));
    }
    let store = machine.open_with(options());
    let group = store.topic("t").open().unwrap().group("g").open().unwrap();
    let first = group.receive(NOW).unwrap().unwrap();
    let second = group.receive(NOW).unwrap().unwrap();
    first.ack().unwrap();
    second.ack().unwrap();
}

#[test]
fn look_at_a_group_copies_a_bounded_number_of_dead_letters_first() {
    const DEAD: u64 = 200;
    let machine = Machine::new();
    let store = machine.open();
    let topic = store.topic("t").open().unwrap();
    let timeout = Duration::from_secs(1);
    let group = topic.group("g").max_attempts(1).visibility_timeout(timeout).open().unwrap();
    topic.publish_batch((0..DEAD).map(|_| [7; 100])).unwrap();
    std::mem::forget(group.receive_batch(DEAD as usize, NOW).unwrap());
    machine.clock.advance(2_000);
    topic.publish_batch(["sound", "sound"]).unwrap();
    let letters = |store: &Store| store.stats().unwrap().topics[0].groups[0].dead;
    // What is sound is delivered, though most of the exhausted are still to be moved.
    for _ in 0..2 {
        let before = letters(&store);
        group.receive(NOW).unwrap().unwrap().ack().unwrap();
        assert!(letters(&store) - before <= 16, "one look moved {}", letters(&store) - before);
    }
    // Each look goes on with them, and one that waits has moved them all before it waits.
    let mut looks = 0;
    while letters(&store) < DEAD {
        assert!(group.receive(NOW).unwrap().is_none());
        looks += 1;
    }
    assert!((5..=20).contains(&looks), "{looks}");
    // Large ones count by their bytes.
    topic.publish_batch((0..8).map(|_| vec![7; 1_000_000])).unwrap();
    std::mem::forget(group.receive_batch(8, NOW).unwrap());
    machine.clock.advance(2_000);
    assert!(group.receive(NOW).unwrap().is_none());
    assert!((1..=3).contains(&(letters(&store) - DEAD)), "{}", letters(&store) - DEAD);
}

/// Two messages that fail for ever and are due again whenever the other one is settled, beside a thousand that a crash made ready.
#[test]
fn messages_that_are_always_due_let_those_pass_that_are_ready() {
    const READY: usize = 1_000;
    let machine = Machine::new();
    {
        let store = machine.open();
        let topic = store.topic("t").open().unwrap();
        let group = topic.group("g").max_attempts(0).open().unwrap();
        topic.publish_batch((0..READY).map(|_| "good")).unwrap();
        let held = group.receive_batch(READY, NOW).unwrap();
        machine.crash((held, group, topic, store));
    }
    let store = machine.open();
    let topic = store.topic("t").open().unwrap();
    let group = topic.group("g").open().unwrap();
    topic.publish_batch(["bad", "bad"]).unwrap();
    let mut good = 0;
    for _ in 0..4 * (READY + 2) {
        let delivery = group.receive(NOW).unwrap().unwrap();
        machine.clock.advance(20);
        if delivery.payload() == b"bad" {
            delivery.nack_after(Duration::from_millis(1), "no").unwrap();
        } else {
            good += 1;
            delivery.ack().unwrap();
        }
        if good == READY {
            return;
        }
    }
    panic!("only {good} of {READY} came");
}

#[test]
fn what_nobody_saw_comes_before_what_is_newer() {
    let machine = Machine::new();
    let store = machine.open();
    let topic = store.topic("t").open().unwrap();
    let group = topic.group("g").open().unwrap();
    topic.publish_batch((0..20u8).map(|nth| [nth])).unwrap();
    let mut seen = Vec::new();
    for round in 0..20 {
        // Some are leased and given back unseen, by a drop of the whole batch or of its rest.
        drop(group.receive_batch(1 + round % 7, NOW).unwrap());
        let mut batch = group.receive_batch(1 + round % 3, NOW).unwrap().into_iter();
        if let Some(delivery) = batch.next() {
            seen.push(delivery.payload()[0]);
            delivery.ack().unwrap();
        }
    }
    assert_eq!(seen, (0..20).collect::<Vec<u8>>());
}

/// Messages of many groups that must go alone, while others always have leases: what it costs all others together has a bound, also
/// where an exclusive lease has long ended and nobody looks after its message any more.
#[test]
fn hold_ups_of_many_groups_are_bounded_together() {
    for lingers in [false, true] {
        let machine = Machine::new();
        {
            let store = machine.open();
            let topic = store.topic("suspects").open().unwrap();
            let groups: Vec<_> = (0..20)
                .map(|nth| {
                    let timeout = Duration::from_secs(if nth == 0 { 2 } else { 3600 });
                    topic.group(format!("s{nth}")).max_attempts(2).visibility_timeout(timeout).open().unwrap()
                })
                .collect();
            store
                .topic("others")
                .open()
                .unwrap()
                .group("b")
                .visibility_timeout(Duration::from_secs(3600))
                .open()
                .unwrap();
            topic.publish("was in flight").unwrap();
            let held: Vec<_> = groups.iter().map(|group| group.receive(NOW).unwrap().unwrap()).collect();
            machine.crash((held, groups, topic, store));
        }
        let store = machine.open();
        let topic = store.topic("suspects").open().unwrap();
        let groups: Vec<_> = (0..20).map(|nth| topic.group(format!("s{nth}")).open().unwrap()).collect();
        let others = store.topic("others").open().unwrap();
        let b = others.group("b").open().unwrap();
        others.publish_batch((0..10_000).map(|_| "innocent")).unwrap();
        if lingers {
            std::mem::forget(groups[0].receive(NOW).unwrap().unwrap());
            machine.clock.advance(6_000);
        }
        let kept = b.receive(NOW).unwrap().unwrap();
        let (mut held, mut waited_ms) = (Vec::new(), 0);
        for _ in 0..2_000 {
            for group in &groups[1..] {
                held.extend(group.receive(NOW).unwrap());
            }
            match b.receive(NOW).unwrap() {
                Some(delivery) => delivery.ack().unwrap(),
                None => waited_ms += 100,
            }
            machine.clock.advance(100);
        }
        assert!(waited_ms <= 31_000, "others waited {waited_ms} ms in all, lingering: {lingers}");
        assert_eq!(held.len(), 19, "each had its attempt");
        drop((kept, held));
    }
}
