//! Subscribers with threads: order, timeouts, shutdown, and a bus that ends in its own handler.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{Faults, Notes, Order, noted};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use millpond::{Backoff, Durability, Store};
use millpond_events::{Bus, Event, Failure, Incoming};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Longer than anything here takes: a test that waits for it fails.
const LONG: Duration = Duration::from_secs(60);

fn open() -> (tempfile::TempDir, Store, Bus, Faults) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::options().durability(Durability::Os).open(dir.path().join("store")).unwrap();
    let faults = Faults::default();
    let bus = Bus::builder(&store).on_fault(noted(&faults)).open().unwrap();
    (dir, store, bus, faults)
}

/// A handler that reports when it begins, and goes on when it is told to.
#[allow(clippy::type_complexity, reason = "the type of a handler has no name")]
fn gated() -> (impl Fn(&Incoming<Order>) -> Result<(), Failure> + Send + Sync + Clone, Receiver<String>, Sender<()>) {
    let (begin, began) = unbounded();
    let (go, gate) = unbounded::<()>();
    let handler = move |order: &Incoming<Order>| {
        begin.send(order.id().to_owned()).unwrap();
        gate.recv_timeout(LONG).map_err(Failure::from)
    };
    (handler, began, go)
}

#[test]
fn events_of_a_subject_are_handled_in_order_by_many_workers() {
    let (_dir, _store, bus, _) = open();
    let seen = Arc::new(Mutex::new(HashMap::<String, Vec<u32>>::new()));
    let noted = Arc::clone(&seen);
    let subscriber = bus
        .subscriber("kitchen")
        .workers(8)
        .on("order.cooked", move |order: &Incoming<Order>| {
            let &Order::Cooked(number) = order.data() else { return Err(Failure::permanent("another type")) };
            // Others of the subject would overtake here.
            std::thread::yield_now();
            noted.lock().unwrap().entry(order.subject().unwrap().to_owned()).or_default().push(number);
            Ok(())
        })
        .start()
        .unwrap();
    for number in 0..2000 {
        let subject = format!("customer-{}", number % 7);
        bus.publish(Event::new(Order::Cooked(number)).with_subject(subject)).unwrap();
    }
    assert!(subscriber.wait(LONG, |stats| stats.handled == 2000), "{:?}", subscriber.stats());
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 7);
    for (subject, numbers) in &*seen {
        let late = numbers.windows(2).find(|pair| pair[0] > pair[1]);
        assert_eq!(late, None, "{subject}");
    }
    let _report = bus.shutdown(LONG);
}

#[test]
fn events_of_other_subjects_pass_a_slow_one() {
    let (_dir, _store, bus, _) = open();
    let (handler, began, go) = gated();
    let subscriber = bus.subscriber("kitchen").workers(2).on("order.*", handler).start().unwrap();
    for (id, subject) in [("a1", "a"), ("a2", "a"), ("b1", "b")] {
        bus.publish(Event::new(Order::Cancelled).with_id(id).with_subject(subject)).unwrap();
    }
    let mut first = [began.recv_timeout(LONG).unwrap(), began.recv_timeout(LONG).unwrap()];
    first.sort();
    assert_eq!(first, ["a1", "b1"], "a2 waits for a1, and not b1");
    assert!(began.try_recv().is_err());
    (0..3).for_each(|_| go.send(()).unwrap());
    assert_eq!(began.recv_timeout(LONG).unwrap(), "a2");
    assert!(subscriber.wait(LONG, |stats| stats.handled == 3));
    let _report = bus.shutdown(LONG);
}

#[test]
fn workers_run_at_the_same_time() {
    let (_dir, _store, bus, _) = open();
    let (handler, began, go) = gated();
    let subscriber = bus.subscriber("kitchen").workers(4).on("order.*", handler).start().unwrap();
    bus.publish_all((0..4).map(|_| Order::Cancelled)).unwrap();
    // All four have begun before one may end.
    (0..4).for_each(|_| drop(began.recv_timeout(LONG).unwrap()));
    (0..4).for_each(|_| go.send(()).unwrap());
    assert!(subscriber.wait(LONG, |stats| stats.handled == 4));
    let _report = bus.shutdown(LONG);
}

#[test]
fn a_handler_that_takes_too_long_is_replaced_and_its_event_tried_again() {
    let (_dir, store, bus, faults) = open();
    let (begin, began) = unbounded();
    let (go, gate) = bounded::<()>(0);
    let handler = move |order: &Incoming<Order>| {
        begin.send((order.id().to_owned(), order.attempt())).unwrap();
        // The first attempt never returns by itself.
        if order.attempt() == 1 && order.id() == "stuck" { gate.recv().map_err(Failure::from) } else { Ok(()) }
    };
    let subscriber = bus
        .subscriber("kitchen")
        .timeout(Duration::from_millis(30))
        .backoff(Backoff::none())
        .on("order.*", handler)
        .start()
        .unwrap();
    bus.publish(Event::new(Order::Cancelled).with_id("stuck")).unwrap();
    bus.publish(Event::new(Order::Cancelled).with_id("next")).unwrap();
    assert!(subscriber.wait(LONG, |stats| stats.handled == 2), "{:?}", subscriber.stats());
    let mut runs: Vec<_> = began.try_iter().collect();
    runs.sort();
    assert_eq!(runs, [("next".to_owned(), 1), ("stuck".to_owned(), 1), ("stuck".to_owned(), 2)]);
    assert!(faults.lock().unwrap().iter().any(|fault| fault.contains("takes too long for event \"stuck\"")));
    // A shutdown does not wait for the one that never returns, and says so.
    assert_eq!(bus.shutdown(Duration::ZERO).unfinished, 1);
    drop(go);
    let group = store.topic("events").open().unwrap().group("kitchen").open().unwrap();
    assert!(group.receive(Duration::ZERO).unwrap().is_none(), "both are settled");
}

#[test]
fn a_future_is_polled_when_it_is_woken() {
    let (_dir, _store, bus, _) = open();
    let (polled, is_polled) = unbounded::<std::task::Waker>();
    let notes = Notes::default();
    let noted = notes.clone();
    let subscriber = bus
        .subscriber("kitchen")
        .on_async("order.placed", move |order: Arc<Incoming<Order>>| {
            let (polled, noted) = (polled.clone(), noted.clone());
            async move {
                let mut polls = 0;
                std::future::poll_fn(|context| {
                    polls += 1;
                    polled.send(context.waker().clone()).unwrap();
                    if polls == 3 { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
                })
                .await;
                noted.note(format!("{polls} polls of {}", order.id()));
                order.publish(Order::Cooked(1))?;
                Ok(())
            }
        })
        .on("order.cooked", |_: &Incoming<Order>| Ok(()))
        .start()
        .unwrap();
    bus.publish(Event::new(Order::placed(1)).with_id("o-1")).unwrap();
    for _ in 0..3 {
        is_polled.recv_timeout(LONG).unwrap().wake();
    }
    assert!(subscriber.wait(LONG, |stats| stats.handled == 2), "what it published is handled too");
    assert_eq!(notes.taken(), ["3 polls of o-1"]);
    let _report = bus.shutdown(LONG);
}

#[test]
fn a_future_that_takes_too_long_is_dropped() {
    struct Noting(Sender<()>);
    impl Drop for Noting {
        fn drop(&mut self) {
            self.0.send(()).unwrap();
        }
    }
    let (_dir, _store, bus, _) = open();
    let (dropped, is_dropped) = unbounded();
    let subscriber = bus
        .subscriber("kitchen")
        .timeout(Duration::from_millis(20))
        .max_attempts(1)
        .on_async("order.*", move |_: Arc<Incoming<Order>>| {
            let noting = Noting(dropped.clone());
            async move {
                std::future::pending::<()>().await;
                drop(noting);
                Ok(())
            }
        })
        .start()
        .unwrap();
    bus.publish(Order::Cancelled).unwrap();
    is_dropped.recv_timeout(LONG).unwrap();
    assert!(subscriber.wait(LONG, |stats| stats.timed_out == 1 && stats.stuck == 0));
    assert_eq!(bus.shutdown(LONG).unfinished, 0, "its thread has ended");
}

#[test]
fn a_shutdown_finishes_what_began_and_gives_the_rest_back_uncounted() {
    let (_dir, store, bus, _) = open();
    let (handler, began, go) = gated();
    // The second worker fetches events that wait behind the first.
    let subscriber = bus.subscriber("kitchen").workers(2).on("order.*", handler).start().unwrap();
    bus.publish_all((0..5).map(|_| Event::new(Order::Cancelled).with_subject("one"))).unwrap();
    began.recv_timeout(LONG).unwrap();
    let ending = {
        let bus = bus.clone();
        std::thread::spawn(move || bus.shutdown(LONG))
    };
    assert!(subscriber.wait(LONG, |stats| stats.is_stopped));
    go.send(()).unwrap();
    assert_eq!(ending.join().unwrap().unfinished, 0);
    assert_eq!(subscriber.stats().handled, 1);
    assert!(bus.publish(Order::Cancelled).is_err());
    let group = store.topic("events").open().unwrap().group("kitchen").open().unwrap();
    let rest: Vec<u32> = std::iter::from_fn(|| group.receive(Duration::ZERO).unwrap())
        .map(|delivery| delivery.attempt())
        .take(9)
        .collect();
    assert_eq!(rest.len(), 4);
    assert!(rest.iter().all(|attempt| *attempt == 1), "{rest:?}");
}

#[test]
fn a_shutdown_gives_back_the_event_of_a_stuck_handler() {
    let (_dir, store, bus, _) = open();
    let (handler, began, go) = gated();
    let subscriber = bus.subscriber("kitchen").on("order.*", handler).start().unwrap();
    bus.publish(Order::Cancelled).unwrap();
    began.recv_timeout(LONG).unwrap();
    assert_eq!(bus.shutdown(Duration::ZERO).unfinished, 1);
    let group = store.topic("events").open().unwrap().group("kitchen").open().unwrap();
    assert_eq!(group.receive(Duration::ZERO).unwrap().map(|delivery| delivery.attempt()), Some(1));
    go.send(()).unwrap();
    assert!(subscriber.wait(LONG, |stats| stats.in_progress == 0));
    assert_eq!(subscriber.stats().handled, 0, "what it returned came too late");
}

#[test]
fn a_bus_may_be_dropped_or_shut_down_in_its_own_handler() {
    for shuts_down in [false, true] {
        let (_dir, store, bus, _) = open();
        let slot = Arc::new(Mutex::new(None::<Bus>));
        let (done, is_done) = bounded(1);
        let held = Arc::clone(&slot);
        let subscriber = bus
            .on("order.*", "kitchen", move |_: &Incoming<Order>| {
                let bus = held.lock().unwrap().take().unwrap();
                let report = shuts_down.then(|| bus.shutdown(LONG));
                drop(bus);
                done.send(report).unwrap();
                Ok(())
            })
            .unwrap();
        // The handler waits for the lock, and has the last handle then.
        let mut last = slot.lock().unwrap();
        bus.publish(Order::Cancelled).unwrap();
        *last = Some(bus);
        drop(last);
        let report = is_done.recv_timeout(LONG).unwrap();
        assert_eq!(report.map(|report| report.unfinished), shuts_down.then_some(0));
        assert!(subscriber.wait(LONG, |stats| stats.handled == 1), "its own event is settled");
        let group = store.topic("events").open().unwrap().group("kitchen").open().unwrap();
        assert!(group.receive(Duration::ZERO).unwrap().is_none());
    }
}

#[test]
fn a_dropped_bus_lets_go_of_the_store() {
    let (dir, store, bus, _) = open();
    let (handler, began, go) = gated();
    let subscriber = bus.subscriber("kitchen").workers(3).on("order.*", handler).start().unwrap();
    bus.publish(Order::Cancelled).unwrap();
    began.recv_timeout(LONG).unwrap();
    drop((bus, store));
    go.send(()).unwrap();
    assert!(subscriber.wait(LONG, |stats| stats.handled == 1));
    drop(subscriber);
    // The last thread lets go soon after.
    let path = dir.path().join("store");
    let reopened = std::iter::repeat_with(|| Store::open(&path)).take(1_000_000).find(|opened| match opened {
        Ok(_) => true,
        Err(error) => {
            assert!(matches!(error, millpond::Error::Locked { .. }), "{error}");
            std::thread::yield_now();
            false
        }
    });
    assert!(reopened.is_some_and(|opened| opened.is_ok()), "a thread of the bus keeps the store");
}

#[test]
fn listeners_hear_what_comes_while_they_are_held() {
    let (_dir, _store, bus, faults) = open();
    bus.publish(Order::placed(1)).unwrap();
    let (heard, hear) = unbounded();
    let listener = bus
        .listen("order.placed", move |order: &Event<Order>| {
            heard.send(order.data().clone()).unwrap();
            if order.data() == &Order::placed(2) { Err(Failure::retry("deaf")) } else { Ok(()) }
        })
        .unwrap();
    bus.publish_all([Order::placed(2), Order::Cancelled, Order::placed(3)]).unwrap();
    assert_eq!(hear.recv_timeout(LONG), Ok(Order::placed(2)));
    assert_eq!(hear.recv_timeout(LONG), Ok(Order::placed(3)));
    drop(listener);
    bus.publish(Order::placed(4)).unwrap();
    assert!(hear.recv_timeout(LONG).is_err(), "its handler is gone");
    assert!(faults.lock().unwrap().iter().any(|fault| fault.ends_with("deaf")));
}

#[test]
fn a_subscriber_ends_with_its_store_and_says_why() {
    let (_dir, store, bus, faults) = open();
    let notes = Notes::default();
    let subscriber = bus
        .on("order.*", "kitchen", move |_: &Incoming<Order>| {
            notes.note("");
            Ok(())
        })
        .unwrap();
    bus.publish(Order::Cancelled).unwrap();
    assert!(subscriber.wait(LONG, |stats| stats.handled == 1));
    store.close().unwrap();
    assert!(subscriber.wait(LONG, |stats| stats.is_stopped));
    assert_eq!(bus.shutdown(LONG).unfinished, 0);
    let faults = faults.lock().unwrap();
    assert_eq!(*faults, ["subscriber \"kitchen\" ended: store is closed; open it again"]);
}
