//! The outbox: what is published once, what blocks a topic, and what is found where a copy was put back.

use millpond::{ErrorKind, Group, Store};
use millpond_sqlite::rusqlite::{Connection, TransactionBehavior::Immediate};
use millpond_sqlite::{Error, Outbox, OutboxMessage};
use std::path::Path;
use std::time::Duration;

struct Shop {
    dir: tempfile::TempDir,
    database: Connection,
    store: Store,
    outbox: Outbox,
}

impl Shop {
    fn open() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (database, outbox) = open_database(&dir.path().join("shop.db"));
        let store = Store::options().message_bytes_max(1_000).open(dir.path().join("queue")).expect("it opens");
        Self { dir, database, store, outbox }
    }

    fn group(&self, topic: &str) -> Group {
        self.store.topic(topic).open().and_then(|topic| topic.group("all").open()).expect("they open")
    }

    fn publish(&mut self, topic: &str, payloads: &[&str]) {
        publish(&mut self.database, &self.outbox, topic, payloads);
    }

    /// How many were published, how many were there before, and why topics are blocked.
    fn drain(&mut self, limit: u32) -> (u64, u64, Vec<(String, u64, Error)>) {
        let drained = self.outbox.drain(&mut self.database, &self.store, limit).expect("it drains");
        let blocked = drained.blocked.into_iter().map(|blocked| (blocked.topic, blocked.number, blocked.error));
        (drained.published, drained.repeated, blocked.collect())
    }
}

fn open_database(path: &Path) -> (Connection, Outbox) {
    let database = Connection::open(path).expect("it opens");
    database.pragma_update(None, "journal_mode", "WAL").expect("a WAL");
    let outbox = Outbox::open(&database).expect("it opens");
    (database, outbox)
}

fn publish(database: &mut Connection, outbox: &Outbox, topic: &str, payloads: &[&str]) {
    let tx = database.transaction_with_behavior(Immediate).expect("it begins");
    for payload in payloads {
        outbox.publish(&tx, topic, *payload).expect("it is written");
    }
    tx.commit().expect("it commits");
}

fn take_all(group: &Group) -> Vec<String> {
    let batch = group.receive_batch(1_000, Duration::ZERO).expect("it receives");
    let payloads = batch.iter().map(|delivery| String::from_utf8_lossy(delivery.payload()).into_owned()).collect();
    assert!(batch.ack().expect("it acks").is_empty());
    payloads
}

#[test]
fn committed_messages_are_published_in_order_and_rolled_back_ones_are_not() {
    let mut shop = Shop::open();
    let (orders, bills) = (shop.group("orders"), shop.group("bills"));
    shop.publish("orders", &["1", "2"]);
    let tx = shop.database.transaction().expect("it begins");
    shop.outbox.publish(&tx, "orders", "never").expect("it is written");
    shop.outbox.publish(&tx, "bills", "never").expect("it is written");
    tx.rollback().expect("it rolls back");
    shop.publish("orders", &["3"]);
    shop.publish("bills", &["a"]);
    assert_eq!(shop.outbox.waiting(&shop.database).expect("a count"), 4);
    let (published, repeated, blocked) = shop.drain(2);
    assert_eq!((published, repeated, blocked.len()), (3, 0, 0), "two of each topic");
    assert_eq!(shop.drain(2).0, 1);
    assert_eq!(shop.drain(2).0, 0);
    assert_eq!(shop.outbox.waiting(&shop.database).expect("a count"), 0);
    assert_eq!((take_all(&orders), take_all(&bills)), (vec!["1".into(), "2".into(), "3".into()], vec!["a".into()]));
}

#[test]
fn key_and_headers_arrive() {
    let mut shop = Shop::open();
    let orders = shop.group("orders");
    let tx = shop.database.transaction().expect("it begins");
    let message = OutboxMessage::new("").key(b"\0\xff").header("type", "new").header("none", "");
    shop.outbox.publish(&tx, "orders", message).expect("it is written");
    shop.outbox.publish(&tx, "orders", OutboxMessage::new(b"\xff").key("")).expect("it is written");
    tx.commit().expect("it commits");
    assert_eq!(shop.drain(10).0, 2);
    let first = orders.receive(Duration::ZERO).expect("it receives").expect("a message");
    assert_eq!((first.payload(), first.key()), (&b""[..], Some(&b"\0\xff"[..])));
    let headers: Vec<_> = first.headers().collect();
    assert_eq!(headers, [("type", &b"new"[..]), ("none", &b""[..])]);
    let second = orders.receive(Duration::ZERO).expect("it receives").expect("a message");
    assert_eq!((second.payload(), second.key(), second.headers().count()), (&b"\xff"[..], Some(&b""[..]), 0));
}

/// The deletion fails after the publish, as a crash between the two would leave it.
#[test]
fn messages_that_were_published_and_not_deleted_are_not_published_again() {
    let mut shop = Shop::open();
    let orders = shop.group("orders");
    shop.publish("orders", &["1", "2", "3"]);
    let refuse = "CREATE TRIGGER refuse BEFORE DELETE ON millpond_outbox_messages BEGIN SELECT raise(ABORT, 'no'); END";
    for _ in 0..3 {
        shop.database.execute_batch(refuse).expect("a trigger");
        let error = shop.outbox.drain(&mut shop.database, &shop.store, 2).expect_err("it cannot delete");
        assert!(matches!(error, Error::Database(_)), "{error}");
        shop.database.execute_batch("DROP TRIGGER refuse").expect("it goes");
        assert_eq!(shop.outbox.waiting(&shop.database).expect("a count"), 3);
    }
    let (published, repeated, blocked) = shop.drain(10);
    assert_eq!((published, repeated, blocked.len()), (1, 2, 0));
    assert_eq!(take_all(&orders), ["1", "2", "3"]);
}

/// The store reopens, so nothing is remembered but what is on disk.
#[test]
fn repeats_are_recognized_after_the_store_was_closed() {
    let mut shop = Shop::open();
    shop.group("orders");
    shop.publish("orders", &["1"]);
    let refuse = "CREATE TRIGGER refuse BEFORE DELETE ON millpond_outbox_messages BEGIN SELECT raise(ABORT, 'no'); END";
    shop.database.execute_batch(refuse).expect("a trigger");
    shop.outbox.drain(&mut shop.database, &shop.store, 2).expect_err("it cannot delete");
    shop.database.execute_batch("DROP TRIGGER refuse").expect("it goes");
    shop.store.close().expect("it closes");
    shop.store = Store::open(shop.dir.path().join("queue")).expect("it opens");
    let (published, repeated, blocked) = shop.drain(10);
    assert_eq!((published, repeated, blocked.len()), (0, 1, 0));
    assert_eq!(take_all(&shop.group("orders")), ["1"]);
}

#[test]
fn drains_at_once_publish_each_message_once() {
    let mut shop = Shop::open();
    let orders = shop.group("orders");
    let payloads: Vec<String> = (0..300).map(|number| number.to_string()).collect();
    shop.publish("orders", &payloads.iter().map(String::as_str).collect::<Vec<_>>());
    let (path, store, outbox) = (shop.dir.path().join("shop.db"), &shop.store, &shop.outbox);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let (mut database, _) = open_database(&path);
                while outbox.waiting(&database).expect("a count") > 0 {
                    let drained = outbox.drain(&mut database, store, 1).expect("it drains");
                    assert!(drained.blocked.is_empty(), "{drained:?}");
                }
            });
        }
    });
    assert_eq!(take_all(&orders), payloads);
}

#[test]
fn a_missing_topic_blocks_itself_only_until_it_is_created() {
    let mut shop = Shop::open();
    let bills = shop.group("bills");
    shop.publish("orders", &["1"]);
    shop.publish("bills", &["a"]);
    let (published, _, blocked) = shop.drain(10);
    assert_eq!(published, 1);
    let [(topic, 0, error)] = &blocked[..] else { panic!("{blocked:?}") };
    assert!(topic == "orders" && matches!(error, Error::Store(millpond::Error::NotFound { .. })), "{error}");
    assert_eq!(take_all(&bills), ["a"]);
    let orders = shop.group("orders");
    assert_eq!(shop.drain(10).0, 1);
    assert_eq!(take_all(&orders), ["1"]);
}

#[test]
fn a_message_that_the_store_refuses_blocks_its_topic_until_it_is_discarded() {
    let mut shop = Shop::open();
    let orders = shop.group("orders");
    let large = "x".repeat(2_000);
    shop.publish("orders", &["1", &large, "2", "3"]);
    for published_first in [1, 0] {
        let (published, repeated, blocked) = shop.drain(10);
        assert_eq!((published, repeated), (published_first, 0));
        let [(_, 1, error @ Error::Store(millpond::Error::TooLarge { .. }))] = &blocked[..] else {
            panic!("{blocked:?}")
        };
        assert_eq!(error.kind(), ErrorKind::FixCall);
    }
    for number in [0, 2] {
        let error = shop.outbox.discard(&mut shop.database, &shop.store, "orders", number).expect_err("not the first");
        assert!(matches!(error, Error::NotFirst { .. }), "{error}");
    }
    shop.outbox.discard(&mut shop.database, &shop.store, "orders", 1).expect("it is the first");
    assert_eq!(shop.drain(1).0, 1);
    shop.publish("orders", &["4"]);
    assert_eq!(shop.drain(10).0, 2);
    assert_eq!(take_all(&orders), ["1", "2", "3", "4"]);
}

/// What is in the store cannot be discarded: the numbering begins anew then, and the messages behind it would be there twice.
#[test]
fn a_published_message_is_not_discarded() {
    let mut shop = Shop::open();
    shop.group("orders");
    shop.publish("orders", &["1", "2"]);
    let refuse = "CREATE TRIGGER refuse BEFORE DELETE ON millpond_outbox_messages BEGIN SELECT raise(ABORT, 'no'); END";
    shop.database.execute_batch(refuse).expect("a trigger");
    shop.outbox.drain(&mut shop.database, &shop.store, 2).expect_err("it cannot delete");
    shop.database.execute_batch("DROP TRIGGER refuse").expect("it goes");
    let error = shop.outbox.discard(&mut shop.database, &shop.store, "orders", 0).expect_err("it was published");
    assert!(matches!(error, Error::NotFirst { .. }), "{error}");
}

#[test]
fn a_database_from_a_copy_is_found_out_and_renewed() {
    let mut shop = Shop::open();
    let orders = shop.group("orders");
    shop.publish("orders", &["1"]);
    assert_eq!(shop.drain(10).0, 1);
    let copy = shop.dir.path().join("copy.db");
    shop.database.execute("VACUUM INTO ?1", [copy.to_str().expect("a path of text")]).expect("a copy");
    shop.publish("orders", &["2", "3"]);
    assert_eq!(shop.drain(10).0, 2);

    // The copy goes on from where it was made, further than the original went.
    (shop.database, shop.outbox) = open_database(&copy);
    shop.publish("orders", &["two", "three", "four"]);
    for _ in 0..2 {
        let (published, repeated, blocked) = shop.drain(10);
        assert_eq!((published, repeated), (0, 0));
        let [(_, 1, error @ Error::DatabaseBehind { sent: 1, stored: 3, .. })] = &blocked[..] else {
            panic!("{blocked:?}")
        };
        assert_eq!(error.kind(), ErrorKind::Stop);
    }
    let tx = shop.database.transaction().expect("it begins");
    shop.outbox.renew(&tx, "orders").expect("it is renewed");
    tx.commit().expect("it commits");
    assert_eq!(shop.drain(10).0, 3);
    assert_eq!(take_all(&orders), ["1", "2", "3", "two", "three", "four"]);
}

#[test]
fn a_store_from_a_copy_is_found_out_and_the_topic_renewed() {
    let mut shop = Shop::open();
    shop.group("orders");
    shop.publish("orders", &["1", "2"]);
    assert_eq!(shop.drain(10).0, 2);
    shop.store = Store::open(shop.dir.path().join("another")).expect("it opens");
    let orders = shop.group("orders");
    assert_eq!(shop.drain(10).2.len(), 0, "nothing waits");
    shop.publish("orders", &["3", "4"]);
    let (published, _, blocked) = shop.drain(10);
    assert_eq!(published, 0);
    assert!(matches!(blocked[..], [(_, 2, Error::StoreBehind { first: 2, stored: 0, .. })]), "{blocked:?}");
    let tx = shop.database.transaction().expect("it begins");
    shop.outbox.renew(&tx, "orders").expect("it is renewed");
    shop.outbox.renew(&tx, "never used").expect("nothing to renew");
    tx.commit().expect("it commits");
    shop.publish("orders", &["5"]);
    assert_eq!(shop.drain(10).0, 3);
    assert_eq!(take_all(&orders), ["3", "4", "5"]);
}

#[test]
fn a_drain_keeps_the_settings_of_the_connection() {
    let mut shop = Shop::open();
    shop.group("orders");
    for level in ["OFF", "NORMAL", "FULL", "EXTRA"] {
        shop.database.pragma_update(None, "synchronous", level).expect("it is set");
        let read = |shop: &Shop| -> i64 {
            shop.database.pragma_query_value(None, "synchronous", |row| row.get(0)).expect("it is read")
        };
        let before = read(&shop);
        shop.publish("orders", &["1"]);
        assert_eq!((shop.drain(10).0, read(&shop)), (1, before));
    }
}

#[test]
fn misuse_has_errors_of_its_own() {
    let mut shop = Shop::open();
    shop.group("orders");
    shop.database.execute_batch("BEGIN").expect("it begins");
    let error = shop.outbox.drain(&mut shop.database, &shop.store, 1).expect_err("a transaction is open");
    assert!(matches!(error, Error::OpenTransaction) && error.kind() == ErrorKind::FixCall, "{error}");
    let error = shop.outbox.discard(&mut shop.database, &shop.store, "orders", 0).expect_err("a transaction is open");
    assert!(matches!(error, Error::OpenTransaction), "{error}");
    shop.database.execute_batch("COMMIT").expect("it commits");

    let tx = shop.database.transaction().expect("it begins");
    for topic in ["", &"x".repeat(256)] {
        let error = shop.outbox.publish(&tx, topic, "").expect_err("no name for a topic");
        assert!(matches!(error, Error::InvalidName { what: "topic", .. }), "{error}");
    }
    tx.commit().expect("it commits");
    assert_eq!(shop.outbox.waiting(&shop.database).expect("a count"), 0);
    let error = shop.outbox.discard(&mut shop.database, &shop.store, "orders", 0).expect_err("nothing waits");
    assert!(matches!(error, Error::NotFirst { .. }), "{error}");

    shop.publish("orders", &["1"]);
    shop.database.execute("UPDATE millpond_outbox_messages SET headers = x'05'", []).expect("it is damaged");
    let error = shop.outbox.drain(&mut shop.database, &shop.store, 1).expect_err("the row is damaged");
    assert!(matches!(error, Error::Damaged { .. }) && error.kind() == ErrorKind::Stop, "{error}");

    shop.database.execute("UPDATE millpond_schema SET version = 2", []).expect("it is set");
    let error = Outbox::open(&shop.database).expect_err("a newer version");
    assert!(matches!(error, Error::NewerSchema { found: 2, .. }) && error.kind() == ErrorKind::Stop, "{error}");
    shop.store.close().expect("it closes");
}

#[test]
fn a_closed_store_and_a_busy_database_say_what_to_do() {
    let mut shop = Shop::open();
    shop.group("orders");
    shop.publish("orders", &["1"]);
    let (mut other, _) = open_database(&shop.dir.path().join("shop.db"));
    let tx = other.transaction_with_behavior(Immediate).expect("it begins");
    shop.database.busy_timeout(Duration::ZERO).expect("it is set");
    let error = shop.outbox.drain(&mut shop.database, &shop.store, 1).expect_err("another connection writes");
    assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
    tx.commit().expect("it commits");
    shop.store.close().expect("it closes");
    let error = shop.outbox.drain(&mut shop.database, &shop.store, 1).expect_err("the store is closed");
    assert_eq!(error.kind(), ErrorKind::Reopen, "{error}");
    assert_eq!(shop.outbox.waiting(&shop.database).expect("a count"), 1);
}
