//! Handlers on a tokio runtime, and services of tower with middleware.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{Faults, Notes, Order, TestClock, noted};
use crossbeam_channel::{Receiver, Sender, unbounded};
use millpond::simulation::{SimClock, WallMs};
use millpond::{Backoff, Durability, Store};
use millpond_events::{Bus, BusBuilder, Event, Failure, Incoming};
use std::convert::Infallible;
use std::future::{Ready, pending, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tower::{Service, ServiceBuilder, service_fn};

/// Longer than anything here takes: a test that waits for it fails.
const LONG: Duration = Duration::from_secs(60);

type Request = Arc<Incoming<Order>>;

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap()
}

struct World {
    _dir: tempfile::TempDir,
    store: Store,
    bus: Bus,
    faults: Faults,
    runtime: Runtime,
}

fn world() -> World {
    world_with(|builder| builder)
}

fn world_with(options: impl FnOnce(BusBuilder) -> BusBuilder) -> World {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::options().durability(Durability::Os).open(dir.path().join("store")).unwrap();
    let faults = Faults::default();
    let bus = options(Bus::builder(&store).on_fault(noted(&faults))).open().unwrap();
    World { _dir: dir, store, bus, faults, runtime: runtime() }
}

impl World {
    fn dead(&self, subscriber: &str) -> Vec<String> {
        let group = self.store.topic("events").open().unwrap().group(subscriber).create(false).open().unwrap();
        let last = |dead: millpond::DeadLetter| dead.history().last().map(|failure| failure.text.clone());
        group.dead_letters().unwrap().map(|dead| last(dead.unwrap()).unwrap()).collect()
    }
}

/// Tells when it is dropped.
struct Dropping(Sender<()>);

impl Drop for Dropping {
    fn drop(&mut self) {
        self.0.send(()).unwrap();
    }
}

#[test]
fn futures_of_all_workers_are_in_progress_at_once() {
    let world = world();
    let together = Arc::new(tokio::sync::Barrier::new(32));
    let kitchen = world
        .bus
        .subscriber("kitchen")
        .workers(32)
        .runtime(world.runtime.handle().clone())
        .on_async("order.*", move |order: Request| {
            let together = Arc::clone(&together);
            async move {
                together.wait().await;
                // A timer of the runtime, and a task on it.
                tokio::time::sleep(Duration::from_millis(1)).await;
                let answer = tokio::spawn(async { 42 }).await?;
                if answer == 42 { Ok(()) } else { Err(Failure::permanent(order.id())) }
            }
        })
        .start()
        .unwrap();
    world.bus.publish_all((0..96).map(Order::Cooked)).unwrap();
    assert!(kitchen.wait(LONG, |stats| stats.handled == 96), "{:?}", kitchen.stats());
    assert_eq!(world.bus.shutdown(LONG).unfinished, 0);
}

#[test]
fn event_of_a_future_continues_its_chain_after_an_await() {
    let world = world();
    let (bus, notes) = (world.bus.clone(), Notes::default());
    let noted = notes.clone();
    let kitchen = world
        .bus
        .subscriber("kitchen")
        .runtime(world.runtime.handle().clone())
        .on_async("order.placed", move |order: Request| {
            let bus = bus.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(1)).await;
                bus.publish(Order::Cooked(1))?;
                order.publish(Order::Cooked(2))?;
                Ok(())
            }
        })
        .on("order.cooked", move |order: &Incoming<Order>| {
            // A function may use the runtime too.
            let handle = tokio::runtime::Handle::current();
            let id = order.correlation_id().to_owned();
            noted.note(handle.block_on(async move { id }));
            Ok(())
        });
    let kitchen = kitchen.start().unwrap();
    world.bus.publish(Event::new(Order::placed(1)).with_correlation_id("request-1")).unwrap();
    assert!(kitchen.wait(LONG, |stats| stats.handled == 3));
    assert_eq!(notes.taken(), ["request-1", "request-1"]);
    let _report = world.bus.shutdown(LONG);
}

#[test]
fn panic_of_a_future_or_of_its_task_is_a_failure() {
    let world = world();
    let kitchen = world
        .bus
        .subscriber("kitchen")
        .max_attempts(1)
        .runtime(world.runtime.handle().clone())
        .on_async("order.*", |order: Request| async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            match order.data() {
                Order::Cancelled => panic!("on fire"),
                _ => Ok(tokio::spawn(async { panic!("in a task") }).await?),
            }
        })
        .start()
        .unwrap();
    world.bus.publish_all([Order::Cancelled, Order::placed(1)]).unwrap();
    assert!(kitchen.wait(LONG, |stats| stats.failed == 2));
    let dead = world.dead("kitchen");
    assert_eq!(dead[0], "panicked: on fire");
    assert!(dead[1].contains("panicked") && dead[1].contains("in a task"), "{dead:?}");
    let _report = world.bus.shutdown(LONG);
}

#[test]
fn future_that_takes_too_long_leaves_the_runtime() {
    let clock = Arc::new(SimClock::new(WallMs(0)));
    let world = world_with(|builder| builder.clock(Arc::new(TestClock(Arc::clone(&clock)))));
    let (dropped, is_dropped) = unbounded();
    let (begin, began) = unbounded();
    let kitchen = world
        .bus
        .subscriber("kitchen")
        .timeout(Duration::from_secs(5))
        .backoff(Backoff::none())
        .runtime(world.runtime.handle().clone())
        .on_async("order.*", move |order: Request| {
            let (dropping, begin) = (Dropping(dropped.clone()), begin.clone());
            async move {
                let _dropping = dropping;
                begin.send(()).unwrap();
                if order.attempt() == 1 {
                    tokio::time::sleep(LONG * 60).await;
                }
                Ok(())
            }
        })
        .start()
        .unwrap();
    world.bus.publish(Order::Cancelled).unwrap();
    began.recv_timeout(LONG).unwrap();
    clock.advance(5_000);
    world.bus.tick();
    assert!(kitchen.wait(LONG, |stats| stats.handled == 1), "{:?}", kitchen.stats());
    assert_eq!((kitchen.stats().timed_out, is_dropped.iter().take(2).count()), (1, 2));
    // A future is dropped before it is counted as gone.
    assert!(kitchen.wait(LONG, |stats| stats.stuck == 0), "{:?}", kitchen.stats());
    let _report = world.bus.shutdown(LONG);
}

#[test]
fn shutdown_waits_for_futures_or_drops_them() {
    for waits in [true, false] {
        let world = world();
        let (dropped, is_dropped) = unbounded();
        let (begin, began) = unbounded();
        let gate = Arc::new(tokio::sync::Notify::new());
        let notified = Arc::clone(&gate);
        let kitchen = world
            .bus
            .subscriber("kitchen")
            .workers(4)
            .runtime(world.runtime.handle().clone())
            .on_async("order.*", move |_: Request| {
                let (dropping, begin, gate) = (Dropping(dropped.clone()), begin.clone(), Arc::clone(&notified));
                async move {
                    let _dropping = dropping;
                    let opened = gate.notified();
                    begin.send(()).unwrap();
                    opened.await;
                    Ok(())
                }
            })
            .start()
            .unwrap();
        world.bus.publish_all((0..4).map(Order::Cooked)).unwrap();
        (0..4).for_each(|_| began.recv_timeout(LONG).unwrap());
        if waits {
            let bus = world.bus.clone();
            let shutdown = std::thread::spawn(move || bus.shutdown(LONG));
            assert!(kitchen.wait(LONG, |stats| stats.is_stopped));
            // Each was registered before it began, so this reaches all.
            gate.notify_waiters();
            (0..4).for_each(|_| gate.notify_one());
            assert_eq!(shutdown.join().unwrap().unfinished, 0);
            assert_eq!(kitchen.stats().handled, 4);
        } else {
            assert_eq!(world.bus.shutdown(Duration::ZERO).unfinished, 4);
            let group = world.store.topic("events").open().unwrap().group("kitchen").open().unwrap();
            let next = group.receive(Duration::ZERO).unwrap().unwrap();
            assert_eq!(next.attempt(), 1, "given back uncounted");
        }
        assert_eq!(is_dropped.iter().take(4).count(), 4);
    }
}

#[test]
fn runtime_that_is_gone_fails_attempts_and_loses_nothing() {
    let World { _dir, store, bus, faults, runtime } = world();
    let kitchen = bus
        .subscriber("kitchen")
        .max_attempts(2)
        .backoff(Backoff::none())
        .runtime(runtime.handle().clone())
        .on_async("order.*", |_: Request| async {
            tokio::time::sleep(LONG * 60).await;
            Ok(())
        })
        .start()
        .unwrap();
    runtime.shutdown_timeout(LONG);
    bus.publish(Order::Cancelled).unwrap();
    assert!(kitchen.wait(LONG, |stats| stats.failed == 2));
    let world = World { _dir, store, bus, faults, runtime: self::runtime() };
    assert!(world.dead("kitchen")[0].contains("shut"), "{:?}", world.dead("kitchen"));
    let _report = world.bus.shutdown(LONG);
}

/// Middleware that counts its requests.
#[derive(Clone)]
struct Counting<S> {
    inner: S,
    count: Arc<AtomicUsize>,
}

impl<S: Service<Request>> Service<Request> for Counting<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, order: Request) -> S::Future {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.inner.call(order)
    }
}

#[test]
fn middleware_passes_failures_on_as_they_are() {
    let world = world();
    let count = Arc::new(AtomicUsize::new(0));
    let cook = service_fn(|order: Request| async move {
        match order.data() {
            Order::Cooked(number) => Err(Failure::permanent(format!("cooked {number} already"))),
            Order::Placed(_) if order.attempt() == 1 => Err(Failure::retry_after(Duration::ZERO, "cold")),
            Order::Placed(_) => Ok(()),
            Order::Cancelled => {
                pending::<()>().await;
                Ok(())
            }
        }
    });
    // The time limit of tower boxes what the service inside returns.
    let limited = ServiceBuilder::new().timeout(Duration::from_millis(20)).service(cook);
    let service = Counting { inner: limited, count: Arc::clone(&count) };
    let kitchen = world
        .bus
        .subscriber("kitchen")
        .workers(3)
        .max_attempts(2)
        .backoff(Backoff::none())
        .runtime(world.runtime.handle().clone())
        .on_service("order.*", service)
        .start()
        .unwrap();
    world.bus.publish_all([Order::Cooked(7), Order::placed(1), Order::Cancelled]).unwrap();
    let is_met = |stats: &millpond_events::Stats| (stats.handled, stats.rejected, stats.failed) == (1, 1, 3);
    assert!(kitchen.wait(LONG, is_met), "{:?}", kitchen.stats());
    assert_eq!(count.load(Ordering::Relaxed), 5);
    let mut dead = world.dead("kitchen");
    dead.sort();
    assert_eq!(dead, ["cooked 7 already", "request timed out"]);
    assert_eq!(world.faults.lock().unwrap().len(), 0);
    let _report = world.bus.shutdown(LONG);
}

/// A service whose clones are not ready, until they were asked and woken; each takes one request.
struct Shy {
    is_ready: bool,
    is_asked: bool,
    woken: Sender<std::task::Waker>,
}

impl Clone for Shy {
    fn clone(&self) -> Self {
        Self { is_ready: false, is_asked: false, woken: self.woken.clone() }
    }
}

impl Service<Request> for Shy {
    type Response = ();
    type Error = Failure;
    type Future = Ready<Result<(), Failure>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        if std::mem::replace(&mut self.is_asked, true) {
            self.is_ready = true;
            return Poll::Ready(Ok(()));
        }
        self.woken.send(context.waker().clone()).unwrap();
        Poll::Pending
    }

    fn call(&mut self, _: Request) -> Self::Future {
        assert!(std::mem::take(&mut self.is_ready), "called before it is ready");
        ready(Ok(()))
    }
}

#[test]
fn service_is_called_when_it_is_ready() {
    let world = world();
    let (woken, wakers): (_, Receiver<std::task::Waker>) = unbounded();
    let shy = Shy { is_ready: false, is_asked: false, woken };
    let kitchen = world.bus.subscriber("kitchen").workers(2).on_service("order.*", shy).start().unwrap();
    world.bus.publish_all([Order::Cancelled, Order::Cooked(1)]).unwrap();
    // Both wait at the same time.
    let both = [wakers.recv_timeout(LONG).unwrap(), wakers.recv_timeout(LONG).unwrap()];
    assert_eq!(kitchen.stats().handled, 0);
    both.into_iter().for_each(std::task::Waker::wake);
    assert!(kitchen.wait(LONG, |stats| stats.handled == 2), "{:?}", kitchen.stats());
    let _report = world.bus.shutdown(LONG);
}

/// A service that is never ready again.
#[derive(Clone)]
struct Broken;

impl Service<Request> for Broken {
    type Response = ();
    type Error = std::io::Error;
    type Future = Ready<Result<(), std::io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), std::io::Error>> {
        Poll::Ready(Err(std::io::Error::other("no connection")))
    }

    fn call(&mut self, _: Request) -> Self::Future {
        unreachable!("it is not ready")
    }
}

#[test]
fn service_that_is_not_ready_fails_the_attempt() {
    let world = world();
    let kitchen = world.bus.subscriber("kitchen").max_attempts(1).on_service("order.*", Broken).open().unwrap();
    world.bus.publish(Order::Cancelled).unwrap();
    assert_eq!((kitchen.drain().unwrap(), kitchen.stats().failed), (1, 1));
    assert_eq!(world.dead("kitchen"), ["no connection"]);
    // One that cannot fail is a handler too.
    let calm = service_fn(async |_: Request| Ok::<(), Infallible>(()));
    let waiter = world.bus.subscriber("waiter").on_service("order.*", calm).open().unwrap();
    assert_eq!((waiter.drain().unwrap(), waiter.stats().handled), (1, 1));
}
