//! Observers: they see what is durable, in order and without holes, whatever becomes of the process that writes, and change nothing (G25).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "common/child.rs"]
mod child;
#[path = "common/watched.rs"]
mod watched;

use child::{command, leave_no_core, must, run, say, task};
use millpond::simulation::{Disk, Fault, PowerOutcome, Rng, SimClock, SimDisk, WallMs};
use millpond::{
    Cause, Durability, Error, LogMessage, MessageState, ObservedLog, Observer, Position, ReadFrom, Store, StoreOptions,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use watched::{Request, Watch, WatchedDisk};

const TOPIC: &str = "work";
const GROUP: &str = "g";

fn small() -> StoreOptions {
    Store::options().segment_bytes_max(64 << 10)
}

fn payload(number: u64) -> Vec<u8> {
    let mut payload = number.to_le_bytes().to_vec();
    payload.resize(3_000, 7);
    payload
}

fn number(message: &LogMessage) -> u64 {
    u64::from_le_bytes(message.payload()[..8].try_into().unwrap())
}

/// Reads the topic as far as it is seen. Message `n` is at offset `n`; what was removed before it was read is told.
#[derive(Debug, Default)]
struct Follow {
    next: u64,
    missed: u64,
    position: Option<Position>,
    log: Option<ObservedLog>,
    /// The power went, and nobody has opened the store since: what was proven may not be so now.
    is_unproven: bool,
}

impl Follow {
    fn go_on(&mut self, observer: &Observer) {
        if self.log.is_none() {
            let from = self.position.map_or(ReadFrom::Start, ReadFrom::After);
            match observer.log(TOPIC, from) {
                Ok(log) => self.log = Some(log),
                Err(Error::NotFound { .. }) if self.position.is_none() => return,
                Err(Error::InvalidPosition { .. }) if self.is_unproven => return,
                Err(error) => panic!("a position that was seen is refused: {error}"),
            }
        }
        let log = self.log.as_mut().unwrap();
        loop {
            match log.try_next() {
                Ok(Some(message)) => {
                    let offset = message.id().offset.0;
                    // Where a reader begins, what went before is nobody's gap.
                    if self.position.is_none() && self.next == 0 {
                        self.next = offset;
                    }
                    assert_eq!((number(&message), offset), (self.next, self.next), "in order, and each once");
                    self.next += 1;
                    self.position = Some(message.position());
                }
                Ok(None) => return,
                Err(Error::Gap { offset, count, .. }) => {
                    assert_eq!(offset, self.next, "a gap is where it is told");
                    (self.next, self.missed) = (self.next + count, self.missed + count);
                }
                Err(error) => panic!("message {}: {error}", self.next),
            }
        }
    }
}

/// Looks at the store before and after each request of the process that writes it.
#[derive(Debug)]
struct Eyes {
    disk: SimDisk,
    clock: Arc<SimClock>,
    /// How many messages somebody began to publish.
    published: AtomicU64,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    observer: Option<Observer>,
    end: u64,
    follow: Follow,
    looks: u64,
}

impl Eyes {
    fn new(disk: &SimDisk, clock: &Arc<SimClock>) -> Arc<Self> {
        let (disk, clock) = (disk.clone(), Arc::clone(clock));
        Arc::new(Self { disk, clock, published: AtomicU64::new(0), seen: Mutex::default() })
    }

    fn observe(&self) -> Result<Observer, Error> {
        let clock = Arc::clone(&self.clock);
        Store::options().open_read_only_on(Arc::new(self.disk.reader()), clock as _)
    }

    fn look(&self) {
        let mut seen = self.seen.lock().unwrap();
        let seen = &mut *seen;
        seen.looks += 1;
        if seen.observer.is_none() {
            match self.observe() {
                Ok(observer) => seen.observer = Some(observer),
                Err(Error::NotFound { .. }) if seen.follow.position.is_none() => return,
                Err(error) => panic!("look {}: {error}", seen.looks),
            }
        }
        let observer = seen.observer.as_ref().unwrap();
        observer.refresh().unwrap_or_else(|error| panic!("look {}: {error}", seen.looks));
        assert!(observer.end().0 >= seen.end, "what was seen is durable");
        seen.end = observer.end().0;
        seen.follow.go_on(observer);
        assert!(seen.follow.next <= self.published.load(Ordering::Relaxed));
    }

    /// The machine went down, and the observers with it.
    fn power_cut(&self) {
        let mut seen = self.seen.lock().unwrap();
        // Marks of the log may be lost at its end: they say nothing.
        (seen.observer, seen.follow.log, seen.end) = (None, None, 0);
        seen.follow.is_unproven = true;
    }
}

impl Watch for Eyes {
    fn before(&self, _: Request<'_>) {
        self.look();
    }

    fn after(&self, _: Request<'_>) {
        self.look();
    }
}

/// A life of a process: it publishes, settles, rests. An error ends it.
fn live(eyes: &Arc<Eyes>, rng: &mut Rng, steps: u64, level: Durability) -> Result<Store, Error> {
    let disk = Arc::new(eyes.disk.attach().unwrap());
    let disk: Arc<dyn Disk> = Arc::new(WatchedDisk::new(disk, Arc::clone(eyes)));
    let store = small().durability(level).open_on(disk, Arc::clone(&eyes.clock) as _)?;
    eyes.seen.lock().unwrap().follow.is_unproven = false;
    let topic = store.topic(TOPIC).open()?;
    let group = topic.group(GROUP).open()?;
    // What a process that died had published is there or is not.
    let end = store.stats()?.topics[0].published;
    eyes.published.store(end, Ordering::Relaxed);
    for _ in 0..steps {
        match rng.below(8) {
            0..3 => {
                let first = eyes.published.fetch_add(1, Ordering::Relaxed);
                topic.publish(payload(first))?;
            }
            3 => {
                let first = eyes.published.fetch_add(3, Ordering::Relaxed);
                topic.publish_batch((first..first + 3).map(payload))?;
            }
            4 | 5 => {
                if let batch = group.receive_batch(8, Duration::ZERO)?
                    && !batch.is_empty()
                {
                    drop(batch.ack()?);
                }
            }
            6 => {
                eyes.clock.advance(700);
                store.tick()?;
            }
            _ => store.checkpoint()?,
        }
    }
    Ok(store)
}

/// Between any two requests of a writer, through rolls, checkpoints, segments that are unlinked, crashes in any request and the recovery after
/// them, an observer sees a state that stays, and all messages in order.
#[test]
fn an_observer_lives_through_all_that_a_writer_does() {
    let (mut seen, mut crashed, mut files) = (0, 0, 0);
    for seed in 0..24 {
        let (disk, clock) = (SimDisk::new(seed), Arc::new(SimClock::new(WallMs(1_800_000_000_000))));
        let (eyes, mut rng) = (Eyes::new(&disk, &clock), Rng::new(seed));
        for _ in 0..4 {
            let level = if rng.coin() { Durability::Disk } else { Durability::Os };
            let fault = [Fault::CrashBefore, Fault::CrashMiddle, Fault::CrashAfter][rng.index(3)];
            disk.fail_at(disk.requests() + 20 + rng.below(250), fault);
            let lived = live(&eyes, &mut rng, 60, level);
            crashed += u64::from(lived.is_err());
            let power = rng.coin();
            if power {
                eyes.power_cut();
                disk.crash_power(
                    [PowerOutcome::LoseAll, PowerOutcome::RandomSectors, PowerOutcome::Garbage][rng.index(3)],
                );
            } else {
                disk.crash_process();
            }
            drop(lived);
            disk.clear_faults();
            eyes.look();
        }
        let store = live(&eyes, &mut rng, 40, Durability::Disk).unwrap();
        store.close().unwrap();
        eyes.look();
        // In the end it is as if it had been opened now.
        let (seen_now, fresh) = (eyes.seen.lock().unwrap(), eyes.observe().unwrap());
        let observer = seen_now.observer.as_ref().unwrap();
        assert_eq!((observer.end(), observer.stats().unwrap()), (fresh.end(), fresh.stats().unwrap()));
        assert_eq!(seen_now.follow.next, fresh.stats().unwrap().topics[0].published, "all messages were seen");
        seen += seen_now.follow.next - seen_now.follow.missed;
        files +=
            disk.files().iter().filter_map(|file| file.name.split('.').next()?.parse::<u64>().ok()).max().unwrap_or(0);
    }
    assert!(seen > 1_500 && crashed > 20 && files > 100, "{seen} messages, {crashed} crashes, {files} files");
}

/// A writer that goes on whenever an observer reads, some steps a look.
#[derive(Debug)]
struct Hands {
    store: Store,
    clock: Arc<SimClock>,
    rng: Mutex<Rng>,
    steps_left: AtomicU64,
    published: AtomicU64,
}

impl Hands {
    fn step(&self) {
        let (topic, mut rng) = (self.store.topic(TOPIC).open().unwrap(), self.rng.lock().unwrap());
        let group = topic.group(GROUP).open().unwrap();
        match rng.below(6) {
            0..3 => {
                let first = self.published.fetch_add(3, Ordering::Relaxed);
                topic.publish_batch((first..first + 3).map(payload)).unwrap();
            }
            3 | 4 => drop(group.receive_batch(8, Duration::ZERO).unwrap().ack().unwrap()),
            _ => {
                self.clock.advance(700);
                self.store.tick().unwrap();
                self.store.checkpoint().unwrap();
            }
        }
    }
}

impl Watch for Hands {
    fn before(&self, _: Request<'_>) {
        let took = self.steps_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if took.is_ok() {
            self.step();
        }
    }
}

/// Files come and go, and frames are appended, while an observer reads one file after the other.
#[test]
fn a_writer_may_move_between_any_two_reads() {
    let mut seen = 0;
    for seed in 0..8 {
        let (disk, clock) = (SimDisk::new(seed), Arc::new(SimClock::new(WallMs(1_800_000_000_000))));
        let level = if seed % 2 == 0 { Durability::Disk } else { Durability::Os };
        let store =
            small().durability(level).open_on(Arc::new(disk.attach().unwrap()), Arc::clone(&clock) as _).unwrap();
        let (rng, none) = (Mutex::new(Rng::new(seed)), || AtomicU64::new(0));
        let hands = Arc::new(Hands { store, clock: Arc::clone(&clock), rng, steps_left: none(), published: none() });
        (0..20).for_each(|_| hands.step());
        let read = Arc::new(WatchedDisk::new(Arc::new(disk.reader()), Arc::clone(&hands)));
        let open = || Store::options().open_read_only_on(Arc::clone(&read) as _, Arc::clone(&clock) as _).unwrap();
        let (observer, mut follow) = (open(), Follow::default());
        for _ in 0..40 {
            hands.steps_left.store(12, Ordering::Relaxed);
            observer.refresh().unwrap();
            follow.go_on(&observer);
            hands.steps_left.store(12, Ordering::Relaxed);
            assert!(open().end() >= observer.end());
        }
        hands.steps_left.store(0, Ordering::Relaxed);
        hands.store.close().unwrap();
        observer.refresh().unwrap();
        follow.go_on(&observer);
        assert_eq!(follow.next, hands.published.load(Ordering::Relaxed));
        assert_eq!(observer.stats().unwrap(), open().stats().unwrap());
        seen += follow.next - follow.missed;
    }
    assert!(seen > 1_000, "{seen} messages");
}

fn store_at(path: &Path) -> Store {
    small().open(path).unwrap()
}

/// Names, bytes and times of all files of a directory.
fn all_of(path: &Path) -> BTreeMap<String, (Vec<u8>, SystemTime)> {
    let entries = std::fs::read_dir(path).unwrap().map(Result::unwrap);
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    files
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, (std::fs::read(entry.path()).unwrap(), entry.metadata().unwrap().modified().unwrap()))
        })
        .collect()
}

#[test]
fn looking_changes_no_byte_and_makes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("nowhere");
    assert!(matches!(Store::open_read_only(&nowhere), Err(Error::NotFound { what: "store", .. })));
    assert!(!nowhere.exists());
    assert!(matches!(Store::open_read_only(folder.path()), Err(Error::NotFound { .. })));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);

    let path = folder.path().join("data");
    let store = store_at(&path);
    let topic = store.topic(TOPIC).open().unwrap();
    let group = topic.group(GROUP).max_attempts(1).open().unwrap();
    topic.publish_batch((0..200).map(payload)).unwrap();
    group.receive(Duration::ZERO).unwrap().unwrap().nack("no oven").unwrap();
    store.sync().unwrap();
    store.close().unwrap();
    drop((store, topic, group));
    let before = all_of(&path);
    let observer = Store::open_read_only(&path).unwrap();
    let mut follow = Follow::default();
    follow.go_on(&observer);
    assert_eq!((follow.next, observer.stats().unwrap().topics[0].groups[0].lag), (200, 199));
    assert!(!observer.refresh().unwrap());
    for state in [MessageState::Ready, MessageState::Waiting, MessageState::Exhausted] {
        observer.peek(TOPIC, GROUP, state, 1_000).unwrap().for_each(|message| drop(message.unwrap()));
    }
    assert!(all_of(&path) == before, "an observer changed the store");
}

/// What is not valid and stays so is damage, and told.
#[test]
fn damage_is_told_and_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    let store = store_at(&path);
    store.topic(TOPIC).open().unwrap().publish_batch((0..10).map(payload)).unwrap();
    store.topic(TOPIC).open().unwrap().publish_batch((10..20).map(payload)).unwrap();
    std::mem::forget(store.clone());
    let segment = all_of(&path).into_iter().find(|(name, _)| name.ends_with(".seg")).unwrap();
    let (name, (mut bytes, _)) = segment;
    let at = bytes.windows(8).position(|some| some == [7; 8]).unwrap();
    bytes[at] ^= 1;
    let copy = folder.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    for (other, (bytes, _)) in all_of(&path) {
        std::fs::write(copy.join(other), bytes).unwrap();
    }
    std::fs::write(copy.join(&name), bytes).unwrap();
    match Store::open_read_only(&copy) {
        Err(Error::Corrupt(corruption)) => assert_eq!(corruption.file, name),
        other => panic!("{:?}", other.map(drop)),
    }
    assert!(Store::open_read_only(&path).is_ok());
}

/// What was told of a message: its first offset, its attempts, and how the last of them ended.
type Told = (u64, u32, Option<(Cause, String)>);

/// Each message of a group is in exactly one state, and told with what it went through.
#[test]
fn messages_are_looked_at_in_any_state() {
    let (disk, clock) = (SimDisk::new(1), Arc::new(SimClock::new(WallMs(1_800_000_000_000))));
    let store = small().open_on(Arc::new(disk.attach().unwrap()), Arc::clone(&clock) as _).unwrap();
    let topic = store.topic(TOPIC).open().unwrap();
    let group = topic.group(GROUP).max_attempts(2).visibility_timeout(Duration::from_secs(30)).open().unwrap();
    topic.publish_batch((0..6).map(payload)).unwrap();
    let mut held = group.receive_batch(4, Duration::ZERO).unwrap().into_iter();
    held.next().unwrap().reject("no oven").unwrap();
    held.next().unwrap().nack_after(Duration::from_secs(3600), "later").unwrap();
    held.next().unwrap().ack().unwrap();
    let leased = held.next().unwrap();
    store.close().unwrap_or_else(|error| panic!("{error}"));
    drop(leased);
    drop(store);
    let observer = Store::options().open_read_only_on(Arc::new(disk.reader()), clock as _).unwrap();
    let told = |state| -> Vec<Told> {
        let messages = observer.peek(TOPIC, GROUP, state, 100).unwrap().map(Result::unwrap);
        let last = |message: &millpond::Peeked| message.history().last().map(|last| (last.cause, last.text.clone()));
        messages.map(|message| (message.origin().offset.0, message.attempts(), last(&message))).collect()
    };
    assert_eq!(told(MessageState::Dead), [(0, 1, Some((Cause::Rejected, "no oven".to_owned())))]);
    assert_eq!(told(MessageState::Waiting), [(1, 1, Some((Cause::Nacked, "later".to_owned())))]);
    let ready: Vec<u64> = told(MessageState::Ready).into_iter().map(|(offset, ..)| offset).collect();
    assert_eq!(ready, [4, 5]);
    assert_eq!(told(MessageState::Leased), [(3, 1, None)], "the next open ends it");
    for none in [MessageState::Exhausted, MessageState::Parked] {
        assert_eq!(told(none), []);
    }
    let stats = observer.stats().unwrap();
    let of = &stats.topics[0].groups[0];
    assert_eq!((of.ready, of.leased, of.waiting, of.dead, of.lag), (2, 1, 1, 1, 4));
    assert_eq!(observer.peek(TOPIC, GROUP, MessageState::Ready, 1).unwrap().count(), 1);
    assert!(matches!(observer.peek(TOPIC, "none", MessageState::Ready, 2), Err(Error::NotFound { what: "group", .. })));
}

/// The body of a child: publishes and settles, in segments of 64 KiB, until it is killed.
#[test]
fn child() {
    let Some((_, path)) = task() else { return };
    leave_no_core();
    let store = must(small().open(&path));
    let topic = must(store.topic(TOPIC).open());
    let group = must(topic.group(GROUP).open());
    let first = must(store.stats()).topics[0].published;
    for number in first..first + 400 {
        must(topic.publish(payload(number)));
        if number % 10 == 9 {
            drop(must(must(group.receive_batch(10, Duration::ZERO)).ack()));
            say(number);
        }
    }
    std::process::abort();
}

/// The same with real processes, which die in the middle, and real files.
#[test]
fn an_observer_follows_processes_that_are_killed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    drop(store_at(&path).topic(TOPIC).open().unwrap());
    let observer = Store::open_read_only(&path).unwrap();
    let mut follow = Follow::default();
    for _ in 0..3 {
        let ended = run(command("child", "publish", &path), |line| {
            if line.parse::<u64>().is_ok() {
                observer.refresh().unwrap();
                follow.go_on(&observer);
            }
        });
        assert!(!ended.success(), "it dies");
        observer.refresh().unwrap();
        follow.go_on(&observer);
    }
    let store = store_at(&path);
    store.topic(TOPIC).open().unwrap().publish(payload(1_200)).unwrap();
    let published = store.stats().unwrap().topics[0].published;
    store.close().unwrap();
    observer.refresh().unwrap();
    follow.go_on(&observer);
    assert_eq!((published, follow.next), (1_201, 1_201), "what was acknowledged is there, and was seen");
    let fresh = Store::open_read_only(&path).unwrap();
    assert_eq!(observer.stats().unwrap().topics, fresh.stats().unwrap().topics);
}
