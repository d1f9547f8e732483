//! Whole stores: a rich one of which one file was changed, and directories of any files.
//!
//! Opened read-write, read to the end, written to, closed, opened again. Never here: content that a forged checksum
//! promises; nothing can be said about that but that it does no harm.

use super::rich::{self, Rich};
use crate::api::{Durability, Store};
use crate::clock::SimClock;
use crate::disk::LOCK_NAME;
use crate::disk::sim::{Rng, SimDisk};
use crate::error::{Error, Result};
use crate::ids::{MessageId, WallMs};
use crate::log::fuzzing::seeds::Seeds;
use crate::log::fuzzing::{Take, UNSEALED, bounded, seal};
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The most files of a directory.
const FILES_MAX: usize = 24;

/// Makes the checksums of a store's file agree with its bytes, and says that it is of this store.
///
/// # Errors
/// What of it is not there.
pub fn seal(disk: &SimDisk, name: &str) -> std::result::Result<(), &'static str> {
    let store = disk.read_file(LOCK_NAME).ok_or("there is no store")?;
    let uuid = store.get(24..40).and_then(|uuid| uuid.try_into().ok()).ok_or("the store has no identity")?;
    let mut bytes = disk.read_file(name).ok_or("there is no such file")?;
    seal::file(name, &mut bytes, &uuid);
    disk.write_file(name, &bytes);
    Ok(())
}

/// A change of some places in one file of a rich store. With checksums as they are, what opens has the content that it had.
pub fn segment(data: &[u8]) -> bool {
    static MADE: OnceLock<(Rich, Vec<u8>)> = OnceLock::new();
    let (made, identity) = MADE.get_or_init(|| {
        let made = rich::rich(7);
        let identity = made.closed.read_file(LOCK_NAME).map(|bytes| bytes[24..40].to_vec());
        (made, identity.unwrap())
    });
    let mut take = Take::new(data);
    let flags = take.byte();
    let closed = flags & 2 == 0;
    let disk = if closed { made.closed.snapshot() } else { made.unclosed.snapshot() };
    let files = disk.files();
    let name = &files[usize::from(take.byte()) % files.len()].name;
    let mut bytes = disk.read_file(name).unwrap();
    let whole = bytes.clone();
    for _ in 0..16 {
        if take.is_empty() {
            break;
        }
        change(&mut bytes, &mut take);
    }
    let forged = flags & UNSEALED == 0;
    if forged {
        seal::file(name, &mut bytes, identity.as_slice().try_into().unwrap());
    }
    disk.write_file(name, &bytes);
    let (before, len) = (disk.requests(), total(&disk));
    let told = exercise(&disk);
    bounded(&disk, before, len);
    if closed && !forged {
        let expected = WHOLE.get_or_init(|| exercise(&made.closed.snapshot()).unwrap());
        told.iter().for_each(|found| found.assert_same_or_told(expected, name));
    }
    told.is_ok() && bytes != whole
}

static WHOLE: OnceLock<StoreContents> = OnceLock::new();

fn total(disk: &SimDisk) -> usize {
    disk.files().iter().map(|file| file.len as usize).sum()
}

/// One change, of the next bytes of the input.
fn change(bytes: &mut Vec<u8>, take: &mut Take<'_>) {
    let (how, place, value) = (take.byte(), take.short(), take.byte());
    let at = if bytes.is_empty() { 0 } else { place % bytes.len() };
    let rest = bytes.len() - at;
    match how % 9 {
        0 | 1 if rest > 0 => bytes[at] ^= 1 << (value & 7),
        2 if rest > 0 => bytes[at] = value,
        3 if rest >= 4 => bytes[at..at + 4].copy_from_slice(&u32::MAX.wrapping_shl(u32::from(value)).to_le_bytes()),
        4 if rest >= 8 => {
            bytes[at..at + 8].copy_from_slice(&(1u64 << (value & 63)).wrapping_sub(u64::from(value >> 6)).to_le_bytes())
        }
        5 => bytes[at..at + rest.min(usize::from(value))].fill(0),
        6 => bytes.truncate(at),
        7 => bytes.resize(bytes.len() + usize::from(value) * 8, value),
        8 if rest > 0 => {
            let from = usize::from(value) * 64 % bytes.len();
            let len = 64.min(rest).min(bytes.len() - from);
            bytes.copy_within(from..from + len, at);
        }
        _ => {}
    }
}

/// A list of files. They open and take everything that a store takes, or there is a typed error.
pub fn directory(data: &[u8]) -> bool {
    let disk = directory_disk(data);
    let (before, len) = (disk.requests(), total(&disk));
    let found = exercise(&disk);
    bounded(&disk, before, len);
    found.is_ok_and(|found| found.end > 0)
}

/// A machine with the files that an input of [`directory`] stands for.
#[must_use]
pub fn directory_disk(data: &[u8]) -> SimDisk {
    let mut take = Take::new(data);
    let flags = take.byte();
    let disk = SimDisk::new(u64::from(flags));
    for _ in 0..FILES_MAX {
        if take.is_empty() {
            break;
        }
        let (name, mut bytes) = next_file(&mut take);
        if flags & UNSEALED == 0 {
            seal::file(&name, &mut bytes, &seal::UUID);
        }
        disk.write_file(&name, &bytes);
    }
    disk
}

/// What of `STORE` is not zero, and where it stands: the identity, and of each slot the fields and the check.
const STORE_PIECES: [(Range<usize>, usize); 5] =
    [(0..44, 0), (44..140, 4096), (140..144, 4604), (144..240, 8192), (240..244, 8700)];

/// A byte for the kind, one for the number, the length, how many times 512 zeros follow, and the content. Of `STORE` only what
/// may be there: identity and slots.
fn next_file(take: &mut Take<'_>) -> (String, Vec<u8>) {
    let (kind, number, len, zeros) = (take.byte(), take.byte(), take.short(), take.byte());
    let mut bytes = take.bytes(len).to_vec();
    let name = match kind % 7 {
        0 => {
            let mut store = vec![0; 16 << 10];
            for (piece, at) in STORE_PIECES {
                let piece = bytes.get(piece.start..piece.end.min(bytes.len())).unwrap_or(&[]);
                store[at..at + piece.len()].copy_from_slice(piece);
            }
            return (LOCK_NAME.to_owned(), store);
        }
        1 => format!("{number:016x}.seg"),
        2 => format!("{number:016x}.ckp"),
        3 => format!("{number:016x}.idx"),
        5 => format!("{number:016x}.msg"),
        6 => format!("{number:016x}.dead"),
        _ => format!("stray-{number}"),
    };
    bytes.resize(bytes.len() + usize::from(zeros) * 512, 0);
    (name, bytes)
}

/// What a store gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct StoreContents {
    end: u64,
    hash: u64,
    /// Of all messages that could be read, in the order of their ids.
    messages: Vec<String>,
    /// Errors instead of messages.
    unreadable: usize,
}

impl StoreContents {
    /// The same as `whole`, or errors for all that is missing.
    fn assert_same_or_told(&self, whole: &Self, what: &str) {
        let missing: Vec<_> = whole.messages.iter().filter(|message| !self.messages.contains(message)).collect();
        let more: Vec<_> = self.messages.iter().filter(|message| !whole.messages.contains(message)).collect();
        assert!(more.is_empty(), "{what}: {more:?} instead of {missing:?}");
        assert!(missing.len() <= self.unreadable, "{what}: {} errors, and {missing:?} missing", self.unreadable);
        assert_eq!(self.hash, whole.hash, "{what}: another state");
    }
}

fn shown(id: MessageId, key: Option<&[u8]>, payload: &[u8]) -> String {
    format!("{id} {key:?} {}", String::from_utf8_lossy(payload))
}

/// Opens, reads everything, publishes, closes, opens again.
fn exercise(disk: &SimDisk) -> Result<StoreContents> {
    let clock = Arc::new(SimClock::new(WallMs(1_900_000_000_000)));
    let store = typed(rich::open(disk, &clock, Durability::Os))?;
    let violations = store.violations();
    assert!(violations.is_empty(), "{violations:?}");
    let report = store.report().clone();
    let mut found = StoreContents { end: report.end.0, hash: report.state_hash, ..StoreContents::default() };
    let used = typed(read(&store, &mut found).and_then(|()| store.tick()));
    found.messages.sort_unstable();
    let violations = store.violations();
    assert!(violations.is_empty(), "{violations:?}");
    // A process that appended nothing leaves everything as it was.
    let appended = matches!(store.state_hash(), Ok(Some(_)));
    let closed = typed(store.close());
    drop(store);
    if let (Ok(()), Ok(())) = (used, closed) {
        let again = rich::open(disk, &clock, Durability::Disk);
        let again = again.unwrap_or_else(|error| panic!("a store that was closed does not open: {error}"));
        let clean = again.report().was_clean && again.report().dropped.is_none();
        assert!((clean || !appended) && again.report().end >= report.end, "{:?}", again.report());
    }
    Ok(found)
}

/// No fault was planned, so the disk does what it is asked.
fn typed<T>(result: Result<T>) -> Result<T> {
    if let Err(error) = &result {
        assert!(!error.to_string().is_empty());
        assert!(!matches!(error, Error::Io { .. } | Error::DiskFull | Error::OutcomeUnknown { .. }), "{error}");
    }
    result
}

/// Every message of the first topics through a group of its own, the dead letters of all groups, and a message more.
fn read(store: &Store, found: &mut StoreContents) -> Result<()> {
    const GROUPS_MAX: usize = 8;
    let stats = store.stats()?;
    for stats in stats.topics.iter().take(4) {
        let topic = store.topic(&stats.name).open()?;
        let reader = topic.group("a reader of the fuzz target").max_attempts(0).open()?;
        for _ in 0..64 {
            match reader.receive_batch(64, Duration::ZERO) {
                Ok(batch) if batch.is_empty() && batch.unreadable().is_empty() => break,
                Ok(batch) => {
                    found.unreadable += batch.unreadable().len();
                    batch.iter().for_each(|delivery| {
                        found.messages.push(shown(delivery.id(), delivery.key(), delivery.payload()));
                    });
                    let _lost = batch.ack()?;
                }
                Err(Error::Unreadable { .. }) => found.unreadable += 1,
                Err(error) => return Err(error),
            }
        }
        for group in stats.groups.iter().take(GROUPS_MAX) {
            let group = topic.group(&group.name).open()?;
            for dead_letter in group.dead_letters()?.take(64) {
                match dead_letter {
                    Ok(dead_letter) => {
                        found.messages.push(shown(dead_letter.id(), dead_letter.key(), dead_letter.payload()))
                    }
                    Err(Error::Unreadable { .. }) => found.unreadable += 1,
                    Err(error) => return Err(error),
                }
            }
            // What is exhausted becomes a dead letter now; which one depends on what can be read.
            match group.receive_batch(3, Duration::ZERO) {
                Ok(batch) => found.unreadable += batch.unreadable().len(),
                Err(Error::Unreadable { .. }) => found.unreadable += 1,
                Err(error) => return Err(error),
            }
        }
        topic.publish("one more")?;
    }
    Ok(())
}

/// A directory's files as an input of [`directory`].
fn encode_directory(disk: &SimDisk) -> Option<Vec<u8>> {
    let mut out = vec![0];
    for file in disk.files() {
        let bytes = disk.read_file(&file.name)?;
        let (kind, number, content) = match file.name.split_once('.') {
            None => (0, 0, STORE_PIECES.map(|(piece, at)| &bytes[at..at + piece.len()]).concat()),
            Some((number, suffix)) => {
                let kinds = [("seg", 1), ("ckp", 2), ("idx", 3), ("msg", 5), ("dead", 6)];
                let kind = kinds.iter().find(|(name, _)| *name == suffix)?.1;
                let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                let zeros = (bytes.len() - used) / 512 * 512;
                (kind, u8::from_str_radix(number, 16).ok()?, bytes[..bytes.len() - zeros].to_vec())
            }
        };
        let zeros = if kind == 0 { 0 } else { (bytes.len() - content.len()) / 512 };
        out.extend([kind, number]);
        out.extend(u16::try_from(content.len()).ok()?.to_le_bytes());
        out.push(u8::try_from(zeros).ok()?);
        out.extend(content);
    }
    Some(out)
}

pub(super) fn seeds() -> Seeds {
    let mut seeds: Seeds = Vec::new();
    let made = rich::rich(7);
    for (index, disk) in made.older.iter().take(4).chain([&made.unclosed]).enumerate() {
        // Big stores are of no use to a fuzzer.
        seeds.extend(encode_directory(disk).map(|bytes| ("directory", format!("rich-{index}"), bytes)));
    }
    seeds.push(("directory", "new".to_owned(), vec![0]));
    seeds.push(("directory", "stray".to_owned(), vec![1, 4, 1, 3, 0, 0, b'a', b'b', b'c']));
    let small = SimDisk::new(9);
    let clock = Arc::new(SimClock::new(WallMs(1_800_000_000_000)));
    for life in 0..3 {
        let store = rich::open(&small, &clock, Durability::Os).unwrap();
        let topic = store.topic("t").open().unwrap();
        let group = topic.group("g").open().unwrap();
        topic.publish(format!("payload {life}")).unwrap();
        let taken = group.receive(Duration::ZERO).unwrap();
        seeds.extend(encode_directory(&small).map(|bytes| ("directory", format!("small-{life}-open"), bytes)));
        drop(taken);
        store.close().unwrap();
        seeds.extend(encode_directory(&small).map(|bytes| ("directory", format!("small-{life}-closed"), bytes)));
    }
    for (name, unlinked) in [("cleaned", true), ("linked", false)] {
        let disk = made.closed.snapshot();
        if super::clean(&disk, unlinked).is_some() {
            seeds.extend(encode_directory(&disk).map(|bytes| ("directory", name.to_owned(), bytes)));
        }
    }
    let mut rng = Rng::new(1);
    for file in 0..made.closed.files().len() as u8 {
        for flags in 0..4 {
            let changes: Vec<u8> = (0..8).map(|_| rng.next_u64() as u8).collect();
            seeds.push(("segment", format!("{file:02}-{flags}"), [&[flags, file], &changes[..]].concat()));
        }
    }
    seeds
}
