//! Reading a topic as a log.
//!
//! Never here: leases.

pub(super) mod log_reader;
pub(super) mod log_start;
