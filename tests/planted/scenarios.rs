//! Mistakes that scenarios must detect: at least one for each file of `tests/scenarios`.

use crate::seam::Mistake;
use crate::{Bug, Level, bugs};

pub const BUGS: &[Bug] = &[
    Bug {
        name: "a dropped delivery stays leased",
        plants: "a handler that panics keeps its message until the visibility timeout",
        mistake: Mistake::Asks("!planted!() && $it"),
        level: Level::Test("scenarios", "files::drop"),
    },
    Bug {
        name: "a rejected message is tried again",
        plants: "a message that cannot be processed is retried until its attempts are used up",
        mistake: Mistake::Before("if planted!() { return self.give_back(None, &text); }"),
        level: Level::Test("scenarios", "files::reject"),
    },
    Bug {
        name: "a release counts the attempt",
        plants: "a consumer that shuts down uses up attempts of messages it never processed",
        mistake: Mistake::Before("if planted!() { return self.give_back(Some(0), \"\"); }"),
        level: Level::Test("scenarios", "files::release"),
    },
    Bug {
        name: "a key is ignored",
        plants: "messages of one key go to several partitions, and are delivered out of order",
        mistake: Mistake::Value("if planted!() { Ok(self.inner().next_in_turn()) } else { $it }"),
        level: Level::Test("scenarios", "files::keys"),
    },
    Bug {
        name: "a backoff does not double",
        plants: "a failing message is retried at the first delay forever",
        mistake: Mistake::Value("if planted!() { 1 } else { $it }"),
        level: Level::Test("scenarios", "files::backoff"),
    },
    Bug {
        name: "a linear backoff stays the same",
        plants: "a backoff that should grow by a step retries at the first delay forever",
        mistake: Mistake::Value("if planted!() { options.first_ms } else { $it }"),
        level: Level::Test("scenarios", "files::retry_policies"),
    },
    Bug {
        name: "a list of delays begins anew",
        plants: "after its last delay a list goes on with the first",
        mistake: Mistake::Before(
            "let nth = if planted!() { usize::try_from(before).ok().map(|nth| nth % delays.len()) } else { nth };",
        ),
        level: Level::Library("a_linear_one_adds_the_first_and_a_list_ends_with_its_last"),
    },
    Bug {
        name: "full jitter is half of it",
        plants: "messages that failed together all wait half of their delay at least",
        mistake: Mistake::Value("if planted!() { full.div_ceil(2) } else { $it }"),
        level: Level::Library("jitter_stays_in_its_part_and_differs"),
    },
    Bug {
        name: "a limit of nacks is not kept",
        plants: "a message that its consumers reject by nacks is tried until its attempts are used up",
        mistake: Mistake::Before("let max = if planted!() { 0 } else { max };"),
        level: Level::Library("the_last_nack_is_a_dead_letter_whatever_attempts_are_left"),
    },
    Bug {
        name: "a limit of expiries is not kept",
        plants: "a message on which consumers hang is tried until its attempts are used up",
        mistake: Mistake::Before(
            "let is_leased = is_leased || planted!(); if is_leased && planted!() { return AttemptClass::Plain; }",
        ),
        level: Level::Library("the_last_expiry_is_a_dead_letter_whatever_attempts_are_left"),
    },
    Bug {
        name: "a limit of crashes is not kept",
        plants: "a message that kills its process is tried until its attempts are used up",
        mistake: Mistake::Before("0.. if planted!() => Prospect::None,"),
        level: Level::Library("as_many_crashes_in_a_row_as_are_allowed_end_in_the_dead_letters"),
    },
    Bug {
        name: "failures are not counted",
        plants: "a delivery and a dead letter say that nothing failed before",
        mistake: Mistake::Before("if planted!() { return; }"),
        level: Level::Model,
    },
    Bug {
        name: "a limit that is never reached is taken",
        plants: "a limit of nacks above that of attempts is accepted and does nothing",
        mistake: Mistake::Before("if planted!() { return Ok(()); }"),
        level: Level::Test("scenarios", "files::retry_limits"),
    },
    Bug {
        name: "a paused group gets leases",
        plants: "consumers go on while an operator has stopped them",
        mistake: Mistake::Asks("max == 0 || group.options.paused && !planted!()"),
        level: Level::Test("scenarios", "files::pause"),
    },
    Bug {
        name: "a message of a paused group is waited for",
        plants: "a paused group stops all others",
        mistake: Mistake::Skip,
        level: Level::Test("kinds", "paused_and_full_groups_hold_nobody_up"),
    },
    Bug {
        name: "more are in flight than allowed",
        plants: "a service behind the consumers gets more at once than it bears",
        mistake: Mistake::Value("if planted!() { u32::MAX } else { $it }"),
        level: Level::Test("scenarios", "files::in_flight"),
    },
    Bug {
        name: "a rate is not kept",
        plants: "a service behind the consumers gets more over time than it bears",
        mistake: Mistake::Value("if planted!() { max } else { $it }"),
        level: Level::Test("scenarios", "files::rate_limit"),
    },
    Bug {
        name: "leases take no tokens",
        plants: "after the first token a group gets all there is",
        mistake: Mistake::Skip,
        level: Level::Library("tokens_come_one_after_another_up_to_a_burst"),
    },
    Bug {
        name: "a bucket has no end",
        plants: "after a quiet night a group gets a burst of thousands",
        mistake: Mistake::Value("if planted!() { u128::MAX >> 1 } else { $it }"),
        level: Level::Library("tokens_come_one_after_another_up_to_a_burst"),
    },
    Bug {
        name: "a restart gives a burst",
        plants: "a process that restarts again and again gets a burst each time",
        mistake: Mistake::Value(
            "if planted!() { Bucket { options, units: u128::from(options.burst) * u128::from(options.per_ms), at: mono } } else { $it }",
        ),
        level: Level::Test("kinds", "restarts_give_no_burst"),
    },
    Bug {
        name: "nobody waits for a token",
        plants: "a consumer that waits sleeps on when its group may have the next message",
        mistake: Mistake::Value("if planted!() { None } else { $it }"),
        level: Level::Test("kinds", "each_way_to_become_ready_wakes_a_sleeper"),
    },
    Bug {
        name: "a close saves nothing",
        plants: "every open after a close recovers as after a crash",
        mistake: Mistake::Value("if planted!() { Ok(()) } else { $it }"),
        level: Level::Test("scenarios", "files::close"),
    },
    Bug {
        name: "a publish takes the room for settling",
        plants: "a full store cannot be emptied, for acks find no room",
        mistake: Mistake::Value("!planted!() && ($it)"),
        level: Level::Test("scenarios", "files::full_disk"),
    },
    Bug {
        name: "a removal does not wait",
        plants: "a removed topic is back after a power failure, with all its messages",
        mistake: Mistake::Instead("if planted!() { Ok(()) } else { $it }"),
        level: Level::Test("scenarios", "files::removal"),
    },
    Bug {
        name: "a retention is not written",
        plants: "a topic that keeps its messages forever keeps them until the store is opened again",
        mistake: Mistake::Value("if planted!() { 0 } else { $it }"),
        level: Level::Test("scenarios", "files::retention"),
    },
];

/// Bugs that another level must find, each with a scenario that must find it as well.
const ALSO: &[(&str, &str)] = &[
    ("an id is forgotten too early", "files::dedup"),
    ("a bound ignores a group", "files::topic_bound"),
    ("a scheduled message comes again and again", "files::delay"),
    ("a delay goes by the wall clock", "files::due_times"),
    ("what was taken back comes all the same", "files::taken_back"),
    ("a delay is not recorded", "files::scheduled_crash"),
    ("durable ack does not wait", "files::ack"),
    ("a lease keeps the first limit", "files::alter"),
    ("a dropped batch charges what nobody saw", "files::batch"),
    ("a clock jump is not noticed", "files::clock_jump"),
    ("leases are not recorded", "files::crash"),
    ("a cursor is set by anybody", "files::cursor"),
    ("a dead letter stays in its partition", "files::dead_letter"),
    ("shown before durable", "files::durability"),
    ("leases beside an exclusive one", "files::exclusive_lease"),
    ("a stale token is accepted", "files::expiry"),
    ("an extension is forgotten", "files::extend"),
    ("a gap is not told", "files::log_reader"),
    ("leases by the wall clock", "files::lease"),
    ("redrives to topics are not counted", "files::loop_of_redrives"),
    ("the attempt is not charged", "files::nack"),
    ("a notice is lost", "files::notices"),
    ("a gap in a sequence is passed over", "files::producer"),
    ("more outstanding than allowed", "files::outstanding"),
    ("a dead letter stays in its partition", "files::order_dead_letter"),
    ("a redriven dead letter stays", "files::redrive"),
    ("a close keeps what was offered", "files::subscription"),
    ("a snapshot is newer than its stream", "files::snapshots"),
    ("any version will do", "files::streams"),
    ("the acks of a transaction are lost", "files::transaction"),
    ("a group begins at the end", "files::two_groups"),
    ("a group begins at the end", "files::seek_back"),
    ("a redriven message goes last", "files::seek_order"),
];

/// Those bugs, to be found by their scenarios.
pub fn also() -> Vec<Bug> {
    let found_by = |bug: Bug| {
        let files = ALSO.iter().filter(move |(name, _)| *name == bug.name);
        files.map(move |(_, file)| Bug { level: Level::Test("scenarios", file), ..bug })
    };
    bugs().into_iter().flat_map(found_by).collect()
}

#[test]
fn each_scenario_has_a_bug_to_find() {
    let also = also();
    assert_eq!(also.len(), ALSO.len(), "there is a bug of each name");
    let mut filters: Vec<&str> = bugs().into_iter().chain(also).filter_map(|bug| filter(bug.level)).collect();
    filters.sort_unstable();
    let entries = std::fs::read_dir(crate::root().join("tests/scenarios")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let texts = paths.filter(|path| path.extension().is_some_and(|extension| extension == "txt"));
    let mut files: Vec<String> =
        texts.map(|path| format!("files::{}", path.file_stem().unwrap().to_string_lossy())).collect();
    files.sort_unstable();
    assert_eq!(files, filters);
    assert!(files.windows(2).all(|two| !two[1].starts_with(&two[0])), "each filter selects one scenario");
}

fn filter(level: Level) -> Option<&'static str> {
    match level {
        Level::Test("scenarios", filter) => Some(filter),
        Level::Test(..) | Level::Library(_) | Level::Shuttle(_) | Level::Simulation | Level::Model => None,
    }
}
