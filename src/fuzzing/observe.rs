//! A store observed beside its writer: nothing is changed, and what is seen is the state of one LSN.

use crate::disk::Disk;
use crate::disk::sim::SimDisk;
use crate::error::Result;
use crate::ids::Offset;
use crate::state::Role;
use crate::view::{ObservedView, ViewHolder};
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
    let files = |disk: &SimDisk| {
        let mut files: Vec<_> =
            disk.files().into_iter().map(|file| (disk.read_file(&file.name), file.name, file.len)).collect();
        files.sort_by(|one, other| one.1.cmp(&other.1));
        files
    };
    let handle: Arc<dyn Disk> = Arc::new(disk.reader());
    let before = files(disk);
    let observed = ObservedView::open(handle, Path::new("")).map(|observer| observer.map(|observer| look(&observer)));
    assert!(files(disk) == before, "an observer changed the store");
    observed
}

fn look(observer: &ObservedView) -> Observed {
    let (hash, wanted) = observer.with_view(|view| {
        let state = &view.state;
        // A topic without groups keeps what is there, and may have had groups that settled the rest.
        let is_wanted = |partition| match state.partition_role(partition) {
            Some(Role::Topic { topic, .. }) => state.groups_of(topic).next().is_some(),
            Some(Role::Retry { .. } | Role::Dead { .. } | Role::Notes { .. } | Role::Schedule { .. }) => true,
            None => false,
        };
        let all = state.partitions().filter(|(partition, _)| is_wanted(*partition));
        let wanted = all.flat_map(|(partition, end)| {
            let unsettled = (state.settled_before(partition).0..end.0).map(Offset);
            let is_wanted = move |offset: &Offset| !state.is_settled(partition, *offset, offset.saturating_add(1));
            unsettled.filter(is_wanted).take(READS_MAX).map(move |offset| (partition, offset))
        });
        (state.hash(), wanted.collect::<Vec<_>>())
    });
    let mut observed = Observed { end: observer.end().0, hash, messages: 0, unreadable: 0 };
    for (partition, offset) in wanted {
        match observer.fetch(partition, offset) {
            Ok(_) => observed.messages += 1,
            Err(_) => observed.unreadable += 1,
        }
    }
    observed
}
