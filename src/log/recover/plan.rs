//! From what a scan found to what is to be done: a table of cases, pure.
//!
//! Never here: I/O. `scan` finds the facts and `execute` does what the plan says.

use crate::ids::{Epoch, FileNumber, Lsn};
use crate::log::error::Corruption;
use crate::log::format::class::Retired;
use crate::log::format::name::FileName;
use crate::log::format::segment_info::SegmentInfo;

/// What the table is asked about. Where an earlier condition decides, later ones mean nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::log) struct Conditions {
    /// `STORE` says whose store this is.
    pub(in crate::log) identified: bool,
    /// There are other files of ours.
    pub(in crate::log) others: bool,
    /// A slot of `STORE` is valid.
    pub(in crate::log) slotted: bool,
    /// The newest segment that the slot names is there, and no file of a segment up to it is without its header.
    pub(in crate::log) headed: bool,
    /// No slot names a checkpoint, or there is one that is whole.
    pub(in crate::log) checkpointed: bool,
    /// The files that the checkpoint lists, as frames behind it have changed the list, are there and tile the log.
    pub(in crate::log) listed: bool,
    /// X >= W: all that was durable validates.
    pub(in crate::log) intact: bool,
    /// Frames above W validate and say something.
    pub(in crate::log) unproven: bool,
}

/// The conclusion: exactly one for any conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::log) enum Case {
    /// Nothing is here, or a creation that did not get to its end: no other file is made before that.
    Create,
    /// Segments without the file that explains them: it was durable before any of them.
    StoreLost,
    /// Both slots are damaged; a crash can tear only one.
    SlotsLost,
    /// The newest segment was durable before the slot named it, and whatever may lack a header was removed before.
    HeaderLost,
    /// A checkpoint was durable before the slot named one, and without it the log's beginning is not known.
    CheckpointLost,
    /// A file that is needed below the checkpoint is absent or too short.
    ListedLost,
    /// Something below W does not validate.
    Damaged,
    /// The log ends at W; what lies behind was torn and never proven.
    Proven,
    /// Frames behind W validate: they are copied to a file of their own before anything is served.
    Unproven,
}

const NO: Option<bool> = Some(false);
const YES: Option<bool> = Some(true);
const ANY: Option<bool> = None;

/// Rows in the order of the fields of [`Conditions`].
const TABLE: [([Option<bool>; 8], Case); 9] = [
    ([NO, NO, ANY, ANY, ANY, ANY, ANY, ANY], Case::Create),
    ([NO, YES, ANY, ANY, ANY, ANY, ANY, ANY], Case::StoreLost),
    ([YES, ANY, NO, ANY, ANY, ANY, ANY, ANY], Case::SlotsLost),
    ([YES, ANY, YES, NO, ANY, ANY, ANY, ANY], Case::HeaderLost),
    ([YES, ANY, YES, YES, NO, ANY, ANY, ANY], Case::CheckpointLost),
    ([YES, ANY, YES, YES, YES, ANY, NO, ANY], Case::Damaged),
    ([YES, ANY, YES, YES, YES, NO, YES, ANY], Case::ListedLost),
    ([YES, ANY, YES, YES, YES, YES, YES, NO], Case::Proven),
    ([YES, ANY, YES, YES, YES, YES, YES, YES], Case::Unproven),
];

impl Conditions {
    const fn fields(&self) -> [bool; 8] {
        [
            self.identified,
            self.others,
            self.slotted,
            self.headed,
            self.checkpointed,
            self.listed,
            self.intact,
            self.unproven,
        ]
    }

    /// All cases that the table has for these conditions: one.
    fn matches(&self) -> impl Iterator<Item = Case> {
        let fields = self.fields();
        let fits =
            move |row: &[Option<bool>; 8]| row.iter().zip(fields).all(|(want, is)| want.is_none_or(|want| want == is));
        TABLE.iter().filter(move |(row, _)| fits(row)).map(|(_, case)| *case)
    }
}

/// What the scan found, with what an error or a plan needs of it.
#[derive(Debug)]
pub(in crate::log) struct Facts {
    pub(in crate::log) conditions: Conditions,
    pub(in crate::log) newest_segment: FileNumber,
    /// The first file of a segment without a valid header, up to the newest.
    pub(in crate::log) headless: Option<FileNumber>,
    pub(in crate::log) newest_checkpoint: FileNumber,
    pub(in crate::log) list_fault: Option<Corruption>,
    /// X: the first LSN that does not validate.
    pub(in crate::log) valid_end: Lsn,
    /// W.
    pub(in crate::log) watermark: Lsn,
    /// The file that holds X, and the place.
    pub(in crate::log) stop: Option<(FileNumber, u64)>,
    /// The segments that hold the log below W, and those that hold the rest below X.
    pub(in crate::log) proven: Vec<SegmentInfo>,
    pub(in crate::log) suffix: Vec<Stretch>,
    /// The end of the log: W, or the last frame that says something.
    pub(in crate::log) end: Lsn,
    pub(in crate::log) retired: Retired,
    /// Where the last epochs of the log began.
    pub(in crate::log) epochs: Vec<(Lsn, Epoch)>,
    /// The highest epoch that was ever used.
    pub(in crate::log) epoch: Epoch,
}

/// A stretch of valid frames that nothing proves to be durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::log) struct Stretch {
    pub(in crate::log) source: SegmentInfo,
    pub(in crate::log) from: Lsn,
    pub(in crate::log) to: Lsn,
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::log) enum Plan {
    LayOut,
    Continue {
        copies: Vec<Stretch>,
        segments: Vec<SegmentInfo>,
        retired: Retired,
        epochs: Vec<(Lsn, Epoch)>,
        end: Lsn,
        /// The count of this process's epoch; its other bits are random.
        epoch_count: u32,
    },
}

/// The files of a log, what of it was retired, its epochs, and its end.
pub(in crate::log) type LogParts = (Vec<SegmentInfo>, Retired, Vec<(Lsn, Epoch)>, Lsn);

impl Plan {
    /// The log as it would be, with what is to be copied where it stands now.
    pub(in crate::log) fn without_copies(self) -> LogParts {
        match self {
            Self::LayOut => Default::default(),
            Self::Continue { copies, mut segments, retired, epochs, end, .. } => {
                for Stretch { source, to, .. } in copies {
                    match segments.iter_mut().find(|info| info.name() == source.name()) {
                        Some(info) => info.end = to,
                        None => segments.push(source),
                    }
                }
                (segments, retired, epochs, end)
            }
        }
    }
}

/// Decides. Pure: the same facts give the same plan.
pub(in crate::log) fn plan(facts: &Facts) -> Result<Plan, Corruption> {
    let store = |reason| Corruption::of(FileName::Store, None, reason);
    let case = facts.conditions.matches().next().unwrap_or(Case::Damaged);
    Err(match case {
        Case::Create => return Ok(Plan::LayOut),
        Case::Proven | Case::Unproven => match go_on(facts) {
            Some(plan) => return Ok(plan),
            None => store("its epoch is the last that there can be"),
        },
        Case::StoreLost => store("it does not say whose the other files are"),
        Case::SlotsLost => store("both slots are damaged"),
        Case::HeaderLost => {
            let name = FileName::Segment(facts.headless.unwrap_or(facts.newest_segment));
            Corruption::of(name, Some(0), "a segment is absent or has no valid header")
        }
        Case::CheckpointLost => {
            let name = FileName::Checkpoint(facts.newest_checkpoint);
            Corruption::of(name, None, "no checkpoint is whole")
        }
        Case::ListedLost => facts.list_fault.clone().unwrap_or_else(|| store("a listed file is absent")),
        Case::Damaged => {
            let (file, offset) = match facts.stop {
                Some((number, place)) => (FileName::Segment(number), Some(place)),
                None => (FileName::Segment(facts.newest_segment), None),
            };
            let lsns = Some((facts.valid_end, facts.watermark));
            Corruption { lsns, ..Corruption::of(file, offset, "frames that were durable do not validate") }
        }
    })
}

fn go_on(facts: &Facts) -> Option<Plan> {
    Some(Plan::Continue {
        copies: facts.suffix.clone(),
        segments: facts.proven.clone(),
        retired: facts.retired.clone(),
        epochs: facts.epochs.clone(),
        end: facts.end,
        // seam: the epoch is not raised
        epoch_count: facts.epoch.count().checked_add(1)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(bits: u32) -> Conditions {
        let bit = |index: u32| bits >> index & 1 == 1;
        Conditions {
            identified: bit(0),
            others: bit(1),
            slotted: bit(2),
            headed: bit(3),
            checkpointed: bit(4),
            listed: bit(5),
            intact: bit(6),
            unproven: bit(7),
        }
    }

    fn facts(epoch: Epoch) -> Facts {
        Facts {
            conditions: conditions(0b111_1101),
            newest_segment: FileNumber(1),
            headless: None,
            newest_checkpoint: FileNumber(0),
            list_fault: None,
            valid_end: Lsn(8),
            watermark: Lsn(8),
            stop: None,
            proven: Vec::new(),
            suffix: Vec::new(),
            end: Lsn(8),
            retired: Retired::default(),
            epochs: Vec::new(),
            epoch,
        }
    }

    /// The next epoch goes by the count, whatever the random bits are; and none comes after the last.
    #[test]
    fn the_next_epoch_has_the_next_count() {
        let count = |epoch| match plan(&facts(epoch)) {
            Ok(Plan::Continue { epoch_count, .. }) => Ok(epoch_count),
            Ok(Plan::LayOut) => panic!("laid out"),
            Err(corruption) => Err(corruption.reason),
        };
        for random in [0, 7, u32::MAX] {
            assert_eq!(count(Epoch::of(1, random)), Ok(2));
            assert_eq!(count(Epoch::of(u32::MAX - 1, random)), Ok(u32::MAX));
            assert_eq!(count(Epoch::of(u32::MAX, random)), Err("its epoch is the last that there can be"));
        }
        assert_eq!(count(Epoch(0)), Ok(1));
    }

    /// Every combination of conditions has exactly one case, and every case has a combination.
    #[test]
    fn the_table_is_complete_and_unambiguous() {
        let mut reached = std::collections::BTreeMap::new();
        for bits in 0..1 << 8 {
            let cases: Vec<Case> = conditions(bits).matches().collect();
            assert_eq!(cases.len(), 1, "{:?}: {cases:?}", conditions(bits));
            *reached.entry(format!("{:?}", cases[0])).or_insert(0) += 1;
        }
        assert_eq!(reached.len(), TABLE.len(), "{reached:?}");
    }

    /// The plan goes on only where everything that was durable is there; nothing is initialized over files of ours.
    #[test]
    fn no_damage_is_passed_over() {
        for bits in 0..1 << 8 {
            let conditions = conditions(bits);
            let fine = conditions.fields().iter().skip(2).take(5).all(|field| *field);
            let Some(case) = conditions.matches().next() else { panic!("no case") };
            let goes_on = matches!(case, Case::Proven | Case::Unproven);
            assert_eq!(goes_on, conditions.identified && fine, "{conditions:?}");
            assert_eq!(case == Case::Create, !conditions.identified && !conditions.others);
        }
    }
}
