//! The index as the store uses it: an engine of somebody else behind checks, so that whatever it does is an answer or a fault.
//!
//! Every call of an engine runs under `catch_unwind`. A build with `panic = "abort"` has no such net: there an engine that
//! panics on damaged files ends the process. In a forked child the engine is neither called nor dropped, because its threads
//! are the parent's and any of its locks may be held for ever; the child forgets it. Never here: which engine it is.

use super::{
    Direction, INDEX_KEY_LEN_MAX, INDEX_VALUE_LEN_MAX, IndexChange, IndexEngine, IndexEntry, IndexError, IndexStamp,
    KeyRange, STAMP_KEY,
};
use crate::disk::ForkSentinel;
use crate::ids::{Epoch, Lsn};
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};

const CHECKSUM_LEN: usize = 4;

/// An open index. Dropping it closes it.
pub(crate) struct DerivedIndex {
    name: &'static str,
    /// Taken when it is closed.
    engine: Option<Box<dyn IndexEngine>>,
    /// What ended it.
    fault: Option<IndexError>,
    sentinel: ForkSentinel,
}

impl DerivedIndex {
    /// Guards what `open` returns.
    pub(super) fn open(
        name: &'static str,
        open: impl FnOnce() -> Result<Box<dyn IndexEngine>, IndexError>,
    ) -> Result<Self, IndexError> {
        let sentinel = ForkSentinel::new().map_err(|error| {
            IndexError::fault(name, format_args!("could not map a page to recognize forks by: {error}"))
        })?;
        let engine = caught(name, open)?;
        Ok(Self { name, engine: Some(engine), fault: None, sentinel })
    }

    /// The end of the log that the entries follow. `None`: nothing was ever applied, and there may be entries beyond it.
    pub(crate) fn stamp(&mut self) -> Result<Option<IndexStamp>, IndexError> {
        let stored = self.call(|engine| engine.get(STAMP_KEY)?.map(|value| unsealed(STAMP_KEY, value)).transpose())?;
        stored.map(|bytes| decoded(&bytes)).transpose().map_err(|text| self.failed(text))
    }

    /// The value of a key.
    #[cfg(test)]
    pub(crate) fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.check(key, None)?;
        self.call(|engine| engine.get(key)?.map(|value| unsealed(key, value)).transpose())
    }

    /// The first entries of the range in the order of `direction`, at most `entries_max`.
    pub(crate) fn scan(
        &mut self,
        range: KeyRange<'_>,
        direction: Direction,
        entries_max: usize,
    ) -> Result<Vec<IndexEntry>, IndexError> {
        let range = above_stamp(range);
        self.call(|engine| {
            let mut found = Vec::new();
            if entries_max == 0 || !has_key(range) {
                return Ok(found);
            }
            engine.scan(range, direction, entries_max, &mut found)?;
            if found.len() > entries_max || !is_in_order(&found, range, direction) {
                return Err("keys of a scan are out of order or out of range".into());
            }
            found.into_iter().map(|(key, value)| unsealed(&key, value).map(|value| (key, value))).collect()
        })
    }

    /// Makes the changes in their order, and moves the stamp. On an error any first part of the changes may have been made,
    /// and the stamp has not moved; a crash before the next flush may leave the same.
    pub(crate) fn apply(&mut self, changes: &[IndexChange<'_>], stamp: IndexStamp) -> Result<(), IndexError> {
        for change in changes {
            self.check(change.key, change.value)?;
        }
        let stamp = encoded(stamp);
        let stamp = IndexChange { key: STAMP_KEY, value: Some(&stamp) };
        let all = || changes.iter().chain([&stamp]);
        let mut bytes = Vec::with_capacity(all().filter_map(|change| change.value).map(sealed_len).sum());
        all().for_each(|change| seal(change, &mut bytes));
        let mut rest = bytes.as_slice();
        let sealed: Vec<_> = all()
            .map(|&IndexChange { key, value }| {
                let value = value.map(|value| rest.split_off(..sealed_len(value)).unwrap_or_default());
                IndexChange { key, value }
            })
            .collect();
        self.call(|engine| Ok(sealed.chunks(engine.batch_len_max()).try_for_each(|batch| engine.apply(batch))?))
    }

    /// Makes the stamp, and all that was applied up to it, survive a power failure. Takes as long as a sync of the disk.
    ///
    /// Some engines keep everything since the last flush in memory, so call it now and then, off the hot path.
    pub(crate) fn flush(&mut self) -> Result<(), IndexError> {
        self.call(|engine| Ok(engine.flush()?))
    }

    /// Closes it as a drop does, and says what went wrong. Nothing is lost that could not be filled again.
    pub(crate) fn close(mut self) -> Result<(), IndexError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), IndexError> {
        let Some(engine) = self.engine.take() else { return Ok(()) };
        if self.sentinel.is_forked() {
            std::mem::forget(engine);
            return Err(self.forked());
        }
        caught(self.name, || engine.close())
    }

    /// Calls the engine, and never again after a fault.
    fn call<T>(&mut self, work: impl FnOnce(&mut dyn IndexEngine) -> Result<T, Trouble>) -> Result<T, IndexError> {
        if self.sentinel.is_forked() {
            return Err(self.forked());
        }
        let (None, Some(engine)) = (&self.fault, &mut self.engine) else {
            return Err(self.fault.clone().unwrap_or_else(|| IndexError::fault(self.name, "is closed")));
        };
        let engine = engine.as_mut();
        let result = caught(self.name, || match work(engine) {
            Err(Trouble::Engine(error)) => Err(error),
            Err(Trouble::Answer(text)) => Ok(Err(text)),
            Ok(value) => Ok(Ok(value)),
        });
        match result {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(text)) => Err(self.failed(text)),
            Err(error) => {
                if matches!(error, IndexError::Fault { .. }) {
                    self.fault = Some(error.clone());
                }
                Err(error)
            }
        }
    }

    /// The fault of an engine whose answer is wrong.
    pub(crate) fn failed(&mut self, text: &str) -> IndexError {
        let error = IndexError::fault(self.name, text);
        self.fault = Some(error.clone());
        error
    }

    fn forked(&self) -> IndexError {
        IndexError::fault(self.name, "was opened before a fork; open it in the process that uses it")
    }

    /// The bounds that every caller keeps.
    fn check(&self, key: &[u8], value: Option<&[u8]>) -> Result<(), IndexError> {
        let value_len = value.map_or(0, <[u8]>::len);
        if (1..=INDEX_KEY_LEN_MAX).contains(&key.len()) && value_len <= INDEX_VALUE_LEN_MAX {
            return Ok(());
        }
        let text = format_args!(
            "internal error: a key of {} bytes with a value of {value_len} bytes; please report this",
            key.len()
        );
        Err(IndexError::fault(self.name, text))
    }
}

impl Drop for DerivedIndex {
    fn drop(&mut self) {
        // What a close could not write can be filled again.
        let _ = self.end();
    }
}

/// What went wrong in a call: the engine said so, or its answer does.
enum Trouble {
    Engine(IndexError),
    Answer(&'static str),
}

impl From<IndexError> for Trouble {
    fn from(error: IndexError) -> Self {
        Self::Engine(error)
    }
}

impl From<&'static str> for Trouble {
    fn from(text: &'static str) -> Self {
        Self::Answer(text)
    }
}

/// Runs `work`; a panic in it is a fault.
pub(super) fn caught<T>(name: &'static str, work: impl FnOnce() -> Result<T, IndexError>) -> Result<T, IndexError> {
    // What a panic leaves half done is not looked at again.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
            (Some(text), _) => text,
            (_, Some(text)) => text.as_str(),
            (None, None) => "no message",
        };
        Err(IndexError::fault(name, format_args!("panicked: {text}")))
    })
}

const fn sealed_len(value: &[u8]) -> usize {
    value.len() + CHECKSUM_LEN
}

/// Appends what the engine stores for a change: the value and its checksum.
pub(super) fn seal(change: &IndexChange<'_>, out: &mut Vec<u8>) {
    if let Some(value) = change.value {
        out.extend_from_slice(value);
        out.extend_from_slice(&checksum(change.key, value).to_le_bytes());
    }
}

/// The value, if it is what was stored under this key.
fn unsealed(key: &[u8], mut stored: Vec<u8>) -> Result<Vec<u8>, Trouble> {
    let (value, sum) = stored.split_last_chunk::<CHECKSUM_LEN>().ok_or("an entry is shorter than its checksum")?;
    if checksum(key, value) != u32::from_le_bytes(*sum) {
        return Err("an entry does not match its checksum".into());
    }
    stored.truncate(stored.len() - CHECKSUM_LEN);
    Ok(stored)
}

fn checksum(key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    // The length keeps a byte from moving between key and value.
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    hasher.finalize()
}

const STAMP_LEN: usize = 32;

pub(super) fn encoded(stamp: IndexStamp) -> [u8; STAMP_LEN] {
    let mut bytes = [0; STAMP_LEN];
    bytes[..16].copy_from_slice(&stamp.instance);
    bytes[16..24].copy_from_slice(&stamp.epoch.get().to_le_bytes());
    bytes[24..].copy_from_slice(&stamp.lsn.get().to_le_bytes());
    bytes
}

fn decoded(bytes: &[u8]) -> Result<IndexStamp, &'static str> {
    let bytes = <&[u8; STAMP_LEN]>::try_from(bytes).map_err(|_| "the stamp has another length")?;
    let (instance, rest) = bytes.split_first_chunk().ok_or("the stamp has another length")?;
    let (epoch, rest) = rest.split_first_chunk().ok_or("the stamp has another length")?;
    let (lsn, _) = rest.split_first_chunk().ok_or("the stamp has another length")?;
    let (epoch, lsn) = (Epoch(u64::from_le_bytes(*epoch)), Lsn(u64::from_le_bytes(*lsn)));
    Ok(IndexStamp { instance: *instance, epoch, lsn })
}

/// The range without the key of the stamp.
fn above_stamp((from, to): KeyRange<'_>) -> KeyRange<'_> {
    match from {
        Bound::Unbounded | Bound::Included(STAMP_KEY) => (Bound::Excluded(STAMP_KEY), to),
        Bound::Included(_) | Bound::Excluded(_) => (from, to),
    }
}

/// Whether any key could be in the range.
fn has_key(range: KeyRange<'_>) -> bool {
    match range {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => true,
        (Bound::Included(from), Bound::Included(to)) => from <= to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => from < to,
    }
}

fn is_in_order(found: &[IndexEntry], range: KeyRange<'_>, direction: Direction) -> bool {
    let is_in_range = |(key, _): &IndexEntry| std::ops::RangeBounds::<[u8]>::contains(&range, key.as_slice());
    let follows = |pair: &[IndexEntry]| match direction {
        Direction::Ascending => pair[0].0 < pair[1].0,
        Direction::Descending => pair[0].0 > pair[1].0,
    };
    found.iter().all(is_in_range) && found.windows(2).all(follows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::in_child;
    use crate::index::{IndexDirectory, IndexHome, IndexKind};
    use std::sync::Mutex;

    /// What a bad engine does.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Badness {
        Panics,
        PanicsAtClose,
        ReturnsTooMany,
        ReturnsOutOfRange,
        ReturnsOutOfOrder,
        ReturnsOtherBytes,
        ReturnsTooFewBytes,
    }

    struct BadEngine(Badness);

    fn sealed(key: &[u8], value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        seal(&IndexChange { key, value: Some(value) }, &mut bytes);
        bytes
    }

    impl IndexEngine for BadEngine {
        fn get(&mut self, _: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
            match self.0 {
                Badness::Panics => panic!("at {}", 5),
                Badness::ReturnsTooFewBytes => Ok(Some(vec![0; 3])),
                Badness::ReturnsOtherBytes => Ok(Some(sealed(b"another key", b"value"))),
                _ => Ok(None),
            }
        }

        fn scan(
            &mut self,
            _: KeyRange<'_>,
            _: Direction,
            entries_max: usize,
            out: &mut Vec<IndexEntry>,
        ) -> Result<(), IndexError> {
            let keys = match self.0 {
                Badness::Panics => panic!("at {}", 5),
                Badness::ReturnsTooMany => ["b", "c", "d"].iter().cycle().take(entries_max + 1).collect(),
                Badness::ReturnsOutOfRange => vec![&"b", &"x"],
                Badness::ReturnsOutOfOrder => vec![&"c", &"b"],
                _ => vec![&"b", &"c"],
            };
            out.extend(keys.into_iter().map(|key| (key.as_bytes().to_vec(), sealed(key.as_bytes(), b"value"))));
            Ok(())
        }

        fn apply(&mut self, _: &[IndexChange<'_>]) -> Result<(), IndexError> {
            self.flush()
        }

        fn flush(&mut self) -> Result<(), IndexError> {
            if self.0 == Badness::Panics { panic!("at {}", 5) } else { Ok(()) }
        }

        fn close(self: Box<Self>) -> Result<(), IndexError> {
            if self.0 == Badness::PanicsAtClose { panic!("when closed") } else { Ok(()) }
        }
    }

    impl Drop for BadEngine {
        fn drop(&mut self) {
            if self.0 == Badness::Panics && !std::thread::panicking() {
                panic!("when dropped");
            }
        }
    }

    fn bad(badness: Badness) -> DerivedIndex {
        DerivedIndex::open("bad", || Ok(Box::new(BadEngine(badness)))).unwrap()
    }

    fn scan(index: &mut DerivedIndex) -> Result<Vec<IndexEntry>, IndexError> {
        index.scan((Bound::Included(b"b"), Bound::Included(b"d")), Direction::Ascending, 2)
    }

    const STAMP: IndexStamp = IndexStamp { instance: [1; 16], epoch: Epoch(1 << 32), lsn: Lsn(8) };

    #[test]
    fn panicking_engine_is_a_fault_and_is_not_called_again() {
        type Call = fn(&mut DerivedIndex) -> Result<(), IndexError>;
        let calls: [Call; 5] = [
            |index| index.stamp().map(drop),
            |index| index.get(b"a").map(drop),
            |index| scan(index).map(drop),
            |index| index.apply(&[], STAMP),
            DerivedIndex::flush,
        ];
        for first in calls {
            let mut index = bad(Badness::Panics);
            let fault = IndexError::fault("bad", "panicked: at 5");
            assert_eq!(first(&mut index), Err(fault.clone()));
            std::mem::forget(index.engine.replace(Box::new(BadEngine(Badness::PanicsAtClose))));
            calls.iter().for_each(|call| assert_eq!(call(&mut index), Err(fault.clone())));
        }
        assert!(bad(Badness::PanicsAtClose).close().is_err() && bad(Badness::Panics).close().is_err());
        let refused = DerivedIndex::open("bad", || panic!("when opened")).map(drop);
        assert_eq!(refused, Err(IndexError::fault("bad", "panicked: when opened")));
    }

    #[test]
    fn wrong_answers_are_faults() {
        for badness in [Badness::ReturnsTooMany, Badness::ReturnsOutOfRange, Badness::ReturnsOutOfOrder] {
            let mut index = bad(badness);
            let fault = scan(&mut index);
            assert!(fault.is_err(), "{badness:?}");
            assert_eq!(index.stamp().map(drop), fault.map(drop), "{badness:?}");
        }
        for badness in [Badness::ReturnsOtherBytes, Badness::ReturnsTooFewBytes] {
            let mut index = bad(badness);
            assert!(index.get(b"a").is_err() && index.flush().is_err(), "{badness:?}");
            assert!(bad(badness).stamp().is_err(), "{badness:?}");
        }
        assert_eq!(scan(&mut bad(Badness::PanicsAtClose)).unwrap().len(), 2, "nothing is wrong there");
    }

    #[test]
    fn stamp_of_another_length_is_a_fault() {
        assert_eq!(decoded(&encoded(STAMP)), Ok(STAMP));
        assert!(decoded(&[0; 31]).is_err() && decoded(&[0; 33]).is_err());
    }

    #[test]
    fn forked_child_forgets_its_index() {
        let kinds = [
            IndexKind::Memory { entries_max: 9 },
            #[cfg(feature = "sled")]
            IndexKind::Sled,
            #[cfg(feature = "redb")]
            IndexKind::Redb,
        ];
        for kind in kinds {
            let folder = tempfile::tempdir().unwrap();
            let [home, other] = ["index", "other"].map(|name| IndexDirectory::new(kind, folder.path().join(name)));
            let mut index = home.open().unwrap();
            index.apply(&[IndexChange { key: b"a", value: Some(b"1") }], STAMP).unwrap();
            let shared = std::sync::Arc::new(Mutex::new(Some(index)));
            let childs = std::sync::Arc::clone(&shared);
            assert!(in_child(move || {
                let mut index = childs.lock().unwrap().take().unwrap();
                let refused =
                    [index.stamp().map(drop), index.get(b"a").map(drop), index.flush(), index.apply(&[], STAMP)];
                refused.iter().all(Result::is_err) && index.close().is_err()
            }));
            // Its threads are the parent's, so only sled is refused in the child.
            let opens = in_child(move || other.open().is_ok_and(|mut index| index.apply(&[], STAMP).is_ok()));
            assert_eq!(opens, !format!("{kind:?}").contains("Sled"), "{kind:?}");
            let mut index = shared.lock().unwrap().take().unwrap();
            assert_eq!(index.get(b"a").unwrap().as_deref(), Some(b"1".as_slice()), "{kind:?}");
            index.close().unwrap();
        }
    }

    #[test]
    fn index_may_move_to_another_thread() {
        fn is_send<T: Send>() {}
        is_send::<DerivedIndex>();
    }
}
