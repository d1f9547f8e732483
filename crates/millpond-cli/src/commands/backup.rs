//! Copies of a whole store.
//!
//! Never here: topics, groups, messages.

use super::look;
use super::verify::bar;
use crate::Failure;
use crate::output::{Done, Printer};
use millpond::Observer;
use serde_json::json;
use std::path::Path;

pub fn backup(observer: &Observer, to: &Path, printer: &mut Printer) -> Done {
    copy(observer, to, ("copying", "backed up to"), printer)
}

pub fn restore(path: &Path, from: &Path, printer: &mut Printer) -> Done {
    let is_empty = std::fs::read_dir(path).map_or(true, |mut entries| entries.next().is_none());
    if !is_empty {
        return Err(Failure::Usage(format!("{} is not empty; restore into a directory of its own", path.display())));
    }
    copy(&look(from)?, path, ("restoring", "restored in"), printer)
}

fn copy(observer: &Observer, to: &Path, (what, done): (&'static str, &str), printer: &mut Printer) -> Done {
    let bar = bar(what);
    let report = observer.backup(to, |done, of| {
        bar.set_length(of);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let report = report?;
    let (to, end, files) = (to.display().to_string(), report.end.0, report.files);
    let (copied, kept) = (report.bytes_copied, report.bytes_kept);
    printer.show(
        || json!({ "to": to, "end": end, "files": files, "bytes_copied": copied, "bytes_kept": kept }),
        || format!("{done} {to}: {files} files, {copied} bytes copied, {kept} bytes were there"),
    )
}
