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
    fn failed(&mut self, text: &str) -> IndexError {
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
