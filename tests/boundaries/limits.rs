//! Names, numbers of partitions, durations, counts.

use super::{Fixture, LONG, assert_error, contents, ends, group, receive};
use millpond::{Backoff, DeadLetter, Durability, Error, Group, Message, Store, limits};
use std::collections::BTreeSet;
use std::time::Duration;

#[test]
fn names_have_1_to_255_bytes() {
    let fixture = Fixture::new();
    let longest = "n".repeat(limits::NAME_LEN_MAX);
    // 85 signs of 3 bytes each.
    let longest_unicode = "水".repeat(limits::NAME_LEN_MAX / 3);
    let names = ["a", &longest, &longest_unicode, "Küche 🦆", "../../etc/passwd", "a/b\\c", " ", "STORE", "."];
    for name in names {
        let topic = fixture.topic(name);
        let group = topic.group(name).open().unwrap();
        topic.publish(Message::new(name)).unwrap();
        assert_eq!(receive(&group).payload(), name.as_bytes());
    }
    let fixture = fixture.reopened();
    for name in names {
        let group = fixture.topic(name).group(name).open().unwrap();
        assert_eq!(receive(&group).payload(), name.as_bytes(), "it is still there under {name:?}");
    }
    let known: BTreeSet<String> = fixture.stats().topics.into_iter().map(|topic| topic.name).collect();
    assert_eq!(known, names.iter().map(ToString::to_string).collect());
    // While the store is open its files come and go.
    fixture.store.close().unwrap();
    assert!(contents(&fixture.path()).keys().all(|path| path.parent() == Some(&fixture.path())));
}

#[test]
fn other_names_are_refused() {
    let fixture = Fixture::new();
    let topic = fixture.topic("t");
    let too_long = "n".repeat(limits::NAME_LEN_MAX + 1);
    let one_sign_too_long = "水".repeat(limits::NAME_LEN_MAX / 3 + 1);
    for (name, wrong) in [("", "empty"), (&too_long, "255"), (&one_sign_too_long, "255")] {
        assert_error!(fixture.store.topic(name).open(), Error::InvalidName { .. }, "topic", wrong);
        assert_error!(topic.group(name).open(), Error::InvalidName { .. }, "group", wrong);
    }
    let stats = fixture.stats();
    assert_eq!((stats.topics.len(), stats.topics[0].groups.len()), (1, 0));
}

#[test]
fn a_topic_has_1_to_65536_partitions() {
    let fixture = Fixture::new();
    for count in [0, limits::TOPIC_PARTITIONS_MAX + 1, u32::MAX] {
        let topic = fixture.store.topic("t").partitions(count).open();
        assert_error!(topic, Error::InvalidOption { .. }, "partitions", count);
    }
    assert_eq!(fixture.stats().topics.len(), 0);
    let topic = fixture.store.topic("wide").partitions(limits::TOPIC_PARTITIONS_MAX).open().unwrap();
    let group = group(&topic);
    let last = limits::TOPIC_PARTITIONS_MAX - 1;
    topic.publish(Message::new("last").partition(last)).unwrap();
    topic.publish(Message::new("first").partition(0)).unwrap();
    let found: BTreeSet<_> =
        [receive(&group), receive(&group)].map(|it| (it.id().partition, it.payload().to_vec())).into();
    assert_eq!(found, [(0, b"first".to_vec()), (u64::from(last), b"last".to_vec())].into());
    let fixture = fixture.reopened();
    assert_eq!(fixture.topic("wide").partitions(), limits::TOPIC_PARTITIONS_MAX);
}

#[test]
fn a_partition_that_the_topic_lacks_is_refused() {
    let fixture = Fixture::new();
    let topic = fixture.store.topic("t").partitions(4).open().unwrap();
    assert_eq!(topic.publish(Message::new("x").partition(3)).unwrap().id().partition, 3);
    assert_error!(topic.publish(Message::new("x").partition(4)), Error::InvalidOption { .. }, "partition", 4);
    assert_eq!(ends(&fixture.store, "t"), [0, 0, 0, 1]);
}

#[test]
fn one_key_always_goes_to_one_partition() {
    let fixture = Fixture::new();
    let topic = fixture.store.topic("t").partitions(16).open().unwrap();
    let partition = |key: &str| topic.publish(Message::new("x").key(key)).unwrap().id().partition;
    let keys: Vec<String> = (0..64).map(|number| format!("key {number}")).collect();
    let before: Vec<u64> = keys.iter().map(|key| partition(key)).collect();
    let after: Vec<u64> = keys.iter().map(|key| partition(key)).collect();
    assert_eq!(before, after);
    assert!(before.iter().collect::<BTreeSet<_>>().len() > 8, "64 keys crowd together: {before:?}");
}

#[test]
fn durations_are_checked_when_the_group_opens() {
    let fixture = Fixture::new();
    let topic = fixture.topic("t");
    let too_long = Duration::from_millis(limits::DURATION_MS_MAX + 1);
    for timeout in [Duration::ZERO, too_long, Duration::MAX] {
        let group = topic.group("g").visibility_timeout(timeout).open();
        assert_error!(group, Error::InvalidOption { .. }, "visibility_timeout");
    }
    for backoff in [Backoff::fixed(too_long), Backoff::exponential(Duration::MAX)] {
        assert_error!(topic.group("g").backoff(backoff).open(), Error::InvalidOption { .. }, "backoff");
    }
    for outstanding in [0, limits::OUTSTANDING_MAX + 1] {
        let group = topic.group("g").max_outstanding(outstanding).open();
        assert_error!(group, Error::InvalidOption { .. }, "max_outstanding");
    }
    let group = topic.group("g").max_closes(limits::CLOSES_MAX + 1).open();
    assert_error!(group, Error::InvalidOption { .. }, "max_closes");
    assert_eq!(fixture.stats().topics[0].groups.len(), 0, "none of them came to be");
}

#[test]
fn options_of_the_store_are_checked_before_anything_is_created() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let refused = [
        ("segment_bytes_max", Store::options().segment_bytes_max(0)),
        ("segment_bytes_max", Store::options().segment_bytes_max(limits::SEGMENT_LEN_MAX + 1)),
        ("message_bytes_max", Store::options().message_bytes_max(0)),
        ("sync_interval", Store::options().sync_interval(Duration::ZERO)),
        ("sync_interval", Store::options().sync_interval(Duration::MAX)),
    ];
    for (option, options) in refused {
        assert_error!(options.open(&path), Error::InvalidOption { .. }, option);
        assert!(!path.exists(), "nothing was created");
    }
}

#[test]
fn to_wait_for_no_time_is_to_look() {
    let fixture = Fixture::new();
    let topic = fixture.topic("t");
    let group = group(&topic);
    assert!(group.receive(Duration::ZERO).unwrap().is_none());
    assert_eq!(group.receive_batch(10, Duration::ZERO).unwrap().len(), 0);
    topic.publish(Message::new("x")).unwrap();
    assert!(group.receive(Duration::ZERO).unwrap().is_some(), "what a publish at Disk returned for is there at once");
}

#[test]
fn to_wait_for_ever_ends_with_a_message() {
    let fixture = Fixture::new();
    let topic = fixture.topic("t");
    let group = group(&topic);
    let waiting = std::thread::spawn(move || group.receive(Duration::MAX).unwrap().unwrap().payload().to_vec());
    topic.publish(Message::new("x")).unwrap();
    assert_eq!(waiting.join().unwrap(), b"x");
}

#[test]
fn a_batch_of_none_is_empty_and_a_huge_one_takes_what_there_is() {
    let fixture = Fixture::new();
    let topic = fixture.topic("t");
    let group = group(&topic);
    topic.publish_batch((0..3).map(|_| Message::new("x"))).unwrap();
    let none = group.receive_batch(0, Duration::MAX).unwrap();
    assert!(none.is_empty());
    assert!(none.ack().unwrap().is_empty());
    let all = group.receive_batch(usize::MAX, LONG).unwrap();
    assert_eq!(
        all.iter().map(|delivery| delivery.attempt()).collect::<Vec<_>>(),
        [1, 1, 1],
        "the empty batch took none of them"
    );
    assert!(all.ack().unwrap().is_empty());
}

#[test]
fn a_batch_takes_no_more_than_65536() {
    let fixture = Fixture::new();
    let topic = fixture.topic("t").with_durability(Durability::Os);
    let group = topic.group("g").max_outstanding(limits::OUTSTANDING_MAX).open().unwrap();
    let one_more = limits::RECEIVE_BATCH_MAX + 1;
    for part in [one_more / 2, one_more - one_more / 2] {
        topic.publish_batch((0..part).map(|_| Message::new("x"))).unwrap();
    }
    fixture.store.sync().unwrap();
    let most = group.receive_batch(usize::MAX, LONG).unwrap();
    assert_eq!(most.len(), limits::RECEIVE_BATCH_MAX);
    assert_eq!(group.receive_batch(usize::MAX, LONG).unwrap().len(), 1);
}

#[test]
fn delays_of_no_time_and_of_all_time() {
    let fixture = Fixture::new();
    let topic = fixture.topic("t");
    let group = group(&topic);
    topic.publish(Message::new("x")).unwrap();
    let delivery = receive(&group);
    delivery.nack_after(Duration::ZERO, "at once").unwrap();
    let delivery = group.receive(Duration::ZERO).unwrap().expect("no delay: it is ready at once");
    assert_eq!(delivery.attempt(), 2);
    assert_error!(delivery.extend(Duration::MAX), Error::InvalidOption { .. }, "duration", "ten years");
    delivery.extend(Duration::from_millis(limits::DURATION_MS_MAX)).unwrap();
    assert_error!(delivery.nack_after(Duration::MAX, "never"), Error::InvalidOption { .. }, "delay", "ten years");
}

#[test]
fn attempts_end_in_the_dead_letters() {
    let fixture = Fixture::new();
    let topic = fixture.topic("t");
    let once = topic.group("once").max_attempts(1).open().unwrap();
    topic.publish(Message::new("x").key("k").header("h", "v")).unwrap();
    let id = receive(&once).id();
    // Dropped, which counts as a nack, and it was the last attempt.
    assert!(once.receive(Duration::ZERO).unwrap().is_none());
    fixture.store.sync().unwrap();
    let letters: Vec<_> = once.dead_letters().unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].payload(), letters[0].key(), letters[0].origin()), (&b"x"[..], Some(&b"k"[..]), id));
    assert_eq!((letters[0].attempts(), &letters[0].history()[0].text[..]), (1, "dropped"));
}

/// Rejects the next message. The dead letter that it becomes.
fn rejected(fixture: &Fixture, group: &Group) -> DeadLetter {
    receive(group).reject("no").expect("it rejects");
    fixture.store.sync().expect("it syncs");
    group.dead_letters().expect("it lists").next().expect("a dead letter").expect("it can be read")
}

#[test]
fn a_message_goes_from_dead_letters_to_topics_16_times() {
    let mut fixture = Fixture::new();
    let open = |fixture: &Fixture, name: &str| {
        let topic = fixture.topic(name);
        let group = topic.group("once").max_attempts(1).open().unwrap();
        (topic, group)
    };
    open(&fixture, "even").0.publish(Message::new("x")).unwrap();
    open(&fixture, "odd");
    for redrives in 0..=limits::REDRIVES_TO_TOPICS_MAX {
        // Each second time the log alone says how often it was.
        if redrives % 2 == 1 {
            fixture = fixture.reopened();
        }
        let topics = ["even", "odd"].map(|name| open(&fixture, name));
        let group = &topics[redrives as usize % 2].1;
        // Redrives to its own group count for nothing.
        for _ in 0..2 {
            rejected(&fixture, group).redrive().unwrap();
        }
        let letter = rejected(&fixture, group);
        let redriven = letter.redrive_to(&topics[(redrives as usize + 1) % 2].0);
        if redrives < limits::REDRIVES_TO_TOPICS_MAX {
            redriven.unwrap();
        } else {
            assert_error!(redriven, Error::TooManyRedrives { .. }, "16 times", "nothing was written");
            group.dead_letters().unwrap().next().unwrap().unwrap().redrive().unwrap();
            receive(group).ack().unwrap();
        }
    }
}
