//! Tables in Markdown, for the terminal and for the documentation.
//!
//! Never here: what the numbers mean.

use super::call::is_tiny;
use super::say;
use super::wrap::wrapped;
use hdrhistogram::Histogram;
use std::fmt::Write;
use std::path::Path;

pub(crate) struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(columns: &[&str]) -> Self {
        Self { columns: columns.iter().map(|&column| column.to_owned()).collect(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.columns.len(), "a cell for each column");
        self.rows.push(cells);
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// As Markdown. The first column is text, the others are aligned to the right.
    pub(crate) fn markdown(&self) -> String {
        let lines = || std::iter::once(&self.columns).chain(&self.rows);
        let width = |column: usize| lines().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut text = String::new();
        for (index, line) in lines().enumerate() {
            for (column, cell) in line.iter().enumerate() {
                let width = widths[column];
                // Writing to a string cannot fail.
                let _ = if column == 0 { write!(text, "| {cell:width$} ") } else { write!(text, "| {cell:>width$} ") };
            }
            text.push_str("|\n");
            if index == 0 {
                let rule = |(column, width): (usize, &usize)| match column {
                    0 => format!("| {} ", "-".repeat(*width)),
                    _ => format!("| {}: ", "-".repeat(width.saturating_sub(1))),
                };
                text.extend(widths.iter().enumerate().map(rule));
                text.push_str("|\n");
            }
        }
        text
    }
}

/// Writes `text` to `docs/measured/name` if `MILLPOND_WRITE_DOCS=1` and this was a full run.
pub(crate) fn write(name: &str, text: &str) {
    if is_tiny() || std::env::var_os("MILLPOND_WRITE_DOCS").is_none_or(|value| value != "1") {
        return;
    }
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/measured");
    std::fs::create_dir_all(&directory).expect("create the directory of documents");
    std::fs::write(directory.join(name), wrapped(text)).expect("write the document");
    say(&format!("Wrote docs/measured/{name}."));
}

/// A duration in nanoseconds with three digits and a fitting unit.
pub(crate) fn duration(ns: f64) -> String {
    match ns {
        ns if ns < 1e3 => format!("{} ns", digits(ns)),
        ns if ns < 1e6 => format!("{} us", digits(ns / 1e3)),
        ns if ns < 1e9 => format!("{} ms", digits(ns / 1e6)),
        ns => format!("{} s", digits(ns / 1e9)),
    }
}

/// A count or rate with three digits.
pub(crate) fn count(value: f64) -> String {
    match value {
        value if value < 1e3 => digits(value),
        value if value < 1e6 => format!("{} k", digits(value / 1e3)),
        value => format!("{} M", digits(value / 1e6)),
    }
}

/// Three significant digits of a number below a thousand.
pub(crate) fn digits(value: f64) -> String {
    match value {
        value if value < 10.0 => format!("{value:.2}"),
        value if value < 100.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

/// The cells of a latency distribution: these quantiles, and the greatest value.
pub(crate) fn quantiles(latencies: &Histogram<u64>, quantiles: &[f64]) -> Vec<String> {
    let at = |quantile: &f64| duration(latencies.value_at_quantile(*quantile) as f64);
    quantiles.iter().map(at).chain([duration(latencies.max() as f64)]).collect()
}
