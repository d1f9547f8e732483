//! From the log to consumers and back: leasing, reading, settling, dead letters, and who waits.
//!
//! Never here: publishing.

#[cfg(feature = "async")]
pub(super) mod asks;
pub(super) mod dead_letters;
pub(super) mod kept;
pub(super) mod keys;
pub(super) mod leased;
pub(super) mod moves;
pub(super) mod notices;
pub(super) mod receive;
pub(super) mod settle;
#[cfg(any(test, feature = "simulation"))]
pub(super) mod sleepers;
