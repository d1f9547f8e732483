//! The fuzz targets without a fuzzer: over the committed corpora, and over what is made of them by a seed.
//!
//! Each target takes any bytes and panics where a promise is broken; an input may not make it hold more than 64 MiB. What it
//! is and how a fuzzer runs it stands in `fuzz/README.md`.
//!
//! `MILLPOND_FUZZ_INPUTS` sets how many inputs are made for each target, `MILLPOND_FUZZ_FROM` is the number of the
//! first, `MILLPOND_FUZZ_TARGET` and `MILLPOND_FUZZ_INPUT` run one again.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails, and says what it did")]

#[path = "../common/counts.rs"]
mod counts;
mod memory;
mod regressions;

use millpond::simulation::Rng;
use millpond::simulation::fuzzing::{self, TARGETS, Target, mutate};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const HELD_MAX: usize = 64 << 20;
/// How many inputs are made for each target in plain `cargo test`; for those that open whole stores fewer.
const INPUTS: u64 = 8_000;
const WHOLE_STORES: [&str; 4] = ["directory", "names", "operations", "segment"];

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

fn corpora() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

/// The committed inputs of a target, by name.
fn corpus(target: &str) -> BTreeMap<String, Vec<u8>> {
    let folder = corpora().join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap())
    };
    entries.map(read).collect()
}

/// Runs one input. Whether it got behind the outer checks.
fn run(name: &'static str, target: Target, number: u64, input: &[u8]) -> bool {
    let run = || memory::peak(name, number, || catch_unwind(AssertUnwindSafe(|| target(input))));
    let (reached, held) = run();
    let reached = reached.unwrap_or_else(|_| panic!("the target {name} fails on {}", hex(input)));
    assert!(held <= HELD_MAX, "the target {name} holds {held} bytes for {}", hex(input));
    reached
}

fn hex(bytes: &[u8]) -> String {
    let hex: String = bytes.iter().take(4096).map(|byte| format!("{byte:02x}")).collect();
    format!("{} bytes: {hex}", bytes.len())
}

/// The input of this number that is made of a corpus. Equal numbers give equal inputs.
fn made(target: &str, corpus: &[Vec<u8>], number: u64) -> Vec<u8> {
    let seed = target.bytes().fold(number, |seed, byte| seed.wrapping_mul(0x100_0000_01b3) ^ u64::from(byte));
    let mut rng = Rng::new(seed);
    let mut input = corpus[rng.index(corpus.len())].clone();
    let other = &corpus[rng.index(corpus.len())];
    mutate(&mut input, other, &mut rng);
    input
}

fn inputs_of(target: &str) -> u64 {
    let share = if WHOLE_STORES.contains(&target) { INPUTS / 4 } else { INPUTS };
    setting("MILLPOND_FUZZ_INPUTS").unwrap_or(share)
}

/// What a target did.
#[derive(Clone, Copy, Default)]
struct Done {
    inputs: u64,
    reached: u64,
}

fn run_made(name: &'static str, target: Target, corpus: &[Vec<u8>]) -> Done {
    let from = setting("MILLPOND_FUZZ_FROM").unwrap_or(0);
    let mut done = Done::default();
    for number in from..from + inputs_of(name) {
        let input = made(name, corpus, number);
        let reached = catch_unwind(AssertUnwindSafe(|| run(name, target, number, &input)));
        let Ok(reached) = reached else {
            panic!(
                "see it with: MILLPOND_FUZZ_TARGET={name} MILLPOND_FUZZ_INPUT={number} cargo test --test fuzz one_input -- --nocapture"
            );
        };
        done.inputs += 1;
        done.reached += u64::from(reached);
    }
    done
}

/// All targets on two threads.
#[test]
fn the_targets_hold_over_the_corpora_and_what_is_made_of_them() {
    let started = clock();
    let next = AtomicUsize::new(0);
    let all = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((name, target)) = TARGETS.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let corpus = corpus(name);
                    let reached = corpus.values().filter(|input| run(name, *target, 0, input)).count();
                    assert!(reached * 4 >= corpus.len(), "{name}: {reached} of {} got anywhere", corpus.len());
                    let inputs: Vec<Vec<u8>> = corpus.into_values().collect();
                    all.lock().unwrap().insert(*name, run_made(name, *target, &inputs));
                }
            });
        }
    });
    let all = all.into_inner().unwrap();
    let mut counted = vec![("inputs made for the fuzz targets", 0)];
    for (name, done) in &all {
        println!("{name}: {} inputs, {} got behind the outer checks", done.inputs, done.reached);
        assert!(done.reached * 20 >= done.inputs, "{name}: too few inputs get anywhere");
        counted[0].1 += done.inputs;
    }
    counts::note("fuzz", started.elapsed(), &counted);
}

struct Started(std::time::SystemTime);

#[allow(clippy::disallowed_methods, reason = "for the page of counts alone")]
fn clock() -> Started {
    Started(std::time::SystemTime::now())
}

impl Started {
    fn elapsed(&self) -> Duration {
        self.0.elapsed().unwrap_or_default()
    }
}

#[test]
fn one_input() {
    let (Ok(wanted), Some(number)) = (std::env::var("MILLPOND_FUZZ_TARGET"), setting("MILLPOND_FUZZ_INPUT")) else {
        return;
    };
    let (name, target) = TARGETS.iter().find(|(name, _)| *name == wanted).expect("a target of this name");
    let corpus: Vec<Vec<u8>> = corpus(name).into_values().collect();
    let input = made(name, &corpus, number);
    println!("{}", hex(&input));
    println!("got behind the outer checks: {}", target(&input));
}

#[test]
fn equal_numbers_give_equal_inputs() {
    let corpus = vec![b"one input".to_vec(), b"another".to_vec()];
    let inputs = |_| (0..100).map(|number| made("frame", &corpus, number)).collect::<Vec<_>>();
    assert_eq!(inputs(0), inputs(1));
    let different = inputs(0).into_iter().collect::<std::collections::BTreeSet<_>>().len();
    assert!(different > 90, "{different}");
}

/// Every target has a corpus and a file for the fuzzer, and nothing else has; together the corpora are small.
#[test]
fn corpora_and_fuzz_files_are_those_of_the_targets() {
    let names = |folder: PathBuf| {
        let entries = std::fs::read_dir(folder).unwrap();
        let stem = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned()
        };
        let mut names: Vec<String> = entries.map(stem).collect();
        names.sort();
        names
    };
    let targets: Vec<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(corpora()), targets);
    assert_eq!(names(corpora().with_file_name("fuzz_targets")), targets);
    let lens: Vec<usize> =
        TARGETS.iter().flat_map(|(name, _)| corpus(name).into_values()).map(|input| input.len()).collect();
    assert!(lens.iter().sum::<usize>() <= 1 << 20, "{} bytes", lens.iter().sum::<usize>());
}

/// With `MILLPOND_FUZZ_SEEDS` set, writes the inputs that the corpora begin with. The ones that a fuzzer found stay.
#[test]
fn write_seeds() {
    let seeds = fuzzing::seeds();
    assert!(TARGETS.iter().all(|(name, _)| seeds.iter().any(|(target, ..)| target == name)));
    if std::env::var_os("MILLPOND_FUZZ_SEEDS").is_none() {
        return;
    }
    for (target, name, input) in seeds {
        let folder = corpora().join(target);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("seed-{name}")), input).unwrap();
    }
}
