//! Transactions: what they settle and publish, all of it or none.
//!
//! Never here: what is right (see `reference`).

use crate::actions::pick;
use crate::delivering::{Settle, text_of};
use crate::facts::Body;
use crate::ops::{Draft, Size};
use crate::publishing::message;
use crate::runner::{Held, HeldBatch, Outcome, Runner, ensure};
use millpond::{Committed, Durability, Error, InTransaction, Topic, Transaction};
use std::sync::Arc;
use std::time::Duration;

/// What a transaction is to do.
struct Plan {
    taken: Vec<(Held, Settle)>,
    batch: Option<HeldBatch>,
    published: Vec<(usize, Draft, Arc<Body>)>,
}

impl Plan {
    /// Group, id and ticket of every message that it settles.
    fn leases(&self) -> Vec<(usize, millpond::MessageId, u64, &Settle)> {
        let one = self.taken.iter().map(|(held, settle)| (held.group, held.id, held.ticket, settle));
        let batch = self
            .batch
            .iter()
            .flat_map(|batch| batch.leases.iter().map(|(id, ticket)| (batch.group, *id, *ticket, &Settle::Ack)));
        one.chain(batch).collect()
    }

    fn fill<'a>(&'a self, tx: &mut Transaction<'a>, topics: &[Topic]) -> Result<Vec<InTransaction>, Error> {
        for (held, settle) in &self.taken {
            match settle {
                Settle::Ack | Settle::AckDurable | Settle::Release | Settle::Drop => tx.ack(&held.delivery)?,
                Settle::Nack(text) => tx.nack(&held.delivery, text)?,
                Settle::NackAfter(delay) => tx.nack_after(&held.delivery, Duration::from_millis(*delay), "later")?,
                Settle::Reject => tx.reject(&held.delivery, "unusable")?,
            }
        }
        self.batch.iter().try_for_each(|batch| tx.ack_batch(&batch.batch))?;
        let messages = self.published.iter().zip(topics);
        messages.map(|((_, draft, body), topic)| tx.publish(topic, message(*draft, body))).collect()
    }
}

impl Runner {
    pub(crate) fn transact(
        &mut self,
        deliveries: &[(usize, u8)],
        batch: Option<usize>,
        drafts: &[(usize, Draft)],
        disk: bool,
    ) -> Outcome {
        let plan = self.plan(deliveries, batch, drafts)?;
        let topics: Vec<Topic> = plan
            .published
            .iter()
            .map(|(topic, ..)| Ok(self.process()?.topics[topic].clone()))
            .collect::<Outcome<_>>()?;
        let level = if disk { Durability::Disk } else { Durability::Os };
        let store = self.process()?.store.clone();
        let result = store.transaction(|tx| {
            tx.durability(level);
            plan.fill(tx, &topics)
        });
        self.trace.push(format!(
            "  {}",
            result.as_ref().map_or_else(ToString::to_string, |done| format!("{:?}", done.ids()))
        ));
        let is_gone = plan.leases().iter().any(|(group, ..)| self.world().groups[*group].is_gone);
        match result {
            Ok(_) if is_gone => Err("a message of a removed group was settled".to_owned()),
            Ok(done) => self.carried_out(&plan, &done, disk),
            Err(Error::Removed { .. }) if is_gone => self.put_back(plan),
            Err(Error::LeaseLost { id }) => {
                let lost = |world: &crate::reference::World| {
                    let leases = plan.leases();
                    leases.into_iter().any(|(group, of, ticket, _)| of == id && !world.groups[group].holds(of, ticket))
                };
                self.advance(|world| {
                    ensure!(lost(world), "{id} was lost in a transaction, and it was held");
                    Ok(vec![world.clone()])
                })?;
                self.put_back(plan)
            }
            Err(error) => Err(format!("a transaction failed: {error}")),
        }
    }

    /// Deliveries that are kept, and messages that nothing keeps from being published.
    fn plan(&mut self, deliveries: &[(usize, u8)], batch: Option<usize>, drafts: &[(usize, Draft)]) -> Outcome<Plan> {
        let mut plan = Plan { taken: Vec::new(), batch: None, published: Vec::new() };
        for (delivery, how) in deliveries {
            let Some(index) = pick(&self.process()?.held, *delivery) else { continue };
            let settle = match how {
                0 | 1 => Settle::Ack,
                2 => Settle::Nack(text_of(0)),
                3 => Settle::NackAfter(700),
                _ => Settle::Reject,
            };
            plan.taken.push((self.process_mut()?.held.remove(index), settle));
        }
        if let Some(index) = batch.map_or(Ok(None), |batch| Ok::<_, String>(pick(&self.process()?.batches, batch)))? {
            plan.batch = Some(self.process_mut()?.batches.remove(index));
        }
        for (topic, draft) in drafts {
            let Some(topic) = self.pick_topic(*topic)? else { continue };
            let draft = Draft { size: Size::Small, partition: None, ..*draft };
            plan.published.push((topic, draft, self.body(draft)));
        }
        Ok(plan)
    }

    /// Nothing was changed: everything is as it was.
    fn put_back(&mut self, plan: Plan) -> Outcome {
        let process = self.process_mut()?;
        process.held.extend(plan.taken.into_iter().map(|(held, _)| held));
        process.batches.extend(plan.batch);
        Ok(())
    }

    fn carried_out(&mut self, plan: &Plan, done: &Committed<Vec<InTransaction>>, disk: bool) -> Outcome {
        let ids: Vec<_> =
            done.value.iter().map(|message| done.id(*message).ok_or("no id")).collect::<Result<_, _>>()?;
        ensure!(ids == done.ids() && ids.len() == plan.published.len(), "{ids:?} of {:?}", done.ids());
        ensure!(done.lsn().0 >= self.end || done.ids().is_empty(), "carried out in the past: {done:?}");
        let is_empty = ids.is_empty() && plan.leases().is_empty();
        if disk && !is_empty {
            self.ensure_durable()?;
            self.durable_ids.extend(done.ids());
        }
        done.wait_durable().map_err(|error| format!("a transaction is not durable: {error}"))?;
        let now = self.now()?;
        self.advance(|world| {
            let mut world = world.clone();
            for (group, id, ticket, settle) in plan.leases() {
                let holder = &mut world.groups[group];
                ensure!(holder.holds(id, ticket), "{id} was settled in a transaction, and it was not held");
                match settle {
                    Settle::Ack | Settle::AckDurable | Settle::Release | Settle::Drop => holder.ack(id),
                    Settle::Nack(text) => holder.nack(id, None, text, &now),
                    Settle::NackAfter(delay) => holder.nack(id, Some(*delay), "later", &now),
                    Settle::Reject => holder.reject(id, "unusable", &now),
                }
            }
            Ok(vec![world])
        })?;
        for ((topic, draft, body), id) in plan.published.iter().zip(ids) {
            self.published(*topic, &[(*draft, id, Arc::clone(body))])?;
        }
        Ok(())
    }
}
