//! Death at a named request to the disk: the child ends itself by SIGKILL before or after the nth request of a kind.
//!
//! A kind is a request and a kind of file, such as `Sync .seg` or `Write STORE`, after `opening: ` or `closing: ` where it is
//! made there. The child of this level works in one thread and does the background jobs itself, so that equal
//! directories give equal requests. It speaks as the other children do, and at its end says:
//!
//! ```text
//! count NUMBER KIND             so many requests of this kind were made
//! done                          it was not killed
//! ```
//!
//! `MILLPOND_KILL_POINTS` children die at each kind, at places spread over all of it.

use crate::child::{must, open_topic, open_workers, publish_once, receive_and_ack, say};
use crate::oracle::Oracle;
use crate::payload::Number;
use crate::watched::{Request, Watch, WatchedDisk};
use crate::{CHECK_STEP, SIGKILL, check_at_times, counts, memory, setting, spawn};
use millpond::simulation::{SystemClock, real_disk};
use millpond::{Durability, Message, Store};
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Where a child has to die.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) after: bool,
    /// From 0.
    pub(crate) nth: u32,
    pub(crate) kind: String,
}

impl Point {
    /// `before 3 Sync .seg`; none is `never`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut words = text.splitn(3, ' ');
        let after = words.next()? == "after";
        let nth = words.next()?.parse().expect("a number");
        Some(Self { after, nth, kind: words.next()?.to_owned() })
    }
}

impl std::fmt::Display for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", if self.after { "after" } else { "before" }, self.nth, self.kind)
    }
}

#[derive(Debug, Default)]
struct Executioner {
    point: Option<Point>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    phase: &'static str,
    counts: BTreeMap<String, u32>,
}

impl Executioner {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, phase: &'static str) {
        self.seen().phase = phase;
    }

    fn meet(&self, request: Request<'_>, after: bool) {
        let mut seen = self.seen();
        let kind = format!("{}{}", seen.phase, request.kind());
        let count = seen.counts.entry(kind.clone()).or_default();
        let nth = if after { *count - 1 } else { *count };
        *count = nth + 1;
        if self.point == Some(Point { after, nth, kind }) {
            let me = rustix::process::getpid();
            rustix::process::kill_process(me, rustix::process::Signal::KILL).expect("it may kill itself");
        }
    }
}

impl Watch for Executioner {
    fn before(&self, request: Request<'_>) {
        self.meet(request, false);
    }

    fn after(&self, request: Request<'_>) {
        self.meet(request, true);
    }
}

/// The body of the child: opens, works through several segments and checkpoints, and closes.
pub(crate) fn work(dir: &Path, round: u32, point: Option<Point>) {
    say("start");
    let executioner = Arc::new(Executioner { point, ..Executioner::default() });
    executioner.enter("opening: ");
    let disk = real_disk(dir).expect("the directory can be attached to");
    let disk = Arc::new(WatchedDisk::new(disk, Arc::clone(&executioner)));
    let level = if round.is_multiple_of(2) { Durability::Disk } else { Durability::Os };
    let options = Store::options().durability(level).segment_bytes_max(64 << 10);
    let store = must(options.open_on(disk, Arc::new(SystemClock)));
    executioner.enter("");
    churn(&store);
    let topic = open_topic(&store);
    let workers = open_workers(&topic);
    say("open");
    let mut number = Number { round, thread: 0, index: 0 };
    for step in 0..4 {
        let level = if step % 2 == 0 { Durability::Os } else { Durability::Disk };
        for count in [1, 7, 1] {
            publish_once(&topic.with_durability(level), level, number, count);
            number = number.plus(count);
        }
        must(store.tick());
        receive_and_ack(&workers, 5, Duration::ZERO);
    }
    executioner.enter("closing: ");
    must(store.close());
    for (kind, count) in &executioner.seen().counts {
        say(format_args!("count {count} {kind}"));
    }
    say("done");
}

/// Fills segments with messages that are settled at once, so that segments die and are unlinked. Of these nothing is
/// promised to the parent.
fn churn(store: &Store) {
    let topic = must(store.topic("churn").open()).with_durability(Durability::Os);
    let group = must(topic.group("all").open());
    for step in 1..=40 {
        must(topic.publish_batch((0..8).map(|byte| Message::new(vec![byte; 1_000]))));
        // What a killed process left comes, too.
        let batch = must(group.receive_batch(1_000, Duration::ZERO));
        assert!(must(batch.ack()).is_empty());
        if step % 5 == 0 {
            must(store.tick());
        }
    }
}

/// Lets a child die at a point, or live where there is none. Returns whether it died, and what it counted if not.
fn die_at(store: &Path, round: u32, point: Option<&Point>, oracle: &mut Oracle) -> (bool, BTreeMap<String, u32>) {
    oracle.begin_round();
    let place = point.map_or("never".to_owned(), Point::to_string);
    let (mut child, lines) = spawn(store, &format!("point {round} {place}"));
    let mut counted = BTreeMap::new();
    for line in lines {
        oracle.hear(&line);
        if let Some((count, kind)) = line.strip_prefix("count ").and_then(|line| line.split_once(' ')) {
            counted.insert(kind.to_owned(), count.parse().expect("a count"));
        }
    }
    let status = child.wait().expect("it can be waited for");
    let died = status.signal() == Some(SIGKILL);
    assert!(died || status.success(), "the child that was to die {place} ended with {status}");
    (died, counted)
}

/// What a child of this level is sure to ask of the disk, so that each of these is a place to die at.
const KINDS: [&str; 22] = [
    "opening: Open STORE",
    "opening: Read STORE",
    "opening: List",
    "opening: Read .seg",
    "opening: Create .seg",
    "opening: Sync .seg",
    "opening: Write STORE",
    "opening: Sync STORE",
    "opening: SyncDir",
    "Append .seg",
    "Create .seg",
    "Create .ckp",
    "Create .idx",
    "Write STORE",
    "Sync STORE",
    "Sync .seg",
    "Sync .ckp",
    "SyncDir",
    "SetLen .seg",
    "Remove .seg",
    "Remove .ckp",
    "closing: Write STORE",
];

/// G1 to G8, G11, G17, at each kind of request to the disk.
#[test]
fn what_was_promised_survives_a_kill_at_each_kind_of_request() {
    let began = Instant::now();
    let of_each = u32::try_from(setting("MILLPOND_KILL_POINTS", 4)).expect("not so many");
    let dir = memory::directory();
    let store = dir.path().join("store");
    let mut oracle = Oracle::default();
    // A process that was killed leaves the next one something to recover; what that one asks for is what there is.
    let first = Point { after: false, nth: 3, kind: "Write STORE".to_owned() };
    assert!(die_at(&store, 0, Some(&first), &mut oracle).0);
    let (_, counts) = die_at(&store, 1, None, &mut oracle);
    let missing: Vec<_> = KINDS.iter().filter(|kind| !counts.contains_key(**kind)).collect();
    assert!(missing.is_empty(), "nobody asks for {missing:?} among {counts:?}");
    let (mut round, mut kills, mut reached) = (2, 0, BTreeMap::new());
    for (kind, count) in &counts {
        let of_this = of_each.min(2 * count);
        for step in 0..of_this {
            // Spread over all of the kind, before one and after the next.
            let nth = (2 * step + 1) * count / (2 * of_this);
            let point = Point { after: round % 2 == 1, nth, kind: kind.clone() };
            let (died, _) = die_at(&store, round, Some(&point), &mut oracle);
            kills += u64::from(died);
            *reached.entry(kind).or_insert(false) |= died;
            check_at_times(&mut oracle, round, CHECK_STEP, &store);
            round += 1;
        }
    }
    oracle.check(&store);
    oracle.assert_busy();
    let missed: Vec<_> = reached.iter().filter(|(_, died)| !**died).collect();
    assert!(missed.len() * 4 < reached.len(), "too few died where they should: {missed:?}");
    let kinds = reached.len() as u64;
    counts::note("kill-points", began.elapsed(), &[("kills at named points", kills), ("kinds of points", kinds)]);
}
