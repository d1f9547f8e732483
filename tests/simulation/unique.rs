//! Unique keys: whatever crashes come between, one message of a key is pending, and what was replaced does not come (G20).

use crate::history::Life;
use crate::oracle::{Oracle, Sent, payload};
use millpond::simulation::Rng;
use millpond::{Durability, Error, ErrorKind, Message, MessageId, WhilePending};
use std::collections::BTreeMap;

/// Of a topic.
type UniqueKey = (usize, u8);

/// What is known of unique keys.
#[derive(Clone, Debug, Default)]
pub struct Uniques {
    /// The messages that have had each key, the newest last, and the log's end then. None where the outcome of a publish is not known.
    owners: BTreeMap<UniqueKey, Vec<(MessageId, u64)>>,
    /// What was replaced, and the log's end then.
    replaced: BTreeMap<MessageId, (Sent, u64)>,
}

impl Uniques {
    /// The log ends at `end`: what was replaced behind that comes after all.
    pub fn recovered(&mut self, end: u64, sent: &mut BTreeMap<MessageId, Sent>) {
        for owners in self.owners.values_mut() {
            owners.retain(|(_, at)| *at <= end);
        }
        let lost = |(_, at): &(Sent, u64)| *at > end;
        for (id, (message, _)) in self.replaced.iter().filter(|(_, replaced)| lost(replaced)) {
            sent.insert(*id, message.clone());
        }
        self.replaced.retain(|_, replaced| !lost(replaced));
    }

    /// The numbers of what was replaced, and their topics.
    pub fn forget_replaced(&mut self) -> impl Iterator<Item = (u64, usize)> + use<> {
        std::mem::take(&mut self.replaced).into_values().map(|(sent, _)| (sent.number, sent.topic))
    }

    pub fn forget_topic(&mut self, topic: usize) {
        self.owners.retain(|(of, _), _| *of != topic);
        self.replaced.retain(|_, (sent, _)| sent.topic != topic);
    }

    fn owner(&self, key: UniqueKey) -> Option<MessageId> {
        self.owners.get(&key)?.last().map(|(id, _)| *id)
    }
}

impl Oracle {
    /// A publish is there or not, and so it replaced what was there, or not.
    fn forget_owner(&mut self, key: UniqueKey) {
        for (id, _) in self.uniques.owners.remove(&key).into_iter().flatten() {
            self.unsure.extend(self.sent.remove(&id).map(|sent| (sent.number, sent.topic)));
            self.unsure.extend(self.uniques.replaced.remove(&id).map(|(sent, _)| (sent.number, sent.topic)));
        }
    }

    /// A group is done with a message, or with any. Whether another group still has it, so that a newer one replaces it, is not known.
    pub fn forget_keys_of(&mut self, done: Option<MessageId>) {
        let has = |owners: &[(MessageId, u64)]| done.is_none_or(|done| owners.iter().any(|(id, _)| *id == done));
        let keys: Vec<_> = self.uniques.owners.iter().filter(|(_, owners)| has(owners)).map(|(key, _)| *key).collect();
        keys.into_iter().for_each(|key| self.forget_owner(key));
    }
}

impl Life<'_> {
    pub fn publish_unique(&mut self, oracle: &mut Oracle, rng: &mut Rng) -> Result<(), String> {
        let key = (rng.index(self.topics.len()), rng.below(3) as u8);
        let (topic, number) = (key.0, oracle.number(false));
        let policies = [WhilePending::Reject, WhilePending::Replace, WhilePending::ReturnExisting];
        let policy = policies[rng.index(3)];
        let level = if rng.coin() { Durability::Disk } else { Durability::Os };
        let message = Message::new(payload(number)).unique_key([key.1], policy);
        let published = self.topics[topic].with_durability(level).publish(message);
        let pending = match &published {
            Ok(receipt) if receipt.is_repeat() => Some(receipt.id()),
            Ok(_) => None,
            Err(Error::KeyPending { pending, .. }) => Some(*pending),
            Err(error) => {
                if error.kind() != ErrorKind::Retry {
                    oracle.unsure.insert(number, topic);
                    oracle.forget_owner(key);
                }
                return self.excuse("a publish under a unique key", error);
            }
        };
        if let Some(pending) = pending {
            self.tally.count("unique keys that were taken");
            return self.check_pending(oracle, key, pending);
        }
        let receipt = published.map_err(|error| error.to_string())?;
        self.tally.count("publishes under unique keys");
        oracle.name(receipt.id(), &payload(number))?;
        let Some((end, _)) = self.log() else {
            oracle.unsure.insert(number, topic);
            oracle.forget_owner(key);
            return Ok(());
        };
        if let Some(owner) = oracle.uniques.owner(key) {
            if policy == WhilePending::Replace {
                if let Some(sent) = oracle.sent.remove(&owner) {
                    self.tally.count("messages that were replaced");
                    oracle.uniques.replaced.insert(owner, (sent, end));
                }
            } else if self.is_surely_pending(oracle, owner) {
                return Err(format!("{} was published beside {owner}, which has its key (G20)", receipt.id()));
            }
        }
        oracle.sent.insert(receipt.id(), Sent { number, topic, end });
        oracle.uniques.owners.entry(key).or_default().push((receipt.id(), end));
        Ok(())
    }

    /// A message was told to be pending.
    fn check_pending(&self, oracle: &Oracle, key: UniqueKey, pending: MessageId) -> Result<(), String> {
        let Some(owner) = oracle.uniques.owner(key) else { return Ok(()) };
        if owner != pending {
            return Err(format!("{pending} is told to have the key of {owner} (G20)"));
        }
        let mut groups = self.groups_of(key.0).peekable();
        if groups.peek().is_some() && groups.all(|group| oracle.acked.contains_key(&(group, owner))) {
            return Err(format!("{owner} is told to be pending, and every group has acked it (G20)"));
        }
        Ok(())
    }

    fn groups_of(&self, topic: usize) -> impl Iterator<Item = usize> + '_ {
        self.plan.groups.iter().enumerate().filter(move |(_, (of, _))| *of == topic).map(|(group, _)| group)
    }

    /// Whether a group has not even tried a message that it wants.
    fn is_surely_pending(&self, oracle: &Oracle, id: MessageId) -> bool {
        let Some(sent) = oracle.sent.get(&id) else { return false };
        self.groups_of(sent.topic).any(|group| {
            let key = (group, id);
            let born = oracle.groups.get(&group).map_or(0, |standing| standing.born);
            let is_settled = oracle.acked.contains_key(&key) || oracle.maybe_acked.contains(&key);
            !is_settled && !oracle.attempts.contains_key(&key) && sent.end > born
        })
    }
}
