//! What must be there after a cut at some position of the record.

use crate::work::{History, Position, Published, number_of, open_store, open_topic};
use millpond::Group;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

/// What one check saw.
#[derive(Default)]
pub struct Checked {
    /// Messages that had to be there, and were.
    pub promised: u64,
    /// Messages that were there without a promise.
    pub unpromised: u64,
    /// Bytes that recovery copied or dropped.
    pub recovered: bool,
}

fn demand(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

fn drain(group: &Group) -> Result<BTreeMap<u64, String>, String> {
    let mut found = BTreeMap::new();
    loop {
        let batch = group.receive_batch(10_000, Duration::ZERO).map_err(|error| format!("receive: {error}"))?;
        if let Some(error) = batch.unreadable().first() {
            return Err(format!("G5: unreadable: {error}"));
        }
        if batch.is_empty() {
            return Ok(found);
        }
        for delivery in &batch {
            let number =
                number_of(delivery.payload()).ok_or_else(|| format!("G4: {} has other bytes", delivery.id()))?;
            let twice = found.insert(number, delivery.id().to_string());
            demand(twice.is_none(), || format!("G8: {number} is there twice"))?;
        }
        batch.ack().map_err(|error| format!("ack: {error}"))?;
    }
}

/// Opens the store in `dir` as a new process would, after a cut at `cut`.
pub fn check(dir: &Path, history: &History, cut: Position) -> Result<Checked, String> {
    let opened = history.opened.lock().expect("nobody panics").expect("it was opened");
    let store = open_store(dir).map_err(|error| format!("open: {error}"))?;
    let (topic, archive, workers) = open_topic(&store).map_err(|error| format!("open the topic: {error}"))?;
    let mut checked = Checked::default();
    checked.recovered = store.report().copied_bytes > 0 || store.report().dropped.is_some();
    let there = drain(&archive)?;
    let left = drain(&workers)?;
    if opened > cut {
        demand(there.is_empty(), || "G4: messages from before the store was there".to_owned())?;
        return Ok(checked);
    }
    let published = history.published.lock().expect("nobody panics");
    check_published(&published, &there, cut, &mut checked)?;
    check_acked(history, &there, &left, cut)?;
    drop(published);

    // It goes on: what comes now is there after a clean close, and so is the rest.
    topic.publish("more").map_err(|error| format!("publish: {error}"))?;
    store.close().map_err(|error| format!("close: {error}"))?;
    let store = open_store(dir).map_err(|error| format!("open again: {error}"))?;
    demand(store.report().was_clean, || "a close was not clean".to_owned())?;
    let (_, archive, _) = open_topic(&store).map_err(|error| format!("open the topic again: {error}"))?;
    let more = archive.receive(Duration::ZERO).map_err(|error| format!("receive again: {error}"))?;
    demand(more.is_some_and(|more| more.payload() == b"more"), || "G6: what was acked is there again".to_owned())?;
    Ok(checked)
}

fn check_published(
    published: &[Published],
    there: &BTreeMap<u64, String>,
    cut: Position,
    checked: &mut Checked,
) -> Result<(), String> {
    let known: BTreeSet<u64> = published.iter().flat_map(|call| &call.numbers).copied().collect();
    for number in there.keys() {
        demand(known.contains(number), || format!("G4: {number} was never published"))?;
    }
    let mut missing_from = u64::MAX;
    let mut last_there = 0;
    for call in published {
        let count = call.numbers.iter().filter(|number| there.contains_key(number)).count();
        let is_there = count > 0;
        demand(!is_there || count == call.numbers.len(), || format!("G3: {count} of {:?}", call.numbers))?;
        demand(!is_there || call.begun <= cut, || format!("{:?} from after the cut", call.numbers))?;
        let was_promised = call.promised.is_some_and(|promised| promised <= cut);
        demand(is_there || !was_promised, || format!("G1: {:?} is missing", call.numbers))?;
        for (number, id) in call.numbers.iter().zip(&call.ids) {
            let found = there.get(number);
            demand(found.is_none_or(|found| found == id), || format!("G11: {number} is {found:?} and was {id}"))?;
        }
        if is_there {
            last_there = last_there.max(call.lsn);
        } else {
            missing_from = missing_from.min(call.lsn);
        }
        *if was_promised { &mut checked.promised } else { &mut checked.unpromised } += count as u64;
    }
    demand(last_there < missing_from, || format!("G2: {missing_from} is missing and {last_there} is there"))
}

fn check_acked(
    history: &History,
    there: &BTreeMap<u64, String>,
    left: &BTreeMap<u64, String>,
    cut: Position,
) -> Result<(), String> {
    let acked = history.acked.lock().expect("nobody panics");
    let mut gone: BTreeSet<u64> = there.keys().filter(|number| !left.contains_key(number)).copied().collect();
    for ack in acked.iter() {
        let was_promised = ack.promised.is_some_and(|promised| promised <= cut);
        demand(!was_promised || !left.contains_key(&ack.number), || format!("G6: {} was acked", ack.number))?;
        if ack.begun <= cut {
            gone.remove(&ack.number);
        }
    }
    demand(gone.is_empty(), || format!("G5: {gone:?} are gone for the workers, and nobody acked them"))
}
