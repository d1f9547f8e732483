//! What the library makes of a store: whether it opens, what its report says, and every message that it delivers.
//!
//! Never here: what the second reader says.

use millpond::simulation::WallMs;
use millpond::simulation::fuzzing::open;
use millpond::simulation::{SimClock, SimDisk};
use millpond::{Durability, Error, Group, OpenReport, Start, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The group that reads a topic from the first message that the store has.
const READER: &str = "the second reader";

/// One partition of a topic as a new group gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionSeen {
    /// The first offset that the group is offered.
    pub start: u64,
    pub end: u64,
    /// By offset: id and fingerprint of each message that can be read.
    pub messages: BTreeMap<u64, (String, String)>,
}

/// A store that opens.
#[derive(Clone, Debug)]
pub struct Seen {
    pub report: OpenReport,
    /// Every message was asked for. A forged state may tell of more than there is time for.
    pub complete: bool,
    pub topics: BTreeMap<String, Vec<PartitionSeen>>,
    /// By `topic/group`: how much the group has still to settle, its dead letters with it; and of what can be read of that origin and
    /// fingerprint, sorted.
    pub groups: BTreeMap<String, (u64, Vec<(String, String)>)>,
    /// Those in which messages wait for others that cannot be read.
    pub blocked: BTreeSet<String>,
}

/// What all that a message is made of comes to. The reader makes the same of the bytes on disk.
fn fingerprint<'a>(
    origin: &str,
    time: SystemTime,
    key: Option<&[u8]>,
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    payload: &[u8],
) -> String {
    let mut bytes = origin.as_bytes().to_vec();
    let len = |part: &[u8]| (part.len() as u32).to_le_bytes();
    bytes.extend((time.duration_since(UNIX_EPOCH).unwrap().as_millis() as u64).to_le_bytes());
    match key {
        None => bytes.push(b'-'),
        Some(key) => bytes.extend([b"k", &len(key)[..], key].concat()),
    }
    for (name, value) in headers {
        let name = name.as_bytes();
        bytes.extend([b"h", &len(name)[..], &len(value), name, value].concat());
    }
    bytes.push(b'p');
    bytes.extend(payload);
    format!("{:08x}", crc32fast::hash(&bytes))
}

/// Opens a store and reads it to its last message. An error of opening, or one of reading that is not about a message.
pub fn read(disk: &SimDisk, wall: WallMs) -> Result<Seen, Error> {
    let clock = Arc::new(SimClock::new(wall));
    let store = open(disk, &clock, Durability::Os)?;
    let mut seen = Seen {
        report: store.report().clone(),
        complete: true,
        topics: BTreeMap::new(),
        groups: BTreeMap::new(),
        blocked: BTreeSet::new(),
    };
    let found = store.stats()?;
    // Where reading meets an exhausted message, no topic is to get a notice.
    for topic in &found.topics {
        for group in &topic.groups {
            let group = store.topic(&topic.name).open()?.group(&group.name).open()?;
            group.alter().dead_letter_notices(None).rate_limit(None).max_in_flight(0).apply()?;
            group.resume()?;
        }
    }
    for topic in &found.topics {
        let handle = store.topic(&topic.name).open()?;
        let reader = handle.group(READER).start(Start::Earliest).max_attempts(0).max_outstanding(1 << 20).open()?;
        let (partitions, complete) = read_topic(&store, &topic.name, &reader)?;
        seen.complete &= complete;
        seen.topics.insert(topic.name.clone(), partitions);
        for stats in &topic.groups {
            let group = handle.group(&stats.name).open()?;
            let (items, complete) = read_group(&group, &clock)?;
            seen.complete &= complete;
            seen.groups.insert(format!("{}/{}", topic.name, stats.name), (stats.lag + stats.dead, items));
        }
    }
    for topic in store.stats()?.topics {
        let blocked = topic.groups.iter().filter(|group| group.parked > 0);
        seen.blocked.extend(blocked.map(|group| format!("{}/{}", topic.name, group.name)));
    }
    let violations = store.violations();
    assert!(violations.is_empty(), "{violations:?}");
    Ok(seen)
}

fn read_topic(store: &Store, name: &str, reader: &Group) -> Result<(Vec<PartitionSeen>, bool), Error> {
    let stats = store.stats()?;
    let topic = stats.topics.iter().find(|topic| topic.name == name).expect("it is open");
    let group = topic.groups.iter().find(|group| group.name == READER).expect("it is open");
    let bounds = topic.partitions.iter().zip(&group.partitions);
    let mut partitions: Vec<PartitionSeen> = bounds
        .map(|(all, left)| PartitionSeen { start: all.end - left.lag, end: all.end, messages: BTreeMap::new() })
        .collect();
    let complete = drain(reader, |id, _, print| {
        let partition = &mut partitions[id.partition as usize];
        partition.messages.insert(id.offset.0, (id.to_string(), print));
    })?;
    Ok((partitions, complete))
}

/// What a group has still to settle.
fn read_group(group: &Group, clock: &SimClock) -> Result<(Vec<(String, String)>, bool), Error> {
    let (mut items, mut complete) = (Vec::new(), true);
    // In the second and third round what waited is due, and a lone lease holds up nobody any more.
    for _ in 0..3 {
        complete &= drain(group, |_, origin, print| items.push((origin, print)))?;
        clock.advance(5 * 86_400_000);
    }
    for letter in group.dead_letters()? {
        match letter {
            Ok(letter) => {
                let origin = letter.origin().to_string();
                let print = fingerprint(&origin, letter.timestamp(), letter.key(), letter.headers(), letter.payload());
                items.push((origin, print));
            }
            Err(Error::Unreadable { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    items.sort_unstable();
    Ok((items, complete))
}

/// Takes and acks all that a group gives now. Whether that came to an end.
fn drain(group: &Group, mut each: impl FnMut(millpond::MessageId, String, String)) -> Result<bool, Error> {
    for _ in 0..1_000 {
        match group.receive_batch(1_000, Duration::ZERO) {
            Ok(batch) => {
                if batch.is_empty() && batch.unreadable().is_empty() {
                    return Ok(true);
                }
                for delivery in &batch {
                    let origin = delivery.origin().to_string();
                    let print = fingerprint(
                        &origin,
                        delivery.timestamp(),
                        delivery.key(),
                        delivery.headers(),
                        delivery.payload(),
                    );
                    each(delivery.id(), origin, print);
                }
                let _lost = batch.ack()?;
            }
            Err(Error::Unreadable { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}
