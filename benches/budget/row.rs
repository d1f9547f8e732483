//! The parts of the table: lines with their bounds, and how a figure is judged by one.
//!
//! Never here: measuring.

use super::common::Arena;
use super::common::table;

/// Lines that are measured together.
pub(crate) struct Section {
    /// What the command line knows it by.
    pub(crate) name: &'static str,
    pub(crate) lines: &'static [Line],
    /// One run: a sample for each line.
    pub(crate) measure: fn(&Arena) -> Vec<Sample>,
}

/// A line of the table.
pub(crate) struct Line {
    pub(crate) what: &'static str,
    pub(crate) unit: Unit,
    pub(crate) bound: Bound,
}

/// What one run found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) floor: Option<f64>,
    /// `None` where this machine does not tell.
    pub(crate) measured: Option<f64>,
    /// p99.99 of a call, in nanoseconds.
    pub(crate) tail_ns: Option<f64>,
}

impl Sample {
    pub(crate) fn of(measured: f64) -> Self {
        Self { floor: None, measured: Some(measured), tail_ns: None }
    }

    pub(crate) fn floor(self, floor: f64) -> Self {
        Self { floor: Some(floor), ..self }
    }

    pub(crate) fn tail(self, latencies: &hdrhistogram::Histogram<u64>) -> Self {
        Self { tail_ns: Some(latencies.value_at_quantile(0.9999) as f64), ..self }
    }
}

#[derive(Clone, Copy)]
pub(crate) enum Unit {
    Nanoseconds,
    PerSecond,
    Bytes,
}

impl Unit {
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Nanoseconds => table::duration(value),
            Self::PerSecond => format!("{}/s", table::count(value)),
            Self::Bytes if value >= f64::from(1 << 20) => format!("{} MiB", table::digits(value / f64::from(1 << 20))),
            Self::Bytes => format!("{} B", (value * 10.0).round() / 10.0),
        }
    }
}

/// What a figure is held to.
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    Most(f64),
    Least(f64),
    MostTimesFloor(f64),
    LeastTimesFloor(f64),
    /// A figure, and the ratio to the floor that it was on the machine where it was set.
    Either {
        figure: f64,
        times: f64,
    },
}

impl Bound {
    pub(crate) fn show(self, unit: Unit) -> String {
        match self {
            Self::Most(figure) => format!("<= {}", unit.show(figure)),
            Self::Least(figure) => format!(">= {}", unit.show(figure)),
            Self::MostTimesFloor(times) => format!("<= {times} x floor"),
            Self::LeastTimesFloor(times) => format!(">= {times} x floor"),
            Self::Either { figure, times } => format!("<= {}, {times} x floor", unit.show(figure)),
        }
    }

    pub(crate) fn verdict(self, measured: Option<f64>, ratio: Option<f64>) -> &'static str {
        let Some(measured) = measured else { return "not measured" };
        let ratio_holds = |holds: fn(f64, f64) -> bool, times| ratio.is_some_and(|ratio| holds(ratio, times));
        let at_most = |value, bound| value <= bound;
        let at_least = |value, bound| value >= bound;
        let met = match self {
            Self::Most(figure) => measured <= figure,
            Self::Least(figure) => measured >= figure,
            Self::MostTimesFloor(times) => ratio_holds(at_most, times),
            Self::LeastTimesFloor(times) => ratio_holds(at_least, times),
            Self::Either { figure, times } => match (measured <= figure, ratio_holds(at_most, times)) {
                (true, false) => return "met by figure",
                (false, true) => return "met by ratio",
                (both, _) => both,
            },
        };
        if met { "met" } else { "missed" }
    }
}
