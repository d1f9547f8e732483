//! Puts files of classes in the place of segments, as a cleaner will: what is settled is left out.
//!
//! Never here: anything that a library without the simulation has.

use crate::disk::Disk;
use crate::disk::sim::SimDisk;
use crate::ids::{Offset, PartitionId};
use crate::log::fuzzing::whole::WholeFile;
use crate::log::{Class, Frame, ReadError, Segment, Settings};
use crate::record::{OffsetClaim, Record, codec};
use crate::state::{Role, State};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The files have the numbers above this one, which no other file has.
const NUMBER: u64 = 0xf0;

/// What was put in the place of segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cleaned {
    /// The names of the segments.
    pub segments: Vec<String>,
    /// The names of a file of messages and one of dead letters.
    pub files: [String; 2],
    /// How many messages were kept, and how many dead letters.
    pub kept: [usize; 2],
}

/// What of the messages of a store is not settled.
struct Live {
    state: State,
    dead_letters: BTreeSet<(PartitionId, Offset)>,
}

impl Live {
    fn of(state: State) -> Self {
        let dead_letters = state.groups().flat_map(|(id, group)| {
            let unsettled = state.dead_letters(id, Offset(0), usize::MAX);
            unsettled.into_iter().map(|offset| (group.dead(), offset))
        });
        let dead_letters = dead_letters.collect();
        Self { state, dead_letters }
    }

    /// Whether a message is kept in the file of `class`.
    fn keeps(&self, class: Class, partition: PartitionId, offset: Offset) -> bool {
        match (self.state.partition_role(partition), class) {
            (
                Some(Role::Topic { .. } | Role::Retry { .. } | Role::Notes { .. } | Role::Schedule { .. }),
                Class::Messages,
            ) => offset >= self.state.settled_before(partition),
            (Some(Role::Dead { .. }), Class::DeadLetters) => self.dead_letters.contains(&(partition, offset)),
            _ => false,
        }
    }

    /// The records and parts of a frame that are kept in the file of `class`.
    fn of_frame<'a>(&self, class: Class, frame: &Frame<'a>) -> (Vec<Record>, Vec<&'a [u8]>) {
        let (mut records, mut parts, mut part) = (Vec::new(), Vec::new(), 0u32);
        let records_of = codec::decode(frame.head()).map_while(Result::ok);
        for record in records_of.take_while(|_| !frame.is_log()) {
            let Some(OffsetClaim { partition, first, count, .. }) = record.claim() else { continue };
            for nth in 0..count {
                let offset = first.saturating_add(nth.into());
                if self.keeps(class, partition, offset) {
                    let mut kept = record.clone();
                    if let Record::Published { base, count, .. } = &mut kept {
                        (*base, *count) = (offset, 1);
                    }
                    if let Record::Appended { base, count, version, .. } = &mut kept {
                        (*base, *count, *version) = (offset, 1, version.saturating_add(nth.into()));
                    }
                    records.push(kept);
                    parts.extend(frame.part(part + nth));
                }
            }
            part += count;
        }
        (records, parts)
    }
}

/// Puts a file of each class in the place of the segments of a closed store that lie wholly below its older checkpoint. Those are
/// removed where `unlinked`. `None` where there are none.
#[must_use]
pub fn clean(disk: &SimDisk, unlinked: bool) -> Option<Cleaned> {
    let access = crate::disk::Access::SyncOften;
    let settings = Settings { segment_len_first: 65_536, segment_len_max: 65_536, access };
    let handle: Arc<dyn Disk> = Arc::new(disk.attach().unwrap());
    let uuid = disk.read_file("STORE")?[24..40].try_into().ok()?;
    let mut log = crate::log::open(Arc::clone(&handle), settings).unwrap();
    let [older, _] = log.file_manager.checkpoints() else { return None };
    let (horizon, live) = (older.covers, Live::of(State::decode(&log.contents.checkpoint.as_ref()?.state).unwrap()));
    let below = log.contents.catalog.segments().iter().filter(|segment| segment.end() <= horizon);
    let segments: Vec<Arc<Segment>> = below.map(Arc::clone).collect();
    let range = (segments.first()?.base(), segments.last()?.end());
    let mut kept = [0; 2];
    let mut added = Vec::new();
    for (class, kept) in Class::EACH.into_iter().zip(&mut kept) {
        let mut file = WholeFile::new(uuid, class, NUMBER + u64::from(class.code()), range, 1);
        for segment in &segments {
            crate::log::for_each_whole::<ReadError>(segment, segment.base(), &mut |frame| {
                let (records, parts) = live.of_frame(class, frame);
                if !records.is_empty() {
                    let mut head = Vec::new();
                    codec::encode(&records, &mut head);
                    file.add((frame.lsn, segment.epoch_at(frame.lsn)), &head, &parts);
                }
                *kept += parts.len();
                Ok(())
            })
            .unwrap();
        }
        added.push((file.name(), file.added(), file.finish()));
    }
    for (name, control, bytes) in &added {
        let file = handle.create(name, bytes.len() as u64).unwrap();
        file.write_at(0, bytes).unwrap();
        file.sync().unwrap();
        handle.sync_dir().unwrap();
        crate::log::fuzzing::append_control(&mut log, *control);
    }
    crate::log::fuzzing::sync(&mut log);
    for segment in segments.iter().filter(|_| unlinked) {
        log.file_manager.remove_segment(segment).unwrap();
    }
    let end = log.appender.end();
    log.file_manager.close(end).unwrap();
    let mut names = added.into_iter().map(|(name, ..)| name);
    let files = [names.next()?, names.next()?];
    Some(Cleaned { segments: segments.iter().map(|segment| segment.name().to_string()).collect(), files, kept })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Durability, Message, Store};
    use crate::clock::SimClock;
    use crate::error::Error;
    use crate::ids::WallMs;
    use std::time::Duration;

    const NOW: Duration = Duration::ZERO;

    /// A closed store of several segments: every fifth message became a dead letter, every third of those was discarded, and of the
    /// last messages none was looked at.
    fn store(disk: &SimDisk, clock: &Arc<SimClock>) {
        let store = super::super::open(disk, clock, Durability::Disk).unwrap();
        let topic = store.topic("t").partitions(2).open().unwrap();
        let group = topic.group("g").max_attempts(1).open().unwrap();
        for number in 0..240u32 {
            let mut payload = number.to_le_bytes().to_vec();
            payload.resize(1500, 7);
            topic.publish(Message::new(payload).partition(number % 2)).unwrap();
        }
        for nth in 0..60 {
            let delivery = group.receive(NOW).unwrap().unwrap();
            if nth % 5 == 0 {
                delivery.reject("no").unwrap()
            } else {
                delivery.ack().unwrap()
            };
        }
        store.tick().unwrap();
        let dead_letters: Vec<_> = group.dead_letters().unwrap().map(Result::unwrap).collect();
        assert_eq!(dead_letters.len(), 12);
        dead_letters.into_iter().step_by(3).for_each(|dead_letter| dead_letter.discard().unwrap());
        // Two checkpoints cover what is cleaned.
        for _ in 0..2 {
            topic.publish("later").unwrap();
            store.tick().unwrap();
            store.checkpoint().unwrap();
        }
        store.close().unwrap();
    }

    /// All dead letters of the group, and all messages that it has not settled, each with its id.
    fn found(store: &Store) -> Result<Vec<String>, Error> {
        let topic = store.topic("t").open()?;
        let group = topic.group("g").open()?;
        let mut found = Vec::new();
        for dead_letter in group.dead_letters()? {
            let dead_letter = dead_letter?;
            found.push(format!(
                "dead {} {:?} {}",
                dead_letter.id(),
                &dead_letter.payload()[..4],
                dead_letter.attempts()
            ));
        }
        let mut held = Vec::new();
        while let Some(delivery) = group.receive(NOW)? {
            found.push(format!("{} {:?}", delivery.id(), &delivery.payload()[..4]));
            held.push(delivery);
        }
        held.into_iter().try_for_each(|delivery| delivery.release())?;
        found.sort_unstable();
        Ok(found)
    }

    fn opened(disk: &SimDisk, clock: &Arc<SimClock>) -> Result<Vec<String>, Error> {
        let store = super::super::open(disk, clock, Durability::Disk)?;
        assert_eq!(store.violations(), Vec::<String>::new());
        let found = found(&store)?;
        store.tick()?;
        store.close()?;
        Ok(found)
    }

    fn indexes(disk: &SimDisk, cleaned: &Cleaned) -> Vec<String> {
        let names = cleaned.files.iter().filter_map(|name| Some(format!("{}.idx", name.split_once('.')?.0)));
        names.filter(|name| disk.read_file(name).is_some()).collect()
    }

    /// Every message that is not settled is received, and every dead letter is listed, from files of classes: without index files,
    /// with them, and with damaged ones; whether or not the segments are still there.
    #[test]
    fn cleaned_store_delivers_what_is_not_settled() {
        let (disk, clock) = (SimDisk::new(5), Arc::new(SimClock::new(WallMs(1_800_000_000_000))));
        store(&disk, &clock);
        let whole = opened(&disk.snapshot(), &clock).unwrap();
        assert_eq!(whole.iter().filter(|message| message.starts_with("dead")).count(), 8);
        for unlinked in [false, true] {
            let disk = disk.snapshot();
            let cleaned = clean(&disk, unlinked).unwrap();
            assert!(cleaned.segments.len() >= 3 && cleaned.kept[0] > 20 && cleaned.kept[1] > 5, "{cleaned:?}");
            assert_eq!(indexes(&disk, &cleaned).len(), 0);
            assert_eq!(opened(&disk, &clock).unwrap(), whole, "without index files");
            assert!(cleaned.segments.iter().all(|name| disk.read_file(name).is_none()), "segments that serve nothing");
            let indexes = indexes(&disk, &cleaned);
            assert_eq!(indexes.len(), 2, "they were written");
            assert_eq!(opened(&disk, &clock).unwrap(), whole, "with index files");
            for name in &indexes {
                let mut bytes = disk.read_file(name).unwrap();
                bytes.iter_mut().rev().step_by(24).for_each(|byte| *byte ^= 1);
                disk.write_file(name, &bytes);
            }
            assert_eq!(opened(&disk, &clock).unwrap(), whole, "with rows that do not prove themselves");
        }
    }

    /// A file of a class goes when all in it is settled, and the other one stays.
    #[test]
    fn file_of_a_class_is_retired_by_itself() {
        let (disk, clock) = (SimDisk::new(6), Arc::new(SimClock::new(WallMs(1_800_000_000_000))));
        store(&disk, &clock);
        let cleaned = clean(&disk, true).unwrap();
        let store = super::super::open(&disk, &clock, Durability::Disk).unwrap();
        let topic = store.topic("t").open().unwrap();
        let group = topic.group("g").open().unwrap();
        while let Some(delivery) = group.receive(NOW).unwrap() {
            delivery.ack().unwrap();
        }
        for _ in 0..2 {
            topic.publish("more").unwrap();
            store.checkpoint().unwrap();
        }
        store.tick().unwrap();
        let [messages, dead_letters] = cleaned.files.map(|name| disk.read_file(&name).is_some());
        assert_eq!((messages, dead_letters), (false, true));
        assert_eq!(group.dead_letters().unwrap().map(Result::unwrap).count(), 8);
        store.close().unwrap();
        assert_eq!(opened(&disk, &clock).unwrap().len(), 8 + 2);
    }

    /// Damage within a file of a class costs the messages that it hit, and the absence of the file is told at the open.
    #[test]
    fn damage_in_a_file_of_a_class_is_told() {
        let (disk, clock) = (SimDisk::new(7), Arc::new(SimClock::new(WallMs(1_800_000_000_000))));
        store(&disk, &clock);
        let cleaned = clean(&disk, true).unwrap();
        for name in &cleaned.files {
            let disk = disk.snapshot();
            let mut bytes = disk.read_file(name).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            disk.write_file(name, &bytes);
            match opened(&disk, &clock) {
                Err(error @ Error::Unreadable { .. }) => assert_eq!(error.corruption().unwrap().file, *name),
                other => panic!("{other:?}"),
            }
            assert!(disk.remove_file(name));
            match super::super::open(&disk, &clock, Durability::Disk) {
                Err(Error::Corrupt(corruption)) => assert_eq!(corruption.file, *name),
                other => panic!("{other:?}"),
            }
        }
    }

    /// A forged file brought in an epoch that the log never had, and a store that was closed opened as one that was not.
    #[test]
    fn file_with_an_epoch_that_the_log_never_had_is_damage() {
        let (disk, clock) = (SimDisk::new(8), Arc::new(SimClock::new(WallMs(1_800_000_000_000))));
        store(&disk, &clock);
        let cleaned = clean(&disk, false).unwrap();
        for name in &cleaned.files {
            let disk = disk.snapshot();
            let mut bytes = disk.read_file(name).unwrap();
            let body_len = u64::from_le_bytes(bytes[64..72].try_into().unwrap()) as usize;
            // The count in the first epoch of the table, which begins with the number of its entries.
            let count_at = 128 + body_len + 4 + 8 + 4;
            bytes[count_at] = 0xff;
            disk.write_file(name, &bytes);
            super::super::seal(&disk, name).unwrap();
            match super::super::open(&disk, &clock, Durability::Disk) {
                Err(Error::Corrupt(corruption)) => assert_eq!(corruption.file, *name),
                other => panic!("{other:?}"),
            }
        }
    }
}
