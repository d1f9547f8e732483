//! Projections: what follows a topic keeps its position with its result, whatever comes between (G18, G19).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use millpond::simulation::{Fault, PowerOutcome, Rng, SimClock, SimDisk, WallMs};
use millpond::{
    Durability, Error, ErrorKind, Expected, LogMessage, Position, PositionFault, ProjectionError, Store, Topic,
    Transaction,
};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

struct Machine {
    disk: SimDisk,
    clock: Arc<SimClock>,
    level: Durability,
    store: Store,
    orders: Topic,
    mails: Topic,
}

fn open(disk: &SimDisk, clock: &Arc<SimClock>, level: Durability) -> (Store, Topic, Topic) {
    let options = Store::options().durability(level).segment_bytes_max(64 << 10);
    let store = options.open_on(Arc::new(disk.attach().unwrap()), clock.clone()).unwrap();
    let orders = store.topic("orders").streams().partitions(3).open().unwrap();
    let mails = store.topic("mails").streams().open().unwrap();
    (store, orders, mails)
}

impl Machine {
    fn new(level: Durability) -> Self {
        let (disk, clock) = (SimDisk::new(5), Arc::new(SimClock::new(WallMs(1_800_000_000_000))));
        let (store, orders, mails) = open(&disk, &clock, level);
        Self { disk, clock, level, store, orders, mails }
    }

    fn reopen(&mut self) {
        (self.store, self.orders, self.mails) = open(&self.disk, &self.clock, self.level);
    }

    fn append(&self, key: &str, event: impl ToString) {
        self.orders.stream(key).unwrap().append(Expected::Any, [event.to_string()]).unwrap();
    }
}

fn texts(topic: &Topic) -> Vec<String> {
    let mut reader = topic.reader().open().unwrap();
    let text = |message: LogMessage| String::from_utf8(message.payload().to_vec()).unwrap();
    std::iter::from_fn(|| reader.try_next().unwrap().map(text)).collect()
}

fn mail(mails: &Topic) -> impl FnMut(&mut Transaction<'_>, &LogMessage) -> Result<(), Error> {
    let mails = mails.clone();
    move |tx, event| tx.publish(&mails, event.payload()).map(drop)
}

#[test]
fn each_event_has_its_effect_once_and_the_lag_is_told() {
    let mut machine = Machine::new(Durability::Os);
    for event in 0..25 {
        machine.append(["a", "b", "c"][event % 3], event);
    }
    let events = texts(&machine.orders);
    assert_eq!(events.len(), 25);
    let mut mailer = machine.orders.projection("mailer").batch(10).open().unwrap();
    assert_eq!((mailer.name(), mailer.status().unwrap().position, mailer.status().unwrap().lag), ("mailer", None, 25));
    for (count, lag) in [(10, 15), (10, 5), (5, 0), (0, 0)] {
        assert_eq!(mailer.run_once(mail(&machine.mails)).unwrap(), count);
        let status = mailer.status().unwrap();
        assert_eq!((status.lag, status.position), (lag, machine.orders.cursor("mailer").unwrap().position().unwrap()));
    }
    assert_eq!(texts(&machine.mails), events);
    drop(mailer);
    machine.append("a", "more");
    machine.disk.crash_process();
    machine.reopen();
    let mut mailer = machine.orders.projection("mailer").open().unwrap();
    assert_eq!(mailer.status().unwrap().lag, 1);
    let asked = Cell::new(0);
    let until = || asked.replace(asked.get() + 1) == 1;
    assert_eq!(mailer.run(until, mail(&machine.mails)).unwrap(), 1);
    assert_eq!(texts(&machine.mails), texts(&machine.orders));
}

/// G18: the output and the position are in one frame, wherever the process or the power goes.
#[test]
fn a_crash_between_doubles_and_loses_nothing() {
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let mut machine = Machine::new(if rng.coin() { Durability::Os } else { Durability::Disk });
        for event in 0..20 {
            machine.append(["a", "b"][rng.index(2)], event);
        }
        machine.store.sync().unwrap();
        for attempt in 0.. {
            let faults = [Fault::CrashBefore, Fault::CrashMiddle, Fault::CrashAfter];
            machine.disk.fail_at(machine.disk.requests() + rng.below(12 + attempt), faults[rng.index(3)]);
            let mut mailer = machine.orders.projection("mailer").batch(1 + rng.index(6)).open().unwrap();
            let ran = loop {
                match mailer.run_once(mail(&machine.mails)) {
                    Ok(0) => break Ok(()),
                    Ok(_) => {
                        if rng.chance(1, 2) {
                            drop(machine.store.sync());
                        }
                    }
                    Err(error) => break Err(error),
                }
            };
            drop(mailer);
            machine.disk.clear_faults();
            match rng.below(3) {
                0 => machine.disk.crash_power(PowerOutcome::LoseAll),
                1 => machine.disk.crash_power(PowerOutcome::RandomSectors),
                _ => machine.disk.crash_process(),
            }
            machine.reopen();
            if ran.is_ok() && machine.orders.projection("mailer").open().unwrap().status().unwrap().lag == 0 {
                break;
            }
        }
        assert_eq!(texts(&machine.mails), texts(&machine.orders), "seed {seed}");
    }
}

#[test]
fn a_second_runner_is_told_and_goes_on_where_the_first_stands() {
    let machine = Machine::new(Durability::Os);
    (0..6).for_each(|event| machine.append("a", event));
    let mut one = machine.orders.projection("mailer").batch(2).open().unwrap();
    let mut other = machine.orders.projection("mailer").batch(2).open().unwrap();
    one.run_once(mail(&machine.mails)).unwrap();
    other.run_once(mail(&machine.mails)).unwrap();
    match one.run_once(mail(&machine.mails)) {
        Err(ProjectionError::Store(error @ Error::CursorMoved { .. })) => assert_eq!(error.kind(), ErrorKind::Conflict),
        done => panic!("{done:?}"),
    }
    assert_eq!(one.run_once(mail(&machine.mails)).unwrap(), 2);
    assert!(matches!(other.run_once(mail(&machine.mails)), Ok(0) | Err(ProjectionError::Store(_))));
    assert_eq!(texts(&machine.mails), texts(&machine.orders));
}

#[test]
fn a_rebuild_comes_to_the_same() {
    let mut machine = Machine::new(Durability::Disk);
    (0..30).for_each(|event| machine.append(&format!("s{}", event % 4), event));
    let mut mailer = machine.orders.projection("mailer").open().unwrap();
    mailer.rebuild().unwrap();
    while mailer.run_once(mail(&machine.mails)).unwrap() > 0 {}
    let first = texts(&machine.mails);
    mailer.rebuild().unwrap();
    assert_eq!(mailer.status().unwrap().lag, 30);
    drop(mailer);
    machine.disk.crash_power(PowerOutcome::LoseAll);
    machine.reopen();
    let again = machine.store.topic("mails again").open().unwrap();
    let mut mailer = machine.orders.projection("mailer").batch(7).open().unwrap();
    while mailer.run_once(mail(&again)).unwrap() > 0 {}
    assert_eq!((texts(&again), first), (texts(&machine.orders), texts(&machine.orders)));
}

/// The events before it are taken in, it is named, and nothing of it is done.
#[test]
fn a_poison_event_is_told_with_its_position_and_leaves_no_trace() {
    let machine = Machine::new(Durability::Os);
    (0..5).for_each(|event| machine.append("a", event));
    let mut mailer = machine.orders.projection("mailer").open().unwrap();
    let is_poison = |event: &LogMessage| event.payload() == b"3";
    for round in 0..3 {
        let before = machine.store.state_hash().unwrap();
        let mut run = || {
            mailer.run_once(|tx, event| {
                tx.publish(&machine.mails, event.payload()).map_err(|error| error.to_string())?;
                match (is_poison(event), round) {
                    (true, 0 | 1) => Err("it cannot be read".to_owned()),
                    (true, _) => panic!("at {}", event.position()),
                    (false, _) => Ok(()),
                }
            })
        };
        let position = match round {
            2 => {
                assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
                continue;
            }
            _ => match run().unwrap_err() {
                ProjectionError::Event { position, source } if source == "it cannot be read" => position,
                other => panic!("{other:?}"),
            },
        };
        let mut reader = machine.orders.reader().from(position).open().unwrap();
        assert_eq!(reader.try_next().unwrap().unwrap().payload(), b"4");
        assert_eq!(texts(&machine.mails), ["0", "1", "2"]);
        assert_eq!(machine.store.state_hash().unwrap() == before, round > 0);
    }
    let status = mailer.status().unwrap();
    assert_eq!(status.lag, 2);
    let done = mailer.run_once(|tx, event| {
        let skipped = is_poison(event);
        if skipped { Ok(()) } else { tx.publish(&machine.mails, event.payload()).map(drop) }
    });
    assert_eq!(done.unwrap(), 2);
    assert_eq!(texts(&machine.mails), ["0", "1", "2", "4"]);
}

/// What cannot be done for several events in one transaction is done for each alone: here all set one cursor.
#[test]
fn a_batch_that_is_refused_goes_on_by_single_events() {
    let machine = Machine::new(Durability::Os);
    (0..5).for_each(|event| machine.append("s", event));
    let last = machine.store.cursor("last").unwrap();
    let mut projection = machine.orders.projection("log").open().unwrap();
    for left in (0..5).rev() {
        let done = projection.run_once(|tx, event| tx.set_cursor(&last, last.get()?.as_deref(), event.payload()));
        assert_eq!(done.unwrap(), 1);
        assert_eq!(projection.status().unwrap().lag, left);
    }
    assert_eq!(last.get().unwrap().as_deref(), Some(&b"4"[..]));
}

/// After a failure fewer events may be asked for, so that the one that fails is found.
#[test]
fn a_foreign_store_may_ask_for_less() {
    let machine = Machine::new(Durability::Os);
    (0..5).for_each(|event| machine.append("s", event));
    let mut projection = machine.orders.projection_from(None).unwrap();
    assert!(projection.run_once(5, |_| Err("one of these")).is_err());
    let mut taken = Vec::new();
    while projection
        .run_once(1, |events| {
            taken.push(events.len());
            Ok::<_, ()>(())
        })
        .unwrap()
        > 0
    {}
    assert_eq!(taken, [1; 5]);
}

/// The foreign store is a list and the position beside it.
#[test]
fn a_foreign_store_goes_on_from_its_own_position() {
    let machine = Machine::new(Durability::Disk);
    (0..9).for_each(|event| machine.append(&format!("s{}", event % 2), event));
    let (mut read_model, mut stands): (Vec<String>, Option<Position>) = (Vec::new(), None);
    for lag in [5, 1, 0] {
        let mut projection = machine.orders.projection_from(stands).unwrap();
        let failed = projection.run_once(4, |events| Err(events.len()));
        assert!(matches!(failed, Err(ProjectionError::Event { source: 4 | 1, .. })));
        let taken = projection.run_once(9, |events| {
            read_model.extend(events.iter().map(|event| String::from_utf8(event.payload().to_vec()).unwrap()));
            stands = events.last().map(LogMessage::position);
            Ok::<_, ()>(())
        });
        assert_eq!(taken.unwrap(), if lag == 0 { 1 } else { 4 });
        let status = projection.status().unwrap();
        assert_eq!((status.position, status.lag), (stands, lag));
    }
    assert_eq!(read_model, texts(&machine.orders));
}

#[test]
#[allow(clippy::result_large_err, reason = "a runner within a transaction is tried once, here")]
fn bad_input_is_told() {
    let machine = Machine::new(Durability::Os);
    for batch in [0, 10_001] {
        let wrong = machine.orders.projection("p").batch(batch).open();
        assert!(matches!(wrong.err().unwrap(), Error::InvalidOption { option: "batch", .. }));
    }
    assert!(matches!(machine.orders.projection("").open().err().unwrap(), Error::InvalidName { .. }));
    machine.append("a", 1);
    machine.mails.publish("x").unwrap();
    let mut mailer = machine.orders.projection("mailer").open().unwrap();
    let inside = machine.store.transaction(|_| mailer.run_once(mail(&machine.mails)));
    assert!(matches!(inside.err().unwrap(), ProjectionError::Store(Error::InvalidTransaction { .. })));
    mailer.run_once(mail(&machine.mails)).unwrap();
    let other = machine.mails.projection("mailer").open().unwrap();
    assert!(matches!(other.status().unwrap_err(), Error::InvalidPosition { .. }), "a cursor of another topic");
    machine.store.remove_topic("orders").unwrap();
    let gone = mailer.run_once(mail(&machine.mails)).unwrap_err();
    assert!(matches!(gone, ProjectionError::Store(Error::Removed { .. })), "{gone:?}");
    assert_eq!(gone.to_string(), Error::Removed { what: "topic" }.to_string());
}

#[test]
fn a_runner_that_has_caught_up_is_told_of_a_rebuild() {
    let machine = Machine::new(Durability::Os);
    (0..3).for_each(|event| machine.append("a", event));
    let mut one = machine.orders.projection("mailer").open().unwrap();
    assert_eq!(one.run_once(mail(&machine.mails)).unwrap(), 3);
    assert_eq!(one.run_once(mail(&machine.mails)).unwrap(), 0);
    machine.orders.projection("mailer").open().unwrap().rebuild().unwrap();
    let told = one.run_once(mail(&machine.mails));
    assert!(matches!(told, Err(ProjectionError::Store(Error::CursorMoved { name })) if name == "mailer"));
    assert_eq!(one.run_once(mail(&machine.mails)).unwrap(), 3, "it begins anew");
}

/// Names of cursors are of the store: what another topic, or a value, has under the name is not thrown away.
#[test]
fn a_rebuild_leaves_what_others_have_under_its_name() {
    let machine = Machine::new(Durability::Os);
    machine.append("a", 0);
    let mut mailer = machine.orders.projection("mailer").open().unwrap();
    assert_eq!(mailer.run_once(mail(&machine.mails)).unwrap(), 1);
    let mut other = machine.mails.projection("mailer").open().unwrap();
    assert!(matches!(other.rebuild(), Err(Error::InvalidPosition { fault: PositionFault::OtherTopic, .. })));
    assert!(matches!(machine.mails.cursor("mailer").unwrap().remove(), Err(Error::InvalidPosition { .. })));
    assert_eq!(mailer.status().unwrap().lag, 0);
    machine.store.cursor("value").unwrap().set(None, "hello").unwrap();
    assert!(matches!(machine.mails.projection("value").open().unwrap().rebuild(), Err(Error::InvalidOption { .. })));
    assert_eq!(machine.store.cursor("value").unwrap().get().unwrap().as_deref(), Some(&b"hello"[..]));
    // One that stands in a topic that is gone belongs to nobody.
    machine.store.remove_topic("orders").unwrap();
    other.rebuild().unwrap();
    assert_eq!(machine.store.cursor("mailer").unwrap().get().unwrap(), None);
}

/// Where a batch is refused each of its events is tried alone, once. Appends to one stream are no reason to.
#[test]
fn a_refused_batch_is_not_tried_again_whole() {
    let machine = Machine::new(Durability::Os);
    (0..40).for_each(|event| machine.append("a", event));
    let sums = machine.store.topic("sums").streams().open().unwrap();
    let mut summer = machine.orders.projection("summer").batch(20).open().unwrap();
    let last = machine.store.cursor("last").unwrap();
    let (mut calls, mut count) = (0, 0);
    while count < 40 {
        count += summer
            .run_once(|tx, event| {
                calls += 1;
                // Which stream it is can depend on the event.
                let sum = sums.stream(event.key().unwrap_or(b"none"))?;
                tx.append(&sum, Expected::Any, [event.payload()])?;
                // From the twentieth event on each sets the same cursor.
                let sets = event.payload().len() == 2 && event.payload() >= b"20".as_slice();
                if sets { tx.set_cursor(&last, last.get()?.as_deref(), event.payload()) } else { Ok(()) }
            })
            .unwrap();
    }
    assert_eq!(sums.stream("a").unwrap().last_version().unwrap(), Some(39));
    assert_eq!(calls, 20 + 20 + 20, "each batch once, and each event of the second");
}
