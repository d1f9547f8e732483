//! The workloads against queues in memory: an honest one passes, and each way of cheating is seen.

use super::{Outcome, Scale, run};
use crate::queue::{Acknowledgement, Facts, Mode, Peer, Queue, Result, Survives};
use crate::workload::Workload;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

const WORKLOADS: [Workload; 8] = [
    Workload::PublishOne,
    Workload::PublishBatch,
    Workload::Durable,
    Workload::DurableBatch,
    Workload::DurableMany,
    Workload::ReceiveOne,
    Workload::ReceiveBatch,
    Workload::Live,
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cheat {
    None,
    /// Every tenth message is dropped.
    Drop,
    /// Every tenth message is stored twice.
    Double,
    /// A bit of every tenth message is flipped.
    Flip,
}

struct Memory {
    messages: Mutex<VecDeque<Vec<u8>>>,
    published: Mutex<u64>,
    cheat: Cheat,
}

impl Memory {
    fn open(cheat: Cheat) -> Box<dyn Queue> {
        Box::new(Self { messages: Mutex::default(), published: Mutex::new(0), cheat })
    }
}

impl Queue for Memory {
    fn publish(&self, payload: &[u8]) -> Result<()> {
        let mut published = self.published.lock();
        *published += 1;
        let cheat = if published.is_multiple_of(10) { self.cheat } else { Cheat::None };
        let mut payload = payload.to_vec();
        match cheat {
            Cheat::None => {}
            Cheat::Drop => return Ok(()),
            Cheat::Double => self.messages.lock().push_back(payload.clone()),
            Cheat::Flip => payload[50] ^= 1,
        }
        self.messages.lock().push_back(payload);
        Ok(())
    }

    fn publish_batch(&self, payloads: &[&[u8]]) -> Result<()> {
        payloads.iter().try_for_each(|payload| self.publish(payload))
    }

    fn publish_durable(&self, payload: &[u8]) -> Result<()> {
        self.publish(payload)
    }

    fn receive_ack(&self, sink: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.receive_ack_batch(1, sink)? > 0)
    }

    fn receive_ack_batch(&self, max: usize, sink: &mut dyn FnMut(&[u8])) -> Result<usize> {
        let mut messages = self.messages.lock();
        let count = max.min(messages.len());
        messages.drain(..count).for_each(|payload| sink(&payload));
        Ok(count)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

fn facts() -> Facts {
    Facts {
        version: String::new(),
        survives_kill9: Survives::No,
        survives_power_loss: Survives::No,
        survives_power_loss_when_asked: Survives::No,
        acknowledgement: Acknowledgement::PerMessage,
        acknowledgement_survives_kill9: Survives::No,
        acknowledgement_survives_power_loss: Survives::No,
        note: "",
        cannot: &[],
        advantages: &[],
    }
}

fn outcome(workload: Workload, open: fn(&Path, Mode) -> Result<Box<dyn Queue>>) -> Outcome {
    let peer = Peer { name: "memory", facts, open, is_present: || true };
    let scale = Scale { messages: 1000, limit: Duration::from_secs(60), threads: 4 };
    run(workload, &peer, Path::new("/nowhere"), scale).unwrap()
}

#[test]
fn an_honest_queue_has_no_fault() {
    for workload in WORKLOADS {
        let outcome = outcome(workload, |_, _| Ok(Memory::open(Cheat::None)));
        assert_eq!(outcome.fault, None, "{workload:?}");
        assert!(outcome.figure.is_some() || workload == Workload::Live, "{workload:?}");
    }
}

#[test]
fn a_queue_that_drops_is_seen() {
    for workload in WORKLOADS {
        let fault = outcome(workload, |_, _| Ok(Memory::open(Cheat::Drop))).fault.unwrap();
        assert!(fault.starts_with("lost 100 of"), "{workload:?}: {fault}");
    }
}

#[test]
fn a_queue_that_doubles_is_seen() {
    for workload in WORKLOADS {
        let fault = outcome(workload, |_, _| Ok(Memory::open(Cheat::Double))).fault.unwrap();
        assert!(fault.starts_with("100 too many of"), "{workload:?}: {fault}");
    }
}

#[test]
fn a_queue_that_changes_messages_is_seen() {
    for workload in WORKLOADS {
        let fault = outcome(workload, |_, _| Ok(Memory::open(Cheat::Flip))).fault.unwrap();
        assert!(fault.starts_with("changed some of"), "{workload:?}: {fault}");
    }
}
