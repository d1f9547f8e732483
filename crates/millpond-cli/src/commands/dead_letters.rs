//! Dead letters: which there are, and what becomes of them.
//!
//! Never here: how a message became one.

use super::{confirm, group};
use crate::args::{Cause as CauseName, Change, DeadLetters, Which};
use crate::output::{Done, Failure, Printer};
use crate::text::{message, millis, plain, short};
use millpond::{Cause, DeadLetter, Error, Group, MessageId, Store};
use serde_json::{Value, json};
use std::io::IsTerminal;

pub fn dead_letters(store: &Store, command: DeadLetters, printer: &mut Printer) -> Done {
    match command {
        DeadLetters::List { which } => {
            let group = group(store, &which.topic, &which.group)?;
            let mut rows = Vec::new();
            for letter in chosen(&group, &which)? {
                let last = letter.history().last();
                let row = vec![
                    letter.id().to_string(),
                    letter.attempts().to_string(),
                    last.map_or("-", |failure| cause_name(failure.cause)).to_owned(),
                    last.map(|failure| short(failure.text.as_bytes())).unwrap_or_default(),
                    short(letter.payload()),
                ];
                rows.push((row, as_json(&letter)));
            }
            printer.table(&["ID", "ATTEMPTS", "CAUSE", "LAST ERROR", "PAYLOAD"], rows)
        }
        DeadLetters::Show { topic, group: name, id } => {
            let group = group(store, &topic, &name)?;
            let missing = || Failure::Missing(format!("no dead letter {id} in group {name:?} of topic {topic:?}"));
            let letter = group.dead_letter(parsed(&id)?)?.ok_or_else(missing)?;
            printer.show(|| as_json(&letter), || whole(&letter))
        }
        DeadLetters::Redrive { which, change } => {
            act(store, &which, &change, ("redrive", "redriven"), DeadLetter::redrive, printer)
        }
        DeadLetters::Discard { which, change } => {
            act(store, &which, &change, ("discard", "discarded"), DeadLetter::discard, printer)
        }
    }
}

/// Does the same with all that are chosen, which are looked for before anything is changed.
fn act(
    store: &Store,
    which: &Which,
    change: &Change,
    (verb, done): (&str, &str),
    each: impl Fn(DeadLetter) -> millpond::Result<()>,
    printer: &mut Printer,
) -> Done {
    let group = group(store, &which.topic, &which.group)?;
    let letters = chosen(&group, which)?;
    if let Some(id) = which.id.as_ref().filter(|_| letters.is_empty()) {
        return Err(Failure::Missing(format!("no dead letter {id} in group {:?} that is meant", group.name())));
    }
    let (count, all) = (letters.len(), group.dead_letters()?.count());
    if change.dry_run {
        for letter in &letters {
            printer.show(|| as_json(letter), || format!("{}  {}", letter.id(), short(letter.payload())))?;
        }
        return printer
            .show(|| json!({ "would": verb, "count": count, "of": all }), || format!("would {verb} {count} of {all}"));
    }
    if count > 0 {
        confirm(&change.sure, &format!("{verb} {count} of {all} dead letters of group {}", group.name()))?;
    }
    let mut made = 0;
    for letter in letters {
        match each(letter) {
            Ok(()) => made += 1,
            // Somebody else was first.
            Err(Error::NoSuchDeadLetter { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let left = group.dead_letters()?.count();
    printer.show(|| json!({ done: made, "left": left }), || format!("{done} {made}, {left} left"))
}

fn chosen(group: &Group, which: &Which) -> Done<Vec<DeadLetter>> {
    let id = which.id.as_deref().map(parsed).transpose()?;
    let has = |bytes: &[u8], text: &str| {
        bytes.windows(text.len().max(1)).any(|part| part == text.as_bytes()) || text.is_empty()
    };
    let wanted = |letter: &DeadLetter| {
        let last = letter.history().last();
        id.is_none_or(|id| letter.id() == id || letter.origin() == id)
            && which.key.as_ref().is_none_or(|key| letter.key() == Some(key.as_bytes()))
            && which.cause.is_none_or(|cause| last.is_some_and(|failure| failure.cause == cause_of(cause)))
            && which.text.as_ref().is_none_or(|text| {
                has(letter.payload(), text) || last.is_some_and(|failure| has(failure.text.as_bytes(), text))
            })
    };
    let mut found = Vec::new();
    for letter in group.dead_letters()? {
        let letter = letter?;
        if wanted(&letter) {
            found.push(letter);
        }
    }
    Ok(found)
}

fn parsed(id: &str) -> Done<MessageId> {
    id.parse().map_err(|error| Failure::Usage(format!("{id:?}: {error}")))
}

fn cause_of(cause: CauseName) -> Cause {
    match cause {
        CauseName::Nacked => Cause::Nacked,
        CauseName::Expired => Cause::Expired,
        CauseName::Crashed => Cause::Crashed,
        CauseName::Closed => Cause::Closed,
        CauseName::Rejected => Cause::Rejected,
    }
}

fn cause_name(cause: Cause) -> &'static str {
    match cause {
        Cause::Nacked => "nacked",
        Cause::Expired => "expired",
        Cause::Crashed => "crashed",
        Cause::Closed => "closed",
        Cause::Rejected => "rejected",
        // A later version of the engine may know more.
        _ => "other",
    }
}

fn as_json(letter: &DeadLetter) -> Value {
    let failure = |failure: &millpond::Failure| json!({ "cause": cause_name(failure.cause), "time_ms": millis(failure.time), "text": failure.text });
    let history: Vec<Value> = letter.history().iter().map(failure).collect();
    let more = json!({ "id": letter.id().to_string(), "origin": letter.origin().to_string(), "attempts": letter.attempts(), "history": history });
    message(more, letter.key(), letter.headers(), letter.timestamp(), letter.payload())
}

fn whole(letter: &DeadLetter) -> String {
    let mut lines = vec![
        format!("id        {}", letter.id()),
        format!("origin    {}", letter.origin()),
        format!("attempts  {}", letter.attempts()),
    ];
    lines.extend(letter.key().map(|key| format!("key       {}", short(key))));
    lines.extend(letter.headers().map(|(name, value)| format!("header    {}: {}", plain(name), short(value))));
    lines.extend(letter.history().iter().map(|failure| {
        format!(
            "attempt   {} at {} ms: {}",
            cause_name(failure.cause),
            millis(failure.time),
            short(failure.text.as_bytes())
        )
    }));
    // As it is, but for a terminal.
    let payload = String::from_utf8_lossy(letter.payload()).into_owned();
    lines.push(format!("\n{}", if std::io::stdout().is_terminal() { plain(&payload) } else { payload }));
    lines.join("\n")
}
