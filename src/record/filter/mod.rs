//! Filters of groups: which messages a group wants, by their headers.
//!
//! A filter is kept as its text, which is parsed where a group is created or altered, and where its options are read. What a text means
//! never changes: the grammar only grows. Never here: when a message is looked at, and what becomes of one that does not pass.

mod decimal;
mod parse;
#[cfg(test)]
mod tests;

pub(crate) use parse::FilterFault;

use super::message::MessageView;
use decimal::Decimal;
use std::cmp::Ordering;
use std::fmt;

/// A filter, which is what its text says.
#[derive(Clone)]
pub(crate) struct Filter {
    text: Box<str>,
    test: FilterTest,
}

/// What a message has to be.
#[derive(Clone, Debug)]
enum FilterTest {
    Any(Vec<FilterTest>),
    All(Vec<FilterTest>),
    Not(Box<FilterTest>),
    /// A header of this name is there whose value is so.
    Header {
        name: Box<str>,
        value: ValueTest,
    },
}

/// What the value of a header has to be.
#[derive(Clone, Debug)]
enum ValueTest {
    Anything,
    OneOf(Vec<Box<str>>),
    Prefix(Box<str>),
    /// Words between dots, of which `*` stands for any one, and `>` at the end for one or more.
    Pattern(Box<str>),
    /// A decimal number that compares so with this one.
    Number(Comparison, Box<str>),
}

/// How one number compares with another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Filter {
    /// The filter that a text is.
    ///
    /// # Errors
    /// Where the text is none, and what would be one.
    pub(crate) fn parse(text: &str) -> Result<Self, FilterFault> {
        Ok(Self { test: parse::parse(text)?, text: text.into() })
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether a message passes.
    pub(crate) fn passes(&self, message: &MessageView<'_>) -> bool {
        // seam: a filter passes everything
        self.test.holds(message)
    }
}

impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Filter {}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Filter({:?})", self.text)
    }
}

impl FilterTest {
    fn holds(&self, message: &MessageView<'_>) -> bool {
        match self {
            Self::Any(tests) => tests.iter().any(|test| test.holds(message)),
            Self::All(tests) => tests.iter().all(|test| test.holds(message)),
            Self::Not(test) => !test.holds(message),
            // seam: of a header that comes twice the first counts
            Self::Header { name, value } => message.headers().any(|(of, found)| of == &**name && value.holds(found)),
        }
    }
}

impl ValueTest {
    fn holds(&self, found: &[u8]) -> bool {
        match self {
            Self::Anything => true,
            Self::OneOf(texts) => texts.iter().any(|text| text.as_bytes() == found),
            Self::Prefix(text) => found.starts_with(text.as_bytes()),
            Self::Pattern(pattern) => is_match(pattern, found),
            Self::Number(comparison, number) => {
                let compared = Decimal::parse(found).zip(Decimal::parse(number.as_bytes()));
                compared.is_some_and(|(found, number)| comparison.holds(found.cmp(&number)))
            }
        }
    }
}

impl Comparison {
    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
        }
    }
}

/// Whether the words of a value are those of a pattern.
fn is_match(pattern: &str, found: &[u8]) -> bool {
    let mut words = found.split(|byte| *byte == b'.');
    for wanted in pattern.as_bytes().split(|byte| *byte == b'.') {
        match (wanted, words.next()) {
            (_, None) => return false,
            (b">", Some(_)) => return true,
            (b"*", Some(_)) => {}
            (wanted, Some(word)) if wanted == word => {}
            (_, Some(_)) => return false,
        }
    }
    // seam: a star stands for several words
    words.next().is_none()
}
