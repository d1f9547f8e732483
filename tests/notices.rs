//! Notices of dead letters: one in the frame of each move, and none without (G10). For crashes see the simulation.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use millpond::simulation::WallMs;
use millpond::simulation::{PowerOutcome, SimClock, SimDisk};
use millpond::{Backoff, Delivery, Durability, Error, Group, GroupBuilder, Message, Store, Topic};
use std::sync::Arc;
use std::time::Duration;

const NOW: Duration = Duration::ZERO;
const START: u64 = 1_800_000_000_000;

struct Machine {
    disk: SimDisk,
    clock: Arc<SimClock>,
    store: Store,
}

impl Machine {
    fn new(level: Durability) -> Self {
        let (disk, clock) = (SimDisk::new(3), Arc::new(SimClock::new(WallMs(START))));
        let store = open(&disk, &clock, level);
        Self { disk, clock, store }
    }

    fn topic(&self, name: &str) -> Topic {
        self.store.topic(name).partitions(2).open().unwrap()
    }

    fn builder(&self) -> GroupBuilder {
        self.topic("orders").group("kitchen").max_attempts(2).backoff(Backoff::none())
    }

    /// A group of `orders` whose notices go to `alerts`.
    fn kitchen(&self) -> Group {
        self.builder().dead_letter_notices(&self.topic("alerts")).open().unwrap()
    }

    /// Where the log ends, and how many messages `alerts` has had.
    fn ends(&self) -> (u64, u64) {
        let stats = self.store.stats().unwrap();
        let alerts = stats.topics.iter().find(|topic| topic.name == "alerts");
        (stats.log.end.0, alerts.map_or(0, |topic| topic.partitions.iter().map(|partition| partition.end).sum()))
    }

    /// All that is in `alerts`, as text: group, cause, attempts, seconds, error, in order of the messages that died.
    fn notices(&self) -> Vec<String> {
        self.store.sync().unwrap();
        let mut reader = self.topic("alerts").reader().from_start().open().unwrap();
        let (mut all, mut place) = (Vec::new(), None);
        while let Some(message) = reader.try_next().unwrap() {
            let header = |name| std::str::from_utf8(message.header(name).unwrap()).unwrap();
            let ms: u64 = header("dead-letter-time-ms").parse().unwrap();
            let id: millpond::MessageId = header("dead-letter-id").parse().unwrap();
            let names = format!("{}/{}", header("dead-letter-topic"), header("dead-letter-group"));
            let end = (header("dead-letter-cause"), header("dead-letter-attempts"), (ms - START) / 1000);
            all.push((id, format!("{names} {} {} at {}: {}", end.0, end.1, end.2, text(message.payload()))));
            let at = message.position();
            assert!(place.replace(at) < Some(at));
        }
        all.sort();
        all.into_iter().map(|(_, notice)| notice).collect()
    }
}

fn open(disk: &SimDisk, clock: &Arc<SimClock>, level: Durability) -> Store {
    Store::options().durability(level).open_on(Arc::new(disk.attach().unwrap()), clock.clone()).unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn take(group: &Group, count: usize) -> Vec<Delivery> {
    group.receive_batch(count, NOW).unwrap().into_iter().collect()
}

#[test]
fn every_way_to_the_dead_letters_publishes_one_notice() {
    let machine = Machine::new(Durability::Os);
    let (orders, kitchen) = (machine.topic("orders"), machine.kitchen());
    orders.publish_batch(["a", "b", "c", "d"].map(|text| Message::new(text).partition(0))).unwrap();
    let mut taken = take(&kitchen, 4).into_iter();
    taken.next().unwrap().reject("inedible").unwrap();
    taken.next().unwrap().nack("first").unwrap();
    drop(taken);
    assert_eq!(
        machine.notices(),
        ["orders/kitchen rejected 1 at 0: inedible"],
        "a nack with another attempt is silent"
    );
    machine.clock.advance(5_000);
    let mut taken = take(&kitchen, 3).into_iter();
    let end = machine.ends();
    taken.next().unwrap().nack("second").unwrap();
    assert_eq!(machine.ends().1, end.1 + 1);
    // That of its lease, and that of the process.
    let (expires, _crashes) = (taken.next().unwrap(), taken.next().unwrap());
    machine.clock.advance(30_000);
    assert!(kitchen.receive(NOW).unwrap().is_none(), "all that are left are exhausted");
    assert!(matches!(expires.ack(), Err(Error::LeaseLost { .. })));
    let expected = [
        "orders/kitchen rejected 1 at 0: inedible",
        "orders/kitchen nacked 2 at 5: second",
        "orders/kitchen expired 2 at 35: ",
        "orders/kitchen expired 2 at 35: ",
    ];
    assert_eq!(machine.notices(), expected);
    assert_eq!(kitchen.dead_letters().unwrap().count(), 4);
    // They are messages like others.
    let on_call = machine.topic("alerts").group("on-call").open().unwrap();
    assert_eq!(take(&on_call, 9).len(), 4);
}

#[test]
fn a_crash_that_was_the_last_attempt_is_told() {
    let machine = Machine::new(Durability::Os);
    let kitchen = machine.builder().max_attempts(1).dead_letter_notices(&machine.topic("alerts")).open().unwrap();
    machine.topic("orders").publish("poison").unwrap();
    let mut held = take(&kitchen, 1);
    machine.store.sync().unwrap();
    let mut machine = machine;
    // Its last attempt once more, alone; then it is given up.
    for last in [1, 0] {
        machine.disk.crash_process();
        machine.store = open(&machine.disk, &machine.clock, Durability::Os);
        let kitchen = machine.topic("orders").group("kitchen").open().unwrap();
        let again = take(&kitchen, 1);
        assert_eq!(again.len(), last);
        held.extend(again);
    }
    assert_eq!(machine.notices(), ["orders/kitchen crashed 2 at 0: "]);
}

#[test]
fn notices_have_the_key_of_their_message() {
    let machine = Machine::new(Durability::Os);
    let (orders, kitchen) = (machine.topic("orders"), machine.kitchen());
    for nth in 0..6 {
        orders.publish(Message::new("x").key(format!("customer-{}", nth % 3))).unwrap();
    }
    orders.publish("without a key").unwrap();
    take(&kitchen, 7).into_iter().for_each(|delivery| delivery.reject("no").unwrap());
    let ours = machine.topic("alerts").group("g").open().unwrap();
    let notices = take(&ours, 7);
    assert_eq!(notices.len(), 7);
    for nth in 0..3 {
        let key = format!("customer-{nth}");
        let of_key = notices.iter().filter(|notice| notice.key() == Some(key.as_bytes()));
        let partitions: Vec<u64> = of_key.map(|notice| notice.id().partition).collect();
        let home = machine.topic("alerts").publish(Message::new("").key(key)).unwrap().id().partition;
        assert_eq!(partitions, [home, home], "where each message of the key goes");
    }
    assert_eq!(notices.iter().filter(|notice| notice.key().is_none()).count(), 1);
}

/// The copies and the notices of a transaction come in one frame with what it publishes, also to the topic of the notices.
#[test]
fn transactions_move_and_tell_in_one_frame() {
    let machine = Machine::new(Durability::Os);
    let (orders, alerts, kitchen) = (machine.topic("orders"), machine.topic("alerts"), machine.kitchen());
    orders.publish_batch(["a", "b", "c", "d"].map(|text| Message::new(text).partition(1))).unwrap();
    take(&kitchen, 4).into_iter().for_each(|delivery| delivery.nack("once").unwrap());
    let taken = take(&kitchen, 4);
    let mine = |text| Message::new(text).header("dead-letter-id", "0-0-0-0").partition(0);
    let done = machine.store.transaction(|tx| {
        let first = tx.publish(&alerts, mine("mine"))?;
        tx.reject(&taken[0], "never")?;
        tx.ack(&taken[1])?;
        tx.nack(&taken[2], "twice")?;
        tx.reject(&taken[3], "never either")?;
        tx.publish(&orders, "e").map(|second| (first, second))
    });
    let done = done.unwrap();
    assert_eq!(done.ids().len(), 2);
    assert_eq!(done.id(done.value.0).unwrap().partition, 0);
    let ours = alerts.group("g").open().unwrap();
    let mut got: Vec<String> = take(&ours, 9).iter().map(|of| text(of.payload()).to_owned()).collect();
    got.sort();
    assert_eq!(got, ["mine", "never", "never either", "twice"]);
    let letters: Vec<_> = kitchen.dead_letters().unwrap().map(|letter| letter.unwrap().payload().to_vec()).collect();
    assert_eq!(letters, [b"a", b"c", b"d"]);
    assert_eq!(machine.store.violations(), Vec::<String>::new());
}

/// A group may have its notices in its own topic: a notice that dies tells of nothing.
#[test]
fn a_notice_that_dies_makes_no_other() {
    let machine = Machine::new(Durability::Os);
    let alerts = machine.topic("alerts");
    let group = alerts.group("g").max_attempts(1).dead_letter_notices(&alerts).open().unwrap();
    alerts.publish("a message").unwrap();
    let mut rejected = 0;
    while let Some(delivery) = group.receive(NOW).unwrap() {
        match rejected {
            0 => delivery.reject("no").unwrap(),
            _ => machine.store.transaction(|tx| tx.nack(&delivery, "nor this")).map(drop).unwrap(),
        }
        rejected += 1;
        assert!(rejected < 9, "a notice of a notice of a notice");
    }
    assert_eq!((rejected, machine.ends().1), (2, 2));
    assert_eq!(group.dead_letters().unwrap().count(), 2);
}

#[test]
fn the_topic_of_notices_is_altered_taken_back_and_removed() {
    let machine = Machine::new(Durability::Os);
    let (orders, alerts, others) = (machine.topic("orders"), machine.topic("alerts"), machine.topic("others"));
    let kitchen = machine.builder().open().unwrap();
    let reject_one = || {
        orders.publish("x").unwrap();
        take(&kitchen, 1).into_iter().for_each(|delivery| delivery.reject("no").unwrap());
        let stats = machine.store.stats().unwrap();
        ["alerts", "others"].map(|name| {
            let topic = stats.topics.iter().find(|topic| topic.name == name);
            topic.map_or(0, |topic| topic.partitions.iter().map(|partition| partition.end).sum::<u64>())
        })
    };
    assert_eq!(reject_one(), [0, 0]);
    kitchen.alter().dead_letter_notices(&alerts).apply().unwrap();
    assert_eq!(reject_one(), [1, 0]);
    kitchen.alter().max_attempts(7).apply().unwrap();
    assert_eq!(reject_one(), [2, 0], "what is not given stays");
    kitchen.alter().dead_letter_notices(&others).apply().unwrap();
    assert_eq!(reject_one(), [2, 1]);
    kitchen.alter().dead_letter_notices(None).apply().unwrap();
    assert_eq!(reject_one(), [2, 1]);
    kitchen.alter().dead_letter_notices(&others).apply().unwrap();
    let held = {
        orders.publish("x").unwrap();
        take(&kitchen, 1).remove(0)
    };
    machine.store.remove_topic("others").unwrap();
    held.reject("no").unwrap();
    let end = machine.ends();
    let refused = kitchen.alter().dead_letter_notices(&others).apply();
    assert!(refused.is_ok(), "nothing changes: {refused:?}");
    for refused in [
        orders.group("new").dead_letter_notices(&others).open().map(drop),
        kitchen
            .alter()
            .dead_letter_notices(None)
            .apply()
            .and_then(|()| kitchen.alter().dead_letter_notices(&others).apply()),
    ] {
        assert!(matches!(refused, Err(Error::Removed { .. })), "{refused:?}");
    }
    assert_eq!(machine.ends().1, end.1);
    assert_eq!(kitchen.dead_letters().unwrap().count(), 6);
    // A topic that was removed gives its number to none.
    kitchen.alter().max_attempts(2).apply().unwrap();
    machine.topic("yet others");
    assert_eq!(reject_one()[0], 2);
    machine.store.close().unwrap();
    let store = open(&machine.disk, &machine.clock, Durability::Os);
    assert_eq!(store.violations(), Vec::<String>::new());
}

#[test]
fn a_topic_of_another_store_and_another_topic_are_refused() {
    let (machine, other) = (Machine::new(Durability::Os), Machine::new(Durability::Os));
    let (alerts, kitchen) = (machine.topic("alerts"), machine.kitchen());
    let foreign = other.topic("alerts");
    for refused in [
        machine.topic("orders").group("new").dead_letter_notices(&foreign).open().map(drop),
        machine.builder().dead_letter_notices(&foreign).open().map(drop),
        kitchen.alter().dead_letter_notices(&foreign).apply(),
    ] {
        let Err(Error::InvalidOption { option: "dead_letter_notices", value, .. }) = &refused else {
            panic!("{refused:?}");
        };
        assert!(value.contains("another store"), "{value}");
    }
    for (topic, asked) in [(None, "none"), (Some(&machine.topic("orders")), "topic number 1")] {
        let refused = machine.builder().dead_letter_notices(topic).open().map(drop);
        let Err(Error::OptionMismatch { option: "dead_letter_notices", stored, asked: given, .. }) = &refused else {
            panic!("{refused:?}");
        };
        assert_eq!((stored.as_str(), given.as_str()), ("topic number 0", asked));
    }
    machine.builder().dead_letter_notices(&alerts).open().unwrap();
    machine.builder().open().unwrap();
}

/// Neither a move without its notice nor a notice without its move is left by a power failure, wherever it comes.
#[test]
fn g10_a_move_and_its_notice_survive_together() {
    let (mut seen, mut kept) = ([false; 2], 0);
    loop {
        let machine = Machine::new(Durability::Os);
        let kitchen = machine.kitchen();
        machine.topic("orders").publish("x").unwrap();
        let delivery = take(&kitchen, 1).remove(0);
        machine.store.sync().unwrap();
        delivery.reject("no").unwrap();
        let pending = machine.disk.pending();
        machine.disk.crash_power(PowerOutcome::Prefix(kept));
        let machine = Machine { store: open(&machine.disk, &machine.clock, Durability::Os), ..machine };
        let letters = machine.topic("orders").group("kitchen").open().unwrap().dead_letters().unwrap().count();
        assert_eq!(machine.notices().len(), letters, "{kept} of {pending} effects");
        seen[letters] = true;
        kept += 1;
        if kept > pending {
            break;
        }
    }
    assert_eq!(seen, [true; 2]);
}

/// A full disk: where a message can move, so can its notice, and it takes nothing of the room for settling.
#[test]
fn a_full_store_tells_of_its_moves() {
    let machine = Machine::new(Durability::Os);
    let kitchen = machine.kitchen();
    let orders = machine.topic("orders");
    for _ in 0..40 {
        orders.publish(vec![7; 1000]).unwrap();
    }
    let mut taken = take(&kitchen, 40);
    machine.store.sync().unwrap();
    machine.disk.set_capacity(Some(machine.disk.files().iter().map(|file| file.len).sum::<u64>() + (5 << 20)));
    while orders.publish(vec![7; 1000]).is_ok() {}
    let (mut moved, mut refused) = (0, 0);
    while let Some(delivery) = taken.pop() {
        match delivery.reject("no room") {
            Ok(()) => moved += 1,
            Err(Error::DiskFull) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(moved > 0, "a copy may use what is kept back for it; refused {refused}");
    assert_eq!(machine.ends().1, moved);
}
