//! Runs that once found a bug, as small as they shrank, named after what was wrong.
//!
//! Never here: runs that never failed.

use crate::ops::{Begin, Draft, Op, Opening, Pause, Run, Size, Spec};
use crate::runner::execute;

const OS: Opening = Opening { disk: false, segment_kib: 64 };
const DISK: Opening = Opening { disk: true, segment_kib: 64 };
const SPEC: Spec = Spec { timeout: None, attempts: None, pause: Pause::Default, outstanding: None };
const EMPTY: Draft = Draft { size: Size::Empty, key: None, headers: 0, partition: None };

fn check(opening: Opening, ops: Vec<Op>) {
    if let Err(reason) = execute(&Run { seed: 0, opening, ops }) {
        panic!("{reason}");
    }
}

fn create(spec: Spec) -> [Op; 2] {
    [Op::CreateTopic { partitions: 1 }, Op::CreateGroup { topic: 0, spec, begin: Begin::Default }]
}

/// A process that had not appended let a jump of the wall clock pass, and a retry waited for a day too long (G16).
#[test]
fn a_jump_is_noticed_by_a_process_that_only_waits() {
    let rest = [
        Op::Publish { topic: 0, draft: EMPTY, disk: None },
        Op::Drop { delivery: 0 },
        Op::Crash { then: OS },
        Op::JumpWall { by: -86_400_000, tick: true },
    ];
    let spec = Spec { pause: Pause::Fixed(1_000), ..SPEC };
    check(OS, create(spec).into_iter().chain(rest).collect());
}

/// The second extension of a lone lease stopped the store.
#[test]
fn a_lone_lease_that_cannot_be_extended_again_stops_nothing() {
    let rest = [
        Op::Publish { topic: 0, draft: EMPTY, disk: None },
        Op::Receive { group: 0 },
        Op::Crash { then: OS },
        Op::Extend { delivery: 0, duration: 49 },
        Op::Extend { delivery: 0, duration: 50 },
    ];
    let spec = Spec { timeout: Some(1), attempts: Some(1), ..SPEC };
    check(OS, create(spec).into_iter().chain(rest).collect());
}

/// A group that was to begin with the earliest message began with one that retention had taken, and could not read it.
#[test]
fn a_new_group_begins_at_a_message_that_is_there() {
    let rest = [
        Op::Publish { topic: 0, draft: EMPTY, disk: None },
        Op::Close { then: OS },
        Op::AckBatch { batch: 0, durable: false },
        Op::CreateTopic { partitions: 1 },
        Op::Close { then: OS },
        Op::Tick {},
        Op::CreateGroup { topic: 0, spec: SPEC, begin: Begin::Earliest },
    ];
    check(OS, create(SPEC).into_iter().chain(rest).collect());
}

/// The reference was wrong: redriving syncs in a store opened at `Disk`, and so shows letters that were hidden before.
#[test]
fn redriving_all_meets_letters_that_it_made_visible() {
    let rest = [
        Op::Publish { topic: 0, draft: EMPTY, disk: Some(true) },
        Op::Reject { delivery: 0 },
        Op::Publish { topic: 0, draft: EMPTY, disk: None },
        Op::Reject { delivery: 0 },
        Op::RedriveAll { group: 0 },
    ];
    check(DISK, create(SPEC).into_iter().chain(rest).collect());
}
