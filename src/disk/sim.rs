//! A disk in memory that takes away everything the contract does not promise.
//!
//! A [`SimDisk`] is a machine: files with what the page cache holds, what the device holds, and the effects between the
//! two. A process attaches to it ([`SimHandle`]), is made to fail at any request, and dies with [`SimDisk::crash_process`]
//! or [`SimDisk::crash_power`]; then another one attaches. Equal seeds and requests give equal outcomes: no time, no
//! threads, no randomness but the seed's. Never here: any idea of what a file means.

mod contents;
mod crash;
mod handle;
mod image;
mod inode;
mod plan;
mod reader;
mod rng;
#[cfg(test)]
mod tests;
mod world;

pub use crash::PowerOutcome;
pub use handle::SimHandle;
pub use plan::{Fault, Op};
pub use reader::SimReader;
pub use rng::Rng;

use super::Entry;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use world::World;

type SharedWorld = Arc<Mutex<World>>;

/// A simulated machine with one directory. A clone is the same machine; a [`snapshot`](SimDisk::snapshot) is another.
///
/// *A failed sync* (a [`Fault::Io`] or [`Fault::NoSpace`]) has brought any sectors to the device, and then, by the seed,
/// leaves the others dirty; or clean as they are, so that reads see what no later sync writes; or clean and as the device
/// has them, so that reads see old bytes. A later sync answers `Ok` all the same: a caller that believes it is found out by
/// the next power failure.
#[derive(Clone)]
pub struct SimDisk {
    world: SharedWorld,
}

impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimDisk").finish_non_exhaustive()
    }
}

impl SimDisk {
    /// An empty directory.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { world: Arc::new(Mutex::new(World::new(seed))) }
    }

    /// Starts a process on the directory. It holds the lock until its handle and all its files are dropped, or it crashes.
    ///
    /// # Errors
    /// `WouldBlock` while another one lives.
    pub fn attach(&self) -> io::Result<SimHandle> {
        SimHandle::new(&self.world)
    }

    /// Another process, which reads the directory and holds no lock. It is there as long as the machine, whatever becomes of others.
    #[must_use]
    pub fn reader(&self) -> SimReader {
        SimReader::new(&self.world)
    }

    /// The process dies, if there is one; the kernel and the page cache live on. Its handles answer `NotConnected` from
    /// now on.
    pub fn crash_process(&self) {
        self.world.lock().crash_process();
    }

    /// The power goes, and comes back: what the device does not have is lost, as far as `outcome` says.
    pub fn crash_power(&self, outcome: PowerOutcome) {
        self.world.lock().crash_power(outcome);
    }

    /// Another machine in the same state, with no process and no faults to come. So one history can end in many ways.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        let mut world = self.world.lock().clone();
        world.end_process();
        world.plan.clear();
        Self { world: Arc::new(Mutex::new(world)) }
    }

    /// Decides anew about faults and crashes from here on: for snapshots of one state.
    pub fn reseed(&self, seed: u64) {
        self.world.lock().rng = Rng::new(seed);
    }

    /// How many unsynced effects there are, names included.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.world.lock().pending_count()
    }

    /// How many requests there were so far, which is the number of the next one.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.world.lock().plan.requests
    }

    /// How many requests of one kind there were so far, which is the number of the next one among its kind.
    #[must_use]
    pub fn requests_of(&self, op: Op) -> u64 {
        self.world.lock().plan.count(op)
    }

    /// Lets the request of this number (from 0, over the life of the machine) meet a fault.
    pub fn fail_at(&self, request: u64, fault: Fault) {
        self.world.lock().plan.fail_at(request, fault);
    }

    /// Lets the request of this number among its kind meet a fault.
    pub fn fail_op_at(&self, op: Op, request: u64, fault: Fault) {
        self.world.lock().plan.fail_op_at(op, request, fault);
    }

    /// Forgets the faults that are still to come.
    pub fn clear_faults(&self) {
        self.world.lock().plan.clear();
    }

    /// How many requests met a fault so far.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.world.lock().plan.faults
    }

    /// Each of those: the request, the file's name (none where a request is about no file), and what happened.
    #[must_use]
    pub fn faults_met(&self) -> Vec<(Op, String, Fault)> {
        self.world.lock().plan.met.clone()
    }

    /// Limits the lengths of all files together: what does not fit is refused with `StorageFull`.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.world.lock().capacity = bytes;
    }

    /// Others link to every file that there is, as `cp -al` does: from then on a process should leave those files as they are.
    pub fn link_files(&self) {
        self.world.lock().link_files();
    }

    /// Each change that a process made to a file which others had links to: the request and the file's name.
    #[must_use]
    pub fn linked_changes(&self) -> Vec<(Op, String)> {
        self.world.lock().linked_changes.clone()
    }

    /// The files as a process would see them, by name.
    #[must_use]
    pub fn files(&self) -> Vec<Entry> {
        self.world.lock().entries()
    }

    /// The whole content of a file, as a process would see it.
    #[must_use]
    pub fn read_file(&self, name: &str) -> Option<Vec<u8>> {
        let world = self.world.lock();
        let inode = world.inodes.get(world.names.get(name)?)?;
        Some(inode.cache.bytes(0, usize::try_from(inode.cache.len()).ok()?))
    }

    /// Sets the content of a file, on the device too; creates it where there is none. For damage at rest.
    pub fn write_file(&self, name: &str, bytes: &[u8]) {
        self.world.lock().put_file(name, bytes);
    }

    /// Removes a file, on the device too. Whether there was one.
    pub fn remove_file(&self, name: &str) -> bool {
        self.world.lock().drop_file(name)
    }

    /// A number that equal histories share: of all requests with their bytes and faults.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.world.lock().plan.hash()
    }

    /// Keeps every request from here on as a line of text.
    pub fn keep_trace(&self) {
        self.world.lock().plan.keep_lines();
    }

    /// The requests since [`keep_trace`](SimDisk::keep_trace), in order: number, kind, file, position, length, fault.
    #[must_use]
    pub fn trace(&self) -> Vec<String> {
        self.world.lock().plan.lines().to_vec()
    }
}
