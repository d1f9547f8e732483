//! What reading and opening a log can meet.
//!
//! Never here: errors of appending, which change nothing.

pub(crate) use crate::error::Corruption;
use crate::log::format::name::FileName;
use std::{fmt, io};

/// Why bytes could not be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The disk did not give them.
    Io { file: FileName, source: io::Error },
    /// They are not what was written.
    Damaged { file: FileName, at: u64, reason: &'static str },
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { file, source } => write!(f, "reading {file} failed: {source}"),
            Self::Damaged { file, at, reason } => write!(f, "{file} is damaged at byte {at}: {reason}"),
        }
    }
}

impl Corruption {
    /// What is wrong with a file, before it is known which LSNs that concerns.
    pub(crate) fn of(file: FileName, offset: Option<u64>, reason: &'static str) -> Self {
        Self { file: file.to_string(), offset, lsns: None, reason }
    }
}

/// Why a log could not be opened.
#[derive(Debug)]
pub(crate) enum OpenError {
    Corrupt(Corruption),
    /// A file of another store lies in the directory.
    ForeignFile {
        file: String,
    },
    /// Written by a later version of this code. `found` names the format, and the features that this version does not know.
    NewerFormat {
        file: String,
        found: String,
        supported: String,
    },
    Io {
        context: &'static str,
        file: String,
        source: io::Error,
    },
}

impl OpenError {
    pub(crate) fn io(context: &'static str, file: FileName) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { context, file: file.to_string(), source }
    }
}

impl From<Corruption> for OpenError {
    fn from(corruption: Corruption) -> Self {
        Self::Corrupt(corruption)
    }
}

impl From<ReadError> for OpenError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io { file, source } => Self::io("read", file)(source),
            ReadError::Damaged { file, at, reason } => Self::Corrupt(Corruption::of(file, Some(at), reason)),
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corrupt(corruption) => corruption.fmt(f),
            Self::ForeignFile { file } => write!(f, "{file} belongs to another store"),
            Self::NewerFormat { file, found, supported } => {
                write!(f, "{file} has {found}; this version reads {supported}")
            }
            Self::Io { context, file, source } => write!(f, "{context} {file}: {source}"),
        }
    }
}
