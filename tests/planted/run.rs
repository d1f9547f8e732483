//! Running the copy's tests with one bug awake, or none.

use crate::copy::Built;
use crate::seam::Mistake;
use crate::{Bug, Level};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How many cases of the simulation may be needed to find a bug.
pub const CASES: u64 = 20_000;
/// How long one run may take. One that takes longer hangs, also where two cores run five things at once, and found nothing.
const LIMIT: Duration = Duration::from_secs(1800);

/// What a run with a bug gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The simulation failed in its case of this number.
    Case(u64),
    /// A test failed.
    Failed,
    /// The process died.
    Died,
    /// All went well: the level did not find it.
    Missed,
    TooLong,
}

impl Finding {
    pub fn is_found(self) -> bool {
        matches!(self, Self::Case(_) | Self::Failed | Self::Died)
    }
}

#[allow(clippy::disallowed_methods, reason = "how long a run took is noted beside its counts, and decides nothing")]
pub fn now() -> Instant {
    Instant::now()
}

/// With no bug awake the copy must be as good as the original.
pub fn nothing_planted(built: &Built) {
    let levels = [
        Level::Simulation,
        Level::Model,
        Level::Library("log::"),
        Level::Library("state::"),
        Level::Test("kinds", ""),
        Level::Test("scenarios", ""),
        Level::Shuttle("streams"),
    ];
    let sound: Vec<Bug> = levels.into_iter().map(|level| Bug { level, ..NONE }).collect();
    for (bug, finding) in all(built, &sound) {
        assert_eq!(finding, Finding::Missed, "the copy without a bug fails {:?}", bug.level);
    }
}

const NONE: Bug = Bug { name: "", plants: "", mistake: Mistake::Skip, level: Level::Simulation };

/// Runs each bug at its level, two at a time.
pub fn all(built: &Built, bugs: &[Bug]) -> Vec<(Bug, Finding)> {
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(bug) = bugs.get(index) else { return };
                    let finding = one(built, bug);
                    println!("{finding:?}: {}", bug.name);
                    found.lock().unwrap().push((index, *bug, finding));
                }
            });
        }
    });
    let mut found = found.into_inner().unwrap();
    found.sort_by_key(|(index, ..)| *index);
    found.into_iter().map(|(_, bug, finding)| (bug, finding)).collect()
}

fn one(built: &Built, bug: &Bug) -> Finding {
    let (binary, filter): (&Path, &str) = match bug.level {
        Level::Simulation => (&built.tests["simulation"], "nothing_promised_is_lost_in_random_histories"),
        Level::Model => (&built.tests["model"], "go_as_the_reference_says"),
        Level::Library(filter) => (&built.library, filter),
        Level::Test(test, filter) => (&built.tests[test], filter),
        Level::Shuttle(filter) => (built.shuttle.as_ref().expect("it was built"), filter),
    };
    let mut command = Command::new(binary);
    // The default seeds, in order, so that every run finds the same case.
    for variable in [
        "MILLPOND_COUNTS",
        "MILLPOND_SIM_SEED",
        "MILLPOND_SIM_FROM",
        "MILLPOND_MODEL_SEED",
        "MILLPOND_SHUTTLE",
        "MILLPOND_SHUTTLE_SEED",
    ] {
        command.env_remove(variable);
    }
    command
        .args([filter, "--nocapture"])
        .env("MILLPOND_PLANTED_BUG", bug.name)
        .env("MILLPOND_SIM_CASES", CASES.to_string())
        .env("MILLPOND_SIM_THREADS", "1")
        .env("MILLPOND_SIM_SHRINK", "0")
        .env("RUST_BACKTRACE", "0")
        .current_dir(crate::target().join("source"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let (send, said) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        let _ = stdout.read_to_string(&mut text);
        let _ = send.send(text);
    });
    let Ok(text) = said.recv_timeout(LIMIT) else {
        child.kill().unwrap();
        child.wait().unwrap();
        return Finding::TooLong;
    };
    let status = child.wait().unwrap();
    let case = text.split_once("case number ").and_then(|(_, rest)| rest.split_once(' ')?.0.parse().ok());
    match (status.code(), case, bug.level) {
        (Some(0), ..) => Finding::Missed,
        (None, ..) => Finding::Died,
        (_, Some(case), Level::Simulation) => Finding::Case(case),
        // A run that met too little has not found anything.
        (_, None, Level::Simulation) => Finding::Missed,
        _ => Finding::Failed,
    }
}
