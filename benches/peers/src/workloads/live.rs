//! From publish to receive while both go on, at a fixed pace.

use super::{Outcome, Scale};
use crate::payload::{Payload, Tally, stamp};
use crate::queue::{Mode, Peer, Queue, Result};
use hdrhistogram::Histogram;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Messages a second.
pub(crate) const RATE: u64 = 50_000;
/// The part of the rate that must be reached for the latency to mean anything.
const REACHED_MIN: f64 = 0.9;
/// A queue that falls this far behind is not asked to go on.
const BEHIND_MAX: Duration = Duration::from_millis(500);
/// How long the consumer waits for what is still under way when the publisher is done.
const TAIL_MAX: Duration = Duration::from_secs(5);
const RECEIVE_MAX: usize = 100;
const RECEIVE_WAIT: Duration = Duration::from_millis(10);

pub(super) fn paced(peer: &Peer, dir: &Path, scale: Scale) -> Result<Outcome> {
    let queue = (peer.open)(dir, Mode::Process)?;
    let published = AtomicU64::new(0);
    let is_done = AtomicBool::new(false);
    let (start, busy_before) = (Instant::now(), busy_time()?);
    let (sent, received) = std::thread::scope(|scope| {
        let consumer = scope.spawn(|| consume(queue.as_ref(), start, &published, &is_done));
        let mut sent = Tally::default();
        let paced = pace(scale, start, |payload| {
            queue.publish(payload)?;
            sent.add(payload);
            published.fetch_add(1, Ordering::Release);
            Ok(())
        });
        is_done.store(true, Ordering::Release);
        let received = consumer.join().map_err(|_| "the consumer panicked")?;
        Ok::<_, crate::queue::Failure>(((sent, paced?), received?))
    })?;
    let ((sent, rate), (mut tally, latencies)) = (sent, received);
    let busy = (busy_time()? - busy_before).as_secs_f64() / start.elapsed().as_secs_f64();
    // What the consumer left behind has no latency: a consumer that was too slow must not look fast for it.
    let received = (tally.count as f64 / sent.count.max(1) as f64).min(1.0);
    tally.merge(queue.drain()?);
    let outcome = judged(rate * received, &latencies);
    let note = outcome.note.or_else(|| Some(format!("{busy:.1} cores busy")));
    Ok(Outcome { fault: tally.fault_against(sent), note, ..outcome })
}

/// Publishes on schedule, stamped with the time at which each was due, and says what rate was reached.
pub(crate) fn pace(scale: Scale, start: Instant, mut publish: impl FnMut(&[u8]) -> Result<()>) -> Result<f64> {
    let total = scale.messages.min((scale.limit.as_secs_f64() * RATE as f64) as u64);
    let interval = 1_000_000_000 / RATE;
    let mut payload = Payload::new(0);
    for number in 0..total {
        let due = Duration::from_nanos((number + 1) * interval);
        loop {
            let now = start.elapsed();
            if now >= due {
                if now > due + BEHIND_MAX {
                    return Ok(number as f64 / now.as_secs_f64());
                }
                break;
            }
            // The other threads may need this core.
            std::thread::yield_now();
        }
        payload.set(number, u64::try_from(due.as_nanos())?);
        publish(payload.bytes())?;
    }
    Ok(total as f64 / start.elapsed().as_secs_f64())
}

/// How long the threads of this process have run. The publisher of a paced workload is always running.
fn busy_time() -> Result<Duration> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Ok(Duration::new(u64::try_from(time.tv_sec)?, u32::try_from(time.tv_nsec)?))
}

type Received = (Tally, Histogram<u64>);

fn consume(queue: &dyn Queue, start: Instant, published: &AtomicU64, is_done: &AtomicBool) -> Result<Received> {
    let mut tally = Tally::default();
    let mut latencies = histogram()?;
    let mut done_at = None;
    loop {
        let done = is_done.load(Ordering::Acquire);
        if done && tally.count >= published.load(Ordering::Acquire) {
            break;
        }
        queue.receive_ack_wait(RECEIVE_MAX, RECEIVE_WAIT, &mut |payload| {
            record(&mut latencies, payload, start);
            tally.add(payload);
        })?;
        if done && done_at.get_or_insert_with(Instant::now).elapsed() > TAIL_MAX {
            break;
        }
    }
    Ok((tally, latencies))
}

/// Up to a minute, in nanoseconds.
pub(crate) fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000_000, 3)?)
}

/// Takes in how long ago the payload was due.
pub(crate) fn record(latencies: &mut Histogram<u64>, payload: &[u8], start: Instant) {
    let now = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    latencies.saturating_record(now.saturating_sub(stamp(payload).unwrap_or(0)));
}

/// The figures, or why there are none.
pub(crate) fn judged(rate: f64, latencies: &Histogram<u64>) -> Outcome {
    if rate < REACHED_MIN * RATE as f64 {
        let note = Some(format!("reached {:.1} k/s", rate / 1e3));
        return Outcome { note, ..Outcome::default() };
    }
    let microseconds = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
    Outcome { figure: Some(microseconds(0.5)), p99: Some(microseconds(0.99)), ..Outcome::default() }
}
