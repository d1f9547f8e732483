//! What can be known of a store by reading alone: its state at one LSN, and where its messages are.
//!
//! A [`View`] is built by replaying the log and needs no writer's lock. The writer holds one under its own lock and moves it on
//! with each frame that it appends; an observer holds one of its own. Both read messages by the same functions ([`ViewHolder`]).
//! Never here: appending, files that are created or removed, threads.

mod backup;
mod counters;
mod dump;
mod fold;
mod follow;
mod kept;
mod log_scan;
pub(crate) mod log_start;
mod missing;
mod next;
mod observer;
mod owners;
mod positions;
mod read;
mod runs;
mod share;
mod stats;
mod stored;
mod topics;
mod touches;
mod verify;
mod visible;

pub use backup::BackupReport;
pub(crate) use backup::backup;
pub(crate) use counters::Counters;
pub use counters::GroupCounters;
pub use dump::{DumpEntry, DumpedFrame, DumpedRecord};
pub(crate) use fold::{Fold, contradiction, open_error};
pub(crate) use follow::FrameAt;
pub(crate) use kept::{LiveParts, Stay};
pub(crate) use log_scan::{LogHolder, LogLook, LogScan, LogStep};
pub(crate) use log_start::LogStart;
pub use missing::{LostLog, LostMessages, RepairReport};
pub(crate) use next::next_run;
#[cfg(test)]
pub(crate) use next::resolve;
pub(crate) use observer::ObservedView;
pub(crate) use positions::{MessageLocation, Positions};
pub(crate) use read::{Reader, ViewHolder, absent, unreadable};
pub(crate) use runs::SegmentRuns;
pub(crate) use share::{Share, share_of};
pub(crate) use stats::Moment;
pub use stats::{GroupPartitionStats, GroupStats, LogStats, PartitionStats, Stats, TopicStats};
pub(crate) use stored::Stored;
pub(crate) use topics::TopicInfo;
pub(crate) use touches::for_each_frame_of_records;
pub use verify::{VerifyProgress, VerifyReport};
pub(crate) use visible::VisibleEnds;

use crate::ids::{Lsn, MonoMs, WallMs};
use crate::log::{BlockCache, Catalog, FrontCache};
use crate::state::{HoldUp, Inputs, KnownVerdicts, State, StreamTails};
use owners::Owners;
use std::path::PathBuf;

/// The store as of one LSN.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) state: State,
    /// The files that hold the log.
    pub(crate) catalog: Catalog,
    pub(crate) positions: Positions,
    pub(crate) visible: VisibleEnds,
    /// What is known of streams beside the index.
    pub(crate) streams: StreamTails,
    /// What filters of groups say of their next messages, as far as those were read.
    pub(crate) verdicts: KnownVerdicts,
}

/// How much of sealed segments and their indexes is kept in memory.
const CACHE_BYTES: usize = 16 << 20;
/// How much is kept in memory of what stands before the messages of frames that hold many.
const FRONTS_BYTES: usize = 16 << 20;

/// What all readers of a store share.
#[derive(Debug)]
pub(crate) struct ReadCaches {
    blocks: BlockCache,
    fronts: FrontCache<Owners>,
    /// For errors. Empty where the disk is the caller's.
    pub(crate) dir: PathBuf,
}

impl ReadCaches {
    fn blocks(&self) -> &BlockCache {
        &self.blocks
    }

    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { blocks: BlockCache::new(CACHE_BYTES), fronts: FrontCache::new(FRONTS_BYTES), dir }
    }
}

/// The times and the watermark that an operation goes by, read before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) mono: MonoMs,
    // Between the two, which are then not copied in one go: a load of what two stores have just written waits for both.
    pub(crate) watermark: Lsn,
    pub(crate) wall: WallMs,
    /// What the wall clock would say but for a jump that is not noted yet.
    pub(crate) steady: WallMs,
    /// By how much the clocks may be behind.
    pub(crate) slack_ms: u64,
}

impl Now {
    /// What decisions and counts go by.
    pub(crate) fn inputs<'a>(
        &self,
        hold_up: HoldUp,
        visible: &'a VisibleEnds,
        (streams, verdicts): (&'a StreamTails, &'a KnownVerdicts),
    ) -> Inputs<'a> {
        let Self { mono, wall, steady, slack_ms, .. } = *self;
        Inputs { mono, wall, steady, slack_ms, hold_up, visible: visible.as_input(), streams, verdicts }
    }
}
