//! raft-engine: a region a publishing thread, because the indexes of a region are dense and group commit works across regions.

use super::numbers::Numbers;
use crate::queue::{Acknowledgement, Facts, Mode, Peer, Queue, Result, Survives, locked_version};
use crate::workload::Workload;
use protobuf::well_known_types::BytesValue;
use raft_engine::{Command, Config, Engine, LogBatch, MessageExt};
use std::cell::Cell;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

pub(super) const PEER: Peer = Peer { name: "raft-engine", facts, open, is_present: || true };

const REGIONS: usize = 64;
const HEAD: &[u8] = b"head";
/// Acknowledged entries before they are compacted away.
const COMPACTED_AT_ONCE: u64 = 10_000;

thread_local! {
    static REGION: Cell<Option<usize>> = const { Cell::new(None) };
}

struct Regions {
    engine: Engine,
    regions: Vec<Region>,
    publishers: AtomicUsize,
    /// The region to look into first for a message.
    turn: AtomicUsize,
}

struct Region {
    numbers: Numbers,
    /// Entries before this index are gone. Behind the acknowledged ones, because each compaction copies the index of what is left.
    compacted: AtomicU64,
}

/// An entry: eight bytes of index, which raft-engine asks the entry itself for, and the payload.
struct Indexed;

impl MessageExt for Indexed {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        entry.value.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }
}

fn facts() -> Facts {
    Facts {
        version: locked_version("raft-engine"),
        survives_kill9: Survives::Yes,
        survives_power_loss: Survives::No,
        survives_power_loss_when_asked: Survives::Yes,
        acknowledgement: Acknowledgement::CursorOnly,
        acknowledgement_survives_kill9: Survives::Yes,
        acknowledgement_survives_power_loss: Survives::No,
        note: "A region for each publishing thread, so there is no order between threads; an acknowledgement puts the position under a \
               key, every 10,000 compact the log. Group commit. The index of all entries is in memory. Entries carry eight bytes of index more.",
        cannot: &[],
        advantages: &[
            (Workload::PublishBatch, "a batch is one write of one block with one checksum"),
            (Workload::Durable, "one write and one sync into space allocated ahead, as in millpond"),
            (Workload::DurableBatch, "one write and one sync a batch with one checksum"),
            (Workload::DurableMany, "group commit over 64 regions; no order between threads"),
            (Workload::ReceiveOne, "no lease: the position moves by one small write"),
            (
                Workload::ReceiveBatch,
                "no lease and no acknowledgement of single messages: a batch is decoded as one block, and one small write moves the position",
            ),
            (Workload::Live, "its consumer asks the index in memory again and again and never sleeps"),
            (Workload::OpenClean, "its log is recovered by several threads"),
            (
                Workload::OpenKilled,
                "its log is recovered by several threads, and checksums are one a write, not one a message",
            ),
            (Workload::DiskBytes, "one header and one checksum a write, which fills of a thousand messages share"),
        ],
    }
}

fn open(dir: &Path, _: Mode) -> Result<Box<dyn Queue>> {
    let dir = dir.to_str().ok_or("a path that is not UTF-8")?.to_owned();
    let engine = Engine::open(Config { dir, ..Config::default() })?;
    // Indexes begin at 1, as Raft's do.
    let region = |region| {
        let saved =
            engine.get(region, HEAD).and_then(|head| Some(u64::from_le_bytes(head.try_into().ok()?))).unwrap_or(1);
        let first = engine.first_index(region).unwrap_or(saved);
        let end = engine.last_index(region).map_or(saved, |last| last + 1);
        Region { numbers: Numbers::new(saved.max(first)..end), compacted: AtomicU64::new(first) }
    };
    let regions = (0..REGIONS as u64).map(region).collect();
    Ok(Box::new(Regions { engine, regions, publishers: AtomicUsize::new(0), turn: AtomicUsize::new(0) }))
}

impl Regions {
    fn write(&self, payloads: &[&[u8]], sync: bool) -> Result<()> {
        let region = REGION.get().unwrap_or_else(|| self.publishers.fetch_add(1, Ordering::Relaxed) % REGIONS);
        REGION.set(Some(region));
        self.regions[region].numbers.append(payloads.len(), |range| {
            let entry = |(index, payload): (u64, &&[u8])| {
                let mut entry = BytesValue::new();
                entry.value = [&index.to_le_bytes(), *payload].concat();
                entry
            };
            let entries: Vec<BytesValue> = range.zip(payloads).map(entry).collect();
            let mut batch = LogBatch::default();
            batch.add_entries::<Indexed>(region as u64, &entries)?;
            self.engine.write(&mut batch, sync)?;
            Ok(())
        })
    }
}

impl Queue for Regions {
    fn publish(&self, payload: &[u8]) -> Result<()> {
        self.write(&[payload], false)
    }

    fn publish_batch(&self, payloads: &[&[u8]]) -> Result<()> {
        self.write(payloads, false)
    }

    fn publish_durable(&self, payload: &[u8]) -> Result<()> {
        self.write(&[payload], true)
    }

    fn publish_batch_durable(&self, payloads: &[&[u8]]) -> Result<()> {
        self.write(payloads, true)
    }

    fn receive_ack(&self, sink: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.receive_ack_batch(1, sink)? > 0)
    }

    fn receive_ack_batch(&self, max: usize, sink: &mut dyn FnMut(&[u8])) -> Result<usize> {
        let first = self.turn.load(Ordering::Relaxed);
        for region in (first..first + REGIONS).map(|region| region % REGIONS) {
            let Region { numbers, compacted } = &self.regions[region];
            let count = numbers.take(max, |range| {
                let mut entries = Vec::new();
                self.engine.fetch_entries_to::<Indexed>(region as u64, range.start, range.end, None, &mut entries)?;
                entries.iter().for_each(|entry| sink(entry.value.get(8..).unwrap_or_default()));
                let mut done = LogBatch::default();
                done.put(region as u64, HEAD.to_vec(), range.end.to_le_bytes().to_vec())?;
                if range.end - compacted.load(Ordering::Relaxed) >= COMPACTED_AT_ONCE {
                    done.add_command(region as u64, Command::Compact { index: range.end });
                    compacted.store(range.end, Ordering::Relaxed);
                }
                self.engine.write(&mut done, false)?;
                Ok(())
            })?;
            if count > 0 {
                self.turn.store(region, Ordering::Relaxed);
                return Ok(count);
            }
        }
        Ok(0)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.engine.sync()?)
    }
}
