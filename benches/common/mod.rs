//! What all benchmarks share: how the binary was called, where its data goes, and stores to run on.
//!
//! Printing and reading the time are allowed here and nowhere else in the benchmarks. Never here: what is measured.

#![allow(dead_code, reason = "each benchmark uses its part")]
#![allow(clippy::print_stdout, reason = "a benchmark reports on its standard output")]
#![allow(clippy::disallowed_methods, reason = "the library reads time in one place; a benchmark may")]

pub(crate) mod call;
pub(crate) mod child;
pub(crate) mod floor;
pub(crate) mod machine;
pub(crate) mod pace;
pub(crate) mod pond;
pub(crate) mod table;
pub(crate) mod wrap;
pub(crate) mod yard;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(crate) use call::pick;

/// The moment. The one way to it, so that the library's ban on reading clocks needs one exception only.
#[inline]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Prints a line.
pub(crate) fn say(line: &str) {
    println!("{line}");
}

/// Lets time pass, where a benchmark has to wait for a background job that tells nobody when it is done.
pub(crate) fn rest(duration: Duration) {
    std::thread::sleep(duration);
}

/// How long `work` takes.
pub(crate) fn time(work: impl FnOnce()) -> Duration {
    let start = now();
    work();
    start.elapsed()
}

/// Nanoseconds for each of `count`.
pub(crate) fn ns_each(elapsed: Duration, count: u64) -> f64 {
    elapsed.as_nanos() as f64 / count.max(1) as f64
}

/// How many of `count` a second.
pub(crate) fn per_second(elapsed: Duration, count: u64) -> f64 {
    count as f64 / elapsed.as_secs_f64().max(1e-9)
}

/// The middle value. Of an even number the lower of the two in the middle.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    assert!(!values.is_empty(), "a median needs a value");
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

/// A directory for the data of one benchmark, removed at the end: below `MILLPOND_BENCH_DIR`, or else below the system's
/// directory for temporary files.
pub(crate) struct Arena {
    directory: tempfile::TempDir,
    given: Cell<u32>,
}

impl Arena {
    pub(crate) fn new() -> Self {
        let base = std::env::var_os("MILLPOND_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let directory = tempfile::Builder::new().prefix("millpond-bench-").tempdir_in(base);
        Self { directory: directory.expect("a directory for the data"), given: Cell::new(0) }
    }

    /// A path that nothing has used yet.
    pub(crate) fn fresh(&self) -> PathBuf {
        self.given.set(self.given.get() + 1);
        self.directory.path().join(self.given.get().to_string())
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}
