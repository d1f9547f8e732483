//! Seeking: a group goes on from another place.
//!
//! Never here: which places there are.

use super::{confirm, group};
use crate::args::{Place, Seek as Args};
use crate::output::{Done, Printer};
use millpond::{Seek, Sought, Store};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub fn seek(store: &Store, args: &Args, printer: &mut Printer) -> Done {
    let group = group(store, &args.topic, &args.group)?;
    let to = place(args.to);
    let would = group.preview_seek(to)?;
    let name = format!("group {} of topic {}", args.group, args.topic);
    if args.dry_run {
        return printer.show(|| as_json("would_seek", args, would), || format!("{name} would go on: {}", text(would)));
    }
    confirm(&args.sure, &format!("{name} goes on from elsewhere: {}", text(would)))?;
    let sought = group.seek(to)?;
    printer.show(|| as_json("sought", args, sought), || format!("{name} goes on: {}", text(sought)))
}

#[allow(clippy::disallowed_methods, reason = "a person asks, at this time")]
fn place(place: Place) -> Seek {
    match place {
        Place::Earliest => Seek::Earliest,
        Place::Latest => Seek::Latest,
        Place::Position(position) => Seek::Position(position),
        Place::Ago(age) => Seek::Time(SystemTime::now().checked_sub(age).unwrap_or(UNIX_EPOCH)),
        Place::Time(ms) => Seek::Time(UNIX_EPOCH.checked_add(Duration::from_millis(ms)).unwrap_or(UNIX_EPOCH)),
    }
}

fn text(sought: Sought) -> String {
    let Sought { lag_before, lag, leases_lost, missing, .. } = sought;
    let mut text = format!("{lag} messages to settle instead of {lag_before}, {leases_lost} leases lost");
    if missing > 0 {
        text += &format!(", {missing} messages behind the position do not come");
    }
    text
}

fn as_json(what: &str, args: &Args, sought: Sought) -> Value {
    let Sought { lag_before, lag, leases_lost, missing, .. } = sought;
    json!({
        what: args.group, "topic": args.topic, "lag_before": lag_before, "lag": lag, "leases_lost": leases_lost, "missing": missing,
    })
}
