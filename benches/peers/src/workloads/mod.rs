//! The workloads, each run once in a process of its own. What came out is always compared with what went in.

mod disk;
mod live;
mod open;
mod publish;
mod receive;
#[cfg(test)]
mod tests;

use crate::payload::Tally;
use crate::queue::{Peer, Queue, Result};
use crate::workload::Workload;
use std::path::Path;
use std::time::{Duration, Instant};

pub(crate) use live::{histogram, judged, pace, record};
pub(crate) use open::{fill, measure_open};
pub(crate) use publish::{BATCH, from_threads, with_range};

/// How long and how much.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scale {
    /// The most messages that a workload moves, and how many wait where an opening is measured.
    pub(crate) messages: u64,
    /// The longest that the measured part of a workload runs.
    pub(crate) limit: Duration,
    /// Threads of the workload with many.
    pub(crate) threads: u64,
}

/// What one run of a workload found.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    /// The figure, in the unit of the workload. None where the queue could not do what was asked.
    pub(crate) figure: Option<f64>,
    /// The 99th percentile, where the figure is a median.
    pub(crate) p99: Option<f64>,
    /// What is wrong with what came out.
    pub(crate) fault: Option<String>,
    /// What a reader should know about this figure.
    pub(crate) note: Option<String>,
}

impl Outcome {
    /// `count` messages in `elapsed`.
    pub(crate) fn rate(count: u64, elapsed: Duration) -> Self {
        Self { figure: Some(count as f64 / elapsed.as_secs_f64()), ..Self::default() }
    }
}

/// Runs a workload on a peer in an empty directory. Not those that need two processes: see [`fill`] and [`measure_open`].
pub(crate) fn run(workload: Workload, peer: &Peer, dir: &Path, scale: Scale) -> Result<Outcome> {
    match workload {
        Workload::PublishOne => publish::one_at_a_time(peer, dir, scale),
        Workload::PublishBatch => publish::in_batches(peer, dir, scale),
        Workload::Durable => publish::durable(peer, dir, scale),
        Workload::DurableBatch => publish::durable_in_batches(peer, dir, scale),
        Workload::DurableMany => publish::durable_from_many(peer, dir, scale),
        Workload::ReceiveOne => receive::one_at_a_time(peer, dir, scale),
        Workload::ReceiveBatch => receive::in_batches(peer, dir, scale),
        Workload::Live => live::paced(peer, dir, scale),
        Workload::DiskBytes => disk::bytes_for_each(peer, dir, scale),
        Workload::OpenClean | Workload::OpenKilled => Err("opening is measured in a second process".into()),
    }
}

/// Calls `step` with 0, 1, 2... until it took `scale.limit` or `count` calls were made, and says how many and how long. The clock is read
/// once in `stride` calls.
pub(crate) fn repeat(
    count: u64,
    stride: u64,
    scale: Scale,
    mut step: impl FnMut(u64) -> Result<()>,
) -> Result<(u64, Duration)> {
    let start = Instant::now();
    let mut done = 0;
    while done < count && start.elapsed() < scale.limit {
        let end = (done + stride).min(count);
        while done < end {
            step(done)?;
            done += 1;
        }
    }
    Ok((done, start.elapsed()))
}

/// Takes everything out of the queue: what is wrong with it if it should have held `expected`?
fn drained_fault(queue: Box<dyn Queue>, expected: Tally) -> Result<Option<String>> {
    Ok(queue.drain()?.fault_against(expected))
}
