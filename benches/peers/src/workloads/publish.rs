//! Publishing: one at a time, in batches, durably, and durably from many threads.

use super::{Outcome, Scale, drained_fault, repeat};
use crate::machine::Flushes;
use crate::payload::{PAYLOAD_LEN, Payload, Tally};
use crate::queue::{Mode, Peer, Queue, Result};
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// Messages of a batch.
pub(crate) const BATCH: u64 = 100;
/// Messages of a batch that fills a queue before the measured part.
const FILLING: u64 = 1000;

pub(super) fn one_at_a_time(peer: &Peer, dir: &Path, scale: Scale) -> Result<Outcome> {
    let queue = (peer.open)(dir, Mode::Process)?;
    let mut payload = Payload::new(0);
    let (count, elapsed) = repeat(scale.messages, 64, scale, |number| {
        payload.set(number, 0);
        queue.publish(payload.bytes())
    })?;
    Ok(Outcome { fault: drained_fault(queue, Tally::of_first(count))?, ..Outcome::rate(count, elapsed) })
}

pub(super) fn in_batches(peer: &Peer, dir: &Path, scale: Scale) -> Result<Outcome> {
    let queue = (peer.open)(dir, Mode::Process)?;
    let (batches, elapsed) = repeat(scale.messages / BATCH, 4, scale, |batch| {
        with_range(batch * BATCH, BATCH, |payloads| queue.publish_batch(payloads))
    })?;
    let count = batches * BATCH;
    Ok(Outcome { fault: drained_fault(queue, Tally::of_first(count))?, ..Outcome::rate(count, elapsed) })
}

pub(super) fn durable(peer: &Peer, dir: &Path, scale: Scale) -> Result<Outcome> {
    let queue = (peer.open)(dir, Mode::Power)?;
    let flushes = Flushes::begin(dir);
    let (count, elapsed) =
        repeat(scale.messages, 1, scale, |number| queue.publish_durable(Payload::new(number).bytes()))?;
    let note = flushes.note(count, "message");
    Ok(Outcome { fault: drained_fault(queue, Tally::of_first(count))?, note, ..Outcome::rate(count, elapsed) })
}

pub(super) fn durable_in_batches(peer: &Peer, dir: &Path, scale: Scale) -> Result<Outcome> {
    let queue = (peer.open)(dir, Mode::Power)?;
    let flushes = Flushes::begin(dir);
    let (batches, elapsed) = repeat(scale.messages / BATCH, 1, scale, |batch| {
        with_range(batch * BATCH, BATCH, |payloads| queue.publish_batch_durable(payloads))
    })?;
    let (count, note) = (batches * BATCH, flushes.note(batches, "batch"));
    Ok(Outcome { fault: drained_fault(queue, Tally::of_first(count))?, note, ..Outcome::rate(count, elapsed) })
}

pub(super) fn durable_from_many(peer: &Peer, dir: &Path, scale: Scale) -> Result<Outcome> {
    let queue = (peer.open)(dir, Mode::Power)?;
    let flushes = Flushes::begin(dir);
    let (expected, elapsed) = from_threads(scale, |payload| queue.publish_durable(payload))?;
    let note = flushes.note(expected.count, "message");
    Ok(Outcome { fault: drained_fault(queue, expected)?, note, ..Outcome::rate(expected.count, elapsed) })
}

/// Has each thread call `publish` again and again, and says what they published and how long it took.
pub(crate) fn from_threads(scale: Scale, publish: impl Fn(&[u8]) -> Result<()> + Sync) -> Result<(Tally, Duration)> {
    let barrier = Barrier::new(usize::try_from(scale.threads)?);
    let work = |thread: u64| -> Result<(Tally, Instant, Instant)> {
        let mut tally = Tally::default();
        barrier.wait();
        let start = Instant::now();
        while start.elapsed() < scale.limit && tally.count < scale.messages / scale.threads {
            let payload = Payload::new(thread + tally.count * scale.threads);
            publish(payload.bytes())?;
            tally.add(payload.bytes());
        }
        Ok((tally, start, Instant::now()))
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..scale.threads).map(|thread| scope.spawn(move || work(thread))).collect();
        let mut tally = Tally::default();
        let mut span: Option<(Instant, Instant)> = None;
        for thread in threads {
            let (published, start, end) = thread.join().map_err(|_| "a publishing thread panicked")??;
            tally.merge(published);
            span = Some(span.map_or((start, end), |(first, last)| (first.min(start), last.max(end))));
        }
        let (first, last) = span.ok_or("no threads")?;
        Ok((tally, last - first))
    })
}

/// Makes the payloads `first..first + count` and has `publish` take them as one batch.
pub(crate) fn with_range(first: u64, count: u64, publish: impl FnOnce(&[&[u8]]) -> Result<()>) -> Result<()> {
    let payloads: Vec<Payload> = (first..first + count).map(Payload::new).collect();
    let mut bytes: Vec<&[u8]> = Vec::with_capacity(payloads.len());
    bytes.extend(payloads.iter().map(Payload::bytes));
    debug_assert!(bytes.iter().all(|bytes| bytes.len() == PAYLOAD_LEN));
    publish(&bytes)
}

/// Publishes the payloads `first..end` fast.
pub(super) fn fill_range(queue: &dyn Queue, first: u64, end: u64) -> Result<()> {
    let mut next = first;
    while next < end {
        let count = FILLING.min(end - next);
        with_range(next, count, |payloads| queue.publish_batch(payloads))?;
        next += count;
    }
    Ok(())
}
