//! The table of budgets: for each promise of speed its floor, what was measured, and whether the budget was met.
//!
//! `cargo bench --bench budget` runs all; words after `--` choose rows by name. Each row is the median of three runs, and each
//! run a mean over at least four segments unless its row says otherwise. `MILLPOND_WRITE_DOCS=1` writes `docs/measured/budgets.md`.

#[path = "../common/mod.rs"]
mod common;
mod durable;
mod receiving;
mod row;
mod whole;
mod writing;

use common::table::{self, Table};
use common::{Arena, machine, pick, say};
use row::{Line, Sample, Section};
use std::cell::RefCell;
use std::process::ExitCode;

const RUNS: usize = 3;

// What is paced comes first, on a machine that is at rest.
const SECTIONS: [Section; 11] = [
    whole::PACED,
    writing::ONE_AT_A_TIME,
    writing::IN_BATCHES,
    durable::ALONE,
    durable::BLOCKED,
    durable::PIPELINED,
    receiving::ONE_AT_A_TIME,
    receiving::IN_BATCHES,
    receiving::TOPICS,
    whole::OPENING,
    whole::DISK,
];

fn measure(section: &Section, table: &RefCell<Table>) {
    let runs: Vec<Vec<Sample>> = (0..pick(RUNS, 1))
        .map(|_| {
            let samples = (section.measure)(&Arena::new());
            assert_eq!(samples.len(), section.lines.len(), "a sample for each line");
            samples
        })
        .collect();
    for (index, line) in section.lines.iter().enumerate() {
        let samples: Vec<Sample> = runs.iter().map(|run| run[index]).collect();
        let cells = cells(line, &samples);
        say(&format!("{}: {}, {}", cells[0], cells[2], cells[6]));
        table.borrow_mut().row(cells);
    }
}

/// The cells of a row: each figure is its own median, and so is the ratio.
fn cells(line: &Line, samples: &[Sample]) -> Vec<String> {
    let middle = |value: fn(&Sample) -> Option<f64>| {
        let values: Vec<f64> = samples.iter().filter_map(value).collect();
        (!values.is_empty()).then(|| common::median(values))
    };
    let measured = middle(|sample| sample.measured);
    let ratio = middle(|sample| Some(sample.measured? / sample.floor?));
    let dash = || "-".to_owned();
    let figure = |value: Option<f64>| value.map_or_else(dash, |value| line.unit.show(value));
    vec![
        line.what.to_owned(),
        figure(middle(|sample| sample.floor)),
        figure(measured),
        middle(|sample| sample.tail_ns).map_or_else(dash, table::duration),
        ratio.map_or_else(dash, |ratio| format!("{ratio:.2}")),
        line.bound.show(line.unit),
        pick(line.bound.verdict(measured, ratio), "too small to tell").to_owned(),
    ]
}

const PREFACE: &str = "# Budgets

What millpond may cost, and what it costs, beside the floor: the least that the same machine needs
for the same work, measured in the same run by a few lines of code without topics, leases or
recovery (`benches/common/floor.rs`). Printed by `cargo bench --bench budget`, and written here with
`MILLPOND_WRITE_DOCS=1`; never edited by hand.
";

const NOTES: &str = "
Every figure is the median of three runs. A run of a row about publishing or receiving at `Os`
covers at least four segments of 64 MiB. p99.99 is of single calls, measured in a pass of its own,
and holds the time of reading the clock. A budget given as a figure was set on a machine with 2
cores and a virtual disk; beside it stands the ratio to the floor of that machine, which carries
over to others. \"Met by ratio\" and \"met by figure\" say that only one of the two holds. A machine
that does other work at the same time spoils the figures, and the ratios less.

- Publishing `Disk`, one thread: in the middle of each quarter of four segments, millpond and floor
  in turn. The floor is the better of a mapped store and a positional write, each followed by
  `fdatasync`. Bytes a sync are those written to the device by everybody: the median within a
  quarter, and of the quarters the worst.
- 64 threads: segments of 4 MiB, so that a short run covers four.
- Pipelined: segments of 16 MiB. The floor syncs once for every thousand stores.
- Receiving: messages that wait, taken in order. The floor reads them by 64 KiB, checks and copies
  out each, and appends two small records.
- Before publishing and receiving 4 GiB of memory are touched and freed:
  docs/internals/performance.md says why. What is paced is measured first.
- Many topics: the floor is one topic, by the same code.
- Paced: the latency of a message counts from the moment it was due. The floor hands a number
  through a channel.
- Opening: in a process of its own, with the page cache warm. What a segment adds is told by a
  second store, with the same messages in segments of 4 MiB. Memory is what the open store adds to
  the process.
- Bytes of log: by the log's own axis, so without the unused end of the last segment.
";

fn main() -> ExitCode {
    let columns = ["what", "floor", "measured", "p99.99", "ratio", "budget", "verdict"];
    let table = RefCell::new(Table::new(&columns));
    let parts: Vec<Box<dyn Fn()>> = SECTIONS.iter().map(|section| Box::new(|| measure(section, &table)) as _).collect();
    let named: Vec<(&str, &dyn Fn())> =
        SECTIONS.iter().zip(&parts).map(|(section, part)| (section.name, part.as_ref())).collect();
    common::call::run(&named, || {
        let table = table.borrow();
        say(&format!("\n{}", table.markdown()));
        let lines: usize = SECTIONS.iter().map(|section| section.lines.len()).sum();
        if table.len() == lines {
            let facts = machine::facts(Arena::new().path());
            table::write("budgets.md", &format!("{PREFACE}\n{facts}.\n\n{}{NOTES}", table.markdown()));
        }
    })
}
