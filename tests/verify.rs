//! Verifying: a whole store has no findings, and any byte that is changed is found and named.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use millpond::simulation::{SimClock, SimDisk, WallMs};
use millpond::{Corruption, DumpEntry, Error, Lsn, Observer, Store, VerifyReport};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

struct Machine {
    disk: SimDisk,
    clock: Arc<SimClock>,
}

impl Machine {
    /// A closed store of several segments, with index files and two checkpoints.
    fn new() -> Self {
        let machine = Self { disk: SimDisk::new(1), clock: Arc::new(SimClock::new(WallMs(1_800_000_000_000))) };
        for life in 0..3u8 {
            let store = machine.open();
            let topic = store.topic("t").partitions(2).open().unwrap();
            let group = topic.group("g").max_attempts(2).open().unwrap();
            for number in 0..40u8 {
                topic.publish(vec![life * 40 + number; 3_000]).unwrap();
                if let Some(delivery) = group.receive(Duration::ZERO).unwrap() {
                    let settled = if number % 3 == 0 { delivery.nack("no oven") } else { delivery.ack() };
                    settled.unwrap();
                }
            }
            machine.clock.advance(60_000);
            store.tick().unwrap();
            store.checkpoint().unwrap();
            store.close().unwrap();
        }
        machine
    }

    fn open(&self) -> Store {
        let options = Store::options().segment_bytes_max(64 << 10);
        options.open_on(Arc::new(self.disk.attach().unwrap()), Arc::clone(&self.clock) as _).unwrap()
    }

    fn observe(&self) -> Result<Observer, Error> {
        Store::options().open_read_only_on(Arc::new(self.disk.reader()), Arc::clone(&self.clock) as _)
    }

    fn verify(&self) -> Result<VerifyReport, Error> {
        self.observe()?.verify(|_| ())
    }

    fn names(&self, suffix: &str) -> Vec<String> {
        self.disk.files().into_iter().map(|file| file.name).filter(|name| name.ends_with(suffix)).collect()
    }
}

#[test]
fn a_whole_store_has_no_findings() {
    let machine = Machine::new();
    let mut steps = Vec::new();
    let report = machine.observe().unwrap().verify(|progress| steps.push((progress.done, progress.of))).unwrap();
    assert_eq!(report.findings, []);
    assert!(report.checkpoint_replayed && report.files > 4 && report.indexes > 3 && report.frames > 100, "{report:?}");
    assert!(
        steps.len() == report.files + 1 && steps.is_sorted() && steps.last().unwrap().0 == report.bytes,
        "{steps:?}"
    );
}

/// A changed byte of a message, a record, an index file or a checkpoint is found, and the file is named. Some kinds of damage keep the store
/// from being observed at all, and the error names them.
#[test]
fn any_changed_byte_is_found() {
    let machine = Machine::new();
    let whole = machine.disk.snapshot();
    let (mut told, mut refused) = (BTreeSet::new(), 0);
    let names = [machine.names(".seg"), machine.names(".idx"), machine.names(".ckp")].concat();
    assert!(names.len() > 8, "{names:?}");
    for name in names {
        let bytes = whole.read_file(&name).unwrap();
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        for at in (128..used).step_by(1_999) {
            let machine = Machine { disk: whole.snapshot(), clock: Arc::clone(&machine.clock) };
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            machine.disk.write_file(&name, &damaged);
            let is_named = |finding: &Corruption| finding.file == name;
            match machine.verify() {
                Ok(report) => {
                    // Bytes between frames mean nothing. An index file that does not prove itself is none: it is not synced, so a power
                    // failure may take any part of it.
                    match name.ends_with(".idx") {
                        true => assert!(report.findings.is_empty(), "{name} at {at}: {report:?}"),
                        false => assert!(
                            bytes[at] == 0 || report.findings.iter().any(is_named),
                            "{name} at {at}: {report:?}"
                        ),
                    }
                    told.extend(
                        report.findings.iter().filter(|finding| is_named(finding)).map(|finding| finding.reason),
                    );
                }
                Err(Error::Corrupt(corruption)) => {
                    assert!(is_named(&corruption), "{name} at {at}: {corruption}");
                    refused += 1;
                }
                Err(error) => panic!("{name} at {at}: {error}"),
            }
        }
    }
    let reasons = ["frames that do not prove themselves", "a checkpoint that is not what its header says"];
    assert!(reasons.iter().all(|reason| told.contains(reason)), "{told:?}, {refused} refused");
}

/// What is dumped is the whole log, and nothing of messages.
#[test]
fn a_dump_shows_every_frame_and_no_payload() {
    let machine = Machine::new();
    let observer = machine.observe().unwrap();
    let (mut next, mut kinds, mut messages) = (None::<Lsn>, BTreeSet::new(), 0);
    observer
        .dump(Lsn(0), |entry| {
            let DumpEntry::Frame(frame) = entry else { panic!("{entry:?}") };
            assert!(next.is_none_or(|next| next == frame.lsn), "{next:?} {frame:?}");
            next = Some(Lsn(frame.lsn.0 + u64::from(frame.len)));
            messages += frame.messages;
            for record in &frame.records {
                let text = record.text.as_ref().unwrap();
                kinds.insert(text.split([' ', '(']).next().unwrap().to_owned());
                assert!(!text.contains("7, 7, 7") && text.len() < 2_000);
            }
            true
        })
        .unwrap();
    assert!(messages > 50 && next == Some(observer.end()), "{messages} {next:?}");
    for kind in ["Published", "Leased", "Acked", "Nacked", "Opened", "SegmentStart"] {
        assert!(kinds.contains(kind), "{kinds:?}");
    }
    let mut frames = 0;
    observer
        .dump(Lsn(0), |_| {
            frames += 1;
            frames < 3
        })
        .unwrap();
    assert_eq!(frames, 3);
}
