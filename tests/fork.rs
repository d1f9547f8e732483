//! A forked child has the memory of a store and none of its right to it: every public call returns `Forked`, or a value that
//! needs no lock, and every drop leaves the parent's locks, threads and files alone.
//!
//! Threads of the parent are busy at each fork, so any lock may be held in the child for ever. A child that takes one hangs, which
//! ends the test; one that writes is found by the parent, which goes on, closes and opens again.

#![allow(unsafe_code)] // A fork cannot be had without.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use millpond::{
    Batch, BatchReceipt, Committed, DeadLetter, DeadLetters, Delivery, DeliveryRef, Durability, Error, Event, Expected,
    ForeignProjection, Group, InTransaction, KeepAlive, LogMessage, LogReader, Message, MessageState, ObservedLog,
    Observer, Peek, Peeked, Projection, ProjectionError, ReadFrom, Receipt, Receive, Result, Seek, Store, Stream,
    StreamReceipt, StreamSnapshot, Subscription, Topic,
};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// Everything that a program can hold.
struct Handles {
    store: Store,
    topic: Topic,
    /// Its messages are held here, and nobody else receives them.
    group: Group,
    receipt: Receipt,
    batch_receipt: BatchReceipt,
    committed: Committed<InTransaction>,
    deliveries: Vec<Delivery>,
    kept: Vec<KeepAlive>,
    batches: Vec<Batch>,
    letters: Vec<DeadLetter>,
    listed: DeadLetters,
    /// One has been asked and holds a delivery in its channel.
    subscriptions: Vec<Subscription>,
    reader: LogReader,
    read: LogMessage,
    stream: Stream,
    event: Event,
    stream_receipt: StreamReceipt,
    snapshot: StreamSnapshot,
    projections: Mutex<(Projection, ForeignProjection)>,
    appended: Committed<()>,
    /// It waits.
    asked: Receive,
    observer: Observer,
    observed: ObservedLog,
    peek: Peek,
    peeked: Peeked,
}

impl Handles {
    fn delivery(&mut self) -> Delivery {
        self.deliveries.pop().unwrap()
    }

    fn letter(&mut self) -> DeadLetter {
        self.letters.pop().unwrap()
    }

    fn batch(&mut self) -> Batch {
        self.batches.pop().unwrap()
    }
}

/// What a future gives at once.
fn ready<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    match std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

fn refused<T>(result: Result<T>) -> bool {
    matches!(result, Err(Error::Forked))
}

/// A call of a name, or of several: whether it was refused, or gave what needs no lock.
type Call = (&'static [&'static str], fn(&mut Handles) -> bool);

fn look(delivery: DeliveryRef<'_>) -> bool {
    let names = (delivery.topic(), delivery.group()) == ("t", "g");
    let ids = delivery.id() == delivery.origin();
    let told = (delivery.payload(), delivery.key(), delivery.header("h")) == (b"m", Some(b"k"), Some(b"v"));
    names
        && ids
        && told
        && delivery.headers().count() == 1
        && delivery.attempt() == 1
        && delivery.timestamp().elapsed().is_ok()
}

const CALLS: &[Call] = &[
    (&["Store::close"], |all| refused(all.store.close()) && refused(all.store.close())),
    (&["Store::report"], |all| all.store.report().created),
    (&["Store::stats"], |all| refused(all.store.stats())),
    (&["Store::sync"], |all| refused(all.store.sync())),
    (&["Store::state_hash"], |all| refused(all.store.state_hash())),
    (&["Store::violations"], |all| all.store.violations().is_empty()),
    (&["Store::tick"], |all| refused(all.store.tick())),
    (&["Store::rests"], |all| !all.store.rests()),
    (&["Store::checkpoint"], |all| refused(all.store.checkpoint())),
    (
        &[
            "Store::topic",
            "TopicBuilder::open",
            "TopicBuilder::partitions",
            "TopicBuilder::retention",
            "TopicBuilder::dedup_ids",
            "TopicBuilder::dedup_window",
            "TopicBuilder::streams",
            "TopicBuilder::snapshots_kept",
            "TopicBuilder::max_messages",
            "TopicBuilder::when_full",
            "TopicBuilder::drop_unsettled",
            "TopicBuilder::create",
        ],
        |all| {
            let new = all.store.topic("new").partitions(2).streams().snapshots_kept(2).open();
            let bound = all
                .store
                .topic("new")
                .max_messages(2)
                .when_full(millpond::WhenFull::Reject)
                .drop_unsettled(false)
                .open();
            refused(all.store.topic("t").open())
                && refused(new)
                && refused(bound)
                && refused(all.store.topic("t").create(false).open())
        },
    ),
    (&["Store::remove_topic"], |all| refused(all.store.remove_topic("t")) && refused(all.store.remove_topic("none"))),
    (&["Topic::remove_group"], |all| refused(all.topic.remove_group("g")) && refused(all.topic.remove_group("none"))),
    (
        &[
            "Group::alter",
            "GroupChange::apply",
            "GroupChange::visibility_timeout",
            "GroupChange::max_attempts",
            "GroupChange::max_nacks",
            "GroupChange::max_expiries",
            "GroupChange::max_crashes",
            "GroupChange::backoff",
            "GroupChange::max_outstanding",
            "GroupChange::max_closes",
            "GroupChange::dead_letter_notices",
            "GroupChange::max_in_flight",
            "GroupChange::rate_limit",
            "GroupChange::filter_from_here",
        ],
        |all| {
            let notices = all.group.alter().dead_letter_notices(&all.topic).apply();
            refused(all.group.alter().max_attempts(9).apply()) && refused(notices) && refused(all.group.alter().apply())
        },
    ),
    (&["Delivery::expires_in"], |all| refused(all.deliveries[0].expires_in())),
    (&["Delivery::keep_alive", "KeepAlive::is_active"], |all| {
        refused(all.deliveries[0].keep_alive(LONG)) && !all.kept[0].is_active()
    }),
    (&["Group::seek", "Group::preview_seek"], |all| {
        refused(all.group.seek(Seek::Earliest)) && refused(all.group.preview_seek(Seek::Latest))
    }),
    (&["Group::pause", "Group::resume"], |all| refused(all.group.pause()) && refused(all.group.resume())),
    (&["Topic::name", "Topic::partitions"], |all| (all.topic.name(), all.topic.partitions()) == ("t", 1)),
    (&["Topic::with_durability", "Topic::publish"], |all| {
        refused(all.topic.publish("x")) && refused(all.topic.with_durability(Durability::Disk).publish("x"))
    }),
    (
        &[
            "Topic::reader",
            "LogReaderBuilder::open",
            "LogReaderBuilder::from",
            "LogReaderBuilder::from_start",
            "LogReaderBuilder::from_end",
        ],
        |all| {
            let (start, end) = (all.topic.reader().from_start().open(), all.topic.reader().from_end().open());
            refused(start) && refused(end) && refused(all.topic.reader().from(all.read.position()).open())
        },
    ),
    (&["Observer::refresh", "Observer::stats", "Observer::cursors", "Observer::cursor"], |all| {
        refused(all.observer.refresh())
            && refused(all.observer.cursor("c"))
            && refused(all.observer.stats())
            && refused(all.observer.cursors())
    }),
    (&["Store::backup", "Observer::backup"], |all| {
        refused(all.store.backup("nowhere")) && refused(all.observer.backup("nowhere", |_, _| ()))
    }),
    (&["Observer::verify", "Observer::dump"], |all| {
        refused(all.observer.verify(|_| ())) && refused(all.observer.dump(millpond::Lsn(0), |_| true))
    }),
    (&["Observer::log", "Observer::peek", "ObservedLog::try_next"], |all| {
        refused(all.observer.log("t", ReadFrom::Start))
            && refused(all.observer.peek("t", "g", MessageState::Dead, 4))
            && refused(all.observed.try_next())
            && all.peek.next().is_some_and(refused)
    }),
    (
        &[
            "Observer::end",
            "Peeked::id",
            "Peeked::origin",
            "Peeked::payload",
            "Peeked::key",
            "Peeked::headers",
            "Peeked::timestamp",
            "Peeked::attempts",
            "Peeked::history",
        ],
        |all| {
            let peeked = &all.peeked;
            let told = (peeked.payload(), peeked.key(), peeked.attempts()) == (&b"m"[..], Some(&b"k"[..]), 1);
            let ids = peeked.id() != peeked.origin() && all.observer.end().0 > 0;
            told && ids
                && peeked.headers().count() == 1
                && peeked.timestamp().elapsed().is_ok()
                && peeked.history().len() == 1
        },
    ),
    (&["LogReader::next", "LogReader::try_next"], |all| {
        refused(all.reader.next(LONG)) && refused(all.reader.try_next())
    }),
    (
        &[
            "LogMessage::position",
            "LogMessage::topic",
            "LogMessage::id",
            "LogMessage::origin",
            "LogMessage::payload",
            "LogMessage::key",
            "LogMessage::headers",
            "LogMessage::header",
            "LogMessage::timestamp",
        ],
        |all| {
            let read = &all.read;
            let told = (read.payload(), read.key(), read.header("h")) == (b"m", Some(b"k"), Some(b"v"));
            let ids = (read.topic(), read.id()) == ("t", read.origin()) && read.position() == read.position();
            told && ids && read.headers().count() == 1 && read.timestamp().elapsed().is_ok()
        },
    ),
    (&["Message::delay", "Message::deliver_at"], |all| {
        // The parent looked at the clock.
        let at = all.snapshot.timestamp() + LONG * 60;
        refused(all.topic.publish(Message::new("x").delay(LONG)))
            && refused(all.topic.publish(Message::new("x").deliver_at(at)))
    }),
    (&["Topic::scheduled", "Topic::cancel_scheduled", "Topic::reschedule_in", "Topic::reschedule_at"], |all| {
        let id = all.receipt.id();
        refused(all.topic.scheduled(None, 1))
            && refused(all.topic.cancel_scheduled(id))
            && refused(all.topic.reschedule_in(id, LONG))
            && refused(all.topic.reschedule_at(id, std::time::UNIX_EPOCH))
    }),
    (&["Topic::publish_batch"], |all| refused(all.topic.publish_batch(["x", "y"]))),
    (&["Store::cursors"], |all| refused(all.store.cursors())),
    (&["Store::cursor", "Cursor::name", "Cursor::get", "Cursor::set", "Cursor::remove"], |all| {
        let cursor = all.store.cursor("c").unwrap();
        cursor.name() == "c" && refused(cursor.get()) && refused(cursor.set(None, "x")) && refused(cursor.remove())
    }),
    (
        &["Topic::cursor", "TopicCursor::name", "TopicCursor::position", "TopicCursor::advance", "TopicCursor::remove"],
        |all| {
            let (cursor, to) = (all.topic.cursor("c").unwrap(), all.read.position());
            let is_refused = refused(cursor.position()) && refused(cursor.advance(None, to));
            cursor.name() == "c" && is_refused && refused(cursor.remove())
        },
    ),
    (
        &[
            "Topic::stream",
            "Stream::key",
            "Stream::topic",
            "Stream::append",
            "Stream::read",
            "Stream::read_back",
            "Stream::last_version",
            "Stream::first_version",
            "Stream::truncate_before",
            "Stream::delete",
            "Stream::save_snapshot",
            "Stream::snapshot",
            "Stream::snapshot_upto",
        ],
        |all| {
            let stream = all.stream.topic().stream("other").unwrap();
            let reads = refused(stream.read(0, 9)) && refused(all.stream.read_back(9, 9));
            let heads = refused(stream.last_version()) && refused(all.stream.first_version());
            let writes = refused(all.stream.append(Expected::Any, ["x"])) && refused(stream.delete());
            let saves = refused(stream.save_snapshot(0, "x")) && refused(all.stream.save_snapshot(0, "x"));
            let snapshots = refused(stream.snapshot()) && refused(all.stream.snapshot_upto(9));
            let told = reads && heads && saves && snapshots;
            all.stream.key() == b"s" && told && writes && refused(all.stream.truncate_before(1))
        },
    ),
    (
        &["Event::version", "Event::id", "Event::payload", "Event::headers", "Event::header", "Event::timestamp"],
        |all| {
            let event = &all.event;
            let told = (event.version(), event.payload(), event.header("h")) == (0, b"m", Some(b"v"));
            told && event.id() == all.stream_receipt.ids()[0]
                && event.headers().count() == 1
                && event.timestamp().elapsed().is_ok()
        },
    ),
    (&["Topic::projection", "ProjectionBuilder::batch", "ProjectionBuilder::open", "Topic::projection_from"], |all| {
        all.topic.projection("p").batch(9).open().is_ok() && refused(all.topic.projection_from(None))
    }),
    (
        &[
            "Projection::name",
            "Projection::run_once",
            "Projection::run",
            "Projection::rebuild",
            "Projection::status",
            "ForeignProjection::run_once",
            "ForeignProjection::status",
        ],
        |all| {
            let mut new = all.topic.projection("p").open().unwrap();
            let in_child = |error: ProjectionError<Error>| matches!(error, ProjectionError::Store(Error::Forked));
            let ran = new.run_once(|_, _| unreachable!("nothing is read")).is_err_and(in_child);
            let mut projections = all.projections.lock().unwrap();
            let (own, foreign) = &mut *projections;
            let runs = own.run(|| false, |_, _| Ok(())).is_err_and(in_child);
            let foreign_ran = foreign.run_once(9, |_| Ok::<_, Error>(())).is_err_and(in_child);
            let told = refused(own.rebuild()) && refused(own.status()) && refused(foreign.status());
            new.name() == "p" && ran && runs && foreign_ran && told
        },
    ),
    (&["StreamSnapshot::version", "StreamSnapshot::payload", "StreamSnapshot::timestamp"], |all| {
        let snapshot = &all.snapshot;
        (snapshot.version(), snapshot.payload()) == (0, b"snapshot") && snapshot.timestamp().elapsed().is_ok()
    }),
    (
        &[
            "StreamReceipt::first_version",
            "StreamReceipt::last_version",
            "StreamReceipt::is_repeat",
            "StreamReceipt::ids",
            "StreamReceipt::lsn",
        ],
        |all| {
            let receipt = &all.stream_receipt;
            !receipt.is_repeat()
                && (receipt.first_version(), receipt.last_version(), receipt.ids().len()) == (0, 0, 1)
                && receipt.lsn().get() > 0
        },
    ),
    (&["StreamReceipt::wait_durable"], |all| matches!(all.stream_receipt.wait_durable(), Ok(()) | Err(Error::Forked))),
    (&["Committed::versions"], |all| all.appended.versions(&all.stream) == Some(1..2)),
    (&["Topic::producer", "Producer::name", "Producer::next_sequence", "Producer::publish"], |all| {
        let producer = all.topic.producer("p").unwrap();
        producer.name() == "p" && refused(producer.next_sequence()) && refused(producer.publish(0, "x"))
    }),
    (
        &[
            "Topic::group",
            "GroupBuilder::open",
            "GroupBuilder::create",
            "GroupBuilder::visibility_timeout",
            "GroupBuilder::max_attempts",
            "GroupBuilder::max_nacks",
            "GroupBuilder::max_expiries",
            "GroupBuilder::max_crashes",
            "GroupBuilder::backoff",
            "GroupBuilder::max_outstanding",
            "GroupBuilder::max_closes",
            "GroupBuilder::dead_letter_notices",
            "GroupBuilder::ordering",
            "GroupBuilder::max_in_flight_per_key",
            "GroupBuilder::max_in_flight",
            "GroupBuilder::rate_limit",
            "GroupBuilder::filter",
            "GroupBuilder::start",
        ],
        |all| {
            let new = all.topic.group("new").max_attempts(3).dead_letter_notices(&all.topic).open();
            let ordered = all.topic.group("g").ordering(millpond::Ordering::Key).max_in_flight_per_key(2).open();
            refused(all.topic.group("g").open())
                && refused(new)
                && refused(ordered)
                && refused(all.topic.group("g").create(false).open())
        },
    ),
    (&["Receipt::id", "Receipt::lsn", "Receipt::level", "Receipt::is_repeat"], |all| {
        !all.receipt.is_repeat()
            && all.receipt.id().partition == 0
            && all.receipt.lsn().get() > 0
            && all.receipt.level() == Durability::Os
    }),
    (&["Receipt::wait_durable"], |all| {
        // Known to be durable, or not to be had here.
        matches!(all.receipt.wait_durable(), Ok(()) | Err(Error::Forked))
    }),
    (&["BatchReceipt::ids", "BatchReceipt::lsn", "BatchReceipt::level", "BatchReceipt::is_repeat"], |all| {
        let receipt = &all.batch_receipt;
        !receipt.is_repeat(0)
            && receipt.ids().len() == 2
            && receipt.lsn().get() > 0
            && receipt.level() == Durability::Os
    }),
    (&["BatchReceipt::wait_durable"], |all| matches!(all.batch_receipt.wait_durable(), Ok(()) | Err(Error::Forked))),
    (&["Committed::id", "Committed::ids", "Committed::lsn", "Committed::is_repeat"], |all| {
        let done = &all.committed;
        !done.is_repeat(done.value)
            && done.id(done.value) == done.ids().first().copied()
            && done.ids().len() == 1
            && done.lsn().get() > 0
    }),
    (&["Committed::wait_durable"], |all| matches!(all.committed.wait_durable(), Ok(()) | Err(Error::Forked))),
    (
        &[
            "Store::transaction",
            "Transaction::durability",
            "Transaction::publish",
            "Transaction::ack",
            "Transaction::ack_batch",
            "Transaction::nack",
            "Transaction::nack_after",
            "Transaction::reject",
            "Transaction::append",
            "Transaction::save_snapshot",
            "Transaction::set_cursor",
            "Transaction::advance",
        ],
        // There is no transaction to call.
        |all| refused(all.store.transaction(|_| -> Result<()> { unreachable!("the body is not run") })),
    ),
    (&["Group::name", "Group::topic"], |all| (all.group.name(), all.group.topic()) == ("g", "t")),
    (&["Group::receive"], |all| refused(all.group.receive(LONG)) && refused(all.group.receive(Duration::ZERO))),
    (&["Group::receive_batch"], |all| refused(all.group.receive_batch(10, LONG))),
    (&["Group::subscribe"], |all| refused(all.group.subscribe())),
    (&["Group::receive_async", "Group::receive_batch_async", "Group::stream"], |all| {
        let (mut one, mut batch) = (all.group.receive_async(), all.group.receive_batch_async(10));
        let mut stream = all.group.stream();
        let next = std::pin::Pin::new(&mut stream);
        let streamed = futures_core::Stream::poll_next(next, &mut Context::from_waker(Waker::noop()));
        let streamed = matches!(streamed, Poll::Ready(Some(Err(Error::Forked))));
        // One was polled by the parent.
        ready(&mut one).is_some_and(refused)
            && ready(&mut batch).is_some_and(refused)
            && ready(&mut all.asked).is_some_and(refused)
            && streamed
    }),
    (&["Topic::publish_async"], |all| ready(&mut all.topic.publish_async("x")).is_some_and(refused)),
    (&["Receipt::durable", "BatchReceipt::durable"], |all| {
        let both = [ready(&mut all.receipt.durable()), ready(&mut all.batch_receipt.durable())];
        both.iter().all(|durable| matches!(durable, Some(Ok(()) | Err(Error::Forked))))
    }),
    (&["Group::dead_letters"], |all| refused(all.group.dead_letters())),
    (&["Group::dead_letter"], |all| refused(all.group.dead_letter(all.letters[0].id()))),
    (&["Group::redrive_all"], |all| refused(all.group.redrive_all())),
    (&["Group::redrive_where"], |all| refused(all.group.redrive_where(|_| true))),
    (&["Subscription::request"], |all| {
        all.subscriptions.iter().all(|subscription| {
            let channel = subscription.request();
            channel.recv().is_ok_and(refused) && channel.recv().is_err()
        })
    }),
    (&["Subscription::recv"], |all| all.subscriptions.iter().all(|subscription| refused(subscription.recv()))),
    (&["Subscription::recv_timeout"], |all| {
        all.subscriptions.iter().all(|subscription| refused(subscription.recv_timeout(LONG)))
    }),
    (&["Subscription::try_recv"], |all| all.subscriptions.iter().all(|subscription| refused(subscription.try_recv()))),
    (&["Subscription::iter"], |all| {
        let items: Vec<_> = all.subscriptions[0].iter().collect();
        items.len() == 1 && items.into_iter().all(refused)
    }),
    (
        &[
            "Delivery::topic",
            "Delivery::group",
            "Delivery::id",
            "Delivery::origin",
            "Delivery::payload",
            "Delivery::key",
            "Delivery::headers",
            "Delivery::header",
            "Delivery::attempt",
            "Delivery::failures",
            "Delivery::timestamp",
        ],
        |all| {
            let delivery = &all.deliveries[0];
            let same = delivery.headers().count() == 1 && delivery.header("h") == Some(b"v");
            let ids = (delivery.topic(), delivery.group()) == ("t", "g") && delivery.id() == delivery.origin();
            same && ids && delivery.key() == Some(b"k") && delivery.payload() == b"m" && look(delivery.into())
        },
    ),
    (&["Delivery::ack"], |all| refused(all.delivery().ack())),
    (&["Delivery::ack_durable"], |all| refused(all.delivery().ack_durable())),
    (&["Delivery::nack"], |all| refused(all.delivery().nack("no"))),
    (&["Delivery::nack_after"], |all| refused(all.delivery().nack_after(Duration::ZERO, "no"))),
    (&["Delivery::reject"], |all| refused(all.delivery().reject("no"))),
    (&["Delivery::release"], |all| refused(all.delivery().release())),
    (&["Delivery::extend"], |all| refused(all.deliveries[0].extend(LONG))),
    (
        &[
            "DeliveryRef::topic",
            "DeliveryRef::group",
            "DeliveryRef::id",
            "DeliveryRef::origin",
            "DeliveryRef::payload",
            "DeliveryRef::key",
            "DeliveryRef::headers",
            "DeliveryRef::header",
            "DeliveryRef::attempt",
            "DeliveryRef::failures",
            "DeliveryRef::timestamp",
            "Batch::iter",
            "Batch::len",
            "Batch::is_empty",
            "Batch::unreadable",
        ],
        |all| {
            let batch = &all.batches[0];
            batch.len() == 3 && !batch.is_empty() && batch.unreadable().is_empty() && batch.iter().all(look)
        },
    ),
    (&["Batch::ack"], |all| refused(all.batch().ack())),
    (&["Batch::ack_durable"], |all| refused(all.batch().ack_durable())),
    (
        &[
            "DeadLetter::topic",
            "DeadLetter::group",
            "DeadLetter::id",
            "DeadLetter::origin",
            "DeadLetter::payload",
            "DeadLetter::key",
            "DeadLetter::headers",
            "DeadLetter::header",
            "DeadLetter::timestamp",
            "DeadLetter::attempts",
            "DeadLetter::failures",
            "DeadLetter::history",
        ],
        |all| {
            let letter = &all.letters[0];
            let names = (letter.topic(), letter.group()) == ("t", "g") && letter.id() != letter.origin();
            let told = (letter.payload(), letter.key(), letter.header("h")) == (b"m", Some(b"k"), Some(b"v"));
            let past = (letter.attempts(), letter.history().len()) == (1, 1) && letter.timestamp().elapsed().is_ok();
            names && told && past && letter.headers().count() == 1
        },
    ),
    (&["DeadLetter::redrive"], |all| refused(all.letter().redrive())),
    (&["DeadLetter::redrive_to"], |all| {
        let topic = all.topic.clone();
        refused(all.letter().redrive_to(&topic))
    }),
    (&["DeadLetter::discard"], |all| refused(all.letter().discard())),
    (&["DeadLetters as an iterator"], |all| all.listed.next().is_some_and(refused)),
    (&["a delivery by itself, of a batch"], |all| {
        let deliveries: Vec<Delivery> = all.batch().into_iter().collect();
        deliveries.into_iter().all(|delivery| refused(delivery.ack()))
    }),
    (&["the same names as text"], |all| {
        let one = format!("{:?} {:?} {:?} {:?}", all.store, all.topic, all.group, all.receipt);
        let other = format!("{:?} {:?} {:?}", all.deliveries, all.batches, all.letters);
        let last = format!("{:?} {:?} {:?} {:?}", all.batch_receipt, all.committed, all.listed, all.subscriptions);
        (one + &other + &last).contains("\"t\"")
    }),
];

/// Functions without a handle, and why they are not called here.
const NO_HANDLE: &[&str] = &[
    // They make a value out of values.
    "Message::new",
    "Message::key",
    "Message::header",
    "Message::partition",
    "Message::dedup_id",
    "Message::unique_key",
    "Backoff::exponential",
    "Backoff::fixed",
    "Backoff::none",
    "Backoff::max",
    "Backoff::delay_max",
    "Backoff::jitter",
    "Backoff::linear",
    "Backoff::list",
    "Backoff::full_jitter",
    "RateLimit::new",
    "RateLimit::burst",
    "LostLeases::is_empty",
    "LostLeases::len",
    // Of a simulator, which has one process.
    "Store::backup_to",
    "Observer::backup_to",
    "Group::fall_asleep",
    "Sleeper::is_awake",
    "Store::stuck_sleepers",
    // They open a store: the child's own, if it is another directory.
    "Store::open_read_only",
    "StoreOptions::open_read_only",
    "StoreOptions::open_read_only_on",
    "StoreOptions::repair",
    "StoreOptions::plan_repair",
    "StoreOptions::repair_on",
    "Store::open",
    "Store::options",
    "StoreOptions::index",
    "StoreOptions::index_home",
    "StoreOptions::parked_max",
    "StoreOptions::durability",
    "StoreOptions::sync_interval",
    "StoreOptions::segment_bytes_max",
    "StoreOptions::max_bytes",
    "StoreOptions::message_bytes_max",
    "StoreOptions::allow_network_fs",
    "StoreOptions::isolation_limit",
    "StoreOptions::create",
    "StoreOptions::open",
    "StoreOptions::open_on",
    "StoreOptions::open_with_threads",
];

/// The name of what is dropped, and its drop.
type Dropped = (&'static str, fn(Handles));

/// What a child lets go of, by dropping it.
const DROPS: &[Dropped] = &[
    // Fields are dropped in the order in which they are declared.
    ("everything, the store first", drop),
    ("everything, the store last", |all| {
        let Handles {
            store,
            topic,
            group,
            receipt,
            batch_receipt,
            committed,
            deliveries,
            kept,
            batches,
            letters,
            listed,
            subscriptions,
            reader,
            read,
            stream,
            event,
            stream_receipt,
            snapshot,
            projections,
            appended,
            asked,
            observer,
            observed,
            peek,
            peeked,
        } = all;
        drop((observer, observed, peek, peeked));
        drop((asked, stream, event, stream_receipt, snapshot, projections, appended));
        drop((subscriptions, reader, read));
        drop((letters, listed, batches, kept, deliveries));
        drop((committed, batch_receipt, receipt, group, topic, store));
    }),
    ("deliveries", |all| forget_but(all, |all| std::mem::take(&mut all.deliveries))),
    ("guards of leases", |all| forget_but(all, |all| std::mem::take(&mut all.kept))),
    ("batches", |all| forget_but(all, |all| std::mem::take(&mut all.batches))),
    ("subscriptions", |all| forget_but(all, |all| std::mem::take(&mut all.subscriptions))),
    ("letters", |all| forget_but(all, |all| std::mem::take(&mut all.letters))),
    ("futures", |all| {
        drop((all.group.receive_async(), all.topic.publish_async("x"), all.receipt.durable()));
        forget_but(all, |all| std::mem::replace(&mut all.asked, all.group.receive_async()));
    }),
    ("clones", |all| {
        drop((all.store.clone(), all.topic.clone(), all.group.clone(), all.receipt.clone(), all.batch_receipt.clone()));
        std::mem::forget(all);
    }),
];

fn forget_but<T>(mut all: Handles, part: impl FnOnce(&mut Handles) -> T) {
    drop(part(&mut all));
    std::mem::forget(all);
}

/// Runs `body` in a forked child, which must end by itself within half a minute.
fn in_child(name: &str, body: impl FnOnce() -> bool) {
    // SAFETY: what the child runs is what is tested here: it must take no lock of the parent's. It leaves without unwinding.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: a child that hangs is ended by this signal.
        unsafe { libc::alarm(30) };
        let held = catch_unwind(AssertUnwindSafe(body));
        let code = match held {
            Ok(true) => 0,
            Ok(false) => 1,
            Err(_) => 2,
        };
        // SAFETY: ends the process at once.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: waits for the child made above.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(!libc::WIFSIGNALED(status), "{name}: the child was ended by signal {}", libc::WTERMSIG(status));
    assert_eq!(libc::WEXITSTATUS(status), 0, "{name}: 1 is a wrong answer, 2 a panic");
}

/// In a child, to be dropped there: its copy of what the parent holds.
fn copy_of<T>(held: &T) -> T {
    // SAFETY: the child has its own copy of all memory and ends without running the parent's destructors, so the value is dropped
    // once in each process.
    unsafe { std::ptr::read(held) }
}

fn message() -> Message<'static> {
    Message::new("m").key("k").header("h", "v")
}

/// Handles of all kinds, each with something behind it.
fn handles(store: Store, path: &Path) -> Handles {
    let topic = store.topic("t").open().unwrap();
    let group = topic.group("g").visibility_timeout(Duration::from_secs(3600)).open().unwrap();
    let receipt = topic.publish(message()).unwrap();
    let batch_receipt = topic.publish_batch([message(), message()]).unwrap();
    for _ in 0..17 {
        topic.publish(message()).unwrap();
    }
    for delivery in group.receive_batch(4, LONG).unwrap() {
        delivery.reject("no").unwrap();
    }
    let other = store.topic("transactions").open().unwrap();
    let committed = store.transaction(|tx| tx.publish(&other, "m")).unwrap();
    let letters = group.dead_letters().unwrap().map(|letter| letter.unwrap()).collect();
    let deliveries: Vec<Delivery> = (0..7).map(|_| group.receive(LONG).unwrap().unwrap()).collect();
    let kept = vec![Delivery::keep_alive(&deliveries[0], Duration::from_secs(36_000)).unwrap()];
    let batches = (0..3).map(|_| group.receive_batch(3, LONG).unwrap()).collect();
    let listed = group.dead_letters().unwrap();
    let other = topic.group("asked").open().unwrap();
    let subscriptions = vec![other.subscribe().unwrap(), topic.group("waits").open().unwrap().subscribe().unwrap()];
    // Its thread has a delivery in the channel; that of the other one has none yet, and soon looks for one.
    while subscriptions[0].request().is_empty() {
        thread::yield_now();
    }
    let mut reader = topic.reader().open().unwrap();
    let read = reader.try_next().unwrap().unwrap();
    let stream = store.topic("streams").streams().open().unwrap().stream("s").unwrap();
    let event = || Message::new("m").header("h", "v");
    let stream_receipt = stream.append(Expected::NoStream, [event()]).unwrap();
    stream.save_snapshot(0, "snapshot").unwrap();
    let snapshot = stream.snapshot().unwrap().unwrap();
    let appended = store.transaction(|tx| tx.append(&stream, Expected::Exists, [event()])).unwrap();
    let mut own = stream.topic().projection("own").batch(1).open().unwrap();
    own.run_once(|_, _| Ok::<_, Error>(())).unwrap();
    let foreign = stream.topic().projection_from(None).unwrap();
    let event = stream.read(0, 1).unwrap().pop().unwrap();
    let mut asked = topic.group("asks").open().unwrap().receive_async();
    drop(ready(&mut asked));
    store.sync().unwrap();
    let observer = Store::open_read_only(path).unwrap();
    let observed = observer.log("t", ReadFrom::Start).unwrap();
    let mut peek = observer.peek("t", "g", MessageState::Dead, 4).unwrap();
    let peeked = peek.next().unwrap().unwrap();
    Handles {
        store,
        topic,
        group,
        receipt,
        batch_receipt,
        committed,
        deliveries,
        kept,
        batches,
        letters,
        listed,
        subscriptions,
        reader,
        read,
        stream,
        event,
        stream_receipt,
        snapshot,
        projections: Mutex::new((own, foreign)),
        appended,
        asked,
        observer,
        observed,
        peek,
        peeked,
    }
}

/// Threads that are in the midst of everything when the process forks.
/// The workers end when `stop` is set; the waiter when the store is closed.
fn busy(
    store: &Store,
    stop: &Arc<AtomicBool>,
    published: &Arc<AtomicU64>,
) -> (Vec<thread::JoinHandle<()>>, thread::JoinHandle<()>) {
    let topic = store.topic("busy").open().unwrap();
    let group = topic.group("g").open().unwrap();
    let publisher = {
        let (topic, stop, published) = (topic.clone(), Arc::clone(stop), Arc::clone(published));
        move || {
            while !stop.load(Ordering::Relaxed) {
                topic.publish([7; 100]).unwrap();
                published.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let receiver = {
        let stop = Arc::clone(stop);
        move || {
            while !stop.load(Ordering::Relaxed) {
                let _lost = group.receive_batch(100, Duration::from_millis(1)).unwrap().ack().unwrap();
            }
        }
    };
    let subscription = topic.group("s").open().unwrap().subscribe().unwrap();
    let stopped = Arc::clone(stop);
    let subscriber = move || {
        while !stopped.load(Ordering::Relaxed) {
            if let Ok(item) = subscription.request().recv_timeout(Duration::from_millis(1)) {
                item.unwrap().ack().unwrap();
            }
        }
    };
    let quiet = store.topic("quiet").open().unwrap().group("g").open().unwrap();
    let waiter =
        move || assert!(matches!(quiet.receive(LONG), Err(Error::Closed)), "it waits until the store is closed");
    (vec![thread::spawn(publisher), thread::spawn(receiver), thread::spawn(subscriber)], thread::spawn(waiter))
}

/// Every call and every drop, each in children that were forked while threads of the parent did everything.
#[test]
fn a_forked_child_is_refused_and_touches_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let open = || Store::options().durability(Durability::Os).segment_bytes_max(1 << 20).open(&path).unwrap();
    let (stop, published) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let store = open();
    let mut all = handles(store.clone(), &path);
    let (workers, waiter) = busy(&store, &stop, &published);
    for (names, call) in CALLS {
        for _ in 0..3 {
            in_child(&names.join(", "), || call(&mut all));
        }
    }
    for (name, dropped) in DROPS {
        for _ in 0..3 {
            in_child(name, || {
                let copy = copy_of(&all);
                // Of the parent's own handle too, so that none is left; those of its threads are never dropped in the child.
                drop(copy_of(&store));
                dropped(copy);
                true
            });
        }
    }
    // The parent has lost nothing: everything that it held is still its own.
    for delivery in all.deliveries.drain(..) {
        delivery.ack().unwrap();
    }
    for batch in all.batches.drain(..) {
        assert!(batch.ack().unwrap().is_empty());
    }
    let asked = all.subscriptions[0].request().recv().unwrap().unwrap();
    assert_eq!((asked.payload(), asked.attempt()), (&b"m"[..], 1));
    asked.ack().unwrap();
    assert_eq!(all.letters.len(), 4);
    all.letters.drain(..).for_each(|letter| letter.redrive().unwrap());
    stop.store(true, Ordering::Relaxed);
    assert!(matches!(Store::open(&path), Err(Error::Locked { .. })), "no child unlocked it");
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    store.close().unwrap();
    waiter.join().unwrap();
    drop((store, all));

    let store = open();
    assert!(store.report().was_clean && store.report().dropped.is_none(), "{:?}", store.report());
    let stats = store.stats().unwrap();
    let count = |name: &str| stats.topics.iter().find(|topic| topic.name == name).unwrap().published;
    assert_eq!((count("busy"), count("t")), (published.load(Ordering::Relaxed), 20));
}

/// The store of the parent is closed: a child that drops its last handle would free the engine, files and all.
#[test]
fn a_child_of_a_closed_store_drops_its_handles() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("s")).unwrap();
    let topic = store.topic("t").open().unwrap();
    topic.publish("m").unwrap();
    store.close().unwrap();
    let again = Store::open(directory.path().join("s")).unwrap();
    in_child("drop after close", || {
        drop((copy_of(&topic), copy_of(&store), copy_of(&again)));
        true
    });
    assert!(matches!(Store::open(directory.path().join("s")), Err(Error::Locked { .. })));
    assert_eq!(again.stats().unwrap().topics[0].published, 1);
}

/// Every public function of the handles stands in the table, or is named with the reason why not.
#[test]
fn the_table_names_every_public_function() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api");
    let mut public = BTreeSet::new();
    for entry in std::fs::read_dir(sources).unwrap() {
        let source = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let mut owner = "";
        for line in source.lines() {
            if let Some(rest) = line.strip_prefix("impl") {
                let rest = rest.rsplit(" for ").next().unwrap_or(rest);
                // Generics of the implementation come before the type.
                let rest = rest.strip_prefix("<T> ").unwrap_or(rest);
                let named = rest.trim_start_matches(|c: char| !c.is_uppercase());
                owner = named.split(|c: char| !c.is_alphanumeric()).next().unwrap();
            }
            let function = line.trim_start().strip_prefix("pub ").map(|rest| rest.trim_start_matches("const "));
            if let Some(name) = function.and_then(|rest| rest.strip_prefix("fn ")) {
                public.insert(format!("{owner}::{}", name.split(['(', '<']).next().unwrap()));
            }
        }
    }
    assert!(public.len() > 80, "the sources were not found");
    let called = CALLS.iter().flat_map(|(names, _)| *names).filter(|name| name.contains("::"));
    let known: BTreeSet<String> = called.chain(NO_HANDLE).map(|name| (*name).to_owned()).collect();
    let forgotten: Vec<_> = public.difference(&known).collect();
    assert!(forgotten.is_empty(), "not tried in a forked child: {forgotten:?}");
    let gone: Vec<_> = known.difference(&public).collect();
    assert!(gone.is_empty(), "the table names {gone:?}, which are not there");
}
