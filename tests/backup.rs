//! Backups: each is the store at one moment, with all that was durable before it began, and a store of its own once it is opened (G27).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "common/watched.rs"]
mod watched;

use millpond::simulation::{Disk, Fault, PowerOutcome, Rng, SimClock, SimDisk, WallMs};
use millpond::{Error, Observer, Store, StoreOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use watched::{Request, Watch, WatchedDisk};

const CLOCK: WallMs = WallMs(1_800_000_000_000);

fn small() -> StoreOptions {
    Store::options().segment_bytes_max(64 << 10)
}

fn payload(number: u64) -> Vec<u8> {
    let mut payload = number.to_le_bytes().to_vec();
    payload.resize(3_000, 7);
    payload
}

/// A store that is written step by step, also while somebody else reads its files.
#[derive(Debug)]
struct Source {
    disk: SimDisk,
    clock: Arc<SimClock>,
    store: Store,
    rng: Mutex<Rng>,
    published: AtomicU64,
    steps_left: AtomicU64,
    /// What the state was at each end of the log.
    hashes: Mutex<BTreeMap<u64, u64>>,
}

impl Source {
    fn new(seed: u64) -> Arc<Self> {
        let (disk, clock) = (SimDisk::new(seed), Arc::new(SimClock::new(CLOCK)));
        let store = small().open_on(Arc::new(disk.attach().unwrap()), Arc::clone(&clock) as _).unwrap();
        let (published, steps_left) = (AtomicU64::new(0), AtomicU64::new(0));
        let rng = Mutex::new(Rng::new(seed));
        Arc::new(Self { disk, clock, store, rng, published, steps_left, hashes: Mutex::default() })
    }

    fn step(&self) {
        let topic = self.store.topic("t").open().unwrap();
        let group = topic.group("g").open().unwrap();
        let choice = self.rng.lock().unwrap().below(6);
        match choice {
            0..3 => {
                let first = self.published.fetch_add(3, Ordering::Relaxed);
                topic.publish_batch((first..first + 3).map(payload)).unwrap();
            }
            3 | 4 => drop(group.receive_batch(6, Duration::ZERO).unwrap().ack().unwrap()),
            _ => {
                self.clock.advance(700);
                self.store.tick().unwrap();
                self.store.checkpoint().unwrap();
            }
        }
        if let (Ok(stats), Ok(Some(hash))) = (self.store.stats(), self.store.state_hash()) {
            self.hashes.lock().unwrap().insert(stats.log.end.0, hash);
        }
    }

    /// An observer, during whose reads the store goes on as often as was asked for.
    fn observer(self: &Arc<Self>) -> Observer {
        let disk = WatchedDisk::new(Arc::new(self.disk.reader()), Arc::clone(self));
        Store::options().open_read_only_on(Arc::new(disk), Arc::clone(&self.clock) as _).unwrap()
    }
}

impl Watch for Source {
    fn before(&self, _: Request<'_>) {
        let took = self.steps_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if took.is_ok() {
            self.step();
        }
    }
}

fn attached(target: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(target.attach().unwrap())
}

/// Holds a backup against what its source was: opened on a machine of its own, after a power failure there.
fn check(source: &Source, target: &SimDisk, end: u64, published: u64) {
    let copy = target.snapshot();
    copy.crash_power(PowerOutcome::LoseAll);
    let clock = Arc::new(SimClock::new(CLOCK));
    let observer = Store::options().open_read_only_on(Arc::new(copy.reader()), Arc::clone(&clock) as _).unwrap();
    assert_eq!(observer.end().0, end, "it is the state of one LSN");
    assert_eq!(observer.verify(|_| ()).unwrap().findings, []);
    let store = small().open_on(attached(&copy), clock as _).unwrap();
    assert_eq!((store.report().end.0, store.report().copied_bytes), (end, 0));
    if let Some(hash) = source.hashes.lock().unwrap().get(&end) {
        assert_eq!(*hash, store.report().state_hash, "the state at {end}");
    }
    let stats = store.stats().unwrap();
    let topic = &stats.topics[0];
    assert!(topic.published >= published, "{} of {published} that were durable", topic.published);
    let mut numbers = BTreeSet::new();
    let group = store.topic("t").open().unwrap().group("g").open().unwrap();
    while let Some(delivery) = group.receive(Duration::ZERO).unwrap() {
        numbers.insert(u64::from_le_bytes(delivery.payload()[..8].try_into().unwrap()));
        delivery.ack().unwrap();
    }
    assert_eq!(numbers.len() as u64, topic.groups[0].lag);
    assert!(numbers.last().is_none_or(|last| last + 1 == topic.published), "{numbers:?}");
}

/// Files of the source come and go while it is copied, and what was there from the backup before is not copied again.
#[test]
fn a_backup_is_one_moment_of_a_store_in_use() {
    let (mut kept, mut known) = (0, 0);
    for seed in 0..8 {
        let (source, target) = (Source::new(seed), SimDisk::new(seed));
        (0..30).for_each(|_| source.step());
        for _ in 0..4 {
            (0..10).for_each(|_| source.step());
            let observer = source.observer();
            let published = observer.stats().unwrap().topics[0].published;
            source.steps_left.store(25, Ordering::Relaxed);
            let report = observer.backup_to(&attached(&target)).unwrap();
            source.steps_left.store(0, Ordering::Relaxed);
            check(&source, &target, report.end.0, published);
            kept += report.bytes_kept;
            known += u64::from(source.hashes.lock().unwrap().contains_key(&report.end.0));
        }
    }
    assert!(kept > 50_000 && known > 3, "{kept} bytes kept, {known} states known");
}

#[test]
fn a_backup_holds_all_that_was_durable_before_it() {
    let (source, target) = (Source::new(1), SimDisk::new(2));
    for _ in 0..20 {
        source.step();
        let (end, published) = (source.store.stats().unwrap().log.end, source.published.load(Ordering::Relaxed));
        let report = source.store.backup_to(&attached(&target)).unwrap();
        assert!(report.end >= end, "{} is behind {end}", report.end);
        check(&source, &target, report.end.0, published);
    }
    let again = source.store.backup_to(&attached(&target)).unwrap();
    assert_eq!(again.bytes_copied, 0, "nothing is new");
}

/// Whatever becomes of a backup, the directory holds a moment of the store, or is refused; and the next backup comes to its end.
#[test]
fn a_backup_that_dies_is_made_whole_by_the_next() {
    let source = Source::new(3);
    (0..40).for_each(|_| source.step());
    let target = SimDisk::new(4);
    let first = source.store.backup_to(&attached(&target)).unwrap();
    (0..30).for_each(|_| source.step());
    let requests = {
        let trial = target.snapshot();
        let before = trial.requests();
        source.store.backup_to(&attached(&trial)).unwrap();
        trial.requests() - before
    };
    let mut left = BTreeMap::new();
    for request in 0..requests {
        for fault in [Fault::CrashBefore, Fault::CrashMiddle, Fault::CrashAfter, Fault::NoSpace] {
            let trial = target.snapshot();
            trial.reseed(request);
            trial.fail_at(trial.requests() + request, fault);
            let died = source.store.backup_to(&attached(&trial));
            trial.crash_power(PowerOutcome::EACH[request as usize % PowerOutcome::EACH.len()]);
            trial.clear_faults();
            let clock = Arc::new(SimClock::new(CLOCK));
            let found = match Store::options().open_read_only_on(Arc::new(trial.reader()), clock as _) {
                Ok(found) => {
                    assert!(found.end() >= first.end, "request {request}, {fault:?}: {died:?}");
                    assert_eq!(found.verify(|_| ()).unwrap().findings, [], "request {request}, {fault:?}");
                    if found.end() == first.end { "the one before" } else { "a later one" }
                }
                Err(Error::Corrupt(_)) if died.is_err() => "refused",
                Err(error) => panic!("request {request}, {fault:?}: {error}"),
            };
            *left.entry(found).or_insert(0) += 1;
            if request % 4 == 0 {
                let again = source.store.backup_to(&attached(&trial)).unwrap();
                check(&source, &trial, again.end.0, source.published.load(Ordering::Relaxed));
            }
        }
    }
    assert!(left.len() >= 2 && requests > 20, "{left:?} in {requests} requests");
}

/// A restored store is one of its own: its ids are others, and no backup of the source goes there.
#[test]
fn a_copy_that_was_opened_is_left_alone() {
    let (source, target) = (Source::new(5), SimDisk::new(6));
    (0..20).for_each(|_| source.step());
    source.store.backup_to(&attached(&target)).unwrap();
    let restored = small().open_on(attached(&target), Arc::new(SimClock::new(CLOCK))).unwrap();
    let published = |store: &Store| store.topic("t").open().unwrap().publish("m").unwrap().id();
    let (ours, theirs) = (published(&source.store), published(&restored));
    assert!(ours.epoch != theirs.epoch && ours != theirs, "{ours} {theirs}");
    restored.close().unwrap();
    drop(restored);
    let before = target.read_file("STORE");
    match source.store.backup_to(&attached(&target)) {
        Err(Error::InvalidOption { option: "to", value, .. }) => assert!(value.contains("was opened"), "{value}"),
        other => panic!("{other:?}"),
    }
    assert!(target.read_file("STORE") == before);
    let other = Source::new(7);
    (0..5).for_each(|_| other.step());
    let target = SimDisk::new(8);
    other.store.backup_to(&attached(&target)).unwrap();
    assert!(matches!(source.store.backup_to(&attached(&target)), Err(Error::InvalidOption { .. })));
}

/// With real files: a backup has no file in common with its source, and a directory that holds anything else is refused.
#[test]
fn a_directory_is_restored_by_opening_it() {
    let folder = tempfile::tempdir().unwrap();
    let (path, backup) = (folder.path().join("data"), folder.path().join("backup"));
    let store = small().open(&path).unwrap();
    let topic = store.topic("t").open().unwrap();
    topic.publish_batch((0..100).map(payload)).unwrap();
    let first = store.backup(&backup).unwrap();
    topic.publish_batch((100..110).map(payload)).unwrap();
    let second = store.backup(&backup).unwrap();
    assert!(first.bytes_copied > 300_000 && second.bytes_copied < 200_000, "{first:?} {second:?}");
    assert!(matches!(store.backup(&path), Err(Error::Locked { .. })));
    std::fs::create_dir(folder.path().join("other")).unwrap();
    std::fs::write(folder.path().join("other/letter"), "mine").unwrap();
    assert!(matches!(store.backup(folder.path().join("other")), Err(Error::NotAStore { .. })));
    store.close().unwrap();
    let restored = Store::open(&backup).unwrap();
    assert_eq!(restored.stats().unwrap().topics[0].published, 110);
    assert!(matches!(Store::open_read_only(&path).unwrap().backup(&backup, |_, _| ()), Err(Error::Locked { .. })));
    restored.close().unwrap();
    let again = folder.path().join("again");
    Store::open_read_only(&path).unwrap().backup(&again, |done, of| assert!(done <= of)).unwrap();
    assert_eq!(Store::open_read_only(&again).unwrap().stats().unwrap().topics[0].published, 110);
}

/// A store in which a stuck message lies among settled ones, and two checkpoints cover them.
fn mixed() -> (SimDisk, Arc<SimClock>, Store) {
    let (disk, clock) = (SimDisk::new(9), Arc::new(SimClock::new(CLOCK)));
    let store = small().open_on(Arc::new(disk.attach().unwrap()), Arc::clone(&clock) as _).unwrap();
    let stuck = store.topic("stuck").open().unwrap();
    stuck.group("g").open().unwrap();
    let topic = store.topic("t").open().unwrap();
    let group = topic.group("g").open().unwrap();
    for number in 0..60 {
        if number % 10 == 5 {
            stuck.publish(payload(number)).unwrap();
        }
        topic.publish(payload(number)).unwrap();
        drop(group.receive_batch(1, Duration::ZERO).unwrap().ack().unwrap());
    }
    for _ in 0..2 {
        topic.publish(payload(0)).unwrap();
        store.checkpoint().unwrap();
    }
    store.sync().unwrap();
    (disk, clock, store)
}

/// Files are unlinked once the frame that says so is durable, and nothing tells yet that it is: a backup goes by what is there.
#[test]
fn a_backup_follows_files_that_nothing_tells_of_yet() {
    for ticks in 1..8 {
        let (disk, clock, store) = mixed();
        for _ in 0..ticks {
            clock.advance(1_000);
            store.tick().unwrap();
        }
        // The process is killed here: no later frame tells how much is durable.
        let observer = Store::options().open_read_only_on(Arc::new(disk.reader()), Arc::clone(&clock) as _).unwrap();
        let target = SimDisk::new(ticks);
        observer.backup_to(&attached(&target)).unwrap();
        let copy = small().open_on(attached(&target), Arc::clone(&clock) as _).unwrap();
        let group = copy.topic("stuck").open().unwrap().group("g").open().unwrap();
        let mut numbers = Vec::new();
        while let Some(delivery) = group.receive(Duration::ZERO).unwrap() {
            numbers.push(u64::from_le_bytes(delivery.payload()[..8].try_into().unwrap()));
            delivery.ack().unwrap();
        }
        assert_eq!(numbers, [5, 15, 25, 35, 45, 55], "after {ticks} ticks");
    }
}

/// An observer that was opened before files were cleaned finds each message where it is now.
#[test]
fn an_observer_finds_what_was_cleaned_into_another_file() {
    let (disk, clock, store) = mixed();
    let open = || Store::options().open_read_only_on(Arc::new(disk.reader()), Arc::clone(&clock) as _).unwrap();
    let (peeks, reads) = (open(), open());
    let mut log = reads.log("stuck", millpond::ReadFrom::Start).unwrap();
    for _ in 0..8 {
        clock.advance(1_000);
        store.tick().unwrap();
    }
    assert!(disk.files().iter().any(|file| file.name.ends_with(".msg")), "{:?}", disk.files());
    let expected = [5, 15, 25, 35, 45, 55];
    let number = |payload: &[u8]| u64::from_le_bytes(payload[..8].try_into().unwrap());
    let peeked = peeks.peek("stuck", "g", millpond::MessageState::Ready, 100).unwrap();
    let peeked: Vec<u64> = peeked.map(|message| number(message.unwrap().payload())).collect();
    assert_eq!(peeked, expected);
    let mut found = Vec::new();
    while let Some(message) = log.try_next().unwrap() {
        found.push(number(message.payload()));
    }
    assert_eq!(found, expected);
}

/// What is damaged is somebody's store: a backup leaves it as it is.
#[test]
fn a_damaged_store_is_no_target() {
    let (_, _, store) = mixed();
    let target = SimDisk::new(3);
    drop(small().open_on(attached(&target), Arc::new(SimClock::new(CLOCK)) as _).unwrap());
    target.crash_process();
    let mut bytes = target.read_file("STORE").unwrap();
    bytes[..512].fill(0xAA);
    target.write_file("STORE", &bytes);
    let before: Vec<_> = target.files();
    let refused = store.backup_to(&attached(&target)).unwrap_err();
    assert!(matches!(refused, Error::InvalidOption { .. }), "{refused:?}");
    target.crash_process();
    assert_eq!(target.files(), before);
}
