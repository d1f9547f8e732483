//! What each group does, of two looks at the store.
//!
//! Never here: what of it is seen, and how.

use crate::text::age;
use millpond::{GroupStats, Stats, TopicStats};
use serde_json::{Value, json};
use std::time::Duration;

/// A group, or a topic that has none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopRow {
    pub topic: String,
    pub group: Option<String>,
    /// Messages that were published to the topic in a second. `None` if it was not there before.
    pub published_per_s: Option<f64>,
    /// Messages that the group settled in a second: acked, or discarded as dead letters.
    pub settled_per_s: Option<f64>,
    pub lag: u64,
    pub ready: u64,
    pub leased: u64,
    pub waiting: u64,
    pub dead: u64,
    /// The age of the oldest message that is not settled.
    pub oldest: Option<Duration>,
    pub paused: bool,
    pub at_cap: bool,
}

/// The columns of [`TopRow::cells`].
pub const HEADER: &[&str] =
    &["TOPIC", "GROUP", "IN/S", "OUT/S", "LAG", "READY", "LEASED", "WAITING", "DEAD", "OLDEST", ""];

/// All groups, in order of creation. Rates are those since `earlier`, which was so long ago.
pub fn rows((earlier, elapsed): (&Stats, Duration), now: &Stats) -> Vec<TopRow> {
    let mut rows = Vec::new();
    for topic in &now.topics {
        let before = earlier.topics.iter().find(|other| other.name == topic.name);
        let published_per_s = before.and_then(|before| rate(before.published, topic.published, elapsed));
        let row = TopRow { topic: topic.name.clone(), published_per_s, ..TopRow::default() };
        if topic.groups.is_empty() {
            rows.push(row);
            continue;
        }
        for group in &topic.groups {
            let settled_per_s = before.and_then(|before| {
                let earlier = before.groups.iter().find(|other| other.name == group.name)?;
                rate(settled(before, earlier), settled(topic, group), elapsed)
            });
            rows.push(row.clone().of(group, settled_per_s));
        }
    }
    rows
}

/// What moves by one with each message that is settled, and by nothing else: one that becomes a dead letter, or is redriven, only changes
/// sides.
fn settled(topic: &TopicStats, group: &GroupStats) -> u64 {
    topic.published.saturating_sub(group.lag).saturating_sub(group.dead)
}

/// `None` where no time went by.
fn rate(before: u64, now: u64, elapsed: Duration) -> Option<f64> {
    // A topic that was made again begins at zero.
    (!elapsed.is_zero()).then(|| now.saturating_sub(before) as f64 / elapsed.as_secs_f64())
}

impl TopRow {
    fn of(self, group: &GroupStats, settled_per_s: Option<f64>) -> Self {
        Self {
            group: Some(group.name.clone()),
            settled_per_s,
            lag: group.lag,
            ready: group.ready,
            leased: group.leased,
            waiting: group.waiting,
            dead: group.dead,
            oldest: group.oldest_unsettled_age,
            paused: group.paused,
            at_cap: group.at_cap,
            ..self
        }
    }

    pub fn group_name(&self) -> &str {
        self.group.as_deref().unwrap_or("-")
    }

    /// What keeps it from getting messages.
    pub fn state(&self) -> &'static str {
        match (self.paused, self.at_cap) {
            (true, _) => "paused",
            (false, true) => "at cap",
            (false, false) => "",
        }
    }

    /// As [`HEADER`] names them.
    pub fn cells(&self) -> Vec<String> {
        let numbers = [self.lag, self.ready, self.leased, self.waiting, self.dead].map(|number| number.to_string());
        let names = [self.topic.clone(), self.group_name().to_owned()];
        let rates = [per_second(self.published_per_s), per_second(self.settled_per_s)];
        let state = [age(self.oldest), self.state().to_owned()];
        names.into_iter().chain(rates).chain(numbers).chain(state).collect()
    }

    /// With the names of the Rust API, where it has one.
    pub fn as_json(&self, time_ms: u64) -> Value {
        let oldest = self.oldest.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        json!({
            "time_ms": time_ms, "topic": self.topic, "group": self.group, "published_per_s": self.published_per_s,
            "settled_per_s": self.settled_per_s, "lag": self.lag, "ready": self.ready, "leased": self.leased, "waiting": self.waiting,
            "dead": self.dead, "oldest_unsettled_age_ms": oldest, "paused": self.paused, "at_cap": self.at_cap,
        })
    }
}

/// A rate in six columns at most.
pub fn per_second(rate: Option<f64>) -> String {
    match rate {
        None => "-".to_owned(),
        Some(rate) if rate < 0.05 => "0".to_owned(),
        Some(rate) if rate < 9.95 => format!("{rate:.1}"),
        Some(rate) if rate < 99_999.5 => format!("{rate:.0}"),
        Some(rate) if rate < 99_999_500.0 => format!("{:.0}k", rate / 1e3),
        Some(rate) => format!("{:.0}M", rate / 1e6),
    }
}

/// A count in so many columns, four at least: in larger units where it does not fit, the rest left out.
pub fn count(count: u64, width: usize) -> String {
    let (mut left, mut text) = (count, count.to_string());
    for unit in ["k", "M", "G", "T", "P", "E"] {
        if text.len() <= width {
            break;
        }
        left /= 1_000;
        text = format!("{left}{unit}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(published: u64, groups: &[(&str, u64, u64)]) -> Stats {
        let mut topic = TopicStats::default();
        topic.name = "orders".to_owned();
        topic.published = published;
        for (name, lag, dead) in groups {
            let mut group = GroupStats::default();
            (group.name, group.lag, group.dead) = ((*name).to_owned(), *lag, *dead);
            topic.groups.push(group);
        }
        let mut stats = Stats::default();
        stats.topics.push(topic);
        stats
    }

    #[test]
    fn rates_are_of_the_time_between_two_looks() {
        let before = stats(1_000, &[("kitchen", 100, 2)]);
        // 50 are published and 30 acked; two become dead letters, one of before is redriven.
        let now = stats(1_050, &[("kitchen", 119, 3), ("bar", 1_050, 0)]);
        let found = rows((&before, Duration::from_secs(10)), &now);
        let rates: Vec<_> =
            found.iter().map(|row| (row.group_name(), row.published_per_s, row.settled_per_s)).collect();
        assert_eq!(rates, [("kitchen", Some(5.0), Some(3.0)), ("bar", Some(5.0), None)]);
        assert_eq!((found[0].lag, found[0].dead, found[1].lag), (119, 3, 1_050));
        // The first look has none, and neither has a topic that is new.
        assert_eq!(rows((&now, Duration::ZERO), &now)[0].published_per_s, None);
        assert_eq!(rows((&Stats::default(), Duration::from_secs(1)), &now)[0].published_per_s, None);
        // A topic of the same name that was made again.
        assert_eq!(rows((&now, Duration::from_secs(1)), &stats(3, &[]))[0].published_per_s, Some(0.0));
    }

    #[test]
    fn a_topic_without_groups_has_a_row() {
        let now = stats(7, &[]);
        let found = rows((&stats(5, &[]), Duration::from_secs(2)), &now);
        assert_eq!((found.len(), &found[0].group, found[0].published_per_s), (1, &None, Some(1.0)));
        assert_eq!(found[0].cells(), ["orders", "-", "1.0", "-", "0", "0", "0", "0", "0", "-", ""]);
    }

    #[test]
    fn numbers_keep_to_their_columns() {
        let rates = [None, Some(0.0), Some(0.26), Some(9.96), Some(99_999.4), Some(99_999.6), Some(2.5e8)];
        assert_eq!(rates.map(per_second), ["-", "0", "0.3", "10", "99999", "100k", "250M"]);
        let counts = [0, 9_999, 10_000, 999_999, 1_234_567, 12_345_678_901, u64::MAX];
        assert_eq!(counts.map(|number| count(number, 4)), ["0", "9999", "10k", "999k", "1M", "12G", "18E"]);
        assert_eq!([99_999_999, 100_000_000].map(|number| count(number, 8)), ["99999999", "100000k"]);
    }
}
