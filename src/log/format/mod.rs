//! What the log's files contain, as bytes and as values: frames, headers, control frames, manifests, `STORE`.
//!
//! Pure but for the random draws that a caller passes in. For files see `read`, `write` and `recover`.

pub(in crate::log) mod bytes;
pub(in crate::log) mod checkpoint;
pub(in crate::log) mod checksum;
pub(in crate::log) mod class;
pub(in crate::log) mod control;
pub(in crate::log) mod frame;
pub(in crate::log) mod header;
pub(in crate::log) mod name;
pub(in crate::log) mod segment_info;
pub(in crate::log) mod store_file;
