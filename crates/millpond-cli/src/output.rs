//! Printing results and failures.
//!
//! Never here: what is printed.

use crate::args::Output;
use crate::text::plain;
use comfy_table::{ContentArrangement, Table, presets};
use millpond::{Error, ErrorKind};
use serde_json::Value;
use std::fmt;
use std::io::{self, Write};

/// Why a command ends without its result.
#[derive(Debug)]
pub enum Failure {
    /// The store refused.
    Store(Error),
    /// The store refused a part of the work.
    Partly(String, Box<Error>),
    /// What was asked for is not there.
    Missing(String),
    /// The command line, or what it names, is wrong.
    Usage(String),
    /// Something outside of the store failed.
    Io(String, io::Error),
    /// The store is damaged, as was printed.
    Damaged(String),
    /// A question was answered with no.
    Declined,
    /// Nobody reads the output any more.
    Closed,
}

impl Failure {
    pub fn code(&self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::Store(Error::Locked { .. }) => 3,
            Self::Damaged(_) | Self::Store(Error::Corrupt(_) | Error::Unreadable { .. }) => 5,
            Self::Store(
                Error::NotFound { .. }
                | Error::NoSuchDeadLetter { .. }
                | Error::NotScheduled { .. }
                | Error::NotAStore { .. },
            )
            | Self::Missing(_) => 4,
            Self::Usage(_) => 2,
            Self::Store(error) if error.kind() == ErrorKind::FixCall => 2,
            Self::Declined | Self::Store(_) | Self::Partly(..) | Self::Io(..) => 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(Error::NotFound { what, name }) => write!(f, "{what} {name:?} does not exist"),
            Self::Store(Error::NotAStore { path, .. }) => {
                write!(f, "{} is no store; give --store or set MILLPOND_STORE", path.display())
            }
            Self::Store(error) => error.fmt(f),
            Self::Partly(what, error) => write!(f, "{error} ({what})"),
            Self::Declined => f.write_str("nothing was changed"),
            Self::Missing(text) | Self::Usage(text) | Self::Damaged(text) => f.write_str(text),
            Self::Io(what, error) => write!(f, "{what}: {error}"),
            Self::Closed => f.write_str("the output was closed"),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

pub type Done<T = ()> = Result<T, Failure>;

/// Where results go.
pub struct Printer {
    output: Output,
    to: io::BufWriter<io::Stdout>,
}

impl Printer {
    pub fn new(output: Output) -> Self {
        Self { output, to: io::BufWriter::new(io::stdout()) }
    }

    pub fn is_json(&self) -> bool {
        self.output == Output::Json
    }

    /// A result: as a line of JSON, or as a line of text.
    pub fn show(&mut self, json: impl FnOnce() -> Value, text: impl FnOnce() -> String) -> Done {
        let line = if self.is_json() { json().to_string() } else { text() };
        let written = writeln!(self.to, "{line}");
        self.check(written)
    }

    /// Rows with a header, or one line of JSON for each.
    pub fn table(&mut self, header: &[&str], rows: Vec<(Vec<String>, Value)>) -> Done {
        if self.is_json() {
            return rows.into_iter().try_for_each(|(_, json)| self.show(|| json, String::new));
        }
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        if let Some((terminal_size::Width(width), _)) = terminal_size::terminal_size_of(io::stdout()) {
            table.set_width(width);
        }
        table.set_header(header);
        table.add_rows(rows.into_iter().map(|(row, _)| row.iter().map(|cell| plain(cell)).collect::<Vec<_>>()));
        let text: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
        let written = writeln!(self.to, "{}", text.join("\n"));
        self.check(written)
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> Done {
        let written = self.to.write_all(bytes);
        self.check(written)
    }

    /// All that was printed is seen.
    pub fn flush(&mut self) -> Done {
        let flushed = self.to.flush();
        self.check(flushed)
    }

    fn check(&self, written: io::Result<()>) -> Done {
        written.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::Closed,
            _ => Failure::Io("could not write the output".to_owned(), error),
        })
    }
}
