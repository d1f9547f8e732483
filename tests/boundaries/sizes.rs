//! How small and how large a message, a key, a header, a batch may be.

use super::{Fixture, assert_error, ends, group, receive};
use millpond::{Error, Message, Store, limits};
use std::time::Duration;

#[test]
fn an_empty_payload_is_a_message() {
    let fixture = Fixture::new();
    let topic = fixture.topic("t");
    let group = group(&topic);
    topic.publish(Message::new("")).unwrap();
    let delivery = receive(&group);
    assert_eq!(delivery.payload(), b"");
    assert_eq!(delivery.key(), None);
    assert_eq!(delivery.headers().count(), 0);
    delivery.ack().unwrap();
}

#[test]
fn an_empty_key_is_not_the_same_as_none() {
    let fixture = Fixture::new();
    let topic = fixture.topic("t");
    let group = group(&topic);
    topic.publish(Message::new("a").key("")).unwrap();
    topic.publish(Message::new("b")).unwrap();
    let (a, b) = (receive(&group), receive(&group));
    assert_eq!((a.payload(), a.key()), (&b"a"[..], Some(&b""[..])));
    assert_eq!((b.payload(), b.key()), (&b"b"[..], None));
}

#[test]
fn headers_keep_their_order_and_may_be_empty_or_come_twice() {
    let fixture = Fixture::new();
    let topic = fixture.topic("t");
    let group = group(&topic);
    let long = "n".repeat(limits::NAME_LEN_MAX);
    let message =
        Message::new("x").header("b", "").header("a", "1").header("b", vec![0, 255]).header(long.as_str(), "l");
    topic.publish(message).unwrap();
    let delivery = receive(&group);
    let headers: Vec<(&str, &[u8])> = delivery.headers().collect();
    assert_eq!(headers, [("b", &b""[..]), ("a", b"1"), ("b", &[0, 255]), (&long, b"l")]);
    assert_eq!(delivery.header("a"), Some(&b"1"[..]));
    assert_eq!(delivery.header("c"), None);
}

#[test]
fn names_of_headers_have_the_length_of_names() {
    let fixture = Fixture::new();
    let topic = fixture.topic("t");
    let long = "n".repeat(limits::NAME_LEN_MAX + 1);
    assert_error!(topic.publish(Message::new("x").header(long.as_str(), "v")), Error::InvalidName { .. }, "255");
    assert_error!(topic.publish(Message::new("x").header("", "v")), Error::InvalidName { .. }, "header", "empty");
    assert_eq!(ends(&fixture.store, "t"), [0]);
}

#[test]
fn a_message_may_be_as_long_as_the_store_allows_and_no_longer() {
    const MAX: usize = 10_000;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::options().message_bytes_max(MAX).open(dir.path().join("s")).unwrap();
    let topic = store.topic("t").open().unwrap();
    let group = group(&topic);
    // The encoded message counts, a few bytes more than its payload: the limit is met exactly once.
    let results: Vec<bool> =
        (MAX - 16..=MAX + 1).map(|len| topic.publish(Message::new(vec![7; len])).is_ok()).collect();
    let allowed = results.iter().filter(|ok| **ok).count();
    assert!(results[..allowed].iter().all(|ok| *ok), "a longer one was allowed, a shorter one was not");
    assert!(allowed > 8, "the limit is {MAX}, but only {} were allowed", MAX - 16 + allowed);
    assert!(!results[17], "one above the limit was allowed");
    let batch = group.receive_batch(100, Duration::from_secs(20)).unwrap();
    assert_eq!(batch.iter().map(|delivery| delivery.payload().len()).max(), Some(MAX - 17 + allowed));
    drop(batch);

    let message = Message::new(vec![7; MAX + 1]);
    assert_error!(topic.publish(message), Error::TooLarge { .. }, MAX);
    let batch = [Message::new("small"), Message::new(vec![7; MAX + 1])];
    assert_error!(topic.publish_batch(batch), Error::TooLarge { .. }, MAX);
    assert_eq!(ends(&store, "t"), [allowed as u64], "nothing of what was refused is there");
}

#[test]
fn the_longest_message_of_all_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let store = Store::options().message_bytes_max(limits::MESSAGE_LEN_MAX).open(&path).unwrap();
    let payload: Vec<u8> = (0..limits::MESSAGE_LEN_MAX - 64).map(|at| (at % 251) as u8).collect();
    store.topic("t").open().unwrap().publish(Message::new(payload.clone())).unwrap();
    store.close().unwrap();
    drop(store);
    let store = Store::open(&path).unwrap();
    let delivery = receive(&group(&store.topic("t").open().unwrap()));
    assert!(delivery.payload() == payload, "other bytes came back");

    let too_long = Store::options().message_bytes_max(limits::MESSAGE_LEN_MAX + 1);
    assert_error!(too_long.open(dir.path().join("other")), Error::InvalidOption { .. }, "message_bytes_max", "16 MiB");
    assert!(!dir.path().join("other").exists());
}

#[test]
fn the_longest_key_and_the_most_headers() {
    let fixture = Fixture::new();
    let topic = fixture.topic("t");
    let group = group(&topic);
    let key = vec![1; limits::KEY_LEN_MAX];
    topic.publish(Message::new("x").key(key.clone())).unwrap();
    assert_eq!(receive(&group).key(), Some(&key[..]));
    let too_long = Message::new("x").key(vec![1; limits::KEY_LEN_MAX + 1]);
    assert_error!(topic.publish(too_long), Error::TooLarge { .. }, "key", limits::KEY_LEN_MAX);

    let with_headers =
        |count: usize| (0..count).fold(Message::new("y"), |message, at| message.header(at.to_string(), ""));
    topic.publish(with_headers(limits::HEADERS_MAX)).unwrap();
    assert_error!(topic.publish(with_headers(limits::HEADERS_MAX + 1)), Error::TooLarge { .. }, limits::HEADERS_MAX);
    assert_eq!(ends(&fixture.store, "t"), [2]);
}

#[test]
fn a_batch_is_whole_or_not_at_all() {
    let fixture = Fixture::new();
    let topic = fixture.topic("t");
    let empty = || Message::new("");
    let receipt = topic.publish_batch((0..limits::FRAME_PARTS_MAX).map(|_| empty())).unwrap();
    assert_eq!(receipt.ids().len(), limits::FRAME_PARTS_MAX);
    let end = limits::FRAME_PARTS_MAX as u64;
    assert_eq!(ends(&fixture.store, "t"), [end]);

    let one_more = (0..=limits::FRAME_PARTS_MAX).map(|_| empty());
    assert_error!(topic.publish_batch(one_more), Error::TooLarge { .. }, limits::FRAME_PARTS_MAX);
    // Many messages, each of them allowed, that are too long together.
    let heavy = (0..40).map(|_| Message::new(vec![1; limits::MESSAGE_LEN_DEFAULT - 64]));
    assert_error!(topic.publish_batch(heavy), Error::TooLarge { .. }, "batch");
    assert_eq!(ends(&fixture.store, "t"), [end]);
}

#[test]
fn a_batch_of_nothing_publishes_nothing() {
    let fixture = Fixture::new();
    let topic = fixture.topic("t");
    assert_eq!(topic.publish_batch::<Message>([]).unwrap().ids(), []);
    assert_eq!(ends(&fixture.store, "t"), [0]);
}
