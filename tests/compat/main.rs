//! Stores of the frozen format, kept as files: each must open for ever, with what was in it.
//!
//! `MILLPOND_WRITE_COMPAT=1 cargo test --test compat` makes `tests/compat/v1` anew, which is right only as long as nothing is released.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../second_reader/workload.rs"]
mod workload;

use millpond::simulation::fuzzing::{clean, rich};
use millpond::simulation::{SimClock, SimDisk, WallMs};
use millpond::{DumpEntry, Lsn, Observer, Retention, Store};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What a store holds, beside its files.
const FACTS: &str = "expected.txt";
/// How many random stores are looked at, ten of each seed.
const SEEDS: u64 = 20;
const WALL: WallMs = WallMs(1_900_000_000_000);

/// The stores: closed, crashed, and with files of classes.
fn made() -> Vec<(String, SimDisk)> {
    let (one, other) = (rich(1), rich(2));
    let cleaned = other.closed.snapshot();
    clean(&cleaned, true).expect("there is something to be cleaned");
    let rich =
        [("closed", one.closed), ("crashed", one.unclosed), ("cleaned", cleaned), ("young", one.older[0].snapshot())];
    let mut made: Vec<(String, SimDisk)> = rich.into_iter().map(|(name, disk)| (name.to_owned(), disk)).collect();
    made.push(("aged".to_owned(), aged()));
    let mut found = BTreeSet::new();
    made.iter().for_each(|(_, disk)| kinds(&observe(disk), &mut found));
    // Of random ones those that have something new.
    for (nth, (_, disk)) in (1..=SEEDS).flat_map(workload::stores).enumerate() {
        let (before, clock) = (found.len(), Arc::new(SimClock::new(WALL)));
        let Ok(observer) = Store::options().open_read_only_on(Arc::new(disk.reader()), clock) else { continue };
        kinds(&observer, &mut found);
        if found.len() > before {
            made.push((format!("random-{nth}"), disk));
        }
    }
    made
}

/// A topic that keeps its messages for a time.
fn aged() -> SimDisk {
    let (disk, clock) = (SimDisk::new(1), Arc::new(SimClock::new(WALL)));
    let store = Store::options().open_on(Arc::new(disk.attach().unwrap()), Arc::clone(&clock) as _).unwrap();
    let topic = store.topic("aged").retention(Retention::Age(Duration::from_secs(60))).open().unwrap();
    for number in 0..40 {
        topic.publish(format!("message {number}")).unwrap();
        clock.advance(15_000);
        store.tick().unwrap();
    }
    store.close().unwrap();
    disk
}

fn observe(disk: &SimDisk) -> Observer {
    Store::options().open_read_only_on(Arc::new(disk.reader()), Arc::new(SimClock::new(WALL))).unwrap()
}

/// What is told of a store, whatever later versions count beside it.
fn facts(observer: &Observer) -> String {
    let mut text = format!("end {}\n", observer.end().0);
    for topic in observer.stats().unwrap().topics {
        let ends: Vec<u64> = topic.partitions.iter().map(|partition| partition.end).collect();
        text += &format!("topic {:?} ends {ends:?} scheduled {}\n", topic.name, topic.scheduled);
        for group in topic.groups {
            text += &format!("    group {:?} lag {} dead {}\n", group.name, group.lag, group.dead);
        }
    }
    for cursor in observer.cursors().unwrap() {
        text += &format!("cursor {cursor:?} {:?}\n", observer.cursor(&cursor).unwrap().unwrap());
    }
    text
}

/// The kinds of records in a store.
fn kinds(observer: &Observer, found: &mut BTreeSet<String>) {
    let note = |entry| {
        if let DumpEntry::Frame(frame) = entry {
            for record in frame.records {
                let text = record.text.expect("a record that this version knows");
                found.insert(text.split([' ', '(']).next().unwrap_or_default().to_owned());
            }
        }
        true
    };
    observer.dump(Lsn(0), note).unwrap();
}

/// Every kind of record that the sources define.
fn defined() -> BTreeSet<String> {
    let source = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/record/mod.rs")).unwrap();
    let file = syn::parse_file(&source).unwrap();
    let records = file.items.iter().find_map(|item| match item {
        syn::Item::Enum(found) if found.ident == "Record" => Some(found),
        _ => None,
    });
    records.unwrap().variants.iter().map(|variant| variant.ident.to_string()).collect()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compat/v1")
}

fn write(folder: &Path) {
    for (name, disk) in made() {
        let folder = folder.join(name);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        for file in disk.files() {
            std::fs::write(folder.join(&file.name), disk.read_file(&file.name).unwrap()).unwrap();
        }
        std::fs::write(folder.join(FACTS), facts(&observe(&disk))).unwrap();
    }
}

/// Opens each store in the folder, and returns how many there are.
fn open_all(folder: &Path) -> usize {
    let stores: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    for store in &stores {
        let disk = SimDisk::new(1);
        for entry in std::fs::read_dir(store).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if name != FACTS {
                disk.write_file(name, &std::fs::read(&path).unwrap());
            }
        }
        let observer = observe(&disk);
        let expected = std::fs::read_to_string(store.join(FACTS)).unwrap();
        assert_eq!(facts(&observer), expected, "{}", store.display());
        assert_eq!(observer.verify(|_| ()).unwrap().findings, [], "{}", store.display());
        let opened = Store::options().open_on(Arc::new(disk.attach().unwrap()), Arc::new(SimClock::new(WALL))).unwrap();
        let topic = opened.topic("written by a later version").open().unwrap();
        topic.publish("m").unwrap();
        opened.close().unwrap();
    }
    stores.len()
}

/// The stores have every kind of record, so that none is forgotten when the format is frozen.
#[test]
fn stores_of_the_fixture_have_every_kind_of_record() {
    let mut found = BTreeSet::new();
    made().iter().for_each(|(_, disk)| kinds(&observe(disk), &mut found));
    let missing: Vec<String> = defined().difference(&found).cloned().collect();
    assert!(missing.is_empty(), "of no store of `made`: {missing:?}; let `fuzzing::rich` make such records");
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    assert_eq!(open_all(folder.path()), made().len());
}

/// What is kept opens, with what was in it.
#[test]
fn kept_stores_open_for_ever() {
    if std::env::var_os("MILLPOND_WRITE_COMPAT").is_some() {
        write(&folder());
    }
    if folder().exists() {
        assert_eq!(open_all(&folder()), made().len());
    }
}
