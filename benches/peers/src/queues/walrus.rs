//! walrus-rust, with both of its storage backends.

use crate::payload::{PAYLOAD_LEN, Tally};
use crate::queue::{Acknowledgement, Facts, Mode, Peer, Queue, Result, Survives, locked_version};
use crate::workload::Workload;
use std::path::Path;
use walrus_rust::{FsyncSchedule, ReadConsistency, Walrus};

pub(super) const PEER_MAPPED: Peer =
    Peer { name: "walrus-mapped", facts, open: |dir, mode| open(dir, mode, Backend::Mapped), is_present: || true };
pub(super) const PEER_FD: Peer =
    Peer { name: "walrus-fd", facts, open: |dir, mode| open(dir, mode, Backend::Fd), is_present: || true };

const TOPIC: &str = "messages";

#[derive(PartialEq, Eq)]
enum Backend {
    Mapped,
    Fd,
}

struct Wal(Walrus);

fn facts() -> Facts {
    Facts {
        version: locked_version("walrus-rust"),
        survives_kill9: Survives::Yes,
        survives_power_loss: Survives::Partly("up to 200 ms lost"),
        survives_power_loss_when_asked: Survives::Yes,
        acknowledgement: Acknowledgement::CursorOnly,
        acknowledgement_survives_kill9: Survives::Yes,
        acknowledgement_survives_power_loss: Survives::Partly("its file is synced, the renaming not"),
        note: "A batch is synced whatever the schedule says. Reading with checkpoint=true moves and saves the cursor in one: what is being worked on when the process dies is not \
               delivered again. StrictlyAtOnce (its default) syncs a file for each saved cursor; AtLeastOnce saves every n-th only: with every 1000th it is some hundred times faster, but a run over \
               500,000 messages did not come to its end in two minutes, so it is left out. \
               batch_read_for_topic skips the rest of the last sealed block when its byte budget ends inside it. The file-descriptor backend drops errors of writes. Files are sparse, \
               1 GB: on a full disk the mapped backend gets SIGBUS.",
        cannot: &[],
        advantages: &[(Workload::Durable, "one store and one sync of a file of its own, as in millpond")],
    }
}

/// Its directory comes from the environment, see [`super::environment`].
fn open(dir: &Path, mode: Mode, backend: Backend) -> Result<Box<dyn Queue>> {
    if std::env::var_os("WALRUS_DATA_DIR").as_deref() != Some(dir.as_os_str()) {
        return Err("WALRUS_DATA_DIR is not set to the directory".into());
    }
    match backend {
        Backend::Mapped => walrus_rust::disable_fd_backend(),
        Backend::Fd => walrus_rust::enable_fd_backend(),
    }
    let schedule = if mode == Mode::Power { FsyncSchedule::SyncEach } else { FsyncSchedule::Milliseconds(200) };
    Ok(Box::new(Wal(Walrus::with_consistency_and_schedule(ReadConsistency::StrictlyAtOnce, schedule)?)))
}

impl Queue for Wal {
    fn publish(&self, payload: &[u8]) -> Result<()> {
        Ok(self.0.append_for_topic(TOPIC, payload)?)
    }

    fn publish_batch(&self, payloads: &[&[u8]]) -> Result<()> {
        Ok(self.0.batch_append_for_topic(TOPIC, payloads)?)
    }

    fn publish_durable(&self, payload: &[u8]) -> Result<()> {
        self.publish(payload)
    }

    fn receive_ack(&self, sink: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let entry = self.0.read_next(TOPIC, true)?;
        Ok(entry.map(|entry| sink(&entry.data)).is_some())
    }

    fn receive_ack_batch(&self, max: usize, sink: &mut dyn FnMut(&[u8])) -> Result<usize> {
        let entries = self.0.batch_read_for_topic(TOPIC, max * PAYLOAD_LEN, true)?;
        entries.iter().for_each(|entry| sink(&entry.data));
        Ok(entries.len())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }

    /// Reads one by one without saving the cursor each time, because its batched reads skip messages.
    fn drain(self: Box<Self>) -> Result<Tally> {
        drop(self);
        let consistency = ReadConsistency::AtLeastOnce { persist_every: u32::MAX };
        let wal = Walrus::with_consistency_and_schedule(consistency, FsyncSchedule::Milliseconds(200))?;
        let mut tally = Tally::default();
        while let Some(entry) = wal.read_next(TOPIC, true)? {
            tally.add(&entry.data);
        }
        Ok(tally)
    }
}
