//! What is said of things: ids as text, `{:?}`, names, and what does not exist.

use super::{Fixture, LONG, assert_error, contents, group, receive};
use millpond::{Durability, Error, ErrorKind, Message, MessageId, Start, Store};
use millpond::{Epoch, Offset, TopicId};
use proptest::prelude::*;
use std::fmt::Debug;
use std::time::Duration;

proptest! {
    /// An id is its text: nothing in it needs escaping, and it comes back.
    #[test]
    fn an_id_is_read_back_from_its_text(topic: u64, partition: u64, epoch: u64, offset: u64) {
        let id = MessageId { topic: TopicId(topic), partition, epoch: Epoch(epoch), offset: Offset(offset) };
        let text = id.to_string();
        prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_~".contains(&byte)), "{}", text);
        prop_assert_eq!(text.parse::<MessageId>().expect("it is an id"), id);
    }

    /// No other text is one: what is read gives the same text again.
    #[test]
    fn one_id_has_one_text(text in "[-+ 0-9a/@]{0,24}|[0-9]{1,3}-[0-9]{1,3}-[0-9]{1,3}-[0-9]{1,3}") {
        if let Ok(id) = text.parse::<MessageId>() {
            prop_assert_eq!(id.to_string(), text);
        }
    }
}

#[test]
fn a_text_that_is_no_id_is_refused() {
    for text in [
        "",
        "1-2-3",
        "1-2-3-4-5",
        "-1-2-3-4",
        "1--3-4",
        "01-2-3-4",
        "+1-2-3-4",
        "1-2-3-4 ",
        "0/0/7@1",
        "18446744073709551616-2-3-4",
    ] {
        let error = text.parse::<MessageId>().expect_err(text);
        assert_eq!(error.text, text);
        assert!(error.to_string().contains("topic-partition-offset-epoch"), "{error}");
    }
    let long = "水".repeat(100).parse::<MessageId>().expect_err("it is none");
    assert!(long.text.len() <= 64);
}

/// Short, useful, and without a byte of a message, however much is outstanding.
#[test]
fn debug_is_short_and_shows_no_payload() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::options().durability(Durability::Os).open(dir.path().join("s")).unwrap();
    let topic = store.topic("orders").partitions(3).open().unwrap();
    let group = topic.group("kitchen").visibility_timeout(Duration::from_secs(3600)).open().unwrap();
    let secret = || Message::new("a secret").key("a secret key").header("a secret header", "of a customer");
    let batch_receipt = topic.publish_batch((0..60_100).map(|_| secret())).unwrap();
    let receipt = topic.publish(secret()).unwrap();
    let batch = group.receive_batch(60_000, LONG).unwrap();
    assert_eq!(batch.len(), 60_000);
    receive(&group).reject("no").unwrap();
    let (delivery, subscription) = (receive(&group), group.subscribe().unwrap());
    subscription.request();
    let letter = group.dead_letters().unwrap().next().unwrap().unwrap();
    let all: &[(&dyn Debug, &[&str])] = &[
        (&store, &["Store", "Os"]),
        (&store.topic("new"), &["new"]),
        (&Store::options(), &["StoreOptions"]),
        (&topic, &["orders", "3"]),
        (&topic.group("new"), &["orders", "new"]),
        (&group, &["orders", "kitchen"]),
        (&receipt, &[&receipt.id().to_string(), "Os"]),
        (&batch_receipt, &["60100"]),
        (&batch, &["orders", "kitchen", "60000"]),
        (&batch.iter(), &["60000"]),
        (&batch.iter().next(), &["orders", "kitchen", "attempt: 1"]),
        (&delivery, &["orders", "kitchen", &delivery.id().to_string(), "attempt: 1"]),
        (&letter, &["orders", "kitchen", &letter.id().to_string(), &letter.origin().to_string()]),
        (&group.dead_letters().unwrap(), &["orders", "kitchen"]),
        (&letter.history(), &["Rejected", "no"]),
        (&subscription, &["orders", "kitchen"]),
        (&secret(), &["payload_len: 8"]),
        (&store.report(), &["created: true"]),
        (&Store::open(dir.path().join("s")).expect_err("it is locked"), &["Locked"]),
    ];
    for (thing, parts) in all {
        let text = format!("{thing:?}");
        assert!(text.len() < 1_000, "{} bytes: {}", text.len(), &text[..1_000]);
        assert!(!text.contains("secret") && !text.contains("customer") && !text.contains("[97, 32"), "{text}");
        parts.iter().for_each(|part| assert!(text.contains(part), "{text} does not name {part}"));
    }
}

/// A wrong path, topic or group is told, and nothing is made.
#[test]
fn what_is_not_to_be_created_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("missing").join("store");
    let open = || Store::options().create(false).open(&path);
    assert_error!(open(), Error::NotFound { .. }, "store", path.display());
    assert_eq!(contents(dir.path()).len(), 0, "no directory was made");
    std::fs::create_dir_all(&path).unwrap();
    assert_error!(open(), Error::NotFound { .. }, "store", path.display());
    // What a process leaves that dies before it has laid out a store.
    std::fs::write(path.join("STORE"), "").unwrap();
    assert_error!(open(), Error::NotFound { .. }, "store", path.display());
    assert_eq!(contents(&path).into_values().collect::<Vec<_>>(), [Vec::new()]);
    assert_eq!(open().expect_err("as before").kind(), ErrorKind::FixCall);

    let store = Store::open(&path).unwrap();
    assert!(store.report().created && store.report().was_clean);
    let end = store.stats().unwrap().log.end;
    assert_error!(store.topic("t").create(false).open(), Error::NotFound { .. }, "topic", "t");
    let topic = store.topic("t").create(true).open().unwrap();
    assert_error!(topic.group("g").create(false).open(), Error::NotFound { .. }, "group", "g");
    assert!(store.stats().unwrap().log.end > end && store.stats().unwrap().topics[0].groups.is_empty());
    group(&topic);
    store.close().unwrap();
    drop((store, topic));
    let store = open().unwrap();
    assert!(!store.report().created && store.report().was_clean);
    let topic = store.topic("t").create(false).open().unwrap();
    assert_error!(store.topic("t").create(false).partitions(2).open(), Error::OptionMismatch { .. }, "partitions");
    topic.group("group").create(false).open().unwrap();
}

/// A dead letter is found by its id, and only there.
#[test]
fn a_dead_letter_is_found_by_its_id() {
    let fixture = Fixture::new();
    let topic = fixture.topic("t");
    let (kitchen, other) = (group(&topic), topic.group("other").open().unwrap());
    topic.publish_batch((0..3u8).map(|n| Message::new([n]).header("h", [n]))).unwrap();
    let published: Vec<MessageId> = kitchen
        .receive_batch(3, LONG)
        .unwrap()
        .into_iter()
        .map(|delivery| {
            let id = delivery.id();
            delivery.reject("no").unwrap();
            id
        })
        .collect();
    fixture.store.sync().unwrap();
    let ids: Vec<MessageId> = kitchen.dead_letters().unwrap().map(|letter| letter.unwrap().id()).collect();
    for (n, (id, origin)) in (0..3u8).zip(ids.iter().zip(&published)) {
        let letter = kitchen.dead_letter(id.to_string().parse().unwrap()).unwrap().expect("it is there");
        assert_eq!((letter.id(), letter.origin(), letter.payload()), (*id, *origin, &[n][..]));
        assert_eq!((letter.topic(), letter.group(), letter.header("h")), ("t", "group", Some(&[n][..])));
        assert_eq!(letter.header("other"), None);
        assert!(kitchen.dead_letter(*origin).unwrap().is_none(), "the message itself is no dead letter");
        assert!(other.dead_letter(*id).unwrap().is_none(), "the other group's");
    }
    let of_a_later_life = MessageId { epoch: Epoch(ids[0].epoch.get() + 1), ..ids[0] };
    let beyond = MessageId { offset: Offset(3), ..ids[0] };
    assert!(kitchen.dead_letter(of_a_later_life).unwrap().is_none());
    assert!(kitchen.dead_letter(beyond).unwrap().is_none());
    kitchen.dead_letter(ids[1]).unwrap().unwrap().discard().unwrap();
    assert!(kitchen.dead_letter(ids[1]).unwrap().is_none());
    let fixture = fixture.reopened();
    let kitchen = fixture.topic("t").group("group").open().unwrap();
    assert_eq!(kitchen.dead_letter(ids[2]).unwrap().unwrap().payload(), [2]);
}

/// A message that moved to another topic still names the one it came from, by an id that is that topic's.
#[test]
fn an_origin_in_another_topic_keeps_its_id() {
    let fixture = Fixture::new();
    let (from, to) = (fixture.topic("from"), fixture.topic("to"));
    let (first, second) = (group(&from), group(&to));
    let id = from.publish("m").unwrap().id();
    receive(&first).reject("no").unwrap();
    fixture.store.sync().unwrap();
    let letter = first.dead_letters().unwrap().next().unwrap().unwrap();
    assert_eq!(letter.origin(), id);
    letter.redrive_to(&to).unwrap();
    let delivery = receive(&second);
    assert_eq!((delivery.topic(), delivery.group(), delivery.origin()), ("to", "group", id));
    assert!(delivery.id() != id && delivery.id().topic != id.topic);
    delivery.reject("no").unwrap();
    fixture.store.sync().unwrap();
    let letter = second.dead_letters().unwrap().next().unwrap().unwrap();
    assert_eq!(letter.origin(), id);
    letter.redrive().unwrap();
    let delivery = receive(&second);
    assert_eq!(delivery.origin(), id);
    let own = delivery.id();
    drop(delivery);
    let batch = second.receive_batch(10, LONG).unwrap();
    assert_eq!(
        batch.iter().map(|d| (d.id(), d.origin(), d.topic(), d.group())).collect::<Vec<_>>(),
        [(own, id, "to", "group")]
    );
}

/// A released message is as it was: ready at once, and no attempt the poorer.
#[test]
fn a_release_is_not_counted() {
    let fixture = Fixture::new();
    let topic = fixture.topic("t");
    let group = topic.group("g").max_attempts(1).visibility_timeout(Duration::from_millis(50)).open().unwrap();
    topic.publish("m").unwrap();
    for _ in 0..20 {
        let delivery = receive(&group);
        assert_eq!(delivery.attempt(), 1);
        delivery.release().unwrap();
    }
    let kept = topic.group("kept").start(Start::Earliest).visibility_timeout(Duration::from_millis(30)).open().unwrap();
    let late = receive(&kept);
    let id = late.id();
    let holder = receive(&kept);
    assert_eq!((holder.id(), holder.attempt()), (id, 2));
    assert_error!(late.release(), Error::LeaseLost { .. }, id);
}

/// Kinds by what the caller can do, and texts that say of what, where, and in which unit.
#[test]
fn an_error_says_what_and_where() {
    let fixture = Fixture::new();
    let topic = fixture.topic("t");
    let key = topic.publish(Message::new("m").key(vec![0; 70_000])).expect_err("the key is too long");
    assert!(key.to_string().starts_with("key is 70000 bytes, limit 65536 bytes"), "{key}");
    let headers = (0..1_025).fold(Message::new("m"), |message, n: u32| message.header(n.to_string(), ""));
    let headers = topic.publish(headers).expect_err("too many");
    assert!(headers.to_string().starts_with("message is 1025 headers, limit 1024 headers"), "{headers}");
    fixture.store.close().unwrap();
    let closed = topic.publish("m").expect_err("it is closed");
    assert_eq!(closed.kind(), ErrorKind::Reopen);
    // Not even root can make a directory there.
    let path = std::path::Path::new("/proc/millpond");
    let io = Store::open(path).expect_err("nothing can be made there");
    assert!(io.to_string().contains("/proc/millpond"), "{io}");
    let text = io.to_string();
    let mut source = std::error::Error::source(&io);
    while let Some(cause) = source {
        assert!(!text.contains(&cause.to_string()), "{text} repeats {cause}");
        source = cause.source();
    }
}
