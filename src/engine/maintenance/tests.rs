//! What happens between a look at files and what is done by it.
//!
//! Never here: crashes and faults, which the tests of the whole store try.

use super::clean::CleaningLook;
use crate::clock::SimClock;
use crate::disk::sim::SimDisk;
use crate::engine::{Begin, Engine, GroupInfo, Outgoing, Received, Request, Setup, TopicInfo, Wait};
use crate::error::Error;
use crate::ids::{Lsn, Offset, WallMs};
use crate::log::Class;
use crate::record::{GroupOptions, Hold, Retention, TopicOptions};
use crate::view::{Reader, ViewHolder};
use std::sync::Arc;
use std::time::Duration;

struct Rig {
    disk: SimDisk,
    clock: Arc<SimClock>,
    engine: Engine,
    kept: TopicInfo,
    busy: TopicInfo,
}

impl Rig {
    /// A store of some segments that two checkpoints cover: of each some messages stay for ever, and most are settled.
    fn new() -> Self {
        let (disk, clock) = (SimDisk::new(9), Arc::new(SimClock::new(WallMs(1))));
        let setup = Setup::quiet(64 << 10);
        let engine = Engine::open_on(Arc::new(disk.attach().unwrap()), setup, Arc::clone(&clock) as _).unwrap();
        let for_ever = TopicOptions { retention: Retention::Forever, ..TopicOptions::LEFT_OUT };
        let kept = engine.open_topic("kept", 1, for_ever).unwrap();
        let busy = engine.open_topic("busy", 1, TopicOptions::LEFT_OUT).unwrap();
        let rig = Self { disk, clock, engine, kept, busy };
        rig.traffic();
        rig.traffic();
        rig
    }

    fn publish(&self, topic: TopicInfo, payload: &[u8]) {
        let mut outgoing = Outgoing::default();
        outgoing.add(topic.first, None, std::iter::empty(), payload, 1 << 20).unwrap();
        self.engine.publish(&outgoing).unwrap().unwrap();
    }

    fn request(&self, group: &GroupInfo, max: usize) -> Request<'static> {
        Request { group: group.id, topic: self.busy.id, max, wait: Wait::new(&self.engine, Duration::ZERO) }
    }

    fn traffic(&self) {
        let group = self.engine.open_group(self.busy, "w", &GroupOptions::LEFT_OUT, Begin::Earliest).unwrap();
        let reader = crate::sync::Mutex::default();
        for nth in 0..100 {
            if nth % 10 == 0 {
                self.publish(self.kept, b"kept");
            }
            self.publish(self.busy, &[7; 2_000]);
            let mut held = Vec::new();
            let mut each = |received: Received| held.push(received.held_run());
            self.engine.receive(self.request(&group, 1), &reader, &mut each).unwrap();
            self.engine.ack(group.id, &held).unwrap();
        }
        self.engine.sync().unwrap();
        self.engine.checkpoint().unwrap();
    }

    /// Indexes and retires, but cleans nothing.
    fn tidy(&self) {
        super::finish_segments(&self.engine).unwrap();
        super::retire::retire_dead_segments(&self.engine).unwrap();
    }

    /// A look at files that were looked at before.
    fn look(&self) -> CleaningLook {
        self.tidy();
        for _ in 0..20 {
            self.clock.advance(1_000);
            CleaningLook::take(&self.engine).unwrap().note_files(&self.engine).unwrap();
        }
        CleaningLook::take(&self.engine).unwrap()
    }

    fn class_files(&self) -> usize {
        let core = self.engine.lock_core();
        core.view.catalog.segments().iter().filter(|file| file.kind().class() == Some(Class::Messages)).count()
    }

    fn payloads(&self) -> Vec<Vec<u8>> {
        let end = self.engine.lock_core().view.state.partition_end(self.kept.first);
        let fetch = |offset| self.engine.fetch(self.kept.first, Offset(offset)).unwrap().view(0).payload().to_vec();
        (0..end.0).map(fetch).collect()
    }
}

#[test]
fn files_are_cleaned_as_they_were_looked_at() {
    let rig = Rig::new();
    let before = rig.payloads();
    rig.look().clean(&rig.engine).unwrap();
    assert_eq!(rig.class_files(), 1);
    assert_eq!(rig.payloads(), before);
}

/// A start that was found stays one: nothing is cleaned by a look from before that.
#[test]
fn nothing_is_cleaned_by_a_look_from_before_a_pin() {
    let rig = Rig::new();
    let look = rig.look();
    let group = rig.engine.open_group(rig.busy, "late", &GroupOptions::LEFT_OUT, Begin::Earliest).unwrap();
    look.clean(&rig.engine).unwrap();
    assert_eq!(rig.class_files(), 0);
    assert!(rig.disk.files().iter().all(|file| !file.name.ends_with(".msg")), "what was written is removed");
    let (mut count, reader) = (0, crate::sync::Mutex::default());
    let mut each = |received: Received| count += received.stored.count();
    let unreadable = rig.engine.receive(rig.request(&group, 1_000), &reader, &mut each).unwrap();
    assert!(unreadable.is_empty() && count > 0, "{count} {unreadable:?}");
    let pin = rig.engine.maintenance.pin();
    assert!(CleaningLook::take(&rig.engine).is_none());
    drop(pin);
}

/// A cursor that comes to hold messages after the look keeps them.
#[test]
fn nothing_is_cleaned_that_a_cursor_holds_since_the_look() {
    let rig = Rig::new();
    let look = rig.look();
    let hold = Hold { topic: rig.busy.id, from: Lsn(0) };
    rig.engine.set_cursor("late", None, b"1", Some(hold)).unwrap();
    look.clean(&rig.engine).unwrap();
    assert_eq!(rig.class_files(), 0);
}

/// A reader that has found a message reads it although its file was cleaned and unlinked meanwhile: one by one, and several together.
#[test]
fn a_message_that_was_found_is_read_where_it_is_now() {
    for gathers in [false, true] {
        let rig = Rig::new();
        let look = rig.look();
        let at = rig.engine.with_view(|view| view.locate(rig.kept.first, Offset(3))).unwrap();
        let found = rig.engine.with_view(|view| view.find_next(rig.kept.first, Offset(0))).unwrap();
        look.clean(&rig.engine).unwrap();
        assert!(rig.disk.read_file(&at.segment.name().to_string()).is_none());
        let (mut reader, of) = (Reader::default(), (rig.kept.first, Offset(3)));
        let mut stored = Vec::new();
        if gathers {
            let each = |one| stored.push(one);
            assert_eq!(rig.engine.gather(&mut reader, &at.segment, &at.place, (0, 5), of, each).unwrap(), 1);
        } else {
            stored.push(rig.engine.read(&mut reader, &at.segment, &at.place, 0, of).unwrap());
        }
        assert_eq!((stored[0].view(0).payload(), stored[0].about.first), (&b"kept"[..], Offset(3)));
        let found = crate::view::resolve(&rig.engine, &mut reader, found).unwrap();
        assert!(found.is_none_or(|run| run.first == Offset(0)), "its segment has gone: {found:?}");
    }
}

/// A frame that does not prove itself stops the cleaning of its file, and is told; other files are cleaned.
#[test]
fn a_damaged_file_is_left_as_it_is() {
    let rig = Rig::new();
    rig.tidy();
    let name = rig.engine.lock_core().view.catalog.segments()[1].name().to_string();
    let mut bytes = rig.disk.read_file(&name).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    rig.disk.write_file(&name, &bytes);
    for _ in 0..20 {
        rig.clock.advance(1_000);
        rig.engine.maintain().unwrap();
    }
    assert_eq!(rig.disk.read_file(&name), Some(bytes));
    assert!(rig.class_files() > 0);
    assert_eq!(rig.engine.stats().unwrap().log.damaged_files, 1);
    assert!(matches!(rig.engine.fetch(rig.busy.first, Offset(0)), Err(Error::Unreadable { .. })), "it was settled");
}

/// A file whose index is not there ends a run: those before it and behind it are cleaned, each for itself.
#[test]
fn a_file_without_an_index_keeps_what_it_serves() {
    let rig = Rig::new();
    rig.look();
    let before = rig.payloads();
    let number = {
        let core = &mut *rig.engine.lock_core();
        let files = core.view.catalog.segments();
        let number = files[1].number();
        core.view.positions.forget(number);
        number
    };
    for _ in 0..30 {
        rig.clock.advance(1_000);
        // The job that would write the index anew does not run.
        super::clean::clean_if_due(&rig.engine).unwrap();
    }
    let core = rig.engine.lock_core();
    let left = core.view.catalog.segment(number).map(|file| file.serves());
    assert_eq!(left, Some(crate::log::Classes::BOTH));
    drop(core);
    assert!(rig.class_files() >= 2, "{}", rig.class_files());
    let Rig { disk, clock, engine, kept, .. } = rig;
    drop(engine);
    disk.crash_process();
    let setup = Setup::quiet(64 << 10);
    let engine = Engine::open_on(Arc::new(disk.attach().unwrap()), setup, Arc::clone(&clock) as _).unwrap();
    let fetch = |offset| engine.fetch(kept.first, Offset(offset)).unwrap().view(0).payload().to_vec();
    assert_eq!((0..before.len() as u64).map(fetch).collect::<Vec<_>>(), before);
}
