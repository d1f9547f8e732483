//! Messages in memory: as they were read and proven, a few small ones in one block.
//!
//! Never here: reading.

use crate::ids::{Epoch, Offset, PartitionId, WallMs};
use crate::log::{Cuts, RUN_LEN_MAX};
use crate::record::Provenance;
use crate::record::message::MessageView;
use crate::state::Publication;

/// Messages as they were read and proven: one of any size, or consecutive ones that are small together, so that a caller that keeps
/// one of them keeps little more. Their bytes are their own, or borrowed from where they were read (`&[u8]`), or still grow (`Vec`).
#[derive(Debug, Default)]
pub(crate) struct Stored<B = Box<[u8]>> {
    /// Empty if there are no messages: each has a byte at least.
    pub(super) bytes: B,
    pub(super) cuts: Cuts,
    pub(crate) about: About,
    /// Of a copy, which stands alone: where it comes from.
    pub(crate) provenance: Option<Box<Provenance>>,
}

/// What is known of messages beside their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) partition: PartitionId,
    /// The offset of the first.
    pub(crate) first: Offset,
    pub(crate) epoch: Epoch,
    pub(crate) time: WallMs,
}

impl Stored {
    /// How many bytes, encoded.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// How many messages.
    pub(crate) fn count(&self) -> u32 {
        self.cuts.parts()
    }

    pub(crate) fn offset(&self, nth: u32) -> Offset {
        self.about.first.saturating_add(u64::from(nth))
    }

    /// An encoded message, to be copied elsewhere.
    pub(crate) fn part(&self, nth: u32) -> &[u8] {
        let part = self.bytes.get(self.cuts.range(nth, self.bytes.len()));
        part.expect("internal error: a message beyond those that were read; please report this")
    }

    /// A message, which was found valid when it was read.
    pub(crate) fn view(&self, nth: u32) -> MessageView<'_> {
        let view = MessageView::parse(self.part(nth));
        view.expect("internal error: a message in memory is not what was read; please report this")
    }

    /// Where a copy comes from, whose owner knows that it is one.
    pub(crate) fn copied_from(&self) -> &Provenance {
        let provenance = self.provenance.as_deref();
        provenance.expect("internal error: a message that was found to be a copy is none; please report this")
    }

    /// Where they were published first.
    pub(crate) fn publication(&self) -> Publication {
        match &self.provenance {
            Some(provenance) => Publication::Elsewhere(provenance.origin),
            None => Publication::Here { epoch: self.about.epoch, time: self.about.time },
        }
    }

    /// When they were published first.
    pub(crate) fn published(&self) -> WallMs {
        self.provenance.as_ref().map_or(self.about.time, |provenance| provenance.origin.time)
    }
}

impl From<Stored<&[u8]>> for Stored {
    fn from(read: Stored<&[u8]>) -> Self {
        Self { bytes: read.bytes.into(), cuts: read.cuts, about: read.about, provenance: read.provenance }
    }
}

/// Small messages of several frames, on their way into one block of memory.
impl Stored<Vec<u8>> {
    /// Takes in messages that go on where those here end, as long as all are small.
    pub(super) fn take_in(&mut self, read: &Stored<&[u8]>) -> bool {
        if self.bytes.is_empty() {
            (self.cuts, self.about) = (read.cuts, read.about);
        } else {
            let next = self.about.first.saturating_add(u64::from(self.cuts.parts()));
            let fits = read.about == About { first: next, ..self.about }
                && self.bytes.len() + read.bytes.len() <= RUN_LEN_MAX
                && self.cuts.append(self.bytes.len(), &read.cuts);
            if !fits {
                return false;
            }
        }
        self.bytes.extend_from_slice(read.bytes);
        true
    }

    /// What was taken in, if anything. The memory stays for the next.
    pub(super) fn take(&mut self) -> Option<Stored> {
        if self.bytes.is_empty() {
            return None;
        }
        let bytes = self.bytes.as_slice().into();
        self.bytes.clear();
        Some(Stored { bytes, cuts: self.cuts, about: self.about, provenance: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(first: u64, time: u64) -> About {
        About { partition: PartitionId(1), first: Offset(first), epoch: Epoch(1), time: WallMs(time) }
    }

    fn read(bytes: &[u8], about: About) -> Stored<&[u8]> {
        Stored { bytes, cuts: Cuts::default(), about, provenance: None }
    }

    #[test]
    fn what_goes_on_shares_a_block() {
        let mut gathered = Stored::<Vec<u8>>::default();
        assert!(gathered.take().is_none());
        assert!(gathered.take_in(&read(b"\0one", about(7, 1))));
        assert!(gathered.take_in(&read(b"\0", about(8, 1))));
        assert!(gathered.take_in(&read(b"\0three", about(9, 1))));
        for other in [about(9, 1), about(11, 1), about(10, 2), About { partition: PartitionId(2), ..about(10, 1) }] {
            assert!(!gathered.take_in(&read(b"\0other", other)));
        }
        let stored = gathered.take().unwrap();
        assert_eq!((stored.count(), stored.offset(2)), (3, Offset(9)));
        let parts: Vec<&[u8]> = (0..3).map(|nth| stored.part(nth)).collect();
        assert_eq!(parts, [&b"\0one"[..], b"\0", b"\0three"]);
        assert_eq!(stored.view(2).payload(), b"three");
        assert!(gathered.take().is_none());
    }

    /// A caller that keeps one message keeps little more than it.
    #[test]
    fn a_block_stays_small() {
        for len in [1, 60, 100, 500, RUN_LEN_MAX / 2] {
            let (mut gathered, bytes) = (Stored::<Vec<u8>>::default(), vec![0; len]);
            let count = (0..1000).take_while(|n| gathered.take_in(&read(&bytes, about(*n, 1)))).count();
            let stored = gathered.take().unwrap();
            assert!(stored.bytes.len() <= RUN_LEN_MAX && stored.bytes.len() == count * len);
            assert!((0..stored.count()).all(|nth| stored.part(nth) == bytes) && stored.count() as usize == count);
        }
    }
}
