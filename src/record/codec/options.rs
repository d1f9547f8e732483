//! Options of groups and topics: those that differ from what is left out, each with its tag and length.
//!
//! Tags are for ever, like kinds. A tag that is not known here is a newer version's: an option changes what may follow, so
//! none is skipped. Never here: which values an option may have.

use super::super::wire::{ByteReader, DecodeError, Newer, put_bytes, put_varint};
use super::super::{Filter, GroupOptions, Growth, Jitter, Ordering, Retention, TopicOptions, WhenFull};
use crate::ids::TopicId;
use crate::limits::{BACKOFF_LIST_MAX, BLOCK_MS_MAX, DURATION_MS_MAX};
use std::sync::Arc;
use std::time::Duration;

/// An option of those that a `T` holds, and its bytes.
struct TaggedOption<T> {
    tag: u64,
    get: fn(&T) -> Vec<u8>,
    set: fn(&mut T, &mut ByteReader<'_>) -> Result<(), DecodeError>,
}

/// In the order of their tags.
const GROUP: [TaggedOption<GroupOptions>; 21] = [
    TaggedOption {
        tag: 1,
        get: |all| number(all.visibility_timeout_ms),
        set: |all, value| fit(value).map(|value| all.visibility_timeout_ms = value),
    },
    TaggedOption {
        tag: 2,
        get: |all| number(u64::from(all.max_attempts)),
        set: |all, value| fit(value).map(|value| all.max_attempts = value),
    },
    TaggedOption {
        tag: 3,
        get: |all| number(all.backoff.first_ms),
        set: |all, value| fit(value).map(|value| all.backoff.first_ms = value),
    },
    TaggedOption {
        tag: 4,
        get: |all| number(all.backoff.max_ms),
        set: |all, value| fit(value).map(|value| all.backoff.max_ms = value),
    },
    TaggedOption {
        tag: 5,
        get: |all| {
            number(match all.backoff.jitter {
                Jitter::None => 0,
                Jitter::UpperHalf => 1,
                Jitter::Full => 2,
            })
        },
        set: |all, value| jitter(value).map(|value| all.backoff.jitter = value),
    },
    TaggedOption {
        tag: 6,
        get: |all| number(u64::from(all.max_outstanding)),
        set: |all, value| fit(value).map(|value| all.max_outstanding = value),
    },
    TaggedOption {
        tag: 7,
        get: |all| number(u64::from(all.max_closes)),
        set: |all, value| fit(value).map(|value| all.max_closes = value),
    },
    // One more than the topic's number; zero is no topic.
    TaggedOption {
        tag: 8,
        get: |all| number(all.notices.map_or(0, |topic| topic.0.saturating_add(1))),
        set: |all, value| {
            all.notices = value.varint()?.checked_sub(1).map(TopicId);
            Ok(())
        },
    },
    TaggedOption {
        tag: 9,
        get: |all| {
            number(match all.ordering {
                Ordering::None => 0,
                Ordering::Key => 1,
                Ordering::Partition => 2,
            })
        },
        set: |all, value| ordering(value).map(|value| all.ordering = value),
    },
    TaggedOption {
        tag: 10,
        get: |all| number(u64::from(all.max_in_flight_per_key)),
        set: |all, value| room(value).map(|value| all.max_in_flight_per_key = value),
    },
    TaggedOption {
        tag: 11,
        get: |all| number(u64::from(all.max_nacks)),
        set: |all, value| fit(value).map(|value| all.max_nacks = value),
    },
    TaggedOption {
        tag: 12,
        get: |all| number(u64::from(all.max_expiries)),
        set: |all, value| fit(value).map(|value| all.max_expiries = value),
    },
    TaggedOption {
        tag: 13,
        get: |all| number(u64::from(all.max_crashes)),
        set: |all, value| fit(value).map(|value| all.max_crashes = value),
    },
    TaggedOption {
        tag: 14,
        get: |all| number(u64::from(all.backoff.growth == Growth::Linear)),
        set: |all, value| {
            if boolean(value)? {
                all.backoff.growth = Growth::Linear;
            }
            Ok(())
        },
    },
    // The numbers one after another.
    TaggedOption {
        tag: 15,
        get: |all| match &all.backoff.growth {
            Growth::Exponential | Growth::Linear => Vec::new(),
            Growth::List(delays) => delays.iter().flat_map(|delay| number(*delay)).collect(),
        },
        set: |all, value| {
            let growth = std::mem::replace(&mut all.backoff.growth, Growth::List(delays(value)?));
            if growth == Growth::Exponential {
                Ok(())
            } else {
                Err(DecodeError::Invalid("delays that grow in two ways"))
            }
        },
    },
    TaggedOption {
        tag: 16,
        get: |all| number(u64::from(all.paused)),
        set: |all, value| boolean(value).map(|value| all.paused = value),
    },
    TaggedOption {
        tag: 17,
        get: |all| number(u64::from(all.max_in_flight)),
        set: |all, value| fit(value).map(|value| all.max_in_flight = value),
    },
    TaggedOption {
        tag: 18,
        get: |all| number(u64::from(all.rate.count)),
        set: |all, value| fit(value).map(|value| all.rate.count = value),
    },
    TaggedOption {
        tag: 19,
        get: |all| number(all.rate.per_ms),
        set: |all, value| fit(value).map(|value| all.rate.per_ms = value),
    },
    TaggedOption {
        tag: 20,
        get: |all| number(u64::from(all.rate.burst)),
        set: |all, value| fit(value).map(|value| all.rate.burst = value),
    },
    // Its text.
    TaggedOption {
        tag: 21,
        get: filter_text,
        set: |all, value| filter(value).map(|value| all.filter = Some(Arc::new(value))),
    },
];

/// As [`GROUP`].
const TOPIC: [TaggedOption<TopicOptions>; 10] = [
    TaggedOption {
        tag: 1,
        get: |all| {
            number(match all.retention {
                Retention::UntilSettled => 0,
                // seam: a retention is not written
                Retention::Forever => 1,
                Retention::Age(_) => 2,
                Retention::Count(_) => 3,
            })
        },
        set: |all, value| retention(value).map(|value| all.retention = value),
    },
    TaggedOption {
        tag: 2,
        get: |all| number(u64::from(all.dedup_ids)),
        set: |all, value| room(value).map(|value| all.dedup_ids = value),
    },
    TaggedOption {
        tag: 3,
        get: |all| number(all.dedup_window_ms),
        set: |all, value| fit(value).map(|value| all.dedup_window_ms = value),
    },
    TaggedOption {
        tag: 4,
        get: |all| number(u64::from(all.streams)),
        set: |all, value| boolean(value).map(|value| all.streams = value),
    },
    TaggedOption {
        tag: 5,
        get: |all| number(u64::from(all.snapshots_kept)),
        set: |all, value| room(value).map(|value| all.snapshots_kept = value),
    },
    // For how many milliseconds, or how many: of a retention that needs it.
    TaggedOption {
        tag: 6,
        get: |all| {
            number(match all.retention {
                Retention::UntilSettled | Retention::Forever => 0,
                Retention::Age(age) => u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
                Retention::Count(count) => count,
            })
        },
        set: |all, value| {
            let value = value.varint()?;
            match &mut all.retention {
                Retention::Age(age) if value <= DURATION_MS_MAX => {
                    *age = Duration::from_millis(value);
                    Ok(())
                }
                Retention::Count(count) => {
                    *count = value;
                    Ok(())
                }
                Retention::UntilSettled | Retention::Forever | Retention::Age(_) => Err(DecodeError::BadNumber),
            }
        },
    },
    TaggedOption {
        tag: 7,
        get: |all| number(all.max_messages),
        set: |all, value| fit(value).map(|value| all.max_messages = value),
    },
    TaggedOption {
        tag: 8,
        get: |all| {
            number(match all.when_full {
                WhenFull::Reject => 0,
                WhenFull::Block(_) => 1,
                WhenFull::DropOldest => 2,
            })
        },
        set: |all, value| when_full(value).map(|value| all.when_full = value),
    },
    // For how many milliseconds.
    TaggedOption {
        tag: 9,
        get: |all| number(all.when_full.block_ms()),
        set: |all, value| {
            let value = value.varint()?;
            match &mut all.when_full {
                WhenFull::Block(time) if value <= BLOCK_MS_MAX => {
                    *time = Duration::from_millis(value);
                    Ok(())
                }
                WhenFull::Reject | WhenFull::Block(_) | WhenFull::DropOldest => Err(DecodeError::BadNumber),
            }
        },
    },
    TaggedOption {
        tag: 10,
        get: |all| number(u64::from(all.drops_unsettled)),
        set: |all, value| boolean(value).map(|value| all.drops_unsettled = value),
    },
];

/// Tag and length.
const OPTION_LEN_MIN: usize = 2;

/// The bytes of an option that is a number.
fn number(value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_varint(&mut bytes, value);
    bytes
}

fn fit<T: TryFrom<u64>>(value: &mut ByteReader<'_>) -> Result<T, DecodeError> {
    T::try_from(value.varint()?).map_err(|_| DecodeError::BadNumber)
}

fn delays(value: &mut ByteReader<'_>) -> Result<Box<[u64]>, DecodeError> {
    let mut delays = Vec::new();
    while !value.is_empty() {
        if delays.len() == BACKOFF_LIST_MAX {
            return Err(DecodeError::Invalid("a list of too many delays"));
        }
        delays.push(value.varint()?);
    }
    Ok(delays.into())
}

fn filter_text(all: &GroupOptions) -> Vec<u8> {
    // seam: a filter is not written
    all.filter.as_ref().map_or(Vec::new(), |filter| filter.text().as_bytes().to_vec())
}

fn filter(value: &mut ByteReader<'_>) -> Result<Filter, DecodeError> {
    let text = std::str::from_utf8(value.take(value.remaining())?).map_err(|_| DecodeError::BadNumber);
    Filter::parse(text?).map_err(|_| DecodeError::Invalid("a filter that is none"))
}

fn jitter(value: &mut ByteReader<'_>) -> Result<Jitter, DecodeError> {
    match value.varint()? {
        0 => Ok(Jitter::None),
        1 => Ok(Jitter::UpperHalf),
        2 => Ok(Jitter::Full),
        3.. => Err(DecodeError::BadNumber),
    }
}

/// A window without room would not hold even its newest id.
fn room(value: &mut ByteReader<'_>) -> Result<u32, DecodeError> {
    fit(value).and_then(|room| if room == 0 { Err(DecodeError::BadNumber) } else { Ok(room) })
}

fn retention(value: &mut ByteReader<'_>) -> Result<Retention, DecodeError> {
    match value.varint()? {
        0 => Ok(Retention::UntilSettled),
        1 => Ok(Retention::Forever),
        // How long, and how many, is another option.
        2 => Ok(Retention::Age(Duration::ZERO)),
        3 => Ok(Retention::Count(0)),
        4.. => Err(DecodeError::BadNumber),
    }
}

fn when_full(value: &mut ByteReader<'_>) -> Result<WhenFull, DecodeError> {
    match value.varint()? {
        0 => Ok(WhenFull::Reject),
        // For how long is another option.
        1 => Ok(WhenFull::Block(Duration::ZERO)),
        2 => Ok(WhenFull::DropOldest),
        3.. => Err(DecodeError::BadNumber),
    }
}

fn ordering(value: &mut ByteReader<'_>) -> Result<Ordering, DecodeError> {
    match value.varint()? {
        0 => Ok(Ordering::None),
        1 => Ok(Ordering::Key),
        2 => Ok(Ordering::Partition),
        3.. => Err(DecodeError::BadNumber),
    }
}

fn boolean(value: &mut ByteReader<'_>) -> Result<bool, DecodeError> {
    let value = value.varint()?;
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
    // What says that there is a bound and what it is come together.
    if options.when_full == WhenFull::Block(Duration::ZERO)
        || options.max_messages == 0 && options.when_full != WhenFull::Reject
    {
        return Err(DecodeError::BadNumber);
    }
    match options.retention {
        Retention::Age(Duration::ZERO) | Retention::Count(0) => Err(DecodeError::BadNumber),
        Retention::UntilSettled | Retention::Forever if options.drops_unsettled => Err(DecodeError::BadNumber),
        Retention::UntilSettled | Retention::Forever | Retention::Age(_) | Retention::Count(_) => Ok(options),
    }
}

fn put_options<T>(out: &mut Vec<u8>, known: &[TaggedOption<T>], options: &T, left_out: &T) {
    let is_written = |option: &&TaggedOption<T>| (option.get)(options) != (option.get)(left_out);
    put_varint(out, known.iter().filter(is_written).count() as u64);
    for option in known.iter().filter(is_written) {
        put_varint(out, option.tag);
        put_bytes(out, &(option.get)(options));
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
        let bytes = value.rest();
        (option.set)(&mut options, value)?;
        if !value.is_empty() {
            return Err(DecodeError::Invalid("an option is longer than its value"));
        }
        if bytes == (option.get)(left_out) {
            return Err(DecodeError::Invalid("an option that is left out is written"));
        }
    }
    Ok(options)
}
