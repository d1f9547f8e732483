//! Damage at rest through the public API (G12): the same content, or a typed error that names what is lost; never less with
//! `Ok`.
//!
//! A store with something of everything is damaged in one place, opened, and read to its last message. Which damage there
//! is says `mutations`, what a store holds `content`. Sampled by a fixed order: equal settings try equal damage.
//!
//! `MILLPOND_CORRUPTIONS` sets how many are tried on the closed store (3,000), `all` of them if it says so; on the one that
//! was not closed a quarter as many.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails, and says what it did")]

mod content;
#[path = "../common/counts.rs"]
mod counts;
#[path = "../fuzz/memory.rs"]
mod memory;
mod mutations;

use content::{Content, Items, named, read};
use millpond::Lsn;
use millpond::simulation::SimDisk;
use millpond::simulation::WallMs;
use millpond::simulation::fuzzing::{Rich, kinds, rich};
use millpond::{Durability, Error};
use mutations::{Kind, Mutation, Sources, sample};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The messages of the longest frame of the store.
const LOST_BY_BYTE_MAX: usize = 10;
const HELD_MAX: usize = 64 << 20;
const REQUESTS_MAX: u64 = 20_000;

/// What became of a damaged store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Identical,
    ToldAtOpen,
    ToldAtRead,
    /// Of a store that was not closed: what nothing proved to have been durable is gone, and the report tells.
    Dropped,
}

impl Outcome {
    const fn name(self) -> &'static str {
        match self {
            Self::Identical => "identical content",
            Self::ToldAtOpen => "typed errors at open",
            Self::ToldAtRead => "typed errors at a read",
            Self::Dropped => "unproven ends dropped",
        }
    }
}

/// A store to damage, what it holds, and what may be dropped of it.
struct Sweep {
    sources: Sources,
    wall: WallMs,
    whole: Content,
    /// Below here nothing may be dropped: of a closed store everything. For one changed byte, and for more damage.
    proven: [Lsn; 2],
}

/// How a damaged store is looked at.
#[derive(Clone, Copy, Default)]
struct Look {
    /// It is used further.
    go_on: bool,
    /// Its index files are as they were.
    indexed: bool,
    /// An opening before has told what it dropped.
    told: bool,
}

impl Sweep {
    fn closed(rich: &Rich, other: &Rich) -> Self {
        let sources = Sources::new(&rich.closed, rich, &other.closed);
        let (_, whole) = read(&sources.whole(), rich.wall).unwrap();
        assert!(whole.report.was_clean);
        let proven = [whole.report.end; 2];
        Self { sources, wall: rich.wall, whole, proven }
    }

    fn unclosed(rich: &Rich, other: &Rich) -> Self {
        let sources = Sources::new(&rich.unclosed, rich, &other.unclosed);
        let (_, whole) = read(&sources.whole(), rich.wall).unwrap();
        let report = &whole.report;
        assert!(!report.was_clean && report.copied_bytes > 0 && report.watermark < report.end);
        // The slot tells of all that the process before had closed; several frames tell of the rest, and damage of a whole
        // block may take them all.
        let before = rich.older.last().unwrap().snapshot();
        let (_, before) = read(&before, rich.wall).unwrap();
        let proven = [report.watermark, before.report.end];
        Self { sources, wall: rich.wall, whole, proven }
    }

    /// Opens and reads a damaged store, with its index files and without any: they are derived, and change nothing (G17).
    fn judge(&self, mutation: Mutation, disk: &SimDisk, go_on: bool) -> Result<Outcome, String> {
        let (bare, whole) = (disk.snapshot(), self.sources.whole());
        let mut indexed = true;
        for name in self.sources.names.iter().filter(|name| name.ends_with(".idx")) {
            indexed &= disk.read_file(name) == whole.read_file(name);
            bare.remove_file(name);
        }
        let (outcome, found) = self.judge_one(mutation, disk, Look { go_on, indexed, told: false })?;
        let bare_before = bare.snapshot();
        let without = self.judge_one(mutation, &bare, Look { go_on, ..Look::default() });
        let (outcome_without, without) = without.map_err(|what| format!("without index files: {what}"))?;
        if outcome != outcome_without {
            return Err(format!("{outcome:?}, and without index files {outcome_without:?} (G17)"));
        }
        if let (Some(found), Some(without)) = (found, without) {
            let items = |content: &Content| -> Vec<Items> {
                content.topics.values().chain(content.groups.values()).map(|share| share.items.clone()).collect()
            };
            if items(&found) != items(&without) || found.groups != without.groups {
                return Err("without index files it reads otherwise (G17)".to_owned());
            }
            if go_on {
                // Opening wrote the index files of the oldest segments anew, and closing that of the newest. They lead to no
                // other bytes, and leave no less untold.
                let again = bare_before.snapshot();
                let clock = std::sync::Arc::new(millpond::simulation::SimClock::new(self.wall));
                let opened = millpond::simulation::fuzzing::open(&again, &clock, Durability::Os);
                let opened = opened.map_err(|error| format!("without index files: {error}"))?;
                // What this opening dropped it told of; the next one finds nothing there.
                let told = opened.report().dropped.is_some();
                drop(opened);
                again.crash_process();
                let (_, reread) = self.judge_one(mutation, &again, Look { told, ..Look::default() })?;
                if reread.is_some_and(|reread| items(&reread) != items(&without) || reread.groups != without.groups) {
                    return Err("with index files made anew it reads otherwise (G17)".to_owned());
                }
            }
        }
        Ok(outcome)
    }

    fn judge_one(&self, mutation: Mutation, disk: &SimDisk, look: Look) -> Result<(Outcome, Option<Content>), String> {
        let (store, found) = match read(disk, self.wall) {
            Ok(read) => read,
            Err(Error::Corrupt(corruption)) => {
                named(&corruption);
                self.judge_repair(mutation, &disk.snapshot()).map_err(|what| format!("repaired: {what}"))?;
                return Ok((Outcome::ToldAtOpen, None));
            }
            Err(Error::ForeignFile { .. } | Error::NewerFormat { .. }) => return Ok((Outcome::ToldAtOpen, None)),
            Err(error) => return Err(format!("{error:?}")),
        };
        let least = self.proven[usize::from(mutation.kind() != Kind::Byte)];
        let outcome = if found.report.end < self.whole.report.end && found.report.end >= least {
            found.is_prefix_of(&self.whole)?;
            let place = found.report.dropped.as_ref().and_then(|tail| {
                let len = disk.read_file(&tail.file)?.len() as u64;
                (tail.offset < len && tail.bytes > 0).then_some(())
            });
            if mutation.kind() == Kind::Byte && !look.told && place.is_none() {
                return Err("the end was dropped without a word, or it does not say where".to_owned());
            }
            Outcome::Dropped
        } else if found.compare(&self.whole, look.indexed)? > 0 {
            Outcome::ToldAtRead
        } else {
            Outcome::Identical
        };
        if look.go_on {
            use_further(store, disk, self.wall)?;
        }
        Ok((outcome, Some(found)))
    }

    /// Repairs a store that does not open: it opens then, has nothing that was not there, and what is missing is told. Where no file says which
    /// store it is of, nothing is changed.
    fn judge_repair(&self, mutation: Mutation, disk: &SimDisk) -> Result<(), String> {
        let before: Vec<_> = disk.files().into_iter().map(|file| (disk.read_file(&file.name), file.name)).collect();
        let clock = || std::sync::Arc::new(millpond::simulation::SimClock::new(self.wall));
        let handle = std::sync::Arc::new(disk.attach().map_err(|error| error.to_string())?);
        let options = millpond::Store::options().durability(Durability::Os).segment_bytes_max(64 << 10);
        let report = options.repair_on(handle, clock()).map_err(|error| format!("{error:?}"))?;
        if report.damage.is_none() {
            return Err("there is nothing to be repaired".to_owned());
        }
        for copy in &report.copies {
            let name = copy.split_once(".damaged").map_or("", |(name, _)| name);
            let was = before.iter().find(|(_, before)| before == name).and_then(|(bytes, _)| bytes.clone());
            if was.is_none() || disk.read_file(copy) != was {
                return Err(format!("{copy} is no copy of the damaged file"));
            }
        }
        let (store, found) = read(disk, self.wall).map_err(|error| format!("it does not open: {error:?}"))?;
        // An older checkpoint does not know what was settled since, and could go.
        let is_older = report.are_names_lost || report.copies.iter().any(|copy| copy.contains(".ckp"));
        let missing = found.left_of(&self.whole, is_older).map_err(|what| format!("{what}: {report:?}"))?;
        // What is damaged below the checkpoint is told to those who come to it.
        let told_at_read: usize = found.topics.values().map(|share| share.errors).sum();
        if missing > told_at_read && report.lost.is_empty() {
            return Err(format!("{missing} messages are missing, and nothing tells: {report:?}"));
        }
        if mutation.kind() == Kind::Byte && missing > LOST_BY_BYTE_MAX {
            return Err(format!("one byte cost {missing} messages: {report:?}"));
        }
        use_further(store, disk, self.wall)
    }

    /// Tries one damage, within bounds.
    fn try_one(&self, mutation: Mutation, number: u64, go_on: bool) -> Result<Outcome, String> {
        let (disk, name) = self.sources.damaged(mutation);
        let what = |what: String| format!("{mutation:?} of {name}: {what}");
        let before = disk.requests();
        let judge = || catch_unwind(AssertUnwindSafe(|| self.judge(mutation, &disk, go_on)));
        let (judged, held) = memory::peak("corruption", number, judge);
        let outcome = judged.map_err(|_| what("it panicked".to_owned()))?.map_err(what)?;
        if held > HELD_MAX {
            return Err(what(format!("{held} bytes held")));
        }
        if disk.requests() - before > REQUESTS_MAX {
            return Err(what(format!("{} requests to the disk", disk.requests() - before)));
        }
        // Nothing but derived files was touched: an exchange touches two.
        let derived = name.ends_with(".idx") && !self.sources.touches_others(mutation);
        if derived && outcome != Outcome::Identical {
            return Err(what(format!("{outcome:?}, and an index file is derived (G17)")));
        }
        Ok(outcome)
    }

    /// Tries these on two threads, and counts what became of them.
    fn run(&self, tried: &[Mutation]) -> BTreeMap<(Kind, Outcome), u64> {
        let next = AtomicUsize::new(0);
        let counts = Mutex::new(BTreeMap::new());
        let failure = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut own = BTreeMap::new();
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some(mutation) = tried.get(index) else { break };
                        match self.try_one(*mutation, index as u64, index.is_multiple_of(16)) {
                            Ok(outcome) => *own.entry((mutation.kind(), outcome)).or_insert(0) += 1,
                            Err(what) => {
                                *failure.lock().unwrap() = Some(what);
                                next.store(tried.len(), Ordering::Relaxed);
                            }
                        }
                    }
                    let mut counts = counts.lock().unwrap();
                    own.into_iter().for_each(|(key, count)| *counts.entry(key).or_insert(0) += count);
                });
            }
        });
        if let Some(what) = failure.into_inner().unwrap() {
            panic!("{what}");
        }
        counts.into_inner().unwrap()
    }
}

/// A store that opened is a store: it takes messages, closes, and opens again as it was.
fn use_further(store: millpond::Store, disk: &SimDisk, wall: WallMs) -> Result<(), String> {
    let topic = store.topic("afterwards").open().map_err(|error| error.to_string())?;
    topic.publish("one more").map_err(|error| error.to_string())?;
    drop(topic);
    let closed = store.close();
    drop(store);
    closed.map_err(|error| format!("closing: {error}"))?;
    let clock = std::sync::Arc::new(millpond::simulation::SimClock::new(wall));
    let again = millpond::simulation::fuzzing::open(disk, &clock, Durability::Os);
    let again = again.map_err(|error| format!("opening again: {error}"))?;
    let published = again.stats().map_err(|error| error.to_string())?.topics.last().map(|topic| topic.published);
    if published == Some(1) && again.report().was_clean {
        Ok(())
    } else {
        Err("another store after a close".to_owned())
    }
}

/// How many; `None`: all.
fn wanted(default: usize) -> Option<usize> {
    match std::env::var("MILLPOND_CORRUPTIONS") {
        Ok(all) if all == "all" => None,
        Ok(number) => Some(number.parse().expect("MILLPOND_CORRUPTIONS is a number, or all")),
        Err(_) => Some(default),
    }
}

fn note(level: &str, took: Duration, counts: &BTreeMap<(Kind, Outcome), u64>) {
    let mut rows: BTreeMap<String, u64> = BTreeMap::new();
    for ((kind, outcome), count) in counts {
        println!("{level}: {kind}, {}: {count}", outcome.name());
        *rows.entry(kind.to_string()).or_default() += count;
        *rows.entry(outcome.name().to_owned()).or_default() += count;
    }
    let rows: Vec<(&str, u64)> = rows.iter().map(|(what, count)| (what.as_str(), *count)).collect();
    println!("{level}: {} in {took:?}", counts.values().sum::<u64>());
    counts::note(level, took, &rows);
}

fn had(counts: &BTreeMap<(Kind, Outcome), u64>, outcome: Outcome) -> u64 {
    counts.iter().filter(|((_, other), _)| *other == outcome).map(|(_, count)| count).sum()
}

#[allow(clippy::disallowed_methods, reason = "for the page of counts alone")]
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = std::time::SystemTime::now();
    let result = work();
    (result, started.elapsed().unwrap_or_default())
}

/// What the sweeps damage holds everything that a log can hold but what nothing writes yet.
#[test]
fn the_damaged_store_holds_every_kind_of_record() {
    let rich = rich(1);
    for (disk, closed) in [(&rich.closed, true), (&rich.unclosed, false)] {
        let found = kinds(disk).unwrap();
        let records = [
            "acked",
            "clock jumped",
            "dead-lettered",
            "discarded",
            "dropped",
            "extended",
            "group altered",
            "group created",
            "group removed",
            "group sought",
            "key taken",
            "leased",
            "exclusive pending",
            "nacked",
            "opened",
            "published",
            "postponed",
            "redriven",
            "released",
            "schedule created",
            "schedule ended",
            "scheduled",
            "topic created",
            "topic removed",
            "unreadable",
        ];
        let own = ["mark", "range retired", "segment start"];
        assert!(records.iter().chain(&own).all(|kind| found.contains_key(kind)), "{found:?}");
        assert_eq!(found.len(), records.len() + own.len(), "{found:?}");
        let names: Vec<String> = disk.files().into_iter().map(|file| file.name).collect();
        let count = |suffix: &str| names.iter().filter(|name| name.ends_with(suffix)).count();
        assert!(count(".seg") >= 5 && count(".ckp") == 2 && count(".idx") >= 4, "{names:?}");
        let (_, content) = read(&disk.snapshot(), rich.wall).unwrap();
        assert!(content.topics.values().all(|share| share.items.len() >= 2 && share.errors == 0), "{content:?}");
        assert!(content.topics["orders"].items.len() >= 30, "{content:?}");
        assert!(content.groups.values().filter(|share| !share.items.is_empty()).count() >= 4, "{content:?}");
        assert_eq!(content.report.was_clean, closed);
    }
}

#[test]
fn any_damage_of_a_closed_store_is_told_or_changes_nothing() {
    let wanted = wanted(3_000);
    let (rich, other) = (rich(1), rich(2));
    let sweep = Sweep::closed(&rich, &other);
    let idle = if wanted.is_none() { 1 } else { 61 };
    let tried = sample(sweep.sources.all(idle), wanted);
    let (counts, took) = timed(|| sweep.run(&tried));
    note("corruption", took, &counts);
    let least = tried.len() as u64 / 100;
    for outcome in [Outcome::Identical, Outcome::ToldAtOpen, Outcome::ToldAtRead] {
        assert!(had(&counts, outcome) >= least, "{}: {} of {}", outcome.name(), had(&counts, outcome), tried.len());
    }
    assert_eq!(had(&counts, Outcome::Dropped), 0, "a store that was closed has nothing to drop");
}

/// The one exemption of G12: what lies above the last watermark that is left may be dropped, and the report tells.
#[test]
fn damage_of_a_store_that_was_not_closed_takes_its_unproven_end_at_most() {
    let wanted = wanted(3_000).map(|wanted| wanted / 4);
    let (rich, other) = (rich(1), rich(2));
    let sweep = Sweep::unclosed(&rich, &other);
    let idle = if wanted.is_none() { 1 } else { 61 };
    let tried = sample(sweep.sources.all(idle), wanted);
    let (counts, took) = timed(|| sweep.run(&tried));
    note("corruption-unclosed", took, &counts);
    for outcome in [Outcome::Identical, Outcome::ToldAtOpen, Outcome::ToldAtRead, Outcome::Dropped] {
        assert!(had(&counts, outcome) > 0, "{}", outcome.name());
    }
}

/// Where an index file turns out to be of no use while the store is open, its segment is read, and what is damaged there is told.
#[test]
fn a_damaged_index_beside_a_damaged_segment_leaves_nothing_untold() {
    let (rich, other) = (rich(1), rich(2));
    let sweep = Sweep::closed(&rich, &other);
    let whole = sweep.sources.whole();
    let mut told = 0;
    for (file, index) in sweep.sources.names.iter().enumerate().filter(|(_, name)| name.ends_with(".idx")) {
        let segment = index.replace(".idx", ".seg");
        let bytes = whole.read_file(&segment).unwrap();
        for at in (128..bytes.len()).step_by(56) {
            let disk = whole.snapshot();
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            disk.write_file(&segment, &damaged);
            let mut rows = whole.read_file(index).unwrap();
            // The last byte of the last row.
            *rows.last_mut().unwrap() ^= 1;
            disk.write_file(index, &rows);
            let mutation = Mutation::Byte { file, at, how: 0 };
            let (outcome, _) =
                sweep.judge_one(mutation, &disk, Look { indexed: true, ..Look::default() }).unwrap_or_else(|what| {
                    panic!("byte {at} of {segment} and the last row of {index}: {what}");
                });
            told += usize::from(outcome == Outcome::ToldAtRead);
        }
    }
    assert!(told > 50, "{told}");
}

/// The sweep would see a message that is missing, another one, and another state.
#[test]
fn the_sweep_complains() {
    let (rich, _) = (rich(1), ());
    let (_, whole) = read(&rich.closed.snapshot(), rich.wall).unwrap();
    assert_eq!(whole.compare(&whole, true), Ok(0));
    let mut less = whole.clone();
    let topic = less.topics.values_mut().next().unwrap();
    let (id, print) = topic.items.pop_first().unwrap();
    assert!(less.compare(&whole, true).is_err() && less.is_prefix_of(&whole).is_err());
    assert!(whole.compare(&less, true).is_err(), "more than there was");
    less.topics.values_mut().next().unwrap().errors = 1;
    assert_eq!(less.compare(&whole, true), Ok(1));
    less.topics.values_mut().next().unwrap().items.insert(id, print ^ 1);
    assert!(less.compare(&whole, true).is_err());
    let mut other = whole.clone();
    other.report.state_hash ^= 1;
    assert!(other.compare(&whole, true).is_err());
}
