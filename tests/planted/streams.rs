//! Planted bugs: streams and their index.

use crate::seam::Mistake;
use crate::{Bug, Level};

const NUMBERED: Level = Level::Test("streams", "events_are_numbered_and_expected");
const ANY_INDEX: Level = Level::Test("streams", "any_index_gives_the_same_answers");
const SNAPSHOT: Level = Level::Test("streams", "a_snapshot_is_found_again_without_the_index");
const SNAPSHOT_DURABLE: Level = Level::Test("streams", "a_snapshot_that_is_told_is_durable");
const TRANSACTION: Level = Level::Test("streams", "a_transaction_appends_with_all_else");

/// The list.
pub const BUGS: &[Bug] = &[
    Bug {
        name: "an index goes where descriptors lack",
        plants: "a process at its limit of open files throws a good index away, and fills it anew",
        mistake: Mistake::Asks("!planted!() && ($it)"),
        level: Level::Library("what_the_system_lacks_is_no_fault"),
    },
    Bug {
        name: "any version will do",
        plants: "two who decided by the same version both win",
        mistake: Mistake::Value("planted!() || ($it)"),
        level: NUMBERED,
    },
    Bug {
        name: "the version is not checked",
        plants: "an append that expects another version is done",
        mistake: Mistake::Asks("!planted!() && !is_expected(head, expected)"),
        level: NUMBERED,
    },
    Bug {
        name: "a stale fact is believed",
        plants: "a version comes twice, for the index was read before another append",
        mistake: Mistake::Value("if planted!() { fact } else { $it }"),
        level: Level::Library("a_decision_needs_a_fact_that_nothing_has_made_stale"),
    },
    Bug {
        name: "the index follows what is not durable",
        plants: "the index is ahead of a log that a power failure took back",
        mistake: Mistake::Asks(
            "!planted!() && end > upto || found.len() >= min && found.last().is_some_and(|last| last.0 < end)",
        ),
        level: Level::Library("a_decision_needs_a_fact_that_nothing_has_made_stale"),
    },
    Bug {
        name: "appends do not wait for the index",
        plants: "memory grows without bound where the index cannot be written",
        mistake: Mistake::Asks("!planted!() && inputs.streams.len() >= 2 * TOUCHES_MAX"),
        level: Level::Library("appends_are_refused_where_the_index_stays_behind"),
    },
    Bug {
        name: "streams do not follow the log",
        plants: "the second append to a stream gets the version of the first",
        mistake: Mistake::Skip,
        level: NUMBERED,
    },
    Bug {
        name: "any stamp counts",
        plants: "an index of another store, or ahead of the log, is believed",
        mistake: Mistake::Asks("planted!() || self.counts(engine, stamp)"),
        level: ANY_INDEX,
    },
    Bug {
        name: "an index that lags is believed",
        plants: "after a crash a stream is shorter than it was, and a version comes twice",
        mistake: Mistake::Asks("!planted!() && index.at < floor"),
        level: ANY_INDEX,
    },
    Bug {
        name: "an append does not wait",
        plants: "an append at Disk returns before it is durable",
        mistake: Mistake::Asks("!planted!() && level == Durability::Disk"),
        level: Level::Test("streams", "what_is_told_is_durable"),
    },
    Bug {
        name: "appends of one frame have the same versions",
        plants: "two appends of one transaction give one version twice",
        mistake: Mistake::Value("(*stream, *count, if planted!() { 0 } else { *ahead })"),
        level: TRANSACTION,
    },
    Bug {
        name: "appends of one frame are accepted under one id",
        plants: "a frame is written that nobody can apply, and the store is lost",
        mistake: Mistake::Asks("!planted!() && has_doubles(all)"),
        level: TRANSACTION,
    },
    Bug {
        name: "a snapshot is newer than its stream",
        plants: "who loads the snapshot goes on behind events that come later, and misses them",
        mistake: Mistake::Asks("!planted!() && !(first..next).contains(&version)"),
        level: Level::Library("a_snapshot_is_never_newer_than_its_stream"),
    },
    Bug {
        name: "a deleted stream keeps its snapshot",
        plants: "an aggregate begins with what was deleted",
        mistake: Mistake::Value("if planted!() { None } else { $it }"),
        level: SNAPSHOT,
    },
    Bug {
        name: "a snapshot is shown before it is durable",
        plants: "a power failure takes back a snapshot that somebody went by",
        mistake: Mistake::Asks("planted!() || offset < visible"),
        level: SNAPSHOT_DURABLE,
    },
    Bug {
        name: "a snapshot does not wait",
        plants: "a snapshot that was saved at Disk is lost in a power failure",
        mistake: Mistake::Asks("!planted!() && self.topic.level() == Durability::Disk"),
        level: SNAPSHOT_DURABLE,
    },
    Bug {
        name: "notes of streams hold no segment",
        plants: "a segment goes that alone says that a stream was deleted, or has its snapshot",
        mistake: Mistake::Value("if planted!() { Offset(u64::MAX) } else { $it }"),
        level: Level::Test("streams", "what_is_said_of_streams_outlives_its_neighbors"),
    },
    Bug {
        name: "a projection moves without its output",
        plants: "a projection forgets how far it has come, and does all of it again",
        mistake: Mistake::Skip,
        level: Level::Test("projections", "each_event_has_its_effect_once"),
    },
    Bug {
        name: "a rebuild by another is not seen",
        plants: "a projection that was set back stays as it was until the next event",
        mistake: Mistake::Asks("!planted!() && $it"),
        level: Level::Test("projections", "a_runner_that_has_caught_up_is_told_of_a_rebuild"),
    },
    Bug {
        name: "any cursor of the name is removed",
        plants: "the rebuild of one projection loses the progress of another",
        mistake: Mistake::Skip,
        level: Level::Test("projections", "a_rebuild_leaves_what_others_have_under_its_name"),
    },
    Bug {
        name: "an index is discarded while it is open",
        plants: "the first call of a restored store waits ten seconds for an index that is in its own way",
        mistake: Mistake::Value("if planted!() { std::mem::forget(index) } else { drop(index) }"),
        level: Level::Test("streams", "the_index_of_another_store_is_closed"),
    },
    Bug {
        name: "nothing stands in for an index",
        plants: "where the disk is full, no stream can be read by the next process",
        mistake: Mistake::Asks(
            "$it.and_then(|index| if planted!() { Err(IndexError::Lacking { os: 28 }) } else { Ok(index) })",
        ),
        level: Level::Test("streams", "an_index_in_memory_stands_in"),
    },
    Bug {
        name: "a batch that is refused is tried again whole",
        plants: "a projection of a running total asks its code fifty times for each event",
        mistake: Mistake::Value("if planted!() { opened.pending.len() } else { $it }"),
        level: Level::Test("projections", "a_refused_batch_is_not_tried_again_whole"),
    },
    Bug {
        name: "the index is held while others are woken",
        plants: "a waker that reads a stream waits for the sync that calls it",
        mistake: Mistake::Skip,
        level: Level::Library("the_index_is_free_while_a_refusal_is_resolved"),
    },
    Bug {
        name: "facts are read one at a time",
        plants: "a transaction over many streams is decided as often as it has streams, and beside others never",
        mistake: Mistake::Value(
            "match planted!() { true => self.stream_facts(&streams[..1])?, false => self.stream_facts(streams)? }",
        ),
        level: Level::Library("all_facts_are_of_one_moment"),
    },
    Bug {
        name: "a foreign projection gives one event of a batch",
        plants: "events that the foreign store did not get are passed",
        mistake: Mistake::Before("let events = if planted!() { &events[..1] } else { events };"),
        level: Level::Test("projections", "a_foreign_store_goes_on"),
    },
    Bug {
        name: "an id names a message before its own",
        plants: "a repeated append is told with the receipt of another message",
        mistake: Mistake::Skip,
        level: TRANSACTION,
    },
    Bug {
        name: "snapshots are kept of no stream",
        plants: "an option that does nothing is taken, and a typo is found in production",
        mistake: Mistake::Asks("$it.filter(|_| !planted!())"),
        level: Level::Test("streams", "bad_input_is_told_and_changes_nothing"),
    },
    Bug {
        name: "an engine opens what is no file",
        plants: "a named pipe in the folder of the index makes the first call wait for ever",
        mistake: Mistake::Asks("$it.filter(|_| !planted!())"),
        level: Level::Library("what_is_no_file_is_refused_before_an_engine_opens_it"),
    },
    Bug {
        name: "why the index stays behind is not told",
        plants: "a store whose index in memory is full says that the index will follow",
        mistake: Mistake::Instead("if planted!() { drop(self.catch_up()) } else { self.catch_up()? }"),
        level: Level::Library("an_index_in_memory_that_is_full_is_named"),
    },
    Bug {
        name: "another event is named",
        plants: "of a transaction of a thousand events the wrong one is left out, again and again",
        mistake: Mistake::Value("if planted!() { 0 } else { $it }"),
        level: TRANSACTION,
    },
    Bug {
        name: "what the index took in is not looked for again",
        plants: "a reader of a stream misses what the index took in while it read",
        mistake: Mistake::Asks("!planted!() && $it"),
        level: Level::Shuttle("a_reader_of_a_stream_sees_whole_appends_in_order"),
    },
    Bug {
        name: "a full index is appended beyond",
        plants: "an index in memory has no room, and the store says so once it is opened again and nothing can be read",
        mistake: Mistake::Skip,
        level: Level::Test("streams", "nothing_is_appended_once_the_index_in_memory_is_full"),
    },
];

/// Bugs that have been found above, and the interleavings that find them too.
const ALSO: &[(&str, &str)] = &[
    ("the version is not checked", "of_two_appends_that_expect_one_version_one_wins"),
    ("what is not durable is told", "of_two_appends_that_expect_one_version_one_wins"),
];

/// Those bugs, to be found by these.
pub fn also() -> Vec<Bug> {
    let level = |bug: &Bug| ALSO.iter().find(|(name, _)| *name == bug.name).map(|(_, test)| Level::Shuttle(test));
    crate::bugs().into_iter().filter_map(|bug| Some(Bug { level: level(&bug)?, ..bug })).collect()
}
