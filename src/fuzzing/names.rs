//! Names, keys and headers of any bytes: refused by a typed error, or they come back as they were given, also from a store
//! that was closed and opened.

use super::rich;
use crate::api::{Durability, Message, Topic};
use crate::clock::SimClock;
use crate::disk::sim::SimDisk;
use crate::error::{Error, ErrorKind};
use crate::ids::{Position, WallMs};
use crate::limits::NAME_LEN_MAX;
use crate::log::fuzzing::Take;
use crate::log::fuzzing::seeds::Seeds;
use std::sync::Arc;
use std::time::Duration;

fn text(take: &mut Take<'_>) -> String {
    let len = take.short() % 300;
    String::from_utf8_lossy(take.bytes(len)).into_owned()
}

fn fits(name: &str) -> bool {
    (1..=NAME_LEN_MAX).contains(&name.len())
}

/// Whether a call went as the length of its name says.
fn judged<T>(result: Result<T, Error>, names_fit: bool) -> Option<T> {
    match result {
        Ok(value) => {
            assert!(names_fit, "a name was taken that is empty or too long");
            Some(value)
        }
        Err(error) => {
            assert!(!names_fit && matches!(error, Error::InvalidName { .. }), "{error}");
            assert_eq!(error.kind(), ErrorKind::FixCall);
            None
        }
    }
}

/// A text that is a position is the only text of it, and a reader begins there or says that it cannot.
fn position(text: &str, topic: &Topic) {
    let Ok(position) = text.parse::<Position>() else { return };
    assert_eq!(position.to_string(), text);
    let opened = topic.reader().from(position).open();
    assert!(matches!(opened, Err(Error::InvalidPosition { position: named, .. }) if named == position));
}

/// Topic, group, key, headers, payload.
pub fn names(data: &[u8]) -> bool {
    let mut take = Take::new(data);
    let (flags, topic_name, group_name) = (take.byte(), text(&mut take), text(&mut take));
    let disk = SimDisk::new(1);
    let clock = Arc::new(SimClock::new(WallMs(1_800_000_000_000)));
    let store = rich::open(&disk, &clock, Durability::Disk).unwrap();
    let partitions = u32::from(flags & 7) + 1;
    let Some(topic) = judged(store.topic(&topic_name).partitions(partitions).open(), fits(&topic_name)) else {
        return false;
    };
    let Some(group) = judged(topic.group(&group_name).open(), fits(&group_name)) else { return false };
    [&topic_name, &group_name].into_iter().for_each(|text| position(text, &topic));
    let key = (flags & 8 != 0).then(|| {
        let len = take.short() % 2_000;
        take.bytes(len).to_vec()
    });
    let headers: Vec<(String, Vec<u8>)> = (0..take.byte() % 5)
        .map(|_| {
            let name = text(&mut take);
            let len = usize::from(take.byte());
            (name, take.bytes(len).to_vec())
        })
        .collect();
    let payload = take.bytes(usize::MAX).to_vec();
    let mut message = Message::new(payload.clone());
    message = key.iter().fold(message, |message, key| message.key(key.clone()));
    message = headers.iter().fold(message, |message, (name, value)| message.header(name.clone(), value.clone()));
    let sent = judged(topic.publish(message), headers.iter().all(|(name, _)| fits(name)));
    let Some(id) = sent.map(|receipt| receipt.id()) else { return false };
    if flags & 16 != 0 {
        store.close().unwrap();
    } else {
        disk.crash_process();
    }
    drop((group, topic, store));
    let store = rich::open(&disk, &clock, Durability::Os).unwrap();
    let stats = store.stats().unwrap();
    assert_eq!((stats.topics.len(), &stats.topics[0].name), (1, &topic_name));
    let topic = store.topic(&topic_name).open().unwrap();
    assert_eq!(topic.partitions(), partitions);
    let read = topic.reader().open().unwrap().try_next().unwrap().unwrap();
    assert_eq!((read.id(), read.key(), read.payload()), (id, key.as_deref(), payload.as_slice()));
    assert_eq!(read.position().to_string().parse(), Ok(read.position()));
    let group = topic.group(&group_name).open().unwrap();
    let delivery = group.receive(Duration::ZERO).unwrap().unwrap();
    assert_eq!((delivery.id(), delivery.key(), delivery.payload()), (id, key.as_deref(), payload.as_slice()));
    let came: Vec<(String, Vec<u8>)> =
        delivery.headers().map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
    assert_eq!(came, headers);
    delivery.ack().unwrap();
    true
}

pub(super) fn seeds() -> Seeds {
    let text = |text: &str| [&(text.len() as u16).to_le_bytes(), text.as_bytes()].concat();
    let long = "n".repeat(256);
    let cases: [(&str, u8, &str, &str, &str); 9] = [
        ("plain", 8, "orders", "kitchen", "type"),
        ("closed", 31, "orders", "kitchen", "type"),
        ("unicode", 24, "Bestellungen \u{1f355}", "K\u{fc}che", "\u{0}"),
        ("no-topic", 0, "", "kitchen", "type"),
        ("no-group", 0, "orders", "", "type"),
        ("long", 8, &long[..255], &long, ""),
        ("no-header", 8, "../orders", "/", ""),
        ("positions", 8, "0-0-0-0", "3w5e11264sgsf-3w5e11264sgsf-3w5e11264sgsf-3w5e11264sgsf", "0-0-0-00"),
        ("no-positions", 8, "0-0-0-3w5e11264sgsg", "0-0-0-", "-"),
    ];
    cases
        .iter()
        .map(|(name, flags, topic, group, header)| {
            let mut bytes = [vec![*flags], text(topic), text(group)].concat();
            if flags & 8 != 0 {
                bytes.extend(text("key"));
            }
            bytes.push(1);
            bytes.extend([text(header), vec![2, 1, 2], b"payload".to_vec()].concat());
            ("names", (*name).to_owned(), bytes)
        })
        .collect()
}
