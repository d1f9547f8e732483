//! From the text of a filter to what it says.
//!
//! ```text
//! filter  all { "or" all }
//! all     one { "and" one }
//! one     "not" one | "(" filter ")" | header test
//! header  name | "any text in double quotes"
//! test    "exists" | "=" text | "=" number | "in" "(" text { "," text } ")" | "starts" "with" text | "matches" text
//!         | "<" number | "<=" number | ">" number | ">=" number
//! ```
//! A name begins with a letter or `_`, and goes on with letters, digits, `_`, `-`, `.` and `:`. Never here: messages.

use super::decimal::Decimal;
use super::{Comparison, FilterTest, ValueTest};
use crate::limits::FILTER_LEN_MAX;

/// How deep parentheses and `not` may be nested.
const DEPTH_MAX: usize = 16;

/// Why a text is no filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FilterFault {
    /// The first character that does not fit, counted from 1; one behind the last where the text is cut short.
    pub(crate) column: usize,
    /// What would fit there.
    pub(crate) expected: &'static str,
}

/// What a text is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
enum FilterToken<'a> {
    /// A name, or a word that means something.
    Word(&'a str),
    /// In double quotes.
    Name(String),
    /// In single quotes.
    Text(String),
    Number(&'a str),
    /// A sign: `(`, `)`, `,`, `=`, `<`, `<=`, `>` or `>=`.
    Sign(&'a str),
    End,
}

struct Parser<'a> {
    text: &'a str,
    /// The next piece, where it begins, and where it ends.
    next: FilterToken<'a>,
    at: usize,
    end: usize,
    depth: usize,
}

type Parsed<T> = Result<T, FilterFault>;

pub(super) fn parse(text: &str) -> Parsed<FilterTest> {
    if text.len() > FILTER_LEN_MAX {
        let column = text.char_indices().take_while(|(at, _)| *at < FILTER_LEN_MAX).count() + 1;
        return Err(FilterFault { column, expected: "the end: a filter has 1,024 bytes at most" });
    }
    let mut parser = Parser { text, next: FilterToken::End, at: 0, end: 0, depth: 0 };
    parser.advance()?;
    let test = parser.any()?;
    match parser.next {
        FilterToken::End => Ok(test),
        _ => Err(parser.fault("`and`, `or` or the end")),
    }
}

impl<'a> Parser<'a> {
    fn fault_at(&self, at: usize, expected: &'static str) -> FilterFault {
        let before = self.text.get(..at).unwrap_or(self.text);
        // seam: an error points at the byte
        FilterFault { column: before.chars().count() + 1, expected }
    }

    fn fault(&self, expected: &'static str) -> FilterFault {
        self.fault_at(self.at, expected)
    }

    /// Goes on to the next piece.
    fn advance(&mut self) -> Parsed<()> {
        let rest = self.text.get(self.end..).unwrap_or_default();
        let blank = rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
        self.at = self.end + blank;
        let rest = rest.get(blank..).unwrap_or_default();
        let (next, len) = match rest.as_bytes() {
            [] => (FilterToken::End, 0),
            [b'\'', ..] => self.quoted(rest, '\'').map(|(text, len)| (FilterToken::Text(text), len))?,
            [b'"', ..] => self.quoted(rest, '"').map(|(name, len)| (FilterToken::Name(name), len))?,
            [b'<' | b'>', b'=', ..] => (FilterToken::Sign(&rest[..2]), 2),
            [b'(' | b')' | b',' | b'=' | b'<' | b'>', ..] => (FilterToken::Sign(&rest[..1]), 1),
            [b'-' | b'0'..=b'9', ..] => {
                let len = rest.bytes().take_while(|byte| matches!(byte, b'-' | b'.' | b'0'..=b'9')).count();
                let number = &rest[..len];
                Decimal::parse(number.as_bytes()).ok_or(self.fault("a number like 10, -3 or 2.50"))?;
                (FilterToken::Number(number), len)
            }
            [b'a'..=b'z' | b'A'..=b'Z' | b'_', ..] => {
                let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.:".contains(byte);
                let len = rest.bytes().take_while(is_of_name).count();
                (FilterToken::Word(&rest[..len]), len)
            }
            _ => return Err(self.fault("a header, a text in single quotes, a number or a sign")),
        };
        (self.next, self.end) = (next, self.at + len);
        Ok(())
    }

    /// What stands in quotes at the beginning of `rest`, in which two of them stand for one, and how long it is with them.
    fn quoted(&self, rest: &str, quote: char) -> Parsed<(String, usize)> {
        let mut text = String::new();
        let mut left = rest.char_indices().skip(1).peekable();
        while let Some((at, char)) = left.next() {
            if char != quote {
                text.push(char);
            } else if left.next_if(|(_, next)| *next == quote).is_some() {
                text.push(quote);
            } else {
                return Ok((text, at + 1));
            }
        }
        Err(self.fault_at(self.text.len(), "the quote that ends the text"))
    }

    /// Takes this word or sign, if it comes next.
    fn takes(&mut self, wanted: &str) -> Parsed<bool> {
        let is_next = matches!(&self.next, FilterToken::Word(found) | FilterToken::Sign(found) if *found == wanted);
        if is_next {
            self.advance()?;
        }
        Ok(is_next)
    }

    fn take(&mut self, wanted: &str, expected: &'static str) -> Parsed<()> {
        if self.takes(wanted)? { Ok(()) } else { Err(self.fault(expected)) }
    }

    fn any(&mut self) -> Parsed<FilterTest> {
        let mut tests = vec![self.all()?];
        while self.takes("or")? {
            tests.push(self.all()?);
        }
        Ok(if tests.len() > 1 { FilterTest::Any(tests) } else { tests.remove(0) })
    }

    fn all(&mut self) -> Parsed<FilterTest> {
        let mut tests = vec![self.one()?];
        while self.takes("and")? {
            tests.push(self.one()?);
        }
        Ok(if tests.len() > 1 { FilterTest::All(tests) } else { tests.remove(0) })
    }

    fn one(&mut self) -> Parsed<FilterTest> {
        if self.depth == DEPTH_MAX {
            return Err(self.fault("less: parentheses and `not` are nested 16 deep at most"));
        }
        self.depth += 1;
        let test = if self.takes("not")? {
            FilterTest::Not(Box::new(self.one()?))
        } else if self.takes("(")? {
            let test = self.any()?;
            self.take(")", "`and`, `or` or `)`")?;
            test
        } else {
            self.header()?
        };
        self.depth -= 1;
        Ok(test)
    }

    fn header(&mut self) -> Parsed<FilterTest> {
        const WORDS: [&str; 8] = ["and", "or", "not", "exists", "in", "starts", "with", "matches"];
        let name: Box<str> = match &self.next {
            FilterToken::Word(name) if !WORDS.contains(name) => (*name).into(),
            FilterToken::Name(name) => name.as_str().into(),
            FilterToken::Word(_)
            | FilterToken::Text(_)
            | FilterToken::Number(_)
            | FilterToken::Sign(_)
            | FilterToken::End => {
                return Err(
                    self.fault("a header, `not` or `(`; in double quotes if its name is another word of filters")
                );
            }
        };
        self.advance()?;
        Ok(FilterTest::Header { name, value: self.value()? })
    }

    fn value(&mut self) -> Parsed<ValueTest> {
        if self.takes("exists")? {
            return Ok(ValueTest::Anything);
        }
        if self.takes("in")? {
            return self.list().map(ValueTest::OneOf);
        }
        if self.takes("starts")? {
            self.take("with", "`with`")?;
            return self.text().map(ValueTest::Prefix);
        }
        if self.takes("matches")? {
            return self.pattern().map(ValueTest::Pattern);
        }
        let comparison = match self.next {
            FilterToken::Sign("=") => Comparison::Equal,
            FilterToken::Sign("<") => Comparison::Less,
            FilterToken::Sign("<=") => Comparison::LessOrEqual,
            FilterToken::Sign(">") => Comparison::Greater,
            FilterToken::Sign(">=") => Comparison::GreaterOrEqual,
            FilterToken::Word(_)
            | FilterToken::Name(_)
            | FilterToken::Text(_)
            | FilterToken::Number(_)
            | FilterToken::Sign(_)
            | FilterToken::End => {
                return Err(self.fault("`=`, `<`, `<=`, `>`, `>=`, `in`, `starts with`, `matches` or `exists`"));
            }
        };
        self.advance()?;
        match &self.next {
            FilterToken::Number(number) => {
                let number = (*number).into();
                self.advance()?;
                Ok(ValueTest::Number(comparison, number))
            }
            FilterToken::Text(_) if comparison == Comparison::Equal => Ok(ValueTest::OneOf(vec![self.text()?])),
            FilterToken::Word(_)
            | FilterToken::Name(_)
            | FilterToken::Text(_)
            | FilterToken::Sign(_)
            | FilterToken::End => {
                let is_equal = comparison == Comparison::Equal;
                Err(self.fault(if is_equal { "a text in single quotes or a number" } else { "a number" }))
            }
        }
    }

    fn text(&mut self) -> Parsed<Box<str>> {
        let FilterToken::Text(text) = &self.next else { return Err(self.fault("a text in single quotes")) };
        let text = text.as_str().into();
        self.advance()?;
        Ok(text)
    }

    fn list(&mut self) -> Parsed<Vec<Box<str>>> {
        self.take("(", "`(`")?;
        let mut texts = vec![self.text()?];
        while self.takes(",")? {
            texts.push(self.text()?);
        }
        self.take(")", "`,` or `)`")?;
        Ok(texts)
    }

    fn pattern(&mut self) -> Parsed<Box<str>> {
        let fault = self.fault("words between dots in single quotes: `*` for any one, `>` at the end for one or more");
        let pattern = self.text()?;
        let count = pattern.split('.').count();
        let is_word = |(nth, word): (usize, &str)| match word {
            "" => false,
            ">" => nth + 1 == count,
            "*" => true,
            word => !word.contains(['*', '>']),
        };
        if pattern.split('.').enumerate().all(is_word) { Ok(pattern) } else { Err(fault) }
    }
}
