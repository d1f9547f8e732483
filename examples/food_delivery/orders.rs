//! What is ordered, and which of it makes trouble.

use crate::Result;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) order_id: String,
    pub(crate) placed_at: String,
    pub(crate) customer: Customer,
    pub(crate) restaurant: Restaurant,
    pub(crate) items: Vec<Item>,
    pub(crate) delivery_fee_cents: i64,
    pub(crate) tip_cents: i64,
    pub(crate) total_cents: i64,
    pub(crate) payment: String,
    pub(crate) notes: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Customer {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) address: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Restaurant {
    pub(crate) id: String,
    pub(crate) name: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Item {
    pub(crate) sku: String,
    pub(crate) name: String,
    pub(crate) quantity: i64,
    pub(crate) price_cents: i64,
    pub(crate) station: String,
}

/// One item for one chef. The id follows from the order, so the same work done twice can be told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) id: String,
    pub(crate) item: Item,
}

/// All orders of the data file, in the order in which they were placed.
pub(crate) fn load() -> Result<Vec<Order>> {
    include_str!("../data/orders.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).map_err(|error| format!("{error} in the order {line}").into()))
        .collect()
}

impl Order {
    pub(crate) fn tasks(&self) -> impl Iterator<Item = Task> {
        (1..).zip(&self.items).map(|(line, item)| Task { id: format!("{}/{line}", self.order_id), item: item.clone() })
    }
}

impl Item {
    pub(crate) fn cents(&self) -> i64 {
        self.quantity * self.price_cents
    }

    /// A station that no kitchen has: no chef can ever do anything about it.
    pub(crate) fn station_is_known(&self) -> bool {
        ["bar", "cold", "fryer", "grill", "oven", "pastry", "stove"].contains(&self.station.as_str())
    }

    pub(crate) fn quantity_is_possible(&self) -> bool {
        (1..=50).contains(&self.quantity)
    }

    pub(crate) fn is_poison(&self) -> bool {
        !self.station_is_known() || !self.quantity_is_possible()
    }

    /// How often it fails before it succeeds: one soufflé collapses once, several at a time twice.
    pub(crate) fn collapses(&self) -> u32 {
        match (self.sku.starts_with("souffle"), self.quantity) {
            (false, _) => 0,
            (true, 1) => 1,
            (true, _) => 2,
        }
    }
}
