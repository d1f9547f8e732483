//! What a level counted in one run, noted for the page of counts (docs/measured/coverage.md).
//!
//! Nothing is written unless `MILLPOND_COUNTS` names a directory; `.ci/counts` sets it, and makes the page of what it finds there.

use std::path::PathBuf;
use std::time::Duration;

/// Notes what `level` counted: what was counted, and how many.
///
/// One file a level, so that levels may run side by side; a level that runs twice keeps its last run.
pub fn note(level: &str, took: Duration, counted: &[(&str, u64)]) {
    let Some(dir) = std::env::var_os("MILLPOND_COUNTS").map(PathBuf::from) else { return };
    let rows = counted.iter().map(|(what, count)| format!("| {level} | {what} | {count} |\n"));
    let took = format!("| {level} | seconds | {} |\n", took.as_secs());
    std::fs::create_dir_all(&dir).expect("the directory of counts can be made");
    std::fs::write(dir.join(format!("{level}.rows")), rows.chain([took]).collect::<String>())
        .expect("the counts can be written");
}
