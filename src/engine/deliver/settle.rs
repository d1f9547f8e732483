//! Settling leases: acks, nacks, rejections, extensions, releases.
//!
//! Never here: public handles, and what a lease is (the state decides whether one is held).

use crate::engine::Engine;
use crate::engine::core::{CommitOutcome, Core};
use crate::engine::deliver::leased::LeasedMessage;
use crate::error::Result;
use crate::ids::{GroupId, Lsn};
use crate::log::Parts;
use crate::record::FailureCause;
use crate::state::{Command, Decision, Held, HeldRun, Rejection};

impl Engine {
    /// Carries out a settling command on one lease. Returns whether the lease was still held.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn settle(&self, command: &Command<'_>, parts: Parts<'_>) -> Result<Option<Lsn>> {
        match self.submit(command, parts, end_of)? {
            Ok(end) => Ok(Some(end)),
            Err(Rejection::LeaseLost) => Ok(None),
            Err(rejection) => Err(self.rejected(rejection)),
        }
    }

    /// Acknowledges leases in one frame. Returns its end, and the numbers of those whose lease was lost.
    ///
    /// # Errors
    /// The store's; nothing was acknowledged then.
    pub(crate) fn ack(&self, group: GroupId, held: &[HeldRun]) -> Result<(Lsn, Vec<u32>)> {
        self.enter()?;
        let submitted = self.submit(&Command::Ack { group, held }, Parts::default(), |core, committed| {
            (end_of(core, committed), lost(committed))
        })?;
        submitted.map_err(|rejection| self.rejected(rejection))
    }

    /// Carries out a command that copies one message.
    pub(crate) fn submit_copy(&self, command: &Command<'_>, part: &[u8]) -> Result<Result<Lsn, Rejection>> {
        let (ends, crcs) = ([part.len() as u32], [crc32fast::hash(part)]);
        let parts = Parts { bytes: part, ends: &ends, crcs: &crcs };
        self.submit(command, parts, end_of)
    }

    /// Gives a leased message back for a retry, or to the dead letters at its last attempt. `false` where the lease was lost.
    pub(crate) fn nack(&self, message: LeasedMessage<'_>, delay_ms: Option<u64>, text: &str) -> Result<bool> {
        self.enter()?;
        let moved = message.moved(FailureCause::Nacked, text);
        self.was_held(self.submit_move(&moved, |notice| message.nack(delay_ms, text, notice))?)
    }

    /// Moves a leased message to the dead letters. `false` where the lease was lost.
    pub(crate) fn reject(&self, message: LeasedMessage<'_>, text: &str) -> Result<bool> {
        self.enter()?;
        let moved = message.moved(FailureCause::Rejected, text);
        self.was_held(self.submit_move(&moved, |notice| message.reject(text, notice))?)
    }

    fn was_held(&self, settled: std::result::Result<Lsn, Rejection>) -> Result<bool> {
        match settled {
            Ok(_) => Ok(true),
            Err(Rejection::LeaseLost) => Ok(false),
            Err(rejection) => Err(self.rejected(rejection)),
        }
    }

    /// Lets a lease last `for_ms` from now. `false` where it was lost.
    pub(crate) fn extend(&self, group: GroupId, held: Held, for_ms: u64) -> Result<bool> {
        self.enter()?;
        Ok(self.settle(&Command::Extend { group, held, for_ms }, Parts::default())?.is_some())
    }

    /// Gives leases back unused: their attempts are taken back. Returns the numbers of those that were lost.
    ///
    /// # Errors
    /// The store's; nothing was given back then.
    pub(crate) fn release(&self, group: GroupId, held: &[HeldRun]) -> Result<Vec<u32>> {
        self.enter()?;
        let released =
            self.submit(&Command::Release { group, held }, Parts::default(), |_, committed| lost(committed))?;
        released.map_err(|rejection| self.rejected(rejection))
    }
}

/// The numbers of the leases that a command found lost.
fn lost(committed: &CommitOutcome) -> Vec<u32> {
    match &committed.decision {
        Decision::Settled { lost } => lost.clone(),
        Decision::Done
        | Decision::Nothing
        | Decision::Exhausted { .. }
        | Decision::KeysNeeded { .. }
        | Decision::Considered { .. }
        | Decision::VerdictsNeeded { .. }
        | Decision::Filtered { .. } => Vec::new(),
    }
}

/// Where the log must be durable for what was committed to be.
pub(in crate::engine) fn end_of(core: &mut Core, committed: &CommitOutcome) -> Lsn {
    // A mark at the end asks for no sync: where it is all that a sync would add, a crash may take it back.
    committed.frame.map_or(core.appender.wanted(), |(_, end)| end)
}
