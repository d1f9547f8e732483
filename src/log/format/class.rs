//! The two classes of what the log holds: messages, and dead letters.
//!
//! An appended segment holds both. Below the horizon files of one class take its place, and each class tiles the axis of LSNs on its
//! own: with its files, the segments that still serve it, and the ranges of it that were retired. Never here: which message is of
//! which class.

use crate::ids::Lsn;

/// What a file that was written whole holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Messages,
    DeadLetters,
}

impl Class {
    pub(crate) const EACH: [Self; 2] = [Self::Messages, Self::DeadLetters];

    /// Also its bit in [`Classes`].
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Messages => 1,
            Self::DeadLetters => 2,
        }
    }

    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Messages => Self::DeadLetters,
            Self::DeadLetters => Self::Messages,
        }
    }

    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Messages),
            2 => Some(Self::DeadLetters),
            _ => None,
        }
    }
}

/// Some of the classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Classes(u8);

impl Classes {
    pub(crate) const BOTH: Self = Self(3);

    pub(crate) const fn of(class: Class) -> Self {
        Self(class.code())
    }

    /// At least one class.
    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        match code {
            1..=3 => Some(Self(code)),
            _ => None,
        }
    }

    pub(crate) const fn code(self) -> u8 {
        self.0
    }

    pub(crate) const fn contains(self, class: Class) -> bool {
        self.0 & class.code() != 0
    }

    pub(crate) const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// The ranges of each class that were given up: disjoint and in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Retired {
    messages: Vec<(Lsn, Lsn)>,
    dead_letters: Vec<(Lsn, Lsn)>,
}

impl Retired {
    pub(crate) fn of(&self, class: Class) -> &[(Lsn, Lsn)] {
        match class {
            Class::Messages => &self.messages,
            Class::DeadLetters => &self.dead_letters,
        }
    }

    pub(in crate::log) const fn of_mut(&mut self, class: Class) -> &mut Vec<(Lsn, Lsn)> {
        match class {
            Class::Messages => &mut self.messages,
            Class::DeadLetters => &mut self.dead_letters,
        }
    }

    /// Gives up a range in some classes.
    pub(crate) fn add(&mut self, classes: Classes, from: Lsn, to: Lsn) {
        for class in Class::EACH.into_iter().filter(|class| classes.contains(*class)) {
            merge_range(self.of_mut(class), from, to);
        }
    }
}

/// Adds `from..to` to disjoint sorted ranges, joining what touches.
pub(in crate::log) fn merge_range(ranges: &mut Vec<(Lsn, Lsn)>, from: Lsn, to: Lsn) {
    let (mut from, mut to) = (from, to);
    ranges.retain(|(start, end)| {
        let apart = *end < from || *start > to;
        if !apart {
            from = from.min(*start);
            to = to.max(*end);
        }
        apart
    });
    let index = ranges.partition_point(|(start, _)| *start < from);
    ranges.insert(index, (from, to));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_join_what_touches() {
        let mut ranges = Vec::new();
        for (from, to) in [(64, 80), (0, 8), (16, 24), (8, 16), (72, 96), (200, 208)] {
            merge_range(&mut ranges, Lsn(from), Lsn(to));
        }
        assert_eq!(ranges, [(Lsn(0), Lsn(24)), (Lsn(64), Lsn(96)), (Lsn(200), Lsn(208))]);
        merge_range(&mut ranges, Lsn(24), Lsn(200));
        assert_eq!(ranges, [(Lsn(0), Lsn(208))]);
    }

    #[test]
    fn a_range_is_given_up_in_the_classes_that_are_named() {
        let mut retired = Retired::default();
        retired.add(Classes::of(Class::DeadLetters), Lsn(8), Lsn(16));
        retired.add(Classes::BOTH, Lsn(16), Lsn(24));
        assert_eq!(retired.of(Class::Messages), [(Lsn(16), Lsn(24))]);
        assert_eq!(retired.of(Class::DeadLetters), [(Lsn(8), Lsn(24))]);
    }

    #[test]
    fn codes_come_back() {
        for code in 0..=4 {
            assert_eq!(Class::from_code(code).map(Class::code), (1..=2).contains(&code).then_some(code));
            assert_eq!(Classes::from_code(code).map(Classes::code), (1..=3).contains(&code).then_some(code));
        }
        assert!(Classes::BOTH.without(Classes::of(Class::Messages)).contains(Class::DeadLetters));
        assert!(Classes::BOTH.without(Classes::BOTH).is_empty());
    }
}
