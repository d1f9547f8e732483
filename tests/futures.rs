//! G22: a future that is dropped at any poll leaves its message to others, the attempt not counted. And what futures share with the
//! calls that block: nobody sleeps while there is a message, and every end of a store ends them.
//!
//! Executors here: one that counts its wake-ups and polls when the test says so, and tokio.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use futures_core::Stream as _;
use millpond::{Backoff, Batch, Delivery, Durability, Error, Group, Result, Store, Topic};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(10);

/// Counts wake-ups, and lets a thread wait for one.
#[derive(Default)]
struct Woken {
    count: Mutex<usize>,
    more: Condvar,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        *self.count.lock().unwrap() += 1;
        self.more.notify_all();
    }
}

impl Woken {
    /// Waits for a wake-up and takes it.
    fn take(&self) {
        let mut count = self.count.lock().unwrap();
        while *count == 0 {
            count = self.more.wait(count).unwrap();
        }
        *count = 0;
    }
}

fn poll<F: Future + Unpin>(future: &mut F, woken: &Arc<Woken>) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(&Waker::from(Arc::clone(woken))))
}

/// Polls until it is ready, each time after a wake-up.
fn block_on<F: Future>(future: F) -> F::Output {
    let (mut future, woken) = (pin!(future), Arc::new(Woken::default()));
    loop {
        match poll(&mut future, &woken) {
            Poll::Ready(value) => return value,
            Poll::Pending => woken.take(),
        }
    }
}

/// At `Disk` the flusher syncs once an hour, and at once for whoever waits.
fn store(level: Durability) -> (tempfile::TempDir, Store, Topic, Group) {
    let directory = tempfile::tempdir().unwrap();
    let options = Store::options().durability(level).sync_interval(Duration::from_secs(3600));
    let store = options.open(directory.path().join("data")).unwrap();
    let topic = store.topic("t").open().unwrap();
    let group = topic.group("g").backoff(Backoff::none()).visibility_timeout(Duration::from_secs(3600)).open().unwrap();
    (directory, store, topic, group)
}

fn first_attempt(delivery: Option<Delivery>) {
    let delivery = delivery.expect("the message is there");
    assert_eq!(delivery.attempt(), 1, "an attempt that nobody saw was counted (G22)");
    delivery.ack().unwrap();
}

/// What a future is asked for here.
trait Asks {
    type Asked: Future<Output = Result<Self::Got>> + Unpin;
    type Got;
    fn ask(group: &Group) -> Self::Asked;
}

struct One;
impl Asks for One {
    type Asked = millpond::Receive;
    type Got = Delivery;
    fn ask(group: &Group) -> Self::Asked {
        group.receive_async()
    }
}

struct Several;
impl Asks for Several {
    type Asked = millpond::ReceiveBatch;
    type Got = Batch;
    fn ask(group: &Group) -> Self::Asked {
        group.receive_batch_async(10)
    }
}

/// Drops a future before it is polled, right after a poll, and once it was woken; the message there before, or after the first poll.
fn dropped_at_each_poll<A: Asks>() {
    let (_directory, _store, topic, group) = store(Durability::Os);
    for (polls, is_woken) in [(0, false), (1, false), (1, true), (2, true), (7, true)] {
        for there in [true, false] {
            let publish = || drop(topic.publish("m").unwrap());
            if there {
                publish();
            }
            let (mut future, woken) = (A::ask(&group), Arc::new(Woken::default()));
            let mut got = None;
            for nth in 0..polls {
                match poll(&mut future, &woken) {
                    // All that follows has the delivery.
                    Poll::Ready(ready) => {
                        got = Some(ready.unwrap());
                        break;
                    }
                    Poll::Pending if nth == 0 && !there => publish(),
                    Poll::Pending => {}
                }
                if is_woken && (nth == 0 || nth + 1 < polls) {
                    woken.take();
                }
            }
            assert_eq!(got.is_some(), polls > 1, "woken, and there is nothing");
            drop(future);
            if polls == 0 && !there {
                publish();
            }
            if let Some(got) = got {
                drop(got); // It was handed out: a delivery that is dropped is a nack, a batch that nobody looked at a release.
                group.receive(LONG).unwrap().unwrap().ack().unwrap();
            } else {
                first_attempt(group.receive(LONG).unwrap());
            }
        }
    }
}

#[test]
fn dropped_at_any_poll_nothing_is_leased_or_counted() {
    dropped_at_each_poll::<One>();
    dropped_at_each_poll::<Several>();
}

/// Of many futures each gets a message of its own, and those that are dropped keep nobody from one.
#[test]
fn each_future_gets_a_message_of_its_own() {
    let (_directory, _store, topic, group) = store(Durability::Os);
    let woken = Arc::new(Woken::default());
    let mut futures: Vec<_> = (0..60).map(|_| group.receive_async()).collect();
    assert!(futures.iter_mut().all(|future| poll(future, &woken).is_pending()));
    let mut nth = 0;
    futures.retain(|_| {
        nth += 1;
        nth % 3 > 0
    });
    topic.publish_batch((0..40u32).map(|n| n.to_le_bytes())).unwrap();
    let mut payloads: Vec<_> = futures
        .into_iter()
        .map(|future| {
            let delivery = block_on(future).unwrap();
            let payload = delivery.payload().to_vec();
            delivery.ack().unwrap();
            payload
        })
        .collect();
    payloads.sort();
    payloads.dedup();
    assert_eq!(payloads.len(), 40);
}

/// The futures of one group do not wait for those of another, and blocked consumers share with them.
#[test]
fn groups_do_not_wait_for_each_other() {
    let (_directory, store, topic, group) = store(Durability::Os);
    let woken = Arc::new(Woken::default());
    let other = store.topic("other").open().unwrap();
    let mut idle: Vec<_> = (0..100).map(|n| other.group(format!("g{n}")).open().unwrap().receive_async()).collect();
    assert!(idle.iter_mut().all(|future| poll(future, &woken).is_pending()));
    std::thread::scope(|scope| {
        let blocked = scope.spawn(|| group.receive(LONG).unwrap().map(|delivery| delivery.ack().unwrap()));
        topic.publish_batch(["a", "b"]).unwrap();
        block_on(group.receive_async()).unwrap().ack().unwrap();
        assert!(blocked.join().unwrap().is_some());
    });
    other.publish("for all").unwrap();
    idle.into_iter().for_each(|future| block_on(future).unwrap().ack().unwrap());
}

/// A future that sleeps until a retry is due is woken then, by nobody's call.
#[test]
fn retries_that_become_due_wake_futures() {
    let (_directory, _store, topic, group) = store(Durability::Os);
    topic.publish("m").unwrap();
    group.receive(LONG).unwrap().unwrap().nack_after(Duration::from_millis(20), "later").unwrap();
    let delivery = block_on(group.receive_async()).unwrap();
    assert_eq!(delivery.attempt(), 2);
    delivery.ack().unwrap();
}

#[test]
fn streams_give_one_delivery_after_another_and_end() {
    let (_directory, store, topic, group) = store(Durability::Os);
    topic.publish_batch(["0", "1", "2"]).unwrap();
    let mut stream = group.stream();
    let mut next = || {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        loop {
            match Pin::new(&mut stream).poll_next(&mut Context::from_waker(&waker)) {
                Poll::Ready(item) => return item,
                Poll::Pending => woken.take(),
            }
        }
    };
    for n in ["0", "1", "2"] {
        let delivery = next().unwrap().unwrap();
        assert_eq!(delivery.payload(), n.as_bytes());
        delivery.ack().unwrap();
    }
    store.close().unwrap();
    assert!(matches!(next(), Some(Err(Error::Closed))));
    assert!(next().is_none() && next().is_none());
}

#[test]
fn batches_hold_what_is_there() {
    let (_directory, store, topic, group) = store(Durability::Os);
    assert!(block_on(group.receive_batch_async(0)).unwrap().is_empty());
    topic.publish_batch(["0", "1", "2"]).unwrap();
    let batch = block_on(group.receive_batch_async(2)).unwrap();
    assert_eq!(batch.len(), 2);
    assert!(batch.ack().unwrap().is_empty());
    let batch = block_on(group.receive_batch_async(usize::MAX)).unwrap();
    assert_eq!(batch.len(), 1);
    assert!(batch.ack().unwrap().is_empty());
    store.close().unwrap();
    assert!(matches!(block_on(group.receive_batch_async(0)), Err(Error::Closed)));
}

/// Every end of a store or group ends the futures that wait, and refuses later ones.
#[test]
fn ends_of_the_store_end_futures() {
    type End = fn(&Store, &Topic);
    type IsRight = fn(&Error) -> bool;
    let ends: [(End, IsRight); 3] = [
        (|store, _| store.close().unwrap(), |error| matches!(error, Error::Closed)),
        (|store, _| store.remove_topic("t").unwrap(), |error| matches!(error, Error::Removed { .. })),
        (|_, topic| topic.remove_group("g").unwrap(), |error| matches!(error, Error::Removed { .. })),
    ];
    for (end, is_right) in ends {
        let (_directory, store, topic, group) = store(Durability::Os);
        let woken = Arc::new(Woken::default());
        let (mut one, mut several) = (group.receive_async(), group.receive_batch_async(9));
        assert!(poll(&mut one, &woken).is_pending() && poll(&mut several, &woken).is_pending());
        end(&store, &topic);
        assert!(is_right(&block_on(one).unwrap_err()) && is_right(&block_on(several).unwrap_err()));
        assert!(is_right(&block_on(group.receive_async()).unwrap_err()));
    }
}

/// Nobody blocks, so the flusher syncs for the futures, and does not wait for its hour.
#[test]
fn durable_futures_have_the_log_synced() {
    let (_directory, store, topic, group) = store(Durability::Disk);
    let receipts: Vec<_> = (0..50u32).map(|n| topic.publish_async(n.to_le_bytes())).collect();
    for receipt in receipts {
        let receipt = block_on(receipt).unwrap();
        assert!(store.stats().unwrap().log.durable > receipt.lsn());
        assert_eq!(receipt.level(), Durability::Disk);
    }
    let quick = topic.with_durability(Durability::Os);
    let receipt = quick.publish("quick").unwrap();
    assert!(block_on(quick.publish_async("quick")).unwrap().level() == Durability::Os);
    let (mut dropped, woken) = (receipt.durable(), Arc::new(Woken::default()));
    let _ = poll(&mut dropped, &woken);
    drop(dropped);
    block_on(receipt.durable()).unwrap();
    assert!(store.stats().unwrap().log.durable > receipt.lsn());
    let batch = quick.publish_batch(["a", "b"]).unwrap();
    block_on(batch.durable()).unwrap();
    assert!(store.stats().unwrap().log.durable > batch.lsn());
    assert_eq!(block_on(group.receive_batch_async(100)).unwrap().ack().unwrap().len(), 0);
}

/// The message of a publish whose future is dropped is there all the same.
#[test]
fn dropped_publish_is_published() {
    let (_directory, _store, topic, group) = store(Durability::Os);
    drop(topic.publish_async("m"));
    first_attempt(group.receive(Duration::ZERO).unwrap());
    assert!(matches!(block_on(topic.publish_async(vec![0; 2 << 20])), Err(Error::TooLarge { .. })));
}

/// Futures of receipts do not keep a store open, and end with it.
#[test]
fn durable_futures_end_with_the_last_handle() {
    let (_directory, store, topic, group) = store(Durability::Os);
    let receipt = topic.publish("m").unwrap();
    let (mut durable, woken) = (receipt.durable(), Arc::new(Woken::default()));
    let first = poll(&mut durable, &woken);
    drop((store, topic, group));
    match first {
        Poll::Ready(done) => done.unwrap(),
        Poll::Pending => assert!(matches!(block_on(durable), Ok(()) | Err(Error::Closed))),
    }
    assert!(matches!(block_on(receipt.durable()), Ok(()) | Err(Error::Closed)));
}

/// A waker that does something with what it holds, once it is called or dropped.
struct Does<T: Send>(Mutex<Option<T>>, fn(T), Arc<Woken>);

impl<T: Send> Does<T> {
    fn go(&self) {
        let held = self.0.lock().unwrap().take();
        if let Some(held) = held {
            (self.1)(held);
            self.2.wake_by_ref();
        }
    }
}

impl<T: Send> Wake for Does<T> {
    fn wake(self: Arc<Self>) {
        self.go();
    }
}

impl<T: Send> Drop for Does<T> {
    fn drop(&mut self) {
        self.go();
    }
}

/// A waker that lets go of the last handle does so in a thread of the store's. That thread does not wait for itself, and the end is as
/// orderly as any.
#[test]
fn wakers_of_syncs_may_let_go_of_the_store() {
    let (directory, store, topic, group) = store(Durability::Os);
    let (receipt, gone) = (topic.publish("m").unwrap(), Arc::new(Woken::default()));
    let mut durable = receipt.durable();
    let lets_go = Arc::new(Does(Mutex::default(), drop, Arc::clone(&gone)));
    *lets_go.0.lock().unwrap() = Some((store, topic, group));
    let waker = Waker::from(lets_go);
    if Pin::new(&mut durable).poll(&mut Context::from_waker(&waker)).is_pending() {
        gone.take();
    }
    drop((waker, durable));
    block_on(receipt.durable()).unwrap();
    let store = Store::open(directory.path().join("data")).unwrap();
    first_attempt(store.topic("t").open().unwrap().group("g").open().unwrap().receive(LONG).unwrap());
}

/// A waker that closes the store, called by a close.
#[test]
fn wakers_may_close_the_store() {
    let (_directory, store, topic, _group) = store(Durability::Os);
    let (receipt, closed) = (topic.publish("m").unwrap(), Arc::new(Woken::default()));
    let mut durable = receipt.durable();
    let closes = Arc::new(Does(Mutex::default(), |store: Store| store.close().unwrap(), Arc::clone(&closed)));
    *closes.0.lock().unwrap() = Some(store.clone());
    let waker = Waker::from(closes);
    let is_pending = Pin::new(&mut durable).poll(&mut Context::from_waker(&waker)).is_pending();
    store.close().unwrap();
    drop((waker, durable));
    if is_pending {
        closed.take();
    }
    block_on(receipt.durable()).unwrap();
}

/// A waker that goes with its future and takes another future along.
#[test]
fn wakers_may_hold_futures() {
    let (_directory, _store, topic, group) = store(Durability::Os);
    let gone = Arc::new(Woken::default());
    let (mut one, mut other) = (group.receive_async(), group.receive_async());
    assert!(poll(&mut other, &gone).is_pending());
    let holds = Arc::new(Does(Mutex::default(), drop, Arc::clone(&gone)));
    *holds.0.lock().unwrap() = Some(other);
    let waker = Waker::from(holds);
    assert!(Pin::new(&mut one).poll(&mut Context::from_waker(&waker)).is_pending());
    drop(waker);
    drop(one);
    gone.take();
    topic.publish("m").unwrap();
    first_attempt(group.receive(LONG).unwrap());
}

/// A waker may be anything: one that panics ends in nobody else's call, and one that drops the last handle of the store does not wait for
/// its own thread.
#[test]
fn wakers_may_panic_and_let_go_of_the_store() {
    struct Panics(AtomicBool);
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Release);
            panic!("the caller's");
        }
    }
    struct LetsGo(Mutex<Option<(Store, Topic, Group, millpond::Receive)>>, Arc<Woken>);
    impl Wake for LetsGo {
        fn wake(self: Arc<Self>) {
            drop(self.0.lock().unwrap().take());
            self.1.wake_by_ref();
        }
    }
    let (directory, store, topic, group) = store(Durability::Os);
    let panics = Arc::new(Panics(AtomicBool::new(false)));
    let mut first = group.receive_async();
    let waker = Waker::from(Arc::clone(&panics));
    assert!(Pin::new(&mut first).poll(&mut Context::from_waker(&waker)).is_pending());
    topic.publish_batch(["first", "second"]).unwrap();
    first_attempt(Some(block_on(group.receive_async()).unwrap()));
    assert!(panics.0.load(Ordering::Acquire));
    first_attempt(Some(block_on(first).unwrap()));

    let gone = Arc::new(Woken::default());
    let lets_go = Arc::new(LetsGo(Mutex::default(), Arc::clone(&gone)));
    let mut last = group.receive_async();
    let waker = Waker::from(Arc::clone(&lets_go));
    assert!(Pin::new(&mut last).poll(&mut Context::from_waker(&waker)).is_pending());
    let publisher = topic.with_durability(Durability::Os);
    *lets_go.0.lock().unwrap() = Some((store, topic, group, last));
    publisher.publish("third").unwrap();
    drop(publisher);
    gone.take();
    let store = Store::open(directory.path().join("data")).unwrap();
    let group = store.topic("t").open().unwrap().group("g").open().unwrap();
    first_attempt(group.receive(LONG).unwrap());
}

/// Takes messages for ever. Every second receive is dropped after its first poll.
async fn work(group: Group, handled: Arc<AtomicUsize>) -> Result<()> {
    loop {
        let delivery = group.receive_async().await?;
        assert_eq!(delivery.attempt(), 1, "an attempt that nobody saw was counted (G22)");
        delivery.ack()?;
        handled.fetch_add(1, Ordering::Relaxed);
        let mut dropped = group.receive_async();
        let once = std::future::poll_fn(|context| match Pin::new(&mut dropped).poll(context) {
            Poll::Ready(delivery) => Poll::Ready(Some(delivery)),
            Poll::Pending => Poll::Ready(None),
        });
        if let Some(delivery) = once.await {
            delivery?.release()?;
        }
    }
}

/// Eight tasks of a tokio runtime take everything, each message once.
#[test]
fn tokio_tasks_take_each_message_once() {
    const COUNT: usize = 4_000;
    let (_directory, _store, topic, group) = store(Durability::Os);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let handled = Arc::new(AtomicUsize::new(0));
    let workers: Vec<_> = (0..8).map(|_| runtime.spawn(work(group.clone(), Arc::clone(&handled)))).collect();
    for n in 0..COUNT / 100 {
        topic.publish_batch((0..100).map(|m| (n * 100 + m).to_le_bytes())).unwrap();
    }
    while handled.load(Ordering::Relaxed) < COUNT {
        assert!(workers.iter().all(|worker| !worker.is_finished()), "a task ended");
        std::thread::yield_now();
    }
    drop(workers);
    drop(runtime);
    assert!(group.receive(Duration::ZERO).unwrap().is_none());
}
