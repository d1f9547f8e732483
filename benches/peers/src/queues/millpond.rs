//! millpond: one topic with one partition, one group.

use crate::queue::{Acknowledgement, Facts, Mode, Peer, Queue, Result, Survives, locked_version};
use millpond::{Durability, Group, Message, Store, Topic};
use std::path::Path;
use std::time::Duration;

pub(super) const PEER: Peer = Peer { name: super::SUBJECT, facts, open, is_present: || true };

struct Millpond {
    store: Store,
    topic: Topic,
    group: Group,
}

fn facts() -> Facts {
    Facts {
        version: locked_version("millpond"),
        survives_kill9: Survives::Yes,
        survives_power_loss: Survives::Partly("up to 50 ms lost"),
        survives_power_loss_when_asked: Survives::Yes,
        acknowledgement: Acknowledgement::Leased,
        acknowledgement_survives_kill9: Survives::Yes,
        acknowledgement_survives_power_loss: Survives::Partly("up to 50 ms lost"),
        note: "A store at level Os, for the durable rows at level Disk. Every receive takes a lease that survives as well. Group commit.",
        cannot: &[],
        advantages: &[],
    }
}

fn open(dir: &Path, mode: Mode) -> Result<Box<dyn Queue>> {
    let level = if mode == Mode::Power { Durability::Disk } else { Durability::Os };
    let store = Store::options().durability(level).open(dir)?;
    let topic = store.topic("messages").open()?;
    let group = topic.group("workers").open()?;
    Ok(Box::new(Millpond { store, topic, group }))
}

impl Millpond {
    fn receive(&self, max: usize, wait: Duration, sink: &mut dyn FnMut(&[u8])) -> Result<usize> {
        let batch = self.group.receive_batch(max, wait)?;
        let count = batch.len();
        batch.iter().for_each(|delivery| sink(delivery.payload()));
        let lost = batch.ack()?;
        if lost.is_empty() { Ok(count) } else { Err(format!("{} leases were lost", lost.len()).into()) }
    }
}

impl Queue for Millpond {
    fn publish(&self, payload: &[u8]) -> Result<()> {
        self.topic.publish(Message::new(payload))?;
        Ok(())
    }

    fn publish_batch(&self, payloads: &[&[u8]]) -> Result<()> {
        self.topic.publish_batch(payloads.iter().map(|payload| Message::new(*payload)))?;
        Ok(())
    }

    fn publish_durable(&self, payload: &[u8]) -> Result<()> {
        self.publish(payload)
    }

    fn receive_ack(&self, sink: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let Some(delivery) = self.group.receive(Duration::ZERO)? else { return Ok(false) };
        sink(delivery.payload());
        delivery.ack()?;
        Ok(true)
    }

    fn receive_ack_batch(&self, max: usize, sink: &mut dyn FnMut(&[u8])) -> Result<usize> {
        self.receive(max, Duration::ZERO, sink)
    }

    fn receive_ack_wait(&self, max: usize, wait: Duration, sink: &mut dyn FnMut(&[u8])) -> Result<usize> {
        self.receive(max, wait, sink)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.store.close()?)
    }
}
