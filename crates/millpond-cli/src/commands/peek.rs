//! Messages of a group by what they wait for.
//!
//! Never here: a change.

#![allow(clippy::disallowed_methods, reason = "a person asks, at this time")]

use super::dead_letters::{cause_name, peeked_json};
use crate::args::{Peek, StateName};
use crate::output::{Done, Printer};
use crate::text::{short, since};
use millpond::{MessageState, Observer};
use std::time::SystemTime;

pub fn peek(observer: &Observer, args: &Peek, printer: &mut Printer) -> Done {
    let state = match args.state {
        StateName::Ready => MessageState::Ready,
        StateName::Leased => MessageState::Leased,
        StateName::Waiting => MessageState::Waiting,
        StateName::Exhausted => MessageState::Exhausted,
        StateName::Parked => MessageState::Parked,
        StateName::Dead => MessageState::Dead,
    };
    let (mut rows, now) = (Vec::new(), SystemTime::now());
    for message in observer.peek(&args.topic, &args.group, state, args.max)? {
        let message = message?;
        let last = message.history().last();
        let row = vec![
            message.id().to_string(),
            message.attempts().to_string(),
            since(message.timestamp(), now),
            last.map_or("-", |failure| cause_name(failure.cause)).to_owned(),
            last.map(|failure| short(failure.text.as_bytes())).unwrap_or_default(),
            short(message.payload()),
        ];
        rows.push((row, peeked_json(&message)));
    }
    printer.table(&["ID", "ATTEMPTS", "AGE", "CAUSE", "LAST ERROR", "PAYLOAD"], rows)
}
