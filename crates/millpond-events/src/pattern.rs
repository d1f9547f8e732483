//! Patterns of event types: `order.placed`, `order.*`, `order.>`.

use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// Which event types are meant. The words of a type are separated by dots; `*` stands for one word, and `>` at the end for one word or
/// more. `>` alone stands for every type.
///
/// ```
/// # fn main() -> millpond_events::Result<()> {
/// let orders: millpond_events::Pattern = "order.*".parse()?;
/// assert!(orders.matches("order.placed"));
/// assert!(!orders.matches("order") && !orders.matches("order.line.added"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Box<str>);

impl Pattern {
    /// Whether the type is meant.
    #[must_use]
    pub fn matches(&self, event_type: &str) -> bool {
        let mut words = event_type.split('.');
        for wanted in self.0.split('.') {
            match (wanted, words.next()) {
                (_, None) => return false,
                (">", Some(_)) => return true,
                ("*", Some(_)) => {}
                (wanted, Some(word)) if wanted == word => {}
                (_, Some(_)) => return false,
            }
        }
        words.next().is_none()
    }

    /// The pattern's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Pattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let count = text.split('.').count();
        let wrong = text.split('.').enumerate().find_map(|(nth, word)| match word {
            "" => Some("it has an empty word"),
            ">" if nth + 1 < count => Some("`>` stands at the end only"),
            "*" | ">" => None,
            word if word.contains(['*', '>']) => Some("`*` and `>` stand for whole words"),
            _ => None,
        });
        match wrong {
            Some(reason) => Err(Error::InvalidPattern { pattern: text.to_owned(), reason }),
            None => Ok(Self(text.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_words() {
        let matches = |pattern: &str, event_type: &str| pattern.parse::<Pattern>().unwrap().matches(event_type);
        let table = [
            ("order.placed", "order.placed", true),
            ("order.placed", "order.placed.late", false),
            ("order.*", "order.placed", true),
            ("order.*", "order", false),
            ("order.*", "orders.placed", false),
            ("*.placed", "order.placed", true),
            ("order.>", "order.line.added", true),
            ("order.>", "order", false),
            (">", "order", true),
            ("*", "order.placed", false),
            ("order.*.added", "order.line.added", true),
        ];
        for (pattern, event_type, expected) in table {
            assert_eq!(matches(pattern, event_type), expected, "{pattern} {event_type}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["", "order.", ".order", "order..placed", "order.>.placed", "order.pla*", "o>"] {
            assert!(matches!(text.parse::<Pattern>(), Err(Error::InvalidPattern { .. })), "{text}");
        }
    }
}
