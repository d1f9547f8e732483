//! From a directory to a log: the directory scan, the log scan, the tail scan, the table of cases, and its execution.
//!
//! Everything up to `plan` reads only; `execute` writes new files and the slots of `STORE`. `repair` makes a plan where there is none,
//! and is asked for.

pub(in crate::log) mod backup;
pub(in crate::log) mod chain;
pub(in crate::log) mod directory;
pub(in crate::log) mod execute;
mod left;
pub(in crate::log) mod manifest;
mod mend;
pub(in crate::log) mod observe;
pub(in crate::log) mod plan;
pub(in crate::log) mod repair;
pub(in crate::log) mod scan;
pub(in crate::log) mod tail_scan;
