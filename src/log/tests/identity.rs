//! The identity of a store: features that this version does not know, and copies that were never opened.

use super::rig::{Rig, append_numbered, attach};
use crate::disk::sim::{Fault, Op, PowerOutcome, SimDisk};
use crate::log::OpenError;
use crate::log::format::store_file::{Features, Identity, Slot};

fn slots(disk: &SimDisk) -> [Slot; 2] {
    let file = disk.read_file("STORE").unwrap();
    let Identity::Valid(uuid) = Identity::decode(&file) else { panic!("no identity") };
    Slot::both(&file, &uuid).map(Option::unwrap)
}

fn newest(disk: &SimDisk) -> Slot {
    slots(disk).into_iter().max_by_key(|slot| slot.sequence).unwrap()
}

/// Changes each slot in the file, told whether it is the newer one.
fn change(disk: &SimDisk, mut change: impl FnMut(bool, &mut Slot)) {
    let mut file = disk.read_file("STORE").unwrap();
    let Identity::Valid(uuid) = Identity::decode(&file) else { panic!("no identity") };
    let newest = newest(disk);
    for mut slot in slots(disk) {
        change(slot.sequence == newest.sequence, &mut slot);
        let (at, bytes) = (Slot::position(slot.sequence) as usize, slot.encode(&uuid));
        file[at..at + bytes.len()].copy_from_slice(&bytes);
    }
    disk.write_file("STORE", &file);
}

fn closed(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    let mut rig = Rig::open(&disk, &[], 0);
    append_numbered(&mut rig, 1).unwrap();
    rig.close().unwrap();
    disk
}

fn bytes(disk: &SimDisk) -> Vec<(String, Vec<u8>)> {
    disk.files().into_iter().map(|entry| (entry.name.clone(), disk.read_file(&entry.name).unwrap())).collect()
}

#[test]
fn an_unknown_feature_in_either_slot_is_refused_by_its_name() {
    for bit in 0..32 {
        for (word, in_newer) in [("incompat", true), ("incompat", false), ("ro_compat", true), ("ro_compat", false)] {
            let disk = closed(1);
            change(&disk, |is_newer, slot| {
                if is_newer == in_newer {
                    let features = &mut slot.features;
                    *if word == "incompat" { &mut features.incompat } else { &mut features.ro_compat } |= 1 << bit;
                }
            });
            let before = bytes(&disk);
            match attach(&disk) {
                Err(OpenError::NewerFormat { file, found, supported }) => {
                    assert_eq!((file.as_str(), supported.as_str()), ("STORE", "format 2"));
                    assert_eq!(found, format!("format 2 with {word} bit {bit}"));
                }
                other => panic!("{word} bit {bit}: {:?}", other.map(|log| log.report)),
            }
            assert_eq!(bytes(&disk), before);
        }
    }
}

/// What any version may ignore is kept for those that do not.
#[test]
fn an_unknown_compatible_feature_of_either_slot_stays_for_ever() {
    for in_newer in [true, false] {
        let disk = closed(2);
        change(&disk, |is_newer, slot| {
            slot.features.compat = if is_newer == in_newer { 1 << 9 } else { 1 << 31 };
            slot.flags = 1 << 7;
        });
        let before = newest(&disk).sequence;
        for round in 0..3 {
            let mut rig = Rig::trusting(attach(&disk).unwrap(), super::rig::History::default());
            append_numbered(&mut rig, round).unwrap();
            rig.close().unwrap();
        }
        assert!(newest(&disk).sequence >= before + 6);
        for slot in slots(&disk) {
            assert_eq!(slot.features, Features { compat: 1 << 9 | 1 << 31, ..Features::default() });
            assert_eq!(slot.flags, 1 << 7);
        }
    }
}

#[test]
fn each_store_draws_an_instance_and_a_secret_and_keeps_them() {
    let drawn = [3, 4, 3].map(|seed| {
        let disk = closed(seed);
        let [one, other] = slots(&disk);
        assert_eq!((one.instance, one.secret), (other.instance, other.secret));
        assert!(!one.is_copy() && !other.is_copy());
        assert!(one.instance != one.secret && one.instance != [0; 16] && one.secret != [0; 16]);
        drop(attach(&disk).unwrap());
        assert_eq!(slots(&disk), [one, other]);
        (one.instance, one.secret)
    });
    assert!(drawn[0].0 != drawn[1].0 && drawn[0].1 != drawn[1].1);
    assert_eq!(drawn[0], drawn[2]);
}

/// The first open of a copy gives it an instance of its own, and nothing else; however often that is cut off before.
#[test]
fn a_copy_has_an_instance_of_its_own_before_its_first_open_returns() {
    let source = closed(5);
    change(&source, |_, slot| slot.flags |= Slot::COPY);
    let was = newest(&source);
    let whole = source.snapshot();
    let before = whole.requests();
    drop(attach(&whole).unwrap());
    let now = newest(&whole);
    assert!(!now.is_copy() && now.instance != was.instance);
    let (instance, flags, sequence) = (now.instance, now.flags, now.sequence);
    assert_eq!(now, Slot { instance, flags, sequence, ..was });
    let writes = whole.requests_of(Op::Write);
    drop(attach(&whole).unwrap());
    assert_eq!((newest(&whole), whole.requests_of(Op::Write)), (now, writes));
    for request in before..whole.requests() {
        for outcome in PowerOutcome::EACH {
            let disk = source.snapshot();
            disk.fail_at(request, Fault::CrashBefore);
            let opened = attach(&disk).is_ok();
            disk.clear_faults();
            disk.crash_power(outcome);
            assert!(!opened || !newest(&disk).is_copy(), "request {request}, {outcome:?}");
            let log = attach(&disk).unwrap();
            assert!(log.report.was_clean, "request {request}, {outcome:?}");
            let now = newest(&disk);
            assert!(!now.is_copy() && now.instance != was.instance, "request {request}, {outcome:?}");
        }
    }
}
