//! Transactions: all of it or nothing, for every reader, and what is not one (G18). For crashes see the simulation.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use millpond::simulation::WallMs;
use millpond::simulation::{SimClock, SimDisk};
use millpond::{Backoff, Delivery, Durability, Error, Group, Message, Store, StoreOptions, Topic};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

const NOW: Duration = Duration::ZERO;

struct Machine {
    disk: SimDisk,
    clock: Arc<SimClock>,
    store: Store,
}

impl Machine {
    fn with(options: StoreOptions) -> Self {
        let (disk, clock) = (SimDisk::new(3), Arc::new(SimClock::new(WallMs(1_800_000_000_000))));
        let store = options.open_on(Arc::new(disk.attach().unwrap()), clock.clone()).unwrap();
        Self { disk, clock, store }
    }

    fn new() -> Self {
        Self::with(Store::options().durability(Durability::Os))
    }

    fn topic(&self, name: &str) -> Topic {
        self.store.topic(name).partitions(2).open().unwrap()
    }

    fn group(&self, topic: &str) -> Group {
        self.topic(topic).group("g").max_attempts(2).backoff(Backoff::none()).open().unwrap()
    }

    /// Everything that is in the store, but for messages: what a transaction that fails must not change.
    fn end(&self) -> (u64, u64) {
        (self.store.stats().unwrap().log.end.0, self.store.state_hash().unwrap().unwrap())
    }
}

fn take(group: &Group, count: usize) -> Vec<Delivery> {
    group.receive_batch(count, NOW).unwrap().into_iter().collect()
}

fn payloads(group: &Group) -> Vec<String> {
    let mut all: Vec<_> =
        take(group, 100).into_iter().map(|of| String::from_utf8(of.payload().to_vec()).unwrap()).collect();
    all.sort();
    all
}

#[test]
fn effects_of_a_transaction_are_in_one_frame() {
    let machine = Machine::new();
    let (orders, mails, bills) = (machine.group("orders"), machine.group("mails"), machine.group("bills"));
    machine.topic("orders").publish_batch(["a", "b", "c", "d"]).unwrap();
    let taken = take(&orders, 4);
    let before = machine.store.stats().unwrap().log.end;
    let done = machine
        .store
        .transaction(|tx| {
            let first = tx.publish(&machine.topic("mails"), Message::new("mail").key("k"))?;
            tx.ack(&taken[0])?;
            tx.nack(&taken[1], "again")?;
            tx.reject(&taken[2], "never")?;
            tx.reject(&taken[3], "never either")?;
            let others =
                [tx.publish(&machine.topic("bills"), "bill 1")?, tx.publish(&machine.topic("bills"), "bill 2")?];
            Ok::<_, Error>((first, others))
        })
        .unwrap();
    assert!(done.lsn() >= before, "it stands behind what was there");
    let (first, others) = done.value;
    let ids = [first, others[0], others[1]].map(|message| done.id(message).unwrap());
    assert_eq!(ids, done.ids());
    assert_eq!(take(&mails, 9).iter().map(Delivery::id).collect::<Vec<_>>(), ids[..1]);
    let mut bills: Vec<_> = take(&bills, 9).iter().map(Delivery::id).collect();
    bills.sort();
    let mut expected = ids[1..].to_vec();
    expected.sort();
    assert_eq!(bills, expected);
    // Each copy among the dead letters is that of its own message.
    let dead: Vec<_> = orders.dead_letters().unwrap().map(|letter| letter.unwrap()).collect();
    let told: Vec<_> = dead.iter().map(|letter| (letter.payload().to_vec(), letter.origin())).collect();
    let expected = |nth: usize| (taken[nth].payload().to_vec(), taken[nth].id());
    assert_eq!(told, [expected(2), expected(3)]);
    let again = take(&orders, 9);
    assert_eq!(again.iter().map(|of| (of.id(), of.attempt())).collect::<Vec<_>>(), [(taken[1].id(), 2)]);
    let stats = machine.store.stats().unwrap();
    let of = &stats.topics.iter().find(|topic| topic.name == "orders").unwrap().groups[0];
    assert_eq!((of.leased, of.dead), (1, 2), "the one that was acked is settled");
    // Deliveries that were settled by it are done with: dropping them does nothing.
    let end = machine.end();
    drop(taken);
    assert_eq!(machine.end(), end);
}

/// A nack of the last attempt is a move with a copy; whether it is one is known only when the frame is decided.
#[test]
fn last_nack_in_a_transaction_is_a_move() {
    let machine = Machine::new();
    let group = machine.group("t");
    machine.topic("t").publish("m").unwrap();
    for attempt in 1..=2 {
        let taken = take(&group, 1);
        assert_eq!(taken[0].attempt(), attempt);
        let done = machine.store.transaction(|tx| {
            tx.nack(&taken[0], "failed")?;
            tx.publish(&machine.topic("log"), format!("attempt {attempt} failed"))
        });
        done.unwrap();
    }
    assert!(take(&group, 1).is_empty());
    let dead: Vec<_> = group.dead_letters().unwrap().map(|letter| letter.unwrap().payload().to_vec()).collect();
    assert_eq!(dead, [b"m"]);
    assert_eq!(payloads(&machine.group("log")), ["attempt 1 failed", "attempt 2 failed"]);
}

#[test]
fn one_lost_lease_rejects_the_whole() {
    let machine = Machine::new();
    let group = machine.group("t");
    machine.topic("t").publish_batch(["a", "b", "c"]).unwrap();
    let old = take(&group, 1);
    machine.clock.advance(31_000);
    let new = take(&group, 3);
    assert_eq!(new.len(), 3);
    let lost = old[0].id();
    let end = machine.end();
    for how in 0..3 {
        let failed = machine.store.transaction(|tx| {
            tx.publish(&machine.topic("t"), "never seen")?;
            tx.ack(new.iter().find(|of| of.id() != lost).unwrap())?;
            match how {
                0 => tx.ack(&old[0]),
                1 => tx.nack(&old[0], "late"),
                _ => tx.reject(&old[0], "late"),
            }
        });
        assert!(matches!(failed, Err(Error::LeaseLost { id }) if id == lost), "{:?}", failed.map(|_| ()));
        assert_eq!(machine.end(), end, "something changed");
    }
    // Those that hold on to theirs have them still.
    machine.store.transaction(|tx| new.iter().try_for_each(|of| tx.ack(of))).unwrap();
    assert!(take(&group, 9).is_empty());
}

#[test]
fn lost_lease_of_a_batch_is_named() {
    let machine = Machine::new();
    let group = machine.group("t");
    machine.topic("t").publish_batch(["a", "b", "c", "d"]).unwrap();
    let batch = group.receive_batch(9, NOW).unwrap();
    machine.clock.advance(31_000);
    let other = take(&group, 2);
    let end = machine.end();
    let failed = machine.store.transaction(|tx| tx.ack_batch(&batch));
    let Err(Error::LeaseLost { id }) = failed else { panic!("{:?}", failed.map(|_| ())) };
    assert!(other.iter().any(|of| of.id() == id));
    assert_eq!(machine.end(), end);
    drop(batch);
    drop(other);
    let batch = group.receive_batch(9, NOW).unwrap();
    assert_eq!(batch.len(), 2, "the others had their last attempt");
    let end = machine.end();
    let twice = machine.store.transaction(|tx| tx.ack_batch(&batch).and_then(|()| tx.ack_batch(&batch)));
    let reason = invalid(&machine, end, twice);
    assert!(batch.iter().any(|of| reason == format!("a message is settled twice: {}", of.id())), "{reason}");
    machine.store.transaction(|tx| tx.ack_batch(&batch)).unwrap();
    let end = machine.end();
    drop(batch);
    assert_eq!(machine.end(), end, "a batch that was settled is not given back");
}

#[test]
fn failing_or_panicking_body_leaves_no_trace() {
    let machine = Machine::new();
    let group = machine.group("t");
    machine.topic("t").publish("m").unwrap();
    let taken = take(&group, 1);
    let end = machine.end();
    let failed = machine.store.transaction(|tx| {
        tx.publish(&machine.topic("t"), "never seen")?;
        tx.ack(&taken[0])?;
        Err::<(), Error>(Error::DiskFull)
    });
    assert!(matches!(failed, Err(Error::DiskFull)));
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        machine.store.transaction(|tx| {
            tx.publish(&machine.topic("t"), "never seen")?;
            tx.ack(&taken[0])?;
            if tx.publish(&machine.topic("t"), "x").is_ok() {
                panic!("the body's own");
            }
            Ok::<(), Error>(())
        })
    }));
    assert!(panicked.is_err());
    // A reason whose text panics is the caller's code as well.
    struct Panics;
    impl std::fmt::Display for Panics {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic!("no text")
        }
    }
    let panicked = catch_unwind(AssertUnwindSafe(|| machine.store.transaction(|tx| tx.nack(&taken[0], Panics))));
    assert!(panicked.is_err());
    assert_eq!(machine.end(), end);
    // And the next transaction of this thread is not within another one.
    machine.store.transaction(|tx| tx.ack(&taken[0])).unwrap();
}

fn invalid<T>(machine: &Machine, end: (u64, u64), failed: Result<T, Error>) -> String {
    assert_eq!(machine.end(), end, "something changed");
    match failed {
        Err(Error::InvalidTransaction { reason }) => reason,
        other => panic!("{:?}", other.map(|_| ())),
    }
}

#[test]
fn mistakes_are_told_and_change_nothing() {
    let (machine, other) = (Machine::new(), Machine::new());
    let group = machine.group("t");
    machine.topic("t").publish_batch(["a", "b"]).unwrap();
    let foreign = other.group("t");
    other.topic("t").publish("theirs").unwrap();
    let (taken, theirs) = (take(&group, 2), take(&foreign, 1));
    let end = machine.end();
    let twice = [
        (0, machine.store.transaction(|tx| tx.ack(&taken[0]).and_then(|()| tx.ack(&taken[0]))).map(|_| ())),
        (0, machine.store.transaction(|tx| tx.ack(&taken[0]).and_then(|()| tx.nack(&taken[0], "x"))).map(|_| ())),
        (
            1,
            machine
                .store
                .transaction(|tx| tx.reject(&taken[1], "x").and_then(|()| tx.reject(&taken[1], "x")))
                .map(|_| ()),
        ),
    ];
    for (nth, failed) in twice {
        let id = taken[nth].id();
        assert_eq!(invalid(&machine, end, failed), format!("a message is settled twice: {id}"));
    }
    let failed = machine.store.transaction(|tx| tx.ack(&theirs[0]));
    assert_eq!(invalid(&machine, end, failed), format!("delivery {} is of another store", theirs[0].id()));
    let failed = machine.store.transaction(|tx| tx.publish(&other.topic("t"), "m"));
    assert_eq!(invalid(&machine, end, failed), "topic \"t\" is of another store");
    let failed = machine.store.transaction(|_| other.store.transaction(|_| Ok::<_, Error>(())).map(|_| ()));
    assert_eq!(invalid(&machine, end, failed), "a transaction within another one");
    // A failed call cannot be passed over: the rest would be carried out without it.
    let failed = machine.store.transaction(|tx| {
        let refused = tx.publish(&machine.topic("t"), vec![0; 2 << 20]);
        assert!(matches!(refused, Err(Error::TooLarge { .. })));
        tx.ack(&taken[0])
    });
    assert_eq!(
        invalid(&machine, end, failed),
        format!(
            "the error of a call was passed over: {}",
            Error::TooLarge { what: "message", len: (2 << 20) + 1, max: 1 << 20, unit: "bytes" }
        )
    );
    let failed =
        machine.store.transaction(|tx| (0..65_537).try_for_each(|_| tx.publish(&machine.topic("t"), "").map(drop)));
    assert!(
        matches!(failed, Err(Error::TooLarge { what: "transaction", len: 65_537, max: 65_536, unit: "effects" })),
        "{:?}",
        failed.map(|_| ())
    );
    let nothing = machine.store.transaction(|_| Ok::<_, Error>(7)).unwrap();
    assert_eq!((nothing.value, nothing.ids().len()), (7, 0));
    assert_eq!(machine.end(), end);
    machine.topic("gone").publish("m").unwrap();
    let (gone, left) = (machine.topic("gone"), machine.group("gone"));
    machine.store.remove_topic("gone").unwrap();
    let end = machine.end();
    let failed = machine.store.transaction(|tx| tx.publish(&gone, "m").and_then(|_| tx.ack(&taken[0])));
    assert!(matches!(failed, Err(Error::Removed { what: "topic" })));
    assert_eq!(machine.end(), end);
    drop(left);
    machine.store.close().unwrap();
    let failed = machine.store.transaction(|tx| tx.ack(&taken[0]));
    assert!(matches!(failed, Err(Error::Closed)), "{:?}", failed.map(|_| ()));
}

/// At `Disk` nobody sees half of it, nor any of it before it is durable, and a power failure takes nothing back.
#[test]
fn transaction_at_disk_is_durable_on_return() {
    let machine = Machine::with(Store::options().durability(Durability::Disk));
    let group = machine.group("t");
    machine.topic("t").publish("m").unwrap();
    let taken = take(&group, 1);
    let replies = machine.group("replies");
    machine
        .store
        .transaction(|tx| {
            tx.durability(Durability::Os);
            tx.ack(&taken[0])?;
            tx.publish(&machine.topic("replies"), "r")
        })
        .unwrap();
    assert!(payloads(&replies).is_empty(), "it is not durable yet");
    machine.store.sync().unwrap();
    assert_eq!(payloads(&replies), ["r"]);
    machine.topic("t").publish("n").unwrap();
    let taken = take(&group, 1);
    let done = machine.store.transaction(|tx| {
        tx.ack(&taken[0])?;
        tx.publish(&machine.topic("replies"), "s")
    });
    let id = done.unwrap().ids()[0];
    machine.disk.crash_power(millpond::simulation::PowerOutcome::EACH[0]);
    drop(taken);
    let disk = Arc::new(machine.disk.attach().unwrap());
    let store = Store::options().durability(Durability::Disk).open_on(disk, machine.clock.clone()).unwrap();
    let group = store.topic("t").open().unwrap().group("g").open().unwrap();
    assert!(take(&group, 9).is_empty(), "the ack was durable");
    let replies = store.topic("replies").open().unwrap().group("g").open().unwrap();
    assert!(take(&replies, 9).iter().any(|of| of.id() == id));
}

/// A full store is emptied by those that consume and produce: what a transaction settles pays for what it adds.
#[test]
fn full_store_can_be_drained_by_transactions() {
    let machine = Machine::with(
        Store::options().durability(Durability::Os).segment_bytes_max(64 << 10).message_bytes_max(16 << 10),
    );
    let (work, results) = (machine.topic("work"), machine.topic("results"));
    let group = machine.group("work");
    machine.disk.set_capacity(Some(3 << 20));
    let mut sent = 0;
    let mut refused = 0;
    while refused < 3 {
        match work.publish(vec![7; 1000]) {
            Ok(_) => sent += 1,
            Err(Error::DiskFull) => {
                refused += 1;
                machine.store.tick().unwrap();
            }
            Err(error) => panic!("{error}"),
        }
        if sent % 16 == 0 {
            machine.store.tick().unwrap();
        }
    }
    let mut done = 0;
    let mut waited = 0;
    while done < sent {
        assert!(waited < 100, "G14, G18: {done} of {sent} were consumed, and then nothing moved");
        let delivery = match group.receive(NOW) {
            Ok(Some(delivery)) => delivery,
            Ok(None) => panic!("{done} of {sent} are there"),
            Err(Error::DiskFull) => {
                waited += 1;
                machine.clock.advance(1_000);
                machine.store.tick().unwrap();
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        let carried_out = machine.store.transaction(|tx| {
            tx.ack(&delivery)?;
            tx.publish(&results, vec![8; 100])
        });
        match carried_out {
            Ok(_) => (done, waited) = (done + 1, 0),
            Err(Error::DiskFull) => {
                waited += 1;
                delivery.release().unwrap();
                machine.clock.advance(1_000);
                machine.store.tick().unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }
    let stats = machine.store.stats().unwrap();
    assert_eq!(stats.topics.iter().find(|of| of.name == "results").unwrap().published, sent);
    assert!(sent > 1000, "{sent}");
}
