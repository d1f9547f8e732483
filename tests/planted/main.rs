//! Planted bugs: known mistakes, each of which a level of testing must find.
//!
//! A copy of the source gets all of them at once, each asleep until an environment variable names it, so that one build serves
//! all. The source that is shipped holds nothing of this. `MILLPOND_PLANTED=1` builds the copy and runs it; without that the
//! list is only held against the seams in the source, so that it cannot rot. `MILLPOND_PLANTED_ONLY` names some, by parts of their names,
//! separated by commas. `MILLPOND_WRITE_DOCS=1` writes docs/measured/injected-bugs.md.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails, and says what it did")]

mod bounds;
mod cleaning;
mod copy;
#[path = "../common/counts.rs"]
mod counts;
mod dedup;
mod engine;
mod filters;
mod log;
mod log_reader;
mod notices;
mod observer;
mod order;
mod page;
mod record;
mod removal;
mod repair;
mod run;
mod scenarios;
mod schedule;
mod seam;
mod seek;
mod state;
mod streams;
mod transaction;
mod unique;

use seam::Mistake;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Which level must find a bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The random histories, within the number of cases that each run has.
    Simulation,
    /// The model's random runs.
    Model,
    /// The tests of the library whose names contain this.
    Library(&'static str),
    /// The tests of a file or folder of `tests` whose names contain this.
    Test(&'static str, &'static str),
    /// The interleavings whose names contain this.
    Shuttle(&'static str),
}

/// One mistake.
#[derive(Clone, Copy, Debug)]
pub struct Bug {
    /// What wakes it, and what the table calls it.
    pub name: &'static str,
    /// The accident of real software that it stands for.
    pub plants: &'static str,
    /// What it does at the seam of its name, which stands in `src` exactly once.
    pub mistake: Mistake,
    /// The level that must find it.
    pub level: Level,
}

/// All of them.
pub fn bugs() -> Vec<Bug> {
    [
        cleaning::BUGS,
        dedup::BUGS,
        engine::BUGS,
        filters::BUGS,
        bounds::BUGS,
        log::BUGS,
        log_reader::BUGS,
        observer::BUGS,
        notices::BUGS,
        order::BUGS,
        record::BUGS,
        removal::BUGS,
        repair::BUGS,
        schedule::BUGS,
        seek::BUGS,
        scenarios::BUGS,
        state::BUGS,
        streams::BUGS,
        transaction::BUGS,
        unique::BUGS,
    ]
    .concat()
}

/// The package.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_list_fits_the_source() {
    let bugs = bugs();
    assert!(bugs.len() >= 40, "only {} bugs", bugs.len());
    let names: BTreeSet<_> = bugs.iter().map(|bug| bug.name).collect();
    assert_eq!(names.len(), bugs.len(), "two bugs have one name");
    let files = copy::sources();
    let seams: Vec<&str> = files.iter().flat_map(|(_, text)| seam::names(text)).collect();
    assert_eq!(seams.iter().collect::<BTreeSet<_>>().len(), seams.len(), "two seams have one name");
    let mut misfits: Vec<String> =
        seams.iter().filter(|seam| !names.contains(**seam)).map(|seam| format!("{seam}: no bug is planted")).collect();
    for bug in &bugs {
        let Some((_, text)) = files.iter().find(|(_, text)| seam::names(text).any(|name| name == bug.name)) else {
            misfits.push(format!("{}: there is no such seam", bug.name));
            continue;
        };
        match seam::plant(text, bug.name, bug.mistake) {
            Ok(planted) if planted.contains(&format!("crate::planted({:?})", bug.name)) => {}
            Ok(_) => misfits.push(format!("{}: the mistake must sleep until it is named", bug.name)),
            Err(misfit) => misfits.push(misfit),
        }
    }
    let tests: Vec<String> = files.iter().flat_map(|(path, text)| copy::tests(path, text)).collect();
    for bug in &bugs {
        if let Level::Library(filter) = bug.level
            && !tests.iter().any(|test| test.contains(filter))
        {
            misfits.push(format!("{}: no test of the library is named `{filter}`", bug.name));
        }
        if let Level::Test(test, _) = bug.level
            && !copy::TESTS.contains(&test)
        {
            misfits.push(format!("{}: `{test}` is not built for this", bug.name));
        }
    }
    assert!(misfits.is_empty(), "{}", misfits.join("\n"));
}

#[test]
fn every_planted_bug_is_found() {
    if std::env::var_os("MILLPOND_PLANTED").is_none() {
        println!("skipped: MILLPOND_PLANTED is not set, and building the copy takes minutes");
        return;
    }
    let only = std::env::var("MILLPOND_PLANTED_ONLY").unwrap_or_default();
    let is_wanted = |bug: &Bug| only.split(',').any(|part| bug.name.contains(part));
    let wanted = |bugs: Vec<Bug>| bugs.into_iter().filter(is_wanted).collect::<Vec<_>>();
    let (first, again) = (wanted(bugs()), wanted([scenarios::also(), streams::also()].concat()));
    let needs_shuttle = first.iter().chain(&again).any(|bug| matches!(bug.level, Level::Shuttle(_)));
    let built = copy::build(&bugs(), needs_shuttle);
    let began = run::now();
    if only.is_empty() {
        run::nothing_planted(&built);
    }
    let (found, also) = (run::all(&built, &first), run::all(&built, &again));
    let (table, more) = (page::table(&found), page::table(&also));
    let table = format!("{table}\nScenarios and interleavings find some of them too:\n\n{more}");
    println!("{table}");
    let missed: Vec<_> =
        found.iter().chain(&also).filter(|(_, finding)| !finding.is_found()).map(|(bug, _)| bug.name).collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
    counts::note("planted bugs", began.elapsed(), &[("planted", found.len() as u64), ("found", found.len() as u64)]);
    if std::env::var_os("MILLPOND_WRITE_DOCS").is_some() && only.is_empty() {
        std::fs::write(root().join("docs/measured/injected-bugs.md"), page::page(&found, &table)).unwrap();
    }
}

/// Where the copy is made and built.
pub fn target() -> PathBuf {
    root().join("target/planted")
}
