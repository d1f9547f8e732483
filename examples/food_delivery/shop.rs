//! The store with its topics and groups.

use crate::Result;
use millpond::{Backoff, Group, Store, Topic};
use std::path::Path;
use std::time::Duration;

/// How long a worker may hold a message before another may have it.
const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) struct Shop {
    pub(crate) store: Store,
    pub(crate) orders: Topic,
    pub(crate) prep: Topic,
    pub(crate) done: Topic,
    pub(crate) kitchen: Crew,
    pub(crate) notification: Crew,
    pub(crate) delivery: Crew,
    pub(crate) chefs: Crew,
}

/// A group with the name of its topic.
pub(crate) struct Crew {
    pub(crate) group: Group,
    pub(crate) topic: &'static str,
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
            topic.group("archive").open()?;
        }
        let chefs = prep
            .group("chefs")
            .visibility_timeout(VISIBILITY_TIMEOUT)
            .max_attempts(4)
            .backoff(Backoff::exponential(Duration::from_millis(20)).max(Duration::from_millis(200)))
            .open()?;
        Ok(Self {
            kitchen: order_crew(&orders, "kitchen")?,
            notification: order_crew(&orders, "notification")?,
            delivery: order_crew(&orders, "delivery")?,
            chefs: Crew { group: chefs, topic: "prep" },
            store,
            orders,
            prep,
            done,
        })
    }

    pub(crate) fn crews(&self) -> [&Crew; 4] {
        [&self.kitchen, &self.notification, &self.delivery, &self.chefs]
    }

    /// Whether a crew has settled everything that its topic holds so far.
    pub(crate) fn is_drained(&self, crew: &Crew) -> Result<bool> {
        let stats = self.store.stats()?;
        let group = stats
            .topics
            .iter()
            .filter(|topic| topic.name == crew.topic)
            .flat_map(|topic| &topic.groups)
            .find(|group| group.name == crew.group.name())
            .ok_or_else(|| format!("no group {} on topic {}", crew.group.name(), crew.topic))?;
        Ok(group.lag == 0 && group.ready == 0 && group.leased == 0 && group.waiting == 0)
    }
}

fn order_crew(orders: &Topic, name: &str) -> Result<Crew> {
    let group = orders.group(name).visibility_timeout(VISIBILITY_TIMEOUT);
    let group = group.backoff(Backoff::fixed(Duration::from_millis(20))).open()?;
    Ok(Crew { group, topic: "orders" })
}
