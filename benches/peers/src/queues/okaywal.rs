//! okaywal: a log whose entries go to a manager at checkpoints. It keeps nothing waiting, so only publishing is measured.

use crate::payload::Tally;
use crate::queue::{Acknowledgement, Facts, Mode, Peer, Queue, Result, Survives, locked_version};
use crate::workload::Workload;
use okaywal::{Entry, EntryId, LogManager, SegmentReader, WriteAheadLog};
use parking_lot::Mutex;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) const PEER: Peer = Peer { name: "okaywal", facts, open, is_present: || true };

const NOT_A_QUEUE: &str = "entries go to its manager at checkpoints: nothing waits to be received";

struct Log {
    dir: PathBuf,
    wal: WriteAheadLog,
    handed_over: Arc<Mutex<Tally>>,
}

/// Takes in what the log hands over: at checkpoints, or what it recovered, never both.
#[derive(Debug)]
struct Manager {
    tally: Arc<Mutex<Tally>>,
    takes_recovered: bool,
}

fn facts() -> Facts {
    Facts {
        version: locked_version("okaywal"),
        survives_kill9: Survives::Yes,
        survives_power_loss: Survives::Yes,
        survives_power_loss_when_asked: Survives::Yes,
        acknowledgement: Acknowledgement::None,
        acknowledgement_survives_kill9: Survives::No,
        acknowledgement_survives_power_loss: Survives::No,
        note: "A write-ahead log, not a queue. Every commit syncs, grouped over threads. Default configuration: checkpoints after 768 KiB.",
        cannot: &[
            (Workload::ReceiveOne, NOT_A_QUEUE),
            (Workload::ReceiveBatch, NOT_A_QUEUE),
            (Workload::Live, NOT_A_QUEUE),
            (Workload::OpenClean, NOT_A_QUEUE),
            (Workload::OpenKilled, NOT_A_QUEUE),
            (Workload::DiskBytes, NOT_A_QUEUE),
        ],
        advantages: &[
            (Workload::Durable, "one write and one sync into a preallocated file, of bare bytes, as millpond does"),
            (
                Workload::DurableBatch,
                "it begins its files anew when they are read out: what is written over blocks that were written before is synced without the file system's journal",
            ),
            (Workload::DurableMany, "group commit as in millpond; it keeps nothing for a consumer"),
        ],
    }
}

fn open(dir: &Path, _: Mode) -> Result<Box<dyn Queue>> {
    let handed_over = Arc::new(Mutex::new(Tally::default()));
    let manager = Manager { tally: Arc::clone(&handed_over), takes_recovered: false };
    Ok(Box::new(Log { dir: dir.to_owned(), wal: WriteAheadLog::recover(dir, manager)?, handed_over }))
}

impl Manager {
    fn take(&self, entry: &mut Entry<'_>) -> io::Result<()> {
        let mut tally = self.tally.lock();
        entry.read_all_chunks()?.into_iter().flatten().for_each(|payload| tally.add(&payload));
        Ok(())
    }
}

impl LogManager for Manager {
    fn recover(&mut self, entry: &mut Entry<'_>) -> io::Result<()> {
        if self.takes_recovered { self.take(entry) } else { Ok(()) }
    }

    fn checkpoint_to(&mut self, _: EntryId, entries: &mut SegmentReader, _: &WriteAheadLog) -> io::Result<()> {
        while let Some(mut entry) = entries.read_entry()? {
            if !self.takes_recovered {
                self.take(&mut entry)?;
            }
        }
        Ok(())
    }
}

impl Queue for Log {
    fn publish(&self, payload: &[u8]) -> Result<()> {
        self.publish_batch(&[payload])
    }

    fn publish_batch(&self, payloads: &[&[u8]]) -> Result<()> {
        let mut entry = self.wal.begin_entry()?;
        for payload in payloads {
            entry.write_chunk(payload)?;
        }
        entry.commit()?;
        Ok(())
    }

    fn publish_durable(&self, payload: &[u8]) -> Result<()> {
        self.publish(payload)
    }

    fn receive_ack(&self, _: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Err(NOT_A_QUEUE.into())
    }

    fn receive_ack_batch(&self, _: usize, _: &mut dyn FnMut(&[u8])) -> Result<usize> {
        Err(NOT_A_QUEUE.into())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.wal.shutdown()?)
    }

    fn drain(self: Box<Self>) -> Result<Tally> {
        let (dir, handed_over) = (self.dir.clone(), Arc::clone(&self.handed_over));
        self.close()?;
        let rest = Arc::new(Mutex::new(Tally::default()));
        let manager = Manager { tally: Arc::clone(&rest), takes_recovered: true };
        WriteAheadLog::recover(dir, manager)?.shutdown()?;
        let mut tally = *handed_over.lock();
        tally.merge(*rest.lock());
        Ok(tally)
    }
}
