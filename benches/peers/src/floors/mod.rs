//! What the bare machine does for the same task, without a queue: the figure that no queue on it can pass.

mod channel;
mod mapped;
mod synced;
mod written;

use crate::queue::Result;
use crate::workload::Workload;
use crate::workloads::{Outcome, Scale};
use std::path::Path;
use written::Sync;

/// Measures the floor of a workload in an empty directory.
pub(crate) fn run(workload: Workload, dir: &Path, scale: Scale) -> Result<Outcome> {
    match workload {
        Workload::PublishOne => mapped::stores(dir, scale),
        Workload::PublishBatch => written::batches(dir, scale, Sync::Never),
        Workload::Durable => synced::alone(dir, scale),
        Workload::DurableBatch => written::batches(dir, scale, Sync::EachBatch),
        Workload::DurableMany => synced::led(dir, scale),
        Workload::Live => channel::paced(scale),
        _ => Err("this workload has no floor".into()),
    }
}
