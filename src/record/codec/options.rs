//! Options of groups and topics: those that differ from what is left out, each with its tag and length.
//!
//! Tags are for ever, like kinds. A tag that is not known here is a newer version's: an option changes what may follow, so
//! none is skipped. Never here: which values an option may have.

use super::super::wire::{ByteReader, DecodeError, Newer, put_delimited, put_varint};
use super::super::{GroupOptions, Ordering, Retention, TopicOptions};
use crate::ids::TopicId;
use crate::limits::DURATION_MS_MAX;
use std::time::Duration;

/// An option, which is a number, of those that a `T` holds.
struct TaggedOption<T> {
    tag: u64,
    get: fn(&T) -> u64,
    set: fn(&mut T, u64) -> Result<(), DecodeError>,
}

/// In the order of their tags.
const GROUP: [TaggedOption<GroupOptions>; 10] = [
    TaggedOption {
        tag: 1,
        get: |all| all.visibility_timeout_ms,
        set: |all, value| fit(value).map(|value| all.visibility_timeout_ms = value),
    },
    TaggedOption {
        tag: 2,
        get: |all| u64::from(all.max_attempts),
        set: |all, value| fit(value).map(|value| all.max_attempts = value),
    },
    TaggedOption {
        tag: 3,
        get: |all| all.backoff.first_ms,
        set: |all, value| fit(value).map(|value| all.backoff.first_ms = value),
    },
    TaggedOption {
        tag: 4,
        get: |all| all.backoff.max_ms,
        set: |all, value| fit(value).map(|value| all.backoff.max_ms = value),
    },
    TaggedOption {
        tag: 5,
        get: |all| u64::from(all.backoff.jitter),
        set: |all, value| boolean(value).map(|value| all.backoff.jitter = value),
    },
    TaggedOption {
        tag: 6,
        get: |all| u64::from(all.max_outstanding),
        set: |all, value| fit(value).map(|value| all.max_outstanding = value),
    },
    TaggedOption {
        tag: 7,
        get: |all| u64::from(all.max_closes),
        set: |all, value| fit(value).map(|value| all.max_closes = value),
    },
    // One more than the topic's number; zero is no topic.
    TaggedOption {
        tag: 8,
        get: |all| all.notices.map_or(0, |topic| topic.0.saturating_add(1)),
        set: |all, value| {
            all.notices = value.checked_sub(1).map(TopicId);
            Ok(())
        },
    },
    TaggedOption {
        tag: 9,
        get: |all| match all.ordering {
            Ordering::None => 0,
            Ordering::Key => 1,
            Ordering::Partition => 2,
        },
        set: |all, value| ordering(value).map(|value| all.ordering = value),
    },
    TaggedOption {
        tag: 10,
        get: |all| u64::from(all.max_in_flight_per_key),
        set: |all, value| room(value).map(|value| all.max_in_flight_per_key = value),
    },
];

/// As [`GROUP`].
const TOPIC: [TaggedOption<TopicOptions>; 6] = [
    TaggedOption {
        tag: 1,
        get: |all| match all.retention {
            Retention::UntilSettled => 0,
            // seam: a retention is not written
            Retention::Forever => 1,
            Retention::Age(_) => 2,
            Retention::Count(_) => 3,
        },
        set: |all, value| retention(value).map(|value| all.retention = value),
    },
    TaggedOption {
        tag: 2,
        get: |all| u64::from(all.dedup_ids),
        set: |all, value| room(value).map(|value| all.dedup_ids = value),
    },
    TaggedOption {
        tag: 3,
        get: |all| all.dedup_window_ms,
        set: |all, value| fit(value).map(|value| all.dedup_window_ms = value),
    },
    TaggedOption {
        tag: 4,
        get: |all| u64::from(all.streams),
        set: |all, value| boolean(value).map(|value| all.streams = value),
    },
    TaggedOption {
        tag: 5,
        get: |all| u64::from(all.snapshots_kept),
        set: |all, value| room(value).map(|value| all.snapshots_kept = value),
    },
    // For how many milliseconds, or how many: of a retention that needs it.
    TaggedOption {
        tag: 6,
        get: |all| match all.retention {
            Retention::UntilSettled | Retention::Forever => 0,
            Retention::Age(age) => u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            Retention::Count(count) => count,
        },
        set: |all, value| match &mut all.retention {
            Retention::Age(age) if value <= DURATION_MS_MAX => {
                *age = Duration::from_millis(value);
                Ok(())
            }
            Retention::Count(count) => {
                *count = value;
                Ok(())
            }
            Retention::UntilSettled | Retention::Forever | Retention::Age(_) => Err(DecodeError::BadNumber),
        },
    },
];

/// Tag and length.
const OPTION_LEN_MIN: usize = 2;

fn fit<T: TryFrom<u64>>(value: u64) -> Result<T, DecodeError> {
    T::try_from(value).map_err(|_| DecodeError::BadNumber)
}

/// A window without room would not hold even its newest id.
fn room(value: u64) -> Result<u32, DecodeError> {
    fit(value).and_then(|room| if room == 0 { Err(DecodeError::BadNumber) } else { Ok(room) })
}

fn retention(value: u64) -> Result<Retention, DecodeError> {
    match value {
        0 => Ok(Retention::UntilSettled),
        1 => Ok(Retention::Forever),
        // How long, and how many, is another option.
        2 => Ok(Retention::Age(Duration::ZERO)),
        3 => Ok(Retention::Count(0)),
        4.. => Err(DecodeError::BadNumber),
    }
}

fn ordering(value: u64) -> Result<Ordering, DecodeError> {
    match value {
        0 => Ok(Ordering::None),
        1 => Ok(Ordering::Key),
        2 => Ok(Ordering::Partition),
        3.. => Err(DecodeError::BadNumber),
    }
}

fn boolean(value: u64) -> Result<bool, DecodeError> {
    if value <= 1 { Ok(value == 1) } else { Err(DecodeError::BadNumber) }
}

pub(crate) fn put_group_options(out: &mut Vec<u8>, options: &GroupOptions) {
    put_options(out, &GROUP, options, &GroupOptions::LEFT_OUT);
}

pub(crate) fn group_options(reader: &mut ByteReader<'_>) -> Result<GroupOptions, DecodeError> {
    read_options(reader, "group option", &GROUP, &GroupOptions::LEFT_OUT)
}

pub(crate) fn put_topic_options(out: &mut Vec<u8>, options: &TopicOptions) {
    put_options(out, &TOPIC, options, &TopicOptions::LEFT_OUT);
}

pub(crate) fn topic_options(reader: &mut ByteReader<'_>) -> Result<TopicOptions, DecodeError> {
    let options = read_options(reader, "topic option", &TOPIC, &TopicOptions::LEFT_OUT)?;
    match options.retention {
        Retention::Age(Duration::ZERO) | Retention::Count(0) => Err(DecodeError::BadNumber),
        Retention::UntilSettled | Retention::Forever | Retention::Age(_) | Retention::Count(_) => Ok(options),
    }
}

fn put_options<T>(out: &mut Vec<u8>, known: &[TaggedOption<T>], options: &T, left_out: &T) {
    let is_written = |option: &&TaggedOption<T>| (option.get)(options) != (option.get)(left_out);
    put_varint(out, known.iter().filter(is_written).count() as u64);
    for option in known.iter().filter(is_written) {
        put_varint(out, option.tag);
        put_delimited(out, |out| put_varint(out, (option.get)(options)));
    }
}

fn read_options<T: Clone>(
    reader: &mut ByteReader<'_>,
    what: &'static str,
    known: &[TaggedOption<T>],
    left_out: &T,
) -> Result<T, DecodeError> {
    let mut options = left_out.clone();
    let mut next = 1;
    for _ in 0..reader.count(OPTION_LEN_MIN)? {
        let (tag, value) = (reader.varint()?, &mut ByteReader::new(reader.bytes()?));
        // seam: an option comes twice
        let tag = Some(tag).filter(|_| tag >= next);
        let tag = tag.ok_or(DecodeError::Invalid("options that are not in the order of their tags"))?;
        next = tag.saturating_add(1);
        let option = known.iter().find(|option| option.tag == tag);
        // seam: a newer option is passed over
        let Some(option) = option else {
            let known_max = known.last().map_or(0, |option| option.tag);
            return Err(DecodeError::Newer(Newer { what, number: tag, known_max }));
        };
        let number = value.varint()?;
        if number == (option.get)(left_out) {
            return Err(DecodeError::Invalid("an option that is left out is written"));
        }
        (option.set)(&mut options, number)?;
        if !value.is_empty() {
            return Err(DecodeError::Invalid("an option is longer than its value"));
        }
    }
    Ok(options)
}
