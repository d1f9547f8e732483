//! Where the library and the second reader differ about one store.
//!
//! Never here: how each of them came to what it says.

use crate::engine::{PartitionSeen, Seen};
use crate::reader::{Judged, Partition};
use millpond::{Error, OpenReport};
use std::collections::BTreeSet;

/// Where a store comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The library wrote it, and bytes of it were damaged.
    Written,
    /// Its checksums were made to agree with whatever its files hold.
    Forged,
}

/// `Ok` where both say the same of a store whose files had these names.
pub fn compare(
    library: &Result<Seen, Error>,
    judged: &Judged,
    names: &BTreeSet<String>,
    origin: Origin,
) -> Result<(), String> {
    let said = match library {
        Ok(seen) if seen.report.created => "laid out",
        Ok(_) => "opens",
        Err(Error::Corrupt(_)) => "Corrupt",
        Err(Error::NewerFormat { .. }) => "NewerFormat",
        Err(Error::ForeignFile { .. }) => "ForeignFile",
        Err(Error::NotAStore { .. }) => "NotAStore",
        Err(error) => return Err(format!("the library gives another error: {error:?}")),
    };
    if said != judged.verdict {
        let why = library.as_ref().err().map(ToString::to_string).unwrap_or_default();
        return Err(format!("verdicts: the library {said} {why}, the reader {} {}", judged.verdict, told(judged)));
    }
    match library {
        Ok(seen) if seen.report.created => Ok(()),
        Ok(seen) => compare_opened(seen, judged, origin),
        Err(error) => compare_errors(error, judged, names),
    }
}

fn told(judged: &Judged) -> String {
    format!("{:?} at byte {:?}, {:?}: {}", judged.file, judged.byte, judged.lsns, judged.what)
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, library: T, reader: T) -> Result<(), String> {
    if library == reader {
        return Ok(());
    }
    Err(format!("{what}: the library {library:?}, the reader {reader:?}"))
}

/// The page says a byte and LSNs of some damage, and of this they must agree.
fn compare_errors(error: &Error, judged: &Judged, names: &BTreeSet<String>) -> Result<(), String> {
    let told = |what: String| format!("{what} ({error}; {})", told(judged));
    match error {
        // What recovery copied before it was read stands in a file that was not there.
        Error::Corrupt(found) if judged.lsns.is_some() && found.file != "STORE" && !names.contains(&found.file) => {
            let lsns = found.lsns.map(|(from, to)| (from.0, to.0));
            equal("LSNs", lsns, judged.lsns).map_err(told)
        }
        Error::Corrupt(found) => {
            equal("file", Some(&found.file), judged.file.as_ref()).map_err(told)?;
            if let Some(byte) = judged.byte {
                equal("byte", found.offset, Some(byte)).map_err(told)?;
            }
            if let Some(lsns) = judged.lsns {
                let found = found.lsns.map(|(from, to)| (from.0, to.0));
                equal("LSNs", found, Some(lsns)).map_err(told)?;
            }
            Ok(())
        }
        Error::ForeignFile { file } => equal("file", Some(file), judged.file.as_ref()).map_err(told),
        _ => Ok(()),
    }
}

fn compare_opened(seen: &Seen, judged: &Judged, origin: Origin) -> Result<(), String> {
    let OpenReport { end, watermark, checkpoint, was_clean, state_hash, files_ignored, dropped, .. } = &seen.report;
    equal("end of the log", end.0, judged.end)?;
    equal("watermark", watermark.0, judged.watermark)?;
    equal("checkpoint", checkpoint.0, judged.checkpoint)?;
    equal("clean", *was_clean, judged.clean)?;
    let dropped = dropped.as_ref().map(|tail| (tail.file.clone(), tail.offset, tail.bytes));
    equal("what is dropped", dropped, judged.dropped.clone())?;
    equal("files ignored", *files_ignored, judged.ignored)?;
    equal("state", format!("{state_hash:016x}"), judged.state.clone())?;
    if judged.left_open || !seen.complete {
        return equal("what no writer makes", origin, Origin::Forged);
    }
    equal("topics", seen.topics.keys().collect::<Vec<_>>(), judged.topics.keys().collect())?;
    for (name, partitions) in &seen.topics {
        let others = &judged.topics[name];
        equal(&format!("partitions of {name}"), partitions.len(), others.len())?;
        for (index, (one, other)) in partitions.iter().zip(others).enumerate() {
            compare_partitions(one, other).map_err(|what| format!("partition {index} of {name}: {what}"))?;
        }
    }
    equal("groups", seen.groups.keys().collect::<Vec<_>>(), judged.groups.keys().collect())?;
    for (name, (count, items)) in &seen.groups {
        let other = &judged.groups[name];
        equal(&format!("how much group {name} has to settle"), *count, other.count)?;
        // What waits for a message that cannot be read is not delivered, and is there all the same.
        if seen.blocked.contains(name) && items.iter().all(|item| other.items.contains(item)) {
            continue;
        }
        equal(&format!("what group {name} has to settle"), items, &other.items)?;
    }
    Ok(())
}

/// A new group begins at the first message that there is. Where messages are missing that no damage can have taken, it begins behind
/// them.
fn compare_partitions(library: &PartitionSeen, reader: &Partition) -> Result<(), String> {
    equal("end", library.end, reader.end)?;
    let offsets = library.start..library.end;
    let begins_behind_missing = library.start > 0 && !reader.messages.contains_key(&(library.start - 1));
    let outside = reader.messages.keys().find(|offset| !offsets.contains(offset));
    match outside {
        Some(_) if begins_behind_missing => {}
        Some(offset) => return Err(format!("the reader has a message {offset}, outside {offsets:?}")),
        None => {}
    }
    let differs = |offset: &u64| library.messages.get(offset) != reader.messages.get(offset);
    match offsets.clone().find(differs) {
        Some(offset) => equal("message", library.messages.get(&offset), reader.messages.get(&offset)),
        None => Ok(()),
    }
}
