//! Repair of stores that do not open: what is left is kept, what is lost is told, and whatever ends a repair, it can be begun again.
//!
//! The sweep in `tests/corruption` repairs after every kind of damage; here is what a user meets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use millpond::simulation::{Fault, PowerOutcome, SimClock, SimDisk, WallMs};
use millpond::{
    Durability, Error, ErrorKind, Group, Message, Ordering, RepairReport, Seek, Start, Store, StoreOptions,
};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const NOW: Duration = Duration::ZERO;

fn options() -> StoreOptions {
    Store::options().durability(Durability::Disk).segment_bytes_max(64 << 10)
}

fn clock() -> Arc<SimClock> {
    Arc::new(SimClock::new(WallMs(1_800_000_000_000)))
}

fn open(disk: &SimDisk) -> Result<Store, Error> {
    options().open_on(Arc::new(disk.attach().unwrap()), clock())
}

fn repair(disk: &SimDisk) -> Result<RepairReport, Error> {
    options().repair_on(Arc::new(disk.attach().unwrap()), clock())
}

/// A store of 300 messages of 1,000 bytes in several segments, of which a group has acked the first 100; its process died.
fn made() -> SimDisk {
    let disk = SimDisk::new(1);
    let store = open(&disk).unwrap();
    let topic = store.topic("orders").open().unwrap();
    let group = topic.group("kitchen").open().unwrap();
    for number in 0..300u64 {
        topic.publish(Message::new(payload(number))).unwrap();
    }
    assert!(group.receive_batch(100, NOW).unwrap().ack().unwrap().is_empty());
    store.sync().unwrap();
    disk.crash_process();
    drop((store, topic, group));
    disk
}

fn payload(number: u64) -> Vec<u8> {
    let mut bytes = format!("order {number}.").into_bytes();
    bytes.resize(1_000, b'.');
    bytes
}

/// What a group gets, and how many messages it is told it cannot get.
fn drain(group: &Group) -> (BTreeSet<u64>, usize) {
    let (mut got, mut unreadable) = (BTreeSet::new(), 0);
    loop {
        match group.receive_batch(1_000, NOW) {
            Ok(batch) => {
                unreadable += batch.unreadable().len();
                if batch.is_empty() && batch.unreadable().is_empty() {
                    return (got, unreadable);
                }
                for delivery in &batch {
                    let text = String::from_utf8(delivery.payload().to_vec()).unwrap();
                    let number = text.trim_end_matches('.').strip_prefix("order ").unwrap().parse().unwrap();
                    assert!(got.insert(number), "{number} came twice");
                }
                assert!(batch.ack().unwrap().is_empty());
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Skip, "{error}");
                unreadable += 1;
            }
        }
    }
}

/// What two groups get of the repaired store: the one that had acked 100 messages, and one that begins anew.
fn left(disk: &SimDisk) -> [(BTreeSet<u64>, usize); 2] {
    let store = open(disk).unwrap();
    let topic = store.topic("orders").open().unwrap();
    let anew = topic.group("anew").start(Start::Earliest).open().unwrap();
    let found = [drain(&topic.group("kitchen").open().unwrap()), drain(&anew)];
    assert!(store.violations().is_empty(), "{:?}", store.violations());
    store.close().unwrap();
    found
}

fn segments(disk: &SimDisk) -> Vec<String> {
    disk.files().into_iter().map(|file| file.name).filter(|name| name.ends_with(".seg")).collect()
}

/// Flips a bit of a message's payload, and of the frame's head too if `all`.
fn flip(disk: &SimDisk, number: u64, all: bool) {
    let text = format!("order {number}.").into_bytes();
    for name in segments(disk) {
        let mut bytes = disk.read_file(&name).unwrap();
        if let Some(at) = bytes.windows(text.len()).position(|window| window == text) {
            bytes[at] ^= 1;
            if all {
                bytes[at - 8..at].iter_mut().for_each(|byte| *byte ^= 1);
            }
            disk.write_file(&name, &bytes);
            return;
        }
    }
    panic!("message {number} is in no segment");
}

/// A store that opens is left alone, byte for byte.
#[test]
fn a_store_that_opens_is_not_repaired() {
    let disk = made();
    let files = |disk: &SimDisk| -> Vec<_> {
        disk.files().into_iter().map(|file| (disk.read_file(&file.name), file.name)).collect()
    };
    let before = files(&disk);
    assert_eq!(repair(&disk).unwrap(), RepairReport::default());
    assert_eq!(files(&disk), before);
}

/// One frame is lost, and all behind it is kept: messages, and what was acked.
#[test]
fn one_damaged_frame_costs_its_message() {
    for all in [false, true] {
        let disk = made();
        flip(&disk, 200, all);
        assert!(matches!(open(&disk).map(drop), Err(Error::Corrupt(_))));
        let report = repair(&disk).unwrap();
        assert_eq!((report.lost.len(), report.copies.len(), report.is_end_lost), (1, 1, false), "{report:?}");
        assert!(report.lost[0].to.0 - report.lost[0].from.0 < 2_000, "{report:?}");
        if all {
            let [lost] = &report.lost_messages[..] else { panic!("{report:?}") };
            assert_eq!((&*lost.topic, lost.partition, lost.offset, lost.count), ("orders", 0, 200, 1));
        }
        let [kitchen, anew] = left(&disk);
        assert_eq!(kitchen, ((100..300).filter(|number| *number != 200).collect(), 1));
        assert_eq!(anew.0, (0..300).filter(|number| *number != 200).collect());
        // What is left is a store like any other.
        assert_eq!(repair(&disk).unwrap(), RepairReport::default());
    }
}

/// Where a consumer keeps up, each frame in turn is lost, and what was acked behind it stays acked: at most what the lost frame itself settled
/// or leased comes again. In a group with an order or a filter more may come again, and nothing that does not pass.
#[test]
fn a_lost_frame_takes_back_nothing_behind_it() {
    for kind in [Kind::Plain, Kind::Key, Kind::Partition, Kind::Filter] {
        let whole = kept_up(kind);
        let [name] = &segments(&whole)[..] else { panic!("one segment") };
        let bytes = whole.read_file(name).unwrap();
        let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        let (mut repaired, mut without_topic, mut without_orders) = (0, 0, 0);
        for at in (128..last).step_by(8) {
            let disk = whole.snapshot();
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            disk.write_file(name, &damaged);
            match open(&disk).map(drop) {
                Err(Error::Corrupt(_)) => {}
                // The end of the log, of which no later frame tells.
                other => {
                    other.unwrap();
                    continue;
                }
            }
            repair(&disk).unwrap_or_else(|error| panic!("{kind:?}, byte {at}: {error}"));
            repaired += 1;
            let store = open(&disk).unwrap();
            assert!(store.violations().is_empty(), "{kind:?}, byte {at}: {:?}", store.violations());
            let topics = store.stats().unwrap().topics;
            if topics.iter().any(|topic| topic.name == "orders" && !topic.groups.is_empty()) {
                let (came, unreadable) = drain(&store.topic("orders").open().unwrap().group("kitchen").open().unwrap());
                let most = if kind == Kind::Plain { 2 } else { 21 };
                assert!(came.len() <= most && unreadable <= 1, "{kind:?}, byte {at}: {came:?}, {unreadable}");
                let passes = |number: &u64| kind != Kind::Filter || number.is_multiple_of(2);
                assert!(came.iter().all(passes), "{kind:?}, byte {at}: {came:?}");
            }
            let has = |name| topics.iter().any(|topic| topic.name == name);
            without_topic += usize::from(!has("later"));
            without_orders += usize::from(!has("orders"));
        }
        // The frame that creates a topic is short, and only its loss costs the topic: not that of the opening before it, or of another topic.
        let of = (repaired, without_topic, without_orders);
        assert!(
            repaired > 150 && (1..16).contains(&without_topic) && (1..16).contains(&without_orders),
            "{kind:?}: {of:?}"
        );
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    Key,
    Partition,
    Filter,
}

/// A store of short frames: a message is acked before the next two are published, another topic comes in between, and the process died.
fn kept_up(kind: Kind) -> SimDisk {
    let disk = SimDisk::new(1);
    let store = open(&disk).unwrap();
    let topic = store.topic("orders").open().unwrap();
    let group = topic.group("kitchen");
    let group = match kind {
        Kind::Plain => group,
        Kind::Key => group.ordering(Ordering::Key),
        Kind::Partition => group.ordering(Ordering::Partition),
        Kind::Filter => group.filter("even exists"),
    };
    let group = group.open().unwrap();
    for number in 0..20u64 {
        let message = Message::new(format!("order {number}.")).key([(number % 3) as u8]);
        topic.publish(if number % 2 == 0 { message.header("even", "") } else { message }).unwrap();
        if number % 2 == 1 {
            // One that waits for its turn is behind another of its key.
            assert!(group.receive_batch(1, NOW).unwrap().ack().unwrap().is_empty());
        }
        if number == 10 {
            store.topic("later").open().unwrap().group("too").open().unwrap();
        }
    }
    loop {
        let batch = group.receive_batch(1, NOW).unwrap();
        if batch.is_empty() {
            break;
        }
        assert!(batch.ack().unwrap().is_empty());
    }
    store.topic("later").open().unwrap().publish("order 99.").unwrap();
    topic.publish(Message::new("order 20.").key("b").header("even", "")).unwrap();
    store.sync().unwrap();
    disk.crash_process();
    drop((store, topic, group));
    disk
}

/// With its newest checkpoint damaged a repaired store begins from the other one, which covers the damage as well.
#[test]
fn the_damage_is_covered_twice() {
    let disk = made();
    flip(&disk, 200, true);
    repair(&disk).unwrap();
    let checkpoints = disk.files().into_iter().map(|file| file.name).filter(|name| name.ends_with(".ckp"));
    let newest = checkpoints.max().unwrap();
    let mut bytes = disk.read_file(&newest).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    disk.write_file(&newest, &bytes);
    assert_eq!(left(&disk)[0].0.len(), 199);
}

/// Without its newest segment a store has lost the end of its log, and says so; no id is given twice.
#[test]
fn a_missing_end_is_told() {
    let disk = made();
    let newest = segments(&disk).pop().unwrap();
    disk.remove_file(&newest);
    let report = repair(&disk).unwrap();
    let [lost] = &report.lost[..] else { panic!("{report:?}") };
    assert!(report.is_end_lost && lost.from == lost.to && lost.file == Some(newest), "{report:?}");
    let store = open(&disk).unwrap();
    let topic = store.topic("orders").open().unwrap();
    let id = topic.publish("a new one").unwrap().id();
    assert!(id.epoch > millpond::Epoch(0) && id.epoch == store.report().epoch);
    drop((store, topic));
}

/// A segment in the middle is gone: what stands behind it is kept, and the messages that are missing are told by their numbers.
#[test]
fn a_missing_middle_is_told_by_its_messages() {
    let disk = made();
    let all = segments(&disk);
    disk.remove_file(&all[all.len() / 2]);
    let report = repair(&disk).unwrap();
    let [lost] = &report.lost_messages[..] else { panic!("{report:?}") };
    let [(kitchen, unreadable), (anew, _)] = left(&disk);
    let gone = lost.offset..lost.offset + lost.count;
    assert!(lost.count > 10 && unreadable as u64 == lost.count, "{report:?}");
    assert!(!report.is_end_lost && kitchen == (100..300).filter(|number| !gone.contains(number)).collect());
    // A new group begins where nothing is missing any more.
    assert_eq!(anew, (gone.end..300).collect());
}

/// What a group had not come to before a gap is not gone: it comes wherever the group seeks back to.
#[test]
fn a_seek_over_a_gap_loses_nothing_that_is_there() {
    let disk = made();
    let all = segments(&disk);
    disk.remove_file(&all[all.len() / 2]);
    let report = repair(&disk).unwrap();
    let [lost] = &report.lost_messages[..] else { panic!("{report:?}") };
    let gone = lost.offset..lost.offset + lost.count;
    let store = open(&disk).unwrap();
    let group = store.topic("orders").open().unwrap().group("kitchen").open().unwrap();
    let before = group.preview_seek(Seek::Earliest).unwrap();
    let sought = group.seek(Seek::Earliest).unwrap();
    assert_eq!((before, sought.lag), (sought, 200));
    let (came, unreadable) = drain(&group);
    assert_eq!((came, unreadable as u64), ((100..300).filter(|number| !gone.contains(number)).collect(), lost.count));
}

/// `STORE` is gone, and the files tell whose they are.
#[test]
fn a_store_without_its_first_file_is_found_again() {
    let disk = made();
    disk.write_file("STORE", b"");
    let report = repair(&disk).unwrap();
    assert!(report.are_names_lost, "{report:?}");
    let [kitchen, anew] = left(&disk);
    assert_eq!((kitchen.0, anew.0), ((100..300).collect(), (0..300).collect()));
}

/// Whatever ends a repair, at any request to the disk: the store does not open, and the next repair finds as much; or it is done.
#[test]
fn a_repair_that_was_cut_off_is_begun_again() {
    let damaged = made();
    flip(&damaged, 200, true);
    let done = damaged.snapshot();
    let before = done.requests();
    repair(&done).unwrap();
    let wanted = left(&done.snapshot());
    let requests = done.requests() - before;
    let outcomes = PowerOutcome::EACH;
    for request in 0..requests {
        for fault in [Fault::CrashBefore, Fault::CrashMiddle, Fault::CrashAfter] {
            let disk = damaged.snapshot();
            disk.fail_at(disk.requests() + request, fault);
            let ended = repair(&disk);
            disk.clear_faults();
            disk.crash_power(outcomes[(request as usize + fault as usize) % outcomes.len()]);
            if let Err(Error::Corrupt(_)) = open(&disk).map(drop) {
                repair(&disk).unwrap();
            }
            assert_eq!(left(&disk), wanted, "{fault:?} at request {request} of {requests}: {ended:?}");
        }
    }
}

/// Without room for the copies nothing is changed but for copies, and it goes on once there is.
#[test]
fn a_full_disk_refuses_the_repair() {
    let disk = made();
    flip(&disk, 200, true);
    let used = disk.files().iter().map(|file| file.len).sum();
    disk.set_capacity(Some(used));
    let refused = repair(&disk).unwrap_err();
    assert!(matches!(refused, Error::DiskFull), "{refused:?}");
    assert!(matches!(open(&disk).map(drop), Err(Error::Corrupt(_))));
    disk.set_capacity(None);
    repair(&disk).unwrap();
    assert_eq!(left(&disk)[0].0.len(), 199);
}

/// In a directory: a plan changes nothing, a store in use is locked, and no file says whose an empty one is.
#[test]
fn a_directory_is_repaired() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    let missing = Store::options().repair(&path).unwrap_err();
    assert!(matches!(missing, Error::NotFound { .. }), "{missing:?}");
    let store = Store::open(&path).unwrap();
    let locked = Store::options().repair(&path).unwrap_err();
    assert!(matches!(locked, Error::Locked { .. }), "{locked:?}");
    let topic = store.topic("orders").open().unwrap();
    topic.group("kitchen").open().unwrap();
    topic.publish("one").unwrap();
    store.close().unwrap();
    drop((store, topic));
    for (name, bytes) in [("STORE", None), ("STORE", Some(&b"nothing"[..]))] {
        match bytes {
            None => std::fs::remove_file(path.join(name)).unwrap(),
            Some(bytes) => std::fs::write(path.join(name), bytes).unwrap(),
        }
        let plan = Store::options().plan_repair(&path).unwrap();
        let refused = Store::open(&path).map(drop).unwrap_err();
        assert!(
            plan.copies.is_empty() && matches!(refused, Error::Corrupt(_) | Error::NotAStore { .. }),
            "{refused:?}"
        );
        let report = Store::options().repair(&path).unwrap();
        assert!(report.damage.is_some() && report.are_names_lost, "{report:?}");
        assert_eq!((plan.damage, plan.lost, plan.are_names_lost), (report.damage, report.lost, true));
        let store = Store::open(&path).unwrap();
        let group = store.topic("orders").open().unwrap().group("kitchen").open().unwrap();
        let delivery = group.receive(NOW).unwrap().unwrap();
        assert_eq!(delivery.payload(), b"one");
        delivery.release().unwrap();
        drop((store, group));
    }
    assert!(has(&path, ".damaged"));
}

fn has(path: &Path, suffix: &str) -> bool {
    std::fs::read_dir(path).unwrap().any(|entry| entry.unwrap().file_name().to_string_lossy().contains(suffix))
}
