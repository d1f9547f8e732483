//! How long this disk takes to make bytes durable.
//!
//! Never here: a store; the file that is measured lies beside one and is removed.

#![allow(clippy::disallowed_methods, reason = "a person waits here, by no simulated clock")]

use crate::output::{Done, Failure, Printer};
use serde_json::json;
use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// A disk that is faster keeps nothing over a power failure, or has a cache with a battery.
const TOO_GOOD: Duration = Duration::from_micros(20);

pub fn probe(path: &Path, syncs: u32, printer: &mut Printer) -> Done {
    let failed = |what: &str| {
        let what = format!("could not {what} in {}", path.display());
        move |error| Failure::Io(what, error)
    };
    let name = path.join(format!(".millpond-probe-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).open(&name).map_err(failed("create a file"))?;
    // It has no name any more: nothing is left of it, however this ends.
    fs::remove_file(&name).map_err(failed("remove a file"))?;
    let mut times = Vec::new();
    let measured = (|| {
        file.write_all(&[0; 64 << 10])?;
        file.sync_all()?;
        for nth in 0..syncs {
            file.seek(SeekFrom::Start(u64::from(nth % 16) * 4096))?;
            file.write_all(&[nth as u8; 4096])?;
            let began = Instant::now();
            file.sync_data()?;
            times.push(began.elapsed());
        }
        Ok(())
    })();
    measured.map_err(failed("write"))?;
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    let (median, p99, max) = (at(50), at(99), at(100));
    let suspicious = median < TOO_GOOD;
    printer.show(
        || json!({ "syncs": syncs, "median_us": median.as_micros() as u64, "p99_us": p99.as_micros() as u64, "max_us": max.as_micros() as u64, "too_good": suspicious }),
        || format!("{syncs} syncs of 4 KiB: median {median:?}, 99 of 100 within {p99:?}, longest {max:?}"),
    )?;
    if suspicious && !printer.is_json() {
        return printer.show(
            || json!(null),
            || "This is too good to be true for a disk: it may keep nothing over a power failure.".to_owned(),
        );
    }
    Ok(())
}
