//! Notices of dead letters: one for each move of the last group of a plan, whatever crashes came between (G10).

use crate::history::{Life, Plan};
use crate::oracle::{Oracle, payload};
use millpond::{Durability, Error, Message, MessageId, Store, Topic};
use std::collections::BTreeSet;
use std::time::Duration;

/// The group that has notices, where a plan has so many.
pub const TOLD: usize = 2;

/// The topic for notices, if one of the groups has any.
pub fn open_notices(store: &Store, plan: &Plan) -> Result<Option<Topic>, Error> {
    (plan.groups.len() > TOLD).then(|| store.topic("notices").open()).transpose()
}

impl Life<'_> {
    /// Whether a drained group has told of each move since it was created: one more move says how many there were.
    pub fn check_notices(&mut self, oracle: &mut Oracle) -> Result<(), String> {
        let is_first_life = oracle.groups.get(&TOLD).is_some_and(|standing| standing.life == 0);
        let Some(notices) = self.notices.clone().filter(|_| is_first_life) else { return Ok(()) };
        let failed = |error: Error| format!("looking for notices failed: {error}");
        let number = oracle.number(false);
        let message = vec![Message::new(payload(number))];
        self.publish_as(oracle, self.plan.groups[TOLD].0, Durability::Disk, vec![number], message, false)?;
        let delivery = self.groups[TOLD].receive(Duration::ZERO).map_err(failed)?.ok_or("the last message is lost")?;
        let last = delivery.origin();
        delivery.reject("the last").map_err(failed)?;
        self.store.sync().map_err(failed)?;
        let letters = self.groups[TOLD].dead_letters().map_err(failed)?;
        let letters: Vec<_> = letters.collect::<Result<_, _>>().map_err(failed)?;
        let moves = letters.last().map_or(0, |letter| letter.id().offset.0 + 1);
        let mut reader = notices.reader().from_start().open().map_err(failed)?;
        let (mut told, mut count) = (BTreeSet::new(), 0);
        while let Some(notice) = reader.try_next().map_err(failed)? {
            let header = |name| notice.header(name).and_then(|value| std::str::from_utf8(value).ok());
            if header("dead-letter-group") != Some("group-2") {
                return Err(format!("a notice of another group: {notice:?}"));
            }
            let id: MessageId = header("dead-letter-id").and_then(|id| id.parse().ok()).ok_or("a notice of nothing")?;
            told.insert(id);
            count += 1;
        }
        self.tally.more("notices", count);
        if count != moves || !told.contains(&last) {
            return Err(format!("{count} notices of {moves} moves to the dead letters (G10)"));
        }
        match letters.iter().find(|letter| !told.contains(&letter.origin())) {
            Some(letter) => Err(format!("the dead letter of {} has no notice (G10)", letter.origin())),
            None => Ok(()),
        }
    }
}
