//! A transport that fails, loses leases or panics: how events count then, and who goes on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;
#[path = "common/hooked.rs"]
mod hooked;

use common::{Faults, Order, TestClock, noted};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use hooked::{Hooked, Hooks};
use millpond::simulation::{SimClock, WallMs};
use millpond_events::fake::FakeTransport;
use millpond_events::transport::{Settled, TransportError, TransportErrorKind};
use millpond_events::{BreakerOptions, BreakerState, Bus, Event, Failure, Incoming};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

/// Longer than anything here takes: a test that waits for it fails.
const LONG: Duration = Duration::from_secs(20);

struct World {
    hooks: Arc<Hooks>,
    below: FakeTransport,
    bus: Bus,
    faults: Faults,
}

/// A bus over a transport in memory, whose clocks stand still.
fn world() -> World {
    let (hooks, below, faults) = (Arc::<Hooks>::default(), FakeTransport::new(), Faults::default());
    let transport = Hooked { below: Arc::new(below.clone()), hooks: Arc::clone(&hooks) };
    let clock = TestClock(Arc::new(SimClock::new(WallMs(0))));
    let builder = Bus::over(Arc::new(transport)).clock(Arc::new(clock)).on_fault(noted(&faults));
    World { hooks, below, bus: builder.open().unwrap(), faults }
}

impl World {
    fn faults(&self) -> Vec<String> {
        self.faults.lock().unwrap().clone()
    }
}

fn broken(kind: TransportErrorKind) -> TransportError {
    TransportError::new(kind, "broken")
}

/// A handler that reports when it begins, and fails or not when it is told to.
#[allow(clippy::type_complexity, reason = "the type of a handler has no name")]
fn told() -> (impl Fn(&Incoming<Order>) -> Result<(), Failure> + Send + Sync, Receiver<String>, Sender<bool>) {
    let (begin, began) = unbounded();
    let (tell, told) = unbounded();
    let handler = move |order: &Incoming<Order>| {
        begin.send(order.id().to_owned()).unwrap();
        if told.recv_timeout(LONG)? { Ok(()) } else { Err(Failure::retry("down")) }
    };
    (handler, began, tell)
}

#[test]
fn event_whose_ack_fails_or_is_lost_is_not_handled() {
    for is_lost in [false, true] {
        let world = world();
        let kitchen = world
            .bus
            .subscriber("kitchen")
            .max_attempts(1)
            .breaker(BreakerOptions { failures: 1, pause: LONG })
            .on("order.*", |_: &Incoming<Order>| Ok(()))
            .open()
            .unwrap();
        world.bus.publish(Order::placed(1)).unwrap();
        world
            .hooks
            .on_settle(move |_| Some(if is_lost { Ok(Settled::Lost) } else { Err(broken(TransportErrorKind::Retry)) }));
        assert_eq!(kitchen.drain().unwrap(), 1);
        let stats = kitchen.stats();
        assert_eq!((stats.handled, stats.failed, stats.lost), if is_lost { (0, 0, 1) } else { (0, 1, 0) });
        let breaker = if is_lost { BreakerState::Closed } else { BreakerState::Open };
        assert_eq!(stats.breaker, breaker, "lost: {is_lost}");
        let what = if is_lost { "lost the lease of event" } else { "cannot settle event" };
        assert!(world.faults()[0].contains(what), "{:?}", world.faults());
    }
}

#[test]
fn event_is_tried_again_while_the_inbox_has_no_room() {
    let world = world();
    *world.hooks.claim.lock().unwrap() = Some(Box::new(|()| Some(Err(broken(TransportErrorKind::Retry)))));
    let inbox = world.bus.subscriber("kitchen").inbox(10, LONG);
    let kitchen = inbox.max_attempts(2).on("order.*", |_: &Incoming<Order>| Ok(())).open().unwrap();
    world.bus.publish(Order::placed(1)).unwrap();
    assert_eq!(kitchen.drain().unwrap(), 2);
    assert_eq!((kitchen.stats().failed, kitchen.stats().rejected), (2, 0));
    assert_eq!(world.below.dead_letters("kitchen"), ["broken"], "after its last attempt");
}

#[test]
fn receive_in_progress_does_not_pass_an_open_breaker() {
    let world = world();
    let (handler, began, tell) = told();
    let (arrive, arrived) = unbounded();
    let (pass, may_pass) = unbounded::<()>();
    world.hooks.on_received(move |received| {
        if received.as_ref().is_ok_and(|leases| !leases.is_empty()) {
            arrive.send(()).unwrap();
            may_pass.recv_timeout(LONG).unwrap();
        }
        received
    });
    let kitchen = world
        .bus
        .subscriber("kitchen")
        .workers(2)
        .breaker(BreakerOptions { failures: 1, pause: LONG })
        .on("order.*", handler)
        .start()
        .unwrap();
    world.bus.publish(Event::new(Order::placed(1)).with_id("first")).unwrap();
    pass.send(()).unwrap();
    arrived.recv_timeout(LONG).unwrap();
    assert_eq!(began.recv_timeout(LONG).unwrap(), "first");
    // The other worker has received a second event when the first one fails.
    world.bus.publish(Event::new(Order::placed(2)).with_id("second")).unwrap();
    arrived.recv_timeout(LONG).unwrap();
    tell.send(false).unwrap();
    assert!(kitchen.wait(LONG, |stats| stats.breaker == BreakerState::Open));
    pass.send(()).unwrap();
    assert!(kitchen.wait(LONG, |stats| stats.released == 1), "{:?}", kitchen.stats());
    let _report = world.bus.shutdown(LONG);
    assert!(began.try_recv().is_err(), "the second event is not handled");
}

#[test]
fn subscriber_that_ends_gives_back_what_waits_in_lanes() {
    let world = world();
    let (handler, began, tell) = told();
    let (fail, fails) = bounded::<()>(1);
    let mut receives = 0;
    world.hooks.on_received(move |received| {
        receives += 1;
        if receives == 1 {
            return received;
        }
        fails.recv_timeout(LONG).unwrap();
        Err(broken(TransportErrorKind::Stop))
    });
    world.bus.publish_all((0..3).map(|n| Event::new(Order::placed(n)).with_subject("one"))).unwrap();
    let kitchen = world.bus.subscriber("kitchen").workers(3).on("order.*", handler).start().unwrap();
    began.recv_timeout(LONG).unwrap();
    world.bus.publish(Event::new(Order::Cancelled).with_subject("one")).unwrap();
    // Two wait behind the first, which is in progress, when a receive fails.
    fail.send(()).unwrap();
    assert!(kitchen.wait(LONG, |stats| stats.is_stopped && stats.released == 2), "{:?}", kitchen.stats());
    assert_eq!(kitchen.stats().in_progress, 1);
    tell.send(true).unwrap();
    assert!(kitchen.wait(LONG, |stats| stats.handled == 1));
    assert!(world.faults().iter().any(|fault| fault == "subscriber \"kitchen\" ended: broken"), "{:?}", world.faults());
    assert!(began.try_recv().is_err());
}

#[test]
fn transport_that_panics_in_a_receive_ends_the_subscriber() {
    let world = world();
    world.hooks.on_received(|_| resume_unwind(Box::new("torn")));
    let kitchen =
        world.bus.subscriber("kitchen").workers(2).on("order.*", |_: &Incoming<Order>| Ok(())).start().unwrap();
    world.bus.publish(Order::placed(1)).unwrap();
    assert!(kitchen.wait(LONG, |stats| stats.is_stopped));
    assert_eq!(world.bus.shutdown(LONG).unfinished, 0);
    assert_eq!(world.faults(), ["subscriber \"kitchen\" ended: the transport panicked: torn"]);
}

#[test]
fn transport_that_panics_in_a_settle_leaves_the_worker() {
    let world = world();
    world.hooks.on_settle(|_| resume_unwind(Box::new("torn")));
    let kitchen = world.bus.on("order.*", "kitchen", |_: &Incoming<Order>| Ok(())).unwrap();
    world.bus.publish(Event::new(Order::placed(1)).with_id("first")).unwrap();
    assert!(kitchen.wait(LONG, |stats| stats.failed == 1));
    world.hooks.settle.lock().unwrap().take();
    world.bus.publish(Order::placed(2)).unwrap();
    assert!(kitchen.wait(LONG, |stats| stats.handled > 0), "the one worker goes on");
    assert_eq!(world.bus.shutdown(LONG).unfinished, 0);
    let text = "subscriber \"kitchen\" cannot settle event \"first\": the transport panicked: torn";
    assert!(world.faults().iter().any(|fault| fault == text), "{:?}", world.faults());
}

#[test]
fn drain_that_fails_lets_a_worker_receive() {
    let world = world();
    let (handler, began, tell) = told();
    let (enter, entered) = bounded(0);
    let (leave, leaves) = bounded::<bool>(0);
    world.hooks.on_received(move |received| {
        enter.send(()).unwrap();
        if leaves.recv_timeout(LONG).unwrap() { received } else { Err(broken(TransportErrorKind::Retry)) }
    });
    // Opened with an event, so that no receive waits below.
    world.bus.publish(Order::placed(1)).unwrap();
    let kitchen = world.bus.subscriber("kitchen").on("order.*", handler).start().unwrap();
    entered.recv_timeout(LONG).unwrap();
    leave.send(true).unwrap();
    began.recv_timeout(LONG).unwrap();
    // The worker is in its handler while a drain receives, and looks for more before that fails.
    let drainer = kitchen.clone();
    let draining = std::thread::spawn(move || drainer.drain().is_err());
    entered.recv_timeout(LONG).unwrap();
    tell.send(true).unwrap();
    assert!(kitchen.wait(LONG, |stats| stats.handled == 1));
    world.bus.publish(Order::placed(2)).unwrap();
    leave.send(false).unwrap();
    assert!(draining.join().unwrap());
    entered.recv_timeout(LONG).expect("the worker receives again");
    leave.send(true).unwrap();
    tell.send(true).unwrap();
    assert!(kitchen.wait(LONG, |stats| stats.handled == 2));
    world.hooks.received.lock().unwrap().take();
    drop((entered, leave));
    let _report = world.bus.shutdown(Duration::ZERO);
}
