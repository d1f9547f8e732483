//! The hand-over between two threads that a channel alone does, paced as the queues are.

use crate::payload::{PAYLOAD_LEN, Tally};
use crate::queue::Result;
use crate::workloads::{Outcome, Scale, histogram, judged, pace, record};
use std::time::Instant;

pub(super) fn paced(scale: Scale) -> Result<Outcome> {
    let (sender, receiver) = crossbeam_channel::unbounded::<[u8; PAYLOAD_LEN]>();
    let start = Instant::now();
    let mut latencies = histogram()?;
    let mut sent = Tally::default();
    let (received, rate) = std::thread::scope(|scope| {
        let consumer = scope.spawn(|| {
            let mut tally = Tally::default();
            for payload in receiver {
                record(&mut latencies, &payload, start);
                tally.add(&payload);
            }
            tally
        });
        let rate = pace(scale, start, |payload| {
            sent.add(payload);
            Ok(sender.send(payload.try_into()?)?)
        });
        drop(sender);
        let received = consumer.join().map_err(|_| "the consumer panicked")?;
        Ok::<_, crate::queue::Failure>((received, rate?))
    })?;
    Ok(Outcome { fault: received.fault_against(sent), ..judged(rate, &latencies) })
}
