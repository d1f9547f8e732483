//! What a store holds, read to the last message through the public API; and whether that is what another one holds.
//!
//! Never here: damage.

use millpond::simulation::WallMs;
use millpond::simulation::fuzzing::open;
use millpond::simulation::{SimClock, SimDisk};
use millpond::{Durability, Error, Group, MessageId, OpenReport, Start, Store};
use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

/// The group that reads a topic from its first message on.
const READER: &str = "the sweep";

/// Messages by the id under which they were published, each with a fingerprint of all that it is made of.
pub type Items = BTreeMap<MessageId, u64>;

/// What one topic or group gave, and how many errors instead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Share {
    pub items: Items,
    pub errors: usize,
}

/// All of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    pub report: OpenReport,
    /// Every message of each topic.
    pub topics: BTreeMap<String, Share>,
    /// What each group has still to settle, its dead letters with it.
    pub groups: BTreeMap<String, Share>,
}

fn fingerprint<'a>(
    payload: &[u8],
    key: Option<&[u8]>,
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    time: std::time::SystemTime,
) -> u64 {
    let mut hasher = DefaultHasher::new();
    (payload, key, time).hash(&mut hasher);
    headers.for_each(|header| header.hash(&mut hasher));
    hasher.finish()
}

/// Opens and reads all that there is. Errors of reading are counted, those of opening returned.
pub fn read(disk: &SimDisk, wall: WallMs) -> Result<(Store, Content), Error> {
    let clock = Arc::new(SimClock::new(wall));
    let store = open(disk, &clock, Durability::Os)?;
    let mut content = Content { report: store.report().clone(), topics: BTreeMap::new(), groups: BTreeMap::new() };
    let stats = store.stats()?;
    for topic in &stats.topics {
        let handle = store.topic(&topic.name).open()?;
        let reader = handle.group(READER).start(Start::Earliest).max_attempts(0).open()?;
        let mut share = Share::default();
        drain(&reader, &mut share)?;
        content.topics.insert(topic.name.clone(), share);
        for group in topic.groups.iter().filter(|group| group.name != READER) {
            let handle = handle.group(&group.name).open()?;
            let mut share = Share::default();
            drain(&handle, &mut share)?;
            // Now what waited is due, and what was leased alone is not in the way of others.
            for _ in 0..2 {
                clock.advance(5 * 86_400_000);
                drain(&handle, &mut share)?;
            }
            letters(&handle, &mut share)?;
            content.groups.insert(format!("{}/{}", topic.name, group.name), share);
        }
    }
    let violations = store.violations();
    assert!(violations.is_empty(), "{violations:?}");
    Ok((store, content))
}

/// Takes and acks all that a group gives now.
fn drain(group: &Group, share: &mut Share) -> Result<(), Error> {
    for _ in 0..1_000 {
        match group.receive_batch(1_000, Duration::ZERO) {
            Ok(batch) => {
                share.errors += batch.unreadable().len();
                if batch.is_empty() && batch.unreadable().is_empty() {
                    return Ok(());
                }
                for delivery in &batch {
                    let print =
                        fingerprint(delivery.payload(), delivery.key(), delivery.headers(), delivery.timestamp());
                    let again = share.items.insert(delivery.origin(), print);
                    assert!(again.is_none(), "{} came twice to {}", delivery.origin(), group.name());
                }
                let _lost = batch.ack()?;
            }
            Err(error @ Error::Unreadable { .. }) => {
                named(error.corruption().expect("nothing else keeps a message from being read"));
                share.errors += 1;
            }
            Err(error) => return Err(error),
        }
    }
    panic!("{} gives messages for ever", group.name());
}

fn letters(group: &Group, share: &mut Share) -> Result<(), Error> {
    for letter in group.dead_letters()? {
        match letter {
            Ok(letter) => {
                let print = fingerprint(letter.payload(), letter.key(), letter.headers(), letter.timestamp());
                let again = share.items.insert(letter.origin(), print);
                assert!(again.is_none(), "{} is in two places of {}", letter.origin(), group.name());
            }
            Err(error @ Error::Unreadable { .. }) => {
                named(error.corruption().expect("nothing else keeps a message from being read"));
                share.errors += 1;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// An error says which file, or which message, and why.
pub fn named(corruption: &millpond::Corruption) {
    assert!(!corruption.file.is_empty() && !corruption.reason.is_empty(), "{corruption:?}");
    if let Some((from, to)) = corruption.lsns {
        assert!(from <= to, "{corruption:?}");
    }
}

impl Share {
    /// Nothing that `whole` has not, and an error for all that is missing, but for `untold` ones; for each of them one where
    /// `exactly`.
    fn compare(&self, whole: &Self, exactly: bool, untold: usize) -> Result<usize, String> {
        for (id, print) in &self.items {
            match whole.items.get(id) {
                Some(known) if known == print => {}
                Some(_) => return Err(format!("{id} has other bytes")),
                None => return Err(format!("{id} was not there")),
            }
        }
        let missing = whole.items.len() - self.items.len();
        if missing > self.errors + untold || exactly && missing < self.errors {
            return Err(format!("{missing} messages are missing, and {} errors told of it", self.errors));
        }
        Ok(missing)
    }

    /// How many of the first messages of the partitions of `whole` are missing.
    fn missing_first(&self, whole: &Self) -> usize {
        let mut first: BTreeMap<u64, u64> = BTreeMap::new();
        for id in self.items.keys() {
            let offset = first.entry(id.partition).or_insert(id.offset.0);
            *offset = id.offset.0.min(*offset);
        }
        let is_before = |id: &&MessageId| first.get(&id.partition).is_none_or(|first| id.offset.0 < *first);
        whole.items.keys().filter(is_before).count()
    }
}

impl Content {
    /// How many messages of `whole` are missing, each with an error that told of it. Without an index file nothing tells which
    /// messages that all groups had settled went with their segment, and which were damaged: a group that is new then begins behind
    /// both, where `indexed` is not said.
    pub fn compare(&self, whole: &Self, indexed: bool) -> Result<usize, String> {
        let (found, expected) = (&self.report, &whole.report);
        if (found.end, found.state_hash) != (expected.end, expected.state_hash) {
            return Err(format!("another state: {found:?}"));
        }
        let names =
            |content: &Self| (content.topics.keys().cloned().collect(), content.groups.keys().cloned().collect());
        let both: [(Vec<String>, Vec<String>); 2] = [names(self), names(whole)];
        if both[0] != both[1] {
            return Err(format!("other topics and groups: {both:?}"));
        }
        let mut missing = 0;
        for (name, share) in &self.topics {
            let whole = &whole.topics[name];
            let untold = if indexed { 0 } else { share.missing_first(whole) };
            missing += share.compare(whole, true, untold).map_err(|what| format!("topic {name}: {what}"))?;
        }
        for (name, share) in &self.groups {
            missing += share.compare(&whole.groups[name], false, 0).map_err(|what| format!("group {name}: {what}"))?;
        }
        Ok(missing)
    }

    /// Whether every message was there, and how many are missing.
    pub fn left_of(&self, whole: &Self, may_be_other: bool) -> Result<usize, String> {
        let mut missing = 0;
        for (name, known) in &whole.topics {
            let Some(share) = self.topics.get(name) else {
                missing += known.items.len();
                continue;
            };
            for (id, print) in &share.items {
                match known.items.get(id) {
                    Some(known) if known == print => {}
                    Some(_) => return Err(format!("topic {name}: {id} has other bytes")),
                    None if may_be_other => {}
                    None => return Err(format!("topic {name}: {id} was not there")),
                }
            }
            missing += known.items.keys().filter(|id| !share.items.contains_key(id)).count();
        }
        Ok(missing)
    }

    /// Whether every partition of every topic is a prefix of what it is in `whole`, but for messages that an error told of.
    pub fn is_prefix_of(&self, whole: &Self) -> Result<(), String> {
        for (name, share) in &self.topics {
            let known = &whole.topics.get(name).ok_or_else(|| format!("topic {name} was not there"))?.items;
            if share.items.iter().any(|(id, print)| known.get(id) != Some(print)) {
                return Err(format!("topic {name} has messages that were not there"));
            }
            let last: BTreeMap<u64, u64> = share.items.keys().map(|id| (id.partition, id.offset.0)).collect();
            let below = |id: &&MessageId| last.get(&id.partition).is_some_and(|last| id.offset.0 < *last);
            let holes = known.keys().filter(below).filter(|id| !share.items.contains_key(id)).count();
            if holes > share.errors {
                return Err(format!("topic {name} has {holes} holes, and {} errors told of them", share.errors));
            }
        }
        Ok(())
    }
}
