//! An index gives what was put in, or says that it is of no use.

use super::*;
use crate::disk::sim::{PowerOutcome, SimDisk};
use crate::ids::Epoch;
use crate::log::format::class::Classes;
use crate::log::format::header::FileKind;
use crate::log::format::segment_info::SegmentInfo;
use crate::log::write::file_manager::FileManager;
use crate::log::{Settings, open};

fn segment(handles: &Arc<Handles>) -> Segment {
    let info = SegmentInfo {
        number: FileNumber(7),
        kind: FileKind::Appended,
        salt: 11,
        generation: 0,
        base: Lsn(64),
        end: Lsn(4096),
        body_len: 0,
        epochs: vec![(Lsn(64), Epoch(1))],
        serves: Classes::BOTH,
    };
    Segment::closed(info, Arc::clone(handles))
}

fn file_manager(disk: &SimDisk) -> FileManager {
    let settings = Settings { segment_len_first: 4096, segment_len_max: 4096, access: crate::disk::Access::SyncOften };
    open(Arc::new(disk.attach().unwrap()), settings).unwrap().file_manager
}

fn row(first: u64, count: u32, at: u32, part: u32) -> Row {
    Row { first, count, at, part }
}

/// Keys with one row, with many, and with gaps, also beyond what 32 bits count.
fn sample() -> Vec<KeyRows> {
    let many = (0..1000u32).map(|nth| row(50 + 3 * u64::from(nth), 3, 128 + 8 * nth, nth % 5)).collect();
    let gaps = (0..300u32).map(|nth| row(u64::from(nth * nth) << 20, 1 + nth % 3, 128 + 8 * nth, nth % 5)).collect();
    vec![
        KeyRows { key: 0, time_ms: 1, rows: vec![row(u64::MAX - 9, 1, 128, 0)] },
        KeyRows { key: 3, time_ms: 2, rows: many },
        KeyRows { key: 4, time_ms: 3, rows: gaps },
        KeyRows { key: u64::MAX, time_ms: u64::MAX, rows: vec![row(0, 2, u32::MAX, u32::MAX)] },
    ]
}

#[test]
fn every_ordinal_is_found_and_no_other() {
    let disk = SimDisk::new(1);
    let mut file_manager = file_manager(&disk);
    let segment = segment(file_manager.handles());
    assert!(file_manager.indexes().open(&segment).unwrap().is_none());
    for _ in 0..2 {
        file_manager.write_index(&segment, &sample(), 0).unwrap();
    }
    let index = file_manager.indexes().open(&segment).unwrap().unwrap();
    let found: Vec<_> = index.keys().iter().map(|key| (key.key, key.first, key.end, key.time_ms)).collect();
    let told =
        sample().into_iter().map(|key| (key.key, key.rows[0].first, key.rows.last().unwrap().end(), key.time_ms));
    assert_eq!(found, told.collect::<Vec<_>>());
    let cache = BlockCache::new(1 << 20);
    let mut out = Vec::new();
    for key in sample() {
        for (nth, held) in key.rows.iter().enumerate() {
            for ordinal in held.first..held.end() {
                for max in [1, 3, 700] {
                    assert!(index.look_up(&cache, key.key, ordinal, max, &mut out).unwrap());
                    assert_eq!(out, &key.rows[nth..(nth + max).min(key.rows.len())]);
                }
            }
            let around = [held.first.wrapping_sub(1), held.end()];
            for outside in around.into_iter().filter(|ordinal| !key.rows.iter().any(|row| row.holds(*ordinal))) {
                assert!(index.look_up(&cache, key.key, outside, 1, &mut out).unwrap());
                assert!(out.is_empty(), "ordinal {outside} of key {}", key.key);
            }
        }
    }
    assert!(index.look_up(&cache, 1, 5, 1, &mut out).unwrap());
    assert!(out.is_empty());
}

/// A directory ends within the first read, with it, or behind it; where the file is shorter than it says, there is no index.
#[test]
fn many_keys_are_found() {
    let disk = SimDisk::new(2);
    let mut file_manager = file_manager(&disk);
    let segment = segment(file_manager.handles());
    let name = FileName::Index(segment.number());
    let fitting = (FIRST_READ_LEN - HEADER_LEN) / ENTRY_LEN;
    for count in [fitting - 1, fitting, fitting + 1, 1000] {
        let one = |key: u64| KeyRows { key, time_ms: 0, rows: vec![row(key, 1, 128, 0)] };
        let keys: Vec<_> = (0..count as u64).map(one).collect();
        file_manager.write_index(&segment, &keys, 0).unwrap();
        let index = file_manager.indexes().open(&segment).unwrap().unwrap();
        let found: Vec<_> = index.keys().iter().map(|key| (key.key, key.first)).collect();
        assert_eq!(found, (0..count).map(|key| (key as u64, key as u64)).collect::<Vec<_>>());
        let front_len = (HEADER_LEN + count * ENTRY_LEN) as u64;
        file_manager.disk().open(&name.to_string()).unwrap().set_len(front_len - 1).unwrap();
        assert!(file_manager.indexes().open(&segment).unwrap().is_none(), "{count} keys");
    }
}

#[test]
fn golden() {
    let disk = SimDisk::new(1);
    let file_manager = file_manager(&disk);
    let keys = [KeyRows { key: 2, time_ms: 9, rows: vec![row(5, 2, 128, 0), row(1 << 40, 1, 256, 4)] }];
    let front = encode_front(b"0123456789abcdef", &segment(file_manager.handles()), 13, &keys).unwrap();
    let bytes = front.into_iter().chain(encoded_rows(13, &keys).flatten());
    let hex: String = bytes.map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        "894944580d0a1a0a02000000010000003031323334353637383961626364656607000000000000000b000000000000000d00000000000000400000000000000000100000000000006ca827b2552bdf8c020000000000000005000000000000000100000000010000090000000000000000000000000000000200000000000000000000000200000080000000000000006af29161fbffffffff00000001000000000100000400000091c9718a"
    );
}

/// G17: whatever is wrong with an index, it never says anything but the truth.
#[test]
fn a_damaged_index_is_of_no_use_or_right() {
    let disk = SimDisk::new(1);
    let mut file_manager = file_manager(&disk);
    let segment = segment(file_manager.handles());
    let keys = vec![
        KeyRows { key: 1, time_ms: 1, rows: (0..3).map(|nth| row(nth * 3, 3, 128, nth as u32)).collect() },
        KeyRows { key: 2, time_ms: 2, rows: vec![row(9, 1, 136, 1), row(12, 2, 144, 0)] },
    ];
    file_manager.write_index(&segment, &keys, 0).unwrap();
    let name = FileName::Index(segment.number()).to_string();
    let whole = disk.read_file(&name).unwrap();
    let (mut absent, mut useless) = (0, 0);
    let mut try_it = |bytes: &[u8]| {
        disk.write_file(&name, bytes);
        file_manager.handles().forget(FileName::Index(segment.number()));
        let Some(index) = file_manager.indexes().open(&segment).unwrap() else {
            absent += 1;
            return;
        };
        let cache = BlockCache::new(1 << 20);
        let mut out = Vec::new();
        for key in &keys {
            for ordinal in key.rows[0].first..key.rows.last().unwrap().end() {
                if !index.look_up(&cache, key.key, ordinal, 10, &mut out).unwrap() {
                    useless += 1;
                    continue;
                }
                let holding = key.rows.iter().position(|row| row.holds(ordinal));
                assert_eq!(out, holding.map_or(&[][..], |holding| &key.rows[holding..]));
            }
        }
    };
    for bit in 0..whole.len() * 8 {
        let mut damaged = whole.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        try_it(&damaged);
    }
    for len in 0..whole.len() {
        try_it(&whole[..len]);
        let mut zeroed = whole.clone();
        zeroed[len..].fill(0);
        try_it(&zeroed);
    }
    assert!(absent > 0 && useless > 0);
}

#[test]
fn an_index_of_another_life_of_the_segment_is_none() {
    let disk = SimDisk::new(1);
    let mut file_manager = file_manager(&disk);
    let segment = segment(file_manager.handles());
    file_manager.write_index(&segment, &sample(), 0).unwrap();
    let info = segment.info();
    let others = [
        SegmentInfo { salt: 12, ..info.clone() },
        SegmentInfo { base: Lsn(72), ..info.clone() },
        SegmentInfo { end: Lsn(5000), ..info },
    ];
    for other in others {
        assert!(
            file_manager.indexes().open(&Segment::closed(other, Arc::clone(file_manager.handles()))).unwrap().is_none()
        );
    }
    let mut refused = vec![vec![sample()[1].clone(), sample()[0].clone()]];
    for rows in [vec![row(5, 2, 128, 0), row(6, 1, 136, 0)], vec![row(5, 0, 128, 0)], vec![row(u64::MAX, 1, 128, 0)]] {
        refused.push(vec![KeyRows { key: 1, time_ms: 0, rows }]);
    }
    for keys in refused {
        assert!(file_manager.write_index(&segment, &keys, 0).is_err(), "{keys:?}");
    }
    file_manager.remove_index(segment.number()).unwrap();
    assert!(file_manager.indexes().open(&segment).unwrap().is_none());
}

#[test]
fn a_power_cut_leaves_it_right_or_of_no_use() {
    for (seed, outcome) in (0..).zip(PowerOutcome::EACH) {
        let disk = SimDisk::new(seed);
        let mut first = file_manager(&disk);
        let segment = segment(first.handles());
        first.write_index(&segment, &sample(), 0).unwrap();
        disk.crash_power(outcome);
        let next = file_manager(&disk);
        let Some(index) = next.indexes().open(&segment).unwrap() else { continue };
        let mut out = Vec::new();
        let cache = BlockCache::new(1 << 20);
        for ordinal in 50..3050 {
            if index.look_up(&cache, 3, ordinal, 1, &mut out).unwrap() {
                assert_eq!(out[0].first, 50 + (ordinal - 50) / 3 * 3);
            }
        }
    }
}
