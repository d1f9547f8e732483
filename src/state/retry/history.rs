//! What happened to an outstanding message: its last attempts, with the texts of their errors under a group's byte cap.
//!
//! Never here: which attempt is counted.

use crate::ids::Offset;
use crate::limits::{ERROR_TEXT_LEN_MAX, HISTORY_LEN, HISTORY_TEXT_BYTES_MAX};
use crate::record::{AttemptFailure, FailureCounts};
use crate::state::group::GroupState;
use crate::state::lease::OutstandingEntry;
use std::collections::BTreeMap;

/// The last attempts of a message, oldest first: at most [`HISTORY_LEN`].
#[derive(Clone, Debug, Default)]
pub(in crate::state) struct History {
    pub(in crate::state) past: Vec<Past>,
    /// Those before.
    pub(in crate::state) earlier: FailureCounts,
}

/// An attempt that failed.
#[derive(Clone, Debug)]
pub(in crate::state) struct Past {
    pub(in crate::state) failure: AttemptFailure,
    /// When its text came to the group, by the group's own count; zero where there is no text.
    pub(in crate::state) turn: u64,
}

impl History {
    /// The failures that a copy of the message takes with it, ending with `last`, and the counts of those before.
    pub(in crate::state) fn with(
        history: Option<&Self>,
        last: Option<AttemptFailure>,
    ) -> (Vec<AttemptFailure>, FailureCounts) {
        let (past, earlier) = history.map_or((&[][..], FailureCounts::default()), |all| (&all.past[..], all.earlier));
        let room = HISTORY_LEN - usize::from(last.is_some());
        let (dropped, kept) = past.split_at(past.len().saturating_sub(room));
        let earlier = earlier.with(dropped.iter().map(|past| &past.failure));
        (kept.iter().map(|past| past.failure.clone()).chain(last).collect(), earlier)
    }

    /// How often attempts ended in each way.
    fn counts(&self) -> FailureCounts {
        self.earlier.with(self.past.iter().map(|past| &past.failure))
    }
}

/// The texts of all outstanding messages of a group.
#[derive(Clone, Debug, Default)]
pub(in crate::state) struct Texts {
    /// By age: which message has the text that came at a turn.
    pub(in crate::state) order: BTreeMap<u64, (u32, Offset)>,
    pub(in crate::state) bytes: usize,
    /// How many failures the histories have, with texts or without.
    pub(in crate::state) failures: usize,
}

impl Texts {
    /// Adds a failure to a message's history. The caller then makes room while [`Texts::is_over`].
    pub(in crate::state) fn add(
        &mut self,
        at: (u32, Offset),
        history: &mut History,
        failure: AttemptFailure,
        turn: u64,
    ) {
        if history.past.len() >= HISTORY_LEN {
            let oldest = history.past.remove(0);
            history.earlier.add(oldest.failure.cause);
            self.failures -= 1;
            self.forget_one(&oldest);
        }
        let has_text = !failure.text.is_empty();
        if has_text {
            self.order.insert(turn, at);
            self.bytes += failure.text.len();
        }
        self.failures += 1;
        history.past.push(Past { failure, turn: if has_text { turn } else { 0 } });
    }

    /// Enters the texts of a restored message; `None` if two came at one turn.
    pub(in crate::state) fn enter(&mut self, at: (u32, Offset), history: Option<&History>) -> Option<()> {
        self.failures += history.map_or(0, |history| history.past.len());
        for past in history.iter().flat_map(|history| &history.past) {
            if !past.failure.text.is_empty() {
                self.bytes += past.failure.text.len();
                if self.order.insert(past.turn, at).is_some() {
                    return None;
                }
            }
        }
        Some(())
    }

    /// Forgets the texts of a message that is settled.
    pub(in crate::state) fn forget(&mut self, history: &History) {
        self.failures -= history.past.len();
        for past in &history.past {
            self.forget_one(past);
        }
    }

    fn forget_one(&mut self, past: &Past) {
        if !past.failure.text.is_empty() {
            self.order.remove(&past.turn);
            self.bytes -= past.failure.text.len();
        }
    }

    pub(in crate::state) fn is_over(&self) -> bool {
        self.bytes > HISTORY_TEXT_BYTES_MAX
    }

    /// Takes the oldest text from the books and says whose it is, and which: the caller blanks it with [`Texts::blank`].
    pub(in crate::state) fn drop_oldest(&mut self) -> Option<(u64, (u32, Offset))> {
        self.order.pop_first()
    }

    /// Blanks the text that came at `turn`.
    pub(in crate::state) fn blank(&mut self, history: &mut History, turn: u64) {
        let found = history.past.iter_mut().find(|past| past.turn == turn && !past.failure.text.is_empty());
        if let Some(past) = found {
            self.bytes -= past.failure.text.len();
            past.failure.text = Box::default();
            past.turn = 0;
        }
    }
}

impl GroupState {
    /// What a copy of the message takes with it when it goes to the dead letters for `last`, or for what is in its account.
    pub(in crate::state) fn failures(
        entry: &OutstandingEntry,
        last: Option<AttemptFailure>,
    ) -> (Vec<AttemptFailure>, FailureCounts) {
        History::with(entry.history.as_deref(), last)
    }

    /// Whether a nack of the leased message now would be its last.
    pub(in crate::state) fn is_last_nack(&self, entry: &OutstandingEntry) -> bool {
        let max = self.options.max_nacks;
        // seam: a limit of nacks is not kept
        entry.is_spent() || max != 0 && entry.counts().nacks.saturating_add(1) >= max
    }
}

impl OutstandingEntry {
    /// How often attempts on it ended in each way. A lease that ended by its timeout counts once the message is leased again.
    pub(in crate::state) fn counts(&self) -> FailureCounts {
        self.history.as_deref().map_or_else(FailureCounts::default, History::counts)
    }

    /// Whether a lease that it gets now is the last to end by its timeout. 0: there is no limit.
    pub(in crate::state) fn is_last_expiry(&self, max_expiries: u32) -> bool {
        max_expiries != 0 && self.counts().expiries.saturating_add(1) >= max_expiries
    }
}

/// As much of an error's text as a history keeps.
pub(crate) fn capped(text: &str) -> &str {
    let mut len = text.len().min(ERROR_TEXT_LEN_MAX);
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    &text[..len]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        let long = format!("{}é", "x".repeat(ERROR_TEXT_LEN_MAX - 1));
        assert_eq!(capped(&long), "x".repeat(ERROR_TEXT_LEN_MAX - 1));
        let exact = "é".repeat(ERROR_TEXT_LEN_MAX / 2);
        assert_eq!(capped(&format!("{exact}é")), exact);
        assert_eq!(capped(""), "");
    }
}
