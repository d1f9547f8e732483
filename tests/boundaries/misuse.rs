//! What is done wrong, and what the store says to it.

use super::{Fixture, LONG, assert_error, contents, ends, group, receive};
use millpond::{Backoff, Durability, Error, Message, Start, Store};
use std::time::Duration;

#[test]
fn a_directory_has_one_store_at_a_time() {
    let fixture = Fixture::new();
    let path = fixture.path();
    fixture.topic("t").publish(Message::new("x")).unwrap();
    let link = fixture.dir.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let current = std::env::current_dir().unwrap();
    let up = "../".repeat(current.components().count());
    let relative = std::path::Path::new(&up).join(path.strip_prefix("/").unwrap());
    let dotted = path.join("..").join("store");

    // Twice, and the background jobs have nothing left to do: a segment ahead, a sync, a mark.
    fixture.store.tick().unwrap();
    fixture.store.tick().unwrap();
    let before = contents(&path);
    for alias in [&path, &link, &relative, &dotted] {
        assert_error!(Store::open(alias), Error::Locked { .. }, "store", std::process::id());
    }
    assert!(contents(&path) == before, "a refused open changed the files");

    // A clone is the same store, not a second one; the last handle that goes gives the directory free.
    let clone = fixture.store.clone();
    drop(fixture.store);
    assert_error!(Store::open(&path), Error::Locked { .. }, std::process::id());
    drop(clone);
    let store = Store::open(&link).unwrap();
    assert_eq!(ends(&store, "t"), [1]);
}

#[test]
fn a_closed_store_lets_go_of_its_directory_whatever_handles_are_left() {
    let fixture = Fixture::new();
    let topic = fixture.topic("t");
    topic.publish(Message::new("x")).unwrap();
    fixture.store.close().unwrap();
    let again = Store::open(fixture.path()).unwrap();
    assert_error!(topic.publish(Message::new("y")), Error::Closed, "closed");
    assert_error!(Store::open(fixture.path()), Error::Locked { .. }, std::process::id());
    assert_eq!(ends(&again, "t"), [1]);
}

#[test]
fn a_file_is_no_directory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a-file");
    std::fs::write(&path, "precious").unwrap();
    assert_error!(Store::open(&path), Error::NotADirectory { .. }, path.display());
    assert_error!(Store::open(path.join("below")), Error::NotADirectory { .. }, "a-file");
    assert_eq!(contents(dir.path()), [(path, b"precious".to_vec())].into());
}

#[test]
fn a_directory_of_other_things_is_no_store() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("thesis.tex"), "precious").unwrap();
    let before = contents(dir.path());
    assert_error!(Store::open(dir.path()), Error::NotAStore { .. }, dir.path().display());
    assert_eq!(contents(dir.path()), before);
}

#[test]
fn hidden_files_do_not_keep_a_directory_from_becoming_a_store() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(".DS_Store"), "clutter").unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.topic("t").open().unwrap().publish(Message::new("x")).unwrap();
    store.close().unwrap();
    assert_eq!(std::fs::read(dir.path().join(".DS_Store")).unwrap(), b"clutter");
}

#[test]
fn options_that_contradict_a_topic_are_refused() {
    let fixture = Fixture::new();
    fixture.store.topic("orders").partitions(4).open().unwrap();
    let again = fixture.store.topic("orders").partitions(5).open();
    assert_error!(again, Error::OptionMismatch { .. }, "orders", "partitions", 4, 5);
    assert_eq!(fixture.store.topic("orders").partitions(4).open().unwrap().partitions(), 4);
    let fixture = fixture.reopened();
    assert_error!(fixture.store.topic("orders").partitions(1).open(), Error::OptionMismatch { .. }, "orders", 4, 1);
    assert_eq!(fixture.store.topic("orders").open().unwrap().partitions(), 4, "none given: the stored one");
    assert_eq!(ends(&fixture.store, "orders").len(), 4);
}

#[test]
fn options_that_contradict_a_group_are_refused() {
    let fixture = Fixture::new();
    let topic = fixture.topic("orders");
    let seconds = Duration::from_secs;
    let open =
        || topic.group("kitchen").visibility_timeout(seconds(7)).max_attempts(3).max_outstanding(11).max_closes(4);
    open().backoff(Backoff::fixed(seconds(5))).open().unwrap();
    let check = || {
        let builder = || topic.group("kitchen");
        let contradiction = [
            builder().visibility_timeout(seconds(8)).open(),
            builder().max_attempts(4).open(),
            builder().max_outstanding(12).open(),
            builder().max_closes(5).open(),
            builder().backoff(Backoff::fixed(seconds(6))).open(),
        ];
        let named = [
            ("visibility_timeout", "7", "8"),
            ("max_attempts", "3", "4"),
            ("max_outstanding", "11", "12"),
            ("max_closes", "4", "5"),
            ("backoff", "5", "6"),
        ];
        for (result, (option, stored, given)) in contradiction.into_iter().zip(named) {
            assert_error!(result, Error::OptionMismatch { .. }, "kitchen", option, stored, given);
        }
        open().open().unwrap();
        builder().open().unwrap();
    };
    check();
    assert_eq!(fixture.stats().topics[0].groups.len(), 1);
}

#[test]
fn a_start_matters_only_to_a_new_group() {
    let fixture = Fixture::new();
    let topic = fixture.topic("t");
    topic.publish(Message::new("old")).unwrap();
    let group = topic.group("g").start(Start::Latest).open().unwrap();
    topic.publish(Message::new("new")).unwrap();
    let same = topic.group("g").start(Start::Earliest).open().unwrap();
    assert_eq!(receive(&same).payload(), b"new");
    assert!(group.receive(Duration::ZERO).unwrap().is_none());
    let from_one = topic.group("h").start(Start::Offset(1)).open().unwrap();
    assert_eq!(receive(&from_one).payload(), b"new");
}

#[test]
fn after_close_everything_says_so() {
    let fixture = Fixture::new();
    let topic = fixture.topic("t");
    let group = group(&topic);
    for _ in 0..3 {
        topic.publish(Message::new("x")).unwrap();
    }
    let [acked, nacked, rejected] = [receive(&group), receive(&group), receive(&group)];
    let clone = fixture.store.clone();
    fixture.store.close().unwrap();
    let before = contents(&fixture.path());

    assert_error!(topic.publish(Message::new("y")), Error::Closed, "closed");
    assert_error!(topic.publish_batch([Message::new("y")]), Error::Closed, "closed");
    assert_error!(group.receive(LONG), Error::Closed, "closed");
    assert_error!(group.receive_batch(1, LONG), Error::Closed, "closed");
    assert_error!(group.dead_letters(), Error::Closed, "closed");
    assert_error!(group.redrive_all(), Error::Closed, "closed");
    assert_error!(acked.extend(LONG), Error::Closed, "closed");
    assert_error!(acked.ack(), Error::Closed, "closed");
    assert_error!(nacked.nack("no"), Error::Closed, "closed");
    assert_error!(rejected.reject("no"), Error::Closed, "closed");
    assert_error!(clone.topic("u").open(), Error::Closed, "closed");
    assert_error!(topic.group("h").open(), Error::Closed, "closed");
    assert_error!(clone.stats(), Error::Closed, "closed");
    assert_error!(clone.sync(), Error::Closed, "closed");
    assert!(contents(&fixture.path()) == before, "a closed store changed its files");

    let fixture = fixture.reopened();
    let group = fixture.topic("t").group("group").open().unwrap();
    let ids: Vec<u32> = (0..3).map(|_| receive(&group).attempt()).collect();
    assert_eq!(ids, [1, 1, 1], "none was settled, and the close was no attempt");
}

#[test]
fn closing_wakes_whoever_waits() {
    let fixture = Fixture::new();
    let group = group(&fixture.topic("t"));
    let (started, start) = std::sync::mpsc::channel();
    let waiting = std::thread::spawn(move || {
        started.send(()).unwrap();
        group.receive(Duration::MAX)
    });
    start.recv().unwrap();
    fixture.store.close().unwrap();
    assert_error!(waiting.join().unwrap(), Error::Closed, "closed");
}

#[test]
fn whoever_lost_the_lease_settles_nothing() {
    let fixture = Fixture::new();
    let topic = fixture.topic("t");
    let timeout = Duration::from_millis(30);
    let group = topic.group("g").visibility_timeout(timeout).max_attempts(0).open().unwrap();
    for settle in ["ack", "ack_durable", "nack", "nack_after", "extend", "reject", "drop"] {
        topic.publish(Message::new(settle)).unwrap();
        let mut batch = group.receive_batch(1, LONG).unwrap().into_iter();
        let late = batch.next().unwrap();
        let id = late.id();
        // Waits until the lease has passed.
        let holder = receive(&group);
        assert_eq!((holder.id(), holder.attempt()), (id, 2));
        // The second lease may pass, too, while this test is held up: what matters is that the first settles nothing.
        match settle {
            "ack" => assert_error!(late.ack(), Error::LeaseLost { .. }, id),
            "ack_durable" => assert_error!(late.ack_durable(), Error::LeaseLost { .. }, id),
            "nack" => assert_error!(late.nack("no"), Error::LeaseLost { .. }, id),
            "nack_after" => assert_error!(late.nack_after(LONG, "no"), Error::LeaseLost { .. }, id),
            "extend" => assert_error!(late.extend(LONG), Error::LeaseLost { .. }, id),
            "reject" => assert_error!(late.reject("no"), Error::LeaseLost { .. }, id),
            _ => drop(late),
        }
        assert_eq!(group.dead_letters().unwrap().count(), 0, "{settle}");
        holder.ack().expect("the second lease is not touched by what the first does");
        assert!(group.receive(timeout * 2).unwrap().is_none(), "{settle}: it was acked");
    }
}

#[test]
fn a_batch_names_the_leases_that_it_lost() {
    let fixture = Fixture::new();
    let topic = fixture.topic("t");
    let timeout = Duration::from_millis(30);
    let group = topic.group("g").visibility_timeout(timeout).max_attempts(0).open().unwrap();
    topic.publish_batch(["a", "b", "c"].map(Message::new)).unwrap();
    let late = group.receive_batch(3, LONG).unwrap();
    let taken = receive(&group);
    assert_eq!(taken.attempt(), 2);
    let lost = late.ack().unwrap();
    assert_eq!(lost.ids, [taken.id()], "the other two go through");
    taken.ack().unwrap();
    assert!(group.receive(timeout * 2).unwrap().is_none());
}

#[test]
fn the_level_of_a_topics_handle_is_the_level_of_its_receipts() {
    for store_level in [Durability::Disk, Durability::Os] {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::options().durability(store_level).open(dir.path().join("s")).unwrap();
        let topic = store.topic("t").open().unwrap();
        let group = group(&topic);
        assert_eq!(topic.publish(Message::new("0")).unwrap().level(), store_level);

        let on_disk = topic.with_durability(Durability::Disk).publish(Message::new("1")).unwrap();
        assert_eq!(on_disk.level(), Durability::Disk);
        assert!(store.stats().unwrap().log.durable > on_disk.lsn(), "a receipt at Disk and not durable");

        let in_os = topic.with_durability(Durability::Os).publish(Message::new("2")).unwrap();
        assert_eq!(in_os.level(), Durability::Os);
        in_os.wait_durable().unwrap();
        assert!(store.stats().unwrap().log.durable > in_os.lsn());
        // In either store all three are there, in their order.
        for expected in [b"0", b"1", b"2"] {
            let delivery = group.receive(Duration::ZERO).unwrap().expect("it is durable, so it is visible");
            assert_eq!(delivery.payload(), expected);
            delivery.ack().unwrap();
        }
        assert_eq!(
            topic.publish(Message::new("3")).unwrap().level(),
            store_level,
            "the other handles stay as they are"
        );
    }
}

#[test]
fn many_receipts_wait_once() {
    let fixture = Fixture::new();
    let topic = fixture.topic("t").with_durability(Durability::Os);
    let receipts: Vec<_> = (0..1_000).map(|_| topic.publish(Message::new("x")).unwrap()).collect();
    receipts[999].wait_durable().unwrap();
    let durable = fixture.stats().log.durable;
    assert!(receipts.iter().all(|receipt| receipt.lsn() < durable));
}

/// The iterator of a batch is the caller's code: it may publish, and panic, without harm to the batch around it or after it.
#[test]
fn a_batch_may_publish_while_it_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::options().durability(Durability::Os).open(directory.path().join("store")).unwrap();
    let topic = store.topic("t").partitions(3).open().unwrap();
    let inner = topic.clone();
    let receipt = topic
        .publish_batch((0..4u8).map(|n| {
            inner.publish_batch([[10 + n], [20 + n]]).unwrap();
            Message::new([n]).partition(u32::from(2 - n % 3))
        }))
        .unwrap();
    let partitions: Vec<u64> = receipt.ids().iter().map(|id| id.partition).collect();
    assert_eq!(partitions, [2, 1, 0, 2]);
    let other = topic.clone();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        other.publish_batch((0..3u8).map(|n| [7 / (2 - n)])).map(drop)
    }));
    assert!(panicked.is_err());
    topic.publish("last").unwrap();
    let group = topic.group("g").open().unwrap();
    let batch = group.receive_batch(100, Duration::ZERO).unwrap();
    let mut found: Vec<(Vec<u8>, millpond::MessageId)> = batch.iter().map(|d| (d.payload().to_vec(), d.id())).collect();
    found.sort();
    assert_eq!(found.len(), 4 + 8 + 1);
    for (n, id) in (0..4u8).zip(receipt.ids()) {
        assert_eq!(found[usize::from(n)], (vec![n], *id), "each message has the id that its receipt says");
    }
    drop(batch.ack().unwrap());
}
