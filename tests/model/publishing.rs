//! Publishing, and receipts.
//!
//! Never here: what is right (see `reference`).

use crate::actions::{pick, said};
use crate::facts::{Body, Message as Stored};
use crate::ops::{Draft, Size};
use crate::runner::{Kept, MESSAGE_BYTES_MAX, Outcome, Runner, ensure};
use millpond::{Durability, Message, MessageId, Topic};
use millpond::{Offset, TopicId};
use std::sync::Arc;

const KEYS: [&[u8]; 4] = [b"", b"a", b"customer-789", b"\xff\x00"];

impl Runner {
    pub(crate) fn body(&mut self, draft: Draft) -> Arc<Body> {
        self.bodies += 1;
        let len = match draft.size {
            Size::Empty => 0,
            Size::Small => 12,
            Size::Long(kib) => usize::from(kib) << 10,
            Size::Huge => MESSAGE_BYTES_MAX + 1,
        };
        let payload = self.bodies.to_le_bytes().into_iter().cycle().take(len).collect();
        let key = draft.key.map(|key| KEYS[usize::from(key)].to_vec());
        let headers = [("type", b"OrderPlaced".as_slice()), ("type", b"")];
        let headers =
            headers.iter().take(usize::from(draft.headers)).map(|(name, value)| ((*name).to_owned(), value.to_vec()));
        Arc::new(Body { key, headers: headers.collect(), payload })
    }

    pub(crate) fn handle(&self, topic: usize, disk: Option<bool>) -> Outcome<(Topic, bool)> {
        let handle = &self.process()?.topics[&topic];
        let level = |disk| if disk { Durability::Disk } else { Durability::Os };
        let handle = disk.map_or_else(|| handle.clone(), |disk| handle.with_durability(level(disk)));
        Ok((handle, disk.unwrap_or(self.opening.disk)))
    }

    /// Why the topic must refuse a batch: the first message that is wrong says it.
    pub(crate) fn refusal(&self, topic: usize, drafts: &[Draft]) -> Option<&'static str> {
        let partitions = self.world().topics[topic].len();
        drafts.iter().find_map(|draft| match draft.partition {
            Some(partition) if usize::from(partition) >= partitions => Some("InvalidOption"),
            _ => matches!(draft.size, Size::Huge).then_some("TooLarge"),
        })
    }

    pub(crate) fn publish(&mut self, topic: usize, draft: Draft, disk: Option<bool>) -> Outcome {
        let Some(topic) = self.pick_topic(topic)? else { return Ok(()) };
        let body = self.body(draft);
        let (handle, disk) = self.handle(topic, disk)?;
        let receipt = match (handle.publish(message(draft, &body)), self.refusal(topic, &[draft])) {
            (Ok(receipt), None) => receipt,
            (Err(error), Some(refusal)) if format!("{error:?}").starts_with(refusal) => return Ok(()),
            (other, refusal) => return Err(format!("published: {other:?}, expected {refusal:?}")),
        };
        ensure!(receipt.level() == if disk { Durability::Disk } else { Durability::Os }, "{receipt:?}");
        ensure!(receipt.lsn().0 >= self.end, "published into the past: {receipt:?}");
        if disk {
            self.ensure_durable()?;
            self.durable_ids.insert(receipt.id());
        }
        let end = self.look()?.log.end.0;
        let id = receipt.id();
        self.process_mut()?.receipts.push((Kept::One(receipt), end));
        self.trace.push(format!("  {id}"));
        self.published(topic, &[(draft, id, body)])
    }

    pub(crate) fn publish_batch(&mut self, topic: usize, drafts: &[Draft], disk: Option<bool>) -> Outcome {
        let Some(topic) = self.pick_topic(topic)? else { return Ok(()) };
        let bodies: Vec<_> = drafts.iter().map(|draft| self.body(*draft)).collect();
        let (handle, disk) = self.handle(topic, disk)?;
        let messages = drafts.iter().zip(&bodies).map(|(draft, body)| message(*draft, body));
        let receipt = match (handle.publish_batch(messages), self.refusal(topic, drafts)) {
            (Ok(receipt), None) => receipt,
            (Err(error), Some(refusal)) if format!("{error:?}").starts_with(refusal) => return Ok(()),
            (other, refusal) => return Err(format!("published: {other:?}, expected {refusal:?}")),
        };
        ensure!(receipt.level() == if disk { Durability::Disk } else { Durability::Os }, "{receipt:?}");
        ensure!(receipt.ids().len() == drafts.len(), "{} ids", receipt.ids().len());
        ensure!(drafts.is_empty() || receipt.lsn().0 >= self.end, "published into the past: {receipt:?}");
        if disk && !drafts.is_empty() {
            self.ensure_durable()?;
            self.durable_ids.extend(receipt.ids());
        }
        let end = self.look()?.log.end.0;
        let ids = receipt.ids().to_vec();
        self.process_mut()?.receipts.push((Kept::Batch(receipt), if ids.is_empty() { 0 } else { end }));
        let placed: Vec<_> = drafts.iter().zip(ids).zip(bodies).map(|((d, id), body)| (*d, id, body)).collect();
        self.published(topic, &placed)
    }

    /// Messages stand where their ids say, and that is where they belong.
    pub(crate) fn published(&mut self, topic: usize, placed: &[(Draft, MessageId, Arc<Body>)]) -> Outcome {
        for (draft, id, body) in placed {
            self.note_id(*id, body)?;
            match draft.partition {
                Some(partition) => ensure!(id.partition == u64::from(partition), "{id} of {draft:?}"),
                None => self.check_home(topic, body, id.partition)?,
            }
        }
        let now = self.now()?;
        self.advance(|world| {
            let mut world = world.clone();
            for (_, id, body) in placed {
                let partition = world.topics[topic].get(id.partition as usize);
                let offset = partition.ok_or_else(|| format!("{id} is in no partition"))?.len() as u64;
                let (topic_id, partition) = (TopicId(topic as u64), id.partition);
                let due = MessageId { topic: topic_id, partition, epoch: now.epoch, offset: Offset(offset) };
                ensure!(*id == due, "published as {id}, expected {due}");
                let (body, origin, published) = (Arc::clone(body), *id, now.wall);
                let message =
                    Stored { id: *id, origin, body, published, stored: now.wall, frame: now.frame, redrives: 0 };
                world.publish(topic, &message);
            }
            Ok(vec![world])
        })
    }

    /// Messages of one key go to one partition.
    pub(crate) fn check_home(&mut self, topic: usize, body: &Body, partition: u64) -> Outcome {
        if let Some(key) = &body.key {
            let home = *self.homes.entry((topic, key.clone())).or_insert(partition);
            ensure!(home == partition, "key {key:?} went to partition {partition}, before to {home}");
        }
        Ok(())
    }

    pub(crate) fn wait_durable(&mut self, receipt: usize) -> Outcome {
        let Some(index) = pick(&self.process()?.receipts, receipt) else { return Ok(()) };
        let (kept, end) = &self.process()?.receipts[index];
        match kept {
            Kept::One(receipt) => said("wait for a receipt", receipt.wait_durable())?,
            Kept::Batch(receipt) => said("wait for a receipt", receipt.wait_durable())?,
        }
        let durable = self.look()?.log.durable.0;
        ensure!(durable >= *end, "waited for {end}, and durable is {durable}");
        Ok(())
    }
}

pub(crate) fn message(draft: Draft, body: &Body) -> Message<'_> {
    let message = Message::new(body.payload.clone());
    let message = body.key.iter().fold(message, |message, key| message.key(key.clone()));
    let message =
        body.headers.iter().fold(message, |message, (name, value)| message.header(name.clone(), value.clone()));
    draft.partition.iter().fold(message, |message, partition| message.partition(u32::from(*partition)))
}
