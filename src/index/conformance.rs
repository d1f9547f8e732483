//! One suite for every index: what it answers while nothing fails.
//!
//! Runs on every engine, and through the guard as the store does. What damage and crashes do to the files is tested in
//! `damage`. Never here: a look behind the traits.

use super::{
    DerivedIndex, Direction, INDEX_KEY_LEN_MAX, INDEX_VALUE_LEN_MAX, IndexChange, IndexDirectory, IndexEntry,
    IndexError, IndexHome, IndexKind, IndexOutcome, IndexStamp, KeyRange, SimIndexHome,
};
use crate::disk::sim::Rng;
use crate::ids::{Epoch, Lsn};
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};
use tempfile::TempDir;

const MEMORY: IndexKind = IndexKind::Memory { entries_max: 100_000 };

struct IndexCandidate {
    name: &'static str,
    home: Box<dyn IndexHome>,
    keeps: bool,
    _folder: Option<TempDir>,
}

fn candidates() -> Vec<IndexCandidate> {
    let on_disk = |name, kind| {
        let folder = tempfile::tempdir().unwrap();
        let home = Box::new(IndexDirectory::new(kind, folder.path().join("index")));
        IndexCandidate { name, home, keeps: true, _folder: Some(folder) }
    };
    let mut all = vec![
        IndexCandidate {
            name: "memory",
            home: Box::new(IndexDirectory::new(MEMORY, "/nowhere".into())),
            keeps: false,
            _folder: None,
        },
        IndexCandidate { name: "simulated", home: Box::new(SimIndexHome::default()), keeps: true, _folder: None },
    ];
    #[cfg(feature = "sled")]
    all.push(on_disk("sled", IndexKind::Sled));
    #[cfg(feature = "redb")]
    all.push(on_disk("redb", IndexKind::Redb));
    all
}

fn on_every_index(check: impl Fn(&str, &mut DerivedIndex)) {
    for IndexCandidate { name, home, .. } in &candidates() {
        check(name, &mut home.open().unwrap());
    }
}

/// Every index that is there again after a close.
fn on_every_home(check: impl Fn(&str, &dyn IndexHome)) {
    for IndexCandidate { name, home, keeps, .. } in &candidates() {
        if *keeps {
            check(name, &**home);
        }
    }
}

fn stamp(lsn: u64) -> IndexStamp {
    IndexStamp { instance: *b"0123456789abcdef", epoch: Epoch::of(3, 0x89AB_CDEF), lsn: Lsn(lsn) }
}

fn put<'a>(key: &'a [u8], value: &'a [u8]) -> IndexChange<'a> {
    IndexChange { key, value: Some(value) }
}

fn remove(key: &[u8]) -> IndexChange<'_> {
    IndexChange { key, value: None }
}

const ALL: KeyRange<'static> = (Unbounded, Unbounded);

fn entries(index: &mut DerivedIndex) -> Vec<IndexEntry> {
    index.scan(ALL, Direction::Ascending, usize::MAX).unwrap()
}

#[test]
fn fresh_index_is_empty_and_has_no_stamp() {
    on_every_index(|name, index| {
        assert_eq!(index.stamp().unwrap(), None, "{name}");
        assert_eq!(index.get(b"a").unwrap(), None, "{name}");
        assert_eq!(entries(index), [], "{name}");
    });
}

#[test]
fn changes_are_seen_with_their_stamp() {
    on_every_index(|name, index| {
        index.apply(&[put(b"a", b"1"), put(b"b", b""), put(b"\0", b"0")], stamp(8)).unwrap();
        assert_eq!(index.stamp().unwrap(), Some(stamp(8)), "{name}");
        assert_eq!(index.get(b"a").unwrap().as_deref(), Some(b"1".as_slice()), "{name}");
        assert_eq!(index.get(b"b").unwrap().as_deref(), Some(b"".as_slice()), "an empty value is a value: {name}");
        index.apply(&[put(b"a", b"2"), remove(b"b"), remove(b"never there")], stamp(16)).unwrap();
        let left = [(b"\0".to_vec(), b"0".to_vec()), (b"a".to_vec(), b"2".to_vec())];
        assert_eq!((entries(index), index.stamp().unwrap()), (left.to_vec(), Some(stamp(16))), "{name}");
        index.apply(&[], stamp(24)).unwrap();
        assert_eq!(index.stamp().unwrap(), Some(stamp(24)), "a stamp alone: {name}");
        index.flush().unwrap();
    });
}

#[test]
fn last_change_of_a_key_wins() {
    on_every_index(|name, index| {
        let changes = [put(b"a", b"1"), remove(b"a"), put(b"a", b"2"), put(b"b", b"1"), remove(b"b")];
        index.apply(&changes, stamp(8)).unwrap();
        assert_eq!(entries(index), [(b"a".to_vec(), b"2".to_vec())], "{name}");
    });
}

#[test]
fn longest_key_and_value_fit_and_longer_ones_are_no_fault_of_the_engine() {
    on_every_index(|name, index| {
        let (key, value) = ([7; INDEX_KEY_LEN_MAX + 1], [8; INDEX_VALUE_LEN_MAX + 1]);
        let (longest_key, longest_value) = (&key[1..], &value[1..]);
        index.apply(&[put(longest_key, longest_value)], stamp(8)).unwrap();
        for refused in [put(&key, b""), put(b"", b""), put(b"a", &value), remove(b"")] {
            let error = index.apply(&[put(b"b", b""), refused], stamp(16)).unwrap_err();
            assert!(error.to_string().contains("internal error"), "{name}: {error}");
        }
        assert!(index.get(b"").is_err() && index.get(&key).is_err(), "{name}");
        assert_eq!(entries(index), [(longest_key.to_vec(), longest_value.to_vec())], "{name}");
        assert_eq!(index.stamp().unwrap(), Some(stamp(8)), "{name}");
    });
}

#[test]
fn empty_and_inverted_ranges_have_no_entry() {
    on_every_index(|name, index| {
        let keys: [&[u8]; 3] = [b"a", b"b", b"c"];
        index.apply(&keys.map(|key| put(key, key)), stamp(8)).unwrap();
        let (a, b): (&[u8], &[u8]) = (b"a", b"b");
        let none = [
            (Included(b), Included(a)),
            (Included(b), Excluded(b)),
            (Excluded(b), Included(b)),
            (Excluded(b), Excluded(b)),
            (Excluded(a), Excluded(b)),
            (Unbounded, Excluded(a)),
            (Unbounded, Included(b"".as_slice())),
            (Included(b"".as_slice()), Included(b"".as_slice())),
            (Included(b"".as_slice()), Excluded(a)),
        ];
        for range in none {
            for direction in [Direction::Ascending, Direction::Descending] {
                assert_eq!(index.scan(range, direction, 9).unwrap(), [], "{name}: {range:?}");
            }
        }
        assert_eq!(index.scan(ALL, Direction::Ascending, 0).unwrap(), [], "{name}");
        assert_eq!(index.scan((Included(b"".as_slice()), Unbounded), Direction::Descending, 9).unwrap().len(), 3);
    });
}

#[test]
fn closed_index_is_there_again_and_a_discarded_one_is_not() {
    on_every_home(|name, home| {
        for round in 0..20 {
            let mut index = home.open().unwrap_or_else(|error| panic!("{name}, round {round}: {error}"));
            assert_eq!(index.stamp().unwrap(), None, "{name}, round {round}");
            index.apply(&[put(b"a", b"1"), put(b"b", b"2")], stamp(8)).unwrap();
            if round % 3 == 0 {
                index.flush().unwrap();
            }
            index.close().unwrap();
            let mut index = home.open().unwrap_or_else(|error| panic!("{name}, again {round}: {error}"));
            assert_eq!((entries(&mut index).len(), index.stamp().unwrap()), (2, Some(stamp(8))), "{name}");
            drop(index);
            home.discard().unwrap();
            home.discard().unwrap();
        }
    });
}

/// What an index should answer.
#[derive(Default)]
struct ModelIndex {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    stamp: Option<IndexStamp>,
}

impl ModelIndex {
    fn scan(&self, range: KeyRange<'_>, direction: Direction, entries_max: usize) -> Vec<IndexEntry> {
        let is_in = |key: &[u8]| {
            (match range.0 {
                Included(from) => from <= key,
                Excluded(from) => from < key,
                Unbounded => true,
            }) && match range.1 {
                Included(to) => key <= to,
                Excluded(to) => key < to,
                Unbounded => true,
            }
        };
        let mut found: Vec<_> = self.entries.iter().filter(|(key, _)| is_in(key)).collect();
        if direction == Direction::Descending {
            found.reverse();
        }
        found.into_iter().take(entries_max).map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

/// A short key of few bytes, so that keys meet and are prefixes of each other; now and then a long one.
fn random_key(rng: &mut Rng) -> Vec<u8> {
    let len = if rng.chance(1, 20) { 1 + rng.index(INDEX_KEY_LEN_MAX) } else { 1 + rng.index(4) };
    (0..len).map(|_| [0, 1, b'a', b'b', 0xFE, 0xFF][rng.index(6)]).collect()
}

fn random_changes(rng: &mut Rng, count: usize) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let change = |rng: &mut Rng| {
        let value_len = if rng.chance(1, 10) { rng.index(INDEX_VALUE_LEN_MAX + 1) } else { rng.index(30) };
        let mut value = vec![0; value_len];
        rng.fill(&mut value);
        (random_key(rng), rng.chance(2, 3).then_some(value))
    };
    (0..count).map(|_| change(rng)).collect()
}

fn apply_random(index: &mut DerivedIndex, model: &mut ModelIndex, rng: &mut Rng, lsn: u64) {
    let count = [0, 1, 5, 99, 100, 101, 250][rng.index(7)];
    let changes = random_changes(rng, count);
    let borrowed: Vec<_> = changes.iter().map(|(key, value)| IndexChange { key, value: value.as_deref() }).collect();
    index.apply(&borrowed, stamp(lsn)).unwrap();
    for (key, value) in changes {
        match value {
            Some(value) => drop(model.entries.insert(key, value)),
            None => drop(model.entries.remove(&key)),
        }
    }
    model.stamp = Some(stamp(lsn));
}

fn compare_random(name: &str, index: &mut DerivedIndex, model: &ModelIndex, rng: &mut Rng) {
    let (a, b) = (random_key(rng), random_key(rng));
    assert_eq!(index.get(&a).unwrap(), model.entries.get(&a).cloned(), "{name}");
    let from = [Included(a.as_slice()), Excluded(&a), Unbounded][rng.index(3)];
    let to = [Included(b.as_slice()), Excluded(&b), Unbounded][rng.index(3)];
    let direction = [Direction::Ascending, Direction::Descending][rng.index(2)];
    let entries_max = [0, 1, 3, 50, usize::MAX][rng.index(5)];
    let found = index.scan((from, to), direction, entries_max).unwrap();
    assert_eq!(found, model.scan((from, to), direction, entries_max), "{name}: {from:?} {to:?} {direction:?}");
}

#[test]
fn every_index_equals_the_model() {
    for IndexCandidate { name, home, keeps, .. } in &candidates() {
        for seed in 0..4 {
            let (mut rng, mut model) = (Rng::new(seed), ModelIndex::default());
            let mut index = home.open().unwrap();
            for step in 1..=120 {
                match rng.index(20) {
                    0 => index.flush().unwrap(),
                    1 if *keeps => {
                        index.close().unwrap();
                        index = home.open().unwrap();
                    }
                    2..=8 => apply_random(&mut index, &mut model, &mut rng, 8 * step),
                    _ => compare_random(name, &mut index, &model, &mut rng),
                }
                assert_eq!(index.stamp().unwrap(), model.stamp, "{name}");
            }
            assert_eq!(entries(&mut index), model.scan(ALL, Direction::Ascending, usize::MAX), "{name}, seed {seed}");
            index.close().unwrap();
            home.discard().unwrap();
        }
    }
}

#[test]
fn full_memory_refuses_new_keys_alone() {
    let home = IndexDirectory::new(IndexKind::Memory { entries_max: 2 }, "/nowhere".into());
    let mut index = home.open().unwrap();
    let full = Err(IndexError::Full { entries_max: 2 });
    assert_eq!(index.apply(&[put(b"a", b"1"), put(b"b", b"1"), put(b"c", b"1")], stamp(8)), full);
    assert_eq!((index.stamp().unwrap(), entries(&mut index).len()), (None, 2), "beyond the stamp, and readable");
    index.apply(&[put(b"a", b"2"), remove(b"b"), put(b"d", b"1")], stamp(16)).unwrap();
    assert_eq!(index.apply(&[put(b"e", b"1")], stamp(24)), full);
    assert_eq!(index.stamp().unwrap(), Some(stamp(16)));
    assert_eq!(index.get(b"d").unwrap().as_deref(), Some(b"1".as_slice()));
}

/// Applies ten times; the state after each is what a crash may show.
fn ten_states(home: &SimIndexHome, flush_after: usize) -> Vec<Vec<IndexEntry>> {
    let mut index = home.open().unwrap();
    let mut states = vec![Vec::new()];
    for step in 1..=10u8 {
        let keys: Vec<[u8; 2]> = (0..20).map(|at| [at, step % 3]).collect();
        let changes: Vec<_> = keys.iter().map(|key| put(key, std::slice::from_ref(&step))).collect();
        index.apply(&changes, stamp(u64::from(step))).unwrap();
        states.push(entries(&mut index));
        if usize::from(step) == flush_after {
            index.flush().unwrap();
        }
    }
    states
}

#[test]
fn simulated_crash_shows_a_stamp_and_all_up_to_it() {
    let (mut shown, mut beyond) = (std::collections::BTreeSet::new(), 0);
    for count in 0..40 {
        let home = SimIndexHome::default();
        let states = ten_states(&home, 4);
        home.crash(IndexOutcome::Prefix(count));
        let mut index = home.open().unwrap();
        let at = index.stamp().unwrap().map_or(0, |stamp| stamp.lsn.get()) as usize;
        assert!(at >= 4, "what was flushed is there");
        shown.insert(at);
        let found = entries(&mut index);
        let next = states.get(at + 1);
        for (key, value) in &found {
            let is_beyond = !states[at].contains(&(key.clone(), value.clone()));
            assert!(!is_beyond || next.is_some_and(|next| next.contains(&(key.clone(), value.clone()))));
            beyond += usize::from(is_beyond);
        }
        assert!(states[at].iter().all(|(key, _)| found.iter().any(|(other, _)| key == other)), "none is missing");
    }
    assert_eq!(shown, (4..=10).collect());
    assert!(beyond > 0, "a crash comes between the batches of an apply, too");
}

#[test]
fn simulated_garbage_is_a_fault_or_a_stamp_that_does_not_count() {
    let after = |outcome| {
        let home = SimIndexHome::default();
        ten_states(&home, 10);
        home.crash(outcome);
        (home.open(), home)
    };
    let (refused, home) = after(IndexOutcome::Refuses);
    assert!(matches!(refused.map(drop), Err(IndexError::Fault { .. })));
    home.discard().unwrap();
    assert_eq!(home.open().unwrap().stamp().unwrap(), None);
    let (index, _) = after(IndexOutcome::FailsAfter(2));
    let mut index = index.unwrap();
    assert!(index.stamp().is_ok() && index.get(b"a").is_ok() && index.stamp().is_err() && index.get(b"a").is_err());
    let (index, _) = after(IndexOutcome::OtherInstance);
    assert_ne!(index.unwrap().stamp().unwrap().unwrap().instance, stamp(10).instance);
    let (index, _) = after(IndexOutcome::Ahead(8));
    assert_eq!(index.unwrap().stamp().unwrap(), Some(stamp(18)));
    let (index, _) = after(IndexOutcome::Empty);
    assert_eq!(index.unwrap().stamp().unwrap(), None);
    let (index, _) = after(IndexOutcome::Damaged([1, 0]));
    let mut index = index.unwrap();
    assert!(index.stamp().is_ok() && index.get(&[0, 0]).is_ok());
    let error = index.get(&[1, 0]).unwrap_err();
    assert!(error.to_string().contains("checksum"), "{error}");
    assert_eq!(index.stamp().unwrap_err(), error, "after a fault it is not asked again");
    let (index, _) = after(IndexOutcome::Damaged([0xFF, 0xFF]));
    assert!(index.unwrap().stamp().is_err(), "behind the last key comes the stamp");
}

#[test]
fn dead_process_has_no_index_any_more() {
    let home = SimIndexHome::default();
    let mut old = home.open().unwrap();
    assert!(home.open().is_err() && home.discard().is_err(), "one at a time");
    home.crash(IndexOutcome::Prefix(0));
    let mut new = home.open().unwrap();
    assert!(old.apply(&[put(b"a", b"1")], stamp(8)).is_err());
    drop(old);
    assert_eq!((entries(&mut new), home.open().is_err()), (vec![], true), "what the dead one drops changes nothing");
}

#[test]
fn every_outcome_is_drawn() {
    let mut rng = Rng::new(1);
    let drawn: std::collections::HashSet<_> =
        (0..500).map(|_| std::mem::discriminant(&IndexOutcome::drawn(rng.next_u64()))).collect();
    assert_eq!(drawn.len(), 8);
}
