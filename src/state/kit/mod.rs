//! Plain data structures that a state is made of.
//!
//! What changes and is part of a snapshot lies in pages that a state shares with its snapshots: a snapshot copies pointers, and
//! a writer of a shared page copies that page first. Never here: what anything in them means.

pub(super) mod memory;
pub(crate) mod named;
pub(super) mod offsets;
pub(super) mod prehashed;
pub(super) mod ring;
pub(crate) mod sparse;
pub(super) mod tree;
