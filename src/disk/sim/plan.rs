//! What goes wrong at which request, and the record of all requests.
//!
//! Never here: what a fault does; see `world`.

use std::collections::BTreeMap;
use std::io;

/// A kind of request to the disk. Asking for a file's length is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// [`File::read_at`](crate::disk::File::read_at)
    Read,
    /// [`File::write_at`](crate::disk::File::write_at)
    Write,
    /// [`Tail::append`](crate::disk::Tail::append)
    Append,
    /// [`File::sync`](crate::disk::File::sync)
    Sync,
    /// [`Disk::sync_dir`](crate::disk::Disk::sync_dir)
    SyncDir,
    /// [`Disk::create`](crate::disk::Disk::create) and [`Disk::create_tail`](crate::disk::Disk::create_tail)
    Create,
    /// [`Disk::remove`](crate::disk::Disk::remove)
    Remove,
    /// [`File::set_len`](crate::disk::File::set_len)
    SetLen,
    /// [`Disk::list`](crate::disk::Disk::list)
    List,
    /// [`Disk::open`](crate::disk::Disk::open)
    Open,
}

impl Op {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Read,
        Self::Write,
        Self::Append,
        Self::Sync,
        Self::SyncDir,
        Self::Create,
        Self::Remove,
        Self::SetLen,
        Self::List,
        Self::Open,
    ];
}

/// What can happen to one request. A fault that a request cannot meet (such as `ShortRead` of a write) does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// EIO. A write or append leaves a part of its bytes, where readers of the tail do not look; a creation, a removal or
    /// a change of length may have happened or not; a failed sync is described at [`SimDisk`](super::SimDisk).
    Io,
    /// ENOSPC from a creation (which leaves nothing), an extension, a write (which leaves a part), an append (which leaves a
    /// part of what follows its first word), or a sync (which fails as with `Io`).
    NoSpace,
    /// EMFILE from opening, creating or listing.
    TooManyFiles,
    /// ENOMEM from creating a file: no memory for its map.
    NoMemory,
    /// The process dies before the request does anything. It and all later ones answer `NotConnected`.
    CrashBefore,
    /// The process dies within the request: any part of it may have been done.
    CrashMiddle,
    /// The process dies after the request was done, before it returns.
    CrashAfter,
    /// A read finds fewer bytes than there are, as in a file that was cut under the process.
    ShortRead,
}

impl Fault {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Io,
        Self::NoSpace,
        Self::TooManyFiles,
        Self::NoMemory,
        Self::CrashBefore,
        Self::CrashMiddle,
        Self::CrashAfter,
        Self::ShortRead,
    ];

    fn meets(self, op: Op) -> bool {
        match self {
            Self::Io | Self::CrashBefore | Self::CrashMiddle | Self::CrashAfter => true,
            Self::NoSpace => matches!(op, Op::Create | Op::Write | Op::Append | Op::SetLen | Op::Sync),
            Self::TooManyFiles => matches!(op, Op::Open | Op::Create | Op::List),
            Self::NoMemory => op == Op::Create,
            Self::ShortRead => op == Op::Read,
        }
    }

    /// What the request answers, of a fault that the process survives.
    pub(super) fn error(self) -> io::Error {
        match self {
            Self::Io | Self::ShortRead => io::Error::from_raw_os_error(EIO),
            Self::NoSpace => io::Error::from_raw_os_error(ENOSPC),
            Self::TooManyFiles => io::Error::from_raw_os_error(EMFILE),
            Self::NoMemory => io::Error::from_raw_os_error(ENOMEM),
            Self::CrashBefore | Self::CrashMiddle | Self::CrashAfter => gone(),
        }
    }
}

const EIO: i32 = 5;
const ENOMEM: i32 = 12;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;

/// The answer to a process that is dead.
pub(super) fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

/// The faults that are still to come, and what was asked so far.
#[derive(Clone, Debug, Default)]
pub(super) struct FaultPlan {
    pub(super) requests: u64,
    /// Faults that came up so far.
    pub(super) faults: u64,
    /// Each of them: the request, the file, and what happened.
    pub(super) met: Vec<(Op, String, Fault)>,
    by_request: BTreeMap<u64, Fault>,
    by_op: BTreeMap<(Op, u64), Fault>,
    counts: [u64; Op::ALL.len()],
    hash: u64,
    lines: Option<Vec<String>>,
}

impl FaultPlan {
    pub(super) fn fail_at(&mut self, request: u64, fault: Fault) {
        self.by_request.insert(request, fault);
    }

    pub(super) fn fail_op_at(&mut self, op: Op, count: u64, fault: Fault) {
        self.by_op.insert((op, count), fault);
    }

    pub(super) fn clear(&mut self) {
        self.by_request.clear();
        self.by_op.clear();
    }

    pub(super) fn count(&self, op: Op) -> u64 {
        self.counts[op as usize]
    }

    /// Counts a request, mixes it into the hash and the text, and tells its fault.
    pub(super) fn meet(&mut self, op: Op, name: &str, at: u64, len: u64) -> Option<Fault> {
        let (request, count) = (self.requests, self.counts[op as usize]);
        self.requests += 1;
        self.counts[op as usize] += 1;
        let (first, second) = (self.by_request.remove(&request), self.by_op.remove(&(op, count)));
        let fault = first.or(second).filter(|fault| fault.meets(op));
        self.faults += u64::from(fault.is_some());
        self.met.extend(fault.map(|fault| (op, name.to_owned(), fault)));
        self.mix(op as u64);
        self.mix_bytes(name.as_bytes());
        self.mix(at);
        self.mix(len);
        self.mix(fault.map_or(0, |fault| fault as u64 + 1));
        if let Some(lines) = &mut self.lines {
            let fault = fault.map(|fault| format!(" !{fault:?}")).unwrap_or_default();
            lines.push(format!("{request} {op:?} {name} {at}+{len}{fault}"));
        }
        fault
    }

    pub(super) fn mix_bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
        self.mix(bytes.len() as u64);
    }

    fn mix(&mut self, word: u64) {
        self.hash = (self.hash.rotate_left(23) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn keep_lines(&mut self) {
        self.lines.get_or_insert_default();
    }

    pub(super) fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }
}
