//! Mistakes in files, frames and recovery.

use crate::seam::Mistake;
use crate::{Bug, Level};

pub const BUGS: &[Bug] = &[
    Bug {
        name: "a sync that failed is tried again",
        plants: "the second answer is believed",
        mistake: Mistake::Instead("if planted!() { self.file.sync().or_else(|_| self.file.sync())? } else { $it }"),
        level: Level::Simulation,
    },
    Bug {
        name: "the segment before is not synced",
        plants: "a sync covers the newest file only",
        mistake: Mistake::Value("if planted!() { SyncJob::new(self.active()?) } else { $it }"),
        level: Level::Simulation,
    },
    Bug {
        name: "a third unsynced segment",
        plants: "a roll forgets a segment that no sync has reached",
        mistake: Mistake::Asks("($it).as_ref().filter(|_| !planted!())"),
        level: Level::Simulation,
    },
    Bug {
        name: "frames claim too high a watermark",
        plants: "a frame says that what is below it is durable",
        mistake: Mistake::Value("if planted!() { self.end } else { $it }"),
        level: Level::Simulation,
    },
    Bug {
        name: "no directory sync after a creation",
        plants: "a segment's name is not durable when the first promise rests on it",
        mistake: Mistake::Instead(".and_then(|()| if planted!() { Ok(()) } else { Ok(())$it })"),
        level: Level::Simulation,
    },
    Bug {
        name: "no sync of a new segment's header",
        plants: "a segment's header is not durable when the slot names it",
        mistake: Mistake::Instead(".len().and_then(|_| if planted!() { Ok(()) } else { tail.file()$it })"),
        level: Level::Simulation,
    },
    Bug {
        name: "a lost header goes unnoticed",
        plants: "a segment whose header was damaged counts as one that was never made",
        mistake: Mistake::Value("$it.filter(|_| !planted!())"),
        level: Level::Library("log::"),
    },
    Bug {
        name: "unfinished segments stay unfinished",
        plants: "a file that never got its header is below the one that the slot names",
        mistake: Mistake::Skip,
        level: Level::Simulation,
    },
    Bug {
        name: "bytes in STORE before its name is durable",
        plants: "a sync of the directory that failed is final, and nobody makes a new name",
        mistake: Mistake::Skip,
        level: Level::Library("log::"),
    },
    Bug {
        name: "the epoch is not written",
        plants: "the next process appends under the same epoch: ids are minted twice",
        mistake: Mistake::Skip,
        level: Level::Simulation,
    },
    Bug {
        name: "the epoch is not raised",
        plants: "a process appends under the epoch of the one before",
        mistake: Mistake::Value("if planted!() { facts.epoch.count() } else { $it }"),
        level: Level::Simulation,
    },
    Bug {
        name: "a checkpoint is not synced",
        plants: "a slot names a checkpoint that a power cut takes",
        mistake: Mistake::Before("if planted!() { return Ok(()); }"),
        level: Level::Simulation,
    },
    Bug {
        name: "a segment is cut too short",
        plants: "the last word of a finished segment goes",
        mistake: Mistake::Instead("file.set_len(segment.limit() - if planted!() { 8 } else { 0 })?;"),
        level: Level::Test("failures", "errors_of_derived_files"),
    },
    Bug {
        name: "a slot without its sync",
        plants: "STORE is written and not synced",
        mistake: Mistake::Value("if planted!() { Ok(()) } else { $it }"),
        level: Level::Simulation,
    },
    Bug {
        name: "a slot over itself",
        plants: "the newest slot is overwritten in place, so that a torn write leaves an old one",
        mistake: Mistake::Value("$it + u64::from(planted!())"),
        level: Level::Simulation,
    },
    Bug {
        name: "identity before the slots",
        plants: "STORE says whose it is before its slots are durable",
        mistake: Mistake::Skip,
        level: Level::Simulation,
    },
    Bug {
        name: "the older slot counts",
        plants: "recovery believes an outdated state of STORE",
        mistake: Mistake::Value(
            "if planted!() { self.slots.iter().flatten().min_by_key(|slot| slot.sequence).copied() } else { $it }",
        ),
        level: Level::Simulation,
    },
    Bug {
        name: "the slot's watermark is not read",
        plants: "what STORE proves to be durable is not asked",
        mistake: Mistake::Value("if planted!() { in_starts.max().unwrap_or(Lsn(0)).max(covers) } else { $it }"),
        level: Level::Simulation,
    },
    Bug {
        name: "served and not durable",
        plants: "recovery serves what is in the page cache alone",
        mistake: Mistake::Before("let watermark = if planted!() { end } else { watermark };"),
        level: Level::Simulation,
    },
    Bug {
        name: "a dead recovery's copy is believed",
        plants: "recovery is not idempotent: what a dead one copied counts by a slot that is not durable",
        mistake: Mistake::Asks("!planted!() && $it"),
        level: Level::Simulation,
    },
    Bug {
        name: "a copy's header is not synced",
        plants: "a recovered file has no valid header after a power cut",
        mistake: Mistake::Skip,
        level: Level::Simulation,
    },
    Bug {
        name: "a copy's name is not synced",
        plants: "recovery copies to a file whose name a power cut takes",
        mistake: Mistake::Skip,
        level: Level::Simulation,
    },
    Bug {
        name: "a stale segment is valid",
        plants: "a file of a dead epoch goes on where a newer one begins",
        mistake: Mistake::Skip,
        level: Level::Simulation,
    },
    Bug {
        name: "cut at the first bad frame",
        plants: "damage below the watermark is taken for a torn tail",
        mistake: Mistake::Value("if planted!() { watermark.min(walk.end) } else { $it }"),
        level: Level::Simulation,
    },
    Bug {
        name: "no look behind the end",
        plants: "frames behind a damaged one prove nothing",
        mistake: Mistake::Skip,
        level: Level::Simulation,
    },
    Bug {
        name: "a bad frame is skipped",
        plants: "recovery goes on behind a frame that does not validate",
        mistake: Mistake::Before(
            "if planted!() && self.look()?.is_none() && self.window().first_chunk::<8>().is_some_and(|word| *word != [0; 8]) {\n            self.at += ALIGN;\n            return self.next();\n        }",
        ),
        level: Level::Simulation,
    },
    Bug {
        name: "parts are not checked",
        plants: "a frame counts whose head is there and whose messages are torn",
        mistake: Mistake::Value("if planted!() { Some(frame) } else { $it }"),
        level: Level::Simulation,
    },
    Bug {
        name: "a message is delivered unchecked",
        plants: "bytes that changed at rest are delivered",
        mistake: Mistake::Value("planted!() || ($it)"),
        level: Level::Simulation,
    },
    Bug {
        name: "a message is delivered with an unchecked head",
        plants: "a record that changed at rest says where a delivered message comes from",
        mistake: Mistake::Asks("!planted!() && $it"),
        level: Level::Library("a_part_is_not_read_beside_a_changed_head"),
    },
    Bug {
        name: "no seed in the checksum",
        plants: "a frame of another file or place is valid: stale bytes of a recycled block",
        mistake: Mistake::Value("if planted!() { 0 } else { $it }"),
        level: Level::Library("stale_moved_and_foreign_frames_are_nothing"),
    },
    Bug {
        name: "the checksum does not cover the length",
        plants: "a changed length is believed",
        mistake: Mistake::Before("let covered = if planted!() { covered.get(4..).unwrap_or(&[]) } else { covered };"),
        level: Level::Library("any_changed_bit_and_any_cut_is_found"),
    },
    Bug {
        name: "checksums that cancel",
        plants: "the CRCs of prefix and head are added up, and equal changes of the two cancel",
        mistake: Mistake::Value(
            "if planted!() {
            let claim = Claim::parse(&[&[0; 4], covered].concat());
            let (prefix, head) = covered.split_at(claim.map_or(0, |claim| claim.head_at as usize - 4));
            checksum::crc(checksum::low(place), prefix) ^ checksum::crc(0, head)
        } else { $it }",
        ),
        level: Level::Library("equal_changes_of_prefix_and_head_do_not_cancel"),
    },
    Bug {
        name: "a file of another store is taken in",
        plants: "files of two stores are mixed",
        mistake: Mistake::Asks("!planted!() && $it"),
        level: Level::Library("log::tests::corruption"),
    },
    Bug {
        name: "an index of another life counts",
        plants: "an index file is believed for a segment that it was not made of",
        mistake: Mistake::Value("($it) || planted!()"),
        level: Level::Library("an_index_of_another_life_of_the_segment_is_none"),
    },
    Bug {
        name: "an unproven copy counts",
        plants: "a copy in the page cache alone takes the place of its source",
        mistake: Mistake::Asks("!planted!() && $it"),
        level: Level::Library("log::tests::copies"),
    },
    Bug {
        name: "a segment is entered in its middle",
        plants: "where a copy is damaged the walk goes on in an older one, which begins with what was taken in already",
        mistake: Mistake::Value("planted!() || $it"),
        level: Level::Library("log::tests::copies"),
    },
    Bug {
        name: "the source counts, and not its copy",
        plants: "recovery goes on in the file of which it made a copy",
        mistake: Mistake::Value(
            "if planted!() { holding.min_by_key(|held| (held.info.last_epoch(), held.info.base, held.info.number))? } else { $it }",
        ),
        level: Level::Library("log::tests::copies"),
    },
    Bug {
        name: "a file of one class tiles the other",
        plants: "messages that are nowhere are not missed, since the dead letters of their range are there",
        mistake: Mistake::Asks("self.files.iter().filter(|file| planted!() || file.serves.contains(class))"),
        level: Level::Library("classes_are_tiled_apart"),
    },
    Bug {
        name: "a file is added above the checkpoint",
        plants: "a file that nothing folds takes the place of frames that are to be folded",
        mistake: Mistake::Asks("!planted!() && $it"),
        level: Level::Library("log::tests::classes"),
    },
    Bug {
        name: "epochs behind the checkpoint are forgotten",
        plants: "a position of this log is judged to be of another",
        mistake: Mistake::Asks("$it.take(if planted!() { 0 } else { usize::MAX })"),
        level: Level::Library("epochs_of_the_log_are_kept"),
    },
    Bug {
        name: "a gap is filled",
        plants: "a message that was cleaned away is looked for in the frame before it",
        mistake: Mistake::Asks("!planted!() && $it"),
        level: Level::Library("every_ordinal_is_found_and_no_other"),
    },
    Bug {
        name: "the check of a row leaves its count out",
        plants: "a changed count in an index file is believed",
        mistake: Mistake::Value("if planted!() { checksum::low(of_place) } else { $it }"),
        level: Level::Library("a_damaged_index_is_of_no_use_or_right"),
    },
    Bug {
        name: "a checkpoint before its slot counts",
        plants: "recovery begins from a checkpoint that may not be durable",
        mistake: Mistake::Skip,
        level: Level::Library("a_checkpoint_that_failed_to_sync_is_none"),
    },
    Bug {
        name: "a checkpoint that was never named comes to count",
        plants: "once a newer checkpoint is named, an older one counts that covers another end of the log",
        mistake: Mistake::Skip,
        level: Level::Test("regressions", "a_checkpoint_that_was_never_named_does_not_count_later"),
    },
    Bug {
        name: "a linked file is cut",
        plants: "a backup by hard links changes with the store",
        mistake: Mistake::Asks(
            "segment.kind() == FileKind::Appended && file.len()? > segment.limit() && (planted!() || file.links()? <= 1)",
        ),
        level: Level::Test("failures", "files_that_others_have_links_to"),
    },
    Bug {
        name: "a linked STORE is written",
        plants: "the slots of a backup by hard links change with the store",
        mistake: Mistake::Asks("!planted!() && $it"),
        level: Level::Test("failures", "files_that_others_have_links_to"),
    },
    Bug {
        name: "a linked segment is appended to",
        plants: "a backup by hard links grows with the store",
        mistake: Mistake::Skip,
        level: Level::Test("failures", "files_that_others_have_links_to"),
    },
    Bug {
        name: "a reader keeps large messages",
        plants: "each handle keeps the memory of the largest message it ever read",
        mistake: Mistake::Asks("!planted!() && $it"),
        level: Level::Test("costs", "handles_that_read_once"),
    },
];
