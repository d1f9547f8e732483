//! Sending at a steady rate, and measuring against the schedule and not against the sender: a stall counts for every message
//! that should have been sent during it.
//!
//! Never here: what is sent.

use super::now;
use hdrhistogram::Histogram;
use std::time::{Duration, Instant};

/// When message `n` is due after the start.
fn due(rate: u64, n: u64) -> Duration {
    Duration::from_nanos(n * 1_000_000_000 / rate)
}

/// Latencies in nanoseconds, up to a minute.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("valid bounds")
}

pub(crate) fn record(histogram: &mut Histogram<u64>, latency: Duration) {
    histogram.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
}

/// Calls `send` for each of `count` messages when it is due, as late as it may be.
pub(crate) fn send_paced(start: Instant, rate: u64, count: u64, mut send: impl FnMut(u64)) {
    for n in 0..count {
        let due = start + due(rate, n);
        while now() < due {
            // The other threads need the processor more.
            std::thread::yield_now();
        }
        send(n);
    }
}

/// Sends `count` messages at `rate` a second from this thread, receives them in another, and returns how long after it was
/// due each arrived. `receive` waits for the next message and returns its number. The first tenth warms up and does not count.
pub(crate) fn end_to_end(
    rate: u64,
    count: u64,
    send: impl FnMut(u64),
    mut receive: impl FnMut() -> u64 + Send,
) -> Histogram<u64> {
    // A moment for the receiver to be there.
    let start = now() + Duration::from_millis(1);
    std::thread::scope(|scope| {
        let receiver = scope.spawn(move || {
            let mut latencies = histogram();
            for expected in 0..count {
                assert_eq!(receive(), expected, "in order, each once");
                if expected >= count / 10 {
                    record(&mut latencies, now().saturating_duration_since(start + due(rate, expected)));
                }
            }
            latencies
        });
        send_paced(start, rate, count, send);
        let latencies = receiver.join().expect("the receiver");
        assert_eq!(latencies.len(), count - count / 10, "each was counted");
        latencies
    })
}

/// How long after it was due each call returned, for `count` calls at `rate` a second.
pub(crate) fn call_latency(rate: u64, count: u64, mut call: impl FnMut(u64)) -> Histogram<u64> {
    let mut latencies = histogram();
    let start = now();
    send_paced(start, rate, count, |n| {
        call(n);
        record(&mut latencies, now().saturating_duration_since(start + due(rate, n)));
    });
    latencies
}

/// The floor of [`end_to_end`]: numbers handed through a channel.
pub(crate) fn bare_hand_over(rate: u64, count: u64) -> Histogram<u64> {
    let (sender, receiver) = crossbeam_channel::bounded(65_536);
    let send = |n| sender.send(n).expect("somebody receives");
    end_to_end(rate, count, send, || receiver.recv().expect("somebody sends"))
}
