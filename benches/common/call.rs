//! How the binary was called: to measure (`cargo bench`) or only to show that it still works (`cargo test`).
//!
//! `cargo bench` passes `--bench`. Without it, or with `--test`, every number shrinks until a run takes about a second.
//! Never here: what runs.

use super::{child, say};
use criterion::Criterion;
use std::process::{Command, ExitCode};
use std::sync::OnceLock;

/// What the command line asks for.
#[derive(Debug, Default)]
struct Call {
    tiny: bool,
    list: bool,
    filters: Vec<String>,
    /// Whether there is an option of the test harness that criterion would refuse.
    foreign: bool,
}

/// Options of the test harness that take a value.
const WITH_VALUE: [&str; 5] = ["--test-threads", "--skip", "--logfile", "--format", "--color"];

fn call() -> &'static Call {
    static CALL: OnceLock<Call> = OnceLock::new();
    CALL.get_or_init(|| parse(std::env::args().skip(1)))
}

fn parse(mut args: impl Iterator<Item = String>) -> Call {
    let (mut bench, mut test) = (false, false);
    let mut call = Call::default();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--bench" => bench = true,
            "--test" => test = true,
            "--list" => call.list = true,
            option if WITH_VALUE.contains(&option) => {
                args.next();
                call.foreign = true;
            }
            option if option.starts_with('-') => call.foreign |= option.contains("test-threads") || option == "-q",
            _ => call.filters.push(arg),
        }
    }
    call.tiny = !bench || test;
    call
}

/// The size of a run: `real` when measuring, `tiny` when only showing that it works.
pub(crate) fn pick<T>(real: T, tiny: T) -> T {
    if is_tiny() { tiny } else { real }
}

/// Whether the run only shows that it works.
pub(crate) fn is_tiny() -> bool {
    call().tiny
}

/// Whether the filters on the command line let `name` run.
pub(crate) fn is_wanted(name: &str) -> bool {
    !call().list && matches_filters(name)
}

fn matches_filters(name: &str) -> bool {
    call().filters.is_empty() || call().filters.iter().any(|filter| name.contains(filter.as_str()))
}

/// Runs a benchmark of criterion's.
pub(crate) fn begin(name: &str, groups: &[fn(&mut Criterion)]) -> ExitCode {
    if child::serve() {
        return ExitCode::SUCCESS;
    }
    if is_tiny() && call().foreign {
        return again_without_options(name);
    }
    warn_of_debug();
    let mut criterion = Criterion::default().configure_from_args();
    groups.iter().for_each(|group| group(&mut criterion));
    if is_tiny() && !call().list {
        say(&format!("{name}: 1 passed, 0 failed"));
    } else {
        criterion.final_summary();
    }
    ExitCode::SUCCESS
}

/// Criterion ends the process at an option that it does not know, such as `--test-threads`.
fn again_without_options(name: &str) -> ExitCode {
    let program = std::env::current_exe().expect("the path of this program");
    let mode = if call().list { "--list" } else { "--test" };
    let status = Command::new(program).arg(mode).args(&call().filters).status();
    if status.expect("run this program again").success() {
        return ExitCode::SUCCESS;
    }
    say(&format!("{name}: 0 passed, 1 failed"));
    ExitCode::FAILURE
}

/// Runs the parts that are wanted, and then `finish`. A part that fails panics.
pub(crate) fn run(parts: &[(&str, &dyn Fn())], finish: impl FnOnce()) -> ExitCode {
    if child::serve() {
        return ExitCode::SUCCESS;
    }
    let wanted = || parts.iter().filter(|(name, _)| matches_filters(name));
    if call().list {
        wanted().for_each(|(name, _)| say(&format!("{name}: test")));
        return ExitCode::SUCCESS;
    }
    warn_of_debug();
    wanted().for_each(|(_, part)| part());
    finish();
    if is_tiny() {
        say(&format!("{} passed, 0 failed", wanted().count()));
    }
    ExitCode::SUCCESS
}

fn warn_of_debug() {
    if cfg!(debug_assertions) && !is_tiny() {
        say("This is not a release build: its figures mean nothing.");
    }
}
