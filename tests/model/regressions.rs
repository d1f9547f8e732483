//! Runs that failed once, as small as they shrank. Those that found a bug of the engine are in `tests/regressions.rs`, in
//! calls of the API.
//!
//! Never here: runs that never failed.

use crate::ops::{Begin, Draft, Op, Opening, Pause, Run, Size, Spec};
use crate::runner::execute;

const DISK: Opening = Opening { disk: true, segment_kib: 64, isolates: true };
const SPEC: Spec = Spec {
    limits: None,
    in_flight: None,
    wants_typed: None,
    timeout: None,
    attempts: None,
    pause: Pause::Default,
    outstanding: None,
    closes: None,
    notices: None,
    order: None,
};
const EMPTY: Draft = Draft { size: Size::Empty, key: None, headers: 0, partition: None };

fn check(opening: Opening, ops: Vec<Op>) {
    if let Err(reason) = execute(&Run { seed: 0, opening, ops }) {
        panic!("{reason}");
    }
}

/// The reference was wrong: redriving syncs in a store opened at `Disk`, and so shows dead letters that were hidden before.
#[test]
fn redriving_all_meets_letters_that_it_made_visible() {
    let ops = vec![
        Op::CreateTopic { partitions: 1, is_kept: false },
        Op::CreateGroup { topic: 0, spec: SPEC, begin: Begin::Default },
        Op::Publish { topic: 0, draft: EMPTY, disk: Some(true) },
        Op::Reject { delivery: 0 },
        Op::Publish { topic: 0, draft: EMPTY, disk: None },
        Op::Reject { delivery: 0 },
        Op::RedriveAll { group: 0 },
    ];
    check(DISK, ops);
}
