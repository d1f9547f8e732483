//! Receiving and acknowledging from a full queue.

use super::publish::{BATCH, fill_range};
use super::{Outcome, Scale, repeat};
use crate::payload::Tally;
use crate::queue::{Mode, Peer, Queue, Result};
use std::path::Path;
use std::time::Duration;

pub(super) fn one_at_a_time(peer: &Peer, dir: &Path, scale: Scale) -> Result<Outcome> {
    let queue = filled(peer, dir, scale)?;
    let mut tally = Tally::default();
    let mut is_empty = false;
    let (_, elapsed) = repeat(scale.messages, 16, scale, |_| {
        is_empty |= !queue.receive_ack(&mut |payload| tally.add(payload))?;
        Ok(())
    })?;
    checked(queue, tally, elapsed, is_empty, scale)
}

pub(super) fn in_batches(peer: &Peer, dir: &Path, scale: Scale) -> Result<Outcome> {
    let queue = filled(peer, dir, scale)?;
    let mut tally = Tally::default();
    let mut is_empty = false;
    let max = usize::try_from(BATCH)?;
    let (_, elapsed) = repeat(scale.messages / BATCH, 1, scale, |_| {
        is_empty |= queue.receive_ack_batch(max, &mut |payload| tally.add(payload))? == 0;
        Ok(())
    })?;
    checked(queue, tally, elapsed, is_empty, scale)
}

fn filled(peer: &Peer, dir: &Path, scale: Scale) -> Result<Box<dyn Queue>> {
    let queue = (peer.open)(dir, Mode::Process)?;
    fill_range(queue.as_ref(), 0, scale.messages)?;
    Ok(queue)
}

/// The outcome, with what the measured part received and what was left compared with what was published.
fn checked(
    queue: Box<dyn Queue>,
    mut tally: Tally,
    elapsed: Duration,
    is_empty: bool,
    scale: Scale,
) -> Result<Outcome> {
    let outcome = Outcome::rate(tally.count, elapsed);
    tally.merge(queue.drain()?);
    let fault = tally.fault_against(Tally::of_first(scale.messages));
    // A queue that was empty too early but lost nothing answered «none» while some waited.
    let fault = fault.or_else(|| is_empty.then(|| "said to be empty while messages waited".to_owned()));
    Ok(Outcome { fault, ..outcome })
}
