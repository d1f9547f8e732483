//! While something is ready for a group, none of its consumers sleeps: whatever makes it ready, and whoever fails to take it.
//! The simulation looks for this after each of its operations, shuttle in every schedule; here each way to become ready stands once.

use crate::Machine;
use millpond::simulation::WallMs;
use millpond::simulation::{Clock, Fault, Op, Sleeper};
use millpond::{Backoff, Durability, ErrorKind, Group, Store, Topic};
use std::time::Duration;

const NOW: Duration = Duration::ZERO;
const LONG: Duration = Duration::from_secs(3600);

struct Pond {
    machine: Machine,
    store: Store,
    topic: Topic,
    group: Group,
}

impl Pond {
    fn new() -> Self {
        let machine = Machine::new();
        let store = machine.open();
        let topic = store.topic("t").open().unwrap();
        let backoff = Backoff::fixed(Duration::from_secs(1));
        let timeout = Duration::from_secs(10);
        let group = topic.group("g").max_outstanding(2).visibility_timeout(timeout).backoff(backoff).open().unwrap();
        Self { machine, store, topic, group }
    }

    fn sleep(&self) -> Sleeper {
        self.group.fall_asleep(LONG).unwrap().expect("nothing is ready")
    }

    fn is_sound(&self) {
        assert_eq!(self.store.stuck_sleepers(), Vec::<String>::new());
    }
}

type Held = Vec<millpond::Delivery>;

/// What is held while consumers fall asleep.
type Hold = fn(&Pond) -> Held;
/// What is done then.
type Act = fn(&Pond, Held);
/// Both, and after how many milliseconds something is ready.
type Way = (&'static str, Hold, Act, u64);

fn nothing(_: &Pond) -> Held {
    Vec::new()
}

fn one(pond: &Pond) -> Held {
    pond.topic.publish("one").unwrap();
    vec![pond.group.receive(NOW).unwrap().unwrap()]
}

/// As many as the cap allows, and one more waits.
fn two_of_three(pond: &Pond) -> Held {
    pond.topic.publish_batch(["one", "two", "three"]).unwrap();
    pond.group.receive_batch(2, NOW).unwrap().into_iter().collect()
}

/// A message is there, and the group is paused.
fn paused(pond: &Pond) -> Held {
    pond.topic.publish("one").unwrap();
    pond.group.pause().unwrap();
    Vec::new()
}

/// Two messages a second, and none at first: a third one waits for half a second.
fn limited(pond: &Pond) -> Held {
    let rate = millpond::RateLimit::new(2, Duration::from_secs(1));
    pond.group.alter().rate_limit(rate).apply().unwrap();
    pond.machine.clock.advance(10_000);
    pond.topic.publish_batch(["one", "two", "three"]).unwrap();
    let held: Held = pond.group.receive_batch(3, NOW).unwrap().into_iter().collect();
    assert_eq!(held.len(), 2, "as many as the burst");
    pond.group.alter().max_outstanding(5).apply().unwrap();
    held.into_iter().for_each(|delivery| delivery.ack().unwrap());
    Vec::new()
}

/// One of two is leased, and no more may be.
fn one_at_a_time(pond: &Pond) -> Held {
    pond.group.alter().max_in_flight(1).apply().unwrap();
    pond.topic.publish_batch(["one", "two"]).unwrap();
    pond.group.receive_batch(2, NOW).unwrap().into_iter().collect()
}

fn each(held: Held, settle: fn(millpond::Delivery)) {
    held.into_iter().for_each(settle);
}

/// The others stay held: dropping them would be a nack, which wakes too.
fn first(mut held: Held, settle: fn(millpond::Delivery)) {
    settle(held.remove(0));
    held.into_iter().for_each(std::mem::forget);
}

const WAYS: &[Way] = &[
    ("a publish", nothing, |pond, _| drop(pond.topic.publish("m").unwrap()), 0),
    ("a resumption", paused, |pond, _| pond.group.resume().unwrap(), 0),
    ("a token of its rate", limited, |_, _| (), 500),
    ("another rate", limited, |pond, _| pond.group.alter().rate_limit(None).apply().unwrap(), 0),
    ("an ack where all may be in flight", one_at_a_time, |_, held| each(held, |d| d.ack().unwrap()), 0),
    ("a rejection there", one_at_a_time, |_, held| each(held, |d| d.reject("").unwrap()), 0),
    ("the end of a lease there", one_at_a_time, |_, held| std::mem::forget(held), 10_000),
    ("a nack without a delay", one, |_, held| each(held, |d| d.nack_after(NOW, "").unwrap()), 0),
    ("a nack, when its time has come", one, |_, held| each(held, |d| d.nack("").unwrap()), 1_000),
    ("a release", one, |_, held| each(held, |d| d.release().unwrap()), 0),
    ("a lease, when it ends", one, |_, held| std::mem::forget(held), 10_000),
    ("an ack below the cap", two_of_three, |_, held| first(held, |d| d.ack().unwrap()), 0),
    ("a rejection below the cap", two_of_three, |_, held| first(held, |d| d.reject("").unwrap()), 0),
    (
        "a redrive",
        one,
        |pond, held| {
            each(held, |d| d.reject("").unwrap());
            pond.store.sync().unwrap();
            assert_eq!(pond.group.redrive_all().unwrap(), 1);
        },
        0,
    ),
];

#[test]
fn each_way_to_become_ready_wakes_a_sleeper() {
    for &(way, hold, act, after_ms) in WAYS {
        let pond = Pond::new();
        let held = hold(&pond);
        let mut sleepers = vec![pond.sleep(), pond.sleep()];
        pond.is_sound();
        let is_any_awake = |sleepers: &[Sleeper]| sleepers.iter().any(Sleeper::is_awake);
        assert!(!is_any_awake(&sleepers), "{way}: awake before anything was ready");
        act(&pond, held);
        pond.is_sound();
        if after_ms > 0 {
            // One may be woken for the new deadline: it looks, and sleeps on.
            sleepers.retain(|sleeper| !sleeper.is_awake());
            while sleepers.len() < 2 {
                sleepers.push(pond.sleep());
            }
            pond.machine.clock.advance(after_ms - 1);
            pond.is_sound();
            assert!(!is_any_awake(&sleepers), "{way}: awake too early");
            pond.machine.clock.advance(1);
        }
        assert!(is_any_awake(&sleepers), "{way}: all sleep");
        drop(sleepers);
        assert!(pond.group.receive(NOW).unwrap().is_some(), "{way}: nothing is ready");
    }
}

#[test]
fn consumer_that_fails_passes_the_wake_up_on() {
    // From each of its requests on a receive fails, while another consumer sleeps.
    let mut failed = 0;
    for nth in 0..12 {
        for fault in [Fault::NoSpace, Fault::TooManyFiles] {
            let machine = Machine::new();
            let store = machine.open_with(Store::options().durability(Durability::Os).segment_bytes_max(64 << 10));
            let topic = store.topic("t").open().unwrap();
            let group = topic.group("g").open().unwrap();
            // Up to the end of the segment, so that the lease needs another. Of another topic: each publish wakes one.
            let other = store.topic("other").open().unwrap();
            while machine.disk.requests_of(Op::Create) < 5 + nth / 4 {
                other.publish(vec![7; 3000]).unwrap();
            }
            let [first, second] = [(); 2].map(|()| group.fall_asleep(LONG).unwrap().unwrap());
            topic.publish("one").unwrap();
            assert!(first.is_awake() && !second.is_awake(), "it was published for the first");
            drop(first);
            // It tries again where it finds no room for what is new.
            (nth % 4..8).for_each(|ahead| machine.disk.fail_at(machine.disk.requests() + ahead, fault));
            match group.receive(NOW) {
                Ok(delivery) => drop(delivery),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
                    failed += 1;
                }
            }
            assert_eq!(store.stuck_sleepers(), Vec::<String>::new(), "{fault:?} at {nth}");
            assert!(second.is_awake());
        }
    }
    assert!(failed > 0, "nothing failed");
}

#[test]
fn clock_jump_wakes_even_where_it_cannot_be_recorded() {
    let pond = Pond::new();
    // Due after a second by the wall clock.
    each(one(&pond), |delivery| delivery.nack("").unwrap());
    let Pond { machine, store, topic, group } = pond;
    machine.crash((group, topic, store));
    let store = machine.open();
    let group = store.topic("t").open().unwrap().group("g").open().unwrap();
    let sleeper = group.fall_asleep(LONG).unwrap().expect("it waits");
    machine.clock.set_wall(WallMs(machine.clock.wall().0 + 3_600_000));
    // The first record of a process needs a segment.
    machine.disk.fail_op_at(Op::Create, machine.disk.requests_of(Op::Create), Fault::NoMemory);
    store.tick().unwrap();
    assert_eq!(machine.disk.faults(), 1);
    assert_eq!(store.stuck_sleepers(), Vec::<String>::new());
    assert!(sleeper.is_awake());
    drop(sleeper);
    assert!(group.receive(NOW).unwrap().is_some());
}

/// A store with two topics, each with a group; a message of the first was in flight in a crash, and is to be leased alone.
fn after_a_crash() -> (Machine, Store, [Topic; 2], [Group; 2]) {
    let machine = Machine::new();
    {
        let store = machine.open();
        let one = store.topic("one").open().unwrap();
        let a = one.group("a").max_attempts(2).visibility_timeout(LONG).open().unwrap();
        let two = store.topic("two").open().unwrap();
        two.group("b").visibility_timeout(Duration::from_secs(2)).open().unwrap();
        one.publish("was in flight").unwrap();
        let held = a.receive(NOW).unwrap().unwrap();
        machine.crash((held, a, one, two, store));
    }
    let store = machine.open();
    let (one, two) = (store.topic("one").open().unwrap(), store.topic("two").open().unwrap());
    let groups = [one.group("a").open().unwrap(), two.group("b").open().unwrap()];
    (machine, store, [one, two], groups)
}

#[test]
fn end_of_an_exclusive_lease_wakes_the_other_groups() {
    for settle in [0, 1, 2] {
        let (machine, store, [_, two], [a, b]) = after_a_crash();
        let exclusive = a.receive(NOW).unwrap().unwrap();
        let sleeper = b.fall_asleep(LONG).unwrap().unwrap();
        two.publish("innocent").unwrap();
        // Woken by the publish, it looks, finds the store held up, and sleeps on.
        assert!(sleeper.is_awake());
        drop(sleeper);
        assert!(b.receive(NOW).unwrap().is_none());
        let sleeper = b.fall_asleep(LONG).unwrap().unwrap();
        match settle {
            0 => exclusive.ack().unwrap(),
            1 => drop(exclusive),
            _ => machine.clock.advance(5_000),
        }
        assert_eq!(store.stuck_sleepers(), Vec::<String>::new());
        assert!(sleeper.is_awake());
        drop(sleeper);
        assert!(b.receive(NOW).unwrap().is_some());
    }
}

/// The one that waits for all others to end goes when the last of them does, also where that is earlier than it was to be.
#[test]
fn lease_that_is_over_early_lets_the_exclusive_one_go_early() {
    let ways: [fn(millpond::Delivery); 4] = [
        |delivery| delivery.ack().unwrap(),
        |delivery| delivery.nack("").unwrap(),
        |delivery| delivery.reject("").unwrap(),
        |delivery| delivery.release().unwrap(),
    ];
    for (way, settle) in ways.into_iter().enumerate() {
        let (machine, store, [_, two], [a, b]) = after_a_crash();
        two.publish_batch(["one", "two"]).unwrap();
        let first = b.receive(NOW).unwrap().unwrap();
        machine.clock.advance(1_000);
        let second = b.receive(NOW).unwrap().unwrap();
        assert!(a.receive(NOW).unwrap().is_none(), "it waits for both");
        let sleepers = [&a, &b].map(|group| group.fall_asleep(LONG).unwrap().unwrap());
        assert_eq!(store.stuck_sleepers(), Vec::<String>::new());
        settle(second);
        assert_eq!(store.stuck_sleepers(), Vec::<String>::new(), "way {way}");
        assert!(sleepers[0].is_awake(), "way {way}");
        drop(sleepers);
        // It looks, and sleeps on until the first ends.
        assert!(a.receive(NOW).unwrap().is_none());
        let sleeper = a.fall_asleep(LONG).unwrap().unwrap();
        machine.clock.advance(999);
        assert!(!sleeper.is_awake(), "way {way}: awake too early");
        machine.clock.advance(1);
        assert!(sleeper.is_awake(), "way {way}: asleep though it may go");
        drop(sleeper);
        assert!(a.receive(NOW).unwrap().is_some());
        std::mem::forget(first);
    }
}

/// A process begins without tokens: however often it starts, a group gets no more than its rate.
#[test]
fn restarts_give_no_burst() {
    let machine = Machine::new();
    let mut received = 0;
    for _ in 0..10 {
        let store = machine.open();
        let topic = store.topic("t").open().unwrap();
        let group =
            topic.group("g").rate_limit(millpond::RateLimit::new(1, Duration::from_secs(1)).burst(5)).open().unwrap();
        topic.publish_batch(["one", "two"]).unwrap();
        let batch = group.receive_batch(10, NOW).unwrap();
        assert!(batch.is_empty(), "a token was there at once");
        machine.clock.advance(1_000);
        let batch = group.receive_batch(10, NOW).unwrap();
        received += batch.len();
        assert!(batch.ack().unwrap().is_empty());
        machine.crash((store, topic, group));
    }
    assert_eq!(received, 10);
}

/// An exclusive lease is not awaited for a group that cannot have it.
#[test]
fn paused_and_full_groups_hold_nobody_up() {
    let machine = Machine::new();
    let store = machine.open();
    let topic = store.topic("t").open().unwrap();
    let group = topic.group("g").max_attempts(2).backoff(Backoff::none()).open().unwrap();
    topic.publish_batch(["one", "two"]).unwrap();
    std::mem::forget(group.receive(NOW).unwrap().expect("a message"));
    machine.crash((store, topic, group));

    let store = machine.open();
    let topic = store.topic("t").open().unwrap();
    let (group, other) = (topic.group("g").open().unwrap(), topic.group("other").open().unwrap());
    let held = other.receive(NOW).unwrap().expect("another lease");
    assert!(group.receive(NOW).unwrap().is_none(), "the suspect waits for the other lease");
    assert!(other.receive(NOW).unwrap().is_none(), "and all wait for the suspect");
    let sleeper = other.fall_asleep(LONG).unwrap().expect("nothing may be leased");
    group.pause().unwrap();
    assert!(sleeper.is_awake(), "the end of the wait is told");
    let second = other.receive(NOW).unwrap().expect("nobody waits for a paused group");
    assert!(group.receive(NOW).unwrap().is_none());
    held.ack().unwrap();
    group.resume().unwrap();
    assert!(group.receive(NOW).unwrap().is_none(), "the suspect waits again, for the second lease");
    second.ack().unwrap();
    assert_eq!(group.receive(NOW).unwrap().expect("it is alone").attempt(), 2);
}
