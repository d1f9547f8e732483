//! Dead letters: which there are, and what becomes of them.
//!
//! Never here: how a message became one.

use super::{confirm, group};
use crate::args::{Cause as CauseName, Change, Which};
use crate::output::{Done, Failure, Printer};
use crate::text::{message, millis, plain, short};
use millpond::{Cause, DeadLetter, Error, Group, MessageId, MessageState, Observer, Peeked, Store};
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::time::SystemTime;

/// A dead letter, whether it may be changed or only looked at.
trait Letter {
    fn id(&self) -> MessageId;
    fn origin(&self) -> MessageId;
    fn attempts(&self) -> u32;
    fn history(&self) -> &[millpond::Failure];
    fn key(&self) -> Option<&[u8]>;
    fn headers(&self) -> Vec<(&str, &[u8])>;
    fn timestamp(&self) -> SystemTime;
    fn payload(&self) -> &[u8];
}

macro_rules! letters {
    ($($kind:ty),*) => {
        $(impl Letter for $kind {
            fn id(&self) -> MessageId {
                self.id()
            }
            fn origin(&self) -> MessageId {
                self.origin()
            }
            fn attempts(&self) -> u32 {
                self.attempts()
            }
            fn history(&self) -> &[millpond::Failure] {
                self.history()
            }
            fn key(&self) -> Option<&[u8]> {
                self.key()
            }
            fn headers(&self) -> Vec<(&str, &[u8])> {
                self.headers().collect()
            }
            fn timestamp(&self) -> SystemTime {
                self.timestamp()
            }
            fn payload(&self) -> &[u8] {
                self.payload()
            }
        })*
    };
}

letters!(DeadLetter, Peeked);

pub fn list(observer: &Observer, which: &Which, printer: &mut Printer) -> Done {
    let wanted = Wanted::new(which)?;
    let mut rows = Vec::new();
    for letter in observer.peek(&which.topic, &which.group, MessageState::Dead, usize::MAX)? {
        let letter = letter?;
        if !wanted.is(&letter) {
            continue;
        }
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

pub fn show(observer: &Observer, (topic, group, id): (&str, &str, &str), printer: &mut Printer) -> Done {
    let wanted = parsed(id)?;
    for letter in observer.peek(topic, group, MessageState::Dead, usize::MAX)? {
        let letter = letter?;
        if letter.id() == wanted {
            return printer.show(|| as_json(&letter), || whole(&letter));
        }
    }
    Err(Failure::Missing(format!("no dead letter {id} in group {group:?} of topic {topic:?}")))
}

pub fn redrive(store: &Store, which: &Which, change: &Change, printer: &mut Printer) -> Done {
    act(store, which, change, ("redrive", "redriven"), DeadLetter::redrive, printer)
}

pub fn discard(store: &Store, which: &Which, change: &Change, printer: &mut Printer) -> Done {
    act(store, which, change, ("discard", "discarded"), DeadLetter::discard, printer)
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

/// What a dead letter must have to be meant.
struct Wanted<'a> {
    which: &'a Which,
    id: Option<MessageId>,
    now: SystemTime,
}

impl<'a> Wanted<'a> {
    #[allow(clippy::disallowed_methods, reason = "a person asks, at this time")]
    fn new(which: &'a Which) -> Done<Self> {
        Ok(Self { which, id: which.id.as_deref().map(parsed).transpose()?, now: SystemTime::now() })
    }

    fn is(&self, letter: &impl Letter) -> bool {
        let has = |bytes: &[u8], text: &str| {
            bytes.windows(text.len().max(1)).any(|part| part == text.as_bytes()) || text.is_empty()
        };
        let (which, last) = (self.which, letter.history().last());
        let age = last.map(|failure| self.now.duration_since(failure.time).unwrap_or_default());
        self.id.is_none_or(|id| letter.id() == id || letter.origin() == id)
            && which.key.as_ref().is_none_or(|key| letter.key() == Some(key.as_bytes()))
            && which.cause.is_none_or(|cause| last.is_some_and(|failure| failure.cause == cause_of(cause)))
            && which.older.is_none_or(|older| age.is_some_and(|age| age > older))
            && which.newer.is_none_or(|newer| age.is_some_and(|age| age <= newer))
            && which.text.as_ref().is_none_or(|text| {
                has(letter.payload(), text) || last.is_some_and(|failure| has(failure.text.as_bytes(), text))
            })
    }
}

fn chosen(group: &Group, which: &Which) -> Done<Vec<DeadLetter>> {
    let wanted = Wanted::new(which)?;
    let mut found = Vec::new();
    for letter in group.dead_letters()? {
        let letter = letter?;
        if wanted.is(&letter) {
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

pub fn cause_name(cause: Cause) -> &'static str {
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

pub fn peeked_json(message: &Peeked) -> Value {
    as_json(message)
}

fn as_json(letter: &impl Letter) -> Value {
    let failure = |failure: &millpond::Failure| json!({ "cause": cause_name(failure.cause), "time_ms": millis(failure.time), "text": failure.text });
    let history: Vec<Value> = letter.history().iter().map(failure).collect();
    let more = json!({ "id": letter.id().to_string(), "origin": letter.origin().to_string(), "attempts": letter.attempts(), "history": history });
    message(more, letter.key(), letter.headers().into_iter(), letter.timestamp(), letter.payload())
}

fn whole(letter: &impl Letter) -> String {
    let mut lines = vec![
        format!("id        {}", letter.id()),
        format!("origin    {}", letter.origin()),
        format!("attempts  {}", letter.attempts()),
    ];
    lines.extend(letter.key().map(|key| format!("key       {}", short(key))));
    lines.extend(
        letter.headers().into_iter().map(|(name, value)| format!("header    {}: {}", plain(name), short(value))),
    );
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
