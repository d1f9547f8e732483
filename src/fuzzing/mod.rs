//! Fuzz targets: functions that take any bytes and panic where a promise is broken.
//!
//! `fuzz/` runs them under libFuzzer, `tests/fuzz` over the committed corpora and what it makes of them. Each says whether an
//! input got behind the outer checks. Those of the log alone are in `log/fuzzing`. Never here: anything that a
//! library without the simulation has.

#![allow(clippy::unwrap_used, reason = "a target panics where a promise is broken")]
#![allow(missing_docs, reason = "no part of the stable API")]

mod classes;
mod mutate;
mod names;
mod observe;
mod operations;
mod records;
mod rich;
mod scripts;
mod state;
mod stores;

pub use crate::log::fuzzing::{frame, header, index, section, stream};
pub use classes::{Cleaned, clean};
pub use mutate::mutate;
pub use names::names;
pub use observe::{Observed, observe};
pub use operations::operations;
pub use records::{kinds, record};
pub use rich::{Rich, open, rich};
pub use state::{checkpoint, fold};
pub use stores::{directory, directory_disk, seal, segment};

/// A target, and whether an input reached what is behind its outer checks.
pub type Target = fn(&[u8]) -> bool;

/// All targets by name.
pub const TARGETS: [(&str, Target); 12] = [
    ("checkpoint", checkpoint),
    ("directory", directory),
    ("fold", fold),
    ("frame", frame),
    ("header", header),
    ("index", index),
    ("names", names),
    ("operations", operations),
    ("record", record),
    ("section", section),
    ("segment", segment),
    ("stream", stream),
];

/// The inputs that the committed corpora begin with: target, name and bytes.
#[must_use]
pub fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut all = crate::log::fuzzing::seeds::all();
    all.extend(records::seeds());
    all.extend(state::seeds());
    all.extend(names::seeds());
    all.extend(stores::seeds());
    all.extend(scripts::seeds());
    all
}
