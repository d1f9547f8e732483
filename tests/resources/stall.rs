//! A disk that stalls: its syncs do not come back until somebody lets them.

use crate::watched::{Request, Watch, WatchedDisk};
use millpond::simulation::{Op, SystemClock, real_disk};
use millpond::{Durability, Message, Store};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// What every sync has to pass, or every sync of one file.
#[derive(Debug, Default)]
struct Gate {
    inner: Mutex<Inner>,
    moved: Condvar,
    released: AtomicBool,
}

#[derive(Debug, Default)]
struct Inner {
    is_shut: bool,
    only: Option<String>,
    waiting: u32,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shut(&self) {
        self.lock().is_shut = true;
    }

    fn shut_for(&self, file: String) {
        let mut inner = self.lock();
        (inner.is_shut, inner.only) = (true, Some(file));
    }

    /// Waits until a sync stands at the gate.
    fn wait_for_a_sync(&self) {
        let inner = self.lock();
        drop(self.moved.wait_while(inner, |inner| inner.waiting == 0));
    }

    fn release(&self) {
        self.released.store(true, Ordering::SeqCst);
        self.lock().is_shut = false;
        self.moved.notify_all();
    }

    fn is_released(&self) -> bool {
        self.released.load(Ordering::SeqCst)
    }
}

impl Watch for Gate {
    fn before(&self, request: Request<'_>) {
        if matches!(request.op, Op::Sync | Op::SyncDir) {
            let mut inner = self.lock();
            if inner.only.as_ref().is_some_and(|only| only != request.file) {
                return;
            }
            inner.waiting += 1;
            self.moved.notify_all();
            drop(self.moved.wait_while(inner, |inner| inner.is_shut));
            self.lock().waiting -= 1;
        }
    }
}

/// While a sync stalls, what needs no sync goes on, what needs one waits, and nothing is refused.
#[test]
fn while_a_sync_stalls_only_what_needs_one_waits() {
    let dir = tempfile::tempdir().expect("a directory");
    let gate = Arc::new(Gate::default());
    let disk = real_disk(&dir.path().join("store")).expect("it attaches");
    let disk = Arc::new(WatchedDisk::new(disk, Arc::clone(&gate)));
    let options = Store::options().durability(Durability::Os);
    let store = options.open_with_threads(disk, Arc::new(SystemClock)).expect("it opens");
    let topic = store.topic("numbers").open().expect("it opens");
    let group = topic.group("workers").open().expect("it opens");
    topic.publish("first").expect("it publishes");
    store.sync().expect("it syncs");

    gate.shut();
    thread::scope(|scope| {
        let (begun, begins) = channel();
        for _ in 0..3 {
            let (topic, begun, gate) = (topic.with_durability(Durability::Disk), begun.clone(), &gate);
            scope.spawn(move || {
                begun.send(()).expect("the test listens");
                topic.publish("durable").expect("it waits, and is taken");
                assert!(gate.is_released(), "G1: it returned before a sync did");
            });
        }
        (0..3).for_each(|_| begins.recv().expect("they begin"));
        gate.wait_for_a_sync();
        go_on(&topic, &group, &store);
        let (closing, other) = (store.clone(), begun);
        let gate = &gate;
        let closed = scope.spawn(move || {
            other.send(()).expect("the test listens");
            closing.close().expect("it waits, and closes");
            assert!(gate.is_released(), "it closed before a sync had returned");
        });
        begins.recv().expect("it begins");
        assert!(!closed.is_finished());
        gate.release();
    });

    drop((group, topic, store));
    let store = Store::open(dir.path().join("store")).expect("it opens");
    assert!(store.report().was_clean);
    let group = store.topic("numbers").open().expect("it opens").group("workers").open().expect("it opens");
    let left = group.receive_batch(1_000, Duration::ZERO).expect("it receives");
    let acked = ROUNDS * 10 + 1;
    assert_eq!(left.len(), ROUNDS * 12 + 4 - acked, "what was published and not acked");
}

/// A checkpoint waits until all that it covers is durable, and a segment can be made meanwhile: nobody who publishes waits for that
/// sync before the two segments that may be unsynced are full.
#[test]
fn while_a_checkpoint_waits_for_a_sync_a_segment_can_be_made() {
    let dir = tempfile::tempdir().expect("a directory");
    let gate = Arc::new(Gate::default());
    let disk = real_disk(&dir.path().join("store")).expect("it attaches");
    let disk = Arc::new(WatchedDisk::new(disk, Arc::clone(&gate)));
    let segments = || {
        let entries = std::fs::read_dir(dir.path().join("store")).expect("it lists");
        let names = entries.map(|entry| entry.expect("it lists").file_name().into_string().expect("plain names"));
        names.filter(|name| name.ends_with(".seg")).collect::<Vec<_>>()
    };
    let options = Store::options().durability(Durability::Os);
    let store = options.open_on(disk, Arc::new(SystemClock)).expect("it opens");
    let topic = store.topic("numbers").open().expect("it opens");
    topic.publish("not synced").expect("it publishes");
    let [first] = segments().try_into().expect("nothing makes another one ahead");

    gate.shut_for(first);
    let made = thread::scope(|scope| {
        let checkpoint = scope.spawn(|| store.checkpoint());
        gate.wait_for_a_sync();
        let (done, is_done) = channel();
        let (topic, segments) = (&topic, &segments);
        scope.spawn(move || {
            while segments().len() < 2 {
                topic.publish(vec![7; 64 << 10]).expect("a segment is made where none is left");
            }
            done.send(()).expect("the test listens");
        });
        let made = is_done.recv_timeout(Duration::from_secs(30));
        let waits = !checkpoint.is_finished();
        gate.release();
        checkpoint.join().expect("no panic").expect("it is written");
        assert!(waits, "what it covers had not been synced");
        made
    });
    made.expect("a segment is made while the checkpoint waits");
    store.close().expect("it closes");
}

const ROUNDS: usize = 20;

/// Publishes at `Os`, receives and acks, and looks.
fn go_on(topic: &millpond::Topic, group: &millpond::Group, store: &Store) {
    let mut acked = 0;
    for _ in 0..ROUNDS {
        topic.publish("one").expect("no sync is needed");
        topic.publish_batch((0..11).map(|_| Message::new("several"))).expect("no sync is needed");
        let batch = group.receive_batch(10, Duration::ZERO).expect("no sync is needed");
        acked += batch.len();
        assert!(batch.ack().expect("no sync is needed").is_empty());
        store.stats().expect("no sync is needed");
    }
    let delivery = group.receive(Duration::ZERO).expect("no sync is needed").expect("there is one");
    delivery.ack().expect("no sync is needed");
    assert_eq!(acked, ROUNDS * 10);
}
