//! The store with its topics and groups.

use crate::Result;
use millpond::{Backoff, Group, Start, Store, Topic};
use std::path::Path;
use std::time::Duration;

/// How long a worker may hold a message before another may have it.
const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) struct Shop {
    pub(crate) store: Store,
    pub(crate) orders: Topic,
    pub(crate) prep: Topic,
    pub(crate) done: Topic,
    pub(crate) kitchen: Group,
    pub(crate) notification: Group,
    pub(crate) delivery: Group,
    pub(crate) chefs: Group,
}

impl Shop {
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let store = Store::open(dir)?;
        let orders = store.topic("orders").partitions(4).open()?;
        let prep = store.topic("prep").partitions(4).open()?;
        let done = store.topic("done").open()?;
        // A topic keeps a message until every group has settled it. This group never receives, so these two keep
        // everything, and each run can read from the start what the runs before it did.
        for topic in [&orders, &done] {
            topic.group("archive").start(Start::Earliest).open()?;
        }
        Ok(Self {
            kitchen: order_group(&orders, "kitchen")?,
            notification: order_group(&orders, "notification")?,
            delivery: order_group(&orders, "delivery")?,
            chefs: prep
                .group("chefs")
                .start(Start::Earliest)
                .visibility_timeout(VISIBILITY_TIMEOUT)
                .max_attempts(4)
                .backoff(Backoff::exponential(Duration::from_millis(20)).max(Duration::from_millis(200)))
                .open()?,
            store,
            orders,
            prep,
            done,
        })
    }

    /// Every group that may have dead letters.
    pub(crate) fn groups(&self) -> [(&'static str, &Group); 4] {
        [
            ("kitchen", &self.kitchen),
            ("notification", &self.notification),
            ("delivery", &self.delivery),
            ("chefs", &self.chefs),
        ]
    }

    /// Whether a group has settled everything that its topic holds so far.
    pub(crate) fn is_drained(&self, topic: &str, group: &str) -> Result<bool> {
        let stats = self.store.stats()?;
        let group = stats
            .topics
            .iter()
            .filter(|candidate| candidate.name == topic)
            .flat_map(|topic| &topic.groups)
            .find(|candidate| candidate.name == group)
            .ok_or_else(|| format!("no group {group} on topic {topic}"))?;
        Ok(group.lag == 0 && group.ready == 0 && group.leased == 0 && group.waiting == 0)
    }
}

fn order_group(orders: &Topic, name: &str) -> Result<Group> {
    let group = orders.group(name).start(Start::Earliest).visibility_timeout(VISIBILITY_TIMEOUT);
    Ok(group.backoff(Backoff::fixed(Duration::from_millis(20))).open()?)
}
