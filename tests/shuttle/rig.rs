//! A store on a simulated disk whose requests are scheduling points, a clock that moves when told, and the runs.
//!
//! A thread that is never woken is a deadlock here and fails the run, for no wait times out unless [`Machine::pass`] is called.

use crate::counts;
use millpond::simulation::WallMs;
use millpond::simulation::{
    Access, Disk, Entry, Fault, File, Op, PowerOutcome, SimClock, SimDisk, SimHandle, Tail, elapse, panic_quietly,
};
use millpond::{Delivery, Durability, Error, Group, Store, StoreOptions, Topic};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, Runner};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longer than any test lets time pass: who waits so long must be woken.
pub(crate) const LONG: Duration = Duration::from_secs(3_600);
/// Schedules for each test and kind of scheduler.
const SCHEDULES: u64 = 300;
/// The greatest number of preemptions that the second scheduler places.
const PCT_DEPTH: usize = 4;
const SEGMENT_BYTES: u64 = 64 << 10;

/// What was seen over all schedules of a test: a test that never met the case it is for tests nothing.
#[derive(Debug)]
pub(crate) struct Seen<const N: usize>([AtomicU64; N]);

impl<const N: usize> Seen<N> {
    pub(crate) fn note(&self, what: usize) {
        self.0[what].fetch_add(1, Ordering::Relaxed);
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

/// Runs `body` under schedules of both kinds, and demands that each of the `cases` was seen.
pub(crate) fn explore<const N: usize>(
    name: &'static str,
    cases: [&'static str; N],
    body: impl Fn(&Seen<N>) + Send + Sync + 'static,
) {
    let schedules = setting("MILLPOND_SHUTTLE", SCHEDULES);
    let seed = setting("MILLPOND_SHUTTLE_SEED", 1);
    let begin = Instant::now();
    let seen = Arc::new(Seen(std::array::from_fn(|_| AtomicU64::new(0))));
    let body = Arc::new(body);
    let max = usize::try_from(schedules).unwrap();
    run(name, "random", RandomScheduler::new_from_seed(seed, max), &body, &seen);
    run(name, "preempting", PctScheduler::new_from_seed(seed, PCT_DEPTH, max), &body, &seen);
    let counts: Vec<(&str, u64)> =
        cases.iter().zip(&seen.0).map(|(case, count)| (*case, count.load(Ordering::Relaxed))).collect();
    println!("{name}: {} schedules in {:?}: {counts:?}", 2 * schedules, begin.elapsed());
    counts::note(&format!("shuttle-{name}"), begin.elapsed(), &[&[("schedules", 2 * schedules)], &counts[..]].concat());
    // Few schedules, as in the search for a planted bug, may miss a case.
    let missing: Vec<_> = counts.iter().filter(|(_, count)| *count == 0 && schedules >= SCHEDULES).collect();
    assert!(missing.is_empty(), "{name} never met {missing:?}");
}

fn run<const N: usize>(
    name: &str,
    kind: &str,
    scheduler: impl Scheduler + 'static,
    body: &Arc<impl Fn(&Seen<N>) + Send + Sync + 'static>,
    seen: &Arc<Seen<N>>,
) {
    let mut config = Config::new();
    config.stack_size = 1 << 20;
    config.silence_warnings = true;
    config.failure_persistence = FailurePersistence::None;
    let (body, seen, nth) = (Arc::clone(body), Arc::clone(seen), Arc::new(AtomicU64::new(0)));
    let begun = Arc::clone(&nth);
    let runner = Runner::new(scheduler, config);
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        runner.run(move || {
            begun.fetch_add(1, Ordering::Relaxed);
            body(&seen);
        })
    }));
    if let Err(panic) = ended {
        let nth = nth.load(Ordering::Relaxed);
        eprintln!("{name}: failed at {kind} schedule {nth}; again: MILLPOND_SHUTTLE={nth} .ci/shuttle {name}");
        std::panic::resume_unwind(panic);
    }
}

/// Lets the scheduler choose who goes on.
fn switch() {
    shuttle::thread::sleep(Duration::ZERO);
}

/// What the disk does beside its work: which sync or append is to panic, counted down; and what it watches.
#[derive(Debug, Default)]
struct Around {
    in_sync: AtomicU64,
    in_append: AtomicU64,
    happened: AtomicBool,
    /// While it is locked, syncs do not end.
    stall: shuttle::sync::Mutex<()>,
    stalled: AtomicBool,
    /// Others may attach: nobody may change anything any more.
    detached: AtomicBool,
}

impl Around {
    fn assert_attached(&self) {
        assert!(!self.detached.load(Ordering::SeqCst), "something was written after the directory was let go of");
    }

    fn meet(&self, countdown: &AtomicU64) {
        if countdown.load(Ordering::SeqCst) > 0 && countdown.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.happened.store(true, Ordering::SeqCst);
            panic_quietly();
        }
    }
}

/// A machine with one directory.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) disk: SimDisk,
    clock: Arc<SimClock>,
    around: Arc<Around>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        // Time begins here, and not in a thread that unwinds: what is first used there is out of use for all.
        elapse(0);
        let clock = Arc::new(SimClock::new(WallMs(1_800_000_000_000)));
        Self { disk: SimDisk::new(1), clock, around: Arc::default() }
    }

    fn options(level: Durability) -> StoreOptions {
        Store::options().durability(level).segment_bytes_max(SEGMENT_BYTES)
    }

    fn attach(&self) -> Arc<Switching> {
        let disk = self.disk.attach().unwrap();
        self.around.detached.store(false, Ordering::SeqCst);
        Arc::new(Switching { disk, around: Arc::clone(&self.around) })
    }

    pub(crate) fn open(&self, level: Durability) -> Store {
        Self::options(level).open_on(self.attach(), self.clock.clone()).unwrap()
    }

    pub(crate) fn open_with_threads(&self, level: Durability) -> Store {
        Self::options(level).open_with_threads(self.attach(), self.clock.clone()).unwrap()
    }

    /// Lets time pass.
    pub(crate) fn pass(&self, ms: u64) {
        self.clock.advance(ms);
        elapse(ms);
    }

    /// Lets time pass until `done`. Far less of it than [`LONG`]: whoever waits that long is not helped.
    pub(crate) fn pass_until(&self, done: impl Fn() -> bool) {
        for _ in 0..1_000 {
            if done() {
                return;
            }
            self.pass(20);
            shuttle::thread::yield_now();
        }
        panic!("nobody was woken in 20 seconds");
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.disk.requests_of(Op::Sync)
    }

    /// The `nth` sync from here on fails, from 0.
    pub(crate) fn fail_sync(&self, nth: u64) {
        self.disk.fail_op_at(Op::Sync, self.syncs() + nth, Fault::Io);
    }

    /// The `nth` sync from here on panics, from 0.
    pub(crate) fn panic_in_sync(&self, nth: u64) {
        self.around.in_sync.store(nth + 1, Ordering::SeqCst);
    }

    /// The `nth` append from here on panics, from 0.
    pub(crate) fn panic_in_append(&self, nth: u64) {
        self.around.in_append.store(nth + 1, Ordering::SeqCst);
    }

    /// From now on until the end of the guard syncs begin and do not end.
    pub(crate) fn stall_syncs(&self) -> impl Drop {
        let guard = self.around.stall.lock();
        self.around.stalled.store(false, Ordering::SeqCst);
        guard.unwrap()
    }

    /// Whether a sync began since [`stall_syncs`](Self::stall_syncs).
    pub(crate) fn is_stalled(&self) -> bool {
        self.around.stalled.load(Ordering::SeqCst)
    }

    pub(crate) fn panicked(&self) -> bool {
        self.around.happened.load(Ordering::SeqCst)
    }

    /// The process dies. What it held is only freed: nothing reaches the disk any more.
    pub(crate) fn kill(&self, held: impl Sized) {
        self.disk.crash_process();
        drop(held);
    }

    /// The power goes, and what was never synced is lost. Returns the payloads that a new process finds.
    pub(crate) fn payloads_after_power_cut(&self) -> Vec<Vec<u8>> {
        self.lose_power();
        self.payloads()
    }

    /// The power goes, and what was never synced is lost.
    pub(crate) fn lose_power(&self) {
        self.disk.crash_power(PowerOutcome::LoseAll);
    }

    /// What a new process finds, in order.
    pub(crate) fn payloads(&self) -> Vec<Vec<u8>> {
        let store = Self::options(Durability::Disk).open_on(Arc::new(self.disk.attach().unwrap()), self.clock.clone());
        let group = topic(&store.unwrap()).group("reader").open().unwrap();
        let batch = group.receive_batch(1_000, Duration::ZERO).unwrap();
        batch.iter().map(|delivery| delivery.payload().to_vec()).collect()
    }
}

/// Takes messages, and settles none, until the store says no. Returns what it said, and what was taken.
pub(crate) fn receive_until_refused(group: &Group) -> (Error, Vec<Delivery>) {
    let mut taken = Vec::new();
    loop {
        match group.receive(LONG) {
            Ok(delivery) => taken.extend(delivery),
            Err(error) => return (error, taken),
        }
    }
}

pub(crate) fn topic(store: &Store) -> Topic {
    store.topic("t").open().unwrap()
}

pub(crate) fn group(topic: &Topic, name: &str) -> Group {
    topic.group(name).visibility_timeout(Duration::from_millis(20)).open().unwrap()
}

/// What a call answers once the store has stopped.
pub(crate) fn is_stopped(error: &Error) -> bool {
    matches!(error, Error::OutcomeUnknown { .. } | Error::Poisoned { .. })
}

/// The simulated disk, with scheduling points around what takes time on a real one, and panics.
#[derive(Debug)]
struct Switching {
    disk: SimHandle,
    around: Arc<Around>,
}

#[derive(Debug)]
struct SwitchingFile {
    file: Arc<dyn File>,
    around: Arc<Around>,
}

#[derive(Debug)]
struct SwitchingTail {
    tail: Box<dyn Tail>,
    file: Arc<dyn File>,
    around: Arc<Around>,
}

impl Switching {
    fn wrap(&self, file: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(SwitchingFile { file, around: Arc::clone(&self.around) })
    }
}

impl Disk for Switching {
    fn list(&self) -> io::Result<Vec<Entry>> {
        self.disk.list()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        switch();
        Ok(self.wrap(self.disk.open(name)?))
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn File>> {
        switch();
        self.around.assert_attached();
        Ok(self.wrap(self.disk.create(name, len)?))
    }

    fn create_tail(&self, name: &str, len: u64, access: Access) -> io::Result<Box<dyn Tail>> {
        switch();
        self.around.assert_attached();
        let tail = self.disk.create_tail(name, len, access)?;
        let file = self.wrap(Arc::clone(tail.file()));
        Ok(Box::new(SwitchingTail { tail, file, around: Arc::clone(&self.around) }))
    }

    fn prepare(&self, name: &str, range: std::ops::Range<u64>) -> io::Result<()> {
        self.disk.prepare(name, range)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        switch();
        self.around.assert_attached();
        self.disk.remove(name)
    }

    fn replace_lock_file(&self, bytes: &[u8]) -> io::Result<Arc<dyn File>> {
        switch();
        self.around.assert_attached();
        Ok(self.wrap(self.disk.replace_lock_file(bytes)?))
    }

    fn sync_dir(&self) -> io::Result<()> {
        switch();
        self.disk.sync_dir()
    }

    fn available(&self) -> io::Result<u64> {
        self.disk.available()
    }

    fn random(&self) -> u64 {
        self.disk.random()
    }

    fn detach(&self) {
        switch();
        self.around.detached.store(true, Ordering::SeqCst);
        self.disk.detach();
    }

    fn is_forked(&self) -> bool {
        false
    }
}

impl File for SwitchingFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn links(&self) -> io::Result<u64> {
        self.file.links()
    }

    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        switch();
        self.file.read_at(at, buf)
    }

    fn data_from(&self, at: u64) -> io::Result<Option<Range<u64>>> {
        self.file.data_from(at)
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        switch();
        self.around.assert_attached();
        self.file.write_at(at, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        switch();
        self.around.stalled.store(true, Ordering::SeqCst);
        drop(self.around.stall.lock());
        self.around.meet(&self.around.in_sync);
        let synced = self.file.sync();
        switch();
        synced
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
}

impl Tail for SwitchingTail {
    fn append(&mut self, at: u64, pieces: &[&[u8]]) -> io::Result<()> {
        self.around.assert_attached();
        self.around.meet(&self.around.in_append);
        self.tail.append(at, pieces)
    }

    fn file(&self) -> &Arc<dyn File> {
        &self.file
    }
}
