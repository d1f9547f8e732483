//! Verifying a store, and printing its log.
//!
//! Never here: mending.

use crate::output::{Done, Failure, Printer};
use crate::text::plain;
use indicatif::{ProgressBar, ProgressStyle};
use millpond::{Corruption, DumpEntry, DumpedRecord, Lsn, Observer};
use serde_json::{Value, json};

/// A bar on the errors, where those are a terminal.
pub fn bar(what: &'static str) -> ProgressBar {
    styled(what, 0, "{msg} {bar:30} {bytes} of {total_bytes}, {eta} left")
}

/// The same, which counts messages.
pub fn message_bar(what: &'static str, messages: u64) -> ProgressBar {
    styled(what, messages, "{msg} {bar:30} {pos} of {len} messages, {eta} left")
}

fn styled(what: &'static str, len: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(len).with_message(what);
    if let Ok(style) = ProgressStyle::with_template(template) { bar.with_style(style) } else { bar }
}

pub fn verify(observer: &Observer, printer: &mut Printer) -> Done {
    let bar = bar("verifying");
    let report = observer.verify(|progress| {
        bar.set_length(progress.of);
        bar.set_position(progress.done);
    });
    bar.finish_and_clear();
    let report = report?;
    for finding in &report.findings {
        printer.show(|| finding_json(finding), || plain(&finding.to_string()))?;
    }
    let count = report.findings.len();
    printer.show(
        || {
            json!({ "end": report.end.0, "files": report.files, "bytes": report.bytes, "frames": report.frames, "records": report.records,
                "indexes": report.indexes, "checkpoint_replayed": report.checkpoint_replayed, "findings": count })
        },
        || {
            let checkpoint = if report.checkpoint_replayed { ", checkpoint replayed" } else { "" };
            format!(
                "{} frames with {} records in {} files, {} bytes, {} indexes compared{checkpoint}: {}",
                report.frames,
                report.records,
                report.files,
                report.bytes,
                report.indexes,
                if count == 0 { "nothing is wrong".to_owned() } else { format!("{count} findings") }
            )
        },
    )?;
    printer.flush()?;
    if count == 0 { Ok(()) } else { Err(Failure::Damaged(format!("the store is damaged: {count} findings"))) }
}

pub fn finding_json(finding: &Corruption) -> Value {
    let lsns = finding.lsns.map(|(from, to)| json!([from.0, to.0]));
    json!({ "file": finding.file, "offset": finding.offset, "lsns": lsns, "reason": finding.reason })
}

/// As JSON, whatever the output is to be.
pub fn dump(observer: &Observer, from: u64, max: u64, printer: &mut Printer) -> Done {
    let (mut left, mut done) = (max, Ok(()));
    observer.dump(Lsn(from), |entry| {
        if left == 0 {
            return false;
        }
        left -= 1;
        done = printer.bytes(format!("{}\n", entry_json(&entry)).as_bytes());
        done.is_ok()
    })?;
    done
}

fn entry_json(entry: &DumpEntry) -> Value {
    match entry {
        DumpEntry::Frame(frame) => json!({
            "file": frame.file, "offset": frame.offset, "len": frame.len, "lsn": frame.lsn.0, "epoch": frame.epoch.map(|epoch| epoch.0),
            "watermark": frame.watermark.map(|watermark| watermark.0), "messages": frame.messages,
            "records": frame.records.iter().map(record_json).collect::<Vec<_>>(),
        }),
        DumpEntry::Damage { file, offset } => json!({ "file": file, "offset": offset, "damage": true }),
        // A later version of the engine may know more.
        other => json!({ "unknown": format!("{other:?}") }),
    }
}

fn record_json(record: &DumpedRecord) -> Value {
    json!({ "kind": record.kind, "len": record.len, "text": record.text })
}
