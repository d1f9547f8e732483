//! Receiving, and what becomes of deliveries.
//!
//! Never here: what is right (see `reference`).

use crate::actions::{millis, owned, pick, said};
use crate::facts::{Body, Seen};
use crate::ops::Op;
use crate::removal::is_removed;
use crate::runner::{Held, HeldBatch, Outcome, Runner, ensure, push_new};
use millpond::{DeliveryRef, Error, FailureCounts, GroupStats, MessageId};
use std::sync::Arc;
use std::time::Duration;

/// How a delivery is settled.
#[derive(Clone, Debug)]
pub(crate) enum Settle {
    Ack,
    AckDurable,
    Nack(String),
    NackAfter(u64),
    Reject,
    Release,
    Drop,
}

/// Short, long and cut within a character, and none.
pub(crate) fn text_of(which: u8) -> String {
    match which {
        0 => "no oven".to_owned(),
        1 => format!("{}é, and more", "x".repeat(119)),
        _ => String::new(),
    }
}

impl Runner {
    pub(crate) fn receive(&mut self, group: usize, max: usize, batch: bool, whole: bool) -> Outcome {
        let Some(group) = self.pick_group(group)? else { return Ok(()) };
        let handle = self.process()?.groups[&group].clone();
        let (mut one, mut many) = (None, None);
        if batch {
            many = Some(said("receive", handle.receive_batch(max, Duration::ZERO))?);
        } else {
            one = said("receive", handle.receive(Duration::ZERO))?;
        }
        let deliveries = one.iter().map(DeliveryRef::from).chain(many.iter().flatten());
        let seen: Vec<Seen> =
            deliveries.zip(self.tickets..).map(|(delivery, ticket)| see(delivery, ticket)).collect::<Outcome<_>>()?;
        self.tickets += seen.len() as u64;
        ensure!(seen.len() <= max, "{} deliveries, asked for {max}", seen.len());
        ensure!(
            many.as_ref().is_none_or(|batch| {
                let lens = (batch.len(), batch.iter().len(), batch.iter().skip(1).len());
                lens == (seen.len(), seen.len(), seen.len().saturating_sub(1)) && batch.is_empty() == seen.is_empty()
            }),
            "len"
        );
        let unreadable = many.iter().find(|batch| !batch.unreadable().is_empty());
        ensure!(unreadable.is_none(), "some could not be read: {unreadable:?}");
        self.trace
            .push(format!("  {:?}", seen.iter().map(|seen| (seen.id.to_string(), seen.attempt)).collect::<Vec<_>>()));
        self.received(group, &seen, max)?;
        let process = self.process_mut()?;
        match many {
            Some(batch) if whole => {
                let leases = seen.iter().map(|seen| (seen.id, seen.ticket)).collect();
                process.batches.push(HeldBatch { group, leases, batch });
            }
            many => {
                let deliveries = one.into_iter().chain(many.into_iter().flatten());
                let held = deliveries.zip(&seen).map(|(delivery, seen)| Held {
                    group,
                    id: seen.id,
                    ticket: seen.ticket,
                    delivery,
                });
                process.held.extend(held);
            }
        }
        Ok(())
    }

    pub(crate) fn received(&mut self, group: usize, seen: &[Seen], max: usize) -> Outcome {
        for seen in seen {
            let body = Arc::new(seen.body.clone());
            self.note_id(seen.id, &body)?;
            self.note_id(seen.origin, &body)?;
            if self.opening.disk {
                self.durable_ids.insert(seen.origin);
            }
        }
        let (now, dead) = (self.now()?, self.group_stats(group)?.dead);
        let mut between = Vec::new();
        for world in &self.worlds {
            for moved in subsets(&world.groups[group].exhausted(&now), |_| true) {
                let mut world = world.clone();
                world.groups[group].give_up(&moved, &now);
                world.tell();
                between.push(world);
            }
        }
        self.between = between;
        self.advance(|world| {
            let (exhausted, held_back) = (world.groups[group].exhausted(&now), world.may_hold_back(&now));
            let moved = (dead as usize).checked_sub(world.groups[group].letters.len());
            let moved = moved.ok_or_else(|| format!("receiving left {dead} dead letters"))?;
            let mut next = Vec::new();
            for choice in subsets(&exhausted, |len| len == moved) {
                let mut world = world.clone();
                world.groups[group].give_up(&choice, &now);
                if seen.is_empty() && max > 0 && !held_back {
                    let due = world.groups[group].must_deliver(&now);
                    ensure!(due.is_none(), "nothing was received, and {due:?} is due");
                    let paused = world.groups[group].options.paused;
                    ensure!(
                        paused || choice.len() == exhausted.len(),
                        "nothing was received, and of {exhausted:?} {moved} died"
                    );
                }
                seen.iter().try_for_each(|seen| world.deliver(group, seen, &now))?;
                push_new(&mut next, world);
            }
            ensure!(!next.is_empty(), "{moved} messages died of the exhausted {exhausted:?}");
            Ok(next)
        })
    }

    pub(crate) fn group_stats(&self, group: usize) -> Outcome<GroupStats> {
        self.stats_of(&self.group_name(group))
    }

    pub(crate) fn stats_of(&self, name: &str) -> Outcome<GroupStats> {
        let stats = self.look()?;
        let found = stats.topics.iter().flat_map(|topic| &topic.groups).find(|found| found.name == name);
        found.cloned().ok_or_else(|| format!("no stats of {name}"))
    }

    /// A kept delivery; where none is kept, one is received if there is any.
    fn held(&mut self, delivery: usize) -> Outcome<Option<usize>> {
        if self.process()?.held.is_empty() {
            self.step(&Op::Receive { group: delivery })?;
        }
        Ok(pick(&self.process()?.held, delivery))
    }

    fn held_batch(&mut self, batch: usize) -> Outcome<Option<usize>> {
        if self.process()?.batches.is_empty() {
            self.step(&Op::ReceiveBatch { group: batch, max: 4, whole: true })?;
        }
        Ok(pick(&self.process()?.batches, batch))
    }

    /// Lets a lease run out, and what it held be taken by another.
    pub(crate) fn overtake(&mut self, delivery: usize) -> Outcome {
        let Some(index) = self.held(delivery)? else { return Ok(()) };
        let group = self.process()?.held[index].group;
        let options = &self.world().groups[group].options;
        let by = options.visibility_timeout + options.backoff_max;
        self.step(&Op::Advance { by })?;
        let Some(group) = self.process()?.groups.keys().position(|number| *number == group) else { return Ok(()) };
        self.step(&Op::ReceiveBatch { group, max: 4, whole: false })
    }

    pub(crate) fn on_delivery(&mut self, delivery: usize, settle: Settle) -> Outcome {
        let Some(index) = self.held(delivery)? else { return Ok(()) };
        let held = self.process_mut()?.held.remove(index);
        self.settle_one(held, settle)
    }

    pub(crate) fn settle_one(&mut self, Held { group, id, ticket, delivery }: Held, settle: Settle) -> Outcome {
        let result = match &settle {
            Settle::Ack => Some(delivery.ack()),
            Settle::AckDurable => Some(delivery.ack_durable()),
            Settle::Nack(text) => Some(delivery.nack(text)),
            Settle::NackAfter(delay) => Some(delivery.nack_after(Duration::from_millis(*delay), "later")),
            Settle::Reject => Some(delivery.reject("unusable")),
            Settle::Release => Some(delivery.release()),
            Settle::Drop => {
                drop(delivery);
                None
            }
        };
        self.trace.push(format!(
            "  {id} {settle:?}: {}",
            result.as_ref().map_or("dropped", |r| if r.is_ok() { "ok" } else { "err" })
        ));
        if matches!((&settle, &result), (Settle::AckDurable, Some(Ok(())))) {
            self.ensure_durable()?;
        }
        if self.world().groups[group].is_gone {
            return result.map_or(Ok(()), |result| is_removed("settle", &result));
        }
        let now = self.now()?;
        self.advance(|world| {
            let mut world = world.clone();
            let holder = &mut world.groups[group];
            let holds = holder.holds(id, ticket);
            match &result {
                Some(Ok(())) if holds => {}
                Some(Err(Error::LeaseLost { id: lost })) if !holds && *lost == id => return Ok(vec![world]),
                None if holds => {}
                None => return Ok(vec![world]),
                other => return Err(format!("settled {id}, holding it: {holds}: {other:?}")),
            }
            match &settle {
                Settle::Ack | Settle::AckDurable => holder.ack(id),
                Settle::Nack(text) => holder.nack(id, None, text, &now),
                Settle::NackAfter(delay) => holder.nack(id, Some(*delay), "later", &now),
                Settle::Reject => holder.reject(id, "unusable", &now),
                Settle::Release => holder.release(id),
                Settle::Drop => holder.nack(id, None, "dropped", &now),
            }
            Ok(vec![world])
        })
    }

    pub(crate) fn extend(&mut self, delivery: usize, duration: u64) -> Outcome {
        let Some(index) = self.held(delivery)? else { return Ok(()) };
        let Held { group, id, ticket, delivery } = &self.process()?.held[index];
        let (group, id, ticket) = (*group, *id, *ticket);
        let result = delivery.extend(Duration::from_millis(duration));
        let left = delivery.expires_in();
        self.trace.push(format!("  {id}: {result:?}, {left:?} left"));
        if self.world().groups[group].is_gone {
            return is_removed("extend", &result);
        }
        let now = self.now()?;
        self.advance(|world| {
            let mut world = world.clone();
            let lost = matches!(&result, Err(Error::LeaseLost { id: lost }) if *lost == id);
            ensure!(result.is_ok() || lost, "extended {id}: {result:?}");
            world.extend(group, (id, ticket), duration, &now, lost)?;
            let expected = world.groups[group].lease_left((id, ticket), &now);
            ensure!(left.as_ref().ok() == expected.as_ref(), "{id} lasts {left:?}, expected {expected:?}");
            Ok(vec![world])
        })
    }

    pub(crate) fn ack_batch(&mut self, batch: usize, durable: bool) -> Outcome {
        let Some(index) = self.held_batch(batch)? else { return Ok(()) };
        let HeldBatch { group, leases, batch } = self.process_mut()?.batches.remove(index);
        let result = if durable { batch.ack_durable() } else { batch.ack() };
        if self.world().groups[group].is_gone && !leases.is_empty() {
            return is_removed("ack a batch", &result);
        }
        let lost = said("ack a batch", result)?;
        if durable && lost.len() < leases.len() {
            self.ensure_durable()?;
        }
        self.trace.push(format!("  lost {lost:?} of {leases:?}"));
        self.advance(|world| {
            let mut world = world.clone();
            let holder = &mut world.groups[group];
            let missing: Vec<_> = leases.iter().filter(|(id, ticket)| !holder.holds(*id, *ticket)).collect();
            ensure!(
                missing.iter().map(|(id, _)| *id).eq(lost.ids.iter().copied()),
                "lost {lost:?}, expected {missing:?}"
            );
            leases.iter().filter(|(id, _)| !lost.ids.contains(id)).for_each(|(id, _)| holder.ack(*id));
            Ok(vec![world])
        })
    }

    pub(crate) fn split_batch(&mut self, batch: usize) -> Outcome {
        let Some(index) = pick(&self.process()?.batches, batch) else { return Ok(()) };
        let process = self.process_mut()?;
        let HeldBatch { group, leases, batch } = process.batches.remove(index);
        let held = batch.into_iter().zip(leases).map(|(delivery, (id, ticket))| Held { group, id, ticket, delivery });
        process.held.extend(held);
        Ok(())
    }

    pub(crate) fn drop_batch(&mut self, batch: usize) -> Outcome {
        let Some(index) = pick(&self.process()?.batches, batch) else { return Ok(()) };
        let HeldBatch { group, leases, batch } = self.process_mut()?.batches.remove(index);
        drop(batch);
        let now = self.now()?;
        for (id, ticket) in leases {
            self.between.extend(self.worlds.iter().cloned());
            self.change(|world| {
                if world.groups[group].holds(id, ticket) {
                    world.groups[group].nack(id, None, "dropped", &now);
                }
            })?;
        }
        Ok(())
    }
}

pub(crate) fn counts_of(failures: FailureCounts) -> [u32; 3] {
    [failures.nacks, failures.expiries, failures.crashes]
}

/// Every choice of a number of elements that is wanted.
fn subsets(ids: &[MessageId], is_wanted: impl Fn(usize) -> bool) -> Vec<Vec<MessageId>> {
    let all = |is_all: usize| if is_all == ids.len() { vec![ids.to_vec()] } else { Vec::new() };
    // Far more than ever come together; then the ends are all there is to look at.
    if ids.len() > 8 {
        return [0, ids.len()]
            .into_iter()
            .filter(|len| is_wanted(*len))
            .flat_map(|len| if len == 0 { vec![Vec::new()] } else { all(len) })
            .collect();
    }
    let chosen = (0..1u32 << ids.len()).filter(|bits| is_wanted(bits.count_ones() as usize));
    chosen.map(|bits| ids.iter().enumerate().filter(|(n, _)| bits >> n & 1 == 1).map(|(_, id)| *id).collect()).collect()
}

fn see(delivery: DeliveryRef<'_>, ticket: u64) -> Outcome<Seen> {
    let headers = owned(delivery.headers());
    let first = headers.iter().find(|(name, _)| name == "type").map(|(_, value)| value.as_slice());
    ensure!(delivery.header("type") == first && delivery.header("none").is_none(), "header of {delivery:?}");
    Ok(Seen {
        id: delivery.id(),
        origin: delivery.origin(),
        body: Body { key: delivery.key().map(<[u8]>::to_vec), headers, payload: delivery.payload().to_vec() },
        attempt: delivery.attempt(),
        counts: counts_of(delivery.failures()),
        published: millis(delivery.timestamp()),
        ticket,
    })
}
