//! The options of a group as a caller gives them: some, when it is opened, or to alter it.
//!
//! Never here: what is stored.

use super::group::GroupInner;
use super::options::{shown as shown_backoff, shown_rate};
use super::store::StoreShared;
use super::{Backoff, RateLimit, Topic, millis};
use crate::engine::{Filter, FilterFault, GroupChanges, GroupOptions, Ordering, RateOptions};
use crate::error::{Error, Result};
use crate::limits;
use std::sync::Arc;
use std::time::Duration;

/// Options that were given; the others stay as they are, or have their defaults.
#[derive(Clone, Debug, Default)]
pub(super) struct Given {
    pub(super) visibility_timeout: Option<Duration>,
    pub(super) max_attempts: Option<u32>,
    pub(super) max_nacks: Option<u32>,
    pub(super) max_expiries: Option<u32>,
    pub(super) max_crashes: Option<u32>,
    pub(super) backoff: Option<Backoff>,
    pub(super) max_outstanding: Option<u32>,
    pub(super) max_closes: Option<u32>,
    /// A topic, or none at all.
    pub(super) notices: Option<Option<Topic>>,
    /// Never to alter a group.
    pub(super) ordering: Option<Ordering>,
    pub(super) max_in_flight_per_key: Option<u32>,
    pub(super) max_in_flight: Option<u32>,
    /// A rate, or none at all.
    pub(super) rate_limit: Option<Option<RateLimit>>,
    /// A filter, or none at all.
    pub(super) filter: Option<Option<String>>,
}

impl Given {
    pub(super) fn changes(&self, shared: &Arc<StoreShared>) -> Result<GroupChanges> {
        let invalid = |option, value: String, expected| Err(Error::InvalidOption { option, value, expected });
        let visibility_timeout_ms =
            self.visibility_timeout.map(|timeout| millis("visibility_timeout", timeout)).transpose()?;
        if visibility_timeout_ms == Some(0) {
            return invalid("visibility_timeout", "zero".to_owned(), "from 1 ms to ten years");
        }
        if let Some(messages) = self.max_outstanding.filter(|count| !(1..=limits::OUTSTANDING_MAX).contains(count)) {
            return invalid("max_outstanding", messages.to_string(), "from 1 to 1,048,576");
        }
        if let Some(closes) = self.max_closes.filter(|count| *count > limits::CLOSES_MAX) {
            return invalid("max_closes", closes.to_string(), "from 0 to 255");
        }
        if let Some(messages) = self.max_in_flight.filter(|count| *count > limits::OUTSTANDING_MAX) {
            return invalid("max_in_flight", messages.to_string(), "from 0 to 1,048,576");
        }
        let foreign = self.notices.iter().flatten().find(|topic| !Arc::ptr_eq(&topic.inner().shared, shared));
        if let Some(topic) = foreign {
            let value = format!("{:?} of another store", topic.name());
            return invalid("dead_letter_notices", value, "a topic of the group's store");
        }
        Ok(GroupChanges {
            visibility_timeout_ms,
            max_attempts: self.max_attempts,
            max_nacks: self.max_nacks,
            max_expiries: self.max_expiries,
            max_crashes: self.max_crashes,
            backoff: self.backoff.map(Backoff::to_record).transpose()?,
            max_outstanding: self.max_outstanding,
            max_closes: self.max_closes,
            notices: self.notices.as_ref().map(|topic| topic.as_ref().map(|topic| topic.inner().info.id)),
            paused: None,
            max_in_flight: self.max_in_flight,
            rate: self
                .rate_limit
                .map(|rate| rate.map_or(Ok(RateOptions::default()), RateLimit::to_record))
                .transpose()?,
            filter: self.filter.as_ref().map(|text| text.as_deref().map(parse).transpose()).transpose()?,
        })
    }

    /// What a group is created with. `stored`: the options of the group, where it exists.
    pub(super) fn with_defaults(
        &self,
        shared: &Arc<StoreShared>,
        stored: Option<&GroupOptions>,
    ) -> Result<GroupOptions> {
        // seam: a number per key is taken without an order
        self.check_order(self.ordering.or(stored.map(|stored| stored.ordering)).unwrap_or_default())?;
        let ordering = self.ordering.unwrap_or_default();
        let max_attempts = 5;
        match stored {
            Some(_) => self.check_given(None)?,
            None => self.check_given(Some((max_attempts, limits::OUTSTANDING_DEFAULT)))?,
        }
        let defaults = GroupOptions {
            visibility_timeout_ms: 30_000,
            max_attempts,
            max_nacks: 0,
            max_expiries: 0,
            max_crashes: 0,
            backoff: Backoff::default().to_record()?,
            max_outstanding: limits::OUTSTANDING_DEFAULT,
            max_closes: limits::CLOSES_DEFAULT,
            notices: None,
            ordering,
            max_in_flight_per_key: self.max_in_flight_per_key.filter(|_| ordering != Ordering::None).unwrap_or(1),
            paused: false,
            max_in_flight: 0,
            rate: RateOptions::default(),
            filter: None,
        };
        Ok(self.changes(shared)?.applied_to(&defaults))
    }

    /// As [`check_limits`], of options that are given together. `left_out`: what `max_attempts` and `max_outstanding` are else, where the group
    /// has no others.
    fn check_given(&self, left_out: Option<(u32, u32)>) -> Result<()> {
        let (max_attempts, max_outstanding) = left_out.unwrap_or((0, u32::MAX));
        check_limits(&GroupOptions {
            max_attempts: self.max_attempts.unwrap_or(max_attempts),
            max_nacks: self.max_nacks.unwrap_or(0),
            max_expiries: self.max_expiries.unwrap_or(0),
            max_crashes: self.max_crashes.unwrap_or(0),
            max_outstanding: self.max_outstanding.unwrap_or(max_outstanding),
            max_in_flight: self.max_in_flight.unwrap_or(0),
            ..GroupOptions::LEFT_OUT
        })
    }

    /// Whether a number per key fits the order of the group.
    fn check_order(&self, ordering: Ordering) -> Result<()> {
        let Some(messages) = self.max_in_flight_per_key else { return Ok(()) };
        let expected = match ordering {
            Ordering::None => "nothing, unless `ordering` is by key or by partition",
            Ordering::Key | Ordering::Partition if (1..=limits::IN_FLIGHT_PER_KEY_MAX).contains(&messages) => {
                return Ok(());
            }
            Ordering::Key | Ordering::Partition => "from 1 to 65,536",
        };
        Err(Error::InvalidOption { option: "max_in_flight_per_key", value: messages.to_string(), expected })
    }

    /// Whether a group of this order may have another filter. What is only counted of a key is found again by the filter under which it was.
    fn check_new_filter(&self, ordering: Ordering) -> Result<()> {
        match (&self.filter, ordering) {
            (Some(filter), Ordering::Key) => Err(Error::InvalidOption {
                option: "filter",
                value: format!("{} with `ordering` by key", shown_filter(filter.as_deref())),
                expected: "left as it is: a group in order of keys keeps the filter that it was created with",
            }),
            (Some(_), Ordering::None | Ordering::Partition) | (None, _) => Ok(()),
        }
    }

    /// Fails where an option that was given differs from what is stored.
    pub(super) fn check_stored(&self, shared: &Arc<StoreShared>, group: &str, stored: &GroupOptions) -> Result<()> {
        let asked = GroupOptions {
            ordering: self.ordering.unwrap_or(stored.ordering),
            max_in_flight_per_key: self.max_in_flight_per_key.unwrap_or(stored.max_in_flight_per_key),
            ..self.changes(shared)?.applied_to(stored)
        };
        let shown = |all: &GroupOptions| {
            [
                ("visibility_timeout", format!("{} ms", all.visibility_timeout_ms)),
                ("max_attempts", all.max_attempts.to_string()),
                ("max_nacks", all.max_nacks.to_string()),
                ("max_expiries", all.max_expiries.to_string()),
                ("max_crashes", all.max_crashes.to_string()),
                ("backoff", shown_backoff(&all.backoff)),
                ("max_outstanding", all.max_outstanding.to_string()),
                ("max_closes", all.max_closes.to_string()),
                ("ordering", all.ordering.to_string()),
                ("max_in_flight_per_key", all.max_in_flight_per_key.to_string()),
                ("max_in_flight", all.max_in_flight.to_string()),
                ("rate_limit", shown_rate(all.rate)),
                ("filter", shown_filter(all.filter.as_ref().map(|filter| filter.text()))),
                ("dead_letter_notices", all.notices.map_or("none".to_owned(), |topic| format!("topic number {topic}"))),
            ]
        };
        for ((option, stored), (_, asked)) in shown(stored).into_iter().zip(shown(&asked)) {
            // seam: another filter is taken
            if stored != asked {
                return Err(Error::OptionMismatch { what: "group", name: group.to_owned(), option, stored, asked });
            }
        }
        Ok(())
    }
}

/// Changes options of a group that exists. See [`Group::alter`](super::Group::alter).
#[derive(Clone)]
#[must_use = "nothing happens before apply"]
pub struct GroupChange {
    pub(super) group: Arc<GroupInner>,
    pub(super) given: Given,
}

impl GroupChange {
    /// How long a delivery may take before its message goes to another consumer. 1 ms to ten years. For leases from now on.
    pub fn visibility_timeout(mut self, timeout: Duration) -> Self {
        self.given.visibility_timeout = Some(timeout);
        self
    }

    /// How many attempts a message gets before it becomes a dead letter; 0 for no limit. For messages from their next delivery on:
    /// one that is leased or waits keeps the limit that it had.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.given.max_attempts = Some(attempts);
        self
    }

    /// How many nacks a message gets before it becomes a dead letter; 0 for no limit. For nacks from now on. See
    /// [`GroupBuilder::max_nacks`](super::GroupBuilder::max_nacks).
    pub fn max_nacks(mut self, nacks: u32) -> Self {
        self.given.max_nacks = Some(nacks);
        self
    }

    /// How often a delivery of a message may expire before it becomes a dead letter; 0 for no limit. For leases from now on. See
    /// [`GroupBuilder::max_expiries`](super::GroupBuilder::max_expiries).
    pub fn max_expiries(mut self, expiries: u32) -> Self {
        self.given.max_expiries = Some(expiries);
        self
    }

    /// In how many crashes in a row a message may be leased before it becomes a dead letter; 0 for no limit. For crashes from now
    /// on. See [`GroupBuilder::max_crashes`](super::GroupBuilder::max_crashes).
    pub fn max_crashes(mut self, crashes: u32) -> Self {
        self.given.max_crashes = Some(crashes);
        self
    }

    /// How long a message waits after a failed attempt. For failures from now on; a delivery that expires keeps the backoff under
    /// which it was made.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.given.backoff = Some(backoff);
        self
    }

    /// How many messages may be leased, waiting or due for a retry at once. 1 to 1,048,576. Where there are more than that, the group
    /// gets no new ones until enough are settled.
    pub fn max_outstanding(mut self, messages: u32) -> Self {
        self.given.max_outstanding = Some(messages);
        self
    }

    /// How many messages may be leased at once, from 1 to 1,048,576; 0 for no limit. For leases from now on. See
    /// [`GroupBuilder::max_in_flight`](super::GroupBuilder::max_in_flight).
    pub fn max_in_flight(mut self, messages: u32) -> Self {
        self.given.max_in_flight = Some(messages);
        self
    }

    /// How many messages are delivered over time; `None` for no limit. Tokens that were there stay as far as they fit. See
    /// [`GroupBuilder::rate_limit`](super::GroupBuilder::rate_limit).
    pub fn rate_limit(mut self, rate: impl Into<Option<RateLimit>>) -> Self {
        self.given.rate_limit = Some(rate.into());
        self
    }

    /// At how many orderly closes in a row a message may be leased before each further one counts as an attempt. 0 to 255. For
    /// closes from now on.
    pub fn max_closes(mut self, closes: u32) -> Self {
        self.given.max_closes = Some(closes);
        self
    }

    /// To which topic of the store a notice goes for each message that becomes a dead letter; `None` for no notices. For dead
    /// letters from now on. See [`GroupBuilder::dead_letter_notices`](super::GroupBuilder::dead_letter_notices).
    pub fn dead_letter_notices<'t>(mut self, topic: impl Into<Option<&'t Topic>>) -> Self {
        self.given.notices = Some(topic.into().cloned());
        self
    }

    /// Another filter, or `None` for none, for messages that the group has not looked at: it does not look back. What did not pass stays
    /// settled, and what passed stays as it is. A group that is to get earlier messages by another filter is a new one, with a
    /// [`Start`](super::Start). Refused for a group in order of keys. See [`GroupBuilder::filter`](super::GroupBuilder::filter).
    pub fn filter_from_here<'t>(mut self, filter: impl Into<Option<&'t str>>) -> Self {
        self.given.filter = Some(filter.into().map(str::to_owned));
        self
    }

    /// Changes the options that were given; the others stay. All at once, and durable on return.
    ///
    /// # Errors
    /// `InvalidOption`; `InvalidFilter`; `Removed` if the group or the topic for notices was; the store's.
    pub fn apply(self) -> Result<()> {
        let shared = &self.group.topic.shared;
        self.given.check_given(None)?;
        self.given.check_new_filter(self.group.info.options.ordering)?;
        let changes = self.given.changes(shared)?;
        shared.engine.alter_group(self.group.info.id, &changes)
    }
}

/// The filter that a text is.
fn parse(text: &str) -> Result<Arc<Filter>> {
    let fault = |fault: FilterFault| Error::InvalidFilter {
        filter: text.to_owned(),
        column: fault.column,
        expected: fault.expected,
    };
    Filter::parse(text).map(Arc::new).map_err(fault)
}

/// A filter as an error shows it.
fn shown_filter(text: Option<&str>) -> String {
    text.map_or("none".to_owned(), |text| format!("{text:?}"))
}

/// Whether no limit is above another one that includes it.
fn check_limits(options: &GroupOptions) -> Result<()> {
    let (messages, outstanding) = (options.max_in_flight, options.max_outstanding);
    if messages > outstanding {
        let value = format!("{messages} with `max_outstanding` {outstanding}");
        let expected = "at most `max_outstanding`";
        return Err(Error::InvalidOption { option: "max_in_flight", value, expected });
    }
    let kinds = [
        ("max_nacks", options.max_nacks),
        ("max_expiries", options.max_expiries),
        ("max_crashes", options.max_crashes),
    ];
    let attempts = options.max_attempts;
    // seam: a limit that is never reached is taken
    match kinds.into_iter().find(|(_, limit)| attempts != 0 && *limit > attempts) {
        Some((option, limit)) => {
            let value = format!("{limit} with `max_attempts` {attempts}");
            Err(Error::InvalidOption { option, value, expected: "at most `max_attempts`" })
        }
        None => Ok(()),
    }
}
