//! A store observed beside its writer: nothing is changed, and what is seen is the state of one LSN.

use crate::disk::Disk;
use crate::disk::sim::SimDisk;
use crate::error::{Error, Result};
use crate::ids::Offset;
use crate::state::Role;
use crate::view::{Observer, ViewHolder};
use std::path::Path;
use std::sync::Arc;

/// The most messages of a partition that are read.
const READS_MAX: usize = 64;

/// What an observer sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The state is that of the log below this LSN.
    pub end: u64,
    /// The fingerprint of the state.
    pub hash: u64,
    /// How many messages were read.
    pub messages: u64,
    /// How many could not be read.
    pub unreadable: u64,
}

/// Observes the store on `disk` as it is now, the process that has it open included; `None` where there is none yet. Reads what no
/// group has settled. Panics where a byte was changed.
///
/// # Errors
/// What keeps the store from being opened.
pub fn observe(disk: &SimDisk) -> Result<Option<Observed>> {
    let copy = disk.snapshot();
    copy.clear_faults();
    let files = |disk: &SimDisk| {
        let mut files: Vec<_> =
            disk.files().into_iter().map(|file| (disk.read_file(&file.name), file.name, file.len)).collect();
        files.sort_by(|one, other| one.1.cmp(&other.1));
        files
    };
    // Attaching makes a lock file where there is none.
    let handle: Arc<dyn Disk> = Arc::new(copy.attach().map_err(|error| Error::io("attach", error))?);
    let before = files(&copy);
    let observed = Observer::open(&handle, Path::new("")).map(|observer| observer.map(|observer| look(&observer)));
    assert!(files(&copy) == before, "an observer changed the store");
    observed
}

fn look(observer: &Observer) -> Observed {
    let (hash, partitions) = observer.with_view(|view| {
        // A topic without groups keeps what is there, and may have had groups that settled the rest.
        let is_wanted = |partition| match view.state.partition_role(partition) {
            Some(Role::Topic { topic, .. }) => view.state.groups_of(topic).next().is_some(),
            Some(Role::Retry { .. } | Role::Dead { .. } | Role::Notes { .. }) => true,
            None => false,
        };
        let all = view.state.partitions().filter(|(partition, _)| is_wanted(*partition));
        let ends = all.map(|(partition, end)| (partition, view.state.settled_before(partition), end));
        (view.state.hash(), ends.collect::<Vec<_>>())
    });
    let mut observed = Observed { end: observer.end().0, hash, messages: 0, unreadable: 0 };
    for (partition, settled, end) in partitions {
        for offset in (settled.0..end.0).take(READS_MAX) {
            match observer.fetch(partition, Offset(offset)) {
                Ok(_) => observed.messages += 1,
                Err(_) => observed.unreadable += 1,
            }
        }
    }
    observed
}
