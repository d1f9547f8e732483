//! Repairing a store that does not open.
//!
//! Never here: what is kept.

use super::confirm;
use crate::args::Change;
use crate::output::{Done, Printer};
use crate::text::plain;
use millpond::{LostLog, LostMessages, RepairReport, Store};
use serde_json::{Value, json};
use std::path::Path;

pub fn repair(path: &Path, change: &Change, printer: &mut Printer) -> Done {
    let plan = Store::options().plan_repair(path)?;
    let Some(damage) = &plan.damage else {
        return printer.show(|| as_json(&plan), || "the store opens: there is nothing to be repaired".to_owned());
    };
    if change.dry_run {
        return tell(&plan, printer);
    }
    let lost: u64 = plan.lost_messages.iter().map(|lost| lost.count).sum();
    let known = format!("{} stretches of the log are lost, {lost} messages at least", plan.lost.len());
    confirm(&change.sure, &format!("{damage}; repair the store: {known}"))?;
    tell(&Store::options().repair(path)?, printer)
}

fn tell(report: &RepairReport, printer: &mut Printer) -> Done {
    printer.show(|| as_json(report), || plain_text(report))
}

fn plain_text(report: &RepairReport) -> String {
    let damage = report.damage.as_ref().map(|damage| plain(&damage.to_string()));
    let log = report.lost.iter().map(|lost| {
        let of = lost.file.as_deref().map_or_else(|| "in no file".to_owned(), |file| format!("in {file}"));
        format!("lost: LSN {} to {}, {of}", lost.from, lost.to)
    });
    let messages = report.lost_messages.iter().map(|lost| {
        let of = lost.group.as_ref().map_or_else(String::new, |group| format!(", group {}", plain(group)));
        let (topic, last) = (plain(&lost.topic), lost.offset + (lost.count - 1));
        format!("lost: messages {} to {last} of partition {} of topic {topic}{of}", lost.offset, lost.partition)
    });
    let more = [
        (report.lost_records > 0).then(|| format!("{} records say something of what is lost", report.lost_records)),
        report.is_end_lost.then(|| "the end of the log is lost: nothing tells what it held".to_owned()),
        report.are_names_lost.then(|| "streams are not found under their names any more".to_owned()),
    ];
    let copies = report.copies.iter().map(|copy| format!("the damaged file is kept as {copy}"));
    let lines = damage.into_iter().chain(log).chain(messages).chain(more.into_iter().flatten()).chain(copies);
    lines.collect::<Vec<_>>().join("\n")
}

fn as_json(report: &RepairReport) -> Value {
    let log = |LostLog { from, to, file, .. }: &LostLog| json!({ "from": from.0, "to": to.0, "file": file });
    let messages = |LostMessages { topic, group, partition, offset, count, .. }: &LostMessages| json!({ "topic": topic, "group": group, "partition": partition, "offset": offset, "count": count });
    json!({
        "damage": report.damage.as_ref().map(super::verify::finding_json),
        "lost": report.lost.iter().map(log).collect::<Vec<_>>(),
        "lost_messages": report.lost_messages.iter().map(messages).collect::<Vec<_>>(),
        "lost_records": report.lost_records,
        "is_end_lost": report.is_end_lost,
        "are_names_lost": report.are_names_lost,
        "copies": report.copies,
    })
}
