//! Compares what came out with what went in.
//!
//! Nothing is kept beside the store: what the runs before this one did is read from the topics, from their start.

use crate::Result;
use crate::orders::{Order, Task};
use crate::shop::Shop;
use millpond::{Group, Message, Topic};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

/// What a consumer did with one message.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) stage: Stage,
    /// The order's id, or the task's.
    pub(crate) id: String,
    pub(crate) cents: i64,
    pub(crate) attempt: u32,
    pub(crate) redriven: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stage {
    Kitchen,
    Notification,
    Delivery,
    Cooked,
    DeadLettered,
}

impl Outcome {
    pub(crate) fn to_message(&self) -> Result<Message<'_>> {
        Ok(Message::new(serde_json::to_vec(self)?).key(self.id.as_str()))
    }
}

/// All that the topics `orders` and `done` say.
pub(crate) struct Audit {
    orders_reader: Group,
    outcomes_reader: Group,
    pub(crate) orders: Vec<Order>,
    pub(crate) outcomes: Vec<Outcome>,
}

impl Audit {
    /// Reads everything that earlier runs left.
    pub(crate) fn begin(shop: &Shop) -> Result<Self> {
        // Every run reads all of it, so every run reads as a group of its own.
        let name = format!("audit-{}", shop.store.report().epoch);
        let reader = |topic: &Topic| topic.group(&name).open();
        let mut audit = Self {
            orders_reader: reader(&shop.orders)?,
            outcomes_reader: reader(&shop.done)?,
            orders: Vec::new(),
            outcomes: Vec::new(),
        };
        audit.catch_up(shop)?;
        Ok(audit)
    }

    /// Reads what has come since the last time.
    pub(crate) fn catch_up(&mut self, shop: &Shop) -> Result<()> {
        // Only what is durable is delivered; so make all of it durable first.
        shop.store.sync()?;
        read_on(&self.orders_reader, &mut self.orders)?;
        read_on(&self.outcomes_reader, &mut self.outcomes)
    }

    pub(crate) fn published_ids(&self) -> HashSet<String> {
        self.orders.iter().map(|order| order.order_id.clone()).collect()
    }

    /// Prints the table and says whether it balances.
    pub(crate) fn compare(&self, input: &[Order]) -> bool {
        let tasks: Vec<Task> = input.iter().flat_map(Order::tasks).collect();
        let placed = || input.iter().map(|order| (order.order_id.clone(), order.total_cents));
        let tasks_that = |wanted: &dyn Fn(&Task) -> bool| {
            tasks.iter().filter(|task| wanted(task)).map(|task| (task.id.clone(), task.item.cents())).collect()
        };
        let published = self.orders.iter().map(|order| (order.order_id.clone(), order.total_cents)).collect();
        let flaky: Ledger = tasks_that(&|task| task.item.collapses() > 0);
        let retried = |outcome: &Outcome| outcome.attempt > 1 && flaky.contains(&outcome.id);

        let rows = [
            Row::new("published", placed().collect(), published),
            Row::new("kitchen", placed().collect(), self.outcomes_that(|it| it.stage == Stage::Kitchen)),
            Row::new("notification", placed().collect(), self.outcomes_that(|it| it.stage == Stage::Notification)),
            Row::new("delivery", placed().collect(), self.outcomes_that(|it| it.stage == Stage::Delivery)),
            Row::new("cooked", tasks_that(&|_| true), self.outcomes_that(|it| it.stage == Stage::Cooked)),
            Row::new(
                "  retried",
                flaky.clone(),
                self.outcomes_that(|it| it.stage == Stage::Cooked && retried(it)).once(),
            ),
            Row::new(
                "  dead-lettered",
                tasks_that(&|task| task.item.is_poison()),
                self.outcomes_that(|it| it.stage == Stage::DeadLettered).once(),
            ),
            Row::new(
                "  redriven",
                tasks_that(&|task| task.item.is_poison()),
                self.outcomes_that(|it| it.stage == Stage::Cooked && it.redriven).once(),
            ),
        ];
        println!("\n{:<16}{:>9}{:>10}{:>7}{:>9}{:>12}", "", "went in", "came out", "lost", "strange", "duplicates");
        rows.iter().for_each(Row::print);
        let sum = |count: fn(&Row) -> usize| rows.iter().map(count).sum::<usize>();
        let (lost, strange) = (sum(|row| row.lost), sum(|row| row.strange));
        let unchanged = self.orders_are_unchanged(input);
        println!("\nlost {lost}");
        println!("duplicates seen {}", sum(|row| row.duplicates));
        println!("orders {}", if unchanged { "unchanged, each there once" } else { "CHANGED" });
        lost == 0 && strange == 0 && unchanged
    }

    fn outcomes_that(&self, wanted: impl Fn(&Outcome) -> bool) -> Ledger {
        self.outcomes.iter().filter(|it| wanted(it)).map(|it| (it.id.clone(), it.cents)).collect()
    }

    /// Whether the topic holds the very orders of the input, each of them once.
    fn orders_are_unchanged(&self, input: &[Order]) -> bool {
        let by_id = |orders: &[Order]| {
            let mut sorted = orders.to_vec();
            sorted.sort_by(|a, b| a.order_id.cmp(&b.order_id));
            sorted
        };
        by_id(&self.orders) == by_id(input)
    }
}

/// How often each entry, an id with its amount, occurs.
#[derive(Clone, Default)]
struct Ledger(BTreeMap<(String, i64), usize>);

impl FromIterator<(String, i64)> for Ledger {
    fn from_iter<I: IntoIterator<Item = (String, i64)>>(entries: I) -> Self {
        let mut ledger = Self::default();
        for entry in entries {
            *ledger.0.entry(entry).or_default() += 1;
        }
        ledger
    }
}

impl Ledger {
    fn contains(&self, id: &str) -> bool {
        self.0.range((id.to_owned(), i64::MIN)..=(id.to_owned(), i64::MAX)).next().is_some()
    }

    /// Counts each entry once: for rows whose duplicates are counted in another row.
    fn once(mut self) -> Self {
        self.0.values_mut().for_each(|count| *count = 1);
        self
    }

    /// How many entries are here and not there.
    fn missing_in(&self, other: &Self) -> usize {
        self.0.keys().filter(|entry| !other.0.contains_key(*entry)).count()
    }
}

/// One line of the table.
struct Row {
    name: &'static str,
    went_in: usize,
    came_out: usize,
    /// Went in and did not come out.
    lost: usize,
    /// Came out and did not go in.
    strange: usize,
    /// Came out more than once: delivery is at least once, so after a crash there are some.
    duplicates: usize,
}

impl Row {
    fn new(name: &'static str, went_in: Ledger, came_out: Ledger) -> Self {
        Self {
            name,
            went_in: went_in.0.len(),
            came_out: came_out.0.len(),
            lost: went_in.missing_in(&came_out),
            strange: came_out.missing_in(&went_in),
            duplicates: came_out.0.values().map(|count| count - 1).sum(),
        }
    }

    fn print(&self) {
        let Self { name, went_in, came_out, lost, strange, duplicates } = self;
        println!("{name:<16}{went_in:>9}{came_out:>10}{lost:>7}{strange:>9}{duplicates:>12}");
    }
}

/// Appends to `all` what `reader` has not seen yet.
fn read_on<T: DeserializeOwned>(reader: &Group, all: &mut Vec<T>) -> Result<()> {
    loop {
        let batch = reader.receive_batch(500, Duration::ZERO)?;
        if batch.is_empty() {
            return Ok(());
        }
        for delivery in batch.iter() {
            all.push(serde_json::from_slice(delivery.payload())?);
        }
        let _lost = batch.ack()?;
    }
}
