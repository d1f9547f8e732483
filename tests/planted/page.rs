//! The table of planted bugs, and the page that holds it.

use crate::copy;
use crate::run::{CASES, Finding};
use crate::{Bug, Level};
use std::process::Command;

/// Rows of: name, what it stands for, where, level, what it took.
pub fn table(found: &[(Bug, Finding)]) -> String {
    let mut out =
        String::from("| bug | what it plants | where | found by | after |\n| --- | --- | --- | --- | --- |\n");
    for (bug, finding) in found {
        let level = match bug.level {
            Level::Simulation => "simulation".to_owned(),
            Level::Model => "model".to_owned(),
            Level::Library(filter) => format!("`{filter}`"),
            Level::Test(test, filter) => format!("`tests/{test}`, `{filter}`"),
            Level::Shuttle(filter) => format!("`.ci/shuttle`, `{filter}`"),
        };
        let after = match finding {
            Finding::Case(1) => "1 case".to_owned(),
            Finding::Case(number) => format!("{number} cases"),
            Finding::Failed => "one run".to_owned(),
            Finding::Died => "the process died".to_owned(),
            Finding::Missed => "**not found**".to_owned(),
            Finding::TooLong => "**not found in time**".to_owned(),
        };
        out += &format!("| {} | {} | `{}` | {level} | {after} |\n", bug.name, bug.plants, copy::file_of(bug.name));
    }
    out
}

pub fn page(found: &[(Bug, Finding)], table: &str) -> String {
    let mut cases: Vec<u64> = found
        .iter()
        .filter_map(|(_, finding)| if let Finding::Case(number) = finding { Some(*number) } else { None })
        .collect();
    cases.sort_unstable();
    let median = cases.get(cases.len() / 2).copied().unwrap_or(0);
    let date = Command::new("date").args(["-u", "+%Y-%m-%d"]).output().unwrap().stdout;
    let date = String::from_utf8(date).unwrap();
    format!(
        "# Injected bugs\n\n\
        A test that cannot fail proves nothing. So {all} known mistakes, most of them seen in real logs and\n\
        queues, are put into a copy of the engine one at a time, and the level of testing that is named must\n\
        find each. The source that is shipped holds nothing of it (`tests/planted`).\n\n\
        The simulation runs from its first seed, and at most {CASES} cases; it finds {simulated} of the {all}, half of\n\
        them within {median} cases, and the last after {last}. With no bug awake the copy passes the same runs.\n\n\
        This page is written by `MILLPOND_PLANTED=1 MILLPOND_WRITE_DOCS=1 cargo test --release --test\n\
        planted`. Last written on {date}.\n\n\
        {table}",
        all = found.len(),
        simulated = cases.len(),
        last = cases.last().copied().unwrap_or(0),
        date = date.trim(),
    )
}
