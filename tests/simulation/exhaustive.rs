//! All short histories: every word over twelve operations, a crash at every request to the disk, every kind of power cut.
//!
//! Random histories meet long stories; these leave out no short one. `MILLPOND_EXHAUSTIVE` sets the length of the words
//! (default 2).

use crate::case::World;
use crate::history::{Life, Plan};
use crate::oracle::payload;
use crate::tally::Tally;
use crate::{counts, setting};
use millpond::simulation::{Fault, PowerOutcome, Rng, SimDisk};
use millpond::{Durability, Message};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Publish,
    /// Two large messages: with what is there they fill the segment.
    PublishAndRoll,
    BatchOfThree,
    Ack,
    Nack,
    Lease,
    ExtendAndExpire,
    DeadLetter,
    Checkpoint,
    Chores,
    Sync,
    Reopen,
}

use Step as L;

const ALPHABET: [Step; 12] = [
    L::Publish,
    L::PublishAndRoll,
    L::BatchOfThree,
    L::Ack,
    L::Nack,
    L::Lease,
    L::ExtendAndExpire,
    L::DeadLetter,
    L::Checkpoint,
    L::Chores,
    L::Sync,
    L::Reopen,
];

/// What may be left of what the device had not confirmed.
const OUTCOMES: usize = 5;

/// Words of the lengths 1 to `len`, shortest first.
fn words(len: usize) -> Vec<Vec<Step>> {
    let mut all: Vec<Vec<Step>> = Vec::new();
    let mut last = vec![Vec::new()];
    for _ in 0..len {
        last = last.iter().flat_map(|word| ALPHABET.map(|letter| [word.as_slice(), &[letter]].concat())).collect();
        all.extend(last.iter().cloned());
    }
    all
}

/// A store with some messages, a checkpoint behind it, and one dead letter.
fn beginning() -> World {
    let plan = Plan { topics: vec![1], groups: vec![(0, 2)] };
    let mut world = World::new(SimDisk::new(1), Rng::new(1), plan.clone());
    let store = world.open_small(true).unwrap();
    let mut life = world.begin(store, &plan, true).unwrap();
    for letter in [L::BatchOfThree, L::BatchOfThree, L::Lease, L::DeadLetter, L::Ack] {
        spell(&mut life, &mut world, letter).unwrap();
    }
    life.store.close().unwrap();
    drop(life);
    world
}

impl World {
    fn open_small(&mut self, durable_only: bool) -> Result<millpond::Store, millpond::Error> {
        let level = if durable_only { Durability::Disk } else { Durability::Os };
        let handle = self.disk.attach().map_err(|_| millpond::Error::Closed)?;
        let options = millpond::Store::options().durability(level).segment_bytes_max(64 << 10);
        options.open_on(std::sync::Arc::new(handle), self.clock.clone())
    }
}

/// One operation. An error is of the call, and ends nothing; what is wrong with the store is the `Err`.
fn spell(life: &mut Life<'_>, world: &mut World, letter: Step) -> Result<(), String> {
    let World { oracle, rng, .. } = world;
    let mut publish = |life: &mut Life<'_>, count: usize, large: bool, level: Durability| {
        let numbers: Vec<u64> = (0..count).map(|_| oracle.number(large)).collect();
        let messages = numbers.iter().map(|number| Message::new(payload(*number))).collect();
        life.publish_as(oracle, 0, level, numbers, messages, count == 1)
    };
    match letter {
        L::Publish => publish(life, 1, false, Durability::Os)?,
        L::PublishAndRoll => {
            publish(life, 2, true, Durability::Os).and_then(|()| publish(life, 2, true, Durability::Os))?
        }
        L::BatchOfThree => publish(life, 3, false, Durability::Disk)?,
        L::Ack => life.settle_held(oracle, rng, 0)?,
        L::Nack => life.settle_held(oracle, rng, 2)?,
        L::Lease => life.receive(oracle, 0, 2)?,
        L::ExtendAndExpire => {
            life.settle_held(oracle, rng, 6)?;
            life.clock.advance(30_000);
        }
        L::DeadLetter => life.settle_held(oracle, rng, 4)?,
        L::Checkpoint => life.store.checkpoint().or_else(|error| life.excuse("a checkpoint", &error))?,
        L::Chores => life.store.tick().or_else(|error| life.excuse("a job", &error))?,
        L::Sync => life.store.sync().or_else(|error| life.excuse("a sync", &error))?,
        L::Reopen => {}
    }
    life.note(oracle)
}

/// Runs a word on a copy of `base`, up to its end or to the crash at `crash`. Gives the requests of the word itself.
fn run(base: &World, word: &[Step], crash: Option<u64>) -> Result<(World, std::ops::Range<u64>), String> {
    let mut world = base.copy();
    let plan = world.plan.clone();
    let store = world.open_small(false).map_err(|error| error.to_string())?;
    let mut life = world.begin(store, &plan, false).map_err(|error| error.to_string())?;
    life.receive(&mut world.oracle, 0, 2)?;
    let first = world.disk.requests();
    if let Some(request) = crash {
        world.disk.fail_at(request, Fault::CrashAfter);
    }
    for letter in word {
        spell(&mut life, &mut world, *letter)?;
        if *letter == L::Reopen && life.is_alive() {
            let closed = life.store.close();
            drop(life);
            let again = closed.and_then(|()| world.open_small(true));
            match again.and_then(|store| world.begin(store, &plan, true)) {
                Ok(reopened) => life = reopened,
                Err(error) if crash.is_none() => return Err(format!("reopening: {error}")),
                Err(_) => return Ok((world, first..first)),
            }
        } else if !life.is_alive() {
            break;
        }
        world.note_hash(&life.store);
    }
    let last = world.disk.requests();
    world.disk.clear_faults();
    // Dead or alive: it runs no destructor before the machine falls.
    world.disk.crash_process();
    drop(life);
    Ok((world, first..last))
}

/// Every crash of one word with every outcome. Gives the number of crash points.
fn each_crash(base: &World, word: &[Step], tally: &mut Tally) -> Result<u64, String> {
    let (_, requests) = run(base, word, None)?;
    for crash in requests.clone() {
        let (world, _) = run(base, word, Some(crash)).map_err(|what| format!("crash after request {crash}: {what}"))?;
        for outcome in 0..OUTCOMES {
            let mut left = world.copy();
            let pending = left.disk.pending();
            left.disk.reseed(crash << 8 | outcome as u64);
            let outcome = match outcome {
                0 => PowerOutcome::LoseAll,
                1 => PowerOutcome::KeepAll,
                2 => PowerOutcome::Prefix(crash as usize * 7 % (pending + 1)),
                3 => PowerOutcome::AllButOne,
                _ => PowerOutcome::OnlyOne,
            };
            left.disk.crash_power(outcome);
            let checked = left.recover(true).and_then(|_| left.drain_copy(false));
            checked.map_err(|what| format!("{outcome:?} after request {crash}: {what}"))?;
            tally.count("cases");
            tally.add(&left.tally);
        }
    }
    Ok(requests.end - requests.start)
}

#[test]
fn every_short_history_survives_every_crash() {
    let (len, began) = (setting("MILLPOND_EXHAUSTIVE").unwrap_or(2) as usize, Instant::now());
    let (words, base, next) = (words(len), beginning(), AtomicUsize::new(0));
    assert_eq!(words.len(), (1..=len as u32).map(|len| 12usize.pow(len)).sum::<usize>());
    let (sum, failure) = (Mutex::new(Tally::default()), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..setting("MILLPOND_SIM_THREADS").unwrap_or(2) {
            let base = base.copy();
            let (words, next, sum, failure) = (&words, &next, &sum, &failure);
            scope.spawn(move || {
                let mut met = Tally::default();
                while let Some(word) = words.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match each_crash(&base, word, &mut met) {
                        Ok(points) => {
                            met.count("words");
                            met.more("crash points", points);
                        }
                        Err(what) => *failure.lock().unwrap() = Some(format!("{word:?}: {what}")),
                    }
                    if failure.lock().unwrap().is_some() {
                        break;
                    }
                }
                sum.lock().unwrap().add(&met);
            });
        }
    });
    if let Some(what) = failure.into_inner().unwrap() {
        panic!("{what}");
    }
    let met = sum.into_inner().unwrap();
    println!("{met}");
    assert_eq!(met.of("words"), words.len() as u64);
    assert_eq!(met.of("cases"), met.of("crash points") * OUTCOMES as u64);
    assert!(met.of("crash points") >= 2 * words.len() as u64, "an operation asks the disk for something");
    counts::note("exhaustive", began.elapsed(), &met.rows());
}
