//! The machine that a simulated process runs on: files, names, the process's life, and the faults of each request.
//!
//! Every request is one method of [`World`]: those about names here, those about contents in `contents`. It begins with
//! `begin` or `begin_file`, which refuse a dead process and tell the fault, and ends with `finish`, which fails or lets
//! the process die where the fault says so. Never here: handles and their traits.

use super::inode::Inode;
use super::plan::{Fault, FaultPlan, Op, gone};
use super::rng::Rng;
use crate::disk::{Entry, LOCK_NAME};
use std::collections::BTreeMap;
use std::io;

/// A creation (of an inode) or removal of a name that the device does not have yet.
#[derive(Clone, Debug)]
pub(super) struct NameChange {
    pub(super) seq: u64,
    pub(super) name: String,
    pub(super) inode: Option<u64>,
}

#[derive(Clone)]
pub(super) struct World {
    pub(super) inodes: BTreeMap<u64, Inode>,
    pub(super) names: BTreeMap<String, u64>,
    pub(super) durable_names: BTreeMap<String, u64>,
    pub(super) name_changes: Vec<NameChange>,
    next_inode: u64,
    next_seq: u64,
    /// The attachment that lives, with its files.
    session: Option<u64>,
    next_session: u64,
    /// Whether a fault has killed the process of the session. It holds its lock until the world notices.
    dead: bool,
    pub(super) plan: FaultPlan,
    /// Decides about faults and crashes.
    pub(super) rng: Rng,
    /// What the process asks for. A sequence of its own, so that a fault does not change what comes after it.
    pub(super) ids: Rng,
    pub(super) capacity: Option<u64>,
    /// Changes to files that others had links to.
    pub(super) linked_changes: Vec<(Op, String)>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let ids = Rng::new(rng.next_u64());
        Self {
            inodes: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            name_changes: Vec::new(),
            next_inode: 0,
            next_seq: 0,
            session: None,
            next_session: 0,
            dead: false,
            plan: FaultPlan::default(),
            rng,
            ids,
            capacity: None,
            linked_changes: Vec::new(),
        }
    }

    // The process.

    pub(super) fn attach(&mut self) -> io::Result<u64> {
        if self.session.is_some() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.end_process();
        let found = self.names.get(LOCK_NAME).and_then(|number| self.inodes.get(number));
        if found.is_none_or(|inode| inode.cache.len() == 0) {
            self.add_file(LOCK_NAME);
        }
        let session = self.next_session;
        self.next_session += 1;
        self.session = Some(session);
        Ok(session)
    }

    /// The process is gone, by its own will or not. What it wrote stays in the page cache.
    pub(super) fn end_process(&mut self) {
        self.session = None;
        self.dead = false;
        self.inodes.values_mut().for_each(Inode::orphan);
        self.collect();
    }

    pub(super) fn release(&mut self, session: u64) {
        if self.session == Some(session) {
            self.end_process();
        }
    }

    /// Whether the process of `session` lives.
    pub(super) fn check(&self, session: u64) -> io::Result<()> {
        if self.session == Some(session) && !self.dead { Ok(()) } else { Err(gone()) }
    }

    fn begin(&mut self, session: u64, op: Op, name: &str, len: u64) -> io::Result<Option<Fault>> {
        self.check(session)?;
        let fault = self.plan.meet(op, name, 0, len);
        self.started(fault)
    }

    /// As `begin`, for a request to an open file.
    pub(super) fn begin_file(
        &mut self,
        session: u64,
        op: Op,
        inode: u64,
        at: u64,
        len: u64,
    ) -> io::Result<Option<Fault>> {
        self.check(session)?;
        let name = self.inodes.get(&inode).map_or("", |inode| &inode.name);
        let fault = self.plan.meet(op, name, at, len);
        self.started(fault)
    }

    fn started(&mut self, fault: Option<Fault>) -> io::Result<Option<Fault>> {
        if fault == Some(Fault::CrashBefore) {
            self.dead = true;
            return Err(gone());
        }
        Ok(fault)
    }

    /// What a request answers that did all it could under `fault`: `done`, or an error, or nothing more ever.
    pub(super) fn finish<T>(&mut self, fault: Option<Fault>, done: T) -> io::Result<T> {
        match fault {
            Some(Fault::CrashMiddle | Fault::CrashAfter) => {
                self.dead = true;
                Err(gone())
            }
            Some(fault) if fault != Fault::ShortRead => Err(fault.error()),
            _ => Ok(done),
        }
    }

    /// What a request answers that may not be done at all; the process dies of `fault` all the same.
    pub(super) fn refuse<T>(&mut self, fault: Option<Fault>, error: impl Into<io::Error>) -> io::Result<T> {
        self.finish(fault, ()).and(Err(error.into()))
    }

    pub(super) fn seq(&mut self) -> u64 {
        self.next_seq += 1;
        self.next_seq
    }

    // Names.

    fn add_file(&mut self, name: &str) -> u64 {
        let (inode, seq) = (self.next_inode, self.seq());
        self.next_inode += 1;
        self.inodes.insert(inode, Inode { name: name.to_owned(), ..Inode::default() });
        self.names.insert(name.to_owned(), inode);
        self.name_changes.push(NameChange { seq, name: name.to_owned(), inode: Some(inode) });
        inode
    }

    fn remove_name(&mut self, name: &str) {
        let seq = self.seq();
        self.names.remove(name);
        self.name_changes.push(NameChange { seq, name: name.to_owned(), inode: None });
        self.collect();
    }

    /// One change of a name reaches the device.
    pub(super) fn name_reaches_device(&mut self, change: &NameChange) {
        match change.inode {
            Some(inode) => self.durable_names.insert(change.name.clone(), inode),
            None => self.durable_names.remove(&change.name),
        };
    }

    /// Frees the files that no handle, no name and no possible outcome of a power failure leads to.
    pub(super) fn collect(&mut self) {
        let mut free: Vec<u64> =
            self.inodes.iter().filter(|(_, inode)| inode.handles == 0).map(|(number, _)| *number).collect();
        let created = self.name_changes.iter().filter_map(|change| change.inode);
        let known: Vec<u64> = self.names.values().chain(self.durable_names.values()).copied().chain(created).collect();
        free.retain(|number| !known.contains(number));
        for number in free {
            self.inodes.remove(&number);
        }
    }

    /// Sets the content of a file as if it had always been so, under a durable name.
    pub(super) fn put_file(&mut self, name: &str, bytes: &[u8]) {
        let number = self.names.get(name).copied().unwrap_or_else(|| self.add_file(name));
        self.name_changes.retain(|change| change.name != name);
        self.durable_names.insert(name.to_owned(), number);
        if let Some(inode) = self.inodes.get_mut(&number) {
            inode.replace(bytes);
        }
    }

    /// Removes a name as if it had never been.
    pub(super) fn drop_file(&mut self, name: &str) -> bool {
        self.name_changes.retain(|change| change.name != name);
        self.durable_names.remove(name);
        let known = self.names.remove(name).is_some();
        self.collect();
        known
    }

    pub(super) fn list(&mut self, session: u64) -> io::Result<Vec<Entry>> {
        let fault = self.begin(session, Op::List, "", 0)?;
        let entries = self.entries();
        self.finish(fault, entries)
    }

    pub(super) fn entries(&self) -> Vec<Entry> {
        let len_of = |inode: &u64| self.inodes.get(inode).map_or(0, |inode| inode.cache.len());
        self.names.iter().map(|(name, inode)| Entry { name: name.clone(), len: len_of(inode) }).collect()
    }

    pub(super) fn open(&mut self, session: u64, name: &str) -> io::Result<u64> {
        let fault = self.begin(session, Op::Open, name, 0)?;
        let Some(number) = self.names.get(name).copied() else {
            return self.refuse(fault, io::ErrorKind::NotFound);
        };
        self.finish(fault, ())?;
        self.inode(number)?.handles += 1;
        Ok(number)
    }

    pub(super) fn create(&mut self, session: u64, name: &str, len: u64) -> io::Result<u64> {
        let fault = self.begin(session, Op::Create, name, len)?;
        if self.names.contains_key(name) {
            return self.refuse(fault, io::ErrorKind::AlreadyExists);
        }
        let partly = matches!(fault, Some(Fault::Io | Fault::CrashMiddle));
        let refused = matches!(fault, Some(Fault::NoSpace | Fault::TooManyFiles | Fault::NoMemory));
        if let Err(error) = self.check_space(0, len) {
            return self.refuse(fault, error);
        }
        if !refused && (!partly || self.rng.coin()) {
            let number = self.add_file(name);
            if !partly || self.rng.coin() {
                self.change_len(number, len)?;
            }
        }
        self.finish(fault, ())?;
        let number = self.names.get(name).copied().ok_or_else(gone)?;
        self.inode(number)?.handles += 1;
        Ok(number)
    }

    /// The new file is whole and durable before it has the name.
    pub(super) fn replace_lock_file(&mut self, session: u64, bytes: &[u8]) -> io::Result<u64> {
        let len = bytes.len() as u64;
        let fault = self.begin(session, Op::Create, LOCK_NAME, len)?;
        self.plan.mix_bytes(bytes);
        if let Err(error) = self.check_space(0, len) {
            return self.refuse(fault, error);
        }
        let refused = matches!(fault, Some(Fault::NoSpace | Fault::TooManyFiles | Fault::NoMemory));
        let partly = matches!(fault, Some(Fault::Io | Fault::CrashMiddle));
        if !refused && (!partly || self.rng.coin()) {
            let number = self.add_file(LOCK_NAME);
            self.inode(number)?.replace(bytes);
            self.collect();
        }
        self.finish(fault, ())?;
        let number = self.names.get(LOCK_NAME).copied().ok_or_else(gone)?;
        self.inode(number)?.handles += 1;
        Ok(number)
    }

    /// How many names lead to a file; none where its own in the directory does not.
    pub(super) fn links(&mut self, number: u64) -> io::Result<u64> {
        let inode = self.inodes.get(&number).ok_or_else(gone)?;
        let named = self.names.get(&inode.name) == Some(&number);
        Ok(if named { inode.links.saturating_add(1) } else { 0 })
    }

    /// Others link to every file that there is, as `cp -al` does.
    pub(super) fn link_files(&mut self) {
        for number in self.names.values() {
            if let Some(inode) = self.inodes.get_mut(number) {
                inode.links += 1;
            }
        }
    }

    pub(super) fn remove(&mut self, session: u64, name: &str) -> io::Result<()> {
        let fault = self.begin(session, Op::Remove, name, 0)?;
        if !self.names.contains_key(name) {
            return self.refuse(fault, io::ErrorKind::NotFound);
        }
        let partly = matches!(fault, Some(Fault::Io | Fault::CrashMiddle));
        if !partly || self.rng.coin() {
            self.remove_name(name);
        }
        self.finish(fault, ())
    }

    pub(super) fn sync_dir(&mut self, session: u64) -> io::Result<()> {
        let fault = self.begin(session, Op::SyncDir, "", 0)?;
        let changes = self.name_changes.clone();
        let partly = matches!(fault, Some(Fault::Io | Fault::CrashMiddle));
        for change in &changes {
            if !partly || self.rng.coin() {
                self.name_reaches_device(change);
            }
        }
        // A directory that could not be written may count as clean: then the next sync has nothing to do.
        if !partly || (fault == Some(Fault::Io) && self.rng.coin()) {
            self.name_changes.clear();
        }
        self.collect();
        self.finish(fault, ())
    }
}
