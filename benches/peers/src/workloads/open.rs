//! Opening with messages waiting. One process fills the queue and closes it or is killed; another opens it.

use super::publish::fill_range;
use super::{Outcome, Scale, drained_fault};
use crate::payload::{Payload, Tally};
use crate::queue::{Mode, Peer, Queue, Result};
use std::path::Path;
use std::time::Instant;

/// The last messages before the end are published one at a time: these are the ones that a crash would lose.
const ONE_AT_A_TIME: u64 = 1000;

/// Fills a queue and leaves it open.
pub(crate) fn fill(peer: &Peer, dir: &Path, scale: Scale) -> Result<Box<dyn Queue>> {
    let queue = (peer.open)(dir, Mode::Process)?;
    let batched = scale.messages.saturating_sub(ONE_AT_A_TIME);
    fill_range(queue.as_ref(), 0, batched)?;
    for number in batched..scale.messages {
        queue.publish(Payload::new(number).bytes())?;
    }
    Ok(queue)
}

/// Opens what [`fill`] left, up to the first message, and checks the rest.
pub(crate) fn measure_open(peer: &Peer, dir: &Path, scale: Scale) -> Result<Outcome> {
    let mut tally = Tally::default();
    let start = Instant::now();
    let queue = (peer.open)(dir, Mode::Process)?;
    let received = queue.receive_ack(&mut |payload| tally.add(payload))?;
    let elapsed = start.elapsed();
    let expected = Tally::of_first(scale.messages);
    let fault = if received {
        let mut rest = queue.drain()?;
        rest.merge(tally);
        rest.fault_against(expected)
    } else {
        drained_fault(queue, expected)?.or_else(|| Some("said to be empty while messages waited".to_owned()))
    };
    Ok(Outcome { figure: Some(elapsed.as_secs_f64() * 1e3), fault, ..Outcome::default() })
}
