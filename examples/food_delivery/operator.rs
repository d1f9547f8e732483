//! The operator: looks at what was given up, and sends it back once the cause is gone.

use crate::Result;
use crate::audit::{Outcome, Stage};
use crate::orders::Task;
use crate::shop::Shop;

/// Lists the dead letters of all groups and enters those of the chefs in the ledger. Returns how many there are.
pub(crate) fn review_dead_letters(shop: &Shop) -> Result<u64> {
    // A dead letter is listed once it is durable.
    shop.store.sync()?;
    let mut count = 0;
    for crew in shop.crews() {
        for letter in crew.group.dead_letters()? {
            let letter = letter?;
            count += 1;
            let task = serde_json::from_slice::<Task>(letter.payload()).ok();
            let what = task.as_ref().map_or_else(|| letter.id().to_string(), |task| task.id.clone());
            let reason = letter.history().last().map_or("no reason given", |failure| &failure.text);
            println!("dead letter of {}: {what} after {} attempts: {reason}", crew.group.name(), letter.attempts());
            if let Some(Task { id, item }) = task {
                let (stage, attempt) = (Stage::DeadLettered, letter.attempts());
                let outcome = Outcome { stage, id, cents: item.cents(), attempt, redriven: false };
                shop.done.publish(outcome.to_message()?)?;
            }
        }
    }
    Ok(count)
}

/// Sends all dead letters back to the group that gave them up, and returns how many they were.
pub(crate) fn redrive(shop: &Shop) -> Result<u64> {
    let mut count = 0;
    for crew in shop.crews() {
        count += crew.group.redrive_all()?;
    }
    Ok(count)
}
