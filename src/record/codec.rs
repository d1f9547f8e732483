//! The bytes of records: a frame's head is any number of them, one after another.
//!
//! A record is its kind, the length of its body, and the body: fields as varints in the order written here, which use it up.
//! What the common case does not need stands at the end of a body, and is left out there. Every record has exactly one
//! encoding: what may be left out is never written. Kinds are for ever; an unknown one is told from damage, and is not
//! skipped. Never here: whether a fact may follow those before it.

use super::Record;
use super::wire::{ByteReader, DecodeError};

mod decode;
mod encode;
mod options;
#[cfg(test)]
mod tests;

pub(crate) use decode::{cursor_value, due_time, earlier, failure, hold, key_hash, name};
pub(crate) use encode::{put_due_time, put_earlier, put_failure, put_hold, put_key_hash};
pub(crate) use options::{group_options, put_group_options, put_topic_options, topic_options};

/// Kind 0 does not exist, so that zeros are no record.
mod kind {
    pub(super) const PUBLISHED: u8 = 1;
    pub(super) const LEASED: u8 = 2;
    pub(super) const ACKED: u8 = 3;
    pub(super) const NACKED: u8 = 4;
    pub(super) const EXTENDED: u8 = 5;
    pub(super) const RELEASED: u8 = 6;
    pub(super) const UNREADABLE: u8 = 7;
    pub(super) const EXCLUSIVE_PENDING: u8 = 8;
    pub(super) const DEAD_LETTERED: u8 = 9;
    pub(super) const POSTPONED: u8 = 10;
    pub(super) const REDRIVEN: u8 = 11;
    pub(super) const DISCARDED: u8 = 12;
    pub(super) const OPENED: u8 = 13;
    pub(super) const CLOCK_JUMPED: u8 = 14;
    pub(super) const TOPIC_CREATED: u8 = 15;
    pub(super) const GROUP_CREATED: u8 = 16;
    pub(super) const TOPIC_REMOVED: u8 = 17;
    pub(super) const GROUP_REMOVED: u8 = 18;
    pub(super) const GROUP_ALTERED: u8 = 19;
    pub(super) const CURSOR_SET: u8 = 20;
    pub(super) const CURSOR_REMOVED: u8 = 21;
    pub(super) const ACCEPTED: u8 = 22;
    pub(super) const SEQUENCED: u8 = 23;
    pub(super) const APPENDED: u8 = 24;
    pub(super) const STREAM_TRUNCATED: u8 = 25;
    pub(super) const SNAPSHOT_SAVED: u8 = 26;

    pub(super) const SCHEDULE_CREATED: u8 = 27;
    pub(super) const SCHEDULED: u8 = 28;
    pub(super) const SCHEDULE_ENDED: u8 = 29;
    pub(super) const CONSIDERED: u8 = 30;
    pub(super) const RECALLED: u8 = 31;
    pub(super) const RETENTION_MARKED: u8 = 32;
    pub(super) const FILTERED: u8 = 33;
    pub(super) const DROPPED: u8 = 34;
    pub(super) const KEY_TAKEN: u8 = 35;
    pub(super) const GROUP_SOUGHT: u8 = 36;

    pub(super) const MAX: u8 = GROUP_SOUGHT;
}

/// Flags of `Leased`: the count is written, and is not one.
const MANY: u8 = 0x01;
/// Attempt (not one) and time are written.
const AGAIN: u8 = 0x02;
/// An exclusive lease.
const EXCLUSIVE: u8 = 0x04;

/// A flag of `Scheduled`: due by the wall clock.
const BY_WALL: u8 = 0x01;
/// It was scheduled before.
const RESCHEDULED: u8 = 0x02;

/// Appends the bytes of `records`.
#[inline]
pub(crate) fn encode(records: &[Record], out: &mut Vec<u8>) {
    for record in records {
        encode::record(record, out);
    }
}

#[cfg(any(test, feature = "simulation"))]
thread_local! {
    static DECODED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// How many records this thread has decoded.
#[cfg(any(test, feature = "simulation"))]
pub fn records_decoded() -> u64 {
    DECODED.with(std::cell::Cell::get)
}

/// The records of a head, in order.
pub(crate) fn decode(head: &[u8]) -> Decoder<'_> {
    Decoder { reader: ByteReader::new(head) }
}

/// A record as its bytes are, known or not.
#[derive(Debug)]
pub(crate) struct RecordOutline<'a> {
    pub(crate) kind: u64,
    pub(crate) body: &'a [u8],
    pub(crate) record: Result<Record, DecodeError>,
}

/// Each record of a head with its kind and body; the last is an error where the rest is no record.
pub(crate) fn outline(head: &[u8]) -> impl Iterator<Item = Result<RecordOutline<'_>, DecodeError>> {
    let mut reader = ByteReader::new(head);
    std::iter::from_fn(move || {
        if reader.is_empty() {
            return None;
        }
        let record = decode::record(&mut reader.clone());
        let outlined = reader.varint().and_then(|kind| Ok(RecordOutline { kind, body: reader.bytes()?, record }));
        if outlined.is_err() {
            reader = ByteReader::new(&[]);
        }
        Some(outlined)
    })
}

/// Yields each record of a head. What cannot be decoded it never gets past: the rest is never taken for the end.
#[derive(Debug)]
pub(crate) struct Decoder<'a> {
    reader: ByteReader<'a>,
}

impl Iterator for Decoder<'_> {
    type Item = Result<Record, DecodeError>;

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        #[cfg(any(test, feature = "simulation"))]
        DECODED.with(|count| count.set(count.get() + 1));
        let before = self.reader.clone();
        let record = decode::record(&mut self.reader);
        if record.is_err() {
            self.reader = before;
        }
        Some(record)
    }
}
