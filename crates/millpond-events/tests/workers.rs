//! Subscribers with threads: order, timeouts, shutdown, and a bus that ends in its own handler.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{Faults, Notes, Order, TestClock, noted};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use millpond::simulation::{SimClock, WallMs};
use millpond::{Backoff, Durability, Store};
use millpond_events::{Bus, BusBuilder, Event, Failure, Incoming, Subscriber};
use std::collections::HashMap;
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

/// Longer than anything here takes: a test that waits for it fails.
const LONG: Duration = Duration::from_secs(60);

fn open() -> (tempfile::TempDir, Store, Bus, Faults) {
    open_with(|builder| builder)
}

fn open_with(options: impl FnOnce(BusBuilder) -> BusBuilder) -> (tempfile::TempDir, Store, Bus, Faults) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::options().durability(Durability::Os).open(dir.path().join("store")).unwrap();
    let faults = Faults::default();
    let bus = options(Bus::builder(&store).on_fault(noted(&faults))).open().unwrap();
    (dir, store, bus, faults)
}

/// A clock for timeouts that the test moves.
fn own_clock() -> (Arc<SimClock>, impl FnOnce(BusBuilder) -> BusBuilder) {
    let clock = Arc::new(SimClock::new(WallMs(0)));
    (Arc::clone(&clock), |builder| builder.clock(Arc::new(TestClock(clock))))
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
    let (clock, options) = own_clock();
    let (_dir, store, bus, faults) = open_with(options);
    let (begin, began) = unbounded();
    let (go, gate) = bounded::<()>(0);
    let handler = move |order: &Incoming<Order>| {
        begin.send((order.id().to_owned(), order.attempt())).unwrap();
        // The first attempt never returns by itself.
        if order.attempt() == 1 && order.id() == "stuck" { gate.recv().map_err(Failure::from) } else { Ok(()) }
    };
    let subscriber = bus
        .subscriber("kitchen")
        .timeout(Duration::from_secs(5))
        .backoff(Backoff::none())
        .on("order.*", handler)
        .start()
        .unwrap();
    bus.publish(Event::new(Order::Cancelled).with_id("stuck")).unwrap();
    let mut runs = vec![began.recv_timeout(LONG).unwrap()];
    clock.advance(4_999);
    bus.tick();
    assert_eq!(subscriber.stats().timed_out, 0);
    bus.publish(Event::new(Order::Cancelled).with_id("next")).unwrap();
    clock.advance(1);
    bus.tick();
    assert!(subscriber.wait(LONG, |stats| stats.handled == 2), "{:?}", subscriber.stats());
    runs.extend(began.try_iter());
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
    let (clock, options) = own_clock();
    let (_dir, _store, bus, _) = open_with(options);
    let (dropped, is_dropped) = unbounded();
    let (poll, polled) = unbounded();
    let subscriber = bus
        .subscriber("kitchen")
        .timeout(Duration::from_secs(5))
        .max_attempts(1)
        .on_async("order.*", move |_: Arc<Incoming<Order>>| {
            let (noting, poll) = (Noting(dropped.clone()), poll.clone());
            async move {
                poll.send(()).unwrap();
                std::future::pending::<()>().await;
                drop(noting);
                Ok(())
            }
        })
        .start()
        .unwrap();
    bus.publish(Order::Cancelled).unwrap();
    polled.recv_timeout(LONG).unwrap();
    clock.advance(5_000);
    bus.tick();
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

#[test]
fn thread_of_a_stuck_handler_is_replaced_and_goes_when_it_returns() {
    let (clock, options) = own_clock();
    let (_dir, _store, bus, _) = open_with(options);
    let (begin, began) = unbounded();
    let (go, gate) = bounded::<()>(0);
    let running = Arc::new(Mutex::new((0, 0)));
    let counted = Arc::clone(&running);
    let handler = move |order: &Incoming<Order>| {
        if order.id() == "stuck" {
            begin.send(()).unwrap();
            return gate.recv().map_err(Failure::from);
        }
        let enter = |by| {
            let mut counts = counted.lock().unwrap();
            counts.0 += by;
            counts.1 = counts.0.max(counts.1);
        };
        enter(1);
        (0..20).for_each(|_| std::thread::yield_now());
        enter(-1);
        Ok(())
    };
    let subscriber = bus
        .subscriber("kitchen")
        .timeout(Duration::from_secs(5))
        .max_attempts(1)
        .on("order.*", handler)
        .start()
        .unwrap();
    bus.publish(Event::new(Order::Cancelled).with_id("stuck")).unwrap();
    began.recv_timeout(LONG).unwrap();
    clock.advance(5_000);
    bus.tick();
    bus.publish(Order::Cancelled).unwrap();
    assert!(subscriber.wait(LONG, |stats| stats.handled == 1 && stats.stuck == 1), "another thread took its place");
    go.send(()).unwrap();
    assert!(subscriber.wait(LONG, |stats| stats.stuck == 0));
    bus.publish_all((0..300).map(|_| Order::Cancelled)).unwrap();
    assert!(subscriber.wait(LONG, |stats| stats.handled == 301));
    assert_eq!(running.lock().unwrap().1, 1, "one worker, as was asked for");
    let _report = bus.shutdown(LONG);
}

#[test]
fn subscriber_without_threads_has_a_timer() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::options().durability(Durability::Os).open(dir.path().join("store")).unwrap();
    let (end, ends) = unbounded();
    // The fault that reports the timeout ends the handler.
    let bus = Bus::builder(&store).on_fault(move |fault| end.send(fault.name()).unwrap()).open().unwrap();
    let subscriber = bus
        .subscriber("kitchen")
        .timeout(Duration::from_millis(1))
        .max_attempts(1)
        .on("order.*", move |_: &Incoming<Order>| {
            let _fault = ends.recv_timeout(LONG)?;
            Ok(())
        })
        .open()
        .unwrap();
    bus.publish(Order::Cancelled).unwrap();
    assert_eq!(subscriber.drain().unwrap(), 1);
    assert_eq!((subscriber.stats().timed_out, subscriber.stats().stuck), (1, 0));
}

#[test]
fn idle_worker_receives_when_there_is_room_again() {
    let (_dir, store, bus, _) = open();
    let (handler, began, go) = gated();
    let subscriber = bus.subscriber("kitchen").workers(2).on("order.*", handler).start().unwrap();
    // More of one subject than are held at once, and then another.
    bus.publish_all((0..80).map(|n| Event::new(Order::Cancelled).with_id(format!("a{n}")).with_subject("a"))).unwrap();
    bus.publish(Event::new(Order::Cancelled).with_id("b").with_subject("b")).unwrap();
    assert_eq!(began.recv_timeout(LONG).unwrap(), "a0");
    let leased = || store.stats().unwrap().topics[0].groups[0].leased;
    while leased() < 66 {
        std::thread::yield_now();
    }
    for _ in 0..40 {
        go.send(()).unwrap();
    }
    let others = std::iter::from_fn(|| began.recv_timeout(Duration::from_secs(20)).ok());
    assert!(others.take(41).any(|id| id == "b"), "the other worker sleeps");
    (0..41).for_each(|_| go.send(()).unwrap());
    assert!(subscriber.wait(LONG, |stats| stats.handled == 81));
    let _report = bus.shutdown(LONG);
}

#[test]
fn handlers_that_shut_down_do_not_wait_for_each_other() {
    let (_dir, _store, bus, faults) = open();
    let slot = Arc::new(Mutex::new(None::<Subscriber>));
    let both = Arc::new(Barrier::new(2));
    let (done, is_done) = unbounded();
    let held = Arc::clone(&slot);
    let handler = move |_: &Incoming<Order>| {
        both.wait();
        let subscriber = held.lock().unwrap().clone().unwrap();
        done.send(subscriber.shutdown(LONG).unfinished).unwrap();
        // The other one is still in its handler.
        both.wait();
        Ok(())
    };
    let subscriber = bus.subscriber("kitchen").workers(2).on("order.*", handler).start().unwrap();
    *slot.lock().unwrap() = Some(subscriber.clone());
    bus.publish_all([Order::Cancelled, Order::Cancelled]).unwrap();
    let half = Duration::from_secs(20);
    assert_eq!([is_done.recv_timeout(half), is_done.recv_timeout(half)], [Ok(0), Ok(0)]);
    assert!(subscriber.wait(LONG, |stats| stats.in_progress == 0));
    assert_eq!((subscriber.stats().handled, faults.lock().unwrap().len()), (2, 0));
    slot.lock().unwrap().take();
}

#[test]
fn wait_sees_a_handler_begin() {
    let (_dir, _store, bus, _) = open();
    let (handler, began, go) = gated();
    let subscriber = bus.on("order.*", "kitchen", handler).unwrap();
    let (ask, asked) = unbounded();
    let waiting = {
        let subscriber = subscriber.clone();
        std::thread::spawn(move || {
            subscriber.wait(10 * LONG, |stats| {
                ask.send(stats.in_progress).unwrap();
                stats.in_progress == 1
            })
        })
    };
    assert_eq!(asked.recv_timeout(LONG), Ok(0));
    bus.publish(Order::Cancelled).unwrap();
    began.recv_timeout(LONG).unwrap();
    // The handler does not end before.
    assert!(std::iter::from_fn(|| asked.recv_timeout(LONG).ok()).any(|in_progress| in_progress == 1));
    assert!(waiting.join().unwrap());
    go.send(()).unwrap();
    let _report = bus.shutdown(LONG);
}

/// Panics when it is dropped.
struct Fragile;

impl Drop for Fragile {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("dropped");
        }
    }
}

#[test]
fn panic_of_a_dropped_handler_reaches_nobody() {
    let (_dir, _store, bus, _) = open();
    // The first ends in this thread, the second in the last of its workers.
    for workers in [0, 2] {
        let fragile = Fragile;
        let builder = bus.subscriber("fragile").workers(workers.max(1)).on("order.*", move |_: &Incoming<Order>| {
            let _held = &fragile;
            Ok(())
        });
        let subscriber = if workers == 0 { builder.open() } else { builder.start() }.unwrap();
        let _report = subscriber.shutdown(LONG);
        drop(subscriber);
    }
    let fragile = Fragile;
    let listener = bus.listen("order.*", move |_: &Event<Order>| {
        let _held = &fragile;
        Ok(())
    });
    drop(listener.unwrap());
    let subscriber = bus.on("order.*", "after", |_: &Incoming<Order>| Ok(())).unwrap();
    bus.publish(Order::Cancelled).unwrap();
    assert!(subscriber.wait(LONG, |stats| stats.handled == 1), "the bus goes on");
    let _report = bus.shutdown(LONG);
}
