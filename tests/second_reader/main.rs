//! A second reader, `reader.py`, written from docs/reference/format.md alone, and the library say the same of every store: healthy and
//! damaged ones.
//!
//! Where they differ, one of them is wrong, or the page does not say what is right. Without Python 3 nothing is compared; with
//! `MILLPOND_REQUIRE_PYTHON` set that is a failure. `MILLPOND_READER_CASES` sets how many damaged stores are tried (2,000), and how
//! many forged ones.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails, and says what it did")]

mod compare;
mod engine;
#[path = "../corruption/mutations.rs"]
#[allow(dead_code, reason = "the sweep that this is part of asks more of it")]
mod mutations;
mod reader;
mod workload;

use compare::{Origin, compare};
use engine::Seen;
use millpond::Error;
use millpond::simulation::WallMs;
use millpond::simulation::fuzzing::{Rich, clean, directory_disk, mutate, rich};
use millpond::simulation::{Rng, SimDisk};
use mutations::{Sources, sample};
use reader::{Case, Judged};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Later than anything in the stores.
const LATER: WallMs = WallMs(1_900_000_000_000);

fn names(disk: &SimDisk) -> BTreeSet<String> {
    disk.files().into_iter().map(|file| file.name).collect()
}

/// What the library says of a store. A directory without `STORE` is judged by the real disk, which knows of directories that are none
/// of ours.
fn library(disk: &SimDisk) -> Result<Seen, Error> {
    if disk.read_file("STORE").is_some() {
        return engine::read(&disk.snapshot(), LATER);
    }
    let dir = tempfile::tempdir().unwrap();
    for name in names(disk) {
        std::fs::write(dir.path().join(&name), disk.read_file(&name).unwrap()).unwrap();
    }
    let report = millpond::Store::open(dir.path())?.report().clone();
    Ok(Seen {
        report,
        complete: true,
        topics: Default::default(),
        groups: Default::default(),
        blocked: Default::default(),
    })
}

/// The stores that a workload with something of everything leaves.
fn rich_stores(seed: u64) -> Vec<(String, SimDisk)> {
    let Rich { closed, unclosed, older, .. } = rich(seed);
    let older = older.into_iter().enumerate().map(|(number, disk)| (format!("rich {seed}, older {number}"), disk));
    older.chain([(format!("rich {seed}, closed"), closed), (format!("rich {seed}, unclosed"), unclosed)]).collect()
}

/// The committed inputs of the fuzz target that opens directories.
fn corpus() -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/directory");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Every closed store with files of classes in the place of its older segments, where it has two checkpoints.
fn with_classes(stores: &[(String, SimDisk)]) -> Vec<(String, SimDisk)> {
    let mut made = Vec::new();
    for (name, disk) in stores.iter().filter(|(name, _)| name.ends_with(", closed")) {
        for unlinked in [false, true] {
            let disk = disk.snapshot();
            if clean(&disk, unlinked).is_some() {
                made.push((format!("{name}, cleaned, unlinked {unlinked}"), disk));
            }
        }
    }
    made
}

/// How often something was compared.
#[derive(Debug, Default)]
struct Compared {
    stores: usize,
    messages: usize,
    dropped: usize,
    refused: usize,
    /// States that the older checkpoint and the log give, against the bytes of the newest one.
    states: usize,
}

/// Compares what both say of a healthy store.
fn compare_healthy(case: &Case, judged: &Judged, compared: &mut Compared) -> Result<(), String> {
    let disk = (case.make)();
    let library = library(&disk);
    compare(&library, judged, &names(&disk), Origin::Written)?;
    compared.stores += 1;
    compared.refused += usize::from(library.is_err());
    compared.dropped += usize::from(judged.dropped.is_some());
    let partitions = judged.topics.values().flatten();
    compared.messages += partitions.clone().map(|partition| partition.messages.len()).sum::<usize>();
    if let Some(partition) = partitions.clone().find(|partition| !partition.keyed_elsewhere.is_empty()) {
        return Err(format!("messages of another partition: {partition:?}"));
    }
    if let Some((name, state)) = &judged.older {
        let bytes = disk.read_file(name).unwrap();
        let body_len = u64::from_le_bytes(bytes[64..72].try_into().unwrap()) as usize;
        let body: String = bytes[128..128 + body_len].iter().map(|byte| format!("{byte:02x}")).collect();
        if *state != body {
            return Err(format!("the state in {name}, folded from the checkpoint before it:\n{state}\n{body}"));
        }
        compared.states += 1;
    }
    Ok(())
}

fn compare_all(stores: Vec<(String, SimDisk)>) -> Compared {
    let cases: Vec<Case> = stores.into_iter().map(|(name, disk)| Case::whole(name, disk)).collect();
    let mut compared = Compared::default();
    let mut differences = Vec::new();
    reader::run(&[], &cases, true, |case, judged| {
        if let Err(what) = compare_healthy(case, &judged, &mut compared) {
            differences.push(format!("{}: {what}", case.name));
        }
    });
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
    println!("{compared:?}");
    compared
}

#[test]
fn readers_agree_on_the_stores_of_a_rich_workload() {
    if !reader::is_there() {
        return;
    }
    let mut stores: Vec<_> = (1..4).flat_map(rich_stores).collect();
    stores.extend(with_classes(&stores));
    let compared = compare_all(stores);
    assert!(compared.stores > 24 && compared.messages > 500 && compared.states > 6, "{compared:?}");
    assert!(compared.refused == 0, "{compared:?}");
}

#[test]
fn readers_agree_on_the_stores_of_random_workloads() {
    if !reader::is_there() {
        return;
    }
    let mut stores: Vec<_> = (0..wanted() as u64 / 80).flat_map(workload::stores).collect();
    stores.extend(with_classes(&stores));
    let compared = compare_all(stores);
    assert!(compared.messages > 2_000 && compared.states > 20 && compared.dropped > 0, "{compared:?}");
    assert!(compared.refused == 0, "{compared:?}");
}

#[test]
fn readers_agree_on_the_committed_stores() {
    if !reader::is_there() {
        return;
    }
    let name = |path: &Path| format!("corpus {}", path.file_name().unwrap().display());
    let compared = compare_all(corpus().iter().map(|(path, input)| (name(path), directory_disk(input))).collect());
    assert!(compared.stores > 10, "{compared:?}");
}

/// How many damaged stores are tried, and how many forged ones; of those that a workload makes a share.
fn wanted() -> usize {
    let wanted = std::env::var("MILLPOND_READER_CASES");
    wanted.map_or(2_000, |number| number.parse().expect("MILLPOND_READER_CASES is a number"))
}

/// Compares what both say of damaged stores, in two processes. How often which verdict came.
fn compare_damaged(bases: &[SimDisk], cases: &[Case], origin: Origin) -> BTreeMap<String, usize> {
    let (verdicts, differences) = (Mutex::new(BTreeMap::new()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for half in cases.chunks(cases.len().div_ceil(2)) {
            let (verdicts, differences) = (&verdicts, &differences);
            scope.spawn(move || {
                reader::run(bases, half, false, |case, judged| {
                    let disk = (case.make)();
                    if let Err(what) = compare(&library(&disk), &judged, &names(&disk), origin) {
                        differences.lock().unwrap().push(format!("{}: {what}", case.name));
                    }
                    *verdicts.lock().unwrap().entry(judged.verdict).or_insert(0) += 1;
                });
            });
        }
    });
    let (verdicts, differences) = (verdicts.into_inner().unwrap(), differences.into_inner().unwrap());
    println!("{verdicts:?}");
    let shown = &differences[..differences.len().min(40)];
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), shown.join("\n"));
    verdicts
}

/// The damage that the sweep of `tests/corruption` tries, to its closed store, the one that was not closed, one with files of classes,
/// and some that random workloads left.
#[test]
fn readers_agree_on_damaged_stores() {
    if !reader::is_there() {
        return;
    }
    let (made, other) = (rich(1), rich(2));
    let cleaned = |disk: &SimDisk| {
        let disk = disk.snapshot();
        clean(&disk, true).unwrap();
        disk
    };
    let mut sources = vec![
        (Sources::new(&made.closed, &made, &other.closed), 4),
        (Sources::new(&made.unclosed, &made, &other.unclosed), 3),
        (Sources::new(&cleaned(&made.closed), &made, &cleaned(&other.closed)), 3),
    ];
    for seed in 0..5 {
        let older: Vec<SimDisk> = workload::stores(seed).into_iter().map(|(_, disk)| disk).collect();
        let last = older.last().unwrap();
        let made = Rich { older: older.clone(), ..made.clone() };
        sources.push((Sources::new(last, &made, &other.closed), 2));
    }
    let bases: Vec<SimDisk> = sources.iter().map(|(sources, _)| sources.whole()).collect();
    let mut cases = Vec::new();
    for (base, (sources, share)) in sources.into_iter().enumerate() {
        let sources = Arc::new(sources);
        for mutation in sample(sources.all(61), Some(wanted() * share / 20)) {
            let name = format!("store {base}, {mutation:?} of {}", sources.damaged(mutation).1);
            let sources = Arc::clone(&sources);
            cases.push(Case { name, base: Some(base), make: Box::new(move || sources.damaged(mutation).0) });
        }
    }
    let verdicts = compare_damaged(&bases, &cases, Origin::Written);
    assert!(["opens", "Corrupt", "ForeignFile"].iter().all(|verdict| verdicts.contains_key(*verdict)), "{verdicts:?}");
}

/// The store of this number in which something is wrong and every checksum of a file agrees all the same.
fn forged(number: u64) -> SimDisk {
    let corpus: Vec<Vec<u8>> = corpus().into_iter().map(|(_, input)| input).collect();
    let mut rng = Rng::new(number);
    let mut input = corpus[rng.index(corpus.len())].clone();
    let other = &corpus[rng.index(corpus.len())];
    mutate(&mut input, other, &mut rng);
    if let Some(flags) = input.first_mut() {
        *flags &= !1;
    }
    let disk = directory_disk(&input);
    // A forged index file leads to other places than the page says, and is believed.
    names(&disk).iter().filter(|name| name.ends_with(".idx")).for_each(|name| assert!(disk.remove_file(name)));
    disk
}

#[test]
fn readers_agree_on_forged_stores() {
    if !reader::is_there() {
        return;
    }
    let case = |number| Case::whole(format!("forged {number}"), forged(number));
    let verdicts = compare_damaged(&[], &(0..wanted() as u64).map(case).collect::<Vec<_>>(), Origin::Forged);
    assert!(["opens", "Corrupt", "NewerFormat"].iter().all(|verdict| verdicts.contains_key(*verdict)), "{verdicts:?}");
}

/// With `MILLPOND_READER_FORGED` set to a number, leaves the files of that forged store for a look at them.
#[test]
fn one_forged_store() {
    let Ok(number) = std::env::var("MILLPOND_READER_FORGED") else { return };
    let disk = forged(number.parse().expect("MILLPOND_READER_FORGED is a number"));
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("forged-{number}"));
    std::fs::create_dir_all(&dir).unwrap();
    names(&disk).iter().for_each(|name| std::fs::write(dir.join(name), disk.read_file(name).unwrap()).unwrap());
    println!("{}: {:?}", dir.display(), library(&disk));
}

/// Changes what the reader said.
type Lie<'a> = &'a dyn Fn(&mut Judged);

/// The comparison finds a message that is missing, another one, another end, another state and another verdict.
#[test]
fn readers_that_differ_are_told_apart() {
    if !reader::is_there() {
        return;
    }
    let disk = rich(1).unclosed;
    let mut said = None;
    reader::run(&[], &[Case::whole("a store", disk.snapshot())], false, |_, judged| said = Some(judged));
    let (said, seen, names) = (said.unwrap(), library(&disk), names(&disk));
    assert_eq!(compare(&seen, &said, &names, Origin::Written), Ok(()));
    let doctor = |change: Lie| {
        let mut doctored = said.clone();
        change(&mut doctored);
        compare(&seen, &doctored, &names, Origin::Written)
    };
    let lies: [(&str, Lie); 8] = [
        ("message:", &|said| drop(said.topics.get_mut("orders").unwrap()[0].messages.pop_last())),
        ("message:", &|said| {
            said.topics.get_mut("orders").unwrap()[1].messages.first_entry().unwrap().get_mut().1.push('0');
        }),
        ("has a message", &|said| {
            let messages = &mut said.topics.get_mut("orders").unwrap()[0].messages;
            messages.insert(1_000, messages[messages.keys().next().unwrap()].clone());
        }),
        ("what group", &|said| drop(said.groups.get_mut("orders/kitchen").unwrap().items.pop())),
        ("end of the log:", &|said| said.end -= 8),
        ("state:", &|said| said.state.push('0')),
        ("what is dropped:", &|said| said.dropped = Some((String::new(), 0, 0))),
        ("verdicts:", &|said| said.verdict = "Corrupt".to_owned()),
    ];
    for (expected, lie) in lies {
        let found = doctor(lie).unwrap_err();
        assert!(found.contains(expected), "{expected} {found}");
    }
}
