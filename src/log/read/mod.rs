//! Reading what the log holds: segments, the catalog of them, frames, single parts, index files, caches.
//!
//! Never changes a file, and needs nothing of `write`: what only reads can be had without the writer's lock.

pub(in crate::log) mod cache;
pub(in crate::log) mod catalog;
pub(in crate::log) mod frames;
pub(in crate::log) mod fronts;
pub(in crate::log) mod handles;
pub(in crate::log) mod index;
pub(in crate::log) mod part;
pub(in crate::log) mod segment;
pub(in crate::log) mod window;
