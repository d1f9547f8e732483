//! A test binary that runs itself as another process, which speaks in lines.
//!
//! The child's body is a test of the including binary that returns at once unless [`TASK`] is set.

#![allow(dead_code, reason = "each test that includes this uses some of it")]

use std::fmt::Display;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

const TASK: &str = "MILLPOND_CHILD_TASK";
const DIR: &str = "MILLPOND_CHILD_DIR";

/// In a child: what it is to do, and where.
pub(crate) fn task() -> Option<(String, PathBuf)> {
    Some((std::env::var(TASK).ok()?, std::env::var_os(DIR)?.into()))
}

/// The command that runs the test `body` of this binary as a child; a test of this name at the root of the crate.
pub(crate) fn command(body: &str, task: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this binary has a path"));
    command.args([body, "--exact", "--nocapture", "--quiet", "--test-threads=1"]);
    command.env(TASK, task).env(DIR, dir).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// Runs the child to its end and lets the caller hear each whole line.
pub(crate) fn run(mut command: Command, mut hear: impl FnMut(&str)) -> ExitStatus {
    let mut child = command.spawn().expect("the child starts");
    let mut stdout = BufReader::new(child.stdout.take().expect("it was piped"));
    let mut line = String::new();
    while stdout.read_line(&mut line).is_ok() && line.ends_with('\n') {
        hear(line.trim_end());
        line.clear();
    }
    child.wait().expect("it can be waited for")
}

/// In a child: one line to the parent, in one write.
pub(crate) fn say(line: impl Display) {
    let line = format!("{line}\n");
    if std::io::stdout().lock().write_all(line.as_bytes()).is_err() {
        // Nobody listens any more.
        std::process::exit(0);
    }
}

/// In a child: a panic in a thread would end that thread only.
pub(crate) fn must<T, E: Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| {
        drop(writeln!(std::io::stderr(), "the child gives up: {error}"));
        std::process::exit(3)
    })
}

/// In a child: a death that the parent wants leaves no core file.
pub(crate) fn leave_no_core() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    must(setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }));
}
