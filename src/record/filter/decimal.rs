//! Decimal numbers as text, compared exactly whatever their length.
//!
//! Never here: arithmetic.

use std::cmp::Ordering;

/// A number: digits without zeros that say nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decimal<'a> {
    is_negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
}

impl<'a> Decimal<'a> {
    /// The number that a text is: digits, maybe a sign before them, maybe a point and more digits behind them.
    pub(super) fn parse(text: &'a [u8]) -> Option<Self> {
        let (is_negative, digits) = match text {
            [b'-', digits @ ..] => (true, digits),
            digits => (false, digits),
        };
        let point = digits.iter().position(|byte| *byte == b'.');
        let (whole, fraction) = match point {
            Some(at) => (&digits[..at], Some(&digits[at + 1..])),
            None => (digits, None),
        };
        let is_number = |digits: &[u8]| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        if !is_number(whole) || !fraction.is_none_or(is_number) {
            return None;
        }
        let leading = whole.iter().take_while(|digit| **digit == b'0').count();
        let fraction = fraction.unwrap_or_default();
        let trailing = fraction.iter().rev().take_while(|digit| **digit == b'0').count();
        let (whole, fraction) = (&whole[leading..], &fraction[..fraction.len() - trailing]);
        // There is one zero.
        let is_zero = whole.is_empty() && fraction.is_empty();
        Some(Self { is_negative: is_negative && !is_zero, whole, fraction })
    }
}

impl Ord for Decimal<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let sizes = |one: &Self, two: &Self| {
            let wholes = one.whole.len().cmp(&two.whole.len()).then_with(|| one.whole.cmp(two.whole));
            wholes.then_with(|| one.fraction.cmp(two.fraction))
        };
        match (self.is_negative, other.is_negative) {
            (false, false) => sizes(self, other),
            // seam: numbers below zero compare as those above
            (true, true) => sizes(other, self),
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
        }
    }
}

impl PartialOrd for Decimal<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
