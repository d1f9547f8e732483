//! Streams of events on a simulated disk: numbering, expectations, reading, truncation, transactions, and an index that is as old or as
//! broken as a crash may leave it (G19).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use millpond::simulation::WallMs;
use millpond::simulation::{IndexOutcome, PowerOutcome, Rng, SimClock, SimDisk, SimIndexHome};
use millpond::{Durability, Error, ErrorKind, Event, Expected, IndexKind, Message, Retention, Store, Stream, Topic};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A store that can crash with its index.
struct World {
    disk: SimDisk,
    clock: Arc<SimClock>,
    index: SimIndexHome,
    level: Durability,
    /// How many snapshots of a stream.
    kept: u32,
    store: Store,
    orders: Topic,
}

fn open(
    disk: &SimDisk,
    clock: &Arc<SimClock>,
    index: &SimIndexHome,
    (level, kept): (Durability, u32),
) -> (Store, Topic) {
    let options = Store::options().durability(level).segment_bytes_max(64 << 10).index_home(index.clone());
    let disk = Arc::new(disk.attach().expect("nobody has it"));
    let store = options.open_on(disk, Arc::clone(clock) as _).expect("it opens");
    let orders = store.topic("orders").streams().partitions(3).snapshots_kept(kept).open().expect("it opens");
    (store, orders)
}

impl World {
    fn new(level: Durability) -> Self {
        Self::keeping(level, 1)
    }

    fn keeping(level: Durability, kept: u32) -> Self {
        let (disk, clock) = (SimDisk::new(1), Arc::new(SimClock::new(WallMs(1_800_000_000_000))));
        let index = SimIndexHome::default();
        let (store, orders) = open(&disk, &clock, &index, (level, kept));
        Self { disk, clock, index, level, kept, store, orders }
    }

    fn reopen(&mut self) {
        (self.store, self.orders) = open(&self.disk, &self.clock, &self.index, (self.level, self.kept));
    }

    fn close(&mut self) {
        self.store.close().expect("it closes");
        self.reopen();
    }

    /// The process dies. The index comes back as `outcome` says.
    fn crash(&mut self, outcome: IndexOutcome) {
        self.disk.crash_process();
        self.index.crash(outcome);
        self.reopen();
    }

    fn stream(&self, key: &str) -> Stream {
        self.orders.stream(key).expect("the topic has streams")
    }
}

fn payloads(events: &[Event]) -> Vec<String> {
    events.iter().map(|event| String::from_utf8(event.payload().to_vec()).unwrap()).collect()
}

fn versions(events: &[Event]) -> Vec<u64> {
    events.iter().map(Event::version).collect()
}

#[track_caller]
fn wrong(done: Result<millpond::StreamReceipt, Error>, version: Option<u64>) {
    match done {
        Err(error @ Error::WrongVersion { actual, .. }) => {
            assert_eq!((actual, error.kind()), (version, ErrorKind::Conflict));
        }
        Err(error) => panic!("{error}"),
        Ok(receipt) => panic!("it has version {}", receipt.first_version()),
    }
}

#[test]
fn events_are_numbered_and_expected() {
    let world = World::new(Durability::Os);
    let order = world.stream("order-42");
    assert_eq!((order.last_version().unwrap(), order.first_version().unwrap()), (None, None));
    wrong(order.append(Expected::Exists, ["no"]), None);
    wrong(order.append(Expected::Version(0), ["no"]), None);
    let placed = order.append(Expected::NoStream, ["placed", "paid"]).unwrap();
    assert_eq!((placed.first_version(), placed.last_version(), placed.is_repeat()), (0, 1, false));
    wrong(order.append(Expected::NoStream, ["no"]), Some(1));
    wrong(order.append(Expected::Version(0), ["no"]), Some(1));
    wrong(order.append(Expected::Version(u64::MAX), ["no"]), Some(1));
    assert_eq!(order.append(Expected::Version(1), ["sent"]).unwrap().first_version(), 2);
    assert_eq!(order.append(Expected::Any, ["a", "b"]).unwrap().last_version(), 4);
    assert_eq!(order.append(Expected::Exists, ["c"]).unwrap().last_version(), 5);
    assert_eq!(world.stream("other").append(Expected::Any, ["x"]).unwrap().first_version(), 0, "each has its own");

    let all = order.read(0, 100).unwrap();
    assert_eq!(payloads(&all), ["placed", "paid", "sent", "a", "b", "c"]);
    assert_eq!(versions(&all), [0, 1, 2, 3, 4, 5]);
    assert_eq!(all[1].id(), placed.ids()[1]);
    assert_eq!(versions(&order.read(1, 3).unwrap()), [1, 2, 3]);
    assert_eq!(versions(&order.read(6, 3).unwrap()), []);
    assert_eq!(versions(&order.read(u64::MAX, 3).unwrap()), []);
    assert_eq!(versions(&order.read(0, 0).unwrap()), []);
    assert_eq!(versions(&order.read_back(u64::MAX, 2).unwrap()), [5, 4]);
    assert_eq!(versions(&order.read_back(1, 9).unwrap()), [1, 0]);
}

/// G19: an append is its publication.
#[test]
fn groups_get_the_events_in_order() {
    let world = World::new(Durability::Disk);
    let kitchen = world.orders.group("kitchen").open().unwrap();
    let order = world.stream("order-42");
    order.append(Expected::NoStream, ["placed", "paid"]).unwrap();
    order.append(Expected::Version(1), ["sent"]).unwrap();
    for expected in ["placed", "paid", "sent"] {
        let delivery = kitchen.receive(Duration::ZERO).unwrap().expect("it is there");
        assert_eq!((delivery.payload(), delivery.key()), (expected.as_bytes(), Some(&b"order-42"[..])));
        delivery.ack().unwrap();
    }
    assert!(kitchen.receive(Duration::ZERO).unwrap().is_none());
    assert_eq!(order.read(0, 9).unwrap().len(), 3, "and they stay");
}

#[test]
fn what_is_below_a_truncation_is_gone_and_versions_go_on() {
    let mut world = World::new(Durability::Os);
    let order = world.stream("o");
    order.append(Expected::Any, ["0", "1", "2", "3"]).unwrap();
    order.truncate_before(2).unwrap();
    order.truncate_before(1).unwrap();
    for _ in 0..2 {
        let order = world.stream("o");
        assert_eq!((order.first_version().unwrap(), order.last_version().unwrap()), (Some(2), Some(3)));
        assert_eq!(versions(&order.read(0, 9).unwrap()), [2, 3]);
        assert_eq!(versions(&order.read_back(u64::MAX, 9).unwrap()), [3, 2]);
        world.crash(IndexOutcome::Empty);
    }
    let order = world.stream("o");
    wrong(order.append(Expected::Version(1), ["no"]), Some(3));
    order.delete().unwrap();
    order.delete().unwrap();
    for outcome in [IndexOutcome::Empty, IndexOutcome::Prefix(0), IndexOutcome::Prefix(99)] {
        let order = world.stream("o");
        assert_eq!((order.last_version().unwrap(), order.read(0, 9).unwrap().len()), (None, 0));
        wrong(order.append(Expected::Version(3), ["no"]), None);
        wrong(order.append(Expected::Exists, ["no"]), None);
        world.crash(outcome);
    }
    let order = world.stream("o");
    assert_eq!(order.append(Expected::NoStream, ["4"]).unwrap().first_version(), 4, "G19: no version comes twice");
    assert_eq!(versions(&order.read(0, 9).unwrap()), [4]);
}

/// Partitions are never numbered twice, so what the index has of a topic that was removed is never read.
#[test]
fn a_topic_of_the_name_of_a_removed_one_begins_anew() {
    let mut world = World::new(Durability::Os);
    let order = world.stream("o");
    order.append(Expected::Any, ["0", "1"]).unwrap();
    order.save_snapshot(1, "of the old").unwrap();
    (0..2).for_each(|_| world.store.tick().unwrap());
    world.store.remove_topic("orders").unwrap();
    for outcome in [IndexOutcome::Prefix(99), IndexOutcome::Prefix(0), IndexOutcome::Empty] {
        world.crash(outcome);
        assert_eq!((world.stream("o").last_version().unwrap(), saved(&world.stream("o"))), (None, None));
    }
    assert_eq!(world.stream("o").append(Expected::NoStream, ["0"]).unwrap().first_version(), 0);
}

/// More is truncated than a read asks for, and the index knows it or does not.
#[test]
fn reading_begins_behind_a_long_truncation() {
    let world = World::new(Durability::Os);
    let order = world.stream("o");
    for version in 0..50 {
        order.append(Expected::Any, [version.to_string()]).unwrap();
    }
    world.store.tick().unwrap();
    for first in [20, 30] {
        order.truncate_before(first).unwrap();
        assert_eq!(versions(&order.read(0, 3).unwrap()), [first, first + 1, first + 2]);
        world.store.tick().unwrap();
        world.store.tick().unwrap();
        assert_eq!(versions(&order.read(0, 3).unwrap()), [first, first + 1, first + 2]);
        assert_eq!(versions(&order.read(first + 5, 2).unwrap()), [first + 5, first + 6]);
    }
}

/// A log that lost its beginning, as that of a queue does, can still be followed.
#[test]
fn streams_begin_in_a_store_whose_log_has_no_beginning() {
    let world = World::new(Durability::Os);
    let queue = world.store.topic("queue").open().unwrap();
    let workers = queue.group("workers").open().unwrap();
    for _ in 0..400 {
        queue.publish(vec![7; 1_000]).unwrap();
        workers.receive(Duration::ZERO).unwrap().expect("it is there").ack().unwrap();
        world.store.tick().unwrap();
    }
    for _ in 0..3 {
        world.store.checkpoint().unwrap();
        queue.publish("x").unwrap();
        world.store.tick().unwrap();
    }
    world.stream("o").append(Expected::NoStream, ["0"]).unwrap();
    assert_eq!(world.stream("o").read(0, 9).unwrap().len(), 1);
}

/// The stream and the number of the event that a conflict names.
fn refused(error: &Error) -> Option<(&str, u32)> {
    let Error::DedupConflict { event, .. } = error else { return None };
    event.as_ref().map(|event| (event.stream.as_str(), event.number))
}

#[test]
fn a_repeated_append_changes_nothing() {
    let mut world = World::new(Durability::Disk);
    let events = || [Message::new("placed").dedup_id("e1"), Message::new("paid").dedup_id("e2")];
    let first = world.stream("o").append(Expected::NoStream, events()).unwrap();
    world.stream("o").append(Expected::Any, ["sent"]).unwrap();
    world.crash(IndexOutcome::Empty);
    let again = world.stream("o").append(Expected::NoStream, events()).unwrap();
    assert!(again.is_repeat());
    assert_eq!((again.ids(), again.first_version(), again.last_version()), (first.ids(), 0, 1));
    let part = world
        .stream("o")
        .append(Expected::Any, [Message::new("paid").dedup_id("e2"), Message::new("x").dedup_id("e3")]);
    let part = part.err().unwrap();
    assert!(matches!(&part, Error::DedupConflict { first: id, .. } if *id == first.ids()[1]));
    assert_eq!(refused(&part), Some(("o", 0)), "{part}");
    // Events of two appends are no append, and neither is what was published.
    let two = world.stream("p");
    two.append(Expected::Any, [Message::new("x").dedup_id("f1")]).unwrap();
    two.append(Expected::Any, [Message::new("y").dedup_id("f2")]).unwrap();
    let both = two.append(Expected::Any, [Message::new("x").dedup_id("f1"), Message::new("y").dedup_id("f2")]);
    assert!(matches!(both, Err(Error::DedupConflict { .. })));
    world.orders.publish(Message::new("z").key("p").dedup_id("f3")).unwrap();
    let published = two.append(Expected::Any, [Message::new("z").dedup_id("f3")]);
    assert!(matches!(published, Err(Error::DedupConflict { .. })));
    let doubled = two.append(Expected::Any, [Message::new("w").dedup_id("f4"), Message::new("w").dedup_id("f4")]);
    assert!(matches!(doubled, Err(Error::InvalidOption { option: "dedup_id", .. })));
    let other = world.stream("o").append(Expected::Any, [Message::new("other").dedup_id("e1")]);
    assert!(matches!(other, Err(Error::DedupConflict { .. })));
    wrong(world.stream("o").append(Expected::NoStream, [Message::new("new").dedup_id("e4")]), Some(2));
    let now = world.stream("o").append(Expected::Version(2), [Message::new("new").dedup_id("e4")]).unwrap();
    assert!(!now.is_repeat(), "an id of an append that was rejected was not accepted");
    assert_eq!(payloads(&world.stream("o").read(0, 9).unwrap()), ["placed", "paid", "sent", "new"]);
}

#[test]
fn a_transaction_appends_with_all_else_or_not_at_all() {
    let mut world = World::new(Durability::Os);
    let mails = world.store.topic("mails").open().unwrap();
    let (a, b) = (world.stream("a"), world.stream("b"));
    a.append(Expected::Any, ["0"]).unwrap();
    let done = world.store.transaction(|tx| {
        tx.publish(&world.orders, Message::new("plain").key("a"))?;
        tx.append(&a, Expected::Version(0), [Message::new("1").dedup_id("i"), Message::new("2").dedup_id("j")])?;
        tx.append(&b, Expected::NoStream, ["x"])?;
        tx.append(&a, Expected::Version(2), ["3"])?;
        tx.append(&a, Expected::Any, ["4", "5"])?;
        tx.publish(&mails, "mail")
    });
    let done = done.unwrap();
    assert_eq!((done.versions(&a), done.versions(&b), done.ids().len()), (Some(1..6), Some(0..1), 2));
    for nth in 0..3 {
        let failed = world.store.transaction(|tx| {
            tx.publish(&mails, "no")?;
            match nth {
                0 => tx.append(&a, Expected::Version(1), ["no"])?,
                // The second goes by what the first adds.
                1 => {
                    tx.append(&a, Expected::Version(5), ["no", "no"])?;
                    tx.append(&a, Expected::Version(6), ["no"])?;
                }
                _ => {
                    tx.append(&a, Expected::Any, ["no"])?;
                    tx.append(&b, Expected::Any, [Message::new("0").dedup_id("h"), Message::new("1").dedup_id("i")])?;
                }
            }
            Ok::<_, Error>(())
        });
        match (nth, failed.err().unwrap()) {
            (2, error @ Error::DedupConflict { .. }) => assert_eq!(refused(&error), Some(("b", 1)), "{error}"),
            (0, Error::WrongVersion { actual: Some(5), expected: Expected::Version(1), .. })
            | (1, Error::WrongVersion { actual: Some(7), expected: Expected::Version(6), .. }) => {}
            (_, error) => panic!("{nth}: {error}"),
        }
    }
    // Two appends to new streams of one topic under one id are told, not written.
    let doubled = world.store.transaction(|tx| {
        tx.append(&a, Expected::Any, [Message::new("3").dedup_id("same")])?;
        tx.append(&b, Expected::Any, [Message::new("3").dedup_id("same")])
    });
    let told = doubled.err().unwrap();
    assert!(
        matches!(&told, Error::InvalidTransaction { reason } if reason.ends_with("event 0 of stream \"b\"")),
        "{told}"
    );
    world.crash(IndexOutcome::Empty);
    let (a, b) = (world.stream("a"), world.stream("b"));
    assert_eq!(payloads(&a.read(0, 9).unwrap()), ["0", "1", "2", "3", "4", "5"], "what was published is no event");
    assert_eq!(payloads(&b.read(0, 9).unwrap()), ["x"]);
    assert!(
        a.append(Expected::Any, [Message::new("1").dedup_id("i"), Message::new("2").dedup_id("j")])
            .unwrap()
            .is_repeat()
    );
    assert_eq!(world.store.violations(), Vec::<String>::new());
}

fn saved(stream: &Stream) -> Option<(u64, String)> {
    let snapshot = stream.snapshot().unwrap()?;
    Some((snapshot.version(), String::from_utf8(snapshot.payload().to_vec()).unwrap()))
}

#[track_caller]
fn no_such_version(done: Result<(), Error>, of: u64, last: Option<u64>) {
    match done {
        Err(error @ Error::NoSuchVersion { version, actual, .. }) => {
            assert_eq!((version, actual, error.kind()), (of, last, ErrorKind::Conflict));
        }
        Err(error) => panic!("{error}"),
        Ok(()) => panic!("it was saved"),
    }
}

/// G19: the latest snapshot is found again, whatever became of the index.
#[test]
fn a_snapshot_is_found_again_without_the_index() {
    let mut world = World::new(Durability::Os);
    let order = world.stream("o");
    no_such_version(order.save_snapshot(0, "no"), 0, None);
    assert_eq!(saved(&order), None);
    order.append(Expected::Any, ["0", "1", "2", "3"]).unwrap();
    no_such_version(order.save_snapshot(4, "no"), 4, Some(3));
    no_such_version(order.save_snapshot(u64::MAX, "no"), u64::MAX, Some(3));
    order.save_snapshot(2, "after 2").unwrap();
    order.save_snapshot(1, "after 1").unwrap();
    assert_eq!(saved(&order), Some((2, "after 2".to_owned())), "that of the highest version");
    order.save_snapshot(2, "").unwrap();
    order.save_snapshot(2, "after 2, again").unwrap();
    world.store.tick().unwrap();
    for outcome in [IndexOutcome::Empty, IndexOutcome::Prefix(0), IndexOutcome::Prefix(99), IndexOutcome::Empty] {
        let order = world.stream("o");
        assert_eq!(saved(&order), Some((2, "after 2, again".to_owned())));
        assert_eq!(saved(&world.stream("other")), None);
        assert!(order.snapshot().unwrap().unwrap().timestamp() > std::time::UNIX_EPOCH);
        assert!(order.snapshot_upto(1).unwrap().is_none(), "one is kept");
        world.crash(outcome);
    }
    let order = world.stream("o");
    order.truncate_before(3).unwrap();
    no_such_version(order.save_snapshot(2, "no"), 2, Some(3));
    for _ in 0..2 {
        assert_eq!(saved(&world.stream("o")), Some((2, "after 2, again".to_owned())), "truncation leaves it");
        world.crash(IndexOutcome::Empty);
    }
    world.stream("o").delete().unwrap();
    for _ in 0..2 {
        assert_eq!(saved(&world.stream("o")), None, "it is gone with the stream");
        no_such_version(world.stream("o").save_snapshot(3, "late"), 3, None);
        world.store.tick().unwrap();
        world.crash(IndexOutcome::Empty);
    }
    world.stream("o").append(Expected::NoStream, ["4"]).unwrap();
    assert_eq!(saved(&world.stream("o")), None);
    world.stream("o").save_snapshot(4, "after 4").unwrap();
    assert_eq!(saved(&world.stream("o")), Some((4, "after 4".to_owned())));
}

/// A snapshot is a message of nobody, and as large as one.
#[test]
fn snapshots_are_published_to_nobody() {
    let world = World::new(Durability::Os);
    let group = world.orders.group("g").open().unwrap();
    let order = world.stream("o");
    order.append(Expected::Any, ["0"]).unwrap();
    order.save_snapshot(0, vec![7; 30_000]).unwrap();
    assert_eq!(order.snapshot().unwrap().unwrap().payload().len(), 30_000);
    let long = order.save_snapshot(0, vec![7; 17 << 20]);
    assert!(matches!(long, Err(Error::TooLarge { what: "message", .. })), "{long:?}");
    assert_eq!(group.receive(Duration::ZERO).unwrap().map(|delivery| delivery.payload().len()), Some(1));
    assert!(group.receive(Duration::ZERO).unwrap().is_none());
    let mut reader = world.orders.reader().open().unwrap();
    assert!(reader.try_next().unwrap().is_some() && reader.try_next().unwrap().is_none());
    assert_eq!(order.read(0, 9).unwrap().len(), 1);
    for kept in [0, 1_001] {
        let wrong = world.store.topic("x").streams().snapshots_kept(kept).open();
        assert!(matches!(wrong, Err(Error::InvalidOption { option: "snapshots_kept", .. })));
    }
}

/// G19, G18: a snapshot may be of an event that its transaction appends; all of that is there, or nothing.
#[test]
fn a_transaction_saves_a_snapshot_of_what_it_appends() {
    let mut world = World::new(Durability::Os);
    let (a, b) = (world.stream("a"), world.stream("b"));
    let done = world.store.transaction(|tx| {
        tx.save_snapshot(&a, 1, "a1")?;
        tx.append(&a, Expected::NoStream, ["0", "1"])?;
        tx.append(&b, Expected::NoStream, ["0"])?;
        tx.save_snapshot(&b, 0, "b0")
    });
    done.unwrap();
    let failed = world.store.transaction(|tx| {
        tx.append(&b, Expected::Any, ["no"])?;
        tx.save_snapshot(&a, 2, "no")?;
        Ok::<_, Error>(())
    });
    no_such_version(failed.map(drop), 2, Some(1));
    world.crash(IndexOutcome::Empty);
    assert_eq!(saved(&world.stream("a")), Some((1, "a1".to_owned())));
    assert_eq!(saved(&world.stream("b")), Some((0, "b0".to_owned())));
    assert_eq!(world.stream("b").last_version().unwrap(), Some(0));
    assert_eq!(world.store.violations(), Vec::<String>::new());
}

/// G19, G4: in a store opened at `Disk` a snapshot is shown once it is durable, and so is a deletion.
#[test]
fn a_snapshot_that_is_told_is_durable() {
    let mut world = World::new(Durability::Disk);
    let order = world.orders.with_durability(Durability::Os).stream("o").unwrap();
    order.append(Expected::NoStream, ["0"]).unwrap();
    order.save_snapshot(0, "soon").unwrap();
    assert_eq!(saved(&order), None, "it is not durable");
    world.stream("o").save_snapshot(0, "now").unwrap();
    world.disk.crash_power(PowerOutcome::LoseAll);
    world.index.crash(IndexOutcome::Prefix(0));
    world.reopen();
    assert_eq!(saved(&world.stream("o")), Some((0, "now".to_owned())), "G1: it was saved at Disk");
}

/// Truncations and snapshots stay while all beside them in their segments goes.
#[test]
fn what_is_said_of_streams_outlives_its_neighbors() {
    let mut world = World::new(Durability::Os);
    let (kept, deleted) = (world.stream("kept"), world.stream("deleted"));
    kept.append(Expected::Any, ["0", "1", "2"]).unwrap();
    deleted.append(Expected::Any, ["0", "1"]).unwrap();
    let queue = world.store.topic("queue").open().unwrap();
    let workers = queue.group("workers").open().unwrap();
    let work = || {
        for _ in 0..200 {
            queue.publish(vec![7; 1_000]).unwrap();
            workers.receive(Duration::ZERO).unwrap().expect("it is there").ack().unwrap();
        }
        world.store.checkpoint().unwrap();
        world.store.tick().unwrap();
    };
    work();
    kept.save_snapshot(1, "after 1").unwrap();
    work();
    deleted.delete().unwrap();
    kept.truncate_before(1).unwrap();
    let segments = || world.disk.files().into_iter().filter(|file| file.name.ends_with(".seg")).count();
    (0..4).for_each(|_| work());
    assert!(segments() < 10, "{} of the about 20 segments are there", segments());
    drop((kept, deleted, workers, queue));
    for outcome in [IndexOutcome::Prefix(0), IndexOutcome::Empty] {
        world.crash(outcome);
        assert_eq!(saved(&world.stream("kept")), Some((1, "after 1".to_owned())));
        assert_eq!(world.stream("kept").first_version().unwrap(), Some(1));
        assert_eq!(world.stream("deleted").last_version().unwrap(), None);
    }
}

/// G19, G4: an answer that names what another call appended is given once that is durable.
#[test]
fn what_is_told_is_durable() {
    let mut world = World::new(Durability::Disk);
    let order = world.orders.with_durability(Durability::Os).stream("o").unwrap();
    order.append(Expected::NoStream, ["0"]).unwrap();
    assert_eq!(versions(&order.read(0, 9).unwrap()), [], "it is not durable");
    wrong(order.append(Expected::NoStream, ["no"]), Some(0));
    assert_eq!(versions(&order.read(0, 9).unwrap()), [0], "now it is");
    order.append(Expected::Any, ["1"]).unwrap();
    assert_eq!(versions(&order.read_back(u64::MAX, 1).unwrap()), [0], "the newest that may be seen");
    assert_eq!(order.last_version().unwrap(), Some(1));
    drop(order);
    world.disk.crash_power(PowerOutcome::LoseAll);
    world.index.crash(IndexOutcome::Prefix(0));
    world.reopen();
    assert_eq!(world.stream("o").last_version().unwrap(), Some(1), "G4: it was told");
    world.stream("o").append(Expected::Version(1), ["2"]).unwrap();
    world.disk.crash_power(PowerOutcome::LoseAll);
    world.reopen();
    assert_eq!(world.stream("o").last_version().unwrap(), Some(2), "G1: it was appended at Disk");
}

/// Whatever the index comes back as, it says what the log says.
#[test]
fn any_index_gives_the_same_answers() {
    let mut rng = Rng::new(7);
    for round in 0..60 {
        let level = if rng.coin() { Durability::Os } else { Durability::Disk };
        let mut world = World::keeping(level, 2);
        let mut model: Vec<(u64, Vec<String>, BTreeMap<u64, String>)> = vec![Default::default(); 5];
        for life in 0..6 {
            for step in 0..rng.below(120) {
                let which = rng.index(model.len());
                let stream = world.stream(&format!("s{which}"));
                let (first, events, snapshots) = &mut model[which];
                match rng.below(10) {
                    0 => {
                        let to = rng.below(events.len() as u64 + 3);
                        stream.truncate_before(to).unwrap();
                        *first = (*first).max(to.min(events.len() as u64));
                        if *first == events.len() as u64 {
                            snapshots.clear();
                        }
                    }
                    3 => {
                        let version = rng.below(events.len() as u64 + 2);
                        let payload = format!("{round}.{life}.{step}");
                        let is_there = (*first..events.len() as u64).contains(&version);
                        match stream.save_snapshot(version, &payload) {
                            Ok(()) if is_there => drop(snapshots.insert(version, payload)),
                            Err(Error::NoSuchVersion { .. }) if !is_there => {}
                            done => {
                                panic!("round {round}, life {life}: {version} of {first}..{}: {done:?}", events.len())
                            }
                        }
                        // Two are kept.
                        snapshots.len().checked_sub(2).into_iter().for_each(|more| {
                            (0..more).for_each(|_| drop(snapshots.pop_first()));
                        });
                    }
                    1 => world.store.tick().unwrap(),
                    2 => drop(world.store.topic("noise").open().unwrap().publish(vec![0; 900]).unwrap()),
                    _ => {
                        let count = 1 + rng.below(3);
                        let batch: Vec<_> = (0..count).map(|n| format!("{round}.{life}.{step}.{n}")).collect();
                        let last = (events.len() as u64).checked_sub(1).filter(|last| last >= first);
                        let expected = match (rng.below(3), last) {
                            (0, _) => Expected::Any,
                            (_, Some(last)) => Expected::Version(last),
                            (_, None) => Expected::NoStream,
                        };
                        let receipt = stream.append(expected, batch.iter().map(String::as_str)).unwrap();
                        assert_eq!(receipt.first_version(), events.len() as u64, "round {round}, life {life}: G19");
                        events.extend(batch);
                    }
                }
            }
            for (which, (first, events, snapshots)) in model.iter().enumerate() {
                let read = world.stream(&format!("s{which}")).read(0, 1_000).unwrap();
                if level == Durability::Os || read.len() == events.len() - *first as usize {
                    assert_eq!(payloads(&read), events[*first as usize..], "round {round}, life {life}");
                }
                let back = world.stream(&format!("s{which}")).read_back(u64::MAX, 3).unwrap();
                assert!(back.is_sorted_by(|one, other| one.version() == other.version() + 1));
                if level == Durability::Os {
                    let stream = world.stream(&format!("s{which}"));
                    let newest = snapshots.last_key_value().map(|(version, payload)| (*version, payload.clone()));
                    assert_eq!(saved(&stream), newest, "round {round}, life {life}");
                    let before = newest.and_then(|(version, _)| version.checked_sub(1));
                    let older = before.and_then(|version| stream.snapshot_upto(version).unwrap());
                    let second = snapshots.keys().rev().nth(1).copied();
                    assert_eq!(older.map(|older| older.version()), second, "round {round}, life {life}");
                }
            }
            match rng.below(4) {
                0 => world.close(),
                _ => world.crash(IndexOutcome::drawn(rng.below(u64::MAX))),
            }
        }
    }
}

#[test]
fn bad_input_is_told_and_changes_nothing() {
    let world = World::new(Durability::Os);
    let plain = world.store.topic("plain").open().unwrap();
    assert!(matches!(plain.stream("o"), Err(Error::InvalidOption { option: "streams", .. })));
    assert!(matches!(world.orders.stream(""), Err(Error::InvalidOption { option: "key", .. })));
    assert!(matches!(world.orders.stream(vec![1; (64 << 10) + 1]), Err(Error::TooLarge { what: "key", .. })));
    let long = world.orders.stream(vec![1; 64 << 10]).unwrap();
    long.append(Expected::NoStream, ["0"]).unwrap();
    assert_eq!(long.read(0, 9).unwrap().len(), 1);
    let order = world.stream("o");
    let none: [&str; 0] = [];
    assert!(matches!(order.append(Expected::Any, none), Err(Error::InvalidOption { option: "events", .. })));
    assert!(order.append(Expected::Any, [Message::new("x").key("other")]).is_err());
    assert!(order.append(Expected::Any, [Message::new("x").partition(1)]).is_err());
    assert_eq!(order.last_version().unwrap(), None);
    let kept = world.store.topic("s").streams().retention(Retention::UntilSettled).open();
    assert!(matches!(kept, Err(Error::InvalidOption { option: "retention", .. })));
    assert!(matches!(world.store.topic("plain").streams().open(), Err(Error::OptionMismatch { .. })));
    match world.store.topic("of none").snapshots_kept(2).open() {
        Err(Error::InvalidOption { option: "snapshots_kept", expected, .. }) => assert!(expected.contains("streams")),
        other => panic!("no streams, no snapshots: {other:?}"),
    }
    assert!(matches!(world.store.topic("of none").create(false).open(), Err(Error::NotFound { .. })));
    world.store.remove_topic("orders").unwrap();
    assert!(matches!(order.append(Expected::Any, ["x"]), Err(Error::Removed { what: "topic" })));
    assert!(matches!(order.read(0, 9), Err(Error::Removed { what: "topic" })));
    assert!(matches!(order.last_version(), Err(Error::Removed { what: "topic" })));
}

/// G19: of racing appends that expect the same version exactly one succeeds.
#[test]
fn of_racing_appends_one_wins() {
    let world = World::new(Durability::Os);
    let wins = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let order = world.stream("o");
                scope.spawn(move || {
                    let mut wins = 0u64;
                    for version in 0..200u64 {
                        let expected = version.checked_sub(1).map_or(Expected::NoStream, Expected::Version);
                        match order.append(expected, [version.to_string()]) {
                            Ok(receipt) => {
                                assert_eq!(receipt.first_version(), version);
                                wins += 1;
                            }
                            Err(Error::WrongVersion { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                    wins
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<u64>()
    });
    let events = world.stream("o").read(0, 1_000).unwrap();
    assert_eq!((events.len() as u64, wins), (200, 200));
    assert!(events.iter().all(|event| event.payload() == event.version().to_string().as_bytes()));
}

/// A store with a full disk can be emptied by those that read and append, also by the next process: an index in memory stands in for one
/// that has no room, or that can be neither used nor made anew.
#[test]
fn an_index_in_memory_stands_in() {
    for is_full in [true, false] {
        let mut world = World::new(Durability::Os);
        let consumers = world.orders.group("g").open().unwrap();
        for event in 0..20 {
            let stream = world.stream(&format!("s{}", event % 4));
            stream.append(Expected::Any, [format!("{event} with some bytes that an ack takes no more of")]).unwrap();
        }
        drop(consumers);
        world.store.sync().unwrap();
        if is_full {
            let used: u64 = world.disk.files().iter().map(|file| file.len).sum();
            world.disk.set_capacity(Some(used + (2 << 20)));
        }
        world.crash(if is_full { IndexOutcome::Empty } else { IndexOutcome::Locked });
        assert_eq!(versions(&world.stream("s1").read(0, 9).unwrap()), [0, 1, 2, 3, 4]);
        assert!(!world.index.is_open());
        let consumers = world.orders.group("g").open().unwrap();
        let done = consumers.receive(Duration::ZERO).unwrap().unwrap();
        let appended = world.store.transaction(|tx| {
            tx.ack(&done)?;
            let stream = world.orders.stream("s2")?;
            tx.append(&stream, Expected::Version(4), ["done"])
        });
        assert_eq!(appended.unwrap().versions(&world.stream("s2")), Some(5..6));
        if is_full {
            world.disk.set_capacity(None);
            world.clock.advance(1_000);
            world.store.tick().unwrap();
            assert_eq!(world.stream("s2").last_version().unwrap(), Some(5));
            assert!(world.index.is_open(), "it has its files again");
        }
    }
}

#[test]
fn the_index_of_another_store_is_closed_before_it_is_discarded() {
    let mut world = World::new(Durability::Os);
    world.stream("s").append(Expected::Any, ["a", "b"]).unwrap();
    world.close();
    world.crash(IndexOutcome::OtherInstance);
    assert_eq!(versions(&world.stream("s").read(0, 9).unwrap()), [0, 1]);
    assert!(world.index.is_open(), "nothing stands in for it");
    world.store.close().unwrap();
    assert!(!world.index.is_open(), "there is one of it");
}

/// What needs the index says that it has no room for so many streams, and changes nothing. All else goes on.
#[test]
fn a_store_of_more_streams_than_fit_into_memory_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let open = |entries_max| {
        let options = Store::options().durability(Durability::Os).index(IndexKind::Memory { entries_max });
        let store = options.open(directory.path()).unwrap();
        let orders = store.topic("orders").streams().open().unwrap();
        (store, orders)
    };
    let (store, orders) = open(100);
    let stream = |orders: &Topic, nth: u32| orders.stream(format!("s{nth}")).unwrap();
    (0..20).for_each(|nth| drop(stream(&orders, nth).append(Expected::NoStream, ["first"]).unwrap()));
    store.close().unwrap();
    let (store, orders) = open(10);
    let full =
        |error: Error| assert!(matches!(error, Error::LimitReached { what } if what.contains("memory")), "{error}");
    for nth in [0, 19, 20] {
        let stream = stream(&orders, nth);
        full(stream.append(Expected::Any, ["more"]).err().unwrap());
        full(stream.read(0, 9).err().unwrap());
        full(stream.last_version().err().unwrap());
        full(stream.delete().err().unwrap());
        full(stream.save_snapshot(0, "state").err().unwrap());
        let both = store.transaction(|tx| {
            tx.publish(&orders, "not published")?;
            tx.append(&stream, Expected::Any, ["more"])
        });
        full(both.err().unwrap());
    }
    let group = orders.group("g").open().unwrap();
    assert_eq!(orders.publish("published").unwrap().id().offset.0, 20, "nothing was appended");
    group.receive(Duration::ZERO).unwrap().unwrap().ack().unwrap();
    store.close().unwrap();
    let (_store, orders) = open(100);
    (0..20).for_each(|nth| assert_eq!(payloads(&stream(&orders, nth).read(0, 9).unwrap()), ["first"]));
    assert_eq!(stream(&orders, 20).last_version().unwrap(), None);
}

/// An index in memory is full at the first event that it has no room for. What is appended by then stays.
#[test]
fn nothing_is_appended_once_the_index_in_memory_is_full() {
    let directory = tempfile::tempdir().unwrap();
    let open = |entries_max| {
        let options = Store::options().durability(Durability::Os).index(IndexKind::Memory { entries_max });
        let store = options.open(directory.path()).unwrap();
        let orders = store.topic("orders").streams().open().unwrap();
        (store, orders)
    };
    let (store, orders) = open(10);
    let stream = |orders: &Topic, nth: u32| orders.stream(format!("s{nth}")).unwrap();
    for nth in 0..11 {
        stream(&orders, nth).append(Expected::NoStream, ["first"]).unwrap();
        store.sync().unwrap();
        store.tick().unwrap();
    }
    let full =
        |error: Error| assert!(matches!(error, Error::LimitReached { what } if what.contains("memory")), "{error}");
    full(stream(&orders, 0).append(Expected::Any, ["more"]).err().unwrap());
    full(store.transaction(|tx| tx.append(&stream(&orders, 11), Expected::Any, ["more"])).err().unwrap());
    (0..11).for_each(|nth| assert_eq!(payloads(&stream(&orders, nth).read(0, 9).unwrap()), ["first"]));
    orders.publish("published").unwrap();
    store.close().unwrap();
    let (_store, orders) = open(100);
    (0..11).for_each(|nth| assert_eq!(payloads(&stream(&orders, nth).read(0, 9).unwrap()), ["first"]));
    stream(&orders, 0).append(Expected::Version(0), ["more"]).unwrap();
}
