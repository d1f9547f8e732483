//! The names of files: one type formats and parses them.
//!
//! Never here: any name that a user chose, and any file.

use crate::ids::FileNumber;
use std::fmt;

/// A file of a store, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum FileName {
    /// What identifies the store, and its slots.
    Store,
    /// Frames, in the order in which they were appended.
    Segment(FileNumber),
    /// Messages of a range of the log.
    Messages(FileNumber),
    /// Dead letters of a range of the log.
    DeadLetters(FileNumber),
    /// The state at an LSN.
    Checkpoint(FileNumber),
    /// Derived: where the segment or file of a class with the same number holds what.
    Index(FileNumber),
}

impl FileName {
    /// The file of this name, or `None` for a name that is not of this grammar.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        if name == "STORE" {
            return Some(Self::Store);
        }
        let (digits, suffix) = name.split_at_checked(16)?;
        if !digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        let number = FileNumber(u64::from_str_radix(digits, 16).ok()?);
        match suffix {
            ".seg" => Some(Self::Segment(number)),
            ".msg" => Some(Self::Messages(number)),
            ".dead" => Some(Self::DeadLetters(number)),
            ".ckp" => Some(Self::Checkpoint(number)),
            ".idx" => Some(Self::Index(number)),
            _ => None,
        }
    }

    /// The number in the name.
    pub(crate) const fn number(self) -> Option<FileNumber> {
        match self {
            Self::Store => None,
            Self::Segment(number)
            | Self::Messages(number)
            | Self::DeadLetters(number)
            | Self::Checkpoint(number)
            | Self::Index(number) => Some(number),
        }
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store => f.write_str("STORE"),
            Self::Segment(number) => write!(f, "{:016x}.seg", number.0),
            Self::Messages(number) => write!(f, "{:016x}.msg", number.0),
            Self::DeadLetters(number) => write!(f, "{:016x}.dead", number.0),
            Self::Checkpoint(number) => write!(f, "{:016x}.ckp", number.0),
            Self::Index(number) => write!(f, "{:016x}.idx", number.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        for number in [0, 1, 0xabc, u64::MAX].map(FileNumber) {
            let of_class = [FileName::Messages(number), FileName::DeadLetters(number)];
            let others = [FileName::Segment(number), FileName::Checkpoint(number), FileName::Index(number)];
            for name in of_class.into_iter().chain(others) {
                assert_eq!(FileName::parse(&name.to_string()), Some(name));
                assert_eq!(name.number(), Some(number));
            }
        }
        assert_eq!(FileName::parse("STORE"), Some(FileName::Store));
        assert_eq!(FileName::Segment(FileNumber(0xab)).to_string(), "00000000000000ab.seg");
    }

    #[test]
    fn strays_are_not_ours() {
        let strays = [
            "",
            "STORE ",
            "store",
            ".DS_Store",
            "lost+found",
            "00000000000000AB.seg",
            "0000000000000ab.seg",
            "00000000000000ab.seg~",
            "00000000000000ab.SEG",
            "00000000000000ab",
            "+0000000000000ab.seg",
            "0000000000000\u{e9}ab.seg",
        ];
        for stray in strays {
            assert_eq!(FileName::parse(stray), None, "{stray}");
        }
    }
}
