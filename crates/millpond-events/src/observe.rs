//! What is counted: nothing, without the feature `metrics`.
//!
//! Label values are bounded: errors are names of this crate, and of types the first 200 that occur; the others are `other`.

use crate::fault::Fault;
use crate::transport::WireMessage;
use std::time::Duration;

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Ok,
    Duplicate,
    Retried,
    Rejected,
}

/// What is known of an attempt when it ends.
#[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "read where it is counted"))]
pub(crate) struct Attempt<'a> {
    pub(crate) event_type: &'a str,
    pub(crate) status: Status,
    /// Why it failed; empty if it did not.
    pub(crate) error: &'static str,
    pub(crate) took: Duration,
    /// From the publish to the end, as far as the transport knows.
    pub(crate) age: Option<Duration>,
}

#[cfg(not(feature = "metrics"))]
mod counted {
    use super::{Attempt, Fault, WireMessage};

    pub(crate) const fn published(_message: &WireMessage) {}
    pub(crate) const fn processed(_attempt: &Attempt<'_>) {}
    pub(crate) const fn fault(_fault: &Fault) {}
}

#[cfg(feature = "metrics")]
mod counted {
    use super::{Attempt, Fault, Status, WireMessage};
    use crate::cloudevents::TYPE_HEADER;
    use metrics::{counter, histogram};
    use parking_lot::RwLock;
    use std::collections::BTreeSet;

    const TYPES_MAX: usize = 200;
    static TYPES: RwLock<BTreeSet<String>> = RwLock::new(BTreeSet::new());

    /// The type as a label: itself, while there are few.
    fn label(event_type: &str) -> String {
        if TYPES.read().contains(event_type) {
            return event_type.to_owned();
        }
        let mut types = TYPES.write();
        if types.len() < TYPES_MAX && !event_type.is_empty() && event_type.len() <= 128 {
            types.insert(event_type.to_owned());
        }
        if types.contains(event_type) { event_type.to_owned() } else { "other".to_owned() }
    }

    pub(crate) fn published(message: &WireMessage) {
        let header = message.headers.iter().find(|(name, _)| name == TYPE_HEADER);
        let event_type = header.and_then(|(_, value)| std::str::from_utf8(value).ok()).unwrap_or_default();
        counter!("events_published_total", "type" => label(event_type)).increment(1);
    }

    pub(crate) fn processed(attempt: &Attempt<'_>) {
        let event_type = label(attempt.event_type);
        let status = match attempt.status {
            Status::Ok => "ok",
            Status::Duplicate => "duplicate",
            Status::Retried => "failed",
            Status::Rejected => "rejected",
        };
        counter!("events_processed_total", "type" => event_type.clone(), "status" => status).increment(1);
        if !attempt.error.is_empty() {
            counter!("events_failed_total", "type" => event_type.clone(), "error" => attempt.error).increment(1);
        }
        if attempt.status == Status::Rejected {
            counter!("events_rejected_total").increment(1);
        }
        histogram!("events_processing_seconds", "type" => event_type.clone()).record(attempt.took.as_secs_f64());
        if let Some(age) = attempt.age {
            histogram!("events_delivery_seconds", "type" => event_type).record(age.as_secs_f64());
        }
    }

    pub(crate) fn fault(fault: &Fault) {
        counter!("events_faults_total", "fault" => fault.name()).increment(1);
    }

    /// Tells the recorder what each name means and in which unit it is. Call it once, after the recorder is set.
    pub fn describe_metrics() {
        use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
        describe_counter!("events_published_total", "Events that were published, by type");
        describe_counter!("events_processed_total", "Attempts that ended, by type and status");
        describe_counter!("events_failed_total", "Attempts that failed, by type and error");
        describe_counter!("events_rejected_total", "Events that became dead letters at once");
        describe_counter!("events_dead_total", "Events that became dead letters since the store was opened, by group");
        describe_counter!("events_faults_total", "What went wrong where no call returned it, by fault");
        describe_histogram!("events_processing_seconds", Unit::Seconds, "How long handlers took, by type");
        describe_histogram!(
            "events_delivery_seconds",
            Unit::Seconds,
            "From the publish to the end of an attempt, by type"
        );
        describe_gauge!("events_lag", "Events that are not settled, by group");
        describe_gauge!(
            "events_oldest_seconds",
            Unit::Seconds,
            "Age of the oldest event that is not settled, by group"
        );
        describe_gauge!("events_in_flight", "Events under a lease, by group");
        describe_gauge!("events_dead_letters", "Dead letters that wait for a person, by group");
        describe_gauge!("events_sync_age_seconds", Unit::Seconds, "Time since the last sync of the log");
    }

    /// Sets the numbers of every group of the store but those of inboxes, with the labels `topic` and `group`: the gauges `events_dead_letters`,
    /// `events_in_flight`, `events_lag` and `events_oldest_seconds`, and the counter `events_dead_total`; and the gauge
    /// `events_sync_age_seconds`. Call it before each scrape.
    ///
    /// # Errors
    /// Those of [`millpond::Store::stats`].
    pub fn record_store(store: &millpond::Store) -> millpond::Result<()> {
        let stats = store.stats()?;
        for topic in &stats.topics {
            for group in topic.groups.iter().filter(|group| !crate::inbox::is_memory(&topic.name, &group.name)) {
                let gauge = |name: &'static str, value: f64| {
                    metrics::gauge!(name, "topic" => topic.name.clone(), "group" => group.name.clone()).set(value);
                };
                counter!("events_dead_total", "topic" => topic.name.clone(), "group" => group.name.clone())
                    .absolute(group.since_open.dead);
                gauge("events_dead_letters", group.dead as f64);
                gauge("events_in_flight", group.leased as f64);
                gauge("events_lag", group.lag as f64);
                gauge("events_oldest_seconds", group.oldest_unsettled_age.map_or(0.0, |age| age.as_secs_f64()));
            }
        }
        if let Some(age) = stats.log.last_sync_age {
            metrics::gauge!("events_sync_age_seconds").set(age.as_secs_f64());
        }
        Ok(())
    }
}

#[cfg(feature = "metrics")]
pub use counted::{describe_metrics, record_store};
pub(crate) use counted::{fault, processed, published};
