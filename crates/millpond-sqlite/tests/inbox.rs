//! The inbox: one effect for each message, and what pruning forgets.

use millpond::{Backoff, MessageId, Store};
use millpond_sqlite::rusqlite::Connection;
use millpond_sqlite::{Error, Inbox, Sighting};
use std::time::Duration;

fn id(offset: u64) -> MessageId {
    format!("0-0-{offset}-4294967297").parse().expect("an ID")
}

fn handle(database: &mut Connection, inbox: &Inbox, message: MessageId) -> Sighting {
    let tx = database.transaction().expect("it begins");
    let sighting = inbox.handle(&tx, message).expect("it is noted");
    tx.commit().expect("it commits");
    sighting
}

#[test]
fn a_message_is_first_once_for_each_inbox() {
    let mut database = Connection::open_in_memory().expect("it opens");
    let inboxes = ["mailer", "biller"].map(|name| Inbox::open(&database, name).expect("it opens"));
    for inbox in &inboxes {
        assert_eq!(handle(&mut database, inbox, id(7)), Sighting::First);
        assert_eq!(handle(&mut database, inbox, id(7)), Sighting::Repeat);
        assert_eq!(handle(&mut database, inbox, id(8)), Sighting::First);
    }
    let reopened = Inbox::open(&database, "mailer").expect("it opens");
    assert_eq!(handle(&mut database, &reopened, id(8)), Sighting::Repeat);
}

#[test]
fn a_rollback_takes_the_note_back() {
    let mut database = Connection::open_in_memory().expect("it opens");
    let inbox = Inbox::open(&database, "mailer").expect("it opens");
    let tx = database.transaction().expect("it begins");
    assert_eq!(inbox.handle(&tx, id(7)).expect("it is noted"), Sighting::First);
    assert_eq!(inbox.handle(&tx, id(7)).expect("it is noted"), Sighting::Repeat);
    tx.rollback().expect("it rolls back");
    assert_eq!(handle(&mut database, &inbox, id(7)), Sighting::First);
}

/// The effect is committed and the ack is lost, again and again, until the message is a dead letter that is redriven, here and to
/// another topic.
#[test]
fn retries_and_redrives_of_a_message_are_repeats() {
    let mut database = Connection::open_in_memory().expect("it opens");
    let inbox = Inbox::open(&database, "mailer").expect("it opens");
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path().join("queue")).expect("it opens");
    let orders = store.topic("orders").open().expect("a topic");
    let group = orders.group("mailer").max_attempts(2).backoff(Backoff::none()).open().expect("a group");
    let other = store.topic("other").open().expect("a topic");
    let others = other.group("mailer").open().expect("a group");
    orders.publish("two pizzas").expect("it publishes");
    let mut sightings = Vec::new();
    for _ in 0..2 {
        while let Some(delivery) = group.receive(Duration::ZERO).expect("it receives") {
            sightings.push(handle(&mut database, &inbox, delivery.origin()));
            delivery.nack("the ack was lost").expect("it is given back");
        }
        store.sync().expect("it syncs");
        assert!(group.redrive_all().expect("it redrives") <= 1);
    }
    while let Some(delivery) = group.receive(Duration::ZERO).expect("it receives") {
        sightings.push(handle(&mut database, &inbox, delivery.origin()));
        delivery.reject("to the other topic").expect("it is a dead letter");
    }
    store.sync().expect("it syncs");
    for letter in group.dead_letters().expect("they are listed") {
        letter.expect("it is read").redrive_to(&other).expect("it redrives");
    }
    let delivery = others.receive(Duration::ZERO).expect("it receives").expect("it is there");
    sightings.push(handle(&mut database, &inbox, delivery.origin()));
    assert!(sightings.len() >= 5, "{sightings:?}");
    assert_eq!(sightings.iter().filter(|sighting| **sighting == Sighting::First).count(), 1, "{sightings:?}");
}

#[test]
fn pruning_forgets_the_oldest_of_one_inbox() {
    let mut database = Connection::open_in_memory().expect("it opens");
    let inboxes = ["mailer", "biller"].map(|name| Inbox::open(&database, name).expect("it opens"));
    for offset in 0..10 {
        for inbox in &inboxes {
            assert_eq!(handle(&mut database, inbox, id(offset)), Sighting::First);
        }
    }
    let [mailer, biller] = &inboxes;
    assert_eq!(mailer.prune_to(&database, 10).expect("it prunes"), 0);
    assert_eq!(mailer.prune_to(&database, 4).expect("it prunes"), 6);
    assert_eq!(handle(&mut database, mailer, id(6)), Sighting::Repeat);
    assert_eq!(handle(&mut database, mailer, id(5)), Sighting::First, "forgotten");
    assert_eq!(handle(&mut database, biller, id(5)), Sighting::Repeat);

    database
        .execute("UPDATE millpond_inbox SET handled_at = handled_at - 3600 WHERE number % 2 = 0", [])
        .expect("older");
    let older: i64 = database
        .query_row("SELECT count(*) FROM millpond_inbox WHERE number % 2 = 0 AND inbox = 'biller'", [], |row| {
            row.get(0)
        })
        .expect("a count");
    assert_eq!(biller.prune_older_than(&database, Duration::from_secs(7_200)).expect("it prunes"), 0);
    assert_eq!(biller.prune_older_than(&database, Duration::MAX).expect("it prunes"), 0);
    assert_eq!(biller.prune_older_than(&database, Duration::from_secs(1_800)).expect("it prunes"), older as u64);
    assert_eq!(mailer.prune_to(&database, 0).expect("it prunes"), 5);
}

#[test]
fn bad_names_and_newer_tables_have_errors_of_their_own() {
    let database = Connection::open_in_memory().expect("it opens");
    for name in [String::new(), "x".repeat(256)] {
        let error = Inbox::open(&database, name).expect_err("no name for an inbox");
        assert!(matches!(error, Error::InvalidName { what: "inbox", .. }), "{error}");
    }
    Inbox::open(&database, "mailer").expect("it opens");
    database.execute("UPDATE millpond_schema SET version = 2", []).expect("it is set");
    let error = Inbox::open(&database, "mailer").expect_err("a newer version");
    assert!(matches!(error, Error::NewerSchema { part: "inbox", found: 2, .. }), "{error}");
}
