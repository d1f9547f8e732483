//! What ends with its owner: subscriptions, threads, leases that nobody saw, and the lock on the directory.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use millpond::simulation::WallMs;
use millpond::simulation::{Fault, Op, SimClock, SimDisk, SystemClock};
use millpond::{Durability, Error, Group, Store, Topic};
use std::any::Any;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Long enough that a test which waits so long has failed.
const LONG: Duration = Duration::from_secs(60);

/// One test at a time, for some count the threads of the process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn subscription_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.filter(|name| name.starts_with("millpond-subscr")).count()
}

/// A thread that was joined may be listed for a moment longer.
fn no_subscription_threads() -> bool {
    (0..1_000_000).any(|_| {
        std::thread::yield_now();
        subscription_threads() == 0
    })
}

fn topic(store: &Store) -> Topic {
    store.topic("t").open().unwrap()
}

/// Its visibility timeout is what a subscription offers a delivery for, twice. Leases last an hour.
fn group(store: &Store) -> Group {
    topic(store).group("g").visibility_timeout(Duration::from_secs(3600)).open().unwrap()
}

fn leased(store: &Store) -> u64 {
    store.stats().unwrap().topics[0].groups.iter().map(|group| group.leased).sum()
}

/// The store and topic handles are gone as well: the subscription is a handle of its own.
#[test]
fn a_subscription_keeps_the_store_open() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let subscription = {
        let store = Store::open(&path).unwrap();
        let topic = topic(&store);
        topic.publish_batch(["one", "two"]).unwrap();
        topic.group("g").open().unwrap().subscribe().unwrap()
    };
    let one = subscription.recv().unwrap();
    let two = subscription.request().recv().unwrap().unwrap();
    assert_eq!((one.payload(), two.payload()), (&b"one"[..], &b"two"[..]));
    one.ack().unwrap();
    two.ack().unwrap();
    assert!(matches!(Store::open(&path), Err(Error::Locked { .. })));
    drop(subscription);
    assert!(Store::open(&path).is_ok());
}

/// The directory is free once the last handle is dropped, whichever that is. A receipt is none.
#[test]
fn the_directory_is_free_when_the_last_handle_is_dropped() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    type Last = (&'static str, fn(&Store, &Group) -> Box<dyn Any>);
    let lasts: &[Last] = &[
        ("store", |store, _| Box::new(store.clone())),
        ("topic", |store, _| Box::new(topic(store))),
        ("topic builder", |store, _| Box::new(store.topic("t"))),
        ("group", |_, group| Box::new(group.clone())),
        ("group builder", |store, _| Box::new(topic(store).group("g"))),
        ("delivery", |_, group| Box::new(group.receive(LONG).unwrap().unwrap())),
        ("batch", |_, group| Box::new(group.receive_batch(10, LONG).unwrap())),
        ("dead letters", |_, group| Box::new(group.dead_letters().unwrap())),
        ("dead letter", |store, group| {
            group.receive(LONG).unwrap().unwrap().reject("no").unwrap();
            store.sync().unwrap();
            Box::new(group.dead_letters().unwrap().next().unwrap().unwrap())
        }),
        ("subscription", |_, group| Box::new(group.subscribe().unwrap())),
        ("subscription that waits", |store, _| {
            let subscription =
                topic(store).group("at the end").start(millpond::Start::Latest).open().unwrap().subscribe();
            let subscription = subscription.unwrap();
            subscription.request();
            Box::new(subscription)
        }),
        ("subscription with a delivery", |_, group| {
            let subscription = group.subscribe().unwrap();
            while subscription.request().is_empty() {
                std::thread::yield_now();
            }
            Box::new(subscription)
        }),
    ];
    let mut receipts = Vec::new();
    for (name, last) in lasts {
        for threads in [true, false] {
            let store = if threads {
                Store::open(&path).unwrap()
            } else {
                let disk = millpond::simulation::real_disk(&path).unwrap();
                Store::options().open_on(disk, Arc::new(SystemClock)).unwrap()
            };
            let group = group(&store);
            receipts.push(topic(&store).with_durability(Durability::Os).publish("m").unwrap());
            store.sync().unwrap();
            let last = last(&store, &group);
            drop((store, group));
            assert!(matches!(Store::open(&path), Err(Error::Locked { .. })), "{name} holds it");
            drop(last);
            assert!(Store::open(&path).is_ok(), "{name} was the last");
        }
    }
    assert!(no_subscription_threads());
    assert!(receipts.iter().all(|receipt| receipt.wait_durable().is_ok()), "they were synced while the store was open");
}

/// A receipt of a store that is gone says what is known.
#[test]
fn a_receipt_does_not_keep_the_store_open() {
    let _alone = alone();
    let disk = SimDisk::new(1);
    let open = || {
        let options = Store::options().durability(Durability::Os);
        options.open_on(Arc::new(disk.attach().unwrap()), Arc::new(SimClock::new(WallMs(1_000)))).unwrap()
    };
    let store = open();
    let synced = topic(&store).publish("synced").unwrap();
    store.sync().unwrap();
    let durable = topic(&store).with_durability(Durability::Disk).publish("durable").unwrap();
    let open_end = topic(&store).publish("not synced").unwrap();
    let batch = topic(&store).publish_batch(["not synced"]).unwrap();
    drop(store);
    let again = open();
    synced.wait_durable().unwrap();
    durable.wait_durable().unwrap();
    assert!(matches!(open_end.wait_durable(), Err(Error::Closed)));
    assert!(matches!(batch.wait_durable(), Err(Error::Closed)));
    let closed = topic(&again).publish("closed").unwrap();
    again.close().unwrap();
    drop(again);
    closed.wait_durable().expect("a close makes everything durable");
}

/// Dropped subscriptions leave no thread behind, and those that are not asked write nothing.
#[test]
fn subscriptions_end_when_they_are_dropped() {
    let _alone = alone();
    // Without threads, so that nothing is appended in the background.
    let store = on(&SimDisk::new(7));
    let group = group(&store);
    topic(&store).publish_batch((0..100u32).map(u32::to_le_bytes)).unwrap();
    let end = store.stats().unwrap().log.end;
    for nth in 0..5_000 {
        let _subscription = group.subscribe().unwrap();
        assert!(nth % 500 != 0 || subscription_threads() <= 2);
    }
    let many: Vec<_> = (0..100).map(|_| group.subscribe().unwrap()).collect();
    drop(many);
    assert!(no_subscription_threads());
    assert_eq!((store.stats().unwrap().log.end, leased(&store)), (end, 0), "nobody asked");
    // One that was asked, and one that waits for a message.
    let asked = group.subscribe().unwrap();
    while asked.request().is_empty() {
        std::thread::yield_now();
    }
    assert_eq!(leased(&store), 1);
    let waits = topic(&store).group("at the end").start(millpond::Start::Latest).open().unwrap().subscribe().unwrap();
    waits.request();
    drop((asked, waits));
    assert!(no_subscription_threads());
    assert_eq!(leased(&store), 0);
    let attempts: Vec<u32> =
        group.receive_batch(200, LONG).unwrap().iter().map(|delivery| delivery.attempt()).collect();
    assert_eq!(attempts, [1; 100], "no consumer saw any of them");
}

/// What was offered, and not taken in half the visibility timeout, is released. The simulated clock stands still: the lease does not
/// expire.
#[test]
fn an_offer_is_taken_back_uncharged() {
    let _alone = alone();
    let disk = SimDisk::new(2);
    let store = Store::options()
        .durability(Durability::Os)
        .open_on(Arc::new(disk.attach().unwrap()), Arc::new(SimClock::new(WallMs(1_000))))
        .unwrap();
    let group = topic(&store).group("g").visibility_timeout(Duration::from_millis(100)).open().unwrap();
    topic(&store).publish("m").unwrap();
    let subscription = group.subscribe().unwrap();
    subscription.request();
    let delivery = loop {
        // Before the thread has leased it, or after it was released.
        if let Some(delivery) = group.receive(LONG).unwrap() {
            break delivery;
        }
    };
    assert_eq!(delivery.attempt(), 1);
    delivery.release().unwrap();
    while subscription.request().is_empty() {
        std::thread::yield_now();
    }
    // It is requested again while it is offered: once it was taken back, another offer follows.
    let (channel, end) = (subscription.request(), store.stats().unwrap().log.end);
    while store.stats().unwrap().log.end == end {
        std::thread::yield_now();
    }
    let delivery = channel.recv().unwrap().unwrap();
    assert_eq!(delivery.attempt(), 1);
    delivery.release().unwrap();
    // It is requested once: also then whoever waits for it, even late, gets another offer after a pause.
    while subscription.request().is_empty() {
        std::thread::yield_now();
    }
    while !channel.is_empty() {
        std::thread::yield_now();
    }
    assert_eq!(channel.recv().unwrap().unwrap().attempt(), 1);
}

/// A receive in the consumer's thread takes over what was requested.
#[test]
fn a_receive_takes_over_the_request() {
    let _alone = alone();
    let disk = SimDisk::new(3);
    let clock = Arc::new(SimClock::new(WallMs(1_000)));
    let store = Store::options().open_on(Arc::new(disk.attach().unwrap()), clock).unwrap();
    let group = group(&store);
    let subscription = group.subscribe().unwrap();
    for number in 0..200u8 {
        if number % 2 == 0 {
            subscription.request();
        }
        topic(&store).publish([number]).unwrap();
        if number % 4 == 0 {
            while subscription.request().is_empty() {
                std::thread::yield_now();
            }
        }
        let delivery = match number % 3 {
            0 => subscription.recv().unwrap(),
            1 => subscription.iter().next().unwrap().unwrap(),
            _ => subscription.recv_timeout(LONG).unwrap().unwrap(),
        };
        assert_eq!((delivery.payload(), delivery.attempt()), (&[number][..], 1));
        delivery.ack().unwrap();
        assert!(subscription.try_recv().unwrap().is_none());
        assert_eq!(leased(&store), 0, "nothing is requested any more");
    }
}

/// A clean close charges nothing that no consumer saw, however often it comes.
#[test]
fn a_close_charges_nothing_that_nobody_saw() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    for round in 0..7 {
        let store = Store::open(&path).unwrap();
        let group = topic(&store).group("g").max_attempts(1).open().unwrap();
        if round == 0 {
            topic(&store).publish("an order").unwrap();
        }
        let subscription = group.subscribe().unwrap();
        while subscription.request().is_empty() {
            std::thread::yield_now();
        }
        let channel = subscription.request().clone();
        store.close().unwrap();
        // What was offered is not there any more; the end is told once.
        assert!(matches!(channel.recv(), Ok(Err(Error::Closed))) && channel.recv().is_err());
        assert!(matches!(subscription.recv(), Err(Error::Closed)));
        assert!(matches!(group.subscribe(), Err(Error::Closed)));
    }
    let store = Store::open(&path).unwrap();
    let delivery = topic(&store).group("g").open().unwrap().receive(LONG).unwrap().unwrap();
    assert_eq!((delivery.payload(), delivery.attempt()), (&b"an order"[..], 1));
}

fn on(disk: &SimDisk) -> Store {
    on_at(disk, WallMs(1_000))
}

fn on_at(disk: &SimDisk, wall: WallMs) -> Store {
    let options = Store::options().durability(Durability::Os).segment_bytes_max(64 << 10);
    options.open_on(Arc::new(disk.attach().unwrap()), Arc::new(SimClock::new(wall))).unwrap()
}

/// A full disk is an item; then the subscription goes on.
#[test]
fn a_passing_error_does_not_end_a_subscription() {
    let _alone = alone();
    let disk = SimDisk::new(4);
    let store = on(&disk);
    group(&store);
    topic(&store).publish_batch(["one", "two"]).unwrap();
    store.close().unwrap();
    drop(store);
    let store = on(&disk);
    let subscription = group(&store).subscribe().unwrap();
    // The first append of a process needs a segment.
    disk.set_capacity(Some(disk.files().iter().map(|file| file.len).sum()));
    for _ in 0..3 {
        assert!(matches!(subscription.request().recv(), Ok(Err(Error::DiskFull))));
        assert!(matches!(subscription.recv(), Err(Error::DiskFull)));
        assert!(matches!(subscription.try_recv(), Err(Error::DiskFull)));
    }
    assert!(subscription.iter().take(10).all(|item| matches!(item, Err(Error::DiskFull))));
    disk.set_capacity(None);
    assert_eq!(subscription.request().recv().unwrap().unwrap().payload(), b"one");
    assert_eq!(subscription.recv().unwrap().payload(), b"two");
}

/// A message that cannot be read is told of, also where its attempts are used up, and others follow.
#[test]
fn a_subscription_tells_of_unreadable_messages() {
    let _alone = alone();
    for exhausted in [false, true] {
        let disk = SimDisk::new(5);
        let store = on(&disk);
        let group = topic(&store).group("g").max_attempts(1).open().unwrap();
        topic(&store).publish_batch(["first message", "second message", "third message"]).unwrap();
        if exhausted {
            // Its only attempt ends with the process.
            let held = group.receive_batch(2, LONG).unwrap();
            // Opening does not read what a checkpoint covers.
            store.checkpoint().unwrap();
            disk.crash_process();
            std::mem::forget((held, store, group));
        } else {
            store.close().unwrap();
            drop((store, group));
        }
        for file in disk.files() {
            let mut bytes = disk.read_file(&file.name).unwrap();
            while let Some(at) = bytes.windows(14).position(|window| window == b"second message") {
                bytes[at] ^= 1;
            }
            disk.write_file(&file.name, &bytes);
        }
        // Beyond every backoff.
        let store = on_at(&disk, WallMs(1_000_000));
        let subscription = topic(&store).group("g").open().unwrap().subscribe().unwrap();
        let mut told = 0;
        loop {
            match subscription.request().recv().unwrap() {
                Ok(delivery) if delivery.payload() == b"third message" => break,
                Ok(delivery) => delivery.ack().unwrap(),
                Err(Error::Unreadable { .. }) => told += 1,
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(told, 1, "exhausted: {exhausted}");
    }
}

/// A store that stopped is told of once, then the channel ends; whoever receives is told each time.
#[test]
fn a_stopped_store_ends_a_subscription() {
    let _alone = alone();
    let disk = SimDisk::new(6);
    let store = on(&disk);
    let waits = group(&store).subscribe().unwrap();
    let idle = group(&store).subscribe().unwrap();
    waits.request();
    let receipt = topic(&store).publish("m").unwrap();
    waits.request().recv().unwrap().unwrap().ack().unwrap();
    waits.request();
    disk.fail_op_at(Op::Sync, disk.requests_of(Op::Sync), Fault::Io);
    assert!(matches!(receipt.wait_durable(), Err(Error::OutcomeUnknown { .. })));
    for subscription in [waits, idle] {
        let channel = subscription.request();
        assert!(matches!(channel.recv(), Ok(Err(Error::Poisoned { .. }))));
        assert!(channel.recv().is_err(), "it has ended");
        assert!(subscription.request().recv().is_err(), "and stays so");
        let items: Vec<_> = subscription.iter().collect();
        assert!(matches!(items[..], [Err(Error::Poisoned { .. })]), "{items:?}");
    }
}

/// Where a thread cannot be had, the directory is free afterwards.
#[test]
fn an_open_that_gets_no_thread_leaves_nothing_behind() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    // A limit on memory of the whole process would meet the other tests too: a process of its own tries it.
    if let Some(path) = std::env::var_os("MILLPOND_NO_THREAD") {
        return open_without_threads(Path::new(&path));
    }
    let test = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "an_open_that_gets_no_thread_leaves_nothing_behind", "--nocapture"])
        .env("MILLPOND_NO_THREAD", &path)
        .env("RUST_MIN_STACK", (1u64 << 30).to_string())
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&test.stdout) + String::from_utf8_lossy(&test.stderr);
    assert!(test.status.success(), "{output}");
    assert!(output.contains("refused for want of a thread"), "{output}");
}

#[allow(
    clippy::print_stdout,
    unsafe_code,
    reason = "tells the process that started this one; a limit cannot be set without"
)]
fn open_without_threads(path: &Path) {
    let limit = |bytes: u64| {
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: reads the structure above.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
    };
    let used = || {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        pages.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096
    };
    // Stacks take 1 GiB: there is room for one, or for none.
    for room in [(1u64 << 30) + (1 << 29), 1 << 29] {
        limit(used() + room);
        let opened = Store::open(path).map(drop);
        limit(libc::RLIM_INFINITY);
        assert!(matches!(opened, Err(Error::Io { context: "start a thread", .. })), "{opened:?}");
        assert_eq!(opened.unwrap_err().kind(), millpond::ErrorKind::Retry);
    }
    Store::open(path).expect("the directory is free");
    println!("refused for want of a thread");
}
